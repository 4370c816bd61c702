"""
Read the arrays of a PyTorch checkpoint without PyTorch, and without executing anything in it.

A pickle is a program that may call any function. Here it may name the few functions of `ALLOWED` and no other; they
build arrays out of the file's own data, each piece of which is read once. Whatever else a file asks for is refused, as
is more work, or more memory, than a table of weights takes.
"""

import collections
import io
import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import ml_dtypes
import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.base.zips import refuse_bomb

STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "BoolStorage": np.dtype("bool"),
}
PARTS = ("state_dict", "model_state_dict", "model_state", "model", "net")  # where a file that holds more has the table
LARGEST = 1 << 29  # of a file, and of its arrays together [bytes]; half of it are the largest published encoders
MOST_STEPS = 1 << 20  # of a pickle's program; an encoder takes some 30,000
DEEPEST = 100  # lists, tuples and dicts in each other
MOST_WAITING = 10_000  # values that no list or dict has taken yet; PyTorch hands over 2,000 at a time
MOST_AXES = 8  # of an array


def read(source: str | os.PathLike | bytes, part: str = "") -> dict[str, np.ndarray]:
    """
    Read a state dict that ``torch.save`` wrote, as a zip or in the form before PyTorch 1.6.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    part : str
        Key of the state dict, where the file holds more; without it, the one of `PARTS` that holds a table.

    Returns
    -------
    dict
        Name to array; all numbers with a fraction as float32, whatever they were stored in.

    Raises
    ------
    RequestError
        If it is no such file, is larger than `LARGEST`, or asks for what a state dict does not need.
    """
    return table(content(source), part, _shown(source))


def _shown(source: str | os.PathLike | bytes) -> str:
    return "the checkpoint" if isinstance(source, bytes) else os.fspath(source)


def table(found: Any, part: str = "", shown: str = "the checkpoint") -> dict[str, np.ndarray]:
    """
    Take the state dict out of what a file holds; parameters and errors are those of `read`.

    Examples
    --------
    >>> table({"epoch": 3, "state_dict": {"bias": np.zeros(2, "float16")}})["bias"].dtype
    dtype('float32')
    """
    if part:
        if not isinstance(found, dict) or part not in found:
            raise RequestError(f"{shown} has no part {part!r}; it is not the expected model")
        found = found[part]
    elif isinstance(found, dict) and not _is_table(found):
        tables = [name for name in PARTS if name in found and _is_table(found[name])]
        if len(tables) > 1:
            raise RequestError(
                f"{shown} holds several tables of weights ({', '.join(tables)}); name the one that is meant"
            )
        found = found[tables[0]] if tables else found
    if not _is_table(found):
        raise RequestError(f"{shown} is no table of weights; give a state dict")
    return {name: _exact(array) for name, array in dict.items(found)}


def _is_table(found: Any) -> bool:
    values = list(dict.values(found)) if isinstance(found, dict) else []
    return (
        bool(values) and all(isinstance(name, str) for name in found) and all(isinstance(v, np.ndarray) for v in values)
    )


