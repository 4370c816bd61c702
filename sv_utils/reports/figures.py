"""Figures of the notebooks and the report: one style, colour-blind safe, axes with units."""

import base64
import contextlib
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from IPython.core.pylabtools import retina_figure
from IPython.display import Audio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, StrMethodFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image

from sv_utils.evaluation import judging, metrics
from sv_utils.evaluation.systems import SCORINGS

TARGET, NONTARGET = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
_DET_RANGE = (0.0008, 0.95)  # rates at the ends of the axes
_STYLE: Any = {
    "text.usetex": False,  # whatever a user has set for others
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "legend.frameon": False,
    "axes.prop_cycle": plt.cycler(color=sns.color_palette("colorblind")),
}


def png(figure: Figure) -> tuple[str, dict]:
    """
    Draw a figure with twice the dots, sharp on today's screens, for the same size on the page.

    Lines and areas need few colours: with 128 of them a page of six lists has a third of the bytes. With 256 a figure
    that holds a picture has half of them: the spectrograms of seven augmentations took 2.3 MB.

    Returns
    -------
    drawn : str
        PNG, in base64 as notebooks hold it.
    size : dict
        ``width`` and ``height`` on the page.
    """
    drawn, size = retina_figure(figure)
    colours = 256 if any(axis.images for axis in figure.axes) else 128
    buffer, image = io.BytesIO(), Image.open(io.BytesIO(drawn)).convert("RGB")
    image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    drawn = buffer.getvalue()
    return base64.b64encode(drawn).decode("ascii"), size


if shell := get_ipython():
    set_matplotlib_formats("retina")
    shell.display_formatter.formatters["image/png"].for_type(Figure, png)


@contextlib.contextmanager
def _axes(rows: int = 1, columns: int = 1, width: float = 8.0, height: float = 3.2, **options: Any) -> Iterator:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
        yield figure, axes
        plt.close(figure)  # the notebook shows the returned figure once, not twice


def svg(figure: Figure) -> str:
    """
    Draw a figure as SVG to stand within a page, without a background: its text takes font and ink of the page.

    Examples
    --------
    >>> svg(eer_curve(np.array([0.9, 0.8]), np.array([0.1, 0.2])))[:4]
    '<svg'
    """
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'fill="currentColor"', drawn[drawn.index("<svg") :], count=1)
    return re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", drawn).replace("#000000", "currentColor")


def utterance_statistics(table: pd.DataFrame, seconds_column: str = "seconds") -> Figure:
    """Durations [s], peak levels [dBFS] and utterances per speaker, by split."""
    with _axes(1, 3, width=10) as (figure, (durations, levels, counts)):
        colours = dict(zip(sorted(table["split"].unique()), sns.color_palette("colorblind")))
        options = {"hue": "split", "palette": colours, "element": "step", "stat": "count", "bins": 30}
        sns.histplot(table, x=seconds_column, ax=durations, **options)
        peaks = 20 * np.log10(np.maximum(table["peak"], 1e-4))
        sns.histplot(table.assign(level=peaks), x="level", ax=levels, legend=False, **options)
        per_speaker = table.groupby(["split", "speaker"]).size().rename("utterances").reset_index()
        sns.histplot(per_speaker, x="utterances", ax=counts, legend=False, **options)
        durations.set(xlabel="duration [s]", ylabel="utterances")
        levels.set(xlabel="peak level [dBFS]", ylabel="utterances")
        counts.set(xlabel="utterances per speaker", ylabel="speakers")
    return figure


def quality(manifest: pd.DataFrame, max_clipped: float, max_silent: float) -> Figure:
    """Clipped and silent fractions of all decoded files, with their limits, and the rates of the originals [kHz]."""
    decoded = manifest[manifest["samples"] > 0]
    with _axes(1, 3, width=10) as (figure, axes):
        for axis, column, limit in zip(axes, ("clipped", "silent"), (max_clipped, max_silent)):
            sns.histplot(decoded[column], ax=axis, bins=np.linspace(0, 1, 41))
            axis.axvline(limit, color="black", linestyle="--", linewidth=1)
            axis.set(xlabel=f"{column} fraction", ylabel="files", yscale="symlog")
        rates = (decoded["rate"] / 1000).map("{:g}".format)
        sns.countplot(x=rates, order=sorted(rates.unique(), key=float), ax=axes[2])
        axes[2].set(xlabel="original rate [kHz]", ylabel="files")
    return figure


