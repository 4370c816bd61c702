"""The way from embeddings to the rows of metrics.json, on a list of four utterances that is worked out by hand."""

import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import calibration, evaluate, judging, metrics, scoring, trials
from sv_utils.evaluation.calibration import Calibration
from sv_utils.evaluation.evaluate import Heard, Scorer
from sv_utils.evaluation.normalisation import Cohort
from sv_utils.evaluation.resampling import Resamples
from sv_utils.evaluation.systems import AS_NORM, COSINE, QMF, SCORINGS, System

IDS = ["a/1/x", "a/2/x", "b/1/x", "b/2/x"]
VECTORS = np.array([[2.0, 0.0], [4.0, 3.0], [0.0, 1.0], [0.6, 0.8]])  # directions (1, 0), (.8, .6), (0, 1), (.6, .8)
SAMPLES = np.array([16_000, 32_000, 48_000, 400_000])
LISTED = trials.Trials(
    np.array([1, 1, 0, 0], np.int8),
    np.array(["a/1/x", "b/1/x", "a/1/x", "b/2/x"]),
    np.array(["a/2/x", "b/2/x", "b/1/x", "a/2/x"]),
)
COSINES = [0.8, 0.8, 0.0, 0.96]


def heard(vectors=VECTORS, samples=SAMPLES):
    return Heard.of(IDS, ["a", "a", "b", "b"], samples, vectors)


def scorer(use_norms=True, dev=None):
    """A scorer whose calibrations are known: ratios of cosines are 10 cosine - 5, those of AS-norm its double."""
    n_qualities = 8 if use_norms else 6
    calibrations = {
        COSINE: Calibration(("cosine",), (10.0,), -5.0, 0.5, 10, 10),
        AS_NORM: Calibration(("as_norm",), (2.0,), 0.0, 0.5, 10, 10),
        # 100 x the smaller duration and 1000 x the larger one
        QMF: Calibration(("f",) * n_qualities, (0.0, 100.0, 1000.0) + (0.0,) * (n_qualities - 3), 1.0, 0.5, 10, 10),
    }
    cohort = Cohort(np.zeros(2), np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]), 2)
    dev = dev or (np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 1, 0, 0]))
    return Scorer("aam", cohort, use_norms, calibrations, dev)


