"""
A release of VoxCeleb at its full width, for a machine that will never hold the real one.

All speakers, the official counts of files, parts and trials, by names of the official form; but recordings of a second.
It is a miniature of `sv_utils.speech.miniature` that is small in seconds instead of in files, and is used as one:
`corpora.get` describes it where ``SV_REHEARSAL`` names its folder.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sv_utils import corpora
from sv_utils.corpora import Corpus, Text
from sv_utils.speech import miniature

FILES = {"voxceleb1": 153_516, "voxceleb2": 120_000}  # of VoxCeleb2's 1.13 million; at least two of each speaker
SECONDS = (1.0, 1.06, 1.12)
PER_SESSION = 7  # files of a video, as VoxCeleb1 has them in the mean


def make(folder: Path, files: dict[str, int] = FILES) -> None:
    """Write releases of VoxCeleb1 and 2 with so many files, and miniatures of MUSAN and of the rooms."""
    for name, count in files.items():
        _release(corpora.get(name), folder, count)
    for name in ("musan", "rirs_noises"):
        miniature.make(corpora.get(name), folder, None)


def _release(corpus: Corpus, folder: Path, count: int) -> None:
    here = folder / corpus.name
    here.mkdir(parents=True, exist_ok=True)
    halves = dict(zip(("dev", "test"), miniature.names_of(corpus, None)))
    every = {name: number for number, name in enumerate(itertools.chain(*halves.values()))}
    shares = _shares(corpus, {half: len(names) for half, names in halves.items()}, count)
    files = {half: list(_names(names, shares[half])) for half, names in halves.items()}
    described = []
    for archive in corpus.remotes:
        packed = _recordings(files[archive.subset], every, ".m4a" if "aac" in archive.name else ".wav")
        described.append(miniature.packed(archive, here, packed, len(halves[archive.subset])))
    miniature.write_table(corpus, here, every, set(halves["test"]))
    for number, (name, text) in enumerate(_whole(corpus)):
        pool = files["test"] + (files["dev"] if name in miniature.IN_BOTH_HALVES else [])
        rows = list(_trials(pool, text.rows or 0, np.random.default_rng(number)))
        cleaned = corpus.lists.get(f"{name}-cleaned")
        for written in filter(None, [text, cleaned]):  # a cleaned list is a part of the other
            lines = (f"{label} {a}.wav {b}.wav\n" for label, a, b in rows[: written.rows])
            (here / written.file).write_text("".join(lines))
    miniature.describe(corpus, folder, described)


def _whole(corpus: Corpus) -> list[tuple[str, Text]]:
    return [(name, text) for name, text in corpus.lists.items() if not name.endswith("-cleaned")]


def _shares(corpus: Corpus, speakers: dict[str, int], count: int) -> dict[str, int]:
    """Files of each half: as the official counts are to each other, and two of each speaker at least."""
    official = {archive.subset: archive.utterances or 36_237 for archive in corpus.remotes}
    shares = {half: round(count * own / sum(official.values())) for half, own in official.items()}
    return {half: max(2 * speakers[half], share) for half, share in shares.items()}


def _names(speakers: list[str], count: int) -> Iterator[str]:
    """So many names without their ending, evenly over the speakers, several to a session."""
    for place, speaker in enumerate(sorted(speakers)):
        for turn in range(count // len(speakers) + (place < count % len(speakers))):
            yield f"{speaker}/{miniature.session(speaker, turn // PER_SESSION)}/{turn % PER_SESSION + 1:05d}"


def _recordings(names: list[str], every: dict[str, int], suffix: str) -> Iterator[tuple[str, bytes]]:
    """Files by member name, no two alike: the split would leave out what is there twice."""
    folder, encode = ("dev/aac", miniature.m4a) if suffix == ".m4a" else ("wav", miniature.wav)
    for number, name in enumerate(names):
        sound = miniature.voice(every[name.partition("/")[0]], number, SECONDS[number % len(SECONDS)])
        yield f"{folder}/{name}{suffix}", encode(sound)


def _trials(pool: list[str], count: int, rng: np.random.Generator) -> Iterator[tuple[int, str, str]]:
    """So many trials, target and non-target in turn, each file as often as another."""
    _, own, sizes = np.unique([name[:7] for name in pool], return_inverse=True, return_counts=True)
    order = np.argsort(own, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for trial, a in enumerate(rng.permutation(np.resize(rng.permutation(len(pool)), count)).tolist()):
        if trial % 2:
            b = int(rng.integers(len(pool)))
            while own[b] == own[a]:
                b = int(rng.integers(len(pool)))
            yield 0, pool[a], pool[b]
            continue
        b = a
        while b == a:
            b = int(order[starts[own[a]] + rng.integers(sizes[own[a]])])
        yield 1, pool[a], pool[b]
