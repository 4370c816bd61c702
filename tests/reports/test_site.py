"""The site: finished runs and READMEs in one folder, whose links lead somewhere within it."""

import json
import os
import re

import pandas as pd
import pytest
import yaml
from browser import chromium, complaints, needs_chromium, sideways
from links import dead

from sv_utils import report
from sv_utils.base import paths
from sv_utils.reports import pages, site, tables

PARAMS = "01_download: {}\n02_prep: {}\n03_train_softmax: {}\n08_evaluate: {}\n09_report: {}\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run, as far as a site shows it."""
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "params").mkdir()
    (tmp_path / "params/two.yaml").write_text(f"# two - <one> training.\n# Needs: nothing.\n{PARAMS}")
    folder = paths.profile_dir("two")
    for stage in ("03_train_softmax", "09_report"):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "run.json").write_text(json.dumps({"key": "k", "parameters": {"source": "/data/own"}}))
        (folder / stage / f"{stage}.html").write_text(pages.of_markdown(f"# {stage}", "../index.html", "home"))
    (folder / "03_train_softmax/model.keras").write_text("not for a site")
    (folder / "03_train_softmax/03_train_softmax.partial.html").write_text("<a href='nowhere.html'>stopped</a>")
    (folder / "report.html").write_text(pages.of_markdown("# Report", "index.html", "home"))
    row = {"model": "softmax", "loss": "softmax", "list": "mini", "eer": 0.1, "eer_low": 0.05, "eer_high": 0.2}
    row |= {"profile": "two", "n_target": 10, "n_nontarget": 20, "n_speakers": 5}
    pd.DataFrame([row]).reindex(columns=tables.COLUMNS).to_csv(folder / "results.csv", index=False)
    (folder / "reproduction.json").write_text(json.dumps({"sentence": "As expected: 1 of 1 models."}))
    links = "".join(f"<a href='{stage}/{stage}.html'>x</a>" for stage in ("03_train_softmax", "09_report"))
    (folder / "index.html").write_text(f"<nav>Speaker verification</nav>{links}")
    monkeypatch.setattr(site.card, "of_model", lambda file: f"# the card of {file.relative_to(folder)}\n")
    return tmp_path / "site"


def test_a_site_holds_the_pages_and_all_its_links_lead_somewhere(run, capsys):
    assert report.main(["two", "--site", str(run)]) == 0
    pages_of_it = len(list(run.rglob("*.html")))
    assert f"{run / 'index.html'}: {pages_of_it} pages, " in capsys.readouterr().out
    assert dead(run) == []
    front = (run / "index.html").read_text()
    assert "<title>Speaker verification: finished runs</title>" in front and "<th>EER % [95 % interval]</th>" in front
    title = (paths.REPO / "sv_utils/reports/README.md").read_text("utf-8").partition("\n")[0].removeprefix("# ")
    assert f'<a href="read/sv_utils-reports.html">{title}</a>' in front
    assert "minDCF" not in front  # the whole table is in the report
    assert "<title>CARD</title>" in pages.of_markdown("no heading", "index.html", "CARD")
    assert "As expected: 1 of 1 models." in front and "10.00&nbsp;[5.00,&nbsp;20.00]" in front
    assert "&lt;one&gt; training." in front and "read/params.html" in front
    assert '<a href="../index.html">All runs</a>' in (run / "two/index.html").read_text()
    assert json.loads((run / "two/03_train_softmax/run.json").read_text())["parameters"] == {"source": "own"}
    assert not list(run.rglob("*.keras")) and not list(run.rglob("*partial*"))
    assert (run / ".nojekyll").exists()
    card = (run / "two/03_train_softmax/card.html").read_text()
    assert 'href="../index.html">All reports of this run</a>' in card
    assert ">the card of 03_train_softmax/model.keras<a" in card
    assert '<a href="two/03_train_softmax/card.html">card of softmax</a>' in front
    readme = (run / "read/README.html").read_text()
    assert (
        'href="CONTRIBUTING.html"' in readme and 'href="params.html#' in readme and "data:image/webp;base64," in readme
    )
    for page in run.rglob("*.html"):
        assert not re.search(r"""(src|srcset)=(?!["']?data:)|<script|@import|url\(""", page.read_text("utf-8")), page


def test_a_site_is_made_anew_and_no_other_folder_is_touched(run, capsys):
    site.build(run, ["two"])
    (run / "old.html").write_text("")
    killed = run.with_name(f".site.{os.getpid()}")  # what a build of the same number left
    killed.mkdir()
    (killed / "half.html").write_text("")
    site.build(run, ["two"])
    assert not (run / "old.html").exists() and not (run / "half.html").exists()
    other = run.parent / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    assert report.main(["two", "--site", str(other)]) == 2
    assert "mine holds other things than a site; name an empty folder" in capsys.readouterr().err
    (paths.profile_dir("two") / "report.html").unlink()
    assert report.main(["two", "--site", str(run)]) == 2
    assert "two has no report yet; make it with: make reproduce PROFILE=two" in capsys.readouterr().err
    (paths.profile_dir("two") / "report.html").touch()
    (paths.profile_dir("two") / "index.html").unlink()
    with pytest.raises(OSError):
        site.build(run, ["two"])
    assert (run / "index.html").exists() and (other / "thesis.txt").exists()
    assert [path.name for path in run.parent.glob(".site*")] == []


@needs_chromium
def test_a_site_fits_a_phone_and_a_desk(run):
    site.build(run, ["two"])
    with chromium() as browser:
        for width in (400, 1200):
            page = browser.new_page(viewport={"width": width, "height": 800})
            found = complaints(page, "file:")
            for name in ("index.html", "read/README.html", "read/params.html", "read/sv_utils-losses.html"):
                page.goto((run / name).as_uri())
                assert (found, sideways(page)) == ([], 0), (name, width)


def test_the_workflow_runs_what_make_knows():
    text = (paths.REPO / ".github/workflows/ci.yml").read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    targets = re.findall(r"\bmake ([a-z-]+)", text.split("jobs:")[1])
    makefile = (paths.REPO / "Makefile").read_text("utf-8")
    assert set(targets) == {"setup", "test", "check", "reproduce", "site"}
    assert jobs["publish"]["needs"] == ["test", "site"]
    for target in targets:
        assert re.search(rf"(?m)^{target}:", makefile), target
