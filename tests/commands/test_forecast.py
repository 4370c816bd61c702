"""Forecasts of disk and time: sizes that are known, asked for, or stated."""

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from faulty_server import serve
from release import make

from sv_utils import corpora, download, forecast
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.pipeline import rehearsal
from sv_utils.pipeline.profile import Profile
from sv_utils.speech import acquisition, needs


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("SV_MIRROR", "SV_VOXCELEB_KEY", "SV_PARAMS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(forecast, "SAMPLE", 5)
    monkeypatch.setattr(forecast, "_print_trainings", lambda found: None)
    monkeypatch.setattr(forecast, "_measured", lambda work: {"seconds": 0.5, "device": "a test"})


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(needs, "_asked", lambda *_: None)
    monkeypatch.setattr(needs, "rate", lambda *_: 0.0)


def test_voxceleb_without_a_network_takes_what_the_corpora_state(offline):
    told = forecast.forecast("voxceleb_original_resnet34")
    assert told["archives"]["bytes"].sum() == 111_600_000_000
    assert set(told["archives"]["source"]) == {"stated"}
    rows = told["stages"].set_index("stage")
    assert rows.loc["01_download", "peak"] == 111_600_000_000
    # 2,794 hours of 16,000 samples a second, two bytes each
    assert rows.loc["02_prep", "peak"] - rows.loc["01_download", "peak"] == 2794 * 3600 * 32000
    assert forecast.main(["voxceleba"]) == 2


@pytest.mark.parametrize(
    ("free", "code", "said"),
    [(434_285_790_448, 0, "434.3 GB (enough)"), (434_000_000_000, 1, "434.0 GB (285.8 MB are missing)")],
)
def test_whether_the_disk_is_large_enough(offline, monkeypatch, tmp_path, capsys, free, code, said):
    """
    Archives of 111.6 GB and 2,794 hours of samples, 433,468,800,000 bytes, and embeddings of 512 numbers and a name.

    153,516 listed utterances, 20,000 of them by the untrained encoder and in 4 cuts, and 20 of 5,994 speakers:
    373,396 x (4 x 512 + 140) bytes.
    """
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert forecast.main(["voxceleb_original_resnet34"]) == code
    assert capsys.readouterr().out.splitlines()[-1] == f"free in {tmp_path / 'outputs'}: {said}"


def test_what_the_outputs_hold_already_is_room_too(offline, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=434_285_690_448))
    assert forecast.main(["voxceleb_original_resnet34"]) == 1
    there = tmp_path / "outputs" / "corpora" / "voxceleb1" / "archive"
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes(100_000))
    assert forecast.main(["voxceleb_original_resnet34"]) == 0


def test_removed_archives_and_flac_need_less(offline, monkeypatch, tmp_path):
    (tmp_path / "params").mkdir()
    text = (
        Profile.read("voxceleb_original_resnet34")
        .file.read_text()
        .replace("  workers: 8", "  workers: 8\n  remove_archives: true\n  encoding: flac")
    )
    (tmp_path / "params" / "lean.yaml").write_text(text)
    plain = forecast.forecast("voxceleb_original_resnet34")["stages"].set_index("stage")
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    lean = forecast.forecast("lean")["stages"].set_index("stage")
    assert lean.loc["02_prep", "after"] == lean.loc["02_prep", "peak"] - 111_600_000_000
    assert lean.loc["02_prep", "after"] < 0.8 * plain.loc["02_prep", "peak"]


def test_bundled_and_fetched_archives_need_no_download(capsys):
    told = forecast.forecast("mini")
    assert set(told["archives"]["source"]) == {"own files"} and told["archives"]["to_fetch"].sum() == 0
    assert told["archives"]["bytes"].sum() == pytest.approx(13.9e6, rel=0.03)
    assert told["speed"]["decoding"] > 1 and told["speed"]["bytes_per_second_of_speech"] == pytest.approx(32000)
    assert forecast.main(["mini"]) == 0
    printed = capsys.readouterr().out
    assert "02_prep" in printed and "enough" in printed and "verified" not in printed


def test_servers_are_asked_and_measured(tmp_path, monkeypatch):
    made = dataclasses.replace(make(tmp_path / "published"), data=None, bundled=None)
    with serve(tmp_path / "published") as server:
        corpus = dataclasses.replace(made, routes=(server.url + "/{file}?key={key}", server.url + "/{file}"))
        dev, _ = corpus.remotes
        sizes = [(tmp_path / "published" / file).stat().st_size for file, _ in dev.parts]
        assert needs._asked(corpus, dev) == sum(sizes)
        assert [row["source"] for row in needs.archives_of(corpus, None)] == ["server", "server"]
        assert needs.rate(corpus, corpus.routes[0]) == 0.0  # no key
        assert needs.rate(corpus, corpus.routes[1]) > 1000
        acquisition.fetch(corpus)
        assert [(row["source"], row["to_fetch"]) for row in needs.archives_of(corpus, None)] == [("here", 0)] * 2
    other = dataclasses.replace(corpus, name="other")
    with pytest.raises(RequestError, match=r"nothing tells the size of tiny_dev_aac\.zip of corpus other"):
        needs.archives_of(other, None)


