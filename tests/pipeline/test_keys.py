"""What a stage was made from: which edits change which content keys."""

import json
from datetime import UTC, datetime

import nbformat
import pytest
import tiny_repository

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.pipeline import keys, records
from sv_utils.pipeline.profile import Profile


def changed_by(edit) -> list[str]:
    """Name the stages whose key an edit changes."""
    before = keys.stage_keys(Profile.read("mini"))
    edit()
    after = keys.stage_keys(Profile.read("mini"))
    return [stage for stage in after if before.get(stage) != after[stage]]


def test_a_file_of_weights_counts_by_its_content(house):
    (house / "a.keras").write_text("weights")
    tiny_repository.replace(house / "notebooks/03_train_softmax.ipynb", "seed = 1", "initial_model = ''\\nseed = 1")
    softmax = "03_train_softmax: {initial_model: a.keras}"
    tiny_repository.replace(
        house / "params/mini.yaml", "03_train_softmax: {}", f"encoders: {{known: a.keras}}\n{softmax}"
    )
    changed = changed_by(lambda: (house / "a.keras").write_text("other weights"))
    assert changed == ["03_train_softmax", "08_evaluate@softmax", "08_evaluate@known", "09_report"]
    assert changed_by(lambda: (house / "a.keras").touch()) == []


def test_what_is_to_be_expected_counts_for_the_report_alone(house):
    def expect(text):
        paths.expected_file("mini").parent.mkdir(exist_ok=True)
        paths.expected_file("mini").write_text(text)

    assert changed_by(lambda: expect("0.1")) == ["09_report"] == changed_by(lambda: expect("0.2"))


SOFTMAX = ["03_train_softmax", "08_evaluate@softmax", "09_report"]
CONTRASTIVE = ["04_train_contrastive", "08_evaluate@contrastive", "09_report"]
ALL = ["01_download", "02_prep", "03_train_softmax", "04_train_contrastive", "08_evaluate@softmax"]
ALL += ["08_evaluate@contrastive", "09_report"]
TRAININGS = ALL[2:]


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("params/mini.yaml", "margin: 0.3", "margin: 0.4", CONTRASTIVE),
        ("params/mini.yaml", "03_train_softmax: {}", "03_train_softmax: {learning_rate: 0.2}", SOFTMAX),
        ("params/mini.yaml", "03_train_softmax: {}", "03_train_softmax: {learning_rate: 0.1}", []),
        ("params/mini.yaml", "common:", "# a comment\ncommon:", []),
        ("params/mini.yaml", "02_prep: {}", "02_prep: {workers: 8}", []),  # how, and not what
        ("params/mini.yaml", "seed: 7", "seed: 8", ALL[1:]),
        ("params/shared/training.yaml", "resnet18", "resnet34", TRAININGS),
        ("params/shared/training.yaml", "architecture", "# said\narchitecture", []),
        ("sv_utils/losses/softmax.py", "0.1", "0.3", SOFTMAX),
        ("sv_utils/losses/softmax.py", "return 0.1", "return 0.1  # a comment", []),
        ("sv_utils/losses/softmax.py", "def loss():", 'def loss():\n    """Now documented."""', []),
        ("sv_utils/losses/softmax.py", "def loss():", '"""Of the module."""\n\n\ndef loss():', []),
        ("sv_utils/losses/softmax.py", "def loss():", "from typing import Any\n\n\ndef loss() -> Any:", []),
        ("sv_utils/losses/softmax.py", "def loss():", "def loss(n: int = 1):", SOFTMAX),
        ("sv_utils/losses/contrastive.py", "0.2", "0.3", CONTRASTIVE),
        ("sv_utils/losses/shared.py", "ONE = 1", "ONE = 2", TRAININGS),  # by a relative import
        ("sv_utils/training/batches.py", "SIZE = 4", "SIZE = 5", ALL[1:]),  # imported within a function
        ("sv_utils/models/backbones/resnet.py", "18", "34", TRAININGS),  # named by a parameter
        ("sv_utils/models/backbones/ecapa.py", "512", "1024", []),
        ("sv_utils/corpora/mini.py", "'a'", "'c'", ALL),
        ("sv_utils/corpora/ocean.py", "'b'", "'c'", []),
        ("sv_utils/reports/figures.py", "thin", "thick", ["09_report"]),
        ("sv_utils/reports/tables.py", "import sys", "import sys, json", ["09_report"]),
        ("sv_utils/run.py", "import sys", "import sys, json", []),
        ("sv_utils/base/paths.py", "import os", "import os, json", []),
        ("sv_utils/base/fetch.py", "ATTEMPTS = ", "ATTEMPTS = 2 * ", []),
        ("sv_utils/base/progress.py", "EVERY = ", "EVERY = 2 * ", []),
        ("sv_utils/pipeline/records.py", "import json", "import json, sys", []),
    ],
)
def test_an_edit_changes_the_keys_of_what_it_touches_and_of_what_follows(house, file, old, new, stages):
    assert changed_by(lambda: tiny_repository.replace(house / file, old, new)) == stages


