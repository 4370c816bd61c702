"""Augmentation: ratios, spectra and rooms as asked for, the telephone's law, sources with and without corpora."""

from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.speech.reader import Speech
from sv_utils.training import augment
from sv_utils.training.augment import OFF, Augmentation


def store(folder, waveforms, speakers):
    """Give an open store of int16 waveforms."""
    lengths = [len(waveform) for waveform in waveforms]
    np.concatenate(waveforms).astype("<i2").tofile(folder / "shard.pcm")
    table = pd.DataFrame({"shard": "shard.pcm", "offset": np.cumsum([0, *lengths[:-1]]), "samples": lengths})
    return Speech(table.assign(speaker=speakers), folder)


def tone(frequency, samples, amplitude=0.25):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(samples) / 16000)).astype(np.float32)


def strongest(waveform):
    """Frequency of the highest peak [Hz]."""
    return np.abs(np.fft.rfft(waveform)).argmax() * 16000 / len(waveform)


@pytest.fixture
def speech(tmp_path):
    """Voices of 700, 800, … 1200 Hz."""
    return store(tmp_path, [32768 * tone(700 + 100 * i, 12000) for i in range(6)], list("aabbcc"))


@pytest.fixture
def musan(tmp_path):
    """Kinds told apart by their pitch: noise 2 kHz, music 3 kHz, speech 4 kHz."""
    (folder := tmp_path / "musan").mkdir()
    waveforms = [32768 * tone(frequency, 5000) for frequency in (2000, 3000, 4000)]
    return store(folder, waveforms, ["noise", "music", "speech"])


def only(kind, **ranges):
    return {**OFF, kind: 1.0, **ranges}


CROPS = np.stack([tone(440, 8000), tone(550, 8000)])


def test_off_changes_nothing(speech):
    np.testing.assert_array_equal(Augmentation(OFF, speech)(CROPS, np.random.default_rng(0)), CROPS)


def test_dither_is_white_noise_of_so_many_steps_of_int16(speech):
    silence = np.zeros((1, 16_000), np.float32)
    dithered = Augmentation({**OFF, "dither": 2.0}, speech)(silence, np.random.default_rng(0))
    assert dithered.dtype == np.float32
    assert 32768 * dithered.std() == pytest.approx(2, rel=0.03)
    halves = np.array_split(np.abs(np.fft.rfft(dithered[0])) ** 2, 2)
    assert halves[0].mean() == pytest.approx(halves[1].mean(), rel=0.1)


@pytest.mark.parametrize(("kind", "frequency"), [("noise", 2000), ("music", 3000), ("babble", 4000)])
def test_musan_is_added_at_the_ratio_asked_for(speech, musan, kind, frequency):
    augmentation = Augmentation(only(kind, **{f"{kind}_snr": [7.0, 7.0], "babble_voices": [4, 4]}), speech, musan)
    for crop, augmented in zip(CROPS, augmentation(CROPS, np.random.default_rng(0))):
        added = augmented - crop
        assert 10 * np.log10(np.mean(crop**2) / np.mean(added**2)) == pytest.approx(7.0, abs=1e-3)
        assert strongest(added) == pytest.approx(frequency, abs=4)
        assert augmented.dtype == np.float32


