"""
Simulated channels: what a voice goes through before it is recorded.

Each channel of `CHANNELS` takes a waveform and a random generator and gives the waveform at the other end. The
generator draws the apparatus (its frequency response, the room, the noise), so that two recordings of one channel are
two calls; who hands the same seed to the recordings of a speaker ("own_telephone") makes one call of them.

To add a channel: a function like `telephone` below, and its name in `CHANNELS`.
"""

import io
import math
from collections.abc import Callable

import av
import numpy as np
import scipy.signal

from sv_utils.speech import audio

RATE = 16_000
BAND = (300.0, 3400.0)  # of a telephone line [Hz]
UNEVEN = 4.0  # standard deviation of a handset's or microphone's response, about each octave [dB]
AMR_RATES = (5_900, 7_950, 12_200)  # [bit/s]

Channel = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def clean(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Leave a recording as it is."""
    return samples


def telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Send speech over a fixed line: an uneven handset, 300 to 3400 Hz, 8 kHz, and 8 bit of mu-law or A-law (G.711).

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.
    rng : np.random.Generator

    Returns
    -------
    np.ndarray [shape=(about n,), dtype=int16]
        At 16 kHz.
    """
    narrow = _resampled(_banded(_uneven(samples, rng)), 2)
    law = _mu_law if rng.integers(2) else _a_law
    return _resampled(law(narrow / 32768) * 32768, 1 / 2).astype(np.int16)


def mobile(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Send speech over a mobile telephone: an uneven microphone, 8 kHz, and AMR at 5.9 to 12.2 kbit/s."""
    narrow = _resampled(_banded(_uneven(samples, rng), (150.0, 3600.0)), 2)
    rate = int(rng.choice(AMR_RATES))
    return through_codec(_int16(narrow), "libopencore_amrnb", "3gp", rate, 8_000)


def opus(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Send speech as a voice message: Opus at 12 kbit/s."""
    return through_codec(samples, "libopus", "ogg", 12_000)


def mp3(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Store speech as MP3 at 24 kbit/s."""
    return through_codec(samples, "libmp3lame", "mp3", 24_000)


def room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Record from afar: a room that takes 0.3 to 0.8 s to decay by 60 dB, its direct sound 0 to 6 dB above the rest."""
    decay = rng.uniform(0.3, 0.8)
    time = np.arange(int(decay * RATE)) / RATE
    reverberation = rng.normal(size=len(time)) * 10 ** (-3 * time / decay)
    reverberation[: int(0.002 * RATE)] = 0
    response = reverberation / np.sqrt(np.sum(reverberation**2)) * 10 ** (-rng.uniform(0, 6) / 20)
    response[0] = 1
    return _as_loud(scipy.signal.fftconvolve(samples.astype(float), response)[: len(samples)], samples)


def noisy(level: float) -> Channel:
    """
    Make the channel that adds noise (white, pink or brown).

    Parameters
    ----------
    level : float
        Signal to noise ratio over the whole recording [dB].
    """

    def added(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noise = coloured(len(samples), float(rng.choice([0.0, 1.0, 2.0])), rng)
        speech = samples.astype(float)
        gain = math.sqrt(np.mean(speech**2) / 10 ** (level / 10))
        return _as_loud(speech + gain * noise, samples)

    return added


def coloured(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """
    Draw noise whose power falls with frequency.

    Parameters
    ----------
    length : int [samples]
    slope : float
        0 white, 1 pink, 2 brown: the power goes with ``frequency ** -slope`` above 50 Hz.
    rng : np.random.Generator

    Returns
    -------
    np.ndarray [shape=(length,)]
        Of unit power.
    """
    spectrum = np.fft.rfft(rng.normal(size=length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 50.0)
    noise = np.fft.irfft(spectrum * frequency ** (-slope / 2), length)
    return noise / np.sqrt(np.mean(noise**2))


CHANNELS: dict[str, Channel] = {
    "clean": clean,
    "telephone": telephone,
    "own_telephone": telephone,
    "mobile": mobile,
    "opus": opus,
    "mp3": mp3,
    "room": room,
    "noise_20": noisy(20.0),
    "noise_10": noisy(10.0),
    "noise_0": noisy(0.0),
}


def through_codec(samples: np.ndarray, codec: str, container: str, bit_rate: int, rate: int = RATE) -> np.ndarray:
    """
    Encode and decode again.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At `rate`.
    codec, container : str
        FFmpeg's names of the encoder and the file format.
    bit_rate : int [bit/s]
    rate : int [Hz]

    Returns
    -------
    np.ndarray [shape=(about n,), dtype=int16]
        At 16 kHz; a codec's delay may move it by some ms.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame) + stream.encode(None))
    return audio.decode(file.getvalue()).samples


def _uneven(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pass through a random, smooth frequency response [float]."""
    octaves = np.arange(6.0, 14.0)  # 64 Hz to 8 kHz
    gains = rng.normal(0, UNEVEN, len(octaves))
    frequency = np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE), 32.0)
    gain = np.interp(np.log2(frequency), octaves, gains)
    return np.fft.irfft(np.fft.rfft(samples.astype(float)) * 10 ** (gain / 20), len(samples))


def _banded(samples: np.ndarray, band: tuple[float, float] = BAND) -> np.ndarray:
    return scipy.signal.sosfilt(scipy.signal.butter(4, band, "bandpass", fs=RATE, output="sos"), samples)


def _resampled(samples: np.ndarray, down: float) -> np.ndarray:
    up, down = (1, int(down)) if down >= 1 else (int(1 / down), 1)
    return np.clip(scipy.signal.resample_poly(samples, up, down), -32768, 32767)


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def _as_loud(samples: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Scale to the power of another recording, or less where that would clip [dtype=int16]."""
    gain = math.sqrt(np.mean(like.astype(float) ** 2) / max(np.mean(samples**2), 1e-12))
    return _int16(samples * min(gain, 32767 / max(np.abs(samples).max(), 1)))


def _mu_law(x: np.ndarray) -> np.ndarray:
    """Quantise as ITU-T G.711 does, after its formula for mu = 255."""
    squeezed = np.rint(127 * np.log1p(255 * np.minimum(np.abs(x), 1)) / math.log(256)) / 127
    return np.sign(x) * np.expm1(squeezed * math.log(256)) / 255


def _a_law(x: np.ndarray) -> np.ndarray:
    """Quantise as ITU-T G.711 does, after its formula for A = 87.6."""
    whole = 1 + math.log(87.6)
    size = np.minimum(np.abs(x), 1)
    squeezed = np.where(size < 1 / 87.6, 87.6 * size, 1 + np.log(np.maximum(87.6 * size, 1))) / whole
    squeezed = np.rint(127 * squeezed) / 127
    straight = squeezed * whole
    return np.sign(x) * np.where(straight < 1, straight, np.exp(straight - 1)) / 87.6
