"""The tables and findings of a report, from what the evaluations left."""

import html
import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation import intervals, systems, trials
from sv_utils.evaluation.systems import COSINE, System
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, published
from sv_utils.reports.expected import SEED

COLUMNS = ["profile", "model", "loss", "list", "n_target", "n_nontarget", "n_speakers", "eer", "eer_low", "eer_high"]
COLUMNS += ["threshold", "min_dcf_001", "min_dcf_005", "cllr", "cllr_min", "seconds", "key"]


def evaluations(profile: Profile) -> dict[str, list[dict]]:
    """
    Read what the evaluation of each model of a profile left in ``metrics.json``.

    Returns
    -------
    dict
        Model to a row for each list and kind of score: the columns of ``results.csv``; ``system`` (`System.record`),
        ``encoder`` (its size), ``eer_definitions``, ``calibration``; with the model's own name also ``by_duration``,
        ``by_group, hardest``.

    Raises
    ------
    RequestError
        When a model has not been evaluated.
    """
    found = {}
    for model in profile.models:
        path = paths.stage_dir(profile.name, f"08_evaluate@{model}") / "metrics.json"
        if not path.exists():
            raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile.name}")
        found[model] = json.loads(path.read_text())
    return found


def collect(profile: Profile) -> pd.DataFrame:
    """
    Rows of all evaluations of a profile.

    Returns
    -------
    pd.DataFrame
        As of `of_rows`.
    """
    return of_rows([row for evaluation in evaluations(profile).values() for row in evaluation])


def of_rows(rows: list[dict]) -> pd.DataFrame:
    """
    Turn rows of ``metrics.json`` into a table.

    Returns
    -------
    pd.DataFrame
        A row per system and list, in the columns of ``results.csv``; rates are fractions, NaN where not known. Rows of
        their own are the model with other scores and the untrained encoder (loss ``none``). Two more columns say what
        was scored: ``base``, the name of the model, and ``scoring``, the way (see `evaluation.systems`).
    """
    table = pd.DataFrame(rows)[COLUMNS].astype(dict.fromkeys(COLUMNS[7:-1], float))
    return _with_systems(table, [System.of_record(row["system"]) for row in rows])


def _with_systems(results: pd.DataFrame, judged: list[System]) -> pd.DataFrame:
    return results.assign(base=[system.model for system in judged], scoring=[system.scoring.name for system in judged])


def write_results(profile: Profile) -> pd.DataFrame:
    """Write ``outputs/<profile>/results.csv`` and return its rows, as of `of_rows`."""
    results = collect(profile)
    with replace_on_success(paths.profile_dir(profile.name) / "results.csv") as temporary:
        results[COLUMNS].to_csv(temporary, index=False)
    return results


