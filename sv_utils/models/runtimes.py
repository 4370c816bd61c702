"""Encoders in other formats than Keras's, run by ONNX Runtime or LiteRT: neither Keras nor TensorFlow is imported."""

import functools
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError

RUNTIMES = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}  # file suffix to the package that runs it
THREADS = min(4, os.cpu_count() or 1)
LARGEST = 1 << 31  # of a model file [bytes]: neither format goes beyond


class Exported:
    """
    An encoder file with what `embedding.embed` needs of a model.

    Parameters
    ----------
    path : path
        ``.onnx`` or ``.tflite``: waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, any number of samples
        from 0.5 s on → vectors [shape=(batch, d)]. A file that takes one length alone hears longer waveforms in parts,
        whose directions are averaged, and shorter ones repeated; one that takes so many at a time gets so many.

    Attributes
    ----------
    output_shape : tuple
        ``(None, d)``.

    Raises
    ------
    RequestError
        If there is no such file, the package that runs it is not installed, or it is no such encoder.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path = Path(path)
        if not path.is_file():
            raise RequestError(f"{path}: there is no such model file; export one or name another")
        if path.stat().st_size > LARGEST:
            raise RequestError(f"{path}: has more than {LARGEST:,} bytes, which no encoder of this format has")
        runner = _OnnxRunner if path.suffix == ".onnx" else _LiteRtRunner
        try:
            self._run = runner(path)
            self._batch, self._samples = self._run.shape
            shape = np.shape(self._run(np.zeros((self._batch or 1, self._samples or 16_000), np.float32)))
        except ImportError:
            package = RUNTIMES[path.suffix]
            raise RequestError(
                f"{path}: the package {package}, which runs such files, is not installed; pip install {package}"
            ) from None
        except Exception as error:  # either runtime has kinds of its own, and so has a model that takes no waveform
            raise RequestError(
                f"{path}: not an encoder that takes any waveform ({_reason(error)}); export it anew"
            ) from error
        if len(shape) != 2:
            raise RequestError(f"{path}: gives {shape} and not one vector a waveform; name an encoder")
        self.output_shape = (None, shape[1])

    def predict_on_batch(self, waveforms: np.ndarray) -> np.ndarray:
        """Vectors [shape=(batch, d)] of waveforms [shape=(batch, samples)]."""
        waveforms = np.ascontiguousarray(waveforms, np.float32)
        try:
            if self._samples is None or self._samples == waveforms.shape[1]:
                return self._batches(waveforms)
            vectors = np.stack([self._batches(part) for part in _parts(waveforms, self._samples)])
        except Exception as error:  # a shape that the file does not declare, but needs
            raise RequestError(
                f"{self._path}: takes no {waveforms.shape[1]} samples of {waveforms.shape[0]} recording(s) at once "
                f"({_reason(error)}); export it for any number and length"
            ) from error
        lengths = np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
        mean = (vectors / lengths).mean(axis=0)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12) * lengths.mean(axis=0)

    def _batches(self, waveforms: np.ndarray) -> np.ndarray:
        """Vectors of waveforms of a length that the file takes, in batches of the size that it takes."""
        if self._batch is None:
            return self._run(waveforms)
        full = np.resize(waveforms, (-(-len(waveforms) // self._batch) * self._batch, waveforms.shape[1]))
        vectors = [self._run(full[first : first + self._batch]) for first in range(0, len(full), self._batch)]
        return np.concatenate(vectors)[: len(waveforms)]

    @staticmethod
    def heard(samples: np.ndarray) -> np.ndarray:
        """Every sample: what the front end leaves out is not known from outside, so only equal lengths are a batch."""
        return samples

    @staticmethod
    def count_params() -> float:
        """NaN: the formats do not tell weights from other constants."""
        return math.nan


def _parts(waveforms: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Waveforms of the length that a file takes: evenly over the whole, or the whole repeated."""
    length = waveforms.shape[1]
    if length < samples:
        yield np.stack([np.resize(wave, samples) for wave in waveforms])
        return
    for start in np.linspace(0, length - samples, -(-length // samples)).astype(int):
        yield waveforms[:, start : start + samples]


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def sha256(file: str | os.PathLike) -> str:
    """Checksum of a file [hex]; in one process a file is read again only when its size or time has changed."""
    about = os.stat(file)
    return _sha256(os.fspath(file), about.st_size, about.st_mtime_ns, about.st_ino)


@functools.lru_cache(maxsize=64)
def _sha256(file: str, *_: int) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def record(file: Path) -> Path:
    """Where it stands what an exported file was made of."""
    return file.with_name(file.name + ".json")


def can_be_fast() -> bool:
    """Whether LiteRT is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def fast_form(source: Path) -> Path | None:
    """
    Find the LiteRT file beside a Keras file, which loads and runs without TensorFlow.

    Returns
    -------
    Path or None
        None where there is none, it was made of another state of the Keras file, or LiteRT is not installed.
    """
    file = source.with_suffix(".tflite")
    if not (source.suffix == ".keras" and file.is_file() and record(file).is_file() and can_be_fast()):
        return None
    try:
        made_of = json.loads(record(file).read_text("utf-8"))
        return file if made_of["sha256"] == sha256(source) and not made_of["int8"] else None
    except (ValueError, KeyError, TypeError):  # a record that says nothing: then the Keras file itself is taken
        return None


class _OnnxRunner:
    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone; they come as exceptions
        options.intra_op_num_threads = THREADS
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        wanted = self._session.get_inputs()[0]
        self._input, self._type = wanted.name, np.float16 if wanted.type == "tensor(float16)" else np.float32
        self.shape = _fixed(wanted.shape)

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run(None, {self._input: waveforms.astype(self._type)})[0], np.float32)


def _fixed(shape: Sequence) -> tuple[int | None, int | None]:
    """Batch and samples that a file takes, each None where it takes any number."""
    if len(shape) != 2:
        raise ValueError(f"it takes {len(shape)} axes, and not recordings of samples")
    batch, samples = (size if isinstance(size, int) and size > 0 else None for size in map(_whole, shape))
    return batch, samples


def _whole(size: object) -> object:
    return int(size) if isinstance(size, np.integer) else size


class _LiteRtRunner:
    def __init__(self, path: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=THREADS)
        (wanted,) = self._interpreter.get_input_details()
        self._input = wanted["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self.shape = _fixed(wanted["shape_signature"])

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        if None in self.shape:
            self._interpreter.resize_tensor_input(self._input, waveforms.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, waveforms)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)
