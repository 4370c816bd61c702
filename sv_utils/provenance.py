"""
The birth certificate of every number: what a stage was made from (its content key) and where and when it was made.

Also a command: ``python -m sv_utils.provenance`` says what this machine has and lacks.
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement

from sv_utils import params, paths
from sv_utils.errors import RequestError, command
from sv_utils.paths import replace_on_success

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
    for stage in params.stages(profile):
        cells = code_cells(paths.NOTEBOOKS / f"{stage.notebook}.ipynb")
        counted = {name: value for name, value in resolved[stage.name].items() if name not in WAYS}
        files = [counted[name] for name in ("encoder", "initial_model") if name in counted]
        upstream = [keys[name] for name in stage.upstream] + _digests(files)
        left_out = MACHINERY if stage.notebook == params.LAST[-1] else MACHINERY | READING
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


def facts() -> dict:
    """
    Say what made a result.

    Returns
    -------
    dict
        Git commit and whether files differ from it (None outside git), versions of all packages, Python, platform,
        processor, cores, memory [bytes], GPUs. Works without git and without a GPU, and loads no TensorFlow.
    """
    distributions = importlib.metadata.distributions()
    return {
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _lines("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        "packages": dict(sorted((found.name.lower().replace("_", "-"), found.version) for found in distributions)),
    }


def write_run(key: str, parameters: dict, start: datetime, made_by: dict) -> None:
    """
    Write ``run.json`` of a stage that ended well; it is the stage's target, so it comes last.

    Parameters
    ----------
    key : str
        Content key under which the stage ran.
    parameters : dict
        As of `params.resolve`.
    start : datetime
        When the stage began, with its time zone.
    made_by : dict
        The `facts` as they were at the start. A notebook may leave hashes of the data that it read or made in
        ``data.json`` of its folder; they are taken in.
    """
    profile, stage, end = parameters["profile"], parameters["stage"], datetime.now(UTC)
    folder = paths.stage_dir(profile, stage)
    data = folder / "data.json"
    record = {"profile": profile, "stage": stage, "key": key, "parameters": parameters}
    record |= {"start": start.isoformat(), "end": end.isoformat(), "seconds": (end - start).total_seconds()}
    record |= {"seed": parameters.get("seed"), "data": json.loads(data.read_text("utf-8")) if data.exists() else None}
    with replace_on_success(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record | made_by, indent=1) + "\n", "utf-8")


def read_key(profile: str, stage: str) -> str | None:
    """Give the content key of the finished run of a stage, None if there is none."""
    try:
        return json.loads((paths.stage_dir(profile, stage) / "run.json").read_text("utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lock_differences(lock: Path) -> tuple[list[str], list[str]]:
    """
    Compare the installed packages with a lock file.

    Returns
    -------
    tuple of list of str
        Packages that are missing, and packages of another version, each as text.
    """
    missing, other = [], []
    for line in re.findall(r"(?m)^[A-Za-z0-9].*?==[^\\\n]*", lock.read_text("utf-8")):
        pin = Requirement(line.strip())
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(pin.name)
            continue
        if version not in pin.specifier:
            other.append(f"{pin.name} {version} (locked: {pin.specifier})")
    return missing, other


def _git() -> dict | None:
    commit = _lines("git", "rev-parse", "HEAD")
    return {"commit": commit[0], "dirty": bool(_lines("git", "status", "--porcelain"))} if commit else None


def _processor() -> str:
    try:
        return re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"))[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def _lines(*line: str) -> list[str]:
    """Run a program if there is one, and give the lines that it prints; no lines if it fails."""
    try:
        ran = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.splitlines() if ran.returncode == 0 else []


@command
def main(argv: list[str] | None = None) -> int:
    """Print what this machine has and lacks."""
    known = facts()
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    for lock in ("requirements.lock", "requirements-gpu.lock"):
        missing, other = lock_differences(paths.REPO / lock)
        for kind, names in {"missing": missing, "of another version": other}.items():
            print(f"{lock:22} {len(names)} packages {kind}{': ' if names else ''}{', '.join(names)[:200]}")
    git = known["git"] or {"commit": "none", "dirty": False}
    print(f"{'git commit':22} {git['commit']}{' with changes' if git['dirty'] else ''}")
    print(f"{'Python':22} {known['python']} on {known['platform']}")
    print(f"{'processor':22} {known['processor']}, {known['cores']} cores")
    print(f"{'memory':22} {known['memory'] / 2**30:.0f} GiB")
    print(f"{'GPU':22} {'; '.join(known['gpus']) or 'none (training runs on the CPU)'}")
    print(f"{'free disk for outputs':22} {shutil.disk_usage(folder).free / 2**30:.0f} GiB in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
