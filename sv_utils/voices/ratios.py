"""
What a score means under the conditions of its two recordings.

The cosine of two strangers on the telephone is that of one voice in a studio. So the directions in which channels move
voices are removed first; then the log-likelihood ratio is linear in the cosine *and* in a few measures of both
recordings (side information as in Mandasari et al., "Quality measure functions for calibration of speaker recognition
systems in various duration conditions", 2013), and every threshold and error rate belongs to a condition (`name_of`).
`sv_utils.calibrate` fits and writes what is read here.
"""

import base64
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.models import pretrained
from sv_utils.voices.conditions import NARROW, Conditions
from sv_utils.voices.judging import COMPENSATED, UNSURE, Judgement, Side, cosine_of
from sv_utils.voices.recordings import NOISY

WIDE_FROM, NARROW_FROM = 7500.0, 4500.0  # bandwidths between which a recording turns from wide to narrow [Hz]
ENOUGH = 4.0  # from so much speech on more of it changes little [s]
QUIET_FROM, LOUD_FROM = 30.0, 10.0  # `Conditions.noise` between which noise matters more and more [dB]
SHORT = 2.2  # the condition "short" is less speech than this in either recording [s]
BANDS = ("wide band", "wide and narrow band", "narrow band")
MODELS = {
    "cosine": ("cosine",),
    "conditions": ("cosine", "both_narrow", "one_narrow", "short", "noisy"),
    "slopes": (
        *("cosine", "both_narrow", "one_narrow", "short", "noisy"),
        *("cosine x both_narrow", "cosine x one_narrow", "cosine x short", "cosine x noisy"),
    ),
}


def features(
    cosines: np.ndarray, first: np.ndarray, second: np.ndarray, names: Sequence[str] = MODELS["conditions"]
) -> np.ndarray:
    """
    Give what the log-likelihood ratio is linear in.

    Parameters
    ----------
    cosines : np.ndarray [shape=(n,)]
    first, second : np.ndarray [shape=(n, 6)]
        Rows of the fields of `Conditions`, of either side.
    names : sequence of str
        Which of them: ``cosine``; ``both_narrow`` and ``one_narrow`` (0 to 1); ``short``, how many times the shorter
        recording's speech must be doubled to reach 4 s (0 to 3); ``noisy``, of the noisier recording (0 to 1); or
        products such as ``cosine x short``.

    Returns
    -------
    np.ndarray [shape=(n, len(names))]
    """
    first, second = np.asarray(first), np.asarray(second)
    seconds, bandwidth, noise = (np.stack([first[:, place], second[:, place]]) for place in range(3))
    narrow = np.clip((WIDE_FROM - bandwidth) / (WIDE_FROM - NARROW_FROM), 0, 1)
    columns = {
        "cosine": np.asarray(cosines, float),
        "both_narrow": narrow.min(axis=0),
        "one_narrow": narrow.max(axis=0) - narrow.min(axis=0),
        "short": np.clip(np.log2(ENOUGH / np.maximum(seconds.min(axis=0), 1e-3)), 0, 3),
        "noisy": np.clip((QUIET_FROM - noise.min(axis=0)) / (QUIET_FROM - LOUD_FROM), 0, 1),
    }
    return np.column_stack([np.prod([columns[part] for part in name.split(" x ")], axis=0) for name in names])


def without(embeddings: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """
    Remove the directions in which a channel moves a voice.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n, d)]
    directions : np.ndarray [shape=(k, d)]
        At right angles, of length 1.

    Returns
    -------
    np.ndarray [shape=(n, d)]
        Unit vectors.

    Examples
    --------
    >>> without(np.array([[0.6, 0.8]]), np.array([[1.0, 0.0]])).tolist()
    [[0.0, 1.0]]
    """
    left = embeddings - (embeddings @ directions.T) @ directions
    return left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-12)


def packed(directions: np.ndarray) -> dict:
    """Write directions [shape=(k, d)] as text of 16 bit numbers, for JSON."""
    values = base64.b64encode(directions.astype("<f2").tobytes()).decode("ascii")
    return {"shape": list(directions.shape), "float16": values}


