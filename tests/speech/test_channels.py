"""Simulated channels: what passes, what does not, and that chance is drawn from the generator alone."""

import numpy as np
import pytest

from sv_utils.speech import channels

RATE = 16_000


@pytest.fixture(scope="module")
def wide():
    """Two seconds of noise of all frequencies, as loud as speech."""
    return (3000 * channels.coloured(2 * RATE, 0.0, np.random.default_rng(0))).astype(np.int16)


def share(samples, low, high):
    """Share of the power between two frequencies [Hz]."""
    power = np.abs(np.fft.rfft(samples.astype(float))) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


@pytest.mark.parametrize("name", channels.CHANNELS)
def test_a_channel_gives_as_much_sound_and_the_same_for_the_same_seed(wide, name):
    first, again, other = (channels.CHANNELS[name](wide, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.int16 and abs(len(first) - len(wide)) <= 0.1 * RATE and first.std() > 500
    np.testing.assert_array_equal(first, again)
    if name not in ("clean", "opus", "mp3"):  # of which there is one apparatus only
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["telephone", "mobile"])
def test_a_telephone_passes_nothing_above_4_khz(wide, name):
    heard = channels.CHANNELS[name](wide, np.random.default_rng(0))
    assert share(heard, 4300, 8000) < 1e-3 and share(heard, 0, 100) < 0.02
    assert share(heard, 500, 3000) > 0.5


def test_mp3_of_24_kbit_passes_6_khz(wide):
    assert share(channels.mp3(wide, np.random.default_rng(0)), 6300, 8000) < 1e-3


@pytest.mark.parametrize("level", [20.0, 10.0, 0.0])
def test_noise_has_the_level_that_is_asked_for(level):
    tone = (4000 * np.sin(2 * np.pi * np.arange(2 * RATE) * 1000 / RATE)).astype(np.int16)
    heard = channels.noisy(level)(tone, np.random.default_rng(0))
    assert 10 * np.log10(share(heard, 999, 1001) / (1 - share(heard, 999, 1001))) == pytest.approx(level, abs=0.5)
    assert heard.std() == pytest.approx(tone.std(), rel=1e-3)


def test_the_law_of_a_telephone_errs_by_a_share_of_the_sample():
    x = np.array([0.0, 1.0, -1.0, 0.5, -0.25, 0.01])
    for law in (channels._mu_law, channels._a_law):
        y = law(x)
        assert y[:3].tolist() == pytest.approx([0.0, 1.0, -1.0], abs=1e-12)
        np.testing.assert_allclose(y, x, rtol=0.05)
        assert len(set(law(np.linspace(-1, 1, 100_001)).tolist())) == 255


def test_a_room_rings_on_after_the_sound():
    click = np.zeros(RATE, np.int16)
    click[1000] = 30_000
    heard = channels.room(click, np.random.default_rng(0)).astype(float) ** 2
    assert heard[:1000].sum() == 0 and heard[1000] > heard[1001:].max()
    assert heard[1100:4000].sum() > 5 * heard[4000:8000].sum() > 0


def test_coloured_noise_falls_with_frequency():
    rng = np.random.default_rng(0)
    for slope, wanted in ((0.0, 1.0), (1.0, 0.25), (2.0, 0.0625)):
        noise = channels.coloured(RATE, slope, rng)
        assert np.mean(noise**2) == pytest.approx(1)
        assert share(noise, 3900, 4100) / share(noise, 900, 1100) == pytest.approx(wanted, rel=0.4)
