import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release import make

from sv_utils import corpora
from sv_utils.base.errors import RequestError
from sv_utils.corpora import Text


def test_names_and_nearest_name():
    assert {"ocean", "voxceleb1", "voxceleb2"} <= set(corpora.names())
    with pytest.raises(RequestError, match=r"no corpus 'voxceleb3' \(did you mean 'voxceleb[12]'\?\)"):
        corpora.get("voxceleb3")
    with pytest.raises(RequestError):
        corpora.get("../ocean")


@pytest.mark.parametrize("name", corpora.names())
def test_each_corpus_is_complete(name):
    corpus = corpora.get(name)
    assert corpus.name == name
    assert corpus.licence and corpus.citation and corpus.manual
    for archive in corpus.remotes:
        assert archive.subset in ("dev", "test")
        assert len(archive.parts) == 1 or archive.md5
        for file, md5 in archive.parts:
            assert "/" not in file
            assert len(md5) == 32 and set(md5) <= set("0123456789abcdef")
    if corpus.data:  # in the repository, so it can be read here
        assert len(corpus.speakers()) == corpus.table.rows
        for list_name in corpus.lists:
            assert set(corpus.trials(list_name)["label"]) == {0, 1}


def test_voxceleb_counts_and_lists():
    first, second = corpora.get("voxceleb1"), corpora.get("voxceleb2")
    assert [(a.utterances, a.speakers) for a in first.remotes] == [(148642, 1211), (4874, 40)]
    assert [(a.utterances, a.speakers) for a in second.remotes] == [(1092009, 5994), (None, 118)]
    assert len(second.remotes[0].parts) == 8
    assert {name: text.rows for name, text in first.lists.items()} == {
        "VoxCeleb1-O": 37720, "VoxCeleb1-O-cleaned": 37611, "VoxCeleb1-E": 581480, "VoxCeleb1-E-cleaned": 579818,
        "VoxCeleb1-H": 552536, "VoxCeleb1-H-cleaned": 550894,
    }  # fmt: skip
    assert first.lists["VoxCeleb1-H-cleaned"].url.endswith("/meta/list_test_hard2.txt")


def test_lists_find_their_corpora():
    assert corpora.find_lists(["VoxCeleb1-E", "ocean", "VoxCeleb1-O"], ["voxceleb2", "voxceleb1", "ocean"]) == {
        "voxceleb1": ["VoxCeleb1-E", "VoxCeleb1-O"],
        "ocean": ["ocean"],
    }
    with pytest.raises(RequestError, match=r"there is no trial list 'ocean' in the corpora .* \(known: VoxCeleb1-E, "):
        corpora.find_lists(["ocean"], ["voxceleb1"])


def test_ocean_tables():
    corpus = corpora.get("ocean")
    speakers = corpus.speakers()
    assert speakers.loc["oc00003", ["gender", "age", "subset"]].tolist() == ["f", "6", "dev"]
    trials = corpus.trials("ocean")
    assert int(trials["label"].sum()) == 1040
    tested = set(trials["enrol"].str[:7]) | set(trials["test"].str[:7])
    assert len(tested) == 26
    assert set(speakers.loc[sorted(tested), "subset"]) == {"test"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffName ,VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nA_B ,id00012 ,n000001 ,m ,dev \n", ["A_B", "m", "dev"]),
        (
            "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid00012\tA.B.\tf\tNew Zealand\ttest\n",
            ["f", "New Zealand", "test"],
        ),
        ("id,gender,nationality\nid00012,f,NA\n", ["f", "NA"]),
    ],
    ids=["vox2: byte-order mark, blanks", "vox1: tabs", "plain"],
)
def test_speaker_tables_in_all_forms(tmp_path, text, expected):
    (tmp_path / "meta.csv").write_text(text, encoding="utf-8")
    corpus = dataclasses.replace(make(tmp_path), table=Text("meta.csv", rows=1))
    speakers = corpus.speakers()
    assert list(speakers.index) == ["id00012"]
    assert speakers.iloc[0].tolist() == expected


def test_table_with_missing_rows_is_refused(tmp_path):
    corpus = make(tmp_path)
    with open(tmp_path / "tiny_trials.txt", "a") as file:
        file.write("1 id5/s1/00001.wav id5/s1/00003.wav\n")
    with pytest.raises(RequestError, match=r"tiny_trials\.txt has 3 rows instead of 2"):
        corpus.trials("tiny")
    with pytest.raises(RequestError, match=r"no trial list 'tinny' \(did you mean 'tiny'\?\)"):
        corpus.trials("tinny")
    (tmp_path / "tiny_trials.txt").write_text("1 a b\nid5/s1/00001.wav id5/s1/00003.wav 1\n")
    with pytest.raises(RequestError, match="not 'label enrol test'"):
        corpus.trials("tiny")
    (tmp_path / "tiny_trials.txt").unlink()
    with pytest.raises(RequestError, match=r"tiny_trials\.txt is missing: run stage 01_download"):
        corpus.trials("tiny")


def test_ids_do_not_depend_on_the_layout():
    for name in ("wav/id10001/a-b_c/00001.wav", "id10001/a-b_c/00001.wav", "dev/aac/id10001/a-b_c/00001.wav"):
        utterance = corpora.parse(name)
        assert (utterance.speaker, utterance.session, utterance.file) == ("id10001", "a-b_c", "00001.wav")
        assert utterance.id == "id10001/a-b_c/00001.wav"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/wav/id1/s1/1.wav", "absolute name"),
        ("C:/id1/s1/1.wav", "absolute name"),
        ("wav/id1/../../1.wav", "'..' in the name"),
        ("../id1/s1/1.wav", "'..' in the name"),
        ("wav\\id1\\s1\\1.wav", "backslash in the name"),
        ("wav/id1/s1/1\n.wav", "empty name or control character in the name"),
        ("wav/id1/1.wav", "name is not <speaker>/<session>/<file>"),
        ("wav/1.wav", "name is not <speaker>/<session>/<file>"),
        ("1.wav", "name is not <speaker>/<session>/<file>"),
    ],
)
def test_unsafe_names_are_refused(name, reason):
    with pytest.raises(RequestError) as caught:
        corpora.parse(name)
    assert str(caught.value) == reason


@given(st.text(alphabet=st.sampled_from("ab./\\:\0 "), max_size=12))
def test_no_parsed_name_leaves_its_folder(name):
    try:
        pieces = corpora.parse(name).id.split("/")
    except RequestError:
        return
    assert len(pieces) in (2, 3)
    assert not {"..", ""} & set(pieces)
    assert "\\" not in name and "\0" not in name
