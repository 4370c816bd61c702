"""What this machine has and lacks: ``python -m sv_utils.doctor``"""

import argparse
import shutil

from sv_utils.base import paths
from sv_utils.base.errors import command
from sv_utils.pipeline import machine, params
from sv_utils.pipeline.records import compare, facts, lock_differences


@command
def main(argv: list[str] | None = None) -> int:
    """Print what this machine has and lacks, and what its digits can depend on; or compare the records of two runs."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.doctor", description=main.__doc__)
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("RUN_A", "RUN_B"),
        help="name what differs between two run.json (or the folders of two stages), and do nothing else",
    )
    asked = parser.parse_args(argv).compare
    if asked:
        print("\n".join(compare(*asked)) or "nothing that is recorded differs")
        return 0
    known = facts()
    _installed()
    git = known["git"] or {"commit": "none", "dirty": False}
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    said = {
        "git commit": f"{git['commit']}{' with changes' if git['dirty'] else ''}",
        "Python": f"{known['python']} on {known['platform']}",
        "processor": f"{known['processor']}, {known['cores']} cores",
        "memory": f"{known['memory'] / 2**30:.0f} GiB",
        "GPU": "; ".join(known["gpus"]) or "none (training runs on the CPU)",
        "free disk for outputs": f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB in {folder}",
    }
    for name, text in (said | _digits(known)).items():
        print(f"{name:22} {text}")
    return 0


def _installed() -> None:
    for lock in ("requirements.lock", "requirements-gpu.lock"):
        missing, other = lock_differences(paths.REPO / lock)
        for kind, names in {"missing": missing, "of another version": other}.items():
            print(f"{lock:22} {len(names)} packages {kind}{': ' if names else ''}{', '.join(names)[:200]}")


def _digits(known: dict) -> dict[str, str]:
    """What a difference of digits to another machine can come from."""
    (engine,) = params.complete(engine={})
    try:
        devices = "; ".join(machine.tensorflow_devices())
    except ImportError:
        devices = "TensorFlow is not installed"
    return {
        "TensorFlow's devices": devices,
        "instruction sets": f"{known['instructions'] or 'not x86'} at most for oneDNN; {' '.join(known['flags'])}",
        "threads": f"{known['threads']} within an operation",
        "caches of a core": ", ".join(f"{level} {size}" for level, size in known["caches"].items()) or "not told",
        "set for libraries": ", ".join(f"{name}={text}" for name, text in known["settings"].items()) or "nothing",
        "trainings, by default": ", ".join(
            f"{name} {str(engine[name]).lower()}"
            for name in ("deterministic", "precision", "jit_compile")
            if name in engine
        ),
    }


if __name__ == "__main__":
    raise SystemExit(main())
