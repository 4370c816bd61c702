"""
What lies in an archive, and how one file of it is read: zips (still in parts), tars (streamed), trees of files.

Nothing is ever unpacked to disk. `members` lists the audio files of an archive; of a zip or a tree each one is read
later by its place alone (`read`), in any process, while a tar is gone through once and its files come with their bytes.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils import corpora
from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.base.zips import bomb
from sv_utils.corpora import Utterance
from sv_utils.speech import trees
from sv_utils.speech.audio import AudioError

MAX_BYTES = 1 << 28  # of one file inside an archive, whatever its header claims
STREAM_BYTES = 1 << 26  # of a tar's files that are in memory for one shard
IN_A_TREE, IN_A_STREAM = -1, -2  # in place of a compression method: the file lies by itself, or its bytes come along
TARS = (".tar", ".tar.gz", ".tgz")
ENTRY = struct.Struct("<4s6H3I5H2I")  # of a zip's directory, up to the name
END, END64 = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q")
# Headers of a tar that carry a name of any length, and other facts.
EXTENSIONS = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE}
EXTENSIONS |= {tarfile.SOLARIS_XHDTYPE}
LONGEST_HEADER = 1 << 16  # of them [bytes]
DIRECTORY_BLOCK = 1 << 20  # of a zip's directory, read at a time [bytes]
MOST_SHRUNK = 200  # a file of a zip that is larger by more is no speech, from `SMALL` on
SMALL = 1 << 24  # [bytes]
WIDE = 0xFFFFFFFF  # in place of a number that stands in the zip64 extra field


@dataclass(frozen=True)
class VerifiedArchive:
    """
    An archive whose every byte was compared with its checksum, or a tree of files as it lies.

    Attributes
    ----------
    name, subset : str
        As in `corpora.Archive`.
    md5 : str
        Of the whole archive; of a tree, of the list of its names, sizes and modification times.
    files : tuple of dict
        ``path``, ``bytes``, ``mtime_ns``, ``md5`` of each piece, in order.
    removed : bool
        Whether it was deleted after its store was finished (`download.remove`).
    session : str
        What the sessions of a tree begin with, where its speakers have recordings in other trees too.
    """

    name: str
    subset: str
    md5: str
    files: tuple[dict, ...]
    removed: bool = False
    session: str = ""

    @property
    def bytes(self) -> int:
        """Size of the whole archive [bytes]."""
        return sum(file["bytes"] for file in self.files)

    @property
    def packed(self) -> int:
        """Size as it lies on the disk now [bytes]."""
        return sum(os.stat(file["path"]).st_size for file in self.files)

    @property
    def is_tree(self) -> bool:
        """Whether it is a folder of files."""
        return Path(self.files[0]["path"]).is_dir()

    def open(self) -> io.BufferedReader:
        """Open the archive for reading, as if it were one file."""
        return open_parts([file["path"] for file in self.files])


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive: who speaks, and all that is needed to read it without the archive's directory."""

    name: str
    utterance: Utterance | None
    start: int
    packed: int
    size: int
    method: int
    crc: int
    refusal: str
    data: bytes = b""


class PartsFile(io.RawIOBase):
    """Several files read as one, in the given order: seekable, read-only. A read ends where a part does."""

    def __init__(self, parts: Sequence[str | os.PathLike]):
        super().__init__()
        self._opened = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:  # closes what is open when a part is missing
            self._files = [stack.enter_context(open(part, "rb", buffering=0)) for part in parts]
            self._opened = stack.pop_all()
        self._ends = list(accumulate(os.fstat(file.fileno()).st_size for file in self._files))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._files):
            return 0
        start = self._ends[index - 1] if index else 0
        view = memoryview(buffer)[: self._ends[index] - self._position]
        self._files[index].seek(self._position - start)
        count = self._files[index].readinto(view)
        self._position += count
        return count

    def close(self) -> None:
        self._opened.close()
        super().close()


