"""
Benchmarks: what a step costs beside another way of doing it, in one run on one machine.

``python -m sv_utils.bench [NAME ...]`` prints a table. Only the ratios carry over to other machines. Nothing here is a
test, and no test depends on time.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from . import augment, encoder, metrics, report, scoring, store
from .backbones.pooling import StatisticsPooling
from .backbones.resnet import ResNet
from .batches import Crops
from .errors import RequestError, WorkError, command, nearest
from .losses.cosface import CosFaceHead

# The size of VoxCeleb1-E with embeddings of 512 dimensions.
UTTERANCES, TRIALS, DIMENSIONS, SPEAKERS, COHORT = 145_160, 581_480, 512, 1251, 5994


def _seconds(work: Callable, repeats: int = 3) -> float:
    """Shortest of a few runs [s]."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _row(what: str, seconds: float, other: str = "", other_seconds: float = np.nan) -> dict:
    return {
        "what": what,
        "seconds": seconds,
        "beside": other,
        "its seconds": other_seconds,
        "ratio": other_seconds / seconds,
    }


def generate(seed: int = 0) -> tuple[np.ndarray, ...]:
    """
    Embeddings and trials of VoxCeleb1-E's size; speakers differ as much as makes an EER of a few percent.

    Returns
    -------
    embeddings : np.ndarray [shape=(145160, 512)], float32
    speakers : np.ndarray [shape=(145160,)]
    enrol_rows, test_rows : np.ndarray [shape=(581480,)]
        Half target, half non-target trials.
    """
    rng = np.random.default_rng(seed)
    speakers = np.sort(rng.integers(SPEAKERS, size=UTTERANCES))
    centres = rng.normal(size=(SPEAKERS, DIMENSIONS)).astype(np.float32)
    embeddings = 0.4 * centres[speakers] + rng.normal(size=(UTTERANCES, DIMENSIONS)).astype(np.float32)
    enrol_rows, test_rows = rng.integers(UTTERANCES, size=(2, TRIALS))
    first = np.searchsorted(speakers, speakers[enrol_rows[: TRIALS // 2]])
    count = np.bincount(speakers, minlength=SPEAKERS)[speakers[enrol_rows[: TRIALS // 2]]]
    test_rows[: TRIALS // 2] = first + rng.integers(count)
    return embeddings, speakers, enrol_rows, test_rows


def _judge(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """From embeddings to scores, EER with threshold, both minDCF and the DET curve."""
    scores = scoring.cosine(embeddings, enrol_rows, test_rows)
    target, nontarget = scores[labels], scores[~labels]
    metrics.eer(target, nontarget)
    for p_target in (0.01, 0.05):
        metrics.min_dcf(target, nontarget, p_target)
    metrics.det(target, nontarget)
    return scores


def _original_scores(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray) -> pd.DataFrame:
    """Cosines as the original system has them: a table of trials, gone through row by row."""
    table = pd.DataFrame({"enrol": enrol_rows, "test": test_rows})

    def cosine(row: pd.Series) -> float:
        one, other = embeddings[row["enrol"]], embeddings[row["test"]]
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    return table.assign(score=table.apply(cosine, axis=1))


def _original_sweep(table: pd.DataFrame, thresholds: np.ndarray) -> None:
    """False acceptance and rejection by selecting the wrong rows of the table for each threshold."""
    for threshold in thresholds:
        _ = len(table[(table["label"] == 0) & (table["score"] >= threshold)])
        _ = len(table[(table["label"] == 1) & (table["score"] < threshold)])


def judging() -> list[dict]:
    """
    Judge VoxCeleb1-E's 581,480 trials here and in the original system's way.

    The latter is what is told of it (a table gone through row by row, then 20,000 thresholds with pandas), not its
    code; a part is run and extrapolated.
    """
    embeddings, speakers, enrol_rows, test_rows = generate()
    labels = speakers[enrol_rows] == speakers[test_rows]
    scores = _judge(embeddings, enrol_rows, test_rows, labels)
    ours = _seconds(lambda: _judge(embeddings, enrol_rows, test_rows, labels))
    part, sweeps = 5000, 50
    by_row = _seconds(lambda: _original_scores(embeddings, enrol_rows[:part], test_rows[:part]), 1) * TRIALS / part
    table = pd.DataFrame({"score": scores, "label": labels.astype(int)})
    sweep = _seconds(lambda: _original_sweep(table, np.linspace(-1, 1, sweeps)), 1) * 20_000 / sweeps
    bootstrap = _seconds(
        lambda: metrics.speaker_bootstrap(scores, labels, speakers[enrol_rows], speakers[test_rows], 1000), 1
    )
    return [
        _row(
            f"scores, EER, minDCF, DET of {TRIALS:,} trials",
            ours,
            f"row by row and 20,000 thresholds (extrapolated from {part:,} rows, {sweeps} thresholds)",
            by_row + sweep,
        ),
        _row("1,000 speaker-bootstrap replicates", bootstrap),
    ]


def normalisation() -> list[dict]:
    """AS-norm statistics of VoxCeleb1-E's embeddings beside the bare matrix product, and their memory."""
    embeddings = generate()[0]
    cohort = np.random.default_rng(1).normal(size=(COHORT, DIMENSIONS)).astype(np.float32)
    unit, transposed, block = scoring.normalise(embeddings), np.ascontiguousarray(scoring.normalise(cohort).T), 1000

    def product() -> None:
        for start in range(0, UTTERANCES, block):
            _ = unit[start : start + block] @ transposed

    tracemalloc.start()
    scoring.cohort_statistics(embeddings[:20_000], cohort)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    ours = _seconds(lambda: scoring.cohort_statistics(embeddings, cohort), 1)
    what = f"AS-norm of {UTTERANCES:,} x {COHORT:,}, top 300, peak {peak:.0f} MiB beyond the embeddings"
    return [_row(what, ours, "the matrix product alone", _seconds(product, 1))]


# Training: thin ResNet-34 on 80 mel bands and 200 frames, 1000 speakers.

FRAMES, BATCH, CLASSES = 200, 32, 1000


def _in_turn(works: list[Callable], repeats: int = 4) -> list[float]:
    """Shortest of a few runs of each [s]; they take turns, so that a busy machine is busy for all."""
    for work in works:
        work()
    times = [[_seconds(work, 1) for work in works] for _ in range(repeats)]
    return np.min(times, axis=0).tolist()


def _keras_model(inputs, embeddings) -> keras.Model:
    """A model with a head on its embeddings, compiled as a training on CPU is."""
    head = CosFaceHead(CLASSES, margin=0.0)
    model = keras.Model(inputs, head(embeddings))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), loss=head.loss, jit_compile=False)
    return model


def _keras_step(features: np.ndarray, classes: np.ndarray) -> Callable:
    """One training step of the thin ResNet-34 from features [shape=(batch, frames, bins, 1)] on, in Keras."""
    maps = keras.Input((None, *features.shape[2:]))
    x = keras.layers.Dense(256)(StatisticsPooling()(ResNet(34, 32, "thin")(maps)))
    x = encoder.UnitVectors()(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))
    model = _keras_model(maps, x)
    features, classes = keras.ops.convert_to_tensor(features), keras.ops.convert_to_tensor(classes)
    return lambda: float(model.train_on_batch(features, classes))


@contextlib.contextmanager
def _torch_step() -> Iterator[Callable | None]:
    """The same in PyTorch, in a process of its own (two frameworks in one process crash); None where it is missing."""
    if importlib.util.find_spec("torch") is None:
        yield None
        return
    line = [sys.executable, "-m", "sv_utils.bench_torch", str(BATCH), str(FRAMES), str(CLASSES)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def step() -> None:
            print(file=child.stdin, flush=True)
            if not child.stdout.readline():
                raise WorkError("sv_utils.bench_torch has died: run it by hand to see why")

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
        seconds = _in_turn([ours] if theirs is None else [ours, theirs])
    what = f"training step of thin ResNet-34, {BATCH} x {FRAMES} frames"
    return [_row(what, seconds[0], other, *seconds[1:])]


def _store(folder: Path, utterances: int = 500, seconds: int = 8) -> store.Speech:
    """Open store of noise, 16 kHz, as long as VoxCeleb's utterances."""
    samples = 16_000 * seconds
    np.random.default_rng(0).integers(-9000, 9000, utterances * samples, np.int16).tofile(folder / "shard.pcm")
    rows = {"shard": "shard.pcm", "offset": samples * np.arange(utterances), "samples": samples, "speaker": "s"}
    return store.Speech(pd.DataFrame(rows), folder)


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
    surroundings = {"noise": 0.3, "babble": 0.3, "reverberation": 0.4, "telephone": 0.2, "clipping": 0.1}
    with tempfile.TemporaryDirectory() as folder:
        speech = _store(Path(folder))
        plain = Crops(speech, np.arange(len(speech)), BATCH, 160 * FRAMES, seed=0)
        augmentation = augment.Augmentation({**augment.OFF, **surroundings}, speech)
        augmented = dataclasses.replace(plain, augmentation=augmentation, speeds=(1.0, 0.9, 1.1))
        loaders = [_seconds(lambda crops=crops: _load(crops, 50), 2) / 50 for crops in (plain, augmented)]
        model = encoder.build()
        waited, step_seconds = _wait(_keras_model(model.input, model.output), augmented, 6)
    what = f"a batch of {BATCH} crops of {FRAMES / 100:g} s"
    beside = "a training step of thin ResNet-34 on augmented waveforms"
    return [
        _row(what, loaders[0], beside, step_seconds),
        _row(f"{what}, every one augmented, three speeds", loaders[1], beside, step_seconds),
        _row(f"that step's wait for its batch ({waited / step_seconds:.2%} of it)", waited, "the step", step_seconds),
    ]


BENCHMARKS = {"judging": judging, "normalisation": normalisation, "step": step, "loading": loading}


@command
def main(argv: list[str] | None = None) -> None:
    """Run benchmarks and print what they took; `ratio` is how many times as long the other way takes."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.bench", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args(argv).names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            raise RequestError(f"there is no benchmark '{name}'{nearest(name, BENCHMARKS)}")
    rows = pd.DataFrame([row for name in names for row in BENCHMARKS[name]()])
    for column, form in {"seconds": "{:.2f}", "its seconds": "{:.1f}", "ratio": "{:.2f}"}.items():
        rows[column] = [form.format(value) if np.isfinite(value) else "" for value in rows[column]]
    print(report.markdown(rows))


if __name__ == "__main__":
    raise SystemExit(main())
