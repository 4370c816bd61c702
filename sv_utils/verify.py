"""
Do two recordings hold one voice? ``python -m sv_utils.verify A B [--model M] [--json]``

The exit code is the answer: 0 the same speaker, 1 different speakers, 2 it cannot be told, or the request was wrong.
"""

import argparse
import json
import os
import re

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.base.terminal import without_notices
from sv_utils.voices import encoder
from sv_utils.voices.compare import Segment, compare, text

EXIT = {"same speaker": 0, "different speakers": 1, "cannot tell": 2}


@command(failed=2)  # 1 is an answer
def main(argv: list[str] | None = None) -> int:
    """Say whether two recordings hold one voice. Exit code: 0 same, 1 different, 2 cannot tell or bad input."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.verify", description=main.__doc__)
    parser.add_argument("first", help="audio file")
    parser.add_argument("second", help="audio file")
    parser.add_argument(
        "--model", default="campplus", help="campplus (default), or an evaluated training's .keras file"
    )
    parser.add_argument("--prior", type=float, default=0.5, help="probability of one voice beforehand (default: 0.5)")
    parser.add_argument(
        "--false-accept", type=float, help="wanted share of different voices accepted (default: equal error)"
    )
    said = "where to listen in the first (1) or second (2) recording [s], such as 2:0-4.5; may be given for both"
    parser.add_argument("--segment", action="append", default=[], metavar="N:FROM-TO", help=said)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    wanted = arguments.model, arguments.prior, arguments.false_accept, segments(arguments.segment)
    try:
        with without_notices():
            answer = compare(arguments.first, arguments.second, *wanted)
    except (WorkError, OSError) as error:  # 1 would mean "different speakers"
        mend = f"; or name a model of your own, such as --model {_example()}" if arguments.model == "campplus" else ""
        raise RequestError(f"{error}{mend}") from error
    print(json.dumps(answer, indent=1) if arguments.json else text(answer), flush=True)
    encoder.prepare(arguments.model)
    return EXIT[answer["decision"]]


def segments(given: list[str]) -> tuple[Segment, Segment]:
    """
    Read where to listen.

    Parameters
    ----------
    given : list of str

    Returns
    -------
    tuple of two (float, float) or None

    Raises
    ------
    RequestError
        If one cannot be read.

    Examples
    --------
    >>> segments(["2:0-4.5"])
    (None, (0.0, 4.5))
    """
    found: dict[str, Segment] = {"1": None, "2": None}
    for words in given:
        read = re.fullmatch(r"([12]):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", words)
        if not read:
            raise RequestError(f"--segment {words} is none; write recording:from-to in seconds, such as 2:0-4.5")
        found[read[1]] = float(read[2]), float(read[3])
    return found["1"], found["2"]


def _example() -> str:
    return os.path.relpath(paths.stage_dir("mini", "06_train_adacos") / "model.keras")


if __name__ == "__main__":
    raise SystemExit(main())
