"""
Corpora as data: what is published, where, with which checksums, and how a file's name says who speaks.

Each module of this package is one corpus and holds one constant, ``CORPUS``; `get` finds it by name. Nothing here
downloads or decodes: that is done by `sv_utils.speech` for every corpus alike.
"""

import dataclasses
import importlib
import json
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from sv_utils.base import lists, paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.corpora import _tables

SUFFIXES = frozenset((".wav", ".m4a", ".flac", ".mp3", ".ogg", ".opus", ".aac", ".mp4", ".webm", ".wma", ".aif"))
SUFFIXES |= {".aiff", ".aifc", ".au", ".snd", ".caf", ".amr", ".w64", ".wave", ".rf64", ".3gp", ".3g2", ".m4b", ".oga"}
SUFFIXES |= {".ogv", ".spx", ".mka", ".mkv", ".mov", ".avi", ".ts", ".mts", ".flv", ".wmv", ".mpg", ".mpeg", ".mp2"}
SUFFIXES |= {".mpga", ".ac3", ".eac3", ".voc", ".tta", ".wv", ".sph", ".nist", ".gsm", ".ape", ".mpc"}
LAYOUT = frozenset(("dev", "test", "wav", "aac"))  # folders above the speakers' in VoxCeleb's archives


@dataclass(frozen=True)
class Archive:
    """
    One zip or tar of a corpus, published whole or cut into parts.

    Attributes
    ----------
    name : str
        Name of the whole archive.
    subset : {'dev', 'test', ''}
        'dev' may be trained on, 'test' never; '' where the speaker table says it of each speaker.
    parts : tuple of (file, md5)
        What is downloaded, in the order in which the pieces are concatenated; one entry when published whole. The
        md5 is None where none is published.
    md5 : str, optional
        Of the concatenation.
    utterances, speakers : int, optional
        Official counts.
    gigabytes, hours : float, optional
        Size of the archive [1e9 bytes] and speech in it [h], rounded, for forecasts.
    """

    name: str
    subset: str
    parts: tuple[tuple[str, str | None], ...]
    md5: str | None = None
    utterances: int | None = None
    speakers: int | None = None
    gigabytes: float | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Text:
    """
    A small published file: a trial list or the speaker table.

    Attributes
    ----------
    file : str
        Its name.
    rows : int, optional
        How many rows it must have, a table's header not counted; None for a file that the user may provide or not.
    md5 : str, optional
        Its checksum; without one the row count alone is verified.
    url : str, optional
        Where it is published; None for a file that lies in the corpus's `data` folder.
    """

    file: str
    rows: int | None
    md5: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Utterance:
    """Who speaks in a file, by its name; `id` is how trial lists call it."""

    speaker: str
    session: str
    file: str

    @property
    def id(self) -> str:
        """``<speaker>/<session>/<file>``, or ``<speaker>/<file>`` where there are no sessions."""
        return "/".join(filter(None, (self.speaker, self.session, self.file)))


def unsafe(name: str) -> str:
    """
    Say why a member's name must not be used as a path; '' for a safe name.

    Examples
    --------
    >>> unsafe("wav/id10001/../../../etc/passwd")
    "'..' in the name"
    """
    if not name or any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in name):
        return "empty name or control character in the name"
    if any(0xD800 <= ord(sign) < 0xE000 for sign in name):
        return "name is not UTF-8"
    if "\\" in name:
        return "backslash in the name"
    if name.startswith("/") or re.match(r"^[A-Za-z]:", name):
        return "absolute name"
    return "'..' in the name" if ".." in name.split("/") else ""


def parse(name: str) -> Utterance:
    """
    Read speaker, session and file out of a member's name: its last three components, whatever stands before.

    A name of two components has no session.

    Examples
    --------
    >>> parse("dev/aac/id00012/21Uxsk56VDQ/00001.m4a").id
    'id00012/21Uxsk56VDQ/00001.m4a'

    Raises
    ------
    RequestError
        The name is unsafe or names no speaker.
    """
    reason = unsafe(name)
    pieces = PurePosixPath(name).parts
    if reason or len(pieces) < 2 or pieces[-3:][0] in LAYOUT:
        raise RequestError(reason or "name is not <speaker>/<session>/<file>")
    return Utterance(*pieces[-3:]) if len(pieces) > 2 else Utterance(pieces[0], "", pieces[1])


