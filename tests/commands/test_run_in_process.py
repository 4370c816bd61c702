"""A stage as the runner makes it, without a kernel: what is handed to papermill, what stays, what make is told."""

import logging
import os
import signal
import sys
import types
from types import SimpleNamespace

import pytest

from sv_utils import run
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.pipeline.profile import Profile


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    return tmp_path


class Failed(Exception):
    """papermill's, of a cell that raised."""

    def __init__(self, ename, evalue):
        super().__init__(ename)
        self.ename, self.evalue = ename, evalue


class Dead(Exception):
    """nbclient's, of a kernel that is gone."""


@pytest.fixture
def papermill(monkeypatch):
    """A stand-in that keeps what it is asked and leaves a notebook; then raises what it is told."""
    seen = SimpleNamespace(asked=[], raises=None)

    def execute_notebook(source, target, parameters, **options):
        seen.asked.append((source, target, parameters, options))
        target.write_text("cells: the key is hush")
        os.write(2, b"TensorFlow says hush\n" if seen.raises else b"")
        if seen.raises:
            raise seen.raises

    modules = {"papermill": {"execute_notebook": execute_notebook, "PapermillExecutionError": Failed}}
    modules |= {"nbclient": {}, "nbclient.exceptions": {"DeadKernelError": Dead}}
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(run, "_set_environment", lambda: seen.asked.append("environment"))
    monkeypatch.setattr(run, "scrubbed", lambda text: text.replace("hush", "..."))
    for name in ("papermill", "traitlets", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
    return seen


STAGE = {"profile": "mini", "stage": "08_evaluate@softmax", "seed": 7}


def test_a_notebook_is_executed_beside_and_gets_its_name_at_the_end(papermill, outputs, monkeypatch):
    folder = outputs / "mini" / "08_evaluate@softmax"
    folder.mkdir(parents=True)
    terminal = SimpleNamespace(isatty=lambda: False)
    monkeypatch.setattr(run.sys, "stdout", terminal)
    opened = os.listdir("/dev/fd")
    run._execute(STAGE)
    assert os.listdir("/dev/fd") == opened, "nothing stays open"
    terminal.isatty = lambda: True
    run._execute(STAGE)
    environment, (source, target, parameters, options), _, (*_, seen) = papermill.asked
    assert (environment, source, parameters) == ("environment", paths.NOTEBOOKS / "08_evaluate.ipynb", STAGE)
    assert target == folder / "08_evaluate@softmax.partial.ipynb"
    quiet = ["--log-level=CRITICAL", "--IPKernelApp.capture_fd_output=False"]
    asked = {"kernel_name": "python3", "progress_bar": False, "cwd": paths.NOTEBOOKS, "coalesce_streams": True}
    assert options == asked | {"stdout_file": None, "extra_arguments": quiet}
    assert seen == options | {"stdout_file": terminal}, "a person sees the epochs pass by"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "08_evaluate@softmax.ipynb": "cells: the key is ..."
    }
    assert {logging.getLogger(name).level for name in ("papermill", "traitlets", "asyncio")} == {logging.CRITICAL}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (Failed("RequestError", "name another"), RequestError, "name another"),
        (Failed("WorkError", "the disk is full"), WorkError, "the disk is full"),
        (Failed("KeyError", "'a'"), WorkError, "KeyError: 'a'"),
        (Dead(), WorkError, "its process was killed, perhaps for want of memory"),
    ],
)
def test_a_notebook_that_fails_is_left_for_reading_without_a_key(papermill, outputs, error, kind, said):
    folder, papermill.raises = outputs / "mini" / "08_evaluate@softmax", error
    folder.mkdir(parents=True)
    terminal = os.fstat(2)
    with pytest.raises(kind) as told:
        run._execute(STAGE)
    assert os.path.samestat(os.fstat(2), terminal), "what is told from here on is for the terminal again"
    assert type(told.value) is kind and str(told.value).startswith(f"08_evaluate@softmax: {said} (")
    assert str(folder / "08_evaluate@softmax.partial.ipynb") in str(told.value)
    left = {path.name: path.read_text() for path in folder.iterdir()}
    notebook, log = "cells: the key is ...", "TensorFlow says ...\n"
    assert left == {"08_evaluate@softmax.partial.ipynb": notebook, "kernel.log": log}


