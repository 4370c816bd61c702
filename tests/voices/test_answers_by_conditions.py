"""Answers of a judge that hears conditions, from recordings to words: what each step hands to the next."""

import dataclasses
import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.speech.audio import Decoded
from sv_utils.voices import compare, encoder, enrolment, fitting, identify, measured, ratios, recordings
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.enrolment import Voices
from sv_utils.voices.judging import Judgement, Side
from sv_utils.voices.ratios import Ratios
from sv_utils.voices.recordings import Recording

STUDIO = Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
CALL = Conditions(8.0, 3500.0, 40.0, 0.0, 0.0, 0.1)
# Conditions of a file, and the angle of its voice [degrees]; what a channel adds to it lies in a third direction.
FILES = {"studio.wav": (STUDIO, 0, 0.6), "call.wav": (CALL, 60, -0.6)}
FILES["word.wav"] = (dataclasses.replace(CALL, speech_seconds=0.3), 0, 0.6)


def voice(degrees, channel):
    """A unit vector of which 0.8 is a voice and 0.6 a channel."""
    left = math.sqrt(1 - channel**2)
    return np.array([left * math.cos(math.radians(degrees)), left * math.sin(math.radians(degrees)), channel])


def judge(threshold=-1.2):
    """Ratios of 10 x cosine - 4, 2 less where one side is narrow, without the third direction."""
    known = {}
    for place, condition in enumerate(fitting.all_conditions()):
        point = {"name": "false accepts 5.0%", "wanted": 0.05, "threshold": threshold, "threshold_from": "dev speakers"}
        point |= {
            "false_accept": [0.01 * (place + 1), 0.005, 0.2],
            "miss": [0.2, 0.1, 0.3],
            "list": "dev speakers of a",
        }
        point |= {"n_speakers": 7, "n_target": 100, "n_nontarget": 1200}
        known[condition] = {"points": [point], "lowest": -9.0, "highest": 9.0, "cosines": [-1.0, 1.0]}
        known[condition] |= {"target": [2.0], "nontarget": [-3.0, 1.0]}
    ranges = {field: [0.0, 1e9] for field in STUDIO.as_dict()}
    return Ratios(("cosine", "one_narrow"), (10.0, -2.0), -4.0, known, ranges, np.array([[0.0, 0.0, 1.0]]), 0.05)


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """Recordings that are what `FILES` says of them, the encoder that hears so, and the judge."""

    def hear(source, name="", segment=None):
        conditions, degrees, channel = FILES[source]
        sound = Decoded(np.zeros(16_000 * 9, np.int16), 44_100, 2, "wav")
        hearings = [np.array([degrees, 10 * channel], np.int16)]
        return Recording(source, sound, [(0, 9)], hearings, conditions, segment)

    def embeddings(model, waveforms):
        return np.array([voice(waveform[0], waveform[1] / 10) for waveform in waveforms])

    monkeypatch.setattr(recordings, "hear", hear)
    monkeypatch.setattr(recordings, "WHISPERED", 0.0)
    monkeypatch.setattr(encoder, "embeddings", embeddings)
    monkeypatch.setattr(measured, "judge", lambda model, wanted=None: judge())


TEXT = """same speaker
  compensated cosine 0.500 (-0.040 before channels were compensated), threshold 0.480 (campplus)
  log-likelihood ratio -1.00: 2.7 times likelier with two voices; probability of one voice 8.42% at a prior of 20.0%
  studio.wav, 1 to 9 s: 5.0 s of speech, up to 8.0 kHz, quiet
  call.wav: 8.0 s of speech, telephone band (3.5 kHz), quiet
  operating point false accepts 5.0%: 4.0% [0.5%, 20.0%] of different voices accepted, 20.0% [10.0%, 30.0%] of same \
voices missed under the condition wide and narrow band (7 dev speakers of a; 1,300 trials); threshold from dev speakers
  Both recordings of a voice were of one session there: between days, rooms and devices expect more errors.
  warning: call.wav: nothing of the voice is heard above 3.5 kHz, as on a telephone: part of what tells voices apart \
is missing; the rates are those of such recordings
  warning: the score lies within 0.03 of its threshold: a pause or some noise more could turn the answer"""


def test_an_answer_tells_what_was_measured_under_the_condition_of_both_recordings():
    answer = compare.compare("studio.wav", "call.wav", prior=0.2, segments=[(1.0, 9.0), None])
    assert compare.text(answer) == TEXT
    assert (answer["score"], answer["cosine"]) == (pytest.approx(0.5), pytest.approx(0.64 * 0.5 - 0.36))
    assert answer["log_likelihood_ratio"] == pytest.approx(-1.0) and (answer["prior"], answer["model"]) == (
        0.2,
        "campplus",
    )
    assert answer["probability"] == pytest.approx(1 / (1 + 4 * math.e))
    point, (first, second) = answer["operating_point"], answer["recordings"]
    assert (point["condition"], point["threshold"]) == ("wide and narrow band", pytest.approx(0.48))
    assert (first["bandwidth"], second["bandwidth"], first["segment"]) == (8000.0, 3500.0, (1.0, 9.0))
    assert (first["seconds"], first["rate"], first["channels"]) == (9.0, 44_100, 2) and "warnings" not in first


def test_without_an_answer_the_condition_of_both_recordings_is_told(monkeypatch):
    short = compare.compare("studio.wav", "word.wav")
    assert short["operating_point"]["condition"] == "wide and narrow band, short" and short["decision"] == "cannot tell"
    voices = Voices("campplus", "print", {"ada": voice(0, 0.6)}, {"ada": 1}, {"ada": STUDIO})
    asked = identify.among(voices, "word.wav")
    assert asked["operating_point"]["condition"] == "wide and narrow band, short" and asked["name"] is None
    assert asked["decision"] == "cannot tell" and asked["candidates"] == []


