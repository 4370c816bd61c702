"""MobileNetV2, the light network of the original system, from keras.applications."""

from collections.abc import Mapping

import keras

NAMES = ("mobilenetv2",)


def add(x: keras.KerasTensor, architecture: Mapping) -> keras.KerasTensor:
    """Add the backbone that ``architecture`` (arguments of `encoders.build`) names to a functional model."""
    return mobilenet_v2(x)


def mobilenet_v2(x: keras.KerasTensor) -> keras.KerasTensor:
    """
    Add MobileNetV2 with fresh weights to a functional model.

    Parameters
    ----------
    x : KerasTensor [shape=(batch, frames, bins, channels)]
        At least 32 frames when it runs, and 32 bins.

    Returns
    -------
    KerasTensor [shape=(batch, frames / 32, bins / 32, 1280)]

    References
    ----------
    Sandler et al.: MobileNetV2: inverted residuals and linear bottlenecks, arXiv 1801.04381.
    """
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=x.shape[1:])
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # 0.999 remembers thousands of steps: a short training would be judged by its beginning.
            layer.momentum = 0.9
    return network(x)
