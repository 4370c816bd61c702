"""
Public architectures beside their authors' code, without the weights that were published.

Each file in ``parity`` holds what the authors' code gave for drawn weights (``parity/make.py`` says how it was made).
The networks are narrow there; the front ends are as published. With ``tests/helpers`` on PYTHONPATH,
``python test_parity.py [FILE ...]`` prints the differences, as the table of ``parity/README.md`` has them.
"""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from parity import sound, weights

from sv_utils.models.backbones import eres2net, resnet

HERE = Path(__file__).parent / "parity"
FILES = sorted(file for file in HERE.glob("*.json") if file.name != "cases.json")
SHORT = (
    "campplus_wespeaker",
    "redimnet2_b2",
    "speechbrain_ecapa",
    "wespeaker_resnet34",
)  # one of each kind, every time
CASES = [pytest.param(file, id=file.stem, marks=[] if file.stem in SHORT else pytest.mark.long) for file in FILES]


def check(file: Path) -> tuple[float, float]:
    """Largest differences of features and embeddings from those of the authors' code; raises where weights differ."""
    import keras

    known = json.loads(file.read_text("utf-8"))
    module = importlib.import_module(f"sv_utils.models.pretrained.{known['family']}")
    model = module.build(**known["options"])
    module.assign(model, weights(known["shapes"]))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == known["parameters"]
    waveform = sound()[None]
    seen = next(layer for layer in model.layers if len(layer.output.shape) == 4)
    both = keras.Model(model.input, [seen.output, model.output])
    features, embedding = (np.asarray(output) for output in both(waveform))
    features = features[0, :, :, 0]
    if known["features"]["shape"][0] != features.shape[0]:
        features = features.T
    assert list(features.shape) == known["features"]["shape"]
    return (
        float(np.abs(features[::40, ::9] - known["features"]["some"]).max()),
        float(np.abs(embedding[0] - known["embedding"]).max()),
    )


@pytest.mark.parametrize("file", CASES)
def test_our_network_computes_what_the_authors_does(file):
    features, embedding = check(file)
    assert features < 1e-3 and embedding < 1e-4


@pytest.mark.parametrize("name", ["eres2netv2", "wespeaker_resnet221", "wespeaker_simam_resnet34", "redimnet2_b6"])
def test_layers_bear_the_authors_names_and_sizes(name, monkeypatch):
    """Of those that only long tests compute: all arrays of the authors' file find their place, none is left over."""
    monkeypatch.setattr(eres2net, "BLOCKS", (1, 1, 1, 1))
    monkeypatch.setitem(resnet.DEPTHS, 34, ((1, 1, 1, 1), False))
    monkeypatch.setitem(resnet.DEPTHS, 50, ((1, 1, 1, 1), True))
    fuse, fused = eres2net._fused, []

    def noted(*given):
        fused.append((*(type(maps._keras_history.operation).__name__ for maps in given[:2]), given[2]))
        return fuse(*given)

    monkeypatch.setattr(eres2net, "_fused", noted)
    known = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    shapes = {there: shape for there, shape in known["shapes"].items() if not re.search(r"layer\d\.[1-9]", there)}
    module = importlib.import_module(f"sv_utils.models.pretrained.{known['family']}")
    module.assign(module.build(**known["options"]), weights(shapes))
    parts = [("ReLU", "Split", f"layer{stage}.0.fuse_models.0") for stage in (3, 4)]
    assert fused == ([*parts, ("ReLU", "Conv2D", "fuse34")] if name == "eres2netv2" else []), "x before the other"


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:] or FILES):
        features, embedding = check(file)
        counted = json.loads(file.read_text("utf-8"))["parameters"]
        print(f"| {file.stem} | {counted:,} | {features:.1g} | {embedding:.1g} |", flush=True)