def open_parts(parts: Sequence[str | os.PathLike]) -> io.BufferedReader:
    """
    Open several files as one.

    Examples
    --------
    >>> zipfile.ZipFile(open_parts(["vox2_dev_aac_partaa", "vox2_dev_aac_partab"]))  # doctest: +SKIP
    """
    return io.BufferedReader(PartsFile(parts))


def test_voices() -> zipfile.ZipFile:
    """Open the archive of the embedded corpus that holds its test voices."""
    corpus = corpora.get("mini")
    folder = corpus.bundled or Path()
    return zipfile.ZipFile(open_parts([folder / file for file, _ in corpus.remotes[1].parts]))


def tree(folder: Path, subset: str, name: str = "", session: str = "") -> VerifiedArchive:
    """
    Describe a tree of audio files; its `md5` is that of the list of their names, sizes and modification times.

    Parameters
    ----------
    folder : Path
    subset, session : str
        As in `VerifiedArchive`.
    name : str
        By default that of the folder.
    """
    files = trees.walk(folder).files
    digest = hashlib.md5(session.encode("utf-8", "surrogateescape"))
    for line in trees.lines(files):
        digest.update(line)
    total = sum(size for size, _ in files.values())
    entry = {"path": str(folder), "bytes": total, "mtime_ns": 0, "md5": digest.hexdigest()}
    return VerifiedArchive(name or folder.name, subset, digest.hexdigest(), (entry,), session=session)


def members(archive: VerifiedArchive, naming: Callable[[str], Utterance | None] = corpora.parse) -> Iterator[Member]:
    """
    List an archive's audio files; what must not be read carries the reason in `refusal`.

    Parameters
    ----------
    archive : VerifiedArchive
    naming : callable
        `Corpus.naming`: who speaks in a file, by its name; None for a file that is not of the corpus.

    Yields
    ------
    Member
        Of zips and trees in the order of their names, of tars in that of the archive and with their bytes.

    Raises
    ------
    RequestError
        The archive is not what its name says, ends in its midst, or would unpack to what no archive of speech does.
    """
    if archive.is_tree:
        found = _tree_members(archive)
    elif archive.name.endswith(TARS):
        found = _tar_members(archive)
    else:
        found = _zip_members(archive)
    for member in found:
        if not trees.is_audio(member.name) or trees.is_hidden(member.name):
            continue
        try:
            utterance = naming(member.name)
        except RequestError as error:
            reason = f"unsafe: {error}" if corpora.unsafe(member.name) else str(error)
            yield _with(member, None, member.refusal or reason)
            continue
        if utterance:
            if archive.session:
                session = "/".join(filter(None, (archive.session, utterance.session)))
                utterance = dataclasses.replace(utterance, session=session)
            yield _with(member, utterance, member.refusal or _too_large(max(member.size, member.packed)))


def batches(found: Iterator[Member], count: int) -> Iterator[tuple[Member, ...]]:
    """Cut members into groups of `count`, or fewer where the bytes that come along reach `STREAM_BYTES`."""
    while batch := tuple(_until_full(islice(found, count))):
        yield batch


def _until_full(found: Iterator[Member]) -> Iterator[Member]:
    total = 0
    for member in found:
        yield member
        total += len(member.data)
        if total >= STREAM_BYTES:
            return


def read(files: tuple[tuple[str, int], ...], member: Member) -> bytes:
    """
    Read one file of an archive by its place alone.

    `zipfile.ZipFile` would read the whole directory in every worker: a gigabyte each for a million files.

    Parameters
    ----------
    files : tuple of (path, mtime_ns)
        Pieces of the archive; the modification times make a replaced file another key of the cache of open files.
    member : Member

    Raises
    ------
    AudioError
        Its bytes are not what the archive's directory announces.
    """
    if member.method == IN_A_STREAM:
        return member.data
    if member.method == IN_A_TREE:
        return _lying(Path(files[0][0]) / member.name)
    file = _opened(files)
    try:
        file.seek(member.start)
    except (OverflowError, ValueError):
        raise AudioError("damaged archive: no file where its directory says") from None
    header = _exactly(file, 30)
    if header[:4] != b"PK\3\4":
        raise AudioError("damaged archive: no file where its directory says")
    file.seek(sum(struct.unpack("<2H", header[26:])), 1)
    data = _exactly(file, member.packed)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, member.size + 1)
        except zlib.error as error:
            raise AudioError("damaged archive: cannot be unpacked") from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise AudioError("damaged archive: size or checksum of the file is wrong")
    return data


