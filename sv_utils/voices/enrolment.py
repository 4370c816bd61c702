"""
Voices under names.

What is kept is one file of embeddings (`Voices`), readable by its owner alone; no audio. It belongs to one model,
whose vectors mean nothing to another.
"""

import contextlib
import itertools
import os
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.base import locks, paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.corpora import SUFFIXES
from sv_utils.models import pretrained
from sv_utils.voices import encoder, measured, recordings, turns
from sv_utils.voices.asked import Segment
from sv_utils.voices.conditions import Conditions
from sv_utils.voices.judging import Side

VERSION = 2  # of the file's layout
LONGEST_NAME = 100


@dataclass
class Voices:
    """
    The enrolled voices.

    Attributes
    ----------
    model, fingerprint : str
        The encoder as it was named, and what its vectors come from (`pretrained.fingerprint`); empty while there is
        no voice.
    sums : dict of str to np.ndarray [shape=(d,)], float32
        By name, the sum of the unit vectors of its recordings, whose direction is the voice.
    counts : dict of str to int
        By name, its recordings.
    conditions : dict of str to Conditions
        By name, those of its speech (`together`).
    """

    model: str = ""
    fingerprint: str = ""
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    conditions: dict[str, Conditions] = field(default_factory=dict)

    def side(self, name: str) -> Side:
        """Give a voice as a side of a comparison."""
        return Side(self.sums[name] / np.linalg.norm(self.sums[name]), self.conditions[name])

    def add(self, model: str, fingerprint: str, name: str, sides: Sequence[Side]) -> int:
        """
        Add recordings to a voice, new or known.

        Parameters
        ----------
        model, fingerprint : str
            See `Voices`.
        name : str
        sides : sequence of Side
            One of each recording.

        Returns
        -------
        int
            Recordings that the voice has now.

        Raises
        ------
        RequestError
            The name cannot be one, or the voices come from another model.
        """
        name = called(name)
        if self.sums and self.fingerprint != fingerprint:
            raise RequestError(
                f"the enrolled voices are of the model {self.model}, which {model} cannot compare with its own; name "
                "that model, or another file with --store"
            )
        self.model, self.fingerprint = model, fingerprint
        embeddings = np.array([side.embedding for side in sides])
        self.sums[name] = self.sums.get(name, 0) + embeddings.sum(axis=0, dtype=np.float32)
        self.counts[name] = self.counts.get(name, 0) + len(embeddings)
        known = [self.conditions[name]] if name in self.conditions else []
        self.conditions[name] = together([*known, *(side.conditions for side in sides)])
        return self.counts[name]


def called(name: str) -> str:
    """
    Give one spelling to a voice's name: composed characters, single blanks.

    Raises
    ------
    RequestError
        It is empty, too long, has control characters, or is the name of a recording: then that of the voice is missing.

    Examples
    --------
    >>> called("  Ann   Lee ")
    'Ann Lee'
    """
    name = " ".join(word for word in unicodedata.normalize("NFC", name).split(" ") if word)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise RequestError(f"{name[:LONGEST_NAME]!r} is no name; give up to {LONGEST_NAME} printable characters")
    if os.path.splitext(name)[1].lower() in SUFFIXES:
        raise RequestError(f"{name} is a recording; the name of its voice comes first: enrol NAME {name}")
    return name


def counted(recordings: int) -> str:
    """
    Say how many recordings there are.

    Examples
    --------
    >>> counted(1), counted(2)
    ('1 recording', '2 recordings')
    """
    return f"{recordings} recording{'s' * (recordings > 1)}"


def together(conditions: Sequence[Conditions]) -> Conditions:
    """
    Give the conditions of a voice of several recordings: all their speech, and of all else the worst.

    Examples
    --------
    >>> together([Conditions(2.0, 8000.0, 30.0, 0.0, 0.0, 0.2), Conditions(3.0, 3500.0, 35.0, 0.0, 0.1, 0.1)])
    Conditions(speech_seconds=5.0, bandwidth=3500.0, noise=30.0, clipped=0.0, holes=0.1, decay=0.2)
    """
    seconds, bandwidth, noise, *rest = zip(*(astuple(one) for one in conditions))
    return Conditions(sum(seconds), min(bandwidth), min(noise), *map(max, rest))


def default_store() -> Path:
    """Where voices are kept unless another file is named."""
    return paths.outputs() / "voices.npz"


def read(store: Path) -> Voices:
    """
    Read the enrolled voices; there are none where the file is absent.

    Raises
    ------
    RequestError
        If the file is none of this kind.
    """
    try:
        with np.load(store) as file:
            if int(file["version"]) != VERSION:
                raise RequestError(
                    f"{store} has the layout {int(file['version'])}, not {VERSION}; enrol into another file"
                )
            columns = file["sums"], file["counts"].tolist(), (Conditions(*row) for row in file["conditions"].tolist())
            tables = (dict(zip(file["names"].tolist(), column, strict=True)) for column in columns)
            return Voices(str(file["model"]), str(file["fingerprint"]), *tables)
    except FileNotFoundError:
        return Voices()
    except RequestError:
        raise
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise RequestError(f"{store} holds no enrolled voices; name another file with --store") from None


def add(store: Path, model: str, fingerprint: str, name: str, sides: Sequence[Side]) -> int:
    """Add recordings to a voice of a file of voices; otherwise as `Voices.add`."""
    with _changed(store) as voices:
        return voices.add(model, fingerprint, name, sides)


