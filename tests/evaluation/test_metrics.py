"""Metrics against numbers written out, independent implementations and simulated truth."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import metrics

CASES = {
    "separated": ([0.9, 0.8, 0.7], [0.1, 0.2, 0.3], 0.0),
    "collapsed: every score equal": ([0.5] * 50, [0.5] * 50, 0.5),
    "collapsed, unbalanced": ([0.0] * 3, [0.0] * 97, 0.5),
    "inverted": ([0.1, 0.2, 0.3], [0.7, 0.8, 0.9], 1.0),
    "one error each in four": ([0.9, 0.8, 0.7, 0.3], [0.1, 0.2, 0.25, 0.75], 0.25),
    "ties on a grid": ([1, 1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 1], 1 / 3),
}


UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# few distinct values, so that ties are the rule
SCORES = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=30)


ROLES = st.tuples(SCORES, SCORES)


def gaussian(n_target, n_nontarget, distance, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(distance, 1, n_target), rng.normal(0, 1, n_nontarget)


@pytest.mark.parametrize("name", CASES)
def test_eer_of_reference_cases(name):
    target, nontarget, expected = CASES[name]
    assert metrics.eer(target, nontarget)[0] == pytest.approx(expected, abs=1e-12)


def test_eer_threshold_lies_between_the_scores_that_it_parts():
    assert metrics.eer([0.9, 0.8, 0.7], [0.1, 0.2, 0.3]) == (0.0, 0.5)
    assert metrics.eer([0.9, 0.8, 0.7, 0.3], [0.1, 0.2, 0.25, 0.75]) == (0.25, 0.5)
    assert metrics.eer([0.5] * 4, [0.5] * 4) == (0.5, 0.5)
    low = 1.0
    high = np.nextafter(low, 2)
    assert metrics.eer([high], [low]) == (0.0, high)


def test_roc_takes_equal_scores_together():
    p_fa, p_miss, thresholds = metrics.roc([2, 1, 1, 0], [1, 0, 0, -1])
    assert thresholds.tolist() == [-1, 0, 1, 2, math.inf]
    assert p_fa.tolist() == [1, 0.75, 0.25, 0, 0]
    assert p_miss.tolist() == [0, 0, 0.25, 0.75, 1]


@UNTIMED
@given(ROLES, st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_trials(roles, random):
    target, nontarget = roles
    before = figures(target, nontarget)
    random.shuffle(target)
    random.shuffle(nontarget)
    assert figures(target, nontarget) == before


@UNTIMED
@given(ROLES)
def test_no_metric_of_ranks_depends_on_a_rising_transform(roles):
    target, nontarget = map(np.array, roles)
    assert figures(target**3 - 7, nontarget**3 - 7) == figures(target, nontarget)


@UNTIMED
@given(ROLES)
def test_relations_between_metrics(roles):
    error_rate, rocch, dcf, cllr_min, _ = figures(*roles)
    assert 0 <= rocch <= min(error_rate, 0.5) + 1e-12
    assert 0 <= dcf <= 1
    assert 0 <= cllr_min <= 1 + 1e-12
    reversed_eer = metrics.eer(-np.array(roles[0]), -np.array(roles[1]))[0]
    assert reversed_eer == pytest.approx(1 - error_rate, abs=1e-12)


def figures(target, nontarget):
    return (
        metrics.eer(target, nontarget)[0],
        metrics.eer_rocch(target, nontarget),
        metrics.min_dcf(target, nontarget, 0.05)[0],
        metrics.cllr_min(target, nontarget),
        metrics.eer_definitions(target, nontarget)["flagged"],
    )


def test_roc_and_eer_agree_with_scikit_learn_where_no_scores_tie():
    target, nontarget = gaussian(700, 1100, 1.7)
    labels, scores = np.repeat([1, 0], (700, 1100)), np.concatenate([target, nontarget])
    p_fa, p_hit, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    ours = metrics.roc(target, nontarget)
    np.testing.assert_allclose(ours[0][::-1], p_fa, atol=1e-15)
    np.testing.assert_allclose(ours[1][::-1], 1 - p_hit, atol=1e-15)
    np.testing.assert_array_equal(ours[2][::-1], thresholds)
    expected = brentq(lambda x: 1 - x - np.interp(x, p_fa, p_hit), 0, 1)
    # the two curves interpolate a vertical piece differently, by one non-target trial at most
    assert metrics.eer(target, nontarget)[0] == pytest.approx(expected, abs=1 / 1100)


def test_eer_of_two_gaussians():
    target, nontarget = gaussian(200_000, 200_000, 3.0)
    assert metrics.eer(target, nontarget)[0] == pytest.approx(stats.norm.cdf(-1.5), abs=0.001)
    assert metrics.eer(target, nontarget)[1] == pytest.approx(1.5, abs=0.02)


def bosaris(target, nontarget):
    """ROCCH-EER and minimum Cllr by isotonic regression, after the BOSARIS toolkit's rocch2eer and min_cllr."""
    labels, scores = np.repeat([1.0, 0.0], (len(target), len(nontarget))), np.concatenate([target, nontarget])
    posterior = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels).predict(scores)
    with np.errstate(divide="ignore"):
        ratios = np.log(posterior) - np.log1p(-posterior) - np.log(len(target) / len(nontarget))
    is_target = labels == 1
    cllr = np.log2(1 + np.exp(-ratios[is_target])).mean() / 2 + np.log2(1 + np.exp(ratios[~is_target])).mean() / 2
    levels = np.append(np.unique(posterior), np.inf)
    p_miss = np.array([np.mean(posterior[is_target] < level) for level in levels])
    p_fa = np.array([np.mean(posterior[~is_target] >= level) for level in levels])
    eer = 0.0
    for x, y in zip(pairwise(p_fa), pairwise(p_miss)):
        # the line through the two corners: a p_fa + b p_miss = 1; where they are equal, 1 / (a + b)
        matrix = np.array([x, y]).T
        if abs(np.linalg.det(matrix)) > 1e-15:
            eer = max(eer, 1 / np.linalg.solve(matrix, np.ones(2)).sum())
    return eer, cllr


