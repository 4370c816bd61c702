"""What a million files would cost, on fewer: memory of a preparation with eight workers."""

import itertools
import os
import subprocess
import sys
import time
import zipfile

import psutil
import pytest
from release import m4a

from sv_utils import corpora
from sv_utils.speech import archives, audio, manifest
from sv_utils.speech.acquisition import fetch

PREPARE = """
import sys
sys.path.insert(0, sys.argv[1])
from release import archive_of
from pathlib import Path
from sv_utils import corpora
from sv_utils.speech import preparation
corpus = corpora.get("folder")
found = archive_of(Path(sys.argv[2]))
print(preparation.prepare(corpus, [found], workers=8, utterances_per_shard=500))
"""


@pytest.mark.long
def test_memory_with_eight_workers_does_not_grow_with_the_corpus(tmp_path, monkeypatch, request):
    """Real voices cut to 0.6 s and repeated, 5,000 and 200,000 of them; memory of all processes, shared pages once."""
    peaks = {}
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "voices"))
    archive = fetch(corpora.get("mini"))[0]
    files = tuple((file["path"], file["mtime_ns"]) for file in archive.files)
    voices = [
        m4a(audio.decode(archives.read(files, member)).samples[:9600])
        for member in itertools.islice(archives.members(archive), 50)
    ]
    for count in (5_000, 200_000):
        path = tmp_path / f"{count}.zip"
        monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / str(count)))
        with zipfile.ZipFile(path, "w") as made:
            for number in range(count):
                made.writestr(
                    zipfile.ZipInfo(f"id{number // 200:05d}/21Uxsk56VDQ/{number:06d}.m4a"), voices[number % 50]
                )
        command = [sys.executable, "-c", PREPARE, str(request.config.rootpath / "tests/helpers"), str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        peaks[count] = 0
        while process.poll() is None:
            peaks[count] = max(peaks[count], memory(process.pid))
            time.sleep(3)  # a look at ten processes takes 0.2 s of a core
        assert process.returncode == 0
        folder = process.stdout.read().splitlines()[-1]
        assert len(manifest.read_manifest(folder)) == count
        path.unlink()
    print({count: f"{peak / 2**20:.0f} MiB" for count, peak in peaks.items()})
    assert peaks[200_000] < 1.5e9
    assert peaks[200_000] - peaks[5_000] < 150e6


def memory(pid: int) -> int:
    """Proportional set size of a process and all that it has started [bytes]."""
    total = 0
    for process in (root := psutil.Process(pid), *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
