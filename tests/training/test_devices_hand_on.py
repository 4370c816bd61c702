"""What devices, readers, checkpoints and the trained model hand on, with stand-ins for devices that are not here."""

import contextlib
import functools
import hashlib
import io
import pickle
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_training import ENGINE, PHASE

from sv_utils.base.errors import RequestError, WorkError
from sv_utils.models import encoders, features
from sv_utils.training import batches, board, checkpoints, devices, readers, schedules, speaker_model, validation


def test_what_computes_a_training_is_said_in_words(monkeypatch):
    from tensorflow import config

    gpus = {"gpu 0": {"device_name": "NVIDIA H100", "compute_capability": (9, 0)}, "gpu 1": {}}
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: list(gpus) if kind == "GPU" else ["CPU:0"])
    monkeypatch.setattr(config.experimental, "get_device_details", gpus.__getitem__)
    assert devices.described() == "GPU 0: NVIDIA H100, GPU 1: a GPU without a name"
    assert devices._gpus() == [(9, 0), (9, 9)]
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert devices.described() == "the torch backend's own device"


def test_the_record_says_what_changes_digits(monkeypatch):
    monkeypatch.setattr(devices.machine, "tensorflow_devices", lambda: ["CPU:0 of a kind"])
    engine = {"precision": "mixed_bfloat16", "deterministic": True, "jit_compile": False, "readers": 3}
    where = devices.Devices()
    said = {"precision": "mixed_bfloat16", "deterministic": True, "jit_compile": False, "distribution": "one"}
    expected = {"backend": "tensorflow", "devices": ["CPU:0 of a kind"], **said, "replicas": 1}
    assert where.facts(engine | {"distribution": "one"}) == expected
    where.strategy = SimpleNamespace(num_replicas_in_sync=2)
    assert where.facts({}) == {"backend": "tensorflow", "devices": ["CPU:0 of a kind"], "replicas": 2}
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cuda:0"])
    assert where.facts({})["devices"] == ["cuda:0"]


