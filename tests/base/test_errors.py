"""The ways in which a command ends: each an exit code and at most one sentence."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sv_utils.base import errors
from sv_utils.base.errors import RequestError, WorkError, command, nearest

MEND = "name .* SV_OUTPUTS, .* --store or --out"
LOG = r"an unforeseen error, please report it with \S+\.log"
ENDS = [
    (RequestError("the file a.wav is missing;\n name another"), 2, 2, "the file a.wav is missing; name another"),
    (WorkError("the server does not answer; try again"), 1, 2, "the server does not answer; try again"),
    (OSError(28, "No space left on device"), 1, 2, r"\[Errno 28\] No space left on device"),
    (PermissionError(13, "Permission denied", "/outputs/x"), 1, 2, f"Permission denied: /outputs/x; {MEND}"),
    (PermissionError(13, "Permission denied"), 1, 2, f"Permission denied: the output; {MEND}"),
    (PermissionError("not yours"), 1, 2, f"not yours: the output; {MEND}"),
    (MemoryError(), 1, 2, rf"{LOG} \(MemoryError\)"),
    (KeyError("threshold"), 1, 2, rf"{LOG} \(KeyError: 'threshold'\)"),
    (KeyboardInterrupt(), 130, 2, "interrupted"),
]


@pytest.mark.parametrize(
    ("error", "usual", "where_one_is_an_answer", "sentence"), ENDS, ids=lambda value: type(value).__name__
)
def test_every_error_is_one_sentence_and_never_an_answer(error, usual, where_one_is_an_answer, sentence, capsys):
    def main(argv=None):
        raise error

    assert command(main)([]) == usual
    assert command(failed=2)(main)([]) == where_one_is_an_answer
    told = capsys.readouterr()
    assert told.out == "" and re.fullmatch(f"({__name__}: {sentence}\n){{2}}", told.err)


def test_what_nobody_foresaw_leaves_its_traceback_in_a_log(capsys):
    @command
    def main(argv=None):
        return 1 // 0

    assert main([]) == 1
    log = re.search(r"please report it with (\S+) \(ZeroDivisionError", capsys.readouterr().err)[1]
    assert "return 1 // 0" in Path(log).read_text() and Path(log).stat().st_mode & 0o777 == 0o600
    Path(log).unlink()


def test_a_log_holds_what_utf8_cannot_as_an_escape(capsys, monkeypatch, tmp_path):
    @command
    def main(argv=None):
        raise ValueError("caf\xe9 \udce9")

    monkeypatch.setattr(errors.tempfile, "gettempdir", lambda: str(tmp_path))
    assert main([]) == 1
    (log,) = tmp_path.iterdir()
    assert b"caf\xc3\xa9 \\udce9" in log.read_bytes()
    monkeypatch.setattr(errors.tempfile, "gettempdir", lambda: str(tmp_path / "absent"))
    assert main([]) == 1 and capsys.readouterr().err.count("\n") == 2  # no log, but the sentence


def test_an_error_without_words_is_told_by_its_name_alone(capsys):
    @command
    def main(argv=None):
        raise MemoryError

    assert main([]) == 1
    log = re.search(r"please report it with (\S+) \(MemoryError\)\n$", capsys.readouterr().err)[1]
    Path(log).unlink()


NAMED = [("__main__", "sv_utils.verify", "sv_utils.verify"), ("sv_utils.verify", "pytest.__main__", "sv_utils.verify")]
NAMED += [("__main__", None, "__main__"), ("sv_utils.base.commands", None, "sv")]


@pytest.mark.parametrize(("module", "given_to_python", "told"), NAMED)
def test_a_sentence_begins_with_the_name_of_its_command(module, given_to_python, told, capsys, monkeypatch):
    def main(argv=None):
        raise WorkError("the disk is full")

    main.__module__ = module
    spec = given_to_python and SimpleNamespace(name=given_to_python)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert command(main)([]) == 1
    assert capsys.readouterr().err == f"{told}: the disk is full\n"


@pytest.mark.parametrize(("given", "code"), [(0, 0), (1, 1), (None, 0)])
def test_an_answer_is_passed_on(given, code):
    assert command(failed=2)(lambda argv=None: given)([]) == code


PRINTS = """
import sys
from sv_utils.base.errors import command

@command(failed=2)
def main(argv=None):
    print("ja \u2713 " * 10_000)
    return 1

sys.exit(main())
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_answer_that_cannot_be_written_is_none():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2 and "No space left on device" in ended.stderr and ended.stderr.count("\n") == 1


def test_a_short_answer_that_cannot_be_written_is_none(monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert command(failed=2)(lambda argv: 1)([]) == 2


def test_a_reader_that_leaves_gets_no_answer_and_no_complaint():
    started = subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started.stdout.close()
    assert (started.wait(60), started.stderr.read()) == (2, b"")
    started.stderr.close()


def test_a_terminal_of_ascii_gets_escapes_instead_of_an_error():
    line = [sys.executable, "-X", "utf8=0", "-c", PRINTS]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run(line, env=environment, capture_output=True)
    assert ended.returncode == 1 and b"ja \\u2713 ja" in ended.stdout


def test_a_word_that_is_like_none_is_told_all_that_are_known():
    assert nearest("zzz", ["adacos", "aam"]) == " (known: aam, adacos)"
    assert nearest("zzz", []) == " (known: none)"


@pytest.mark.parametrize("fault", [OSError(9, "Bad file descriptor"), ValueError("I/O operation on closed file")])
def test_an_output_that_is_closed_altogether_changes_no_exit_code(fault, monkeypatch):
    def closed():
        raise fault

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=closed))
    assert errors._unheard(2) == 2


def test_where_nothing_can_be_told_the_exit_code_stays(monkeypatch):
    def full(text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=full))
    assert errors._say("sv", "the disk is full", 2) == 2


def test_what_an_encoding_lacks_is_written_as_an_escape(monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    errors._write_anywhere()
    for stream in streams.values():
        stream.write("ja \u2713")
        stream.flush()
        assert stream.buffer.getvalue() == b"ja \\u2713"
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # takes all that there is
    errors._write_anywhere()


HEARD = {WorkError("the server is gone"): "half", OSError(28, "No space left on device"): "", BrokenPipeError(): ""}


@pytest.mark.parametrize("error", HEARD, ids=lambda error: type(error).__name__)
def test_what_is_left_of_an_output_that_failed_is_thrown_away(error, tmp_path, monkeypatch):
    def main(argv=None):
        print("half", end="")
        raise error

    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert command(main)([]) == 1
    assert (tmp_path / "out").read_text() == HEARD[error]
