"""What is known before the first file is decoded: faults that once came to light after days of decoding."""

import dataclasses
import errno
import io
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from release import archive_of, files, make, tarred, voice, wav

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.corpora import Text
from sv_utils.speech import inspection
from sv_utils.speech.acquisition import fetch

TEST = ("id5", "id6")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("SV_MIRROR", "SV_VOXCELEB_KEY"):
        monkeypatch.delenv(name, raising=False)


def trees(tmp_path, corpus):
    """The release as unpacked trees, which no checksum vouches for."""
    for archive in corpus.remotes:
        data = b"".join((tmp_path / "release" / part).read_bytes() for part, _ in archive.parts)
        zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path / "trees" / archive.name.removesuffix(".zip"))
    return tmp_path / "trees"


def told(corpus, source=None, **options):
    return inspection.inspect(corpus, fetch(corpus, source=source and str(source)), ["tiny"], **options)


def test_a_good_release(tmp_path):
    found = told(make(tmp_path / "release"))
    assert found.told == [
        "The speaker table has 6 speakers (gender, nationality).",
        "List tiny has 2 trials, 1 of them target trials.",
        "All 3 files that the lists name are there.",
        "tiny_dev_aac.zip holds 12 files of 4 speakers.",
        "tiny_test_wav.zip holds 6 files of 2 speakers.",
        "8 of 8 files out of tiny_dev_aac.zip decode.",
        "6 of 6 files out of tiny_test_wav.zip decode.",
        f"By these files, it is about 0.01 h of sound, or {found.store / 1e6:.1f} MB in a store.",
    ]
    # 18 files of 1.5 s at 32,000 bytes a second, and the frames that the encoder of AAC adds
    assert found.store == pytest.approx(18 * 1.5 * 32000, rel=0.15)
    assert told(make(tmp_path / "release"), encoding="flac").store < 0.9 * found.store


@pytest.mark.parametrize(
    "header",
    [
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ",
        "\ufeffVoxCeleb1_ID\tVGGFace1_ID\tGender\tSet",
        "voxceleb2id;name;sex;set",
        "Speaker ID,Name,Gender,Set",
        "spk_id,name,gender,subset",
    ],
)
def test_a_table_in_any_spelling_is_read(tmp_path, header):
    separator = "\t" if "\t" in header else ";" if ";" in header else ","
    rows = [separator.join([f"id{k} ", f"n{k} ", "mf"[k % 2], "test " if k > 4 else "dev "]) for k in range(1, 7)]
    corpus = make(tmp_path / "release")
    (tmp_path / "release/tiny_meta.csv").write_text("\r\n".join([header, *rows, ""]), encoding="utf-8")
    table = corpus.speakers()
    assert table.index.tolist() == ["id1", "id2", "id3", "id4", "id5", "id6"]
    assert table["gender"].tolist() == ["f", "m"] * 3 and table["subset"].tolist() == ["dev"] * 4 + ["test"] * 2


def test_a_table_without_a_column_of_speakers_is_told(tmp_path):
    corpus = make(tmp_path / "release")
    (tmp_path / "release/tiny_meta.csv").write_text("who,g\n" + "id1,m\n" * 6)
    with pytest.raises(RequestError, match=r"tiny_meta\.csv has the columns who, g, of which none is the speaker's id"):
        told(corpus)


def test_a_list_with_a_wrong_row_and_one_that_is_not_the_published(tmp_path):
    corpus, path = make(tmp_path / "release"), tmp_path / "release/tiny_trials.txt"
    good = path.read_text()
    path.write_bytes(good.replace("\n", "\r\n").encode())
    assert not any("published" in line for line in told(corpus).told)
    path.write_text(good.replace("0 id5/s1/00001", "0 id5/s1/00002"))
    assert f"{path} is not the published list tiny (another md5): its figures cannot be compared with others'." in (
        told(corpus).told
    )
    path.write_text(good.replace("0 id5", "2 id5"))
    with pytest.raises(RequestError, match=r"line 2 has the label '2'"):
        told(corpus)
    path.write_text(good.replace("0 id5", "1 id5"))
    with pytest.raises(RequestError, match="holds trials of one kind alone"):
        told(corpus)


