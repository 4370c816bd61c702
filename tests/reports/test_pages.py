"""Reports and the index: formulas, figures and tables as any browser shows them, without a network."""

import html.parser
import json
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import DESK, PHONE, chromium, complaints, needs_chromium, sideways
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from whole_files import written_whole

from sv_utils.base import paths
from sv_utils.pipeline import keys, records
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import EXTRA
from sv_utils.reports import figures, pages, site, tables

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def notebook(tmp_path):
    """An executed notebook with a formula, a figure, a wide table and text that looks like HTML."""
    wide = "<table><tr>" + "<td>0.123456789</td>" * 40 + "</tr></table>"
    outputs = [
        new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"width": 900, "height": 300}}),
        new_output("display_data", {"text/html": wide}),
        new_output("display_data", {"text/markdown": "| a | b |\n|---|---|\n| 1 | `$5` |"}),
        new_output("stream", name="stdout", text="epoch 1 <loss> & more " * 20),
    ]
    cells = [
        new_markdown_cell(
            "# Losses <b>&amp;</b> margins\nFor $x \\neq y$, as `$HOME` is not,\n$$L = \\frac{e^{s}}{\\sum_j e^{s_j}}$$"
        ),
        new_code_cell("margin = 0.2", metadata={"tags": ["parameters"]}),
        new_markdown_cell("## The curve"),
        new_code_cell("# drawn here\nplot()", outputs=outputs),
    ]
    path = tmp_path / "03_train.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_report_has_its_formulas_as_mathml_and_leaves_code_alone(notebook):
    page = pages.report(notebook, "../index.html")
    assert page.count("<math") == 2 and page.count('display="block"') == 1 and "<mfrac>" in page and "$$" not in page
    assert "<title>Losses &lt;b&gt;" in page
    assert "<code>$HOME</code>" in page and "<code>$5</code>" in page
    assert 'href="../index.html"' in page


def test_a_report_folds_its_code_names_its_figures_and_boxes_its_tables(notebook):
    page = pages.report(notebook, "../index.html")
    assert page.count("<details") == 2 and "defaults</summary>" in page
    assert 'alt="figure: The curve"' in page
    assert page.count('<div class="scroll" tabindex="0"><table') == page.count("<table") == 2
    assert "epoch 1 &lt;loss&gt; &amp; more" in page
    assert '<div class="prompt' not in page and ".highlight .k {" in page  # no numbers of cells; code in its colours


def test_a_report_asks_for_nothing(notebook):
    page = pages.report(notebook, "../index.html")
    assert not re.search(r"""(src|srcset)=(?!["']?data:)|<script|@import|url\(""", page)
    assert "mathjax" not in page.lower() and len(page) < 30_000


@needs_chromium
def test_a_report_fits_a_phone_and_a_desk(notebook):
    file = notebook.with_suffix(".html")
    file.write_text(pages.report(notebook, "../index.html"), "utf-8")
    with chromium() as browser:
        for size in (PHONE, DESK):
            page = browser.new_page(viewport=size)
            found = complaints(page, file.as_uri())
            page.goto(file.as_uri())
            assert (found, sideways(page)) == ([], 0)
            assert page.locator("math").first.bounding_box()["height"] > 8
            box = page.locator(".scroll").nth(1)
            assert box.evaluate("box => box.scrollWidth > box.clientWidth")
            assert not page.get_by_text("plot()").is_visible()


NAMES = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- ",
    "<textarea>",
    "a|b $\\frac$ c",
    "<svg><style>",
]
NAMES += ["[x](javascript:alert(1))", "</td></table><iframe srcdoc=y>", "<a href=data:text/html,z>", "x' onclick='y"]


