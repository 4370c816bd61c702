"""Embeddings to scores: unit length, means of groups, cosines of trials."""

from collections.abc import Sequence

import numpy as np

from sv_utils.base.errors import RequestError

TRIALS_PER_BLOCK = 512  # of cosine: two blocks of 512-d float32 stay in the cache


def normalise(embeddings: np.ndarray) -> np.ndarray:
    """
    Scale embeddings to unit length.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n, d)]

    Returns
    -------
    np.ndarray [shape=(n, d)]

    Raises
    ------
    RequestError
        If an embedding is zero or not finite.

    Examples
    --------
    >>> normalise(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    return embeddings / _lengths(embeddings)[:, None]


def _lengths(embeddings: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        raise RequestError(
            f"{bad.sum()} of {len(bad)} embeddings are zero or not finite, first that of row {int(np.argmax(bad))} "
            "(from 0); embed those recordings again or leave them out."
        )
    return lengths


def subtract_mean(embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """
    Move embeddings [shape=(n, d)] by the mean [shape=(d,)] of the training embeddings, and scale them to unit length.
    """
    return normalise(embeddings - mean)


def group_means(embeddings: np.ndarray, groups: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    One embedding a group: the mean of the group's unit vectors, scaled to unit length.

    It averages the crops of an utterance, the utterances that a speaker is enrolled with, and the utterances of each
    training speaker for the cohort of `cohort_statistics`.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n, d)]
    groups : sequence [shape=(n,)]
        Names or numbers.

    Returns
    -------
    names : np.ndarray [shape=(g,)]
        The groups, sorted.
    means : np.ndarray [shape=(g, d)]

    Examples
    --------
    >>> group_means(np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 5.0]]), ["b", "a", "b"])[0].tolist()
    ['a', 'b']
    """
    names, place = np.unique(groups, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(names)))
    return names, normalise(np.add.reduceat(normalise(embeddings)[order], starts))


def cosine(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray) -> np.ndarray:
    """
    Cosines of pairs of embeddings.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(m, d)]
        Of any length.
    enrol_rows, test_rows : np.ndarray of int [shape=(n,)]
        The pairs, as `trials.rows` returns them.

    Returns
    -------
    np.ndarray [shape=(n,)]

    Raises
    ------
    RequestError
        If an embedding is zero or not finite.
    """
    lengths = _lengths(embeddings)
    products = lengths[enrol_rows] * lengths[test_rows]
    scores = np.empty_like(products)
    order = np.argsort(enrol_rows, kind="stable")  # an enrolled utterance is fetched once for all of its trials
    pair = np.empty((2, TRIALS_PER_BLOCK, embeddings.shape[1]), embeddings.dtype)
    for start in range(0, len(scores), TRIALS_PER_BLOCK):
        block = order[start : start + TRIALS_PER_BLOCK]
        enrol, test = pair[:, : len(block)]
        # mode "wrap" writes straight into the block; rows out of range have been refused above
        np.take(embeddings, enrol_rows[block], axis=0, out=enrol, mode="wrap")
        np.take(embeddings, test_rows[block], axis=0, out=test, mode="wrap")
        scores[block] = np.einsum("ij,ij->i", enrol, test) / products[block]
    return scores