def _lying(path: Path) -> bytes:
    """Read a file of a tree: a file, and no pipe that has taken its place."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError("no file any more")
        return path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP):  # of the machine, not of the file
            raise
        raise AudioError(f"cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4)
def _opened(files: tuple[tuple[str, int], ...]) -> io.BufferedReader:
    return open_parts([path for path, _ in files])


def _exactly(file: io.BufferedReader, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise AudioError("damaged archive: ends inside the file")
    return data


def _with(member: Member, utterance: Utterance | None, refusal: str) -> Member:
    places = (member.start, member.packed, member.size, member.method, member.crc)
    name = printable(member.name) if refusal else member.name  # what is refused is told, and not read
    return Member(name, utterance, *places, refusal, member.data)


def _too_large(size: int) -> str:
    return f"file of {size:,} bytes, at most {MAX_BYTES:,}" if size > MAX_BYTES else ""


def _refuse_bomb(archive: VerifiedArchive, unpacked: int) -> None:
    if reason := bomb(0, unpacked, archive.packed):
        raise RequestError(f"{archive.name} is an archive bomb ({reason}); do not trust it.")


def _tree_members(archive: VerifiedArchive) -> Iterator[Member]:
    for name, (size, _) in trees.walk(archive.files[0]["path"]).files.items():
        yield Member(name, None, 0, size, size, IN_A_TREE, 0, "")


class _TarInfo(tarfile.TarInfo):
    """A tar's header whose long names are names: `tarfile` would read gigabytes for one."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENSIONS and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a name of {self.size:,} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]  # `tarfile` documents it as what to override


def _tar_members(archive: VerifiedArchive) -> Iterator[Member]:
    seen: set[str] = set()
    unpacked = 0
    try:
        with archive.open() as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_TarInfo) as tar:
            for info in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has passed
                unpacked += info.size
                _refuse_bomb(archive, unpacked)  # what is passed over is unpacked too
                if info.isdir() or not trees.is_audio(info.name) or trees.is_hidden(info.name):
                    continue
                refusal = "" if info.isreg() else "unsafe: a link or device"
                refusal = refusal or ("unsafe: a sparse file" if info.issparse() else "")
                refusal = refusal or ("name twice in the archive" if info.name in seen else _too_large(info.size))
                seen.add(info.name)
                file_of_it = None if refusal else tar.extractfile(info)
                data = file_of_it.read() if file_of_it else b""
                yield Member(info.name, None, 0, info.size, info.size, IN_A_STREAM, 0, refusal, data)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, OverflowError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # of the disk, not of gzip
            raise
        raise RequestError(
            f"{archive.name} is no tar or breaks off after {len(seen)} audio files ({error}): fetch it again."
        ) from error