def delete(store: Path, name: str) -> None:
    """
    Remove a voice from the store.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    with _changed(store) as voices:
        name = name if name in voices.sums else " ".join(unicodedata.normalize("NFC", name).split())
        if name not in voices.sums:
            raise RequestError(f"no voice is enrolled as {name!r} in {store}{nearest(name, voices.sums)}")
        del voices.sums[name], voices.counts[name], voices.conditions[name]


@contextlib.contextmanager
def _changed(store: Path) -> Iterator[Voices]:
    """Read the voices, let one process at a time change them, and write them; not when the block fails."""
    with locks.alone(store.with_name(f".{store.name}.lock")):
        for left in store.parent.glob(f".{store.stem}.*{store.suffix}"):  # by a process that was killed while writing
            left.unlink(missing_ok=True)
        voices = read(store)
        yield voices
        names = list(voices.sums)
        content: dict[str, Any] = {"version": VERSION, "model": voices.model, "fingerprint": voices.fingerprint}
        content |= {"names": np.array(names, str), "counts": np.array([voices.counts[name] for name in names], int)}
        content["sums"] = np.array([voices.sums[name] for name in names], np.float32)
        content["conditions"] = np.array([astuple(voices.conditions[name]) for name in names], float)
        with paths.replace_on_success(store) as temporary:
            private = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(private, "wb") as file:
                np.savez(file, **content)


def enrol(
    name: str,
    files: Sequence[str | os.PathLike],
    model: str = "campplus",
    store: Path | None = None,
    anyway: bool = False,
    segments: Sequence[Segment] = (),
) -> tuple[int, list[str]]:
    """
    Enrol a voice from recordings.

    Parameters
    ----------
    name : str
        Of the voice; recordings are added to what it has.
    files : sequence of path
        Audio files of any format; three or more of different days are better than one.
    model : str
        Published encoder or evaluated ``.keras`` file.
    store : Path, optional
        File of voices, by default `default_store`.
    anyway : bool
        Enrol recordings that do not sound like the others of the name too.
    segments : sequence of (float, float) or None
        Where to listen in each file, from and to [s]; by default everywhere.

    Returns
    -------
    count : int
        Recordings that the voice has now.
    warnings : list of str
        What makes a recording weak.

    Raises
    ------
    RequestError
        A file cannot be decoded or has no speech, it does not sound like the others of its name, or as of
        `Voices.add`. Nothing is enrolled then.
    WorkError
        The published encoder or the speech detector cannot be fetched.
    """
    name = called(name)  # before seconds of decoding
    store, sides, warnings = store or default_store(), *heard(files, model, segments)
    fingerprint = pretrained.fingerprint(model)
    if not anyway:
        known = read(store)
        comparable = name in known.sums and known.fingerprint == fingerprint
        refuse_others(name, sides, model, known.side(name) if comparable else None)
    model = os.path.abspath(model) if os.path.isfile(model) else model  # identify may be called from elsewhere
    return add(store, model, fingerprint, name, list(sides.values())), warnings


def heard(
    files: Sequence[str | os.PathLike], model: str, segments: Sequence[Segment] = ()
) -> tuple[dict[str, Side], list[str]]:
    """
    Embed recordings that are to be enrolled; parameters and errors are those of `enrol`.

    Returns
    -------
    sides : dict of str to Side
        By file, or file and segment; a recording that was there before under another name is left out.
    warnings : list of str
    """
    found: list[recordings.Recording] = []
    warnings: list[str] = []
    for file, segment in itertools.zip_longest(files, segments):
        recording = recordings.hear(file, segment=segment)
        if not recording.enough:
            seconds = recording.conditions.speech_seconds
            raise RequestError(f"{os.fspath(file)}: {seconds:.2f} s of speech are too few to enrol; leave it out")
        twin = next((other for other in found if np.array_equal(other.speech, recording.speech)), None)
        if twin:
            warnings.append(f"{os.fspath(file)} is the same recording as {twin.label}, and counts once")
            continue
        warnings += [f"{os.fspath(file)}: {text}" for text in recording.warnings()]
        warnings += turns.warned(recording, model)
        found.append(recording)
    embeddings = encoder.of_voices(model, [recording.hearings for recording in found])
    sides = [Side(embedding, recording.conditions) for embedding, recording in zip(embeddings, found)]
    return {recording.label: side for recording, side in zip(found, sides)}, warnings


def refuse_others(
    name: str,
    sides: Mapping[str, Side],
    model: str,
    known: Side | None = None,
    mend: str = "leave it out, or enrol it all the same with --anyway",
) -> None:
    """
    Refuse a recording that does not sound like the others of its name.

    Parameters
    ----------
    name : str
    sides : mapping of str to Side
        By file, as of `heard`.
    model : str
    known : Side, optional
        What is enrolled under the name.
    mend : str
        What to do about it, for the error.

    Raises
    ------
    RequestError
        If the judge of the model takes one recording and the rest together for two voices.
    """
    judge, worst = measured.judge(model), None
    for file, side in sides.items():
        rest = [other for another, other in sides.items() if another != file] + ([known] if known else [])
        if not rest:
            return
        mean = np.sum([other.embedding for other in rest], axis=0)
        others = Side(mean / max(np.linalg.norm(mean), 1e-12), together([other.conditions for other in rest]))
        found = judge(side, others)
        if not found.accepted and (worst is None or found.ratio < worst[1]):
            worst = file, found.ratio
    if worst:
        raise RequestError(
            f"{worst[0]} does not sound like the other recordings of {name} (log-likelihood ratio {worst[1]:+.1f}); "
            f"{mend}"
        )
