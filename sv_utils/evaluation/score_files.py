"""Score files and embedding files, of this project and of others."""

import csv
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from sv_utils.base import lists
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.base.zips import refuse_bomb
from sv_utils.evaluation import trials

FORMS = ("score enrol test", "enrol test score", "label enrol test score", "enrol test score label")


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
    refuse_bomb(path)
    try:
        with np.load(path) as file:
            paths, embeddings = file["paths"], file["embeddings"]
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist; make it with python -m sv_utils.embed.") from None
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        MemoryError,
        OSError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise RequestError(
            f"{path} holds no arrays `paths` (str) and `embeddings`; see python -m sv_utils.embed."
        ) from None
    kinds = paths.dtype.kind + embeddings.dtype.kind
    if embeddings.ndim != 2 or paths.shape != embeddings.shape[:1] or kinds != "Uf":
        raise RequestError(
            f"{path}: embeddings {embeddings.shape} of {embeddings.dtype} for paths {paths.shape} of {paths.dtype}; "
            "one row of real numbers a path is needed."
        )
    return paths, _measurable(embeddings)


def _measurable(embeddings: np.ndarray) -> np.ndarray:
    """
    Give embeddings [shape=(n, d)] a precision and lengths whose squares are numbers; directions stay.

    The square of 400 is none in float16, nor that of 1e20 in float32.
    """
    if embeddings.dtype.itemsize < 4:
        embeddings = embeddings.astype(np.float32)
    largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=0)
    extreme = np.isfinite(largest) & (largest > 0) & ((largest > 1e15) | (largest < 1e-15))
    return np.where(extreme, embeddings / np.where(extreme, largest, 1), embeddings) if extreme.any() else embeddings


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
    Read a score file: columns named by a line of headings, such as ``scores_<list>.csv`` has, or one of `FORMS`.

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
    table = lists.read_table(path, range(3, 21))
    column = _named(table)
    if column:
        lines = table.lines[1:]
    else:
        table = lists.without_headings(table)
        column, lines = dict(zip(_form(table.columns, path).split(), table.columns)), table.lines
    labels = None
    if "label" in column:
        labels = np.array(lists.parse_labels(column["label"], path, lines), dtype=np.int8)
    given = trials.Trials(labels, np.array(column["enrol"]), np.array(column["test"]), path, np.array(lines))
    return given, _finite(column["score"], path, lines)


def _named(table: lists.Table) -> dict[str, list[str]]:
    """Columns by the headings of the first line; nothing where it has not those that are needed."""
    headings = [column[0].lower() for column in table.columns]
    if len(table.lines) < 2 or not {"enrol", "test", "score"} <= set(headings):
        return {}
    return {name: column[1:] for name, column in zip(headings, table.columns)}


def _form(columns: Sequence[Sequence[str]], path: str) -> str:
    """
    Say what the columns are.

    Of three, the scores are those that are all numbers; where ids are numbers too, those that look like scores: with a
    sign, a point or an exponent.
    """
    if len(columns) not in (3, 4):
        raise RequestError(
            f"{path} has {len(columns)} columns; a score file has three (score enrol test) or four with labels."
        )
    if len(columns) == 4:
        return FORMS[2] if lists.label_column(columns) == 0 else FORMS[3]
    numbers = [[float(word) for word in columns[place] if _is_number(word)] for place in (0, 2)]
    pointed = [sum(not word.isdigit() for word in columns[place] if _is_number(word)) for place in (0, 2)]
    first, last = zip(map(len, numbers), pointed)
    return FORMS[0] if first >= last else FORMS[1]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _finite(words: list[str], path: str, lines: Sequence[int]) -> np.ndarray:
    """Turn words into scores, or name the line that holds none."""
    for line, word in zip(lines, words):
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
    for place, (pair, score) in enumerate(zip(pairs, scores.tolist())):
        if score_of[pair] != score:
            raise RequestError(
                f"{given.source} scores {' and '.join(pair)} twice, once as {score} in line {given.line(place)}; "
                "keep one."
            )
    wanted = list(zip(listed.enrol.tolist(), listed.test.tolist()))
    missing = [place for place, pair in enumerate(wanted) if pair not in score_of]
    if missing:
        raise RequestError(
            f"{given.source} has no score for {len(missing)} of the {len(wanted)} trials of {listed.source}, first "
            f"{' and '.join(wanted[missing[0]])} of line {listed.line(missing[0])}; score those trials too."
        )
    if given.labels is not None and listed.labels is not None:
        label_of = dict(zip(wanted, listed.labels.tolist()))
        for place, (pair, label) in enumerate(zip(pairs, given.labels.tolist())):
            if label_of.get(pair, label) != label:
                raise RequestError(
                    f"{given.source} line {given.line(place)} has the label {label}, {listed.source} another; "
                    "correct one."
                )
    unused = len(score_of.keys() - set(wanted))
    notes = [f"{unused} scores of {given.source} belong to no trial of {listed.source}."] if unused else []
    return np.array([score_of[pair] for pair in wanted]), notes