def test_a_file_that_a_list_names_and_that_is_missing(tmp_path):
    test = files(TEST, "wav", ".wav", wav)
    del test["wav/id6/s1/00001.wav"]
    corpus = make(tmp_path / "release", test=test)
    with pytest.raises(
        RequestError, match=r"^1 of the 3 files that trial lists of corpus tiny name are not there, first "
    ):
        told(corpus)
    dropped = told(corpus, missing_trials="drop").told
    assert any("id6/s1/00001.wav (not in the archives): their trials are left out" in line for line in dropped)


def test_an_empty_speaker_and_a_strange_one_in_a_tree(tmp_path):
    corpus = make(tmp_path / "release")
    root = trees(tmp_path, corpus)
    assert "All 3 files that the lists name are there." in told(corpus, root).told
    speaker = root / "tiny_dev_aac/dev/aac/id2"
    speaker.rename(tmp_path / "elsewhere")
    with pytest.raises(
        RequestError, match=r"has 9 utterances in its half 'dev' instead of the official 12: complete it"
    ):
        told(corpus, root)
    assert "tiny_dev_aac holds 9 files of 3 speakers." in told(corpus, root, allow_incomplete=True).told
    shutil.move(tmp_path / "elsewhere", speaker.with_name("id9"))
    assert "1 speaker(s) are not in the speaker table, first id9." in told(corpus, root).told


def test_files_that_do_not_decode(tmp_path):
    test = files(TEST, "wav", ".wav", wav)
    test["wav/id5/s1/00003.wav"] = b"no sound"
    corpus = make(tmp_path / "release", test=test)
    lines = told(corpus).told
    assert any(
        line.startswith("5 of 6 files out of tiny_test_wav.zip decode, not id5/s1/00003.wav (") for line in lines
    )
    test["wav/id5/s1/00001.wav"] = b"no sound either"
    with pytest.raises(RequestError, match=r"^id5/s1/00001\.wav, which a trial list names, cannot be decoded \("):
        told(make(tmp_path / "release", test=test))
    told(make(tmp_path / "release", test=test), missing_trials="drop")
    with pytest.raises(RequestError, match=r"^none of 6 files out of tiny_test_wav\.zip of corpus tiny can be decoded"):
        told(make(tmp_path / "release", test=dict.fromkeys(test, b"no sound")), missing_trials="drop")


def test_files_are_tried_by_the_channel_rule_of_their_corpus(monkeypatch):
    seen = []
    decoded = SimpleNamespace(samples=np.zeros(16_000, np.int16))
    monkeypatch.setattr(inspection.archives, "read", lambda files, member: seen.append(files) or member.name)
    monkeypatch.setattr(inspection.audio, "decode", lambda *given, **named: seen.append((*given, named)) or decoded)
    pieces = tuple({"path": name, "mtime_ns": time, "bytes": 5, "md5": ""} for name, time in (("p", 1), ("q", 2)))
    archive = SimpleNamespace(name="a.zip", files=pieces, bytes=10)
    corpus, member = SimpleNamespace(name="own", first_channel=True), SimpleNamespace(name="1.wav", utterance=None)
    found = inspection.Findings()
    assert list(inspection._probe(corpus, archive, [member], found, "pcm")) == ["1 of 1 files out of a.zip decode."]
    assert seen == [(("p", 1), ("q", 2)), ("1.wav", 16_000, {"first_channel": True})]
    assert found.store == 64_000  # of ten bytes of an archive five were read
    assert found.hours == 2 / 3600
    list(inspection._probe(corpus, archive, [member], found, "flac"))
    assert 64_000 < found.store < 70_000 and found.hours == 4 / 3600  # archives add up; zeros take little as FLAC


