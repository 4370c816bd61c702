import dataclasses
import hashlib
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pytest
from release import DEV, digest, encoded, files, m4a, make, voice, wav, zipped

from sv_utils import corpora, store
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.speech import acquisition, archives, audio, manifest, preparation, splits
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.archives import VerifiedArchive
from sv_utils.speech.limits import Limits, view
from sv_utils.speech.manifest import read_manifest
from sv_utils.speech.preparation import prepare, store_key
from sv_utils.speech.reader import Speech
from sv_utils.speech.splits import split_validation, utterances

MIRROR = os.environ.get("SV_MIRROR")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("SV_MIRROR", raising=False)


@pytest.fixture
def tiny(tmp_path):
    return make(tmp_path / "release")


def archive_of(path: Path, data: bytes) -> VerifiedArchive:
    path.write_bytes(data)
    entry = {"path": str(path), "bytes": len(data), "mtime_ns": path.stat().st_mtime_ns, "md5": ""}
    return VerifiedArchive(path.name, "dev", hashlib.md5(data).hexdigest(), (entry,))


def viewed(corpus, archives=None, *, test_share=0.2, split_seed=0, **limits) -> pd.DataFrame:
    """What limits let through of a store."""
    folder = prepare(corpus, fetch(corpus) if archives is None else archives)
    return view(corpus, folder, Limits(**limits), test_share, split_seed)


def errors(rows: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rows["id"], rows["error"]))


def test_store_and_manifest_of_a_good_release(tiny):
    folder = prepare(tiny, fetch(tiny), utterances_per_shard=5)
    rows = read_manifest(folder)
    assert folder.parent == paths.corpus_dir("tiny")
    assert len(rows) == 18
    assert set(rows["error"]) == {""}
    assert rows["subset"].value_counts().to_dict() == {"dev": 12, "test": 6}
    assert rows.loc[0, ["corpus", "id", "speaker", "session"]].tolist() == [
        "tiny", "id1/s1/00001.m4a", "id1", "s1",
    ]  # fmt: skip
    # Two archives of 12 and 6 files, five to a shard: no shard holds files of both.
    assert rows.groupby("shard", sort=False).size().tolist() == [5, 5, 2, 5, 1]
    row = rows[rows["id"] == "id6/s1/00003.wav"].iloc[0]
    assert row["source_sha256"] == hashlib.sha256(wav(voice("id6", 3))).hexdigest()
    assert (row["samples"], row["rate"], row["channels"]) == (24000, 16000, 1)
    speech = Speech(rows, folder)
    assert len(speech) == 18
    np.testing.assert_array_equal(speech.waveform(row.name), voice("id6", 3))
    np.testing.assert_array_equal(speech.waveform(4), audio.decode(m4a(voice("id2", 2))).samples)
    for shard, part in rows.groupby("shard"):
        assert part["offset"].tolist() == np.concatenate([[0], np.cumsum(part["samples"])[:-1]]).tolist()
        assert (folder / shard).stat().st_size == 2 * part["samples"].sum()


def test_official_counts(tiny):
    table = manifest.counts(tiny, viewed(tiny))
    assert table.loc["dev"].tolist()[:5] == [12, 12, 4, 4, 12]
    assert table.loc["test"].tolist()[:5] == [6, 6, 2, 2, 6]
    assert table.loc["test", "hours"] == pytest.approx(6 * 1.5 / 3600)


def test_content_does_not_depend_on_the_number_of_workers(tiny, tmp_path, monkeypatch):
    archives, digests = fetch(tiny), set()
    for workers in (1, 2, 8):
        monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / str(workers)))
        digests.add(digest(prepare(tiny, archives, workers=workers, utterances_per_shard=3)))
    assert len(digests) == 1


