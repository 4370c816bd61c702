"""Cross-validation of recipes: folds of speakers, the log, requests that cannot be."""

import shutil
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils import selection
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.evaluation import intervals, metrics, trials
from sv_utils.pipeline import params
from sv_utils.reports import figures
from sv_utils.training import loop
from sv_utils.training.data import Data

RECIPES = """
profile: tones
folds: 3
used: 2
recipes:
  base:
    why: where it starts
    kept: true
    change:
      architecture: {width: 4, n_mels: 20, embedding_dim: 8}
      phases:
        - epochs: 1
          steps_per_epoch: 2
          crop_seconds: 0.5
          speeds: [1.0]
          margin_start_epoch: 0.0
          margin_end_epoch: 0.0
  two speeds:
    after: base
    change: {phases: [{speeds: [1.0, 0.9]}]}
"""


@pytest.fixture
def tones(prep, tmp_path, monkeypatch):
    """A profile `tones` that is prepared, and a file of two recipes."""
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    folder = paths.stage_dir("tones", "02_prep")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("utterances.csv", "validation_trials.txt"):
        (folder / name).write_bytes((prep / name).read_bytes())
    shutil.rmtree(prep / "selection", ignore_errors=True)  # what another test has left of its runs
    (tmp_path / "selection").mkdir()
    (tmp_path / "selection" / "tried.yaml").write_text(RECIPES)
    return tmp_path / "selection"


def test_folds_part_the_dev_speakers_and_validate_each_once(tones):
    folder, validated = paths.stage_dir("tones", "02_prep"), []
    for fold in (1, 2, 3):
        data = Data.read(folder, fold, 3)
        held_out = set(data.validation.speech.table["speaker"])
        assert len(held_out) == 2 and held_out.isdisjoint(data.speakers) and len(data.speakers) == 4
        assert sorted(np.unique(data.validation.labels)) == [0, 1]
        ids = data.validation.speech.table["id"]
        drawn = trials.rows(trials.make(ids, *np.bincount(1 - data.validation.labels).tolist(), seed=fold), ids)
        assert np.array_equal([data.validation.enrol_rows, data.validation.test_rows], drawn)
        validated += held_out
    assert sorted(validated) == [f"s{i}" for i in range(6)]


def test_change_is_laid_over_the_recipe_before_and_the_notebooks_own(tones):
    recipes = selection.read("tried")["recipes"]
    phase = recipes["two speeds"]["parameters"]["phases"][0]
    assert (phase["speeds"], phase["steps_per_epoch"]) == ([1.0, 0.9], 2)
    assert phase["margin"] == params.declared_parameters("07_train_aam")["phases"][0]["margin"]
    assert recipes["base"]["parameters"]["phases"][0]["speeds"] == [1.0]
    for base, change, laid in (
        ([{"a": 1}], [{"b": 2}, {}], [{"b": 2}, {}]),  # another number of phases
        ([{"a": 1, "c": 3}], [{"a": 2}], [{"a": 2, "c": 3}]),
        ([1, {}], [2, {}], [2, {}]),
        ({"a": {"b": 1}}, {"a": 3}, {"a": 3}),
        (3, {"a": 1}, {"a": 1}),
    ):
        assert selection._laid_over(base, change) == laid


def test_recipes_are_trained_once_judged_and_logged(tones, capsys):
    twice = RECIPES.replace("speeds: [1.0, 0.9]", "speeds: &pair [0.9, 1.0], augmentation: {gain: *pair}")
    (tones / "twice.yaml").write_text(twice)
    first, *others = [selection._run("twice", *asked) for asked in selection._waiting("twice")]
    selection.train("twice", "base", 1)
    for run in others[:2]:  # as if these were trained
        shutil.copy(first / "scores.npz", run)
    assert selection.main(["twice"]) == 0 and "two speeds, fold 2: " in capsys.readouterr().out  # the one that is left
    log = selection.log("twice")
    assert log["recipe"].tolist() == ["base", "two speeds"] and log["kept"].tolist() == [True, False]
    assert (log["crops"] == 64).all() and (log["speakers"] == 4).all()
    assert (log["low"] <= log["eer"]).all() and (log["eer"] <= log["high"]).all()
    assert np.isnan(log["difference"][0])
    assert log["difference"][1] == pytest.approx(log["eer"][1] - log["eer"][0], abs=1e-4)
    text = selection.text(log)
    assert text["difference [points]"][0] == "" and text["difference [points]"][1][0] in "+-"
    assert len(figures.recipes(log).axes) == 2
    assert log["change"][1] == "{phases: [{augmentation: {gain: [0.9, 1.0]}, speeds: [0.9, 1.0]}]}"
    capsys.readouterr()
    assert selection.main(["twice"]) == 0 and "fold" not in capsys.readouterr().out  # nothing runs again
    pd.testing.assert_frame_equal(selection.log("twice"), log)


