"""Compare two stores, for example those of two machines: ``python -m sv_utils.store --compare A B``"""

import argparse

from sv_utils.base.errors import command
from sv_utils.speech.manifest import compare


@command
def main(argv: list[str] | None = None) -> int:
    """Say in what the manifests of two stores differ; exit code 1 where they do."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.store", description=main.__doc__)
    parser.add_argument("--compare", nargs=2, required=True, metavar=("A", "B"), help="manifest.csv or its folder")
    one, other = parser.parse_args(argv).compare
    told = compare(one, other)
    print("\n".join(told) or f"{one} and {other} hold the same.")
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main())
