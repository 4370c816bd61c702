"""
From a corpus's name to archives whose checksums are known.

Archives and unpacked trees are taken from where they already lie (bundled with the repository, or in a mirror folder)
and read in place; only what comes from the network is stored, under ``outputs/corpora/<corpus>/archives/``. An archive
cut into parts stays in parts, so there is neither a concatenated copy nor an extracted tree.
"""

import argparse
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import requests

from sv_utils import archives, corpora, paths
from sv_utils.archives import VerifiedArchive
from sv_utils.corpora import Archive, Corpus
from sv_utils.errors import RequestError, WorkError, command
from sv_utils.progress import Progress

CHUNK = 1 << 20  # bytes read from disk at a time
NETWORK_CHUNK = 1 << 16  # bytes written at a time: what a broken connection may cost
ATTEMPTS = 6  # in a row without a single new byte
PAUSE = 1.0  # [s] before the second attempt; doubles from attempt to attempt
TIMEOUT = (10, 60)  # [s] to connect, and to wait for the next bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(
    corpus: Corpus, source: str | None = None, key: str | None = None, connections: int = 4
) -> list[VerifiedArchive]:
    """
    Make sure that every archive, table and list of a corpus is there and is what was published.

    Parameters
    ----------
    corpus : Corpus
    source : str, optional
        A folder that holds the archives (parts or whole) or their unpacked trees, or an address with ``{file}`` (and
        ``{key}``). Default: ``$SV_MIRROR/<corpus>`` when that folder exists, else the corpus's own routes.
    key : str, optional
        Personal key, for routes that ask for one. Default: ``$SV_VOXCELEB_KEY``.
    connections : int
        Files downloaded at a time.

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
    place = _Place(corpus, source, key or os.environ.get("SV_VOXCELEB_KEY"))
    if not place.folder and not corpus.remotes:
        raise RequestError(f"corpus {corpus.name} needs a source: {corpus.manual}.")
    place.provide_texts()
    known, done = recorded(corpus), []
    if not place.folder and known and all(archive.removed for archive in known):
        print(f"{corpus.name}: archives removed after its preparation, not fetched again")
        return known
    wanted = place.wanted()
    place.download([piece for pieces in wanted.values() for piece in pieces if not piece[0].exists()], connections)
    for (name, subset), pieces in wanted.items():
        if pieces[0][0].is_dir():
            done.append(archives.tree(pieces[0][0], subset))
            how = f"a tree as it lies, {subset or 'speakers split by table or draw'}"
        else:
            ready = next((old for old in known if old.name == name and _unchanged(old, pieces)), None)
            done.append(ready or _verify(place.archive(name), pieces, corpus, place.digests))
            proven = "verified" if all(md5 for _, md5 in pieces) else "none is published to compare with"
            how = f"md5 {done[-1].md5}, {'unchanged' if ready else proven}"
        _record(corpus, done + [old for old in known if old.name not in {new.name for new in done}])
        print(f"{corpus.name}: {name} {done[-1].bytes / 1e6:,.1f} MB, {how}")
    _record(corpus, done)
    return done


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
    found = recorded(corpus)
    if not found:
        raise RequestError(f"corpus {corpus.name} is not fetched: run stage 01_download.")
    for file in (file for archive in found if not archive.removed for file in archive.files):
        path = Path(file["path"])
        stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        if stamp != (file["bytes"], file["mtime_ns"]) and not path.is_dir():
            raise RequestError(f"{path} is gone or has changed since it was verified: run stage 01_download again.")
    return found


def remove(corpus: Corpus) -> int:
    """
    Delete the archives of a corpus that were downloaded, once its store is finished.

    What the user placed somewhere is left alone. The record keeps their names and checksums, so that the store is found
    again and nothing is downloaded twice.

    Returns
    -------
    int
        Bytes that are free again.
    """
    folder, freed, kept = paths.corpus_dir(corpus.name) / "archives", 0, []
    found = recorded(corpus)
    for archive in found:
        own = all(Path(file["path"]).parent == folder for file in archive.files)
        kept.append(dataclasses.replace(archive, removed=archive.removed or own))
    _record(corpus, kept)  # first: a kill in between leaves files to delete, not a record of files that are gone
    for archive in (new for new in kept if new.removed):
        for file in archive.files:
            if Path(file["path"]).exists():
                Path(file["path"]).unlink()
                freed += file["bytes"]
    return freed


def _record(corpus: Corpus, found: list[VerifiedArchive]) -> None:
    text = json.dumps([dataclasses.asdict(archive) for archive in found], indent=1) + "\n"
    path = paths.corpus_dir(corpus.name) / "archives.json"
    if not path.exists() or path.read_text() != text:
        with paths.replace_on_success(path) as temporary:
            temporary.write_text(text)


def _unchanged(old: VerifiedArchive, pieces: list[tuple[Path, str | None]]) -> bool:
    if old.removed or len(old.files) != len(pieces):
        return False
    now = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path, _ in pieces]
    then = [(file["path"], file["bytes"], file["mtime_ns"]) for file in old.files]
    return now == then and all(md5 in (None, file["md5"]) for (_, md5), file in zip(pieces, old.files))


def _verify(archive: Archive, pieces: list[tuple[Path, str | None]], corpus: Corpus, digests) -> VerifiedArchive:
    """Read every piece once, for its own md5 and that of the concatenation; not those that were just downloaded."""
    whole, files = hashlib.md5(), []
    fresh = all(path in digests for path, _ in pieces)  # the md5 of each was taken while it arrived
    for path, expected in pieces:
        before, digest = path.stat(), hashlib.md5()
        for block in () if fresh else _blocks(path):
            digest.update(block)
            whole.update(block)
        found = digests[path] if fresh else digest.hexdigest()
        if expected and found != expected:
            raise RequestError(
                f"{path} ({before.st_size:,} bytes) has md5 {found}, expected {expected}: "
                f"it is damaged or cut off; remove it and fetch it again."
            )
        entry = {"path": str(path), "bytes": before.st_size, "mtime_ns": before.st_mtime_ns, "md5": found}
        files.append(entry)
    together = (archive.md5 or found) if fresh else whole.hexdigest()
    if archive.md5 and together != archive.md5:
        raise RequestError(
            f"the parts of {archive.name} are right one by one, but together have md5 {together}, "
            f"expected {archive.md5}: the list of parts in sv_utils/corpora/{corpus.name}.py is wrong."
        )
    return VerifiedArchive(archive.name, archive.subset, together, tuple(files))


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            yield block


class _Place:
    """Where one corpus's files come from: a folder, or addresses with a folder that they are downloaded to."""

    def __init__(self, corpus: Corpus, source: str | None, key: str | None):
        self.corpus, self.key, self.digests = corpus, key, {}
        mirror = os.environ.get("SV_MIRROR")
        if not source and corpus.bundled is None and mirror and (Path(mirror) / corpus.name).is_dir():
            source = str(Path(mirror) / corpus.name)
        remote = "://" in (source or "")
        self.routes = (source,) if remote else corpus.routes
        self.folder = corpus.bundled if not source else None if remote else Path(source).resolve()
        if self.folder and not self.folder.is_dir():
            files = ", ".join(file for archive in corpus.remotes for file, _ in archive.parts)
            raise RequestError(f"{self.folder} is not a folder: name the one that holds {files}.")
        self.archives = paths.corpus_dir(corpus.name) / "archives"

    def archive(self, name: str) -> Archive:
        """The archive of that name, of either form of the corpus."""
        return next(archive for archive in (*self.corpus.remotes, *self.corpus.public) if archive.name == name)

    def wanted(self) -> dict[tuple[str, str], list[tuple[Path, str | None]]]:
        """Path and checksum of each piece of each archive, by name and subset; a path may be that of a tree."""
        forms = [form for form in (self.corpus.remotes, self.corpus.public) if form]
        if not self.folder:
            return {(a.name, a.subset): self._pieces(a, self.archives) for a in forms[-1]}
        for form in forms:
            found = {(archive.name, archive.subset): self._lying(archive) for archive in form}
            if any(found.values()):
                for (name, _), pieces in found.items():
                    if not pieces:
                        raise self._missing(self.archive(name).parts[0][0])
                return found
        trees = self._trees()
        if not trees:
            raise self._missing(forms[0][0].parts[0][0] if forms else "<speaker>")
        return trees

    def _pieces(self, archive: Archive, folder: Path) -> list[tuple[Path, str | None]]:
        """The pieces of an archive in a folder; the whole archive serves as well as its parts."""
        whole = folder / archive.name
        if archive.md5 and whole.is_file():
            return [(whole, archive.md5)]
        return [(folder / file, md5) for file, md5 in archive.parts]

    def _lying(self, archive: Archive) -> list[tuple[Path, str | None]]:
        """What lies in the folder of an archive: all pieces, or its unpacked tree; an empty list if nothing does."""
        pieces = self._pieces(archive, self.folder)
        there = [path.is_file() for path, _ in pieces]
        if any(there) and not all(there):
            raise self._missing(pieces[there.index(False)][0].name)
        unpacked = self.folder / re.sub(r"(\.tar)?\.\w+$", "", archive.name)
        return pieces if all(there) else [(unpacked, None)] if unpacked.is_dir() else []

    def _trees(self) -> dict[tuple[str, str], list[tuple[Path, str | None]]]:
        """
        A folder of unpacked speech: ``dev/`` and ``test/`` where it has them, else all of it.

        In the latter case a corpus of one archive knows its half, that of others the speaker table, or it is drawn.
        """
        halves = {name: self.folder / name for name in ("dev", "test") if (self.folder / name).is_dir()}
        if not halves and any(entry.is_dir() for entry in self.folder.iterdir()):
            halves = {self.corpus.remotes[0].subset if len(self.corpus.remotes) == 1 else "": self.folder}
        return {(folder.name, subset): [(folder, None)] for subset, folder in halves.items()}

    def _missing(self, file: str) -> RequestError:
        return RequestError(f"{self.folder / file} is missing: {self.corpus.manual}.")

    def provide_texts(self) -> None:
        """Bring tables and lists (a few MB) to where `Corpus.text_path` expects them."""
        for text in self.corpus.texts if not self.corpus.data else ():
            target = self.corpus.text_path(text)
            if self.folder and (self.folder / text.file).exists() and (text.rows is None or not target.exists()):
                with paths.replace_on_success(target) as temporary:
                    shutil.copyfile(self.folder / text.file, temporary)
            elif text.rows is None:
                target.unlink(missing_ok=True)  # the user has taken it away
            elif not target.exists():
                self._download(text.file, target, text.md5, (text.url,) if text.url else self.routes)

    def download(self, pieces: list[tuple[Path, str | None]], connections: int) -> None:
        """Download what is missing, several files at a time; the first that fails ends them all."""
        if not pieces:
            return
        stop = threading.Event()
        with Progress(f"{self.corpus.name}: downloading", "bytes") as progress, ThreadPoolExecutor(connections) as pool:
            report = _Report(progress, stop)
            tasks = [pool.submit(self._download, path.name, path, md5, self.routes, report) for path, md5 in pieces]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # also when the user interrupts
                pool.shutdown(wait=True, cancel_futures=True)
        failures = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, _Stopped)):
            raise failure

    def _download(self, file: str, target: Path, md5: str | None, routes: Sequence[str], report=None) -> None:
        routes = [route for route in routes if self.key or "{key}" not in route]
        if not routes:
            raise RequestError(f"{file} of corpus {self.corpus.name} is not here: {self.corpus.manual}.")
        for route in routes:
            try:
                url = route.replace("{file}", file).replace("{key}", self.key or "")
                self.digests[target] = download(url, target, md5, report)
                return
            except RequestError as error:
                refusal = error
        raise RequestError(f"{refusal} Otherwise: {self.corpus.manual}.")


