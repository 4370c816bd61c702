"""Tables of results: from each evaluation's ``metrics.json`` to ``results.csv``, the terminal, and the README."""

import argparse
import json

import pandas as pd

from . import params, paths
from .errors import RequestError, command
from .paths import replace_on_success

COLUMNS = ["profile", "model", "loss", "list", "n_target", "n_nontarget", "n_speakers", "eer", "eer_low", "eer_high"]
COLUMNS += ["threshold", "min_dcf_001", "min_dcf_005", "cllr", "cllr_min", "seconds", "key"]


def collect(profile: str) -> pd.DataFrame:
    """
    Rows of all evaluations of a profile.

    Returns
    -------
    pd.DataFrame
        A row per model and list, in the columns of ``results.csv``; rates are fractions. The untrained encoder is a
        row of its own with loss ``none``.

    Raises
    ------
    RequestError
        When a model has not been evaluated.
    """
    rows = []
    for model in params.models(profile):
        path = paths.stage_dir(profile, f"08_evaluate@{model}") / "metrics.json"
        if not path.exists():
            raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile}")
        rows += json.loads(path.read_text())
    return pd.DataFrame(rows)[COLUMNS]


def write_results(profile: str) -> pd.DataFrame:
    """Write ``outputs/<profile>/results.csv`` and return its rows."""
    results = collect(profile)
    with replace_on_success(paths.profile_dir(profile) / "results.csv") as temporary:
        results.to_csv(temporary, index=False)
    return results


def read_results(profile: str) -> pd.DataFrame:
    """
    Read ``outputs/<profile>/results.csv``.

    Raises
    ------
    RequestError
        When there is none yet.
    """
    path = paths.profile_dir(profile) / "results.csv"
    if not path.exists():
        raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile}")
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """
    Results as people read them: percent, intervals, the untrained encoder beside the trained one.

    Parameters
    ----------
    results : pd.DataFrame
        As of `collect`.

    Returns
    -------
    pd.DataFrame
        A row per trained model and list, all text.
    """
    untrained = results[results["loss"] == "none"].set_index(["model", "list"])["eer"]
    trained = results[results["loss"] != "none"]
    before = [untrained.get((f"{model} (untrained)", name)) for model, name in zip(trained["model"], trained["list"])]
    return pd.DataFrame(
        {
            "model": trained["model"],
            "loss": trained["loss"],
            "list": trained["list"],
            "speakers": trained["n_speakers"].map("{:,}".format),
            "trials": (trained["n_target"] + trained["n_nontarget"]).map("{:,}".format),
            "EER % [95 % interval]": [
                f"{100 * row.eer:.2f} [{100 * row.eer_low:.2f}, {100 * row.eer_high:.2f}]"
                for row in trained.itertuples()
            ],
            "untrained": ["" if eer is None else f"{100 * eer:.2f}" for eer in before],
            "threshold": trained["threshold"].map("{:.3f}".format),
            "minDCF(0.01)": trained["min_dcf_001"].map("{:.3f}".format),
            "minDCF(0.05)": trained["min_dcf_005"].map("{:.3f}".format),
            "Cllr / min": [f"{row.cllr:.3f} / {row.cllr_min:.3f}" for row in trained.itertuples()],
        }
    ).reset_index(drop=True)


def markdown(table: pd.DataFrame) -> str:
    """Table of texts as Markdown, its columns aligned so that it also reads well at a terminal."""
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def session_note(profile: str) -> str:
    """Say what the profile's lists are not: same-session corpora flatter every system."""
    notes = json.loads((paths.stage_dir(profile, "02_prep") / "session_notes.json").read_text())
    return " ".join(notes)


def write_readme(profile: str) -> None:
    """Put the results table of a profile between its two marks in the README."""
    path = paths.REPO / "README.md"
    text = path.read_text()
    begin, end = f"<!-- results {profile} -->\n", f"\n<!-- end results {profile} -->"
    if begin not in text or end not in text:
        raise RequestError(f"{path.name} lacks the marks '{begin.strip()}' and '{end.strip()}'; add them")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    with replace_on_success(path) as temporary:
        temporary.write_text(head + begin + markdown(summary(read_results(profile))) + end + tail)


@command
def main(argv: list[str] | None = None) -> None:
    """Print a profile's results, or put them into the README."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.report", description=main.__doc__)
    parser.add_argument("profile")
    parser.add_argument("--readme", action="store_true", help="update the table in README.md instead of printing it")
    arguments = parser.parse_args(argv)
    if arguments.readme:
        return write_readme(arguments.profile)
    print(markdown(summary(read_results(arguments.profile))))
    print(session_note(arguments.profile))


if __name__ == "__main__":
    raise SystemExit(main())
