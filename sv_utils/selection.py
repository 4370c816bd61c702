"""
Which recipe is best, by cross-validation over dev speakers: every recipe that was tried leaves a row in a log.

``python -m sv_utils.selection NAME`` reads ``params/selection/NAME.yaml``, trains each recipe (parameters of
``07_train_aam``, and a loss) on the dev speakers of a prepared profile without one fold of them, judges it on the
trials between the speakers of that fold, and writes ``params/selection/NAME.csv``. No evaluation list is read. What is
finished already is not run again.

::

    profile: ocean          # whose 02_prep is read: all its dev speakers, those of its validation included
    folds: 4                # the dev speakers are cut into so many parts
    used: 2                 # of which so many serve as validation speakers, in turn
    recipes:
      base:
        why: where everything starts
        change: {phases: [{epochs: 10}]}
      wider:
        after: base         # change and comparison start from this recipe
        why: more channels
        change: {architecture: {width: 48}}
        kept: true
      adacos:
        after: base
        why: a scale that sets itself
        change: {loss: adacos}  # aam, cosface, adacos, softmax; without a margin it needs no margin's schedule
"""

import argparse
import concurrent.futures
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sv_utils import losses
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError, command, nearest
from sv_utils.base.paths import replace_on_success
from sv_utils.evaluation import intervals, metrics
from sv_utils.pipeline import params

NOTEBOOK = "07_train_aam"  # whose parameters a recipe changes
KEYS = {"profile": str, "folds": int, "used": int, "recipes": dict}
OF_A_RECIPE = ("after", "why", "change", "kept")
REPLICATES = 1000


def read(name: str) -> dict:
    """
    Read ``params/selection/<name>.yaml``, with the complete parameters of each recipe under ``parameters``.

    Raises
    ------
    RequestError
        If there is no such file, or something in it would not do what it says.
    """
    file = _folder() / f"{name}.yaml"
    if not file.is_file():
        raise RequestError(f"there is no {file}{nearest(name, [path.stem for path in _folder().glob('*.yaml')])}")
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise RequestError(f"{file} is not readable as YAML: {error}") from None
    for key, kind in KEYS.items():
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise RequestError(f"{file}: {key} is missing or not of type {kind.__name__}")
    if content["folds"] < 2 or not 1 <= content["used"] <= content["folds"]:
        raise RequestError(f"{file}: folds must be 2 or more, and used from 1 to folds")
    defaults = params.declared_parameters(NOTEBOOK) | {"loss": "aam"}
    raw: dict[str, dict] = {}
    for recipe, said in content["recipes"].items():
        where = f"{file}: recipes.{recipe}"
        if not isinstance(said, dict):
            raise RequestError(f"{where} must hold `key: value` lines, not {said!r}")
        if unknown := set(said) - set(OF_A_RECIPE):
            raise RequestError(f"{where}.{unknown.pop()} is unknown{nearest('', OF_A_RECIPE)}")
        after = said.get("after", "")
        if after and after not in raw:
            raise RequestError(f"{where}.after: there is no recipe {after!r} above it{nearest(after, raw)}")
        raw[recipe] = _laid_over(raw.get(after, {}), said.get("change", {}))
        said["parameters"] = params.overlay(defaults, defaults, raw[recipe], where)
        known = [loss for loss, about in losses.LOSSES.items() if about.knows_speakers]
        if (loss := said["parameters"]["loss"]) not in known:
            raise RequestError(f"{where}: change.loss: there is no {loss!r}{nearest(loss, known)}")
    return content