def test_every_published_archive_states_its_size_and_hours():
    found = [corpora.get(name) for name in corpora.names()]
    published = [archive for corpus in found if corpus.routes for archive in (corpus.public or corpus.remotes)]
    assert {"vox1_dev_wav.zip", "vox2_dev_aac.zip"} < {archive.name for archive in published}
    assert all(archive.gigabytes and archive.hours for archive in published)


def test_a_rehearsal_ends_with_a_table_and_what_is_missing(offline, tmp_path, monkeypatch, capsys):
    """Every stage as it went, what the real one will take, and in the last line what this machine lacks."""
    name, trained = "voxceleb_original_resnet18", "06_train_adacos"
    asked = Profile.read(name)
    trained = next(stage for stage in asked.parameters if "_train_" in stage)
    model = trained.partition("_train_")[2]
    made = []

    def run(profile, folder, environment, cores):
        outputs = folder / "outputs" / name
        (outputs / trained).mkdir(parents=True)
        assert (folder / "outputs/pretrained").resolve() == tmp_path / "outputs/pretrained"  # fetched once for both
        log = "epoch,phase,val_eer,seconds\n0,0,0.5,\n1,1,0.4,60\n2,1,0.4,3\n3,2,0.4,70\n4,2,0.4,5\n"
        (outputs / trained / "log.csv").write_text(log)
        (outputs / f"08_evaluate@{model}").mkdir()
        row = {"seconds": 2.0, "encoder": {"speech_seconds": 352.0}}
        (outputs / f"08_evaluate@{model}" / "metrics.json").write_text(json.dumps([row]))
        for stage in profile.parameters:
            passed = stage != "09_report"
            yield rehearsal.Rehearsed(stage, passed, 1.5, 2_000_000_000, 0, "" if passed else "sv_utils.run: the cause")

    monkeypatch.setattr(forecast.miniature, "make", lambda corpus, *_, **__: made.append(corpus.name))
    monkeypatch.setattr(forecast.rehearsal, "run", run)
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: [])
    monkeypatch.setattr(needs.acquisition, "recorded", lambda _: [])
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000_000_000))
    assert forecast.main([name, "--rehearse", "--speakers", "20"]) == 1
    told = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: line for line in told}
    assert made == asked.parameters["01_download"]["corpora"]
    assert "111.6 GB to fetch" in lines["01_download"] and "2,794 h of sound, 321.9 GB" in lines["02_prep"]
    steps = 1_092_009 // asked.parameters[trained]["batch_size"]
    first, second = (
        phase["epochs"] * (phase["steps_per_epoch"] or steps) for phase in asked.parameters[trained]["phases"]
    )
    assert f"({first:,} steps of 48 s, then {second:,} steps of 80 s), by this CPU" in lines[trained]
    assert "352.0 h of listed speech at 176 s a second: 2.0 h to embed it once" in lines[f"08_evaluate@{model}"]
    assert "09_report" in lines and " NO " in lines["09_report"] and "the cause" in lines["09_report"]
    assert told[-1].startswith(
        "missing for the real run: a key (SV_VOXCELEB_KEY) for voxceleb1 and voxceleb2, or their"
    )
    assert told[-1].endswith("333.5 GB of disk; a GPU.")
    assert forecast.main([name, "--rehearse", "--speakers", "2"]) == 2


def test_a_step_is_timed_as_it_will_be_trained_and_multiplied_by_all_of_them(monkeypatch):
    """1,092,009 utterances of 5,994 speakers, 60 of whom validate; three speeds make three speakers of one."""
    seen = []

    def measured(work):
        seen.append(work)
        return {"seconds": 0.5 if work["phase"]["crop_seconds"] == 2.0 else 2.0, "device": "a test"}

    monkeypatch.setattr(forecast, "_measured", measured)
    first, second = forecast.trainings("voxceleb_modern_small").to_dict("records")[:2]
    assert [work["n_classes"] for work in seen[:2]] == [3 * 5934] * 2
    assert [(work["loss"], work["batch_size"], work["phase"]["learning_rate"]) for work in seen[:2]] == [
        ("aam", 32, 0.0)
    ] * 2
    asked = Profile.read("voxceleb_modern_small").parameters["07_train_aam"]
    assert all(work[name] == asked[name] for work in seen[:2] for name in ("architecture", "engine", "initial_model"))
    assert [(row["phase"], row["steps"], row["epochs"]) for row in (first, second)] == [(1, 34125, 150), (2, 34125, 5)]
    assert [first["hours"], second["hours"]] == pytest.approx([34125 * 150 * 0.5 / 3600, 34125 * 5 * 2.0 / 3600])


