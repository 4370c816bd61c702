"""What a decoder, a demuxer or an archive may throw at us, thrown by players: each becomes its one sentence."""

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from types import SimpleNamespace

import av
import numpy as np
import pytest
from release import archive_of, tarred, wav, zipped

from sv_utils.base.errors import RequestError
from sv_utils.corpora import Utterance
from sv_utils.speech import archives, decoding, frames
from sv_utils.speech.decoded import AudioError, Decoded, missing

BROKEN = (av.error.InvalidDataError(1, "x"), ValueError("x"), EOFError("x"))
SECOND = SimpleNamespace(samples=8000, sample_rate=8000)


class Packet:
    def __init__(self, *found):
        self.found = found

    def decode(self):
        if isinstance(self.found[0], BaseException):
            raise self.found[0]
        return list(self.found)


def heard(*packets, name="mp3", longest=60.0, demux=None):
    """Frames of a played container, and what was said of it."""
    container = SimpleNamespace(format=SimpleNamespace(name=name), demux=demux or (lambda stream: iter(packets)))
    part = frames.Part(16_000, longest, False)
    return len(list(frames.frames_of(container, "stream", part))), part.heard, part.warnings


@pytest.mark.parametrize("error", BROKEN)
def test_what_cannot_be_decoded_is_a_remnant_or_damage_by_where_it_stands(error):
    good, bad = Packet(SECOND), Packet(error)
    assert heard(bad, good, good, bad, bad) == (
        2,
        2.0,
        ["1 pieces between its frames cannot be decoded and are left out"],
    )
    assert heard(good, bad, name="flac") == (1, 1.0, [])
    with pytest.raises(AudioError, match=r"^damaged: decoding stops at 1\.0 s$"):
        heard(good, bad, good, name="flac")
    five = [good, *[bad, good] * 5]
    assert heard(*five)[2] == ["5 pieces between its frames cannot be decoded and are left out"]
    with pytest.raises(AudioError, match=r"^damaged: decoding stops at 6\.0 s$"):
        heard(*five, bad, good)
    assert heard(*[good] * 600, *five, bad, good, longest=1e4)[0] == 607  # of so many packets six are few
    with pytest.raises(MemoryError):
        heard(good, Packet(MemoryError()))


@pytest.mark.parametrize("error", BROKEN)
def test_a_demuxer_that_fails_has_come_to_the_end(error):
    def demux(stream):
        assert stream == "stream"
        yield Packet(SECOND, SECOND)
        raise error

    assert heard(demux=demux) == (2, 2.0, [])
    turns = []

    def midway(stream):  # of a stream that is not known yet: it goes on
        turns.append(stream)
        yield Packet(SECOND)
        if len(turns) < 3:
            raise IndexError

    assert heard(demux=midway) == (3, 3.0, [])
    with pytest.raises(MemoryError):
        heard(demux=lambda stream: (_ for _ in ()).throw(MemoryError))


def test_a_recording_is_too_long_a_second_behind_its_limit():
    assert heard(*[Packet(SECOND)] * 3, longest=2.0)[0] == 3
    with pytest.raises(AudioError, match=r"^longer than 2 s$"):
        heard(*[Packet(SECOND)] * 4, longest=2.0)
    part = frames.Part(8000, 1.0, False)
    part.add(np.float32([0.5, -1.0, 1.0, 2.0] * 2000))
    assert part.seconds == 1.0 and part.samples[:4].tolist() == [16384, -32768, 32767, 32767]
    with pytest.raises(AudioError, match=r"^longer than 1 s$"):
        part.add(np.float32([0.0]))


@pytest.mark.parametrize("error", BROKEN)
def test_a_file_that_cannot_be_opened_is_no_audio(monkeypatch, error):
    monkeypatch.setattr(decoding.av, "open", lambda *_, **__: (_ for _ in ()).throw(error))
    for content, said in ((b"%PDF", "not audio: a PDF document"), (b"abc", "not audio, or cut off before its index")):
        with pytest.raises(AudioError, match=f"^{said}$"):
            decoding.decode(content)


