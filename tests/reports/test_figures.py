"""Each figure draws what it was given: values in their units, limits, marks and names."""

import math

import numpy as np
import pandas as pd
import pytest

from sv_utils.reports import figures

HISTORY = {"epoch": [0, 1, 2], "phase": [0, 1, 2], "loss": [math.nan, 2.0, 1.0], "accuracy": [math.nan, 0.25, 0.5]}
HISTORY |= {"learning_rate": [math.nan, 0.1, 0.01], "val_eer": [0.3, 0.1, 0.2], "seconds": [math.nan, 10.0, 5.0]}


def lines(axis):
    """Horizontal and vertical places of each line, under its label where it has one."""
    found = [(line.get_label(), *map(list, line.get_data())) for line in axis.lines]
    return [(("" if label.startswith("_") else label), x, y) for label, x, y in found]


def legend(drawn):
    """Names in the legend of an axis, or below a figure."""
    (found,) = drawn.legends if hasattr(drawn, "legends") else [drawn.get_legend()]
    return [text.get_text() for text in found.get_texts()]


def names(axis):
    return axis.get_title(), axis.get_xlabel(), axis.get_ylabel()


@pytest.fixture
def histograms(monkeypatch):
    """What the histograms are of, in place of drawing them: panel, values, label and options."""
    asked = []

    def histplot(data, ax, x=None, label="", **options):
        values = data if x is None else data[x]
        asked.append((ax, np.asarray(values).tolist(), label, options))
        ax.fill_between([], [], label=label or "_none")  # something for a legend

    monkeypatch.setattr(figures.sns, "histplot", histplot)
    return asked


def test_statistics_of_utterances_are_durations_levels_and_counts_by_split(histograms):
    table = pd.DataFrame({"split": ["train", "dev", "train"], "speaker": ["a", "b", "a"], "net": [2.0, 3.0, 4.0]})
    figure = figures.utterance_statistics(table.assign(seconds=0.0, peak=[1.0, 0.1, 0.0]), "net")
    assert [(figure.axes.index(axis), values) for axis, values, *_ in histograms] == [
        *((0, [2.0, 3.0, 4.0]), (1, [0.0, -20.0, -80.0]), (2, [1, 2])),
    ]
    assert {options["hue"] for *_, options in histograms} == {"split"}
    assert [names(axis)[1:] for axis in figure.axes] == [
        *(("duration [s]", "utterances"), ("peak level [dBFS]", "utterances"), ("utterances per speaker", "speakers")),
    ]
    figures.utterance_statistics(table.assign(seconds=[1.0, 5.0, 9.0], peak=1.0))
    assert histograms[3][1] == [1.0, 5.0, 9.0]


def test_quality_is_of_decoded_files_with_each_limit_in_its_own_panel(histograms):
    manifest = pd.DataFrame({"samples": [1, 0, 1, 1], "clipped": [0.1, 1, 0.2, 0.3], "silent": [0.4, 1, 0.5, 0.6]})
    figure = figures.quality(manifest.assign(rate=[8000, 96_000, 16_000, 8000]), 0.05, 0.7)
    assert [(figure.axes.index(axis), values) for axis, values, *_ in histograms] == [
        *((0, [0.1, 0.2, 0.3]), (1, [0.4, 0.5, 0.6])),
    ]
    assert [lines(axis)[0][1] for axis in figure.axes[:2]] == [[0.05, 0.05], [0.7, 0.7]]
    assert [names(axis)[1] for axis in figure.axes] == ["clipped fraction", "silent fraction", "original rate [kHz]"]
    assert [text.get_text() for text in figure.axes[2].get_xticklabels()] == ["8", "16"]
    assert [bar.get_height() for bar in figure.axes[2].patches] == [2, 1]


