"""Who trains and who validates, where several corpora are joined; which utterances an evaluation embeds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.speech import splits


def table():
    speakers = ["a"] * 5 + ["b"] * 2 + ["c"] * 3 + ["d"] * 2
    part = ["train"] * 7 + ["validation"] * 3 + ["test"] * 2
    return pd.DataFrame({"id": [f"{name}/{k}" for k, name in enumerate(speakers)], "speaker": speakers, "split": part})


def test_an_evaluation_embeds_the_test_and_dev_utterances_and_a_draw_of_the_training_ones():
    found = splits.judged(table(), cohort_utterances=3, seed=1)
    assert list(found) == ["train", "validation", "test", "short"]
    assert found["test"]["id"].tolist() == ["d/10", "d/11"]
    assert found["validation"]["id"].tolist() == found["short"]["id"].tolist() == ["c/7", "c/8", "c/9"]
    assert found["train"]["speaker"].value_counts().to_dict() == {"a": 3, "b": 2}


def test_the_cohort_is_drawn_at_random_by_the_seed():
    draws = [frozenset(splits.judged(table(), 2, seed)["train"]["id"]) for seed in range(30)]
    assert draws == [frozenset(splits.judged(table(), 2, seed)["train"]["id"]) for seed in range(30)]
    of_a = [name for draw in draws for name in draw if name.startswith("a")]
    counts = np.array([of_a.count(f"a/{k}") for k in range(5)])
    assert counts.sum() == 60 and counts.min() >= 4  # each of five in two of five draws: 12 expected


def joined(train, n_validation, seed=0):
    """Two corpora of twelve dev speakers and two tested ones each, as `limits.view` shows them."""
    views, lists = [], {}
    for name in ("near", "far"):
        speakers = [f"{name}{k:02}" for k in range(14) for _ in range(2)]
        ids = [f"{speaker}/{k % 2}" for k, speaker in enumerate(speakers)]
        subset = ["dev"] * 24 + ["test"] * 4
        rows = {"corpus": name, "id": ids, "speaker": speakers, "subset": subset, "error": "", "decoded": True}
        trials = pd.DataFrame({"enrol": ids[24:27], "test": ids[25:28]})
        views.append((SimpleNamespace(name=name, trials=lambda _, trials=trials: trials), pd.DataFrame(rows)))
        lists[name] = ["all"]
    table, _ = splits.utterances(views, lists, train=train, n_validation=n_validation, seed=seed)
    return {part: set(rows["speaker"]) for part, rows in table.groupby("split")}


def test_a_corpus_that_is_only_judged_trains_and_validates_nobody():
    found = joined(["near"], 3)
    assert found["train"] | found["validation"] == {f"near{k:02}" for k in range(12)}
    assert found["test"] == {"near12", "near13", "far12", "far13"}
    assert len(joined(["near", "far"], 3)["train"]) == 21


def test_who_validates_is_drawn_by_the_seed():
    draws = [joined(["near", "far"], 5, seed)["validation"] for seed in (0, 1, 1)]
    assert draws[0] != draws[1] == draws[2] and len(draws[0]) == len(draws[1]) == 5


def corpus(name="own", enrol=("t/1",), test=("t/2",)):
    trials = pd.DataFrame({"enrol": list(enrol), "test": list(test)})
    return SimpleNamespace(name=name, trials=lambda _: trials)


def view():
    """Three speakers that may train, one of them with one file; one that a list names; a file that nobody uses."""
    ids = ["a/1", "a/2", "a/3", "b/1", "b/2", "c/1", "t/1", "t/2", "t/3"]
    rows = {"corpus": "own", "id": ids, "speaker": [name[0] for name in ids], "subset": ["dev"] * 6 + ["test"] * 3}
    table = pd.DataFrame(rows | {"error": "", "decoded": True})
    table.loc[2, "error"], table.loc[7, "error"] = "too short: 0.4 s", "duplicate of a/1"
    return table


def test_what_becomes_of_each_file_written_out():
    kept, rejected = splits.utterances([(corpus(), view())], {"own": ["all"]}, train=["own"], n_validation=0)
    columns = ["id", "split", "quality", "error"]
    assert list(kept) == ["corpus", "id", "speaker", "subset", "error", "split", "quality"]
    assert kept[columns].to_numpy().tolist() == [
        *([name, "train", "within limits", ""] for name in ("a/1", "a/2", "b/1", "b/2")),
        ["t/1", "test", "within limits", ""],
        ["t/2", "test", "duplicate", ""],
    ]
    assert rejected[["id", "error"]].to_numpy().tolist() == [
        ["a/3", "too short: 0.4 s"],
        ["c/1", "speaker has 1 of 2 utterances"],
    ]
    kept, _ = splits.utterances([(corpus(), view())], {"own": ["all"]}, train=["own"], n_validation=0, min_utterances=1)
    assert "c/1" in set(kept["id"])


def test_a_speaker_with_too_little_takes_nobody_of_another_corpus_along():
    other = view().assign(corpus="other", speaker=list("ghhghgxyz"), error="")
    rows = [(corpus(), view()), (corpus("other"), other)]
    kept, _ = splits.utterances(rows, {"own": ["all"]}, train=["own", "other"], n_validation=0)
    assert kept.loc[kept["corpus"] == "other", "speaker"].tolist() == list("ghhghg")


def test_two_speakers_at_least_are_left_to_train_on():
    rows = pd.DataFrame({"speaker": list("cabd")})
    found = splits.split_validation(rows, 2, seed=0)
    assert found == sorted(found) and len(found) == 2
    assert splits.split_validation(rows, 0, seed=0) == []
    for number in (3, -1):
        with pytest.raises(RequestError, match=f"{number} validation speakers of 4 leave fewer than 2"):
            splits.split_validation(rows, number, seed=0)


def test_who_validates_without_a_seed_is_drawn_by_0():
    rows = [(corpus(), view().assign(speaker=list("abcdeftuv"), error=""))]
    asked = {"train": ["own"], "n_validation": 3, "min_utterances": 1}
    drawn = [
        splits.utterances(rows, {}, **asked, **seed)[0]["split"].tolist() for seed in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0].count("validation") == 3


def test_a_list_stops_at_a_file_that_is_not_there_unless_its_trials_are_dropped():
    table = view()
    table.loc[7, ["decoded", "error"]] = False, "no sound"
    for test, reason in (("t/2", "no sound"), ("x/9", "not in the archives")):
        given = [(corpus(test=[test]), table)], {"own": ["all"]}
        with pytest.raises(RequestError, match=rf"corpus own names 1 file\(s\).*first {test} \({reason}\)"):
            splits.utterances(*given, train=[], n_validation=0)
        kept, _ = splits.utterances(*given, train=[], n_validation=0, missing_trials="drop")
        assert kept["id"].tolist() == ["t/1"]
    with pytest.raises(RequestError, match="is stop or drop, not 'DROP'"):
        splits.utterances(*given, train=[], n_validation=0, missing_trials="DROP")
    with pytest.raises(RequestError, match=r"corpus 'owm' is not among those prepared.*'own'"):
        splits.utterances(*given, train=["owm"], n_validation=0)


def test_a_speaker_who_trains_is_in_no_list():
    table = view().assign(error="", speaker=list("aaabbctta"))
    with pytest.raises(RequestError, match=r"1 speaker\(s\) of the training half are in an evaluation list, first a"):
        splits.utterances([(corpus(test=["t/3"]), table)], {"own": ["all"]}, train=["own"], n_validation=0)


def test_trials_of_files_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    trials = pd.DataFrame({"label": [1, 0, 1], "enrol": ["a b/1", "c/1", "d/1"], "test": ["a b/2", "a b/1", "a b/1"]})
    (tmp_path / "given.txt").write_text("as it is\n")
    of = SimpleNamespace(
        name="own", trials=lambda _: trials, list_path=lambda name: {"all": tmp_path / "given.txt"}[name]
    )
    file, usable = tmp_path / "new/trials/list.txt", {"a b/1", "a b/2", "c/1"}
    said = splits.write_trials(of, "all", usable, file)
    assert said.startswith("1 of the 3 trials of list all were left out, because 1 file(s)") and "first d/1." in said
    assert file.read_text() == '1 "a b/1" "a b/2"\n0 c/1 "a b/1"\n'
    assert splits.write_trials(of, "all", usable | {"d/1"}, file) == "" and file.read_text() == "as it is\n"
    with pytest.raises(RequestError, match="of the 3 trials of list all 1 are left, and not of both kinds"):
        splits.write_trials(of, "all", {"a b/1", "a b/2"}, file)


def test_files_without_which_a_preparation_is_of_no_use():
    of = SimpleNamespace(
        trials=lambda name: corpus(enrol=[name + "/1"]).trials(name), is_drawn=lambda name: name == "d"
    )
    assert splits.required(of, ["l", "d"], "stop") == {"l/1", "t/2"}
    assert splits.required(of, ["l", "d"], "drop") == set()
    accepted = splits.accepted(view())
    assert list(accepted) == ["corpus", "id", "speaker", "subset", "error"] and accepted.index.tolist() == list(
        range(7)
    )
    assert set(view()["id"]) - set(accepted["id"]) == {"a/3", "t/2"}
