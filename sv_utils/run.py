"""
Run one notebook as a stage of a profile, or do nothing when its result is up to date.

``python -m sv_utils.run STAGE --profile P`` leaves ``<stage>.ipynb``, ``<stage>.html`` and, last, ``run.json`` in the
stage's folder. A run that fails or is killed leaves none of the three, but ``<stage>.partial.ipynb`` for reading, and
the checkpoints that it wrote: a run with the same content key takes them up again.
"""

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sv_utils import corpora
from sv_utils.base import locks, paths
from sv_utils.base.errors import RequestError, WorkError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.base.secret import scrubbed
from sv_utils.pipeline import keys, records
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import FIRST, LAST
from sv_utils.reports import pages
from sv_utils.speech import acquisition

QUIET = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}  # a report needs no progress bars and no start-up notices


def run_stage(stage: str, profile: str) -> bool:
    """
    Bring one stage up to date.

    Parameters
    ----------
    stage : str
        Name of the stage, such as ``03_train_softmax``.
    profile : str
        Name of the params file.

    Returns
    -------
    bool
        False if the finished result was up to date and nothing ran.

    Raises
    ------
    RequestError
        If a parameter is wrong, or the notebook raised one.
    WorkError
        If the notebook failed otherwise.
    """
    asked = Profile.read(profile)
    parameters = asked.of(stage)
    if _is_up_to_date(stage, asked):
        return False
    with _turn(stage, profile):
        if _is_up_to_date(stage, asked):  # another run may have made it meanwhile
            return False
        key = keys.stage_keys(asked, _sources(asked))[stage]
        folder = paths.stage_dir(profile, stage)
        if _sources(asked):  # speech of the user's own: names, embeddings and reports are for their owner alone
            paths.profile_dir(profile).mkdir(parents=True, exist_ok=True)
            paths.profile_dir(profile).chmod(0o700)
        _make_room(folder, key)
        start, made_by = datetime.now(UTC), records.facts()
        print(f"{stage}: starts ({profile})", flush=True)
        _execute(parameters)
        _render(folder / f"{stage}.ipynb")
        (paths.profile_dir(profile) / "index.html").unlink(missing_ok=True)  # killed from here on, make misses it
        records.write_run(key, parameters, start, made_by)
        write_keys(asked)  # of the stages after it, which count what this one hands on
        pages.write_index(asked, _sources(asked))
        print(f"{stage}: done in {(datetime.now(UTC) - start).total_seconds():.0f} s", flush=True)
        return True


def _is_up_to_date(stage: str, profile: Profile) -> bool:
    record = records.read_run(profile.name, stage)
    if record is None or record["key"] != keys.stage_keys(profile, _sources(profile))[stage]:
        return False
    os.utime(paths.stage_dir(profile.name, stage) / "run.json")  # make compares its time with that of the key
    return True


def _sources(profile: Profile) -> dict[str, str]:
    """Digests of the trees of a user's own recordings, which no checksum stands for."""
    asked = profile.of(FIRST[0])
    found = {
        name: acquisition.sources_digest(corpora.get(name), asked.get("source") or None) for name in asked["corpora"]
    }
    return {name: digest for name, digest in found.items() if digest}


@contextlib.contextmanager
def _turn(stage: str, profile: str) -> Iterator[None]:
    """
    Wait until no other run of this kind is at work.

    Trainings and evaluations form one queue, for several would fight for the GPU's memory, or the cores. Any other
    stage has its own, since downloads and stores are shared between profiles.
    """
    queue = stage if stage in (*FIRST, LAST[-1]) else "training"

    def waits(holder: str) -> None:
        print(f"{stage}: waits for {holder or 'another stage'}", flush=True)

    with locks.alone(paths.outputs() / f".{queue}.lock", f"{stage} ({profile}, process {os.getpid()})", waits):
        yield


def _make_room(folder: Path, key: str) -> None:
    """
    Leave in the folder only what belongs to the coming run.

    What an unfinished run with this key left stays, to be resumed. A finished result of another key is put by, one
    generation of it (a trained model may be worth days); anything else is removed.
    """
    key_file = folder / "key"
    if folder.exists() and not (key_file.exists() and key_file.read_text("utf-8") == key):
        if (folder / "run.json").exists():
            previous = paths.outputs() / ".previous" / folder.relative_to(paths.outputs())
            shutil.rmtree(previous, ignore_errors=True)
            (paths.outputs() / ".previous").mkdir(mode=0o700, exist_ok=True)
            previous.parent.mkdir(exist_ok=True)
            os.replace(folder, previous)
        else:
            shutil.rmtree(folder)
    for name in ("run.json", f"{folder.name}.ipynb", f"{folder.name}.html"):
        (folder / name).unlink(missing_ok=True)
    with replace_on_success(key_file) as temporary:
        temporary.write_text(key, "utf-8")