@UNTIMED
@given(ROLES)
def test_rocch_and_cllr_min_agree_with_bosaris_on_ties(roles):
    eer, cllr = bosaris(*roles)
    assert metrics.eer_rocch(*roles) == pytest.approx(eer, abs=1e-9)
    assert metrics.cllr_min(*roles) == pytest.approx(cllr, abs=1e-9)


def test_rocch_and_cllr_min_agree_with_bosaris_on_a_list():
    roles = gaussian(400, 3000, 2.0)
    eer, cllr = bosaris(*roles)
    assert metrics.eer_rocch(*roles) == pytest.approx(eer, abs=1e-9)
    assert metrics.cllr_min(*roles) == pytest.approx(cllr, abs=1e-9)


def test_eer_definitions_side_by_side():
    # by hand: thresholds 3 -> (P_fa, P_miss) = (1/3, 0), 4 -> (1/3, 1/2); the straight line between them meets at 1/3
    values = metrics.eer_definitions([3, 5], [1, 2, 4])
    assert values["interpolated"] == pytest.approx(1 / 3, abs=1e-12)
    assert values["rocch"] == pytest.approx(0.2, abs=1e-12)  # the hull runs from (1/3, 0) to (0, 1/2)
    assert values["nearest_maximum"] == 0.5
    assert values["nearest_mean"] == pytest.approx(5 / 12, abs=1e-12)
    assert values["kaldi"] == 0.5
    assert values["flagged"] is True
    collapsed = metrics.eer_definitions([0.5] * 50, [0.5] * 50)
    assert collapsed["interpolated"] == 0.5
    assert collapsed["nearest_maximum"] == 1.0  # what widely used code reports
    assert collapsed["kaldi"] == 0.98  # it stops at a lower score, or at the last
    assert metrics.eer_definitions(*gaussian(50_000, 50_000, 3.0))["flagged"] is False


