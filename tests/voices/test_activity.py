"""Speech is found and everything else is not: the detector's numbers, and what silence around speech changes."""

import itertools
import zipfile

import numpy as np
import pytest

from sv_utils import corpora
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import pretrained
from sv_utils.speech import archives, audio, channels
from sv_utils.voices import activity

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """Six real recordings of four voices, int16."""
    corpus = corpora.get("mini")
    parts = [corpus.bundled / file for file, _ in corpus.remotes[1].parts]
    with zipfile.ZipFile(archives.open_parts(parts)) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".wav") and "klettres" not in name]
        return [audio.decode(archive.read(name)).samples for name in names[::3][:6]]


@pytest.fixture(scope="module", autouse=True)
def weights():
    """The detector's weights, fetched if they are not there."""
    try:
        return activity.weights()
    except WorkError as error:
        pytest.skip(f"no weights: {error}")


def without_speech():
    """Name and waveform of 10 s of what is no speech."""
    time, rng = np.arange(10 * RATE) / RATE, np.random.default_rng(0)
    for slope in (-1.0, 0.0, 1.0, 2.0):
        for level in (30, 3000):
            yield f"noise {slope} at {level}", level * channels.coloured(len(time), slope, rng)
    for frequency in (50, 220, 1000, 3000):
        yield f"tone of {frequency} Hz", 8000 * np.sin(2 * np.pi * frequency * time)
    yield "hum", 2000 * sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 20))
    yield "beeps", 8000 * np.sin(2 * np.pi * 800 * time) * (time % 1 < 0.5)
    yield "sweep", 8000 * np.sin(2 * np.pi * (100 * time + 200 * time**2))
    yield "chord", 2000 * sum(np.sin(2 * np.pi * f * time) for f in (262, 330, 392)) * np.exp(-3 * (time % 0.5))
    yield "direct current", np.full(len(time), 9000.0)
    yield "muted", np.zeros(len(time))


