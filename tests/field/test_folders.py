"""
Folders of recordings as people keep them, each kind from a report about another system, its project and number named.

Where no report is named, the kind was found here while mending the others.
"""

import os
import socket
from pathlib import Path

import pytest
from release import voice, wav

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.evaluation import trials
from sv_utils.speech import acquisition, archives, layouts, limits, preparation, splits, trees
from sv_utils.speech.manifest import checks

FOLDER = corpora.get("folder")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("SV_MIRROR", raising=False)


@pytest.fixture
def own(tmp_path):
    """Make files of a tree; what is in them matters to nobody before the decoding."""

    def put(*names, root="own"):
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
        return tmp_path / root

    return put


def utterances(root):
    """Halves and ids, as stage 02 will read them."""
    found = acquisition.fetch(FOLDER, source=str(root))
    return sorted(
        (archive.subset, member.utterance.id)
        for archive in found
        for member in archives.members(archive, FOLDER.naming)
        if member.utterance
    )


def ids(root):
    return [identity for _, identity in utterances(root)]


LAYOUTS = {
    "speaker/file": (["anna/1.wav", "ben/1.wav"], [("", "anna/1.wav"), ("", "ben/1.wav")]),
    "speaker/session/file": (["anna/a/1.wav", "ben/b/1.wav"], [("", "anna/a/1.wav"), ("", "ben/b/1.wav")]),
    "speaker/year/month/file": (
        ["anna/2024/05/1.wav", "ben/2023/01/1.wav"],
        [("", "anna/2024/05/1.wav"), ("", "ben/2023/01/1.wav")],
    ),
    "train and test": (["train/anna/1.wav", "test/ben/1.wav"], [("dev", "anna/1.wav"), ("test", "ben/1.wav")]),
    "Dev and Test": (["Dev/anna/1.wav", "Test/ben/1.wav"], [("dev", "anna/1.wav"), ("test", "ben/1.wav")]),
    "train and valid": (["train/anna/1.wav", "valid/ben/1.wav"], [("dev", "anna/1.wav"), ("test", "ben/1.wav")]),
    "train, valid, test": (
        ["train/anna/1.wav", "valid/ben/1.wav", "test/cleo/1.wav"],
        [("dev", "anna/1.wav"), ("dev", "ben/1.wav"), ("test", "cleo/1.wav")],
    ),
    "VoxCeleb": (
        ["dev/wav/id1/v/1.wav", "test/wav/id2/v/1.wav"],
        [("dev", "id1/v/1.wav"), ("test", "id2/v/1.wav")],
    ),
    "LibriSpeech": (
        ["LibriSpeech/train-clean-100/19/198/19-198-0000.flac", "LibriSpeech/test-clean/61/70968/61-70968-0000.flac"],
        [("dev", "19/198/19-198-0000.flac"), ("test", "61/70968/61-70968-0000.flac")],
    ),
    "TIMIT": (
        ["TIMIT/TRAIN/DR1/FCJF0/SA1.WAV", "TIMIT/TRAIN/DR2/MARC0/SA1.WAV", "TIMIT/TEST/DR1/FAKS0/SA1.WAV"],
        [("dev", "FCJF0/SA1.WAV"), ("dev", "MARC0/SA1.WAV"), ("test", "FAKS0/SA1.WAV")],
    ),
    "VCTK": (
        ["wav48/p225/p225_001.wav", "wav48/p226/p226_001.wav"],
        [("", "p225/p225_001.wav"), ("", "p226/p226_001.wav")],
    ),
    "female and male": (["female/anna/1.wav", "male/ben/1.wav"], [("", "anna/1.wav"), ("", "ben/1.wav")]),
    "speakers called test": (
        ["test_01/a/1.wav", "test_02/a/1.wav"],
        [("", "test_01/a/1.wav"), ("", "test_02/a/1.wav")],
    ),
    "a stray file in a half": (
        ["train/anna/1.wav", "test/ben/1.wav", "test/jingle.wav"],
        [("dev", "anna/1.wav"), ("test", "ben/1.wav")],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_recognised(own, name):
    """Of Kaldi's, SpeechBrain's and Resemblyzer's users; kaldi-asr/kaldi#1014 has TIMIT."""
    files, expected = LAYOUTS[name]
    assert utterances(own(*files)) == sorted(expected)


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ("train training", {"dev": "dev", "test": "test"}),
        ("dev devel development", {"train": "dev", "valid": "test"}),
        ("valid validation val", {"train": "dev", "dev": "dev"}),
        ("test testing eval evaluation", {"train": "dev", "dev": "dev", "valid": "dev"}),
    ],
)
def test_words_of_folders_that_split_mean_what_they_say(words, beside):
    """Judged is test where it is, else valid, else dev; all others are trained on."""
    own = "test" if "test" not in beside.values() else "dev"
    for word in words.split():
        for name in (word, f"{word.title()}-clean-100"):
            files = [f"{folder}/of {folder}/1.wav" for folder in (*beside, name)]
            expected = sorted({**beside, name: own}.items())
            assert layouts.understand(Path("x"), files) == [layouts.Tree(*pair) for pair in expected], name


