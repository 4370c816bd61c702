"""The engine: what it refuses, what its options leave unchanged, and the same result on one device and on two."""

import contextlib
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_training import ENGINE, PHASE, small_encoder

from sv_utils import losses
from sv_utils.base import paths
from sv_utils.base.errors import RequestError, WorkError
from sv_utils.losses.contrastive import ContrastiveHead
from sv_utils.losses.cosface import CosFaceHead
from sv_utils.models import encoders
from sv_utils.models.backbones.normalization import BatchNormalization
from sv_utils.models.backbones.resnet import ResNet
from sv_utils.pipeline import keys
from sv_utils.pipeline.profile import Profile
from sv_utils.training import checkpoints, devices, loop, recomputing
from sv_utils.training.data import Data
from sv_utils.training.speaker_model import SpeakerModel


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"needs_gpu": True}, r"engine\.needs_gpu: this profile is for a GPU and TensorFlow sees none.*to false"),
        ({"jit_compile": True}, r"engine\.jit_compile: Keras has no XLA under deterministic operations"),
        ({"readers": -3}, r"engine\.readers is -1 \(one a core\)"),
    ],
)
def test_what_cannot_be_had_is_an_error_and_no_warning(options, said):
    with pytest.raises(RequestError, match=said):
        loop.start(1, ENGINE | options)


def test_options_that_exclude_each_other_are_named(monkeypatch):
    several = {"distribution": "mirrored", "deterministic": False}
    assert "XLA compiles for one device" in devices.lacks(ENGINE | several | {"jit_compile": True})
    assert "needs TensorFlow and one device" in devices.lacks(ENGINE | several | {"gradient_checkpointing": True})
    monkeypatch.setattr(devices, "_gpus", lambda: [(7, 5)])
    assert "no bfloat16" in devices.lacks(ENGINE | {"needs_gpu": True, "precision": "mixed_bfloat16"})
    monkeypatch.setattr(devices, "_gpus", lambda: [(8, 0)])
    assert devices.lacks(ENGINE | {"needs_gpu": True, "precision": "mixed_bfloat16"}) == ""


def test_the_device_is_printed_as_tensorflow_names_it(capsys):
    loop.start(1, ENGINE)
    assert "device: the CPU (TensorFlow sees no GPU)" in capsys.readouterr().out


@pytest.mark.parametrize(("precision", "deterministic"), [("float32", False), ("mixed_bfloat16", True)])
def test_a_training_draws_by_its_seed_and_computes_as_its_engine_says(monkeypatch, precision, deterministic):
    import tensorflow

    seen = []
    monkeypatch.setattr(keras.utils, "set_random_seed", seen.append)
    monkeypatch.setattr(keras.config, "set_dtype_policy", seen.append)
    monkeypatch.setattr(tensorflow.config.experimental, "enable_op_determinism", lambda: seen.append("the same"))
    monkeypatch.setattr(loop, "Devices", lambda kind: seen.append(kind) or SimpleNamespace(replicas=1))
    loop.start(5, ENGINE | {"precision": precision, "deterministic": deterministic})
    assert seen == ["one", precision, 5, *(["the same"] if deterministic else [])]


@pytest.mark.parametrize(
    ("precision", "own", "limit"),
    [("float32", "", None), ("mixed_bfloat16", "", "AVX512_CORE_FP16"), ("mixed_bfloat16", "AVX2", "AVX2")],
)
def test_a_training_in_bfloat16_spares_amx(monkeypatch, precision, own, limit):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", own)
    if not own:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(keras.config, "set_dtype_policy", lambda name: None)
    loop.start(1, ENGINE | {"precision": precision, "deterministic": False})
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == limit


def test_a_single_device_is_not_several():
    with pytest.raises(RequestError, match="'mirrored' needs two devices"):
        devices.Devices("mirrored")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (paths.REPO / "params").glob("voxceleb_*.yaml")))
