"""What is to be expected: figures and curves of finished runs, read back, and where a further training should lie."""

import hashlib
import json
import math
import shutil

import pandas as pd
import pytest
from whole_files import written_whole

from sv_utils.base.errors import RequestError
from sv_utils.pipeline.profile import Profile
from sv_utils.reports import expected, tables

PARAMS = """
01_download: {}
02_prep: {}
07_train_aam@seed1: {}
07_train_aam@seed2: {}
08_evaluate: {}
09_report: {}
encoders: {campplus: campplus}
"""
RESULTS = """\
profile,model,loss,list,n_target,n_nontarget,n_speakers,eer,eer_low,eer_high,threshold,min_dcf_001,min_dcf_005,cllr,cllr_min,seconds,key
p,aam@seed1,aam,mini,30,60,18,{0},0.05,0.2,0.4,0.9,0.7,0.3,0.25,1,k
p,aam@seed1 (untrained),none,mini,30,60,18,0.3,0.2,0.4,0.9,1,1,,0.8,1,k
p,aam@seed2,aam,mini,30,60,18,{1},0.05,0.2,0.4,0.9,0.7,0.3,0.25,1,k
p,campplus,pretrained,mini,30,60,18,0.01,0.0,0.02,0.4,0.9,0.7,0.3,0.25,1,k
"""


def finished(folder, first, second, weights="ab", rate=0.1):
    """Results of a run of two seeds, whose curves have an average of weights at their end."""
    for seed in (1, 2):
        stage = folder / f"07_train_aam@seed{seed}"
        stage.mkdir(parents=True)
        head = "epoch,phase,val_eer,loss,accuracy,learning_rate"
        log = [head, "0,0,0.3,,,", f"1,1,0.{seed},{seed}.5,0.5,{rate}", "1,1,0.05,,,"]
        (stage / "log.csv").write_text("\n".join(log))
        run = {"key": "k", "seed": seed, "processor": "A", "threads": 2, "packages": {"numpy": "2", "ruff": "1"}}
        run |= {
            "start": f"2026-01-0{1 + (rate == 0.2)}",
            "parameters": {"stage": stage.name, "rate": rate},
            "engine": {"devices": ["CPU:0"], "initial_weights": weights},
        }
        (stage / "run.json").write_text(json.dumps(run))
    (folder / "02_prep/trials").mkdir(parents=True)
    (folder / "02_prep/trials/mini.txt").write_text("1 a b\n")
    (folder / "02_prep/validation_trials.txt").write_text("1 a c\n")
    rows = ["id,speaker,split,content,shard", "b,B,train,cd,1", f"a,A,test,ab,{weights}", "c,C,,ef,1"]
    (folder / "02_prep/utterances.csv").write_text("\n".join(rows))
    (folder / "results.csv").write_text(RESULTS.format(first, second))
    return folder


@pytest.fixture
def stored(tmp_path, monkeypatch, capsys):
    """The trainings of two runs of two seeds on record, and what was said of them."""
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    (tmp_path / "p.yaml").write_text(PARAMS)
    runs = [finished(tmp_path / "one", 0.1, 0.12), finished(tmp_path / "other", 0.08, 0.1, weights="ef", rate=0.2)]
    return expected.store("p", runs)


def test_figures_of_all_seeds_and_runs_are_summed_up(stored):
    own = expected.figures("p").set_index(["model", "list", "figure"]).sort_index()
    row = own.loc[("aam", "mini", "eer")]
    assert row["values"].tolist() == [0.1, 0.12, 0.08, 0.1] and row["trainings"] == 4
    assert (row["mean"], row["least"], row["greatest"]) == (0.1, 0.08, 0.12)
    assert row["sd"] == pytest.approx(math.sqrt(0.0008 / 3), rel=1e-4)
    assert own.loc[("aam (untrained)", "mini", "eer")]["trainings"] == 2
    assert "campplus" not in own.index.get_level_values("model")
    assert expected.of_model("p", "aam@seed7", "mini").tolist() == [0.1, 0.12, 0.08, 0.1]
    assert expected.of_model("p", "aam", "ocean").size == 0 and expected.of_model("q", "aam", "mini").size == 0


