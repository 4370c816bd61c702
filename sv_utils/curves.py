"""
Curves to expect: what the trainings of a params file that has been run looked like.

``python -m sv_utils.curves PROFILE`` takes them from the outputs into ``params/expected/PROFILE.csv``; the training
notebooks draw them behind those of a new run.
"""

import argparse

import pandas as pd

from . import params, paths
from .errors import RequestError, command
from .paths import replace_on_success

COLUMNS = ["stage", "epoch", "loss", "accuracy", "learning_rate", "val_eer"]


def expected(profile: str, stage: str) -> pd.DataFrame | None:
    """
    Give the curves to expect of a training stage.

    Returns
    -------
    pd.DataFrame or None
        ``epoch, loss, accuracy, learning_rate, val_eer``, a row an epoch; None where none are stored.
    """
    path = _path(profile)
    if not path.exists():
        return None
    table = pd.read_csv(path)
    table = table[table["stage"] == stage].drop(columns="stage").reset_index(drop=True)
    return None if table.empty else table


def collect(profile: str) -> pd.DataFrame:
    """
    Take the curves of all finished trainings of a profile from its outputs.

    Raises
    ------
    RequestError
        If a training has not been run, or the profile has none.
    """
    tables = []
    for stage in filter(None, params.models(profile).values()):
        path = paths.stage_dir(profile, stage) / "log.csv"
        if not path.exists():
            raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile}")
        tables.append(pd.read_csv(path).assign(stage=stage).reindex(columns=COLUMNS))
    if not tables:
        raise RequestError(f"profile {profile} trains nothing, so that it has no curves")
    return pd.concat(tables)


def _path(profile: str):
    return paths.params_dir() / "expected" / f"{profile}.csv"


@command
def main(argv: list[str] | None = None) -> None:
    """Store the curves of a profile's trainings as those to expect."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.curves", description=main.__doc__)
    parser.add_argument("profile", help="name of a file in params/ that has been run")
    profile = parser.parse_args(argv).profile
    table = collect(profile)
    with replace_on_success(_path(profile)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")
    print(f"{_path(profile)}: {len(table)} rows")


if __name__ == "__main__":
    raise SystemExit(main())
