"""The two ways in which a command ends badly, each told in one sentence."""

import contextlib
import difflib
import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from sv_utils.base.secret import scrubbed
from sv_utils.base.terminal import printable, without_notices


class RequestError(ValueError):
    """What was asked for or handed in is wrong (exit code 2). The message names the culprit and the mend."""


class WorkError(RuntimeError):
    """A right request could not be carried out (exit code 1). The message names the culprit and the mend."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """
    Say which of the valid words is meant.

    Returns
    -------
    str
        `` (did you mean 'x'?)`` for a near miss, `` (known: a, b, c)`` otherwise.

    Examples
    --------
    >>> nearest("lerning_rate", ["epochs", "learning_rate"])
    " (did you mean 'learning_rate'?)"
    """
    choices = sorted(map(str, choices))
    match = difflib.get_close_matches(str(word), choices)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(choices) or 'none'})"


def command(main: Callable | None = None, *, failed: int = 1) -> Callable:
    """
    Turn the errors of a command line into one sentence on stderr and an exit code, and keep libraries' notices quiet.

    Parameters
    ----------
    main : callable
        Takes the argument list (None: ``sys.argv[1:]``) and returns an exit code, or None for 0.
    failed : int
        Exit code where the work failed; 2 for a command whose 1 is an answer.

    Returns
    -------
    callable
        The same, returning 2 after `RequestError`, and `failed` after everything else that ends it early: a
        `WorkError`, an operating-system error, output that cannot be written, or what nobody foresaw, whose traceback
        goes into a log that the sentence names.

    Examples
    --------
    >>> @command(failed=2)
    ... def main(argv=None):
    ...     return len(argv)
    >>> main(["one"])
    1
    """
    if main is None:
        return functools.partial(command, failed=failed)
    spec = sys.modules["__main__"].__spec__  # of what `python -m` was given
    name = spec.name if main.__module__ == "__main__" and spec else main.__module__
    name = "sv" if name == "sv_utils.base.commands" else name

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        return _ended(main, argv, name, failed)

    return wrapped


def _ended(main: Callable, argv: list[str] | None, name: str, failed: int) -> int:
    """Run a command; its exit code, or that of the error that ended it, which is told under the command's name."""
    _write_anywhere()
    try:
        with without_notices():
            code = main(argv) or 0
            sys.stdout.flush()  # output that cannot be written is told here, not when Python ends
            return code
    except RequestError as error:
        return _say(name, error, 2)
    except KeyboardInterrupt:
        return _say(name, "interrupted", 130 if failed == 1 else failed)
    except BrokenPipeError:  # the reader (head, a pager) left: nothing to tell it
        return _unheard(failed)
    except PermissionError as error:
        place = "name a folder of yours by SV_OUTPUTS, or a file by --store or --out"
        return _say(name, f"{error.strerror or error}: {error.filename or 'the output'}; {place}", failed)
    except (WorkError, OSError) as error:
        return _say(name, error, failed)
    except Exception as error:
        return _say(name, _unforeseen(error), failed)


def _write_anywhere() -> None:
    """Let what a terminal's encoding lacks be written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _unheard(code: int) -> int:
    """Send what is left of the output nowhere, so that Python does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _unforeseen(error: Exception) -> str:
    """Write the traceback into a log, and say in one sentence what happened and where the log is."""
    log = Path(tempfile.gettempdir()) / f"sv_utils-{os.getpid()}.log"
    with contextlib.suppress(OSError):
        log.unlink(missing_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # no link of someone else's is followed
        with open(descriptor, "wb") as file:
            file.write(scrubbed(traceback.format_exc()).encode(errors="backslashreplace"))
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"an unforeseen error, please report it with {log} ({said})"


def _say(name: str, sentence: object, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"{name}: {printable(scrubbed(' '.join(str(sentence).split())))}", file=sys.stderr)
    return _unheard(code) if isinstance(sentence, OSError) else code
