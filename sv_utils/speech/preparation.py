"""
From verified archives to one store per corpus: shards of samples and a manifest with a row per file, failed ones too.

`prepare` decodes every file once, straight out of the (still cut) zip or the streamed tar, in a pool of processes.
`sv_utils.speech.reader` reads what it leaves.
"""

import contextlib
import csv
import errno
import hashlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from sv_utils.base import locks, paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.fetch import FULL
from sv_utils.base.progress import Progress
from sv_utils.base.terminal import printable
from sv_utils.corpora import Corpus
from sv_utils.speech import archives, audio
from sv_utils.speech.archives import Member, VerifiedArchive
from sv_utils.speech.manifest import COLUMNS, ENCODINGS
from sv_utils.speech.reader import SAMPLE_RATE

FORMAT = 4  # raise when the meaning of a store's files changes


@dataclass(frozen=True)
class _Job:
    """One shard: its files, where they are read from and what is asked of them."""

    corpus: str
    files: tuple[tuple[str, int], ...]
    members: tuple[Member, ...]
    subset: str
    max_seconds: float
    first_channel: bool
    target: Path


def prepare(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    *,
    workers: int = 1,
    encoding: str = "pcm",
    utterances_per_shard: int = 200,
    scheduler: str = "",
    max_seconds: float = 3600.0,
    required: Collection[str] = (),
) -> Path:
    """
    Decode a corpus into its store: whatever decodes, with its measures. Limits are applied later (`limits.view`).

    Files are taken in the order of their names (those of a tar in its own), `utterances_per_shard` to a shard; each
    shard is written by one worker under a temporary name. A killed call loses at most the shards in work: the next one
    keeps those that are finished. Shards and manifest do not depend on the number of workers or machines.

    Parameters
    ----------
    corpus : Corpus
    verified : sequence of VerifiedArchive
        From `download.fetch`.
    workers : int
        Processes on this machine, by joblib.
    encoding : {'pcm', 'flac'}
        int16 samples as they are, or lossless in about half the space: decoded on reading, which takes longer.
    utterances_per_shard : int
        Size of a shard. 200 suits small corpora; VoxCeleb wants about 2000, as each shard in use is a mapped file.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:8786``): the work goes to all its workers, through joblib's Dask
        backend. All machines must see the archives and the outputs folder under the same paths.
    max_seconds : float
        Longest recording that is decoded [s], which bounds the memory that a file can take.
    required : collection of str
        Ids of files without which there is no use in going on, such as those that trial lists name: the first that
        cannot be decoded ends the work.

    Returns
    -------
    Path
        ``outputs/corpora/<corpus>/store-<key8>/``; its ``manifest.csv`` was written last.

    Raises
    ------
    RequestError
        An archive is not what its name says, or has no audio file; an unknown encoding; no scheduler answers; a
        required file cannot be decoded.
    WorkError
        No space left, or a worker died. Finished shards stay.
    """
    if encoding not in ENCODINGS:
        raise RequestError(f"there is no encoding '{encoding}' of shards: take {' or '.join(ENCODINGS)}.")
    key = store_key(corpus, verified, max_seconds, utterances_per_shard, encoding)
    folder = paths.corpus_dir(corpus.name) / f"store-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with locks.alone(folder / ".lock"):
        if (folder / "manifest.csv").exists():
            return folder
        if gone := [archive.name for archive in verified if archive.removed]:
            raise RequestError(
                f"{gone[0]} of corpus {corpus.name} was removed after an earlier preparation: remove "
                f"{paths.corpus_dir(corpus.name) / 'archives.json'} and run stage 01_download to fetch it again."
            )
        for remnant in folder.glob(".shard-*"):  # of a killed call
            remnant.unlink(missing_ok=True)  # its workers may still be about to end
        work = _Work(frozenset(required))
        jobs = work.caught(_jobs(corpus, verified, max_seconds, utterances_per_shard, folder, encoding))
        with _told(folder), _pool(workers, scheduler) as pool, _progress(corpus, verified) as progress:
            for count, failed in pool(joblib.delayed(_write_shard)(job) for job in work.waiting(jobs, progress)):
                progress.add(count)
                work.note(failed)
            work.refuse()
            _write_manifest(folder, work.tables)
    return folder


