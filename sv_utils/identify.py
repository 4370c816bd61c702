"""
Which of the enrolled voices speaks? ``python -m sv_utils.identify FILE [--closed] [--json]``

The exit code is the answer: 0 one of them, 1 none of them, 2 it cannot be told, or the request was wrong.
"""

import argparse
import json
from pathlib import Path

from sv_utils.base.errors import command
from sv_utils.voices import asked

EXIT = {"known": 0, "unknown": 1, "cannot tell": 2}


def text(answer: dict) -> str:
    """Say the answer of `identify` in words."""
    from sv_utils.voices.compare import speakers

    lines = [{"known": answer["name"], "unknown": "none of the enrolled voices"}.get(answer["decision"], "cannot tell")]
    point = answer["operating_point"]
    for candidate in answer["candidates"][:3]:
        ratio = candidate["log_likelihood_ratio"]
        score = f"{point['threshold_of']} {candidate['score']:.3f}"
        lines.append(f"  {candidate['name']}: {score}, log-likelihood ratio {ratio:+.2f}")
    if answer["candidates"] and answer["stranger_accepted"] is not None:
        lines.append(
            f"  threshold {point['threshold']:.3f} ({point['name']}): a stranger is taken for one of the enrolled in "
            f"at most {answer['stranger_accepted']:.1%}, as measured on {speakers(point)}"
        )
    return "\n".join(lines + [f"  warning: {text}" for text in answer["warnings"]])


@command(failed=2)  # 1 is an answer
def main(argv: list[str] | None = None) -> int:
    """Say which enrolled voice speaks. Exit code: 0 one of them, 1 none, 2 cannot tell or bad input."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.identify", description=main.__doc__)
    parser.add_argument("file", help="audio file")
    parser.add_argument("--closed", action="store_true", help="it is one of the enrolled voices for sure")
    parser.add_argument(
        "--false-accept", type=float, help="wanted share of strangers accepted by one voice (default: equal error)"
    )
    parser.add_argument("--segment", **asked.SEGMENT)
    parser.add_argument("--store", type=Path, help="file of voices (default: voices.npz in outputs/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    (segment,) = asked.segments(arguments.segment, 1)
    asked.begin()
    from sv_utils.voices.identify import identify  # takes longer to import than decoding to start

    answer = identify(arguments.file, arguments.closed, arguments.false_accept, arguments.store, segment)
    print(json.dumps(answer, indent=1) if arguments.json else text(answer))
    return EXIT[answer["decision"]]


if __name__ == "__main__":
    raise SystemExit(main())
