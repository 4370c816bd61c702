"""Random weights and a sound that are the same wherever they are drawn, for the authors' code and for ours."""

import numpy as np


def sound(samples: int = 20_000) -> np.ndarray:
    """Noise that swells and fades, in [-1, 1) at 16 kHz [shape=(samples,), float32], as whole steps of int16."""
    draws = np.random.RandomState(0)  # whose numbers numpy keeps for ever
    loudness = 0.05 + 0.1 * np.sin(np.arange(samples) / 3000) ** 2
    filtered = np.convolve(draws.standard_normal(samples), [1.0, 0.9, 0.5], "same")
    return np.rint(32768 * loudness * filtered).astype(np.float32) / np.float32(32768)


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Arrays of a state dict by their names and shapes, of a size that keeps a network's values near 1."""
    draws = np.random.RandomState(1)
    return {name: _drawn(name, shape, draws) for name, shape in sorted(shapes.items())}


def _drawn(name: str, shape: list[int], draws: np.random.RandomState) -> np.ndarray:
    values = draws.standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        values = 1 + 0.2 * np.tanh(values)
    elif len(shape) == 1 and name.endswith("weight"):  # of a normalisation
        values = 1 + 0.2 * values
    elif len(shape) <= 1:
        values = 0.2 * values
    elif not name.endswith(".w"):
        values = values * (1.5 / np.prod(shape[1:])) ** 0.5
    return values.astype(np.float32)
