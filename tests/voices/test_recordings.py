"""What the channels of a recording hold, one recording handed in twice, and whispering."""

import dataclasses

import numpy as np
import pytest
import soundfile

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.speech.audio import Decoded
from sv_utils.voices import activity, compare, encoder, measured, recordings
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Plain

EARLY, LATE = (np.repeat(order, 16_000) for order in ([0.2, 0.0, 0.1], [0.0, 0.2, 0.0]))
NOISE = np.random.default_rng(0).uniform(-1, 1, (48_000, 2))


@pytest.fixture
def heard(tmp_path):
    """Decode a file of two channels."""

    def decode(left, right):
        soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), 16_000)
        return recordings.decode(tmp_path / "two.wav")

    return decode


def test_channels_that_cancel_each_other_are_not_averaged(heard):
    voice = EARLY * NOISE[:, 0]
    sound = heard(voice, -voice)
    np.testing.assert_allclose(sound.samples, voice * 32768, atol=1.01)
    assert sound.warnings == ("its channels cancel each other, so the first is heard alone",)


@pytest.mark.parametrize(
    ("left", "right", "different"),
    [(EARLY, LATE, True), (EARLY, EARLY / 2, False), (EARLY, 0.05 * LATE, False), (0 * EARLY, LATE, False)],
)
def test_channels_of_different_sounds_are_told(heard, left, right, different):
    sound = heard(left * NOISE[:, 0], right * NOISE[:, 1])
    assert [text[:35] for text in sound.warnings] == ["its channels hold different sounds,"] * different
    mean = (left * NOISE[:, 0] + right * NOISE[:, 1]) * 16384
    np.testing.assert_allclose(sound.samples, mean, atol=2)


@pytest.mark.parametrize("count", [1, 319, 320, 639, 640])
def test_channels_of_less_than_a_frame_or_two_are_decoded(heard, count):
    sound = heard(*(0.5 * NOISE[:count]).T)
    assert len(sound.samples) == count and (sound.warnings == () or count == 640)


def test_what_the_system_says_of_a_file_is_told_in_its_words(monkeypatch):
    for error, said in ((OSError("odd"), "odd"), (PermissionError(13, "Permission denied"), "Permission denied")):

        def decode(file, error=error):
            raise error

        monkeypatch.setattr(recordings.audio, "decode", decode)
        with pytest.raises(RequestError, match=f"^a.wav: {said}; name an audio file$"):
            recordings.decode("a.wav")


def test_one_recording_twice_is_told(monkeypatch):
    monkeypatch.setattr(activity, "heard", lambda samples: ([(0, len(samples))], [samples]))
    monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: np.eye(2)[[0, 0]])
    one, other = (NOISE * 0.2).T
    twice, two = (compare.compare(one, side, threshold=0.3)["warnings"] for side in (one, other))
    said = "both hold the same speech, sample for sample: the answer is about one recording"
    assert said in twice and said not in two


def test_of_whispering_the_answer_claims_less(monkeypatch):
    point = {"name": "equal error", "wanted": None, "threshold": 0.4, "list": "own"}
    judge = Plain(Calibration(("cosine",), (10.0,), -4.0, 0.5, 9999, 9999), point)
    monkeypatch.setattr(measured, "judge", lambda *_: judge)
    monkeypatch.setattr(activity, "heard", lambda samples: ([(0, len(samples))], [samples]))
    monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: np.eye(2)[[0, 0]])
    sound = np.sin(np.arange(48_000) / 9) * (np.arange(48_000) % 8000 > 2000)  # with pauses, in which there is no noise
    spoken, other, whisper = (sound * level for level in (0.2, 0.1, NOISE[:, 0]))
    alone, told = compare.compare(spoken, other), compare.compare(whisper, spoken)
    assert alone["log_likelihood_ratio"] == pytest.approx(6.0) and "voiced" not in str(alone["warnings"])
    assert (
        told["log_likelihood_ratio"] == pytest.approx(np.log(20))
        and "hardly any of it is voiced" in told["warnings"][0]
    )


GOOD = Conditions(3.2, 7800.0, 31.0, 0.0, 0.0, 0.2)