def finish(stage: str) -> None:
    """Record that a stage ended well under its present key, and handed on what lies in its folder."""
    profile = Profile.read("mini")
    records.write_run(keys.stage_keys(profile)[stage], profile.of(stage), datetime.now(UTC), {})


def test_a_change_that_makes_the_same_bytes_stops_there(house):
    for stage in ("01_download", "02_prep"):
        paths.stage_dir("mini", stage).mkdir(parents=True)
        records.hand_on(paths.stage_dir("mini", stage), {"bytes": "same"})
        finish(stage)
    ended = keys.stage_keys(Profile.read("mini"))
    tiny_repository.replace(house / "sv_utils/corpora/mini.py", "'a'", "'c'")
    open_again = keys.stage_keys(Profile.read("mini"))
    assert [stage for stage in ended if ended[stage] != open_again[stage]] == ALL  # until 01 has run, nobody knows
    finish("01_download")
    again = keys.stage_keys(Profile.read("mini"))
    assert [stage for stage in ended if ended[stage] != again[stage]] == ["01_download"]
    records.hand_on(paths.stage_dir("mini", "02_prep"), {"bytes": "others"})
    finish("02_prep")
    others = keys.stage_keys(Profile.read("mini"))
    assert [stage for stage in ended if again[stage] != others[stage]] == TRAININGS


def test_a_stage_that_hands_nothing_on_counts_by_its_key(house):
    found = []
    for source in ("'a'", "'c'"):
        (house / "sv_utils/corpora/mini.py").write_text(f"MD5 = {source}")
        for stage in ("01_download", "02_prep"):
            finish(stage)
        found.append(keys.stage_keys(Profile.read("mini")))
    assert [stage for stage in ALL if found[0][stage] != found[1][stage]] == ALL


def test_what_lies_outside_the_repository_counts_by_the_digest_it_is_given(house):
    plain, one, two = (
        keys.stage_keys(Profile.read("mini"), sources) for sources in (None, {"folder": "1"}, {"folder": "2"})
    )
    assert [stage for stage in plain if one[stage] != two[stage]] == ALL
    assert [stage for stage in plain if one[stage] != plain[stage]] == ALL


def edit_notebook(house, edit):
    path = house / "notebooks/08_evaluate.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edit(notebook.cells)
    nbformat.write(notebook, path)


@pytest.mark.parametrize(
    ("edit", "stages"),
    [
        (lambda cells: cells[0].update(source="# Another title"), []),
        (lambda cells: cells[2].update(id="another"), []),
        (lambda cells: cells[2].outputs.append(nbformat.v4.new_output("stream", text="1")), []),
        (lambda cells: cells[2].update(execution_count=3), []),
        (lambda cells: cells[2].update(source="# said\n" + cells[2].source), []),
        (lambda cells: cells[2].update(source=cells[2].source + "\n1"), ALL[4:]),
        (lambda cells: cells[1].update(source="trials = 11"), ALL[4:]),
    ],
)
def test_of_a_notebook_only_the_code_counts(house, edit, stages):
    assert changed_by(lambda: edit_notebook(house, edit)) == stages


@pytest.mark.parametrize(
    "change",
    [
        lambda source: source.replace("seed = 1", "seed = 2"),  # which the profile sets
        lambda source: "\n".join(reversed(source.split("\n"))),
    ],
    ids=["default", "order"],
)
def test_of_parameters_only_those_of_the_run_count(house, change):
    path = house / "notebooks/03_train_softmax.ipynb"
    notebook = nbformat.read(path, as_version=4)
    before, notebook.cells[1].source = notebook.cells[1].source, change(notebook.cells[1].source)
    assert notebook.cells[1].source != before
    assert changed_by(lambda: nbformat.write(notebook, path)) == []


def test_the_code_of_a_folder_is_that_of_the_folder_itself_too(house):
    found = [keys.code_key("models")]
    for module in ("models/__init__", "models/backbones/__init__", "models/backbones/ecapa", "losses/softmax"):
        file = house / "sv_utils" / f"{module}.py"
        file.write_text(file.read_text() + "ANOTHER = 1\n")
        found.append(keys.code_key("models"))
    assert len(set(found)) == 4 and found[3] == found[4]


def test_a_further_training_changes_only_itself_and_the_report(house):
    path = house / "params/mini.yaml"
    added = changed_by(lambda: path.write_text(path.read_text() + "03_train_softmax@wide: {learning_rate: 0.2}\n"))
    assert added == ["03_train_softmax@wide", "08_evaluate@softmax@wide", "09_report"]


