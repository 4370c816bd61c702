"""SphereFace2: one yes-or-no question a speaker instead of one choice among all."""

from typing import Any

import keras
from keras import ops

from sv_utils.losses.heads import MarginHead


def sphereface2_loss(
    labels: keras.KerasTensor,
    cosines: keras.KerasTensor,
    scale: float,
    margin: float | keras.Variable,
    bias: float | keras.Variable,
    balance: float = 0.7,
    sharpness: int = 3,
) -> keras.KerasTensor:
    """
    Sum over the speakers of the binary cross-entropies, mean over the batch, in float32 (type C, additive margin).

    With ``g(z) = 2 ((z + 1) / 2)**t - 1`` the target costs ``l log(1 + exp(-s (g(cos) - m) - b))`` and each
    non-target ``(1 - l) log(1 + exp(s (g(cos) + m) + b))``.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Class of each row, from 0.
    cosines : tensor [shape=(batch, speakers)]
    scale : float
        s
    margin : float or variable
        m
    bias : float or variable
        b
    balance : float
        l, weight of the target.
    sharpness : int
        t

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Wen et al.: SphereFace2: binary classification is all you need for deep face recognition, arXiv 2108.01513.
    Han, Chen, Qian: Exploring binary classification loss for speaker verification, ICASSP 2023 (this form).
    """
    cosines = ops.cast(cosines, "float32")
    target = ops.one_hot(labels, cosines.shape[-1], dtype="float32")
    # Rounding carries cosines below -1, where a power would be negative or none.
    adjusted = 2.0 * ops.power(ops.maximum((cosines + 1.0) / 2.0, 0.0), sharpness) - 1.0
    yes = balance * ops.softplus(-scale * (adjusted - margin) - bias)
    no = (1.0 - balance) * ops.softplus(scale * (adjusted + margin) + bias)
    return ops.mean(ops.sum(target * yes + (1.0 - target) * no, axis=-1))


@keras.saving.register_keras_serializable(package="sv_utils")
class SphereFace2Head(MarginHead):
    """
    Cosines with the loss of `sphereface2_loss`, whose bias is learnt.

    Parameters
    ----------
    n_speakers : int
        Training speakers.
    scale : float
        s
    margin : float
        m at the start; ``head.margin`` is a variable that a schedule may assign.

    Call: unit vectors [shape=(batch, d)] → cosines [shape=(batch, n_speakers)].
    """

    def __init__(self, n_speakers: int, scale: float = 32.0, margin: float = 0.2, **kwargs: Any):
        super().__init__(n_speakers, scale, margin, **kwargs)
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a batch; `training` makes no difference here."""
        return sphereface2_loss(labels, outputs, self.scale, self.margin, self.bias)
