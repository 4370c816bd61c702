"""`embed`, `score`, exported models and names of voices in the ways that people use them."""

import csv
import json
import wave

import numpy as np
import pandas as pd
import pytest

from sv_utils import embed, score
from sv_utils.base import errors, progress
from sv_utils.base.errors import RequestError
from sv_utils.evaluation import score_files
from sv_utils.models import embedding, pretrained, runtimes
from sv_utils.reports import tables
from sv_utils.voices import enrolment
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Side


class Encoder:
    """Vectors of the loudness and the number of zero crossings; NaN for what is loud."""

    output_shape = (None, 2)

    def predict_on_batch(self, waveforms):
        loud = np.sqrt((waveforms**2).mean(axis=1))
        crossings = (np.diff(np.signbit(waveforms), axis=1) != 0).mean(axis=1)
        vectors = np.column_stack([loud, crossings]) / np.hypot(loud, crossings)[:, None]
        return np.where(loud[:, None] > 0.5, np.nan, vectors)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two noises, a loud one, and a file that is no audio."""
    monkeypatch.setattr(pretrained, "load", lambda name: Encoder())
    rng = np.random.default_rng(0)
    for name, level in [("a b", 3000), ("c", 9000), ("loud", 32000)]:
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((level * np.sign(rng.normal(size=16_000))).astype("<i2").tobytes())
    (tmp_path / "text.wav").write_text("no audio at all")
    return tmp_path


def run(root, listed, *more, out="e.npz"):
    (root / "files.txt").write_bytes(listed if isinstance(listed, bytes) else listed.encode())
    arguments = ["--model", "m.keras", "--root", root, "--list", root / "files.txt", "--out", root / out, *more]
    return embed.main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "listed",
    [b"\xef\xbb\xbfa b.wav\r\n\r\nc.wav\r\n", 'a b.wav\n"c.wav"\n', "a b.wav\nc.wav\n".encode("utf-16")],
    ids=["byte-order mark", "quotes", "UTF-16"],
)
def test_embed_reads_lists_as_they_are_saved(root, listed):
    """jfisteus/eyegrade#70: the first name after a byte-order mark is not found."""
    assert run(root, listed) == 0
    with np.load(root / "e.npz") as file:
        assert file["paths"].tolist() == ["a b.wav", "c.wav"]


def test_embed_names_every_missing_file_before_a_model_is_loaded(root, capsys, monkeypatch):
    monkeypatch.setattr(pretrained, "load", None)
    assert run(root, "gone.wav\nc.wav\naway.wav\n" * 2) == 2
    said = capsys.readouterr().err
    assert "2 of 6 files cannot be embedded" in said and "gone.wav: no such file; " in said and "away.wav" in said
    assert run(root, "".join(f"{number}.wav\n" for number in range(50))) == 2
    said = capsys.readouterr().err
    assert "19.wav: no such file; and 30 more); mend them" in said and said.count("\n") == 1


def test_embed_finds_names_in_another_spelling(root):
    """NFC in the list and NFD on the disk, as macOS leaves them; and Windows' separators."""
    (root / "sub").mkdir()
    (root / "c.wav").rename(root / "sub" / "Jose\u0301.wav")
    assert run(root, "sub/Jos\xe9.wav\nsub\\Jos\xe9.wav\n") == 0


def test_embed_names_every_bad_file_and_writes_nothing(root, capsys):
    (root / "other.wav").write_text("neither")
    assert run(root, "text.wav\nc.wav\nother.wav\n") == 2
    said = capsys.readouterr().err
    assert "2 of 3 files" in said and "text.wav: not audio" in said and "other.wav: not audio" in said
    assert not list(root.glob("e*"))


def test_embed_skips_bad_files_when_told_so_and_lists_them(root, capsys):
    assert run(root, "gone.wav\na b.wav\ntext.wav\nloud.wav\n", "--skip-bad", out="model_v0.5") == 0
    with np.load(root / "model_v0.5.npz") as file:
        assert file["paths"].tolist() == ["a b.wav"] and np.isfinite(file["embeddings"]).all()
    with open(root / "model_v0.5_skipped.csv", newline="") as file:
        skipped = dict(list(csv.reader(file))[1:])
    assert list(skipped) == ["gone.wav", "text.wav", "loud.wav"]
    assert skipped["gone.wav"] == "no such file" and skipped["loud.wav"] == "the model gives no finite vector"
    assert "3 of 4 files skipped" in capsys.readouterr().out
    assert run(root, "gone.wav\ntext.wav\n", "--skip-bad") == 2