def test_what_the_runs_ran_on_is_recorded_and_what_differs_between_them_is_no_fixed_part(stored):
    known = expected.certificate("p")
    assert [run["processor"] for run in known["runs"]] == ["A", "A"]
    assert known["runs"][0] == {
        **{"processor": "A", "threads": 2, "engine": {"devices": ["CPU:0"]}, "packages": {"numpy": "2"}},
        **{"seeds": {"aam@seed1": 1, "aam@seed2": 2}, "start": "2026-01-01"},
    }
    assert known["fixed"] == {
        "trials of list mini": hashlib.sha256(b"1 a b\n").hexdigest(),
        "validation trials": hashlib.sha256(b"1 a c\n").hexdigest(),
        "decoded speech": hashlib.sha256(b"id,content\na,ab\nb,cd\n").hexdigest(),
        "speakers and splits": hashlib.sha256(b"id,speaker,split\na,A,test\nb,B,train\n").hexdigest(),
        "targets, non-targets and speakers of list mini": "30 60 18",
        "EER of untrained aam@seed1 on mini, seed 1": "0.300000",
    }
    stages = ("07_train_aam@seed1", "07_train_aam@seed2")
    assert known["parameters"] == {stage: {"stage": stage, "rate": 0.2} for stage in stages}  # of the newest run
    assert known["differing"] == ["first weights of aam@seed1, seed 1", "first weights of aam@seed2, seed 2"]
    assert stored.endswith(f"these differ: {', '.join(known['differing'])}")