def test_voices_show_each_recording_above_its_own_spectrogram():
    first, second = np.zeros(16_000), np.zeros(8000)
    first[8000], second[4000] = 0.5, -0.25
    pictures = [np.arange(6.0).reshape(3, 2), np.arange(4.0).reshape(2, 2)]
    axes = figures.voices([first, second], ["$a", "b"], pictures).axes
    assert [axis.get_title() for axis in axes] == ["$a", "b", "", ""]
    for axis, peak, second, end in ((axes[0], 0.5, 0.5, 1.0), (axes[1], -0.25, 0.25, 0.5)):
        places = axis.collections[0].get_paths()[0].vertices
        x, y = places[np.abs(places[:, 1]).argmax()]
        assert (y, axis.get_xlim(), axis.get_ylim()) == (peak, (0, end), (-1, 1)) and abs(x - second) < 0.001
    for axis, picture, end in zip(axes[2:], pictures, (0.03, 0.02)):
        assert axis.images[0].get_array().tolist() == picture.T.tolist()
        assert tuple(axis.images[0].get_extent()) == (0, end, 0, 8) and axis.images[0].origin == "lower"
    assert [names(axis)[1:] for axis in axes] == [
        *(("", "amplitude"), ("", ""), ("time [s]", "frequency [kHz]"), ("time [s]", "")),
    ]


def test_augmentations_have_a_spectrogram_each_under_their_names():
    tone = 0.1 * np.sin(2 * np.pi * 2000 * np.arange(4000) / 16_000)
    figure = figures.augmentations({"crop": tone, "noise": np.zeros(4000), "a": tone, "b": tone, "last": tone})
    assert [axis.get_title() for axis in figure.axes] == ["crop", "noise", "a", "b", "last", "", "", ""]
    assert [len(axis.images) for axis in figure.axes] == [1] * 5 + [0] * 3
    loudest = [np.asarray(axis.images[0].get_array())[::-1].max(axis=1) for axis in figure.axes[:2]]
    assert loudest[0].argmax() == 50 and loudest[1].max() < loudest[0].max() - 50  # 2 kHz in steps of 40 Hz; silence
    assert not figure.axes[7].axison and figure.axes[4].axison
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("time [s]", "frequency [Hz]")


def test_curves_of_a_training_stand_before_what_is_expected():
    expected = pd.DataFrame({"epoch": [0, 1], "loss": [3.0, 2.5], "loss_least": [2.75, 2.25]})
    expected = expected.assign(loss_greatest=[3.5, 3.0], accuracy=0.125, learning_rate=0.5, val_eer=[0.4, 0.25])
    axes = figures.training_curves(pd.DataFrame(HISTORY), expected).axes
    wanted = {"loss": [3.0, 2.5], "training accuracy [%]": [12.5] * 2, "learning rate": [0.5] * 2}
    wanted |= {"validation EER [%]": [40.0, 25.0]}
    had = [[2.0, 1.0], [25.0, 50.0], [0.1, 0.01], [30.0, 10.0, 20.0]]
    for axis, (name, values), own in zip(axes, wanted.items(), had):
        before, after, divided, *best = lines(axis)
        assert names(axis)[1:] == ("epoch", name) and before == ("expected", [0, 1], values)
        assert after[1] == [0, 1, 2] and [value for value in after[2] if value == value] == pytest.approx(own)
        assert divided[1] == [1.5, 1.5]  # between the phases
    assert legend(axes[3]) == ["expected", "best 10.00%"]
    assert best == [("best 10.00%", [1], [10.0])] and axes[2].get_yscale() == "log"
    assert [len(axis.collections) for axis in axes] == [1, 0, 0, 0]
    low, high = axes[0].collections[0].get_datalim(axes[0].transData).intervaly
    assert (low, high) == (2.25, 3.5)
    assert [len(axis.lines) for axis in figures.training_curves(pd.DataFrame(HISTORY)).axes] == [2, 2, 2, 3]


def test_schedules_and_scales_are_drawn_over_the_steps():
    steps = pd.DataFrame({"step": [1, 2, 3], "learning_rate": [0.1, 0.2, 0.05], "margin": [0.0, math.nan, 0.2]})
    rate, margin = figures.schedules(steps).axes
    assert lines(rate) == [("", [1, 2, 3], [0.1, 0.2, 0.05])] and lines(margin) == [("", [1, 3], [0.0, 0.2])]
    assert [names(axis)[1:] for axis in (rate, margin)] == [
        *(("training step", "learning rate"), ("training step", "margin [rad]")),
    ]
    (scale,) = figures.scale_over_steps(pd.DataFrame({"step": [1, 9], "scale": [5.0, 4.0]}), 7.5).axes
    assert lines(scale) == [("dynamic scale", [1, 9], [5.0, 4.0]), ("fixed scale 7.50", [0, 1], [7.5, 7.5])]
    assert names(scale)[1:] == ("training step", "scale s") and len(legend(scale)) == 2


