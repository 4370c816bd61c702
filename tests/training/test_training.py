"""Training: resume at the step after SIGKILL, selection by validation EER, averages, health, devices."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from small_training import ENGINE, PHASE, PHASES, small_encoder

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.models import encoders
from sv_utils.training import checkpoints, devices, loop, schedules, validation
from sv_utils.training.data import Data


def make(prep, directory, phases=PHASES, **engine):
    """A small training on the prepared tones; SV_OUTPUTS must be `prep`."""
    engine, loop.RENEWAL_BATCHES = ENGINE | engine, 2
    where = loop.start(5, engine)
    data = Data.read(prep)
    model = small_encoder()
    crops = data.crops(phases, batch_size=8, seed=5)
    head = CosFaceHead(crops[0].n_classes)
    directory.mkdir(exist_ok=True)
    accuracy = keras.metrics.sparse_categorical_accuracy
    return loop.Training(model, head, crops, data.validation, directory, phases, accuracy, where, engine)


def variables(directory):
    with np.load(directory / "checkpoint.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "progress"}


@pytest.fixture(autouse=True)
def as_many_batches_as_before(monkeypatch):
    """`make` lowers their number, also in processes of its own; tests of other files see the real one."""
    monkeypatch.setattr(loop, "RENEWAL_BATCHES", loop.RENEWAL_BATCHES)


@pytest.fixture(scope="session")
def uninterrupted(prep, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SV_OUTPUTS", str(prep))
        patch.setattr(loop, "RENEWAL_BATCHES", 2)
        model, history, steps = make(prep, directory).run()
    return directory, model, history, steps


def test_history_begins_with_the_untrained_encoder_and_covers_all_stages(uninterrupted):
    directory, _, history, steps = uninterrupted
    assert history["epoch"].tolist() == [0, 1, 2, 2, 3]  # the second 2 is the average
    assert history["phase"].tolist() == [0, 1, 1, 1, 2]
    assert history["loss"].notna().tolist() == [False, True, True, False, True]
    losses = steps.dropna(subset="loss")
    assert losses["step"].tolist() == list(range(1, 10))
    assert losses["margin"].tolist() == pytest.approx([0, 0.18, 0.198, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], abs=1e-6)
    assert losses["learning_rate"].tolist() == pytest.approx([0.05] * 6 + [1e-3 / 3, 2 / 3 * 5e-4, 0], abs=1e-8)
    assert steps.dropna(subset="val_eer")["step"].tolist() == [2, 4, 8]  # within the epochs, every 2 steps
    mean = losses["loss"].iloc[:3].mean()
    assert history["loss"].iloc[1] == pytest.approx(mean)
    assert pd.read_csv(directory / "log.csv")["val_eer"].tolist() == pytest.approx(history["val_eer"].tolist())


def test_tensorboard_has_curves_and_histograms(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted[0] / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    wanted = {"step/loss", "step/margin", "epoch/loss", "validation/EER", "validation/spread"}
    assert tags >= wanted | {"scores/target", "scores/non-target"}


def test_model_kept_is_the_best_by_validation_eer(uninterrupted, prep, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    directory, _, history, steps = uninterrupted
    dev = Data.read(prep).validation
    kept = dev.eer(encoders.load(directory / "model.keras"))
    assert kept == min(history["val_eer"].iloc[1:].min(), steps["val_eer"].min())
    assert dev.eer(encoders.load(directory / "initial.keras")) == history["val_eer"].iloc[0]


KILLED = """
    import os, random, signal, sys, threading, time
    from pathlib import Path
    sys.path[:0] = [sys.argv[3], sys.argv[3] + "/../helpers"]
    import test_training
    from sv_utils.training import checkpoints
    step, delay, write = int(sys.argv[4]), float(sys.argv[5]), checkpoints.write
    def die():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)
    def write_and_die(path, model, progress):
        if progress.step >= step:
            threading.Thread(target=die).start()
        write(path, model, progress)
        if progress.step >= step + 2:
            time.sleep(60)  # until death comes
    checkpoints.write = write_and_die
    test_training.make(Path(sys.argv[1]), Path(sys.argv[2])).run()
