"""Residual networks with width, depth and stem as arguments, on maps [shape=(batch, frames, bins, channels)]."""

import dataclasses
from collections.abc import Mapping

import keras
from keras import layers, ops

from sv_utils.models.backbones.normalization import BatchNormalization

# Blocks in each of the four stages, and whether they are bottlenecks (He et al. 2015, table 1; wespeaker).
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
DEPTHS |= {100: ((6, 16, 24, 3), False), 101: ((3, 4, 23, 3), True), 152: ((3, 8, 36, 3), True)}
DEPTHS |= {221: ((6, 16, 48, 3), True), 293: ((10, 20, 64, 3), True)}
NAMES = tuple(f"resnet{depth}" for depth in DEPTHS)
COLLECTION = {"momentum": 0.99, "epsilon": 2e-5}  # of batch normalisation in the collection classification_models


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    options = {name: architecture[name] for name in ("width", "stem", "preactivation", "squeeze_excitation", "simam")}
    return ResNet(int(architecture["backbone"].removeprefix("resnet")), **options)(x)


@dataclasses.dataclass(frozen=True)
class ResNet:
    """
    A ResNet; calling it with a Keras tensor adds its layers to a functional model.

    Parameters
    ----------
    depth : int
        18, 34, 100 (two 3x3 convolutions a block), or 50, 101, 152, 221, 293 (1x1, 3x3, 1x1 with four times the
        channels at the end).
    width : int
        Channels of the first stage; each of the three further stages doubles them and halves frames and bins.
    stem : str
        ``"imagenet"``: 7x7 convolution and maximum pooling, both with stride 2 (the original system's);
        ``"thin"``: 3x3 convolution with stride 1 (the field's ResNet-34 with width 32).
    preactivation : bool
        Normalise and rectify before each convolution and not after it, the input too, as the networks of the collection
        classification_models do; 18 and 34 with width 64 and the stem ``"imagenet"`` are the original system's.
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
    He, Zhang, Ren, Sun: Identity mappings in deep residual networks, arXiv 1603.05027, figure 1 (b).
    Hu, Shen, Sun: Squeeze-and-excitation networks, arXiv 1709.01507, equations 2 to 4.
    """

    depth: int = 34
    width: int = 32
    stem: str = "thin"
    squeeze_excitation: bool = False
    simam: bool = False
    preactivation: bool = False

    def __call__(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if self.preactivation:
            return self._preactivated(x)
        size, stride = (3, 1) if self.stem == "thin" else (7, 2)
        x = convolution(x, self.width, size, stride, name="conv1")
        x = layers.ReLU()(x)
        if self.stem == "imagenet":
            x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # after ReLU a zero is no maximum
        blocks, bottleneck = DEPTHS[self.depth]
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = self._block(x, self.width * 2**stage, stride, bottleneck, f"layer{stage + 1}.{block}")
        return x

    def _block(self, x: keras.KerasTensor, width: int, stride: int, bottleneck: bool, name: str) -> keras.KerasTensor:
        """One residual block: relu(shortcut + convolutions)."""
        if bottleneck:
            out = layers.ReLU()(convolution(x, width, 1, name=f"{name}.conv1"))
            out = layers.ReLU()(convolution(out, width, 3, stride, name=f"{name}.conv2"))
            width *= 4
            out = convolution(out, width, 1, name=f"{name}.conv3")
        else:
            out = layers.ReLU()(convolution(x, width, 3, stride, name=f"{name}.conv1"))
            out = convolution(out, width, 3, name=f"{name}.conv2")
        out = self._attended(out)
        if stride != 1 or x.shape[-1] != width:
            x = convolution(x, width, 1, stride, name=f"{name}.shortcut")
        return layers.ReLU()(layers.Add()([x, out]))

    def _attended(self, out: keras.KerasTensor) -> keras.KerasTensor:
        if self.squeeze_excitation:
            out = squeeze_excitation(out)
        return SimAM()(out) if self.simam else out

    def _preactivated(self, x: keras.KerasTensor) -> keras.KerasTensor:
        x = layers.BatchNormalization(scale=False, **COLLECTION)(x)
        x = _bare(x, self.width, 3) if self.stem == "thin" else _bare(x, self.width, 7, stride=2)
        if self.stem == "imagenet":
            x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(_activated(x)))
        blocks, bottleneck = DEPTHS[self.depth]
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = self._preactivated_block(x, self.width * 2**stage, stride, bottleneck, first=not block)
        return _activated(x)

    def _preactivated_block(
        self, x: keras.KerasTensor, width: int, stride: int, bottleneck: bool, first: bool
    ) -> keras.KerasTensor:
        """One residual block: shortcut + convolutions; the shortcut of a stage's first block is a convolution."""
        out = _activated(x)
        if first:
            x = _bare(out, 4 * width if bottleneck else width, 1, stride)
        if bottleneck:
            out = _activated(_bare(out, width, 1))
            out = _activated(_bare(out, width, 3, stride))
            out = _bare(out, 4 * width, 1)
        else:
            out = _activated(_bare(out, width, 3, stride))
            out = _bare(out, width, 3)
        return layers.Add()([self._attended(out), x])


def _activated(x: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalisation and ReLU, as a network of preactivation has them before a convolution."""
    return layers.ReLU()(BatchNormalization(**COLLECTION)(x))


def _bare(x: keras.KerasTensor, channels: int, size: int, stride: int = 1) -> keras.KerasTensor:
    """Convolution alone, without bias, padded by ``size // 2`` on all sides."""
    x, stride, padding = _strided(x, size, stride)
    return layers.Conv2D(channels, size, stride, padding, use_bias=False, kernel_initializer="he_uniform")(x)


def _strided(x: keras.KerasTensor, size: int, stride: int) -> tuple[keras.KerasTensor, int, str]:
    """What a convolution takes instead of x and a stride, and how it pads."""
    if stride == 1:
        return x, 1, "same"
    if size == 1:
        # The same as a convolution with stride, whose gradient overruns its memory in oneDNN (its issue 6035).
        return layers.AveragePooling2D(1, stride)(x), 1, "same"
    # "same" pads a stride of 2 on one side only; both sides alike is what the published networks do.
    return layers.ZeroPadding2D(size // 2)(x), stride, "valid"


def convolution(
    x: keras.KerasTensor, channels: int, size: int, stride: int = 1, name: str | None = None
) -> keras.KerasTensor:
    """
    Convolution with batch normalisation instead of a bias, padded by ``size // 2`` on all sides.

    The layers are called `name` and `name` with ``.norm``.
    """
    x, stride, padding = _strided(x, size, stride)
    options = {"use_bias": False, "kernel_initializer": "he_normal", "name": name}
    x = layers.Conv2D(channels, size, stride, padding, **options)(x)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=name and f"{name}.norm")(x)


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
