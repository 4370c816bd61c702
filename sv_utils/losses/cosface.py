"""CosFace, the large margin cosine loss."""

from typing import Any

import keras
from keras import ops

from sv_utils.losses.heads import MarginHead
from sv_utils.losses.softmax import softmax_loss


def cosface_loss(
    labels: keras.KerasTensor, cosines: keras.KerasTensor, scale: float, margin: float | keras.Variable
) -> keras.KerasTensor:
    """
    Cross-entropy in which the target has to win by a margin of its cosine, in float32.

    ``-log(exp(s (cos_y - m)) / (exp(s (cos_y - m)) + sum_{j != y} exp(s cos_j)))``, mean over the batch.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Class of each row, from 0.
    cosines : tensor [shape=(batch, speakers)]
    scale : float
        s
    margin : float or variable
        m

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Wang et al.: CosFace: large margin cosine loss for deep face recognition, arXiv 1801.09414, equation 4.
    """
    cosines = ops.cast(cosines, "float32")
    return softmax_loss(labels, scale * (cosines - margin * ops.one_hot(labels, cosines.shape[-1], dtype="float32")))


@keras.saving.register_keras_serializable(package="sv_utils")
class CosFaceHead(MarginHead):
    """
    Cosines with the loss of `cosface_loss`.

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

    def __init__(self, n_speakers: int, scale: float = 30.0, margin: float = 0.2, **kwargs: Any):
        super().__init__(n_speakers, scale, margin, **kwargs)

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a batch; `training` makes no difference here."""
        return cosface_loss(labels, outputs, self.scale, self.margin)
