"""
Do two recordings hold one voice? ``python -m sv_utils.verify A B [--model M] [--json]``

The exit code is the answer: 0 the same speaker, 1 different speakers, 2 it cannot be told, or the request was wrong.
"""

import argparse
import contextlib
import csv
import functools
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import audio, embedding, params, paths, pretrained
from .errors import RequestError, WorkError, command
from .pretrained import exported
from .scoring import Calibration

SPEECH_BELOW_PEAK = 30.0  # a frame is speech down to this much below the loud frames of its recording [dB]
LOUD = 95  # percentile of the frames' levels that counts as loud
SHORT = 2.0  # with less speech than this an answer is weak [s]
SHORTEST = 0.5  # with less speech there is no answer [s]
CLIPPED = 0.001  # fraction of the samples at full scale
SILENT = 0.5  # fraction of the recording that is not speech
EXIT = {"same speaker": 0, "different speakers": 1, "cannot tell": 2}


def compare(
    first: str | os.PathLike,
    second: str | os.PathLike,
    model: str = "campplus",
    prior: float = 0.5,
    false_accept: float | None = None,
) -> dict:
    """
    Say whether one voice speaks in two recordings.

    Parameters
    ----------
    first, second : path
        Audio files of any format, rate and length up to an hour.
    model : str
        A published encoder, or the ``.keras`` file of a training that ``08_evaluate`` has judged.
    prior : float
        Probability of one voice before the recordings are heard.
    false_accept : float, optional
        Wanted share of different voices accepted, of those that were measured; by default the threshold is that of
        equal error.

    Returns
    -------
    dict
        ``decision`` ('same speaker', 'different speakers', 'cannot tell'); ``cosine``; ``log_likelihood_ratio``
        (natural; no further from 0 than the calibration's number of trials can tell); ``probability`` at the
        ``prior``; ``operating_point`` (threshold of the cosine, and the error rates measured there as [rate, low,
        high], list, numbers of trials); ``recordings``; ``warnings``. Cosine, ratio and probability are None where it
        cannot be told.

    Raises
    ------
    RequestError
        A file cannot be decoded, there is no such model, it has no calibration, the prior is no probability, or
        nothing was measured at the wanted rate.
    WorkError
        The published encoder cannot be fetched.

    Examples
    --------
    >>> compare("monday.wav", "tuesday.m4a")["decision"]  # doctest: +SKIP
    'same speaker'
    """
    if not 0 < prior < 1:
        raise RequestError(f"the prior {prior:g} is no probability; give a number between 0 and 1, such as 0.5")
    decoded = [decode(file) for file in (first, second)]
    recordings = [describe(file, sound) for file, sound in zip((first, second), decoded)]
    calibration, point = known(model, false_accept)
    answer = {"decision": "cannot tell", "cosine": None, "log_likelihood_ratio": None, "probability": None}
    if min(recording["speech_seconds"] for recording in recordings) >= SHORTEST:
        cosine = float(np.clip(np.dot(*embeddings(model, [sound.samples for sound in decoded])), -1, 1))
        ratio = limited(float(calibration(np.array([cosine]))[0]), calibration)
        logit = ratio + math.log(prior / (1 - prior))
        answer = {
            "decision": "same speaker" if cosine >= point["threshold"] else "different speakers",
            "cosine": cosine,
            "log_likelihood_ratio": ratio,
            "probability": 1 / (1 + math.exp(-logit)),
        }
    said = [f"{item['file']}: {text}" for item in recordings for text in item.pop("warnings")]
    return {
        **answer,
        "prior": prior,
        "model": model,
        "operating_point": point,
        "recordings": recordings,
        "warnings": said,
    }


def describe(file: str | os.PathLike, sound: audio.Decoded) -> dict:
    """
    Measure a recording and say what makes an answer weak.

    Returns
    -------
    dict
        ``file``, ``seconds``, ``speech_seconds``, ``rate`` [Hz] and ``channels`` of the original, ``clipped``
        (fraction of the samples) and ``warnings`` (list of str).
    """
    seconds, speech = len(sound.samples) / 16_000, speech_seconds(sound.samples)
    clipped = audio.measure(sound.samples)["clipped"]
    warnings = []
    if speech < SHORT:
        warnings.append(f"{speech:.2f} s of speech are too short for a reliable answer, give {SHORT:g} s or more")
    if sound.rate < 16_000:
        warnings.append(
            f"recorded at {sound.rate} Hz, so nothing above {sound.rate / 2000:g} kHz is there to compare; "
            "the error rates hold for 16 kHz"
        )
    if clipped > CLIPPED:
        warnings.append(f"{clipped:.1%} of the samples are clipped, record it less loud")
    if speech < (1 - SILENT) * seconds:
        warnings.append(f"mostly silence: {speech:.1f} s of speech in {seconds:.1f} s")
    numbers = {"seconds": seconds, "speech_seconds": speech, "rate": sound.rate, "channels": sound.channels}
    return {"file": os.fspath(file), **numbers, "clipped": clipped, "warnings": warnings}


