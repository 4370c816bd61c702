"""What holds the house together: pins, layers, notebooks, links. `make check` runs this file beside the linters."""

import ast
import functools
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import small_training
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sv_utils.base import paths
from sv_utils.models import encoders
from sv_utils.pipeline import keys, params, stages
from sv_utils.pipeline.profile import Profile
from sv_utils.training import augment

NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
PROFILES = sorted(path.stem for path in (paths.REPO / "params").glob("*.yaml"))
CODE = sorted((paths.REPO / "sv_utils").rglob("*.py"))
READMES = sorted(
    path
    for folder in ("", "notebooks", "params", "sv_utils", "tests")
    for path in (paths.REPO / folder).glob("**/README.md" if folder else "README.md")
)


@functools.cache
def modules() -> dict[str, set[str]]:
    """Give for each module of the package everything that it imports, as full names."""
    found = {}
    for file in sorted((paths.REPO / "sv_utils").rglob("*.py")):
        parts = file.relative_to(paths.REPO).with_suffix("").parts
        package = parts[:-1]
        name = ".".join(package if file.stem == "__init__" else parts)
        found[name] = set(keys.imports(file.read_text("utf-8"), name, ".".join(package)))
    return found


@functools.cache
def own_imports() -> dict[str, set[str]]:
    """Give for each module of the package the modules of the package that it imports."""
    found = modules()
    own = {}
    for name, names in found.items():
        used = {full if full in found else full.rpartition(".")[0] for full in names}
        own[name] = used & found.keys() - {"sv_utils", name}
    return own


def rooms() -> dict[str, set[str]]:
    """Give for each folder of the package, and for each flat command, the folders and commands that it imports from."""

    def room(name: str) -> str:
        return name.split(".")[1]

    found: dict[str, set[str]] = {}
    for name, used in own_imports().items():
        if name != "sv_utils":
            found.setdefault(room(name), set()).update({room(other) for other in used} - {room(name)})
    return found


def test_folders_are_layers_and_nothing_imports_a_command():
    folders = {path.parent.name for path in (paths.REPO / "sv_utils").glob("*/__init__.py")} - {"bench"}
    assert {"base", "evaluation", "models", "speech", "training"} < folders
    for name, used in rooms().items():
        assert used <= folders, f"{name} imports {used - folders}: what is imported lies in a folder"
    order = list(graphlib.TopologicalSorter(rooms()).static_order())  # raises where folders import each other
    assert order[0] == "base"


def test_no_imports_form_a_circle():
    graphlib.TopologicalSorter(own_imports()).prepare()


def test_judging_needs_numpy_alone_and_models_know_no_tensorflow():
    found = modules()
    assert {"sv_utils.evaluation.metrics", "sv_utils.models.features", "sv_utils.losses.aam"} < found.keys()
    for name, used in found.items():
        outside = {full.split(".")[0] for full in used} - sys.stdlib_module_names - {"sv_utils"}
        if name.startswith("sv_utils.evaluation"):
            assert outside <= {"numpy"}, name
            assert {full.split(".")[1] for full in used if full.startswith("sv_utils.")} <= {"base", "evaluation"}, name
        # The two that may: one asks for the backend first, one writes files by TensorFlow's own converter.
        may = ("sv_utils.models.backbones.normalization", "sv_utils.models.exports")
        if name.startswith(("sv_utils.models", "sv_utils.losses")) and name not in may:
            assert "tensorflow" not in outside, name


