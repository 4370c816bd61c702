"""
Say how much disk and time it takes to fetch and prepare the speech of a profile, and how much disk is free.

``python -m sv_utils.forecast PROFILE`` (`make forecast`). Sizes come from what lies here already, from the servers
where they answer, and else from what the corpora state. Speed is measured on a sample: of the profile's own files where
they were fetched, else of the embedded voices.
"""

import argparse
import contextlib
import io
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, command
from sv_utils.corpora import Archive, Corpus
from sv_utils.pipeline.profile import Profile
from sv_utils.speech import acquisition, archives, audio, manifest, reader

SAMPLE = 60  # files that are decoded to measure
FETCHED = 8 << 20  # bytes that are downloaded to measure


def forecast(profile: str) -> dict[str, Any]:
    """
    Forecast the first two stages of a profile.

    Returns
    -------
    dict
        ``archives``: a row per archive with ``corpus, archive, bytes, source`` ('here', 'own files', 'server' or
        'stated') and ``to_fetch`` [bytes]. ``stages``: a row per stage with ``stage, peak`` (bytes of the outputs
        folder in use while it runs), ``after`` [bytes], ``seconds``. ``speed``: what was measured.

    Raises
    ------
    RequestError
        No such profile, or a corpus whose size nothing tells.
    """
    resolved = Profile.read(profile).parameters
    fetching, preparing = resolved["01_download"], resolved["02_prep"]
    chosen = [corpora.get(name) for name in fetching["corpora"]]
    rows = [row for corpus in chosen for row in _archives(corpus, fetching["source"] or None)]
    speed = measure(chosen, preparing["encoding"])
    found = pd.DataFrame(rows)
    hours = float(found["hours"].sum())
    fetch, here = int(found["to_fetch"].sum()), int(found.loc[found["source"] == "here", "bytes"].sum())
    written = round(hours * 3600 * speed["bytes_per_second_of_speech"])
    kept = 0 if preparing["remove_archives"] else fetch + here
    cores = min(preparing["workers"], len(os.sched_getaffinity(0)))
    unknown = not speed["download"] and fetch
    stages = [
        ("01_download", fetch + here, fetch + here, np.nan if unknown else fetch / (speed["download"] or 1)),
        ("02_prep", fetch + here + written, kept + written, hours * 3600 / speed["decoding"] / cores),
    ]
    return {
        "archives": found,
        "stages": pd.DataFrame(stages, columns=["stage", "peak", "after", "seconds"]),
        "speed": speed | {"cores": cores, "hours": hours},
    }


def measure(chosen: list[Corpus], encoding: str) -> dict:
    """
    Measure on this machine, with one core.

    Returns
    -------
    dict
        ``decoding``: seconds of speech decoded, measured and encoded in a second; ``sample``: what that was measured
        on; ``bytes_per_second_of_speech`` of a shard; ``download`` [bytes/s], 0 where no server answers.
    """
    verified = next((known for corpus in chosen if (known := _readable(corpus))), None)
    with contextlib.redirect_stdout(io.StringIO()):
        source = verified or acquisition.fetch(corpora.get("mini"))
    archive = source[0]
    files = tuple((file["path"], file["mtime_ns"]) for file in archive.files)
    encode, speech, size, started = manifest.ENCODINGS[encoding][0], 0.0, 0, time.perf_counter()
    for member in itertools.islice(archives.members(archive), SAMPLE):
        with contextlib.suppress(audio.AudioError):
            samples = audio.decode(archives.read(files, member), in_worker=True).samples  # as preparation does
            audio.measure(samples)
            speech += len(samples) / reader.SAMPLE_RATE
            size += len(encode(samples))
    seconds = time.perf_counter() - started
    if not speech:
        raise RequestError(f"none of the first files of {archive.name} can be decoded: nothing to measure on.")
    routes = [(corpus, route) for corpus in chosen if not _readable(corpus) for route in corpus.routes]
    return {
        "decoding": speech / seconds,
        "sample": archive.name,
        "bytes_per_second_of_speech": size / speech,
        "download": next((rate for corpus, route in routes if (rate := _rate(corpus, route))), 0.0),
    }


def _readable(corpus: Corpus) -> list[archives.VerifiedArchive]:
    """Archives of a corpus that are recorded and still here."""
    with contextlib.suppress(RequestError):
        return [archive for archive in acquisition.verified(corpus) if not archive.removed]
    return []


def _archives(corpus: Corpus, source: str | None) -> list[dict]:
    folder = _own_folder(corpus, source)
    if not corpus.remotes:
        if folder is None:
            raise RequestError(f"corpus {corpus.name} needs a source: {corpus.manual}.")
        # Compressed speech takes some 8 kB a second, samples four times that: there are at most so many hours.
        size = _tree_size(folder)
        return [_row(corpus, corpus.name, size, "own files", size / 8000 / 3600)]
    known = {archive.name: archive for archive in acquisition.recorded(corpus)}
    return [_archive_row(corpus, archive, known, folder) for archive in _form(corpus, folder)]


