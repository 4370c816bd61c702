"""Which of the enrolled voices speaks?"""

import os
from pathlib import Path

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import scoring
from sv_utils.models import pretrained
from sv_utils.voices import encoder, enrolment, measured, recordings
from sv_utils.voices.enrolment import Voices


def identify(
    file: str | os.PathLike,
    closed: bool = False,
    false_accept: float | None = None,
    store: Path | None = None,
) -> dict:
    """
    Find whose voice is heard in a recording.

    Parameters
    ----------
    file : path
        Audio file of any format.
    closed : bool
        It is known to be one of the enrolled voices: the nearest is the answer, however far it is.
    false_accept : float, optional
        As of `verify.compare`.
    store : Path, optional
        File of voices, by default `enrol.default_store`.

    Returns
    -------
    dict
        ``decision`` ('known', 'unknown', 'cannot tell'), ``name`` (None unless known), ``candidates`` (list of
        ``name, cosine, log_likelihood_ratio``, the nearest first), ``operating_point`` (of one comparison, see
        `verify.compare`), ``stranger_accepted`` (bound of the share of strangers who are taken for any of the enrolled:
        the rate of one comparison times their number), ``recording``, ``warnings``.

    Raises
    ------
    RequestError
        The file cannot be decoded, nobody is enrolled, or the model has changed since.
    """
    store = store or enrolment.default_store()
    voices = enrolment.read(store)
    if not voices.sums:
        raise RequestError(f"nobody is enrolled in {store}; python -m sv_utils.enrol NAME FILE ...")
    if pretrained.fingerprint(voices.model) != voices.fingerprint:
        raise RequestError(f"{voices.model} has changed since the voices of {store} were enrolled; enrol them anew")
    return among(voices, file, closed, false_accept)


def among(voices: Voices, file: str | os.PathLike, closed: bool = False, false_accept: float | None = None) -> dict:
    """Find whose of some voices, at least one, is heard in a recording; otherwise as `identify`."""
    sound = recordings.decode(file)
    calibration, point = measured.known(voices.model, false_accept)
    recording = recordings.describe(file, sound)
    answer = {"decision": "cannot tell", "name": None, "candidates": []}
    if recording["speech_seconds"] >= recordings.SHORTEST:
        (heard,) = encoder.embeddings(voices.model, [sound.samples])
        cosines = scoring.normalise(np.array(list(voices.sums.values()))) @ heard
        ratios = [measured.limited(float(ratio), calibration) for ratio in calibration(cosines)]
        table = zip(voices.sums, np.clip(cosines, -1, 1).tolist(), ratios)
        candidates = [{"name": name, "cosine": cosine, "log_likelihood_ratio": llr} for name, cosine, llr in table]
        candidates.sort(key=lambda candidate: -candidate["cosine"])
        found = closed or candidates[0]["cosine"] >= point["threshold"]
        answer = {"decision": "known" if found else "unknown", "name": candidates[0]["name"] if found else None}
        answer["candidates"] = candidates
    bound = None if closed else min(1.0, len(voices.sums) * point["false_accept"][0])
    warnings = recording.pop("warnings")
    return {
        **answer,
        "operating_point": point,
        "stranger_accepted": bound,
        "recording": recording,
        "warnings": warnings,
    }
