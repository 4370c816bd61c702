"""Every loss against a float64 reference: value, gradient, extreme cosines; and learning a batch by heart."""

import keras
import numpy as np
import pytest

from sv_utils.base.errors import RequestError
from sv_utils.losses.aam import AamHead, aam_loss
from sv_utils.losses.adacos import AdaCosHead, dynamic_scale, fixed_scale
from sv_utils.losses.contrastive import ContrastiveHead, contrastive_loss, similarity_matrix
from sv_utils.losses.cosface import CosFaceHead, cosface_loss
from sv_utils.losses.prototypes import AngularPrototypicalHead, Ge2eHead, angular_prototypical_loss, ge2e_loss
from sv_utils.losses.softmax import SoftmaxHead, softmax_loss
from sv_utils.losses.sphereface2 import SphereFace2Head, sphereface2_loss
from sv_utils.models import encoders
from sv_utils.models.backbones.pooling import StatisticsPooling
from sv_utils.models.backbones.resnet import convolution
from sv_utils.models.encoders import UnitVectors
from sv_utils.models.features import InstanceNormalization, LogMel
from sv_utils.training.speaker_model import SpeakerModel

EMBEDDERS = ContrastiveHead, Ge2eHead, AngularPrototypicalHead  # whose outputs are the embeddings
CLASSIFIERS = SoftmaxHead, CosFaceHead, AdaCosHead, AamHead, SphereFace2Head

LABELS = np.array([0, 2, 1, 2, 0, 3])


def unit(rows, size, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# References: plain loops over the definitions, float64.


def softmax_reference(labels, logits):
    return -np.mean([z[y] - np.log(sum(np.exp(z))) for y, z in zip(labels, logits)])


def cosface_reference(labels, cosines, scale, margin):
    loss = 0
    for y, cosine in zip(labels, cosines):
        target = np.exp(scale * (cosine[y] - margin))
        others = sum(np.exp(scale * c) for j, c in enumerate(cosine) if j != y)
        loss -= np.log(target / (target + others)) / len(labels)
    return loss


def aam_reference(labels, cosines, scale, margin, hard_margin=0.0, hardest=5):
    logits = np.array(cosines)
    for y, row in zip(labels, logits):
        order = [j for j in np.argsort(-row) if j != y][:hardest]
        row[order] = np.cos(np.arccos(row[order]) - hard_margin)
        angle = np.arccos(row[y])
        row[y] = np.cos(angle + margin) if angle + margin < np.pi else row[y] - margin * np.sin(margin)
    return softmax_reference(labels, scale * logits)


def sphereface2_reference(labels, cosines, scale, margin, bias):
    loss = 0
    for y, row in zip(labels, cosines):
        for j, cosine in enumerate(row):
            g = 2 * ((cosine + 1) / 2) ** 3 - 1
            sign, weight = (1, 0.7) if j == y else (-1, 0.3)
            loss += weight * np.log(1 + np.exp(-sign * (scale * (g - sign * margin) + bias))) / len(labels)
    return loss


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def ge2e_reference(labels, embeddings, weight, bias):
    loss = 0
    for i, e in enumerate(embeddings):
        logits = {}
        for speaker in set(labels):
            rows = [j for j in range(len(labels)) if labels[j] == speaker and j != i]
            logits[speaker] = weight * cosine(e, np.mean(embeddings[rows], axis=0)) + bias
        loss += (np.log(sum(np.exp(list(logits.values())))) - logits[labels[i]]) / len(labels)
    return loss


def angular_prototypical_reference(labels, embeddings, weight, bias):
    losses = []
    rows = {speaker: np.flatnonzero(labels == speaker) for speaker in set(labels)}
    for speaker in rows:
        query = embeddings[rows[speaker][-1]]
        logits = {k: weight * cosine(query, embeddings[r[:-1]].mean(axis=0)) + bias for k, r in rows.items()}
        losses.append(np.log(sum(np.exp(list(logits.values())))) - logits[speaker])
    return np.mean(losses)


def contrastive_reference(labels, embeddings, margin):
    target, hardest = [], []
    for i, a in enumerate(embeddings):
        others = []
        for j, b in enumerate(embeddings):
            if labels[i] != labels[j]:
                others.append(1 - a @ b)
            elif i != j:
                target.append((1 - a @ b) ** 2)
        hardest.append(max(0, margin - min(others)) ** 2)
    return np.mean(target) + np.mean(hardest)


def adacos_reference(labels, cosines, scale):
    sums, angles = [], []
    for y, cosine in zip(labels, cosines):
        sums.append(sum(np.exp(scale * c) for k, c in enumerate(cosine) if k != y))
        angles.append(np.arccos(cosine[y]))
    return np.log(np.mean(sums)) / np.cos(min(np.pi / 4, np.median(angles)))


def central_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def gradient_of(function, x):
    """Gradient of a function of a float32 tensor, by the backend."""
    x = keras.ops.convert_to_tensor(x, "float32")
    if keras.config.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(x), "float64")
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy().astype("float64")


