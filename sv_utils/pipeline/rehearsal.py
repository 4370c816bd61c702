"""
A rehearsal: all stages of a profile, its own architecture, batch sizes, precision and losses, two steps a phase.

What asks for a GPU and has none gets batches of few crops and no XLA, for a CPU takes minutes to compile a large
encoder, and minutes for each of its batches; all else is its own there too.

What is made small is in `small`; each stage runs as `sv_utils.run` runs it, in a process whose time and memory are
measured.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sv_utils.base import paths
from sv_utils.pipeline.profile import ENCODERS, Profile
from sv_utils.pipeline.stages import EXTRA, LAST, is_training

# What an evaluation, a preparation and a phase take less of; only what a notebook declares is set.
EVALUATION = {"replicates": 20, "cohort_utterances": 1, "qmf_trials": 200, "hardest_trials": 2, "players": 1}
PREPARATION = {"utterances_per_shard": 500, "validation_speakers": 4, "validation_targets": 20} | {
    "validation_nontargets": 40,
    "test_targets": 20,
    "test_nontargets": 40,
    "scheduler": "",
}
CROPS = 4  # in a batch of what asks for a GPU, where there is none: its own batches would take a CPU hours
PAUSE = 0.5  # between two looks at the memory of the GPU [s]
MIB = 2**20


@dataclass(frozen=True)
class Rehearsed:
    """
    How a stage went.

    Attributes
    ----------
    stage : str
    passed : bool, optional
        None where a stage before it failed.
    seconds : float
    host, device : int
        Most memory of its largest process, and of all that is in use on the GPU (0 where there is none) [bytes].
    said : str
        Why it failed.
    """

    stage: str
    passed: bool | None
    seconds: float = 0.0
    host: int = 0
    device: int = 0
    said: str = ""


def small(profile: Profile, cores: int) -> dict[str, dict]:
    """
    Make the params file of a rehearsal.

    Returns
    -------
    dict
        Sections by name, with every parameter that the notebooks declare.
    """
    sections: dict[str, dict] = {}
    for stage in profile.stages:
        if stage.notebook in EXTRA:
            continue
        own = {
            name: value for name, value in profile.parameters[stage.name].items() if name not in ("profile", "stage")
        }
        less = EVALUATION if stage.notebook == LAST[0] else PREPARATION if stage.name == "02_prep" else {}
        own |= {name: _less(own[name], value) for name, value in less.items() if name in own}
        if "workers" in own:
            own["workers"] = min(own["workers"], cores)
        if "cuts" in own:
            own["cuts"] = own["cuts"][:1]
        if "source" in own:
            own["source"] = ""
        if is_training(stage.name):
            own["phases"] = [_short(own, phase) for phase in own["phases"]]
            compiled = own["engine"]["jit_compile"] and not has_few_crops(own)  # on a CPU XLA takes minutes a phase
            own["engine"] = own["engine"] | {"jit_compile": compiled, "needs_gpu": False}
        if stage.notebook == LAST[0]:
            own.pop("encoder", None)
        sections[stage.name if is_training(stage.name) else stage.notebook] = own
    return sections | {ENCODERS: profile.encoders}


def has_few_crops(training: Mapping[str, Any]) -> bool:
    """Whether a training is rehearsed with `CROPS` in a batch: it asks for a GPU, and there is none."""
    return training["engine"]["needs_gpu"] and not training.get("speakers_per_batch") and not gpus()


def _short(training: Mapping[str, Any], phase: Mapping[str, Any]) -> dict[str, Any]:
    if has_few_crops(training):
        crops = min(CROPS, phase["batch_size"] or training["batch_size"])
        phase = {**phase, "batch_size": crops, "accumulate": min(2, phase["accumulate"])}
    return two_steps(phase)


def _less(value: Any, most: Any) -> Any:
    return min(value, most) if isinstance(value, int | float) else most


def two_steps(phase: Mapping[str, Any]) -> dict[str, Any]:
    """
    Shorten a phase to two epochs, each of one step of the optimizer at most, and at full margin in the second.

    Examples
    --------
    >>> phase = {"epochs": 150, "steps_per_epoch": 0, "accumulate": 8, "warmup_epochs": 6.0, "average_last": 10}
    >>> two_steps(phase)
    {'epochs': 2, 'steps_per_epoch': 4, 'accumulate': 8, 'warmup_epochs': 1.0, 'average_last': 1}
    """
    most = {"warmup_epochs": 1.0, "average_last": 1, "margin_start_epoch": 0.0, "margin_end_epoch": 1.0}
    short = {name: min(phase[name], value) for name, value in most.items() if name in phase}
    return {**phase, "epochs": 2, "steps_per_epoch": max(1, phase["accumulate"] // 2), **short}


def run(
    profile: Profile,
    folder: Path,
    environment: Mapping[str, str],
    cores: int,
    sections: Mapping[str, dict] | None = None,
) -> Iterator[Rehearsed]:
    """
    Run the stages of a profile on a miniature.

    Parameters
    ----------
    profile : Profile
        The real one.
    folder : Path
        Receives ``params/`` and ``outputs/``.
    environment : mapping
        Variables that name the miniatures.
    cores : int
    sections : mapping, optional
        Of the params file that is run instead of `small`.

    Yields
    ------
    Rehearsed
        A stage each, as it ends.
    """
    params = folder / "params"
    params.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(_copied(dict(sections or small(profile, cores))), sort_keys=False)
    (params / f"{profile.name}.yaml").write_text(text)
    names = {"SV_PARAMS": str(params), "SV_OUTPUTS": str(folder / "outputs"), "PYTHONPATH": str(paths.REPO)}
    names |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "PYTHONUNBUFFERED": "1"}
    failed: set[str] = set()
    for stage in (stage for stage in profile.stages if stage.notebook not in EXTRA):
        if failed & set(stage.upstream):
            failed.add(stage.name)
            yield Rehearsed(stage.name, None)
            continue
        command = [sys.executable, "-m", "sv_utils.run", stage.name, "--profile", profile.name]
        done = measured(stage.name, command, {**os.environ, **names, **environment})
        failed |= set() if done.passed else {stage.name}
        yield done


def _copied(sections: dict) -> dict:
    """The same with nothing shared, for which YAML would write aliases."""
    return json.loads(json.dumps(sections))


def measured(stage: str, command: Sequence[str], environment: Mapping[str, str]) -> Rehearsed:
    """Run a command, and measure its time and memory (on Linux never less than this process has taken itself)."""
    started, stop = time.perf_counter(), threading.Event()
    device: list[int] = [0]
    watch = threading.Thread(target=_watch, args=(device, stop))
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        watch.start()
        try:
            said = process.stderr.read()  # type: ignore[union-attr]
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.terminate()
            raise
        finally:
            stop.set()
            watch.join()
    host = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lines = [line for line in said.splitlines() if line.strip()]
    reason = "" if process.returncode == 0 else lines[-1] if lines else f"it ended with {process.returncode}"
    return Rehearsed(stage, process.returncode == 0, time.perf_counter() - started, host, device[0], reason)


def _watch(most: list[int], stop: threading.Event) -> None:
    while shutil.which("nvidia-smi") and not stop.is_set():
        most[0] = max([most[0], *(used for used, _ in gpus())])
        stop.wait(PAUSE)


def gpus() -> list[tuple[int, int]]:
    """Memory in use and memory that there is of each GPU of NVIDIA's [bytes]; an empty list without one."""
    asked = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        return [tuple(int(word) * MIB for word in line.split(",")) for line in told.splitlines() if line]  # type: ignore[misc]
    return []
