"""
One training step on one device, on all GPUs of a machine, or on several machines.

Keras 3's ``fit`` cannot run under ``MultiWorkerMirroredStrategy`` (keras issue 20585: it reduces scalars over an axis
that they lack), so the step is Keras's own ``train_step`` under ``strategy.run``.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from sv_utils.base.errors import RequestError, WorkError, nearest
from sv_utils.pipeline import machine
from sv_utils.training import readers
from sv_utils.training.batches import Crops

STRATEGIES = ("one", "mirrored", "multi_worker")


class Devices:
    """
    Where a training runs.

    Parameters
    ----------
    name : str
        ``"one"`` device; ``"mirrored"``: all GPUs of this machine; ``"multi_worker"``: all machines of ``$TF_CONFIG``,
        which is ``{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`` with another
        index on each. Every machine runs the same stage with outputs of its own, and all end with the same model.

    Notes
    -----
    ``batch_size`` is that of one step over all devices, so each gets ``batch_size / replicas`` crops. Learning rate,
    steps and results mean the same on any number of devices: batch normalisation takes its statistics over all of
    them, and a loss that compares the rows of a batch with each other is given the rows of all.

    Raises
    ------
    RequestError
        For a name that does not exist, a backend without ``tf.distribute``, a single device where several were asked
        for, or ``$TF_CONFIG`` missing.
    """

    def __init__(self, name: str = "one"):
        if name not in STRATEGIES:
            raise RequestError(f"distribution: there is no {name!r}{nearest(name, STRATEGIES)}")
        self.strategy = None
        if keras.backend.backend() == "tensorflow":
            self.strategy = _strategy(name)
        elif name != "one":
            raise RequestError(f"distribution {name!r} needs the TensorFlow backend, not {keras.backend.backend()}")
        if name == "mirrored" and self.replicas < 2:
            raise RequestError(f"distribution 'mirrored' needs two devices; there is {described()}: set it to one")

    @property
    def replicas(self) -> int:
        """Devices that share a batch."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    def facts(self, engine: dict) -> dict:
        """
        Say what computes a training, and how, since both can change its digits.

        Parameters
        ----------
        engine : dict
            As of `loop.Training`.

        Returns
        -------
        dict
            ``backend``; ``devices`` as the backend itself lists them; what of `engine` changes digits; ``replicas``.
        """
        said = {
            name: engine[name]
            for name in ("deterministic", "precision", "jit_compile", "distribution")
            if name in engine
        }
        backend = keras.backend.backend()
        listed = machine.tensorflow_devices() if backend == "tensorflow" else list(keras.distribution.list_devices())
        return {"backend": backend, "devices": listed, **said, "replicas": self.replicas}

    def build(self, make: Callable[[], keras.Model]) -> keras.Model:
        """Call `make` so that what it builds lives on all devices."""
        if self.strategy is None:
            return make()
        with self.strategy.scope():
            return make()

    def agree(self, step: int) -> None:
        """
        Make sure that all workers go on from one step.

        Raises
        ------
        WorkError
            If their checkpoints are of different steps.
        """
        if self.strategy is None or self.replicas == 1:
            return
        seen = self.strategy.run(lambda: keras.ops.convert_to_tensor(float(step)))
        if float(self.strategy.reduce("MEAN", seen, axis=None)) != step:
            raise WorkError(
                "the workers' checkpoints are of different steps: copy one worker's checkpoint.npz to the others"
            )

    @contextlib.contextmanager
    def batches(self, crops: Crops, first_step: int, processes: int = 0) -> Iterator[Iterator]:
        """
        Batches from number `first_step` on, on each device its part; each worker reads its own crops only.

        Parameters
        ----------
        crops : Crops
        first_step : int
        processes : int
            That make the batches of this machine, see `readers.Readers`; 0: threads of this process. They end with the
            context.
        """
        if crops.batch_size % self.replicas:
            raise RequestError(
                f"batch_size {crops.batch_size} cannot be shared by {self.replicas} devices; make it a multiple"
            )
        with contextlib.ExitStack() as context:
            made: list[readers.Readers] = []

            def part(worker: int, workers: int) -> Any:
                if processes:
                    made.append(context.enter_context(readers.Readers(crops, processes, first_step, worker, workers)))
                return crops.dataset(first_step, worker, workers, made[-1].batch if made else None)

            if self.strategy is None or self.replicas == 1:
                dataset = _ahead_on_the_gpu(part(0, 1))
            else:
                dataset = self.strategy.distribute_datasets_from_function(
                    lambda where: part(where.input_pipeline_id, where.num_input_pipelines).rebatch(
                        crops.batch_size // self.replicas, drop_remainder=True
                    )
                )
            yield _told(dataset, made)

    def step(self, model: keras.Model) -> Callable[[tuple, Mapping[str, float], bool], dict[str, Any]]:
        """
        Compile a training step of a compiled `speaker_model.SpeakerModel`.

        Returns
        -------
        callable
            ``(batch, settings, ends)`` to means of loss and metrics over the whole batch, as tensors that nobody has
            waited for; ``settings`` are those of `SpeakerModel.set`; ``ends`` says whether the batch completes a step
            of the optimizer, where that takes several (on one device the optimizer counts by itself).
        """
        strategy = self.strategy
        if strategy is None:
            return lambda batch, settings, ends: model.set(settings) or model.train_on_batch(*batch, return_dict=True)
        import tensorflow as tf

        counts = [_count_together(model.optimizer, self.replicas)] if self.replicas > 1 else []

        def compiled(ends: bool) -> Any:
            @tf.function(jit_compile=model.jit_compile)
            def trained(batch: tuple, settings: dict) -> dict:
                for count in counts:
                    count(ends)
                model.set(settings)
                logs = strategy.run(model.train_step, args=(batch,))
                model.reset_metrics()  # at the end: the first step makes them
                return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

            return trained

        graphs: dict[tuple, Callable] = {}  # to be called themselves: tf.function takes longer to find one

        def step(batch: tuple, settings: Mapping[str, float], ends: bool) -> dict[str, Any]:
            numbers = {name: tf.constant(value, tf.float32) for name, value in settings.items()}
            ends = ends or not counts
            kind = (ends, *numbers, *(getattr(part, "shape", None) for part in batch))
            if kind not in graphs:
                graphs[kind] = compiled(ends).get_concrete_function(batch, numbers)
            return graphs[kind](batch, numbers)

        return step


def described() -> str:
    """What Keras's backend computes on, in words: its GPUs by name, or the CPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from tensorflow import config

        details = [config.experimental.get_device_details(gpu) for gpu in config.list_physical_devices("GPU")]
        names = [detail.get("device_name", "a GPU without a name") for detail in details]
    elif backend == "jax":
        from jax import devices

        names = [device.device_kind for device in devices() if device.platform == "gpu"]
    else:
        return f"the {backend} backend's own device"
    said = {"tensorflow": "TensorFlow", "jax": "JAX"}[backend]
    return ", ".join(f"GPU {place}: {name}" for place, name in enumerate(names)) or f"the CPU ({said} sees no GPU)"


def lacks(engine: Mapping) -> str:
    """
    Say which of the options of an engine cannot be had here, and the mend; '' where all can.

    Parameters
    ----------
    engine : mapping
        ``needs_gpu, precision, distribution, jit_compile, deterministic, gradient_checkpointing``: see `loop.Training`.
    """
    tensorflow = keras.backend.backend() == "tensorflow"
    alone = engine["distribution"] == "one"
    gpus = _gpus() if tensorflow else []
    if engine["needs_gpu"] and tensorflow and not gpus:
        return (
            "needs_gpu: this profile is for a GPU and TensorFlow sees none (make doctor says more; make setup GPU=1 "
            "installs what it needs); to train on the CPU all the same, set engine.needs_gpu to false"
        )
    if engine["jit_compile"] and engine["deterministic"] and tensorflow:
        return "jit_compile: Keras has no XLA under deterministic operations; set one of the two to false"
    if engine["jit_compile"] and not alone:
        return "jit_compile: XLA compiles for one device; set it to false, or distribution to one"
    if engine["gradient_checkpointing"] and not (tensorflow and alone):
        return "gradient_checkpointing: it needs TensorFlow and one device; set it to false"
    if engine["precision"] == "mixed_bfloat16" and any(capability < (8, 0) for capability in gpus):
        return "precision: this GPU has no bfloat16 (compute capability below 8.0); set it to float32"
    return ""


def spare_amx() -> None:
    """
    Keep TensorFlow on CPUs from the instructions AMX, with which it computes some convolutions in bfloat16 wrongly.

    Where a convolution halves a map of one or two bins, oneDNN of TensorFlow 2.21 gives what memory held before: up to
    1e38, so that a ResNet of 24 mel bands came to NaN within 3 to 40 steps. oneDNN reads its limit once, at the first
    operation. Who has set ``$ONEDNN_MAX_CPU_ISA`` keeps it.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")


def _gpus() -> list[tuple[int, int]]:
    """Compute capabilities of the GPUs that TensorFlow sees; (9, 9) where it does not say."""
    from tensorflow import config

    details = map(config.experimental.get_device_details, config.list_physical_devices("GPU"))
    return [detail.get("compute_capability", (9, 9)) for detail in details]


def _ahead_on_the_gpu(dataset: Any) -> Any:
    """A dataset whose next batches are copied to the GPU while the present one is computed with, where there is one."""
    from tensorflow import config, data

    gpus = config.list_logical_devices("GPU")
    return dataset.apply(data.experimental.prefetch_to_device(gpus[0].name, 2)) if gpus else dataset


def _told(dataset: Iterable, made: list[readers.Readers]) -> Iterator:
    """Batches of a dataset, and instead of TensorFlow's error what the readers have to say."""
    batches = iter(dataset)
    while True:
        try:
            batch = next(batches)
        except Exception:
            for one in made:
                if one.failure is not None:
                    raise one.failure from None
            raise
        yield batch


def _count_together(optimizer: keras.optimizers.Optimizer, replicas: int) -> Callable[[bool], None]:
    """
    Let an optimizer add up the gradients of several batches on several devices; returns who tells it of each batch.

    Keras asks within the graph whether a batch completes a step, and there devices cannot meet. Here the loop knows,
    and each case is a graph of its own. What is added up are sums over all devices, so that all hold the same.
    """
    n = optimizer.gradient_accumulation_steps
    if not n:
        return lambda ends: None
    import tensorflow as tf

    def apply(ends: bool, gradients: list, variables: list) -> None:
        sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(variable)] for variable in variables]
        if ends:  # what was added up is shared out, as the devices' parts are summed once more
            parts = [(gradient + total / replicas) / n for gradient, total in zip(gradients, sums)]
            parts = optimizer._clip_gradients(parts)
            optimizer._apply_weight_decay(variables)
            optimizer._backend_update_step(parts, variables, optimizer.learning_rate)
            optimizer._backend_reset_gradient_accumulators()
        else:
            whole = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            optimizer._backend_increment_gradient_accumulators(whole, sums)
        if optimizer.use_ema:
            optimizer._update_model_variables_moving_average(optimizer._trainable_variables)

    def count(ends: bool) -> None:
        optimizer._backend_apply_gradients = lambda gradients, variables: apply(ends, gradients, variables)

    return count


def _strategy(name: str) -> Any:
    from tensorflow import distribute

    if name == "mirrored":
        return distribute.MirroredStrategy()
    if name == "one":
        return distribute.get_strategy()
    try:
        json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    except (KeyError, ValueError, TypeError):
        raise RequestError(
            "distribution 'multi_worker' needs $TF_CONFIG with cluster and task on each machine"
        ) from None
    return distribute.MultiWorkerMirroredStrategy()