def test_folders_that_hold_everything_or_a_group_are_no_speakers():
    everything = "dev test wav wavs wav16 wav48 aac m4a flac mp3 ogg audio audios speech sound sounds clips data files"
    groups = "DR1 dr8 female Male women men woman man f M"
    for name in [*everything.split(), *["recordings", "samples", "segments", "Voices"], *groups.split()]:
        files = [f"{half}/{name}/{speaker}/1.wav" for half, speaker in (("train", "anna"), ("eval", "ben"))]
        assert layouts.understand(Path("x"), files) == [
            layouts.Tree(f"eval/{name}", "test"),
            layouts.Tree(f"train/{name}", "dev"),
        ], name


def test_what_was_understood_is_printed_before_anything_is_decoded(own, capsys):
    root = own(*(f"{name}/{day}/{k}.wav" for name in ("anna", "ben", "cleo", "dora") for day in "xy" for k in "12"))
    own("anna/notes.txt", "anna/.hidden.wav")
    acquisition.fetch(FOLDER, source=str(root))
    said = capsys.readouterr().out
    assert "16 audio file(s) in 4 speakers' folders; left out: 1 hidden or foreign (first anna/.hidden.wav), " in said
    assert "1 of no audio format by their suffix (first anna/notes.txt)" in said
    assert "4 speaker(s) split by table or draw, 8 session(s), 16 file(s): anna (2 session(s), 4 file(s)), ben" in said


def test_what_is_said_of_each_tree_written_out():
    """Its half, its speakers with their sessions and files; of more than three the first three."""
    spoken = [corpora.Utterance(name, day, "1.wav") for name in ("dora", "anna", "ben", "cleo") for day in "xy"]
    trees_ = [layouts.Tree("train", "dev"), layouts.Tree("test", "test"), layouts.Tree("", "")]
    heard = {"train": spoken, "test": [*spoken[:2], spoken[1]], "": spoken[2:3]}
    assert layouts.told(trees_, heard) == [
        "train: 4 speaker(s) to train on, 8 session(s), 8 file(s): anna (2 session(s), 2 file(s)), "
        "ben (2 session(s), 2 file(s)), cleo (2 session(s), 2 file(s)), …",
        "test: 1 speaker(s) to judge by, 2 session(s), 3 file(s): dora (2 session(s), 3 file(s))",
        "the folder itself: 1 speaker(s) split by table or draw, 1 session(s), 1 file(s): "
        "anna (1 session(s), 1 file(s))",
    ]