def test_a_scheduler_with_two_workers_writes_the_identical_store(tiny, tmp_path, monkeypatch):
    """Three processes that know of each other by an address on the loopback alone, as machines would."""
    reference = digest(prepare(tiny, fetch(tiny), utterances_per_shard=3))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "dask"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = [sys.executable, "-m", "distributed.cli"]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = ["dask_worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
    lines = [[*run[:2], f"{run[2]}.{name}", *rest] for name, *rest in (scheduler, worker, worker)]
    processes = [subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for line in lines]
    try:
        with distributed.Client(address, timeout=180) as client:
            client.wait_for_workers(2, timeout=180)
            folder = prepare(tiny, fetch(tiny), utterances_per_shard=3, scheduler=address)
            assert len(client.scheduler_info()["workers"]) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert digest(folder) == reference


def test_a_scheduler_that_is_not_there_is_told(tiny, monkeypatch):
    monkeypatch.setattr(distributed.Client, "__init__", lambda *_, **__: (_ for _ in ()).throw(OSError("refused")))
    with pytest.raises(RequestError, match=r"^no Dask scheduler answers at tcp://127\.0\.0\.1:1 \(OSError\)\.$"):
        prepare(tiny, fetch(tiny), scheduler="tcp://127.0.0.1:1")


def test_flac_shards_hold_the_same_samples(tiny):
    archives = fetch(tiny)
    plain, packed = (prepare(tiny, archives, encoding=name, utterances_per_shard=5) for name in ("pcm", "flac"))
    tables = [read_manifest(folder) for folder in (plain, packed)]
    assert tables[1].loc[0, "shard"] == "shard-00000.flac"
    assert tables[1]["bytes"].sum() < 0.8 * tables[0]["bytes"].sum() == 0.8 * 2 * tables[0]["samples"].sum()
    one, other = (Speech(table, folder) for table, folder in zip(tables, (plain, packed)))
    for row in range(len(one)):
        np.testing.assert_array_equal(one.waveform(row), other.waveform(row))
    rows, starts = [0, 5, 17, 3], [23999, 0, 12345, 20000]
    np.testing.assert_array_equal(one.crops(rows, starts, 8000), other.crops(rows, starts, 8000))
    assert manifest.compare(plain, packed) == []
    with pytest.raises(RequestError, match="there is no encoding 'mp3' of shards: take pcm or flac"):
        prepare(tiny, archives, encoding="mp3")


def test_manifests_of_two_machines_are_compared(tiny, tmp_path, capsys):
    one = prepare(tiny, fetch(tiny), utterances_per_shard=5)
    assert store.main(["--compare", str(one), str(one / "manifest.csv")]) == 0
    assert capsys.readouterr().out.endswith("hold the same.\n")
    table = read_manifest(one)
    table.loc[3, "content"] = "0"
    table.drop(index=7).to_csv(tmp_path / "other.csv", index=False)
    assert store.main(["--compare", str(one), str(tmp_path / "other.csv")]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"1 file(s) are in {one} alone, first id3/s1/00002.m4a.",
        f"content differs for 1 file(s), first id2/s1/00001.m4a: {read_manifest(one).loc[3, 'content']!r} and '0'.",
    ]
    assert store.main(["--compare", str(tmp_path / "nowhere"), str(one)]) == 2


def test_a_tree_with_missing_files_is_refused_unless_allowed(tiny, tmp_path):
    for archive, name in ((tiny.remotes[0], "tiny_dev_aac"), (tiny.remotes[1], "tiny_test_wav")):
        data = b"".join((tmp_path / "release" / part).read_bytes() for part, _ in archive.parts)
        zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path / "trees" / name)
    complete = fetch(tiny, source=str(tmp_path / "trees"))
    folder = prepare(tiny, complete)
    manifest.refuse_incomplete(tiny, complete, viewed(tiny, complete))
    checked = fetch(tiny)
    assert manifest.compare(folder, prepare(tiny, checked)) == []
    (tmp_path / "trees/tiny_dev_aac/dev/aac/id1/s1/00002.m4a").unlink()
    fewer = fetch(tiny, source=str(tmp_path / "trees"))
    rows = viewed(tiny, fewer)
    for which in (fewer, [fewer[0], checked[1]]):  # a verified archive vouches for itself alone
        with pytest.raises(RequestError, match=r"has 11 utterances in its half 'dev' instead of the official 12: com"):
            manifest.refuse_incomplete(tiny, which, rows)
    manifest.refuse_incomplete(tiny, checked, rows)


