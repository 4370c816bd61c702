"""Softmax cross-entropy over the training speakers."""

from typing import Any

import keras
from keras import ops


def softmax_loss(labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """
    Mean cross-entropy ``-log(exp(z[y]) / sum_j exp(z[j]))`` in float32.

    Parameters
    ----------
    labels : int tensor [shape=(batch,)]
        Class of each row, from 0.
    logits : tensor [shape=(batch, speakers)]

    Returns
    -------
    tensor [shape=()]

    Examples
    --------
    >>> round(float(softmax_loss([0], [[0.0, 0.0]])), 4)  # two speakers, no preference: log 2
    0.6931
    """
    logits = ops.cast(logits, "float32")
    target = ops.sum(logits * ops.one_hot(labels, logits.shape[-1], dtype="float32"), axis=-1)
    return ops.mean(ops.logsumexp(logits, axis=-1) - target)


@keras.saving.register_keras_serializable(package="sv_utils")
class SoftmaxHead(keras.layers.Layer):
    """
    Dense layer to one logit a speaker, ``z = scale W e + b``, with cross-entropy.

    A unit vector times weights of length 1 reaches logits of 1 at most, and softmax over hundreds of speakers could not
    come near certainty; hence the fixed scale. Unlike in the cosine heads the lengths of the weights are free to grow,
    so that its value decides about the first steps and not about the end.

    Parameters
    ----------
    n_speakers : int
        Training speakers.
    scale : float
        Factor of the logits.

    Call: unit vectors [shape=(batch, d)] → logits [shape=(batch, n_speakers)].
    """

    def __init__(self, n_speakers: int, scale: float = 16.0, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.n_speakers, self.scale = n_speakers, scale

    def build(self, input_shape: tuple) -> None:
        size = input_shape[-1]
        start = keras.initializers.RandomNormal(stddev=size**-0.5)  # weights of length 1
        self.weight = self.add_weight(shape=(size, self.n_speakers), initializer=start, name="weight")
        self.bias = self.add_weight(shape=(self.n_speakers,), initializer="zeros", name="bias")

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        return self.scale * ops.matmul(embeddings, self.weight) + self.bias

    def loss(self, labels: keras.KerasTensor, outputs: keras.KerasTensor, training: bool = True) -> keras.KerasTensor:
        """Mean loss of a batch; `training` makes no difference here."""
        return softmax_loss(labels, outputs)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_speakers": self.n_speakers, "scale": self.scale}