WRONG = {
    "no folders": (["anna_1.wav", "ben_1.wav"], "2 audio file(s) but no folders that say who speaks"),
    "no folders in the halves": (["train/anna_1.wav", "test/ben_1.wav"], "no folders that say who speaks"),
    "a half beside speakers": (
        ["test/ben/1.wav", "anna/1.wav", "cleo/1.wav"],
        "has test/, which splits speakers, beside 2 other folder(s) with audio, first anna/",
    ),
    "a speaker in both": (
        ["train/anna/1.wav", "train/ben/1.wav", "test/anna/2.wav"],
        "has 1 of 2 speakers in both halves, first anna in test/ and train/",
    ),
    "one speaker": (["anna/1.wav", "anna/2.wav"], "holds one speaker only, anna"),
    "nothing": (["notes.txt"], "holds no audio file; left out: 1 of no audio format"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_layout_that_cannot_be_is_told_by_its_cause(own, name):
    files, sentence = WRONG[name]
    with pytest.raises(RequestError) as raised:
        acquisition.fetch(FOLDER, source=str(own(*files)))
    assert sentence in str(raised.value)


def test_a_speaker_table_says_where_the_speakers_stand(own):
    """One channel's folders above the speakers': sessions of a speaker begin with the channel."""
    root = own("phone/anna/1.wav", "mic/anna/1.wav", "phone/ben/1.wav", "mic/ben/1.wav")
    (root / "speakers.csv").write_text("id,gender\nanna,f\nben,m\n")
    assert ids(root) == ["anna/mic/1.wav", "anna/phone/1.wav", "ben/mic/1.wav", "ben/phone/1.wav"]
    found = acquisition.verified(FOLDER)  # found again as they were, by session and name
    assert [(one.name, one.subset, one.session) for one in found] == [("mic", "", "mic"), ("phone", "", "phone")]
    assert layouts.understand(root, ["phone/anna/1.wav", "mic/ben/1.wav"]) == [layouts.Tree("", "")]


def test_links_are_followed_once_wherever_they_lead(own, tmp_path):
    """huggingface/pytorch-image-models#334: links were skipped; spl0k/supysonic#48: followed without end."""
    root = own("anna/1.wav", "ben/1.wav")
    away = own("cleo/1.wav", "more.wav", root="elsewhere")
    (root / "cleo").symlink_to(away / "cleo")
    (root / "ben" / "2.wav").symlink_to(away / "more.wav")
    (root / "anna" / "again").symlink_to(root)
    (root / "aaa").symlink_to(root / "anna")  # comes first by name, and yet the folder keeps its own
    (root / "anna" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (root / "anna" / "self.wav").symlink_to(root / "anna" / "self.wav")
    assert ids(root) == ["anna/1.wav", "ben/1.wav", "ben/2.wav", "cleo/1.wav"]
    left_out = trees.walk(root).left_out
    assert left_out[trees.AGAIN] == ["aaa", "anna/again"]
    assert left_out[trees.DANGLING] == ["anna/gone.wav", "anna/self.wav"]


def test_a_link_from_one_half_into_the_other_is_refused(own):
    root = own("train/anna/1.wav", "test/ben/1.wav")
    (root / "train" / "cleo").symlink_to(root / "test" / "ben")
    with pytest.raises(RequestError, match=r"train/cleo/1\.wav is reached by a link from one part"):
        acquisition.fetch(FOLDER, source=str(root))


def test_pipes_and_sockets_are_no_recordings(own, tmp_path, monkeypatch):
    root = own("anna/1.wav", "ben/1.wav")
    os.mkfifo(root / "anna" / "2.wav")
    monkeypatch.chdir(root / "ben")  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("2.wav")
        assert ids(root) == ["anna/1.wav", "ben/1.wav"]
        assert trees.walk(root).left_out == {trees.SPECIAL: ["ben/2.wav", "anna/2.wav"]}


def test_a_pipe_that_takes_the_place_of_a_recording_does_not_hang(own):
    root = own("anna/1.wav", "ben/1.wav")
    (archive,) = acquisition.fetch(FOLDER, source=str(root))
    (member, _) = archives.members(archive, FOLDER.naming)
    (root / member.name).unlink()
    os.mkfifo(root / member.name)
    with pytest.raises(archives.AudioError, match="no file any more"):
        archives.read(((str(root), 0),), member)


def test_a_recording_that_may_not_be_read_is_a_row_and_a_failing_disk_is_not(own, monkeypatch):
    (archive,) = acquisition.fetch(FOLDER, source=str(own("anna/1.wav", "ben/1.wav")))
    (member, _) = archives.members(archive, FOLDER.naming)
    for number, kind in ((13, archives.AudioError), (5, OSError)):

        def read_bytes(path, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(kind, match=os.strerror(number)):
            archives.read(((archive.files[0]["path"], 0),), member)


def test_hidden_and_foreign_things_are_no_speakers(own):
    """facebookresearch/DomainBed#90, birdnet-team/BirdNET-Analyzer#635, mne-tools/mne-python#7867."""
    root = own(
        "anna/1.wav", "ben/1.wav", ".ipynb_checkpoints/anna/1.wav", ".Trash/x/1.wav", "__MACOSX/anna/._1.wav",
        "anna/._1.wav", "anna/.ipynb_checkpoints/1-checkpoint.wav", "ben/@eaDir/1.wav",
    )  # fmt: skip
    assert ids(root) == ["anna/1.wav", "ben/1.wav"]
    assert len(trees.walk(root).left_out[trees.HIDDEN]) == 6


@pytest.mark.parametrize("suffix", ["3gp", "oga", "mka", "mkv", "mov", "wave", "spx", "sph", "WAV", "m4b", "tta"])
def test_suffixes_of_audio_are_known(own, suffix):
    assert ids(own(f"anna/1.{suffix}", "ben/1.wav")) == [f"anna/1.{suffix}", "ben/1.wav"]


def test_names_that_are_not_utf8_get_a_spelling(own):
    """quodlibet/mutagen#648, arsenetar/dupeguru#335: "surrogates not allowed"."""
    root = own(os.fsdecode(b"M\xfcller/1.wav"), "ben/1.wav")
    assert ids(root) == ["Müller/1.wav", "ben/1.wav"]
    (archive,) = acquisition.fetch(FOLDER, source=str(root))
    found = list(archives.members(archive, FOLDER.naming))
    assert archives.read(((str(root), 0),), found[0]) == b"M\xfcller/1.wav"
    assert [m.name for m in archives.members(archive, corpora.parse) if m.refusal] == [r"M\udcfcller/1.wav"]


def test_two_spellings_of_one_name_are_one_speaker(own):
    """macOS writes accents as letters of their own."""
    root = own("Jose\u0301/1.wav", "ben/1.wav")
    (root / "speakers.csv").write_text("id,set\nJos\xe9,dev\nben,test\n", encoding="utf-8")
    assert ids(root) == ["Jos\xe9/1.wav", "ben/1.wav"]


def test_control_characters_are_refused_and_never_reach_a_terminal(own, capsys):
    root = own("an\x1b[2Jna/1.wav", "ben/1.wav", "cleo/1.wav")
    (archive,) = acquisition.fetch(FOLDER, source=str(root))
    refused = [member for member in archives.members(archive, FOLDER.naming) if member.refusal]
    assert [member.refusal for member in refused] == ["unsafe: empty name or control character in the name"]
    assert refused[0].name == r"an\x1b[2Jna/1.wav"
    assert "\x1b" not in capsys.readouterr().out


TABLES = {
    "semicolons": b"id;gender;set\r\nanna;f;dev\r\nben;m;test\r\n",
    "Excel's own first line": b"sep=;\r\nid;gender;set\r\nanna;f;dev\r\nben;m;test\r\n",
    "other headings": b"Speaker,Sex,Split\nanna,Female,Train\nben,Male,Eval\n",
    "no headings": b"anna,f,dev\nben,m,test\n",
    "foreign headings": "Wer;Geschlecht;Teil\nanna;weiblich;train\nben;männlich;test\n".encode("cp1252"),
    "name beside id": b"name,id,gender,set\nAnna A.,anna,f,dev\nBen B.,ben,m,test\n",
    "trailing separators": b"id,gender,set,,\nanna,f,dev,,\nben,m,test,,\n,,,,\n",
    "twice, alike": b"id,gender,set\nanna,f,dev\nanna,f,dev\nben,m,test\n",
    "UTF-16": "id\tgender\tset\r\nanna\tf\tdev\r\nben\tm\ttest\r\n".encode("utf-16"),
    "UTF-16 without a mark": "id,gender,set\nanna,f,dev\nben,m,test\n".encode("utf-16-le"),
    "byte-order mark": b"\xef\xbb\xbfid,gender,set\nanna,f,dev\nben,m,test\n",
    "Latin-1": "id,gender,set,town\nanna,f,dev,Köln\nben,m,test,Zürich\n".encode("latin-1"),
}


@pytest.mark.parametrize("name", TABLES)
def test_speaker_tables_out_of_spreadsheets(own, name):
    """Unstructured-IO/unstructured#4443 (UTF-16), ThalesGroup/fred#1709 (Windows' Latin)."""
    root = own("anna/1.wav", "ben/1.wav")
    (root / "speakers.csv").write_bytes(TABLES[name])
    acquisition.fetch(FOLDER, source=str(root))
    table = FOLDER.speakers()
    assert table.index.tolist() == ["anna", "ben"]
    assert table[["gender", "subset"]].to_numpy().tolist() == [["f", "dev"], ["m", "test"]]


def test_a_table_under_another_name_is_told(own, capsys):
    acquisition.fetch(FOLDER, source=str(own("anna/1.wav", "ben/1.wav", "Speakers.xlsx", "anna/speakers.doc")))
    assert "Speakers.xlsx is not read; save it as speakers.csv if it is meant" in capsys.readouterr().out


def test_table_list_and_strays_are_told_apart(own, capsys):
    """What is table or list is not left out; who is not in the table; what lies in no speaker's folder."""
    root = own("anna/1.wav", "ben/1.wav", "cleo/1.wav", "jingle.wav")
    (root / "trials.txt").write_text("1 anna/1 anna/1.wav\n0 anna/1 ben/1\n")
    strays = "folder: 1 file(s) in no speaker's folder, first jingle.wav"
    known = {"id,gender\nanna,f\nzoe,m\n": "which says no more of them"}
    known["id,set\nanna,dev\nzoe,test\n"] = "and are left out, because it says who is in which half"
    for table, what in known.items():
        (root / "speakers.csv").write_text(table)
        acquisition.fetch(FOLDER, source=str(root))
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "folder: 4 audio file(s) in 3 speakers' folders" and said[2] == strays
        assert said[1].startswith(
            "folder: the folder itself: 3 speaker(s) split by table or draw, 3 session(s), 3 file(s)"
        )
        assert said[3:] == [f"folder: 2 of 3 speakers, first ben, are not in speakers.csv {what}"]


BAD_TABLES = {
    "empty": (b"", "speakers.csv is empty"),
    "headings alone": (b"id,gender\n", "names no speaker"),
    "twice, otherwise": (b"id,gender\nanna,f\nanna,m\n", "has the speaker anna twice, with different facts"),
    "no such half": (b"id,set\nanna,dev\nben,later\n", "puts the speaker ben into the set 'later'"),
    "other names": (
        b"id,gender\ns01,f\ns02,m\n",
        "names none of the speakers: it has s01, the folders are called anna",
    ),
    "no text": (b"PK\x03\x04\0\0\x08\x01" * 9, "is not a text file"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_speaker_tables_that_say_nothing(own, name):
    root = own("anna/1.wav", "ben/1.wav")
    data, sentence = BAD_TABLES[name]
    (root / "speakers.csv").write_bytes(data)
    with pytest.raises(RequestError, match=sentence):
        acquisition.fetch(FOLDER, source=str(root))


LISTS = {
    "ids": "1 anna/a/1.wav anna/b/1.wav\n0 anna/a/1.wav ben/a/1.wav\n",
    "blank lines, headings, Windows": "\ufefflabel enrol test\r\n\r\n1 anna/a/1.wav anna/b/1.wav\r\n"
    "0 anna/a/1.wav ben/a/1.wav\r\n\r\n",
    "label last, in words": "anna/a/1.wav anna/b/1.wav target\nanna/a/1.wav ben/a/1.wav nontarget\n",
    "names of files": "1 ./test/anna/a/1.wav test/anna/b/1.wav\n0 test/anna/a/1.wav test/ben/a/1.wav\n",
    "without suffix": "1 anna/a/1 anna/b/1\n0 anna/a/1 ben/a/1\n",
    "commas": "1,anna/a/1.wav,anna/b/1.wav\n0,anna/a/1.wav,ben/a/1.wav\n",
    "of Windows": "1 test\\anna\\a\\1.wav test\\anna\\b\\1.wav\n0 test\\anna\\a\\1.wav test\\ben\\a\\1.wav\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_the_users_own_is_read_in_its_form(own, name):
    """jfisteus/eyegrade#70 (byte-order mark); kaldi-asr/kaldi#1014 (`enrol test target`)."""
    root = own("train/cleo/1.wav", "train/dora/1.wav", *(f"test/{n}/1.wav" for n in ("anna/a", "anna/b", "ben/a")))
    (root / "trials.txt").write_text(LISTS[name], encoding="utf-8")
    acquisition.fetch(FOLDER, source=str(root))
    expected = [[1, "anna/a/1.wav", "anna/b/1.wav"], [0, "anna/a/1.wav", "ben/a/1.wav"]]
    assert FOLDER.trials("folder").to_numpy().tolist() == expected
    assert trials.read(FOLDER.list_path("folder")).labels.tolist() == [1, 0]


def test_a_name_in_a_list_means_one_recording(own):
    """By its place on this machine too; what could mean two recordings means none."""
    root = own("anna/1.wav", "anna/1.flac", "anna/2.wav", "ben/1.wav", "ben/2.wav")
    (root / "trials.txt").write_text(f"1 {root}/anna/1.wav anna/2\n0 anna/1.flac {root}/ben/../ben/1.wav\n")
    acquisition.fetch(FOLDER, source=str(root))
    read = [[1, "anna/1.wav", "anna/2.wav"], [0, "anna/1.flac", "ben/1.wav"]]
    assert FOLDER.trials("folder").to_numpy().tolist() == read
    (root / "trials.txt").write_text("1 anna/1 anna/2\n0 anna/1 ben/1\n")
    with pytest.raises(RequestError, match=r"line 1 names anna/1, which is none of the 5 recordings"):
        acquisition.fetch(FOLDER, source=str(root))


BAD_LISTS = {
    "targets alone": ("1 anna/1.wav anna/2.wav\n", "holds targets (1) alone"),
    "no labels": ("anna/1.wav anna/2.wav\n", "has no labels"),
    "unknown file": ("1 anna/1.wav anna/2.wav\n\n0 anna/1.wav ben/9.wav\n", "line 3 names ben/9.wav, which is none of"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_a_list_that_nothing_can_be_judged_by_is_refused_before_the_training(own, name):
    root = own("anna/1.wav", "anna/2.wav", "ben/1.wav")
    text, sentence = BAD_LISTS[name]
    (root / "trials.txt").write_text(text)
    with pytest.raises(RequestError) as raised:
        acquisition.fetch(FOLDER, source=str(root))
    assert sentence in str(raised.value) and str(raised.value).startswith(str(root / "trials.txt"))


def test_blanks_in_names_pass_through_every_list(own):
    """vocalpy/vak#594, gaspardpetit/verbatim#101: names with blanks were cut."""
    names = ["ann lee/day 1/1.wav", 'ann lee/day 2/a "b".wav', "ben/1.wav"]
    root = own(*names)
    (root / "trials.txt").write_text(
        '1 "ann lee/day 1/1.wav" "ann lee/day 2/a ""b"".wav"\n0 "ann lee/day 1/1.wav" ben/1.wav\n'
    )
    acquisition.fetch(FOLDER, source=str(root))
    read = trials.read(FOLDER.list_path("folder"))
    assert [*read.enrol, *read.test] == [names[0], names[0], names[1], names[2]]
    drawn = trials.make(ids(root), 1, 1, seed=0)
    trials.write(root / "drawn.txt", drawn)
    assert trials.read(root / "drawn.txt").enrol.tolist() == drawn.enrol.tolist()
    (root / "tabs.txt").write_text("1\tann lee/1.wav\tann lee/2.wav\n0\tann lee/1.wav\tben/1.wav\n")
    assert trials.read(root / "tabs.txt").enrol.tolist() == ["ann lee/1.wav"] * 2


def test_names_with_blanks_pass_through_preparation_split_and_drawn_trials(tmp_path):
    """What stages 01 and 02 do, from the recordings to the list that the evaluation reads."""
    for number in range(10):
        for day in ("day 1", 'day "2"'):
            place = tmp_path / "own" / f"speaker {number % 5}" / day / f"file {number}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(wav(voice(f"speaker {number % 5}", 2 * number + (day == "day 1"), 1.1)))
    found = acquisition.fetch(FOLDER, source=str(tmp_path / "own"))
    seen = limits.view(FOLDER, preparation.prepare(FOLDER, found), test_share=0.4)
    tested = splits.accepted(seen).query("subset == 'test'")
    trials.write(FOLDER.list_path("folder"), trials.make(tested["id"], 4, 4, seed=0))
    table, refused = splits.utterances([(FOLDER, seen)], {"folder": ["folder"]}, train=["folder"], n_validation=1)
    assert refused.empty and table["split"].value_counts().to_dict() == {"train": 8, "test": 8, "validation": 4}
    listed = trials.read(FOLDER.list_path("folder"))
    assert set(trials.speakers(listed)[0]) <= set(tested["speaker"])
    trials.rows(listed, table["id"])
    assert len(checks(FOLDER, seen, ["folder"])) > 3


def test_another_split_in_the_table_decodes_nothing_anew(own):
    """The halves are a view on the store: the same recordings with another column `set` are in the same store."""
    root = own("anna/1.wav", "ben/1.wav")
    stores = set()
    for halves in (("dev", "test"), ("test", "dev")):
        (root / "speakers.csv").write_text("id,set\nanna,{}\nben,{}\n".format(*halves))
        store = preparation.prepare(FOLDER, acquisition.fetch(FOLDER, source=str(root)))
        stores.add(store)
        assert limits.view(FOLDER, store)["subset"].tolist() == list(halves)
    assert len(stores) == 1


def test_the_digest_notices_what_changed_and_nothing_else(own):
    root = own("anna/1.wav", "ben/1.wav")
    source = str(root)
    before = acquisition.sources_digest(FOLDER, source)
    own("anna/.hidden.wav", "anna/notes.txt")
    assert len(before) == 64 and acquisition.sources_digest(FOLDER, source) == before
    assert acquisition.sources_digest(FOLDER, str(root / "nowhere")) == acquisition.sources_digest(FOLDER) == ""
    assert acquisition.sources_digest(corpora.get("mini")) == ""
    seen = {before}
    for change in (
        lambda: own("ben/2.wav"),
        lambda: (root / "ben" / "2.wav").write_bytes(b"longer than it was"),
        lambda: os.utime(root / "ben" / "2.wav", (1, 1)),
        lambda: os.rename(root / "ben" / "2.wav", root / "ben" / "3.wav"),
        lambda: (root / "speakers.csv").write_text("id,set\nanna,dev\nben,test\n"),
        lambda: (root / "speakers.csv").write_text("id,set\nanna,test\nben,dev \n"),
        lambda: (root / "trials.txt").write_text("1 ben/1.wav ben/3.wav\n0 ben/1.wav anna/1.wav\n"),
        lambda: os.utime(root / "trials.txt", (1, 1)),
    ):
        change()
        seen.add(acquisition.sources_digest(FOLDER, source))
    assert len(seen) == 9


def test_what_the_first_stage_hands_on_changes_with_recordings_table_and_list(own):
    root, seen = own("anna/1.wav", "anna/2.wav", "ben/1.wav"), set()
    for change in (
        lambda: None,
        lambda: (root / "ben" / "1.wav").write_bytes(b"another recording"),
        lambda: (root / "speakers.csv").write_text("id,gender\nanna,f\nben,m\n"),
        lambda: (root / "trials.txt").write_text("1 anna/1.wav anna/2.wav\n0 anna/1.wav ben/1.wav\n"),
    ):
        change()
        found = acquisition.fetch(FOLDER, source=str(root))
        seen.add(acquisition.result_digest(FOLDER, found))
        assert acquisition.result_digest(FOLDER, found) in seen
    assert len(seen) == 4


def test_recordings_that_change_between_the_stages_are_told(own):
    root = own("anna/1.wav", "ben/1.wav")
    found = acquisition.fetch(FOLDER, source=str(root))
    assert acquisition.verified(FOLDER) == acquisition.recorded(FOLDER) == found
    assert paths.corpus_dir("folder").stat().st_mode & 0o777 == 0o700  # where the voices will be stored
    own("ben/2.wav")
    with pytest.raises(RequestError, match="has changed since it was verified: run stage 01_download again"):
        acquisition.verified(FOLDER)


def test_a_closed_folder_is_told(own, monkeypatch):
    root = own("anna/1.wav", "ben/1.wav", "cleo/1.wav")
    opened = os.scandir

    def scandir(path):
        if Path(path).name == "cleo":
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(trees.os, "scandir", scandir)
    assert trees.walk(root).told() == "1 folder(s) that cannot be opened (first cleo/)"
