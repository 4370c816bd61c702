"""What is trained: an encoder with a speaker head on top."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from sv_utils.training import recomputing, schedules

SAMPLE_RATE = 16_000  # [Hz], of every store and every encoder


class SpeakerModel(keras.Model):
    """
    What is trained: the encoder with a speaker head on top, which is dropped afterwards.

    Parameters
    ----------
    encoder : keras.Model
        Waveform [shape=(batch, samples)] to unit vector [shape=(batch, dimension)].
    head : keras.Layer
        One of `sv_utils.losses`: embeddings to outputs, and ``loss(labels, outputs)``.
    replicas : int
        Devices that share a batch; their gradients are summed.
    checkpointing : bool
        Keep of each block its input alone for the gradient, see `recomputing.recomputed`.
    """

    def __init__(self, encoder: keras.Model, head: keras.Layer, replicas: int = 1, checkpointing: bool = False):
        super().__init__(name="speaker_model")
        self.encoder, self.head, self.replicas = encoder, head, replicas
        self._embed: Callable = recomputing.recomputed(encoder) if checkpointing else encoder.__call__
        self(np.zeros((1, SAMPLE_RATE), np.float32))

    def call(self, waveforms: Any, training: bool = False) -> Any:
        """Outputs of the head for waveforms [shape=(batch, samples)]."""
        return self.head(self._embed(waveforms, training=training), training=training)

    def set(self, settings: Mapping[str, Any]) -> None:
        """Set what the schedules prescribe for a step: ``learning_rate``, and variables of the head by their names."""
        for name, value in settings.items():
            if name == "learning_rate":
                self.optimizer.learning_rate = value
            else:
                getattr(self.head, name).assign(value)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean loss of the batch, as the head defines it; on several devices this one's share of it."""
        return self.head.loss(*self._whole(y, y_pred)) / self.replicas

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        """Values of all metrics, over the batch as the loss sees it."""
        return super().compute_metrics(x, *self._whole(y, y_pred), sample_weight)

    def _whole(self, labels: Any, outputs: Any) -> tuple[Any, Any]:
        """The rows of all devices, in the order of the batch, for a head that compares them with each other."""
        if self.replicas == 1 or not getattr(self.head, "compares_rows", False):
            return labels, outputs
        import tensorflow as tf  # no other backend has several devices here

        together = tf.distribute.get_replica_context()
        shapes = [(part.shape[0] and part.shape[0] * self.replicas, *part.shape[1:]) for part in (labels, outputs)]
        # As float32, which lies on the device as the outputs do: only tensors of one place can be gathered.
        whole = [together.all_gather(tf.cast(part, "float32"), axis=0) for part in (labels, outputs)]
        whole = [tf.ensure_shape(part, shape) for part, shape in zip(whole, shapes)]
        return tf.cast(whole[0], labels.dtype), whole[1]

    def twin(self, replicas: int = 1, checkpointing: bool = False) -> "SpeakerModel":
        """The same model, with weights of its own."""
        encoder = keras.models.clone_model(self.encoder)
        if replicas > 1:
            for layer in schedules.normalizations(encoder):
                layer.synchronized = True
        head = type(self.head).from_config(self.head.get_config())
        twin = SpeakerModel(encoder, head, replicas, checkpointing)
        twin.set_weights(self.get_weights())
        return twin
