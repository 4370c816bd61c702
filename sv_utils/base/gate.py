"""
What stands before a page that visitors send recordings to: who may ask, for what, how much, and what is left of it.

It knows no framework: `Gate` wraps any ASGI application, `private_folder` is a folder that outlives no process, and
`sweep` keeps it small.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

App = Callable[[MutableMapping[str, Any], Callable, Callable], Awaitable[None]]
STALLED = 60.0  # an upload that sends nothing for this long is cut [s]
UPLOADS = 4  # of one client at once
AT_ONCE = 20  # questions of one client in a row,
AGAIN = 3.0  # and one more after each such time [s]
ROOM = 2**30  # of all recordings together [bytes]
BEYOND = 2**16  # of an upload: what stands around a file [bytes]
QUESTION = 2**20  # of anything else that is sent [bytes]
HOST = re.compile(r"(\[[\da-fA-F:.]+\]|[\w.\-]+)(?::\d*)?")  # a name or an address, and a port
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


class Refused(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Gate:
    """
    An ASGI application that lets through to another what a page needs, from its own visitors.

    Parameters
    ----------
    app : ASGI application
    folder : Path
        Where uploads arrive: a file at a time, then in a folder each.
    hosts : collection of str
        Names that the page is called by; addresses of numbers and this machine's own names are known.
    open_paths : str
        Regular expression of the paths that the page needs; ``{folder}`` in it is the folder.
    largest : int
        Of an upload [bytes].
    policy : str
        Content security policy of all that is answered.
    """

    def __init__(
        self, app: App, folder: Path, hosts: Collection[str], open_paths: str, largest: int, policy: str = ""
    ) -> None:
        self.app, self.folder, self.largest = app, folder, largest
        own = {"localhost", socket.gethostname(), socket.getfqdn()}
        self.hosts = {name.lower() for name in (*hosts, *own)}
        self.open = re.compile(open_paths.replace("{folder}", re.escape(str(folder))))
        self.headers = HEADERS | ({b"content-security-policy": policy.encode()} if policy else {})
        self.uploads: Counter[str] = Counter()  # of each client, how many are on their way
        self.coming = 0  # bytes that they have announced
        self.asked: dict[str, tuple[float, float]] = {}  # of each client: what it may still ask, and since when

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        """Answer one request, or let the page answer it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = unquote(scope["path"])
        try:
            self._check(scope["method"], path, headers)
            size = self._size(path, headers) if scope["method"] == "POST" else 0
            if path.endswith("/upload"):
                return await self._upload(scope, receive, send, size)
            if path.endswith("/queue/join"):
                self._take_turn(_client(scope))
        except Refused as refusal:
            return await _answer(send, refusal)
        return await self.app(scope, receive, self._with_headers(send))

    def _check(self, method: str, path: str, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refused(400, "This page is not known by that name; start it with --trust NAME.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Refused(403, "Another page may not ask this one.")
        if method not in ("GET", "HEAD", "POST") or not self.open.fullmatch(path) or "/../" in f"{path}/":
            raise Refused(404, "There is nothing here.")

    def _size(self, path: str, headers: dict[str, str]) -> int:
        """How much will be sent [bytes], by a visitor who says so."""
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
            raise Refused(411, "Say how much you send.")
        largest = self.largest + BEYOND if path.endswith("/upload") else QUESTION
        if len(length) > 15 or int(length) > largest:
            raise Refused(413, f"File size exceeded maximum allowed size of {largest} bytes.")
        return int(length)

    def _is_ours(self, host: str) -> bool:
        """Whether a page is called by its own name, and not by one that a stranger gave this machine's address."""
        found = HOST.fullmatch(host)
        if not found:
            return False
        name = found[1].strip("[]")
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name.lower().removesuffix(".") in self.hosts

    def _take_turn(self, client: str) -> None:
        now = time.monotonic()
        if len(self.asked) > 10_000:
            self.asked = {one: known for one, known in self.asked.items() if now - known[1] < AT_ONCE * AGAIN}
        left, since = self.asked.get(client, (AT_ONCE, now))
        left = min(AT_ONCE, left + (now - since) / AGAIN)
        self.asked[client] = (max(left - 1, 0), now)
        if left < 1:
            raise Refused(503, "That is more than one visitor may ask at once. Please try again in a minute.")

    async def _upload(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable, size: int) -> None:
        client = _client(scope)
        if self.uploads[client] >= UPLOADS:
            raise Refused(503, "That is more than one visitor may send at once. Please try again in a minute.")
        self.uploads[client] += 1
        self.coming += size
        left = asyncio.Event()
        try:
            if await asyncio.to_thread(taken, self.folder) + self.coming > ROOM:
                raise Refused(503, "There is no room for more recordings. Please try again in ten minutes.")
            await self.app(scope, _patient(receive, left), self._with_headers(send))
        except Exception:
            if not left.is_set():  # else nobody is there any more to be answered
                raise
        finally:
            self.coming -= size
            self.uploads[client] -= 1
            self.uploads = +self.uploads  # those that have some
            if not self.uploads:  # what no upload writes to any more was aborted
                sweep(self.folder, 0, aborted=True)

    def _with_headers(self, send: Callable) -> Callable:
        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers.items()]
            await send(message)

        return sent


def _client(scope: MutableMapping[str, Any]) -> str:
    """Address of a visitor; of those of the new kind the first half, for a visitor has all that begin with it."""
    address = (scope.get("client") or ("",))[0]
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_network((ipaddress.IPv6Address(address).packed[:8] + bytes(8), 64)))
    return address


