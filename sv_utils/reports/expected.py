"""Curves to expect: what the trainings of a params file that has been run looked like."""

from pathlib import Path

import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.pipeline.profile import Profile

COLUMNS = ["stage", "epoch", "loss", "accuracy", "learning_rate", "val_eer"]


def expected(profile: str, stage: str) -> pd.DataFrame | None:
    """
    Give the curves to expect of a training stage.

    Returns
    -------
    pd.DataFrame or None
        ``epoch, loss, accuracy, learning_rate, val_eer``, a row an epoch; None where none are stored.
    """
    path = file_of(profile)
    if not path.exists():
        return None
    table = pd.read_csv(path)
    table = table[table["stage"] == stage].drop(columns="stage").reset_index(drop=True)
    return None if table.empty else table


def collect(profile: Profile) -> pd.DataFrame:
    """
    Take the curves of all finished trainings of a profile from its outputs.

    Raises
    ------
    RequestError
        If a training has not been run, or the profile has none.
    """
    tables = []
    for stage in filter(None, profile.models.values()):
        path = paths.stage_dir(profile.name, stage) / "log.csv"
        if not path.exists():
            raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile.name}")
        tables.append(pd.read_csv(path).assign(stage=stage).reindex(columns=COLUMNS))
    if not tables:
        raise RequestError(f"profile {profile.name} trains nothing, so that it has no curves")
    return pd.concat(tables)


def store(profile: str) -> str:
    """
    Store the curves of a profile's trainings as those to expect; otherwise as `collect`.

    Returns
    -------
    str
        Where they are, and how many rows.
    """
    table, file = collect(Profile.read(profile)), file_of(profile)
    with replace_on_success(file) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")
    return f"{file}: {len(table)} rows"


def file_of(profile: str) -> Path:
    """Where the curves to expect of a profile lie."""
    return paths.params_dir() / "expected" / f"{profile}.csv"
