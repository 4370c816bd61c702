"""
Lists of trials as other systems and people write them.

The reports that a case comes from are named with project and number; the others were found here.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_utils.base import lists, text
from sv_utils.base.errors import RequestError
from sv_utils.evaluation import trials

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).map(text.plain)


@settings(deadline=None, max_examples=200)
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_every_name_that_is_written_is_read(names):
    line = " ".join(map(text.quoted, names))
    assert text.words(line) == names
    assert text.words(f"\t {line}  ") == names


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30))
def test_what_is_shown_commands_no_terminal(name):
    assert text.plain(name) == text.plain(text.plain(name)) and lists.printable(name).isprintable()


@pytest.fixture
def listed(tmp_path):
    def put(content):
        (tmp_path / "list.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "list.txt"

    return put


SAME = {
    "VoxCeleb": "1 a/1 a/2\n0 a/1 b/1\n",
    "Kaldi": "a/1 a/2 target\na/1 b/1 nontarget\n",
    "digits last": "a/1 a/2 1\na/1 b/1 0\n",
    "words of others": "a/1 a/2 tgt\na/1 b/1 imp\n",
    "capitals": "Target a/1 a/2\nNonTarget a/1 b/1\n",
    "floats": "1.0 a/1 a/2\n0.0 a/1 b/1\n",
    "headings": "label\tenrol\ttest\n1\ta/1\ta/2\n0\ta/1\tb/1\n",
    "tabs": "1\ta/1\ta/2\n0\ta/1\tb/1\n",
    "commas": "1,a/1,a/2\n0,a/1,b/1\n",
    "semicolons in quotes": '1;"a/1";"a/2"\n0;a/1;b/1\n',
    "blank lines and blanks": "\n1  a/1   a/2 \n\n\t0 a/1 b/1\n\n\n",
    "the end that DOS wrote": b"1 a/1 a/2\r\n0 a/1 b/1\r\n\x1a",
    "old line ends": "1 a/1 a/2\r0 a/1 b/1\r",
    "byte-order mark": b"\xef\xbb\xbf1 a/1 a/2\r\n0 a/1 b/1\r\n",
    "UTF-16": "1 a/1 a/2\r\n0 a/1 b/1\r\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", SAME)
def test_one_list_in_many_forms(listed, name):
    """kaldi-asr/kaldi#1014 (`enrol test target`), jfisteus/eyegrade#70 (byte-order mark)."""
    read = trials.read(listed(SAME[name]))
    assert (read.labels.tolist(), read.enrol.tolist(), read.test.tolist()) == ([1, 0], ["a/1"] * 2, ["a/2", "b/1"])


def test_a_quote_that_is_not_closed_stays_in_its_line(listed):
    read = trials.read(listed('1\ta/1\t"a/2\n0\ta/1\tb/1\n1\tb/1\tb/2\n'))
    assert read.test.tolist() == ["a/2", "b/1", "b/2"] and read.lines.tolist() == [1, 2, 3]


def test_lines_longer_than_any_name_are_told(listed):
    with pytest.raises(RequestError, match="has 1 columns; a trial list has three"):
        trials.read(listed("a" * 200_000))
    with pytest.raises(RequestError, match=r"has \d columns|has the label"):
        trials.read(listed("a\tb\t" + "c" * 200_000))


def test_names_in_windows_encoding_are_read(listed):
    read = trials.read(listed("1 M\xfcller/1 M\xfcller/2\n0 M\xfcller/1 b/1\n".encode("cp1252")))
    assert read.enrol[0] == "M\xfcller/1"


def test_errors_name_the_line_of_the_file(listed):
    with pytest.raises(RequestError, match=r"list\.txt line 5 has the label 'maybe'; a label is 1 \(target\) or 0"):
        trials.read(listed("enrol test label\n\na b 1\n\na c maybe\n"))
    with pytest.raises(RequestError, match="in line 2 and 0 in line 5"):
        trials.read(listed("\n1 a b\n\n\n0 b a\n"))
    with pytest.raises(RequestError, match=r"line 3 has 4 columns .* put a name with blanks into double quotes"):
        trials.read(listed("1 a b\n\n0 a ann lee\n"))
    with pytest.raises(RequestError, match="line 3 names c, which is not among"):
        trials.rows(trials.read(listed("1 a b\n\n0 a c\n")), ["a", "b"])


def test_two_columns_at_blanks_may_hold_other_separators(listed):
    read = lists.read_trials(listed("a,1 b,1\na;2 b;2\n"))
    assert (read.labels, read.enrol, read.test, read.lines) == (None, ["a,1", "a;2"], ["b,1", "b;2"], [1, 2])
    read = lists.read_trials(listed("a,1 b\na,2 c\n"))
    assert (read.enrol, read.test) == (["a,1", "a,2"], ["b", "c"])


