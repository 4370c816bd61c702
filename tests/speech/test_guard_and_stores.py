"""What a decoding process may take, when it is used no more, and which recordings a preparation reads again."""

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from release import wav

from sv_utils.speech import acquisition, guard, limits, splits
from sv_utils.speech.archives import VerifiedArchive

WAV = b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\x08\0\0" + bytes(2048)


def test_the_ceiling_leaves_room_for_the_samples_of_the_longest_recording(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(guard.Decoder, "_ask", lambda _, *given: asked.append(given))
    guard.Decoder(1_000).decode(b"12345", 16_000, 3600.0)
    (tmp_path / "a").write_bytes(b"1234567")
    with open(tmp_path / "a", "rb") as file:
        guard.Decoder(1_000).decode(file, 8_000, 60.0, True)
        wishes = {"bytes": 5, "rate": 16_000, "seconds": 3600.0, "first": False}
        assert asked[0] == (wishes | {"memory": 1_000 + 5 + 2 * 16_000 * 3600}, b"12345", 30 + 600)
        wishes = {"bytes": None, "rate": 8_000, "seconds": 60.0, "first": True}
        assert asked[1] == (wishes | {"memory": 1_000 + 7 + 2 * 8_000 * 60}, file, 30 + 10)
        held = []
        monkeypatch.setattr(guard, "_ceiling", lambda allowance: held.append(allowance) or contextlib.nullcontext())
        with pytest.raises(guard.AudioError, match="not audio"):
            guard.decode_here(file, 8_000, 60.0, True)
        with pytest.raises(guard.AudioError, match="not audio"):
            guard.decode_here(b"12345", 16_000, 3600.0)
    if sys.platform == "linux":  # elsewhere a process of its own has the ceiling
        assert held == [guard.MEMORY + 7 + 2 * 8_000 * 60, guard.MEMORY + 5 + 2 * 16_000 * 3600]


def test_every_way_to_the_decoder_hands_its_wishes_on(tmp_path):
    """Half a second of two channels: the first alone, or the mean; at another rate; refused where it is too long."""
    (tmp_path / "a.wav").write_bytes(wav(np.tile(np.int16([3000, 1000]), (8000, 1))))

    def aside(*given):
        with ThreadPoolExecutor(1) as pool:  # a thread cannot have a ceiling of its own
            return pool.submit(guard.decode_here, *given).result()

    for way in (guard.decode, guard.decode_here, aside):
        with open(tmp_path / "a.wav", "rb") as file:
            for source in (file.read(), file):
                for first, mean in ((True, 3000), (False, 2000)):
                    found = way(source, 16_000, 1.0, first)
                    assert (found.rate, found.channels, found.codec, found.warnings) == (16_000, 2, "pcm_s16le", ())
                    assert len(found.samples) == 8000 and set(found.samples.tolist()) == {mean}
                assert len(way(source, 8_000, 1.0, True).samples) == 4000
                with pytest.raises(guard.AudioError, match=r"^longer than 0\.4 s$"):
                    way(source, 16_000, 0.4)


def test_what_the_decoder_fails_of_is_told_and_its_process_not_used_again():
    def failing(error, cause=None):
        def decode(*_):
            raise error from cause

        return guard._answer(decode, b"", {"rate": 1, "seconds": 2, "first": False})[0]

    assert failing(guard.AudioError("cut")) == {"error": "cut", "last": False}
    assert failing(guard.AudioError("large"), MemoryError()) == {"error": "large", "last": True}
    assert failing(MemoryError()) == {"error": "damaged, or too large: it takes too much memory", "last": True}
    assert failing(KeyError("x")) == {"error": "damaged: it makes the decoder fail (KeyError)", "last": True}
    asked = []
    sound = guard.Decoded(np.int16([1, 2, 3]), 8_000, 2, "own", ("a little short",))
    said, samples = guard._answer(
        lambda *given: asked.append(given) or sound, b"x", {"rate": 1, "seconds": 2, "first": 3}
    )
    assert asked == [(b"x", 1, 2, 3)] and samples.tolist() == [1, 2, 3]
    assert said == {"rate": 8_000, "channels": 2, "codec": "own", "warnings": ("a little short",), "samples": 3}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_that_decodes_leaves_no_voice_and_takes_one_core():
    """No dump, no file, no second thread of the arithmetic; Ctrl-C is not for it. When it is closed it is gone."""
    guard.decode(WAV)
    (decoder,) = guard._idle  # kept for the next file
    own, process = f"/proc/{decoder._process.pid}", decoder._process
    with open(f"{own}/limits") as file:
        limits_of_it = {line[:26].strip(): line[26:].split()[:2] for line in file}
    assert limits_of_it["Max core file size"] == limits_of_it["Max file size"] == ["0", "0"]
    with open(f"{own}/environ", "rb") as file:
        assert {b"OMP_NUM_THREADS=1", b"OPENBLAS_NUM_THREADS=1"} <= set(file.read().split(b"\0"))
    os.kill(process.pid, signal.SIGINT)
    assert len(guard.decode(WAV).samples) == 1024 and decoder._process is process
    guard.close()
    assert process.poll() is not None and decoder._process is None and guard._idle == []


def test_no_ceiling_is_above_that_of_the_whole_process(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("elsewhere a limit of the address space is not kept")
    set_to, hard = [], [-1]
    play = SimpleNamespace(RLIMIT_AS=9, getrlimit=lambda _: (7, hard[0]), setrlimit=lambda *given: set_to.append(given))
    monkeypatch.setattr(guard, "resource", play)
    monkeypatch.setattr(guard, "_held", lambda: 1000)
    for hard[0] in (-1, 1500, 900):
        with contextlib.suppress(KeyError), guard._ceiling(200):
            raise KeyError
    assert set_to == [(9, (1200, -1)), (9, (7, -1)), (9, (1200, 1500)), (9, (7, 1500)), (9, (900, 900)), (9, (7, 900))]


def test_elsewhere_than_on_linux_the_memory_is_watched_and_a_file_decoded_apart(monkeypatch):
    watched, apart = [], []
    monkeypatch.setattr(guard, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(guard, "watched", lambda allowance: watched.append(allowance) or contextlib.nullcontext())
    monkeypatch.setattr(guard, "decode", lambda *given: apart.append(given))
    with guard._ceiling(77):
        guard.decode_here(b"x", 8_000, 5.0, True)
    assert watched == [77] and apart == [(b"x", 8_000, 5.0, True)]
    monkeypatch.setattr(guard.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3))
    assert guard._peak() == 3
    guard.sys.platform = "linux"
    assert guard._peak() == 3 * 1024
    before = len(os.listdir("/dev/fd"))
    assert guard._held() > 10**7 and len(os.listdir("/dev/fd")) <= before
    monkeypatch.setattr(guard.os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    assert guard._held() == 3 * 1024


def test_whatever_ends_the_talk_with_the_decoder_is_told_and_ends_its_process(monkeypatch):
    decoder, said, stopped = guard.Decoder(), [], []
    talk = SimpleNamespace(settimeout=said.append, sendall=said.append)
    monkeypatch.setattr(decoder, "_started", lambda: talk)
    monkeypatch.setattr(decoder, "_stop", lambda: stopped.append("stopped"))
    asked = {"rate": 8_000, "seconds": 1.0}
    crashed, late = "damaged: it makes the decoder crash", "damaged: decoding takes longer than 12 s"
    for error, told in ((OSError(), crashed), (EOFError(), crashed), (TimeoutError(), late)):
        monkeypatch.setattr(guard, "_send", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(guard.AudioError, match=f"^{told}$"):
            decoder._ask(asked, b"x", 12.0)
    assert stopped == ["stopped"] * 3 and said == [12.0] * 3
    monkeypatch.setattr(guard, "_send", lambda *_: None)
    for answer, kind, told in (
        ({"failure": "no av", "last": True}, guard.WorkError, r"the decoding process does not start \(no av\)"),
        ({"error": "cut", "last": False}, guard.AudioError, "cut"),
        ({"error": "large", "last": True}, guard.AudioError, "large"),
    ):
        monkeypatch.setattr(guard, "_receive", lambda _, answer=answer: answer)
        stopped.clear()
        with pytest.raises(kind, match=f"^{told}"):
            decoder._ask(asked, b"x", 12.0)
        assert bool(stopped) == answer["last"]
    assert said[-2:] == [12.0, b"x"]
    greedy = {"samples": 10**9, "rate": 1, "channels": 2, "codec": "c", "warnings": ["w"]}  # more than was asked for
    monkeypatch.setattr(guard, "_receive", lambda _: greedy)
    monkeypatch.setattr(guard, "_fill", lambda _, place: place.__setitem__(slice(None), bytes(len(place))))
    found = decoder._ask(asked, b"x", 12.0)
    assert (len(found.samples), found.rate, found.channels, found.codec, found.warnings) == (8_000, 1, 2, "c", ("w",))
    for error, ended in ((KeyboardInterrupt(), True), (guard.AudioError("cut"), False)):
        monkeypatch.setattr(decoder, "_ask", lambda *_, error=error: (_ for _ in ()).throw(error))
        stopped.clear()
        with pytest.raises(type(error)):
            decoder.decode(b"x")
        assert bool(stopped) == ended  # else the next file would get the answer to this one


def test_a_message_may_arrive_in_pieces():
    one, other = socket.socketpair()
    text = b'{"a": 1}'
    with one, other:
        sender = threading.Thread(
            target=lambda: [(one.send(bytes([byte])), time.sleep(0.001)) for byte in struct.pack("<I", 8) + text]
        )
        sender.start()
        assert guard._received(other) == ({"a": 1}, None)
        sender.join()
        one.close()
        with pytest.raises(EOFError):
            guard._received(other)


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
