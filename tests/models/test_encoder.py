"""The encoder: sizes, any duration, pooling, unit vectors, embedding in batches, files."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.losses.aam import AamHead
from sv_utils.losses.adacos import AdaCosHead
from sv_utils.losses.contrastive import ContrastiveHead
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.losses.prototypes import AngularPrototypicalHead, Ge2eHead
from sv_utils.losses.softmax import SoftmaxHead
from sv_utils.losses.sphereface2 import SphereFace2Head
from sv_utils.models import embedding, encoders
from sv_utils.models.backbones import campplus, redimnet
from sv_utils.models.backbones.mobilenet import mobilenet_v2
from sv_utils.models.backbones.pooling import AttentivePooling, AveragePooling, StatisticsPooling
from sv_utils.models.backbones.resnet import ResNet, convolution, squeeze_excitation
from sv_utils.models.pretrained import ge2e

TINY = {"backbone": "resnet18", "width": 4, "stem": "imagenet", "n_mels": 40, "embedding_dim": 8}


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(1)
    return encoders.build(**TINY)


def speech(*lengths):
    rng = np.random.default_rng(0)
    return [(3000 * rng.standard_normal(length)).astype("int16") for length in lengths]


# Sizes: trainable parameters, and the published figures they stand for.


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({}, 6.63),  # the field's thin ResNet-34 with its embedding
        ({"backbone": "resnet18"}, 4.11),
        ({"squeeze_excitation": True}, 6.72),
        ({"width": 16}, 1.99),
    ],
)
def test_parameters_of_the_thin_encoders(settings, millions):
    model = encoders.build(**settings)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) / 1e6 == pytest.approx(millions, abs=0.005)
    assert model.output_shape == (None, 256)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032)])
def test_parameters_of_the_full_resnets(depth, parameters):
    """The counts of torchvision's networks without their classifier: 11.2, 21.3 and 23.5 million."""
    image = keras.Input((None, 64, 3))
    model = keras.Model(image, ResNet(depth, 64, "imagenet")(image))
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model.output_shape == (None, None, 2, 512 if depth < 50 else 2048)


def test_mobilenet():
    """2.26 million without classifier as in keras.applications; its BatchNormalization follows short trainings."""
    image = keras.Input((None, 64, 3))
    model = keras.Model(image, mobilenet_v2(image))
    assert model.count_params() == 2_257_984
    normalizations = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert {x.momentum for x in normalizations} == {0.9}
    assert model(np.zeros((1, 40, 64, 3), "float32")).shape == (1, 1, 2, 1280)


def test_the_original_mobilenet_with_its_embedding_and_the_speakers_of_voxceleb2():
    """2.26 million in the network, 0.66 in an embedding of 512, 3.07 in the weights of 5,994 speakers ("~5M")."""
    model = encoders.build("spectrogram", deltas=True, backbone="mobilenetv2", pooling="average", embedding_dim=512)
    assert model.count_params() - 2_257_984 == 1280 * 512 + 512 + 4 * 512
    head = AdaCosHead(5994)
    head.build((None, 512))
    assert model.count_params() + int(np.prod(head.weight.shape)) == 5_984_832


# Computation


def test_a_strided_1x1_convolution_takes_every_second_position():
    image = keras.Input((5, 6, 3))
    model = keras.Model(image, convolution(image, 4, 1, 2))
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype("float32")
    kernel = np.asarray(next(v for v in model.weights if "kernel" in v.path))[0, 0]
    expected = x[:, ::2, ::2] @ kernel / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(np.asarray(model(x)), expected, rtol=1e-5, atol=1e-6)


def test_a_strided_3x3_convolution_is_padded_on_both_sides():
    image = keras.Input((6, 6, 1))
    model = keras.Model(image, convolution(image, 1, 3, 2))
    kernel = next(v for v in model.weights if "kernel" in v.path)
    kernel.assign(np.ones((3, 3, 1, 1)))
    assert np.asarray(model(np.ones((1, 6, 6, 1), "float32")))[0, :, :, 0] == pytest.approx(
        np.array([[4, 6, 6], [6, 9, 9], [6, 9, 9]]), rel=1e-4
    )


