"""Two recordings in, an answer out: decision, error rates, warnings, and exit codes that are the answer."""

import hashlib
import json
import math
import random
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sv_utils import card, corpora, verify
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.models import encoders, pretrained, runtimes
from sv_utils.pipeline.profile import Profile
from sv_utils.pipeline.stages import Stage
from sv_utils.speech import archives
from sv_utils.voices import activity, asked, compare, encoder, judging, measured, recordings, turns
from sv_utils.voices.judging import Plain, Side

POINT = {"name": "equal error", "wanted": None, "threshold": 0.4, "threshold_from": "dev", "list": "own"}
POINT |= {"n_speakers": 5, "n_target": 20, "n_nontarget": 30}
POINT |= {"false_accept": [0.02, 0.01, 0.08], "miss": [0.01, 0.0, 0.04]}


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """The recordings of the embedded corpus's test voices that are wav: two of each of 18 voices."""
    corpus, folder = corpora.get("mini"), tmp_path_factory.mktemp("voices")
    with zipfile.ZipFile(
        archives.open_parts([corpus.bundled / file for file, _ in corpus.remotes[1].parts])
    ) as archive:
        archive.extractall(folder)
    return sorted(folder.rglob("*.wav"))


@pytest.fixture
def loud(monkeypatch):
    """A detector that takes whatever is loud for speech, so that noise may stand for it."""

    def heard(samples):
        places = np.flatnonzero(np.abs(samples.astype(int)) > 100)
        found = [(int(places[0]), int(places[-1]) + 1)] if len(places) else []
        return found, [activity.joined(samples, found)]

    monkeypatch.setattr(activity, "heard", heard)
    monkeypatch.setattr(recordings, "NOISY", 0.0)
    monkeypatch.setattr(recordings, "WHISPERED", 0.0)
    monkeypatch.setattr(judging, "NOISY", 0.0)


@pytest.fixture
def fixed(monkeypatch, loud):
    """Answers of a set cosine, without an encoder."""

    def answer(cosine):
        monkeypatch.setattr(
            measured, "judge", lambda model, rate: Plain(Calibration(("cosine",), (10.0,), -4.0, 0.5, 99, 999), POINT)
        )
        pair = np.array([[1, 0], [cosine, math.sqrt(1 - cosine**2)]])
        monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: pair)
        monkeypatch.setattr(encoder, "prepare", lambda model: None)
        monkeypatch.setattr(turns.ratios, "directions", lambda model: None)

    return answer


