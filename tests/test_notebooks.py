"""The real notebooks, all of them, through make: tiny encoders and a few steps on the embedded voices."""

import json
import os
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from sv_utils import encoder, params, paths, report

TINY = """
common:
  corpora: [mini]
01_download: {}
02_prep:
  validation_speakers: 3
  validation_targets: 60
  validation_nontargets: 120
train:
  architecture: {width: 4, n_mels: 20, embedding_dim: 8}
  stages: [{epochs: 1, steps_per_epoch: 2, crop_seconds: 1.0}]
03_train_softmax: {}
04_train_contrastive: {}
05_train_cosface: {}
06_train_adacos: {}
08_evaluate:
  replicates: 20
09_report: {}
encoders:
  elsewhere: ELSEWHERE
"""


def make(*arguments):
    command = ["make", "--no-print-directory", f"PY={sys.executable}", *arguments]
    return subprocess.run(command, cwd=paths.REPO, env=os.environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The outputs of `make reproduce PROFILE=tiny`, and what it printed."""
    root = tmp_path_factory.mktemp("reproduce")
    (root / "params").mkdir()
    encoder.build(backbone="resnet18", width=4, stem="imagenet", n_mels=20).save(root / "elsewhere.keras")
    (root / "params" / "tiny.yaml").write_text(TINY.replace("ELSEWHERE", str(root / "elsewhere.keras")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SV_OUTPUTS", str(root / "outputs"))
        patch.setenv("SV_PARAMS", str(root / "params"))
        run = make("reproduce", "PROFILE=tiny")
        assert run.returncode == 0, run.stdout + run.stderr
        yield root / "outputs" / "tiny", run.stdout


def test_each_stage_leaves_its_notebook_its_page_and_its_birth_certificate(made):
    folder, printed = made
    for stage in params.stages("tiny"):
        left = {path.name for path in (folder / stage.name).iterdir()}
        assert {f"{stage.name}.ipynb", f"{stage.name}.html", "run.json"} <= left
        assert f"{stage.name}: done" in printed
        record = json.loads((folder / stage.name / "run.json").read_text())
        assert record["parameters"]["profile"] == "tiny" and record["packages"]["keras"] and len(record["key"]) == 64


def test_no_notebook_wrote_to_stderr_or_showed_an_empty_figure(made):
    for stage in params.stages("tiny"):
        notebook = nbformat.read(made[0] / stage.name / f"{stage.name}.ipynb", 4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert [output.text for output in outputs if output.get("name") == "stderr"] == [], stage.name
        assert outputs, stage.name


def test_results_hold_a_row_for_each_loss_and_its_untrained_encoder(made):
    results = pd.read_csv(made[0] / "results.csv", keep_default_na=False)
    assert list(results.columns) == report.COLUMNS
    losses = ["adacos", "contrastive", "cosface", "softmax"]
    plain = results[results["model"].isin([*losses, *(f"{loss} (untrained)" for loss in losses)])]
    assert sorted(set(plain["loss"])) == [*losses[:3], "none", "softmax"]
    assert (plain["n_speakers"] == 18).all() and (plain["n_target"] + plain["n_nontarget"] == 3060).all()
    assert (plain["eer_low"] < plain["eer"]).all() and (plain["eer"] < plain["eer_high"]).all()
    elsewhere = results[results["loss"] == "pretrained"]["model"].tolist()
    assert elsewhere == ["elsewhere", "elsewhere + AS-norm", "elsewhere + AS-norm + QMF"]
    # The four untrained encoders are one and the same: same architecture, same seed.
    assert plain.loc[plain["loss"] == "none", "eer"].nunique() == 1


def test_table_is_printed_with_what_the_corpus_is_not(made):
    for loss in ("softmax", "contrastive", "cosface", "adacos"):
        assert f"| {loss} " in made[1]
    assert "one session" in made[1] and "3,060" in made[1]


def test_second_make_runs_nothing(made):
    again = make("reproduce", "PROFILE=tiny")
    assert again.returncode == 0 and "starts" not in again.stdout


def test_report_page_stands_alone(made):
    page = (made[0] / "report.html").read_text()
    assert len(page) < 3_000_000
    assert 'src="http' not in page.replace("https://cdnjs.cloudflare.com/ajax/libs/mathjax", "")


def test_model_left_is_an_encoder(made):
    model = encoder.load(made[0] / "06_train_adacos" / "model.keras")
    assert model.output_shape == (None, 8)