def _execute(parameters: dict) -> None:
    """Run the notebook to a side name, and give it its own name when it ended well."""
    import papermill  # takes a second to load, which a stage that is up to date need not wait for
    from nbclient.exceptions import DeadKernelError

    stage = parameters["stage"]
    folder = paths.stage_dir(parameters["profile"], stage)
    partial = folder / f"{stage}.partial.ipynb"
    _set_environment()
    for library in ("papermill", "traitlets", "asyncio"):  # their warnings are errors before, or a sentence after
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with _stderr_in(folder / "kernel.log"):
            papermill.execute_notebook(
                paths.NOTEBOOKS / f"{stage.split('@')[0]}.ipynb",
                partial,
                parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=paths.NOTEBOOKS,  # where JupyterLab runs it too
                coalesce_streams=True,
                stdout_file=sys.stdout if sys.stdout.isatty() else None,  # a person sees the epochs pass by
                # What C++ code says (TensorFlow's notices) goes to the log instead of the notebook.
                extra_arguments=["--log-level=CRITICAL", "--IPKernelApp.capture_fd_output=False"],
            )
    except papermill.PapermillExecutionError as error:
        kind = RequestError if error.ename == "RequestError" else WorkError
        said = error.evalue if error.ename in ("RequestError", "WorkError") else f"{error.ename}: {error.evalue}"
        raise kind(f"{stage}: {said} (the notebook as far as it came: {partial})") from None
    except DeadKernelError:
        raise WorkError(f"{stage}: its process was killed, perhaps for want of memory (see {partial})") from None
    finally:
        for file in (partial, folder / "kernel.log"):
            _scrub(file)
    os.replace(partial, folder / f"{stage}.ipynb")


def _scrub(file: Path) -> None:
    """Take a personal key out of what a notebook or its process left, whatever printed it."""
    if file.exists():
        text = file.read_text("utf-8", errors="surrogateescape")
        if (clean := scrubbed(text)) != text:
            with replace_on_success(file) as temporary:
                temporary.write_text(clean, "utf-8", errors="surrogateescape")


@contextlib.contextmanager
def _stderr_in(log: Path) -> Iterator[None]:
    """Let the processes that start in the block write their stderr to a file."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(log, "wb") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if not log.stat().st_size:
            log.unlink()


def _set_environment() -> None:
    """Hand down to the kernel: this very package, quiet libraries, and folders that hold from any other folder."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(paths.REPO), os.environ.get("PYTHONPATH"))))
    for name in ("SV_OUTPUTS", "SV_PARAMS", "SV_MIRROR"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.environ[name])
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.pop("JUPYTER_PATH", None)  # another environment's kernel may be called python3 too
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ["MATPLOTLIBRC"] = os.devnull  # figures look alike whatever a user has set for others


def _render(notebook: Path) -> None:
    """Write the executed notebook as a page; that of the last stage also where a reader looks first."""
    targets = {notebook.with_suffix(".html"): "../index.html"}
    if notebook.stem == LAST[-1]:
        targets[notebook.parents[1] / "report.html"] = "index.html"
    for target, home in targets.items():
        page = pages.report(notebook, home)
        with replace_on_success(target) as temporary:
            temporary.write_text(page, "utf-8")


def write_keys(profile: Profile) -> None:
    """
    Tell make what there is to do.

    Writes ``outputs/<profile>/.keys/<stage>.key`` for each stage, touching a file only if its key changed, and
    ``stages.mk`` with one rule per stage.
    """
    folder = paths.profile_dir(profile.name) / ".keys"
    texts = {folder / f"{stage}.key": key for stage, key in keys.stage_keys(profile, _sources(profile)).items()}
    texts[folder / "stages.mk"] = _rules(profile)
    for file, text in texts.items():
        if not file.exists() or file.read_text("utf-8") != text:
            with replace_on_success(file) as temporary:
                temporary.write_text(text, "utf-8")


def _rules(profile: Profile) -> str:
    lines = []
    for stage in profile.stages:
        upstream = " ".join(f"$(RESULTS)/{name}/run.json" for name in stage.upstream)
        lines.append(f"$(RESULTS)/{stage.name}/run.json: $(RESULTS)/.keys/{stage.name}.key | {upstream}".rstrip(" |"))
        lines.append(f"\t@$(PY) -m sv_utils.run '{stage.name}' --profile '{profile.name}'")
    targets = " ".join(f"$(RESULTS)/{stage.name}/run.json" for stage in profile.stages)
    return "\n".join([f"stages: {targets}", "\t@:", *lines, ""])


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@command
def main(argv: list[str] | None = None) -> int:
    """Run a stage; or with ``--keys`` write the content keys, with ``--list`` the stages of a profile."""
    parser = argparse.ArgumentParser(
        prog="sv_utils.run",
        description="Run one notebook as a stage of a profile, or do nothing when its result is up to date.",
    )
    parser.add_argument("stage", nargs="?", help="for example 03_train_softmax or 08_evaluate@softmax")
    parser.add_argument("--profile", default="mini", help="name of a file in params/ (default: mini)")
    parser.add_argument("--keys", metavar="PROFILE", help="write the content keys of all stages for make")
    parser.add_argument("--list", metavar="PROFILE", help="print the stages of a profile, and what each one needs")
    arguments = parser.parse_args(argv)
    for ending in (signal.SIGTERM, signal.SIGINT):  # both end the kernel too, also that of a job in the background
        signal.signal(ending, _stop)
    if arguments.keys:
        write_keys(Profile.read(arguments.keys))
    elif arguments.list:
        print(
            *(f"{stage.name:32} {' '.join(stage.upstream)}" for stage in Profile.read(arguments.list).stages), sep="\n"
        )
    elif arguments.stage is None:
        raise RequestError("a stage is missing; python -m sv_utils.run --list PROFILE names them")
    else:
        run_stage(arguments.stage, arguments.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
