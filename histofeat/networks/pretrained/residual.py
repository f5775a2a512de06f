"""The small residual network of histofeat: what a patch's pixels become, in Keras."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BLOCKS", "WIDTHS", "residual_features", "residual_stages"]

#: Channels of the three stages, at a half, a fourth and an eighth of the input's side, and blocks in each.
WIDTHS = (32, 64, 128)
BLOCKS = (1, 1, 1)


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
        Channels of each stage; the stem has those of the first.

    Returns
    -------
    features : tensor (n, widths[-1])
    """
    pool = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    return pool()(residual_stages(keras, x, widths=widths)[-1])


def residual_stages(keras, x, *, widths: Sequence[int] = WIDTHS, blocks: Sequence[int] = BLOCKS) -> list:
    """Feature maps at the end of each stage of the network.

    Parameters
    ----------
    keras : module
        Keras.
    x : tensor (n, size, size, 3), float32
        Pixels, preprocessed to -1 to 1.
    widths, blocks : sequence of int
        Channels and blocks of each stage.

    Returns
    -------
    maps : list of tensor (n, side, side, width)

    Notes
    -----
    Blocks of two 3x3 convolutions (https://doi.org/10.1109/CVPR.2016.90); where a block halves its input, the straight
    way is averaged over 2x2 and brought to its width by a 1x1 convolution.
    """
    layers = keras.layers

    def convolved(x, width, kernel, stride=1):
        x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    x, maps = layers.ReLU()(convolved(x, widths[0], 5, 2)), []
    for stage, (width, n_blocks) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(n_blocks):
            halved = stage > 0 and block == 0
            straight = convolved(layers.AveragePooling2D(2, padding="same")(x), width, 1) if halved else x
            y = layers.ReLU()(convolved(x, width, 3, 2 if halved else 1))
            x = layers.ReLU()(layers.Add()([straight, convolved(y, width, 3)]))
        maps.append(x)
    return maps
