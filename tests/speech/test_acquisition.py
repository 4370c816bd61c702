"""From published archives to a finished store: every route, every fault, any kill and any damage ends in one store."""

import dataclasses
import io
import shutil
import subprocess
import sys
import zipfile

import pytest
from faulty_server import serve
from release import digest, make

from sv_utils import corpora
from sv_utils.base import fetch as network
from sv_utils.base import paths
from sv_utils.speech import archives
from sv_utils.speech.acquisition import fetch
from sv_utils.speech.preparation import prepare


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "outputs"))
    for name in ("SV_MIRROR", "SV_VOXCELEB_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "PAUSE", 0.0)


FAULTS = {
    "open": [],
    "faulty": ["drop", 503, "slow", "drop", None, 429, "wrong bytes", 500, "drop", "slow", "no ranges"],
    "keyed": ["drop", None, 503],
    "second": [],
}


@pytest.mark.parametrize("route", [*FAULTS, "mirror", "whole", "trees", "bundled"])
def test_every_route_leads_to_the_same_store(tmp_path, monkeypatch, route):
    bundled = make(tmp_path / "published")
    reference = prepare(bundled, fetch(bundled), utterances_per_shard=5)
    monkeypatch.setenv("SV_OUTPUTS", str(tmp_path / "elsewhere"))
    corpus = dataclasses.replace(bundled, data=None, bundled=None)
    if route in FAULTS:
        with serve(tmp_path / "published") as server:
            server.faults = list(FAULTS[route])
            gone, keyed, free = (server.url + end for end in ("/gone/{file}", "/{file}?key={key}", "/{file}"))
            routes = {"keyed": (keyed,), "second": (keyed, gone, free)}.get(route, (free,))
            found = fetch(dataclasses.replace(corpus, routes=routes), key="secret" if route == "keyed" else None)
            assert not server.faults
    elif route == "bundled":
        found = fetch(bundled)
    else:
        folder = tmp_path / "mirror" / "tiny"
        shutil.copytree(tmp_path / "published", folder)
        dev, test = corpus.remotes
        data = b"".join((folder / part).read_bytes() for part, _ in dev.parts)
        if route != "mirror":
            for part, _ in dev.parts:
                (folder / part).unlink()
        if route == "whole":
            (folder / dev.name).write_bytes(data)
        if route == "trees":
            zipfile.ZipFile(io.BytesIO(data)).extractall(folder / "tiny_dev_aac")
            zipfile.ZipFile(folder / test.name).extractall(folder / "tiny_test_wav")
            (folder / test.name).unlink()
        monkeypatch.setenv("SV_MIRROR", str(tmp_path / "mirror"))
        found = fetch(corpus)
        assert all(str(folder) in file["path"] for archive in found for file in archive.files)  # read in place
    folder = prepare(corpus, found, utterances_per_shard=5)
    names = sorted(path.name for path in reference.iterdir() if path.name != ".lock")
    assert names == sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    for name in names:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert not list(paths.corpus_dir("tiny").rglob("*.part"))


KILLS = """
import dataclasses, os, random, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import pandas as pd
from release import digest, make, md5
from sv_utils.base import fetch as network, paths
from sv_utils.speech import acquisition, audio, preparation

def run(last):
    events = 0
    def counted(function):
        def wrapped(*arguments, **named):
            nonlocal events
            events += 1
            if events >= last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)
        return wrapped
    os.replace, audio.decode = counted(os.replace), counted(audio.decode)
    network.Report.arrived = counted(network.Report.arrived)
    preparation.csv.DictWriter.writerows = counted(preparation.csv.DictWriter.writerows)
    preparation.prepare(corpus, acquisition.fetch(corpus, connections=3), utterances_per_shard=3)
    os._exit(0)

network.NETWORK_CHUNK, network.PAUSE = 8192, 0.0
corpus = make(Path(sys.argv[2]) / "release")
checksums = {file: md5 for archive in corpus.remotes for file, md5 in archive.parts}
corpus = dataclasses.replace(corpus, data=None, bundled=None, routes=(sys.argv[3] + "/{file}",))
draw, killed, digests, kinds = random.Random(5), 0, set(), set()
while killed < int(sys.argv[4]):
    os.environ["SV_OUTPUTS"] = f"{sys.argv[2]}/outputs{killed}"
    finished = False
    while not finished:
        last = draw.randint(1, 45)
        if (child := os.fork()) == 0:
            run(last)
        finished = os.waitpid(child, 0)[1] == 0
        killed += not finished
        assert killed < 10 * int(sys.argv[4]), 'it never ends'
        here = paths.outputs() / "corpora/tiny"
        for path in here.glob("archives/*"):
            kinds.add("download" if path.suffix == ".part" else "")
            assert path.suffix == ".part" or md5(path.read_bytes()) == checksums[path.name]
        for table in here.glob("store-*/shard-*.csv"):
            rows = pd.read_csv(table)
            assert len(rows) == 3 and table.with_suffix(".pcm").stat().st_size == 2 * rows["samples"].sum()
        for manifest in here.glob("store-*/manifest.csv"):
            assert len(pd.read_csv(manifest)) == 18
        kinds.add("decoding" if list(here.glob("store-*/.shard-*")) else "")
        kinds.add("manifest" if list(here.glob("store-*/.manifest*")) else "")
    folder, = here.glob("store-*")
    assert not list(folder.glob(".shard-*")) and not list(here.glob("archives/*.part"))
    digests.add(digest(folder))
print(killed, "+".join(sorted(kinds - {""})), *digests)
"""


@pytest.mark.parametrize("kills", [25, pytest.param(200, marks=pytest.mark.long)])
def test_killed_at_random_points_of_download_decoding_and_manifest(tmp_path, request, kills):
    corpus = make(tmp_path / "published")
    folder = prepare(corpus, fetch(corpus), utterances_per_shard=3)
    with serve(tmp_path / "published") as server:
        command = [
            sys.executable,
            "-c",
            KILLS,
            str(request.config.rootpath / "tests/helpers"),
            str(tmp_path / "killed"),
            server.url,
        ]
        result = subprocess.run([*command, str(kills)], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    killed, kinds, *digests = result.stdout.splitlines()[-1].split()
    assert int(killed) >= kills
    assert kinds.startswith("decoding+download")
    assert digests == [digest(folder)]


MUTATIONS = """
import io, sys, time, zipfile
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from release import archive_of, encoded, m4a, make, tarred, voice, wav
from sv_utils.base.errors import RequestError
from sv_utils.speech import archives, limits, preparation
from sv_utils.speech.archives import VerifiedArchive

count, root, rng = int(sys.argv[3]), Path(sys.argv[2]), np.random.default_rng(11)
samples = voice("id1", 1, 1.5)
good = [m4a(samples), wav(samples)] + [encoded(samples, 16000, format=name) for name in ("FLAC", "OGG", "MP3")]
NAMES = ["wav/id1/s1/{}.wav", "wav/id1/../../../escape{}.wav", "/wav/id1/s1/{}.wav", "C:/id1/s1/{}.wav"]

def mutated(number):
    data, kind = bytearray(good[number % len(good)]), number % 7
    if kind in (0, 1):
        for place in rng.integers(len(data), size=rng.integers(1, 30)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        del data[int(rng.integers(len(data))):]
    elif kind == 3:  # a wrong header
        size = int(rng.integers(1, 64))
        data[:size] = rng.bytes(size)
    elif kind == 4:  # the header of another format
        data[:40] = good[int(rng.integers(len(good)))][:40]
    elif kind == 5:
        data = bytearray(rng.bytes(int(rng.integers(0, 5000))))
    return bytes(data)

files = {}
for number in range(count):
    name = NAMES[number % len(NAMES) if number % 10 == 9 else 0].format(f"{number:05d}")
    files[name] = bytes(3_000_000) if number % 50 == 7 else mutated(number)
corpus = make(root / "release")
zipped = io.BytesIO()
with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
    for name, data in files.items():
        archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
whole = bytearray(zipped.getvalue())
places = [p for p in range(len(whole) - 4) if whole[p:p + 4] == b"PK\\1\\2"][::10]
for turn, place in enumerate(places):  # sizes, checksums and places that lie, bombs that claim to be small
    field = (16, 20, 24, 42)[turn % 4]
    whole[place + field:place + field + 3] = rng.bytes(3)
before = sorted(root.rglob("*"))
outputs = Path(sys.argv[4])
longest, reasons, listed = 0.0, {}, 0
for form, data in (("zip", bytes(whole)), ("tar.gz", tarred(files))):
    started = time.perf_counter()
    found = archive_of(root / f"mutated.{form}", data)
    found = VerifiedArchive(found.name, "dev", form, found.files)
    rows = limits.view(corpus, preparation.prepare(corpus, [found]))
    longest = max(longest, (time.perf_counter() - started) / count)
    assert len(rows) == count, (form, len(rows))
    decoded = rows[rows["error"] == ""]
    assert (decoded["samples"] >= 16000).all() and (decoded["bytes"] == 2 * decoded["samples"]).all()
    for error in rows["error"]:
        kind = error.split(":")[0].split(" of ")[0]
        reasons[kind] = reasons.get(kind, 0) + 1
# Damage to the directory as a whole is told in one sentence, or leaves rows with reasons.
for turn in range(count // 20):
    data = bytearray(zipped.getvalue())
    if turn % 2:
        del data[int(rng.integers(len(data))):]
    else:
        tail = int(rng.integers(1, min(len(data), 22 + 60 * 20)))
        data[-tail] ^= 1 << int(rng.integers(8))
    try:
        listed += len(list(archives.members(archive_of(root / "broken.zip", bytes(data)))))
    except RequestError as error:
        assert len(str(error)) < 200
    (root / "broken.zip").unlink(missing_ok=True)
extra = set(root.rglob("*")) - set(before) - {root / "mutated.zip", root / "mutated.tar.gz"}
assert not [path for path in extra if outputs not in path.parents and path != outputs], extra
assert not list(Path("/").glob("wav/**/*.wav")) and not list(root.parent.glob("escape*"))
print(f"{longest:.4f}", reasons)
"""


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_files_are_rows_with_their_reasons(tmp_path, request, count, monkeypatch):
    # In a process of its own, with a limit of memory and time: a crash, a hang or a bomb fails this test alone.
    outputs = tmp_path / "mutated" / "outputs"
    monkeypatch.setenv("SV_OUTPUTS", str(outputs))
    arguments = [str(request.config.rootpath / "tests/helpers"), str(tmp_path / "mutated"), str(count), str(outputs)]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
    command = [sys.executable, "-c", limit + MUTATIONS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60 + count)
    assert result.returncode == 0, result.stderr
    told = result.stdout.splitlines()[-1]
    for reason in ("''", "damaged", "damaged archive", "not audio", "unsafe", "truncated"):
        assert reason in told, told
    print(told)


@pytest.mark.long
def test_speech_of_ones_own_without_split_or_trials_in_one_command(tmp_path, monkeypatch):
    """The README's example on real voices, with a tiny encoder in place of the profile's."""
    corpus, kept = corpora.get("mini"), {}
    for archive in fetch(corpus):
        files = tuple((file["path"], file["mtime_ns"]) for file in archive.files)
        for member in archives.members(archive):
            kept.setdefault(member.utterance.speaker, []).append((files, member))
    for speaker in sorted(kept)[:12]:
        for files, member in kept[speaker][:6]:
            target = tmp_path / "speech" / "folder" / member.utterance.id
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archives.read(files, member))
    tiny = "\ntrain:\n  architecture: {width: 4, n_mels: 20, embedding_dim: 8}\n"
    tiny += "  phases: [{epochs: 1, steps_per_epoch: 2, crop_seconds: 1.0}]\n"
    (tmp_path / "params").mkdir()
    text = (paths.REPO / "params" / "folder.yaml").read_text()
    (tmp_path / "params" / "folder.yaml").write_text(text + tiny)
    monkeypatch.setenv("SV_PARAMS", str(tmp_path / "params"))
    monkeypatch.setenv("SV_MIRROR", str(tmp_path / "speech"))
    command = ["make", "--no-print-directory", f"PY={sys.executable}", "reproduce", "PROFILE=folder"]
    run = subprocess.run(command, cwd=paths.REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| adacos " in run.stdout and "The trials of list folder were drawn" in run.stdout
    listed = (paths.profile_dir("folder") / "02_prep" / "trials" / "folder.txt").read_text().split()[1::3]
    assert len({name.split("/")[0] for name in listed}) == 2  # a fifth of twelve speakers
