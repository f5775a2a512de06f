"""Probabilities from the decision values of many classes, by one number: how sharp they are."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["TemperatureScaling"]

#: Bounds of the logarithm of the sharpness; at either end a probability is as good as even, or as good as certain.
_BOUNDS = (np.log(1e-3), np.log(1e3))


class TemperatureScaling(ClassifierMixin, BaseEstimator):
    """The softmax of decision values times one fitted sharpness.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels; column c of the values belongs to class c.
    sharpness_ : float
        What values are multiplied with: the inverse of the temperature.

    Notes
    -----
    The sharpness is the one of highest likelihood on the labels of `fit` (Guo et al. 2017,
    https://proceedings.mlr.press/v70/guo17a.html). The most probable class is always that of the largest value. A
    logistic regression on the values, which is right for two classes, has k (k + 1) weights for k: on the rows that
    a few patients give it learns these by heart, and the order of the classes is lost.

    Examples
    --------
    >>> values = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.0, 2.0, 0.0]])
    >>> fitted = TemperatureScaling().fit(values, [0, 1, 2, 0])
    >>> fitted.predict_proba(values).max(axis=1).round(2).tolist()
    [0.75, 0.75, 0.75, 0.75]
    """

    def fit(self, X, y):
        """Fit the sharpness.

        Parameters
        ----------
        X : ndarray of shape (n, k), float
            Decision values of rows that were not learnt from, one column a class.
        y : array-like of shape (n,)
            Labels, each of the k classes among them.

        Returns
        -------
        self : TemperatureScaling

        Raises
        ------
        ValueError
            If the values have not one column for each class.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if X.shape[1] != len(self.classes_):
            raise ValueError(
                f"TemperatureScaling.X: expected a column of decision values for each of {len(self.classes_)} classes, "
                f"got shape {X.shape}. Pass decision_function of one against the rest."
            )
        of_label = X[np.arange(len(X)), codes]

        def loss(log_sharpness):
            sharpness = np.exp(log_sharpness)
            return np.mean(logsumexp(sharpness * X, axis=1) - sharpness * of_label)

        self.sharpness_ = float(np.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded").x))
        return self

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of shape (n, k), float64, rows that add up to 1."""
        check_is_fitted(self)
        return softmax(self.sharpness_ * validate_data(self, X, dtype=np.float64, reset=False), axis=1)

    def predict(self, X) -> np.ndarray:
        """Labels: the largest decision value."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]
