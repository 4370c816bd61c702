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


def written(path: Path) -> list[str]:
    """The lines of a module that begin an example."""
    lines = (paths.REPO / path).with_suffix(".py").read_text("utf-8").splitlines()
    return [line.strip()[4:] for line in lines if line.lstrip().startswith(">>> ")]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_examples_are_true(path: Path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # an example may write files
    parts = path.parts[:-1] if path.name == "__init__" else path.parts
    found = doctest.DocTestFinder().find(importlib.import_module(".".join(parts)))
    found = [test for test in found if "__mutmut_" not in test.name]  # copies that `make mutants` makes of a function
    assert {example.source.splitlines()[0] for test in found for example in test.examples} == set(written(path))
    runner = doctest.DocTestRunner()
    assert sum(runner.run(test).failed for test in found) == 0, capsys.readouterr().out


def test_most_examples_run():
    """An example may be skipped where it needs a file or an encoder; those that run are many more."""
    shown = [line for path in MODULES for line in written(path)]
    assert sum("doctest: +SKIP" in line for line in shown) <= len(shown) / 3
