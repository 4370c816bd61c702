"""The model and the wanted rate of an answer reach the encoder and the judge; what a fit takes from what."""

import contextlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.models import embedding, pretrained, runtimes
from sv_utils.voices import activity, compare, development, encoder, enrolment, fitting, identify, measured, ratios
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.development import Heard
from sv_utils.voices.judging import Plain, Side

GOOD = Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
POINT = {"name": "equal error", "wanted": None, "threshold": 0.4, "list": "own", "false_accept": [0.02, 0.01, 0.08]}
SOUND = (3000 * np.random.default_rng(0).normal(size=48_000)).clip(-32768, 32767).astype(np.int16)


@pytest.fixture
def asked(monkeypatch):
    """What encoder and judge are asked, by the name of the function."""
    seen = {"embeddings": [], "judge": []}

    def embeddings(model, waveforms):
        seen["embeddings"].append((model, len(waveforms)))
        return np.tile([1.0, 0.0], (len(waveforms), 1))

    def judge(*given):
        seen["judge"].append(given)
        return Plain(Calibration(("cosine",), (10.0,), -4.0, 0.5, 99, 999), POINT)

    monkeypatch.setattr(encoder, "embeddings", embeddings)
    monkeypatch.setattr(measured, "judge", judge)
    monkeypatch.setattr(activity, "heard", lambda samples: ([(0, len(samples))], [samples]))
    monkeypatch.setattr(pretrained, "fingerprint", lambda model: "print")
    return seen


def test_a_comparison_asks_the_model_that_is_named_at_the_rate_that_is_wanted(asked):
    compare.compare(SOUND, SOUND[::-1], "own.keras", false_accept=0.01)
    assert asked == {"embeddings": [("own.keras", 2)], "judge": [("own.keras", 0.01)]}


def test_a_second_voice_is_looked_for_by_the_model_that_is_named(asked, monkeypatch):
    models = []
    monkeypatch.setattr(compare.turns, "warned", lambda recording, model: models.append(model) or [])
    compare.compare(SOUND, SOUND[::-1], "own.keras")
    assert models == ["own.keras"] * 2


def test_who_speaks_is_asked_by_the_model_of_the_voices_at_the_rate_that_is_wanted(asked, tmp_path):
    side = Side(np.array([1.0, 0.0]), GOOD)
    enrolment.add(tmp_path / "v.npz", "ge2e", "print", "ada", [side])
    found = identify.identify(SOUND, false_accept=0.05, store=tmp_path / "v.npz")
    assert found["name"] == "ada" and asked == {"embeddings": [("ge2e", 1)], "judge": [("ge2e", 0.05)]}