def test_min_dcf_is_normalised():
    # at threshold 3: one of four targets missed, no false accept; p_target 0.01 -> 0.01 * 0.25 / 0.01
    assert metrics.min_dcf([1, 3, 4, 5], [0, 0, 2, 1], 0.01) == (0.25, 3.0)
    # p_target 0.9: miss costs 0.9, false accept 0.1; accepting all but the two lowest costs 0.1 * 0.5 / 0.1
    assert metrics.min_dcf([1, 3, 4, 5], [0, 0, 2, 1], 0.9) == pytest.approx((0.5, 1.0))
    assert metrics.min_dcf([0.0], [1.0], 0.01) == (1.0, math.inf)
    assert metrics.min_dcf([1, 3, 4, 5], [0, 0, 2, 1], 0.01, c_miss=1, c_fa=0.001)[0] == pytest.approx(
        0.00099 * 0.5 / 0.00099
    )


def test_act_dcf_decides_at_the_threshold_of_bayes():
    # p_target 0.05: log(19) = 2.944
    assert metrics.act_dcf([3, 2.9], [-1, 2.95, -2, -3], 0.05) == pytest.approx((0.05 * 0.5 + 0.95 * 0.25) / 0.05)
    assert metrics.act_dcf([math.log(19)], [-1], 0.05) == 0.0
    assert metrics.act_dcf([3], [math.log(19)], 0.05) == pytest.approx(19)


@pytest.mark.parametrize("p_target, c_miss, c_fa", [(0, 1, 1), (1, 1, 1), (0.5, 0, 1), (0.5, 1, 0)])
def test_impossible_costs_are_refused(p_target, c_miss, c_fa):
    with pytest.raises(RequestError, match="between 0 and 1"):
        metrics.min_dcf([1], [0], p_target, c_miss, c_fa)
    with pytest.raises(RequestError, match="between 0 and 1"):
        metrics.act_dcf([1], [0], p_target, c_miss, c_fa)


def test_threshold_at_a_wanted_false_accept_rate():
    nontarget = np.arange(100.0)
    assert metrics.threshold_at_p_fa([96.5, 200], nontarget, 0.02) == (98.0, 0.02, 0.5)
    assert metrics.threshold_at_p_fa([97.5, 200], nontarget, 0.02) == (97.5, 0.02, 0.0)
    assert metrics.threshold_at_p_fa([50], [50, 0], 0.4) == (math.inf, 0.0, 1.0)


def test_cllr_written_out():
    assert metrics.cllr([0, 0], [0]) == 1.0
    assert metrics.cllr([math.log(3)], [-math.log(3)]) == pytest.approx(math.log2(4 / 3))
    assert metrics.cllr([1000.0], [-1000.0]) == 0.0
    assert metrics.cllr([-1000.0], [-1000.0]) == pytest.approx(500 / math.log(2))


def test_cllr_min_written_out():
    assert metrics.cllr_min([2, 3], [0, 1]) == 0.0
    assert metrics.cllr_min([0.5] * 3, [0.5] * 7) == 1.0
    # pools {0}, {1, 2}, {3}: in the middle one target in two and one non-target in two, ratio 1
    assert metrics.cllr_min([1, 3], [0, 2]) == pytest.approx(0.5)


def test_probit_agrees_with_scipy():
    p = np.concatenate([np.logspace(-12, -1, 50), np.linspace(0.1, 0.9, 50), 1 - np.logspace(-1, -12, 50)])
    np.testing.assert_allclose(metrics.probit(p), stats.norm.ppf(p), rtol=1e-11, atol=1e-14)
    assert metrics.probit([0, 1]).tolist() == [-math.inf, math.inf]
    assert metrics.probit(np.float32([1e-7])) == pytest.approx(
        stats.norm.ppf(np.float32(1e-7).astype(float)), rel=1e-11
    )