def test_a_kernel_finds_this_package_quiet_libraries_and_figures_of_one_look(monkeypatch):
    for name in (*run.QUIET, "SV_OUTPUTS", "SV_PARAMS", "SV_MIRROR", "JUPYTER_PREFER_ENV_PATH", "MATPLOTLIBRC"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", "theirs")
    run._set_environment()
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(paths.REPO), "theirs"])
    told = {name: os.environ.get(name) for name in ("TQDM_DISABLE", "TF_CPP_MIN_LOG_LEVEL", "JUPYTER_PREFER_ENV_PATH")}
    assert told == {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "JUPYTER_PREFER_ENV_PATH": "1"}
    assert os.environ["MATPLOTLIBRC"] == os.devnull and "SV_MIRROR" not in os.environ
    monkeypatch.delenv("PYTHONPATH")
    run._set_environment()
    assert os.environ["PYTHONPATH"] == str(paths.REPO)


@pytest.mark.parametrize(
    ("stage", "queue"),
    [
        ("01_download", "01_download"),
        ("02_prep", "02_prep"),
        ("06_train_adacos", "training"),
        ("08_evaluate@adacos", "training"),
        ("09_report", "09_report"),
    ],
)
def test_trainings_and_evaluations_form_one_queue_and_others_one_each(outputs, monkeypatch, capsys, stage, queue):
    seen, alone = [], run.locks.alone

    def held(path, holder, waits):
        seen.append((path, holder))
        waits("02_prep (ocean, process 1)")
        waits("")
        return alone(path, holder, waits)

    monkeypatch.setattr(run.locks, "alone", held)
    with run._turn(stage, "mini"):
        assert (outputs / f".{queue}.lock").read_text() == f"{stage} (mini, process {os.getpid()})"
    assert [path.name for path, _ in seen] == [f".{queue}.lock"]
    assert (
        capsys.readouterr().out == f"{stage}: waits for 02_prep (ocean, process 1)\n{stage}: waits for another stage\n"
    )


def filled(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_room_is_made_for_a_run_and_what_may_be_worth_days_is_put_by_once(outputs):
    folder, previous = outputs / "mini" / "s", outputs / ".previous" / "mini" / "s"
    run._make_room(folder, "one")
    assert (folder / "key").read_text() == "one"
    filled(folder, checkpoint="of one", run_json="{}", s_ipynb="", s_html="", partial_ipynb="")
    run._make_room(folder, "one")  # of this key: to be resumed, without what says that it has ended
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "key", "partial.ipynb"]
    run._make_room(folder, "two")  # of another key, and not finished
    assert [path.name for path in folder.iterdir()] == ["key"] and not previous.exists()
    for key, text in (("three", "a model"), ("four", "a later model")):
        filled(folder, model=text, run_json="{}")
        run._make_room(folder, key)
        assert (previous / "model").read_text() == text and [path.name for path in folder.iterdir()] == ["key"]
        assert (folder / "key").read_text() == key
    assert (outputs / ".previous").stat().st_mode & 0o777 == 0o700
    filled(outputs / "mini" / "t", run_json="{}")  # finished, and nobody knows of what
    run._make_room(outputs / "mini" / "t", "five")
    assert (outputs / ".previous" / "mini" / "t" / "run.json").exists()


def test_a_stage_is_up_to_date_by_its_key_and_make_is_told_by_the_time_of_its_record(outputs, monkeypatch):
    record = outputs / "mini" / "02_prep" / "run.json"
    filled(record.parent, run_json="{}")
    os.utime(record, (1, 1))
    told = SimpleNamespace(record={"key": "new"})
    asked = SimpleNamespace(name="mini")
    monkeypatch.setattr(run, "_sources", lambda profile: {"own": "digest"} if profile is asked else {})
    monkeypatch.setattr(
        run.records, "read_run", lambda name, stage: told.record if (name, stage) == ("mini", "02_prep") else 0
    )
    keys = {"01_download": "other", "02_prep": "new"}
    monkeypatch.setattr(run.keys, "stage_keys", lambda profile, sources: keys if sources == {"own": "digest"} else {})
    assert run._is_up_to_date("02_prep", asked) and record.stat().st_mtime > 1
    os.utime(record, (1, 1))
    told.record = {"key": "old"}
    assert not run._is_up_to_date("02_prep", asked)
    told.record = None
    assert not run._is_up_to_date("02_prep", asked) and record.stat().st_mtime == 1