def read_results(profile: str) -> pd.DataFrame:
    """
    Read ``outputs/<profile>/results.csv``, as of `of_rows`.

    Raises
    ------
    RequestError
        When there is none yet.
    """
    path = paths.profile_dir(profile) / "results.csv"
    if not path.exists():
        raise RequestError(f"{path} is missing; make it with: make reproduce PROFILE={profile}")
    results = pd.read_csv(path, keep_default_na=False, na_values=[""])
    known = systems.by_name(Profile.read(profile).models)
    return _with_systems(results, [known.get(name, System(name)) for name in results["model"]])


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
        A row per trained model and list, all text; empty where not known. *expected* stands beside the EER where
        trainings of this params file are on record (`reproduction`).
    """
    untrained = results[results["loss"] == "none"].set_index(["base", "list"])["eer"]
    trained = results[results["loss"] != "none"]
    before = [
        untrained.get((row.base, row.list), math.nan) if row.scoring == COSINE.name else math.nan
        for row in trained.itertuples()
    ]
    table = pd.DataFrame(
        {
            "model": trained["model"],
            "loss": trained["loss"],
            "list": trained["list"],
            "speakers": trained["n_speakers"].map(_number("{:,.0f}")),
            "trials": (trained["n_target"] + trained["n_nontarget"]).map(_number("{:,}")),
            "EER % [95 % interval]": [
                _with_interval(row.eer, row.eer_low, row.eer_high) for row in trained.itertuples()
            ],
            "untrained": [_number("{:.2f}")(100 * eer) for eer in before],
            "threshold": trained["threshold"].map(_number("{:.3f}")),
            "minDCF(0.01)": trained["min_dcf_001"].map(_number("{:.3f}")),
            "minDCF(0.05)": trained["min_dcf_005"].map(_number("{:.3f}")),
            "Cllr": trained["cllr"].map(_number("{:.3f}")),
            "Cllr_min": trained["cllr_min"].map(_number("{:.3f}")),
        }
    ).reset_index(drop=True)
    wanted = [_expected(row) for row in trained.itertuples()]
    if any(wanted):
        table.insert(6, "expected", wanted)
    return table


def brief(results: pd.DataFrame) -> pd.DataFrame:
    """Of `summary` the EERs of the plain cosines alone; the list where there are several."""
    table = summary(results[results["scoring"] == COSINE.name])
    shown = ["model", *(["list"] if table["list"].nunique() > 1 else []), "EER % [95 % interval]"]
    return table[[*shown, *(name for name in ("expected", "untrained") if name in table)]]


def _expected(row: Any) -> str:
    """Mean, least and greatest EER [%] of the trainings on record, and how many there are."""
    values = expected.of_model(row.profile, row.model, row.list)
    if not len(values):
        return ""
    return f"{_with_interval(values.mean(), values.min(), values.max())}, n = {len(values)}"


def on_record(profile: str, plain: bool = False) -> pd.DataFrame:
    """
    What the trainings on record of a profile reached, as people read it.

    Parameters
    ----------
    profile : str
    plain : bool
        Only the scores that are cosines.

    Returns
    -------
    pd.DataFrame
        A row per trained model and list, all text: counts; EER [%], minDCF and Cllr as mean [least, greatest] over the
        trainings; the mean ends of the EER's interval over speakers; the mean EER of the untrained encoder.

    Raises
    ------
    RequestError
        If no results are on record.
    """
    table = expected.figures(profile)
    rows = []
    for (model, name), own in table[table["list"] != ""].groupby(["model", "list"], sort=False):
        if "(untrained)" in model or (plain and "+" in model):
            continue
        found = own.set_index("figure")
        before = table[(table["model"] == f"{model} (untrained)") & (table["list"] == name)].set_index("figure")
        rows.append(
            {"model": model, "list": name, "trainings": f"{found['trainings'].max():.0f}"} | _on_record(found, before)
        )
    if not rows:
        raise RequestError(
            f"no results of {profile} are on record; make reproduce PROFILE={profile}, then sv report "
            f"{profile} --expected"
        )
    shown = pd.DataFrame(rows)
    return shown.loc[:, (shown != "").any()]


def _on_record(found: pd.DataFrame, before: pd.DataFrame) -> dict[str, str]:
    def mean(figure: str, table: pd.DataFrame = found) -> float:
        return float(table.loc[figure, "mean"]) if figure in table.index else math.nan

    def spread(figure: str, factor: float, pattern: str) -> str:
        if figure not in found.index:
            return ""
        ends = (factor * found.loc[figure, end] for end in ("mean", "least", "greatest"))
        return (
            "{} [{}, {}]".format(*map(pattern.format, ends))
            if found.loc[figure, "trainings"] > 1
            else pattern.format(next(ends))
        )

    low, high = 100 * mean("eer_low"), 100 * mean("eer_high")
    return {
        "speakers": _number("{:,.0f}")(mean("n_speakers")),
        "trials": _number("{:,.0f}")(mean("n_target") + mean("n_nontarget")),
        "EER %, mean [least, greatest]": spread("eer", 100, "{:.2f}"),
        "95 % interval": f"[{low:.2f}, {high:.2f}]" if low < high else "",
        "untrained": _number("{:.2f}")(100 * mean("eer", before)),
        "minDCF(0.05)": spread("min_dcf_005", 1, "{:.2f}"),
        "Cllr": spread("cllr", 1, "{:.2f}"),
    }


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """
    What repeated trainings have in common: models that differ in the ``@seed1``, ``@seed2`` of their names alone.

    Parameters
    ----------
    results : pd.DataFrame
        As of `collect`.

    Returns
    -------
    pd.DataFrame
        A row per model that was trained twice or more, and list, all text: the mean of the EERs, the least and the
        greatest, and the mean ends of their intervals over speakers.
    """
    trained = results[results["loss"] != "none"].assign(model=results["model"].str.replace(SEED, "", regex=True))
    rows = []
    for (model, name), runs in trained.groupby(["model", "list"], sort=False):
        if len(runs) > 1:
            row = {"model": model, "list": name, "seeds": str(len(runs))}
            row["speakers"] = f"{runs['n_speakers'].iloc[0]:,.0f}"
            row["trials"] = f"{(runs['n_target'] + runs['n_nontarget']).iloc[0]:,}"
            row["EER %, mean [least, greatest]"] = _with_interval(
                runs["eer"].mean(), runs["eer"].min(), runs["eer"].max()
            )
            low, high = 100 * runs["eer_low"].mean(), 100 * runs["eer_high"].mean()
            row["95 % interval"] = f"[{low:.2f}, {high:.2f}]" if low < high else ""
            rows.append(row)
    return pd.DataFrame(rows)


def _number(pattern: str) -> Callable[[float], str]:
    """A function from a number to text, empty for NaN."""
    return lambda value: "" if math.isnan(value) else pattern.format(value)


def _with_interval(value: float, low: float, high: float, pattern: str = "{:.2f}") -> str:
    """Fractions as percent, with the interval where it says something: one without width knows too few speakers."""
    text = pattern.format(100 * value)
    return f"{text} [{pattern.format(100 * low)}, {pattern.format(100 * high)}]" if low < high else text


def read_scores(profile: Profile) -> dict[str, dict[str, pd.DataFrame]]:
    """
    Read the scores of all models.

    Returns
    -------
    dict
        List to model to a table ``label, enrol, test, score, llr, as_norm, as_norm_llr, qmf_llr``, a row a trial.
    """
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for model in profile.models:
        for path in sorted(paths.stage_dir(profile.name, f"08_evaluate@{model}").glob("scores_*.csv")):
            found.setdefault(path.stem.removeprefix("scores_"), {})[model] = pd.read_csv(path)
    return found


def paired_differences(
    scores: dict[str, dict[str, pd.DataFrame]], replicates: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """
    Compare the EERs of each two models on each list, over the same resampled speakers.

    Parameters
    ----------
    scores : dict
        As of `read_scores`.
    replicates, seed : int
        Of `intervals.speaker_bootstrap`.

    Returns
    -------
    pd.DataFrame
        ``list, a, b``, ``difference`` of the EERs (`a` less `b`), ``low`` and ``high`` of its 95 % interval, ``p``, and
        ``p_holm``, corrected for all these comparisons.

    Raises
    ------
    RequestError
        When two models were not judged on the same trials.
    """
    rows = []
    for name, tables in scores.items():
        for a, b in itertools.combinations(tables, 2):
            first, second = tables[a], tables[b]
            if not first[["label", "enrol", "test"]].equals(second[["label", "enrol", "test"]]):
                raise RequestError(f"{a} and {b} were judged on other trials of {name}; make their evaluations again")
            one, other, labels = first["score"].to_numpy(), second["score"].to_numpy(), first["label"].to_numpy()
            speakers = trials.speaker(first["enrol"]), trials.speaker(first["test"])
            figures = intervals.compare(one, other, labels, *speakers, replicates=replicates, seed=seed)
            rows.append({"list": name, "a": a, "b": b} | figures)
    table = pd.DataFrame(rows, columns=["list", "a", "b", "difference", "low", "high", "p"])
    return table.assign(p_holm=intervals.holm(table["p"]))


def differences_text(differences: pd.DataFrame) -> pd.DataFrame:
    """Differences of `paired_differences` as people read them: percentage points, all text."""
    spans = zip(differences["difference"], differences["low"], differences["high"])
    return pd.DataFrame(
        {
            "list": differences["list"],
            "models": differences["a"] + " less " + differences["b"],
            "EER difference, points [95 % interval]": [_with_interval(*span, "{:+.2f}") for span in spans],
            "p": differences["p"].map(_number("{:.3f}")),
            "p (Holm)": differences["p_holm"].map(_number("{:.3f}")),
        }
    )


def findings(results: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Say in sentences, a paragraph a list, which model is best and which of the differences are more than chance."""
    paragraphs = []
    for name, rows in results[results["loss"] != "none"].groupby("list", sort=False):
        rows = rows[rows["scoring"] == COSINE.name]
        best = rows.loc[rows["eer"].idxmin()]
        text = f"On **{name}** the lowest EER is that of **{best['model']}**: "
        text += f"{_with_interval(best['eer'], best['eer_low'], best['eer_high'])} %, cosine scores."
        compared = differences[differences["list"] == name]
        real = compared[compared["p_holm"] < 0.05]
        if len(compared):
            named = f" ({'; '.join(real['a'] + ' and ' + real['b'])})" if len(real) else ""
            text += " Pairs of models that differ by more than chance (p < 0.05 after Holm): "
            text += f"{len(real)} of {len(compared)}{named}."
        paragraphs.append(text)
    return "\n\n".join(paragraphs)


