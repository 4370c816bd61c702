"""Where everything lies. No other module builds a path of the repository or of `outputs/`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = REPO / "notebooks"


def outputs() -> Path:
    """Folder of everything made: ``$SV_OUTPUTS`` or ``outputs/`` of the repository."""
    return Path(os.environ.get("SV_OUTPUTS") or REPO / "outputs").resolve()


def params_dir() -> Path:
    """Folder of the params files: ``$SV_PARAMS`` or ``params/`` of the repository."""
    return Path(os.environ.get("SV_PARAMS") or REPO / "params").resolve()


def expected_file(profile: str) -> Path:
    """Where the figures and curves to expect of a profile lie; what they come from has the suffix ``.json``."""
    return params_dir() / "expected" / f"{profile}.csv"


def profile_dir(profile: str) -> Path:
    """Folder of one params file's results."""
    return outputs() / profile


def stage_dir(profile: str, stage: str) -> Path:
    """Folder of what one stage made: the executed notebook, ``run.json`` and its artefacts."""
    return profile_dir(profile) / stage


def embeddings_dir(profile: str, model: str) -> Path:
    """Folder of a model's embeddings, which outlive the evaluation that made them: see `models.pieces`."""
    return profile_dir(profile) / "embeddings" / model


def corpus_dir(corpus: str) -> Path:
    """Folder of a corpus's archives and stores, which profiles share."""
    return outputs() / "corpora" / corpus


@contextlib.contextmanager
def replace_on_success(path: str | os.PathLike) -> Iterator[Path]:
    """
    Write a file so that its name never holds a part of it.

    Yields
    ------
    Path
        A temporary name in the same folder (same suffix), moved to `path` when the block ends well, removed when not.

    Examples
    --------
    >>> with replace_on_success("results.csv") as temporary:
    ...     _ = temporary.write_text("model,eer")
    >>> Path("results.csv").read_text()
    'model,eer'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