def test_what_a_corpus_is_asked_for_reaches_each_question(monkeypatch):
    """Two archives, of which one was removed; two lists, of which one is still to be drawn."""
    asked = []

    def note(name, answer):
        return lambda *given, **named: asked.append((name, *given, *named.values())) or answer

    here, gone = (SimpleNamespace(name=name, removed=name == "gone.zip") for name in ("here.zip", "gone.zip"))
    corpus = SimpleNamespace(name="own", is_drawn=lambda name: name == "drawn")
    index = SimpleNamespace(samples=["sample"])
    monkeypatch.setattr(inspection, "_texts", note("texts", ["texts"]))
    monkeypatch.setattr(inspection.splits, "named", note("named", {"s1/1", "s2/1"}))
    monkeypatch.setattr(inspection, "_Index", note("index", index))
    monkeypatch.setattr(inspection, "_listed", note("listed", ["listed"]))
    monkeypatch.setattr(inspection, "_counts", note("counts", ["counts"]))
    monkeypatch.setattr(inspection, "_probe", note("probe", ["probe"]))
    found = inspection.inspect(
        corpus, [here, gone], ["l", "drawn"], missing_trials="drop", allow_incomplete=True, encoding="flac"
    )
    wanted = {"s1/1", "s2/1"}
    assert asked == [
        ("texts", corpus, [here], ["l", "drawn"]),
        ("named", corpus, ["l"]),
        ("index", corpus, here, wanted),
        ("listed", corpus, wanted, [index], "drop"),
        ("counts", corpus, [here], {"here.zip": index}, True),
        ("probe", corpus, here, ["sample"], found, "flac"),
    ]
    assert found.told[:4] == ["texts", "listed", "counts", "probe"]
    asked.clear()
    told = inspection.inspect(corpus, [gone], ["l"]).told
    assert told == ["The archives were removed after the preparation; its store is used."] and asked == []