"""


def kill_and_resume(prep, directory, points):
    """Train in processes that die at these (step, seconds after it) one after the other, and end the training here."""
    for step, delay in points:
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(prep), str(directory)]
        line = [*command, os.path.dirname(__file__), str(step), str(delay)]
        assert subprocess.run(line, capture_output=True).returncode == -signal.SIGKILL
    return make(prep, directory).run()


def assert_same_end(uninterrupted, directory, history):
    expected, reached = variables(uninterrupted[0]), variables(directory)
    assert expected.keys() == reached.keys()
    for name in expected:
        np.testing.assert_array_equal(reached[name], expected[name], err_msg=name)
    columns = ["epoch", "phase", "loss", "accuracy", "val_eer", "learning_rate"]
    pd.testing.assert_frame_equal(history[columns], uninterrupted[2][columns])


def test_resume_after_sigkill_ends_where_the_uninterrupted_run_ends(uninterrupted, prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    rng = np.random.default_rng()  # other delays each time; within an epoch, and at the end of each phase
    points = [(step, rng.uniform(0, 0.05)) for step in (2, 6, 9)]
    _, history, _ = kill_and_resume(prep, tmp_path / "killed", points)
    assert_same_end(uninterrupted, tmp_path / "killed", history)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_resume_after_sigkill_at_any_point(uninterrupted, prep, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    rng = np.random.default_rng(seed)
    point = (int(rng.integers(1, 10)), rng.uniform(0, 0.3))
    _, history, _ = kill_and_resume(prep, tmp_path / "killed", [point])
    assert_same_end(uninterrupted, tmp_path / "killed", history)


def test_finished_training_runs_nothing_again(uninterrupted, prep, monkeypatch, capsys):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    agreed = []
    monkeypatch.setattr(devices.Devices, "agree", lambda _, step: agreed.append(step))
    before = variables(uninterrupted[0])
    model, _, _ = make(prep, uninterrupted[0]).run()
    assert "resumes after epoch 3, step 9" in capsys.readouterr().out
    assert agreed == [9]
    after = variables(uninterrupted[0])
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(map(np.array_equal, model.get_weights(), uninterrupted[1].get_weights()))


def test_checkpoint_of_another_model_is_refused(uninterrupted, prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    other = make(prep, tmp_path / "other")
    (tmp_path / "other" / "checkpoint.npz").write_bytes((uninterrupted[0] / "checkpoint.npz").read_bytes())
    other.encoder = small_encoder(channels=4)
    with pytest.raises(RequestError, match="checkpoint of another model; remove it"):
        other.run()


def test_checkpoint_is_one_file_with_json_progress(uninterrupted):
    with np.load(uninterrupted[0] / "checkpoint.npz") as arrays:
        progress = json.loads(str(arrays["progress"]))
    assert (progress["phase"], progress["phase_step"], progress["epoch"], progress["step"]) == (2, 0, 3, 9)
    assert len(progress["history"]) == 5 and not list(uninterrupted[0].glob("weights_*"))


def test_frozen_normalisations_stay_as_they_were_and_the_moving_average_is_what_is_judged(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    phase = PHASE | {"epochs": 1, "frozen": "batch_normalization", "ema": 0.5}
    run = make(prep, tmp_path / "frozen", [phase])
    layers = schedules.normalizations(run.encoder)
    before = [[weight.copy() for weight in layer.get_weights()] for layer in layers]
    seen, copy = [], checkpoints.copy_weights

    def copy_and_note(model, target):
        seen.append(keras.ops.convert_to_numpy(model.head.weight))
        copy(model, target)

    monkeypatch.setattr(checkpoints, "copy_weights", copy_and_note)
    monkeypatch.setattr(loop, "RENEWAL_BATCHES", 2)
    model, _, _ = run_each_step(run)
    same = [all(map(np.array_equal, old, layer.get_weights())) for old, layer in zip(before, layers)]
    assert same == [True] * (len(layers) - 1) + [False]
    average = seen[0]
    for weights in seen[1:3]:  # the fourth look is that at the end of the phase
        average = 0.5 * average + 0.5 * weights
    np.testing.assert_allclose(model.head.weight, average, rtol=1e-5)
    assert np.abs(average - seen[-1]).max() > 1e-4


def run_each_step(run):
    """Run a training that is judged after every step."""
    run.engine = run.engine | {"validate_steps": 1}
    return run.run()


def test_learning_rate_falls_after_epochs_without_gain(tmp_path):
    run = loop.Training(None, None, [], None, tmp_path, [PHASE | {"plateau_patience": 2}], None, None, ENGINE)
    run._progress, seen = checkpoints.Progress(), []
    for eer in (0.3, 0.2, 0.25, 0.21, 0.1, 0.1, 0.1):
        run._lower_on_plateau(eer)
        seen.append(run._progress.plateau)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_a_plateau_lowers_the_rate_that_the_optimizer_has(prep, tmp_path, monkeypatch):
    """An error rate that never falls: from the second epoch on, each halves the rate of the steps that follow it."""
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    phases = [PHASE | {"epochs": epochs, "steps_per_epoch": 1} for epochs in (4, 1)]
    run = make(prep, tmp_path / "plateau", phases, validate_steps=0)
    used, train = [], loop.SpeakerModel.train_on_batch

    def train_and_note(model, *batch, **options):
        used.append(float(model.optimizer.learning_rate))
        return train(model, *batch, **options)

    monkeypatch.setattr(loop.SpeakerModel, "train_on_batch", train_and_note)
    monkeypatch.setattr(run.devices, "strategy", None)
    judgement = validation.Judgement(np.array([0.1, 0.9]), np.array([0.0, 0.5]), 0.5)
    monkeypatch.setattr(validation.ValidationTrials, "judge", lambda *_: judgement)
    _, history, steps = run.run()
    assert used == pytest.approx([0.05, 0.05, 0.025, 0.0125, 0.05])  # another phase begins anew
    assert steps["learning_rate"].tolist() == pytest.approx(used)
    assert history["learning_rate"].iloc[1:].tolist() == pytest.approx(used)


def test_the_best_encoder_is_kept_and_no_later_one_that_is_worse(tmp_path, monkeypatch):
    run, saved = loop.Training(None, None, [], None, tmp_path, [PHASE], None, None, ENGINE), []
    run._progress, run._board = checkpoints.Progress(), SimpleNamespace(judgement=lambda *_: None)
    monkeypatch.setattr(checkpoints, "save", lambda _, path: saved.append((run._progress.best_eer, path)))
    for eer in (0.3, 0.2, 0.25, 0.2, 0.1, 0.4):
        run._keep_best(SimpleNamespace(eer=eer, finite=True, raise_if_collapsed=lambda kept: None))
    assert saved == [(eer, tmp_path / "model.keras") for eer in (0.3, 0.2, 0.1)]


def test_nothing_has_collapsed_before_normalisation_has_gathered_its_statistics(tmp_path, monkeypatch):
    """A rehearsal of two steps of MobileNetV2 did so, by the statistics that it began with."""
    run = loop.Training(None, None, [], None, tmp_path, [PHASE], None, None, ENGINE)
    run._progress, run._board = checkpoints.Progress(step=loop.SETTLED - 1), SimpleNamespace(judgement=lambda *_: None)
    monkeypatch.setattr(checkpoints, "save", lambda *_: None)
    one_point = validation.Judgement(np.ones(2), np.ones(2), 0.0)
    assert run._keep_best(one_point) is one_point
    run._progress.step += 1
    with pytest.raises(WorkError, match=r"collapsed"):
        run._keep_best(one_point)


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        ({"keep": "best", "centred": False}, "model.keras"),
        ({"keep": "last", "centred": False}, "best.keras"),
        ({"keep": "best", "centred": True}, "best.keras"),
    ],
)
def test_the_best_encoder_stands_apart_where_another_one_is_kept(tmp_path, outcome, name):
    run = loop.Training(None, None, [], None, tmp_path, [PHASE], None, None, ENGINE, outcome)
    assert run._best == tmp_path / name


class Enough(Exception):
    """What was to be seen has been seen."""


def at(tmp_path, phases, progress, **devices):
    """A training without encoder or data, at some place of it."""
    crops = [f"crops of phase {number}" for number in range(len(phases))]
    run = loop.Training(None, None, crops, None, tmp_path, phases, None, SimpleNamespace(**devices), ENGINE)
    run._model = SimpleNamespace(head=SimpleNamespace(margin=0.0, hard_share=0.0))
    run._progress = progress
    return run


def test_schedules_begin_anew_with_each_phase(tmp_path):
    phase = PHASE | {"schedule": "cosine", "margin_end_epoch": 2, "hard_margin_share": 0.5, "accumulate": 2}
    first = at(tmp_path, [phase, phase], checkpoints.Progress(phase=0, phase_step=3, step=3))
    later = at(tmp_path, [phase, phase], checkpoints.Progress(phase=1, phase_step=3, step=10))
    assert later._settings() == first._settings() and set(later._settings()) == {
        "learning_rate",
        "margin",
        "hard_share",
    }
    assert later._ends_step() and first._ends_step()
    assert 0 < later._settings()["margin"] < 0.2 and 0 < later._settings()["hard_share"] < 0.5


def test_the_batches_of_a_later_phase_are_new_ones(tmp_path, monkeypatch):
    seen = []

    def batches(*asked):
        seen.extend(asked)
        raise Enough

    monkeypatch.setattr(loop.Training, "_compile", lambda self: None)
    run = at(tmp_path, [PHASE, PHASE], checkpoints.Progress(phase=1, step=6), batches=batches, step=lambda model: None)
    with pytest.raises(Enough):
        run._run_phase()
    assert seen == ["crops of phase 1", 6, 0]


def test_a_phase_has_an_optimizer_by_its_own_settings_for_all_devices_and_the_precision(tmp_path, monkeypatch):
    seen, phases = [], [PHASE, PHASE | {"frozen": "encoder"}]
    run = at(tmp_path, phases, checkpoints.Progress(phase=1), build=lambda make: make(), replicas=3)
    run.engine, run.encoder = ENGINE | {"precision": "mixed_float16", "jit_compile": True}, "judged"
    run.accuracy = keras.metrics.sparse_categorical_accuracy
    compiled = lambda optimizer, metrics, jit_compile: seen.append((metrics[0].name, jit_compile))  # noqa: E731
    run._model = SimpleNamespace(encoder="trained", compile=compiled, jit_compile=True, trainable_variables=["weight"])
    monkeypatch.setattr(loop.schedules, "freeze", lambda *given: seen.append(given))
    monkeypatch.setattr(
        loop.schedules, "optimizer", lambda *given: seen.append(given) or SimpleNamespace(build=seen.append)
    )
    run._compile()
    frozen = [("trained", "encoder"), ("judged", "encoder")]
    assert seen == [*frozen, (phases[1], True, 3), ("accuracy", True), ["weight"]]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_what_is_judged_is_in_float32_and_each_device_trains_its_twin(tmp_path, monkeypatch, precision):
    seen = []

    def twin(*given):
        seen.append(given)
        raise Enough

    run = at(tmp_path, [PHASE], checkpoints.Progress(), build=lambda make: make(), replicas=3)
    run.encoder, run.head = "encoder", "head"
    run.engine = ENGINE | {"precision": precision, "gradient_checkpointing": True}
    monkeypatch.setattr(loop.Training, "_check", lambda self: None)
    monkeypatch.setattr(loop, "SpeakerModel", lambda *parts: SimpleNamespace(parts=parts, twin=twin))
    monkeypatch.setattr(loop.encoders, "in_float32", lambda encoder: f"{encoder} in float32")
    with pytest.raises(Enough):
        run.run()
    judged = "encoder" if precision == "float32" else "encoder in float32"
    assert seen == [(3, True)] and run.encoder == judged and run._judged.parts == (judged, "head")


@pytest.mark.parametrize(("setting", "handed_on"), [({"ema": 0.5}, ["judged"]), ({}, [])])
def test_a_phase_hands_its_moving_average_on(tmp_path, monkeypatch, setting, handed_on):
    """To the next one, and to the checkpoint between them; also where it was resumed just before its end."""
    run, done = at(tmp_path, [PHASE | setting], checkpoints.Progress(phase_step=6, step=6, epoch=2)), []
    run._judged = SimpleNamespace(get_weights=lambda: "judged")
    run._model.set_weights = done.append
    monkeypatch.setattr(loop.Training, "_take_weights", lambda self: done.append("taken"))
    monkeypatch.setattr(checkpoints, "write", lambda *_: done.append("written"))
    run._end_phase()
    assert done == [*(["taken", *handed_on] if handed_on else []), "written"]
    assert (run._progress.phase, run._progress.phase_step, run._progress.step) == (1, 0, 6)


def test_the_last_encoder_is_kept_and_centred_where_the_recipe_says_so(prep, tmp_path, monkeypatch, capsys):
    """Of no phases: what the end of a training does to the encoder that it has."""
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    run = make(prep, tmp_path / "last", [PHASE])
    run.phases, run.outcome = [], {"keep": "last", "centred": True}
    before = run.encoder.get_weights()
    _, history, _ = run.run()
    assert history["epoch"].tolist() == [0, 0] and history["val_eer"].notna().all()
    first, centred = (100 * history["val_eer"]).tolist()
    assert f"last {first:.2f} %, last less the mean of training embeddings {centred:.2f} %; kept is the last less" in (
        capsys.readouterr().out
    )
    kept = encoders.load(tmp_path / "last" / "model.keras")
    assert [np.array_equal(a, b) for a, b in zip(kept.get_weights(), before)].count(False) == 1, "the shift"
    plain = dataclasses.replace(run.crops[0], augmentation=None, speeds=(1.0,))
    raw, uncentred = encoders.unnormalised(kept), encoders.unnormalised(encoders.load(tmp_path / "last/initial.keras"))
    mean, first = (
        np.mean([np.asarray(model(plain.batch(i)[0])).mean(axis=0) for i in range(2)], axis=0)
        for model in (raw, uncentred)
    )
    assert np.abs(mean).max() < 1e-5 < 0.05 < np.abs(first).max()
    run.outcome = {"keep": "first", "centred": False}
    with pytest.raises(RequestError, match=r"outcome\.keep: there is no 'first'"):
        run.run()


def test_an_encoder_without_a_shift_cannot_be_centred():
    waveform = keras.Input((None,))
    plain = keras.Model(waveform, encoders.UnitVectors()(keras.ops.reshape(waveform, (-1, 4))))
    with pytest.raises(RequestError, match=r"outcome\.centred: this encoder adds nothing"):
        checkpoints.shift(plain)
    with pytest.raises(RequestError, match=r"outcome\.centred"):
        checkpoints.shift(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))


def test_averaged_weights_are_judged_with_statistics_of_their_own(tmp_path, monkeypatch):
    run, done = loop.Training("encoder", None, ["crops"], None, tmp_path, [PHASE], None, None, ENGINE), []
    run._progress, run._model, run._judged = checkpoints.Progress(), "model", "judged"
    monkeypatch.setattr(checkpoints, "copy_weights", lambda *models: done.append(models))
    monkeypatch.setattr(loop.Training, "_renew_statistics", lambda _: done.append("renewed"))
    run._take_weights()
    run.phases = [PHASE | {"ema": 0.5}]
    run._take_weights()
    assert done == [("model", "judged"), ("model", "judged"), "renewed"]


class TwoWorkers:
    """A strategy whose replicas hold the steps of two workers' checkpoints."""

    num_replicas_in_sync = 2

    def __init__(self, *steps):
        self.steps = steps

    def run(self, function):
        return [float(function()), *self.steps[1:]]

    def reduce(self, how, values, axis):
        return np.mean(values) if how == "MEAN" and axis is None else np.nan


