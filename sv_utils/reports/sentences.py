"""
One sentence a figure: what is seen in it, in numbers.

Each function takes what the figure of the same subject in `figures` takes and returns plain text. Rates are told in
percent, differences of rates in points.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from sv_utils.evaluation import judging, metrics
from sv_utils.evaluation.evaluate import Scored
from sv_utils.evaluation.systems import COSINE

Pair = tuple[np.ndarray, np.ndarray]  # target and non-target scores


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f} %"


def score_histogram(target: np.ndarray, nontarget: np.ndarray, threshold: float) -> str:
    """Where the middle half of each kind of trial lies, and how much of it is beyond the threshold."""
    (low, high), (other_low, other_high) = (np.quantile(values, [0.25, 0.75]) for values in (target, nontarget))
    rates = judging.error_rates(np.asarray(target), np.asarray(nontarget), threshold)
    return (
        f"The middle half of the target scores lies between {low:.3f} and {high:.3f}, that of the non-target scores "
        f"between {other_low:.3f} and {other_high:.3f}; the threshold {threshold:.3f} has {_percent(rates['p_miss'])} "
        f"of the targets on its left and {_percent(rates['p_fa'])} of the non-targets on its right."
    )


def eer_curve(target: np.ndarray, nontarget: np.ndarray, wanted: float = 0.01) -> str:
    """Where the two lines cross, and what a rarer false acceptance costs."""
    rate, threshold = metrics.eer(target, nontarget)
    stricter, p_fa, p_miss = metrics.threshold_at_p_fa(target, nontarget, wanted)
    crossing = f"The lines cross at {_percent(rate)}, at the threshold {threshold:.3f}; "
    if not np.isfinite(stricter):
        return (
            crossing + f"no threshold keeps false acceptances at {_percent(wanted, 0)} or below and accepts anything."
        )
    return crossing + f"at {stricter:.3f}, {_percent(p_fa)} false acceptances cost {_percent(p_miss)} misses."


def det_curves(systems: Mapping[str, Pair]) -> str:
    """Which system is best at equal error, and whether it is the best too where false acceptances are dear."""
    points = {name: judging.operating_points(*pair) for name, pair in systems.items()}
    rates = {name: point["EER"]["p_fa"] for name, point in points.items()}
    costs = {name: metrics.min_dcf(*pair, 0.01)[0] for name, pair in systems.items()}
    best, worst, cheapest = (
        min(rates, key=rates.__getitem__),
        max(rates, key=rates.__getitem__),
        min(costs, key=costs.__getitem__),
    )
    if len(systems) == 1:
        return f"Of {best} the EER is {_percent(rates[best])} and minDCF(0.01) {costs[best]:.3f}."
    text = f"At equal error {best} errs least ({_percent(rates[best])}) and {worst} most ({_percent(rates[worst])}); "
    same = "the same system" if cheapest == best else cheapest
    return text + f"minDCF(0.01) is least for {same} ({costs[cheapest]:.3f})."


def reliability(systems: Mapping[str, Pair]) -> str:
    """The point that is farthest from the diagonal, and the system that loses least by its calibration."""
    losses = {name: metrics.cllr(*pair) - metrics.cllr_min(*pair) for name, pair in systems.items()}
    places = [
        (name, *place) for name, pair in systems.items() for place in zip(*(100 * np.stack(judging.reliability(*pair))))
    ]
    name, announced, observed = max(places, key=lambda place: abs(place[1] - place[2]))
    best = min(losses, key=losses.__getitem__)
    return (
        f"Farthest from the diagonal lies {name}: where it announces {announced:.0f} %, {observed:.0f} % are target "
        f"trials; the calibration of {best} loses least (Cllr {losses[best]:.3f} above its minimum)."
    )


def parts(scored: Mapping[str, Scored]) -> str:
    """Which lists the untrained encoder and altered speech are measured on in part, and how large the part is."""
    said = []
    for name, found in scored.items():
        if len(found.part) < len(found.trials):
            places = (found.part, slice(None))
            drawn, there = (len(set(np.concatenate([side[p] for side in found.speakers]).tolist())) for p in places)
            said.append(
                f"{len(found.part):,} of the {len(found.trials):,} trials of {name} (those between "
                f"{drawn:,} of its {there:,} speakers, drawn at random)"
            )
    return f"The untrained encoder and altered speech are measured on {'; '.join(said)}." if said else ""


def durations(by_duration: list[dict]) -> str:
    """How much worse the EER is under the worst of the conditions than for whole utterances."""
    rates = {row["cut"]: row["eer"] for row in by_duration}
    whole, worst = rates["full"], max(rates, key=rates.__getitem__)
    if rates[worst] == whole:
        return f"No condition raises the EER above the {_percent(whole)} of whole utterances."
    times = f", {rates[worst] / whole:.1f} times as high" if whole else ""
    return f"The EER rises from {_percent(whole)} of whole utterances to {_percent(rates[worst])} of *{worst}*{times}."


def durations_of_models(by_duration: pd.DataFrame) -> str:
    """
    Which of several models lose most and least by the worst of the conditions, list by list.

    Parameters
    ----------
    by_duration : pd.DataFrame
        As of `tables.breakdowns`: ``model, list, cut, eer``.
    """
    lines = []
    for name, rows in by_duration.groupby("list", sort=False):
        rates = rows.pivot_table("eer", "model", "cut", sort=False)
        worst = rates.mean().idxmax()
        loss = rates[worst] - rates["full"]
        told = [
            f"{_percent(rates.loc[model, 'full'])} of {model} to {_percent(rates.loc[model, worst])}"
            for model in dict.fromkeys((loss.idxmax(), loss.idxmin()))
        ]
        least = f", least from {told[1]}" if len(told) > 1 else ""
        lines.append(f"On {name} *{worst}* instead of whole utterances raises the EER most from {told[0]}{least}.")
    return " ".join(lines)


def groups(by_group: list[dict], fewest: int = 100) -> str:
    """Who is missed most and least, among groups of at least `fewest` target trials that share what is known."""
    lines = []
    for by in dict.fromkeys(row["by"] for row in by_group):
        rows = [row for row in by_group if row["by"] == by and row["group"] not in ("unknown", "different")]
        rows = [row for row in rows if row["n_target"] >= fewest]
        if len(rows) > 1:
            best, worst = (pick(rows, key=lambda row: row["p_miss"]) for pick in (min, max))
            told = " and ".join(
                f"{_percent(row['p_miss'], 1)} in {row['group']} ({row['n_speakers']} speakers)"
                for row in (worst, best)
            )
            lines.append(f"by {by} {told}")
    if not lines:
        return f"No two groups have {fewest} target trials each, so that no difference between them can be told."
    return f"Missed most and least, of groups with {fewest} target trials or more: {'; '.join(lines)}."


def hardest(trials: list[dict]) -> str:
    """How wrong the worst trial of each kind is."""
    worst = {row["trial"]: row for row in reversed(trials)}
    said = [
        f"the {'lowest' if kind == 'target' else 'highest'} {kind} trial has the LLR {worst[kind]['llr']:+.1f} "
        f"(cosine {worst[kind]['cosine']:.2f})"
        for kind in ("target", "non-target")
    ]
    return f"{said[0][0].upper()}{said[0][1:]}, {said[1]}; 0 is where the decision turns."


def compare_models(results: pd.DataFrame) -> str:
    """Which models have the lowest and the highest EER on each list, and whether their intervals overlap."""
    lines = []
    for name, rows in results[(results["loss"] != "none") & (results["scoring"] == COSINE.name)].groupby(
        "list", sort=False
    ):
        best, worst = rows.loc[rows["eer"].idxmin()], rows.loc[rows["eer"].idxmax()]
        text = f"On {name} the cosine EERs of {len(rows)} models go from {_percent(best['eer'])} ({best['base']}) to "
        overlap = "overlap" if best["eer_high"] >= worst["eer_low"] else "do not overlap"
        text += f"{_percent(worst['eer'])} ({worst['base']}), and the intervals of these two {overlap}."
        lines.append(
            text if len(rows) > 1 else f"On {name} the cosine EER of {best['base']} is {_percent(best['eer'])}."
        )
    return " ".join(lines)


def costs(results: pd.DataFrame, about: pd.DataFrame) -> str:
    """Say what the cheapest and the best model of each list cost and err; arguments as of `figures.costs`."""
    macs, said = about.set_index("model")["macs_of_3_s"], []
    for name, rows in results[(results["scoring"] == "cosine") & (results["loss"] != "none")].groupby("list"):
        known = rows.assign(macs=rows["base"].map(macs) / 1e9).dropna(subset="macs")
        cheap, best = (known.loc[known[column].idxmin()] for column in ("macs", "eer"))
        text = [f"{row['base']} ({row['macs']:.3g} G) errs {row['eer']:.2%}" for row in (cheap, best)]
        also = cheap["base"] == best["base"]
        said.append(f"On {name} the cheapest, {text[0]}{' and is the best' if also else f'; the best, {text[1]}'}.")
    return " ".join(said)


def validation_curves(histories: Mapping[str, pd.DataFrame]) -> str:
    """Which training came lowest, and after how long."""
    best = {name: history.loc[history["val_eer"].idxmin()] for name, history in histories.items()}
    lowest = min(best, key=lambda name: best[name]["val_eer"])
    until = {name: histories[name]["seconds"].fillna(0).cumsum()[row.name] for name, row in best.items()}
    text = f"Lowest comes {lowest}, {_percent(best[lowest]['val_eer'])} after {until[lowest]:,.0f} s of training"
    if len(best) == 1:
        return f"{text}."
    return f"{text}; the best epochs of all lie between {min(until.values()):,.0f} s and {max(until.values()):,.0f} s."


def training_curves(history: pd.DataFrame, expected: pd.DataFrame | None = None) -> str:
    """How far the validation EER fell, until when, and how that compares with what is expected."""
    best, first = history.loc[history["val_eer"].idxmin()], history.iloc[0]
    text = f"The validation EER falls from {_percent(first['val_eer'])} at the start to {_percent(best['val_eer'])} "
    text += f"after epoch {best['epoch']:.0f} of {history['epoch'].max():.0f}"
    if best["val_eer"] == first["val_eer"]:
        text = f"In no epoch does the validation EER fall below the {_percent(first['val_eer'])} of the start"
    if expected is None or expected.empty:
        return text + "; this params file has no curves to expect yet."
    difference = 100 * (best["val_eer"] - expected["val_eer"].min())
    text += f", {abs(difference):.2f} points {'above' if difference > 0 else 'below'} the expected best"
    count = expected["trainings"].max()
    if count < 2:
        return text + " (of one training, which says nothing of how much the next may differ)."
    both = history[history["epoch"] > 0].merge(expected, on="epoch", suffixes=("", "_mean"))
    inside = (both["val_eer"] >= both["val_eer_least"]) & (both["val_eer"] <= both["val_eer_greatest"])
    return text + f"; after {inside.sum()} of {len(both)} epochs it lies within the range of {count:.0f} trainings."


def cosine_histograms(cosines: Mapping[str, Pair]) -> str:
    """How far apart the two clouds lie, and how much they overlap, in each panel."""
    said = []
    for title, (target, nontarget) in cosines.items():
        distance = np.median(target) - np.median(nontarget)
        said.append(f"{title}: medians {distance:.3f} apart, EER {_percent(metrics.eer(target, nontarget)[0])}")
    return f"Target and non-target cosines, {'; '.join(said)}."


def similarity_matrix(similarities: np.ndarray, speakers_per_batch: int) -> str:
    """Mean cosine within and between speakers, and how often the nearest other crop is of the same speaker."""
    count = len(similarities)
    speaker = np.arange(count) // (count // speakers_per_batch)
    same, itself = speaker[:, None] == speaker, np.eye(count, dtype=bool)
    nearest = np.where(itself, -np.inf, similarities).argmax(axis=1)
    return (
        f"Crops of one speaker have the mean cosine {similarities[same & ~itself].mean():.3f}, crops of two speakers "
        f"{similarities[~same].mean():.3f}; of {count} crops {np.sum(speaker[nearest] == speaker)} have one of their "
        "own speaker as nearest neighbour."
    )


def scale_over_steps(steps: pd.DataFrame, fixed_scale: float) -> str:
    """From where to where the dynamic scale goes, and what that is of the fixed one."""
    first, last = steps["scale"].iloc[0], steps["scale"].iloc[-1]
    return (
        f"The dynamic scale goes from {first:.2f} to {last:.2f} in {steps['step'].iloc[-1]:,.0f} steps and ends at "
        f"{_percent(last / fixed_scale, 0)} of the fixed scale {fixed_scale:.2f}."
    )


def schedules(steps: pd.DataFrame) -> str:
    """Where the learning rate is highest and where it ends, and the largest margin with its first step."""
    top, last = steps.loc[steps["learning_rate"].idxmax()], steps.iloc[-1]
    margin = steps.loc[steps["margin"].idxmax()]
    text = f"The learning rate is highest at step {top['step']:,.0f} ({top['learning_rate']:.2g}) and ends at "
    text += f"{last['learning_rate']:.2g}; "
    if not margin["margin"]:
        return text + "the margin stays 0."
    return text + f"the margin reaches its largest value, {margin['margin']:.2g} rad, at step {margin['step']:,.0f}."


def augmentations(waveforms: Mapping[str, np.ndarray]) -> str:
    """By how much each kind of augmentation changes the level of the crop; the first is the crop as it is."""
    levels = {name: 10 * np.log10(np.mean(np.square(wave)) + 1e-12) for name, wave in waveforms.items()}
    (original, level), *others = levels.items()
    changes = {name: other - level for name, other in others}
    if not changes:
        return f"Nothing is augmented: the crop is heard as it is ({level:.1f} dB)."
    low, high = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
    return (
        f"Against the crop *{original}* ({level:.1f} dB) the level changes by {changes[low]:+.1f} dB ({low}) to "
        f"{changes[high]:+.1f} dB ({high})."
    )


def recipes(log: pd.DataFrame) -> str:
    """Which recipe is best, which change helped most, and how many changes are more than chance."""
    best = log.loc[log["eer"].astype(float).idxmin()]
    text = f"Of {len(log)} recipes {best['recipe']} has the lowest validation EER ({_percent(best['eer'])})"
    compared = log.dropna(subset=["difference"])
    if compared.empty:
        return text + "."
    helped = compared.loc[compared["difference"].astype(float).idxmin()]
    clear = compared[(compared["difference_low"] > 0) | (compared["difference_high"] < 0)]
    return (
        f"{text}; the largest gain over the recipe before is that of {helped['recipe']} "
        f"({100 * helped['difference']:+.2f} points), and {len(clear)} of {len(compared)} intervals leave 0 out."
    )