def voices(waveforms: list[np.ndarray], names: list[str], spectrograms: list[np.ndarray]) -> Figure:
    """
    Waveforms above the spectrograms that the encoder sees.

    Parameters
    ----------
    waveforms : list of np.ndarray [shape=(samples,)]
        At 16 kHz, in [-1, 1).
    names : list of str
    spectrograms : list of np.ndarray [shape=(frames, bins)]
        With a hop of 10 ms; bins from 0 to 8 kHz.
    """
    with _axes(2, len(names), width=min(10, 5 * len(names)), height=4, squeeze=False) as (figure, axes):
        for (top, bottom), waveform, name, spectrogram in zip(axes.T, waveforms, names, spectrograms):
            seconds = len(waveform) / 16_000
            starts = np.arange(0, len(waveform), -(-len(waveform) // 1500))  # no figure shows more columns
            ends = [extreme.reduceat(waveform, starts) for extreme in (np.minimum, np.maximum)]
            top.fill_between(starts / 16_000, *ends, linewidth=0.4)
            top.set_title(name, parse_math=False)  # a name may hold dollars
            top.set(ylim=(-1, 1), xlim=(0, seconds))
            extent = (0, 0.01 * len(spectrogram), 0, 8)
            bottom.imshow(spectrogram.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
            bottom.set(xlabel="time [s]")
            bottom.grid(False)
        axes[0, 0].set_ylabel("amplitude")
        axes[1, 0].set_ylabel("frequency [kHz]")
    return figure


def augmentations(waveforms: dict[str, np.ndarray]) -> Figure:
    """
    Spectrograms [dB] of one crop before and after each kind of augmentation.

    Parameters
    ----------
    waveforms : dict of str to np.ndarray [shape=(samples,)]
        At 16 kHz, as `augment.examples` gives them.
    """
    rows = -(-len(waveforms) // 4)
    with _axes(rows, 4, width=10, height=2.2 * rows, squeeze=False, sharex=True, sharey=True) as (figure, axes):
        for axis, (name, waveform) in zip(axes.flat, waveforms.items()):
            axis.specgram(waveform + 1e-6, NFFT=400, Fs=16_000, noverlap=240, cmap="magma", vmin=-130, vmax=-40)
            axis.set(title=name)
            axis.grid(False)
        for axis in axes.flat[len(waveforms) :]:
            axis.set_axis_off()
        figure.supxlabel("time [s]")
        figure.supylabel("frequency [Hz]")
    return figure


def training_curves(history: pd.DataFrame, expected: pd.DataFrame | None = None) -> Figure:
    """
    Loss, accuracy, learning rate and validation EER [%] over the epochs; phases are divided by dotted lines.

    Parameters
    ----------
    history : pd.DataFrame
        As `training.Training.run` gives it.
    expected : pd.DataFrame, optional
        Of the trainings on record, drawn behind: their mean, and from the least to the greatest (`expected.expected`).
    """
    panels = [("loss", "loss", 1), ("accuracy", "training accuracy [%]", 100)]
    panels += [("learning_rate", "learning rate", 1), ("val_eer", "validation EER [%]", 100)]
    with _axes(2, 2, height=5) as (figure, axes):
        for axis, (column, label, factor) in zip(axes.flat, panels):
            if expected is not None:
                axis.plot(expected["epoch"], factor * expected[column], "--", color="grey", label="expected")
                if f"{column}_least" in expected:
                    ends = (factor * expected[f"{column}_{end}"] for end in ("least", "greatest"))
                    axis.fill_between(expected["epoch"], *ends, color="grey", alpha=0.25, linewidth=0)
            axis.plot(history["epoch"], factor * history[column], marker="o", markersize=3)
            axis.set(xlabel="epoch", ylabel=label)
            for epoch in history.loc[(history["phase"] > 1) & (history["phase"].diff() > 0), "epoch"]:
                axis.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        axes[1, 0].set_yscale("log")
        best = history.loc[history["val_eer"].idxmin()]
        axes[1, 1].plot(best["epoch"], 100 * best["val_eer"], "*", markersize=12, label=f"best {best['val_eer']:.2%}")
        axes[1, 1].legend()
    return figure


def schedules(steps: pd.DataFrame) -> Figure:
    """Learning rate and margin along the training steps."""
    with _axes(1, 2) as (figure, axes):
        for axis, column, label in zip(axes, ("learning_rate", "margin"), ("learning rate", "margin [rad]")):
            rows = steps.dropna(subset=column)
            axis.plot(rows["step"], rows[column])
            axis.set(xlabel="training step", ylabel=label)
    return figure


def scale_over_steps(steps: pd.DataFrame, fixed_scale: float) -> Figure:
    """AdaCos's scale along the training steps beside the fixed scale of the paper (section 4.1)."""
    with _axes() as (figure, axis):
        axis.plot(steps["step"], steps["scale"], label="dynamic scale")
        axis.axhline(fixed_scale, color="grey", linestyle="--", label=f"fixed scale {fixed_scale:.2f}")
        axis.set(xlabel="training step", ylabel="scale s")
        axis.legend()
    return figure


def cosine_histograms(cosines: dict[str, tuple[np.ndarray, np.ndarray]], margin: float = 0.0) -> Figure:
    """
    Target and non-target cosines, a panel a situation.

    Parameters
    ----------
    cosines : dict
        Title to (target, non-target) cosines.
    margin : float
        CosFace's margin, drawn as an arrow from the decision boundary; 0 draws none.
    """
    with _axes(1, len(cosines), squeeze=False, sharex=True) as (figure, axes):
        for axis, (title, (target, nontarget)) in zip(axes[0], cosines.items()):
            for values, colour, label in ((target, TARGET, "target"), (nontarget, NONTARGET, "non-target")):
                options = {"bins": 60, "binrange": _ends(values), "stat": "density", "element": "step"}
                sns.histplot(values, color=colour, label=label, ax=axis, **options)
            if margin:
                place = float(np.median(target)) - margin
                axis.axvline(place, color="black", linestyle="--", label=f"median target - margin {margin}")
            axis.set(title=title, xlabel="cosine")
            axis.legend()
    return figure


def similarity_matrix(similarities: np.ndarray, speakers_per_batch: int) -> Figure:
    """Cosines of all pairs of a P x K batch; the blocks on the diagonal are one speaker each."""
    with _axes(width=5.5, height=4.6) as (figure, axis):
        sns.heatmap(similarities, ax=axis, cmap="vlag", vmin=-1, vmax=1, square=True, cbar_kws={"label": "cosine"})
        per_speaker = len(similarities) // speakers_per_batch
        ticks = np.arange(0, len(similarities), per_speaker)
        axis.set(xticks=ticks, yticks=ticks, xticklabels=range(len(ticks)), yticklabels=range(len(ticks)))
        axis.set(xlabel="crop, by speaker of the batch", ylabel="crop, by speaker of the batch")
    return figure


def score_histogram(
    target: np.ndarray,
    nontarget: np.ndarray,
    threshold: float,
    title: str = "",
    score: float | None = None,
    names: tuple[str, str] = ("target", "non-target"),
    width: float = 8.0,
    counts: tuple[int, int] | None = None,
    label: str = "score",
) -> Figure:
    """
    Scores of target and non-target trials with the threshold.

    Parameters
    ----------
    target, nontarget : np.ndarray [shape=(n,)]
    threshold : float
        Drawn as a dashed line.
    title : str
    score : float, optional
        One score to be seen among them, drawn as a solid line.
    names : tuple of str
        What to call the two.
    width : float [inch]
    counts : tuple of int, optional
        Trials of either kind, where the scores are quantiles of more.
    label : str
        What the scores are.
    """
    counts = counts or (len(target), len(nontarget))
    with _axes(width=width) as (figure, axis):
        options = {"bins": 60, "binrange": _ends(target, nontarget), "stat": "density", "element": "step", "ax": axis}
        sns.histplot(nontarget, color=NONTARGET, label=f"{names[1]} ({counts[1]:,})", **options)
        sns.histplot(target, color=TARGET, label=f"{names[0]} ({counts[0]:,})", **options)
        axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
        if score is not None:
            axis.axvline(score, color="black", linewidth=3, label=f"these two {score:.3f}")
        axis.set(xlabel=label, ylabel="density", title=title)
        figure.legend(loc="outside lower center", ncols=2 if width < 6 else 4)
    return figure


def _ends(*values: np.ndarray) -> tuple[float, float]:
    """Least and greatest of all values, wider where they are one but for rounding: of that no bins can be made."""
    least, greatest = float(min(map(np.min, values))), float(max(map(np.max, values)))
    room = 1e-3 * max(1.0, abs(least)) if greatest - least < 1e-6 * max(1.0, abs(least)) else 0.0
    return least - room, greatest + room


def eer_curve(target: np.ndarray, nontarget: np.ndarray, title: str = "") -> Figure:
    """False acceptance and false rejection [%] over the threshold; they cross at the EER."""
    p_fa, p_miss, thresholds = metrics.roc(target, nontarget)
    rate, threshold = metrics.eer(target, nontarget)
    finite = np.isfinite(thresholds)
    with _axes() as (figure, axis):
        axis.step(thresholds[finite], 100 * p_fa[finite], color=NONTARGET, label="false acceptance (FAR)")
        axis.step(thresholds[finite], 100 * p_miss[finite], color=TARGET, label="false rejection (FRR)")
        axis.plot(threshold, 100 * rate, "ko", label=f"EER {rate:.2%} at {threshold:.3f}")
        axis.set(xlabel="threshold", ylabel="error rate [%]", title=title)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def det_curves(systems: dict[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """
    Detection error trade-off on probit axes (Martin et al., Eurospeech 1997).

    Parameters
    ----------
    systems : dict
        Name to (target, non-target) scores; the points of equal error and of least detection cost are marked. A point
        beyond the axes is drawn on their edge.
    """
    with _axes(width=6.5, height=6) as (figure, axis):
        for name, (target, nontarget) in systems.items():
            p_fa, p_miss, _ = metrics.roc(target, nontarget)
            points = judging.operating_points(target, nontarget)
            label = f"{name}, EER {points['EER']['p_fa']:.2%}"
            (line,) = axis.plot(*(_probit(p) for p in (p_fa, p_miss)), label=label, linewidth=1.2)
            for marker, point in zip("os^", points.values()):
                place = [_probit(np.clip([point[rate]], *_DET_RANGE)) for rate in ("p_fa", "p_miss")]
                axis.plot(*place, marker, color=line.get_color(), markersize=6, clip_on=False)
        for marker, name in zip("os^", points):
            axis.plot([], [], marker, color="grey", label=name)
        _probit_axes(axis)
        axis.set(xlabel="false acceptance [%]", ylabel="false rejection (miss) [%]", title=title)
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, fontsize=9)
    return figure


def _probit(probability: np.ndarray) -> np.ndarray:
    return metrics.probit(np.clip(probability, 1e-4, 1 - 1e-4))


def _probit_axes(axis: Axes) -> None:
    ticks = np.array([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9])
    labels = {float(_probit(np.array([tick]))[0]): f"{100 * tick:g}" for tick in ticks}
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(FixedLocator(list(labels)))
        side.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))
    limits = _probit(np.array(_DET_RANGE))
    axis.set(xlim=limits, ylim=limits, aspect="equal")


def reliability(systems: dict[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """
    Announced against observed probability of a target trial, at even prior; on the diagonal they agree.

    Parameters
    ----------
    systems : dict
        Name to (target, non-target) log-likelihood ratios; the legend gives Cllr, and what of it calibration loses.
    """
    with _axes(width=6.5, height=4.2) as (figure, axis):
        axis.plot([0, 100], [0, 100], color="grey", linestyle="--", linewidth=1)
        for name, (target, nontarget) in systems.items():
            loss = metrics.cllr(target, nontarget) - metrics.cllr_min(target, nontarget)
            label = f"{name}, Cllr {metrics.cllr(target, nontarget):.3f} (calibration loss {loss:.3f})"
            points = judging.reliability(target, nontarget)
            axis.plot(*(100 * values for values in points), marker="o", markersize=4, label=label)
        axis.set(
            xlabel="announced probability of one speaker [%]",
            ylabel="share of target trials, even prior [%]",
            title=title,
        )
        axis.legend(loc="lower right", fontsize=9)
    return figure


def player(samples: np.ndarray) -> str:
    """HTML that plays int16 samples [shape=(n,)] at 16 kHz; the page holds them."""
    return " ".join(Audio(samples, rate=16_000)._repr_html_().split())  # Markdown and tables want it on one line


def compare_models(results: pd.DataFrame) -> Figure:
    """EER [%] of each model with its speaker-level 95 % interval, a panel a list."""
    lists = list(dict.fromkeys(results["list"]))
    places = {model: place for place, model in enumerate(reversed(list(dict.fromkeys(results["base"]))))}
    untrained = results["loss"] == "none"
    kinds = {way.name: (results["scoring"] == way.name) & ~untrained for way in SCORINGS}
    shifts = np.linspace(0.2, -0.2, len(kinds))
    looks = [(marker, "full", shift) for marker, shift in zip(itertools.cycle("oDs^v"), shifts)] + [("o", "none", 0.2)]
    kinds["cosine, untrained"] = untrained
    beside = min(len(lists), 3)  # more panels, and their titles run into each other
    below = -(-len(lists) // beside)
    height = (1.6 + 0.5 * len(places)) * below
    with _axes(below, beside, width=8, height=height, squeeze=False, sharey=True) as (figure, axes):
        for axis in axes.ravel()[len(lists) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.ravel(), lists):
            for (label, chosen), (marker, fill, shift) in zip(kinds.items(), looks):
                if not chosen.any():
                    continue
                rows = results[chosen & (results["list"] == name)]
                errors = 100 * np.stack([rows["eer"] - rows["eer_low"], rows["eer_high"] - rows["eer"]])
                heights = [places[model] + shift for model in rows["base"]]
                style = {"fmt": marker, "fillstyle": fill, "capsize": 3, "markersize": 5}
                axis.errorbar(100 * rows["eer"], heights, xerr=np.maximum(errors, 0), label=label, **style)
            axis.set(title=name, xlabel="EER [%]", yticks=list(places.values()), yticklabels=list(places))
            axis.set(xlim=(0, None), ylim=(-0.5, len(places) - 0.5))  # one model alone would touch the frame
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    return figure


def costs(results: pd.DataFrame, about: pd.DataFrame) -> Figure:
    """EER [%] of each trained model's cosines over its multiply-accumulates for 3 s, a colour a list."""
    macs = about.set_index("model")["macs_of_3_s"]
    with _axes() as (figure, axis):
        for name, rows in results[(results["scoring"] == "cosine") & (results["loss"] != "none")].groupby("list"):
            places, errors = rows["base"].map(macs) / 1e9, 100 * rows["eer"]
            axis.plot(places, errors, marker="o", linestyle="", label=name)
            for model, *point in zip(rows["base"], places, errors):
                axis.annotate(model, point, xytext=(5, 5), textcoords="offset points", fontsize=8)
        axis.set(xscale="log", xlabel="multiply-accumulates for 3 s [G]", ylabel="EER [%]")
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axis.legend(loc="center left", bbox_to_anchor=(1.08, 0.5))
    return figure


def recipes(log: pd.DataFrame) -> Figure:
    """EER [%] of each recipe of `selection.log`, and the difference to the one that it comes after; with intervals."""
    places = np.arange(len(log))[::-1]
    with _axes(1, 2, width=8, height=1.4 + 0.32 * len(log), sharey=True) as (figure, axes):
        columns = {"eer": ("low", "high"), "difference": ("difference_low", "difference_high")}
        for axis, (middle, ends) in zip(axes, columns.items()):
            for kept, fill in ((True, "full"), (False, "none")):
                chosen = (log["kept"] == kept).to_numpy() & log[middle].notna().to_numpy()
                rows = 100 * log.loc[chosen, [middle, *ends]].astype(float)
                errors = np.maximum([rows[middle] - rows[ends[0]], rows[ends[1]] - rows[middle]], 0)
                style = {"fmt": "o", "fillstyle": fill, "capsize": 3, "markersize": 5}
                axis.errorbar(rows[middle], places[chosen], xerr=errors, label="kept" if kept else "not kept", **style)
        axes[0].set(xlabel="validation EER [%]", yticks=places, yticklabels=log["recipe"], ylim=(-0.5, len(log) - 0.5))
        axes[1].set(xlabel="difference to the recipe before [points]")
        for axis in axes:  # one recipe that fails shall not hide what the others do
            axis.set_xscale("symlog", linthresh=1)
            low, high = axis.get_xlim()
            ticks = [-30, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 40]
            axis.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes[1].axvline(0, color="0.5", linewidth=0.8)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def validation_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Validation EER [%] of all trainings over the time spent training [s]."""
    with _axes() as (figure, axis):
        for name, history in histories.items():
            axis.plot(
                history["seconds"].fillna(0).cumsum(), 100 * history["val_eer"], marker="o", markersize=3, label=name
            )
        axis.set(xlabel="training time [s]", ylabel="validation EER [%]")
        axis.legend()
    return figure
