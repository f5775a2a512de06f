"""How well features recognise the patient: the reason why a split by patch looks better than it is."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from histofeat.metrics import Bootstrap, patient_weights
from histofeat.model_selection import encode_patients
from histofeat.studies.shortcuts.records import Identification

__all__ = ["PATCHES_PER_PATIENT", "identify_patients", "nearest_mean"]

PATCHES_PER_PATIENT = 10
"""Patches of each patient in the comparison, unless another number is given."""

_FOLDS = 5
_SHRINKAGE = 0.1


def identify_patients(
    features,
    patients,
    *,
    family="features",
    patches_per_patient=PATCHES_PER_PATIENT,
    n_resamples=2000,
    random_state=0,
):
    """Measure how often a patch is given to its own patient, from other patches of all patients.

    Parameters
    ----------
    features : ndarray of shape (n, d), float
        Finite.
    patients : array-like of shape (n,)
        Patient ids.
    family : str, default="features"
        What the result calls them.
    patches_per_patient : int, default=10
        Patches of each patient, at least 5, drawn at random; patients with fewer are left out.
    n_resamples : int, default=2000
        Resamples of the patients behind the interval; 0 for none.
    random_state : int, default=0
        Seed of the draw and of the resamples.

    Returns
    -------
    identification : Identification

    Raises
    ------
    ValueError
        If fewer than two patients have enough patches, or an argument is not what it should be.

    Notes
    -----
    The patches of each patient are dealt into five parts; each is classified by the other four with `nearest_mean`. As
    every patient has equally many, guessing is right in one of the number of patients. It is a lower bound on what the
    features know: another classifier may recognise more.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> patients = np.repeat(["a", "b", "c", "d"], 10)
    >>> stain = np.repeat(rng.normal(0, 5, (4, 2)), 10, axis=0)
    >>> found = identify_patients(stain + rng.normal(0, 0.1, (40, 2)), patients, n_resamples=100)
    >>> found.accuracy, found.chance
    (1.0, 0.25)
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"identify_patients.features: expected finite numbers of shape (n, d), got shape {features.shape} with "
            f"{int((~np.isfinite(features)).sum())} that are not finite. Give what `extract` returns."
        )
    rows, codes, ids = _draw(patients, len(features), patches_per_patient, random_state)
    part = np.tile(np.arange(patches_per_patient) % _FOLDS, len(ids))
    chosen, right = features[rows], np.empty(len(rows))
    for fold in range(_FOLDS):
        test = part == fold
        right[test] = nearest_mean(chosen[~test], codes[~test], chosen[test]) == codes[test]
    of_patient = right.reshape(len(ids), patches_per_patient).mean(axis=1)
    samples = patient_weights(ids, n_resamples, random_state) @ of_patient / len(ids)
    return Identification(
        family=family,
        n_features=features.shape[1],
        accuracy=float(of_patient.mean()),
        ci95=Bootstrap({"accuracy": samples}, len(ids), 0).interval("accuracy"),
        chance=1 / len(ids),
        n_patients=len(ids),
        patches_per_patient=patches_per_patient,
    )


def _draw(patients, n_rows, patches_per_patient, random_state):
    """Choose rows patient by patient, equally many of each: (rows, codes, ids)."""
    if patches_per_patient < _FOLDS:
        raise ValueError(
            f"identify_patients.patches_per_patient: expected at least {_FOLDS}, got {patches_per_patient}. Use 10."
        )
    ids, of_row = encode_patients(patients, n_rows, "patients")
    counts = np.bincount(of_row)
    enough = np.flatnonzero(counts >= patches_per_patient)
    if len(enough) < 2:
        raise ValueError(
            f"identify_patients.patients: expected two patients or more with {patches_per_patient} patches, got "
            f"{len(enough)} of {len(ids)}; the most are {counts.max()} patches. Give more patches of each patient."
        )
    rng = np.random.default_rng(random_state)
    rows = np.concatenate([rng.permutation(np.flatnonzero(of_row == code))[:patches_per_patient] for code in enough])
    return rows, np.repeat(np.arange(len(enough)), patches_per_patient), [ids[code] for code in enough]


def nearest_mean(train, codes, test, shrinkage=_SHRINKAGE):
    """Give each row to the class of nearest mean, in units of the spread within classes.

    Parameters
    ----------
    train : ndarray of shape (n, d), float64
    codes : ndarray of shape (n,), int
        Classes 0 to k - 1 of the training rows, each present.
    test : ndarray of shape (m, d), float64
    shrinkage : float in (0, 1], default=0.1
        How far the covariance is drawn towards a multiple of the identity.

    Returns
    -------
    found : ndarray of shape (m,), int64
        The nearest class; of equally near ones the first.

    Notes
    -----
    Linear discriminant analysis with equal priors and a covariance shrunk by a fixed share, on standardised columns.

    Examples
    --------
    >>> import numpy as np
    >>> train = np.array([[0.0, 0.0], [1.0, 4.0], [9.0, 0.0], [10.0, 4.0]])
    >>> nearest_mean(train, np.array([0, 0, 1, 1]), np.array([[2.0, 2.0], [8.0, 2.0]])).tolist()
    [0, 1]
    """
    centre, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1.0
    train, test = (train - centre) / scale, (test - centre) / scale
    counts = np.bincount(codes)
    means = np.zeros((len(counts), train.shape[1]))
    np.add.at(means, codes, train)
    means /= counts[:, np.newaxis]
    within = train - means[codes]
    covariance = within.T @ within / len(train)
    spread = np.trace(covariance) / len(covariance)
    # Rows of one class that are all the same have no spread: then distances are plain ones.
    covariance = (1 - shrinkage) * covariance + shrinkage * (spread or 1.0) * np.eye(len(covariance))
    directions = cho_solve(cho_factor(covariance), means.T)
    return (test @ directions - 0.5 * (means.T * directions).sum(axis=0)).argmax(axis=1)
