"""
Lists that users write: trials, scores, names of files.

One item a line, columns separated by blanks; a name with blanks stands in double quotes (``1 "ann lee/1/a.wav"
ben/b.wav``). Tables with tabs, semicolons or commas are read too, as are lines that a spreadsheet or another system
wrote: byte-order marks, foreign line ends, empty lines, a line of headings.
"""

import csv
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.base.text import read_text, words

LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "target": 1, "nontarget": 0, "non-target": 0, "non_target": 0}
LABELS |= {"tgt": 1, "imp": 0, "impostor": 0, "imposter": 0, "true": 1, "false": 0, "same": 1, "different": 0}
# What a first line may call the columns.
HEADINGS = {"label", "labels", "key", "target", "targettype", "enrol", "enroll", "enrolment", "enrollment", "test"}
HEADINGS |= {"trial", "modelid", "segmentid", "utt1", "utt2", "file1", "file2", "wav1", "wav2", "path1", "path2"}
HEADINGS |= {"score", "scores", "cosine", "llr", "log_likelihood_ratio", "probability"}


@dataclass(frozen=True)
class Table:
    """
    Rows of words of a list.

    Attributes
    ----------
    columns : list of list of str
        One list a column.
    lines : list of int
        In which line of the file each row stands, from 1.
    """

    columns: list[list[str]]
    lines: list[int]


def read_table(path: str | os.PathLike, widths: Collection[int]) -> Table:
    """
    Read a list as a table of words.

    Parameters
    ----------
    path : path
    widths : collection of int
        Numbers of columns that make sense; where blanks give none of them, tabs, semicolons and commas are tried.

    Returns
    -------
    Table
        Of any number of columns, if blanks make each line have equally many.

    Raises
    ------
    RequestError
        The file is absent, empty, no text, or a line has another number of columns than the first.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    if not lines:
        raise RequestError(f"{path} is empty.")
    numbers = [number for number, _ in lines]
    for split, least in ((_at("\t"), 3), (_at_blanks, 2), (_at(";"), 2), (_at(","), 2)):
        rows = split([line for _, line in lines])
        if len(rows[0]) in widths and len(rows[0]) >= least and all(len(row) == len(rows[0]) for row in rows):
            return Table([list(column) for column in zip(*rows)], numbers)
    rows = _at_blanks([line for _, line in lines])
    for number, row in zip(numbers, rows):
        if len(row) != len(rows[0]):
            raise RequestError(
                f"{path} line {number} has {len(row)} columns where line {numbers[0]} has {len(rows[0])}; correct it, "
                'and put a name with blanks into double quotes ("ann lee/1/a.wav").'
            )
    return Table([list(column) for column in zip(*rows)], numbers)


def _at_blanks(lines: list[str]) -> list[list[str]]:
    return [words(line) for line in lines]


def _at(separator: str) -> Callable[[list[str]], list[list[str]]]:
    def split(lines: list[str]) -> list[list[str]]:
        if separator not in lines[0]:
            return [[]]
        try:  # line by line: a quote that is never closed must not swallow the next
            return [[word.strip() for word in next(csv.reader([line], delimiter=separator))] for line in lines]
        except csv.Error:  # a word longer than any name
            return [[]]

    return split


def without_headings(table: Table) -> Table:
    """Leave out a first row whose words are all names of columns."""
    first = [column[0].lower() for column in table.columns]
    if len(table.lines) < 2 or not HEADINGS.issuperset(first) or len(set(first)) < len(first):
        return table
    return Table([column[1:] for column in table.columns], table.lines[1:])


@dataclass(frozen=True)
class TrialList:
    """
    What a list of trials says.

    Attributes
    ----------
    labels : list of int, or None
        1 target, 0 non-target; None where the list does not say.
    enrol, test : list of str
    lines : list of int
        In which line of the file each trial stands, from 1.
    """

    labels: list[int] | None
    enrol: list[str]
    test: list[str]
    lines: list[int]


def read_trials(path: str | os.PathLike) -> TrialList:
    """
    Read a trial list: ``label enrol test`` a line (VoxCeleb), ``enrol test label`` (Kaldi), or ``enrol test``.

    Raises
    ------
    RequestError
        The file cannot be read as such a list.
    """
    table = without_headings(read_table(path, (2, 3)))
    columns = table.columns
    if len(columns) not in (2, 3):
        raise RequestError(f"{path} has {len(columns)} columns; a trial list has three: label enrol test.")
    if len(columns) == 2:
        return TrialList(None, columns[0], columns[1], table.lines)
    place = label_column(columns)
    enrol, test = (column for number, column in enumerate(columns) if number != place)
    return TrialList(parse_labels(columns[place], path, table.lines), enrol, test, table.lines)


def label_column(columns: Sequence[Sequence[str]]) -> int:
    """Which column holds the labels: the first or the last, whichever holds more of them; the first if both do."""
    known = [sum(word.lower() in LABELS for word in columns[place]) for place in (0, -1)]
    return 0 if known[0] >= known[1] else len(columns) - 1


def parse_labels(column: Sequence[str], source: str | os.PathLike, lines: Sequence[int]) -> list[int]:
    """Turn words into labels, or raise a RequestError that names the line."""
    for line, word in zip(lines, column):
        if word.lower() not in LABELS:
            raise RequestError(f"{source} line {line} has the label {printable(word)!r}; a label is 1 (target) or 0.")
    return [LABELS[word.lower()] for word in column]


def read_names(path: str | os.PathLike) -> list[str]:
    """
    Read names of files, one a line, as they stand or in double quotes; empty lines are passed over.

    Raises
    ------
    RequestError
        The list cannot be read, or names no file.
    """
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not names:
        raise RequestError(f"the list {path} names no file; give a text file with one file name a line.")
    whole = (words(name) for name in names)
    return [found[0] if name.startswith('"') and len(found) == 1 else name for name, found in zip(names, whole)]
