"""Dev speech for calibration: which corpora are at hand, what is kept, and what is compared with what."""

import io
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from sv_utils.base.errors import RequestError
from sv_utils.voices import activity, development, fitting

RATE = 16_000


def test_without_other_corpora_there_is_the_embedded_one(monkeypatch, tmp_path):
    monkeypatch.delenv("SV_MIRROR", raising=False)
    assert development.at_hand() == ["mini"]
    with pytest.raises(RequestError, match="phone is not there, and has no public form"):
        development.waveforms("phone")
    (tmp_path / "phone").mkdir()
    monkeypatch.setenv("SV_MIRROR", str(tmp_path))
    assert development.at_hand() == ["mini", "phone"]
    assert development.phone_folder() == tmp_path / "phone"


def test_each_utterance_is_sent_measured_and_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(activity, "heard", lambda x: ([], [x, x[160:]] if np.abs(x).max() > 100 else [x[:0]]))
    noise = (3000 * np.random.default_rng(0).normal(size=3 * RATE)).astype(np.int16)
    sounds = {"a/s/1": noise, "a/s/2": noise[:RATE], "b/s/1": np.zeros(3 * RATE, np.int16)}
    asked = []

    def embed(waveforms):
        asked.append([len(waveform) for waveform in waveforms])
        angles = [len(waveform) / 1e5 for waveform in waveforms]
        return np.column_stack([np.cos(angles), np.sin(angles)])

    found = development.through("own", "telephone", sounds, embed, tmp_path)
    assert found.ids.tolist() == list(sounds)
    assert np.isfinite(found.speech[:, 0]).tolist() == [True, True, False]  # silence has no embedding of its speech
    assert np.isfinite(found.cut[:, 0]).tolist() == [True, False, False]  # and 1 s has no first 2 s
    assert found.conditions[:, 0].tolist() == [3.0, 1.0, 0.0] and found.cut_conditions[0, 0] == 2.0
    assert found.conditions[0, 1] < 5000  # it came by telephone
    turned = [np.arctan2(*embeddings[0][::-1]) * 1e5 for embeddings in (found.whole, found.speech, found.cut)]
    assert turned == pytest.approx([48_000, 48_000 - 80, 32_000])  # the mean of both hearings, or of their first 2 s
    count = len(asked)
    again = development.through("own", "telephone", sounds, embed, tmp_path)
    assert len(asked) == count and again.ids.tolist() == found.ids.tolist()  # kept, not computed again
    assert [path.name for path in tmp_path.iterdir()] == ["own_telephone.npz"]


def test_the_recordings_of_a_speaker_share_one_telephone_only_where_the_channel_says_so(monkeypatch):
    def apparatus(samples, rng):
        return np.full(10, rng.integers(30_000), np.int16)

    monkeypatch.setattr(activity, "heard", lambda samples: ([], [samples[:0]]))
    for channel in ("telephone", "own_telephone"):
        monkeypatch.setitem(development.channels.CHANNELS, channel, apparatus)

    def drawn(channel):
        heard = []
        for name in ("a/s/1", "a/t/2", "b/s/1"):
            development._utterance(
                name, channel, np.zeros(10), lambda sent: heard.append(int(sent[0][0])) or np.ones(1)
            )
        return [heard[0] == heard[1], heard[0] == heard[2]]

    assert drawn("own_telephone") == [True, False]  # one call, and another's
    assert drawn("telephone") == [False, False]


def test_the_first_seconds_are_embedded_of_those_channels_that_are_judged_so(monkeypatch):
    monkeypatch.setattr(activity, "heard", lambda samples: ([], [samples]))
    for channel, cut in (("clean", True), ("mobile", False)):
        monkeypatch.setitem(development.channels.CHANNELS, channel, lambda samples, rng: samples)
        noise = np.ones(3 * RATE, np.int16)
        found = development._utterance("a/s/1", channel, noise, lambda waves: np.ones((len(waves), 2)))
        assert np.isfinite(found["cut"]).all() == cut and np.isfinite(found["speech"]).all()


