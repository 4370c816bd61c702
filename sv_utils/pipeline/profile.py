"""
A profile: what one params file asks for, read and resolved once a run, and handed on.

A params file ``params/<profile>.yaml`` has the sections ``common`` (each key goes to every notebook that declares it),
``train`` (likewise, for training notebooks) and one for each stage. ``encoders`` names encoders that were trained
elsewhere, to be judged beside those of the training sections. Later sections override earlier ones.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.pipeline import params
from sv_utils.pipeline.stages import EXTRA, FIRST, LAST, Stage, is_training, training_notebooks

ENCODERS = "encoders"
MODEL = re.compile(r"[a-z0-9_]+(@[A-Za-z0-9_.-]+)?")
NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Profile:
    """
    A params file, checked and resolved.

    Attributes
    ----------
    name : str
    file : Path
    models : dict
        Model name to its training stage, in the order of the stages; then the encoders that were trained elsewhere,
        whose training stage is ''.
    encoders : dict
        Name to what `pretrained.load` takes: the name of a published encoder, or the absolute path of a file (in the
        params file it may be relative to the repository).
    stages : tuple of Stage
        In an order in which they can run: download, preparation, each training, the evaluation of each model, the
        report, and what else has a section.
    parameters : dict
        Stage name to its complete parameters: all that the notebook declares; ``profile`` and ``stage``; ``encoder``
        where the stage judges one of `encoders`.
    """

    name: str
    file: Path
    models: dict[str, str]
    encoders: dict[str, str]
    stages: tuple[Stage, ...]
    parameters: dict[str, dict]

    @classmethod
    def read(cls, name: str) -> "Profile":
        """
        Read ``params/<name>.yaml`` (or that of ``$SV_PARAMS``).

        Raises
        ------
        RequestError
            For anything in the file that would not do what it says, naming the file, the key and the mend.

        Examples
        --------
        >>> Profile.read("mini").models["softmax"]
        '03_train_softmax'
        """
        file = _file(name)
        sections = _sections(file)
        encoders = _encoders(file, sections.get(ENCODERS, {}))
        models = _models(file, sections, encoders)
        stages = _stages(models, sections)
        return cls(name, file, models, encoders, stages, _resolved(name, file, sections, stages, encoders))

    def of(self, stage: str) -> dict:
        """
        Give the complete parameters of one stage.

        Raises
        ------
        RequestError
            If the profile has no such stage.
        """
        if stage not in self.parameters:
            known = nearest(stage, self.parameters)
            raise RequestError(f"{params.show(self.file)}: the profile has no stage {stage!r}{known}")
        return self.parameters[stage]


def _file(profile: str) -> Path:
    folder = paths.params_dir()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if profile not in known:
        raise RequestError(f"there is no {params.show(folder)}/{profile}.yaml{nearest(profile, known)}")
    if not NAME.fullmatch(profile):  # make and the shell see it
        raise RequestError(f"{folder / profile}.yaml: a profile's name holds letters, digits and _ . - only; rename it")
    return folder / f"{profile}.yaml"


def _sections(file: Path) -> dict[str, dict]:
    """Section name to its keys; an empty section is an empty dict."""
    sections, where = params.read_yaml(file), params.show(file)
    known = ["common", "train", ENCODERS, *FIRST, *LAST, *EXTRA, *training_notebooks()]
    for section, content in sections.items():
        if section not in known and not (is_training(section) and section.split("@")[0] in known):
            raise RequestError(f"{where}: section {section!r} is unknown{nearest(section, known)}")
        if content is not None and not isinstance(content, dict):
            raise RequestError(f"{where}: section {section} must hold `key: value` lines, not {content!r}")
    for section in (*FIRST, *LAST):
        if section not in sections:
            raise RequestError(f"{where}: section {section} is missing; add `{section}: {{}}` for its defaults")
    if not any(map(is_training, sections)) and not sections.get(ENCODERS):
        trainings = ", ".join(training_notebooks())
        raise RequestError(f"{where}: a training section is missing; add one or more of {trainings}")
    return {section: content or {} for section, content in sections.items()}


def _encoders(file: Path, named: dict) -> dict[str, str]:
    found, where = {}, f"{params.show(file)}: {ENCODERS}"
    for model, source in named.items():
        if not isinstance(model, str) or not MODEL.fullmatch(model):
            raise RequestError(f"{where}: {model!r} is no name of a model; use small letters, digits and _")
        if not isinstance(source, str) or not source:
            raise RequestError(f"{where}.{model} must be the name of an encoder or a file, not {source!r}")
        found[model] = _file_of_weights(source, f"{where}.{model}")
    return found


def _models(file: Path, sections: dict, encoders: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for section in sorted(filter(is_training, sections)):
        model = section.partition("_train_")[2]
        if model in found:
            raise RequestError(
                f"{params.show(file)}: sections {found[model]} and {section} both train a model called {model}; "
                f"write {section}@another_name"
            )
        found[model] = section
    for model in encoders:
        if model in found:
            raise RequestError(
                f"{params.show(file)}: {ENCODERS} and {found[model]} both have a model called {model}; "
                f"write {model}@another_name in {ENCODERS}"
            )
        found[model] = ""
    return found


def _stages(models: dict[str, str], sections: dict) -> tuple[Stage, ...]:
    trainings = filter(None, models.values())
    evaluations = [
        Stage(f"{LAST[0]}@{model}", LAST[0], (FIRST[1], stage) if stage else FIRST[1:])
        for model, stage in models.items()
    ]
    return (
        Stage(FIRST[0], FIRST[0], ()),
        Stage(FIRST[1], FIRST[1], FIRST[:1]),
        *(Stage(stage, stage.split("@")[0], FIRST[1:]) for stage in trainings),
        *evaluations,
        Stage(LAST[1], LAST[1], tuple(evaluation.name for evaluation in evaluations)),
        *(Stage(name, name, LAST[1:]) for name in EXTRA if name in sections),
    )


def _resolved(profile: str, file: Path, sections: dict, stages: tuple[Stage, ...], encoders: dict) -> dict[str, dict]:
    """Complete parameters of every stage."""
    resolved: dict[str, dict] = {}
    declared: dict[str, set[str]] = {"common": set(), "train": set()}
    defaults_of = {stage.notebook: params.declared_parameters(stage.notebook) for stage in stages}
    for stage in stages:
        defaults = defaults_of[stage.notebook]
        shared = ("common", "train") if is_training(stage.name) else ("common",)
        for section in shared:
            declared[section] |= defaults.keys()
        resolved[stage.name] = _values(profile, params.show(file), sections, stage, defaults, shared)
        if (model := stage.name.partition("@")[2]) in encoders and stage.notebook == LAST[0]:
            resolved[stage.name]["encoder"] = encoders[model]
    for section, names in declared.items():
        for key in sections.get(section, {}):
            if key not in names:
                raise params.unknown(f"{params.show(file)}: {section}", key, names)
    return resolved


def _values(profile: str, where: str, sections: dict, stage: Stage, defaults: dict, shared: tuple[str, ...]) -> dict:
    """Complete parameters of one stage: its section over the shared ones over the notebook's defaults."""
    values = defaults
    for section in shared:
        content = {key: value for key, value in sections.get(section, {}).items() if key in defaults}
        values = params.overlay(defaults, values, content, f"{where}: {section}")
    own = stage.name if is_training(stage.name) else stage.notebook
    values = params.overlay(defaults, values, sections[own], f"{where}: {own}")
    if initial := values.get("initial_model"):
        values["initial_model"] = _file_of_weights(initial, f"{where}: {own}.initial_model")
    return values | {"profile": profile, "stage": stage.name}


def _file_of_weights(source: str, where: str) -> str:
    """Make the path of a file absolute (it may be relative to the repository); names and addresses stay as they are."""
    if "://" in source or not ("/" in source or "." in source):  # published encoders have plain names
        return source
    file = paths.REPO / source
    if not file.is_file():
        raise RequestError(f"{where}: there is no file {file}; correct the path")
    return str(file)