def test_a_phase_with_batches_of_its_own_is_timed_with_them(monkeypatch):
    monkeypatch.setattr(forecast, "_measured", lambda work: {"seconds": work["batch_size"] / 100, "device": "a test"})
    found = forecast.trainings("voxceleb_campplus").query("stage == '07_train_aam'")
    assert found[["phase", "batch_size", "steps", "seconds"]].to_numpy().tolist() == [
        [1, 128, 8531, 1.28],
        [2, 64, 17062, 0.64],  # twice as many, of half the crops
    ]


def test_a_rehearsal_has_so_many_speakers_of_what_is_trained_on_and_few_of_the_others(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(forecast.os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(
        forecast.miniature,
        "make",
        lambda corpus, folder, many, **named: seen.append((corpus.name, folder, many, named)),
    )
    monkeypatch.setattr(forecast.rehearsal, "run", lambda *given: seen.append(given) or iter(()))
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: [])
    assert forecast.main(["voxceleb_original_resnet18", "--rehearse", "--speakers", "20"]) == 0
    assert forecast.main(["voxceleb_original_resnet18", "--rehearse"]) == 0
    home = tmp_path / "outputs/.rehearsal/voxceleb_original_resnet18"
    (of, folder, environment, cores) = seen[2]
    assert (of.name, folder, cores) == ("voxceleb_original_resnet18", home, 3)
    assert environment == {"SV_MIRROR": str(home / "corpora"), "SV_REHEARSAL": str(home / "corpora")}
    made = {(name, place, many) for name, place, many, _ in seen[:2]}
    assert made == {("voxceleb2", home / "corpora", 20), ("voxceleb1", home / "corpora", 12)}
    assert [named["workers"] for *_, named in seen[:2]] == [3, 3] and seen[3][2] == 40


def test_weights_that_cannot_be_had_are_drawn_and_said_to_be_missing(monkeypatch, capsys):
    seen, name = [], "redimnet2_b2_lm"

    def run(line, **named):
        seen.append(line)
        return SimpleNamespace(returncode=0, stdout=json.dumps({name: "github.com: no answer"}), stderr="")

    monkeypatch.setattr(forecast.subprocess, "run", run)
    monkeypatch.setattr(forecast.miniature, "make", lambda *_, **__: None)
    monkeypatch.setattr(forecast.rehearsal, "run", lambda *given: iter(()))
    assert forecast.main(["voxceleb_finetune_redimnet2_b2", "--rehearse", "--speakers", "20"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert seen[0][3].endswith("outputs/pretrained") and seen[0][4:] == [name]  # judged, and begun with
    assert f"{name}: its network with drawn weights stands in for it: github.com: no answer" in told
    assert f"the file of {name} (sv download --pretrained {name})" in told[-1]


@pytest.mark.long
@pytest.mark.parametrize("profile", sorted(path.stem for path in (paths.REPO / "params").glob("*.yaml")))
def test_every_profile_is_rehearsed(profile, capsys, monkeypatch):
    """At a width of 12 speakers; public encoders that cannot be had here have drawn weights."""
    assert forecast.main([profile, "--rehearse", "--speakers", "12"]) == 0, capsys.readouterr().out


def test_addresses_are_asked_and_nothing_is_fetched(tmp_path, monkeypatch, capsys):
    """Who answers, sizes, ranges, keys; every file needs one good address."""
    made = dataclasses.replace(make(tmp_path / "published"), data=None, bundled=None)
    size = (tmp_path / "published/tiny_dev_aac_partaa").stat().st_size
    with serve(tmp_path / "published") as server:
        url = server.url + "/{file}"
        texts = {"table": dataclasses.replace(made.table, url=server.url + "/tiny_meta.csv"), "lists": {}}
        corpus = dataclasses.replace(made, routes=(url + "?key={key}", url), **texts)
        assert download.check(corpus) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4 * 2 + 1 + 1 and lines[-1].startswith("tiny: all 5 files can be fetched, ")
        assert "not asked: it needs a key" in lines[0] and "needs a key" in lines[0][-11:]
        assert "status 206" in lines[1] and f"{size / 1e6:.1f} MB  resumes" in lines[1]
        rows = needs.routes_of(corpus, key="wrong")
        assert (rows[0]["answers"], rows[0]["good"], rows[1]["bytes"]) == ("status 401", False, size)
        (tmp_path / "published/tiny_test_wav.zip").unlink()
        assert download.check(corpus, key="secret") == 1
        assert "tiny: 1 of 5 files cannot be fetched from here: run the tests again." in capsys.readouterr().out
        server.faults.append("page")
        assert needs.route("tiny_meta.csv", url)["answers"] == "a web page instead of the file"
        assert not list((tmp_path / "outputs").glob("**/*aac*"))
    assert needs.route("a", "http://127.0.0.1:9/{file}")["answers"] == "no answer (ConnectionError)"
    assert download.main(["--check", "mini"]) == 0 and "nothing is to be fetched" in capsys.readouterr().out


def test_sizes_and_times_are_reckoned_from_what_is_to_fetch_decoded_and_kept(monkeypatch):
    """Archives of 3 and 5 bytes, the second here, of 4 files and 2 hours; 10 ms a file and 100 s of speech a second."""
    rows = {
        "a": [{"hours": 0.5, "to_fetch": 3, "source": "stated", "bytes": 3, "files": 1}],
        "b": [{"hours": 1.5, "to_fetch": 0, "source": "here", "bytes": 5, "files": 3}],
    }
    speed = {"per_file": 0.01, "decoding": 100.0, "bytes_per_second_of_speech": 0.01, "download": 6.0}
    prep = {"encoding": "flac", "remove_archives": False, "workers": 2}
    fetching, seen = {"corpora": ["a", "b"], "source": "there"}, []
    asked = SimpleNamespace(parameters={"01_download": fetching, "02_prep": prep})
    monkeypatch.setattr(forecast.Profile, "read", lambda name: asked)
    monkeypatch.setattr(forecast.corpora, "get", lambda name: name)
    monkeypatch.setattr(forecast.needs, "archives_of", lambda corpus, *given: seen.append(given) or rows[corpus])
    monkeypatch.setattr(forecast, "measure", lambda *given: seen.append(given) or speed)
    monkeypatch.setattr(forecast, "embeddings", lambda *given: seen.append(given) or 1000)
    monkeypatch.setattr(forecast.os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    told = forecast.forecast("any")
    assert seen == [("there",), ("there",), (["a", "b"], "flac"), (asked.parameters, ["a", "b"])]
    decoded = 4 * 0.01 + 7200 / 100
    stages = [["01_download", 8, 8, 0.5], ["02_prep", 80, 80, decoded / 2], ["08_evaluate", 1080, 1080, None]]
    found = told["stages"].astype(object)
    assert found.where(found.notna(), None).to_numpy().tolist() == stages
    assert told["speed"] == speed | {"cores": 2, "hours": 2.0, "on_8_cores": decoded / 8} and told["embeddings"] == 1000
    fetching |= {"source": ""}
    prep |= {"remove_archives": True, "workers": 9}
    speed |= {"download": 0.0}
    told = forecast.forecast("any")["stages"]
    assert seen[4:6] == [(None,), (None,)]
    assert told["after"].tolist() == [8, 72, 1072] and np.isnan(told["seconds"][0])  # no server answers
    assert told["seconds"][1] == decoded / 4


def test_a_server_is_asked_only_of_what_is_not_here_and_where_that_is_wanted(monkeypatch):
    corpora_of = {name: SimpleNamespace(name=name, routes=(f"{name}1", f"{name}2")) for name in "abc"}
    rates, asked = {"b2": 7.0, "c1": 9.0}, []
    monkeypatch.setattr(forecast.needs, "readable", lambda corpus: [] if corpus.name != "a" else archives_of_mini)
    monkeypatch.setattr(forecast.needs, "rate", lambda of, route: asked.append(route) or rates.get(route, 0.0))
    archives_of_mini = acquisition.fetch(corpora.get("mini"))
    found = forecast.measure(list(corpora_of.values()), "pcm")
    assert (found["download"], asked) == (7.0, ["b1", "b2"]) and found["sample"] == archives_of_mini[0].name
    assert forecast.measure(list(corpora_of.values()), "pcm", ask=False)["download"] == 0.0 and len(asked) == 2
    monkeypatch.setattr(forecast.archives, "read", lambda *_: b"no audio")
    with pytest.raises(RequestError, match=r"none of the first files of .* can be decoded: nothing to measure on"):
        forecast.measure([corpora_of["a"]], "pcm")


def test_speakers_of_a_rehearsal_are_a_number_or_all(monkeypatch):
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: [])
    assert [forecast._speakers(word) for word in (None, "10", "all")] == [40, 10, None]
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: ["H100"])
    assert forecast._speakers(None) is None
    for word in ("9", "-12", "some"):
        with pytest.raises(RequestError, match="--speakers is a number from 10, or all"):
            forecast._speakers(word)


def test_phases_of_equal_shapes_are_timed_once_and_utterances_are_those_of_the_store(monkeypatch, tmp_path):
    phase = {"batch_size": 0, "crop_seconds": 2.0, "epochs": 3, "steps_per_epoch": 0, "speeds": [1.0], "margin": 0.1}
    phases = [phase, phase | {"epochs": 5, "margin": 0.3}, phase | {"batch_size": 4, "steps_per_epoch": 6}]
    own = {"batch_size": 8, "engine": {}, "architecture": {"width": 4}, "profile": "p", "stage": "s", "phases": phases}
    asked = {"02_prep": {"train_corpora": ["mini"]}, "03_train_softmax": own, "06_train_adacos@2": own}
    read = SimpleNamespace(parameters=asked, of=asked.get)
    monkeypatch.setattr(forecast.Profile, "read", lambda name: read)
    prepared = paths.stage_dir("any", "02_prep") / "utterances.csv"
    prepared.parent.mkdir(parents=True)
    prepared.touch()
    splits = {"split": ["train"] * 20 + ["validation"] * 9, "speaker": ["ada", "bob"] * 10 + ["cy"] * 9}
    monkeypatch.setattr(
        forecast.manifest, "read_utterances", lambda file: pd.DataFrame(splits) if file == prepared else 0
    )
    seen = []
    told = {"seconds": 1800.0, "device": "a test"}
    monkeypatch.setattr(forecast, "_measured", lambda work: seen.append(work) or told)
    found = forecast.trainings("any")
    assert [(work["loss"], work["batch_size"], work["n_classes"]) for work in seen] == [
        ("softmax", 8, 2),
        ("softmax", 4, 2),
    ]
    assert all(not {"profile", "stage", "phases"} & set(work) for work in seen)
    rows = [[1, 2, 3, 3.0, 8], [2, 2, 5, 5.0, 8], [3, 6, 3, 9.0, 4]]
    names = ["phase", "steps", "epochs", "hours", "batch_size"]
    assert found[names].to_numpy().tolist() == rows * 2
    assert found["stage"].tolist() == ["03_train_softmax"] * 3 + ["06_train_adacos@2"] * 3
    assert set(found["device"]) == {"a test"} and set(found["crop_seconds"]) == {2.0}


def test_speech_that_nothing_counts_is_known_after_it_is_prepared(monkeypatch):
    counted = [SimpleNamespace(subset=subset, utterances=9, speakers=5) for subset in ("dev", "dev", "test")]
    monkeypatch.setattr(forecast.corpora, "get", lambda name: SimpleNamespace(remotes=counted))
    asked = {"train_corpora": ["a"], "validation_speakers": 3}
    assert forecast._counts("any", asked) == (18, 7)
    for name in ("utterances", "speakers"):
        monkeypatch.setattr(counted[1], name, None)
        with pytest.raises(RequestError, match="how many utterances any trains on is known after 02_prep: run that"):
            forecast._counts("any", asked)
        monkeypatch.setattr(counted[1], name, 9)


def test_a_step_is_timed_by_a_process_of_its_own_whose_last_words_are_told(monkeypatch):
    monkeypatch.undo()
    ran, seen = SimpleNamespace(returncode=0, stdout='{"seconds": 2.0}', stderr=""), []
    monkeypatch.setattr(forecast.subprocess, "run", lambda line, **named: seen.append((line[1:], named)) or ran)
    work = {"loss": "aam", "batch_size": 8}
    assert forecast._measured(work) == {"seconds": 2.0}
    ((words, named),) = seen
    assert words == ["-m", "sv_utils.bench.phases"] and json.loads(named["input"]) == work
    assert named["env"]["TF_CPP_MIN_LOG_LEVEL"] == "2" and named["capture_output"] and named["text"]
    for said, told in (("a\nout of memory\n", "out of memory"), ("", "it was killed, perhaps for want of memory")):
        ran.returncode, ran.stderr = 1, said
        with pytest.raises(WorkError, match=f"a step of aam with batch_size 8 cannot be taken: {told}"):
            forecast._measured(work)


FORECAST = """\
mini a.zip 1.5 MB stated
mini b.zip 2.5 MB here
measured on a.zip: one core takes 10.0 ms a file and decodes 1,250 s of speech a second, a shard takes 32.0 kB a \
second of speech, downloads arrive at 3.5 MB/s
01_download needs 4.0 MB, leaves 4.0 MB, takes 1.5 min
02_prep needs 24.0 MB, leaves 20.0 MB, takes 2.0 h for 9 h in 7 files on 2 cores (30.0 min on 8), or as \
the disk writes
08_evaluate needs 30.0 MB, leaves 29.0 MB, with 6.0 MB of embeddings
trainings of any
free in {place}: 30.0 MB (enough)
"""


def test_a_forecast_is_told_in_lines(monkeypatch, tmp_path, capsys):
    archives = [("mini", "a.zip", 1.5e6, "stated", 4), ("mini", "b.zip", 2.5e6, "here", 3)]
    stages = [("01_download", 4e6, 4e6, 90.0), ("02_prep", 24e6, 20e6, 7200.0), ("08_evaluate", 30e6, 29e6, np.nan)]
    speed = {"sample": "a.zip", "per_file": 0.01, "decoding": 1250.0, "bytes_per_second_of_speech": 32_000.0}
    speed |= {"download": 3.5e6, "hours": 9.0, "cores": 2, "on_8_cores": 1800.0}
    told = {
        "archives": pd.DataFrame(archives, columns=["corpus", "archive", "bytes", "source", "files"]),
        "stages": pd.DataFrame(stages, columns=["stage", "peak", "after", "seconds"]),
        "speed": speed,
        "embeddings": 6_000_000,
    }
    monkeypatch.setattr(forecast, "forecast", lambda profile: told if profile == "any" else None)
    monkeypatch.setattr(forecast, "trainings", lambda profile: f"trainings of {profile}")
    monkeypatch.setattr(forecast, "_print_trainings", print)
    free = SimpleNamespace(free=30_000_000)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder: free if folder == tmp_path else None)
    assert forecast.main(["any"]) == 0
    assert re.sub(" +", " ", capsys.readouterr().out) == FORECAST.format(place=tmp_path)
    free.free = 29_000_000
    speed["download"] = 0.0
    assert forecast.main(["any", "--speech-only"]) == 1
    said = capsys.readouterr().out
    assert said.endswith(f"free in {tmp_path}: 29.0 MB (1.0 MB are missing)\n")
    assert "trainings of" not in said and "downloads" not in said
    kept = tmp_path / "outputs/any/embeddings/e.npz"  # which the run writes anew
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(1_000_000))
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder: free)
    assert forecast.main(["any", "--speech-only"]) == 0


