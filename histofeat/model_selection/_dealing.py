"""Deal patients to folds: the carriers of each class in equal numbers first, then their patches."""

import numpy as np

from histofeat.model_selection._patients import encode_patients

#: Random assignments to choose from.
DRAWS = 20
#: What helps where too few patients carry a class.
MORE_CARRIERS = "Add patients, drop the class, or merge it with others: histofeat.merge_rare_classes."
#: Weight of the balance of patients beside that of patches.
_FIRST = 1e6


def count_patches(labels, groups):
    """Count the patches of each patient by class.

    Parameters
    ----------
    labels : ndarray of shape (n,)
    groups : array-like of shape (n,)
        Patient ids.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    counts : ndarray of shape (n_patients, n_classes), int64
    codes : ndarray of shape (n,), int64
        Row of `counts` that each patch is counted in.

    Raises
    ------
    GroupLeakageError
        If patients are missing.
    """
    classes, label_codes = np.unique(labels, return_inverse=True)
    ids, codes = encode_patients(groups, len(labels))
    counts = np.bincount(codes * len(classes) + label_codes, minlength=len(ids) * len(classes))
    return classes, counts.reshape(len(ids), len(classes)), codes


def deal_patients(counts, n_splits, rng):
    """Deal patients to folds in several draws at once, and keep the best; see the notes of `PatientKFold`.

    Parameters
    ----------
    counts : ndarray of shape (n_patients, n_classes), int64
        Patches of each patient by class.
    n_splits : int
    rng : numpy.random.Generator or None
        Without one there is one draw, and ties go by position.

    Returns
    -------
    fold_of : ndarray of shape (n_patients,), int64
    carried : ndarray of shape (n_splits, n_classes), int64
        Carriers of each class in each fold.
    """
    carries = counts > 0
    # What each patient adds to the shares of a fold: of the patients and the carriers of each class, and of patches.
    of_patients = np.column_stack([carries / carries.sum(axis=0), np.full(len(counts), 1 / len(counts))])
    of_patches = counts / counts.sum(axis=0)
    n_draws = 1 if rng is None else DRAWS
    drawn = [_blocks(counts, n_splits, rng) for _ in range(n_draws)]
    order, first, whole = (np.stack(one) for one in zip(*drawn, strict=True))
    draws = np.arange(n_draws)
    ties = np.zeros((n_draws, n_splits)) if rng is None else 1e-9 * rng.random((n_draws, n_splits))
    patients, patches = (np.zeros((n_draws, n_splits, one.shape[1])) for one in (of_patients, of_patches))
    free = np.ones((n_draws, n_splits), dtype=bool)
    fold_of = np.empty((n_draws, len(counts)), dtype=np.int64)
    for step in range(len(counts)):
        who = order[:, step]
        free[first[:, step]] = True
        # The sum of squared shares grows by twice this, and by what is the same for all folds.
        load = (patches * of_patches[who][:, None]).sum(axis=2).round(9) + ties
        uneven = (patients * of_patients[who][:, None]).sum(axis=2)
        load += np.where(whole[:, step], 0, _FIRST)[:, None] * uneven
        fold = np.where(free, load, np.inf).argmin(axis=1)
        free[draws, fold] = False
        fold_of[draws, who] = fold
        patients[draws, fold] += of_patients[who]
        patches[draws, fold] += of_patches[who]
    lost = (patients[:, :, :-1] == 0).any(axis=(1, 2))
    loss = [((shares - 1 / n_splits) ** 2).sum(axis=(1, 2)) for shares in (patches, patients)]
    best = np.lexsort((loss[0], loss[1].round(12), lost))[0]
    return fold_of[best], np.stack([carries[fold_of[best] == fold].sum(axis=0) for fold in range(n_splits)])


def _blocks(counts, n_splits, rng):
    """Order patients into blocks: whole ones first, then what is left of each stratum, rare classes first.

    Returns
    -------
    order : ndarray of shape (n_patients,), int64
        Patients, block by block.
    first, whole : ndarray of shape (n_patients,), bool
        Whether each of these begins a block, and whether its block has one patient for each fold.
    """
    n_patients = len(counts)
    carries = counts > 0
    chance = np.zeros(n_patients) if rng is None else rng.random(n_patients)
    _, stratum, sizes = np.unique(carries, axis=0, return_inverse=True, return_counts=True)
    stratum = stratum.ravel()
    by_size = np.lexsort((chance, -counts.sum(axis=1), stratum))
    rank = np.empty(n_patients, dtype=np.int64)
    rank[by_size] = np.arange(n_patients) - (np.cumsum(sizes) - sizes)[stratum[by_size]]
    block = rank // n_splits
    whole = (block + 1) * n_splits <= sizes[stratum]
    rarest = np.where(carries, carries.sum(axis=0), n_patients).min(axis=1)
    turn, inside = stratum, rank
    if rng is not None:
        turn, inside = rng.permutation(n_patients)[stratum], rng.permutation(n_patients)
    order = np.lexsort((inside, block, turn, np.where(whole, 0, rarest), ~whole))
    name = (stratum * n_patients + block)[order]
    return order, np.diff(name, prepend=-1) != 0, whole[order]
