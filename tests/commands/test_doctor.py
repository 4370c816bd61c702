"""What this machine has and lacks."""

import platform
import re
from types import SimpleNamespace

from sv_utils import doctor


def test_the_command_says_what_this_machine_has_and_lacks(capsys):
    assert doctor.main([]) == 0
    told = dict(re.split(r" {2,}|(?<=lock) ", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["Python"].startswith(f"{platform.python_version()} on ")
    assert re.match(r"\d+ packages of another version", told["requirements.lock"])
    assert told.keys() >= {"git commit", "processor", "memory", "GPU", "free disk for outputs"}
    assert "CPU:0" in told["TensorFlow's devices"] and "precision float32" in told["trainings, by default"]
    assert told.keys() >= {"instruction sets", "threads", "caches of a core", "set for libraries"}


def test_what_is_known_of_a_machine_is_told_in_words(monkeypatch, tmp_path, capsys):
    known = {"git": {"commit": "abc", "dirty": True}, "python": "3.11.7", "platform": "Linux", "processor": "Xeon X"}
    known |= {
        "cores": 8,
        "memory": 16 * 2**30,
        "gpus": ["H100", "H200"],
        "instructions": "AVX2",
        "flags": ["avx", "fma"],
    }
    known |= {"threads": 4, "caches": {"L1": "48K", "L2": "2M"}, "settings": {"TF_A": "1"}}
    (tmp_path / "requirements.lock").touch()
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(doctor, "facts", lambda: known)
    monkeypatch.setattr(doctor, "lock_differences", lambda lock: (["a"] if "gpu" in lock.name else [], ["b", "c"]))
    monkeypatch.setattr(doctor.machine, "tensorflow_devices", lambda: ["CPU:0", "GPU:0"])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(str(folder)) * 2**30))
    assert doctor.main([]) == 0
    by_default = "deterministic true, precision float32, jit_compile false"
    told = {
        "requirements.lock ": ["0 packages missing", "2 packages of another version: b, c"],
        "requirements-gpu.lock ": ["1 packages missing: a", "2 packages of another version: b, c"],
        "git commit": ["abc with changes"],
        "Python": ["3.11.7 on Linux"],
        "processor": ["Xeon X, 8 cores"],
        "memory": ["16 GiB"],
        "GPU": ["H100; H200"],
        "free disk for outputs": [f"{len(str(tmp_path))} GiB in {tmp_path}"],
        "TensorFlow's devices": ["CPU:0; GPU:0"],
        "instruction sets": ["AVX2 at most for oneDNN; avx fma"],
        "threads": ["4 within an operation"],
        "caches of a core": ["L1 48K, L2 2M"],
        "set for libraries": ["TF_A=1"],
        "trainings, by default": [by_default],
    }
    lines = [f"{name.strip():22} {text}" for name, texts in told.items() for text in texts]
    assert capsys.readouterr().out.splitlines() == lines
    monkeypatch.setattr(doctor, "facts", lambda: known | {"git": None, "gpus": [], "caches": {}, "settings": {}})
    monkeypatch.setattr(doctor.machine, "tensorflow_devices", raised)
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    for line in ("git commit             none\n", "none (training runs on the CPU)\n", "core       not told\n"):
        assert line in said
    assert "libraries      nothing\n" in said and "TensorFlow is not installed\n" in said


def raised():
    raise ImportError
