"""Recordings of every container and codec that PyAV and libsndfile can write, made on the spot."""

import io
import struct
import tempfile
import zlib
from pathlib import Path

import av
import numpy as np
import soundfile

SECONDS = 2.0
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 16: "hexadecagonal"}
# Container: codecs, each with the rate that is written [Hz].
CONTAINERS = {
    "wav": "pcm_s16le pcm_s24le pcm_s32le pcm_u8 pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ima_wav adpcm_ms "
    "adpcm_yamaha mp3 ac3:48000 g722 wmav2:44100",
    "w64": "pcm_s16le pcm_f32le",
    "aiff": "pcm_s16be pcm_s24be pcm_f32be pcm_mulaw pcm_alaw",
    "au": "pcm_s16be pcm_s24be pcm_f32be pcm_mulaw:8000 pcm_alaw:8000",
    "caf": "pcm_s16be pcm_s16le pcm_f32le alac pcm_mulaw",
    "flac": "flac",
    "ogg": "vorbis:44100 opus:48000 flac",
    "mp3": "mp3 mp3:44100",
    "mp2": "mp2",
    "adts": "aac aac:44100",
    "latm": "aac",
    "mp4": "aac alac mp3 ac3:48000 eac3:48000 opus:48000 flac",
    "ipod": "aac alac aac:48000",
    "mov": "aac pcm_s16le pcm_s16be pcm_s24le pcm_f32le alac adpcm_ima_qt pcm_mulaw",
    "3gp": "aac libopencore_amrnb:8000",
    "matroska": "aac opus:48000 vorbis:44100 flac pcm_s16le pcm_f32le mp3 ac3:48000 alac tta wavpack",
    "webm": "opus:48000 vorbis:44100",
    "avi": "pcm_s16le mp3 ac3:48000 adpcm_ms aac",
    "mpegts": "aac:48000 mp2 mp3 ac3:48000 opus:48000",
    "mpeg": "mp2 ac3:48000",
    "flv": "aac mp3:44100 pcm_s16le:44100 nellymoser",
    "asf": "wmav2:44100 mp3",
    "ac3": "ac3:48000",
    "eac3": "eac3:48000",
    "tta": "tta",
    "wv": "wavpack",
    "voc": "pcm_u8:8000 pcm_s16le pcm_alaw:8000",
    "amr": "libopencore_amrnb:8000",
}
BIT_RATES = {"wmav2": 64000, "nellymoser": 44000, "libopencore_amrnb": 12200, "vorbis": 96000}
SNDFILE = {
    "NIST": "PCM_16 PCM_24 ULAW ALAW PCM_S8",
    "RF64": "PCM_16 FLOAT",
    "WAVEX": "PCM_16 PCM_24",
    "WAV": "IMA_ADPCM GSM610 ULAW",
    "VOC": "PCM_16 ULAW",
    "IRCAM": "PCM_16 FLOAT",
    "AVR": "PCM_16",
    "OGG": "VORBIS OPUS",
    "MP3": "MPEG_LAYER_III",
    "CAF": "ALAC_16",
}


def speech(rate: int = 16000, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """A gliding buzz with pauses like syllables, below 3 kHz [shape=(n,), dtype=float32, peak 0.5]."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (110 * time + 25 * time**2 + 3 * np.sin(2 * np.pi * (0.7 + seed) * time))
    buzz = sum(np.sin(k * phase) / k for k in range(1, 8))
    loudness = 0.15 + np.abs(np.sin(2 * np.pi * 2.1 * time + seed)) ** 2
    return (0.5 * buzz * loudness / np.abs(buzz * loudness).max()).astype(np.float32)


def encoded(
    samples: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    options: dict | None = None,
    metadata: dict | None = None,
    tracks: int = 1,
    default: int = 0,
    piped: bool = False,
    bit_rate: int = 0,
) -> bytes:
    """
    Write samples [shape=(n,) or (channels, n), or (tracks, channels, n); floats at `rate`] by FFmpeg.

    Encoders get frames of the length that they want; the rest is what FFmpeg does by itself. `piped`: into a place
    where nothing can be mended afterwards.
    """
    sound = np.asarray(samples, np.float32)
    sound = sound.reshape((tracks, -1, sound.shape[-1]))
    if codec == "vorbis" and sound.shape[1] == 1:  # what FFmpeg's own encoder takes
        sound = np.repeat(sound, 2, axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        target = Pipe() if piped else str(path)
        with av.open(target, "w", format=container, options=options or {}) as file:
            file.metadata.update(metadata or {})
            layout = LAYOUTS[sound.shape[1]]
            streams = [_stream(file, codec, rate, layout, bit_rate) for _ in sound]
            if tracks > 1:
                for number, stream in enumerate(streams):
                    stream.disposition = av.stream.Disposition.default if number == default else 0
            file.start_encoding()
            for stream, values in zip(streams, sound):
                for frame in _frames(values, rate, layout, stream):
                    file.mux(stream.encode(frame))
                file.mux(stream.encode(None))
        return b"".join(target.pieces) if piped else path.read_bytes()


class Pipe:
    """What is written here cannot be mended afterwards."""

    def __init__(self):
        self.pieces = []

    def write(self, data: bytes) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def _stream(file, codec: str, rate: int, layout: str, bit_rate: int):
    stream = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
    formats = [format.name for format in stream.codec_context.codec.audio_formats or []]
    stream.format = next((name for name in ("s16", "s16p") if name in formats), formats[0] if formats else "s16")
    if bit_rate or codec in BIT_RATES:
        stream.bit_rate = bit_rate or BIT_RATES[codec]
    return stream


def _frames(values: np.ndarray, rate: int, layout: str, stream):
    context = stream.codec_context
    turned = np.ascontiguousarray(values.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(turned, format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    resampler = av.AudioResampler(format=context.format.name, layout=layout, rate=rate)
    queue = av.AudioFifo()
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        queue.write(piece)
    size = context.frame_size or 2000
    while queue.samples >= size:
        yield queue.read(size)
    if queue.samples:
        yield queue.read(partial=True)


def by_sndfile(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    """Write samples [shape=(n,) or (n, channels)] by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=codec)
    return file.getvalue()


def every_kind() -> list[tuple[str, str, int]]:
    """Container, codec and rate [Hz] of all that FFmpeg writes here."""
    kinds = []
    for container, codecs in CONTAINERS.items():
        for codec in codecs.split():
            name, _, rate = codec.partition(":")
            kinds.append((container, name, int(rate or 16000)))
    return kinds


def agreement(samples: np.ndarray, reference: np.ndarray, most: float = 0.2, rate: int = 16000) -> tuple[float, float]:
    """Correlation of what was decoded with the reference, at the shift where it is largest; and that shift [s]."""
    length = 1 << (len(samples) + len(reference)).bit_length()
    product = np.fft.irfft(np.fft.rfft(samples.astype(float), length) * np.conj(np.fft.rfft(reference, length)), length)
    shifts = np.arange(-int(most * rate), int(most * rate) + 1)
    shift = int(shifts[np.argmax(product[shifts])])
    one, two = samples[max(shift, 0) :], reference[max(-shift, 0) :]
    both = min(len(one), len(two))
    if both < 2 or not one[:both].any():
        return 0.0, 0.0
    return float(np.corrcoef(one[:both], two[:both])[0, 1]), shift / rate


def png_of_zeros(side: int) -> bytes:
    """A black picture: a few hundred kilobytes that become three bytes a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
