"""Exports: the Keras model's embeddings in other runtimes, by the examples of a README; what fails is not left."""

import functools
import json
import re
import shutil
import wave
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from sv_utils import export
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import embedding, encoders, exports, pretrained, runtimes
from sv_utils.models.backbones import redimnet
from sv_utils.models.pretrained import speechbrain

TINY = {"backbone": "resnet18", "width": 4, "stem": "imagenet", "embedding_dim": 8}


def write(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 3000, round(16_000 * seconds)).astype(np.int16)


@pytest.fixture(scope="module")
def litert(tmp_path_factory):
    """A folder with model.keras and what became of it."""
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("litert")
    encoders.build(n_mels=20, **TINY).save(folder / "model.keras")
    file, found = exports.export(folder / "model.keras", "litert")
    assert file == folder / "model.tflite"
    return folder, found


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    """The same with the other front end."""
    for package in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("onnx")
    encoders.build("spectrogram", **TINY).save(folder / "model.keras")
    return folder, exports.export(folder / "model.keras", "onnx")[1]


@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_a_float_export_gives_the_models_embeddings_for_any_length(kind, request):
    folder, found = request.getfixturevalue(kind)
    assert (
        found["cosine"] >= 0.9999 and not found["int8"] and found["sha256"] == runtimes.sha256(folder / "model.keras")
    )
    file = folder / f"model{exports.SUFFIXES[kind]}"
    assert json.loads((folder / f"{file.name}.json").read_text()) == found
    model, written = encoders.load(folder / "model.keras"), pretrained.load(file)
    assert written.output_shape == model.output_shape == (None, 8)
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 1.0, 1.0, 2.00006, 70.0))]
    both = [embedding.embed(one, [len(s) for s in sounds], sounds.__getitem__) for one in (model, written)]
    np.testing.assert_allclose(np.sum(np.multiply(*both), axis=1), 1, atol=1e-4)
    assert np.float32(1e-40) * np.float32(0.5) > 0, "the process computes with subnormal numbers as before"


@pytest.mark.parametrize(("kind", "package"), [("litert", "ai_edge_litert"), ("onnx", "tf2onnx")])
def test_what_the_formats_lack_is_computed_otherwise(kind, package, tmp_path):
    """A spectrum of 400 samples (SpeechBrain's, GE2E's) LiteRT, and GELU (ReDimNet2's) the converter to ONNX."""
    pytest.importorskip(package)
    waveform = keras.Input((None,), name="waveform")
    bands = speechbrain.DecibelMel(20)(waveform)
    curved = keras.layers.Activation("gelu")(redimnet._gelu(bands / 20) + 1)
    model = keras.Model(waveform, keras.layers.GlobalAveragePooling1D()(curved))
    exports.write(model, kind, tmp_path / f"model{exports.SUFFIXES[kind]}")
    sound = (noise(1.0)[None] / 32768).astype("float32")
    found = runtimes.Exported(tmp_path / f"model{exports.SUFFIXES[kind]}").predict_on_batch(sound)
    np.testing.assert_allclose(found, np.asarray(model(sound)), atol=1e-4)


@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_the_readmes_example_runs_the_export(kind, request, tmp_path, monkeypatch):
    folder, _ = request.getfixturevalue(kind)
    text = (paths.REPO / "sv_utils/models/README.md").read_text("utf-8")
    (code,) = re.findall(rf"<!-- example {kind} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert code.count("\n") <= 15
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / f"model{exports.SUFFIXES[kind]}", f"campplus{exports.SUFFIXES[kind]}")
    write("voice.wav", noise(1.5))
    scope = {}
    exec(code, scope)
    expected = embedding.embed(encoders.load(folder / "model.keras"), [24_000], lambda _: noise(1.5))[0]
    np.testing.assert_allclose(scope["vector"], expected, atol=1e-3)


