"""The two ways in which a command ends badly, each told in one sentence."""

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable

from sv_utils.base.terminal import without_notices


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
    match = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(choices) or 'none'})"


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """
    Turn the errors of a command line into one sentence on stderr and an exit code, and keep libraries' notices quiet.

    Parameters
    ----------
    main : callable
        Takes the argument list (None: ``sys.argv[1:]``) and returns an exit code, or None for 0.

    Returns
    -------
    callable
        The same, returning 2 after `RequestError`, 1 after `WorkError` or an operating-system error.
    """
    spec = sys.modules["__main__"].__spec__  # of what `python -m` was given
    name = spec.name if main.__module__ == "__main__" and spec else main.__module__
    name = "sv" if name == "sv_utils.base.commands" else name

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            with without_notices():
                return main(argv) or 0
        except RequestError as error:
            return _say(name, error, 2)
        except BrokenPipeError:  # the reader (head, a pager) left: nothing to tell it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (WorkError, OSError) as error:
            return _say(name, error, 1)
        except KeyboardInterrupt:
            return _say(name, "interrupted", 130)

    return wrapped


def _say(name: str, sentence: object, code: int) -> int:
    print(f"{name}: {' '.join(str(sentence).split())}", file=sys.stderr)
    return code
