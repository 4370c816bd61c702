"""What a command hands on: each option reaches what does the work, seen by what that is given."""

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sv_utils import (
    calibrate,
    card,
    corpora,
    demo,
    download,
    embed,
    enrol,
    export,
    identify,
    report,
    run,
    score,
    selection,
    verify,
)
from sv_utils.base.errors import WorkError
from sv_utils.evaluation import calibration, judging, trials
from sv_utils.models import exports, pretrained
from sv_utils.speech import acquisition
from sv_utils.voices import activity, asked, compare, development, encoder, fitting
from sv_utils.voices import identify as among_voices
from sv_utils.voices.enrolment import Voices


class Enough(Exception):
    """What was to be seen has been seen."""


def recorder(seen, result=None):
    """A stand-in that keeps what it is given."""

    def called(*arguments, **options):
        seen.append((*arguments, options) if options else arguments)
        return result

    return called


def test_verify_hands_on_all_that_it_is_asked(monkeypatch, capsys):
    seen, prepared = [], []
    monkeypatch.setattr(compare, "compare", recorder(seen, {"decision": "different speakers"}))
    monkeypatch.setattr(encoder, "prepare", prepared.append)
    line = ["a.wav", "b.wav", "--model", "own.keras", "--prior", "0.1", "--segment", "2=1-2", "--json"]
    assert verify.main([*line, "--false-accept", "0.01"]) == verify.main([*line, "--threshold", "0.3"]) == 1
    assert capsys.readouterr().out == '{\n "decision": "different speakers"\n}\n' * 2
    segments = [None, (1.0, 2.0)]
    assert seen == [
        ("a.wav", "b.wav", "own.keras", 0.1, 0.01, segments, None),
        ("a.wav", "b.wav", "own.keras", 0.1, None, segments, 0.3),
    ]
    assert prepared == ["own.keras"] * 2


def test_identify_hands_on_all_that_it_is_asked(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(among_voices, "identify", recorder(seen, {"decision": "unknown"}))
    store = str(tmp_path / "v.npz")
    line = ["a.wav", "--closed", "--false-accept", "0.05", "--segment", "1-2", "--store", store, "--json"]
    assert identify.main(line) == 1
    assert seen == [("a.wav", True, 0.05, Path(store), (1.0, 2.0))]


@pytest.mark.parametrize(
    ("command", "answering", "line"),
    [(verify, (compare, "compare"), ["a.wav", "b.wav"]), (identify, (among_voices, "identify"), ["a.wav"])],
)
def test_decoding_begins_before_what_answers_is_asked_and_only_where_a_file_is(monkeypatch, command, answering, line):
    seen = []
    monkeypatch.setattr(asked, "begin", lambda: seen.append("begun"))
    monkeypatch.setattr(*answering, lambda *_: seen.append("asked") or pytest.fail("seen enough"))
    for wrong in (["--help"], [*line, "--no-such-option"], []):
        with pytest.raises(SystemExit):
            command.main(wrong)
    assert command.main([*line, "--segment", "from here on"]) == 2 and not seen
    with pytest.raises(pytest.fail.Exception):
        command.main(line)
    assert seen == ["begun", "asked"]


def test_to_begin_changes_nothing_of_a_program_that_has_numpy(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    asked.begin()
    assert "OPENBLAS_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("name", "line"), [("verify", ["a.wav", "b.wav"]), ("identify", ["a.wav"])])
def test_what_goes_wrong_is_never_an_answer(monkeypatch, capsys, name, line):
    """1 says "different speakers": work that failed, or that nobody foresaw, exits with 2."""
    command, *answering = {"verify": (verify, compare), "identify": (identify, among_voices)}[name]
    answering += [answering[0].__name__.rpartition(".")[2]]
    monkeypatch.setattr(encoder, "prepare", lambda model: None)
    for error in (WorkError("the disk gave up"), OSError("gone"), ValueError("unforeseen")):
        monkeypatch.setattr(*answering, _raiser(error))
        assert command.main(line) == 2, error
    assert "the disk gave up" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "mend"), [("campplus", "--model "), ("own.keras", "")])
