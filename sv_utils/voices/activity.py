"""
Where somebody speaks: Silero VAD (Silero Team, "Silero VAD: pre-trained enterprise-grade voice activity detector",
github.com/snakers4/silero-vad, MIT licence), computed with numpy.

Its weights are one member of the Python package silero-vad, fetched once by version and checksum; nothing of the
package is installed or run. Only what `joined` gives is embedded: an encoder calls anything a voice, noise included.
"""

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sv_utils.models import pretrained
from sv_utils.voices.background import joined, left, loudest, placed

HOP, CONTEXT = 512, 64  # samples that the detector hears at once, and samples before them that it also hears
GRIDS = 4  # it hears all four times, in hops that begin a quarter of a hop apart, and the mean of what it says counts
PART = HOP // GRIDS  # samples that a probability is for
WINDOW, STEP = 256, 128  # of the spectrogram within [samples]
ENTER, LEAVE = 0.5, 0.35  # speech begins at this probability and ends below that one
SURE = 0.85  # animals, engines and music seldom get this probability, so speech must show it:
SURE_STRETCH, SURE_ALL = 8, 40  # in so many parts of a stretch, and of all stretches together
SHORTEST_SPEECH = 0.16  # what is shorter is no speech [s]
LONGEST_PAUSE = 0.6  # a pause up to this belongs to the speech around it [s]
FRAME = 320  # in which energy is measured: the step of an encoder that halves the time [samples]
RESTART = 96  # after so long without speech the detector begins anew, for after 10 s of noise it missed words [hops]
REVISION = 6  # raise when the speech of any recording becomes other samples
LOUD = 90  # the loud frames: this percentile
# The speech is heard twice, for what is kept beside it moves an encoder: a frame up to this much below the loud ones is
# speech [dB]; so many frames are kept before and after speech, and left of a pause on either side; and so many samples
# of the joined speech are left out, for hearings half an encoder's step apart. The first is what is measured and shown.
HEARINGS = ((30.0, 2, 0), (20.0, 4, FRAME // 2))
# Parts and frames are counted from the loudest sample, in grids of so many samples: what lies before moves none.
GRID = math.lcm(PART, FRAME)
SHORTEST = 8_000  # a second hearing of fewer samples tells nothing
NOTHING = 60.0  # and one this much below them holds no sound of the place: a muted line, or a cut [dB]
VOICE = 18.0  # what is less below them may be a voice that was missed, and is no background [dB]
ABOVE = 6.0  # where a stretch begins and ends, speech is louder than the background beside it by this much [dB]
# Where half a second's loudest frames are below this (of full scale) all is heard louder, by this factor at most.
QUIET, LOUDEST_GAIN, AMONG = 0.01, 30.0, 25
REACH = 10  # how far speech may lie outside of what the probabilities say, and be judged by the background [frames]
WITHIN = 25  # how far into a stretch its ends are judged by the background [frames]
BESIDE = 15  # in which the background is measured [frames]
BLOCK = 1024  # hops whose spectrograms are computed at once, which bounds the memory
RATE = 16_000

WEIGHTS = pretrained.Package(
    requirement="silero-vad==6.2.3",
    platform=(),
    sha256="7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    member="silero_vad/data/silero_vad_16k_op15.onnx",
    part="",
    revision=1,
)
LAST = "decoder.decoder.2"  # the layer that gives the probability
UNITS = 128  # of the recurrent layer
SILENCE = 32  # which the detector seems to have heard where it begins, for it misses words that begin at once [hops]
MEMBER_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"


def probabilities(samples: np.ndarray, louder: float = 1.0) -> np.ndarray:
    """
    Probability of speech in each 8 ms: the mean over the four hops of 32 ms that hold them.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.
    louder : float
        Factor by which it is heard.

    Returns
    -------
    np.ndarray [shape=(ceil(n / 128),)], float32

    Raises
    ------
    WorkError
        If the package that holds the weights cannot be fetched.
    """
    tensors = weights()
    parts = -(-len(samples) // PART)
    hops, before = -(-(parts + GRIDS - 1) // GRIDS), CONTEXT + (GRIDS - 1) * PART
    padded = np.zeros(before + hops * HOP, np.float32)
    padded[before : before + len(samples)] = samples
    padded *= np.float32(louder / 32768)
    rested = _rested()
    state, found = (*rested, np.zeros(GRIDS, int)), []
    for first in range(0, hops, BLOCK):
        block = padded[first * HOP : before + min(first + BLOCK, hops) * HOP]
        hidden, state = _recurrent(_features(block, tensors), state, rested, tensors)
        found.append(np.maximum(hidden, 0) @ tensors[f"{LAST}.weight"][0, :, 0] + tensors[f"{LAST}.bias"])
    begun = _sigmoid(np.concatenate(found).ravel())  # by the hop that begins with a part, from 3 before the first
    return np.convolve(begun, np.full(GRIDS, np.float32(1 / GRIDS)), "valid")[:parts]


def segments(samples: np.ndarray) -> list[tuple[int, int]]:
    """
    Find the stretches of speech.

    Muted lines and steady backgrounds are left out first. Probabilities tell where speech is, and the energy in it what
    is kept: a pause is cut to 80 ms, and stretches begin and end where the voice rises above the background. So a line
    that is muted before, between or after words changes no sample of what is embedded, and steady noise hardly any.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    list of (int, int)
        First sample and the sample after the last one of each piece, in order; they do not overlap.

    Raises
    ------
    WorkError
        As of `probabilities`.
    """
    return heard(samples)[0]


def heard(samples: np.ndarray) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
    """
    Find the speech, and give what is embedded: an answer takes the mean of the embeddings of its hearings.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    segments : list of (int, int)
        As of `segments`.
    hearings : list of np.ndarray [shape=(m,), dtype=int16]
        The speech as of `speech`, and as of the second of `HEARINGS` where that is half a second or more.

    Raises
    ------
    WorkError
        As of `probabilities`.
    """
    rest = left(samples)
    sound = joined(samples, rest)
    before = -loudest(sound) % GRID
    padded = np.pad(sound, (before, 0))
    coarse = stretches(probabilities(padded, gain(padded)))
    found = [refined(padded, coarse, below, margin) for below, margin, _ in HEARINGS]
    hearings = [joined(padded, pieces)[start:] for pieces, (*_, start) in zip(found, HEARINGS)]
    pieces = placed([(max(start - before, 0), end - before) for start, end in found[0]], rest)
    return pieces, [hearings[0], *(hearing for hearing in hearings[1:] if len(hearing) >= SHORTEST)]


def gain(samples: np.ndarray) -> float:
    """
    How much louder a quiet recording is heard: the detector misses speech that is very quiet.

    Examples
    --------
    >>> gain(np.tile(np.array([8000, -8000], np.int16), 8000))
    1.0
    """
    level = _levels(samples)
    loud = float(np.sort(level)[-min(AMONG, len(level))]) / 32768 if len(level) else 0.0
    return min(max(QUIET / max(loud, 1e-9), 1.0), LOUDEST_GAIN)


def stretches(probability: np.ndarray) -> list[tuple[int, int]]:
    """
    Turn probabilities into stretches of speech, with the pauses up to 0.6 s that belong to it.

    Parameters
    ----------
    probability : np.ndarray [shape=(parts,)]
        Of each 8 ms.

    Returns
    -------
    list of (int, int)
        First sample and the sample after the last one.

    Examples
    --------
    >>> stretches(np.array([0.1] * 40 + [0.9] * 80 + [0.1] * 120))
    [(5120, 15360)]
    """
    found, total = [], 0
    for start, end in _bridged(_runs(probability)):
        sure = int(np.count_nonzero(probability[start:end] >= SURE))
        if sure >= SURE_STRETCH and (end - start) * PART >= SHORTEST_SPEECH * RATE:
            found.append((start * PART, end * PART))
            total += sure
    return found if total >= SURE_ALL else []


def refined(
    samples: np.ndarray, coarse: list[tuple[int, int]], below: float = HEARINGS[0][0], margin: int = HEARINGS[0][1]
) -> list[tuple[int, int]]:
    """
    Keep of stretches what is loud, and a little before and after it; see `segments`.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
    coarse : list of (int, int)
        As of `stretches`.
    below : float
        How far below the loud frames a frame is still speech [dB].
    margin : int
        What is kept beside it [frames].

    Returns
    -------
    list of (int, int)
        As of `segments`.
    """
    level = _levels(samples)
    if not coarse or not len(level):
        return []
    top = np.percentile(np.concatenate([level[start // FRAME : end // FRAME] for start, end in coarse]), LOUD)
    bounds = [0, *(edge // FRAME for stretch in coarse for edge in stretch), len(level)]
    loud = np.zeros(len(level), bool)
    for place in range(1, len(bounds) - 1, 2):
        before, start, end, after = bounds[place - 1 : place + 3]
        first, last = max(start - REACH, before), min(end + REACH, after)
        floor = np.full(last - first, top * _factor(-below))
        begins, ends = slice(0, start - first + WITHIN), slice(max(end - first - WITHIN, 0), None)
        floor[begins] = np.maximum(floor[begins], _background(level[max(first - BESIDE, before) : first], top))
        floor[ends] = np.maximum(floor[ends], _background(level[last : min(last + BESIDE, after)], top))
        loud[first:last] |= level[first:last] > floor
    kept = np.convolve(loud, np.ones(2 * margin + 1), "same") > 0.5
    edges = np.flatnonzero(np.diff(kept & (level > top * _factor(-NOTHING)), prepend=False, append=False)) * FRAME
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _levels(samples: np.ndarray) -> np.ndarray:
    """Root mean square of each whole frame."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    return np.sqrt(np.mean(np.square(frames), axis=1))


def _background(beside: np.ndarray, top: float) -> float:
    """Level that speech beside these frames is above; 0 where they are too few, or so loud that they may be speech."""
    level = float(np.median(beside)) if len(beside) >= BESIDE // 2 else 0.0
    return level * _factor(ABOVE) if level <= top * _factor(-VOICE) else 0.0


def _factor(decibels: float) -> float:
    return 10 ** (decibels / 20)


def _runs(probability: np.ndarray) -> list[tuple[int, int]]:
    """First part and the part after the last one of each run of speech, with hysteresis."""
    runs: list[tuple[int, int]] = []
    start = None
    for part, value in enumerate([*probability.tolist(), 0.0]):
        now = value >= (ENTER if start is None else LEAVE)
        if start is None and now:
            start = part
        elif start is not None and not now:
            runs.append((start, part))
            start = None
    return runs


def _bridged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs with a short pause between them as one [parts]."""
    whole: list[tuple[int, int]] = []
    for start, end in runs:
        if whole and (start - whole[-1][1]) * PART <= LONGEST_PAUSE * RATE:
            whole[-1] = (whole[-1][0], end)
        else:
            whole.append((start, end))
    return whole


def speech(samples: np.ndarray) -> np.ndarray:
    """Give the speech of a recording alone: its first hearing; parameters and errors are those of `heard`."""
    return heard(samples)[1][0]


def weights() -> dict[str, np.ndarray]:
    """
    Give the detector's weights by name, fetched if they are not there.

    Raises
    ------
    WorkError
        If the package that holds them cannot be fetched.
    """
    return _tensors(pretrained.member(WEIGHTS, MEMBER_SHA256))


@functools.lru_cache(maxsize=1)
def _tensors(file: Path) -> dict[str, np.ndarray]:
    """
    Read the tensors of an ONNX file, which is a message of protocol buffers (onnx.proto3).

    The model's field 7 is its graph, the graph's fields 5 are its tensors, and a tensor's fields 1, 8 and 9 are its
    shape, name and raw numbers.
    """
    (graph,) = (content for number, content in _fields(memoryview(file.read_bytes())) if number == 7)
    found = {}
    for number, tensor in _fields(graph):
        if number == 5:
            fields = list(_fields(tensor))
            shape = [value for number, value in fields if number == 1]
            (name,), (raw,) = ([value for number, value in fields if number == wanted] for wanted in (8, 9))
            found[bytes(name).decode().removeprefix("model.")] = np.frombuffer(raw, "<f4").reshape(shape)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a message of protocol buffers: whole numbers and pieces of bytes."""
    place = 0
    while place < len(message):
        tag, place = _whole(message, place)
        value, place = _whole(message, place)
        if tag & 7 == 2:  # a piece of as many bytes; otherwise the number itself
            place += value
            yield tag >> 3, message[place - value : place]
        else:
            yield tag >> 3, value


def _whole(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the low ones first, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


def _features(block: np.ndarray, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """What the recurrent layer hears [shape=(hops, GRIDS, 128)] of samples with their context before them."""
    frames = np.lib.stride_tricks.sliding_window_view(block, CONTEXT + HOP)[::PART]
    frames = np.pad(frames, ((0, 0), (0, CONTEXT)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(frames, WINDOW, axis=1)[:, ::STEP]
    parts = windows @ tensors["stft.forward_basis_buffer"][:, 0].T
    half = parts.shape[2] // 2
    x = np.sqrt(np.square(parts[:, :, :half]) + np.square(parts[:, :, half:]))
    for layer, stride in enumerate((1, 2, 2, 1)):
        name = f"encoder.{layer}.reparam_conv"
        x = _convolved(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], stride)
    return x[:, 0].reshape(-1, GRIDS, x.shape[2])


def _convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Rectified convolution over three frames: [shape=(hops, frames, c)] → [shape=(hops, frames / stride, d)]."""
    x = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)[:, ::stride]
    return np.maximum(np.tensordot(windows, kernel, axes=([2, 3], [1, 2])) + bias, 0)


@functools.lru_cache(maxsize=1)
def _rested() -> np.ndarray:
    """Hidden and cell state [shape=(2, GRIDS, 128)] after silence, in which the detector begins, and begins anew."""
    tensors, unknown = weights(), np.zeros((2, GRIDS, UNITS), np.float32)
    silence = np.zeros(CONTEXT + SILENCE * HOP + (GRIDS - 1) * PART, np.float32)
    _, (*rested, _) = _recurrent(_features(silence, tensors), (*unknown, np.zeros(GRIDS, int)), unknown, tensors)
    return np.stack(rested)


def _recurrent(
    x: np.ndarray, state: tuple, rested: np.ndarray, tensors: dict[str, np.ndarray]
) -> tuple[np.ndarray, tuple]:
    """Outputs [shape=(hops, GRIDS, 128)] and last state of the LSTM; it begins anew after `RESTART` without speech."""
    inputs = x @ tensors["decoder.rnn.weight_ih"].T + tensors["decoder.rnn.bias_ih"] + tensors["decoder.rnn.bias_hh"]
    recurrent = np.ascontiguousarray(tensors["decoder.rnn.weight_hh"].T)
    last, least = tensors[f"{LAST}.weight"][0, :, 0], math.log(LEAVE / (1 - LEAVE)) - tensors[f"{LAST}.bias"]
    (hidden, cell, without), outputs = state, np.empty(x.shape, np.float32)
    for hop, given in enumerate(inputs):
        gates = given + hidden @ recurrent
        opened = _sigmoid(gates)
        cell = opened[:, 128:256] * cell + opened[:, :128] * np.tanh(gates[:, 256:384])
        hidden = outputs[hop] = opened[:, 384:] * np.tanh(cell)
        without = np.where(np.maximum(hidden, 0) @ last >= least, 0, without + 1)
        if RESTART in without:
            on = (without < RESTART)[:, None]
            hidden, cell, without = *np.where(on, (hidden, cell), rested), without * on[:, 0]
    return outputs, (hidden, cell, without)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)