TRAININGS = """\
06_train_aam, phase 1: 3 epochs of 1,200 batches of 64 x 2.5 s, 0.123 s each: 12.5 h; memory 3.0 GB with 8 crops, \
12.0 MB a crop
training: 12.5 h on {device}, by the time of a step; batches and validation come on top
"""


@pytest.mark.parametrize(("device", "lines"), [("GPU H100", 3), ("CPU (no GPU)", 4)])
def test_trainings_are_told_by_phases_and_devices(monkeypatch, capsys, device, lines):
    monkeypatch.undo()
    row = {"stage": "06_train_aam", "phase": 1, "epochs": 3, "steps": 1200, "batch_size": 64, "crop_seconds": 2.5}
    row |= {"seconds": 0.1234, "hours": 12.5, "bytes": 3e9, "crops": 8, "bytes_per_crop": 12e6, "device": device}
    forecast._print_trainings(pd.DataFrame([row]))
    said = capsys.readouterr().out
    assert said.startswith(TRAININGS.format(device=device)) and said.count("\n") == lines
    assert ("a CPU's time and peak memory" in said) == (lines == 4) and said.endswith(f"{forecast.PUBLISHED}\n")


@pytest.fixture
def projected(monkeypatch, tmp_path):
    """A projection of a profile that is trained on corpus `a` and judged on a list of corpus `b`; what was asked."""

    def part(name, subset, **more):
        return SimpleNamespace(name=name, subset=subset, **{"utterances": None, "hours": None} | more)

    a = SimpleNamespace(name="a", remotes=[part("a.dev", "dev", utterances=85)], lists={}, routes=("x{key}",))
    tested = [part("b.dev", "dev", utterances=999, hours=5.0), part("b.test", "test", utterances=7, hours=1.76)]
    b = SimpleNamespace(name="b", remotes=tested, lists={"L": 1}, routes=())
    c = SimpleNamespace(name="c", remotes=[], lists={}, routes=(), manual="ask for it")
    seen, of = [], {corpus.name: corpus for corpus in (a, b, c)}

    def archives_of(corpus, *given, **named):
        seen.append((corpus.name, given, named))
        if corpus is c:
            raise RequestError("a folder that is not here")
        return [{"corpus": corpus.name, "hours": 2.0, "to_fetch": 3e9 * (corpus is a), "files": 10}]

    phase = {"batch_size": 0, "epochs": 3, "steps_per_epoch": 0}
    training = {"batch_size": 8, "phases": [phase, phase | {"batch_size": 16, "steps_per_epoch": 5, "epochs": 2}]}
    training["engine"] = {"jit_compile": False, "precision": "float32"}
    asked = SimpleNamespace(parameters={"01_download": {"corpora": ["a", "b", "c"], "source": "there"}})
    asked.parameters["02_prep"] = {"encoding": "flac", "workers": 3, "train_corpora": ["a"]}
    asked.parameters |= {"06_train_aam": training, "08_evaluate@aam": {"lists": ["L"]}}
    short = [{"batch_size": 4, "steps_per_epoch": 2}, {"batch_size": 0, "steps_per_epoch": 1}]
    rehearsed = {"06_train_aam": {"batch_size": 8, "phases": short}}
    monkeypatch.setattr(forecast.corpora, "get", of.get)
    monkeypatch.setattr(forecast.needs, "archives_of", archives_of)
    monkeypatch.setattr(forecast.needs, "own_folder", lambda corpus, source: seen.append(source))
    monkeypatch.setattr(forecast.rehearsal, "small", lambda *given: rehearsed if given == (asked, 4) else {})
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: [])
    monkeypatch.setattr(forecast.rehearsal, "has_few_crops", lambda own: own is not training)
    return forecast._Projection(asked, tmp_path, 4, ["an_encoder"]), asked, seen


