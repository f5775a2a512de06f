"""A support vector machine with an RBF kernel that stays usable from a hundred rows to hundreds of thousands."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.validation import check_is_fitted, validate_data

from histofeat.exceptions import known_names

__all__ = ["KernelSVM"]


class KernelSVM(ClassifierMixin, BaseEstimator):
    """RBF support vector machine: exact on few rows, by Nystroem's approximation on many.

    The exact solver takes time between the square and the cube of the number of rows. Above `exact_rows` the
    kernel is approximated by `n_components` landmark rows (Nystroem) and a linear SVM is fitted on that map.

    Parameters
    ----------
    C : float
        Penalty of a margin violation, positive.
    gamma : {"scale"} or float
        Width of the kernel exp(-gamma |x - y|^2); "scale" is 1 / (d Var(X)).
    exact_rows : int
        Largest number of training rows for the exact solver.
    n_components : int
        Landmark rows of the approximation.
    method : {"auto", "exact", "nystroem"}
        "auto" decides by the number of rows; the other two force it.
    random_state : int, optional
        Seed for the landmarks and the linear solver.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    method_ : str
        "exact" or "nystroem".
    note_ : str
        The same as a sentence for a report.
    model_ : estimator
        The fitted SVM.

    Notes
    -----
    Nystroem's method: Williams and Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [0.1], [1.0], [1.1]])
    >>> KernelSVM().fit(X, [0, 0, 1, 1]).predict([[0.2], [0.9]]).tolist()
    [0, 1]
    """

    def __init__(self, C=1.0, *, gamma="scale", exact_rows=4000, n_components=500, method="auto", random_state=None):
        self.C = C
        self.gamma = gamma
        self.exact_rows = exact_rows
        self.n_components = n_components
        self.method = method
        self.random_state = random_state

    def method_for(self, n_rows: int) -> str:
        """Say which solver `n_rows` training rows get: "exact" or "nystroem"."""
        if self.method not in ("auto", "exact", "nystroem"):
            raise ValueError(
                f"KernelSVM.method: expected 'auto', 'exact' or 'nystroem', got {self.method!r}. "
                f"{known_names(self.method, ('auto', 'exact', 'nystroem'))}"
            )
        if self.method != "auto":
            return self.method
        return "exact" if n_rows <= self.exact_rows else "nystroem"

    def fit(self, X, y, sample_weight=None):
        """Fit on rows `X` (n, d) with labels `y` (n,)."""
        X, y = validate_data(self, X, y)
        self.method_ = self.method_for(len(X))
        if self.method_ == "exact":
            self.model_ = SVC(C=self.C, gamma=self.gamma).fit(X, y, sample_weight=sample_weight)
            self.note_ = f"exact RBF kernel on {len(X):,} rows"
        else:
            # Nystroem has no "scale" of its own; this is SVC's.
            gamma = 1.0 / (X.shape[1] * max(X.var(), 1e-12)) if self.gamma == "scale" else self.gamma
            n_components = min(self.n_components, len(X))
            landmarks = Nystroem(gamma=gamma, n_components=n_components, random_state=self.random_state)
            linear = LinearSVC(C=self.C, dual=False, random_state=self.random_state)
            self.model_ = make_pipeline(landmarks, linear)
            self.model_.fit(X, y, linearsvc__sample_weight=sample_weight)
            self.note_ = (
                f"RBF kernel approximated by Nystroem: {n_components:,} landmarks, linear SVM on {len(X):,} rows"
            )
        self.classes_ = self.model_.classes_
        return self

    def decision_function(self, X) -> np.ndarray:
        """Signed distances: shape (n,) for two classes, (n, k) one-versus-rest for more."""
        check_is_fitted(self)
        return self.model_.decision_function(validate_data(self, X, reset=False))

    def predict(self, X) -> np.ndarray:
        """Labels by the sign, or the largest, of the distances."""
        check_is_fitted(self)
        return self.model_.predict(validate_data(self, X, reset=False))