def test_what_a_gpu_embeds_and_an_arm_processor_draws_are_parts_of_their_own(stored, tmp_path):
    file = tmp_path / "one/07_train_aam@seed1/run.json"
    for change, end in (
        ({"engine": {"devices": ["CPU:0", "GPU:0 X"], "initial_weights": "cd"}}, ("", " on a GPU")),
        ({"platform": "Linux-6.1-aarch64-with-glibc2.36"}, (" on ARM", " on ARM")),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        found = expected.fixed_parts(Profile.read("p"), tmp_path / "one")
        assert found[f"EER of untrained aam@seed1 on mini, seed 1{end[1]}"] == "0.300000"
        assert (
            found[f"first weights of aam@seed1, seed 1{end[0]}"] == "cd" and found["first weights of aam@seed2, seed 2"]
        )
        file.write_text(json.dumps(json.loads(file.read_text()) | {"engine": {"initial_weights": "cd"}}))


def test_a_list_may_be_called_na_and_a_model_that_is_gone_is_no_part(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    folder = tmp_path / "outputs/p"
    shutil.copytree(tmp_path / "one", folder)
    text = (folder / "results.csv").read_text().replace(",mini,", ",NA,")
    (folder / "results.csv").write_text(text + "p,gone (untrained),none,NA,30,60,18,0.4,0.2,0.5,0.9,1,1,,0.8,1,k\n")
    expected.store("p", [])
    assert expected.of_model("p", "aam", "NA").tolist() == [0.1, 0.12]
    fixed = expected.certificate("p")["fixed"]
    assert fixed["targets, non-targets and speakers of list NA"] == "30 60 18"
    assert [part for part in fixed if "untrained" in part] == ["EER of untrained aam@seed1 on NA, seed 1"]
    assert set(tables.read_results("p")["list"]) == {"NA"}


def test_a_stage_finds_its_own_curves_without_the_averages_of_weights(stored):
    found = expected.expected("p", "07_train_aam@seed2")
    assert found["epoch"].tolist() == [0, 1] and found["val_eer"].tolist() == [0.3, 0.15]
    assert found.loc[1, ["loss", "loss_least", "loss_greatest", "trainings"]].tolist() == [2.0, 1.5, 2.5, 4]
    assert expected.expected("p", "03_train_softmax") is None and expected.expected("q", "07_train_aam") is None


def test_a_training_is_not_counted_twice(stored, tmp_path):
    shutil.copytree(tmp_path / "one", tmp_path / "again")
    with pytest.raises(RequestError, match=r"one and .*again gave the same digits, as one training does; name one of"):
        expected.store("p", [tmp_path / "one", tmp_path / "other", tmp_path / "again"])


def test_without_a_run_the_present_outputs_are_stored(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    shutil.copytree(tmp_path / "one", tmp_path / "outputs/p")
    table, written = expected.figures("p"), written_whole(monkeypatch, expected)
    assert expected.store("p", []) == (
        f"{tmp_path / 'expected/p.csv'}: 1 runs, {len(table)} rows, 8 parts that agree in all of them"
    )
    assert written == [tmp_path / "expected/p.csv", tmp_path / "expected/p.json"]
    assert expected.of_model("p", "aam", "mini").tolist() == [0.1, 0.12]
    known = expected.certificate("p")
    assert known["parameters"]["07_train_aam@seed2"]["rate"] == 0.1 and known["differing"] == []
    assert known["fixed"]["first weights of aam@seed2, seed 2"] == "ab"


def test_a_profile_that_trains_nothing_has_nothing_to_expect(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    (tmp_path / "p.yaml").write_text(
        "01_download:\n02_prep:\n08_evaluate:\n09_report:\nencoders: {campplus: campplus}\n"
    )
    with pytest.raises(RequestError, match="profile p trains nothing"):
        expected.store("p", [])


def test_an_unfinished_run_is_no_record(stored, tmp_path):
    with pytest.raises(RequestError, match=r"two/results\.csv is missing; make it with: make reproduce PROFILE=p"):
        expected.store("p", [tmp_path / "one", tmp_path / "two"])
    (tmp_path / "one/07_train_aam@seed1/log.csv").unlink()
    with pytest.raises(RequestError, match=r"seed1/log\.csv is missing"):
        expected.collect(Profile.read("p"), [tmp_path / "one"])
    assert len(expected.certificate("p")["runs"]) == 2  # what was on record stays


def test_the_interval_is_that_of_the_textbook():
    """By hand: t(3) at 97.5 % is 3.182446 and at 99.375 % 5.393 (tables), the log-odds of the four rates as written."""
    odds = [math.log(rate / (1 - rate)) for rate in (0.08, 0.09, 0.10, 0.11)]
    mean = sum(odds) / 4
    deviation = math.sqrt(sum((value - mean) ** 2 for value in odds) / 3)
    for together, t, tolerance in ((1, 3.182446, 1e-6), (4, 5.3919, 1e-3)):
        half = t * deviation * math.sqrt(1.25)
        ends = [1 / (1 + math.exp(-end)) for end in (mean - half, mean + half)]
        assert expected.interval([0.08, 0.09, 0.10, 0.11], together) == pytest.approx(ends, rel=tolerance)
    low, high = expected.interval([1.0, 2.0, 4.0], rate=False)
    assert math.sqrt(low * high) == pytest.approx(2.0) and high / 2 == pytest.approx(2 ** (4.302653 * math.sqrt(4 / 3)))
    with pytest.raises(RequestError, match="2 trainings give no interval; run 3 or more"):
        expected.interval([0.1, 0.2])


def test_an_error_rate_of_zero_has_an_interval():
    assert expected.interval([0.0, 0.0, 0.01])[0] == 0.0 == expected.interval([0.0, 0.0, 0.0])[0]


def test_a_training_that_leaves_the_band_says_so_in_words(stored):
    told = expected.watch("p", "07_train_aam@seed1")
    assert told({"epoch": 1, "loss": 2.0, "val_eer": 0.15}) == ""
    said = told({"epoch": 1, "loss": 200.0, "val_eer": 0.15})
    assert said.startswith("epoch 1 is not as expected: the loss is above [") and "4 trainings" in said
    assert "validation EER is above" in told({"epoch": 1, "loss": 2.0, "val_eer": 0.9})
    assert "loss is below" in told({"epoch": 1, "loss": 0.001, "val_eer": 0.15})
    assert told({"epoch": 2, "loss": 200.0, "val_eer": 0.15}) == ""  # beyond what is on record
    assert told({"epoch": 1, "loss": math.nan}) == ""  # not measured
    both = told({"epoch": 1, "loss": 200.0, "val_eer": 0.9})
    assert both.count("; ") == 1 and "the loss is above" in both and "the validation EER is above" in both
    assert expected.watch("q", "07_train_aam@seed1")({"epoch": 1, "loss": 200.0, "val_eer": 0.9}) == ""


def test_a_training_is_watched_by_bands_that_hold_together(stored, monkeypatch):
    """Of forty figures of an honest training two would else lie outside."""
    seen = []
    monkeypatch.setattr(expected, "interval", lambda *said: seen.append((max(said[0]), *said[1:])) or (0.0, 1.0))
    expected.watch("p", "07_train_aam@seed1")
    assert sorted(seen) == [(0.2, 2, True), (2.5, 2, False)]  # validation EER and loss of one epoch


@pytest.mark.parametrize("profile", ["mini", "ocean_best", "losses_compared", "ocean_finetune"])
def test_what_is_shipped_is_the_sum_of_its_own_values(profile):
    table = expected.figures(profile)
    assert len(table) and len(expected.certificate(profile)["runs"]) >= 1
    for row in table.to_dict("records"):
        values = pd.Series(row["values"])
        assert len(values) == row["trainings"]
        summed = [values.mean(), values.min(), values.max()]
        assert [row["mean"], row["least"], row["greatest"]] == pytest.approx(summed, rel=1e-5)
        assert (len(values) > 1) == (not math.isnan(row["sd"]))
