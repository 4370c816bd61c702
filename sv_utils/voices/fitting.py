"""
Fit what `ratios` reads, on dev speakers, and measure what may be claimed of it.

What is claimed for a kind of speech comes from fits that never saw its corpus (leave one corpus out). The model is
chosen by them too.
"""

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sv_utils import corpora
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.evaluation import calibration, judging, metrics
from sv_utils.models import pretrained
from sv_utils.voices import conditions, development, ratios, turns
from sv_utils.voices.development import PHONE, Heard

CREDITED = {PHONE: f"{PHONE} (WUW corpus II)"}  # wherever figures from it are shown
NONTARGET = 2500  # trials of different voices of a corpus and a pair of channels, two thirds of one gender
WANTED = (None, 0.1, 0.05, 0.01)  # operating points: equal error, then shares of different voices accepted
QUANTILES = 200  # of ratios that are kept of each condition
REPLICATES = 200  # of the bootstrap over speakers
NEARLY = 0.005  # a model of fewer parameters is taken though its Cllr is so much higher [bit]
SAFETY = 2.0  # thresholds keep a share so much smaller than the wanted one: another corpus may be harder
DIRECTIONS = 30  # in which channels move voices, that are removed
FEWEST = 200  # trials of a kind and condition from which on it has thresholds of its own
# Channel of either side, and how much is heard: all of both (0), 2 s of the first (1), 2 s of both (2).
CELLS = (
    *((name, name, 0) for name in development.ALL),
    *(("clean", name, 0) for name in development.ALL[1:] if name not in development.OWN),
    *(("telephone", "mobile", 0), ("telephone", "opus", 0), ("telephone", "noise_10", 0)),
    *(("clean", "clean", 1), ("clean", "clean", 2), ("telephone", "telephone", 2), ("clean", "telephone", 2)),
    *(("own_telephone", "own_telephone", 1), ("own_telephone", "own_telephone", 2), ("noise_10", "noise_10", 2)),
)
HEARD = ("", ", 2 s x all", ", 2 s x 2 s")
Joined = Mapping[tuple[str, str], list[tuple[bool, np.ndarray]]]  # of each corpus and channel: `development.joined`


@dataclass(frozen=True)
class Pairs:
    """
    Trials of one kind, corpus and pair of channels.

    Attributes
    ----------
    corpus, cell, kind : str
        ``kind`` is 'one call', 'another call' (targets of `phone`), 'one session' (of the others) or 'strangers'.
    cosines, whole : np.ndarray [shape=(n,)]
        Of the speech; of the recordings as they are.
    first, second : np.ndarray [shape=(n, 6)]
        Conditions of either side.
    speakers : tuple of two np.ndarray of str [shape=(n,)]
    """

    corpus: str
    cell: str
    kind: str
    cosines: np.ndarray
    whole: np.ndarray
    first: np.ndarray
    second: np.ndarray
    speakers: tuple[np.ndarray, np.ndarray]

    @property
    def target(self) -> bool:
        """Whether one voice speaks on both sides."""
        return self.kind != "strangers"

    def __len__(self) -> int:
        return len(self.cosines)


