"""ECAPA-TDNN: time-delay layers over all bins at once, in blocks that see several time spans."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import layers, ops

SCALE = 8  # parts into which a block's channels are cut
AGGREGATED = 1536  # channels that leave the network, as the paper has it
NORM = {"momentum": 0.9, "epsilon": 1e-5}


@dataclasses.dataclass(frozen=True)
class Variant:
    """
    In what published implementations differ.

    Attributes
    ----------
    summed : bool
        Each block takes the sum of all that came before it, and not the output of the one before it alone.
    last_untouched : bool
        Of a block's parts the last and not the first passes through as it is.
    reflected : bool
        Beyond its ends an utterance goes on mirrored, and not with zeros.
    normalised : bool
        Batch normalisation of the frames that leave.
    """

    summed: bool = False
    last_untouched: bool = False
    reflected: bool = False
    normalised: bool = False


VARIANTS = {
    "ecapa": Variant(summed=True),
    "ecapa_wespeaker": Variant(last_untouched=True),
    "ecapa_speechbrain": Variant(reflected=True, normalised=True),
}
NAMES = tuple(VARIANTS)
NORMALIZED = ("pooling", "embedding")  # arXiv 2005.07143, figure 2: "ASP + BN", "FC + BN"


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    return ecapa_tdnn(x, architecture["width"], architecture["backbone"])


def ecapa_tdnn(
    x: keras.KerasTensor, width: int = 512, variant: str = "ecapa", aggregated: int = AGGREGATED
) -> keras.KerasTensor:
    """
    Add ECAPA-TDNN to a functional model; `pooling.AttentivePooling` belongs to it.

    The three blocks' outputs together make the frames that leave. Layers bear the names of wespeaker's checkpoints.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, channels)]
    width : int
        Channels of a layer, a multiple of 8: 512 (6.2 million parameters with a 192-d embedding) or 1024 (14.7).
    variant : str
        ``"ecapa"``, the paper's; ``"ecapa_wespeaker"`` or ``"ecapa_speechbrain"``, see `Variant`.
    aggregated : int
        Channels that leave.

    Returns
    -------
    KerasTensor [shape=(batch, frames, 1, aggregated)]

    References
    ----------
    Desplanques, Thienpondt, Demuynck: ECAPA-TDNN: emphasized channel attention, propagation and aggregation in TDNN
    based speaker verification, Interspeech 2020, arXiv 2005.07143, section 3 and figure 2.
    """
    kind = VARIANTS[variant]
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]))(x)
    x = _delay(x, width, 5, "layer1", kind)
    outputs = []
    for number, dilation in enumerate((2, 3, 4), 2):
        outputs.append(_block(x, width, dilation, f"layer{number}.se_res2block", kind))
        x = layers.Add()([x, outputs[-1]]) if kind.summed else outputs[-1]
    options = {"activation": "relu", "kernel_initializer": "he_normal", "name": "conv"}
    x = layers.Conv1D(aggregated, 1, **options)(layers.Concatenate()(outputs))
    if kind.normalised:
        x = layers.BatchNormalization(**NORM, name="conv.norm")(x)
    return layers.Reshape((-1, 1, aggregated))(x)


def _delay(
    x: keras.KerasTensor, width: int, size: int, name: str, kind: Variant, dilation: int = 1, part: str = ""
) -> keras.KerasTensor:
    """Time-delay layer: convolution over `size` frames, ReLU, batch normalisation."""
    conv, norm = (f"{name}.{layer}{part}" for layer in (("convs", "bns") if part else ("conv", "bn")))
    reflected = kind.reflected and size > 1
    x = ReflectedFrames(size // 2 * dilation)(x) if reflected else x
    options = {"padding": "valid" if reflected else "same", "dilation_rate": dilation}
    x = layers.Conv1D(width, size, activation="relu", kernel_initializer="he_normal", name=conv, **options)(x)
    return layers.BatchNormalization(**NORM, name=norm)(x)


def _block(x: keras.KerasTensor, width: int, dilation: int, name: str, kind: Variant) -> keras.KerasTensor:
    """SE-Res2Block: a frame's layer, Res2 over time, a frame's layer, squeeze-excitation over time, all around x."""
    parts = ops.split(_delay(x, width, 1, f"{name}.0", kind), SCALE, axis=-1)
    untouched = parts.pop(-1 if kind.last_untouched else 0)
    outputs: list[keras.KerasTensor] = []
    for number, part in enumerate(parts):
        # Each part hears what the part before it has heard: ever longer spans of time.
        part = layers.Add()([part, outputs[-1]]) if outputs else part
        outputs.append(_delay(part, width // SCALE, 3, f"{name}.1", kind, dilation, f".{number}"))
    outputs = [*outputs, untouched] if kind.last_untouched else [untouched, *outputs]
    out = _delay(layers.Concatenate()(outputs), width, 1, f"{name}.2", kind)
    gate = layers.GlobalAveragePooling1D()(out)
    gate = layers.Dense(128, "relu", kernel_initializer="he_normal", name=f"{name}.3.linear1")(gate)
    gate = layers.Reshape((1, width))(layers.Dense(width, "sigmoid", name=f"{name}.3.linear2")(gate))
    return layers.Add()([x, layers.Multiply()([out, gate])])


@keras.saving.register_keras_serializable(package="sv_utils")
class ReflectedFrames(layers.Layer):
    """Continue an utterance mirrored by `reach` frames at both ends: [shape=(batch, frames, channels)]."""

    def __init__(self, reach: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.reach = reach

    def call(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return ops.pad(frames, [[0, 0], [self.reach, self.reach], [0, 0]], mode="reflect")

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        frames = input_shape[1]
        return (input_shape[0], None if frames is None else frames + 2 * self.reach, input_shape[2])

    def get_config(self) -> dict:
        return {**super().get_config(), "reach": self.reach}
