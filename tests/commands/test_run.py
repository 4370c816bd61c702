import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
from unittest import mock

import nbformat
import pytest
import tiny_repository
from tiny_repository import replace, run, wait_for

from sv_utils import run as runner
from sv_utils.pipeline.profile import Profile

STAGE = "03_train_softmax"


@pytest.fixture
def house(tmp_path):
    return tiny_repository.build(tmp_path)


def folder(house):
    return house / "outputs/mini" / STAGE


def finish(house, *words):
    process = run(house, *words)
    output, error = process.communicate(timeout=120)
    return process.returncode, output, error


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_notebook_finds_what_was_named_from_the_folder_of_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {name: f"here/{name}" for name in ("SV_OUTPUTS", "SV_PARAMS", "SV_MIRROR")}
    with mock.patch.dict(os.environ, names | {"JUPYTER_PATH": "elsewhere", "TQDM_DISABLE": "0"}):
        runner._set_environment()
        assert {name: os.environ[name] for name in names} == {name: str(tmp_path / "here" / name) for name in names}
        assert "JUPYTER_PATH" not in os.environ and os.environ["TQDM_DISABLE"] == "0"  # what somebody set stays


def test_own_recordings_count_in_every_key_of_a_run_and_make_its_folder_private(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    asked, own, counted = Profile.read("mini"), {"own": "digest of a tree"}, []

    def stage_keys(profile, sources=None):
        counted.append(sources)
        return dict.fromkeys((stage.name for stage in profile.stages), "key")

    monkeypatch.setattr(runner, "_sources", lambda profile: own)
    monkeypatch.setattr(runner.keys, "stage_keys", stage_keys)
    monkeypatch.setattr(runner.pages, "write_index", lambda profile, sources=None: counted.append(sources))
    for name in ("_execute", "_render"):
        monkeypatch.setattr(runner, name, lambda *_: None)
    assert runner.run_stage("02_prep", "mini") and not runner.run_stage("02_prep", "mini")
    runner.write_keys(asked)
    assert len(counted) >= 5 and all(sources == own for sources in counted)
    assert (tmp_path / "mini").stat().st_mode & 0o777 == 0o700


def test_a_stage_leaves_its_notebook_its_page_and_its_record(house):
    folder(house).mkdir(parents=True)
    for name, text in {"key": "old", "model.txt": "old", "run.json": '{"key": "old"}'}.items():
        (folder(house) / name).write_text(text)
    code, output, error = finish(house, STAGE)
    assert (code, error) == (0, "")
    assert (house / "outputs/.previous/mini" / STAGE / "model.txt").read_text() == "old"  # put by, not resumed
    assert [line.split(" in ")[0] for line in output.splitlines()] == [f"{STAGE}: starts (mini)", f"{STAGE}: done"]
    names = ["03_train_softmax.html", "03_train_softmax.ipynb", "checkpoint", "key", "model.txt", "run.json"]
    assert sorted(path.name for path in folder(house).iterdir()) == names
    assert (folder(house) / "model.txt").read_text() == "5 7 2 False"
    record = json.loads((folder(house) / "run.json").read_text())
    expected = {"seed": 7, "epochs": 2, "fail": "", "learning_rate": 0.1, "profile": "mini", "stage": STAGE}
    expected["architecture"] = {"backbone": "resnet18"}
    assert record["parameters"] == expected
    assert record["key"] == (folder(house) / "key").read_text()
    for_make = house / "outputs/mini/.keys"  # written anew, for the stages after this one count what it hands on
    assert (for_make / f"{STAGE}.key").read_text() == record["key"] and (for_make / "09_report.key").exists()
    notebook = nbformat.read(folder(house) / f"{STAGE}.ipynb", as_version=4)
    assert "learning_rate = 0.1" in notebook.cells[2].source  # the resolved parameters are in the report, defaults too
    page = (folder(house) / f"{STAGE}.html").read_text()
    assert "<h1" in page and "require.min.js" not in page

    before = (folder(house) / "run.json").read_bytes()
    os.utime(folder(house) / "run.json", (1, 1))
    assert finish(house, STAGE) == (0, "", "")
    assert (folder(house) / "run.json").read_bytes() == before
    assert (folder(house) / "run.json").stat().st_mtime > 1  # make compares its time with that of the key


def test_a_person_at_a_terminal_sees_what_the_notebook_prints_and_a_batch_does_not(house):
    assert "mini 01_download ['mini']" not in finish(house, "01_download")[1]
    (house / "outputs/mini/01_download/run.json").unlink()
    reader, terminal = pty.openpty()
    line = [sys.executable, "-m", "sv_utils.run", "01_download"]
    done = subprocess.run(line, cwd=house, env=tiny_repository.environment(), stdout=terminal, timeout=120)
    os.close(terminal)
    assert done.returncode == 0 and "mini 01_download ['mini']" in os.read(reader, 100_000).decode()
    os.close(reader)


@pytest.mark.parametrize(
    ("fail", "code", "said", "key"),
    [("request", 2, "the cause", "another"), ("bug", 1, "KeyError: 'the ...'", "cause")],
)
def test_a_failing_notebook_is_told_in_one_sentence_and_leaves_no_target(house, monkeypatch, fail, code, said, key):
    """Nor a personal key, wherever the notebook or its error shows it."""
    monkeypatch.setenv("SV_VOXCELEB_KEY", key)
    replace(house / "params/mini.yaml", "03_train_softmax: {}", f"03_train_softmax: {{fail: {fail}}}")
    folder(house).mkdir(parents=True)
    for name, text in {"key": "old", f"{STAGE}.ipynb": "old", "run.json": '{"key": "old"}'}.items():
        (folder(house) / name).write_text(text)
    returned, _, error = finish(house, STAGE)
    partial = folder(house) / f"{STAGE}.partial.ipynb"
    assert returned == code
    assert error == f"sv_utils.run: {STAGE}: {said} (the notebook as far as it came: {partial})\n"
    assert sorted(path.name for path in folder(house).iterdir()) == [partial.name, "checkpoint", "key"]
    assert said.split(": ")[-1].strip("'") in partial.read_text()
    assert key not in partial.read_text()


def test_a_killed_stage_leaves_no_target_and_no_kernel_and_is_resumed(house):
    (house / "outputs/mini").mkdir(parents=True)
    (house / "outputs/mini/hold").touch()
    process = run(house, STAGE)
    wait_for((folder(house) / "checkpoint").exists)
    wait_for((folder(house) / "checkpoint").read_text)
    kernel = int((folder(house) / "checkpoint").read_text())
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()
    wait_for(lambda: not alive(kernel))
    left = {path.name for path in folder(house).iterdir()}
    assert left == {f"{STAGE}.partial.ipynb", "checkpoint", "key", "kernel.log"}

    (house / "outputs/mini/hold").unlink()
    code, output, _ = finish(house, STAGE)
    assert (code, tiny_repository.started(output)) == (0, [STAGE])
    assert (folder(house) / "model.txt").read_text() == "5 7 2 True"
    assert not (folder(house) / f"{STAGE}.partial.ipynb").exists()


def test_a_terminated_stage_ends_its_kernel_first(house):
    (house / "outputs/mini").mkdir(parents=True)
    (house / "outputs/mini/hold").touch()
    process = run(house, STAGE)
    wait_for((folder(house) / "checkpoint").exists)
    wait_for((folder(house) / "checkpoint").read_text)
    kernel = int((folder(house) / "checkpoint").read_text())
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "sv_utils.run: interrupted\n")
    assert not alive(kernel)
    assert not (folder(house) / "run.json").exists()


