"""
Decode a recording with FFmpeg's libraries, in this process: what `audio.decode` asks its own process to do.

Only decoders of sound run, whatever else a file holds: `CODECS` names them, and pictures are passed over.
"""

import io
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO, TypeVar

import av
import numpy as np
from av.container import InputContainer

from sv_utils.speech import frames, headers
from sv_utils.speech.decoded import AudioError, Decoded, missing

T = TypeVar("T")
MISSING = 0.1  # [s] that may be missing without a word: the last frame of some encoders
EXACT = 0.002  # the same of formats that state the number of samples and lose none
LOSSLESS = {"flac", "tta", "wv", "aiff", "au"}
LINKS = 1000  # parts of a chained Ogg file that are decoded
SILENT = 33  # largest magnitude of a silent recording, as int16: -60 dBFS
UNITS = (2.0**15, 2.0**23, 2.0**31)  # full scale of integers that stand in files of floats
# Playlists and other formats that make a demuxer open further files are not on this list.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,wav,w64,flac,ogg,mp3,aac,aiff,au,caf,amr,asf,"
    "avi,mpegts,mpeg,flv,ac3,eac3,dts,voc,tta,wv,ape,nistsphere,ircam,avr,loas"
)
# Of these, the duration that FFmpeg gives is one that the file states; of others it is a guess from the bit rate.
STATED = {"mov,mp4,m4a,3gp,3g2,mj2", "flac", "aiff", "au", "tta", "wv", "ape", "nistsphere"}


def decode(
    source: bytes | BinaryIO, sample_rate: int = 16000, max_seconds: float = 3600.0, first_channel: bool = False
) -> Decoded:
    """
    Decode a file in this process; parameters and errors are those of `audio.decode`.

    Parameters
    ----------
    source : bytes or binary file
        The content, or a file that is open for reading and has a descriptor.
    """
    content = source if isinstance(source, bytes) else _mapped(source)
    if start := headers.start(content):
        content = content[start:]
    if not len(content):
        raise AudioError("nothing but zeros" if start else "empty file")
    if content[:7] == b"NIST_1A" and (kind := headers.name(content)):
        raise AudioError(f"not audio: {kind}")
    if found := headers.impossible_count(content):
        raise AudioError(f"damaged: {found}")
    try:
        return _decode(content, frames.Part(sample_rate, max_seconds, first_channel))
    except MemoryError as error:
        raise AudioError("damaged, or too large: decoding takes more memory than a recording should") from error


def _decode(content: headers.Content, part: frames.Part) -> Decoded:
    links = headers.ogg_links(content)
    if len(links) > LINKS:
        raise AudioError(f"damaged: {len(links)} streams behind one another")
    decoded = _joined(list(_decode_links(content, links, part))) if len(links) > 1 else _decode_file(content, part)
    if headers.ends_within_page(content):
        decoded = replace(decoded, warnings=(*decoded.warnings, "it breaks off: its last page is incomplete"))
    return decoded


def _decode_links(content: headers.Content, links: list[tuple[int, int]], part: frames.Part) -> Iterator[Decoded]:
    """Decode the parts of a chained Ogg file that hold sound."""
    left = part.max_seconds
    for start, end in links:
        try:
            decoded = _decode_file(content[start:end], frames.Part(part.sample_rate, left, part.first_channel))
        except AudioError as error:
            if str(error) == "no samples":
                continue
            raise AudioError(f"longer than {part.max_seconds:g} s" if "longer than" in str(error) else error) from error
        left -= len(decoded.samples) / part.sample_rate
        yield decoded


def _joined(parts: list[Decoded]) -> Decoded:
    if not parts:
        raise AudioError("no samples")
    rates = _once(part.rate for part in parts)
    said = [text for part in parts for text in part.warnings] + _changes(rates)
    return Decoded(
        np.concatenate([part.samples for part in parts]),
        min(rates),
        max(part.channels for part in parts),
        parts[0].codec,
        tuple(_once(said)),
    )


def _decode_file(content: headers.Content, part: frames.Part) -> Decoded:
    with _opened(content) as container:
        stream, others = _chosen(container)
        if frames.holds_floats(stream):
            part.scale = _full_scale(content, stream.index, part)
        _decode_stream(container, stream, part)
        if not part.sound:
            raise AudioError("no samples")
        _check_end(container, stream, content, part)
        part.warnings += _changes(part.rates)
        samples = part.samples
        if others and _silent(samples) and any(_sounds(content, index, part) for index in others):
            part.warnings.append(f"audio track {_place(container, stream)} was taken, which is silent; another is not")
        if part.loud:
            part.warnings.append(f"{part.loud / part.floats:.2%} of the samples lie beyond full scale and are clipped")
        context = stream.codec_context
        return Decoded(samples, min(part.rates), context.channels, context.name, tuple(_once(part.warnings)))


def _mapped(file: BinaryIO) -> mmap.mmap | bytes:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file cannot be mapped
        return b""


class _Window:
    """The content of a file up to where its sound ends, as a file that FFmpeg reads."""

    def __init__(self, content: headers.Content, end: int):
        self.content, self.end, self.position = content, end, 0

    def read(self, count: int) -> bytes:
        start, self.position = self.position, min(self.position + count, max(self.end, self.position))
        return self.content[start : self.position]

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(offset + (0, self.position, self.end)[whence], 0)
        return self.position

    def tell(self) -> int:
        return self.position


