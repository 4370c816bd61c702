"""What speech went through is measured from its samples."""

import zipfile

import numpy as np
import pytest

from sv_utils import corpora
from sv_utils.speech import archives, audio, channels
from sv_utils.voices import conditions, recordings

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """Real recordings of seven voices, all wide and quiet, int16."""
    corpus = corpora.get("mini")
    parts = [corpus.bundled / file for file, _ in corpus.remotes[1].parts]
    with zipfile.ZipFile(archives.open_parts(parts)) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".wav")]
        return [audio.decode(archive.read(name)).samples for name in names[::5][:8] if "menardi" not in name]


def measured(speech, channel, field):
    """A condition of each recording after a channel, the smallest first."""
    sent = [channels.CHANNELS[channel](samples, np.random.default_rng(k)) for k, samples in enumerate(speech)]
    return sorted(getattr(conditions.measure(samples), field) for samples in sent)


def test_a_telephone_is_heard_in_a_file_of_16_khz(speech):
    assert all(band >= 5000 for band in measured(speech, "clean", "bandwidth"))
    for channel in ("telephone", "mobile"):
        assert all(3000 <= band <= conditions.NARROW for band in measured(speech, channel, "bandwidth")), channel
    assert all(band <= 6250 for band in measured(speech, "mp3", "bandwidth"))
    assert conditions.measure(channels.telephone(speech[0], np.random.default_rng(0))).narrow
    assert not conditions.measure(speech[0]).narrow


def test_the_louder_the_noise_the_lower_its_figure(speech):
    middles = [np.median(measured(speech, channel, "noise")) for channel in ("noise_20", "noise_10", "noise_0")]
    assert middles[0] - middles[1] > 6 and middles[1] - middles[2] > 6 and 5 < middles[2] < 18


def test_mp3_leaves_holes_and_a_room_decays_slowly(speech):
    assert np.median(measured(speech, "mp3", "holes")) > np.median(measured(speech, "opus", "holes"))
    assert np.median(measured(speech, "room", "decay")) > 0.3 > np.median(measured(speech, "clean", "decay"))


def test_clipping_is_seen_though_it_was_made_quieter_afterwards(speech):
    loud = np.clip(speech[0].astype(float) * 20, -20_000, 20_000).astype(np.int16)
    assert conditions.measure(loud).clipped > 0.05 > 0.001 > conditions.measure(speech[0]).clipped
    assert conditions.measure(loud // 4).clipped > 0.05


def whispered(samples):
    """Noise with the loudness of speech."""
    level = np.sqrt(np.convolve(np.square(samples.astype(float)), np.ones(320) / 320, "same"))
    return (level * np.random.default_rng(0).uniform(-1, 1, len(samples))).astype(np.int16)


def test_speech_has_a_pitch_and_whispering_has_none(speech):
    told = [(conditions.voiced(samples), conditions.voiced(whispered(samples))) for samples in speech]
    assert all(spoken > 0.4 > recordings.WHISPERED > 0.1 > breathed for spoken, breathed in told)
    tone = np.sin(2 * np.pi * 110 * np.arange(RATE) / RATE) * 9000
    assert conditions.voiced(tone.astype(np.int16)) == 1.0 == conditions.voiced(tone[:600].astype(np.int16))
    low = np.sin(2 * np.pi * 80 * np.arange(RATE) / RATE) * 9000  # the window leaves 0.52 of it, a period on
    assert conditions.voiced(low.astype(np.int16)) == 1.0


def test_of_next_to_nothing_only_the_length_is_told():
    found = conditions.measure(np.zeros(800, np.int16)).as_dict()
    assert found.pop("speech_seconds") == 0.05 and set(found.values()) == {0.0}
    assert set(conditions.measure(np.zeros(RATE, np.int16)).as_dict()) == {"speech_seconds", *found}


def made(highest=8000.0, floor=3.0, most=32_767, hole=False):
    """Noise that dies away every 0.4 s, up to some frequency, over a background; flat above a level; with a gap."""
    rng, time = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    spectrum, frequency = np.fft.rfft(rng.normal(size=3 * RATE)), np.fft.rfftfreq(3 * RATE, 1 / RATE)
    spectrum[(frequency > highest) | (hole & (frequency > 2000) & (frequency < 2600))] = 0
    sound = np.fft.irfft(spectrum) * np.exp(-12 * (time % 0.4)) * 8000
    return np.clip(sound + floor * rng.normal(size=len(time)), -most, most).astype(np.int16)


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ({}, (8000, 34.2365, 0, 0, 0.4985)),
        ({"highest": 3400.0}, (3500, 34.1447, 0, 0, 0.4936)),
        ({"highest": 6000.0, "floor": 300.0}, (6250, 25.6974, 0, 0, 0.5159)),
        ({"most": 6000}, (8000, 31.0718, 0.0057, 0, 0.5056)),
        ({"hole": True, "floor": 0.0}, (8000, 33.8869, 0, 0.0057, 0.4962)),
    ],
)
def test_what_is_shipped_of_an_encoder_was_fitted_on_these_very_measures(change, measured):
    """Changed ones would belong to no calibration of today: `sv calibrate` makes it anew."""
    found = conditions.measure(made(**change))
    names = ("speech_seconds", "bandwidth", "noise", "clipped", "holes", "decay")
    assert list(found.as_dict()) == list(names)
    assert found.as_dict() == pytest.approx(dict(zip(names, (3, *measured))), abs=1e-4, rel=1e-4)


def test_of_the_louder_half_the_frames_with_a_pitch_are_counted():
    """A tone that rises from 70 Hz, in noise, at four levels: so many of its frames have a peak of 0.6."""
    time = np.arange(4 * RATE) / RATE
    tone = np.sin(2 * np.pi * (70 + 80 * time) * time) * 9000
    noise = np.random.default_rng(1).normal(size=len(time)) * 5500
    sound = ((tone + noise) * np.repeat([0.1, 0.5, 1.0, 0.2], RATE)).astype(np.int16)
    assert conditions.voiced(sound) == pytest.approx(0.76, abs=0.006)  # half a frame of 100