def test_workers_at_different_steps_are_told(monkeypatch):
    where = devices.Devices("one")
    where.agree(5)  # alone there is nobody to disagree with
    monkeypatch.setattr(where, "strategy", TwoWorkers(5, 5))
    where.agree(5)
    monkeypatch.setattr(where, "strategy", TwoWorkers(5, 3))
    with pytest.raises(WorkError, match=r"of different steps: copy one worker's checkpoint\.npz"):
        where.agree(5)


def test_loss_that_is_not_finite_stops_with_cause_and_mend_and_keeps_what_was_good(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    wild = PHASE | {"learning_rate": float("inf"), "epochs": 1, "steps_per_epoch": 3}
    run = make(prep, tmp_path / "wild", [PHASE | {"epochs": 1, "steps_per_epoch": 1}, wild])
    with pytest.raises(
        WorkError, match=r"embeddings are not finite after step 2: .*lower the learning_rate .*set clip_norm"
    ) as caught:
        run.run()
    assert "model.keras, checkpoint.npz" in str(caught.value)
    wild_run = make(prep, tmp_path / "wild", run.phases, validate_steps=0)
    with pytest.raises(WorkError, match=r"loss is nan in step 3: the loss had"):
        wild_run.run()
    assert checkpoints.read_progress(tmp_path / "wild" / "checkpoint.npz").step >= 1
    dev = Data.read(prep).validation
    assert np.isfinite(dev.eer(encoders.load(tmp_path / "wild" / "model.keras")))


def test_waveforms_that_are_not_finite_are_told_from_a_diverging_training():
    waveforms = np.full((2, 100), np.nan)
    assert "look at the augmentation" in validation.why_not_finite(waveforms, PHASE, 0.1, [])


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_collapsed_embeddings_stop_with_a_diagnosis(noise):
    embeddings = np.ones((8, 4)) / 2 + noise * np.random.default_rng(0).normal(size=(8, 4))
    cosines = np.sum(embeddings[:4] * embeddings[4:], axis=1)
    judgement = validation.Judgement(cosines[:2], cosines[2:], validation.spread(embeddings))
    with pytest.raises(WorkError, match=r"collapsed.*learning_rate is too high.*kept here"):
        judgement.raise_if_collapsed("kept here")


def test_spread_of_unit_vectors():
    assert validation.spread(np.eye(3)) == pytest.approx(2 / 3)
    assert validation.spread(np.tile([0.6, 0.8], (5, 1))) == pytest.approx(0)


def test_engine_names_that_do_not_exist_are_refused():
    with pytest.raises(RequestError, match=r"engine.precision: there is no 'float16' \(did you mean"):
        loop.start(1, ENGINE | {"precision": "float16"})
    with pytest.raises(RequestError, match=r"distribution: there is no 'mirror' \(did you mean 'mirrored'"):
        loop.start(1, ENGINE | {"distribution": "mirror"})


def test_an_initial_model_computes_in_the_engines_precision(tmp_path):
    first = small_encoder(masks=False)
    first.save(tmp_path / "model.keras")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = loop.make_encoder(str(tmp_path / "model.keras"), {})
    finally:
        keras.config.set_dtype_policy(policy)
    computed = {type(layer).__name__: layer.compute_dtype for layer in model.layers}
    kept = ("LogMel", "InstanceNormalization", "Dense", "UnitVectors")
    assert {name: computed[name] for name in kept} == dict.fromkeys(kept, "float32")
    assert computed["Conv2D"] == "bfloat16"
    waveform = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype("float32")
    assert 0.999 < float(np.sum(np.asarray(first(waveform)) * np.asarray(model(waveform)))) < 1.0001
    assert not np.array_equal(np.asarray(first(waveform)), np.asarray(model(waveform)))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_with_weights_in_float32(prep, tmp_path, monkeypatch, precision):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    try:
        run = make(prep, tmp_path / "mixed", [PHASE | {"epochs": 1}], precision=precision)
        _, history, _ = run.run()
    finally:
        keras.config.set_dtype_policy("float32")
    kernels = [layer for layer in run._model.encoder._flatten_layers() if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in kernels} == {precision.removeprefix("mixed_")}
    assert {str(weight.dtype) for layer in kernels for weight in layer.weights} == {"float32"}
    for encoder in (
        run.encoder,
        *(encoders.load(tmp_path / "mixed" / f"{name}.keras") for name in ("model", "initial")),
    ):
        assert {layer.compute_dtype for layer in encoder._flatten_layers()} == {"float32"}
    assert np.isfinite(history["loss"].iloc[1])
    scaled = isinstance(run._model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")


def test_a_trained_encoder_can_be_gone_on_from(uninterrupted):
    path = uninterrupted[0] / "model.keras"
    model = loop.make_encoder(str(path), {})
    assert all(map(np.array_equal, model.get_weights(), encoders.load(path).get_weights()))
    with pytest.raises(RequestError, match=r"nowhere\.keras"):
        loop.make_encoder("nowhere.keras", {})


WORKER = """
    import sys
    from pathlib import Path
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/../helpers"]
    import test_training
    if sys.argv[4] == "mirrored":
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        tf.distribute.MirroredStrategy = lambda make=tf.distribute.MirroredStrategy: make(["CPU:0", "CPU:1"])
    test_training.shared(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]).run()
"""


def shared(prep, directory, distribution):
    """A training for one or more devices; without masks, which each device draws for itself."""
    phase = PHASE | {"epochs": 1, "steps_per_epoch": 4, "learning_rate": 0.01, "ema": 0.5}
    run = make(prep, directory, [phase], distribution=distribution, validate_steps=0, checkpoint_steps=0)
    run.encoder = small_encoder(masks=False)
    return run


def start_worker(prep, directory, distribution, **environment):
    line = [sys.executable, "-c", textwrap.dedent(WORKER), os.path.dirname(__file__), str(prep), str(directory)]
    options = {"env": os.environ | environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*line, distribution], **options)


def assert_same_losses(one, *others):
    losses = pd.read_csv(one / "steps.csv")["loss"]
    assert len(losses) == 4 and losses.nunique() == 4
    for other in others:
        np.testing.assert_allclose(pd.read_csv(other / "steps.csv")["loss"], losses, rtol=1e-3)


@pytest.mark.long
def test_two_workers_train_as_one_does_on_the_whole_batch(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0)), second.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second)]
    running = []
    for i in (0, 1):
        cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}}
        running.append(start_worker(prep, tmp_path / f"worker{i}", "multi_worker", TF_CONFIG=json.dumps(cluster)))
    shared(prep, tmp_path / "one", "one").run()
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-2000:]
    assert_same_losses(tmp_path / "one", tmp_path / "worker0", tmp_path / "worker1")
    one, other = (variables(tmp_path / f"worker{i}") for i in (0, 1))
    assert all(np.array_equal(one[name], other[name]) for name in one if name.startswith("model_"))


