"""Embed utterances of any length with an encoder of any format: Keras, ONNX or LiteRT."""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.speech import audio

SHORTEST = 8_000  # utterances under 0.5 s are repeated to it [samples]
LONGEST = 960_000  # utterances over 60 s are embedded in parts [samples]
BLOCK = 512  # files decoded at once: bounds the memory, and lets equal lengths share a batch
FULL_BATCH = 80_000  # of utterances over 5 s fewer than a batch are computed at once [samples]


def embed(
    model: Any,
    lengths: Sequence[int] | np.ndarray,
    read: Callable[[int], np.ndarray],
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """
    Embed utterances, each exactly once and in full.

    Only utterances of which the front end hears equally many samples share a batch, so nothing is padded and an
    embedding does not depend on its neighbours. An utterance under 0.5 s is repeated to 0.5 s. One over 60 s is cut
    into equal parts of at most 60 s: its embedding has the direction of the mean of the parts' unit vectors, and their
    mean length.

    Parameters
    ----------
    model : keras.Model or runtimes.Exported
        See `encoders.build`; what is used of it are ``output_shape``, ``predict_on_batch``, and ``heard`` of itself or
        one of its layers: how many of so many samples make a difference (without it: whole hops of 10 ms).
    lengths : sequence of int
        Lengths of the utterances [samples].
    read : callable
        Gives utterance ``i`` as int16 at 16 kHz; of more than ``lengths[i]`` samples the first count.
    batch_size : int
        Utterances of up to 5 s computed at once; fewer when they are longer, which bounds the memory.
    progress : callable
        Called after each batch with the number of utterances done so far.

    Returns
    -------
    np.ndarray [shape=(len(lengths), d)], float32
        In the order of `lengths`: unit vectors, unless the model is one of `encoders.unnormalised`.

    Raises
    ------
    RequestError
        If an utterance has no samples.

    Examples
    --------
    >>> embed(model, [len(enrol), len(test)], [enrol, test].__getitem__).shape  # doctest: +SKIP
    (2, 256)
    """
    lengths = np.asarray(lengths, int)
    if np.any(lengths < 1):
        raise RequestError(f"utterance {np.flatnonzero(lengths < 1)[0]} has no samples; leave it out")
    if getattr(model, "jit_compile", False):
        _take_all_durations(model)
    read = functools.lru_cache(maxsize=1)(read)  # the parts of a long utterance follow each other
    parts = -(-lengths // LONGEST)
    samples = _heard(model)(np.maximum(lengths // parts, SHORTEST))
    embeddings, means = (np.zeros((len(lengths), width), "float32") for width in (model.output_shape[1], 1))
    done = 0
    for batch, size in _batches(samples, parts, batch_size):
        starts = [part * (lengths[row] // parts[row]) for row, part in batch]
        waves = [
            np.resize(read(row)[start : start + size], size) for (row, _), start in zip(batch, starts, strict=True)
        ]
        vectors = np.asarray(model.predict_on_batch(np.stack(waves).astype("float32") / 32768))
        rows, sizes = [row for row, _ in batch], _lengths(vectors)
        np.add.at(embeddings, rows, vectors / sizes)
        np.add.at(means, rows, sizes / parts[rows, None])
        done += sum(part == parts[row] - 1 for row, part in batch)
        if progress:
            progress(done)
    return embeddings / _lengths(embeddings) * means


def embed_files(model: Any, root: str | os.PathLike, names: list[str]) -> np.ndarray:
    """
    Embed audio files of any format.

    Parameters
    ----------
    model : keras.Model
        Encoder of `pretrained.load`.
    root : path
        Folder that the names start from.
    names : list of str

    Returns
    -------
    np.ndarray [shape=(files, dimension)], float32
        Unit vectors in the order of `names`.

    Raises
    ------
    RequestError
        When a file is missing or cannot be decoded; it is named.
    """
    blocks = (names[i : i + BLOCK] for i in range(0, len(names), BLOCK))
    return np.concatenate([_embed_block(model, Path(root), block) for block in blocks])


def _embed_block(model: Any, root: Path, names: list[str]) -> np.ndarray:
    waveforms = []
    for name in names:
        try:
            waveforms.append(audio.decode(root / name).samples)
        except (OSError, audio.AudioError) as error:
            raise RequestError(f"{root / name}: {error}; mend the file or take it off the list") from None
    return embed(model, [len(w) for w in waveforms], waveforms.__getitem__)


def _lengths(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _take_all_durations(model: Any) -> None:
    import keras  # only of a Keras model, whose import is long past

    if keras.config.backend() == "tensorflow":
        model.jit_compile = False  # XLA would compile each duration anew; the plain graph takes them all
        model.make_predict_function(force=True)


def _heard(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    parts = [model, *getattr(model, "layers", [])]
    return next((part.heard for part in parts if hasattr(part, "heard")), lambda samples: samples // 160 * 160)


def _batches(samples: np.ndarray, parts: np.ndarray, batch_size: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Batches of (row, part), each of parts of one length, with that length; short parts come first."""
    items = [(samples[row], row, part) for row in np.argsort(samples, kind="stable") for part in range(parts[row])]
    for size, group in itertools.groupby(items, key=lambda item: item[0]):
        alike = [(row, part) for _, row, part in group]
        at_once = max(1, batch_size * min(FULL_BATCH, size) // size)
        for first in range(0, len(alike), at_once):
            yield alike[first : first + at_once], size
