"""Losses of a P x K batch against the mean embeddings of its own speakers: GE2E and angular prototypical."""

import math
from typing import Any

import keras
from keras import ops


def _unit(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Vectors [shape=(rows, d)] divided by their lengths; zero stays zero."""
    return vectors * ops.rsqrt(ops.maximum(ops.sum(ops.square(vectors), axis=-1, keepdims=True), 1e-12))


def ge2e_loss(
    labels: keras.KerasTensor,
    embeddings: keras.KerasTensor,
    weight: float | keras.Variable,
    bias: float | keras.Variable,
) -> keras.KerasTensor:
    """
    Cross-entropy of each row over the batch's speakers, whose logits are ``w cos(e, c) + b``, in float32.

    c is the mean embedding of a speaker's rows, for the row's own speaker without the row itself.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Speaker of each row; at least two rows of each.
    embeddings : tensor [shape=(batch, d)]
        Unit vectors.
    weight, bias : float or variable
        w, b

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Wan, Wang, Papir, Moreno: Generalized end-to-end loss for speaker verification, arXiv 1710.10467, section 2.1
    (the softmax form).
    """
    embeddings = ops.cast(embeddings, "float32")
    same = ops.expand_dims(labels, 0) == ops.expand_dims(labels, 1)
    counts = ops.sum(ops.cast(same, "float32"), axis=0)
    sums = ops.matmul(ops.cast(same, "float32"), embeddings)  # of the speaker of each row
    own = ops.sum(embeddings * _unit(sums - embeddings), axis=-1, keepdims=True)
    logits = weight * ops.where(same, own, ops.matmul(embeddings, ops.transpose(_unit(sums)))) + bias
    # Each speaker stands in as many columns as it has rows; the logarithm of that makes them one.
    return ops.mean(ops.logsumexp(logits - ops.log(counts), axis=-1) - (weight * own[:, 0] + bias))


def angular_prototypical_loss(
    labels: keras.KerasTensor,
    embeddings: keras.KerasTensor,
    weight: float | keras.Variable,
    bias: float | keras.Variable,
) -> keras.KerasTensor:
    """
    Cross-entropy of each speaker's last row over the prototypes of the batch's speakers, in float32.

    The prototype is the mean of a speaker's other rows; the logits are ``w cos(e, prototype) + b``.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Speaker of each row; at least two rows of each.
    embeddings : tensor [shape=(batch, d)]
        Unit vectors.
    weight, bias : float or variable
        w, b

    Returns
    -------
    tensor [shape=()]

    References
    ----------
    Chung et al.: In defence of metric learning for speaker recognition, arXiv 2003.11982, section 3.2.
    """
    embeddings = ops.cast(embeddings, "float32")
    same = ops.cast(ops.expand_dims(labels, 0) == ops.expand_dims(labels, 1), "float32")
    last = ops.sum(ops.triu(same, 1), axis=1) == 0  # no later row of the same speaker
    prototypes = _unit(ops.matmul(same * ops.cast(ops.logical_not(last), "float32"), embeddings))
    logits = weight * ops.matmul(embeddings, ops.transpose(prototypes)) + bias
    costs = ops.logsumexp(ops.where(last, logits, -math.inf), axis=-1) - ops.diagonal(logits)
    last = ops.cast(last, "float32")
    return ops.sum(costs * last) / ops.sum(last)


class _PrototypeHead(keras.layers.Layer):
    """The embeddings themselves, with a learnt weight and bias of their cosines."""

    compares_rows = True  # the loss needs a whole batch at once, whatever devices share it

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=(), initializer=keras.initializers.Constant(10.0), name="scale")
        self.bias = self.add_weight(shape=(), initializer=keras.initializers.Constant(-5.0), name="bias")

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        return embeddings

    def positive_weight(self) -> keras.KerasTensor:
        """The weight as the loss uses it."""
        return ops.maximum(self.weight, 1e-6)  # below 0 it would reward the wrong speaker


@keras.saving.register_keras_serializable(package="sv_utils")
class Ge2eHead(_PrototypeHead):
    """
    Unit vectors [shape=(batch, d)] → the same, with the loss of `ge2e_loss` (w from 10, b from -5, both learnt).
    """

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a P x K batch; `training` makes no difference here."""
        return ge2e_loss(labels, outputs, self.positive_weight(), self.bias)


@keras.saving.register_keras_serializable(package="sv_utils")
class AngularPrototypicalHead(_PrototypeHead):
    """
    Unit vectors [shape=(batch, d)] → the same, with `angular_prototypical_loss` (w from 10, b from -5, both learnt).
    """

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a P x K batch; `training` makes no difference here."""
        return angular_prototypical_loss(labels, outputs, self.positive_weight(), self.bias)
