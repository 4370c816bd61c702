"""Views on a store and waveforms out of it, on tables and shards of a few numbers."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive
from sv_utils.speech import audio, limits
from sv_utils.speech import manifest as manifests
from sv_utils.speech.archives import VerifiedArchive
from sv_utils.speech.reader import Speech


def manifest(**columns) -> pd.DataFrame:
    rows = {"id": ["a/1", "a/2", "b/1", "c/1", "d/1"], "speaker": ["a", "a", "b", "c", ""], "subset": ""}
    rows |= {"shard": ["0.pcm", "0.pcm", "0.pcm", "1.pcm", ""], "error": ["", "", "", "", "no sound"]}
    rows |= {"samples": 16_000, "rate": 16_000, "channels": 1, "silent": 0.0, "clipped": 0.0, "content": list("klmk-")}
    return pd.DataFrame(rows | columns)


def test_a_view_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    asked = []
    monkeypatch.setattr(limits, "read_manifest", lambda folder: asked.append(folder) or manifest())
    known = pd.DataFrame(
        {"gender": ["f", "m"], "language": ["de", ""], "subset": ["dev", "test"], "age": "9"}, index=["a", "b"]
    )
    corpus = SimpleNamespace(speakers=lambda: known)
    store = tmp_path / "corpora/own/store-1"
    found = limits.view(corpus, store)
    assert asked == [store]
    columns = ["id", "subset", "gender", "nationality", "language", "shard", "error", "decoded"]
    place = "corpora/own/store-1/"
    assert found[columns].to_numpy().tolist() == [
        ["a/1", "dev", "f", "", "de", f"{place}0.pcm", "", True],
        ["a/2", "dev", "f", "", "de", f"{place}0.pcm", "", True],
        ["b/1", "test", "m", "", "", f"{place}0.pcm", "", True],
        ["c/1", "", "", "", "", f"{place}1.pcm", "speaker is not in the speaker table", False],
        ["d/1", "", "", "", "", "", "no sound", False],
    ]
    drawn = []
    monkeypatch.setattr(limits, "drawn_halves", lambda *given: drawn.append(given) or dict.fromkeys("abc", "dev"))
    corpus = SimpleNamespace(speakers=lambda: known.drop(columns="subset"))
    found = limits.view(corpus, store, limits.Limits(min_seconds=0.5), 0.3, 7)
    assert drawn == [({"a", "b", "c"}, 0.3, 7)]
    assert found["error"].tolist() == ["", "", "", "duplicate of a/1", "no sound"]
    assert found["subset"].tolist() == ["dev"] * 4 + [""]
    monkeypatch.setattr(limits, "read_manifest", lambda folder: manifest(subset="test"))
    assert set(limits.view(corpus, store)["subset"]) == {"test"} and len(drawn) == 1  # archives have said it


def test_each_limit_at_its_edge_and_beyond():
    """What is at a limit is within it; of several reasons the rate has the first word."""
    edge = limits.Limits(min_seconds=2.0, max_clipped=0.1, max_silent=0.5, min_rate=8000, max_channels=2)
    good = {"samples": [32_000], "rate": [8000], "channels": [2], "silent": [0.5], "clipped": [0.1]}
    beyond = {
        "clipped": (0.2, "clipped: 0.200 of the samples, at most 0.1"),
        "silent": (0.75, "silent: 0.750 of the frames, at most 0.5"),
        "samples": (31_840, "too short: 1.99 s, wanted 2 s"),
        "channels": (3, "channels: 3, at most 2"),
        "rate": (7999, "low rate: 7999 Hz, wanted 8000 Hz"),
    }
    assert edge.reasons(pd.DataFrame(good)).tolist() == [""]
    for column, (value, reason) in beyond.items():
        assert edge.reasons(pd.DataFrame(good | {column: [value]})).tolist() == [reason]
    several = dict(good)
    for column, (value, reason) in beyond.items():
        several[column] = [value]
        assert edge.reasons(pd.DataFrame(several)).tolist() == [reason]
    assert limits.Limits() == limits.Limits(1.0, 0.05, 0.95, 8000, 32)
    told = pd.DataFrame({"error": ["", "too short: 1 s", "duplicate of x: y", "clipped: 0.2"]})
    assert limits.qualities(told).tolist() == ["within limits", "too short", "duplicate", "clipped"]


def test_the_tested_speakers_are_drawn_by_the_seed_and_whatever_their_order():
    names = [f"s{k:02}" for k in range(20)]
    tested = {
        seed: {one for one, half in limits.drawn_halves(names, 0.25, seed).items() if half == "test"} for seed in (0, 1)
    }
    assert len(tested[0]) == len(tested[1]) == 5 and tested[0] != tested[1]
    assert limits.drawn_halves(names[::-1], 0.25, 0) == limits.drawn_halves(names, 0.25, 0)
    assert tested[0] < {one for one, half in limits.drawn_halves(names, 0.5, 0).items() if half == "test"}


@pytest.fixture
def shards(tmp_path):
    np.arange(100, dtype="<i2").tofile(tmp_path / "0.pcm")
    first, second = (audio.encode_flac(np.arange(start, start + 9000, dtype=np.int16)) for start in (0, 10_000))
    (tmp_path / "1.flac").write_bytes(first + second)
    (tmp_path / "2.pcm").write_bytes(b"")
    rows = {"shard": ["0.pcm", "1.flac", "1.flac", "2.pcm"], "offset": [40, 0, len(first), 0], "speaker": list("abba")}
    return pd.DataFrame(rows | {"bytes": [40, len(first), len(second), 0], "samples": [20, 9000, 9000, 0], "more": "x"})


def test_what_is_read_stays_the_same_in_another_process(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "nowhere"))
    speech = Speech(shards, tmp_path)
    there = pickle.loads(pickle.dumps(speech))
    assert list(there.table) == ["shard", "offset", "samples", "bytes", "speaker"] and list(speech.table) == list(
        shards
    )
    for one in (speech, there):
        assert one.waveform(0).tolist() == list(range(40, 60)) and not one.waveform(0).flags.writeable
        assert one.waveform(2)[[0, 8999]].tolist() == [10_000, 18_999] and len(one.waveform(3)) == 0
        found = one.crops([1, 2, 0], [5000, 8998, 18], 4)
        assert found.tolist() == [[5000, 5001, 5002, 5003], [18_998, 18_999, 10_000, 10_001], [58, 59, 40, 41]]
    with pytest.raises(ValueError):
        speech.crops([0, 1], [0], 4)
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    assert Speech(shards).waveform(0).tolist() == list(range(40, 60)) and paths.outputs() == tmp_path
    with pytest.raises(RequestError, match=r"shard .*nowhere/0\.pcm is missing"):
        Speech(shards, tmp_path / "nowhere")


def test_what_no_checksum_proves_must_have_its_official_counts(tmp_path, monkeypatch):
    official = pd.DataFrame(
        {"utterances": [9, 5], "official_utterances": [9, 5], "speakers": [3, 2]}, index=["dev", "test"]
    )
    official["official_speakers"] = pd.array([None, 2], dtype="Int64")  # of one half nobody publishes it
    asked = []
    monkeypatch.setattr(manifests, "counts", lambda *given: asked.append(given) or official)
    remotes = (
        Archive("dev.zip", "dev", (("a", "0"), ("b", "1")), "whole"),
        Archive("test.zip", "test", (("t", "alone"),)),
    )
    corpus = SimpleNamespace(name="own", remotes=remotes, public=(Archive("all.tar", "", (("all.tar", None),)),))

    def archive(name, md5, path="nowhere.zip", **more):
        return VerifiedArchive(name, "dev", md5, ({"path": str(path), "bytes": 1, "mtime_ns": 0, "md5": md5},), **more)

    proven = [archive("dev.zip", "whole"), archive("test.zip", "alone"), archive("x", "y", removed=True)]
    manifests.refuse_incomplete(corpus, proven, "view")
    assert asked == []
    for other in (archive("all.tar", "z"), archive("dev.zip", "0"), archive("dev.zip", "whole", tmp_path)):
        manifests.refuse_incomplete(corpus, [*proven, other], "view")
    assert asked == [(corpus, "view")] * 3
    for column, of, said in (("speakers", 3, "2 speakers"), ("utterances", 6, "5 utterances")):
        official.loc["test", f"official_{column}"] = of
        with pytest.raises(
            RequestError, match=f"^corpus own has {said} in its half 'test' instead of the official {of}: "
        ):
            manifests.refuse_incomplete(corpus, [archive("all.tar", "z")], "view")


def test_two_manifests_are_compared_row_by_row(tmp_path):
    """By id, and where one stands there twice, by its place among those; where the samples lie does not count."""
    rows = {name: 0 if name in ("offset", "bytes", "samples", "rate", "channels") else "" for name in manifests.COLUMNS}
    rows |= {"peak": 0.0, "clipped": 0.0, "silent": 0.0}
    one = pd.DataFrame([rows | {"id": name} for name in ("a", "b", "b", "c")])
    other = one.assign(shard="other", offset=7, bytes=9)
    for name, table in (("one", one), ("other", other)):
        (tmp_path / name).mkdir()
        table.to_csv(tmp_path / name / "manifest.csv", index=False)
    first, second = tmp_path / "one", tmp_path / "other" / "manifest.csv"
    assert manifests.compare(first, second) == []
    other.loc[2, "rate"], other.loc[1, "warning"], other.loc[2, "warning"] = 8000, "x", "y"
    other.drop(index=3).to_csv(second, index=False)
    assert manifests.compare(first, second) == [
        f"1 file(s) are in {first} alone, first c.",
        "rate differs for 1 file(s), first b: 0 and 8000.",
        "warning differs for 2 file(s), first b: '' and 'x'.",
    ]
    assert manifests.compare(second, first)[0] == f"1 file(s) are in {first} alone, first c."
