"""CAM++: a small residual network over frequency, then densely connected time-delay layers that mask their output."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

SEGMENT = 100  # frames (20 ms each there) that share a mask's local context
GROWTH, BOTTLENECK = 32, 128  # channels that a dense layer adds; channels that its context is computed from
BLOCKS = ((12, 1), (24, 2), (16, 2))  # dense layers, dilation [frames]
NAMES = ("campplus",)


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    return campplus(x)


def campplus(x: keras.KerasTensor, blocks: Sequence[tuple[int, int]] = ()) -> keras.KerasTensor:
    """
    Add CAM++ to a functional model; statistics pooling belongs to it.

    Each dense layer masks its output by what the utterance and the surrounding second hold. Layers with weights bear
    the names of the authors' checkpoints.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, 1)]
        80 mel bands as published.
    blocks : sequence of (int, int)
        Dense layers and their dilation [frames]; `BLOCKS` if there are none.

    Returns
    -------
    KerasTensor [shape=(batch, frames / 2, 1, 512)]

    References
    ----------
    Wang et al.: CAM++: a fast and efficient network for speaker verification using context-aware masking, Interspeech
    2023, arXiv 2303.00332, section 2 and table 1.
    """
    x = _over_frequency(x)
    x = layers.ZeroPadding2D((2, 0))(x)
    x = layers.Conv2D(128, (5, 1), (2, 1), use_bias=False, name="xvector.tdnn.linear")(x)
    x = _activated(x, "xvector.tdnn.nonlinear.batchnorm")
    for number, (depth, dilation) in enumerate(blocks or BLOCKS, 1):
        for unit in range(1, depth + 1):
            x = MaskedDelay(f"xvector.block{number}.tdnnd{unit}", dilation)(x)
        x = _activated(x, f"xvector.transit{number}.nonlinear.batchnorm")
        x = _framewise(x.shape[-1] // 2, f"xvector.transit{number}.linear")(x)
    return _activated(x, "xvector.out_nonlinear.batchnorm")


def _over_frequency(x: keras.KerasTensor) -> keras.KerasTensor:
    """Features [shape=(batch, frames, bins, 1)] → [shape=(batch, frames, 1, 4 bins)]: 1/8 of the bands, 32 channels."""
    x = _activated(_convolution(x, 1, "head.conv1"), "head.bn1")
    for stage in ("head.layer1", "head.layer2"):
        for block, stride in ((f"{stage}.0", 2), (f"{stage}.1", 1)):
            y = _activated(_convolution(x, stride, f"{block}.conv1"), f"{block}.bn1")
            y = _normalisation(f"{block}.bn2")(_convolution(y, 1, f"{block}.conv2"))
            if stride == 2:
                x = layers.Conv2D(32, 1, (1, 2), use_bias=False, name=f"{block}.shortcut.0")(x)
                x = _normalisation(f"{block}.shortcut.1")(x)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = _activated(_convolution(x, 2, "head.conv2"), "head.bn2")
    return layers.Reshape((-1, 1, x.shape[2] * x.shape[3]))(layers.Permute((1, 3, 2))(x))  # channel by channel


def _convolution(x: keras.KerasTensor, stride: int, name: str) -> keras.KerasTensor:
    """3 x 3, strided over frequency; padded on both sides also where "same" would pad the upper one alone."""
    return layers.Conv2D(32, 3, (1, stride), use_bias=False, name=name)(layers.ZeroPadding2D(1)(x))


def _framewise(channels: int, name: str, activation: str | None = None, use_bias: bool = False) -> layers.Layer:
    """A dense layer on each frame; as a convolution it is one operation of the graph, where `Dense` is twenty."""
    return layers.Conv2D(channels, 1, activation=activation, use_bias=use_bias, name=name)


def _normalisation(name: str, **options: Any) -> layers.Layer:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, **options)


def _activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU()(_normalisation(name)(x))


@keras.saving.register_keras_serializable(package="sv_utils")
class MaskedDelay(layers.Layer):
    """
    Densely connected time-delay layer with a context-aware mask.

    Parameters
    ----------
    name : str
        The layer's name in the checkpoint.
    dilation : int
        Of the convolution over three frames.

    Call: [shape=(batch, frames, 1, c)] → [shape=(batch, frames, 1, c + 32)], the input and 32 channels
    ``convolution(h) * sigmoid(W2 relu(W1 (mean(h) + segment_means(h))))`` of the bottleneck ``h`` (128 channels).
    """

    def __init__(self, name: str, dilation: int, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.dilation = dilation
        self.normalisation1 = _normalisation(f"{name}.nonlinear1.batchnorm")
        self.linear1 = _framewise(BOTTLENECK, f"{name}.linear1")
        self.normalisation2 = _normalisation(f"{name}.nonlinear2.batchnorm")
        options = {"padding": "same", "dilation_rate": (dilation, 1), "use_bias": False}
        self.local = layers.Conv2D(GROWTH, (3, 1), **options, name=f"{name}.cam_layer.linear_local")
        self.context1 = _framewise(BOTTLENECK // 2, f"{name}.cam_layer.linear1", "relu", use_bias=True)
        self.context2 = _framewise(GROWTH, f"{name}.cam_layer.linear2", "sigmoid", use_bias=True)

    def build(self, input_shape: tuple) -> None:
        inner = (*input_shape[:3], BOTTLENECK)
        for layer in (self.normalisation1, self.linear1):
            layer.build(input_shape)
        for layer in (self.normalisation2, self.local, self.context1):
            layer.build(inner)
        self.context2.build((*input_shape[:3], BOTTLENECK // 2))

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        hidden = self.linear1(ops.relu(self.normalisation1(x, training=training)))
        hidden = ops.relu(self.normalisation2(hidden, training=training))
        context = ops.mean(hidden, axis=1, keepdims=True) + segment_means(hidden)
        mask = self.context2(self.context1(context))  # of each segment
        segment = ops.arange(ops.shape(x)[1]) // SEGMENT
        return ops.concatenate([x, self.local(hidden) * ops.take(mask, segment, axis=1)], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:3], input_shape[3] + GROWTH)

    def get_config(self) -> dict:
        return {**super().get_config(), "dilation": self.dilation}


def segment_means(x: keras.KerasTensor) -> keras.KerasTensor:
    """
    Mean of each segment of 100 frames; the last segment may be shorter.

    [shape=(batch, frames, 1, channels)] → [shape=(batch, segments, 1, channels)].
    """

    def pooled(values: keras.KerasTensor) -> keras.KerasTensor:
        values = ops.pad(values, [[0, 0], [0, SEGMENT - 1], [0, 0], [0, 0]])
        return ops.average_pool(values, (SEGMENT, 1), (SEGMENT, 1))

    return pooled(x) / pooled(ops.ones_like(x[:1, :, :, :1]))


@keras.saving.register_keras_serializable(package="sv_utils")
class Statistics(layers.Layer):
    """Mean and standard deviation (of n - 1) over time: [shape=(batch, frames, 1, c)] → [shape=(batch, 2 c)]."""

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        x = ops.squeeze(x, axis=2)
        mean = ops.mean(x, axis=1, keepdims=True)
        freedom = ops.cast(ops.maximum(ops.shape(x)[1] - 1, 1), x.dtype)
        variance = ops.sum(ops.square(x - mean), axis=1) / freedom
        # The floor keeps the gradient finite; the smallest deviation of a channel of speech is far above it.
        return ops.concatenate([mean[:, 0], ops.sqrt(ops.maximum(variance, 1e-10))], axis=-1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 2 * input_shape[3])
