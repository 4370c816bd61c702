"""The birth certificate of a result."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from sv_utils.base import paths
from sv_utils.pipeline import records


def test_the_record_of_a_run(house):
    start = datetime.now(UTC) - timedelta(seconds=90)
    folder = paths.stage_dir("mini", "02_prep")
    folder.mkdir(parents=True)
    records.hand_on(folder, {"store": "ab12"})
    records.write_run("k1", {"profile": "mini", "stage": "02_prep", "seed": 7}, start, records.facts())
    record = json.loads((folder / "run.json").read_text())
    digest = hashlib.sha256(b'{"store": "ab12"}').hexdigest()
    assert (record["key"], record["seed"], record["result"]) == ("k1", 7, digest)
    assert record["data"] == {"result": digest, "digests": {"store": "ab12"}}
    assert record["parameters"] == {"profile": "mini", "stage": "02_prep", "seed": 7}
    assert record["start"] == start.isoformat()
    assert datetime.fromisoformat(record["end"]) - start == timedelta(seconds=record["seconds"])
    assert record["packages"]["numpy"] == np.__version__
    assert record["cores"] >= 1 and record["memory"] > 2**28
    assert records.read_run("mini", "02_prep") == record


def test_the_record_of_a_run_holds_no_personal_key(house, monkeypatch):
    monkeypatch.setenv("SV_VOXCELEB_KEY", "k3y of mine")
    asked = {"profile": "mini", "stage": "01_download", "source": "https://host/k3y%20of%20mine/{file}"}
    records.write_run("k1", asked, datetime.now(UTC), {"platform": "k3y of mine"})
    record = records.read_run("mini", "01_download")
    assert (record["parameters"]["source"], record["platform"]) == ("https://host/.../{file}", "...")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_a_missing_or_broken_record_is_no_finished_run(house, text):
    folder = paths.stage_dir("mini", "02_prep")
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "run.json").write_text(text)
    assert records.read_run("mini", "02_prep") is None


def test_git_state_is_told_also_without_git(house, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(house.parent))
    assert records.facts()["git"] is None
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=house, check=True)
    clean = records.facts()["git"]
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (house / "params/mini.yaml").write_text("")
    assert records.facts()["git"] == {"commit": clean["commit"], "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert records.facts()["git"] is None


def test_installed_packages_are_compared_with_a_lock(tmp_path):
    lock = tmp_path / "a.lock"
    lock.write_text(
        f"numpy=={np.__version__} \\\n    --hash=sha256:00\n"
        "pyyaml==0.1 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\n"
        "no-such-package==1.0\nno-such-other==1.0 ; python_full_version < '3'\n# a comment==1\n"
    )
    missing, other = records.lock_differences(lock)
    assert missing == ["no-such-package"]
    assert len(other) == 1 and other[0].startswith("pyyaml ") and other[0].endswith("(locked: ==0.1)")


def test_the_key_of_a_stage_that_runs_is_read_from_its_folder(house):
    assert records.read_key("mini", "03_train_softmax") == ""
    folder = paths.stage_dir("mini", "03_train_softmax")
    folder.mkdir(parents=True)
    (folder / "key").write_text("ab12")
    assert records.read_key("mini", "03_train_softmax") == "ab12"


def test_what_differs_is_named_with_both_values_in_short():
    assert records.changed({"a": {"b": 1}}, {"a": 5}, "p") == ["other p.a: {'b': 1}; 5"]
    assert records.changed({"speeds": [1, 0.9]}, {}, "p") == ["other p.speeds: 1 0.9; not recorded"]
    assert records.changed({"a": "x" * 60}, {"a": "x" * 61}, "p") == [f"other p.a: {'x' * 60}; {'x' * 59}…"]


def test_lines_of_a_program_are_text_and_none_where_it_fails():
    assert records._lines("printf", "H100, 81559\\nA10\\n") == ["H100, 81559", "A10"]
    assert records._lines("false") == records._lines("no program") == []
