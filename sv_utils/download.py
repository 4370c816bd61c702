"""
From a corpus's name to archives whose checksums are known.

Archives are taken from where they already lie (bundled with the repository, or in a mirror folder) and read in place;
only what comes from the network is stored, under ``outputs/corpora/<corpus>/archives/``. A zip cut into parts stays
in parts: `PartsFile` lets `zipfile` read it, so there is neither a concatenated copy nor an extracted tree.
"""

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from stat import S_ISREG

import requests

from sv_utils import corpora, paths
from sv_utils.corpora import Archive, Corpus, Text
from sv_utils.errors import RequestError, WorkError, command

CHUNK = 1 << 20  # bytes read from disk at a time
NETWORK_CHUNK = 1 << 16  # bytes written at a time: what a broken connection may cost
ATTEMPTS = 6  # in a row without a single new byte
PAUSE = 1.0  # [s] before the second attempt; doubles from attempt to attempt
TIMEOUT = (10, 60)  # [s] to connect, and to wait for the next bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class VerifiedArchive:
    """
    An archive whose every byte was compared with its checksum.

    Attributes
    ----------
    name, subset : str
        As in `corpora.Archive`.
    md5 : str
        Of the whole archive.
    files : tuple of dict
        ``path``, ``bytes``, ``mtime_ns``, ``md5`` of each piece, in order.
    """

    name: str
    subset: str
    md5: str
    files: tuple[dict, ...]

    @property
    def bytes(self) -> int:
        """Size of the whole archive [bytes]."""
        return sum(file["bytes"] for file in self.files)

    def open(self) -> io.BufferedReader:
        """Open the archive for reading, as if it were one file."""
        return open_parts([file["path"] for file in self.files])


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

    def readinto(self, buffer) -> int:
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


def fetch(corpus: Corpus, source: str | None = None, key: str | None = None) -> list[VerifiedArchive]:
    """
    Make sure that every archive, table and list of a corpus is there and is what was published.

    Parameters
    ----------
    corpus : Corpus
    source : str, optional
        A folder that holds the archives (parts or whole), or an address with ``{file}`` (and ``{key}``).
        Default: ``$SV_MIRROR/<corpus>`` when that folder exists, else the corpus's own routes.
    key : str, optional
        Personal key, for routes that ask for one. Default: ``$SV_VOXCELEB_KEY``.

    Returns
    -------
    list of VerifiedArchive
        Also written to ``outputs/corpora/<corpus>/archives.json``. A file whose path, size and modification time
        stand there already is not read again.

    Raises
    ------
    RequestError
        A part is missing, differs from its checksum, or the server refuses it.
    WorkError
        The network or the disk gave up; what is finished stays, and the next call goes on from there.

    Examples
    --------
    >>> fetch(corpora.get("mini"))[0].name  # doctest: +SKIP
    'mini_dev_aac.zip'
    """
    store = _Store(corpus, source, key or os.environ.get("SV_VOXCELEB_KEY"))
    if not corpus.remotes:
        return _survey(corpus, store)
    if not corpus.data:
        for text in (corpus.table, *corpus.lists.values()):
            store.provide_text(text)
    known, done = recorded(corpus), []
    for archive in corpus.remotes:
        pieces = store.provide(archive)
        ready = next((old for old in known if old.name == archive.name and _unchanged(old, pieces)), None)
        done.append(ready or _verify(archive, pieces, corpus))
        kept = [old for old in known if old.name not in {new.name for new in done}]
        _record(corpus, done + kept)
        how = "unchanged" if ready else "verified"
        print(f"{corpus.name}: {archive.name} {done[-1].bytes / 1e6:,.1f} MB, md5 {done[-1].md5}, {how}")
    return done


def _survey(corpus: Corpus, store: "_Store") -> list[VerifiedArchive]:
    """Take a folder of the user's as it is: ``dev/`` and ``test/`` where it has them, else all of it as 'dev'."""
    if not store.folder:
        raise RequestError(f"corpus {corpus.name} needs a source: {corpus.manual}.")
    for text in (corpus.table, *corpus.lists.values()):
        if (store.folder / text.file).exists():
            store.copy_text(text)
    halves = {name: store.folder / name for name in ("dev", "test") if (store.folder / name).is_dir()}
    trees = [tree(half, subset) for subset, half in (halves or {"dev": store.folder}).items()]
    _record(corpus, trees)
    for found in trees:
        print(f"{corpus.name}: {found.files[0]['path']} {found.bytes / 1e6:,.1f} MB, as {found.subset}")
    return trees


def tree(folder: Path, subset: str) -> VerifiedArchive:
    """Describe a tree of audio files; its `md5` is that of the list of their names, sizes and modification times."""
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(folder.rglob("*"))]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats if S_ISREG(stat.st_mode)]
    md5 = hashlib.md5(json.dumps(listing).encode()).hexdigest()
    entry = {"path": str(folder), "bytes": sum(size for _, size, _ in listing), "mtime_ns": 0, "md5": md5}
    return VerifiedArchive(folder.name, subset, md5, (entry,))


