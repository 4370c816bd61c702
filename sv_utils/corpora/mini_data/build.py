"""Make the audio of the corpus `mini` out of Debian packages.

Maintenance: run once on Debian 12 with apt; not part of the pipeline. `mini_meta.csv`, kept by hand, says which files
of which package are one voice; this script writes everything else beside it. Its output is the same each time with one
version of PyAV (18.1 made what lies here); another may code the same audio in other bytes, and then the checksums in
`sv_utils/corpora/mini.py` change with it.

    mkdir debs; cd debs
    apt-get download klettres-data=4:22.12.3-1 ...        # the versions in PACKAGES
    cd ..; python -m sv_utils.corpora.mini_data.build debs
"""

import argparse
import csv
import hashlib
import io
import itertools
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

HERE = Path(__file__).parent
PACKAGES = {
    "asterisk-core-sounds-en-g722": "1.6.1-1",
    "asterisk-core-sounds-fr-g722": "1.6.1-1",
    "asterisk-core-sounds-it-g722": "1.6.1-1",
    "asterisk-core-sounds-ru-g722": "1.6.1-1",
    "asterisk-prompt-es-co": "0.20070403-2.1",
    "asterisk-prompt-fr-armelle": "20070613-2.2",
    "asterisk-prompt-it-menardi-wav": "1:1.4.22+mm20110907-3.1",
    "festvox-ru": "0.5+dfsg-6",
    "fillets-ng-data-cs": "1.0.1-1.1",
    "fillets-ng-data-nl": "1.0.1-1.1",
    "gcin-voice": "0~20170223-3",
    "kajongg": "4:22.12.3-1",
    "klettres-data": "4:22.12.3-1",
    "ktuberling-data": "4:22.12.3-1",
    "tuxpaint-stamps-default": "2022.06.04-1",
}
RATE = 16000  # Hz
FRAME = RATE // 100  # samples in 10 ms, the grain of silence
SHORTEST, MEAN = 3.05, 3.6  # s of a clip
LONGEST_SILENCE, MARGIN = 30, 10  # frames kept of a pause inside a recording, and around it
SILENCE_BELOW = 30  # dB under the loud frames of a recording
PAUSE = 0.2  # s of faint noise between two joined recordings
AUDIO_SUFFIXES = {".g722", ".gsm", ".ogg", ".opus", ".wav"}
# Beeps, music, laughter, monkeys: found among the speech of their packages.
NOT_SPEECH = r"/silence/|beep|-2tone|/tt-(monkeys|weasels)|confbridge-(join|leave)\.|\.theme\.|say-(laugh|zzz)"
BIT_RATE = 24000
CLIPS = {"dev": 16, "test": 14}  # a voice, at most
WAV_CLIPS = 2  # of each test voice
PART_BYTES = 1_900_000
TRIALS_PER_PAIR = 10
ZIP_DATE = (2020, 1, 1, 0, 0, 0)
SEED = 1


def unpack(debs: Path, folder: Path) -> None:
    """Unpack each package of `PACKAGES` (exactly that version) from `debs` into ``folder/<package>``."""
    for package, version in PACKAGES.items():
        deb = next(debs.glob(f"{package}_{version.replace(':', '%3a')}_*.deb"), None)
        if deb is None:
            sys.exit(f"{debs} lacks {package} {version}: apt-get download {package}={version}")
        subprocess.run(["dpkg-deb", "-x", deb, folder / package], check=True)


def decode(source: str | io.BytesIO, container: str | None = None) -> np.ndarray:
    """
    Decode any audio file to 16 kHz mono; a recording that resampling lifts over full scale is lowered as a whole.

    Returns
    -------
    np.ndarray [shape=(samples,)], float32 in [-1, 1)
    """
    resampler = av.AudioResampler("flt", "mono", RATE)
    with av.open(source, "r", format=container, metadata_errors="ignore") as audio:
        frames = itertools.chain(audio.decode(audio=0), [None])
        pieces = [piece.to_ndarray()[0] for frame in frames for piece in resampler.resample(frame)]
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return samples * min(1, 0.99 / max(np.abs(samples).max(initial=0), 1e-9))


def levels(samples: np.ndarray) -> np.ndarray:
    """RMS level of each 10 ms frame [dB re full scale]."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return 10 * np.log10((frames**2).mean(axis=1) + 1e-10)


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut silence at both ends to 100 ms, silences inside to 300 ms, and fade 10 ms at both ends."""
    level = levels(samples)
    loud = np.flatnonzero(level > np.percentile(level, 95) - SILENCE_BELOW)
    keep = np.zeros(len(level), bool)
    for start, stop in zip(loud, np.append(loud[1:], loud[-1]), strict=True):
        keep[max(start - MARGIN, 0) : start + MARGIN + 1] = True
        keep[start : min(stop, start + LONGEST_SILENCE) + 1] = True
    trimmed = samples[: len(keep) * FRAME][np.repeat(keep, FRAME)].copy()
    fade = np.linspace(0, 1, FRAME, dtype=np.float32)
    trimmed[:FRAME] *= fade
    trimmed[-FRAME:] *= fade[::-1]
    return trimmed