@dataclass(frozen=True)
class Corpus:
    """
    Everything that the pipeline knows of one corpus.

    Attributes
    ----------
    name : str
        As in ``corpora.get(name)``.
    remotes : tuple of Archive
        The archives; none for a corpus that is a folder of the user's.
    licence, citation, manual : str
        Terms of use, the paper, and how to place the archives by hand.
    table : Text, optional
        The speaker table.
    lists : mapping of str to Text
        Trial lists (``label enrol test``) by name.
    routes : tuple of str
        Addresses with ``{file}`` (and ``{key}`` where a personal key is needed), tried in this order.
    public : tuple of Archive
        Another form in which the same recordings are published; where there is one, it is what is downloaded.
    naming : callable
        Who speaks in a file, by its name in the archive: an `Utterance`, None for a file that is not of the corpus,
        RequestError with the reason for a name that cannot be read.
    first_channel : bool
        Take the first channel instead of the mean of all: several microphones in one room do not add up to one.
    data : Path, optional
        Folder with the table and the lists, when they are part of the repository.
    bundled : Path, optional
        Folder with the archives, when they are part of the repository.
    same_session : bool
        Whether target trials compare recordings of one session, which flatters every system.
    session_note : str
        What to say of that wherever an error rate is printed.
    """

    name: str
    remotes: tuple[Archive, ...]
    licence: str
    citation: str
    manual: str
    table: Text | None = None
    lists: Mapping[str, Text] = field(default_factory=dict)
    routes: tuple[str, ...] = ()
    public: tuple[Archive, ...] = ()
    naming: Callable[[str], Utterance | None] = parse
    first_channel: bool = False
    data: Path | None = None
    bundled: Path | None = None
    same_session: bool = False
    session_note: str = ""

    def text_path(self, text: Text) -> Path:
        """Where a table or list lies: in the repository, or among what `download.fetch` brought."""
        return (self.data or paths.corpus_dir(self.name) / "texts") / text.file

    @property
    def texts(self) -> list[Text]:
        """The speaker table and the trial lists."""
        return [*filter(None, [self.table]), *self.lists.values()]

    def is_drawn(self, name: str) -> bool:
        """Whether the user gave no trial list of that name, so that ``02_prep`` draws one."""
        return self.lists[name].rows is None and not self.text_path(self.lists[name]).exists()

    def list_path(self, name: str) -> Path:
        """Path of the trial list of that name; RequestError for a name that the corpus does not have."""
        if name not in self.lists:
            raise RequestError(f"corpus {self.name} has no trial list '{name}'{nearest(name, self.lists)}.")
        path = self.text_path(self.lists[name])
        return path.with_name(f"drawn_{path.name}") if self.is_drawn(name) else path

    def trials(self, name: str) -> pd.DataFrame:
        """
        Read a trial list.

        Returns
        -------
        DataFrame
            Columns ``label`` (1 target, 0 non-target), ``enrol``, ``test``, with the number of rows it must have.

        Raises
        ------
        RequestError
            Unknown list, missing file, no trial list, or a wrong number of rows.
        """
        path = self.list_path(name)
        self._refuse_absent(path)
        try:
            found = lists.read_trials(path)
        except RequestError as error:
            raise RequestError(f"{error} It is not 'label enrol test' a line: run stage 01_download again.") from None
        if found.labels is None:
            raise RequestError(f"{path} is not 'label enrol test' a line but has no labels: fetch it again.")
        self._check_rows(path, len(found.labels), self.lists[name].rows)
        return pd.DataFrame({"label": found.labels, "enrol": found.enrol, "test": found.test})

    def speakers(self) -> pd.DataFrame:
        """
        Read the speaker table.

        Returns
        -------
        DataFrame
            Index ``speaker``; columns ``gender`` ('f', 'm' or '') and whatever else is known, in lower case
            (``nationality``, ``language``, ``age``, ...). Any spelling that is in circulation is read
            (`_tables.read_published`; of a table that the user wrote, `_tables.read`).

        Raises
        ------
        RequestError
            Missing file, no column of speakers, or a wrong number of rows.
        """
        path = self.text_path(self.table) if self.table else None
        if self.table is None or path is None or (self.table.rows is None and not path.exists()):
            return pd.DataFrame(index=pd.Index([], name="speaker"))
        if self.table.rows is None:
            return _tables.read(path)
        self._refuse_absent(path)
        table = _tables.read_published(path)
        self._check_rows(path, len(table), self.table.rows)
        return table[~table.index.duplicated()]

    def _refuse_absent(self, path: Path) -> None:
        if not path.exists():
            raise RequestError(f"{path} is missing: run stage 01_download for corpus {self.name}.")

    def _check_rows(self, path: Path, found: int, expected: int | None) -> None:
        if expected is not None and found != expected:
            raise RequestError(f"{path} has {found} rows instead of {expected}: remove it and fetch it again.")


def names() -> list[str]:
    """Names of all corpora."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Corpus:
    """
    Find a corpus by name.

    Raises
    ------
    RequestError
        No such corpus; the nearest name is suggested.

    Examples
    --------
    >>> get("ocean").remotes[1].speakers
    26
    """
    if name not in names():
        raise RequestError(f"there is no corpus '{name}'{nearest(name, names())}.")
    corpus = importlib.import_module(f"{__name__}.{name}").CORPUS
    rehearsed = Path(os.environ.get("SV_REHEARSAL") or os.devnull, f"{name}.json")
    return _miniature(corpus, json.loads(rehearsed.read_text("utf-8"))) if rehearsed.is_file() else corpus


def _miniature(corpus: Corpus, made: dict) -> Corpus:
    """Describe what `sv_utils.speech.miniature` made in place of a corpus, by the names of the published files."""

    def text(published: Text) -> Text:
        return Text(published.file, rows=made["rows"][published.file])

    return dataclasses.replace(
        corpus,
        remotes=tuple(Archive(**one | {"parts": tuple(map(tuple, one["parts"]))}) for one in made["archives"]),
        table=corpus.table and text(corpus.table),
        lists={name: text(published) for name, published in corpus.lists.items()},
        public=(),
        routes=(),
        data=None,
        bundled=None,
    )


def find_lists(lists: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    """
    Say which corpus each trial list belongs to.

    Parameters
    ----------
    lists : iterable of str
        Names of trial lists.
    names : iterable of str
        Names of the corpora to look in.

    Returns
    -------
    dict
        Corpus to its own lists among the wanted.

    Raises
    ------
    RequestError
        For a list that none of the corpora has.
    """
    owner = {item: name for name in names for item in get(name).lists}
    for item in lists:
        if item not in owner:
            raise RequestError(f"there is no trial list '{item}' in the corpora of this profile{nearest(item, owner)}.")
    return {
        name: [item for item in lists if owner[item] == name] for name in dict.fromkeys(owner[item] for item in lists)
    }
