"""The length of a vector, a measure of quality, of a file that hears a recording in parts."""

import numpy as np
import pytest

from sv_utils.models.runtimes import Exported


def test_a_vector_of_parts_has_their_mean_length():
    encoder = object.__new__(Exported)
    encoder._batch, encoder._samples = None, 100
    encoder._run = lambda waves: np.abs(waves[:, :1]) * np.array([[3.0, 4.0]])
    waveforms = np.repeat(np.array([[1.0] * 100 + [3.0] * 100]), 2, axis=0)
    found = encoder.predict_on_batch(waveforms)
    assert found == pytest.approx(np.array([[6.0, 8.0]] * 2))
