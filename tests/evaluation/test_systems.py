"""The names of what is scored, written out."""

import pytest

from sv_utils.evaluation import systems
from sv_utils.evaluation.systems import AS_NORM, COSINE, QMF, SCORINGS, System


def test_names_are_those_of_results():
    names = ["aam@seed1", "aam@seed1 + AS-norm", "aam@seed1 + AS-norm + QMF"]
    assert [System("aam@seed1", way).name for way in (COSINE, AS_NORM, QMF)] == names
    assert System("aam", trained=False).name == "aam (untrained)"


@pytest.mark.parametrize(
    "system", [System("a"), System("a + b", AS_NORM), System("a", QMF), System("a", trained=False)]
)
def test_a_record_gives_the_system_back(system):
    assert System.of_record(system.record) == system


def test_record_written_out():
    assert System("aam", QMF).record == {"model": "aam", "scoring": "AS-norm, QMF", "trained": True}


def test_systems_are_found_under_their_names_whatever_the_model_is_called():
    found = systems.by_name(["plain", "with + AS-norm"])
    assert len(found) == 8 and all(system.name == name for name, system in found.items())
    assert found["with + AS-norm"] == System("with + AS-norm")
    assert found["with + AS-norm + AS-norm + QMF"] == System("with + AS-norm", QMF)
    assert found["plain (untrained)"] == System("plain", COSINE, trained=False)


def test_ways_to_score_do_not_share_a_name_or_a_column():
    assert len({way.name for way in SCORINGS}) == len({way.suffix for way in SCORINGS}) == len(SCORINGS)
    columns = [column for way in SCORINGS for column in (way.score_column, way.ratio_column) if column]
    assert columns == ["score", "llr", "as_norm", "as_norm_llr", "qmf_llr"]
    assert [way.by_quality for way in SCORINGS] == [False, False, True]
