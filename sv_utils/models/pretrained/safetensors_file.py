"""
Read the arrays of a safetensors file: a table of names, types, shapes and places, and then the numbers.

The format holds nothing that could be executed; what is checked is that every array lies within the file, and no byte
in two of them.
"""

import io
import json
import math
import os
from typing import Any

import ml_dtypes
import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.models.pretrained.torch_file import LARGEST, MOST_AXES

KINDS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "BOOL": np.dtype("bool"),
}
LENGTH = 8  # of the number that tells how long the table is [bytes]
LONGEST = 1 << 23  # of the table [bytes]; an encoder's takes some 100,000


def read(source: str | os.PathLike | bytes) -> dict[str, np.ndarray]:
    """
    Read all arrays.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.

    Returns
    -------
    dict
        Name to array, of the type in which it is stored.

    Raises
    ------
    RequestError
        If it is no such file, or larger than `torch_file.LARGEST`.

    References
    ----------
    https://github.com/huggingface/safetensors, section "Format" of its README.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            if file.seek(0, os.SEEK_END) > LARGEST:
                raise ValueError(f"more than {LARGEST:,} bytes")
            file.seek(0)
            table = _table(file.read(LENGTH), file.read(LONGEST))
            file.seek(LENGTH + len(table.pop("")))
            numbers = file.read()
        _refuse_overlaps(table, len(numbers))
        return {name: _array(numbers, **entry) for name, entry in table.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        shown = "the checkpoint" if isinstance(source, bytes) else source
        raise RequestError(f"{shown} is no safetensors file ({error}); give the one that was published") from None


def _table(length: bytes, start: bytes) -> dict[str, Any]:
    """The entries by name, and as ``""`` the bytes that they take."""
    count = int.from_bytes(length, "little")
    if len(length) < LENGTH or count > len(start):
        raise ValueError("its table is longer than the file or than any encoder's")
    table = json.loads(start[:count])
    table.pop("__metadata__", None)
    return {**table, "": start[:count]}


def _refuse_overlaps(table: dict[str, Any], size: int) -> None:
    end = 0
    for begin, stop in sorted(tuple(entry["data_offsets"]) for entry in table.values()):
        if type(begin) is not int or type(stop) is not int or not end <= begin <= stop <= size:
            raise ValueError("an array lies outside of the file or within another")
        end = stop


def _array(numbers: bytes, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in KINDS:
        raise ValueError(f"numbers of the type {dtype}, which no encoder has")
    if len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array of a shape that is none")
    kind, (begin, stop) = KINDS[dtype], data_offsets
    if math.prod(shape) * kind.itemsize != stop - begin:
        raise ValueError("an array that has another size than its shape")
    return np.frombuffer(numbers, kind, math.prod(shape), begin).reshape(shape)
