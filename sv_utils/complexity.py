"""How much a model has to compute."""

import math

import keras
import numpy as np


def multiply_accumulates(model: keras.Model, samples: int) -> float:
    """
    Multiplications with weights that a waveform costs: those of convolutions and dense layers.

    Each element of a layer's kernel is used once at each place of its output. What has no weights, the front end above
    all, is left out, as it is in published figures.

    Parameters
    ----------
    model : keras.Model
        See `encoder.build`.
    samples : int
        Length of the waveform.

    Returns
    -------
    float
        NaN for a model whose layers cannot be seen (an ONNX file).

    Examples
    --------
    >>> multiply_accumulates(encoder.build(), 32_240) / 1e9  # doctest: +SKIP
    4.5
    """
    if not isinstance(model, keras.Model):
        return math.nan
    layers = [layer for layer in model._flatten_layers() if getattr(layer, "kernel", None) is not None]
    counts = []
    for layer in layers:
        layer.call = _counting(layer.call, math.prod(layer.kernel.shape), counts)
    try:
        model(np.zeros((1, samples), "float32"))
    finally:
        for layer in layers:
            del layer.call  # the class's own comes back
    return sum(counts)


def _counting(call, kernel_size: int, counts: list[int]):
    def counted(*inputs, **options):
        outputs = call(*inputs, **options)
        counts.append(kernel_size * math.prod(outputs.shape[1:-1]))  # all axes but the batch and the channels
        return outputs

    return counted
