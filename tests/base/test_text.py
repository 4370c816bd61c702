"""Text that users write, by its bytes: encodings, what is no file, names of files."""

import os
import stat
from types import SimpleNamespace

import pytest

from sv_utils.base import text
from sv_utils.base.errors import RequestError

ENCODED = {b"a": "a", b"ab": "ab", b"a\n": "a\n", "\u0142".encode(): "\u0142", b"caf\xe9": "caf\xe9"}
ENCODED |= {b"\x81\xe9": "\x81\xe9", b"1 X\x1a": "1 X"}
ENCODED |= {"1 a/1 b/\u0142\u0119\r\n".encode("utf-16-le"): "1 a/1 b/\u0142\u0119\n", b"a\rb\r\n\x1a": "a\nb\n"}
ENCODED |= {"1 \u0142".encode(form): "1 \u0142" for form in ("utf-8-sig", "utf-16", "utf-32")}
ENCODED |= {b"\xfe\xff" + "1 \u0142".encode("utf-16-be"): "1 \u0142"}


@pytest.mark.parametrize("content", ENCODED, ids=bytes.hex)
def test_text_is_read_in_the_encoding_that_its_bytes_tell(content, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    assert text.read_text(tmp_path / "list.txt") == ENCODED[content]


def test_a_list_may_have_as_many_bytes_as_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LARGEST", 3)
    (tmp_path / "a").write_text("abc")
    assert text.read_text(tmp_path / "a") == "abc"
    (tmp_path / "a").write_text("abcd")
    with pytest.raises(RequestError, match="has more than 3 bytes, which no list has"):
        text.read_text(tmp_path / "a")
    monkeypatch.undo()
    os.truncate(tmp_path / "a", 2**28 + 1)  # it is sparse
    with pytest.raises(RequestError, match="has more than 268,435,456 bytes"):
        text.read_text(tmp_path / "a")


UNREADABLE = {"embedded null byte": "a\0b", "File name too long": "a" * 5000}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_why_a_list_cannot_be_read_is_told_without_numbers_of_the_system(reason):
    path = UNREADABLE[reason]
    with pytest.raises(RequestError) as told:
        text.read_text(path)
    assert str(told.value) == f"{path} cannot be read ({reason}); give the path of a text file."


@pytest.mark.parametrize("path", ["absent", ".", "list.txt/more"])
def test_what_is_no_file_is_told(path, tmp_path):
    (tmp_path / "list.txt").touch()
    with pytest.raises(RequestError, match="is no file; give the path of a text file"):
        text.read_text(tmp_path / path)


def test_what_breaks_off_within_a_sign_is_told(tmp_path):
    (tmp_path / "list.txt").write_bytes("1 a b".encode("utf-16")[:-1])
    with pytest.raises(RequestError, match="is not a text file in UTF-8"):
        text.read_text(tmp_path / "list.txt")


def test_of_pipes_only_those_that_a_shell_hands_over_are_read(tmp_path):
    for harmless in (tmp_path, tmp_path / "absent", __file__, "a\0b"):
        text.refuse_special(harmless)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(RequestError, match=f"^{special} is a pipe or a device"):
            text.refuse_special(special)
    with pytest.raises(RequestError, match="is a pipe or a device"):
        text.read_text("/dev/null")
    ends = os.pipe()
    try:
        text.refuse_special(f"/dev/fd/{ends[0]}")
        os.write(ends[1], b"1 a b\n")
        os.close(ends[1])
        assert text.read_text(f"/dev/fd/{ends[0]}") == "1 a b\n"
    finally:
        os.close(ends[0])


def test_pipes_of_a_shell_have_three_names(monkeypatch):
    monkeypatch.setattr(text.os, "stat", lambda _: SimpleNamespace(st_mode=stat.S_IFIFO))
    for path in ("/dev/fd/63", "/dev/stdin", "/proc/self/fd/63"):
        text.refuse_special(path)
    with pytest.raises(RequestError, match="other is a pipe"):
        text.refuse_special("/dev/other")


NAMES = {b"M\xfcller/1.wav": "M\xfcller/1.wav", b"a\x81\xe9.wav": "a\x81\xe9.wav", b"Mu\xcc\x88ller": "M\xfcller"}


@pytest.mark.parametrize("given", NAMES, ids=bytes.hex)
def test_a_name_that_is_no_utf8_is_taken_for_one_in_windows_encoding(given):
    assert text.plain(given.decode("utf-8", "surrogateescape")) == NAMES[given]


QUOTED = {"ben.wav": "ben.wav", "": '""', "ann lee": '"ann lee"', '"b"': '"""b"""', 'a"b': 'a"b', 'a "b"': '"a ""b"""'}


@pytest.mark.parametrize("word", QUOTED, ids=lambda word: word.encode().hex() or "nothing")
def test_a_word_is_quoted_where_need_be_and_is_read_again(word):
    assert text.quoted(word) == QUOTED[word]
    assert text.words(f"1 {QUOTED[word]}  x") == ["1", word, "x"]
