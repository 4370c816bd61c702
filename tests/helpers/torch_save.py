"""What ``torch.save`` writes, without PyTorch."""

import collections
import io
import pickle
import sys
import types
import zipfile
from typing import Any
from unittest import mock

import numpy as np


def saved(content: dict) -> bytes:
    """Zip of a dict, as nested as need be, whose arrays are float32 tensors."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    program = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        pickler = _Pickler(program, 2)
        pickler.dump(content)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program.getvalue())
        for key, array in enumerate(pickler.arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())
    return file.getvalue()


class FloatStorage:
    __module__ = "torch"

    def __init__(self, key: int, count: int):
        self.key, self.count = str(key), count


def _rebuild_tensor_v2() -> None: ...


_rebuild_tensor_v2.__module__ = "torch._utils"


class _Pickler(pickle.Pickler):
    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.arrays: list[np.ndarray] = []

    def persistent_id(self, value: Any) -> tuple | None:
        return ("storage", FloatStorage, value.key, "cpu", value.count) if isinstance(value, FloatStorage) else None

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return NotImplemented
        self.arrays.append(np.ascontiguousarray(value, "<f4"))
        storage = FloatStorage(len(self.arrays) - 1, value.size)
        strides = tuple(step // 4 for step in self.arrays[-1].strides)
        return _rebuild_tensor_v2, (storage, 0, value.shape, strides, False, collections.OrderedDict())
