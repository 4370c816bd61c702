"""How much a model has to compute."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def multiply_accumulates(model: keras.Model, samples: int) -> float:
    """
    Count the multiplications with weights for one waveform, in convolutions, dense and recurrent layers.

    Each element of a layer's kernel is used once at each place of its output, that of a recurrent layer at each place
    of its input. What has no weights, the front end above all, is left out, as it is in published figures.

    Parameters
    ----------
    model : keras.Model
        See `encoders.build`.
    samples : int
        Length of the waveform.

    Returns
    -------
    float
        NaN for a model whose layers cannot be seen (an ONNX file).

    Examples
    --------
    >>> from sv_utils.models import encoders
    >>> round(multiply_accumulates(encoders.build(), 32_240) / 1e9, 2)
    4.61
    """
    if not isinstance(model, keras.Model):
        return math.nan
    found = list(model._flatten_layers())
    recurrent = [layer for layer in found if isinstance(layer, keras.layers.RNN)]
    cells = [layer.cell for layer in recurrent]  # called by their layer, in a loop that may be traced only once
    layers = [layer for layer in found if layer not in cells and getattr(layer, "kernel", None) is not None]
    counts: list[int] = []
    for layer in layers:
        layer.call = _counting(layer.call, math.prod(layer.kernel.shape), counts)
    for layer, cell in zip(recurrent, cells):
        size = math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)
        layer.call = _counting(layer.call, size, counts, of_input=True)
    try:
        model(np.zeros((1, samples), "float32"))
    finally:
        for layer in (*layers, *recurrent):
            del layer.call  # the class's own comes back
    return sum(counts)


def properties(model: keras.Model) -> dict[str, float]:
    """
    Say how large an encoder is.

    Returns
    -------
    dict
        ``parameters``, ``dimensions`` of the embedding, ``macs_of_3_s``: `multiply_accumulates` of 3 s at 16 kHz.
    """
    counted = {"parameters": model.count_params(), "dimensions": model.output_shape[1]}
    return counted | {"macs_of_3_s": multiply_accumulates(model, 48_000)}


def _counting(call: Callable, kernel_size: int, counts: list[int], of_input: bool = False) -> Callable:
    def counted(*inputs: Any, **options: Any) -> Any:
        outputs = call(*inputs, **options)
        places = inputs[0].shape if of_input else outputs.shape
        counts.append(kernel_size * math.prod(places[:-1]))  # all axes but the channels; the batch is one waveform
        return outputs

    return counted
