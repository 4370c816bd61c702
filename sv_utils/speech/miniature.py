"""
Miniatures of corpora: real formats, folders and names, few files; for a rehearsal of what will take days.

The speech comes out of the embedded corpus, at other speeds and with another voice behind it, so that there are as many
speakers as are wanted. Archives are whole, in parts, zips and tars as the published ones; tables and lists have their
spellings. `corpora.get` describes the miniature instead of the corpus where ``SV_REHEARSAL`` names its folder.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np

from sv_utils.base import lists
from sv_utils.base.errors import RequestError
from sv_utils.corpora import Archive, Corpus, mini
from sv_utils.speech import archives, audio
from sv_utils.speech.reader import SAMPLE_RATE

VOICES = 24  # of the embedded corpus, that all others are made of
SPEEDS = (0.82, 1.22)  # between which a new speaker's lies
SECONDS = (1.7, 2.3)  # of an utterance
LISTED = 48  # files that a trial list names
TESTED = 12  # speakers of a half that is only tested, at most
FILES = 4  # of each of them
BLOCK = 1 << 24  # of an archive that is in memory [bytes]
IN_BOTH_HALVES = ("VoxCeleb1-E", "VoxCeleb1-E-cleaned", "VoxCeleb1-H", "VoxCeleb1-H-cleaned")
VOXCELEB1 = range(10001, 11252), range(10270, 10310)  # numbers of all speakers, and of those tested


def make(
    corpus: Corpus, folder: Path, speakers: int | None, utterances: int = 2, workers: int = 1, texts: Path | None = None
) -> None:
    """
    Write the miniature of a corpus, and the description that `corpora.get` reads.

    Parameters
    ----------
    corpus : Corpus
        As it is published.
    folder : Path
        Of all miniatures: the corpus's is ``<folder>/<name>/``, its description ``<folder>/<name>.json``.
    speakers : int, optional
        To train on; default: as many as there are officially.
    utterances : int
        Of each of them.
    workers : int
        Processes.
    texts : Path, optional
        Folder of the published table and lists, from which names are taken where they are there.
    """
    here = folder / corpus.name
    here.mkdir(parents=True, exist_ok=True)
    if corpus.name == "musan":
        described = [packed(corpus.remotes[0], here, musan())]
    elif corpus.name == "rirs_noises":
        described = [packed(corpus.remotes[0], here, rooms())]
    elif not corpus.remotes:
        return _own(here, speakers or 12, max(utterances, 4))
    else:
        described = _spoken(corpus, here, speakers, utterances, workers, texts)
    describe(corpus, folder, described)


def describe(corpus: Corpus, folder: Path, made: list[dict]) -> None:
    """
    Write the description that `corpora.get` reads, when archives, table and lists are there.

    Parameters
    ----------
    corpus : Corpus
        As it is published.
    folder : Path
        Of all miniatures.
    made : list of dict
        Its archives, as `packed` describes them.
    """
    rows = {text.file: (folder / corpus.name / text.file).read_text("utf-8").count("\n") for text in corpus.texts}
    if corpus.table:
        rows[corpus.table.file] -= 1
    (folder / f"{corpus.name}.json").write_text(json.dumps({"archives": made, "rows": rows}, indent=1))


def voice(speaker: int, utterance: int, seconds: float | None = None) -> np.ndarray:
    """
    Let a made-up speaker say something.

    Parameters
    ----------
    speaker, utterance : int
        The same numbers say the same.
    seconds : float, optional
        Default: between `SECONDS`.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.
    """
    own, rng = np.random.default_rng(speaker), np.random.default_rng([speaker, utterance])
    speed, behind = own.uniform(*SPEEDS), own.integers(VOICES)
    length = round(SAMPLE_RATE * (seconds or rng.uniform(*SECONDS)))
    near, far = (_said(number % VOICES, rng, length, speed) for number in (speaker, int(behind)))
    mixed = 0.8 * near + 0.05 * far + rng.normal(0, 3, length)
    return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)


def _said(number: int, rng: np.random.Generator, length: int, speed: float) -> np.ndarray:
    """A random piece of an embedded voice at another speed."""
    sound = _voices()[number]
    places = np.arange(length) * speed + rng.uniform(0, len(sound))
    return np.interp(places % (len(sound) - 1), np.arange(len(sound)), sound)


@functools.cache
def _voices() -> list[np.ndarray]:
    """Some seconds of each of the embedded voices."""
    corpus = mini.CORPUS
    parts = [corpus.bundled / name for name, _ in corpus.remotes[0].parts if corpus.bundled]
    entries = tuple({"path": str(part), "bytes": 0, "mtime_ns": 0, "md5": ""} for part in parts)
    archive = archives.VerifiedArchive(corpus.remotes[0].name, "dev", "", entries)
    files: tuple = tuple((entry["path"], 0) for entry in entries)
    sounds: dict[str, list[np.ndarray]] = {}
    for member in archives.members(archive):
        kept = sounds.setdefault(member.utterance.speaker, []) if member.utterance else []
        if len(sounds) > VOICES:
            break
        if len(kept) < 3:
            kept.append(audio.decode(archives.read(files, member)).samples)
    return [np.concatenate(kept).astype(np.float32) for kept in list(sounds.values())[:VOICES]]


def wav(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """PCM16 WAV of samples [shape=(n,) or (n, channels)]."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def m4a(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """AAC in MP4 with the index first, as VoxCeleb2's files have it, of int16 samples [shape=(n,)]."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.m4a"  # moving the index needs a real file
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("aac", rate=rate, layout="mono", bit_rate=64000)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


