"""Voices under names: means of unit vectors, one file that no crash and no crowd damages, and who is none of them."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from sv_utils import enrol
from sv_utils import identify as identify_command
from sv_utils.base.errors import RequestError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.models import pretrained
from sv_utils.voices import activity, encoder, enrolment, identify, judging, measured, ratios, recordings
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Plain, Side

GOOD = Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
POINT = {"name": "equal error", "wanted": None, "threshold": 0.7, "list": "own", "false_accept": [0.02, 0.01, 0.08]}


@pytest.fixture
def store(tmp_path):
    return tmp_path / "voices.npz"


@pytest.fixture
def recording(tmp_path):
    """Write a recording of noise whose first sample says which unit vector it has."""

    def write(name, degrees, seconds=3.0):
        samples = np.random.default_rng(0).normal(0, 3000, round(16_000 * seconds)).astype(np.int16)
        samples[0] = degrees
        soundfile.write(tmp_path / name, samples, 16_000)
        return str(tmp_path / name)

    return write


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """An encoder that gives the direction in degrees that a recording names."""

    def embeddings(model, waveforms):
        angles = np.radians([float(samples[0]) for samples in waveforms])
        return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    monkeypatch.setattr(encoder, "embeddings", embeddings)
    monkeypatch.setattr(ratios, "directions", lambda model: None)
    judge = Plain(Calibration(("cosine",), (10.0,), -5.0, 0.5, 99, 99), POINT)
    monkeypatch.setattr(measured, "judge", lambda *_: judge)
    monkeypatch.setattr(activity, "heard", lambda samples: ([(0, len(samples))], [samples]))
    for module in (judging, recordings):
        monkeypatch.setattr(module, "NOISY", 0.0)  # the noise that stands for speech is no background
    monkeypatch.setattr(recordings, "WHISPERED", 0.0)
    monkeypatch.setattr(pretrained, "fingerprint", lambda model: f"print of {model}")


def test_a_voice_is_the_mean_of_its_recordings_in_whatever_steps(store, recording):
    assert enrolment.enrol("ada", [recording("a.wav", 0), recording("b.wav", 30)], store=store) == (2, [])
    assert enrolment.enrol("ada", [recording("c.wav", 60)], store=store)[0] == 3
    enrolment.enrol("bob", [recording("d.wav", 120)], store=store)
    answer = identify.identify(recording("e.wav", 40), store=store)
    assert (answer["decision"], answer["name"]) == ("known", "ada")
    assert [c["name"] for c in answer["candidates"]] == ["ada", "bob"]
    cosines = [candidate["cosine"] for candidate in answer["candidates"]]
    assert cosines == pytest.approx(np.cos(np.radians([10, 80])), abs=1e-6)
    assert answer["candidates"][1]["log_likelihood_ratio"] == pytest.approx(10 * cosines[1] - 5, abs=1e-6)
    assert answer["stranger_accepted"] == pytest.approx(0.04)  # two voices, 2 % each


def test_the_conditions_of_a_voice_are_those_of_all_its_recordings_in_whatever_steps(store):
    call, direction = Conditions(1.0, 3500.0, 12.0, 0.02, 0.1, 0.05), np.array([1.0, 0.0], np.float32)
    for conditions in (call, GOOD):
        enrolment.add(store, "own", "print", "ada", [Side(direction, conditions)])
    enrolment.add(store, "own", "print", "bob", [Side(direction, GOOD)])
    known = enrolment.read(store).conditions
    assert known == {"ada": Conditions(6.0, 3500.0, 12.0, 0.02, 0.1, 0.1), "bob": GOOD}


def test_who_is_none_of_them_is_unknown_unless_the_set_is_closed(store, recording, capsys):
    enrolment.enrol("ada", [recording("a.wav", 0)], store=store)
    stranger = recording("s.wav", 90)
    line = [stranger, "--store", str(store)]
    assert identify_command.main([*line, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["decision"], answer["name"]) == ("unknown", None)
    assert identify_command.main([*line, "--closed"]) == 0
    assert capsys.readouterr().out.startswith("ada\n  ada: cosine 0.000")
    assert identify_command.main([recording("a.wav", 10), "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert "a stranger is taken for one of the enrolled in at most 2.0%, as measured on speakers of list own" in said
    assert identify_command.main([recording("short.wav", 0, seconds=0.3), "--store", str(store)]) == 2
    said = capsys.readouterr().out
    assert said.startswith("cannot tell") and "threshold" not in said


def test_recordings_of_one_name_must_match_unless_they_are_enrolled_anyway(store, recording, capsys):
    line = ["ada", recording("a.wav", 0), recording("b.wav", 20), recording("c.wav", 90), "--store", str(store)]
    assert enrol.main(line) == 2
    said = capsys.readouterr().err
    assert "c.wav does not sound like the other recordings of ada" in said and "--anyway" in said
    assert not store.exists()
    assert enrol.main([*line[:3], "--store", str(store)]) == 0  # a and b
    assert enrol.main(["ada", recording("d.wav", 100), "--store", str(store)]) == 2  # one beside those of before
    assert enrolment.read(store).counts == {"ada": 2}
    assert enrol.main([*line, "--anyway"]) == 0
    assert enrolment.read(store).counts == {"ada": 5}


def test_the_same_recording_counts_once(store, recording, capsys):
    first, again = recording("a.wav", 0), recording("again.wav", 0)
    assert enrol.main(["ada", first, again, "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert "ada is enrolled with 1 recording" in said and "again.wav is the same recording as" in said


def test_a_segment_is_enrolled_and_asked_for_alone(store, recording, capsys):
    file = recording("a.wav", 0, seconds=20.0)
    line = ["ada", file, file, "--store", str(store), "--anyway"]
    assert enrol.main([*line, "--segment", "1=0-5", "--segment", "2=0:10-0:12"]) == 0
    assert enrolment.read(store).conditions["ada"].speech_seconds == 7.0 and enrolment.read(store).counts == {"ada": 2}
    capsys.readouterr()
    assert identify_command.main([file, "--segment", "0:01-4", "--store", str(store), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["recording"]["segment"] == [1.0, 4.0]
    assert enrol.main([*line, "--segment", "2=19-21"]) == 2
    assert "a.wav has no segment from 19 to 21 s, for it lasts 20.0 s" in capsys.readouterr().err
    assert identify_command.main([file, "--segment", "0:19-0:21", "--store", str(store)]) == 2
    assert "has no segment from 19 to 21 s" in capsys.readouterr().err


def test_a_name_has_one_spelling_and_is_no_recording(store):
    side = Side(np.eye(1, 3, dtype=np.float32)[0], GOOD)
    for name in ("Zoe\u0301  Lee", " Zo\u00e9 Lee "):  # composed or not
        enrolment.add(store, "own", "print", name, [side, side])
    assert enrolment.read(store).counts == {"Zo\u00e9 Lee": 4}
    enrolment.add(store, "own", "print", 100 * "x", [side])
    for name in ("", "  ", 101 * "x", "a\tb"):
        with pytest.raises(RequestError, match="is no name; give up to 100 printable characters"):
            enrolment.add(store, "own", "print", name, [side])
    with pytest.raises(RequestError, match=r"monday\.WAV is a recording; the name of its voice comes first"):
        enrolment.enrol("monday.WAV", ["absent.wav"], store=store)
    with pytest.raises(RequestError, match="is no name"):
        enrolment.enrol(" ", ["absent.wav"], store=store)  # before anything is decoded
    enrolment.delete(store, "Zoe\u0301 Lee ")
    assert list(enrolment.read(store).sums) == [100 * "x"]


def test_voices_lie_in_the_outputs_unless_a_file_is_named(recording, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "out"))
    assert enrolment.enrol("ada", [recording("a.wav", 0)]) == (1, [])
    assert list(enrolment.read(tmp_path / "out" / "voices.npz").sums) == ["ada"]
    assert identify.identify(recording("b.wav", 10))["name"] == "ada"


def test_each_recording_is_enrolled_with_its_own_conditions_and_what_makes_it_weak_is_told(recording, monkeypatch):
    """Twins count once; what comes after them keeps its own embedding."""
    files = [recording("a.wav", 0, 1.0), recording("twin.wav", 0, 1.0), recording("b.wav", 30, 4.0)]
    sides, warnings = enrolment.heard([*files, files[2]], "own", [None, None, None, (1.0, 3.5)])
    assert list(sides) == [files[0], files[2], f"{files[2]}, 1 to 3.5 s"]
    assert [side.conditions.speech_seconds for side in sides.values()] == [1.0, 4.0, 2.5]
    np.testing.assert_allclose([side.embedding[0] for side in list(sides.values())[:2]], np.cos(np.radians([0, 30])))
    assert warnings == [
        f"{files[0]}: 1.00 s of speech are too short for a reliable answer, give 2 s or more",
        f"{files[1]} is the same recording as {files[0]}, and counts once",
    ]


def test_what_holds_no_speech_is_not_enrolled(store, recording, monkeypatch, capsys):
    monkeypatch.setattr(activity, "heard", lambda samples: ([], [samples[:0]]))
    assert enrol.main(["ada", recording("a.wav", 0), "--store", str(store)]) == 2
    assert "0.00 s of speech are too few to enrol" in capsys.readouterr().err and not store.exists()


def test_what_is_asked_is_answered_in_words(store, recording, capsys):
    for place, name in enumerate(("ada", "bob", "cy", "dan")):
        files = [recording(f"{name}{number}.wav", 20 * place + number, 1.5) for number in range(2)]
        assert enrol.main([name, *files, "--store", str(store)]) == 0
        first, *warnings = capsys.readouterr().out.splitlines()
        assert first == f"{name} is enrolled with 2 recordings"
        weak = "1.50 s of speech are too short for a reliable answer, give 2 s or more"
        assert warnings == [f"  warning: {file}: {weak}" for file in files]
    assert identify_command.main([recording("x.wav", 60, 1.5), "--store", str(store)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["dan", "  dan: cosine 1.000, log-likelihood ratio +3.00"]  # for so short speech
    assert [line.split(":")[0].strip() for line in said[2:4]] == ["cy", "bob"]
    rates = "a stranger is taken for one of the enrolled in at most 8.0%, as measured on speakers of list own"
    assert said[4] == f"  threshold 0.839 (equal error): {rates}"  # 0.7 + ln(4) / 10
    outside = "the error rates were not measured on so short speech: the answer claims less"
    assert said[5:] == [f"  warning: {weak}", f"  warning: {outside}"]
    assert identify_command.main([recording("y.wav", 170), "--store", str(store)]) == 1
    assert capsys.readouterr().out.startswith("none of the enrolled voices\n  dan: cosine -0.")
    assert enrol.main(["--delete", "dan", "--store", str(store)]) == 0
    assert capsys.readouterr().out == f"dan is deleted from {store}\n"
    assert enrol.main(["--list", "--store", str(store.with_name("none.npz"))]) == 0
    assert capsys.readouterr().out == f"{store.with_name('none.npz')}: 0 voices\n"


def test_the_threshold_rises_with_the_number_of_enrolled_voices(store, recording):
    for number in range(5):
        enrolment.enrol(f"v{number}", [recording("a.wav", 70 * number)], store=store)
    answer = identify.identify(recording("x.wav", 40), store=store)
    assert answer["operating_point"]["threshold"] == pytest.approx(0.7 + np.log(5) / 10)
    assert answer["stranger_accepted"] == pytest.approx(0.1)


def test_whose_whispering_it_is_is_less_certain(store, recording, monkeypatch):
    enrolment.enrol("ada", [recording("a.wav", 0)], store=store)
    told = [identify.identify(recording("b.wav", 0), store=store)]
    monkeypatch.setattr(recordings, "WHISPERED", 1.1)
    told.append(identify.identify(recording("b.wav", 0), store=store))
    ratios = [answer["candidates"][0]["log_likelihood_ratio"] for answer in told]
    assert ratios == pytest.approx(np.log([100, 20])) and "hardly any of it is voiced" in told[1]["warnings"][0]


def test_models_are_not_mixed(store, recording, monkeypatch, capsys):
    file = recording("a.wav", 0)
    line = ["ada", file, "--store", str(store)]
    assert enrol.main(line) == 0
    before = store.read_bytes()
    assert enrol.main(["ada", recording("b.wav", 90), *line[2:], "--model", "other"]) == 2  # whatever it sounds like
    assert "the enrolled voices are of the model campplus, which other cannot compare" in capsys.readouterr().err
    assert store.read_bytes() == before
    monkeypatch.setattr(pretrained, "fingerprint", lambda model: "print of a later training")
    with pytest.raises(RequestError, match="campplus has changed since"):
        identify.identify(file, store=store)


def test_the_model_of_the_voices_is_found_from_any_folder(store, recording, tmp_path, monkeypatch):
    (tmp_path / "model.keras").touch()
    for folder, model, kept in (
        (tmp_path, "model.keras", str(tmp_path / "model.keras")),
        (tmp_path.parent, "campplus", "campplus"),
    ):
        monkeypatch.chdir(folder)
        store.unlink(missing_ok=True)
        enrolment.enrol("ada", [recording("a.wav", 0)], model, store)
        assert enrolment.read(store).model == kept


def test_voices_are_listed_and_deleted_and_nothing_else_is_kept(store, recording, capsys):
    for name in ("ada", "bob"):
        enrolment.enrol(name, [recording("a.wav", 0)], store=store)
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert enrol.main(["--list", "--store", str(store)]) == 0
    assert "2 voices, of campplus\n  ada (1 recording)\n  bob (1 recording)\n" in capsys.readouterr().out
    assert enrol.main(["--delete", "ada", "--store", str(store)]) == 0
    assert list(enrolment.read(store).sums) == ["bob"] and b"ada" not in store.read_bytes()
    (store.parent / ".voices.killed.npz").write_bytes(b"ada")  # by a process that was killed while writing
    enrolment.add(store, "campplus", "print of campplus", "bob", [])
    assert sorted(path.name for path in store.parent.glob(".*")) == [".voices.npz.lock"]
    assert enrol.main(["--delete", "bop", "--store", str(store)]) == 2
    assert "did you mean 'bob'" in capsys.readouterr().err
    with np.load(store) as file:
        assert sorted(file) == ["conditions", "counts", "fingerprint", "model", "names", "sums", "version"]
    enrolment.delete(store, "bob")
    side = Side(np.eye(1, 3, dtype=np.float32)[0], GOOD)
    assert enrolment.add(store, "other", "other print", "ada", [side]) == 1  # empty: any model


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ada"], "name a voice and its recordings"),
        ([], "name a voice and its recordings"),
        (["ada", "absent.wav"], "absent.wav"),
        (["a\nb", "{good}"], "is no name"),
        (["ada", "{good}", "{short}"], "short.wav: 0.30 s of speech are too few"),
        (["--delete", "ada"], "no voice is enrolled as 'ada'"),
    ],
)
def test_bad_requests_are_one_sentence_and_enrol_nobody(store, recording, capsys, arguments, said):
    files = {"good": recording("good.wav", 0), "short": recording("short.wav", 0, seconds=0.3)}
    assert enrol.main([argument.format(**files) for argument in arguments] + ["--store", str(store)]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert not store.exists()


def test_a_file_that_is_no_store_is_told(store, recording, capsys):
    file = recording("a.wav", 0)
    assert identify_command.main([file, "--store", str(store)]) == 2
    assert "nobody is enrolled" in capsys.readouterr().err
    for content in (b"", b"nonsense", b"PK\x03\x04" + bytes(99)):
        store.write_bytes(content)
        assert enrol.main(["ada", file, "--store", str(store)]) == 2
        assert "holds no enrolled voices" in capsys.readouterr().err
        assert store.read_bytes() == content
    whole = {"version": 2, "model": "m", "fingerprint": "f", "names": ["a"], "counts": [1]}
    whole |= {"sums": np.eye(1, 3), "conditions": [[5.0, 8000.0, 40.0, 0.0, 0.0, 0.1]]}
    np.savez(store, **whole)
    assert enrolment.read(store).counts == {"a": 1}
    for other in ({"names": ["a", "b"]}, {"conditions": [[5.0]]}, {"version": "two"}):
        np.savez(store, **(whole | other))
        with pytest.raises(RequestError, match="holds no enrolled voices; name another file with --store"):
            enrolment.read(store)
    np.savez(store, version=2)
    with pytest.raises(RequestError, match="holds no enrolled voices"):
        enrolment.read(store)
    np.savez(store, version=1)
    with pytest.raises(RequestError, match="layout 1, not 2; enrol into another file"):
        enrolment.read(store)


WRITER = """
import sys, numpy as np
from pathlib import Path
from sv_utils.voices import enrolment as enrol
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Side
good = Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1)
store, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    enrol.add(store, "m", "f", f"{who}{number}", [Side(np.eye(1, 64, number % 64, dtype=np.float32)[0], good)])
    print(f"{who}{number}", flush=True)
