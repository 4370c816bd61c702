"""
Maintenance: measure a published encoder on the embedded corpus and write its card.

``python -m sv_utils.card campplus`` writes ``campplus.json`` and ``campplus_scores.json`` of `sv_utils.pretrained`. The
calibration and the threshold come from the dev voices; the test list is opened once, to measure them.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import breakdown, corpora, download, metrics, preparation, pretrained, scoring, store, trials
from .embedding import embed
from .errors import command
from .paths import replace_on_success

SEED = 1
DEV_TRIALS = 3000, 9000  # target, non-target
REPLICATES = 1000
# As stage 02_prep has them by default.
LIMITS = {"workers": 2, "utterances_per_shard": 200, "min_seconds": 1.0, "max_clipped": 0.05, "max_silent": 0.95}


def measure(model, corpus: str = "mini") -> dict:
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
    folder = preparation.prepare(voices, download.fetch(voices), **LIMITS)
    manifest = store.read_manifest(folder)
    dev, test = (manifest[(manifest["error"] == "") & (manifest["subset"] == subset)] for subset in ("dev", "test"))
    dev_trials, test_trials = trials.make(dev["id"], *DEV_TRIALS, SEED), trials.read(voices.list_path(corpus))
    dev, test = (_scores(model, folder, *pair) for pair in ((dev, dev_trials), (test, test_trials)))
    calibration = scoring.fit_calibration(dev, dev_trials.labels)
    speakers = trials.speakers(test_trials)
    figures = metrics.evaluate(test, test_trials.labels, *speakers, log_likelihood_ratios=calibration(test), seed=SEED)
    origin = {"threshold_from": f"dev voices of {corpus}", "list": corpus}
    dev = dev, dev_trials.labels
    points = breakdown.decision_points(dev, test, test_trials.labels, speakers, origin, SEED, REPLICATES)
    return {
        "calibration": asdict(calibration) | {"features": ["cosine"]},
        "operating_points": points,
        "measured": {"list": corpus, **figures, "note": voices.session_note},
        "scores": {
            kind: np.sort(test[test_trials.labels == label]) for kind, label in (("target", 1), ("nontarget", 0))
        },
    }


def _scores(model, folder: Path, table, pairs: trials.Trials) -> np.ndarray:
    speech = store.Speech(table, folder)
    embeddings = embed(model, speech.samples, speech.waveform)
    return scoring.cosine(embeddings, *trials.rows(pairs, table["id"]))


@command
def main(argv: list[str] | None = None) -> None:
    """Measure a published encoder and write the figures into its card."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.card", description=main.__doc__)
    parser.add_argument("name", choices=sorted(pretrained.PUBLISHED))
    name = parser.parse_args(argv).name
    card = pretrained.card(name) | measure(pretrained.load(name))
    scores = {kind: np.float64(cosines).round(3).tolist() for kind, cosines in card.pop("scores").items()}
    for file, text in ((f"{name}.json", json.dumps(card, indent=1)), (f"{name}_scores.json", json.dumps(scores))):
        with replace_on_success(Path(pretrained.__file__).with_name(file)) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    print(json.dumps(card["measured"], indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
