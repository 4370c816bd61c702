"""
All stages of a profile on a miniature, one after another in this process.

``python rehearsed.py PROFILE SPEAKERS FOLDER`` runs what `sv_utils.forecast` runs to rehearse a profile, its own
parameters and notebooks through `sv_utils.run`; but with a narrow encoder, and without a kernel for each notebook,
whose starting takes longer than the work.
"""

import os
import sys
import time
from pathlib import Path
from unittest import mock

import IPython.display
import nbformat

from sv_utils import corpora, run
from sv_utils.base import paths
from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import is_training
from sv_utils.speech import miniature

NARROW = {"backbone": "resnet18", "width": 4, "embedding_dim": 16}


def narrow(profile: Profile, cores: int) -> dict[str, dict]:
    """The sections of a rehearsal, with an encoder of few layers and channels."""
    sections = rehearsal.small(profile, cores)
    for own in (sections[name] for name in sections if is_training(name)):
        own["architecture"] |= NARROW
    return sections


def execute(parameters: dict) -> None:
    """What a kernel would do: the notebook's cells, with the parameters after the first."""
    stage = parameters["stage"]
    notebook = nbformat.read(paths.NOTEBOOKS / f"{stage.split('@')[0]}.ipynb", 4)
    first, *cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    names: dict = {"__name__": "__main__"}
    exec(first, names)
    names |= parameters
    for source in cells:
        exec(source, names)
    nbformat.write(notebook, paths.stage_dir(parameters["profile"], stage) / f"{stage}.ipynb")


def measured(stage: str, command: list[str], environment: dict) -> rehearsal.Rehearsed:
    """What `rehearsal.measured` gives, of a stage that runs here."""
    started = time.perf_counter()
    with mock.patch.dict(os.environ, environment):
        status = run.main(command[command.index("sv_utils.run") + 1 :])
    return rehearsal.Rehearsed(stage, status == 0, time.perf_counter() - started)


def main(name: str, speakers: str, folder: str) -> int:
    """Rehearse; 0 where all stages passed."""
    here, profile = Path(folder), Profile.read(name)
    for corpus in map(corpora.get, profile.parameters["01_download"]["corpora"]):
        miniature.make(corpus, here / "corpora", int(speakers))
    environment = {"SV_MIRROR": str(here / "corpora"), "SV_REHEARSAL": str(here / "corpora")}
    with (
        mock.patch.object(rehearsal, "measured", measured),
        mock.patch.object(run, "_execute", execute),
        mock.patch.object(IPython.display, "display", lambda *_: None),
    ):
        went = list(rehearsal.run(profile, here, environment, 1, narrow(profile, 1)))
    print(*(f"{done.stage} {done.passed} {done.seconds:.1f}" for done in went), sep="\n")
    return 0 if all(done.passed for done in went) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