def test_a_voice_is_enrolled_and_held_against_itself_by_the_model_that_is_named(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(enrolment.recordings, "hear", lambda file, segment: heard_as(file))
    assert enrolment.enrol("ada", ["a.wav", "b.wav"], "ge2e", tmp_path / "v.npz")[0] == 2
    assert asked == {"embeddings": [("ge2e", 4)], "judge": [("ge2e",)]}  # both hearings of two recordings


def heard_as(file):
    speech = np.arange(48_000 + len(file) + ord(file[0]))
    sound, found = SimpleNamespace(samples=speech), {"speech": speech, "hearings": [speech, speech[1:]]}
    return SimpleNamespace(
        enough=True, conditions=GOOD, sound=sound, stretches=[], warnings=list, name=file, label=file, **found
    )


def test_a_figure_shows_the_scores_of_the_model_and_the_rate_of_the_answer(asked, monkeypatch):
    monkeypatch.setattr(measured, "scores", lambda model: (np.array([0.9]), np.array([0.1, len(model)])))
    point = POINT | {"wanted": 0.05, "threshold": 0.45, "threshold_of": "cosine"}
    shown = measured.among({"operating_point": point, "score": 0.6}, "own.keras")
    assert asked["judge"] == [("own.keras", 0.05)] and shown["nontarget"].tolist() == [0.1, 9.0]
    assert (shown["threshold"], shown["score"], shown["counts"]) == (0.45, 0.6, (1, 2)) and shown["label"] == "cosine"


@pytest.mark.parametrize(("model", "wanted"), [("campplus", 0.01), ("campplus", None), ("ge2e", 0.05), ("ge2e", None)])
def test_a_judge_has_the_operating_point_of_the_wanted_rate(model, wanted):
    assert measured.judge(model, wanted).point([GOOD, GOOD])["wanted"] == wanted


def test_a_published_encoder_is_judged_by_the_calibration_of_its_card():
    fields, found = pretrained.card("ge2e")["calibration"], measured.judge("ge2e").calibration
    assert (found.features, list(found.weights), found.offset) == (("cosine",), fields["weights"], fields["offset"])
    assert (found.n_target, found.n_nontarget) == (fields["n_target"], fields["n_nontarget"])


def test_a_model_of_ones_own_is_judged_by_the_first_row_of_its_own_evaluation(monkeypatch, tmp_path):
    """The other rows are of other lists; other models of the profile lie beside it."""
    for name, slope in (("softmax", 9.0), ("aam", 7.0)):
        training, judged = tmp_path / f"03_train_{name}", tmp_path / f"08_evaluate@{name}"
        training.mkdir()
        judged.mkdir()
        (training / "model.keras").write_text(name)
        Calibration(("cosine",), (slope,), -3.0, 0.5, 5, 6).save(judged / "calibration.json")
        about = {"encoder": {"sha256": runtimes.sha256(training / "model.keras")}}
        lists = [f"{place} of {name}" for place in ("first", "other")]
        points = [[POINT | {"list": of, "wanted": wanted} for wanted in (None, 0.01)] for of in lists]
        (judged / "metrics.json").write_text(json.dumps([about | {"operating_points": one} for one in points]))
    (tmp_path / "08_evaluate@aam" / "scores_first of aam.csv").write_text("label,score\n0,0.25\n1,0.75\n")
    model = str(tmp_path / "03_train_aam" / "model.keras")
    found = measured.judge(model, 0.01)
    assert (found.calibration.weights, found.operating_point["list"]) == ((7.0,), "first of aam")
    monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: np.eye(2))
    monkeypatch.setattr(activity, "heard", lambda samples: ([], [samples]))
    answer = compare.compare(SOUND, SOUND[::-1], model, false_accept=0.01)  # wherever its file lies
    assert (answer["operating_point"]["list"], answer["log_likelihood_ratio"]) == ("first of aam", -math.log(6))
    shown = measured.among(answer, model)
    assert [shown[kind].tolist() for kind in ("target", "nontarget")] == [[0.75], [0.25]]
    for text in ("{", "{}", "[]", "3", "[3]", '[{"encoder": 3}]'):
        (tmp_path / "08_evaluate@aam" / "metrics.json").write_text(text)
        with pytest.raises(RequestError, match=r"08_evaluate@aam/metrics\.json is damaged; evaluate .* anew"):
            measured.judge(model)
    monkeypatch.setattr(pretrained, "load", lambda file: None)
    for name in ("metrics", "calibration"):
        here = tmp_path / "08_evaluate@aam" / f"{name}.json"
        here.rename(tmp_path / "away")
        with pytest.raises(RequestError, match=r"calibration\.json and metrics\.json of 08_evaluate@aam do not lie"):
            measured.judge(model)
        (tmp_path / "away").rename(here)


@pytest.mark.parametrize(("fast", "used"), [("fast.tflite", "fast.tflite"), (None, "place of own.keras")])
def test_an_answer_is_embedded_by_the_quick_form_of_its_own_model(monkeypatch, fast, used):
    seen = []

    def embed(network, lengths, read, **options):
        seen.append((network, lengths, options))
        return np.array([read(row)[:2] for row in range(len(lengths))])

    monkeypatch.setattr(pretrained, "locate", lambda model: f"place of {model}")
    monkeypatch.setattr(runtimes, "fast_form", lambda source: seen.append(source) or fast)
    monkeypatch.setattr(encoder, "_network", lambda file: f"network of {file}")
    monkeypatch.setattr(embedding, "embed", embed)
    found = encoder.embeddings("own.keras", [np.full(size, name) for name, size in enumerate([3, 5, 3, 4])])
    assert seen[0] == "place of own.keras" and {network for network, *_ in seen[1:]} == {f"network of {used}"}
    assert [lengths for _, lengths, _ in seen[1:]] == [[5], [4], [3, 3]], "the longest first, and alike ones together"
    assert seen[1][2] == {"batch_size": 4} and found.tolist() == [[row, row] for row in range(4)]


