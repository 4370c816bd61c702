"""
One training step on one device, on all GPUs of a machine, or on several machines.

Keras 3's ``fit`` cannot run under ``MultiWorkerMirroredStrategy`` (keras issue 20585: it reduces scalars over an axis
that they lack), so the step is Keras's own ``train_step`` under ``strategy.run``.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from sv_utils.base.errors import RequestError, WorkError, nearest
from sv_utils.pipeline import machine
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
    steps and results mean the same on any number of devices; batch normalisation takes its statistics over all of them.
    Losses that compare the embeddings of a batch with each other see the crops of one device.

    Raises
    ------
    RequestError
        For a name that does not exist, a backend without ``tf.distribute``, or ``$TF_CONFIG`` missing.
    """

    def __init__(self, name: str = "one"):
        if name not in STRATEGIES:
            raise RequestError(f"distribution: there is no {name!r}{nearest(name, STRATEGIES)}")
        self.strategy = None
        if keras.backend.backend() == "tensorflow":
            self.strategy = _strategy(name)
        elif name != "one":
            raise RequestError(f"distribution {name!r} needs the TensorFlow backend, not {keras.backend.backend()}")

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

    def batches(self, crops: Crops, first_step: int) -> Iterator:
        """Batches from number `first_step` on, on each device its part; each worker reads its own crops only."""
        if self.strategy is None:
            return iter(crops.dataset(first_step))
        if crops.batch_size % self.replicas:
            raise RequestError(
                f"batch_size {crops.batch_size} cannot be shared by {self.replicas} devices; make it a multiple"
            )

        def part(context: Any) -> Any:
            dataset = crops.dataset(first_step, context.input_pipeline_id, context.num_input_pipelines)
            return dataset.rebatch(crops.batch_size // self.replicas, drop_remainder=True)

        return iter(self.strategy.distribute_datasets_from_function(part))

    def local(self, values: Any) -> np.ndarray:
        """What this machine's devices hold of a batch's waveforms or labels."""
        parts = self.strategy.experimental_local_results(values) if self.strategy else [values]
        return np.concatenate([np.asarray(part) for part in parts])

    def step(self, model: keras.Model) -> Callable[[tuple], dict[str, float]]:
        """Compile a training step of a compiled model: a batch to means of loss and metrics over the whole of it."""
        strategy = self.strategy
        if strategy is None:
            return lambda batch: model.train_on_batch(*map(np.asarray, batch), return_dict=True)
        import tensorflow as tf

        @tf.function(reduce_retracing=True, jit_compile=model.jit_compile)
        def compiled(batch: tuple) -> dict:
            logs = strategy.run(model.train_step, args=(batch,))
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        def step(batch: tuple) -> dict[str, float]:
            model.reset_metrics()
            return {name: float(value) for name, value in compiled(batch).items()}

        return step


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
