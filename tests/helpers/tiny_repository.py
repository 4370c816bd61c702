"""This repository in miniature: the real Makefile, runner and parameters; notebooks that do next to nothing."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

REAL = Path(__file__).resolve().parents[2]
MACHINERY = ("__init__.py", "run.py", "base", "pipeline", "reports/__init__.py", "reports/pages.py")
SHARED = "architecture: {backbone: resnet18}\n"
PARAMS = """\
common:
  seed: 7
train:
  epochs: 2
01_download:
02_prep: {}
03_train_softmax: {}
04_train_contrastive:
  margin: 0.3
08_evaluate: {}
09_report: {}
"""
TABLES = """\
import sys
import pandas as pd
from sv_utils.base import paths


def read_results(profile):
    return pd.read_csv(paths.profile_dir(profile) / "results.csv")


def summary(results):
    return results


def over_seeds(results):
    return pd.DataFrame({"model": ["mean over seeds"]})


def session_note(profile):
    return ""
"""
REPORT = """\
import sys
from sv_utils.base import paths
from sv_utils.reports import tables

if __name__ == "__main__":
    print((paths.profile_dir(sys.argv[1]) / "results.csv").read_text())
"""
TRAINING = """\
from ..losses import shared
from sv_utils.models import backbones


def train():
    from sv_utils.training import batches

    return batches.SIZE + shared.ONE
"""
BY_NAME = """\
import importlib


def get(name):
    return importlib.import_module(f"{__name__}.{name}")
"""
MODULES = {
    "report": REPORT,
    "reports/tables": TABLES,
    "reports/figures": "STYLE = 'thin'\n",
    "training/__init__": "",
    "training/loop": TRAINING,
    "training/batches": "SIZE = 4\n",
    "losses/__init__": BY_NAME,
    "losses/shared": "ONE = 1\n",
    "losses/softmax": "def loss():\n    return 0.1\n",
    "losses/contrastive": "def loss():\n    return 0.2\n",
    "models/__init__": "",
    "models/backbones/__init__": BY_NAME,
    "models/backbones/resnet": "DEPTH = 18\n",
    "models/backbones/ecapa": "WIDTH = 512\n",
    "corpora/__init__": BY_NAME,
    "speech/__init__": "",
    "speech/acquisition": "def sources_digest(corpus, source=None):\n    return getattr(corpus, 'TREE', '')\n",
    "corpora/mini": "MD5 = 'a'\n",
    "corpora/ocean": "MD5 = 'b'\n",
}
TRAIN = """\
import os, pathlib, time
from sv_utils.base import errors, paths
from sv_utils.reports import figures
from sv_utils.training import loop
folder = paths.stage_dir(profile, stage)
turns = paths.outputs() / "turns.txt"
with turns.open("a") as file:
    file.write(f"enter {stage}\\n")
resumed = (folder / "checkpoint").exists()
(folder / "checkpoint").write_text(str(os.getpid()))
while (folder / "../hold").exists():
    time.sleep(0.05)
if fail:
    raise {"request": errors.RequestError, "work": errors.WorkError, "bug": KeyError}[fail]("the cause")
(folder / "model.txt").write_text(f"{loop.train()} {seed} {epochs} {resumed}")
with turns.open("a") as file:
    file.write(f"leave {stage}\\n")
"""
NOTEBOOKS = {
    "01_download": (
        "corpora = ['mini']\n",
        "from sv_utils import corpora as catalogue\nfrom sv_utils.base import paths\n"
        "from sv_utils.pipeline import records\n"
        "print(profile, stage, corpora)\nfor name in corpora:\n    made = catalogue.get(name).MD5\n"
        "records.hand_on(paths.stage_dir(profile, stage), {'archive': made.lower()})\n",
    ),
    "02_prep": (
        "seed = 1\nworkers = 2\n",
        "from sv_utils.base import paths\nfrom sv_utils.pipeline import records\n"
        "from sv_utils.reports import figures\n"
        "from sv_utils.training import batches\nassert seed == 7\n"
        "records.hand_on(paths.stage_dir(profile, stage), {'store': str(abs(batches.SIZE))})\n",
    ),
    "03_train_softmax": (
        "seed = 1  # any whole number\nepochs: int = 1\nfail = ''\nlearning_rate = 0.1\n",
        "from sv_utils.losses import softmax\n" + TRAIN,
    ),
    "04_train_contrastive": (
        "seed = 1\nepochs = 1\nfail = ''\nmargin = 0.5\n",
        "%matplotlib inline\nimport sv_utils.losses.contrastive as contrastive\n" + TRAIN,
    ),
    "08_evaluate": (
        "trials = 10\n",
        "import json\nfrom sv_utils.base import paths\nmodel = stage.partition('@')[2]\n"
        "(paths.stage_dir(profile, stage) / 'data.json').write_text(json.dumps({'model': model}))\n",
    ),
    "09_report": (
        "title = 'Report'\n",
        "from sv_utils.base import paths\nfrom sv_utils.reports import figures, tables\n"
        "(paths.profile_dir(profile) / 'results.csv').write_text('model,eer')\n",
    ),
}


def write_notebook(path: Path, parameters: str, code: str) -> None:
    """Write a notebook with a title, a cell tagged `parameters`, and one cell of code."""
    cells = [new_markdown_cell("# Title"), new_code_cell(parameters), new_code_cell(code)]
    cells[1].metadata.tags = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def build(folder: Path) -> Path:
    """Make the repository in `folder`, with the profile `mini`."""
    for name in ("sv_utils/reports", "notebooks", "params/shared"):
        (folder / name).mkdir(parents=True)
    shutil.copy(REAL / "Makefile", folder)
    for name in MACHINERY:
        copy = shutil.copytree if (REAL / "sv_utils" / name).is_dir() else shutil.copy
        copy(REAL / "sv_utils" / name, folder / "sv_utils" / name)
    for name, source in MODULES.items():
        file = folder / "sv_utils" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    (folder / "params/shared/training.yaml").write_text(SHARED)
    for name, (parameters, code) in NOTEBOOKS.items():
        write_notebook(folder / "notebooks" / f"{name}.ipynb", parameters, code)
    (folder / "params/mini.yaml").write_text(PARAMS)
    return folder


def replace(file: Path, old: str, new: str) -> None:
    """Replace one text in a file; the text must be there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def environment() -> dict[str, str]:
    """The environment without what would lead a command out of its repository."""
    drop = {"SV_OUTPUTS", "SV_PARAMS", "SV_MIRROR", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PROFILE", "PY"}
    return {name: value for name, value in os.environ.items() if name not in drop}


def make(folder: Path, *words: str, **more) -> subprocess.CompletedProcess:
    """Run make with this interpreter instead of a new environment."""
    line = ["make", f"PY={sys.executable}", *words]
    return subprocess.run(line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, **more)


def run(folder: Path, *words: str) -> subprocess.Popen:
    """Start ``python -m sv_utils.run``."""
    line = [sys.executable, "-m", "sv_utils.run", *words]
    return subprocess.Popen(
        line, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def started(output: str) -> list[str]:
    """Name the stages that ran, by what the runs printed."""
    return sorted(re.findall(r"(?m)^(\S+): starts", output))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; five minutes without it are a failure of the run, not of its speed."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
