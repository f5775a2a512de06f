"""Classifiers on images, or on rows of a data set, as heads: `PixelHead` and `OnRows`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from histofeat.images import as_images, image_input_tags

#: Value of ``IDCPipeline(features=...)`` with which the head gets the patches themselves.
PIXELS = "pixels"


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator that can be fitted and cloned, not a name or a class."""
    return hasattr(value, "fit") and hasattr(value, "get_params") and not isinstance(value, type)


def takes_images(classifier: Any) -> bool:
    """Whether a classifier is fitted on images, such as `histofeat.networks.CNNClassifier`, not on a matrix."""
    return is_estimator(classifier) and not get_tags(classifier).input_tags.two_d_array


class PixelHead(ClassifierMixin, BaseEstimator):
    """A classifier on images as the head of a pipeline; `FeatureHead` is the one on feature matrices.

    Parameters
    ----------
    classifier : estimator
        A classifier whose ``fit(X, y, groups=patients)`` takes images and that has ``predict_proba``.
    class_weight : {"balanced"}, mapping of label to weight, or None
        Weights of the classes; None leaves the classifier's own.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    classifier_ : estimator
        The fitted classifier.
    notes_ : tuple of str
        Sentences about this fit for a report.
    history_ : mapping of str to list
        The classifier's ``history_``, one entry an epoch; empty where it keeps none. "kept" is true in the epoch whose
        network is used, where the classifier says which that is.
    n_features_in_ : int
        Values of an image as the classifier sees it; 0 where it does not say.

    Examples
    --------
    >>> from histofeat import CNNClassifier
    >>> PixelHead(CNNClassifier("cancernet"), class_weight="balanced").classifier.architecture
    'cancernet'
    """

    def __init__(self, classifier: BaseEstimator, *, class_weight: str | Mapping[Any, float] | None = None):
        self.classifier = classifier
        self.class_weight = class_weight

    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012

    def fit(
        self, X: Any, y: ArrayLike, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> PixelHead:
        """Fit on images.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or Images
            The patches.
        y : array-like of shape (n,)
            Labels, two classes or more.
        groups : array-like of shape (n,), optional
            Patients; a network holds some of them out to choose the number of epochs.
        sample_weight : array-like of shape (n,), optional
            Weight of each image, for a classifier that takes them.

        Returns
        -------
        self : PixelHead
            The fitted head.
        """
        fitted = clone(self.classifier)
        if self.class_weight is not None:
            fitted.set_params(class_weight=self.class_weight)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.classifier_: Any = fitted.fit(as_images(X), y, groups=groups, **weights)
        self.classes_: np.ndarray = fitted.classes_
        self.notes_: tuple[str, ...] = tuple(getattr(fitted, "notes_", ()))
        self.history_: dict[str, list[Any]] = dict(getattr(fitted, "history_", {}))
        best = getattr(fitted, "best_epoch_", None)
        if self.history_ and best is not None:
            self.history_["kept"] = [epoch == best for epoch in range(1, len(self.history_["loss"]) + 1)]
        size = getattr(fitted, "input_size_", None)
        self.n_features_in_: int = 0 if size is None else 3 * int(size) ** 2
        return self

    def held_out_scores(self, n_rows: int) -> np.ndarray:
        """Probabilities of the training rows whose patients the fit held out.

        Parameters
        ----------
        n_rows : int
            The number of rows of the fit.

        Returns
        -------
        proba : ndarray of shape (n_rows, k), float64
            NaN in the rows that were trained on.

        Notes
        -----
        The number of epochs was chosen on the same patients, so these scores are slightly optimistic. Thresholds and
        calibrations chosen on them still use training patients only.
        """
        check_is_fitted(self)
        proba = np.full((n_rows, len(self.classes_)), np.nan)
        rows = getattr(self.classifier_, "validation_rows_", ())
        if len(rows):
            proba[rows] = self.classifier_.validation_proba_
        return proba

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of shape (n, k), float64, columns in the order of ``classes_``."""
        check_is_fitted(self)
        return np.asarray(self.classifier_.predict_proba(as_images(X)), dtype=np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores that order the patches: the probability of the second of two classes (n,), or all of them (n, k)."""
        proba = self.predict_proba(X)
        return proba[:, 1] if proba.shape[1] == 2 else proba

    def predict(self, X: Any) -> np.ndarray:
        """Labels of shape (n,): the most probable class."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        return image_input_tags(super().__sklearn_tags__(), requires_fit=True)


class OnRows(ClassifierMixin, BaseEstimator):
    """A classifier that gets rows of a data set by their numbers: heads divide and check matrices, and read no images.

    Parameters
    ----------
    classifier : estimator
        A classifier of scikit-learn on what `dataset` holds: its columns, as a DataFrame, or else paths or images. Its
        ``fit`` gets patients as ``groups`` where it asks for them: as a parameter, by metadata routing, or as a search
        whose ``cv`` divides by them.
    dataset : PatchDataset

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from histofeat import PatchDataset
    >>> frame = pd.DataFrame({"path": list("abcd"), "label": [0, 1, 0, 1], "patient": list("abcd"), "x": 0, "y": 0})
    >>> dataset = PatchDataset(frame, ("no", "yes"), "mine", columns=pd.DataFrame({"f": [0.0, 1, 0, 1]}))
    >>> OnRows(LogisticRegression(), dataset).fit([[0], [1]], [0, 1]).predict_proba([[2], [3]]).argmax(axis=1).tolist()
    [0, 1]
    """

    def __init__(self, classifier: BaseEstimator, dataset: Any):
        self.classifier = classifier
        self.dataset = dataset

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> OnRows:
        """Fit on the rows `X` (n, 1), with labels `y` (n,) of the patients `groups` (n,)."""
        asked = None if groups is None else _groups_as(self.classifier)
        self.classifier_ = clone(self.classifier).fit(self._rows(X), y, **({} if asked is None else {asked: groups}))
        self.classes_ = self.classifier_.classes_
        return self

    @available_if(lambda self: hasattr(self.classifier, "predict_proba"))
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of rows, (n, k)."""
        proba = self.classifier_.predict_proba(self._rows(X))
        return _checked(f"{len(self.classes_)} probabilities from 0 to 1", proba, len(X), 0, 1, len(self.classes_))

    @available_if(lambda self: hasattr(self.classifier, "decision_function"))
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Decision values of rows."""
        values = self.classifier_.decision_function(self._rows(X))
        return _checked("finite decision values", values, len(X), -1e300, 1e300)

    def _rows(self, X):
        rows = np.asarray(X)[:, 0].astype(np.int64)
        columns = self.dataset.columns
        found = self.dataset.X[rows] if columns is None else columns.take(rows)
        return found.to_frame() if hasattr(found, "to_frame") else found


def _checked(words, values, n_rows, low, high, *columns):
    values = np.asarray(values, dtype=np.float64)
    fits = values.shape == (n_rows, *columns) if columns else len(values) == n_rows
    if not fits or not ((values >= low - 1e-6) & (values <= high + 1e-6)).all():
        got = f"shape {values.shape}, from {values.min():.3g} to {values.max():.3g}"
        raise ValueError(f"classifier: expected {n_rows:,} rows of {words}, got {got}. Correct it.")
    return values


def _groups_as(estimator) -> str | None:
    """Keyword by which ``fit`` takes patients; None where it does not ask for them."""
    step, last = getattr(estimator, "steps", [("", estimator)])[-1]
    if get_config()["enable_metadata_routing"] and not has_fit_parameter(estimator, "groups"):
        return "groups" if get_routing_for_object(estimator).consumes("fit", ["groups"]) else None
    by_patient = get_routing_for_object(getattr(last, "cv", None)).consumes("split", ["groups"])
    asks = has_fit_parameter(last, "groups") or (by_patient and hasattr(last, "refit"))  # a search
    return "__".join(filter(None, (step, "groups"))) if asks else None
