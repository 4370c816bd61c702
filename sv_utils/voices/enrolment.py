"""
Voices under names.

What is kept is one file of embeddings (`Voices`), readable by its owner alone; no audio. It belongs to one model,
whose vectors mean nothing to another.
"""

import contextlib
import fcntl
import os
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.corpora import SUFFIXES
from sv_utils.models import pretrained
from sv_utils.voices import encoder, recordings

VERSION = 1  # of the file's layout
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
    """

    model: str = ""
    fingerprint: str = ""
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, model: str, fingerprint: str, name: str, embeddings: np.ndarray) -> int:
        """
        Add recordings to a voice, new or known.

        Parameters
        ----------
        model, fingerprint : str
            See `Voices`.
        name : str
        embeddings : np.ndarray [shape=(recordings, d)]
            Unit vectors.

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
        self.sums[name] = self.sums.get(name, 0) + embeddings.sum(axis=0, dtype=np.float32)
        self.counts[name] = self.counts.get(name, 0) + len(embeddings)
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
                raise RequestError(f"{store} has the layout {int(file['version'])}, not {VERSION}; enrol into another")
            names, counts = file["names"].tolist(), file["counts"].tolist()
            sums = dict(zip(names, file["sums"], strict=True))
            return Voices(str(file["model"]), str(file["fingerprint"]), sums, dict(zip(names, counts, strict=True)))
    except FileNotFoundError:
        return Voices()
    except RequestError:
        raise
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        raise RequestError(f"{store} holds no enrolled voices; name another file with --store") from None


def add(store: Path, model: str, fingerprint: str, name: str, embeddings: np.ndarray) -> int:
    """Add recordings to a voice of a file of voices; otherwise as `Voices.add`."""
    with _changed(store) as voices:
        return voices.add(model, fingerprint, name, embeddings)


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
        del voices.sums[name], voices.counts[name]


@contextlib.contextmanager
def _changed(store: Path) -> Iterator[Voices]:
    """Read the voices, let one process at a time change them, and write them; not when the block fails."""
    store.parent.mkdir(parents=True, exist_ok=True)
    with open(store.with_name(f".{store.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # falls with the process, however it ends
        for left in store.parent.glob(f".{store.stem}.*{store.suffix}"):  # by a process that was killed while writing
            left.unlink(missing_ok=True)
        voices = read(store)
        yield voices
        names = list(voices.sums)
        content = {"version": VERSION, "model": voices.model, "fingerprint": voices.fingerprint}
        content |= {"names": np.array(names, str), "counts": np.array([voices.counts[name] for name in names], int)}
        content["sums"] = np.array([voices.sums[name] for name in names], np.float32)
        with paths.replace_on_success(store) as temporary:
            private = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(private, "wb") as file:
                np.savez(file, **content)


def enrol(
    name: str, files: Sequence[str | os.PathLike], model: str = "campplus", store: Path | None = None
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

    Returns
    -------
    count : int
        Recordings that the voice has now.
    warnings : list of str
        What makes a recording weak.

    Raises
    ------
    RequestError
        A file cannot be decoded or has no speech, or as of `Voices.add`. Nothing is enrolled then.
    WorkError
        The published encoder cannot be fetched.
    """
    name = called(name)  # before seconds of decoding
    embeddings, warnings = heard(files, model)
    model = os.path.abspath(model) if os.path.isfile(model) else model  # identify may be called from elsewhere
    return add(store or default_store(), model, pretrained.fingerprint(model), name, embeddings), warnings


def heard(files: Sequence[str | os.PathLike], model: str) -> tuple[np.ndarray, list[str]]:
    """
    Embed recordings that are to be enrolled; parameters and errors are those of `enrol`.

    Returns
    -------
    embeddings : np.ndarray [shape=(recordings, d)], float32
        Unit vectors.
    warnings : list of str
    """
    sounds, warnings = [], []
    for file in files:
        sound = recordings.decode(file)
        described = recordings.describe(file, sound)
        if described["speech_seconds"] < recordings.SHORTEST:
            raise RequestError(f"{os.fspath(file)}: {described['speech_seconds']:.2f} s of speech; leave it out")
        warnings += [f"{os.fspath(file)}: {text}" for text in described["warnings"]]
        sounds.append(sound.samples)
    return encoder.embeddings(model, sounds), warnings
