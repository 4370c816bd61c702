"""Which utterances an evaluation embeds."""

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