def _opened(content: headers.Content) -> InputContainer:
    """The container of a file; tags may be in any encoding."""
    end = headers.sound_end(content)
    options = {"format_whitelist": FORMATS, "codec_whitelist": CODECS}
    if headers.unannounced(content)[1]:
        options["ignore_length"] = "1"
    if headers.plain_wav(content):  # else 32 packets are tried as every other format, ten times the work of opening
        options["max_probe_packets"] = "1"
    try:
        file = io.BytesIO(content) if isinstance(content, bytes) and end == len(content) else _Window(content, end)
        return av.open(file, "r", options=options, metadata_errors="ignore")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, EOFError) as error:
        kind = headers.name(content)
        raise AudioError(f"not audio: {kind}" if kind else "not audio, or cut off before its index") from error


def _chosen(container: InputContainer) -> tuple[av.AudioStream, list[int]]:
    """The audio stream to decode, the default one before the others; and the indices of the rest."""
    streams = container.streams.audio
    if not streams:
        raise AudioError("no audio stream")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise AudioError("no decoder for its audio stream")
    chosen = next((stream for stream in known if stream.disposition & av.stream.Disposition.default), known[0])
    if (
        not frames.RATES[0] <= chosen.codec_context.sample_rate <= frames.RATES[1]
    ):  # 1 Hz would make gigabytes of a small file
        raise AudioError(f"sample rate of {chosen.codec_context.sample_rate} Hz")
    return chosen, [stream.index for stream in known if stream is not chosen]


def _stream(container: InputContainer, index: int) -> av.AudioStream:
    return next(stream for stream in container.streams.audio if stream.index == index)


def _place(container: InputContainer, stream: av.AudioStream) -> str:
    streams = container.streams.audio
    return f"{[other.index for other in streams].index(stream.index) + 1} of {len(streams)}"


def _full_scale(content: headers.Content, index: int, part: frames.Part) -> float:
    """What samples stored as floats are to be divided by: 1, or the full scale of the integers that they are."""
    peak, broken, whole, total = 0.0, 0, True, 0
    with _opened(content) as container:
        for frame in frames.frames_of(container, _stream(container, index), _beside(part)):
            values = frame.to_ndarray()
            finite = np.isfinite(values)
            broken, total = broken + values.size - int(np.count_nonzero(finite)), total + values.size
            if not broken:
                peak = max(peak, float(np.abs(values).max(initial=0)))
                whole = whole and bool(np.all(values == np.rint(values)))
    if broken:
        raise AudioError(f"{broken} of its {total} samples are not finite numbers")
    if peak <= 1 or (peak < 128 and not whole):
        return 1.0
    unit = next((unit for unit in UNITS if peak <= unit), None)
    if unit is None:
        raise AudioError(f"samples of up to {peak:.3g}: no known unit")
    part.warnings.append(f"its samples are integers stored as floats (up to {peak:.0f}): divided by {unit:.0f}")
    return unit


def _sounds(content: headers.Content, index: int, part: frames.Part) -> bool:
    """Whether a stream that was not chosen holds sound."""
    other = _beside(part)
    try:
        with _opened(content) as container:
            _decode_stream(container, _stream(container, index), other)
    except AudioError:
        return False
    return not _silent(other.samples)


def _beside(part: frames.Part) -> frames.Part:
    """The same wishes, for another pass."""
    return frames.Part(part.sample_rate, part.max_seconds, part.first_channel)


def _silent(samples: np.ndarray) -> bool:
    return not len(samples) or max(-int(samples.min()), int(samples.max())) < SILENT


def _decode_stream(container: InputContainer, stream: av.AudioStream, part: frames.Part) -> None:
    for values in frames.resampled(frames.mono(container, stream, part), part.sample_rate):
        part.add(values)


def _check_end(container: InputContainer, stream: av.AudioStream, content: headers.Content, part: frames.Part) -> None:
    """Compare what was decoded with what the file states."""
    share = headers.missing_share(content)
    more, sound = headers.unannounced(content)
    if more:
        done = "decoded as well" if sound else "not decoded"
        part.warnings.append(f"{more} bytes behind the sound that its header announces are {done}")
    if share:
        part.warnings.append(missing(part.seconds, part.seconds * share / (1 - share)))
        return
    lost = _stated(container, stream, content) - part.seconds
    if lost > (EXACT if container.format.name in LOSSLESS else MISSING):
        part.warnings.append(missing(part.seconds, lost))


def _stated(container: InputContainer, stream: av.AudioStream, content: headers.Content) -> float:
    """Duration that the file states [s]; 0 where it states none."""
    name = container.format.name
    if name == "mp3":
        frames, around = headers.stated_mp3(content)
        rate = stream.codec_context.sample_rate
        return max(frames * (1152 if rate >= 32000 else 576) - around, 0) / rate
    if name not in STATED or not stream.duration or not stream.time_base:
        return 0.0
    return float(stream.duration * stream.time_base)


def _changes(rates: list[int]) -> list[str]:
    names = " and ".join(str(rate) for rate in rates)
    return [f"its sample rate changes midway: {names} Hz"] if len(rates) > 1 else []


def _once(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


def _audio_decoders() -> Iterator[str]:
    for name in sorted(av.codec.codecs_available):
        try:
            codec = av.Codec(name, "r")
        except ValueError:  # encoders alone
            continue
        if codec.type == "audio":
            yield codec.name


CODECS = ",".join(_audio_decoders())
