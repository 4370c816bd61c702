"""The birth certificate of a result."""

import hashlib
import json
import platform
import subprocess
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from sv_utils.base import paths
from sv_utils.pipeline import records, rehearsal


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


def test_the_record_of_a_training_says_what_computed_it(house):
    """The devices, which the training left; what made it at the start; and whose run it is."""
    folder = paths.stage_dir("mini", "03_train_softmax")
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text('{"devices": ["CPU:0"]}')
    asked = {"profile": "mini", "stage": "03_train_softmax"}
    records.write_run("k1", asked, datetime.now(UTC), {"python": "3.11"})
    record = records.read_run("mini", "03_train_softmax")
    assert record | {"start": "", "end": "", "seconds": 0} == asked | {
        **{"key": "k1", "parameters": asked, "start": "", "end": "", "seconds": 0, "seed": None, "python": "3.11"},
        **{"data": None, "result": None, "engine": {"devices": ["CPU:0"]}},
    }
    assert (folder / "run.json").read_text().startswith('{\n "profile": "mini",\n')


def test_what_is_handed_on_is_the_same_in_any_order(tmp_path):
    results = []
    for digests in ({"store": "1", "manifest": "2"}, {"manifest": "2", "store": "1"}, {"manifest": "1", "store": "2"}):
        records.hand_on(tmp_path, digests)
        results.append(json.loads((tmp_path / "data.json").read_text())["result"])
    assert results[0] == results[1] != results[2]
    assert (tmp_path / "data.json").read_text().startswith('{\n "result": ')


def test_what_made_a_result_is_told_of_system_gpus_and_packages(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    installed = [SimpleNamespace(name="Typing_Extensions", version="4"), SimpleNamespace(name="av", version="2")]
    monkeypatch.setattr(records.importlib.metadata, "distributions", lambda: installed)
    found = records.facts()
    assert (found["python"], found["platform"]) == (platform.python_version(), platform.platform())
    assert found["gpus"] == ["--query-gpu=name,memory.total,driver_version --format=csv,noheader"]
    assert list(found["packages"].items()) == [("av", "2"), ("typing-extensions", "4")]
    assert {**found, "engine": {}}.keys() == {*records.ORIGINS, "memory", "packages"}  # each can be compared


def test_the_record_of_a_run_holds_no_personal_key(house, monkeypatch):
    monkeypatch.setenv("SV_VOXCELEB_KEY", "k3y of mine")
    asked = {"profile": "mini", "stage": "01_download", "source": "https://host/k3y%20of%20mine/{file}"}
    records.write_run("k1", asked, datetime.now(UTC), {"platform": "k3y of mine"})
    record = records.read_run("mini", "01_download")
    assert (record["parameters"]["source"], record["platform"]) == ("https://host/.../{file}", "...")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "5", '"key"'])
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


def test_installed_packages_are_compared_with_a_lock(tmp_path, another_encoding):
    lock = tmp_path / "a.lock"
    lock.write_text(
        "# a comment of the authors of é==1\nNo-Such-Package==1.0\nno-such-other==1.0 ; python_full_version < '3'\n"
        f"numpy=={np.__version__} \\\n    --hash=sha256:00\n"
        "pyyaml==0.1 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\nno_such_third==1.0\n",
        "utf-8",
    )
    missing, other = records.lock_differences(lock)
    assert missing == ["No-Such-Package", "no_such_third"]
    assert len(other) == 1 and other[0].startswith("pyyaml ") and other[0].endswith("(locked: ==0.1)")


def test_the_key_of_a_stage_that_runs_is_read_from_its_folder(house):
    assert records.read_key("mini", "03_train_softmax") == ""
    folder = paths.stage_dir("mini", "03_train_softmax")
    folder.mkdir(parents=True)
    (folder / "key").write_text("ab12")
    assert records.read_key("mini", "03_train_softmax") == "ab12"


def test_what_differs_is_named_with_both_values_in_short():
    assert records.changed({"a": {"b": 1}}, {"a": 5}, "p") == ["other p.a: {'b': 1}; 5"]
    assert records.changed({"a": 1, "b": {"c": 2}}, {"a": 2, "b": {"c": 3}}, "p") == [
        "other p.a: 1; 2",
        "other p.b.c: 2; 3",
    ]
    lines = ["other caches: {'L1': '48K'}; not recorded"]
    assert records.differences({"caches": {"L1": "48K"}}, {}) == lines
    one, other = ({"seed": seed, "key": f"k{seed}", "data": {"result": f"r{seed}"}} for seed in (1, 2))
    assert records.differences(one, other) == [
        "other seed: 1; 2",
        "other content key: k1; k2",
        "other data.result: r1; r2",
    ]
    assert records.changed({"a": 5}, {"a": {"b": 1}}, "p") == ["other p.a: 5; {'b': 1}"]
    assert records.changed({"speeds": [1, 0.9]}, {}, "p") == ["other p.speeds: 1 0.9; not recorded"]
    assert records.changed({"a": "x" * 60}, {"a": "x" * 61}, "p") == [f"other p.a: {'x' * 60}; {'x' * 59}…"]


def test_lines_of_a_program_are_text_and_none_where_it_fails():
    assert records._lines("printf", "H100, 81559\\nA10\\n") == ["H100, 81559", "A10"]
    assert records._lines("sh", "-c", "echo half; exit 1") == records._lines("no program") == []


def test_a_program_that_hangs_is_given_up(monkeypatch):
    def hang(line, timeout, **_more):
        assert 1 < timeout < 60
        raise subprocess.TimeoutExpired(line, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert records._lines("nvidia-smi") == [] == rehearsal.gpus()