"""


def writer(store, who, count):
    line = [sys.executable, "-c", WRITER, str(store), who, str(count)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def test_concurrent_enrolments_lose_nothing(store):
    processes = [writer(store, who, 10) for who in "abcd"]
    assert [process.communicate()[0].count("\n") for process in processes] == [10] * 4
    assert sorted(enrolment.read(store).sums) == sorted(f"{who}{number}" for who in "abcd" for number in range(10))
    with ThreadPoolExecutor(4) as pool:  # threads of one process take turns too
        side = Side(np.eye(1, 64, dtype=np.float32)[0], GOOD)
        list(pool.map(lambda _: enrolment.add(store, "m", "f", "e", [side]), range(20)))
    assert enrolment.read(store).counts["e"] == 20


def killed_again_and_again(store, kills):
    rng, told = random.Random(0), set()
    for turn in range(kills):
        process = writer(store, f"w{turn}n", 10_000)
        told.add(process.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        told |= set(process.communicate()[0].split("\n")[:-1])
        voices = enrolment.read(store)
        assert told <= voices.sums.keys()
        assert all(np.linalg.norm(vector) == 1 for vector in voices.sums.values())
    enrolment.delete(store, min(told))
    assert sorted(path.name for path in store.parent.glob(".voices*")) == [".voices.npz.lock"]  # no leavings


def test_kills_lose_nothing_that_was_told(store):
    killed_again_and_again(store, 3)


@pytest.mark.long
def test_many_kills_lose_nothing_that_was_told(store):
    killed_again_and_again(store, 200)


def test_a_second_voice_is_told_once_for_each_recording(recording, monkeypatch):
    monkeypatch.setattr(enrolment.turns, "warned", lambda heard, model: [f"{heard.name}: a second voice by {model}"])
    _, warnings = enrolment.heard([recording("a.wav", 10), recording("b.wav", 11)], "m")
    assert sum("second voice by m" in text for text in warnings) == 2
