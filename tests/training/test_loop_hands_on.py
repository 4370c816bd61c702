"""What the training loop hands to what it calls, and what it writes down: each value told apart from its neighbours."""

import contextlib
import json
import math
import re
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from small_training import ENGINE, PHASE

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.training import checkpoints, loop, validation


class Crops(SimpleNamespace):
    """Batches that say which phase and which number they are of."""

    def batch(self, number):
        return (self.name, number), None


class Head(SimpleNamespace):
    scale, margin = 30.0, 0.25


def training(folder, phases=(PHASE, PHASE, PHASE), number=1, engine=None, **progress):
    """A training in its phase `number`, with stand-ins for all that computes."""
    crops = [Crops(name=f"phase {i}", batch_size=2, crop_samples=100, labels=np.zeros(8)) for i in range(len(phases))]
    where = SimpleNamespace(replicas=1, build=lambda make: make(), step=lambda model: None)
    run = loop.Training(
        "encoder", Head(), crops, None, folder, list(phases), "accuracy", where, ENGINE | (engine or {})
    )
    run._progress = checkpoints.Progress(phase=number, **progress)
    run._model = SimpleNamespace(head=Head(), variables=[], optimizer=SimpleNamespace(learning_rate=0.125))
    run._judged, run.seen = "judged", []
    run._board = SimpleNamespace(
        scalars=lambda *given: run.seen.append(given), judgement=lambda *given: run.seen.append(given)
    )
    return run


@contextlib.contextmanager
def given(batches):
    yield iter(batches)


def test_several_devices_are_told_together(monkeypatch, capsys):
    monkeypatch.setattr(keras.utils, "set_random_seed", lambda _: None)
    monkeypatch.setattr(loop, "Devices", lambda kind: SimpleNamespace(replicas=3))
    loop.start(5, ENGINE | {"deterministic": False})
    assert capsys.readouterr().out.endswith(", 3 together\n")


@pytest.mark.parametrize("phase_step", [0, 2])
def test_a_phase_takes_its_steps_from_its_own_place_with_its_own_settings(tmp_path, monkeypatch, phase_step):
    """Resumed within itself it goes on with optimizer and plateau as they were, else it begins anew."""
    phases = [PHASE, PHASE | {"steps_per_epoch": 4, "epochs": 1, "accumulate": 2, "margin": 0.5}, PHASE]
    run = training(tmp_path, phases, engine={"readers": 3}, phase_step=phase_step, step=6 + phase_step)
    run._progress.plateau, run._progress.phase_best, run._progress.epochs_without_gain = 0.5, 0.1, 1
    run._model.optimizer.variables = "the optimizer's"
    asked, taken, done = [], [], []

    def batches(*given_to):
        asked.append(given_to)
        return given(f"batch {number}" for number in range(given_to[1], 99))

    def step(*given_to):
        taken.append(given_to)
        return {"loss": 0.5}

    run.devices = SimpleNamespace(step=lambda model: step if model is run._model else None, batches=batches)
    monkeypatch.setattr(checkpoints, "read_variables", lambda *read: done.append(read))
    for name in ("compile", "after_step", "end_phase"):
        monkeypatch.setattr(loop.Training, f"_{name}", lambda _, name=name: done.append(name))
    run._run_phase()
    assert asked == [(run.crops[1], 6 + phase_step, 3)]
    assert [batch for batch, _, _ in taken] == [f"batch {6 + n}" for n in range(phase_step, 4)]
    assert [ends for _, _, ends in taken] == [False, True, False, True][phase_step:]
    assert [settings["learning_rate"] for _, settings, _ in taken] == [0.05 * (0.5 if phase_step else 1)] * len(taken)
    assert taken[0][1]["margin"] == pytest.approx(0.5 * (1 - 0.001 ** (phase_step / 4)))
    resumed = [(tmp_path / "checkpoint.npz", "optimizer", "the optimizer's")] if phase_step else []
    assert done == ["compile", *resumed, *["after_step"] * len(taken), "end_phase"]
    begun = (run._progress.plateau, run._progress.phase_best, run._progress.epochs_without_gain)
    assert begun == ((0.5, 0.1, 1) if phase_step else (1.0, math.inf, 0))
    assert run._progress.seconds > 0 and (run._progress.step, run._progress.phase_step) == (10, 4)


