"""Who trains, who validates, who is tested: from the manifests of all corpora to one table of utterances."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sv_utils.base import paths
from sv_utils.base.errors import RequestError, nearest
from sv_utils.corpora import Corpus
from sv_utils.speech.manifest import read_manifest


def utterances(
    stores: Sequence[tuple[Corpus, Path]],
    lists: Mapping[str, Sequence[str]],
    *,
    train: Sequence[str],
    n_validation: int,
    min_utterances: int = 2,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    Join the manifests of all corpora into the table that training and evaluation share.

    Parameters
    ----------
    stores : sequence of (Corpus, Path)
        Corpora with their stores from `prepare`.
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

    Returns
    -------
    table : DataFrame
        Accepted rows with the manifest's columns and ``split`` (train, validation, test), ``gender``, ``nationality``,
        ``language`` ('' where unknown); ``shard`` is relative to ``paths.outputs()``. Split 'test' is exactly the files
        that the evaluation lists name; a duplicate is left out of training, but kept where a list names it.
    rejected : DataFrame
        Rows that are not used because of what their ``error`` says.

    Raises
    ------
    RequestError
        A list names a file that is missing or rejected, or a speaker of the training half.

    Examples
    --------
    >>> table, rejected = utterances(
    ...     [(ocean, folder)], {"ocean": ["ocean"]}, train=["ocean"], n_validation=10)  # doctest: +SKIP
    """
    prepared = [corpus.name for corpus, _ in stores]
    for name in (*train, *lists):
        if name not in prepared:
            raise RequestError(f"corpus '{name}' is not among those prepared{nearest(name, prepared)}.")
    tables = [_joined(corpus, folder) for corpus, folder in stores]
    for (corpus, _), table in zip(stores, tables, strict=True):
        listed = _listed(corpus, table, lists.get(corpus.name, ()))
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
    rejected = table[~used & (table["error"] != "")]
    return table[used].assign(error="").reset_index(drop=True), rejected.reset_index(drop=True)


def accepted(corpus: Corpus, folder: Path) -> pd.DataFrame:
    """All accepted rows of one store, as `utterances` gives them but without a split: noises, music, rooms."""
    table = _joined(corpus, folder)
    return table[table["error"] == ""].reset_index(drop=True)


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


def _joined(corpus: Corpus, folder: Path) -> pd.DataFrame:
    """A manifest with the speaker table's facts and shards relative to the outputs folder."""
    table = read_manifest(folder)
    known = corpus.speakers()
    for column in ("gender", "nationality", "language"):
        table[column] = table["speaker"].map(known[column]).fillna("") if column in known else ""
    prefix = Path(folder).resolve().relative_to(paths.outputs())
    table["shard"] = [f"{prefix}/{shard}" if shard else "" for shard in table["shard"]]
    return table


def _listed(corpus: Corpus, table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Which rows the trial lists name; all named files must be there."""
    listed = pd.Series(False, index=table.index)
    usable = (table["error"] == "") | table["error"].str.startswith("duplicate of ")
    for name in names:
        trials = corpus.trials(name)
        wanted = set(trials["enrol"]) | set(trials["test"])
        bad = sorted(wanted - set(table.loc[usable, "id"]))
        if bad:
            reasons = dict(zip(table["id"], table["error"], strict=True))
            raise RequestError(
                f"trial list {name} of corpus {corpus.name} names {len(bad)} file(s) that the store does not offer, "
                f"first {bad[0]} ({reasons.get(bad[0], 'not in the archives')}): complete the corpus, relax the limits "
                f"of 02_prep, or leave the list out."
            )
        listed |= usable & table["id"].isin(wanted)
    return listed


def _refuse_overlap(table: pd.DataFrame) -> None:
    tested = set(table.loc[table["split"] == "test", "speaker"])
    both = sorted(tested & set(table.loc[table["split"] == "train", "speaker"]))
    if both:
        raise RequestError(
            f"{len(both)} speaker(s) of the training half are in an evaluation list, first {both[0]}: "
            f"train on another corpus or leave the list out."
        )