class Enough(Exception):
    """What was to be seen has been seen."""


def test_a_recipe_is_trained_with_its_own_seed_and_batches_on_its_fold(tones, monkeypatch):
    seen = []

    def crops(phases, batch_size, seed):
        seen.append((len(phases), batch_size, seed))
        return [SimpleNamespace(n_classes=4), SimpleNamespace(n_classes=8)]

    def read(prep, fold, folds):
        seen.append((prep, fold, folds))
        return SimpleNamespace(crops=crops, validation="validation")

    def training(*given):
        seen.append(given)
        raise Enough

    monkeypatch.setattr(loop, "start", lambda seed, engine: seen.append((seed, engine["readers"])) or "devices")
    monkeypatch.setattr(loop, "make_encoder", lambda *given: seen.append(given) or "encoder")
    monkeypatch.setattr(loop, "Training", training)
    monkeypatch.setattr(Data, "read", read)
    changed = "seed: 7, batch_size: 6, initial_model: begin.keras, scale: 9.0, centres: 2, hard_margin: 0.06"
    changed += ", engine: {readers: 3}, phases: [{margin: 0.4}]"
    own = RECIPES.replace("change: {phases: [{speeds: [1.0, 0.9]}]}", f"change: {{{changed}}}")
    (tones / "tried.yaml").write_text(own)
    with pytest.raises(Enough):
        selection.train("tried", "two speeds", 2)
    devices, data, batches, (begin, architecture), given = seen
    assert (devices, data, batches) == ((7, 3), (paths.stage_dir("tones", "02_prep"), 2, 3), (1, 6, 7))
    assert begin == "begin.keras" and architecture["width"] == 4
    encoder, head, _, validation, out, (phase,), accuracy, *engine = given
    assert (encoder, validation, out) == ("encoder", "validation", selection._run("tried", "two speeds", 2))
    assert (head.n_speakers, head.scale, head.centres, head.hard_margin) == (8, 9.0, 2, 0.06)
    assert phase["margin"] == 0.4 and accuracy.__name__ == "sparse_categorical_accuracy"
    assert engine[0] == "devices" and engine[1]["readers"] == 3


def test_a_loss_without_a_margin_needs_none_of_its_schedule(tones, monkeypatch):
    seen = []

    def training(*given):
        seen.append((type(given[1]).__name__, given[5]))
        raise Enough

    data = SimpleNamespace(crops=lambda *_: [SimpleNamespace(n_classes=4)], validation=None)
    monkeypatch.setattr(loop, "start", lambda *_: None)
    monkeypatch.setattr(loop, "make_encoder", lambda *_: None)
    monkeypatch.setattr(loop, "Training", training)
    monkeypatch.setattr(Data, "read", lambda *_: data)
    for loss in ("softmax", "aam"):
        own = RECIPES.replace("change: {phases: [{speeds: [1.0, 0.9]}]}", f"change: {{loss: {loss}}}")
        (tones / "tried.yaml").write_text(own)
        with pytest.raises(Enough):
            selection.train("tried", "two speeds", 1)
    (_, (without,)), (_, (whole,)) = seen
    assert len({head for head, _ in seen}) == 2 and whole.keys() - without.keys() >= {"margin", "margin_end_epoch"}
    assert without == {key: value for key, value in whole.items() if "margin" not in key}