def test_what_another_run_made_while_this_one_waited_is_not_made_again(monkeypatch):
    answers, turns = [False, True], []
    monkeypatch.setattr(run, "_is_up_to_date", lambda stage, asked: answers.pop(0))
    monkeypatch.setattr(run, "_turn", run.contextlib.contextmanager(lambda *given: (yield turns.append(given))))
    monkeypatch.setattr(run, "_make_room", lambda *_: pytest.fail("made again"))
    assert run.run_stage("02_prep", "mini") is False
    assert turns == [("02_prep", "mini")] and answers == []


def test_pages_lead_home_and_the_last_stage_is_the_report(outputs, monkeypatch):
    monkeypatch.setattr(run.pages, "report", lambda notebook, home: f"{notebook.name} leads to {home}")
    for stage in ("09_report", "08_evaluate@softmax"):
        (outputs / "mini" / stage).mkdir(parents=True)
        run._render(outputs / "mini" / stage / f"{stage}.ipynb")
    found = {str(path.relative_to(outputs)): path.read_text() for path in outputs.rglob("*.html")}
    assert found == {
        "mini/08_evaluate@softmax/08_evaluate@softmax.html": "08_evaluate@softmax.ipynb leads to ../index.html",
        "mini/09_report/09_report.html": "09_report.ipynb leads to ../index.html",
        "mini/report.html": "09_report.ipynb leads to index.html",
    }


RULES = """\
stages: $(RESULTS)/01_download/run.json $(RESULTS)/02_prep/run.json
\t@:
$(RESULTS)/01_download/run.json: $(RESULTS)/.keys/01_download.key
\t@$(PY) -m sv_utils.run '01_download' --profile 'mine'
$(RESULTS)/02_prep/run.json: $(RESULTS)/.keys/02_prep.key | $(RESULTS)/01_download/run.json
\t@$(PY) -m sv_utils.run '02_prep' --profile 'mine'
"""


def test_make_is_told_a_rule_for_each_stage_and_a_changed_key_alone(outputs, monkeypatch):
    stages = [
        SimpleNamespace(name="01_download", upstream=()),
        SimpleNamespace(name="02_prep", upstream=("01_download",)),
    ]
    asked, keys = SimpleNamespace(name="mine", stages=stages), {"01_download": "a", "02_prep": "b"}
    monkeypatch.setattr(run, "_sources", lambda profile: "sources")
    monkeypatch.setattr(run.keys, "stage_keys", lambda *given: keys if given == (asked, "sources") else {})
    run.write_keys(asked)
    folder = outputs / "mine" / ".keys"
    files = {"01_download.key": "a", "02_prep.key": "b", "stages.mk": RULES}
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    keys["02_prep"] = "c"
    run.write_keys(asked)
    assert (folder / "02_prep.key").read_text() == "c"
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime > 1} == {"02_prep.key"}


def test_the_command_does_what_it_is_asked_and_ends_its_kernel_by_any_signal(monkeypatch, capsys):
    endings, seen = {}, []
    monkeypatch.setattr(run.signal, "signal", lambda number, action: endings.update({number: action}))
    monkeypatch.setattr(run, "write_keys", lambda profile: seen.append(("keys", profile.name)))
    monkeypatch.setattr(run, "run_stage", lambda *given: seen.append(given))
    assert run.main(["--keys", "ocean"]) == run.main(["02_prep", "--profile", "ocean"]) == run.main(["02_prep"]) == 0
    assert seen == [("keys", "ocean"), ("02_prep", "ocean"), ("02_prep", "mini")]
    assert endings.keys() == {signal.SIGTERM, signal.SIGINT}
    for action in endings.values():
        with pytest.raises(KeyboardInterrupt):
            action()
    assert run.main(["--list", "mini"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{stage.name:32} {' '.join(stage.upstream)}" for stage in Profile.read("mini").stages]
    assert lines[1] == f"{'02_prep':32} 01_download" and run.main([]) == 2
