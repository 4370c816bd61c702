"""Error rates of groups of people, and the hardest trials."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.judging import error_rates


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
        rows.append(counted | error_rates(target, nontarget, threshold))
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
