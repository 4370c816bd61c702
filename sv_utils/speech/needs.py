"""
What the speech of a profile needs: disk for archives and stores, servers that answer.

Sizes come from what lies here already, from the servers where they are asked and answer, and else from what the corpora
state.
"""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import requests

from sv_utils.base import fetch, paths
from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive, Corpus
from sv_utils.speech import acquisition, archives

# Of a store: int16 at 16 kHz; FLAC takes about half of it.
BYTES_A_SECOND = {"pcm": 32_000, "flac": 18_000}
USUAL = 7.5  # mean length of an utterance where their number is not stated [s]
FETCHED = 8 << 20  # bytes that are downloaded to measure


def readable(corpus: Corpus) -> list[archives.VerifiedArchive]:
    """Archives of a corpus that are recorded and still here."""
    with contextlib.suppress(RequestError):
        return [archive for archive in acquisition.verified(corpus) if not archive.removed]
    return []


def archives_of(corpus: Corpus, source: str | None, ask: bool = True) -> list[dict]:
    """
    Say how large the archives of a corpus are.

    Parameters
    ----------
    corpus : Corpus
    source : str, optional
        As in `acquisition.fetch`.
    ask : bool
        Whether servers are asked for what is not here.

    Returns
    -------
    list of dict
        ``corpus, archive, bytes, source`` ('here', 'own files', 'server' or 'stated'), ``to_fetch`` [bytes], ``hours``
        of speech (0 where nobody says), ``files`` (by `USUAL` where nobody says).

    Raises
    ------
    RequestError
        A corpus of the user's own is not here, or nothing tells the size of an archive.
    """
    folder = own_folder(corpus, source)
    if not corpus.remotes:
        if folder is None:
            raise RequestError(f"corpus {corpus.name} needs a source: {corpus.manual}.")
        # Compressed speech takes some 8 kB a second, samples four times that: there are at most so many hours.
        size = tree_size(folder)
        return [_row(corpus, corpus.name, size, "own files", size / 8000 / 3600)]
    known = {archive.name: archive for archive in acquisition.recorded(corpus)}
    return [_archive_row(corpus, archive, known, folder, ask) for archive in _form(corpus, folder)]


def _form(corpus: Corpus, folder: Path | None) -> tuple[Archive, ...]:
    """The form of a corpus that will be taken."""
    if folder and (folder / corpus.remotes[0].parts[0][0]).exists():
        return corpus.remotes
    return corpus.public or corpus.remotes


def _archive_row(corpus: Corpus, archive: Archive, known: dict, folder: Path | None, ask: bool) -> dict:
    if archive.name in known:
        own = paths.outputs() not in Path(known[archive.name].files[0]["path"]).parents
        return _row(
            corpus,
            archive.name,
            known[archive.name].bytes,
            "own files" if own else "here",
            archive.hours,
            archive.utterances,
        )
    if folder:
        pieces = [folder / file for file, _ in archive.parts]
        there = all(piece.exists() for piece in pieces)
        size = sum(piece.stat().st_size for piece in pieces) if there else (archive.gigabytes or 0) * 1e9
        return _row(corpus, archive.name, size, "own files", archive.hours, archive.utterances)
    told = _asked(corpus, archive) if ask else None
    if told is not None:
        return _row(corpus, archive.name, told, "server", archive.hours, archive.utterances)
    if archive.gigabytes:
        return _row(corpus, archive.name, archive.gigabytes * 1e9, "stated", archive.hours, archive.utterances)
    raise RequestError(f"nothing tells the size of {archive.name} of corpus {corpus.name}: fetch it first.")


def _row(corpus: Corpus, name: str, size: float, where: str, hours: float | None, files: int | None = None) -> dict:
    to_fetch = 0 if where in ("here", "own files") else round(size)
    row = {"corpus": corpus.name, "archive": name, "bytes": round(size), "source": where, "to_fetch": to_fetch}
    hours = hours or 0.0
    return row | {"hours": hours, "files": files or round(hours * 3600 / USUAL)}


