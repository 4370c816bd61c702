"""
Write an encoder for other runtimes: LiteRT or ONNX.

The front end goes along: the file takes waveforms of any number and length. What is written is checked on the spot
against the Keras model, and removed when it fails.
"""

import contextlib
import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.paths import replace_on_success
from sv_utils.models import embedding, pretrained, runtimes
from sv_utils.speech import audio
from sv_utils.speech.archives import test_voices

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
NEEDS = {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "litert": ("ai_edge_litert",)}
MOST_EER = 0.005  # that int8 may add to the equal error rate
LEAST_COSINE = 0.9999  # between the embeddings of a float file and those of the model
LENGTHS = (8_000, 16_001, 48_123, 160_000)  # of the speech that a float file is checked on [samples]
VOICES = 4  # in that speech; of twelve the cosines of CAM++ differ by less than a millionth


def export(
    model: str | os.PathLike,
    to: str,
    out: str | os.PathLike | None = None,
    int8: bool = False,
    judge: Callable[[Any, Any], dict] | None = None,
) -> tuple[Path, dict]:
    """
    Write an encoder as ONNX or LiteRT file.

    Parameters
    ----------
    model : str or path
        Published encoder or ``.keras`` file.
    to : str
        ``"onnx"`` or ``"litert"``.
    out : path, optional
        File to write; by default beside the model, with the format's suffix.
    int8 : bool
        Round the weights of the network, not of the front end, to 8 bits (dynamic quantisation).
    judge : callable, optional
        Needed for int8: takes the written file and the Keras model, and gives ``list, n_speakers, n_trials, eer`` (of
        both) and ``eer_change``.

    Returns
    -------
    file : Path
    found : dict
        ``source, sha256`` (of the Keras file), ``format, int8, megabytes``, and what the check found: ``cosine`` (the
        least of the checked recordings) and for int8 ``list, n_speakers, n_trials, eer`` of both, and ``eer_change``
        as [change, low, high] of its 95 % interval over speakers.

    Raises
    ------
    RequestError
        An unknown format, no such model, or a package that writes or runs the format is not installed.
    WorkError
        The file fails its check; it is not left behind.
    """
    if int8 and judge is None:
        raise RequestError("int8 needs `judge`, which says what it costs; give one, or leave int8 out")
    if to not in SUFFIXES:
        raise RequestError(f"there is no format {to!r}; give onnx or litert")
    missing = [name for name in NEEDS[to] if importlib.util.find_spec(name) is None]
    if missing:
        packages = " ".join(missing).replace("_", "-")
        raise RequestError(f"{to} needs packages that are not installed; python -m pip install {packages}")
    source = pretrained.locate(model)
    encoder = pretrained.load(source)
    if source.suffix in runtimes.RUNTIMES:
        raise RequestError(f"{source} is an export itself; name the .keras file")
    out = Path(out) if out else source.with_suffix((".int8" if int8 else "") + SUFFIXES[to])
    if out.suffix != SUFFIXES[to]:
        raise RequestError(f"{out}: a file of {to} ends in {SUFFIXES[to]}; name it so")
    with replace_on_success(out) as temporary:
        try:
            write(encoder, to, temporary, int8)
        except Exception as error:  # the converters raise many kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise WorkError(f"{source} cannot be converted to {to} ({reason}); try the other format") from error
        written = pretrained.load(temporary)
        found = {"source": os.fspath(model), "sha256": runtimes.sha256(source), "format": to, "int8": int8}
        found["megabytes"] = round(temporary.stat().st_size / 1e6, 2)
        found["cosine"] = _least_cosine(encoder, written)
        if int8 and judge:
            found |= judge(written, encoder)
        _refuse(out, found)
        with replace_on_success(runtimes.record(out)) as record:
            record.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return out, found


def _refuse(out: Path, found: dict) -> None:
    if found["int8"]:
        if found["eer_change"][0] > MOST_EER:
            raise WorkError(
                f"{out} is not written: int8 raises the equal error rate from {found['eer'][1]:.2%} to "
                f"{found['eer'][0]:.2%} on {found['list']}, more than {MOST_EER:.1%}; export without --int8"
            )
    elif not found["cosine"] >= LEAST_COSINE:
        raise WorkError(
            f"{out} is not written: its embeddings have a cosine of {found['cosine']:.6f} with the model's, less than "
            f"{LEAST_COSINE}; the converter is at fault"
        )


def write(encoder: Any, to: str, out: Path, int8: bool = False) -> None:
    """Write a Keras model in another format, without the check of `export`; the parameters are those of `export`."""
    (_write_onnx if to == "onnx" else _write_litert)(encoder, out, int8)


def _signature() -> list:
    import keras

    return [keras.InputSpec("float32", shape=(None, None), name="waveform")]


