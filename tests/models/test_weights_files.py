"""Files of weights in all the forms in which they are published, read without the programs that wrote them."""

import json

import ml_dtypes
import numpy as np
import pytest
from test_pretrained import WEIGHT, saved_by_torch

from sv_utils.base.errors import RequestError
from sv_utils.models.pretrained import safetensors_file, torch_file

NUMBERS = [[0.0, 1.5, -2.0], [3.0, 0.25, 8.0]]
AS_FLOATS = np.array(NUMBERS, "<f4").tobytes()


@pytest.mark.parametrize(
    ("storage", "kind"), [("Half", "<f2"), ("BFloat16", ml_dtypes.bfloat16), ("Double", "<f8"), ("Float", "<f4")]
)
def test_halves_and_doubles_become_floats(storage, kind):
    program = WEIGHT.replace(b"FloatStorage", f"{storage}Storage".encode())
    found = torch_file.read(saved_by_torch(program, np.array(NUMBERS, kind).tobytes()))["weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, NUMBERS)


@pytest.mark.parametrize(
    ("storage", "name", "kind"), [("Long", "I64", "<i8"), ("Int", "I32", "<i4"), ("Bool", "BOOL", "bool")]
)
def test_whole_numbers_stay_what_they_are(tmp_path, storage, name, kind):
    numbers = np.array([[0, 1, 1], [1, 0, 1]], kind)
    program = WEIGHT.replace(b"FloatStorage", f"{storage}Storage".encode())
    entries = {"weight": entry(name, end=numbers.nbytes)}
    for found in (
        torch_file.read(saved_by_torch(program, numbers.tobytes())),
        torch_file.table(safetensors_file.read(safetensors(tmp_path / "m", entries, numbers.tobytes()))),
    ):
        assert found["weight"].dtype == numbers.dtype and found["weight"].tolist() == numbers.tolist()


def within(*parts: str, beside: bytes = b"X\x05\x00\x00\x00epochK\x03s") -> bytes:
    """A pickle of a dict with the state dict under each of the names, and an epoch beside it."""
    state = b"".join(b"X" + len(part).to_bytes(4, "little") + part.encode() + WEIGHT[2:-1] + b"s" for part in parts)
    return saved_by_torch(b"\x80\x02}" + beside + state + b".")


@pytest.mark.parametrize("part", ["state_dict", "model", "model_state"])
def test_the_table_is_found_by_its_usual_names(part):
    np.testing.assert_array_equal(torch_file.read(within(part))["weight"], [[0, 1, 2], [3, 4, 5]])


def test_what_beside_the_table_is_there_can_be_read_too():
    assert torch_file.content(within("state_dict"))["epoch"] == 3


@pytest.mark.parametrize(
    ("content", "part", "said"),
    [
        (within("model", "state_dict"), "", r"several tables of weights \(state_dict, model\)"),
        (within("weights"), "", "no table of weights"),
        (within("model"), "ema", "no part 'ema'"),
        (within("model"), "epoch", "no table of weights"),
        (within("model", beside=b"cargparse\nNamespace\n0"), "", r"asks for argparse\.Namespace"),
    ],
)
def test_what_table_is_meant_must_be_clear(content, part, said):
    with pytest.raises(RequestError, match=said):
        torch_file.read(content, part)


def safetensors(path, entries, numbers=AS_FLOATS, length=None):
    table = json.dumps(entries).encode()
    path.write_bytes((len(table) if length is None else length).to_bytes(8, "little") + table + numbers)
    return path


def entry(dtype="F32", shape=(2, 3), begin=0, end=24):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("dtype", "kind"), [("F32", "<f4"), ("F16", "<f2"), ("BF16", ml_dtypes.bfloat16), ("F64", "<f8")]
)
def test_safetensors(tmp_path, dtype, kind):
    numbers = np.array(NUMBERS, kind)
    entries = {"__metadata__": {"format": "pt"}, "a.weight": entry(dtype, end=numbers.nbytes)}
    found = torch_file.table(safetensors_file.read(safetensors(tmp_path / "m", entries, numbers.tobytes())))
    assert list(found) == ["a.weight"] and found["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(found["a.weight"], NUMBERS)


@pytest.mark.parametrize(
    ("entries", "length", "said"),
    [
        ({"a": entry(end=28)}, None, "outside of the file"),
        ({"a": entry(begin=-4, end=20)}, None, "outside of the file"),
        ({"a": entry(), "b": entry(shape=(1,), begin=20, end=24)}, None, "within another"),
        ({"a": entry(shape=(2, 2))}, None, "another size than its shape"),
        ({"a": entry(shape=(-2, -3))}, None, "shape that is none"),
        ({"a": entry(shape=(True, 6))}, None, "shape that is none"),
        ({"a": entry(shape=(1,) * 8 + (6,))}, None, "shape that is none"),
        ({"a": entry(dtype="F8_E4M3", end=6)}, None, "F8_E4M3"),
        ({"a": {"dtype": "F32"}}, None, "data_offsets"),
        ([1], None, "no safetensors file"),
        ({"a": entry()}, 1 << 62, "longer than the file"),
        ({"a": entry()}, 3, "no safetensors file"),
    ],
)
def test_a_damaged_safetensors_file_is_one_sentence(tmp_path, entries, length, said):
    with pytest.raises(RequestError, match=said):
        safetensors_file.read(safetensors(tmp_path / "m", entries, length=length))


def test_no_safetensors_file_is_one_sentence(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    for name in ("short", "missing"):
        with pytest.raises(RequestError, match="no safetensors file"):
            safetensors_file.read(tmp_path / name)