def test_cosines_have_a_panel_a_situation_and_a_margin_where_there_is_one(histograms):
    situations = {"before": (np.array([0.5, 0.75]), np.array([0.25])), "after": (np.array([0.9, 0.8]), np.array([0.1]))}
    axes = figures.cosine_histograms(situations, 0.25).axes
    told = [(axes.index(axis), values, label, options["color"]) for axis, values, label, options in histograms]
    assert told == [
        *((0, [0.5, 0.75], "target", figures.TARGET), (0, [0.25], "non-target", figures.NONTARGET)),
        *((1, [0.9, 0.8], "target", figures.TARGET), (1, [0.1], "non-target", figures.NONTARGET)),
    ]
    assert lines(axes[0]) == [("median target - margin 0.25", [0.375, 0.375], [0, 1])]
    assert [names(axis)[:2] for axis in axes] == [("before", "cosine"), ("after", "cosine")]
    assert legend(axes[1]) == ["target", "non-target", "median target - margin 0.25"]
    assert not figures.cosine_histograms(situations).axes[0].lines


def test_a_histogram_of_scores_has_its_threshold_and_the_score_that_is_asked_of(histograms):
    target, nontarget = np.array([0.5, 0.9]), np.array([0.1, 0.2, 0.3])
    (axis,) = figures.score_histogram(target, nontarget, 0.4, "mini").axes
    assert [(values, label, options["color"]) for _, values, label, options in histograms] == [
        *(([0.1, 0.2, 0.3], "non-target (3)", figures.NONTARGET), ([0.5, 0.9], "target (2)", figures.TARGET)),
    ]
    assert all(options["binrange"] == (0.1, 0.9) for *_, options in histograms)
    assert lines(axis) == [("threshold 0.400", [0.4, 0.4], [0, 1])] and names(axis) == ("mini", "score", "density")
    told = {"score": 0.0, "names": ("one", "two"), "width": 5.0, "counts": (7000, 80), "label": "ratio"}
    figure = figures.score_histogram(target, nontarget, 0.4, **told)
    assert [label for _, _, label, _ in histograms[2:]] == ["two (80)", "one (7,000)"]
    assert lines(figure.axes[0])[1] == ("these two 0.000", [0.0, 0.0], [0, 1])
    assert names(figure.axes[0])[1] == "ratio" and figure.get_size_inches()[0] == 5
    assert legend(figure) == ["two (80)", "one (7,000)", "threshold 0.400", "these two 0.000"]


def test_similarities_are_marked_by_speaker():
    values = np.linspace(-1, 1, 16).reshape(4, 4)
    axis, bar = figures.similarity_matrix(values, 2).axes
    assert axis.collections[0].get_array().ravel().tolist() == values.ravel().tolist()
    assert axis.collections[0].get_clim() == (-1, 1) and bar.get_ylabel() == "cosine"
    assert names(axis)[1:] == ("crop, by speaker of the batch",) * 2
    for place in (axis.xaxis, axis.yaxis):
        assert place.get_ticklocs().tolist() == [0, 2]
        assert [text.get_text() for text in place.get_ticklabels()] == ["0", "1"]


def test_rates_fall_and_rise_over_the_threshold_and_cross_at_equal_error():
    (axis,) = figures.eer_curve(np.array([0.4, 0.9]), np.array([0.1, 0.4]), "mini").axes
    assert lines(axis) == [
        ("false acceptance (FAR)", [0.1, 0.4, 0.9], [100, 50, 0]),
        ("false rejection (FRR)", [0.1, 0.4, 0.9], [0, 0, 50]),
        ("EER 25.00% at 0.400", [0.4], [25.0]),
    ]
    assert names(axis) == ("mini", "threshold", "error rate [%]") and len(legend(axis)) == 3


