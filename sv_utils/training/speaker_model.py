"""What is trained: an encoder with a speaker head on top."""

from typing import Any

import keras
import numpy as np

from sv_utils.training import schedules

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
    """

    def __init__(self, encoder: keras.Model, head: keras.Layer, replicas: int = 1):
        super().__init__(name="speaker_model")
        self.encoder, self.head, self.replicas = encoder, head, replicas
        self(np.zeros((1, SAMPLE_RATE), np.float32))

    def call(self, waveforms: Any, training: bool = False) -> Any:
        """Outputs of the head for waveforms [shape=(batch, samples)]."""
        return self.head(self.encoder(waveforms, training=training), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Mean loss of the batch, as the head defines it; on several devices this one's share of it."""
        return self.head.loss(y, y_pred) / self.replicas

    def twin(self, replicas: int) -> "SpeakerModel":
        """The same model, with weights of its own."""
        encoder = keras.models.clone_model(self.encoder)
        if replicas > 1:
            for layer in schedules.normalizations(encoder):
                layer.synchronized = True
        twin = SpeakerModel(encoder, type(self.head).from_config(self.head.get_config()), replicas)
        twin.set_weights(self.get_weights())
        return twin