def properties(profile: Profile) -> pd.DataFrame:
    """
    What each model is and what it cost.

    Returns
    -------
    pd.DataFrame
        ``model, loss, parameters, dimensions``; ``macs_of_3_s``, see `complexity`; ``epochs`` trained,
        ``training_seconds`` spent in them, and ``best_epoch`` by validation EER, missing where the encoder was trained
        elsewhere; ``realtime``: seconds of speech embedded in one second.
    """
    rows, trained = [], profile.models
    for model, evaluation in evaluations(profile).items():
        about, row = evaluation[0]["encoder"], evaluation[0]
        rows.append(
            {
                "model": model,
                "loss": row["loss"],
                "parameters": about["parameters"],
                "macs_of_3_s": about["macs_of_3_s"],
                "dimensions": about["dimensions"],
                **(_training_of(profile, trained[model]) if trained[model] else {}),
                "realtime": about["speech_seconds"] / row["seconds"],
            }
        )
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*table.columns.drop("realtime"), "realtime"])


def properties_text(about: pd.DataFrame) -> pd.DataFrame:
    """
    Show what `properties` gives as people read it, all text.

    Parameters
    ----------
    about : pd.DataFrame
    """
    patterns = {"parameters": "{:,.0f}", "macs_of_3_s": "{:,.0f} M", "dimensions": "{:.0f}", "epochs": "{:.0f}"}
    patterns |= {"best_epoch": "{:.0f}", "training_seconds": "{:,.0f} s", "realtime": "{:,.0f} x"}
    names = {"macs_of_3_s": "MACs of 3 s", "best_epoch": "best epoch", "training_seconds": "training"}
    about = about.assign(macs_of_3_s=about["macs_of_3_s"] / 1e6)
    shown = {name: about[name].map(_number(pattern)) for name, pattern in patterns.items() if name in about}
    return about.assign(**shown).rename(columns=names)