def _form(corpus: Corpus, folder: Path | None) -> tuple[Archive, ...]:
    """The form of a corpus that will be taken."""
    if folder and (folder / corpus.remotes[0].parts[0][0]).exists():
        return corpus.remotes
    return corpus.public or corpus.remotes


def _archive_row(corpus: Corpus, archive: Archive, known: dict, folder: Path | None) -> dict:
    if archive.name in known:
        own = paths.outputs() not in Path(known[archive.name].files[0]["path"]).parents
        return _row(corpus, archive.name, known[archive.name].bytes, "own files" if own else "here", archive.hours)
    if folder:
        pieces = [folder / file for file, _ in archive.parts]
        there = all(piece.exists() for piece in pieces)
        size = sum(piece.stat().st_size for piece in pieces) if there else (archive.gigabytes or 0) * 1e9
        return _row(corpus, archive.name, size, "own files", archive.hours)
    told = _asked(corpus, archive)
    if told is not None:
        return _row(corpus, archive.name, told, "server", archive.hours)
    if archive.gigabytes:
        return _row(corpus, archive.name, archive.gigabytes * 1e9, "stated", archive.hours)
    raise RequestError(f"nothing tells the size of {archive.name} of corpus {corpus.name}: fetch it first.")


def _row(corpus: Corpus, name: str, size: float, where: str, hours: float | None) -> dict:
    to_fetch = 0 if where in ("here", "own files") else round(size)
    row = {"corpus": corpus.name, "archive": name, "bytes": round(size), "source": where, "to_fetch": to_fetch}
    return row | {"hours": hours or 0.0}


def _own_folder(corpus: Corpus, source: str | None) -> Path | None:
    """Where the user, or the repository, has the files of a corpus."""
    mirror = os.environ.get("SV_MIRROR")
    folder = Path(source) if source else corpus.bundled or (Path(mirror) / corpus.name if mirror else None)
    return folder if folder and folder.is_dir() else None


def _tree_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _url(corpus: Corpus, route: str, file: str) -> str | None:
    key = os.environ.get("SV_VOXCELEB_KEY")
    return None if "{key}" in route and not key else route.replace("{file}", file).replace("{key}", key or "")


def _asked(corpus: Corpus, archive: Archive) -> int | None:
    """Size of an archive as its server tells it [bytes]; None where none answers."""
    for route in corpus.routes:
        urls = [url for file, _ in archive.parts if (url := _url(corpus, route, file))]
        if len(urls) == len(archive.parts):
            with contextlib.suppress(requests.RequestException, KeyError):
                heads = [requests.head(url, allow_redirects=True, timeout=5) for url in urls]
                if all(head.ok and "text/html" not in head.headers.get("Content-Type", "") for head in heads):
                    return sum(int(head.headers["Content-Length"]) for head in heads)
    return None


def _rate(corpus: Corpus, route: str) -> float:
    """Bytes a second of a short download, 0 where the server does not answer."""
    url = _url(corpus, route, (corpus.public or corpus.remotes)[0].parts[0][0])
    started, count = time.perf_counter(), 0
    with contextlib.suppress(requests.RequestException):
        answer = requests.get(url or "", headers={"Range": f"bytes=0-{FETCHED - 1}"}, stream=True, timeout=5)
        if answer.ok and not answer.headers.get("Content-Type", "").startswith("text/html"):
            for block in answer.iter_content(1 << 16):
                count += len(block)
                if count >= FETCHED or time.perf_counter() - started > 10:
                    break
        answer.close()
    return count / (time.perf_counter() - started)


def _size(amount: float) -> str:
    return f"{amount / 1e9:,.1f} GB" if amount >= 1e9 else f"{amount / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return "not known, no server answers"
    return f"{seconds / 3600:,.1f} h" if seconds > 5400 else f"{seconds / 60:,.1f} min"


@command
def main(argv: list[str] | None = None) -> int:
    """Say what fetching and preparing a profile's speech takes; exit code 1 where the disk is too small."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.forecast", description=main.__doc__)
    parser.add_argument("profile", help="name of a file in params/")
    told = forecast(parser.parse_args(argv).profile)
    for row in told["archives"].itertuples():
        print(f"{row.corpus:12} {row.archive:24} {_size(row.bytes):>10}  {row.source}")
    speed = told["speed"]
    print(
        f"measured on {speed['sample']}: one core decodes {speed['decoding']:,.0f} s of speech a second, a shard takes "
        f"{speed['bytes_per_second_of_speech'] / 1000:.1f} kB a second of speech"
        + (f", downloads arrive at {speed['download'] / 1e6:.1f} MB/s" if speed["download"] else "")
    )
    for row in told["stages"].itertuples():
        print(
            f"{row.stage:12} needs {_size(row.peak):>10}, leaves {_size(row.after):>10}, takes {_duration(row.seconds)}"
            + (f" for {speed['hours']:,.0f} h of speech on {speed['cores']} cores" if row.stage == "02_prep" else "")
        )
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    used = _tree_size(paths.outputs() / "corpora")
    free, peak = shutil.disk_usage(folder).free, int(told["stages"]["peak"].max())
    enough = free + used >= peak
    print(f"free in {folder}: {_size(free)} ({'enough' if enough else f'{_size(peak - used - free)} are missing'})")
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(main())
