"""Residual networks with width, depth and stem as arguments, on maps [shape=(batch, frames, bins, channels)]."""

import dataclasses
from collections.abc import Mapping

import keras
from keras import layers, ops

from sv_utils.models.backbones.normalization import BatchNormalization

# Blocks in each of the four stages, and whether they are bottlenecks (He et al. 2015, table 1).
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
NAMES = tuple(f"resnet{depth}" for depth in DEPTHS)


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    options = {name: architecture[name] for name in ("width", "stem", "squeeze_excitation", "simam")}
    return ResNet(int(architecture["backbone"].removeprefix("resnet")), **options)(x)


@dataclasses.dataclass(frozen=True)
class ResNet:
    """
    A ResNet; calling it with a Keras tensor adds its layers to a functional model.

    Parameters
    ----------
    depth : int
        18 or 34 (two 3x3 convolutions a block) or 50 (1x1, 3x3, 1x1 with four times the channels at the end).
    width : int
        Channels of the first stage; each of the three further stages doubles them and halves frames and bins.
    stem : str
        ``"imagenet"``: 7x7 convolution and maximum pooling, both with stride 2 (the original system's);
        ``"thin"``: 3x3 convolution with stride 1 (the field's ResNet-34 with width 32).
    squeeze_excitation : bool
        Weight the channels of each block by what they hold over the whole map.
    simam : bool
        Weight each place of each block by how much it stands out, see `SimAM`.

    Examples
    --------
    >>> ResNet(34, 32, "thin")(keras.Input((None, 80, 1))).shape
    (None, None, 10, 256)

    References
    ----------
    He, Zhang, Ren, Sun: Deep residual learning for image recognition, arXiv 1512.03385.
    Hu, Shen, Sun: Squeeze-and-excitation networks, arXiv 1709.01507, equations 2 to 4.
    """

    depth: int = 34
    width: int = 32
    stem: str = "thin"
    squeeze_excitation: bool = False
    simam: bool = False

    def __call__(self, x: keras.KerasTensor) -> keras.KerasTensor:
        x = convolution(x, self.width, 3) if self.stem == "thin" else convolution(x, self.width, 7, stride=2)
        x = layers.ReLU()(x)
        if self.stem == "imagenet":
            x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # after ReLU a zero is no maximum
        blocks, bottleneck = DEPTHS[self.depth]
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = self._block(x, self.width * 2**stage, stride, bottleneck)
        return x

    def _block(self, x: keras.KerasTensor, width: int, stride: int, bottleneck: bool) -> keras.KerasTensor:
        """One residual block: relu(shortcut + convolutions)."""
        if bottleneck:
            out = layers.ReLU()(convolution(x, width, 1))
            out = layers.ReLU()(convolution(out, width, 3, stride))
            width *= 4
            out = convolution(out, width, 1)
        else:
            out = layers.ReLU()(convolution(x, width, 3, stride))
            out = convolution(out, width, 3)
        if self.squeeze_excitation:
            out = squeeze_excitation(out)
        if self.simam:
            out = SimAM()(out)
        if stride != 1 or x.shape[-1] != width:
            x = convolution(x, width, 1, stride)
        return layers.ReLU()(layers.Add()([x, out]))


def convolution(x: keras.KerasTensor, channels: int, size: int, stride: int = 1) -> keras.KerasTensor:
    """Convolution with batch normalisation instead of a bias, padded by ``size // 2`` on all sides."""
    if stride > 1 and size == 1:
        # The same as a convolution with stride, whose gradient overruns its memory in oneDNN (its issue 6035).
        x, stride = layers.AveragePooling2D(1, stride)(x), 1
    # "same" pads a stride of 2 on one side only; both sides alike is what the published networks do.
    padded = layers.ZeroPadding2D(size // 2)(x) if stride > 1 else x
    padding = "same" if stride == 1 else "valid"
    x = layers.Conv2D(channels, size, stride, padding, use_bias=False, kernel_initializer="he_normal")(padded)
    return BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def squeeze_excitation(x: keras.KerasTensor, reduction: int = 8) -> keras.KerasTensor:
    """Scale each channel by a gate in (0, 1) that two dense layers compute from the means of all channels."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(channels // reduction, "relu", kernel_initializer="he_normal")(gate)
    gate = layers.Dense(channels, "sigmoid")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])


@keras.saving.register_keras_serializable(package="sv_utils")
class SimAM(layers.Layer):
    """
    Scale each place of each channel by ``sigmoid((x - m)**2 / (4 (v + 1e-4)) + 1/2)``, without parameters.

    m and v are the channel's mean and variance over the whole map, so that what stands out is heard.

    Call: maps [shape=(batch, frames, bins, channels)] → the same shape.

    References
    ----------
    Yang et al.: SimAM: a simple, parameter-free attention module, ICML 2021, equation 5.
    Qin et al.: Simple attention module based speaker verification with iterative noisy label detection, ICASSP 2022.
    """

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        exact = ops.cast(maps, "float32")
        deviation = ops.square(exact - ops.mean(exact, axis=(1, 2), keepdims=True))
        freedom = ops.cast(ops.maximum(ops.shape(maps)[1] * maps.shape[2] - 1, 1), "float32")
        variance = ops.sum(deviation, axis=(1, 2), keepdims=True) / freedom
        return maps * ops.cast(ops.sigmoid(deviation / (4 * (variance + 1e-4)) + 0.5), maps.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape
