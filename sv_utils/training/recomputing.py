"""Gradient checkpointing: of each block of an encoder its input alone is kept, and the rest computed once more."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from sv_utils.training import schedules

FEWEST = 7  # layers of a block: two convolutions with all that belongs to them


def recomputed(encoder: keras.Model) -> Callable[..., Any]:
    """
    Give an encoder's function in a form that needs less memory in training, and a forward pass more of time.

    The encoder is cut where one tensor alone leads on, into blocks of `FEWEST` layers or more. Blocks without weights
    to learn, and those that draw random numbers (which would be others the second time), are left as they are.

    Parameters
    ----------
    encoder : keras.Model
        A functional model; its layers are used, not copied.

    Returns
    -------
    callable
        ``(waveforms [shape=(batch, samples)], training)`` to embeddings, the same as the encoder's.

    References
    ----------
    Chen, Xu, Zhang, Guestrin: Training deep nets with sublinear memory cost, arXiv 1604.06174, section 3.
    """
    blocks = _blocks(encoder)

    def embed(values: Any, training: bool = False) -> Any:
        for block in blocks:
            again = training and block.trainable_weights and not _draws(block)
            values = _twice(block)(values) if again else block(values, training=training)
        return values

    return embed


def _blocks(encoder: keras.Model) -> list[keras.Model]:
    """Parts of an encoder, one after the other."""
    ends, layers = [encoder.inputs[0]], 0
    for position, operation in enumerate(encoder.operations):
        layers += 1
        output = operation.output
        if layers >= FEWEST and output is not encoder.outputs[0] and _leads_alone(encoder, position, output):
            ends.append(output)
            layers = 0
    ends.append(encoder.outputs[0])
    return [keras.Model(start, end) for start, end in itertools.pairwise(ends)]


def _leads_alone(encoder: keras.Model, position: int, output: Any) -> bool:
    """Whether nothing but this output of the operation at `position` is needed by the operations after it."""
    if isinstance(output, list | tuple):
        return False
    later = set(map(id, encoder.operations[position + 1 :]))
    needed = {
        id(tensor)
        for operation in encoder.operations[position + 1 :]
        for tensor in operation._inbound_nodes[0].input_tensors
        if id(tensor._keras_history.operation) not in later
    }
    return needed == {id(output)}


def _draws(block: keras.Model) -> bool:
    return any(
        isinstance(found, keras.random.SeedGenerator)
        for layer in block._flatten_layers()
        for found in vars(layer).values()
    )


def _twice(block: keras.Model) -> Callable[[Any], Any]:
    """A block in training that is computed again for its gradient, without counting its statistics twice."""
    normalizations = schedules.normalizations(block)
    passes: list[bool] = []

    def run(values: Any) -> Any:
        with _as_they_are(normalizations) if passes else contextlib.nullcontext():
            passes.append(True)
            return block(values, training=True)

    return keras.remat(run)


@contextlib.contextmanager
def _as_they_are(normalizations: list) -> Iterator[None]:
    """Let BatchNormalization layers keep their moving statistics."""
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 1.0
    try:
        yield
    finally:
        for layer, momentum in zip(normalizations, momenta):
            layer.momentum = momentum
