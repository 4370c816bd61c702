"""Contrastive loss on the cosine matrix of a batch of P speakers with K utterances each."""

from typing import Any

import keras
from keras import ops


def similarity_matrix(embeddings: keras.KerasTensor) -> keras.KerasTensor:
    """Cosines [shape=(batch, batch)] between all unit vectors [shape=(batch, d)] of a batch, in float32."""
    embeddings = ops.cast(embeddings, "float32")
    return ops.matmul(embeddings, ops.transpose(embeddings))


def contrastive_loss(labels: keras.KerasTensor, embeddings: keras.KerasTensor, margin: float) -> keras.KerasTensor:
    """
    Pull all pairs of one speaker together, push the hardest pairs of different speakers apart, in float32.

    With the cosine distance ``D = 1 - cos`` a target pair costs ``D**2``, a non-target pair ``max(0, margin - D)**2``.
    The loss is the mean over all target pairs of the batch, plus the mean over its rows of the cost of the row's
    hardest non-target pair, the one with the smallest D: most others are beyond the margin and would drown it in a
    mean. A batch without target pairs or with a single speaker adds 0 for the kind that it lacks.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Speaker of each row.
    embeddings : tensor [shape=(batch, d)]
        Unit vectors.
    margin : float
        Cosine distance from which a non-target pair costs nothing.

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Hadsell, Chopra, LeCun: Dimensionality reduction by learning an invariant mapping, CVPR 2006, equation 4: the costs.
    Schroff, Kalenichenko, Philbin: FaceNet, arXiv 1503.03832, section 3.2: all target, hard non-target pairs.
    """
    distance = 1.0 - similarity_matrix(embeddings)
    same = ops.expand_dims(labels, 0) == ops.expand_dims(labels, 1)
    target = ops.cast(same, "float32") - ops.eye(ops.shape(labels)[0])
    pull = ops.sum(ops.square(distance) * target) / ops.maximum(ops.sum(target), 1.0)
    hardest = ops.min(ops.where(same, 2.0 + margin, distance), axis=1)
    return pull + ops.mean(ops.square(ops.maximum(margin - hardest, 0.0)))


def nearest_neighbour_accuracy(labels: keras.KerasTensor, embeddings: keras.KerasTensor) -> keras.KerasTensor:
    """
    Whether the nearest other row of the batch is of the same speaker.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
    embeddings : tensor [shape=(batch, d)]
        Unit vectors.

    Returns
    -------
    tensor [shape=(batch,)]
        1 or 0 for each row; the mean is what this loss has in place of a classifier's accuracy.
    """
    # A row's similarity to itself falls below the smallest cosine.
    others = similarity_matrix(embeddings) - 3.0 * ops.eye(ops.shape(embeddings)[0], dtype="float32")
    return ops.cast(ops.equal(labels, ops.take(labels, ops.argmax(others, axis=-1))), "float32")


@keras.saving.register_keras_serializable(package="sv_utils")
class ContrastiveHead(keras.layers.Layer):
    """
    No weights: the embeddings themselves, with the loss of `contrastive_loss`.

    Parameters
    ----------
    margin : float
        Cosine distance from which a non-target pair costs nothing.

    Call: unit vectors [shape=(batch, d)] → the same in float32.
    """

    compares_rows = True  # the loss needs a whole batch at once, whatever devices share it

    def __init__(self, margin: float = 0.8, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.margin = margin

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        return embeddings

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a P x K batch; `training` makes no difference here."""
        return contrastive_loss(labels, outputs, self.margin)

    def get_config(self) -> dict:
        return {**super().get_config(), "margin": self.margin}