def test_the_phase_that_does_not_fit_or_compile_is_named_also_in_the_midst(tmp_path, monkeypatch):
    run = training(tmp_path, engine={"jit_compile": True})
    monkeypatch.setattr(loop.Training, "_compile", lambda _: None)
    for kind, said in (
        ("ResourceExhaustedError", r"phases\[1\] does not fit into the memory"),
        ("UnimplementedError", r"phases\[1\] fails under XLA"),
        ("InvalidArgumentError", r"phases\[1\] fails under XLA"),
    ):

        def fail(*_, kind=kind):
            raise type(kind, (Exception,), {})

        run.devices = SimpleNamespace(step=lambda model, fail=fail: fail, batches=lambda *_: given(["batch"]))
        with pytest.raises(RequestError, match=said):
            run._run_phase()


def test_what_is_tried_of_the_largest_phase_is_one_step_of_its_own(tmp_path, monkeypatch):
    later = PHASE | {"learning_rate": 0.25, "margin": 0.5, "margin_end_epoch": 0}
    run = training(tmp_path, [PHASE, PHASE, later], step=6)
    run.crops[2].batch_size, tried = 4, []
    run._model.variables = [keras.Variable([1.0, 2.0])]

    def step(*given_to):
        tried.append((run._progress.phase, *given_to))
        run._model.variables[0].assign([0.0, 0.0])
        return {"loss": 0.5}

    run.devices = SimpleNamespace(
        step=lambda model: step, batches=lambda *asked: tried.append(asked) or given(["a batch"])
    )
    monkeypatch.setattr(loop.Training, "_compile", lambda self: tried.append(self._progress.phase))
    run._try_largest_phase()
    assert tried == [2, (run.crops[2], 0), (2, "a batch", {"learning_rate": 0.25, "margin": 0.5}, True)]
    assert run._progress.phase == 1 and run._model.variables[0].numpy().tolist() == [1.0, 2.0]


def test_a_head_is_set_what_it_has_and_nothing_else(tmp_path):
    run = training(tmp_path, [PHASE | {"hard_margin_share": 0.5}], 0)
    assert set(run._settings()) == {"learning_rate", "margin"}


def test_phases_are_checked_before_anything_is_computed(tmp_path, monkeypatch):
    def refused(phases=(PHASE,), head=None, replicas=1, outcome=None, **engine):
        run = training(tmp_path, phases, 0, engine)
        run.head, run.devices.replicas = head or Head(), replicas
        run.outcome = run.outcome | (outcome or {})
        try:
            run._check()
        except RequestError as error:
            return str(error)

    assert refused() is None and refused([PHASE | {"accumulate": 2}], replicas=2) is None
    assert "phases[1].epochs must be 1 or more" in refused([PHASE, PHASE | {"epochs": 0}])
    plain = {key: value for key, value in PHASE.items() if key != "margin"}
    assert "phases[1].margin: this loss has none" in refused([plain, PHASE], SimpleNamespace())
    scaled = {"precision": "mixed_float16"}
    assert "phases[0].accumulate: on several devices" in refused([PHASE | {"accumulate": 2}], replicas=2, **scaled)
    assert refused([PHASE | {"accumulate": 2}], **scaled) is None and refused(replicas=2, **scaled) is None
    asked = []
    monkeypatch.setattr(checkpoints, "shift", asked.append)
    refused(outcome={"centred": True})
    assert asked == ["encoder"]


def test_what_keras_does_not_compile_is_an_error(tmp_path):
    run = training(tmp_path, engine={"jit_compile": True})
    run.encoder = run._model.encoder = SimpleNamespace(trainable=True, _flatten_layers=list)
    run._model.compile, run._model.jit_compile = lambda *_, **__: None, False
    run.accuracy = keras.metrics.sparse_categorical_accuracy
    with pytest.raises(RequestError, match=r"engine\.jit_compile: Keras refuses XLA here"):
        run._compile()


def test_figures_are_noted_ten_times_an_epoch_and_read_at_the_latest_after_50_steps(tmp_path):
    run = training(tmp_path, [PHASE | {"steps_per_epoch": 30}] * 2, step=30)
    for loss in (1.0, 2.0, 4.0):
        run._note({"loss": np.float32(loss), "accuracy": np.float32(0.5)})
    row = {"loss": 4.0, "learning_rate": 0.125, "scale": 30.0, "margin": 0.25}
    assert run._progress.steps == [{"step": 33, **row}] and (run._progress.step, run._progress.phase_step) == (33, 3)
    assert run.seen == [(33, {f"step/{name}": value for name, value in row.items()})]
    assert run._progress.sums == {"loss": 7.0, "accuracy": 1.5} and run._unread == []
    run = training(tmp_path, [PHASE | {"steps_per_epoch": 1000}] * 2)
    for _ in range(50):
        run._note({"loss": np.float32(1.0)})
    assert run._progress.sums == {"loss": 50.0} and run._unread == [] and run._progress.steps == []


