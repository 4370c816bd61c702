"""Does a second voice speak in a recording?"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sv_utils.voices import encoder, ratios
from sv_utils.voices.recordings import Recording

RATE = 16_000
WINDOW = 24_000  # speech that is embedded at a time [samples]
FEWEST = 4  # windows from which on there is an answer
EACH = 2  # windows that either voice must have
APART = 0.50  # cosine of the two groups' means below which they are two voices,
COMPENSATED = 0.40  # or below this one where the directions are removed in which channels move voices


@dataclass(frozen=True)
class Second:
    """
    A second voice.

    Attributes
    ----------
    start, end : float [s]
        From when to when it is heard, in the recording; the voice with less speech counts as the second.
    cosine : float
        Of the two voices' mean embeddings.
    """

    start: float
    end: float
    cosine: float


def second_voice(
    samples: np.ndarray,
    stretches: Sequence[tuple[int, int]],
    embed: Callable[[list[np.ndarray]], np.ndarray],
    removed: np.ndarray | None = None,
) -> Second | None:
    """
    Find a second voice.

    The speech is embedded in windows of 1.5 s, which are parted in two along the direction in which they differ most.
    One voice parted so has two halves that are much alike; two voices have not, but for what one telephone gives both,
    which can be removed.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.
    stretches : sequence of (int, int)
        Where there is speech, as of `activity.segments`.
    embed : callable
        From a list of waveforms to unit vectors [shape=(windows, d)].
    removed : np.ndarray [shape=(k, d)], optional
        Directions in which channels move voices (`ratios.without`).

    Returns
    -------
    Second or None
        None where there is one voice, or too little speech to tell (less than 6 s).
    """
    windows = windows_of(stretches)
    found = told(embed([samples[window] for window in windows]), removed) if len(windows) >= FEWEST else None
    if found is None:
        return None
    group, cosine = found
    heard = np.flatnonzero(group == (np.count_nonzero(group) <= len(windows) / 2))
    return Second(windows[heard[0], 0] / RATE, (windows[heard[-1], -1] + 1) / RATE, cosine)


def windows_of(stretches: Sequence[tuple[int, int]]) -> np.ndarray:
    """Cut speech into windows: the places of their samples [shape=(windows, 24000)]; a rest is left out."""
    places = np.concatenate([np.arange(start, end) for start, end in stretches]) if len(stretches) else np.zeros(0, int)
    return places[: len(places) // WINDOW * WINDOW].reshape(-1, WINDOW)


def told(embeddings: np.ndarray, removed: np.ndarray | None = None) -> tuple[np.ndarray, float] | None:
    """
    Tell two voices in windows of speech.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(windows, d)]
        Unit vectors, of 4 windows or more.
    removed : np.ndarray [shape=(k, d)], optional
        As of `second_voice`.

    Returns
    -------
    tuple of np.ndarray and float, or None
        As of `parted`; None where it is one voice.
    """
    group, cosine = parted(embeddings if removed is None else ratios.without(embeddings, removed))
    alike = cosine >= (APART if removed is None else COMPENSATED)
    return None if alike or not EACH <= np.count_nonzero(group) <= len(group) - EACH else (group, cosine)


def warned(recording: Recording, model: str) -> list[str]:
    """Say in words where a second voice is heard in a recording; nothing where there is one voice."""
    embed = functools.partial(encoder.embeddings, model)
    found = second_voice(recording.sound.samples, recording.stretches, embed, ratios.directions(model))
    if found is None:
        return []
    start = recording.segment[0] if recording.segment else 0.0
    where = f"from {start + found.start:.1f} to {start + found.end:.1f} s"
    return [f"{recording.name}: a second voice seems to speak {where}; give a part with one voice (--segment)"]


def parted(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """
    Part embeddings in two groups.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n, d)]
        Unit vectors.

    Returns
    -------
    group : np.ndarray of bool [shape=(n,)]
    cosine : float
        Of the groups' means; 1 where all are in one group.

    Examples
    --------
    >>> parted(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))[1]
    0.0
    """
    centred = embeddings - embeddings.mean(axis=0)
    values = np.linalg.svd(centred, full_matrices=False)[0][:, 0]
    group = values > (values.min() + values.max()) / 2
    for _ in range(10):
        if group.all() or not group.any():
            return group, 1.0
        means = np.array([embeddings[group == side].mean(axis=0) for side in (False, True)])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        nearer = embeddings @ means[1] > embeddings @ means[0]
        if np.array_equal(nearer, group):
            break
        group = nearer
    return group, float(means[0] @ means[1])