def test_who_has_no_weights_is_told_of_a_model_of_his_own(monkeypatch, capsys, model, mend):
    monkeypatch.setattr(compare, "compare", _raiser(OSError("no room")))
    assert verify.main(["a.wav", "b.wav", "--model", model]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sv_utils.verify: no room") and ("06_train_adacos/model.keras" in said) == bool(mend)


def _raiser(error):
    def called(*_, **__):
        raise error

    return called


def test_a_personal_key_is_taken_from_the_environment_unless_one_is_given(monkeypatch):
    seen = []

    def place(corpus, source, key):
        seen.append(key)
        raise Enough

    monkeypatch.setattr(acquisition, "_Place", place)
    monkeypatch.setenv("SV_VOXCELEB_KEY", "of the environment")
    for key in (None, "given"):
        with pytest.raises(Enough):
            acquisition.fetch(corpora.get("voxceleb1"), key=key)
    assert seen == ["of the environment", "given"]


def test_enrol_hands_on_all_that_it_is_asked(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(enrol, "enrol", recorder(seen, (2, [])))
    line = ["ada", "a.wav", "b.wav", "--model", "ge2e", "--store", str(tmp_path / "v"), "--segment", "2=1-2"]
    assert enrol.main(line) == enrol.main([*line, "--anyway"]) == 0
    given = ["ada", ["a.wav", "b.wav"], "ge2e", tmp_path / "v"]
    assert seen == [(*given, False, [None, (1.0, 2.0)]), (*given, True, [None, (1.0, 2.0)])]


def test_export_hands_on_its_options_and_the_list_that_int8_is_judged_on(monkeypatch, tmp_path):
    seen, judged = [], []
    found = {"int8": False, "megabytes": 1.0, "cosine": 1.0}
    monkeypatch.setattr(exports, "export", recorder(seen, ("out", found)))
    monkeypatch.setattr(export, "compared", recorder(judged))
    options = ["--to", "onnx", "--out", "o.onnx", "--int8", "--list", "t.txt", "--root", "r"]
    assert export.main(["own.keras", *options]) == 0
    ((*given, judge),) = seen
    judge("written", "model")
    assert given == ["own.keras", "onnx", "o.onnx", True]
    assert judged == [("written", "model", {"trial_list": "t.txt", "root": "r"})]


@pytest.mark.parametrize("int8", [True, False])
def test_an_export_is_judged_with_what_was_written_first_and_the_model_second(monkeypatch, tmp_path, int8):
    """Swapped, the change of the error rate would have the other sign."""
    (tmp_path / "m.keras").write_bytes(b"weights")
    seen, judged, compared = [], [], []
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(pretrained, "load", lambda file: "model" if file == tmp_path / "m.keras" else "written")
    monkeypatch.setattr(
        exports, "write", lambda model, to, out, asked: seen.append((model, to, asked)) or out.write_bytes(b"1")
    )
    monkeypatch.setattr(exports, "_least_cosine", lambda *pair: compared.append(pair) or 1.0)
    judge = recorder(judged, {"eer_change": [0.0, 0, 0]})
    exports.export(tmp_path / "m.keras", "litert", None, int8, judge)
    assert seen == [("model", "litert", int8)] and compared == [("model", "written")]
    assert judged == ([("written", "model")] if int8 else [])


DEV, TEST = ["a/1/x", "a/2/x", "b/1/x", "b/2/x"], ["c/1/x", "c/2/x", "d/1/x", "d/2/x"]
ANGLES = dict(zip([*DEV, *TEST], np.radians([0, 20, 90, 130, 0, 30, 45, 100])))


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What `card.measure` says of an encoder whose embeddings are angles, and what it was asked."""
    lines = ["1 c/1/x c/2/x", "1 d/1/x d/2/x", "0 c/1/x d/1/x", "0 c/2/x d/2/x"]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    rows = [(name, "dev", "") for name in DEV] + [(name, "test", "") for name in TEST]
    table = pd.DataFrame([*rows, ("a/3/x", "dev", "too short"), ("c/3/x", "test", "clipped")])
    table.columns = ["id", "subset", "error"]
    voices = SimpleNamespace(list_path=lambda name: tmp_path / "list.txt", session_note="one session")
    monkeypatch.setattr(corpora, "get", lambda name: voices)
    monkeypatch.setattr(card.acquisition, "fetch", lambda corpus: ("archives", corpus))
    monkeypatch.setattr(card.preparation, "prepare", lambda corpus, found, workers: (corpus, found))
    prepared = (voices, ("archives", voices))
    monkeypatch.setattr(
        card.limits, "view", lambda corpus, store: table if (corpus, store) == (voices, prepared) else 1
    )
    monkeypatch.setattr(card, "Speech", lambda rows: SimpleNamespace(samples=rows["id"].tolist(), waveform="waveform"))

    def embed(model, ids, waveform):
        assert (model, waveform) == ("model", "waveform")
        return np.array([[np.cos(ANGLES[name]), np.sin(ANGLES[name])] for name in ids])

    monkeypatch.setattr(card, "embed", embed)
    monkeypatch.setattr(card, "DEV_TRIALS", (2, 3))
    evaluated, decided = [], []
    monkeypatch.setattr(judging, "evaluate", recorder(evaluated, {"eer": 0.5}))
    monkeypatch.setattr(judging, "decision_points", recorder(decided, ["a point"]))
    return card.measure("model"), evaluated, decided


def test_a_published_encoder_is_calibrated_on_dev_voices_and_measured_on_the_list(measured):
    found, ((scores, labels, *speakers, options),), ((dev, *given),) = measured
    cosines = np.cos(np.radians([30, 55, 45, 70]))
    np.testing.assert_allclose(scores, cosines)
    assert labels.tolist() == [1, 1, 0, 0] and [side.tolist() for side in speakers] == [list("cdcc"), list("cddd")]
    pairs = trials.make(DEV, 2, 3, card.SEED)
    dev_cosines = [np.cos(ANGLES[one] - ANGLES[other]) for one, other in zip(pairs.enrol, pairs.test)]
    np.testing.assert_allclose(dev[0], dev_cosines)
    assert dev[1].tolist() == pairs.labels.tolist() == [1, 1, 0, 0, 0]
    fitted = calibration.fit_calibration(np.array(dev_cosines), pairs.labels)
    told = dataclasses.asdict(fitted) | {"weights": pytest.approx(fitted.weights), "features": ["cosine"]}
    assert found["calibration"] == told | {"offset": pytest.approx(fitted.offset)}
    assert found["operating_points"] == ["a point"]
    assert options.keys() == {"log_likelihood_ratios", "seed"} and options["seed"] == card.SEED
    np.testing.assert_allclose(options["log_likelihood_ratios"], fitted(cosines))
    np.testing.assert_allclose(given[0], cosines)
    assert given[1].tolist() == labels.tolist() and given[2] == tuple(speakers)
    assert given[3:] == [{"threshold_from": "dev voices of mini", "list": "mini"}, card.SEED, card.REPLICATES]
    np.testing.assert_allclose(found["scores"]["target"], np.sort(cosines[:2]))
    np.testing.assert_allclose(found["scores"]["nontarget"], np.sort(cosines[2:]))
    assert found["measured"] == {"list": "mini", "eer": 0.5, "note": "one session"}


def test_what_was_measured_of_a_published_encoder_is_written_beside_its_card(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(card, "of_published", lambda name: "")
    monkeypatch.setattr(pretrained, "card", lambda name: {"title": f"card of {name}", "measured": "before"})
    monkeypatch.setattr(pretrained, "load", lambda name: f"model {name}")
    scores = {"target": np.array([0.12345, 0.9]), "nontarget": np.array([-0.5])}
    monkeypatch.setattr(card, "measure", lambda model: {"measured": {"of": model}, "scores": scores})
    assert card.main(["ge2e"]) == 0
    measured = {"of": "model ge2e"}
    assert json.loads((tmp_path / "ge2e.json").read_text()) == {"title": "card of ge2e", "measured": measured}
    assert json.loads((tmp_path / "ge2e_scores.json").read_text()) == {"target": [0.123, 0.9], "nontarget": [-0.5]}
    assert json.loads(capsys.readouterr().out) == measured and len(list(tmp_path.iterdir())) == 2


def test_a_corpus_whose_lists_tell_no_speakers_or_labels_is_refused(tmp_path):
    (tmp_path / "pairs.txt").write_text("a b\n")
    (tmp_path / "flat.txt").write_text("1 a b\n0 c d\n")
    for name in ("pairs", "flat"):
        with pytest.raises(WorkError, match="the trials of the corpus tell no speakers; restore its lists"):
            card._known(trials.read(tmp_path / f"{name}.txt"))


def test_calibration_embeds_with_the_encoder_that_is_named_and_keeps_each_encoders_embeddings_apart(
    monkeypatch, tmp_path, capsys
):
    seen, used, joined = [], [], []
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(pretrained, "fingerprint", lambda model: f"{model}-0123456789")
    monkeypatch.setattr(development, "at_hand", lambda: ["mini", "phone"])
    monkeypatch.setattr(development, "waveforms", lambda corpus: {"of": corpus})
    monkeypatch.setattr(encoder, "embeddings", recorder(used))
    monkeypatch.setattr(development, "through", recorder(seen, "heard"))
    monkeypatch.setattr(development, "joined", recorder(joined, "joined"))
    told = {"chosen": "c"}
    monkeypatch.setattr(fitting, "content", lambda model, *given: {"model": model, "heard": given[0]} | told)
    for name in ("of_conditions", "in_short"):
        monkeypatch.setattr(calibrate, name, lambda content: f"card of {content['model']}\n")
    assert calibrate.main(["ge2e", "--out", str(tmp_path / "own.json")]) == 0
    written = json.loads((tmp_path / "own.json").read_text())
    assert written["model"] == "ge2e" and (tmp_path / "own.md").read_text() == "card of ge2e\n"
    assert {name: list(heard) for name, heard in written["heard"].items()} == {
        "mini": list(development.ALL),
        "phone": ["clean", "noise_10"],
    }
    folder = tmp_path / "calibration" / f"ge2e-ge2e-012-speech{activity.REVISION}"
    assert {(corpus, sounds["of"], place) for corpus, _, sounds, _, place in seen} == {
        ("mini", "mini", folder),
        ("phone", "phone", folder),
    }
    assert [given[:2] for given in joined] == [("mini", "clean"), ("mini", "telephone"), ("phone", "clean")]
    assert {(sounds["of"], place) for _, _, sounds, _, place in joined} == {("mini", folder), ("phone", folder)}
    for with_the_model in (seen[0][3], joined[0][3]):
        with_the_model(["waves"])
    assert used == [("ge2e", ["waves"])] * 2
    assert [channel for corpus, channel, *_ in seen if corpus == "phone"] == ["clean", "noise_10"]
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "package" / "__init__.py"))
    capsys.readouterr()
    assert calibrate.main(["campplus"]) == 0
    home = tmp_path / "package" / "campplus_conditions.json"
    assert json.loads(home.read_text())["model"] == "campplus" and home.with_suffix(".md").exists()
    assert capsys.readouterr().out.endswith(
        f"{home} and its card campplus_conditions.md: c\nThe README of voices shows of it:\ncard of campplus\n"
    )


def test_score_resamples_as_it_is_asked(monkeypatch, tmp_path):
    lines = [f"1 {s}/1 {s}/2 0.{k}" for k, s in enumerate("abc", 5)] + ["0 a/1 b/1 0.1", "0 b/1 c/1 0.2"]
    (tmp_path / "s.txt").write_text("\n".join(lines))
    seen = []

    def evaluate(*_, **options):
        seen.append(options)
        raise Enough

    monkeypatch.setattr(judging, "evaluate", evaluate)
    with pytest.raises(Enough):
        score.judge(score._parser().parse_args([str(tmp_path / "s.txt"), "--seed", "3", "--replicates", "20"]))
    assert seen == [{"log_likelihood_ratios": None, "seed": 3, "replicates": 20}]


def test_report_hands_on_all_that_it_is_asked(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(report.site, "build", recorder(seen, "index"))
    monkeypatch.setattr(report, "write_readme", recorder(seen))
    monkeypatch.setattr(report, "show", recorder(seen))
    assert report.main(["one", "two", "--site", "pages"]) == report.main(["one", "two", "--readme"]) == 0
    assert report.main(["one", "--strict"]) == report.main(["two"]) == 0
    assert seen == [(Path("pages"), ["one", "two"]), ("one",), ("two",), ("one", True), ("two", False)]
    assert capsys.readouterr().out == "index\n"


def test_the_runs_that_are_named_are_those_that_are_stored(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(report.expected, "store", recorder(seen, "stored"))
    monkeypatch.setattr(report.reproduction, "judged_by_others", lambda profile: "")
    assert report.main(["mini", "--expected", "runs/one", "runs/two"]) == 0
    assert seen == [("mini", [Path("runs/one"), Path("runs/two")])]
    monkeypatch.setattr(report.reproduction, "judged_by_others", lambda profile: f"others of {profile}")
    assert report.main(["mini", "--expected"]) == 0 and seen[1] == ("mini", [])
    said = "stored\ntoo few runs to judge each by the others\nstored\nothers of mini\n"
    assert capsys.readouterr().out == said


def test_each_recipe_and_fold_is_trained_by_a_process_of_its_own(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    monkeypatch.setattr(selection, "_waiting", lambda name: [("base", 1), ("wider", 2)])
    monkeypatch.setattr(selection.os, "cpu_count", lambda: 12)
    monkeypatch.setattr(selection, "_run_one", recorder(seen))
    monkeypatch.setattr(selection, "table", lambda name: pd.DataFrame({"of": [name]}))
    assert selection.main(["tried", "--workers", "3"]) == 0
    assert (tmp_path / "selection/tried.csv").read_text() == "of\ntried\n"
    assert sorted(seen) == [("tried", "base", 1, 4), ("tried", "wider", 2, 4)]
    trained = []
    monkeypatch.setattr(selection, "train", recorder(trained))
    assert selection.main(["tried", "--one", "wider", "2"]) == 0 and trained == [("tried", "wider", 2)]


def test_a_training_of_a_recipe_has_its_share_of_the_cores_and_leaves_what_it_said(monkeypatch, tmp_path, capsys):
    seen, code = [], [0, 1]

    def run(words, env, stdout, stderr):
        seen.append((words[1:], env["TF_NUM_INTRAOP_THREADS"], env["TF_CPP_MIN_LOG_LEVEL"], env["PATH"], stderr))
        stdout.write("said\n")
        return SimpleNamespace(returncode=code.pop(0))

    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(selection.subprocess, "run", run)
    log = tmp_path / "selection" / "tried" / "wider.2" / "train.log"
    log.parent.mkdir(parents=True)
    selection._run_one("tried", "wider", 2, 4)
    assert re.fullmatch(r"wider, fold 2: \d s\n", capsys.readouterr().out)
    with pytest.raises(WorkError, match=f"recipe wider, fold 2 failed; see {log}"):
        selection._run_one("tried", "wider", 2, 4)
    words = ["-m", "sv_utils.selection", "tried", "--one", "wider", "2"]
    assert seen == [(words, "4", "2", os.environ["PATH"], selection.subprocess.STDOUT)] * 2
    assert log.read_text() == "said\nsaid\n"


def test_embed_hands_on_all_that_it_is_asked_and_what_it_writes_is_for_its_owner_alone(monkeypatch, tmp_path, capsys):
    seen, vectors = [], np.eye(2, 3, dtype=np.float32)
    (tmp_path / "files.txt").write_text("a.wav\nb.wav\nc.wav\n")
    monkeypatch.setattr(embed.embedding, "refuse_missing", recorder(seen))
    monkeypatch.setattr(pretrained, "load", lambda name: f"model {name}")
    monkeypatch.setattr(embed.embedding, "embed_files", recorder(seen, (vectors, {"b.wav": "no audio"})))
    line = ["--model", "ge2e", "--root", "r", "--list", str(tmp_path / "files.txt"), "--out", str(tmp_path / "e")]
    assert embed.main([*line, "--skip-bad"]) == embed.main([*line, "--speech"]) == 0
    names = ["a.wav", "b.wav", "c.wav"]
    assert seen == [
        *(("r", names, True), ("model ge2e", "r", names, True, None)),
        *(("r", names, False), ("model ge2e", "r", names, False, activity.speech)),
    ]
    assert (tmp_path / "e_skipped.csv").read_text() == "path,reason\nb.wav,no audio\n"
    with np.load(tmp_path / "e.npz") as written:
        assert written["paths"].tolist() == ["a.wav", "c.wav"] and written["embeddings"].tolist() == vectors.tolist()
    assert (tmp_path / "e.npz").stat().st_mode & 0o777 == 0o600
    first = f"{tmp_path / 'e.npz'}: 2 embeddings of 3 dimensions\n"
    skipped = f"{tmp_path / 'e_skipped.csv'}: 1 of 3 files skipped, with the reasons\n"
    assert capsys.readouterr().out == first + skipped + first
    for folder in (str(tmp_path), "away/"):
        assert embed.main([*line[:-1], folder]) == 2
        assert f"--out {folder} is a folder; name a file in it" in capsys.readouterr().err


def test_a_visitors_recordings_are_compared_by_the_model_of_the_page(monkeypatch):
    seen = []
    answer = {"warnings": [], "recordings": [{"chips": []}, {"chips": []}], "decision": "same speaker"}
    monkeypatch.setattr(demo, "listen", lambda file, name: np.zeros(9))
    monkeypatch.setattr(demo.comparison, "compare", recorder(seen, answer))
    monkeypatch.setattr(demo.comparison, "text", lambda answer: "")
    monkeypatch.setattr(demo, "sentences", lambda answer: [])
    monkeypatch.setattr(demo, "drawn_voices", lambda *_: ["", ""])
    monkeypatch.setattr(demo, "drawn_scores", lambda answer, model: seen.append(model) or "")
    assert "Same voice" in demo.compare("a.wav", "b.wav", "own.keras")
    assert seen == [("a.wav", "b.wav", "own.keras"), "own.keras"]


def test_a_visitors_voice_is_compared_with_what_was_enrolled_of_it(monkeypatch):
    seen, voices = [], Voices(sums={"ada": np.array([1.0, 0.0])}, conditions={"ada": "quiet"}, counts={"ada": 1})
    monkeypatch.setattr(demo, "listen", lambda file, name: np.zeros(9))
    monkeypatch.setattr(demo.enrolment, "heard", lambda files, model: ({"f": (files, model)}, []))
    monkeypatch.setattr(demo.enrolment, "refuse_others", recorder(seen))
    monkeypatch.setattr(pretrained, "fingerprint", lambda model: f"print of {model}")
    monkeypatch.setattr(Voices, "add", lambda voices, *given: seen.append(given))
    assert demo.remember(voices, " ada ", "f.wav", "own.keras") == ""
    assert demo.remember(voices, "bob", "f.wav", "own.keras") == ""
    side = (["f.wav"], "own.keras")
    (name, sides, model, known, mend), added, other, _ = seen
    assert (name, sides, model, mend) == ("ada", {"f": side}, "own.keras", "record it anew")
    assert known.embedding.tolist() == [1.0, 0.0] and other[3] is None
    assert added == ("own.keras", "print of own.keras", "ada", [side])


def test_download_hands_on_all_that_it_is_asked(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(download, "fetch", lambda corpus, *given: seen.append((corpus.name, *given)))
    monkeypatch.setattr(download.needs, "routes_of", lambda corpus, key: seen.append((corpus.name, key)) or [])
    monkeypatch.setattr(download.catalogue, "get", lambda name: SimpleNamespace(package=None))
    monkeypatch.setattr(download.catalogue, "told", lambda found: "")
    monkeypatch.setattr(download.releases, "provide", recorder(seen))
    assert download.main(["mini", "--source", "here", "--key", "k", "--connections", "9"]) == 0
    assert download.main(["mini", "--check", "--key", "k"]) == 0
    named = ["--pretrained", "a", "--from", "f", "--sha256", "ab", "--trust-first-use"]
    assert download.main(named) == download.main(["--pretrained", "a"]) == 0
    assert seen == [("mini", "here", "k", 9), ("mini", "k"), ("a", "f", "ab", True), ("a", None, None, False)]
    capsys.readouterr()
    monkeypatch.setattr(download.catalogue, "get", lambda name: SimpleNamespace(package=name == "p"))
    monkeypatch.setattr(download.catalogue, "told", lambda found: f"told of {found.package}")
    monkeypatch.setattr(pretrained, "published", lambda name: f"file of {name}")
    assert download.main(["--pretrained", "p"]) == 0
    assert capsys.readouterr().out == "told of True\n  converted: file of p\n"
    monkeypatch.setattr(download.catalogue, "listed", lambda here: f"listed: {here}")
    monkeypatch.setattr(download.releases, "here", lambda: "these are here")
    assert download.main(["--pretrained"]) == 0 and capsys.readouterr().out == "listed: these are here\n"
    for line in ([], ["mini", "--pretrained", "p"]):
        with pytest.raises(SystemExit, match="2"):
            download.main(line)


def test_a_stage_is_on_record_before_later_keys_and_the_index_which_is_not_there_meanwhile(
    monkeypatch, tmp_path, capsys
):
    """Killed in between, it leaves no index that lacks it: `make reproduce` makes the last stage again without one."""
    seen, asked = [], SimpleNamespace(of=lambda stage: {"seed": 7})
    index, folder = tmp_path / "mini/index.html", tmp_path / "mini/09_report"
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    index.parent.mkdir()
    index.write_text("of the stages before")
    monkeypatch.setattr(run.Profile, "read", lambda name: asked)
    monkeypatch.setattr(run, "_is_up_to_date", lambda *_: False)
    monkeypatch.setattr(run, "_sources", lambda profile: {})
    monkeypatch.setattr(run.keys, "stage_keys", lambda *_: {"09_report": "k"})
    monkeypatch.setattr(run, "_make_room", lambda *given: seen.append(("room", *given)))
    monkeypatch.setattr(run, "_execute", lambda given: seen.append(("execute", given)))
    monkeypatch.setattr(run, "_render", lambda notebook: seen.append(("page", notebook)))
    monkeypatch.setattr(run.records, "facts", lambda: "facts")
    noted = lambda key, given, start, facts: seen.append(("record", key, given, facts, index.exists()))  # noqa: E731
    monkeypatch.setattr(run.records, "write_run", noted)
    monkeypatch.setattr(run, "write_keys", lambda profile: seen.append(("keys", profile)))
    monkeypatch.setattr(run.pages, "write_index", lambda *given: seen.append(("index", *given)))
    assert run.run_stage("09_report", "mini")
    assert re.fullmatch(r"09_report: starts \(mini\)\n09_report: done in \d s\n", capsys.readouterr().out)
    assert index.parent.stat().st_mode & 0o777 != 0o700, "no speech of the user's own"
    room, execute, page = ("room", folder, "k"), ("execute", {"seed": 7}), ("page", folder / "09_report.ipynb")
    record = ("record", "k", {"seed": 7}, "facts", False)
    assert seen == [room, execute, page, record, ("keys", asked), ("index", asked, {})]


def test_a_stage_counts_the_recordings_of_the_source_that_the_params_file_names(monkeypatch):
    seen = []
    digest = lambda corpus, source: seen.append((corpus.name, source)) or "ab" * (corpus.name == "folder")  # noqa: E731
    monkeypatch.setattr(run.acquisition, "sources_digest", digest)
    for source in ("here", ""):
        asked = SimpleNamespace(of=lambda stage, source=source: {"corpora": ["mini", "folder"], "source": source})
        assert run._sources(asked) == {"folder": "ab"}
    assert seen == [("mini", "here"), ("folder", "here"), ("mini", None), ("folder", None)]