def test_what_was_heard_is_parted_into_direction_length_and_duration():
    found = heard()
    np.testing.assert_allclose(found.embeddings, [[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    assert found.norms.tolist() == [2, 5, 1, 1] and found.seconds.tolist() == [1, 2, 3, 25] and len(found) == 4


def test_what_was_heard_must_be_equally_much_of_everything():
    with pytest.raises(RequestError, match=r"are \[4, 4, 3, 4\] in number"):
        heard(samples=SAMPLES[:3])


def test_what_was_heard_can_be_joined():
    short = heard(VECTORS[::-1] * 2, SAMPLES // 2)
    both = heard().followed_by(short)
    assert both.ids.tolist() == IDS * 2 and both.speakers.tolist() == ["a", "a", "b", "b"] * 2
    assert both.samples.tolist() == [16_000, 32_000, 48_000, 400_000, 8_000, 16_000, 24_000, 200_000]
    assert both.norms.tolist() == [2, 5, 1, 1, 2, 2, 10, 4]
    np.testing.assert_allclose(both.embeddings[4:], heard().embeddings[::-1])


def test_features_of_each_way_to_score_written_out():
    features = scorer().features(heard(), trials.rows(LISTED, IDS))
    np.testing.assert_allclose(features[COSINE][0], COSINES)
    # nearest two of the cohort: of (1, 0) 1 and 0.6, (.8, .6) 0.96 and 0.8, (0, 1) 0.8 and 0, (.6, .8) 1 and 0.6
    mean, deviation = [0.8, 0.88, 0.4, 0.8], [0.2, 0.08, 0.4, 0.2]
    as_norm = [
        ((cosine - mean[e]) / deviation[e] + (cosine - mean[t]) / deviation[t]) / 2
        for cosine, e, t in zip(COSINES, [0, 2, 0, 3], [1, 3, 2, 1])
    ]
    np.testing.assert_allclose(features[AS_NORM][0], as_norm)
    values, names = features[QMF]
    assert names == (
        *("as_norm", "duration_min", "duration_max", "duration_ratio"),
        *("cohort_mean_min", "cohort_mean_max", "norm_min", "norm_max"),
    )
    np.testing.assert_allclose(values[0], [as_norm[0], 1, 2, 0.5, 0.8, 0.88, 2, 5])
    np.testing.assert_allclose(values[3], [as_norm[3], 2, 20, 0.1, 0.8, 0.88, 1, 5])
    assert features[COSINE][1] == ("cosine",) and features[AS_NORM][1] == ("as_norm",)


def test_an_encoder_of_unit_vectors_has_no_length_among_its_features():
    assert scorer(use_norms=False).features(heard(), trials.rows(LISTED, IDS))[QMF][0].shape == (4, 6)


def test_scores_and_ratios_of_a_list():
    found = scorer().score("mini", LISTED, heard(), untrained=VECTORS[[2, 2, 2, 0]])
    systems = [System("aam", way) for way in SCORINGS]
    assert list(found.scores) == [*systems, System("aam", trained=False)] and list(found.ratios) == systems
    np.testing.assert_allclose(found.scores[systems[0]], COSINES)
    np.testing.assert_allclose(found.ratios[systems[0]], [3.0, 3.0, -5.0, 4.6])
    np.testing.assert_allclose(found.ratios[systems[1]], 2 * found.scores[systems[1]])
    np.testing.assert_allclose(found.ratios[systems[2]], [2101, 23001 - 2700, 3101, 20201])
    assert found.scores[systems[2]] is found.ratios[systems[2]]
    assert found.scores[System("aam", trained=False)].tolist() == [1, 0, 1, 0]
    assert [side.tolist() for side in found.sides] == [[0, 2, 0, 3], [1, 3, 2, 1]]
    assert [side.tolist() for side in found.speakers] == [["a", "b", "a", "b"], ["a", "b", "b", "a"]]
    assert found.plain == System("aam")


def test_the_cohort_is_asked_once_for_all_lists_of_the_same_utterances(monkeypatch):
    asked, place = [], Cohort.place
    monkeypatch.setattr(Cohort, "place", lambda cohort, vectors: asked.append(len(vectors)) or place(cohort, vectors))
    one, same = scorer(), heard()
    found = [one.score(name, LISTED, same) for name in ("O", "E")]
    assert (
        asked == [4]
        and found[0].scores[System("aam", AS_NORM)].tolist() == found[1].scores[System("aam", AS_NORM)].tolist()
    )
    other = one.score("O", LISTED, heard(VECTORS[::-1]))
    assert asked == [4, 4] and (other.scores[System("aam")] != found[0].scores[System("aam")]).any()
    del other
    assert len(one.placed) == 1  # what nobody has any more is not kept


MANY = [f"{name}/{k}" for name in "abcdef" for k in range(4)]
CROSSED = trials.make(MANY, 30, 60, seed=2)


def crowd():
    vectors = np.random.default_rng(3).normal(size=(24, 2))
    return Heard.of(MANY, [name[0] for name in MANY], np.arange(24) + 16_000, vectors)


def test_the_part_of_a_large_list_is_all_its_trials_between_some_speakers():
    small = trials.Trials(CROSSED.labels[:8], CROSSED.enrol[:8], CROSSED.test[:8])
    places, rows = evaluate.draw_parts({"large": CROSSED, "small": small}, crowd(), 14, seed=1)
    assert places["small"].tolist() == list(range(8))
    sides = np.stack([[name[0] for name in side] for side in (CROSSED.enrol, CROSSED.test)])
    drawn = set(sides[:, places["large"]].ravel().tolist())
    assert len(drawn) == 3  # a fourth speaker's utterances would be 16
    fits = evaluate.draw_parts({"large": CROSSED}, crowd(), 12, seed=1)[0]["large"]
    assert fits.tolist() == places["large"].tolist()  # the three have exactly so many
    assert places["large"].tolist() == [k for k in range(90) if set(sides[:, k].tolist()) <= drawn]
    used = [*CROSSED.enrol[places["large"]], *CROSSED.test[places["large"]], *small.enrol, *small.test]
    assert [MANY[row] for row in rows] == sorted(set(used))
    other = evaluate.draw_parts({"large": CROSSED}, crowd(), 14, seed=2)[0]["large"]
    assert other.tolist() != places["large"].tolist()


def test_a_small_list_is_measured_in_full_on_all_there_is():
    places, rows = evaluate.draw_parts({"O": CROSSED}, crowd(), 24, seed=1)
    assert places["O"].tolist() == list(range(90)) and rows.tolist() == list(range(24))
    few = trials.Trials(CROSSED.labels[:3], CROSSED.enrol[:3], CROSSED.test[:3])
    assert evaluate.draw_parts({"few": few}, crowd(), 24, seed=1)[1].tolist() == list(range(24))


def test_a_part_has_trials_of_both_kinds_however_small_it_is_wished():
    places, _ = evaluate.draw_parts({"O": CROSSED}, crowd(), 1, seed=1)
    assert set(CROSSED.labels[places["O"]].tolist()) == {0, 1} and len(places["O"]) < 90
    named = {name[0] for side in (CROSSED.enrol, CROSSED.test) for name in side[places["O"]]}
    assert len(named) == 2, "no more speakers than trials of both kinds need"


def test_a_part_of_a_list_of_one_kind_is_all_of_it():
    alike = trials.Trials(CROSSED.labels[:30], CROSSED.enrol[:30], CROSSED.test[:30])
    assert set(alike.labels) == {1} and len(evaluate.draw_parts({"O": alike}, crowd(), 5, seed=1)[0]["O"]) == 30


def test_the_untrained_encoder_and_altered_speech_are_judged_on_the_part():
    one, whole = scorer(), crowd()
    part, rows = evaluate.draw_parts({"O": CROSSED}, whole, 14, seed=1)
    other = np.random.default_rng(4).normal(size=(24, 2))
    found = one.score("O", CROSSED, whole, other, part["O"])
    plain, *_, untrained = one.judge(found, "p", "aam", {}, seed=3, replicates=20)
    picked = trials.Trials(CROSSED.labels[part["O"]], CROSSED.enrol[part["O"]], CROSSED.test[part["O"]])
    alone = one.judge(one.score("O", picked, whole, other), "p", "aam", {}, seed=3, replicates=20)[-1]
    assert untrained == alone and untrained["n_speakers"] == 3 and plain["n_speakers"] == 6
    assert len(found.by_kind(found.scores)["aam (untrained)"][0]) == untrained["n_target"] < plain["n_target"]
    changed = Heard.of(MANY, whole.speakers, np.minimum(whole.samples, 16_010), other)
    row = one.at_condition(found, "1 s", changed, whole.samples, rows)
    assert row["n_trials"] == len(part["O"]) and row["shortened"] == np.mean(rows > 10)
    assert row["mean_seconds"] == pytest.approx(np.mean(np.minimum(rows, 10) + 16_000) / 16_000, rel=1e-9)
    assert row["eer"] == one.at_condition(one.score("O", picked, whole), "1 s", changed, whole.samples)["eer"]


def test_an_encoder_trained_elsewhere_has_no_untrained_row():
    assert list(scorer().score("mini", LISTED, heard()).scores) == [System("aam", way) for way in SCORINGS]


def test_columns_of_the_score_file():
    found = scorer().score("mini", LISTED, heard(), untrained=VECTORS)
    columns = found.columns()
    assert list(columns) == ["label", "enrol", "test", "score", "llr", "as_norm", "as_norm_llr", "qmf_llr"]
    assert columns["label"].tolist() == [1, 1, 0, 0] and columns["test"].tolist() == LISTED.test.tolist()
    np.testing.assert_allclose(columns["llr"], [3.0, 3.0, -5.0, 4.6])
    assert columns["as_norm"] is found.scores[System("aam", AS_NORM)]


def test_scores_are_parted_by_kind_of_trial():
    found = scorer().score("mini", LISTED, heard())
    target, nontarget = found.by_kind(found.ratios)["aam"]
    np.testing.assert_allclose(target, [3.0, 3.0])
    np.testing.assert_allclose(nontarget, [-5.0, 4.6])


def test_rows_of_a_list_hold_names_figures_and_origin():
    found = scorer().score("mini", LISTED, heard(), untrained=VECTORS)
    made = {"seconds": 2.0, "key": "abc", "encoder": {"parameters": 5}}
    rows = scorer().judge(found, "tiny", "aam_loss", made, seed=3, replicates=20)
    assert [row["model"] for row in rows] == ["aam", "aam + AS-norm", "aam + AS-norm + QMF", "aam (untrained)"]
    assert [row["loss"] for row in rows] == ["aam_loss"] * 3 + ["none"]
    assert [row["system"]["scoring"] for row in rows] == ["cosine", "AS-norm", "AS-norm, QMF", "cosine"]
    assert [row["system"]["trained"] for row in rows] == [True, True, True, False]
    for row, (system, scores) in zip(rows, found.scores.items()):
        assert {name: row[name] for name in ("profile", "list", "seconds", "key", "encoder")} == {
            **{"profile": "tiny", "list": "mini"},
            **made,
        }
        expected = judging.judge(
            scores, LISTED.labels, found.ratios.get(system), Resamples.draw(*found.speakers, 20, 3)
        )
        np.testing.assert_equal({name: row[name] for name in expected}, expected)
    assert rows[0]["calibration"]["cllr"] == metrics.cllr([3.0, 3.0], [10 * 0.0 - 5, 10 * 0.96 - 5])
    assert rows[3]["calibration"] is None and math.isnan(rows[3]["cllr"])
    assert ["operating_points" in row for row in rows] == [True, False, False, False]


def test_thresholds_are_chosen_on_dev_speakers_and_measured_on_the_list():
    dev = np.concatenate([[0.92, 0.95], np.linspace(0.0, 0.792, 100)]), np.repeat([1, 0], [2, 100])
    found = scorer(dev=dev).score("mini", LISTED, heard())
    (row, *_) = scorer(dev=dev).judge(found, "tiny", "aam", {}, seed=0, replicates=20)
    equal, tenth = row["operating_points"]
    # no dev trial lies between 0.792 and 0.92; the list itself would choose another threshold, at or below 0.8
    assert equal["threshold"] == pytest.approx(0.856) and row["threshold"] <= 0.8 + 1e-12
    assert (equal["threshold_from"], equal["list"]) == ("dev speakers", "mini")
    assert equal["miss"][0] == 1.0 and equal["false_accept"][0] == 0.5
    # the 10th highest of 100 dev non-targets
    assert tenth["wanted"] == 0.1 and tenth["threshold"] == pytest.approx(0.72)
    assert tenth["miss"][0] == 0.0 and tenth["false_accept"][0] == 0.5


def test_rates_at_the_thresholds_are_resampled_as_the_error_rate_is():
    one = scorer(dev=(np.linspace(-1, 1, 200), np.tile([1, 0], 100)))
    found, plain = one.score("O", CROSSED, crowd()), System("aam")
    asked = found, "p", "aam", {}
    (row, *_) = one.judge(*asked, seed=3, replicates=25)
    np.testing.assert_equal(one.judge(*asked), one.judge(*asked, seed=0, replicates=1000))
    origin = {"threshold_from": "dev speakers", "list": "O"}
    judged = [one.dev, found.scores[plain], CROSSED.labels, found.speakers, origin]
    assert row["operating_points"] == judging.decision_points(*judged, 3, 25) != judging.decision_points(*judged, 0, 25)


def test_a_condition_is_judged_at_the_threshold_of_whole_speech():
    found = scorer().score("mini", LISTED, heard())
    changed = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    had = scorer().at_condition(found, "1 s", heard(changed, np.minimum(SAMPLES, 40_000)), SAMPLES)
    assert (had["cut"], had["mean_seconds"], had["shortened"]) == ("1 s", 2.0, 0.5)
    # cosines 0 and 0.96 of the target trials, 0.6 and 0.6 of the others; ratios -5, 4.6, 1, 1
    assert (had["p_miss"], had["p_fa"], had["eer"], had["n_trials"]) == (0.5, 1.0, 0.5, 4)


def test_mixed_trials_pair_whole_and_short_utterances_of_the_drawn_trials():
    ids = [f"{speaker}/{session}/x" for speaker in "abcde" for session in range(4)]
    labels, sides = evaluate.mixed_trials(ids, 41, seed=2)
    drawn = trials.make(ids, 20, 20, 2)
    assert labels.tolist() == drawn.labels.tolist() and labels.sum() == 20 and len(labels) == 40
    for side, rows in zip(sides, trials.rows(drawn, ids)):
        assert (side % 20 == rows).all() and set((side // 20).tolist()) == {0, 1}
    whole = [(enrol < 20, test < 20) for enrol, test in zip(*sides)]
    assert len(set(whole)) == 4  # the two sides are drawn for themselves
    chance = np.random.default_rng(2)
    assert [(side >= 20).tolist() for side in sides] == [(chance.integers(2, size=40) == 1).tolist() for _ in sides]


def people(names, seed, n=6, spread=0.6):
    """Utterances of speakers with a direction each."""
    rng = np.random.default_rng(seed)
    voices = np.repeat(rng.normal(size=(len(names), 8)), n, axis=0)
    ids = [f"{name}/{session}/x" for name in names for session in range(n)]
    samples = rng.integers(30_000, 200_000, len(ids))
    return Heard.of(ids, np.repeat(list(names), n), samples, voices + spread * rng.normal(size=voices.shape))


def test_fit_teaches_each_way_to_score_with_its_own_trials():
    train, dev = people("abcdefghij", 0), people("klmnop", 1)
    short = Heard.of(dev.ids, dev.speakers, dev.samples // 3, dev.embeddings + 0.2)
    dev_trials = trials.make(dev.ids, 60, 200, 4)
    fitted = Scorer.fit("x", train, dev, short, dev_trials, use_norms=False, top_k=5, qmf_trials=100, seed=9)
    assert (fitted.model, len(fitted.cohort), fitted.cohort.top_k) == ("x", 10, 5)
    sides = trials.rows(dev_trials, dev.ids)
    cosines = scoring.cosine(dev.embeddings, *sides)
    assert fitted.calibrations[COSINE] == calibration.fit_calibration(cosines, dev_trials.labels)
    as_norm = Cohort.of(train.embeddings, train.speakers, 5).as_norm(dev.embeddings, *sides)[0]
    assert fitted.calibrations[AS_NORM] == calibration.fit_calibration(as_norm, dev_trials.labels, ("as_norm",))
    assert (fitted.calibrations[QMF].n_target, fitted.calibrations[QMF].n_nontarget) == (50, 50)
    labels, mixed_sides = evaluate.mixed_trials(dev.ids, 100, 9)
    values, names = fitted.features(dev.followed_by(short), mixed_sides)[QMF]
    assert fitted.calibrations[QMF] == calibration.fit_calibration(values, labels, names)
    assert fitted.dev[0].tolist() == cosines.tolist() and fitted.dev[1].tolist() == dev_trials.labels.tolist()


def test_a_fit_of_which_nothing_is_said_has_300_neighbours_and_30_000_trials_of_seed_0(monkeypatch):
    train, dev, told, drawn = people("abc", 0), people("klm", 1), [], evaluate.mixed_trials
    monkeypatch.setattr(evaluate, "mixed_trials", lambda ids, *said: told.append(said) or drawn(ids, 20, 1))
    fitted = Scorer.fit("x", train, dev, dev, trials.make(dev.ids, 10, 20, 4), use_norms=True)
    assert told == [(30_000, 0)] and fitted.cohort.top_k == 300
    assert fitted.use_norms is True and fitted.calibrations[QMF].features[-2:] == ("norm_min", "norm_max")


def test_hardest_trials_of_the_model_itself():
    found = scorer().score("mini", LISTED, heard())
    lowest, highest = evaluate.hardest(found, 1)
    assert lowest == {"trial": "target", "enrol": "a/1/x", "test": "a/2/x", "cosine": 0.8, "llr": 3.0}
    assert (highest["trial"], highest["enrol"], highest["test"]) == ("non-target", "b/2/x", "a/2/x")
    assert (highest["cosine"], highest["llr"]) == (pytest.approx(0.96), pytest.approx(4.6))


def test_groups_of_the_model_itself():
    found = scorer().score("mini", LISTED, heard())
    rows = evaluate.by_known(found, {"gender": np.array(["f", "f", "m", "m"]), "language": np.full(4, "")})
    assert [(row["by"], row["group"], row["p_miss"], row["p_fa"]) for row in rows[1:]] == [
        ("gender", "f", 0.0, pytest.approx(math.nan, nan_ok=True)),
        ("gender", "m", 0.0, pytest.approx(math.nan, nan_ok=True)),
    ]
    assert (rows[0]["group"], rows[0]["n_nontarget"], rows[0]["p_fa"]) == ("different", 2, 0.5)
