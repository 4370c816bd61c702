"""One process at a time: who waits, who is told, and what happens where a file system keeps no locks."""

import errno
import fcntl
import subprocess
import sys

from sv_utils.base import locks

HOLDS = """
import sys
from pathlib import Path
from sv_utils.base import locks

with locks.alone(Path(sys.argv[1]), "the first"):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_waits_and_says_for_whom(tmp_path):
    line = [sys.executable, "-c", HOLDS, str(tmp_path / "a" / "b" / "lock")]
    first = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "in\n"
    told = []

    def waits(holder):
        told.append(holder)
        first.kill()  # the lock falls with its holder

    with locks.alone(tmp_path / "a" / "b" / "lock", "the second", waits):
        assert (tmp_path / "a" / "b" / "lock").read_text() == "the second"
    assert told == ["the first"]
    first.communicate()


def test_who_is_told_nothing_waits_as_well(tmp_path, monkeypatch):
    asked = []

    def held(file, operation):
        asked.append(operation)
        if operation & fcntl.LOCK_NB:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(fcntl, "flock", held)
    with locks.alone(tmp_path / "lock"):
        assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


def test_a_file_system_without_locks_is_told_of_and_the_work_goes_on(tmp_path, monkeypatch, capsys):
    def none(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with locks.alone(tmp_path / "a" / "b" / "lock"):
        assert (tmp_path / "a" / "b" / "lock").read_text() == ""
    assert "keeps no locks (Function not implemented)" in capsys.readouterr().err
