"""How much of long recordings is computed at once: what bounds the memory."""

import numpy as np

from sv_utils.models import embedding


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
