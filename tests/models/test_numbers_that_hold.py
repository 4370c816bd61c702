"""Limits, settings and identities of models: what an export must reach, what is saved, what a fingerprint follows."""

import json
import shutil

import keras
import numpy as np
import pytest
from test_pretrained import WEIGHT, saved_by_torch

from sv_utils.base.errors import WorkError
from sv_utils.losses.aam import AamHead
from sv_utils.losses.adacos import AdaCosHead
from sv_utils.losses.contrastive import ContrastiveHead
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.losses.softmax import SoftmaxHead
from sv_utils.losses.sphereface2 import SphereFace2Head
from sv_utils.models import encoders, exports, features, pretrained, runtimes
from sv_utils.models.backbones import pooling, redimnet
from sv_utils.models.pretrained import torch_file

SETTINGS = [
    (features.LogSpectrogram, {"pre_emphasis": 0.5}),
    (features.LinearSpectrogram, {"pre_emphasis": 0.5}),
    (features.LogMel, {"n_mels": 33, "pre_emphasis": 0.5}),
    (features.InstanceNormalization, {"variance": False}),
    (features.SpecAugment, {"frames": 3, "bins": 2, "seed": 5}),
    (pooling.AttentivePooling, {"hidden": 7}),
    (redimnet.FullStrides, {"stride": 3}),
    (redimnet.MergedPatches, {"frames": 2, "bins": 3, "multiplier": 4}),
    (redimnet.SelfAttention, {"heads": 2}),
    (SoftmaxHead, {"n_speakers": 5, "scale": 3.0}),
    (CosFaceHead, {"n_speakers": 5, "scale": 7.0, "margin": 0.1}),
    (AdaCosHead, {"n_speakers": 5, "dynamic": False, "margin": 0.1}),
    (ContrastiveHead, {"margin": 0.3}),
    (AamHead, {"n_speakers": 5, "scale": 7.0, "margin": 0.1, "centres": 2, "hard_margin": 0.06}),
    (SphereFace2Head, {"n_speakers": 5, "scale": 7.0, "margin": 0.1}),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=lambda x: getattr(x, "__name__", ""))
def test_the_configuration_holds_what_was_asked_for(kind, settings):
    saved = kind(**settings).get_config()
    assert {name: saved.get(name) for name in settings} == settings
    assert keras.saving.get_registered_name(kind).startswith("sv_utils>")
    again = kind.from_config(saved)
    assert {name: again.get_config()[name] for name in settings} == settings


def test_each_front_end_is_normalised_in_its_own_way():
    for front_end, variance in (("mel", False), ("spectrogram", True)):
        model = encoders.build(front_end, backbone="resnet18", width=2, stem="imagenet", n_mels=20, embedding_dim=4)
        (layer,) = (layer for layer in model.layers if isinstance(layer, features.InstanceNormalization))
        assert layer.variance is variance


def test_spec_augment_masks_as_widely_after_loading_as_before():
    layer = features.SpecAugment.from_config(features.SpecAugment(frames=3, bins=1, seed=5).get_config())
    masked = np.asarray(layer(np.ones((300, 20, 8), "float32"), training=True))
    assert (masked.max(axis=2) == 0).sum(axis=1).max() == 3
    assert (masked.max(axis=1) == 0).sum(axis=1).max() == 1
    again = features.SpecAugment(frames=3, bins=1, seed=5)
    np.testing.assert_array_equal(np.asarray(again(np.ones((300, 20, 8), "float32"), training=True)), masked)


# Exports


class Pointing:
    """An encoder of two dimensions whose vectors stand at an angle to (1, 0), by the length of what it hears."""

    output_shape, layers = (None, 2), ()

    def __init__(self, angles):
        self.angles = angles

    def __call__(self, waves, training):
        return self.predict_on_batch(waves)

    def predict_on_batch(self, waves):
        angle = self.angles.get(waves.shape[1], 0.0)
        return np.tile([np.cos(angle), np.sin(angle)], (len(waves), 1)).astype("float32")


