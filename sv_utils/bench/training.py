"""A training step and its batches, beside PyTorch."""

import contextlib
import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from sv_utils.base.errors import WorkError
from sv_utils.bench import timing
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.models import encoders
from sv_utils.models.backbones.pooling import StatisticsPooling
from sv_utils.models.backbones.resnet import ResNet
from sv_utils.speech.reader import Speech
from sv_utils.training import augment
from sv_utils.training.batches import Crops

FRAMES, BATCH, CLASSES = 200, 32, 1000  # of 80 mel bands each


def _keras_model(inputs: keras.KerasTensor, embeddings: keras.KerasTensor) -> keras.Model:
    """A model with a head on its embeddings, compiled as a training on CPU is."""
    head = CosFaceHead(CLASSES, margin=0.0)
    model = keras.Model(inputs, head(embeddings))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), loss=head.loss, jit_compile=False)
    return model


def _keras_step(features: np.ndarray, classes: np.ndarray) -> Callable:
    """One training step of the thin ResNet-34 from features [shape=(batch, frames, bins, 1)] on, in Keras."""
    maps = keras.Input((None, *features.shape[2:]))
    x = keras.layers.Dense(256)(StatisticsPooling()(ResNet(34, 32, "thin")(maps)))
    x = encoders.UnitVectors()(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))
    model = _keras_model(maps, x)
    features, classes = keras.ops.convert_to_tensor(features), keras.ops.convert_to_tensor(classes)
    return lambda: float(model.train_on_batch(features, classes))


@contextlib.contextmanager
def _torch_step() -> Iterator[Callable | None]:
    """The same in PyTorch, in a process of its own (two frameworks in one process crash); None where it is missing."""
    if importlib.util.find_spec("torch") is None:
        yield None
        return
    line = [sys.executable, "-m", "sv_utils.bench.torch_step", str(BATCH), str(FRAMES), str(CLASSES)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        answers = child.stdout

        def step() -> None:
            print(file=child.stdin, flush=True)
            if not answers.readline():
                raise WorkError("sv_utils.bench.torch_step has died: run it by hand to see why")

        yield step
        child.stdin.close()


def step() -> list[dict]:
    """A training step of the thin ResNet-34, beside the same network in PyTorch on the same cores."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((BATCH, FRAMES, 80, 1), dtype=np.float32)
    classes = rng.integers(CLASSES, size=BATCH)
    ours, other = _keras_step(features, classes), "PyTorch is not there: pip install 'sv_utils[bench]'"
    with _torch_step() as theirs:
        if theirs is not None:
            other = "the same in PyTorch, channels_last"
        seconds = timing.in_turn([ours] if theirs is None else [ours, theirs])
    what = f"training step of thin ResNet-34, {BATCH} x {FRAMES} frames"
    return [timing.row(what, seconds[0], other, *seconds[1:])]


def store(folder: Path, utterances: int = 500, seconds: int = 8) -> Speech:
    """Open store of noise [shape=(utterances, 16000 seconds)] in `folder`, as long as VoxCeleb's utterances."""
    samples = 16_000 * seconds
    np.random.default_rng(0).integers(-9000, 9000, utterances * samples, np.int16).tofile(folder / "shard.pcm")
    rows = {"shard": "shard.pcm", "offset": samples * np.arange(utterances), "samples": samples, "speaker": "s"}
    return Speech(pd.DataFrame(rows), folder)


def augmented(speech: Speech) -> Crops:
    """Batches of 2 s in which every crop is augmented, at three speeds."""
    surroundings = {"noise": 0.3, "babble": 0.3, "reverberation": 0.4, "telephone": 0.2, "clipping": 0.1}
    augmentation = augment.Augmentation({**augment.OFF, **surroundings}, speech)
    return Crops(
        speech, np.arange(len(speech)), BATCH, 160 * FRAMES, 0, augmentation=augmentation, speeds=(1.0, 0.9, 1.1)
    )


def _load(crops: Crops, count: int) -> None:
    for _ in zip(range(count), crops.dataset()):
        pass


def _wait(model: keras.Model, crops: Crops, count: int) -> tuple[float, float]:
    """Mean time that a step waits for its batch, and that it takes in all, after two steps to warm up [s]."""
    batches, times = iter(crops.dataset()), []
    for _ in range(2 + count):
        begin = time.perf_counter()
        waveforms, classes = next(batches)
        got = time.perf_counter()
        float(model.train_on_batch(waveforms, classes % CLASSES))
        times.append((got - begin, time.perf_counter() - begin))
    return tuple(np.mean(times[2:], axis=0).tolist())


def loading() -> list[dict]:
    """Batches of the loader, plain and augmented, beside a training step from waveforms; and how long that waits."""
    with tempfile.TemporaryDirectory() as folder:
        changed = augmented(store(Path(folder)))
        plain = dataclasses.replace(changed, augmentation=None, speeds=(1.0,))
        loaders = [timing.seconds(lambda crops=crops: _load(crops, 50), 2) / 50 for crops in (plain, changed)]
        model = encoders.build()
        waited, step_seconds = _wait(_keras_model(model.input, model.output), changed, 6)
    what = f"a batch of {BATCH} crops of {FRAMES / 100:g} s"
    beside = "a training step of thin ResNet-34 on augmented waveforms"
    return [
        timing.row(what, loaders[0], beside, step_seconds),
        timing.row(f"{what}, every one augmented, three speeds", loaders[1], beside, step_seconds),
        timing.row(
            f"that step's wait for its batch ({waited / step_seconds:.2%} of it)", waited, "the step", step_seconds
        ),
    ]
