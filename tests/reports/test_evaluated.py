"""Tables of one evaluation, as people read them: every cell written out."""

import base64
import io
import math
import wave

import numpy as np
import pandas as pd

from sv_utils.evaluation.calibration import Calibration
from sv_utils.evaluation.systems import COSINE, QMF
from sv_utils.reports import evaluated

COSTS = {"cllr": 0.5, "cllr_min": 0.4, "calibration_loss": 0.1, "act_dcf_001": 0.9, "min_dcf_001": 0.8}
COSTS |= {"act_dcf_005": 0.7, "min_dcf_005": 0.6}
EERS = {"interpolated": 0.1, "rocch": 0.0912, "nearest_maximum": 0.11, "flagged": True}
ROWS = [
    {
        "model": "aam",
        "list": "mini",
        "calibration": COSTS,
        "eer_definitions": EERS,
        "by_duration": [
            {"cut": "1 s", "mean_seconds": 1.0, "shortened": 0.996, "eer": 0.3, "p_miss": 0.25, "p_fa": 0.125}
        ],
        "by_group": [
            {"by": "gender", "group": "f", "n_speakers": 1211, "n_target": 3, "n_nontarget": 0}
            | {"p_miss": 0.25, "p_fa": math.nan}
        ],
        "hardest": [
            {"trial": kind, "enrol": f"{place}", "test": "t", "cosine": 0.125, "llr": -3.456}
            for kind in ("target", "non-target")
            for place in range(3)
        ],
    },
    {"model": "aam (untrained)", "list": "mini", "calibration": None, "eer_definitions": EERS | {"flagged": False}},
]


def cells(table):
    return [list(table.columns), *table.to_numpy().tolist()]


def test_a_calibration_is_a_sum():
    fitted = {
        COSINE: Calibration(("cosine",), (13.841,), -8.42, 0.5, 960, 5000),
        QMF: Calibration(("as_norm", "duration_min"), (-0.5, 2.0), 0.0, 0.5, 10, 20),
    }
    assert cells(evaluated.calibrations(fitted)) == [
        ["scoring", "dev trials", "log-likelihood ratio"],
        ["cosine", "5,960", "13.84 cosine - 8.42"],
        ["AS-norm, QMF", "30", "- 0.50 as_norm + 2.00 duration_min + 0.00"],
    ]


def test_costs_are_those_of_calibrated_systems():
    head, *rows = cells(evaluated.costs(ROWS))
    assert head[2:] == [
        *("Cllr", "Cllr_min", "calibration loss", "actDCF(0.01)", "minDCF(0.01)", "actDCF(0.05)", "minDCF(0.05)"),
    ]
    assert rows == [["aam", "mini", "0.500", "0.400", "0.100", "0.900", "0.800", "0.700", "0.600"]]


def test_definitions_are_shown_where_they_differ():
    assert cells(evaluated.definitions(ROWS)) == [
        ["model", "list", "interpolated", "rocch", "nearest maximum"],
        ["aam", "mini", "10.00", "9.12", "11.00"],
    ]
    assert evaluated.definitions(ROWS[1:]).empty


def test_conditions_and_groups_in_percent():
    assert cells(evaluated.conditions(ROWS)) == [
        ["list", "heard", "mean [s]", "shortened", "EER %", "misses %", "false acceptances %"],
        ["mini", "1 s", "1.00", "100%", "30.00", "25.00", "12.50"],
    ]
    assert cells(evaluated.groups(ROWS)) == [
        ["list", "by", "group", "speakers", "targets", "non-targets", "misses %", "false acceptances %"],
        ["mini", "gender", "f", "1,211", "3", "0", "25.00", "–"],
    ]


def test_hardest_trials_and_players_of_the_first_of_each_kind():
    table = evaluated.hardest(ROWS)
    assert cells(table)[1] == ["mini", "target", "0", "t", "0.12", "-3.46"] and len(table) == 6
    table = pd.concat([table, table.assign(list="other")])
    asked = []

    def waveform(name):
        asked.append(name)
        return np.arange(100_000).astype(np.int16)

    heard = evaluated.with_players(table, 2, waveform)
    assert heard["trial"].tolist() == ["target"] * 2 + ["non-target"] * 2 and set(heard["list"]) == {"mini"}
    assert asked == ["0", "1", "0", "1", "t", "t", "t", "t"]
    assert all(cell.startswith("<audio") for cell in heard["enrol"]) and heard["cosine"].tolist() == ["0.12"] * 4
    with wave.open(io.BytesIO(base64.b64decode(heard["test"].iloc[0].split("base64,")[1].split('"')[0]))) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (16_000, 64_000)
        played = np.frombuffer(sound.readframes(64_000), np.int16)
    assert abs(played[1000] - 1000) <= 1 and abs(played[-1] + 1537) <= 1  # the first 4 s, not turned round