def test_a_projection_goes_from_the_miniature_to_what_is_asked(projected, monkeypatch, tmp_path):
    project, asked, seen = projected
    assert seen == [(name, ("there",), {"ask": False}) for name in "abc"]
    assert project.of("01_download") == "3.0 GB to fetch, as fast as the network"
    speed = {"per_file": 0.5, "decoding": 100.0}
    measured = []
    monkeypatch.setattr(forecast, "measure", lambda *given, **named: measured.append((given, named)) or speed)
    # 20 files of 4 hours: 10 and 144 s, by three of four cores
    store = forecast.needs.size(4 * 3600 * needs.BYTES_A_SECOND["flac"])
    assert project.of("02_prep") == f"4 h of sound, {store}: 0.9 min, by 3 core(s)"
    assert measured == [((project.corpora, "flac"), {"ask": False})]
    (tmp_path / "06_train_aam").mkdir()
    log = "phase,seconds\n0,\n1,90\n1,20\n1,\n2,90\n2,2\n"
    (tmp_path / "06_train_aam" / "log.csv").write_text(log)
    # 20 s for two steps of 4: of 8 they take 20 s each, 85 // 8 of them thrice; 2 s a step of 8, 10 steps of 16
    assert project.of("06_train_aam") == "up to 10.7 min (30 steps of 20 s, then 10 steps of 4 s), by this CPU"
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: ["H100"])
    monkeypatch.setattr(forecast.rehearsal, "has_few_crops", lambda own: own is asked.parameters["06_train_aam"])
    asked.parameters["02_prep"]["train_corpora"] = []  # of which nothing states the utterances
    said = project.of("06_train_aam")
    assert said.startswith("at least 1.7 min (3 steps of 20 s, then") and said.endswith(
        f"by the GPU, from batches of {rehearsal.CROPS} crops"
    )
    (tmp_path / "08_evaluate@aam").mkdir()
    rows = [{"seconds": 2.0, "encoder": {"speech_seconds": 352.0}}, {}]
    (tmp_path / "08_evaluate@aam" / "metrics.json").write_text(json.dumps(rows))
    assert project.of("08_evaluate@aam") == "1.8 h of listed speech at 176 s a second: 0.6 min to embed it once"
    monkeypatch.setattr(forecast.miniature, "IN_BOTH_HALVES", ("L",))
    assert project.of("08_evaluate@aam").startswith("6.8 h of listed speech at 176 s a second: 2.3 min")
    assert project.of("09_report") == ""


