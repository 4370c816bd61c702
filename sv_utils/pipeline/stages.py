"""What a params file asks for: its sections, models, encoders and stages."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest

FIRST = ("01_download", "02_prep")
LAST = ("08_evaluate", "09_report")
EXTRA = ("10_verify", "11_selection")  # runs in the profiles that have its section
ENCODERS = "encoders"
TRAINING = re.compile(r"\d\d_train_(?P<model>[a-z0-9_]+(@[A-Za-z0-9_.-]+)?)")
MODEL = re.compile(r"[a-z0-9_]+(@[A-Za-z0-9_.-]+)?")


@dataclass(frozen=True)
class Stage:
    """One step of a profile: the notebook that it runs, and the stages whose results it reads."""

    name: str
    notebook: str
    upstream: tuple[str, ...]


def load(profile: str) -> dict[str, dict]:
    """
    Read a params file and check its sections.

    Parameters
    ----------
    profile : str
        Name of the file in ``params/`` (or in ``$SV_PARAMS``), without ``.yaml``.

    Returns
    -------
    dict
        Section name to its keys; an empty section is an empty dict.

    Raises
    ------
    RequestError
        If there is no such file, it is not YAML, a key stands twice, or a section is unknown, missing or no mapping.
    """
    file = _file(profile)
    sections = _read_yaml(file)
    known = ["common", "train", ENCODERS, *FIRST, *LAST, *EXTRA, *_training_notebooks()]
    for section, content in sections.items():
        if section not in known and not (_is_training(section) and section.split("@")[0] in known):
            raise RequestError(f"{_show(file)}: section {section!r} is unknown{nearest(section, known)}")
        if content is not None and not isinstance(content, dict):
            raise RequestError(f"{_show(file)}: section {section} must hold `key: value` lines, not {content!r}")
    for section in (*FIRST, *LAST):
        if section not in sections:
            raise RequestError(f"{_show(file)}: section {section} is missing; add `{section}: {{}}` for its defaults")
    if not any(map(_is_training, sections)) and not sections.get(ENCODERS):
        raise RequestError(
            f"{_show(file)}: a training section is missing; add one or more of {', '.join(_training_notebooks())}"
        )
    return {section: content or {} for section, content in sections.items()}


def models(profile: str) -> dict[str, str]:
    """
    Name the models of a profile.

    Returns
    -------
    dict
        Model name to its training stage, in the order of the stages; then the encoders that were trained elsewhere,
        whose training stage is ''.

    Examples
    --------
    >>> models("mini")  # doctest: +SKIP
    {'softmax': '03_train_softmax', 'contrastive': '04_train_contrastive', ...}
    """
    found: dict[str, str] = {}
    for section in sorted(filter(_is_training, load(profile))):
        model = TRAINING.fullmatch(section)["model"]
        if model in found:
            raise RequestError(
                f"{_show(_file(profile))}: sections {found[model]} and {section} both train a model called {model}; "
                f"write {section}@another_name"
            )
        found[model] = section
    for model in encoders(profile):
        if model in found:
            raise RequestError(
                f"{_show(_file(profile))}: {ENCODERS} and {found[model]} both have a model called {model}; "
                f"write {model}@another_name in {ENCODERS}"
            )
        found[model] = ""
    return found


def encoders(profile: str) -> dict[str, str]:
    """
    Name the encoders of a profile that were trained elsewhere.

    Returns
    -------
    dict
        Name to what `pretrained.load` takes: the name of a published encoder, or the absolute path of a file (in the
        params file it may be relative to the repository).

    Raises
    ------
    RequestError
        If a name or a source is none, or there is no such file.
    """
    found, where = {}, f"{_show(_file(profile))}: {ENCODERS}"
    for model, source in load(profile).get(ENCODERS, {}).items():
        if not isinstance(model, str) or not MODEL.fullmatch(model):
            raise RequestError(f"{where}: {model!r} is no name of a model; use small letters, digits and _")
        if not isinstance(source, str) or not source:
            raise RequestError(f"{where}.{model} must be the name of an encoder or a file, not {source!r}")
        source = _file_of_weights(source, f"{where}.{model}")
        found[model] = source
    return found


def _file_of_weights(source: str, where: str) -> str:
    """Make the path of a file absolute (it may be relative to the repository); names and addresses stay as they are."""
    if "://" in source or not ("/" in source or "." in source):  # published encoders have plain names
        return source
    file = paths.REPO / source
    if not file.is_file():
        raise RequestError(f"{where}: there is no file {file}; correct the path")
    return str(file)


def stages(profile: str) -> list[Stage]:
    """
    List the stages of a profile in an order in which they can run.

    Returns
    -------
    list of Stage
        Download, preparation, each training, the evaluation of each model, the report, and what else has a section.
    """
    judged = models(profile)
    trained = [stage for stage in judged.values() if stage]
    evaluations = [
        Stage(f"{LAST[0]}@{model}", LAST[0], (FIRST[1], stage) if stage else FIRST[1:])
        for model, stage in judged.items()
    ]
    return [
        Stage(FIRST[0], FIRST[0], ()),
        Stage(FIRST[1], FIRST[1], FIRST[:1]),
        *(Stage(stage, stage.split("@")[0], FIRST[1:]) for stage in trained),
        *evaluations,
        Stage(LAST[1], LAST[1], tuple(evaluation.name for evaluation in evaluations)),
        *(Stage(name, name, LAST[1:]) for name in EXTRA if name in load(profile)),
    ]


class _Loader(yaml.SafeLoader):
    """Builds plain values only; refuses what could silently lose a value or grow without end."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not read; put shared keys into common or train")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {key.value!r} stands twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict:
    try:
        sections = yaml.load(file.read_text("utf-8"), _Loader)  # a SafeLoader
    except Exception as error:  # besides YAMLError, PyYAML lets the errors of int(), datetime() and its tables through
        raise RequestError(f"{_show(file)} is not readable as YAML: {error}") from None
    if not isinstance(sections, dict) or not all(isinstance(section, str) for section in sections):
        raise RequestError(f"{_show(file)} must hold sections (common, train, {FIRST[0]}, ...) of `key: value` lines")
    return sections


def _file(profile: str) -> Path:
    folder = paths.params_dir()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if profile not in known:
        raise RequestError(f"there is no {_show(folder)}/{profile}.yaml{nearest(profile, known)}")
    return folder / f"{profile}.yaml"


def _show(path: Path) -> str:
    """Write a path as seen from the repository, where it lies in it."""
    return str(path.relative_to(paths.REPO) if path.is_relative_to(paths.REPO) else path)


def _training_notebooks() -> list[str]:
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb") if _is_training(path.stem))


def _is_training(section: object) -> bool:
    return isinstance(section, str) and TRAINING.fullmatch(section) is not None
