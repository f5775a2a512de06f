"""Which patients of the training side a network holds out to know when to stop."""

from __future__ import annotations

import numpy as np

from histofeat.model_selection.folds import encode_patients

__all__ = ["hold_out_patients"]

_DRAWS = 200


def hold_out_patients(codes, patients, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part the patches by patient, every class on both sides.

    Parameters
    ----------
    codes : ndarray of shape (n,), int
        Class of each patch, from 0 without a gap.
    patients : array-like of shape (n,)
        Patient of each patch.
    fraction : float in (0, 1)
        Part of the patients to hold out, rounded, one at least.
    seed : int
        Of the draw.

    Returns
    -------
    training, held_out : ndarray of int64
        Rows of either side, in order.

    Raises
    ------
    GroupLeakageError
        If patients are not known.
    ValueError
        If there are fewer than two patients, a class has fewer than two, or no draw has every class on both sides.

    Notes
    -----
    Of 200 draws, that one is taken whose classes are shared out most as in the whole, and of such the first.

    Examples
    --------
    >>> training, held_out = hold_out_patients(np.array([0, 1, 0, 1]), ["a", "a", "b", "b"], 0.5, seed=0)
    >>> training.tolist(), held_out.tolist()
    ([2, 3], [0, 1])
    """
    ids, number = encode_patients(patients, len(codes))
    counts = np.zeros((len(ids), int(codes.max()) + 1))
    np.add.at(counts, (number, codes), 1)
    _check_patients(counts)
    wanted = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    rng = np.random.default_rng(seed)
    whole, best, least = counts.sum(axis=0), None, np.inf
    for _ in range(_DRAWS):
        drawn = rng.permutation(len(ids))[:wanted]
        held = counts[drawn].sum(axis=0)
        if not held.all() or (held == whole).any():
            continue
        distance = np.abs(held / held.sum() - whole / whole.sum()).sum()
        if distance < least - 1e-12:
            best, least = drawn, distance
    if best is None:
        raise ValueError(
            f"CNNClassifier.validation_fraction: expected a part of the patients that leaves every class on both "
            f"sides, got {fraction} of {len(ids)} patients, of which no {wanted} do. Give a larger part, merge rare "
            "classes, or use validation_fraction=0."
        )
    held_out = np.isin(number, best)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _check_patients(counts):
    per_class = (counts > 0).sum(axis=0)
    if len(counts) < 2 or per_class.min() < 2:
        rare = int(per_class.argmin())
        raise ValueError(
            f"CNNClassifier.validation_fraction: expected two patients or more of every class, got {len(counts)} "
            f"in all and {per_class[rare]} of class number {rare}. Merge rare classes, or use validation_fraction=0."
        )
