"""`SoftVote`: the mean of the probabilities of several classifiers, with patients for those that need them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, validate_data

from histofeat.models._feature_head import FeatureHead


class SoftVote(ClassifierMixin, _BaseComposition):
    """The mean of the probabilities of several classifiers.

    Trees and kernels make errors on different patches, so their mean ranks patches better than either.

    Parameters
    ----------
    members : list of (str, estimator)
        Names and classifiers, on standardised features. One without probabilities is calibrated on patients that its
        inner fits have not seen, which needs ``groups`` in `fit`.

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

    def check_groups(self, groups: ArrayLike | None) -> None:
        """Check that there are patients if a member needs them.

        Raises
        ------
        ValueError
            If there are none and a member has no probabilities without calibration.
        """
        if groups is None and self.calibrated_members:
            name = self.calibrated_members[0]
            raise ValueError(
                f"SoftVote.fit: expected groups, since member {name!r} ({type(dict(self.members)[name]).__name__}) has "
                "no probabilities until it is calibrated on held-out patients, got none. Give fit(X, y, "
                "groups=patients)."
            )

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> SoftVote:
        """Fit every member.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Features.
        y : array-like of shape (n,)
            Labels.
        groups : array-like of shape (n,), optional
            Patients, needed where a member has no probabilities of its own.

        Returns
        -------
        self : SoftVote
            The fitted vote.

        Raises
        ------
        ValueError
            If there is no member, two have the same name, or one needs groups and there are none.
        """
        names = [name for name, _ in self.members]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"SoftVote.members: expected one or more classifiers with different names, got {names}. "
                'Pass [("xgboost", XGBClassifier()), ("svm", KernelSVM())].'
            )
        self.check_groups(groups)
        # pandas would bring its column names, and every member would ask for them again.
        X, y = validate_data(self, X, y, dtype=np.float32)
        calibrated = self.calibrated_members
        self.members_: list[FeatureHead] = [
            FeatureHead(clone(member), scale=True, calibrate=name in calibrated).fit(X, y, groups=groups)
            for name, member in self.members
        ]
        self.classes_: np.ndarray = self.members_[0].classes_
        self.note_: str = f"The mean of the probabilities of {' and '.join(names)}."
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Mean probabilities of shape (n, k), columns in the order of ``classes_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return np.mean([member.predict_proba(X) for member in self.members_], axis=0)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Labels of the largest mean probability."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