def test_embed_refuses_a_model_that_gives_no_numbers(root, capsys):
    assert run(root, "c.wav\nloud.wav\n") == 2
    assert "loud.wav: the model gives no finite vector" in capsys.readouterr().err
    assert not (root / "e.npz").exists()


def test_embed_writes_where_it_is_told(root, capsys):
    (root / "folder").mkdir()
    assert run(root, "c.wav\n", out="folder") == 2
    assert "folder is a folder; name a file in it" in capsys.readouterr().err
    assert run(root, "c.wav\n", out="own.npz") == 0
    assert (root / "own.npz").stat().st_mode & 0o777 == 0o600  # a voice is told again by what it holds


def test_embeddings_of_others_become_unit_vectors(root):
    class Long(Encoder):
        def predict_on_batch(self, waveforms):
            return 400 * super().predict_on_batch(waveforms)

    vectors, bad = embedding.embed_files(Long(), root, ["c.wav", "a b.wav"])
    assert not bad
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


class Fixed:
    """What a runtime does with a file of fixed shape: anything else ends in an error of its own kind."""

    def __init__(self, batch, samples):
        self.shape = batch, samples

    def __call__(self, waveforms):
        for given, wanted in zip(waveforms.shape, self.shape):
            if wanted not in (None, given):
                raise ArithmeticError(f"Got invalid dimensions: got {given}, expected {wanted}\nand more")
        return Encoder().predict_on_batch(waveforms)


@pytest.fixture
def exported(tmp_path, monkeypatch):
    def load(batch, samples):
        (tmp_path / "m.onnx").write_bytes(b"")
        monkeypatch.setattr(runtimes, "_OnnxRunner", lambda path: Fixed(batch, samples))
        monkeypatch.setattr(np, "zeros", lambda shape, dtype: np.full(shape, 0.1, dtype))  # loud enough for a vector
        encoder = runtimes.Exported(tmp_path / "m.onnx")
        monkeypatch.undo()
        return encoder

    return load


def test_a_model_of_fixed_batch_gets_its_batch(exported):
    """MTG/essentia#1507."""
    waves = 0.1 * np.random.default_rng(0).normal(size=(5, 16_000)).astype(np.float32)
    free = exported(None, None).predict_on_batch(waves)
    for batch in (1, 2, 8):
        np.testing.assert_allclose(exported(batch, None).predict_on_batch(waves), free, rtol=1e-6)


def test_a_model_of_fixed_length_hears_all_of_a_recording_in_parts(exported):
    """wenet-e2e/wespeaker#391, Jamiroquai88/VBDiarization#21."""
    rng = np.random.default_rng(0)
    piece = 0.1 * rng.normal(size=(1, 16_000)).astype(np.float32)
    other = np.repeat(piece[:, ::4], 4, axis=1)
    encoder = exported(1, 16_000)
    one, two = (encoder.predict_on_batch(wave) for wave in (piece, other))
    np.testing.assert_allclose(encoder.predict_on_batch(np.tile(piece, 3)), one, rtol=1e-5)
    np.testing.assert_allclose(encoder.predict_on_batch(piece[:, :8000]), one, atol=0.02)
    both = encoder.predict_on_batch(np.concatenate([piece, other], axis=1))
    np.testing.assert_allclose(both, (one + two) / np.linalg.norm(one + two), rtol=1e-5)
    ends = np.concatenate([piece, piece[:, :100]], axis=1)  # the last 100 samples are heard too
    assert (encoder.predict_on_batch(ends) != one).any()
    vectors = embedding.embed(encoder, [16_000, 48_000], [np.int16(piece[0] * 9000)].__mul__(2).__getitem__)
    assert vectors.shape == (2, 2)


