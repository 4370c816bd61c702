"""
What a store holds: the manifest with a row per file, and the samples of the accepted ones in shards.

`sv_utils.preparation` writes stores; nothing after it opens an audio file. `utterances` turns the manifests into the
table that training and evaluation share, and `Speech` reads waveforms and random crops back from memory-mapped shards.
``python -m sv_utils.store --compare A B`` says in what two stores or manifests differ.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils import audio, paths
from sv_utils.archives import VerifiedArchive
from sv_utils.corpora import Archive, Corpus
from sv_utils.errors import RequestError, command, nearest

SAMPLE_RATE = 16000  # [Hz] of everything in a store
COLUMNS = ["corpus", "id", "speaker", "session", "subset", "shard", "offset", "bytes", "samples", "source_sha256"]
COLUMNS += ["rate", "channels", "peak", "clipped", "silent", "error", "content"]
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
        `audio.measure`), ``error`` ('' = accepted), ``content`` (digest of the decoded samples). Where there is an
        error, numbers that are unknown are 0.

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


def counts(corpus: Corpus, manifest: pd.DataFrame) -> pd.DataFrame:
    """
    Compare what a store holds with the official counts.

    Returns
    -------
    DataFrame
        Index ``subset``; columns ``utterances, official_utterances, speakers, official_speakers, accepted, hours``
        (of accepted speech). Official counts are missing values where none is published.
    """
    accepted = manifest[manifest["error"] == ""]
    table = manifest.groupby("subset").agg(utterances=("id", "size"), speakers=("speaker", "nunique"))
    table["accepted"] = accepted.groupby("subset").size()
    table["hours"] = accepted.groupby("subset")["samples"].sum() / SAMPLE_RATE / 3600
    official = pd.DataFrame(corpus.remotes, columns=[field.name for field in fields(Archive)])
    official = official.astype({"utterances": float, "speakers": float})
    official = official[["subset", "utterances", "speakers"]].groupby("subset").sum(min_count=1).add_prefix("official_")
    columns = ["utterances", "official_utterances", "speakers", "official_speakers", "accepted", "hours"]
    return table.join(official)[columns].fillna({"accepted": 0, "hours": 0.0}).astype({"accepted": int})


def refuse_incomplete(corpus: Corpus, archives: Sequence[VerifiedArchive], manifest: pd.DataFrame) -> None:
    """
    Raise a RequestError where a corpus that came without checksums (a tree) has not its official counts.

    What a checksum has proven to be the published archive is complete, whatever a table says.
    """
    if all(archive.removed or archive.md5 == _published(corpus, archive) for archive in archives):
        return
    table = counts(corpus, manifest)
    for what in ("utterances", "speakers"):
        wrong = table[table[f"official_{what}"].notna() & (table[what] != table[f"official_{what}"])]
        for subset, row in wrong.iterrows():
            raise RequestError(
                f"corpus {corpus.name} has {row[what]:.0f} {what} in its half '{subset}' instead of the official "
                f"{row[f'official_{what}']:.0f}: complete it, or set allow_incomplete of 02_prep."
            )


def checks(corpus: Corpus, manifest: pd.DataFrame, lists: Sequence[str], min_utterances: int = 2) -> pd.DataFrame:
    """
    Say what a preparation has found, good or bad.

    Parameters
    ----------
    corpus : Corpus
    manifest : DataFrame
        Of its store.
    lists : sequence of str
        Names of its trial lists that will be used.
    min_utterances : int
        Accepted utterances that a speaker should have.

    Returns
    -------
    DataFrame
        A row per check: ``corpus, check, found`` (number of files or speakers), ``of``, ``example``.
    """
    good, bad = manifest[manifest["error"] == ""], manifest[manifest["error"] != ""]
    rows = [("accepted", good["id"])]
    kinds = bad["error"].str.replace(r"^(duplicate of|speaker has) .*", r"\1", regex=True).str.split(":").str[0]
    rows += [(f"refused: {kind}", group) for kind, group in bad["id"].groupby(kinds)]
    rows += [("resampled, recorded at another rate", good.loc[good["rate"] != SAMPLE_RATE, "id"])]
    rows += [("several channels made one", good.loc[good["channels"] > 1, "id"])]
    spoken = good["speaker"].value_counts()
    rows += [(f"speakers with fewer than {min_utterances} utterances", spoken.index[spoken < min_utterances])]
    trials = [corpus.trials(name) for name in lists]
    named = pd.Index(pd.concat([pd.concat([t["enrol"], t["test"]]) for t in trials]).unique() if trials else [])
    rows += [("named by a list, but not in the corpus", named.difference(manifest["id"]))]
    tested = manifest.loc[manifest["subset"] == "test", "id"]
    rows += [("in the test half, but named by no list used", tested[~tested.isin(named)])]
    found = [(corpus.name, what, len(ids), next(iter(ids), "")) for what, ids in rows]
    table = pd.DataFrame(found, columns=["corpus", "check", "found", "example"])
    return table.assign(of=[len(spoken) if "speakers" in what else len(manifest) for what in table["check"]])


def _published(corpus: Corpus, archive: VerifiedArchive) -> str | None:
    """Checksum that the archive should have; None where nothing is published to compare with."""
    known = {item.name: item.md5 or item.parts[0][1] for item in (*corpus.remotes, *corpus.public)}
    return None if not archive.removed and archive.is_tree else known.get(archive.name)


def utterances(
    stores: Sequence[tuple[Corpus, Path]],
    lists: Mapping[str, Sequence[str]],
    *,
    train: Sequence[str],
    n_validation: int,
    min_utterances: int = 2,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Join the manifests of all corpora into the table that training and evaluation share.

    Parameters
    ----------
    stores : sequence of (Corpus, Path)
        Corpora with their stores from `prepare`.
    lists : mapping of str to sequence of str
        The evaluation lists of each corpus, as `corpora.find_lists` gives them.
    train : sequence of str
        Names of the corpora whose dev half is trained on.
    n_validation : int
        Number of dev speakers held out for validation, drawn by `split_validation`.
    min_utterances : int
        Training speakers with fewer accepted utterances are dropped.
    seed : int
        Of the draw.

    Returns
    -------
    table : DataFrame
        Accepted rows with the manifest's columns and ``split`` (train, validation, test), ``gender``, ``nationality``,
        ``language`` ('' where unknown); ``shard`` is relative to ``paths.outputs()``. Split 'test' is exactly the files
        that the evaluation lists name; a duplicate is left out of training, but kept where a list names it.
    rejected : DataFrame
        Rows that are not used because of what their ``error`` says.

    Raises
    ------
    RequestError
        A list names a file that is missing or rejected, or a speaker of the training half.

    Examples
    --------
    >>> table, rejected = utterances(
    ...     [(ocean, folder)], {"ocean": ["ocean"]}, train=["ocean"], n_validation=10)  # doctest: +SKIP
    """
    prepared = [corpus.name for corpus, _ in stores]
    for name in (*train, *lists):
        if name not in prepared:
            raise RequestError(f"corpus '{name}' is not among those prepared{nearest(name, prepared)}.")
    tables = [_joined(corpus, folder) for corpus, folder in stores]
    for (corpus, _), table in zip(stores, tables, strict=True):
        listed = _listed(corpus, table, lists.get(corpus.name, ()))
        trainable = (table["subset"] == "dev") & (table["error"] == "") & (corpus.name in train)
        table["split"] = np.select([listed, trainable], ["test", "train"], "")
    table = pd.concat(tables, ignore_index=True)
    _refuse_overlap(table)
    is_train = table["split"] == "train"
    size = table.loc[is_train, "speaker"].map(table.loc[is_train, "speaker"].value_counts())
    few = size.index[size < min_utterances]
    table.loc[few, "error"] = [f"speaker has {n} of {min_utterances} utterances" for n in size[few]]
    table.loc[few, "split"] = ""
    is_train = table["split"] == "train"
    held_out = split_validation(table[is_train], n_validation, seed) if train else []
    table.loc[is_train & table["speaker"].isin(held_out), "split"] = "validation"
    used = table["split"] != ""
    rejected = table[~used & (table["error"] != "")]
    return table[used].assign(error="").reset_index(drop=True), rejected.reset_index(drop=True)


