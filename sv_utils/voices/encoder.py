"""The encoder that answers, without TensorFlow where there is a LiteRT file of it."""

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.models import embedding, pretrained, runtimes


def embeddings(model: str, waveforms: list[np.ndarray]) -> np.ndarray:
    """
    Embed recordings, without TensorFlow where there is a LiteRT file of the model.

    Parameters
    ----------
    model : str
        As of `compare`.
    waveforms : list of np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    np.ndarray [shape=(recordings, d)], float32
        Unit vectors.
    """
    source = pretrained.locate(model)
    network, lengths = _network(runtimes.fast_form(source) or source), [len(samples) for samples in waveforms]
    return embedding.embed(network, lengths, waveforms.__getitem__, batch_size=1)


@functools.lru_cache(maxsize=1)
def _network(file: Path) -> Any:
    """The encoder of a file, kept for the next answer of this process."""
    network = pretrained.load(file)
    network.run_eagerly = True  # of Keras: to compile the graph takes longer than to run it twice
    return network


def prepare(model: str) -> None:
    """Write a published encoder's LiteRT file beside it, where LiteRT is installed, for quick starts from now on."""
    if model not in pretrained.PUBLISHED or not runtimes.can_be_fast() or runtimes.fast_form(pretrained.locate(model)):
        return
    print("sv_utils.verify: making the next starts quick, this once: a minute or two ...", file=sys.stderr)
    from sv_utils.models import exports  # and with it TensorFlow

    with contextlib.suppress(Exception):  # a convenience: the answer stands, and Keras gives the next
        exports.export(model, "litert")
