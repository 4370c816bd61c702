"""The training's engine: batches by number of readers, what a step costs besides computing, XLA and bfloat16."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from sv_utils.bench import timing
from sv_utils.bench.training import BATCH, CLASSES, FRAMES, augmented, store
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.models import encoders
from sv_utils.training import readers
from sv_utils.training.batches import Crops
from sv_utils.training.devices import Devices
from sv_utils.training.speaker_model import SpeakerModel

MADE = 40  # batches, for each count of readers


def loaders() -> list[dict]:
    """Augmented crops of 2 s from one, two and all cores' processes, and from threads, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        crops, rows = augmented(store(Path(folder))), []
        one = _rate(crops, 1)
        for number in sorted({2, readers.count(-1)}):
            rates = [(_rate(crops, 1), _rate(crops, number)) for _ in range(3)]
            slow, fast = (BATCH * MADE / max(column) for column in zip(*rates))
            what = f"{BATCH * MADE} augmented crops of 2 s from {number} processes ({max(r[1] for r in rates):,.0f}/s)"
            rows.append(timing.row(what, fast, "from 1 process", slow))
        threads = BATCH * MADE / _threads(crops)
    return [
        *rows,
        timing.row("the same from 1 process", BATCH * MADE / one, "from two threads of one process", threads),
    ]


def _rate(crops: Crops, number: int) -> float:
    """Crops a second of so many readers, once they run."""
    with readers.Readers(crops, number) as made:
        first = readers.SLOTS * number
        for step in range(first):  # what was ready before the clock starts
            made.batch(step)
        begin = time.perf_counter()
        for step in range(first, first + MADE):
            made.batch(step)
        return BATCH * MADE / (time.perf_counter() - begin)


def _threads(crops: Crops) -> float:
    batches = iter(crops.dataset())
    for _ in range(8):
        next(batches)
    begin = time.perf_counter()
    for _ in range(MADE):
        next(batches)
    return BATCH * MADE / (time.perf_counter() - begin)


def overhead() -> list[dict]:
    """A step of a model that computes next to nothing, its figures read every 50 steps and after each."""
    x = keras.Input((None,))
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 8))(x))
    step = _step(keras.Model(x, encoders.UnitVectors()(keras.layers.Dense(8)(pooled))), jit=False, classes=10)
    batch = tuple(map(keras.ops.convert_to_tensor, (np.zeros((2, 80), np.float32), np.zeros(2, np.int32))))
    settings, count = {"learning_rate": 0.01, "margin": 0.2}, 500

    def late() -> None:
        for _ in range(0, count, 50):
            for logs in [step(batch, settings, True) for _ in range(50)]:
                float(logs["loss"])

    def at_once() -> None:
        for _ in range(count):
            float(step(batch, settings, True)["loss"])

    seconds = timing.in_turn([late, at_once])
    what = f"{count} steps of a model of one small layer ({1000 * seconds[0] / count:.2f} ms each)"
    return [timing.row(what, seconds[0], "losses read after each step", seconds[1])]


def engines() -> list[dict]:
    """A training step of the thin ResNet-34 with XLA and in bfloat16, beside the plain one."""
    rng = np.random.default_rng(0)
    waveforms = rng.uniform(-0.3, 0.3, (BATCH, 160 * FRAMES)).astype(np.float32)
    batch = waveforms, rng.integers(CLASSES, size=BATCH).astype(np.int32)
    steps = []
    for policy, jit in (("float32", False), ("float32", True), ("mixed_bfloat16", False)):
        keras.config.set_dtype_policy(policy)
        steps.append(_step(encoders.build(), jit))
    keras.config.set_dtype_policy("float32")
    settings = {"learning_rate": 0.01, "margin": 0.2}
    plain, xla, half = timing.in_turn([lambda s=s: float(s(batch, settings, True)["loss"]) for s in steps], 2)
    what, beside = f"training step of thin ResNet-34, {BATCH} x {FRAMES / 100:g} s", "the same without"
    return [timing.row(f"{what}, XLA", xla, beside, plain), timing.row(f"{what}, bfloat16", half, beside, plain)]


def _step(encoder: keras.Model, jit: bool, classes: int = CLASSES) -> Callable:
    """Compiled training step, as `Devices.step` gives it."""
    model = SpeakerModel(encoder, CosFaceHead(classes))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    return Devices("one").step(model)
