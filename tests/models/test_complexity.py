"""Multiplications counted by hand, and of the network whose published count is known."""

import keras
import numpy as np
import pytest

from sv_utils.models import complexity, encoders


def test_count_by_hand():
    waveform = keras.Input((None,))
    x = keras.layers.Reshape((-1, 1))(waveform)
    x = keras.layers.Conv1D(3, 5, strides=2, padding="same")(x)  # 5 places, 5 taps, 3 filters
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(waveform, keras.layers.Dense(4)(x))  # 3 x 4
    assert complexity.multiply_accumulates(model, 10) == 5 * 5 * 3 + 12
    assert complexity.multiply_accumulates(model, 20) == 10 * 5 * 3 + 12


def test_thin_resnet_34_costs_what_is_published_of_it_and_is_left_as_it_was():
    model = encoders.build()
    waveform = np.linspace(-0.1, 0.1, 16_000, dtype="float32")[None]
    before = np.asarray(model(waveform))
    # wespeaker says 4.55 G for 2 s (200 frames); here there are 202
    assert complexity.multiply_accumulates(model, 32_000) == pytest.approx(4.55e9, rel=0.02)
    np.testing.assert_array_equal(np.asarray(model(waveform)), before)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_recurrent_layers_count_at_each_frame_of_each_piece():
    waveform = keras.Input((None,))
    x = keras.layers.LSTM(6)(keras.layers.Reshape((-1, 2))(waveform))
    model = keras.Model(waveform, keras.layers.Dense(3)(x))
    assert complexity.multiply_accumulates(model, 10) == 5 * 4 * 6 * (2 + 6) + 6 * 3
    assert complexity.multiply_accumulates(model, 10) == 5 * 4 * 6 * (2 + 6) + 6 * 3  # and is left as it was


def test_properties_of_an_encoder():
    waveform = keras.Input((None,))
    x = keras.layers.Conv1D(3, 5, padding="same")(keras.layers.Reshape((-1, 1))(waveform))
    model = keras.Model(waveform, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(x)))
    found = complexity.properties(model)
    assert found == {"parameters": 15 + 3 + 12 + 4, "dimensions": 4, "macs_of_3_s": 48_000 * 15 + 12}