@pytest.mark.parametrize("layout", ["merged", "halves"])
def test_other_layouts_of_unpacked_trees(tiny, tmp_path, layout):
    """All speakers under one ``wav/`` (the table says who is whose), or ``dev/`` and ``test/`` (as VoxCeleb1 lies)."""
    for archive in tiny.remotes:
        data = b"".join((tmp_path / "release" / part).read_bytes() for part, _ in archive.parts)
        with zipfile.ZipFile(io.BytesIO(data)) as whole:
            for name in whole.namelist():
                inner = name.split("/", 1 + name.startswith("dev"))[-1]
                place = tmp_path / "trees" / ("wav" if layout == "merged" else f"{archive.subset}/wav") / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(whole.read(name))
    lines = (tmp_path / "release/tiny_meta.csv").read_text().splitlines()
    halves = ["set", *["dev"] * 4, *["test"] * 2]
    (tmp_path / "release/tiny_meta.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, halves)))
    rows = viewed(tiny, fetch(tiny, source=str(tmp_path / "trees")))
    assert rows.groupby("subset").size().to_dict() == {"dev": 12, "test": 6}
    assert set(rows["error"]) == {""}


def test_checks_tell_what_was_found(tmp_path):
    dev = files(DEV, "dev/aac", ".m4a", m4a)
    dev["dev/aac/id1/s1/00001.m4a"] = wav(np.stack([np.repeat(voice("id1", 1), 3)] * 2, axis=1), 44100)
    dev["dev/aac/id2/s1/00001.m4a"] = dev["dev/aac/id2/s1/00002.m4a"]
    dev["dev/aac/id2/s1/00003.m4a"] = b""
    dev["dev/aac/id3/s1/00001.m4a"] = wav(voice("id3", 1))[:-320]
    test = files(("id5", "id6"), "wav", ".wav", wav)
    del test["wav/id6/s1/00001.wav"]
    corpus = make(tmp_path / "release", dev=dev, test=test)
    found = manifest.checks(corpus, viewed(corpus), ["tiny"])
    assert found[["check", "found", "example", "of"]].to_numpy().tolist() == [
        ["accepted", 15, "id1/s1/00001.m4a", 17],
        ["refused: duplicate of", 1, "id2/s1/00002.m4a", 17],
        ["refused: empty file", 1, "id2/s1/00003.m4a", 17],
        ["usable, but … s of the sound that its header announces are missing", 1, "id3/s1/00001.m4a", 17],
        ["resampled, recorded at another rate", 1, "id1/s1/00001.m4a", 17],
        ["several channels made one", 1, "id1/s1/00001.m4a", 17],
        ["speakers with fewer than 2 utterances", 1, "id2", 6],
        ["named by a list, but not in the corpus", 1, "id6/s1/00001.wav", 17],
        ["in the test half, but named by no list used", 3, "id5/s1/00003.wav", 17],
    ]


def test_limits_of_rate_and_channels(tmp_path):
    dev = {
        "dev/aac/id1/s1/1.wav": wav(voice("id1", 1)[:12000], 4000),
        "dev/aac/id1/s1/2.wav": wav(np.stack([voice("id1", 2)] * 3, axis=1)),
    }
    corpus = make(tmp_path / "release", dev=dev)
    rows = viewed(corpus, max_channels=2)
    assert errors(rows[rows["subset"] == "dev"]) == {
        "id1/s1/1.wav": "low rate: 4000 Hz, wanted 8000 Hz",
        "id1/s1/2.wav": "channels: 3, at most 2",
    }


def test_removed_archives_are_not_wanted_again_while_their_store_is_there(tmp_path):
    corpus = dataclasses.replace(make(tmp_path / "release"), bundled=None)
    own = fetch(corpus, source=str(tmp_path / "release"))
    folder = prepare(corpus, own)
    assert acquisition.remove(corpus) == 0  # the user's files are left alone
    assert fetch(corpus, source=str(tmp_path / "release")) == own
    archives = paths.corpus_dir("tiny") / "archives"
    archives.mkdir()
    for path in (tmp_path / "release").glob("tiny_*_*a*"):
        path.rename(archives / path.name)
    fetched = fetch(corpus)
    assert prepare(corpus, fetched) == folder
    assert acquisition.remove(corpus) == sum(archive.bytes for archive in fetched)
    assert not list(archives.iterdir())
    assert prepare(corpus, fetch(corpus)) == prepare(corpus, acquisition.verified(corpus)) == folder
    with pytest.raises(
        RequestError, match=r"tiny_dev_aac\.zip of corpus tiny was removed after an earlier preparation"
    ):
        prepare(corpus, fetch(corpus), max_seconds=60.0)


def test_a_finished_store_is_returned_untouched(tiny, monkeypatch):
    archives = fetch(tiny)
    folder = prepare(tiny, archives)
    monkeypatch.setattr(preparation, "_write_shard", None)
    assert prepare(tiny, archives) == folder


def test_store_key_follows_content_and_parameters(tiny):
    archives = fetch(tiny)

    def key(corpus=tiny, verified=archives, max_seconds=3600.0, per_shard=200, encoding="pcm"):
        return store_key(corpus, verified, max_seconds, per_shard, encoding)

    other = dataclasses.replace(tiny, name="other")
    keys = {key(), key(max_seconds=20.0), key(per_shard=100), key(verified=archives[:1]), key(corpus=other)}
    keys |= {key(encoding="flac"), key(corpus=dataclasses.replace(tiny, first_channel=True))}
    keys.add(key(verified=[dataclasses.replace(archives[0], md5="0"), archives[1]]))
    keys.add(key(corpus=dataclasses.replace(tiny, naming=lambda name: corpora.parse(name))))
    assert len(keys) == 9
    moved = [dataclasses.replace(archive, files=()) for archive in archives]  # where the bytes lie changes nothing
    assert key(verified=moved) == key()


def test_the_store_key_follows_the_format_of_its_files(tiny, monkeypatch):
    archives = fetch(tiny)
    folder = prepare(tiny, archives)
    monkeypatch.setattr(preparation, "FORMAT", preparation.FORMAT + 1)
    assert prepare(tiny, archives) != folder


def test_a_corrected_checksum_is_compared_again_with_files_that_did_not_change(tiny):
    fetch(tiny)
    dev, test = tiny.remotes
    (file, _), *rest = dev.parts
    corrected = dataclasses.replace(dev, parts=((file, "0" * 32), *rest))
    with pytest.raises(RequestError, match=rf"{file} .*expected 0{{32}}: it is damaged or cut off"):
        fetch(dataclasses.replace(tiny, remotes=(corrected, test)))
    whole = dataclasses.replace(tiny, remotes=(dataclasses.replace(dev, md5="0" * 32), test))
    with pytest.raises(RequestError, match=r"together have md5"):
        acquisition._verify(whole.remotes[0], [(whole.bundled / file, md5) for file, md5 in dev.parts], whole, {})


def test_a_file_that_grows_beyond_what_it_announces_is_not_unpacked_to_its_end(tmp_path):
    """Ten million zeros that claim to be a hundred: what is unpacked stays near the hundred."""
    with zipfile.ZipFile(tmp_path / "made.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wav/id1/s1/2.wav", bytes(10_000_000))
    data = bytearray((tmp_path / "made.zip").read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 100)
    (bomb,) = archives.members(archive_of(tmp_path / "bomb.zip", bytes(data)))
    tracemalloc.start()
    try:
        with pytest.raises(audio.AudioError, match="size or checksum"):
            archives.read(((str(tmp_path / "bomb.zip"), 0),), bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_longest_duration_and_the_channel_rule_reach_the_decoder(tmp_path):
    stereo = wav(np.stack([voice("id1", 1), 0 * voice("id1", 1)], axis=1))
    dev = {"dev/aac/id1/s1/1.wav": wav(voice("id1", 2, 2.0)), "dev/aac/id1/s1/2.wav": stereo}
    corpus = make(tmp_path / "release", dev=dev)
    rows = read_manifest(prepare(corpus, fetch(corpus), max_seconds=1.7)).set_index("id")
    assert rows.loc["id1/s1/1.wav", "error"] == "longer than 1.7 s"
    assert rows.loc["id1/s1/2.wav", "error"] == ""
    first = dataclasses.replace(corpus, first_channel=True)
    left = read_manifest(prepare(first, fetch(first))).set_index("id")
    assert left.loc["id1/s1/2.wav", "peak"] == pytest.approx(2 * rows.loc["id1/s1/2.wav", "peak"], rel=0.01)


def test_every_bad_file_is_a_row_with_its_reason(tmp_path):
    good, tone = voice("id1", 1), wav(voice("id1", 2))
    silence = np.random.default_rng(0).integers(-5, 6, 24000).astype(np.int16)
    dev = {
        "dev/aac/id1/s1/00.m4a": m4a(good),
        "dev/aac/id1/s1/01.m4a": m4a(good)[:5000],
        "dev/aac/id1/s1/02.m4a": b"I am a letter.\n" * 50,
        "dev/aac/id1/s1/03.m4a": b"",
        "dev/aac/id1/s1/04.wav": wav(np.stack([np.repeat(good, 3), -np.repeat(good, 3) // 2], axis=1), 44100),
        "dev/aac/id1/s1/05.wav": wav(good[:3200]),
        "dev/aac/id1/s1/06.wav": wav(silence),
        "dev/aac/id1/s1/07.wav": wav(np.clip(good.astype(int) * 20, -32768, 32767).astype(np.int16)),
        "dev/aac/id1/s1/08.wav": tone,
        "dev/aac/id1/s1/09.wav": tone,
        "dev/aac/id1/s1/10.wav": tone[:9000],
        "dev/aac/id1/s1/10.txt": b"not a recording, and not meant as one",
        "dev/aac/id1/11.wav": tone,
        "dev/aac/id1/../../../escape.wav": tone,
        "/dev/aac/id1/s1/12.wav": tone,
    }
    corpus = make(tmp_path / "release", dev=dev)
    rows = viewed(corpus)
    told = errors(rows[rows["subset"] == "dev"])
    assert told.pop("id1/s1/01.m4a").startswith("truncated: ")
    assert told.pop("id1/s1/07.wav").startswith("clipped: 0.")
    assert told == {
        "/dev/aac/id1/s1/12.wav": "unsafe: absolute name",
        "dev/aac/id1/../../../escape.wav": "unsafe: '..' in the name",
        "dev/aac/id1/11.wav": "name is not <speaker>/<session>/<file>",
        "id1/s1/00.m4a": "",
        "id1/s1/02.m4a": "not audio, or cut off before its index",
        "id1/s1/03.m4a": "empty file",
        "id1/s1/04.wav": "",
        "id1/s1/05.wav": "too short: 0.20 s, wanted 1 s",
        "id1/s1/06.wav": "silent: 1.000 of the frames, at most 0.95",
        "id1/s1/08.wav": "",
        "id1/s1/09.wav": "duplicate of id1/s1/08.wav",
        "id1/s1/10.wav": "truncated: 0.3 s of 1.5 s",
    }
    rows = rows.set_index("id")
    assert rows.loc["id1/s1/04.wav", ["rate", "channels", "samples"]].tolist() == [44100, 2, 26123]
    shard = rows.loc["id1/s1/04.wav", "shard"]  # what decodes is stored, whatever its quality
    assert rows.loc["id1/s1/05.wav", ["shard", "samples"]].tolist() == [shard, 3200]
    assert set(rows["warning"]) == {""}
    assert not list(tmp_path.rglob("escape.wav"))


def test_hostile_archives(tmp_path):
    tone = wav(voice("id1", 1))
    data = bytearray(zipped({"wav/id1/s1/1.wav": tone, "wav/id1/s1/2.wav": tone, "wav/id1/s1/3.wav": tone}))
    data[data.index(tone) + 500] ^= 1  # the first file's bytes no longer fit its checksum
    second = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    struct.pack_into("<H", data, second + 8, 1)  # the second claims to be encrypted
    third = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, third + 42, 7)  # the third is not where the directory says
    corpus = make(tmp_path / "release")
    told = errors(read_manifest(prepare(corpus, [archive_of(tmp_path / "hostile.zip", bytes(data))])))
    assert told == {
        "id1/s1/1.wav": "damaged archive: size or checksum of the file is wrong",
        "wav/id1/s1/2.wav": "encrypted",
        "id1/s1/3.wav": "damaged archive: no file where its directory says",
    }


def test_zip_bombs_and_links_are_not_unpacked(tmp_path):
    link, method = zipfile.ZipInfo("wav/id1/s1/1.wav"), zipfile.ZIP_DEFLATED
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "made.zip", "w", method) as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("wav/id1/s1/2.wav", bytes(10_000_000))
        archive.writestr("wav/id1/s1/3.wav", bytes(1000))
    data = bytearray((tmp_path / "made.zip").read_bytes())
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    struct.pack_into("<I", data, directory + 24, 100)  # ten million bytes that claim to be a hundred
    struct.pack_into("<I", data, data.rindex(b"PK\1\2") + 24, 1 << 30)
    corpus = make(tmp_path / "release")
    told = errors(read_manifest(prepare(corpus, [archive_of(tmp_path / "bombs.zip", bytes(data))])))
    assert told == {
        "wav/id1/s1/1.wav": "unsafe: symbolic link",
        "id1/s1/2.wav": "damaged archive: size or checksum of the file is wrong",
        "wav/id1/s1/3.wav": "file of 1,073,741,824 bytes, at most 268,435,456",
    }


def test_names_that_occur_twice(tmp_path):
    first, second = wav(voice("id1", 1)), wav(voice("id1", 2))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("wav/id1/s1/1.wav", first)
        archive.writestr("wav/id1/s1/1.wav", second)
        archive.writestr("aac/id1/s1/1.wav", second)
    found = archive_of(tmp_path / "two.zip", (tmp_path / "two.zip").read_bytes())
    rows = read_manifest(prepare(make(tmp_path / "release"), [found]))
    assert list(zip(rows["id"], rows["error"])) == [
        ("id1/s1/1.wav", ""), ("id1/s1/1.wav", "id twice in the corpus"),
        ("wav/id1/s1/1.wav", "name twice in the archive"),
    ]  # fmt: skip


def test_what_is_no_archive_is_told(tmp_path):
    corpus = make(tmp_path / "release")
    with pytest.raises(RequestError, match=r"a\.zip is not a zip \(no end record\)"):
        prepare(corpus, [archive_of(tmp_path / "a.zip", b"hello")])
    with pytest.raises(RequestError, match=r"b\.zip holds no audio file: it is not the archive of corpus tiny"):
        prepare(corpus, [archive_of(tmp_path / "b.zip", zipped({"readme.txt": b"hello"}))])
    with pytest.raises(RequestError, match=r"manifest\.csv is missing: the store is not finished"):
        read_manifest(tmp_path)


PREPARE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from release import make
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.preparation import prepare
corpus = make(Path(sys.argv[2]) / "release")
prepare(corpus, fetch(corpus), workers=2, utterances_per_shard=1)
"""


def test_killed_with_its_workers_at_work(tiny, tmp_path, monkeypatch, request):
    reference = digest(prepare(tiny, fetch(tiny), utterances_per_shard=1))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "killed" / "outputs"))
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(request.config.rootpath / "tests/helpers"), str(tmp_path / "killed")]
    )
    while process.poll() is None and not list(tmp_path.glob("killed/outputs/corpora/tiny/store-*/shard-*.csv")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert digest(prepare(tiny, fetch(tiny), workers=2, utterances_per_shard=1)) == reference


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from release import make
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.preparation import prepare
corpus = make(Path(sys.argv[2]) / "release")
archives = fetch(corpus)
resource.setrlimit(resource.RLIMIT_FSIZE, (120000, resource.RLIM_INFINITY))
try:
    prepare(corpus, archives, utterances_per_shard=int(sys.argv[3]))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_full_disk(tiny, tmp_path, monkeypatch, request):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "full" / "outputs"))
    # A shard of two utterances (2 x 24,576 samples of 2 bytes) fits under the limit, one of three does not.
    command = [sys.executable, "-c", FULL, str(request.config.rootpath / "tests/helpers"), str(tmp_path / "full")]
    result = subprocess.run([*command, "3"], capture_output=True, text=True, timeout=300)
    assert result.stdout.splitlines()[-1].startswith("WorkError no space left for ")
    (folder,) = tmp_path.glob("full/outputs/corpora/tiny/store-*")
    assert [path.name for path in folder.iterdir()] == [".lock"]
    result = subprocess.run([*command, "2"], capture_output=True, text=True, timeout=300)
    assert "Error" not in result.stdout
    assert len(list(tmp_path.glob("full/outputs/corpora/tiny/store-*/manifest.csv"))) == 1


def test_one_sentence_when_a_worker_reports_a_full_disk(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    archives = fetch(tiny)
    monkeypatch.setattr(preparation, "_write_rows", full)
    with pytest.raises(WorkError, match=r"^no space left for .*: free some and run again, finished shards stay\.$"):
        prepare(tiny, archives)


def joined(corpus, **options):
    arguments = {"train": ["tiny"], "n_validation": 1} | options
    return utterances([(corpus, viewed(corpus))], {"tiny": ["tiny"]}, **arguments)


def test_table_of_utterances(tiny):
    table, rejected = joined(tiny)
    assert len(rejected) == 0
    assert table.groupby("split")["id"].size().to_dict() == {"test": 3, "train": 9, "validation": 3}
    # The list names three of the six test files.
    assert table.loc[table["split"] == "test", "id"].tolist() == [
        "id5/s1/00001.wav", "id5/s1/00002.wav", "id6/s1/00001.wav",
    ]  # fmt: skip
    held_out = set(table.loc[table["split"] == "validation", "speaker"])
    assert len(held_out) == 1
    assert not held_out & set(table.loc[table["split"] == "train", "speaker"])
    assert table.groupby("speaker")["gender"].first().to_dict() == {
        "id1": "m", "id2": "f", "id3": "m", "id4": "f", "id5": "m", "id6": "f",
    }  # fmt: skip
    assert set(table["nationality"]) == {"Utopia"}
    np.testing.assert_array_equal(Speech(table).waveform(len(table) - 1), voice("id6", 1))


def test_speakers_with_too_few_utterances_are_not_trained_on(tmp_path):
    dev = files(DEV, "dev/aac", ".m4a", m4a)
    del dev["dev/aac/id2/s1/00002.m4a"], dev["dev/aac/id2/s1/00003.m4a"]
    table, rejected = joined(make(tmp_path / "release", dev=dev))
    assert "id2" not in set(table["speaker"])
    assert errors(rejected) == {"id2/s1/00001.m4a": "speaker has 1 of 2 utterances"}


def test_evaluation_alone_needs_no_training_speakers(tiny):
    table, _ = joined(tiny, train=[], n_validation=0)
    assert set(table["split"]) == {"test"}


def test_trial_that_names_a_missing_file(tmp_path):
    test = files(("id5", "id6"), "wav", ".wav", wav)
    del test["wav/id6/s1/00001.wav"]
    with pytest.raises(RequestError) as caught:
        joined(make(tmp_path / "release", test=test))
    assert str(caught.value) == (
        "trial list tiny of corpus tiny names 1 file(s) that the store does not offer, first id6/s1/00001.wav "
        "(not in the archives): complete the corpus, set missing_trials of 02_prep to drop, which leaves their trials "
        "out, or leave the list out."
    )


def test_a_file_that_a_list_names_is_flagged_and_never_refused_for_its_quality(tmp_path):
    test = files(("id5", "id6"), "wav", ".wav", wav)
    test["wav/id6/s1/00001.wav"] = wav(voice("id6", 1, 0.2))
    test["wav/id6/s1/00002.wav"] = wav(voice("id6", 2, 0.2))  # which no list names
    corpus = make(tmp_path / "release", test=test)
    table, rejected = joined(corpus)
    assert dict(zip(table["id"], table["quality"]))["id6/s1/00001.wav"] == "too short"
    assert table["quality"].value_counts().to_dict() == {"within limits": 14, "too short": 1}
    assert errors(rejected) == {"id6/s1/00002.wav": "too short: 0.20 s, wanted 1 s"}
    found = manifest.checks(corpus, viewed(corpus), ["tiny"]).set_index("check")["found"]
    assert found["kept, as a list names it: too short"] == found["refused: too short"] == 1


def test_a_limit_that_changes_decodes_nothing(tmp_path, monkeypatch):
    corpus = make(tmp_path / "release")
    before = viewed(corpus)
    monkeypatch.setattr(preparation, "_write_shard", None)
    after = viewed(corpus, min_seconds=1.6)
    assert set(before["error"]) == {""} and (after["error"] == "too short: 1.50 s, wanted 1.6 s").sum() == 6
    assert viewed(corpus, min_seconds=1.5).equals(before)


def test_trials_whose_files_are_lost_stop_at_once_or_are_dropped(tmp_path, monkeypatch):
    test = files(("id5", "id6"), "wav", ".wav", wav)
    test["wav/id5/s1/00002.wav"] = b"no sound"
    corpus = make(tmp_path / "release", test=test)
    (tmp_path / "release/tiny_trials.txt").write_text(
        "1 id5/s1/00001.wav id5/s1/00002.wav\n0 id5/s1/00001.wav id6/s1/00001.wav\n"
        "1 id6/s1/00001.wav id6/s1/00003.wav\n"
    )
    text = dataclasses.replace(corpus.lists["tiny"], rows=3)
    corpus = dataclasses.replace(corpus, lists={"tiny": text})
    required = splits.required(corpus, ["tiny"], "stop")
    assert len(required) == 4 and not splits.required(corpus, ["tiny"], "drop")
    for _ in range(2):  # again out of the shards that are finished
        with pytest.raises(RequestError, match=r"^id5/s1/00002\.wav, which a trial list names, cannot be de"):
            prepare(corpus, fetch(corpus), required=required)
    (folder,) = paths.corpus_dir("tiny").glob("store-*")
    assert (folder / "shard-00000.csv").exists() and not (folder / "manifest.csv").exists()
    with pytest.raises(RequestError, match=r"first id5/s1/00002\.wav \(not audio.* missing_trials of 02_prep to drop"):
        joined(corpus)
    table, _ = joined(corpus, missing_trials="drop")
    usable = set(table.loc[table["split"] == "test", "id"])
    assert usable == {"id5/s1/00001.wav", "id6/s1/00001.wav", "id6/s1/00003.wav"}
    told = splits.write_trials(corpus, "tiny", usable, tmp_path / "left/tiny.txt")
    assert told == (
        "1 of the 3 trials of list tiny were left out, because 1 file(s) that they name cannot be used, first "
        "id5/s1/00002.wav."
    )
    assert (tmp_path / "left/tiny.txt").read_text() == (
        "0 id5/s1/00001.wav id6/s1/00001.wav\n1 id6/s1/00001.wav id6/s1/00003.wav\n"
    )
    with pytest.raises(RequestError, match="of the 3 trials of list tiny 1 are left, and not of both kinds"):
        splits.write_trials(corpus, "tiny", usable - {"id5/s1/00001.wav"}, tmp_path / "left/tiny.txt")
    with pytest.raises(RequestError, match="missing_trials of 02_prep is stop or drop, not 'skip'"):
        joined(corpus, missing_trials="skip")


def test_a_duplicate_that_a_list_names_is_still_evaluated(tmp_path):
    test = files(("id5", "id6"), "wav", ".wav", wav)
    test["wav/id5/s1/00002.wav"] = test["wav/id5/s1/00001.wav"]
    table, rejected = joined(make(tmp_path / "release", test=test))
    assert "id5/s1/00002.wav" in set(table["id"])
    assert set(table["error"]) == {""}
    assert len(rejected) == 0


def test_a_duplicate_is_not_trained_on(tmp_path):
    dev = files(DEV, "dev/aac", ".m4a", m4a)
    dev["dev/aac/id3/s1/00003.m4a"] = dev["dev/aac/id3/s1/00001.m4a"]
    table, rejected = joined(make(tmp_path / "release", dev=dev), n_validation=0)
    assert table["split"].value_counts().to_dict() == {"train": 11, "test": 3}
    assert "id3/s1/00003.m4a" not in set(table["id"])
    assert errors(rejected) == {"id3/s1/00003.m4a": "duplicate of id3/s1/00001.m4a"}


def test_the_same_sounds_in_another_file_are_a_duplicate(tmp_path):
    """Other bytes (a WAV and a FLAC), the same samples; the first in the order of names stays."""
    sound = voice("id1", 1)
    dev = {"dev/aac/id1/s1/1.wav": wav(sound), "dev/aac/id1/s1/2.flac": encoded(sound, 16000, format="FLAC")}
    corpus = make(tmp_path / "release", dev=dev)
    rows = viewed(corpus)
    told = errors(rows[rows["subset"] == "dev"])
    assert told == {"id1/s1/1.wav": "", "id1/s1/2.flac": "duplicate of id1/s1/1.wav"}


def test_validation_speakers_in_an_evaluation_list(tmp_path):
    """A speaker that is tested may not choose the checkpoint either: whoever is held out, the list is refused."""
    test = files(("id1", "id5", "id6"), "wav", ".wav", wav)
    corpus = make(tmp_path / "release", test=test)
    (tmp_path / "release" / "tiny_trials.txt").write_text(
        "1 id5/s1/00001.wav id5/s1/00002.wav\n0 id5/s1/00001.wav id1/s1/00001.wav\n"
    )
    dev = pd.DataFrame({"speaker": DEV})
    held_out = next(seed for seed in range(20) if "id1" in split_validation(dev, 2, seed))
    with pytest.raises(RequestError, match=r"^1 speaker\(s\) of the training half are in an .*, first id1"):
        joined(corpus, n_validation=2, seed=held_out)


def test_training_speakers_in_an_evaluation_list(tmp_path):
    test = files(("id1", "id5", "id6"), "wav", ".wav", wav)
    corpus = make(tmp_path / "release", test=test)
    (tmp_path / "release" / "tiny_trials.txt").write_text(
        "1 id5/s1/00001.wav id5/s1/00002.wav\n0 id5/s1/00001.wav id1/s1/00001.wav\n"
    )
    with pytest.raises(RequestError, match=r"^1 speaker\(s\) of the training half are in an evaluation list"):
        joined(corpus)


def test_lists_and_corpora_that_are_not_prepared_are_told(tiny):
    stores = [(tiny, viewed(tiny))]
    with pytest.raises(RequestError, match=r"corpus 'tinny' is not among those prepared \(did you mean 'tiny'\?\)"):
        utterances(stores, {"tinny": ["tiny"]}, train=["tiny"], n_validation=1)
    with pytest.raises(RequestError, match=r"corpus 'ocean' is not among those prepared \(known: tiny\)"):
        utterances(stores, {"tiny": ["tiny"]}, train=["ocean"], n_validation=1)
    with pytest.raises(RequestError, match="corpus tiny has no trial list 'other'"):
        utterances(stores, {"tiny": ["other"]}, train=["tiny"], n_validation=1)


def test_written_table_reads_back_as_it_was(tiny, tmp_path):
    table, _ = joined(tiny)
    table["nationality"] = "NA"  # a code, not a missing value
    table.to_csv(tmp_path / "utterances.csv", index=False)
    pd.testing.assert_frame_equal(manifest.read_utterances(tmp_path / "utterances.csv"), table)
    with pytest.raises(RequestError, match=r"other\.csv is missing: run stage 02_prep"):
        manifest.read_utterances(tmp_path / "other.csv")


def test_validation_speakers_depend_on_the_seed_alone():
    table = pd.DataFrame({"speaker": [f"s{k:02d}" for k in range(20) for _ in range(3)]})
    chosen = split_validation(table, 5, seed=1)
    assert len(set(chosen)) == 5
    assert chosen == sorted(chosen)
    assert split_validation(table.sample(frac=1, random_state=0), 5, seed=1) == chosen
    assert split_validation(table, 5, seed=2) != chosen
    assert split_validation(table, 0, seed=1) == []
    with pytest.raises(RequestError, match="19 validation speakers of 20 leave fewer than 2 to train on"):
        split_validation(table, 19, seed=1)


def test_crops(tmp_path):
    np.arange(100, dtype="<i2").tofile(tmp_path / "a.pcm")
    np.arange(1000, 1010, dtype="<i2").tofile(tmp_path / "b.pcm")
    table = pd.DataFrame(
        {"shard": ["a.pcm", "b.pcm", "a.pcm"], "offset": [10, 2, 95], "samples": [50, 4, 5]}, index=[7, 3, 5]
    )
    speech = Speech(table, tmp_path)
    assert speech.waveform(2).tolist() == [95, 96, 97, 98, 99]
    crops = speech.crops([0, 1, 2, 1], [44, 0, 2, 3], 6)
    assert crops.dtype == np.int16
    assert crops.tolist() == [
        [54, 55, 56, 57, 58, 59],  # the last six samples of the first utterance: no sample of its neighbour
        [1002, 1003, 1004, 1005, 1002, 1003],  # four samples start over
        [97, 98, 99, 95, 96, 97],
        [1005, 1002, 1003, 1004, 1005, 1002],
    ]
    assert speech.samples.tolist() == [50, 4, 5]


def test_missing_shard_is_told(tmp_path):
    with pytest.raises(RequestError, match=r"c\.pcm is missing: run stage 02_prep"):
        Speech(pd.DataFrame({"shard": ["c.pcm"], "offset": [0], "samples": [1]}), tmp_path)


def test_folder_of_the_users_own(tmp_path):
    root = tmp_path / "own"
    heard = ["dev/anna/a.wav", "dev/ben/monday/b.wav", "dev/ben/c.wav"]
    heard += ["test/cleo/a.wav", "test/dora/monday/b.wav", "test/dora/c.wav"]
    for number, name in enumerate(heard):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(wav(voice(name, number), 16000))
    (root / "dev/anna/deep/deeper").mkdir(parents=True)
    (root / "dev/anna/deep/deeper/d.wav").write_bytes(b"")
    (root / "dev/anna/notes.txt").write_text("not a recording")
    (root / "trials.txt").write_text("1 dora/monday/b.wav dora/c.wav\n0 cleo/a.wav dora/c.wav\n")
    corpus = corpora.get("folder")
    folder = prepare(corpus, fetch(corpus, source=str(root)))
    rows = read_manifest(folder)
    assert rows[["subset", "id", "speaker", "session", "error"]].to_numpy().tolist() == [
        ["dev", "anna/a.wav", "anna", "", ""],
        ["dev", "anna/deep/deeper/d.wav", "anna", "deep/deeper", "empty file"],
        ["dev", "ben/c.wav", "ben", "", ""],
        ["dev", "ben/monday/b.wav", "ben", "monday", ""],
        ["test", "cleo/a.wav", "cleo", "", ""],
        ["test", "dora/c.wav", "dora", "", ""],
        ["test", "dora/monday/b.wav", "dora", "monday", ""],
    ]
    np.testing.assert_array_equal(Speech(rows[:1], folder).waveform(0), voice("dev/anna/a.wav", 0))
    table, _ = utterances([(corpus, view(corpus, folder))], {"folder": ["folder"]}, train=[], n_validation=0)
    assert table["id"].tolist() == ["cleo/a.wav", "dora/c.wav", "dora/monday/b.wav"]
    assert set(table["gender"]) == {""}
    (root / "test/dora/c.wav").write_bytes(b"changed")
    assert prepare(corpus, fetch(corpus, source=str(root))) != folder


def test_folder_without_a_split_draws_its_test_speakers(tmp_path):
    root = tmp_path / "own"
    for k in range(10):
        for n in range(2):
            place = root / f"s{k}" / f"day{n}" / "a.wav"
            place.parent.mkdir(parents=True)
            place.write_bytes(wav(voice(f"s{k}", n)))
    corpus = corpora.get("folder")
    archives = fetch(corpus, source=str(root))
    rows = viewed(corpus, archives)
    tested = set(rows.loc[rows["subset"] == "test", "speaker"])
    assert len(tested) == 2 and rows["subset"].value_counts().to_dict() == {"dev": 16, "test": 4}
    other = viewed(corpus, archives, split_seed=1)
    assert set(other.loc[other["subset"] == "test", "speaker"]) != tested
    assert set(viewed(corpus, archives, test_share=0.5).query("subset == 'test'")["speaker"]) > tested
    assert corpus.is_drawn("folder") and corpus.list_path("folder").name == "drawn_trials.txt"
    (root / "speakers.csv").write_text(
        "id,gender,set\n" + "".join(f"s{k},f,{'test' if k < 3 else 'dev'}\n" for k in range(9))
    )
    (root / "trials.txt").write_text("1 s0/day0/a.wav s0/day1/a.wav\n0 s0/day0/a.wav s1/day0/a.wav\n")
    rows = viewed(corpus, fetch(corpus, source=str(root)))
    assert set(rows.loc[rows["subset"] == "test", "speaker"]) == {"s0", "s1", "s2"}
    assert errors(rows)["s9/day0/a.wav"] == "speaker is not in the speaker table"
    assert not corpus.is_drawn("folder")
    (root / "trials.txt").unlink()
    fetch(corpus, source=str(root))
    assert corpus.is_drawn("folder")


def test_folder_corpus_without_a_source_says_what_to_name():
    with pytest.raises(RequestError, match=r"^corpus folder needs a source: "):
        fetch(corpora.get("folder"))


def test_ocean_is_complete_and_clean(monkeypatch):
    if not MIRROR or not (Path(MIRROR) / "ocean").is_dir():
        pytest.skip("the audio of ocean is not here: SV_MIRROR names no folder with ocean/")
    monkeypatch.setenv("SV_MIRROR", MIRROR)
    corpus = corpora.get("ocean")
    rows = read_manifest(prepare(corpus, acquisition.fetch(corpus), workers=2))
    assert set(rows["error"]) == {""}
    assert rows["subset"].value_counts().to_dict() == {"dev": 1980, "test": 520}