def test_recipes_for_a_gpu_ask_for_one_with_xla_and_can_have_it(profile, monkeypatch):
    monkeypatch.delenv("SV_PARAMS", raising=False)
    monkeypatch.setattr(devices, "_gpus", lambda: [(8, 6)])
    engines = [p["engine"] for p in Profile.read(profile).parameters.values() if "engine" in p]
    assert len(engines) == (profile != "voxceleb_known")  # which trains nothing
    for engine in engines:
        assert engine["needs_gpu"] and not engine["deterministic"]
        assert engine["jit_compile"] != profile.startswith("voxceleb_redimnet2"), "XLA was seen to fail for these"
        assert devices.lacks(engine) == ""


def test_ways_do_not_count_in_content_keys():
    assert keys._counted({"workers": 3, "engine": {"readers": 4, "needs_gpu": True, "precision": "float32"}}) == {
        "engine": {"precision": "float32"}
    }


def test_each_machine_makes_its_own_part_from_the_step_on_where_it_goes_on(monkeypatch):
    """By threads of its own, and by processes."""
    asked = []
    dataset = SimpleNamespace(rebatch=lambda size, drop_remainder: [size])
    crops = SimpleNamespace(batch_size=8, dataset=lambda *given: asked.append(given) or dataset)
    reader = contextlib.nullcontext(SimpleNamespace(batch="made"))
    monkeypatch.setattr(devices.readers, "Readers", lambda *given: asked.append(given) or reader)
    second = SimpleNamespace(input_pipeline_id=1, num_input_pipelines=2)
    where = devices.Devices()
    where.strategy = SimpleNamespace(num_replicas_in_sync=2, distribute_datasets_from_function=lambda of: of(second))
    for processes in (0, 3):
        with where.batches(crops, 7, processes) as batches:
            assert next(batches) == 4
    assert asked == [(7, 1, 2, None), (crops, 3, 7, 1, 2), (7, 1, 2, "made")]


def residual():
    """A small encoder with residual blocks, so that one tensor alone leads on only between them."""
    keras.utils.set_random_seed(0)
    x = waveform = keras.Input((None,))
    x = keras.layers.GlobalAveragePooling2D()(ResNet(18, 2, "thin")(keras.layers.Reshape((-1, 16, 1))(x)))
    return keras.Model(waveform, encoders.UnitVectors()(keras.layers.Dense(4)(x)))


def test_gradient_checkpointing_changes_no_number():
    waveforms = np.random.default_rng(0).standard_normal((3, 640)).astype(np.float32)
    found = []
    for checkpointing in (False, True):
        encoder = residual()
        embed = recomputing.recomputed(encoder) if checkpointing else encoder
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.sum(embed(waveforms, training=True)[:, 0])
        gradients = tape.gradient(loss, [variable.value for variable in encoder.trainable_variables])
        found.append([float(loss), *gradients, *encoder.get_weights()])
    assert len(recomputing._blocks(encoder)) >= 8, "a block or less at a time"
    for plain, again in zip(*found, strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-6)


def test_a_twin_is_made_for_its_devices_and_computes_again_where_it_is_told_to(monkeypatch):
    x = waveform = keras.Input((None,))
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 1))(x))
    encoder = keras.Model(waveform, keras.layers.BatchNormalization()(keras.layers.Dense(2)(x)))
    seen = []
    monkeypatch.setattr(recomputing, "recomputed", lambda encoder: seen.append(encoder) or encoder.__call__)
    model = SpeakerModel(encoder, ContrastiveHead())
    assert model.twin(1, False).replicas == 1 and not seen
    twin = model.twin(3, True)
    assert seen == [twin.encoder] and twin.replicas == 3 and twin.encoder.layers[-1].synchronized
    assert not encoder.layers[-1].synchronized


def test_a_block_that_draws_is_not_computed_twice():
    """Random masks would be others the second time, and the gradient that of another batch."""
    assert any(map(recomputing._draws, recomputing._blocks(small_encoder())))
    assert not any(map(recomputing._draws, recomputing._blocks(small_encoder(masks=False))))