def _training_of(profile: Profile, stage: str) -> dict:
    log = pd.read_csv(paths.stage_dir(profile.name, stage) / "log.csv")
    return {
        "epochs": int(log["epoch"].max()),
        "best_epoch": int(log.loc[log["val_eer"].idxmin(), "epoch"]),
        "training_seconds": float(log["seconds"].sum()),
    }


def provenance_note(results: pd.DataFrame, profile: Profile) -> str:
    """Say what is not known of a profile's encoders that were trained elsewhere; empty where there is none."""
    names = dict.fromkeys(results.loc[results["loss"] == "pretrained", "base"])
    told = {name: rows[0]["encoder"] for name, rows in evaluations(profile).items()} if names else {}
    drawn = [name for name in names if str(told[name].get("sha256", "")).startswith("drawn")]  # of a rehearsal
    public = [name for name in names if name not in drawn]
    said = []
    if public:
        said.append(
            f"Trained elsewhere, on data that this experiment does not know (loss *pretrained*): {', '.join(public)}."
        )
    if drawn:
        said.append(
            f"**Not trained: the weights of {', '.join(drawn)} were drawn, in the place of files that are not here; "
            "their error rates say nothing.**"
        )
    return " ".join(said)


def breakdowns(profile: Profile, name: str) -> pd.DataFrame:
    """One of the breakdowns of all models (``by_duration``, ``by_group`` or ``hardest``), with model and list."""
    rows = [row for evaluation in evaluations(profile).values() for row in evaluation if name in row]
    return pd.DataFrame([{"model": row["model"], "list": row["list"]} | line for row in rows for line in row[name]])


