"""
Trial lists in VoxCeleb's format: one `label enrol test` a line, an id being `<speaker>/<session>/<file>`.

`read` takes the other orders and separators in circulation too (`sv_utils.base.lists`); `write` puts a name with blanks
into double quotes, as every reader of this project understands.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sv_utils.base import lists
from sv_utils.base.errors import RequestError
from sv_utils.base.paths import replace_on_success
from sv_utils.base.text import quoted

# Of a speaker with more utterances only so many are paired, which bounds the pairs to choose from (here 44,850).
UTTERANCES_PER_SPEAKER = 300
WRONG_LABELS = 0.05  # share of the trials up to which contradictions are wrong labels, and not ids of another form


@dataclass(frozen=True, eq=False)
class Trials:
    """
    A list of trials.

    Attributes
    ----------
    labels : np.ndarray [shape=(n,), dtype=int8] or None
        1 for a target trial (same speaker), 0 for a non-target trial; None where the list does not say.
    enrol, test : np.ndarray of str [shape=(n,)]
        Ids of the two utterances of each trial.
    source : str
        Where the list comes from; errors begin with it.
    lines : np.ndarray of int [shape=(n,)] or None
        In which line of the source each trial stands; None where there is a trial in each.
    """

    labels: np.ndarray | None
    enrol: np.ndarray
    test: np.ndarray
    source: str = "the trial list"
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.enrol)

    @property
    def known_labels(self) -> np.ndarray:
        """
        The labels of a list that must have them.

        Raises
        ------
        RequestError
            If the list does not say which trials are target trials.
        """
        if self.labels is None:
            raise RequestError(f"{self.source} has no labels; begin each line with 1 (target) or 0.")
        return self.labels

    def line(self, place: int) -> int:
        """In which line of its source the trial of that place stands, from 1."""
        return place + 1 if self.lines is None else int(self.lines[place])


def read(path: str | os.PathLike) -> Trials:
    """
    Read a trial list: `label enrol test` or `enrol test label` a line, or `enrol test` where the labels are not known.

    Trials that repeat an earlier pair stay in, because official lists hold such (338 of VoxCeleb1-O's 37,720 pairs come
    back with the sides swapped) and a published figure counts them; see `repeats`.

    Raises
    ------
    RequestError
        If the file cannot be read as such a list, or labels one pair of utterances both 0 and 1.

    Examples
    --------
    >>> trials = read("veri_test.txt")  # doctest: +SKIP
    >>> len(trials), trials.labels.sum()  # doctest: +SKIP
    (37720, 18860)
    """
    found = lists.read_trials(path)
    labels = None if found.labels is None else np.array(found.labels, dtype=np.int8)
    trials = Trials(labels, np.array(found.enrol), np.array(found.test), str(path), np.array(found.lines))
    if labels is not None:
        refuse_contradictions(trials)
    return trials


def write(path: str | os.PathLike, trials: Trials) -> None:
    """Write a trial list so that `read` gives it back; the file appears complete or not at all."""
    sides = [map(quoted, side.tolist()) for side in (trials.enrol, trials.test)]
    table = sides if trials.labels is None else [map(str, trials.labels.tolist()), *sides]
    with replace_on_success(path) as temporary:
        temporary.write_text("".join(" ".join(line) + "\n" for line in zip(*table)), encoding="utf-8")


def speaker(ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """
    Speaker of each id: its first path component.

    Examples
    --------
    >>> speaker(["id10270/x6uYqmx31kE/00001.wav"]).tolist()
    ['id10270']
    """
    return np.array([name.partition("/")[0] for name in np.asarray(ids).tolist()], dtype=str)


def speakers(trials: Trials) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Speakers of both sides of labelled trials, or None without labels or where the ids do not name the speaker.

    The speaker is the first component of the ids; where many labels contradict it (`test-clean/61/…`, `phone/id1/…`),
    the first other folder that contradicts none. Ids that give different speakers in every target trial
    (`a.wav b.wav`), or one speaker in every non-target trial (`voxsrc/a.wav voxsrc/b.wav`), name files and not
    speakers.

    Raises
    ------
    RequestError
        If only some labels contradict the ids: then a label is wrong.
    """
    labels = trials.labels
    if labels is None:
        return None
    sides = speaker(trials.enrol), speaker(trials.test)
    wrong = _against(labels, sides)
    if wrong.mean() > WRONG_LABELS:
        other = next((found for found in _other_places(trials) if not _against(labels, found).any()), None)
        if other is not None:
            return other
    if any(wrong[labels == label].all() for label in (0, 1)):
        return None
    if wrong.any():
        place = int(np.argmax(wrong))
        raise RequestError(
            f"{trials.source} line {trials.line(place)} gives {trials.enrol[place]} and {trials.test[place]} the label "
            f"{labels[place]}, which contradicts their speakers {sides[0][place]} and {sides[1][place]} "
            f"({wrong.sum()} such lines); correct the label, or begin the ids with the speaker (speaker/session/file)."
        )
    return sides


