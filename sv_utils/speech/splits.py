"""Who trains, who validates, who is tested: from the views of all stores to one table of utterances."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.base.text import quoted
from sv_utils.corpora import Corpus
from sv_utils.speech.limits import qualities


def utterances(
    views: Sequence[tuple[Corpus, pd.DataFrame]],
    lists: Mapping[str, Sequence[str]],
    *,
    train: Sequence[str],
    n_validation: int,
    min_utterances: int = 2,
    seed: int = 0,
    missing_trials: str = "stop",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Join the views of all corpora into the table that training and evaluation share.

    Parameters
    ----------
    views : sequence of (Corpus, DataFrame)
        Corpora with the views of their stores (`limits.view`).
    lists : mapping of str to sequence of str
        The evaluation lists of each corpus, as `corpora.find_lists` gives them.
    train : sequence of str
        Names of the corpora whose dev half is trained on.
    n_validation : int
        Number of dev speakers held out for validation, drawn by `split_validation`.
    min_utterances : int
        Training speakers with fewer accepted utterances are dropped.
    seed : int
        Of the draw.
    missing_trials : {'stop', 'drop'}
        What becomes of a list that names files which are not there or cannot be decoded: an error, or its other trials
        (`write_trials`) are judged.

    Returns
    -------
    table : DataFrame
        Usable rows with the view's columns and ``split`` (train, validation, test). Split 'test' is exactly the files
        that the evaluation lists name. Limits and duplicates keep files from training, never from a list: ``quality``
        says which limit a file of a list is beyond (`limits.qualities`).
    rejected : DataFrame
        Rows that are not used because of what their ``error`` says.

    Raises
    ------
    RequestError
        A list names a file that is missing or cannot be decoded, or a speaker of the training half.

    Examples
    --------
    >>> table, rejected = utterances(
    ...     [(ocean, view(ocean, folder))], {"ocean": ["ocean"]}, train=["ocean"], n_validation=10)  # doctest: +SKIP
    """
    if missing_trials not in ("stop", "drop"):
        raise RequestError(f"missing_trials of 02_prep is stop or drop, not '{missing_trials}'.")
    prepared = [corpus.name for corpus, _ in views]
    for name in (*train, *lists):
        if name not in prepared:
            raise RequestError(f"corpus '{name}' is not among those prepared{nearest(name, prepared)}.")
    tables = [table.copy() for _, table in views]
    for (corpus, _), table in zip(views, tables, strict=True):
        listed = _listed(corpus, table, lists.get(corpus.name, ()), missing_trials)
        trainable = (table["subset"] == "dev") & (table["error"] == "") & (corpus.name in train)
        table["split"] = np.select([listed, trainable], ["test", "train"], "")
    table = pd.concat(tables, ignore_index=True)
    _refuse_overlap(table)
    is_train = table["split"] == "train"
    size = table.loc[is_train, "speaker"].map(table.loc[is_train, "speaker"].value_counts())
    few = size.index[size < min_utterances]
    table.loc[few, "error"] = [f"speaker has {n} of {min_utterances} utterances" for n in size[few]]
    table.loc[few, "split"] = ""
    is_train = table["split"] == "train"
    held_out = split_validation(table[is_train], n_validation, seed) if train else []
    table.loc[is_train & table["speaker"].isin(held_out), "split"] = "validation"
    used = table["split"] != ""
    kept, rejected = table[used], table[~used & (table["error"] != "")]
    kept = kept.assign(quality=qualities(kept), error="")
    return tuple(part.drop(columns="decoded").reset_index(drop=True) for part in (kept, rejected))


def accepted(view: pd.DataFrame) -> pd.DataFrame:
    """All accepted rows of one view, as `utterances` gives them but without a split: noises, music, rooms."""
    return view[view["error"] == ""].drop(columns="decoded").reset_index(drop=True)


def named(corpus: Corpus, lists: Sequence[str]) -> set[str]:
    """Ids of all files that trial lists of a corpus name."""
    trials = [corpus.trials(name) for name in lists]
    return set().union(*(table[side] for table in trials for side in ("enrol", "test")))


def required(corpus: Corpus, lists: Sequence[str], missing_trials: str) -> set[str]:
    """Ids of the files without which a preparation is of no use: none where trials may be dropped, or are drawn."""
    return named(corpus, [name for name in lists if not corpus.is_drawn(name)]) if missing_trials == "stop" else set()


