"""Do two recordings hold one voice?"""

import math
import os

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.voices import encoder, measured, recordings


def compare(
    first: str | os.PathLike,
    second: str | os.PathLike,
    model: str = "campplus",
    prior: float = 0.5,
    false_accept: float | None = None,
) -> dict:
    """
    Say whether one voice speaks in two recordings.

    Parameters
    ----------
    first, second : path
        Audio files of any format, rate and length up to an hour.
    model : str
        A published encoder, or the ``.keras`` file of a training that ``08_evaluate`` has judged.
    prior : float
        Probability of one voice before the recordings are heard.
    false_accept : float, optional
        Wanted share of different voices accepted, of those that were measured; by default the threshold is that of
        equal error.

    Returns
    -------
    dict
        ``decision`` ('same speaker', 'different speakers', 'cannot tell'); ``cosine``; ``log_likelihood_ratio``
        (natural; no further from 0 than the calibration's number of trials can tell); ``probability`` at the
        ``prior``; ``operating_point`` (threshold of the cosine, and the error rates measured there as [rate, low,
        high], list, numbers of trials); ``recordings``; ``warnings``. Cosine, ratio and probability are None where it
        cannot be told.

    Raises
    ------
    RequestError
        A file cannot be decoded, there is no such model, it has no calibration, the prior is no probability, or
        nothing was measured at the wanted rate.
    WorkError
        The published encoder cannot be fetched.

    Examples
    --------
    >>> compare("monday.wav", "tuesday.m4a")["decision"]  # doctest: +SKIP
    'same speaker'
    """
    if not 0 < prior < 1:
        raise RequestError(f"the prior {prior:g} is no probability; give a number between 0 and 1, such as 0.5")
    decoded = [recordings.decode(file) for file in (first, second)]
    described = [recordings.describe(file, sound) for file, sound in zip((first, second), decoded)]
    calibration, point = measured.known(model, false_accept)
    answer = {"decision": "cannot tell", "cosine": None, "log_likelihood_ratio": None, "probability": None}
    if min(recording["speech_seconds"] for recording in described) >= recordings.SHORTEST:
        cosine = float(np.clip(np.dot(*encoder.embeddings(model, [sound.samples for sound in decoded])), -1, 1))
        ratio = measured.limited(float(calibration(np.array([cosine]))[0]), calibration)
        logit = ratio + math.log(prior / (1 - prior))
        answer = {
            "decision": "same speaker" if cosine >= point["threshold"] else "different speakers",
            "cosine": cosine,
            "log_likelihood_ratio": ratio,
            "probability": 1 / (1 + math.exp(-logit)),
        }
    said = [f"{item['file']}: {warning}" for item in described for warning in item.pop("warnings")]
    return {
        **answer,
        "prior": prior,
        "model": model,
        "operating_point": point,
        "recordings": described,
        "warnings": said,
    }


def text(answer: dict) -> str:
    """Say the answer of `compare` in words."""
    lines = [answer["decision"]]
    point = answer["operating_point"]
    if answer["cosine"] is not None:
        ratio = answer["log_likelihood_ratio"]
        voices = "one voice" if ratio > 0 else "two voices"
        lines.append(f"  cosine {answer['cosine']:.3f}, threshold {point['threshold']:.3f} ({answer['model']})")
        lines.append(
            f"  log-likelihood ratio {ratio:+.2f}: {math.exp(abs(ratio)):,.0f} times likelier with {voices}; "
            f"probability of one voice {answer['probability']:.2%} at a prior of {answer['prior']:.1%}"
        )
    rates = [_rate(*point[name]) for name in ("false_accept", "miss")]
    lines.append(
        f"  operating point {point['name']}: {rates[0]} of different voices accepted, {rates[1]} of same voices missed "
        f"on list {point['list']} ({point['n_speakers']} speakers, {point['n_target'] + point['n_nontarget']:,} "
        f"trials); threshold from {point['threshold_from']}"
    )
    return "\n".join(lines + [f"  warning: {text}" for text in answer["warnings"]])


def _rate(rate: float, low: float, high: float) -> str:
    """A rate with its interval; where no resample differs from it there is none."""
    return f"{rate:.1%} [{low:.1%}, {high:.1%}]" if low < high else f"{rate:.1%} (too few errors for an interval)"
