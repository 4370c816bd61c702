"""Speech that is cut or changed before it is embedded, with an encoder whose embeddings are written out."""

import math

import numpy as np
import pandas as pd
import pytest

from sv_utils.models import altered
from sv_utils.models.altered import Condition
from sv_utils.speech.reader import Speech

LEVELS, LENGTHS = [1000, 2000, 3000, 4000], [16_000, 64_000, 24_000, 40_000]


class Mean:
    """Has the direction (mean sample, 0.1), and remembers how many samples of how many utterances it heard."""

    output_shape = (None, 2)

    def __init__(self):
        self.count, self.sizes = 0, set()

    def predict_on_batch(self, waves):
        self.count, self.sizes = self.count + len(waves), self.sizes | {waves.shape[1]}
        vectors = np.stack([waves.mean(axis=1), np.full(len(waves), 0.1)], axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def speech(tmp_path):
    """Four utterances, each constant in its first second and twice as loud afterwards."""
    waves = [np.where(np.arange(n) < 16_000, level, 2 * level) for level, n in zip(LEVELS, LENGTHS)]
    np.concatenate(waves).astype("<i2").tofile(tmp_path / "s.pcm")
    offsets = np.cumsum([0, *LENGTHS[:-1]])
    return Speech(pd.DataFrame({"shard": "s.pcm", "offset": offsets, "samples": LENGTHS}), tmp_path)


def directions(means):
    return [[mean / math.hypot(mean, 0.1), 0.1 / math.hypot(mean, 0.1)] for mean in np.array(means) / 32768]


def test_conditions_are_cuts_whole_speech_and_where_wanted_a_telephone():
    assert [(c.name, c.seconds, c.change) for c in altered.conditions([1, 2])] == [
        ("1 s", 1, None),
        ("2 s", 2, None),
        ("full", math.inf, None),
    ]
    called = altered.conditions([1], telephone=np.negative)
    assert [(c.name, c.seconds, c.change) for c in called[2:]] == [
        ("telephone, 2 s", 2, np.negative),
        ("telephone", math.inf, np.negative),
    ]


def test_a_condition_cuts_first_and_changes_a_waveform_of_unit_scale():
    seen = []
    condition = Condition("x", 0.001, lambda wave: seen.append(wave) or wave / 2)
    changed = condition.apply(np.full(100, 16384, np.int16))
    assert len(seen[0]) == 16 and seen[0].dtype == np.float32 and (seen[0] == 0.5).all()
    assert changed.tolist() == [8192.0] * 16
    kept = np.arange(5, dtype=np.int16)
    assert Condition("full").apply(kept).tolist() == [0, 1, 2, 3, 4] and Condition("full").apply(kept).dtype == np.int16


def test_only_what_a_cut_shortens_is_embedded_again(speech):
    model, whole = Mean(), np.arange(8.0).reshape(4, 2).astype(np.float32)
    samples, embeddings = altered.embed_altered(model, speech, Condition("1 s", 1), whole)
    assert samples.tolist() == [16_000] * 4 and model.count == 3 and model.sizes == {16_000}
    assert embeddings[0].tolist() == [0.0, 1.0]  # as it was: the first lasts just 1 s
    np.testing.assert_allclose(embeddings[1:], directions([2000, 3000, 4000]), rtol=1e-5)
    assert whole.tolist() == np.arange(8.0).reshape(4, 2).tolist()


def test_whole_speech_is_not_embedded_again(speech):
    model, whole = Mean(), np.ones((4, 2), np.float32)
    samples, embeddings = altered.embed_altered(model, speech, Condition("full"), whole)
    assert samples.tolist() == LENGTHS and model.count == 0 and embeddings.tolist() == whole.tolist()


def test_a_change_is_heard_by_all_and_a_cut_beside_it_too(speech):
    def quieter(wave):
        return wave / 2

    whole = np.ones((4, 2), np.float32)
    samples, embeddings = altered.embed_altered(Mean(), speech, Condition("t", 1, quieter), whole)
    assert samples.tolist() == [16_000] * 4
    np.testing.assert_allclose(embeddings, directions([500, 1000, 1500, 2000]), rtol=1e-5)
    samples, embeddings = altered.embed_altered(Mean(), speech, Condition("t", change=quieter), whole)
    assert samples.tolist() == LENGTHS
    # of 4 s the first is half as loud as the others; of 1.5 s two thirds are
    np.testing.assert_allclose(embeddings, directions([500, 1000 * 1.75, 1500 * 4 / 3, 2000 * 1.6]), rtol=1e-5)