def test_without_musan_babble_is_made_of_training_voices_and_noise_is_coloured(speech):
    rng = np.random.default_rng(0)
    added = Augmentation(only("babble", babble_voices=[2, 2]), speech)(CROPS, rng)[0] - CROPS[0]
    spectrum = np.abs(np.fft.rfft(added[:8000]))
    peaks = set((np.flatnonzero(spectrum > 0.3 * spectrum.max()) * 2).tolist())
    assert peaks <= set(range(700, 1201, 100)) and peaks
    noise = Augmentation(only("noise", noise_snr=[0.0, 0.0]), speech)(CROPS, rng) - CROPS
    assert np.mean(noise**2, axis=1) == pytest.approx(np.mean(CROPS**2, axis=1), rel=1e-4)
    with pytest.raises(RequestError, match="needs the corpus musan"):
        Augmentation(only("music"), speech)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_its_exponent_says(exponent):
    noise = augment.coloured_noise(160_000, exponent, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[1000:2000].mean(), power[10_000:20_000].mean()  # a decade apart
    assert np.log10(low / high) == pytest.approx(exponent, abs=0.05)
    assert np.mean(noise**2) == pytest.approx(1, rel=1e-3)


def test_silence_stays_silent(speech):
    silent = np.zeros((1, 8000), np.float32)
    for kind in ("noise", "babble", "reverberation", "telephone", "clipping"):
        augmented = Augmentation(only(kind), speech)(silent, np.random.default_rng(0))
        assert np.abs(augmented).max() < 1e-3, kind


@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_a_simulated_room_decays_by_60_db_in_its_time(seconds):
    """Schroeder's backward integration: from -5 to -35 dB takes half of the reverberation time."""
    times, ratios = [], []
    for seed in range(20):
        response = augment.simulated_response(seconds, np.random.default_rng(seed), direct=(3.0, 3.0))
        assert response[0] == 1 and len(response) == 16000 * seconds
        ratios.append(10 * np.log10(1 / np.sum(response[1:] ** 2)))
        energy = np.cumsum(response[:0:-1] ** 2)[::-1]
        level = 10 * np.log10(energy / energy[0])
        times.append(2 * ((level > -35).sum() - (level > -5).sum()) / 16000)
    assert np.mean(times) == pytest.approx(seconds, rel=0.05)
    assert ratios == pytest.approx([3.0] * 20, abs=1e-3)


def test_reverberation_is_convolution_from_the_direct_sound_on():
    """An echo of half the amplitude 10 samples after the direct sound, which itself comes 5 samples late."""
    response = np.zeros(30, np.float32)
    response[[5, 15]] = 2.0, 1.0
    crop = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    wet = crop.copy()
    wet[10:] += 0.5 * crop[:-10]
    wet *= np.sqrt(np.mean(crop**2) / np.mean(wet**2))
    np.testing.assert_allclose(augment.reverberate(crop, response), wet, atol=1e-5)


def test_rooms_come_from_their_corpus(speech, tmp_path):
    (folder := tmp_path / "rooms").mkdir()
    impulse = np.zeros(20)
    impulse[3] = 9000
    rooms = store(folder, [impulse, 9000 * tone(900, 500)], ["largeroom", "pointsource_noises"])
    crops = np.tile(CROPS, (5, 1))
    augmented = Augmentation(only("reverberation"), speech, responses=rooms)(crops, np.random.default_rng(0))
    np.testing.assert_allclose(augmented, crops, atol=1e-5)
    assert augmented.dtype == np.float32


def test_mu_law_is_that_of_a_codec():
    """Each int16 value coded and decoded by FFmpeg's pcm_mulaw."""
    values = np.arange(-32768, 32768).astype("<i2")
    encoder, decoder = av.CodecContext.create("pcm_mulaw", "w"), av.CodecContext.create("pcm_mulaw", "r")
    for context in (encoder, decoder):
        context.sample_rate, context.layout, context.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = [packet for part in (frame, None) for packet in encoder.encode(part)]
    decoded = np.concatenate([f.to_ndarray()[0] for packet in packets for f in decoder.decode(packet)])
    found = (32768 * augment._mu_law()).astype(int)
    assert set(found.tolist()) == set(decoded.tolist()) and augment._mu_law().dtype == np.float32
    assert (found == decoded).mean() > 0.98, "they differ at most on which side of a step its edges fall"
    assert np.abs(np.searchsorted(np.unique(found), found) - np.searchsorted(np.unique(found), decoded)).max() == 1


@pytest.mark.parametrize(("frequency", "gain"), [(100, 0.0), (400, 1.0), (3000, 1.0), (5000, 0.0)])
def test_a_telephone_passes_its_band(frequency, gain):
    sound = tone(frequency, 8000)
    heard = augment.telephone(sound)
    assert heard.shape == sound.shape and heard.dtype == np.float32
    assert heard @ sound / (sound @ sound) == pytest.approx(gain, abs=0.02)
    if gain:
        noise = heard - sound
        assert 30 < 10 * np.log10(np.mean(sound**2) / np.mean(noise**2)) < 45  # mu-law: about 38 dB


def test_clipping_takes_the_fraction_asked_for():
    crop = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    clipped = augment.clip(crop, 0.03)
    assert (np.abs(clipped) == np.abs(clipped).max()).mean() == pytest.approx(0.03, abs=0.001)
    np.testing.assert_array_equal(clipped[np.abs(crop) < 1], crop[np.abs(crop) < 1])


def test_gain_in_decibels(speech):
    augmented = Augmentation({**OFF, "gain": [-6.0, -6.0]}, speech)(CROPS, np.random.default_rng(0))
    np.testing.assert_allclose(augmented, CROPS * 10 ** (-6 / 20), rtol=1e-5)


def test_surroundings_come_as_often_as_asked_for_and_one_at_a_time(speech, musan):
    settings = {**OFF, "noise": 0.2, "music": 0.1, "babble": 0.3, "noise_snr": [0.0, 0.0], "babble_snr": [0.0, 0.0]}
    augmentation = Augmentation({**settings, "music_snr": [0.0, 0.0]}, speech, musan)
    crops = np.tile(CROPS[:1], (2000, 1))[:, :800]
    peaks = [strongest(crop) if crop.any() else 0 for crop in augmentation(crops, np.random.default_rng(0)) - crops]
    for frequency, share in ((2000, 0.2), (3000, 0.1), (4000, 0.3), (0, 0.4)):
        assert np.mean(np.abs(np.array(peaks) - frequency) < 50) == pytest.approx(share, abs=0.04)


def test_the_same_generator_gives_the_same_crops(speech):
    settings = {**OFF, "noise": 0.3, "babble": 0.3, "reverberation": 0.4, "telephone": 0.5, "clipping": 0.5}
    augmentation = Augmentation({**settings, "gain": [-9.0, 3.0]}, speech)
    first, second = (augmentation(CROPS, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - augmentation(CROPS, np.random.default_rng(8))).max() > 0.01


def test_examples_show_each_kind_by_itself(speech, musan):
    kinds = ["original", "noise", "babble", "reverberation", "telephone", "clipping"]
    crop = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert list(augment.examples(Augmentation(OFF, speech), crop)) == kinds
    shown = augment.examples(Augmentation({**OFF, "gain": [3.0, 3.0]}, speech, musan), crop)
    assert list(shown) == [*kinds[:2], "music", *kinds[2:]]
    assert [kind for kind in shown if np.abs(shown[kind] - crop).max() < 0.01] == ["original"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nois": 0.5}, r"augmentation\.nois is unknown \(did you mean 'noise'\?\)"),
        ({"dither": -1.0}, r"augmentation\.dither is a deviation of 0 to 100 steps"),
        ({"dither": 101.0}, r"augmentation\.dither is a deviation of 0 to 100 steps"),
        ({"noise": 1.5}, r"augmentation\.noise is a probability"),
        ({"noise": 0.6, "babble": 0.6}, "must sum to 1 at most"),
        ({"noise_snr": [9.0, 3.0]}, r"augmentation\.noise_snr must be \[least, most\]"),
        ({"babble_voices": [0, 3]}, r"augmentation\.babble_voices must lie within"),
        ({"clipped": [0.5, 1.5]}, r"augmentation\.clipped must lie within"),
    ],
)
def test_settings_that_cannot_be_are_refused(speech, change, message):
    with pytest.raises(RequestError, match=message):
        Augmentation({**OFF, **change}, speech)


# What random faults showed to be held by nothing


def test_babble_is_of_as_many_voices_as_asked_for_and_all_equally_loud(tmp_path, monkeypatch):
    loudness = (0.02, 0.1, 0.5)
    speech = store(tmp_path, [32768 * tone(800 + 400 * i, 8000, a) for i, a in enumerate(loudness)], list("abc"))
    babble = Augmentation(only("babble", babble_voices=[2, 3], babble_snr=[0.0, 0.0]), speech)
    counts, draw = [], augment._excerpts

    def noted(source, rows, count, *rest):
        counts.append(int(count))
        return draw(source, rows, count, *rest)

    monkeypatch.setattr(augment, "_excerpts", noted)
    apart = 0
    for seed in range(40):
        spectrum = np.abs(np.fft.rfft(babble._babble(8000, np.random.default_rng(seed))))[[400, 600, 800]]
        peaks = spectrum[spectrum > 100]
        if len(peaks) == counts[-1]:  # each voice is another
            apart += 1
            assert peaks == pytest.approx(np.full(len(peaks), peaks[0]), rel=0.02)
    assert set(counts) == {2, 3} and apart >= 10


def test_noise_without_musan_is_of_any_colour_from_white_to_brown(speech, monkeypatch):
    drawn = []
    monkeypatch.setattr(augment, "coloured_noise", lambda n, exponent, rng: drawn.append(exponent) or np.ones(n))
    Augmentation(only("noise"), speech)(np.tile(CROPS, (100, 1)), np.random.default_rng(0))
    assert 0 <= min(drawn) < 0.1 and 1.9 < max(drawn) <= 2


@pytest.mark.parametrize("samples", [801, 8000])
def test_coloured_noise_has_the_length_asked_for_and_no_two_are_alike(samples):
    one, other = (augment.coloured_noise(samples, 1.0, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == (samples,) and abs(np.corrcoef(one, other)[0, 1]) < 0.5
    assert 0.4 < np.corrcoef(one[1:], one[:-1])[0, 1] < 0.95, "pink: between white and brown"


def test_a_simulated_room_rings_at_random_after_a_silence_of_2_5_ms():
    one, other = (augment.simulated_response(0.3, np.random.default_rng(seed), (0.0, 0.0)) for seed in (0, 1))
    assert (one[1:40] == 0).all() and (one[40:] != 0).mean() > 0.99
    assert np.mean(one[40:] > 0) == pytest.approx(0.5, abs=0.05) and abs(np.corrcoef(one[40:], other[40:])[0, 1]) < 0.1
    assert one.dtype == np.float32


def test_the_edges_of_a_telephones_band():
    gains = augment._telephone_band(np.array([0, 200, 250, 300, 1000, 3400, 3650, 3900, 8000]) / 16000)
    np.testing.assert_allclose(gains, [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0], atol=1e-3)


def test_a_telephone_limits_what_is_too_loud_for_it():
    sound = tone(1000, 8000, amplitude=3.0)
    heard = augment.telephone(sound)
    assert heard @ sound / np.sqrt((heard @ heard) * (sound @ sound)) > 0.95
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.85, abs=0.05), "cut at 1, where a sine of 3 has 2.1"


def test_examples_are_drawn_by_their_seed_with_the_settings_of_the_training(speech):
    crop = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    made = Augmentation({**OFF, "noise_snr": [40.0, 40.0], "telephone": 1.0}, speech)
    first, again = (augment.examples(made, crop) for _ in range(2))
    assert all(np.array_equal(first[kind], again[kind]) for kind in first)
    by_0, by_1 = (augment.examples(made, crop, seed)["noise"] for seed in (0, 1))
    assert np.array_equal(first["noise"], by_0) and not np.array_equal(by_0, by_1)
    added = first["noise"] - crop
    assert 10 * np.log10(np.mean(crop**2) / np.mean(added**2)) == pytest.approx(40, abs=0.1)


def test_excerpts_come_from_anywhere_in_their_source(tmp_path):
    source = store(tmp_path, [np.arange(1000), np.arange(50)], ["a", "a"])
    starts = {
        int(np.rint(32768 * augment._excerpts(source, [0], 1, 997, np.random.default_rng(s))[0, 0])) for s in range(60)
    }
    assert starts == {0, 1, 2, 3}
    short = np.rint(32768 * augment._excerpts(source, [1], 1, 80, np.random.default_rng(0))[0]).astype(int)
    assert short.tolist() == [*range(50), *range(30)]
    assert augment._excerpts(source, [1], 1, 80, np.random.default_rng(0))[0, 1] == 1 / 32768


def test_white_noise_is_white_up_to_the_highest_frequency():
    spectrum = np.fft.rfft(augment.coloured_noise(60_000, 0.0, np.random.default_rng(0)))[1:-1]
    power = np.abs(spectrum) ** 2
    assert power[-10_000:].mean() / power[:10_000].mean() == pytest.approx(1, abs=0.05)
    assert power[-50:].mean() / power.mean() == pytest.approx(1, abs=0.5)
    assert spectrum.real.var() / spectrum.imag.var() == pytest.approx(1, abs=0.05)


EDGES = {"babble_voices": [1, 100], "reverberation_time": [0.01, 10.0], "clipped": [0.0, 1.0]}


def test_settings_at_the_edges_are_taken_and_those_beyond_refused():
    augment.check({**OFF, **EDGES, "noise": 0.5, "babble": 0.5, "dither": 100.0})
    for key, beyond in (("babble_voices", [1, 101]), ("reverberation_time", [0.01, 10.5]), ("clipped", [-0.1, 1.0])):
        with pytest.raises(RequestError, match=rf"augmentation\.{key} must lie within"):
            augment.check({**OFF, **EDGES, key: beyond})


def test_what_is_switched_off_happens_at_no_draw_and_draws_nothing(speech):
    lowest = SimpleNamespace(random=lambda: 0.0, uniform=lambda least, most: least)  # and no noise
    np.testing.assert_array_equal(Augmentation(OFF, speech)(CROPS, lowest), CROPS)


def test_what_is_silent_divides_nothing(tmp_path):
    silent = store(tmp_path, [np.zeros(500)], ["a"])
    assert (Augmentation(OFF, silent)._babble(400, np.random.default_rng(0)) == 0).all()
    np.testing.assert_array_equal(augment.add(CROPS[0], np.zeros(8000, np.float32), 0.0), CROPS[0])
    assert augment.simulated_response(0.002, np.random.default_rng(0)).tolist() == [1] + [0] * 31
    assert (augment.reverberate(CROPS[0], np.zeros(9, np.float32)) == 0).all()


@pytest.mark.parametrize("kind", ["noise", "music"])
def test_a_sound_of_musan_takes_the_draws_of_one_excerpt(speech, musan, kind):
    augmentation = Augmentation(OFF, speech, musan)
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    sound = getattr(augmentation, f"_{kind}")(800, rng)
    rows = [["noise", "music"].index(kind)]
    np.testing.assert_array_equal(sound, augment._excerpts(musan, rows, 1, 800, again)[0])
    assert rng.bit_generator.state == again.bit_generator.state


def test_sounds_are_added_written_out():
    crop, sound = np.array([1, -1, 1, -1], np.float32), np.array([2, 2, -2, -2], np.float32)
    assert augment.add(crop, sound, 0.0).tolist() == [2, 0, 0, -2]


def test_dither_of_full_scale_is_the_draw_itself():
    dithered = augment.dithered(np.zeros(9, np.float32), 32768.0, np.random.default_rng(0))
    np.testing.assert_array_equal(dithered, np.random.default_rng(0).standard_normal(9, dtype=np.float32))


def test_coloured_noise_has_every_frequency_in_the_precision_of_a_crop():
    noise = augment.coloured_noise(8, 0.0, np.random.default_rng(0))
    assert noise.dtype == np.float32 and (np.abs(np.fft.rfft(noise)) > 1e-2).all()


def test_the_direct_sound_of_a_simulated_room_is_3_db_below_to_12_db_above_its_ringing():
    asked = []
    uniform = lambda least, most: asked.append((least, most)) or 0.0  # noqa: E731
    rng = SimpleNamespace(standard_normal=lambda samples, dtype: np.ones(samples, dtype), uniform=uniform)
    augment.simulated_response(0.1, rng)
    assert asked == [(-3.0, 12.0)]


def test_the_direct_sound_is_the_largest_of_either_sign():
    np.testing.assert_allclose(augment.reverberate(CROPS[0], np.array([0, 0.1, -1, 0.0])), -CROPS[0], atol=0.03)
    assert np.corrcoef(augment.reverberate(CROPS[0], np.array([0, 0, -1, 0.1])), -CROPS[0])[0, 1] > 0.999


def test_a_telephone_has_the_levels_of_int16(monkeypatch):
    monkeypatch.setattr(augment.signal, "resample", lambda crop, samples, **_: crop)
    monkeypatch.setattr(augment, "_mu_law", lambda: np.arange(-32768, 32768))
    levels = [-40_000, -32_768, -20_000, 0, 20_000, 32_767, 40_000]
    heard = augment.telephone(np.array(levels) / 32768)
    assert heard.tolist() == [-32_768, -32_768, -20_000, 0, 20_000, 32_767, 32_767]


def test_clipping_written_out():
    crop = np.array([0.1, -0.5, 0.2, 0.4, -0.3])
    assert augment.clip(crop, 0.5).tolist() == [0.1, -0.3, 0.2, 0.3, -0.3]
    assert augment.clip(crop, 0.0).tolist() == crop.tolist()
