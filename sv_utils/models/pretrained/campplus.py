"""
CAM++ of 3D-Speaker and of wespeaker, which differ in the front end and in the least variance that their pooling knows.

Layers with weights bear the names of the original checkpoints, so that `assign` needs no table.
"""

from collections.abc import Sequence

import keras
from keras import layers

from sv_utils.models.backbones.campplus import Statistics, campplus
from sv_utils.models.backbones.pooling import StatisticsPooling
from sv_utils.models.encoders import UnitVectors
from sv_utils.models.pretrained import converter
from sv_utils.models.pretrained.kaldi import front_end

assign = converter.assign


def build(embedding_dim: int = 192, window: str = "povey", blocks: Sequence[tuple[int, int]] = ()) -> keras.Model:
    """
    Build the encoder with fresh weights.

    Parameters
    ----------
    embedding_dim : int
        192, or 512 for those that were trained on VoxCeleb.
    window : str
        ``"povey"`` (3D-Speaker's) or ``"hamming"`` (wespeaker's), see `kaldi.front_end`.
    blocks : sequence of (int, int)
        See `backbones.campplus.campplus`.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, 400 samples at least → unit vectors
        [shape=(batch, embedding_dim)].
    """
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    pooling = Statistics() if window == "povey" else StatisticsPooling(unbiased=True)
    x = pooling(campplus(front_end(waveform, window), blocks))
    x = layers.Dense(embedding_dim, use_bias=False, name="xvector.dense.linear")(x)
    options = {"momentum": 0.9, "epsilon": 1e-5, "center": False, "scale": False}
    x = layers.BatchNormalization(**options, name="xvector.dense.nonlinear.batchnorm")(x)
    return keras.Model(waveform, UnitVectors(name="unit_vectors")(x), name="campplus")
