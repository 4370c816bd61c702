"""Limits and names that no other test holds: archives that lie on themselves, and two processes that write one file."""

import io
import os
import zipfile

import pytest

from sv_utils.base import paths, zips


def test_members_that_take_more_than_their_archive_has_are_refused():
    assert zips.bomb(1_001, 10, 1_000) == "its files claim 1,001 bytes of an archive that has 1,000"
    assert zips.bomb(1_000, 10, 1_000) == ""


def test_no_more_than_a_limit_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "MOST_AT_ONCE", 10)
    (tmp_path / "a.zip").write_bytes(bytes(range(15)))
    with zips._Sparing(io.FileIO(tmp_path / "a.zip")) as file:
        with pytest.raises(zipfile.BadZipFile, match="a directory of 15 bytes"):
            file.read()
        with pytest.raises(zipfile.BadZipFile, match="a directory of 11 bytes"):
            file.read(11)
        assert file.read(10) == bytes(range(10)) and file.read() == bytes(range(10, 15))


def test_two_processes_write_one_file_under_names_of_their_own(tmp_path, monkeypatch):
    with paths.replace_on_success(tmp_path / "a.csv") as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with paths.replace_on_success(tmp_path / "a.csv") as other:
            assert other != one
            other.write_text("other")
        assert one.read_text() == "one"
