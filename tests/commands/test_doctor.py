"""What this machine has and lacks."""

import platform
import re

from sv_utils import doctor


def test_the_command_says_what_this_machine_has_and_lacks(capsys):
    assert doctor.main([]) == 0
    told = dict(re.split(r" {2,}|(?<=lock) ", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["Python"].startswith(f"{platform.python_version()} on ")
    assert re.match(r"\d+ packages of another version", told["requirements.lock"])
    assert told.keys() >= {"git commit", "processor", "memory", "GPU", "free disk for outputs"}
    assert "CPU:0" in told["TensorFlow's devices"] and "precision float32" in told["trainings, by default"]
    assert told.keys() >= {"instruction sets", "threads", "caches of a core", "set for libraries"}
