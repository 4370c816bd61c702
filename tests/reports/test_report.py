"""The report from hand-made evaluations: every figure and every word of its tables written out."""

import base64
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from whole_files import written_whole

from sv_utils import report
from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.evaluation import intervals, judging, systems
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, figures, published, sentences, tables

PARAMS = """
01_download: {}
02_prep: {}
03_train_softmax: {}
06_train_adacos: {}
08_evaluate: {}
09_report: {}
"""
EERS = {"softmax": 0.1, "softmax + AS-norm": 0.09, "softmax (untrained)": 0.3, "adacos": 0.075}


SYSTEMS = systems.by_name(["softmax", "adacos", "campplus", "a"])


def row(model, eer, **other):
    system = SYSTEMS[model]
    loss = "none" if "untrained" in model else model.split()[0]
    found = {"profile": "two", "model": model, "loss": loss, "list": "mini", "n_target": 1500, "n_nontarget": 1560}
    found |= {"n_speakers": 18, "eer": eer, "eer_low": eer - 0.05, "eer_high": eer + 0.0555, "threshold": 0.4123}
    found |= {
        "min_dcf_001": 0.9,
        "min_dcf_005": 0.7,
        "cllr": 0.3333,
        "cllr_min": 0.25,
        "seconds": 2.0,
        "key": "ab" * 32,
    }
    found |= {"system": system.record, "base": system.model, "scoring": system.scoring.name}
    found |= {"encoder": {"parameters": 6_640_000, "dimensions": 256, "macs_of_3_s": 7e9, "speech_seconds": 900.0}}
    return found | other


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Outputs of a profile of two models, as the evaluations leave them."""
    (tmp_path / "params").mkdir()
    (tmp_path / "params/two.yaml").write_text(PARAMS)
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    rows = {name: [] for name in ("softmax", "adacos")}
    for model, eer in EERS.items():
        rows[model.split()[0]].append(row(model, eer, cllr=math.nan if "untrained" in model else 0.3333))
    rows["softmax"][0]["by_duration"] = [{"cut": "1 s", "eer": 0.4}, {"cut": "full", "eer": 0.1}]
    rows["adacos"][0] |= {"by_duration": [{"cut": "1 s", "eer": 0.5}], "eer_low": math.nan, "eer_high": math.nan}
    for model, stage in (("softmax", "03_train_softmax"), ("adacos", "06_train_adacos")):
        for folder in (f"08_evaluate@{model}", stage):
            paths.stage_dir("two", folder).mkdir(parents=True)
        (paths.stage_dir("two", f"08_evaluate@{model}") / "metrics.json").write_text(judging.to_json(rows[model]))
        log = "epoch,phase,val_eer,loss,seconds\n0,0,0.3,,\n1,1,0.12,1.5,10.5\n2,1,0.15,1.1,9.5\n"
        (paths.stage_dir("two", stage) / "log.csv").write_text(log)
    return "two"


def test_results_have_the_columns_that_others_rely_on_and_are_read_back(profile, monkeypatch):
    written = written_whole(monkeypatch, tables)
    results = tables.write_results(Profile.read(profile))
    assert written == [paths.profile_dir(profile) / "results.csv"]
    assert list(results.columns) == [*tables.COLUMNS, "base", "scoring"]
    written = (paths.profile_dir(profile) / "results.csv").read_text().split("\n")[0]
    assert written.split(",") == tables.COLUMNS
    assert results["base"].tolist() == ["softmax"] * 3 + ["adacos"]
    assert results["scoring"].tolist() == ["cosine", "AS-norm", "cosine", "cosine"]
    assert dict(zip(results["model"], results["eer"])) == EERS
    assert results["loss"].tolist() == ["softmax", "softmax", "none", "adacos"]
    assert results["cllr"].isna().tolist() == [False, False, True, False]
    pd.testing.assert_frame_equal(tables.read_results(profile), results, check_dtype=False)


def test_a_model_without_evaluation_is_named_with_the_mend(profile):
    (paths.stage_dir(profile, "08_evaluate@adacos") / "metrics.json").unlink()
    with pytest.raises(RequestError, match=r"08_evaluate@adacos/metrics\.json is missing; .*PROFILE=two"):
        tables.collect(Profile.read(profile))
    with pytest.raises(RequestError, match=r"results\.csv is missing"):
        tables.read_results(profile)


def test_summary_shows_percent_the_untrained_encoder_and_nothing_where_nothing_is_known(profile):
    table = tables.summary(tables.collect(Profile.read(profile)))
    assert table["model"].tolist() == ["softmax", "softmax + AS-norm", "adacos"]
    assert table["EER % [95 % interval]"].tolist() == ["10.00 [5.00, 15.55]", "9.00 [4.00, 14.55]", "7.50"]
    assert table["untrained"].tolist() == ["30.00", "", ""]
    assert table.iloc[2].tolist()[:5] == ["adacos", "adacos", "mini", "18", "3,060"]
    assert table.iloc[0].tolist()[3:5] == ["18", "3,060"]
    assert table.iloc[0].tolist()[7:] == ["0.412", "0.900", "0.700", "0.333", "0.250"]


def test_in_brief_only_the_plain_cosines_are_shown_and_the_list_where_there_are_several(profile):
    results = tables.collect(Profile.read(profile))
    table = tables.brief(results)
    assert table.columns.tolist() == ["model", "EER % [95 % interval]", "untrained"]
    assert table["model"].tolist() == ["softmax", "adacos"] and table["untrained"].tolist() == ["30.00", ""]
    both = tables.brief(pd.concat([results, results.assign(list="other")]))
    assert both["list"].tolist() == ["mini", "mini", "other", "other"]


def test_summary_of_rows_without_speakers_or_ratios():
    results = pd.DataFrame([row("softmax", 0.1, n_speakers=math.nan, cllr=math.nan)])
    first = tables.summary(results).iloc[0]
    assert (first["speakers"], first["Cllr"], first["Cllr_min"]) == ("", "", "0.250")


def test_markdown_is_aligned():
    table = pd.DataFrame({"model": ["a", "long name"], "EER": ["1", "10.00"]})
    lines = ["| model     | EER   |", "|-----------|-------|", "| a         | 1     |", "| long name | 10.00 |"]
    assert tables.markdown(table) == "\n".join(lines)


def test_numbers_of_a_table_are_shown_in_their_form_and_names_of_rows_where_they_are_asked_for():
    table = pd.DataFrame({"rate": [0.25, math.nan], "n": [1, 2]}, index=["one", "<two>"])
    plain, named = (tables.styled(table, {"rate": "{:.1%}"}, index=shown).to_html() for shown in (False, True))
    assert ">25.0%<" in plain and ">nan<" not in plain and ">1<" in plain
    assert "one" not in plain and ">one<" in named and ">&lt;two&gt;<" in named
    assert ">0.250000<" in tables.styled(table).to_html()


def scores(values, speakers="abcd"):
    """A table of scores: each speaker against itself (2 trials) and against the next one."""
    names = [f"{one}/x/{k}.wav" for one in speakers for k in (1, 2, 3)]
    rows = []
    for place in range(len(speakers)):
        own, following = names[3 * place : 3 * place + 3], names[3 * ((place + 1) % len(speakers))]
        rows += [(1, own[0], own[1]), (1, own[0], own[2]), (0, own[0], following), (0, own[1], following)]
    return pd.DataFrame(rows, columns=["label", "enrol", "test"]).assign(score=values)


def test_scores_are_read_by_list_and_model(profile):
    table = scores(range(16))
    for model, own in (("softmax", table.assign(score=0)), ("adacos", table)):
        own.to_csv(paths.stage_dir(profile, f"08_evaluate@{model}") / "scores_VoxCeleb1-O.csv", index=False)
    found = tables.read_scores(Profile.read(profile))
    assert {name: list(scored) for name, scored in found.items()} == {"VoxCeleb1-O": ["softmax", "adacos"]}
    pd.testing.assert_frame_equal(found["VoxCeleb1-O"]["adacos"], table)


def test_paired_differences_are_those_of_the_metrics_corrected_together():
    good, poor = [0.9, 0.8, 0.1, 0.2] * 4, [0.9, 0.2, 0.1, 0.6, 0.8, 0.3, 0.1, 0.4] * 2
    scored = {"good": scores(good), "poor": scores(poor), "same": scores(good)}
    table = tables.paired_differences({"mini": scored}, replicates=50, seed=3)
    assert table[["a", "b"]].to_numpy().tolist() == [["good", "poor"], ["good", "same"], ["poor", "same"]]
    assert table["difference"].tolist() == [-0.5, 0.0, 0.5] and set(table["list"]) == {"mini"}
    sides = [["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 4, list("aabbbbccccddddaa")]
    labels = scores(good)["label"].to_numpy()
    expected = intervals.compare(good, poor, labels, *sides, replicates=50, seed=3)
    assert table.loc[0, ["difference", "low", "high", "p"]].to_dict() == pytest.approx(expected)
    assert table["p_holm"].tolist() == intervals.holm(table["p"]).tolist()


def test_the_interval_of_a_difference_is_drawn_as_the_report_asks():
    one, other = (np.random.default_rng(k).normal(size=16) for k in (0, 1))  # errs more of some speakers than of others
    found = [
        tables.paired_differences({"mini": {"a": scores(one), "b": scores(other)}}, count, seed).loc[0, "low"]
        for count, seed in ((50, 3), (50, 4), (60, 3))
    ]
    labels, sides = scores(one)["label"].to_numpy(), [list("aaaabbbbccccdddd"), list("aabbbbccccddddaa")]
    assert found[0] == intervals.compare(one, other, labels, *sides, replicates=50, seed=3)["low"]
    assert len(set(found)) == 3


def test_models_judged_on_other_trials_are_not_compared():
    with pytest.raises(RequestError, match="a and b were judged on other trials of mini"):
        tables.paired_differences({"mini": {"a": scores(range(16)), "b": scores(range(16), "abce")}})


def test_one_model_alone_has_no_differences():
    table = tables.paired_differences({"mini": {"a": scores(range(16))}})
    assert len(table) == 0 and len(tables.differences_text(table)) == 0
    results = pd.DataFrame([row("a", 0.1)])
    assert tables.findings(results, table) == (
        "On **mini** the lowest EER is that of **a**: 10.00 [5.00, 15.55] %, cosine scores."
    )


DIFFERENCES = pd.DataFrame(
    {
        "list": ["mini", "mini"],
        "a": ["softmax", "softmax"],
        "b": ["adacos", "cosface"],
        "difference": [0.025, -0.001],
        "low": [0.0123, math.nan],
        "high": [0.0377, math.nan],
        "p": [0.001, math.nan],
        "p_holm": [0.002, math.nan],
    }
)


def test_differences_are_told_in_points():
    text = tables.differences_text(DIFFERENCES)
    assert text["models"].tolist() == ["softmax less adacos", "softmax less cosface"]
    assert text["list"].tolist() == ["mini", "mini"]
    assert text["EER difference, points [95 % interval]"].tolist() == ["+2.50 [+1.23, +3.77]", "-0.10"]
    assert text[["p", "p (Holm)"]].to_numpy().tolist() == [["0.001", "0.002"], ["", ""]]


def test_findings_name_the_best_model_and_what_is_more_than_chance(profile):
    results = tables.collect(Profile.read(profile))
    others = ["softmax + AS-norm", "softmax (untrained)"]  # the best, by scores that nobody asked for
    results.loc[results["model"].isin(others), "eer"] = 0.01
    assert tables.findings(results, DIFFERENCES) == (
        "On **mini** the lowest EER is that of **adacos**: 7.50 %, cosine scores. "
        "Pairs of models that differ by more than chance (p < 0.05 after Holm): 1 of 2 (softmax and adacos)."
    )


def test_a_difference_that_only_many_comparisons_make_is_no_finding(profile):
    """Below 0.05 by itself, above it when corrected for the others."""
    differences = DIFFERENCES.assign(p=[0.03, 0.04], p_holm=[0.06, 0.06])
    assert tables.findings(tables.collect(Profile.read(profile)), differences).endswith(
        "(p < 0.05 after Holm): 0 of 2."
    )


def test_properties_of_the_models(profile):
    log = "epoch,phase,val_eer,loss,seconds\n0,0,0.3,,\n1,1,0.12,1.5,4\n2,1,0.15,1.1,5\n3,1,0.1,1,6\n"
    (paths.stage_dir("two", "06_train_adacos") / "log.csv").write_text(log)
    table = tables.properties(Profile.read(profile))
    assert table.loc[1, ["epochs", "best_epoch", "training_seconds"]].tolist() == [3, 3, 15.0]
    first = {"model": "softmax", "loss": "softmax", "parameters": 6_640_000, "macs_of_3_s": 7e9, "dimensions": 256}
    first |= {"epochs": 2, "best_epoch": 1, "training_seconds": 20.0, "realtime": 450.0}
    assert table.loc[0].to_dict() == first and table["model"].tolist() == ["softmax", "adacos"]


def test_properties_are_shown_with_units_and_nothing_where_nothing_is_known(profile):
    about = tables.properties(Profile.read(profile))
    about.loc[1, ["epochs", "best_epoch", "training_seconds"]] = math.nan
    table = tables.properties_text(about)
    assert table.columns.tolist() == [
        *("model", "loss", "parameters", "MACs of 3 s", "dimensions", "epochs", "best epoch", "training", "realtime"),
    ]
    assert table.loc[0].tolist()[2:] == ["6,640,000", "7,000 M", "256", "2", "1", "20 s", "450 x"]
    assert table.loc[1].tolist()[5:] == ["", "", "", "450 x"]


def test_breakdowns_of_all_models(profile):
    table = tables.breakdowns(Profile.read(profile), "by_duration")
    assert table.to_numpy().tolist() == [
        ["softmax", "mini", "1 s", 0.4],
        ["softmax", "mini", "full", 0.1],
        ["adacos", "mini", "1 s", 0.5],
    ]
    assert tables.breakdowns(Profile.read(profile), "by_group").empty


def test_error_rates_of_groups_stand_side_by_side():
    lines = [("softmax", "m", 255, 30, 0.114, 0.0), ("softmax", "different", 0, 120, math.nan, 0.5)]
    lines += [("adacos", "m", 255, 30, 0.25, 0.05), ("adacos", "different", 0, 120, math.nan, 0.025)]
    groups = pd.DataFrame(lines, columns=["model", "group", "n_target", "n_nontarget", "p_miss", "p_fa"])
    table = tables.groups_text(groups.assign(list="mini", by="gender", n_speakers=3))
    assert table.columns.tolist()[2:] == ["group", "speakers", "targets", "non-targets", "softmax", "adacos"]
    assert table.to_numpy().tolist() == [
        ["mini", "gender", "m", "3", "255", "30", "11.4 / 0.0", "25.0 / 5.0"],
        ["mini", "gender", "different", "3", "0", "120", "– / 50.0", "– / 2.5"],
    ]


def test_published_rows_are_marked_and_complete():
    table = published.table()
    assert table.loc[0, ["parameters", "E", "H"]].tolist() == [22.0, 4.41, 7.72] and math.isnan(table.loc[0, "O"])
    assert table["source"].notna().all() and len(table) == 36 and (table.isna()["E"] == table.isna()["H"]).all()
    both = table.dropna(subset="E")  # three name VoxCeleb1-O alone
    assert both["E"].between(0.1, 10).all() and (both["E"] < both["H"]).all() and len(both) == 33
    smallest = table[table["system"] == "ReDimNet2-B0"].iloc[0]
    assert smallest[["parameters", "multiply-accumulates", "O"]].tolist() == [1.1, 0.33, 1.04]


def test_published_rows_stand_alone_where_the_lists_are_others():
    results = pd.DataFrame([row("softmax", 0.1)])
    assert (tables.beside_published(results, {})["row"] == "published").all()
    note = tables.published_note(results)
    assert "**Other data than mini**" in note and "not measured here" in note


def test_own_rows_stand_above_the_published_ones_on_the_same_lists():
    names = [("VoxCeleb1-O-cleaned", 0.0123), ("VoxCeleb1-E", 0.05), ("VoxCeleb1-E-cleaned", 0.044123)]
    results = [row("adacos", eer, list=name) for name, eer in names]
    results += [
        row("adacos + AS-norm", 0.04, list="VoxCeleb1-H-cleaned"),
        row("adacos (untrained)", 0.4, list=names[0][0]),
    ]
    table = tables.beside_published(pd.DataFrame(results), {"adacos": 22_345_678})
    assert table["row"].tolist()[:3] == ["this run", "this run", "published"] and len(table) == 38
    assert table.loc[0, ["system", "parameters", "scoring", "O", "E"]].tolist() == [
        "adacos",
        22.35,
        "cosine",
        1.23,
        4.41,
    ]
    assert math.isnan(table.loc[0, "H"])
    assert table.loc[1, ["system", "scoring", "H"]].tolist() == ["adacos", "AS-norm", 4.0]
    assert "Other data" not in tables.published_note(pd.DataFrame(results))


MARKED = "head\n<!-- results two -->\nthe last table\n<!-- end results two -->\ntail"


ON_RECORD = [("softmax", [0.10, 0.12]), ("softmax + AS-norm", [0.09, 0.1]), ("softmax (untrained)", [0.3, 0.3])]


def on_record(folder, trainings=2):
    """Two trainings of the profile `two` on record, or one."""
    (folder / "params/expected").mkdir()
    rows = [
        {"model": model, "list": "mini", "epoch": -1, "figure": figure, "value": value}
        for model, eers in ON_RECORD
        for eer in eers[:trainings]
        for figure, value in {
            "n_target": 1500,
            "n_nontarget": 1560,
            "n_speakers": 18,
            "eer": eer,
            "eer_low": eer / 2,
        }.items()
    ]
    expected.summed(rows).to_csv(folder / "params/expected/two.csv", index=False)


@pytest.mark.parametrize("name, rows", [("README.md", 1), ("params/README.md", 2)])
def test_what_is_on_record_is_put_between_its_marks_wherever_these_are(name, rows, profile, tmp_path, monkeypatch):
    """The front page has the plain models alone: without the row of the scores after AS-norm."""
    on_record(tmp_path)
    monkeypatch.setattr(paths, "REPO", tmp_path)
    (tmp_path / "README.md").write_text("without marks")
    (tmp_path / name).write_text(MARKED)
    assert report.main([profile, "--readme"]) == 0
    text = (tmp_path / name).read_text()
    head, tail = "head\n<!-- results two -->\n", "<!-- end results two -->\ntail"
    assert text.startswith(head + "| model ") and text.endswith(" |\n" + tail)
    table = text.removeprefix(head).removesuffix(tail).splitlines()
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    assert cells == ["softmax", "mini", "2", "18", "3,060", "11.00 [10.00, 12.00]", "30.00"]
    assert len(table) - 2 == rows and sum("AS-norm" in row for row in table) == rows - 1


def test_one_training_on_record_is_shown_without_a_range_and_none_is_refused(profile, tmp_path):
    with pytest.raises(RequestError, match="no results of two are on record; make reproduce PROFILE=two"):
        tables.on_record("two")
    on_record(tmp_path, trainings=1)
    assert tables.on_record("two")["EER %, mean [least, greatest]"].tolist() == ["10.00", "9.00"]


@pytest.mark.parametrize(("name", "profile"), [("README.md", "mini"), ("params/README.md", "ocean_best")])
def test_the_tables_of_the_readmes_are_what_the_command_makes(name, profile):
    text = (paths.REPO / name).read_text("utf-8")
    table = tables.markdown(tables.on_record(profile, plain=name == "README.md"))
    assert f"<!-- results {profile} -->\n{table}\n<!-- end results {profile} -->" in text


def test_results_without_marks_in_any_readme_are_refused(profile, tmp_path, monkeypatch, capsys):
    on_record(tmp_path)
    monkeypatch.setattr(paths, "REPO", tmp_path)
    (tmp_path / "README.md").write_text("<!-- results two -->\nwithout an end")
    assert report.main([profile, "--readme"]) == 2
    assert "neither README.md nor params/README.md has the marks '<!-- results two -->'" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "<!-- results two -->\nwithout an end"


def test_table_is_printed_with_the_session_note(profile, capsys):
    tables.write_results(Profile.read(profile))
    paths.stage_dir(profile, "02_prep").mkdir()
    (paths.stage_dir(profile, "02_prep") / "session_notes.json").write_text(json.dumps(["one session", "a check"]))
    assert report.main([profile]) == 0
    assert capsys.readouterr().out.endswith(
        "|\none session a check\nNo verdict on softmax, adacos: no training of this recipe on record. "
        "Of 4 parts that no rounding changes all agree.\n"
    )


def test_figure_of_the_models_has_a_line_for_each_and_a_mark_for_each_kind(profile):
    results = tables.collect(Profile.read(profile))
    results = pd.concat([results, results.assign(list="other")], ignore_index=True)
    figure = figures.compare_models(results)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["adacos", "softmax"]
    assert (left.get_title(), right.get_title()) == ("mini", "other") and left.get_ylim() == (-0.5, 1.5)
    marks = {container.get_label(): container.lines[0].get_xdata().tolist() for container in left.containers}
    assert marks == {"cosine": [10.0, 7.5], "AS-norm": [9.0], "cosine, untrained": [30.0]}
    lists = [f"VoxCeleb1-{name}" for name in ("O", "E", "H", "O-cleaned", "E-cleaned", "H-cleaned")]
    panels = figures.compare_models(pd.concat(results.assign(list=name) for name in lists)).axes
    assert len({panel.get_position().y0 for panel in panels}) == 2 and panels[3].get_title() == lists[3]


def test_error_over_cost_has_a_point_for_each_model_whose_cost_is_known(profile):
    results = tables.collect(Profile.read(profile))
    about = pd.DataFrame({"model": ["softmax", "adacos"], "macs_of_3_s": [7e9, 2e9]})
    (line,) = figures.costs(results, about).axes[0].lines
    assert sorted(zip(line.get_xdata(), line.get_ydata())) == [(2.0, 7.5), (7.0, 10.0)]
    assert sentences.costs(results, about) == "On mini the cheapest, adacos (2 G) errs 7.50% and is the best."
    about.loc[0, "macs_of_3_s"] = 1e9
    assert sentences.costs(results, about).endswith("softmax (1 G) errs 10.00%; the best, adacos (2 G) errs 7.50%.")
    about.loc[0, "macs_of_3_s"] = math.nan
    assert sentences.costs(results, about).endswith("adacos (2 G) errs 7.50% and is the best.")


def test_det_marks_stay_on_the_axes():
    figure = figures.det_curves({"perfect": ([1.0, 2.0], [-1.0, -2.0]), "collapsed": ([0.0], [0.0])})
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    marks = [line for line in axis.lines if line.get_marker() in "os^" and len(line.get_xdata())]
    assert len(marks) == 6
    for line in marks:
        for values in (line.get_xdata(), line.get_ydata()):
            assert low <= float(values[0]) <= high
    assert [text.get_text() for text in axis.get_legend().get_texts()][:2] == [
        "perfect, EER 0.00%",
        "collapsed, EER 50.00%",
    ]


def test_reliability_curve_is_in_percent_with_its_cost_beside_it():
    figure = figures.reliability({"even": ([math.log(3)] * 3 + [-math.log(3)], [-math.log(3)] * 3 + [math.log(3)])})
    curve = figure.axes[0].lines[1]
    assert curve.get_xdata() == pytest.approx([25, 75]) and curve.get_ydata() == pytest.approx([25, 75])
    assert curve.get_label() == "even, Cllr 0.811 (calibration loss 0.000)"
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == curve.get_label()
    assert "announced" in figure.axes[0].get_xlabel() and "share of target trials" in figure.axes[0].get_ylabel()


def test_a_figure_of_many_trials_is_small_and_looks_as_drawn():
    rng = np.random.default_rng(0)
    figure = figures.eer_curve(rng.normal(3, 1, 20_000), rng.normal(0, 1, 20_000))
    drawn, size = figures.png(figure)
    small, whole = base64.b64decode(drawn), figures.retina_figure(figure)[0]
    assert len(small) < len(whole) / 2 and size["width"] > 500
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int) for data in (small, whole)]
    assert pictures[0].shape == pictures[1].shape and pictures[0].max() == 255
    assert np.abs(pictures[0] - pictures[1]).mean() < 1


def test_a_spectrogram_of_noise_takes_half_the_bytes_and_looks_as_drawn():
    figure = figures.augmentations({"noise": np.random.default_rng(0).normal(0, 0.1, 16_000)})
    small, whole = base64.b64decode(figures.png(figure)[0]), figures.retina_figure(figure)[0]
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int) for data in (small, whole)]
    assert len(small) < 0.6 * len(whole) and np.abs(pictures[0] - pictures[1]).mean() < 1


def test_player_holds_the_sound_itself():
    html = figures.player(pd.Series([0, 1000, -1000] * 100).to_numpy("int16"))
    assert html.startswith("<audio controls") and 'src="data:audio/wav;base64,' in html and "\n" not in html


def test_an_encoder_trained_elsewhere_has_a_row_without_training_and_a_note(profile, tmp_path):
    (tmp_path / "params/two.yaml").write_text(PARAMS + "encoders: {campplus: campplus}\n")
    assert tables.provenance_note(pd.DataFrame([row("softmax", 0.1)]), Profile.read(profile)) == ""
    rows = [row(name, 0.02, loss="pretrained") for name in ("campplus", "campplus + AS-norm + QMF")]
    paths.stage_dir("two", "08_evaluate@campplus").mkdir()
    (paths.stage_dir("two", "08_evaluate@campplus") / "metrics.json").write_text(judging.to_json(rows))
    about = tables.properties(Profile.read(profile)).set_index("model")
    assert about["epochs"].isna().tolist() == [False, False, True]
    assert about.loc["campplus", "realtime"] == 450.0 and about.columns[-1] == "realtime"
    results = tables.collect(Profile.read(profile))
    known = Profile.read("two")
    assert tables.provenance_note(results, known).endswith("does not know (loss *pretrained*): campplus.")
    about = [made | {"encoder": made["encoder"] | {"sha256": "drawn.1"}} for made in rows]  # as in a rehearsal
    (paths.stage_dir("two", "08_evaluate@campplus") / "metrics.json").write_text(judging.to_json(about))
    assert tables.provenance_note(results, known).startswith("**Not trained: the weights of campplus were drawn")
    assert "AS-norm, QMF" in [container.get_label() for container in figures.compare_models(results).axes[0].containers]
    assert "lowest EER is that of **campplus**: 2.00" in tables.findings(results, tables.paired_differences({}))


def test_repeated_trainings_are_summed_up_by_mean_and_range():
    eers = {"aam@seed1": 0.05, "aam@seed2": 0.04, "aam@seed1 + AS-norm": 0.03, "aam@seed2 + AS-norm": 0.02, "once": 0.1}
    rows = [{"model": model, "loss": "aam", "list": "ocean", "eer": eer} for model, eer in eers.items()]
    untrained = ["aam@seed1 (untrained)", "aam@seed2 (untrained)"]
    rows += [{"model": model, "loss": "none", "list": "ocean", "eer": 0.5} for model in untrained]
    table = pd.DataFrame(rows).assign(n_speakers=26, n_target=1000, n_nontarget=2000)
    table = tables.over_seeds(table.assign(eer_low=table["eer"] - 0.01, eer_high=table["eer"] + 0.02))
    assert table.to_numpy().tolist() == [
        ["aam", "ocean", "2", "26", "3,000", "4.50 [4.00, 5.00]", "[3.50, 6.50]"],
        ["aam + AS-norm", "ocean", "2", "26", "3,000", "2.50 [2.00, 3.00]", "[1.50, 4.50]"],
    ]
    assert tables.over_seeds(pd.DataFrame(rows[4:5]).assign(n_speakers=2, n_target=1, n_nontarget=1)).empty


def test_scores_that_are_one_but_for_rounding_have_a_histogram():
    """Of an encoder after two steps, as a rehearsal has it: NumPy makes no 60 bins between 1 and 1 - 1e-16."""
    alike = np.array([1, 1 - 1.2e-16, 1], np.float64)
    axis = figures.score_histogram(alike, alike[:2], 1.0).axes[0]
    assert axis.get_xlim()[0] < 0.9995 < 1.0005 < axis.get_xlim()[1]
    figures.cosine_histograms({"crops": (alike, alike[:2])})
    assert figures._ends(np.array([0.25, 0.5]), np.array([0.125])) == (0.125, 0.5)