def test_another_backend_has_one_device_alone(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    where = devices.Devices("one")
    assert where.strategy is None and where.replicas == 1 and where.build(lambda: "made") == "made"
    where.agree(5)
    with pytest.raises(RequestError, match="distribution 'mirrored' needs the TensorFlow backend, not jax"):
        devices.Devices("mirrored")
    monkeypatch.setattr(devices, "_gpus", lambda: 1 / 0)
    needed = ENGINE | {"needs_gpu": True, "jit_compile": True}
    assert devices.lacks(needed) == "", "JAX itself says what it lacks"
    assert devices.lacks(ENGINE | {"gradient_checkpointing": True}).startswith("gradient_checkpointing: it needs Tens")


@pytest.mark.parametrize(
    ("options", "gpus", "named"),
    [
        ({}, [], ""),
        ({"needs_gpu": True}, [], "needs_gpu"),
        ({"needs_gpu": True}, [(8, 0)], ""),
        ({"jit_compile": True, "deterministic": False}, [], ""),
        ({"jit_compile": True}, [], "jit_compile"),
        ({"distribution": "mirrored", "deterministic": False}, [], ""),
        ({"distribution": "mirrored", "deterministic": False, "jit_compile": True}, [], "jit_compile"),
        ({"gradient_checkpointing": True}, [], ""),
        ({"gradient_checkpointing": True, "distribution": "mirrored"}, [], "gradient_checkpointing"),
        ({"precision": "mixed_bfloat16"}, [], ""),
        ({"precision": "mixed_bfloat16"}, [(8, 0), (7, 5)], "precision"),
        ({"precision": "mixed_float16"}, [(7, 5)], ""),
    ],
)
def test_an_option_is_refused_where_it_cannot_be_had_and_nowhere_else(monkeypatch, options, gpus, named):
    monkeypatch.setattr(devices, "_gpus", lambda: gpus)
    assert devices.lacks(ENGINE | options).partition(":")[0] == named


def test_what_is_built_for_several_devices_lives_on_all():
    where, within = devices.Devices(), []

    @contextlib.contextmanager
    def scope():
        within.append(True)
        yield
        within.pop()

    where.strategy = SimpleNamespace(scope=scope)
    assert where.build(lambda: list(within)) == [True]


@pytest.mark.parametrize("cluster", [None, "no json", "[]", "{}", '{"task": {}}', '{"task": {"index": 1}}'])
def test_a_worker_is_told_what_its_machine_must_say(monkeypatch, cluster):
    from tensorflow import distribute

    monkeypatch.setattr(distribute, "MultiWorkerMirroredStrategy", lambda: "all workers")
    monkeypatch.setattr(distribute, "MirroredStrategy", lambda: "all GPUs")
    monkeypatch.setenv("TF_CONFIG", cluster or "")
    if cluster is None:
        monkeypatch.delenv("TF_CONFIG")
    if cluster and "index" in cluster:
        assert devices._strategy("multi_worker") == "all workers" and devices._strategy("mirrored") == "all GPUs"
    else:
        with pytest.raises(RequestError, match=r"needs \$TF_CONFIG with cluster and task"):
            devices._strategy("multi_worker")


def test_batches_that_devices_cannot_share_are_refused_and_the_last_part_is_whole():
    where, given = devices.Devices(), []
    where.strategy = SimpleNamespace(num_replicas_in_sync=3, distribute_datasets_from_function=lambda of: of(machine))
    machine = SimpleNamespace(input_pipeline_id=0, num_input_pipelines=1)
    dataset = SimpleNamespace(rebatch=lambda *asked, **named: given.append((asked, named)) or ["a batch"])
    crops = SimpleNamespace(batch_size=8, dataset=lambda *asked: dataset)
    with pytest.raises(RequestError, match="batch_size 8 cannot be shared by 3 devices"), where.batches(crops, 0):
        pass
    crops.batch_size = 9
    with where.batches(crops, 0) as found:
        assert next(found) == "a batch" and given == [((3,), {"drop_remainder": True})]


def test_one_device_gets_the_whole_batch_and_readers_end_with_it(monkeypatch):
    from tensorflow import config

    where, asked, ended = devices.Devices(), [], []
    dataset = SimpleNamespace(apply=lambda change: [change])
    crops = SimpleNamespace(batch_size=8, dataset=lambda *given: asked.append(given) or dataset)
    made = SimpleNamespace(batch="made", failure=None)

    @contextlib.contextmanager
    def reader(*given):
        asked.append(given)
        yield made
        ended.append(given)

    monkeypatch.setattr(devices.readers, "Readers", reader)
    monkeypatch.setattr(config, "list_logical_devices", lambda kind: [SimpleNamespace(name=f"{kind}:0")])
    monkeypatch.setattr("tensorflow.data.experimental.prefetch_to_device", lambda *given: given)
    with where.batches(crops, 7, 2) as found:
        assert next(found) == ("GPU:0", 2) and ended == []
    assert asked == [(crops, 2, 7, 0, 1), (7, 0, 1, "made")] and len(ended) == 1


def test_what_a_reader_says_is_told_instead_of_tensorflows_error():
    def batches():
        yield "first"
        raise ValueError("a long story of TensorFlow's")

    failed = SimpleNamespace(failure=WorkError("the reader has died"))
    for made, kind in (([SimpleNamespace(failure=None), failed], WorkError), ([], ValueError)):
        told = devices._told(batches(), made)
        assert next(told) == "first"
        with pytest.raises(kind):
            next(told)


# Several batches a step, on several devices


def test_gradients_of_several_batches_are_added_up_over_all_devices():
    """
    Of two devices the one that is here: gradients 1, then 3; the sums are over both, of which the other had as much.

    With decay 0.5 and rate 0.1: w (1 - 0.05) - 0.1 (3 + 1 / 2) / 2, and then each device's part is summed again.
    """
    phase = PHASE | {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.5, "accumulate": 2, "ema": 0.25}
    optimizer, weight = schedules.optimizer(phase, False, 2), keras.Variable([1.0], name="kernel")
    optimizer.build([weight])
    count, seen = devices._count_together(optimizer, 2), []
    for number, gradient in enumerate((1.0, 3.0, 2.0, 2.0)):
        count(number % 2 == 1)
        optimizer.apply([keras.ops.convert_to_tensor([gradient])], [weight])
        seen.append(float(weight[0]))
    first = 0.95 - 0.1 * 1.75
    assert seen == pytest.approx([1, first, first, 0.95 * first - 0.1 * 1.5])
    averaged = float(optimizer._model_variables_moving_average[0][0])
    assert averaged != pytest.approx(seen[-1]) and averaged != pytest.approx(1.0), "the average follows each batch"
    clipped = schedules.optimizer(phase | {"clip_norm": 1.0, "weight_decay": 0.0, "ema": 0.0}, False, 2)
    clipped.build([weight])
    weight.assign([1.0])
    count = devices._count_together(clipped, 2)
    for ends in (False, True):
        count(ends)
        clipped.apply([keras.ops.convert_to_tensor([8.0])], [weight])
    assert float(weight[0]) == pytest.approx(1 - 0.1 * 0.5), "each device's part is half of the norm"
    plain = schedules.optimizer(phase | {"accumulate": 1}, False, 2)
    assert devices._count_together(plain, 2)(True) is None


@pytest.mark.parametrize("compares", [True, False])
def test_a_head_that_compares_rows_gets_those_of_all_devices(monkeypatch, compares):
    import tensorflow as tf

    seen = []
    head = SimpleNamespace(compares_rows=compares, loss=lambda *given: seen.append(given) or keras.ops.sum(given[1]))
    together = SimpleNamespace(all_gather=lambda part, axis: tf.concat([part, part + 1], axis))
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: together)
    model = SimpleNamespace(replicas=2, head=head)
    model._whole = functools.partial(speaker_model.SpeakerModel._whole, model)
    labels, outputs = tf.constant([3, 4], "int32"), tf.constant([[1.0], [2.0]])
    loss = speaker_model.SpeakerModel.compute_loss(model, None, labels, outputs)
    rows = ([3, 4, 4, 5], [[1.0], [2.0], [2.0], [3.0]]) if compares else ([3, 4], [[1.0], [2.0]])
    assert [np.asarray(part).tolist() for part in seen[0]] == list(rows) and seen[0][0].dtype == tf.int32
    assert float(loss) == sum(np.ravel(rows[1])) / 2
    model.replicas = 1
    assert model._whole(labels, outputs) == (labels, outputs)