def test_what_is_missing_for_the_real_run_is_named(projected, monkeypatch, tmp_path):
    project, asked, seen = projected
    disk = SimpleNamespace(free=1e9)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder: disk)
    lacking = forecast.needs.size(2e9 + 4 * 3600 * needs.BYTES_A_SECOND["flac"])
    key = "a key (SV_VOXCELEB_KEY) for a, or their archives in SV_MIRROR"
    file = "the file of an_encoder (sv download --pretrained an_encoder)"
    assert project.missing() == f"missing for the real run: {key}; c: ask for it; {file}; {lacking} of disk."
    assert seen[-1] == "there"
    monkeypatch.setenv("SV_VOXCELEB_KEY", "k")
    monkeypatch.setattr(forecast.needs, "own_folder", lambda corpus, source: tmp_path)
    disk.free, project.lacking = 1e12, []
    assert project.missing() == "missing for the real run: nothing that could be seen."
    disk.free, fetch = 0, project.fetch
    project.fetch = 0  # all of it is here: how much the outputs may take is told by the forecast
    assert project.missing() == "missing for the real run: nothing that could be seen."
    disk.free, project.fetch = 1e12, fetch
    monkeypatch.delenv("SV_VOXCELEB_KEY")
    monkeypatch.setattr(project.corpora[0], "routes", ("x",))
    assert project.missing() == "missing for the real run: nothing that could be seen."
    engine = asked.parameters["06_train_aam"]["engine"]
    for wish in ({"jit_compile": True}, {"precision": "mixed_bfloat16"}):
        asked.parameters["06_train_aam"]["engine"] = engine | wish
        assert project.missing() == "missing for the real run: a GPU."
    monkeypatch.setattr(forecast.rehearsal, "gpus", lambda: ["H100"])
    assert project.missing() == "missing for the real run: nothing that could be seen."


