"""
An evaluation whose figures are known beforehand, by the real runner and the real notebook.

Each recording stands at one level, and the encoder turns a level into an angle: the cosine of a trial is that of the
difference of two angles that are written out below.
"""

import json

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from sv_utils import run
from sv_utils.base import paths
from sv_utils.evaluation import trials
from sv_utils.models import encoders
from sv_utils.speech import acquisition, limits, manifest, preparation, splits

# Angles [degrees] of each test speaker's two recordings: 2, 4, 6, 8 and 25 apart.
TEST = {"a": (-40, -38), "b": (-33, -29), "c": (0, 6), "d": (20, 28), "e": (10, 35)}
DEV = {f"v{k}": (8 * k - 20, 8 * k - 17, 8 * k - 15.5) for k in range(5)}
COHORT = {f"t{k}": (7 * k - 30, 7 * k - 28) for k in range(9)}
TARGETS = [("a", 0, "a", 1), ("b", 0, "b", 1), ("c", 0, "c", 1), ("d", 0, "d", 1), ("e", 0, "e", 1)]
NON_TARGETS = [("a", 1, "b", 0), ("a", 0, "c", 0), ("b", 1, "c", 1), ("a", 1, "d", 0), ("b", 0, "e", 0)]
APART = [2, 4, 6, 8, 25, 5, 40, 35, 58, 43]  # [degrees] of these ten trials
SAMPLES = 32_000
PROFILE = """
common: {corpora: [mini]}
01_download: {}
02_prep: {}
08_evaluate: {replicates: 20, cuts: [1], qmf_trials: 20}
09_report: {}
encoders: {known: ENCODER}
"""


def identity(speaker, number):
    return f"{speaker}/v{number}/{number}.wav"


def angular_encoder():
    """Mean level m of a waveform → the unit vector along (1, m): the angle whose tangent is the level."""
    waveform = keras.Input((None,), name="waveform")
    level = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 1))(waveform))
    point = keras.layers.Dense(2, name="embedding")
    model = keras.Model(waveform, encoders.UnitVectors(name="unit_vectors")(point(level)), name="encoder")
    point.set_weights([np.array([[0.0, 1.0]]), np.array([1.0, 0.0])])
    return model


