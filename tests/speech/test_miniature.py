"""Miniatures of corpora in their real shape, and the road up to the split on them; nothing here needs TensorFlow."""

import io
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from release import rebuilt

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
