"""What of a machine can change digits, and what differs between two records."""

import json
import sys
from types import SimpleNamespace

import pytest

from sv_utils import doctor
from sv_utils.pipeline import machine, records


def test_what_a_processor_can_do_is_read_from_its_flags(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("model name\t: Xeon X\nflags\t\t: fpu sse4_2 avx avx2 fma ht avx512bw avx512vl\n")
    for number, (level, kind, size) in enumerate(
        (("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M"))
    ):
        (tmp_path / f"index{number}").mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{number}" / name).write_text(text + "\n")
    (tmp_path / "index").mkdir()  # of which the system tells nothing
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "CACHES", tmp_path)
    for name in machine.SETTINGS:
        monkeypatch.delenv(name, raising=False)
    found = machine.facts()
    assert found["processor"] == "Xeon X" and found["caches"] == {"L1": "48K", "L2": "2M"}
    assert found["flags"] == ["sse4_2", "avx", "avx2", "fma", "avx512bw", "avx512vl"]
    assert (found["instructions"], found["threads"], found["settings"]) == ("AVX512_CORE", found["cores"], {})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "99")
    found = machine.facts()
    assert (found["instructions"], found["threads"]) == ("AVX2", 99)
    assert found["settings"] == {"ONEDNN_MAX_CPU_ISA": "avx2", "TF_NUM_INTRAOP_THREADS": "99"}
    (tmp_path / "cpuinfo").write_text("Features\t: fp asimd bf16 crc32\n")
    assert (machine.facts()["flags"], machine.facts()["instructions"]) == (["asimd", "bf16"], "")


def test_threads_are_the_cores_where_none_are_set_and_a_processor_without_a_name_is_its_kind(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "0")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    for processor, told in (("arm", "arm"), ("", "arm64")):
        monkeypatch.setattr(machine.platform, "processor", lambda processor=processor: processor)
        monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
        found = machine.facts()
        assert (found["processor"], found["threads"]) == (told, found["cores"])


def test_a_set_of_instructions_is_one_whose_flags_are_all_there():
    assert machine.instructions(["sse4_2"], "") == "SSE41"
    assert machine.instructions(["sse4_2", "avx", "avx2"], "") == "AVX"  # no fma


def test_cores_are_those_that_this_process_may_use_or_all_where_the_system_does_not_say(monkeypatch):
    asked = SimpleNamespace(sched_getaffinity={0: {1, 3, 5}}.get, cpu_count=lambda: 7)
    monkeypatch.setattr(machine, "os", asked)
    assert machine._cores() == 3
    del asked.sched_getaffinity
    assert machine._cores() == 7
    asked.cpu_count = lambda: None  # where not even that is known
    assert machine._cores() == 1


def test_a_machine_that_tells_nothing_of_itself_has_facts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "CACHES", tmp_path / "none")
    found = machine.facts()
    assert (found["flags"], found["instructions"], found["caches"]) == ([], "", {}) and found["processor"]


def test_a_gpu_is_named_with_its_model(monkeypatch):
    details = {"/physical_device:CPU:0": {}, "/physical_device:GPU:0": {"device_name": "H100"}}
    experimental = SimpleNamespace(get_device_details=lambda device: details[device.name])
    devices = [SimpleNamespace(name=name) for name in details]
    config = SimpleNamespace(list_physical_devices=lambda: devices, experimental=experimental)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))
    assert machine.tensorflow_devices() == ["CPU:0", "GPU:0 H100"]


def test_two_records_are_compared_by_one_command(tmp_path, capsys):
    one = {"key": "k", "git": {"commit": "a" * 40, "dirty": False}, "processor": "A", "threads": 2, "gpus": []}
    one |= {"packages": {"numpy": "1", "av": "2"}, "parameters": {"phases": [{"margin": 0.2, "epochs": 8}]}}
    one |= {"engine": {"devices": ["CPU:0"], "precision": "float32"}}
    other = json.loads(json.dumps(one)) | {"git": {"commit": "b" * 40, "dirty": True}, "processor": "B", "settings": {}}
    other["packages"]["numpy"], other["parameters"]["phases"][0]["margin"] = "3", 0.9
    other["engine"]["devices"] = ["CPU:0", "GPU:0 H100"]
    for name, record in (("this", one), ("other", other)):  # told as they are named, not by the alphabet
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    assert doctor.main(["--compare", str(tmp_path / "this"), str(tmp_path / "other/run.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"other commit: {'a' * 12}; {'b' * 12} with changes",
        "other processor: A; B",
        "other settings: not recorded; {}",
        "other engine.devices.1: not recorded; GPU:0 H100",
        "other packages.numpy: 1; 3",
        "other parameters.phases.0.margin: 0.2; 0.9",
    ]
    assert doctor.main(["--compare", str(tmp_path / "this"), str(tmp_path / "this")]) == 0
    assert capsys.readouterr().out == "nothing that is recorded differs\n"
    assert doctor.main(["--compare", str(tmp_path), str(tmp_path / "this")]) == 2
    assert "holds no record of a finished run; name a run.json" in capsys.readouterr().err


@pytest.mark.parametrize(("one", "other", "said"), [([1], [1, 2], ["other x.1: not recorded; 2"]), ([1], [1], [])])
def test_places_of_lists_are_named(one, other, said):
    assert records.changed({"x": one}, {"x": other}, "p") == [line.replace("other x", "other p.x") for line in said]
