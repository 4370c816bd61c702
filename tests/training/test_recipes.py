"""The published recipes: rates, margins, decay and data of the profiles beside the formulas of the published code."""

import math

import keras
import numpy as np
import pytest
from small_training import ENGINE

from sv_utils.losses import aam
from sv_utils.models import encoders
from sv_utils.models.backbones import campplus
from sv_utils.pipeline.profile import Profile
from sv_utils.training import augment, loop, schedules
from sv_utils.training.data import Data

UTTERANCES = 1_092_009  # of VoxCeleb2-dev, all of which wespeaker trains on


def wespeaker_rate(epoch, epochs, batch, gpus, initial, final, warm_up):
    """``ExponentialDecrease`` with `warm_from_zero`, in the first step of an epoch (from 0), as train.py scales it."""
    per_epoch = UTTERANCES // gpus // batch
    step, warm_steps, scale_ratio = epoch * per_epoch, warm_up * per_epoch, gpus * batch / 64
    coefficient = scale_ratio * step / warm_steps if step < warm_steps else scale_ratio
    return coefficient * initial * math.exp(step / (epochs * per_epoch) * math.log(final / initial))


def wespeaker_margin(epoch, initial, final, increase_start, fix_start):
    """``MarginScheduler`` with `increase_type` exp, in the first step of an epoch (from 0); its epochs count from 1."""
    if epoch >= fix_start - 1:
        return final
    if epoch < increase_start - 1:
        return initial
    done = (epoch - (increase_start - 1)) / (fix_start - increase_start)
    return initial + (final - initial) * (1 - math.exp(done * math.log(1e-3 / (1 + 1e-6))))


# conf/resnet.yaml and conf/resnet_lm.yaml of wespeaker's examples/voxceleb/v2.
RATES = [
    {"epochs": 150, "batch": 128, "gpus": 2, "initial": 0.1, "final": 5e-5, "warm_up": 6},
    {"epochs": 5, "batch": 64, "gpus": 2, "initial": 1e-4, "final": 2.5e-5, "warm_up": 1},
]
MARGINS = [
    {"initial": 0.0, "final": 0.2, "increase_start": 20, "fix_start": 40},
    {"initial": 0.5, "final": 0.5, "increase_start": 1, "fix_start": 1},
]
L2, MOMENTUM = 1e-4, 0.9


# Configurations that differ by the network alone: conf/resnet.yaml, campplus.yaml, ecapa_tdnn.yaml, and their _lm.yaml.
ALIKE = ("voxceleb_modern_resnet34", "voxceleb_campplus", "voxceleb_ecapa")
each = pytest.mark.parametrize("profile", ALIKE)


def training(profile="voxceleb_modern_resnet34"):
    return Profile.read(profile).parameters["07_train_aam"]


def batch_size(asked, phase):
    return phase.get("batch_size") or asked["batch_size"]


@each
@pytest.mark.parametrize("number", [0, 1])
def test_rate_margin_and_decay_are_wespeakers_at_every_epoch(profile, number):
    asked = training(profile)
    phase, rates, margins = asked["phases"][number], RATES[number], MARGINS[number]
    assert phase["epochs"] == rates["epochs"] and phase["steps_per_epoch"] == 0
    assert batch_size(asked, phase) * phase["accumulate"] == rates["batch"] * rates["gpus"], "crops of a step"
    per_epoch = UTTERANCES // batch_size(asked, phase)
    for epoch in range(phase["epochs"]):
        rate = schedules.learning_rate(phase, epoch * per_epoch, per_epoch)
        published = wespeaker_rate(epoch, **rates)
        assert rate == pytest.approx(published, rel=5e-4, abs=rates["initial"] * 1e-3)
        # An L2 term under momentum m shortens a weight by rate x L2 x (1 + m + m^2 + ...) a step.
        assert rate * phase["weight_decay"] == pytest.approx(published * L2 / (1 - MOMENTUM), rel=5e-4, abs=1e-7)
        now = schedules.of_head(phase, epoch)
        assert now["margin"] == pytest.approx(wespeaker_margin(epoch, **margins), abs=1e-6)
        # update() of ArcMarginProduct_intertopk_subcenter: mp x margin / 0.2; none where do_lm is set.
        if profile == ALIKE[0]:
            assert now["hard_share"] == pytest.approx(0 if number else now["margin"] / 0.2, abs=1e-6)
    assert (asked["hard_margin"], asked["centres"]) == (0, 1), "project_type: arc_margin"


def test_weight_decay_under_momentum_shortens_a_weight_as_pytorchs_l2_term_does():
    rate, steps = 0.4, 200
    theirs, buffer = 1.0, 0.0
    for _ in range(steps):  # torch.optim.SGD, nesterov, no gradient but that of the L2 term
        gradient = L2 * theirs
        buffer = MOMENTUM * buffer + gradient
        theirs -= rate * (gradient + MOMENTUM * buffer)
    phase = training()["phases"][0]
    optimizer, ours = schedules.optimizer(phase | {"learning_rate": rate}), keras.Variable(1.0, name="kernel")
    for _ in range(phase["accumulate"]):
        optimizer.apply([keras.ops.zeros(())], [ours])
    assert float(ours) == pytest.approx(1 - 0.4e-3, rel=1e-6), "once a step, not once a batch"
    assert float(ours) ** steps == pytest.approx(theirs, rel=0.005)
    assert theirs < 0.93


