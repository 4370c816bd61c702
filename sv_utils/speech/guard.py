"""
A process that decodes, under a ceiling of memory and time: recordings come from others.

A demuxer reserves memory by what a file claims, before anybody can look: 653 bytes may take gigabytes. And a decoder
may crash. So one process of its own decodes file after file for this one; it gets an open file or its bytes and gives
samples back. It takes longer to start than most files to decode: who knows that files will come calls `begin`, and
imports numpy and what else it needs meanwhile. What it may take is set by the operating system, whatever the file says:
its address space (Linux), or a watch on what it holds (elsewhere). When it dies the file is refused and the next file
gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sv_utils.base.errors import WorkError
from sv_utils.speech.decoded import AudioError, Decoded

if TYPE_CHECKING:  # a process shall start before numpy is imported
    import numpy as np

MEMORY = 160 * 2**20  # what decoding may take besides the file and its samples [bytes]
GROWN = 2 * MEMORY  # a process that holds this much more than at its start is not used again [bytes]
PATIENCE = 30.0  # a file may take this long, and a sixth of the longest recording's length more [s]
PAUSE = 0.02  # between two looks at the memory where the system sets no limit [s]
START = "import sys; sys.path[:] = sys.argv[1:]; from sv_utils.speech import guard; guard.serve()"


class Decoder:
    """
    A process that decodes; it starts with the first file, and again after it was stopped.

    Parameters
    ----------
    memory : int
        What decoding may take besides the file and its samples [bytes].

    Examples
    --------
    >>> with open("00001.m4a", "rb") as file:  # doctest: +SKIP
    ...     Decoder().decode(file).samples.shape
    (41984,)
    """

    def __init__(self, memory: int = MEMORY):
        self.memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._owner = 0

    def decode(
        self,
        source: bytes | BinaryIO,
        sample_rate: int = 16000,
        max_seconds: float = 3600.0,
        first_channel: bool = False,
    ) -> Decoded:
        """
        Decode a file; parameters and errors are those of `audio.decode`.

        Raises
        ------
        AudioError
            As `audio.decode`; also when the file takes too much memory or time, or makes the decoder crash.
        WorkError
            The process does not start.
        """
        size = len(source) if isinstance(source, bytes) else os.fstat(source.fileno()).st_size
        request = {
            "bytes": size if isinstance(source, bytes) else None,
            "memory": self.memory + size + int(2 * sample_rate * max_seconds),
            "rate": sample_rate,
            "seconds": max_seconds,
            "first": first_channel,
        }
        with self._lock:
            try:
                return self._ask(request, source, PATIENCE + max_seconds / 6)
            except AudioError:
                raise
            except BaseException:  # interrupted: what comes next would be the answer to this file
                self._stop()
                raise

    def begin(self) -> None:
        """Start the process before there is a file; what hinders it is told when one comes."""
        with self._lock:
            try:
                self._started()
            except OSError:
                self._stop()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict, source: bytes | BinaryIO, patience: float) -> Decoded:
        import numpy as np

        connection = self._started()
        connection.settimeout(patience)
        try:
            with contextlib.suppress(ConnectionError):  # it has ended already: the last that it said tells why
                _send(connection, request, None if isinstance(source, bytes) else source.fileno())
                if isinstance(source, bytes):
                    connection.sendall(source)
            answer = _receive(connection)
            samples = np.empty(min(answer.get("samples", 0), int(request["rate"] * request["seconds"])), np.int16)
            _fill(connection, samples.data.cast("B"))
        except TimeoutError as error:
            self._stop()
            raise AudioError(f"damaged: decoding takes longer than {patience:.0f} s") from error
        except (OSError, EOFError) as error:
            self._stop()
            raise AudioError("damaged: it makes the decoder crash") from error
        if answer.get("last"):
            self._stop()
        if "failure" in answer:
            raise WorkError(f"the decoding process does not start ({answer['failure']}); run make setup")
        if "error" in answer:
            raise AudioError(answer["error"])
        return Decoded(samples, answer["rate"], answer["channels"], answer["codec"], tuple(answer["warnings"]))

    def _started(self) -> socket.socket:
        if self._socket is None or self._owner != os.getpid():  # a forked process starts its own
            self._socket, theirs = socket.socketpair()
            self._owner = os.getpid()
            package = str(Path(__file__).resolve().parents[2])
            threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-c", START, package, *sys.path],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | threads,
                )
        return self._socket

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None


_idle: list[Decoder] = []


def begin() -> None:
    """Start the process that will decode the first file; nothing is said here of what hinders it."""
    decoder = _taken()
    _idle.append(decoder)
    decoder.begin()


def decode(
    source: bytes | BinaryIO, sample_rate: int = 16000, max_seconds: float = 3600.0, first_channel: bool = False
) -> Decoded:
    """Decode a file by a process that is kept for the next one; each thread has its own."""
    decoder = _taken()
    try:
        return decoder.decode(source, sample_rate, max_seconds, first_channel)
    finally:
        _idle.append(decoder)


def decode_here(
    source: bytes | BinaryIO, sample_rate: int = 16000, max_seconds: float = 3600.0, first_channel: bool = False
) -> Decoded:
    """Decode a file in this process under the ceiling; in one of its own where this one has to go on meanwhile."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return decode(source, sample_rate, max_seconds, first_channel)
    from sv_utils.speech import decoding

    size = len(source) if isinstance(source, bytes) else os.fstat(source.fileno()).st_size
    with _ceiling(MEMORY + size + int(2 * sample_rate * max_seconds)):
        return decoding.decode(source, sample_rate, max_seconds, first_channel)


