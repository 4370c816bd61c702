"""A second voice in a recording is found, and one voice is not taken for two."""

import numpy as np
import pytest

from sv_utils.voices import turns

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
