"""Schedules and optimizers of a phase: rates and margins written out, and what Keras's options really do."""

import keras
import numpy as np
import pytest
from small_training import PHASE, small_encoder

from sv_utils.base.errors import RequestError
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.losses.prototypes import AngularPrototypicalHead, Ge2eHead
from sv_utils.training import checkpoints, schedules


def rates(steps_per_epoch=2, **phase):
    phase = PHASE | {"epochs": 3, "learning_rate": 0.8, **phase}
    return [schedules.learning_rate(phase, step, steps_per_epoch) for step in range(3 * steps_per_epoch)]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ({"schedule": "plateau"}, [0.8] * 6),
        ({"schedule": "plateau", "warmup_epochs": 2.0}, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]),
        ({"schedule": "exponential", "final_learning_rate": 0.8 / 32}, [0.8, 0.4, 0.2, 0.1, 0.05, 0.025]),
        (
            {"schedule": "exponential", "final_learning_rate": 0.025, "warmup_epochs": 1.0},
            [0.4, 0.4, 0.2, 0.1, 0.05, 0.025],
        ),
        ({"schedule": "cosine"}, [0.8, 0.7236068, 0.5236068, 0.2763932, 0.0763932, 0.0]),
        (
            {"schedule": "one_cycle", "warmup_epochs": 1.0, "final_learning_rate": 0.2},
            [0.032, 0.416, 0.8, 0.65, 0.35, 0.2],
        ),
    ],
)
def test_learning_rate_of_each_step(phase, expected):
    assert rates(**phase) == pytest.approx(expected)


def test_margin_waits_then_grows_to_its_end():
    phase = PHASE | {"margin": 0.2, "margin_start_epoch": 20, "margin_end_epoch": 40, "margin_growth": "linear"}
    assert [schedules.margin(phase, epoch) for epoch in (0, 19.9, 20, 25, 30, 40, 150)] == pytest.approx(
        [0, 0, 0, 0.05, 0.1, 0.2, 0.2]
    )
    phase["margin_growth"] = "exponential"
    assert [schedules.margin(phase, epoch) for epoch in (20, 30, 39.999, 40)] == pytest.approx(
        [0, 0.2 * (1 - 0.001**0.5), 0.1998, 0.2], abs=1e-6
    )


def test_the_margin_of_the_nearest_grows_as_the_margin_does_and_leaves_where_its_share_is_0():
    phase = PHASE | {"margin_start_epoch": 1, "margin_end_epoch": 3, "margin_growth": "linear"}
    assert schedules.of_head(phase, 2) == {"margin": 0.1}
    for share, expected in ((1.0, [0, 0.5, 1, 1]), (0.5, [0, 0.25, 0.5, 0.5]), (0.0, [0, 0, 0, 0])):
        grown = [schedules.of_head(phase | {"hard_margin_share": share}, epoch)["hard_share"] for epoch in (0, 2, 3, 9)]
        assert grown == pytest.approx(expected)
    assert schedules.of_head(phase | {"hard_margin_share": 1.0, "margin": 0.0}, 5) == {"margin": 0, "hard_share": 0}
    assert schedules.of_head({key: value for key, value in PHASE.items() if key != "margin"}, 5) == {}


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ({"hard_margin_share": 2.0}, r"phases\[1\].hard_margin_share is a share of hard_margin"),
        ({"optimizer": "adm"}, r"phases\[1\].optimizer: there is no 'adm' \(did you mean 'adam'\?\)"),
        ({"schedule": "step"}, r"phases\[1\].schedule: there is no 'step'"),
        ({"frozen": "batchnorm"}, r"phases\[1\].frozen: there is no 'batchnorm'"),
        ({"margin_growth": "log"}, r"phases\[1\].margin_growth: there is no 'log'"),
        ({"schedule": "exponential", "final_learning_rate": 0.0}, r"phases\[1\].final_learning_rate must be above 0"),
        ({"ema": 1.0}, r"phases\[1\].ema is a decay from 0"),
        ({"optimizer": "adam", "weight_decay": 0.1}, r"phases\[1\].weight_decay: adam has none; .*adamw"),
        ({"accumulate": 0}, r"phases\[1\].accumulate must be 1 or more"),
    ],
)
def test_stages_that_cannot_be_are_refused(phase, sentence):
    with pytest.raises(RequestError, match=sentence):
        schedules.check([PHASE, PHASE | phase])


def test_what_can_be_is_taken():
    for key, values in {
        "optimizer": ("sgd", "adam", "adamw"),
        "schedule": ("plateau", "cosine", "one_cycle", "exponential"),
        "frozen": ("none", "batch_normalization", "encoder"),
        "margin_growth": ("linear", "exponential"),
        "hard_margin_share": (0.0, 1.0),
        "ema": (0.0, 0.999),
        "accumulate": (1,),
    }.items():
        for value in values:
            schedules.check([PHASE | {"weight_decay": 0.0, "final_learning_rate": 0.05, key: value}])
    plain = {key: value for key, value in PHASE.items() if not key.startswith("margin")}
    schedules.check([plain])


