"""
What of a recording is no voice for certain: a muted line, and a quiet background that stays the same for a second.

It is left out before the detector listens, which hears things where there are none, and misses words, after long noise.
So however long it lasts, it changes next to nothing of the speech that is found. Everything else is left to be judged:
pauses and noise that are shorter, sounds that change, and whatever is nearly as loud as the voice.
"""

import numpy as np

MUTED = 320  # so many zeros in a row are a muted line [samples]
FRAME = 160  # in which levels are measured [samples]
AROUND = 50  # for so many frames before and after a frame, a second in all, a steady background
UNDER = 15.0  # is quieter by this than the loud frames of the recording [dB],
LOUD = 50  # which are the so many loudest,
RANGE = 4.5  # and stays within this, where high frequencies count for more since rumble wavers by itself [dB]
NEAR = 1.6  # it goes on as far as the median of a frame and its two neighbours lies this near to its mean [dB]


def left(samples: np.ndarray) -> list[tuple[int, int]]:
    """
    Find what is left of a recording without muted lines and steady backgrounds.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    list of (int, int)
        First sample and the sample after the last one of each, in order.

    Examples
    --------
    >>> left(np.array([300, -300] + [0] * 320 + [200], np.int16))
    [(0, 2), (322, 323)]
    """
    sounding = _others(_muted(samples), len(samples))
    rest = joined(samples, sounding)
    return placed(_others(_steady(rest), len(rest)), sounding)


def joined(samples: np.ndarray, stretches: list[tuple[int, int]]) -> np.ndarray:
    """Cut stretches out of a recording and join them [shape=(m,), dtype=int16]."""
    return np.concatenate([samples[start:end] for start, end in stretches]) if stretches else samples[:0]


def placed(pieces: list[tuple[int, int]], stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    Tell where in a recording the pieces of joined stretches lie.

    Parameters
    ----------
    pieces : list of (int, int)
        First sample and the sample after the last one of each, of what `joined` gives of the stretches.
    stretches : list of (int, int)

    Returns
    -------
    list of (int, int)
        In the recording; a piece of more than one stretch is parted.

    Examples
    --------
    >>> placed([(2, 6)], [(10, 14), (20, 30)])
    [(12, 14), (20, 22)]
    """
    starts = np.cumsum([0, *(end - start for start, end in stretches)])
    found = []
    for start, end in pieces:
        for place in range(int(np.searchsorted(starts, start, "right")) - 1, int(np.searchsorted(starts, end))):
            move = stretches[place][0] - int(starts[place])
            found.append((max(start, int(starts[place])) + move, min(end, int(starts[place + 1])) + move))
    return found


def loudest(samples: np.ndarray) -> int:
    """Place of the loudest sample; 0 where there is none."""
    return int(np.argmax(np.abs(samples.astype(np.int32)))) if len(samples) else 0


def _others(runs: np.ndarray, length: int) -> list[tuple[int, int]]:
    """What lies before, between and after runs [shape=(n, 2)]."""
    edges = np.concatenate([[0], runs.ravel(), [length]]).reshape(-1, 2)
    return [(int(start), int(end)) for start, end in edges if end > start]


def _runs(there: np.ndarray) -> np.ndarray:
    """Where something is true [shape=(n, 2)]: the first place and the place after the last one of each run."""
    return np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)


def _muted(samples: np.ndarray) -> np.ndarray:
    runs = _runs(samples == 0)
    return runs[runs[:, 1] - runs[:, 0] >= MUTED]


def _steady(samples: np.ndarray) -> np.ndarray:
    """Runs [shape=(n, 2)] of a steady background, of frames that are counted from the loudest sample."""
    first = loudest(samples) % FRAME
    frames = samples[first : first + (len(samples) - first) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    if len(frames) <= 2 * AROUND:
        return np.zeros((0, 2), int)
    level, bright = _decibels(frames), _decibels(np.diff(frames, axis=1))
    limit = np.sort(level)[-LOUD] - UNDER
    windows = np.lib.stride_tricks.sliding_window_view(bright, 2 * AROUND + 1)
    loudest_near = np.lib.stride_tricks.sliding_window_view(level, 2 * AROUND + 1).max(axis=1)
    same = (windows.max(axis=1) - windows.min(axis=1) < RANGE) & (loudest_near < limit)
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(bright, 1, "edge"), 3), axis=1)
    steady = np.zeros(len(frames), bool)
    for start, end in _runs(same):
        start, end = _grown(np.abs(smooth - bright[start : end + 2 * AROUND].mean()) < NEAR, start, end)
        steady[start:end] = True
    runs = first + _runs(steady) * FRAME
    runs[runs == first] = 0  # what is less than a frame goes with the frame beside it
    runs[runs == first + len(frames) * FRAME] = len(samples)
    return runs


def _grown(near: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """From the frames that are amid the windows from start to end on, outwards, as far as all frames are near."""
    before, after = np.flatnonzero(~near[: start + AROUND]), np.flatnonzero(~near[end + AROUND :])
    return int(before[-1]) + 1 if len(before) else 0, end + AROUND + int(after[0]) if len(after) else len(near)


def _decibels(frames: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(np.einsum("ij,ij->i", frames, frames) / frames.shape[1], 1e-6))