def test_miniatures_are_made_of_what_has_to_be_fetched_with_the_texts_that_are_here(monkeypatch, tmp_path, capsys):
    made, corpus_of = [], {}
    for name, data, bundled in (("a", None, None), ("b", tmp_path / "data", None), ("c", None, "here")):
        corpus_of[name] = SimpleNamespace(name=name, data=data, bundled=bundled)
    (tmp_path / "data").mkdir()
    texts = paths.corpus_dir("a") / "texts"
    texts.mkdir(parents=True)
    asked = SimpleNamespace(parameters={"02_prep": {"train_corpora": ["b"]}, "01_download": {"corpora": list("abc")}})
    monkeypatch.setattr(forecast.corpora, "get", corpus_of.get)
    monkeypatch.setattr(forecast.needs, "own_folder", lambda corpus, source: None)
    monkeypatch.setattr(forecast.needs, "tree_size", lambda folder: 1e6 * (folder == tmp_path / "made"))
    monkeypatch.setattr(
        forecast.miniature, "make", lambda corpus, *given, **named: made.append((corpus.name, *given, named))
    )
    forecast._make_miniatures(asked, tmp_path / "made", 30, 3)
    folder, tested = tmp_path / "made", forecast.miniature.TESTED
    assert made[0] == ("a", folder, tested, {"workers": 3, "texts": texts})
    assert made[1:] == [("b", folder, 30, {"workers": 3, "texts": tmp_path / "data"})]
    assert capsys.readouterr().out == "miniatures of the corpora made, 1.0 MB, 0 s\n"


