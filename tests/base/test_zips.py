"""Limits and names that no other test holds: archives that lie on themselves, and two processes that write one file."""

import os

from sv_utils.base import paths, zips


def test_members_that_take_more_than_their_archive_has_are_refused():
    assert zips.bomb(1_001, 10, 1_000) == "its files claim 1,001 bytes of an archive that has 1,000"
    assert zips.bomb(1_000, 10, 1_000) == ""


def test_two_processes_write_one_file_under_names_of_their_own(tmp_path, monkeypatch):
    with paths.replace_on_success(tmp_path / "a.csv") as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with paths.replace_on_success(tmp_path / "a.csv") as other:
            assert other != one
            other.write_text("other")
        assert one.read_text() == "one"