def test_the_log_as_people_read_it(tones):
    row = {"recipe": "base", "after": "", "why": "w", "crops": 12_000, "parameters": 3400, "core_seconds": 90.0}
    row |= {"eer": 0.1, "low": 0.08, "high": 0.123, "difference": np.nan, "difference_low": np.nan, "kept": True}
    other = row | {"recipe": "next", "after": "base", "core_seconds": np.nan, "kept": False, "difference": -0.01}
    other |= {"difference_low": -0.02, "difference_high": 0.005}
    said = selection.text(pd.DataFrame([row | {"difference_high": np.nan}, other])).to_numpy().tolist()
    rate = "10.00 [8.00, 12.30]"
    assert said == [
        ["base", "", "w", "12,000", "3,400", "1.5", rate, "", "yes"],
        ["next", "base", "w", "12,000", "3,400", "", rate, "-1.00 [-2.00, +0.50]", ""],
    ]
    (tones / "tried.csv").write_text("recipe,after,core_seconds,difference\nbase,,,\n")
    log = selection.log("tried")
    assert log["after"][0] == "" and np.isnan(log["core_seconds"][0]) and np.isnan(log["difference"][0])


def test_what_waits_is_not_begun_after_a_training_has_failed(tones, monkeypatch, capsys):
    begun = []

    def run_one(name, recipe, fold, threads):
        begun.append((recipe, fold))
        time.sleep(0.3 * (len(begun) > 1))
        raise WorkError("no room")

    monkeypatch.setattr(selection, "_run_one", run_one)
    assert selection.main(["tried", "--workers", "1"]) == 1
    assert capsys.readouterr().err == "sv_utils.selection: no room\n" and len(begun) < 4
    assert not (tones / "tried.csv").exists()


def test_a_recipe_leaves_the_scores_of_the_encoder_as_it_ended_and_who_spoke(tones, monkeypatch):
    rows = {"enrol_rows": np.array([0, 0, 1]), "test_rows": np.array([1, 2, 2]), "labels": np.array([0, 1, 0])}
    speech = SimpleNamespace(table=pd.DataFrame({"speaker": ["ada", "bob", "ada"]}))
    of = {"ended": (np.array([0.9]), np.array([0.1, 0.2]))}
    validation = SimpleNamespace(speech=speech, scores=lambda encoder: of[encoder.name], **rows)
    crops = SimpleNamespace(n_classes=4, batch_size=8)
    data = SimpleNamespace(crops=lambda *_: [crops], validation=validation)
    ended = SimpleNamespace(name="ended", count_params=lambda: 99)
    run = SimpleNamespace(run=lambda: (SimpleNamespace(encoder=ended), None, None))
    monkeypatch.setattr(loop, "start", lambda *_: None)
    monkeypatch.setattr(loop, "make_encoder", lambda *_: SimpleNamespace(name="begun"))
    monkeypatch.setattr(loop, "Training", lambda *_: run)
    monkeypatch.setattr(Data, "read", lambda *_: data)
    list(selection._waiting("tried"))  # which makes the folders
    selection.train("tried", "base", 1)
    with np.load(selection._run("tried", "base", 1) / "scores.npz") as left:
        assert left["scores"].tolist() == [0.1, 0.9, 0.2] and left["labels"].tolist() == [0, 1, 0]
        assert left["enrol"].tolist() == ["ada", "ada", "bob"] and left["test"].tolist() == ["bob", "ada", "ada"]
        assert left["parameters"] == 99 and left["crops"] == 16, "2 batches of 8, as the phase has them"