def _exact(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind in "biu" else array.astype("float32")


def content(source: str | os.PathLike | bytes) -> Any:
    """
    Read all that ``torch.save`` wrote: the tables of weights and what stands beside them, as numbers and names.

    Raises
    ------
    RequestError
        As `read`.
    """
    shown = _shown(source)
    if not isinstance(source, bytes):
        refuse_bomb(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size > LARGEST:
                raise _Refused(f"more than {LARGEST:,} bytes")
            return _read_zip(file, size) if zipfile.is_zipfile(file) else _read_stream(file, size)
    except _Refused as error:
        raise RequestError(f"{shown} asks for {error}, which no table of weights needs; do not trust it") from None
    except RequestError:
        raise
    except Exception as error:  # a damaged pickle ends in any kind of error
        raise RequestError(f"{shown} is no checkpoint of weights ({type(error).__name__}: {error})") from None


class _Refused(Exception):
    """The pickle wants more than arrays."""


def _step(load: Callable[["_Reader"], None]) -> Callable[["_Reader"], None]:
    """Let a pickle take one of its steps as long as it has some left, and builds nothing too deep."""

    def counted(reader: "_Reader") -> None:
        reader.steps += 1
        if reader.steps > MOST_STEPS or len(reader.metastack) > DEEPEST or len(reader.stack) > MOST_WAITING:
            raise _Refused("more than a table of weights takes to write down")
        load(reader)

    return counted


class _Reader(pickle._Unpickler):
    """
    Reads a pickle whose storages a function of their type, key and number of elements gives.

    It is Python's own reader in Python, whose every step can be watched; that in C would set what a pickle likes on
    the objects that it has made.
    """

    def __init__(self, file: BinaryIO, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(file)
        self._storage, self.steps = storage, 0

    stack: list  # what Python's reader works on, which its types do not tell
    metastack: list
    dispatch: ClassVar[dict] = {code: _step(load) for code, load in pickle._Unpickler.dispatch.items()}  # type: ignore[arg-type]

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, kind, key, _, count, *_ = pid
        if not isinstance(kind, np.dtype) or not isinstance(key, str) or type(count) is not int or count < 0:
            raise _Refused("a storage that is none")
        return self._storage(kind, key, count)

    def _build(self) -> None:
        """Pass over what PyTorch notes beside the weights (versions of layers); refuse to set anything else."""
        self.stack.pop()
        if type(self.stack[-1]) is not collections.OrderedDict:
            raise _Refused("objects with a state of their own")

    dispatch[pickle.BUILD[0]] = _step(_build)


def _refuse(_: _Reader) -> None:
    raise _Refused("objects of a class")


for code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4):
    _Reader.dispatch[code[0]] = _refuse


def _read_zip(file: BinaryIO, size: int) -> dict:
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise _Refused("packed data")  # which torch.save does not write
        if sum(member.file_size for member in archive.infolist()) > size:
            raise _Refused(f"more than {size:,} bytes")
        (name,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl") + "data/"
        storages: dict[str, bytes] = {}

        def storage(kind: np.dtype, key: str, count: int) -> np.ndarray:
            if key not in storages:
                storages[key] = archive.read(f"{folder}{key}")
            return np.frombuffer(storages[key], kind, count)

        return _Reader(io.BytesIO(archive.read(name)), storage).load()


def _read_stream(source: BinaryIO, size: int) -> dict:
    """The older form: five pickles, the fourth being the state, then the storages that it was promised."""
    storages: dict[str, np.ndarray] = {}
    left = size
    source.seek(0)
    # As a map of memory it gives no more than it has, however much a pickle asks for at once.
    file: Any = source if isinstance(source, io.BytesIO) else mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)

    def storage(kind: np.dtype, key: str, count: int) -> np.ndarray:
        nonlocal left
        if key not in storages:
            left -= count * kind.itemsize
            if left < 0:
                raise _Refused(f"more than {size:,} bytes")
            storages[key] = np.zeros(count, kind)
        return storages[key]

    _, _, _, state, keys = (_Reader(file, storage).load() for _ in range(5))
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        data = np.frombuffer(file.read(max(count, 0) * storages[key].itemsize), storages[key].dtype, len(storages[key]))
        storages[key][:] = data
    return state


def _tensor(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_: object) -> np.ndarray:
    """A view of contiguous data: other strides do not occur in weights, and could point outside of the data."""
    numbers = (offset, *shape, *stride)
    if len(shape) > MOST_AXES or len(stride) != len(shape) or any(type(n) is not int or n < 0 for n in numbers):
        raise _Refused("an array of a shape that is none")
    count = math.prod(shape)
    if offset + count > len(storage):
        raise _Refused("an array beyond its data")
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
