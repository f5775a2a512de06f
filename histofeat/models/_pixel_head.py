"""`PixelHead`: a classifier on images as the head of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

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

    def fit(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> PixelHead:
        """Fit on images.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or Images
            The patches.
        y : array-like of shape (n,)
            Labels, two classes or more.
        groups : array-like of shape (n,), optional
            Patients; a network holds some of them out to choose the number of epochs.

        Returns
        -------
        self : PixelHead
            The fitted head.
        """
        fitted = clone(self.classifier)
        if self.class_weight is not None:
            fitted.set_params(class_weight=self.class_weight)
        self.classifier_: Any = fitted.fit(as_images(X), y, groups=groups)
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
        tags = image_input_tags(super().__sklearn_tags__())
        tags.requires_fit = True
        return tags