@pytest.fixture
def sound(tmp_path):
    """Write a recording of noise, by default three seconds of it."""

    def write(name="a.wav", seconds=3.0, rate=16_000, level=0.1, silence=0.0):
        rng = np.random.default_rng(sum(name.encode()))
        samples = np.concatenate([rng.normal(0, level, round(seconds * rate)), np.zeros(round(silence * rate))])
        soundfile.write(tmp_path / name, np.clip(samples, -1, 1), rate)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("cosine", "code", "decision", "ratio"),
    [(0.6, 0, "same speaker", 2.0), (0.4, 0, "same speaker", 0.0), (0.3, 1, "different speakers", -1.0)],
)
def test_the_exit_code_is_the_answer(fixed, sound, capsys, cosine, code, decision, ratio):
    fixed(cosine)
    assert verify.main([sound(), sound("b.wav"), "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["decision"] == decision and answer["warnings"] == []
    assert answer["cosine"] == answer["score"] == pytest.approx(cosine)
    assert answer["log_likelihood_ratio"] == pytest.approx(ratio, abs=1e-9)
    assert answer["probability"] == pytest.approx(1 / (1 + math.exp(-ratio)))
    assert answer["operating_point"] == POINT | {"threshold_of": "cosine"}
    assert [recording["seconds"] for recording in answer["recordings"]] == [3.0, 3.0]


@pytest.mark.parametrize(("cosine", "code"), [(0.305, 0), (0.3, 1)])
def test_a_threshold_of_ones_own_decides_and_no_error_rate_belongs_to_it(
    fixed, sound, monkeypatch, capsys, cosine, code
):
    fixed(cosine)
    monkeypatch.setattr(measured, "judge", lambda *_: pytest.fail("asked what was measured"))
    line = [sound(), sound("b.wav"), "--threshold", "0.304999", "--model", "original_resnet34"]
    assert verify.main([*line, "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["cosine"] == pytest.approx(cosine) and answer["operating_point"]["threshold"] == 0.304999
    told = {"name": "your own", "wanted": None, "threshold_of": "cosine", "threshold_from": "you"}
    assert told.items() <= answer["operating_point"].items() and len(answer["operating_point"]) == 8
    none = [answer[key] for key in ("log_likelihood_ratio", "probability")]
    assert [*none, *(answer["operating_point"][key] for key in ("false_accept", "miss", "list"))] == [None] * 5
    assert answer["warnings"] == ["no error rate, likelihood ratio or probability belongs to the threshold 0.304999"]
    assert verify.main(line) == code
    text = capsys.readouterr().out
    assert f"  cosine {cosine:.3f}, threshold 0.305 (original_resnet34)" in text and "warning: no error rate" in text
    assert "operating point" not in text and "prior" not in text and "telephone" not in text


def test_a_threshold_of_ones_own_makes_no_answer_of_silence_and_must_be_a_cosine(fixed, sound, capsys):
    fixed(1.0)
    assert verify.main([sound(), sound("b.wav", seconds=0.3, silence=5.0), "--threshold", "0"]) == 2
    assert capsys.readouterr().out.startswith("cannot tell\n")
    assert verify.main([sound(), sound("b.wav"), "--threshold", "30.5"]) == 2
    assert "the threshold 30.5 is no cosine; give one from -1 to 1" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        verify.main([sound(), sound("b.wav"), "--threshold", "0.3", "--false-accept", "0.01"])


def test_the_prior_moves_the_probability_and_not_the_ratio(fixed, sound):
    fixed(0.6)
    answer = compare.compare(sound(), sound("b.wav"), prior=0.01)
    assert answer["log_likelihood_ratio"] == pytest.approx(2.0)
    assert answer["probability"] == pytest.approx(math.exp(2) / (math.exp(2) + 99))
    with pytest.raises(RequestError, match="prior"):
        compare.compare("a.wav", "b.wav", prior=1.0)


def test_no_ratio_goes_beyond_what_the_trials_can_tell(fixed, sound):
    first, second = sound(), sound("b.wav")
    fixed(1.0)  # the calibration would say 6, and its 999 non-target trials allow 6.9
    assert compare.compare(first, second)["log_likelihood_ratio"] == pytest.approx(6.0)
    fixed(-1.0)  # -14, of which 99 target trials allow 4.6
    assert compare.compare(first, second)["log_likelihood_ratio"] == pytest.approx(-math.log(100))


def test_no_error_among_the_trials_is_told_without_an_interval(fixed, sound):
    fixed(0.6)
    answer = compare.compare(sound(), sound("b.wav"))
    answer["operating_point"] |= {"miss": [0.0, 0.0, 0.0]}
    assert "0.0% (too few errors for an interval) of same voices missed" in compare.text(answer)


def test_the_text_names_rates_list_and_interval(fixed, sound, capsys):
    fixed(0.6)
    assert verify.main([sound(), sound("b.wav", seconds=1.0)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("same speaker\n  cosine 0.600, threshold 0.400 (campplus)")
    assert "a.wav: 3.0 s of speech, up to 8.0 kHz" in text
    assert "2.0% [1.0%, 8.0%] of different voices accepted, 1.0% [0.0%, 4.0%] of same voices missed" in text
    assert "(5 speakers of list own; 50 trials)" in text
    assert "b.wav: 1.00 s of speech are too short" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": 1.5}, "1.50 s of speech are too short"),
        ({"rate": 7000}, "nothing of the voice is heard above "),
        ({"level": 0.9}, "samples are clipped"),
        ({"silence": 4.0}, "mostly not speech: 3.0 s of speech in 7.0 s"),
    ],
)
def test_what_makes_an_answer_weak_is_said(loud, sound, options, said):
    name = sound(**options)
    warnings = recordings.hear(name).warnings()
    assert len(warnings) == 1 and said in warnings[0]


def test_a_good_recording_has_no_warning(loud, sound):
    assert recordings.hear(sound()).warnings() == []


def test_what_is_described_is_the_speech(loud, sound):
    name = sound(silence=4.0)
    described = recordings.hear(name).describe()
    assert described["file"] == name and (described["seconds"], described["rate"], described["channels"]) == (
        7,
        16_000,
        1,
    )
    assert described["speech_seconds"] == pytest.approx(3.0, abs=0.01) and described["bandwidth"] == 8000
    assert described["chips"][:2] == ["3.0 s of speech", "up to 8.0 kHz"]


def test_silence_cannot_be_told_and_no_encoder_is_asked(fixed, monkeypatch, sound, capsys):
    fixed(1.0)
    monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: pytest.fail("embedded silence"))
    assert verify.main([sound(), sound("b.wav", seconds=0.3, silence=5.0)]) == 2
    said = capsys.readouterr().out
    assert said.startswith("cannot tell\n") and "operating point" not in said and "b.wav: 0.3 s of speech" in said


def test_what_another_day_costs_is_told_as_far_as_it_was_measured():
    assert "between days, rooms and devices expect more errors" in compare.other_days(POINT)
    row = {"list": "dev speakers of phone, another call", "miss": [0.095, 0.06, 0.15]}
    told = compare.other_days(POINT | {"by_list": [row]})
    assert told.startswith("Of one voice in two telephone calls 9.5% [6.0%, 15.0%] were missed")


def test_noise_and_tones_are_no_speech_and_get_no_answer(monkeypatch, tmp_path, capsys):
    try:
        activity.weights()
    except WorkError as error:
        pytest.skip(f"no weights: {error}")
    monkeypatch.setattr(encoder, "embeddings", lambda model, waveforms: pytest.fail("embedded noise"))
    monkeypatch.setattr(encoder, "prepare", lambda model: None)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 48_000), 16_000)
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(np.arange(48_000) / 9), 16_000)
    assert verify.main([str(tmp_path / "noise.wav"), str(tmp_path / "tone.wav"), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["decision"] == "cannot tell" and answer["probability"] is None
    assert [text.split(": ")[1] for text in answer["warnings"]] == ["no speech was found in its 3.0 s"] * 2


def test_arrays_are_compared_as_files_are(fixed, sound):
    fixed(0.6)
    file = sound()
    samples, _ = soundfile.read(file, dtype="int16")
    answers = [compare.compare(one, file) for one in (file, samples, samples / 32768, (samples / 32768).astype("f4"))]
    assert [answer["cosine"] for answer in answers] == pytest.approx([0.6] * 4)
    assert {answer["recordings"][0]["speech_seconds"] for answer in answers} == {3.0}
    assert answers[1]["recordings"][0]["file"] == "the first array"


def test_a_segment_is_listened_to_alone(fixed, sound, capsys):
    fixed(0.6)
    file = sound(seconds=6.0)
    assert verify.main([file, file, "--segment", "2=0:01.5-4", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["recordings"]
    assert (first["seconds"], first["segment"]) == (6.0, None)
    assert (second["seconds"], second["segment"]) == (2.5, [1.5, 4.0])
    assert verify.main([file, file, "--segment", "2=1.5-4"]) == 0
    assert "a.wav, 1.5 to 4 s: 2.5 s of speech" in capsys.readouterr().out
    for words, said in (
        ("2=4-9", "has no segment from 4 to 9 s, for it lasts 6.0 s; give one within it"),
        ("2=4-3", "has no segment from 4 to 3 s"),
        ("3=1-2", "write NUMBER=FROM-TO with the number of a recording from 1 to 2"),
        ("1-2", "write NUMBER=FROM-TO"),
    ):
        assert verify.main([file, file, "--segment", words]) == 2
        assert said in capsys.readouterr().err


def test_segments_are_read_in_seconds_and_minutes():
    assert asked.segments([], 2) == [None, None]
    assert asked.segments(["0-4.5"], 1) == [(0.0, 4.5)]
    assert asked.segments(["10:05.5-11:00"], 1) == [(605.5, 660.0)]
    assert asked.segments(["3=0-1", "1=2:00-3:00"], 3) == [(120.0, 180.0), None, (0.0, 1.0)]
    for words, recorded in (["0=0-1"], 2), (["a-b"], 1), (["2:"], 1), (["1=0-1", "1=2-3"], 2), (["0-1", "2-3"], 1):
        with pytest.raises(RequestError, match="--segment "):
            asked.segments(words, recorded)


def test_where_a_second_voice_speaks_the_answer_says_so_and_claims_less(fixed, monkeypatch, sound):
    fixed(1.0)  # without it the ratio would be 6
    monkeypatch.setattr(turns, "second_voice", lambda *_: turns.Second(3.0, 7.5, 0.2))
    answer = compare.compare(sound(), sound("b.wav"))
    assert answer["log_likelihood_ratio"] == pytest.approx(math.log(20))
    assert "a.wav: a second voice seems to speak from 3.0 to 7.5 s" in answer["warnings"][0]
    of_a_part = compare.compare(sound(), sound("b.wav"), segments=[(0.5, 3.0), None])
    assert "from 3.5 to 8.0 s" in of_a_part["warnings"][0]  # of the recording, not of its part
    monkeypatch.setattr(turns, "warned", lambda recording, model: [f"heard by {model}"])
    assert compare.compare(sound(), sound("b.wav"), "own.keras")["warnings"] == ["heard by own.keras"] * 2


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros((2, 9), np.int16), r"the first array has the shape \(2, 9\); give one channel"),
        (np.zeros(0), "has no samples"),
        (np.array([0.1, np.nan]), "NaN or infinite"),
        (np.array([0.1, -3000.0]), r"reaches 3000; scale floats to \[-1, 1\]"),
        (np.zeros(9, np.int32), "is of type int32; give int16, or float"),
    ],
)
def test_an_array_that_is_no_recording_is_refused_in_words(samples, said):
    with pytest.raises(RequestError, match=said):
        compare.compare(samples, np.zeros(9, np.int16))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"", "empty file"), (b"no audio" * 99, "not audio")]
)
def test_bad_input_is_one_sentence_and_not_an_answer(sound, tmp_path, capsys, content, said):
    bad = tmp_path / "bad.wav"
    if content is not None:
        bad.write_bytes(content)
    for pair in ([sound(), str(bad)], [str(bad), sound()]):
        assert verify.main(pair) == 2
        message = capsys.readouterr().err
        assert "bad.wav" in message and said in message and message.count("\n") == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_mutation_of_a_recording_ends_in_a_traceback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mutated")
    channels = data.draw(st.integers(1, 2))
    soundfile.write(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, (4000, channels)), 16_000)
    content = bytearray((folder / "a.wav").read_bytes())
    for place in data.draw(st.lists(st.integers(0, 100), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    (folder / "a.wav").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        recordings.decode(folder / "a.wav")
    except RequestError as error:
        assert "a.wav" in str(error)


def answers_for_damaged_files(voices, folder, capsys, count):
    """Real recordings with bytes changed, removed or doubled: an answer or one sentence, and soon."""
    rng = random.Random(0)
    files = [*voices[:6], *sorted(voices[0].parents[3].rglob("*.m4a"))[:6]]
    for number in range(count):
        content = bytearray(files[number % len(files)].read_bytes())
        for _ in range(rng.choice([1, 4, 64])):
            place = rng.randrange(rng.choice([64, len(content)]))
            kind = rng.randrange(4)
            content[place : place + kind] = rng.randbytes(rng.choice([kind, 1, 8]))
        if number % 5 == 0:
            del content[rng.randrange(len(content)) :]
        damaged = folder / f"damaged{files[number % len(files)].suffix}"
        damaged.write_bytes(content)
        started = time.monotonic()
        code = verify.main([str(damaged), str(voices[0])])
        said = capsys.readouterr()
        assert code in (0, 1, 2) and "Traceback" not in said.err and time.monotonic() - started < 60, number
        assert bool(said.out) != (said.err.count("\n") == 1), number


def test_damaged_files_get_an_answer_or_a_sentence(fixed, voices, tmp_path, capsys):
    fixed(0.6)
    answers_for_damaged_files(voices, tmp_path, capsys, 15)


@pytest.mark.long
def test_500_damaged_files_get_an_answer_or_a_sentence(fixed, voices, tmp_path, capsys):
    fixed(0.6)
    answers_for_damaged_files(voices, tmp_path, capsys, 500)


def test_what_was_measured_of_an_own_model_comes_from_its_evaluation(tmp_path):
    training, judged = tmp_path / "03_train_softmax@7", tmp_path / "08_evaluate@softmax@7"
    training.mkdir()
    judged.mkdir()
    encoders.build(backbone="resnet18", width=4, stem="imagenet", embedding_dim=8, n_mels=20).save(
        training / "model.keras"
    )
    with pytest.raises(RequestError, match="evaluate it"):
        measured.known(str(training / "model.keras"))
    Calibration(("cosine",), (9.0,), -3.0, 0.5, 5, 6).save(judged / "calibration.json")
    row = {"list": "own", "n_speakers": 4, "n_target": 10, "n_nontarget": 20, "threshold": 0.3}
    row["encoder"] = {"sha256": runtimes.sha256(training / "model.keras")}
    (judged / "metrics.json").write_text(json.dumps([row]))
    with pytest.raises(RequestError, match="no operating points; evaluate it anew"):
        measured.known(str(training / "model.keras"))
    strict = POINT | {"wanted": 0.01, "threshold": 0.6}
    (judged / "metrics.json").write_text(json.dumps([row | {"operating_points": [POINT, strict]}]))
    calibration, point = measured.known(str(training / "model.keras"))
    assert calibration.weights == (9.0,)
    assert point == POINT  # its threshold comes from dev speakers, not from the list as row["threshold"] does
    assert measured.known(str(training / "model.keras"), 0.01)[1] == strict
    with pytest.raises(RequestError, match=r"0\.02 was not measured.*give one of 0\.01"):
        measured.known(str(training / "model.keras"), 0.02)
    (judged / "scores_own.csv").write_text("label,enrol,test,score\n1,a,b,0.5\n0,a,c,-0.25\n1,a,d,0.75\n")
    target, nontarget = measured.scores(str(training / "model.keras"))
    assert (target.tolist(), nontarget.tolist()) == ([0.5, 0.75], [-0.25])
    with pytest.raises(RequestError, match="no such model"):
        measured.known(str(tmp_path / "absent.keras"))
    other = encoders.build(backbone="resnet18", width=4, stem="imagenet", embedding_dim=8, n_mels=20)
    for name in ("initial.keras", "model.keras"):  # beside the judged one; in its place, by a later training
        other.save(training / name)
        with pytest.raises(RequestError, match=rf"{name} is not the model that 08_evaluate@softmax@7 has judged"):
            measured.known(str(training / name))
    (judged / "metrics.json").write_text("{}")
    with pytest.raises(RequestError, match=r"metrics\.json is damaged; evaluate"):
        measured.known(str(training / "model.keras"))


def test_an_own_model_has_a_card_with_data_lists_and_limits(tmp_path, capsys):
    training, judged, prepared = (tmp_path / name for name in ("03_train_softmax", "08_evaluate@softmax", "02_prep"))
    for folder in (training, judged, prepared):
        folder.mkdir()
    (training / "model.keras").write_bytes(b"weights")
    (judged / "calibration.json").touch()
    row = {
        "model": "softmax",
        "loss": "softmax",
        "list": "mini",
        "n_speakers": 18,
        "n_target": 100,
        "n_nontarget": 1000,
    }
    row |= {"eer": 0.1007, "eer_low": 0.0678, "eer_high": 0.147, "operating_points": [POINT]}
    sha256 = hashlib.sha256(b"weights").hexdigest()
    row |= {"encoder": {"parameters": 1234567, "dimensions": 64, "sha256": sha256}}
    row |= {"by_group": [{"by": "gender", "group": "f", "n_speakers": 9, "p_fa": 0.03, "p_miss": None}]}
    (judged / "metrics.json").write_text(json.dumps([row]))
    line = [str(training / "model.keras")]
    assert card.main(line) == 2 and "run.json is missing" in capsys.readouterr().err
    made = {"seed": 7, "git": {"commit": "abc"}, "parameters": {"corpora": ["mini"], "train_corpora": ["mini"]}}
    for folder in (training, prepared):
        (folder / "run.json").write_text(json.dumps(made))
    assert card.main(line) == 0
    text = (training / "CARD.md").read_text()
    assert text.startswith("# softmax\n") and "1,234,567 parameters, 64 dimensions" in text
    assert "Licence: Free licences" in text and "One voice is one microphone" in text
    assert "10.07% [6.78%, 14.70%]" in text and "1,100" in text and "equal error" in text
    assert "2.00% [1.00%, 8.00%]" in text and "gender" in text and "Commit abc, seed 7" in text
    assert "synthetic speech are not detected" in text


def test_the_card_of_a_published_encoder_is_shown_and_nothing_is_fitted(monkeypatch, capsys):
    monkeypatch.setattr(card, "measure", lambda model: pytest.fail("fitted a second calibration"))
    assert card.main(["campplus"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# CAM++") and "- Licence: Apache-2.0" in said
    assert "### Error rates by condition" in said and "| narrow band, noisy " in said


def test_without_weights_the_mend_is_named_and_the_code_is_not_an_answer(monkeypatch, loud, sound, capsys):
    def fail(name):
        raise WorkError("the package cannot be fetched")

    monkeypatch.setattr(pretrained, "published", fail)
    assert verify.main([sound(), sound("b.wav")]) == 2
    message = capsys.readouterr().err
    assert "cannot be fetched" in message and "--model" in message and message.count("\n") == 1


def test_published_encoder_tells_voices_apart_and_the_terminal_stays_quiet(voices):
    try:
        judge = measured.judge("campplus")
        heard = [recordings.hear(file) for file in voices[:16]]
        embeddings = encoder.of_voices("campplus", [one.hearings for one in heard])
    except WorkError as error:
        pytest.skip(f"no weights: {error}")
    sides = [Side(embedding, one.conditions) for embedding, one in zip(embeddings, heard)]
    same = [judge(*pair) for pair in zip(sides[::2], sides[1::2])]
    different = [judge(*pair) for pair in zip(sides[::2], [*sides[3::2], sides[1]])]
    assert len(same) == 8
    assert sum(not one.accepted for one in same) + sum(one.accepted for one in different) <= 2
    code = (
        "import sys; from sv_utils import verify; from sv_utils.voices import encoder; "
        "encoder.prepare = lambda model: None; sys.exit(verify.main())"
    )
    line = [sys.executable, "-c", code, str(voices[0]), str(voices[1]), "--json"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cosine"] == pytest.approx(same[0].cosine, abs=1e-4)


def test_the_scores_are_those_that_the_rates_come_from():
    target, nontarget = measured.scores("campplus")
    point = pretrained.card("campplus")["operating_points"][0]
    assert (len(target), len(nontarget)) == (point["n_target"], point["n_nontarget"])
    assert np.mean(target < point["threshold"]) == pytest.approx(point["miss"][0], abs=0.002)
    assert np.mean(nontarget >= point["threshold"]) == pytest.approx(point["false_accept"][0], abs=0.002)


def test_the_notebook_is_a_stage_of_a_profile_that_has_its_section(monkeypatch, tmp_path):
    assert "10_verify" not in [stage.name for stage in list(Profile.read("mini").stages)]
    file = tmp_path / "mini.yaml"
    file.write_text((paths.REPO / "params" / "mini.yaml").read_text() + "\n10_verify: {prior: 0.1}\n")
    monkeypatch.setenv("SV_PARAMS", str(tmp_path))
    assert list(Profile.read("mini").stages)[-1] == Stage("10_verify", "10_verify", ("09_report",))
    assert Profile.read("mini").of("10_verify")["prior"] == 0.1
