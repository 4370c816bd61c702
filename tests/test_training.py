"""Training: resume at the step after SIGKILL, selection by validation EER, averages, health, devices."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pandas as pd
import pytest

from sv_utils import augment, checkpoints, encoder, schedules, training, trials
from sv_utils.errors import RequestError, WorkError
from sv_utils.losses.cosface import CosFaceHead

STAGE = {
    "epochs": 2,
    "steps_per_epoch": 3,
    "crop_seconds": 0.5,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-3,
    "clip_norm": 0.0,
    "schedule": "plateau",
    "final_learning_rate": 0.0,
    "warmup_epochs": 0.0,
    "plateau_factor": 0.5,
    "plateau_patience": 1,
    "margin": 0.2,
    "margin_start_epoch": 0,
    "margin_end_epoch": 1,
    "margin_growth": "exponential",
    "frozen": "none",
    "ema": 0.0,
    "average_last": 0,
    "accumulate": 1,
    "speeds": [1.0, 0.9],
    "augmentation": augment.OFF | {"noise": 0.5, "telephone": 0.5},
}
STAGES = [
    STAGE,
    STAGE
    | {"optimizer": "adamw", "learning_rate": 1e-3, "schedule": "cosine", "warmup_epochs": 0.5, "average_last": 2},
    STAGE
    | {"frozen": "batch_normalization", "learning_rate": 0.01, "ema": 0.5, "epochs": 1, "augmentation": augment.OFF},
]
ENGINE = {
    "precision": "float32",
    "distribution": "one",
    "jit_compile": False,
    "checkpoint_steps": 1,
    "validate_steps": 2,
}
SPEAKERS, UTTERANCES, SAMPLES = 6, 4, 12_000


@pytest.fixture(scope="session")
def prep(tmp_path_factory):
    """What 02_prep leaves, for six synthetic speakers with a pitch each: four to train on, two to validate on."""
    root = tmp_path_factory.mktemp("outputs")
    rng, time = np.random.default_rng(0), np.arange(SAMPLES) / 16_000
    waves, rows = [], []
    for i in range(SPEAKERS * UTTERANCES):
        pitch = 100 + 40 * (i // UTTERANCES)
        tone = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 9))
        waves.append((3000 * (tone + 0.2 * rng.normal(size=SAMPLES))).clip(-32768, 32767).astype("<i2"))
        speaker = f"s{i // UTTERANCES}"
        split = "train" if i // UTTERANCES < 4 else "validation"
        rows.append(
            {"corpus": "tones", "id": f"{speaker}/v{i % 2}/{i}.wav", "speaker": speaker, "session": f"v{i % 2}"}
        )
        rows[-1] |= {
            "subset": "dev",
            "shard": "shard-00000.pcm",
            "offset": i * SAMPLES,
            "samples": SAMPLES,
            "split": split,
        }
    np.concatenate(waves).tofile(root / "shard-00000.pcm")
    filler = dict.fromkeys(("rate", "channels", "peak", "clipped", "silent"), 0)
    table = pd.DataFrame(rows).assign(source_sha256="", error="", content="", **filler)
    table.to_csv(root / "utterances.csv", index=False)
    ids = table.loc[table["split"] == "validation", "id"]
    trials.write(root / "validation_trials.txt", trials.make(ids, 8, 8, seed=0))
    return root


def make(prep, directory, stages=STAGES, **engine):
    """A small training on the prepared tones; SV_OUTPUTS must be `prep`."""
    engine = ENGINE | engine
    devices = training.start(5, engine)
    data = training.Data.read(prep)
    options = {"masked_frames": 5, "masked_bins": 3}  # SpecAugment: a layer that draws
    model = encoder.build(backbone="resnet18", width=4, stem="imagenet", embedding_dim=8, n_mels=20, **options)
    crops = data.crops(stages, batch_size=8, seed=5)
    head = CosFaceHead(crops[0].n_classes)
    directory.mkdir(exist_ok=True)
    accuracy = keras.metrics.sparse_categorical_accuracy
    return training.Training(model, head, crops, data.validation, directory, stages, accuracy, devices, engine)


def variables(directory):
    with np.load(directory / "checkpoint.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "progress"}


@pytest.fixture(scope="session")
def uninterrupted(prep, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SV_OUTPUTS", str(prep))
        model, history, steps = make(prep, directory).run()
    return directory, model, history, steps


def test_history_begins_with_the_untrained_encoder_and_covers_both_stages(uninterrupted):
    directory, _, history, steps = uninterrupted
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert history["stage"].tolist() == [0, 1, 1, 2, 2]
    assert history["val_eer"].between(0, 1).all() and history["loss"].iloc[1:].gt(0).all()
    assert steps["step"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert pd.read_csv(directory / "log.csv")["val_eer"].tolist() == pytest.approx(history["val_eer"].tolist())
    assert list((directory / "tensorboard").rglob("events*"))


def test_model_kept_is_the_best_by_validation_eer(uninterrupted, prep, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    directory, _, history, _ = uninterrupted
    validation = training.Data.read(prep).validation
    kept = validation.eer(encoder.load(directory / "model.keras"))
    assert kept == history["val_eer"].iloc[1:].min()
    assert validation.eer(encoder.load(directory / "initial.keras")) == history["val_eer"].iloc[0]


def test_second_stage_leaves_all_normalisations_but_the_last_as_they_were(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    stage = {**STAGE, "epochs": 1, "freeze_batch_normalization": True}
    run = make(prep, tmp_path / "frozen", [stage])
    layers = [layer for layer in run.encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [[weight.copy() for weight in layer.get_weights()] for layer in layers]
    run.run()
    same = [all(map(np.array_equal, old, layer.get_weights())) for old, layer in zip(before, layers)]
    assert same == [True] * (len(layers) - 1) + [False]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    import test_training
    from sv_utils import training
    write = training.write_checkpoint
    def write_and_die(path, model, progress):
        write(path, model, progress)
        if progress.epoch == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)
    training.write_checkpoint = write_and_die
    test_training.make(Path(sys.argv[1]), Path(sys.argv[2])).run()
"""


