"""Encoders in other formats than Keras's, run by ONNX Runtime or LiteRT: neither Keras nor TensorFlow is imported."""

import hashlib
import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError

RUNTIMES = {".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}  # file suffix to the package that runs it
THREADS = min(4, os.cpu_count() or 1)


class Exported:
    """
    An encoder file with what `embedding.embed` needs of a model.

    Parameters
    ----------
    path : path
        ``.onnx`` or ``.tflite``: waveform [shape=(batch, samples)] float32 in [-1, 1) at 16 kHz, any number of samples
        from 0.5 s on → vectors [shape=(batch, d)].

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
        path = Path(path)
        if not path.is_file():
            raise RequestError(f"{path}: there is no such model file; export one or name another")
        runner = _OnnxRunner if path.suffix == ".onnx" else _LiteRtRunner
        try:
            self._run = runner(path)
            shape = np.shape(self._run(np.zeros((1, 16_000), np.float32)))
        except ImportError:
            package = RUNTIMES[path.suffix]
            raise RequestError(
                f"{path}: the package {package}, which runs such files, is not installed; pip install {package}"
            ) from None
        except Exception as error:  # either runtime has kinds of its own, and so has a model that takes no waveform
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RequestError(f"{path}: not an encoder that takes any waveform ({reason}); export it anew") from error
        if len(shape) != 2:
            raise RequestError(f"{path}: gives {shape} and not one vector a waveform; name an encoder")
        self.output_shape = (None, shape[1])

    def predict_on_batch(self, waveforms: np.ndarray) -> np.ndarray:
        """Vectors [shape=(batch, d)] of waveforms [shape=(batch, samples)]."""
        return self._run(np.ascontiguousarray(waveforms, np.float32))

    @staticmethod
    def heard(samples: np.ndarray) -> np.ndarray:
        """Every sample: what the front end leaves out is not known from outside, so only equal lengths are a batch."""
        return samples

    @staticmethod
    def count_params() -> float:
        """NaN: the formats do not tell weights from other constants."""
        return math.nan


def sha256(file: str | os.PathLike) -> str:
    """Checksum of a file [hex]."""
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
    made_of = json.loads(record(file).read_text("utf-8"))
    return file if made_of["sha256"] == sha256(source) and not made_of["int8"] else None


class _OnnxRunner:
    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone; they come as exceptions
        options.intra_op_num_threads = THREADS
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: waveforms})[0]


class _LiteRtRunner:
    def __init__(self, path: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=THREADS)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        self._interpreter.resize_tensor_input(self._input, waveforms.shape)
        self._interpreter.allocate_tensors()
        self._interpreter.set_tensor(self._input, waveforms)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)
