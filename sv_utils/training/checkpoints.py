"""The state of a training on disk, and the weights that are made of several: averages over steps and over epochs."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.models import encoders
from sv_utils.training.schedules import normalizations


@dataclasses.dataclass
class Progress:
    """What a training has to remember besides the variables of model and optimizer; saved with them."""

    phase: int = 0  # number of the present phase, from 0
    phase_step: int = 0  # steps of it that are done
    step: int = 0  # steps done in all phases: the number of the next batch
    epoch: int = 0  # epochs done in all phases
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of loss and accuracy over the present epoch
    seconds: float = 0.0  # spent on the present epoch
    plateau: float = 1.0  # what plateaus have left of the learning rate
    best_eer: float = math.inf
    phase_best: float = math.inf
    epochs_without_gain: int = 0
    history: list[dict] = dataclasses.field(default_factory=list)
    steps: list[dict] = dataclasses.field(default_factory=list)


def write(path: Path, model: keras.Model, progress: Progress) -> None:
    """Write the whole state of a training (weights, random states, optimizer, progress) to one ``.npz`` file."""
    arrays = {f"model_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    with replace_on_success(path) as temporary:
        np.savez(temporary, progress=json.dumps(dataclasses.asdict(progress)), **arrays)


def read_progress(path: Path) -> Progress:
    """Progress of the checkpoint, or a fresh one where there is none."""
    if not path.exists():
        return Progress()
    with np.load(path) as arrays:
        return Progress(**json.loads(str(arrays["progress"])))


def read_variables(path: Path, owner: str, variables: list[keras.Variable]) -> None:
    """
    Set the variables of ``owner`` ("model" or "optimizer") from a checkpoint.

    Raises
    ------
    RequestError
        If the checkpoint is of another model.
    """
    with np.load(path) as arrays:
        for i, variable in enumerate(variables):
            found = arrays.get(f"{owner}_{i}")
            if found is None or found.shape != tuple(variable.shape):
                raise RequestError(f"{path} is the checkpoint of another model; remove it to train anew")
            variable.assign(found)


def save(encoder: keras.Model, path: Path) -> None:
    """Save an encoder so that `path` never holds a part of it."""
    with replace_on_success(path) as temporary:
        encoder.save(temporary)


def digest(model: keras.Model) -> str:
    """Give the sha256 [hex] of all weights of a model, in their order."""
    found = hashlib.sha256()
    for weight in model.get_weights():
        found.update(np.ascontiguousarray(weight).tobytes())
    return found.hexdigest()


def copy_weights(model: keras.Model, target: keras.Model) -> None:
    """
    Give a model the weights of another that is in training, or their moving averages where its optimizer keeps them.

    Parameters
    ----------
    model, target : keras.Model
        Of one architecture; `model` is compiled.
    """
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = {}
    if inner.use_ema:
        averages = dict(zip(map(id, model.trainable_variables), inner._model_variables_moving_average))
    for variable, new in zip(model.weights, target.weights, strict=True):
        new.assign(keras.ops.convert_to_numpy(averages.get(id(variable), variable)))


def write_weights(path: Path, model: keras.Model) -> None:
    """Write the weights of a model to an ``.npz`` file."""
    with replace_on_success(path) as temporary:
        np.savez(temporary, *(keras.ops.convert_to_numpy(weight) for weight in model.weights))


def average(paths: list[Path], model: keras.Model) -> None:
    """
    Give a model the mean of the weights that `write_weights` wrote.

    References
    ----------
    Izmailov et al.: Averaging weights leads to wider optima and better generalization, arXiv 1803.05407, section 3.
    """
    files = [np.load(path) for path in paths]
    for i, weight in enumerate(model.weights):
        weight.assign(np.mean([file[f"arr_{i}"] for file in files], axis=0, dtype="float64"))


def renew_statistics(encoder: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """
    Set means and variances of the BatchNormalization layers to those under the present weights.

    What training has gathered belongs to the weights as they were, and not to an average of them (arXiv 1803.05407,
    section 3.2). Layers at rest keep theirs.

    Parameters
    ----------
    encoder : keras.Model
    batches : iterable of np.ndarray [shape=(batch, samples)]
        Training waveforms; the statistics are the mean over these batches.
    """
    weights = set(map(id, encoder.weights))
    for state in (variable for variable in encoder.variables if id(variable) not in weights):
        state.assign(np.zeros(state.shape))  # random masks begin anew, so that a resumed training sees the same ones
    layers = [layer for layer in normalizations(encoder) if layer.trainable]
    momenta = [layer.momentum for layer in layers]
    for i, waveforms in enumerate(batches):
        for layer in layers:
            layer.momentum = i / (i + 1)  # the moving average becomes the mean
        encoder(waveforms, training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum


def shift(encoder: keras.Model) -> keras.Variable:
    """
    Give what the layer before unit length adds to an embedding: the bias of a dense layer, or the beta of a
    normalisation.

    Raises
    ------
    RequestError
        If there is none, so that the encoder cannot be centred.
    """
    if encoders.unnormalised(encoder) is not None:
        for name in ("bias", "beta"):
            if (found := getattr(encoder.layers[-2], name, None)) is not None:
                return found
    raise RequestError(
        "outcome.centred: this encoder adds nothing to its embedding before unit length; set it to false"
    )


def centre(encoder: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """
    Take the mean embedding of training crops away, within the encoder: its cosines are then those less the mean.

    Parameters
    ----------
    encoder : keras.Model
        One that has a `shift`.
    batches : iterable of np.ndarray [shape=(batch, samples)]
        Training waveforms; the mean is that of the embeddings as they are before unit length.

    References
    ----------
    wespeaker, ``bin/score.py``: the mean is that of all embeddings of VoxCeleb2-dev, taken away before the cosine.
    """
    raw = encoders.unnormalised(encoder)
    assert raw is not None  # since it has a shift
    mean = np.mean([raw.predict_on_batch(waveforms).mean(axis=0) for waveforms in batches], axis=0)
    added = shift(encoder)
    added.assign(keras.ops.convert_to_numpy(added) - mean)