def test_the_model_that_is_named_is_loaded_while_recordings_are_heard(asked, monkeypatch, tmp_path):
    seen, hear = [], compare.recordings.hear
    monkeypatch.setattr(encoder, "begun", lambda model: seen.append(model) or contextlib.nullcontext())
    monkeypatch.setattr(
        compare.recordings, "hear", lambda *given, **named: seen.append("heard") or hear(*given, **named)
    )
    compare.compare(SOUND, SOUND[::-1], "own.keras")
    enrolment.add(tmp_path / "v.npz", "ge2e", "print", "ada", [Side(np.array([1.0, 0.0]), GOOD)])
    identify.identify(SOUND, store=tmp_path / "v.npz")
    assert seen == ["own.keras", "heard", "heard", "ge2e", "heard"]


def test_calibration_hears_the_first_few_utterances_of_each_speaker(monkeypatch):
    ids = [f"{speaker}/s/{number}" for speaker in "ba" for number in (3, 1, 4, 0, 5, 2)]
    table = pd.DataFrame({"id": ids, "subset": "dev", "error": ""})
    monkeypatch.setattr(development.acquisition, "fetch", lambda entry: f"archives of {entry.name}")
    monkeypatch.setattr(development.preparation, "prepare", lambda entry, found, workers: (entry.name, found, workers))
    monkeypatch.setattr(development.limits, "view", lambda entry, store: seen.append((entry.name, store)) or table)
    monkeypatch.setattr(
        development, "Speech", lambda rows: SimpleNamespace(waveform=lambda row: [int(rows["id"][row][-1])])
    )
    seen = []
    for corpus, count in (("mini", 4), ("ocean", 3)):
        found = development.waveforms(corpus)
        assert list(found) == [f"{speaker}/s/{number}" for speaker in "ab" for number in range(count)]
        assert [samples.tolist() for samples in found.values()] == [[number] for number in range(count)] * 2
        assert seen.pop() == (corpus, (corpus, f"archives of {corpus}", 2))


