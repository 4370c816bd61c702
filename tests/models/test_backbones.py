"""
Backbones: sizes and costs as published, layers against NumPy, any duration.

``python test_backbones.py`` prints the sizes and costs, as the table of ``parity/README.md`` has them.
"""

import keras
import numpy as np
import pytest
from keras import ops

from sv_utils.base.errors import RequestError
from sv_utils.models import complexity, encoders
from sv_utils.models.backbones import eres2net, normalization, redimnet, resnet
from sv_utils.models.backbones.ecapa import ecapa_tdnn
from sv_utils.models.backbones.resnet import ResNet, SimAM
from sv_utils.models.features import SpecAugment

ORIGINAL = {"front_end": "spectrogram", "deltas": True, "pooling": "average", "embedding_dim": 512}
ORIGINAL |= {"width": 64, "stem": "imagenet", "embedding_activation": "tanh", "spectrogram": "linear"}
ATTENTIVE = {"pooling": "attentive", "embedding_dim": 192}
THIN = {"stem": "thin", "embedding_dim": 256, "batch_normalization": "none"}
PUBLISHED = {  # settings, and millions of parameters and of multiplications for 2 s
    "ECAPA-TDNN 512": ({"backbone": "ecapa", "width": 512, **ATTENTIVE}, 6.19, 1040),  # by wespeaker
    "ECAPA-TDNN 1024": ({"backbone": "ecapa", "width": 1024, **ATTENTIVE}, 14.65, 2650),
    # 1.15 G, with masks computed at each of 100 frames; here once a segment: 52 x 100 x (128 x 64 + 64 x 32) less
    "CAM++": ({"backbone": "campplus", "embedding_dim": 512}, 7.18, 1150 - 53),
    "ResNet-34": ({"backbone": "resnet34", **THIN}, 6.63, 4550),
    "ResNet-221": ({"backbone": "resnet221", **THIN}, 23.79, 21290),
    "ResNet-293": ({"backbone": "resnet293", **THIN}, 28.62, 28100),
    "ERes2NetV2": ({"backbone": "eres2netv2", "width": 64, "embedding_dim": 192}, 17.8, 12690 * 2 / 3),  # of 3 s
    **{  # by their authors, who leave further digits out
        f"ReDimNet2-B{size}": ({"backbone": f"redimnet2_b{size}", "n_mels": 72, **ATTENTIVE}, *counts)
        for size, counts in enumerate(
            [(1.1, 330), (2.1, 560), (3.6, 950), (4.1, 2700), (6.6, 4620), (8.9, 9620), (12.3, 13050)]
        )
    },
}
SHORT = ("ECAPA-TDNN 512", "ReDimNet2-B0", "ReDimNet2-B2")