def pause_after(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise at the recording's own floor, at least 40 dB below its speech: digital silence would mark each joint."""
    level = levels(samples)
    floor = min(np.percentile(level, 10), np.percentile(level, 95) - 40)
    return rng.normal(0, 10 ** (floor / 20), int(PAUSE * RATE)).astype(np.float32)


def recordings(files: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Decoded and trimmed recordings; copies, unreadable files and those under 0.1 s of sound are left out."""
    seen = set()
    for file in files:
        try:
            samples = decode(str(file), {".g722": "g722", ".gsm": "gsm"}.get(file.suffix))
        except av.FFmpegError:
            continue
        digest = hashlib.sha256(samples.tobytes()).digest()
        if digest in seen or len(samples) < RATE // 10 or np.percentile(levels(samples), 95) < -70:
            continue
        seen.add(digest)
        yield file, trim(samples)


def stream(files: list[Path], longest: int, rng: np.random.Generator) -> list[tuple[Path, np.ndarray]]:
    """A voice's recordings in drawn order, each with a pause behind it, until `longest` samples are full."""
    pieces, total = [], 0
    for file, samples in recordings([files[i] for i in rng.permutation(len(files))]):
        pieces.append((file, np.concatenate([samples, pause_after(samples, rng)])))
        total += len(pieces[-1][1])
        if total >= longest:
            break
    return pieces


def clips(files: list[Path], most: int, seed: int) -> list[tuple[np.ndarray, list[Path]]]:
    """
    Join a voice's recordings, in an order drawn by `seed`, and cut the stream to clips of a little over 3 s or more.

    Each second of sound serves once. A cut may fall inside a word, as in VoxCeleb.

    Returns
    -------
    list of (np.ndarray [shape=(samples,)], list of Path)
        At most `most` clips, and the recordings that each was cut from.
    """
    rng = np.random.default_rng(seed)
    pieces = stream(files, int(most * MEAN * RATE), rng)
    ends = np.cumsum([len(samples) for _, samples in pieces])
    count = min(most, int(ends[-1] / (SHORTEST * RATE)))
    extra = rng.random(count)
    room = min(ends[-1] / RATE, count * MEAN) - count * SHORTEST  # s, shared out so that lengths differ
    cuts = np.concatenate([[0], np.cumsum(SHORTEST + room * extra / extra.sum()) * RATE]).astype(int)
    joined = np.concatenate([samples for _, samples in pieces])
    made = []
    for start, stop in itertools.pairwise(cuts):
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        made.append((joined[start:stop], [file for file, _ in pieces[first : last + 1]]))
    return made


def encode(samples: np.ndarray, container: str, codec: Literal["aac", "pcm_s16le"], **options: Any) -> bytes:
    """Write 16 kHz mono audio into a file of `container` (``wav``; ``ipod`` is FFmpeg's name for m4a)."""
    buffer = io.BytesIO()
    quiet = {"fflags": "+bitexact"}  # no writing date, no library version: the same bytes each time
    with av.open(buffer, "w", format=container, options=quiet) as audio:
        stream = audio.add_stream(codec, rate=RATE, layout="mono", **options)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = RATE
        audio.mux([*stream.encode(frame), *stream.encode()])
    return buffer.getvalue()


def build_voice(voice: dict, root: Path) -> list[tuple[str, bytes, float, str]]:
    """
    Make the clips of one row of `mini_meta.csv`.

    Returns
    -------
    list of (str, bytes, float, str)
        Name in the archive, content, duration [s], names of the source recordings inside the package.
    """
    package = root / voice["package"]
    names = sorted(str(f.relative_to(package)) for f in package.rglob("*") if f.suffix in AUDIO_SUFFIXES)
    files = [package / name for name in names if re.search(voice["files"], name) and not re.search(NOT_SPEECH, name)]
    members = []
    for number, (samples, sources) in enumerate(clips(files, CLIPS[voice["set"]], SEED), 1):
        is_wav = voice["set"] == "test" and number > CLIPS["test"] - WAV_CLIPS
        folder, suffix = ("wav", "wav") if is_wav else ("aac", "m4a")
        data = encode(samples, "wav", "pcm_s16le") if is_wav else encode(samples, "ipod", "aac", bit_rate=BIT_RATE)
        name = f"{folder}/{voice['id']}/{voice['video']}/{number:05d}.{suffix}"
        members.append((name, data, len(samples) / RATE, " ".join(str(f.relative_to(package)) for f in sources)))
    return members


def make_zip(members: list[tuple[str, bytes]]) -> bytes:
    """Zip with fixed dates in sorted order; only wav is deflated (level 9)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(members):
            method = zipfile.ZIP_DEFLATED if name.endswith(".wav") else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), data, method, compresslevel=9)
    return buffer.getvalue()


def write_parts(name: str, content: bytes) -> list[str]:
    """Cut one archive into `<name>_partaa`, `<name>_partab`, ...; return the md5 lines, the whole archive's last."""
    parts = [content[i : i + PART_BYTES] for i in range(0, len(content), PART_BYTES)]
    lines = []
    for letter, part in zip("abcdefghijklmnopqrstuvwxyz", parts, strict=False):
        (HERE / f"{name}_parta{letter}").write_bytes(part)
        lines.append(f"{hashlib.md5(part).hexdigest()}  {name}_parta{letter}")
    return [*lines, f"{hashlib.md5(content).hexdigest()}  {name}.zip"]


def draw_trials(utterances: dict[str, list[str]], rng: np.random.Generator) -> list[str]:
    """As many target as non-target trials: ten for each two voices, and for each voice its share of target pairs."""
    nontarget = []
    for first, second in itertools.combinations(utterances, 2):
        pairs = list(itertools.product(utterances[first], utterances[second]))
        nontarget += [pairs[i] for i in rng.choice(len(pairs), TRIALS_PER_PAIR, replace=False)]
    share = len(nontarget) // len(utterances)
    target = []
    for names in utterances.values():
        pairs = list(itertools.combinations(names, 2))
        target += [pairs[i] for i in rng.choice(len(pairs), min(share, len(pairs)), replace=False)]
    trials = [(1, pair) for pair in target] + [(0, pair) for pair in nontarget]
    # Which side enrols is drawn too, so that the wav clips, the last of each voice, stand on both sides.
    turned = ((label, rng.permutation(pair)) for label, pair in trials)
    lines = [f"{label} {enrol} {test}" for label, (enrol, test) in turned]
    return [lines[i] for i in rng.permutation(len(lines))]


def write_table(name: str, header: list[str], rows: list[tuple]) -> None:
    """Write one csv file with Unix line ends."""
    with open(HERE / name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def copy_licences(root: Path) -> None:
    """Put each package's own copyright file, and the GNU licences that these name, into ``copyright/``."""
    folder = HERE / "copyright"
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        source = root / package / "usr/share/doc" / package / "copyright"
        (folder / f"{package}.txt").write_bytes(source.read_bytes())
    for licence in ("GPL-2", "GPL-3", "LGPL-3"):
        (folder / f"{licence}.txt").write_bytes(Path("/usr/share/common-licenses", licence).read_bytes())


def build_voices(voices: list[dict], debs: Path) -> dict[str, list[tuple[str, bytes, float, str]]]:
    """Make the members of both archives, voice by voice in parallel."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor() as pool:
        root = Path(name)
        unpack(debs, root)
        copy_licences(root)
        built = list(pool.map(build_voice, voices, itertools.repeat(root)))
    members: dict[str, list] = {"dev": [], "test": []}
    for voice, of_voice in zip(voices, built, strict=True):
        members[voice["set"]] += of_voice
    return members


def write_archives(members: dict[str, list]) -> list[str]:
    """Write the parts of both archives in place of the ones that lie there; return their md5 lines."""
    for old in HERE.glob("mini_*_parta?"):
        old.unlink()
    dev = make_zip([(f"dev/{name}", data) for name, data, *_ in members["dev"]])
    test = make_zip([(name, data) for name, data, *_ in members["test"]])
    return [*write_parts("mini_dev_aac", dev), *write_parts("mini_test", test)]


def write_lists(members: dict[str, list]) -> None:
    """Write ``mini_utterances.csv`` and ``mini_trials.txt``, in which a clip is called `<id>/<video>/<file>`."""
    rows: list[tuple[str, str, str]] = []
    test_clips: dict[str, list[str]] = {}
    for name, _, seconds, sources in members["dev"] + members["test"]:
        rows.append((name.partition("/")[2], f"{seconds:.3f}", sources))
    write_table("mini_utterances.csv", ["path", "seconds", "source_files"], rows)
    for path, *_ in rows[len(members["dev"]) :]:
        test_clips.setdefault(path.split("/")[0], []).append(path)
    trials = draw_trials(test_clips, np.random.default_rng(SEED))
    (HERE / "mini_trials.txt").write_text("".join(f"{trial}\n" for trial in trials))


def main() -> None:
    """Build every file of this folder except those kept by hand: `mini_meta.csv` and the texts on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("debs", type=Path, help="folder of the downloaded packages")
    debs = parser.parse_args().debs
    with open(HERE / "mini_meta.csv", newline="", encoding="utf-8") as file:
        voices = list(csv.DictReader(file))
    members = build_voices(voices, debs)
    sums = write_archives(members)
    write_lists(members)
    for name in ("mini_meta.csv", "mini_utterances.csv", "mini_trials.txt"):
        sums.append(f"{hashlib.md5((HERE / name).read_bytes()).hexdigest()}  {name}")
    (HERE / "MD5SUMS").write_text("".join(f"{line}\n" for line in sums))


if __name__ == "__main__":
    main()
