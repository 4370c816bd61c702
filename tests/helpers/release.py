"""A tiny release in VoxCeleb's shape, made on the spot: parts of a zip of m4a files, a zip of wav files, lists."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from sv_utils.corpora import Archive, Corpus, Text
from sv_utils.speech.archives import VerifiedArchive
from sv_utils.speech.miniature import m4a, wav

DEV, TEST = ("id1", "id2", "id3", "id4"), ("id5", "id6")


def voice(speaker: str, utterance: int, seconds: float = 1.5) -> np.ndarray:
    """A buzz whose pitch belongs to the speaker, in noise that belongs to the utterance [dtype=int16]."""
    rng = np.random.default_rng([sum(speaker.encode()), utterance])
    time = np.arange(int(seconds * 16000)) / 16000
    pitch = 80 + 7 * (sum(speaker.encode()) % 20)
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    return (2500 * buzz + 300 * rng.standard_normal(len(time))).astype(np.int16)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip whose bytes depend on its files alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def rebuilt(miniature: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change the files of a miniature's VoxCeleb1 test half, by name, and describe the archive anew."""
    path, described = miniature / "voxceleb1/vox1_test_wav.zip", miniature / "voxceleb1.json"
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    path.write_bytes(zipped(members))
    told = json.loads(described.read_text())
    told["archives"][1] |= {"parts": [[path.name, None]], "utterances": len(members)}
    described.write_text(json.dumps(told))


def files(speakers, folder: str, suffix: str, encode, n: int = 3) -> dict[str, bytes]:
    """Files of `n` utterances of each speaker, by member name."""
    return {
        f"{folder}/{speaker}/s1/{number:05d}{suffix}": encode(voice(speaker, number))
        for speaker in speakers
        for number in range(1, n + 1)
    }


def make(folder: Path, dev: dict[str, bytes] | None = None, test: dict[str, bytes] | None = None) -> Corpus:
    """Write a release into `folder` and describe it; `dev` and `test` replace the files of its archives."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = zipped(files(DEV, "dev/aac", ".m4a", m4a) if dev is None else dev)
    cuts = [0, len(whole) // 3, 2 * len(whole) // 3 + 7, len(whole)]
    pieces = {f"tiny_dev_aac_parta{c}": whole[a:b] for c, a, b in zip("abc", cuts, cuts[1:], strict=False)}
    other = zipped(files(TEST, "wav", ".wav", wav) if test is None else test, zipfile.ZIP_DEFLATED)
    table = "id,gender,nationality\n" + "".join(f"{s},{'mf'[k % 2]},Utopia\n" for k, s in enumerate(DEV + TEST))
    trials = "1 id5/s1/00001.wav id5/s1/00002.wav\n0 id5/s1/00001.wav id6/s1/00001.wav\n"
    texts = {"tiny_meta.csv": table.encode(), "tiny_trials.txt": trials.encode()}
    for name, data in {**pieces, **texts, "tiny_test_wav.zip": other}.items():
        (folder / name).write_bytes(data)
    return Corpus(
        name="tiny",
        remotes=(
            Archive("tiny_dev_aac.zip", "dev", tuple((n, md5(d)) for n, d in pieces.items()), md5(whole), 12, 4),
            Archive("tiny_test_wav.zip", "test", (("tiny_test_wav.zip", md5(other)),), utterances=6, speakers=2),
        ),
        table=Text("tiny_meta.csv", rows=6, md5=md5(texts["tiny_meta.csv"])),
        lists={"tiny": Text("tiny_trials.txt", rows=2, md5=md5(texts["tiny_trials.txt"]))},
        licence="none",
        citation="none",
        manual="run the tests again",
        data=folder,
        bundled=folder,
    )


def md5(data: bytes) -> str:
    """Hexadecimal md5."""
    return hashlib.md5(data).hexdigest()


def digest(folder: Path) -> str:
    """One number for all finished files of a store."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return hashlib.sha256(b"".join(name.encode() + (folder / name).read_bytes() for name in names)).hexdigest()


def archive_of(path, data: bytes = b"") -> VerifiedArchive:
    if data:
        path.write_bytes(data)
    return VerifiedArchive(path.name, "dev", "", ({"path": str(path), "bytes": 0, "mtime_ns": 0, "md5": ""},))


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def encoded(samples, rate, **format):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **format)
    return file.getvalue()