def speech_seconds(samples: np.ndarray) -> float:
    """
    Estimate how much of a recording is speech, by energy alone: noise as loud as a voice counts as speech.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    float [s]
        Of 20 ms frames above -60 dBFS that lie at most 30 dB below the loud ones (95th percentile) of the recording.
    """
    frames = samples[: len(samples) // audio.FRAME * audio.FRAME].reshape(-1, audio.FRAME).astype(np.float32) / 32768
    if not len(frames):
        return 0.0
    level = 10 * np.log10(np.mean(np.square(frames), axis=1) + 1e-12)
    floor = max(20 * math.log10(audio.SILENCE), np.percentile(level, LOUD) - SPEECH_BELOW_PEAK)
    return float(np.count_nonzero(level > floor) * audio.FRAME / 16_000)


def known(model: str, false_accept: float | None = None) -> tuple[Calibration, dict]:
    """
    Find what was measured of a model: its calibration and its operating point.

    Raises
    ------
    RequestError
        If it was not evaluated, or not at the wanted rate of false acceptances.
    """
    if model in pretrained.PUBLISHED:
        card = pretrained.card(model)
        fields = card["calibration"]
        calibration = Calibration(**{**fields, "features": tuple(fields["features"])})
        points = card["operating_points"]
    else:
        folder = evaluation(Path(model))
        calibration = Calibration.load(folder / "calibration.json")
        row = json.loads((folder / "metrics.json").read_text("utf-8"))[0]  # of the model itself, on its first list
        points = row.get("operating_points")
        if not points:
            raise RequestError(f"{folder / 'metrics.json'} has no operating points; evaluate it anew (make reproduce)")
    for point in points:
        if point["wanted"] == false_accept:
            return calibration, point
    measured = ", ".join(f"{point['wanted']:g}" for point in points if point["wanted"])
    raise RequestError(f"--false-accept {false_accept:g} was not measured of {model}; give one of {measured}, or none")


def scores(model: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Give the cosines of the target and the non-target trials of the list that the error rates of `known` come from.

    Raises
    ------
    RequestError
        If the model was not evaluated.
    """
    if model in pretrained.PUBLISHED:
        return pretrained.scores(model)
    file = evaluation(Path(model)) / f"scores_{known(model)[1]['list']}.csv"
    with open(file, encoding="utf-8") as rows:
        labels, cosines = np.array([(row["label"], row["score"]) for row in csv.DictReader(rows)], float).T
    return cosines[labels == 1], cosines[labels == 0]


def evaluation(model: Path) -> Path:
    """
    Find the folder of the stage that judged the model of a training stage.

    Raises
    ------
    RequestError
        If there is no such model, or it was not evaluated.
    """
    training = params.TRAINING.fullmatch(model.absolute().parent.name)
    name = training["model"] if training else "MODEL"
    folder = model.absolute().parent.parent / f"{params.LAST[0]}@{name}"
    if not (folder / "metrics.json").is_file() or not (folder / "calibration.json").is_file():
        pretrained.load(model)  # a wrong name is told as such
        raise RequestError(
            f"{model}: what its scores mean is not known, for calibration.json and metrics.json of {folder.name} do "
            "not lie beside its training stage; evaluate it (make reproduce), or leave --model out"
        )
    return folder


def decode(file: str | os.PathLike) -> audio.Decoded:
    """
    Decode an audio file.

    Raises
    ------
    RequestError
        If it cannot be read or is no audio.
    """
    try:
        return audio.decode(file)
    except (OSError, audio.AudioError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RequestError(f"{os.fspath(file)}: {reason}; name an audio file") from None


def embeddings(model: str, waveforms: list[np.ndarray]) -> np.ndarray:
    """
    Embed recordings, without TensorFlow where there is a LiteRT file of the model.

    Parameters
    ----------
    model : str
        As of `compare`.
    waveforms : list of np.ndarray [shape=(n,), dtype=int16]
        At 16 kHz.

    Returns
    -------
    np.ndarray [shape=(recordings, d)], float32
        Unit vectors.
    """
    source = pretrained.locate(model)
    network, lengths = _network(exported.fast_form(source) or source), [len(samples) for samples in waveforms]
    return embedding.embed(network, lengths, waveforms.__getitem__, batch_size=1)


@functools.lru_cache(maxsize=1)
def _network(file: Path):
    """The encoder of a file, kept for the next answer of this process."""
    network = pretrained.load(file)
    network.run_eagerly = True  # of Keras: to compile the graph takes longer than to run it twice
    return network


def prepare(model: str) -> None:
    """Write a published encoder's LiteRT file beside it, where LiteRT is installed, for quick starts from now on."""
    if model not in pretrained.PUBLISHED or not exported.can_be_fast() or exported.fast_form(pretrained.locate(model)):
        return
    print("sv_utils.verify: making the next starts quick, this once: a minute or two ...", file=sys.stderr)
    from . import export  # and with it TensorFlow

    with without_notices(), contextlib.suppress(WorkError, OSError):  # the Keras model answers as well, only later
        export.export(model, "litert")


def limited(ratio: float, calibration: Calibration) -> float:
    """As many trials as the calibration saw cannot show that something is rarer than one in so many."""
    return min(max(ratio, -math.log(calibration.n_target + 1)), math.log(calibration.n_nontarget + 1))


def text(answer: dict) -> str:
    """Say the answer of `compare` in words."""
    lines = [answer["decision"]]
    point = answer["operating_point"]
    if answer["cosine"] is not None:
        ratio = answer["log_likelihood_ratio"]
        voices = "one voice" if ratio > 0 else "two voices"
        lines.append(f"  cosine {answer['cosine']:.3f}, threshold {point['threshold']:.3f} ({answer['model']})")
        lines.append(
            f"  log-likelihood ratio {ratio:+.2f}: {math.exp(abs(ratio)):,.0f} times likelier with {voices}; "
            f"probability of one voice {answer['probability']:.2%} at a prior of {answer['prior']:.1%}"
        )
    rates = [_rate(*point[name]) for name in ("false_accept", "miss")]
    lines.append(
        f"  operating point {point['name']}: {rates[0]} of different voices accepted, {rates[1]} of same voices missed "
        f"on list {point['list']} ({point['n_speakers']} speakers, {point['n_target'] + point['n_nontarget']:,} "
        f"trials); threshold from {point['threshold_from']}"
    )
    return "\n".join(lines + [f"  warning: {text}" for text in answer["warnings"]])


def _rate(rate: float, low: float, high: float) -> str:
    """A rate with its interval; where no resample differs from it there is none."""
    return f"{rate:.1%} [{low:.1%}, {high:.1%}]" if low < high else f"{rate:.1%} (too few errors for an interval)"


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Keep what TensorFlow's C++ code says from the terminal; errors of Python come through as exceptions."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@command
def main(argv: list[str] | None = None) -> int:
    """Say whether two recordings hold one voice. Exit code: 0 same, 1 different, 2 cannot tell or bad input."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.verify", description=main.__doc__)
    parser.add_argument("first", help="audio file")
    parser.add_argument("second", help="audio file")
    parser.add_argument(
        "--model", default="campplus", help="campplus (default), or an evaluated training's .keras file"
    )
    parser.add_argument("--prior", type=float, default=0.5, help="probability of one voice beforehand (default: 0.5)")
    parser.add_argument(
        "--false-accept", type=float, help="wanted share of different voices accepted (default: equal error)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(argv)
    wanted = arguments.model, arguments.prior, arguments.false_accept
    try:
        with without_notices():
            answer = compare(arguments.first, arguments.second, *wanted)
    except (WorkError, OSError) as error:  # 1 would mean "different speakers"
        mend = f"; or name a model of your own, such as --model {_example()}" if arguments.model == "campplus" else ""
        raise RequestError(f"{error}{mend}") from error
    print(json.dumps(answer, indent=1) if arguments.json else text(answer), flush=True)
    prepare(arguments.model)
    return EXIT[answer["decision"]]


def _example() -> str:
    return os.path.relpath(paths.stage_dir("mini", "06_train_adacos") / "model.keras")


if __name__ == "__main__":
    raise SystemExit(main())