def test_batch_normalisation_keeps_bfloat16_maps_and_float32_statistics():
    maps = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 2)).astype(np.float32)
    outputs = []
    for policy in ("float32", "mixed_bfloat16"):
        layer = BatchNormalization(momentum=0.0, dtype=policy)
        outputs.append((layer(maps, training=True), *map(np.asarray, layer.non_trainable_weights)))
    assert outputs[1][0].dtype == "bfloat16"
    assert all(values.dtype == np.float32 for values in outputs[1][1:])
    np.testing.assert_allclose(outputs[1][1], outputs[0][1], rtol=5e-3)
    np.testing.assert_allclose(outputs[1][2], outputs[0][2], rtol=1e-2)
    np.testing.assert_allclose(np.asarray(outputs[1][0], np.float32), outputs[0][0], atol=0.03)


def training(prep, directory, phases, **engine):
    """A training of the prepared tones that was not begun."""
    where = loop.start(5, ENGINE | engine)
    data = Data.read(prep)
    crops = data.crops(phases, batch_size=8, seed=5)
    directory.mkdir()
    accuracy = keras.metrics.sparse_categorical_accuracy
    head = CosFaceHead(crops[0].n_classes)
    return loop.Training(
        small_encoder(), head, crops, data.validation, directory, phases, accuracy, where, ENGINE | engine
    )


def test_each_phase_has_its_batch_size_and_the_largest_is_tried_before_the_first_step(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    short = PHASE | {"epochs": 1, "steps_per_epoch": 1}
    phases = [short, short | {"batch_size": 4, "crop_seconds": 0.7, "accumulate": 2}]
    run = training(prep, tmp_path / "small", phases)
    assert [crops.batch_size for crops in run.crops] == [8, 4]
    tried, compiled = [], devices.Devices.step

    def step_and_note(where, model):
        step = compiled(where, model)

        def noted(batch, settings, ends):
            tried.append((run._progress.phase, batch[0].shape[0], run._progress.step))
            if batch[0].shape[0] > 8:
                raise type("ResourceExhaustedError", (Exception,), {})
            return step(batch, settings, ends)

        return noted

    monkeypatch.setattr(devices.Devices, "step", step_and_note)
    run.run()
    assert tried == [(0, 8, 0), (1, 4, 1)], "4 crops of 0.7 s are fewer samples than 8 of 0.5 s"
    tried.clear()
    run = training(prep, tmp_path / "large", [short, short | {"batch_size": 16}])
    with pytest.raises(
        RequestError, match=r"phases\[1\] does not fit into the memory of the CPU.*halve its batch_size"
    ):
        run.run()
    assert tried == [(1, 16, 0)]


def test_a_training_that_goes_on_tries_the_largest_of_the_phases_to_come():
    tried = []
    crops = [SimpleNamespace(batch_size=size, crop_samples=3) for size in (16, 4, 8)]
    progress = SimpleNamespace(phase=1)
    run = SimpleNamespace(crops=crops, _progress=progress, _model=SimpleNamespace(variables=[]))
    run._compile = lambda: tried.append(progress.phase) or 1 / 0
    with pytest.raises(ZeroDivisionError):
        loop.Training._try_largest_phase(run)
    assert tried == [2], "16 crops were trained on already"
    loop.Training._try_largest_phase(run)  # within the largest phase itself
    assert tried == [2]


def test_what_xla_cannot_compile_is_said_with_the_mend():
    def fail(name, jit):
        engine = {"jit_compile": jit}
        with loop.Training._on_the_device(SimpleNamespace(engine=engine), 1):
            raise type(name, (Exception,), {})("failed to compile a dot")

    with pytest.raises(RequestError, match=r"phases\[1\] fails under XLA on the CPU.*a dot.*jit_compile to false"):
        fail("InternalError", True)
    for name, jit in (("InternalError", False), ("ValueError", True)):
        with pytest.raises(Exception, match="a dot"):
            fail(name, jit)


def test_first_weights_are_drawn_on_the_cpu_where_there_is_a_gpu(monkeypatch):
    """A GPU rounds its draws otherwise: on an H200 the untrained encoder of mini had other weights, and another EER."""
    on, real = [], keras.device

    def build():
        model = keras.Sequential([keras.layers.Dense(3)])
        model.build((1, 2))
        if not on:  # as a GPU rounds
            model.set_weights([weight + 1e-7 for weight in model.get_weights()])
        return model

    @contextlib.contextmanager
    def device(name):
        on.append(name)
        with real(name):
            yield
        on.clear()

    monkeypatch.setattr(keras, "device", device)
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Dense(3)])
    model.build((1, 2))
    wanted, after = model.get_weights(), random.random()
    monkeypatch.setattr(devices, "described", lambda: "GPU 0: a card")
    keras.utils.set_random_seed(7)
    drawn = loop._drawn_on_the_cpu(build)
    assert all(map(np.array_equal, drawn.get_weights(), wanted)), "the draws of the CPU"
    assert random.random() == after, "what is drawn next is the same too"


