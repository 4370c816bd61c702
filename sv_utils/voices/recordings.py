"""A recording that somebody hands in: decoded, measured, and warned of."""

import math
import os

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.speech import audio

SPEECH_BELOW_PEAK = 30.0  # a frame is speech down to this much below the loud frames of its recording [dB]
LOUD = 95  # percentile of the frames' levels that counts as loud
SHORT = 2.0  # with less speech than this an answer is weak [s]
SHORTEST = 0.5  # with less speech there is no answer [s]
CLIPPED = 0.001  # fraction of the samples at full scale
SILENT = 0.5  # fraction of the recording that is not speech


def describe(file: str | os.PathLike, sound: audio.Decoded) -> dict:
    """
    Measure a recording and say what makes an answer weak.

    Returns
    -------
    dict
        ``file``, ``seconds``, ``speech_seconds``, ``rate`` [Hz] and ``channels`` of the original, ``clipped``
        (fraction of the samples) and ``warnings`` (list of str).
    """
    seconds, speech = len(sound.samples) / 16_000, speech_seconds(sound.samples)
    clipped = audio.measure(sound.samples)["clipped"]
    warnings = list(sound.warnings)
    if speech < SHORT:
        warnings.append(f"{speech:.2f} s of speech are too short for a reliable answer, give {SHORT:g} s or more")
    if sound.rate < 16_000:
        warnings.append(
            f"recorded at {sound.rate} Hz, so nothing above {sound.rate / 2000:g} kHz is there to compare; "
            "the error rates hold for 16 kHz"
        )
    if clipped > CLIPPED:
        warnings.append(f"{clipped:.1%} of the samples are clipped, record it less loud")
    if speech < (1 - SILENT) * seconds:
        warnings.append(f"mostly silence: {speech:.1f} s of speech in {seconds:.1f} s")
    numbers = {"seconds": seconds, "speech_seconds": speech, "rate": sound.rate, "channels": sound.channels}
    return {"file": os.fspath(file), **numbers, "clipped": clipped, "warnings": warnings}


def speech_seconds(samples: np.ndarray) -> float:
    """
    Estimate how much of a recording is speech, by energy alone: noise as loud as a voice counts as speech.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    float [s]
        Of 20 ms frames above -60 dBFS that lie at most 30 dB below the loud ones (95th percentile) of the recording.
    """
    frames = samples[: len(samples) // audio.FRAME * audio.FRAME].reshape(-1, audio.FRAME).astype(np.float32) / 32768
    if not len(frames):
        return 0.0
    level = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-12)
    floor = max(20 * math.log10(audio.SILENCE), np.percentile(level, LOUD) - SPEECH_BELOW_PEAK)
    return float(np.count_nonzero(level > floor) * audio.FRAME / 16_000)


def decode(file: str | os.PathLike) -> audio.Decoded:
    """
    Decode an audio file.

    Raises
    ------
    RequestError
        If it cannot be read or is no audio.
    """
    try:
        return audio.decode(file)
    except (OSError, audio.AudioError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{os.fspath(file)}: {reason}; name an audio file") from None
