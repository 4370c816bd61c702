"""What a decoder, a demuxer or an archive may throw at us, thrown by players: each becomes its one sentence."""

import contextlib
import errno
import lzma
import os
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

BROKEN = (av.error.ExternalError(1, "x"), ValueError("x"), EOFError("x"))  # FFmpeg's invalid data are a ValueError
SHORT = (MemoryError(), av.error.MemoryError(12, "x"))  # FFmpeg's own is one of its errors too
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
    for short in SHORT:
        with pytest.raises(MemoryError):
            heard(good, Packet(short), good)


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
    for short in SHORT:
        with pytest.raises(MemoryError):
            heard(demux=lambda stream, short=short: (_ for _ in ()).throw(short))


def test_a_recording_is_too_long_a_second_behind_its_limit():
    assert heard(*[Packet(SECOND)] * 3, longest=2.0)[0] == 3
    with pytest.raises(AudioError, match=r"^longer than 2 s$"):
        heard(*[Packet(SECOND)] * 4, longest=2.0)
    part = frames.Part(8000, 1.0, False)
    part.add(np.float32([0.5, -1.0, 1.0, 2.0, 1.6 / 32768] * 1600))
    assert part.seconds == 1.0 and part.samples[:5].tolist() == [16384, -32768, 32767, 32767, 2]
    with pytest.raises(AudioError, match=r"^longer than 1 s$"):
        part.add(np.float32([0.0]))


@pytest.mark.parametrize("error", BROKEN)
def test_a_file_that_cannot_be_opened_is_no_audio(monkeypatch, error):
    monkeypatch.setattr(decoding.av, "open", lambda *_, **__: (_ for _ in ()).throw(error))
    for content, said in ((b"%PDF", "not audio: a PDF document"), (b"abc", "not audio, or cut off before its index")):
        with pytest.raises(AudioError, match=f"^{said}$"):
            decoding.decode(content)


@pytest.mark.parametrize("short", SHORT)
def test_want_of_memory_is_no_other_failure(monkeypatch, short):
    monkeypatch.setattr(decoding.av, "open", lambda *_, **__: (_ for _ in ()).throw(short))
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


def test_a_track_that_cannot_be_decoded_holds_no_sound(monkeypatch):
    """Of a track that was not chosen: whether it holds more than silence, by the same wishes."""
    asked = []
    monkeypatch.setattr(decoding, "_opened", lambda content: contextlib.nullcontext(content))
    monkeypatch.setattr(decoding, "_stream", lambda container, index: (container, index))

    def decode(container, stream, part):
        asked.append((container, stream, part.sample_rate, part.max_seconds, part.first_channel))
        part.sound += np.int16([levels.pop(0)]).tobytes()

    monkeypatch.setattr(decoding, "_decode_stream", decode)
    levels = [-33, 32]
    part = frames.Part(8000, 60.0, True, sound=bytearray(b"1234"))
    assert decoding._sounds("file", 2, part) and not decoding._sounds("file", 2, part)
    assert asked == [("file", ("file", 2), 8000, 60.0, True)] * 2 and part.sound == b"1234"
    monkeypatch.setattr(decoding, "_decode_stream", lambda *_: (_ for _ in ()).throw(AudioError("damaged")))
    assert not decoding._sounds("file", 2, part)


def test_parts_are_closed_with_the_file_that_they_are(tmp_path):
    before = len(os.listdir("/dev/fd"))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    with archives.open_parts([tmp_path / "a", tmp_path / "b"]) as file:
        assert file.read() == b"ab"
    assert file.closed and len(os.listdir("/dev/fd")) <= before
    with pytest.raises(FileNotFoundError):
        archives.open_parts([tmp_path / "a", tmp_path / "c"])
    assert len(os.listdir("/dev/fd")) <= before


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


def mixed(values, *, rate=16_000, planar=False, channels=1, first=False, floats=False, scale=1.0, monkeypatch):
    monkeypatch.setattr(frames, "frames_of", lambda *given: given)
    monkeypatch.setattr(frames, "_gathered", lambda given: [((rate, planar, channels), np.asarray(values))])
    monkeypatch.setattr(frames, "holds_floats", lambda stream: floats)
    part = frames.Part(16_000, 60.0, first, scale)
    ((found, sound),) = frames.mono("container", "stream", part)
    assert found == rate and part.rates == [rate]
    return sound.tolist(), part


def test_samples_of_each_kind_become_floats_of_one_channel(monkeypatch):
    play = {"monkeypatch": monkeypatch}
    packed = np.int16([[16384, -8192, 0, 8192]])
    assert mixed(packed, channels=2, **play)[0] == [0.125, 0.125]
    assert mixed(packed, channels=2, first=True, **play)[0] == [0.5, 0.0]
    assert mixed(np.int16([[16384, 0], [0, 8192]]), planar=True, channels=2, **play)[0] == [0.25, 0.125]
    assert mixed(np.uint8([[0, 128, 192]]), **play)[0] == [-1.0, 0.0, 0.5]
    assert mixed(np.int32([[2**30]]), **play)[0] == [0.5]
    loud, part = mixed(np.float64([[3.0, -1.0, 2.0], [0.0, 0.0, -2.5]]), planar=True, floats=True, scale=2.0, **play)
    assert loud == [0.75, -0.25, -0.125] and (part.floats, part.loud) == (3, 2)
    lossy, part = mixed(np.float32([[3.0]]), planar=True, **play)  # computed as floats, and stored as none
    assert lossy == [3.0] and (part.floats, part.loud) == (0, 0)
    for rate in (999, 768_001):
        with pytest.raises(AudioError, match=f"^sample rate of {rate} Hz$"):
            mixed(packed, rate=rate, **play)
    assert mixed(packed, rate=1000, **play)[1].rates == [1000]


