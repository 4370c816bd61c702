"""What a phase of training prescribes: its optimizer, the learning rate and margin of each step, the layers at rest."""

import math
from collections.abc import Mapping, Sequence

import keras

from sv_utils.base.errors import RequestError, nearest

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("plateau", "exponential", "cosine", "one_cycle")
FROZEN = ("none", "batch_normalization", "encoder")
GROWTHS = ("linear", "exponential")


def check(phases: Sequence[Mapping]) -> None:
    """
    Check the values of all phases before anything runs.

    Raises
    ------
    RequestError
        Naming the phase, the key and the mend.
    """
    for number, phase in enumerate(phases):
        names = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "frozen": FROZEN}
        if "margin" in phase:
            names["margin_growth"] = GROWTHS
        for key, known in names.items():
            if phase[key] not in known:
                raise RequestError(f"phases[{number}].{key}: there is no {phase[key]!r}{nearest(phase[key], known)}")
        if not 0 <= (share := phase.get("hard_margin_share", 0)) <= 1:
            raise RequestError(f"phases[{number}].hard_margin_share is a share of hard_margin, 0 to 1, not {share}")
        if phase["schedule"] == "exponential" and not 0 < phase["final_learning_rate"] <= phase["learning_rate"]:
            raise RequestError(
                f"phases[{number}].final_learning_rate must be above 0 and not above learning_rate for an "
                f"exponential schedule, not {phase['final_learning_rate']}"
            )
        if phase["optimizer"] == "adam" and phase["weight_decay"]:
            raise RequestError(f"phases[{number}].weight_decay: adam has none; set it to 0.0, or take adamw")
        if not 0 <= phase["ema"] < 1:
            raise RequestError(f"phases[{number}].ema is a decay from 0 (off) to below 1, not {phase['ema']}")
        for key in ("epochs", "accumulate"):
            if phase[key] < 1:
                raise RequestError(f"phases[{number}].{key} must be 1 or more, not {phase[key]}")


def learning_rate(phase: Mapping, step: int, steps_per_epoch: int) -> float:
    """
    Learning rate of one step; what a plateau has taken off comes on top.

    With the share p of the phase's steps that are done, peak a and final rate b: ``plateau`` stays at a;
    ``exponential`` is ``a (b / a)^p``; ``cosine`` is ``b + (a - b) (1 + cos(pi p)) / 2``. These three rise in
    proportion to the steps during ``warmup_epochs``. ``one_cycle`` goes up from a / 25 to a along a cosine during
    them, and down to b along another afterwards (the momentum stays as it is).

    Parameters
    ----------
    phase : mapping
        ``schedule, learning_rate, final_learning_rate, warmup_epochs, epochs``.
    step : int
        Number of the step within the phase, from 0.
    steps_per_epoch : int

    References
    ----------
    Loshchilov, Hutter: SGDR, arXiv 1608.03983, equation 5 (cosine). Smith, Topin: Super-convergence, arXiv 1708.07120
    (one cycle). Exponential with warm-up: as in wespeaker's recipes for VoxCeleb.

    Examples
    --------
    >>> phase = {"schedule": "cosine", "learning_rate": 0.1, "final_learning_rate": 0.0, "epochs": 2}
    >>> phase["warmup_epochs"] = 0.0
    >>> [round(learning_rate(phase, step, 2), 3) for step in range(4)]
    [0.1, 0.075, 0.025, 0.0]
    """
    peak, final = phase["learning_rate"], phase["final_learning_rate"]
    last, rise = max(1, phase["epochs"] * steps_per_epoch - 1), phase["warmup_epochs"] * steps_per_epoch
    if phase["schedule"] == "one_cycle":
        if step < rise:
            return _cosine(peak / 25, peak, step / rise)
        return _cosine(peak, final, min(1.0, (step - rise) / max(1.0, last - rise)))
    warm, done = min(1.0, (step + 1) / rise) if rise else 1.0, min(1.0, step / last)
    if phase["schedule"] == "exponential":
        return warm * peak * (final / peak) ** done
    return warm * (_cosine(peak, final, done) if phase["schedule"] == "cosine" else peak)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def margin(phase: Mapping, epochs: float) -> float:
    """
    Margin after so many epochs of a phase: 0 until ``margin_start_epoch``, ``margin`` from ``margin_end_epoch`` on.

    In between it grows with the share p of the way: as p (``linear``), or as ``1 - 0.001^p`` (``exponential``), which
    rises fast at first.

    Parameters
    ----------
    phase : mapping
        ``margin, margin_start_epoch, margin_end_epoch, margin_growth``.
    epochs : float
        Epochs of the phase that are done, with the fraction of the present one.

    References
    ----------
    Wang et al.: Wespeaker, arXiv 2210.17016, section 2.5.
    """
    start, end = phase["margin_start_epoch"], phase["margin_end_epoch"]
    if epochs >= end:
        return phase["margin"]
    if epochs < start:
        return 0.0
    done = (epochs - start) / (end - start)
    return phase["margin"] * (done if phase["margin_growth"] == "linear" else 1 - 0.001**done)