# Optimizers and checkpoints


def test_an_optimizer_has_what_its_phase_says():
    said = {"learning_rate": 0.25, "momentum": 0.75, "nesterov": True, "weight_decay": 0.5, "clip_norm": 3.0}
    said |= {"ema": 0.25, "accumulate": 2, "optimizer": "sgd"}
    made = schedules.optimizer(PHASE | said)
    expected = {"momentum": 0.75, "nesterov": True, "weight_decay": 0.5, "global_clipnorm": 3.0, "use_ema": True}
    expected |= {"ema_momentum": 0.5, "gradient_accumulation_steps": 2}
    assert {name: getattr(made, name) for name in expected} == expected
    assert float(made.learning_rate) == pytest.approx(0.25) and type(made).__name__ == "SGD"
    adam = schedules.optimizer(PHASE | said | {"optimizer": "adamw", "accumulate": 1, "ema": 0.0})
    found = (type(adam).__name__, adam.weight_decay, adam.gradient_accumulation_steps, adam.use_ema)
    assert found == ("Adam", 0.5, None, False)
    scaled = schedules.optimizer(PHASE | said, True)
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer) and scaled.inner_optimizer.momentum == 0.75


def line():
    """A model of one weight w, from 1, with the loss w x."""
    x = keras.Input((1,))
    return keras.Model(x, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(x))


@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_judged_is_the_moving_average_where_the_optimizer_keeps_one(scaled):
    model, target = line(), line()
    phase = PHASE | {"learning_rate": 0.125, "momentum": 0.0, "weight_decay": 0.0, "ema": 0.5}
    model.compile(schedules.optimizer(phase, scaled), loss=lambda _, y: keras.ops.mean(y), run_eagerly=True)
    for _ in range(2):
        model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
    checkpoints.copy_weights(model, target)
    found = [float(np.squeeze(one.get_weights()[0])) for one in (model, target)]
    assert found == pytest.approx([0.75, 0.5 * 0.875 + 0.5 * 0.75])


