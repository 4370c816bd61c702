"""What is no speaker, no gender, what words of tables mean, and which corpora are of several microphones."""

import dataclasses
import hashlib
import json

import pytest

from sv_utils import corpora
from sv_utils.base.errors import RequestError
from sv_utils.corpora import _tables


@pytest.mark.parametrize("folder", ["dev", "test", "wav", "aac"])
def test_folders_of_voxceleb_are_no_speakers(folder):
    with pytest.raises(RequestError, match="name is not <speaker>/<session>/<file>"):
        corpora.parse(f"{folder}/id00012/00001.wav")


def test_a_gender_that_is_neither_is_not_known(tmp_path):
    (tmp_path / "speakers.csv").write_text("id,gender\nanna,f\nben,other\n")
    assert _tables.read(tmp_path / "speakers.csv")["gender"].to_dict() == {"anna": "f", "ben": ""}


@pytest.mark.parametrize("read", [_tables.read, _tables.read_published])
@pytest.mark.parametrize(
    ("column", "meaning", "words"),
    [
        ("subset", "dev", "dev train training development valid validation val"),  # all that choices may be made on
        ("subset", "test", "test testing eval evaluation"),
        ("gender", "f", "f female w woman weiblich femme féminin feminine"),
        ("gender", "m", "m male man männlich maennlich homme masculin masculine"),
    ],
)
def test_words_of_a_table_mean_what_they_say(tmp_path, read, column, meaning, words):
    rows = [f"{word},{word.upper()}\n" for word in words.split()]
    (tmp_path / "speakers.csv").write_text(f"id,{column}\n{''.join(rows)}", encoding="utf-8")
    assert read(tmp_path / "speakers.csv")[column].to_dict() == dict.fromkeys(words.split(), meaning)


@pytest.mark.parametrize(
    ("headings", "row", "column"),
    [
        ("speaker id name spk spk_id speaker_id speakerid speaker_name client_id", "dev,anna", None),
        ("subject participant sprecher", "dev,anna", None),
        ("subset set split half part partition group", "anna,eval", {"subset": {"anna": "test"}}),
        ("gender sex geschlecht sexe", "anna,woman", {"gender": {"anna": "f"}}),
        ("nationality country", "anna,Peru", {"nationality": {"anna": "Peru"}}),
        ("language lang", "anna,Quechua", {"language": {"anna": "Quechua"}}),
    ],
)
def test_headings_of_a_table_mean_what_they_say(tmp_path, headings, row, column):
    for heading in headings.split():
        line = f"id,{heading}" if column else f"set,{heading}"
        (tmp_path / "speakers.csv").write_text(f"{line}\n{row}\n")
        found = _tables.read_published(tmp_path / "speakers.csv").to_dict()
        assert found == (column or {"subset": {"anna": "dev"}}), heading


def test_of_several_microphones_in_a_room_the_first_is_taken():
    assert [name for name in corpora.names() if corpora.get(name).first_channel] == ["rirs_noises"]


def test_a_miniature_takes_the_place_of_all_that_is_published(tmp_path, monkeypatch):
    """Nothing of the real corpus is read in a rehearsal: neither its folder, its addresses, nor its checksums."""
    made = {"name": "mini_dev_aac.zip", "subset": "dev", "parts": [["a", "0" * 32], ["b", None]], "utterances": 7}
    real = corpora.get("mini")
    rows = {real.table.file: 3, real.lists["mini"].file: 5}
    (tmp_path / "mini.json").write_text(json.dumps({"archives": [made], "rows": rows}))
    monkeypatch.setenv("SV_REHEARSAL", str(tmp_path))
    found = corpora.get("mini")
    assert found.remotes == (corpora.Archive("mini_dev_aac.zip", "dev", (("a", "0" * 32), ("b", None)), utterances=7),)
    assert found.table == corpora.Text("mini_meta.csv", rows=3)
    assert found.lists == {"mini": corpora.Text("mini_trials.txt", rows=5)}
    assert (found.data, found.bundled, found.routes, found.public) == (None, None, (), ())
    assert found.name == "mini" and found.same_session and found.naming is real.naming
    assert corpora.get("ocean").data is not None  # of which there is no miniature
    (tmp_path / "musan.json").write_text(json.dumps({"archives": [made], "rows": {}}))
    assert corpora.get("musan").table is None and corpora.get("musan").lists == {}


