import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_repository
from tiny_repository import REAL, environment, make, replace, started, wait_for

ALL = ["01_download", "02_prep", "03_train_softmax", "04_train_contrastive", "08_evaluate@contrastive"]
ALL += ["08_evaluate@softmax", "09_report"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A tiny repository after its first ``make -j4 reproduce``, and what that printed."""
    folder = tiny_repository.build(tmp_path_factory.mktemp("make") / "repository")
    return folder, make(folder, "-j4", "reproduce")


@pytest.fixture
def house(first, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(first[0], tmp_path / "repository")


@pytest.fixture(scope="module")
def house_untouched(tmp_path_factory):
    """Nothing but the real Makefile."""
    folder = tmp_path_factory.mktemp("makefile")
    shutil.copyfile(REAL / "Makefile", folder / "Makefile")
    return folder


def records(house: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in house.glob("outputs/mini/*/run.json")}


def test_reproduce_runs_every_stage_and_ends_with_the_table(first):
    house, done = first
    assert (done.returncode, done.stderr) == (0, "")
    assert started(done.stdout) == ALL
    assert done.stdout.endswith("model,eer\n")
    assert sorted(records(house)) == ALL
    assert records(house)["08_evaluate@softmax"]["data"] == {"model": "softmax"}


def test_stages_run_after_what_they_need_and_trainings_one_at_a_time(first):
    run = records(first[0])
    for stage, upstream in {
        "02_prep": ["01_download"],
        "03_train_softmax": ["02_prep"],
        "04_train_contrastive": ["02_prep"],
        "08_evaluate@softmax": ["03_train_softmax"],
        "09_report": ["08_evaluate@softmax", "08_evaluate@contrastive"],
    }.items():
        assert all(run[name]["end"] <= run[stage]["start"] for name in upstream)
    turns = (first[0] / "outputs/turns.txt").read_text().split("\n")
    assert [turn.split(" ")[0] for turn in turns if turn] == ["enter", "leave", "enter", "leave"]


def test_a_finished_run_does_nothing_also_when_every_file_is_touched(house):
    before = records(house)
    again = make(house, "reproduce")
    assert (again.returncode, again.stdout) == (0, "model,eer\n")
    for number, path in enumerate(sorted(house.rglob("*"), reverse=True)):  # the keys last: newer than the results
        os.utime(path, (1_000_000_000 + number,) * 2)
    touched = make(house, "-j4", "reproduce")
    assert (touched.returncode, touched.stdout) == (0, "model,eer\n")
    assert records(house) == before


MEANINGLESS = [
    ("sv_utils/losses/softmax.py", "return 0.1", "return 0.1  # said"),
    ("sv_utils/losses/softmax.py", "def loss():", 'def loss():\n    """Said."""'),
    ("sv_utils/models/backbones/ecapa.py", "512", "1024"),  # no profile names it
    ("sv_utils/base/fetch.py", "ATTEMPTS = ", "ATTEMPTS = 2 * "),
    ("sv_utils/corpora/ocean.py", "MD5", "TREE = '1'\nMD5"),
]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        (MEANINGLESS, []),
        (
            [("params/mini.yaml", "margin: 0.3", "margin: 0.4")],
            ["04_train_contrastive", "08_evaluate@contrastive", "09_report"],
        ),
        ([("sv_utils/corpora/mini.py", "'a'", "'A'")], ["01_download"]),  # hands on the same as before
    ],
    ids=["nothing", "a parameter", "the same bytes"],
)
def test_make_runs_what_a_change_means_and_nothing_else(house, edits, expected):
    for file, old, new in edits:
        replace(house / file, old, new)
    done = make(house, "reproduce")
    assert (done.returncode, started(done.stdout)) == (0, expected)
    assert not expected or started(make(house, "reproduce").stdout) == []


def test_make_notices_recordings_that_changed_without_a_checksum(house):
    tree = house / "sv_utils/corpora/mini.py"
    tree.write_text(tree.read_text() + "TREE = open(__file__ + '.tree').read()\n")
    tree.with_name("mini.py.tree").write_text("1")
    make(house, "reproduce")
    assert started(make(house, "reproduce").stdout) == []
    tree.with_name("mini.py.tree").write_text("2")
    assert started(make(house, "reproduce").stdout) == ["01_download"]
    assert (house / "outputs/mini").stat().st_mode & 0o777 == 0o700  # speech of the user's own


def test_a_redrawn_figure_re_runs_the_report_also_after_a_kill(house):
    replace(house / "sv_utils/reports/figures.py", "thin", "thick")
    line = ["make", f"PY={sys.executable}", "reproduce"]
    killed = subprocess.Popen(line, cwd=house, env=environment(), start_new_session=True, stdout=subprocess.PIPE)
    wait_for((house / "outputs/mini/09_report/09_report.partial.ipynb").exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "09_report" not in records(house)
    again = make(house, "reproduce")
    assert again.returncode == 0
    assert started(again.stdout) == ["09_report"]


def test_the_index_shows_every_stage_done(first):
    page = (first[0] / "outputs/mini/index.html").read_text("utf-8")
    assert sorted(re.findall(r"<g class='done'><a[^>]*><title>([^<]+)", page)) == ALL
    assert all(record["key"][:12] in page for record in records(first[0]).values())
    assert page.index("mean over seeds") < page.index("<h2>Stages</h2>")


@pytest.mark.parametrize("page", ["report.html", "index.html"])
def test_a_lost_page_is_made_again(house, page):
    (house / "outputs/mini" / page).unlink()
    assert started(make(house, "reproduce").stdout) == ["09_report"]
    assert "<h1" in (house / "outputs/mini" / page).read_text()


def test_a_lost_or_failed_stage_is_run_again_and_nothing_else(house):
    shutil.rmtree(house / "outputs/mini/02_prep")
    replace(house / "params/mini.yaml", "margin: 0.3", "margin: 0.4\n  fail: work")
    failed = make(house, "reproduce", "--keep-going")
    assert failed.returncode == 2
    assert started(failed.stdout) == ["02_prep", "04_train_contrastive"]
    assert "sv_utils.run: 04_train_contrastive: the cause (" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "model,eer" not in failed.stdout
    assert "04_train_contrastive" not in records(house)


def test_another_folder_for_the_outputs(house, monkeypatch):
    shutil.move(house / "outputs", house / "elsewhere")
    monkeypatch.setattr(tiny_repository, "environment", lambda: environment() | {"SV_OUTPUTS": "elsewhere"})
    again = make(house, "reproduce")
    assert (again.returncode, again.stdout) == (0, "model,eer\n")
    assert not (house / "outputs").exists()
    monkeypatch.setattr(tiny_repository, "environment", lambda: environment() | {"SV_OUTPUTS": "else where"})
    assert "SV_OUTPUTS may not hold spaces" in make(house, "reproduce").stderr


def test_an_unknown_profile_is_refused(house):
    refused = make(house, "reproduce", "PROFILE=mimi")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == "sv_utils.run: there is no params/mimi.yaml (did you mean 'mini'?)"
    assert not (house / "outputs/mimi").exists()


def test_clean_asks_first(house):
    kept = make(house, "clean", input="\n")
    assert kept.returncode == 0 and (house / "outputs/mini").exists()
    assert str(house / "outputs") in kept.stdout
    make(house, "clean", input="y\n")
    assert not (house / "outputs").exists()
    assert make(house, "clean", input="").stdout == "make clean: there is no outputs\n"


def test_verify_without_recordings_is_refused(house):
    refused = make(house, "verify", "REC1=a.wav")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0] == "make verify: name two recordings: make verify REC1=a.wav REC2=b.wav"


def test_verify_that_finds_different_speakers_is_no_failure_of_make(house):
    for code, of_make in [(0, 0), (1, 0), (2, 2)]:
        (house / "sv_utils/verify.py").write_text(f"raise SystemExit({code})\n")
        assert make(house, "verify", "REC1=a", "REC2=b").returncode == of_make


def test_verify_passes_names_on_as_they_are(house):
    """Also those that make or the shell would take for a command of theirs."""
    (house / "sv_utils/verify.py").write_text("import sys\nprint(sys.argv[1:])\n")
    names = ["it's $(shell touch made) one.wav", 'a "$HOME" `touch made`; touch made.wav']
    done = make(house, "verify", f"REC1={names[0]}", f"REC2={names[1]}", "MODEL=my $(shell touch made) model.keras")
    assert done.stdout == f"{[*names, '--model', 'my $(shell touch made) model.keras']}\n"
    assert not list(house.glob("made*"))


@pytest.mark.parametrize("name", ["SV_OUTPUTS", "PROFILE", "MODULE"])
@pytest.mark.parametrize("value", ["$(shell\ttouch made)", "`touch`", "a;touch", "a'b", "a%", "a:b", "#a"])
def test_names_that_make_or_the_shell_would_act_upon_are_refused(house_untouched, name, value):
    for words, more in [([f"{name}={value}"], {}), ([], {name: value})]:
        line = ["make", f"PY={sys.executable}", *words, "help"]
        done = subprocess.run(line, cwd=house_untouched, env=environment() | more, capture_output=True, text=True)
        assert done.returncode == 2 and re.search(rf"{name} may not hold (a \S|spaces) for make", done.stderr)
    assert not list(house_untouched.glob("made*"))


def test_setup_installs_the_lock_once(house):
    """With a stand-in for the interpreter, which writes down how it is called."""
    (house / "requirements.lock").write_text("a==1\n")
    (house / "requirements-gpu.lock").write_text("a==1\nb==1\n")
    python = house / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" >> calls.txt\n'
        'case "$*" in *"venv --clear"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;; esac\n'
    )
    python.chmod(0o755)

    def calls(*words: str) -> list[str]:
        (house / "calls.txt").write_text("")
        line = ["make", f"PYTHON={python}", "setup", *words]
        done = subprocess.run(line, cwd=house, env=environment(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return (house / "calls.txt").read_text().splitlines()

    pip = "-m pip install -qq --disable-pip-version-check"
    own = f"{pip} --no-deps --no-build-isolation --editable ."
    assert calls()[1:] == ["-m venv --clear .venv", f"{pip} --require-hashes --requirement requirements.lock", own]
    os.utime(house / "requirements.lock", (2_000_000_000,) * 2)
    assert calls() == []
    assert calls("GPU=1")[2:] == [f"{pip} --require-hashes --requirement requirements-gpu.lock", own]
    assert calls() == []  # what is installed stays until it is asked for by name
    assert calls("GPU=0")[2:] == [f"{pip} --require-hashes --requirement requirements.lock", own]
    (house / "requirements.lock").write_text("a==2\n")
    assert calls()[2:] == [f"{pip} --require-hashes --requirement requirements.lock", own]


@pytest.mark.parametrize(("tested", "reproduced", "code"), [(0, 0, 0), (1, 0, 1), (0, 2, 1)])
def test_ci_types_both_commands_and_ends_with_the_summary_of_the_tests(tmp_path, tested, reproduced, code):
    (tmp_path / "make").write_text(
        f"#!/bin/sh\n[ $1 = test ] && {{ echo '==== 3 passed in 0.12s ===='; exit {tested}; }}\n"
        f"echo 'a row that passed'; exit {reproduced}\n"
    )
    (tmp_path / "make").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([REAL / ".ci/run"], env=environment() | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.splitlines()[1] == "a row that passed"
    assert done.stdout.splitlines()[-1] == "==== 3 passed in 0.12s ===="


def test_an_old_python_is_refused(house):
    old = house / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    line = ["make", f"PYTHON={old}", "setup"]
    refused = subprocess.run(line, cwd=house, env=environment(), capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[0].startswith(f"make setup: {old} is no Python 3.11 or newer; name one: ")
    assert not (house / ".venv").exists()


def test_help_names_every_target(house):
    listed = {line.split()[1] for line in make(house).stdout.splitlines()}
    assert listed >= {"help", "setup", "reproduce", "test", "verify", "lab", "tensorboard", "check", "doctor", "clean"}


def test_git_setup_strips_notebooks_on_commit_and_compares_them_as_notebooks(house):
    shutil.copy(REAL / ".gitattributes", house)

    def git(*words: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", *identity, *words], cwd=house, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "-q")
    assert make(house, "git-setup").returncode == 0
    executed = json.loads((house / "outputs/mini/02_prep/02_prep.ipynb").read_text())
    target = house / "notebooks/02_prep.ipynb"
    target.write_text(json.dumps(executed))
    git("add", "notebooks/02_prep.ipynb")
    stored = json.loads(git("show", ":notebooks/02_prep.ipynb"))
    assert [cell["id"] for cell in stored["cells"]] == [cell["id"] for cell in executed["cells"]]
    assert "papermill" in executed["metadata"] and "papermill" not in json.dumps(stored["metadata"])
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in stored["cells"])
    git("commit", "-qm", "one")
    executed["cells"][-1]["source"] = ["changed = True"]
    target.write_text(json.dumps(executed))
    shown = git("diff")
    assert "nbdiff" in shown and "changed = True" in shown and '"source"' not in shown