def test_a_det_curve_has_misses_over_false_acceptances_and_three_marks():
    # a threshold between 3 and 4 misses one of four and accepts none; one between 2 and 3 accepts half of the others
    (axis,) = figures.det_curves({"one": (np.array([2.5, 4, 5, 6]), np.array([1.0, 3.0]))}, "mini").axes
    curve, equal, rare, less_rare = axis.lines[:4]
    place = figures._probit(np.array([0.5, 0.25, 0.0]))
    points = list(zip(*curve.get_data()))
    assert (place[0], place[2]) in points and (place[2], place[1]) in points
    assert curve.get_label() == "one, EER 25.00%" and equal.get_data()[0] == equal.get_data()[1]
    assert equal.get_data()[0] == pytest.approx(place[1])
    for mark in (rare, less_rare):  # false acceptances are dear: none, at the edge of the axes
        assert mark.get_data()[1] == pytest.approx(place[1]) and mark.get_data()[0] == axis.get_xlim()[0]
    assert [line.get_label() for line in axis.lines[4:]] == ["EER", "minDCF(0.01)", "minDCF(0.05)"]
    assert names(axis) == ("mini", "false acceptance [%]", "false rejection (miss) [%]")
    for side in (axis.xaxis, axis.yaxis):
        assert side.get_major_formatter()(figures._probit(np.array([0.2]))[0], 0) == "20"
    assert axis.get_xlim() == axis.get_ylim()


def test_errors_over_costs_name_the_model_at_its_point():
    results = pd.DataFrame({"base": ["a", "b"], "list": "mini", "scoring": "cosine", "loss": "aam", "eer": [0.1, 0.2]})
    others = results.assign(eer=0.5, loss=["none", "aam"], scoring=["cosine", "AS-norm"])
    about = pd.DataFrame({"model": ["b", "a"], "macs_of_3_s": [4e9, 2e9]})
    (axis,) = figures.costs(pd.concat([results, others]), about).axes
    assert lines(axis) == [("mini", [2.0, 4.0], [10.0, 20.0])] and axis.get_xscale() == "log"
    assert [(text.get_text(), text.xy) for text in axis.texts] == [("a", (2.0, 10.0)), ("b", (4.0, 20.0))]
    assert names(axis)[1:] == ("multiply-accumulates for 3 s [G]", "EER [%]") and legend(axis) == ["mini"]


def test_recipes_and_differences_have_their_intervals_kept_or_not():
    log = pd.DataFrame({"recipe": ["base", "wider"], "kept": [True, False], "eer": [0.2, 0.15], "low": [0.125, 0.1]})
    log = log.assign(high=[0.25, 0.25], difference=[math.nan, -0.05], difference_low=-0.1, difference_high=0.0)
    left, right = figures.recipes(log).axes

    def marks(axis):
        bars = {bar.get_label(): bar for bar in axis.containers}
        ends = {name: [np.ravel(path.vertices[:, 0]) for path in bar[2][0].get_paths()] for name, bar in bars.items()}
        return {name: (*map(list, bar[0].get_data()), np.ravel(ends[name]).tolist()) for name, bar in bars.items()}

    assert marks(left) == {
        "kept": ([20.0], [1], pytest.approx([12.5, 25.0])),
        "not kept": ([15.0], [0], pytest.approx([10.0, 25.0])),
    }
    assert marks(right)["not kept"] == ([-5.0], [0], pytest.approx([-10.0, 0.0])) and marks(right)["kept"][0] == []
    assert [text.get_text() for text in left.get_yticklabels()] == ["base", "wider"]
    assert names(left)[1] == "validation EER [%]" and "[points]" in names(right)[1]
    assert legend(left.figure) == ["kept", "not kept"]
    assert [label.get_xdata() for label in right.lines if list(label.get_xdata()) == [0, 0]]


def test_validation_errors_are_drawn_over_the_time_that_training_took():
    (axis,) = figures.validation_curves({"aam": pd.DataFrame(HISTORY)}).axes
    assert lines(axis) == [("aam", [0, 10, 15], [30.0, 10.0, 20.0])]
    assert names(axis)[1:] == ("training time [s]", "validation EER [%]") and legend(axis) == ["aam"]


def test_intervals_of_the_models_reach_from_their_low_to_their_high_end():
    row = {
        "base": "a",
        "list": "mini",
        "scoring": "cosine",
        "loss": "aam",
        "eer": 0.1,
        "eer_low": 0.05,
        "eer_high": 0.2,
    }
    results = pd.DataFrame([row | {"eer_low": 0.05, "eer_high": 0.2}])
    figure = figures.compare_models(pd.concat(results.assign(list=name) for name in ("mini", "O", "E", "H")))
    axis, *_, spare, last = figure.axes
    (path,) = axis.containers[0][2][0].get_paths()
    assert path.vertices[:, 0].tolist() == [5.0, 20.0] and names(axis)[:2] == ("mini", "EER [%]")
    assert legend(figure) == ["cosine"] and not spare.get_visible() and not last.get_visible()
