"""What a recording is once it is decoded, and how the refusal of one is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `guard` imports without it
    import numpy as np

TOLERATED = (0.5, 0.01)  # seconds, and share of the recording, that may be missing


class AudioError(ValueError):
    """A file that gives no samples; the message is the short reason that goes into the manifest."""


@dataclass(frozen=True)
class Decoded:
    """
    A decoded file.

    Attributes
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        Mono, at the requested rate.
    rate : int
        Rate of the original [Hz]; the lowest one where it changes midway.
    channels : int
        Channels of the original.
    codec : str
        FFmpeg's name of the codec.
    warnings : tuple of str
        What is wrong with the file without making it useless: clauses such as "0.01 s of the sound that its
        header announces are missing".
    """

    samples: np.ndarray
    rate: int
    channels: int
    codec: str
    warnings: tuple[str, ...] = ()


def missing(seconds: float, lost: float) -> str:
    """
    Judge what a file lacks.

    Parameters
    ----------
    seconds : float
        What was decoded [s].
    lost : float
        What its header announces beyond that [s].

    Returns
    -------
    str
        A warning.

    Raises
    ------
    AudioError
        When more than half a second and more than a hundredth of the recording is missing.

    Examples
    --------
    >>> missing(9.9, 0.1)
    '0.10 s of the sound that its header announces are missing'
    """
    if lost > max(TOLERATED[0], TOLERATED[1] * (seconds + lost)):
        raise AudioError(f"truncated: {seconds:.1f} s of {seconds + lost:.1f} s")
    return f"{max(lost, 0.001):.{2 if lost >= 0.01 else 3}f} s of the sound that its header announces are missing"
