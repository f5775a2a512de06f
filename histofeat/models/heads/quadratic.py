"""Quadratic discriminant analysis that also works with more features than patches."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["QuadraticDiscriminant"]

#: Principal components with a smaller part of the variance of the first are rounding.
_RANK = 1e-7


class QuadraticDiscriminant(ClassifierMixin, BaseEstimator):
    """A Gaussian for each class, with a covariance of its own, on whitened principal components.

    Parameters
    ----------
    n_components : int, default 20
        Principal components kept at most, 1 or more; fewer where the features have no more that vary.
    reg_param : float, default 0.5
        Share of the covariance of all rows in that of each class, above 0 and at most 1. At 1 all classes have the
        same covariance.
    random_state : int or None, default 0
        Seed of the principal components, which are found by a randomised method where features are many.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    n_components_ : int
        Principal components kept, c.
    means_ : ndarray of shape (k, c)
        Mean of each class, on whitened components.
    covariances_ : ndarray of shape (k, c, c)
        Regularised covariance of each class there.
    axes_ : ndarray of shape (k, c, c)
        Directions, as columns, in which that class has variance 1.
    log_volumes_ : ndarray of shape (k,)
        Logarithm of the determinant of each covariance.
    center_, components_ : ndarray of shape (d,) and (d, c)
        What is taken off the features, and what they are then multiplied by.
    priors_ : ndarray of shape (k,)
        Frequencies of the classes in the training rows.
    note_ : str
        How many components stand for the features, for a report.

    Notes
    -----
    A class of n rows has a covariance S of rank n - 1 at most. With more features it has no inverse, and features that
    are sums of others, such as histograms, never let it have one; `sklearn.discriminant_analysis` refuses both. Here
    features are first reduced to principal components of variance 1, which drops collinear ones, and S becomes
    ``(1 - reg_param) S + reg_param I``. As I is the covariance of all rows on these components, this is Friedman's
    shrinkage towards a common covariance [1]_, with that of all rows in place of that within classes. It always has
    an inverse, also for a class of one row.

    With S divided by n, this is `sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis` with the same
    `reg_param` on the same components, where that can be fitted. There are no weights of rows: `fit` takes none.
    Patches of a patient are no independent draws, so the probabilities lie too near 0 and 1; calibrate them before
    they are read as such.

    References
    ----------
    .. [1] J. H. Friedman, Journal of the American Statistical Association 84(405), 1989, 165-175.
       :doi:`10.1080/01621459.1989.10478752`

    Examples
    --------
    >>> X = np.array([[-1.0], [0.0], [1.0], [-9.0], [9.0], [8.0]])
    >>> QuadraticDiscriminant(reg_param=0.1).fit(X, ["near"] * 3 + ["far"] * 3).predict([[0.5], [-8.0]]).tolist()
    ['near', 'far']
    """

    def __init__(self, n_components=20, reg_param=0.5, random_state=0):
        self.n_components = n_components
        self.reg_param = reg_param
        self.random_state = random_state

    def fit(self, X, y):
        """Find the components, and the mean and covariance of each class on them.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Features, standardised.
        y : array-like of shape (n,)
            Labels, two classes or more.

        Returns
        -------
        self : QuadraticDiscriminant
            The fitted classifier.

        Raises
        ------
        ValueError
            If a parameter is out of its range, there is one class only, or no feature varies.
        """
        self._check_params()
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least two classes, got only {self.classes_.tolist()}.")
        Z = self._fit_components(X)
        parts = [Z[codes == code] for code in range(len(self.classes_))]
        self.priors_ = np.array([len(part) for part in parts]) / len(Z)
        self.means_ = np.array([part.mean(axis=0) for part in parts])
        centered = [part - mean for part, mean in zip(parts, self.means_, strict=True)]
        own = np.array([part.T @ part / len(part) for part in centered])
        self.covariances_ = (1 - self.reg_param) * own + self.reg_param * np.eye(Z.shape[1])
        variances, axes = np.linalg.eigh(self.covariances_)
        self.axes_ = axes / np.sqrt(variances)[:, None]
        self.log_volumes_ = np.log(variances).sum(axis=1)
        self.note_ = (
            f"Quadratic discriminant analysis on {self.n_components_} whitened principal components of {X.shape[1]} "
            f"features, {self.reg_param:g} of the common covariance in that of each class."
        )
        return self

    def _check_params(self) -> None:
        n, share = self.n_components, self.reg_param
        if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
            raise ValueError(f"QuadraticDiscriminant.n_components: expected an integer of at least 1, got {n!r}.")
        if not isinstance(share, Real) or isinstance(share, bool) or not 0 < share <= 1:
            raise ValueError(
                f"QuadraticDiscriminant.reg_param: expected a number above 0 and at most 1, got {share!r}. "
                "Without any, a class with fewer rows than components has no inverse covariance."
            )

    def _fit_components(self, X) -> np.ndarray:
        """Keep the components that vary, and return the whitened rows."""
        if not (X[0] != X).any():
            raise ValueError(f"X: expected features that vary, got {X.shape[1]} constant columns in {len(X)} rows.")
        components = PCA(min(self.n_components, *X.shape), random_state=self.random_state).fit(X)
        variances = components.explained_variance_
        self.n_components_ = int((variances > _RANK * variances[0]).sum())
        self.center_ = components.mean_
        self.components_ = components.components_[: self.n_components_].T / np.sqrt(variances[: self.n_components_])
        return self._whitened(X)

    def _whitened(self, X) -> np.ndarray:
        return (X - self.center_) @ self.components_

    def _log_posteriors(self, X) -> np.ndarray:
        """Logarithms of prior times density (n, k), but for a constant."""
        check_is_fitted(self)
        Z = self._whitened(validate_data(self, X, dtype=np.float64, reset=False))
        distances = [(((Z - mean) @ axes) ** 2).sum(axis=1) for mean, axes in zip(self.means_, self.axes_, strict=True)]
        return np.log(self.priors_) - (np.stack(distances, axis=1) + self.log_volumes_) / 2

    def decision_function(self, X):
        """Log-odds (n,) for two classes; log-posteriors but for a constant, (n, k), for more."""
        values = self._log_posteriors(X)
        return values[:, 1] - values[:, 0] if len(self.classes_) == 2 else values

    def predict_proba(self, X):
        """Posterior probabilities (n, k), columns in the order of ``classes_``."""
        return softmax(self._log_posteriors(X), axis=1)

    def predict(self, X):
        """Labels of the largest posterior."""
        return self.classes_[self._log_posteriors(X).argmax(axis=1)]
