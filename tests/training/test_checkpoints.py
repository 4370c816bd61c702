"""Statistics of averaged weights: from how many batches, and what becomes of the layers' momentum."""

from types import SimpleNamespace

import numpy as np
from small_training import small_encoder

from sv_utils.training import checkpoints, loop, schedules


def test_statistics_come_from_the_first_fifty_batches_of_the_phase(monkeypatch):
    taken = []
    monkeypatch.setattr(loop.checkpoints, "renew_statistics", lambda _, batches: taken.extend(batches))
    before, after = (SimpleNamespace(batch=lambda step, of=of: ((of, step), None)) for of in ("before", "after"))
    crops = [before, SimpleNamespace(batch=lambda step: (step, None)), after]
    training = SimpleNamespace(crops=crops, encoder=None, _progress=SimpleNamespace(phase=1, step=60))
    loop.Training._renew_statistics(training)
    assert taken == list(range(50))
    training._progress.step, taken[:] = 3, []
    loop.Training._renew_statistics(training)
    assert taken == [0, 1, 2]  # no more than it was trained on


def test_the_momentum_is_as_it_was_afterwards():
    encoder = small_encoder()
    layers = schedules.normalizations(encoder)
    before = [layer.momentum for layer in layers]
    checkpoints.renew_statistics(encoder, [np.ones((2, 8_000), np.float32)] * 3)
    assert before and [layer.momentum for layer in layers] == before
