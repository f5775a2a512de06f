"""A linear support vector machine on a kernel map, for many rows: matrix products on blocks of them, little memory."""

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.utils import gen_batches

#: Rows of a block.
BLOCK = 8192
#: Largest norm of a whitening matrix that single precision stands: rounding errors of the kernel are multiplied by it.
_MOST_WHITENED = 1e3
#: Newton's method ends where a step promises less than this share of the loss, or after so many steps.
_TOLERANCE, _MOST_STEPS = 1e-7, 50


def kernel_map(landmarks: Nystroem, X: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Map rows as `sklearn.kernel_approximation.Nystroem` with an RBF kernel does, where it can in single precision.

    Parameters
    ----------
    landmarks : Nystroem
        Fitted, with a number as `gamma`.
    X : ndarray of shape (n, d)
    weights : ndarray of shape (k, n_components), optional
        Weights of the mapped columns.

    Returns
    -------
    mapped : ndarray of shape (n, n_components), or their weighted sums (n, k), float32
    """
    whitening = landmarks.normalization_.T
    dtype = np.float32 if np.linalg.norm(whitening) < _MOST_WHITENED else np.float64
    right = (whitening if weights is None else whitening @ weights.T).astype(dtype)
    # Distances stay as they are, and small numbers are exact.
    center, width = landmarks.components_.mean(axis=0), float(np.sqrt(landmarks.gamma))
    known = ((landmarks.components_ - center) * width).astype(dtype)
    left, squares = 2 * known.T, np.square(known).sum(axis=1)
    mapped = np.empty((len(X), right.shape[1]), dtype=np.float32)
    for rows in gen_batches(len(X), BLOCK):
        block = ((X[rows] - center) * width).astype(dtype)
        kernel = block @ left
        kernel -= squares
        kernel -= np.square(block).sum(axis=1, keepdims=True)
        np.minimum(kernel, 0, out=kernel)
        mapped[rows] = np.exp(kernel, out=kernel) @ right
    return mapped


def fit_squared_hinge(Z: np.ndarray, positive: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and intercept of a linear SVM, the optimum of `sklearn.svm.LinearSVC` with ``dual=False``.

    Parameters
    ----------
    Z : ndarray of shape (n, d), float32
    positive : ndarray of bool, shape (n,)
        Which rows are of the class.
    costs : ndarray of shape (n,), float64
        Penalty of each row, C times its weight.

    Returns
    -------
    weights : ndarray of shape (d,), float64
    intercept : float

    Notes
    -----
    Newton's method on ``|w|^2 / 2 + sum(costs * max(0, 1 - s Z w)^2)``, in which w ends with the intercept and s is 1
    or -1. Each step solves for the rows within the margin, in d equations for any number of rows: Keerthi and DeCoste,
    "A modified finite Newton method for fast solution of large scale linear SVMs", JMLR 6, 2005, 341-361.

    Examples
    --------
    >>> Z = np.array([[-3.0], [-1.0], [1.0], [3.0]], dtype=np.float32)
    >>> weights, intercept = fit_squared_hinge(Z, np.array([False, False, True, True]), np.ones(4))
    >>> weights.round(4).tolist(), abs(round(intercept, 4))
    ([0.8], 0.0)
    """
    signs = np.where(positive, np.float32(1), np.float32(-1))
    w, values = np.zeros(Z.shape[1] + 1), np.zeros(len(Z), dtype=np.float32)
    for _ in range(_MOST_STEPS):
        slack = np.maximum(0, 1 - signs * values)
        loss, (gradient, hessian) = _loss(w, slack, costs), _derivatives(w, Z, signs, slack, costs)
        step = -np.linalg.solve(hessian, gradient)
        promised, change = -gradient @ step, Z @ step[:-1].astype(np.float32) + np.float32(step[-1])
        share = 1.0
        while share > 1e-6:
            found = _loss(w + share * step, np.maximum(0, 1 - signs * (values + share * change)), costs)
            if found <= loss - 1e-4 * share * promised:
                break
            share /= 2
        w, values = w + share * step, values + np.float32(share) * change
        if promised <= _TOLERANCE * loss:
            break
    return w[:-1], float(w[-1])


def _loss(w, slack, costs):
    return w @ w / 2 + costs @ np.square(slack, dtype=np.float64)


def _derivatives(w, Z, signs, slack, costs):
    """Gradient and Hessian of the loss, summed over blocks in double precision."""
    gradient, hessian = w.copy(), np.eye(len(w))
    for rows in gen_batches(len(Z), BLOCK):
        active = np.flatnonzero(slack[rows])
        root = np.sqrt(2 * costs[rows][active], dtype=np.float32)
        block = np.ones((len(active), len(w)), dtype=np.float32)
        block[:, :-1] = Z[rows][active]
        block *= root[:, np.newaxis]
        gradient -= block.T @ (root * (signs * slack)[rows][active])
        hessian += block.T @ block
    return gradient, hessian
