"""`SoftVote`: the mean of the probabilities of several classifiers, with patients for those that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, validate_data

from histofeat.datasets import PatchDataset
from histofeat.exceptions import check_that
from histofeat.models._feature_head import FeatureHead, check_enough_patients


class SoftVote(ClassifierMixin, _BaseComposition):
    """The mean of the probabilities of several classifiers.

    Trees and kernels make errors on different patches, so their mean ranks patches better than either.

    Parameters
    ----------
    members : list of (str, estimator)
        Names and classifiers, on standardised features. One without probabilities is calibrated on patients that its
        inner fits have not seen, or without ``groups`` in `fit` on rows.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    members_ : list of FeatureHead
        The fitted classifiers, in the order of `members`.
    note_ : str
        The members, as a sentence for a report.

    Notes
    -----
    scikit-learn's `VotingClassifier` does the same for classifiers that have probabilities. It passes patients to a
    member's calibration only under its global switch for metadata routing, which changes every pipeline in the process.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]
    >>> vote = SoftVote([("line", LogisticRegression()), ("bayes", GaussianNB())]).fit(X, y)
    >>> vote.predict(X).tolist(), vote.get_params()["line__C"]
    ([0, 0, 1, 1], 1.0)
    """

    def __init__(self, members: list[tuple[str, BaseEstimator]]):
        self.members = members

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` also ``<member>__<parameter>`` of each member."""
        return self._get_params("members", deep=deep)

    def set_params(self, **params: Any) -> SoftVote:
        """Set parameters, those of a member after its name."""
        return self._set_params("members", **params)

    @property
    def calibrated_members(self) -> tuple[str, ...]:
        """Names of the members without probabilities of their own, which `fit` calibrates on patients."""
        return tuple(name for name, member in self.members if not hasattr(member, "predict_proba"))

    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> SoftVote:
        """Fit every member.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Labels.
        groups : array-like of shape (n,), optional
            Patients, for members that are calibrated or stop early on patients that were held out.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the fit, the scaling and the calibration of every member.

        Returns
        -------
        self : SoftVote
            The fitted vote.

        Raises
        ------
        ValueError
            If there is no member, two have the same name, or one takes no weights and there are some.
        """
        names = [name for name, _ in self.members]
        differ, remedy = 0 < len(names) == len(set(names)), 'Pass [("xgboost", XGBClassifier()), ("svm", KernelSVM())].'
        check_that("SoftVote.members", names, differ, "one or more classifiers with different names", remedy)
        # pandas would bring its column names, and every member would ask for them again.
        X, y = validate_data(self, X, y, dtype=np.float32)
        calibrated = self.calibrated_members
        self.members_: list[FeatureHead] = [
            FeatureHead(clone(member), scale=True, calibrate=name in calibrated).fit(X, y, groups, sample_weight)
            for name, member in self.members
        ]
        self.classes_: np.ndarray = self.members_[0].classes_
        mean = f"The mean of the probabilities of {' and '.join(names)}."
        fits = [note for head in self.members_ for note in head.notes_ if note != vars(head.classifier_).get("note_")]
        self.note_: str = " ".join([mean, *fits])
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Mean probabilities of shape (n, k), columns in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return np.mean([member.predict_proba(X) for member in self.members_], axis=0)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Labels of the largest mean probability."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def check_inner_patients(plan: Any, dataset: PatchDataset, splits: Sequence[Any], inner: Sequence[Any]) -> None:
    """Check that each class has enough patients in each inner fit of a vote, which is calibrated in every fit.

    Parameters
    ----------
    plan : Plan
        A pipeline that can run.
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray)
        Training and test rows of each fold.
    inner : sequence of splitters
        The inner folds of each; indices are positions in its training rows.

    Raises
    ------
    ValueError
        As from `check_enough_patients`, with the number of the fold and of the inner fit.
    """
    if not getattr(getattr(plan.head, "classifier", None), "calibrated_members", ()):
        return
    for fold, ((train, _), folds) in enumerate(zip(splits, inner, strict=True), start=1):
        for number, (part, _) in enumerate(folds.split(train), start=1):
            rows, where = train[part], f"pipeline {plan.name!r}, fold {fold}, inner fit {number}"
            check_enough_patients(plan.head, dataset.y[rows], dataset.patients[rows], where, dataset.target_names)
