"""
What the header of an audio file says, read without decoding it: what was announced, and what cannot be.

FFmpeg's demuxers reserve memory by the counts that a file claims, and do not tell how much of what it announces is
there. Every function takes the file's content as `bytes` or as an `mmap`, and reads little of it.
"""

import mmap
import re
import struct
from collections.abc import Iterator

Content = bytes | mmap.mmap

UNKNOWN = 0x7FFE0000  # sizes from here up are what programs write into a pipe: unknown [bytes]
ZEROS = bytes(64)
BOXES = 100_000  # boxes of an MP4 file that are looked at
SAMPLES_PER_BYTE = 64  # of the strongest codecs whose samples are counted one by one in QuickTime files
NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf"}  # boxes that hold boxes
# Tables of MP4 files: where the number of entries stands behind the box's header, and the bytes of an entry.
TABLES = {
    b"stts": (4, 8),
    b"ctts": (4, 8),
    b"stsc": (4, 12),
    b"stco": (4, 4),
    b"co64": (4, 8),
    b"stss": (4, 4),
    b"stsd": (4, 8),
    b"elst": (4, 12),
    b"sbgp": (8, 8),
    b"sidx": (20, 12),
}
DTS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8")  # how its frames begin
DTS_FRAME = 18728  # largest frame, in words of 14 bits [bytes]
COUNTED = {*TABLES, b"stsz", b"trun"}
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
NAMES = [  # how files begin that people take for recordings, and what can be done
    (rb"version https://git-lfs", "a pointer of Git LFS: fetch the file itself (git lfs pull)"),
    (rb"\s*(<!doctype|<html|<\?xml)", "a web page: the download failed"),
    (rb"\s*(\{|\[)", "a JSON text"),
    (rb"#EXTM3U", "a playlist: name the recording itself"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04", "a zip archive: unpack it"),
    (rb"Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed file: unpack it"),
    (rb"MThd", "MIDI, which holds notes and no sound"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP", "a picture"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"ajkg", "Shorten: convert it to wav or FLAC"),
    (rb"\.RMF|\.ra\xfd", "RealAudio: convert it to wav or FLAC"),
    (rb"DSD |FRM8", "DSD: convert it to wav or FLAC"),
    (rb"MPCK|MP\+", "Musepack: convert it to wav or FLAC"),
    (rb"tBaK", "TAK: convert it to wav or FLAC"),
    (rb"OptimFROG|OFR ", "OptimFROG: convert it to wav or FLAC"),
    (rb"#!SILK|\x02#!SILK", "SILK, a voice message of WeChat or QQ: convert it to wav or FLAC"),
    (rb"\x1fC\xb6u", "a later piece of a webm recording: its beginning is missing"),
    (rb"NIST_1A.*embedded-shorten", "NIST SPHERE compressed by Shorten: unpack it with sph2pipe"),
    (rb"NIST_1A.*embedded-", "NIST SPHERE that is compressed: unpack it with sph2pipe or w_decode"),
    (rb"#!AMR-WB_MC|#!AMR_MC", "AMR of several channels: convert it to wav"),
    (rb"caff|FORM|RIFF|RF64|fLaC|OggS|....ftyp|NIST_1A|\x1aE\xdf\xa3", ""),  # known, and broken
]


def name(content: Content) -> str:
    """
    Name the kind of a file that cannot be read, as far as its first bytes tell.

    Examples
    --------
    >>> name(b"%PDF-1.4")
    'a PDF document'
    """
    head = bytes(content[:1024])
    return next((text for start, text in NAMES if re.match(start, head, re.DOTALL | re.IGNORECASE)), "")


def start(content: Content) -> int:
    """Where a file begins behind zeros, or behind an ID3 tag in front of a format that knows none."""
    position = 0
    while content[position : position + 64] == ZEROS:
        position += 64
    if not position and content[:3] != b"ID3":
        return 0
    if position:
        return position + len(block := content[position : position + 64]) - len(bytes(block).lstrip(b"\0"))
    position = _behind_id3(content)
    known = content[position : position + 4] in (b"RIFF", b"RF64", b"FORM", b"OggS", b"caff")
    return position if known or content[position + 4 : position + 8] == b"ftyp" else 0


def _behind_id3(content: Content) -> int:
    position = 0
    while content[position : position + 3] == b"ID3" and position + 10 <= len(content):
        sizes = content[position + 6 : position + 10]
        position += 10 + (sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3])
    return position


def unannounced(content: Content) -> tuple[int, bool]:
    """
    Find bytes behind the sound that the header of a wav file announces, where they are no further chunk.

    Returns
    -------
    tuple of int and bool
        How many, and whether they are sound: most of a file whose other size does not end there either, which a
        recorder leaves that stopped before it mended its header.
    """
    start, size = _announced(content) if content[:4] == b"RIFF" and content[8:12] == b"WAVE" else (0, 0)
    end = start + size + size % 2
    if not size or end + 8 > len(content):
        return 0, False
    kind, length = struct.unpack("<4sI", content[end : end + 8])
    if all(32 <= character < 127 for character in kind) and length <= len(content) - end:
        return 0, False
    more, whole = len(content) - start - size, 8 + struct.unpack("<I", content[4:8])[0]
    return more, more > len(content) // 2 and abs(whole - end) > 1


def plain_wav(content: Content) -> bool:
    """
    Whether a file is a wav file that holds no DTS, which may stand where its header says 16 bit samples.

    Examples
    --------
    >>> plain_wav(b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 1000) + bytes(1000))
    True
    """
    if content[:4] not in (b"RIFF", b"RF64", b"BW64") or content[8:12] != b"WAVE":
        return False
    sound = content[(start := _wav_data(content)[0]) : start + DTS_FRAME]
    return start > 0 and not any(word in sound for word in DTS)


def missing_share(content: Content) -> float:
    """
    Give the share of the announced bytes of sound that a wav, W64, CAF, AVI, ASF or Matroska file does not hold.

    Examples
    --------
    >>> missing_share(b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 1000) + bytes(900))
    0.1
    """
    start, size = _announced(content)
    present = len(content) - start
    return (size - present) / size if 0 < present < size else float(present <= 0 < size)


def _announced(content: Content) -> tuple[int, int]:
    """Where the sound begins and how many bytes of it are announced [(0, 0) where nothing is]."""
    kind, form = content[:4], content[8:12]
    if kind in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return _wav_data(content)
    if kind == b"RIFF" and form == b"AVI ":
        size = struct.unpack("<I", content[4:8])[0]
        return (8, size) if size < UNKNOWN else (0, 0)
    if kind == b"riff":
        return _chunk(content, 40, "<16sQ", b"data", -24, 8)
    if kind == b"caff":
        return _chunk(content, 8, ">4sQ", b"data", 0, 1)
    if kind == b"\x1aE\xdf\xa3":
        return _matroska_segment(content)
    if kind == b"\x30\x26\xb2\x75":
        return _asf(content)
    return 0, 0


def _wav_data(content: Content) -> tuple[int, int]:
    position, long_size = 12, 0
    while position + 8 <= len(content):
        kind, size = struct.unpack("<4sI", content[position : position + 8])
        position += 8
        if kind == b"ds64" and position + 16 <= len(content):
            long_size = struct.unpack("<Q", content[position + 8 : position + 16])[0]
        if kind == b"data":
            size = long_size if size == 0xFFFFFFFF and content[:4] != b"RIFF" else size
            return (position, size) if size < UNKNOWN or (long_size and size == long_size) else (0, 0)
        position += size + size % 2
    return 0, 0


def _chunk(content: Content, position: int, form: str, wanted: bytes, beside: int, step: int) -> tuple[int, int]:
    """Where the wanted chunk of a file of chunks begins, and its size; those near the top are unknown."""
    head = struct.calcsize(form)
    while position + head <= len(content):
        kind, size = struct.unpack(form, content[position : position + head])
        size += beside
        position += head
        if kind.startswith(wanted):
            return (position, size) if 0 < size < 2**62 else (0, 0)
        position += max(-(-size // step) * step, 0)
    return 0, 0


def _matroska_segment(content: Content) -> tuple[int, int]:
    """Of the first segment, behind the header; its size is all ones where a recorder did not know it."""
    size, width = _matroska_number(content, 4)
    position = 4 + width + size
    if content[position : position + 4] != b"\x18S\x80g":
        return 0, 0
    size, width = _matroska_number(content, position + 4)
    unknown = size == (1 << 7 * width) - 1
    return (0, 0) if unknown else (position + 4 + width, size)


def _matroska_number(content: Content, position: int) -> tuple[int, int]:
    """A number of variable width, and its width."""
    first = content[position] if position < len(content) else 0
    width = 9 - first.bit_length() if first else 8
    return int.from_bytes(content[position : position + width], "big") & ((1 << 7 * width) - 1), width


def _asf(content: Content) -> tuple[int, int]:
    """The whole of an ASF file, by its file properties; nothing when it was broadcast."""
    place = content[:65536].find(ASF_PROPERTIES)
    if place < 0 or place + 92 > len(content):
        return 0, 0
    size = struct.unpack("<Q", content[place + 40 : place + 48])[0]
    broadcast = content[place + 88] & 1
    return (0, 0) if broadcast else (0, size)


def stated_mp3(content: Content) -> tuple[int, int]:
    """
    Read how many frames an MP3 file holds by its first one (Xing, Info, VBRI).

    Returns
    -------
    tuple of int
        Frames [0: not stated], and samples that its encoder put before and behind the sound.
    """
    position = _behind_id3(content)
    head = bytes(content[position : position + 4096])
    if found := re.search(rb"VBRI.{10}(.{4})", head, re.DOTALL):
        return int.from_bytes(found.group(1), "big"), 0
    found = re.search(rb"(?:Xing|Info)\0\0\0(.)(.{4})", head, re.DOTALL)
    if not found or not found.group(1)[0] & 1:
        return 0, 0
    flags = found.group(1)[0]
    encoder = found.start() + 12 + (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    around = int.from_bytes(head[encoder + 21 : encoder + 24], "big")
    return int.from_bytes(found.group(2), "big"), (around >> 12) + (around & 0xFFF)


def sound_end(content: Content) -> int:
    """Where the sound ends in files whose end FFmpeg takes for sound: AU behind its data, and tags behind frames."""
    end = len(content)
    if content[:4] == b".snd":
        start, size = struct.unpack(">II", content[4:12]) if end >= 12 else (0, 0xFFFFFFFF)
        return min(end, start + size) if size and size < UNKNOWN else end
    if content[:7] == b"NIST_1A":
        return min(end, _sphere_end(bytes(content[:1024])))
    if content[:3] != b"ID3" and not (content[:1] == b"\xff" and content[1] >= 0xE0) and content[:2] != b"\x0bw":
        return end
    while (shorter := _before_tag(content, end)) < end:
        end = shorter
    return end


def _sphere_end(head: bytes) -> int:
    fields = {name: int(value) for name, value in re.findall(rb"(?m)^(\w+) -i (\d+)", head)}
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    size = re.match(rb"NIST_1A\n *(\d+)\n", head)
    if not size or not all(fields.get(name) for name in names):
        return 2**62
    return int(size.group(1)) + fields[names[0]] * fields[names[1]] * fields[names[2]]


def _before_tag(content: Content, end: int) -> int:
    """Where a tag that ends at `end` begins: ID3v1, Lyrics3 or APE."""
    if content[max(end - 128, 0) : end][:3] == b"TAG":
        return end - 128
    if content[max(end - 9, 0) : end] == b"LYRICS200" and (size := content[max(end - 15, 0) : end - 9]).isdigit():
        return max(end - 15 - int(size), 0)
    foot = content[max(end - 32, 0) : end]
    if foot[:8] == b"APETAGEX":
        size, _, flags = struct.unpack("<III", foot[12:24])
        return max(end - size - (32 if flags >> 31 else 0), 0)
    return end


def ogg_links(content: Content) -> list[tuple[int, int]]:
    """
    Give the parts [start, end) of a chained Ogg file: streams behind one another, each with headers of its own.

    Pages that begin a stream stand together at the start of a part; one that follows other pages begins the next part.
    """
    if content[:4] != b"OggS":
        return []
    starts: list[int] = []
    behind = 0
    for found in re.finditer(rb"OggS\x00[\x02\x06]", content):
        if found.start() != behind or not starts:
            starts.append(found.start())
        behind = _page_end(content, found.start())
    return list(zip(starts, [*starts[1:], len(content)]))


def ends_within_page(content: Content) -> bool:
    """Whether an Ogg file ends before its last page does."""
    return content[:4] == b"OggS" and _page_end(content, content.rfind(b"OggS\x00")) > len(content)


def _page_end(content: Content, start: int) -> int:
    segments = content[start + 26] if start + 26 < len(content) else 0
    return start + 27 + segments + sum(content[start + 27 : start + 27 + segments])


def impossible_count(content: Content) -> str:
    """
    Find a count in an MP4 file that is larger than the file allows.

    Returns
    -------
    str
        What was found, '' when nothing was.
    """
    if content[4:8] not in (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"wide", b"skip", b"styp", b"sidx", b"pnot"):
        return ""
    samples = 0
    for kind, start, end in _boxes(content):
        if kind not in COUNTED:
            continue
        count, entry = _count(content, kind, start, end)
        if count * entry > end - start:
            return f"a table '{kind.decode('latin-1')}' of {count} entries in {end - start} bytes"
        if kind in (b"stsz", b"trun"):
            samples += count
        if samples > SAMPLES_PER_BYTE * (len(content) + 1024):
            return f"{samples} samples announced in {len(content)} bytes"
    return ""


def _boxes(content: Content) -> Iterator[tuple[bytes, int, int]]:
    """Boxes of an MP4 file, nested ones too: their kind, and where what they hold begins and ends."""
    waiting, read = [(0, len(content))], struct.Struct(">I4s").unpack_from
    for _ in range(BOXES):
        position, limit = waiting.pop()
        while position + 8 > limit:
            if not waiting:
                return
            position, limit = waiting.pop()
        (size, kind), head = read(content, position), 8
        if size == 1 and position + 16 <= limit:
            size, head = struct.unpack_from(">Q", content, position + 8)[0], 16
        behind = min(position + max(size, head), limit) if size else limit
        waiting.append((behind, limit))
        if kind in NESTED:
            waiting.append((position + head, behind))
        yield kind, position + head, behind


def _count(content: Content, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Number of entries that a table claims, and the bytes of each (0: they are all alike and stand nowhere)."""
    flags, first, second = struct.unpack(">3I", content[start : min(start + 12, end)].ljust(12, b"\0"))
    if kind == b"stsz":
        return second, 0 if first else 4
    if kind == b"trun":
        return first, 4 * bin(flags & 0xF00).count("1")
    place, entry = TABLES[kind]
    return int.from_bytes(content[start + place : min(start + place + 4, end)], "big"), entry
