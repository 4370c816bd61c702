"""
What is asked about recordings, read before numpy and what answers are imported.

These take as long to import as the process that decodes takes to start. So that begins first, and what this module
imports takes no time.
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from sv_utils.base.errors import RequestError
from sv_utils.speech import guard

Segment = tuple[float, float] | None
# What `argparse` needs of the option --segment; `segments` reads what is given.
SEGMENT: dict[str, Any] = {"action": "append", "default": [], "metavar": "[N=]FROM-TO"}
SEGMENT["help"] = (
    "where to listen, such as 4.5-12 [s] or 1:05-1:20 [min:s]; of several recordings name one by its number, such as "
    "2=1:05-1:20 (may be given for each)"
)
_TIME = r"(?:\d+:)?\d+(?:\.\d+)?"


def begin() -> None:
    """Start the process that decodes; what answers is imported meanwhile. Errors are told when a file is decoded."""
    guard.begin()
    if "numpy" not in sys.modules:  # otherwise it is too late: numpy reads it when it is imported
        # Arrays are so small here that a second thread gains no time, and it takes a core that the encoder can use.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def segments(given: Sequence[str], recordings: int) -> list[Segment]:
    """
    Read where to listen in each of some recordings.

    Parameters
    ----------
    given : sequence of str
        ``FROM-TO`` in seconds or ``minutes:seconds``; of several recordings with the number of one: ``2=FROM-TO``.
    recordings : int
        How many there are.

    Returns
    -------
    list of (float, float) or None [s]
        One for each recording; None where it is to be heard in full.

    Raises
    ------
    RequestError
        If one cannot be read, names no recording, or names one that another has named.

    Examples
    --------
    >>> segments(["2=0-4.5"], 2)
    [None, (0.0, 4.5)]
    >>> segments(["1:05-1:20"], 1)
    [(65.0, 80.0)]
    """
    found: list[Segment] = [None] * recordings
    for words in given:
        read = re.fullmatch(rf"(?:(\d+)=)?({_TIME})-({_TIME})", words)
        number = int(read[1] or recordings == 1) if read else 0
        if not read or not 1 <= number <= recordings:
            form = "FROM-TO, such as 4.5-12 or 1:05-1:20"
            if recordings > 1:
                form = f"NUMBER=FROM-TO with the number of a recording from 1 to {recordings}, such as 2=4.5-12"
            raise RequestError(f"--segment {words} cannot be read; write {form}")
        if found[number - 1]:
            raise RequestError(f"--segment {words} is the second of recording {number}; give one of each")
        found[number - 1] = _seconds(read[2]), _seconds(read[3])
    return found


def _seconds(time: str) -> float:
    minutes, _, seconds = time.rpartition(":")
    return 60 * int(minutes or 0) + float(seconds)
