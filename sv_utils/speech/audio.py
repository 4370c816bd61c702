"""
From any audio file to mono int16 samples, in process.

FFmpeg's libraries (by PyAV) decode; no external program is started. Everything that a file can get wrong comes back
as one short reason in `AudioError`, never as a crash, a hang or half of the samples.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import soundfile

FRAME = 320  # samples of 20 ms at 16 kHz, the unit in which silence is judged
SILENCE = 10 ** (-60 / 20)  # root mean square of a silent frame, relative to full scale: -60 dBFS
MISSING = 0.1  # [s] of announced audio that may be missing before a file counts as truncated
FLAC_LEVEL = 0.0  # of libsndfile's 0 to 1: the fastest
RATES = (1000, 768000)  # [Hz] plausible rates of an original
# Playlists and other formats that make a demuxer open further files are not on this list.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,wav,w64,flac,ogg,mp3,aac,aiff,au,caf,amr,asf"


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
        Rate of the original [Hz].
    channels : int
        Channels of the original.
    codec : str
        FFmpeg's name of the codec.
    """

    samples: np.ndarray
    rate: int
    channels: int
    codec: str


def decode(
    source: bytes | str | os.PathLike,
    sample_rate: int = 16000,
    max_seconds: float = 3600.0,
    first_channel: bool = False,
) -> Decoded:
    """
    Decode a file to mono int16 samples.

    Channels are averaged (or the first is taken), other rates are resampled by libswresample. 16-bit PCM at
    `sample_rate` passes through bit by bit. An encoder's delay is removed where the container announces it, as the
    ffmpeg program does.

    Parameters
    ----------
    source : bytes or path
        The file's content, or its path.
    sample_rate : int
        Wanted rate [Hz].
    max_seconds : float
        Longest accepted recording [s]: bounds time and memory whatever the file claims.
    first_channel : bool
        Take the first channel instead of the mean of all.

    Raises
    ------
    AudioError
        Empty file, not audio, no audio stream, no samples, truncated or damaged, too long.

    Examples
    --------
    >>> decode("00001.m4a").samples.shape  # doctest: +SKIP
    (41984,)
    """
    data = source if isinstance(source, bytes) else _read(source)
    if not data:
        raise AudioError("empty file")
    try:
        container = av.open(io.BytesIO(data), options={"format_whitelist": FORMATS})
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise AudioError("not audio, or cut off before its index") from error
    with container:
        if _cut_wav(data):
            raise AudioError("truncated: fewer bytes than its header announces")
        if not container.streams.audio:
            raise AudioError("no audio stream")
        codec = container.streams.audio[0].codec_context
        if codec is None:
            raise AudioError("no decoder for its audio stream")
        if not RATES[0] <= codec.sample_rate <= RATES[1]:  # a rate of 1 Hz would make gigabytes of a small file
            raise AudioError(f"sample rate of {codec.sample_rate} Hz")
        return _decode_stream(container, container.streams.audio[0], sample_rate, max_seconds, first_channel)


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


def encode_flac(samples: np.ndarray) -> bytes:
    """Compress int16 samples [shape=(n,)] at 16 kHz to a FLAC stream, without loss."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="FLAC", subtype="PCM_16", compression_level=FLAC_LEVEL)
    return file.getvalue()


def decode_flac(data: bytes | memoryview, start: int, length: int) -> np.ndarray:
    """Samples `start` to `start + length` of a FLAC stream [dtype=int16]; only their blocks are decoded."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        file.seek(start)
        return file.read(length, dtype="int16")


def _read(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _decode_stream(container, stream, sample_rate: int, max_seconds: float, first_channel: bool) -> Decoded:
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    blocks, seconds = [], 0.0
    try:
        for block in _resampled(_mono_frames(container, stream, first_channel), rate, sample_rate):
            blocks.append(block)
            seconds += len(block) / sample_rate
            if seconds > max_seconds:
                raise AudioError(f"longer than {max_seconds:g} s")
    except AudioError:
        raise
    except (av.FFmpegError, ValueError, EOFError, MemoryError) as error:
        raise AudioError(f"damaged: decoding stops at {seconds:.1f} s") from error
    if not seconds:
        raise AudioError("no samples")
    announced = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if seconds < announced - MISSING:
        raise AudioError(f"truncated: {seconds:.1f} s of {announced:.1f} s")
    return Decoded(_quantised(np.concatenate(blocks)), rate, channels, stream.codec_context.name)


def _quantised(values: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] as int16, rounded to the nearest; what overshoots is clipped."""
    values = values * np.float32(32768)
    np.rint(values, out=values)
    return np.clip(values, -32768, 32767, out=values).astype(np.int16)


def _cut_wav(data: bytes) -> bool:
    """Whether a RIFF file holds fewer bytes of sound than its header announces: FFmpeg does not tell."""
    position = 12
    while data[:4] == b"RIFF" and position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if name == b"data":  # sizes near the top are what programs write into a pipe: unknown
            return size < 0x7FFFF000 and position + size > len(data)
        position += size + size % 2
    return False


def _mono_frames(container, stream, first_channel: bool) -> Iterator[np.ndarray]:
    """Decoded frames as float32 [shape=(n,)] in [-1, 1]: the first channel, or the mean of all."""
    for frame in container.decode(stream):
        if frame.sample_rate != stream.codec_context.sample_rate:
            raise AudioError("the sample rate changes midway")
        values = frame.to_ndarray()
        if not frame.format.is_planar:
            values = values.reshape(-1, frame.layout.nb_channels).T
        if values.dtype == np.uint8:
            values = (values.astype(np.float32) - 128) / 128
        elif values.dtype.kind == "i":
            values = values / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
        yield values[0] if first_channel or len(values) == 1 else values.mean(axis=0, dtype=np.float32)


def _resampled(frames: Iterator[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    if rate == wanted:
        yield from frames
        return
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted)
    for values in frames:
        frame = av.AudioFrame.from_ndarray(values.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = rate
        yield from (piece.to_ndarray()[0] for piece in resampler.resample(frame))
    yield from (piece.to_ndarray()[0] for piece in resampler.resample(None))
