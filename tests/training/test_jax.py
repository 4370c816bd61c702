"""The same encoders and losses under KERAS_BACKEND=jax, where jax is installed (pip install jax)."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from sv_utils.models import encoders
from sv_utils.models.backbones import redimnet

SCRIPT = """
import sys
import keras
import numpy as np
from sv_utils.models import encoders
from sv_utils.losses.aam import AamHead
from sv_utils.losses.adacos import AdaCosHead
from sv_utils.losses.contrastive import ContrastiveHead
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.losses.prototypes import AngularPrototypicalHead, Ge2eHead
from sv_utils.losses.softmax import SoftmaxHead
from sv_utils.losses.sphereface2 import SphereFace2Head

assert keras.config.backend() == "jax" and "tensorflow" not in sys.modules

def train(network, head, inputs, steps):
    keras.utils.set_random_seed(0)
    model = keras.Model(network.inputs, head(network.outputs[0]))
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9, clipnorm=5.0), loss=head.loss)
    losses = [float(model.train_on_batch(inputs, labels)) for _ in range(steps)]
    assert np.isfinite(losses).all(), (network.name, head, losses)
    print(type(head).__name__, losses[0], min(losses[-3:]), float(getattr(head, "scale", 0.0)))

folder = sys.argv[1]
waveforms = np.load(folder + "/waveforms.npy")
labels = np.repeat(np.arange(4), 4)
network = encoders.load(folder + "/encoder.keras")
np.save(folder + "/vectors.npy", np.asarray(network(waveforms)))
if sys.argv[2] == "train":
    train(network, AamHead(4, centres=2, hard_margin=0.06), waveforms, 8)
heads = [AamHead(4, centres=2), SoftmaxHead(4), CosFaceHead(4), AdaCosHead(4), SphereFace2Head(4)]
vectors = np.random.default_rng(0).standard_normal((16, 8)).astype("float32") + 2 * np.eye(8, dtype="float32")[labels]
for head in (*heads, ContrastiveHead(), Ge2eHead(), AngularPrototypicalHead()):
    keras.utils.set_random_seed(1)
    train(keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), encoders.UnitVectors()]), head, vectors, 30)
"""
TINY = {
    "resnet18": {"width": 4, "stem": "imagenet", "simam": True, "masked_frames": 10, "masked_bins": 4},
    "ecapa": {"width": 16, "pooling": "attentive"},
    "redimnet2_b0": {"pooling": "attentive"},
}


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.skipif(keras.config.backend() == "jax", reason="this is jax itself")
@pytest.mark.parametrize(
    ("backbone", "what"),
    [("resnet18", "embed"), *(pytest.param(name, "train", marks=pytest.mark.long) for name in TINY)],
)
def test_encoders_give_the_same_and_train_with_every_loss_under_jax(backbone, what, tmp_path, monkeypatch):
    """What TensorFlow saved gives the same vectors in jax, and a few steps on one batch lower every loss."""
    shallow = redimnet.SIZES["redimnet2_b0"]._replace(stages=redimnet._stages(*[12] * 6, blocks=(1,) * 6))
    monkeypatch.setitem(redimnet.SIZES, "redimnet2_b0", shallow)  # XLA compiles all 21 blocks for minutes
    rng = np.random.default_rng(0)
    tones = np.sin(np.outer(np.repeat([0.1, 0.17, 0.3, 0.5], 4), np.arange(8000)))
    waveforms = (0.1 * tones + 0.02 * rng.standard_normal(tones.shape)).astype("float32")
    np.save(tmp_path / "waveforms.npy", waveforms)
    model = encoders.build(**{"n_mels": 24, "embedding_dim": 16, **TINY[backbone]}, backbone=backbone)
    model.save(tmp_path / "encoder.keras")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, what], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), np.asarray(model(waveforms)), atol=2e-4)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == (9 if what == "train" else 8)
    for head, first, last, scale in rows:
        if head == "AdaCosHead":
            assert float(scale) != pytest.approx(2**0.5 * np.log(3)), "its scale follows the training"
        else:
            assert float(last) < 0.9 * float(first), head