def pins(lock: str) -> dict[str, set[str]]:
    """Give the versions of each package; some have one for each Python version."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^ \\\n]+)", (paths.REPO / lock).read_text()):
        found.setdefault(name, set()).add(version)
    assert len(found) > 100
    return found


def test_both_locks_pin_the_same_versions():
    cpu, gpu = pins("requirements.lock"), pins("requirements-gpu.lock")
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == set()
    assert cpu.keys() - gpu.keys() == {"tensorflow-cpu"}
    assert all(name.startswith("nvidia-") for name in gpu.keys() - cpu.keys())
    assert cpu["tensorflow-cpu"] == gpu["tensorflow"]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_a_lock_has_hashes_and_names_no_host(lock):
    text = (paths.REPO / lock).read_text()
    assert "://" not in text and "index-url" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def test_the_locks_hold_what_the_package_declares():
    project = tomllib.loads((paths.REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for lock, extra in [("requirements.lock", "cpu"), ("requirements-gpu.lock", "gpu")]:
        known = pins(lock)
        for line in project["dependencies"] + extras[extra] + extras["test"]:
            wanted = Requirement(line)
            versions = known[wanted.name.lower()]
            assert versions and all(version in wanted.specifier for version in versions), line


def test_the_gpu_environment_installs_the_gpu_lock():
    environment = yaml.safe_load((paths.REPO / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert pip == "pip"
    assert by_pip == {"pip": ["--requirement requirements-gpu.lock"]}
    project = tomllib.loads((paths.REPO / "pyproject.toml").read_text())["project"]
    assert python.removeprefix("python=") in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_short_and_runs_anywhere(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor >= 5
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert len(notebook.cells) <= 15
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert max(functions_lines(cell.source), default=0) <= 6
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text("utf-8"))


def named_of_modules(path: Path) -> set[tuple[str, str]]:
    """Give each ``module.name`` that a notebook's code takes from a module of this package, as (module, name)."""
    tree = ast.parse("\n".join(re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", cell) for cell in keys.code_cells(path)))
    known, found = {}, set()
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level):
        for alias in node.names:
            if (node.module or "").split(".")[0] == "sv_utils":
                found.add((node.module, alias.name))
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            found.add((known[node.value.id], node.attr))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_the_package_is_there(path):
    modules_here = modules().keys()
    for module, name in named_of_modules(path):
        if module in modules_here and f"{module}.{name}" not in modules_here:
            assert hasattr(importlib.import_module(module), name), f"{path.name}: there is no {module}.{name}"


def functions_lines(source: str) -> list[int]:
    code = re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", source)
    functions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    return [node.end_lineno - node.lineno + 1 for node in functions]


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS if "_train_" in path.stem])
def test_a_training_notebook_declares_every_key_there_is(name):
    declared = params.declared_parameters(name)
    assert list(declared["architecture"]) == list(inspect.signature(encoders.build).parameters)
    (stage,) = declared["phases"]
    assert stage["augmentation"].keys() == augment.OFF.keys()
    margin = {"margin", "margin_start_epoch", "margin_end_epoch", "margin_growth", "hard_margin_share"}
    assert stage.keys() - margin == small_training.PHASE.keys() - margin
    assert declared["engine"].keys() == small_training.ENGINE.keys()


def test_nothing_is_augmented_where_nothing_is_said():
    assert all(not value or isinstance(value, list) for value in augment.OFF.values()) and augment.OFF["gain"] == [0, 0]


def test_the_notebooks_of_the_pipeline_exist():
    names = {path.stem for path in NOTEBOOKS}
    trainings = {"03_train_softmax", "04_train_contrastive", "05_train_cosface", "06_train_adacos", "07_train_aam"}
    trainings |= {"07_train_sphereface2", "07_train_ge2e", "07_train_angular_prototypical"}
    assert names >= {*stages.FIRST, *trainings, *stages.LAST}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_params_file_resolves_and_begins_with_its_needs(profile, monkeypatch):
    monkeypatch.delenv("SV_PARAMS", raising=False)
    resolved = Profile.read(profile).parameters
    assert list(resolved) == [stage.name for stage in list(Profile.read(profile).stages)]
    head = (paths.REPO / "params" / f"{profile}.yaml").read_text()
    head = head[: re.search(r"(?m)^[^#]", head).start()]
    assert head.startswith(f"# {profile} ")
    assert all(f"# {word}:" in head for word in ("Needs", "Expected", "Run"))
    known = keys.stage_keys(Profile.read(profile))
    assert len(set(known.values())) == len(known) == len(resolved)


def test_the_quick_profile_names_the_four_losses():
    assert list(Profile.read("mini").models) == ["softmax", "contrastive", "cosface", "adacos"]


