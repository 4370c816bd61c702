"""
The original system's own two models: `.keras` files of a class of its own, which is not needed to read them.

A file holds a base network of Keras's own layers on a spectrogram (512 bins, frames, 3), a dense layer with tanh, a
normalisation, and a head of cosines that is left out. Our front end comes before it: magnitudes, mean and variance
normalised, with its differences.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import layers

from sv_utils.base.errors import RequestError
from sv_utils.base.zips import refuse_bomb
from sv_utils.models.encoders import UnitVectors
from sv_utils.models.features import Deltas, InstanceNormalization, LinearSpectrogram

MODULES = (
    "keras",
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.src.models.functional",
)
LAYERS = {"Functional", "InputLayer", "Conv2D", "BatchNormalization", "Activation", "ReLU", "ZeroPadding2D", "Dropout"}
LAYERS |= {"MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "Add", "Dense", "Flatten", "Reshape"}
WEIGHTS = "model.weights.h5"


def of_file(file: Path) -> keras.Model:
    """
    Build the encoder that a file of the original system holds.

    Parameters
    ----------
    file : Path
        As the original's `VerificationModel` was saved.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz → unit vectors [shape=(batch, d)].

    Raises
    ------
    RequestError
        If it is no such file, or its base network is made of anything but Keras's own plain layers.
    """
    refuse_bomb(file)
    try:
        with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory(prefix="sv_utils") as folder:
            config = json.loads(archive.read("config.json"))["config"]["base_model"]
            weights = Path(archive.extract(WEIGHTS, folder))
            base = _base(config, weights)
            with h5py.File(weights) as found:
                return _encoder(base, _arrays(found["embedding_layer"]), _normalisation(found))
    except RequestError as error:
        raise RequestError(f"{file}: {error}") from None
    except Exception as error:  # zipfile, json, h5py and keras raise many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RequestError(f"{file} is no model of the original system ({reason}); name the file itself") from None


def _base(config: dict, weights: Path) -> keras.Model:
    """The base network for any number of frames, with its weights."""
    _refuse_foreign(config)
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            batch, bins, _, channels = layer["config"]["batch_shape"]
            layer["config"]["batch_shape"] = [batch, bins, None, channels]
    model = _Holder(keras.saving.deserialize_keras_object(config, safe_mode=True))
    model.build((None, bins, None, channels))
    model.load_weights(weights)
    return model.base_model


class _Holder(keras.Model):
    """Has the base network under the name that the file has it under."""

    def __init__(self, base_model: keras.Model):
        super().__init__()
        self.base_model = base_model

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return self.base_model(inputs)


def _refuse_foreign(config: Any) -> None:
    """Refuse what names a class or a function that is not one of Keras's plain ones."""
    if isinstance(config, list):
        for part in config:
            _refuse_foreign(part)
    if not isinstance(config, dict):
        return
    if "class_name" in config:
        module, name = config.get("module"), config["class_name"]
        plain = (
            name in LAYERS
            or module in ("keras.initializers", "keras.regularizers")
            or name in ("DTypePolicy", "__keras_tensor__")
        )
        if name != "__keras_tensor__" and (
            module not in MODULES or not plain or config.get("registered_name") not in (None, name)
        ):
            raise RequestError(f"its base network has a {module}.{name}, which is no plain layer; do not trust it")
    for part in config.values():
        _refuse_foreign(part)


def _normalisation(found: h5py.File) -> list[np.ndarray]:
    """What a batch normalisation before the unit length holds: gamma, beta, mean, variance; empty for none."""
    arrays: list[np.ndarray] = []

    def look(name: str, group: Any) -> None:
        if name.endswith("vars") and len(group) == 4:
            arrays.extend(_arrays(group.parent))

    for name in ("normalization_layer", "layers"):  # Keras files what comes late in the alphabet under its class
        if name in found:
            found[name].visititems(look)
    return arrays


def _arrays(group: h5py.Group) -> list[np.ndarray]:
    held = group["vars"]
    return [np.asarray(held[name]) for name in sorted(held, key=int)]


def _encoder(base: keras.Model, dense: list[np.ndarray], normalisation: list[np.ndarray]) -> keras.Model:
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = Deltas()(InstanceNormalization()(LinearSpectrogram()(waveform)))
    x = base(layers.Permute((2, 1, 3))(x))
    embedding = layers.Dense(dense[0].shape[1], "tanh", use_bias=len(dense) > 1, name="embedding")
    x = embedding(x)
    embedding.set_weights(dense)
    if normalisation:
        layer = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name="embedding_normalization")
        x = layer(x)
        layer.set_weights(normalisation)
    return keras.Model(waveform, UnitVectors(name="unit_vectors")(x), name="original")
