"""
ECAPA-TDNN as SpeechBrain trains it, with its own front end: 80 mel bands in decibels, their mean taken away.

Ravanelli et al.: SpeechBrain: a general-purpose speech toolkit, arXiv 2106.04624.
"""

import functools
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sv_utils.models.backbones.ecapa import ecapa_tdnn
from sv_utils.models.backbones.pooling import AttentivePooling
from sv_utils.models.features import HOP, SAMPLE_RATE, WINDOW, InstanceNormalization
from sv_utils.models.pretrained import converter

FLOOR, RANGE = 1e-10, 80.0  # of the power; of the decibels below the loudest band of the utterance
LAYERS = (  # names of a block's layers here, and there
    (r"0\.conv", "tdnn1.conv.conv"),
    (r"0\.bn", "tdnn1.norm.norm"),
    (r"1\.convs\.(\d)", r"res2net_block.blocks.\1.conv.conv"),
    (r"1\.bns\.(\d)", r"res2net_block.blocks.\1.norm.norm"),
    (r"2\.conv", "tdnn2.conv.conv"),
    (r"2\.bn", "tdnn2.norm.norm"),
    (r"3\.linear(\d)", r"se_block.conv\1.conv"),
)
NAMES = (
    (r"layer1\.conv", "blocks.0.conv.conv"),
    (r"layer1\.bn", "blocks.0.norm.norm"),
    *((rf"layer{n + 1}\.se_res2block\.{here}", f"blocks.{n}.{there}") for n in (1, 2, 3) for here, there in LAYERS),
    (r"conv\.norm", "mfa.norm.norm"),
    (r"conv", "mfa.conv.conv"),
    (r"attend", "asp.tdnn.conv.conv"),
    (r"normalise", "asp.tdnn.norm.norm"),
    (r"weigh", "asp.conv.conv"),
    (r"pooling_normalization", "asp_bn.norm"),
    (r"embedding", "fc.conv"),
)
assign = functools.partial(converter.assign, tables={"": NAMES})


def build(width: int = 1024, embedding_dim: int = 192, aggregated: int = 3072) -> keras.Model:
    """
    Build the encoder with fresh weights.

    Parameters
    ----------
    width : int
        Channels of a layer.
    embedding_dim : int
        Dimensions of the embedding.
    aggregated : int
        Channels that leave the network; the file that is published has twice as many as the paper.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, 800 samples at least → unit vectors
        [shape=(batch, embedding_dim)].
    """
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = InstanceNormalization(variance=False)(DecibelMel()(waveform))
    x = ecapa_tdnn(layers.Reshape((-1, x.shape[-1], 1))(x), width, "ecapa_speechbrain", aggregated)
    x = AttentivePooling(attention="relu_tanh", floor=1e-12, name="pooling")(x)
    return converter.encoder(waveform, x, embedding_dim, "speechbrain_ecapa", normalised=True)


@keras.saving.register_keras_serializable(package="sv_utils")
class DecibelMel(layers.Layer):
    """
    SpeechBrain's ``Fbank``: decibels in mel bands, none more than 80 dB below the loudest of the utterance.

    Frames of 25 ms of a periodic Hamming window are centred on the samples 160 t; beyond the ends there is silence.

    Parameters
    ----------
    n_mels : int
        Number of bands.

    Call: waveform [shape=(batch, samples)] → [shape=(batch, 1 + samples // 160, n_mels)].
    """

    def __init__(self, n_mels: int = 80, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.n_mels = n_mels
        self._window = np.hamming(WINDOW + 1)[:-1].astype("float32")
        self._filters = mel_filters(n_mels).astype("float32")

    def call(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        waveform = ops.pad(waveform, [[0, 0], [WINDOW // 2, WINDOW // 2]])
        real, imaginary = ops.rfft(ops.extract_sequences(waveform, WINDOW, HOP) * self._window, WINDOW)
        power = ops.matmul(ops.square(real) + ops.square(imaginary), self._filters)
        decibels = 10 * ops.log10(ops.maximum(power, FLOOR))
        return ops.maximum(decibels, ops.max(decibels, axis=(1, 2), keepdims=True) - RANGE)

    @staticmethod
    def heard(samples: np.ndarray) -> np.ndarray:
        """Every sample: the last frame is centred on the last whole hop, and reaches beyond the end."""
        return samples

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None if input_shape[1] is None else 1 + input_shape[1] // HOP, self.n_mels)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_mels": self.n_mels}


def mel_filters(n_mels: int) -> np.ndarray:
    """
    SpeechBrain's triangles: their feet lie as far on both sides of the peak, in Hz, as the peak before it.

    Returns
    -------
    np.ndarray [shape=(201, n_mels)]
    """
    ends = 2595 * np.log10(1 + np.array([0.0, SAMPLE_RATE / 2]) / 700)
    feet = 700 * (10 ** (np.linspace(ends[0], ends[1], n_mels + 2) / 2595) - 1)
    width = np.diff(feet)[:-1]
    slope = (np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None] - feet[1:-1]) / width
    return np.maximum(0, np.minimum(slope + 1, 1 - slope))
