"""
Do two recordings hold one voice? ``python -m sv_utils.verify A B [--model M] [--json]``

The exit code is the answer: 0 the same speaker, 1 different speakers, 2 it cannot be told, or the request was wrong.
"""

import argparse
import json
import os

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.voices import asked

EXIT = {"same speaker": 0, "different speakers": 1, "cannot tell": 2}


@command(failed=2)  # 1 is an answer
def main(argv: list[str] | None = None) -> int:
    """Say whether two recordings hold one voice. Exit code: 0 same, 1 different, 2 cannot tell or bad input."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.verify", description=main.__doc__)
    parser.add_argument("first", help="audio file")
    parser.add_argument("second", help="audio file")
    parser.add_argument(
        "--model",
        default="campplus",
        help="campplus (default), an evaluated training's .keras file, or with --threshold any encoder",
    )
    parser.add_argument("--prior", type=float, default=0.5, help="probability of one voice beforehand (default: 0.5)")
    point = parser.add_mutually_exclusive_group()
    point.add_argument(
        "--false-accept", type=float, help="wanted share of different voices accepted (default: equal error)"
    )
    point.add_argument("--threshold", type=float, help="your own, of the plain cosine: no error rate belongs to it")
    parser.add_argument("--segment", **asked.SEGMENT)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    wanted = arguments.model, arguments.prior, arguments.false_accept, asked.segments(arguments.segment, 2)
    asked.begin()
    from sv_utils.voices import encoder  # numpy and the rest take as long to import as decoding to start
    from sv_utils.voices.compare import compare, text

    try:
        answer = compare(arguments.first, arguments.second, *wanted, arguments.threshold)
    except (WorkError, OSError) as error:  # 1 would mean "different speakers"
        mend = f"; or name a model of your own, such as --model {_example()}" if arguments.model == "campplus" else ""
        raise RequestError(f"{error}{mend}") from error
    print(json.dumps(answer, indent=1) if arguments.json else text(answer), flush=True)
    encoder.prepare(arguments.model)
    return EXIT[answer["decision"]]


def _example() -> str:
    return os.path.relpath(paths.stage_dir("mini", "06_train_adacos") / "model.keras")


if __name__ == "__main__":
    raise SystemExit(main())
