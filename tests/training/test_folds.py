"""The trials that a fold of a cross-validation is judged on."""

import numpy as np

from sv_utils.evaluation import trials
from sv_utils.training import data


def test_a_fold_has_as_many_trials_of_either_kind_as_the_list(prep, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    ids = data.Data.read(prep).validation.speech.table["id"]
    listed = trials.make(ids, 2, 5, seed=0)
    monkeypatch.setattr(data.trials, "read", lambda _: listed)
    for fold in (1, 2, 3):
        assert np.bincount(data.Data.read(prep, fold, 3).validation.labels).tolist() == [5, 2]
