"""
What is known of an encoder: data, licence, error rates with lists and intervals, limits.

``python -m sv_utils.card outputs/<profile>/<training>/model.keras`` writes ``CARD.md`` beside an evaluated model.
``python -m sv_utils.card campplus`` shows that of a published encoder, with what `sv_utils.calibrate` has measured
of it under conditions. Of one without such figures, as ``ge2e``, it measures (maintenance) on the embedded corpus what
``ge2e.json`` and ``ge2e_scores.json`` of `sv_utils.models.pretrained` hold: calibration and thresholds from the dev
voices; the test list is opened once, to measure them.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sv_utils import corpora
from sv_utils.base.errors import WorkError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation import calibration, judging, scoring, trials
from sv_utils.models import pretrained
from sv_utils.models.embedding import embed
from sv_utils.reports.card import of_model, of_published
from sv_utils.speech import acquisition, limits, preparation
from sv_utils.speech.reader import Speech

SEED = 1
DEV_TRIALS = 3000, 9000  # target, non-target
REPLICATES = 1000


def measure(model: Any, corpus: str = "mini") -> dict:
    """
    Calibrate an encoder on a corpus's dev voices, and measure it on the test list of the same name.

    Parameters
    ----------
    model : keras.Model
    corpus : str

    Returns
    -------
    dict
        ``calibration`` (fields of `scoring.Calibration`), ``operating_points`` (of
        `breakdown.decision_points`), ``measured`` (figures of `metrics.evaluate` on the list), ``scores``
        (the list's cosines, sorted: ``target``, ``nontarget``).
    """
    voices = corpora.get(corpus)
    listed = limits.view(voices, preparation.prepare(voices, acquisition.fetch(voices), workers=2))
    dev, test = (listed[(listed["error"] == "") & (listed["subset"] == subset)] for subset in ("dev", "test"))
    dev_trials, test_trials = trials.make(dev["id"], *DEV_TRIALS, SEED), trials.read(voices.list_path(corpus))
    dev, test = (_scores(model, *pair) for pair in ((dev, dev_trials), (test, test_trials)))
    (dev_labels, _), (labels, speakers) = _known(dev_trials), _known(test_trials)
    fitted = calibration.fit_calibration(dev, dev_labels)
    figures = judging.evaluate(test, labels, *speakers, log_likelihood_ratios=fitted(test), seed=SEED)
    origin = {"threshold_from": f"dev voices of {corpus}", "list": corpus}
    points = judging.decision_points((dev, dev_labels), test, labels, speakers, origin, SEED, REPLICATES)
    return {
        "calibration": asdict(fitted) | {"features": ["cosine"]},
        "operating_points": points,
        "measured": {"list": corpus, **figures, "note": voices.session_note},
        "scores": {kind: np.sort(test[labels == label]) for kind, label in (("target", 1), ("nontarget", 0))},
    }


def _known(pairs: trials.Trials) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Labels and speakers of both sides of a corpus's own trials, which have them."""
    speakers = trials.speakers(pairs)
    if pairs.labels is None or speakers is None:
        raise WorkError("the trials of the corpus tell no speakers; restore its lists (git checkout)")
    return pairs.labels, speakers


def _scores(model: Any, table: pd.DataFrame, pairs: trials.Trials) -> np.ndarray:
    speech = Speech(table)
    embeddings = embed(model, speech.samples, speech.waveform)
    return scoring.cosine(embeddings, *trials.rows(pairs, table["id"]))


@command
def main(argv: list[str] | None = None) -> None:
    """Write the card of an evaluated model, or show that of a published encoder, which is measured where it was not."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.card", description=main.__doc__)
    parser.add_argument("model", help=f"model.keras of a training stage, or {', '.join(sorted(pretrained.PUBLISHED))}")
    name = parser.parse_args(argv).model
    if name not in pretrained.PUBLISHED:
        file = Path(name).with_name("CARD.md")
        text = of_model(name)
        with replace_on_success(file) as temporary:
            temporary.write_text(text, "utf-8")
        print(file)
        return
    if known := of_published(name):
        print(known, end="")
        return
    card = pretrained.card(name) | measure(pretrained.load(name))
    scores = {kind: np.float64(cosines).round(3).tolist() for kind, cosines in card.pop("scores").items()}
    for place, text in ((f"{name}.json", json.dumps(card, indent=1)), (f"{name}_scores.json", json.dumps(scores))):
        with replace_on_success(Path(pretrained.__file__).with_name(place)) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    print(json.dumps(card["measured"], indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