def test_utterances_of_one_session_are_joined_and_those_of_two_speakers(monkeypatch, tmp_path):
    monkeypatch.setattr(activity, "segments", lambda samples: [(0, len(samples))])
    seen = []

    def channel(samples, rng):
        seen.append((len(samples), int(samples[0]), int(samples[-1]), int(rng.integers(1000))))
        return samples

    def embed(waveforms):
        return np.array([[len(waveform) / 1e5, waveform.mean()] for waveform in waveforms])

    monkeypatch.setitem(development.channels.CHANNELS, "telephone", channel)
    spoken = {"a/s1": (1000, 3), "a/s2": (500, 5), "b/s1": (2000, 2), "c/s1": (3000, 5)}
    sounds = {
        f"{session}/{number}": np.full(2 * RATE, level + number, np.int16)
        for session, (level, count) in spoken.items()
        for number in range(count)
    }
    found = development.joined("own", "telephone", sounds, embed, tmp_path)
    one, two = ([row for row in sorted(seen) if (abs(row[2] - row[1]) < 10) is alike] for alike in (True, False))
    assert [row[:3] for row in one] == [
        (2 * 2 * RATE, 2000, 2001),
        (3 * 2 * RATE, 1000, 1002),
        (4 * 2 * RATE, 3000, 3003),
    ]
    assert {row[0] for row in two} == {4 * 2 * RATE} and len({row[3] for row in seen}) == 6
    assert sorted(row[1] for row in two) == [1000, 2000, 3000] and sorted(row[2] for row in two) == [1001, 2001, 3001]
    shapes = [(False, (4, 2)), (False, (5, 2)), *[(True, (5, 2))] * 3]  # the two of b, 4 s, are too few
    assert sorted((two, rows.shape) for two, rows in found) == shapes
    assert all(rows[0, 0] == 0.24 for _, rows in found)
    again = development.joined("own", "telephone", sounds, embed, tmp_path)
    assert len(seen) == 6 and [(two, rows.tolist()) for two, rows in again] == [(two, r.tolist()) for two, r in found]
    assert [path.name for path in tmp_path.iterdir()] == ["own_telephone_joined.npz"]


def test_second_voices_are_counted_without_the_directions_of_the_other_corpora(monkeypatch):
    asked = []
    monkeypatch.setattr(fitting, "directions", lambda heard: asked.append(sorted(heard)) or np.array([[0.0, 0.0, 1.0]]))
    alike, apart = np.array([[1.0, 0.0]] * 4), np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)

    def by_telephone(rows):  # it gives all of them the same
        return np.column_stack([rows, np.full(len(rows), 2.0)]) / np.sqrt(5)

    recordings = [(False, alike), (True, apart), (True, apart), (True, alike), (False, apart)]
    joined = {("own", "telephone"): [(two, by_telephone(rows)) for two, rows in recordings]}
    (row,) = fitting.second_voices(joined, {"own": {}, "mini": {}, "phone": {}})
    assert row == {"corpus": "own", "channel": "telephone", "two": 3, "found": 2, "one": 2, "warned": 1}
    assert asked == [["mini", "phone"]]


def test_one_voice_and_two_voices_are_paired_without_the_evaluation_list(monkeypatch):
    ids = [f"mv{speaker:03}/s/{number}" for speaker in (1, 2, 3) for number in range(3)]
    pairs = fitting.utterance_pairs("mini", ids)
    speaker = np.array([name.split("/")[0] for name in ids])
    same, strangers = pairs["one session"], pairs["strangers"]
    assert len(same) == 9 and (speaker[same[:, 0]] == speaker[same[:, 1]]).all()
    assert len(strangers) == 27 and (speaker[strangers[:, 0]] != speaker[strangers[:, 1]]).all()
    again = fitting.utterance_pairs("mini", ids)
    np.testing.assert_array_equal(again["strangers"], strangers)


