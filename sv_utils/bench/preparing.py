"""Decoding, reading back and manifests, beside the usual ways."""

import contextlib
import io
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import soundfile

from sv_utils import corpora
from sv_utils.bench import timing
from sv_utils.corpora import Corpus
from sv_utils.speech import acquisition, archives, preparation, reader
from sv_utils.speech.archives import VerifiedArchive
from sv_utils.speech.manifest import COLUMNS, ENCODINGS, read_manifest
from sv_utils.speech.reader import Speech

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compressed() -> tuple[corpora.Corpus, list[archives.VerifiedArchive]]:
    """The m4a half of ocean where `$SV_MIRROR` has it, else that of the embedded voices; nothing is downloaded."""
    mirror = os.environ.get("SV_MIRROR")
    corpus = corpora.get("ocean" if mirror and (Path(mirror) / "ocean" / "ocean_dev_aac_partaa").exists() else "mini")
    with contextlib.redirect_stdout(io.StringIO()):
        return corpus, [archive for archive in acquisition.fetch(corpus) if "aac" in archive.name]


def _original_decoding(corpus: Corpus, archive: VerifiedArchive, folder: Path, part: int) -> float | None:
    """
    Seconds a file of the original system's way: unpacked, then one ffmpeg process per file, started by threads.

    None where there is no ffmpeg. Only conversion is timed, not unpacking.
    """
    if not shutil.which("ffmpeg"):
        return None
    files, sources = tuple((file["path"], file["mtime_ns"]) for file in archive.files), []
    for number, member in enumerate(itertools.islice(archives.members(archive, corpus.naming), part)):
        sources.append(folder / f"{number}.m4a")
        sources[-1].write_bytes(archives.read(files, member))

    def convert(source: Path) -> None:
        options = ["-ac", "1", "-vn", "-acodec", "pcm_s16le", "-ar", "16000"]
        line = ["ffmpeg", "-y", "-loglevel", "error", "-i", str(source), *options, str(source.with_suffix(".wav"))]
        subprocess.run(line, check=True, stdin=subprocess.DEVNULL)

    def work() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(convert, sources))

    return timing.seconds(work, 1) / len(sources)


def decoding() -> list[dict]:
    """Decode a corpus's m4a files into shards of both kinds, beside one ffmpeg process per file."""
    corpus, (archive, *_) = _compressed()
    count = sum(1 for _ in archives.members(archive, corpus.naming))
    rows, part = [], min(count, 400)
    with tempfile.TemporaryDirectory() as folder, _outputs_in(folder):
        original = _original_decoding(corpus, archive, Path(folder), part)
        other = (
            f"one ffmpeg process per file, {CORES} threads, to wav (from {part} files)"
            if original
            else "no ffmpeg here"
        )
        start = joblib.delayed(exec)(
            "import sv_utils.speech.preparation"
        )  # processes start but once, for however many files
        joblib.Parallel(n_jobs=CORES)(start for _ in range(8 * CORES))
        for encoding in ENCODINGS:
            started = time.perf_counter()
            made = preparation.prepare(corpus, [archive], workers=CORES, encoding=encoding, utterances_per_shard=100)
            seconds, size = time.perf_counter() - started, read_manifest(made)["bytes"].sum() / 2**20
            what = (
                f"{count:,} m4a files of {corpus.name} to {encoding} shards and manifest, {CORES} cores, {size:.0f} MiB"
            )
            rows.append(timing.row(what, seconds, other, original * count if original else np.nan))
    return rows


def windows() -> list[dict]:
    """Read random 3 s windows out of both kinds of shards, beside `tf.audio.decode_wav` of whole files."""
    corpus, found = _compressed()
    with tempfile.TemporaryDirectory() as folder, _outputs_in(folder):
        stores = [
            preparation.prepare(corpus, found, workers=CORES, encoding=encoding, utterances_per_shard=2000)
            for encoding in ENCODINGS
        ]
        return [_windows(made, Path(folder)) for made in stores]


def _windows(made: Path, folder: Path, length: int = 3 * reader.SAMPLE_RATE, count: int = 1000) -> dict:
    import tensorflow as tf

    table = read_manifest(made)
    speech = Speech(table[(table["error"] == "") & (table["samples"] >= length)], made)
    rng = np.random.default_rng(0)
    picks = rng.integers(len(speech), size=count)
    starts = rng.integers(0, speech.samples[picks] - length + 1)
    for pick in picks.tolist():
        soundfile.write(folder / f"{pick}.wav", speech.waveform(pick), reader.SAMPLE_RATE, subtype="PCM_16")

    def whole_files() -> None:
        for pick, start in zip(picks.tolist(), starts.tolist()):
            _ = tf.audio.decode_wav(tf.io.read_file(f"{folder}/{pick}.wav"))[0][start : start + length]

    ours = timing.seconds(lambda: speech.crops(picks, starts, length), 5)
    what = f"{count:,} random 3 s windows out of {Path(speech.table['shard'][0]).suffix} shards"
    return timing.row(what, ours, "tf.audio.decode_wav of whole files", timing.seconds(whole_files))


def manifest() -> list[dict]:
    """Load and filter the manifest of VoxCeleb1 and 2 together: 1.28 million generated rows."""
    count = 1_280_000
    number = np.arange(count)
    table = pd.DataFrame({column: np.zeros(count, int) for column in COLUMNS})
    speaker = pd.Series(number // 170).map("id{:05d}".format)
    digest = pd.Series(number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)).map("{:016x}".format)
    table = table.assign(
        corpus="voxceleb2", speaker=speaker, session=digest.str[:11], subset="dev", error="", content=digest, warning=""
    )
    table = table.assign(id=speaker + "/" + table["session"] + "/00001.m4a", source_sha256=digest * 4, peak=0.5)
    table = table.assign(shard=pd.Series(number // 5000).map("shard-{:05d}.pcm".format), samples=64000 + number % 99991)
    with tempfile.TemporaryDirectory() as folder:
        table[COLUMNS].to_csv(Path(folder) / "manifest.csv", index=False)
        load = timing.seconds(lambda: read_manifest(Path(folder)))
        read = read_manifest(Path(folder))
    wanted = set(read["speaker"].unique()[::2])
    select = timing.seconds(
        lambda: read[(read["error"] == "") & (read["samples"] > 80_000) & read["speaker"].isin(wanted)]
    )
    return [
        timing.row(f"load a manifest of {count:,} rows", load),
        timing.row(f"filter it by error, length and {len(wanted):,} speakers", select),
    ]


@contextlib.contextmanager
def _outputs_in(folder: str) -> Iterator[None]:
    """Let what is made go to a folder of its own."""
    before = os.environ.get("SV_OUTPUTS")
    os.environ["SV_OUTPUTS"] = folder
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.pop("SV_OUTPUTS") if before is None else os.environ.update(SV_OUTPUTS=before)