def test_a_real_file_of_fixed_shape(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(0).normal(size=(8000, 3)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["waveform", "weights"], ["vector"])
    ends = [
        onnx.helper.make_tensor_value_info(n, 1, shape) for n, shape in (("waveform", [2, 8000]), ("vector", [2, 3]))
    ]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, "weights")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    waves = np.random.default_rng(1).normal(size=(3, 8000)).astype(np.float32)
    encoder = pretrained.load(tmp_path / "m.onnx")
    np.testing.assert_allclose(encoder.predict_on_batch(waves), waves @ weights, rtol=1e-3, atol=1e-3)
    lengths = [8000, 20_000, 3000]
    vectors = embedding.embed(encoder, lengths, lambda row: np.int16(9000 * np.resize(waves[row] / 4, lengths[row])))
    assert vectors.shape == (3, 3) and np.isfinite(vectors).all()


def test_a_model_that_fails_at_another_length_says_so(exported):
    encoder = exported(None, None)
    encoder._run.shape = (None, 16_000)  # as of a graph that reshapes within
    with pytest.raises(RequestError, match=r"m\.onnx: takes no 16001 samples of 1 recording\(s\) at once \(Got"):
        encoder.predict_on_batch(np.full((1, 16_001), 0.1, np.float32))


def test_shapes_of_files():
    assert runtimes._fixed(["batch", "samples"]) == runtimes._fixed(np.array([-1, -1])) == (None, None)
    assert runtimes._fixed([1, 48_000]) == (1, 48_000) and runtimes._fixed([None, 200]) == (None, 200)
    with pytest.raises(ValueError, match="3 axes"):
        runtimes._fixed([1, 80, 200])


def put(path, lines):
    path.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    return str(path)


def scored(capsys, *arguments):
    code = score.main(list(map(str, arguments)))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(("dtype", "length"), [("f2", 400), ("f4", 1e20), ("f8", 1e200), ("f4", 1e-30)])
def test_embeddings_of_any_precision_and_length_are_scored(tmp_path, capsys, dtype, length):
    """pytorch/pytorch#69512: cosines of float16 are 0, as their squares have no number."""
    rng = np.random.default_rng(0)
    unit = np.repeat(rng.normal(size=(4, 8)), 2, axis=0) + 0.1 * rng.normal(size=(8, 8))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    ids = [f"{speaker}/{number}" for speaker in "abcd" for number in "12"]
    np.savez(tmp_path / "E.npz", paths=np.array(ids), embeddings=(unit * length).astype(dtype))
    lines = [(1, f"{s}/1", f"{s}/2") for s in "abcd"] + [(0, "a/1", "b/1"), (0, "c/1", "d/2")]
    code, said, _ = scored(capsys, tmp_path / "E.npz", put(tmp_path / "list.txt", lines), "--json")
    assert code == 0 and json.loads(said)["eer"] == 0
    assert score_files.read_embeddings(str(tmp_path / "E.npz"))[1].dtype.itemsize >= 4


TRIALS = [(1, "a/1", "a/2", 0.9), (1, "b/1", "b/2", 0.7), (0, "a/1", "b/1", 0.8), (0, "a/2", "b/2", 0.1)]


def test_scores_that_fall_where_voices_are_alike_are_told(tmp_path, capsys):
    lines = [(label, enrol, test, -value) for label, enrol, test, value in TRIALS[:2] + TRIALS[3:]]
    _, said, _ = scored(capsys, put(tmp_path / "distances.txt", lines))
    assert "note: an EER of 100 %: the scores are lower where the voices are the same, as distances are" in said


def test_numeric_ids_are_no_scores(tmp_path, capsys):
    number = {"a/1": 101, "a/2": 102, "b/1": 201, "b/2": 202}
    listed = put(tmp_path / "list.txt", [(label, number[e], number[t]) for label, e, t, _ in TRIALS])
    for form in ((1, 2, 3), (3, 1, 2)):
        lines = [[number.get(line[place], line[place]) for place in form] for line in TRIALS]
        code, said, _ = scored(capsys, put(tmp_path / "scores.txt", lines), listed, "--json")
        assert code == 0 and json.loads(said)["eer"] == 0.5


def test_the_scores_that_a_profile_writes_are_taken(tmp_path, capsys):
    rows = [(label, e, t, f"{value:.9g}", 0.1, 0.2, 0.3, 0.4) for label, e, t, value in TRIALS]
    rows[0] = (1, '"ann, lee/1"', "a/2", 0.9, 0, 0, 0, 0)
    text = "label,enrol,test,score,llr,as_norm,as_norm_llr,qmf_llr\n" + "".join(
        ",".join(map(str, r)) + "\n" for r in rows
    )
    (tmp_path / "scores_own.csv").write_text(text)
    given, scores = score_files.read_scores(str(tmp_path / "scores_own.csv"))
    assert given.enrol[0] == "ann, lee/1" and scores.tolist() == [0.9, 0.7, 0.8, 0.1]
    assert given.labels.tolist() == [1, 1, 0, 0] and given.line(0) == 2


