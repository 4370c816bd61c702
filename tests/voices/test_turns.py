"""A second voice in a recording is found, and one voice is not taken for two."""

from types import SimpleNamespace

import numpy as np
import pytest

from sv_utils.voices import ratios, turns

RATE = 16_000


def spoken(*who):
    """A recording in which each window is the number of its voice, and what embeds it."""
    samples = np.concatenate([np.full(turns.WINDOW, voice, np.int16) for voice in who])
    rng = np.random.default_rng(0)

    def embed(waveforms):
        directions = np.eye(20)[[int(waveform[0]) for waveform in waveforms]]
        vectors = directions + rng.normal(0, 0.1, directions.shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return samples, embed


def test_the_voice_with_less_speech_is_the_second_and_its_place_is_told():
    samples, embed = spoken(1, 1, 2, 2, 1, 1, 1)
    found = turns.second_voice(samples, [(0, len(samples))], embed)
    assert (found.start, found.end) == (3.0, 6.0) and found.cosine < 0.3


def test_places_are_those_of_the_recording_and_not_of_the_speech_alone():
    samples, embed = spoken(1, 1, 1, 2, 2)
    pause = np.zeros(5 * RATE, np.int16)
    recording = np.concatenate([pause, samples])
    found = turns.second_voice(recording, [(len(pause), len(recording))], embed)
    assert (found.start, found.end) == (9.5, 12.5)


@pytest.mark.parametrize("who", [(1,) * 8, (1, 1, 1, 1, 1, 2), (1, 2, 2), ()])
def test_one_voice_a_short_word_and_little_speech_are_no_second_voice(who):
    samples, embed = spoken(*who) if who else (np.zeros(9, np.int16), None)
    assert turns.second_voice(samples, [(0, len(samples))] if who else [], embed) is None


def test_equal_embeddings_are_one_group():
    assert turns.parted(np.tile([1.0, 0.0], (5, 1)))[1] == 1.0


def test_a_second_voice_is_looked_for_in_the_speech_of_the_recording_with_its_encoder(monkeypatch):
    samples, embed = spoken(1, 1, 2, 2, 1, 1, 1)
    recording = np.concatenate([samples, np.full(turns.WINDOW * 4, 3, np.int16)])
    sound, asked = SimpleNamespace(samples=recording), []
    monkeypatch.setattr(turns.encoder, "embeddings", lambda model, heard: asked.append(model) or embed(heard))
    of = {"sound": sound, "stretches": [(0, len(samples))], "name": "a.wav"}
    told = turns.warned(SimpleNamespace(segment=None, **of), "own.keras")
    assert told == ["a.wav: a second voice seems to speak from 3.0 to 6.0 s; give a part with one voice (--segment)"]
    assert "from 13.5 to 16.5 s" in turns.warned(SimpleNamespace(segment=(10.5, 40.0), **of), "own.keras")[0]
    of["stretches"] = [(0, turns.WINDOW * 2)]
    assert turns.warned(SimpleNamespace(segment=None, **of), "own.keras") == [] and asked == ["own.keras"] * 2


def test_a_threshold_of_likeness_and_of_windows_parts_two_voices_from_one():
    """Voices at a cosine just below and above 0.5; of four windows, two and two."""

    def heard(cosine, *who):
        samples = np.concatenate([np.full(turns.WINDOW, voice, np.int16) for voice in who])
        vectors = np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]])
        return turns.second_voice(samples, [(0, len(samples))], lambda waves: vectors[[int(wave[0]) for wave in waves]])

    assert heard(0.49, 0, 0, 1, 1).cosine == pytest.approx(0.49)
    assert heard(0.51, 0, 0, 1, 1) is None and heard(0.49, 0, 1, 0) is None and heard(0.49, 0, 0, 0, 1) is None


def test_what_one_telephone_gives_two_voices_is_removed_where_it_is_known(monkeypatch):
    """Two voices at a cosine of 0.6 by telephone and at 0.39, or 0.41, without what it gives them."""
    removed = np.array([[0.0, 0.0, 1.0]])

    def heard(cosine, directions):
        voices = np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]])
        share = np.sqrt((0.6 - cosine) / 0.4)
        vectors = np.column_stack([voices, np.full(2, share)]) / np.sqrt(1 + share**2)
        samples = np.repeat(np.array([0, 0, 1, 1], np.int16), turns.WINDOW)
        whole = [(0, len(samples))]
        return turns.second_voice(samples, whole, lambda waves: vectors[[int(w[0]) for w in waves]], directions)

    assert heard(0.39, removed).cosine == pytest.approx(0.39)
    assert heard(0.41, removed) is None and heard(0.39, None) is None
    assert ratios.directions("campplus").shape == (30, 192) and ratios.directions("own.keras") is None
    asked = []
    monkeypatch.setattr(turns, "second_voice", lambda *given: asked.append(given[3]))
    sound = SimpleNamespace(samples=np.zeros(9, np.int16))
    turns.warned(SimpleNamespace(sound=sound, stretches=[]), "campplus")
    assert np.array_equal(asked[0], ratios.directions("campplus"))


@pytest.mark.parametrize("swapped", [False, True])
def test_which_group_has_less_speech_and_enough_does_not_hang_on_which_is_named_first(swapped, monkeypatch):
    """`parted` names its groups as it happens."""

    def heard(*second):
        group = np.array(second, bool) != swapped
        monkeypatch.setattr(turns, "parted", lambda embeddings: (group, 0.1))
        return turns.second_voice(np.zeros(len(group) * turns.WINDOW, np.int16), [(0, len(group) * turns.WINDOW)], len)

    assert heard(0, 0, 0, 0, 1) is None and heard(0, 0, 0, 0, 0) is None
    found = heard(0, 0, 0, 1, 1)
    assert (found.start, found.end, found.cosine) == (4.5, 7.5, 0.1)
