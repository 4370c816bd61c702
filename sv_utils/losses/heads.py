"""Cosines between embeddings and one direction a speaker, the part that the margin losses share."""

from typing import Any

import keras
from keras import ops


class CosineHead(keras.layers.Layer):
    """
    Cosine of each embedding to the weight vector of each training speaker.

    Parameters
    ----------
    n_speakers : int
        Training speakers.

    Call: unit vectors [shape=(batch, d)] → cosines [shape=(batch, n_speakers)] in float32.
    """

    def __init__(self, n_speakers: int, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.n_speakers = n_speakers

    def build(self, input_shape: tuple) -> None:
        size = input_shape[-1]
        start = keras.initializers.RandomNormal(stddev=size**-0.5)  # weights of length 1
        self.weight = self.add_weight(shape=(size, self.directions()), initializer=start, name="weight")

    def directions(self) -> int:
        """Number of weight vectors."""
        return self.n_speakers

    def call(self, embeddings: keras.KerasTensor) -> keras.KerasTensor:
        lengths = ops.sqrt(ops.maximum(ops.sum(ops.square(self.weight), axis=0), 1e-12))
        return ops.matmul(embeddings, self.weight / lengths)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_speakers": self.n_speakers}


class MarginHead(CosineHead):
    """
    Cosines for a loss with a scale and a margin; ``head.margin`` is a variable that a schedule may assign.

    Parameters
    ----------
    n_speakers : int
        Training speakers.
    scale : float
        Factor of the cosines.
    margin : float
        Margin at the start.
    """

    def __init__(self, n_speakers: int, scale: float, margin: float, **kwargs: Any):
        super().__init__(n_speakers, **kwargs)
        self.scale, self._first_margin = scale, margin
        start = keras.initializers.Constant(margin)
        self.margin = self.add_weight(shape=(), initializer=start, trainable=False, name="margin")

    def get_config(self) -> dict:
        return {**super().get_config(), "scale": self.scale, "margin": self._first_margin}
