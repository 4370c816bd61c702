"""The threshold of a model of one's own among several voices, and which utterances calibration may hear."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils.evaluation.calibration import Calibration
from sv_utils.voices import development
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Plain, Side


def test_the_threshold_rises_by_the_logarithm_of_the_voices_on_the_scale_of_cosines():
    judge = Plain(Calibration(("cosine",), (10.0,), -4.0, 0.5, 99, 999), {"threshold": 0.4})
    sides = [Side(np.array([1.0, 0.0]), Conditions(9.0, 8000.0, 35.0, 0.0, 0.0, 0.2))] * 2
    assert judge(*sides).point["threshold"] == 0.4
    assert judge(*sides, voices=10).point["threshold"] == pytest.approx(0.4 + math.log(10) / 10)


def test_the_conditions_of_either_side_limit_what_is_claimed():
    judge = Plain(Calibration(("cosine",), (10.0,), -4.0, 0.5, 99, 999), {"threshold": 0.4})
    voice, good = np.array([1.0, 0.0]), Conditions(9.0, 8000.0, 35.0, 0.0, 0.0, 0.2)
    studio, call, loud, short = (
        Side(voice, dataclasses.replace(good, **change))
        for change in ({}, {"bandwidth": 3500.0}, {"noise": 5.0}, {"speech_seconds": 1.0})
    )
    assert judge(studio, studio).ratio == 6.0 and judge(studio, studio).warnings == []
    for other, said in ((call, "narrow-band"), (loud, "noisy"), (short, "so short")):
        for found in (judge(studio, other), judge(other, studio), judge(other, other)):
            assert found.ratio == math.log(20)  # a probability of 95 %
            assert found.warnings == [f"the error rates were not measured on {said} speech: the answer claims less"]


def test_calibration_hears_accepted_dev_utterances_only(monkeypatch):
    subsets, errors = ["dev", "test", "dev", "dev"], ["", "", "too short", ""]
    ids = ["a/s/1", "b/s/1", "c/s/1", "d/s/1"]
    table = pd.DataFrame({"id": ids, "subset": subsets, "error": errors})
    monkeypatch.setattr(development.acquisition, "fetch", lambda entry: [])
    monkeypatch.setattr(development.preparation, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(development.limits, "view", lambda *_: table)
    monkeypatch.setattr(development, "Speech", lambda *_: SimpleNamespace(waveform=lambda row: np.zeros(1)))
    assert list(development.waveforms("mini")) == ["a/s/1", "d/s/1"]