def test_det_of_gaussians_is_a_straight_line():
    x, y = metrics.det(*gaussian(100_000, 100_000, 2.5))
    middle = (np.abs(x) < 2) & (np.abs(y) < 2)
    assert middle.sum() > 1000
    np.testing.assert_allclose(y[middle], -2.5 - x[middle], atol=0.05)


def test_det_keeps_the_corners_alone():
    # operating points (P_fa, P_miss): (1,0) (2/3,0) (1/3,0) (1/3,1/3) (1/3,2/3) (0,2/3) (0,1)
    x, y = metrics.det([3, 4, 6], [1, 2, 5])
    assert stats.norm.cdf(x) == pytest.approx([1 / 3])
    assert stats.norm.cdf(y) == pytest.approx([2 / 3])
    assert metrics.det([1.0], [0.0])[0].size == 0
    # (1,0) (1,1/2) (1/2,1/2) (1/2,1) (0,1): where all non-targets are let in, a probit would be infinite
    x, y = metrics.det([0, 3], [1, 4])
    assert x.tolist() == pytest.approx([0]) and y.tolist() == pytest.approx([0])
    # (1,0) (2/3,1/2) (1/3,1/2) (1/3,1) (0,1): a step of both kinds, then one of non-targets alone
    x, y = metrics.det([1, 5], [1, 2, 6])
    assert stats.norm.cdf(x) == pytest.approx([2 / 3, 1 / 3]) and y.tolist() == pytest.approx([0, 0])
    # (1,0) (1,1/2) (2/3,1/2) (1/3,1/2) (0,1/2) (0,1): points inside a piece
    assert metrics.det([0, 5], [1, 2, 3])[0].size == 0
    # (1,0) (2/3,0) (1/3,1/3) (0,2/3) (0,1): two steps of both kinds in a row
    x, y = metrics.det([1, 2, 3], [0, 1, 2])
    assert stats.norm.cdf(x) == pytest.approx([1 / 3]) and stats.norm.cdf(y) == pytest.approx([1 / 3])


def test_scores_are_taken_in_float64():
    assert {scores.dtype.name for scores in metrics.validate([1], np.float32([0]))} == {"float64"}


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf], [[1.0]]])
def test_bad_scores_are_refused(bad):
    for target, nontarget, name in ((bad, [0.0], "target"), ([0.0], bad, "non-target")):
        with pytest.raises(RequestError, match=f"{name} "):
            metrics.eer(target, nontarget)


def test_no_corner_of_a_hull_is_left_out_and_all_between_two_of_them():
    turn = np.linspace(0, np.pi / 2, 1201)
    arc = np.stack([np.sin(turn), 1 - np.cos(turn)])
    np.testing.assert_array_equal(metrics._without_hollows(arc), arc)
    chords = np.stack([arc[:, :-1], (arc[:, :-1] + arc[:, 1:]) / 2 - [[1e-9], [-1e-9]]], axis=2).reshape(2, -1)
    np.testing.assert_array_equal(metrics._without_hollows(chords)[:, :-1], arc[:, :-1])


def test_the_hull_of_many_trials_is_that_of_a_scan_through_all(monkeypatch):
    target, nontarget = (np.round(scores, 3) for scores in gaussian(10_000, 30_000, 2.0))  # groups of equal scores
    for scores in ((target, nontarget), gaussian(2000, 2000, 1.0)):
        quick = metrics.cllr_min(*scores), metrics.eer_rocch(*scores)
        with monkeypatch.context() as patch:
            patch.setattr(metrics, "_without_hollows", lambda points: points)
            assert quick == (metrics.cllr_min(*scores), metrics.eer_rocch(*scores))
