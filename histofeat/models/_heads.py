"""The register of heads: one record for each classifier that a pipeline knows by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from histofeat.exceptions import check_name, check_type, needs
from histofeat.features import PatchFeatures, Register
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


def _late_vote(random_state, n_jobs, families, stacked=False):
    """XGBoost and SVM on handcrafted columns, and a logistic regression on each embedding."""
    both, members, columns, start = _vote(random_state, n_jobs).members, [], {}, 0
    for family in families:
        own = np.arange(start, start + len(family.get_feature_names_out()))
        start += len(own)
        if family.is_embedding:
            name = family.family.replace("__", "_")
            while name in columns or name in ("members", "columns", "final", *dict(both)):
                name += "_"
            # The best of five, within 0.002 of ROC-AUC, for 128 to 1,280 columns of IDC patients outside the test set.
            members.append((name, _logistic(random_state, n_jobs).set_params(C=0.003)))
            columns[name] = own
    handcrafted = both if not families or start > sum(map(len, columns.values())) else []
    final = LogisticRegression(max_iter=2000) if stacked else None
    return SoftVote([*handcrafted, *members], columns=columns, final=final)


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
        ``make(random_state, n_jobs)`` gives the classifier with histofeat's defaults; with `by_family`
        ``make(random_state, n_jobs, families)``.
    words : str
        What it is, for tables and help texts.
    scale : bool
        Whether features are standardised first.
    calibrate : bool
        Whether its scores become probabilities by a calibration, on held-out patients where `fit` is given them.
    by_family : bool
        Whether the classifier has to know the families of its columns.
    """

    make: Callable[..., BaseEstimator]
    words: str
    scale: bool = False
    calibrate: bool = False
    by_family: bool = False


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
        "late_vote": HeadRecord(_late_vote, "vote with a logistic regression for each embedding", by_family=True),
        "stacking": HeadRecord(partial(_late_vote, stacked=True), "late_vote with learnt weights", by_family=True),
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
    families: Sequence[PatchFeatures] = (),
) -> FeatureHead:
    """Build a head by name.

    Parameters
    ----------
    name : {"xgboost", "svm", "logistic", "random_forest", "vote", "late_vote", "stacking", "knn", "qda"}
        Which classifier; "vote" is the mean of the probabilities of the first two. "late_vote" is the mean of these
        two on handcrafted features and of "logistic" on each embedding; "stacking" combines the same members by a
        logistic regression on probabilities of patients that inner fits have not seen. See `SoftVote`. Where an encoder
        was trained on the training patients, "stacking" gives its embedding too much weight; "late_vote" does not.
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
        Those of the members of a vote follow their names, as in ``svm__C``; embeddings go by their family.
    families : sequence of PatchFeatures, optional
        Families of the columns, in order, for "late_vote" and "stacking"; `IDCPipeline` gives its own. By default all
        columns count as handcrafted.

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
    classifier = record.make(random_state, n_jobs, *([families] if record.by_family else []))
    for param in params or {}:
        # xgboost itself would accept any keyword and ignore it.
        expected = f"a parameter of head {name!r} ({type(classifier).__name__})"
        check_name(f"head__{param}", param, classifier.get_params(), expected)
    classifier.set_params(**(params or {}))
    return FeatureHead(classifier, scale=record.scale, calibrate=record.calibrate, class_weight=class_weight)
