"""Kaldi's log mel filter bank as a Keras layer: the front end that most published speaker encoders were trained on."""

from typing import Any

import keras
import numpy as np
from keras import ops

from sv_utils.base.errors import RequestError, nearest
from sv_utils.models.features import HOP, SAMPLE_RATE, WINDOW, InstanceNormalization

FFT_LENGTH = 512
LOW = 20.0  # lower foot of the first band; the upper foot of the last is at half the sample rate [Hz]
PRE_EMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float32).eps)
# Windows, and what the waveform in [-1, 1) is multiplied with before: 3D-Speaker leaves it as it is, wespeaker takes
# int16. In loud speech that makes no difference, for the mean is taken away; the floor lies 90 dB apart.
WINDOWS = {"povey": (np.hanning(WINDOW) ** 0.85, 1.0), "hamming": (np.hamming(WINDOW), 32768.0)}


def front_end(waveform: keras.KerasTensor, window: str = "povey", n_mels: int = 80) -> keras.KerasTensor:
    """
    Add Kaldi's log mel, less its mean over the utterance, to a functional model.

    Returns
    -------
    KerasTensor [shape=(batch, frames, n_mels, 1)]
    """
    x = InstanceNormalization(variance=False)(KaldiLogMel(n_mels, window)(waveform))
    return keras.layers.Reshape((-1, n_mels, 1))(x)


@keras.saving.register_keras_serializable(package="sv_utils")
class KaldiLogMel(keras.layers.Layer):
    """
    Natural logarithm of the power in triangular mel bands, computed as Kaldi does, without dither.

    Only whole windows count (``snip_edges``): frame ``t`` holds the samples 160 t to 160 t + 399. Its mean is taken
    away, then ``x[i] - 0.97 x[i - 1]`` (the first sample against itself), then comes the window.

    Parameters
    ----------
    n_mels : int
        Number of bands.
    window : str
        ``"povey"``, a Hann window to the power of 0.85, on the waveform as it is; ``"hamming"`` on int16.

    Call: waveform [shape=(batch, samples)] in [-1, 1) at 16 kHz, 400 samples at least →
    [shape=(batch, 1 + (samples - 400) // 160, n_mels)].

    References
    ----------
    Povey et al.: The Kaldi speech recognition toolkit, ASRU 2011; ``kaldi_native_fbank`` is the same.
    """

    def __init__(self, n_mels: int = 80, window: str = "povey", **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if window not in WINDOWS:
            raise RequestError(f"window: there is no {window!r}{nearest(window, WINDOWS)}")
        self.n_mels, self.window = n_mels, window
        shape, scale = WINDOWS[window]
        self._window = (shape * scale).astype("float32")  # all before it is linear
        self._filters = mel_filters(n_mels).astype("float32")

    def call(self, waveform: keras.KerasTensor) -> keras.KerasTensor:
        frames = ops.extract_sequences(waveform, WINDOW, HOP)
        frames = frames - ops.mean(frames, axis=-1, keepdims=True)
        previous = ops.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
        real, imaginary = ops.rfft((frames - PRE_EMPHASIS * previous) * self._window, FFT_LENGTH)
        power = ops.matmul(ops.square(real) + ops.square(imaginary), self._filters)
        return ops.log(ops.maximum(power, ENERGY_FLOOR))

    @staticmethod
    def heard(samples: np.ndarray) -> np.ndarray:
        """Up to the end of the last whole window [samples]; the rest makes no difference."""
        return WINDOW + (samples - WINDOW) // HOP * HOP

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        frames = None if input_shape[1] is None else 1 + (input_shape[1] - WINDOW) // HOP
        return (input_shape[0], frames, self.n_mels)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_mels": self.n_mels, "window": self.window}


def mel_filters(n_mels: int) -> np.ndarray:
    """
    Triangles that are straight on the mel scale ``1127 ln(1 + f / 700)`` (`features.mel_filters` are straight in Hz).

    Returns
    -------
    np.ndarray [shape=(257, n_mels)]
        The bin at half the sample rate has no weight.
    """
    ends = _mel(np.array([LOW, SAMPLE_RATE / 2]))
    feet = np.linspace(ends[0], ends[1], n_mels + 2)
    mel = _mel(np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE / FFT_LENGTH)[:, None]
    rising = (mel - feet[:-2]) / (feet[1:-1] - feet[:-2])
    falling = (feet[2:] - mel) / (feet[2:] - feet[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def _mel(frequency: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(frequency / 700)
