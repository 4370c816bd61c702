"""
Read the arrays of a PyTorch checkpoint without PyTorch, and without executing anything in it.

A pickle is a program that may call any function. Here it may name the few functions of `ALLOWED` and no other; they
build arrays out of the zip's own data. Whatever else a file asks for is refused.
"""

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable

import numpy as np

from ..errors import RequestError

STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
LARGEST = 1 << 30  # of an archive's unpacked members [bytes]


def read(source: str | os.PathLike | bytes) -> dict[str, np.ndarray]:
    """
    Read a state dict that ``torch.save`` wrote (zip format).

    Parameters
    ----------
    source : path or bytes
        The file, or its content.

    Returns
    -------
    dict
        Name to array, float32 or int64.

    Raises
    ------
    RequestError
        If it is no such file, or asks for a function that a state dict does not need.
    """
    shown = "the checkpoint" if isinstance(source, bytes) else source
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            state = _Reader(archive).load()
    except _Refused as error:
        raise RequestError(f"{shown} asks for {error}, which no table of weights needs; do not trust it") from None
    except Exception as error:  # a damaged pickle ends in any kind of error
        raise RequestError(f"{shown} is no checkpoint of weights ({type(error).__name__}: {error})") from None
    if not isinstance(state, dict) or not all(isinstance(array, np.ndarray) for array in state.values()):
        raise RequestError(f"{shown} is no table of weights; give a state dict")
    return state


class _Refused(Exception):
    """The pickle wants more than arrays."""


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile):
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise _Refused(f"more than {LARGEST:,} bytes")
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        super().__init__(io.BytesIO(archive.read(name)))
        self._archive, self._folder = archive, name.removesuffix("data.pkl") + "data/"

    def find_class(self, module: str, name: str) -> Callable | str:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, kind, key, _, count = pid
        return np.frombuffer(self._archive.read(f"{self._folder}{key}"), kind, count)


def _tensor(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_: object) -> np.ndarray:
    """A view of contiguous data: other strides do not occur in weights, and could point outside of the data."""
    count = int(np.prod(shape, dtype=np.int64))
    array = storage[offset : offset + count].reshape(shape)
    if tuple(step * storage.itemsize for size, step in zip(shape, stride) if size > 1) != tuple(
        step for size, step in zip(shape, array.strides) if size > 1
    ):
        raise _Refused("data in an unusual order")
    return array


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}
