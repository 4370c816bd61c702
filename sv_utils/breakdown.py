"""Where a system errs: operating points, calibration, error rates by group of trials, hardest trials."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sv_utils import metrics
from sv_utils.errors import RequestError

FALSE_ACCEPTS = (0.1, 0.05, 0.01, 0.001)  # wanted rates of different voices accepted
# Behind the name of a model: how its scores were made, where they are no plain cosines.
AS_NORM, QMF = " + AS-norm", " + AS-norm + QMF"


def base_and_scoring(system: str) -> tuple[str, str]:
    """
    Part the name of a system into its model and the kind of its scores.

    Examples
    --------
    >>> base_and_scoring("adacos + AS-norm + QMF")
    ('adacos', 'AS-norm, QMF')
    >>> base_and_scoring("adacos")
    ('adacos', 'cosine')
    """
    model, _, kind = system.partition(" + ")
    return model, kind.replace(" + ", ", ") or "cosine"


def judge(
    scores: np.ndarray,
    labels: np.ndarray,
    speakers: Sequence[np.ndarray],
    log_likelihood_ratios: np.ndarray | None,
    seed: int,
    replicates: int,
) -> dict:
    """
    Every figure of one system on one list, as ``metrics.json`` has them.

    Parameters
    ----------
    scores, labels : np.ndarray [shape=(n,)]
    speakers : sequence of two np.ndarray [shape=(n,)]
        Of the enrol and the test side.
    log_likelihood_ratios : np.ndarray [shape=(n,)] or None
        Calibrated scores, where there are such.
    seed, replicates : int
        Of `metrics.speaker_bootstrap`.

    Returns
    -------
    dict
        The figures of `metrics.evaluate`; ``eer_definitions``, from `metrics`; ``calibration``, of
        `calibration_figures`, None without ratios.
    """
    same, ratios = np.asarray(labels) == 1, log_likelihood_ratios
    options = {"log_likelihood_ratios": ratios, "seed": seed, "replicates": replicates}
    return metrics.evaluate(scores, labels, *speakers, **options) | {
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
        points[f"minDCF({p_target})"] = {"threshold": threshold, **_error_rates(target, nontarget, threshold)}
    return points


def _error_rates(target: np.ndarray, nontarget: np.ndarray, threshold: float) -> dict[str, float]:
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
        Of `metrics.speaker_bootstrap`.

    Returns
    -------
    list of dict
        Equal error first, then each wanted rate of `FALSE_ACCEPTS` that at least ten dev trials can show. ``name``,
        ``wanted`` (None for equal error), ``threshold``, what `origin` says, ``n_speakers``, ``n_target``,
        ``n_nontarget``, and ``false_accept`` and ``miss`` as [rate, low, high] of the 95 % interval over speakers.
    """
    dev_scores, dev_labels = (np.asarray(values) for values in dev)
    target, nontarget = (dev_scores[dev_labels == label] for label in (1, 0))
    chosen = [("equal error", None, metrics.eer(target, nontarget)[1])]
    for wanted in FALSE_ACCEPTS:
        threshold = metrics.threshold_at_p_fa(target, nontarget, wanted)[0]
        if wanted * len(nontarget) >= 10 and math.isfinite(threshold):
            chosen.append((f"false accepts {wanted:.1%}", wanted, threshold))
    labels = np.asarray(labels)
    voices = len(np.unique(np.concatenate([np.asarray(side) for side in speakers])))
    counts = {"n_speakers": voices, "n_target": int(np.sum(labels == 1)), "n_nontarget": int(np.sum(labels == 0))}
    points = []
    for name, wanted, threshold in chosen:
        rates = _rates_with_intervals(scores >= threshold, labels, speakers, voices, seed, replicates)
        points.append({"name": name, "wanted": wanted, "threshold": float(threshold), **origin, **counts, **rates})
    return points


def _rates_with_intervals(accepted, labels, speakers, n_speakers, seed, replicates) -> dict[str, list[float]]:
    """False acceptance and miss with 95 % intervals over speakers, of decisions instead of scores."""
    found = {}
    for name, kind, pick in (("false_accept", 0, lambda p_fa, _: p_fa[1]), ("miss", 1, lambda _, p_miss: p_miss[1])):
        rate = float(np.mean(accepted[labels == kind] != kind))
        options = {"replicates": replicates, "seed": seed, "statistic": pick}
        if accepted.all() or not accepted.any():  # decisions that are all alike
            found[name] = [rate, rate, rate]
            continue
        resampled = metrics.speaker_bootstrap(accepted.astype(float), labels, *speakers, **options)
        found[name] = [rate, *metrics.rate_interval(rate, resampled, n_speakers, int(np.sum(labels == kind)))]
    return found


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
    >>> [values.round(2).tolist() for values in reliability([2.0, 0.0], [-2.0, 0.0], bins=3)]
    [[0.12, 0.5, 0.88], [0.0, 0.5, 1.0]]
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
    return announced[total > 0] / total[total > 0], observed[total > 0] / total[total > 0]


