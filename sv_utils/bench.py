"""
Benchmarks: what a step costs beside another way of doing it, in one run on one machine.

``python -m sv_utils.bench [NAME ...]`` prints a table. Only the ratios carry over to other machines. Nothing here is a
test, and no test depends on time.
"""

import argparse
import contextlib
import io
import itertools
import os
import shutil
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import soundfile

from . import archives, corpora, download, metrics, preparation, report, scoring, store
from .errors import RequestError, command, nearest

# The size of VoxCeleb1-E with embeddings of 512 dimensions.
UTTERANCES, TRIALS, DIMENSIONS, SPEAKERS, COHORT = 145_160, 581_480, 512, 1251, 5994
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _seconds(work: Callable, repeats: int = 3) -> float:
    """Shortest of a few runs [s]."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _row(what: str, seconds: float, other: str = "", other_seconds: float = np.nan) -> dict:
    return {
        "what": what,
        "seconds": seconds,
        "beside": other,
        "its seconds": other_seconds,
        "ratio": other_seconds / seconds,
    }


def generate(seed: int = 0) -> tuple[np.ndarray, ...]:
    """
    Embeddings and trials of VoxCeleb1-E's size; speakers differ as much as makes an EER of a few percent.

    Returns
    -------
    embeddings : np.ndarray [shape=(145160, 512)], float32
    speakers : np.ndarray [shape=(145160,)]
    enrol_rows, test_rows : np.ndarray [shape=(581480,)]
        Half target, half non-target trials.
    """
    rng = np.random.default_rng(seed)
    speakers = np.sort(rng.integers(SPEAKERS, size=UTTERANCES))
    centres = rng.normal(size=(SPEAKERS, DIMENSIONS)).astype(np.float32)
    embeddings = 0.4 * centres[speakers] + rng.normal(size=(UTTERANCES, DIMENSIONS)).astype(np.float32)
    enrol_rows, test_rows = rng.integers(UTTERANCES, size=(2, TRIALS))
    first = np.searchsorted(speakers, speakers[enrol_rows[: TRIALS // 2]])
    count = np.bincount(speakers, minlength=SPEAKERS)[speakers[enrol_rows[: TRIALS // 2]]]
    test_rows[: TRIALS // 2] = first + rng.integers(count)
    return embeddings, speakers, enrol_rows, test_rows


def _judge(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """From embeddings to scores, EER with threshold, both minDCF and the DET curve."""
    scores = scoring.cosine(embeddings, enrol_rows, test_rows)
    target, nontarget = scores[labels], scores[~labels]
    metrics.eer(target, nontarget)
    for p_target in (0.01, 0.05):
        metrics.min_dcf(target, nontarget, p_target)
    metrics.det(target, nontarget)
    return scores


def _original_scores(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray) -> pd.DataFrame:
    """Cosines as the original system has them: a table of trials, gone through row by row."""
    table = pd.DataFrame({"enrol": enrol_rows, "test": test_rows})

    def cosine(row: pd.Series) -> float:
        one, other = embeddings[row["enrol"]], embeddings[row["test"]]
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    return table.assign(score=table.apply(cosine, axis=1))


def _original_sweep(table: pd.DataFrame, thresholds: np.ndarray) -> None:
    """False acceptance and rejection by selecting the wrong rows of the table for each threshold."""
    for threshold in thresholds:
        _ = len(table[(table["label"] == 0) & (table["score"] >= threshold)])
        _ = len(table[(table["label"] == 1) & (table["score"] < threshold)])


def judging() -> list[dict]:
    """
    Judge VoxCeleb1-E's 581,480 trials here and in the original system's way.

    The latter is what is told of it (a table gone through row by row, then 20,000 thresholds with pandas), not its
    code; a part is run and extrapolated.
    """
    embeddings, speakers, enrol_rows, test_rows = generate()
    labels = speakers[enrol_rows] == speakers[test_rows]
    scores = _judge(embeddings, enrol_rows, test_rows, labels)
    ours = _seconds(lambda: _judge(embeddings, enrol_rows, test_rows, labels))
    part, sweeps = 5000, 50
    by_row = _seconds(lambda: _original_scores(embeddings, enrol_rows[:part], test_rows[:part]), 1) * TRIALS / part
    table = pd.DataFrame({"score": scores, "label": labels.astype(int)})
    sweep = _seconds(lambda: _original_sweep(table, np.linspace(-1, 1, sweeps)), 1) * 20_000 / sweeps
    bootstrap = _seconds(
        lambda: metrics.speaker_bootstrap(scores, labels, speakers[enrol_rows], speakers[test_rows], 1000), 1
    )
    return [
        _row(
            f"scores, EER, minDCF, DET of {TRIALS:,} trials",
            ours,
            f"row by row and 20,000 thresholds (extrapolated from {part:,} rows, {sweeps} thresholds)",
            by_row + sweep,
        ),
        _row("1,000 speaker-bootstrap replicates", bootstrap),
    ]


def normalisation() -> list[dict]:
    """AS-norm statistics of VoxCeleb1-E's embeddings beside the bare matrix product, and their memory."""
    embeddings = generate()[0]
    cohort = np.random.default_rng(1).normal(size=(COHORT, DIMENSIONS)).astype(np.float32)
    unit, transposed, block = scoring.normalise(embeddings), np.ascontiguousarray(scoring.normalise(cohort).T), 1000

    def product() -> None:
        for start in range(0, UTTERANCES, block):
            _ = unit[start : start + block] @ transposed

    tracemalloc.start()
    scoring.cohort_statistics(embeddings[:20_000], cohort)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    ours = _seconds(lambda: scoring.cohort_statistics(embeddings, cohort), 1)
    what = f"AS-norm of {UTTERANCES:,} x {COHORT:,}, top 300, peak {peak:.0f} MiB beyond the embeddings"
    return [_row(what, ours, "the matrix product alone", _seconds(product, 1))]