def ended(seconds, name="flac", duration=None, rate=16_000, monkeypatch=None, **header):
    """What is said of a file's end: what was decoded of it [s], and what its header says."""
    said = {"missing_share": 0.0, "unannounced": (0, False), "stated_mp3": (0, 0)} | header
    for function, answer in said.items():
        monkeypatch.setattr(decoding.headers, function, lambda content, answer=answer: answer)
    part = frames.Part(16_000, 60.0, False, sound=bytearray(round(seconds * 16_000) * 2))
    container = SimpleNamespace(format=SimpleNamespace(name=name))
    codec = SimpleNamespace(sample_rate=rate)
    time = None if duration is None else duration * rate
    decoding._check_end(container, SimpleNamespace(duration=time, time_base=1 / rate, codec_context=codec), b"", part)
    return part.warnings


def test_the_end_of_a_file_is_compared_with_its_header(monkeypatch):
    play = {"monkeypatch": monkeypatch}
    lost = "{} s of the sound that its header announces are missing"
    assert ended(1.0, duration=1.005, **play) == [lost.format("0.005")]  # of those that lose no sample
    assert ended(1.0, duration=1.001, **play) == ended(1.0, "mp3", duration=9.0, **play) == []
    assert ended(1.0, "ogg", duration=9.0, **play) == ended(1.0, **play) == []  # which is a guess, or none
    box = "mov,mp4,m4a,3gp,3g2,mj2"
    assert ended(1.0, box, duration=1.09, **play) == [] and ended(1.0, box, duration=1.15, **play) == [
        lost.format("0.15")
    ]
    assert ended(0.9, missing_share=0.1, duration=99.0, **play) == [lost.format("0.10")]
    more = "12 bytes behind the sound that its header announces are {}decoded{}"
    assert ended(1.0, unannounced=(12, False), **play) == [more.format("not ", "")]
    assert ended(1.0, unannounced=(12, True), **play) == [more.format("", " as well")]
    # 40 frames of 1152 samples at 44.1 kHz, of 576 at 16 kHz, and what the encoder put around them
    assert ended(0.8, "mp3", rate=44_100, stated_mp3=(40, 1000), **play) == [lost.format("0.22")]
    assert ended(1.2, "mp3", rate=16_000, stated_mp3=(40, 1000), **play) == [lost.format("0.18")]
    with pytest.raises(AudioError, match=r"^truncated: 1\.0 s of 9\.0 s$"):
        ended(1.0, duration=9.0, **play)
    with pytest.raises(AudioError, match=r"^truncated: 9\.0 s of 10\.0 s$"):
        ended(9.0, missing_share=0.1, **play)


def scaled(*pieces, monkeypatch):
    """What samples stored as floats are divided by, and what is said of it."""
    asked = []
    monkeypatch.setattr(decoding, "_opened", lambda content: contextlib.nullcontext(content))
    monkeypatch.setattr(decoding, "_stream", lambda container, index: (container, index))

    def frames_of(container, stream, part):
        asked.append((container, stream, part.sample_rate, part.max_seconds, part.first_channel))
        return [SimpleNamespace(to_ndarray=lambda piece=piece: np.float64([piece])) for piece in pieces]

    monkeypatch.setattr(decoding.frames, "frames_of", frames_of)
    part = frames.Part(8000, 60.0, True)
    unit = decoding._full_scale("file", 2, part)
    assert asked == [("file", ("file", 2), 8000, 60.0, True)]
    return unit, part.warnings


def test_the_unit_of_samples_that_are_stored_as_floats(monkeypatch):
    play = {"monkeypatch": monkeypatch}
    assert scaled([0.5, -1.0], [], [1.0], **play) == scaled([0.5], [-127.5], **play) == (1.0, [])
    said = "its samples are integers stored as floats (up to {}): divided by {}"
    for pieces, peak, unit in (
        (([0.0], [-2.0, 1.0]), 2, 2**15),
        (([0.5], [200.5]), 200, 2**15),
        (([-32_768.0],), 32_768, 2**15),
        (([32_769.0],), 32_769, 2**23),
        (([2.0**24],), 2**24, 2**31),
    ):
        assert scaled(*pieces, **play) == (unit, [said.format(peak, unit)])
    for pieces, reason in (
        (([1e12],), r"samples of up to 1e\+12: no known unit"),
        (([0.5, np.nan], [np.inf, 0.1, 0.2]), "2 of its 5 samples are not finite numbers"),
    ):
        with pytest.raises(AudioError, match=f"^{reason}$"):
            scaled(*pieces, **play)