def test_want_of_memory_is_no_other_failure(monkeypatch):
    monkeypatch.setattr(decoding.av, "open", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(AudioError, match=r"^damaged, or too large: decoding takes more memory") as caught:
        decoding.decode(b"abc")
    assert isinstance(caught.value.__cause__, MemoryError)  # by which its process is not used again


def test_what_is_asked_of_ffmpeg(monkeypatch):
    """Only formats and decoders that are known; what a header that is off by its length asks for."""
    asked = []

    def opened(file, mode, options, metadata_errors):
        asked.append((file.read(3), mode, metadata_errors, options))
        raise EOFError

    monkeypatch.setattr(decoding.av, "open", opened)
    sound = wav(np.ones(100, np.int16))
    for content in (b"abcdef", sound, sound[:4] + bytes(4) + sound[8:] + bytes(1000)):
        with pytest.raises(AudioError):
            decoding.decode(content)
    known = {"format_whitelist": decoding.FORMATS, "codec_whitelist": decoding.CODECS}
    probed = known | {"max_probe_packets": "1"}
    told = [(b"abc", known), (b"RIF", probed), (b"RIF", probed | {"ignore_length": "1"})]
    assert asked == [(head, "r", "ignore", options) for head, options in told]
    names = set(decoding.CODECS.split(","))
    assert {"pcm_s16le", "aac", "opus", "amrnb"} <= names and not {"h264", "png", "mjpeg"} & names


def stream(number, rate=16_000, context=True, default=False):
    codec = SimpleNamespace(sample_rate=rate) if context else None
    flags = av.stream.Disposition.default if default else av.stream.Disposition(0)
    return SimpleNamespace(index=number, codec_context=codec, disposition=flags)


def chosen(*streams):
    found, others = decoding._chosen(SimpleNamespace(streams=SimpleNamespace(audio=list(streams))))
    return found.index, others


def test_the_track_that_is_taken():
    assert chosen(stream(1), stream(2), stream(4)) == (1, [2, 4])
    assert chosen(stream(1), stream(2, default=True), stream(4, default=True)) == (2, [1, 4])
    assert chosen(stream(1, context=False), stream(2), stream(3, rate=5)) == (2, [3])
    for streams, said in (
        ((), "no audio stream"),
        ((stream(1, context=False),), "no decoder for its audio stream"),
        ((stream(1, rate=999),), "sample rate of 999 Hz"),
        ((stream(1, rate=768_001),), "sample rate of 768001 Hz"),
    ):
        with pytest.raises(AudioError, match=f"^{said}$"):
            chosen(*streams)


def test_the_parts_of_a_chain_become_one(monkeypatch):
    """Each part may take what those before it have left; one without samples is passed over."""
    asked = []
    parts = {
        b"a": Decoded(np.ones(8000, np.int16), 8000, 1, "opus", ("short",)),
        b"b": AudioError("no samples"),
        b"c": Decoded(np.zeros(4000, np.int16), 16_000, 2, "flac", ("short", "loud")),
    }

    def decode(content, part):
        asked.append((content, part.sample_rate, part.max_seconds, part.first_channel))
        if isinstance(parts[content], Exception):
            raise parts[content]
        return parts[content]

    monkeypatch.setattr(decoding, "_decode_file", decode)
    monkeypatch.setattr(decoding.headers, "ogg_links", lambda content: [(0, 1), (1, 2), (2, 3)])
    found = decoding._decode(b"abc", frames.Part(8000, 60.0, True))
    assert asked == [(b"a", 8000, 60.0, True), (b"b", 8000, 59.0, True), (b"c", 8000, 59.0, True)]
    assert found.samples.tolist() == [1] * 8000 + [0] * 4000
    assert (found.rate, found.channels, found.codec) == (8000, 2, "opus")
    assert found.warnings == ("short", "loud", "its sample rate changes midway: 8000 and 16000 Hz")
    parts[b"c"] = AudioError("longer than 59 s")
    with pytest.raises(AudioError, match=r"^longer than 60 s$"):
        decoding._decode(b"abc", frames.Part(8000, 60.0, True))
    parts[b"c"] = AudioError("truncated: 1 s of 2 s")
    with pytest.raises(AudioError, match=r"^truncated: 1 s of 2 s$"):
        decoding._decode(b"abc", frames.Part(8000, 60.0, True))
    parts[b"a"] = parts[b"c"] = parts[b"b"]
    with pytest.raises(AudioError, match=r"^no samples$"):
        decoding._decode(b"abc", frames.Part(8000, 60.0, True))
    monkeypatch.setattr(decoding.headers, "ogg_links", lambda content: [(0, 1)] * 1001)
    with pytest.raises(AudioError, match=r"^damaged: 1001 streams behind one another$"):
        decoding._decode(b"abc", frames.Part(8000, 60.0, True))


def test_how_much_may_be_missing():
    assert missing(10.0, 0.5) == "0.50 s of the sound that its header announces are missing"
    assert missing(10.0, 0.004).startswith("0.004 s") and missing(10.0, 0.0).startswith("0.001 s")
    assert missing(100.0, 1.0).startswith("1.00 s")
    for seconds, lost, said in ((10.0, 0.51, "10.0 s of 10.5 s"), (100.0, 1.02, "100.0 s of 101.0 s")):
        with pytest.raises(AudioError, match=f"^truncated: {said}$"):
            missing(seconds, lost)


def test_whatever_a_tar_or_a_zip_fails_of_is_told_and_a_failing_disk_is_none_of_it(tmp_path, monkeypatch):
    tar = archive_of(tmp_path / "a.tar", tarred({"s/v/1.wav": b"x"}, "w"))
    zip_ = archive_of(tmp_path / "a.zip", zipped({"s/v/1.wav": b"x"}))

    def fails(error):
        return lambda *_, **__: (_ for _ in ()).throw(error)

    for kind in (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, OverflowError, ValueError):
        monkeypatch.setattr(archives.tarfile, "open", fails(kind("why")))
        with pytest.raises(
            RequestError, match=r"^a\.tar is no tar or breaks off after 0 audio files \(why\): fetch it"
        ):
            list(archives.members(tar))
    for error in (struct.error("why"), OverflowError("why"), ValueError("why"), zipfile.BadZipFile("why")):
        monkeypatch.setattr(archives, "_directory", fails(error))
        with pytest.raises(RequestError, match=r"^a\.zip is not a zip \(why\): remove its parts"):
            list(archives.members(zip_))
    monkeypatch.setattr(archives, "_directory", fails(OSError(errno.EINVAL, "why")))
    with pytest.raises(RequestError, match=r"^a\.zip is not a zip"):
        list(archives.members(zip_))
    monkeypatch.setattr(archives, "_directory", fails(OSError(errno.EIO, "broken disk")))
    monkeypatch.setattr(archives.tarfile, "open", fails(OSError(errno.EIO, "broken disk")))
    for archive in (tar, zip_):
        with pytest.raises(OSError, match="broken disk"):
            list(archives.members(archive))


def test_a_file_of_a_zip_that_is_not_as_its_directory_says(tmp_path):
    data = zipped({"s/v/1.wav": b"sound of one file" * 9}, zipfile.ZIP_DEFLATED)
    (member,) = archives.members(archive_of(tmp_path / "a.zip", data))
    files = ((str(tmp_path / "a.zip"), 0),)
    assert archives.read(files, member) == b"sound of one file" * 9
    place = "damaged archive: no file where its directory says"
    for change, said in (
        ({"start": 2**70}, place),
        ({"start": 3}, place),
        ({"packed": 10_000}, "damaged archive: ends inside the file"),
        ({"size": 5}, "damaged archive: size or checksum of the file is wrong"),
        ({"crc": 1}, "damaged archive: size or checksum of the file is wrong"),
        ({"method": zipfile.ZIP_STORED}, "damaged archive: size or checksum of the file is wrong"),
    ):
        with pytest.raises(AudioError, match=f"^{said}$"):
            archives.read(files, archives.dataclasses.replace(member, **change))
    name = data.index(b"s/v/1.wav") + len(b"s/v/1.wav")
    broken = data[:name] + b"\xff" * 8 + data[name + 8 :]
    (member,) = archives.members(archive_of(tmp_path / "b.zip", broken))
    with pytest.raises(AudioError, match=r"^damaged archive: cannot be unpacked$"):
        archives.read(((str(tmp_path / "b.zip"), 0),), member)
    (tmp_path / "a.zip").write_bytes(zipped({"s/v/1.wav": b"another"}))
    (other,) = archives.members(archive_of(tmp_path / "a.zip"))
    assert archives.read(((str(tmp_path / "a.zip"), 1),), other) == b"another"  # of another time: opened anew


def test_members_carry_the_session_of_their_tree_and_what_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    for name, size in (("s/v/1.wav", 100), ("s/v/2.wav", 101), ("s/3.wav", 1), ("x.wav", 1), ("s/.v/4.wav", 1)):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_bytes(bytes(size))
    plain, phone = archives.tree(tmp_path / "t", "dev"), archives.tree(tmp_path / "t", "dev", "own", "phone")
    assert (plain.name, phone.name, phone.session, plain.bytes, phone.subset) == ("t", "own", "phone", 203, "dev")
    assert plain.md5 != phone.md5 and plain.is_tree and plain.files[0]["md5"] == plain.md5
    found = {one.name: (one.utterance, one.refusal) for one in archives.members(phone)}
    unnamed = "name is not <speaker>/<session>/<file>"
    assert found == {
        "s/v/1.wav": (Utterance("s", "phone/v", "1.wav"), ""),
        "s/v/2.wav": (Utterance("s", "phone/v", "2.wav"), "file of 101 bytes, at most 100"),
        "s/3.wav": (Utterance("s", "phone", "3.wav"), ""),
        "x.wav": (None, unnamed),
    }
    assert [one.name for one in archives.members(plain, lambda name: None)] == []