def prose_and_anchors(path: Path) -> tuple[str, set[str]]:
    """A text without its code, and what links may name in it: the headings in GitHub's spelling."""
    prose = re.sub(r"(?ms)^```.*?^```", "", path.read_text("utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    return prose, {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*READMES, paths.REPO / "CONTRIBUTING.md"], ids=lambda path: str(path.parent.name))
def test_links_lead_somewhere(path):
    prose, _ = prose_and_anchors(path)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        name, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        target = path.parent / unquote(name) if name else path
        assert target.exists(), link
        assert not anchor or anchor in prose_and_anchors(target)[1], link


def test_there_are_links_to_follow():
    for name in ("README.md", "CONTRIBUTING.md"):
        assert len(re.findall(r"\]\([^)\s]+\)", prose_and_anchors(paths.REPO / name)[0])) > 0, name


def test_the_front_page_is_short_and_every_folder_says_why_it_exists():
    assert (paths.REPO / "README.md").stat().st_size <= 9_000
    folders = {path.parent for path in (paths.REPO / "sv_utils").glob("*/__init__.py")}
    rooms = {path.parent for path in READMES}
    assert rooms >= {paths.REPO, paths.NOTEBOOKS, paths.REPO / "params", paths.REPO / "sv_utils", *folders}
    for folder in folders:
        words = (folder / "README.md").read_text("utf-8")
        assert words.startswith(f"# {folder.name}: ") and words.count("\n") <= 80, folder.name


def test_the_layers_in_the_readme_are_the_folders():
    text = (paths.REPO / "sv_utils/README.md").read_text("utf-8")
    named = set(re.findall(r"\]\((\w+)/README\.md\)", text))
    assert named == {path.parent.name for path in (paths.REPO / "sv_utils").glob("*/__init__.py")}


def test_the_ten_changes_touch_three_files_at_most_and_name_files_that_exist():
    text = (paths.REPO / "CONTRIBUTING.md").read_text("utf-8")
    table = text.split("| to add a | touch |")[1].split("\n\n")[0]
    changes = {name.strip(): touched for name, touched in re.findall(r"(?m)^\| ([a-z ]+) \| (.+) \|$", table)}
    assert changes.keys() == {
        *("loss", "backbone", "corpus", "metric", "augmentation", "score normalisation", "figure", "stage"),
        *("export format", "pretrained encoder"),
    }
    for change, touched in changes.items():
        files = [name for name in re.findall(r"`([^`]+)`", touched) if "/" in name or name == "pyproject.toml"]
        assert 1 <= len(files) <= 3, change
        for name in files:
            assert (paths.REPO / name).is_file(), f"{change}: there is no {name}"
        for name in re.findall(r"\(like `(\w+)`\)", touched):
            code = "".join((paths.REPO / file).read_text("utf-8") for file in files if file.endswith(".py"))
            assert f"def {name}(" in code, f"{change}: there is no {name} in {files}"


def public_functions(source: str) -> dict[str, ast.AST]:
    """Functions, classes and methods that others call: no leading underscore, none within a function."""

    def within(body: list[ast.stmt], owner: str) -> dict[str, ast.AST]:
        found: dict[str, ast.AST] = {}
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found[f"{owner}{node.name}"] = node
                if isinstance(node, ast.ClassDef):
                    found |= within(node.body, f"{node.name}.")
        return found

    return within(ast.parse(source).body, "")


INHERITED = {  # methods that say no more than those of the class that they come from: of Keras, torch and io
    *("call", "build", "get_config", "compute_output_shape", "compute_loss", "train_step", "forward"),
    *("readable", "seekable", "tell", "seek", "readinto", "close"),
}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(paths.REPO / "sv_utils")))
def test_every_public_function_is_documented(path):
    source = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(source)), path
    for name, node in public_functions(source).items():
        assert ast.get_docstring(node) or name.rpartition(".")[2] in INHERITED, f"{name} has no docstring"


def test_the_top_level_is_what_the_design_fixed():
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this copy is not under git")
    names = {Path(line).parts[0] for line in listed.stdout.splitlines()}
    fixed = {"notebooks", "sv_utils", "params", "tests", "environment.yml", "Makefile", "README.md"}
    further = {"pyproject.toml", "requirements.lock", "requirements-gpu.lock", "LICENSE"}
    further |= {"CITATION.cff", "CONTRIBUTING.md"}  # where hosting sites look for them
    assert {name for name in names if not name.startswith(".")} <= fixed | further


def test_faults_that_change_nothing_stand_once_where_they_say():
    for fault in yaml.safe_load((paths.REPO / "tests/equivalents.yaml").read_text("utf-8")):
        assert set(fault) == {"file", "old", "new", "why"} and fault["old"] != fault["new"]
        found = (paths.REPO / fault["file"]).read_text("utf-8").count(fault["old"])
        assert found == 1, f"{fault['file']} holds {found} times {fault['old']!r}: is the fault still one?"


def test_planted_faults_stand_once_where_they_say_and_their_tests_exist():
    faults = yaml.safe_load((paths.REPO / "tests/planted.yaml").read_text("utf-8"))
    assert len(faults) > 50
    for fault in faults:
        found = (paths.REPO / fault["file"]).read_text("utf-8").count(fault["old"])
        assert found == 1, f"{fault['file']} holds {found} times {fault['old']!r}: bring tests/planted.yaml up to date"
        assert fault["tests"], fault
        for test in fault["tests"]:
            file, _, name = test.partition("::")
            if name:
                assert f"def {name.partition('[')[0]}(" in (paths.REPO / file).read_text("utf-8"), test
            else:
                assert (paths.REPO / file).exists(), test
