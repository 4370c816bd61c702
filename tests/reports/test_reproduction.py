"""The verdict: trained models lie where others lay, what no rounding changes agrees, and else it says what does not."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from whole_files import written_whole

from sv_utils import report
from sv_utils.base import paths
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, reproduction, tables

PARAMS = """
01_download: {}
02_prep: {}
03_train_softmax: {}
05_train_cosface: {}
08_evaluate: {}
09_report: {}
"""
LOSSES = {"softmax": [0.011, 0.013, 0.009, 0.010, 0.012], "cosface": [0.08, 0.12, 0.10, 0.05, 0.21]}
EERS = {"softmax": [0.09, 0.10, 0.11, 0.10, 0.095], "cosface": [0.08, 0.09, 0.10, 0.11, 0.09]}


def recorded(eers, losses):
    """Trainings on record, whose losses began at 3."""
    places = {"eer": ("mini", -1, eers), "loss": ("", 8, losses)}
    rows = [
        {"model": model, "list": name, "epoch": epoch, "figure": figure, "value": value}
        for figure, (name, epoch, figures) in places.items()
        for model, values in figures.items()
        for value in values
    ]
    began = [row | {"epoch": 1, "value": 3.0} for row in rows if row["figure"] == "loss"]
    return expected.summed(rows + began)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that leaves a finished run with these EERs and last losses; five trainings are on record."""
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "params/expected").mkdir(parents=True)
    (tmp_path / "params/two.yaml").write_text(PARAMS)
    recorded(EERS, LOSSES).to_csv(tmp_path / "params/expected/two.csv", index=False)
    known = {
        "runs": [{"processor": "A", "threads": 2}],
        "parameters": {"05_train_cosface": {"phases": [{"margin": 0.2}]}},
    }
    known["fixed"] = {
        "targets, non-targets and speakers of list mini": "1530 1530 18",
        "trials of list mini": hashlib.sha256(b"cd").hexdigest(),
    }
    (tmp_path / "params/expected/two.json").write_text(json.dumps(known))

    def left(softmax, cosface, margin=0.2, prep="cd", n_target=1530, loss=0.1):
        folder = paths.profile_dir("two")
        runs = {"02_prep": {}, "03_train_softmax": {"parameters": {}, "processor": "A", "threads": 1, "seed": 1}}
        runs["05_train_cosface"] = {
            "parameters": {"phases": [{"margin": margin, "dither": 0.0}], "seed": 9},  # a key that is newer
            "processor": "A",
            "threads": 1,
        }
        for stage, record in runs.items():
            (folder / stage).mkdir(parents=True, exist_ok=True)
            (folder / stage / "run.json").write_text(json.dumps({"key": "k"} | record))
        for stage, last in {"03_train_softmax": 0.011, "05_train_cosface": loss}.items():
            log = f"epoch,loss,val_eer\n0,,0.3\n1,3.0,0.2\n8,{last},0.1\n8,,0.05\n"  # its end is an average of weights
            (folder / stage / "log.csv").write_text(log)
        (folder / "02_prep/trials").mkdir(exist_ok=True)
        (folder / "02_prep/trials/mini.txt").write_text(prep)
        (folder / "02_prep/session_notes.json").write_text('["one session"]')
        table = pd.DataFrame([{"model": "softmax", "eer": softmax}, {"model": "cosface", "eer": cosface}])
        table = table.assign(profile="two", loss=table["model"], list="mini", n_target=n_target, n_nontarget=1530)
        table = table.assign(n_speakers=18, seconds=1.0, key="k").reindex(columns=tables.COLUMNS)
        table.to_csv(folder / "results.csv", index=False)
        return reproduction.of_profile("two")

    return left