def test_trainings_queue_and_a_killed_holder_frees_the_queue(house):
    lock = house / "outputs/.training.lock"
    lock.parent.mkdir()
    with contextlib.ExitStack() as held:
        file = held.enter_context(lock.open("w"))
        file.write("04_train_contrastive (ocean, process 12)")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        process = run(house, STAGE)
        waits = process.stdout.readline()
        other = run(house, "01_download")
        assert other.stdout.readline() == "01_download: starts (mini)\n"  # what is no training does not wait
        other.kill()
        other.communicate()
        assert not folder(house).exists()
        process.kill()
        process.communicate()
        holder = run(house, STAGE)
        assert holder.stdout.readline() == waits
    assert waits == f"{STAGE}: waits for 04_train_contrastive (ocean, process 12)\n"
    assert holder.communicate(timeout=120)[0].splitlines()[0] == f"{STAGE}: starts (mini)"
    assert holder.returncode == 0
    assert lock.read_text() == f"{STAGE} (mini, process {holder.pid})"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["03_train_softmx"], "the profile has no stage '03_train_softmx' (did you mean '03_train_softmax'?)"),
        ([STAGE, "--profile", "mimi"], "there is no params/mimi.yaml (did you mean 'mini'?)"),
        (["--keys", "mimi"], "there is no params/mimi.yaml (did you mean 'mini'?)"),
        ([], "a stage is missing; python -m sv_utils.run --list PROFILE names them"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence_before_anything_is_made(house, words, sentence):
    code, output, error = finish(house, *words)
    assert (code, output) == (2, "")
    assert error.startswith("sv_utils.run: ") and error.endswith(f"{sentence}\n") and error.count("\n") == 1
    assert not (house / "outputs").exists()


def test_keys_are_rewritten_only_where_they_changed(house):
    assert finish(house, "--keys", "mini")[0] == 0
    keys = house / "outputs/mini/.keys"
    names = ["01_download", "02_prep", "03_train_softmax", "04_train_contrastive", "08_evaluate@contrastive"]
    names += ["08_evaluate@softmax", "09_report"]
    assert sorted(path.name for path in keys.iterdir()) == [*(f"{name}.key" for name in names), "stages.mk"]
    for path in keys.iterdir():
        os.utime(path, (1, 1))
    replace(house / "params/mini.yaml", "margin: 0.3", "margin: 0.4")
    assert finish(house, "--keys", "mini")[0] == 0
    written = sorted(path.stem for path in keys.iterdir() if path.stat().st_mtime > 1)
    assert written == ["04_train_contrastive", "08_evaluate@contrastive", "09_report"]


def test_stages_are_listed_with_their_needs(house):
    code, output, _ = finish(house, "--list", "mini")
    assert code == 0
    assert output.splitlines()[4].split() == ["08_evaluate@softmax", "02_prep", "03_train_softmax"]
