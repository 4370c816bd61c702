"""
Strict, typed parameters: names, defaults and types are declared in a notebook's cell tagged `parameters`.

The cell is read as literals: nothing runs, no kernel starts. What all trainings share (architecture, phases,
augmentation, engine) is declared once, in ``params/shared/training.yaml``; the cell of a training holds what is its
own, laid over that. Dicts merge deeply; a list replaces the default, but dicts in it are completed from the first one
of the default.
"""

import ast
import functools
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.pipeline.stages import is_training

INJECTED = ("profile", "stage", "encoder")  # set by the run, not by a params file
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
RENAMED = {"stages": "phases"}  # keys of older params files


def shared_parameters() -> dict:
    """
    Read what all trainings share: ``params/shared/training.yaml``.

    Returns
    -------
    dict
        ``architecture, phases`` (a list of one), ``engine``: the defaults, which also say the types.
    """
    file = paths.REPO / "params/shared/training.yaml"
    return _shared(file, file.stat().st_mtime_ns) if file.exists() else {}


@functools.lru_cache(maxsize=4)
def _shared(file: Path, _changed: int) -> dict:
    return read_yaml(file)


def complete(**own: object) -> list:
    """
    Complete what the cell of a training notebook declares by what all trainings share.

    A run hands complete parameters to the notebook, which this leaves as they are; in JupyterLab it makes them so.

    Parameters
    ----------
    **own
        Values by their names in ``params/shared/training.yaml``.

    Returns
    -------
    list
        The values, complete, in the order given.

    Examples
    --------
    >>> (engine,) = complete(engine={"validate_steps": 10})
    >>> engine["precision"], engine["validate_steps"]
    ('float32', 10)
    """
    shared = shared_parameters()
    return [_united(shared[name], value) for name, value in own.items()]


def _united(shared: object, own: object) -> object:
    """Lay what a notebook declares over what is shared; it may declare further keys."""
    if isinstance(shared, dict) and isinstance(own, dict):
        return shared | {key: _united(shared.get(key), value) for key, value in own.items()}
    if isinstance(shared, list) and isinstance(own, list) and shared:
        return [_united(shared[0], item) for item in own]
    return own


def declared_parameters(notebook: str) -> dict:
    """
    Read names and defaults from the cell tagged `parameters` of a notebook, without running it.

    Those of a training notebook are completed by `shared_parameters`.

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
        raise RequestError(f"{show(path)} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{show(path)} is not a notebook: {error}") from None
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise RequestError(f"{show(path)} must have one cell tagged `parameters`, not {len(tagged)}")
    own = _literals("".join(tagged[0]["source"]), f"{show(path)}: parameters cell")
    if not is_training(notebook):
        return own
    shared = shared_parameters()
    return shared | {name: _united(shared.get(name), value) for name, value in own.items()}


def _literals(source: str, where: str) -> dict:
    found: dict = {}
    try:
        for node in ast.parse(source).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None or len(targets) != 1:
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
            raise unknown(where, key, defaults)
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
            raise unknown(where, key, default)
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


def unknown(where: str, key: str, known: Iterable[str]) -> RequestError:
    """Give the error that tells of a key that is not declared, and of the nearest that is."""
    if key in INJECTED:
        return RequestError(f"{where}.{key} is set by the run itself; remove it")
    if key in RENAMED and RENAMED[key] in set(known):
        return RequestError(f"{where}.{key} is called {RENAMED[key]} now; rename it")
    return RequestError(f"{where}.{key} is unknown{nearest(key, set(known) - set(INJECTED))}")


class _Loader(yaml.SafeLoader):
    """Builds plain values only; refuses what could silently lose a value or grow without end."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not read; put shared keys into common or train")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {key.value!r} stands twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> dict:
    """
    Read a YAML file of sections.

    Raises
    ------
    RequestError
        If it is not YAML, a key stands twice, it holds aliases, or no sections.
    """
    try:
        sections = yaml.load(file.read_text("utf-8"), _Loader)  # a SafeLoader
    except Exception as error:  # besides YAMLError, PyYAML lets the errors of int(), datetime() and its tables through
        raise RequestError(f"{show(file)} is not readable as YAML: {error}") from None
    if not isinstance(sections, dict) or not all(isinstance(section, str) for section in sections):
        raise RequestError(f"{show(file)} must hold sections (common, train, 01_download, ...) of `key: value` lines")
    return sections


def show(path: Path) -> str:
    """Write a path as seen from the repository, where it lies in it."""
    return str(path.relative_to(paths.REPO) if path.is_relative_to(paths.REPO) else path)
