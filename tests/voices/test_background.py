"""What is left out of a recording before anybody listens: how long, how quiet and how steady it must be."""

import numpy as np
import pytest

from sv_utils.speech import channels
from sv_utils.voices import background

RATE = 16_000


def voice(seconds, seed=0):
    """Noise of 2,000 whose loudness changes four times a second, as that of syllables."""
    time = np.arange(int(seconds * RATE)) / RATE
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time)
    return (np.random.default_rng(seed).normal(0, 2000, len(time)) * syllables).astype(np.int16)


def hiss(seconds, level, slope=0.0):
    return (level * channels.coloured(int(seconds * RATE), slope, np.random.default_rng(1))).astype(np.int16)


def test_20_ms_of_zeros_are_a_muted_line_and_less_is_a_pause():
    for count, found in ((320, [(0, 3), (323, 325)]), (319, [(0, 324)])):
        samples = np.array([5, -9, 4, *np.zeros(count), 7, 8], np.int16)
        assert background.left(samples) == found
    assert background.left(np.zeros(9000, np.int16)) == []
    assert background.left(np.zeros(0, np.int16)) == []
    assert background.left(np.ones(9000, np.int16)) == [(0, 9000)]  # quiet, but there is nothing louder


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seconds", [1.3, 30.0])
def test_a_steady_background_goes_to_within_10_ms_wherever_it_lies(seconds, slope):
    one, two, noise = voice(1.5), voice(1.5, 1), hiss(seconds, 100, slope)
    for parts, place in (((noise, one, two), 0), ((one, noise, two), len(one)), ((one, two, noise), 2 * len(one))):
        left = background.left(np.concatenate(parts))
        gone = np.ones(len(one) + len(two) + len(noise), bool)
        for start, end in left:
            gone[start:end] = False
        wanted = np.zeros(len(gone), bool)
        wanted[place : place + len(noise)] = True
        assert np.count_nonzero(gone & ~wanted) <= 160 and np.count_nonzero(wanted & ~gone) <= 2 * 160


def below_the_voice(decibels):
    return hiss(5, 2000 * 10 ** (-decibels / 20))


def swelling(decibels):
    """Hiss that is louder every other quarter of a second."""
    louder = np.arange(5 * RATE) // 4000 % 2
    return (hiss(5, 80) * 10 ** (louder * decibels / 20)).astype(np.int16)


@pytest.mark.parametrize(
    ("noise", "stays"),
    [
        (hiss(0.95, 100), True),
        (hiss(1.2, 100), False),
        (below_the_voice(14), True),
        (below_the_voice(18), False),
        (swelling(4.5), True),
        (swelling(1.5), False),
    ],
    ids=["0.95 s", "1.2 s", "14 dB below", "18 dB below", "swells by 4.5 dB", "swells by 1.5 dB"],
)
def test_a_background_is_long_and_quiet_and_steady(noise, stays):
    samples = np.concatenate([voice(1.5), noise, voice(1.5)])
    assert (background.left(samples) == [(0, len(samples))]) is stays


def test_frames_are_counted_from_the_loudest_sample_and_none_stays_before_them():
    noise, rest = hiss(3, 100), voice(1.5)
    first, second = (background.left(np.concatenate([noise[start:], rest])) for start in (0, 77))
    assert len(first) == len(second) == 1
    assert first[0][0] == second[0][0] + 77 > 2.9 * RATE


def test_a_click_does_not_make_a_background_quiet():
    noise = below_the_voice(14)
    samples = np.concatenate([voice(1.5), noise, voice(1.5)])
    samples[8000:8320] = 30_000
    assert background.left(samples) == [(0, len(samples))]


def test_one_louder_frame_in_a_background_does_not_end_it():
    noise = hiss(3, 100).astype(float)
    noise[-3200:-3040] *= 10 ** (2.5 / 20)
    samples = np.concatenate([noise.astype(np.int16), voice(1.5)])
    ((start, _),) = background.left(samples)
    assert abs(start - len(noise)) <= 160


def test_a_voice_is_never_steady():
    for seed in range(3):
        loud = voice(5, seed)
        assert background.left(np.concatenate([loud, loud // 10, loud])) == [(0, 15 * RATE)]


def test_the_background_is_what_the_windows_hold_and_not_the_quiet_end_of_a_word():
    noise = hiss(3, 100)
    faint = (voice(0.05) / 2000 * 150).astype(np.int16)  # 50 ms that are 2 to 3 dB louder or quieter than the noise
    samples = np.concatenate([voice(1.5), faint, noise])
    ((_, end),) = background.left(samples)
    assert end > 1.5 * RATE + 400  # of the 800 samples


def test_pieces_are_placed_in_the_recording_and_parted_where_something_was_left_out():
    stretches = [(100, 200), (500, 600), (900, 1000)]
    samples = np.arange(1000, dtype=np.int16)
    pieces = [(0, 50), (90, 100), (150, 250)]
    found = background.placed(pieces, stretches)
    assert found == [(100, 150), (190, 200), (550, 600), (900, 950)]
    rest = background.joined(samples, stretches)
    assert np.array_equal(background.joined(rest, pieces), background.joined(samples, found))
    assert background.placed([], stretches) == [] and background.placed([(0, 300)], stretches) == stretches