def prepare(folder, outputs):
    """What 02_prep leaves, of recordings that each stand at the tangent of their angle."""
    rows, levels = [], []
    for split, speakers in (("train", COHORT), ("validation", DEV), ("test", TEST)):
        for speaker, angles in speakers.items():
            for number, angle in enumerate(angles):
                rows.append({"id": identity(speaker, number), "speaker": speaker, "session": f"v{number}"})
                rows[-1] |= {"split": split, "subset": "test" if split == "test" else "dev"}
                levels.append(np.tan(np.radians(angle)))
    samples = np.repeat(np.rint(32768 * np.array(levels)), SAMPLES).astype("<i2")
    samples.tofile(outputs / "levels.pcm")
    table = pd.DataFrame(rows).assign(corpus="mini", shard="levels.pcm", samples=SAMPLES, bytes=2 * SAMPLES)
    table = table.assign(offset=SAMPLES * np.arange(len(rows)), gender="", nationality="", language="")
    table = table.assign(quality="", error="")
    filler = dict.fromkeys(("rate", "channels", "peak", "clipped", "silent"), 0)
    table.assign(source_sha256="", content="", **filler).to_csv(folder / "utterances.csv", index=False)
    dev = table.loc[table["split"] == "validation", "id"]
    trials.write(folder / "validation_trials.txt", trials.make(dev, 15, 40, seed=0))
    (folder / "trials").mkdir()
    lines = [f"1 {identity(a, i)} {identity(b, j)}" for a, i, b, j in TARGETS]
    lines += [f"0 {identity(a, i)} {identity(b, j)}" for a, i, b, j in NON_TARGETS]
    (folder / "trials" / "mini.txt").write_text("\n".join(lines) + "\n")
    (folder / "session_notes.json").write_text("[]")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The folder of the evaluation that the real runner made."""
    root = tmp_path_factory.mktemp("hand")
    angular_encoder().save(root / "known.keras")
    (root / "hand.yaml").write_text(PROFILE.replace("ENCODER", str(root / "known.keras")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SV_OUTPUTS", str(root / "outputs"))
        patch.setenv("SV_PARAMS", str(root))
        (prep := paths.stage_dir("hand", "02_prep")).mkdir(parents=True)
        prepare(prep, root / "outputs")
        assert run.run_stage("08_evaluate@known", "hand")
        yield paths.stage_dir("hand", "08_evaluate@known")


def test_scores_are_the_cosines_of_the_angles_between_the_recordings(evaluated):
    table = pd.read_csv(evaluated / "scores_mini.csv")
    assert table["label"].tolist() == [1] * 5 + [0] * 5
    np.testing.assert_allclose(table["score"], np.cos(np.radians(APART)), atol=2e-5)


def test_figures_are_those_computed_by_hand(evaluated):
    """
    By the angle, from near to far: T2 T4 N5 T6 T8 T25 N35 N40 N43 N58.

    Between 8 and 25 degrees one target of five is missed and one non-target of five let in: 20 %. Before the first
    non-target, at 5 degrees, three of five targets are missed and none is let in: a cost of 0.6, and letting one in
    would cost 0.2 x 99 or 0.2 x 19 more. The convex hull goes straight from there to (0.2, 0): 15 %.
    """
    rows = {row["model"]: row for row in json.loads((evaluated / "metrics.json").read_text())}
    row = rows["known"]
    assert (row["n_target"], row["n_nontarget"], row["n_speakers"]) == (5, 5, 5)
    assert row["eer"] == pytest.approx(0.2) and row["eer_low"] <= 0.2 <= row["eer_high"]
    assert row["eer_definitions"]["rocch"] == pytest.approx(0.15)
    assert np.cos(np.radians(25)) <= row["threshold"] + 1e-4 and row["threshold"] <= np.cos(np.radians(8)) + 1e-4
    assert (row["min_dcf_001"], row["min_dcf_005"]) == (pytest.approx(0.6), pytest.approx(0.6))
    assert [(part["cut"], part["eer"]) for part in row["by_duration"]] == [
        ("1 s", pytest.approx(0.2)),
        ("full", pytest.approx(0.2)),
    ]
    worst = {(trial["trial"], trial["enrol"], trial["test"]) for trial in row["hardest"]}
    assert ("target", identity("e", 0), identity("e", 1)) in worst
    assert ("non-target", identity("a", 1), identity("b", 0)) in worst


def test_the_notebook_prints_them(evaluated):
    notebook = nbformat.read(evaluated / "08_evaluate@known.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.data.get("text/markdown", "") for output in outputs if "data" in output]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for text in texts for line in text.splitlines()]
    (summary,) = [line for line in lines if line[:3] == ["known", "pretrained", "mini"]]
    assert summary[3:5] == ["5", "10"] and summary[5].startswith("20.00 [") and summary[8:10] == ["0.600", "0.600"]
    assert ["known", "mini", "20.00", "15.00", "20.00", "20.00", "20.00"] in lines, "the definitions in circulation"


class Enough(Exception):
    """What was to be seen has been seen."""


def test_the_preparation_hands_on_its_limits_its_seed_and_its_speakers(monkeypatch):
    """Sounds for augmentation are not held to the limits of speech; own speech is split by the seed of the stage."""
    seen = {}

    def view(corpus, folder, own, test_share=0.2, split_seed=0):
        seen[corpus.name] = own, test_share, split_seed

    def utterances(views, lists, **options):
        seen["split"] = [corpus.name for corpus, _ in views], lists, options
        raise Enough

    def prepare(corpus, archives, **options):
        seen[f"prepare {corpus.name}"] = options

    monkeypatch.setattr(acquisition, "verified", lambda corpus: [])
    monkeypatch.setattr(preparation, "prepare", prepare)
    monkeypatch.setattr(splits, "required", lambda corpus, lists, missing: (corpus.name, lists, missing))
    monkeypatch.setattr(manifest, "refuse_incomplete", lambda corpus, *_: seen.setdefault("complete", corpus.name))
    monkeypatch.setattr(manifest, "counts", lambda *_: pd.DataFrame({"count": [1]}))
    monkeypatch.setattr(limits, "view", view)
    monkeypatch.setattr(splits, "utterances", utterances)
    notebook = nbformat.read(paths.NOTEBOOKS / "02_prep.ipynb", 4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    cells[0] += "\ncorpora, seed, test_share, min_seconds, max_clipped = ['mini', 'musan'], 7, 0.3, 2.0, 0.5"
    cells[0] += "\nvalidation_speakers, min_utterances, missing_trials = 5, 3, 'drop'"
    cells[0] += "\nworkers, scheduler, encoding, utterances_per_shard = 9, 'tcp://host', 'flac', 50"
    with pytest.raises(Enough):
        exec("\n".join(cells[:4]), {})
    stored = {"workers": 9, "scheduler": "tcp://host", "encoding": "flac", "utterances_per_shard": 50}
    assert seen["prepare mini"] == stored | {"required": ("mini", ["mini"], "drop")}
    assert seen["prepare musan"] == stored | {"required": ("musan", [], "drop")} and seen["complete"] == "mini"
    assert seen["mini"] == (limits.Limits(min_seconds=2.0, max_clipped=0.5), 0.3, 7)
    assert seen["musan"] == (limits.Limits(min_seconds=0.0, max_clipped=1.0, max_silent=1.0), 0.3, 7)
    options = {"train": ["mini"], "n_validation": 5, "min_utterances": 3, "seed": 7, "missing_trials": "drop"}
    assert seen["split"] == (["mini"], {"mini": ["mini"]}, options)
