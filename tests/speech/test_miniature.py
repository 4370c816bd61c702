"""Miniatures of corpora in their real shape, and the road up to the split on them; nothing here needs TensorFlow."""

import dataclasses
import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from release import md5, rebuilt

from sv_utils import corpora
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.evaluation import trials
from sv_utils.speech import inspection, limits, miniature, preparation, splits
from sv_utils.speech.acquisition import fetch

LISTS = ["VoxCeleb1-O", "VoxCeleb1-H-cleaned"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Miniatures of VoxCeleb1 and 2: 12 speakers each that train, or are in the half that only E and H name."""
    root = tmp_path_factory.mktemp("miniatures")
    for name in ("voxceleb1", "voxceleb2"):
        miniature.make(corpora.get(name), root, speakers=12)
    return root


@pytest.fixture
def release(made, tmp_path, monkeypatch):
    """A copy of them, to be damaged, where `corpora.get` and `fetch` look for it."""
    shutil.copytree(made, tmp_path / "release")
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("SV_MIRROR", "SV_REHEARSAL"):
        monkeypatch.setenv(name, str(tmp_path / "release"))
    monkeypatch.delenv("SV_VOXCELEB_KEY", raising=False)
    return tmp_path / "release"


def inspected(name="voxceleb1", **options):
    corpus = corpora.get(name)
    return inspection.inspect(corpus, fetch(corpus), LISTS if name == "voxceleb1" else [], **options).told


def a_listed_file(release):
    return (release / "voxceleb1/veri_test.txt").read_text().split()[1]


def test_a_miniature_has_the_shape_of_the_published_corpus(release):
    one, two = corpora.get("voxceleb1"), corpora.get("voxceleb2")
    assert [len(item.parts) for item in two.remotes] == [8, 1]
    assert [item.name for item in one.remotes] == ["vox1_dev_wav.zip", "vox1_test_wav.zip"]
    assert one.remotes[1].speakers == 12 and two.remotes[0].speakers == 12
    fetch(one)
    assert set(one.speakers().index[:12]) <= {f"id{n}" for n in range(10001, 10013)}
    assert (release / "voxceleb2/vox2_meta.csv").read_text().startswith("VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \n")
    assert (release / "voxceleb1/vox1_meta.csv").read_text().startswith("VoxCeleb1 ID\tVGGFace1 ID\t")
    with zipfile.ZipFile(io.BytesIO(b"".join((release / "voxceleb2" / f).read_bytes() for f, _ in two.remotes[0].parts))) as whole:  # fmt: skip  # noqa: E501
        assert all(name.startswith("dev/aac/id0") and name.endswith(".m4a") for name in whole.namelist())
    tested = set(one.trials("VoxCeleb1-O")["enrol"].str[:7])
    assert tested <= {f"id{n}" for n in range(10270, 10310)}
    assert not set(one.trials("VoxCeleb1-H-cleaned")["enrol"].str[:7]) <= tested


def test_no_two_of_its_speakers_say_the_same():
    first, second = miniature.voice(0, 0), miniature.voice(miniature.VOICES, 0)  # of the same embedded voice
    assert 1.6 * 16000 < len(first) < 2.4 * 16000 and np.abs(first).max() > 1000
    assert not np.array_equal(first, second) and np.array_equal(first, miniature.voice(0, 0))


def test_who_makes_a_miniature_hands_on_its_size(tmp_path, monkeypatch):
    """How many speakers, utterances and processes, and the published texts, by kind of corpus."""
    made, described = [], []
    monkeypatch.setattr(miniature, "describe", lambda corpus, *given: described.append((corpus.name, *given)))
    monkeypatch.setattr(miniature, "packed", lambda archive, here, files: (archive.name, here, files))
    monkeypatch.setattr(miniature, "musan", lambda: "kinds")
    monkeypatch.setattr(miniature, "rooms", lambda: "rooms")
    monkeypatch.setattr(miniature, "_spoken", lambda corpus, *given: made.append((corpus.name, *given)) or ["spoken"])
    monkeypatch.setattr(miniature, "_own", lambda *given: made.append(given))
    for name in ("musan", "rirs_noises", "ocean"):
        miniature.make(corpora.get(name), tmp_path, 7, 3, 5, tmp_path / "texts")
    assert described == [
        ("musan", tmp_path, [("musan.tar.gz", tmp_path / "musan", "kinds")]),
        ("rirs_noises", tmp_path, [("rirs_noises.zip", tmp_path / "rirs_noises", "rooms")]),
        ("ocean", tmp_path, ["spoken"]),
    ]
    miniature.make(corpora.get("folder"), tmp_path, 7, 6)
    miniature.make(corpora.get("folder"), tmp_path, None)
    here = tmp_path / "folder"
    assert made == [("ocean", tmp_path / "ocean", 7, 3, 5, tmp_path / "texts"), (here, 7, 6), (here, 12, 4)]


def test_what_is_said_depends_on_the_speaker_and_on_the_turn(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(miniature, "voice", lambda *given: asked.append(given) or given)

    def encode(samples):
        return str(samples).encode()

    found = miniature._says(7, "id1", [("video", "00001"), ("other", "00002")], ".m4a", encode)
    assert found == [("dev/aac/id1/video/00001.m4a", b"(7, 0)"), ("dev/aac/id1/other/00002.m4a", b"(7, 1)")]
    assert miniature._says(7, "id1", [("v", "1")], ".wav", encode) == [("wav/id1/v/1.wav", b"(7, 0)")]
    jobs = [(k, f"id{k}", [("v", "1")], ".wav", encode) for k in range(60)]
    pools = []

    class Pool:
        def __init__(self, **settings):
            pools.append(settings)

        def __call__(self, tasks):
            return [function(*given) for function, given, _ in tasks]

    monkeypatch.setattr(miniature.joblib, "Parallel", Pool)
    one, many, few = (list(miniature._pool(*given)) for given in ((1, jobs), (3, jobs), (3, jobs[:49])))
    assert one == many and few == one[:49] and one[1] == [("wav/id1/v/1.wav", b"(1, 0)")]
    assert pools == [{"n_jobs": 3, "return_as": "generator", "batch_size": 8}]
    asked.clear()
    monkeypatch.setattr(miniature, "wav", lambda samples: b"")
    miniature._own(tmp_path, 2, 3)
    assert asked == [(number, turn) for number in (0, 1) for turn in (0, 1, 2)]
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wav"))
    assert found == [f"speaker00{k}/day{place}.wav" for k in (0, 1) for place in ("0/0", "0/2", "1/1")]


def test_each_archive_of_a_miniature_is_told_who_says_what_in_it(tmp_path, monkeypatch):
    """Two of three dev speakers with three files, both tested ones with four of two sessions; a list of the latter."""
    told = []
    monkeypatch.setattr(
        miniature, "_pool", lambda workers, jobs: told.append((workers, jobs)) or [[k] for k in range(2)]
    )
    monkeypatch.setattr(miniature, "packed", lambda archive, here, files, n: (archive.name, here, list(files), n))
    monkeypatch.setattr(miniature, "write_table", lambda *given: told.append(given))
    half = corpora.Archive("b_wav.zip", "test", (("q", None),), speakers=2)
    dev = corpora.Archive("a_aac.zip", "dev", (("p", None),), speakers=3)
    texts = {"table": corpora.Text("t.csv", rows=1), "lists": {"l": corpora.Text("l.txt", rows=1)}}
    corpus = dataclasses.replace(corpora.get("ocean"), name="own", remotes=(dev, half), **texts)
    found = miniature._spoken(corpus, tmp_path, 2, 3, 4, None)
    assert found == [("a_aac.zip", tmp_path, [0, 1], 2), ("b_wav.zip", tmp_path, [0, 1], 2)]

    def places(name, *sessions):
        return [(miniature.session(name, k), f"{turn:05d}") for turn, k in enumerate(sessions, 1)]

    spoken = [(n, f"id{12 + n:05d}", places(f"id{12 + n:05d}", 0, 1, 2), ".m4a", miniature.m4a) for n in (0, 1)]
    names = ["id00015", "id00016"]
    heard = [(n + 2, name, places(name, 0, 0, 1, 1), ".wav", miniature.wav) for n, name in enumerate(names)]
    every = {"id00012": 0, "id00013": 1, "id00015": 2, "id00016": 3}
    assert told == [(4, spoken), (4, heard), (corpus, tmp_path, every, set(names))]
    lines = (tmp_path / "l.txt").read_text().splitlines()
    first, second = (miniature.session("id00015", k) for k in (0, 1))
    assert len(lines) == 16 and lines[2] == f"1 id00015/{first}/00002.wav id00015/{second}/00003.wav"


def test_a_voice_is_its_own_with_another_far_behind(monkeypatch):
    """Two embedded voices of one tone each: the near one sixteen times as loud as the one behind."""
    monkeypatch.setattr(miniature, "VOICES", 2)
    tones = [np.sin(2 * np.pi * 400 * k * np.arange(48_000) / 16_000).astype(np.float32) * 1e4 for k in (1, 3)]
    monkeypatch.setattr(miniature, "_voices", lambda: tones)
    drawn = {}
    for speaker in range(1, 20, 2):  # of those of the second tone, one with the first behind it
        rng = np.random.default_rng(speaker)
        drawn[speaker] = rng.uniform(0.82, 1.22), rng.integers(2)
    speaker = next(one for one, (_, behind) in drawn.items() if behind == 0)
    sound = miniature.voice(speaker, 5, 1.0)
    assert sound.dtype == np.int16 and len(sound) == 16_000
    power = np.abs(np.fft.rfft(sound)) ** 2 / 8000**2
    near, far = (round(tone * drawn[speaker][0]) for tone in (1200, 400))
    loud = [np.sqrt(power[place - 20 : place + 21].sum()) for place in (near, far)]
    assert loud == pytest.approx([8000, 500], rel=0.05)
    assert 1.7 * 16_000 <= len(miniature.voice(3, 5)) <= 2.3 * 16_000
    others = [miniature.voice(*given, 0.5) for given in ((3, 5), (3, 6), (4, 5), (5, 3))]
    assert len({one.tobytes() for one in others}) == 4


def test_names_and_trials_are_the_published_ones_where_they_are_known(tmp_path):
    listed = [f"1 id1027{k}/abcdefghij{k}/00007.wav id1027{k}/abcdefghij{k}/00008.wav" for k in range(3)]
    (tmp_path / "veri_test.txt").write_text(
        "\n".join([*listed, "0 id10270/abcdefghij0/00007.wav id10271/a/00001.wav", ""])
    )
    miniature.make(corpora.get("voxceleb1"), tmp_path / "made", speakers=2, texts=tmp_path)
    assert (tmp_path / "made/voxceleb1/veri_test.txt").read_text() == (tmp_path / "veri_test.txt").read_text()
    with zipfile.ZipFile(tmp_path / "made/voxceleb1/vox1_test_wav.zip") as archive:
        assert "wav/id10272/abcdefghij2/00008.wav" in archive.namelist()


def test_the_road_to_the_split(release, tmp_path):
    assert "All 60 files that the lists name are there." in inspected()
    views = []
    for name, lists in (("voxceleb1", LISTS), ("voxceleb2", [])):
        corpus = corpora.get(name)
        required = splits.required(corpus, lists, "stop")
        views.append((corpus, limits.view(corpus, preparation.prepare(corpus, fetch(corpus), required=required))))
    table, refused = splits.utterances(views, {"voxceleb1": LISTS}, train=["voxceleb2"], n_validation=2)
    assert table["split"].value_counts().to_dict() == {"test": 60, "train": 20, "validation": 4}
    assert set(table["quality"]) == {"within limits"} and refused.empty
    told = splits.write_trials(views[0][0], LISTS[0], set(table["id"]), tmp_path / "trials.txt")
    assert told == "" and len(trials.read(tmp_path / "trials.txt")) == 96


def test_musan_rooms_and_own_speech(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("musan", "rirs_noises", "folder"):
        miniature.make(corpora.get(name), tmp_path / "release", speakers=3)
    for name in ("SV_MIRROR", "SV_REHEARSAL"):
        monkeypatch.setenv(name, str(tmp_path / "release"))
    kinds = {}
    for name in ("musan", "rirs_noises", "folder"):
        corpus = corpora.get(name)
        found = limits.view(
            corpus, preparation.prepare(corpus, fetch(corpus)), limits.Limits(min_seconds=0.0, max_silent=1.0)
        )
        assert set(found["error"]) == {""}
        kinds[name] = sorted(found["speaker"].unique())
    assert kinds["musan"] == ["music", "noise", "speech"]
    assert kinds["rirs_noises"] == ["largeroom", "mediumroom", "pointsource_noises", "real_rirs", "smallroom"]
    assert kinds["folder"] == ["speaker000", "speaker001", "speaker002"]


def test_a_listed_file_that_is_missing_ends_in_one_sentence(release):
    name = a_listed_file(release)
    rebuilt(release, lambda files: files.pop(f"wav/{name}"))
    with pytest.raises(
        RequestError, match=rf"^1 of the 60 files that .* name are not there, first {name} \(not in the"
    ):
        inspected()
    assert any(
        f"first {name} (not in the archives): their trials are left out" in line
        for line in inspected(missing_trials="drop")
    )


def test_a_listed_file_that_is_clipped_is_judged_and_flagged(release):
    name = a_listed_file(release)
    loud = miniature.wav(np.sign(miniature.voice(1, 99)).astype(np.int16) * 32767)
    rebuilt(release, lambda files: files.update({f"wav/{name}": loud}))
    corpus = corpora.get("voxceleb1")
    view = limits.view(corpus, preparation.prepare(corpus, fetch(corpus)))
    table, refused = splits.utterances([(corpus, view)], {"voxceleb1": LISTS}, train=[], n_validation=0)
    assert table.set_index("id")["quality"].loc[name] == "clipped" and len(table) == 60 and refused.empty


def test_a_part_that_is_damaged_or_missing_is_named(release):
    part = release / "voxceleb2/vox2_dev_aac_partac"
    data = bytearray(part.read_bytes())
    data[1000] ^= 1
    part.write_bytes(data)
    with pytest.raises(
        RequestError, match=r"vox2_dev_aac_partac .* it is damaged or cut off; remove it and fetch it again"
    ):
        inspected("voxceleb2")
    part.unlink()
    with pytest.raises(RequestError, match=r"vox2_dev_aac_partac is missing"):
        inspected("voxceleb2")


def test_a_table_or_list_with_a_wrong_row_is_named(release):
    table = release / "voxceleb2/vox2_meta.csv"
    table.write_text(table.read_text().replace("VoxCeleb2 ID ", "Celebrity"))
    with pytest.raises(
        RequestError, match=r"vox2_meta\.csv has the columns Celebrity, .*, of which none is the speaker's id"
    ):
        inspected("voxceleb2")
    path = release / "voxceleb1/veri_test.txt"
    path.write_text(path.read_text().replace("id10270", "id19999", 1))
    with pytest.raises(
        RequestError, match=r"^1 of the 61 files that trial lists of corpus voxceleb1 name are not there"
    ):
        inspected()


def test_a_full_disk_loses_no_finished_shard(release, monkeypatch):
    """At half of the work: finished shards stay, and only the others are made when it goes on."""
    corpus, write, done = corpora.get("voxceleb2"), preparation._write_rows, []

    def full_in_the_midst(path, rows):
        if len(done) == 3:
            raise OSError(28, "No space left on device")
        done.append(path)
        write(path, rows)

    monkeypatch.setattr(preparation, "_write_rows", full_in_the_midst)
    with pytest.raises(WorkError, match=r"no space left for .*: free some and run again, finished shards stay"):
        preparation.prepare(corpus, fetch(corpus), utterances_per_shard=10)
    monkeypatch.setattr(preparation, "_write_rows", lambda path, rows: (done.append(path), write(path, rows)))
    folder = preparation.prepare(corpus, fetch(corpus), utterances_per_shard=10)
    shards = [path.name.split(".")[1] for path in done if path.name.startswith(".shard-")]
    assert len(shards) == len(set(shards)) == len(list(folder.glob("shard-*.csv")))
    assert pd.read_csv(folder / "manifest.csv")["error"].isna().all()


def test_trials_that_are_drawn_written_out(monkeypatch):
    files = [(speaker, "v", number) for speaker in "abc" for number in "12"]
    assert miniature._drawn(files, ".wav") == [
        trial
        for one, other in ("ab", "bc", "ca")
        for k, j in ((1, 2), (2, 1))
        for trial in (
            (1, f"{one}/v/{k}.wav", f"{one}/v/{j}.wav"),
            (0, f"{one}/v/{k}.wav", f"{other}/v/{k}.wav"),
        )
    ]
    many = miniature._drawn([(f"s{k:02}", "v", str(j)) for k in range(25) for j in range(6)], ".m4a")
    assert {name.split("/")[0] for _, name, _ in many} == {f"s{k:02}" for k in range(0, 24, 2)}  # twelve of them
    assert len(many) == 12 * 4 * 2 and many[6][1:] == ("s00/v/3.m4a", "s00/v/4.m4a")


def test_of_a_published_list_the_first_trials_are_taken_that_name_few_files(tmp_path, monkeypatch):
    monkeypatch.setattr(miniature, "LISTED", 3)
    (tmp_path / "l.txt").write_text("1 a/v/1 a/v/2\n0 a/v/1 b/v/1\n1 c/v/1 c/v/2\n0 a/v/2 b/v/1\n")
    assert miniature._published(tmp_path / "l.txt") == [
        (1, "a/v/1", "a/v/2"), (0, "a/v/1", "b/v/1"), (0, "a/v/2", "b/v/1"),
    ]  # fmt: skip
    assert miniature._published(tmp_path / "none.txt") == []


def test_a_made_archive_is_described_by_what_was_written(tmp_path):
    """In as many parts as are published, each with its checksum; together the archive."""
    published = corpora.Archive("a.zip", "dev", (("a_1", None), ("a_2", None)))
    files = [("wav/s/v/1.wav", b"12345" * 20), ("wav/s/v/2.wav", b"6" * 41)]
    found = miniature.packed(published, tmp_path, iter(files), 1)
    parts = [(tmp_path / name).read_bytes() for name in ("a_1", "a_2")]
    whole = b"".join(parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_1", "a_2"] and 0 <= len(parts[0]) - len(parts[1]) < 2
    assert found == {
        "name": "a.zip", "subset": "dev", "parts": [[f"a_{k + 1}", md5(part)] for k, part in enumerate(parts)],
        "gigabytes": len(whole) / 1e9, "md5": md5(whole), "hours": 2 * 2 / 3600, "utterances": 2, "speakers": 1,
    }  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert [(name, archive.read(name)) for name in archive.namelist()] == files
    tar = dataclasses.replace(published, name="a.tar.gz", subset="", parts=(("a.tar.gz", None),))
    found = miniature.packed(tar, tmp_path, iter(files))
    assert found["md5"] is found["utterances"] is found["speakers"] is None and found["subset"] == ""
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        assert [(one.name, archive.extractfile(one).read()) for one in archive] == files


def test_the_names_of_a_miniature_are_the_published_ones_or_run_like_them(tmp_path):
    dev, test = miniature.names_of(corpora.get("voxceleb1"), None)
    assert len(dev) == 1211 and test == [f"id{n}" for n in range(10270, 10310)] and dev[0] == "id10001"
    dev, test = miniature.names_of(corpora.get("voxceleb2"), None)
    assert (len(dev), len(test), dev[0], dev[-1], test[0]) == (5994, 118, "id00012", "id06005", "id06006")
    small = dataclasses.replace(corpora.get("voxceleb2"), table=corpora.Text("t.csv", rows=3))
    (tmp_path / "t.csv").write_text("id,set\ns2,dev\ns3,test\ns1,dev\n")
    assert miniature.names_of(small, tmp_path) == (["s1", "s2"], ["s3"])
    (tmp_path / "t.csv").write_text("id,set\ns2,dev\n")  # not the published one
    assert miniature.names_of(small, tmp_path) == (dev, test)


def test_what_corpora_get_reads_counts_the_rows_that_were_made(tmp_path):
    texts = {"table": corpora.Text("t.csv", rows=99), "lists": {"l": corpora.Text("l.txt", rows=99)}}
    corpus = dataclasses.replace(corpora.get("ocean"), **texts)
    (tmp_path / "ocean").mkdir()
    miniature.write_table(corpus, tmp_path / "ocean", {"s2": 1, "s1": 2, "s3": 5}, {"s3"})
    (tmp_path / "ocean/l.txt").write_text("1 a b\n0 a c\n")
    assert (tmp_path / "ocean/t.csv").read_text() == (
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \ns1 ,n000002 ,m ,dev \ns2 ,n000001 ,f ,dev \ns3 ,n000005 ,f ,test \n"
    )
    miniature.describe(corpus, tmp_path, [{"name": "a"}])
    told = json.loads((tmp_path / "ocean.json").read_text())
    assert told == {"archives": [{"name": "a"}], "rows": {"t.csv": 3, "l.txt": 2}}