def test_a_checkpoint_gives_back_all_that_was_written(tmp_path):
    model, path = line(), tmp_path / "checkpoint.npz"
    model.compile(schedules.optimizer(PHASE), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.weights[0].assign([[5.0]])
    for number, variable in enumerate(model.optimizer.variables):
        variable.assign(keras.ops.full(variable.shape, number + 2, dtype=variable.dtype))
    kept = [np.asarray(v).tolist() for v in model.optimizer.variables]
    progress = checkpoints.Progress(1, 2, 3, 4, {"loss": 5.0}, 6.0, 7.0, 8.0, 9.0, 10, [{"a": 11}], [{"b": 12}])
    assert checkpoints.read_progress(path) == checkpoints.Progress()
    checkpoints.write(path, model, progress)
    assert checkpoints.read_progress(path) == progress
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(keras.ops.zeros_like(variable))
    checkpoints.read_variables(path, "model", model.variables)
    checkpoints.read_variables(path, "optimizer", model.optimizer.variables)
    assert model.get_weights()[0].tolist() == [[5.0]]
    assert [np.asarray(v).tolist() for v in model.optimizer.variables] == kept
    for other in ([keras.Variable([1.0, 2.0])], [*model.variables, *model.variables]):
        with pytest.raises(RequestError, match=r"checkpoint\.npz is the checkpoint of another model"):
            checkpoints.read_variables(path, "model", other)
    assert checkpoints.digest(model) == hashlib.sha256(np.float32(5).tobytes()).hexdigest()


def test_statistics_are_renewed_with_the_same_masks_each_time():
    features_in = keras.Input((6, 4))
    x = keras.layers.BatchNormalization(momentum=0.5)(features.SpecAugment(5, 3, seed=1)(features_in))
    model, found = keras.Model(features_in, x), []
    for _ in range(2):
        checkpoints.renew_statistics(model, [np.ones((8, 6, 4), np.float32)])
        found.append(model.layers[-1].moving_mean.numpy().tolist())
    assert found[0] == found[1] and max(found[0]) < 1, "a resumed training draws them anew"
    model.layers[-1].trainable = False
    checkpoints.renew_statistics(model, [np.zeros((8, 6, 4), np.float32)])
    assert model.layers[-1].moving_mean.numpy().tolist() == found[0], "a layer at rest keeps its own"


@pytest.mark.parametrize("kind", ["bias", "beta"])
def test_the_mean_is_taken_off_what_the_last_layer_adds(kind):
    x = keras.Input((2,))
    last = keras.layers.Dense(2) if kind == "bias" else keras.layers.BatchNormalization()
    model = keras.Model(x, encoders.UnitVectors()(last(x)))
    shift = checkpoints.shift(model)
    assert shift.name == kind
    if kind == "beta":
        return
    shift.assign([1.0, 2.0])
    raw, batches = encoders.unnormalised(model), [np.eye(2, dtype="float32"), 3 * np.ones((1, 2), "float32")]
    mean = np.mean([np.asarray(raw(batch)).mean(axis=0) for batch in batches], axis=0)
    checkpoints.centre(model, batches)
    np.testing.assert_allclose(np.asarray(shift), [1 - mean[0], 2 - mean[1]], rtol=1e-5)


def test_vectors_that_are_no_points_are_judged_as_such(monkeypatch):
    """Zero vectors have no cosine; what is not finite is left to the loop."""
    speech = SimpleNamespace(samples="lengths", waveform="read")
    trials = validation.ValidationTrials(speech, np.array([1, 0, 1]), np.array([0, 1, 2]), np.array([1, 2, 0]))
    vectors, asked = np.array([[0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], np.float32), []
    monkeypatch.setattr(validation.embedding, "embed", lambda *given: asked.append(given) or vectors)
    found = trials.judge("encoder")
    assert asked == [("encoder", "lengths", "read")]
    assert found.target.tolist() == pytest.approx([0.8, 0.6]) and found.nontarget.tolist() == [0.0]
    assert trials.scores("encoder")[0].tolist() == found.target.tolist() and trials.eer("encoder") == found.eer == 0.0
    assert validation.Judgement(np.array([0.0]), np.array([0.5]), 0.5).eer == 1.0
    vectors[1] = 0
    found = trials.judge("encoder")
    assert found.target.tolist() == [0, 0] and found.finite
    vectors[1] = np.nan
    assert not trials.judge("encoder").finite


def test_points_of_curves_stand_at_their_step(tmp_path):
    seen, within = [], []

    @contextlib.contextmanager
    def at(step):
        within.append(step)
        yield
        within.pop()

    made = board.Board(tmp_path)
    made._writer = SimpleNamespace(as_default=at, flush=lambda: seen.append("flushed"))
    made._summary = SimpleNamespace(
        scalar=lambda *given: seen.append((within[-1], *given)),
        histogram=lambda *given: seen.append((within[-1], *given)),
    )
    made.judgement(7, SimpleNamespace(eer=0.25, spread=0.5, target="targets", nontarget="non-targets"))
    assert seen == [
        (7, "validation/EER", 25.0),
        (7, "validation/spread", 0.5),
        (7, "scores/target", "targets"),
        (7, "scores/non-target", "non-targets"),
        "flushed",
    ]


# Readers


class Three:
    """Batches that fail at the third, from which on their maker says why."""

    batch_size, crop_samples = 4, 3

    def __init__(self, error):
        self.error = error

    def batch(self, step, worker, workers):
        if step >= 9:
            raise self.error
        print("what a library says")
        return np.full((2, 3), step, np.float32), np.full(2, 10 * worker + workers, np.int32)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RequestError("the shard is gone"), RequestError, "^the shard is gone$"),
        (WorkError("no memory"), WorkError, "^no memory$"),
        (KeyError("speed"), WorkError, "^a batch cannot be made: KeyError: 'speed'$"),
    ],
)
def test_a_reader_makes_its_batches_and_says_why_it_cannot(monkeypatch, error, kind, said):
    """`main` as a process would run it, with its pipes and its memory here."""
    work = pickle.dumps((Three(error), 1, 2))
    asks = io.BytesIO(len(work).to_bytes(8, "little") + work + readers.FREE * 9)
    answers, memory, duplicated = io.BytesIO(), readers._memory(2 * readers._slot_size((2, 3))), []
    answers.close = lambda: duplicated.append("closed")
    monkeypatch.setattr(readers.sys, "stdin", SimpleNamespace(buffer=asks))
    monkeypatch.setattr(readers.os, "dup", lambda number: 99)
    monkeypatch.setattr(readers.os, "dup2", lambda *pair: duplicated.append(pair))
    monkeypatch.setattr(readers.os, "fdopen", lambda number, mode: answers)
    monkeypatch.setattr(readers.signal, "signal", lambda *given: duplicated.append(given))
    readers.main(memory, 5, 2)
    ignored = (readers.signal.SIGINT, readers.signal.SIG_IGN)
    assert duplicated == [ignored, (2, 1), "closed"]
    assert answers.getvalue().startswith(readers.READY * 2 + readers.FAILED)
    slots = readers._slots(memory, (2, 3))
    assert [(waves.min(), classes.tolist()) for waves, classes in slots] == [(5.0, [12, 12]), (7.0, [12, 12])]
    with pytest.raises(kind, match=said):
        raise pickle.loads(answers.getvalue()[3:])