def same_gradient(found, expected):
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


CASES = {
    "softmax": (softmax_loss, softmax_reference, 8 * unit(6, 5), ()),
    "cosface": (cosface_loss, cosface_reference, unit(6, 5), (30.0, 0.2)),
    "cosface without margin": (cosface_loss, cosface_reference, unit(6, 5), (10.0, 0.0)),
    "aam": (aam_loss, aam_reference, 0.9 * unit(6, 5), (32.0, 0.2)),
    "aam beyond pi": (aam_loss, aam_reference, -0.95 * np.eye(5)[LABELS] + 0.04 * unit(6, 5), (8.0, 0.5)),
    "aam with hard non-targets": (aam_loss, aam_reference, 0.9 * unit(6, 5), (32.0, 0.2, 0.06, 2)),
    "sphereface2": (sphereface2_loss, sphereface2_reference, unit(6, 5), (32.0, 0.2, -3.0)),
    "contrastive": (contrastive_loss, contrastive_reference, unit(6, 5), (0.8,)),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case):
    loss, reference, x, settings = CASES[case]
    x = x.astype("float32").astype("float64")  # both sides start from the same numbers
    assert float(loss(LABELS, x.astype("float32"), *settings)) == pytest.approx(
        reference(LABELS, x, *settings), rel=1e-5
    )
    expected = central_differences(lambda at: reference(LABELS, at, *settings), x)
    same_gradient(gradient_of(lambda at: loss(LABELS, at, *settings), x), expected)


PAIRS = np.array([4, 1, 4, 7, 1, 7, 4])


@pytest.mark.parametrize(
    ("loss", "reference"),
    [(ge2e_loss, ge2e_reference), (angular_prototypical_loss, angular_prototypical_reference)],
)
def test_value_and_gradient_of_prototype_losses(loss, reference):
    """Speakers in any order and number; the cosines of the reference are those of vectors of any length."""
    x = unit(7, 4).astype("float32").astype("float64")
    assert float(loss(PAIRS, x.astype("float32"), 10.0, -5.0)) == pytest.approx(
        reference(PAIRS, x, 10.0, -5.0), rel=1e-5
    )

    def along_the_sphere(at):
        return reference(PAIRS, at, 10.0, -5.0)

    expected = central_differences(along_the_sphere, x)
    found = gradient_of(lambda at: loss(PAIRS, at, 10.0, -5.0), x)
    # The losses take unit vectors: what counts is the gradient across them, not along them.
    found -= (found * x).sum(axis=1, keepdims=True) * x
    expected -= (expected * x).sum(axis=1, keepdims=True) * x
    same_gradient(found, expected)


@pytest.mark.parametrize(
    ("loss", "reference", "x", "labels", "first"),
    [
        (ge2e_loss, ge2e_reference, unit(7, 4), PAIRS, (10.0, -5.0)),
        (angular_prototypical_loss, angular_prototypical_reference, unit(7, 4), PAIRS, (10.0, -5.0)),
        (lambda y, x, b: sphereface2_loss(y, x, 32.0, 0.2, b[0]), None, unit(6, 5), LABELS, (-3.0,)),
    ],
    ids=["ge2e", "angular prototypical", "sphereface2"],
)
def test_gradient_to_what_a_head_learns_beside_directions(loss, reference, x, labels, first):
    x = x.astype("float32").astype("float64")
    if reference is None:
        expected = central_differences(lambda at: sphereface2_reference(labels, x, 32.0, 0.2, at[0]), np.array(first))
        found = gradient_of(lambda at: loss(labels, x.astype("float32"), at), first)
    else:
        expected = central_differences(lambda at: reference(labels, x, *at), np.array(first))
        found = gradient_of(lambda at: loss(labels, x.astype("float32"), at[0], at[1]), first)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-7)  # 1e-7 is the last digit of a float32 near 1