class _Stopped(WorkError):
    """Another download has failed."""


class _Report:
    """Tells a progress display what arrives, and the downloads when to stop."""

    def __init__(self, progress: Progress, stop: threading.Event):
        self.progress, self.stop = progress, stop
        self.expected: set[Path] = set()

    def begins(self, part: Path, have: int, total: int | None) -> None:
        if part not in self.expected:
            self.expected.add(part)
            self.progress.expect(total or 0)
            self.progress.add(have, done_before=True)

    def arrived(self, amount: int) -> None:
        self.progress.add(amount)
        if self.stop.is_set():
            raise _Stopped("stopped, because another download failed; what has arrived stays.")


def download(url: str, target: Path, md5: str | None = None, report: _Report | None = None) -> str:
    """
    Download one file: to ``<target>.part``, resumed where an earlier attempt stopped, renamed when its md5 is right.

    Parameters
    ----------
    url : str
    target : Path
    md5 : str, optional
        Without one any content is accepted, a web page excepted.
    report : object, optional
        With methods ``begins(part, have, total)`` and ``arrived(amount)``, told of the bytes.

    Returns
    -------
    str
        The md5, taken while the bytes arrived.

    Raises
    ------
    RequestError
        401, 403, 404, a web page instead of the file, or content that differs from its checksum twice.
    WorkError
        No connection after several attempts, or no space left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(target.with_name(target.name + ".part"), report)
    for last in (False, True):
        try:
            _complete(url, part)
        except OSError as error:
            if error.errno in FULL:
                raise WorkError(
                    f"no space left for {part.path} ({shutil.disk_usage(part.path.parent).free:,} bytes free): free "
                    f"some and run again, what has arrived stays."
                ) from error
            raise
        digest = part.md5.hexdigest()
        if md5 is None or digest == md5:
            os.replace(part.path, target)
            return digest
        part.start_over()  # a resumed file may have changed at the server: once more from its first byte
        if last:
            raise RequestError(f"{_shown(url)} has md5 {digest}, expected {md5}: the server offers another file.")


class _Part:
    """A file that grows: what an earlier call left is read once, and its md5 follows the bytes as they arrive."""

    def __init__(self, path: Path, report: _Report | None):
        self.path, self.report, self.md5, self.size = path, report, hashlib.md5(), 0
        for block in _blocks(path) if path.exists() else ():
            self.md5.update(block)
            self.size += len(block)

    def start_over(self) -> None:
        self.path.unlink(missing_ok=True)
        self.md5, self.size = hashlib.md5(), 0

    def append(self, blocks: Iterable[bytes], total: int | None) -> None:
        if self.report:
            self.report.begins(self.path, self.size, total)
        with open(self.path, "ab") as file:
            for block in blocks:
                file.write(block)
                self.md5.update(block)
                self.size += len(block)
                if self.report:
                    self.report.arrived(len(block))


def _complete(url: str, part: _Part) -> None:
    """Complete a part, over as many connections as it takes."""
    failures, pause = 0, PAUSE
    while True:
        before = part.size
        try:
            return _one_connection(url, part)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            failures, pause = (0, PAUSE) if part.size > before else (failures + 1, pause * 2)
            if failures >= ATTEMPTS:
                raise WorkError(
                    f"{_shown(url)} cannot be reached or breaks off ({type(error).__name__}, {ATTEMPTS} attempts in a "
                    f"row): look at the network and run again, the download resumes."
                ) from error
            time.sleep(min(pause, 60))


def _one_connection(url: str, part: _Part) -> None:
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={part.size}-"} if part.size else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        total = _total(answer)
        if answer.status_code == 416:  # nothing beyond what is here: complete, unless the file at the server shrank
            if total != part.size:
                part.start_over()
                raise requests.ConnectionError("the file at the server has changed")
            return
        _refuse(url, answer)
        offered = answer.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if not (answer.status_code == 206 and offered):
            part.start_over()
        part.append(answer.iter_content(NETWORK_CHUNK), total)
        if total is not None and part.size < total:
            raise requests.ConnectionError(f"{part.size} of {total} bytes")


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
    """Command line: ``python -m sv_utils.download CORPUS [--source DIR-or-address] [--key KEY] [--connections N]``."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.download", description="Fetch and verify a corpus.")
    parser.add_argument("corpus", help=", ".join(corpora.names()))
    parser.add_argument("--source", help="folder with the archives, or an address with {file} (and {key})")
    parser.add_argument("--key", help="personal key (default: $SV_VOXCELEB_KEY)")
    parser.add_argument("--connections", type=int, default=4, help="files downloaded at a time (4)")
    options = parser.parse_args(argv)
    fetch(corpora.get(options.corpus), options.source, options.key, options.connections)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
