"""ReDimNet2: two-dimensional convolutions and time-context blocks over one and the same volume of features."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

from sv_utils.base.errors import RequestError
from sv_utils.models.backbones.normalization import BatchNormalization

SIZES = {
    # Channels of the stem; channels of the last layer (0: none); and for each stage: bins and frames that become one,
    # blocks, expansion within the blocks, and what part of all features the time context works with.
    "redimnet2_b0": (
        12,
        64,
        ((1, 1, 2, 2, 36), (2, 1, 3, 1, 36), (1, 2, 4, 1, 36), (2, 1, 5, 1, 36), (1, 2, 4, 1, 18), (2, 1, 3, 1, 18)),
    ),
    "redimnet2_b1": (
        16,
        0,
        ((1, 1, 2, 2, 32), (2, 1, 3, 1, 32), (1, 2, 4, 1, 32), (2, 1, 5, 1, 32), (1, 2, 4, 1, 16), (2, 1, 3, 1, 16)),
    ),
    "redimnet2_b2": (
        20,
        0,
        ((1, 1, 2, 2, 40), (2, 1, 3, 1, 30), (1, 2, 4, 1, 30), (3, 1, 5, 1, 20), (1, 2, 4, 1, 20), (2, 1, 3, 1, 10)),
    ),
}
SPANS = (7, 19, 31, 59)  # frames that the convolutions of a time context see
HEADS = 4
NAMES = tuple(SIZES)
NORMALIZED = ("pooling",)  # of the authors' recipes, whose `emb_bn` is false


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """
    Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model.

    Raises
    ------
    RequestError
        For mel bands that it cannot merge.
    """
    size, bands = architecture["backbone"], architecture["n_mels"]
    if architecture["front_end"] == "mel" and bands % bins_multiple(size):
        raise RequestError(f"n_mels: {size} takes a multiple of {bins_multiple(size)} (72 as published)")
    return redimnet2(x, size)


def redimnet2(x: keras.KerasTensor, size: str) -> keras.KerasTensor:
    """
    Add a ReDimNet2 to a functional model.

    Each stage reads a learnt mean of the outputs of all stages before it, in which frames x bins x channels is the
    same number throughout. It merges bins and frames into channels, convolves in two dimensions, then looks along time
    over all bins and channels at once, and repeats its frames until they are as many as at the start.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, channels)]
        A multiple of `bins_multiple` bins; 72 mel bands as published.
    size : str
        ``"redimnet2_b0"``, ``"redimnet2_b1"`` or ``"redimnet2_b2"``: 1.1, 2.2 and 3.7 million parameters with
        attentive pooling and a 192-d embedding.

    Returns
    -------
    KerasTensor [shape=(batch, frames, bins / bins_multiple, c)]
        Frames as a multiple of 4.

    References
    ----------
    Yakovlev, Okhotnikov: ReDimNet2: scaling speaker verification via time-pooled dimension reshaping, Interspeech 2026,
    arXiv 2603.11841; sizes, kernels and normalisations after the authors' published recipes.
    Yakovlev et al.: Reshape dimensions network for speaker recognition, Interspeech 2024, arXiv 2407.18223.
    """
    width, channels_out, stages = SIZES[size]
    bins = x.shape[2]
    x = layers.Conv2D(width, 3, padding="same")(FullStrides(4)(x))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    outputs = [_normalised(_flat(x), width)]
    frame_stride, bin_stride = 1, 1
    for merged_bins, merged_frames, blocks, expansion, part in stages:
        frame_stride, bin_stride = frame_stride * merged_frames, bin_stride * merged_bins
        channels = width * bin_stride
        x = WeightedSum()(outputs) if len(outputs) > 1 else outputs[0]
        x = layers.Reshape((-1, bins * merged_bins // bin_stride, channels // merged_bins))(x)
        x = MergedPatches(frame_stride, merged_bins, merged_bins * expansion)(x)
        for _ in range(blocks):
            x = _block(x)
        if expansion != 1:
            x = BatchNormalization(momentum=0.9, epsilon=1e-6)(layers.Conv2D(channels, 1)(x))
        x = _time_context(_flat(x), bins * width // part)
        x = layers.UpSampling1D(frame_stride)(x) if frame_stride > 1 else x
        outputs.append(_normalised(x, width))
    x = layers.Reshape((-1, bins // bin_stride, width * bin_stride))(WeightedSum()(outputs))
    return layers.Conv2D(channels_out, 1)(x) if channels_out else x


def bins_multiple(size: str) -> int:
    """Number of which the bins must be a multiple: 8, or 12 for size b2."""
    return math.prod(stage[0] for stage in SIZES[size][2])


def _flat(x: keras.KerasTensor) -> keras.KerasTensor:
    """[shape=(batch, frames, bins, channels)] → [shape=(batch, frames, bins channels)]."""
    return layers.Reshape((-1, x.shape[2] * x.shape[3]))(x)


def _normalised(x: keras.KerasTensor, groups: int) -> keras.KerasTensor:
    """Zero mean and unit variance of each group of features over the utterance, scaled and shifted."""
    return layers.GroupNormalization(groups, epsilon=1e-5)(x)


def _block(x: keras.KerasTensor) -> keras.KerasTensor:
    """Residual block of two 3x3 convolutions, each cut into a channel's own and one across channels."""
    channels = x.shape[-1]
    out = x
    for activated in (True, False):
        out = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(out)
        out = layers.Conv2D(channels, 1, activation="relu" if activated else None)(out)
        out = BatchNormalization(momentum=0.9, epsilon=1e-5)(out)
    return layers.ReLU()(layers.Add()([x, out]))