def test_a_reader_ends_with_the_training(monkeypatch):
    class Ended(Exception):
        pass

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(readers.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"short")))
    monkeypatch.setattr(readers.os, "dup", lambda number: 99)
    monkeypatch.setattr(readers.os, "dup2", lambda *pair: None)
    monkeypatch.setattr(readers.os, "fdopen", lambda number, mode: io.BytesIO())
    monkeypatch.setattr(readers.signal, "signal", lambda *given: None)
    monkeypatch.setattr(readers.os, "_exit", end)
    with pytest.raises(Ended, match=r"^0$"):
        readers.main(0, 5, 2)


def test_a_reader_has_one_thread_and_this_very_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = readers._environment()
    assert found["PYTHONPATH"] == f"{readers.paths.REPO}:elsewhere"
    assert (found["OMP_NUM_THREADS"], found["OPENBLAS_NUM_THREADS"]) == ("1", "1") and "PATH" in found


def test_readers_share_the_steps_of_their_worker(monkeypatch):
    made = []
    monkeypatch.setattr(readers, "_Reader", lambda *given: made.append(given) or SimpleNamespace(take=lambda: given[1]))
    crops = SimpleNamespace(batch_size=12, crop_samples=5)
    several = readers.Readers(SimpleNamespace(**vars(crops)), 3, 7, 1, 4)
    assert [(steps.start, steps.step, shape) for _, steps, shape in made] == [(n, 3, (3, 5)) for n in (7, 8, 9)]
    assert pickle.loads(made[0][0])[1:] == (1, 4)
    assert [several.batch(step).start for step in (7, 8, 9, 10)] == [7, 8, 9, 7]