def own_folder(corpus: Corpus, source: str | None) -> Path | None:
    """Where the user, or the repository, has the files of a corpus."""
    mirror = os.environ.get("SV_MIRROR")
    folder = Path(source) if source else corpus.bundled or (Path(mirror) / corpus.name if mirror else None)
    return folder if folder and folder.is_dir() else None


def tree_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _url(corpus: Corpus, route: str, file: str) -> str | None:
    key = os.environ.get("SV_VOXCELEB_KEY")
    return None if "{key}" in route and not key else route.replace("{file}", file).replace("{key}", key or "")


def _asked(corpus: Corpus, archive: Archive) -> int | None:
    """Size of an archive as its server tells it [bytes]; None where none answers."""
    for route in corpus.routes:
        urls = [url for file, _ in archive.parts if (url := _url(corpus, route, file))]
        if len(urls) == len(archive.parts):
            with contextlib.suppress(requests.RequestException, RequestError, KeyError):
                heads = [fetch.ask(url, "HEAD", timeout=5) for url in urls]
                if all(head.ok and "text/html" not in head.headers.get("Content-Type", "") for head in heads):
                    return sum(int(head.headers["Content-Length"]) for head in heads)
    return None


def rate(corpus: Corpus, route: str) -> float:
    """Bytes a second of a short download, 0 where the server does not answer."""
    url = _url(corpus, route, (corpus.public or corpus.remotes)[0].parts[0][0])
    started, count = time.perf_counter(), 0
    with contextlib.suppress(requests.RequestException, RequestError):
        answer = fetch.ask(url or "", headers={"Range": f"bytes=0-{FETCHED - 1}"}, stream=True, timeout=5)
        if answer.ok and not answer.headers.get("Content-Type", "").startswith("text/html"):
            for block in answer.iter_content(1 << 16):
                count += len(block)
                if count >= FETCHED or time.perf_counter() - started > 10:
                    break
        answer.close()
    return count / (time.perf_counter() - started)


def size(amount: float) -> str:
    """
    Write a number of bytes for people.

    Examples
    --------
    >>> size(1.6e9), size(13_900_000)
    ('1.6 GB', '13.9 MB')
    """
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.1f} MB"


def routes_of(corpus: Corpus, key: str | None = None) -> list[dict]:
    """
    Ask the servers of a corpus for its first file, its tables and lists, without fetching them.

    Parameters
    ----------
    corpus : Corpus
    key : str, optional
        Personal key. Default: ``$SV_VOXCELEB_KEY``.

    Returns
    -------
    list of dict
        An address each: ``file, host, answers`` (what came, in words), ``good``, ``bytes`` (None where nobody says),
        ``ranges`` (whether a download can go on where it stopped), ``key`` (whether a personal key is needed).
    """
    key = key or os.environ.get("SV_VOXCELEB_KEY") or ""
    form = corpus.public or corpus.remotes
    asked = [(file, route) for archive in form for file, _ in archive.parts for route in corpus.routes]
    asked += [(text.file, text.url) for text in corpus.texts if text.url]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda pair: route(pair[0], pair[1], key), asked))


def route(file: str, address: str, key: str = "") -> dict:
    """Ask an address, in which ``{file}`` and ``{key}`` may stand, for a byte; the answer is that of `routes_of`."""
    row = {"file": file, "host": urlsplit(address).netloc, "key": "{key}" in address}
    row |= {"answers": "not asked: it needs a key", "good": False, "bytes": None, "ranges": False}
    if row["key"] and not key:
        return row
    url = address.replace("{file}", file).replace("{key}", key)
    headers = {"Range": "bytes=1-1", "Accept-Encoding": "identity"}
    try:
        with fetch.ask(url, headers=headers, stream=True, timeout=10) as told:
            size = fetch.total(told)
            good = told.status_code in (200, 206)
            page = good and told.headers.get("Content-Type", "").startswith("text/html")
            words = "a web page instead of the file" if page else f"status {told.status_code}"
    except requests.RequestException as error:
        return row | {"answers": f"no answer ({type(error).__name__})"}
    except RequestError as error:  # it sends to a stranger
        return row | {"answers": str(error)}
    good = good and not page
    return row | {"answers": words, "good": good, "bytes": size if good else None, "ranges": told.status_code == 206}
