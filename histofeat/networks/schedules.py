"""Learning rates step by step."""

from __future__ import annotations

import numpy as np

from histofeat.exceptions import known_names

__all__ = ["SCHEDULES", "learning_rates"]

SCHEDULES = ("constant", "cosine", "inverse_time", "one_cycle")
#: Where a cycle starts, as a part of its highest rate.
_START = 0.04


def learning_rates(schedule: str, peak: float, n_steps: int, *, warmup: float = 0.25, n_epochs: int = 1) -> np.ndarray:
    """The learning rate of every step of a stage.

    Parameters
    ----------
    schedule : {"one_cycle", "cosine", "constant", "inverse_time"}
        How it goes.
    peak : float
        Its highest value.
    n_steps : int
        Steps of the stage.
    warmup : float in [0, 1), default=0.25
        Part of the steps in which "one_cycle" rises.
    n_epochs : int, default=1
        Epochs of the stage, for "inverse_time".

    Returns
    -------
    rates : ndarray of shape (n_steps,), float64
        All above 0, except that the last of "one_cycle" and "cosine" come near to it.

    Raises
    ------
    ValueError
        If the schedule is unknown.

    Notes
    -----
    With u the part of the steps that is done, "cosine" is ``peak (1 + cos(pi u)) / 2``. "one_cycle" rises from 0.04 of
    the peak along half a cosine and falls along another (Smith and Topin, arXiv:1708.07120, without the cycle of the
    momentum). "inverse_time" is ``peak / (1 + peak t / n_epochs)`` at step t, as CancerNet was published.

    Examples
    --------
    >>> learning_rates("cosine", 1.0, 4).round(3).tolist()
    [1.0, 0.854, 0.5, 0.146]
    >>> learning_rates("one_cycle", 1.0, 8).round(2).tolist()
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    step = np.arange(n_steps, dtype=np.float64)
    done = step / max(n_steps, 1)
    if schedule == "constant":
        return np.full(n_steps, float(peak))
    if schedule == "cosine":
        return peak * _fall(done)
    if schedule == "inverse_time":
        return peak / (1 + peak / n_epochs * step)
    if schedule == "one_cycle":
        rise = 1 - _fall(done / warmup) if warmup else np.ones(n_steps)
        return peak * np.where(done < warmup, _START + (1 - _START) * rise, _fall((done - warmup) / (1 - warmup)))
    raise ValueError(
        f"CNNClassifier.schedule: expected a known schedule, got {schedule!r}. {known_names(schedule, SCHEDULES)}"
    )


def _fall(done):
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + np.cos(np.pi * done))
