"""AAM softmax (ArcFace), the margin on the angle, with sub-centres and a margin against the nearest non-targets."""

from typing import Any

import keras
from keras import ops

from sv_utils.losses.heads import MarginHead
from sv_utils.losses.softmax import softmax_loss


def aam_loss(
    labels: keras.KerasTensor,
    cosines: keras.KerasTensor,
    scale: float,
    margin: float | keras.Variable,
    hard_margin: float | keras.KerasTensor = 0.0,
    hardest: int = 5,
) -> keras.KerasTensor:
    """
    Cross-entropy in which the target has to win by a margin of its angle, in float32.

    The target's logit is ``s cos(theta + m)``; where theta + m passes pi, it is ``s (cos(theta) - m sin(m))``, which
    goes on falling. The logits of the `hardest` non-targets of a row are raised to ``s cos(theta - hard_margin)``.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Class of each row, from 0.
    cosines : tensor [shape=(batch, speakers)]
    scale : float
        s
    margin : float or variable
        m [rad]
    hard_margin : float or tensor [shape=()]
        Margin of the nearest non-targets (inter-top-k) [rad]; 0.0 for none.
    hardest : int
        How many non-targets of a row are concerned.

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Deng, Guo, Xue, Zafeiriou: ArcFace, arXiv 1801.07698, equation 3.
    Zhao, Ma, Liu, Xu: Multi-query multi-head attention pooling and inter-topK penalty for speaker verification,
    arXiv 2110.05042, section 3.
    """
    cosines, margin = ops.cast(cosines, "float32"), ops.cast(margin, "float32")
    target = ops.cast(ops.one_hot(labels, cosines.shape[-1]), "bool")
    sines = ops.sqrt(ops.maximum(1.0 - ops.square(cosines), 1e-12))  # the root's slope at 0 is infinite
    further = cosines * ops.cos(margin) - sines * ops.sin(margin)
    further = ops.where(cosines > -ops.cos(margin), further, cosines - margin * ops.sin(margin))
    others = cosines
    if not (isinstance(hard_margin, float) and hard_margin == 0):
        non_targets = ops.where(target, -2.0, cosines)
        least = ops.top_k(non_targets, min(hardest, cosines.shape[-1] - 1))[0][:, -1:]
        nearer = cosines * ops.cos(hard_margin) + sines * ops.sin(hard_margin)
        others = ops.where(non_targets >= least, nearer, cosines)
    return softmax_loss(labels, scale * ops.where(target, further, others))


@keras.saving.register_keras_serializable(package="sv_utils")
class AamHead(MarginHead):
    """
    Cosines, each to the nearest of a speaker's sub-centres, with the loss of `aam_loss`.

    Parameters
    ----------
    n_speakers : int
        Training speakers.
    scale : float
        s
    margin : float
        m at the start [rad]; ``head.margin`` is a variable that a schedule may assign.
    centres : int
        Directions a speaker; more than 1 gives wrongly labelled utterances a place of their own.
    hard_margin : float
        See `aam_loss` [rad]; ``head.hard_share`` is the share of it that is in force, which a schedule may assign.

    Call: unit vectors [shape=(batch, d)] → cosines [shape=(batch, n_speakers)].

    References
    ----------
    Deng et al.: Sub-center ArcFace, ECCV 2020, section 3.2.
    """

    def __init__(
        self,
        n_speakers: int,
        scale: float = 32.0,
        margin: float = 0.2,
        centres: int = 1,
        hard_margin: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(n_speakers, scale, margin, **kwargs)
        self.centres, self.hard_margin = centres, hard_margin
        if hard_margin:
            self.hard_share = self.add_weight(shape=(), initializer="ones", trainable=False, name="hard_share")

    def directions(self) -> int:
        """Count the directions: so many sub-centres for each speaker."""
        return self.n_speakers * self.centres

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        return ops.max(ops.reshape(super().call(embeddings), (-1, self.n_speakers, self.centres)), axis=-1)

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a batch; `training` makes no difference here."""
        hard_margin = self.hard_margin * self.hard_share if self.hard_margin else 0.0
        return aam_loss(labels, outputs, self.scale, self.margin, hard_margin)

    def get_config(self) -> dict:
        return {**super().get_config(), "centres": self.centres, "hard_margin": self.hard_margin}