def recorded(corpus: Corpus) -> list[VerifiedArchive]:
    """The archives that `fetch` verified last, from ``archives.json``; an empty list before its first success."""
    path = paths.corpus_dir(corpus.name) / "archives.json"
    if not path.exists():
        return []
    return [VerifiedArchive(**{**entry, "files": tuple(entry["files"])}) for entry in json.loads(path.read_text())]


def verified(corpus: Corpus) -> list[VerifiedArchive]:
    """
    Give the archives that `fetch` verified, wherever it took them from.

    Raises
    ------
    RequestError
        There is no such record yet, or a file is gone or has changed since.
    """
    archives = recorded(corpus)
    if not archives:
        raise RequestError(f"corpus {corpus.name} is not fetched: run stage 01_download.")
    for file in (file for archive in archives for file in archive.files):
        path = Path(file["path"])
        stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        if stamp != (file["bytes"], file["mtime_ns"]) and not path.is_dir():
            raise RequestError(f"{path} is gone or has changed since it was verified: run stage 01_download again.")
    return archives


def _record(corpus: Corpus, archives: list[VerifiedArchive]) -> None:
    text = json.dumps([asdict(archive) for archive in archives], indent=1) + "\n"
    path = paths.corpus_dir(corpus.name) / "archives.json"
    if not path.exists() or path.read_text() != text:
        with paths.replace_on_success(path) as temporary:
            temporary.write_text(text)


def _unchanged(old: VerifiedArchive, pieces: list[tuple[Path, str | None]]) -> bool:
    now = [(str(path), path.stat().st_size, path.stat().st_mtime_ns, md5) for path, md5 in pieces]
    then = [(file["path"], file["bytes"], file["mtime_ns"], file["md5"]) for file in old.files]
    return now == then


def _verify(archive: Archive, pieces: list[tuple[Path, str]], corpus: Corpus) -> VerifiedArchive:
    """Read every piece once: its own md5 and that of the concatenation."""
    whole, files = hashlib.md5(), []
    for path, expected in pieces:
        before, digest = path.stat(), hashlib.md5()
        for block in _blocks(path):
            digest.update(block)
            whole.update(block)
        if digest.hexdigest() != expected:
            raise RequestError(
                f"{path} ({before.st_size:,} bytes) has md5 {digest.hexdigest()}, expected {expected}: "
                f"it is damaged or cut off; remove it and fetch it again."
            )
        entry = {"path": str(path), "bytes": before.st_size, "mtime_ns": before.st_mtime_ns, "md5": expected}
        files.append(entry)
    if archive.md5 and whole.hexdigest() != archive.md5:
        raise RequestError(
            f"the parts of {archive.name} are right one by one, but together have md5 {whole.hexdigest()}, "
            f"expected {archive.md5}: the list of parts in sv_utils/corpora/{corpus.name}.py is wrong."
        )
    return VerifiedArchive(archive.name, archive.subset, whole.hexdigest(), tuple(files))


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            yield block


class _Store:
    """Where one corpus's files come from: a folder, or addresses with a folder that they are downloaded to."""

    def __init__(self, corpus: Corpus, source: str | None, key: str | None):
        self.corpus, self.key = corpus, key
        mirror = os.environ.get("SV_MIRROR")
        if not source and corpus.bundled is None and mirror and (Path(mirror) / corpus.name).is_dir():
            source = str(Path(mirror) / corpus.name)
        remote = "://" in (source or "")
        self.routes = (source,) if remote else corpus.routes
        self.folder = corpus.bundled if not source else None if remote else Path(source).resolve()
        if self.folder and not self.folder.is_dir():
            raise RequestError(f"{self.folder} is not a folder: name the one that holds {self._wanted()}.")
        self.archives = paths.corpus_dir(corpus.name) / "archives"

    def provide(self, archive: Archive) -> list[tuple[Path, str]]:
        """Paths and checksums of an archive's pieces, downloaded if need be; the whole zip serves as well."""
        whole = (self.folder or self.archives) / archive.name
        if archive.md5 and whole.exists():
            return [(whole, archive.md5)]
        return [(self._piece(file, md5), md5) for file, md5 in archive.parts]

    def provide_text(self, text: Text) -> None:
        """Bring a table or list (a few MB) to where `Corpus.text_path` expects it."""
        target = self.corpus.text_path(text)
        if target.exists():
            return
        if self.folder and (self.folder / text.file).exists():
            self.copy_text(text)
        else:
            self._download(text.file, target, text.md5, (text.url,) if text.url else self.routes)

    def copy_text(self, text: Text) -> None:
        """Copy a table or list out of the source folder."""
        with paths.replace_on_success(self.corpus.text_path(text)) as temporary:
            shutil.copyfile(self.folder / text.file, temporary)

    def _piece(self, file: str, md5: str) -> Path:
        if self.folder:
            path = self.folder / file
            if not path.is_file():
                raise RequestError(f"{path} is missing: {self.corpus.manual}.")
            return path
        target = self.archives / file
        if not target.exists():
            self._download(file, target, md5, self.routes)
        return target

    def _download(self, file: str, target: Path, md5: str | None, routes: Sequence[str]) -> None:
        routes = [route for route in routes if self.key or "{key}" not in route]
        if not routes:
            raise RequestError(f"{file} of corpus {self.corpus.name} is not here: {self.corpus.manual}.")
        for route in routes:
            try:
                return download(route.replace("{file}", file).replace("{key}", self.key or ""), target, md5)
            except RequestError as error:
                refusal = error
        raise RequestError(f"{refusal} Otherwise: {self.corpus.manual}.")

    def _wanted(self) -> str:
        return ", ".join(file for archive in self.corpus.remotes for file, _ in archive.parts)


