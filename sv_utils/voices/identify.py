"""Which of the enrolled voices speaks?"""

import math
from pathlib import Path
from typing import Any

from sv_utils.base.errors import RequestError
from sv_utils.models import pretrained
from sv_utils.voices import encoder, enrolment, measured, recordings
from sv_utils.voices.asked import Segment
from sv_utils.voices.enrolment import Voices
from sv_utils.voices.judging import UNSURE, Judgement, Side
from sv_utils.voices.recordings import Source


def identify(
    file: Source,
    closed: bool = False,
    false_accept: float | None = None,
    store: Path | None = None,
    segment: Segment = None,
) -> dict:
    """
    Find whose voice is heard in a recording.

    Parameters
    ----------
    file : path or np.ndarray [shape=(n,)]
        Audio file of any format; or samples at 16 kHz, int16 or float in [-1, 1].
    closed : bool
        It is known to be one of the enrolled voices: the nearest is the answer, however far it is.
    false_accept : float, optional
        As of `verify.compare`.
    store : Path, optional
        File of voices, by default `enrolment.default_store`.
    segment : tuple of two float, optional
        Where in the recording to listen, from and to [s].

    Returns
    -------
    dict
        ``decision`` ('known', 'unknown', 'cannot tell'), ``name`` (None unless known), ``candidates`` (list of
        ``name, cosine, score, log_likelihood_ratio``, the likeliest first), ``operating_point`` (of one comparison, see
        `verify.compare`; its threshold rises with the number of enrolled voices), ``stranger_accepted`` (bound of the
        share of strangers who are taken for any of the enrolled: the rate of one comparison times their number),
        ``recording``, ``warnings``.

    Raises
    ------
    RequestError
        The file cannot be decoded, nobody is enrolled, or the model has changed since.
    """
    store = store or enrolment.default_store()
    voices = enrolment.read(store)
    if not voices.sums:
        raise RequestError(f"nobody is enrolled in {store}; python -m sv_utils.enrol NAME FILE ...")
    if pretrained.fingerprint(voices.model) != voices.fingerprint:
        raise RequestError(f"{voices.model} has changed since the voices of {store} were enrolled; enrol them anew")
    return among(voices, file, closed, false_accept, segment)


def among(
    voices: Voices,
    file: Source,
    closed: bool = False,
    false_accept: float | None = None,
    segment: Segment = None,
) -> dict:
    """Find whose of some voices, at least one, is heard in a recording; otherwise as `identify`."""
    with encoder.begun(voices.model):
        recording = recordings.hear(file, segment=segment)
    judge = measured.judge(voices.model, false_accept)
    answer: dict[str, Any] = {"decision": "cannot tell", "name": None, "candidates": []}
    point, warnings = judge.point([recording.conditions, *voices.conditions.values()][:2]), []
    if recording.enough:
        (embedding,) = encoder.of_voices(voices.model, [recording.hearings])
        side = Side(embedding, recording.conditions)
        found = {name: judge(side, voices.side(name), len(voices.sums)) for name in voices.sums}
        found = dict(sorted(found.items(), key=lambda item: _likelihood(item[1]), reverse=True))
        best = next(iter(found))
        known, point, warnings = closed or found[best].accepted, found[best].point, found[best].warnings
        answer = {"decision": "known" if known else "unknown", "name": best if known else None}
        bound = UNSURE if recording.whispered else math.inf
        answer["candidates"] = [
            {"name": name, "cosine": one.cosine, "score": one.score}
            | {"log_likelihood_ratio": min(max(one.ratio, -bound), bound)}
            for name, one in found.items()
        ]
    described = recording.describe()
    return {
        **answer,
        "operating_point": point,
        "stranger_accepted": None if closed else min(1.0, len(voices.sums) * point["false_accept"][0]),
        "recording": described,
        "warnings": described.pop("warnings") + warnings,
    }


def _likelihood(found: Judgement) -> tuple[float, float]:
    """By what candidates are ordered: of ratios that end at one limit, the further above its threshold comes first."""
    return found.ratio, found.score - found.point["threshold"]
