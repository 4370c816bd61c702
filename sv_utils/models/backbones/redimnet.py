"""ReDimNet2: two-dimensional convolutions and time-context blocks over one and the same volume of features."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from sv_utils.base.errors import RequestError
from sv_utils.models.backbones.normalization import BatchNormalization


class Stage(NamedTuple):
    """Bins and frames that become one; blocks; expansion within them; what part of all features time context has."""

    bins: int
    frames: int
    blocks: int
    expansion: float
    part: int


class Size(NamedTuple):
    """
    A network of the family.

    Attributes
    ----------
    width : int
        Channels of the stem.
    channels_out : int
        Channels of the last layer; 0 for none.
    stages : tuple of Stage
    by_bin : bool
        The last layer works on each bin, and not on all features of a frame at once.
    normalised : bool
        Normalise what is aggregated, each group of features over the utterance. (The files that were published first,
        all of VoxCeleb2, predate it.)
    split : bool
        A stage gives what it has before and what it has after its time context to the later ones.
    """

    width: int
    channels_out: int
    stages: tuple[Stage, ...]
    by_bin: bool = True
    normalised: bool = True
    split: bool = False


def _stages(
    *parts: int, blocks: tuple = (2, 3, 4, 5, 4, 3), expansions: tuple = (2, 1, 1, 1, 1, 1), bins: int = 2
) -> tuple[Stage, ...]:
    merged = ((1, 1), (2, 1), (1, 2), (bins, 1), (1, 2), (2, 1))
    return tuple(Stage(*row[0], *row[1:]) for row in zip(merged, blocks, expansions, parts))


WIDE = (4, 3, 2, 1, 1, 1)
SIZES = {
    "redimnet2_b0": Size(12, 64, _stages(36, 36, 36, 36, 18, 18)),
    "redimnet2_b1": Size(16, 0, _stages(32, 32, 32, 32, 16, 16)),
    "redimnet2_b2": Size(20, 0, _stages(40, 30, 30, 20, 20, 10, bins=3)),
    # The published counts of b3 (4.1 M parameters, 2.70 G multiply-accumulates for 2 s) are those of b4's stages at 24
    # channels (4.18 M, 2.68 G), and not of wespeaker's class of that name (3.75 M, 1.07 G).
    "redimnet2_b3": Size(24, 0, _stages(24, 24, 24, 24, 24, 24, expansions=WIDE)),
    "redimnet2_b4": Size(32, 0, _stages(24, 24, 24, 24, 24, 24, expansions=WIDE)),
    "redimnet2_b5": Size(48, 256, _stages(48, 48, 48, 48, 32, 32, expansions=WIDE)),
    "redimnet2_b6": Size(
        64, 224, _stages(64, 64, 48, 48, 32, 24, blocks=(3, 4, 5, 5, 4, 3), expansions=(3, 2, 2, 1, 0.75, 0.5))
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


def redimnet2(x: keras.KerasTensor, size: str | Size, cut: bool = False) -> keras.KerasTensor:
    """
    Add a ReDimNet2 to a functional model.

    Each stage reads a learnt mean of the outputs of all stages before it, in which frames x bins x channels is the
    same number throughout. It merges bins and frames into channels, convolves in two dimensions, then looks along time
    over all bins and channels at once, and repeats its frames until they are as many as at the start. Layers bear the
    names of the authors' checkpoints.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, channels)]
        A multiple of `bins_multiple` bins; 72 mel bands as published.
    size : str or Size
        ``"redimnet2_b0"`` to ``"redimnet2_b6"``: 1.1, 2.2, 3.7, 4.2, 6.7, 9.0 and 12.5 million parameters with
        attentive pooling and a 192-d embedding.
    cut : bool
        Leave frames out that are more than a multiple of 4, as the published network does, instead of adding some; it
        takes 4 at least.

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
    size = SIZES[size] if isinstance(size, str) else size
    bins = x.shape[2]
    x = FullStrides(math.prod(stage.frames for stage in size.stages), cut)(x)
    x = layers.Conv2D(size.width, 3, padding="same", name="backbone.stem.0")(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="backbone.stem.1")(x)
    outputs = [_aggregated(_flat(x), size, "backbone.stem_gnorm")]
    frame_stride, bin_stride = 1, 1
    for number, stage in enumerate(size.stages):
        frame_stride, bin_stride = frame_stride * stage.frames, bin_stride * stage.bins
        shape = (-1, bins * stage.bins // bin_stride, size.width * bin_stride // stage.bins)
        outputs += _stage(outputs, size, stage, f"backbone.stage{number}", shape, frame_stride)
    x = WeightedSum(name="backbone.fin_wght1d")(outputs)
    if size.by_bin or not size.channels_out:
        x = layers.Reshape((-1, bins // bin_stride, size.width * bin_stride))(x)
    else:
        x = layers.Reshape((-1, 1, bins * size.width))(x)
    return layers.Conv2D(size.channels_out, 1, name="backbone.head")(x) if size.channels_out else x


def bins_multiple(size: str) -> int:
    """Number of which the bins must be a multiple: 8, or 12 for size b2."""
    return math.prod(stage.bins for stage in SIZES[size].stages)


def _stage(
    outputs: list[keras.KerasTensor], size: Size, stage: Stage, name: str, shape: tuple[int, ...], frame_stride: int
) -> list[keras.KerasTensor]:
    """What a stage adds to the outputs [shape=(batch, frames, bins channels)]; `shape` is that of the maps it makes."""
    before = f"{name}_pre" if size.split else name
    x = WeightedSum(name=f"{before}.0")(outputs) if len(outputs) > 1 else outputs[0]
    x = layers.Reshape(shape)(x)
    channels, last = shape[-1] * stage.bins, 3 + stage.blocks  # places in the authors' sequence: 0, 1, 2 are used
    x = MergedPatches(frame_stride, stage.bins, stage.bins * stage.expansion, name=f"{before}.2")(x)
    for block in range(3, last):
        x = _block(x, f"{before}.{block}.conv_block")
    if stage.expansion != 1:
        x = layers.Conv2D(channels, 1, name=f"{before}.{last}.0")(x)
        x = BatchNormalization(momentum=0.9, epsilon=1e-6, name=f"{before}.{last}.1")(x)
        last += 1
    x = _flat(x)
    after = _time_context(x, x.shape[-1] // stage.part, f"{name}_1d" if size.split else f"{name}.{last + 1}")
    found = ((x, f"{name}_up_2d.1"), (after, f"{name}_up_1d.1")) if size.split else ((after, f"{name}.{last + 3}"),)
    repeat = layers.UpSampling1D(frame_stride) if frame_stride > 1 else layers.Identity()
    return [_aggregated(repeat(maps), size, norm) for maps, norm in found]


def _flat(x: keras.KerasTensor) -> keras.KerasTensor:
    """[shape=(batch, frames, bins, channels)] → [shape=(batch, frames, bins channels)]."""
    return layers.Reshape((-1, x.shape[2] * x.shape[3]))(x)


def _aggregated(x: keras.KerasTensor, size: Size, name: str) -> keras.KerasTensor:
    """Zero mean and unit variance of each group of features over the utterance, scaled and shifted."""
    return layers.GroupNormalization(size.width, epsilon=1e-5, name=name)(x) if size.normalised else x


def _block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Residual block of two 3x3 convolutions, each cut into a channel's own and one across channels."""
    channels = x.shape[-1]
    out = x
    for number, activation in ((1, "relu"), (2, None)):
        out = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}.conv{number}")(out)
        out = layers.Conv2D(channels, 1, activation=activation, name=f"{name}.conv{number}pw")(out)
        out = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}.bn{number}")(out)
    return layers.ReLU()(layers.Add()([x, out]))


def _time_context(x: keras.KerasTensor, inner: int, name: str) -> keras.KerasTensor:
    """Add what convolutions over ever longer spans and attention over all frames find in `inner` features."""
    norm = functools.partial(layers.LayerNormalization, epsilon=1e-6)
    out = norm(name=f"{name}.red_dim_conv.1")(layers.Dense(inner, name=f"{name}.red_dim_conv.0")(x))
    for number, span in enumerate(SPANS):
        part = f"{name}.tcm.{number}"
        hidden = layers.DepthwiseConv1D(span, padding="same", name=f"{part}.dwconvs.0")(out)
        hidden = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{part}.norm")(hidden)
        hidden = layers.Dense(inner, name=f"{part}.pwconv1")(layers.Activation("gelu")(hidden))
        out = layers.Add()([out, hidden])
    part = f"{name}.tcm.{len(SPANS)}"
    heard = SelfAttention(HEADS, name=f"{part}.attention")(out)
    out = norm(name=f"{part}.layer_norm")(layers.Add()([out, heard]))
    hidden = layers.Dense(inner, name=f"{part}.feed_forward.intermediate_dense")(out)
    hidden = layers.Dense(inner, name=f"{part}.feed_forward.output_dense")(layers.Activation(_gelu)(hidden))
    out = norm(name=f"{part}.final_layer_norm")(layers.Add()([out, hidden]))
    return layers.Add()([x, layers.Dense(x.shape[-1], name=f"{name}.exp_dim_conv")(out)])


@keras.saving.register_keras_serializable(package="sv_utils")
def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="sv_utils")
class FullStrides(layers.Layer):
    """
    Append frames of zeros until their number is a multiple of `stride`: [shape=(batch, frames, bins, channels)].

    (The published network drops the frames that are left over, and could not take fewer than `stride`: `cut`.)
    """

    def __init__(self, stride: int, cut: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.stride, self.cut = stride, cut

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        frames = ops.shape(maps)[1]
        if self.cut:
            return maps[:, : frames // self.stride * self.stride]
        padded = ops.pad(maps, [[0, 0], [0, self.stride - 1], [0, 0], [0, 0]])
        return padded[:, : (frames + self.stride - 1) // self.stride * self.stride]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None, *input_shape[2:])

    def get_config(self) -> dict:
        return {**super().get_config(), "stride": self.stride, "cut": self.cut}


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
    multiplier : float
        Channels that come of each channel. Where they are no whole number, channels are taken in groups: of four that
        become three, as an example.

    Call: [shape=(batch, frames t, bins f, c)] → [shape=(batch, t, f, c multiplier)].
    """

    def __init__(self, frames: int, bins: int, multiplier: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.frames, self.bins, self.multiplier = frames, bins, multiplier

    def build(self, input_shape: tuple) -> None:
        channels, filters = input_shape[-1], int(input_shape[-1] * self.multiplier)
        self.grouped = channels // math.gcd(channels, filters)  # channels of a group
        shape = (channels, filters // channels) if self.grouped == 1 else (self.grouped, filters)
        scale = (self.frames * self.bins * self.grouped) ** -0.5
        start = keras.initializers.RandomUniform(-scale, scale)
        self.kernel = self.add_weight(shape=(self.frames, self.bins, *shape), initializer=start, name="kernel")
        self.bias = self.add_weight(shape=(filters,), initializer="zeros", name="bias")

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        bins, channels = maps.shape[2], maps.shape[3]
        patches = ops.reshape(
            maps, (-1, ops.shape(maps)[1] // self.frames, self.frames, bins // self.bins, self.bins, channels)
        )
        merged = sum(
            self._merged(patches[:, :, i, :, j], self.kernel[i, j])
            for i in range(self.frames)
            for j in range(self.bins)
        )
        shape = (-1, ops.shape(merged)[1], bins // self.bins, self.bias.shape[0])
        return ops.reshape(merged, shape) + self.bias

    def _merged(self, places: keras.KerasTensor, kernel: keras.KerasTensor) -> keras.KerasTensor:
        if self.grouped == 1:
            return ops.expand_dims(places, -1) * kernel
        groups = places.shape[-1] // self.grouped
        kernel = ops.transpose(ops.reshape(kernel, (self.grouped, groups, -1)), (1, 0, 2))
        frames, bins = ops.shape(places)[1], places.shape[2]
        places = ops.reshape(places, (-1, groups, 1, self.grouped))  # LiteRT multiplies matrices along 2 axes at most
        return ops.reshape(ops.matmul(places, kernel), (-1, frames, bins, self.bias.shape[0]))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None, input_shape[2] // self.bins, int(input_shape[3] * self.multiplier))

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
        names = (f"{self.name}.{projection}_proj" for projection in ("q", "k", "v", "out"))
        self.projections = [layers.Dense(input_shape[-1], dtype=self.dtype_policy, name=name) for name in names]
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
