"""How published encoders end, and how arrays of PyTorch checkpoints become their variables, by name."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import keras
import numpy as np
from keras import layers

from sv_utils.base.errors import RequestError
from sv_utils.models.encoders import UnitVectors

# Names of a layer's variables in a checkpoint.
KINDS = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
KINDS |= {"moving_mean": "running_mean", "moving_variance": "running_var", "weight": "w"}  # the last of ReDimNet2
HEADS = r"projection\..*|.*num_batches_tracked"  # the training's own head, and counters: no part of an encoder


def encoder(
    waveform: keras.KerasTensor, pooled: keras.KerasTensor, dimensions: int, name: str, normalised: bool = False
) -> keras.Model:
    """
    Close an encoder: a normalisation of what was pooled if asked for, the embedding, unit length.

    Returns
    -------
    keras.Model
        waveform [shape=(batch, samples)] → unit vectors [shape=(batch, dimensions)].
    """
    if normalised:
        pooled = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="pooling_normalization")(pooled)
    x = layers.Dense(dimensions, name="embedding")(pooled)
    return keras.Model(waveform, UnitVectors(name="unit_vectors")(x), name=name)


def assign(
    model: keras.Model,
    state: Mapping[str, np.ndarray],
    tables: Mapping[str, Iterable[tuple[str, str]]] = MappingProxyType({}),
    ignored: str = "",
) -> None:
    """
    Put the arrays of an original checkpoint into a model whose layers bear their names, or a table translates them.

    Parameters
    ----------
    model : keras.Model
    state : mapping of str to np.ndarray
        Name to array; arrays (out, in, ...) there are (..., in, out) here.
    tables : mapping of str to iterable of (str, str)
        How the names of models begin, each with patterns of a layer's name here and what it is there, as `re.sub`
        takes them; the first whose pattern is the whole name counts, and a name that none has is the same there.
    ignored : str
        Pattern of names there that have no place here.

    Raises
    ------
    RequestError
        If an array is missing, has another size, or is left over.
    """
    passed = re.compile(f"{HEADS}|{ignored}" if ignored else HEADS)
    waiting = {name for name in state if not passed.fullmatch(name)}
    table = next((table for start, table in tables.items() if model.name.startswith(start)), ())
    patterns = [(re.compile(pattern), there) for pattern, there in table]
    for variable in model.variables:
        layer, kind = variable.path.split("/")[-2:]
        name = f"{translated(layer, patterns)}.{KINDS.get(kind, kind)}"
        if name not in waiting or state[name].size != np.prod(variable.shape):
            raise RequestError(f"the checkpoint has no fitting {name}; it is not the expected model")
        variable.assign(np.reshape(state[name] if kind == "weight" else state[name].T, variable.shape))
        waiting.remove(name)
    if waiting:
        raise RequestError(f"the checkpoint has {len(waiting)} arrays too many, as {min(waiting)}")


def translated(name: str, table: Iterable[tuple[re.Pattern[str], str]]) -> str:
    """Give the name there of a layer's name here."""
    for pattern, there in table:
        if found := pattern.fullmatch(name):
            return found.expand(there)
    return name
