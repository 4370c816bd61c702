"""
Did a run reproduce what is expected of its params file? The verdict, in words and as ``reproduction.json``.

Trained models are judged by where the trainings on record lay: rounding differs between machines, and a small training
makes much of it, so that digits cannot agree. A model has to reach an EER of theirs, and its training to end with a
loss of theirs: in a small training some broken recipes reach an EER like any other. What no rounding changes is told
apart, and must agree to the digit: digests of the data, counts, first weights, the EER of the untrained encoder, the
metrics of given scores.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sv_utils.base import paths
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation import metrics
from sv_utils.evaluation.systems import COSINE
from sv_utils.pipeline import records
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, tables

AS_EXPECTED, NOT, NONE = "as expected", "not as expected", "no verdict"
METHOD = (
    "95 % prediction intervals by Student's t for EERs, as log-odds, and for the last losses, as logarithms, of one "
    "further training; all of the run hold together"
)
# EER, minDCF(0.01), minDCF(0.05) and Cllr_min of `given_scores`.
GIVEN = {"EER": 0.276666667, "minDCF(0.01)": 0.75, "minDCF(0.05)": 0.75, "Cllr_min": 0.604148542}


def verdict(profile: Profile, results: pd.DataFrame) -> dict:
    """
    Judge the results of a run.

    Parameters
    ----------
    profile : Profile
    results : pd.DataFrame
        As of `tables.collect`.

    Returns
    -------
    dict
        ``verdict``: as expected, not as expected, or no verdict (fewer than three trainings on record); ``sentence``;
        ``method``; ``models``: ``model, list, eer, trainings, mean, least, greatest, low, high, as_expected`` of each;
        ``curves``: ``model, loss`` (of the last epoch) and the same others of each training; ``fixed``: ``part, found,
        expected, agrees`` of each part that both have; ``parameters`` that differ, and ``made_by``: what of the
        machine or code is of none of the trainings on record.
    """
    known = expected.certificate(profile.name)
    models, curves = _judged(profile, results)
    fixed = _fixed(profile, known["fixed"])
    folder = paths.profile_dir(profile.name)
    own = expected.ran_on(profile, folder) if (folder / "results.csv").exists() else {"run": {}, "parameters": {}}
    parameters = _other_parameters(known["parameters"], own["parameters"])
    able = [row["as_expected"] for row in (*models, *curves) if row["as_expected"] is not None]
    differing = [row for row in fixed if not row["agrees"]]
    said = NONE if not able and not differing else NOT if differing or not all(able) else AS_EXPECTED
    found = {"profile": profile.name, "verdict": said, "method": METHOD, "models": models, "curves": curves}
    found |= {"fixed": fixed}
    found |= {"parameters": parameters, "made_by": _nowhere_else(own["run"], known["runs"])}
    return found | {"sentence": sentence(found)}


def sentence(found: dict) -> str:
    """
    Tell a verdict in words.

    Parameters
    ----------
    found : dict
        As of `verdict`, whose ``sentence`` it becomes.
    """
    able = [row for row in (*found["models"], *found["curves"]) if row["as_expected"] is not None]
    wrong = [row for row in able if not row["as_expected"]]
    parts = []
    if able:
        models = {row["model"] for row in able}
        many = " or ".join(map(str, sorted({row["trainings"] for row in able})))
        parts.append(
            f"{found['verdict'].capitalize()}: {len(models - {row['model'] for row in wrong})} of {len(models)} models "
            f"lie where the next training is expected after {many} of this recipe ({METHOD})."
        )
    elif found["verdict"] == NOT:
        parts.append("Not as expected.")
    parts += [_outside(row) for row in wrong]
    parts += _without(found["models"])
    parts.append(_fixed_in_words(found["fixed"]))
    if wrong and not found["parameters"]:
        parts.append("An honest run is refused about once in twenty times; look at the training's curves first.")
    if found["parameters"]:
        parts.append(f"Parameters are not those of the trainings on record: {_some(found['parameters'])}.")
    if found["made_by"] and able:
        parts.append(f"This run differs from every training on record in: {_some(found['made_by'])}.")
    return " ".join(filter(None, parts))


def of_profile(profile: str) -> dict:
    """Judge the finished run of a profile, by its name; otherwise as `write`."""
    return write(Profile.read(profile), tables.read_results(profile))


def write(profile: Profile, results: pd.DataFrame) -> dict:
    """Write `verdict` to ``outputs/<profile>/reproduction.json``, and return it."""
    found = verdict(profile, results)
    with replace_on_success(paths.profile_dir(profile.name) / "reproduction.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


def refused(table: pd.DataFrame) -> list[bool]:
    """
    Judge each run on record by the others.

    Parameters
    ----------
    table : pd.DataFrame
        As of `expected.figures`, of runs that each trained every model once.

    Returns
    -------
    list of bool
        For each run, whether it would have been called not as expected.
    """
    kinds = [(row["values"], True) for row in _trained_eers(table)]
    kinds += [(values, False) for values in expected.last_losses(table).values()]
    runs = range(min((len(values) for values, _ in kinds), default=0))
    return [
        any(not _within(values[run], np.delete(values, run), len(kinds), rate) for values, rate in kinds)
        for run in runs
    ]


def judged_by_others(profile: str) -> str:
    """Say how many of the runs on record would be refused by the others; '' where there are too few of them."""
    table = expected.figures(profile)
    if min((len(row["values"]) for row in _trained_eers(table)), default=0) <= expected.FEWEST:
        return ""
    judged = refused(table)
    return f"of these {len(judged)} runs, each judged by the others, {sum(judged)} are refused"


def _trained_eers(table: pd.DataFrame) -> list[dict]:
    own = table[(table["figure"] == "eer") & ~table["model"].str.contains(r"\+|\(untrained\)")]
    return own.to_dict("records")


def _within(value: float, values: np.ndarray, together: int, rate: bool) -> bool:
    low, high = expected.interval(values, together, rate)
    return low <= value <= high


def _judged(profile: Profile, results: pd.DataFrame) -> tuple[list[dict], list[dict]]:
    """The place of each EER and of the loss that each training ended with, beside those on record."""
    own = results[(results["scoring"] == COSINE.name) & ~results["loss"].isin(("none", "pretrained"))]
    eers = [
        (row["model"], row["list"], row["eer"], 1 / min(row["n_target"], row["n_nontarget"]))
        for row in own.to_dict("records")
    ]
    known = [expected.of_model(profile.name, model, name) for model, name, _, _ in eers]
    losses = _losses(profile, dict.fromkeys(own["model"]))
    before = expected.last_losses(expected.figures(profile.name))
    ended = [before.get(expected.pooled(model), np.array([])) for model in losses]
    together = sum(len(values) >= expected.FEWEST for values in (*known, *ended))
    models = [
        {"model": model, "list": name, "eer": eer} | _place(eer, values, together, step)
        for (model, name, eer, step), values in zip(eers, known, strict=True)
    ]
    curves = [
        {"model": model, "loss": loss} | _place(loss, values, together, rate=False)
        for (model, loss), values in zip(losses.items(), ended, strict=True)
    ]
    return models, curves


def _losses(profile: Profile, models: Iterable[str]) -> dict[str, float]:
    """The loss that the training of each model ended with, where it left its log."""
    found = {}
    for model in models:
        path = paths.profile_dir(profile.name) / (profile.models.get(model) or "") / "log.csv"
        own = expected.curve(path)["loss"].dropna().tolist() if path.is_file() else []
        if own:
            found[model] = float(own[-1])
    return found


def _place(value: float, values: np.ndarray, together: int, step: float = 0.0, rate: bool = True) -> dict:
    """Where a value lies; `step` is what one trial makes of it, by which trainings that agree by chance may differ."""
    row: dict = {"trainings": len(values)}
    row |= dict.fromkeys(("mean", "least", "greatest", "low", "high", "as_expected"))
    if len(values):
        row |= {"mean": float(values.mean()), "least": float(values.min()), "greatest": float(values.max())}
    if len(values) < expected.FEWEST:
        return row
    low, high = expected.interval(values, together, rate)
    low, high = max(0.0, low - step), high + step
    return row | {"low": low, "high": high, "as_expected": bool(low <= value <= high)}


def _fixed(profile: Profile, known: Mapping[str, str]) -> list[dict]:
    """Each part that is on record and that this run has too."""
    folder = paths.profile_dir(profile.name)
    own = expected.fixed_parts(profile, folder) if known and (folder / "results.csv").exists() else {}
    pairs = {name: (own[name], value) for name, value in known.items() if name in own}
    given = given_metrics()
    pairs |= {f"{name} of given scores": (f"{given[name]:.9f}", f"{value:.9f}") for name, value in GIVEN.items()}
    return [
        {"part": name, "found": found, "expected": wanted, "agrees": found == wanted}
        for name, (found, wanted) in pairs.items()
    ]


def given_metrics() -> dict[str, float]:
    """Metrics of 400 target and 600 non-target scores that every machine holds exactly (multiples of 2^-20)."""
    target = ((np.arange(400) * 389) % 1024 + 256) / 1024
    nontarget = (((np.arange(600) * 613) % 1024) / 1024) ** 2
    found = {"EER": metrics.eer(target, nontarget)[0], "Cllr_min": metrics.cllr_min(target, nontarget)}
    return found | {f"minDCF({prior})": metrics.min_dcf(target, nontarget, prior)[0] for prior in (0.01, 0.05)}


def _other_parameters(known: dict, own: dict) -> list[str]:
    """Parameters of trainings that both name, and give other values; the seed is no part of a recipe."""
    said = []
    for stage in known:
        pairs = records.changed(
            _shared(known[stage], own.get(stage, {})), _shared(own.get(stage, {}), known[stage]), stage
        )
        said += pairs
    return said


def _shared(one: Any, other: Any) -> Any:
    """What of `one` has a place in `other` too; lists of different lengths as they are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _shared(one[name], other[name]) for name in one if name in other and name != "seed"}
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [_shared(*pair) for pair in zip(one, other, strict=True)]
    return one


