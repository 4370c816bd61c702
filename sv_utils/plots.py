"""Figures of the notebooks and the report: one style, colour-blind safe, axes with units."""

import contextlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from . import metrics

TARGET, NONTARGET = sns.color_palette("colorblind")[2], sns.color_palette("colorblind")[3]
_STYLE = {
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


@contextlib.contextmanager
def _axes(rows: int = 1, columns: int = 1, width: float = 8.0, height: float = 3.2, **options):
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
        yield figure, axes
        plt.close(figure)  # the notebook shows the returned figure once, not twice


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


def voices(waveforms: list[np.ndarray], names: list[str], spectrograms: list[np.ndarray]) -> Figure:
    """
    Waveforms above the spectrograms that the encoder sees.

    Parameters
    ----------
    waveforms : list of np.ndarray [shape=(samples,)]
        At 16 kHz, in [-1, 1).
    names : list of str
    spectrograms : list of np.ndarray [shape=(frames, bins)]
        With a hop of 10 ms.
    """
    with _axes(2, len(names), width=10, height=4, squeeze=False) as (figure, axes):
        for (top, bottom), waveform, name, spectrogram in zip(axes.T, waveforms, names, spectrograms):
            seconds = len(waveform) / 16_000
            top.plot(np.linspace(0, seconds, len(waveform)), waveform, linewidth=0.4)
            top.set(title=name, ylim=(-1, 1), xlim=(0, seconds))
            extent = (0, 0.01 * len(spectrogram), 0, spectrogram.shape[1])
            bottom.imshow(spectrogram.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
            bottom.set(xlabel="time [s]")
            bottom.grid(False)
        axes[0, 0].set_ylabel("amplitude")
        axes[1, 0].set_ylabel("bin")
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Loss, accuracy, learning rate and validation EER [%] over the epochs; stages are divided by dotted lines."""
    panels = [("loss", "loss", 1), ("accuracy", "training accuracy [%]", 100)]
    panels += [("learning_rate", "learning rate", 1), ("val_eer", "validation EER [%]", 100)]
    with _axes(2, 2, height=5) as (figure, axes):
        for axis, (column, label, factor) in zip(axes.flat, panels):
            axis.plot(history["epoch"], factor * history[column], marker="o", markersize=3)
            axis.set(xlabel="epoch", ylabel=label)
            for epoch in history.loc[(history["stage"] > 1) & (history["stage"].diff() > 0), "epoch"]:
                axis.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        axes[1, 0].set_yscale("log")
        best = history.loc[history["val_eer"].idxmin()]
        axes[1, 1].plot(best["epoch"], 100 * best["val_eer"], "*", markersize=12, label=f"best {best['val_eer']:.2%}")
        axes[1, 1].legend()
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
                sns.histplot(values, bins=60, stat="density", color=colour, label=label, ax=axis, element="step")
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


def score_histogram(target: np.ndarray, nontarget: np.ndarray, threshold: float, title: str = "") -> Figure:
    """Scores of target and non-target trials with the threshold at equal error."""
    with _axes() as (figure, axis):
        options = {"bins": 80, "stat": "density", "element": "step", "ax": axis}
        sns.histplot(nontarget, color=NONTARGET, label=f"non-target ({len(nontarget):,})", **options)
        sns.histplot(target, color=TARGET, label=f"target ({len(target):,})", **options)
        axis.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.3f}")
        axis.set(xlabel="score", ylabel="density", title=title)
        axis.legend()
    return figure


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
        axis.legend()
    return figure


def det_curves(systems: dict[str, tuple[np.ndarray, np.ndarray]], title: str = "") -> Figure:
    """
    Detection error trade-off on probit axes (Martin et al., Eurospeech 1997).

    Parameters
    ----------
    systems : dict
        Name to (target, non-target) scores; the point of equal error is marked.
    """
    with _axes(width=5.5, height=5) as (figure, axis):
        for name, (target, nontarget) in systems.items():
            p_fa, p_miss, _ = metrics.roc(target, nontarget)
            rate = metrics.eer(target, nontarget)[0]
            (line,) = axis.plot(*(_probit(p) for p in (p_fa, p_miss)), label=f"{name}, EER {rate:.2%}")
            axis.plot(*[_probit(np.array([rate]))] * 2, "o", color=line.get_color())
        _probit_axes(axis)
        axis.set(xlabel="false acceptance [%]", ylabel="false rejection (miss) [%]", title=title)
        axis.legend(loc="upper right")
    return figure


def _probit(probability: np.ndarray) -> np.ndarray:
    return metrics.probit(np.clip(probability, 1e-4, 1 - 1e-4))


def _probit_axes(axis) -> None:
    ticks = np.array([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
    labels = {float(_probit(np.array([tick]))[0]): f"{100 * tick:g}" for tick in ticks}
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(FixedLocator(list(labels)))
        side.set_major_formatter(FuncFormatter(lambda value, _: labels.get(value, "")))
    limits = _probit(np.array([0.0008, 0.65]))
    axis.set(xlim=limits, ylim=limits, aspect="equal")


def compare_models(results: pd.DataFrame) -> Figure:
    """EER [%] of each model with its speaker-level 95 % interval, a panel a list; hollow: untrained."""
    lists = list(dict.fromkeys(results["list"]))
    trained = results[results["loss"] != "none"]
    with _axes(1, len(lists), width=8, height=1.2 + 0.5 * trained["model"].nunique(), squeeze=False) as (figure, axes):
        for axis, name in zip(axes[0], lists):
            rows = trained[trained["list"] == name].sort_values("eer", ascending=False).reset_index()
            errors = 100 * np.stack([rows["eer"] - rows["eer_low"], rows["eer_high"] - rows["eer"]])
            axis.errorbar(
                100 * rows["eer"], rows.index, xerr=np.maximum(errors, 0), fmt="o", capsize=4, label="trained"
            )
            untrained = results[(results["list"] == name) & (results["loss"] == "none")].set_index("model")["eer"]
            eers = 100 * (rows["model"] + " (untrained)").map(untrained)
            axis.plot(eers, rows.index, "o", fillstyle="none", color="grey", label="untrained")
            axis.set(title=name, xlabel="EER [%]", yticks=rows.index, yticklabels=rows["model"])
            axis.set_xlim(left=0)
            axis.legend()
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