def test_sub_centres_take_the_nearest():
    head = AamHead(2, centres=2)
    head.build((None, 2))
    head.weight.assign(np.array([[1, 0, -1, 0], [0, 1, 0, -1]]))  # speaker 0: +x, +y; speaker 1: -x, -y
    np.testing.assert_allclose(np.asarray(head(np.array([[0.6, 0.8]], "float32"))), [[0.8, -0.6]], rtol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_the_margin_of_the_nearest_is_the_share_of_it_that_is_in_force(share):
    head, cosines = AamHead(5, margin=0.2, hard_margin=0.06), 0.9 * unit(6, 5)
    head.hard_share.assign(share)
    expected = aam_reference(LABELS, cosines, 32.0, 0.2, 0.06 * share)
    assert float(head.loss(LABELS, cosines.astype("float32"))) == pytest.approx(expected, rel=1e-5)
    assert not hasattr(AamHead(5), "hard_share"), "nothing to assign without such a margin"


def test_adacos_with_a_margin_lowers_the_targets_cosine_and_finds_its_scale_without_it():
    head, labels = AdaCosHead(3, margin=0.1), np.array([0, 1, 2])
    found = float(head.loss(labels, ADACOS))
    scale = float(dynamic_scale(labels, ADACOS, fixed_scale(3)))
    assert float(head.scale) == pytest.approx(scale)
    assert found == pytest.approx(cosface_reference(labels, ADACOS, scale, 0.1), rel=1e-5)
    assert float(AdaCosHead(3).loss(labels, ADACOS)) == pytest.approx(cosface_reference(labels, ADACOS, scale, 0.0))


def test_softmax_by_hand():
    """Logits 0, log 3 give probabilities 1/4 and 3/4: the mean of log 4 and log 4/3."""
    assert float(softmax_loss(np.array([0, 1]), [[0, np.log(3)]] * 2)) == pytest.approx(0.836988, rel=1e-6)


def test_cosface_by_hand():
    """s 2, m 0.5, cosines 0.5 (target) and 0: logits 0 and 0, so log 2; with m 0: log(1 + exp(-1))."""
    cosines = np.array([[0.5, 0.0]], "float32")
    assert float(cosface_loss(np.array([0]), cosines, 2.0, 0.5)) == pytest.approx(0.6931472, rel=1e-6)
    assert float(cosface_loss(np.array([0]), cosines, 2.0, 0.0)) == pytest.approx(0.3132617, rel=1e-6)


def test_contrastive_by_hand():
    """Cosines 0.6 (target), 0.8 and 0: the target pair costs 0.16; the rows' hardest distances are 1, 0.2 and 0.2."""
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], "float32")
    np.testing.assert_allclose(np.asarray(similarity_matrix(embeddings)), [[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]])
    expected = 0.16 + (0 + 0.36 + 0.36) / 3
    assert float(contrastive_loss(np.array([7, 7, 9]), embeddings, 0.8)) == pytest.approx(expected, rel=1e-5)
    assert float(contrastive_loss(np.array([7, 8, 9]), embeddings, 0.1)) == 0, "no target and no hard pair"
    assert float(contrastive_loss(np.array([7, 7]), embeddings[:2], 0.8)) == pytest.approx(0.16), "no non-target pair"


# AdaCos: 3 rows whose targets' angles are arccos 0.9, 0.8 and 0.1, so that the median is arccos 0.8 (below pi / 4).
ADACOS = np.array([[0.9, 0.5, 0.5], [0.5, 0.8, 0.5], [0.5, 0.5, 0.1]], "float32")