class Elements(html.parser.HTMLParser):
    """Names of elements and attributes, and the text, of what stands in <main>."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(page[page.index("<main>") :])

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {
            name if name not in ("href", "src") else f"{name}={value[:11]}" for name, value in attributes
        }

    def handle_data(self, data):
        self.text += data


def page_of(tmp_path, *outputs, **metadata):
    cell = new_code_cell("show()", outputs=[new_output("display_data", output) for output in outputs])
    notebook = new_notebook(cells=[new_markdown_cell("# Names"), cell], metadata=metadata)
    nbformat.write(notebook, tmp_path / "08_evaluate.ipynb")
    return pages.report(tmp_path / "08_evaluate.ipynb", "index.html")


def hostile(tmp_path):
    """A page on which names that others gave stand in every kind of table, beside a player of ours."""
    table = pd.DataFrame({"id": NAMES, "seconds": 1.0}, index=NAMES)
    with_player = table.assign(
        enrol=pd.Series([tables.Markup(figures.player(np.arange(9).astype(np.int16)))] * 10, NAMES, object)
    )
    styled = (tables.styled(table, {"seconds": "{:.1f}"}, index=shown)._repr_html_() for shown in (True, False))
    raw = ({"text/html": name} for name in NAMES)  # what forgot to escape, in a notebook of somebody's own
    kinds = [{"text/html": one} for one in (*styled, table._repr_html_())] + [
        {"text/markdown": tables.markdown(with_player)}
    ]
    return page_of(tmp_path, *kinds, *raw, {"application/javascript": "alert(1)", "image/svg+xml": "<svg onload=x>"})


def test_names_that_others_gave_are_text_wherever_they_stand(tmp_path):
    found = Elements(hostile(tmp_path))
    assert not found.tags & {"script", "iframe", "textarea", "style", "svg", "object", "form", "input"}
    assert not {
        name for name in found.attributes if name.startswith("on") or "javascript" in name or "text/html" in name
    }
    assert "src=x" not in found.attributes and "src=data:audio/" in found.attributes
    assert found.text.count("<script>alert(1)</script>") == 7  # in cells 4, as an index 2, raw 1
    assert all(found.text.count(name.strip()) >= 4 for name in NAMES), NAMES
    assert "This page holds 10 recordings of voices" in found.text and "alert(1)" in found.text


def test_a_page_forbids_scripts_and_addresses(notebook, profile):
    for page in (pages.report(notebook, "../index.html"), pages.index(Profile.read("mine"))):
        head = page[: page.index("<title>")]
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', head)[1]
        assert policy.startswith("default-src 'none';") and "script" not in policy and "http" not in policy


@needs_chromium
def test_no_browser_runs_what_names_say_and_players_play(tmp_path):
    file = tmp_path / "page.html"
    file.write_text(hostile(tmp_path), "utf-8")
    with chromium() as browser:
        page = browser.new_page()
        found = complaints(page, file.as_uri())
        page.on("dialog", lambda dialog: found.append(dialog.message))
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelector('audio').readyState >= 1")
        assert (found, page.evaluate("[...document.querySelectorAll('main *')].every(e => !e.onclick)")) == ([], True)
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
        page.wait_for_timeout(200)
        assert any("inline event handler violates" in text for text in found) and "1" not in found


def test_no_notebook_shows_a_style_of_pandas_that_escapes_nothing():
    for path in paths.NOTEBOOKS.glob("*.ipynb"):
        assert not re.search(r"\.style\b|\bHTML\(", path.read_text("utf-8")), path.name


def test_a_page_tells_names_and_no_places(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "made here"))
    monkeypatch.setenv("SV_MIRROR", "/somewhere/anna/mirror of/mine")
    monkeypatch.setenv("HOME", "/somewhere/anna")
    said = [
        f"{tmp_path}/made here/mini/a.csv",
        "/somewhere/anna/mirror of/mine/folder/b.wav",
        "/somewhere/anna/c.wav",
        "/far away/d.wav",
    ]
    said += [
        str(paths.REPO / "params/mini.yaml"),
        "https://host/somewhere/anna/x",
        "/far away/d.wavelet",
        "U/far away/d.wav",
    ]
    given = {"parameters": {"rec1": "/far away/d.wav", "rec2": "e.wav", "seed": 1}}
    page = page_of(tmp_path, {"text/plain": "\n".join(said)}, papermill=given)
    shown = re.search(r"outputs/mini/a[^<]*", page)[0].strip().splitlines()
    assert shown[:4] == ["outputs/mini/a.csv", "$SV_MIRROR/folder/b.wav", "~/c.wav", "d.wav"]
    assert shown[4:] == ["./params/mini.yaml", *said[5:]]
    assert pages.without_places("1 / 2", ["/", 7]) == "1 / 2"  # a root says nothing


def test_the_record_that_a_site_shows_tells_no_places(tmp_path):
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"parameters": {"rec1": "/far away/d.wav", "seed": 1}, "data": "/far away/d.wav"}))
    site._tell_no_places(record)
    assert json.loads(record.read_text()) == {"parameters": {"rec1": "d.wav", "seed": 1}, "data": "d.wav"}


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if "href" in dict(attributes):
            self.found.append(dict(attributes)["href"])


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile `mine` of one training, of which the first two stages ran, the second under another key."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/mine.yaml").write_text(
        "# mine - a <first> try.\n01_download:\n02_prep:\n05_train_cosface:\n08_evaluate:\n09_report:\n"
    )
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    known, facts = keys.stage_keys(Profile.read("mine")), records.facts()
    for stage, key in {"01_download": known["01_download"], "02_prep": "0" * 64}.items():
        paths.stage_dir("mine", stage).mkdir(parents=True)
        (paths.stage_dir("mine", stage) / f"{stage}.html").touch()
        records.write_run(key, Profile.read("mine").of(stage), datetime.now(UTC), facts)
    return tmp_path / "outputs/mine"


def test_the_index_shows_how_far_each_stage_is(profile):
    page = pages.index(Profile.read("mine"))
    states = re.findall(r"<g class='(\w+)'>(?:<a[^>]*>)?<title>([^<]+)", page)
    assert states == [
        ("done", "01_download"),
        ("outdated", "02_prep"),
        ("open", "05_train_cosface"),
        ("open", "08_evaluate@cosface"),
        ("open", "09_report"),
    ]
    assert "<g class='outdated'><a href=\"02_prep/02_prep.html\"><title>02_prep" in page and page.count("<g ") == 5
    assert "a &lt;first&gt; try." in page and "They come when every model has been judged." in page
    assert '"corpora": [' in page.replace("&quot;", '"')
    # the picture leads from each stage to those that read it
    boxes = {
        name: (float(x), float(y) + 23)
        for name, x, y in re.findall(r"<title>(\w+)[^<]*</title><rect x='(\S+)' y='(\S+)'", page)
    }
    starts = re.findall(r"<path d='M(\S+) (\S+) H\S+ C\S+ \S+ \S+ (\S+) \S+ \S+ H(\S+)'/>", page)
    found = {(float(left) - 176, float(top), float(right), float(end)) for left, top, end, right in starts}
    read = [("01_download", "02_prep"), ("02_prep", "05_train_cosface"), ("02_prep", "08_evaluate")]
    read += [("05_train_cosface", "08_evaluate"), ("08_evaluate", "09_report")]
    assert found >= {(*boxes[one], *boxes[other]) for one, other in read} and len({x for x, _ in boxes.values()}) == 5


MADE_BY = {"git": {"commit": "0c0ffee", "dirty": True}, "processor": "Model <7>", "cores": 6, "memory": 8 * 2**30}
MADE_BY |= {"gpus": ["GPU one", "GPU two"], "instructions": "AVX512", "threads": 3, "platform": "Linux-6"}
MADE_BY |= {"python": "3.12.1", "packages": {"numpy": "2.0", "keras": "3.1"}, "key": "4" * 64, "profile": "mine"}
MADE_BY |= {"parameters": {"source": "/own voices/x"}}


def test_the_index_tells_when_how_long_and_with_what_the_last_stage_ran(profile):
    for stage, day, seconds in (("02_prep", 3, 9000.0), ("01_download", 2, 600.0), ("05_train_cosface", 1, 119.0)):
        run = MADE_BY | {"stage": stage, "end": f"2026-01-0{day}T04:05:06+00:00", "seconds": seconds}
        run |= {"cores": 6 * (day - 2)}
        paths.stage_dir("mine", stage).mkdir(exist_ok=True)
        (paths.stage_dir("mine", stage) / "run.json").write_text(json.dumps(run))
    page = pages.index(Profile.read("mine"))
    assert (
        '<tr><td><a href="02_prep/02_prep.html">02_prep</a></td><td>out of date</td><td>2026-01-03 04:05</td>'
        '<td>2.5 h</td><td><code>444444444444</code></td><td><a href="02_prep/run.json">run.json</a></td></tr>'
    ) in page
    assert "<td>09_report</td><td>not run yet</td><td></td><td></td><td></td><td></td>" in page
    assert ">2.5 h, out of date</text>" in page and ">10 min, out of date</text>" in page and "3 of 5 stages" in page
    assert ">119 s, out of date</text>" in page and "<title>mine: reports</title>" in page
    assert "<nav>Speaker verification</nav>" in page  # which a site leads home by
    assert "<p>Of the last stage that ran (02_prep); every stage" in page
    table = page[page.index("<h2>What made") :]
    assert dict(re.findall("<tr><th>(.+?)</th><td>(.+?)</td></tr>", table)) == {
        "commit": "0c0ffee with changes",
        "machine": "Model &lt;7&gt;; cores: 6; 8 GiB",
        "GPU": "GPU one; GPU two",
        "digits": "instruction sets AVX512, 3 threads",
        "system": "Linux-6, Python 3.12.1",
    }
    assert "<summary>packages</summary><pre>numpy 2.0\nkeras 3.1</pre>" in page
    assert "<summary>02_prep, complete</summary><pre>{\n &quot;source&quot;: &quot;x&quot;\n}</pre>" in page
    assert (
        "<code>params/mine.yaml</code>" in page and "<summary>the file</summary><pre># mine - a &lt;first&gt;" in page
    )


def test_a_machine_without_git_and_gpu_and_a_page_with_one_voice_say_so():
    run = MADE_BY | {"stage": "02_prep", "end": "2026", "git": None, "gpus": [], "instructions": None}
    table = pages._made_by([run])[2]
    assert "<td>not under git</td>" in table and "<th>GPU</th><td>none</td>" in table
    assert "instruction sets not recorded, 3 threads" in table and pages._made_by([]) == []
    assert "holds a recording of voices" in pages._carried("<audio") and pages._carried("<p>") == ""


def test_each_model_has_a_row_of_boxes_and_each_kind_of_stage_a_column():
    named = [
        "01_download",
        "02_prep",
        "03_train_softmax",
        "06_train_adacos",
        "08_evaluate@adacos",
        "09_report",
        EXTRA[0],
    ]
    steps = tuple(SimpleNamespace(name=name, notebook=name.partition("@")[0]) for name in named)
    found = [pages._place(stage, steps, ["softmax", "adacos"]) for stage in steps]
    assert [(x - 2) / (pages.BOX + pages.GAP) for x, _ in found] == [0, 1, 2, 2, 3, 4, 5]
    assert [(y - 25) / pages.STEP for _, y in found] == [0.5, 0.5, 0, 1, 1, 0.5, 0.5]


def test_a_changed_tree_of_own_recordings_makes_what_was_done_outdated(profile):
    asked, sources = Profile.read("mine"), {"mini": "0" * 64}  # the fixture's first stage ran without such a tree
    assert "<g class='done'>" not in pages.index(asked, sources)
    key = keys.stage_keys(asked, sources)["01_download"]
    records.write_run(key, asked.of("01_download"), datetime.now(UTC), records.facts())
    pages.write_index(asked, sources)
    assert (profile / "index.html").read_text("utf-8").count("<g class='done'>") == 1


def test_links_of_the_index_lead_somewhere(profile, monkeypatch):
    written = written_whole(monkeypatch, pages)
    pages.write_index(Profile.read("mine"))
    assert written == [profile / "index.html"]
    links = Links()
    links.feed((profile / "index.html").read_text("utf-8"))
    targets = [link for link in links.found if not link.startswith("data:")]
    assert sorted(set(targets)) == sorted(
        f"{s}/{n}" for s in ("01_download", "02_prep") for n in (f"{s}.html", "run.json")
    )
    assert all((profile / link).exists() for link in targets)
    assert not list(profile.glob(".*"))  # nothing half-written is left


def voxceleb_size():
    """A summary with the longest names and largest counts that the project's profiles have."""
    names = ["angular_prototypical@resnet34_seed1", "angular_prototypical@resnet34_seed1 + AS-norm + QMF"]
    row = {"loss": "angular_prototypical", "list": "VoxCeleb1-O-cleaned", "speakers": "1,251", "trials": "579,818"}
    row |= {"EER % [95 % interval]": "11.11 [10.15, 16.88]", "untrained": "30.26", "threshold": "-0.178"}
    row |= dict.fromkeys(("minDCF(0.01)", "minDCF(0.05)", "Cllr", "Cllr_min"), "0.123")
    return pd.DataFrame([{"model": name} | row for name in names])