@atexit.register
def close() -> None:
    """End the processes that wait for files."""
    while _idle:
        _idle.pop().close()


def _taken() -> Decoder:
    try:
        return _idle.pop()
    except IndexError:
        return Decoder()


def serve() -> None:
    """Decode for the process at the other end of standard input, until it leaves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other end
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):  # no voice is left in a file, whatever happens
        resource.setrlimit(kind, (0, 0))
    with socket.socket(fileno=0) as connection, contextlib.suppress(OSError, EOFError):
        try:
            from sv_utils.speech import decoding
        except Exception as error:
            _send(connection, {"failure": f"{type(error).__name__}: {error}", "last": True})
            return
        resting = _held()
        while True:
            request, descriptor = _received(connection)
            content = _content(connection, request, descriptor)
            with _ceiling(request["memory"]):
                answer, samples = _answer(decoding.decode, content, request)
            if not isinstance(content, bytes):
                content.close()
            answer["last"] = answer.get("last", False) or _held() > resting + GROWN
            _send(connection, answer)
            connection.sendall(samples.data.cast("B"))
            del content, samples


def _content(connection: socket.socket, request: dict, descriptor: int | None) -> bytes | BinaryIO:
    if descriptor is not None:
        return os.fdopen(descriptor, "rb")
    content = bytearray(request["bytes"])
    _fill(connection, memoryview(content))
    return bytes(content)


def _answer(decode: Callable[..., Decoded], content: bytes | BinaryIO, request: dict) -> tuple[dict, np.ndarray]:
    import numpy as np

    nothing = np.empty(0, np.int16)
    try:
        decoded = decode(content, request["rate"], request["seconds"], request["first"])
    except AudioError as error:
        return {"error": str(error), "last": isinstance(error.__cause__, MemoryError)}, nothing
    except MemoryError:
        return {"error": "damaged, or too large: it takes too much memory", "last": True}, nothing
    except Exception as error:
        return {"error": f"damaged: it makes the decoder fail ({type(error).__name__})", "last": True}, nothing
    fields = {name: getattr(decoded, name) for name in ("rate", "channels", "codec", "warnings")}
    return fields | {"samples": len(decoded.samples)}, decoded.samples


@contextlib.contextmanager
def _ceiling(allowance: int) -> Iterator[None]:
    """Let this process take no more than the allowance, beside what it holds."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        limit = _held() + allowance
        resource.setrlimit(resource.RLIMIT_AS, (limit if limits[1] < 0 else min(limit, limits[1]), limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    else:
        with watched(allowance):
            yield


@contextlib.contextmanager
def watched(allowance: int) -> Iterator[None]:
    """
    End this process as soon as it holds more than the allowance, beside what it held at most before.

    For systems that accept a limit of the address space and do not keep it (macOS).
    """
    done = threading.Event()
    limit = _peak() + allowance

    def watch() -> None:
        while not done.wait(PAUSE):
            if _peak() > limit:
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _held() -> int:
    """Address space of this process [bytes]; where the system does not tell it, the most that it held of memory."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)  # a file object would take three times as long
    except OSError:
        return _peak()
    pages = os.read(file, 20).split()[0]
    os.close(file)
    return int(pages) * mmap.PAGESIZE


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _send(connection: socket.socket, message: dict, descriptor: int | None = None) -> None:
    text = json.dumps(message).encode()
    data = struct.pack("<I", len(text)) + text
    if descriptor is None:
        connection.sendall(data)
        return
    sent = socket.send_fds(connection, [data], [descriptor])
    connection.sendall(data[sent:])


def _received(connection: socket.socket) -> tuple[dict, int | None]:
    """A message and the open file that came with it."""
    data, descriptors, _, _ = socket.recv_fds(connection, 4, 1)
    if not data:
        raise EOFError
    size = bytearray(4)
    size[: len(data)] = data
    _fill(connection, memoryview(size)[len(data) :])
    text = bytearray(struct.unpack("<I", size)[0])
    _fill(connection, memoryview(text))
    return json.loads(bytes(text)), descriptors[0] if descriptors else None


def _receive(connection: socket.socket) -> dict:
    return _received(connection)[0]


def _fill(connection: socket.socket, place: memoryview) -> None:
    while len(place):
        count = connection.recv_into(place)
        if not count:
            raise EOFError
        place = place[count:]