def _laid_over(base: Any, change: Any) -> Any:
    """Merge dicts deeply, and lists of equally many dicts one by one; anything else is replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return base | {key: _laid_over(base.get(key), value) for key, value in change.items()}
    phases = isinstance(base, list) and isinstance(change, list) and len(base) == len(change)
    if phases and all(isinstance(item, dict) for item in base + change):
        return [_laid_over(*pair) for pair in zip(base, change)]
    return change


def train(name: str, recipe: str, fold: int) -> None:
    """
    Train one recipe without the speakers of one fold, and leave the scores of their trials.

    The encoder is judged as it stands after the last step: no epoch is chosen on the trials that judge it.
    """
    import keras

    from sv_utils.training import loop
    from sv_utils.training.data import Data

    selection = read(name)
    chosen = selection["recipes"][recipe]["parameters"]
    out = _run(name, recipe, fold)
    devices = loop.start(chosen["seed"], chosen["engine"])
    data = Data.read(paths.stage_dir(selection["profile"], "02_prep"), fold, selection["folds"])
    crops = data.crops(chosen["phases"], chosen["batch_size"], chosen["seed"])
    encoder = loop.make_encoder(chosen["initial_model"], chosen["architecture"])
    head = _head(max(batches.n_classes for batches in crops), chosen)
    phases = chosen["phases"]
    if not hasattr(head, "margin"):
        phases = [
            {key: value for key, value in phase.items() if not key.startswith(("margin", "hard_margin"))}
            for phase in phases
        ]
    accuracy, before = keras.metrics.sparse_categorical_accuracy, time.process_time()
    trained, _, _ = loop.Training(
        encoder, head, crops, data.validation, out, phases, accuracy, devices, chosen["engine"]
    ).run()
    target, nontarget = data.validation.scores(trained.encoder)
    scores = np.empty(len(data.validation.labels))
    scores[data.validation.labels == 1], scores[data.validation.labels == 0] = target, nontarget
    speakers = data.validation.speech.table["speaker"].to_numpy(str)
    with replace_on_success(out / "scores.npz") as temporary:
        np.savez(
            temporary,
            scores=scores,
            labels=data.validation.labels,
            enrol=speakers[data.validation.enrol_rows],
            test=speakers[data.validation.test_rows],
            core_seconds=time.process_time() - before,
            parameters=trained.encoder.count_params(),
            crops=sum(
                batches.batch_size * phase["epochs"] * loop.steps_per_epoch(batches, phase)
                for batches, phase in zip(crops, chosen["phases"])
            ),
        )


def _head(n_classes: int, chosen: dict) -> Any:
    """Give the head of the recipe's loss; what the recipe does not say is as the loss's own notebook has it."""
    from sv_utils.losses.heads import MarginHead

    kind = losses.head(chosen["loss"])
    own = inspect.signature(kind.__init__).parameters if issubclass(kind, MarginHead) else ()
    return kind(n_classes, **{name: chosen[name] for name in ("scale", "centres", "hard_margin") if name in own})


def table(name: str) -> pd.DataFrame:
    """
    The log: a row for each recipe that is finished on all folds in use, in the order of the file.

    EER: mean over the folds, with the interval of that mean when the speakers of each fold are resampled; `difference`
    to the recipe that it comes after, on the same resamples.
    """
    selection = read(name)
    rows, judged = [], {}
    for recipe, said in selection["recipes"].items():
        runs = [_run(name, recipe, fold) / "scores.npz" for fold in range(1, selection["used"] + 1)]
        if not all(run.exists() for run in runs):
            continue
        folds = [dict(np.load(run)) for run in runs]
        eer, resampled = judged[recipe] = np.mean([_judge(fold, seed) for seed, fold in enumerate(folds)], axis=0)
        row = {"recipe": recipe, "after": said.get("after", ""), "why": said.get("why", "")}
        change = json.loads(json.dumps(said.get("change", {})))  # a copy in which no part stands twice: no &id001
        row["change"] = yaml.safe_dump(change, default_flow_style=True, width=10**6).strip()
        row |= {"kept": bool(said.get("kept")), "parameters": int(folds[0]["parameters"])}
        row["crops"] = int(folds[0]["crops"])
        row["core_seconds"] = float(np.mean([fold.get("core_seconds", np.nan) for fold in folds]))
        row["speakers"] = sum(len(np.unique(fold["enrol"])) for fold in folds)
        row |= {"trials": sum(len(fold["labels"]) for fold in folds), "eer": eer[0]}
        row["low"], row["high"] = np.nanquantile(resampled, [0.025, 0.975])
        if said.get("after") in judged:
            gap = judged[recipe] - judged[said["after"]]
            row["difference"] = gap[0, 0]
            row["difference_low"], row["difference_high"] = np.nanquantile(gap[1], [0.025, 0.975])
        rows.append(row)
    return pd.DataFrame(rows)


def _judge(fold: dict, seed: int) -> np.ndarray:
    """EER of a fold (repeated), and that of its resamples [shape=(2, REPLICATES)]; a seed draws the same speakers."""
    scores, labels = fold["scores"], fold["labels"]
    resampled = intervals.speaker_bootstrap(scores, labels, fold["enrol"], fold["test"], REPLICATES, seed)
    return np.stack([np.full(REPLICATES, metrics.eer(scores[labels == 1], scores[labels == 0])[0]), resampled])


def log(name: str) -> pd.DataFrame:
    """
    The log as it is stored.

    Raises
    ------
    RequestError
        If there is none.
    """
    path = _folder() / f"{name}.csv"
    if not path.exists():
        raise RequestError(f"there is no {path}; make it with: python -m sv_utils.selection {name}")
    empty = {name: [""] for name in ("core_seconds", "difference", "difference_low", "difference_high")}
    return pd.read_csv(path, keep_default_na=False, na_values=empty)


def text(rows: pd.DataFrame) -> pd.DataFrame:
    """The log as people read it: percent and percentage points, all text."""
    said = rows[["recipe", "after", "why"]].copy()
    said["crops"] = [f"{count:,}" for count in rows["crops"]]
    said["parameters"] = [f"{count:,}" for count in rows["parameters"]]
    said["core minutes"] = ["" if np.isnan(seconds) else f"{seconds / 60:.1f}" for seconds in rows["core_seconds"]]
    said["EER % [95 % interval]"] = [_percent(*row) for row in rows[["eer", "low", "high"]].to_numpy(float)]
    gaps = rows[["difference", "difference_low", "difference_high"]].to_numpy(float)
    said["difference [points]"] = [_percent(middle, low, high, "+") for middle, low, high in gaps]
    said["kept"] = np.where(rows["kept"].astype(bool), "yes", "")
    return said


def _percent(middle: float, low: float, high: float, sign: str = "") -> str:
    return "" if np.isnan(middle) else f"{100 * middle:{sign}.2f} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def _waiting(name: str) -> Iterator[tuple[str, int]]:
    selection = read(name)
    for recipe, said in selection["recipes"].items():
        for fold in range(1, selection["used"] + 1):
            out = _run(name, recipe, fold)
            asked = json.dumps(said["parameters"], sort_keys=True)
            if (out / "asked.json").exists() and (out / "asked.json").read_text("utf-8") != asked:
                raise RequestError(f"{out} holds another recipe of the name {recipe}; give the new one another name")
            out.mkdir(parents=True, exist_ok=True)
            (out / "asked.json").write_text(asked, "utf-8")
            if not (out / "scores.npz").exists():
                yield recipe, fold


def _run_one(name: str, recipe: str, fold: int, threads: int) -> None:
    started, out = time.time(), _run(name, recipe, fold)
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    with open(out / "train.log", "a", encoding="utf-8") as file:
        words = [sys.executable, "-m", "sv_utils.selection", name, "--one", recipe, str(fold)]
        done = subprocess.run(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise WorkError(f"recipe {recipe}, fold {fold} failed; see {out / 'train.log'}")
    print(f"{recipe}, fold {fold}: {time.time() - started:.0f} s", flush=True)


def _folder() -> Path:
    return paths.params_dir() / "selection"


def _run(name: str, recipe: str, fold: int) -> Path:
    return paths.outputs() / "selection" / name / f"{recipe}.{fold}"


@command
def main(argv: list[str] | None = None) -> None:
    """Cross-validate the recipes of params/selection/NAME.yaml, and write the log NAME.csv beside it."""
    parser = argparse.ArgumentParser(prog="python -m sv_utils.selection", description=main.__doc__)
    parser.add_argument("name", help="name of a file in params/selection/")
    parser.add_argument("--workers", type=int, default=2, help="trainings at once, each with its share of the cores")
    parser.add_argument("--one", nargs=2, metavar=("RECIPE", "FOLD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        return train(arguments.name, arguments.one[0], int(arguments.one[1]))
    threads = max(1, (os.cpu_count() or 1) // arguments.workers)
    with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        jobs = [pool.submit(_run_one, arguments.name, *job, threads) for job in _waiting(arguments.name)]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    path = _folder() / f"{arguments.name}.csv"
    rows = table(arguments.name)
    with replace_on_success(path) as temporary:
        rows.to_csv(temporary, index=False, float_format="%.5g")
    print(f"{path}: {len(rows)} recipes")


if __name__ == "__main__":
    raise SystemExit(main())