def names_of(corpus: Corpus, texts: Path | None) -> tuple[list[str], list[str]]:
    """Speakers of the dev and the test half: those of the table where it is there, else as their numbers run."""
    halves = {archive.subset: archive.speakers or 0 for archive in corpus.remotes}
    with contextlib.suppress(RequestError):  # it is not there, or not the published one
        known = dataclasses.replace(corpus, data=texts).speakers() if texts else None
        if known is not None and "subset" in known:
            dev, test = (sorted(known.index[known["subset"] == half]) for half in ("dev", "test"))
            return dev, test
    if corpus.name == "voxceleb1":
        every, tested = VOXCELEB1
        return [f"id{n}" for n in every if n not in tested], [f"id{n}" for n in tested]
    count = sum(halves.values())
    names = [f"id{number:05d}" for number in range(12, 12 + count)]
    return names[: halves.get("dev", 0)], names[halves.get("dev", 0) :]


def _spoken(
    corpus: Corpus, here: Path, speakers: int | None, utterances: int, workers: int, texts: Path | None
) -> list[dict]:
    """Archives, table and lists of a corpus of speakers."""
    dev, test = names_of(corpus, texts)
    dev, test = dev[:speakers], test[:TESTED]
    suffix = {archive.subset: ".m4a" if "aac" in archive.name else ".wav" for archive in corpus.remotes}
    every = {name: number for number, name in enumerate([*dev, *test])}
    wanted = {name: [(session(name, k), f"{k + 1:05d}") for k in range(utterances)] for name in dev}
    wanted |= {name: [(session(name, k // 2), f"{k + 1:05d}") for k in range(FILES)] for name in test}
    for name in corpus.lists:
        rows = _published(texts / corpus.lists[name].file) if texts else []
        pool = [*dev, *test] if name in IN_BOTH_HALVES else test
        rows = rows or _drawn([(s, *place) for s in pool for place in wanted[s]], suffix[_half(pool, test)])
        for identity in {part for row in rows for part in row[1:]}:
            speaker, video, file = identity.split("/")
            place = (video, file.rpartition(".")[0])
            every.setdefault(speaker, len(every))
            if place not in wanted.setdefault(speaker, []):
                wanted[speaker].append(place)
        (here / corpus.lists[name].file).write_text("".join(f"{label} {a} {b}\n" for label, a, b in rows))
    tested = {name for name in every if name not in dev and (name in test or name in names_of(corpus, texts)[1])}
    described = []
    for archive in corpus.remotes:
        members = sorted(name for name in every if (name in tested) == (archive.subset == "test"))
        encode = m4a if suffix[archive.subset] == ".m4a" else wav
        jobs = [(every[name], name, wanted[name], suffix[archive.subset], encode) for name in members]
        files = (pair for batch in _pool(workers, jobs) for pair in batch)
        described.append(packed(archive, here, files, len(members)))
    write_table(corpus, here, every, tested)
    return described


def _half(pool: Sequence[str], test: Sequence[str]) -> str:
    return "test" if set(pool) <= set(test) else "dev"


def session(speaker: str, number: int) -> str:
    """A name as those of videos are, of eleven signs."""
    return hashlib.sha256(f"{speaker} {number}".encode()).hexdigest()[:11]


def _pool(workers: int, jobs: Sequence[tuple]) -> Iterable[list[tuple[str, bytes]]]:
    if workers == 1 or len(jobs) < 50:
        return (_says(*job) for job in jobs)
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator", batch_size=8)
    return parallel(joblib.delayed(_says)(*job) for job in jobs)


def _says(number: int, name: str, places: list, suffix: str, encode: Callable) -> list[tuple[str, bytes]]:
    """All files of a speaker, by member name."""
    folder = "dev/aac" if suffix == ".m4a" else "wav"
    return [
        (f"{folder}/{name}/{video}/{file}{suffix}", encode(voice(number, turn)))
        for turn, (video, file) in enumerate(places)
    ]


def _published(path: Path) -> list[tuple[int, str, str]]:
    """The first trials of a published list that together name at most `LISTED` files."""
    if not path.exists():
        return []
    found, rows = lists.read_trials(path), []
    named: set[str] = set()
    for label, enrol, test in zip(found.labels or (), found.enrol, found.test):
        if len(named | {enrol, test}) <= LISTED:
            named |= {enrol, test}
            rows.append((label, enrol, test))
    return rows


def _drawn(files: Sequence[tuple[str, str, str]], suffix: str) -> list[tuple[int, str, str]]:
    """Trials of each file with the next of its speaker, and with one of another."""
    by_speaker: dict[str, list[str]] = {}
    for speaker, video, file in files:
        by_speaker.setdefault(speaker, []).append(f"{speaker}/{video}/{file}{suffix}")
    step = max(1, len(by_speaker) // TESTED)
    chosen, rows = list(by_speaker.values())[::step][:TESTED], []
    for place, own in enumerate(chosen):
        others = chosen[(place + 1) % len(chosen)]
        for number, name in enumerate(own[:FILES]):
            rows.append((1, name, own[(number + 1) % len(own)]))
            rows.append((0, name, others[number % len(others)]))
    return rows


def write_table(corpus: Corpus, here: Path, every: dict[str, int], tested: set[str]) -> None:
    """A speaker table in the spelling of the published one."""
    head, row = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ", "{0} ,n{1:06d} ,{2} ,{3} "
    if corpus.name == "voxceleb1":
        head, row = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet", "{0}\tName_{1}\t{2}\tUtopia\t{3}"
    lines = [row.format(name, n, "mf"[n % 2], "test" if name in tested else "dev") for name, n in sorted(every.items())]
    if corpus.table:
        (here / corpus.table.file).write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def musan() -> Iterator[tuple[str, bytes]]:
    """Files of each kind, 3 s to 4 s: noise, chords, and voices."""
    for number in range(16):
        rng = np.random.default_rng(number)
        time = np.arange(3 * SAMPLE_RATE + 1000 * number) / SAMPLE_RATE
        noise = np.cumsum(rng.normal(0, 1, len(time)))
        noise = np.diff(noise, prepend=0) + 0.1 * (noise - noise.mean()) / (noise.std() + 1e-9)
        chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in 110 * 2 ** (rng.integers(0, 36, 4) / 12))
        sounds = {"noise/free-sound/noise-free-sound": 2500 * noise, "music/fma/music-fma": 2500 * chord}
        sounds["speech/librivox/speech-librivox"] = voice(1000 + number, 0, 3.5)
        for kind, sound in sounds.items():
            yield f"musan/{kind}-{number:04d}.wav", wav(np.clip(sound, -32768, 32767).astype(np.int16))


def rooms() -> Iterator[tuple[str, bytes]]:
    """Impulse responses that fade, simulated and (in two channels) real, and two noises."""
    for number in range(24):
        rng, seconds = np.random.default_rng(number), 0.2 + 0.05 * (number % 12)
        time = np.arange(round(seconds * SAMPLE_RATE))
        sound = rng.normal(0, 1, (len(time), 2)) * 10 ** (-3 * time / len(time))[:, None]
        sound[0] = 8
        sound = (3000 * sound).clip(-32768, 32767).astype(np.int16)
        size, room = ("smallroom", "mediumroom", "largeroom")[number % 3], f"Room{number // 3 + 1:03d}"
        yield f"RIRS_NOISES/simulated_rirs/{size}/{room}/{room}-00001.wav", wav(sound[:, 0])
        if number < 4:
            yield (
                f"RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_{size}{number}_near_angla.wav",
                wav(sound[:, ::-1]),
            )
            yield f"RIRS_NOISES/pointsource_noises/noise-free-sound-{number:04d}.wav", wav(np.roll(sound[:, 1], 9))


def _own(here: Path, speakers: int, utterances: int) -> None:
    """Speech as users have it: ``speaker/day/file.wav``."""
    for number in range(speakers):
        for turn in range(utterances):
            place = here / f"speaker{number:03d}" / f"day{turn % 2}" / f"{turn}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(wav(voice(number, turn)))


def _tarred(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    with tarfile.open(path, "w:gz", compresslevel=1) as made:
        for name, data in files:
            count += 1
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return count


def _zipped(path: Path, files: Iterable[tuple[str, bytes]]) -> int:
    count = 0
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files:
            count += 1
            made.writestr(zipfile.ZipInfo(name), data)
    return count


def packed(archive: Archive, here: Path, files: Iterable[tuple[str, bytes]], speakers: int = 0) -> dict:
    """
    Write an archive under its published name, in as many parts.

    Parameters
    ----------
    archive : Archive
        The published one.
    here : Path
    files : iterable of (str, bytes)
        Name and content of each.
    speakers : int
        In it, 0 where there are none.

    Returns
    -------
    dict
        Fields of the `Archive` that it is now.
    """
    whole = here / f".{archive.name}"
    count = _tarred(whole, files) if archive.name.endswith(archives.TARS) else _zipped(whole, files)
    parts, size = [], -(-whole.stat().st_size // len(archive.parts))
    digest = hashlib.md5()
    with open(whole, "rb") as file:
        for name, _ in archive.parts:
            part, left = hashlib.md5(), size
            with open(here / name, "wb") as written:
                while left and (data := file.read(min(left, BLOCK))):
                    written.write(data)
                    part.update(data)
                    digest.update(data)
                    left -= len(data)
            parts.append([name, part.hexdigest()])
    size = whole.stat().st_size
    whole.unlink()
    described = {"name": archive.name, "subset": archive.subset, "parts": parts, "gigabytes": size / 1e9}
    described |= {"md5": digest.hexdigest() if len(parts) > 1 else None, "hours": count * sum(SECONDS) / 2 / 3600}
    return described | {"utterances": count if speakers else None, "speakers": speakers or None}
