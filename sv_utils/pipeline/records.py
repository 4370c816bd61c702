"""The birth certificate of a result: what made it, where and when (``run.json``)."""

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from packaging.requirements import Requirement

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.base.secret import scrubbed
from sv_utils.pipeline import machine

# What of a record a difference of digits can come from, and the packages that compute.
ORIGINS: tuple[str, ...] = (
    "git",
    "python",
    "platform",
    "processor",
    "cores",
    "threads",
    "instructions",
    "flags",
    "caches",
    "settings",
)
ORIGINS += ("gpus", "engine")
COMPUTING = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "scipy", "jax", "jaxlib", "torch", "av", "soundfile")
NAMES = {
    "git": "commit",
    "platform": "system",
    "gpus": "GPUs",
    "instructions": "instruction sets",
    "key": "content key",
}


def facts() -> dict:
    """
    Say what made a result.

    Returns
    -------
    dict
        Git commit and whether files differ from it (None outside git), versions of all packages, Python, platform, GPUs
        that the driver names, and `machine.facts`. Works without git and without a GPU, and loads no TensorFlow.
    """
    distributions = importlib.metadata.distributions()
    return {
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **machine.facts(),
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
        As `Profile.of` gives them.
    start : datetime
        When the stage began, with its time zone.
    made_by : dict
        The `facts` as they were at the start. What the notebook left by `hand_on` is taken in, and what a training left
        as ``engine.json``: the devices that computed it, and how.
    """
    profile, stage, end = parameters["profile"], parameters["stage"], datetime.now(UTC)
    folder = paths.stage_dir(profile, stage)
    data, engine = (_left(folder / f"{name}.json") for name in ("data", "engine"))
    record = {"profile": profile, "stage": stage, "key": key, "parameters": parameters}
    record |= {"start": start.isoformat(), "end": end.isoformat(), "seconds": (end - start).total_seconds()}
    record |= {"seed": parameters.get("seed"), "data": data, "result": (data or {}).get("result")}
    record["engine"] = engine
    with replace_on_success(folder / "run.json") as temporary:
        temporary.write_text(scrubbed(json.dumps(record | made_by, indent=1)) + "\n", "utf-8")


def hand_on(folder: Path, digests: dict[str, str]) -> None:
    """
    Say in ``data.json`` what a stage hands on to those after it: they run again when this changes, not when code does.

    Parameters
    ----------
    folder : Path
        Of the stage.
    digests : dict
        Digest [hex] of each thing that the later stages read, by its name.
    """
    result = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    with replace_on_success(folder / "data.json") as temporary:
        temporary.write_text(json.dumps({"result": result, "digests": digests}, indent=1) + "\n", "utf-8")


def read_key(profile: str, stage: str) -> str:
    """Read the content key under which a stage runs or ran last; '' for one that was run by hand only."""
    file = paths.stage_dir(profile, stage) / "key"
    return file.read_text("utf-8") if file.exists() else ""


def read_run(profile: str, stage: str) -> dict | None:
    """Read ``run.json`` of the finished run of a stage; None if there is none."""
    return read_run_of(paths.stage_dir(profile, stage))


def read_run_of(folder: Path) -> dict | None:
    """Read ``run.json`` of the finished run of the stage that lies in a folder; None if there is none."""
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "key" in record else None


def compare(one: str | Path, other: str | Path) -> list[str]:
    """
    Name what differs between the records of two runs of a stage.

    Parameters
    ----------
    one, other : path
        ``run.json`` of each, or the folder that it lies in.

    Returns
    -------
    list of str
        As of `differences`.

    Raises
    ------
    RequestError
        If a record is missing, or none.
    """
    found = []
    for path in map(Path, (one, other)):
        record = read_run_of(path if path.is_dir() else path.parent)
        if record is None:
            raise RequestError(f"{path} holds no record of a finished run; name a run.json, or the folder of a stage")
        found.append(record)
    return differences(*found)


def differences(one: dict, other: dict) -> list[str]:
    """
    Name what differs between two records, as far as it can change digits.

    Parameters
    ----------
    one, other : dict
        As of ``run.json``; what only one of them records is named too.

    Returns
    -------
    list of str
        Such as ``other processor: A; B``. Parameters are named by their places, packages one by one.

    Examples
    --------
    >>> differences({"threads": 2, "seed": 1}, {"threads": 1, "seed": 1})
    ['other threads: 2; 1']
    """
    said = []
    for name in (*ORIGINS, "seed", "key", "data"):
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict) and name != "git":
            said += changed(first, second, name)
        elif first != second:
            said.append(f"other {NAMES.get(name, name)}: {_short(first)}; {_short(second)}")
    for name in ("packages", "parameters"):
        said += changed(one.get(name) or {}, other.get(name) or {}, name)
    return said


def changed(one: dict, other: dict, where: str) -> list[str]:
    """
    Name the places at which two nested tables differ.

    Parameters
    ----------
    one, other : dict
    where : str
        What they are called.

    Returns
    -------
    list of str

    Examples
    --------
    >>> changed({"phases": [{"margin": 0.2}]}, {"phases": [{"margin": 0.9}]}, "parameters")
    ['other parameters.phases.0.margin: 0.2; 0.9']
    """
    said = []
    for name in dict.fromkeys((*one, *other)):
        first, second = (_numbered(table.get(name)) for table in (one, other))
        if isinstance(first, dict) and isinstance(second, dict):
            said += changed(first, second, f"{where}.{name}")
        elif first != second:
            said.append(f"other {where}.{name}: {_short(one.get(name))}; {_short(other.get(name))}")
    return said


def _numbered(value: object) -> object:
    """A list as a table of its places, so that a difference can be named by its place."""
    return dict(enumerate(value)) if isinstance(value, list) else value


def _short(value: object) -> str:
    if isinstance(value, dict) and "commit" in value:
        return f"{value['commit'][:12]}{' with changes' if value.get('dirty') else ''}"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "not recorded" if value is None else text if len(text) <= 60 else f"{text[:59]}…"


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


def _left(file: Path) -> dict | None:
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def _git() -> dict | None:
    commit = _lines("git", "rev-parse", "HEAD")
    return {"commit": commit[0], "dirty": bool(_lines("git", "status", "--porcelain"))} if commit else None


def _lines(*line: str) -> list[str]:
    """Run a program if there is one, and give the lines that it prints; no lines if it fails."""
    try:
        ran = subprocess.run(line, cwd=paths.REPO, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ran.stdout.splitlines() if ran.returncode == 0 else []
