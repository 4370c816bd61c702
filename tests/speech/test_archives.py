"""Archives in all forms: zips of any size, tars as they stream by, trees; and the corpora that come in them."""

import io
import itertools
import os
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from release import archive_of, tarred, voice, wav

from sv_utils import corpora
from sv_utils.base.errors import RequestError
from sv_utils.speech import archives
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.archives import members
from sv_utils.speech.limits import Limits, view
from sv_utils.speech.manifest import read_manifest
from sv_utils.speech.preparation import prepare
from sv_utils.speech.reader import Speech


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("SV_MIRROR", raising=False)


NAMES = ["wav/id2/s1/2.wav", "wav/id1/s1/1.wav", "wav/id1/s-1/1.wav"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_of_a_tar_come_with_their_bytes_in_its_own_order(tmp_path, mode):
    suffix = ".tar.gz" if mode == "w:gz" else ".tar"
    data = tarred({name: name.encode() for name in [*NAMES, "wav/id1/s1/notes.txt"]}, mode)
    found = list(members(archive_of(tmp_path / f"a{suffix}", data)))
    assert [member.name for member in found] == NAMES
    assert [archives.read((), member) for member in found] == [name.encode() for name in NAMES]
    assert found[0].utterance.id == "id2/s1/2.wav"


def test_a_tree_and_a_zip_give_the_same_members_in_the_same_order(tmp_path):
    for name in NAMES:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in NAMES:
            file.writestr(name, name)
    from_tree, from_zip = (list(members(archive_of(tmp_path / form))) for form in ("tree", "a.zip"))
    assert [member.name for member in from_tree] == [member.name for member in from_zip] == sorted(NAMES)
    for form, found in (("tree", from_tree), ("a.zip", from_zip)):
        files = ((str(tmp_path / form), 0),)
        assert [archives.read(files, member).decode() for member in found] == sorted(NAMES)


def test_a_broken_tar_is_told(tmp_path):
    data = tarred({f"wav/id1/s1/{k}.wav": os.urandom(5000) for k in range(20)})
    with pytest.raises(RequestError, match=r"^a\.tar\.gz is no tar or breaks off after \d+ audio files"):
        list(members(archive_of(tmp_path / "a.tar.gz", data[: len(data) // 2])))
    with pytest.raises(RequestError, match=r"^b\.tar\.gz is no tar or breaks off after 0 audio files"):
        list(members(archive_of(tmp_path / "b.tar.gz", b"hello" * 1000)))


def test_links_and_unsafe_names_in_a_tar_are_refused(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        link = tarfile.TarInfo("wav/id1/s1/1.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("wav/id1/../../../x.wav", "/wav/id1/s1/2.wav", "wav/id1/s1/3.wav", "wav/id1/s1/3.wav"):
            tar.addfile(tarfile.TarInfo(name))
    found = list(members(archive_of(tmp_path / "a.tar", file.getvalue())))
    assert [member.refusal for member in found] == [
        "unsafe: a link or device", "unsafe: '..' in the name", "unsafe: absolute name", "",
        "name twice in the archive",
    ]  # fmt: skip


def test_batches_of_a_stream_are_cut_by_bytes_too(monkeypatch, tmp_path):
    monkeypatch.setattr(archives, "STREAM_BYTES", 10_000)
    data = tarred({f"wav/id1/s1/{k}.wav": bytes(4000) for k in range(8)})
    found = members(archive_of(tmp_path / "a.tar.gz", data))
    assert [len(batch) for batch in archives.batches(found, 5)] == [3, 3, 2]


def test_zip64_directories_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    data = {f"wav/id1/s1/{k}.wav": bytes([k]) * 1500 for k in range(5)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, content in data.items():
            with file.open(name, "w", force_zip64=True) as entry:
                entry.write(content)
    assert b"PK\6\7" in (tmp_path / "a.zip").read_bytes()
    found = list(members(archive_of(tmp_path / "a.zip")))
    files = ((str(tmp_path / "a.zip"), 0),)
    assert [archives.read(files, member) for member in found] == list(data.values())


def test_listing_a_zip_takes_little_memory_for_each_file(tmp_path):
    """`zipfile` alone takes about 700 bytes a file; a million files would be most of a gigabyte."""
    count = 20_000
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for k in range(count):
            file.writestr(zipfile.ZipInfo(f"dev/aac/id{k // 100:05d}/21Uxsk56VDQ/{k:05d}.m4a"), b"")
    code = (
        "import sys, tracemalloc; from sv_utils.speech import archives; "
        "file = {'path': sys.argv[1], 'bytes': 0, 'mtime_ns': 0, 'md5': ''}; "
        "archive = archives.VerifiedArchive('a', 'dev', '', (file,)); "
        "next(archives.members(archive)); tracemalloc.start(); "
        "print(sum(len(batch) for batch in archives.batches(archives.members(archive), 500)), "
        "tracemalloc.get_traced_memory()[1])"
    )  # a process of its own: threads of other tests would count
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "a.zip"], check=True, capture_output=True, text=True)
    found, peak = map(int, ran.stdout.split())
    assert found == count
    assert peak / count < 400


MUSAN = ["music/fma/music-fma-0001.wav", "noise/free-sound/noise-free-sound-0000.wav", "speech/librivox/speech-1.wav"]


@pytest.mark.parametrize("form", ["archive", "tree"])
def test_musan_becomes_a_store_by_kinds(tmp_path, monkeypatch, form):
    folder = tmp_path / "mirror" / "musan"
    folder.mkdir(parents=True)
    files = {f"musan/{name}": wav(voice("id1", k, 0.6)) for k, name in enumerate(MUSAN)}
    if form == "archive":
        data = tarred({"musan/README": b"text", **files})
        (folder / "musan.tar.gz").write_bytes(data)
        monkeypatch.setattr("sv_utils.speech.acquisition._verify", lambda archive, pieces, *_: archive_of(pieces[0][0]))
    for name, data in files.items() if form == "tree" else ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    corpus = corpora.get("musan")
    store = prepare(corpus, fetch(corpus))
    table = read_manifest(store)
    assert table["id"].tolist() == MUSAN
    assert table["speaker"].tolist() == ["music", "noise", "speech"]
    assert set(table["error"]) == {""} and set(table["subset"]) == {"dev"}
    np.testing.assert_array_equal(Speech(table, store).waveform(1), voice("id1", 1, 0.6))


def test_room_responses_become_a_store_by_kinds(tmp_path, monkeypatch):
    response = np.zeros((4000, 2), np.int16)
    response[100], response[400] = (20000, 3000), (9000, -9000)
    folder = tmp_path / "mirror" / "rirs_noises" / "RIRS_NOISES"
    names = [
        "pointsource_noises/noise-free-sound-0000.wav",
        "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
        "real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav",
        "simulated_rirs/largeroom/Room001/Room001-00001.wav",
    ]
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(wav(np.roll(response, k, axis=0)))
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    corpus = corpora.get("rirs_noises")
    archives_ = fetch(corpus)
    store = prepare(corpus, archives_)
    table = read_manifest(store)
    assert set(table["error"]) == {""}
    assert table["speaker"].tolist() == ["pointsource_noises", "isotropic_noises", "real_rirs", "largeroom"]
    assert table["session"].tolist() == ["", "", "", "Room001"]
    # Two microphones do not add up to one: the first is taken.
    np.testing.assert_array_equal(Speech(table, store).waveform(0), response[:, 0])
    assert set(view(corpus, store, Limits(min_seconds=0.0, max_silent=1.0))["error"]) == {""}
    strict = view(corpus, store)
    assert set(strict["error"].str.split(":").str[0]) == {"too short"}


def test_ocean_in_its_public_form_has_the_ids_and_halves_of_the_other(tmp_path, monkeypatch):
    folder = tmp_path / "mirror" / "ocean"
    folder.mkdir(parents=True)
    corpus = corpora.get("ocean")
    speakers = corpus.speakers()
    known = dict(zip(speakers["source_speaker"], speakers.index))
    assert corpus.naming("dev/aac/oc00001/s1/00001.m4a").id == "oc00001/s1/00001.m4a"
    ids = [corpus.naming(f"speechocean762/WAVE/SPEAKER0001/{n}.WAV") for n in ("000010011", "000010035", "999999999")]
    assert [name and name.id for name in ids] == ["oc00001/s1/00001.m4a", "oc00001/s1/00002.m4a", None]
    table = (corpora.ocean.DATA / "ocean_utterances.csv").read_text().split()[1:]
    chosen = [line.split(",") for line in itertools.islice(table, 0, None, 250)]
    source = {speaker: number for number, speaker in known.items()}
    files = {
        f"speechocean762/WAVE/SPEAKER{source[path.split('/')[0]]}/{number}.WAV": wav(voice(number, k))
        for k, (path, number) in enumerate(chosen)
    }
    files |= {"speechocean762/WAVE/SPEAKER9999/999999999.WAV": wav(voice("x", 1)), "speechocean762/README": b"text"}
    (folder / "speechocean762.tar.gz").write_bytes(tarred(files))
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    manifest = view(corpus, prepare(corpus, fetch(corpus)))
    assert manifest["id"].tolist() == [path for path, _ in chosen]
    halves = speakers.loc[manifest["speaker"], "subset"].tolist()
    assert manifest["subset"].tolist() == halves and set(halves) == {"dev", "test"}


def entry(name=b"a.wav", flags=0, method=8, packed=20, size=30, extra=b"", mode=0, start=5, note=b""):
    """An entry of a zip's directory, with the checksum 7."""
    head = archives.ENTRY.pack(
        b"PK\1\2",
        45,
        45,
        flags,
        method,
        0,
        0,
        7,
        packed,
        size,
        len(name),
        len(extra),
        len(note),
        0,
        0,
        mode << 16,
        start,
    )
    return head + name + extra + note


def test_an_entry_of_a_directory_written_out(monkeypatch):
    """Where a file lies, what it takes packed and unpacked, and why it must not be read; sizes beyond 32 bits too."""

    def read(*given, at=0, end=10**12, **named):
        found = archives._entry(bytes(at) + entry(*given, **named), at, end)
        return (found.name, found.start, found.packed, found.size, found.method, found.crc, found.refusal)

    assert read() == read(at=3) == ("a.wav", 5, 20, 30, 8, 7, "")
    assert read(b"\x81.wav")[0] == "\xfc.wav" and read("ü.wav".encode(), flags=0x800)[0] == "ü.wav"
    wide, other = archives.WIDE, b"\x07\0\x02\0xx"
    numbers = (
        b"\1\0\x18\0" + (11 * 2**32).to_bytes(8, "little") + (22).to_bytes(8, "little") + (33).to_bytes(8, "little")
    )
    assert read(packed=wide, size=wide, start=wide, extra=other + numbers)[1:4] == (33, 22, 11 * 2**32)
    assert read(packed=wide, start=wide, extra=numbers)[1:4] == (22, 11 * 2**32, 30)
    assert read(start=wide, extra=other)[1] == wide  # there is no such field
    for refused, reason in (
        ({"mode": 0o120777}, "unsafe: symbolic link"),
        ({"flags": 1}, "encrypted"),
        ({"method": 12}, "compression method 12 of the zip is not supported"),
        ({"size": 1 << 29, "packed": 1 << 27}, "file of 536,870,912 bytes, at most 268,435,456"),
        ({"packed": 1 << 29}, "file of 536,870,912 bytes, at most 268,435,456"),
        ({"end": 24}, "damaged archive: no file where its directory says"),
        ({"size": 1 << 25}, "archive bomb: 33,554,432 bytes out of 20"),
    ):
        assert read(**refused)[-1] == reason
    assert read(end=25)[-1] == read(size=1 << 24)[-1] == read(size=1 << 25, packed=1 << 20)[-1] == ""
    first, second = entry(b"b.wav", extra=b"xx", note=b"yyy"), entry(b"c.wav")
    assert list(archives._entries(first + second)) == [(0, b"b.wav"), (len(first), b"c.wav")]
    monkeypatch.setattr(archives, "DIRECTORY_BLOCK", 10)
    both = io.BufferedReader(io.BytesIO(first + second + b"more"))
    assert archives._entries_alone(both, len(first + second)) == first + second
    with pytest.raises(zipfile.BadZipFile, match="its directory is damaged"):
        archives._entries_alone(io.BufferedReader(io.BytesIO(first + bytes(99))), len(first) + 99)


def test_what_would_unpack_to_what_no_speech_does_is_an_archive_bomb(tmp_path):
    archive = archive_of(tmp_path / "a.tar", bytes(1000))
    archives._refuse_bomb(archive, (1 << 28) + 100 * 1000)
    with pytest.raises(
        RequestError, match=r"^a\.tar is an archive bomb \(its files would take 268,535,457 bytes, out of 1,000\)"
    ):
        archives._refuse_bomb(archive, (1 << 28) + 100 * 1000 + 1)
