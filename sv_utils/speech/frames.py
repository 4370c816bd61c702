"""From the packets of one stream to samples: its frames, as floats of one channel, at the wanted rate."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import av
import numpy as np
from av.container import InputContainer

from sv_utils.speech.decoded import AudioError

PLANES = 8  # channels of their own memory that PyAV knows
GATHERED = 8192  # samples that are converted at once
RATES = (1000, 768000)  # [Hz] plausible rates of an original
REMNANTS = (5, 0.01)  # so many packets, and this share of all, may be such
# Frames that stand for themselves: a file may begin within one, and hold tags or remnants where files were joined.
FRAMED = {"mp3", "aac", "ac3", "eac3", "mpegts", "mpeg", "loas", "dts"}


@dataclass
class Part:
    """What is known of a stream while it is decoded."""

    sample_rate: int
    max_seconds: float
    first_channel: bool
    scale: float = 1.0
    sound: bytearray = field(default_factory=bytearray)
    rates: list[int] = field(default_factory=list)
    floats: int = 0  # samples that the file stores as floats
    loud: int = 0  # of these beyond full scale
    heard: float = 0.0  # decoded so far [s of the original]
    warnings: list[str] = field(default_factory=list)

    @property
    def samples(self) -> np.ndarray:
        """What is decoded [shape=(n,), dtype=int16]."""
        return np.frombuffer(self.sound, np.int16)

    @property
    def seconds(self) -> float:
        """Its duration [s]."""
        return len(self.sound) / 2 / self.sample_rate

    def add(self, values: np.ndarray) -> None:
        """Keep a block of float samples in [-1, 1] as int16."""
        self.sound += _quantised(values).data.cast("B")
        self.check(self.seconds)

    def check(self, seconds: float) -> None:
        """Refuse what is too long."""
        if seconds > self.max_seconds:
            raise AudioError(f"longer than {self.max_seconds:g} s")


def holds_floats(stream: av.AudioStream) -> bool:
    """Whether the file stores samples as floats: what a lossy decoder computes as floats is no such case."""
    name, format = stream.codec_context.name, stream.codec_context.format
    return name.startswith("pcm_f") or (name == "wavpack" and format is not None and format.name.startswith("flt"))


def mono(container: InputContainer, stream: av.AudioStream, part: Part) -> Iterator[tuple[int, np.ndarray]]:
    """What was decoded, as its rate and float32 [shape=(n,)] in [-1, 1]: the first channel, or the mean of all."""
    floats = holds_floats(stream)
    for (rate, planar, channels), values in _gathered(frames_of(container, stream, part)):
        if not RATES[0] <= rate <= RATES[1]:
            raise AudioError(f"sample rate of {rate} Hz")
        if rate not in part.rates:
            part.rates.append(rate)
        if not planar:
            values = values.reshape(-1, channels).T
        if values.dtype == np.uint8:
            values = (values.astype(np.float32) - 128) / 128
        elif values.dtype.kind == "i":
            values = values / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
        elif floats:
            values = values / values.dtype.type(part.scale)
            part.floats += values.shape[1]
            part.loud += int(np.count_nonzero(np.abs(values).max(axis=0) > 1))
        yield rate, values[0] if part.first_channel or len(values) == 1 else values.mean(axis=0, dtype=np.float32)


def resampled(frames: Iterator[tuple[int, np.ndarray]], wanted: int) -> Iterator[np.ndarray]:
    """Each part of a recording, resampled from its own rate."""
    resampler, current = None, wanted
    for rate, values in frames:
        if rate != current:
            yield from _flushed(resampler)
            current = rate
            resampler = None if rate == wanted else av.AudioResampler(format="flt", layout="mono", rate=wanted)
        if resampler is None:
            yield values
            continue
        frame = av.AudioFrame.from_ndarray(values.astype(np.float32)[None], format="flt", layout="mono")
        frame.sample_rate = rate
        yield from (piece.to_ndarray()[0] for piece in resampler.resample(frame))
    yield from _flushed(resampler)


def _flushed(resampler: av.AudioResampler | None) -> Iterator[np.ndarray]:
    if resampler is not None:
        yield from (piece.to_ndarray()[0] for piece in resampler.resample(None))


def _quantised(values: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] as int16, rounded to the nearest; what overshoots is clipped."""
    values = values * np.float32(32768)
    np.rint(values, out=values)
    return np.clip(values, -32768, 32767, out=values).astype(np.int16)


def frames_of(container: InputContainer, stream: av.AudioStream, part: Part) -> Iterator[av.AudioFrame]:
    """
    Frames of a stream.

    What cannot be decoded behind the last frame is a tag or a remnant and no harm; before another frame it is damage,
    but for a few packets where each frame stands for itself.
    """
    broken, lost, packets = None, 0, 0
    for packet in _packets(container, stream):
        packets += 1
        try:
            frames = cast(list[av.AudioFrame], packet.decode())
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, EOFError) as error:
            broken = broken or (error, part.heard)
            continue
        for frame in frames:
            if broken is not None:
                lost += 1
                _allow(container.format.name, lost, packets, *broken)
                broken = None
            part.heard += frame.samples / frame.sample_rate
            part.check(part.heard - 1)
            yield frame
    if lost and part.heard:
        part.warnings.append(f"{lost} pieces between its frames cannot be decoded and are left out")


def _allow(format: str, lost: int, packets: int, error: Exception, seconds: float) -> None:
    """Let a remnant before another frame pass, where there may be some."""
    if format not in FRAMED or lost > max(REMNANTS[0], REMNANTS[1] * packets):
        raise AudioError(f"damaged: decoding stops at {seconds:.1f} s") from error


def _packets(container: InputContainer, stream: av.AudioStream) -> Iterator[av.Packet]:
    """Packets up to the end, or up to where the demuxer finds no more: the end is checked afterwards."""
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:  # a packet of a stream that begins midway (MPEG-TS), which PyAV does not know
            continue
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, EOFError):
            return


def _gathered(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[tuple[int, bool, int], np.ndarray]]:
    """Frames that are alike, joined: their rate, whether channels lie apart, how many there are; and the samples."""
    kind, queue = (0, "", 0), av.AudioFifo()

    def joined() -> Iterator[tuple[tuple[int, bool, int], np.ndarray]]:
        if (frame := queue.read()) is not None:
            yield (kind[0], kind[1].endswith("p"), kind[2]), frame.to_ndarray()

    for frame in _interleaved(frames):
        own = (frame.sample_rate, frame.format.name, frame.layout.nb_channels)
        if own != kind or queue.samples >= GATHERED:
            yield from joined()
        if own != kind:
            kind, queue = own, av.AudioFifo()
        frame.pts = None  # what follows is joined, whatever the file says of its time
        queue.write(frame)
    yield from joined()


def _interleaved(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The frames; those of many channels that lie apart, which PyAV cannot read, with their channels in turn."""
    for frame in frames:
        name, channels = frame.format.name, frame.layout.nb_channels
        if not name.endswith("p") or channels <= PLANES:
            yield frame
            continue
        frame.pts = None
        turned = av.AudioResampler(format=name[:-1], layout=frame.layout, rate=frame.sample_rate)
        yield from [*turned.resample(frame), *turned.resample(None)]
