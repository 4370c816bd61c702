"""From the arrays of a PyTorch checkpoint to the variables of a Keras model, by their names."""

import re
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from sv_utils.base.errors import RequestError

# Names of a layer's variables in a checkpoint.
KINDS = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
KINDS |= {"moving_mean": "running_mean", "moving_variance": "running_var", "weight": "w"}  # the last of ReDimNet2
HEADS = r"projection\..*|.*num_batches_tracked"  # the training's own head, and counters: no part of an encoder


def assign(
    model: keras.Model,
    state: Mapping[str, np.ndarray],
    table: Iterable[tuple[str, str]] = (),
    ignored: str = "",
) -> None:
    """
    Put the arrays of a checkpoint into a model whose layers bear their names, or names that a table translates.

    Parameters
    ----------
    model : keras.Model
    state : mapping of str to np.ndarray
        Name to array; arrays (out, in, ...) there are (..., in, out) here.
    table : iterable of (str, str)
        Pattern of a layer's name here and what it is there, as `re.sub` takes them; the first whose pattern is the
        whole name counts, and a name that none has is the same there.
    ignored : str
        Pattern of names there that have no place here.

    Raises
    ------
    RequestError
        If an array is missing, has another size, or is left over.
    """
    passed = re.compile(f"{HEADS}|{ignored}" if ignored else HEADS)
    waiting = {name for name in state if not passed.fullmatch(name)}
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