@needs_chromium
def test_the_results_table_fits_a_desk(tmp_path):
    table = new_output("display_data", {"text/markdown": tables.markdown(voxceleb_size())})
    cells = [new_markdown_cell("# Report"), new_code_cell("summary", outputs=[table])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "09_report.ipynb")
    (tmp_path / "09_report.html").write_text(pages.report(tmp_path / "09_report.ipynb", "../index.html"), "utf-8")
    with chromium() as browser:
        page = browser.new_page(viewport=DESK)
        page.goto((tmp_path / "09_report.html").as_uri())
        box = page.locator(".scroll")
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") == 0
        interval = page.get_by_text("[10.15").first
        assert interval.evaluate("cell => cell.getClientRects().length") == 1  # an interval stands on one line
        assert page.locator(".whole").first.evaluate("word => word.getClientRects().length") == 1


def test_the_index_shows_the_results_of_the_last_report(profile):
    row = {"profile": "mine", "model": "cosface + AS-norm", "loss": "cosface", "list": "mini", "n_target": 1500}
    row |= {"n_nontarget": 1560, "n_speakers": 18, "eer": 0.1, "eer_low": 0.05, "eer_high": 0.15, "threshold": 0.4}
    pd.DataFrame([row]).reindex(columns=tables.COLUMNS, fill_value=0.5).to_csv(profile / "results.csv", index=False)
    (profile / "02_prep/session_notes.json").write_text('["one session"]')
    assert "They come when every model has been judged." in pages.index(Profile.read("mine"))
    paths.stage_dir("mine", "09_report").mkdir()
    records.write_run("0" * 64, Profile.read("mine").of("09_report"), datetime.now(UTC), records.facts())
    page = pages.index(Profile.read("mine"))
    assert "<p>one session</p>" in page and "These are of the run before" in page
    (profile / "results.csv").rename(profile / "away.csv")
    assert "They come when every model has been judged." in pages.index(Profile.read("mine"))
    assert '<td>cosface + <span class="whole">AS-norm</span></td>' in page
    assert "10.00&nbsp;[5.00,&nbsp;15.00]" in page and "<th>minDCF<wbr>(0.01)</th>" in page
