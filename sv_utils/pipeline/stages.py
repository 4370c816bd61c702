"""What a stage is: a step of the pipeline, and the notebook that it runs. The notebooks folder says which there are."""

import re
from dataclasses import dataclass

from sv_utils.base import paths

FIRST = ("01_download", "02_prep")
LAST = ("08_evaluate", "09_report")
EXTRA = ("10_verify", "11_selection")  # runs in the profiles that have its section
TRAINING = re.compile(r"\d\d_train_(?P<model>[a-z0-9_]+(@[A-Za-z0-9_.-]+)?)")


@dataclass(frozen=True)
class Stage:
    """One step of a profile: the notebook that it runs, and the stages whose results it reads."""

    name: str
    notebook: str
    upstream: tuple[str, ...]


def is_training(section: str) -> bool:
    """Whether a section or stage is that of a training."""
    return TRAINING.fullmatch(section) is not None


def training_notebooks() -> list[str]:
    """Name the notebooks that train, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb") if is_training(path.stem))
