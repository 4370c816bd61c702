"""
Which of the enrolled voices speaks? ``python -m sv_utils.identify FILE [--closed] [--json]``

The exit code is the answer: 0 one of them, 1 none of them, 2 it cannot be told, or the request was wrong.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from . import enrol, pretrained, scoring, verify
from .errors import RequestError, WorkError, command

EXIT = {"known": 0, "unknown": 1, "cannot tell": 2}


def identify(
    file: str | os.PathLike,
    closed: bool = False,
    false_accept: float | None = None,
    store: Path | None = None,
) -> dict:
    """
    Find whose voice is heard in a recording.

    Parameters
    ----------
    file : path
        Audio file of any format.
    closed : bool
        It is known to be one of the enrolled voices: the nearest is the answer, however far it is.
    false_accept : float, optional
        As of `verify.compare`.
    store : Path, optional
        File of voices, by default `enrol.default_store`.

    Returns
    -------
    dict
        ``decision`` ('known', 'unknown', 'cannot tell'), ``name`` (None unless known), ``candidates`` (list of
        ``name, cosine, log_likelihood_ratio``, the nearest first), ``operating_point`` (of one comparison, see
        `verify.compare`), ``stranger_accepted`` (bound of the share of strangers who are taken for any of the enrolled:
        the rate of one comparison times their number), ``recording``, ``warnings``.

    Raises
    ------
    RequestError
        The file cannot be decoded, nobody is enrolled, or the model has changed since.
    """
    store = store or enrol.default_store()
    voices = enrol.read(store)
    if not voices.sums:
        raise RequestError(f"nobody is enrolled in {store}; python -m sv_utils.enrol NAME FILE ...")
    if pretrained.fingerprint(voices.model) != voices.fingerprint:
        raise RequestError(f"{voices.model} has changed since the voices of {store} were enrolled; enrol them anew")
    return among(voices, file, closed, false_accept)


def among(
    voices: enrol.Voices, file: str | os.PathLike, closed: bool = False, false_accept: float | None = None
) -> dict:
    """Find whose of some voices, at least one, is heard in a recording; otherwise as `identify`."""
    sound = verify.decode(file)
    calibration, point = verify.known(voices.model, false_accept)
    recording = verify.describe(file, sound)
    answer = {"decision": "cannot tell", "name": None, "candidates": []}
    if recording["speech_seconds"] >= verify.SHORTEST:
        (heard,) = verify.embeddings(voices.model, [sound.samples])
        cosines = scoring.normalise(np.array(list(voices.sums.values()))) @ heard
        ratios = [verify.limited(float(ratio), calibration) for ratio in calibration(cosines)]
        table = zip(voices.sums, np.clip(cosines, -1, 1).tolist(), ratios)
        candidates = [{"name": name, "cosine": cosine, "log_likelihood_ratio": llr} for name, cosine, llr in table]
        candidates.sort(key=lambda candidate: -candidate["cosine"])
        found = closed or candidates[0]["cosine"] >= point["threshold"]
        answer = {"decision": "known" if found else "unknown", "name": candidates[0]["name"] if found else None}
        answer["candidates"] = candidates
    bound = None if closed else min(1.0, len(voices.sums) * point["false_accept"][0])
    warnings = recording.pop("warnings")
    return {
        **answer,
        "operating_point": point,
        "stranger_accepted": bound,
        "recording": recording,
        "warnings": warnings,
    }


def text(answer: dict) -> str:
    """Say the answer of `identify` in words."""
    lines = [{"known": answer["name"], "unknown": "none of the enrolled voices"}.get(answer["decision"], "cannot tell")]
    point = answer["operating_point"]
    for candidate in answer["candidates"][:3]:
        ratio = candidate["log_likelihood_ratio"]
        lines.append(f"  {candidate['name']}: cosine {candidate['cosine']:.3f}, log-likelihood ratio {ratio:+.2f}")
    if answer["stranger_accepted"] is not None:
        lines.append(
            f"  threshold {point['threshold']:.3f} ({point['name']}): a stranger is taken for one of the enrolled in "
            f"at most {answer['stranger_accepted']:.1%}, as measured on list {point['list']}"
        )
    return "\n".join(lines + [f"  warning: {text}" for text in answer["warnings"]])


@command
def main(argv: list[str] | None = None) -> int:
    """Say which enrolled voice speaks. Exit code: 0 one of them, 1 none, 2 cannot tell or bad input."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.identify", description=main.__doc__)
    parser.add_argument("file", help="audio file")
    parser.add_argument("--closed", action="store_true", help="it is one of the enrolled voices for sure")
    parser.add_argument(
        "--false-accept", type=float, help="wanted share of strangers accepted by one voice (default: equal error)"
    )
    parser.add_argument("--store", type=Path, default=enrol.default_store(), help="file of voices (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    try:
        with verify.without_notices():
            answer = identify(arguments.file, arguments.closed, arguments.false_accept, arguments.store)
    except (WorkError, OSError) as error:  # 1 would mean "none of them"
        raise RequestError(str(error)) from error
    print(json.dumps(answer, indent=1) if arguments.json else text(answer))
    return EXIT[answer["decision"]]


if __name__ == "__main__":
    raise SystemExit(main())
