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

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.pipeline.stages import LAST, _file, _file_of_weights, _is_training, _show, encoders, load, stages

INJECTED = ("profile", "stage", "encoder")  # set by the run, not by a params file
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


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
