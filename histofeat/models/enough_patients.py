"""Patients enough to calibrate on: a head that has too few of them is refused before anything is measured."""

import numpy as np

from histofeat.model_selection import PatientKFold, encode_patients

__all__ = ["N_PATIENTS", "check_enough_patients", "check_inner_patients"]

#: Of each class. Decision values are calibrated on three folds of patients, and each fold has to hold each class.
N_PATIENTS = 3

_OTHER_HEAD = "choose a head that needs no calibration, such as 'xgboost'"


def check_enough_patients(head, y, groups, where):
    """Refuse patients who are too few for what a fit of a head calibrates on them.

    Parameters
    ----------
    head : FeatureHead
        Unfitted.
    y : array-like of shape (n,)
        Labels that it is to be fitted on.
    groups : array-like of shape (n,) or None
        Their patients.
    where : str
        What an error calls the fit.

    Raises
    ------
    ValueError
        If a class is carried by fewer than `N_PATIENTS` patients, or by so few that no folds hold each class, and the
        fit would calibrate on them; or if members of a vote need patients and there are none.

    Examples
    --------
    >>> from histofeat.models import make_head
    >>> check_enough_patients(make_head("vote"), [0, 1] * 3, ["a", "a", "b", "b", "c", "c"], "fit")
    >>> check_enough_patients(make_head("vote"), [0, 1] * 2, ["a", "a", "b", "b"], "fit")
    Traceback (most recent call last):
    ValueError: fit: expected at least 3 patients of each class, on whom 'svm' of the vote is calibrated, got 2...
    """
    members = _calibrated_members(head)
    if groups is None:
        if members:
            head.classifier.check_groups(groups)
        return
    if not (members or head.calibrate):
        return
    short = _shortage(y, groups)
    if short is not None:
        label, n_patients, spread = short
        whom = _members_words(members) if members else type(head.classifier).__name__
        raise ValueError(
            f"{where}: expected at least {N_PATIENTS} patients of each class, on whom {whom} is calibrated, got "
            f"{n_patients} of class {label}{spread}. Add patients, or {_OTHER_HEAD}."
        )


def check_inner_patients(plan, dataset, splits, inner):
    """Refuse folds whose inner fits have too few patients for what a head calibrates on them.

    Parameters
    ----------
    plan : Plan
        A pipeline that can run.
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray)
        Training and test rows of each fold.
    inner : sequence of FixedFolds
        The inner folds of each; indices are positions in its training rows.

    Raises
    ------
    ValueError
        If a class is carried by fewer than `N_PATIENTS` patients in an inner fit, or no folds of them hold each class.

    Notes
    -----
    A vote calibrates in every fit, those of the inner folds included, so that patients are split three times: test
    patients from the others, those again in the inner folds, and what is left in three folds to calibrate on.
    """
    members = _calibrated_members(plan.head)
    if not members:
        return
    y, patients, names = dataset.y, dataset.patients, dataset.target_names
    for fold, ((train, _), folds) in enumerate(zip(splits, inner, strict=True)):
        for number, (part, _) in enumerate(folds.pairs):
            short = _shortage(y[train[part]], patients[train[part]])
            if short is not None:
                label, n_patients, spread = short
                n_train, n_all = (_carriers(y[rows] == label, patients[rows]) for rows in (train, np.arange(len(y))))
                raise ValueError(
                    f"evaluate.pipelines, {plan.name!r} with head {plan.head_name!r}: expected at least {N_PATIENTS} "
                    f"patients of each class in each inner fit, on whom {_members_words(members)} is calibrated, and "
                    f"so at least {_fewest(len(folds.pairs))} on the training side of each fold, got {n_patients} of "
                    f"{names[label]!r}{spread} in inner fit {number} of fold {fold} ({n_train} on its training side, "
                    f"{n_all} in the data set). Add patients, train on more of them by more folds, or {_OTHER_HEAD}."
                )


def _calibrated_members(head):
    return tuple(getattr(getattr(head, "classifier", None), "calibrated_members", ()))


def _members_words(members):
    return f"{' and '.join(map(repr, members))} of the vote"


def _shortage(y, groups):
    """Give the class that the fewest patients carry, how many, and what else is wrong; None where they are enough."""
    y = np.asarray(y)
    found = [(_carriers(y == label, groups), label) for label in np.unique(y)]
    n_patients, label = min(found, key=lambda one: one[0])
    label = label.item() if isinstance(label, np.generic) else label
    if n_patients < N_PATIENTS:
        return label, n_patients, ""
    try:
        PatientKFold(N_PATIENTS).split(y, y, groups)
    except ValueError:  # three patients of a class may be dealt out so that another class is lost
        return label, n_patients, f" and no {N_PATIENTS} folds of patients with each class in each"
    return None


def _carriers(chosen, groups):
    return len(encode_patients(np.asarray(groups, dtype=object)[chosen], int(chosen.sum()))[0])


def _fewest(n_folds):
    """Patients of each class of whom every one of these folds leaves `N_PATIENTS`, dealt out evenly."""
    n_patients = N_PATIENTS
    while n_patients - -(-n_patients // n_folds) < N_PATIENTS:
        n_patients += 1
    return n_patients