def _write_onnx(encoder: Any, out: Path, int8: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="sv_utils") as folder:
        plain = Path(folder) / "float.onnx" if int8 else out
        with _matrix_spectrum(), _plain_gelu():
            encoder.export(plain, format="onnx", verbose=False, input_signature=_signature(), opset_version=17)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(plain, out, weight_type=QuantType.QUInt8)


def _write_litert(encoder: Any, out: Path, int8: bool) -> None:
    """Convert a traced call: Keras's own export saves the model and loads it again, which takes most of its time."""
    import tensorflow as tf

    call = tf.function(lambda waveform: encoder(waveform, training=False))
    with _spectrum_of_powers_of_2(), _exact_front_end() if int8 else contextlib.nullcontext():
        traced = call.get_concrete_function(waveform=tf.TensorSpec((None, None), tf.float32, "waveform"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], encoder)
    converter.experimental_lower_to_saved_model = False
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if int8 else []
    out.write_bytes(converter.convert())


@contextlib.contextmanager
def _matrix_spectrum() -> Iterator[None]:
    """Compute the spectrum by a matrix of sines and cosines: the converter to ONNX knows no Fourier transform."""
    from keras import ops

    def stft(waveform: Any, sequence_length: int, hop: int, fft_length: int, window: Any, center: bool) -> list:
        around = (fft_length - sequence_length) // 2
        window = np.pad(window, (around, fft_length - sequence_length - around))
        return _by_matrix(ops.extract_sequences(waveform, fft_length, hop) * window, fft_length)

    with mock.patch.object(ops, "rfft", _by_matrix), mock.patch.object(ops, "stft", stft), _exact_front_end():
        yield


@contextlib.contextmanager
def _plain_gelu() -> Iterator[None]:
    """Compute GELU by the error function: the converter to ONNX does not know its complement, TensorFlow's way."""
    import tensorflow

    own = tensorflow.nn.gelu

    def gelu(values: Any, approximate: bool = False) -> Any:
        return own(values, True) if approximate else 0.5 * values * (1 + tensorflow.math.erf(values / math.sqrt(2)))

    with mock.patch.object(tensorflow.nn, "gelu", gelu):
        yield


@contextlib.contextmanager
def _spectrum_of_powers_of_2() -> Iterator[None]:
    """Compute by a matrix the spectrum of frames of other lengths, of which LiteRT has no Fourier transform."""
    from keras import ops

    plain = ops.rfft

    def rfft(frames: Any, fft_length: int) -> list:
        return (plain if fft_length.bit_count() == 1 else _by_matrix)(frames, fft_length)

    with mock.patch.object(ops, "rfft", rfft):
        yield


def _by_matrix(frames: Any, fft_length: int) -> list:
    """Real and imaginary parts [shape=(..., fft_length // 2 + 1)] of frames [shape=(..., n)]."""
    from keras import ops

    angles = np.outer(np.arange(frames.shape[-1]), np.arange(fft_length // 2 + 1)) * (2 * np.pi / fft_length)
    return [ops.matmul(frames, wave.astype("float32")) for wave in (np.cos(angles), -np.sin(angles))]


@contextlib.contextmanager
def _exact_front_end() -> Iterator[None]:
    """
    Keep the front end's matrices from being rounded to 8 bits: in quiet bands nothing would be left.

    Only constants are rounded: 0 in a form that no compiler sees through makes a matrix none.
    """
    from keras import ops

    plain = ops.matmul

    def matmul(values: Any, matrix: Any) -> Any:
        if isinstance(matrix, np.ndarray):  # the network's own matrices are variables
            matrix = matrix + ops.minimum(ops.min(ops.square(values)), 0)
        return plain(values, matrix)

    with mock.patch.object(ops, "matmul", matmul):
        yield


def _speech() -> list[np.ndarray]:
    """Real speech of the embedded corpus: `VOICES` voices, a piece of each of `LENGTHS` of each."""
    with test_voices() as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        voices = [audio.decode(archive.read(name)).samples for name in names[:: len(names) // VOICES][:VOICES]]
    return [np.resize(voice, length) for voice in voices for length in LENGTHS]


def _least_cosine(encoder: Any, written: Any) -> float:
    """Between embeddings of either; the Keras model is called as it is, for a graph of each length takes longer."""

    def called(waveforms: np.ndarray) -> np.ndarray:
        return np.asarray(encoder(waveforms, training=False))

    sounds = _speech()
    plain = SimpleNamespace(output_shape=encoder.output_shape, layers=encoder.layers, predict_on_batch=called)
    pair = (embedding.embed(model, [len(s) for s in sounds], sounds.__getitem__) for model in (plain, written))
    return float(np.min(np.sum(np.multiply(*pair), axis=1)))
