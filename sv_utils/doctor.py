"""What this machine has and lacks: ``python -m sv_utils.doctor``"""

import argparse
import shutil

from sv_utils.base import paths
from sv_utils.base.errors import command
from sv_utils.pipeline.records import facts, lock_differences


@command
def main(argv: list[str] | None = None) -> int:
    """Print what this machine has and lacks."""
    argparse.ArgumentParser(prog="python -m sv_utils.doctor", description=main.__doc__).parse_args(argv)
    known = facts()
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    for lock in ("requirements.lock", "requirements-gpu.lock"):
        missing, other = lock_differences(paths.REPO / lock)
        for kind, names in {"missing": missing, "of another version": other}.items():
            print(f"{lock:22} {len(names)} packages {kind}{': ' if names else ''}{', '.join(names)[:200]}")
    git = known["git"] or {"commit": "none", "dirty": False}
    print(f"{'git commit':22} {git['commit']}{' with changes' if git['dirty'] else ''}")
    print(f"{'Python':22} {known['python']} on {known['platform']}")
    print(f"{'processor':22} {known['processor']}, {known['cores']} cores")
    print(f"{'memory':22} {known['memory'] / 2**30:.0f} GiB")
    print(f"{'GPU':22} {'; '.join(known['gpus']) or 'none (training runs on the CPU)'}")
    print(f"{'free disk for outputs':22} {shutil.disk_usage(folder).free / 2**30:.0f} GiB in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