def test_names_of_an_archive_are_read_as_its_corpus_does(tmp_path, monkeypatch):
    """Sessions of two folders, which VoxCeleb's names have not; a file that may not be read; a tar is not listed."""
    for name in ("anna/a/b/1.wav", "anna/a/b/2.wav", "ben/c/d/1.wav", "cl\x1beo/a/1.wav"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(b"")
    access = inspection.os.access
    monkeypatch.setattr(inspection.os, "access", lambda path, mode: path.name != "2.wav" and access(path, mode))
    corpus = corpora.get("folder")
    (archive,) = fetch(corpus, source=str(tmp_path / "own"))
    index = inspection._Index(corpus, archive, {"anna/a/b/1.wav", "anna/a/b/2.wav", "ben/c/d/1.wav", "x"})
    assert index.found == {"anna/a/b/1.wav", "ben/c/d/1.wav"} and index.complete
    unsafe = "unsafe: empty name or control character in the name"
    assert index.refused == {"anna/a/b/2.wav": "cannot be read: no right to", r"cl\x1beo/a/1.wav": unsafe}
    assert index.spoken == {"anna": 2, "ben": 1}
    assert [member.name for member in index.samples] == ["anna/a/b/1.wav", "anna/a/b/2.wav", "ben/c/d/1.wav"]
    many = tarred({f"wav/s{k:02}/v/{k:02}.wav": b"" for k in range(40)})
    index = inspection._Index(corpora.get("mini"), archive_of(tmp_path / "a.tar", many), ())
    assert not index.complete and [member.name[4:7] for member in index.samples] == [f"s{k:02}" for k in range(8)]
    told = inspection._counts(corpora.get("mini"), [archive_of(tmp_path / "a.tar")], {"a.tar": index}, False)
    assert list(told) == []  # what is not listed is not counted, and refused for no number


def test_some_files_are_tried_however_many_there_are(tmp_path):
    test = files(TEST, "wav", ".wav", lambda samples: wav(samples[:800]), n=40)
    corpus = make(tmp_path / "release", test=test)
    assert "8 of 8 files out of tiny_test_wav.zip decode." in told(corpus).told


def test_merged_trees_want_to_be_told_who_is_tested(tmp_path):
    corpus = make(tmp_path / "release")
    for speaker, number in (("id1", 1), ("id5", 1)):
        place = tmp_path / "merged/wav" / speaker / "s1"
        place.mkdir(parents=True)
        (place / "00001.wav").write_bytes(wav(voice(speaker, number)))
    with pytest.raises(RequestError, match=r"columns gender, nationality, and not set, which says who is tested"):
        inspection.inspect(corpus, fetch(corpus, source=str(tmp_path / "merged")))


def test_speech_of_the_users_own_is_checked_too(tmp_path):
    for name in ("anna/1.wav", "anna/2.wav", "ben/1.wav", "ben/2.wav"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(wav(voice(name, 1)))
    corpus = corpora.get("folder")
    found = inspection.inspect(corpus, fetch(corpus, source=str(tmp_path / "own")), ["folder"])
    assert found.told[:3] == [
        "List folder will be drawn.",
        "own holds 4 files of 2 speakers.",
        "4 of 4 files out of own decode.",
    ]
    assert found.store == pytest.approx(4 * 1.5 * 32000, rel=0.01)


def test_the_disk_is_compared_before_and_after_fetching(tmp_path, monkeypatch):
    chosen = [corpora.get("voxceleb1"), corpora.get("mini")]
    # 33.1 GB to fetch; 352 h of 32,000 bytes a second
    monkeypatch.setattr(
        inspection.shutil, "disk_usage", lambda _: SimpleNamespace(free=33_100_000_000 + 352 * 115_200_000)
    )
    inspection.refuse_small_disk(chosen, None)
    monkeypatch.setattr(inspection.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000_000))
    with pytest.raises(RequestError) as caught:
        inspection.refuse_small_disk(chosen, None)
    assert str(caught.value) == (
        f"33.1 GB of archives and about 40.6 GB of stores are needed, and 50.0 GB are free in {tmp_path}: free 23.7 GB "
        "more, name another folder in SV_OUTPUTS, or set encoding of 02_prep to flac."
    )
    with pytest.raises(RequestError, match=r"about 22\.8 GB of stores .* 5\.9 GB more, name another .* SV_OUTPUTS\.$"):
        inspection.refuse_small_disk(chosen, None, "flac")
    found = {"tiny": inspection.Findings(store=51e9)}
    with pytest.raises(RequestError, match=r"free 1\.0 GB more, name another folder in SV_OUTPUTS\.$"):
        inspection.refuse_full(found, "flac")
    with pytest.raises(RequestError, match=r"^about 51\.0 GB of stores are needed, and 50\.0 GB are free"):
        inspection.refuse_full(found)
    begun = paths.corpus_dir("tiny") / "store-01234567"
    begun.mkdir(parents=True)
    (begun / "shard-00000.npy").write_bytes(bytes(1000))
    inspection.refuse_full({"tiny": inspection.Findings(store=50e9 + 1000)})  # what is written is not needed again
    with pytest.raises(RequestError, match="needed"):
        inspection.refuse_full({"tiny": inspection.Findings(store=50e9 + 1001)})
    (begun / "manifest.csv").write_text("")
    inspection.refuse_full(found)  # the store is finished


def test_what_has_arrived_of_archives_is_not_asked_for_again(tmp_path, monkeypatch):
    rows = [{"to_fetch": 5000, "hours": 1 / 3600}]  # a second, of 32,000 bytes
    asked = []
    monkeypatch.setattr(
        inspection.needs,
        "archives_of",
        lambda corpus, source, ask: asked.append((corpus.name, source, ask)) or [*rows, {"to_fetch": 0, "hours": 9}],
    )
    monkeypatch.setattr(inspection.shutil, "disk_usage", lambda _: SimpleNamespace(free=32_000 + 2000))
    with pytest.raises(RequestError, match="needed"):
        inspection.refuse_small_disk([corpora.get("mini")], "there")
    assert asked == [("mini", "there", False)]
    arrived = paths.corpus_dir("mini") / "archives" / "one.zip.part"
    arrived.parent.mkdir(parents=True)
    arrived.write_bytes(bytes(3000))
    inspection.refuse_small_disk([corpora.get("mini")], None)
    with pytest.raises(RequestError, match="needed"):  # beside what has arrived, the stores still need their place
        arrived.write_bytes(bytes(9000))
        monkeypatch.setattr(inspection.shutil, "disk_usage", lambda _: SimpleNamespace(free=31_999))
        inspection.refuse_small_disk([corpora.get("mini")], None)


def test_folders_that_cannot_be_written_to(tmp_path, monkeypatch):
    inspection.refuse_unwritable(["tiny"])
    assert list(paths.corpus_dir("tiny").iterdir()) == []
    with monkeypatch.context() as patch:

        class Full(io.BytesIO):
            def write(self, data):
                raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(inspection.tempfile, "NamedTemporaryFile", lambda dir, prefix: Full())
        with pytest.raises(RequestError, match=r"corpora/tiny cannot be written to \(No space left on device\)"):
            inspection.refuse_unwritable(["tiny"])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"file/corpora/tiny cannot be written to \(Not a directory\)"):
        inspection.refuse_unwritable(["tiny"])


def test_published_tables_may_name_a_speaker_twice(tmp_path):
    (tmp_path / "meta.csv").write_text("id,gender\nid1,m\nid1,m\nid2,f\n")
    corpus = dataclasses.replace(make(tmp_path), table=Text("meta.csv", rows=3))
    assert corpus.speakers()["gender"].to_dict() == {"id1": "m", "id2": "f"}
