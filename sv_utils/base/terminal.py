"""What reaches a person's terminal, and what does not."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """
    Keep from the terminal what C++ code writes to file descriptor 2, such as TensorFlow's notices.

    What Python writes to `sys.stderr` (errors, warnings, progress bars) still appears. With ``TF_CPP_MIN_LOG_LEVEL=0``
    in the environment the notices appear too.

    Examples
    --------
    >>> with without_notices():
    ...     print("the notices of libraries that start in this block do not appear")
    the notices of libraries that start in this block do not appear
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    python = sys.stderr
    python.flush()
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    replaced = _descriptor(python) == 2
    if replaced:  # not closed at the end: loggers that began in the block go on writing to it
        sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding=python.encoding, errors="backslashreplace")
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        if replaced:
            sys.stderr = python
        else:
            os.close(terminal)


def _descriptor(stream: TextIO) -> int | None:
    """Number of the file behind a stream; None where there is none, as under a test's capture."""
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None


def printable(text: str) -> str:
    r"""
    Show a text so that it cannot command a terminal: what is no printable character stands as its escape.

    Examples
    --------
    >>> print(printable("a" + chr(27) + "[2Jb.wav"))
    a\x1b[2Jb.wav
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