def _against(labels: np.ndarray, sides: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Which labels contradict the speakers [shape=(n,), dtype=bool]; a label that does not occur contradicts none."""
    return (sides[0] == sides[1]) != (labels == 1)


def _other_places(trials: Trials) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What stands at each other place of the ids that may name a speaker, the file's own name left out."""
    split = [[name.split("/")[:-1] for name in side.tolist()] for side in (trials.enrol, trials.test)]
    depths = [len(name) for side in split for name in side]
    for place in (*range(1, min(depths)), *range(-1, -min(depths), -1)):
        enrol, test = (np.array([name[place] for name in side]) for side in split)
        yield enrol, test


def rows(trials: Trials, ids: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the utterances of the trials.

    Parameters
    ----------
    trials : Trials
    ids : sequence of str [shape=(m,)]
        Ids of the utterances at hand, for example of the rows of an array of embeddings.

    Returns
    -------
    enrol_rows, test_rows : np.ndarray of int [shape=(n,)]
        Places in `ids`.

    Raises
    ------
    RequestError
        If a trial names an id that `ids` lacks, or `ids` holds one twice.
    """
    row_of = {name: row for row, name in enumerate(np.asarray(ids).tolist())}
    if len(row_of) != len(ids):
        raise RequestError(f"{len(ids) - len(row_of)} utterance ids occur more than once; give each utterance once.")
    found = [np.array([row_of.get(name, -1) for name in side.tolist()]) for side in (trials.enrol, trials.test)]
    missing = (found[0] < 0) | (found[1] < 0)
    if missing.any():
        place = int(np.argmax(missing))
        name = (trials.enrol if found[0][place] < 0 else trials.test)[place]
        raise RequestError(
            f"{trials.source} line {trials.line(place)} names {name}, which is not among the {len(ids)} utterances at "
            f"hand ({missing.sum()} of {len(trials)} trials name such); add it or take another list."
        )
    return found[0], found[1]


def same_session_share(trials: Trials) -> float:
    """
    Share of the target trials whose two utterances are of one session, `<speaker>/<session>/<file>`.

    Where ids name no session (`<speaker>/<file>`), all recordings of a speaker count as one.
    """
    target = trials.labels == 1
    folders = [[name.rpartition("/")[0] for name in side[target].tolist()] for side in (trials.enrol, trials.test)]
    return float(np.mean([one == other for one, other in zip(*folders)]))


def repeats(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """
    Find trials that repeat an earlier one.

    Returns
    -------
    exact, swapped : np.ndarray of int
        Places of trials that an earlier line holds in the same order, and of the others whose pair of utterances an
        earlier line holds with the sides swapped.
    """
    enrol, test, count = _codes(trials)
    exact = _later(enrol * count + test)
    either = _later(np.minimum(enrol, test) * count + np.maximum(enrol, test))
    return exact, np.setdiff1d(either, exact)


def _codes(trials: Trials) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the utterances: codes of the enrol and the test side, and how many there are (sorting text is slow)."""
    enrol, test = trials.enrol.tolist(), trials.test.tolist()
    code = {name: number for number, name in enumerate(dict.fromkeys(enrol + test))}
    return np.array([code[name] for name in enrol]), np.array([code[name] for name in test]), len(code)


def _later(keys: np.ndarray) -> np.ndarray:
    """Places of the keys that occur earlier too."""
    order = np.argsort(keys, kind="stable")
    return np.sort(order[1:][keys[order][1:] == keys[order][:-1]])


def refuse_contradictions(trials: Trials) -> None:
    """Raise a RequestError if a pair of utterances, in either order, has both labels."""
    enrol, test, count = _codes(trials)
    labels = trials.labels
    if labels is None:
        return
    keys = np.minimum(enrol, test) * count + np.maximum(enrol, test)
    order = np.argsort(keys, kind="stable")
    first, second = order[:-1], order[1:]
    contradictory = (keys[first] == keys[second]) & (labels[first] != labels[second])
    if contradictory.any():
        one, other = (int(side[np.argmax(contradictory)]) for side in (first, second))
        raise RequestError(
            f"{trials.source} gives {trials.enrol[one]} and {trials.test[one]} the label {labels[one]} in line "
            f"{trials.line(one)} and {labels[other]} in line {trials.line(other)}; "
            "remove the wrong line."
        )


def make(
    ids: Sequence[str] | np.ndarray,
    n_target: int,
    n_nontarget: int,
    seed: int,
    genders: Mapping[str, str] | None = None,
    same_gender_share: float = 0.5,
) -> Trials:
    """
    Draw a trial list over own utterances.

    No pair of utterances occurs twice, in either order. Target trials are spread evenly over the speakers and cross
    sessions (`<speaker>/<session>`) as long as such pairs last; non-target trials are spread evenly over pairs of
    speakers.

    Parameters
    ----------
    ids : sequence of str
        `<speaker>/<session>/<file>`; their order does not matter.
    n_target, n_nontarget : int
        Wanted trials; where the utterances give fewer pairs, the list has what there is.
    seed : int
    genders : mapping of speaker to gender, optional
        Where given, `same_gender_share` of the non-target trials pair speakers of one gender, the rest of two;
        speakers that are absent from it take part in target trials only.
    same_gender_share : float in [0, 1]

    Returns
    -------
    Trials
        Target trials first.

    Raises
    ------
    RequestError
        If the utterances give no target or no non-target trial.

    Examples
    --------
    >>> make(["a/1/x", "a/2/y", "b/1/z"], 1, 1, seed=0).labels.tolist()
    [1, 0]
    """
    rng = np.random.default_rng(seed)
    ids = np.unique(np.asarray(ids, dtype=str))
    names, owner = np.unique(speaker(ids), return_inverse=True)
    utterances = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])
    pairs = [_target_pairs(ids, utterances, n_target, rng)]
    for allowed, wanted in _speaker_pairs(names, n_nontarget, genders, same_gender_share):
        pairs.append(_nontarget_pairs(utterances, allowed, wanted, rng))
    counts = len(pairs[0]), sum(map(len, pairs[1:]))
    for kind, count in zip(("target", "non-target"), counts):
        if not count:
            raise RequestError(f"{len(ids)} utterances of {len(names)} speakers give no {kind} trial; add utterances.")
    rows = rng.permuted(np.concatenate(pairs), axis=1)  # the enrol side is not always the first in the alphabet
    return Trials(np.repeat(np.array([1, 0], dtype=np.int8), counts), ids[rows[:, 0]], ids[rows[:, 1]])


