"""
Strict, typed parameters: what a params file says, laid over what the notebooks declare.

A params file ``params/<profile>.yaml`` has the sections ``common`` (each key goes to every notebook that declares it),
``train`` (likewise, for training notebooks) and one for each stage. ``encoders`` names encoders that were trained
elsewhere, to be judged beside those of the training sections. Later sections override earlier ones. Dicts merge
deeply; a list replaces the default, but dicts in it are completed from the first one of the default. Names, defaults
and types are those of the notebook's cell tagged `parameters`, read as literals: nothing runs, no kernel starts.
"""

import ast
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sv_utils import paths
from sv_utils.errors import RequestError, nearest

FIRST = ("01_download", "02_prep")
LAST = ("08_evaluate", "09_report")
EXTRA = ("10_verify", "11_selection")  # runs in the profiles that have its section
ENCODERS = "encoders"
INJECTED = ("profile", "stage", "encoder")  # set by the run, not by a params file
TRAINING = re.compile(r"\d\d_train_(?P<model>[a-z0-9_]+(@[A-Za-z0-9_.-]+)?)")
MODEL = re.compile(r"[a-z0-9_]+(@[A-Za-z0-9_.-]+)?")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


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


def resolve(stage: str, profile: str) -> dict:
    """
    Give the complete parameters of one stage; the whole params file is checked on the way.

    Returns
    -------
    dict
        Every parameter that the notebook declares; `profile` and `stage`; `encoder` where the stage judges one of
        `encoders`.

    Raises
    ------
    RequestError
        For anything in the file that would not do what it says, naming the file, the key and the mend.
    """
    resolved = resolve_all(profile)
    if stage not in resolved:
        raise RequestError(f"{_show(_file(profile))}: the profile has no stage {stage!r}{nearest(stage, resolved)}")
    return resolved[stage]


def resolve_all(profile: str) -> dict[str, dict]:
    """Give the complete parameters of every stage of a profile, as `resolve` does for one."""
    sections, file, elsewhere = load(profile), _show(_file(profile)), encoders(profile)
    resolved, declared = {}, {"common": set(), "train": set()}
    for stage in stages(profile):
        defaults = declared_parameters(stage.notebook)
        shared = ("common", "train") if _is_training(stage.name) else ("common",)
        values = defaults
        for section in shared:
            declared[section] |= defaults.keys()
            content = {key: value for key, value in sections.get(section, {}).items() if key in defaults}
            values = overlay(defaults, values, content, f"{file}: {section}")
        own = stage.name if _is_training(stage.name) else stage.notebook
        values = overlay(defaults, values, sections[own], f"{file}: {own}")
        resolved[stage.name] = values | {"profile": profile, "stage": stage.name}
        if (model := stage.name.partition("@")[2]) in elsewhere and stage.notebook == LAST[0]:
            resolved[stage.name]["encoder"] = elsewhere[model]
        if initial := values.get("initial_model"):
            resolved[stage.name]["initial_model"] = _file_of_weights(initial, f"{file}: {own}.initial_model")
    for section, names in declared.items():
        for key in sections.get(section, {}):
            if key not in names:
                raise _unknown(f"{file}: {section}", key, names)
    return resolved


def declared_parameters(notebook: str) -> dict:
    """
    Read names and defaults from the cell tagged `parameters` of a notebook, without running it.

    Parameters
    ----------
    notebook : str
        Name of the file in ``notebooks/``, without ``.ipynb``.

    Raises
    ------
    RequestError
        If the notebook has no such cell, or the cell holds anything but ``name = literal`` lines and comments.
    """
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    try:
        cells = json.loads(path.read_text("utf-8"))["cells"]
    except FileNotFoundError:
        raise RequestError(f"{_show(path)} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{_show(path)} is not a notebook: {error}") from None
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise RequestError(f"{_show(path)} must have one cell tagged `parameters`, not {len(tagged)}")
    return _literals("".join(tagged[0]["source"]), f"{_show(path)}: parameters cell")


def _literals(source: str, where: str) -> dict:
    found: dict = {}
    try:
        for node in ast.parse(source).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not (isinstance(node, ast.Assign | ast.AnnAssign) and len(targets) == 1):
                raise ValueError(f"line {node.lineno} is no `name = value`")
            name = getattr(targets[0], "id", None)
            if name is None or name in found:
                raise ValueError(f"line {node.lineno} must set one new name")
            found[name] = _plain(ast.literal_eval(node.value), f"{where}: {name}")
    except (SyntaxError, ValueError, TypeError) as error:
        raise RequestError(f"{where} must hold `name = literal` lines only: {error}") from None
    return found


def overlay(defaults: dict, values: dict, content: dict, where: str) -> dict:
    """
    Lay `content` over `values`, both with the keys and types of `defaults`.

    Raises
    ------
    RequestError
        For a key or a type that `defaults` does not have, beginning with `where`.
    """
    values = dict(values)
    for key, value in content.items():
        if key not in defaults or key in INJECTED:
            raise _unknown(where, key, defaults)
        values[key] = _merge(defaults[key], values[key], _plain(value, f"{where}.{key}"), f"{where}.{key}")
    return values


def _merge(default: object, current: object, value: object, where: str) -> object:
    """Lay one `value` over the `current` one, held to the type of the `default`."""
    if isinstance(value, dict) and isinstance(current, dict) and isinstance(default, dict | None):
        return _nested(default or {}, current, value, where)
    if isinstance(value, list) and isinstance(default, list):
        items = [(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return [_merge(default[0], default[0], item, place) for item, place in items] if default else value
    if isinstance(default, float) and type(value) is int and abs(value) < 1e300:
        return float(value)
    if default is None or type(value) is type(default):
        return value
    raise RequestError(f"{where} {_mismatch(default, value)}")


def _nested(default: dict, current: dict, value: dict, where: str) -> dict:
    """Merge deeply; an empty default (`{}`) lets any key in."""
    merged = dict(current)
    for key, inner in value.items():
        if default and key not in default:
            raise _unknown(where, key, default)
        merged[key] = _merge(default.get(key), merged.get(key), inner, f"{where}.{key}")
    return merged


def _plain(value: object, where: str) -> object:
    """Let through what JSON and a notebook's cell can both hold; a tuple becomes a list."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RequestError(f"{where} has the key {key!r}, which is no text; put it in quotes")
        return {key: _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{where} is {value}; give a finite number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RequestError(f"{where} is of type {type(value).__name__}; put it in quotes")


def _mismatch(default: object, value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    kinds |= {list: "a list", dict: "`key: value` lines"}
    said = f"must be {kinds[type(default)]}, not {value!r}"
    if isinstance(value, str) and type(default) in (int, float) and NUMBER.fullmatch(value.strip()):
        return f"is text where a number belongs: write {_number(value)} instead of {value!r}"
    if isinstance(default, str) and isinstance(value, bool | int | float):
        return f"{said}: put it in quotes"
    if isinstance(default, list) and isinstance(value, str | int | float):
        return f"{said}: write [{value}]"
    return said


def _number(text: str) -> str:
    """Write a number so that YAML reads a number: a point in the mantissa, a sign in the exponent."""
    mantissa, _, exponent = text.strip().lower().partition("e")
    if not exponent:
        return mantissa
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{int(exponent):+d}"


def _unknown(where: str, key: object, known: Iterable[str]) -> RequestError:
    if key in INJECTED:
        return RequestError(f"{where}.{key} is set by the run itself; remove it")
    return RequestError(f"{where}.{key} is unknown{nearest(key, set(known) - set(INJECTED))}")


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
