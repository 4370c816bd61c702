"""What libraries' C++ code says stays off the terminal in every command; what Python says does not."""

import io
import os
import subprocess
import sys

import pytest

from sv_utils.base import paths
from sv_utils.base.terminal import printable, without_notices

COMMAND = """
import os, sys
__name__ = "sv_utils.x"
from sv_utils.base.errors import WorkError, command

@command
def main(argv=None):
    os.write(2, b"a notice of C++ code\\n")
    print("a warning of Python", file=sys.stderr)
    print(sys.stderr.encoding, sys.stderr.errors, sys.stderr.line_buffering)
    os.system("echo a notice of a child >&2")
    raise WorkError("the disk is full; free some")

python = sys.stderr
code = main([])
os.write(2, b"after it\\n")
print(sys.stderr is python)
sys.exit(code)
"""


def run(**environment: str) -> subprocess.CompletedProcess:
    given = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment
    return subprocess.run([sys.executable, "-c", COMMAND], cwd=paths.REPO, env=given, capture_output=True, text=True)


def test_a_command_lets_python_speak_and_nobody_else():
    done = run()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "a warning of Python",
        "sv_utils.x: the disk is full; free some",
        "after it",
    ]


def test_python_speaks_at_once_and_in_the_encoding_of_the_terminal():
    assert run(PYTHONIOENCODING="iso8859-1").stdout == "iso8859-1 backslashreplace True\nTrue\n"


def test_notices_can_be_asked_for(monkeypatch):
    said = ["a notice of C++ code", "a warning of Python", "a notice of a child"]
    ended = ["sv_utils.x: the disk is full; free some", "after it"]
    assert run(TF_CPP_MIN_LOG_LEVEL="0").stderr.splitlines() == said + ended
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with without_notices():  # a block that ends well
        pass


def test_the_capture_of_a_test_is_left_alone(capsys):
    before, free = sys.stderr, os.dup(2)
    os.close(free)
    with without_notices():
        print("seen", file=sys.stderr)
        assert sys.stderr is before
    assert capsys.readouterr().err == "seen\n"
    again = os.dup(2)
    os.close(again)
    assert again <= free  # no file is left open


def test_what_was_said_before_is_written_before(monkeypatch):
    class Stream(io.StringIO):
        written = ""

        def flush(self):
            self.written = self.getvalue()

    monkeypatch.setattr(sys, "stderr", Stream())
    print("before", file=sys.stderr)
    with without_notices():
        assert sys.stderr.written == "before\n"


def test_an_error_in_the_block_ends_it_too():
    before = os.fstat(2)
    with pytest.raises(ValueError, match="for the test"), without_notices():
        raise ValueError("for the test")
    assert os.fstat(2).st_ino == before.st_ino


def test_only_what_is_not_printable_becomes_an_escape():
    assert printable("caf\xe9\\\x1b[2J\u2028") == "caf\xe9\\\\x1b[2J\\u2028"
