"""What reaches a person's terminal, and what does not."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Keep what TensorFlow's C++ code says from the terminal; errors of Python come through as exceptions."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
