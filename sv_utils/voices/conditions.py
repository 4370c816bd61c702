"""
Under which conditions a voice was recorded, measured from the samples: a file's header tells the rate of the file, not
what the speech went through before.

All figures are of the speech alone, as `activity.joined` gives it, so that silence or noise around it changes none.
"""

from dataclasses import asdict, dataclass

import numpy as np

RATE = 16_000
WINDOW, STEP, BAND = 512, 256, 8  # of the spectrogram [samples], and its bins that make a band of 250 Hz
BAND_HZ = BAND * RATE / WINDOW
LOUD, QUIET = 95, 10  # percentiles of a band's levels: its speech, its background
FAINT = -52.0  # a band whose speech lies this far below the loudest one's holds none [dB]
FLAT = 9.0  # nor does one whose speech is less than this above its background, as in steady noise [dB]
MIDDLE = slice(4, 12)  # bands from 1 to 3 kHz, where any channel passes speech
VOICE = slice(1, 14)  # bands from 250 to 3500 Hz, in which noise and reverberation are measured
HOLE = -75.0  # a cell of a loud moment this far below the loudest band is a hole [dB]
DECAY = 5  # frames over which a decay is measured
PITCHED, PITCHES, FRAME = 0.6, (60.0, 400.0), 640  # autocorrelation of a voiced frame, its pitches [Hz], samples
NARROW = 4600.0  # speech that ends below is narrow-band, as on a telephone [Hz]


@dataclass(frozen=True)
class Conditions:
    """
    What was measured of a recording's speech.

    Attributes
    ----------
    speech_seconds : float [s]
    bandwidth : float [Hz]
        Up to which speech is heard, in steps of 250 Hz.
    noise : float [dB]
        Level of speech above the background's, in 250 to 3500 Hz: about 35 of a studio, 10 where noise is as loud as
        the voice. It is a scale of its own, not the ratio of the powers.
    clipped : float
        Fraction of the samples that lie flat at the recording's own largest magnitude.
    holes : float
        Fraction of the cells of time and frequency, within the bandwidth and in loud moments, that are empty, as
        codecs of low rates leave them.
    decay : float [s]
        Time in which the fastest decays fall by 60 dB: rooms make them slow, from about 0.3 on.
    """

    speech_seconds: float
    bandwidth: float
    noise: float
    clipped: float
    holes: float
    decay: float

    @property
    def narrow(self) -> bool:
        """Whether it is the speech of a telephone."""
        return self.bandwidth <= NARROW

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def measure(speech: np.ndarray) -> Conditions:
    """
    Measure the conditions of speech.

    Parameters
    ----------
    speech : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz, without what is no speech.

    Returns
    -------
    Conditions
        Of less than 0.1 s all figures but the seconds are 0.
    """
    seconds = len(speech) / RATE
    if seconds < 0.1:
        return Conditions(seconds, 0.0, 0.0, 0.0, 0.0, 0.0)
    levels = _levels(speech)
    width = _bands_with_speech(levels)
    voice = 10 * np.log10(np.sum(10 ** (levels[:, VOICE] / 10), axis=1))
    return Conditions(
        speech_seconds=seconds,
        bandwidth=float(width * BAND_HZ),
        noise=float(np.percentile(voice, LOUD) - np.percentile(voice, QUIET)),
        clipped=_clipped(speech),
        holes=_holes(levels, voice, width),
        decay=_decay(voice),
    )


def voiced(speech: np.ndarray) -> float:
    """
    Tell how much of speech has a pitch: little of what is whispered.

    Parameters
    ----------
    speech : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    float
        Share of the louder half of the frames whose autocorrelation, over that of the window (Boersma, "Accurate
        short-term analysis of the fundamental frequency", 1993, equation 9), has a peak of 0.6 at a pitch; 1 where
        there is no frame.
    """
    if len(speech) < FRAME:
        return 1.0
    frames = np.lib.stride_tricks.sliding_window_view(speech.astype(np.float32), FRAME)[:: FRAME // 2]
    power = np.mean(np.square(frames), axis=1)
    frames = frames[power >= np.median(power)]
    shape, lags = np.hanning(FRAME), slice(*(round(RATE / pitch) for pitch in PITCHES[::-1]))
    windowed = np.vstack([shape, (frames - frames.mean(axis=1, keepdims=True)) * shape])
    spectra = np.square(np.abs(np.fft.rfft(windowed, 2 * FRAME, axis=1)))
    correlation = np.fft.irfft(spectra, axis=1)
    correlation /= np.maximum(correlation[:, :1], 1e-9)
    return float(np.mean((correlation[1:, lags] / correlation[0, lags]).max(axis=1) > PITCHED))


def _levels(speech: np.ndarray) -> np.ndarray:
    """Power of bands of 250 Hz [shape=(frames, 32)] [dB]."""
    shape = np.hanning(WINDOW).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(speech.astype(np.float32) / 32768, WINDOW)[::STEP] * shape
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))[:, : WINDOW // 2] / np.sum(shape**2)
    return 10 * np.log10(power.reshape(len(power), -1, BAND).mean(axis=2) + 1e-14)


def _bands_with_speech(levels: np.ndarray) -> int:
    """Bands up to the highest that holds speech."""
    loud, quiet = np.percentile(levels, [LOUD, QUIET], axis=0)
    holds = loud > loud.max() + FAINT
    if np.median((loud - quiet)[MIDDLE]) > FLAT + 3:  # otherwise noise hides which bands hold speech
        holds &= loud - quiet > FLAT
    return int(np.flatnonzero(holds)[-1]) + 1 if holds.any() else 0


def _clipped(speech: np.ndarray) -> float:
    magnitude = np.abs(speech.astype(np.int32))
    flat = magnitude >= 0.99 * magnitude.max()
    return float(np.mean(flat[2:] & flat[1:-1] & flat[:-2])) if len(flat) > 2 and magnitude.max() > 300 else 0.0


def _holes(levels: np.ndarray, voice: np.ndarray, width: int) -> float:
    loud = levels[voice >= np.median(voice), 1 : max(width - 1, 2)]
    return float(np.mean(loud < np.percentile(levels, LOUD, axis=0).max() + HOLE))


def _decay(voice: np.ndarray) -> float:
    """From the steepest falls over 80 ms that begin at the level of speech."""
    if len(voice) <= DECAY:
        return 0.0
    falls = (voice[:-DECAY] - voice[DECAY:])[voice[:-DECAY] > np.median(voice)]
    steepest = np.percentile(falls, LOUD) if len(falls) else 0.0
    return float(60 * DECAY * STEP / RATE / steepest) if steepest > 3 else 0.0
