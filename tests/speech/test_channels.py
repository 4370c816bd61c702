"""Simulated channels: what passes, what does not, and that chance is drawn from the generator alone."""

import io
from types import SimpleNamespace

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


def test_what_each_channel_hands_to_its_codec(wide, monkeypatch):
    """Which encoder, in which file, at which rates; the rates of a mobile telephone are drawn."""
    sent = []
    monkeypatch.setattr(channels, "through_codec", lambda samples, *given: sent.append((len(samples), *given)))
    for seed in range(12):
        channels.mobile(wide[:1600], np.random.default_rng(seed))
    assert set(sent) == {(800, "libopencore_amrnb", "3gp", rate, 8_000) for rate in (5_900, 7_950, 12_200)}
    sent.clear()
    channels.opus(wide, np.random.default_rng(0))
    channels.mp3(wide, np.random.default_rng(0))
    assert sent == [(32_000, "libopus", "ogg", 12_000), (32_000, "libmp3lame", "mp3", 24_000)]


def test_a_codec_writes_at_the_rates_that_it_is_told(wide, monkeypatch):
    seen = []

    def decode(data):
        with channels.av.open(io.BytesIO(data)) as file:
            (stream,) = file.streams.audio
            seen.append((stream.codec_context.name, stream.rate, file.format.name, len(data)))
        return SimpleNamespace(samples=None)

    monkeypatch.setattr(channels.audio, "decode", decode)
    for bit_rate in (16_000, 64_000):
        channels.through_codec(wide, "libmp3lame", "mp3", bit_rate)
        channels.through_codec(wide[:16_000], "aac", "adts", bit_rate, 8_000)  # two seconds at this rate
    assert [one[:3] for one in seen] == [("mp3float", 16_000, "mp3"), ("aac", 8_000, "aac")] * 2
    assert 4_000 <= seen[0][3] < 6_000 and 16_000 <= seen[2][3] < 20_000 and seen[3][3] > 2 * seen[1][3]


def test_the_two_laws_of_a_fixed_line_are_drawn_and_its_band_is_its_own(wide, monkeypatch):
    drawn, bands = [], []
    for name in ("_mu_law", "_a_law"):
        monkeypatch.setattr(channels, name, lambda x, name=name: drawn.append((name, np.abs(x).max() <= 1)) or x)
    banded = channels._banded
    monkeypatch.setattr(channels, "_banded", lambda samples, *band: bands.append(band) or banded(samples, *band))
    for seed in range(8):
        channels.telephone(wide[:1600], np.random.default_rng(seed))
    assert set(drawn) == {("_mu_law", True), ("_a_law", True)} and set(bands) == {()}
    monkeypatch.setattr(channels, "through_codec", lambda *_: None)
    channels.mobile(wide[:1600], np.random.default_rng(0))
    assert bands[-1] == ((150.0, 3600.0),) and channels.BAND == (300.0, 3400.0)


def test_the_table_of_channels_written_out(monkeypatch):
    known = channels.CHANNELS
    assert len(known) == 10 and known["own_telephone"] is channels.telephone
    for name in ("clean", "telephone", "mobile", "opus", "mp3", "room"):
        assert known[name] is getattr(channels, name)
    levels = []
    monkeypatch.setattr(channels, "_as_loud", lambda mixed, speech: levels.append(np.mean((mixed - speech) ** 2)))
    for name in ("noise_20", "noise_10", "noise_0"):
        known[name](np.int16([1000, -1000] * 800), np.random.default_rng(0))
    assert levels == pytest.approx([1e4, 1e5, 1e6])


def test_loudness_is_kept_unless_that_would_clip():
    like = np.int16([1000, -1000] * 4)
    assert channels._as_loud(np.array([3.0, -3.0] * 4), like).tolist() == like.tolist()
    peaked = np.array([8.0, *[0.0] * 99])
    assert channels._as_loud(peaked, np.int16([9000] * 100)).max() == 32767
    assert channels._as_loud(np.zeros(8), like).tolist() == [0] * 8


def test_an_uneven_response_is_smooth_and_drawn_in_decibels(monkeypatch):
    click = np.zeros(16_000)
    click[0] = 1
    gains = 20 * np.log10(np.abs(np.fft.rfft(channels._uneven(click, np.random.default_rng(3)))))
    drawn = np.random.default_rng(3).normal(0, 4.0, 8)  # at 64, 128, ... 8192 Hz
    assert gains[[64, 128, 512, 4096]] == pytest.approx(drawn[[0, 1, 3, 6]], abs=1e-6)
    assert gains[0] == pytest.approx(drawn[0]) and np.abs(np.diff(gains[1000:])).max() < 0.05


def test_a_room_has_the_decay_and_the_direct_sound_that_it_draws():
    """60 dB in the time drawn first; the rest of it as far below the direct sound as is drawn last."""
    click = np.zeros(16_000, np.int16)
    click[0] = 20_000
    rng = np.random.default_rng(5)
    decay = rng.uniform(0.3, 0.8)
    rng.normal(size=int(decay * RATE))
    below = rng.uniform(0, 6)
    heard = channels.room(click, np.random.default_rng(5)).astype(float)
    rest = np.sum(heard[1:] ** 2) / heard[0] ** 2
    assert 10 * np.log10(rest) == pytest.approx(-below, abs=0.05)
    assert not heard[1:32].any() and heard[32:100].any() and not heard[int(decay * RATE) :].any()
    early, late = (np.mean(heard[at : at + 800] ** 2) for at in (400, 400 + int(decay * RATE / 3)))
    assert 10 * np.log10(early / late) == pytest.approx(20, abs=2)
