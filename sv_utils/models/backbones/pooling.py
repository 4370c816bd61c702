"""From a map of any duration to one vector: the layers between a backbone and the embedding."""

from typing import Any

import keras
from keras import ops


class _Pooling(keras.layers.Layer):
    """Parent of the poolings: float32 whatever the policy of the model (sums over hundreds of frames)."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)


@keras.saving.register_keras_serializable(package="sv_utils")
class AveragePooling(_Pooling):
    """Mean over frames and bins, the original system's: [shape=(batch, frames, bins, c)] → [shape=(batch, c)]."""

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        return ops.mean(maps, axis=(1, 2))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], input_shape[3])


@keras.saving.register_keras_serializable(package="sv_utils")
class StatisticsPooling(_Pooling):
    """
    Mean and standard deviation over time of each bin of each channel.

    Call: maps [shape=(batch, frames, bins, channels)] → [shape=(batch, 2 bins channels)], all means first.

    References
    ----------
    Snyder et al.: Deep neural network embeddings for text-independent speaker verification, Interspeech 2017.
    """

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        return _statistics(_flat(maps), 1.0)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 2 * input_shape[2] * input_shape[3])


@keras.saving.register_keras_serializable(package="sv_utils")
class AttentivePooling(_Pooling):
    """
    Mean and standard deviation over time with weights that a small network gives each frame of each channel.

    The network sees a frame beside the plain mean and deviation of the utterance (context-dependent attention).

    Parameters
    ----------
    hidden : int
        Units of the attention network.

    Call: maps [shape=(batch, frames, bins, channels)] → [shape=(batch, 2 bins channels)], all means first.

    References
    ----------
    Okabe, Koshinaka, Shinoda: Attentive statistics pooling, arXiv 1803.10963, equations 3 to 6.
    Desplanques, Thienpondt, Demuynck: ECAPA-TDNN, arXiv 2005.07143, section 3.1.
    """

    def __init__(self, hidden: int = 128, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = hidden

    def build(self, input_shape: tuple) -> None:
        channels = input_shape[2] * input_shape[3]
        self.attend = keras.layers.Dense(self.hidden, "tanh", dtype="float32")
        self.attend.build((None, None, 3 * channels))
        self.weigh = keras.layers.Dense(channels, dtype="float32")
        self.weigh.build((None, None, self.hidden))

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        frames = _flat(maps)
        context = ops.expand_dims(_statistics(frames, 1.0), 1) * ops.ones_like(frames[..., :1])
        scores = self.weigh(self.attend(ops.concatenate([frames, context], axis=-1)))
        return _statistics(frames, ops.softmax(scores, axis=1) * ops.cast(ops.shape(frames)[1], "float32"))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 2 * input_shape[2] * input_shape[3])

    def get_config(self) -> dict:
        return {**super().get_config(), "hidden": self.hidden}


def _flat(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Each frame as one vector: [shape=(batch, frames, bins, channels)] → [shape=(batch, frames, bins channels)]."""
    return ops.reshape(maps, (-1, ops.shape(maps)[1], maps.shape[2] * maps.shape[3]))


def _statistics(frames: keras.KerasTensor, weights: keras.KerasTensor | float) -> keras.KerasTensor:
    """Mean and deviation over time [shape=(batch, 2 c)] of frames [shape=(batch, frames, c)], weights' mean being 1."""
    mean = ops.mean(weights * frames, axis=1, keepdims=True)
    variance = ops.mean(weights * ops.square(frames - mean), axis=1)
    return ops.concatenate([mean[:, 0], ops.sqrt(variance + 1e-7)], axis=-1)  # the root's slope at 0 is infinite