@pytest.mark.parametrize("epoch", [1, 2])  # in the middle of the first stage, and between the stages
def test_resume_after_sigkill_ends_where_the_uninterrupted_run_ends(uninterrupted, prep, tmp_path, monkeypatch, epoch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    directory = tmp_path / "killed"
    script = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED),
        str(prep),
        str(directory),
        os.path.dirname(__file__),
        str(epoch),
    ]
    assert subprocess.run(script, capture_output=True).returncode == -signal.SIGKILL
    assert training.read_progress(directory / "checkpoint.npz").epoch == epoch
    _, history, _ = make(prep, directory).run()
    expected, reached = variables(uninterrupted[0]), variables(directory)
    assert expected.keys() == reached.keys()
    for name in expected:
        np.testing.assert_array_equal(reached[name], expected[name], err_msg=name)
    columns = ["epoch", "stage", "loss", "accuracy", "val_eer", "learning_rate"]
    pd.testing.assert_frame_equal(history[columns], uninterrupted[2][columns])


def test_finished_training_runs_nothing_again(uninterrupted, prep, monkeypatch, capsys):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    before = variables(uninterrupted[0])
    make(prep, uninterrupted[0]).run()
    assert "resumes after epoch 4" in capsys.readouterr().out
    after = variables(uninterrupted[0])
    assert all(np.array_equal(before[name], after[name]) for name in before)


class Rate:
    """An optimizer and a model, as far as the plateau needs them."""

    learning_rate = 0.1
    encoder = None

    @property
    def optimizer(self):
        return self


@pytest.mark.parametrize(
    ("eers", "patience", "rates"),
    [
        ([0.3, 0.2, 0.25, 0.21, 0.1], 2, [0.1, 0.1, 0.1, 0.05, 0.05]),
        ([0.3, 0.3, 0.3, 0.3], 1, [0.1, 0.05, 0.025, 0.0125]),
        ([0.4, 0.3, 0.2], 1, [0.1, 0.1, 0.1]),
    ],
)
def test_learning_rate_falls_after_epochs_without_gain(monkeypatch, tmp_path, eers, patience, rates):
    monkeypatch.setattr(training, "save", lambda *_: None)
    stage = {**STAGE, "plateau_patience": patience}
    judge = training.Judge(None, training.Progress(), stage, tmp_path / "model.keras", len(eers))
    model = Rate()
    judge.set_model(model)
    seen = []
    for eer in eers:
        judge._lower_on_plateau(eer)
        seen.append(model.learning_rate)
    assert seen == pytest.approx(rates)


def test_loss_that_is_not_finite_stops_with_the_mend(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    with pytest.raises(WorkError, match="lower the learning_rate"):
        make(prep, tmp_path / "wild", [{**STAGE, "learning_rate": float("inf")}]).run()


def test_checkpoint_is_one_file_with_json_progress(uninterrupted):
    with np.load(uninterrupted[0] / "checkpoint.npz") as arrays:
        progress = json.loads(str(arrays["progress"]))
    assert progress["epoch"] == 4 and progress["step"] == 8 and len(progress["history"]) == 5
