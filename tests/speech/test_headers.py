"""What headers announce, on headers of a few bytes that are written out."""

import struct

import pytest

from sv_utils.speech import headers


def riff(
    size: int, held: int, form: bytes = b"WAVE", before: bytes = b"", kind: bytes = b"RIFF", whole: int = 0
) -> bytes:
    return kind + struct.pack("<I", whole) + form + before + b"data" + struct.pack("<I", size) + bytes(held)


def box(kind: bytes, *content: bytes) -> bytes:
    held = b"".join(content)
    return struct.pack(">I", len(held) + 8) + kind + held


DS64 = b"ds64" + struct.pack("<IQQ", 16, 0, 200)
GUID, CAF = b"data" + bytes(12), b"data" + struct.pack(">q", 200)
MATROSKA = b"\x1aE\xdf\xa3\x82ab\x18S\x80g"
ASF = b"\x30\x26\xb2\x75" + bytes(6) + headers.ASF_PROPERTIES + bytes(24)
SHARES = {
    "wav": (riff(200, 150), 0.25),
    "a chunk of odd size before": (riff(200, 100, before=b"LIST" + struct.pack("<I", 3) + b"abc\0"), 0.5),
    "wav that is whole": (riff(200, 200), 0.0),
    "wav out of a pipe": (riff(0x7FFE0000, 100), 0.0),
    "RF64": (riff(0xFFFFFFFF, 150, before=DS64, kind=b"RF64"), 0.25),
    "RF64 that states its own": (riff(300, 150, before=DS64, kind=b"RF64"), 0.5),
    "RF64 of an unknown size": (riff(0xFFFFFFFF, 150, kind=b"RF64"), 0.0),
    "nothing of it": (b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 9), 1.0),
    "AVI": (b"RIFF" + struct.pack("<I", 100) + b"AVI " + bytes(71), 0.25),
    "W64": (b"riff" + bytes(36) + GUID + struct.pack("<Q", 24 + 200) + bytes(150), 0.25),
    "W64, a chunk before": (b"riff" + bytes(36) + b"fmt " + bytes(12) + struct.pack("<Q", 24 + 3) + bytes(8)
                            + GUID + struct.pack("<Q", 24 + 200) + bytes(150), 0.25),
    "CAF": (b"caff" + bytes(4) + b"desc" + struct.pack(">q", 3) + b"abc" + CAF + bytes(150), 0.25),
    "CAF out of a pipe": (b"caff" + bytes(4) + b"data" + struct.pack(">q", -1) + bytes(150), 0.0),
    "Matroska": (MATROSKA + b"\x40\xc8" + bytes(150), 0.25),
    "Matroska out of a pipe": (MATROSKA + b"\x01" + b"\xff" * 7 + bytes(150), 0.0),
    "Matroska without a segment": (b"\x1aE\xdf\xa3\x82abcdef" + bytes(99), 0.0),
    "ASF": ((ASF + struct.pack("<Q", 200)).ljust(150, b"\0"), 0.25),
    "ASF that was broadcast": ((ASF + struct.pack("<Q", 200) + bytes(40) + b"\1").ljust(150, b"\0"), 0.0),
    "ASF that ends in it": (ASF + struct.pack("<Q", 200), 0.0),
    "another": (b"fLaC" + bytes(99), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARES)
def test_the_share_that_is_missing(name):
    content, share = SHARES[name]
    assert headers.missing_share(content) == share


def test_what_stands_behind_the_sound_that_is_announced():
    assert headers.unannounced(riff(100, 100)) == headers.unannounced(b"fLaC" + bytes(99)) == (0, False)
    assert headers.unannounced(riff(100, 107)) == (0, False) and headers.unannounced(riff(100, 150)) == (50, False)
    assert headers.unannounced(riff(99, 99) + b"\0LIST" + struct.pack("<I", 4) + b"abcd") == (0, False)
    assert headers.unannounced(riff(100, 100) + b"LIST" + struct.pack("<I", 99)) == (8, False)  # it does not hold that
    assert headers.unannounced(riff(100, 400)) == (300, True)
    assert headers.unannounced(riff(100, 400, whole=112)) == (300, False)  # both sizes say that it ends there
    assert (
        headers.unannounced(riff(100, 400, kind=b"RF64")) == headers.unannounced(riff(100, 400, b"RMID")) == (0, False)
    )


def test_a_plain_wav_holds_no_frames_of_dts():
    for kind in (b"RIFF", b"RF64", b"BW64"):
        assert headers.plain_wav(riff(40, 40, kind=kind))
    for word in headers.DTS:
        assert not headers.plain_wav(riff(40, 20) + word + bytes(16))
        assert headers.plain_wav(riff(9**5, 18_728) + word)
    assert not headers.plain_wav(riff(40, 40, b"AVI ")) and not headers.plain_wav(
        b"RIFF" + bytes(4) + b"WAVE" + bytes(9)
    )
    assert not headers.plain_wav(b"fLaC" + bytes(8))


def test_where_a_file_begins():
    assert headers.start(riff(9, 9)) == 0 and headers.start(b"") == 0
    assert headers.start(bytes(64) + b"fLaC") == 64 and headers.start(bytes(130) + b"fLaC") == 130
    assert headers.start(bytes(64)) == 64 and headers.start(bytes(70)) == 70
    tag = b"ID3" + bytes(3) + bytes([0, 0, 1, 2]) + bytes(130)  # 7 bits a byte
    for known in (b"RIFF", b"RF64", b"FORM", b"OggS", b"caff", b"\0\0\0\x1cftyp"):
        assert headers.start(tag + known) == 140 and headers.start(tag + tag + known) == 280
    assert headers.start(tag + b"\xff\xfb\x90\0") == 0


