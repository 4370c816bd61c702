"""How much of long recordings is computed at once, which bounds the memory, and how much of the last hop is heard."""

import keras
import numpy as np
import pytest

from sv_utils.models import embedding
from sv_utils.models.features import LogMel
from sv_utils.models.pretrained.kaldi import KaldiLogMel
from sv_utils.models.pretrained.redimnet2 import LevelledMel
from sv_utils.models.pretrained.speechbrain import DecibelMel


class Listener:
    """An encoder that remembers the shapes that it was given."""

    output_shape = (None, 2)

    def __init__(self):
        self.shapes = []

    def predict_on_batch(self, waveforms):
        self.shapes.append(waveforms.shape)
        return np.ones((len(waveforms), 2), np.float32)


def shapes(count, seconds):
    listener, sound = Listener(), np.ones(seconds * 16_000, np.int16)
    embedding.embed(listener, [len(sound)] * count, lambda _: sound, batch_size=32)
    return listener.shapes


def test_more_than_a_minute_is_heard_in_parts():
    assert shapes(1, 60) == [(1, 960_000)]
    assert shapes(1, 61) == [(2, 488_000)]


def test_the_longer_the_fewer_at_once():
    assert shapes(32, 5) == [(32, 80_000)]
    assert shapes(32, 10) == [(16, 160_000)] * 2


@pytest.mark.parametrize("layer", [LevelledMel(), DecibelMel(), KaldiLogMel(), LogMel()])
def test_what_an_embedding_leaves_out_its_front_end_does_not_hear(layer):
    """Of the last hop; ReDimNet2 and SpeechBrain hear it, and an utterance of 3 s was 0.97 and not 1 alike."""
    waveform = keras.Input((None,))
    model = keras.Model(waveform, layer(waveform))
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 8123)).astype("float32")
    kept = int(embedding._heard(model)(np.array([8123]))[0])
    np.testing.assert_allclose(np.asarray(model(sound[:, :kept])), np.asarray(model(sound)), atol=1e-3)
