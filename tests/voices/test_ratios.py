"""Ratios by conditions: features and names with their numbers, limits, and what lies outside of what was measured."""

import dataclasses
import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.models import pretrained
from sv_utils.voices import fitting, measured, ratios
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.development import Heard
from sv_utils.voices.judging import Own, Plain, Side
from sv_utils.voices.ratios import Ratios

STUDIO = Conditions(8.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
CALL = Conditions(8.0, 3500.0, 40.0, 0.0, 0.0, 0.1)


def rows(*conditions):
    return np.array([list(one.as_dict().values()) for one in conditions])


def changed(conditions, **fields):
    return Conditions(**(conditions.as_dict() | fields))


def test_features_have_their_numbers():
    first = rows(STUDIO, CALL, CALL, changed(STUDIO, speech_seconds=1.0), changed(STUDIO, noise=20.0, bandwidth=6000.0))
    second = rows(STUDIO, STUDIO, CALL, STUDIO, STUDIO)
    found = ratios.features(np.full(5, 0.5), first, second)
    np.testing.assert_allclose(
        found,
        [[0.5, 0, 0, 0, 0], [0.5, 0, 1, 0, 0], [0.5, 1, 0, 0, 0], [0.5, 0, 0, 2, 0], [0.5, 0, 0.5, 0, 0.5]],
    )
    np.testing.assert_allclose(ratios.features(np.full(5, 0.5), second, first), found)  # either order
    assert ratios.features(np.array([0.5]), first[3:4], second[3:4], ["cosine x short"]).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (STUDIO, STUDIO, "wide band"),
        (STUDIO, CALL, "wide and narrow band"),
        (CALL, CALL, "narrow band"),
        (changed(CALL, speech_seconds=1.0), CALL, "narrow band, short"),
        (changed(CALL, speech_seconds=1.0, noise=5.0), CALL, "narrow band, noisy"),
    ],
)
def test_a_condition_has_a_name_in_either_order(first, second, name):
    assert ratios.name_of(first, second) == ratios.name_of(second, first) == name
    assert name in fitting.all_conditions()


@pytest.fixture
def judge():
    """Ratios of 10 x cosine - 4, 2 less where both are narrow; at most 3 either way; cosines of -0.5 to 0.9."""
    point = {"name": "equal error", "wanted": None, "threshold": 0.0, "n_nontarget": 100}
    point |= {"false_accept": [0.1, 0.05, 0.2]}
    known = {"points": [point], "lowest": -3.0, "highest": 3.0, "cosines": [-0.5, 0.9]}
    known |= {"nontarget": np.linspace(-4, 1, 51).tolist(), "target": [2.0]}
    ranges = {field: [0.0, 1e9] for field in STUDIO.as_dict()} | {"noise": [10.0, 1e9]}
    names = ("cosine", "both_narrow")
    conditions = dict.fromkeys(fitting.all_conditions(), known)
    return Ratios(names, (10.0, -2.0), -4.0, conditions, ranges, np.zeros((0, 2)))


def sides(cosine, first=STUDIO, second=STUDIO):
    return Side(np.array([1.0, 0.0]), first), Side(np.array([cosine, math.sqrt(1 - cosine**2)]), second)


