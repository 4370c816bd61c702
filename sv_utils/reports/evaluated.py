"""Tables of the evaluation of one model, as people read them: what ``08_evaluate`` shows of the rows it writes."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from sv_utils.evaluation.calibration import Calibration
from sv_utils.evaluation.systems import Scoring
from sv_utils.reports import figures
from sv_utils.reports.tables import Markup

_COSTS = {"cllr": "Cllr", "cllr_min": "Cllr_min", "calibration_loss": "calibration loss"}
_COSTS |= {"act_dcf_001": "actDCF(0.01)", "min_dcf_001": "minDCF(0.01)"}
_COSTS |= {"act_dcf_005": "actDCF(0.05)", "min_dcf_005": "minDCF(0.05)"}


def calibrations(fitted: Mapping[Scoring, Calibration]) -> pd.DataFrame:
    """
    Write calibrations as sums: the log-likelihood ratio of each way to score.

    Returns
    -------
    pd.DataFrame
        All text: ``scoring``, ``dev trials``, ``log-likelihood ratio``.
    """
    rows = []
    for way, found in fitted.items():
        terms = [*zip(found.weights, found.features), (found.offset, "")]
        ratio = " ".join(f"{'+' if weight >= 0 else '-'} {abs(weight):.2f} {feature}" for weight, feature in terms)
        trials = f"{found.n_target + found.n_nontarget:,}"
        rows.append(
            {"scoring": way.name, "dev trials": trials, "log-likelihood ratio": ratio.removeprefix("+ ").strip()}
        )
    return pd.DataFrame(rows)


def costs(rows: Iterable[dict]) -> pd.DataFrame:
    """Costs of the log-likelihood ratios as they are, beside the least that their order allows; all text."""
    judged = [row for row in rows if row["calibration"]]
    return pd.DataFrame(
        [
            {"model": row["model"], "list": row["list"]}
            | {title: f"{row['calibration'][name]:.3f}" for name, title in _COSTS.items()}
            for row in judged
        ]
    )


def definitions(rows: Iterable[dict]) -> pd.DataFrame:
    """EERs [%] by the definitions in circulation, all text, where two of them differ by more than 0.05 points."""
    return pd.DataFrame(
        [
            {"model": row["model"], "list": row["list"]}
            | {
                name.replace("_", " "): f"{100 * rate:.2f}"
                for name, rate in row["eer_definitions"].items()
                if name != "flagged"
            }
            for row in rows
            if row["eer_definitions"]["flagged"]
        ]
    )


def conditions(rows: Iterable[dict]) -> pd.DataFrame:
    """Errors under each condition of the recordings, all text."""
    return pd.DataFrame(
        [
            {
                "list": row["list"],
                "heard": line["cut"],
                "mean [s]": f"{line['mean_seconds']:.2f}",
                "shortened": f"{line['shortened']:.0%}",
                "EER %": f"{100 * line['eer']:.2f}",
                **_errors(line),
            }
            for row in rows
            for line in row.get("by_duration", ())
        ]
    )


def groups(rows: Iterable[dict]) -> pd.DataFrame:
    """Errors of groups of trials, all text; a dash where a group lacks such trials."""
    names = {
        "by": "by",
        "group": "group",
        "n_speakers": "speakers",
        "n_target": "targets",
        "n_nontarget": "non-targets",
    }
    return pd.DataFrame(
        [
            {"list": row["list"]}
            | {title: f"{line[name]:,}" if name.startswith("n_") else line[name] for name, title in names.items()}
            | _errors(line)
            for row in rows
            for line in row.get("by_group", ())
        ]
    )


def _errors(line: Mapping[str, float]) -> dict[str, str]:
    rates = {"misses %": line["p_miss"], "false acceptances %": line["p_fa"]}
    return {title: "–" if np.isnan(rate) else f"{100 * rate:.2f}" for title, rate in rates.items()}


def hardest(rows: Iterable[dict]) -> pd.DataFrame:
    """List the trials that are most wrong, all text."""
    return pd.DataFrame(
        [
            {
                "list": row["list"],
                "trial": line["trial"],
                "enrol": line["enrol"],
                "test": line["test"],
                "cosine": f"{line['cosine']:.2f}",
                "LLR": f"{line['llr']:+.2f}",
            }
            for row in rows
            for line in row.get("hardest", ())
        ]
    )


def with_players(trials: pd.DataFrame, count: int, waveform: Callable[[str], np.ndarray]) -> pd.DataFrame:
    """
    Take the first trials of each kind of the first list, with players of 4 s at most in the place of the ids.

    Parameters
    ----------
    trials : pd.DataFrame
        As of `hardest`.
    count : int
        Trials of each kind.
    waveform : callable
        Gives the int16 samples at 16 kHz of an id.
    """
    first = trials[trials["list"] == trials["list"].iloc[0]].groupby("trial", sort=False).head(count)
    return first.assign(
        **{
            side: [Markup(figures.player(waveform(name)[:64_000])) for name in first[side]]
            for side in ("enrol", "test")
        }
    )