@pytest.mark.parametrize(
    ("name", "samples"), list(without_speech()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_no_speech_has_no_stretch(name, samples):
    assert activity.segments(np.clip(samples, -32768, 32767).astype(np.int16)) == [], name


def test_the_probabilities_are_those_of_onnx_runtime(speech):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(pretrained.member(activity.WEIGHTS, activity.MEMBER_SHA256))
    samples, wanted = speech[0].astype(np.float32) / 32768, []
    for offset in (0, 128, 256, 384):  # four grids of hops, and in each 128 samples the mean of what they say
        before = 32 * 512 + offset  # it begins after a second of silence
        padded, state, said = np.pad(samples, (64 + before, 512)), np.zeros((2, 1, 128), np.float32), []
        for start in range(0, before + len(samples), 512):
            given = {"input": padded[None, start : start + 576], "state": state, "sr": np.array(RATE)}
            probability, state = session.run(None, given)
            said += [probability[0, 0]] * 4
        wanted.append(said[before // 128 :][: -(-len(samples) // 128)])
    np.testing.assert_allclose(activity.probabilities(speech[0]), np.mean(wanted, axis=0), atol=1e-5)


def test_blocks_leave_no_seam(speech, monkeypatch):
    whole = activity.probabilities(speech[0])
    monkeypatch.setattr(activity, "BLOCK", 7)
    np.testing.assert_allclose(activity.probabilities(speech[0]), whole, atol=1e-6)


@pytest.mark.parametrize("block", [4096, 50])
def test_after_three_seconds_without_speech_the_detector_begins_anew(speech, monkeypatch, block):
    monkeypatch.setattr(activity, "BLOCK", block)
    words, noise = speech[0][: 20 * 512], np.random.default_rng(0).normal(0, 30, 192 * 512).astype(np.int16)
    noise[-512:] = 0  # of which the first hop of the words hears the end
    alone, later, sooner = (
        activity.probabilities(np.concatenate([noise[len(noise) - hops * 512 :], words]))[4 * hops :]
        for hops in (0, 192, 191)
    )
    np.testing.assert_allclose(later, alone, atol=1e-6)
    assert np.abs(sooner - alone).max() > 1e-3


def test_no_samples_have_no_speech():
    assert activity.segments(np.zeros(0, np.int16)) == []
    assert activity.segments(np.zeros(100, np.int16)) == []
    assert len(activity.joined(np.zeros(100, np.int16), [])) == 0


def test_a_run_begins_above_one_probability_and_ends_below_a_lower_one():
    sure = [0.95] * 48
    probability = np.array([0.4, 0.6, *sure, 0.4, 0.3, 0.45, 0.1])
    assert activity.stretches(probability) == [(128, 51 * 128)]


def test_short_pauses_are_bridged_and_long_ones_part():
    word = [0.95] * 48
    assert activity.stretches(np.array(word + [0.0] * 75 + word)) == [(0, 171 * 128)]  # 0.6 s
    assert activity.stretches(np.array(word + [0.0] * 76 + word)) == [(0, 48 * 128), (124 * 128, 172 * 128)]  # 0.608 s


def test_what_is_never_sure_is_no_speech():
    assert activity.stretches(np.array([0.8] * 240)) == []
    assert activity.stretches(np.array([0.95] * 39 + [0.8] * 240)) == []
    assert activity.stretches(np.array([0.95] * 40 + [0.8] * 240)) == [(0, 280 * 128)]
    word, long = [0.95] * 8 + [0.8] * 12, [0.95] * 40  # of each stretch, 64 ms
    assert len(activity.stretches(np.array(word + [0.0] * 76 + long))) == 2
    assert len(activity.stretches(np.array(word[1:] + [0.0] * 76 + long))) == 1


def test_what_lasts_less_than_160_ms_is_no_speech():
    long = [0.0] * 76 + [0.95] * 40
    assert activity.stretches(np.array([0.95] * 20 + long)) == [(0, 2560), (96 * 128, 136 * 128)]
    assert activity.stretches(np.array([0.95] * 19 + long)) == [(95 * 128, 135 * 128)]


def test_parts_and_frames_are_counted_from_the_loudest_sample_and_segments_from_the_first(monkeypatch):
    monkeypatch.setattr(activity, "probabilities", lambda samples, louder: np.full(len(samples) // 128, 0.9))
    samples = np.full(8000, 200, np.int16)
    samples[1000] = -300  # 280 before the next multiple of 640, so that much silence comes before all
    found, (hearing, *_) = activity.heard(samples)
    assert found == [(0, 7720)] and activity.segments(samples) == found  # 25 whole frames
    assert np.array_equal(hearing, np.concatenate([np.zeros(280, np.int16), samples[:7720]]))


def loud_from(samples, *spans):
    for start, end in spans:
        samples[start:end:2], samples[start + 1 : end : 2] = 3000, -3000
    return samples


def test_ends_are_where_the_energy_rises_and_falls():
    samples = loud_from(np.full(RATE, 10, np.int16), (4000, 12_000))  # 50 dB below
    assert activity.refined(samples, [(4608, 11_264)]) == [(3840 - 640, 12_160 + 640)]  # frames of 20 ms, and two
    assert activity.refined(samples, [(0, RATE)]) == [(3200, 12_800)]
    assert activity.refined(samples, [(0, RATE)], 30.0, 4) == [(2560, 13_440)]
    assert activity.refined(samples, []) == []


def test_of_a_pause_40_ms_are_kept_on_either_side_and_of_digital_silence_nothing():
    samples = loud_from(np.full(2 * RATE, 10, np.int16), (4800, 9600), (10_240, 16_000), (24_000, 28_160))
    assert activity.refined(samples, [(4608, 28_160)]) == [(4160, 16_640), (23_360, 28_800)]
    samples[np.abs(samples) == 10] = 0
    assert activity.refined(samples, [(4608, 28_160)]) == [(4800, 9600), (10_240, 16_000), (24_000, 28_160)]


def test_the_second_hearing_keeps_only_what_is_louder_with_more_beside_it_and_begins_half_a_step_later(monkeypatch):
    samples = loud_from(np.full(2 * RATE, 10, np.int16), (6400, 16_000))
    samples[19_200:25_600] = samples[6400:12_800] // 17  # 25 dB below
    monkeypatch.setattr(activity, "probabilities", lambda samples, louder: np.full(len(samples) // 128, 0.9))
    found, (first, second) = activity.heard(samples)
    assert found == [(5760, 16_640), (18_560, 26_240)]  # 30 dB, 40 ms
    assert np.array_equal(first, activity.joined(samples, found)) and np.array_equal(first, activity.speech(samples))
    assert np.array_equal(second, samples[5120 + 160 : 17_280])  # 20 dB, 80 ms
    short = loud_from(np.full(RATE, 10, np.int16), (6400, 12_800))
    assert [len(hearing) for hearing in activity.heard(short)[1]] == [7680, 8800]
    assert len(activity.heard(loud_from(np.full(RATE, 10, np.int16), (6400, 11_840)))[1]) == 1  # of 7,840 samples


def test_a_stretch_begins_where_it_rises_above_the_noise_beside_it():
    noise = np.random.default_rng(0).normal(0, 300, 2 * RATE).astype(np.int16)  # 20 dB below: louder than a pause
    samples = loud_from(noise, (12_160, 24_000))
    assert activity.refined(samples, [(10_240, 25_600)]) == [(11_520, 24_640)]
    noise = np.random.default_rng(0).normal(0, 300, 3 * RATE).astype(np.int16)
    long = loud_from(noise, (12_160, 13_760), (24_000, 40_000))  # up to 0.5 s into a stretch, and as far before its end
    assert activity.refined(long, [(10_240, 41_600)]) == [(11_520, 14_400), (17_600, 40_640)]


def test_what_is_nearly_as_loud_as_the_voice_is_no_background():
    samples = loud_from(np.full(RATE, 10, np.int16), (0, 12_800))  # a voice whose first 0.6 s were missed
    assert activity.refined(samples, [(9600, 12_800)]) == [(5760, 13_440)]


@pytest.mark.parametrize("count", [320, 3001, 20 * RATE + 77])
def test_silence_before_after_and_within_speech_moves_it_and_changes_no_sample(speech, count):
    silence = np.zeros(count, np.int16)
    for samples in speech:
        pieces, alone = activity.heard(samples)
        loudest = int(np.argmax(np.abs(samples.astype(int))))
        within = next(place for place in range(loudest, len(samples)) if samples[place - 1] and samples[place])
        for place in (0, within, len(samples)):
            found, hearings = activity.heard(np.concatenate([samples[:place], silence, samples[place:]]))
            assert all(np.array_equal(one, other) for one, other in zip(hearings, alone, strict=True))
            moved = [(start + count * (start >= place), end + count * (end > place)) for start, end in pieces]
            crossing = [(start, end) for start, end in moved if start < place < end]
            parted = [piece for start, end in crossing for piece in ((start, place), (place + count, end))]
            assert found == sorted([piece for piece in moved if piece not in crossing] + parted)


@pytest.mark.parametrize("place", ["before", "after"])
def test_steady_noise_before_or_after_speech_hardly_moves_it(speech, place):
    for number, samples in enumerate(speech):
        noise = np.random.default_rng(number).normal(0, np.std(samples) / 10, 7 * RATE).astype(np.int16)
        longer = np.concatenate([noise, samples] if place == "before" else [samples, noise])
        assert abs(len(activity.speech(longer)) - len(activity.speech(samples))) <= 0.1 * RATE


@pytest.mark.parametrize("level", [0, 100])
def test_what_is_put_into_a_pause_is_cut_out_again(speech, level):
    for samples in speech:
        pieces = activity.segments(samples)
        gaps = [second[0] - first[1] for first, second in itertools.pairwise(pieces)]
        if not gaps:
            continue
        longest = int(np.argmax(gaps))
        place = (pieces[longest][1] + pieces[longest + 1][0]) // 2
        put = np.random.default_rng(0).normal(0, 1, 5 * RATE) * level
        longer = np.concatenate([samples[:place], put.astype(np.int16), samples[place:]])
        assert abs(len(activity.speech(longer)) - len(activity.speech(samples))) <= 0.05 * RATE


def test_a_member_that_is_another_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(pretrained, "_weights", lambda package: b"something else")
    with pytest.raises(RequestError, match=r"silero_vad_16k_op15.onnx of silero-vad==6.2.3 has the sha256 "):
        pretrained.member(activity.WEIGHTS, activity.MEMBER_SHA256)
    assert not list((tmp_path / "pretrained").glob("*"))


def test_quiet_speech_is_found_and_quiet_noise_is_not(speech):
    for samples in speech:
        assert activity.segments((samples / 100).astype(np.int16))  # 40 dB quieter
    hiss = np.random.default_rng(0).integers(-2, 3, 5 * RATE).astype(np.int16)
    assert activity.gain(hiss) > 20 and activity.segments(hiss) == []
