"""Score normalisation against numbers written out and its parts."""

import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import normalisation, scoring
from sv_utils.evaluation.normalisation import Cohort

COHORT = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])


def test_cohort_statistics_written_out():
    # scores of (1, 0): 1, 0.8, 0.6, 0, -1; of (0, 2): 0, 0.6, 0.8, 1, 0
    embeddings = np.array([[1.0, 0.0], [0.0, 2.0]])
    mean, deviation = normalisation.cohort_statistics(embeddings, COHORT, top_k=2)
    np.testing.assert_allclose(mean, [0.9, 0.9])
    np.testing.assert_allclose(deviation, [0.1, 0.1])
    for top_k in (None, 300):
        mean, deviation = normalisation.cohort_statistics(embeddings, COHORT, top_k)
        np.testing.assert_allclose(mean, [0.28, 0.48])
        np.testing.assert_allclose(deviation, [math.sqrt(2.608 / 5), math.sqrt(0.848 / 5)])


def test_as_norm_written_out():
    # trial (1, 0)-(0.6, 0.8), score 0.6, top 3: of (1, 0) 1, 0.8, 0.6; of (0.6, 0.8) 1, 0.96, 0.8
    embeddings = np.array([[1.0, 0.0], [0.6, 0.8]])
    mean, deviation = normalisation.cohort_statistics(embeddings, COHORT, top_k=3)
    normalised = normalisation.score_norm(np.array([0.6]), np.array([0]), np.array([1]), mean, deviation)
    enrol_side = (0.6 - 0.8) / math.sqrt(0.08 / 3)
    test_side = (0.6 - 0.92) / math.sqrt((0.08**2 + 0.04**2 + 0.12**2) / 3)
    assert normalised.tolist() == pytest.approx([(enrol_side + test_side) / 2])


def test_cohort_statistics_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    embeddings, cohort = rng.normal(size=(31, 6)).astype("float32"), rng.normal(size=(40, 6)).astype("float32")
    whole = normalisation.cohort_statistics(embeddings, cohort, 7)
    assert {values.dtype.name for values in whole} == {"float32"}
    crowd = rng.normal(size=(310, 6))
    said = [normalisation.cohort_statistics(embeddings, crowd, *top_k)[0].tolist() for top_k in ((), (300,), (301,))]
    assert said[0] == said[1] != said[2]
    monkeypatch.setattr(normalisation, "SCORES_PER_BLOCK", 100)
    np.testing.assert_allclose(normalisation.cohort_statistics(embeddings, cohort, 7), whole)


def test_a_cohort_that_tells_nothing_is_refused():
    with pytest.raises(RequestError, match="nearest 1 of the cohort give equal scores"):
        normalisation.cohort_statistics(np.eye(2), COHORT, top_k=1)


def test_cohort_scores_as_its_parts_do():
    rng = np.random.default_rng(0)
    train, names = rng.normal(size=(40, 5)) + 0.3, np.repeat(list("abcdefgh"), 5)
    embeddings, sides = rng.normal(size=(6, 5)), (np.array([0, 1, 2]), np.array([3, 4, 5]))
    cohort = Cohort.of(train, names, top_k=3)
    assert len(cohort) == 8 and Cohort.of(train, names).top_k == 300
    moved = scoring.subtract_mean(embeddings, train.mean(axis=0))
    speakers = np.stack(
        [scoring.subtract_mean(train, train.mean(axis=0))[names == name].mean(axis=0) for name in "abcdefgh"]
    )
    against = np.sort(moved @ (speakers / np.linalg.norm(speakers, axis=1, keepdims=True)).T, axis=1)[:, -3:]
    scores, nearness = cohort.as_norm(embeddings, *sides)
    np.testing.assert_allclose(nearness, against.mean(axis=1))
    z = [((moved[:3] * moved[3:]).sum(axis=1) - against.mean(axis=1)[s]) / against.std(axis=1)[s] for s in sides]
    np.testing.assert_allclose(scores, (z[0] + z[1]) / 2)
