"""
What a stage was made from: its content key. Equal keys, equal work.

A key counts meaning. Of the code it counts what the notebook and the modules that it uses do, without comments,
docstrings and the types of functions; a module that is loaded by name (a backbone, a corpus, a published encoder)
counts where a parameter names it. The ground (`base`), the pipeline itself and, for every stage before the report, the
drawing (`reports`) change no number and never count.
"""

import ast
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.pipeline import records
from sv_utils.pipeline.params import INJECTED
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import LAST

MACHINERY = ("base", "pipeline")  # how a run is told, placed and recorded changes no number
READING = "reports"  # a redrawn figure must not cost days of training
# Parameters that say how the work is done, and change nothing of what comes out.
WAYS = {"workers", "scheduler", "connections", "remove_archives", "readers", "needs_gpu"}


def stage_keys(profile: Profile, sources: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Give the content key of each stage of a profile.

    Parameters
    ----------
    profile : Profile
    sources : mapping of str to str, optional
        Digests of what lies outside the repository and has no checksum, by corpus: a tree of a user's own recordings.

    Returns
    -------
    dict
        Stage name to the sha256 [hex] over the code that it uses, the resolved parameters (not those of `WAYS`), what
        the stages before it handed on (the digest of their result where they ended with one under their present key,
        else their key), and the content of a file of weights that it judges or starts from; for the report also of the
        file of what is to be expected.
    """
    keys: dict[str, str] = {}
    for stage in profile.stages:
        cells = code_cells(paths.NOTEBOOKS / f"{stage.notebook}.ipynb")
        parameters = profile.parameters[stage.name]
        counted = _counted(parameters)
        files = [counted[name] for name in ("encoder", "initial_model") if name in counted]
        if stage.notebook == LAST[1]:
            files.append(str(paths.expected_file(profile.name)))
        upstream = [_handed_on(profile.name, name, keys[name]) for name in stage.upstream]
        if not stage.upstream:
            upstream = [f"{name} {digest}" for name, digest in (sources or {}).items()]
        left_out = MACHINERY if stage.notebook >= LAST[1] else (*MACHINERY, READING)
        modules = used_modules(cells, _words(parameters), left_out)
        keys[stage.name] = content_key(list(map(meaning, cells)), counted, modules, upstream + _digests(files))
    return keys


def _counted(parameters: dict) -> dict:
    """Parameters without those that change nothing of what comes out, in dicts within them too."""
    inner = {name: _counted(value) if isinstance(value, dict) else value for name, value in parameters.items()}
    return {name: value for name, value in inner.items() if name not in WAYS}


def _handed_on(profile: str, stage: str, key: str) -> str:
    record = records.read_run(profile, stage) or {}
    return record.get("result") or key if record.get("key") == key else key


def _digests(files: Iterable[str]) -> list[str]:
    """Checksums of the contents [hex] of those names that are files."""
    found = []
    for file in filter(os.path.isfile, files):
        with open(file, "rb") as content:
            found.append(hashlib.file_digest(content, "sha256").hexdigest())
    return found


def _words(parameters: dict) -> set[str]:
    """All texts among the values of parameters, but for those that name the run."""

    def walk(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from walk(inner)

    own = {name: value for name, value in parameters.items() if name not in INJECTED or name == "encoder"}
    return set(walk(own))


def content_key(cells: list[str], parameters: dict, modules: dict[str, str], upstream: Iterable[str]) -> str:
    """Hash what a stage is made from; the arguments are as in `stage_keys`."""
    text = json.dumps([cells, parameters, modules, sorted(upstream)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def code_key(*places: str) -> str:
    """
    Hash what folders or modules of the package mean, with all that they import.

    Parameters
    ----------
    *places : str
        From the package's folder on: ``models`` (with what lies in folders below it), ``training/augment``.

    Returns
    -------
    str
        sha256 [hex].
    """
    package = paths.REPO / "sv_utils"
    files = {file for place in places for file in [*(package / place).rglob("*.py"), package / f"{place}.py"]}
    names = [".".join(file.relative_to(paths.REPO).with_suffix("").parts) for file in files]
    lines = [f"import {name.removesuffix('.__init__')}" for name in sorted(names)]
    return content_key([], {}, used_modules(lines, left_out=MACHINERY), [])


def code_cells(notebook: Path) -> list[str]:
    """Read the sources of the code cells of a notebook, without that of its parameters, which are resolved."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code" and not _declares(cell)]


def _declares(cell: dict) -> bool:
    return "parameters" in cell.get("metadata", {}).get("tags", [])


def meaning(source: str) -> str:
    """
    Write a source without comments, docstrings, types of functions and layout, which mean nothing to the machine.

    Parameters
    ----------
    source : str
        Python, or a cell of a notebook.

    Raises
    ------
    RequestError
        If the source is not Python.

    Examples
    --------
    >>> meaning("x = (1,   # one" + chr(10) + "     2)")
    'x = (1, 2)'
    """
    return ast.unparse(_Bare().visit(_parsed(_python(source), "a code cell")))


class _Bare(ast.NodeTransformer):
    """Takes docstrings and the types of functions away, and the imports that only types need."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        return super().generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module in ("typing", "collections.abc") else node


def used_modules(cells: Iterable[str], named: Iterable[str] = (), left_out: Iterable[str] = ()) -> dict[str, str]:
    """
    Collect the modules of this package that code cells import, directly or through each other.

    Parameters
    ----------
    cells : iterable of str
        Sources; lines of IPython's own (``%``, ``!``) are passed over.
    named : iterable of str
        Values of parameters. Of a package that loads its modules by name, a module counts when one of these begins
        with its name (``resnet34`` with ``resnet``).
    left_out : iterable of str
        Folders of the package whose modules do not count, nor what only they import.

    Returns
    -------
    dict
        Module name to what its source means. Imports count wherever they stand, also within functions.

    Raises
    ------
    RequestError
        If a source is not Python.
    """
    named, left_out = set(named), {f"sv_utils.{folder}" for folder in left_out}
    waiting = {name for cell in cells for name in imports(_python(cell), "a code cell", "")}
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        parent = name.rpartition(".")[0]
        if name.split(".")[0] != "sv_utils" or ".".join(name.split(".")[:2]) in left_out or name in found:
            continue
        if parent:  # importing a.b.c also runs a and a.b
            waiting.add(parent)
        file = _module_file(name)
        if file is not None:
            found[name], imported = _module(file, file.stat().st_mtime_ns, name)
            waiting |= imported
            if "import_module" in found[name]:
                waiting |= {f"{name}.{module}" for module in _modules_named(file.parent, named)}
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=1024)
def _module(file: Path, _changed: int, name: str) -> tuple[str, frozenset[str]]:
    """What a module means, and what it imports."""
    source = file.read_text("utf-8")
    imported = frozenset(imports(source, name, name if file.stem == "__init__" else name.rpartition(".")[0]))
    return meaning(source), imported


def _modules_named(folder: Path, named: set[str]) -> list[str]:
    return [file.stem for file in folder.glob("*.py") if any(word.startswith(file.stem) for word in named)]


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
    for node in ast.walk(_parsed(source, name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) + 1 - node.level]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _parsed(source: str, name: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise RequestError(f"{name} is not Python: {error}") from None


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