def test_a_run_among_the_others_is_as_expected(run, monkeypatch):
    written = written_whole(monkeypatch, reproduction)
    found = run(0.10, 0.10)
    assert written == [paths.profile_dir("two") / "reproduction.json"]
    assert found["verdict"] == "as expected" and found["sentence"].startswith(
        "As expected: 2 of 2 models lie where the next training is expected after 5 of this recipe (95 % prediction"
    )
    assert "Of 6 parts that no rounding changes all agree." in found["sentence"]
    assert found["sentence"].endswith("This run differs from every training on record in: threads.")
    assert (found["profile"], found["method"], len(found["curves"])) == ("two", reproduction.METHOD, 2)
    row = found["models"][0]
    assert (row["trainings"], row["mean"], row["least"], row["greatest"]) == (5, pytest.approx(0.099), 0.09, 0.11)
    low, high = expected.interval(EERS["softmax"], together=4)  # two EERs and two losses
    assert (row["low"], row["high"]) == (low - 1 / 1530, high + 1 / 1530)  # one trial more or less
    assert json.loads((paths.profile_dir("two") / "reproduction.json").read_text()) == found


def test_only_trainings_are_judged_and_by_plain_cosines(run):
    """The untrained encoder, encoders of others and other ways to score are in the results too."""
    run(0.10, 0.10)
    results = tables.read_results("two")
    kinds = {"loss": ["softmax", "none", "softmax", "pretrained"], "base": ["softmax"] * 3 + ["campplus"]}
    more = results.iloc[[0] * 4].assign(**kinds, scoring=["cosine", "cosine", "AS-norm", "cosine"])
    more["model"] = ["softmax", "softmax (untrained)", "softmax + AS-norm", "campplus"]
    found = reproduction.verdict(Profile.read("two"), pd.concat([more, results.iloc[1:]]))
    assert [row["model"] for row in found["models"]] == ["softmax", "cosface"]
    assert found["sentence"].startswith("As expected: 2 of 2 models") and "No verdict on" not in found["sentence"]


def test_a_broken_recipe_is_named_with_what_was_changed(run):
    found = run(0.10, 0.31, margin=0.9)
    assert found["verdict"] == "not as expected"
    low, high = (end + sign / 1530 for end, sign in zip(expected.interval(EERS["cosface"], together=4), (-1, 1)))
    assert f"cosface on mini has an EER of 31.00 %, above [{100 * low:.2f}, {100 * high:.2f}] %." in found["sentence"]
    assert "Not as expected: 1 of 2 models lie" in found["sentence"]
    assert found["parameters"] == ["other 05_train_cosface.phases.0.margin: 0.2; 0.9"]
    assert "honest" not in found["sentence"]
    by_chance = run(0.01, 0.10)["sentence"]
    assert "below [" in by_chance and "An honest run is refused about once in twenty times" in by_chance


def test_a_training_that_ended_elsewhere_is_named_though_its_eer_is_like_any_other(run):
    found = run(0.10, 0.10, loss=6.47)
    assert found["verdict"] == "not as expected" and "Not as expected: 1 of 2 models lie" in found["sentence"]
    low, high = expected.interval(LOSSES["cosface"], together=4, rate=False)
    assert (
        f"The training of cosface ended with a loss of 6.47, above [{low:.3g}, {high:.3g}], where 5 trainings ended "
        "between 0.05 and 0.21: was its recipe changed?"
    ) in found["sentence"]
    row = found["curves"][1]
    assert (row["model"], row["loss"], row["least"], row["greatest"]) == ("cosface", 6.47, 0.05, 0.21)
    assert [row["as_expected"] for row in (*found["models"], *found["curves"])] == [True, True, True, False]
    assert "ended with a loss of 0.0001, below [" in run(0.10, 0.10, loss=0.0001)["sentence"]


def test_what_rounding_cannot_change_is_told_apart(run):
    found = run(0.10, 0.10, prep="ef")
    assert found["verdict"] == "not as expected" and "2 of 2 models lie" in found["sentence"]
    assert "Of 6 parts that no rounding changes 1 differ: trials of list mini." in found["sentence"]
    wrong = [row for row in run(0.10, 0.10, n_target=1529)["fixed"] if not row["agrees"]]
    part = {"part": "targets, non-targets and speakers of list mini", "found": "1529 1530 18"}
    assert wrong == [part | {"expected": "1530 1530 18", "agrees": False}]


