"""
Limits of quality, as views on a store: what decodes is stored with its measures, a limit is applied in reading.

So a changed limit, another share of test speakers or another seed costs seconds, and decodes nothing.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sv_utils.base import paths
from sv_utils.corpora import Corpus
from sv_utils.speech.manifest import read_manifest
from sv_utils.speech.reader import SAMPLE_RATE

WITHIN = "within limits"  # what `qualities` says of a file that no limit refuses


@dataclass(frozen=True)
class Limits:
    """
    What a decoded file must hold to be trained on.

    Attributes
    ----------
    min_seconds : float
        Shortest accepted duration [s].
    max_clipped, max_silent : float
        Largest accepted fraction of clipped samples and of silent frames, as defined by `audio.measure`.
    min_rate : int
        Lowest accepted rate of an original [Hz]; others than 16 kHz are resampled.
    max_channels : int
        Largest accepted number of channels of an original.
    """

    min_seconds: float = 1.0
    max_clipped: float = 0.05
    max_silent: float = 0.95
    min_rate: int = 8000
    max_channels: int = 32

    def reasons(self, table: pd.DataFrame) -> pd.Series:
        """
        Say of each decoded file which limit refuses it.

        Parameters
        ----------
        table : DataFrame
            Columns ``samples, rate, channels, silent, clipped`` of a manifest.

        Returns
        -------
        Series of str
            The first reason; '' for a file within all limits.
        """
        seconds = table["samples"] / SAMPLE_RATE
        tests = [  # the last that is written stays: the first of these has the last word
            ("clipped", self.max_clipped, "clipped: {:.3f} of the samples, at most {:g}", table["clipped"]),
            ("silent", self.max_silent, "silent: {:.3f} of the frames, at most {:g}", table["silent"]),
            ("short", self.min_seconds, "too short: {:.2f} s, wanted {:g} s", seconds),
            ("channels", self.max_channels, "channels: {}, at most {}", table["channels"]),
            ("rate", self.min_rate, "low rate: {} Hz, wanted {} Hz", table["rate"]),
        ]
        found = pd.Series("", index=table.index, dtype=str)
        for name, limit, text, values in tests:
            beyond = values < limit if name in ("short", "rate") else values > limit
            found[beyond] = [text.format(value, limit) for value in values[beyond]]
        return found


def view(
    corpus: Corpus, folder: Path, limits: Limits | None = None, test_share: float = 0.2, split_seed: int = 0
) -> pd.DataFrame:
    """
    Read a store as limits, the speaker table and the split show it.

    Parameters
    ----------
    corpus : Corpus
    folder : Path
        Its store from `prepare`.
    limits : Limits, optional
        Default: those of `Limits`.
    test_share : float
        Share of the speakers that are set apart for testing, where neither folders nor a table say who they are.
    split_seed : int
        Of that draw.

    Returns
    -------
    DataFrame
        The columns of the manifest, with ``shard`` relative to ``paths.outputs()``, ``subset`` of every row, and
        ``gender``, ``nationality``, ``language`` ('' where unknown). ``error`` is '' for what may be used; else why it
        cannot be decoded, which limit refuses it (``decoded`` is then True), or of which file it is a duplicate.

    Raises
    ------
    RequestError
        The store is not finished.
    """
    table = read_manifest(folder)
    known = corpus.speakers()
    for column in ("gender", "nationality", "language"):
        table[column] = table["speaker"].map(known[column]).fillna("") if column in known else ""
    prefix = Path(folder).resolve().relative_to(paths.outputs())
    table["shard"] = [f"{prefix}/{shard}" if shard else "" for shard in table["shard"]]
    table["decoded"] = table["error"] == ""
    _set_apart(table, known, test_share, split_seed)
    good = table["error"] == ""
    table.loc[good, "error"] = (limits or Limits()).reasons(table[good])
    good = table["error"] == ""
    first = table[good].groupby("content")["id"].transform("first")
    again = first[first != table.loc[good, "id"]]
    table.loc[again.index, "error"] = "duplicate of " + again
    return table


def _set_apart(table: pd.DataFrame, known: pd.DataFrame, share: float, seed: int) -> None:
    """Say which half each row belongs to, where its archive does not: by the speaker table, or drawn by speakers."""
    open_rows = (table["subset"] == "") & (table["speaker"] != "")
    if not open_rows.any():
        return
    speakers = set(table["speaker"]) - {""}
    halves = known["subset"].to_dict() if "subset" in known else drawn_halves(speakers, share, seed)
    table.loc[open_rows, "subset"] = table.loc[open_rows, "speaker"].map(halves).fillna("")
    strange = open_rows & (table["subset"] == "")
    table.loc[strange & (table["error"] == ""), "error"] = "speaker is not in the speaker table"
    table.loc[strange, "decoded"] = False


def drawn_halves(speakers: Iterable[str], share: float, seed: int) -> dict[str, str]:
    """
    Draw who is tested: the `share` of the speakers whose names' hashes are lowest, two at least.

    The draw depends on names and seed alone.

    Returns
    -------
    dict
        Speaker to 'dev' or 'test'.
    """
    order = sorted(speakers, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    tested = set(order[: max(2, round(share * len(order)))])
    return {name: "test" if name in tested else "dev" for name in order}


def qualities(table: pd.DataFrame) -> pd.Series:
    """
    Name the limit that each file of a view is beyond: ``clipped``, ``silent``, ``too short``, ``duplicate``, ...

    Returns
    -------
    Series of str
        `WITHIN` where there is none.
    """
    kinds = table["error"].str.replace(r"^duplicate of .*", "duplicate", regex=True).str.split(":").str[0]
    return kinds.where(table["error"] != "", WITHIN).astype(str)