def _compressed() -> tuple[corpora.Corpus, list[download.VerifiedArchive]]:
    """The m4a half of ocean where `$SV_MIRROR` has it, else that of the embedded voices."""
    with contextlib.redirect_stdout(io.StringIO()):
        for name in ("ocean", "mini"):
            with contextlib.suppress(RequestError):
                found = [archive for archive in download.fetch(corpora.get(name)) if "aac" in archive.name]
                if found:
                    return corpora.get(name), found
    raise RequestError("neither ocean nor mini can be read: restore sv_utils/corpora/mini_data.")


def _original_decoding(corpus, archive, folder: Path, part: int) -> float | None:
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

    return _seconds(work, 1) / len(sources)


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
        joblib.Parallel(n_jobs=CORES)(joblib.delayed(len)("") for _ in range(CORES))  # processes start but once
        for encoding in store.ENCODINGS:
            started = time.perf_counter()
            made = preparation.prepare(corpus, [archive], workers=CORES, encoding=encoding, utterances_per_shard=100)
            seconds, size = time.perf_counter() - started, store.read_manifest(made)["bytes"].sum() / 2**20
            what = (
                f"{count:,} m4a files of {corpus.name} to {encoding} shards and manifest, {CORES} cores, {size:.0f} MiB"
            )
            rows.append(_row(what, seconds, other, original * count if original else np.nan))
    return rows


def windows() -> list[dict]:
    """Read random 3 s windows out of both kinds of shards, beside `tf.audio.decode_wav` of whole files."""
    corpus, found = _compressed()
    with tempfile.TemporaryDirectory() as folder, _outputs_in(folder):
        stores = [
            preparation.prepare(corpus, found, workers=CORES, encoding=encoding, utterances_per_shard=2000)
            for encoding in store.ENCODINGS
        ]
        return [_windows(made, Path(folder)) for made in stores]