def download(url: str, target: Path, md5: str | None = None) -> None:
    """
    Download one file: to ``<target>.part``, resumed where an earlier attempt stopped, renamed when its md5 is right.

    Parameters
    ----------
    url : str
    target : Path
    md5 : str, optional
        Without one any content is accepted, a web page excepted.

    Raises
    ------
    RequestError
        401, 403, 404, a web page instead of the file, or content that differs from its checksum twice.
    WorkError
        No connection after several attempts, or no space left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for last in (False, True):
        try:
            digest = _download_part(url, part)
        except OSError as error:
            if error.errno in FULL:
                raise WorkError(
                    f"no space left for {part} ({shutil.disk_usage(part.parent).free:,} bytes free): free some and run "
                    f"again, what has arrived stays."
                ) from error
            raise
        if md5 is None or digest == md5:
            os.replace(part, target)
            return
        part.unlink()  # a resumed file may have changed at the server: once more from its first byte
        if last:
            raise RequestError(f"{_shown(url)} has md5 {digest}, expected {md5}: the server offers another file.")


def _download_part(url: str, part: Path) -> str:
    """Complete `part`, over as many connections as it takes; return its md5."""
    failures, pause = 0, PAUSE
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _one_connection(url, part)
            digest = hashlib.md5()
            for block in _blocks(part):
                digest.update(block)
            return digest.hexdigest()
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            progressed = part.exists() and part.stat().st_size > before
            failures, pause = (0, PAUSE) if progressed else (failures + 1, pause * 2)
            if failures >= ATTEMPTS:
                raise WorkError(
                    f"{_shown(url)} cannot be reached or breaks off ({type(error).__name__}, {ATTEMPTS} attempts in a "
                    f"row): look at the network and run again, the download resumes."
                ) from error
            time.sleep(min(pause, 60))


def _one_connection(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        total = _total(answer)
        if answer.status_code == 416:  # nothing beyond what is here: complete, unless the file at the server shrank
            if total != have:
                part.unlink()
                raise requests.ConnectionError("the file at the server has changed")
            return
        _refuse(url, answer)
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        with open(part, "ab" if resumed else "wb") as file:
            for block in answer.iter_content(NETWORK_CHUNK):
                file.write(block)
        if total is not None and part.stat().st_size < total:
            raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes")


def _total(answer: requests.Response) -> int | None:
    """Size of the whole file [bytes], by Content-Range or Content-Length."""
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    length = match.group(1) if match else answer.headers.get("Content-Length")
    return int(length) if length else None


def _refuse(url: str, answer: requests.Response) -> None:
    """Say what to do about an answer that is not the file."""
    code = answer.status_code
    if code in (401, 403):
        raise RequestError(
            f"{_shown(url)} answers {code}: it wants a valid personal key, set SV_VOXCELEB_KEY or pass key=."
        )
    if code in (404, 410):
        raise RequestError(f"{_shown(url)} answers {code}: the file is not there (any more).")
    if code >= 500 or code == 429:
        raise requests.ConnectionError(f"status {code}")
    if code not in (200, 206):
        raise RequestError(f"{_shown(url)} answers {code}, which is no way to send a file.")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise RequestError(
            f"{_shown(url)} sends a web page instead of the file: open it in a browser, it may ask for "
            f"a login, a key or an agreement."
        )


def _shown(url: str) -> str:
    """An address fit for messages and logs: without its personal key."""
    return re.sub(r"(key=)[^&]+", r"\1...", url)


@command
def main(argv: list[str] | None = None) -> int:
    """Command line: ``python -m sv_utils.download CORPUS [--source DIR-or-address] [--key KEY]``."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.download", description="Fetch and verify a corpus.")
    parser.add_argument("corpus", help=", ".join(corpora.names()))
    parser.add_argument("--source", help="folder with the archives, or an address with {file} (and {key})")
    parser.add_argument("--key", help="personal key (default: $SV_VOXCELEB_KEY)")
    options = parser.parse_args(argv)
    fetch(corpora.get(options.corpus), options.source, options.key)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