def pair_groups(enrol: Iterable[str], test: Iterable[str]) -> np.ndarray:
    """
    Name the group of each trial by what is known of its two speakers.

    Parameters
    ----------
    enrol, test : iterable of str [shape=(n,)]
        Gender, nationality or language of the two sides; empty where not known.

    Returns
    -------
    np.ndarray of str [shape=(n,)]
        What both sides share; ``different``; or ``unknown`` where a side is not known.

    Examples
    --------
    >>> pair_groups(["f", "f", "m"], ["f", "m", ""]).tolist()
    ['f', 'different', 'unknown']
    """
    enrol, test = np.asarray(enrol, dtype=str), np.asarray(test, dtype=str)
    return np.where((enrol == "") | (test == ""), "unknown", np.where(enrol == test, enrol, "different"))


def by_group(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, speakers: Sequence[np.ndarray], threshold: float = 0.0
) -> list[dict]:
    """
    Error rates of groups of trials at one threshold for all.

    A group's own EER would hide what users meet: that one threshold misses some voices, or confuses them, more often.

    Parameters
    ----------
    scores : np.ndarray [shape=(n,)]
    labels : np.ndarray [shape=(n,)]
        1 for target, 0 for non-target trials.
    groups : np.ndarray of str [shape=(n,)]
    speakers : sequence of two np.ndarray [shape=(n,)]
        Of the enrol and the test side.
    threshold : float
        By default that of calibrated log-likelihood ratios at even prior and costs.

    Returns
    -------
    list of dict
        ``group, n_speakers, n_target, n_nontarget, p_fa, p_miss``, the largest group first; NaN where a group lacks
        such trials.
    """
    scores, labels, groups = np.asarray(scores), np.asarray(labels), np.asarray(groups)
    names, counts = np.unique(groups, return_counts=True)
    rows = []
    for name in names[np.argsort(-counts, kind="stable")].tolist():
        inside = groups == name
        target, nontarget = (scores[inside & (labels == label)] for label in (1, 0))
        voices = np.unique(np.concatenate([np.asarray(side)[inside] for side in speakers]))
        counted = {"group": name, "n_speakers": len(voices), "n_target": len(target), "n_nontarget": len(nontarget)}
        rows.append(counted | _error_rates(target, nontarget, threshold))
    return rows


def by_known(
    scores: np.ndarray,
    labels: np.ndarray,
    sides: Sequence[np.ndarray],
    speakers: Sequence[np.ndarray],
    known: Mapping[str, np.ndarray],
) -> list[dict]:
    """
    Error rates by what is known of the speakers, at the threshold 0 for all.

    Parameters
    ----------
    scores, labels : np.ndarray [shape=(n,)]
        As of `by_group`.
    sides : sequence of two np.ndarray of int [shape=(n,)]
        Utterances of the enrol and the test side.
    speakers : sequence of two np.ndarray [shape=(n,)]
    known : mapping of str to np.ndarray of str [shape=(m,)]
        By utterance: gender, nationality, …; what is the same everywhere is passed over.

    Returns
    -------
    list of dict
        The rows of `by_group`, each with ``by``, what was known.
    """
    rows = []
    for name, values in known.items():
        if len(np.unique(values)) > 1:
            groups = pair_groups(*(values[side] for side in sides))
            rows += [{"by": name} | row for row in by_group(scores, labels, groups, speakers)]
    return rows


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
    return {"eer": metrics.eer(target, nontarget)[0], **_error_rates(target, nontarget, threshold)}


def hardest(scores: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """
    Find the trials that are most wrong: the lowest target scores, then the highest non-target scores.

    Returns
    -------
    np.ndarray of int [shape=(at most 2 * count,)]
        Places, the worst of each kind first.

    Raises
    ------
    RequestError
        If `count` is below 1.

    Examples
    --------
    >>> hardest([0.9, 0.2, 0.4, 0.8], [1, 1, 0, 0], 1).tolist()
    [1, 3]
    """
    if count < 1:
        raise RequestError(f"the {count} hardest trials were asked for; ask for 1 or more.")
    scores, labels = np.asarray(scores), np.asarray(labels)
    order = np.argsort(scores, kind="stable")
    return np.concatenate([order[labels[order] == 1][:count], order[::-1][labels[order[::-1]] == 0][:count]])


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


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
