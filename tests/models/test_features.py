"""The front end against librosa and NumPy."""

import keras
import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_utils.models.features import (
    POWER_FLOOR,
    Deltas,
    InstanceNormalization,
    LinearSpectrogram,
    LogMel,
    LogSpectrogram,
    mel_filters,
)


def noise(*shape):
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype("float32")


def reference_power(waveform, fft_length, pre_emphasis):
    """Power of frames of 400 samples every 160, by librosa in float64 [shape=(frames, bins)]."""
    waveform = waveform.astype("float64")
    if pre_emphasis:
        waveform = librosa.effects.preemphasis(waveform, coef=pre_emphasis, zi=[-pre_emphasis * waveform[0]])
    padded = np.pad(np.pad(waveform, 120, mode="reflect"), (fft_length - 400) // 2)
    spectrum = librosa.stft(padded, n_fft=fft_length, hop_length=160, win_length=400, window="hamming", center=False)
    return np.abs(spectrum.T) ** 2


@pytest.mark.parametrize("pre_emphasis", [0, 0.97])
def test_log_spectrogram_is_librosas(pre_emphasis):
    waveform = noise(2, 48000)
    features = np.asarray(LogSpectrogram(pre_emphasis=pre_emphasis)(waveform))
    assert features.shape == (2, 300, 512)
    expected = reference_power(waveform[1], 1024, pre_emphasis)[:, 1:] + 1e-8
    np.testing.assert_allclose(np.exp(features[1]), expected, rtol=1e-4, atol=1e-6)


def test_log_mel_is_librosas():
    waveform = noise(2, 48000)
    features = np.asarray(LogMel()(waveform))
    assert features.shape == (2, 300, 80)
    filters = librosa.filters.mel(sr=16000, n_fft=512, n_mels=80, fmin=20, fmax=7600, htk=True, norm=None)
    expected = np.log(reference_power(waveform[1], 512, 0.97) @ filters.T + 1e-8)
    np.testing.assert_allclose(features[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_mels", "fft_length"), [(80, 512), (40, 1024)])
def test_mel_filters_are_librosas(n_mels, fft_length):
    expected = librosa.filters.mel(sr=16000, n_fft=fft_length, n_mels=n_mels, fmin=20, fmax=7600, htk=True, norm=None)
    np.testing.assert_allclose(mel_filters(n_mels, fft_length), expected.T, atol=1e-6)
    assert mel_filters(n_mels, fft_length).max(axis=0).min() > 0.4, "every band hears something"


def test_a_tone_lies_in_its_bin_and_its_frame():
    """1 kHz is bin 63 of 15.625 (k + 1) Hz, but where the ends are reflected; a click in hop 7 is in frame 7."""
    tone = np.sin(2 * np.pi * 1000 / 16000 * np.arange(16000))[None].astype("float32")
    assert set(np.asarray(LogSpectrogram(pre_emphasis=0)(tone))[0, 1:-1].argmax(-1)) == {63}
    click = np.zeros((1, 3200), "float32")
    click[0, 160 * 7 + 80] = 1
    assert np.asarray(LogMel(pre_emphasis=0)(click)).mean(-1).argmax() == 7


@settings(max_examples=10, deadline=None)
@given(st.integers(160, 2000))
def test_frames_are_whole_hops_and_the_rest_is_not_heard(samples):
    waveform = noise(1, 2000)[:, :samples]
    features = np.asarray(LogMel()(waveform))
    assert features.shape == (1, samples // 160, 80)
    np.testing.assert_array_equal(features, np.asarray(LogMel()(waveform[:, : samples // 160 * 160])))


@pytest.mark.parametrize("layer", [LogSpectrogram(), LogMel()])
@pytest.mark.parametrize("samples", [160, 8000])
def test_silence_is_finite(layer, samples):
    features = Deltas()(InstanceNormalization()(layer(np.zeros((1, samples), "float32"))))
    np.testing.assert_allclose(np.asarray(features), 0, atol=1e-3)


def test_instance_normalization():
    features = np.array([[[1, 5], [2, 5], [6, 5]]], "float32")
    centred = [[[-2, 0], [-1, 0], [3, 0]]]
    np.testing.assert_allclose(np.asarray(InstanceNormalization(variance=False)(features)), centred)
    scaled = np.array(centred) / [np.sqrt(14 / 3), 1]
    np.testing.assert_allclose(np.asarray(InstanceNormalization()(features)), scaled, rtol=1e-5)


def test_deltas_are_librosas():
    features = noise(2, 50, 7)
    stacked = np.asarray(Deltas()(features))
    assert stacked.shape == (2, 50, 7, 3)
    first = librosa.feature.delta(features, width=9, axis=1, mode="nearest")
    np.testing.assert_array_equal(stacked[..., 0], features)
    np.testing.assert_allclose(stacked[..., 1], first, atol=1e-6)
    second = librosa.feature.delta(first, width=9, axis=1, mode="nearest")
    np.testing.assert_allclose(stacked[..., 2], second, atol=1e-6)


def test_deltas_of_a_ramp():
    """A slope of 3 a frame has the difference 3 and the second difference 0, away from the ends."""
    ramp = 3 * np.arange(30, dtype="float32")[None, :, None]
    np.testing.assert_allclose(np.asarray(Deltas()(ramp))[0, 8:-8, 0, 1:], [[3, 0]] * 14, atol=1e-5)
    np.testing.assert_allclose(np.asarray(Deltas()(ramp[:, :1]))[0, 0, 0], [0, 0, 0])


def test_the_front_end_stays_in_float32_under_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = [LogMel(), LogSpectrogram(), InstanceNormalization(), Deltas()]
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in layers} == {"float32"}


def test_linear_spectrogram_is_the_magnitude_in_steps_of_int16():
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 1600)).astype("float32")
    found = np.asarray(LinearSpectrogram()(waveform))
    power = np.exp(np.asarray(LogSpectrogram()(waveform), "float64")) - POWER_FLOOR
    np.testing.assert_allclose((found / 32768) ** 2, power, rtol=1e-4, atol=1e-11)
    assert not np.asarray(InstanceNormalization()(LinearSpectrogram()(np.zeros((1, 1600), "float32")))).any()
    quiet = np.rint(np.random.default_rng(1).normal(size=(1, 16_000))).astype("float32") / 32768  # of one step of int16
    spread = np.asarray(InstanceNormalization()(LinearSpectrogram()(quiet))).std(axis=1)
    np.testing.assert_allclose(spread, 1, atol=1e-3)
