"""Curves to expect: those of the stage that is asked for, and none where none are stored."""

import pandas as pd

from sv_utils.reports import expected


def test_a_stage_finds_its_own_curves(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    rows = [["a", 0, None, None, None, 0.5], ["a", 1, 2.0, 0.1, 0.05, 0.4], ["b", 1, 3.0, 0.2, 0.01, 0.3]]
    (tmp_path / "expected").mkdir()
    pd.DataFrame(rows, columns=expected.COLUMNS).to_csv(tmp_path / "expected" / "mine.csv", index=False)
    found = expected.expected("mine", "b")
    assert found.to_dict("records") == [
        {"epoch": 1, "loss": 3.0, "accuracy": 0.2, "learning_rate": 0.01, "val_eer": 0.3}
    ]
    assert expected.expected("mine", "a")["val_eer"].tolist() == [0.5, 0.4]
    assert expected.expected("mine", "c") is None and expected.expected("other", "a") is None
