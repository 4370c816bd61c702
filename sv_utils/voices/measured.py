"""What was measured of an encoder: its calibration, its operating points, its known scores."""

import csv
import json
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation.calibration import Calibration
from sv_utils.models import pretrained, runtimes
from sv_utils.pipeline.stages import LAST, TRAINING
from sv_utils.voices import ratios
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Plain
from sv_utils.voices.ratios import Ratios

Judge = Ratios | Plain


def judge(model: str, false_accept: float | None = None) -> Judge:
    """
    Give what tells two voices apart from one by the embeddings of a model.

    Parameters
    ----------
    model : str
        As of `compare.compare`.
    false_accept : float, optional
        Wanted share of different voices accepted.

    Returns
    -------
    Judge
        A callable from two `Side` to a `Judgement`.

    Raises
    ------
    RequestError
        If the model was not evaluated, or not at the wanted rate of false acceptances.
    """
    return ratios.load(model, false_accept) or Plain(*known(model, false_accept))


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


def among(answer: dict, model: str) -> dict:
    """
    Give what an answer of `compare.compare` lies among: the scores of pairs that are known to be one voice or two.

    Returns
    -------
    dict
        ``target, nontarget`` (np.ndarray), ``threshold``, ``score`` (None where there is no answer), all scores, as
        the answer tells them; ``counts`` (trials of either kind) and ``label``. They are those measured under the
        condition of the answer, each moved to the score that means as much for these two recordings; or those of a
        list where the model was measured under one condition only.
    """
    point, found = answer["operating_point"], judge(model, answer["operating_point"]["wanted"])
    if isinstance(found, Ratios):
        known, fields = found.conditions[point["condition"]], Conditions.__dataclass_fields__
        sides = [Conditions(**{name: side[name] for name in fields}) for side in answer["recordings"]]
        target, nontarget = (found.cosines(np.array(known[kind]), sides) for kind in ("target", "nontarget"))
        counts, label = (point["n_target"], point["n_nontarget"]), f"{point['threshold_of']}, {point['condition']}"
    else:
        target, nontarget = scores(model)
        counts, label = (len(target), len(nontarget)), point["threshold_of"]
    told = {"threshold": point["threshold"], "score": answer["score"], "counts": counts, "label": label}
    return {"target": target, "nontarget": nontarget, **told}


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
            "not lie beside its training stage; evaluate it (make reproduce), give a --threshold of your own, or leave "
            "--model out"
        )
    _refuse_another(model, folder)
    return folder


def _refuse_another(model: Path, folder: Path) -> None:
    """Make sure that the evaluation is of this very file: another one, or a later training, has other error rates."""
    try:
        judged = json.loads((folder / "metrics.json").read_text("utf-8"))[0]["encoder"].get("sha256")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise RequestError(f"{folder / 'metrics.json'} is damaged; evaluate {model} anew (make reproduce)") from None
    if judged != runtimes.sha256(model):
        raise RequestError(
            f"{model} is not the model that {folder.name} has judged, or has changed; evaluate it (make reproduce)"
        )