def unpacked(content: dict) -> np.ndarray:
    """
    Read what `packed` wrote.

    Examples
    --------
    >>> unpacked(packed(np.array([[1.0, 0.5]]))).tolist()
    [[1.0, 0.5]]
    """
    values = np.frombuffer(base64.b64decode(content["float16"]), "<f2")
    return values.astype(np.float32).reshape(content["shape"])


def name_of(first: Conditions, second: Conditions) -> str:
    """
    Name the condition of a comparison, to which thresholds and error rates belong.

    Examples
    --------
    >>> studio, call = Conditions(9, 8000, 40, 0, 0, 0.1), Conditions(1.5, 3500, 30, 0, 0, 0.1)
    >>> name_of(studio, studio), name_of(call, studio)
    ('wide band', 'wide and narrow band, short')
    """
    sides = np.array([list(side.as_dict().values()) for side in (first, second)])
    return str(names_of(sides[:1], sides[1:])[0])


def names_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Name the conditions [shape=(n,)] of rows of the fields of `Conditions` [shape=(n, 6)]; see `name_of`."""
    narrow = (first[:, 1] <= NARROW).astype(int) + (second[:, 1] <= NARROW)
    short = np.minimum(first[:, 0], second[:, 0]) < SHORT
    noisy = np.minimum(first[:, 2], second[:, 2]) < NOISY
    weak = np.where(noisy, ", noisy", np.where(short, ", short", ""))
    return np.char.add(np.array(BANDS)[narrow], weak)


@dataclass(frozen=True)
class Ratios:
    """
    The judge of an encoder that was measured under many conditions.

    Attributes
    ----------
    names : tuple of str
        Of the `features`.
    weights : tuple of float
    offset : float
    conditions : dict of str to dict
        By condition (`name_of`): ``points`` (list of operating points, their ``threshold`` a log-likelihood ratio),
        ``lowest`` and ``highest`` (ratios that what was measured can tell), ``target`` and ``nontarget`` (quantiles of
        measured ratios), ``cosines`` (lowest and highest of dev pairs).
    ranges : dict of str to [float, float]
        Fields of `Conditions` as the dev speech had them.
    directions : np.ndarray [shape=(k, d)]
        In which channels move a voice; they are removed from both embeddings (`without`).
    wanted : float or None
        The share of different voices accepted that the operating point is for.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float
    conditions: dict[str, dict]
    ranges: dict[str, list[float]]
    directions: np.ndarray
    wanted: float | None = None

    def ratios(self, cosines: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios [shape=(n,)]; arguments as of `features`."""
        return features(cosines, first, second, self.names) @ np.array(self.weights) + self.offset

    def cosines(self, ratios: np.ndarray, conditions: Sequence[Conditions]) -> np.ndarray:
        """Compensated cosines [shape=(n,)] at which two sides of these conditions have some ratios [shape=(n,)]."""
        sides = [np.array([list(side.as_dict().values())] * 2) for side in conditions]
        at_zero, at_one = self.ratios(np.array([0.0, 1.0]), *sides)
        return (ratios - at_zero) / (at_one - at_zero)

    def point(self, conditions: Sequence[Conditions], voices: int = 1) -> dict:
        """
        Give the operating point of two sides' conditions.

        Parameters
        ----------
        conditions : sequence of two Conditions
        voices : int
            Voices that one side is compared with; the threshold rises with their number.

        Returns
        -------
        dict
            ``condition``, and the point that was measured under it; ``threshold`` is the compensated cosine at which
            the ``log_likelihood_ratio`` of these two reaches its threshold.
        """
        name = name_of(*conditions)
        known = self.conditions[name]
        found = next(point for point in known["points"] if point["wanted"] == self.wanted)
        ratio = found["threshold"] + math.log(voices)
        (cosine,) = self.cosines(np.array([ratio]), conditions).tolist()
        told = {"condition": name, **found, "threshold": cosine, "threshold_of": COMPENSATED}
        told["log_likelihood_ratio"] = ratio
        return told | ({"false_accept": _share_above(known["nontarget"], ratio, found)} if voices > 1 else {})

    def __call__(self, first: Side, second: Side, voices: int = 1) -> Judgement:
        """
        Judge whether two sides are one voice.

        Parameters
        ----------
        first, second : Side
        voices : int
            Voices that the first is compared with.

        Returns
        -------
        Judgement
        """
        conditions = first.conditions, second.conditions
        score = cosine_of(*without(np.stack([first.embedding, second.embedding]), self.directions))
        sides = [np.array([list(side.as_dict().values())]) for side in conditions]
        ratio = float(self.ratios(np.array([score]), *sides)[0])
        point = self.point(conditions, voices)
        known = self.conditions[point["condition"]]
        warnings = self._outside(conditions, score, known)
        bound = UNSURE if warnings else math.inf
        limited = min(max(ratio, known["lowest"], -bound), known["highest"], bound)
        accepted = ratio >= point["log_likelihood_ratio"]
        return Judgement(cosine_of(first.embedding, second.embedding), score, limited, accepted, point, warnings)

    def _outside(self, conditions: Sequence[Conditions], score: float, known: dict) -> list[str]:
        """What was not among the dev speech, in words."""
        found = []
        for field, (low, high) in self.ranges.items():
            values = [getattr(side, field) for side in conditions]
            if min(values) < low or max(values) > high:
                value = min(values) if min(values) < low else max(values)
                found.append(
                    f"{_FIELDS[field].format(value)} lies outside of what was measured: the answer claims less"
                )
        low, high = known["cosines"]
        if not low <= score <= high:
            said = f"no measured pair had a {COMPENSATED} of {score:.2f} under this condition"
            found.append(f"{said}: the answer claims less")
        return found


_FIELDS = {
    "speech_seconds": "{:.1f} s of speech",
    "bandwidth": "a bandwidth of {:.0f} Hz",
    "noise": "a voice {:.0f} dB above its background",
    "clipped": "clipping of {:.1%} of the samples",
    "holes": "compression that empties {:.0%} of the sound",
    "decay": "a decay of {:.1f} s",
}


def _share_above(quantiles: Sequence[float], threshold: float, point: dict) -> list[float]:
    """Share of measured non-target ratios from a threshold on, half a trial at least; its interval in proportion."""
    rate = float(np.mean(np.asarray(quantiles) >= threshold))
    rate = min(max(rate, 0.5 / point["n_nontarget"], 0.5 / len(quantiles)), point["false_accept"][0] or 1.0)
    base = point["false_accept"]
    scale = rate / base[0] if base[0] else 1.0
    return [rate, base[1] * scale, min(1.0, base[2] * scale)]


def load(model: str, false_accept: float | None = None) -> Ratios | None:
    """
    Read what was measured of an encoder under conditions.

    Parameters
    ----------
    model : str
    false_accept : float, optional
        Wanted share of different voices accepted.

    Returns
    -------
    Ratios or None
        None where nothing of the kind was measured.

    Raises
    ------
    RequestError
        If it was not measured at the wanted rate.
    """
    content = read(model)
    if content is None:
        return None
    points = next(iter(content["conditions"].values()))["points"]
    if false_accept not in [point["wanted"] for point in points]:
        measured = ", ".join(f"{point['wanted']:g}" for point in points if point["wanted"])
        raise RequestError(
            f"--false-accept {false_accept:g} was not measured of {model}; give one of {measured}, or none"
        )
    fields = {name: content[name] for name in ("offset", "conditions", "ranges")}
    names, weights = tuple(content["features"]), tuple(content["weights"])
    return Ratios(names, weights, **fields, directions=unpacked(content["directions"]), wanted=false_accept)


@functools.cache
def read(model: str) -> dict | None:
    """Read ``<model>_conditions.json`` of a published encoder; None where there is none."""
    if model not in pretrained.PUBLISHED:  # but a file, whose place is no part of a name
        return None
    file = Path(pretrained.__file__).with_name(f"{model}_conditions.json")
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def directions(model: str) -> np.ndarray | None:
    """Directions [shape=(k, d)] in which channels move the voices of a published encoder; None where none are known."""
    content = read(model)
    return unpacked(content["directions"]) if content else None
