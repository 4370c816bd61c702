"""What a decoding process may take, when it is used no more, and which recordings a preparation reads again."""

from types import SimpleNamespace

import pandas as pd

from sv_utils.speech import acquisition, guard, limits, splits
from sv_utils.speech.archives import VerifiedArchive

WAV = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\x08\0\0" + bytes(2048)


def test_the_ceiling_leaves_room_for_the_samples_of_the_longest_recording(monkeypatch):
    asked = []
    monkeypatch.setattr(guard.Decoder, "_ask", lambda _, request, *__: asked.append(request))
    guard.Decoder(1_000).decode(b"12345", 16_000, 3600.0)
    assert asked[0]["memory"] == 1_000 + 5 + 2 * 16_000 * 3600


def test_a_process_that_has_grown_is_not_used_again(monkeypatch):
    grown = "guard.GROWN = -1; guard.serve()"
    for start, renewed in ((guard.START, False), (guard.START.replace("guard.serve()", grown), True)):
        monkeypatch.setattr(guard, "START", start)
        decoder = guard.Decoder()
        assert len(decoder.decode(WAV).samples) == 1024
        assert (decoder._process is None) == renewed
        decoder.close()


def test_a_list_may_name_a_duplicate():
    corpus = SimpleNamespace(name="own", trials=lambda _: pd.DataFrame({"enrol": ["a/1"], "test": ["a/2"]}))
    table = pd.DataFrame({"id": ["a/1", "a/2", "a/3"], "error": ["", "duplicate of a/1", ""], "decoded": True})
    assert splits._listed(corpus, table, ["own"]).tolist() == [True, True, False]


def test_two_speakers_at_least_are_set_apart_for_testing():
    assert sorted(limits.drawn_halves("abcde", 0.2, 0).values()) == ["dev"] * 3 + ["test"] * 2


def test_a_file_with_another_checksum_than_the_published_one_is_read_again(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"content")
    stamp = {"path": str(path), "bytes": 7, "mtime_ns": path.stat().st_mtime_ns, "md5": "right"}
    known = VerifiedArchive("a.zip", "dev", "right", (stamp,))
    assert acquisition._unchanged(known, [(path, "right")]) and acquisition._unchanged(known, [(path, None)])
    assert not acquisition._unchanged(known, [(path, "another")])
