"""
From any audio file to mono int16 samples.

FFmpeg's libraries (by PyAV) decode, in a process of their own under a ceiling of memory. Everything that a file can get
wrong comes back as one short reason in `AudioError`, never as a crash, a hang or half of the samples.
"""

import errno
import io
import os
import select
import stat
from typing import BinaryIO

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.speech import guard
from sv_utils.speech.decoded import AudioError, Decoded

__all__ = ["AudioError", "Decoded", "as_int16", "decode", "decode_flac", "encode_flac", "measure"]

DECODER = 2  # raise when any kind of file decodes to other samples, or is newly taken or refused
FRAME = 320  # samples of 20 ms at 16 kHz, the unit in which silence is judged
SILENCE = 10 ** (-60 / 20)  # root mean square of a silent frame, relative to full scale: -60 dBFS
FLAC_LEVEL = 0.0  # of libsndfile's 0 to 1: the fastest
PIPED = 2**30  # longest recording that is taken from a pipe [bytes]
PATIENCE = 10.0  # for a pipe into which nothing is written [s]


def decode(
    source: bytes | str | os.PathLike,
    sample_rate: int = 16000,
    max_seconds: float = 3600.0,
    first_channel: bool = False,
    in_worker: bool = False,
) -> Decoded:
    """
    Decode a file to mono int16 samples.

    Channels are averaged (or the first is taken), other rates are resampled by libswresample. 16-bit PCM at
    `sample_rate` passes through bit by bit. An encoder's delay is removed where the container announces it, as the
    ffmpeg program does. Of several audio tracks the default one is taken, else the first.

    Parameters
    ----------
    source : bytes or path
        The file's content, or its path; also that of a pipe.
    sample_rate : int
        Wanted rate [Hz].
    max_seconds : float
        Longest accepted recording [s]: bounds time and memory whatever the file claims.
    first_channel : bool
        Take the first channel instead of the mean of all.
    in_worker : bool
        Decode in this process, which has nothing else to do and whose loss does no harm, under the same ceiling of
        memory. Saves a third of a millisecond a file.

    Returns
    -------
    Decoded
        Its `warnings` tell what is wrong with a file that can still be used.

    Raises
    ------
    AudioError
        Empty file, not audio, no audio stream, no samples, truncated or damaged, too long, samples that are no numbers;
        it takes too much memory or time, or makes the decoder crash.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> decode("00001.m4a").samples.shape  # doctest: +SKIP
    (41984,)
    """
    decoder = guard.decode_here if in_worker else guard.decode
    if isinstance(source, bytes):
        return decoder(source, sample_rate, max_seconds, first_channel)
    opened = _opened(source)
    if isinstance(opened, bytes):
        return decoder(opened, sample_rate, max_seconds, first_channel)
    with opened:
        return decoder(opened, sample_rate, max_seconds, first_channel)


def measure(samples: np.ndarray) -> dict[str, float]:
    """
    Measure the level of a recording.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]

    Returns
    -------
    dict
        ``peak``: largest magnitude, 1 = full scale (32768). ``clipped``: fraction of the samples at the largest or
        smallest int16 value. ``silent``: fraction of the 20 ms frames whose root mean square lies below -60 dBFS
        (a last incomplete frame is left out unless it is the only one).

    Examples
    --------
    >>> measure(np.zeros(16000, np.int16))
    {'peak': 0.0, 'clipped': 0.0, 'silent': 1.0}
    """
    low, high = int(samples.min()), int(samples.max())
    clipped = np.count_nonzero((samples == 32767) | (samples == -32768)) if max(-low, high) >= 32767 else 0
    frames = samples[: max(FRAME, len(samples) // FRAME * FRAME)]
    frames = frames.reshape(-1, min(FRAME, len(frames))).astype(np.float32)
    power = np.einsum("ij,ij->i", frames, frames) / frames.shape[1]
    return {
        "peak": max(-low, high) / 32768,
        "clipped": clipped / len(samples),
        "silent": float(np.mean(power < (SILENCE * 32768) ** 2)),
    }


def as_int16(samples: np.ndarray, name: str = "the array") -> np.ndarray:
    """
    Take samples of either kind in use: int16, or float in [-1, 1].

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
    name : str
        What to call it in an error.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=int16]

    Raises
    ------
    RequestError
        If it has two dimensions, no samples, another type, values that are not finite, or floats beyond [-1, 1].

    Examples
    --------
    >>> as_int16(np.array([0.5, -1.0, 1.0])).tolist()
    [16384, -32768, 32767]
    """
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise RequestError(f"{name} has the shape {samples.shape}; give one channel, of shape (samples,)")
    if not len(samples):
        raise RequestError(f"{name} has no samples; leave it out")
    if samples.dtype == np.int16:
        return samples
    if samples.dtype.kind != "f":
        raise RequestError(f"{name} is of type {samples.dtype}; give int16, or float in [-1, 1]")
    if not np.isfinite(samples).all():
        raise RequestError(f"{name} holds NaN or infinite samples; correct what made it")
    if (largest := float(np.abs(samples).max())) > 1:
        raise RequestError(f"{name} reaches {largest:g}; scale floats to [-1, 1], or give int16")
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def encode_flac(samples: np.ndarray) -> bytes:
    """Compress int16 samples [shape=(n,)] at 16 kHz to a FLAC stream, without loss."""
    import soundfile  # only where shards are FLAC

    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="FLAC", subtype="PCM_16", compression_level=FLAC_LEVEL)
    return file.getvalue()


def decode_flac(data: bytes | memoryview, start: int, length: int) -> np.ndarray:
    """Samples `start` to `start + length` of a FLAC stream [dtype=int16]; only their blocks are decoded."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(data)) as file:
        file.seek(start)
        return file.read(length, dtype="int16")


def _opened(path: str | os.PathLike) -> BinaryIO | bytes:
    """An open file, or what came out of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(descriptor, "rb")
    try:
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISFIFO(kind):
            raise AudioError("not a file")
        return _piped(descriptor)
    finally:
        os.close(descriptor)


def _piped(descriptor: int) -> bytes:
    """Everything that is written into a pipe, up to its end."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    pieces: list[bytes] = []
    size = 0
    while waiting.poll(PATIENCE * 1000):
        piece = os.read(descriptor, 2**20)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > PIPED:
            raise AudioError(f"more than {PIPED >> 20} MB come out of this pipe")
    raise AudioError("nothing is written into this pipe")
