"""Judging at VoxCeleb1-E's size, and score normalisation."""

import tracemalloc

import numpy as np
import pandas as pd

from sv_utils.bench import timing
from sv_utils.evaluation import intervals, metrics, scoring
from sv_utils.evaluation.normalisation import cohort_statistics

# The size of VoxCeleb1-E with embeddings of 512 dimensions.
UTTERANCES, TRIALS, DIMENSIONS, SPEAKERS, COHORT = 145_160, 581_480, 512, 1251, 5994


def generate(seed: int = 0) -> tuple[np.ndarray, ...]:
    """
    Embeddings and trials of VoxCeleb1-E's size; speakers differ as much as makes an EER of a few percent.

    Returns
    -------
    embeddings : np.ndarray [shape=(145160, 512)], float32
    speakers : np.ndarray [shape=(145160,)]
    enrol_rows, test_rows : np.ndarray [shape=(581480,)]
        Half target, half non-target trials.
    """
    rng = np.random.default_rng(seed)
    speakers = np.sort(rng.integers(SPEAKERS, size=UTTERANCES))
    centres = rng.normal(size=(SPEAKERS, DIMENSIONS)).astype(np.float32)
    embeddings = 0.4 * centres[speakers] + rng.normal(size=(UTTERANCES, DIMENSIONS)).astype(np.float32)
    enrol_rows, test_rows = rng.integers(UTTERANCES, size=(2, TRIALS))
    first = np.searchsorted(speakers, speakers[enrol_rows[: TRIALS // 2]])
    count = np.bincount(speakers, minlength=SPEAKERS)[speakers[enrol_rows[: TRIALS // 2]]]
    test_rows[: TRIALS // 2] = first + rng.integers(count)
    return embeddings, speakers, enrol_rows, test_rows


def _judge(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """From embeddings to scores, EER with threshold, both minDCF and the DET curve."""
    scores = scoring.cosine(embeddings, enrol_rows, test_rows)
    target, nontarget = scores[labels], scores[~labels]
    metrics.eer(target, nontarget)
    for p_target in (0.01, 0.05):
        metrics.min_dcf(target, nontarget, p_target)
    metrics.det(target, nontarget)
    return scores


def _original_scores(embeddings: np.ndarray, enrol_rows: np.ndarray, test_rows: np.ndarray) -> pd.DataFrame:
    """Cosines as the original system has them: a table of trials, gone through row by row."""
    table = pd.DataFrame({"enrol": enrol_rows, "test": test_rows})

    def cosine(row: pd.Series) -> float:
        one, other = embeddings[row["enrol"]], embeddings[row["test"]]
        return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))

    return table.assign(score=table.apply(cosine, axis=1))


def _original_sweep(table: pd.DataFrame, thresholds: np.ndarray) -> None:
    """False acceptance and rejection by selecting the wrong rows of the table for each threshold."""
    for threshold in thresholds:
        _ = len(table[(table["label"] == 0) & (table["score"] >= threshold)])
        _ = len(table[(table["label"] == 1) & (table["score"] < threshold)])


def judging() -> list[dict]:
    """
    Judge VoxCeleb1-E's 581,480 trials here and in the original system's way.

    The latter is what is told of it (a table gone through row by row, then 20,000 thresholds with pandas), not its
    code; a part is run and extrapolated.
    """
    embeddings, speakers, enrol_rows, test_rows = generate()
    labels = speakers[enrol_rows] == speakers[test_rows]
    scores = _judge(embeddings, enrol_rows, test_rows, labels)
    ours = timing.seconds(lambda: _judge(embeddings, enrol_rows, test_rows, labels))
    part, sweeps = 5000, 50
    by_row = (
        timing.seconds(lambda: _original_scores(embeddings, enrol_rows[:part], test_rows[:part]), 1) * TRIALS / part
    )
    table = pd.DataFrame({"score": scores, "label": labels.astype(int)})
    sweep = timing.seconds(lambda: _original_sweep(table, np.linspace(-1, 1, sweeps)), 1) * 20_000 / sweeps
    bootstrap = timing.seconds(
        lambda: intervals.speaker_bootstrap(scores, labels, speakers[enrol_rows], speakers[test_rows], 1000), 1
    )
    return [
        timing.row(
            f"scores, EER, minDCF, DET of {TRIALS:,} trials",
            ours,
            f"row by row and 20,000 thresholds (extrapolated from {part:,} rows, {sweeps} thresholds)",
            by_row + sweep,
        ),
        timing.row("1,000 speaker-bootstrap replicates", bootstrap),
    ]


def normalisation() -> list[dict]:
    """AS-norm statistics of VoxCeleb1-E's embeddings beside the bare matrix product, and their memory."""
    embeddings = generate()[0]
    cohort = np.random.default_rng(1).normal(size=(COHORT, DIMENSIONS)).astype(np.float32)
    unit, transposed, block = scoring.normalise(embeddings), np.ascontiguousarray(scoring.normalise(cohort).T), 1000

    def product() -> None:
        for start in range(0, UTTERANCES, block):
            _ = unit[start : start + block] @ transposed

    tracemalloc.start()
    cohort_statistics(embeddings[:20_000], cohort)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    ours = timing.seconds(lambda: cohort_statistics(embeddings, cohort), 1)
    what = f"AS-norm of {UTTERANCES:,} x {COHORT:,}, top 300, peak {peak:.0f} MiB beyond the embeddings"
    return [timing.row(what, ours, "the matrix product alone", timing.seconds(product, 1))]
