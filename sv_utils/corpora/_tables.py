"""Speaker tables: one that a user wrote, by hand or out of a spreadsheet (`speakers.csv`), and published ones."""

import csv
import re
from pathlib import Path

import pandas as pd

from sv_utils.base.errors import RequestError
from sv_utils.base.terminal import printable
from sv_utils.base.text import plain, read_text

# What a column may be called, in the languages of the reports that asked for it; the first name is ours.
HEADINGS = {
    "speaker": "speaker id name spk spk_id speaker_id speakerid speaker_name client_id subject participant sprecher",
    "gender": "gender sex geschlecht sexe",
    "subset": "subset set split half part partition group",
    "nationality": "nationality country",
    "language": "language lang",
    "age": "age",
}
GENDERS = dict.fromkeys(["f", "female", "w", "woman", "weiblich", "femme", "féminin", "feminine"], "f")
GENDERS |= dict.fromkeys(["m", "male", "man", "männlich", "maennlich", "homme", "masculin", "masculine"], "m")
SUBSETS = dict.fromkeys(["dev", "train", "training", "development", "valid", "validation", "val"], "dev")
SUBSETS |= dict.fromkeys(["test", "testing", "eval", "evaluation"], "test")
WORDS = {"gender": GENDERS, "subset": SUBSETS}


def read(path: Path) -> pd.DataFrame:
    """
    Read a user's speaker table, whatever its separator, encoding and headings.

    Without a line of headings the first column is the speaker, and a column of genders or halves alone is known by its
    words.

    Returns
    -------
    DataFrame
        Index ``speaker``; columns by `HEADINGS`, or their own names in lower case. ``gender`` is 'f', 'm' or '',
        ``subset`` 'dev' or 'test'.

    Raises
    ------
    RequestError
        It is empty or no text, a speaker stands there twice with different facts, or a half is called what none is.
    """
    rows = _rows(path)
    names, rows = _columns(rows)
    table = pd.DataFrame(rows, columns=names, dtype=str)
    table = table.loc[:, ~table.columns.duplicated()]
    table["speaker"] = [plain(name) for name in table["speaker"]]
    table = table[table["speaker"] != ""].drop_duplicates()
    if table.empty:
        raise RequestError(f"{path} names no speaker; write lines `id,gender,set`, or remove it.")
    _refuse_twice(path, table)
    for column, known in WORDS.items():
        if column in table:
            table[column] = table[column].str.lower().map(lambda word, known=known: known.get(word, word))
    _refuse_subsets(path, table)
    if "gender" in table:
        table["gender"] = table["gender"].where(table["gender"].isin(["f", "m"]), "")
    return table.set_index("speaker")


def read_published(path: Path) -> pd.DataFrame:
    """
    Read a published speaker table in any of the spellings that are in circulation.

    Tabs or commas, with and without blanks, byte-order marks and foreign line ends; ``VoxCeleb2 ID ``,
    ``voxceleb2_id``, ``id`` and the like for the speaker.

    Returns
    -------
    DataFrame
        Index ``speaker``; other columns as of `read`. Rows and facts are as they stand there.

    Raises
    ------
    RequestError
        It is empty or no text, or no column is that of the speakers.
    """
    rows = _rows(path)
    names = [_heading(word, place) for place, word in enumerate(rows[0])]
    others = [word.lower() for word in rows[0]]
    known = [place for place, name in enumerate(names) if name == "speaker" and "vgg" not in others[place]]
    if not known:
        raise RequestError(
            f"{path} has the columns {', '.join(map(printable, rows[0]))}, of which none is the speaker's id (wanted: "
            "id, gender, set, in any order): correct its first line, or remove it and fetch it again."
        )
    own = min(known, key=lambda place: not others[place].endswith("id"))  # an id before a name
    ids = {place for place, name in enumerate(names) if name == "speaker" and others[place].endswith("id")}
    names = [other if name == "speaker" else name for name, other in zip(names, others)]
    names[own] = "speaker"
    table = pd.DataFrame(rows[1:], columns=names, dtype=str)
    table = table.iloc[:, [place for place in range(len(names)) if place == own or place not in ids]]
    table = table.loc[:, ~table.columns.duplicated()]
    for column in WORDS.keys() & table.columns:
        table[column] = [WORDS[column].get(word.lower(), word) for word in table[column]]
    return table.set_index("speaker")


def _rows(path: Path) -> list[list[str]]:
    """Words of the lines that have some, all of the width of the widest."""
    lines = [line for line in read_text(path).split("\n") if line.strip(" \t;,")]
    separator = max(";\t,", key=lambda sign: (lines[0].count(sign) if lines else 0, sign == ","))
    if lines and lines[0].lower().startswith("sep="):  # Excel's own
        separator, lines = lines[0][4:5] or separator, lines[1:]
    if not lines:
        raise RequestError(f"{path} is empty; write lines `id,gender,set`, or remove it.")
    try:
        rows = [[word.strip() for word in row] for row in csv.reader(lines, delimiter=separator)]
    except csv.Error as error:
        raise RequestError(f"{path} is no table ({error}); write lines `id,gender,set`.") from None
    width = max(len(row) for row in rows)
    rows = [row + [""] * (width - len(row)) for row in rows]
    used = [place for place in range(width) if place == 0 or any(row[place] for row in rows)]
    return [[row[place] for place in used] for row in rows]


def _columns(rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and the rows without a line of headings."""
    names = [_heading(word, place) for place, word in enumerate(rows[0])]
    if names.count("speaker") > 1:  # a name beside an id
        names = ["name" if "name" in word.lower() else name for word, name in zip(rows[0], names)]
    if set(names) & HEADINGS.keys():
        if "speaker" not in names:
            names[0] = "speaker"
        for place, kind in enumerate(_kinds(rows)):  # what another heading calls so
            if kind and kind not in names and names[place] not in HEADINGS:
                names[place] = kind
        return names, rows[1:]
    names = ["speaker", *(kind or f"column {place}" for place, kind in enumerate(_kinds(rows)[1:], 2))]
    foreign = any(rows[0][place].lower() not in WORDS[name] for place, name in enumerate(names) if name in WORDS)
    return names, rows[1:] if foreign else rows


def _heading(word: str, place: int) -> str:
    word = word.lower().replace(" ", "_").strip("_") or f"column {place + 1}"
    known = next((name for name, words in HEADINGS.items() if word in words.split()), word)
    return "speaker" if re.search(r"(_|celeb\d?)id$", known) else known  # VoxCeleb1 ID


def _kinds(rows: list[list[str]]) -> list[str]:
    """What each column is by its words below the first line: 'gender', 'subset', or '' for others."""
    columns = [{word.lower() for word in column[1:] if word} for column in zip(*rows)]
    return [next((kind for kind, known in WORDS.items() if words and words <= known.keys()), "") for words in columns]


def _refuse_twice(path: Path, table: pd.DataFrame) -> None:
    twice = table.loc[table["speaker"].duplicated(), "speaker"]
    if len(twice):
        raise RequestError(
            f"{path} has the speaker {printable(twice.iloc[0])} twice, with different facts; keep one line of them."
        )


def _refuse_subsets(path: Path, table: pd.DataFrame) -> None:
    if "subset" not in table:
        return
    strange = table.loc[~table["subset"].isin(["dev", "test"]), ["speaker", "subset"]]
    if len(strange):
        speaker, word = map(printable, strange.iloc[0])
        raise RequestError(f"{path} puts the speaker {speaker} into the set {word!r}; the sets are dev and test.")
