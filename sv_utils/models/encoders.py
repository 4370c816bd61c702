"""Waveform in, unit vector out: build an encoder, load one, embed utterances of any length (`embedding.embed`)."""

import os
from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from sv_utils.base.errors import RequestError, nearest
from sv_utils.base.zips import refuse_bomb
from sv_utils.models import backbones
from sv_utils.models.backbones.pooling import AttentivePooling, AveragePooling, StatisticsPooling
from sv_utils.models.features import (
    Deltas,
    InstanceNormalization,
    LinearSpectrogram,
    LogMel,
    LogSpectrogram,
    SpecAugment,
)

SPECTROGRAMS = {"log": LogSpectrogram, "linear": LinearSpectrogram}
NORMALIZED = {"none": (), "pooling": ("pooling",), "embedding": ("embedding",), "both": ("pooling", "embedding")}
POOLINGS = {"average": AveragePooling, "statistics": StatisticsPooling, "attentive": AttentivePooling}


@keras.saving.register_keras_serializable(package="sv_utils")
class UnitVectors(layers.Layer):
    """
    Divide each vector by its Euclidean length, in float32; the zero vector stays zero and has a finite gradient.

    (``keras.layers.UnitNormalization`` has the gradient NaN there.)

    Call: vectors [shape=(batch, d)] → [shape=(batch, d)].
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, vectors: keras.KerasTensor) -> keras.KerasTensor:
        return vectors * ops.rsqrt(ops.maximum(ops.sum(ops.square(vectors), axis=-1, keepdims=True), 1e-12))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return input_shape


def build(
    front_end: str = "mel",
    spectrogram: str = "log",
    n_mels: int = 80,
    deltas: bool = False,
    masked_frames: int = 0,
    masked_bins: int = 0,
    backbone: str = "resnet34",
    width: int = 32,
    stem: str = "thin",
    preactivation: bool = False,
    squeeze_excitation: bool = False,
    simam: bool = False,
    pooling: str = "statistics",
    embedding_dim: int = 256,
    embedding_activation: str = "linear",
    batch_normalization: str = "own",
) -> keras.Model:
    """
    Build an encoder with fresh weights.

    Parameters
    ----------
    front_end : str
        ``"mel"``: log mel, mean over time subtracted; ``"spectrogram"``: 512 bins, mean and variance normalised.
    spectrogram : str
        ``"log"`` (of the power) or ``"linear"`` (magnitudes, as the VoxCeleb papers have it); mel is always log.
    n_mels : int
        Bands of the mel front end.
    deltas : bool
        Stack first and second differences as further channels.
    masked_frames, masked_bins : int
        Widest masks of `features.SpecAugment` in training; 0 and 0 for none.
    backbone : str
        ``"resnet18"``, ``"resnet34"``, ``"resnet50"`` to ``"resnet293"``, ``"mobilenetv2"``, ``"ecapa"``,
        ``"campplus"``, ``"eres2netv2"``, or ``"redimnet2_b0"`` to ``"redimnet2_b6"``, which take a multiple of 8 bands
        (of 12 for b2; 72 as published).
    width, stem, preactivation, squeeze_excitation, simam
        Of the ResNets, see `backbones.resnet.ResNet`; 64, ``"imagenet"`` and true are the original system's. ECAPA-TDNN
        has a width too, 512 or 1024.
    pooling : str
        ``"average"`` (over time and frequency), ``"statistics"`` or ``"attentive"`` (mean and deviation over time).
    embedding_dim : int
        Dimensions of the embedding.
    embedding_activation : str
        ``"linear"``, or ``"tanh"`` without a bias, the original system's.
    batch_normalization : str
        What is normalised over the batch behind the backbone: ``"pooling"``, ``"embedding"``, ``"both"``, ``"none"``,
        or ``"own"``: what the backbone's authors normalise, and the embedding where they do not say.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz → unit vectors [shape=(batch, embedding_dim)].
        Any number of samples from 160 on. The embedding is the layer ``embedding``, and normalised over the batch
        ``embedding_normalization``; the last one divides by the length.

    Raises
    ------
    RequestError
        For a name that does not exist, or bands that the backbone cannot merge.
    """
    architecture = dict(locals())
    for argument, value, known in (
        ("front_end", front_end, ("mel", "spectrogram")),
        ("spectrogram", spectrogram, SPECTROGRAMS),
        ("stem", stem, ("imagenet", "thin")),
        ("pooling", pooling, POOLINGS),
        ("embedding_activation", embedding_activation, ("linear", "tanh")),
        ("batch_normalization", batch_normalization, ("own", *NORMALIZED)),
    ):
        if value not in known:
            raise RequestError(f"{argument}: there is no {value!r}{nearest(value, known)}")
    network = backbones.get(backbone)
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    mel = front_end == "mel"
    x = (LogMel(n_mels) if mel else SPECTROGRAMS[spectrogram]())(waveform)
    x = InstanceNormalization(variance=not mel)(x)
    if masked_frames or masked_bins:
        x = SpecAugment(masked_frames, masked_bins)(x)
    x = Deltas()(x) if deltas else layers.Reshape((-1, x.shape[-1], 1), dtype="float32")(x)
    x = network.add(x, architecture)
    x = POOLINGS[pooling]()(x)
    own = getattr(network, "NORMALIZED", NORMALIZED["embedding"])
    x = _embedding(x, embedding_dim, embedding_activation, NORMALIZED.get(batch_normalization, own))
    return keras.Model(waveform, UnitVectors(name="unit_vectors")(x), name="encoder")


def _embedding(x: keras.KerasTensor, size: int, activation: str, normalized: tuple[str, ...]) -> keras.KerasTensor:
    """The layers between pooling and unit length."""
    options = {"momentum": 0.9, "epsilon": 1e-5, "dtype": "float32"}
    if "pooling" in normalized:
        x = layers.BatchNormalization(**options, name="pooling_normalization")(x)
    x = layers.Dense(size, activation, activation == "linear", dtype="float32", name="embedding")(x)
    if "embedding" in normalized:
        x = layers.BatchNormalization(**options, name="embedding_normalization")(x)
    return x


def load(path: str | os.PathLike) -> keras.Model:
    """
    Load an encoder.

    Parameters
    ----------
    path : path
        A ``.keras`` file as training writes it.

    Returns
    -------
    keras.Model
        See `build`.

    Raises
    ------
    RequestError
        If the file is missing, is no Keras model, or is one that does not take waveforms and give vectors.
    """
    if not os.path.isfile(path):
        raise RequestError(f"{path}: there is no such model file; train one or name another")
    refuse_bomb(path)
    backbones.register_layers()
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # keras raises many kinds: from zipfile, h5py, json and its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"{path}: not a Keras model of this system ({reason}); name a .keras file") from error
    shapes = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if not (shapes[0] == (None, None) and isinstance(shapes[1], tuple) and len(shapes[1]) == 2):
        raise RequestError(f"{path}: maps {shapes[0]} to {shapes[1]} and not waveforms to vectors; name an encoder")
    return model


def in_float32(encoder: keras.Model) -> keras.Model:
    """
    Give a float32 copy of an encoder that is trained in mixed precision, with the same weights.

    Other runtimes have no bfloat16, and a score should not depend on what a model was trained in.
    """

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for layers within layers
    try:
        return _copied(encoder, lambda layer: {"dtype": "float32"})
    finally:
        keras.config.set_dtype_policy(policy)


def in_present_policy(encoder: keras.Model) -> keras.Model:
    """
    Give a copy of a float32 encoder that computes as `build` would make it now, with the same weights.

    Front ends, which ask for float32 themselves, and what follows the pooling keep it.
    """

    def dtype(layer: layers.Layer) -> dict:
        ranks = [len(output.shape) for output in keras.tree.flatten(layer.output)]
        return {"dtype": "float32" if min(ranks) < 3 else None}

    return _copied(encoder, dtype)


def _copied(encoder: keras.Model, changed: Callable[[layers.Layer], dict]) -> keras.Model:
    """A copy whose layers have other options where `changed` names some; None takes an option away."""

    def made(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if isinstance(layer, layers.Layer):  # and no mere operation, as `ops.split` of ECAPA-TDNN
            config |= changed(layer)
        return type(layer).from_config({key: value for key, value in config.items() if key != "dtype" or value})

    copy = keras.models.clone_model(encoder, clone_function=made)
    copy.set_weights(encoder.get_weights())
    return copy


def unnormalised(model: keras.Model) -> keras.Model | None:
    """
    Give the encoder without its last layer: the length of its vectors tells how much voice it heard.

    Returns
    -------
    keras.Model or None
        None for a model that does not end in `UnitVectors`.
    """
    last = getattr(model, "layers", [None])[-1]
    return keras.Model(model.input, last.input, name=model.name) if isinstance(last, UnitVectors) else None
