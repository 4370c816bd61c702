"""The recipes of ReDimNet2 beside wespeaker's conf/redimnet2.yaml and conf/redimnet2_lm.yaml, at every epoch."""

import math

import pytest

from sv_utils.pipeline.profile import Profile
from sv_utils.training import schedules

PER_EPOCH, MOMENTUM, L2 = 1000, 0.9, 2e-5  # steps (rates depend on epochs alone)
PHASES = [
    {"epochs": 120, "batch": 512, "initial": 0.1, "final": 6e-5, "warm_up": 6, "seconds": 2.0, "margin": 0.2},
    {"epochs": 5, "batch": 128, "initial": 1e-4, "final": 1e-5, "warm_up": 0, "seconds": 6.0, "margin": 0.3},
]


def wespeaker_rate(epoch, epochs, batch, initial, final, warm_up, **_):
    """``ExponentialDecrease`` with `warm_from_zero`; train.py sets `scale_ratio` to GPUs x batch / 64, on 2 GPUs."""
    ratio = 2 * batch / 64 * (epoch / warm_up if epoch < warm_up else 1)
    return ratio * initial * math.exp(epoch / epochs * math.log(final / initial))


def wespeaker_margin(epoch, number):
    """``MarginScheduler``, exponential, from epoch 20 to 40 (counted from 1); the second phase holds its margin."""
    if number:
        return 0.3
    done = (epoch - 19) / 20
    return 0.0 if done < 0 else 0.2 if done >= 1 else 0.2 * (1 - math.exp(done * math.log(1e-3)))


@pytest.mark.parametrize("size", ["b2", "b3", "b6"])
def test_the_recipe_is_wespeakers(size):
    asked = Profile.read(f"voxceleb_redimnet2_{size}").parameters["07_train_sphereface2"]
    assert (asked["scale"], asked["architecture"]["backbone"]) == (32.0, f"redimnet2_{size}")
    assert asked["outcome"]["keep"] == "last"
    for number, (phase, known) in enumerate(zip(asked["phases"], PHASES)):
        assert (phase["epochs"], phase["crop_seconds"]) == (known["epochs"], known["seconds"])
        assert (phase["optimizer"], phase["momentum"], phase["nesterov"]) == ("sgd", MOMENTUM, True)
        assert asked["batch_size"] * phase["accumulate"] == 2 * known["batch"], "crops of a step"
        assert phase["weight_decay"] == pytest.approx(L2 / (1 - MOMENTUM))
        assert phase["speeds"] == ([1.0, 0.9, 1.1], [1.0])[number]
        settings = phase["augmentation"]
        changed = sum(settings[kind] for kind in ("noise", "music", "babble", "reverberation"))
        assert changed == pytest.approx((0.6, 0.0)[number], abs=1e-6)
        for epoch in range(phase["epochs"]):
            rate = schedules.learning_rate(phase, epoch * PER_EPOCH, PER_EPOCH)
            assert rate == pytest.approx(
                wespeaker_rate(epoch, **known), rel=1e-3, abs=known["initial"] * known["batch"] / 32e3
            )
            assert schedules.of_head(phase, epoch)["margin"] == pytest.approx(wespeaker_margin(epoch, number), abs=1e-6)
