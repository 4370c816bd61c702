"""ERes2NetV2: a residual network whose blocks cut their channels into parts that hear each other."""

import math
from collections.abc import Mapping

import keras
from keras import layers, ops

from sv_utils.models.backbones.normalization import BatchNormalization
from sv_utils.models.backbones.resnet import convolution

BLOCKS = (3, 4, 6, 3)
CEILING = 20.0  # of a block's activation
NAMES = ("eres2netv2", "eres2netv2_w24s4ep4")
# Sixty-fourths of a stage's channels in a part, parts, and what the channels are multiplied by at a block's end.
SIZES = {"eres2netv2": (26, 2, 2), "eres2netv2_w24s4ep4": (24, 4, 4)}


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    return eres2netv2(x, architecture["width"], architecture["backbone"])


def eres2netv2(x: keras.KerasTensor, width: int = 64, size: str = "eres2netv2") -> keras.KerasTensor:
    """
    Add ERes2NetV2 to a functional model; statistics pooling belongs to it.

    The last two stages' outputs are fused, as are the parts of their blocks. Layers bear the names of the authors'
    checkpoints, normalisations that of their convolution with ``.norm``.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, 1)]
    width : int
        Channels of the first stage; 64 as published (17.9 million parameters with a 192-d embedding).
    size : str
        ``"eres2netv2"`` or ``"eres2netv2_w24s4ep4"``.

    Returns
    -------
    KerasTensor [shape=(batch, frames / 8, bins / 8, 16 width or 32 width)]

    References
    ----------
    Chen et al.: ERes2NetV2: boosting short-duration speaker verification performance with computational efficiency,
    Interspeech 2024, arXiv 2406.02167.
    """
    x = layers.ReLU()(convolution(x, width, 3, name="conv1"))
    outputs = []
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = _block(x, width * 2**stage, stride, size, f"layer{stage + 1}.{block}", fused=stage > 1)
        outputs.append(x)
    lower = layers.ZeroPadding2D(1)(outputs[2])
    lower = layers.Conv2D(x.shape[-1], 3, 2, use_bias=False, kernel_initializer="he_normal", name="layer3_ds")(lower)
    return _fused(x, lower, "fuse34")


def _block(x: keras.KerasTensor, planes: int, stride: int, size: str, name: str, fused: bool) -> keras.KerasTensor:
    """Residual block: relu(shortcut + convolutions), the middle one in parts, each of which hears the one before it."""
    sixtyfourths, parts, growth = SIZES[size]
    channels = math.floor(planes * sixtyfourths / 64)
    out = _limited(convolution(x, channels * parts, 1, stride, name=f"{name}.conv1"))
    outputs: list[keras.KerasTensor] = []
    for number, part in enumerate(ops.split(out, parts, axis=-1)):
        if outputs and fused:
            part = _fused(outputs[-1], part, f"{name}.fuse_models.{number - 1}")
        elif outputs:
            part = layers.Add()([outputs[-1], part])
        outputs.append(_limited(convolution(part, channels, 3, name=f"{name}.convs.{number}")))
    out = convolution(layers.Concatenate()(outputs), planes * growth, 1, name=f"{name}.conv3")
    if stride != 1 or x.shape[-1] != planes * growth:
        x = convolution(x, planes * growth, 1, stride, name=f"{name}.shortcut")
    return _limited(layers.Add()([x, out]))


def _limited(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU(CEILING)(x)


def _fused(x: keras.KerasTensor, other: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Attentive fusion: x (1 + g) + other (1 - g), by a gate g in (-1, 1) that sees both."""
    channels = x.shape[-1]
    gate = layers.Conv2D(channels // 4, 1, name=f"{name}.local_att.0")(layers.Concatenate()([x, other]))
    gate = layers.Activation("silu")(BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}.local_att.1")(gate))
    gate = layers.Conv2D(channels, 1, name=f"{name}.local_att.3")(gate)
    gate = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}.local_att.4")(gate)
    gate = layers.Activation("tanh")(gate)
    return layers.Add()([x, other, layers.Multiply()([gate, layers.Subtract()([x, other])])])
