"""
What is known of an encoder: data, licence, error rates with lists and intervals, limits.

``python -m sv_utils.card outputs/<profile>/<training>/model.keras`` writes ``CARD.md`` beside an evaluated model.
``python -m sv_utils.card campplus`` (maintenance) measures a published encoder on the embedded corpus and writes
``campplus.json`` and ``campplus_scores.json`` of `sv_utils.pretrained`. Calibration and thresholds come from the dev
voices; the test list is opened once, to measure them.
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from . import (
    breakdown,
    corpora,
    download,
    metrics,
    preparation,
    pretrained,
    report,
    scoring,
    store,
    trials,
    verify,
)
from .embedding import embed
from .errors import RequestError, command
from .paths import replace_on_success
from .pretrained import exported

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


LIMITS_TEXT = """\
- Voices are biometric data: compare them with the consent of those who speak. The model holds no recording.
- An answer is no proof. Replayed, converted and synthetic speech are not detected, nor is a second speaker.
- Error rates differ between groups of people (the table above, as far as the groups are known), and those measured on
  one kind of recording do not carry over to another."""


def of_model(model: str | os.PathLike) -> str:
    """
    Write the card of a model of one's own out of what its stages left.

    Parameters
    ----------
    model : path
        ``model.keras`` of a training stage that ``08_evaluate`` has judged.

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    RequestError
        If there is no such model, or it was not evaluated.
    """
    model = Path(model)
    rows = json.loads((verify.evaluation(model) / "metrics.json").read_text("utf-8"))
    training = _run(model.absolute().parent)
    prepared = _run(model.absolute().parent.parent / "02_prep")["parameters"]
    about, commit = rows[0]["encoder"], (training.get("git") or {}).get("commit", "unknown")
    made = [
        f"Commit {commit}, seed {training['seed']}:",
        "```json",
        json.dumps(training["parameters"], indent=1),
        "```",
    ]
    head = [
        f"Speaker encoder, waveforms of 16 kHz: {about['parameters']:,} parameters, {about['dimensions']} dimensions",
        f"trained under the loss {rows[0]['loss']}. sha256 of the file: {exported.sha256(model)}.",
    ]
    sections = {rows[0]["model"]: head, "Data": _data(prepared), "Error rates": _figures(rows)}
    sections |= {"Limits": [LIMITS_TEXT], "How it was made": made}
    text = (f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items())
    return "\n".join(text).removeprefix("#")


def _data(prepared: dict) -> list[str]:
    """A line for each corpus that `02_prep` prepared: what it was used for, and under which licence it comes."""
    lines = []
    for name in sorted({*prepared["corpora"], *prepared["train_corpora"]}):
        corpus = corpora.get(name)
        use = "its dev speakers train and calibrate" if name in prepared["train_corpora"] else "its lists judge"
        licence = f"Licence: {corpus.licence} Source: {corpus.citation} {corpus.session_note}".strip()
        lines.append(f"- **{name}**: {use}. {licence}")
    return [*lines, "", "The licences of the data decide what the weights may be used for."]


def _figures(rows: list[dict]) -> list[str]:
    """Tables: error rates of all kinds of scores, operating points, groups."""
    lines = [report.markdown(pd.DataFrame([_error_rate(row) for row in rows])), ""]
    lines += ["Intervals: 95 %, over speakers. Thresholds come from dev speakers, the rates at them from the list.", ""]
    points = [{"list": row["list"]} | _point(point) for row in rows for point in row.get("operating_points", ())]
    groups = [_group(row["list"], group) for row in rows for group in row.get("by_group", ())]
    lines += [report.markdown(pd.DataFrame(points)), ""] if points else []
    return lines + (["By groups, at one threshold:", "", report.markdown(pd.DataFrame(groups))] if groups else [])


def _run(stage: Path) -> dict:
    try:
        return json.loads((stage / "run.json").read_text("utf-8"))
    except OSError:
        raise RequestError(f"{stage / 'run.json'} is missing; run the stages again (make reproduce)") from None


def _percent(rate: float | None, low: float | None = None, high: float | None = None) -> str:
    interval = "" if low is None or high is None or low == high else f" [{low:.2%}, {high:.2%}]"
    return "" if rate is None else f"{rate:.2%}{interval}"


def _error_rate(row: dict) -> dict:
    trials_of = f"{row['n_target'] + row['n_nontarget']:,}"
    eer = _percent(row["eer"], row["eer_low"], row["eer_high"])
    return {"scores": row["model"], "list": row["list"], "speakers": row["n_speakers"], "trials": trials_of, "EER": eer}


def _point(point: dict) -> dict:
    rates = {"false accepts": _percent(*point["false_accept"]), "misses": _percent(*point["miss"])}
    return {"operating point": point["name"], "threshold": f"{point['threshold']:.3f}"} | rates


def _group(name: str, row: dict) -> dict:
    rates = {"false accepts": _percent(row["p_fa"]), "misses": _percent(row["p_miss"])}
    return {"list": name, "by": row["by"], "group": row["group"], "speakers": row["n_speakers"]} | rates


@command
def main(argv: list[str] | None = None) -> None:
    """Write the card of an evaluated model; or measure a published encoder and write the figures into its card."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.card", description=main.__doc__)
    parser.add_argument("model", help=f"model.keras of a training stage, or {', '.join(sorted(pretrained.PUBLISHED))}")
    name = parser.parse_args(argv).model
    if name not in pretrained.PUBLISHED:
        card = Path(name).with_name("CARD.md")
        text = of_model(name)
        with replace_on_success(card) as temporary:
            temporary.write_text(text, "utf-8")
        print(card)
        return
    card = pretrained.card(name) | measure(pretrained.load(name))
    scores = {kind: np.float64(cosines).round(3).tolist() for kind, cosines in card.pop("scores").items()}
    for file, text in ((f"{name}.json", json.dumps(card, indent=1)), (f"{name}_scores.json", json.dumps(scores))):
        with replace_on_success(Path(pretrained.__file__).with_name(file)) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    print(json.dumps(card["measured"], indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
