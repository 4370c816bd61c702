"""Score normalisation by a cohort of other speakers (AS-norm)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.scoring import cosine, group_means, normalise, subtract_mean

SCORES_PER_BLOCK = 16_000_000  # of scores against a cohort: 64 MB


def cohort_statistics(
    embeddings: np.ndarray, cohort: np.ndarray, top_k: int | None = 300
) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean and standard deviation of each embedding's scores against its nearest neighbours in a cohort.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n, d)]
    cohort : np.ndarray [shape=(c, d)]
        Embeddings of training speakers (`group_means`) or utterances, none of them of a speaker under test.
    top_k : int or None
        Neighbours taken, all of the cohort if it has fewer; None: always all, which makes `score_norm` the S-norm.

    Returns
    -------
    mean, deviation : np.ndarray [shape=(n,)]

    Raises
    ------
    RequestError
        If an embedding is zero or not finite, or the cohort's scores do not differ.
    """
    cohort = normalise(cohort).T
    first = max(cohort.shape[1] - (top_k or cohort.shape[1]), 0)
    mean, deviation = np.empty((2, len(embeddings)), dtype=cohort.dtype)
    rows_per_block = max(SCORES_PER_BLOCK // cohort.shape[1], 1)
    for start in range(0, len(embeddings), rows_per_block):
        block = slice(start, start + rows_per_block)
        scores = normalise(embeddings[block]) @ cohort
        if first:
            scores.partition(first, axis=1)
        nearest = scores[:, first:]
        mean[block], deviation[block] = nearest.mean(axis=1), nearest.std(axis=1)
    if not np.all(deviation > 0):
        raise RequestError(
            f"the nearest {cohort.shape[1] - first} of the cohort give equal scores; take a larger cohort."
        )
    return mean, deviation


def score_norm(
    scores: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """
    Normalise scores by both sides' scores against a cohort: ``((s - mean_e) / sd_e + (s - mean_t) / sd_t) / 2``.

    With the nearest of the cohort this is the AS-norm (its variant 1: each side has its own neighbours), with all of
    it the S-norm. Source: Matějka et al., "Analysis of score normalization in multilingual speaker recognition"
    (2017).

    Parameters
    ----------
    scores, enrol_rows, test_rows : np.ndarray [shape=(n,)]
        As of `cosine`.
    mean, deviation : np.ndarray [shape=(m,)]
        By embedding, from `cohort_statistics`.

    Returns
    -------
    np.ndarray [shape=(n,)]
    """
    sides = [(scores - mean[rows]) / deviation[rows] for rows in (enrol_rows, test_rows)]
    return (sides[0] + sides[1]) / 2


@dataclass(frozen=True, eq=False)
class Cohort:
    """
    Training speakers that scores are normalised against.

    Attributes
    ----------
    mean : np.ndarray [shape=(d,)]
        Of the training embeddings; it is taken from every embedding.
    speakers : np.ndarray [shape=(c, d)]
        A unit vector for each training speaker.
    top_k : int
        Nearest of them that count for an embedding.
    """

    mean: np.ndarray
    speakers: np.ndarray
    top_k: int

    @classmethod
    def of(cls, embeddings: np.ndarray, speakers: Sequence | np.ndarray, top_k: int = 300) -> "Cohort":
        """Build the cohort of training utterances [shape=(n, d)] and their speakers' names [shape=(n,)]."""
        mean = embeddings.mean(axis=0)
        return cls(mean, group_means(subtract_mean(embeddings, mean), speakers)[1], top_k)

    def __len__(self) -> int:
        return len(self.speakers)

    def place(self, embeddings: np.ndarray) -> "Placed":
        """Take the mean from embeddings [shape=(m, d)], and ask the cohort about each: once for any number of lists."""
        centred = subtract_mean(embeddings, self.mean)
        return Placed(centred, *cohort_statistics(centred, self.speakers, self.top_k))

    def as_norm(
        self, embeddings: "np.ndarray | Placed", enrol_rows: np.ndarray, test_rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Score trials with AS-norm, after the mean is taken away.

        Parameters
        ----------
        embeddings : np.ndarray [shape=(m, d)] or Placed
            What `place` made of them where several lists are scored.
        enrol_rows, test_rows : np.ndarray [shape=(n,)]

        Returns
        -------
        scores : np.ndarray [shape=(n,)]
            See `score_norm`.
        cohort_mean : np.ndarray [shape=(m,)]
            Mean score of each embedding against its nearest of the cohort, a measure of quality.
        """
        placed = embeddings if isinstance(embeddings, Placed) else self.place(embeddings)
        cosines = cosine(placed.centred, enrol_rows, test_rows)
        return score_norm(cosines, enrol_rows, test_rows, placed.mean, placed.deviation), placed.mean


@dataclass(frozen=True, eq=False)
class Placed:
    """
    Embeddings seen from a cohort.

    Attributes
    ----------
    centred : np.ndarray [shape=(m, d)]
        Of unit length, the cohort's mean taken away.
    mean, deviation : np.ndarray [shape=(m,)]
        See `cohort_statistics`.
    """

    centred: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
