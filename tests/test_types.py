"""The type checker, as `make check` runs it."""

import subprocess
import sys

import pytest

from sv_utils.base import paths


def test_the_types_agree(tmp_path):
    pytest.importorskip("mypy")
    line = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path)]
    checked = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
