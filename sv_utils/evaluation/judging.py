"""All figures of a list of scores: error rates, operating points, calibration."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sv_utils.evaluation import metrics
from sv_utils.evaluation.intervals import rate_interval
from sv_utils.evaluation.metrics import cllr, cllr_min, detection_costs, eer_of_roc, eer_threshold, roc, validate
from sv_utils.evaluation.resampling import Resamples

FALSE_ACCEPTS = (0.1, 0.05, 0.01, 0.001)  # wanted rates of different voices accepted


def judge(
    scores: np.ndarray, labels: np.ndarray, log_likelihood_ratios: np.ndarray | None, resamples: Resamples
) -> dict:
    """
    Every figure of one system on one list, as ``metrics.json`` has them.

    Parameters
    ----------
    scores, labels : np.ndarray [shape=(n,)]
    log_likelihood_ratios : np.ndarray [shape=(n,)] or None
        Calibrated scores, where there are such.
    resamples : Resamples
        Of the speakers of the list, drawn once for all systems.

    Returns
    -------
    dict
        The figures of `evaluate`; ``eer_definitions``, from `metrics`; ``calibration``, of
        `calibration_figures`, None without ratios.
    """
    same, ratios = np.asarray(labels) == 1, log_likelihood_ratios
    return evaluate(scores, labels, log_likelihood_ratios=ratios, resamples=resamples) | {
        "eer_definitions": metrics.eer_definitions(scores[same], scores[~same]),
        "calibration": None if ratios is None else calibration_figures(ratios[same], ratios[~same]),
    }


def operating_points(target: np.ndarray, nontarget: np.ndarray) -> dict[str, dict[str, float]]:
    """
    Thresholds worth a mark on the DET curve.

    Returns
    -------
    dict
        ``EER``, ``minDCF(0.01)`` and ``minDCF(0.05)``, each with ``threshold``, ``p_fa`` and ``p_miss``. At the EER
        both rates are the interpolated EER, which no single threshold need attain.

    Examples
    --------
    >>> operating_points([0.9, 0.8, 0.7], [0.1, 0.2, 0.3])["EER"]
    {'threshold': 0.5, 'p_fa': 0.0, 'p_miss': 0.0}
    """
    target, nontarget = metrics.validate(target, nontarget)
    rate, threshold = metrics.eer(target, nontarget)
    points = {"EER": {"threshold": threshold, "p_fa": rate, "p_miss": rate}}
    for p_target in (0.01, 0.05):
        threshold = metrics.min_dcf(target, nontarget, p_target)[1]
        points[f"minDCF({p_target})"] = {"threshold": threshold, **error_rates(target, nontarget, threshold)}
    return points


def error_rates(target: np.ndarray, nontarget: np.ndarray, threshold: float) -> dict[str, float]:
    """P_fa and P_miss at a threshold; NaN where there is no such trial."""
    p_fa = float(np.mean(nontarget >= threshold)) if len(nontarget) else math.nan
    return {"p_fa": p_fa, "p_miss": float(np.mean(target < threshold)) if len(target) else math.nan}


def decision_points(
    dev: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    labels: np.ndarray,
    speakers: Sequence[np.ndarray],
    origin: Mapping[str, str],
    seed: int = 0,
    replicates: int = 1000,
    resamples: Resamples | None = None,
) -> list[dict]:
    """
    Thresholds to decide with, chosen on dev speakers, and the error rates measured there on an evaluation list.

    Parameters
    ----------
    dev : tuple of two np.ndarray
        Scores and labels (1 target, 0 non-target) of trials between dev speakers.
    scores, labels : np.ndarray [shape=(n,)]
        Of the evaluation list.
    speakers : sequence of two np.ndarray [shape=(n,)]
        Of the enrol and the test side.
    origin : mapping of str to str
        ``threshold_from`` and ``list``, for the reader.
    seed, replicates : int
        Of `intervals.speaker_bootstrap`.
    resamples : Resamples, optional
        The same, drawn once for all systems of the list.

    Returns
    -------
    list of dict
        Equal error first, then each wanted rate of `FALSE_ACCEPTS` that at least ten dev trials can show. ``name``,
        ``wanted`` (None for equal error), ``threshold``, what `origin` says, ``n_speakers``, ``n_target``,
        ``n_nontarget``, and ``false_accept`` and ``miss`` as [rate, low, high] of the 95 % interval over speakers.
    """
    dev_scores, dev_labels = (np.asarray(values) for values in dev)
    target, nontarget = (dev_scores[dev_labels == label] for label in (1, 0))
    chosen: list[tuple[str, float | None, float]] = [("equal error", None, metrics.eer(target, nontarget)[1])]
    for rate in FALSE_ACCEPTS:
        threshold = metrics.threshold_at_p_fa(target, nontarget, rate)[0]
        if rate * len(nontarget) >= 10 and math.isfinite(threshold):
            chosen.append((f"false accepts {rate:.1%}", rate, threshold))
    labels, resamples = np.asarray(labels), resamples or Resamples.draw(speakers[0], speakers[1], replicates, seed)
    counts = {"n_speakers": resamples.n_speakers, "n_target": int(np.sum(labels == 1))}
    counts["n_nontarget"] = int(np.sum(labels == 0))
    rates = _rates_at([threshold for *_, threshold in chosen], scores, labels, resamples)
    return [
        {"name": name, "wanted": wanted, "threshold": float(threshold), **origin, **counts, **found}
        for (name, wanted, threshold), found in zip(chosen, rates, strict=True)
    ]


def rates_with_intervals(
    accepted: np.ndarray,
    labels: np.ndarray,
    speakers: Sequence[np.ndarray],
    seed: int = 0,
    replicates: int = 1000,
) -> dict[str, list[float]]:
    """
    False acceptance and miss with 95 % intervals over speakers, of decisions instead of scores.

    Parameters
    ----------
    accepted : np.ndarray of bool [shape=(n,)]
    labels : np.ndarray [shape=(n,)]
        1 for target, 0 for non-target trials; both kinds are there.
    speakers : sequence of two np.ndarray [shape=(n,)]
    seed, replicates : int

    Returns
    -------
    dict
        ``false_accept`` and ``miss``, each [rate, low, high].
    """
    resamples = Resamples.draw(speakers[0], speakers[1], replicates, seed)
    return _rates_at([1.0], np.asarray(accepted, float), np.asarray(labels), resamples)[0]


def _rates_at(
    thresholds: Sequence[float], scores: np.ndarray, labels: np.ndarray, resamples: Resamples
) -> list[dict[str, list[float]]]:
    """`rates_with_intervals` of the decisions at each threshold; the trials are weighed once for all of them."""
    resampled = _resampled_rates(thresholds, scores, labels, resamples)
    found = []
    for threshold, rates in zip(thresholds, resampled, strict=True):
        accepted, row = scores >= threshold, {}
        for (name, kind), values in zip((("false_accept", 0), ("miss", 1)), rates, strict=True):
            rate = float(np.mean(accepted[labels == kind] != kind))
            row[name] = [rate, *rate_interval(rate, values, resamples.n_speakers, int(np.sum(labels == kind)))]
        found.append(row)
    return found


def _resampled_rates(
    thresholds: Sequence[float], scores: np.ndarray, labels: np.ndarray, resamples: Resamples
) -> np.ndarray:
    """P_fa and P_miss at each threshold [shape=(thresholds, 2, replicates)]; NaN where a kind of trial is missing."""
    levels = np.asarray(thresholds, np.result_type(scores, 0.0))
    passed = np.searchsorted(np.sort(levels), scores, side="right")  # so many thresholds accept a trial
    order = np.argsort(passed, kind="stable")
    rejected = []
    for kind in (0, 1):
        trials = order[labels[order] == kind]
        starts = np.searchsorted(passed[trials], np.arange(len(levels) + 1))
        rejected.append(np.cumsum(resamples.counts(trials, starts), axis=0))
    n_nontarget, n_target = rejected[0][-1], rejected[1][-1]
    known = (n_nontarget > 0) & (n_target > 0)
    rates = np.full((len(levels), 2, len(known)), np.nan)
    at = np.argsort(np.argsort(levels, kind="stable"))
    rates[:, 0, known] = ((n_nontarget - rejected[0][at]) / np.maximum(n_nontarget, 1))[:, known]
    rates[:, 1, known] = (rejected[1][at] / np.maximum(n_target, 1))[:, known]
    return rates


def calibration_figures(target: np.ndarray, nontarget: np.ndarray) -> dict[str, float]:
    """
    What calibrated log-likelihood ratios cost beside the least that their order allows.

    Parameters
    ----------
    target, nontarget : array-like
        Natural log-likelihood ratios.

    Returns
    -------
    dict
        ``cllr``, ``cllr_min`` and their difference ``calibration_loss`` [bit]; ``act_dcf_001, min_dcf_001,
        act_dcf_005, min_dcf_005`` (see `metrics`).
    """
    cllr, least = metrics.cllr(target, nontarget), metrics.cllr_min(target, nontarget)
    figures = {"cllr": cllr, "cllr_min": least, "calibration_loss": cllr - least}
    for name, p_target in (("001", 0.01), ("005", 0.05)):
        figures[f"act_dcf_{name}"] = metrics.act_dcf(target, nontarget, p_target)
        figures[f"min_dcf_{name}"] = metrics.min_dcf(target, nontarget, p_target)[0]
    return figures


def reliability(target: np.ndarray, nontarget: np.ndarray, bins: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """
    Probabilities as announced and as observed.

    A log-likelihood ratio announces, at even prior, that a trial is a target trial with the probability
    ``1 / (1 + exp(-llr))``. The trials are parted into bins of equally many; target and non-target trials weigh as at
    even prior. Source: DeGroot and Fienberg, "The comparison and evaluation of forecasters" (1983).

    Parameters
    ----------
    target, nontarget : array-like
        Natural log-likelihood ratios.
    bins : int
        Wanted bins; equal ratios share one, so that there may be fewer.

    Returns
    -------
    announced, observed : np.ndarray [shape=(at most bins,)]
        Mean probability, and share of target trials, of each bin.

    Examples
    --------
    Three bins are wanted; the two ratios of 0 must share one, with that of -2 here, so that there are two:

    >>> announced, observed = reliability([2.0, 0.0], [-2.0, 0.0], bins=3)
    >>> announced.round(2).tolist(), observed.round(2).tolist()
    ([0.37, 0.88], [0.33, 1.0])
    """
    target, nontarget = metrics.validate(target, nontarget)
    ratios = np.concatenate([target, nontarget])
    is_target = np.arange(len(ratios)) < len(target)
    weight = np.where(is_target, 1 / len(target), 1 / len(nontarget))
    edges = np.unique(np.quantile(ratios, np.arange(1, bins) / bins, method="lower"))
    place = np.searchsorted(edges, ratios, side="left")
    probability = np.exp(-np.logaddexp(0, -ratios))
    total = np.bincount(place, weight)
    announced, observed = (np.bincount(place, weight * values) for values in (probability, is_target))
    return announced / total, observed / total  # no bin is empty: each edge is a ratio


def at_threshold(scores: np.ndarray, labels: np.ndarray, threshold: float = 0.0) -> dict[str, float]:
    """
    EER of scores, and their error rates at a threshold that was set elsewhere.

    Returns
    -------
    dict
        ``eer, p_fa, p_miss``.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    target, nontarget = metrics.validate(scores[labels == 1], scores[labels == 0])
    return {"eer": metrics.eer(target, nontarget)[0], **error_rates(target, nontarget, threshold)}


