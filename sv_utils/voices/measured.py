"""What was measured of an encoder: its calibration, its operating points, its known scores."""

import csv
import json
import math
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.models import pretrained
from sv_utils.pipeline.stages import LAST, TRAINING


def known(model: str, false_accept: float | None = None) -> tuple[Calibration, dict]:
    """
    Find what was measured of a model: its calibration and its operating point.

    Raises
    ------
    RequestError
        If it was not evaluated, or not at the wanted rate of false acceptances.
    """
    if model in pretrained.PUBLISHED:
        card = pretrained.card(model)
        fields = card["calibration"]
        calibration = Calibration(**{**fields, "features": tuple(fields["features"])})
        points = card["operating_points"]
    else:
        folder = evaluation(Path(model))
        calibration = Calibration.load(folder / "calibration.json")
        row = json.loads((folder / "metrics.json").read_text("utf-8"))[0]  # of the model itself, on its first list
        points = row.get("operating_points")
        if not points:
            raise RequestError(f"{folder / 'metrics.json'} has no operating points; evaluate it anew (make reproduce)")
    for point in points:
        if point["wanted"] == false_accept:
            return calibration, point
    measured = ", ".join(f"{point['wanted']:g}" for point in points if point["wanted"])
    raise RequestError(f"--false-accept {false_accept:g} was not measured of {model}; give one of {measured}, or none")


def scores(model: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Give the cosines of the target and the non-target trials of the list that the error rates of `known` come from.

    Raises
    ------
    RequestError
        If the model was not evaluated.
    """
    if model in pretrained.PUBLISHED:
        return pretrained.scores(model)
    file = evaluation(Path(model)) / f"scores_{known(model)[1]['list']}.csv"
    with open(file, encoding="utf-8") as rows:
        labels, cosines = np.array([(row["label"], row["score"]) for row in csv.DictReader(rows)], float).T
    return cosines[labels == 1], cosines[labels == 0]


def evaluation(model: Path) -> Path:
    """
    Find the folder of the stage that judged the model of a training stage.

    Raises
    ------
    RequestError
        If there is no such model, or it was not evaluated.
    """
    training = TRAINING.fullmatch(model.absolute().parent.name)
    name = training["model"] if training else "MODEL"
    folder = model.absolute().parent.parent / f"{LAST[0]}@{name}"
    if not (folder / "metrics.json").is_file() or not (folder / "calibration.json").is_file():
        pretrained.load(model)  # a wrong name is told as such
        raise RequestError(
            f"{model}: what its scores mean is not known, for calibration.json and metrics.json of {folder.name} do "
            "not lie beside its training stage; evaluate it (make reproduce), or leave --model out"
        )
    return folder


def limited(ratio: float, calibration: Calibration) -> float:
    """As many trials as the calibration saw cannot show that something is rarer than one in so many."""
    return min(max(ratio, -math.log(calibration.n_target + 1)), math.log(calibration.n_nontarget + 1))