def test_no_error_of_two_speakers_leaves_nearly_everything_open(tmp_path, capsys):
    lines = [(label, e, t, label) for label, e, t, _ in TRIALS]
    _, said, _ = scored(capsys, put(tmp_path / "perfect.txt", lines))
    assert "EER 0.00 % (95 % interval over 2 speakers: 0.00 - 84.19 %)" in said and "no error was made" in said


def test_a_report_gives_no_interval_without_width():
    """Two test speakers that are told apart: [0.00, 0.00] would claim to know what nobody knows."""
    ends = {"eer_low": [0.0, 0.0, 0.01, 0.01], "eer_high": [0.0, 0.0, 0.04, 0.04], "eer": [0.0, 0.0, 0.02, 0.03]}
    results = pd.DataFrame(
        {"model": ["a@seed1", "a@seed2", "b@seed1", "b@seed2"], "list": "own", "loss": "aam", **ends}
    )
    results = results.assign(n_speakers=2, n_target=4, n_nontarget=4)
    table = tables.over_seeds(results)
    assert table["95 % interval"].tolist() == ["", "[1.00, 4.00]"]
    assert table["EER %, mean [least, greatest]"].tolist() == ["0.00", "2.50 [2.00, 3.00]"]


def test_lists_with_the_label_last_and_names_with_blanks_are_judged(tmp_path, capsys):
    """kaldi-asr/kaldi#1014: `enrol test target`."""
    words = {1: "target", 0: "nontarget"}
    quoted = {"a/1": '"a b/1"', "a/2": '"a b/2"'}
    lines = [(quoted.get(e, e), quoted.get(t, t), words[label]) for label, e, t, _ in TRIALS]
    scores = [(value, quoted.get(e, e), quoted.get(t, t)) for _, e, t, value in TRIALS]
    code, said, _ = scored(capsys, put(tmp_path / "s.txt", scores), put(tmp_path / "list.txt", lines), "--json")
    assert code == 0 and json.loads(said)["n_speakers"] == 2


def test_escape_sequences_in_names_do_not_reach_the_terminal(root, capsys):
    assert run(root, "gone\x1b.wav\n") == 2  # is binary: no list has such
    assert run(root, "gone\u202e.wav\n\x9b31m.wav\n") == 2
    said = capsys.readouterr()
    assert "gone\\u202e.wav" in said.err and "\\x9b31m.wav" in said.err
    assert not [sign for sign in said.err + said.out if not sign.isprintable() and sign != "\n"]
    assert progress.Progress("anna\x1b[2J", "files").line(1.0).startswith("anna\\x1b[2J ")
    assert errors._say("x", "a\x1bb", 2) == 2 and capsys.readouterr().err == "x: a\\x1bb\n"


SIDES = [Side(np.ones(2, np.float32), Conditions(5.0, 8000.0, 40.0, 0.0, 0.0, 0.1))]


@pytest.mark.parametrize("name", ["", "  ", "a\tb", "a\x1b[2J", "\udcfc", "a\u202eb", "a" * 101])
def test_names_that_no_voice_can_have(name):
    with pytest.raises(RequestError, match="is no name; give up to 100 printable characters"):
        enrolment.Voices().add("m", "f", name, SIDES)


def test_a_recording_in_the_place_of_the_name_is_told():
    with pytest.raises(RequestError, match=r"a\.wav is a recording; the name of its voice comes first: enrol NAME"):
        enrolment.enrol("a.wav", ["b.wav"])


def test_two_spellings_of_a_name_are_one_voice(tmp_path):
    for name in ("Jos\xe9  Lee", " Jose\u0301 Lee "):
        count = enrolment.add(tmp_path / "voices.npz", "m", "f", name, SIDES)
    assert count == 2 and list(enrolment.read(tmp_path / "voices.npz").counts) == ["Jos\xe9 Lee"]
    enrolment.delete(tmp_path / "voices.npz", "Jose\u0301 Lee")
    assert not enrolment.read(tmp_path / "voices.npz").counts