@each
def test_optimizer_speeds_crops_and_average_are_wespeakers(profile):
    for number, phase in enumerate(training(profile)["phases"]):
        assert (phase["optimizer"], phase["momentum"], phase["nesterov"]) == ("sgd", 0.9, True)
        assert (phase["schedule"], phase["clip_norm"], phase["ema"]) == ("exponential", 0.0, 0.0)
        assert phase["speeds"] == ([1.0], [1.0, 0.9, 1.1])[number == 0]
        assert phase["crop_seconds"] == (6.0, 2.0)[number == 0]  # 600 and 200 frames
        assert phase["average_last"] == (0, 10)[number == 0]
    assert training(profile)["outcome"] == {"keep": "last", "centred": True}
    assert training(profile)["scale"] == 32.0


@each
def test_augmentation_is_wespeakers(profile):
    """``add_reverb_noise``: 0.6 of the crops, half by a room, half by one of MUSAN's files at its range."""
    files = {"noise": 930, "music": 660, "babble": 426}
    for phase in training(profile)["phases"]:
        settings = phase["augmentation"]
        assert settings["reverberation"] == 0.3
        for kind, count in files.items():
            assert settings[kind] == pytest.approx(0.3 * count / sum(files.values()), abs=1e-4)
        ranges = {kind: settings[f"{kind}_snr"] for kind in files}
        assert ranges == {"noise": [0, 15], "music": [5, 15], "babble": [10, 30]}
        assert (settings["babble_voices"], settings["dither"]) == ([1, 1], 1.0)
        assert (settings["telephone"], settings["clipping"], settings["gain"]) == (0, 0, [0, 0])


def test_the_network_is_wespeakers():
    """`ResNet34(feat_dim=80, embed_dim=256)` of its models/resnet.py, counted by its layers; 6.63 million it says."""
    count = 9 * 32 + 2 * 32
    channels = 32
    for width, blocks in ((32, 3), (64, 4), (128, 6), (256, 3)):
        for _ in range(blocks):
            count += 9 * channels * width + 9 * width * width + 4 * width
            count += channels * width + 2 * width if channels != width else 0
            channels = width
    count += 2 * 10 * 256 * 256 + 256
    model = encoders.build(**training()["architecture"])
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == count
    assert round(count / 1e6, 2) == 6.63


@pytest.mark.long
@pytest.mark.parametrize(
    ("profile", "millions"), [("voxceleb_campplus", 7.18), ("voxceleb_ecapa", 6.19)], ids=["campplus", "ecapa"]
)
def test_networks_have_the_published_sizes_and_take_a_step(profile, millions, prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    asked = training(profile)
    model = encoders.build(**asked["architecture"])
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) / 1e6 == pytest.approx(millions, abs=0.01)
    small = {
        "epochs": 1,
        "steps_per_epoch": 1,
        "batch_size": 4,
        "crop_seconds": 0.5,
        "speeds": [1.0],
        "average_last": 0,
    }
    phases = [phase | small | {"accumulate": 1, "augmentation": augment.OFF} for phase in asked["phases"]]
    engine = ENGINE | {"precision": asked["engine"]["precision"]}
    monkeypatch.setattr(campplus, "BLOCKS", ((1, 1), (1, 2), (1, 2)))
    try:
        made = small_training_of(asked, phases, engine, prep, tmp_path)
        _, history, _ = made.run()
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"].dropna()).all() and len(history["loss"].dropna()) == 2
    assert encoders.load(tmp_path / "model.keras").dtype_policy.name == "float32"


def small_training_of(asked, phases, engine, prep, directory):
    """A training of a recipe's network, narrow where it has a width."""
    where, data = loop.start(1, engine), Data.read(prep)
    crops = data.crops(phases, 4, 1)
    head = aam.AamHead(crops[0].n_classes, scale=asked["scale"])
    model = encoders.build(**asked["architecture"] | {"width": 16})
    accuracy = keras.metrics.sparse_categorical_accuracy
    return loop.Training(model, head, crops, data.validation, directory, phases, accuracy, where, engine)


def test_the_small_profile_differs_in_its_batches_and_its_schedule_alone():
    small, large = training("voxceleb_modern_small"), training()
    for number, (ours, theirs) in enumerate(zip(small["phases"], large["phases"])):
        crops = [batch_size(a, p) * p["accumulate"] for a, p in ((small, ours), (large, theirs))]
        assert crops == [(256, 128)[number]] * 2
        differing = {key for key in ours if ours[key] != theirs[key]} - {"batch_size"}
        assert differing <= {"accumulate", "schedule"}
    assert {key for key in small if small[key] != large[key]} <= {"profile", "batch_size", "phases", "engine"}


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "mobilenetv2"])
def test_the_originals_two_stages_and_its_network(network):
    asked = Profile.read(f"voxceleb_original_{network}").parameters["06_train_adacos"]
    first, second = asked["phases"]
    stages = [
        (p["optimizer"], p["learning_rate"], p["momentum"], p["weight_decay"], p["epochs"]) for p in (first, second)
    ]
    assert stages == [("sgd", 0.01, 0.9, 5e-4, 10), ("sgd", 1e-4, 0.9, 1e-2, 6)]
    assert (second["plateau_factor"], second["plateau_patience"]) == (0.3, 2)
    assert (first["frozen"], second["frozen"]) == ("none", "batch_normalization")
    network = asked["architecture"]
    wanted = {"front_end": "spectrogram", "spectrogram": "linear", "deltas": True, "pooling": "average"}
    wanted |= {"embedding_dim": 512, "embedding_activation": "tanh", "batch_normalization": "own"}
    if network["backbone"] != "mobilenetv2":
        wanted |= {"preactivation": True, "width": 64, "stem": "imagenet"}
    assert {key: network[key] for key in wanted} == wanted
