"""Limits and names that no other test holds: archives that lie or would swell, two processes that write one file."""

import io
import os
import zipfile

import pytest

from sv_utils.base import paths, zips
from sv_utils.base.errors import RequestError


def test_members_that_take_more_than_their_archive_has_are_refused():
    assert zips.bomb(1_001, 10, 1_000) == "its files claim 1,001 bytes of an archive that has 1,000"
    assert zips.bomb(1_000, 10, 1_000) == ""
    assert zips.bomb(1, zips.HARMLESS + 500, 5) == ""
    assert zips.bomb(1, zips.HARMLESS + 501, 5) == "its files would take 268,435,957 bytes, out of 5"


def test_a_zip_that_would_swell_is_refused_and_what_is_none_is_not(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", bytes(6_000))
        archive.writestr("two", bytes(4_000))
    (tmp_path / "text.zip").write_text("no zip")
    for harmless in ("a.zip", "text.zip", "absent.zip", "."):
        zips.refuse_bomb(tmp_path / harmless)
    monkeypatch.setattr(zips, "HARMLESS", 9_999 - 2 * (size := (tmp_path / "a.zip").stat().st_size))
    monkeypatch.setattr(zips, "RATIO", 2)
    reason = rf"a\.zip is an archive bomb \(its files would take 10,000 bytes, out of {size}\); do not trust it"
    with pytest.raises(RequestError, match=reason):
        zips.refuse_bomb(tmp_path / "a.zip")
    monkeypatch.setattr(zips, "MOST_AT_ONCE", 50)
    with pytest.raises(RequestError, match=r"a\.zip is an archive bomb \(a directory of \d+ bytes\); do not trust it"):
        zips.refuse_bomb(tmp_path / "a.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(RequestError, match="is a pipe or a device"):
        zips.refuse_bomb(tmp_path / "pipe.zip")


def test_members_that_lie_on_each_other_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", bytes(3_000))
        archive.filelist = archive.filelist * 2  # its directory names one member twice
    with pytest.raises(RequestError, match=r"\(its files claim 6,000 bytes of an archive that has 3,\d+\)"):
        zips.refuse_bomb(tmp_path / "a.zip")


def test_no_more_than_a_limit_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(zips, "MOST_AT_ONCE", 10)
    (tmp_path / "a.zip").write_bytes(bytes(range(15)))
    with zips._Sparing(io.FileIO(tmp_path / "a.zip")) as file:
        with pytest.raises(zipfile.BadZipFile, match="a directory of 15 bytes"):
            file.read()
        with pytest.raises(zipfile.BadZipFile, match="a directory of 11 bytes"):
            file.read(11)
        assert file.read(0) == b"" and file.read(10) == bytes(range(10)) and file.read() == bytes(range(10, 15))


def test_a_directory_may_have_32_megabytes(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"few")
    with zips._Sparing(io.FileIO(tmp_path / "a.zip")) as file:
        assert file.read(2**25) == b"few"
        with pytest.raises(zipfile.BadZipFile):
            file.read(2**25 + 1)


def test_two_processes_write_one_file_under_names_of_their_own(tmp_path, monkeypatch):
    with paths.replace_on_success(tmp_path / "a.csv") as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with paths.replace_on_success(tmp_path / "a.csv") as other:
            assert other != one
            other.write_text("other")
        assert one.read_text() == "one"