def test_the_worst_recording_decides_about_an_export(monkeypatch):
    sounds = [np.ones(length, np.int16) for length in (8_000, 16_000, 24_000, 32_000)]
    monkeypatch.setattr(exports, "_speech", lambda: sounds)
    worst = exports._least_cosine(Pointing({}), Pointing({16_000: 0.3, 24_000: 0.01}))
    assert worst == pytest.approx(np.cos(0.3), abs=1e-6)


def test_exports_are_checked_on_real_speech_of_every_length():
    sounds = exports._speech()
    assert sorted({len(sound) for sound in sounds}) == [8_000, 16_001, 48_123, 160_000] and len(sounds) == 16
    assert all(np.std(sound.astype(float)) > 100 for sound in sounds)
    assert len({sound[:4000].tobytes() for sound in sounds}) == 4, "four voices"


@pytest.mark.parametrize(("cosine", "good"), [(0.99991, True), (0.99989, False), (float("nan"), False)])
def test_the_least_cosine_of_a_float_export(cosine, good, tmp_path):
    found = {"int8": False, "cosine": cosine}
    if good:
        exports._refuse(tmp_path / "a.onnx", found)
    else:
        with pytest.raises(WorkError, match=r"less than 0\.9999; the converter is at fault"):
            exports._refuse(tmp_path / "a.onnx", found)


@pytest.mark.parametrize(("low", "good"), [(0.0049, True), (0.0051, False)])
def test_the_most_that_8_bits_may_cost(low, good, tmp_path):
    found = {"int8": True, "cosine": 0.9, "eer": [0.1, 0.09], "eer_change": [low, 0.0, 0.1], "list": "l"}
    if good:
        exports._refuse(tmp_path / "a.onnx", found)
    else:
        with pytest.raises(WorkError, match=r"on l, more than 0\.5%"):
            exports._refuse(tmp_path / "a.onnx", found)


# Identities


def test_a_fingerprint_is_that_of_the_content_and_not_of_the_path(tmp_path):
    one, same, other = (tmp_path / f"{name}.keras" for name in ("one", "same", "other"))
    one.write_bytes(b"weights")
    shutil.copy(one, same)
    other.write_bytes(b"weightz")
    assert pretrained.fingerprint(one) == pretrained.fingerprint(str(same)) != pretrained.fingerprint(other)
    before = pretrained.fingerprint(one)
    one.write_bytes(b"trained again")
    assert pretrained.fingerprint(one) != before


def test_the_fingerprint_of_a_published_encoder_follows_its_weights_and_our_revision():
    package = pretrained.PUBLISHED["campplus"]
    assert pretrained.fingerprint("campplus") == f"{package.sha256}.{package.revision}"
    assert len({pretrained.fingerprint(name) for name in pretrained.PUBLISHED}) == len(pretrained.PUBLISHED) >= 2


@pytest.mark.parametrize(("int8", "same", "fast"), [(False, True, True), (True, True, False), (False, False, False)])
def test_the_fast_form_is_a_float_export_of_this_very_file(tmp_path, monkeypatch, int8, same, fast):
    monkeypatch.setattr(runtimes, "can_be_fast", lambda: True)
    source, file = tmp_path / "model.keras", tmp_path / "model.tflite"
    source.write_bytes(b"weights")
    file.write_bytes(b"export")
    found = {"sha256": runtimes.sha256(source) if same else "0" * 64, "int8": int8}
    runtimes.record(file).write_text(json.dumps(found))
    assert runtimes.fast_form(source) == (file if fast else None)


def test_a_tensor_begins_where_its_offset_says():
    """Two rows of two, from the third of six numbers on."""
    shape = WEIGHT.replace(b"QK\x00K\x02K\x03\x86K\x03K\x01\x86", b"QK\x02K\x02K\x02\x86K\x02K\x01\x86")
    assert shape != WEIGHT
    np.testing.assert_array_equal(torch_file.read(saved_by_torch(shape))["weight"], [[2, 3], [4, 5]])


def test_spec_augment_stays_in_float32_under_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = features.SpecAugment(frames=3, bins=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert layer.compute_dtype == "float32"
