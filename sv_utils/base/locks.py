"""One process at a time, where the file system can tell."""

import contextlib
import fcntl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def alone(path: Path, holder: str = "", waits: Callable[[str], None] | None = None) -> Iterator[None]:
    """
    Let one process at a time into the block; the lock falls with the process, however it ends.

    A file system that keeps no locks (some NFS and Lustre mounts) is told of, and the block runs without one.

    Parameters
    ----------
    path : Path
        File of the lock.
    holder : str
        What a process that has to wait is told of this one.
    waits : callable
        Called with what the holder said of itself, once, when this process has to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, waits)
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def _lock(file: TextIO, waits: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waits:
            file.seek(0)
            waits(file.read())
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        lack = (
            f"the file system of {file.name} keeps no locks ({error.strerror}): do not run the same thing twice at once"
        )
        print(lack, file=sys.stderr)
