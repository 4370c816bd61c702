"""Batch normalisation of maps in one kernel, where the backend has one."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="sv_utils")
class BatchNormalization(keras.layers.BatchNormalization):
    """
    ``keras.layers.BatchNormalization`` that trains faster on maps under TensorFlow.

    Keras composes it of a dozen operations, each of which goes through the whole map, in float32. TensorFlow's fused
    kernel gives the same within rounding; it takes over in training on one device, where maps in bfloat16 stay so while
    statistics and their gradients are float32. Everything else (inference, frozen layers,
    statistics that several devices share, other backends) is Keras's own.

    Call: maps [shape=(batch, frames, bins, channels)] → the same shape.

    References
    ----------
    Ioffe, Szegedy: Batch normalization, arXiv 1502.03167, algorithm 1.
    """

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        alone = len(inputs.shape) == 4 and self.axis in (-1, 3) and mask is None and not self.synchronized
        if not (training and self.trainable and alone and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        from tensorflow import raw_ops  # no other backend gets here

        none = ops.zeros((0,), "float32")
        kernel = {"epsilon": self.epsilon, "exponential_avg_factor": 1.0, "is_training": True}
        weights = {"scale": ops.cast(self.gamma, "float32"), "offset": ops.cast(self.beta, "float32")}
        maps, mean, variance, *_ = raw_ops.FusedBatchNormV3(x=inputs, mean=none, variance=none, **weights, **kernel)
        places = ops.cast(ops.size(inputs) / inputs.shape[-1], "float32")
        variance = variance * (places - 1) / places  # the kernel gives that of a sample, Keras keeps that of the batch
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return ops.cast(maps, self.compute_dtype)
