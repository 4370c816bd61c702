"""
Judge scores: `python -m sv_utils.score E.npz TRIALS.txt`, or anyone's score file in the place of the embeddings.

E.npz has `paths` (str) and `embeddings` (n x d), as `python -m sv_utils.embed` writes it; the scores are their cosines.
A score file is text, `score enrol test` or `enrol test score` a line, or with labels `label enrol test score` or
`enrol test score label`, in any order of lines, or a table whose first line names such columns (as scores_<list>.csv
of a profile does); without labels TRIALS.txt says them. A name with blanks stands in double quotes.

`--beside` compares with another system on the same trials, over the same resampled speakers; `--page` writes all of it
with the curves into one HTML file that needs nothing else.
"""

import argparse
import html
import math
from typing import Any

import numpy as np

from sv_utils.base.errors import RequestError, command
from sv_utils.base.paths import replace_on_success
from sv_utils.base.text import refuse_special
from sv_utils.evaluation import intervals, judging, metrics, scoring, trials
from sv_utils.evaluation.calibration import Calibration
from sv_utils.evaluation.score_files import match, read_embeddings, read_scores

WRONG_SIGN = 0.55  # EER from which scores rather fall than rise where voices are the same


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sv_utils.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", metavar="E.npz|SCORES.txt", help="embeddings or a score file")
    parser.add_argument("trials", metavar="TRIALS.txt", nargs="?", help="trial list: label enrol test")
    ratios = parser.add_mutually_exclusive_group()
    ratios.add_argument(
        "--llr",
        action="store_true",
        help="the scores are natural log-likelihood ratios, so that Cllr means something; not assumed otherwise",
    )
    ratios.add_argument(
        "--calibration",
        metavar="FILE",
        help="calibration.json that turns the scores into log-likelihood ratios, for Cllr",
    )
    parser.add_argument(
        "--definitions", action="store_true", help="give the EER by the other definitions in circulation too"
    )
    parser.add_argument("--beside", metavar="FILE", help="scores or embeddings of another system, to compare with")
    parser.add_argument("--page", metavar="OUT.html", help="write the report with its figures into one file")
    parser.add_argument("--replicates", type=int, default=1000, help="resamples of the speakers (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON; what is not known is null")
    return parser


def _labelled(path: str) -> trials.Trials:
    listed = trials.read(path)
    if listed.labels is None:
        raise RequestError(
            f"{path} has no labels, without which there is nothing to judge; begin each line with 1 or 0."
        )
    return listed


def _gather(scores_path: str, trials_path: str | None) -> tuple[trials.Trials, np.ndarray, str, list[str]]:
    """Labelled trials, their scores, what the scores are, and notes."""
    if trials_path is not None:
        listed = _labelled(trials_path)
        return listed, *_scores_of(listed, scores_path)
    if scores_path.endswith(".npz"):
        raise RequestError(f"{scores_path} needs a trial list: python -m sv_utils.score {scores_path} TRIALS.txt.")
    given, scores = read_scores(scores_path)
    if given.labels is None:
        raise RequestError(
            f"{scores_path} has no labels; give the trial list too, or lines of `label enrol test score`."
        )
    trials.refuse_contradictions(given)
    return given, scores, "score", []


def _scores_of(listed: trials.Trials, path: str) -> tuple[np.ndarray, str, list[str]]:
    """Scores of listed trials by embeddings or a score file, what they are, and notes."""
    if path.endswith(".npz"):
        paths, embeddings = read_embeddings(path)
        return scoring.cosine(embeddings, *trials.rows(listed, paths)), "cosine", []
    scores, notes = match(listed, *read_scores(path))
    return scores, "score", notes


def _log_likelihood_ratios(arguments: argparse.Namespace, scores: np.ndarray, kind: str) -> np.ndarray | None:
    if arguments.llr and kind == "cosine":
        raise RequestError("cosines are no log-likelihood ratios; give --calibration instead of --llr.")
    if arguments.llr:
        return scores
    if arguments.calibration is None:
        return None
    refuse_special(arguments.calibration)
    calibration = Calibration.load(arguments.calibration)
    if len(calibration.features) != 1 or (kind == "cosine" and calibration.features != ("cosine",)):
        raise RequestError(
            f"{arguments.calibration} is for {', '.join(calibration.features)}, and these scores are a {kind}."
        )
    return calibration(scores)