def test_the_metrics_of_given_scores_are_right():
    """Counted apart from the code: the EER of 400 and 600 scores by sorting."""
    found = reproduction.given_metrics()
    target = np.sort(((np.arange(400) * 389) % 1024 + 256) / 1024)
    nontarget = np.sort((((np.arange(600) * 613) % 1024) / 1024) ** 2)
    misses, accepted = np.searchsorted(target, target), 600 - np.searchsorted(nontarget, target)
    crossing = np.argmax(misses / 400 >= accepted / 600)
    assert accepted[crossing] / 600 <= found["EER"] <= misses[crossing] / 400 + 1 / 400


def test_the_table_has_a_column_of_what_is_expected_and_strict_fails_where_it_is_not(run, capsys):
    run(0.10, 0.10)
    assert report.main(["two"]) == 0
    said = capsys.readouterr().out
    assert "| expected                  |" in said and "| 9.90 [9.00, 11.00], n = 5 |" in said
    assert "As expected: 2 of 2 models" in said
    assert report.main(["two", "--strict"]) == 0
    run(0.10, 0.40)
    assert report.main(["two"]) == 0
    assert report.main(["two", "--strict"]) == 1 and "two: not as expected; see " in capsys.readouterr().err


def test_one_training_on_record_allows_no_verdict(run, tmp_path, capsys):
    rows = [{"model": "softmax", "list": "mini", "epoch": -1, "figure": "eer", "value": 0.1}]
    expected.summed(rows).to_csv(tmp_path / "params/expected/two.csv", index=False)
    found = run(0.10, 0.10)
    assert found["verdict"] == "no verdict" and found["models"][0]["mean"] == 0.1
    assert found["sentence"] == (  # that the threads are others explains nothing
        "No verdict on softmax, cosface: fewer than three trainings of this recipe on record. "
        "Of 6 parts that no rounding changes all agree."
    )
    assert report.main(["two", "--strict"]) == 1 and "two: no verdict" in capsys.readouterr().err
    assert run(0.10, 0.10, prep="ef")["sentence"].startswith("Not as expected. No verdict on softmax, cosface:")
    for end in ("csv", "json"):
        (tmp_path / f"params/expected/two.{end}").unlink()
    assert (
        "no training of this recipe on record"
        in reproduction.verdict(Profile.read("two"), tables.read_results("two"))["sentence"]
    )


def test_trainings_that_agree_by_chance_allow_what_one_trial_of_the_rarer_kind_makes(monkeypatch):
    monkeypatch.setattr(expected, "of_model", lambda *_: np.full(3, 0.1))
    row = {"model": "aam", "list": "mini", "loss": "aam", "scoring": "cosine", "n_target": 20, "n_nontarget": 200}
    found = reproduction._judged(SimpleNamespace(name="p", models={}), pd.DataFrame([row | {"eer": 0.149}]))[0][0]
    assert (found["low"], found["high"], found["as_expected"]) == (pytest.approx(0.05), pytest.approx(0.15), True)


def test_a_run_whose_results_are_not_written_yet_is_judged_by_what_it_has(run):
    run(0.10, 0.10)
    results = tables.read_results("two")
    (paths.profile_dir("two") / "results.csv").unlink()
    found = reproduction.verdict(Profile.read("two"), results)
    assert found["verdict"] == "as expected" and len(found["fixed"]) == 4 and not found["made_by"]


