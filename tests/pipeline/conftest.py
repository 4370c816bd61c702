"""What the tests of the pipeline share."""

import io

import pytest
import tiny_repository

from sv_utils.base import paths


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A tiny repository, seen from within this process."""
    tiny_repository.build(tmp_path)
    for name in ("SV_OUTPUTS", "SV_PARAMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "REPO", tmp_path)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def another_encoding(monkeypatch):
    """A system on which files are no UTF-8 unless one says so."""
    monkeypatch.setattr(io, "text_encoding", lambda encoding, stacklevel=2: encoding or "ascii")
