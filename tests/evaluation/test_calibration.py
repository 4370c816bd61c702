"""Calibration against numbers written out and an independent implementation."""

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import calibration, metrics
from sv_utils.evaluation.calibration import Calibration


def overlapping(n_target=300, n_nontarget=900, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.5, 0.15, n_target), rng.normal(0.1, 0.12, n_nontarget)])
    return scores, np.repeat([1, 0], (n_target, n_nontarget))


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_calibration_agrees_with_scikit_learn(prior):
    """Each trial twice, once a kind, weighted by its share in it: the same loss."""
    scores, labels = overlapping()
    quality = np.random.default_rng(1).normal(7, 3, len(scores)) + labels
    features = np.column_stack([scores, quality])
    share = np.where(labels == 1, 301 / 302, 1 / 902)
    weight = np.where(labels == 1, prior / 300, (1 - prior) / 900)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(features, (2, 1)),
        np.repeat([1, 0], 1200),
        sample_weight=1200 * np.concatenate([weight * share, weight * (1 - share)]),
    )
    fitted = calibration.fit_calibration(features, labels, ("cosine", "quality"), prior)
    assert fitted.prior == prior
    assert fitted.weights == pytest.approx(reference.coef_[0], rel=1e-4)
    assert fitted.offset == pytest.approx(reference.intercept_[0] - math.log(prior / (1 - prior)), rel=1e-4)
    assert (fitted.n_target, fitted.n_nontarget) == (300, 900)


def test_a_trial_of_weight_two_counts_more_than_others_of_its_kind():
    """Weights part the share of a kind among its trials: one that all have changes nothing."""
    scores, labels = np.array([2.0, 1.0, -0.5, -2.0, -1.0, 0.8, 0.0, -3.0]), np.array([1, 1, 1, 0, 0, 0, 0, 0])
    even = calibration.fit_calibration(scores, labels)
    assert calibration.fit_calibration(scores, labels, weights=[3] * 8) == even  # a kind weighs as its prior
    heavy = calibration.fit_calibration(scores, labels, weights=[1, 1, 2, 1, 1, 1, 1, 1])
    assert heavy.weights[0] < even.weights[0]  # the lowest target score


def test_features_of_any_size_and_precision_count():
    scores, labels = overlapping()
    small = np.column_stack([1e9 * scores, 1e-9 * scores[::-1]])
    slopes, twice = (calibration.fit_calibration(part * small, labels, ("a", "b")).weights for part in (1, [1, 2]))
    assert slopes[1] != 0 and twice == pytest.approx((slopes[0], slopes[1] / 2), rel=1e-6)
    single = scores.astype(np.float32)
    assert calibration.fit_calibration(single, labels) == calibration.fit_calibration(single.astype(float), labels)


def test_calibration_of_gaussians_is_their_log_likelihood_ratio():
    # N(2, 1) against N(0, 1): ratio 2 s - 2, whatever the shares of the trials
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(2, 1, 40_000), rng.normal(0, 1, 160_000)])
    labels = np.repeat([1, 0], (40_000, 160_000))
    for prior in (0.5, 0.05):
        fitted = calibration.fit_calibration(scores, labels, prior=prior)
        assert fitted.weights[0] == pytest.approx(2, abs=0.06)
        assert fitted.offset == pytest.approx(-2, abs=0.06)


def test_calibration_lowers_cllr_to_near_its_minimum_on_new_trials():
    scores, labels = overlapping()
    new, new_labels = overlapping(seed=5)
    ratios = calibration.fit_calibration(scores, labels)(new)
    target, nontarget = ratios[new_labels == 1], ratios[new_labels == 0]
    least = metrics.cllr_min(target, nontarget)
    assert least <= metrics.cllr(target, nontarget) < least + 0.05
    assert metrics.cllr(new[new_labels == 1], new[new_labels == 0]) > least + 0.3


def test_calibration_stays_finite_where_scores_part_the_trials():
    fitted = calibration.fit_calibration(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 1, 0, 0]))
    ratios = fitted(np.array([0.9, 0.1]))
    # of two trials of a kind Platt counts 3 of 4 right: odds of 3
    assert ratios.tolist() == pytest.approx([math.log(3), -math.log(3)], abs=1e-9)


def test_calibration_of_a_collapsed_model_knows_nothing():
    fitted = calibration.fit_calibration(np.full(20, 0.7), np.repeat([1, 0], (5, 15)))
    assert fitted.weights == (0.0,)
    # only what is left of Platt's counts: 6/7 and 1/17 at equal priors
    assert fitted.offset == pytest.approx(math.log((6 / 7 + 1 / 17) / (1 / 7 + 16 / 17)))
    scores, labels = overlapping()
    both = calibration.fit_calibration(np.column_stack([scores, np.zeros(len(scores))]), labels, ("score", "nothing"))
    alone = calibration.fit_calibration(scores, labels)
    assert both.weights == (pytest.approx(alone.weights[0]), 0.0) and both.offset == pytest.approx(alone.offset)


