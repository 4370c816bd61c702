"""The embedded corpus `mini`: what its README says is what lies in the repository."""

import csv
import hashlib
import io
import re
import zipfile
from collections import Counter
from pathlib import Path

import av
import pytest

from sv_utils import corpora

DATA = Path(corpora.__file__).parent / "mini_data"
SUMS = dict(reversed(line.split()) for line in (DATA / "MD5SUMS").read_text().splitlines())


def whole(archive: str) -> bytes:
    """One archive, its parts concatenated in order of name."""
    return b"".join(part.read_bytes() for part in sorted(DATA.glob(f"{archive}_parta?")))


def rows(file: str) -> list[dict]:
    with open(DATA / file, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


@pytest.fixture(scope="module")
def archives() -> dict[str, zipfile.ZipFile]:
    names = {"dev": "mini_dev_aac", "test": "mini_test"}
    return {subset: zipfile.ZipFile(io.BytesIO(whole(name))) for subset, name in names.items()}


@pytest.fixture(scope="module")
def voices() -> dict[str, dict]:
    return {row["id"]: row for row in rows("mini_meta.csv")}


def test_checksums_hold_for_every_file_and_both_archives():
    assert len(SUMS) == 14
    for name, md5 in SUMS.items():
        content = whole(name.removesuffix(".zip")) if name.endswith(".zip") else (DATA / name).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5, name
    assert {path.name for path in DATA.glob("mini_*")} == {name for name in SUMS if not name.endswith(".zip")}


def test_size_stays_within_the_budget():
    assert all(part.stat().st_size < 2_000_000 for part in DATA.glob("mini_*_parta?"))
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) <= 16_000_000


def test_voices_clips_and_layout(archives, voices):
    assert Counter(voice["set"] for voice in voices.values()) == {"dev": 40, "test": 18}
    layout = {
        "dev": re.compile(r"dev/aac/(mv\d{3})/([\w-]+)/\d{5}\.m4a"),
        "test": re.compile(r"(?:aac|wav)/(mv\d{3})/([\w-]+)/\d{5}\.(?:m4a|wav)"),
    }
    for subset, archive in archives.items():
        matches = [layout[subset].fullmatch(name) for name in archive.namelist()]
        assert all(matches)
        assert all(voices[match[1]]["set"] == subset and voices[match[1]]["video"] == match[2] for match in matches)
        clips = Counter(match[1] for match in matches)
        assert set(clips) == {name for name, voice in voices.items() if voice["set"] == subset}
        assert min(clips.values()) >= 12
    kinds = Counter(name.rpartition(".")[2] for name in archives["test"].namelist())
    assert kinds == {"m4a": 18 * 12, "wav": 18 * 2}


def test_no_language_stands_on_both_sides(voices):
    languages = {"dev": set(), "test": set()}
    for voice in voices.values():
        languages[voice["set"]] |= set(voice["language"].split())
    assert not languages["dev"] & languages["test"]
    assert len(languages["test"]) >= 6


def test_every_clip_decodes_to_three_seconds_of_sound(archives):
    seen = set()
    for archive in archives.values():
        for name in archive.namelist():
            data = archive.read(name)
            with av.open(io.BytesIO(data)) as audio:
                stream = audio.streams.audio[0]
                assert (stream.rate, stream.channels) == (16000, 1), name
                frames = [frame.to_ndarray() for frame in audio.decode(stream)]
            assert sum(frame.shape[1] for frame in frames) >= 3 * 16000, name
            assert any(abs(frame).max() > 0 for frame in frames), name
            seen.add(hashlib.md5(data).digest())
    assert len(seen) == sum(len(archive.namelist()) for archive in archives.values())


def test_utterance_table_names_every_clip_and_each_recording_serves_one_voice(archives, voices):
    table = rows("mini_utterances.csv")
    members = [name.removeprefix("dev/").partition("/")[2] for a in archives.values() for name in a.namelist()]
    assert sorted(row["path"] for row in table) == sorted(members)
    assert min(float(row["seconds"]) for row in table) >= 3
    owners = {}
    for row in table:
        voice = row["path"].split("/")[0]
        for source in row["source_files"].split(" "):
            owners.setdefault((voices[voice]["package"], source), set()).add(voice)
    assert all(len(names) == 1 for names in owners.values())


def test_trials_are_balanced_and_name_test_clips_only(archives):
    clips = {name.partition("/")[2] for name in archives["test"].namelist()}
    trials = [line.split(" ") for line in (DATA / "mini_trials.txt").read_text().splitlines()]
    assert len(trials) == 3060
    assert {enrol for _, enrol, _ in trials} | {test for *_, test in trials} == clips
    pairs = {frozenset(trial[1:]) for trial in trials}
    assert len(pairs) == len(trials) and all(len(pair) == 2 for pair in pairs)
    speakers = [(label, *sorted((enrol[:5], test[:5]))) for label, enrol, test in trials]
    assert all((label == "1") == (first == second) for label, first, second in speakers)
    # 18 voices: 85 target trials each, and 10 for each of the 153 pairs of two voices.
    assert Counter(Counter(speakers).values()) == {85: 18, 10: 153}


def test_licences_name_each_package_and_its_copyright_file_is_there(voices):
    text = (DATA / "LICENCES.md").read_text(encoding="utf-8")
    assert len(voices) == 58
    for voice in voices.values():
        assert f"| {voice['package']} " in text
        assert (DATA / "copyright" / f"{voice['package']}.txt").stat().st_size > 500
        assert voice["licence"] and voice["credit"]


def test_speaker_table_is_complete(voices):
    assert [int(name.removeprefix("mv")) for name in voices] == list(range(1, 59))
    assert {voice["gender"] for voice in voices.values()} == {"f", "m", ""}
    sources = Counter((voice["package"], voice["video"]) for voice in voices.values())
    assert set(sources.values()) == {1}