def _windows(made: Path, folder: Path, length: int = 3 * store.SAMPLE_RATE, count: int = 1000) -> dict:
    import tensorflow as tf

    table = store.read_manifest(made)
    speech = store.Speech(table[(table["error"] == "") & (table["samples"] >= length)], made)
    rng = np.random.default_rng(0)
    picks = rng.integers(len(speech), size=count)
    starts = rng.integers(0, speech.samples[picks] - length + 1)
    for pick in picks.tolist():
        soundfile.write(folder / f"{pick}.wav", speech.waveform(pick), store.SAMPLE_RATE, subtype="PCM_16")

    def whole_files() -> None:
        for pick, start in zip(picks.tolist(), starts.tolist()):
            _ = tf.audio.decode_wav(tf.io.read_file(f"{folder}/{pick}.wav"))[0][start : start + length]

    ours = _seconds(lambda: speech.crops(picks, starts, length), 5)
    what = f"{count:,} random 3 s windows out of {Path(speech.table['shard'][0]).suffix} shards"
    return _row(what, ours, "tf.audio.decode_wav of whole files", _seconds(whole_files))


def manifest() -> list[dict]:
    """Load and filter the manifest of VoxCeleb1 and 2 together: 1.28 million generated rows."""
    count = 1_280_000
    number = np.arange(count)
    table = pd.DataFrame({column: np.zeros(count, int) for column in store.COLUMNS})
    speaker = pd.Series(number // 170).map("id{:05d}".format)
    digest = pd.Series(number * 0x9E3779B97F4A7C15 % (1 << 63)).map("{:016x}".format)
    table = table.assign(
        corpus="voxceleb2", speaker=speaker, session=digest.str[:11], subset="dev", error="", content=digest
    )
    table = table.assign(id=speaker + "/" + table["session"] + "/00001.m4a", source_sha256=digest * 4, peak=0.5)
    table = table.assign(shard=pd.Series(number // 5000).map("shard-{:05d}.pcm".format), samples=64000 + number % 99991)
    with tempfile.TemporaryDirectory() as folder:
        table[store.COLUMNS].to_csv(Path(folder) / "manifest.csv", index=False)
        load = _seconds(lambda: store.read_manifest(Path(folder)))
        read = store.read_manifest(Path(folder))
    wanted = set(read["speaker"].unique()[::2])
    select = _seconds(lambda: read[(read["error"] == "") & (read["samples"] > 80_000) & read["speaker"].isin(wanted)])
    return [
        _row(f"load a manifest of {count:,} rows", load),
        _row(f"filter it by error, length and {len(wanted):,} speakers", select),
    ]


@contextlib.contextmanager
def _outputs_in(folder: str):
    """Let what is made go to a folder of its own."""
    before = os.environ.get("SV_OUTPUTS")
    os.environ["SV_OUTPUTS"] = folder
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.pop("SV_OUTPUTS") if before is None else os.environ.update(SV_OUTPUTS=before)


BENCHMARKS = {
    "judging": judging,
    "normalisation": normalisation,
    "decoding": decoding,
    "windows": windows,
    "manifest": manifest,
}


@command
def main(argv: list[str] | None = None) -> None:
    """Run benchmarks and print what they took; `ratio` is how many times as long the other way takes."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.bench", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    names = parser.parse_args(argv).names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            raise RequestError(f"there is no benchmark '{name}'{nearest(name, BENCHMARKS)}")
    rows = pd.DataFrame([row for name in names for row in BENCHMARKS[name]()])
    for column, form in {"seconds": "{:.2f}", "its seconds": "{:.1f}", "ratio": "{:.2f}"}.items():
        rows[column] = [form.format(value) if np.isfinite(value) else "" for value in rows[column]]
    print(report.markdown(rows))


if __name__ == "__main__":
    raise SystemExit(main())