def _nowhere_else(own: dict, runs: list[dict]) -> list[str]:
    """What of this run's machine and code is that of no training on record."""
    said = []
    for name in (*records.ORIGINS, "packages"):
        seen = [run.get(name) for run in runs]
        if runs and name in own and own[name] not in seen and any(value is not None for value in seen):
            said.append(f"{records.NAMES.get(name, name)}")
    return said


def _outside(row: dict) -> str:
    if "loss" in row:
        side = "above" if row["loss"] > row["high"] else "below"
        return (
            f"The training of {row['model']} ended with a loss of {row['loss']:.3g}, {side} [{row['low']:.3g}, "
            f"{row['high']:.3g}], where {row['trainings']} trainings ended between {row['least']:.3g} and "
            f"{row['greatest']:.3g}: was its recipe changed?"
        )
    side = "above" if row["eer"] > row["high"] else "below"
    return (
        f"{row['model']} on {row['list']} has an EER of {100 * row['eer']:.2f} %, {side} "
        f"[{100 * row['low']:.2f}, {100 * row['high']:.2f}] %."
    )


def _without(models: list[dict]) -> list[str]:
    few = [row for row in models if row["as_expected"] is None]
    if not few:
        return []
    counts = {row["trainings"] for row in few}
    what = "no training" if counts == {0} else "fewer than three trainings"
    return [f"No verdict on {', '.join(dict.fromkeys(row['model'] for row in few))}: {what} of this recipe on record."]


def _fixed_in_words(fixed: list[dict]) -> str:
    wrong = [row["part"] for row in fixed if not row["agrees"]]
    if not wrong:
        return f"Of {len(fixed)} parts that no rounding changes all agree." if fixed else ""
    said = f"Of {len(fixed)} parts that no rounding changes {len(wrong)} differ: {_some(wrong)}."
    return f"{said} Data, code or libraries are others."


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{'; '.join(names[:most])}{more}"
