"""
What to expect of a params file: figures and curves of the trainings behind it, and what each of them ran on.

``params/expected/<profile>.csv`` has a row for each figure of a model on a list, and for each figure of a training
after an epoch: how many trainings, their mean, standard deviation, least and greatest, and the values themselves.
``<profile>.json`` beside it says what each training ran on, and what rounding changes in none of them (see
`reproduction`). Trainings that differ in ``@seed1``, ``@seed2`` of their names alone are trainings of one model.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.pipeline import records
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import FIRST, TRAINING

SEED = r"@seed\d+\b"  # in the name of a model that was trained several times
COLUMNS = ["model", "list", "epoch", "figure", "trainings", "mean", "sd", "least", "greatest", "values"]
FIGURES = ["n_speakers", "n_target", "n_nontarget", "eer", "eer_low", "eer_high", "threshold"]
FIGURES += ["min_dcf_001", "min_dcf_005", "cllr", "cllr_min"]
CURVES = ["loss", "accuracy", "learning_rate", "val_eer"]
RATES = ("eer", "val_eer", "accuracy")
FEWEST = 3  # trainings from which an interval is told
RISK = 0.05  # that an honest training is refused, over all that is judged together


def figures(profile: str) -> pd.DataFrame:
    """
    Read what is on record of the trainings of a profile.

    Returns
    -------
    pd.DataFrame
        As of `COLUMNS`, ``values`` as arrays; without rows where nothing is on record.
    """
    path = paths.expected_file(profile)
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path, dtype={"values": str, "model": str, "list": str}, keep_default_na=False, na_values=[""])
    return table.assign(
        list=table["list"].fillna(""), values=[np.array(text.split(), float) for text in table["values"]]
    )


def of_model(profile: str, model: str, name: str, figure: str = "eer") -> np.ndarray:
    """Give the values of a figure of a model on a list, one a training; none where nothing is on record."""
    table = figures(profile)
    own = table[(table["model"] == pooled(model)) & (table["list"] == name) & (table["figure"] == figure)]
    return own["values"].iloc[0] if len(own) else np.array([])


def last_losses(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """
    Give the losses with which the trainings on record ended.

    Parameters
    ----------
    table : pd.DataFrame
        As of `figures`.

    Returns
    -------
    dict
        For each model the values of its training loss in the last epoch on record, one a training.
    """
    own = table[(table["figure"] == "loss") & table["epoch"].notna()].sort_values("epoch")
    return dict(own.groupby("model", sort=False)["values"].last())


def expected(profile: str, stage: str) -> pd.DataFrame | None:
    """
    Give the curves to expect of a training stage.

    Returns
    -------
    pd.DataFrame or None
        ``epoch, loss, accuracy, learning_rate, val_eer``, a row an epoch, each the mean of the trainings on record; the
        same names with ``_least`` and ``_greatest``; ``trainings``. None where none are on record.
    """
    table = figures(profile)
    found = TRAINING.fullmatch(stage)
    own = table[(table["model"] == pooled(found["model"] if found else stage)) & table["epoch"].notna()]
    if own.empty:
        return None
    parts = {"": "mean", "_least": "least", "_greatest": "greatest"}
    wide = [own.pivot(index="epoch", columns="figure", values=kind).add_suffix(end) for end, kind in parts.items()]
    curves = pd.concat([*wide, own.groupby("epoch")["trainings"].max()], axis=1).reset_index()
    return curves.astype({"epoch": int}).reindex(columns=["epoch", *CURVES, *curves.columns.drop(["epoch", *CURVES])])


def interval(values: Sequence[float] | np.ndarray, together: int = 1, rate: bool = True) -> tuple[float, float]:
    """
    Tell where one further training is expected.

    Parameters
    ----------
    values : array of float
        Of a figure that is no less than 0, one a training; at least three.
    together : int
        How many such intervals are to hold together (Bonferroni).
    rate : bool
        Whether it is a fraction, which is taken by its log-odds, or another positive number, taken by its logarithm.

    Returns
    -------
    tuple of float
        Ends of the 95 % prediction interval for one further value, ``mean ± t(n - 1) s sqrt(1 + 1 / n)`` on that scale:
        Hahn and Meeker, *Statistical Intervals* (1991), section 4.8. It covers 95 % of further trainings on average, so
        that it is wide where few trainings are behind it.

    Raises
    ------
    RequestError
        For fewer than three values.

    Examples
    --------
    >>> [round(float(end), 3) for end in interval([0.08, 0.09, 0.10, 0.11])]
    [0.057, 0.152]
    """
    count = len(values)
    if count < FEWEST:
        raise RequestError(f"{count} trainings give no interval; run {FEWEST} or more")
    smallest = 1e-4  # an error rate of zero has no log-odds
    clipped = np.clip(np.asarray(values, float), smallest, 1 - smallest if rate else None)
    scaled = np.log(clipped / (1 - clipped)) if rate else np.log(clipped)
    half = stats.t.ppf(1 - RISK / (2 * together), count - 1) * scaled.std(ddof=1) * np.sqrt(1 + 1 / count)
    ends = np.array([scaled.mean() - half, scaled.mean() + half])
    low, high = 1 / (1 + np.exp(-ends)) if rate else np.exp(ends)
    return float(low) if low > smallest else 0.0, float(high)


def watch(profile: str, stage: str) -> Callable[[Mapping[str, float]], str]:
    """
    Watch a training while it runs.

    Returns
    -------
    callable
        Takes the row of an epoch (``epoch, loss, val_eer``) and returns a sentence when one of the two lies where a
        further training is not expected (`interval`, together over all epochs), and '' otherwise, also where fewer than
        three trainings are on record.
    """
    table = figures(profile)
    found = TRAINING.fullmatch(stage)
    own = table[(table["model"] == pooled(found["model"] if found else stage)) & (table["trainings"] >= FEWEST)]
    own = own[own["figure"].isin(("loss", "val_eer")) & (own["epoch"] > 0) & (own["least"] < own["greatest"])]
    bands = {
        (int(row.epoch), row.figure): (*interval(row.values_, len(own), row.figure in RATES), row.trainings)
        for row in own.rename(columns={"values": "values_"}).itertuples()
    }

    def told(row: Mapping[str, float]) -> str:
        said = []
        for figure, name in (("loss", "loss"), ("val_eer", "validation EER")):
            low, high, count = bands.get((int(row["epoch"]), figure), (-np.inf, np.inf, 0))
            value = row.get(figure, np.nan)
            if not low <= value <= high and not np.isnan(value):
                side = "above" if value > high else "below"
                said.append(
                    f"the {name} is {side} [{low:.3g}, {high:.3g}], where it is expected after {count:.0f} trainings"
                )
        return f"epoch {row['epoch']:.0f} is not as expected: {'; '.join(said)}" if said else ""

    return told


def collect(profile: Profile, folders: Iterable[Path]) -> pd.DataFrame:
    """
    Gather the figures and curves of finished runs of a profile.

    Parameters
    ----------
    profile : Profile
    folders : iterable of Path
        Results of a run each: ``outputs/<profile>``.

    Returns
    -------
    pd.DataFrame
        As of `COLUMNS`, ``values`` as text.

    Raises
    ------
    RequestError
        If a folder is no finished run of this profile.
    """
    rows: list[dict] = []
    for folder in folders:
        rows += [*_figures_of(profile, folder), *_curves_of(profile, folder)]
    return summed(rows)


def summed(rows: Iterable[Mapping]) -> pd.DataFrame:
    """
    Sum up the values of trainings.

    Parameters
    ----------
    rows : iterable of dict
        ``model, list, epoch`` (-1: of a list), ``figure, value`` of one training.

    Returns
    -------
    pd.DataFrame
        As of `COLUMNS`, ``values`` as text, in the order of `rows`.
    """
    values = pd.DataFrame(rows, columns=["model", "list", "epoch", "figure", "value"])
    found = []
    for (model, name, epoch, figure), group in values.groupby(["model", "list", "epoch", "figure"], sort=False):
        own = group["value"].dropna().to_numpy()
        if not len(own):
            continue
        row = {"model": model, "list": name, "epoch": "" if epoch < 0 else epoch, "figure": figure}
        row |= {
            "trainings": len(own),
            "mean": f"{own.mean():.7g}",
            "sd": f"{own.std(ddof=1):.5g}" if len(own) > 1 else "",
        }
        row |= {"least": f"{own.min():.7g}", "greatest": f"{own.max():.7g}"}
        found.append(row | {"values": " ".join(f"{value:.7g}" for value in own)})
    return pd.DataFrame(found, columns=COLUMNS)


def pooled(model: str) -> str:
    """Name a model without the seed that it was trained with."""
    return re.sub(SEED, "", model)


def _figures_of(profile: Profile, folder: Path) -> list[dict]:
    path = folder / "results.csv"
    if not path.exists():
        raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile.name}")
    results = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return [
        {"model": pooled(row["model"]), "list": row["list"], "epoch": -1, "figure": figure, "value": row[figure]}
        for row in results.to_dict("records")
        if row["loss"] != "pretrained"
        for figure in FIGURES
    ]


def _curves_of(profile: Profile, folder: Path) -> list[dict]:
    rows = []
    for model, stage in profile.models.items():
        path = folder / stage / "log.csv"
        if not stage:
            continue
        if not path.exists():
            raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile.name}")
        for row in curve(path).to_dict("records"):
            place = {"model": pooled(model), "list": "", "epoch": int(row["epoch"])}
            rows += [place | {"figure": figure, "value": row[figure]} for figure in CURVES]
    return rows


def curve(path: Path) -> pd.DataFrame:
    """
    Read the curve of a training.

    Parameters
    ----------
    path : Path
        ``log.csv`` of a training stage.

    Returns
    -------
    pd.DataFrame
        ``epoch, loss, accuracy, learning_rate, val_eer``, a row an epoch, epoch 0 first; averages of weights are left
        out.
    """
    log = pd.read_csv(path)
    if "loss" in log:  # the average of the last epochs has a row of its own, without loss
        log = log[log["loss"].notna() | (log["epoch"] == 0)]
    return log.reindex(columns=["epoch", *CURVES])


def ran_on(profile: Profile, folder: Path) -> dict:
    """
    Say what the trainings of a run ran on, what they were told, and what rounding must not change in them.

    Returns
    -------
    dict
        ``run``: the record of the last training without packages but those that compute, and the seed of each model;
        ``parameters`` of each training; ``fixed``: a value for each part, see `reproduction.fixed_parts`.
    """
    trainings = {model: stage for model, stage in profile.models.items() if stage}
    made = {model: records.read_run_of(folder / stage) or {} for model, stage in trainings.items()}
    last = next(reversed(made.values()), {})
    kept = {name: last[name] for name in records.ORIGINS if name in last}
    if kept.get("engine"):
        kept["engine"] = {name: value for name, value in kept["engine"].items() if name != "initial_weights"}
    packages = last.get("packages", {})
    kept["packages"] = {name: packages[name] for name in records.COMPUTING if name in packages}
    seeds = {model: run.get("seed") for model, run in made.items()}
    parameters = {stage: made[model].get("parameters", {}) for model, stage in trainings.items()}
    return {
        "run": kept | {"seeds": seeds, "start": last.get("start")},
        "parameters": parameters,
        "fixed": fixed_parts(profile, folder),
    }


def fixed_parts(profile: Profile, folder: Path) -> dict[str, str]:
    """
    Collect what must agree to the digit between two runs, by the names of the parts.

    Parameters
    ----------
    profile : Profile
    folder : Path
        Results of a run: ``outputs/<profile>``.

    Returns
    -------
    dict
        Digests of the decoded speech, of speakers and splits, and of the trial lists; counts of each list; of each
        training and its seed the digest of the first weights, and of each list the EER of the untrained encoder. An ARM
        processor may draw other first weights of the same seed, and a GPU embeds with another rounding: they are named.
    """
    parts = _prepared_parts(folder / FIRST[-1])
    runs = {model: records.read_run_of(folder / stage) or {} for model, stage in profile.models.items() if stage}
    for model, run in runs.items():
        weights = (run.get("engine") or {}).get("initial_weights")
        if weights:
            parts[f"first weights of {model}, {_drawn(run)}"] = weights
    results = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""])
    for row in results.to_dict("records"):
        counts = (row["n_target"], row["n_nontarget"], row["n_speakers"])
        parts[f"targets, non-targets and speakers of list {row['list']}"] = " ".join(f"{count:.0f}" for count in counts)
        model = row["model"].removesuffix(" (untrained)")
        if row["loss"] == "none" and model in runs:
            devices = (runs[model].get("engine") or {}).get("devices", [])
            place = _drawn(runs[model]) + (" on a GPU" if any(name.startswith("GPU") for name in devices) else "")
            parts[f"EER of untrained {model} on {row['list']}, {place}"] = f"{row['eer']:.6f}"
    return parts


def _drawn(run: Mapping) -> str:
    """With which seed the first weights were drawn, which is done by the CPU, and on which, where that is no x86."""
    arm = re.search("aarch64|arm64", run.get("platform") or "")
    return f"seed {run.get('seed')}{' on ARM' if arm else ''}"


def _prepared_parts(prep: Path) -> dict[str, str]:
    """Digests of what the preparation means, whatever else its files hold."""
    lists = sorted((prep / "trials").glob("*.txt"))
    found = {f"trials of list {path.stem}": hashlib.sha256(path.read_bytes()).hexdigest() for path in lists}
    validation, utterances = prep / "validation_trials.txt", prep / "utterances.csv"
    if validation.exists():
        found["validation trials"] = hashlib.sha256(validation.read_bytes()).hexdigest()
    if utterances.exists():
        table = pd.read_csv(utterances, dtype=str, keep_default_na=False, usecols=["id", "speaker", "split", "content"])
        table = table[table["split"] != ""].sort_values("id")
        for name, columns in {"decoded speech": ["content"], "speakers and splits": ["speaker", "split"]}.items():
            text = table[["id", *columns]].to_csv(index=False, lineterminator="\n")
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def store(profile: str, folders: Sequence[Path]) -> str:
    """
    Store the trainings of finished runs as those to expect, in place of what was on record.

    Parameters
    ----------
    profile : str
    folders : sequence of Path
        ``outputs/<profile>`` of each run; none: of the present outputs.

    Returns
    -------
    str
        Where they are, how many, and what of the fixed parts differed between them.

    Raises
    ------
    RequestError
        If a folder is no finished run of this profile, two runs gave the same digits, or the profile trains nothing.
    """
    asked, file = Profile.read(profile), paths.expected_file(profile)
    if not any(asked.models.values()):
        raise RequestError(f"profile {profile} trains nothing, so that there is nothing to expect of its trainings")
    folders = list(folders) or [paths.profile_dir(profile)]
    table = collect(asked, folders)
    _refuse_twins(asked, folders)
    made = [ran_on(asked, folder) for folder in folders]
    fixed, differing = _agreed([run["fixed"] for run in made])
    newest = max(made, key=lambda run: run["run"]["start"] or "")  # an older one may lack keys, or name them otherwise
    content = {"runs": [run["run"] for run in made], "parameters": newest["parameters"]}
    content |= {"fixed": fixed, "differing": differing}
    with replace_on_success(file) as temporary:
        table.to_csv(temporary, index=False)
    with replace_on_success(file.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    said = f"{file}: {len(folders)} runs, {len(table)} rows, {len(fixed)} parts that agree in all of them"
    return said + (f"; these differ: {', '.join(differing)}" if differing else "")


def _refuse_twins(profile: Profile, folders: Sequence[Path]) -> None:
    """Two runs of one seed on one machine are one training: counted twice, they would make the spread too small."""
    seen: dict[str, Path] = {}
    for folder in folders:
        logs = [pd.read_csv(folder / stage / "log.csv") for stage in profile.models.values() if stage]
        digits = "".join(log.reindex(columns=["epoch", *CURVES]).to_csv() for log in logs)
        if digits in seen:
            raise RequestError(
                f"{seen[digits]} and {folder} gave the same digits, as one training does; name one of them"
            )
        seen[digits] = folder


def _agreed(all_parts: list[dict[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Parts on which all runs that have them agree, and the names of the others."""
    seen: dict[str, set[str]] = {}
    for parts in all_parts:
        for name, value in parts.items():
            seen.setdefault(name, set()).add(value)
    fixed = {name: next(iter(values)) for name, values in seen.items() if len(values) == 1}
    return fixed, [name for name in seen if name not in fixed]


def certificate(profile: str) -> dict:
    """
    Read what the trainings on record ran on.

    Returns
    -------
    dict
        ``runs, parameters, fixed, differing``, as `store` writes them; empty ones where nothing is on record.
    """
    path = paths.expected_file(profile).with_suffix(".json")
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {"runs": [], "parameters": {}, "fixed": {}, "differing": []} | content
