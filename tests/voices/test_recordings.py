"""What the channels of a recording hold, one recording handed in twice, and whispering."""

import numpy as np
import pytest
import soundfile

from sv_utils.evaluation.calibration import Calibration
from sv_utils.voices import activity, compare, encoder, measured, recordings
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