@pytest.mark.long
def test_two_devices_of_one_machine_train_as_one_does(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    process = start_worker(prep, tmp_path / "mirrored", "mirrored")
    shared(prep, tmp_path / "one", "one").run()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-2000:]
    assert_same_losses(tmp_path / "one", tmp_path / "mirrored")


def test_multi_worker_without_its_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(RequestError, match=r"needs \$TF_CONFIG"):
        loop.start(1, ENGINE | {"distribution": "multi_worker"})


def test_an_epoch_that_is_not_as_expected_says_so_at_once(tmp_path, capsys):
    row = {"epoch": 1, "loss": 9.0, "accuracy": 0.1, "val_eer": 0.4, "learning_rate": 0.1, "seconds": 2.0}
    for watch, said in ((lambda row: f"loss {row['loss']} is too high", "loss 9.0 is too high\n"), (None, "")):
        training = loop.Training(None, None, [], None, tmp_path, [PHASE], None, None, ENGINE, watch=watch)
        training._print(row)
        assert capsys.readouterr().out.partition("\n")[2] == said


def test_the_mean_embedding_is_that_of_plain_crops_of_the_last_phase(monkeypatch):
    """The longest ones of the published recipes: the encoder that is kept has heard such crops last."""

    @dataclasses.dataclass
    class Told:
        name: str
        augmentation: object = "noise"
        speeds: tuple = (1.0, 0.9)

        def batch(self, i):
            return (self.name, self.augmentation, self.speeds, i), None

    taken, judged = [], SimpleNamespace(eer=0.25, spread=0.5)
    monkeypatch.setattr(checkpoints, "centre", lambda encoder, batches: taken.extend(batches))
    run = SimpleNamespace(
        crops=[Told("first"), Told("last")],
        phases=[{}, {}],
        validation=SimpleNamespace(judge=lambda encoder: judged),
        _progress=SimpleNamespace(step=2, epoch=3, history=[]),
    )
    assert loop.Training._centre(run, "encoder") == 0.25
    assert taken == [("last", None, (1.0,), 0), ("last", None, (1.0,), 1)]
    assert run._progress.history == [{"epoch": 3, "phase": 2, "val_eer": 0.25, "spread": 0.5}]