def of_head(phase: Mapping, epochs: float) -> dict[str, float]:
    """
    What a head's variables are after so many epochs of a phase, by their names: ``margin``, and ``hard_share``.

    The margin of the nearest non-targets grows as the margin does. It is all there when that is, and times
    ``hard_margin_share`` of the phase, which is 0 in a large-margin phase.

    Parameters
    ----------
    phase : mapping
        See `margin`; ``hard_margin_share`` where the loss has such a margin. Empty where it has none at all.
    epochs : float
        As in `margin`.

    References
    ----------
    arXiv 2110.05042, section 3; how it grows and leaves is wespeaker's, ``ArcMarginProduct_intertopk_subcenter``.
    """
    if "margin" not in phase:
        return {}
    now = margin(phase, epochs)
    if "hard_margin_share" not in phase:
        return {"margin": now}
    grown = now / phase["margin"] if phase["margin"] else 0.0
    return {"margin": now, "hard_share": phase["hard_margin_share"] * grown}


def optimizer(phase: Mapping, scale_loss: bool = False, replicas: int = 1) -> keras.optimizers.Optimizer:
    """
    Optimizer of a phase; biases, scales and normalisation parameters are spared by the weight decay.

    The decay is taken off the weights directly (``w -= learning_rate weight_decay w``). Under momentum 0.9 that is a
    tenth of what the same number does as an L2 term of the loss, as which other frameworks' SGD has it.

    Parameters
    ----------
    phase : mapping
        ``optimizer, learning_rate, momentum, nesterov, weight_decay, clip_norm, ema, accumulate``.
    scale_loss : bool
        Scale the loss so that float16 gradients do not vanish, and pass over steps whose gradients overflow.
    replicas : int
        Devices that share a batch. Each clips its own part of the gradient, so that the sum is within ``clip_norm``.
    """
    accumulate = phase["accumulate"]
    options = {
        "learning_rate": phase["learning_rate"],
        "weight_decay": phase["weight_decay"] or None,
        "global_clipnorm": phase["clip_norm"] / replicas or None,
        "use_ema": phase["ema"] > 0,
        # Keras averages after each batch, also where the weights change only every few.
        "ema_momentum": phase["ema"] ** (1 / accumulate),
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
    }
    if phase["optimizer"] == "sgd":
        made = keras.optimizers.SGD(momentum=phase["momentum"], nesterov=phase["nesterov"], **options)
    else:
        made = keras.optimizers.Adam(**options)  # decays as AdamW does; `check` keeps that from the name "adam"
    made.exclude_from_weight_decay(var_names=["bias", "scale", "gamma", "beta"])
    return keras.optimizers.LossScaleOptimizer(made) if scale_loss else made


def freeze(encoder: keras.Model, frozen: str) -> None:
    """
    Let layers of an encoder rest, and all others learn.

    Parameters
    ----------
    encoder : keras.Model
    frozen : str
        ``"none"``; ``"batch_normalization"``: all layers of this kind but the last, which precedes the L2 normalisation
        of the embedding (the original system's second phase: their statistics and affine parameters stay as they are);
        ``"encoder"``: everything, so that a new head finds its place on a trained encoder first.
    """
    encoder.trainable = frozen != "encoder"
    if frozen != "encoder":
        for layer in normalizations(encoder)[:-1]:
            layer.trainable = frozen != "batch_normalization"


def normalizations(encoder: keras.Model) -> list[keras.layers.BatchNormalization]:
    """BatchNormalization layers of an encoder, in their order."""
    layers = encoder._flatten_layers()  # `layers` leaves out those within other layers
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