def parameters(model):
    """Trainable parameters in millions."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables) / 1e6


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in PUBLISHED]
)
def test_size_and_cost_are_those_published(name):
    settings, millions, multiplications = PUBLISHED[name]
    model = encoders.build(**settings)
    assert parameters(model) == pytest.approx(millions, rel=0.04)
    assert complexity.multiply_accumulates(model, 32_000) / 1e6 == pytest.approx(multiplications, rel=0.04)


@pytest.mark.parametrize(("backbone", "millions"), [("resnet18", 12), ("resnet34", 22), ("resnet50", 26)])
def test_the_originals_encoders_are_about_as_large_as_it_says(backbone, millions):
    assert parameters(encoders.build(backbone=backbone, **ORIGINAL)) == pytest.approx(millions, rel=0.06)


COLLECTION = {18: ((2, 2, 2, 2), 11_186_889), 34: ((3, 4, 6, 3), 21_302_473)}  # of classification_models 1.0.0


@pytest.mark.parametrize("depth", COLLECTION)
def test_preactivation_layer_by_layer_as_in_the_collection_that_the_original_took_it_from(depth):
    """Shapes of all weights, in the order of the source; with equal weights both gave equal maps (once, by hand)."""
    blocks, count = COLLECTION[depth]
    expected, channels = [(3,)] * 3 + [(7, 7, 3, 64)] + [(64,)] * 4, 64  # the input's normalisation has no gamma
    for stage, repeated in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(repeated):
            expected += [(channels,)] * 4 + [(3, 3, channels, width)] + [(width,)] * 4 + [(3, 3, width, width)]
            expected += [(1, 1, channels, width)] if block == 0 else []  # the shortcut
            channels = width
    expected += [(512,)] * 4
    maps = keras.Input((None, 128, 3))
    model = keras.Model(maps, ResNet(depth, 64, "imagenet", preactivation=True)(maps))
    assert [tuple(weight.shape) for layer in model.layers for weight in layer.weights] == expected
    assert model.count_params() == sum(int(np.prod(shape)) for shape in expected) == count
    assert isinstance(model.layers[1], keras.layers.BatchNormalization)
    assert isinstance(model.layers[-1], keras.layers.ReLU)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(layer.momentum, layer.epsilon) for layer in normalizations} == {(0.99, 2e-5)}
    assert model.compute_output_shape((1, 300, 128, 3)) == (1, 10, 4, 512)


def test_preactivation_with_attention_and_bottlenecks():
    maps = keras.Input((None, 16, 1))
    model = keras.Model(maps, ResNet(50, 2, "thin", simam=True, squeeze_excitation=False, preactivation=True)(maps))
    assert np.asarray(model(np.ones((1, 9, 16, 1), "float32"))).shape == (1, 2, 2, 64)
    assert sum(isinstance(layer, SimAM) for layer in model.layers) == 16


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"backbone": "resnet18"}, ["embedding", "embedding_normalization"]),
        ({"backbone": "resnet18", "batch_normalization": "none"}, ["embedding"]),
        ({"backbone": "resnet18", "batch_normalization": "pooling"}, ["pooling_normalization", "embedding"]),
        ({"backbone": "ecapa"}, ["pooling_normalization", "embedding", "embedding_normalization"]),
        ({"backbone": "redimnet2_b0"}, ["pooling_normalization", "embedding"]),
        ({"backbone": "ecapa", "batch_normalization": "embedding"}, ["embedding", "embedding_normalization"]),
    ],
)
def test_what_is_normalised_over_the_batch_behind_the_backbone(settings, named):
    """As the authors have it: ECAPA's figure 2 (speechbrain: `asp_bn`); ReDimNet2's `bn`, with `emb_bn` false."""
    model = encoders.build(width=8, n_mels=24, embedding_dim=4, stem="imagenet", **settings)
    assert [layer.name for layer in model.layers[-len(named) - 1 :]] == [*named, "unit_vectors"]
    (layer,) = (layer for layer in model.layers if layer.name == "embedding")
    assert (layer.use_bias, layer.activation.__name__) == (True, "linear")
    normalizations = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert {x.momentum for x in normalizations} == {0.9}, "of a momentum of 0.1, as PyTorch counts it"
    assert {x.epsilon for x in normalizations} <= {1e-5, 1e-6}


def test_the_originals_embedding_is_a_tanh_without_bias_before_the_normalisation():
    model = encoders.build(backbone="resnet18", **ORIGINAL | {"width": 2, "embedding_dim": 4, "preactivation": True})
    dense, normalization = model.layers[-3:-1]
    assert (dense.use_bias, dense.activation.__name__, normalization.name) == (False, "tanh", "embedding_normalization")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"spectrogram": "lin"}, r"spectrogram: there is no 'lin' \(did you mean 'linear'"),
        ({"embedding_activation": "relu"}, "embedding_activation: there is no 'relu'"),
        ({"batch_normalization": "all"}, "batch_normalization: there is no 'all'"),
    ],
)
def test_names_of_variants_that_do_not_exist_are_refused(setting, sentence):
    with pytest.raises(RequestError, match=sentence):
        encoders.build(**setting)


@pytest.mark.parametrize("backbone", ["ecapa", "redimnet2_b0"])
def test_any_duration(backbone):
    model = encoders.build(backbone=backbone, width=16, n_mels=24, embedding_dim=16)
    for samples in (160, 5 * 160, 16_000 + 160, 40_123):
        waveforms = np.random.default_rng(0).standard_normal((2, samples)).astype("float32")
        np.testing.assert_allclose(np.linalg.norm(np.asarray(model(waveforms)), axis=1), 1, rtol=1e-5)


def test_bands_that_redimnet_cannot_merge_are_refused():
    with pytest.raises(RequestError, match="redimnet2_b2 takes a multiple of 12"):
        encoders.build(backbone="redimnet2_b2", n_mels=80)


def test_simam_against_numpy():
    maps = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype("float32")
    deviation = (maps - maps.mean(axis=(1, 2), keepdims=True)) ** 2
    energy = deviation / (4 * (maps.var(axis=(1, 2), ddof=1, keepdims=True) + 1e-4)) + 0.5
    np.testing.assert_allclose(np.asarray(SimAM()(maps)), maps / (1 + np.exp(-energy)), rtol=1e-5)


def test_spec_augment_masks_one_run_of_frames_and_of_bins_in_training_only():
    keras.utils.set_random_seed(0)
    layer, features = SpecAugment(frames=5, bins=3), np.ones((200, 20, 8), "float32")
    np.testing.assert_array_equal(np.asarray(layer(features)), features)
    masked = np.asarray(layer(features, training=True))
    for axis, widest in ((2, 5), (1, 3)):
        heard = masked.max(axis=axis)  # over the bins, or the frames
        widths = (heard == 0).sum(axis=1)
        assert set(widths) == set(range(widest + 1))
        for row in heard[widths > 1]:
            assert (np.diff(np.flatnonzero(row == 0)) == 1).all(), "one run"
        firsts = [int(np.flatnonzero(row == 0)[0]) for row in heard[widths == 1]]
        assert min(firsts) == 0 and max(firsts) == heard.shape[1] - 1, "all places"
    assert (np.asarray(layer(features, training=True)) != masked).any()
    keras.utils.set_random_seed(0)
    again = SpecAugment(frames=5, bins=3)
    np.testing.assert_array_equal(np.asarray(again(features, training=True)), masked)


def test_an_encoder_masks_in_training_and_not_afterwards():
    keras.utils.set_random_seed(0)
    model = encoders.build(masked_frames=30, masked_bins=6, backbone="resnet18", width=8, stem="imagenet", n_mels=24)
    waveform = np.random.default_rng(0).standard_normal((1, 16_000)).astype("float32")
    np.testing.assert_array_equal(np.asarray(model(waveform)), np.asarray(model(waveform)))
    (layer,) = (layer for layer in model.layers if isinstance(layer, SpecAugment))
    assert (layer.frames, layer.bins) == (30, 6)
    first, second = (np.asarray(layer(np.ones((1, 100, 24), "float32"), training=True)) for _ in range(2))
    assert (first != second).any()


# ReDimNet2's layers


def test_merged_patches_against_a_loop():
    maps = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype("float32")
    layer = redimnet.MergedPatches(2, 3, 5)
    merged = np.asarray(layer(maps))
    kernel, bias = (np.asarray(v) for v in layer.weights)
    assert merged.shape == (2, 2, 2, 15)
    for t, f, c, m in np.ndindex(2, 2, 3, 5):
        patch = maps[:, 2 * t : 2 * t + 2, 3 * f : 3 * f + 3, c]
        expected = (patch * kernel[:, :, c, m]).sum(axis=(1, 2)) + bias[5 * c + m]
        np.testing.assert_allclose(merged[:, t, f, 5 * c + m], expected, rtol=1e-4, atol=1e-5)


def test_weighted_sum_begins_as_the_mean():
    inputs = list(np.random.default_rng(0).standard_normal((3, 2, 5, 4)).astype("float32"))
    layer = redimnet.WeightedSum()
    np.testing.assert_allclose(np.asarray(layer(inputs)), np.mean(inputs, axis=0), atol=1e-6)
    layer.weight.assign(np.log([[[[1, 1, 1, 8]]], [[[1, 1, 1, 1]]], [[[2, 1, 1, 1]]]]))
    found = np.asarray(layer(inputs))
    np.testing.assert_allclose(found[..., 0], (inputs[0] + inputs[1] + 2 * inputs[2])[..., 0] / 4, atol=1e-6)
    np.testing.assert_allclose(found[..., 3], (8 * inputs[0] + inputs[1] + inputs[2])[..., 3] / 10, atol=1e-6)


def test_self_attention_against_numpy():
    x = np.random.default_rng(0).standard_normal((1, 7, 8)).astype("float32")
    layer = redimnet.SelfAttention(2)
    found = np.asarray(layer(x))[0]
    weights = [np.asarray(v, "float64") for v in layer.weights]
    query, key, value = (x[0] @ weights[2 * i] + weights[2 * i + 1] for i in range(3))
    heard = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = np.exp(query[:, part] @ key[:, part].T / 2)
        heard.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, part])
    np.testing.assert_allclose(found, np.concatenate(heard, axis=1) @ weights[6] + weights[7], rtol=1e-4, atol=1e-5)


def test_frames_are_filled_up_and_none_is_lost():
    maps = np.ones((1, 5, 2, 1), "float32")
    assert np.asarray(redimnet.FullStrides(4)(maps))[0, :, 0, 0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert redimnet.FullStrides(4)(maps[:, :4]).shape == (1, 4, 2, 1)


def test_ecapa_hears_two_frames_per_step_of_dilation_and_part():
    """A block of dilation d with 8 parts reaches 7 d frames to each side; the first layer 2: 2 + 7 (2 + 3 + 4) = 65."""
    features = keras.Input((None, 4, 1))
    model = keras.Model(features, ecapa_tdnn(features, 64))
    sums = sum(isinstance(layer, keras.layers.Add) for layer in model.layers)
    assert sums == 3 * (6 + 1) + 2, "of parts, around each block, and of all that came before: the paper's own"
    for layer in model.layers:
        if "global_average_pooling1d" in layer.name:  # would let every frame hear all
            layer.call = lambda x, **_: keras.ops.zeros_like(x[:, 0])
    x = np.random.default_rng(0).standard_normal((1, 201, 4, 1)).astype("float32")
    changed = x.copy()
    changed[0, 100] += 30 * np.random.default_rng(1).standard_normal((4, 1))
    differs = np.abs(np.asarray(model(x)) - np.asarray(model(changed)))[0, :, 0].max(axis=1) > 0
    first, last = np.flatnonzero(differs)[[0, -1]]
    assert 35 <= first < 45 and 155 < last <= 165, "at the ends a path may be shut by its ReLU"


def test_two_maps_are_fused_by_a_gate_between_them():
    """Where the gate is 0, their sum; where it is tanh(1): 1.76 times the first and 0.24 times the second."""
    first, second = keras.Input((None, 2, 4)), keras.Input((None, 2, 4))
    model = keras.Model([first, second], eres2net._fused(first, second, "fuse"))
    one, other = np.full((1, 3, 2, 4), 3.0, "float32"), np.full((1, 3, 2, 4), 5.0, "float32")
    model.get_layer("fuse.local_att.4").gamma.assign(np.zeros(4))
    assert np.asarray(model([one, other])) == pytest.approx(np.full(one.shape, 8.0))
    model.get_layer("fuse.local_att.4").beta.assign(np.ones(4))
    gate = np.tanh(1.0)
    assert np.asarray(model([one, other])) == pytest.approx(np.full(one.shape, 3 * (1 + gate) + 5 * (1 - gate)))
    limited = keras.Model(first, eres2net._limited(first))
    assert np.asarray(limited(np.array([[[[-1.0, 5.0, 20.0, 30.0]] * 2]])))[0, 0, 0].tolist() == [0, 5, 20, 20]


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_is_kerass_own_but_faster(training):
    maps = np.random.default_rng(0).normal(2, 3, (4, 5, 6, 7)).astype(np.float32)
    weights = np.abs(np.random.default_rng(1).normal(size=(4, 7))).astype(np.float32)
    ours, keras_own = normalization.BatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for layer in (ours, keras_own):
        layer.build(maps.shape)
        layer.set_weights(list(weights))
    results = []
    for layer in (ours, keras_own):  # one step of plain gradient descent shows the gradients
        model = keras.Sequential([keras.Input(maps.shape[1:]), layer])
        model.compile(keras.optimizers.SGD(0.1), loss=lambda _, y: ops.mean(y**3))
        if training:
            model.train_on_batch(maps, maps)
        results.append([model.predict_on_batch(maps), *layer.get_weights()])
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert training != np.allclose(results[0][3], weights[2])
    np.testing.assert_allclose(  # by hand: the mean of the batch counts for a tenth
        results[0][3], weights[2] * 0.9 + maps.mean(axis=(0, 1, 2)) * 0.1 if training else weights[2], rtol=1e-5
    )


if __name__ == "__main__":
    for name, (settings, millions, multiplications) in PUBLISHED.items():
        model = encoders.build(**settings)
        found = parameters(model), complexity.multiply_accumulates(model, 32_000) / 1e9
        print(f"| {name} | {found[0]:.2f} | {millions:g} | {found[1]:.2f} | {multiplications / 1e3:.2f} |", flush=True)


def test_what_a_profile_says_of_a_resnet_reaches_it(monkeypatch):
    seen, said = [], {"width": 7, "stem": "imagenet", "preactivation": True, "squeeze_excitation": True, "simam": True}
    monkeypatch.setattr(resnet, "ResNet", lambda depth, **options: seen.append((depth, options)) or str)
    resnet.add("maps", {"backbone": "resnet50", **said})
    assert seen == [(50, said)]
