"""AdaCos, the cosine loss that finds its scale by itself."""

import math
from typing import Any

import keras
from keras import ops

from sv_utils.base.errors import RequestError
from sv_utils.losses.cosface import cosface_loss
from sv_utils.losses.heads import CosineHead


def fixed_scale(n_speakers: int) -> float:
    """
    Scale ``sqrt(2) log(C - 1)`` for C training speakers.

    References
    ----------
    Zhang et al.: AdaCos: adaptively scaling cosine logits for effectively learning deep face representations,
    arXiv 1905.00292, section 4.1.
    """
    return math.sqrt(2) * math.log(n_speakers - 1)


def dynamic_scale(
    labels: keras.KerasTensor, cosines: keras.KerasTensor, scale: float | keras.Variable
) -> keras.KerasTensor:
    """
    Scale of this step from the batch and the scale of the step before, in float32.

    ``log(B) / cos(min(pi / 4, theta_med))``, where ``B = 1/N sum_i sum_{k != y_i} exp(s cos_ik)`` is the mean sum of
    the non-targets' exponentials under the former scale s, and ``theta_med`` the median angle between the N embeddings
    and the directions of their speakers.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Class of each row, from 0.
    cosines : tensor [shape=(batch, speakers)]
    scale : float or variable
        s

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    arXiv 1905.00292, section 4.2, equations 15 to 17.
    """
    cosines = ops.cast(cosines, "float32")
    target = ops.cast(ops.one_hot(labels, cosines.shape[-1]), "bool")
    non_targets = ops.where(target, -math.inf, scale * cosines)
    log_b = ops.logsumexp(non_targets) - ops.log(ops.cast(ops.shape(cosines)[0], "float32"))
    of_target = ops.sum(ops.where(target, cosines, 0.0), axis=-1)
    median = ops.median(ops.arccos(ops.clip(of_target, -1.0, 1.0)))  # rounding carries cosines beyond 1
    return log_b / ops.cos(ops.minimum(math.pi / 4, median))


@keras.saving.register_keras_serializable(package="sv_utils")
class AdaCosHead(CosineHead):
    """
    Cosines with cross-entropy under a scale that follows the training; as published it has no parameters to choose.

    Parameters
    ----------
    n_speakers : int
        Training speakers, at least 3.
    dynamic : bool
        True: `dynamic_scale` in each training step, beginning from `fixed_scale`; False: `fixed_scale` throughout.
    margin : float
        By which the target's cosine has to win, as in `cosface.cosface_loss`; the scale is found without it.

    Call: unit vectors [shape=(batch, d)] → cosines [shape=(batch, n_speakers)]. ``head.scale`` is the present scale.

    Raises
    ------
    RequestError
        For fewer than 3 speakers, where the scale would be 0.
    """

    compares_rows = True  # the loss needs a whole batch at once, whatever devices share it

    def __init__(self, n_speakers: int, dynamic: bool = True, margin: float = 0.0, **kwargs: Any):
        if n_speakers < 3:
            raise RequestError(f"AdaCos needs at least 3 training speakers and got {n_speakers}; add speakers")
        super().__init__(n_speakers, **kwargs)
        self.dynamic, self._margin = dynamic, margin
        start = keras.initializers.Constant(fixed_scale(n_speakers))
        self.scale = self.add_weight(shape=(), initializer=start, trainable=False, name="scale")

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a batch; in training the dynamic scale is brought up to date first."""
        if training and self.dynamic:
            # The scale is a setting of this step, not a way to a lower loss: no gradient flows through it.
            self.scale.assign(dynamic_scale(labels, ops.stop_gradient(outputs), self.scale))
        return cosface_loss(labels, outputs, self.scale, self._margin)

    def get_config(self) -> dict:
        return {**super().get_config(), "dynamic": self.dynamic, "margin": self._margin}
