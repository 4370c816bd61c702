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