def test_a_trial_leaves_no_trace(prep, tmp_path, monkeypatch):
    monkeypatch.setenv("SV_OUTPUTS", str(prep))
    short = PHASE | {"epochs": 1, "steps_per_epoch": 2}
    run, ends = training(prep, tmp_path / "tried", [short, short | {"batch_size": 12}]), []
    monkeypatch.setattr(loop.Training, "_run_phase", lambda self: self._progress.__dict__.update(phase=2))
    run.run()
    before, after = (model.get_weights() for model in (run._judged, run._model))
    ends.append(all(map(np.array_equal, before, after)))
    assert ends == [True] and run._progress.step == 0


def test_losses_are_read_late_and_none_that_is_not_finite_gets_past(tmp_path, monkeypatch):
    """What is judged or kept comes after a look at all losses before it; the step is named that went wrong."""
    run = object.__new__(loop.Training)
    run.engine, run.phases = {"checkpoint_steps": 4, "validate_steps": 0}, [{"steps_per_epoch": 1000, "clip_norm": 0.0}]
    run.crops = [SimpleNamespace(batch=lambda step: (np.full(1, step, np.float32), None), batch_size=1, labels=[0])]
    run.outcome = {"keep": "best", "centred": False}
    run.directory, run._unread, run._progress = tmp_path, [], checkpoints.Progress()
    run._model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.1))
    monkeypatch.setattr(loop, "why_not_finite", lambda waveforms, *_: f"batch {waveforms[0]:.0f}")
    for value in (1.0, 2.0, float("nan")):
        run._note({"loss": np.float32(value)})
        run._after_step()
    assert run._progress.sums == {} and len(run._unread) == 3
    run._note({"loss": np.float32(4.0)})
    with pytest.raises(WorkError, match="the loss is nan in step 3: batch 2"):
        run._after_step()
    assert not list(tmp_path.iterdir()), "no checkpoint of what has diverged"


@pytest.mark.parametrize(
    "names",
    [
        *([name] for name in losses.LOSSES),
    ],
)
@pytest.mark.long
def test_two_devices_take_the_step_of_one_with_every_loss(names):
    """Losses, weights, scale, averages and sums of gradients; also where two batches make one step."""
    line = [sys.executable, str(paths.REPO / "tests/helpers/replicas.py"), *names]
    here = {**os.environ, "PYTHONPATH": str(paths.REPO)}
    ran = subprocess.run(line, capture_output=True, text=True, cwd=paths.REPO, env=here)
    rows = [row.split() for row in ran.stdout.splitlines() if row.split()[0] in names]
    assert len(rows) == 2, ran.stderr[-2000:]
    for row in rows:
        assert all(float(gap) < 5e-4 for gap in row[2:]), row
