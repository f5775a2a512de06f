"""Optimizers of Keras as a recipe asks for them, and what a short training needs beside."""

from __future__ import annotations

from histofeat.networks.pretrained.network import import_keras
from histofeat.networks.recipes import Recipe

__all__ = ["forget_sooner", "make_optimizer"]

_LEAST_MOMENTUM = 0.5


def forget_sooner(model, n_steps: int) -> None:
    """Let normalisations forget the statistics they began with within a twentieth of a short stage.

    Parameters
    ----------
    model : keras.Model
        Not compiled yet. A pretrained base does not use its momentum: its statistics stay as they are.
    n_steps : int
        Steps of the stage.

    Notes
    -----
    The momentum m becomes ``min(m, max(0.5, 1 - 20 / n_steps))``. With Keras's 0.99 the statistics of 100 steps would
    hold a third of their first values, 0 and 1, and validation would see another network than training.
    """
    normalisation = import_keras().layers.BatchNormalization
    inner = [layer for part in model.layers for layer in getattr(part, "layers", ())]
    for layer in [*model.layers, *inner]:
        if isinstance(layer, normalisation):
            layer.momentum = min(layer.momentum, max(_LEAST_MOMENTUM, 1 - 20 / n_steps))


def make_optimizer(recipe: Recipe, rate: float, n_steps: int):
    """The optimizer of a stage.

    Parameters
    ----------
    recipe : Recipe
    rate : float
        Its learning rate; training sets it at each step.
    n_steps : int
        Steps of the stage: an average of the weights spans a tenth of them at most, since over a few steps it would
        mostly hold the first weights.

    Returns
    -------
    optimizer : keras.optimizers.Optimizer
    """
    optimizers = import_keras().optimizers
    momentum = min(recipe.averaging, max(0.0, 1 - 10 / n_steps))
    options = {"use_ema": recipe.averaging > 0, "ema_momentum": momentum}
    if recipe.optimizer == "adagrad":
        return optimizers.Adagrad(rate, **options)
    if recipe.optimizer == "adam":
        return optimizers.Adam(rate, **options)
    options["weight_decay"] = recipe.weight_decay or None
    if recipe.optimizer == "adamw":
        optimizer = optimizers.AdamW(rate, **options)
    else:
        optimizer = optimizers.SGD(rate, momentum=0.9, nesterov=True, **options)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
