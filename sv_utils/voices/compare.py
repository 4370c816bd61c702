"""Do two recordings hold one voice?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.voices import encoder, measured, recordings, turns
from sv_utils.voices.asked import Segment
from sv_utils.voices.judging import COMPENSATED, COSINE, UNSURE, Judgement, Own, Side
from sv_utils.voices.recordings import Source

NEAR = 0.03  # silence or noise beside the speech seldom moves a compensated cosine by more


def compare(
    first: Source,
    second: Source,
    model: str = "campplus",
    prior: float = 0.5,
    false_accept: float | None = None,
    segments: Sequence[Segment] = (None, None),
    threshold: float | None = None,
) -> dict:
    """
    Say whether one voice speaks in two recordings.

    Only their speech is compared, and what its score means is told by the conditions that are heard in both: the band,
    the noise, the seconds of speech.

    Parameters
    ----------
    first, second : path or np.ndarray [shape=(n,)]
        Audio files of any format, rate and length up to an hour; or samples at 16 kHz, int16 or float in [-1, 1].
    model : str
        A published encoder, or the ``.keras`` file of a training that ``08_evaluate`` has judged; with `threshold`
        whatever `pretrained.load` takes.
    prior : float
        Probability of one voice before the recordings are heard.
    false_accept : float, optional
        Wanted share of different voices accepted, of those that were measured; by default the threshold is that of
        equal error.
    segments : sequence of two (float, float) or None
        Where to listen in either recording, from and to [s]; by default everywhere.
    threshold : float, optional
        The user's own, of the cosine of the embeddings as they are. No error rate, ratio or probability belongs to it:
        they are None.

    Returns
    -------
    dict
        ``decision`` ('same speaker', 'different speakers', 'cannot tell'); ``cosine`` of the embeddings as they are;
        ``score``, which the threshold is of; ``log_likelihood_ratio`` (natural; no further from 0 than what was
        measured can tell); ``probability`` at the ``prior``; ``operating_point`` (``condition``; ``threshold`` of these
        two's score; ``threshold_of``, 'cosine' or 'compensated cosine', what that score is; the error rates measured
        there as [rate, low, high], list, numbers of trials); ``recordings`` (see `recordings.Recording.describe`);
        ``warnings``. Cosine, score, ratio and probability are None where it cannot be told.

    Raises
    ------
    RequestError
        A file cannot be decoded, an array is no recording, there is no such model, it has no calibration, the prior is
        no probability, the threshold no cosine, or nothing was measured at the wanted rate.
    WorkError
        The published encoder or the speech detector cannot be fetched.

    Examples
    --------
    >>> compare("monday.wav", "tuesday.m4a")["decision"]  # doctest: +SKIP
    'same speaker'
    """
    if not 0 < prior < 1:
        raise RequestError(f"the prior {prior:g} is no probability; give a number between 0 and 1, such as 0.5")
    names = "the first array", "the second array"
    with encoder.begun(model):
        heard = [recordings.hear(*side) for side in zip((first, second), names, segments)]
    judge = measured.judge(model, false_accept) if threshold is None else Own(threshold)
    answer: dict[str, Any] = dict.fromkeys(("decision", "cosine", "score", "log_likelihood_ratio", "probability"))
    answer["decision"], said = "cannot tell", list[str]()
    point = judge.point([recording.conditions for recording in heard])
    if all(recording.enough for recording in heard):
        found, said = _judged(judge, heard, model)
        point, unsure = found.point, bool(said) or any(recording.whispered for recording in heard)
        answer["decision"] = "same speaker" if found.accepted else "different speakers"
        answer |= {"cosine": found.cosine, "score": found.score} | _likelihood(found.ratio, unsure, prior)
    described = [recording.describe() for recording in heard]
    warned = [f"{item['file']}: {warning}" for item in described for warning in item.pop("warnings")]
    return {
        **answer,
        "prior": prior,
        "model": model,
        "operating_point": point,
        "recordings": described,
        "warnings": warned + said + near(answer["score"], point),
    }


def _judged(
    judge: measured.Judge | Own, heard: Sequence[recordings.Recording], model: str
) -> tuple[Judgement, list[str]]:
    """What a judge says of two recordings, and what makes that weak."""
    embeddings = encoder.of_voices(model, [recording.hearings for recording in heard])
    one, other = (Side(embedding, recording.conditions) for embedding, recording in zip(embeddings, heard))
    found, said = judge(one, other), []
    if np.array_equal(heard[0].speech, heard[1].speech):
        said = ["both hold the same speech, sample for sample: the answer is about one recording"]
    return found, [*said, *found.warnings, *(text for recording in heard for text in turns.warned(recording, model))]


def _likelihood(ratio: float, unsure: bool, prior: float) -> dict[str, float]:
    """Log-likelihood ratio, near to 0 where it is unsure, and the probability; none where no ratio was measured."""
    if math.isnan(ratio):
        return {}
    ratio = min(max(ratio, -UNSURE), UNSURE) if unsure else ratio
    logit = ratio + math.log(prior / (1 - prior))
    return {"log_likelihood_ratio": ratio, "probability": 1 / (1 + math.exp(-logit))}


def times(ratio: float) -> str:
    """
    Say how many times likelier a log-likelihood ratio makes one of both, in two digits.

    Examples
    --------
    >>> times(0.34), times(-3.6), times(9.1)
    ('1.4', '37', '9,000')
    """
    value = float(f"{math.exp(abs(ratio)):.2g}")
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def near(score: float | None, point: dict) -> list[str]:
    """
    Say in words that a compensated cosine lies so near its threshold that little would turn the answer.

    Examples
    --------
    >>> near(0.42, {"threshold": 0.40, "threshold_of": "compensated cosine"})
    ['the score lies within 0.03 of its threshold: a pause or some noise more could turn the answer']
    >>> near(0.44, {"threshold": 0.40, "threshold_of": "compensated cosine"})
    []
    """
    if score is None or point.get("threshold_of") != COMPENSATED or abs(score - point["threshold"]) > NEAR:
        return []
    return [f"the score lies within {NEAR:g} of its threshold: a pause or some noise more could turn the answer"]


def text(answer: dict) -> str:
    """Say the answer of `compare` in words."""
    lines = [answer["decision"]]
    point = answer["operating_point"]
    if answer["cosine"] is not None:
        lines.append(f"  {scored(answer, point)}, threshold {point['threshold']:.3f} ({answer['model']})")
    if (ratio := answer["log_likelihood_ratio"]) is not None:
        voices = "one voice" if ratio > 0 else "two voices"
        lines.append(
            f"  log-likelihood ratio {ratio:+.2f}: {times(ratio)} times likelier with {voices}; "
            f"probability of one voice {answer['probability']:.2%} at a prior of {answer['prior']:.1%}"
        )
    lines += [
        f"  {recordings.labelled(side['file'], side['segment'])}: {', '.join(side['chips'])}"
        for side in answer["recordings"]
    ]
    if ratio is not None:
        lines.append(f"  operating point {point['name']}: {rates(point)}; threshold from {point['threshold_from']}")
        lines.append(f"  {other_days(point)}")
    return "\n".join(lines + [f"  warning: {text}" for text in answer["warnings"]])


def scored(found: Mapping, point: Mapping) -> str:
    """
    Say what a threshold is compared with, and the cosine where that is something else.

    Parameters
    ----------
    found : mapping
        ``cosine`` and ``score``, as of `compare`.
    point : mapping
        The operating point.

    Examples
    --------
    >>> scored({"cosine": 0.5, "score": 0.5}, {"threshold_of": "cosine"})
    'cosine 0.500'
    >>> scored({"cosine": 0.262, "score": 0.109}, {"threshold_of": "compensated cosine"})
    'compensated cosine 0.109 (0.262 before channels were compensated)'
    """
    said = f"{point['threshold_of']} {found['score']:.3f}"
    before = f" ({found['cosine']:.3f} before channels were compensated)"
    return said if point["threshold_of"] == COSINE else said + before


def rates(point: dict) -> str:
    """Say the error rates of an operating point, and where they were measured."""
    accepted, missed = (_rate(*point[name]) for name in ("false_accept", "miss"))
    condition = f" under the condition {point['condition']}" if "condition" in point else ""
    return (
        f"{accepted} of different voices accepted, {missed} of same voices missed{condition} "
        f"({point['n_speakers']} {speakers(point)}; {point['n_target'] + point['n_nontarget']:,} trials)"
    )


def speakers(point: Mapping) -> str:
    """Say of whom an operating point was measured."""
    return point["list"] if point["list"].startswith("dev speakers") else f"speakers of list {point['list']}"


def other_days(point: dict) -> str:
    """Say what another day and another device cost, as far as it was measured."""
    found = [row for row in point.get("by_list", ()) if row["list"].endswith("another call")]
    if not found:
        return (
            "Both recordings of a voice were of one session there: between days, rooms and devices expect more errors."
        )
    return f"Of one voice in two telephone calls {_rate(*found[0]['miss'])} were missed ({found[0]['list']})."


def _rate(rate: float, low: float, high: float) -> str:
    """A rate with its interval; where no resample differs from it there is none."""
    return f"{rate:.1%} [{low:.1%}, {high:.1%}]" if low < high else f"{rate:.1%} (too few errors for an interval)"
