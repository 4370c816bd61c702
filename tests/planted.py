"""
Plant the faults of ``planted.yaml`` one at a time in a copy of the repository, and see whether the tests notice.

``python tests/planted.py [PART]`` (`make mutants MODULE=PART`): of the faults whose file holds PART, all without it.
VERBOSE=1 also prints what pytest said. Exit code 1 where a fault survives; 2 where a named test fails without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[1]
LIMIT = 900  # [s] for the tests of one fault; a fault that hangs them is noticed


def faults(part: str) -> list[dict]:
    """Read the list: ``file, old, new, tests`` (as pytest takes them), and ``why`` where it is not plain."""
    found = yaml.safe_load((REPO / "tests" / "planted.yaml").read_text("utf-8"))
    for fault in found:
        text = (REPO / fault["file"]).read_text("utf-8")
        if text.count(fault["old"]) != 1:
            raise SystemExit(f"planted.yaml: {fault['file']} holds {text.count(fault['old'])} times {fault['old']!r}")
    return [fault for fault in found if part in fault["file"]]


def copied(folder: Path) -> Path:
    """Copy what git knows or would add: a fault may never stand in the repository itself."""
    line = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in filter(None, subprocess.check_output(line, cwd=REPO, text=True).split("\0")):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, folder / name)
    if (
        REPO / "outputs" / "tests"
    ).exists():  # converted weights of others; their code's digest says whether they serve
        (folder / "outputs").mkdir()
        (folder / "outputs" / "tests").symlink_to(REPO / "outputs" / "tests")
    return folder


def tested(folder: Path, tests: list[str]) -> int:
    """Run tests in a copy; pytest's exit code: 0 passed, 1 failed, others: not run."""
    line = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SV_")}
    environment = clean | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": LIMIT}
    try:
        ran = subprocess.run(line, cwd=folder, env=environment, **options)
    except subprocess.TimeoutExpired:
        return 1
    if ran.returncode not in (0, 1) or (ran.returncode and os.environ.get("VERBOSE")):
        print(ran.stdout[-3000:], flush=True)
    return ran.returncode


def planted(folder: Path, fault: dict) -> str:
    """Plant one fault, run its tests, take it out."""
    file = folder / fault["file"]
    sound = file.read_text("utf-8")
    file.write_text(sound.replace(fault["old"], fault["new"]), "utf-8")
    try:
        return {0: "SURVIVED", 1: "noticed"}.get(tested(folder, fault["tests"]), "NOT RUN")
    finally:
        file.write_text(sound, "utf-8")


def main(part: str = "") -> int:
    """Run all; print a table."""
    chosen = faults(part)
    counts = dict.fromkeys(("noticed", "SURVIVED", "NOT RUN"), 0)
    with tempfile.TemporaryDirectory(prefix="planted") as name:
        folder = copied(Path(name))
        tests = sorted({test for fault in chosen for test in fault["tests"]})
        if tests and tested(folder, tests) != 0:
            print("planted: a named test fails without any fault; mend it first", file=sys.stderr)
            return 2
        for number, fault in enumerate(chosen, 1):
            started = time.perf_counter()
            result = planted(folder, fault)
            counts[result] += 1
            line = " ".join(fault["new"].split())[:60]
            print(f"{number:3} {result:8} {time.perf_counter() - started:4.0f} s  {fault['file']}: {line}", flush=True)
    print(f"{len(chosen)} planted, " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["SURVIVED"] or counts["NOT RUN"] else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:2]))