def test_texts_lie_in_the_repository_or_where_they_were_fetched_to(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    own, mini = corpora.get("folder"), corpora.get("mini")
    texts = tmp_path / "corpora" / "folder" / "texts"
    assert (
        own.text_path(own.table) == texts / "speakers.csv" and mini.text_path(mini.table) == mini.data / "mini_meta.csv"
    )
    assert own.list_path("folder") == texts / "drawn_trials.txt" and own.is_drawn("folder")
    assert [text.file for text in own.texts] == ["speakers.csv", "trials.txt"]
    assert own.speakers().empty and own.speakers().index.name == "speaker"
    with pytest.raises(RequestError, match=r"drawn_trials\.txt is missing: run stage 01_download for corpus folder\.$"):
        own.trials("folder")
    texts.mkdir(parents=True)
    (texts / "trials.txt").write_text("a/1 a/2\na/1 b/1\n")
    assert own.list_path("folder") == texts / "trials.txt" and not own.is_drawn("folder")
    with pytest.raises(RequestError, match=r"trials\.txt is not 'label enrol test' a line but has no labels"):
        own.trials("folder")
    (texts / "trials.txt").write_text("1 a/1 a/2\n0 a/1 b/1\n")
    assert own.trials("folder").to_dict("list") == {"label": [1, 0], "enrol": ["a/1", "a/1"], "test": ["a/2", "b/1"]}
    (texts / "speakers.csv").write_text("b,f\na,m\n")
    assert own.speakers()["gender"].to_dict() == {"b": "f", "a": "m"}
    published = dataclasses.replace(own, table=corpora.Text("speakers.csv", rows=3))
    (texts / "speakers.csv").write_text("id,gender\nb,f\na,m\nb,m\n")
    assert published.speakers()["gender"].to_dict() == {"b": "f", "a": "m"}  # its first line
    (texts / "speakers.csv").write_text("id,gender\nb,f\n")
    with pytest.raises(RequestError, match=r"speakers\.csv has 1 rows instead of 3: remove it and fetch it again\.$"):
        published.speakers()
    (texts / "speakers.csv").unlink()
    with pytest.raises(RequestError, match=r"speakers\.csv is missing: run stage 01_download for corpus folder\.$"):
        published.speakers()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty name or control character in the name"),
        ("a/\x7fb", "empty name or control character in the name"),
        ("a/\x9f", "empty name or control character in the name"),
        ("a/\udc80", "name is not UTF-8"),
        ("a\\b", "backslash in the name"),
        ("c:x/b", "absolute name"),
        ("/a/b", "absolute name"),
        ("a/../b", "'..' in the name"),
        ("a/..b/\xa0", ""),
    ],
)
def test_names_that_are_no_paths(name, reason):
    assert corpora.unsafe(name) == reason
    for naming in (corpora.parse, corpora.get("rirs_noises").naming) if reason else ():
        with pytest.raises(RequestError, match=f"^{reason}$"):
            naming(name)


def test_who_speaks_by_the_names_of_each_corpus():
    own, rooms = corpora.get("folder").naming, corpora.get("rirs_noises").naming
    assert own("anna/1.wav") == corpora.Utterance("anna", "", "1.wav")
    assert (
        own("anna/a/b/1.wav") == corpora.Utterance("anna", "a/b", "1.wav")
        and own("anna/a/b/1.wav").id == "anna/a/b/1.wav"
    )
    for name, reason in (("1.wav", "no folder above the file says who speaks"), ("a/../b/1.wav", "'..' in the name")):
        with pytest.raises(RequestError, match=f"^{reason}$"):
            own(name)
    assert corpora.parse("x/wav/id1/s/1.wav") == corpora.Utterance("id1", "s", "1.wav")
    assert corpora.parse("id1/1.wav") == corpora.Utterance("id1", "", "1.wav")
    root = "RIRS_NOISES/"
    assert rooms(f"{root}simulated_rirs/smallroom/Room001/1.wav") == corpora.Utterance("smallroom", "Room001", "1.wav")
    assert rooms(f"{root}pointsource_noises/1.wav") == corpora.Utterance("pointsource_noises", "", "1.wav")
    real = f"{root}real_rirs_isotropic_noises/"
    assert rooms(f"{real}a_noise_b.wav") == corpora.Utterance("isotropic_noises", "", "a_noise_b.wav")
    assert rooms(f"{real}a_rir_b.wav") == corpora.Utterance("real_rirs", "", "a_rir_b.wav")
    for name in (f"{root}simulated_rirs/a/1.wav", f"{root}pointsource_noises/a/1.wav", "other/1.wav"):
        with pytest.raises(RequestError, match=r"^name is not that of an impulse response or noise$"):
            rooms(name)


def test_published_checksums_and_addresses_stay_what_they_are():
    """Whoever changes one of them on purpose changes this number too; a slip of the hand does not."""
    published = {}
    for name in corpora.names():
        corpus = corpora.get(name)
        facts = [dataclasses.astuple(one) for one in (*corpus.remotes, *corpus.public, *corpus.texts)]
        facts += [corpus.routes, list(corpus.lists), corpus.same_session, corpus.first_channel]
        published[name] = hashlib.md5(json.dumps(facts).encode()).hexdigest()[:8]
    assert published == {
        "folder": "fe2f93b4",
        "mini": "eebcfb90",
        "musan": "62038440",
        "ocean": "517f1882",
        "rirs_noises": "ce92828c",
        "voxceleb1": "f2de690b",
        "voxceleb2": "04c8e0fa",
    }