def test_adacos_scale_by_hand():
    assert fixed_scale(40) == pytest.approx(5.181059, rel=1e-6)
    # s 2: each row's non-targets sum to 2 e, so the scale is (1 + log 2) / 0.8.
    labels = np.array([0, 1, 2])
    assert float(dynamic_scale(labels, ADACOS, 2.0)) == pytest.approx(1.693147 / 0.8, rel=1e-6)
    # two rows: the median angle is the mean (0.451027 + 0.643501) / 2 = 0.547264, whose cosine is 0.853950
    assert float(dynamic_scale(labels[:2], ADACOS[:2], 2.0)) == pytest.approx(1.693147 / 0.853950, rel=1e-5)
    # the last two: (0.643501 + 1.470629) / 2 is beyond pi / 4
    assert float(dynamic_scale(labels[1:], ADACOS[1:], 2.0)) == pytest.approx(1.693147 * np.sqrt(2), rel=1e-6)


def test_adacos_scale_against_the_reference():
    for seed in range(5):
        cosines = np.clip(unit(6, 5, seed) + 0.7 * np.eye(5)[LABELS], -1, 1)
        expected = adacos_reference(LABELS, cosines, 12.0)
        assert float(dynamic_scale(LABELS, cosines.astype("float32"), 12.0)) == pytest.approx(expected, rel=1e-5)


def test_adacos_head_follows_its_scale_in_training_only():
    head = AdaCosHead(3)
    labels, first = np.array([0, 1, 2]), 2**0.5 * np.log(2)
    assert float(head.scale) == pytest.approx(first)
    assert float(head.loss(labels, ADACOS, training=False)) == pytest.approx(softmax_reference(labels, first * ADACOS))
    assert float(head.scale) == pytest.approx(first)
    for _ in range(2):
        first = adacos_reference(labels, ADACOS, first)
        assert float(head.loss(labels, ADACOS)) == pytest.approx(softmax_reference(labels, first * ADACOS), rel=1e-5)
        assert float(head.scale) == pytest.approx(first, rel=1e-5)
    fixed = AdaCosHead(3, dynamic=False)
    fixed.loss(labels, ADACOS)
    assert float(fixed.scale) == pytest.approx(2**0.5 * np.log(2))


def test_adacos_gradient_takes_the_scale_as_given():
    cosines = unit(6, 5).astype("float32").astype("float64")
    scale = adacos_reference(LABELS, cosines, fixed_scale(5))
    expected = central_differences(lambda at: softmax_reference(LABELS, scale * at), cosines)
    fixed = AdaCosHead(5, dynamic=False)
    fixed.scale.assign(scale)
    same_gradient(gradient_of(lambda at: fixed.loss(LABELS, at), cosines), expected)
    if keras.config.backend() == "tensorflow":  # elsewhere a variable is not assigned under a gradient
        same_gradient(gradient_of(lambda at: AdaCosHead(5).loss(LABELS, at), cosines), expected)


def test_adacos_needs_three_speakers():
    with pytest.raises(RequestError, match="at least 3"):
        AdaCosHead(2)


# Heads: from unit vectors and weights to the loss.

