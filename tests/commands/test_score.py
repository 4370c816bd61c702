"""The command line that judges anyone's scores: figures, forms of input, and a sentence for each bad one."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from sv_utils import score
from sv_utils.evaluation import calibration, intervals, metrics, score_files, scoring, trials
from sv_utils.reports import figures

IDS = [f"{speaker}/{session}/{file}.wav" for speaker in "abcdefgh" for session in "12" for file in "xyz"]


@pytest.fixture
def folder(tmp_path):
    """Embeddings of eight speakers, a list over them, and the scores that belong to it."""
    rng = np.random.default_rng(0)
    voices = np.repeat(rng.normal(size=(8, 16)), 6, axis=0) + 0.9 * rng.normal(size=(48, 16))
    np.savez(tmp_path / "E.npz", paths=np.array(IDS), embeddings=voices.astype(np.float32))
    made = trials.make(IDS, 60, 120, seed=1)
    trials.write(tmp_path / "trials.txt", made)
    return tmp_path


def run(capsys, *arguments):
    code = score.main(list(map(str, arguments)))
    output = capsys.readouterr()
    return code, output.out, output.err


def scored(folder):
    """Lines `label enrol test score` of the list."""
    listed = trials.read(folder / "trials.txt")
    paths, embeddings = score_files.read_embeddings(str(folder / "E.npz"))
    scores = scoring.cosine(embeddings, *trials.rows(listed, paths)).tolist()
    return list(zip(listed.labels.tolist(), listed.enrol.tolist(), listed.test.tolist(), scores))


def put(folder, name, lines):
    (folder / name).write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    return folder / name


def test_embeddings_and_list(folder, capsys):
    code, output, _ = run(capsys, folder / "E.npz", folder / "trials.txt", "--json")
    report = json.loads(output)
    target = [line[3] for line in scored(folder) if line[0] == 1]
    nontarget = [line[3] for line in scored(folder) if line[0] == 0]
    assert code == 0
    assert (report["eer"], report["threshold"]) == metrics.eer(target, nontarget)
    assert report["eer_low"] < report["eer"] < report["eer_high"]
    assert report["min_dcf_001"] == metrics.min_dcf(target, nontarget, 0.01)[0]
    assert report["min_dcf_005"] == metrics.min_dcf(target, nontarget, 0.05)[0]
    assert (report["n_target"], report["n_nontarget"], report["n_speakers"]) == (60, 120, 8)
    assert report["cllr"] is None and 0 < report["cllr_min"] < 1
    assert report["scores"] == "cosine" and report["log_likelihood_ratios"] is None
    assert any("no Cllr" in note for note in report["notes"])
    assert run(capsys, folder / "E.npz", folder / "trials.txt", "--json")[1] == output


def test_for_people(folder, capsys):
    code, output, _ = run(capsys, folder / "E.npz", folder / "trials.txt", "--definitions")
    assert code == 0
    assert "60 target and 120 non-target trials" in output
    assert "95 % interval over 8 speakers" in output
    assert "nearest_maximum" in output
    report = json.loads(run(capsys, folder / "E.npz", folder / "trials.txt", "--definitions", "--json")[1])
    sides = ([line[3] for line in scored(folder) if line[0] == label] for label in (1, 0))
    assert report["eer_definitions"] == metrics.eer_definitions(*map(np.array, sides))


FORMS = {
    "score enrol test": lambda label, enrol, test, value: (value, enrol, test),
    "enrol test score": lambda label, enrol, test, value: (enrol, test, value),
    "label enrol test score": lambda label, enrol, test, value: (label, enrol, test, value),
    "enrol test score label": lambda label, enrol, test, value: (enrol, test, value, ("nontarget", "target")[label]),
}


@pytest.mark.parametrize("form", FORMS)
def test_score_files_of_each_form_in_any_order(folder, capsys, form):
    expected = json.loads(run(capsys, folder / "E.npz", folder / "trials.txt", "--json")[1])
    lines = [FORMS[form](*line) for line in scored(folder)]
    np.random.default_rng(3).shuffle(lines)
    scores = put(folder, "scores.txt", lines)
    lists = [[folder / "trials.txt"], []] if "label" in form else [[folder / "trials.txt"]]
    for arguments in lists:
        code, output, _ = run(capsys, scores, *arguments, "--json")
        assert code == 0
        report = json.loads(output)
        assert report["scores"] == "score"
        for name in ("eer", "eer_low", "threshold", "min_dcf_001", "cllr_min", "n_speakers"):
            assert report[name] == pytest.approx(expected[name], abs=1e-12)


def test_declared_log_likelihood_ratios(folder, capsys):
    lines = [(label, enrol, test, 10 * value - 3) for label, enrol, test, value in scored(folder)]
    report = json.loads(run(capsys, put(folder, "llr.txt", lines), "--llr", "--json")[1])
    target, nontarget = ([line[3] for line in lines if line[0] == label] for label in (1, 0))
    assert report["cllr"] == pytest.approx(metrics.cllr(target, nontarget), abs=1e-12)
    assert report["log_likelihood_ratios"] == "the scores"


def test_calibrated_log_likelihood_ratios(folder, capsys):
    lines = scored(folder)
    fitted = calibration.fit_calibration(np.array([line[3] for line in lines]), np.array([line[0] for line in lines]))
    fitted.save(folder / "calibration.json")
    arguments = ("--calibration", folder / "calibration.json", "--json")
    report = json.loads(run(capsys, folder / "E.npz", folder / "trials.txt", *arguments)[1])
    assert report["cllr_min"] <= report["cllr"] < 1
    assert report["threshold"] < 1  # of the cosine, not of the ratio


def test_another_system_beside(folder, capsys):
    """By embeddings or scores, in any order, over the same resampled speakers."""
    lines, rng = scored(folder), np.random.default_rng(0)
    worse = [(value + rng.normal(0, 0.3), enrol, test) for _, enrol, test, value in lines]
    other = put(folder, "worse.txt", worse[::-1])
    code, output, _ = run(capsys, folder / "E.npz", folder / "trials.txt", "--beside", other, "--json")
    beside = json.loads(output)["beside"]
    ids = trials.speakers(trials.read(folder / "trials.txt"))
    scores = np.array([line[3] for line in lines]), np.array([line[0] for line in worse])
    labels = np.array([line[0] for line in lines])
    assert code == 0 and beside["file"] == str(other)
    assert beside == {"file": str(other), "eer": beside["eer"], **intervals.compare(*scores, labels, *ids)}
    assert beside["eer"] == metrics.eer(scores[1][labels == 1], scores[1][labels == 0])[0]
    asked = ("--beside", other, "--replicates", "20", "--seed", "3", "--json")
    beside = json.loads(run(capsys, folder / "E.npz", folder / "trials.txt", *asked)[1])["beside"]
    assert beside["low"] == intervals.compare(*scores, labels, *ids, replicates=20, seed=3)["low"]
    text = run(capsys, folder / "E.npz", folder / "trials.txt", "--beside", folder / "E.npz")[1]
    assert "E.npz: EER" in text and "difference +0.00 points (95 % interval +0.00 to +0.00, p = 1.000)" in text


def test_page_holds_the_report_and_its_figures_and_nothing_from_elsewhere(folder, capsys):
    page = folder / "out" / "page.html"
    code, _, _ = run(capsys, folder / "E.npz", folder / "trials.txt", "--page", page)
    text = page.read_text("utf-8")
    assert code == 0 and text.count("<svg") == 3 and "60 target and 120 non-target trials" in text
    assert "src=" not in text and "@import" not in text and len(text) < 1_000_000
    assert run(capsys, folder / "E.npz", folder / "missing.txt", "--page", folder / "no.html")[0] == 2
    assert not (folder / "no.html").exists()


def test_notes(folder, capsys):
    lines = scored(folder)
    swapped = (lines[0][0], lines[0][2], lines[0][1], lines[0][3])
    report = json.loads(run(capsys, put(folder, "swapped.txt", [*lines, swapped]), "--json")[1])
    assert any("1 trials repeat an earlier pair with the sides swapped" in note for note in report["notes"])
    extra = put(folder, "extra.txt", [*lines, (0, "a/1/x.wav", "z/1/x.wav", 0.5)])
    report = json.loads(run(capsys, extra, folder / "trials.txt", "--json")[1])
    assert any("1 scores of" in note for note in report["notes"])
    flat = put(folder, "flat.txt", [tuple(str(word).replace("/", "_") for word in line) for line in lines])
    report = json.loads(run(capsys, flat, "--json")[1])
    assert report["eer_low"] is None and report["n_speakers"] is None
    assert any("no interval" in note for note in report["notes"])


def bad(change):
    """A score file `label enrol test score` after a change of its lines."""
    return lambda folder: [put(folder, "bad.txt", change([list(line) for line in scored(folder)]))]


def line_with(place, field, value):
    def change(lines):
        lines[place][field] = value
        return lines

    return change


def bad_embeddings(change):
    def arguments(folder):
        paths, embeddings = score_files.read_embeddings(str(folder / "E.npz"))
        np.savez(folder / "bad.npz", **change(paths, embeddings))
        return [folder / "bad.npz", folder / "trials.txt"]

    return arguments


def zero_vector(paths, embeddings):
    return {"paths": paths, "embeddings": np.where(np.arange(48)[:, None] == 5, 0, embeddings)}


def not_finite(paths, embeddings):
    return {"paths": paths, "embeddings": np.where(np.arange(48)[:, None] == 7, np.nan, embeddings)}


def list_with(line):
    def arguments(folder):
        (folder / "more.txt").write_text((folder / "trials.txt").read_text() + line + "\n")
        return [folder / "E.npz", folder / "more.txt"]

    return arguments


def too_few(folder):
    return [put(folder, "few.txt", [line[1:] for line in scored(folder)][:170]), folder / "trials.txt"]


def other_labels(folder):
    lines = [list(line) for line in scored(folder)]
    lines[4][0] = 1 - lines[4][0]
    return [put(folder, "other.txt", lines), folder / "trials.txt"]


def text(name, content, *others):
    def arguments(folder):
        (folder / name).write_bytes(content)
        return [folder / name, *(folder / other for other in others)]

    return arguments


BAD = {
    "NaN score": (bad(line_with(4, 3, "nan")), "bad.txt line 5 has the score 'nan'"),
    "infinite score": (bad(line_with(6, 3, "-inf")), "bad.txt line 7 has the score '-inf'"),
    "score that is no number": (bad(line_with(6, 3, "high")), "bad.txt line 7 has the score 'high'"),
    "strange label": (bad(line_with(2, 0, "yes")), "line 3 has the label 'yes'"),
    "one class missing": (bad(lambda lines: [line for line in lines if line[0] == 1]), "no non-target trial"),
    "repeated trial": (bad(lambda lines: [*lines, lines[3]]), "line 181 repeats an earlier line"),
    "contradictory trial": (bad(lambda lines: [*lines, [0, *lines[3][1:]]]), "line 4 and 0 in line 181"),
    "label against speakers": (bad(lambda lines: [*lines, [1, IDS[0], IDS[-1], 0.1]]), "contradicts their speakers"),
    "two columns": (bad(lambda lines: [line[1:3] for line in lines]), "has 2 columns"),
    "zero vector": (bad_embeddings(zero_vector), "1 of 48 embeddings are zero or not finite, first that of row 5"),
    "NaN vector": (bad_embeddings(not_finite), "first that of row 7"),
    "no paths": (bad_embeddings(lambda paths, embeddings: {"embeddings": embeddings}), "holds no arrays `paths`"),
    "fewer paths": (bad_embeddings(lambda p, e: {"paths": p[:9], "embeddings": e}), "one row of real numbers a path"),
    "unknown file": (list_with("0 a/1/x.wav h/9/no.wav"), "more.txt line 181 names h/9/no.wav"),
    "too few rows": (too_few, "has no score for 10 of the 180 trials"),
    "labels against the list": (other_labels, "other.txt line 5 has the label"),
    "scored twice": (
        lambda folder: [
            put(folder, "twice.txt", [(0.1, IDS[0], IDS[1]), (0.2, IDS[0], IDS[1])]),
            folder / "trials.txt",
        ],
        "twice, once as 0.1 in line 1",
    ),
    "empty file": (text("empty.txt", b""), "empty.txt is empty"),
    "no npz": (text("no.npz", b"hello", "trials.txt"), "no.npz holds no arrays"),
    "half an npz": (text("half.npz", b"PK\x03\x04 and so on", "trials.txt"), "half.npz holds no arrays"),
    "absent embeddings": (lambda folder: [folder / "none.npz", folder / "trials.txt"], "none.npz does not exist"),
    "absent scores": (lambda folder: [folder / "none.txt"], "none.txt is no file"),
    "absent list": (lambda folder: [folder / "E.npz", folder / "none.txt"], "none.txt is no file"),
    "list without labels": (
        lambda folder: [folder / "E.npz", put(folder, "pairs.txt", [(IDS[0], IDS[1])])],
        "pairs.txt has no labels",
    ),
    "no list": (lambda folder: [folder / "E.npz"], "needs a trial list"),
    "no labels": (bad(lambda lines: [line[1:] for line in lines]), "bad.txt has no labels"),
    "cosines as ratios": (lambda folder: [folder / "E.npz", folder / "trials.txt", "--llr"], "give --calibration"),
    "beside without speakers": (
        lambda folder: [
            put(folder, "flat.txt", [(1, "a", "b", 0.5), (0, "c", "d", 0.1)]),
            "--beside",
            folder / "E.npz",
        ],
        "the ids of",
    ),
    "beside of other trials": (
        lambda folder: [
            folder / "E.npz",
            folder / "trials.txt",
            "--beside",
            put(folder, "few.txt", [(0.1, IDS[0], IDS[1])]),
        ],
        "few.txt has no score for",
    ),
    "no replicates": (lambda folder: [folder / "E.npz", folder / "trials.txt", "--replicates", 0], "--replicates 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence(folder, capsys, name):
    arguments, sentence = BAD[name]
    code, output, error = run(capsys, *arguments(folder))
    assert (code, output) == (2, "")
    assert error.startswith("sv_utils.score: ") and error.count("\n") == 1
    assert sentence in error


def test_a_calibration_of_other_scores_is_refused(folder, capsys):
    for names, features in ((("as_norm",), [0.1, 0.9]), (("cosine", "duration_min"), [[0.1, 3], [0.9, 3]])):
        calibration.fit_calibration(np.array(features), np.array([0, 1]), names).save(folder / "calibration.json")
        code, _, error = run(
            capsys, folder / "E.npz", folder / "trials.txt", "--calibration", folder / "calibration.json"
        )
        assert code == 2
        assert f"is for {', '.join(names)}" in error


def test_a_score_file_takes_a_calibration_of_whatever_one_score_it_is(folder, capsys):
    fields = ("as_norm",), (2.0,), -1.0, 0.5, 60, 120
    calibration.Calibration(*fields).save(folder / "calibration.json")
    lines = scored(folder)
    scores = put(folder, "scores.txt", lines)
    report = json.loads(run(capsys, scores, "--calibration", folder / "calibration.json", "--json")[1])
    target, nontarget = ([2 * line[3] - 1 for line in lines if line[0] == label] for label in (1, 0))
    assert report["cllr"] == pytest.approx(metrics.cllr(target, nontarget), abs=1e-12)
    assert report["log_likelihood_ratios"] == str(folder / "calibration.json") and report["notes"] == []
    code, _, error = run(capsys, scores, "--calibration", "/dev/stdin")
    assert code == 2 and "/dev/stdin" in error


def test_scores_that_fall_where_voices_are_the_same_and_intervals_that_say_nothing_are_told(folder, capsys):
    wrong = [(label, enrol, test, -value) for label, enrol, test, value in scored(folder)]
    notes = json.loads(run(capsys, put(folder, "wrong.txt", wrong), "--json")[1])["notes"]
    assert any(note.startswith("an EER of ") and "give them with the other sign" in note for note in notes)
    same = [(label, enrol, test, 0.5) for label, enrol, test, _ in scored(folder)]
    notes = json.loads(run(capsys, put(folder, "same.txt", same), "--json")[1])["notes"]
    assert "the interval says nothing: whatever speakers are drawn, the EER is the same." in notes


REPORT = {"eer": 0.1, "eer_low": 0.05, "eer_high": 0.2, "n_speakers": 8, "n_target": 60, "n_nontarget": 120}
REPORT |= {"threshold": 0.45678, "min_dcf_001": 0.5, "min_dcf_005": 0.25, "cllr": 0.4, "cllr_min": 0.3}
REPORT |= {"notes": ["odd"]}
TEXT = """\
60 target and 120 non-target trials
EER 10.00 % (95 % interval over 8 speakers: 5.00 - 20.00 %) at the threshold 0.4568
minDCF 0.5000 at P_target 0.01, 0.2500 at 0.05
Cllr 0.400, Cllr_min 0.300 bit
"""


def test_a_report_in_words_has_its_figures_in_percent():
    assert score._text(REPORT) == f"{TEXT}note: odd"
    beside = {"file": "other.txt", "eer": 0.15, "difference": -0.05, "low": -0.1, "high": 0.01, "p": 0.25}
    definitions = {"flagged": True, "mean": 0.1, "other": 0.11}
    said = score._text(REPORT | {"beside": beside, "eer_definitions": definitions, "notes": []})
    assert said == TEXT + (
        "EER by definition: mean 10.00 %, other 11.00 %; more than 0.05 points apart\n"
        "other.txt: EER 15.00 %; difference -5.00 points (95 % interval -10.00 to +1.00, p = 0.250)"
    )
    assert score._text(REPORT | {"eer_definitions": definitions | {"flagged": False}}).count("; alike\n") == 1
    unknown = score._text(REPORT | {"eer_low": math.nan, "eer_high": math.nan, "cllr": math.nan})
    assert "\nEER 10.00 % at the threshold 0.4568\n" in unknown and "\nCllr_min 0.300 bit\n" in unknown


def test_a_page_draws_the_scores_that_were_judged(monkeypatch):
    seen = []
    for name in ("score_histogram", "eer_curve", "det_curves"):
        monkeypatch.setattr(
            figures, name, lambda *given, name=name, **named: seen.append((name, given, named)) or f"<{name}>"
        )
    monkeypatch.setattr(figures, "svg", lambda figure: f"svg of {figure}")
    page = score._page(REPORT, "target", "nontarget", "a <b>.txt")
    title = {"title": "a <b>.txt"}
    assert seen == [
        ("score_histogram", ("target", "nontarget", 0.45678), title),
        ("eer_curve", ("target", "nontarget"), title),
        ("det_curves", ({"a <b>.txt": ("target", "nontarget")},), title),
    ]
    assert page.endswith("svg of <score_histogram>svg of <eer_curve>svg of <det_curves></html>")
    assert "<title>a &lt;b&gt;.txt</title>" in page and f"<pre>{TEXT}note: odd</pre>" in page


def test_a_list_that_is_told_apart_without_error_says_so(folder, capsys):
    lines = [(label, enrol, test, label) for label, enrol, test, _ in scored(folder)]
    report = json.loads(run(capsys, put(folder, "perfect.txt", lines), "--json")[1])
    assert (report["eer"], report["eer_low"]) == (0, 0)
    assert report["eer_high"] == pytest.approx(1 - 0.025 ** (1 / report["n_speakers"]))
    assert any("no error was made" in note for note in report["notes"])


def test_as_a_command(folder):
    command = [sys.executable, "-m", "sv_utils.score", folder / "E.npz", folder / "trials.txt"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0
    assert math.isfinite(json.loads(done.stdout)["eer"])
    failed = subprocess.run([*command[:-1], folder / "none.txt"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.startswith("sv_utils.score: ")
    assert "Traceback" not in failed.stderr
