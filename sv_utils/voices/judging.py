"""What a comparison of two sides says; judges of a model measured under one condition, and of a user's threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.recordings import NOISY, SHORT

NO_RATES = "no error rate, likelihood ratio or probability belongs to the threshold"
COSINE, COMPENSATED = "cosine", "compensated cosine"  # what thresholds are of: `Judgement.cosine` or `Judgement.score`
UNSURE = math.log(20)  # no ratio goes further from 0 outside of what was measured: a probability of 95 %


@dataclass(frozen=True)
class Side:
    """
    One side of a comparison.

    Attributes
    ----------
    embedding : np.ndarray [shape=(d,)]
        Unit vector of the speech.
    conditions : Conditions
    """

    embedding: np.ndarray
    conditions: Conditions


@dataclass(frozen=True)
class Judgement:
    """
    What a comparison says.

    Attributes
    ----------
    cosine : float
        Of the embeddings as they are.
    score : float
        What the threshold is of: the cosine itself, or where the judge compensates for channels the cosine of what it
        leaves of the embeddings.
    ratio : float
        Natural log-likelihood ratio; NaN where none was measured.
    accepted : bool
        Whether it is one voice at the operating point.
    point : dict
        The operating point; its ``threshold`` is the score from which on these two would be accepted, and its
        ``threshold_of`` the name of that score.
    warnings : list of str
    """

    cosine: float
    score: float
    ratio: float
    accepted: bool
    point: dict
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plain:
    """The judge of a model of one's own: one calibration and one threshold, of the speech that its stages judged."""

    calibration: Calibration
    operating_point: dict

    def point(self, conditions: Sequence[Conditions]) -> dict:
        """Give the operating point, the same under all conditions."""
        return self.operating_point | {"threshold_of": COSINE}

    def __call__(self, first: Side, second: Side, voices: int = 1) -> Judgement:
        """
        Judge whether two sides are one voice.

        Parameters
        ----------
        first, second : Side
        voices : int
            Voices that the first is compared with; the threshold rises with their number.

        Returns
        -------
        Judgement
            Under conditions that the model's dev speakers hardly had, no ratio goes beyond 20 to 1.
        """
        cosine = cosine_of(first.embedding, second.embedding)
        ratio = limited(float(self.calibration(np.array([cosine]))[0]), self.calibration)
        outside = sorted({text for side in (first, second) for text in _outside(side.conditions)})
        if outside:
            ratio = min(max(ratio, -UNSURE), UNSURE)
        warnings = [f"the error rates were not measured on {text} speech: the answer claims less" for text in outside]
        slope = self.calibration.weights[0]
        threshold = self.operating_point["threshold"] + (math.log(voices) / slope if slope > 0 else 0.0)
        point = self.point(()) | {"threshold": threshold}
        return Judgement(cosine, cosine, ratio, cosine >= threshold, point, warnings)


@dataclass(frozen=True)
class Own:
    """The judge of those who know their threshold: whatever the model, nothing is known of what its scores mean."""

    threshold: float

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise RequestError(f"the threshold {self.threshold:g} is no cosine; give one from -1 to 1, such as 0.305")

    def point(self, conditions: Sequence[Conditions]) -> dict:
        """Give the operating point: the threshold, and no error rates."""
        rates = {"false_accept": None, "miss": None, "list": None}
        told = {"name": "your own", "wanted": None, "threshold": self.threshold, "threshold_of": COSINE}
        return told | {"threshold_from": "you", **rates}

    def __call__(self, first: Side, second: Side) -> Judgement:
        """Judge whether two sides are one voice, by the cosine of their embeddings as they are."""
        cosine = cosine_of(first.embedding, second.embedding)
        said = [f"{NO_RATES} {self.threshold:g}"]
        return Judgement(cosine, cosine, math.nan, cosine >= self.threshold, self.point(()), said)


def cosine_of(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two unit vectors [shape=(d,)]."""
    return float(np.clip(first @ second, -1, 1))


def _outside(conditions: Conditions) -> list[str]:
    """How speech differs from what corpora mostly hold."""
    found = {"narrow-band": conditions.narrow, "noisy": conditions.noise < NOISY}
    found["so short"] = conditions.speech_seconds < SHORT
    return [name for name, there in found.items() if there]


def limited(ratio: float, calibration: Calibration) -> float:
    """As many trials as the calibration saw cannot show that something is rarer than one in so many."""
    return min(max(ratio, -math.log(calibration.n_target + 1)), math.log(calibration.n_nontarget + 1))
