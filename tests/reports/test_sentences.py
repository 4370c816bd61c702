"""What is said of each figure, word for word."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils.reports import sentences

TARGET, NONTARGET = np.array([0.2, 0.6, 0.7, 0.8, 0.9]), np.array([0.0, 0.1, 0.2, 0.3, 0.65])


def test_score_histogram():
    assert sentences.score_histogram(TARGET, NONTARGET, 0.62) == (
        "The middle half of the target scores lies between 0.600 and 0.800, that of the non-target scores between "
        "0.100 and 0.300; the threshold 0.620 has 40.00 % of the targets on its left and 20.00 % of the non-targets on "
        "its right."
    )


def test_eer_curve():
    assert sentences.eer_curve(TARGET, NONTARGET) == (
        "The lines cross at 20.00 %, at the threshold 0.450; at 0.700, 0.00 % false acceptances cost 40.00 % misses."
    )
    assert sentences.eer_curve(np.zeros(2), np.zeros(2)) == (
        "The lines cross at 50.00 %, at the threshold 0.000; no threshold keeps false acceptances at 1 % or below and "
        "accepts anything."
    )


def test_det_curves():
    good, poor = (np.array([2.0, 3.0]), np.array([0.0, 1.0])), (np.array([0.5, 3.0]), np.array([0.0, 1.0]))
    assert sentences.det_curves({"good": good}) == "Of good the EER is 0.00 % and minDCF(0.01) 0.000."
    assert sentences.det_curves({"poor": poor, "good": good}) == (
        "At equal error good errs least (0.00 %) and poor most (50.00 %); minDCF(0.01) is least for the same system "
        "(0.000)."
    )
    # poor at equal error, good where nothing false may be accepted: one target of five lies under all, the rest far up
    strict = np.array([-1.0, 8, 8, 8, 8]), np.array([0.0, 1, 2, 3, 4])
    broad = np.array([5.0, 6, 7, 8, 9]), np.array([0.0] * 19 + [10.0])
    assert sentences.det_curves({"strict": strict, "broad": broad}) == (
        "At equal error broad errs least (5.00 %) and strict most (20.00 %); minDCF(0.01) is least for strict (0.200)."
    )


def test_reliability():
    even = np.log([3.0, 3, 3, 1 / 3]), np.log([1 / 3, 1 / 3, 1 / 3, 3])
    sure = tuple(4 * ratios for ratios in even)  # announces 81 to 1 where the odds are 3 to 1
    assert sentences.reliability({"even": even, "sure": sure}) == (
        "Farthest from the diagonal lies sure: where it announces 1 %, 25 % are target trials; the calibration of even "
        "loses least (Cllr 0.000 above its minimum)."
    )


def test_parts_are_told_of_the_lists_that_are_measured_in_part():
    sides = np.array(list("aabbcd")), np.array(list("abbcda"))
    scored = {name: SimpleNamespace(part=np.arange(count), trials=range(6), speakers=sides) for name, count in PARTS}
    assert sentences.parts(scored) == (
        "The untrained encoder and altered speech are measured on 3 of the 6 trials of O (those between 2 of its 4 "
        "speakers, drawn at random); 4 of the 6 trials of H (those between 3 of its 4 speakers, drawn at random)."
    )
    assert sentences.parts({"E": scored["E"]}) == ""


PARTS = [("O", 3), ("E", 6), ("H", 4)]


def test_durations():
    rows = [{"cut": "1 s", "eer": 0.3}, {"cut": "full", "eer": 0.12}, {"cut": "telephone", "eer": 0.15}]
    assert sentences.durations(rows) == (
        "The EER rises from 12.00 % of whole utterances to 30.00 % of *1 s*, 2.5 times as high."
    )
    assert sentences.durations(rows[1:2]) == "No condition raises the EER above the 12.00 % of whole utterances."
    rows[1]["eer"] = 0.0
    assert sentences.durations(rows) == "The EER rises from 0.00 % of whole utterances to 30.00 % of *1 s*."


def test_durations_of_models():
    lines = [("aam", "mini", "1 s", 0.3), ("aam", "mini", "full", 0.1), ("ge2e", "mini", "1 s", 0.2)]
    lines += [("ge2e", "mini", "full", 0.15), ("aam", "other", "1 s", 0.4), ("aam", "other", "full", 0.2)]
    table = pd.DataFrame(lines, columns=["model", "list", "cut", "eer"])
    assert sentences.durations_of_models(table) == (
        "On mini *1 s* instead of whole utterances raises the EER most from 10.00 % of aam to 30.00 %, least from "
        "15.00 % of ge2e to 20.00 %. On other *1 s* instead of whole utterances raises the EER most from 20.00 % of "
        "aam to 40.00 %."
    )


def test_groups_tells_of_those_with_enough_trials_alone():
    lines = [("f", 120, 0.25), ("m", 150, 0.125), ("unknown", 900, 0.9), ("different", 0, float("nan")), ("x", 99, 1)]
    rows = [
        {"by": "gender", "group": group, "n_target": count, "p_miss": rate, "n_speakers": 4}
        for group, count, rate in lines
    ]
    assert sentences.groups(rows) == (
        "Missed most and least, of groups with 100 target trials or more: by gender 25.0 % in f (4 speakers) and 12.5 "
        "% in m (4 speakers)."
    )
    others = [row | {"by": "language", "group": name} for row, name in zip(rows, ("en", "de"))]
    others[0]["p_miss"] = 0.01
    assert sentences.groups(rows + others).endswith(
        "by gender 25.0 % in f (4 speakers) and 12.5 % in m (4 speakers); by language 12.5 % in de (4 speakers) and "
        "1.0 % in en (4 speakers)."
    )
    assert sentences.groups(rows[:1]) == (
        "No two groups have 100 target trials each, so that no difference between them can be told."
    )


def test_hardest_names_the_worst_of_each_kind():
    rows = [
        {"trial": trial, "llr": llr, "cosine": cosine}
        for trial, llr, cosine in [
            *(("target", -7.25, 0.1), ("target", -3.0, 0.2)),
            *(("non-target", 4.15, 0.9), ("non-target", 1.0, 0.8)),
        ]
    ]
    assert sentences.hardest(rows) == (
        "The lowest target trial has the LLR -7.2 (cosine 0.10), the highest non-target trial has the LLR +4.2 (cosine "
        "0.90); 0 is where the decision turns."
    )


def results(*rows):
    names = ["base", "list", "scoring", "loss", "eer", "eer_low", "eer_high"]
    return pd.DataFrame(rows, columns=names)


def test_compare_models():
    first = ("aam", "mini", "cosine", "aam", 0.1, 0.08, 0.14)
    others = [("ge2e", "mini", "cosine", "ge2e", 0.2, 0.15, 0.3), ("aam", "mini", "AS-norm", "aam", 0.01, 0, 0.02)]
    others += [("aam", "mini", "cosine", "none", 0.4, 0.3, 0.5), ("aam", "other", "cosine", "aam", 0.3, 0.2, 0.4)]
    assert sentences.compare_models(results(first, *others)) == (
        "On mini the cosine EERs of 2 models go from 10.00 % (aam) to 20.00 % (ge2e), and the intervals of these two "
        "do not overlap. On other the cosine EER of aam is 30.00 %."
    )
    wider = (*first[:6], 0.15)
    assert "these two overlap." in sentences.compare_models(results(wider, others[0]))


HISTORY = pd.DataFrame({"epoch": [0, 1, 2, 3], "val_eer": [0.4, 0.2, 0.1, 0.15], "seconds": [np.nan, 10, 20, 30]})


def test_validation_curves():
    slower = HISTORY.assign(val_eer=[0.4, 0.3, 0.2, 0.125])
    assert sentences.validation_curves({"slower": slower, "aam": HISTORY}) == (
        "Lowest comes aam, 10.00 % after 30 s of training; the best epochs of all lie between 30 s and 60 s."
    )
    assert sentences.validation_curves({"aam": HISTORY}) == "Lowest comes aam, 10.00 % after 30 s of training."


def test_training_curves():
    falls = "The validation EER falls from 40.00 % at the start to 10.00 % after epoch 2 of 3"
    for nothing in (None, HISTORY[:0]):
        found = sentences.training_curves(HISTORY, nothing)
        assert found == falls + "; this params file has no curves to expect yet."
    one = HISTORY.assign(val_eer=[0.4, 0.3, 0.2, 0.08], trainings=1)
    assert sentences.training_curves(HISTORY, one).startswith(
        falls + ", 2.00 points above the expected best (of one training, which says"
    )
    several = HISTORY.assign(val_eer=[0.4, 0.3, 0.2, 0.125], trainings=9)
    several = several.assign(val_eer_least=[0.4, 0.2, 0.15, 0.1], val_eer_greatest=[0.4, 0.35, 0.3, 0.2])
    assert sentences.training_curves(HISTORY, several) == (
        falls + ", 2.50 points below the expected best; after 2 of 3 epochs it lies within the range of 9 trainings."
    )


def test_training_curves_of_a_training_that_did_not_help():
    assert sentences.training_curves(HISTORY.assign(val_eer=[0.1, 0.2, 0.1, 0.3])) == (
        "In no epoch does the validation EER fall below the 10.00 % of the start; this params file has no curves to "
        "expect yet."
    )


def test_cosine_histograms():
    pairs = {"untrained": (np.array([0.5, 0.5]), np.array([0.5])), "best": (np.array([0.8, 0.9]), np.array([0.1]))}
    assert sentences.cosine_histograms(pairs) == (
        "Target and non-target cosines, untrained: medians 0.000 apart, EER 50.00 %; best: medians 0.750 apart, EER "
        "0.00 %."
    )


def test_similarity_matrix():
    similarities = np.array([[1, 0.8, 0.1, 0.9], [0.8, 1, 0.2, 0.3], [0.1, 0.2, 1, 0.6], [0.9, 0.3, 0.6, 1]])
    assert sentences.similarity_matrix(similarities, 2) == (
        "Crops of one speaker have the mean cosine 0.700, crops of two speakers 0.375; of 4 crops 2 have one of their "
        "own speaker as nearest neighbour."
    )


def test_scale_over_steps():
    steps = pd.DataFrame({"step": [1, 500, 1000], "scale": [5.0, 4.0, 4.5]})
    assert sentences.scale_over_steps(steps, 5.0) == (
        "The dynamic scale goes from 5.00 to 4.50 in 1,000 steps and ends at 90 % of the fixed scale 5.00."
    )


def test_schedules():
    steps = pd.DataFrame(
        {"step": [1, 2, 3, 4], "learning_rate": [0.01, 0.1, 0.05, 0.001], "margin": [0, 0.1, 0.2, 0.2]}
    )
    assert sentences.schedules(steps) == (
        "The learning rate is highest at step 2 (0.1) and ends at 0.001; the margin reaches its largest value, "
        "0.2 rad, at step 3."
    )
    assert sentences.schedules(steps.assign(margin=0.0)).endswith("ends at 0.001; the margin stays 0.")


def test_augmentations():
    waves = {"original": np.full(10, 0.1), "noise": np.full(10, 0.2), "clipping": np.full(10, 0.05)}
    assert sentences.augmentations(waves) == (
        "Against the crop *original* (-20.0 dB) the level changes by -6.0 dB (clipping) to +6.0 dB (noise)."
    )
    assert sentences.augmentations({"original": np.full(10, 0.1)}) == (
        "Nothing is augmented: the crop is heard as it is (-20.0 dB)."
    )


def test_recipes():
    columns = ["recipe", "eer", "difference", "difference_low", "difference_high"]
    rows = [
        ("base", 0.2, np.nan, np.nan, np.nan),
        ("wider", 0.15, -0.05, -0.08, -0.02),
        ("noisy", 0.21, 0.01, -0.1, 0.1),
    ]
    rows += [("slow", 0.3, 0.1, 0.05, 0.2)]
    assert sentences.recipes(pd.DataFrame(rows, columns=columns)) == (
        "Of 4 recipes wider has the lowest validation EER (15.00 %); the largest gain over the recipe before is that "
        "of wider (-5.00 points), and 2 of 3 intervals leave 0 out."
    )
    assert sentences.recipes(pd.DataFrame(rows[:1], columns=columns)) == (
        "Of 1 recipes base has the lowest validation EER (20.00 %)."
    )


@pytest.mark.parametrize("rate, text", [(0.5, "50.00 %"), (0.00004, "0.00 %")])
def test_rates_are_percent(rate, text):
    assert sentences._percent(rate) == text
