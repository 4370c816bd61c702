"""ECAPA-TDNN: time-delay layers over all bins at once, in blocks that see several time spans."""

from collections.abc import Mapping

import keras
from keras import layers, ops

SCALE = 8  # parts into which a block's channels are cut
AGGREGATED = 1536  # channels that leave the network
NAMES = ("ecapa",)
NORMALIZED = ("pooling", "embedding")  # arXiv 2005.07143, figure 2: "ASP + BN", "FC + BN"


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    return ecapa_tdnn(x, architecture["width"])


def ecapa_tdnn(x: keras.KerasTensor, width: int = 512) -> keras.KerasTensor:
    """
    Add ECAPA-TDNN to a functional model; `pooling.AttentivePooling` belongs to it.

    Each block takes the sum of all that came before it; the three blocks' outputs together make the frames that leave.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, channels)]
    width : int
        Channels of a layer, a multiple of 8: 512 (6.2 million parameters with a 192-d embedding) or 1024 (14.7).

    Returns
    -------
    KerasTensor [shape=(batch, frames, 1, 1536)]

    References
    ----------
    Desplanques, Thienpondt, Demuynck: ECAPA-TDNN: emphasized channel attention, propagation and aggregation in TDNN
    based speaker verification, Interspeech 2020, arXiv 2005.07143, section 3 and figure 2.
    """
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]))(x)
    x = _delay(x, width, 5)
    outputs = []
    for dilation in (2, 3, 4):
        outputs.append(_block(x, width, dilation))
        x = layers.Add()([x, outputs[-1]])
    x = layers.Conv1D(AGGREGATED, 1, activation="relu", kernel_initializer="he_normal")(layers.Concatenate()(outputs))
    return layers.Reshape((-1, 1, AGGREGATED))(x)


def _delay(x: keras.KerasTensor, width: int, size: int, dilation: int = 1) -> keras.KerasTensor:
    """Time-delay layer: convolution over `size` frames, ReLU, batch normalisation."""
    options = {"padding": "same", "dilation_rate": dilation, "kernel_initializer": "he_normal"}
    x = layers.Conv1D(width, size, activation="relu", **options)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _block(x: keras.KerasTensor, width: int, dilation: int) -> keras.KerasTensor:
    """SE-Res2Block: a frame's layer, Res2 over time, a frame's layer, squeeze-excitation over time, all around x."""
    parts = ops.split(_delay(x, width, 1), SCALE, axis=-1)
    outputs = parts[:1]
    for part in parts[1:]:
        # Each part hears what the part before it has heard: ever longer spans of time.
        part = part if len(outputs) == 1 else layers.Add()([part, outputs[-1]])
        outputs.append(_delay(part, width // SCALE, 3, dilation))
    out = _delay(layers.Concatenate()(outputs), width, 1)
    gate = layers.GlobalAveragePooling1D()(out)
    gate = layers.Dense(128, "relu", kernel_initializer="he_normal")(gate)
    gate = layers.Reshape((1, width))(layers.Dense(width, "sigmoid")(gate))
    return layers.Add()([x, layers.Multiply()([out, gate])])