def test_int8_is_judged_on_a_list_and_hears_the_front_end_exactly(litert, tmp_path):
    folder, _ = litert
    for speaker in "ab":
        (tmp_path / speaker).mkdir()
        for number in range(3):
            write(tmp_path / speaker / f"{number}.wav", noise(1, number) + 2000 * (speaker == "a"))
    lines = [f"1 {s}/0.wav {s}/{n}.wav" for s in "ab" for n in (1, 2)] + ["0 a/0.wav b/0.wav", "0 a/1.wav b/1.wav"]
    (tmp_path / "trials.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "small.tflite"
    _, found = exports.export(
        folder / "model.keras",
        "litert",
        out,
        True,
        functools.partial(export.compared, trial_list=tmp_path / "trials.txt", root=tmp_path),
    )
    assert found["n_speakers"] == 2 and found["n_trials"] == 6 and found["list"] == "trials.txt"
    assert found["cosine"] > 0.95 and len(found["eer_change"]) == 3
    assert out.stat().st_size < (folder / "model.tflite").stat().st_size
    assert "EER" in export.text(out, found)


class Level:
    """An encoder that tells quiet from loud by so much: a right angle, or nothing."""

    output_shape = (None, 2)

    def __init__(self, angle):
        self.angle = angle

    def predict_on_batch(self, waves):
        angles = self.angle * (waves.mean(axis=1) > 0.03)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_change_of_the_error_rate_is_that_of_what_was_written(tmp_path):
    for speaker in "ab":
        (tmp_path / speaker).mkdir()
        for number in range(2):
            write(tmp_path / speaker / f"{number}.wav", np.full(9000, 2000 * (speaker == "a")))
    lines = ["1 a/0.wav a/1.wav", "1 b/0.wav b/1.wav", "0 a/0.wav b/0.wav", "0 a/1.wav b/1.wav"]
    (tmp_path / "trials.txt").write_text("\n".join(lines) + "\n")
    found = export.compared(Level(0), Level(np.pi / 2), tmp_path / "trials.txt", tmp_path)
    assert found["eer"] == [0.5, 0.0] and found["eer_change"][0] == 0.5


def test_without_a_list_both_are_judged_on_the_test_voices_of_mini(tmp_path, monkeypatch):
    """The names of its list lack the first folder of the archive."""
    with zipfile.ZipFile(tmp_path / "voices.zip", "w") as archive:
        for name, level in (("a/0", 2000), ("a/1", 2000), ("b/0", 0), ("b/1", 0)):
            write(tmp_path / "one.wav", np.full(9000, level))
            archive.write(tmp_path / "one.wav", f"mini/{name}.wav")
    lines = ["1 a/0.wav a/1.wav", "1 b/0.wav b/1.wav", "0 a/0.wav b/0.wav", "0 a/1.wav b/1.wav"]
    (tmp_path / "mini.txt").write_text("\n".join(lines) + "\n")
    listed = SimpleNamespace(list_path=lambda name: tmp_path / f"{name}.txt")
    monkeypatch.setattr(export.corpora, "get", lambda name: listed if name == "mini" else None)
    monkeypatch.setattr(exports, "test_voices", lambda: zipfile.ZipFile(tmp_path / "voices.zip"))
    found = export.compared(Level(np.pi / 2), Level(0))
    assert found["eer"] == [0.0, 0.5] and (found["list"], found["n_speakers"], found["n_trials"]) == ("mini.txt", 2, 4)
    for text in ("1 a b\n0 c d\n", "a/0.wav a/1.wav\n"):
        (tmp_path / "mini.txt").write_text(text)
        with pytest.raises(RequestError, match=r"mini\.txt: labels, and ids that begin with the speaker, are needed"):
            export.compared(Level(0), Level(0))


def test_what_an_export_found_is_told_in_words():
    found = {"megabytes": 7.25, "cosine": 0.99951, "int8": False, "eer": [0.031, 0.03], "list": "mini.txt"}
    found |= {"n_speakers": 18, "n_trials": 7000, "eer_change": [0.001, -0.002, 0.004]}
    first = "a.onnx: 7.2 MB, least cosine with the Keras model's embeddings 0.999510"
    assert export.text("a.onnx", found) == first
    assert export.text("a.onnx", found | {"int8": True}) == (
        f"{first}\nEER 3.10% instead of 3.00% on mini.txt (18 speakers, 7,000 trials): +0.10 points [-0.20, +0.40]"
    )


def test_what_fails_its_check_is_not_left_behind(litert, tmp_path, monkeypatch):
    folder, _ = litert
    out = tmp_path / "out.tflite"
    monkeypatch.setattr(exports, "_write_litert", lambda model, path, int8: shutil.copy(folder / "model.tflite", path))
    monkeypatch.setattr(exports, "LEAST_COSINE", 1.1)
    with pytest.raises(WorkError, match=r"out\.tflite is not written.*converter is at fault"):
        exports.export(folder / "model.keras", "litert", out)
    monkeypatch.setattr(export, "compared", lambda *_: {"eer": [0.2, 0.1], "eer_change": [0.1, 0, 1], "list": "l"})
    with pytest.raises(WorkError, match=r"int8 raises the equal error rate from 10\.00% to 20\.00% on l"):
        exports.export(folder / "model.keras", "litert", out, True, export.compared)
    monkeypatch.setattr(exports, "_write_litert", lambda *_: 1 / 0)
    with pytest.raises(WorkError, match="cannot be converted to litert"):
        exports.export(folder / "model.keras", "litert", out)
    assert list(tmp_path.iterdir()) == []


def test_the_fast_form_is_that_of_this_very_model(litert, tmp_path):
    folder, _ = litert
    assert runtimes.fast_form(folder / "model.keras") == folder / "model.tflite"
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    encoders.build(n_mels=20, **TINY).save(tmp_path / "model.keras")  # trained again
    assert runtimes.fast_form(tmp_path / "model.keras") is None
    assert runtimes.fast_form(tmp_path / "absent.keras") is None


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    assert export.main(["campplus", "--to", "onnx"]) == 2
    message = capsys.readouterr().err
    assert "pip install onnx onnxruntime tf2onnx" in message and message.count("\n") == 1
    assert not runtimes.can_be_fast()


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_a_file_that_is_no_encoder_is_one_sentence(suffix, tmp_path):
    pytest.importorskip(runtimes.RUNTIMES[suffix].replace("-", "_"))
    with pytest.raises(RequestError, match="there is no such model file"):
        pretrained.load(tmp_path / f"absent{suffix}")
    (tmp_path / f"bad{suffix}").write_bytes(b"\x00" * 8 + b"no model" * 99)
    with pytest.raises(RequestError, match="not an encoder that takes any waveform"):
        pretrained.load(tmp_path / f"bad{suffix}")


def test_wrong_requests_are_one_sentence(litert, tmp_path):
    folder, _ = litert
    with pytest.raises(RequestError, match="no format 'torch'"):
        exports.export("campplus", "torch")
    with pytest.raises(RequestError, match="is an export itself"):
        exports.export(folder / "model.tflite", "litert")
    with pytest.raises(RequestError, match=r"ends in \.tflite"):
        exports.export(folder / "model.keras", "litert", tmp_path / "model.onnx")
    with pytest.raises(RequestError, match="there is no such model file"):
        exports.export(tmp_path / "absent.keras", "litert")