class Line(keras.Model):
    """One weight w, from 1; the loss of a batch x is the mean of w x."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer="ones", name="w")

    def call(self, x):
        return self.w * x

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


def weights_after(batches, scale_loss=False, **phase):
    """The weight after each batch, and its moving average where there is one."""
    model, target = Line(), Line()
    plain = {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0, "optimizer": "sgd"}
    model.compile(schedules.optimizer(PHASE | plain | phase, scale_loss))
    seen = []
    for value in batches:
        model.train_on_batch(np.full((2, 1), value, np.float32), np.zeros(2))
        checkpoints.copy_weights(model, target)
        seen.append((float(model.w), float(target.w)))
    return np.transpose(seen)


def test_gradients_accumulate_over_batches_and_step_with_their_mean():
    weights, _ = weights_after([1, 3, 2, 4], accumulate=2)
    assert weights == pytest.approx([1, 0.8, 0.8, 0.5])


def test_moving_average_follows_the_steps_also_where_gradients_accumulate():
    weights, average = weights_after([1, 1, 1], ema=0.5)
    assert weights == pytest.approx([0.9, 0.8, 0.7])
    assert average == pytest.approx([0.9, 0.85, 0.775])
    weights, average = weights_after([1, 1, 1, 1, 1, 1, 1, 1], ema=0.5, accumulate=2)
    assert weights == pytest.approx([1, 0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.6])
    root = 0.5**0.5
    expected = [weights[1]]
    for weight in weights[2:]:
        expected.append(root * expected[-1] + (1 - root) * weight)
    assert average[3::2] == pytest.approx(expected[2::2], rel=0.03)  # where it begins depends on Keras's own counting


def test_the_whole_gradient_is_clipped():
    weights, _ = weights_after([30], clip_norm=2.0)
    assert weights == pytest.approx([0.8])


def test_each_device_clips_its_own_part_of_the_gradient():
    assert schedules.optimizer(PHASE | {"clip_norm": 3.0}, replicas=4).global_clipnorm == 0.75
    assert schedules.optimizer(PHASE | {"clip_norm": 0.0}, replicas=4).global_clipnorm is None


def test_weight_decay_takes_its_share_off_the_weight_and_spares_normalisations():
    weights, _ = weights_after([0.0], weight_decay=0.5)
    assert weights == pytest.approx([0.95])
    model = small_encoder()
    made = schedules.optimizer(PHASE | {"weight_decay": 0.1})
    spared = {v.name for v in model.trainable_variables if not made._use_weight_decay(v)}
    assert spared == {"gamma", "beta", "bias"}
    heads = [Ge2eHead(), AngularPrototypicalHead(), CosFaceHead(3)]
    heads[2].build((None, 2))
    assert [made._use_weight_decay(v) for head in heads for v in head.trainable_variables] == [False] * 4 + [True]


def test_float16_gradients_that_overflow_are_passed_over():
    weights, _ = weights_after([1, np.inf, 1], scale_loss=True)
    assert weights == pytest.approx([0.9, 0.9, 0.8])


@pytest.mark.parametrize(("name", "moved"), [("adam", 0.1), ("adamw", 0.1)])
def test_adam_moves_by_the_learning_rate_at_first(name, moved):
    weights, _ = weights_after([5.0], optimizer=name)
    assert weights == pytest.approx([1 - moved], rel=1e-4)


def test_what_is_frozen_rests_and_is_freed_again():
    model = small_encoder()
    normalizations = schedules.normalizations(model)
    schedules.freeze(model, "batch_normalization")
    assert [layer.trainable for layer in normalizations] == [False, False, True]
    schedules.freeze(model, "encoder")
    assert model.trainable_variables == []
    schedules.freeze(model, "none")
    assert [layer.trainable for layer in normalizations] == [True] * 3
    assert len(model.trainable_variables) == 2 + 3 * 2 + 2


def test_mean_of_weights_and_the_statistics_under_it(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization(momentum=0.9)])
    files, first = [tmp_path / "a.npz", tmp_path / "b.npz"], model.get_weights()
    checkpoints.write_weights(files[0], model)
    model.set_weights([weight + 1 for weight in first])
    checkpoints.write_weights(files[1], model)
    checkpoints.average(files, model)
    for weight, start in zip(model.get_weights(), first):
        np.testing.assert_allclose(weight, start + 0.5, rtol=1e-6)
    batches = np.random.default_rng(0).normal(size=(4, 32, 3)).astype("float32")
    checkpoints.renew_statistics(model, batches)
    outputs = np.stack([model.layers[0](batch) for batch in batches])
    normalization = model.layers[1]
    np.testing.assert_allclose(normalization.moving_mean, outputs.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(normalization.moving_variance, outputs.var(axis=1).mean(axis=0), rtol=1e-5)
    assert normalization.momentum == 0.9