def _target_pairs(ids: np.ndarray, utterances: list[np.ndarray], wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of one speaker's utterances [shape=(k, 2)], those across sessions first."""
    session = np.unique([name.rpartition("/")[0] for name in ids.tolist()], return_inverse=True)[1]
    chosen = [rng.permutation(own)[:UTTERANCES_PER_SPEAKER] for own in utterances]
    total = np.array([len(own) * (len(own) - 1) // 2 for own in chosen])
    within = np.array([sum(n * (n - 1) // 2 for n in np.bincount(session[own])) for own in chosen])
    n_across = _spread(wanted, total - within)
    n_within = _spread(wanted - n_across.sum(), within)
    pairs = []
    for own, across_share, within_share in zip(chosen, n_across, n_within):
        candidates = rng.permutation(own[np.column_stack(np.triu_indices(len(own), 1))])
        across = session[candidates[:, 0]] != session[candidates[:, 1]]
        pairs += [candidates[across][:across_share], candidates[~across][:within_share]]
    return np.concatenate(pairs)


def _speaker_pairs(names: np.ndarray, wanted: int, genders: Mapping[str, str] | None, same_share: float) -> list:
    """Which speakers may meet [shape=(s, s)], in how many non-target trials; those of one and of two genders apart."""
    if genders is None:
        return [(np.ones((len(names), len(names)), dtype=bool), wanted)]
    gender = np.array([genders.get(name, "") for name in names.tolist()])
    known = (gender != "")[:, None] & (gender != "")
    same = gender[:, None] == gender
    n_same = round(same_share * wanted)
    return [(known & same, n_same), (known & ~same, wanted - n_same)]


def _nontarget_pairs(
    utterances: list[np.ndarray], allowed: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Pairs of utterances of two speakers [shape=(k, 2)], spread over the allowed pairs of speakers."""
    met = rng.permutation(np.column_stack(np.nonzero(np.triu(allowed, 1))))[:wanted]
    counts = np.array([len(own) for own in utterances])
    pairs = [np.empty((0, 2), dtype=int)]
    for (first, second), share in zip(met, _spread(wanted, counts[met].prod(axis=1))):
        place, other = np.divmod(rng.choice(counts[first] * counts[second], share, replace=False), counts[second])
        pairs.append(np.column_stack([utterances[first][place], utterances[second][other]]))
    return np.concatenate(pairs)


def _spread(total: int, available: np.ndarray) -> np.ndarray:
    """
    Share out `total` as evenly as places that hold at most `available` [shape=(n,)] allow, all of it if they can.

    Examples
    --------
    >>> _spread(10, np.array([1, 9, 4])).tolist()
    [1, 5, 4]
    """
    shares, left = np.zeros(len(available), dtype=int), min(total, int(available.sum()))
    # from the smallest place on: what it cannot hold goes to the larger ones
    for rank, place in enumerate(np.argsort(available, kind="stable")):
        shares[place] = min(available[place], left // (len(available) - rank))
        left -= shares[place]
    return shares
