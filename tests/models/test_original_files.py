"""The original system's files: a file of the same structure, made here, is read without the class that it names."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers
from parity import sound

from sv_utils.base.errors import RequestError
from sv_utils.models.features import Deltas, InstanceNormalization, LinearSpectrogram
from sv_utils.models.pretrained import original


def made(path, normalised):
    """Save a tiny model as the original's class is saved: base network, dense layer, normalisation, head."""

    class L2Normalization(layers.Layer):
        def __init__(self):
            super().__init__()
            self.batch = layers.BatchNormalization() if normalised else None

        def call(self, x):
            x = self.batch(x) if normalised else x
            return keras.ops.normalize(x, axis=-1)

    class VerificationModel(keras.Model):
        def __init__(self, base_model):
            super().__init__()
            self.base_model = base_model
            self.embedding_layer = layers.Dense(6, "tanh", name="embedding_dense")
            self.normalization_layer = L2Normalization()
            self.cosine_layer = layers.Dense(9, use_bias=False)

        def call(self, x):
            return self.cosine_layer(self.normalization_layer(self.embedding_layer(self.base_model(x))))

        def get_config(self):
            return {"base_model": keras.saving.serialize_keras_object(self.base_model)}

    keras.utils.set_random_seed(1)
    inputs = keras.Input((512, 300, 3))
    x = layers.Conv2D(4, 3, strides=8, use_bias=False)(layers.ZeroPadding2D(1)(layers.BatchNormalization()(inputs)))
    x = layers.Add()([x, layers.Activation("relu")(layers.BatchNormalization()(x))])
    model = VerificationModel(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    model(np.zeros((1, 512, 300, 3), "float32"))
    draws = np.random.default_rng(0)
    drawn = [draws.normal(0, 0.3, weight.shape) for weight in model.get_weights()]
    model.set_weights([weight if weight.ndim > 1 else 1 + abs(weight) for weight in drawn])  # variances are positive
    model.save(path)
    return model


@pytest.mark.parametrize("normalised", [False, True])
def test_a_file_of_the_originals_structure_is_read_without_its_class(tmp_path, normalised):
    theirs = made(tmp_path / "model.keras", normalised)
    ours = original.of_file(tmp_path / "model.keras")
    waveform = np.resize(sound(), 48_000)[None]
    spectrogram = np.asarray(Deltas()(InstanceNormalization()(LinearSpectrogram()(waveform))))
    expected = theirs.normalization_layer(theirs.embedding_layer(theirs.base_model(spectrogram.transpose(0, 2, 1, 3))))
    np.testing.assert_allclose(np.asarray(ours(waveform)), np.asarray(expected), atol=1e-5)
    assert ours(waveform[:, :20_000]).shape == (1, 6)  # any duration


def test_a_layer_that_is_not_keras_own_is_refused(tmp_path):
    made(tmp_path / "model.keras", False)
    for change, said in (
        ({"class_name": "Lambda"}, r"has a keras\.layers\.Lambda"),
        ({"module": "os"}, r"has a os\."),
        ({"registered_name": "sv_utils>SimAM"}, "no plain layer"),
    ):
        other = tmp_path / "other.keras"
        with zipfile.ZipFile(tmp_path / "model.keras") as read, zipfile.ZipFile(other, "w") as written:
            for name in read.namelist():
                content = read.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    config["config"]["base_model"]["config"]["layers"][2].update(change)
                    content = json.dumps(config)
                written.writestr(name, content)
        with pytest.raises(RequestError, match=said):
            original.of_file(other)
    (tmp_path / "text.keras").write_text("no zip")
    with pytest.raises(RequestError, match=r"no model of the original system|zip"):
        original.of_file(tmp_path / "text.keras")


def test_all_plain_layers_of_the_originals_networks_are_taken():
    x = inputs = keras.Input((16, 16, 3))
    for layer in (
        *(layers.ZeroPadding2D(1), layers.Conv2D(2, 3), layers.BatchNormalization(), layers.Activation("relu")),
        *(layers.ReLU(), layers.MaxPooling2D(2), layers.AveragePooling2D(2), layers.Dropout(0.1)),
    ):
        x = layer(x)
    x = layers.Add()([x, x])
    x = layers.Dense(2)(layers.Reshape((-1,))(layers.Flatten()(x)))
    deep = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Reshape((1, 1, 2))(x)))
    original._refuse_foreign(keras.saving.serialize_keras_object(deep))