def test_what_is_written_of_an_encoder_comes_from_all_corpora_and_its_choice_from_held_out_ones(monkeypatch):
    """And what is claimed of it from those too."""
    heard = {"ocean": "heard of ocean", "mini": "heard of mini"}
    fitted = Calibration(("cosine",), (9.0,), -3.0, 0.5, 5, 6)
    monkeypatch.setattr(fitting, "folds", lambda heard: f"folds of {sorted(heard)}")
    monkeypatch.setattr(pretrained, "card", lambda model: f"card of {model}")
    monkeypatch.setattr(
        fitting, "choose", lambda parted, card: ("conditions", {"c": (parted, card)}, {"conditions": "its table"})
    )
    monkeypatch.setattr(fitting, "directions", lambda heard: np.eye(2, dtype=np.float32) * len(heard))
    monkeypatch.setattr(fitting, "pairs_of", lambda *given: [(given[0], given[1], given[2].tolist())])
    monkeypatch.setattr(fitting, "fit", lambda trials, model: (trials, model) == (pairs, "conditions") and fitted)
    monkeypatch.setattr(fitting, "ranges", lambda trials: trials)
    monkeypatch.setattr(fitting, "measured", lambda *given: given)
    pairs = [(name, heard[name], [[2.0, 0.0], [0.0, 2.0]]) for name in heard]
    parted = "folds of ['mini', 'ocean']"
    monkeypatch.setattr(fitting, "second_voices", lambda *given: given)
    found = fitting.content("ge2e", heard, "joined")
    assert found["second_voices"] == ("joined", heard)
    assert (found["model"], found["corpora"], found["table"]) == ("ge2e", ["mini", "ocean"], "its table")
    assert (found["features"], found["weights"], found["offset"]) == (["cosine"], [9.0], -3.0)
    assert found["chosen"] == {"model": "conditions", "held_out_cllr": {"c": (parted, "card of ge2e")}}
    assert found["ranges"] == pairs and found["conditions"] == (pairs, parted, "conditions")
    assert ratios.unpacked(found["directions"]).tolist() == [[2.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize(
    ("cllr", "chosen"),
    [((0.304, 0.302, 0.300), "cosine"), ((0.4, 0.304, 0.300), "conditions"), ((0.4, 0.306, 0.300), "slopes")],
)
def test_the_simplest_model_is_taken_that_is_nearly_the_best(monkeypatch, cllr, chosen):
    costs = dict(zip(ratios.MODELS, cllr))
    monkeypatch.setattr(fitting, "held_out", lambda parted, model: (model, parted))
    monkeypatch.setattr(
        fitting, "table", lambda model, parted, card: [{"now": {"cllr": costs[model] + step}} for step in (-0.1, 0.1)]
    )
    model, means, tables = fitting.choose("parted", "card")
    assert model == chosen and means == pytest.approx(costs) and list(tables) == list(costs)


def utterances(degrees, shift):
    """Utterances at these angles; their first 2 s are turned by `shift`, and as they are by twice that."""
    points = [np.radians(np.array(degrees) + turn) for turn in (0, shift, 2 * shift)]
    speech, cut, whole = (np.column_stack([np.cos(angle), np.sin(angle)]) for angle in points)
    rows = np.arange(6.0) + 10 * np.arange(len(degrees))[:, None]
    return Heard(np.array(["a/s/0", "a/s/1", "b/s/0"]), speech, cut, whole, rows, rows + 0.5)


def test_trials_are_of_the_sides_the_channels_and_the_part_that_a_cell_names(monkeypatch):
    heard = {"clean": utterances([0, 20, 90], 5), "telephone": utterances([3, 30, 120], -2)}
    monkeypatch.setattr(fitting, "utterance_pairs", lambda corpus, ids: {"one session": np.array([[0, 1], [0, 2]])})
    cells = (("clean", "telephone", 0), ("clean", "telephone", 1), ("clean", "telephone", 2), ("clean", "mp3", 0))
    monkeypatch.setattr(fitting, "CELLS", cells)
    plain, first, both = fitting.pairs_of("mini", heard, np.zeros((0, 2)))
    names = ["clean x telephone", "clean x telephone, 2 s x all", "clean x telephone, 2 s x 2 s"]
    assert [one.cell for one in (plain, first, both)] == names
    apart = {"plain": ([30, 120], [16, 106]), "first": ([25, 115],) * 2, "both": ([23, 113],) * 2}
    for one, (cosines, whole) in zip((plain, first, both), apart.values()):
        np.testing.assert_allclose(one.cosines, np.cos(np.radians(cosines)))
        np.testing.assert_allclose(one.whole, np.cos(np.radians(whole)))
    assert [[one.first[0, 0], one.second[0, 0]] for one in (plain, first, both)] == [[0, 10], [0.5, 10], [0.5, 10.5]]
    assert [side.tolist() for side in plain.speakers] == [["a", "a"], ["a", "b"]]


def test_what_was_not_heard_through_a_channel_is_in_no_trial(monkeypatch):
    """And what a channel does to all is removed from either side, but not from the recordings as they are."""
    sent = utterances([3, 30, 120], -2)
    sent.speech[2] = np.nan
    heard = {"clean": utterances([0, 20, 90], 5), "telephone": sent}
    kinds = {"one session": np.array([[0, 1], [0, 2]]), "strangers": np.array([[1, 2]])}
    monkeypatch.setattr(fitting, "utterance_pairs", lambda corpus, ids: kinds if list(ids) == list(sent.ids) else {})
    monkeypatch.setattr(fitting, "CELLS", (("clean", "telephone", 0), ("telephone", "clean", 0)))
    found = fitting.pairs_of("mini", heard, np.array([[0.0, 1.0]]))
    told = [(one.corpus, one.cell, one.kind, len(one), one.cosines.tolist()) for one in found]
    there, back = ("mini", "clean x telephone"), ("mini", "telephone x clean")
    assert told == [
        (*there, "one session", 1, [1.0]),
        (*back, "one session", 2, [1.0, pytest.approx(0.0, abs=1e-3)]),
        (*back, "strangers", 1, [pytest.approx(0.0, abs=1e-3)]),
    ]
    np.testing.assert_allclose(found[0].whole, np.cos(np.radians([10 - 26])))
    assert found[0].target and not found[2].target


def test_each_corpus_is_held_out_with_the_directions_of_the_others(monkeypatch):
    monkeypatch.setattr(fitting, "directions", lambda heard: f"without {sorted(heard)}")
    monkeypatch.setattr(fitting, "pairs_of", lambda *given: [given, "more"])
    heard = {"mini": "m", "ocean": "o", "phone": "p"}
    found = fitting.folds(heard)
    removed = {"mini": ["ocean", "phone"], "ocean": ["mini", "phone"], "phone": ["mini", "ocean"]}
    assert found == {
        name: [one for of in heard for one in ((of, heard[of], f"without {rest}"), "more")]
        for name, rest in removed.items()
    }


def one_of(corpus, kind, cosines, speakers, conditions=GOOD):
    rows = np.array([list(conditions.as_dict().values())] * len(cosines))
    names = tuple(np.array(list(side)) for side in speakers)
    return fitting.Pairs(corpus, "c", kind, np.array(cosines), np.array(cosines), rows, rows, names)


def test_what_is_claimed_is_told_of_each_corpus_and_of_calls_on_one_day_and_on_another(monkeypatch):
    monkeypatch.setattr(fitting, "FEWEST", 2)
    trials = [
        one_of("mini", "one session", [0.9, 0.1], ("ab", "ab")),
        one_of("mini", "strangers", [0.2, 0.8], ("ab", "ba")),
        one_of("phone", "one call", [0.9, 0.9], ("xy", "xy")),
        one_of("phone", "another call", [0.1, 0.2, 0.9], ("xyz", "xyz")),
        one_of("phone", "strangers", [0.9, 0.1, 0.1, 0.1], ("xyzx", "yzxy")),
    ]
    limits = [dict.fromkeys(fitting.WANTED, np.full(len(one), 0.5)) for one in trials]
    limits = [cut | {0.01: cut[0.01] + 0.45} for cut in limits]
    columns = fitting._Columns.of(trials, [one.cosines for one in trials], limits)
    seen, asked = [], fitting.judging.rates_with_intervals
    monkeypatch.setattr(fitting.judging, "rates_with_intervals", lambda *given: seen.append(given) or asked(*given))
    told = columns.claims(np.ones(13, bool), None, "the band")
    rates = {row["list"]: (row["false_accept"][0], row["miss"][0]) for row in (told, *told["by_list"])}
    credited = "phone (WUW corpus II)"
    assert rates == {
        f"dev speakers of mini, {credited}, each held out of the fit": (2 / 6, 3 / 7),
        "dev speakers of mini": (0.5, 0.5),
        f"dev speakers of {credited}, one call": (0.25, 0.0),
        f"dev speakers of {credited}, another call": (0.25, 2 / 3),
    }
    assert told["measured_under"] == "the band"
    assert [(row["n_speakers"], row["n_target"], row["n_nontarget"]) for row in (told, *told["by_list"])] == [
        *((5, 7, 6), (2, 2, 2), (3, 2, 4), (3, 3, 4)),
    ]
    accepted, labels, speakers, *rest = seen[0]
    assert accepted.tolist() == [True, False, False, True] and labels.tolist() == [1, 1, 0, 0]
    assert [side.tolist() for side in speakers] == [[f"mini {name}" for name in side] for side in ("abab", "abba")]
    assert rest == [0, fitting.REPLICATES]
    assert columns.claims(np.ones(13, bool), 0.01, "")["miss"][0] == 1.0, "by the threshold of that rate"
    monkeypatch.setattr(fitting, "FEWEST", 6)
    (row,) = columns.claims(np.ones(13, bool), None, "")["by_list"]
    assert row["list"].endswith("another call"), "of less than three either way nothing is told"
    alone = columns.claims(np.arange(13) < 2, None, "")
    assert alone == {"measured_under": "", "by_list": []}, "without strangers there are no rates"
    spread = columns.spread(np.arange(13) >= 4)
    assert [spread["highest"], spread["lowest"]] == pytest.approx([np.log(3), -np.log(3)])
    assert (spread["target"][0], spread["target"][-1], spread["cosines"]) == (0.1, 0.9, [0.1, 0.9])
    assert len(spread["target"]) == len(spread["nontarget"]) == fitting.QUANTILES


def test_of_too_few_trials_those_of_their_band_or_of_all_are_taken(monkeypatch):
    monkeypatch.setattr(fitting, "FEWEST", 2)
    names = np.array(["wide band"] * 4 + ["wide band, short"] * 3 + ["wide and narrow band"])
    target = np.array([True, True, False, False, True, False, False, True])
    for condition, rows, source in (
        ("wide band", 4, "wide band"),
        ("wide band, short", 7, "wide band"),
        ("narrow band, noisy", 8, "all"),
    ):
        inside, name = fitting._enough(names, target, condition)
        assert (inside.tolist(), name) == ([True] * rows + [False] * (8 - rows), source)


def test_ranges_are_those_of_nearly_all_speech_and_open_where_more_is_better():
    rows = np.arange(1.0, 4001)[:, None] * [1, 10, 100, 0.1, 0.01, 0.001]
    trials = [fitting.Pairs("a", "c", "strangers", rows[:1], rows[:1], rows[:2000], rows[2000:], (rows[:1], rows[:1]))]
    low, high = 1 + 0.001 * 3999, 1 + 0.999 * 3999
    found = fitting.ranges(trials)
    assert [found[name] for name in ("speech_seconds", "bandwidth", "noise")] == [
        *([pytest.approx(low * scale), 1e9] for scale in (1, 10, 100)),
    ]
    assert [found[name] for name in ("clipped", "holes", "decay")] == [
        *([0.0, pytest.approx(high * scale)] for scale in (0.1, 0.01, 0.001)),
    ]


def test_a_fit_whose_ratios_fall_as_the_cosine_rises_is_refused():
    trials = [one_of("a", "one session", [0.1, 0.2, 0.3], ("abc", "abc"))]
    trials.append(one_of("a", "strangers", [0.25, 0.8, 0.9], ("abc", "bca")))
    with pytest.raises(WorkError, match="the ratios of cosine fall as the cosine rises; fit it on more trials"):
        fitting.fit(trials, "cosine")


def test_what_was_before_and_what_is_now_stand_beside_each_other():
    rows, speakers = np.zeros((2, 6)), (np.array(["a", "b"]),) * 2
    cosines = {"one session": np.array([0.8, 0.3]), "strangers": np.array([0.2, 0.5])}
    pairs = [fitting.Pairs("mini", "c", kind, c, c - 0.1, rows, rows, speakers) for kind, c in cosines.items()]
    found = [np.array([3.0, -1.0]), np.array([-2.0, 1.0])]
    cuts = ((0.0, 0.5, 4.0), (0.0, 1.5, 1.0))  # of one voice; of two
    limits = [dict(zip((None, 0.05, 0.01), (np.full(2, cut) for cut in each))) for each in cuts]
    old = [{"wanted": wanted, "threshold": cut} for wanted, cut in ((None, 0.1), (0.05, 0.35), (0.01, 0.6))]
    card = {"operating_points": old, "calibration": {"weights": [10.0], "offset": -4.0}}
    (row,) = fitting.table(pairs, found, limits, card)
    assert (row["kind"], row["target"], row["nontarget"], row["eer"]) == ("one session", 2, 2, 0.5)
    assert row["now"]["accepted"] == [0.5, 0.0, 0.5] and row["now"]["missed"] == [0.5, 0.5, 1.0]
    # of the recordings as they are: 0.7 and 0.2 of one voice, 0.1 and 0.4 of two
    assert row["before"]["accepted"] == [1.0, 0.5, 0.0] and row["before"]["missed"] == [0.0, 0.5, 0.5]
    cost = [np.log2(1 + np.exp(-ratio)).mean() for ratio in (np.array([3.0, -2.0]), np.array([3.0, 0.0]))]
    assert row["before"]["cllr"] == pytest.approx(sum(cost) / 2)
    cost = [np.log2(1 + np.exp(-ratio)).mean() for ratio in (np.array([3.0, -1.0]), np.array([2.0, -1.0]))]
    assert row["now"]["cllr"] == pytest.approx(sum(cost) / 2)
    assert [row[way]["cllr_min"] for way in ("before", "now")] == pytest.approx([0.5, 0.5])  # two of four lie in turn


def test_thresholds_come_from_all_trials_and_what_is_claimed_of_them_from_held_out_ones(monkeypatch):
    good, speakers = np.array([list(GOOD.as_dict().values())] * 2), (np.array(["a", "b"]),) * 2
    cosines = {"one session": np.array([0.8, 0.3]), "strangers": np.array([0.2, 0.5])}
    pairs = [fitting.Pairs("mini", "c", kind, c, c, good, good, speakers) for kind, c in cosines.items()]
    found = [np.array([3.0, -1.0]), np.array([-2.0, 1.0])]
    limits = [dict.fromkeys(fitting.WANTED, np.zeros(2)) | {0.01: np.full(2, 2.0)} for _ in pairs]
    fitted = Calibration(("cosine",), (10.0,), -4.0, 0.5, 5, 6)
    seen = []

    def thresholds(trials, ratios):
        seen.append((trials, [one.tolist() for one in ratios]))
        return {name: {wanted: 100 * (wanted or 1) for wanted in fitting.WANTED} for name in fitting.all_conditions()}

    monkeypatch.setattr(fitting, "FEWEST", 1)
    monkeypatch.setattr(fitting, "fit", lambda trials, model: seen.append((trials, model)) or fitted)
    monkeypatch.setattr(fitting, "thresholds", thresholds)
    monkeypatch.setattr(fitting, "held_out", lambda *given: seen.append(given) or (pairs, found, limits))
    known = fitting.measured(pairs, "parted", "cosine")["wide band"]
    assert seen[0] == (pairs, "cosine") and seen[2] == ("parted", "cosine")
    assert seen[1][0] is pairs and np.concatenate(seen[1][1]).tolist() == pytest.approx([4.0, -1.0, -2.0, 1.0])
    points = {point["wanted"]: point for point in known["points"]}
    assert {wanted: point["threshold"] for wanted, point in points.items()} == {None: 100, 0.1: 10, 0.05: 5, 0.01: 1}
    names = ["equal error", "false accepts 10.0%", "false accepts 5.0%", "false accepts 1.0%"]
    assert [point["name"] for point in points.values()] == names
    assert {point["threshold_from"] for point in points.values()} == {"dev speakers under this condition"}
    assert {wanted: (point["false_accept"][0], point["miss"][0]) for wanted, point in points.items()} == {
        **dict.fromkeys((None, 0.1, 0.05), (0.5, 0.5)),
        0.01: (0.0, 0.5),
    }
    assert points[None]["measured_under"] == "wide band" and points[None]["n_speakers"] == 2
    assert [known["lowest"], known["highest"]] == pytest.approx([-np.log(2), np.log(2)])
    assert known["cosines"] == [0.2, 0.8] and [known[kind][0] for kind in ("target", "nontarget")] == [-1.0, -2.0]
