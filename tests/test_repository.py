"""What holds the house together: pins, layers, notebooks, links. `make check` runs this file beside the linters."""

import ast
import graphlib
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


def modules() -> dict[str, set[str]]:
    """Give for each module of the package everything that it imports, as full names."""
    found = {}
    for file in sorted((paths.REPO / "sv_utils").rglob("*.py")):
        parts = file.relative_to(paths.REPO).with_suffix("").parts
        package = parts[:-1]
        name = ".".join(package if file.stem == "__init__" else parts)
        found[name] = set(keys.imports(file.read_text("utf-8"), name, ".".join(package)))
    return found


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
    for name, used in modules().items():
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
            assert all(version in wanted.specifier for version in known[wanted.name.lower()]), line


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
    margin = {"margin", "margin_start_epoch", "margin_end_epoch", "margin_growth"}
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


def test_links_of_the_readme_lead_somewhere():
    text = (paths.REPO / "README.md").read_text("utf-8")
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        assert (paths.REPO / unquote(target)).exists(), link
        assert target or anchor in anchors, link


def test_the_top_level_is_what_the_design_fixed():
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this copy is not under git")
    names = {Path(line).parts[0] for line in listed.stdout.splitlines()}
    fixed = {"notebooks", "sv_utils", "params", "tests", "environment.yml", "Makefile", "README.md"}
    further = {"pyproject.toml", "requirements.lock", "requirements-gpu.lock", "LICENSE"}
    assert {name for name in names if not name.startswith(".")} <= fixed | further