HEADS = {
    "softmax": (lambda: SoftmaxHead(4, scale=5.0), lambda e, w: softmax_reference(LABELS, 5 * e @ w)),
    "cosface": (
        lambda: CosFaceHead(4),
        lambda e, w: cosface_reference(LABELS, e @ (w / np.linalg.norm(w, axis=0)), 30, 0.2),
    ),
    "adacos": (
        lambda: AdaCosHead(4, dynamic=False),
        lambda e, w: softmax_reference(LABELS, fixed_scale(4) * e @ (w / np.linalg.norm(w, axis=0))),
    ),
    "aam": (
        lambda: AamHead(4, hard_margin=0.06),
        lambda e, w: aam_reference(LABELS, e @ (w / np.linalg.norm(w, axis=0)), 32, 0.2, 0.06),
    ),
    "aam with sub-centres": (
        lambda: AamHead(2, centres=2),
        lambda e, w: aam_reference(
            LABELS % 2, (e @ (w / np.linalg.norm(w, axis=0))).reshape(-1, 2, 2).max(axis=-1), 32, 0.2
        ),
    ),
    "sphereface2": (
        lambda: SphereFace2Head(4),
        lambda e, w: sphereface2_reference(LABELS, e @ (w / np.linalg.norm(w, axis=0)), 32, 0.2, 0),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_head_value_and_gradients(name):
    build, reference = HEADS[name]
    head, embeddings = build(), unit(6, 3).astype("float32").astype("float64")
    head(embeddings.astype("float32"))
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype("float32").astype("float64")
    state = [np.asarray(v) for v in head.non_trainable_variables]
    labels = LABELS % head.n_speakers

    def loss(at, w):
        variables = [w if v is head.weight else np.asarray(v) for v in head.trainable_variables]
        return head.loss(labels, head.stateless_call(variables, state, at)[0])

    as32 = (embeddings.astype("float32"), weight.astype("float32"))
    assert float(loss(*as32)) == pytest.approx(reference(embeddings, weight), rel=1e-5)
    to_embeddings = central_differences(lambda at: reference(at, weight), embeddings)
    same_gradient(gradient_of(lambda at: loss(at, as32[1]), embeddings), to_embeddings)
    to_weight = central_differences(lambda w: reference(embeddings, w), weight)
    same_gradient(gradient_of(lambda w: loss(as32[0], w), weight), to_weight)


@pytest.mark.parametrize(
    ("head", "without", "within"),
    [
        (CosFaceHead, 0.3132617, 0.6931472),  # log(1 + exp(-2 (0.5 - m)))
        (AamHead, 0.3132617, 0.669829),  # log(1 + exp(-2 cos(arccos(0.5) + m)))
        (SphereFace2Head, 0.6635124, 1.2278143),  # 0.7 log(1 + exp(2 (0.15625 + m))) + 0.3 log(1 + exp(-2 (0.75 - m)))
    ],
)
def test_the_margin_is_a_variable(head, without, within):
    head = head(2, scale=2.0, margin=0.0)
    cosines = np.array([[0.5, 0.0]], "float32")
    assert float(head.loss(np.array([0]), cosines)) == pytest.approx(without, rel=1e-6)
    head.margin.assign(0.5)
    assert float(head.loss(np.array([0]), cosines)) == pytest.approx(within, rel=1e-6)


@pytest.mark.parametrize("cosine", [-1.0, 0.0, 1.0])
def test_losses_and_gradients_are_finite_at_extreme_cosines(cosine):
    labels, cosines = np.array([0, 1, 2]), np.full((3, 3), cosine, "float32")
    embeddings = np.array([[1, 0], [cosine, float(cosine == 0)], [1, 0]], "float32")
    cases = [
        (CosFaceHead(3).loss, cosines, labels),
        (AdaCosHead(3, dynamic=False).loss, cosines, labels),
        (AamHead(3, hard_margin=0.06).loss, cosines, labels),
        (SphereFace2Head(3).loss, cosines * np.float32(1.0000001), labels),
        (SoftmaxHead(3).loss, 1e4 * cosines, labels),
        (Ge2eHead().loss, np.repeat(embeddings, 2, axis=0), np.repeat(labels, 2)),
        (AngularPrototypicalHead().loss, np.repeat(embeddings, 2, axis=0), np.repeat(labels, 2)),
        (ContrastiveHead().loss, embeddings, np.array([0, 0, 1])),
    ]
    for loss, outputs, classes in cases:
        assert np.isfinite(float(loss(classes, outputs)))
        assert np.isfinite(gradient_of(lambda at, loss=loss, classes=classes: loss(classes, at), outputs)).all()
    assert np.isfinite(float(dynamic_scale(labels, cosines * np.float32(1.0000001), 64.0)))


@pytest.mark.parametrize("head", [*(kind(3) for kind in CLASSIFIERS), *(kind() for kind in EMBEDDERS)])
def test_heads_compute_in_float32_from_bfloat16(head):
    embeddings = keras.ops.cast(unit(6, 4), "bfloat16")
    outputs = head(embeddings)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert keras.backend.standardize_dtype(head.loss(LABELS % 2, outputs).dtype) == "float32"


SETTINGS = {
    SoftmaxHead: {"n_speakers": 4, "scale": 5.0},
    ContrastiveHead: {"margin": 0.3},
    CosFaceHead: {"n_speakers": 4, "scale": 5.0, "margin": 0.3},
    AdaCosHead: {"n_speakers": 4, "dynamic": False, "margin": 0.1},
    AamHead: {"n_speakers": 4, "scale": 5.0, "margin": 0.3, "centres": 2, "hard_margin": 0.06},
    SphereFace2Head: {"n_speakers": 4, "scale": 5.0, "margin": 0.3},
}


@pytest.mark.parametrize("head", SETTINGS)
def test_a_head_made_anew_has_its_settings(head):
    """What is trained is a twin, whose head is made of the configuration."""
    again = head.from_config(head(**SETTINGS[head]).get_config()).get_config()
    assert {name: again.get(name) for name in SETTINGS[head]} == SETTINGS[head]


# Training


def tiny_encoder():
    """The layers of an encoder around two convolutions, which compile faster than the smallest ResNet."""
    waveform = keras.Input((None,))
    x = InstanceNormalization(variance=False)(LogMel(40)(waveform))
    x = keras.layers.Reshape((-1, 40, 1))(x)
    for channels in (8, 16):
        x = keras.layers.ReLU()(convolution(x, channels, 3, 2))
    x = keras.layers.Dense(16)(StatisticsPooling()(x))
    return keras.Model(waveform, UnitVectors()(keras.layers.BatchNormalization(momentum=0.9)(x)))


def voices():
    """32 crops of 0.5 s: 8 speakers, each a pitch with noise [shape=(32, 8000)], and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 4)
    pitch = (150 * 1.3**labels)[:, None]
    tones = sum(
        np.sin(2 * np.pi * k * pitch * np.arange(8000) / 16000 + rng.uniform(0, 6, (32, 1))) for k in range(1, 6)
    )
    return (0.03 * tones + 0.05 * rng.standard_normal((32, 8000))).astype("float32"), labels


HEADS_OF_8 = [*(kind(8) for kind in CLASSIFIERS), *(kind() for kind in EMBEDDERS)]
TINY = {  # each backbone as small as it goes
    "resnet18": {"width": 8, "stem": "imagenet", "simam": True},
    "resnet34": {"width": 8, "stem": "imagenet", "squeeze_excitation": True},
    "resnet50": {"width": 4, "stem": "imagenet"},
    "mobilenetv2": {"n_mels": 40},
    "ecapa": {"width": 16, "pooling": "attentive"},
    "redimnet2_b0": {"pooling": "attentive"},
}


def learns_by_heart(network, head, steps=40):
    """
    Whether the training on one batch of 32 comes to 100 % accuracy within so many steps.

    Its rows change places in every step: angular prototypical asks of a speaker's last row only, and would otherwise
    leave the others where they are.
    """
    waveforms, labels = voices()
    rng = np.random.default_rng(0)
    model = SpeakerModel(network, type(head).from_config(head.get_config()))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, clipnorm=5.0))
    for step in range(1, steps + 1):
        order = rng.permutation(len(labels))
        model.train_on_batch(waveforms[order], labels[order])
        if step % 20 == 0 and all_right(head, np.asarray(model(waveforms, training=True)), labels):
            return not isinstance(head, AdaCosHead) or float(model.head.scale) != pytest.approx(fixed_scale(8))
    return False


def all_right(head, outputs, labels):
    """Whether each row's highest output, or nearest other row, is of its own speaker."""
    assert outputs.dtype == np.float32
    if isinstance(head, EMBEDDERS):
        return (labels[(outputs @ outputs.T - 2 * np.eye(32)).argmax(axis=1)] == labels).all()
    return (outputs.argmax(axis=1) == labels).all()


@pytest.mark.parametrize("head", HEADS_OF_8, ids=lambda head: type(head).__name__)
def test_one_batch_is_learnt_by_heart(head):
    keras.utils.set_random_seed(0)
    assert learns_by_heart(tiny_encoder(), head)


WIDE = [(backbone, head, "float32") for backbone in TINY for head in HEADS_OF_8]
# In bfloat16 on a CPU, a depthwise convolution of 8 channels and 15 frames or more never ended (TensorFlow 2.21).
WIDE += [(backbone, AamHead(8), "mixed_bfloat16") for backbone in TINY if backbone != "redimnet2_b0"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("backbone", "head", "policy"), WIDE, ids=lambda x: x if isinstance(x, str) else type(x).__name__
)
def test_every_backbone_learns_one_batch_by_heart_with_every_loss(backbone, head, policy):
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(policy)
    try:
        network = encoders.build(**{"n_mels": 24, **TINY[backbone]}, backbone=backbone)
        assert learns_by_heart(network, head, steps=120)
    finally:
        keras.mixed_precision.set_global_policy("float32")
        keras.backend.clear_session()