def test_squeeze_excitation_with_zero_weights_halves():
    image = keras.Input((None, 4, 8))
    model = keras.Model(image, squeeze_excitation(image))
    for weight in model.weights:
        weight.assign(0 * weight)
    assert np.asarray(model(np.full((2, 3, 4, 8), 6.0, "float32"))) == pytest.approx(np.full((2, 3, 4, 8), 3.0))


def test_average_and_statistics_pooling():
    maps = np.array([[[[1.0], [10.0]], [[3.0], [10.0]]]], "float32")  # 2 frames, 2 bins, 1 channel
    assert np.asarray(AveragePooling()(maps)) == pytest.approx(np.array([[6.0]]))
    assert np.asarray(StatisticsPooling()(maps)) == pytest.approx(np.array([[2.0, 10.0, 1.0, 0.0]]), abs=1e-3)


def test_attentive_pooling_against_numpy():
    maps = np.random.default_rng(0).standard_normal((2, 7, 3, 2)).astype("float32")
    layer = AttentivePooling(hidden=5)
    pooled = np.asarray(layer(maps))
    w1, b1, w2, b2 = (np.asarray(v, "float64") for v in layer.weights)
    frames = maps.reshape(2, 7, 6).astype("float64")
    context = np.concatenate([frames.mean(1), np.sqrt(frames.var(1) + 1e-7)], -1)[:, None].repeat(7, 1)
    scores = np.exp(np.tanh(np.concatenate([frames, context], -1) @ w1 + b1) @ w2 + b2)
    attention = scores / scores.sum(1, keepdims=True)
    mean = (attention * frames).sum(1)
    deviation = np.sqrt((attention * (frames - mean[:, None]) ** 2).sum(1) + 1e-7)
    np.testing.assert_allclose(pooled, np.concatenate([mean, deviation], -1), rtol=1e-4, atol=1e-5)


def test_unit_vectors_and_their_gradient_at_zero():
    layer = encoders.UnitVectors()
    np.testing.assert_allclose(np.asarray(layer(np.array([[3.0, 4.0], [0.0, 0.0]], "float32"))), [[0.6, 0.8], [0, 0]])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False), layer])
    model.layers[0].kernel.assign(np.zeros((2, 2)))
    model.compile(keras.optimizers.SGD(1e-9), loss=lambda y, out: keras.ops.sum(out))
    model.train_on_batch(np.ones((1, 2), "float32"), np.zeros((1, 2), "float32"))
    assert np.isfinite(np.asarray(model.layers[0].kernel)).all()


@pytest.mark.parametrize("pooling", ["average", "statistics", "attentive"])
@pytest.mark.parametrize("front_end", ["mel", "spectrogram"])
def test_every_front_end_and_pooling_gives_unit_vectors(front_end, pooling):
    model = encoders.build(front_end, deltas=front_end == "spectrogram", pooling=pooling, **{**TINY, "width": 2})
    waveforms = np.stack(speech(12345, 12345)).astype("float32") / 32768
    np.testing.assert_allclose(np.linalg.norm(np.asarray(model(waveforms)), axis=1), 1, rtol=1e-5)
    for waveform in (waveforms[:, :160], 0 * waveforms):  # one frame, silence
        assert np.isfinite(np.asarray(model(waveform))).all()


@pytest.mark.parametrize("argument", ["front_end", "backbone", "stem", "pooling"])
def test_build_names_a_wrong_word(argument):
    with pytest.raises(RequestError, match=f"{argument}: there is no 'x'"):
        encoders.build(**{argument: "x"})


# Embedding


def test_embeddings_do_not_depend_on_their_neighbours(tiny):
    waveforms = speech(16000, 24000, 16100, 16000, 8000, 24000)
    read = []

    def reader(i):
        read.append(i)
        return waveforms[i]

    done = []
    together = embedding.embed(tiny, [len(w) for w in waveforms], reader, batch_size=2, progress=done.append)
    assert sorted(read) == [0, 1, 2, 3, 4, 5]
    assert (done[-1], together.dtype, together.shape) == (6, np.float32, (6, 8))
    for waveform, vector in zip(waveforms, together):
        alone = np.asarray(tiny(waveform[None].astype("float32") / 32768))[0]
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_many_durations_are_few_graphs(tiny):
    if keras.config.backend() != "tensorflow":
        pytest.skip("counts TensorFlow's graphs")
    waveforms = speech(*range(8000, 8000 + 160 * 12, 160))
    embedding.embed(tiny, [len(w) for w in waveforms], waveforms.__getitem__)
    assert tiny.predict_function.experimental_get_tracing_count() <= 3