def test_the_likeliest_voice_is_named_with_the_scores_the_point_and_the_rate_that_belong_to_it():
    """In whatever order voices were enrolled; a sum of embeddings is a voice of length 1."""
    sums = {"ada": 3 * voice(140, 0.6), "bob": 2 * voice(60, -0.6), "cy": voice(120, 0.0)}
    voices = Voices("campplus", "print", sums, dict.fromkeys(sums, 2), {"ada": STUDIO, "bob": CALL, "cy": STUDIO})
    answer = identify.among(voices, "studio.wav")
    assert (answer["decision"], answer["name"]) == ("unknown", None)  # three voices: -1 is less than ln(3) - 1.2
    told = {one["name"]: (one["cosine"], one["score"], one["log_likelihood_ratio"]) for one in answer["candidates"]}
    assert list(told) == ["bob", "cy", "ada"]
    assert told["bob"] == pytest.approx((0.64 * 0.5 - 0.36, 0.5, -1.0))
    assert told["cy"] == pytest.approx((0.8 * -0.5, -0.5, -9.0))
    point = answer["operating_point"]
    assert (point["condition"], point["log_likelihood_ratio"]) == ("wide and narrow band", math.log(3) - 1.2)
    assert point["threshold"] == pytest.approx((math.log(3) - 1.2 + 6) / 10)
    assert answer["stranger_accepted"] == pytest.approx(3 * 0.04)  # half of the quantiles lie above, 4 % at most
    closed = identify.among(voices, "studio.wav", closed=True)
    assert (closed["decision"], closed["name"], closed["stranger_accepted"]) == ("known", "bob", None)


@pytest.mark.parametrize(("degrees", "limit"), [((20, 40, 1, 30), 1.5), ((170, 110, 100, 120), -3.0)])
def test_the_nearest_voice_is_named_also_where_no_ratio_tells_more(degrees, limit, monkeypatch):
    """Each reaches the limit of what was measured; whoever was enrolled first is no nearer for it."""
    known = {name: content | {"highest": 1.5, "lowest": -3.0} for name, content in judge().conditions.items()}
    monkeypatch.setattr(measured, "judge", lambda *_: dataclasses.replace(judge(), conditions=known))
    sums = dict(zip("abcd", (voice(angle, 0.6) for angle in degrees)))
    voices = Voices("campplus", "print", sums, dict.fromkeys(sums, 1), dict.fromkeys(sums, STUDIO))
    answer = identify.among(voices, "studio.wav", closed=True)
    assert answer["name"] == "c" and {one["log_likelihood_ratio"] for one in answer["candidates"]} == {limit}
    assert [one["name"] for one in answer["candidates"]] == sorted(sums, key=dict(zip("abcd", degrees)).get)


def test_of_many_voices_no_more_than_all_strangers_are_taken_for_one():
    sums = {f"v{number}": voice(number, 0.6) for number in range(60)}
    voices = Voices("campplus", "print", sums, dict.fromkeys(sums, 1), dict.fromkeys(sums, CALL))
    assert identify.among(voices, "studio.wav")["stranger_accepted"] == 1.0


def test_what_a_judge_warns_of_is_told_beside_what_the_recording_has(monkeypatch):
    found = Judgement(0.1, 0.2, -4.0, False, judge().point([STUDIO, CALL]), ["the judge says so"])
    monkeypatch.setattr(Ratios, "__call__", lambda *_: found)
    answer = compare.compare("studio.wav", "call.wav")
    assert answer["warnings"][1] == "the judge says so" and "call.wav: nothing of" in answer["warnings"][0]
    assert answer["log_likelihood_ratio"] == -math.log(20)
    voices = Voices("campplus", "print", {"ada": voice(0, 0.6)}, {"ada": 1}, {"ada": STUDIO})
    assert identify.among(voices, "call.wav")["warnings"][1] == "the judge says so"


def test_a_recording_is_held_against_all_the_others_of_its_name_with_what_they_were_heard_in(monkeypatch):
    seen = []

    def judged(first, second):
        seen.append((first, second))
        ratio = -float(len(seen))
        return Judgement(0.0, 0.0, ratio, len(seen) == 1, {})

    monkeypatch.setattr(measured, "judge", lambda model: judged if model == "own.keras" else None)
    sides = {name: Side(np.eye(3)[place], STUDIO) for place, name in enumerate(("a", "b"))}
    with pytest.raises(RequestError, match=r"b does not sound .* of ada \(log-likelihood ratio -2\.0\); sing it anew"):
        enrolment.refuse_others("ada", sides, "own.keras", Side(np.eye(3)[2], CALL), "sing it anew")
    assert [first for first, _ in seen] == list(sides.values())
    root = math.sqrt(0.5)
    np.testing.assert_allclose([other.embedding for _, other in seen], [[0, root, root], [root, 0, root]])
    assert [other.conditions for _, other in seen] == [dataclasses.replace(CALL, speech_seconds=13.0)] * 2


def test_a_judge_holds_what_is_shipped_of_its_encoder():
    shipped, found = ratios.read("campplus"), ratios.load("campplus", 0.01)
    assert (found.names, found.weights) == (tuple(shipped["features"]), tuple(shipped["weights"]))
    fields = found.offset, found.conditions, found.ranges, found.wanted
    assert fields == (shipped["offset"], shipped["conditions"], shipped["ranges"], 0.01)
    assert found.directions.shape == (30, 192)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(30), atol=2e-3)
