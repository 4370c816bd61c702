"""
From verified archives to one store per corpus: int16 shards and a manifest with a row per file, failed files included.

`prepare` decodes every file once, straight out of the (still cut) zip. Everything later reads the manifest; nothing
later opens an audio file. `utterances` turns the manifests into the table that training and evaluation share, and
`Speech` reads waveforms and random crops back from memory-mapped shards.
"""

import contextlib
import csv
import errno
import fcntl
import hashlib
import inspect
import io
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath

import joblib
import numpy as np
import pandas as pd

from sv_utils import audio, corpora, paths
from sv_utils.corpora import Archive, Corpus
from sv_utils.download import FULL, VerifiedArchive, open_parts
from sv_utils.errors import RequestError, WorkError, nearest

SAMPLE_RATE = 16000  # [Hz] of everything in a store
MAX_BYTES = 1 << 28  # of one file inside an archive, whatever its header claims
IN_A_TREE = -1  # in place of a compression method: the file lies by itself
FORMAT = 1  # raise when the meaning of a store's files changes
COLUMNS = ["corpus", "id", "speaker", "session", "subset", "shard", "offset", "samples", "source_sha256", "rate"]
COLUMNS += ["channels", "peak", "clipped", "silent", "error", "content"]


@dataclass(frozen=True)
class Limits:
    """
    What a file must hold to be accepted.

    Attributes
    ----------
    min_seconds, max_seconds : float
        Accepted durations [s].
    max_clipped, max_silent : float
        Largest accepted fraction of clipped samples and of silent frames, as defined by `audio.measure`.
    """

    min_seconds: float = 1.0
    max_seconds: float = 3600.0
    max_clipped: float = 0.05
    max_silent: float = 0.95

    def reason(self, samples: int, measures: Mapping[str, float]) -> str:
        """Why a recording is rejected; '' when it is accepted."""
        seconds = samples / SAMPLE_RATE
        if seconds < self.min_seconds:
            return f"too short: {seconds:.2f} s, wanted {self.min_seconds:g} s"
        if measures["silent"] > self.max_silent:
            return f"silent: {measures['silent']:.3f} of the frames, at most {self.max_silent:g}"
        if measures["clipped"] > self.max_clipped:
            return f"clipped: {measures['clipped']:.3f} of the samples, at most {self.max_clipped:g}"
        return ""


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive: all that is needed to read it without the archive's directory."""

    name: str
    start: int
    packed: int
    size: int
    method: int
    crc: int
    refusal: str


@dataclass(frozen=True)
class _Job:
    """One shard: its files, where they are read from and what is asked of them."""

    corpus: str
    subset: str
    files: tuple[tuple[str, int], ...]
    members: tuple[Member, ...]
    limits: Limits
    target: Path


def prepare(
    corpus: Corpus,
    archives: Sequence[VerifiedArchive],
    *,
    workers: int = 1,
    min_seconds: float = Limits.min_seconds,
    max_clipped: float = Limits.max_clipped,
    max_silent: float = Limits.max_silent,
    utterances_per_shard: int = 200,
) -> Path:
    """
    Decode a corpus into its store.

    Files are taken in the order of their names, `utterances_per_shard` to a shard; each shard is written by one worker
    under a temporary name. A killed call loses at most the shards in work: the next one keeps those that are finished.
    Shards and manifest do not depend on the number of workers.

    Parameters
    ----------
    corpus : Corpus
    archives : sequence of VerifiedArchive
        From `download.fetch`.
    workers : int
        Processes (joblib; ``with joblib.parallel_config(backend="dask")`` spreads them over machines).
    min_seconds : float
        Shortest accepted recording [s].
    max_clipped, max_silent : float
        See `Limits`.
    utterances_per_shard : int
        Size of a shard. 200 suits small corpora; VoxCeleb wants about 2000, as each shard in use is a mapped file.

    Returns
    -------
    Path
        ``outputs/corpora/<corpus>/store-<key8>/``; its ``manifest.csv`` was written last.

    Raises
    ------
    RequestError
        An archive is not a zip, or has no audio file.
    WorkError
        No space left, or a worker died. Finished shards stay.
    """
    limits = Limits(min_seconds, Limits.max_seconds, max_clipped, max_silent)
    folder = paths.corpus_dir(corpus.name) / f"store-{store_key(corpus, archives, limits, utterances_per_shard)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if (folder / "manifest.csv").exists():
            return folder
        for remnant in folder.glob(".shard-*"):  # of a killed call
            remnant.unlink(missing_ok=True)  # its workers may still be about to end
        jobs = list(_jobs(corpus, archives, limits, utterances_per_shard, folder))
        waiting = [job for job in jobs if not job.target.with_suffix(".csv").exists()]
        with _told(folder):
            joblib.Parallel(n_jobs=workers)(joblib.delayed(_write_shard)(job) for job in waiting)
            _write_manifest(folder, [job.target.with_suffix(".csv") for job in jobs])
    return folder


