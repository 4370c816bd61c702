"""Embed utterances of any length with an encoder of any format: Keras, ONNX or LiteRT."""

import functools
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.base.text import refuse_special
from sv_utils.speech import audio

SHORTEST = 8_000  # utterances under 0.5 s are repeated to it [samples]
LONGEST = 960_000  # utterances over 60 s are embedded in parts [samples]
FORMS: Final = ("NFC", "NFD")  # of accents, as different systems write them in names of files
MOST_NAMED = 20  # bad files that one sentence names
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

    Only utterances of which the front end hears equally many samples share a batch: it hears whole hops of 10 ms, so
    that lengths which differ within a hop are one. Nothing is padded, and an embedding does not depend on its
    neighbours. An utterance under 0.5 s is repeated to 0.5 s. One over 60 s is cut
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
        Gives utterance ``i`` as int16, or float in [-1, 1], at 16 kHz; of more than ``lengths[i]`` samples the first
        count.
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
        If an utterance has no samples, or is none (`audio.as_int16`).

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
    checked = functools.lru_cache(maxsize=1)(  # the parts of a long utterance follow each other
        lambda row: audio.as_int16(read(row), f"utterance {row}")
    )
    parts = -(-lengths // LONGEST)
    samples = _heard(model)(np.maximum(lengths // parts, SHORTEST))
    embeddings, means = (np.zeros((len(lengths), width), "float32") for width in (model.output_shape[1], 1))
    done = 0
    for batch, size in _batches(samples, parts, batch_size):
        starts = [part * (lengths[row] // parts[row]) for row, part in batch]
        waves = [
            np.resize(checked(row)[start : start + size], size) for (row, _), start in zip(batch, starts, strict=True)
        ]
        vectors = np.asarray(model.predict_on_batch(np.stack(waves).astype("float32") / 32768))
        rows, sizes = [row for row, _ in batch], _lengths(vectors)
        np.add.at(embeddings, rows, vectors / sizes)
        np.add.at(means, rows, sizes / parts[rows, None])
        done += sum(part == parts[row] - 1 for row, part in batch)
        if progress:
            progress(done)
    return embeddings / _lengths(embeddings) * means


def embed_files(
    model: Any,
    root: str | os.PathLike,
    names: Sequence[str],
    skip_bad: bool = False,
    cut: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, dict[str, str]]:
    """
    Embed audio files of any format.

    What is missing is found before anything is decoded. From the first bad file on, the others are decoded alone, so
    that all bad ones are named; unless they are skipped.

    Parameters
    ----------
    model : keras.Model or Exported
        Encoder of `pretrained.load`.
    root : path
        Folder that the names start from.
    names : sequence of str
    skip_bad : bool
        Leave out bad files instead of refusing all.
    cut : callable, optional
        Gives what is embedded of a waveform [dtype=int16]; less than 0.5 s of it makes a file a bad one.

    Returns
    -------
    embeddings : np.ndarray [shape=(good files, dimension)], float32
        Unit vectors in the order of `names`.
    bad : dict of str to str
        Names of what was left out, with the reasons.

    Raises
    ------
    RequestError
        Files are missing, cannot be decoded, or the model gives no vector of finite numbers for them; they are named.
        With `skip_bad`, if none is good.
    """
    bad = refuse_missing(root, names, skip_bad)
    blocks = [names[i : i + BLOCK] for i in range(0, len(names), BLOCK)]
    vectors = [_embed_block(model, Path(root), block, bad, skip_bad, cut) for block in blocks]
    _refuse_bad(bad, root, names, skip_bad)
    embeddings = np.concatenate(vectors)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.where(np.abs(lengths - 1) > 1e-3, embeddings / lengths, embeddings), bad  # an encoder of others


def refuse_missing(root: str | os.PathLike, names: Sequence[str], skip_bad: bool = False) -> dict[str, str]:
    """Find files that are missing without reading any; parameters, the `bad` returned and errors as `embed_files`."""
    bad = {name: reason for name in dict.fromkeys(names) if (reason := _missing(_path(root, name)))}
    _refuse_bad(bad, root, names, skip_bad)
    return bad


def _path(root: str | os.PathLike, name: str) -> Path:
    """Where a listed file lies; accents may be written in two ways, and folders may be separated as Windows does."""
    names = [name, *(unicodedata.normalize(form, one) for one in (name, name.replace("\\", "/")) for form in FORMS)]
    return next((path for one in names if (path := Path(root, one)).exists()), Path(root, name))


def _missing(path: Path) -> str:
    """Why a listed file is none, found without reading it; '' for a file."""
    try:
        refuse_special(path)
    except RequestError:
        return "a pipe or a device, and no file"
    return "" if path.is_file() else "no such file"


def _refuse_bad(bad: dict[str, str], root: str | os.PathLike, names: Sequence[str], skip_bad: bool) -> None:
    if bad and (not skip_bad or not set(names) - bad.keys()):
        said = [f"{Path(root) / name}: {reason}" for name, reason in list(bad.items())[:MOST_NAMED]]
        more = f"; and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise RequestError(
            f"{len(bad)} of {len(names)} files cannot be embedded ({'; '.join(said)}{more}); mend them, take them off "
            "the list, or give --skip-bad."
        )


def _embed_block(
    model: Any,
    root: Path,
    names: Sequence[str],
    bad: dict[str, str],
    skip_bad: bool,
    cut: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Vectors of the good files of a block; the bad ones are added to those that are known."""
    good, waveforms = [], []
    for name in names:
        if name not in bad:
            try:
                samples = audio.decode(_path(root, name)).samples
                if cut and len(samples := cut(samples)) < SHORTEST:
                    raise audio.AudioError(f"{len(samples) / 16_000:.2f} s of it are speech, too few to embed")
                waveforms.append(samples)
                good.append(name)
            except (OSError, audio.AudioError) as error:
                bad[name] = getattr(error, "strerror", None) or str(error)
    if not waveforms or (bad and not skip_bad):
        return np.empty((0, model.output_shape[1]), np.float32)
    vectors = embed(model, [len(w) for w in waveforms], waveforms.__getitem__)
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    bad |= {name: "the model gives no finite vector" for name, is_good in zip(good, usable) if not is_good}
    return vectors[usable]


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