def test_what_diverged_is_explained_by_its_batch_phase_rate_and_last_losses(tmp_path, monkeypatch):
    phases = [PHASE, PHASE | {"clip_norm": 3.0}, PHASE]
    run, asked = training(tmp_path, phases, step=9), []
    run._progress.steps = [{"step": i, **({"val_eer": 0.1} if i % 2 else {"loss": float(i)})} for i in range(40)]
    monkeypatch.setattr(loop, "why_not_finite", lambda *given_to: asked.append(given_to) or "because")
    with pytest.raises(WorkError, match=r"^it broke: because\. What was good before is kept in .*: nothing yet$"):
        run._diverged("it broke", 9)
    assert asked == [(("phase 1", 8), phases[1], 0.125, [float(i) for i in range(20, 40, 2)])]


@pytest.mark.parametrize(
    ("waveforms", "phase", "losses", "policy", "said"),
    [
        ([[np.inf]], {}, [1.0], "float32", r"^the waveforms of this batch are not finite: .*02_prep$"),
        (
            [[0]],
            {},
            [1.0, 2.5],
            "float32",
            r"^the loss had been rising, from 1 to 2\.5, .*now 0\.05\), or set clip_norm",
        ),
        (
            [[0]],
            {"clip_norm": 1.0},
            [1.0, 2.0],
            "float32",
            r"^the loss had not been rising: .*, or give warmup_epochs$",
        ),
        (
            [[0]],
            {"clip_norm": 1.0, "warmup_epochs": 1.0},
            [],
            "mixed_float16",
            r"0\.05\), or set precision to mixed_bf",
        ),
        (
            [[0]],
            {"clip_norm": 1.0, "warmup_epochs": 1.0},
            [],
            "mixed_bfloat16",
            r"lower the learning_rate \(now 0\.05\)$",
        ),
    ],
)
def test_why_a_training_diverged(waveforms, phase, losses, policy, said):
    keras.config.set_dtype_policy(policy)
    try:
        found = validation.why_not_finite(np.array(waveforms), PHASE | phase, 0.05, losses)
    finally:
        keras.config.set_dtype_policy("float32")
    assert re.search(said, found), found


def test_the_row_of_an_epoch_is_that_of_its_own_steps(tmp_path, monkeypatch, capsys):
    phases = [PHASE, PHASE | {"epochs": 4, "average_last": 2}, PHASE]
    run, written = training(tmp_path, phases, step=12, phase_step=6, epoch=3), []
    run._progress.sums, run._progress.seconds = {"loss": 6.0, "accuracy": 1.5}, 100.0
    run.watch = lambda row: f"watched {row['epoch']}"
    judgement = SimpleNamespace(eer=0.25, spread=0.5)
    monkeypatch.setattr(loop.Training, "_judge", lambda _: judgement)
    monkeypatch.setattr(loop.Training, "_lower_on_plateau", lambda _, eer: written.append(eer))
    monkeypatch.setattr(checkpoints, "write_weights", lambda *given_to: written.append(given_to))
    run._end_epoch()
    (row,) = run._progress.history
    assert 100 < row.pop("seconds") < 101
    expected = {"epoch": 4, "phase": 2, "loss": 2.0, "accuracy": 0.5}
    assert row == {**expected, "val_eer": 0.25, "spread": 0.5, "learning_rate": 0.125}
    assert (run._progress.epoch, run._progress.sums, run._progress.seconds) == (4, {}, 0.0)
    assert run.seen == [(12, {"epoch/loss": 2.0, "epoch/accuracy": 0.5})]
    line = "epoch   4/8  loss 2.0000  accuracy 0.500  validation EER 25.00 %  learning rate 0.12  100 s\nwatched 4\n"
    assert capsys.readouterr().out == line
    assert written == [0.25], "of four epochs the first two are not averaged"
    run._progress.phase_step, run._progress.sums = 9, {"loss": 6.0, "accuracy": 1.5}
    run._end_epoch()
    assert written == [0.25, 0.25, (tmp_path / "weights_0005.npz", "judged")]


