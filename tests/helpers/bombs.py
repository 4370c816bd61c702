"""Files of a few hundred bytes that claim gigabytes, made on the spot."""

import struct
import zlib


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an MP4 file."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", flags), *parts)


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def mp4(samples: int, size: int = 1, tracks: int = 1, padding: int = 64) -> bytes:
    """An MP4 file of AAC with so many samples of one `size` in each track, in a few hundred bytes and `padding`."""
    traks = b"".join(_track(number + 1, samples, size) for number in range(tracks))
    return box(b"ftyp", b"M4A \0\0\0\0M4A ") + box(b"moov", _movie_header(), traks) + box(b"mdat", bytes(padding))


def fragmented(samples: int, padding: int = 64) -> bytes:
    """A fragmented MP4 file whose one fragment claims so many samples without listing any."""
    trex = full(b"trex", words(1, 1, 1024, 1, 0))
    moov = box(b"moov", _movie_header(), _track(1, 0, 0), box(b"mvex", trex))
    tfhd = full(b"tfhd", words(1), flags=0x020000)
    moof = box(b"moof", full(b"mfhd", words(1)), box(b"traf", tfhd, full(b"trun", words(samples))))
    return box(b"ftyp", b"iso5\0\0\0\0iso5") + moov + moof + box(b"mdat", bytes(padding))


def compressed(claimed: int) -> bytes:
    """A QuickTime file whose compressed header claims to unpack to so many bytes."""
    packed = zlib.compress(box(b"moov", _movie_header()))
    cmov = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", words(claimed), packed))
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", cmov) + box(b"mdat", bytes(64))


def _movie_header() -> bytes:
    return full(b"mvhd", words(0, 0, 1000, 1000), bytes(80))


def _track(number: int, samples: int, size: int) -> bytes:
    esds = full(
        b"esds", bytes([3, 25, 0, 0, 0, 4, 17, 0x40, 0x15, 0, 0, 0]), bytes(8), bytes([5, 2, 0x14, 0x08, 6, 1, 2])
    )
    mp4a = box(b"mp4a", bytes(6), struct.pack(">HIIHHHHI", 1, 0, 0, 1, 16, 0, 0, 16000 << 16), esds)
    table = box(
        b"stbl",
        full(b"stsd", words(1), mp4a),
        full(b"stts", words(1, samples, 1024)) if samples else full(b"stts", words(0)),
        full(b"stsc", words(1, 1, samples, 1)) if samples else full(b"stsc", words(0)),
        full(b"stsz", words(size, samples)),
        full(b"stco", words(1, 600)) if samples else full(b"stco", words(0)),
    )
    mdhd = full(b"mdhd", words(0, 0, 16000, 16000, 0))
    mdia = box(b"mdia", mdhd, full(b"hdlr", bytes(4), b"soun", bytes(13)), box(b"minf", table))
    return box(b"trak", full(b"tkhd", words(0, 0, number, 0, 1000), bytes(60), flags=7), mdia)
