"""
The archives of a corpus: found or downloaded, verified, recorded.

A folder of the user's own is read in place (`sv_utils.speech.layouts` says how it is laid out); its table and its list
of trials are looked at here, before anything is decoded.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from sv_utils import corpora
from sv_utils.base import paths, secret
from sv_utils.base.errors import RequestError
from sv_utils.base.fetch import Report, Stopped, blocks, download
from sv_utils.base.progress import Progress
from sv_utils.base.text import refuse_special
from sv_utils.corpora import Archive, Corpus
from sv_utils.speech import archives, own_folder, trees
from sv_utils.speech.archives import VerifiedArchive


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
    secret.keep(key)
    place = _Place(corpus, source, key or os.environ.get("SV_VOXCELEB_KEY"))
    if not place.folder and not corpus.remotes:
        raise RequestError(f"corpus {corpus.name} needs a source: {corpus.manual}.")
    place.provide_texts()
    if place.folder and not corpus.remotes:
        done = own_folder.fetch(corpus, place.folder)
        _record(corpus, done)
        paths.corpus_dir(corpus.name).chmod(0o700)  # where its voices will be stored
        return done
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
            left_out = trees.walk(pieces[0][0]).told()
            how += f"; left out: {left_out}" if left_out else ""
        else:
            ready = next((old for old in known if old.name == name and _unchanged(old, pieces)), None)
            done.append(ready or _verify(place.archive(name), pieces, corpus, place.digests))
            proven = "verified" if all(md5 for _, md5 in pieces) else "none is published to compare with"
            how = f"md5 {done[-1].md5}, {'unchanged' if ready else proven}"
        _record(corpus, done + [old for old in known if old.name not in {new.name for new in done}])
        print(f"{corpus.name}: {name} {done[-1].bytes / 1e6:,.1f} MB, {how}")
    _record(corpus, done)
    return done


def sources_digest(corpus: Corpus, source: str | None = None) -> str:
    """
    Tell one state of a user's own recordings from another without opening them.

    It is cheap enough to be asked for whenever make looks for changes: names, sizes and times of the recordings, and
    those of the speaker table and the trial list.

    Parameters
    ----------
    corpus : Corpus
    source : str, optional
        As in `fetch`.

    Returns
    -------
    str
        sha256 [hex]; '' for a corpus that has published archives, whose checksums say the same, and for a folder that
        is not there.

    Examples
    --------
    >>> sources_digest(corpora.get("mini"))  # doctest: +SKIP
    ''
    """
    if corpus.remotes:
        return ""
    with contextlib.suppress(RequestError):  # which stage 01_download tells
        folder = _Place(corpus, source, None).folder
        return own_folder.digest(corpus, folder) if folder else ""
    return ""


def result_digest(corpus: Corpus, found: Sequence[VerifiedArchive]) -> str:
    """
    Tell one result of `fetch` from another: for the stages that read it.

    Returns
    -------
    str
        sha256 [hex] over the archives' halves and checksums, and the content of the table and the lists.
    """
    parts = [f"{archive.name} {archive.subset} {archive.session} {archive.md5}" for archive in found]
    for text in corpus.texts:
        path = corpus.text_path(text)
        parts.append(f"{text.file} {hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''}")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def proof(verified: Mapping[str, Sequence[VerifiedArchive]]) -> str:
    """
    Say of how many archives the checksum was compared with a published one.

    Parameters
    ----------
    verified : dict
        Name of a corpus to what `fetch` gave for it.

    Returns
    -------
    str
        A sentence; "every checksum is right" only where each archive has a published one.
    """
    without = []
    for name, found in verified.items():
        corpus = corpora.get(name)
        known = {archive.name for archive in (*corpus.remotes, *corpus.public) if archive.md5 or archive.parts[0][1]}
        without += [f"{name}/{one.name}" for one in found if one.name not in known or (one.is_tree and not one.removed)]
    if not without:
        return "every checksum is right"
    total = sum(map(len, verified.values()))
    right = f"{total - len(without)} of {total} archives have a published checksum, which is right; "
    return f"{right}none is published for {', '.join(without)}"


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
        changed = stamp != (file["bytes"], file["mtime_ns"]) and not path.is_dir()
        if changed or (not corpus.remotes and own_folder.has_changed(path, file["md5"], found)):
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


def _verify(
    archive: Archive, pieces: list[tuple[Path, str | None]], corpus: Corpus, digests: dict[Path, str]
) -> VerifiedArchive:
    """Read every piece once, for its own md5 and that of the concatenation; not those that were just downloaded."""
    whole, files = hashlib.md5(), []
    fresh = all(path in digests for path, _ in pieces)  # the md5 of each was taken while it arrived
    for path, expected in pieces:
        before, digest = path.stat(), hashlib.md5()
        for block in () if fresh else blocks(path):
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


class _Place:
    """Where one corpus's files come from: a folder, or addresses with a folder that they are downloaded to."""

    def __init__(self, corpus: Corpus, source: str | None, key: str | None):
        self.corpus, self.key = corpus, key
        self.digests: dict[Path, str] = {}
        mirror = os.environ.get("SV_MIRROR")
        if not source and corpus.bundled is None and mirror and (Path(mirror) / corpus.name).is_dir():
            source = str(Path(mirror) / corpus.name)
        remote = "://" in (source or "")
        self.routes: tuple[str, ...] = (source,) if source and remote else corpus.routes
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
            found = {(archive.name, archive.subset): self._lying(archive, self.folder) for archive in form}
            if any(found.values()):
                for (name, _), pieces in found.items():
                    if not pieces:
                        raise self._missing(self.archive(name).parts[0][0])
                return found
        trees = self._trees(self.folder)
        if not trees:
            raise self._missing(forms[0][0].parts[0][0] if forms else "<speaker>")
        return trees

    def _pieces(self, archive: Archive, folder: Path) -> list[tuple[Path, str | None]]:
        """The pieces of an archive in a folder; the whole archive serves as well as its parts."""
        whole = folder / archive.name
        if archive.md5 and whole.is_file():
            return [(whole, archive.md5)]
        return [(folder / file, md5) for file, md5 in archive.parts]

    def _lying(self, archive: Archive, folder: Path) -> list[tuple[Path, str | None]]:
        """What lies in the folder of an archive: all pieces, or its unpacked tree; an empty list if nothing does."""
        pieces = self._pieces(archive, folder)
        there = [path.is_file() for path, _ in pieces]
        if any(there) and not all(there):
            raise self._missing(pieces[there.index(False)][0].name)
        unpacked = folder / re.sub(r"(\.tar)?\.\w+$", "", archive.name)
        return pieces if all(there) else [(unpacked, None)] if unpacked.is_dir() else []

    def _trees(self, folder: Path) -> dict[tuple[str, str], list[tuple[Path, str | None]]]:
        """
        A folder of unpacked speech: ``dev/`` and ``test/`` where it has them, else all of it.

        In the latter case a corpus of one archive knows its half, that of others the speaker table, or it is drawn.
        """
        halves = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
        halves = {name: halves[name] for name in ("dev", "test") if name in halves}
        if not halves and any(entry.is_dir() for entry in folder.iterdir()):
            halves = {self.corpus.remotes[0].subset if len(self.corpus.remotes) == 1 else "": folder}
        return {(half.name, subset): [(half, None)] for subset, half in halves.items()}

    def _missing(self, file: str) -> RequestError:
        return RequestError(f"{(self.folder or self.archives) / file} is missing: {self.corpus.manual}.")

    def provide_texts(self) -> None:
        """Bring tables and lists (a few MB) to where `Corpus.text_path` expects them."""
        for text in self.corpus.texts if not self.corpus.data else ():
            if self.folder:
                refuse_special(self.folder / text.file)
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
            report = Report(progress, stop)
            tasks = [pool.submit(self._download, path.name, path, md5, self.routes, report) for path, md5 in pieces]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # also when the user interrupts
                pool.shutdown(wait=True, cancel_futures=True)
        ended = [task.exception() for task in tasks if not task.cancelled()]
        failures = [failure for failure in ended if failure is not None]
        if failures:
            raise min(failures, key=lambda failure: isinstance(failure, Stopped))

    def _download(
        self, file: str, target: Path, md5: str | None, routes: Sequence[str], report: Report | None = None
    ) -> None:
        routes = [route for route in routes if self.key or "{key}" not in route]
        if not routes:
            raise RequestError(f"{file} of corpus {self.corpus.name} is not here: {self.corpus.manual}.")
        for route in routes:
            try:
                url = route.replace("{file}", file).replace("{key}", self.key or "")
                self.digests[target] = download(url, target, md5, report)
                return
            except RequestError as error:
                refusal = str(error)
        raise RequestError(f"{refusal} Otherwise: {self.corpus.manual}.")