def _patient(receive: Callable, left: asyncio.Event) -> Callable:
    """Take it for a visitor's leave when nothing comes for `STALLED`; `left` is set when one has left."""

    async def received() -> MutableMapping[str, Any]:
        try:
            message = await asyncio.wait_for(receive(), STALLED)
        except TimeoutError:
            message = {"type": "http.disconnect"}
        if message["type"] == "http.disconnect":
            left.set()
        return message

    return received


async def _answer(send: Callable, refusal: Refused) -> None:
    body = b'{"detail": "%s"}' % str(refusal).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": refusal.status, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})


def taken(folder: Path) -> int:
    """How much lies in a folder [bytes]."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):  # it may go meanwhile
                total += os.lstat(os.path.join(place, file)).st_size
    return total


def sweep(folder: Path, age: float, aborted: bool = False) -> None:
    """
    Remove everything in a folder that came at least so long ago, with the folders that are empty then.

    Parameters
    ----------
    folder : Path
    age : float
        [s]
    aborted : bool
        Only files beside the folders (uploads that did not end), to which nothing was written for so long.
    """
    now = time.time()
    for place, folders, files in os.walk(folder, topdown=False):
        if aborted and place != str(folder):
            continue
        for path in (os.path.join(place, name) for name in (*files, *folders)):
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                if stat.S_ISDIR(about.st_mode):
                    if not aborted and now - about.st_ctime >= min(age, STALLED):  # else one may come into it
                        os.rmdir(path)
                elif now - (about.st_mtime if aborted else about.st_ctime) >= age:
                    os.unlink(path)


async def keep_small(folder: Path, age: float, pause: float) -> None:
    """Sweep a folder again and again, until cancelled: what is older than `age`, and uploads that were aborted [s]."""
    while True:
        await asyncio.sleep(pause)
        await asyncio.to_thread(sweep, folder, age)
        await asyncio.to_thread(sweep, folder, 2 * STALLED, True)


@contextlib.contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """
    Make a folder that is gone after the block, or, where the process was killed, when the next one begins such a block.

    Parameters
    ----------
    name : str
        What such folders are called; this system's temporary folder holds them.

    Yields
    ------
    Path
    """
    for left in Path(tempfile.gettempdir()).glob(f"{name}-*"):
        _remove_orphan(left)
    made = Path(tempfile.mkdtemp(prefix=f".{name}-"))  # a name that nobody looks for, until it is locked
    folder = made.with_name(made.name[1:])
    descriptor = os.open(made, os.O_RDONLY)  # the lock falls with the process, however it ends
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(folder)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphan(folder: Path) -> None:
    """Remove a folder of ours whose process is gone."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_uid == os.getuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        finally:
            os.close(descriptor)
