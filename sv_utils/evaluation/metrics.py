"""
Metrics of speaker verification, from scores alone.

A trial is accepted when its score is at or above the threshold. ``P_miss`` is the share of target trials rejected,
``P_fa`` the share of non-target trials accepted; both are fractions. Equal scores are always taken together, so that no
figure depends on the order of the trials.
"""

import math
from statistics import NormalDist

import numpy as np

from sv_utils.base.errors import RequestError


def validate(target: np.ndarray, nontarget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Check the scores of the two kinds of trials.

    Parameters
    ----------
    target, nontarget : array-like [shape=(n_target,)], [shape=(n_nontarget,)]
        Scores, the higher the more alike.

    Returns
    -------
    target, nontarget : np.ndarray [dtype=float64]

    Raises
    ------
    RequestError
        If a kind of trial is missing, or a score is not finite.
    """
    checked = []
    for name, scores in (("target", target), ("non-target", nontarget)):
        scores = np.asarray(scores, dtype=np.float64)
        if scores.ndim != 1 or not scores.size:
            raise RequestError(f"there is no {name} trial (scores of shape {scores.shape}); both kinds are needed.")
        if bad := int((~np.isfinite(scores)).sum()):
            raise RequestError(
                f"{bad} of {scores.size} {name} scores are NaN or infinite; correct the model or the score file."
            )
        checked.append(scores)
    return checked[0], checked[1]


def roc(target: np.ndarray, nontarget: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Operating points of all thresholds that differ.

    Returns
    -------
    p_fa, p_miss, thresholds : np.ndarray [shape=(k + 1,)]
        For the `k` distinct scores, rising, and for infinity: from everything accepted (1, 0) to everything rejected
        (0, 1).

    Examples
    --------
    >>> p_fa, p_miss, thresholds = roc([0.9, 0.4], [0.1, 0.4])
    >>> p_fa.tolist(), p_miss.tolist(), thresholds.tolist()
    ([1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 1.0], [0.1, 0.4, 0.9, inf])
    """
    rejected_target, rejected_nontarget, thresholds = _rejected(*validate(target, nontarget))
    p_fa = (rejected_nontarget[-1] - rejected_nontarget) / rejected_nontarget[-1]
    return p_fa, rejected_target / rejected_target[-1], thresholds


def _rejected(target: np.ndarray, nontarget: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of trials of either kind below each threshold of the ROC."""
    scores = np.concatenate([target, nontarget])
    order, ends = sort_scores(scores)
    is_target = order < len(target)
    rejected_target = np.concatenate([[0], np.cumsum(is_target)[ends]])
    rejected = np.concatenate([[0], ends + 1])
    return rejected_target, rejected - rejected_target, np.append(scores[order[ends]], np.inf)


def sort_scores(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of rising scores, and the place in it where each group of equal scores ends."""
    order = np.argsort(scores)
    ordered = scores[order]
    return order, np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(scores) - 1)


def eer_of_roc(p_fa: np.ndarray, p_miss: np.ndarray) -> float:
    """
    EER of operating points that are joined by straight lines: the value where P_miss = P_fa.

    Parameters
    ----------
    p_fa, p_miss : np.ndarray [shape=(k,)]
        From (1, 0) to (0, 1), as `roc` returns them.
    """
    after = int(np.argmax(p_miss >= p_fa))
    before = after - 1
    gap_before, gap_after = p_fa[before] - p_miss[before], p_miss[after] - p_fa[after]
    share = gap_before / (gap_before + gap_after)
    return float(p_miss[before] + share * (p_miss[after] - p_miss[before]))


def eer(target: np.ndarray, nontarget: np.ndarray) -> tuple[float, float]:
    """
    Equal error rate, and the score at which to cut.

    The EER is the point of the ROC (the operating points of all distinct thresholds, equal scores taken together,
    joined by straight lines) where P_miss = P_fa. A line between two points is what a random choice among equal
    scores attains, which makes the EER of a model whose scores are all equal 0.5.

    Returns
    -------
    eer : float
        Fraction in [0, 1].
    threshold : float
        Where a threshold attains the EER: the middle between the scores that it parts. Otherwise the one score whose
        trials would have to be divided.

    Examples
    --------
    >>> eer([0.9, 0.8, 0.7], [0.1, 0.2, 0.3])
    (0.0, 0.5)
    """
    p_fa, p_miss, thresholds = roc(target, nontarget)
    return eer_of_roc(p_fa, p_miss), eer_threshold(p_fa, p_miss, thresholds)


def eer_threshold(p_fa: np.ndarray, p_miss: np.ndarray, thresholds: np.ndarray) -> float:
    """Threshold of the equal error rate, in the middle between two scores; the arguments are those that `roc` gives."""
    after = int(np.argmax(p_miss >= p_fa))
    below, above = float(thresholds[after - 1]), float(thresholds[after])
    if p_miss[after] != p_fa[after]:
        return below
    middle = below / 2 + above / 2
    return middle if middle > below else above


def _hull(target: np.ndarray, nontarget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of target and of non-target trials rejected at the corners of the ROC's convex hull, by Andrew's scan."""
    rejected_target, rejected_nontarget, _ = _rejected(target, nontarget)
    points = _without_hollows(np.stack([rejected_nontarget, rejected_target]))
    corners: list[tuple[int, int]] = []
    for x, y in points.T.tolist():
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            corners.pop()
        corners.append((x, y))
    hull = np.array(corners)
    return hull[:, 1], hull[:, 0]


def _without_hollows(points: np.ndarray) -> np.ndarray:
    """
    Leave out points that are on or above the line between their neighbours: no corner of the lower hull is among them.

    All such at once, and again while that helps; the scan goes through what is left. Of 580,000 trials that saves a
    second.
    """
    while points.shape[1] > 1000:
        (x0, y0), (x1, y1), (x2, y2) = points[:, :-2], points[:, 1:-1], points[:, 2:]
        corner = (x1 - x0) * (y2 - y0) > (y1 - y0) * (x2 - x0)
        if 10 * corner.sum() > 9 * len(corner):
            break
        points = points[:, np.concatenate([[True], corner, [True]])]
    return points


def eer_rocch(target: np.ndarray, nontarget: np.ndarray) -> float:
    """
    EER of the ROC's convex hull: at most `eer`, and the largest Bayes error that optimal calibration leaves.

    Source: Brümmer and de Villiers, "The BOSARIS Toolkit User Guide" (2011), section 2.4.
    """
    rejected_target, rejected_nontarget = _hull(*validate(target, nontarget))
    return eer_of_roc(1 - rejected_nontarget / rejected_nontarget[-1], rejected_target / rejected_target[-1])


def eer_definitions(target: np.ndarray, nontarget: np.ndarray) -> dict[str, float | bool]:
    """
    The EER by each definition in circulation, side by side.

    Returns
    -------
    dict
        ``interpolated`` (`eer`), ``rocch`` (`eer_rocch`), and at the threshold where P_fa and P_miss differ least
        ``nearest_maximum``, the larger of them (voxceleb_trainer), and ``nearest_mean``, their mean (SpeechBrain);
        ``kaldi`` (compute-eer: target and non-target scores walked through in step); ``flagged``: two of them are
        more than 0.05 points apart, so that a figure needs its definition beside it.
    """
    p_fa, p_miss, _ = roc(target, nontarget)
    nearest = int(np.argmin(np.abs(p_miss - p_fa)))
    values = {
        "interpolated": eer_of_roc(p_fa, p_miss),
        "rocch": eer_rocch(target, nontarget),
        "nearest_maximum": float(max(p_fa[nearest], p_miss[nearest])),
        "nearest_mean": float((p_fa[nearest] + p_miss[nearest]) / 2),
        "kaldi": _eer_kaldi(*validate(target, nontarget)),
    }
    return {**values, "flagged": max(values.values()) - min(values.values()) > 0.0005}


def _eer_kaldi(target: np.ndarray, nontarget: np.ndarray) -> float:
    target, nontarget = np.sort(target), np.sort(nontarget)
    rank = np.arange(len(target))
    opposite = len(nontarget) - 1 - (len(nontarget) * rank / len(target)).astype(int)
    stops = nontarget[np.maximum(opposite, 0)] < target
    stops[-1] = True
    return float(np.argmax(stops) / len(target))


def detection_costs(p_fa: np.ndarray, p_miss: np.ndarray, p_target: float, c_miss: float, c_fa: float) -> np.ndarray:
    """Normalised detection cost of operating points."""
    if not 0 < p_target < 1 or c_miss <= 0 or c_fa <= 0:
        raise RequestError(
            f"p_target {p_target}, c_miss {c_miss}, c_fa {c_fa}: a prior lies between 0 and 1, costs above 0."
        )
    weight_miss, weight_fa = c_miss * p_target, c_fa * (1 - p_target)
    return (weight_miss * p_miss + weight_fa * p_fa) / min(weight_miss, weight_fa)


def min_dcf(
    target: np.ndarray, nontarget: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> tuple[float, float]:
    """
    Least normalised detection cost over all thresholds, and the threshold.

    ``DCF = (C_miss P_target P_miss + C_fa (1 - P_target) P_fa) / min(C_miss P_target, C_fa (1 - P_target))``, so that
    1 is what a system reaches that does not listen. Source: NIST, "2018 Speaker Recognition Evaluation Plan", section
    3.

    Returns
    -------
    cost : float
        In [0, 1].
    threshold : float
        Infinity where rejecting everything costs least.

    Raises
    ------
    RequestError
        If `p_target` is not between 0 and 1, or a cost is not above 0.
    """
    p_fa, p_miss, thresholds = roc(target, nontarget)
    costs = detection_costs(p_fa, p_miss, p_target, c_miss, c_fa)
    best = int(np.argmin(costs))
    return float(costs[best]), float(thresholds[best])


def act_dcf(
    target: np.ndarray, nontarget: np.ndarray, p_target: float, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """
    Normalised detection cost of log-likelihood ratios at the threshold of Bayes.

    The threshold is ``log(C_fa (1 - P_target) / (C_miss P_target))``; what the cost has above `min_dcf` is lost by
    calibration at this operating point.

    Parameters
    ----------
    target, nontarget : array-like
        Natural log-likelihood ratios.
    """
    target, nontarget = validate(target, nontarget)
    detection_costs(np.zeros(1), np.zeros(1), p_target, c_miss, c_fa)
    threshold = math.log(c_fa * (1 - p_target) / (c_miss * p_target))
    p_fa, p_miss = np.array([np.mean(nontarget >= threshold)]), np.array([np.mean(target < threshold)])
    return float(detection_costs(p_fa, p_miss, p_target, c_miss, c_fa)[0])


def threshold_at_p_fa(target: np.ndarray, nontarget: np.ndarray, p_fa: float) -> tuple[float, float, float]:
    """
    Lowest threshold that accepts at most the wanted share of non-target trials.

    Returns
    -------
    threshold, p_fa, p_miss : float
        The threshold (infinity where only rejecting everything will do) and the error rates that it has on these
        trials.
    """
    rates_fa, rates_miss, thresholds = roc(target, nontarget)
    first = int(np.argmax(rates_fa <= p_fa))
    return float(thresholds[first]), float(rates_fa[first]), float(rates_miss[first])


def cllr(target: np.ndarray, nontarget: np.ndarray) -> float:
    """
    Cost of log-likelihood ratios [bit]: 0 is perfect, 1 is what answers of "I do not know" (all 0) cost.

    Source: Brümmer and du Preez, "Application-independent evaluation of speaker detection" (2006), equation 17.

    Parameters
    ----------
    target, nontarget : array-like
        Natural log-likelihood ratios; for scores on another scale (a cosine) the figure means nothing.
    """
    target, nontarget = validate(target, nontarget)
    return float((np.logaddexp(0, -target).mean() + np.logaddexp(0, nontarget).mean()) / (2 * math.log(2)))


def cllr_min(target: np.ndarray, nontarget: np.ndarray) -> float:
    """
    Cllr [bit] after the best rising map of scores to log-likelihood ratios: what the scores can tell at all.

    The map comes from pool-adjacent-violators, whose pools are the sides of the ROC's convex hull. ``cllr -
    cllr_min`` is the loss by calibration. Source: Brümmer and du Preez (2006), section 5.
    """
    rejected_target, rejected_nontarget = _hull(*validate(target, nontarget))
    cost = 0.0
    for rejected, other in ((rejected_target, rejected_nontarget), (rejected_nontarget, rejected_target)):
        share, other_share = np.diff(rejected) / rejected[-1], np.diff(other) / other[-1]
        pooled = share > 0  # a pool without such trials costs them nothing
        cost += float(share[pooled] @ np.log2(1 + other_share[pooled] / share[pooled]))
    return cost / 2


def probit(p: np.ndarray) -> np.ndarray:
    """
    Quantile of the standard normal distribution; infinite at 0 and 1.

    Source: Wichura, "Algorithm AS 241" (1988), as the standard library has it.
    """
    p = np.asarray(p, dtype=np.float64)
    result = np.where(p > 0.5, np.inf, -np.inf)
    inside = (p > 0) & (p < 1)
    result[inside] = list(map(NormalDist().inv_cdf, p[inside].tolist()))
    return result


def det(target: np.ndarray, nontarget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Points of the detection error trade-off, on probit axes.

    Source: Martin et al., "The DET curve in assessment of detection task performance" (1997).

    Returns
    -------
    x, y : np.ndarray [shape=(k,)]
        Probits of P_fa and P_miss at the corners of the ROC (points inside a straight piece say nothing), as far as
        both rates lie between 0 and 1. Empty where the scores part the trials without error.
    """
    p_fa, p_miss, _ = roc(target, nontarget)
    step_fa, step_miss = np.diff(p_fa) != 0, np.diff(p_miss) != 0
    turns = (step_fa[1:] != step_fa[:-1]) | (step_miss[1:] != step_miss[:-1]) | (step_fa[1:] & step_miss[1:])
    corner = np.concatenate([[True], turns, [True]]) & (p_fa > 0) & (p_fa < 1) & (p_miss > 0) & (p_miss < 1)
    return probit(p_fa[corner]), probit(p_miss[corner])