@pytest.mark.parametrize(
    "features, labels, names, sentence",
    [
        ([0.1, 0.2], [1, 1], ("cosine",), "all 2 trials are of one kind"),
        ([0.1, math.nan], [1, 0], ("cosine",), "1 trials have features that are not finite"),
        ([0.1, 0.2], [1, 0], ("cosine", "duration_min"), "2 names .* for 1 features"),
    ],
)
def test_calibration_refuses_bad_trials(features, labels, names, sentence):
    with pytest.raises(RequestError, match=sentence):
        calibration.fit_calibration(np.array(features), np.array(labels), names)


def test_calibration_file(tmp_path):
    fitted = calibration.fit_calibration(*overlapping())
    fitted.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == fitted
    assert (tmp_path / "calibration.json").read_text().startswith('{\n "features": [\n  "cosine"\n ],\n')
    assert set(json.loads((tmp_path / "calibration.json").read_text())) == {
        *("features", "weights", "offset", "prior", "n_target", "n_nontarget")
    }
    with pytest.raises(RequestError, match="takes cosine, but got 2 features"):
        fitted(np.ones((3, 2)))


NO_OFFSET = '{"features": ["cosine"], "weights": [1], "offset": "x", "prior": 0.5, "n_target": 1, "n_nontarget": 1}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "7", "null", '{"features": ["cosine"], "weights": ["a"], "offset": 0}', NO_OFFSET]
)
def test_what_is_no_calibration_is_refused(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RequestError, match="is no calibration"):
        Calibration.load(tmp_path / "bad.json")
    with pytest.raises(RequestError, match="does not exist"):
        Calibration.load(tmp_path / "none.json")


def test_quality_features_written_out():
    features, names = calibration.quality_features(
        np.array([0.5, 0.1]),
        np.array([0, 1]),
        np.array([1, 2]),
        np.array([5.0, 40.0, 10.0]),
        cohort_mean=np.array([1, 3, 2]),
    )
    assert names == ("as_norm", "duration_min", "duration_max", "duration_ratio", "cohort_mean_min", "cohort_mean_max")
    assert features.tolist() == [[0.5, 5, 20, 0.25, 1, 3], [0.1, 10, 20, 0.5, 2, 3]]


def test_quality_makes_the_ratio_better():
    """Short utterances give scores of smaller spread; a calibration that knows the duration loses less."""
    rng = np.random.default_rng(3)
    durations, labels = rng.uniform(1, 30, 8000), rng.integers(2, size=4000)
    enrol, test = np.arange(4000), np.arange(4000, 8000)
    shorter = np.minimum(durations[enrol], durations[test])
    scores = rng.normal(0, 1, 4000) + labels * 2 - np.where(shorter < 5, 1.5, 0)
    features, names = calibration.quality_features(scores, enrol, test, durations)
    half = slice(0, 2000), slice(2000, 4000)
    plain = calibration.fit_calibration(scores[half[0]], labels[half[0]])(scores[half[1]])
    aware = calibration.fit_calibration(features[half[0]], labels[half[0]], names)(features[half[1]])
    wanted = labels[half[1]] == 1
    assert metrics.cllr(aware[wanted], aware[~wanted]) < metrics.cllr(plain[wanted], plain[~wanted]) - 0.01


def test_shortened_utterances_last_two_to_six_seconds():
    samples = np.array([16_000, 400_000] * 500)
    heard = calibration.shortened(samples, seed=3)
    assert (heard[::2] == 16_000).all() and heard.dtype.kind == "i"  # a short one stays
    assert heard[1::2].min() >= 32_000 and heard[1::2].max() < 96_000
    assert abs(heard[1::2].mean() - 64_000) < 2_500
    assert (heard == calibration.shortened(samples, 3, (2.0, 6.0), 16_000)).all()


def test_calibration_by_quality_undoes_what_a_short_side_does_to_scores():
    rng = np.random.default_rng(1)
    labels, seconds = rng.integers(2, size=4000), rng.choice([1.0, 10.0], size=(2, 4000))
    scores = 3.0 * labels - 2.0 * (seconds.min(axis=0) < 5) + rng.normal(size=4000)  # lower where a side is short
    utterances = np.arange(4000), np.arange(4000, 8000)
    quality, names = calibration.quality_features(scores, *utterances, seconds.ravel())
    known, plain = (calibration.fit_calibration(f, labels, n)(f) for f, n in ((quality, names), (scores, ("as_norm",))))
    costs = [metrics.cllr(ratios[labels == 1], ratios[labels == 0]) for ratios in (known, plain)]
    assert costs[0] == pytest.approx(0.257, abs=0.02)  # what scores 3 deviations apart cost where no side is short
    assert costs[1] > 1.4 * costs[0]
