"""
Files from the network: in parts, resumed where a connection broke, tried again, checked against a checksum.

A server may send a request on to another address: from https to https alone, and to hosts that are known to hold what
is asked for. ``SV_TRUSTED_HOSTS`` (names, with commas between) adds others.
"""

import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.progress import Progress
from sv_utils.base.secret import scrubbed

CHUNK = 1 << 20  # bytes read from disk at a time
NETWORK_CHUNK = 1 << 16  # bytes written at a time: what a broken connection may cost
ATTEMPTS = 6  # in a row without a single new byte
PAUSE = 1.0  # [s] before the second attempt; doubles from attempt to attempt
TIMEOUT = (10, 60)  # [s] to connect, and to wait for the next bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REDIRECTS = 10  # one after the other
KNOWN = (  # hosts, with all below them, that the publishers of our corpora and models send to
    "openslr.org",
    "openslr.elda.org",
    "openslr.trmal.net",
    "mmai.io",
    "mm.kaist.ac.kr",
    "robots.ox.ac.uk",
    "huggingface.co",
    "hf.co",
    "drive.google.com",
    "drive.usercontent.google.com",
    "github.com",
    "githubusercontent.com",
    "zenodo.org",
    "wenet.org.cn",
    "wespeaker-1256283475.cos.ap-shanghai.myqcloud.com",
    "modelscope.cn",
)


def blocks(path: Path) -> Iterator[bytes]:
    """Read a file in blocks of `CHUNK` bytes."""
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            yield block


class Stopped(WorkError):
    """Another download has failed."""


class Report:
    """Tells a progress display what arrives, and the downloads when to stop."""

    def __init__(self, progress: Progress, stop: threading.Event):
        self.progress, self.stop = progress, stop
        self.expected: set[Path] = set()

    def begins(self, part: Path, have: int, total: int | None) -> None:
        """Take note of a file of which `have` bytes of `total` are here already; a second call for it does nothing."""
        if part not in self.expected:
            self.expected.add(part)
            self.progress.expect(total or 0)
            self.progress.add(have, done_before=True)

    def arrived(self, amount: int) -> None:
        """
        Take note of `amount` more bytes.

        Raises
        ------
        Stopped
            If another download has failed.
        """
        self.progress.add(amount)
        if self.stop.is_set():
            raise Stopped("stopped, because another download failed; what has arrived stays.")


def download(url: str, target: Path, md5: str | None = None, report: Report | None = None) -> str:
    """
    Download one file: to ``<target>.part``, resumed where an earlier attempt stopped, renamed when its md5 is right.

    Parameters
    ----------
    url : str
    target : Path
    md5 : str, optional
        Without one any content is accepted, a web page excepted.
    report : Report, optional
        Told of the bytes.

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
    for _ in range(2):
        try:
            _complete(url, part)
        except OSError as error:
            if error.errno in FULL:
                raise WorkError(
                    f"no space left for {part.path} ({shutil.disk_usage(part.path.parent).free:,} bytes free): free "
                    f"some and run again, what has arrived stays."
                ) from None
            raise
        digest = part.md5.hexdigest()
        if md5 is None or digest == md5:
            os.replace(part.path, target)
            return digest
        part.start_over()  # a resumed file may have changed at the server: once more from its first byte
    raise RequestError(f"{_shown(url)} has md5 {digest}, expected {md5}: the server offers another file.")


class _Part:
    """A file that grows: what an earlier call left is read once, and its md5 follows the bytes as they arrive."""

    def __init__(self, path: Path, report: Report | None):
        self.path, self.report, self.md5, self.size = path, report, hashlib.md5(), 0
        for block in blocks(path) if path.exists() else ():
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
                ) from None  # whose text may hold the address, and with it a key
            time.sleep(min(pause, 60))
        except requests.RequestException as error:
            raise RequestError(f"{_shown(url)} is no address to fetch from ({type(error).__name__}).") from None


def _one_connection(url: str, part: _Part) -> None:
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={part.size}-"} if part.size else {})}
    with ask(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        size = total(answer)
        if answer.status_code == 416:  # nothing beyond what is here: complete, unless the file at the server shrank
            if size != part.size:
                part.start_over()
                raise requests.ConnectionError("the file at the server has changed")
            return
        _refuse(url, answer)
        offered = answer.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if not (answer.status_code == 206 and offered):
            part.start_over()
        part.append(_as_sent(answer), size)
        if size is not None and part.size < size:
            raise requests.ConnectionError(f"{part.size} of {size} bytes")


def ask(url: str, method: str = "GET", **options: Any) -> requests.Response:
    """
    Ask a server, and follow it to another address as far as that can be trusted.

    Parameters
    ----------
    url : str
    method : str
        ``"GET"`` or ``"HEAD"``.
    **options
        Of `requests.request`.

    Raises
    ------
    RequestError
        It sends to a host that is not known, or from https to http, or on and on.
    requests.RequestException
        As `requests.request`.
    """
    first = url
    for _ in range(REDIRECTS):
        answer = requests.request(method, url, allow_redirects=False, **options)
        if not answer.is_redirect:
            return answer
        answer.close()
        onward = urljoin(url, answer.headers["Location"])
        _refuse_stranger(first, url, onward)
        url = onward
    raise RequestError(f"{_shown(first)} sends from one address to the next; take another source.")


def _refuse_stranger(first: str, url: str, onward: str) -> None:
    """Refuse to be sent on to a host that nobody has named, or out of an encrypted connection."""
    before, after = urlsplit(url), urlsplit(onward)
    host = after.hostname or ""
    same = host == before.hostname and after.scheme == before.scheme
    named = (*KNOWN, *os.environ.get("SV_TRUSTED_HOSTS", "").lower().replace(",", " ").split())
    known = any(host == name or host.endswith(f".{name}") for name in named)
    if same or (after.scheme == "https" and (known or host == before.hostname)):
        return
    where = f"{after.scheme}://{host}"
    raise RequestError(
        f"{_shown(first)} sends to {_shown(where)}, which is not known to hold it; if you trust that host and it has "
        f"https, set SV_TRUSTED_HOSTS={_shown(host)} and run again."
    )


def _as_sent(answer: requests.Response) -> Iterator[bytes]:
    """The bytes as they come, never inflated: the file itself was asked for, and packed zeros could fill a disk."""
    try:
        yield from answer.raw.stream(NETWORK_CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(type(error).__name__) from None


def total(answer: requests.Response) -> int | None:
    """Size of the whole file [bytes], by Content-Range or Content-Length; None where neither is sent."""
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
        raise RequestError(f"{_shown(url)} answers {code} instead of the file: try later, or take another source.")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise RequestError(
            f"{_shown(url)} sends a web page instead of the file: open it in a browser, it may ask for "
            f"a login, a key or an agreement."
        )


def _shown(url: str) -> str:
    """An address fit for messages and logs: without its personal key, wherever it stands, and without a password."""
    return re.sub(r"//[^/@]*@", "//...@", re.sub(r"(key=)[^&]+", r"\1...", scrubbed(url)))
