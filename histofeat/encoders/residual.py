"""The small residual network of histofeat: what a patch's pixels become, in Keras."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["WIDTHS", "residual_features"]

#: Channels of the three blocks, at a half, a fourth and an eighth of the input's side.
WIDTHS = (32, 64, 128)


def residual_features(keras, x, *, pooling: str = "avg", widths: Sequence[int] = WIDTHS):
    """Features of patches: a 5x5 stem of stride 2, three residual blocks, and the pooled last feature map.

    Parameters
    ----------
    keras : module
        Keras.
    x : tensor (n, size, size, 3), float32
        Pixels, preprocessed to -1 to 1.
    pooling : {"avg", "max"}
        How the last feature map becomes a vector.
    widths : sequence of int, default=(32, 64, 128)
        Channels of each block; the stem has those of the first.

    Returns
    -------
    features : tensor (n, widths[-1])

    Notes
    -----
    Blocks of two 3x3 convolutions (https://doi.org/10.1109/CVPR.2016.90); where a block halves its input, the straight
    way is averaged over 2x2 and brought to its width by a 1x1 convolution.
    """
    layers = keras.layers

    def convolved(x, width, kernel, stride=1):
        x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    x = layers.ReLU()(convolved(x, widths[0], 5, 2))
    for number, width in enumerate(widths):
        stride = 2 if number else 1
        straight = layers.AveragePooling2D(2, padding="same")(x) if number else x
        if number:
            straight = convolved(straight, width, 1)
        y = layers.ReLU()(convolved(x, width, 3, stride))
        x = layers.ReLU()(layers.Add()([straight, convolved(y, width, 3)]))
    pool = layers.GlobalAveragePooling2D if pooling == "avg" else layers.GlobalMaxPooling2D
    return pool()(x)
