"""Benchmarks are run by hand; here only that they ask the right question and refuse a wrong name."""

import ast
import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sv_utils import bench
from sv_utils.bench import encoders as costed
from sv_utils.bench import judging, training
from sv_utils.evaluation import scoring
from sv_utils.models import backbones, encoders
from sv_utils.training.batches import Crops


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


def test_networks_whose_cost_is_told_are_such_as_can_be_built(monkeypatch):
    for architecture in costed.COSTED.values():
        options = dict(architecture)
        family = options.pop("family", None)
        build = importlib.import_module(f"sv_utils.models.pretrained.{family}").build if family else encoders.build
        assert family or options["backbone"] in backbones.names()
        inspect.signature(build).bind(**options)
    found = {"parameters": 1e6, "macs": 2e9, "keras": 0.05, "onnx": 0.04, "litert": 0.025}
    monkeypatch.setattr(costed, "COSTED", {"tiny": {}})
    done = subprocess.CompletedProcess([], 0, json.dumps(found))
    monkeypatch.setattr(costed.subprocess, "run", lambda *_, **__: done)
    (row,) = costed.costs()
    size = "1.0 M parameters, 2.00 G multiply-accumulates"
    assert row["what"] == f"embed 3 s on one core by tiny ({size}): 50 ms by keras, 40 by onnx, 25 by litert"
    assert (row["seconds"], row["its seconds"], row["ratio"]) == (0.05, 0.025, 0.5)


def test_the_loader_of_the_benchmark_gives_batches(tmp_path):
    speech = training.store(tmp_path, utterances=6, seconds=3)
    assert len(speech) == 6 and (speech.samples == 48_000).all() and np.std(speech.waveform(3)) > 5000
    crops = Crops(speech, np.arange(6), 4, 32_000, seed=0)
    training._load(crops, 2)
    waited, whole = training._wait(Instant(), crops, 2)
    assert 0 < waited <= whole


class Instant:
    """A model whose steps take no time."""

    def train_on_batch(self, waveforms, classes):
        assert waveforms.shape == (4, 32_000)
        return 0.0


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_network_in_pytorch_is_as_large():
    code = (
        "from sv_utils.bench.torch_step import ThinResNet34 as Net; print(sum(p.numel() for p in Net(0).parameters()))"
    )
    counted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    variables = encoders.build().trainable_variables
    assert int(counted) == sum(int(np.prod(v.shape)) for v in variables)
