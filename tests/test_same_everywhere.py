"""
What is the same on every machine, to the digit or within a tolerance that is said here.

The numbers were printed once, on an x86 processor with AVX-512; they came out alike there with AVX2 alone and with one
thread. Where one of these tests fails on a machine, its trainings begin or are judged otherwise than elsewhere.
Archives have their checksums (`tests/corpora/test_mini_corpus.py`).
"""

import hashlib
import io
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from sv_utils import corpora
from sv_utils.evaluation import trials
from sv_utils.models import encoders, features
from sv_utils.reports import reproduction
from sv_utils.speech import audio, splits
from sv_utils.training import checkpoints
from sv_utils.training.batches import Crops

IDS = [f"s{speaker:02d}/{number % 2}/u{number}" for speaker in range(12) for number in range(6)]
FEATURES = 2e-3  # of natural logarithms of power, in single precision


@pytest.mark.parametrize(
    ("archive", "samples", "some"),
    [
        ("mini_dev_aac", 56320, [-205, 63, -309, -57, -419, 496, 689, 113]),
        ("mini_test", 61440, [-2053, -2387, -2295, -2038, -1671, -1163, -343, -68]),
    ],
)
def test_decoded_samples(archive, samples, some):
    """AAC is decoded in floating point: a sample may round to its neighbour elsewhere, and to no other."""
    parts = sorted((Path(corpora.__file__).parent / "mini_data").glob(f"{archive}_parta?"))
    held = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    found = audio.decode(held.read(min(held.namelist()))).samples
    assert len(found) == samples and np.abs(found[8000:8008].astype(int) - some).max() <= 1


def test_features_of_a_fixed_waveform():
    steps = np.arange(8000)
    loudness = np.where(steps < 4000, 0.01, 0.5)
    waveform = ((steps * 7919 % 65536 - 32768) / 32768 * loudness).astype("float32")[None]
    mel = np.asarray(features.LogMel(20)(waveform))[0]
    spectrum = np.asarray(features.LogSpectrogram()(waveform))[0]
    assert mel[5, ::5] == pytest.approx([-12.61182, -8.71884, -0.96336, -1.06906], abs=FEATURES)
    assert spectrum[5, ::128] == pytest.approx([-13.99144, -12.39053, -7.25850, -6.59325], abs=FEATURES)
    assert (mel.mean(), spectrum.mean()) == pytest.approx((-1.60762, -3.98917), abs=FEATURES)


def test_trial_lists_and_splits():
    made = trials.make(IDS, 40, 80, seed=3)
    listed = "\n".join(map(str, [*made.labels.tolist(), *made.enrol, *made.test]))
    assert hashlib.sha256(listed.encode()).hexdigest().startswith("cd9f70c87bfc2e73")
    table = pd.DataFrame({"speaker": [name[:3] for name in IDS]})
    assert splits.split_validation(table, 4, seed=3) == ["s02", "s07", "s10", "s11"]


def test_order_of_batches():
    labels = np.repeat(np.arange(12), 6)
    crops, balanced = Crops(None, labels, 8, 16000, seed=3), Crops(None, labels, 8, 16000, 3, speakers_per_batch=4)
    assert crops.draw(0)[0].tolist() == [45, 27, 13, 20, 39, 12, 30, 67]
    assert crops.draw(9)[0].tolist() == [11, 35, 53, 63, 4, 64, 61, 30]
    assert balanced.draw(0)[0].tolist() == [3, 0, 51, 48, 40, 38, 44, 42]


def test_first_weights():
    """They come from TensorFlow's counter-based generator; another backend of Keras draws others."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the digest is that of TensorFlow's generator")
    keras.utils.set_random_seed(1)
    model = encoders.build(backbone="resnet18", width=4, n_mels=20, embedding_dim=8)
    assert checkpoints.digest(model).startswith("d148d0a7ea3551159f555d0a11d38a70")


def test_metrics_of_given_scores():
    found = reproduction.given_metrics()
    assert {name: round(value, 9) for name, value in found.items()} == reproduction.GIVEN
