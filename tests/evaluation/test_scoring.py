"""Cosine scores against numbers written out."""

import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import scoring


def test_normalise():
    assert scoring.normalise(np.array([[3.0, 4.0], [0.0, -2.0]])).tolist() == [[0.6, 0.8], [0.0, -1.0]]


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_embeddings_without_direction_are_refused(bad):
    embeddings = np.array([[1.0, 0.0], [bad, bad * 0]])
    for function in (scoring.normalise, lambda e: scoring.cosine(e, np.array([0]), np.array([0]))):
        with pytest.raises(RequestError, match="1 of 2 embeddings are zero or not finite, first that of row 1"):
            function(embeddings)


def test_subtract_mean():
    moved = scoring.subtract_mean(np.array([[4.0, 4.0]]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(moved, [[0.6, 0.8]])


def test_group_means_weigh_each_utterance_alike():
    embeddings = np.array([[9.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 7.0]])
    names, means = scoring.group_means(embeddings, ["b", "a", "b", "a"])
    assert names.tolist() == ["a", "b"]
    np.testing.assert_allclose(means, [[0, 1], [math.sqrt(0.5), math.sqrt(0.5)]])


def test_cosine_of_any_length_in_blocks(monkeypatch):
    monkeypatch.setattr(scoring, "TRIALS_PER_BLOCK", 3)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20, 8)).astype(np.float32)
    enrol, test = rng.integers(20, size=(2, 10))
    expected = [float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)) for a, b in zip(embeddings[enrol], embeddings[test])]
    np.testing.assert_allclose(scoring.cosine(embeddings, enrol, test), expected, atol=1e-6)
    assert scoring.cosine(np.array([[3.0, 4.0], [8.0, -6.0]]), np.array([0, 0]), np.array([0, 1])).tolist() == [
        1.0,
        0.0,
    ]
