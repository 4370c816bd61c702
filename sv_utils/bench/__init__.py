"""
Benchmarks: what a step costs beside another way of doing it, in one run on one machine.

``python -m sv_utils.bench [NAME ...]`` prints a table. Only the ratios carry over to other machines. Nothing here is a
test, and no test depends on time.
"""

import argparse
import importlib

import numpy as np
import pandas as pd

from sv_utils.base.errors import RequestError, command, nearest
from sv_utils.reports import tables

BENCHMARKS = {  # name to the module of its function
    "judging": "judging",
    "normalisation": "judging",
    "decoding": "preparing",
    "windows": "preparing",
    "manifest": "preparing",
    "step": "training",
    "loading": "training",
    "loaders": "engine",
    "overhead": "engine",
    "engines": "engine",
    "campplus": "encoders",
    "lengths": "encoders",
    "costs": "encoders",
}


@command
def main(argv: list[str] | None = None) -> None:
    """Run benchmarks and print what they took; `ratio` is how many times as long the other way takes."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.bench", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args(argv).names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            raise RequestError(f"there is no benchmark '{name}'{nearest(name, BENCHMARKS)}")
    modules = {name: importlib.import_module(f"{__name__}.{BENCHMARKS[name]}") for name in names}
    rows = pd.DataFrame([row for name, module in modules.items() for row in getattr(module, name)()])
    for column, form in {"seconds": "{:.2f}", "its seconds": "{:.1f}", "ratio": "{:.2f}"}.items():
        rows[column] = [form.format(value) if np.isfinite(value) else "" for value in rows[column]]
    print(tables.markdown(rows))