@pytest.mark.parametrize("separator", [" ", ";", ","])
def test_a_list_without_labels_has_two_columns(listed, separator):
    read = lists.read_trials(listed(f"a{separator}b\nc{separator}d\n"))
    assert (read.labels, read.enrol, read.test) == (None, ["a", "c"], ["b", "d"])


def test_headings_stand_above_something_and_are_told_apart(listed):
    assert lists.read_trials(listed("label enrol test\n1 a b\n")).enrol == ["a"]
    assert lists.read_trials(listed("enrol test\n")).enrol == ["enrol"]
    assert lists.read_trials(listed("test test\na b\n")).enrol == ["test", "a"]
    assert lists.read_trials(listed("trial a\na b\n")).enrol == ["trial", "a"]


HEADINGS = ["label enrol test", "labels enroll trial", "key enrolment test", "target enrollment test"]
HEADINGS += [
    "ModelID SegmentID targettype",
    "utt1 utt2 label",
    "file1 file2 key",
    "wav1 wav2 target",
    "path1 path2 label",
]
HEADINGS += [f"enrol test {score}" for score in ("score", "scores", "cosine", "llr", "probability")]
HEADINGS += ["log_likelihood_ratio enrol test"]


@pytest.mark.parametrize("line", HEADINGS)
def test_headings_of_many_systems_are_left_out(listed, line):
    table = lists.without_headings(lists.read_table(listed(f"{line}\n1 a b\n"), (3,)))
    assert (table.columns, table.lines) == ([["1"], ["a"], ["b"]], [2])


def test_labels_have_many_names():
    same = ["1", "1.0", "target", "tgt", "true", "Same"]
    other = ["0", "0.0", "nontarget", "non-target", "non_target", "imp", "impostor", "Imposter", "FALSE", "different"]
    assert lists.parse_labels(same + other, "a list", range(16)) == [1] * 6 + [0] * 10


def test_names_of_files_stand_as_they_are_or_in_quotes(listed):
    content = 'ann lee/1.wav\n\n  "ann lee/2.wav" \n"a" and "b".wav\n"the ""best"".wav"\nben.wav\n'
    names = ["ann lee/1.wav", "ann lee/2.wav", '"a" and "b".wav', 'the "best".wav', "ben.wav"]
    assert lists.read_names(listed(content)) == names
    with pytest.raises(RequestError, match=r"the list \S+/list\.txt names no file"):
        lists.read_names(listed("\n \n"))


SPEAKERS = {
    "first folder": ("1 x/1/a x/2/b\n0 x/1/a y/1/a\n", ["x", "x"]),
    "LibriSpeech": ("1 test-clean/61/1/a test-clean/61/2/b\n0 test-clean/61/1/a test-clean/70/1/a\n", ["61", "61"]),
    "channels": ("1 phone/x/1 mic/x/1\n0 phone/x/1 phone/y/2\n", ["x", "x"]),
    "before the session, at any depth": (
        "1 p/x/1/a q/r/x/2/b\n0 p/x/1/a p/y/1/a\n0 q/r/x/2/b p/y/1/a\n",
        ["x", "x", "x"],
    ),
    "file names": ("1 a b\n0 a c\n", None),
    "one folder": ("1 wav/a wav/b\n0 wav/a wav/c\n", None),
}


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_speaker_is_found_wherever_its_folder_stands(listed, name):
    content, expected = SPEAKERS[name]
    found = trials.speakers(trials.read(listed(content)))
    assert (found and found[0].tolist()) == expected


def test_a_wrong_label_is_no_other_form_of_ids(listed):
    """One label of fifty is wrong; that the sessions agree with it must not make them speakers."""
    lines = [f"1 x{k}/s{k}/a x{k}/s{k}/b\n0 x{k}/s{k}/a y{k}/t{k}/a\n" for k in range(25)]
    with pytest.raises(RequestError, match="line 51 gives x0/s0/a and x0/u/c the label 0, which contradicts"):
        trials.speakers(trials.read(listed("".join(lines) + "0 x0/s0/a x0/u/c\n")))


def test_an_empty_side_of_a_list_is_none():
    empty = trials.Trials(np.array([1]), np.array([""]), np.array(["a"]))
    assert trials.speakers(empty) is None


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n", b"\xef\xbb\xbf"])
def test_nothing_is_told(listed, content):
    with pytest.raises(RequestError, match="is empty"):
        trials.read(listed(content))


@pytest.mark.parametrize("content", [b"RIFF\x24\0\0\0WAVE", b"\0" * 100, b"1 a b\x1b[2J\n"])
def test_what_is_no_text_is_told(listed, content):
    with pytest.raises(RequestError, match="is not a text file"):
        trials.read(listed(content))
