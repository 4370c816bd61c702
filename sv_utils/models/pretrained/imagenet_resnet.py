"""
Weights of ImageNet for the ResNets with preactivation, as the collection classification_models publishes them: what the
original system began from. They are those of a backbone; the embedding begins with fresh weights.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import keras

from sv_utils.base import fetch, paths
from sv_utils.base.errors import RequestError
from sv_utils.models import encoders
from sv_utils.models.backbones.resnet import DEPTHS

URL = "https://github.com/qubvel/classification_models/releases/download/0.0.1/{name}"
MD5 = {"resnet18": "318e3ac0cd98d51e917526c9f62f0b50", "resnet34": "8caaa0ad39d927cb8ba5385bf945d582"}
NEEDED = {"preactivation": True, "width": 64, "stem": "imagenet", "deltas": True, "squeeze_excitation": False}


def begin(architecture: Mapping) -> keras.Model:
    """
    Build an encoder whose backbone has the weights of ImageNet, which are fetched if they are not there yet.

    Parameters
    ----------
    architecture : mapping
        Arguments of `encoders.build`: ``resnet18`` or ``resnet34`` with what `NEEDED` says.

    Raises
    ------
    RequestError
        If there are no weights for this architecture, or the server has another file.
    WorkError
        If they cannot be fetched.
    """
    backbone = architecture["backbone"]
    if backbone not in MD5:
        raise RequestError(f"initial_model: imagenet_resnet is for {' and '.join(MD5)}, not for {backbone}")
    for key, value in NEEDED.items():
        if architecture[key] != value:
            raise RequestError(f"initial_model: imagenet_resnet needs architecture.{key} to be {value}")
    name = f"{backbone}_imagenet_1000_no_top.h5"
    file = paths.outputs() / "pretrained" / name
    if not file.exists():
        fetch.download(URL.format(name=name), file, MD5[backbone])
    encoder = encoders.build(**architecture)
    assign(encoder, int(backbone.removeprefix("resnet")), file)
    return encoder


def assign(encoder: keras.Model, depth: int, file: str | os.PathLike) -> None:
    """
    Give the backbone of an encoder the weights of a file of the collection.

    Parameters
    ----------
    encoder : keras.Model
        See `encoders.build`.
    depth : int
        18 or 34.
    file : path
        HDF5, as Keras 2 wrote it: a group a layer, whose attribute ``weight_names`` lists what it holds.

    Raises
    ------
    RequestError
        If the file does not hold these layers.
    """
    kinds = (keras.layers.Conv2D, keras.layers.BatchNormalization)
    layers = [layer for layer in encoder.layers if isinstance(layer, kinds) and "embedding" not in layer.name]
    with h5py.File(file) as weights:
        for name, layer in zip(names(depth), layers):
            group = weights.get(name, {})
            found = {_name(place): group[place][()] for place in getattr(group, "attrs", {}).get("weight_names", [])}
            if {key: value.shape for key, value in found.items()} != {v.name: tuple(v.shape) for v in layer.weights}:
                raise RequestError(f"{Path(file).name} holds no layer {name} as this architecture has it")
            layer.set_weights([found[variable.name] for variable in layer.weights])


def _name(place: bytes | str) -> str:
    """What a variable is called, without the layers above it: ``kernel`` of ``conv0_1/kernel:0``."""
    return os.fsdecode(place).rpartition("/")[2].partition(":")[0]


def names(depth: int) -> Iterator[str]:
    """
    Name the collection's layers that have weights, in the order of ours.

    Examples
    --------
    >>> list(names(18))[:8]
    ['bn_data', 'conv0', 'bn0', 'stage1_unit1_bn1', 'stage1_unit1_conv1', 'stage1_unit1_bn2', 'stage1_unit1_conv2', \
'stage1_unit1_sc']
    """
    yield from ("bn_data", "conv0", "bn0")
    for stage, count in enumerate(DEPTHS[depth][0], 1):
        for block in range(1, count + 1):
            parts = ("bn1", "conv1", "bn2", "conv2", *(("sc",) if block == 1 else ()))
            yield from (f"stage{stage}_unit{block}_{part}" for part in parts)
    yield "bn1"