def test_what_is_judged_is_the_encoder_with_the_weights_of_now(tmp_path, monkeypatch):
    run, done = training(tmp_path, step=7), []
    judgement = SimpleNamespace(eer=0.25, finite=True)
    run.validation = SimpleNamespace(judge=lambda encoder: done.append(encoder) or judgement)
    monkeypatch.setattr(loop.Training, "_take_weights", lambda _: done.append("taken"))
    monkeypatch.setattr(checkpoints, "save", lambda *given_to: done.append(given_to))
    assert run._judge() is judgement
    assert done == ["taken", "encoder", ("encoder", tmp_path / "model.keras")]
    assert run.seen == [(7, judgement)] and run._progress.best_eer == 0.25


@pytest.mark.parametrize(("average_last", "averaged"), [(3, [5, 6, 7]), (9, [4, 5, 6, 7])])
def test_a_phase_ends_with_the_mean_of_its_last_epochs(tmp_path, monkeypatch, capsys, average_last, averaged):
    phases = [PHASE, PHASE | {"epochs": 4, "average_last": average_last}, PHASE]
    run, done = training(tmp_path, phases, step=21, epoch=7, phase_step=12), []
    judgement = SimpleNamespace(eer=0.25, spread=0.5, finite=True)
    run.validation = SimpleNamespace(judge=lambda encoder: done.append(encoder) or judgement)
    run._judged = SimpleNamespace(get_weights=lambda: "averaged")
    run._model.set_weights = lambda weights: done.append(weights)
    run._progress.best_eer = 0.1
    (tmp_path / "weights_0007.npz").touch()
    monkeypatch.setattr(checkpoints, "average", lambda files, model: done.append((files, model is run._judged)))
    monkeypatch.setattr(checkpoints, "renew_statistics", lambda encoder, _: done.append(f"statistics of {encoder}"))
    monkeypatch.setattr(checkpoints, "write", lambda path, *_: done.append((path.name, run._progress.phase)))
    run._end_phase()
    files = [tmp_path / f"weights_{epoch:04d}.npz" for epoch in averaged]
    assert done == [(files, True), "statistics of encoder", "encoder", "averaged", ("checkpoint.npz", 2)]
    assert run._progress.history == [{"epoch": 7, "phase": 2, "val_eer": 0.25, "spread": 0.5}]
    assert f"mean of the last {len(averaged)} epochs: validation EER 25.00 %" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [] and run._progress.phase_step == 0


@pytest.mark.parametrize(
    ("keep", "centred", "saved", "said"),
    [
        ("best", False, None, "best 10.00 %, last 30.00 %; kept is the best"),
        ("last", False, "encoder", "best 10.00 %, last 30.00 %; kept is the last"),
        (
            "best",
            True,
            "best.keras",
            "last 30.00 %, best less the mean of training embeddings 20.00 %; kept is the best less",
        ),
        (
            "last",
            True,
            "encoder",
            "last 30.00 %, last less the mean of training embeddings 20.00 %; kept is the last less",
        ),
    ],
)
def test_the_encoder_that_is_kept_is_the_one_that_was_asked_for(
    tmp_path, monkeypatch, capsys, keep, centred, saved, said
):
    run, done = training(tmp_path, number=3), []
    run.outcome, run._progress.best_eer = {"keep": keep, "centred": centred}, 0.1
    run._progress.history = [{"val_eer": 0.5}, {"val_eer": 0.3}]
    monkeypatch.setattr(loop.Training, "_centre", lambda _, encoder: done.append(f"centred {encoder}") or 0.2)
    monkeypatch.setattr(loop.encoders, "load", lambda path: path.name)
    monkeypatch.setattr(checkpoints, "save", lambda encoder, path: done.append((encoder, path.name)))
    run._finish()
    assert done == [*([f"centred {saved}"] if centred else []), *([(saved, "model.keras")] if saved else [])]
    assert said in capsys.readouterr().out


