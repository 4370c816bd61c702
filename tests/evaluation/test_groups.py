"""Error rates of groups, and the hardest trials, of hand-made trials."""

import math

import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import groups


def test_pair_groups():
    found = groups.pair_groups(["f", "m", "f", "", "m"], ["f", "m", "m", "f", ""])
    assert found.tolist() == ["f", "m", "different", "unknown", "unknown"]
    assert groups.pair_groups(np.array(["f"], object), ["f"]).dtype.kind == "U"


def test_by_group_counts_and_rates_at_one_threshold():
    scores = np.array([0.0, -1.0, 1.0, -2.0, 3.0, -1.0])
    labels = np.array([1, 1, 0, 0, 1, 0])
    found = np.array(["f", "f", "f", "f", "m", "different"])
    speakers = [np.array(["a", "a", "a", "a", "c", "a"]), np.array(["a", "b", "b", "b", "c", "c"])]
    first, second, third = groups.by_group(scores, labels, found, speakers)
    # a score at the threshold is accepted
    assert first == {"group": "f", "n_speakers": 2, "n_target": 2, "n_nontarget": 2, "p_fa": 0.5, "p_miss": 0.5}
    assert (second["group"], second["n_speakers"], second["n_nontarget"], second["p_fa"]) == ("different", 2, 1, 0.0)
    assert math.isnan(second["p_miss"])
    assert (third["group"], third["n_target"], third["p_miss"]) == ("m", 1, 0.0) and math.isnan(third["p_fa"])
    stricter = groups.by_group(scores, labels, found, speakers, threshold=0.5)
    assert stricter[0]["p_miss"] == 1.0 and stricter[0]["p_fa"] == 0.5


def test_what_is_equal_keeps_its_order():
    """Ties of which a faster sort keeps no order: 20 groups of one trial, and 20 of two."""
    names = np.array([f"{number:02d}" for number in [*range(40), *range(20, 40)]])
    found = groups.by_group(np.zeros(60), np.ones(60), names, [names, names])
    assert [row["group"] for row in found] == [*names[20:40], *names[:20]]
    found = groups.hardest(np.repeat([9.0, 3.0, 0.0], [20, 20, 1]), np.repeat([1, 0], [40, 1]), 40)
    assert found.tolist() == [*range(20, 40), *range(20), 40]


def test_by_known_passes_over_what_is_the_same_everywhere():
    known = {"gender": np.array(["f", "m"]), "nationality": np.array(["", ""]), "age": np.array(["30", "40"])}
    sides, speakers = (np.array([0, 0, 1]), np.array([0, 1, 1])), (np.array(["a", "a", "b"]), np.array(["a", "b", "b"]))
    rows = groups.by_known(np.array([1.0, 2.0, -1.0]), np.array([1, 0, 1]), sides, speakers, known)
    assert [(row["by"], row["group"], row["n_speakers"]) for row in rows] == [
        ("gender", "different", 2),
        ("gender", "f", 1),
        ("gender", "m", 1),
        ("age", "30", 1),
        ("age", "40", 1),
        ("age", "different", 2),
    ]
    assert [rows[0]["p_fa"], rows[1]["p_miss"], rows[2]["p_miss"]] == [1.0, 0.0, 1.0]


def test_hardest_trials_the_worst_first():
    scores, labels = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.7]), np.array([1, 1, 1, 0, 0, 0])
    assert groups.hardest(scores, labels, 2).tolist() == [0, 2, 3, 5]
    assert groups.hardest(scores, labels, 9).tolist() == [0, 2, 1, 3, 5, 4]
    with pytest.raises(RequestError, match="the 0 hardest trials"):
        groups.hardest(scores, labels, 0)
