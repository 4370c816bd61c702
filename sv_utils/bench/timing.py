"""How the benchmarks take the time, and what a row of their table holds."""

import time
from collections.abc import Callable

import numpy as np


def seconds(work: Callable, repeats: int = 3) -> float:
    """Shortest of a few runs [s]."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def in_turn(works: list[Callable], repeats: int = 4) -> list[float]:
    """Shortest of a few runs of each [s]; they take turns, so that a busy machine is busy for all."""
    for work in works:
        work()
    times = [[seconds(work, 1) for work in works] for _ in range(repeats)]
    return np.min(times, axis=0).tolist()


def row(what: str, taken: float, other: str = "", other_taken: float = np.nan) -> dict:
    """What was done in how many seconds, beside another way; ``ratio`` is how many times as long that took."""
    return {"what": what, "seconds": taken, "beside": other, "its seconds": other_taken, "ratio": other_taken / taken}