def judge(arguments: argparse.Namespace) -> tuple[dict, np.ndarray, np.ndarray]:
    """
    Judge what the command line names.

    Returns
    -------
    report : dict
        Everything that the command reports, by the names of its JSON.
    target, nontarget : np.ndarray
        The scores.
    """
    listed, scores, kind, notes = _gather(arguments.scores, arguments.trials)
    exact, swapped = trials.repeats(listed)
    if len(exact):
        raise RequestError(
            f"{listed.source} line {listed.line(exact[0])} repeats an earlier line ({len(exact)} do); remove repeats."
        )
    if len(swapped):
        notes.append(f"{len(swapped)} trials repeat an earlier pair with the sides swapped, and count as they stand.")
    sides = trials.speakers(listed)
    if sides is None:
        notes.append("no interval: the ids do not begin with the speaker (speaker/session/file).")
    ratios = _log_likelihood_ratios(arguments, scores, kind)
    if ratios is None:
        notes.append(
            f"no Cllr: a {kind} is not taken for a log-likelihood ratio; give --calibration FILE, or --llr if it is."
        )
    resampling = {"seed": arguments.seed, "replicates": arguments.replicates}
    labels = np.asarray(listed.labels)  # `_gather` refuses a list without
    figures: dict[str, Any] = judging.evaluate(
        scores, labels, *(sides or ()), log_likelihood_ratios=ratios, **resampling
    )
    if figures["eer"] == 0 and figures["eer_high"] > 0:
        notes.append("no error was made: the interval is what so many speakers without one leave possible.")
    elif figures["eer_low"] == figures["eer_high"]:
        notes.append("the interval says nothing: whatever speakers are drawn, the EER is the same.")
    if figures["eer"] > WRONG_SIGN:
        notes.append(
            f"an EER of {100 * figures['eer']:.0f} %: the scores are lower where the voices are the same, as distances "
            "are; if these are such, give them with the other sign."
        )
    target, nontarget = scores[labels == 1], scores[labels == 0]
    if arguments.definitions:
        figures["eer_definitions"] = metrics.eer_definitions(target, nontarget)
    if arguments.beside:
        figures["beside"] = _beside(listed, scores, sides, arguments.beside, resampling)
    llr = "the scores" if arguments.llr else arguments.calibration
    return {**figures, "scores": kind, "log_likelihood_ratios": llr, "notes": notes}, target, nontarget


def _beside(listed: trials.Trials, scores: np.ndarray, sides: tuple | None, path: str, resampling: dict) -> dict:
    """EER of another system, and the difference of the two over the same resampled speakers."""
    if sides is None:
        raise RequestError(
            f"--beside resamples speakers, but the ids of {listed.source} do not begin with the speaker; "
            "write them as speaker/session/file."
        )
    other = _scores_of(listed, path)[0]
    labels = np.asarray(listed.labels)
    compared = intervals.compare(scores, other, labels, *sides, **resampling)
    rate = metrics.eer(other[labels == 1], other[labels == 0])[0]
    return {"file": path, "eer": rate, **compared}


def _text(report: dict) -> str:
    """The report for people: rates in percent."""
    interval = ""
    if report["eer_low"] < report["eer_high"]:  # neither unknown nor the same whatever speakers are drawn
        low, high = 100 * report["eer_low"], 100 * report["eer_high"]
        interval = f" (95 % interval over {report['n_speakers']} speakers: {low:.2f} - {high:.2f} %)"
    cllr = "" if math.isnan(report["cllr"]) else f"Cllr {report['cllr']:.3f}, "
    lines = [
        f"{report['n_target']} target and {report['n_nontarget']} non-target trials",
        f"EER {100 * report['eer']:.2f} %{interval} at the threshold {report['threshold']:.4f}",
        f"minDCF {report['min_dcf_001']:.4f} at P_target 0.01, {report['min_dcf_005']:.4f} at 0.05",
        f"{cllr}Cllr_min {report['cllr_min']:.3f} bit",
    ]
    if "eer_definitions" in report:
        values = {name: value for name, value in report["eer_definitions"].items() if name != "flagged"}
        verdict = "more than 0.05 points apart" if report["eer_definitions"]["flagged"] else "alike"
        lines.append(f"EER by definition: {', '.join(f'{n} {100 * v:.2f} %' for n, v in values.items())}; {verdict}")
    if "beside" in report:
        other = report["beside"]
        low, high = 100 * other["low"], 100 * other["high"]
        difference = f"{100 * other['difference']:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}"
        lines.append(f"{other['file']}: EER {100 * other['eer']:.2f} %; difference {difference}, p = {other['p']:.3f})")
    return "\n".join(lines + [f"note: {note}" for note in report["notes"]])


def _page(report: dict, target: np.ndarray, nontarget: np.ndarray, name: str) -> str:
    """The report and its curves as one page, the curves drawn into it."""
    from sv_utils.reports import figures  # figures take a second to load, which figures alone should cost

    drawn = [
        figures.score_histogram(target, nontarget, report["threshold"], title=name),
        figures.eer_curve(target, nontarget, title=name),
        figures.det_curves({name: (target, nontarget)}, title=name),
    ]
    images = map(figures.svg, drawn)
    style = "body {max-width: 50em; margin: 2em auto; font-family: sans-serif} svg {max-width: 100%; height: auto}"
    text = html.escape(_text(report))
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(name)}</title>"
    return f"{head}<style>{style} pre {{white-space: pre-wrap}}</style><pre>{text}</pre>{''.join(images)}</html>"


@command
def main(argv: list[str] | None = None) -> None:
    """Command line; see the module."""
    arguments = _parser().parse_args(argv)
    if arguments.replicates < 1:
        raise RequestError(f"--replicates {arguments.replicates}: at least 1 is needed.")
    report, target, nontarget = judge(arguments)
    if arguments.page:
        with replace_on_success(arguments.page) as temporary:
            temporary.write_text(_page(report, target, nontarget, arguments.scores), "utf-8")
    print(judging.to_json(report) if arguments.json else _text(report))


if __name__ == "__main__":
    raise SystemExit(main())