def test_the_same_cosine_means_less_on_the_telephone(judge):
    wide, narrow = judge(*sides(0.5)), judge(*sides(0.5, CALL, CALL))
    assert (wide.ratio, narrow.ratio) == (pytest.approx(1.0), pytest.approx(-1.0))
    assert (wide.accepted, narrow.accepted) == (True, False)
    assert (wide.point["threshold"], narrow.point["threshold"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert narrow.point["condition"] == "narrow band" and wide.warnings == narrow.warnings == []


def test_a_figure_shows_the_cosines_that_the_answer_tells(judge, monkeypatch):
    monkeypatch.setattr(measured, "judge", lambda *_: judge)
    point, recordings = judge.point([CALL, CALL]), [CALL.as_dict(), CALL.as_dict()]
    point |= {"wanted": None, "n_target": 7, "n_nontarget": 9}
    shown = measured.among({"operating_point": point, "score": 0.5, "recordings": recordings}, "any")
    assert shown["target"].tolist() == pytest.approx([0.8])  # a ratio of 2 is 10 x 0.8 - 2 - 4
    assert shown["nontarget"][[0, -1]].tolist() == pytest.approx([0.2, 0.7])
    assert (shown["score"], shown["threshold"], shown["counts"]) == (0.5, pytest.approx(0.6), (7, 9))
    assert shown["label"] == "compensated cosine, narrow band"


def test_no_ratio_goes_beyond_what_was_measured(judge):
    assert judge(*sides(0.89)).ratio == 3.0
    assert judge(*sides(-0.4)).ratio == -3.0


def test_outside_of_what_was_measured_the_answer_claims_less(judge):
    loud = changed(STUDIO, noise=5.0)
    found = judge(*sides(0.89, loud))
    assert found.ratio == pytest.approx(math.log(20)) and "a voice 5 dB above its background" in found.warnings[0]
    odd = judge(*sides(0.95))
    assert odd.ratio == pytest.approx(math.log(20))
    assert "no measured pair had a compensated cosine of 0.95" in odd.warnings[0]


@pytest.mark.parametrize(
    ("field", "low", "high", "said"),
    [
        ("speech_seconds", 0.4, 99.0, ("0.4 s of speech", "99.0 s of speech")),
        ("bandwidth", 900.0, 9000.0, ("a bandwidth of 900 Hz", "a bandwidth of 9000 Hz")),
        ("noise", 9.0, 90.0, ("a voice 9 dB above its background", "a voice 90 dB above its background")),
        ("clipped", -0.1, 0.25, ("clipping of -10.0% of the samples", "clipping of 25.0% of the samples")),
        (
            "holes",
            -0.1,
            0.6,
            ("compression that empties -10% of the sound", "compression that empties 60% of the sound"),
        ),
        ("decay", -0.1, 1.5, ("a decay of -0.1 s", "a decay of 1.5 s")),
    ],
)
def test_each_condition_has_its_range_on_either_side(judge, field, low, high, said):
    ranges = {name: [0.9 * value - 0.05, 1.1 * value + 0.05] for name, value in STUDIO.as_dict().items()}
    judge = dataclasses.replace(judge, ranges=ranges)
    assert judge(*sides(0.5)).warnings == []
    for value, text in zip((low, high), said):
        odd = changed(STUDIO, **{field: value})
        for pair in ((odd, STUDIO), (STUDIO, odd)):
            told = judge._outside(pair, 0.5, {"cosines": [0.0, 1.0]})
            assert told == [f"{text} lies outside of what was measured: the answer claims less"]


def test_the_threshold_rises_with_the_voices_and_the_rate_falls(judge):
    one, ten = judge(*sides(0.5)), judge(*sides(0.5), voices=10)
    assert ten.point["log_likelihood_ratio"] == pytest.approx(math.log(10)) and not ten.accepted
    assert ten.point["threshold"] == pytest.approx(0.4 + math.log(10) / 10)
    assert ten.point["false_accept"][0] < one.point["false_accept"][0] == 0.1


def test_the_rate_among_many_voices_is_counted_and_never_nothing():
    """A quarter of the quantiles lies above; half a trial at least, and no more than one comparison has."""
    point, quantiles = {"false_accept": [0.4, 0.2, 0.5], "n_nontarget": 1000}, [-2.0, -1.0, 0.0, 1.0]
    assert ratios._share_above(quantiles, 1.0, point) == pytest.approx([0.25, 0.125, 0.3125])
    assert ratios._share_above(quantiles, 9.0, point) == pytest.approx([0.125, 0.0625, 0.15625])
    assert ratios._share_above(quantiles, -9.0, point) == pytest.approx([0.4, 0.2, 0.5])
    few = point | {"n_nontarget": 2}
    assert ratios._share_above(quantiles, 9.0, few)[0] == 0.25
    none = point | {"false_accept": [0.0, 0.0, 0.02]}
    assert ratios._share_above(quantiles, 0.0, none) == [0.5, 0.0, 0.02]
    wide = point | {"false_accept": [0.1, 0.05, 0.9]}
    assert ratios._share_above([5.0], 0.0, wide | {"n_nontarget": 2}) == pytest.approx([0.1, 0.05, 0.9])


@pytest.mark.parametrize("condition", fitting.all_conditions())
def test_what_is_shipped_rises_with_the_cosine_and_knows_every_condition(condition):
    shipped = ratios.read("campplus")
    known = shipped["conditions"][condition]
    assert [point["wanted"] for point in known["points"]] == list(fitting.WANTED)
    thresholds = [point["threshold"] for point in known["points"][1:]]
    assert thresholds == sorted(thresholds) and known["lowest"] < 0 < known["highest"]
    for point in known["points"]:
        rate, low, high = point["false_accept"]
        assert 0 <= low <= rate <= high <= 1 and point["n_speakers"] > 20 and "held out" in point["list"]
    found = ratios.load("campplus")
    for first in (STUDIO, CALL, changed(CALL, noise=5.0, speech_seconds=0.6)):
        values = found.ratios(np.linspace(-1, 1, 9), rows(*[first] * 9), rows(*[STUDIO] * 9))
        assert (np.diff(values) > 0).all()


def test_a_rate_that_was_not_measured_is_refused():
    with pytest.raises(RequestError, match=r"0\.02 was not measured of campplus; give one of 0\.1, 0\.05, 0\.01"):
        measured.judge("campplus", 0.02)
    assert ratios.load("ge2e") is None and isinstance(measured.judge("ge2e"), Plain)
    assert set(pretrained.PUBLISHED) == {"campplus", "ge2e"}


def pairs(corpus, kind, centre, count=400, conditions=STUDIO):
    cosines = np.random.default_rng(len(corpus + kind)).normal(centre, 0.1, count)
    names = np.array([f"{corpus}{k % 40}" for k in range(count)])
    other = names if kind != "strangers" else np.roll(names, 1)
    table = rows(*[conditions] * count)
    return fitting.Pairs(corpus, "clean x clean", kind, cosines, cosines, table, table, (names, other))


def test_a_fit_hears_the_conditions_and_a_corpus_is_judged_without_itself():
    trials = []
    for corpus in ("a", "bb", "ccc"):
        trials += [pairs(corpus, "one session", 0.6), pairs(corpus, "strangers", 0.1)]
        trials += [pairs(corpus, "one session", 0.9, conditions=CALL), pairs(corpus, "strangers", 0.4, conditions=CALL)]
    fitted = fitting.fit(trials, "conditions")
    weights = dict(zip(fitted.features, fitted.weights))
    # two normal distributions 0.5 apart with a deviation of 0.1: the ratio is 50 (s - middle), the middle 0.3 higher
    assert weights["cosine"] == pytest.approx(50, rel=0.2) and weights["both_narrow"] == pytest.approx(-15, rel=0.2)
    assert fitted.offset == pytest.approx(-50 * 0.35, rel=0.2)
    parted = dict.fromkeys(("a", "bb", "ccc"), trials)
    own, found, limits = fitting.held_out(parted, "conditions")
    assert own == trials
    moved = [pairs("ccc", "strangers", 0.1) if one.corpus == "ccc" and not one.target else one for one in trials]
    _, again, _ = fitting.held_out(dict.fromkeys(parted, moved), "conditions")
    for one, before, after in zip(trials, found, again):
        if one.corpus == "ccc" and one.target:
            np.testing.assert_allclose(before, after)  # its own strangers do not matter to it
    assert np.mean(found[1] >= limits[1][0.05]) == pytest.approx(0.025, abs=0.025)  # half of what is claimed


def test_a_threshold_holds_in_the_hardest_pair_of_channels():
    easy = [pairs("a", "one session", 0.6), pairs("a", "strangers", 0.1)]
    hard = dataclasses.replace(pairs("a", "strangers", 0.2), cell="mp3 x mp3")
    few = dataclasses.replace(pairs("a", "strangers", 0.9, count=fitting.FEWEST - 1), cell="opus x opus")
    alone = fitting.thresholds([*easy, hard], [one.cosines for one in [*easy, hard]])["wide band"][0.05]
    assert np.mean(hard.cosines >= alone) == 0.025  # half of what is wanted, of 400
    middle = fitting.thresholds(easy, [one.cosines for one in easy])["wide band"][None]
    assert middle == pytest.approx(0.35, abs=0.03)  # between 0.1 and 0.6
    again = fitting.thresholds([*easy, hard, few], [one.cosines for one in [*easy, hard, few]])["wide band"][0.05]
    assert again == alone  # too few trials tell nothing of a quantile


def heard(embeddings):
    """Utterances of which only the embeddings matter."""
    nothing = np.zeros((len(embeddings), 6))
    ids = np.array([f"mv{k % 4:03}/s/{k}" for k in range(len(embeddings))])
    return Heard(ids, embeddings, embeddings, embeddings, nothing, nothing)


def test_the_direction_in_which_a_channel_moves_voices_is_removed(judge, monkeypatch):
    monkeypatch.setattr(fitting, "DIRECTIONS", 1)
    rng = np.random.default_rng(0)
    voices = rng.normal(size=(40, 5))
    sent = voices + np.array([0, 0, 3.0, 0, 0]) * rng.normal(1, 0.1, (40, 1))
    sent[7] = np.nan  # nothing was heard of it through the channel
    real = {"clean": heard(voices), "noise_10": heard(voices + np.array([9, 0, 0, 0, 0]))}  # it has no "as it is"
    found = fitting.directions({"mini": {"clean": heard(voices), "telephone": heard(sent)}, "phone": real})
    sent[7] = voices[7]
    np.testing.assert_allclose(np.abs(found), [[0, 0, 1, 0, 0]], atol=1e-3)
    kept = ratios.without(sent, found)
    np.testing.assert_allclose(kept, ratios.without(voices, found), atol=1e-2)


def test_a_cosine_is_that_of_the_embeddings_as_they_are_whoever_judges(judge):
    compensated = dataclasses.replace(judge, directions=np.array([[0.0, 1.0]]))(*sides(0.5))
    own = Own(0.4)(*sides(0.5))
    assert [compensated.cosine, compensated.score] == pytest.approx([0.5, 1.0])
    assert [own.cosine, own.score] == pytest.approx([0.5, 0.5])
    assert compensated.point["threshold_of"] == "compensated cosine" and own.point["threshold_of"] == "cosine"


def test_one_corpus_alone_cannot_be_held_out():
    with pytest.raises(RequestError, match="without mini no corpus is left to fit on"):
        fitting.folds({"mini": {"clean": heard(np.eye(4)), "opus": heard(np.eye(4))}, "phone": {}})


def test_speakers_and_cells_count_alike_whatever_their_trials():
    trials = [
        pairs("a", "one session", 0.6, 10),  # 10 speakers
        pairs("a", "strangers", 0.1, 1000),  # 40
        pairs("bb", "one session", 0.6, 20),  # 20, in two cells
        pairs("bb", "one session", 0.6, 5),
    ]
    weights = fitting.weights_of(trials)
    sums = [weights[:10].sum(), weights[10:1010].sum(), weights[1010:1030].sum(), weights[1030:].sum()]
    assert sums == pytest.approx([40, 40, 10, 10])
    assert len(set(weights[10:1010].tolist())) == 1


def test_a_corpus_of_more_trials_does_not_outweigh_the_others_in_the_fit():
    def fitted(count):
        kinds = [
            ("a", "one session", 0.5),
            ("a", "strangers", 0.1),
            ("bb", "one session", 0.9),
            ("bb", "strangers", 0.5),
        ]
        return fitting.fit([pairs(*kind, count if kind[0] == "bb" else 400) for kind in kinds], "cosine")

    alike, uneven = fitted(400), fitted(4000)
    assert [-one.offset / one.weights[0] for one in (alike, uneven)] == pytest.approx([0.5, 0.5], abs=0.02)
