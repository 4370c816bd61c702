"""
Steps of one phase of a training, timed on this machine's device, with the peak of its memory: for forecasts.

``python -m sv_utils.bench.phases`` reads what is asked from its standard input and answers there, both as JSON: a
process of its own, as a process has one peak of memory.
"""

import contextlib
import inspect
import json
import resource
import sys
import time
from typing import Any

import keras
import numpy as np

from sv_utils import losses
from sv_utils.losses.heads import MarginHead
from sv_utils.training import devices, loop, schedules
from sv_utils.training.speaker_model import SAMPLE_RATE, SpeakerModel

CPU_CROPS = 8  # of a batch are computed where there is no GPU; the rest is reckoned
STEPS = {"cpu": 2, "gpu": 20}  # that are timed, after one that compiles


def measure(asked: dict) -> dict[str, Any]:
    """
    Time steps of a phase on random waveforms.

    Parameters
    ----------
    asked : dict
        ``seed, initial_model, architecture, engine, loss, n_classes, batch_size``, and ``phase``: see `loop.Training`.

    Returns
    -------
    dict
        ``device`` in words; ``crops`` that were computed at once; ``seconds``: median of a whole batch's step, reckoned
        from those crops; ``bytes``: peak of the device's memory (on a CPU: of the process) with these crops, and
        ``bytes_per_crop`` of it beyond a batch of two; ``compiling`` [s].
    """
    engine = asked["engine"] | {"needs_gpu": False, "readers": 0}
    where = loop.start(asked["seed"], engine)
    gpu = devices.described().startswith("GPU")
    crops = asked["batch_size"] if gpu else min(asked["batch_size"], CPU_CROPS)
    model = _compiled(asked, engine, where)
    step, settings = where.step(model), _settings(asked["phase"])

    def take(count: int) -> float:
        batch = _batch(asked, count)
        begin = time.perf_counter()
        float(step(batch, settings, True)["loss"])
        return time.perf_counter() - begin

    before = (take(2), _peak(gpu))[1]
    compiling = take(crops)
    seconds = float(np.median([take(crops) for _ in range(STEPS["gpu" if gpu else "cpu"])]))
    found = {"device": devices.described(), "crops": crops, "seconds": seconds * asked["batch_size"] / crops}
    peak = _peak(gpu)
    return found | {"bytes": peak, "bytes_per_crop": (peak - before) / max(1, crops - 2), "compiling": compiling}


def _compiled(asked: dict, engine: dict, where: devices.Devices) -> SpeakerModel:
    """The model of a training, compiled as in this phase."""
    encoder = loop.make_encoder(asked["initial_model"], asked["architecture"])
    kind = losses.head(asked["loss"])
    own = inspect.signature(kind.__init__).parameters if issubclass(kind, MarginHead) else ()
    options = {name: asked[name] for name in ("scale", "centres", "hard_margin") if name in own and name in asked}
    head = kind(asked["n_classes"], **options) if losses.LOSSES[asked["loss"]].knows_speakers else kind()
    given = SpeakerModel(encoder, head)
    model = where.build(lambda: given.twin(where.replicas, engine["gradient_checkpointing"]))
    schedules.freeze(model.encoder, asked["phase"]["frozen"])

    def compiled() -> None:
        optimizer = schedules.optimizer(asked["phase"], engine["precision"] == "mixed_float16", where.replicas)
        model.compile(optimizer, metrics=[], jit_compile=engine["jit_compile"])
        optimizer.build(model.trainable_variables)

    where.build(compiled)
    return model


def _settings(phase: dict) -> dict[str, float]:
    settings = {"learning_rate": phase["learning_rate"]}
    return settings | ({"margin": phase["margin"]} if "margin" in phase else {})


def _batch(asked: dict, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    waveforms = rng.uniform(-0.3, 0.3, (count, round(SAMPLE_RATE * asked["phase"]["crop_seconds"])))
    return waveforms.astype(np.float32), (np.arange(count) // 2 % asked["n_classes"]).astype(np.int32)


def _peak(gpu: bool) -> int:
    """Most memory that the device has needed so far [bytes]; on a CPU this process."""
    if gpu and keras.backend.backend() == "jax":
        from jax import devices as found

        return int(found()[0].memory_stats()["peak_bytes_in_use"])
    if gpu:
        from tensorflow import config

        return int(config.experimental.get_memory_info("GPU:0")["peak"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measure what the standard input asks for."""
    with contextlib.redirect_stdout(sys.stderr):
        told = measure(json.load(sys.stdin))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
