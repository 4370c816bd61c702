"""Benchmarks are run by hand; here only that they ask the right question and refuse a wrong name."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils import bench, scoring
from sv_utils.bench import judging


def test_unknown_benchmark_is_refused_before_any_runs(capsys):
    assert bench.main(["jugding"]) == 2
    assert capsys.readouterr().err == "sv_utils.bench: there is no benchmark 'jugding' (did you mean 'judging'?)\n"


def test_generated_trials_have_the_size_and_the_balance_of_the_list(monkeypatch):
    monkeypatch.setattr(judging, "UTTERANCES", 2000)
    monkeypatch.setattr(judging, "TRIALS", 1000)
    embeddings, speakers, enrol_rows, test_rows = judging.generate()
    assert embeddings.shape == (2000, 512) and len(enrol_rows) == len(test_rows) == 1000
    same = speakers[enrol_rows] == speakers[test_rows]
    assert same[:500].all() and same[500:].mean() < 0.02


def test_both_ways_of_judging_compute_the_same_scores():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20, 8))
    enrol_rows, test_rows = rng.integers(20, size=(2, 50))
    table = judging._original_scores(embeddings, enrol_rows, test_rows)
    assert isinstance(table, pd.DataFrame)
    np.testing.assert_allclose(table["score"], scoring.cosine(embeddings, enrol_rows, test_rows), atol=1e-12)


def test_every_benchmark_has_its_function():
    for name, module in bench.BENCHMARKS.items():
        tree = ast.parse((Path(bench.__file__).parent / f"{module}.py").read_text())
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
