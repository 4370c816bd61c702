"""
The real notebooks through make: tiny encoders and a few steps on the embedded voices.

06_train_adacos and 07_train_aam run in `test_rehearsed`, further losses in `make test-long`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import DESK, PHONE, chromium, complaints, needs_chromium, sideways
from links import dead

from sv_utils import report, run
from sv_utils.base import paths
from sv_utils.models import encoders
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, tables

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
  engine: {readers: 0}
  phases: [{epochs: 1, steps_per_epoch: 2, crop_seconds: 1.0}]
03_train_softmax:
  engine: {readers: -1}
04_train_contrastive: {}
08_evaluate:
  replicates: 20
  cuts: [2]
  telephone: true
09_report: {}
11_selection: {}
encoders:
  elsewhere: ELSEWHERE
"""
FURTHER = ["05_train_cosface", "07_train_sphereface2", "07_train_ge2e", "07_train_angular_prototypical"]


def make(*arguments):
    command = ["make", "--no-print-directory", f"PY={sys.executable}", *arguments]
    return subprocess.run(command, cwd=paths.REPO, env=os.environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The outputs of `make reproduce PROFILE=tiny`, and what it printed."""
    root = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(paths.REPO / "params" / "selection", root / "params" / "selection")
    encoders.build(backbone="resnet18", width=4, stem="imagenet", n_mels=20).save(root / "elsewhere.keras")
    (root / "params" / "tiny.yaml").write_text(TINY.replace("ELSEWHERE", str(root / "elsewhere.keras")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SV_OUTPUTS", str(root / "outputs"))
        patch.setenv("SV_PARAMS", str(root / "params"))
        ran = make("reproduce", "PROFILE=tiny")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        yield root / "outputs" / "tiny", ran.stdout


def test_each_stage_leaves_its_notebook_its_page_and_its_birth_certificate(made):
    folder, printed = made
    for stage in list(Profile.read("tiny").stages):
        left = {path.name for path in (folder / stage.name).iterdir()}
        assert {f"{stage.name}.ipynb", f"{stage.name}.html", "run.json"} <= left
        assert f"{stage.name}: done" in printed
        record = json.loads((folder / stage.name / "run.json").read_text())
        assert record["parameters"]["profile"] == "tiny" and record["packages"]["keras"] and len(record["key"]) == 64


def test_no_notebook_wrote_to_stderr_or_showed_an_empty_figure(made):
    for stage in list(Profile.read("tiny").stages):
        notebook = nbformat.read(made[0] / stage.name / f"{stage.name}.ipynb", 4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert [output.text for output in outputs if output.get("name") == "stderr"] == [], stage.name
        assert outputs, stage.name


def test_results_hold_a_row_for_each_loss_and_its_untrained_encoder(made):
    results = pd.read_csv(made[0] / "results.csv", keep_default_na=False)
    assert list(results.columns) == tables.COLUMNS
    losses = ["contrastive", "softmax"]
    plain = results[results["model"].isin([*losses, *(f"{loss} (untrained)" for loss in losses)])]
    assert sorted(set(plain["loss"])) == ["contrastive", "none", "softmax"]
    assert (plain["n_speakers"] == 18).all() and (plain["n_target"] + plain["n_nontarget"] == 3060).all()
    assert (plain["eer_low"] < plain["eer"]).all() and (plain["eer"] < plain["eer_high"]).all()
    elsewhere = results[results["loss"] == "pretrained"]["model"].tolist()
    assert elsewhere == ["elsewhere", "elsewhere + AS-norm", "elsewhere + AS-norm + QMF"]
    # The untrained encoders are one and the same: same architecture, same seed.
    assert plain.loc[plain["loss"] == "none", "eer"].nunique() == 1


def test_error_rates_stand_for_short_and_for_telephone_speech(made):
    rows = json.loads((made[0] / "08_evaluate@softmax" / "metrics.json").read_text())
    by_duration = next(row["by_duration"] for row in rows if row["model"] == "softmax")
    assert [row["cut"] for row in by_duration] == ["2 s", "full", "telephone, 2 s", "telephone"]
    assert by_duration[0]["mean_seconds"] == by_duration[2]["mean_seconds"] <= 2 < by_duration[1]["mean_seconds"]
    assert by_duration[1]["eer"] != by_duration[3]["eer"]
    scored = pd.read_csv(made[0] / "08_evaluate@softmax" / "scores_mini.csv")
    assert by_duration[1]["eer"] == pytest.approx(counted_eer(scored["label"], scored["llr"]), abs=2e-3)


def counted_eer(labels, scores):
    """Where as many of the targets are missed as of the others let in, counted at every score."""
    order = np.argsort(scores.to_numpy())
    missed = np.cumsum(labels.to_numpy()[order] == 1) / (labels == 1).sum()
    let_in = 1 - np.cumsum(labels.to_numpy()[order] == 0) / (labels == 0).sum()
    nearest = np.argmin(np.abs(missed - let_in))
    return (missed[nearest] + let_in[nearest]) / 2


def test_error_rates_are_those_of_the_scores_beside_them(made):
    results = pd.read_csv(made[0] / "results.csv").set_index("model")
    for model in ("softmax", "contrastive"):
        scored = pd.read_csv(made[0] / f"08_evaluate@{model}" / "scores_mini.csv")
        assert len(scored) == 3060
        assert results.loc[model, "eer"] == pytest.approx(counted_eer(scored["label"], scored["score"]), abs=2e-3)
        assert results.loc[f"{model} + AS-norm", "eer"] == pytest.approx(
            counted_eer(scored["label"], scored["as_norm"]), abs=2e-3
        )


def test_table_is_printed_with_what_the_corpus_is_not(made):
    for loss in ("softmax", "contrastive"):
        assert f"| {loss} " in made[1]
    assert "one session" in made[1] and "3,060" in made[1]


def test_the_verdict_is_printed_and_stands_in_the_report_and_on_the_index(made):
    said = "no training of this recipe on record"
    assert said in made[1] and json.loads((made[0] / "reproduction.json").read_text())["verdict"] == "no verdict"
    assert said in (made[0] / "report.html").read_text("utf-8") and said in (made[0] / "index.html").read_text("utf-8")
    record = json.loads((made[0] / "03_train_softmax/run.json").read_text())
    assert record["engine"]["devices"][0].startswith("CPU") and len(record["engine"]["initial_weights"]) == 64


def test_a_site_of_the_run_has_no_dead_links(made, tmp_path):
    assert report.main(["tiny", "--site", str(tmp_path / "site")]) == 0
    assert dead(tmp_path / "site") == [] and len(list((tmp_path / "site/tiny").rglob("card.html"))) == 2


def test_second_make_runs_nothing(made):
    again = make("reproduce", "PROFILE=tiny")
    assert again.returncode == 0 and "starts" not in again.stdout


def test_pages_are_small_and_ask_for_nothing(made):
    found = sorted(made[0].rglob("*.html"))
    assert len(found) == len(list(Profile.read("tiny").stages)) + 2
    for page in found:
        text = page.read_text("utf-8")
        assert len(text) < 3_000_000, page.name
        assert not re.search(r"""(src|srcset)=(?!["']?data:)|<script|@import|url\(""", text), page.name


@needs_chromium
def test_pages_in_a_browser(made):
    with chromium() as browser:
        for size in (PHONE, DESK):
            page = browser.new_page(viewport=size)
            for file in made[0].rglob("*.html"):
                found = complaints(page, file.as_uri())
                page.goto(file.as_uri())
                assert (found, sideways(page)) == ([], 0), (file.name, size)
                assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")


def test_model_left_is_an_encoder(made):
    model = encoders.load(made[0] / "03_train_softmax" / "model.keras")
    assert model.output_shape == (None, 8)


def said(notebook):
    """What the cells of an executed notebook put out, but for times, dates and pictures of times."""
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = data.get("text/html") or data.get("text/markdown") or data.get("text/plain")
            parts.append(output.get("text") or f"\n{sorted(data)} {text}\n")
    text = re.sub(r"T_[0-9a-f]{5}", "T", "".join(parts))  # the ids of styled tables are drawn
    text = re.sub(r"[\d,]+(\.\d+)? ?(s|x|MB/s|GB)\b", "some", text)
    return text.partition("## What made these numbers")[0]  # a notebook run by hand leaves no birth certificate


@pytest.mark.long
def test_jupyterlab_gives_what_make_gives(made, tmp_path, monkeypatch):
    """Each notebook with the same parameters in its cell, run from top to bottom as JupyterLab runs it."""
    import nbclient

    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for stage in list(Profile.read("tiny").stages):
        notebook = nbformat.read(paths.NOTEBOOKS / f"{stage.notebook}.ipynb", 4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in Profile.read("tiny").of(stage.name).items())
        folder = {"metadata": {"path": str(paths.NOTEBOOKS)}}
        nbclient.NotebookClient(notebook, kernel_name="python3", resources=folder).execute()
        by_make = nbformat.read(made[0] / stage.name / f"{stage.name}.ipynb", 4)
        by_make.cells = [cell for cell in by_make.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        assert said(notebook) == said(by_make), stage.name
    results = [pd.read_csv(folder / "results.csv") for folder in (made[0], tmp_path / "outputs" / "tiny")]
    of_a_run = ["seconds", "training_seconds", "realtime", "key"]  # a notebook run by hand has no record, and no key
    pd.testing.assert_frame_equal(*(table.drop(columns=of_a_run, errors="ignore") for table in results))


@pytest.mark.long
@pytest.mark.parametrize("stage", FURTHER)
def test_notebooks_of_further_losses_run(made, tmp_path, monkeypatch, stage):
    text = TINY.replace("04_train_contrastive: {}", f"04_train_contrastive: {{}}\n{stage}: {{}}")
    (tmp_path / "tiny.yaml").write_text(text.replace("ELSEWHERE", str(made[0].parents[1] / "elsewhere.keras")))
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    monkeypatch.setenv("SV_OUTPUTS", str(made[0].parent))
    assert run.run_stage(stage, "tiny")
    notebook = nbformat.read(made[0] / stage / f"{stage}.ipynb", 4)
    assert not any(output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", []))


def test_expected_curves_are_taken_from_the_outputs_and_found_again(made, tmp_path, monkeypatch, capsys):
    params_file = Path(os.environ["SV_PARAMS"]) / "tiny.yaml"
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    (tmp_path / "tiny.yaml").write_text(params_file.read_text())
    assert expected.expected("tiny", "03_train_softmax") is None
    assert report.main(["tiny", "--expected"]) == 0
    found = expected.expected("tiny", "03_train_softmax")
    log = pd.read_csv(made[0] / "03_train_softmax" / "log.csv")
    assert found["val_eer"].tolist() == pytest.approx(log["val_eer"].tolist(), rel=1e-4)
    assert found["loss"].iloc[1:].tolist() == pytest.approx(log["loss"].iloc[1:].tolist(), rel=1e-4)
    assert expected.expected("tiny", "07_train_ge2e") is None
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    assert report.main(["tiny", "--expected"]) == 2 and "make reproduce PROFILE=tiny" in capsys.readouterr().err