def test_calls_are_read_in_order_and_paired_as_their_lists_say(monkeypatch, tmp_path):
    """Both lists have the same pairs of different voices, which count once."""
    monkeypatch.setenv("SV_MIRROR", str(tmp_path))
    (tmp_path / "phone").mkdir()
    with zipfile.ZipFile(tmp_path / "phone" / "phone_dev_flac.zip", "w") as archive:
        for name, level in (("dev/b/1/0.flac", 0.5), ("dev/a/1/1.flac", 0.25), ("dev/a/1/0.flac", 0.125)):
            soundfile.write(sound := io.BytesIO(), np.full(400, level), 16_000, format="FLAC")
            archive.writestr(name, sound.getvalue())
        archive.writestr("dev/README", "calls")
    found = development.waveforms("phone")
    levels = [(name, int(samples[200])) for name, samples in found.items()]
    assert levels == [("a/1/0.flac", 4096), ("a/1/1.flac", 8192), ("b/1/0.flac", 16_384)]
    ids = ["a/1/0", "a/1/1", "a/2/0", "b/1/0"]
    (tmp_path / "phone" / "phone_same.txt").write_text("1 a/1/0 a/1/1\n0 a/1/1 b/1/0\n")
    (tmp_path / "phone" / "phone_cross.txt").write_text("1 a/1/0 a/2/0\n0 a/1/1 b/1/0\n")
    pairs = {kind: rows.tolist() for kind, rows in fitting.utterance_pairs("phone", ids).items()}
    assert pairs == {"one call": [[0, 1]], "another call": [[0, 2]], "strangers": [[1, 3]]}


def test_two_thirds_of_the_strangers_are_of_one_gender_on_either_side_by_chance(monkeypatch, tmp_path):
    (tmp_path / "own_meta.csv").write_text("id,gender\na,f\nb,f\nc,m\nd,m\n")
    monkeypatch.setattr(fitting.corpora, "get", lambda name: SimpleNamespace(data=tmp_path))
    monkeypatch.setattr(fitting, "NONTARGET", 30)
    ids = [f"{speaker}/s/{number}" for speaker in "abcd" for number in range(5)]
    strangers = fitting.utterance_pairs("own", ids)["strangers"]
    genders = np.array([name[0] in "ab" for name in ids])[strangers]
    assert len(strangers) == 30 and np.count_nonzero(genders[:, 0] == genders[:, 1]) == 20
    assert (
        len({tuple(row) for row in strangers.tolist()}) == 30
        and 5 < np.count_nonzero(strangers[:, 0] > strangers[:, 1]) < 25
    )
    monkeypatch.setattr(fitting.corpora, "get", lambda name: SimpleNamespace(data=None))
    with pytest.raises(RequestError, match="own has no table of its speakers' gender"):
        fitting.utterance_pairs("own", ids)


def test_phone_tells_one_call_from_another(monkeypatch):
    folder = Path(os.environ.get("SV_MIRROR") or os.devnull) / "phone"
    if not folder.is_dir():
        pytest.skip("the corpus phone is not below $SV_MIRROR")
    texts = [(folder / name).read_text("utf-8") for name in ("phone_same.txt", "phone_cross.txt")]
    lines = [line.split() for line in "".join(texts).splitlines()]
    ids = sorted({name for _, *pair in lines for name in pair})
    pairs = fitting.utterance_pairs("phone", ids)
    assert {kind: len(rows) for kind, rows in pairs.items()} == {
        "one call": 976,
        "another call": 650,
        "strangers": 2035,
    }
    call = np.array([name.rsplit("/", 1)[0] for name in ids])
    assert (call[pairs["one call"][:, 0]] == call[pairs["one call"][:, 1]]).all()
    assert (call[pairs["another call"][:, 0]] != call[pairs["another call"][:, 1]]).all()
