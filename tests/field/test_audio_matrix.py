"""Every container, codec and oddity: decoded, and compared with what was recorded."""

import struct
import zlib

import numpy as np
import pytest
from recordings import SNDFILE, agreement, by_sndfile, encoded, every_kind, speech

from sv_utils.speech import audio

MONO = {"g722", "libopencore_amrnb", "nellymoser"}  # their encoders take one channel
COARSE = {"libopencore_amrnb": 0.5}  # correlation of what keeps no waveform; others: 0.97
FRAMED = {"mp3", "mp2", "adts", "latm", "mpegts", "ac3", "eac3"}  # files of these may be joined as they are
# These state how long they are, or how many bytes they hold; a file that lacks some is told from a whole one.
STATING = {"wav", "w64", "aiff", "au", "caf", "flac", "mp3", "mp4", "ipod", "mov", "3gp", "matroska", "webm", "avi"}
STATING |= {"tta", "wv", "asf"}
PIPED = {"wav", "au", "flac", "ogg", "mp3", "mp2", "adts", "latm", "matroska", "webm", "mpegts", "mpeg", "flv", "avi"}
PIPED |= {"ac3", "eac3", "tta", "wv", "voc", "amr", "asf"}
TAGGED = {"wav", "aiff", "au", "caf", "flac", "ogg", "mp3", "mp4", "ipod", "mov", "matroska", "webm", "avi", "mpegts"}
TAGGED |= {"flv", "tta", "wv"}
BEHIND = b"<html><body>404 not found</body></html>\n" * 100
ODDITIES = ("plain", "stereo", "tags", "piped", "behind", "joined", "cut")


def cells() -> list[tuple[str, str, int, str]]:
    """Container, codec, rate [Hz] and oddity, where the combination exists."""
    found = []
    for container, codec, rate in every_kind():
        fits = {
            "plain": True,
            "stereo": codec not in MONO,
            "tags": container in TAGGED,
            "piped": container in PIPED and (container, codec) != ("matroska", "tta"),  # the muxer leaves half of it
            "behind": container != "amr",  # any byte begins a frame of it
            "joined": container in FRAMED,
            "cut": container in STATING,
        }
        found += [(container, codec, rate, oddity) for oddity in ODDITIES if fits[oddity]]
    return found + [(container, codec, 16000, "plain") for container in SNDFILE for codec in SNDFILE[container].split()]


def recording(container: str, codec: str, rate: int, oddity: str) -> tuple[bytes, np.ndarray]:
    """The file of a cell, and the samples at 16 kHz that it holds."""
    sound, reference = speech(rate), speech()
    if container in SNDFILE:
        return by_sndfile(sound, rate, container, codec), reference
    if oddity == "stereo":
        return encoded(np.stack([sound, sound / 2]), rate, container, codec), 0.75 * reference
    metadata = {"title": "TITLEMARK"} if oddity == "tags" else None
    data = encoded(sound, rate, container, codec, piped=oddity == "piped", metadata=metadata)
    if oddity == "tags":
        data = data.replace(b"TITLEMARK", b"\xe9\xff\xfe\x80\x81\xd0\xc3\x28\xa0")
        data = with_checksums(data) if container == "ogg" else data
    if oddity == "behind":
        data += BEHIND
    if oddity == "joined":
        return data + data, np.concatenate([reference, reference])
    return data[: len(data) * 6 // 10] if oddity == "cut" else data, reference


def with_checksums(data: bytes) -> bytes:
    """An Ogg file with the checksums of its pages mended."""
    pages, position = [], 0
    while position < len(data):
        count = data[position + 26]
        size = 27 + count + sum(data[position + 27 : position + 27 + count])
        page = bytearray(data[position : position + size])
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", ogg_checksum(bytes(page)))
        pages.append(bytes(page))
        position += size
    return b"".join(pages)


def ogg_checksum(page: bytes) -> int:
    """The checksum of Ogg: that of zlib with the bits the other way round, and nothing inverted."""
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in page)
    plain = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{plain:032b}"[::-1], 2)


def result(container: str, codec: str, rate: int, oddity: str) -> tuple[bool, str]:
    """Whether a cell is as it should be; and what was found, for the table."""
    data, reference = recording(container, codec, rate, oddity)
    try:
        decoded = audio.decode(data)
    except audio.AudioError as error:
        return oddity == "cut", f"refused: {error}"
    most = 0.2 if oddity != "joined" else 0.4
    whole = abs(len(decoded.samples) - len(reference)) < most * 16000
    first = decoded.samples[: 32000 + 1600], reference[:32000]
    correlation, shift = agreement(*(first if oddity == "joined" else (decoded.samples, reference)))
    close = correlation > COARSE.get(codec, 0.97) and abs(shift) < 0.15
    said = f"{correlation:.4f} at {1000 * shift:+.0f} ms, {len(decoded.samples) / 16000:.2f} s"
    said += "".join(f"; {warning}" for warning in decoded.warnings)
    if oddity == "cut":
        return any("missing" in warning for warning in decoded.warnings), said
    return whole and close and not any("missing" in warning for warning in decoded.warnings), said


@pytest.mark.parametrize("container", sorted({cell[0] for cell in cells()}))
def test_every_cell_of_the_matrix(container):
    wrong = []
    for cell in cells():
        if cell[0] == container:
            good, said = result(*cell)
            wrong += [] if good else [f"{' '.join(map(str, cell))}: {said}"]
    assert not wrong, "\n".join(wrong)


def test_the_matrix_is_large():
    assert len(cells()) >= 120
