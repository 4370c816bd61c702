"""
ResNets, SimAM-ResNets and ECAPA-TDNN of wespeaker: Kaldi's log mel with a Hamming window, its mean taken away.

Wang et al.: Wespeaker: a research and production oriented speaker embedding learning toolkit, ICASSP 2023.
"""

import functools

import keras
from keras import layers

from sv_utils.models.backbones.ecapa import ecapa_tdnn
from sv_utils.models.backbones.pooling import AttentivePooling, StatisticsPooling
from sv_utils.models.backbones.resnet import ResNet
from sv_utils.models.pretrained import converter
from sv_utils.models.pretrained.kaldi import front_end

RESNET = (  # names of the layers here, and there
    (r"(.*)conv(\d)\.norm", r"\1bn\2"),
    (r"(.*shortcut)\.norm", r"\1.1"),
    (r"(.*shortcut)", r"\1.0"),
    (r"embedding", "seg_1"),
)
SIMAM = (
    (r"attend", "pooling.attention.0"),
    (r"normalise", "pooling.attention.2"),
    (r"weigh", "pooling.attention.3"),
    (r"embedding", "bottleneck"),
    (r"(.*)conv(\d)\.norm", r"front.\1bn\2"),
    (r"(.*)shortcut\.norm", r"front.\1downsample.1"),
    (r"(.*)shortcut", r"front.\1downsample.0"),
    (r"(.*)", r"front.\1"),
)
ECAPA = (
    (r"attend", "pool.linear1"),
    (r"weigh", "pool.linear2"),
    (r"pooling_normalization", "bn"),
    (r"embedding", "linear"),
)
assign = functools.partial(converter.assign, tables={"resnet": RESNET, "simam": SIMAM, "ecapa": ECAPA})


def build(network: str = "resnet34", width: int = 32, embedding_dim: int = 256) -> keras.Model:
    """
    Build an encoder with fresh weights.

    Parameters
    ----------
    network : str
        ``"resnet34"``, 101, 152, 221 or 293; ``"simam_resnet34"`` or 100 (width 64); ``"ecapa"`` (width 512 or 1024).
    width : int
        Channels of the ResNet's first stage, or of ECAPA-TDNN's layers.
    embedding_dim : int
        Dimensions of the embedding.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, 400 samples at least → unit vectors
        [shape=(batch, embedding_dim)].
    """
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = front_end(waveform, "hamming")
    if network == "ecapa":
        x = AttentivePooling(unbiased=True, name="pooling")(ecapa_tdnn(x, width, "ecapa_wespeaker"))
    else:
        simam, depth = network.startswith("simam"), int(network.rpartition("resnet")[2])
        x = by_channel(ResNet(depth, width, "thin", simam=simam)(x))
        attentive = AttentivePooling(attention="relu", context=False, floor=1e-5, name="pooling")
        pooling = attentive if simam else StatisticsPooling(unbiased=True)
        x = pooling(x)
    return converter.encoder(waveform, x, embedding_dim, network, normalised=network == "ecapa")


def by_channel(maps: keras.KerasTensor) -> keras.KerasTensor:
    """Order a frame by channel first, as PyTorch flattens it: [shape=(batch, frames, bins, c)] → (…, c, bins)."""
    return layers.Permute((1, 3, 2))(maps)
