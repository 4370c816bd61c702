"""
What calibration learns from: speech of dev speakers, as it is and through simulated channels, embedded and measured.

The recordings of evaluation lists are not touched. `phone`, a folder of real telephone calls that has no public form,
is used where ``$SV_MIRROR/phone`` is there.
"""

import collections
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils import corpora
from sv_utils.base import paths
from sv_utils.base.errors import RequestError
from sv_utils.speech import acquisition, audio, channels, limits, preparation
from sv_utils.speech.reader import Speech
from sv_utils.voices import activity, conditions, encoder, turns

PHONE = "phone"  # real calls: the corpus that tells what another telephone and another day cost
UTTERANCES = {"mini": 4, "ocean": 3}  # of each dev speaker
ALL = ("clean", "telephone", "own_telephone", "mobile", "opus", "mp3", "room", "noise_10", "noise_0")
OWN = ("own_telephone",)  # channels in which a speaker's recordings share one apparatus, as within one call
CHANNELS = {PHONE: ("clean", "noise_10")}  # of the others: all
SHORT = ("clean", "telephone", "own_telephone", "noise_10")  # of which the first 2 s are embedded too
CUT = 32_000  # what "the first 2 s" are [samples]; speech of fewer than `activity.SHORTEST` is not embedded
JOINED = ("clean", "telephone")  # channels that joined utterances are sent through
MOST, EACH = 4, 2  # utterances that are joined, and those of either voice where there are two
Embed = Callable[[list[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Heard:
    """
    The utterances of a corpus through one channel.

    Attributes
    ----------
    ids : np.ndarray of str [shape=(n,)]
        ``speaker/session/file``.
    speech, cut, whole : np.ndarray [shape=(n, d)]
        Embeddings of the speech, of its first 2 s, and of the recording as it is; NaN where there is too little.
    conditions, cut_conditions : np.ndarray [shape=(n, 6)]
        Fields of `conditions.Conditions` of the speech, and of its first 2 s.
    """

    ids: np.ndarray
    speech: np.ndarray
    cut: np.ndarray
    whole: np.ndarray
    conditions: np.ndarray
    cut_conditions: np.ndarray


def at_hand() -> list[str]:
    """Corpora that calibration can use here: the embedded one, and those of ``$SV_MIRROR``."""
    mirror = Path(os.environ.get("SV_MIRROR") or os.devnull)
    return ["mini", *(name for name in ("ocean", PHONE) if (mirror / name).is_dir())]


def channels_of(corpus: str) -> tuple[str, ...]:
    """Channels that a corpus is sent through; what came by telephone cannot be sent through another one."""
    return CHANNELS.get(corpus, ALL)


def waveforms(corpus: str) -> dict[str, np.ndarray]:
    """
    Read the dev utterances of a corpus.

    Returns
    -------
    dict of str to np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz, by id: the first few of each speaker, or all of `phone`.

    Raises
    ------
    RequestError
        If the corpus is not there.
    """
    if corpus == PHONE:
        with zipfile.ZipFile(phone_folder() / "phone_dev_flac.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".flac"))
            return {name.removeprefix("dev/"): audio.decode(archive.read(name)).samples for name in names}
    entry = corpora.get(corpus)
    listed = limits.view(entry, preparation.prepare(entry, acquisition.fetch(entry), workers=2))
    listed = listed[(listed["error"] == "") & (listed["subset"] == "dev")].sort_values("id").reset_index(drop=True)
    speech, found = Speech(listed), {}
    taken: collections.Counter[str] = collections.Counter()
    for row, name in enumerate(listed["id"]):
        speaker = name.split("/")[0]
        taken[speaker] += 1
        if taken[speaker] <= UTTERANCES[corpus]:
            found[name] = np.array(speech.waveform(row))
    return found


def phone_folder() -> Path:
    """
    Give the folder of `phone`.

    Raises
    ------
    RequestError
        If it is not there.
    """
    folder = Path(os.environ.get("SV_MIRROR") or os.devnull) / PHONE
    if not folder.is_dir():
        raise RequestError("phone is not there, and has no public form; name the folder above it in SV_MIRROR")
    return folder


def through(corpus: str, channel: str, sounds: Mapping[str, np.ndarray], embed: Embed, folder: Path) -> Heard:
    """
    Send utterances through a channel, find the speech, embed and measure it.

    Parameters
    ----------
    corpus, channel : str
    sounds : mapping of str to np.ndarray
        As of `waveforms`.
    embed : callable
        From a list of waveforms to unit vectors [shape=(n, d)].
    folder : Path
        Where results are kept; what lies there is not computed again.

    Returns
    -------
    Heard
    """
    file = folder / f"{corpus}_{channel}.npz"
    if not file.exists():
        rows = [_utterance(name, channel, samples, embed) for name, samples in sounds.items()]
        columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        with paths.replace_on_success(file) as temporary:
            np.savez(temporary, **columns)
    with np.load(file) as content:
        return Heard(**{name: content[name] for name in content.files})


def _utterance(name: str, channel: str, samples: np.ndarray, embed: Embed) -> dict:
    whose = name.split("/")[0] if channel in OWN else name  # otherwise each recording has its own apparatus
    rng = np.random.default_rng(zlib.crc32(f"{whose} {channel}".encode()))
    sent = channels.CHANNELS[channel](samples, rng)
    _, hearings = activity.heard(sent)
    speech, cut = hearings[0], [hearing[:CUT] for hearing in hearings]
    (whole,) = embed([sent])
    nothing = np.full_like(whole, np.nan)
    measured = [list(conditions.measure(piece).as_dict().values()) for piece in (speech, cut[0])]
    return {
        "ids": name,
        "whole": whole,
        "speech": encoder.means(embed(hearings), [len(hearings)])[0] if len(speech) >= activity.SHORTEST else nothing,
        "cut": encoder.means(embed(cut), [len(cut)])[0] if len(speech) >= CUT and channel in SHORT else nothing,
        "conditions": measured[0],
        "cut_conditions": measured[1],
    }


def joined(
    corpus: str, channel: str, sounds: Mapping[str, np.ndarray], embed: Embed, folder: Path
) -> list[tuple[bool, np.ndarray]]:
    """
    Join utterances of one voice, and of two, send them through a channel and embed windows of their speech.

    Parameters
    ----------
    corpus, channel, sounds, embed, folder
        As of `through`.

    Returns
    -------
    list of (bool, np.ndarray [shape=(windows, d)])
        Of each recording of enough speech to look for a second voice (`turns.second_voice`): whether there are two
        voices, and what `turns.told` hears.
    """
    file = folder / f"{corpus}_{channel}_joined.npz"
    if not file.exists():
        heard = [(two, _windows(channel, name, samples, embed)) for two, name, samples in _joined(sounds)]
        two, parts = zip(*((two, rows) for two, rows in heard if len(rows)))
        with paths.replace_on_success(file) as temporary:
            np.savez(temporary, two=two, windows=[len(rows) for rows in parts], rows=np.concatenate(parts))
    with np.load(file) as content:
        rows = np.split(content["rows"], np.cumsum(content["windows"])[:-1])
        return list(zip(content["two"].tolist(), rows, strict=True))


def _windows(channel: str, name: str, samples: np.ndarray, embed: Embed) -> np.ndarray:
    """Embeddings of the windows of a recording that came through a channel; none where they are too few."""
    sent = channels.CHANNELS[channel](samples, np.random.default_rng(zlib.crc32(f"{name} {channel}".encode())))
    windows = turns.windows_of(activity.segments(sent))
    return embed([sent[window] for window in windows]) if len(windows) >= turns.FEWEST else np.zeros((0, 0))


def _joined(sounds: Mapping[str, np.ndarray]) -> Iterator[tuple[bool, str, np.ndarray]]:
    """Each speaker's utterances of one session or call, joined; and with those of another: if of two, name, samples."""
    spoken: dict[str, list[np.ndarray]] = {}
    session = {name.split("/")[0]: name.rsplit("/", 1)[0] for name in reversed(list(sounds))}
    for name, samples in sounds.items():
        if name.startswith(session[name.split("/")[0]] + "/"):
            spoken.setdefault(name.split("/")[0], []).append(samples)
    order = np.random.default_rng(0).permutation(list(spoken)).tolist()
    for speaker, other in zip(order, order[1:] + order[:1]):
        yield False, speaker, np.concatenate(spoken[speaker][:MOST])
        yield True, f"{speaker} {other}", np.concatenate(spoken[speaker][:EACH] + spoken[other][:EACH])
