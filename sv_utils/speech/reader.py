"""Waveforms and random crops out of the memory-mapped shards of a store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.speech import audio

SAMPLE_RATE = 16000  # [Hz] of everything in a store
COLUMNS = ("shard", "offset", "samples", "bytes", "speaker")  # of a table, that are read here or by who augments


class Speech:
    """
    Waveforms of a table of utterances, read from memory-mapped shards.

    A .pcm shard is int16 samples one after the other; a .flac shard is one FLAC stream per utterance, of which a crop
    decodes the blocks that it needs.

    Parameters
    ----------
    table : DataFrame
        With columns ``shard, offset, samples``, and ``bytes`` where shards are FLAC.
    root : Path, optional
        What ``shard`` is relative to: ``paths.outputs()`` by default, the store's folder for a manifest.

    Attributes
    ----------
    table : DataFrame
        The table, its rows numbered from 0.
    samples : np.ndarray [shape=(utterances,)]
        Lengths [samples].

    Examples
    --------
    >>> speech = Speech(table)  # doctest: +SKIP
    >>> speech.waveform(0).shape  # doctest: +SKIP
    (41984,)
    >>> speech.crops([0, 7], [1000, 0], 48000).shape  # doctest: +SKIP
    (2, 48000)
    """

    def __init__(self, table: pd.DataFrame, root: Path | None = None):
        self.table = table.reset_index(drop=True)
        self.samples = table["samples"].to_numpy(np.int64)
        self._offsets = table["offset"].to_numpy(np.int64)
        codes, shards = pd.factorize(table["shard"])
        self._shard_of = codes.tolist()
        self._root = Path(root or paths.outputs())
        self._shards = [_mapped(self._root / shard) for shard in shards]
        if any(shard.dtype == np.uint8 for shard in self._shards):
            self._ends = self._offsets + table["bytes"].to_numpy(np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __reduce__(self) -> tuple:
        """Go to another process as the few columns that are read; the shards are mapped there anew."""
        slim = self.table[[name for name in COLUMNS if name in self.table]]
        slim = slim.astype({name: "category" for name in ("shard", "speaker") if name in slim})
        return type(self), (slim, self._root)

    def waveform(self, row: int) -> np.ndarray:
        """A whole utterance [shape=(n,), dtype=int16]; out of a .pcm shard a read-only view."""
        return self._piece(row, 0, self.samples[row])

    def _piece(self, row: int, start: int, length: int) -> np.ndarray:
        shard, offset = self._shards[self._shard_of[row]], self._offsets[row]
        if shard.dtype == np.uint8:
            return audio.decode_flac(shard[offset : self._ends[row]].data, start, length)
        return shard[offset + start : offset + start + length]

    def crops(self, rows: Sequence[int] | np.ndarray, starts: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
        """
        Cut equally long pieces out of utterances.

        Parameters
        ----------
        rows : sequence of int [shape=(batch,)]
        starts : sequence of int [shape=(batch,)]
            First sample of each piece, within its utterance.
        length : int
            Samples of a piece.

        Returns
        -------
        np.ndarray [shape=(batch, length), dtype=int16]
            An utterance that ends before the piece does starts over, as often as needed.
        """
        pieces = np.empty((len(rows), length), np.int16)
        for piece, row, start in zip(pieces, rows, starts, strict=True):
            if start + length <= self.samples[row]:
                piece[:] = self._piece(row, start, length)
            else:
                piece[:] = np.resize(np.roll(self.waveform(row), -start), length)
        return pieces


def _mapped(path: Path) -> np.ndarray:
    if not path.exists():
        raise RequestError(f"shard {path} is missing: run stage 02_prep.")
    dtype = np.dtype("<i2") if path.suffix == ".pcm" else np.dtype(np.uint8)
    # A plain array view: slicing np.memmap itself costs several times the copy of a crop's bytes.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if path.stat().st_size else np.empty(0, dtype)
