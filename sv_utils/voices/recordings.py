"""A recording that somebody hands in: decoded, its speech found, measured, and warned of."""

import dataclasses
import functools
import os
from dataclasses import dataclass

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.speech import audio
from sv_utils.voices import activity
from sv_utils.voices.asked import Segment
from sv_utils.voices.conditions import Conditions, measure, voiced

RATE = 16_000
SHORT = 2.0  # with less speech than this an answer is weak [s]
SHORTEST = 0.5  # with less speech there is no answer [s]
CLIPPED = 0.001  # fraction of the samples that lie flat at the top
SILENT = 0.5  # fraction of the recording that is not speech
NOISY = 18.0  # speech above background as of `Conditions.noise` [dB]
EMPTY = 0.02  # fraction of holes that a codec of low rate leaves
ECHO = 0.34  # decay of a room that is heard [s]
WHISPERED = 0.2  # share of voiced frames below which speech is whispered; of 2,330 dev recordings one has less (0.19)
CANCELLED = 0.1  # of the first channel's level that is left of the mean of opposite channels
BESIDE = 0.1  # of the louder channel's level, from which on the other is no silence
ALIKE = 0.85  # correlation of the levels of channels of one sound: from 0.96 in two rooms, of two voices up to 0.81
Source = str | os.PathLike | np.ndarray


@dataclass(frozen=True)
class Recording:
    """
    A recording and what was found in it.

    Attributes
    ----------
    name : str
        Its file, or what it was called.
    sound : audio.Decoded
    stretches : list of (int, int)
        Where there is speech, as of `activity.segments`.
    hearings : list of np.ndarray [shape=(n,), dtype=int16]
        The speech alone, which is what is embedded, as of `activity.heard`.
    conditions : Conditions
        Of the speech.
    segment : tuple of two float, optional
        Where in the file the sound lies [s]; None where it is all of it.
    """

    name: str
    sound: audio.Decoded
    stretches: list[tuple[int, int]]
    hearings: list[np.ndarray]
    conditions: Conditions
    segment: Segment = None

    @property
    def speech(self) -> np.ndarray:
        """The speech alone as it is measured [shape=(n,), dtype=int16]: its first hearing."""
        return self.hearings[0]

    @property
    def enough(self) -> bool:
        """Whether there is speech enough for an answer."""
        return self.conditions.speech_seconds >= SHORTEST

    @functools.cached_property
    def whispered(self) -> bool:
        """Whether hardly any of the speech is voiced, where noise does not hide it."""
        return self.enough and self.conditions.noise >= NOISY and voiced(self.speech) < WHISPERED

    @property
    def label(self) -> str:
        """Its name, and the segment where only one is heard."""
        return labelled(self.name, self.segment)

    def describe(self) -> dict:
        """
        Say what was measured.

        Returns
        -------
        dict
            ``file``, ``segment`` (where it was listened to), ``seconds``, ``rate`` [Hz] and ``channels`` of the
            original, the fields of `conditions.Conditions`, ``chips`` (its conditions in a few words each), and
            ``warnings`` (list of str).
        """
        sound = {"seconds": len(self.sound.samples) / RATE, "rate": self.sound.rate, "channels": self.sound.channels}
        said = {"chips": chips(self.conditions), "warnings": self.warnings()}
        return {"file": self.name, "segment": self.segment, **sound, **self.conditions.as_dict(), **said}

    def warnings(self) -> list[str]:
        """Say what makes an answer about it weak."""
        seconds, speech = len(self.sound.samples) / RATE, self.conditions.speech_seconds
        if not self.stretches:
            return [f"no speech was found in its {seconds:.1f} s"]
        said = list(self.sound.warnings)
        if speech < SHORT:
            said.append(f"{speech:.2f} s of speech are too short for a reliable answer, give {SHORT:g} s or more")
        if self.conditions.narrow:
            said.append(
                f"nothing of the voice is heard above {self.conditions.bandwidth / 1000:.1f} kHz, as on a telephone: "
                "part of what tells voices apart is missing; the rates are those of such recordings"
            )
        if self.conditions.clipped > CLIPPED:
            said.append(f"{self.conditions.clipped:.1%} of the samples are clipped, record it less loud")
        if self.whispered:
            said.append("hardly any of it is voiced, as in whispering, on which no error rate was measured")
        if self.conditions.noise < NOISY:
            said.append("the background is nearly as loud as the voice, record it in a quieter place")
        if speech < (1 - SILENT) * seconds:
            said.append(f"mostly not speech: {speech:.1f} s of speech in {seconds:.1f} s; only the speech is compared")
        return said


