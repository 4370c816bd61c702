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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from sv_utils.base import locks, paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.base.fetch import FULL
from sv_utils.base.progress import Progress
from sv_utils.corpora import Corpus, Utterance
from sv_utils.speech import archives, audio
from sv_utils.speech.archives import Member, VerifiedArchive
from sv_utils.speech.manifest import COLUMNS, ENCODINGS
from sv_utils.speech.reader import SAMPLE_RATE

FORMAT = 3  # raise when the meaning of a store's files changes


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
    min_rate : int
        Lowest accepted rate of an original [Hz]; others than 16 kHz are resampled.
    max_channels : int
        Largest accepted number of channels of an original.
    """

    min_seconds: float = 1.0
    max_seconds: float = 3600.0
    max_clipped: float = 0.05
    max_silent: float = 0.95
    min_rate: int = 8000
    max_channels: int = 32

    def reason(self, decoded: audio.Decoded, measures: Mapping[str, float]) -> str:
        """Why a recording is rejected; '' when it is accepted."""
        seconds = len(decoded.samples) / SAMPLE_RATE
        if decoded.rate < self.min_rate:
            return f"low rate: {decoded.rate} Hz, wanted {self.min_rate} Hz"
        if decoded.channels > self.max_channels:
            return f"channels: {decoded.channels}, at most {self.max_channels}"
        if seconds < self.min_seconds:
            return f"too short: {seconds:.2f} s, wanted {self.min_seconds:g} s"
        if measures["silent"] > self.max_silent:
            return f"silent: {measures['silent']:.3f} of the frames, at most {self.max_silent:g}"
        if measures["clipped"] > self.max_clipped:
            return f"clipped: {measures['clipped']:.3f} of the samples, at most {self.max_clipped:g}"
        return ""


@dataclass(frozen=True)
class _Job:
    """One shard: its files, where they are read from and what is asked of them."""

    corpus: str
    files: tuple[tuple[str, int], ...]
    members: tuple[Member, ...]
    subsets: tuple[str, ...]
    limits: Limits
    first_channel: bool
    target: Path


def prepare(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    *,
    workers: int = 1,
    encoding: str = "pcm",
    utterances_per_shard: int = 200,
    test_share: float = 0.2,
    split_seed: int = 0,
    scheduler: str = "",
    **limits,
) -> Path:
    """
    Decode a corpus into its store.

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
    test_share : float
        Share of the speakers that are set apart for testing, where neither folders nor a table say who they are.
    split_seed : int
        Of that draw.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:8786``): the work goes to all its workers, through joblib's Dask
        backend. All machines must see the archives and the outputs folder under the same paths.
    **limits
        Fields of `Limits`.

    Returns
    -------
    Path
        ``outputs/corpora/<corpus>/store-<key8>/``; its ``manifest.csv`` was written last.

    Raises
    ------
    RequestError
        An archive is not what its name says, or has no audio file; an unknown encoding; no scheduler answers.
    WorkError
        No space left, or a worker died. Finished shards stay.
    """
    if encoding not in ENCODINGS:
        raise RequestError(f"there is no encoding '{encoding}' of shards: take {' or '.join(ENCODINGS)}.")
    limits = Limits(**limits)
    subset = Subsets(corpus, verified, test_share, split_seed)
    key = store_key(corpus, verified, limits, utterances_per_shard, encoding, subset.key)
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
        tables, failures = [], []
        jobs = _caught(_jobs(corpus, verified, limits, utterances_per_shard, folder, encoding, subset), failures)
        with _told(folder), _pool(workers, scheduler) as pool, _progress(corpus, verified) as progress:
            for count in pool(joblib.delayed(_write_shard)(job) for job in _waiting(jobs, tables, progress)):
                progress.add(count)
            if failures:
                raise failures[0]
            _write_manifest(folder, tables)
    return folder


def store_key(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    limits: Limits,
    utterances_per_shard: int,
    encoding: str,
    split: str,
) -> str:
    """Eight hexadecimal digits that change with all that the content of a store depends on."""
    parts = [corpus.name, *(f"{archive.subset} {archive.md5}" for archive in verified)]
    parts += [repr(limits), str(utterances_per_shard), encoding, split, str(corpus.first_channel), str(FORMAT)]
    parts += [f"decoder {audio.DECODER}", inspect.getsource(audio.measure), inspect.getsource(corpus.naming)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


class Subsets:
    """
    Which half a file belongs to: by its archive, by the speaker table, or drawn by speakers.

    The draw takes the `share` of all speakers whose names' hashes are lowest, so that it depends on names and seed
    alone. `key` is '' where nothing is drawn, and no table of a user's says it.
    """

    def __init__(self, corpus: Corpus, verified: Sequence[VerifiedArchive], share: float, seed: int):
        self.drawn, self.table, self.key = False, {}, ""
        if all(archive.subset for archive in verified):
            return
        speakers = corpus.speakers()
        if "subset" in speakers:
            self.table = speakers["subset"].to_dict()
            if corpus.table.rows is None:  # a user's own, which may change where a published one may not
                self.key = repr(sorted(self.table.items()))
            return
        found = {m.utterance.speaker for a in verified for m in archives.members(a, corpus.naming) if m.utterance}
        order = sorted(found, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
        tested = set(order[: max(2, round(share * len(order)))])
        self.drawn, self.key = True, f"{share} {seed}"
        self.table = {name: "test" if name in tested else "dev" for name in found}

    def __call__(self, archive: VerifiedArchive, utterance: Utterance | None) -> str:
        return archive.subset or self.table.get(utterance.speaker if utterance else "", "")


def _jobs(
    corpus: Corpus,
    verified: Sequence[VerifiedArchive],
    limits: Limits,
    per_shard: int,
    folder: Path,
    encoding: str,
    subset: Subsets,
) -> Iterator[_Job]:
    number = 0
    for archive in verified:
        first, files = number, tuple((file["path"], file["mtime_ns"]) for file in archive.files)
        for batch in archives.batches(archives.members(archive, corpus.naming), per_shard):
            target = folder / f"shard-{number:05d}.{encoding}"
            subsets = tuple(subset(archive, member.utterance) for member in batch)
            yield _Job(corpus.name, files, batch, subsets, limits, corpus.first_channel, target)
            number += 1
        if number == first:
            raise RequestError(f"{archive.name} holds no audio file: it is not the archive of corpus {corpus.name}.")


def _caught(jobs: Iterator[_Job], failures: list[RequestError]) -> Iterator[_Job]:
    """End the jobs where listing them fails: joblib asks for them in threads of its own, which must not raise."""
    try:
        yield from jobs
    except RequestError as error:
        failures.append(error)


def _waiting(jobs: Iterator[_Job], tables: list[Path], progress: Progress) -> Iterator[_Job]:
    """Jobs that are still to do; the table of each, done or not, is noted."""
    for job in jobs:
        tables.append(job.target.with_suffix(".csv"))
        if tables[-1].exists():
            progress.add(len(job.members), done_before=True)
        else:
            yield job


def _write_shard(job: _Job) -> int:
    """Decode the files of one shard: samples first, then the rows, whose presence says that the shard is finished."""
    rows, offset = [], 0
    encode, step = ENCODINGS[job.target.suffix[1:]]
    with paths.replace_on_success(job.target) as temporary, open(temporary, "wb") as shard:
        for member, subset in zip(job.members, job.subsets):
            row, samples = _examine(job, member, subset)
            if row["error"] == "":
                data = encode(samples)
                shard.write(data)
                row |= {"shard": job.target.name, "offset": offset // step, "bytes": len(data)}
                offset += len(data)
            rows.append(row)
    with paths.replace_on_success(job.target.with_suffix(".csv")) as temporary:
        _write_rows(temporary, rows)
    return len(rows)


def _examine(job: _Job, member: Member, subset: str) -> tuple[dict, np.ndarray | None]:
    """Decode and measure one file. Returns its row of the manifest and its samples (None when there are none)."""
    row = dict.fromkeys(COLUMNS, "") | dict.fromkeys(("offset", "bytes", "samples", "rate", "channels"), 0)
    row |= {"corpus": job.corpus, "id": member.name, "subset": subset, "peak": 0, "clipped": 0, "silent": 0}
    try:
        if member.refusal:
            raise audio.AudioError(member.refusal)
        name = member.utterance
        row |= {"id": name.id, "speaker": name.speaker, "session": name.session}
        if not subset:
            raise audio.AudioError("speaker is not in the speaker table")
        data = archives.read(job.files, member)
        row["source_sha256"] = hashlib.sha256(data).hexdigest()
        decoded = audio.decode(data, SAMPLE_RATE, job.limits.max_seconds, job.first_channel, in_worker=True)
    except audio.AudioError as error:
        return row | {"error": str(error)}, None
    measures = {name: round(value, 6) for name, value in audio.measure(decoded.samples).items()}
    row |= {"samples": len(decoded.samples), "rate": decoded.rate, "channels": decoded.channels, **measures}
    row["content"] = hashlib.sha256(decoded.samples.tobytes()).hexdigest()[:16]
    row |= {"error": job.limits.reason(decoded, measures), "warning": "; ".join(decoded.warnings)}
    return row, decoded.samples


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
    """Join the shards' rows; the second file with the same samples is a duplicate, wherever it lies."""
    repeated_ids = _repeated(row["id"] for row in _read_rows(tables))
    repeated = _repeated(row["content"] for row in _read_rows(tables) if row["error"] == "")

    def rows() -> Iterator[dict]:
        ids, contents = set(), {}
        for row in _read_rows(tables):
            if row["error"] == "" and _digest(row["content"]) in repeated:
                first = contents.setdefault(row["content"], row["id"])
                row["error"] = f"duplicate of {first}" if first != row["id"] else ""
            if _digest(row["id"]) in repeated_ids:
                if row["id"] in ids:
                    row["error"] = "id twice in the corpus"
                ids.add(row["id"])
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
