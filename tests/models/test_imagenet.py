"""Weights of ImageNet: each layer of the collection's file to its own, and refused where it cannot be."""

import h5py
import keras
import numpy as np
import pytest

from sv_utils.base import fetch
from sv_utils.base.errors import RequestError
from sv_utils.models import encoders
from sv_utils.models.backbones import normalization
from sv_utils.models.pretrained import imagenet_resnet
from sv_utils.training import loop

SMALL = {"front_end": "spectrogram", "deltas": True, "backbone": "resnet18", "width": 2, "stem": "imagenet"}
SMALL |= {"preactivation": True, "pooling": "average", "embedding_dim": 4}


def written(path, encoder, lacking=""):
    """A file as Keras 2 wrote it, each weight one number of its own; what they are, by layer and weight."""
    kinds, numbers = (keras.layers.Conv2D, keras.layers.BatchNormalization), {}
    layers = [layer for layer in encoder.layers if isinstance(layer, kinds)][:-1]  # all but the embedding's
    with h5py.File(path, "w") as file:
        for name, layer in zip(imagenet_resnet.names(18), layers, strict=True):
            if name == lacking:
                continue
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_1/{variable.name}:0".encode() for variable in layer.weights]
            for place, variable in zip(group.attrs["weight_names"], layer.weights):
                numbers[name, variable.name] = float(len(numbers))
                group[place] = np.full(variable.shape, len(numbers) - 1, "float32")
    return numbers


def test_each_layer_gets_its_own_weights_and_the_embedding_stays_fresh(tmp_path, monkeypatch):
    encoder = encoders.build(**SMALL)
    numbers, fresh = written(tmp_path / "weights.h5", encoder), encoder.get_layer("embedding").get_weights()
    imagenet_resnet.assign(encoder, 18, tmp_path / "weights.h5")
    by_number = {float(np.ravel(v)[0]) for layer in encoder.layers[:-3] for v in layer.weights}
    assert by_number == set(numbers.values()) and len(numbers) == 96
    convolutions = [layer for layer in encoder.layers if isinstance(layer, keras.layers.Conv2D)]
    assert float(np.ravel(convolutions[0].kernel)[0]) == numbers["conv0", "kernel"]
    assert float(np.ravel(convolutions[3].kernel)[0]) == numbers["stage1_unit1_sc", "kernel"]
    assert all(map(np.array_equal, encoder.get_layer("embedding").get_weights(), fresh))
    written(tmp_path / "lacking.h5", encoder, lacking="stage2_unit1_sc")
    with pytest.raises(RequestError, match=r"lacking\.h5 holds no layer stage2_unit1_sc as"):
        imagenet_resnet.assign(encoder, 18, tmp_path / "lacking.h5")


def test_a_training_begins_from_them_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(imagenet_resnet, "NEEDED", imagenet_resnet.NEEDED | {"width": 2})
    asked, architecture = [], SMALL | {"squeeze_excitation": False}

    def download(url, target, md5):
        asked.append((url.rpartition("/")[2], md5))
        target.parent.mkdir()
        written(target, encoders.build(**SMALL))

    monkeypatch.setattr(fetch, "download", download)
    encoder = loop.make_encoder("imagenet_resnet", architecture)
    assert asked == [("resnet18_imagenet_1000_no_top.h5", imagenet_resnet.MD5["resnet18"])]
    (last,) = (layer for layer in encoder.layers[-7:] if isinstance(layer, normalization.BatchNormalization))
    assert {float(x) for x in np.ravel(last.gamma)} == {92.0}, "a number of the file"
    for change, said in (({"backbone": "resnet50"}, "is for resnet18 and resnet34"), ({"deltas": False}, "deltas")):
        with pytest.raises(RequestError, match=said):
            loop.make_encoder("imagenet_resnet", architecture | change)