def accepted(corpus: Corpus, folder: Path) -> pd.DataFrame:
    """All accepted rows of one store, as `utterances` gives them but without a split: noises, music, rooms."""
    table = _joined(corpus, folder)
    return table[table["error"] == ""].reset_index(drop=True)


def split_validation(table: pd.DataFrame, n_speakers: int, seed: int) -> list[str]:
    """
    Draw the speakers that training never sees and every choice is made on.

    Parameters
    ----------
    table : DataFrame
        Rows that may be trained on, with column ``speaker``.
    n_speakers : int
        How many to hold out.
    seed : int

    Returns
    -------
    list of str
        Sorted speakers; the same for the same set of speakers and seed, whatever the order of the rows.

    Raises
    ------
    RequestError
        Fewer than two speakers would be left to train on.
    """
    speakers = sorted(table["speaker"].unique())
    if not 0 <= n_speakers <= len(speakers) - 2:
        raise RequestError(
            f"{n_speakers} validation speakers of {len(speakers)} leave fewer than 2 to train on: "
            f"lower the number of validation speakers."
        )
    return sorted(np.random.default_rng(seed).permutation(speakers)[:n_speakers].tolist())


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
        self._shards = [_mapped(Path(root or paths.outputs()) / shard) for shard in shards]
        if any(shard.dtype == np.uint8 for shard in self._shards):
            self._ends = self._offsets + table["bytes"].to_numpy(np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def waveform(self, row: int) -> np.ndarray:
        """A whole utterance [shape=(n,), dtype=int16]; out of a .pcm shard a read-only view."""
        return self._piece(row, 0, self.samples[row])

    def _piece(self, row: int, start: int, length: int) -> np.ndarray:
        shard, offset = self._shards[self._shard_of[row]], self._offsets[row]
        if shard.dtype == np.uint8:
            return audio.decode_flac(shard[offset : self._ends[row]].data, start, length)
        return shard[offset + start : offset + start + length]

    def crops(self, rows: Sequence[int], starts: Sequence[int], length: int) -> np.ndarray:
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


def _read_rows(path: Path) -> pd.DataFrame:
    types = dict.fromkeys(("offset", "bytes", "samples", "rate", "channels"), np.int64)
    types |= dict.fromkeys(("peak", "clipped", "silent"), np.float64)
    return pd.read_csv(path, dtype=defaultdict(lambda: str, types), keep_default_na=False)


def _joined(corpus: Corpus, folder: Path) -> pd.DataFrame:
    """A manifest with the speaker table's facts and shards relative to the outputs folder."""
    table = read_manifest(folder)
    known = corpus.speakers()
    for column in ("gender", "nationality", "language"):
        table[column] = table["speaker"].map(known[column]).fillna("") if column in known else ""
    prefix = Path(folder).resolve().relative_to(paths.outputs())
    table["shard"] = [f"{prefix}/{shard}" if shard else "" for shard in table["shard"]]
    return table


def _listed(corpus: Corpus, table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Which rows the trial lists name; all named files must be there."""
    listed = pd.Series(False, index=table.index)
    usable = (table["error"] == "") | table["error"].str.startswith("duplicate of ")
    for name in names:
        trials = corpus.trials(name)
        wanted = set(trials["enrol"]) | set(trials["test"])
        bad = sorted(wanted - set(table.loc[usable, "id"]))
        if bad:
            reasons = dict(zip(table["id"], table["error"], strict=True))
            raise RequestError(
                f"trial list {name} of corpus {corpus.name} names {len(bad)} file(s) that the store does not offer, "
                f"first {bad[0]} ({reasons.get(bad[0], 'not in the archives')}): complete the corpus, relax the limits "
                f"of 02_prep, or leave the list out."
            )
        listed |= usable & table["id"].isin(wanted)
    return listed


def _refuse_overlap(table: pd.DataFrame) -> None:
    tested = set(table.loc[table["split"] == "test", "speaker"])
    both = sorted(tested & set(table.loc[table["split"] == "train", "speaker"]))
    if both:
        raise RequestError(
            f"{len(both)} speaker(s) of the training half are in an evaluation list, first {both[0]}: "
            f"train on another corpus or leave the list out."
        )


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
    one, other = (table.loc[both] for table in tables)
    for column in (name for name in COLUMNS if name not in ("id", *PLACES)):
        differs = (one[column] != other[column]).to_numpy()
        if differs.any():
            first = int(np.argmax(differs))
            values = f"{one[column].iloc[first]!r} and {other[column].iloc[first]!r}"
            told.append(f"{column} differs for {differs.sum()} file(s), first {both[first][0]}: {values}.")
    return told


@command
def main(argv: list[str] | None = None) -> int:
    """Command line: ``python -m sv_utils.store --compare A B``; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.store", description="Compare two stores.")
    parser.add_argument("--compare", nargs=2, required=True, metavar=("A", "B"), help="manifest.csv or its folder")
    one, other = parser.parse_args(argv).compare
    told = compare(one, other)
    print("\n".join(told) or f"{one} and {other} hold the same.")
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main())