def write_trials(corpus: Corpus, name: str, usable: Collection[str], path: Path) -> str:
    """
    Write a trial list of a corpus without the trials whose files cannot be used.

    Parameters
    ----------
    corpus : Corpus
    name : str
        Of the list.
    usable : collection of str
        Ids of the files that are there.
    path : Path

    Returns
    -------
    str
        How many trials were left out, for the report; '' where there are none: then the file is copied as it is.

    Raises
    ------
    RequestError
        No target or no non-target trial is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = corpus.trials(name)
    kept = trials[trials["enrol"].isin(usable) & trials["test"].isin(usable)]
    if len(kept) == len(trials):
        shutil.copyfile(corpus.list_path(name), path)
        return ""
    if kept["label"].nunique() < 2:
        raise RequestError(
            f"of the {len(trials)} trials of list {name} {len(kept)} are left, and not of both kinds: complete corpus "
            f"{corpus.name}, or leave the list out."
        )
    with paths.replace_on_success(path) as temporary:
        rows = zip(kept["label"], map(quoted, kept["enrol"]), map(quoted, kept["test"]))
        temporary.write_text("".join(f"{label} {enrol} {test}\n" for label, enrol, test in rows), encoding="utf-8")
    lost = pd.unique(pd.concat([trials["enrol"], trials["test"]]))
    lost = [identity for identity in lost if identity not in usable]
    return (
        f"{len(trials) - len(kept):,} of the {len(trials):,} trials of list {name} were left out, because "
        f"{len(lost):,} file(s) that they name cannot be used, first {lost[0]}."
    )


def split_validation(table: pd.DataFrame, n_speakers: int, seed: int) -> list[str]:
    """
    Draw the speakers that training never sees and every choice is made on.

    Parameters
    ----------
    table : DataFrame
        Rows that may be trained on, with column ``speaker``.
    n_speakers : int
        How many to hold out.
    seed : int

    Returns
    -------
    list of str
        Sorted speakers; the same for the same set of speakers and seed, whatever the order of the rows.

    Raises
    ------
    RequestError
        Fewer than two speakers would be left to train on.
    """
    speakers = sorted(table["speaker"].unique())
    if not 0 <= n_speakers <= len(speakers) - 2:
        raise RequestError(
            f"{n_speakers} validation speakers of {len(speakers)} leave fewer than 2 to train on: lower "
            "validation_speakers of 02_prep, or add speakers (01_download prints those that it found)."
        )
    return sorted(np.random.default_rng(seed).permutation(speakers)[:n_speakers].tolist())


def judged(table: pd.DataFrame, cohort_utterances: int, seed: int) -> dict[str, pd.DataFrame]:
    """
    Pick the utterances that an evaluation embeds.

    Parameters
    ----------
    table : DataFrame
        As of `utterances`.
    cohort_utterances : int
        Of each training speaker, at most, drawn at random.
    seed : int

    Returns
    -------
    dict
        ``train`` (the cohort), ``validation``, ``test``, and ``short``: those of ``validation`` once more, to be cut.
    """
    train, validation, test = (table[table["split"] == split] for split in ("train", "validation", "test"))
    train = train.sample(frac=1, random_state=seed).groupby("speaker").head(cohort_utterances)
    return {"train": train, "validation": validation, "test": test, "short": validation}


def _listed(corpus: Corpus, table: pd.DataFrame, names: Sequence[str], missing_trials: str = "stop") -> pd.Series:
    """Which rows the trial lists name; all that they name must be there, unless their trials are dropped."""
    listed = pd.Series(False, index=table.index)
    usable = set(table.loc[table["decoded"], "id"])
    for name in names:
        wanted = named(corpus, [name])
        bad = sorted(wanted - usable)
        if bad and missing_trials == "stop":
            reasons = dict(zip(table["id"], table["error"], strict=True))
            raise RequestError(
                f"trial list {name} of corpus {corpus.name} names {len(bad)} file(s) that the store does not offer, "
                f"first {bad[0]} ({reasons.get(bad[0], 'not in the archives')}): complete the corpus, set "
                f"missing_trials of 02_prep to drop, which leaves their trials out, or leave the list out."
            )
        listed |= table["decoded"] & table["id"].isin(wanted)
    return listed


def _refuse_overlap(table: pd.DataFrame) -> None:
    tested = set(table.loc[table["split"] == "test", "speaker"])
    both = sorted(tested & set(table.loc[table["split"] == "train", "speaker"]))
    if both:
        raise RequestError(
            f"{len(both)} speaker(s) of the training half are in an evaluation list, first {both[0]}: "
            f"train on another corpus or leave the list out."
        )
