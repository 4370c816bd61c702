"""What a training hands on: the settings of a phase to its batches, the rows of the trials, the head's own loss."""

import types

import keras
import numpy as np
import pytest
from small_training import PHASE, PHASES, small_encoder

from sv_utils import losses
from sv_utils.base.errors import RequestError
from sv_utils.losses.aam import AamHead, aam_loss
from sv_utils.losses.contrastive import ContrastiveHead, contrastive_loss
from sv_utils.losses.prototypes import AngularPrototypicalHead, Ge2eHead, angular_prototypical_loss, ge2e_loss
from sv_utils.speech.reader import Speech
from sv_utils.training import augment, loop, schedules
from sv_utils.training.data import Data
from sv_utils.training.speaker_model import SpeakerModel


@pytest.fixture
def data(prep, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    return Data.read(prep)


def test_speakers_labels_and_trials_are_those_of_the_table(data):
    assert data.speakers.tolist() == ["s0", "s1", "s2", "s3"]
    assert data.speakers[data.labels].tolist() == data.train.table["speaker"].tolist()
    speaker = data.validation.speech.table["speaker"].to_numpy()
    assert set(speaker) == {"s4", "s5"}
    same = speaker[data.validation.enrol_rows] == speaker[data.validation.test_rows]
    assert same.astype(int).tolist() == data.validation.labels.tolist() and 0 < same.sum() < len(same)
    assert (data.validation.enrol_rows != data.validation.test_rows).all()


def test_each_phase_has_batches_by_its_own_settings(data):
    phases = [PHASE | {"crop_seconds": 0.25}, PHASES[1] | {"speeds": [1.0, 1.1, 0.9]}]
    first, second = data.crops(phases, batch_size=4, seed=9, speakers_per_batch=2)
    assert (first.crop_samples, second.crop_samples) == (4_000, 8_000)
    assert (first.speeds, second.speeds) == ((1.0, 0.9), (1.0, 1.1, 0.9))
    assert (first.n_classes, second.n_classes) == (8, 12)
    assert {(c.batch_size, c.seed, c.speakers_per_batch) for c in (first, second)} == {(4, 9, 2)}
    assert first.augmentation.settings == PHASE["augmentation"] and second.augmentation is None
    assert first.labels is data.labels and first.speech is data.train
    with pytest.raises(RequestError, match=r"phases\[1\]\.ema is a decay"):
        data.crops([PHASE, PHASE | {"ema": 1.0}], 4, 9)


def test_augmentation_has_the_sounds_and_rooms_that_are_prepared(prep, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    table = Data.read(prep).train.table
    kinds = table.iloc[[0, 1, 2, 3]].assign(
        corpus=["musan", "rirs_noises", "musan", "rirs_noises"], speaker=["noise", "largeroom", "music", "real_rirs"]
    )
    kinds.to_csv(prep / "augmentation.csv", index=False)
    try:
        data = Data.read(prep)
    finally:
        (prep / "augmentation.csv").unlink()
    made = data.augmentation(augment.OFF | {"music": 0.5})
    assert made.musan.table["speaker"].tolist() == ["noise", "music"]
    assert made.responses.table["speaker"].tolist() == ["largeroom", "real_rirs"]
    assert made.speech is data.train
    assert data.augmentation(augment.OFF | {"gain": [-3.0, 0.0]}) is not None
    assert data.augmentation(augment.OFF | {"noise_snr": [1.0, 2.0]}) is None, "a range alone switches nothing on"


def test_an_epoch_is_one_pass_where_the_phase_says_no_number():
    crops = types.SimpleNamespace(labels=np.zeros(103), batch_size=10)
    assert loop.steps_per_epoch(crops, {"steps_per_epoch": 0}) == 10
    assert loop.steps_per_epoch(crops, {"steps_per_epoch": 7}) == 7
    assert loop.steps_per_epoch(types.SimpleNamespace(labels=np.zeros(3), batch_size=10), {"steps_per_epoch": 0}) == 1


VECTORS = np.random.default_rng(0).normal(size=(6, 4))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype("float32")
PAIRS = np.array([0, 0, 1, 1, 2, 2])
OWN = {
    "contrastive": (lambda: ContrastiveHead(0.3), lambda: contrastive_loss(PAIRS, VECTORS, 0.3)),
    "ge2e": (Ge2eHead, lambda: ge2e_loss(PAIRS, VECTORS, 10.0, -5.0)),
    "angular prototypical": (AngularPrototypicalHead, lambda: angular_prototypical_loss(PAIRS, VECTORS, 10.0, -5.0)),
}


@pytest.mark.parametrize("name", OWN)
def test_a_head_without_directions_has_the_loss_of_its_name(name):
    head, expected = OWN[name]
    assert len({round(float(loss()), 4) for _, loss in OWN.values()}) == len(OWN)
    made = head()
    assert float(made.loss(PAIRS, made(VECTORS))) == pytest.approx(float(expected()), rel=1e-6)


HEADS = {
    "softmax": ("SoftmaxHead", True),
    "contrastive": ("ContrastiveHead", False),
    "cosface": ("CosFaceHead", True),
    "adacos": ("AdaCosHead", True),
    "aam": ("AamHead", True),
    "sphereface2": ("SphereFace2Head", True),
    "ge2e": ("Ge2eHead", False),
    "angular_prototypical": ("AngularPrototypicalHead", False),
}


def test_each_name_of_a_loss_gives_its_own_head():
    found = {name: (losses.head(name).__name__, loss.knows_speakers) for name, loss in losses.LOSSES.items()}
    assert found == HEADS


def test_a_weight_below_zero_does_not_reward_the_wrong_speaker():
    for head in (Ge2eHead(), AngularPrototypicalHead()):
        head.weight.assign(-3.0)
        assert float(head.positive_weight()) == pytest.approx(1e-6)
        assert float(head.loss(PAIRS, VECTORS)) == pytest.approx(np.log(3), rel=1e-4), "all speakers alike"


def test_the_model_trains_by_the_loss_of_its_head_and_the_encoder_knows_that_it_trains():
    keras.utils.set_random_seed(0)
    encoder = small_encoder(masks=False)
    model = SpeakerModel(encoder, AamHead(4, margin=0.3))
    waves, labels = np.random.default_rng(0).normal(0, 0.1, (4, 8000)).astype("float32"), np.array([0, 1, 2, 3])
    cosines = model(waves)
    expected = float(aam_loss(labels, cosines, 32.0, 0.3))
    assert float(model.compute_loss(waves, labels, cosines)) == pytest.approx(expected, rel=1e-6)
    shared = SpeakerModel(encoder, model.head, replicas=4)
    assert float(shared.compute_loss(waves, labels, cosines)) == pytest.approx(expected / 4, rel=1e-6)
    before = [layer.moving_mean.numpy() for layer in schedules.normalizations(encoder)]
    model(waves, training=False)
    assert all(map(np.array_equal, before, (x.moving_mean.numpy() for x in schedules.normalizations(encoder))))
    model(waves, training=True)
    assert not any(map(np.array_equal, before, (x.moving_mean.numpy() for x in schedules.normalizations(encoder))))


def test_a_twin_is_the_same_model_with_weights_of_its_own():
    model = SpeakerModel(small_encoder(masks=False), AamHead(4, margin=0.3, scale=20.0))
    model.head.margin.assign(0.1)
    twin = model.twin(2)
    assert all(map(np.array_equal, model.get_weights(), twin.get_weights()))
    assert (twin.head.scale, float(twin.head.margin), twin.replicas) == (20.0, pytest.approx(0.1), 2)
    assert [layer.synchronized for layer in schedules.normalizations(twin.encoder)] == [True] * 3
    assert [layer.synchronized for layer in schedules.normalizations(model.twin(1).encoder)] == [False] * 3
    twin.head.weight.assign(0 * twin.head.weight)
    assert np.abs(model.head.weight).max() > 0


def test_what_is_judged_is_each_trial_of_the_rows_named(data):
    encoder = small_encoder(masks=False)
    judgement = data.validation.judge(encoder)
    speech: Speech = data.validation.speech
    vectors = [np.asarray(encoder(speech.waveform(i)[None] / np.float32(32768)))[0] for i in range(len(speech))]
    by_hand = [vectors[a] @ vectors[b] for a, b in zip(data.validation.enrol_rows, data.validation.test_rows)]
    for label, found in ((1, judgement.target), (0, judgement.nontarget)):
        expected = [c for c, own in zip(by_hand, data.validation.labels) if own == label]
        np.testing.assert_allclose(found, expected, atol=1e-5)