def store_key(
    corpus: Corpus, verified: Sequence[VerifiedArchive], max_seconds: float, utterances_per_shard: int, encoding: str
) -> str:
    """Eight hexadecimal digits that change with all that decoding depends on, and with nothing else."""
    parts = [corpus.name, *(f"{archive.subset} {archive.md5}" for archive in verified)]
    parts += [str(max_seconds), str(utterances_per_shard), encoding, str(corpus.first_channel), str(FORMAT)]
    parts += [f"decoder {audio.DECODER}", inspect.getsource(audio.measure), inspect.getsource(corpus.naming)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _jobs(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    max_seconds: float,
    per_shard: int,
    folder: Path,
    encoding: str,
) -> Iterator[_Job]:
    number = 0
    for archive in verified:
        first, files = number, tuple((file["path"], file["mtime_ns"]) for file in archive.files)
        for batch in archives.batches(archives.members(archive, corpus.naming), per_shard):
            target = folder / f"shard-{number:05d}.{encoding}"
            yield _Job(corpus.name, files, batch, archive.subset, max_seconds, corpus.first_channel, target)
            number += 1
        if number == first:
            raise RequestError(f"{archive.name} holds no audio file: it is not the archive of corpus {corpus.name}.")


class _Work:
    """What is still to do of a store, and what has been found that ends it."""

    def __init__(self, required: frozenset[str]):
        self.required = required
        self.tables: list[Path] = []
        self.failures: list[RequestError] = []
        self.lost: dict[str, str] = {}

    def caught(self, jobs: Iterator[_Job]) -> Iterator[_Job]:
        """End the jobs where listing them fails: joblib asks for them in threads of its own, which must not raise."""
        try:
            yield from jobs
        except RequestError as error:
            self.failures.append(error)

    def waiting(self, jobs: Iterator[_Job], progress: Progress) -> Iterator[_Job]:
        """Jobs that are still to do, until something is lost; the table of each, done or not, is noted."""
        for job in jobs:
            self.tables.append(job.target.with_suffix(".csv"))
            if self.tables[-1].exists():
                progress.add(len(job.members), done_before=True)
                if self.required:
                    self.note([(row["id"], row["error"]) for row in _read_rows(self.tables[-1:]) if row["error"]])
            elif not self.lost:
                yield job
            if self.lost:
                return

    def note(self, failed: Iterable[tuple[str, str]]) -> None:
        """Keep those of the failed files (id, reason) that are required."""
        self.lost |= {name: reason for name, reason in failed if name in self.required}

    def refuse(self) -> None:
        """Raise what has been found."""
        if self.lost:
            name, reason = min(self.lost.items())
            raise RequestError(
                f"{printable(name)}, which a trial list names, cannot be decoded ({reason}; {len(self.lost)} such "
                "file(s) so far): fetch its archive again, or set missing_trials of 02_prep to drop, which goes on "
                "without its trials; finished shards stay."
            )
        if self.failures:
            raise self.failures[0]


def _write_shard(job: _Job) -> tuple[int, list[tuple[str, str]]]:
    """
    Decode the files of one shard: samples first, then the rows, whose presence says that the shard is finished.

    Returns the number of its files, and id and reason of those that cannot be decoded.
    """
    rows, offset = [], 0
    encode, step = ENCODINGS[job.target.suffix[1:]]
    with paths.replace_on_success(job.target) as temporary, open(temporary, "wb") as shard:
        for member in job.members:
            row, samples = _examine(job, member)
            if samples is not None:
                data = encode(samples)
                shard.write(data)
                row |= {"shard": job.target.name, "offset": offset // step, "bytes": len(data)}
                offset += len(data)
            rows.append(row)
    with paths.replace_on_success(job.target.with_suffix(".csv")) as temporary:
        _write_rows(temporary, rows)
    return len(rows), [(row["id"], row["error"]) for row in rows if row["error"]]


def _examine(job: _Job, member: Member) -> tuple[dict, np.ndarray | None]:
    """Decode and measure one file. Returns its row of the manifest and its samples (None when there are none)."""
    numbers = ("offset", "bytes", "samples", "rate", "channels", "peak", "clipped", "silent")
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | dict.fromkeys(numbers, 0)
    row |= {"corpus": job.corpus, "id": member.name, "subset": job.subset}
    try:
        if member.refusal:
            raise audio.AudioError(member.refusal)
        name = member.utterance
        assert name is not None  # where nothing is refused
        row |= {"id": name.id, "speaker": name.speaker, "session": name.session}
        data = archives.read(job.files, member)
        row["source_sha256"] = hashlib.sha256(data).hexdigest()
        decoded = audio.decode(data, SAMPLE_RATE, job.max_seconds, job.first_channel, in_worker=True)
    except audio.AudioError as error:
        return row | {"error": str(error)}, None
    measures = {name: round(value, 6) for name, value in audio.measure(decoded.samples).items()}
    row |= {"samples": len(decoded.samples), "rate": decoded.rate, "channels": decoded.channels, **measures}
    row["content"] = hashlib.sha256(decoded.samples.tobytes()).hexdigest()[:16]
    return row | {"warning": "; ".join(decoded.warnings)}, decoded.samples


def _write_rows(path: Path, rows: Iterable[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_rows(tables: Sequence[Path]) -> Iterator[dict]:
    for table in tables:
        with open(table, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _write_manifest(folder: Path, tables: Sequence[Path]) -> None:
    """Join the shards' rows; a name that stands there a second time is refused."""
    repeated = _repeated(row["id"] for row in _read_rows(tables))

    def rows() -> Iterator[dict]:
        seen = set()
        for row in _read_rows(tables):
            if _digest(row["id"]) in repeated:
                if row["id"] in seen:
                    row["error"] = "id twice in the corpus"
                seen.add(row["id"])
            yield row

    with paths.replace_on_success(folder / "manifest.csv") as temporary:
        _write_rows(temporary, rows())


def _repeated(words: Iterator[str]) -> set[int]:
    """Digests of the words that occur more than once: eight bytes a word, so that millions fit."""
    digests = np.sort(np.fromiter(map(_digest, words), dtype=np.uint64))
    return set(digests[1:][digests[1:] == digests[:-1]].tolist())


def _digest(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _progress(corpus: Corpus, verified: Sequence[VerifiedArchive]) -> Progress:
    """A display that knows how many files there will be where the corpus has official counts."""
    names = {archive.name for archive in verified}
    total = sum(item.utterances or 0 for item in (*corpus.remotes, *corpus.public) if item.name in names)
    return Progress(f"{corpus.name}: decoding", "files", total)


@contextlib.contextmanager
def _pool(workers: int, scheduler: str) -> Iterator[joblib.Parallel]:
    """Processes of this machine, or the workers of a Dask scheduler."""
    if not scheduler:
        yield joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
        return
    try:
        import distributed
    except ImportError:
        raise RequestError("scheduler wants the package distributed: pip install 'sv_utils[dask]'.") from None
    try:
        client = distributed.Client(scheduler, timeout=30)
    except (OSError, ValueError) as error:
        raise RequestError(f"no Dask scheduler answers at {scheduler} ({type(error).__name__}).") from None
    with client, joblib.parallel_config(backend="dask"):
        yield joblib.Parallel(n_jobs=-1, return_as="generator_unordered")


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
