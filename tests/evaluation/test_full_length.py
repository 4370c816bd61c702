"""All six lists of VoxCeleb1 at their lengths, judged with 1,000 resamples: how long, and with how much memory."""

import resource
import time

import numpy as np
import pytest

from sv_utils.evaluation import evaluate, trials
from sv_utils.evaluation.evaluate import Heard, Scorer

LISTS = {"O": (37_720, 40), "O-cleaned": (37_611, 40)}  # trials and speakers
LISTS |= {"E": (581_480, 1251), "E-cleaned": (579_818, 1251), "H": (552_536, 1190), "H-cleaned": (550_894, 1190)}
UTTERANCES, SPEAKERS, COHORT, DIMENSIONS = 145_160, 1251, 5994, 256


def heard(prefix, utterances, speakers, rng):
    speaker = np.arange(utterances) * speakers // utterances
    vectors = rng.normal(size=(speakers, DIMENSIONS)).astype("float32")[speaker]
    vectors = 0.4 * vectors + rng.normal(size=(utterances, DIMENSIONS)).astype("float32")
    names = np.array([f"{prefix}{number:05d}" for number in speaker])
    ids = np.array([f"{name}/x6uYqmx31kE/{number:05d}.wav" for number, name in enumerate(names)])
    return Heard.of(ids, names, rng.integers(64_000, 320_000, utterances), vectors)


def listed(found, count, speakers, rng):
    """Half target trials, half of any two utterances."""
    last = int(np.ceil(speakers * len(found) / SPEAKERS))
    enrol, test = rng.integers(last, size=(2, count))
    test[::2] = np.clip(enrol[::2] + rng.integers(1, 60, len(test[::2])), 0, last - 1)  # mostly of the same speaker
    labels = (found.speakers[enrol] == found.speakers[test]).astype(np.int8)
    return trials.Trials(labels, found.ids[enrol], found.ids[test])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # [GiB]


@pytest.mark.long
def test_six_lists_are_judged_in_three_minutes_and_two_gigabytes():
    rng = np.random.default_rng(0)
    under_test, train, dev = (
        heard(*size, rng) for size in (("a", UTTERANCES, SPEAKERS), ("b", 20_000, COHORT), ("c", 1500, 40))
    )
    lists = {name: listed(under_test, *size, rng) for name, size in LISTS.items()}
    before, started, rows = peak(), time.process_time(), []
    scorer = Scorer.fit("m", train, dev, dev, trials.make(dev.ids, 20_000, 20_000, 1), use_norms=True)
    places, _ = evaluate.draw_parts(lists, under_test, 20_000, 1)
    for name, item in lists.items():
        scored = scorer.score(name, item, under_test, under_test.embeddings, places[name])
        rows += scorer.judge(scored, "voxceleb", "aam", {}, seed=1, replicates=1000)
    seconds, more = time.process_time() - started, peak() - before
    print(f"{seconds:.0f} s of CPU, {more:.2f} GiB")
    assert len(rows) == 24 and all(row["eer_low"] < row["eer"] < row["eer_high"] for row in rows)
    assert seconds < 180 and more < 2
