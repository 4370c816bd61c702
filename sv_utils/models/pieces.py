"""
Embeddings as an artefact: written in pieces, taken up again after a kill, used again where nothing changed.

``<name>.npz`` has the arrays of `sv embed` (``paths`` and ``embeddings``, here of the length that the encoder gave
them), so that `sv score` takes it, and in ``key`` what it was made from. Until it is complete, ``<name>.pieces/`` holds
what is done.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.base.paths import replace_on_success
from sv_utils.base.progress import Progress
from sv_utils.models import embedding, pretrained
from sv_utils.speech.reader import SAMPLE_RATE, Speech

SECONDS_PER_PIECE = 3600.0  # of speech: a kill costs at most the time that this takes
IDENTITY = ["id", "shard", "offset", "samples", "content"]  # columns that say which samples an utterance has


@dataclass(frozen=True)
class Pieces:
    """
    A folder of embeddings by one encoder.

    Attributes
    ----------
    encoder : str or path
        File of the encoder, or name of a published one: another one, and everything is embedded again.
    folder : Path
    code : str
        Digest of the code that embeds.
    batch_size : int
        See `embedding.embed`.

    Examples
    --------
    >>> pieces = Pieces("model.keras", folder, keys.code_key("models"))  # doctest: +SKIP
    >>> vectors, seconds = pieces.embed("test", model, speech)  # doctest: +SKIP
    """

    encoder: str | os.PathLike
    folder: Path
    code: str = ""
    batch_size: int = 32

    def embed(
        self,
        name: str,
        model: Any,
        speech: Speech,
        lengths: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> tuple[np.ndarray, float]:
        """
        Embed utterances, or take what is there of the same ones by the same encoder.

        The utterances go by their length, so that equal ones share a batch, in pieces of about an hour of speech. A
        line a minute tells how far it is and how long it will take.

        Parameters
        ----------
        name : str
            Of the artefact, and in the line of progress. With another `change`, another name.
        model : keras.Model or Exported
            The encoder, or the same without its last layer.
        speech : Speech
        lengths : np.ndarray of int [shape=(m,)], optional
            So much of the beginning of each is heard [samples]; by default all.
        rows : np.ndarray of int [shape=(m,)], optional
            Which utterances of `speech`; by default all.
        change : callable, optional
            From int16 samples to others, before an utterance is heard.

        Returns
        -------
        embeddings : np.ndarray [shape=(m, d)], float32
        seconds : float
            What embedding took, when it was done.
        """
        rows = np.arange(len(speech)) if rows is None else np.asarray(rows)
        lengths = speech.samples[rows] if lengths is None else np.asarray(lengths)
        file, key = self.folder / f"{name}.npz", self._key(name, model, speech, rows, lengths)
        found = _read(file, key)
        if found is None:
            found = self._in_pieces(name, key, model, speech, lengths, rows, change)
            with replace_on_success(file) as temporary:
                paths = speech.table["id"].to_numpy(dtype=str)[rows]
                np.savez(temporary, paths=paths, embeddings=found[0], seconds=found[1], key=key)
            shutil.rmtree(self.folder / f"{name}.pieces", ignore_errors=True)
        return found

    def _key(self, name: str, model: Any, speech: Speech, rows: np.ndarray, lengths: np.ndarray) -> str:
        table = speech.table.iloc[rows][[column for column in IDENTITY if column in speech.table]]
        about = [pretrained.fingerprint(self.encoder), self.code, self.batch_size, name, str(model.output_shape)]
        about += [type(getattr(model, "layers", [None])[-1]).__name__, SECONDS_PER_PIECE]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(table.to_csv(index=False).encode())
        digest.update(np.asarray(lengths, "<i8").tobytes())
        return digest.hexdigest()

    def _in_pieces(
        self,
        name: str,
        key: str,
        model: Any,
        speech: Speech,
        lengths: np.ndarray,
        rows: np.ndarray,
        change: Callable[[np.ndarray], np.ndarray] | None,
    ) -> tuple[np.ndarray, float]:
        embeddings, seconds = np.empty((len(rows), model.output_shape[1]), np.float32), 0.0
        folder = self._folder_of(name, key)
        told = Progress(f"{name}: embedding", "s of speech", round(lengths.sum() / SAMPLE_RATE))
        with _untuned(), told as progress:
            for number, places in enumerate(_parts(lengths)):

                def read(place: int, places: np.ndarray = places) -> np.ndarray:
                    waveform = speech.waveform(rows[places[place]])
                    return change(waveform) if change else waveform

                file, started = folder / f"{number:05d}.npz", time.perf_counter()
                found = _read(file, key)
                before = found is not None
                if found is None:
                    vectors = embedding.embed(model, lengths[places], read, self.batch_size)
                    found = vectors, time.perf_counter() - started
                    with replace_on_success(file) as temporary:
                        np.savez(temporary, embeddings=vectors, seconds=found[1], key=key)
                embeddings[places] = found[0]
                seconds += found[1]
                progress.add(round(lengths[places].sum() / SAMPLE_RATE), before)
        return embeddings, seconds

    def _folder_of(self, name: str, key: str) -> Path:
        """Give the folder of pieces with this key; those of another key are removed."""
        folder = self.folder / f"{name}.pieces"
        if folder.exists() and not ((folder / "key").exists() and (folder / "key").read_text("utf-8") == key):
            shutil.rmtree(folder)
        with replace_on_success(folder / "key") as temporary:
            temporary.write_text(key, "utf-8")
        return folder


@contextlib.contextmanager
def _untuned() -> Iterator[None]:
    """
    Let TensorFlow take cuDNN's own choice of an algorithm instead of timing all of them for each new shape.

    Speech has thousands of lengths, of which each would be tuned for; a convolution asks when it is built.
    """
    before = os.environ.get("TF_CUDNN_USE_AUTOTUNE")
    os.environ.setdefault("TF_CUDNN_USE_AUTOTUNE", "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TF_CUDNN_USE_AUTOTUNE", None)


def _parts(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Places of utterances, by rising length, in parts of about `SECONDS_PER_PIECE`; in the order given where one."""
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order]) / SAMPLE_RATE / SECONDS_PER_PIECE
    cuts = np.flatnonzero(np.diff(np.ceil(ends))) + 1
    yield from ([np.arange(len(lengths))] if not len(cuts) else np.split(order, cuts))


def _read(file: Path, key: str) -> tuple[np.ndarray, float] | None:
    """Embeddings with the seconds that they took, where the file is whole and has the key."""
    try:
        with np.load(file) as held:
            return (held["embeddings"], float(held["seconds"])) if str(held["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