@pytest.mark.parametrize(
    ("change", "chips", "said"),
    [
        ({}, ["3.2 s of speech", "up to 7.8 kHz", "quiet"], []),
        ({"noise": 28.0}, ["3.2 s of speech", "up to 7.8 kHz", "some noise"], []),
        ({"noise": 17.9, "decay": 0.5}, ["3.2 s of speech", "up to 7.8 kHz", "noisy"], ["the background is nearly"]),
        ({"noise": 18.0, "decay": 0.5}, ["3.2 s of speech", "up to 7.8 kHz", "some noise", "echoing room"], []),
        ({"decay": 0.34}, ["3.2 s of speech", "up to 7.8 kHz", "quiet"], []),
        ({"bandwidth": 4600.0}, ["3.2 s of speech", "telephone band (4.6 kHz)", "quiet"], ["nothing of the voice is"]),
        ({"bandwidth": 4700.0}, ["3.2 s of speech", "up to 4.7 kHz", "quiet"], []),
        ({"clipped": 0.002}, ["3.2 s of speech", "up to 7.8 kHz", "quiet", "clipped"], ["0.2% of the samples are"]),
        ({"clipped": 0.001, "holes": 0.02}, ["3.2 s of speech", "up to 7.8 kHz", "quiet"], []),
        ({"holes": 0.03}, ["3.2 s of speech", "up to 7.8 kHz", "quiet", "compressed"], []),
        (
            {"speech_seconds": 1.9},
            ["1.9 s of speech", "up to 7.8 kHz", "quiet"],
            ["1.90 s of speech are", "mostly not"],
        ),
        ({"speech_seconds": 2.0}, ["2.0 s of speech", "up to 7.8 kHz", "quiet"], []),
        ({"speech_seconds": 0.05}, ["no speech"], ["0.05 s of speech are", "mostly not"]),
    ],
)
def test_conditions_are_told_in_chips_and_what_is_weak_in_warnings(change, chips, said):
    """After those of the decoder; a recording of 4 s, in which all is voiced."""
    conditions = dataclasses.replace(GOOD, **change)
    tone = (9000 * np.sin(2 * np.pi * 110 * np.arange(16_000) / 16_000)).astype(np.int16)
    sound = Decoded(np.zeros(64_000, np.int16), 8000, 1, "wav", warnings=("it was cut off",))
    told = recordings.Recording("a.wav", sound, [(0, 9)], [tone], conditions).describe()
    assert told["chips"] == chips and [text[: len(part)] for text, part in zip(told["warnings"][1:], said)] == said
    assert told["warnings"][0] == "it was cut off" and len(told["warnings"]) == 1 + len(said)
    silent = recordings.Recording("a.wav", sound, [], [tone[:0]], conditions)
    assert silent.warnings() == ["no speech was found in its 4.0 s"]


def test_whispering_is_told_where_there_is_speech_enough_and_no_noise_hides_it():
    sound, noise = Decoded(np.zeros(64_000, np.int16), 16_000, 1, "wav"), (9000 * NOISE[:, 0]).astype(np.int16)
    for change, whispered in (({}, True), ({"noise": 17.0}, False), ({"speech_seconds": 0.4}, False)):
        conditions = dataclasses.replace(GOOD, **change)
        assert recordings.Recording("a.wav", sound, [(0, 9)], [noise, noise], conditions).whispered is whispered


def test_a_recording_is_measured_by_its_first_hearing(monkeypatch):
    def heard(samples):
        return [(5, 9)], [samples[:16_000], samples[:8000]]

    monkeypatch.setattr(activity, "heard", heard)
    found = recordings.hear(NOISE[:, 0], "mine", (0.5, 2.5))
    assert found.conditions.speech_seconds == 1.0 and found.stretches == [(5, 9)] and len(found.hearings) == 2
    assert (found.label, found.sound.rate, found.sound.channels) == ("mine, 0.5 to 2.5 s", 16_000, 1)
    np.testing.assert_allclose(found.speech, NOISE[8000:24_000, 0] * 32768, atol=1)
    assert recordings.hear(NOISE[:, 0]).name == "the array"
