"""
Read the arrays of a PyTorch checkpoint without PyTorch, and without executing anything in it.

A pickle is a program that may call any function. Here it may name the few functions of `ALLOWED` and no other; they
build arrays out of the zip's own data. Whatever else a file asks for is refused.
"""

import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from sv_utils.base.errors import RequestError

STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}
LARGEST = 1 << 30  # of an archive's unpacked members [bytes]


def read(source: str | os.PathLike | bytes, part: str = "") -> dict[str, np.ndarray]:
    """
    Read a state dict that ``torch.save`` wrote, as a zip or in the form before PyTorch 1.6.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    part : str
        Key of the state dict, where the file holds more.

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
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            state = _read_zip(file) if zipfile.is_zipfile(file) else _read_stream(file)
        state = state[part] if part else state
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
    """Reads a pickle whose storages a function of their type, key and number of elements gives."""

    def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], np.ndarray]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Callable | str:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, kind, key, _, count, *_ = pid
        return self._storage(kind, key, count)


def _read_zip(file: BinaryIO) -> dict:
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST:
            raise _Refused(f"more than {LARGEST:,} bytes")
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl") + "data/"

        def storage(kind: str, key: str, count: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{folder}{key}"), kind, count)

        return _Reader(io.BytesIO(archive.read(name)), storage).load()


def _read_stream(file: BinaryIO) -> dict:
    """The older form: five pickles, the fourth being the state, then the storages that it was promised."""
    storages: dict[str, np.ndarray] = {}
    size = file.seek(0, os.SEEK_END)
    file.seek(0)

    def storage(kind: str, key: str, count: int) -> np.ndarray:
        if key not in storages and count * np.dtype(kind).itemsize > size:
            raise _Refused(f"more than {size:,} bytes")
        return storages.setdefault(key, np.zeros(count, kind))

    _, _, _, state, keys = (_Reader(file, storage).load() for _ in range(5))
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        storages[key][:] = np.frombuffer(file.read(count * storages[key].itemsize), storages[key].dtype)
    return state


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