def test_a_training_begins_anew_or_where_its_checkpoint_says(tmp_path, monkeypatch, capsys):
    """And leaves its rows and what computed it."""
    for history in ([], [{"epoch": 0, "val_eer": 0.5}]):
        run, done = training(tmp_path, number=0), []
        run.phases = []
        run.devices = SimpleNamespace(
            build=lambda make: make(), replicas=2, agree=lambda step, done=done: done.append(("agree", step))
        )
        run.devices.facts = lambda engine: {"precision": engine["precision"]}
        model = SimpleNamespace(variables="the model's", get_weights=lambda: "of the checkpoint")
        judged = SimpleNamespace(
            twin=lambda *_, model=model: model, set_weights=lambda weights, done=done: done.append(("set", weights))
        )
        progress = checkpoints.Progress(step=4, history=list(history), steps=[{"step": 1, "loss": 0.5}])
        monkeypatch.setattr(loop, "SpeakerModel", lambda *_, judged=judged: judged)
        monkeypatch.setattr(loop, "Board", lambda folder, done=done: done.append(("board", folder.name)))
        monkeypatch.setattr(checkpoints, "read_progress", lambda path, progress=progress: progress)
        monkeypatch.setattr(checkpoints, "read_variables", lambda *read, done=done: done.append(read[1:]))
        monkeypatch.setattr(checkpoints, "digest", lambda encoder: f"digest of {encoder}")
        monkeypatch.setattr(checkpoints, "save", lambda *given_to, done=done: done.append(given_to))
        run.validation = SimpleNamespace(eer=lambda encoder: 0.75)
        for name in ("check", "try_largest_phase", "finish"):
            monkeypatch.setattr(loop.Training, f"_{name}", lambda _, name=name, done=done: done.append(name))
        found = run.run()
        begun = [("model", "the model's"), ("set", "of the checkpoint")] if history else []
        begun = begun or [("encoder", tmp_path / "initial.keras")]
        assert done == ["check", ("board", "tensorboard"), ("agree", 4), *begun, "try_largest_phase", "finish"]
        said = "resumes after epoch 0, step 4\n" if history else "untrained: validation EER 75.00 %\n"
        assert capsys.readouterr().out == said
        rows = history or [{"epoch": 0, "phase": 0, "val_eer": 0.75}]
        assert found[0] is judged and [table.to_dict("records") for table in found[1:]] == [rows, progress.steps]
        for name, table in zip(("log.csv", "steps.csv"), found[1:]):
            pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name), table)
        said = {"precision": "float32", "initial_weights": "digest of encoder"}
        assert json.loads((tmp_path / "engine.json").read_text("utf-8")) == said


@pytest.mark.parametrize(
    ("phase_step", "due", "done"),
    [
        (6, {"validate_steps", "checkpoint_steps"}, ["read", "epoch", "written"]),
        (6, set(), ["read", "epoch", "written"]),
        (5, {"validate_steps"}, ["read", "judged"]),
        (5, {"checkpoint_steps"}, ["read", "written"]),
        (5, set(), []),
    ],
)
def test_after_each_step_all_figures_are_read_before_what_is_due(tmp_path, monkeypatch, phase_step, due, done):
    run, seen = training(tmp_path, phase_step=phase_step, step=9), []
    judgement = SimpleNamespace(eer=0.25)
    monkeypatch.setattr(loop.Training, "_is_due", lambda _, name: name in due)
    monkeypatch.setattr(loop.Training, "_read", lambda _: seen.append("read"))
    monkeypatch.setattr(loop.Training, "_end_epoch", lambda _: seen.append("epoch"))
    monkeypatch.setattr(loop.Training, "_judge", lambda _: seen.append("judged") or judgement)
    monkeypatch.setattr(checkpoints, "write", lambda *given_to: seen.append(given_to))
    run._after_step()
    written = (tmp_path / "checkpoint.npz", run._model, run._progress)
    assert seen == [written if one == "written" else one for one in done]
    assert run._progress.steps == ([{"step": 9, "val_eer": 0.25}] if "judged" in done else [])


def test_what_a_training_is_seeded_by_and_begins_from_is_what_it_is_given(monkeypatch):
    """A fresh encoder, one behind a published backbone, or a trained one as it is or in the precision of now."""
    monkeypatch.setattr(loop.encoders, "build", lambda **architecture: ("built", architecture))
    monkeypatch.setattr(loop.pretrained, "begin", lambda *given_to: ("begun", *given_to))
    monkeypatch.setattr(loop.pretrained, "load", lambda name: f"loaded {name}")
    monkeypatch.setattr(loop.encoders, "in_present_policy", lambda encoder: f"{encoder} in bfloat16")
    monkeypatch.setattr(loop.devices, "described", lambda: "the CPU")
    said = {"backbone": "ecapa", "width": 7}
    assert loop.make_encoder("", said) == ("built", said)
    assert loop.make_encoder("imagenet_resnet", said) == ("begun", "imagenet_resnet", said)
    assert loop.make_encoder("own.keras", said) == "loaded own.keras"
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert loop.make_encoder("own.keras", said) == "loaded own.keras in bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