def test_a_recipe_and_the_one_before_it_are_compared_over_the_same_speakers_of_each_fold(tones):
    found, labels, rng = {}, np.tile([1, 0], 20), np.random.default_rng(0)
    enrol = np.repeat(list("abcde"), 8)
    test = np.where(labels == 1, enrol, np.roll(enrol, 8))
    for recipe, fold in selection._waiting("tried"):
        scores = rng.normal(size=40) + (1 + (recipe == "base")) * labels
        counts = {"core_seconds": 3.0 * fold, "parameters": 5, "crops": 7}
        out = selection._run("tried", recipe, fold) / "scores.npz"
        np.savez(out, scores=scores, labels=labels, enrol=enrol, test=test, **counts)
        resampled = intervals.speaker_bootstrap(scores, labels, enrol, test, 1000, fold - 1)
        found[recipe, fold] = metrics.eer(scores[labels == 1], scores[labels == 0])[0], resampled
    log = selection.table("tried").set_index("recipe")
    means = {
        recipe: [np.mean(pair, axis=0) for pair in zip(found[recipe, 1], found[recipe, 2])] for recipe in log.index
    }
    for recipe, (eer, resampled) in means.items():
        row = log.loc[recipe]
        assert row["eer"] == pytest.approx(eer) and (row["speakers"], row["trials"], row["core_seconds"]) == (
            10,
            80,
            4.5,
        )
        assert [row["low"], row["high"]] == pytest.approx(np.nanquantile(resampled, [0.025, 0.975]).tolist())
    told = log[["after", "why", "change", "kept", "parameters", "crops"]].to_numpy().tolist()
    assert [row[:2] + row[3:] for row in told] == [["", "where it starts", True, 5, 7], ["base", "", False, 5, 7]]
    assert told[1][2] == "{phases: [{speeds: [1.0, 0.9]}]}"
    gap = [after - before for after, before in zip(means["two speeds"], means["base"])]
    row = log.loc["two speeds", ["difference", "difference_low", "difference_high"]].tolist()
    assert row == pytest.approx([gap[0], *np.nanquantile(gap[1], [0.025, 0.975])])


OTHERS = ("softmax", "cosface", "adacos", "sphereface2")


@pytest.mark.long
def test_a_recipe_may_have_another_loss_and_recipes_after_it_keep_it(tones):
    recipes = RECIPES.replace("used: 2", "used: 1") + "".join(
        f"  {loss}:\n    after: two speeds\n    change: {{loss: {loss}}}\n" for loss in OTHERS
    )
    (tones / "tried.yaml").write_text(recipes + "  other seed:\n    after: softmax\n    change: {seed: 2}\n")
    assert selection.read("tried")["recipes"]["other seed"]["parameters"]["loss"] == "softmax"
    scores = {}
    for recipe in ("two speeds", *OTHERS):
        selection.train("tried", recipe, 1)
        scores[recipe] = np.load(selection._run("tried", recipe, 1) / "scores.npz")["scores"].round(4)
    assert len({values.tobytes() for values in scores.values()}) == 1 + len(OTHERS), scores


@pytest.mark.parametrize(
    ("old", "new", "culprit"),
    [
        ("used: 2", "used: 4", "used"),
        ("folds: 3\n", "", "folds"),
        ("after: base", "after: bas", "did you mean 'base'"),
        ("why:", "becaus:", "becaus"),
        ("speeds: [1.0, 0.9]", "speds: [1.0]", "speds"),
        ("width: 4", "width: four", "width"),
        ("phases: [{speeds", "loss: adacoz, phases: [{speeds", "did you mean 'adacos'"),
        ("recipes:\n", "recipes: [\n", "YAML"),
        ("recipes:\n", "recipes:\n  text: wider\n", "recipes.text must hold `key: value` lines, not 'wider'"),
    ],
)
def test_requests_that_cannot_be_are_refused_in_one_sentence(tones, capsys, old, new, culprit):
    (tones / "tried.yaml").write_text(RECIPES.replace(old, new))
    assert selection.main(["tried"]) == 2
    said = capsys.readouterr().err
    assert culprit in said and said.count("\n") == 1


def test_files_that_are_not_there(tones, capsys):
    assert selection.main(["tryed"]) == 2 and "did you mean 'tried'" in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"python -m sv_utils\.selection tried"):
        selection.log("tried")


def test_another_recipe_under_an_old_name_is_refused(tones, capsys):
    for recipe, fold in selection._waiting("tried"):
        (selection._run("tried", recipe, fold) / "scores.npz").touch()  # as if it were trained
    (tones / "tried.yaml").write_text(RECIPES.replace("speeds: [1.0, 0.9]", "speeds: [1.0, 1.1]"))
    assert selection.main(["tried"]) == 2 and "another name" in capsys.readouterr().err


def test_a_recipe_that_says_the_same_after_another_one_is_another_recipe(tones):
    list(selection._waiting("tried"))
    between = "  wider:\n    after: base\n    change: {architecture: {width: 8}}\n  two speeds:\n    after: wider\n"
    (tones / "tried.yaml").write_text(RECIPES.replace("  two speeds:\n    after: base\n", between))
    with pytest.raises(RequestError, match="holds another recipe of the name two speeds"):
        list(selection._waiting("tried"))
