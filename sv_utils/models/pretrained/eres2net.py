"""ERes2NetV2 of 3D-Speaker."""

import functools

import keras

from sv_utils.models.backbones.eres2net import eres2netv2
from sv_utils.models.backbones.pooling import StatisticsPooling
from sv_utils.models.pretrained import converter
from sv_utils.models.pretrained.kaldi import front_end
from sv_utils.models.pretrained.wespeaker import RESNET, by_channel

TABLE = ((r"(.*)convs\.(\d)\.norm", r"\1bns.\2"), *RESNET)  # names of the layers here, and there
assign = functools.partial(converter.assign, tables={"": TABLE})


def build(size: str = "eres2netv2", width: int = 64, embedding_dim: int = 192) -> keras.Model:
    """
    Build the encoder with fresh weights.

    Parameters
    ----------
    size : str
        See `backbones.eres2net.eres2netv2`.
    width : int
        Channels of the first stage.
    embedding_dim : int
        Dimensions of the embedding.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, 400 samples at least → unit vectors
        [shape=(batch, embedding_dim)].
    """
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = by_channel(eres2netv2(front_end(waveform), width, size))
    x = StatisticsPooling(unbiased=True, floor=1e-8)(x)
    return converter.encoder(waveform, x, embedding_dim, "eres2netv2")