def test_short_utterances_repeat(tiny):
    (short,) = speech(3000)
    embeddings = embedding.embed(tiny, [3000, 8000], [short, np.resize(short, 8000)].__getitem__)
    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-6)


def test_long_utterances_are_the_mean_of_their_parts(tiny, monkeypatch):
    monkeypatch.setattr(embedding, "LONGEST", 16000)
    (long,) = speech(40000)  # three parts of 13333 samples, 83 whole frames of each
    parts = np.stack([long[start : start + 13280] for start in (0, 13333, 26666)]).astype("float32") / 32768
    mean = np.asarray(tiny(parts)).mean(axis=0)
    done = []
    vector = embedding.embed(tiny, [40000], [long].__getitem__, batch_size=2, progress=done.append)[0]
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert done[-1] == 1


def test_an_empty_utterance_is_named(tiny):
    with pytest.raises(RequestError, match="utterance 1 has no samples"):
        embedding.embed(tiny, [8000, 0], speech(8000, 1).__getitem__)


# Files


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(RequestError, match="there is no such model file"):
        encoders.load(tmp_path / "none.keras")
    text = tmp_path / "text.keras"
    text.write_text("not a model")
    with pytest.raises(RequestError, match=r"text\.keras: not a Keras model"):
        encoders.load(text)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(RequestError, match=r"zip\.keras: not a Keras model"):
        encoders.load(tmp_path / "zip.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with pytest.raises(RequestError, match=r"maps \(None, 3\) to \(None, 2\)"):
        encoders.load(tmp_path / "dense.keras")


FRESH = """
import importlib, sys, keras, numpy as np
from sv_utils.models import encoders
for name in ("aam", "adacos", "contrastive", "cosface", "prototypes", "softmax", "sphereface2"):
    importlib.import_module("sv_utils.losses." + name)
importlib.import_module("sv_utils.models.pretrained.ge2e")
folder = sys.argv[1]
waveforms = np.load(folder + "/waveforms.npy")
for name in ("mel", "spectrogram", "thin", "ecapa", "redimnet", "original", "campplus", "ge2e"):
    np.save(f"{folder}/{name}.npy", np.asarray(encoders.load(f"{folder}/{name}.keras")(waveforms)))
heads = keras.saving.load_model(folder + "/heads.keras", compile=False)
outputs = heads(np.load(folder + "/vectors.npy"))
np.save(folder + "/heads.npy", np.concatenate([np.asarray(output) for output in outputs], axis=-1))
cosface, adacos = heads.get_layer("cosface"), heads.get_layer("adacos")
print(float(cosface.margin), float(adacos.scale), cosface.scale, adacos.dynamic, heads.get_layer("contrastive").margin)
print(heads.get_layer("aam").hard_margin, float(heads.get_layer("ge2e").weight))
"""


def test_saved_models_load_in_a_fresh_process(tmp_path, tiny, monkeypatch):
    """All registered classes with settings other than their defaults, and the state that they hold."""
    monkeypatch.setattr(campplus, "BLOCKS", ((1, 1), (1, 2), (1, 2)))  # of its 52 layers of one kind
    shallow = redimnet.SIZES["redimnet2_b0"]._replace(stages=redimnet._stages(*[12] * 6, blocks=(1,) * 6))
    monkeypatch.setitem(redimnet.SIZES, "redimnet2_b0", shallow)  # of its 21 blocks of one kind
    waveforms = np.stack(speech(4000, 4000)).astype("float32") / 32768
    np.save(tmp_path / "waveforms.npy", waveforms)
    models = {
        "mel": tiny,
        "spectrogram": encoders.build("spectrogram", deltas=True, pooling="average", **TINY),
        "thin": encoders.build(
            pooling="attentive",
            squeeze_excitation=True,
            simam=True,
            masked_frames=7,
            masked_bins=5,
            **{**TINY, "stem": "thin", "width": 8},
        ),
        "ecapa": encoders.build(**{**TINY, "backbone": "ecapa", "width": 8}),
        "redimnet": encoders.build(**{**TINY, "backbone": "redimnet2_b0", "n_mels": 24}),
        "original": encoders.build(
            "spectrogram", "linear", preactivation=True, embedding_activation="tanh", pooling="average", **TINY
        ),
        "campplus": encoders.build(**{**TINY, "backbone": "campplus"}),
        "ge2e": ge2e.build(),
    }
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")

    vectors = keras.Input((8,))
    heads = [
        SoftmaxHead(5, scale=3.0, name="softmax"),
        CosFaceHead(5, scale=7.0, margin=0.1, name="cosface"),
        AdaCosHead(5, dynamic=False, name="adacos"),
        ContrastiveHead(margin=0.3, name="contrastive"),
        AamHead(5, centres=3, hard_margin=0.06, name="aam"),
        SphereFace2Head(5, name="sphereface2"),
        Ge2eHead(name="ge2e"),
        AngularPrototypicalHead(name="prototypical"),
    ]
    model = keras.Model(vectors, [head(vectors) for head in heads])
    heads[1].margin.assign(0.25)
    heads[2].scale.assign(4.5)
    heads[6].weight.assign(2.5)
    model.save(tmp_path / "heads.keras")
    np.save(tmp_path / "vectors.npy", np.eye(8, dtype="float32"))

    said = subprocess.run([sys.executable, "-c", FRESH, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0.25", "4.5", "7.0", "False", "0.3", "0.06", "2.5"]
    for name, model_ in models.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), np.asarray(model_(waveforms)), atol=1e-5)
    expected = np.concatenate([np.asarray(x) for x in model(np.eye(8, dtype="float32"))], axis=-1)
    np.testing.assert_allclose(np.load(tmp_path / "heads.npy"), expected, atol=1e-5)


def test_unnormalised_vectors_point_where_the_unit_vectors_do(tiny):
    """Their lengths are the encoder's own; over 60 s they are averaged apart from the directions."""
    waves = speech(16_000, 61 * 16_000)
    raw_model = encoders.unnormalised(tiny)
    unit, raw = (embedding.embed(model, [len(w) for w in waves], waves.__getitem__) for model in (tiny, raw_model))
    lengths = np.linalg.norm(raw, axis=1)
    np.testing.assert_allclose(raw / lengths[:, None], unit, atol=2e-6)
    parts = [waves[0], waves[1][:488_000], waves[1][488_000:]]
    wanted = [np.linalg.norm(np.asarray(raw_model(part[None] / np.float32(32768)))) for part in parts]
    np.testing.assert_allclose(lengths, [wanted[0], (wanted[1] + wanted[2]) / 2], rtol=1e-4)
    assert encoders.unnormalised(object()) is None


class Mean:
    """An "encoder" that gives the mean and 1, as one of another runtime would."""

    output_shape = (None, 2)

    @staticmethod
    def heard(samples):
        return samples

    @staticmethod
    def predict_on_batch(waveforms):
        return np.stack([waveforms.mean(axis=1), np.ones(len(waveforms))], axis=1)


def test_floats_are_embedded_as_int16_is_and_what_is_no_recording_is_refused():
    samples = np.full(9000, 8192, np.int16)
    for given in (samples, samples / 32768, (samples / 32768).astype(np.float32)):
        found = embedding.embed(Mean(), [9000], [given].__getitem__)
        np.testing.assert_allclose(found, [[0.25, 1.0]], rtol=1e-6)
    bad = {"utterance 0 has the shape": np.zeros((9, 2)), "NaN": np.full(9, np.nan), "reaches 2": np.full(9, 2.0)}
    for said, given in (bad | {"of type int64": np.zeros(9, int)}).items():
        with pytest.raises(RequestError, match=said):
            embedding.embed(Mean(), [9], [given].__getitem__)


def test_an_encoder_that_holds_mere_operations_is_copied_to_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        waveform = keras.Input((None,))
        first, second = keras.ops.split(keras.layers.Reshape((-1, 4))(waveform), 2, axis=-1)  # as ECAPA-TDNN does
        x = keras.layers.Dense(3)(keras.layers.Add()([first, second]))
        model = keras.Model(waveform, keras.layers.GlobalAveragePooling1D()(x))
        copy = encoders.in_float32(model)
        assert keras.config.dtype_policy().name == "mixed_bfloat16", "what is built next is as before"
    finally:
        keras.config.set_dtype_policy(policy)
    assert [made.layers[-2].compute_dtype for made in (model, copy)] == ["bfloat16", "float32"]
    assert all(map(np.array_equal, model.get_weights(), copy.get_weights()))
