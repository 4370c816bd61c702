"""
What a store holds: the manifest, a row per file.

`sv_utils.speech.preparation` writes it; nothing after it opens an audio file.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive, Corpus
from sv_utils.speech import audio
from sv_utils.speech.archives import VerifiedArchive
from sv_utils.speech.reader import SAMPLE_RATE

COLUMNS = ["corpus", "id", "speaker", "session", "subset", "shard", "offset", "bytes", "samples", "source_sha256"]
COLUMNS += ["rate", "channels", "peak", "clipped", "silent", "error", "content", "warning"]
# How a shard's samples become bytes, and how many bytes one step of the column `offset` is.
ENCODINGS = {
    "pcm": (lambda samples: samples.astype("<i2").tobytes(), 2),
    "flac": (audio.encode_flac, 1),
}


def read_manifest(folder: Path) -> pd.DataFrame:
    """
    Read a store's manifest.

    Returns
    -------
    DataFrame
        A row per file of the corpus: ``corpus, id, speaker, session, subset, shard`` (file name within `folder`),
        ``offset`` ([samples] in a .pcm shard, [bytes] in a .flac shard), ``bytes``, ``samples``, ``source_sha256`` (of
        the file's bytes), ``rate`` [Hz] and ``channels`` of the original, ``peak, clipped, silent`` (see
        `audio.measure`), ``error`` (why it cannot be decoded; '' where it can), ``content`` (digest of the decoded
        samples), ``warning`` (what is wrong with a file that can be used all the same). ``subset`` is '' where the
        archive does not say it. Where there is an error, numbers that are unknown are 0. Limits are applied by
        `limits.view`.

    Raises
    ------
    RequestError
        The store is not finished.
    """
    path = Path(folder) / "manifest.csv"
    if not path.exists():
        raise RequestError(f"{path} is missing: the store is not finished, run stage 02_prep.")
    return _read_rows(path)


def read_utterances(path: Path) -> pd.DataFrame:
    """
    Read the table that `utterances` made and ``02_prep`` wrote as ``utterances.csv``.

    Raises
    ------
    RequestError
        It is not there.
    """
    if not Path(path).exists():
        raise RequestError(f"{path} is missing: run stage 02_prep.")
    return _read_rows(path)


def counts(corpus: Corpus, view: pd.DataFrame) -> pd.DataFrame:
    """
    Compare what a store holds, by its `limits.view`, with the official counts.

    Returns
    -------
    DataFrame
        Index ``subset``; columns ``utterances, official_utterances, speakers, official_speakers, accepted, hours``
        (of accepted speech). Official counts are missing values where none is published.
    """
    good = view[view["error"] == ""]
    table = view.groupby("subset").agg(utterances=("id", "size"), speakers=("speaker", "nunique"))
    table["accepted"] = good.groupby("subset").size()
    table["hours"] = good.groupby("subset")["samples"].sum() / SAMPLE_RATE / 3600
    official = pd.DataFrame(corpus.remotes, columns=[field.name for field in fields(Archive)])
    official = official.astype({"utterances": "Int64", "speakers": "Int64"})  # whole numbers, some of them missing
    official = official[["subset", "utterances", "speakers"]].groupby("subset").sum(min_count=1).add_prefix("official_")
    columns = ["utterances", "official_utterances", "speakers", "official_speakers", "accepted", "hours"]
    return table.join(official)[columns].fillna({"accepted": 0, "hours": 0.0}).astype({"accepted": int})


def refuse_incomplete(corpus: Corpus, archives: Sequence[VerifiedArchive], view: pd.DataFrame) -> None:
    """
    Raise a RequestError where a corpus that came without checksums (a tree) has not its official counts.

    What a checksum has proven to be the published archive is complete, whatever a table says.
    """
    if all(archive.removed or archive.md5 == _published(corpus, archive) for archive in archives):
        return
    table = counts(corpus, view)
    for what in ("utterances", "speakers"):
        wrong = table[table[f"official_{what}"].notna() & (table[what] != table[f"official_{what}"])]
        for subset, row in wrong.iterrows():
            raise RequestError(
                f"corpus {corpus.name} has {row[what]:.0f} {what} in its half '{subset}' instead of the official "
                f"{row[f'official_{what}']:.0f}: complete it, or set allow_incomplete of 02_prep."
            )


def checks(corpus: Corpus, view: pd.DataFrame, lists: Sequence[str], min_utterances: int = 2) -> pd.DataFrame:
    """
    Say what a preparation has found, good or bad.

    Parameters
    ----------
    corpus : Corpus
    view : DataFrame
        Of its store (`limits.view`).
    lists : sequence of str
        Names of its trial lists that will be used.
    min_utterances : int
        Accepted utterances that a speaker should have.

    Returns
    -------
    DataFrame
        A row per check: ``corpus, check, found`` (number of files or speakers), ``of``, ``example``.
    """
    trials = [corpus.trials(name) for name in lists]
    named = pd.Index(pd.concat([pd.concat([t["enrol"], t["test"]]) for t in trials]).unique() if trials else [])
    good, kept = view[view["error"] == ""], view["decoded"] & view["id"].isin(named)
    bad, flagged = view[(view["error"] != "") & ~kept], view[(view["error"] != "") & kept]
    rows = [("accepted", good["id"])]
    rows += [(f"refused: {kind}", group) for kind, group in bad["id"].groupby(_kinds(bad))]
    rows += [(f"kept, as a list names it: {kind}", group) for kind, group in flagged["id"].groupby(_kinds(flagged))]
    warned = good[good["warning"] != ""]
    rows += [(f"usable, but {text}", group) for text, group in warned["id"].groupby(_without_numbers(warned))]
    rows += [("resampled, recorded at another rate", good.loc[good["rate"] != SAMPLE_RATE, "id"])]
    rows += [("several channels made one", good.loc[good["channels"] > 1, "id"])]
    spoken = good["speaker"].value_counts()
    rows += [(f"speakers with fewer than {min_utterances} utterances", spoken.index[spoken < min_utterances])]
    rows += [("named by a list, but not in the corpus", named.difference(view["id"]))]
    tested = view.loc[view["subset"] == "test", "id"]
    rows += [("in the test half, but named by no list used", tested[~tested.isin(named)])]
    found = [(corpus.name, what, len(ids), next(iter(ids), "")) for what, ids in rows]
    table = pd.DataFrame(found, columns=["corpus", "check", "found", "example"])
    return table.assign(of=[len(spoken) if "speakers" in what else len(view) for what in table["check"]])


def _kinds(rejected: pd.DataFrame) -> pd.Series:
    return rejected["error"].str.replace(r"^(duplicate of|speaker has) .*", r"\1", regex=True).str.split(":").str[0]


def _without_numbers(warned: pd.DataFrame) -> pd.Series:
    return warned["warning"].str.replace(r"\d+(\.\d+)?", "…", regex=True)


def _published(corpus: Corpus, archive: VerifiedArchive) -> str | None:
    """Checksum that the archive should have; None where nothing is published to compare with."""
    known = {item.name: item.md5 or item.parts[0][1] for item in (*corpus.remotes, *corpus.public)}
    return None if not archive.removed and archive.is_tree else known.get(archive.name)


def _read_rows(path: Path) -> pd.DataFrame:
    types: dict[str, type] = dict.fromkeys(("offset", "bytes", "samples", "rate", "channels"), np.int64)
    types |= dict.fromkeys(("peak", "clipped", "silent"), np.float64)
    return pd.read_csv(path, dtype=defaultdict(lambda: str, types), keep_default_na=False)


PLACES = ["shard", "offset", "bytes"]  # where the samples lie: another encoding or size of shards changes these alone


def compare(one: Path, other: Path) -> list[str]:
    """
    Say in what two manifests differ, for example those of two machines.

    Parameters
    ----------
    one, other : Path
        Manifests, or the stores that hold them.

    Returns
    -------
    list of str
        A sentence per difference; an empty list for manifests that say the same, wherever the samples lie.

    Raises
    ------
    RequestError
        One of them is not there.
    """
    tables = []
    for path in map(Path, (one, other)):
        table = _read_rows(path) if path.is_file() else read_manifest(path)
        tables.append(table.assign(n=table.groupby("id").cumcount()).set_index(["id", "n"]).sort_index())
    told = []
    for table, rest, path in ((*tables, one), (*tables[::-1], other)):
        alone = table.index.difference(rest.index)
        if len(alone):
            told.append(f"{len(alone)} file(s) are in {path} alone, first {alone[0][0]}.")
    both = tables[0].index.intersection(tables[1].index)
    first_rows, second_rows = (table.loc[both] for table in tables)
    for column in (name for name in COLUMNS if name not in ("id", *PLACES)):
        differs = (first_rows[column] != second_rows[column]).to_numpy()
        if differs.any():
            first = int(np.argmax(differs))
            here, there = (rows[column].iloc[[first]].tolist()[0] for rows in (first_rows, second_rows))
            told.append(
                f"{column} differs for {differs.sum()} file(s), first {both[first][0]}: {here!r} and {there!r}."
            )
    return told