def _zip_members(archive: VerifiedArchive) -> Iterator[Member]:
    """
    Members in the order of their names, taken one by one from the raw directory.

    `zipfile` makes an object of each entry first, which costs more than a gigabyte for VoxCeleb2.
    """
    try:
        with archive.open() as file:
            directory = _directory(file)
            length = file.seek(0, io.SEEK_END)
        places, names, unpacked = [], [], 0
        for place, name in _entries(directory):
            places.append(place)
            names.append(name)
            unpacked += 0 if (member := _entry(directory, place, length)).refusal else member.size
    except (struct.error, OverflowError, ValueError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise RequestError(f"{archive.name} is not a zip ({error}): remove its parts and fetch it again.") from error
    _refuse_bomb(archive, unpacked)
    order = sorted(range(len(names)), key=names.__getitem__)  # stable: of equal names the first stays the first
    previous = None
    names.clear()
    for place in np.array(places)[order].tolist():
        member = _entry(directory, place, length)
        refusal = "name twice in the archive" if member.name == previous else member.refusal
        previous = member.name
        if not member.name.endswith("/"):
            yield _with(member, None, refusal)


def _directory(file: io.BufferedReader) -> bytes:
    """The raw directory of a zip, found through the record at its end (PKWARE's APPNOTE, 4.3)."""
    length = file.seek(0, io.SEEK_END)
    tail_start = file.seek(max(0, length - (1 << 16) - END.size))
    tail = file.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0:
        raise zipfile.BadZipFile("no end record")
    size, start = END.unpack_from(tail, place)[5:7]
    if place >= 20 and tail[place - 20 : place - 16] == b"PK\6\7":  # zip64, for more than 65,535 files or 4 GiB
        file.seek(struct.unpack_from("<Q", tail, place - 12)[0])
        size, start = END64.unpack(file.read(END64.size))[8:10]
    if start + size > tail_start + place:
        raise zipfile.BadZipFile("its directory is cut off")
    file.seek(start)
    return _entries_alone(file, size)


def _entries_alone(file: io.BufferedReader, size: int) -> bytes:
    """Read a directory block by block as long as it is one: a sparse file may claim any size."""
    directory, place = bytearray(), 0
    while len(directory) < size:
        directory += file.read(min(DIRECTORY_BLOCK, size - len(directory)))
        while place + ENTRY.size <= len(directory):
            place = _next(directory, place)
    return bytes(directory)


def _entries(directory: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(directory):
        following = _next(directory, place)
        name = struct.unpack_from("<H", directory, place + 28)[0]
        yield place, directory[place + ENTRY.size : place + ENTRY.size + name]
        place = following


def _next(directory: bytes | bytearray, place: int) -> int:
    """Where the entry after that of a place begins."""
    fields = ENTRY.unpack_from(directory, place)
    if fields[0] != b"PK\1\2":
        raise zipfile.BadZipFile("its directory is damaged")
    return place + ENTRY.size + sum(fields[10:13])


def _entry(directory: bytes, place: int, end: int) -> Member:
    """One entry of the directory of a zip of `end` bytes, with the reason for which it must not be read."""
    fields = ENTRY.unpack_from(directory, place)
    flags, method, crc, packed, size, length, extra = (fields[k] for k in (3, 4, 7, 8, 9, 10, 11))
    attributes, start = fields[15], fields[16]
    place += ENTRY.size
    name = directory[place : place + length].decode("utf-8" if flags & 0x800 else "cp437", "backslashreplace")
    if WIDE in (packed, size, start):
        size, packed, start = _wide(directory[place + length : place + length + extra], size, packed, start)
    refusal = ""
    if (attributes >> 16) & 0o170000 == 0o120000:
        refusal = "unsafe: symbolic link"
    elif flags & 1:
        refusal = "encrypted"
    elif method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refusal = f"compression method {method} of the zip is not supported"
    elif too_large := _too_large(max(size, packed)):
        refusal = too_large
    elif start + packed > end:
        refusal = "damaged archive: no file where its directory says"
    elif size > max(SMALL, MOST_SHRUNK * packed):
        refusal = f"archive bomb: {size:,} bytes out of {packed:,}"
    return Member(name, None, start, packed, size, method, crc, refusal)


def _wide(extra: bytes, *numbers: int) -> list[int]:
    """Replace the numbers that did not fit into 32 bits by those of the zip64 extra field, in its order."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, place + 4))
            return [next(values, number) if number == WIDE else number for number in numbers]
        place += 4 + length
    return list(numbers)
