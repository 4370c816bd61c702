"""The examples in docstrings, run as they stand: an example that is false misleads more than none."""

import doctest
import importlib
from pathlib import Path

import pytest

from sv_utils.base import paths

MODULES = [
    path.relative_to(paths.REPO).with_suffix("")
    for path in sorted((paths.REPO / "sv_utils").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_examples_are_true(path: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # an example may write files
    parts = path.parts[:-1] if path.name == "__init__" else path.parts
    found = doctest.testmod(importlib.import_module(".".join(parts)))
    assert found.failed == 0, capsys.readouterr().out


def test_most_examples_run():
    """An example may be skipped where it needs a file or an encoder; those that run are many more."""
    lines = [
        line for path in MODULES for line in (paths.REPO / path).with_suffix(".py").read_text("utf-8").splitlines()
    ]
    shown = [line for line in lines if line.lstrip().startswith(">>> ")]
    assert sum("doctest: +SKIP" in line for line in shown) <= len(shown) / 3