def test_batches_are_made_by_as_many_threads_as_it_takes(monkeypatch):
    """By two threads of this process, or one that asks the readers, for the batches of the worker, in their order."""
    import tensorflow as tf

    seen, asked = [], []

    class Steps:
        def map(self, load, **options):
            seen.append(options)
            self.load = load
            return self

        def prefetch(self, count):
            return self.load(tf.constant(7, tf.int64))

    monkeypatch.setattr(tf.data.Dataset, "range", lambda *given: seen.append(given[0]) or Steps())
    monkeypatch.setattr(tf, "numpy_function", lambda make, inputs, *_, **__: asked.append(make) or make(int(inputs[0])))
    crops = batches.Crops(SimpleNamespace(), np.array([0, 1]), 4, 3, seed=1)
    made = lambda step: (np.full((2, 3), step, np.float32), np.zeros(2, np.int32))  # noqa: E731
    found = crops.dataset(5, 1, 2, made)
    assert found[0].shape == (2, 3) and float(found[0][0, 0]) == 7 and found[1].shape == (2,)
    assert seen == [5, {"num_parallel_calls": 1, "deterministic": True}]
    monkeypatch.setattr(
        batches.Crops, "batch", lambda _, step, **worker: (*made(step)[:1], np.array([*worker.values()], np.int32))
    )
    assert np.asarray(crops.dataset(6, 1, 2)[1]).tolist() == [1, 2]
    assert seen[2:] == [6, {"num_parallel_calls": 2, "deterministic": True}]


class Pipe(io.BytesIO):
    """A pipe that takes three bytes at a time and breaks where it is told to."""

    broken = False

    def write(self, content):
        if self.broken:
            raise BrokenPipeError
        return super().write(bytes(content[:3]))


def test_a_reader_is_a_process_of_its_own_that_is_given_its_work_once(monkeypatch):
    """Its answers, batch by batch out of two slots; and what it says when there are no more."""
    made, asks, done = [], Pipe(), []
    steps = [readers.READY * 3 + readers.FAILED + pickle.dumps(RequestError("the shard is gone"))]
    process = SimpleNamespace(stdin=asks, stdout=io.BytesIO(steps[0]))
    process.kill, process.wait = lambda: done.append("killed"), lambda: done.append("waited for")
    monkeypatch.setattr(readers.subprocess, "Popen", lambda *given, **named: made.append((*given, named)) or process)
    monkeypatch.setattr(readers, "_environment", lambda: "environment")
    one = readers._Reader(b"the work", range(7, 99, 3), (2, 4))
    ((line, options),) = made
    (memory,) = options.pop("pass_fds")
    assert line == [readers.sys.executable, "-m", "sv_utils.training.readers", str(memory), "7", "3"]
    pipes = dict.fromkeys(("stdin", "stdout"), readers.subprocess.PIPE)
    assert options == {**pipes, "env": "environment", "bufsize": 0}
    assert asks.getvalue() == (8).to_bytes(8, "little") + b"the work"
    with pytest.raises(OSError, match="Bad file descriptor"):
        readers.os.fstat(memory)
    for number, (waves, classes) in enumerate(one._slots):
        waves[:], classes[:] = number + 1, number + 10
    found = [one.take() for _ in range(2)]
    asks.broken = True  # it has died after its last answer, which is still good
    found.append(one.take())
    assert [(waves.shape, waves.max(), classes.tolist()) for waves, classes in found] == [
        ((2, 4), 1.0, [10, 10]),
        ((2, 4), 2.0, [11, 11]),
        ((2, 4), 1.0, [10, 10]),
    ]
    assert asks.getvalue().endswith(b"work" + 2 * readers.FREE)
    one._slots[0][0][:] = 99
    assert found[0][0].max() == 1.0, "a copy: the slot is given back"
    with pytest.raises(RequestError, match="the shard is gone"):
        one.take()
    process.stdout.read()
    with pytest.raises(WorkError, match=r"has died, perhaps for want of memory: set engine\.readers to fewer"):
        one.take()
    one.kill()
    assert done == ["killed", "waited for"] and asks.closed


def test_a_step_sets_the_rate_of_the_optimizer_and_the_variables_of_the_head():
    model = SimpleNamespace(optimizer=SimpleNamespace(), head=SimpleNamespace())
    model.head.margin, model.head.hard_share = keras.Variable(0.0), keras.Variable(0.0)
    speaker_model.SpeakerModel.set(model, {"learning_rate": 0.25, "margin": 0.5, "hard_share": 0.75})
    assert (model.optimizer.learning_rate, float(model.head.margin), float(model.head.hard_share)) == (0.25, 0.5, 0.75)
