"""Who trains and who validates, where several corpora are joined; which utterances an evaluation embeds."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

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
