"""Intervals and comparisons over resampled speakers: resamples written out, and coverage of a known truth."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from simulated_scores import design

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import intervals, metrics, resampling


def test_speaker_bootstrap_weighs_trials_as_documented():
    """Against a resample written out: copies of speakers meet, copies of one speaker do not."""
    scores = np.array([5.0, 4.0, 0.5, 3.0, 1.0, 2.0, 0.0])
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    enrol, test = np.array(list("abcabab")), np.array(list("abcbccc"))
    replicates = intervals.speaker_bootstrap(scores, labels, enrol, test, replicates=200, seed=3)
    rng = np.random.default_rng(3)
    for value in replicates:
        drawn = np.bincount(rng.integers(3, size=3), minlength=3)
        copies = np.repeat(list("abc"), drawn)
        target = [s for c in copies for s, e, t in zip(scores, enrol, test) if e == t == c]
        nontarget = [
            s for c in copies for d in copies for s, e, t in zip(scores, enrol, test) if e != t and (e, t) == (c, d)
        ]
        expected = metrics.eer(target, nontarget)[0] if nontarget else math.nan
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(replicates).any() and np.isfinite(replicates).any()


@pytest.mark.parametrize("decimals", [9, 1, 0])  # from scores that all differ to groups longer than a bin
def test_eers_of_all_draws_at_once_are_those_of_one_after_the_other(monkeypatch, decimals):
    monkeypatch.setattr(resampling, "TRIALS_PER_BIN", 64)
    monkeypatch.setattr(resampling, "TRIALS_PER_BLOCK", 10)
    rng = np.random.default_rng(decimals)
    enrol, test = rng.integers(12, size=(2, 900))
    scores, labels = np.round(rng.normal(size=900) + (enrol == test), decimals).astype("float32"), enrol == test
    together = intervals.speaker_bootstrap(scores, labels, enrol, test, 60, 1)
    one_by_one = intervals.speaker_bootstrap(
        scores, labels, enrol, test, 60, 1, lambda p_fa, p_miss: metrics.eer_of_roc(p_fa, p_miss)
    )
    assert together.tolist() == one_by_one.tolist()


def test_a_weight_beyond_a_byte_is_no_smaller(monkeypatch):
    """One of two speakers drawn more often than 15 times would leave a byte when it meets itself."""
    few = resampling.Resamples.draw(["a"] * 3, ["b"] * 3, 5)
    assert few.copies.dtype == np.uint8
    drawn = SimpleNamespace(integers=lambda count, size: np.arange(size) % 2)  # 20 copies of each of two of 40 speakers
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn)
    names = np.arange(40)
    many = resampling.Resamples.draw(names, np.roll(names, -1), 3)
    assert many.counts(np.array([0, 0]), np.array([0, 2])).tolist() == [[800] * 3, [0] * 3]


def test_trial_bootstrap_without_a_seed_draws_by_0():
    scores, labels = np.arange(40) % 7 * 1.0, np.arange(40) % 2
    drawn = [intervals.trial_bootstrap(scores, labels, 30, **seed).tolist() for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(intervals.trial_bootstrap(scores, labels, statistic=lambda p_fa, p_miss: 0.0)) == 1000


def test_trial_bootstrap_keeps_the_number_of_each_kind():
    sizes = []
    intervals.trial_bootstrap(
        np.arange(9.0),
        np.array([0, 1] * 4 + [0]),
        5,
        statistic=lambda p_fa, p_miss: sizes.append((p_fa, p_miss)) or 0.0,
    )
    with pytest.raises(RequestError, match="no non-target trial"):
        intervals.trial_bootstrap(np.ones(3), np.ones(3), 5)
    with pytest.raises(RequestError, match="no non-target trial"):
        intervals.speaker_bootstrap(np.ones(3), np.ones(3), list("abc"), list("abc"), 5)
    for p_fa, p_miss in sizes:
        assert (p_fa[0], p_miss[0]) == (1, 0)
        np.testing.assert_allclose(p_fa * 5, np.round(p_fa * 5), atol=1e-12)
        np.testing.assert_allclose(p_miss * 4, np.round(p_miss * 4), atol=1e-12)


def test_speaker_intervals_hold_the_truth_and_trial_intervals_do_not():
    """120 designs of 26 speakers: 95 % wanted (binomial 99.9 % range 0.87-1), trial intervals far below."""
    held = {"speaker": 0, "trial": 0}
    for seed in range(120):
        scores, labels, enrol, test, truth = design(seed)
        rate = metrics.eer(scores[labels == 1], scores[labels == 0])[0]
        by_speaker = intervals.speaker_bootstrap(scores, labels, enrol, test, 200, seed)
        by_trial = intervals.trial_bootstrap(scores, labels, 200, seed)
        for name, replicates in (("speaker", by_speaker), ("trial", by_trial)):
            low, high = intervals.rate_interval(rate, replicates, 26, 1040)
            held[name] += low <= truth <= high
    assert 0.89 <= held["speaker"] / 120 <= 0.99
    assert held["trial"] / 120 < 0.75


@pytest.mark.long
@pytest.mark.parametrize("n_speakers", [16, 40, 100])
def test_coverage_over_500_designs(n_speakers):
    """A 95 % interval holds the truth in 92 to 98 % of 500 designs; that of resampled trials does not."""
    held = {"speaker": 0, "trial": 0}
    for seed in range(500):
        scores, labels, enrol, test, truth = design(seed, n_speakers)
        rate = metrics.eer(scores[labels == 1], scores[labels == 0])[0]
        by_speaker = intervals.speaker_bootstrap(scores, labels, enrol, test, 400, seed)
        by_trial = intervals.trial_bootstrap(scores, labels, 400, seed)
        for name, replicates in (("speaker", by_speaker), ("trial", by_trial)):
            low, high = intervals.rate_interval(rate, replicates, n_speakers, 40 * n_speakers)
            held[name] += low <= truth <= high
    print(n_speakers, held)
    assert 0.92 <= held["speaker"] / 500 <= 0.98
    assert held["trial"] / 500 < 0.75


def test_rate_interval_written_out():
    # logits half a unit to either side; 16 speakers: t of 15 degrees of freedom is 2.1314
    replicates = 1 / (1 + np.exp(-(math.log(0.1 / 0.9) + np.array([-0.5, 0.5] * 100))))
    low, high = intervals.rate_interval(0.1, replicates, 16, 1000)
    margin = 2.1314 * math.sqrt(16 / 15) * 0.5
    assert low == pytest.approx(1 / (1 + 9 * math.exp(margin)), rel=1e-3)
    assert high == pytest.approx(1 / (1 + 9 * math.exp(-margin)), rel=1e-3)


def test_rate_interval_at_its_edges():
    # No error at all: five coins of 0.025^(1/5) = 0.4782 each fall on one side together in 2.5 of 100 cases.
    assert intervals.rate_interval(0.0, np.zeros(10), 5, 100) == pytest.approx((0.0, 0.5218), abs=1e-4)
    assert intervals.rate_interval(1.0, np.ones(10), 5, 100) == pytest.approx((0.4782, 1.0), abs=1e-4)
    assert intervals.rate_interval(0.5, np.full(10, 0.5), 5, 100) == pytest.approx((0.5, 0.5))
    low, high = intervals.rate_interval(0.0, np.array([0.0, 0.01] * 50), 5, 100)
    assert low == 0.0
    assert 0.01 < high < 0.05
    assert all(map(math.isnan, intervals.rate_interval(0.1, np.array([0.1, math.nan]), 5, 100)))
    assert all(map(math.isnan, intervals.rate_interval(0.1, np.array([0.1, 0.2]), 1, 100)))
    assert all(map(math.isfinite, intervals.rate_interval(0.1, np.array([0.1, 0.2]), 2, 100)))
    low, high = intervals.rate_interval(0.1, np.array([0.05, 0.2]), 5, 100)
    assert 0 < low < 0.1 < high < 1


def test_a_draw_without_trials_of_one_kind_says_nothing():
    drawn = np.array([[1, 0], [0, 1], [1, 1]])
    values = intervals._replicate(np.array([1.0, 2.0]), np.array([0, 1]), lambda order: drawn, lambda *_: 0.5)
    assert values.tolist() == [pytest.approx(math.nan, nan_ok=True)] * 2 + [0.5]


@pytest.mark.parametrize("freedom", [3, 15, 39, 1250])
def test_student_approximation_agrees_with_scipy(freedom):
    assert intervals._student_quantile(freedom) == pytest.approx(
        stats.t.ppf(0.975, freedom), rel=0.02 if freedom == 3 else 1e-3
    )
    for t in (0.1, 1.0, 2.5):
        assert intervals._student_p(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=4e-3)


def test_compare_uses_the_same_resamples():
    scores, labels, enrol, test, _ = design(1)
    worse = scores + np.random.default_rng(0).normal(0, 0.8, len(scores))
    result = intervals.compare(worse, scores, labels, enrol, test, 300)
    expected = (
        metrics.eer(worse[labels == 1], worse[labels == 0])[0]
        - metrics.eer(scores[labels == 1], scores[labels == 0])[0]
    )
    assert result["difference"] == pytest.approx(expected, abs=1e-12)
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["p"] < 0.01
    # paired, the interval is narrower than that of one system alone
    low, high = intervals.rate_interval(0.05, intervals.speaker_bootstrap(scores, labels, enrol, test, 300), 26, 1040)
    assert result["high"] - result["low"] < high - low
    same = intervals.compare(scores, scores, labels, enrol, test, 50)
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_comparison_takes_other_statistics():
    scores, labels, enrol, test, _ = design(2)
    result = intervals.compare(
        -scores, scores, labels, enrol, test, 20, statistic=lambda p_fa, p_miss: float(p_fa.mean())
    )
    assert result["difference"] != 0
    told = intervals.speaker_bootstrap(scores, labels, enrol, test, 3, statistic=lambda p_fa, p_miss: 7.0)
    assert told.tolist() == [7.0, 7.0, 7.0]


FEW = [np.array([0.9, 0.2, 0.4, 0.1, 0.5, 0.3]), np.array([1, 1, 1, 0, 0, 0]), list("abcabc"), list("abcbca")]


def test_the_margin_of_a_difference_is_that_of_as_many_speakers():
    """Three speakers: the error is the replicates' standard deviation times sqrt(3 / 2), and t has two degrees."""
    other = np.array([0.9, 0.6, 0.7, 0.5, 0.1, 0.3])
    found = intervals.compare(FEW[0], other, *FEW[1:], 40, 1)
    paired = [intervals.speaker_bootstrap(scores, *FEW[1:], 40, 1) for scores in (FEW[0], other)]
    error = np.nanstd(paired[0] - paired[1]) * math.sqrt(3 / 2)
    assert found["high"] - found["difference"] == pytest.approx(intervals._student_quantile(2) * error)
    assert found["difference"] - found["low"] == pytest.approx(intervals._student_quantile(2) * error)
    assert found["p"] == pytest.approx(intervals._student_p(found["difference"] / error, 2)) and 0 < found["p"] < 1


def test_who_says_nothing_gets_a_thousand_draws_of_seed_0():
    assert intervals.compare(FEW[0], FEW[0][::-1], *FEW[1:]) == intervals.compare(
        FEW[0], FEW[0][::-1], *FEW[1:], 1000, 0
    )
    drawn = [intervals.speaker_bootstrap(*FEW, **said) for said in ({}, {"replicates": 1000, "seed": 0})]
    np.testing.assert_array_equal(*drawn)
    drawn = [resampling.Resamples.draw(*FEW[2:], **said).copies for said in ({}, {"replicates": 1000, "seed": 0})]
    np.testing.assert_array_equal(*drawn)


def test_holm_written_out():
    assert intervals.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert intervals.holm([0, 1]).dtype == np.float64
