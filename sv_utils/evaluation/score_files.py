"""Score files and embedding files, of this project and of others."""

import csv
import math
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation import trials


def read_embeddings(path: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Read embeddings with the ids of their utterances.

    Returns
    -------
    paths : np.ndarray of str [shape=(n,)]
    embeddings : np.ndarray [shape=(n, d)]

    Raises
    ------
    RequestError
        If the file is absent or holds no such arrays.
    """
    try:
        with np.load(path) as file:
            paths, embeddings = file["paths"], file["embeddings"]
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; make it with python -m sv_utils.embed.") from None
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise RequestError(
            f"{path} holds no arrays `paths` (str) and `embeddings`; see python -m sv_utils.embed."
        ) from None
    kinds = paths.dtype.kind + embeddings.dtype.kind
    if embeddings.ndim != 2 or paths.shape != embeddings.shape[:1] or kinds != "Uf":
        raise RequestError(
            f"{path}: embeddings {embeddings.shape} of {embeddings.dtype} for paths {paths.shape} of {paths.dtype}; "
            "one row of real numbers a path is needed."
        )
    return paths, embeddings


def write_table(path: str | os.PathLike, columns: Mapping[str, np.ndarray]) -> None:
    """
    Write columns of a trial list as CSV, real numbers with nine digits, which is all that a float32 has.

    The file appears complete or not at all.

    Parameters
    ----------
    path : path
    columns : mapping of str to np.ndarray [shape=(n,)]
        As of `evaluate.Scored.columns`.

    Raises
    ------
    RequestError
        If the columns are not equally long.
    """
    if len({len(values) for values in columns.values()}) > 1:
        raise RequestError(f"{path}: the columns {', '.join(columns)} are not equally long; give a value a trial each.")
    texts = [
        [f"{value:.9g}" for value in values.tolist()] if values.dtype.kind == "f" else values.tolist()
        for values in columns.values()
    ]
    with replace_on_success(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(zip(*texts))


def read_scores(path: str) -> tuple[trials.Trials, np.ndarray]:
    """
    Read a score file, in any of the forms that the module names.

    Returns
    -------
    trials : Trials
        Labels are None where the file has none.
    scores : np.ndarray [shape=(n,)]

    Raises
    ------
    RequestError
        If the file has another form, or a score is no finite number.
    """
    table = trials.columns(path)
    first = [column[0] for column in table]
    if len(table) == 3:
        form = "score enrol test" if _is_number(first[0]) or not _is_number(first[2]) else "enrol test score"
    elif len(table) == 4:
        form = "label enrol test score" if first[0] in trials.LABELS else "enrol test score label"
    else:
        raise RequestError(
            f"{path} has {len(table)} columns; a score file has three (score enrol test) or four with labels."
        )
    column = dict(zip(form.split(), table))
    labels = trials.parse_labels(column["label"], path) if "label" in column else None
    given = trials.Trials(labels, np.array(column["enrol"]), np.array(column["test"]), path)
    return given, _finite(column["score"], path)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _finite(words: list[str], path: str) -> np.ndarray:
    """Turn words into scores, or name the line that holds none."""
    for line, word in enumerate(words, 1):
        if not (_is_number(word) and math.isfinite(float(word))):
            raise RequestError(f"{path} line {line} has the score {word!r}; a score is a finite number.")
    return np.array(words, dtype=np.float64)


def match(listed: trials.Trials, given: trials.Trials, scores: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """
    Bring the scores of a file into the order of a trial list.

    Returns
    -------
    scores : np.ndarray [shape=(n,)]
    notes : list of str
        What a reader of the figures has to know.

    Raises
    ------
    RequestError
        If the file lacks a trial of the list, scores one in two ways, or its labels contradict the list's.
    """
    pairs = list(zip(given.enrol.tolist(), given.test.tolist()))
    score_of = dict(zip(pairs, scores.tolist()))
    for line, (pair, score) in enumerate(zip(pairs, scores.tolist()), 1):
        if score_of[pair] != score:
            raise RequestError(
                f"{given.source} scores {' and '.join(pair)} twice, once as {score} in line {line}; keep one."
            )
    wanted = list(zip(listed.enrol.tolist(), listed.test.tolist()))
    missing = [line for line, pair in enumerate(wanted, 1) if pair not in score_of]
    if missing:
        raise RequestError(
            f"{given.source} has no score for {len(missing)} of the {len(wanted)} trials of {listed.source}, first "
            f"{' and '.join(wanted[missing[0] - 1])} of line {missing[0]}; score those trials too."
        )
    if given.labels is not None and listed.labels is not None:
        label_of = dict(zip(wanted, listed.labels.tolist()))
        for line, (pair, label) in enumerate(zip(pairs, given.labels.tolist()), 1):
            if label_of.get(pair, label) != label:
                raise RequestError(
                    f"{given.source} line {line} has the label {label}, {listed.source} another; correct one."
                )
    unused = len(score_of.keys() - set(wanted))
    notes = [f"{unused} scores of {given.source} belong to no trial of {listed.source}."] if unused else []
    return np.array([score_of[pair] for pair in wanted]), notes
