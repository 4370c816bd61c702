"""
The front end as Keras layers: a waveform goes in, normalised time-frequency frames come out.

Frames are 25 ms of a periodic Hamming window every 10 ms. Frame ``t`` is centred between samples 160 t + 79 and
160 t + 80 of the waveform, of which 120 samples are reflected at both ends, so that ``n`` samples give exactly
``n // 160`` frames (3 s give 300); what is left over of the last hop is not heard. Every layer computes in float32
whatever the policy of the model: log power spans more than bfloat16 resolves.
"""

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

SAMPLE_RATE = 16_000  # [Hz]
WINDOW = 400  # 25 ms [samples]
HOP = 160  # 10 ms [samples]
# Power that the rounding to int16 leaves in a bin (159 * 32768**-2 / 12): below it there is nothing to hear, and with
# it digital silence has a finite logarithm.
POWER_FLOOR = 1e-8

Shape = tuple[int | None, ...]  # None: any number


class _Spectrum(keras.layers.Layer):
    """Short-time power spectrum of a waveform, with optional pre-emphasis; parent of both front ends."""

    fft_length: int

    def __init__(self, pre_emphasis: float = 0.97, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.pre_emphasis = pre_emphasis
        self._window = np.hamming(WINDOW + 1)[:-1].astype("float32")

    def power(self, waveform: KerasTensor) -> KerasTensor:
        """Waveform [shape=(batch, samples)] → power [shape=(batch, samples // 160, fft_length // 2 + 1)]."""
        waveform = waveform[:, : ops.shape(waveform)[1] // HOP * HOP]
        if self.pre_emphasis:
            previous = ops.concatenate([waveform[:, :1], waveform[:, :-1]], axis=1)
            waveform = waveform - self.pre_emphasis * previous
        edge, around = (WINDOW - HOP) // 2, (self.fft_length - WINDOW) // 2
        waveform = ops.pad(waveform, [[0, 0], [edge, edge]], mode="reflect")
        # keras.ops.stft sets the window in the middle of fft_length samples: these zeros meet only zeros of the window.
        waveform = ops.pad(waveform, [[0, 0], [around, around]])
        real, imaginary = ops.stft(waveform, WINDOW, HOP, self.fft_length, window=self._window, center=False)
        return ops.square(real) + ops.square(imaginary)

    def _frames(self, input_shape: Shape) -> int | None:
        return None if input_shape[1] is None else input_shape[1] // HOP

    def get_config(self) -> dict:
        return {**super().get_config(), "pre_emphasis": self.pre_emphasis}


@keras.saving.register_keras_serializable(package="sv_utils")
class LogSpectrogram(_Spectrum):
    """
    Natural logarithm of the power spectrum in 512 bins of 15.6 Hz (3 s: 512 x 300).

    Bin 0 (the mean of a frame, which tells of the sound card and not of the voice) is left out, so that bin ``k`` is
    centred on 15.625 (k + 1) Hz.

    Parameters
    ----------
    pre_emphasis : float
        Coefficient a of ``x[t] - a x[t - 1]``; 0 for none.

    Call: waveform [shape=(batch, samples)] in [-1, 1) at 16 kHz → [shape=(batch, samples // 160, 512)].

    Examples
    --------
    >>> tuple(LogSpectrogram()(np.zeros((1, 48000), "float32")).shape)
    (1, 300, 512)
    """

    fft_length = 1024

    def call(self, waveform: KerasTensor) -> KerasTensor:
        return ops.log(self.power(waveform)[..., 1:] + POWER_FLOOR)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self._frames(input_shape), self.fft_length // 2)


@keras.saving.register_keras_serializable(package="sv_utils")
class LinearSpectrogram(LogSpectrogram):
    """
    Magnitudes in the bins of `LogSpectrogram`, the input of the VoxCeleb papers, in steps of int16.

    (In those, what `InstanceNormalization` adds to the variance is less than the rounding of the recording.)

    Parameters
    ----------
    pre_emphasis : float
        Coefficient a of ``x[t] - a x[t - 1]``; 0 for none.

    Call: waveform [shape=(batch, samples)] in [-1, 1) at 16 kHz → [shape=(batch, samples // 160, 512)].

    References
    ----------
    Nagrani, Chung, Zisserman: VoxCeleb: a large-scale speaker identification dataset, arXiv 1706.08612, section 4.1.
    """

    def call(self, waveform: KerasTensor) -> KerasTensor:
        return 32768 * ops.sqrt(self.power(waveform)[..., 1:])


@keras.saving.register_keras_serializable(package="sv_utils")
class LogMel(_Spectrum):
    """
    Natural logarithm of the power in triangular mel bands (20 to 7600 Hz) of a 512-point spectrum.

    Parameters
    ----------
    n_mels : int
        Number of bands.
    pre_emphasis : float
        Coefficient a of ``x[t] - a x[t - 1]``; 0 for none.

    Call: waveform [shape=(batch, samples)] in [-1, 1) at 16 kHz → [shape=(batch, samples // 160, n_mels)].
    """

    fft_length = 512

    def __init__(self, n_mels: int = 80, pre_emphasis: float = 0.97, **kwargs: Any):
        super().__init__(pre_emphasis=pre_emphasis, **kwargs)
        self.n_mels = n_mels
        self._filters = mel_filters(n_mels, self.fft_length).astype("float32")

    def call(self, waveform: KerasTensor) -> KerasTensor:
        return ops.log(ops.matmul(self.power(waveform), self._filters) + POWER_FLOOR)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self._frames(input_shape), self.n_mels)

    def get_config(self) -> dict:
        return {**super().get_config(), "n_mels": self.n_mels}


def mel_filters(n_mels: int, fft_length: int, low: float = 20.0, high: float = 7600.0) -> np.ndarray:
    """
    Triangular filters, evenly spaced on the mel scale ``2595 log10(1 + f / 700)``, each with its peak at 1.

    Parameters
    ----------
    n_mels : int
        Number of bands.
    fft_length : int
        Points of the Fourier transform at 16 kHz.
    low, high : float
        Lower foot of the first and upper foot of the last triangle [Hz].

    Returns
    -------
    np.ndarray [shape=(fft_length // 2 + 1, n_mels)]

    References
    ----------
    Young et al.: The HTK Book, section 5.4 (``librosa.filters.mel(htk=True, norm=None)`` is the same).
    """
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    mel = np.linspace(ends[0], ends[1], n_mels + 2)
    feet = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.arange(fft_length // 2 + 1)[:, None] * SAMPLE_RATE / fft_length
    rising = (frequencies - feet[:-2]) / (feet[1:-1] - feet[:-2])
    falling = (feet[2:] - frequencies) / (feet[2:] - feet[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


@keras.saving.register_keras_serializable(package="sv_utils")
class InstanceNormalization(keras.layers.Layer):
    """
    Take each bin's mean over the time of the utterance away and divide by its standard deviation.

    Parameters
    ----------
    variance : bool
        False subtracts the mean only, the field's habit with log mel.

    Call: features [shape=(batch, frames, bins)] → the same shape. A bin that never changes becomes 0.
    """

    def __init__(self, variance: bool = True, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.variance = variance

    def call(self, features: KerasTensor) -> KerasTensor:
        features = features - ops.mean(features, axis=1, keepdims=True)
        if not self.variance:
            return features
        return features * ops.rsqrt(ops.mean(ops.square(features), axis=1, keepdims=True) + 1e-5)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "variance": self.variance}


@keras.saving.register_keras_serializable(package="sv_utils")
class Deltas(keras.layers.Layer):
    """
    Stack features with their first and second differences in time as three channels.

    The difference is the slope of a line fitted to 2 N + 1 = 9 frames,
    ``d[t] = sum_n n (c[t + n] - c[t - n]) / (2 sum_n n**2)`` for n = 1 … N; the second difference is that of the first.
    Beyond the ends the first and last frame repeat.

    Call: features [shape=(batch, frames, bins)] → [shape=(batch, frames, bins, 3)].

    References
    ----------
    Young et al.: The HTK Book, section 5.9 (``librosa.feature.delta(width=9, mode="nearest")`` is the same).
    """

    reach = 4  # N [frames]

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, features: KerasTensor) -> KerasTensor:
        first = self._slope(features)
        return ops.stack([features, first, self._slope(first)], axis=-1)

    def _slope(self, features: KerasTensor) -> KerasTensor:
        n, frames = self.reach, ops.shape(features)[1]
        ends = [ops.repeat(features[:, :1], n, axis=1), features, ops.repeat(features[:, -1:], n, axis=1)]
        padded = ops.concatenate(ends, axis=1)
        steps = range(1, n + 1)
        rise = sum(k * (padded[:, n + k : n + k + frames] - padded[:, n - k : n - k + frames]) for k in steps)
        return rise / (2 * sum(k * k for k in steps))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, 3)


@keras.saving.register_keras_serializable(package="sv_utils")
class SpecAugment(keras.layers.Layer):
    """
    In training, set one run of frames and one run of bins of each utterance to 0, the mean after normalisation.

    The widths are drawn evenly from 0 to what is given, the places evenly from all that hold them. Outside training
    nothing happens. The state of the draws is a variable: saved with the model, and with the training's checkpoint.

    Parameters
    ----------
    frames, bins : int
        Widest runs; at least as many frames and bins must come in.
    seed : int, optional
        None takes it from ``keras.utils.set_random_seed``.

    Call: features [shape=(batch, frames, bins)] → the same shape.

    References
    ----------
    Park et al.: SpecAugment: a simple data augmentation method for automatic speech recognition, arXiv 1904.08779,
    section 2 (one mask each, no warping).
    """

    def __init__(self, frames: int = 10, bins: int = 8, seed: int | None = None, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.frames, self.bins, self.seed = frames, bins, seed
        self._draws = keras.random.SeedGenerator(seed)

    def call(self, features: KerasTensor, training: bool = False) -> KerasTensor:
        if not training:
            return features
        batch, frames, bins = ops.shape(features)
        heard = self._kept(batch, frames, self.frames)[:, :, None] * self._kept(batch, bins, self.bins)[:, None]
        return features * heard

    def _kept(self, batch: int, size: int, widest: int) -> KerasTensor:
        """0 in a run of each row, 1 elsewhere [shape=(batch, size)]."""
        width = ops.floor(keras.random.uniform((batch, 1), seed=self._draws) * (widest + 1))
        room = ops.cast(size, "float32") - width
        first = ops.floor(keras.random.uniform((batch, 1), seed=self._draws) * (room + 1))
        place = ops.cast(ops.arange(size), "float32")[None]
        return 1.0 - ops.cast(ops.logical_and(place >= first, place < first + width), "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "frames": self.frames, "bins": self.bins, "seed": self.seed}
