"""The ways to score trials with one encoder, and the names of what was scored. Another way begins with a line here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scoring:
    """
    A way to score trials with an encoder.

    Attributes
    ----------
    name : str
        In tables and legends.
    suffix : str
        What ``results.csv`` appends to the name of the model.
    score_column, ratio_column : str
        Columns of ``scores_<list>.csv`` for the scores and their log-likelihood ratios; an empty `score_column` where
        the ratios are the scores.
    by_quality : bool
        Whether the calibration also takes measures of quality, and is therefore taught by short utterances too.
    """

    name: str
    suffix: str
    score_column: str
    ratio_column: str
    by_quality: bool = False


COSINE = Scoring("cosine", "", "score", "llr")
AS_NORM = Scoring("AS-norm", " + AS-norm", "as_norm", "as_norm_llr")
QMF = Scoring("AS-norm, QMF", " + AS-norm + QMF", "", "qmf_llr", by_quality=True)
SCORINGS = (COSINE, AS_NORM, QMF)


@dataclass(frozen=True)
class System:
    """
    What is judged: a model, the way its trials are scored, and whether it was trained.

    Examples
    --------
    >>> System("adacos", QMF).name
    'adacos + AS-norm + QMF'
    >>> System("adacos", trained=False).name
    'adacos (untrained)'
    """

    model: str
    scoring: Scoring = COSINE
    trained: bool = True

    @property
    def name(self) -> str:
        """What ``results.csv`` calls it."""
        return self.model + self.scoring.suffix + ("" if self.trained else " (untrained)")

    @property
    def record(self) -> dict[str, str | bool]:
        """The same as fields of ``metrics.json``."""
        return {"model": self.model, "scoring": self.scoring.name, "trained": self.trained}

    @classmethod
    def of_record(cls, record: Mapping[str, str | bool]) -> "System":
        """Give back the system that left a `record`."""
        scoring = next(scoring for scoring in SCORINGS if scoring.name == record["scoring"])
        return cls(str(record["model"]), scoring, bool(record["trained"]))


def by_name(models: Iterable[str]) -> dict[str, System]:
    """
    List all systems that models can give, under the names of ``results.csv``.

    Examples
    --------
    >>> list(by_name(["adacos"]))
    ['adacos', 'adacos + AS-norm', 'adacos + AS-norm + QMF', 'adacos (untrained)']
    """
    systems = [
        system
        for model in models
        for system in (*(System(model, scoring) for scoring in SCORINGS), System(model, trained=False))
    ]
    return {system.name: system for system in systems}
