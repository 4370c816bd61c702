"""
Speakers drawn with replacement, and what the trials of a list weigh under each draw.

All weights are whole numbers, so that no sum depends on its order: counts of many trials at once, of one draw after
the other, or of the few trials around the point of equal error are the same to the last digit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sv_utils.evaluation.metrics import sort_scores, validate

TRIALS_PER_BLOCK = 256  # weighed at once under all draws: with 1,000 draws the block stays in the cache
TRIALS_PER_BIN = 1024  # counted as one before the point of equal error is looked for among them


@dataclass(frozen=True, eq=False)
class Resamples:
    """
    Draws of a list's speakers, the same for all systems and thresholds.

    Attributes
    ----------
    first, second : np.ndarray of int [shape=(n,)]
        Rows of `copies` whose product a trial weighs: its two speakers, or its speaker and the last row, of ones.
    copies : np.ndarray of int [shape=(speakers + 1, replicates)]
        How often each draw holds each speaker.
    """

    first: np.ndarray
    second: np.ndarray
    copies: np.ndarray

    @classmethod
    def draw(
        cls, enrol_speakers: np.ndarray, test_speakers: np.ndarray, replicates: int = 1000, seed: int = 0
    ) -> "Resamples":
        """
        Draw as many speakers as there are, with replacement.

        Parameters
        ----------
        enrol_speakers, test_speakers : np.ndarray [shape=(n,)]
            Of the two sides of each trial, as names or numbers.
        replicates : int
            Draws.
        seed : int
        """
        enrol, test, count = _speaker_codes(enrol_speakers, test_speakers)
        rng = np.random.default_rng(seed)
        drawn = np.ones((count + 1, replicates), int)
        for column in range(replicates):
            drawn[:count, column] = np.bincount(rng.integers(count, size=count), minlength=count)
        smallest = np.min_scalar_type(int(drawn.max(initial=1)) ** 2)  # the product of two still fits: mostly a byte
        return cls(enrol, np.where(enrol == test, count, test), drawn.astype(smallest))

    @property
    def n_speakers(self) -> int:
        """How many speakers the list has."""
        return len(self.copies) - 1

    def each(self, trials: np.ndarray) -> Iterator[np.ndarray]:
        """Weights of the trials at these places [shape=(k,)], one draw after the other."""
        first, second = self.first[trials], self.second[trials]
        for drawn in self.copies.T.astype(int):
            yield drawn[first] * drawn[second]

    def counts(self, trials: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """
        Sum the weights of trials that follow each other.

        Parameters
        ----------
        trials : np.ndarray of int [shape=(k,)]
            Places of trials.
        starts : np.ndarray of int [shape=(b,)]
            Where in `trials` each part begins, rising; a part may be empty.

        Returns
        -------
        np.ndarray of int [shape=(b, replicates)]
        """
        sums = np.zeros((len(starts), self.copies.shape[1]), np.int64)
        for row, (start, stop) in enumerate(zip(starts, [*starts[1:], len(trials)], strict=True)):
            for begin in range(start, stop, TRIALS_PER_BLOCK):
                block = trials[begin : min(begin + TRIALS_PER_BLOCK, stop)]
                sums[row] += self._weights(block).sum(axis=0, dtype=np.int32)
        return sums

    def _weights(self, trials: np.ndarray, draws: np.ndarray | slice = slice(None)) -> np.ndarray:
        return self.copies[self.first[trials]][:, draws] * self.copies[self.second[trials]][:, draws]

    def eers(self, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """
        Work out the EER of `metrics.eer_of_roc` under all draws.

        The trials are sorted and counted in bins once; of each draw only the bin in which P_miss reaches P_fa is gone
        through trial by trial.

        Returns
        -------
        np.ndarray [shape=(replicates,)]
            NaN where a draw holds one kind of trial only.
        """
        scores, is_target = np.asarray(scores), np.asarray(labels) == 1
        validate(scores[is_target], scores[~is_target])
        order, ends = sort_scores(scores)
        stops = _bins(ends)
        rejected = np.stack([self._rejected(order, stops, kind) for kind in (is_target, ~is_target)])
        total = rejected[:, -1]
        known = np.flatnonzero(total.all(axis=0))
        result = np.full(self.copies.shape[1], np.nan)
        crossed = np.argmax(_gaps(rejected[:, :, known], total[:, known]) >= 0, axis=0)
        for place in np.unique(crossed):
            draws = known[crossed == place]
            inside = slice(stops[place - 1], stops[place])
            points = ends[np.searchsorted(ends, inside.start) : np.searchsorted(ends, inside.stop)] - inside.start
            before, after = rejected[:, place - 1, draws], rejected[:, place, draws]
            if len(points) > 1:
                weights = self._weights(order[inside], draws)
                kinds = is_target[order[inside], None]
                passed = np.stack([np.cumsum(weights * kind, axis=0, dtype=np.int64) for kind in (kinds, ~kinds)])
                between = before[:, None] + passed[:, points]
            else:  # equal scores
                between = after[:, None]
            result[draws] = _equal_error(np.concatenate([before[:, None], between], axis=1), total[:, draws])
        return result

    def _rejected(self, order: np.ndarray, stops: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """Weights of the trials of a kind below each stop [shape=(stops, replicates)]."""
        chosen = kind[order]
        starts = np.concatenate([[0], np.cumsum(chosen)])[stops[:-1]]
        counted = self.counts(order[chosen], starts)
        return np.concatenate([np.zeros_like(counted[:1]), np.cumsum(counted, axis=0)])


def _speaker_codes(enrol_speakers: np.ndarray, test_speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    enrol, test = np.asarray(enrol_speakers).tolist(), np.asarray(test_speakers).tolist()
    code = {name: number for number, name in enumerate(sorted(set(enrol) | set(test)))}
    return np.array([code[name] for name in enrol]), np.array([code[name] for name in test]), len(code)


def _bins(ends: np.ndarray) -> np.ndarray:
    """
    Part sorted trials into bins that no group of equal scores crosses; one longer than a bin has its own.

    Examples
    --------
    >>> _bins(np.array([0, 1, 5000, 5001])).tolist()
    [0, 2, 5001, 5002]
    """
    count = ends[-1] + 1
    sizes = np.diff(ends, prepend=-1)
    large = ends[sizes > TRIALS_PER_BIN] + 1 - sizes[sizes > TRIALS_PER_BIN]
    regular = ends[np.searchsorted(ends, np.arange(TRIALS_PER_BIN - 1, count, TRIALS_PER_BIN))] + 1
    return np.unique(np.concatenate([[0], large, regular, [count]]))


def _rates(rejected: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_fa and P_miss [shape=(points, draws)] of the weights rejected [shape=(2, points, draws)] of both kinds."""
    return (total[1] - rejected[1]) / total[1], rejected[0] / total[0]


def _gaps(rejected: np.ndarray, total: np.ndarray) -> np.ndarray:
    p_fa, p_miss = _rates(rejected, total)
    return p_miss - p_fa


def _equal_error(rejected: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`metrics.eer_of_roc` of each draw, whose two rates cross among the points [shape=(2, points, draws)]."""
    p_fa, p_miss = _rates(rejected, total)
    after, column = np.argmax(p_miss >= p_fa, axis=0), np.arange(p_fa.shape[1])
    before = after - 1
    gap_before = p_fa[before, column] - p_miss[before, column]
    gap_after = p_miss[after, column] - p_fa[after, column]
    share = gap_before / (gap_before + gap_after)
    return p_miss[before, column] + share * (p_miss[after, column] - p_miss[before, column])
