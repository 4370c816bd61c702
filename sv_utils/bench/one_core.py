"""Times an encoder with drawn weights on one core, in a process of its own: ``one_core ARCHITECTURE`` (JSON)."""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.bench.timing import in_turn
from sv_utils.models import complexity, embedding, encoders, exports, runtimes

SECONDS = 3
REPEATS = 12  # a machine with other work is quiet in some of them


def times(architecture: dict) -> dict:
    """
    Embed one recording of 3 s, front end included, by Keras and by both exports.

    Parameters
    ----------
    architecture : dict
        Arguments of `encoders.build`; or ``family``, a module of `pretrained`, with arguments of its ``build``.

    Returns
    -------
    dict
        ``parameters``, ``macs`` (see `complexity.properties`), and [s] ``keras``, ``onnx``, ``litert``: the shortest of
        `REPEATS` runs that took turns. A format that cannot be written is left out.
    """
    model = _built(**architecture)
    size = complexity.properties(model)
    ways: dict[str, Callable] = {"keras": _embeds(model)}
    with tempfile.TemporaryDirectory(prefix="sv_utils") as folder:
        for to, suffix in exports.SUFFIXES.items():
            file = Path(folder) / f"model{suffix}"
            try:
                exports.write(model, to, file)
                ways[to] = _embeds(runtimes.Exported(file))
            except Exception as error:  # the converters raise many kinds
                print(f"{to}: {error}".splitlines()[0], file=sys.stderr)
        taken = in_turn(list(ways.values()), REPEATS)
    return {"parameters": size["parameters"], "macs": size["macs_of_3_s"], **dict(zip(ways, taken))}


def _built(family: str = "", **options: Any) -> Any:
    if not family:
        return encoders.build(**options)
    return importlib.import_module(f"sv_utils.models.pretrained.{family}").build(**options)


def _embeds(model: object) -> Callable:
    sound = np.random.default_rng(0).normal(0, 3000, 16_000 * SECONDS).astype(np.int16)
    return lambda: embedding.embed(model, [len(sound)], lambda _: sound)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow makes its threads
    runtimes.THREADS = 1
    print(json.dumps(times(json.loads(sys.argv[1]))))
