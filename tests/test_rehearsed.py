"""
The two main profiles of VoxCeleb, from archives to report, with a narrow encoder and few speakers.

`make rehearse PROFILE=...` runs them with their own encoders; so does `make test-long`, all profiles.
"""

import os
import subprocess
import sys

import pandas as pd
import pytest

from sv_utils.base import paths
from sv_utils.evaluation import metrics
from sv_utils.reports import tables

SPEAKERS = 9  # of VoxCeleb2
TRIALS = {"O": 96, "O-cleaned": 96, "E": 60, "E-cleaned": 60, "H": 60, "H-cleaned": 60}  # of a miniature's lists
PROFILES = {  # the stage that trains; rate and margin (AdaCos has none) at the ends of its epochs, two of each phase
    "voxceleb_original_resnet34": ("06_train_adacos", [0.01, 0.01, 1e-4, 1e-4], []),
    "voxceleb_modern_resnet34": ("07_train_aam", [0.4, 2e-4, 2e-4, 5e-5], [0, 0.2, 0.5, 0.5]),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_stage_passes_on_a_miniature(profile, tmp_path, monkeypatch):
    line = [sys.executable, "tests/helpers/rehearsed.py", profile, str(SPEAKERS), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(paths.REPO), "MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "2"}
    ran = subprocess.run(line, cwd=paths.REPO, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    stage, rates, margins = PROFILES[profile]
    folder, loss = paths.stage_dir(profile, stage), stage.split("_")[-1]
    log = pd.read_csv(folder / "log.csv").dropna(subset="loss")
    assert log["phase"].tolist() == [1, 1, 2, 2] and log["learning_rate"].tolist() == pytest.approx(rates)
    steps = pd.read_csv(folder / "steps.csv")
    assert list(steps.get("margin", [])) == pytest.approx(margins)
    results = tables.read_results(profile)
    results = results[results["model"] == loss].set_index("list")
    assert (results["n_target"] + results["n_nontarget"]).to_dict() == {f"VoxCeleb1-{k}": n for k, n in TRIALS.items()}
    for name, row in results.iterrows():
        scored = pd.read_csv(paths.stage_dir(profile, f"08_evaluate@{loss}") / f"scores_{name}.csv")
        same = scored["label"] == 1
        assert row["eer"] == pytest.approx(metrics.eer(scored["score"][same], scored["score"][~same])[0])
