"""
Processes that make training batches ahead, in their order.

Of n readers, number r makes the batches r, r + n, r + 2n, ... into memory that it shares with the training, so that
nothing but single bytes goes from process to process. They load NumPy and no TensorFlow, and end with the training
however that ends: each waits at a pipe of which the other end closes then.

Tried and not taken: threads, which share one interpreter (1.5 times one thread's crops on two cores); a service of
tf.data, whose workers cannot run Python of their own process; Grain, one more package for the same processes.
"""

import contextlib
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING

import numpy as np

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError

if TYPE_CHECKING:  # it imports this module
    from sv_utils.training.batches import Crops

SLOTS = 2  # batches that a reader has room for: one is handed out while it makes the next
READY, FAILED, FREE = b"r", b"f", b"."


def count(asked: int) -> int:
    """
    Say how many readers ``engine.readers`` means: -1 is one for each core that this process may use.

    Raises
    ------
    RequestError
        For less than -1.
    """
    if asked < -1:
        raise RequestError(f"engine.readers is -1 (one a core), 0 (none) or more, not {asked}")
    if asked >= 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Readers:
    """
    Processes that make the batches of a training, from one number on; a context manager, which ends them.

    Parameters
    ----------
    crops : Crops
        Its `batch` makes the batches; it is pickled, so its augmentation must be importable.
    readers : int
        Processes, 1 or more.
    first_step, worker, workers : int
        See `Crops.dataset`.

    Attributes
    ----------
    failure : Exception or None
        Why there are no more batches.
    """

    def __init__(self, crops: "Crops", readers: int, first_step: int = 0, worker: int = 0, workers: int = 1):
        self.failure: Exception | None = None
        self._first, self._closed = first_step, False
        self._shape = (crops.batch_size // workers, crops.crop_samples)
        self._readers: list[_Reader] = []
        work = pickle.dumps((crops, worker, workers))
        for place in range(readers):
            self._readers.append(_Reader(work, range(first_step + place, sys.maxsize, readers), self._shape))

    def __enter__(self) -> "Readers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Batch `step` as `Crops.batch` gives it; to be asked for one after the other, from the first.

        Raises
        ------
        RequestError, WorkError
            What the reader raised, or that it is gone.
        """
        if not self._closed:
            try:
                return self._readers[(int(step) - self._first) % len(self._readers)].take()
            except (RequestError, WorkError) as error:
                if not self._closed:
                    self.failure = error
                    raise
        return np.zeros(self._shape, np.float32), np.zeros(self._shape[0], np.int32)  # to nobody

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        for reader in self._readers:
            reader.kill()


class _Reader:
    """One process, with the batches that it has ready."""

    def __init__(self, work: bytes, steps: range, shape: tuple[int, int]):
        memory = _memory(SLOTS * _slot_size(shape))
        line = [sys.executable, "-m", __name__, str(memory), str(steps.start), str(steps.step)]
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[memory], env=_environment(), bufsize=0
        )
        self._slots, self._taken = _slots(memory, shape), 0
        os.close(memory)  # what is mapped stays
        assert self._process.stdin and self._process.stdout
        self._asks, self._answers = self._process.stdin, self._process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has died, which the first batch will tell
            _write(self._asks, len(work).to_bytes(8, "little") + work)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Copy the next batch out of its slot, and give the slot back."""
        said = self._answers.read(1)
        if said == FAILED:
            raise pickle.loads(self._answers.read(1 << 16))
        if said != READY:
            raise WorkError(
                "a process that makes batches has died, perhaps for want of memory: set engine.readers to fewer"
            )
        waveforms, classes = (array.copy() for array in self._slots[self._taken % SLOTS])
        self._taken += 1
        with contextlib.suppress(BrokenPipeError):
            self._asks.write(FREE)
        return waveforms, classes

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._asks.close()


def _write(pipe: IO[bytes], content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[pipe.write(view) :]


def _environment() -> dict[str, str]:
    """Of a reader: this very package, and one thread, as the readers share the cores."""
    path = os.pathsep.join(filter(None, (str(paths.REPO), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _memory(size: int) -> int:
    """File descriptor of `size` bytes without a name, which the system frees with the last process that has it."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("batches")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, size)
    return memory


def _slot_size(shape: tuple[int, int]) -> int:
    used = 4 * shape[0] * (shape[1] + 1)
    return -(-used // mmap.PAGESIZE) * mmap.PAGESIZE


def _slots(memory: int, shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Waveforms [shape=shape] and classes [shape=(shape[0],)] of each slot of a memory."""
    size, samples = _slot_size(shape), shape[0] * shape[1]
    mapped = mmap.mmap(memory, SLOTS * size)
    found = []
    for slot in range(SLOTS):
        waveforms = np.frombuffer(mapped, np.float32, samples, slot * size).reshape(shape)
        found.append((waveforms, np.frombuffer(mapped, np.int32, shape[0], slot * size + 4 * samples)))
    return found


def _read(pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _make(memory: int, first: int, stride: int, asks: IO[bytes], answers: IO[bytes]) -> None:
    crops, worker, workers = pickle.loads(_read(asks, int.from_bytes(_read(asks, 8), "little")))
    slots = _slots(memory, (crops.batch_size // workers, crops.crop_samples))
    for number, step in enumerate(range(first, sys.maxsize, stride)):
        if number >= SLOTS:
            _read(asks, 1)
        for slot, made in zip(slots[number % SLOTS], crops.batch(step, worker, workers), strict=True):
            slot[:] = made
        answers.write(READY)
        answers.flush()


def main(memory: int, first: int, stride: int) -> None:
    """Be a reader: make the batches `first`, `first + stride`, ... until the training ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, with which this ends
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        _make(memory, first, stride, sys.stdin.buffer, answers)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the training has ended
    except (RequestError, WorkError) as error:
        answers.write(FAILED + pickle.dumps(error))
    except Exception as error:
        answers.write(FAILED + pickle.dumps(WorkError(f"a batch cannot be made: {type(error).__name__}: {error}")))
    answers.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
