"""
Augmentation of training waveforms: noise, music, voices, rooms, telephones, clipping, gain.

Everything is drawn from the generator that is handed in. Noise, music and babble come from MUSAN and rooms from
RIRS_NOISES where these corpora are present; without them noise is coloured, babble is made of training voices, rooms
are simulated, and music is refused.

The filters, transforms and resamplers are SciPy's. Tried and not taken: audiomentations, which reads noise and
responses from sound files, draws from the global generators and is no faster (a response: 1.0 times as long, coloured
noise: 2.2 times); pyroomacoustics, whose image sources of one room take 30 times as long as the statistical model here.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from scipy import fft, signal

from sv_utils.base.errors import RequestError, nearest
from sv_utils.pipeline.params import shared_parameters
from sv_utils.speech.reader import Speech

SAMPLE_RATE = 16_000  # [Hz]
RESPONSES = ("smallroom", "mediumroom", "largeroom", "real_rirs")  # speakers of corpus rirs_noises; others are noises
SURROUNDINGS = ("noise", "music", "babble", "reverberation")
OFF = shared_parameters()["phases"][0]["augmentation"]  # every key there is; nothing is switched on


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentation:
    """
    Augmentation of crops, each drawn for itself.

    Parameters
    ----------
    settings : mapping
        All keys of `OFF`. The ranges there are those of the field's recipes (Snyder et al. 2018, section 3.3).
    speech : Speech
        Open store of the training utterances; its voices make the babble without MUSAN.
    musan : Speech, optional
        Open store of corpus ``musan``, whose speakers are ``noise``, ``music`` and ``speech``.
    responses : Speech, optional
        Open store of corpus ``rirs_noises``, whose speakers in `RESPONSES` are room responses, one a row.

    Raises
    ------
    RequestError
        If a setting is unknown or out of range, or music is wanted without MUSAN.

    Examples
    --------
    >>> augmentation = Augmentation({**OFF, "noise": 0.5}, speech)  # doctest: +SKIP
    >>> augmentation(crops, np.random.default_rng(0)).shape  # doctest: +SKIP
    (32, 32000)

    References
    ----------
    Snyder et al.: X-vectors: robust DNN embeddings for speaker recognition, ICASSP 2018.
    Snyder, Chen, Povey: MUSAN: a music, speech, and noise corpus, arXiv 1510.08484.
    Ko et al.: A study on data augmentation of reverberant speech for robust speech recognition, ICASSP 2017.
    """

    settings: Mapping
    speech: Speech
    musan: Speech | None = None
    responses: Speech | None = None

    def __post_init__(self) -> None:
        check(self.settings)
        if self.settings["music"] and self.musan is None:
            raise RequestError("augmentation.music needs the corpus musan: prepare it, or set music to 0")

    def __call__(self, crops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment crops [shape=(batch, samples)], float32 in [-1, 1); what comes back may exceed that range."""
        return np.stack([self._augmented(crop, rng) for crop in crops])

    def _augmented(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        bounds = np.cumsum([self.settings[kind] for kind in SURROUNDINGS])
        kind = np.searchsorted(bounds, rng.random(), side="right")
        if kind < len(SURROUNDINGS):
            crop = self._surrounded(crop, SURROUNDINGS[kind], rng)
        if rng.random() < self.settings["telephone"]:
            crop = telephone(crop)
        if rng.random() < self.settings["clipping"]:
            crop = clip(crop, rng.uniform(*self.settings["clipped"]))
        crop = crop * np.float32(10 ** (rng.uniform(*self.settings["gain"]) / 20))
        return dithered(crop, self.settings["dither"], rng) if self.settings["dither"] else crop

    def _surrounded(self, crop: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
        if kind == "reverberation":
            return reverberate(crop, self._response(rng))
        sound = getattr(self, f"_{kind}")(len(crop), rng)
        return add(crop, sound, rng.uniform(*self.settings[f"{kind}_snr"]))

    def _noise(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        if self.musan is None:
            return coloured_noise(samples, rng.uniform(0, 2), rng)
        return _excerpts(self.musan, self._rows_of_musan["noise"], 1, samples, rng)[0]

    def _music(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        assert self.musan is not None  # as the settings were checked for
        return _excerpts(self.musan, self._rows_of_musan["music"], 1, samples, rng)[0]

    def _babble(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        fewest, most = self.settings["babble_voices"]
        source = self.speech if self.musan is None else self.musan
        rows = np.arange(len(source)) if self.musan is None else self._rows_of_musan["speech"]
        voices = _excerpts(source, rows, rng.integers(fewest, most + 1), samples, rng)
        return np.sum(voices / np.sqrt(np.mean(voices**2, axis=1, keepdims=True) + 1e-12), axis=0)

    def _response(self, rng: np.random.Generator) -> np.ndarray:
        if self.responses is None:
            return simulated_response(rng.uniform(*self.settings["reverberation_time"]), rng)
        return self.responses.waveform(rng.choice(self._rows_of_responses)).astype(np.float32)

    @functools.cached_property
    def _rows_of_responses(self) -> np.ndarray:
        assert self.responses is not None
        return np.flatnonzero(self.responses.table["speaker"].isin(RESPONSES))

    @functools.cached_property
    def _rows_of_musan(self) -> dict[str, np.ndarray]:
        assert self.musan is not None
        kinds = self.musan.table["speaker"].to_numpy(str)
        return {kind: np.flatnonzero(kinds == kind) for kind in ("noise", "music", "speech")}


def check(settings: Mapping) -> None:
    """
    Check that the settings have the keys of `OFF`, and that each value lies in its range.

    Raises
    ------
    RequestError
        Naming the key.
    """
    for key in settings:
        if key not in OFF:
            raise RequestError(f"augmentation.{key} is unknown{nearest(key, OFF)}")
    for key, default in OFF.items():
        if key not in settings:
            raise RequestError(f"augmentation.{key} is missing; its default is {default}")
        value = settings[key]
        if isinstance(default, list):
            if len(value) != 2 or value[0] > value[1]:
                raise RequestError(f"augmentation.{key} must be [least, most], not {value}")
        elif not 0 <= value <= (100 if key == "dither" else 1):
            kind = "a deviation of 0 to 100 steps of int16" if key == "dither" else "a probability, 0 to 1"
            raise RequestError(f"augmentation.{key} is {kind}, not {value}")
    for key, least, most in (("babble_voices", 1, 100), ("reverberation_time", 0.01, 10.0), ("clipped", 0.0, 1.0)):
        if settings[key][0] < least or settings[key][1] > most:
            raise RequestError(f"augmentation.{key} must lie within {least} and {most}, not {settings[key]}")
    if sum(settings[kind] for kind in SURROUNDINGS) > 1 + 1e-9:
        raise RequestError(f"augmentation: {', '.join(SURROUNDINGS)} exclude each other and must sum to 1 at most")


def examples(augmentation: Augmentation, crop: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """
    Apply each kind of augmentation by itself to a crop [shape=(samples,)], to show it in a figure.

    Returns
    -------
    dict of str to np.ndarray [shape=(samples,)]
        ``original`` and one entry for each kind.
    """
    found = {"original": crop}
    for kind in (*SURROUNDINGS, "telephone", "clipping"):
        if kind == "music" and augmentation.musan is None:
            continue
        settings = {key: default if isinstance(default, list) else 0.0 for key, default in OFF.items()}
        settings |= {key: augmentation.settings[key] for key in OFF if isinstance(OFF[key], list)} | {kind: 1.0}
        alone = dataclasses.replace(augmentation, settings=settings)
        found[kind] = alone(crop[None], np.random.default_rng(seed))[0]
    return found


def add(crop: np.ndarray, sound: np.ndarray, snr: float) -> np.ndarray:
    """
    Add a sound so that the crop's mean power exceeds the sound's by `snr` [dB]; silence stays silent.

    Parameters
    ----------
    crop, sound : np.ndarray [shape=(samples,)]
    snr : float
    """
    power = np.mean(crop**2) / (np.mean(sound**2) + 1e-12) / 10 ** (snr / 10)
    return crop + np.float32(np.sqrt(power)) * sound


def dithered(crop: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """
    Add white noise to a crop [shape=(samples,)] in [-1, 1), so that silence has a spectrum too.

    Parameters
    ----------
    crop : np.ndarray [shape=(samples,)]
    deviation : float
        Of the noise [steps of int16].
    rng : np.random.Generator

    References
    ----------
    Kaldi, ``--dither`` of ``compute-fbank-feats``, which draws it anew for each frame.
    """
    return crop + np.float32(deviation / 32768) * rng.standard_normal(len(crop), dtype=np.float32)


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise [shape=(samples,)] of power ``f**-exponent`` (0 white, 1 pink, 2 brown) and mean power 1."""
    frequencies = np.maximum(np.arange(samples // 2 + 1), 1)
    real, imaginary = rng.standard_normal((2, len(frequencies)), dtype=np.float32)
    spectrum = (real + 1j * imaginary) * frequencies.astype(np.float32) ** (-exponent / 2)
    noise = fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2))


def simulated_response(
    seconds: float, rng: np.random.Generator, direct: tuple[float, float] = (-3.0, 12.0)
) -> np.ndarray:
    """
    Room response [shape=(16000 seconds,)]: the direct sound, and Gaussian noise that falls by 60 dB in `seconds`.

    Parameters
    ----------
    seconds : float
        Reverberation time [s].
    rng : np.random.Generator
    direct : (float, float)
        Range of the ratio of direct to reverberant energy [dB].

    References
    ----------
    Lebart, Boucher, Denbigh: A new method based on spectral subtraction for speech dereverberation, Acta Acustica 87
    (2001), section 2 (Polack's statistical model).
    """
    samples = round(SAMPLE_RATE * seconds)
    response = rng.standard_normal(samples, dtype=np.float32)
    response *= np.logspace(0, -3, samples, dtype=np.float32)
    response[: SAMPLE_RATE // 400] = 0  # 2.5 ms, a way of 0.9 m more than the direct one
    response *= np.sqrt(10 ** (-rng.uniform(*direct) / 10) / (np.sum(response**2) + 1e-12), dtype=np.float32)
    response[0] = 1
    return response


def reverberate(crop: np.ndarray, response: np.ndarray) -> np.ndarray:
    """
    Convolve a crop with a room response, keep its length and power, and take the way from mouth to microphone away.

    Parameters
    ----------
    crop, response : np.ndarray [shape=(samples,)]
    """
    direct = np.argmax(np.abs(response))
    wet = signal.fftconvolve(crop, response)[direct : direct + len(crop)]
    return wet * np.sqrt(np.mean(crop**2) / (np.mean(wet**2) + 1e-12), dtype=np.float32)


def telephone(crop: np.ndarray) -> np.ndarray:
    """
    Send a crop [shape=(samples,)] through a telephone: 300 to 3400 Hz, 8 kHz, G.711 mu-law with 8 bits, and back.

    References
    ----------
    ITU-T Recommendation G.711, table 2a.
    """
    narrow = signal.resample(crop, len(crop) // 2, window=_telephone_band)
    levels = np.clip(np.rint(32768 * narrow), -32768, 32767).astype(np.int16)
    coded = _mu_law()[levels.astype(int) + 32768]
    return signal.resample(coded, len(crop)).astype(np.float32)


def _telephone_band(frequencies: np.ndarray) -> np.ndarray:
    """Gain at `frequencies` [cycles a sample at 16 kHz]; zero from 4 kHz on."""
    return np.interp(np.abs(frequencies) * SAMPLE_RATE, [200, 300, 3400, 3900], [0, 1, 1, 0]).astype(np.float32)


@functools.cache
def _mu_law() -> np.ndarray:
    """What each int16, from -32768 on, has become after coding and decoding [shape=(65536,)], in [-1, 1)."""
    values = np.arange(-32768, 32768)
    magnitude = np.minimum(np.abs(values) // 4, 8158) + 33  # 14 bits, and the law's offset
    segment = np.floor(np.log2(magnitude)).astype(int) - 5
    step = magnitude >> (segment + 1) & 15
    decoded = ((2 * step + 33) << segment) - 33
    return (np.where(values < 0, -4, 4) * decoded / 32768).astype(np.float32)


def clip(crop: np.ndarray, fraction: float) -> np.ndarray:
    """Limit a crop [shape=(samples,)] to the level that `fraction` of its samples reach."""
    place = int((1 - fraction) * (len(crop) - 1))
    level = np.partition(np.abs(crop), place)[place]
    return np.clip(crop, -level, level)


def _excerpts(source: Speech, rows: np.ndarray, count: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Pieces [shape=(count, samples)] of random `rows` from random places, float32 in [-1, 1); short ones repeat."""
    chosen = rng.choice(rows, count)
    starts = rng.integers(0, np.maximum(source.samples[chosen] - samples, 0) + 1)
    return source.crops(chosen, starts, samples).astype(np.float32) / 32768