def _time_context(x: keras.KerasTensor, inner: int) -> keras.KerasTensor:
    """Add what convolutions over ever longer spans and attention over all frames find in `inner` features."""
    out = layers.LayerNormalization(epsilon=1e-6)(layers.Dense(inner)(x))
    for span in SPANS:
        hidden = layers.DepthwiseConv1D(span, padding="same")(out)
        hidden = layers.Activation("gelu")(BatchNormalization(momentum=0.9, epsilon=1e-5)(hidden))
        out = layers.Add()([out, layers.Dense(inner)(hidden)])
    out = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([out, SelfAttention(HEADS)(out)]))
    hidden = layers.Dense(inner)(layers.Activation(_gelu)(layers.Dense(inner)(out)))
    out = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([out, hidden]))
    return layers.Add()([x, layers.Dense(x.shape[-1])(out)])


@keras.saving.register_keras_serializable(package="sv_utils")
def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="sv_utils")
class FullStrides(layers.Layer):
    """
    Append frames of zeros until their number is a multiple of `stride`: [shape=(batch, frames, bins, channels)].

    (The published network drops the frames that are left over, and could not take fewer than `stride`.)
    """

    def __init__(self, stride: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        frames = ops.shape(maps)[1]
        padded = ops.pad(maps, [[0, 0], [0, self.stride - 1], [0, 0], [0, 0]])
        return padded[:, : (frames + self.stride - 1) // self.stride * self.stride]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None, *input_shape[2:])

    def get_config(self) -> dict:
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable(package="sv_utils")
class WeightedSum(layers.Layer):
    """Mean of several inputs [shape=(batch, frames, c)] with learnt weights (softmax over the inputs) of each of c."""

    def build(self, input_shape: tuple) -> None:
        shape = (len(input_shape), 1, 1, input_shape[0][-1])
        self.weight = self.add_weight(shape=shape, initializer="zeros", name="weight")

    def call(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        weights = ops.softmax(self.weight, axis=0)
        return sum(weights[i] * x for i, x in enumerate(inputs))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape[0]


@keras.saving.register_keras_serializable(package="sv_utils")
class MergedPatches(layers.Layer):
    """
    Convolution of each channel by itself, without overlap: patches of frames x bins become one place.

    ``DepthwiseConv2D`` with strides as wide as its kernel, which TensorFlow has for equal strides only.

    Parameters
    ----------
    frames, bins : int
        Size of a patch, and stride.
    multiplier : int
        Channels that come of each channel.

    Call: [shape=(batch, frames t, bins f, c)] → [shape=(batch, t, f, c multiplier)].
    """

    def __init__(self, frames: int, bins: int, multiplier: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.frames, self.bins, self.multiplier = frames, bins, multiplier

    def build(self, input_shape: tuple) -> None:
        channels = input_shape[-1]
        shape = (self.frames, self.bins, channels, self.multiplier)
        scale = keras.initializers.RandomUniform(*(s * (self.frames * self.bins) ** -0.5 for s in (-1, 1)))
        self.kernel = self.add_weight(shape=shape, initializer=scale, name="kernel")
        self.bias = self.add_weight(shape=(channels * self.multiplier,), initializer="zeros", name="bias")

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        bins, channels = maps.shape[2], maps.shape[3]
        patches = ops.reshape(
            maps, (-1, ops.shape(maps)[1] // self.frames, self.frames, bins // self.bins, self.bins, channels)
        )
        merged = sum(
            ops.expand_dims(patches[:, :, i, :, j], -1) * self.kernel[i, j]
            for i in range(self.frames)
            for j in range(self.bins)
        )
        shape = (-1, ops.shape(merged)[1], bins // self.bins, channels * self.multiplier)
        return ops.reshape(merged, shape) + self.bias

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None, input_shape[2] // self.bins, input_shape[3] * self.multiplier)

    def get_config(self) -> dict:
        return {**super().get_config(), "frames": self.frames, "bins": self.bins, "multiplier": self.multiplier}


@keras.saving.register_keras_serializable(package="sv_utils")
class SelfAttention(layers.Layer):
    """
    Multi-head attention of the frames to each other: [shape=(batch, frames, c)] → the same shape.

    (Not ``keras.layers.MultiHeadAttention``: its einsum kernels are no dense layers, which `complexity` counts.)

    References
    ----------
    Vaswani et al.: Attention is all you need, arXiv 1706.03762, section 3.2.
    """

    def __init__(self, heads: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape: tuple) -> None:
        self.projections = [layers.Dense(input_shape[-1], dtype=self.dtype_policy) for _ in range(4)]
        for projection in self.projections:
            projection.build(input_shape)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        frames, size = ops.shape(x)[1], x.shape[-1]
        query, key, value = (
            ops.reshape(projection(x), (-1, frames, self.heads, size // self.heads))
            for projection in self.projections[:3]
        )
        heard = ops.reshape(ops.dot_product_attention(query, key, value), (-1, frames, size))
        return self.projections[3](heard)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "heads": self.heads}
