"""Validation during training: trials of held-out dev speakers, and the health of the embeddings."""

import dataclasses
import math

import keras
import numpy as np

from sv_utils.base.errors import WorkError
from sv_utils.evaluation import metrics, scoring
from sv_utils.models import embedding
from sv_utils.speech.reader import Speech

COLLAPSED = 1e-7  # spread below which embeddings are taken for one point; fresh encoders have 1e-4 and more


@dataclasses.dataclass(frozen=True)
class Judgement:
    """
    What one pass over the validation trials found.

    Parameters
    ----------
    target, nontarget : np.ndarray [shape=(trials,)]
        Cosines.
    spread : float
        See `spread`.
    """

    target: np.ndarray
    nontarget: np.ndarray
    spread: float

    @property
    def eer(self) -> float:
        """Equal error rate, a fraction."""
        return float(metrics.eer(self.target, self.nontarget)[0])

    @property
    def finite(self) -> bool:
        """Whether there are embeddings to judge at all."""
        return math.isfinite(self.spread)

    def raise_if_collapsed(self, kept: str) -> None:
        """
        Stop a training whose embeddings have become one point.

        Raises
        ------
        WorkError
            With the likely cause and the mend.
        """
        scores = np.concatenate([self.target, self.nontarget])
        if self.spread >= COLLAPSED and np.ptp(scores) > 0:
            return
        raise WorkError(
            f"the embeddings have collapsed: all utterances are at one point (spread {self.spread:.1e}, cosines "
            f"{scores.min():.4f} to {scores.max():.4f}). Likely the learning_rate is too high at the start, or the "
            f"weight_decay too strong; lower them, or give warmup_epochs. {kept}"
        )


@dataclasses.dataclass(frozen=True)
class ValidationTrials:
    """
    Trials between held-out dev speakers: all that checkpoints and learning rates are chosen on.

    Parameters
    ----------
    speech : Speech
        Open store of the validation utterances.
    labels : np.ndarray [shape=(trials,)]
        1 target, 0 non-target.
    enrol_rows, test_rows : np.ndarray [shape=(trials,)]
        Rows of `speech`.
    """

    speech: Speech
    labels: np.ndarray
    enrol_rows: np.ndarray
    test_rows: np.ndarray

    def judge(self, encoder: keras.Model) -> Judgement:
        """Score the trials, each utterance embedded once at full length; what is not finite stays so."""
        embeddings = embedding.embed(encoder, self.speech.samples, self.speech.waveform)
        if np.all(np.linalg.norm(embeddings, axis=1) > 0):
            cosines = scoring.cosine(embeddings, self.enrol_rows, self.test_rows)
        else:  # zero vectors or none at all, which scoring refuses
            cosines = np.zeros(len(self.labels))
        return Judgement(cosines[self.labels == 1], cosines[self.labels == 0], spread(embeddings))

    def scores(self, encoder: keras.Model) -> tuple[np.ndarray, np.ndarray]:
        """Cosines of the target and of the non-target trials."""
        judgement = self.judge(encoder)
        return judgement.target, judgement.nontarget

    def eer(self, encoder: keras.Model) -> float:
        """Equal error rate of the trials, a fraction."""
        return self.judge(encoder).eer


def spread(embeddings: np.ndarray) -> float:
    """
    Total variance of unit vectors [shape=(n, d)]: 0 if all are one point, 1 if they are all around their centre.

    Examples
    --------
    >>> spread(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    1.0
    """
    return float(np.sum(np.var(embeddings.astype(np.float64), axis=0)))


def why_not_finite(waveforms: np.ndarray, phase: dict, rate: float, losses: list[float]) -> str:
    """
    Say what made a loss or embeddings NaN or infinite, and what to do.

    Parameters
    ----------
    waveforms : np.ndarray [shape=(batch, samples)]
        Of the last step.
    phase : dict
        Its parameters.
    rate : float
        Its learning rate.
    losses : list of float
        Of earlier steps.
    """
    if not np.isfinite(waveforms).all():
        return "the waveforms of this batch are not finite: look at the augmentation, and at the store of 02_prep"
    if losses and losses[-1] > 2 * min(losses):
        cause = f"the loss had been rising, from {min(losses):.3g} to {losses[-1]:.3g}, and the weights ran away"
    else:
        cause = "the loss had not been rising: one batch threw the weights, or a number overflowed"
    mends = [f"lower the learning_rate (now {rate:.2g})"]
    if not phase["clip_norm"]:
        mends.append("set clip_norm to 5.0")
    if not phase["warmup_epochs"]:
        mends.append("give warmup_epochs")
    if keras.config.dtype_policy().name == "mixed_float16":
        mends.append("set precision to mixed_bfloat16, which has float32's range")
    return f"{cause}; {', or '.join(mends)}"
