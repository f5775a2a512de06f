"""Choose the parameters of a head on the training patients by scikit-learn's random search."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RandomizedSearchCV
from sklearn.utils.metaestimators import available_if

from histofeat.evaluation.search import Search
from histofeat.models import FeatureHead

_PREFIX = "head__classifier__"


class _HeadForSearch(ClassifierMixin, BaseEstimator):
    """A head as a search fits it: with patients, without calibration.

    Parameters
    ----------
    head : FeatureHead
        Unfitted.

    Attributes
    ----------
    head_ : FeatureHead
        The fitted head.
    classes_ : ndarray of shape (k,)
        The labels.
    """

    def __init__(self, head):
        self.head = head

    def fit(self, X, y, patients):
        """Fit on the rows `X` (n, d) with labels `y` (n,) of `patients` (n,)."""
        self.head_ = clone(self.head).set_params(calibrate=False).fit(X, y, groups=patients)
        self.classes_ = self.head_.classes_
        return self

    @available_if(lambda candidate: hasattr(candidate.head_, "predict_proba"))
    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of shape (n, k), where the head has them without calibration."""
        return self.head_.predict_proba(X)

    def decision_function(self, X) -> np.ndarray:
        """Scores that order the rows, as of `FeatureHead`."""
        return self.head_.decision_function(X)

    def predict(self, X) -> np.ndarray:
        """Labels, as of `FeatureHead`."""
        return self.head_.predict(X)


def tune_head(head: FeatureHead, X, y, groups, inner_cv, search: Search, head_name: str) -> tuple[FeatureHead, dict]:
    """Choose the parameters of a head on the training patients alone.

    Parameters
    ----------
    head : FeatureHead
        Unfitted; it is not changed.
    X : ndarray of shape (n, d)
        Features of the training rows, and of no other.
    y : array-like of shape (n,)
        Their labels.
    groups : array-like of shape (n,)
        Their patients.
    inner_cv : splitter
        Patient-grouped, such as ``PatientKFold(3)``; each candidate meets the same folds.
    search : Search
        What is searched over.
    head_name : str
        The name by which `search` knows the head.

    Returns
    -------
    tuned : FeatureHead
        Unfitted, with the chosen parameters; `head` itself where nothing is searched for it.
    choice : dict
        "params" (the chosen values), "inner_score" (mean over the inner folds), "scoring", "method",
        "n_candidates" and "n_fits"; empty where nothing is searched.

    Raises
    ------
    ValueError
        If the head lacks a parameter, an inner fold lacks a class, or the scorer asks for probabilities that the head
        has only after calibration.

    Notes
    -----
    No calibration takes part in the search: it does not change how a head ranks patches, and would cost three more
    fits a candidate. The score of the chosen candidate is the best of several, and so too high for a new patient.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.models import make_head
    >>> from histofeat.model_selection import PatientKFold
    >>> X, y = np.array([[0.0], [1.0], [0.2], [0.9]] * 6), [0, 1, 0, 1] * 6
    >>> search = Search({"logistic": {"C": [0.01, 1.0]}}, n_iter=2)
    >>> patients = np.repeat(list("abcdef"), 4)
    >>> tuned, choice = tune_head(make_head("logistic"), X, y, patients, PatientKFold(2), search, "logistic")
    >>> tuned.classifier.C == choice["params"]["C"], choice["n_candidates"], choice["n_fits"]
    (True, 2, 4)
    """
    search.check_head(head, head_name)
    space = search.for_head(head_name)
    if not space:
        return head, {}
    X, y, groups = np.asarray(X), np.asarray(y), np.asarray(groups)
    folds = [(np.asarray(train), np.asarray(test)) for train, test in inner_cv.split(X, y, groups)]
    _check_classes(folds, y)
    n_candidates = _n_candidates(space, search.n_iter)
    searched = RandomizedSearchCV(
        _HeadForSearch(clone(head)),
        {_PREFIX + name: values for name, values in space.items()},
        n_iter=n_candidates,
        scoring=_one_against_the_rest if search.scoring == "roc_auc" and len(np.unique(y)) > 2 else search.scoring,
        cv=folds,
        refit=False,
        random_state=search.random_state,
        error_score="raise",
    )
    _fit(searched, X, y, groups, head, search.scoring, head_name)
    chosen = {name: _plain(searched.best_params_[_PREFIX + name]) for name in space}
    tuned = clone(head).set_params(**{f"classifier__{name}": value for name, value in chosen.items()})
    return tuned, {
        "params": chosen,
        "inner_score": float(searched.cv_results_["mean_test_score"][searched.best_index_]),
        "scoring": search.scoring,
        "method": "random",
        "n_candidates": n_candidates,
        "n_fits": len(searched.cv_results_["params"]) * len(folds),
    }


def _check_classes(folds, y) -> None:
    """Refuse inner folds that lack a class: scores there would be undefined, or of another task."""
    for fold, sides in enumerate(folds, start=1):
        for side, rows in zip(("training", "test"), sides, strict=True):
            lost = np.setdiff1d(y, y[rows])
            if lost.size:
                raise ValueError(
                    f"tune_head.inner_cv: expected every class on both sides of every inner fold, got no patch of "
                    f"class {_plain(lost[0])!r} on the {side} side of fold {fold} ({lost.size} such classes). "
                    "Use PatientKFold(3)."
                )


def _fit(searched, X, y, groups, head, scoring: str, head_name: str):
    # Routing would ask for requests that nobody has made here; a process may have turned it on for other searches.
    with config_context(enable_metadata_routing=False):
        try:
            return searched.fit(X, y, patients=groups)
        except AttributeError as error:
            if hasattr(head.classifier, "predict_proba"):
                raise
            raise ValueError(
                f"Search.scoring: expected a scorer of labels or rankings for head {head_name!r}, which has no "
                f"probabilities until it is calibrated, got {scoring!r}. Use 'roc_auc'."
            ) from error


def _n_candidates(space: Mapping, n_iter: int) -> int:
    if any(hasattr(values, "rvs") for values in space.values()):
        return int(n_iter)
    return int(min(n_iter, math.prod(len(values) for values in space.values())))


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _one_against_the_rest(head, X, y) -> float:
    """Mean ROC-AUC of one class against the rest; scikit-learn's asks for probabilities, ranks will do."""
    values = head.decision_function(X)
    return float(np.mean([roc_auc_score(y == label, values[:, code]) for code, label in enumerate(head.classes_)]))
