"""The register of heads: one record for each classifier that a pipeline knows by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joblib import effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from histofeat.exceptions import check_name, check_type, needs
from histofeat.features import Register
from histofeat.models._classifiers import Forest, KernelSVM, QuadraticDiscriminant
from histofeat.models._feature_head import FeatureHead
from histofeat.models._soft_vote import SoftVote


def _xgboost(random_state, n_jobs):
    with needs("histofeat", "head='xgboost': expected the package xgboost", ", or choose head='random_forest'"):
        from xgboost import XGBClassifier
    # The cheapest of seven settings, compared on IDC patients outside the official test set, that costs neither a
    # narrow family nor all of them together more than 0.003 of ROC-AUC (benchmarks/protocols/head_defaults.py).
    return XGBClassifier(
        n_estimators=300,
        max_depth=4,
        max_bin=64,
        learning_rate=0.1,
        subsample=0.8,
        colsample_bytree=0.3,
        tree_method="hist",
        n_jobs=effective_n_jobs(n_jobs),  # xgboost's own default is all cores, also inside a parallel search
        random_state=random_state,
    )


def _svm(random_state, n_jobs):
    return KernelSVM(random_state=random_state)


def _logistic(random_state, n_jobs):
    return LogisticRegression(C=0.1, max_iter=2000, random_state=random_state)


def _random_forest(random_state, n_jobs):
    return Forest(n_estimators=500, max_features="sqrt", n_jobs=n_jobs, random_state=random_state)


def _vote(random_state, n_jobs):
    return SoftVote([("xgboost", _xgboost(random_state, n_jobs)), ("svm", _svm(random_state, n_jobs))])


def _knn(random_state, n_jobs):
    return KNeighborsClassifier(n_neighbors=15, algorithm="brute", n_jobs=n_jobs)


def _qda(random_state, n_jobs):
    return QuadraticDiscriminant(random_state=random_state)


@dataclass(frozen=True)
class HeadRecord:
    """A head by name: what it is, how it is built and what it needs.

    Attributes
    ----------
    make : callable
        ``make(random_state, n_jobs)`` gives the classifier with histofeat's defaults.
    words : str
        What it is, for tables and help texts.
    scale : bool
        Whether features are standardised first.
    calibrate : bool
        Whether its scores become probabilities by a calibration, on held-out patients where `fit` is given them.
    """

    make: Callable[[Any, int | None], BaseEstimator]
    words: str
    scale: bool = False
    calibrate: bool = False


def _as_head(name: str, record: Any) -> HeadRecord:
    check_type(name, record, HeadRecord, "a HeadRecord", "See histofeat.features.Register.")
    return record


HEADS: Mapping[str, HeadRecord] = Register(
    "histofeat.heads",
    {
        "xgboost": HeadRecord(_xgboost, "gradient-boosted trees"),
        "svm": HeadRecord(_svm, "support vector machine with an RBF kernel", scale=True, calibrate=True),
        "logistic": HeadRecord(_logistic, "logistic regression", scale=True),
        "random_forest": HeadRecord(_random_forest, "500 trees grown on resampled patches"),
        "vote": HeadRecord(_vote, "mean of the probabilities of xgboost and svm"),
        "knn": HeadRecord(_knn, "labels of the 15 nearest training patches", scale=True),
        "qda": HeadRecord(_qda, "quadratic discriminant analysis, regularised", scale=True),
    },
    _as_head,
)
"""Name of each head and its record. A new head is a record here and a test; or see `histofeat.features.Register`."""


def make_head(
    name: str,
    *,
    class_weight: str | Mapping[Any, float] | None = None,
    random_state: int | None = 0,
    n_jobs: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> FeatureHead:
    """Build a head by name.

    Parameters
    ----------
    name : {"xgboost", "svm", "logistic", "random_forest", "vote", "knn", "qda"}
        Which classifier; "vote" is the mean of the probabilities of the first two.
        "knn" takes the labels of the 15 nearest training rows, so there must be as many; ``n_neighbors=1`` gives the
        nearest alone. "qda" is `histofeat.models._classifiers.QuadraticDiscriminant`.
    class_weight : {"balanced"}, mapping of label to weight, or None
        Weights of the classes in the fit; "balanced" weights each class by the inverse of its frequency. For "knn" and
        "qda" `fit` raises an error unless it is None.
    random_state : int or None
        Seed of the classifier.
    n_jobs : int, optional
        Threads of the classifier, where it has any.
    params : mapping, optional
        Parameters of the classifier that replace histofeat's defaults. With ``early_stopping_rounds=20`` "xgboost"
        chooses ``n_estimators`` on a fifth of the patients, which needs ``groups`` in `fit`, and is then fitted on all.

    Returns
    -------
    head : FeatureHead
        An unfitted classifier on feature matrices.

    Raises
    ------
    ValueError
        If the name, or one of the parameters, is unknown; the message gives the nearest one.
    MissingExtraError
        If the classifier's package is not installed.

    Examples
    --------
    >>> make_head("svm", params={"C": 10.0}).classifier.C
    10.0
    """
    if not isinstance(name, str) or name not in HEADS:
        check_name("head", name, HEADS, "the name of a head")
    record = HEADS[name]
    classifier = record.make(random_state, n_jobs)
    for param in params or {}:
        # xgboost itself would accept any keyword and ignore it.
        expected = f"a parameter of head {name!r} ({type(classifier).__name__})"
        check_name(f"head__{param}", param, classifier.get_params(), expected)
    classifier.set_params(**(params or {}))
    return FeatureHead(classifier, scale=record.scale, calibrate=record.calibrate, class_weight=class_weight)
