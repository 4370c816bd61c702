"""From a map of any duration to one vector: the layers between a backbone and the embedding."""

from typing import Any

import keras
from keras import ops

FLOOR = 1e-7  # of a variance


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

    Parameters
    ----------
    unbiased : bool
        Divide the squares by the frames less one.
    floor : float
        Added to the variance: the slope of a root at 0 is infinite.

    Call: maps [shape=(batch, frames, bins, channels)] → [shape=(batch, 2 bins channels)], all means first.

    References
    ----------
    Snyder et al.: Deep neural network embeddings for text-independent speaker verification, Interspeech 2017.
    """

    def __init__(self, unbiased: bool = False, floor: float = FLOOR, **kwargs: Any):
        super().__init__(**kwargs)
        self.unbiased, self.floor = unbiased, floor

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        return _statistics(_flat(maps), 1.0, self.unbiased, self.floor)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 2 * input_shape[2] * input_shape[3])

    def get_config(self) -> dict:
        return {**super().get_config(), "unbiased": self.unbiased, "floor": self.floor}


@keras.saving.register_keras_serializable(package="sv_utils")
class AttentivePooling(_Pooling):
    """
    Mean and standard deviation over time with weights that a small network gives each frame of each channel.

    The network sees a frame beside the plain mean and deviation of the utterance (context-dependent attention).

    Parameters
    ----------
    hidden : int
        Units of the attention network.
    attention : str
        What comes behind them: ``"tanh"``, ``"relu"`` (ReLU and batch normalisation) or ``"relu_tanh"`` (both).
    context : bool
        False: the network sees the frame alone.
    unbiased : bool
        Divide the squares of the plain deviation by the frames less one.
    floor : float
        Added to the variances.

    Call: maps [shape=(batch, frames, bins, channels)] → [shape=(batch, 2 bins channels)], all means first.

    References
    ----------
    Okabe, Koshinaka, Shinoda: Attentive statistics pooling, arXiv 1803.10963, equations 3 to 6.
    Desplanques, Thienpondt, Demuynck: ECAPA-TDNN, arXiv 2005.07143, section 3.1.
    """

    def __init__(
        self,
        hidden: int = 128,
        attention: str = "tanh",
        context: bool = True,
        unbiased: bool = False,
        floor: float = FLOOR,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden, self.attention, self.context = hidden, attention, context
        self.unbiased, self.floor = unbiased, floor

    def build(self, input_shape: tuple) -> None:
        channels = input_shape[2] * input_shape[3]
        plain = self.attention == "tanh"
        self.attend = keras.layers.Dense(self.hidden, "tanh" if plain else "relu", dtype="float32", name="attend")
        self.attend.build((None, None, (3 if self.context else 1) * channels))
        if not plain:
            options: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5, "dtype": "float32"}
            self.normalise = keras.layers.BatchNormalization(**options, name="normalise")
            self.normalise.build((None, None, self.hidden))
        self.weigh = keras.layers.Dense(channels, dtype="float32", name="weigh")
        self.weigh.build((None, None, self.hidden))

    def call(self, maps: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        frames = _flat(maps)
        seen = self._in_context(frames) if self.context else frames
        attended = self.attend(seen)
        if self.attention != "tanh":
            attended = self.normalise(attended, training=training)
        if self.attention == "relu_tanh":
            attended = ops.tanh(attended)
        weights = ops.softmax(self.weigh(attended), axis=1) * ops.cast(ops.shape(frames)[1], "float32")
        return _statistics(frames, weights, floor=self.floor)

    def _in_context(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        context = ops.expand_dims(_statistics(frames, 1.0, self.unbiased, self.floor), 1)
        return ops.concatenate([frames, context * ops.ones_like(frames[..., :1])], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 2 * input_shape[2] * input_shape[3])

    def get_config(self) -> dict:
        names = ("hidden", "attention", "context", "unbiased", "floor")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _flat(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Each frame as one vector: [shape=(batch, frames, bins, channels)] → [shape=(batch, frames, bins channels)]."""
    return ops.reshape(maps, (-1, ops.shape(maps)[1], maps.shape[2] * maps.shape[3]))


def _statistics(
    frames: keras.KerasTensor, weights: keras.KerasTensor | float, unbiased: bool = False, floor: float = FLOOR
) -> keras.KerasTensor:
    """Mean and deviation over time [shape=(batch, 2 c)] of frames [shape=(batch, frames, c)], weights' mean being 1."""
    mean = ops.mean(weights * frames, axis=1, keepdims=True)
    variance = ops.mean(weights * ops.square(frames - mean), axis=1)
    if unbiased:
        count = ops.cast(ops.shape(frames)[1], "float32")
        variance = variance * count / ops.maximum(count - 1, 1)
    return ops.concatenate([mean[:, 0], ops.sqrt(variance + floor)], axis=-1)