def test_keys_do_not_depend_on_the_place_of_the_repository(house, tmp_path_factory, monkeypatch):
    known = keys.stage_keys(Profile.read("mini"))
    other = tiny_repository.build(tmp_path_factory.mktemp("other") / "deeper")
    monkeypatch.setattr(paths, "REPO", other)
    monkeypatch.setattr(paths, "NOTEBOOKS", other / "notebooks")
    assert keys.stage_keys(Profile.read("mini")) == known


def test_modules_are_found_through_every_form_of_import(house):
    package = house / "sv_utils"
    for name in ("one", "two", "three", "four", "five", "unused"):
        (package / f"{name}.py").write_text("")
    (house / "numpy.py").write_text("")  # that lies beside the package
    (package / "two.py").write_text("def work():\n    from . import five, absent\n")
    (package / "losses/deep.py").write_text("from ..four import x\nfrom .shared import ONE\n")
    cells = [
        "import numpy, sv_utils.one as o",
        "%load_ext x\nif True:\n    !ls\n    from sv_utils import two as t, three",
    ]
    cells += ["from sv_utils import corpora"]
    cells += ["from sv_utils.losses.deep import anything\nx = (7\n% 2)", "\n%%bash\nfrom sv_utils import unused"]
    found = keys.used_modules(cells, named=["ocean"], left_out=["three"])
    assert list(found) == [
        "sv_utils",
        "sv_utils.corpora",
        "sv_utils.corpora.ocean",
        "sv_utils.five",
        "sv_utils.four",
        "sv_utils.losses",
        "sv_utils.losses.deep",
        "sv_utils.losses.shared",
        "sv_utils.one",
        "sv_utils.two",
    ]
    assert found["sv_utils.corpora.ocean"] == "MD5 = 'b'"


def test_sources_are_read_as_utf_8_on_any_system(house, another_encoding):
    notebook = {"cells": [{"cell_type": "code", "source": ["one = 'é'\n", "two = 'ä'"]}]}
    (house / "notebooks/é.ipynb").write_text(json.dumps(notebook, ensure_ascii=False), "utf-8")
    assert keys.code_cells(house / "notebooks/é.ipynb") == ["one = 'é'\ntwo = 'ä'"]
    (house / "sv_utils/one.py").write_text("ONE = 'é'", "utf-8")
    assert keys.used_modules(["import sv_utils.one"])["sv_utils.one"] == "ONE = 'é'"


def test_lines_of_ipython_mean_nothing():
    assert keys.meaning("%load_ext x\ny = 1") == "pass\ny = 1"
    assert keys.meaning("%%bash\nls") == ""


def test_a_circle_of_imports_ends(house):
    (house / "sv_utils/one.py").write_text("import sv_utils.two")
    (house / "sv_utils/two.py").write_text("import sv_utils.one")
    assert list(keys.used_modules(["import sv_utils.one"])) == ["sv_utils", "sv_utils.one", "sv_utils.two"]


def test_code_that_is_no_python_is_refused(house):
    (house / "sv_utils/training/batches.py").write_text("SIZE = (")
    with pytest.raises(RequestError, match=r"sv_utils\.training\.batches is not Python"):
        keys.stage_keys(Profile.read("mini"))
    with pytest.raises(RequestError, match=r"^a code cell is not Python"):
        keys.meaning("x = (")
    with pytest.raises(RequestError, match=r"^a code cell is not Python"):
        keys.used_modules(["x = ("])


def test_the_code_of_a_folder_counts_by_its_meaning_with_all_that_it_imports(house):
    package = house / "sv_utils"
    (package / "losses/deeper").mkdir()
    (package / "losses/deeper/__init__.py").write_text("ONE = 1\n")
    (package / "one.py").write_text("from sv_utils import two\nfrom sv_utils.base import paths\n")
    (package / "two.py").write_text("TWO = 2\n")
    before = keys.code_key("losses", "one")
    (package / "two.py").write_text("TWO = 2  # of them\n")
    (package / "unused.py").write_text("THREE = 3\n")
    tiny_repository.replace(package / "base/paths.py", "import os", "import os, json")
    assert keys.code_key("losses", "one") == before != keys.code_key("losses")
    (package / "two.py").write_text("TWO = 3\n")
    changed = keys.code_key("losses", "one")
    (package / "losses/deeper/__init__.py").write_text("ONE = 2\n")
    assert len({before, changed, keys.code_key("losses", "one")}) == 3


def test_what_is_imported_is_part_of_the_meaning_but_for_types():
    assert keys.meaning("from numpy import mean") != keys.meaning("from numpy import median")
    assert keys.meaning("from typing import Any\nfrom collections.abc import Mapping\nx = 1") == keys.meaning("x = 1")
