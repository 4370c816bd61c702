"""From scores to log-likelihood ratios."""

import json
import math
import os
from dataclasses import asdict, dataclass

import numpy as np

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.paths import replace_on_success

LONGEST_DURATION = 20.0  # [s] from here on more speech says no more about a score's worth


@dataclass(frozen=True)
class Calibration:
    """
    An affine map from a score, or a score and measures of quality, to a natural log-likelihood ratio.

    Attributes
    ----------
    features : tuple of str
        What it takes: ``("cosine",)``, ``("as_norm",)``, or more with `quality_features`.
    weights : tuple of float
        Slope of each feature.
    offset : float
    prior : float
        P_target that the fit was weighted for; the log-likelihood ratios hold at any prior.
    n_target, n_nontarget : int
        Trials that it was fitted on.
    """

    features: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float
    prior: float
    n_target: int
    n_nontarget: int

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios [shape=(n,)] of features [shape=(n,) or (n, number of features)]."""
        features = _matrix(features)
        if features.shape[1] != len(self.weights):
            raise RequestError(
                f"the calibration takes {', '.join(self.features)}, but got {features.shape[1]} features."
            )
        return features @ np.array(self.weights) + self.offset

    def save(self, path: str | os.PathLike) -> None:
        """Write the calibration as JSON; the file appears complete or not at all."""
        with replace_on_success(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Calibration":
        """
        Read what `save` wrote.

        Raises
        ------
        RequestError
            If the file is absent or no calibration.
        """
        try:
            with open(path, encoding="utf-8") as file:
                fields = json.load(file)
            numbers = {"weights": tuple(map(float, fields["weights"])), "offset": float(fields["offset"])}
            return cls(**{**fields, **numbers, "features": tuple(fields["features"])})
        except FileNotFoundError:
            raise RequestError(f"{path} does not exist; give the calibration.json of an evaluation.") from None
        except (ValueError, TypeError, KeyError):
            raise RequestError(f"{path} is no calibration; give the calibration.json of an evaluation.") from None


def fit_calibration(
    features: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...] = ("cosine",),
    prior: float = 0.5,
    weights: np.ndarray | None = None,
) -> Calibration:
    """
    Fit a map to log-likelihood ratios by logistic regression on trials of development speakers.

    The loss is the cross entropy at the wanted prior, each kind of trial weighing as much as its prior (Brümmer and
    de Villiers, "The BOSARIS Toolkit User Guide", 2011). As Platt ("Probabilistic outputs for support vector
    machines", 1999) does, `n` trials of a kind count as ``n + 1`` right and 1 wrong of ``n + 2``: the slope stays
    finite where the scores part the trials without error, and many trials make the difference vanish.

    Parameters
    ----------
    features : np.ndarray [shape=(n,) or (n, number of features)]
        Scores, or the columns of `quality_features`.
    labels : np.ndarray [shape=(n,)]
        1 for target, 0 for non-target trials.
    names : tuple of str
        Of the features.
    prior : float
        P_target of the use for which it shall be best.
    weights : np.ndarray [shape=(n,)], optional
        How much each trial counts among those of its kind; by default all count alike.

    Returns
    -------
    Calibration
        A feature that is the same in all trials has weight 0: a collapsed model's ratios are all 0.

    Raises
    ------
    RequestError
        If a kind of trial is missing, a feature is not finite, or there is another number of names than of features.
    """
    features, is_target = _matrix(features), np.asarray(labels) == 1
    _check(features, is_target, names)
    centre, scale = features.mean(axis=0), features.std(axis=0)
    varies = scale > 1e-12 * np.abs(features).max(axis=0)
    scale = np.where(varies, scale, 1)
    design = np.column_stack([(features - centre) / scale * varies, np.ones(len(features))])
    weights = np.ones(len(features)) if weights is None else np.asarray(weights, float)
    shares = weights / np.where(is_target, weights[is_target].sum(), weights[~is_target].sum())
    solution = _logistic_regression(design, is_target, prior, shares)
    weights = solution[:-1] / scale * varies
    counts = int(is_target.sum()), int((~is_target).sum())
    return Calibration(names, tuple(weights.tolist()), float(solution[-1] - weights @ centre), prior, *counts)


def _matrix(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features[:, None] if features.ndim == 1 else features


def _check(features: np.ndarray, is_target: np.ndarray, names: tuple[str, ...]) -> None:
    if is_target.all() or not is_target.any():
        raise RequestError(
            f"all {len(is_target)} trials are of one kind; calibration needs target and non-target trials."
        )
    if not np.isfinite(features).all():
        raise RequestError(f"{(~np.isfinite(features)).any(axis=1).sum()} trials have features that are not finite.")
    if len(names) != features.shape[1]:
        raise RequestError(f"{len(names)} names ({', '.join(names)}) for {features.shape[1]} features.")


def _logistic_regression(design: np.ndarray, is_target: np.ndarray, prior: float, shares: np.ndarray) -> np.ndarray:
    """Coefficients [shape=(p,)] of log-likelihood ratios, linear in `design` [shape=(n, p)], by Newton's method."""
    n_target, n_nontarget = is_target.sum(), (~is_target).sum()
    wanted = np.where(is_target, (n_target + 1) / (n_target + 2), 1 / (n_nontarget + 2))
    weight = np.where(is_target, prior, 1 - prior) * shares
    prior_logit = math.log(prior / (1 - prior))

    def loss(coefficients: np.ndarray) -> float:
        logit = design @ coefficients + prior_logit
        return weight @ (np.logaddexp(0, logit) - wanted * logit)

    coefficients = np.zeros(design.shape[1])
    for _ in range(100):
        posterior = 1 / (1 + np.exp(-np.clip(design @ coefficients + prior_logit, -500, 500)))
        gradient = design.T @ (weight * (posterior - wanted))
        curvature = design.T @ (design * (weight * posterior * (1 - posterior))[:, None])
        step = np.linalg.lstsq(curvature, gradient)[0]
        while loss(coefficients - step) > loss(coefficients) + 1e-15:
            step /= 2
        coefficients -= step
        if np.abs(step).max() < 1e-10 * (1 + np.abs(coefficients).max()):
            return coefficients
    raise WorkError("the calibration does not converge in 100 steps; look at the scores of the development trials.")


def shortened(
    samples: np.ndarray, seed: int, seconds: tuple[float, float] = (2.0, 6.0), sample_rate: int = 16_000
) -> np.ndarray:
    """
    Draw how much of each utterance is heard, for trials that teach `quality_features` what a short one is worth.

    Parameters
    ----------
    samples : np.ndarray of int [shape=(n,)]
        Lengths of the utterances.
    seed : int
    seconds : tuple of two float
        Shortest and longest [s], evenly drawn between; an utterance that is shorter stays as it is.
    sample_rate : int [Hz]

    Returns
    -------
    np.ndarray of int [shape=(n,)]
    """
    drawn = np.random.default_rng(seed).uniform(*seconds, size=len(samples)) * sample_rate
    return np.minimum(samples, drawn.astype(int))


def quality_features(
    scores: np.ndarray,
    enrol_rows: np.ndarray,
    test_rows: np.ndarray,
    durations: np.ndarray,
    score_name: str = "as_norm",
    **qualities: np.ndarray,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """
    Features of a calibration that knows how much its score is worth (quality measure functions).

    Columns: the score; smaller and larger duration of the two sides, capped at 20 s, and their ratio; smaller and
    larger value of every other quality. Differences are left out: in a linear map they follow from the two values.
    Source: Thienpondt et al., "The IDLab VoxSRC-20 submission" (2021).

    Parameters
    ----------
    scores, enrol_rows, test_rows : np.ndarray [shape=(n,)]
        As of `cosine`.
    durations : np.ndarray [shape=(m,)] [s]
        By utterance.
    score_name : str
        What the scores are.
    **qualities : np.ndarray [shape=(m,)]
        By utterance, such as ``cohort_mean`` (from `cohort_statistics`) or an embedding's length before it was scaled.

    Returns
    -------
    features : np.ndarray [shape=(n, 4 + 2 * number of qualities)]
    names : tuple of str
        For `fit_calibration`.
    """
    columns = {score_name: scores}
    for name, values in {"duration": np.minimum(durations, LONGEST_DURATION), **qualities}.items():
        sides = values[enrol_rows], values[test_rows]
        columns[f"{name}_min"], columns[f"{name}_max"] = np.minimum(*sides), np.maximum(*sides)
        if name == "duration":
            columns["duration_ratio"] = columns["duration_min"] / columns["duration_max"]
    return np.column_stack(list(columns.values())), tuple(columns)