def store_key(corpus: Corpus, archives: Sequence[VerifiedArchive], limits: Limits, utterances_per_shard: int) -> str:
    """Eight hexadecimal digits that change with all that the content of a store depends on."""
    parts = [corpus.name, *(f"{archive.subset} {archive.md5}" for archive in archives)]
    parts += [repr(limits), str(utterances_per_shard), str(FORMAT), inspect.getsource(audio)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def members(archive: VerifiedArchive) -> list[Member]:
    """
    List an archive's audio files, sorted by name; what must not be read carries the reason in `refusal`.

    Raises
    ------
    RequestError
        The archive is no zip.
    """
    if Path(archive.files[0]["path"]).is_dir():
        return _tree_members(Path(archive.files[0]["path"]))
    try:
        with archive.open() as file, zipfile.ZipFile(file) as whole:
            infos = sorted(whole.infolist(), key=lambda info: (info.filename, info.header_offset))
    except zipfile.BadZipFile as error:
        raise RequestError(f"{archive.name} is not a zip ({error}): remove its parts and fetch it again.") from error
    found, previous = [], None
    for info in infos:
        if info.is_dir() or PurePosixPath(info.filename).suffix.lower() not in corpora.SUFFIXES:
            continue
        refusal = "name twice in the archive" if info.filename == previous else _refusal(info)
        start, packed, size = info.header_offset, info.compress_size, info.file_size
        found.append(Member(info.filename, start, packed, size, info.compress_type, info.CRC, refusal))
        previous = info.filename
    return found


def read_manifest(folder: Path) -> pd.DataFrame:
    """
    Read a store's manifest.

    Returns
    -------
    DataFrame
        A row per file of the corpus: ``corpus, id, speaker, session, subset, shard`` (file name within `folder`),
        ``offset, samples`` [samples], ``source_sha256`` (of the file's bytes), ``rate`` [Hz] and ``channels`` of the
        original, ``peak, clipped, silent`` (see `audio.measure`), ``error`` ('' = accepted), ``content`` (digest of
        the decoded samples). Where there is an error, numbers that are unknown are 0.

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

    Parameters
    ----------
    table : DataFrame
        With columns ``shard, offset, samples``.
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

    def __len__(self) -> int:
        return len(self.samples)

    def waveform(self, row: int) -> np.ndarray:
        """A whole utterance [shape=(n,), dtype=int16]: a read-only view into its shard."""
        start = self._offsets[row]
        return self._shards[self._shard_of[row]][start : start + self.samples[row]]

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
            whole = self.waveform(row)
            if start + length <= len(whole):
                piece[:] = whole[start : start + length]
            else:
                piece[:] = np.resize(np.roll(whole, -start), length)
        return pieces


def _mapped(path: Path) -> np.ndarray:
    if not path.exists():
        raise RequestError(f"shard {path} is missing: run stage 02_prep.")
    # A plain array view: slicing np.memmap itself costs several times the copy of a crop's bytes.
    return np.asarray(np.memmap(path, dtype="<i2", mode="r")) if path.stat().st_size else np.empty(0, np.int16)


def _jobs(corpus: Corpus, archives, limits: Limits, per_shard: int, folder: Path) -> Iterator[_Job]:
    number = 0
    for archive in archives:
        found, files = members(archive), tuple((file["path"], file["mtime_ns"]) for file in archive.files)
        if not found:
            raise RequestError(f"{archive.name} holds no audio file: it is not the archive of corpus {corpus.name}.")
        for start in range(0, len(found), per_shard):
            batch, target = tuple(found[start : start + per_shard]), folder / f"shard-{number:05d}.pcm"
            yield _Job(corpus.name, archive.subset, files, batch, limits, target)
            number += 1


def _tree_members(folder: Path) -> list[Member]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in corpora.SUFFIXES):
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        refusal = "" if name.count("/") in (1, 2) else "name is not <speaker>/<session>/<file> or <speaker>/<file>"
        refusal = refusal or corpora.unsafe(name) or _too_large(size)
        found.append(Member(name, 0, size, size, IN_A_TREE, 0, refusal))
    return found


def _too_large(size: int) -> str:
    return f"file of {size:,} bytes, at most {MAX_BYTES:,}" if size > MAX_BYTES else ""


def _refusal(info: zipfile.ZipInfo) -> str:
    """Why a member is not read: only plain, safely named, plausible files are."""
    try:
        corpora.parse(info.orig_filename)
    except RequestError as error:
        return f"unsafe: {error}" if corpora.unsafe(info.orig_filename) else str(error)
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return "unsafe: symbolic link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression method {info.compress_type} of the zip is not supported"
    return _too_large(max(info.file_size, info.compress_size))


@lru_cache(maxsize=4)
def _opened(files: tuple[tuple[str, int], ...]) -> io.BufferedReader:
    return open_parts([path for path, _ in files])  # the modification times make a replaced file another key


def _read_member(file: io.BufferedReader, member: Member) -> bytes:
    """
    Read one file of a zip by its place alone.

    `zipfile.ZipFile` would read the whole directory in every worker: a gigabyte each for a million files.
    """
    file.seek(member.start)
    header = _exactly(file, 30)
    if header[:4] != b"PK\3\4":
        raise audio.AudioError("damaged archive: no file where its directory says")
    file.seek(sum(struct.unpack("<2H", header[26:])), 1)
    data = _exactly(file, member.packed)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, member.size + 1)
        except zlib.error as error:
            raise audio.AudioError("damaged archive: cannot be unpacked") from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise audio.AudioError("damaged archive: size or checksum of the file is wrong")
    return data


def _exactly(file: io.BufferedReader, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise audio.AudioError("damaged archive: ends inside the file")
    return data


def _write_shard(job: _Job) -> None:
    """Decode the files of one shard: samples first, then the rows, whose presence says that the shard is finished."""
    rows, offset = [], 0
    with paths.replace_on_success(job.target) as temporary, open(temporary, "wb") as shard:
        for member in job.members:
            row, samples = _examine(job, member)
            if row["error"] == "":
                shard.write(samples.astype("<i2").tobytes())
                row |= {"shard": job.target.name, "offset": offset}
                offset += len(samples)
            rows.append(row)
    with paths.replace_on_success(job.target.with_suffix(".csv")) as temporary:
        _write_rows(temporary, rows)


def _examine(job: _Job, member: Member) -> tuple[dict, np.ndarray | None]:
    """Decode and measure one file. Returns its row of the manifest and its samples (None when there are none)."""
    row = dict.fromkeys(COLUMNS, "") | dict.fromkeys(("offset", "samples", "rate", "channels"), 0)
    row |= {"corpus": job.corpus, "id": member.name, "subset": job.subset, "peak": 0, "clipped": 0, "silent": 0}
    try:
        if member.refusal:
            raise audio.AudioError(member.refusal)
        name = corpora.parse(member.name)
        row |= {"id": name.id, "speaker": name.speaker, "session": name.session}
        if member.method == IN_A_TREE:
            data = (Path(job.files[0][0]) / member.name).read_bytes()
        else:
            data = _read_member(_opened(job.files), member)
        row["source_sha256"] = hashlib.sha256(data).hexdigest()
        decoded = audio.decode(data, SAMPLE_RATE, job.limits.max_seconds)
    except audio.AudioError as error:
        return row | {"error": str(error)}, None
    measures = {name: round(value, 6) for name, value in audio.measure(decoded.samples).items()}
    row |= {"samples": len(decoded.samples), "rate": decoded.rate, "channels": decoded.channels, **measures}
    row["content"] = hashlib.sha256(decoded.samples.tobytes()).hexdigest()[:16]
    row["error"] = job.limits.reason(len(decoded.samples), measures)
    return row, decoded.samples


def _write_rows(path: Path, rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_manifest(folder: Path, tables: Sequence[Path]) -> None:
    """Join the shards' rows; the second file with the same samples is a duplicate, wherever it lies."""

    def rows() -> Iterator[dict]:
        ids, contents = set(), {}
        for table in tables:
            with open(table, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if row["error"] == "":
                        first = contents.setdefault(row["content"], row["id"])
                        row["error"] = f"duplicate of {first}" if first != row["id"] else ""
                    if row["id"] in ids:
                        row["error"] = "id twice in the corpus"
                    ids.add(row["id"])
                    yield row

    with paths.replace_on_success(folder / "manifest.csv") as temporary:
        _write_rows(temporary, rows())


def _read_rows(path: Path) -> pd.DataFrame:
    types = dict.fromkeys(("offset", "samples", "rate", "channels"), np.int64)
    types |= dict.fromkeys(("peak", "clipped", "silent"), np.float64)
    return pd.read_csv(path, dtype=defaultdict(lambda: str, types), keep_default_na=False)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process prepare a store at a time; the lock falls with the process."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what ends a preparation into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = "" if error.errno == errno.EFBIG else "free some and "
        raise WorkError(f"no space left for {folder}: {free}run again, finished shards stay.") from error
    except joblib.externals.loky.process_executor.TerminatedWorkerError as error:
        raise WorkError(
            f"a worker died while writing {folder} (out of memory?): run again with fewer workers, "
            f"finished shards stay."
        ) from error


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
