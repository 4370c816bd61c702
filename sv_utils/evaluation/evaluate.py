"""
Judge an encoder on trial lists: from what it heard to the rows of ``metrics.json``.

Cohort, calibrations and thresholds come from training and dev speakers (`Scorer.fit`), who are no part of the lists
that are scored afterwards (`Scorer.score`). Everything here is numpy; who embeds the speech does not matter.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from sv_utils.base.errors import RequestError
from sv_utils.evaluation import groups, judging, scoring, trials
from sv_utils.evaluation.calibration import Calibration, fit_calibration, quality_features
from sv_utils.evaluation.normalisation import Cohort, Placed
from sv_utils.evaluation.resampling import Resamples
from sv_utils.evaluation.systems import AS_NORM, COSINE, QMF, SCORINGS, Scoring, System
from sv_utils.evaluation.trials import Trials

SAMPLE_RATE = 16_000  # [Hz]
Sides = tuple[np.ndarray, np.ndarray]  # of the enrol and the test side of n trials [shape=(n,)]


@dataclass(frozen=True, eq=False)
class Heard:
    """
    Utterances as an encoder heard them.

    Attributes
    ----------
    ids, speakers : np.ndarray of str [shape=(m,)]
    samples : np.ndarray of int [shape=(m,)]
        How much of each was heard, at 16 kHz.
    embeddings : np.ndarray [shape=(m, d)]
        Of unit length.
    norms : np.ndarray [shape=(m,)]
        Lengths that the embeddings had before, a measure of quality.
    """

    ids: np.ndarray
    speakers: np.ndarray
    samples: np.ndarray
    embeddings: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(
        cls,
        ids: Sequence[str] | np.ndarray,
        speakers: Sequence[str] | np.ndarray,
        samples: np.ndarray,
        vectors: np.ndarray,
    ) -> "Heard":
        """
        Part embeddings of any length [shape=(m, d)] into direction and length.

        Raises
        ------
        RequestError
            If the arguments are not equally long, or an embedding is zero or not finite.
        """
        counts = [len(ids), len(speakers), len(samples), len(vectors)]
        if len(set(counts)) > 1:
            raise RequestError(f"ids, speakers, lengths and embeddings are {counts} in number; give one each.")
        embeddings, norms = scoring.normalise(vectors), np.linalg.norm(vectors, axis=1)
        return cls(np.asarray(ids), np.asarray(speakers), np.asarray(samples), embeddings, norms)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seconds(self) -> np.ndarray:
        """How much of each utterance was heard [s]."""
        return self.samples / SAMPLE_RATE

    def followed_by(self, other: "Heard") -> "Heard":
        """Join two: row `i` of `other` becomes row ``len(self) + i``."""
        return Heard(*(np.concatenate([getattr(part, name) for part in (self, other)]) for name in vars(self)))


@dataclass(frozen=True, eq=False)
class Scored:
    """
    A trial list, scored in every way.

    Attributes
    ----------
    name : str
        Of the list.
    trials : Trials
    sides : two np.ndarray of int [shape=(n,)]
        Rows of the utterances of the enrol and the test side.
    speakers : two np.ndarray of str [shape=(n,)]
    scores, ratios : dict of System to np.ndarray [shape=(n,)]
        Scores, and log-likelihood ratios of the systems that are calibrated. Of the untrained encoder there are
        scores of the `part` alone.
    part : np.ndarray of int [shape=(k,)]
        Places of the trials that the untrained encoder and altered speech are measured on; see `draw_parts`.
    """

    name: str
    trials: Trials
    sides: Sides
    speakers: Sides
    scores: dict[System, np.ndarray]
    ratios: dict[System, np.ndarray]
    part: np.ndarray

    def trials_of(self, system: System) -> np.ndarray | slice:
        """Places of the trials that the scores of a system are of."""
        return slice(None) if system.trained else self.part

    @property
    def plain(self) -> System:
        """The model itself, trained and scored by cosines."""
        return next(system for system in self.scores if system.trained and system.scoring == COSINE)

    def by_kind(self, values: Mapping[System, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Part `scores` or `ratios` into target and non-target trials, under the names of the systems."""
        same = {system: self.trials.known_labels[self.trials_of(system)] == 1 for system in values}
        return {system.name: (array[same[system]], array[~same[system]]) for system, array in values.items()}

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of ``scores_<list>.csv``: ``label, enrol, test``, then scores and ratios of each way to score."""
        table = {"label": self.trials.known_labels, "enrol": self.trials.enrol, "test": self.trials.test}
        for system, ratios in self.ratios.items():
            if system.scoring.score_column:
                table[system.scoring.score_column] = self.scores[system]
            table[system.scoring.ratio_column] = ratios
        return table


@dataclass(frozen=True, eq=False)
class Scorer:
    """
    All ways to score trials with one encoder, fitted on training and dev speakers alone.

    Attributes
    ----------
    model : str
        Name of the encoder.
    cohort : Cohort
        Training speakers for AS-norm.
    use_norms : bool
        Whether the lengths of the embeddings are a measure of quality (an encoder of unit vectors has none).
    calibrations : dict of Scoring to Calibration
    dev : tuple of two np.ndarray
        Cosines and labels of the trials between dev speakers, on which thresholds are chosen.
    placed : mapping of Heard to Placed
        What the cohort says of utterances, as long as they are kept: several lists name the same ones.
    """

    model: str
    cohort: Cohort
    use_norms: bool
    calibrations: dict[Scoring, Calibration] = field(default_factory=dict)
    dev: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
    placed: MutableMapping[Heard, Placed] = field(default_factory=WeakKeyDictionary, repr=False)

    @classmethod
    def fit(
        cls,
        model: str,
        train: Heard,
        dev: Heard,
        short: Heard,
        dev_trials: Trials,
        *,
        use_norms: bool,
        top_k: int = 300,
        qmf_trials: int = 30_000,
        seed: int = 0,
    ) -> "Scorer":
        """
        Fit cohort and calibrations.

        Parameters
        ----------
        model : str
        train : Heard
            Training speakers, for the cohort.
        dev, short : Heard
            The same utterances of dev speakers, in the same order: whole, and cut short.
        dev_trials : Trials
            Between utterances of `dev`.
        use_norms, top_k, qmf_trials, seed
            See `Scorer`, `Cohort` and `mixed_trials`.
        """
        bare = cls(model, Cohort.of(train.embeddings, train.speakers, top_k), use_norms)
        whole = bare.features(dev, trials.rows(dev_trials, dev.ids))
        labels, sides = mixed_trials(dev.ids, qmf_trials, seed)
        mixed = bare.features(dev.followed_by(short), sides)
        fitted = {}
        for way in SCORINGS:
            (values, names), known = (mixed[way], labels) if way.by_quality else (whole[way], dev_trials.known_labels)
            fitted[way] = fit_calibration(values, known, names)
        return cls(model, bare.cohort, use_norms, fitted, (whole[COSINE][0], dev_trials.known_labels))

    def features(self, heard: Heard, sides: Sides) -> dict[Scoring, tuple[np.ndarray, tuple[str, ...]]]:
        """
        Give what the calibration of each way to score takes: a score, or a score and measures of quality.

        Returns
        -------
        dict
            Scoring to values [shape=(n,) or (n, number of features)] and their names.
        """
        if heard not in self.placed:
            self.placed[heard] = self.cohort.place(heard.embeddings)
        as_norm, nearness = self.cohort.as_norm(self.placed[heard], *sides)
        qualities = {"cohort_mean": nearness} | ({"norm": heard.norms} if self.use_norms else {})
        return {
            COSINE: (scoring.cosine(heard.embeddings, *sides), ("cosine",)),
            AS_NORM: (as_norm, ("as_norm",)),
            QMF: quality_features(as_norm, *sides, heard.seconds, "as_norm", **qualities),
        }

    def score(
        self,
        name: str,
        listed: Trials,
        heard: Heard,
        untrained: np.ndarray | None = None,
        part: np.ndarray | None = None,
    ) -> Scored:
        """
        Score a trial list.

        Parameters
        ----------
        name : str
            Of the list.
        listed : Trials
        heard : Heard
            The utterances that it names.
        untrained : np.ndarray [shape=(m, d)], optional
            Embeddings of the same utterances by the encoder as it was before training; those that the `part` names
            count.
        part : np.ndarray of int [shape=(k,)], optional
            Places of the trials that it is measured on; by default all.
        """
        part = np.arange(len(listed)) if part is None else part
        sides = trials.rows(listed, heard.ids)
        scores, ratios = {}, {}
        for way, (values, _) in self.features(heard, sides).items():
            system = System(self.model, way)
            ratios[system] = self.calibrations[way](values)
            scores[system] = values if way.score_column else ratios[system]
        if untrained is not None:
            scores[System(self.model, trained=False)] = scoring.cosine(untrained, *(side[part] for side in sides))
        return Scored(name, listed, sides, (heard.speakers[sides[0]], heard.speakers[sides[1]]), scores, ratios, part)

    def judge(
        self, scored: Scored, profile: str, loss: str, made: Mapping, seed: int = 0, replicates: int = 1000
    ) -> list[dict]:
        """
        Work out the rows of ``metrics.json`` of one list.

        Parameters
        ----------
        scored : Scored
        profile, loss : str
            Of the model; an untrained encoder has the loss ``none``.
        made : mapping
            What is said in each row of how it was made: ``seconds``, ``key``, ``encoder``.
        seed, replicates : int
            Of the resampled speakers.

        Returns
        -------
        list of dict
            A row a system, with all figures of `judging.judge`; that of `Scored.plain` also has ``operating_points``,
            whose thresholds are chosen on the dev trials.
        """
        rows, drawn = [], Resamples.draw(*scored.speakers, replicates, seed)
        for system, scores in scored.scores.items():
            places = scored.trials_of(system)
            labels, speakers = scored.trials.known_labels[places], [side[places] for side in scored.speakers]
            whole = len(labels) == len(scored.trials)
            resamples = drawn if whole else Resamples.draw(speakers[0], speakers[1], replicates, seed)
            head = {"profile": profile, "model": system.name, "loss": loss if system.trained else "none"}
            ratios = scored.ratios.get(system)
            figures = judging.judge(scores, labels, ratios, resamples)
            rows.append(head | {"list": scored.name, "system": system.record} | figures | dict(made))
            if system == scored.plain:
                origin = {"threshold_from": "dev speakers", "list": scored.name}
                points = judging.decision_points(self.dev, scores, labels, speakers, origin, resamples=resamples)
                rows[-1]["operating_points"] = points
        return rows

    def at_condition(
        self, scored: Scored, name: str, heard: Heard, whole: np.ndarray, rows: np.ndarray | slice = slice(None)
    ) -> dict:
        """
        Judge the part of the list again with changed utterances, at the threshold of the unchanged dev trials.

        Parameters
        ----------
        scored : Scored
        name : str
            Of the condition.
        heard : Heard
            The utterances of the list, changed, in the same order.
        whole : np.ndarray of int [shape=(m,)]
            Their lengths before [samples].
        rows : np.ndarray of int [shape=(k,)], optional
            The utterances that were changed; by default all.

        Returns
        -------
        dict
            ``cut`` (the name), ``n_trials``, ``mean_seconds`` heard, ``shortened`` (share of the utterances that are
            shorter than before), ``eer, p_fa, p_miss`` at a log-likelihood ratio of 0.
        """
        sides = [side[scored.part] for side in scored.sides]
        ratios = self.calibrations[COSINE](scoring.cosine(heard.embeddings, *sides))
        samples, shortened = heard.samples[rows], heard.samples[rows] < whole[rows]
        had = {
            "cut": name,
            "n_trials": len(scored.part),
            "mean_seconds": float(samples.mean() / SAMPLE_RATE),
            "shortened": float(shortened.mean()),
        }
        return had | judging.at_threshold(ratios, scored.trials.known_labels[scored.part])


def mixed_trials(ids: Sequence[str] | np.ndarray, count: int, seed: int) -> tuple[np.ndarray, Sides]:
    """
    Draw trials whose sides are whole or short by chance, to teach a calibration what short speech is worth.

    Parameters
    ----------
    ids : sequence of str [shape=(m,)]
        Of the utterances, which exist whole (rows 0 to ``m - 1``) and short (rows `m` to ``2 m - 1``).
    count : int
        Wanted trials, half of them target trials.
    seed : int

    Returns
    -------
    labels : np.ndarray [shape=(n,)]
    sides : two np.ndarray of int [shape=(n,)]
        Rows of the enrol and the test side.
    """
    drawn, version = trials.make(ids, count // 2, count // 2, seed), np.random.default_rng(seed)
    enrol, test = (side + len(ids) * version.integers(2, size=len(side)) for side in trials.rows(drawn, ids))
    return drawn.known_labels, (enrol, test)


def draw_parts(
    lists: Mapping[str, Trials], heard: Heard, utterances: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """
    Draw the part of each list that is measured where each measurement embeds anew: untrained, cut, over a telephone.

    Speakers are drawn in one random order for all lists, so that the parts of lists which share speakers share
    utterances. A list's part is all its trials between the first speakers who bring at most so many utterances: all of
    a list that names no more.

    Parameters
    ----------
    lists : mapping of str to Trials
    heard : Heard
        The utterances that they name.
    utterances : int
        Wanted of a list, at most; more where its first speakers have trials of one kind only.
    seed : int

    Returns
    -------
    places : dict of str to np.ndarray of int
        Of the trials of each list.
    rows : np.ndarray of int
        Utterances that these name, sorted; all there are where every list is measured in full.
    """
    names, speaker = np.unique(heard.speakers, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))[speaker]
    places, used = {}, []
    for name, listed in lists.items():
        sides = trials.rows(listed, heard.ids)
        named = np.unique(np.concatenate(sides))
        last = np.maximum(*(rank[side] for side in sides))
        allowed = len(names)
        if len(named) > utterances:
            allowed = int(np.searchsorted(np.cumsum(np.bincount(rank[named])), utterances, side="right"))
            allowed = max(allowed, *(last[listed.known_labels == kind].min(initial=len(names)) + 1 for kind in (0, 1)))
        places[name] = np.flatnonzero(last < allowed)
        used.append(np.unique(np.concatenate([side[places[name]] for side in sides])))
    whole = all(len(places[name]) == len(listed) for name, listed in lists.items())
    return places, np.arange(len(heard)) if whole else np.unique(np.concatenate(used))


def by_known(scored: Scored, known: Mapping[str, np.ndarray]) -> list[dict]:
    """Break the errors of the model itself down by what is known of its speakers; see `groups.by_known`."""
    return groups.by_known(
        scored.ratios[scored.plain], scored.trials.known_labels, scored.sides, scored.speakers, known
    )


def hardest(scored: Scored, count: int) -> list[dict]:
    """
    List the trials that the model itself gets most wrong.

    Returns
    -------
    list of dict
        ``trial`` (target or non-target), ``enrol``, ``test``, ``cosine``, ``llr``; the lowest target trials first, then
        the highest non-target trials, at most `count` of each.
    """
    listed, system = scored.trials, scored.plain
    return [
        {
            "trial": "target" if listed.known_labels[place] == 1 else "non-target",
            "enrol": str(listed.enrol[place]),
            "test": str(listed.test[place]),
            "cosine": float(scored.scores[system][place]),
            "llr": float(scored.ratios[system][place]),
        }
        for place in groups.hardest(scored.ratios[system], listed.known_labels, count)
    ]