def test_encoders_are_lent_once_and_drawn_where_a_stage_begins_with_them(monkeypatch, tmp_path):
    asked = SimpleNamespace(parameters={"06_train_aam": {"initial_model": ""}, "09_report": {}}, encoders={})
    assert forecast._lend_encoders(asked, tmp_path / "one") == {}, "none is named"
    asked.parameters["06_train_aam"]["initial_model"] = "begun"
    asked.encoders = {"08_evaluate@x": "judged"}
    ran, seen = SimpleNamespace(returncode=0, stdout='{"begun": "gone"}', stderr=""), []
    monkeypatch.setattr(forecast.subprocess, "run", lambda line, **named: seen.append((line[1:], named)) or ran)
    assert forecast._lend_encoders(asked, tmp_path / "two") == {"begun": "gone"}
    line = ["-m", "sv_utils.models.pretrained.drawn", str(tmp_path / "two" / "pretrained"), "begun", "judged"]
    assert seen == [(line, {"capture_output": True, "text": True})]
    ran.returncode, ran.stderr = 1, "a\nno room\n"
    with pytest.raises(WorkError, match="no weights can be drawn for begun and judged: no room"):
        forecast._lend_encoders(asked, tmp_path / "three")


def test_a_rehearsal_passes_where_every_stage_does_and_leaves_its_notebooks_alone(
    offline, tmp_path, monkeypatch, capsys
):
    name, went = "voxceleb_original_resnet18", [True, True]
    home = tmp_path / "outputs/.rehearsal" / name

    def run(profile, folder, environment, cores):
        assert not (home / "left").exists()
        for rest in ("corpora", "outputs/corpora", f"outputs/{name}/01_download"):
            (home / rest).mkdir(parents=True)
        for stage, passed in zip(("01_download", "09_report"), went):
            yield rehearsal.Rehearsed(stage, passed, 1.5, 2_000_000_000, 3_000_000, "")

    monkeypatch.setattr(forecast.miniature, "make", lambda *_, **__: None)
    monkeypatch.setattr(forecast.rehearsal, "run", run)
    for last, code, word in ((True, 0, "yes"), (None, 1, "not run"), (False, 1, "NO")):
        went[1] = last
        home.mkdir(parents=True, exist_ok=True)
        (home / "left").touch()
        assert forecast.main([name, "--rehearse", "--speakers", "all"]) == code
        told = capsys.readouterr().out.splitlines()
        (line,) = (line for line in told if line.startswith("09_report"))
        assert re.split(" {2,}", line.strip()) == ["09_report", word, "1.5", "2.0 GB", "3.0 MB"]
        assert any(line.endswith("111.6 GB to fetch, as fast as the network") for line in told)
        assert f"the notebooks of the rehearsal lie in {home / 'outputs' / name}" in told
        assert [path.name for path in home.iterdir()] == ["outputs"] and not (home / "outputs/corpora").exists()
        assert (home / "outputs" / name / "01_download").exists()
        assert any(line.startswith("hours of training hold the validation") for line in told)


def test_embeddings_have_the_width_of_their_own_model_and_are_counted_as_the_corpora_state(monkeypatch):
    """Of 8 and of 16 numbers, and of 256 where nothing states it; whole, by the untrained, cut, twice by telephone."""
    half = {"dev": (5, 90), "test": (2, 40)}
    remotes = [SimpleNamespace(subset=subset, speakers=who, utterances=many) for subset, (who, many) in half.items()]
    one, other = (SimpleNamespace(name=name, lists={f"{name}-O": 1}, remotes=remotes) for name in "ab")
    asked = {"cuts": [2.0], "telephone": True, "part_utterances": 30, "cohort_utterances": 4}
    resolved = {"02_prep": {"train_corpora": ["a"], "lists": ["b-O"]}}
    resolved |= {f"07_train_{name}": {"architecture": {"embedding_dim": of}} for name, of in (("x", 8), ("y@2", 16))}
    resolved |= {f"08_evaluate@{name}": asked for name in ("x", "y@2", "campplus")}
    assert forecast._stated(resolved, [one, other]) == (5, 40)
    vectors = 40 + (1 + 1 + 2) * 30 + 5 * 4
    bytes_each = sum(4 * width + forecast.NAME for width in (8, 16, 256))
    assert forecast.embeddings(resolved, [one, other]) == vectors * bytes_each
    monkeypatch.setattr(forecast.miniature, "IN_BOTH_HALVES", ("b-O",))
    assert forecast._stated(resolved, [one, other]) == (5, 130)
    monkeypatch.setattr(remotes[0], "speakers", None)
    monkeypatch.setattr(remotes[0], "utterances", None)
    assert forecast._stated(resolved, [one, other]) == (0, 40)