def to_json(figures: dict | list) -> str:
    """
    Turn figures into JSON; NaN and infinity, which JSON lacks, become null.

    Examples
    --------
    >>> print(to_json([{"cllr": float("nan")}]))
    [
     {
      "cllr": null
     }
    ]
    """
    return json.dumps(_finite(figures), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    enrol_speakers: np.ndarray | None = None,
    test_speakers: np.ndarray | None = None,
    *,
    log_likelihood_ratios: np.ndarray | None = None,
    seed: int = 0,
    replicates: int = 1000,
    resamples: Resamples | None = None,
) -> dict[str, float]:
    """
    Every figure of one system on one list, as ``results.csv`` has them.

    Parameters
    ----------
    scores : np.ndarray [shape=(n,)]
    labels : np.ndarray [shape=(n,)]
        1 for target, 0 for non-target trials.
    enrol_speakers, test_speakers : np.ndarray [shape=(n,)], optional
        Speakers of the two sides; without them, or resamples, there is no interval.
    log_likelihood_ratios : np.ndarray [shape=(n,)], optional
        Calibrated log-likelihood ratios of the same trials (the scores themselves, if they are that); without them
        Cllr has no meaning. Cllr_min needs the order of the scores only.
    seed, replicates : int
        Of `intervals.speaker_bootstrap`.
    resamples : Resamples, optional
        The same, drawn once for all systems of the list.

    Returns
    -------
    dict
        ``n_target, n_nontarget, n_speakers``; ``eer`` with its 95 % interval ``eer_low, eer_high`` over speakers and
        its ``threshold``; ``min_dcf_001, min_dcf_005`` (P_target 0.01 and 0.05, costs 1); ``cllr, cllr_min`` [bit].
        NaN where not known.

    Raises
    ------
    RequestError
        As `validate`.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    target, nontarget = validate(scores[labels == 1], scores[labels != 1])
    p_fa, p_miss, thresholds = roc(target, nontarget)
    error_rate, low, high, n_speakers = eer_of_roc(p_fa, p_miss), math.nan, math.nan, math.nan
    if resamples is None and enrol_speakers is not None and test_speakers is not None:
        resamples = Resamples.draw(enrol_speakers, test_speakers, replicates, seed)
    if resamples is not None:
        n_speakers, resampled = resamples.n_speakers, resamples.eers(scores, labels)
        low, high = rate_interval(error_rate, resampled, n_speakers, min(len(target), len(nontarget)))
    ratios = None if log_likelihood_ratios is None else np.asarray(log_likelihood_ratios)
    return {
        "n_target": len(target),
        "n_nontarget": len(nontarget),
        "n_speakers": n_speakers,
        "eer": error_rate,
        "eer_low": low,
        "eer_high": high,
        "threshold": eer_threshold(p_fa, p_miss, thresholds),
        "min_dcf_001": float(detection_costs(p_fa, p_miss, 0.01, 1, 1).min()),
        "min_dcf_005": float(detection_costs(p_fa, p_miss, 0.05, 1, 1).min()),
        "cllr": math.nan if ratios is None else cllr(ratios[labels == 1], ratios[labels != 1]),
        "cllr_min": cllr_min(target, nontarget),
    }
