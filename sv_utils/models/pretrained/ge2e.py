"""
The speaker encoder of "Generalized end-to-end loss for speaker verification" (Wan et al., 2018, arXiv 1710.10467) as
the package Resemblyzer has it, in Keras: power in 40 mel bands, three LSTM layers over windows of 1.6 s, their mean.

Resemblyzer also cuts silences out beforehand, with a detector of its own; that is left out here.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from sv_utils.base.errors import RequestError
from sv_utils.models.encoders import UnitVectors
from sv_utils.models.features import HOP, SAMPLE_RATE, WINDOW

UNITS, LAYERS, MELS = 256, 3, 40
PARTIAL, STEP = 160, 77  # length of a window, and from one to the next [frames]
COVERAGE = 0.75  # a last window that has less speech is left out
LOUDNESS = -30.0  # quieter utterances are raised to this [dBFS]


def build() -> keras.Model:
    """
    Build the encoder with fresh weights.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz → unit vectors [shape=(batch, 256)].
    """
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = WindowedVoice(name="windowed_voice")(PartialMels(name="partial_mels")(waveform))
    return keras.Model(waveform, UnitVectors(name="unit_vectors")(x), name="ge2e")


@keras.saving.register_keras_serializable(package="sv_utils")
class PartialMels(layers.Layer):
    """
    Power in 40 mel bands of windows of 1.6 s, one every 0.77 s; the last is filled up with silence.

    Call: waveform [shape=(batch, samples)] → [shape=(batch, windows, 160, 40)].
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self._hann = np.hanning(WINDOW + 1)[:-1].astype("float32")
        self._filters = mel_filters().astype("float32")

    def call(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        waveform = waveform * ops.maximum(1.0, 10 ** (LOUDNESS / 20) / (_root_mean_square(waveform) + 1e-12))
        windows = _windows(ops.shape(waveform)[1])
        waveform = ops.pad(waveform, [[0, 0], [WINDOW // 2, PARTIAL * HOP + WINDOW // 2]])
        frames = ops.extract_sequences(waveform, WINDOW, HOP) * self._hann
        real, imaginary = ops.rfft(frames, WINDOW)
        mels = ops.matmul(ops.square(real) + ops.square(imaginary), self._filters)
        starts = ops.arange(windows, dtype="int32") * STEP
        places = ops.expand_dims(starts, 1) + ops.arange(PARTIAL, dtype="int32")
        return ops.reshape(ops.take(mels, ops.reshape(places, (-1,)), axis=1), (-1, windows, PARTIAL, MELS))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], None if input_shape[1] is None else _windows(input_shape[1]), PARTIAL, MELS)


def _root_mean_square(waveform: keras.KerasTensor) -> keras.KerasTensor:
    return ops.sqrt(ops.mean(ops.square(waveform), axis=1, keepdims=True))


def _windows(samples: Any) -> Any:
    """How many windows an utterance has, an integer or a tensor as `samples` is."""
    frames = samples // HOP + 1
    windows = (ops if not isinstance(samples, int) else np).maximum(1, -(-(frames - PARTIAL + STEP + 1) // STEP))
    start = (windows - 1) * STEP * HOP
    dropped = (windows > 1) & (samples - start < int(COVERAGE * PARTIAL * HOP))
    return windows - (int(dropped) if isinstance(samples, int) else ops.cast(dropped, windows.dtype))


def mel_filters() -> np.ndarray:
    """
    Slaney's triangles: straight below 1 kHz, logarithmic above, of equal area (``librosa.filters.mel`` is the same).

    Returns
    -------
    np.ndarray [shape=(201, 40)]
    """
    mels = np.linspace(0, 15 + np.log(8.0) / (np.log(6.4) / 27), MELS + 2)
    feet = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    frequencies = np.arange(WINDOW // 2 + 1)[:, None] * SAMPLE_RATE / WINDOW
    rising = (frequencies - feet[:-2]) / (feet[1:-1] - feet[:-2])
    falling = (feet[2:] - frequencies) / (feet[2:] - feet[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (feet[2:] - feet[:-2])


@keras.saving.register_keras_serializable(package="sv_utils")
class WindowedVoice(layers.Layer):
    """
    Three LSTM layers over each window; the last state through a dense layer with ReLU, to unit length; their mean.

    Call: [shape=(batch, windows, 160, 40)] → [shape=(batch, 256)].
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.lstms = [layers.LSTM(UNITS, return_sequences=i + 1 < LAYERS, name=f"lstm{i}") for i in range(LAYERS)]
        self.linear = layers.Dense(UNITS, "relu", name="linear")
        self.unit = UnitVectors()

    def build(self, input_shape: tuple) -> None:
        for number, lstm in enumerate(self.lstms):
            lstm.build((None, PARTIAL, UNITS if number else MELS))
        self.linear.build((None, UNITS))

    def call(self, partials: keras.KerasTensor) -> keras.KerasTensor:
        x = ops.reshape(partials, (-1, PARTIAL, MELS))
        for lstm in self.lstms:
            x = lstm(x)
        voices = self.unit(self.linear(x))
        return ops.mean(ops.reshape(voices, (-1, ops.shape(partials)[1], UNITS)), axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], UNITS)


def assign(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """
    Put the arrays of the original checkpoint into a model of `build`.

    Raises
    ------
    RequestError
        If an array is missing or has another shape.
    """
    voice = model.get_layer("windowed_voice")
    try:
        for i, lstm in enumerate(voice.lstms):
            bias = state[f"lstm.bias_ih_l{i}"] + state[f"lstm.bias_hh_l{i}"]  # the gates stand in the same order
            lstm.set_weights([state[f"lstm.weight_ih_l{i}"].T, state[f"lstm.weight_hh_l{i}"].T, bias])
        voice.linear.set_weights([state["linear.weight"].T, state["linear.bias"]])
    except (KeyError, ValueError) as error:
        raise RequestError(f"the checkpoint is not the expected model ({error})") from None
