"""All figures of hand-made score lists, written out."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_scores import design

from sv_utils.evaluation import intervals, judging, metrics
from sv_utils.evaluation.resampling import Resamples

TARGET, NONTARGET = np.array([2.0, 1.0, -1.0, 3.0]), np.array([-3.0, -2.0, 0.5, -1.0, -4.0])


def test_operating_points_of_lists_that_overlap():
    points = judging.operating_points(TARGET, NONTARGET)
    # between the thresholds -1 (P_fa 2/5, P_miss 0) and 0.5 (1/5, 1/4), at 8/9 of the way
    assert points["EER"] == {"threshold": -1.0, "p_fa": pytest.approx(2 / 9), "p_miss": pytest.approx(2 / 9)}
    # no non-target trial reaches 1.0, and three of four target trials do
    for name in ("minDCF(0.01)", "minDCF(0.05)"):
        assert points[name] == {"threshold": 1.0, "p_fa": 0.0, "p_miss": 0.25}


def test_a_system_that_knows_nothing_rejects_everything():
    points = judging.operating_points([0.0, 0.0], [0.0, 0.0])
    assert points["EER"] == {"threshold": 0.0, "p_fa": 0.5, "p_miss": 0.5}
    assert points["minDCF(0.01)"] == {"threshold": math.inf, "p_fa": 0.0, "p_miss": 1.0}


def test_calibration_figures():
    figures = judging.calibration_figures([math.log(3)], [-math.log(3)])
    assert figures["cllr"] == pytest.approx(math.log2(4 / 3))
    assert figures["cllr_min"] == 0 and figures["calibration_loss"] == figures["cllr"]
    costs = {f"{cost}_dcf_{prior}" for cost in ("act", "min") for prior in ("001", "005")}
    assert set(figures) == {"cllr", "cllr_min", "calibration_loss", *costs}
    # log 3 is below the threshold of Bayes at a prior of 0.05, log 19: the target trial is rejected
    assert figures["act_dcf_005"] == 1 and figures["min_dcf_005"] == 0
    # log 50 lies between the thresholds at the two priors; of 40 non-targets one is above half of the targets
    figures = judging.calibration_figures([math.log(50), math.log(9)], [*np.zeros(39), math.log(10)])
    assert (figures["act_dcf_001"], figures["act_dcf_005"]) == (1, 0.5)
    assert (figures["min_dcf_001"], figures["min_dcf_005"]) == (0.5, pytest.approx(19 / 40))


def test_reliability_weighs_both_kinds_as_at_even_prior():
    # three of the four target and one of the eight non-target trials were given log 3, a probability of 0.75
    high, low = math.log(3), -math.log(3)
    announced, observed = judging.reliability([high] * 3 + [low], [low] * 7 + [high])
    np.testing.assert_allclose(announced, [0.25, 0.75])
    np.testing.assert_allclose(observed, [(1 / 4) / (1 / 4 + 7 / 8), (3 / 4) / (3 / 4 + 1 / 8)])


def test_reliability_parts_the_trials_into_bins_of_equally_many():
    # -3 and -2, both non-target; -1 and 1, one of each; 2 and 3, both target
    announced, observed = judging.reliability([3.0, 2.0, -1.0], [1.0, -2.0, -3.0], bins=3)
    np.testing.assert_allclose(announced, [0.083314, 0.5, 0.916686], atol=1e-6)
    np.testing.assert_allclose(observed, [0, 0.5, 1])


def test_reliability_has_twelve_bins_unless_others_are_wanted():
    assert len(judging.reliability(np.arange(60.0), np.arange(60.0) - 0.5)[0]) == 12


def test_reliability_of_a_collapsed_system_is_one_bin():
    announced, observed = judging.reliability([0.0, 0.0], [0.0])
    assert announced.tolist() == [0.5] and observed.tolist() == [0.5]


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=30), st.lists(st.floats(-700, 700), min_size=1, max_size=30))
def test_reliability_loses_no_trial_and_rises(target, nontarget):
    announced, observed = judging.reliability(target, nontarget, bins=5)
    assert 1 <= len(announced) == len(observed) <= 5
    assert (np.diff(announced) >= -1e-12).all()
    assert ((observed >= 0) & (observed <= 1)).all()


def test_judge_joins_the_figures_definitions_and_calibration():
    scores, labels = np.concatenate([TARGET, NONTARGET]), np.array([1] * 4 + [0] * 5)
    speakers = [np.array(list("aabbaabbc")), np.array(list("aabbbcbca"))]
    ratios, drawn = np.where(scores > 0, scores, 2 * scores), Resamples.draw(*speakers, 10, 1)
    judged = judging.judge(scores, labels, ratios, drawn)
    figures = judging.evaluate(scores, labels, *speakers, log_likelihood_ratios=ratios, seed=1, replicates=10)
    assert {name: judged[name] for name in figures} == figures and judged["n_speakers"] == 3
    assert figures["cllr"] == metrics.cllr(ratios[:4], ratios[4:]) and figures["threshold"] == -1.0
    assert judged["calibration"]["cllr"] == figures["cllr"]
    lost = judged["calibration"]["calibration_loss"]
    assert figures["cllr_min"] > 0 and lost == figures["cllr"] - figures["cllr_min"]
    assert judged["eer_definitions"]["interpolated"] == pytest.approx(2 / 9)
    assert judging.judge(scores, labels, None, drawn)["calibration"] is None


def test_at_threshold():
    labels = np.array([1] * 4 + [0] * 5)
    figures = judging.at_threshold(np.concatenate([TARGET, NONTARGET]), labels)
    assert figures == {"eer": metrics.eer(TARGET, NONTARGET)[0], "p_fa": 0.2, "p_miss": 0.25}
    assert judging.at_threshold(np.concatenate([TARGET, NONTARGET]), labels, 0.5) == figures  # one lies there


def test_json_holds_what_json_can():
    text = judging.to_json([{"a": math.nan, "b": [{"c": -math.inf}], "d": np.float64(0.5), "e": None, "f": "x"}])
    assert json.loads(text) == [{"a": None, "b": [{"c": None}], "d": 0.5, "e": None, "f": "x"}]


def test_evaluate_gives_every_column():
    scores, labels, enrol, test, _ = design(4)
    result = judging.evaluate(scores, labels, enrol, test, seed=5, replicates=200)
    assert list(result) == [
        *("n_target", "n_nontarget", "n_speakers", "eer", "eer_low", "eer_high", "threshold"),
        *("min_dcf_001", "min_dcf_005", "cllr", "cllr_min"),
    ]
    target, nontarget = scores[labels == 1], scores[labels == 0]
    assert (result["n_target"], result["n_nontarget"], result["n_speakers"]) == (1040, 3000, 26)
    assert (result["eer"], result["threshold"]) == metrics.eer(target, nontarget)
    assert result["eer_low"] < result["eer"] < result["eer_high"]
    drawn = intervals.speaker_bootstrap(scores, labels, enrol, test, 200, 5)
    assert (result["eer_low"], result["eer_high"]) == intervals.rate_interval(result["eer"], drawn, 26, 1040)
    assert result["min_dcf_001"] == metrics.min_dcf(target, nontarget, 0.01)[0]
    assert result["min_dcf_005"] == metrics.min_dcf(target, nontarget, 0.05)[0]
    assert math.isnan(result["cllr"])
    assert judging.evaluate(scores, labels, enrol, test, seed=5, replicates=200)["eer_high"] == result["eer_high"]
    with_ratios = judging.evaluate(scores, labels, log_likelihood_ratios=2 * scores - 3)
    assert with_ratios["cllr"] == metrics.cllr(2 * target - 3, 2 * nontarget - 3)
    assert math.isnan(with_ratios["eer_low"]) and math.isnan(with_ratios["n_speakers"])
    for sides in ((enrol, None), (None, test)):
        assert math.isnan(judging.evaluate(scores, labels, *sides)["n_speakers"])


# Dev trials that part at 149.5, and of whose 100 non-target trials ten lie at 90 or above.
DEV = np.concatenate([[200.0, 201.0], np.arange(100.0)]), np.repeat([1, 0], [2, 100])
LIST = np.array([150.0, 100.0, 89.0, 149.5, 90.0, 10.0]), np.array([1, 1, 1, 0, 0, 0])
SPEAKERS = [np.array(list("abcaba")), np.array(list("abcbcc"))]


def decision_points(replicates=30, scores=LIST[0]):
    origin = {"threshold_from": "dev", "list": "mini"}
    return judging.decision_points(DEV, scores, LIST[1], SPEAKERS, origin, seed=5, replicates=replicates)


def test_decision_points_are_chosen_on_dev_trials_and_measured_on_the_list():
    equal, tenth = decision_points()  # 5 % of 100 non-target trials are fewer than ten: not shown
    assert (equal["name"], equal["wanted"], equal["threshold"]) == ("equal error", None, 149.5)
    assert (tenth["name"], tenth["wanted"], tenth["threshold"]) == ("false accepts 10.0%", 0.1, 90.0)
    # a score at the threshold is accepted
    assert (equal["miss"][0], equal["false_accept"][0]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (tenth["miss"][0], tenth["false_accept"][0]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    for point in (equal, tenth):
        assert (point["n_speakers"], point["n_target"], point["n_nontarget"]) == (3, 3, 3)
        assert (point["threshold_from"], point["list"]) == ("dev", "mini")


def test_rates_of_decisions_have_intervals_over_resampled_speakers():
    """Each replicate written out: non-targets count by both speakers' copies, targets by their speaker's."""
    (equal, _), rng = decision_points(), np.random.default_rng(5)
    misses, accepts = [], []
    for _ in range(30):
        drawn = np.bincount(rng.integers(3, size=3), minlength=3)
        pairs = np.array([drawn[0] * drawn[1], drawn[1] * drawn[2], drawn[0] * drawn[2]])
        known = pairs.sum() > 0
        misses.append(drawn @ [0, 1, 1] / drawn.sum() if known else math.nan)
        accepts.append(pairs @ [1, 0, 0] / pairs.sum() if known else math.nan)
    assert equal["miss"][1:] == pytest.approx(intervals.rate_interval(2 / 3, np.array(misses), 3, 3))
    assert equal["false_accept"][1:] == pytest.approx(intervals.rate_interval(1 / 3, np.array(accepts), 3, 3))
    assert equal["miss"][1] < 2 / 3 < equal["miss"][2] and equal["false_accept"][1] < 1 / 3 < equal["false_accept"][2]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_draw_without_trials_of_one_kind_has_no_rates(kind):
    def counts(trials, starts):
        """Of two draws; in the first of them there is no trial of the kind, in the second one of each."""
        return np.array([[int(trials[0] != kind), kind], [0, 1 - kind]])

    rates = judging._resampled_rates([0.5], np.array([0.2, 0.8]), np.array([0, 1]), SimpleNamespace(counts=counts))
    assert np.isnan(rates[0, :, 0]).all() and rates[0, :, 1].tolist() == [1 - kind, kind]


def test_rates_of_decisions_are_those_of_scores_at_a_threshold():
    (equal, _), accepted = decision_points(), LIST[0] >= 149.5
    rates = judging.rates_with_intervals(accepted, LIST[1], SPEAKERS, seed=5, replicates=30)
    assert rates == {name: pytest.approx(equal[name]) for name in ("false_accept", "miss")}
    assert rates == judging.rates_with_intervals(accepted, LIST[1], SPEAKERS, seed=5, replicates=30)


def test_decisions_that_are_all_alike_leave_open_what_three_speakers_cannot_show():
    equal, tenth = decision_points(scores=np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert equal["miss"] == tenth["miss"] == pytest.approx([1.0, 0.025 ** (1 / 3), 1.0])
    assert equal["false_accept"] == pytest.approx([0.0, 0.0, 1 - 0.025 ** (1 / 3)])


def test_who_says_nothing_gets_a_thousand_draws_of_seed_0():
    said, asked = {"seed": 0, "replicates": 1000}, (DEV, *LIST, SPEAKERS, {})
    assert judging.decision_points(*asked) == judging.decision_points(*asked, **said)
    np.testing.assert_equal(judging.evaluate(*LIST, *SPEAKERS), judging.evaluate(*LIST, *SPEAKERS, **said))
    asked = (LIST[0] > 95, LIST[1], SPEAKERS)
    assert judging.rates_with_intervals(*asked) == judging.rates_with_intervals(*asked, **said)


def test_trials_and_half_an_error_are_counted_by_kind():
    """Two target trials and five others: where a draw has no error, half an error is 0.25 and 0.1."""
    scores, labels = np.array([150.0, 100.0, 89.0, 149.5, 90.0, 10.0, 20.0]), np.array([1, 1, 0, 0, 0, 0, 0])
    speakers = [list("abcabac"), list("abbbcca")]
    equal, _ = judging.decision_points(DEV, scores, labels, speakers, {}, 5, 30)
    assert (equal["n_target"], equal["n_nontarget"]) == (2, 5)
    accepts, misses = judging._resampled_rates([149.5], scores, labels, Resamples.draw(*speakers, 30, 5))[0]
    assert equal["miss"] == [0.5, *intervals.rate_interval(0.5, misses, 3, 2)]
    assert equal["false_accept"] == [0.2, *intervals.rate_interval(0.2, accepts, 3, 5)]


def test_a_score_in_float32_is_at_the_threshold_that_rounds_to_it():
    scores, drawn = np.array([0.7, 0.1, 0.7, 0.7, 0.1, 0.1], np.float32), Resamples.draw(*SPEAKERS, 9, 5)
    at, between = (judging._resampled_rates([threshold], scores, LIST[1], drawn) for threshold in (0.7, 0.5))
    np.testing.assert_array_equal(at, between)  # 0.7 is 0.69999999 in float32
    ones = np.array([1, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(judging._resampled_rates([0.5], ones, LIST[1], drawn), between)


def test_rare_false_accepts_are_offered_when_ten_dev_trials_can_show_them():
    dev = np.concatenate([[2000.0], np.arange(1000.0)]), np.repeat([1, 0], [1, 1000])
    points = judging.decision_points(dev, LIST[0], LIST[1], SPEAKERS, {}, replicates=2)
    assert [(point["wanted"], point["threshold"]) for point in points] == [
        *((None, 1499.5), (0.1, 900.0), (0.05, 950.0), (0.01, 990.0)),
    ]
    alike = np.concatenate([np.zeros(50), np.ones(1000)]), np.repeat([1, 0], [50, 1000])
    (equal,) = judging.decision_points(alike, LIST[0], LIST[1], SPEAKERS, {}, replicates=2)
    assert equal["name"] == "equal error"  # no threshold accepts anything and few false ones
