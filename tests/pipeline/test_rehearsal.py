"""What a rehearsal makes small and what it leaves alone, and how it tells the way of a stage."""

import contextlib
import dataclasses
import os
import resource
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import yaml

from sv_utils.base import paths
from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import Stage

PROFILES = sorted(path.stem for path in (paths.REPO / "params").glob("*.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_resolves_made_small(name, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "gpus", lambda: [(0, 8 * 2**30)])
    real = Profile.read(name)
    real.parameters["01_download"]["source"] = "/archives"
    small = rehearsal.small(real, cores=2)
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(rehearsal._copied(small), sort_keys=False))
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    made = Profile.read(name)
    assert made.parameters["01_download"]["source"] == ""  # the miniatures' own
    assert list(made.models) == list(real.models)
    for stage in filter(lambda stage: "_train_" in stage, made.parameters):
        own, whole = made.parameters[stage], real.parameters[stage]
        kept = own.keys() - {"phases", "engine"}
        assert own["engine"] == whole["engine"] | {"needs_gpu": False}  # it runs on this machine's device
        assert {key: own[key] for key in kept} == {key: whole[key] for key in kept}
        for phase, long in zip(own["phases"], whole["phases"], strict=True):
            changed = {key for key in phase if phase[key] != long[key]}
            assert changed <= {"epochs", "steps_per_epoch", "warmup_epochs", "average_last", "margin_start_epoch"} | {
                "margin_end_epoch"
            }
            assert phase["epochs"] * phase["steps_per_epoch"] >= 2 * (long["accumulate"] == 1) + long["accumulate"] - 1
    assert made.parameters["02_prep"]["workers"] <= 2
    assert all(len(own.get("cuts", [])) <= 1 for own in made.parameters.values())


def test_less_is_the_smaller_of_two_numbers_and_otherwise_what_is_said():
    assert [rehearsal._less(*asked) for asked in ((5, 2), (1, 2), ("all", 2))] == [2, 1, 2]


def test_batches_that_ask_for_a_gpu_have_few_crops_where_there_is_none(monkeypatch):
    """All else of the training stays; a profile that is for a CPU keeps its batches."""
    monkeypatch.setattr(rehearsal, "gpus", lambda: [])
    asked = Profile.read("voxceleb_modern_small")  # 8 batches of 32 to a step, then 4
    short, whole = rehearsal.small(asked, 2)["07_train_aam"], asked.parameters["07_train_aam"]
    sizes = ("batch_size", "accumulate", "epochs", "steps_per_epoch")
    assert [[phase[name] for name in sizes] for phase in short["phases"]] == [[4, 2, 2, 1], [4, 2, 2, 1]]
    assert [phase["crop_seconds"] for phase in short["phases"]] == [2.0, 6.0]
    assert short["architecture"] == whole["architecture"] and short["engine"]["precision"] == "mixed_bfloat16"
    assert short["engine"]["jit_compile"] is False and whole["engine"]["jit_compile"] is True
    fewer = {"batch_size": 32, "engine": whole["engine"]}
    assert rehearsal._short(fewer, whole["phases"][0] | {"batch_size": 3})["batch_size"] == 3
    cpu = rehearsal.small(Profile.read("mini"), 2)["03_train_softmax"]
    assert {phase["batch_size"] for phase in cpu["phases"]} == {0}


def test_each_notebook_has_less_to_do_where_it_declares_that(monkeypatch):
    monkeypatch.setattr(rehearsal, "gpus", lambda: [])
    asked = Profile.read("mini")
    asked.parameters["02_prep"] |= {"validation_speakers": 3, "workers": 8}  # fewer than a rehearsal's already
    small = rehearsal.small(asked, 2)
    evaluation, preparation, training = small["08_evaluate"], small["02_prep"], small["03_train_softmax"]
    assert [evaluation[name] for name in ("replicates", "qmf_trials", "players")] == [20, 200, 1]
    assert [preparation[name] for name in ("validation_speakers", "test_targets", "workers")] == [3, 20, 2]
    assert not {"profile", "stage"} & training.keys() and "replicates" not in preparation
    for stage in asked.models:
        del asked.parameters[f"08_evaluate@{stage}"]["players"]
    more = dataclasses.replace(asked, stages=(*asked.stages, Stage("10_verify", "10_verify", ())))
    assert rehearsal.small(more, 2)["08_evaluate"] == {key: evaluation[key] for key in evaluation if key != "players"}
    assert "10_verify" not in rehearsal.small(more, 2)  # it is not run


def test_batches_of_speakers_keep_their_size(monkeypatch):
    monkeypatch.setattr(rehearsal, "gpus", lambda: [])
    engine = {"needs_gpu": True, "jit_compile": True}
    assert rehearsal.has_few_crops({"engine": engine, "speakers_per_batch": 0})
    assert not rehearsal.has_few_crops({"engine": engine, "speakers_per_batch": 8})


def test_a_short_phase_comes_to_its_full_margin():
    long = {"epochs": 40, "accumulate": 1, "margin_start_epoch": 10.0, "margin_end_epoch": 20.0}
    short = {"epochs": 2, "steps_per_epoch": 1, "accumulate": 1, "margin_start_epoch": 0.0, "margin_end_epoch": 1.0}
    assert rehearsal.two_steps(long) == short


def test_a_stage_is_measured_and_its_failure_told(monkeypatch, capfd):
    """A page of it on the GPU is seen by its tool, which lets the stage end."""
    wait4, looked, ends = rehearsal.os.wait4, threading.Event(), []

    def ended(process, options):
        assert looked.wait(10)
        return *wait4(process, options)[:2], SimpleNamespace(ru_maxrss=1000)

    monkeypatch.setattr(rehearsal.os, "wait4", ended)

    def watch(most, stop):
        most[0] += 5
        looked.set()
        ends.append((stop.wait(10), time.sleep(0.02)))

    monkeypatch.setattr(rehearsal, "_watch", watch)
    lines = "echo shown; echo >&2; echo $A >&2; echo >&2; exit"
    bad, good = (rehearsal.measured("02_prep", ["/bin/sh", "-c", f"{lines} {code}"], {"A": "why"}) for code in (1, 0))
    host = 1000 * (1 if sys.platform == "darwin" else 1024)
    assert bad == rehearsal.Rehearsed("02_prep", False, bad.seconds, host, 5, "why")
    assert good == rehearsal.Rehearsed("02_prep", True, good.seconds, host, 5, "") and 0 < good.seconds < 60
    assert capfd.readouterr() == ("", "") and ends == [(True, None)] * 2  # the watch ends with its stage
    assert rehearsal.measured("02_prep", ["/bin/sh", "-c", "exit 3"], {}).said == "it ended with 3"


def test_a_stage_ends_with_its_rehearsal(monkeypatch):
    """Whatever ends that: a key pressed, say."""
    seen = []

    def interrupted(process, options):
        seen.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(rehearsal.os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rehearsal.measured("02_prep", ["/bin/sh", "-c", "exec 2>&-; exec sleep 5"], {"PATH": os.environ["PATH"]})
    with contextlib.suppress(ChildProcessError):  # it was waited for already
        assert os.WIFSIGNALED(os.waitpid(seen[0], 0)[1])


def test_the_memory_of_a_stage_is_that_of_its_process():
    found = rehearsal.measured("02_prep", [sys.executable, "-c", "data = bytearray(150_000_000)"], {}).host
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # which a process that it starts begins with
    assert 150e6 < found < max(1e9, 1.1 * own)


@pytest.mark.parametrize(("tool", "most"), [("nvidia-smi", 7), ("another", 0)])
def test_the_most_memory_in_use_on_a_gpu_is_kept_where_there_is_their_tool(tool, most, tmp_path, monkeypatch):
    (tmp_path / tool).write_text("")
    (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    looks, pauses, found = iter([[(3, 9), (7, 9)], [(4, 9)], []]), [], [0]
    monkeypatch.setattr(rehearsal, "gpus", lambda: next(looks))
    rehearsal._watch(found, SimpleNamespace(is_set=lambda: len(pauses) == 3, wait=pauses.append))
    assert found == [most] and pauses == [rehearsal.PAUSE] * (3 if most else 0)


def test_what_follows_a_failed_stage_is_not_run(tmp_path, monkeypatch):
    ran, folder = [], tmp_path / "not/yet"
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def measured(stage, command, environment):
        assert command == [sys.executable, "-m", "sv_utils.run", stage, "--profile", "mini"]
        assert environment["PYTHONPATH"] == str(paths.REPO) and environment["SV_PARAMS"] == str(folder / "params")
        assert (environment["TF_FORCE_GPU_ALLOW_GROWTH"], environment["PYTHONUNBUFFERED"]) == ("true", "1")
        ran.append((stage, environment["SV_MIRROR"], environment["SV_OUTPUTS"]))
        return rehearsal.Rehearsed(stage, stage != "03_train_softmax")

    monkeypatch.setattr(rehearsal, "measured", measured)
    for name in ("SV_MIRROR", "SV_OUTPUTS", "PYTHONPATH", "PYTHONUNBUFFERED", "TF_FORCE_GPU_ALLOW_GROWTH"):
        monkeypatch.setenv(name, "the user's own")  # which a rehearsal neither reads nor writes into
    mirror = {"SV_MIRROR": "release"}
    asked = Profile.read("mini")
    asked = dataclasses.replace(asked, stages=(*asked.stages, Stage("10_verify", "10_verify", ())))  # is not rehearsed
    found = {done.stage: done.passed for done in rehearsal.run(asked, folder, mirror, 2)}
    assert found["08_evaluate@softmax"] is None and found["09_report"] is None and found["08_evaluate@cosface"] is True
    assert ("02_prep", "release", str(folder / "outputs")) in ran and len(ran) == 9
    written, small = yaml.safe_load((folder / "params/mini.yaml").read_text()), rehearsal.small(Profile.read("mini"), 2)
    assert written == small and list(written) == list(small)
    own = {"common": {"seed": 2}, "01_download": {}}  # instead of those, once more
    assert next(rehearsal.run(Profile.read("mini"), folder, mirror, 2, own)).stage == "01_download"
    assert (folder / "params/mini.yaml").read_text() == "common:\n  seed: 2\n01_download: {}\n"


def test_memory_is_told_in_bytes_where_the_system_counts_in_them(monkeypatch):
    wait4 = rehearsal.os.wait4
    monkeypatch.setattr(rehearsal.os, "wait4", lambda *asked: (*wait4(*asked)[:2], SimpleNamespace(ru_maxrss=1000)))
    monkeypatch.setattr(rehearsal, "sys", SimpleNamespace(platform="darwin"))
    assert rehearsal.measured("02_prep", ["/bin/sh", "-c", ""], {}).host == 1000


TELLS = {"echo '1, 81559'; echo '2000, 81559'": [(2**20, 81559 * 2**20), (2000 * 2**20, 81559 * 2**20)]}
TELLS |= {"echo '[N/A], 1'": [], "echo '1, 2'; exit 9": [], "exit 9": [], "": []}


@pytest.mark.parametrize("said", TELLS)
def test_memory_of_gpus_is_read_from_what_their_tool_says(said, tmp_path, monkeypatch):
    asked = "--query-gpu=memory.used,memory.total --format=csv,noheader,nounits"
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$*" = {asked!r} ] || exit 1\n{said}\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rehearsal.gpus() == TELLS[said]
    (tmp_path / "nvidia-smi").unlink()
    assert rehearsal.gpus() == []