def test_what_differs_is_what_both_know_and_no_training_on_record_shares():
    own = {"git": {"commit": "b"}, "threads": 1, "cores": 4, "packages": {"numpy": "2"}, "python": "3.12"}
    runs = [{"git": {"commit": "a"}, "threads": 2, "cores": 4, "packages": {"numpy": "2"}, "platform": "Linux"}, {}]
    assert reproduction._nowhere_else(own, runs) == ["commit", "threads"]
    assert reproduction._nowhere_else(own | {"packages": {}}, runs) == ["commit", "threads", "packages"]
    assert reproduction._nowhere_else(own, []) == []
    known = {"phases": [{"rate": 1, "seed": 1}], "speeds": [1], "seed": 1, "gone": 1, "kind": {"a": 1}, "same": 2}
    asked = {"phases": [{"rate": 2, "seed": 2}], "speeds": [1, 2], "seed": 2, "new": 1, "kind": 3, "same": 2}
    assert reproduction._other_parameters({"t": known, "u": {"rate": 1}}, {"t": asked}) == [
        "other t.phases.0.rate: 1; 2",
        "other t.speeds.1: not recorded; 2",
        "other t.kind: {'a': 1}; 3",
    ]
    assert (
        reproduction._some(list("abcd")) == "a; b; c; d"
        and reproduction._some(list("abcdef")) == "a; b; c; d and 2 more"
    )


def test_runs_on_record_are_judged_by_all_figures_together(run, monkeypatch):
    asked = []
    monkeypatch.setattr(expected, "interval", lambda *said: asked.append(said) or (0.0, 1.0))
    assert reproduction.refused(expected.figures("two")) == [False] * 5
    assert [said[1:] for said in asked] == [(4, True), (4, True), (4, False), (4, False)] * 5  # two EERs, two losses
    assert [len(values) for values, *_ in asked] == [4] * 20  # of the others
    assert asked[0][0].tolist() == EERS["softmax"][1:]
    assert reproduction.refused(expected.figures("unknown")) == []


def test_each_run_on_record_is_judged_by_the_others(run):
    assert reproduction.refused(expected.figures("two")) == [False] * 5
    assert reproduction.judged_by_others("two") == "of these 5 runs, each judged by the others, 0 are refused"
    assert reproduction.judged_by_others("unknown") == ""
    eers = EERS | {"cosface": [*EERS["cosface"][:4], 0.4]}
    losses = LOSSES | {"softmax": [6.5, *LOSSES["softmax"][1:]]}
    table = recorded(eers, losses).assign(
        values=lambda table: [np.array(text.split(), float) for text in table["values"]],
        epoch=lambda table: table["epoch"].replace("", np.nan),
    )
    assert reproduction.refused(table) == [True, False, False, False, True]


def test_runs_on_record_are_judged_where_each_leaves_enough_others_and_by_their_trainings_alone(run):
    """An untrained encoder and another way to score, here of one run far from the others, refuse none."""
    apart = [0.3, 0.3, 0.3, 0.3001, 0.9]
    eers = EERS | {"softmax (untrained)": apart, "softmax + AS-norm": apart}
    for count, said in ((3, ""), (4, "of these 4 runs, each judged by the others, 0 are refused")):
        kept = ({model: values[-count:] for model, values in part.items()} for part in (eers, LOSSES))
        recorded(*kept).to_csv(paths.expected_file("two"), index=False)
        assert reproduction.judged_by_others("two") == said


def test_of_simulated_honest_runs_few_are_refused_and_of_worse_ones_most():
    """Log-odds with the deviation 0.12, as trainings of mini have about: of 400 runs of four models 5 % are allowed."""
    draw = np.random.default_rng(3)
    honest = worse = 0
    for _ in range(400):
        odds = -2.2 + 0.12 * draw.standard_normal((4, 11))
        rates = 1 / (1 + np.exp(-odds))
        ends = [expected.interval(own[:10], 4) for own in rates]
        honest += any(not low <= own[10] <= high for (low, high), own in zip(ends, rates))
        worse += not ends[0][0] <= 1 / (1 + np.exp(-(odds[0, 10] + 1.0))) <= ends[0][1]
    assert honest <= 0.08 * 400 and worse >= 0.95 * 400
