"""`SoftVote`: several classifiers, each on its own columns, combined by the mean of their probabilities or stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, validate_data

from histofeat.datasets import PatchDataset
from histofeat.exceptions import check_name, check_that, counted
from histofeat.models._feature_head import FeatureHead, check_enough_patients, fit_with_inner_scores, inner_folds


class SoftVote(ClassifierMixin, _BaseComposition):
    """The mean of the probabilities of several classifiers, or a classifier of these probabilities.

    Trees and kernels make errors on different patches, so their mean ranks patches better than either. Classifiers on
    columns of their own keep one kind of features from overruling another (late fusion).

    Parameters
    ----------
    members : list of (str, estimator)
        Names and classifiers, on standardised features. One without probabilities is calibrated on patients that its
        inner fits have not seen, or without ``groups`` in `fit` on rows.
    columns : mapping of str to ndarray of int, optional
        The columns of a member by its name. Members that are not named share all other columns. By default all members
        see all columns.
    final : estimator, optional
        Classifier that replaces the mean (stacking). Its features are logarithms of ratios of the members'
        probabilities, k - 1 for each member (for two classes the log-odds). It is fitted on probabilities by inner fits
        that have not seen the patient, or without ``groups`` in `fit` the row. Without three rows of each class it is
        not fitted, and the mean is taken.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    members_ : list of FeatureHead
        The fitted classifiers, in the order of `members`.
    final_ : estimator or None
        The fitted `final`; None where the mean is taken.
    note_ : str
        The members and their columns, as a sentence for a report.

    Notes
    -----
    scikit-learn's `VotingClassifier` and `StackingClassifier` do the same for classifiers that have probabilities. They
    pass patients to a member's calibration, or to the folds of the final classifier, only under the global switch for
    metadata routing, which changes every pipeline in the process.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]
    >>> vote = SoftVote([("line", LogisticRegression()), ("bayes", GaussianNB())]).fit(X, y)
    >>> vote.predict(X).tolist(), vote.get_params()["line__C"]
    ([0, 0, 1, 1], 1.0)
    """

    columns: Any = None  # of votes that were saved before there were any
    final: Any = None
    final_: Any = None

    def __init__(
        self, members: list[tuple[str, BaseEstimator]], *, columns: Mapping[str, Any] | None = None, final: Any = None
    ):
        self.members = members
        self.columns = columns
        self.final = final

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` also ``<member>__<parameter>`` of each member."""
        return self._get_params("members", deep=deep)

    def set_params(self, **params: Any) -> SoftVote:
        """Set parameters, those of a member after its name."""
        return self._set_params("members", **params)

    @property
    def inner_fits(self) -> str:
        """What `fit` holds patients out for, in words; empty where it holds out none."""
        if self.final is not None:
            return f"stack {_listed([repr(name) for name, _ in self.members])}"
        names = [repr(name) for name, member in self.members if not hasattr(member, "predict_proba")]
        return f"calibrate {_listed(names)} of the vote" if names else ""

    def restricted(self, columns: np.ndarray) -> SoftVote:
        """Give an unfitted vote for some of the columns, by their numbers, without members that lose all of theirs."""
        own = {name: np.flatnonzero(np.isin(columns, numbers)) for name, numbers in (self.columns or {}).items()}
        rest = len(columns) - sum(map(len, own.values()))
        members = [(name, clone(member)) for name, member in self.members if len(own.get(name, range(rest)))]
        own = {name: numbers for name, numbers in own.items() if len(numbers)}
        return type(self)(members, columns=None if self.columns is None else own, final=self.final)

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
            If there is no member, two have the same name, columns are of no member, one takes no weights and there are
            some, or there are too few patients to hold some out.
        """
        names = [name for name, _ in self.members]
        differ, remedy = 0 < len(names) == len(set(names)), 'Pass [("xgboost", XGBClassifier()), ("svm", KernelSVM())].'
        check_that("SoftVote.members", names, differ, "one or more classifiers with different names", remedy)
        for name in self.columns or ():
            check_name("SoftVote.columns", name, names, "names of members")
        # pandas would bring its column names, and every member would ask for them again.
        X, y = validate_data(self, X, y, dtype=np.float32)
        folds = None if self.final is None else inner_folds(y, groups)
        self.members_, inner = [], []
        for (_, member), seen in zip(self.members, self._seen(X), strict=True):
            head = FeatureHead(clone(member), scale=True, calibrate=not hasattr(member, "predict_proba"))
            if folds is None:
                head.fit(seen, y, groups, sample_weight)
            else:
                head, held_out = fit_with_inner_scores(head, seen, y, groups, folds, sample_weight)
                inner.append(held_out)
            self.members_.append(head)
        self.classes_: np.ndarray = self.members_[0].classes_
        self.final_ = None if folds is None else clone(self.final).fit(_log_ratios(inner), y, sample_weight)
        self.note_: str = self._note(groups)
        return self

    def _seen(self, X) -> list[np.ndarray]:
        """Give the columns of each member."""
        own = self.columns or {}
        rest = np.setdiff1d(np.arange(X.shape[1]), np.concatenate([*own.values()])) if own else slice(None)
        return [X[:, own.get(name, rest)] for name, _ in self.members]

    def _note(self, groups) -> str:
        sizes = {name: head.n_features_in_ for (name, _), head in zip(self.members, self.members_, strict=True)}
        apart = {*sizes.values()} != {self.n_features_in_}
        names = [name + f" ({counted(size, 'column')})" * apart for name, size in sizes.items()]
        notes = [f"The mean of the probabilities of {_listed(names)}."]
        if self.final_ is not None:
            held_out = "rows" if groups is None else "patients"
            notes = [f"Probabilities of {_listed(names)}, stacked on held-out {held_out}."]
        notes += ["All features are of one kind: nothing is fused late."] * (self.columns is not None and not apart)
        notes += [note for head in self.members_ for note in head.notes_ if note != vars(head.classifier_).get("note_")]
        return " ".join(dict.fromkeys(notes))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of shape (n, k), columns in the order of ``classes_``: the mean, or those of ``final_``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        told = [member.predict_proba(seen) for member, seen in zip(self.members_, self._seen(X), strict=True)]
        return np.mean(told, axis=0) if self.final_ is None else self.final_.predict_proba(_log_ratios(told))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Labels of the largest probability."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _log_ratios(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Logarithms of the ratios to the first class, (n, m (k - 1)) of m members: for two classes their log-odds.

    Examples
    --------
    >>> _log_ratios([np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])]).round(4).tolist()
    [[0.0, 1.0986]]
    """
    logs = [np.log(np.clip(one, 1e-6, 1.0)) for one in probabilities]
    return np.hstack([one[:, 1:] - one[:, :1] for one in logs])


def check_inner_patients(plan: Any, dataset: PatchDataset, splits: Sequence[Any], inner: Sequence[Any]) -> None:
    """Check that each class has enough patients in each inner fit of a vote, which holds patients out in every fit.

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
    if not getattr(getattr(plan.head, "classifier", None), "inner_fits", ""):
        return
    for fold, ((train, _), folds) in enumerate(zip(splits, inner, strict=True), start=1):
        for number, (part, _) in enumerate(folds.split(train), start=1):
            rows, where = train[part], f"pipeline {plan.name!r}, fold {fold}, inner fit {number}"
            check_enough_patients(plan.head, dataset.y[rows], dataset.patients[rows], where, dataset.target_names)
