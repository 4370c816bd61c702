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
from typing import Any

import numpy as np
import pandas as pd

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, command
from sv_utils.corpora import Corpus
from sv_utils.pipeline.profile import Profile
from sv_utils.speech import acquisition, archives, audio, manifest, needs, reader

SAMPLE = 60  # files that are decoded to measure


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
    rows = [row for corpus in chosen for row in needs.archives_of(corpus, fetching["source"] or None)]
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
    verified = next((known for corpus in chosen if (known := needs.readable(corpus))), None)
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
    routes = [(corpus, route) for corpus in chosen if not needs.readable(corpus) for route in corpus.routes]
    return {
        "decoding": speech / seconds,
        "sample": archive.name,
        "bytes_per_second_of_speech": size / speech,
        "download": next((rate for corpus, route in routes if (rate := needs.rate(corpus, route))), 0.0),
    }


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
        print(f"{row.corpus:12} {row.archive:24} {needs.size(row.bytes):>10}  {row.source}")
    speed = told["speed"]
    print(
        f"measured on {speed['sample']}: one core decodes {speed['decoding']:,.0f} s of speech a second, a shard takes "
        f"{speed['bytes_per_second_of_speech'] / 1000:.1f} kB a second of speech"
        + (f", downloads arrive at {speed['download'] / 1e6:.1f} MB/s" if speed["download"] else "")
    )
    for row in told["stages"].itertuples():
        print(
            f"{row.stage:12} needs {needs.size(row.peak):>10}, leaves {needs.size(row.after):>10}, "
            f"takes {_duration(row.seconds)}"
            + (f" for {speed['hours']:,.0f} h of speech on {speed['cores']} cores" if row.stage == "02_prep" else "")
        )
    folder = next(path for path in (paths.outputs(), *paths.outputs().parents) if path.exists())
    used = needs.tree_size(paths.outputs() / "corpora")
    free, peak = shutil.disk_usage(folder).free, int(told["stages"]["peak"].max())
    enough = free + used >= peak
    missing = "enough" if enough else f"{needs.size(peak - used - free)} are missing"
    print(f"free in {folder}: {needs.size(free)} ({missing})")
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(main())