def utterance_pairs(corpus: str, ids: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    """
    Choose which utterances of a corpus are compared.

    Parameters
    ----------
    corpus : str
    ids : sequence of str
        ``speaker/session/file``.

    Returns
    -------
    dict of str to np.ndarray of int [shape=(n, 2)]
        By kind (`Pairs`): rows of either side.

    Raises
    ------
    RequestError
        If the corpus does not tell its speakers' gender.
    """
    if corpus == PHONE:
        return _phone_pairs(ids)
    speakers, rng = np.array([name.split("/")[0] for name in ids]), np.random.default_rng(3)
    entry = corpora.get(corpus)
    if entry.data is None:
        raise RequestError(f"{corpus} has no table of its speakers' gender; calibrate with another corpus")
    with open(entry.data / f"{corpus}_meta.csv", encoding="utf-8") as rows:
        gender = {row["id"]: row["gender"] for row in csv.DictReader(rows)}
    genders = np.array([gender[speaker] for speaker in speakers])
    first, second = np.triu_indices(len(ids), 1)
    swap = rng.integers(2, size=len(first)).astype(bool)
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    same = speakers[first] == speakers[second]
    alike = rng.permutation(np.flatnonzero(~same & (genders[first] == genders[second])))[: NONTARGET * 2 // 3]
    unlike = rng.permutation(np.flatnonzero(~same & (genders[first] != genders[second])))[: NONTARGET // 3]
    chosen = {"one session": np.flatnonzero(same), "strangers": np.concatenate([alike, unlike])}
    return {kind: np.column_stack([first[row], second[row]]) for kind, row in chosen.items()}


def _phone_pairs(ids: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    row = {name: number for number, name in enumerate(ids)}
    found: dict[str, list] = {"one call": [], "another call": [], "strangers": []}
    for name, kind in (("phone_same.txt", "one call"), ("phone_cross.txt", "another call")):
        for line in (development.phone_folder() / name).read_text("utf-8").splitlines():
            label, first, second = line.split()
            if label == "1" or kind == "one call":  # both lists have the same non-target trials
                found[kind if label == "1" else "strangers"].append((row[first], row[second]))
    return {kind: np.array(pairs) for kind, pairs in found.items()}


def directions(corpora_heard: Mapping[str, Mapping[str, Heard]]) -> np.ndarray:
    """
    Find the directions in which channels move voices most.

    Parameters
    ----------
    corpora_heard : mapping of str to mapping of str to Heard
        By corpus and channel.

    Returns
    -------
    np.ndarray [shape=(30, d)], float32
        Principal directions of the differences between an utterance's embedding through a channel and as it is
        (nuisance attribute projection: Solomonoff et al., "Advances in channel compensation for SVM speaker
        recognition", 2005).
        Corpora that came by telephone have no "as it is" and are left out.
    """
    moved = [
        sent.speech - heard["clean"].speech
        for corpus, heard in corpora_heard.items()
        if corpus != PHONE
        for channel, sent in heard.items()
        if channel != "clean"
    ]
    rows = np.concatenate(moved)
    found = np.linalg.svd(rows[np.isfinite(rows[:, 0])], full_matrices=False)[2][:DIRECTIONS]
    return ratios.unpacked(ratios.packed(found))  # as they are shipped


def folds(corpora_heard: Mapping[str, Mapping[str, Heard]]) -> dict[str, list[Pairs]]:
    """
    Give, for each corpus that is held out, the trials of all corpora without the directions of the others.

    Raises
    ------
    RequestError
        If there are fewer than two corpora with channels besides one that is held out.
    """
    found = {}
    for corpus in corpora_heard:
        others = {name: heard for name, heard in corpora_heard.items() if name != corpus}
        if not set(others) - {PHONE}:
            raise RequestError(
                f"without {corpus} no corpus is left to fit on; place ocean in a folder and name the folder above in "
                "SV_MIRROR"
            )
        removed = directions(others)
        found[corpus] = [one for name, heard in corpora_heard.items() for one in pairs_of(name, heard, removed)]
    return found


def pairs_of(corpus: str, heard: Mapping[str, Heard], removed: np.ndarray) -> list[Pairs]:
    """
    Give the trials of a corpus through every pair of channels of `CELLS` that it was sent through.

    Parameters
    ----------
    corpus : str
    heard : mapping of str to Heard
        By channel.
    removed : np.ndarray [shape=(k, d)]
        As of `directions`.

    Returns
    -------
    list of Pairs
    """
    ids = heard["clean"].ids
    speakers, found = np.array([name.split("/")[0] for name in ids]), []
    for (first, second, cut), (kind, rows) in itertools.product(CELLS, utterance_pairs(corpus, ids).items()):
        if first in heard and second in heard:
            sides = heard[first], heard[second]
            embeddings = [side.cut if cut > place else side.speech for place, side in enumerate(sides)]
            measured = [side.cut_conditions if cut > place else side.conditions for place, side in enumerate(sides)]
            there = [np.isfinite(matrix[:, 0])[rows[:, place]] for place, matrix in enumerate(embeddings)]
            left, right = rows[there[0] & there[1]].T
            kept = ratios.without(embeddings[0][left], removed), ratios.without(embeddings[1][right], removed)
            cosines = np.einsum("ij,ij->i", *kept)
            whole = np.einsum("ij,ij->i", sides[0].whole[left], sides[1].whole[right])
            name = f"{first} x {second}{HEARD[cut]}"
            if cut:
                whole = np.einsum("ij,ij->i", embeddings[0][left], embeddings[1][right])
            found.append(
                Pairs(
                    *(corpus, name, kind, cosines, whole),
                    *(measured[0][left], measured[1][right], (speakers[left], speakers[right])),
                )
            )
    return [pairs for pairs in found if len(pairs)]


def fit(trials: Sequence[Pairs], model: str) -> calibration.Calibration:
    """
    Fit a model of `ratios.MODELS`; trials count as `weights_of` says.

    Returns
    -------
    calibration.Calibration
        Its ratios rise with the cosine under all conditions.

    Raises
    ------
    WorkError
        If they do not.
    """
    names = ratios.MODELS[model]
    matrix = np.concatenate([ratios.features(one.cosines, one.first, one.second, names) for one in trials])
    labels = np.concatenate([np.full(len(one), int(one.target)) for one in trials])
    fitted = calibration.fit_calibration(matrix, labels, names, weights=weights_of(trials))
    corners = np.array([[s, b, n, 0, 0, 0] for s in (0.5, 9) for b in (3000.0, 8000.0) for n in (0.0, 50.0)])
    for first, second in itertools.product(corners, corners):
        sides = np.stack([first] * 2), np.stack([second] * 2)
        low, high = fitted(ratios.features(np.array([0.0, 1.0]), *sides, names))
        if low >= high:
            raise WorkError(f"the ratios of {model} fall as the cosine rises; fit it on more trials")
    return fitted


def weights_of(trials: Sequence[Pairs]) -> np.ndarray:
    """
    How much each trial counts [shape=(all trials,)].

    Speakers count alike, so a corpus as much as it has of them; in each corpus its pairs of channels and kinds do.
    """
    cells: dict[tuple, int] = {}
    speakers: dict[str, set] = {}
    for one in trials:
        cells[one.corpus, one.target] = cells.get((one.corpus, one.target), 0) + 1
        speakers.setdefault(one.corpus, set()).update(*one.speakers)
    shares = [len(speakers[one.corpus]) / cells[one.corpus, one.target] / len(one) for one in trials]
    return np.repeat(shares, [len(one) for one in trials])


def thresholds(trials: Sequence[Pairs], found: Sequence[np.ndarray]) -> dict[str, dict[float | None, float]]:
    """
    Choose thresholds of log-likelihood ratios.

    Parameters
    ----------
    trials : sequence of Pairs
    found : sequence of np.ndarray
        Their ratios.

    Returns
    -------
    dict of str to dict
        By condition, and by wanted share of different voices accepted: the lowest threshold that keeps half of it in
        each corpus and pair of channels that have the condition, for who hands in two MP3 files is not helped by what
        holds on an average of channels; of equal error: where the errors of all trials meet.
    """
    values = np.concatenate(found)
    names = np.concatenate([ratios.names_of(one.first, one.second) for one in trials])
    target = np.concatenate([np.full(len(one), one.target) for one in trials])
    cell = np.concatenate([np.full(len(one), f"{one.corpus} {one.cell}") for one in trials])
    chosen: dict[str, dict[float | None, float]] = {}
    for condition in all_conditions():
        inside, _ = _enough(names, target, condition)
        chosen[condition] = {None: metrics.eer(values[inside & target], values[inside & ~target])[1]}
        for wanted in WANTED[1:]:
            each = [values[inside & ~target & (cell == name)] for name in np.unique(cell[inside])]
            each = [one for one in each if len(one) >= FEWEST] or [values[inside & ~target]]
            chosen[condition][wanted] = max(
                float(np.quantile(one, 1 - wanted / SAFETY, method="higher")) for one in each
            )
    return chosen


def all_conditions() -> list[str]:
    """Every condition that `ratios.name_of` can name."""
    return [f"{band}{weak}" for band in ratios.BANDS for weak in ("", ", short", ", noisy")]


def _enough(names: np.ndarray, target: np.ndarray, condition: str) -> tuple[np.ndarray, str]:
    """Trials of a condition, and its name; where they are too few, those of its band, or of all."""
    for name, inside in ((condition, names == condition), (condition.split(",")[0], None)):
        inside = np.char.startswith(names, name + ",") | (names == name) if inside is None else inside
        if min(np.count_nonzero(inside & target), np.count_nonzero(inside & ~target)) >= FEWEST:
            return inside, name
    return np.ones(len(names), bool), "all"


def held_out(parted: Mapping[str, Sequence[Pairs]], model: str) -> tuple[list[Pairs], list[np.ndarray], list[dict]]:
    """
    Judge each corpus by a fit on the others.

    Parameters
    ----------
    parted : mapping of str to sequence of Pairs
        As of `folds`.
    model : str
        Of `ratios.MODELS`.

    Returns
    -------
    trials : list of Pairs
        Of each corpus those of its own fold.
    found : list of np.ndarray
        Their log-likelihood ratios.
    limits : list of dict
        For each of them, the thresholds by wanted share: wanted to np.ndarray [shape=(n,)].
    """
    trials: list[Pairs] = []
    found: list[np.ndarray] = []
    limits: list[dict] = []
    for corpus, everything in parted.items():
        others = [one for one in everything if one.corpus != corpus]
        fitted = fit(others, model)
        chosen = thresholds(others, [_ratios(one, fitted) for one in others])
        for one in everything:
            if one.corpus == corpus:
                trials.append(one)
                found.append(_ratios(one, fitted))
                names = ratios.names_of(one.first, one.second)
                limits.append({w: np.array([chosen[name][w] for name in names]) for w in WANTED})
    return trials, found, limits


def _ratios(one: Pairs, fitted: calibration.Calibration) -> np.ndarray:
    return fitted(ratios.features(one.cosines, one.first, one.second, fitted.features))


def table(trials: Sequence[Pairs], found: Sequence[np.ndarray], limits: Sequence[dict], card: Mapping) -> list[dict]:
    """
    Set beside each other, for every corpus and pair of channels, the way before conditions were heard and a new one.

    Parameters
    ----------
    trials, found, limits
        As of `held_out`.
    card : mapping
        Of the encoder (`pretrained.card`), with the one calibration and the thresholds of before.

    Returns
    -------
    list of dict
        ``corpus, cell, kind, target, nontarget`` (numbers of trials), ``eer``, and under ``before`` and ``now``:
        ``cllr, cllr_min`` [bit], ``accepted`` and ``missed``, each [at equal error, at claimed 5 %, at claimed 1 %].
    """
    old = {point["wanted"]: point["threshold"] for point in card["operating_points"]}
    (slope,), offset = card["calibration"]["weights"], card["calibration"]["offset"]
    strangers = {(one.corpus, one.cell): place for place, one in enumerate(trials) if not one.target}
    rows = []
    for place, one in enumerate(trials):
        if one.target and (one.corpus, one.cell) in strangers:
            other = strangers[one.corpus, one.cell]
            whole = one.whole, trials[other].whole
            before: dict[str, Any] = _figures(*(slope * side + offset for side in whole))
            before |= _errors(whole, [[old[wanted]] * 2 for wanted in (None, 0.05, 0.01)])
            now: dict[str, Any] = _figures(found[place], found[other])
            cuts = [[limits[place][wanted], limits[other][wanted]] for wanted in (None, 0.05, 0.01)]
            now |= _errors((found[place], found[other]), cuts)
            counts = {"target": len(one), "nontarget": len(trials[other])}
            row = {"corpus": one.corpus, "cell": one.cell, "kind": one.kind, **counts}
            rows.append(row | {"eer": metrics.eer(one.cosines, trials[other].cosines)[0], "before": before, "now": now})
    return rows


def _figures(target: np.ndarray, nontarget: np.ndarray) -> dict[str, float]:
    return {"cllr": metrics.cllr(target, nontarget), "cllr_min": metrics.cllr_min(target, nontarget)}


def _errors(scores: Sequence[np.ndarray], cuts: Sequence[Sequence]) -> dict[str, list[float]]:
    accepted = [float(np.mean(scores[1] >= cut[1])) for cut in cuts]
    return {"accepted": accepted, "missed": [float(np.mean(scores[0] < cut[0])) for cut in cuts]}


def choose(parted: Mapping[str, Sequence[Pairs]], card: Mapping) -> tuple[str, dict[str, float], dict[str, list[dict]]]:
    """
    Choose the model by its mean Cllr over held-out corpora and pairs of channels: the simplest that is nearly the best.

    Returns
    -------
    model : str
    cllr : dict of str to float
        By model, that mean [bit].
    tables : dict of str to list of dict
        By model, as of `table`.
    """
    tables = {model: table(*held_out(parted, model), card) for model in ratios.MODELS}
    cllr = {model: float(np.mean([row["now"]["cllr"] for row in rows])) for model, rows in tables.items()}
    best = min(cllr.values())
    return next(model for model, value in cllr.items() if value <= best + NEARLY), cllr, tables


def measured(trials: Sequence[Pairs], parted: Mapping[str, Sequence[Pairs]], model: str) -> dict[str, dict]:
    """
    Give what `ratios.Ratios` holds of each condition.

    Thresholds come from all corpora; the error rates that are claimed at them come from `held_out`.

    Returns
    -------
    dict of str to dict
        See `ratios.Ratios.conditions`.
    """
    fitted = fit(trials, model)
    chosen = thresholds(trials, [_ratios(one, fitted) for one in trials])
    columns = _Columns.of(*held_out(parted, model))
    content = {}
    for condition in all_conditions():
        inside, source = _enough(columns.names, columns.target, condition)
        points = [
            {"name": "equal error" if wanted is None else f"false accepts {wanted:.1%}", "wanted": wanted}
            | {"threshold": chosen[condition][wanted], "threshold_from": "dev speakers under this condition"}
            | columns.claims(inside, wanted, source)
            for wanted in WANTED
        ]
        content[condition] = {"points": points, **columns.spread(inside)}
    return content


@dataclass(frozen=True)
class _Columns:
    """All trials below each other, with their ratios from fits that never saw their corpus."""

    names: np.ndarray
    target: np.ndarray
    lists: np.ndarray
    kinds: np.ndarray
    cosines: np.ndarray
    values: np.ndarray
    limits: dict[float | None, np.ndarray]
    speakers: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, trials: Sequence[Pairs], found: Sequence[np.ndarray], limits: Sequence[dict]) -> "_Columns":
        def below(value: Any) -> Any:
            return np.concatenate([value(one) for one in trials])

        speakers = tuple(
            below(lambda one, side=side: np.char.add(f"{one.corpus} ", one.speakers[side])) for side in (0, 1)
        )
        return cls(
            names=below(lambda one: ratios.names_of(one.first, one.second)),
            target=below(lambda one: np.full(len(one), one.target)),
            lists=below(lambda one: np.full(len(one), one.corpus)),
            kinds=below(lambda one: np.full(len(one), one.kind)),
            cosines=below(lambda one: one.cosines),
            values=np.concatenate(found),
            limits={wanted: np.concatenate([one[wanted] for one in limits]) for wanted in WANTED},
            speakers=speakers,
        )

    def claims(self, inside: np.ndarray, wanted: float | None, source: str) -> dict:
        """Error rates at an operating point, of all lists together and of each."""
        lists = {f"dev speakers of {corpus}": self.lists == corpus for corpus in np.unique(self.lists[inside])}
        told = [self._rates(inside & rows, wanted, name) for name, rows in lists.items()]
        if PHONE in self.lists[inside]:
            other = (self.lists == PHONE) & ((self.kinds == "another call") | ~self.target)
            told = [row for row in told if row and not row["list"].endswith(PHONE)]
            one = (self.lists == PHONE) & (self.kinds != "another call")
            for name, rows in (("one call", one), ("another call", other)):
                told.append(self._rates(inside & rows, wanted, f"dev speakers of {CREDITED[PHONE]}, {name}"))
        names = ", ".join(CREDITED.get(corpus, corpus) for corpus in np.unique(self.lists[inside]))
        everything = self._rates(inside, wanted, f"dev speakers of {names}, each held out of the fit")
        enough = [row for row in told if row and min(row["n_target"], row["n_nontarget"]) >= FEWEST // 2]
        return everything | {"measured_under": source, "by_list": enough}

    def _rates(self, rows: np.ndarray, wanted: float | None, name: str) -> dict:
        target, accepted = self.target[rows], (self.values >= self.limits[wanted])[rows]
        if not target.any() or target.all():
            return {}
        speakers = [side[rows] for side in self.speakers]
        count = len(np.unique(np.concatenate(speakers)))
        counts = {"n_speakers": count, "n_target": int(target.sum()), "n_nontarget": int((~target).sum())}
        rates = judging.rates_with_intervals(accepted, target.astype(int), speakers, 0, REPLICATES)
        return {"list": name, **counts, **rates}

    def spread(self, inside: np.ndarray) -> dict:
        """What can be told at most of a condition, and where its ratios and cosines lie."""
        count = len(np.unique(np.concatenate([side[inside] for side in self.speakers])))
        steps = np.linspace(0, 1, QUANTILES)
        kinds = {"target": inside & self.target, "nontarget": inside & ~self.target}
        found = {kind: np.quantile(self.values[rows], steps).round(3).tolist() for kind, rows in kinds.items()}
        ends = [float(self.cosines[inside].min()), float(self.cosines[inside].max())]
        return {"lowest": -float(np.log(count)), "highest": float(np.log(count)), **found, "cosines": ends}


def ranges(trials: Sequence[Pairs]) -> dict[str, list[float]]:
    """Fields of `Conditions` within which nearly all dev speech lies; more speech or less noise is never outside."""
    rows = np.concatenate([side for one in trials for side in (one.first, one.second)])
    low, high = np.quantile(rows, [0.001, 0.999], axis=0)
    fields = list(conditions.Conditions.__dataclass_fields__)
    found = {field: [float(low[place]), float(high[place])] for place, field in enumerate(fields)}
    for field in ("speech_seconds", "bandwidth", "noise"):
        found[field][1] = 1e9
    for field in ("clipped", "holes", "decay"):
        found[field][0] = 0.0
    return found


def second_voices(joined: Joined, corpora_heard: Mapping[str, Mapping[str, Heard]]) -> list[dict]:
    """
    Count in which recordings a second voice is told, without the directions of the other corpora.

    Parameters
    ----------
    joined : mapping of (str, str) to list
        Of each corpus and channel, as of `development.joined`.
    corpora_heard : mapping of str to mapping of str to Heard
        By corpus and channel.

    Returns
    -------
    list of dict
        ``corpus``, ``channel``; ``two`` and ``one``, the numbers of recordings of two voices and of one; ``found`` and
        ``warned``, in how many of these a second voice was told.
    """
    rows = []
    for (corpus, channel), recordings in joined.items():
        removed = directions({name: heard for name, heard in corpora_heard.items() if name != corpus})
        told = [(two, turns.told(windows, removed) is not None) for two, windows in recordings]
        counts = {"two": sum(two for two, _ in told), "found": sum(two and said for two, said in told)}
        counts |= {"one": len(told) - counts["two"], "warned": sum(said and not two for two, said in told)}
        rows.append({"corpus": corpus, "channel": channel} | counts)
    return rows


def content(model: str, corpora_heard: Mapping[str, Mapping[str, Heard]], joined: Joined) -> dict:
    """
    Choose, fit and measure: what goes into ``<model>_conditions.json``.

    Parameters
    ----------
    model : str
        The encoder.
    corpora_heard : mapping of str to mapping of str to Heard
        By corpus and channel.
    joined : mapping of (str, str) to list
        As of `second_voices`.

    Returns
    -------
    dict

    Raises
    ------
    RequestError
        As of `folds`.
    """
    parted = folds(corpora_heard)
    chosen, cllr, tables = choose(parted, pretrained.card(model))
    removed = directions(corpora_heard)
    trials = [one for corpus, heard in corpora_heard.items() for one in pairs_of(corpus, heard, removed)]
    fitted = fit(trials, chosen)
    return {
        "model": model,
        "corpora": sorted(corpora_heard),
        "features": list(fitted.features),
        "weights": list(fitted.weights),
        "offset": fitted.offset,
        "chosen": {"model": chosen, "held_out_cllr": cllr},
        "ranges": ranges(trials),
        "directions": ratios.packed(removed),
        "conditions": measured(trials, parted, chosen),
        "table": tables[chosen],
        "second_voices": second_voices(joined, corpora_heard),
    }