def groups_text(groups: pd.DataFrame) -> pd.DataFrame:
    """
    Error rates of groups as people read them, a column a model.

    Parameters
    ----------
    groups : pd.DataFrame
        The breakdowns ``by_group``.

    Returns
    -------
    pd.DataFrame
        All text; ``P_miss / P_fa`` in percent, a dash where a group lacks such trials.
    """
    rates = [
        " / ".join(_number("{:.1f}")(100 * rate) or "–" for rate in (row.p_miss, row.p_fa))
        for row in groups.itertuples()
    ]
    counts = ["list", "by", "group", "n_speakers", "n_target", "n_nontarget"]
    table = groups.assign(rates=rates).pivot_table("rates", counts, "model", aggfunc="first", sort=False)
    names = {"n_speakers": "speakers", "n_target": "targets", "n_nontarget": "non-targets"}
    return table.reset_index().rename(columns=names).astype(str)


def published_note(results: pd.DataFrame) -> str:
    """Head the table of `beside_published`, and say when its rows are of other data than this profile's."""
    text = (
        "## Beside published systems\nEER [%] on VoxCeleb1-O, -E and -H, parameters in millions, multiply-accumulates "
    )
    text += "in 10^9. Rows marked *published* are copied from their sources and not measured here. "
    if results["list"].str.startswith("VoxCeleb1-").any():
        return text + "The rows *this run* are those of the cleaned lists above."
    lists = ", ".join(dict.fromkeys(results["list"]))
    return text + f"**Other data than {lists}**: no row of it can be compared with the results above."


def beside_published(results: pd.DataFrame, parameters: dict[str, int]) -> pd.DataFrame:
    """
    EERs [%] on VoxCeleb1-O, -E and -H: of this profile, as far as it has these lists, then as others published them.

    Parameters
    ----------
    results : pd.DataFrame
        As of `collect`; of the lists the cleaned ones count, since they are what others report.
    parameters : dict
        Model to its number of parameters.

    Returns
    -------
    pd.DataFrame
        The columns of `published.table`, and first ``row``: ``this run`` or ``published``.
    """
    rows = []
    for (base, kind), own in results[results["loss"] != "none"].groupby(["base", "scoring"], sort=False):
        eers = own.set_index("list")["eer"]
        found = {name: round(100 * eers.get(f"VoxCeleb1-{name}-cleaned", math.nan), 2) for name in "OEH"}
        if not all(map(math.isnan, found.values())):
            said = {"row": "this run", "system": base, "parameters": round(parameters[base] / 1e6, 2), **found}
            rows.append(said | {"scoring": kind})
    others = published.table()
    others.insert(0, "row", "published")
    return pd.concat([pd.DataFrame(rows, columns=others.columns), others], ignore_index=True) if rows else others


class Markup(str):
    """HTML of our own, such as a player: the only thing in a table that is not escaped."""


def escaped(text: object) -> str:
    """
    Write a name that others gave so that it is text in Markdown and HTML alike; `Markup` stays as it is.

    Examples
    --------
    >>> escaped("<b>|$x$"), escaped("mv041/carlo/00013.wav")
    ('&#60;b&#62;&#124;&#36;x&#36;', 'mv041/carlo/00013.wav')
    """
    if isinstance(text, Markup):
        return text
    text = "".join(f"&#{ord(sign)};" if sign in "&<>|$\\" else sign for sign in " ".join(str(text).splitlines()))
    return text.replace("](", "]&#40;")


def markdown(table: pd.DataFrame) -> str:
    """Table as Markdown, its columns aligned so that it also reads well at a terminal; cells are text, but `Markup`."""
    cells = [list(table.columns), *([escaped(cell) for cell in row] for row in table.to_numpy(object).tolist())]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def styled(table: pd.DataFrame, formats: Mapping[str, str] | None = None, index: bool = False) -> Any:
    """
    Show a table in a notebook, every text escaped (pandas' styles leave that to whoever calls them).

    Parameters
    ----------
    table : pd.DataFrame
    formats : dict
        Column to the form of its numbers.
    index : bool
        Whether the rows' names are shown too.
    """
    table = table.rename(index=lambda name: html.escape(str(name))) if index else table
    shown = table.style.format(dict(formats or {}), na_rep="", escape="html")
    return shown if index else shown.hide(axis="index")


def session_note(profile: str) -> str:
    """Say what the profile's lists are not: same-session corpora flatter every system."""
    notes = json.loads((paths.stage_dir(profile, "02_prep") / "session_notes.json").read_text())
    return " ".join(notes)
