"""One training step of every loss, on one device and on two of one CPU: run as a program by tests of the devices."""

import sys

import keras
import numpy as np
import tensorflow as tf

from sv_utils import losses
from sv_utils.models import encoders
from sv_utils.training import devices, schedules, speaker_model

LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])  # the second speaker is shared by both devices
PHASE = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
PHASE |= {"clip_norm": 0.0, "ema": 0.5, "accumulate": 1}


def encoder() -> keras.Model:
    """Waveforms to unit vectors in few layers, one of them a batch normalisation."""
    x = waveform = keras.Input((None,))
    x = keras.layers.Reshape((-1, 8))(x)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(6, "tanh")(x))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Dense(5)(x))
    return keras.Model(waveform, encoders.UnitVectors()(x))


def steps(where: devices.Devices, loss: str, accumulate: int = 1, count: int = 4) -> tuple[list, list, list]:
    """Losses of a few steps, and what they leave in the model and in the optimizer."""
    keras.utils.set_random_seed(3)
    kind = losses.LOSSES[loss]
    head = losses.head(loss)(3) if kind.knows_speakers else losses.head(loss)()
    model = where.build(lambda: speaker_model.SpeakerModel(encoder(), head).twin(where.replicas))

    def compiled() -> None:
        made = schedules.optimizer(PHASE | {"accumulate": accumulate}, False, where.replicas)
        model.compile(made, metrics=[], jit_compile=False)
        made.build(model.trainable_variables)

    where.build(compiled)
    step, rng, found = where.step(model), np.random.default_rng(0), []
    for number in range(count):
        batch = (rng.standard_normal((8, 16_000)).astype(np.float32), LABELS.astype(np.int32))
        if where.replicas > 1:
            parts = tf.data.Dataset.from_tensors(batch).unbatch().batch(4)
            batch = next(iter(where.strategy.experimental_distribute_dataset(parts.rebatch(8))))
        found.append(float(step(batch, {"learning_rate": 0.05}, (number + 1) % accumulate == 0)["loss"]))
    values = [[keras.ops.convert_to_numpy(v) for v in owner.variables] for owner in (model, model.optimizer)]
    return found, *values


def gap(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, as a share of numbers above 1: a loss of 30 is rounded more coarsely than one of 1."""
    return float(np.max(np.abs(one - other) / np.maximum(1, np.abs(one))))


def main(names: list[str]) -> None:
    """Print how far the two ways are apart at most, for each loss, and with two batches a step of the optimizer."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    made = tf.distribute.MirroredStrategy
    tf.distribute.MirroredStrategy = lambda: made(["CPU:0", "CPU:1"])
    one, two = devices.Devices("one"), devices.Devices("mirrored")
    for loss in names:
        for accumulate in (1, 2):
            alone, together = (steps(where, loss, accumulate) for where in (one, two))
            gaps = [max(map(gap, x, y)) for x, y in zip(alone, together)]
            print(loss, accumulate, *(f"{apart:.2e}" for apart in gaps), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(losses.LOSSES))
