"""What a stage was made from: its content key."""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.pipeline import params, stages

# How a run is told, placed and recorded changes no number.
MACHINERY = {"sv_utils.errors", "sv_utils.params", "sv_utils.paths", "sv_utils.progress"}
MACHINERY |= {"sv_utils.provenance", "sv_utils.run"}
# Parameters that say how the work is done, and change nothing of what comes out.
WAYS = {"workers", "scheduler", "connections", "remove_archives"}
# A redrawn figure must not cost days of training: only the report is made again.
READING = {"sv_utils.plots", "sv_utils.report", "sv_utils.curves"}


def stage_keys(profile: str) -> dict[str, str]:
    """
    Give the content key of each stage: equal keys, equal work.

    Returns
    -------
    dict
        Stage name to the sha256 [hex] over the notebook's code cells, the resolved parameters (not those of `WAYS`),
        the source of the modules that it uses, the keys of the stages before it, and the content of a file of weights
        that it judges or starts from. Times, outputs, and text cells do not count.
    """
    resolved, keys = params.resolve_all(profile), {}
    for stage in stages.stages(profile):
        cells = code_cells(paths.NOTEBOOKS / f"{stage.notebook}.ipynb")
        counted = {name: value for name, value in resolved[stage.name].items() if name not in WAYS}
        files = [counted[name] for name in ("encoder", "initial_model") if name in counted]
        upstream = [keys[name] for name in stage.upstream] + _digests(files)
        left_out = MACHINERY if stage.notebook == stages.LAST[-1] else MACHINERY | READING
        modules = used_modules(cells, resolved[stage.name].get("corpora", ()), left_out)
        keys[stage.name] = content_key(cells, counted, modules, upstream)
    return keys


def _digests(files: Iterable[str]) -> list[str]:
    """Checksums of the contents [hex] of those names that are files."""
    found = []
    for file in filter(os.path.isfile, files):
        with open(file, "rb") as content:
            found.append(hashlib.file_digest(content, "sha256").hexdigest())
    return found


def content_key(cells: list[str], parameters: dict, modules: dict[str, str], upstream: Iterable[str]) -> str:
    """Hash what a stage is made from; the arguments are as in `stage_keys`."""
    text = json.dumps([cells, parameters, modules, sorted(upstream)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def code_cells(notebook: Path) -> list[str]:
    """Read the sources of the code cells of a notebook."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def used_modules(cells: Iterable[str], corpora: Iterable[str] = (), left_out: Iterable[str] = ()) -> dict[str, str]:
    """
    Collect the modules of this package that code cells import, directly or through each other.

    Parameters
    ----------
    cells : iterable of str
        Sources; lines of IPython's own (``%``, ``!``) are passed over.
    corpora : iterable of str
        Names of corpora, whose modules are loaded by name.
    left_out : iterable of str
        Modules that do not count, nor what only they import.

    Returns
    -------
    dict
        Module name to its source text. Imports count wherever they stand, also within functions.

    Raises
    ------
    RequestError
        If a source is not Python.
    """
    waiting = {f"sv_utils.corpora.{name}" for name in corpora}
    waiting |= {name for cell in cells for name in imports(_python(cell), "a code cell", "")}
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        parent = name.rpartition(".")[0]
        if name in left_out or name in found or name.split(".")[0] != "sv_utils":
            continue
        if parent:  # importing a.b.c also runs a and a.b
            waiting.add(parent)
        file = _module_file(name)
        if file is not None:
            found[name] = file.read_text("utf-8")
            waiting |= set(imports(found[name], name, name if file.stem == "__init__" else parent))
    return dict(sorted(found.items()))


def imports(source: str, name: str, package: str) -> Iterator[str]:
    """
    Name every module that a source may import, wherever the import stands.

    Parameters
    ----------
    source : str
        Python.
    name : str
        What to call it in an error.
    package : str
        From where its relative imports start; empty for a notebook.

    Yields
    ------
    str
        Full names; what follows ``from x import`` may be a module or not.

    Raises
    ------
    RequestError
        If the source is not Python.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise RequestError(f"{name} is not Python: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) + 1 - node.level]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _python(cell: str) -> str:
    """Take IPython's own lines out of a cell (a line that begins with ``%`` may also be Python: a second operand)."""
    if cell.lstrip().startswith("%%"):
        return ""
    try:
        ast.parse(cell)
    except SyntaxError:
        return re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", cell)
    return cell


def _module_file(name: str) -> Path | None:
    path = paths.REPO.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)