def test_the_frames_that_an_mp3_states():
    around = (576 << 12 | 1000).to_bytes(3, "big")
    lame = b"LAME" + bytes(17) + around
    for flags, fields in ((1, 0), (3, 4), (7, 104), (15, 108)):
        head = b"\xff\xfb" + bytes(30) + b"Xing\0\0\0" + bytes([flags]) + struct.pack(">I", 40) + bytes(fields) + lame
        assert headers.stated_mp3(head) == (40, 1576)
        assert headers.stated_mp3(b"ID3" + bytes(3) + bytes([0, 0, 0, 9]) + bytes(9) + head) == (40, 1576)
    assert headers.stated_mp3(b"\xff\xfb" + bytes(30) + b"Info\0\0\0\0" + bytes(40)) == (0, 0)
    assert headers.stated_mp3(b"\xff\xfb" + bytes(30) + b"VBRI" + bytes(10) + struct.pack(">I", 77) + bytes(9)) == (
        77,
        0,
    )
    assert headers.stated_mp3(b"\xff\xfb" + bytes(300)) == (0, 0)


def test_where_the_sound_ends():
    sound = b"\xff\xfb" + bytes(198)
    lyrics = b"LYRICSBEGIN" + bytes(9) + b"000020LYRICS200"
    foot = b"APETAGEX" + struct.pack("<III", 2000, 32 + 5, 1)
    ape = bytes(5) + foot + struct.pack("<I", 0) + bytes(8)
    headed = bytes(32) + bytes(5) + foot + struct.pack("<I", 1 << 31) + bytes(8)
    for tags in (b"TAG" + bytes(125), lyrics, ape, headed, ape + b"TAG" + bytes(125)):
        assert headers.sound_end(sound + tags) == 200
        assert headers.sound_end(b"\x0bw" + sound + tags) == 202 and headers.sound_end(b"ID3" + sound + tags) == 203
    assert (
        headers.sound_end(b"fLaC" + sound + b"TAG" + bytes(125))
        == 332
        == headers.sound_end(b"fLaC" + sound + b"TAG" + bytes(125))
    )
    assert headers.sound_end(b".snd" + struct.pack(">II", 24, 100) + bytes(300)) == 124
    assert headers.sound_end(b".snd" + struct.pack(">II", 24, 900) + bytes(300)) == 312
    assert headers.sound_end(b".snd" + struct.pack(">II", 24, 0xFFFFFFFF) + bytes(300)) == 312
    assert headers.sound_end(b".snd" + bytes(4)) == 8
    sphere = b"NIST_1A\n   1024\nchannel_count -i 2\nsample_count -i 50\nsample_n_bytes -i 2\nend_head\n"
    assert headers.sound_end(sphere.ljust(1024) + bytes(900)) == 1024 + 200
    assert headers.sound_end(sphere.ljust(1024) + bytes(100)) == 1124
    assert headers.sound_end(sphere.replace(b"sample_count", b"other_count").ljust(1024) + bytes(900)) == 1924


def page(kind: int, *segments: int) -> bytes:
    return b"OggS\0" + bytes([kind]) + bytes(20) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_the_parts_of_a_chain_of_ogg():
    first, more = page(2, 30), page(0, 255, 10)
    assert headers.ogg_links(b"RIFF") == [] and headers.ogg_links(first + more) == [(0, 58 + 294)]
    assert headers.ogg_links(first + first + more) == [(0, 116 + 294)]  # two streams beside each other
    both = first + more + page(6, 20) + more
    assert headers.ogg_links(both) == [(0, 352), (352, len(both))]
    assert not headers.ends_within_page(both) and headers.ends_within_page(both[:-1])
    assert headers.ends_within_page(first + b"OggS\0\0") and not headers.ends_within_page(b"RIFF" + both[:-1])


def test_counts_that_a_file_of_boxes_cannot_hold():
    def moov(kind, *content):
        return box(b"ftyp", b"isom") + box(
            b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", box(kind, *content)))))
        )

    flags = bytes(4)
    for kind, (place, entry) in headers.TABLES.items():
        for count, said in (
            (3, ""),
            (1000, f"a table '{kind.decode()}' of 1000 entries in {place + 4 + 3 * entry} bytes"),
        ):
            assert (
                headers.impossible_count(moov(kind, bytes(place), struct.pack(">I", count), bytes(3 * entry))) == said
            )
    sizes = moov(b"stsz", flags, struct.pack(">II", 0, 3), bytes(12))
    assert headers.impossible_count(sizes) == ""
    assert headers.impossible_count(sizes.replace(struct.pack(">II", 0, 3), struct.pack(">II", 0, 99))) == (
        "a table 'stsz' of 99 entries in 24 bytes"
    )
    alike = moov(b"stsz", flags, struct.pack(">II", 4, 10**6))
    assert headers.impossible_count(alike) == f"1000000 samples announced in {len(alike)} bytes"
    assert headers.impossible_count(moov(b"stsz", flags, struct.pack(">II", 4, 60_000))) == ""
    run = box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0x300, 5), bytes(40))))
    assert headers.impossible_count(run) == ""
    assert headers.impossible_count(run.replace(struct.pack(">II", 0x300, 5), struct.pack(">II", 0x300, 7))).startswith(
        "a tab"
    )
    assert headers.impossible_count(b"\0\0\0\x08free" + alike).startswith("1000000 samples")
    large = struct.pack(">I", 1) + b"moov" + struct.pack(">Q", 16 + len(alike)) + alike
    assert (
        headers.impossible_count(large).startswith("1000000 samples")
        and headers.impossible_count(b"RIFF" + alike) == ""
    )
