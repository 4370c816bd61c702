"""What is said of long work where no terminal shows a bar."""

import io
import sys

import pytest

from sv_utils.base import progress
from sv_utils.base.progress import Progress


def test_a_line_a_minute_with_rate_and_time_left(monkeypatch, capsys):
    clock = iter([1000.0, 1030.0, 1060.0, 1070.0, 1122.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("ocean: decoding", "files", 2500) as shown:
        shown.add(500, done_before=True)
        for _ in range(3):
            shown.add(305)
    assert capsys.readouterr().out.splitlines() == [
        "ocean: decoding 805 of 2,500 files, 5/s, 6 min left",
        "ocean: decoding 1,415 of 2,500 files, 8/s, 2 min left",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_a_bar_that_leaves_with_the_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Progress("ocean: decoding", "files", 10) as shown:
        shown.add(5)
        shown.expect(10)
        bar = str(shown._bar)
        assert bar.startswith("ocean: decoding:  25%") and "5/20" in bar and " files/s" in bar
    assert sys.stderr.getvalue().startswith("\rocean: decoding:   0%") and sys.stderr.getvalue().endswith(" \r")
    with Progress("x", "bytes", 6_000_000) as shown:
        shown.add(3_000_000)
        assert "3.00M/6.00M" in str(shown._bar) and "B/s" in str(shown._bar)
    assert capsys.readouterr().out == ""


def test_a_line_is_written_out_at_once(monkeypatch):
    class Log(io.StringIO):
        written = ""

        def flush(self):
            self.written = self.getvalue()

    monkeypatch.setattr(sys, "stdout", Log())
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Progress("ocean: decoding", "files") as shown:
        shown.add(5)
        assert sys.stdout.written.startswith("ocean: decoding 5 files, ")


@pytest.mark.parametrize(
    ("total", "told"),
    [
        (0, "x 3.0 M bytes, 1.5 M/s"),
        (6_000_000, "x 3.0 M of 6.0 M bytes, 1.5 M/s, 0 min left"),
        (360_003_000_000, "x 3.0 M of 360,003.0 M bytes, 1.5 M/s, 4000 min left"),
    ],
)
def test_bytes_and_unknown_totals(total, told):
    with Progress("x", "bytes") as shown:
        shown.expect(total)
        shown.add(3_000_000)
        assert shown.line(2.0) == told