def labelled(name: str, segment: Segment) -> str:
    """
    Name a recording as it is heard.

    Examples
    --------
    >>> labelled("a.wav", (65.0, 80.5))
    'a.wav, 65 to 80.5 s'
    """
    return f"{name}, {segment[0]:g} to {segment[1]:g} s" if segment else name


def chips(conditions: Conditions) -> list[str]:
    """
    Say conditions in a few words each.

    Examples
    --------
    >>> chips(Conditions(3.2, 3500.0, 31.0, 0.0, 0.0, 0.2))
    ['3.2 s of speech', 'telephone band (3.5 kHz)', 'quiet']
    """
    if conditions.speech_seconds < 0.1:
        return ["no speech"]
    band = f"{conditions.bandwidth / 1000:.1f} kHz"
    found = [f"{conditions.speech_seconds:.1f} s of speech"]
    found.append(f"telephone band ({band})" if conditions.narrow else f"up to {band}")
    found.append("noisy" if conditions.noise < NOISY else "quiet" if conditions.noise > 28 else "some noise")
    marks = {"clipped": conditions.clipped > CLIPPED, "compressed": conditions.holes > EMPTY}
    marks["echoing room"] = conditions.decay > ECHO and conditions.noise >= NOISY
    return found + [mark for mark, there in marks.items() if there]


def hear(source: Source, name: str = "", segment: Segment = None) -> Recording:
    """
    Decode a recording, find the speech in it and measure that.

    Parameters
    ----------
    source : path or np.ndarray [shape=(n,)]
        An audio file of any format; or samples at 16 kHz, int16 or float in [-1, 1].
    name : str
        What to call an array.
    segment : tuple of two float, optional
        Where in it to listen, from and to [s].

    Returns
    -------
    Recording

    Raises
    ------
    RequestError
        If it cannot be read, is no audio, is no array of samples, or has no such segment.
    WorkError
        If the weights of the speech detector cannot be fetched.
    """
    if isinstance(source, np.ndarray):
        name = name or "the array"
        sound = audio.Decoded(audio.as_int16(source, name), RATE, 1, "array")
    else:
        name, sound = os.fspath(source), decode(source)
    if segment:
        start, end = (round(second * RATE) for second in segment)
        if not 0 <= start < end <= len(sound.samples) + RATE // 10:
            lasts = f"it lasts {len(sound.samples) / RATE:.1f} s"
            raise RequestError(
                f"{name} has no segment from {segment[0]:g} to {segment[1]:g} s, for {lasts}; give one within it"
            )
        sound = dataclasses.replace(sound, samples=sound.samples[start:end])
    stretches, hearings = activity.heard(sound.samples)
    return Recording(name, sound, stretches, hearings, measure(hearings[0]), segment)


def decode(file: str | os.PathLike) -> audio.Decoded:
    """
    Decode an audio file.

    Raises
    ------
    RequestError
        If it cannot be read or is no audio.
    """
    try:
        sound = audio.decode(file)
        return _of_channels(file, sound) if sound.channels > 1 and os.path.isfile(file) else sound
    except (OSError, audio.AudioError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{os.fspath(file)}: {reason}; name an audio file") from None


def _of_channels(file: str | os.PathLike, mean: audio.Decoded) -> audio.Decoded:
    """Take the first channel where channels cancel each other, and warn of channels that hold different sounds."""
    first = audio.decode(file, first_channel=True).samples
    left, rest = first.astype(float), mean.channels * mean.samples.astype(float) - first
    loud, other, both = (float(np.sqrt(np.mean(np.square(x)))) for x in (left, rest, mean.samples.astype(float)))
    said: tuple[str, ...] = ()
    if both < CANCELLED * loud and both < CANCELLED * other:
        mean = dataclasses.replace(mean, samples=first)
        said = ("its channels cancel each other, so the first is heard alone",)
    elif min(loud, other) > BESIDE * max(loud, other) and _alike(left, rest) < ALIKE:
        said = ("its channels hold different sounds, as of two sides of a call, and are heard mixed; give one channel",)
    return dataclasses.replace(mean, warnings=(*mean.warnings, *said))


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the levels [dB] of two channels over time, in frames of 20 ms; 1 where there is none."""
    frames = (x[: len(x) // 320 * 320].reshape(-1, 320) for x in (first, second))
    levels = [np.log10(np.mean(np.square(frame), axis=1) + 1) for frame in frames]
    changing = all(len(level) and np.ptp(level) > 0 for level in levels)  # no level, in less than a frame
    return float(np.corrcoef(*levels)[0, 1]) if changing else 1.0
