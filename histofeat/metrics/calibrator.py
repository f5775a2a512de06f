"""Probabilities that mean what they say: fitted on training patients' held-out scores, applied to new ones."""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from histofeat.exceptions import known_names
from histofeat.metrics.definitions import check_predictions

__all__ = ["METHODS", "Calibrator", "fit_calibrator"]

METHODS = ("logistic", "isotonic")

#: Probabilities are moved this far from 0 and 1 before their log-odds are taken.
_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Calibrator:
    """A fitted map from the probability of class 1 to a calibrated one, which never falls where the other rises.

    Parameters
    ----------
    method : {"logistic", "isotonic"}
        How it was fitted.
    slope, intercept : float
        Of the calibrated log-odds over the raw ones (slope at least 0); NaN for "isotonic".
    knots : tuple of (float, float)
        Raw and calibrated probabilities between which "isotonic" interpolates; empty for "logistic".
    n_patches : int
        How many patches it was fitted on.
    """

    method: str
    slope: float
    intercept: float
    knots: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    n_patches: int = 0

    def transform(self, proba):
        """Calibrate probabilities.

        Parameters
        ----------
        proba : array-like of shape (n, 2), float in [0, 1]
            Class probabilities of patches that the calibrator was not fitted on, on the scale of those that it was.

        Returns
        -------
        calibrated : ndarray of shape (n, 2), float64
            Rows sum to 1. Finite for probabilities of 0 and 1 too; no patches give no rows.

        Raises
        ------
        ValueError
            If a probability is NaN or out of range, or the classes are not two.
        """
        proba = np.asarray(proba, dtype=np.float64)
        if proba.shape == (0, 2):
            return proba.copy()
        score = _positive(proba, "Calibrator.transform")
        if self.method == "isotonic":
            positive = np.interp(score, *np.array(self.knots).T)
        else:
            positive = expit(self.slope * _log_odds(score) + self.intercept)
        return np.column_stack([1 - positive, positive])

    def to_dict(self):
        """Plain values, for files."""
        return {
            "method": self.method,
            "slope": self.slope,
            "intercept": self.intercept,
            "knots": [list(knot) for knot in self.knots],
            "n_patches": self.n_patches,
        }


def fit_calibrator(y, proba, method="logistic"):
    """Fit the map from a model's probabilities to calibrated ones.

    Parameters
    ----------
    y : array-like of shape (n,), int
        0 or 1, both present.
    proba : array-like of shape (n, 2), float in [0, 1]
        Class probabilities of training patients by fits that had not seen them, as
        `histofeat.models.fit_with_inner_scores` gives them: scores of patches that the model learnt from are too
        sure, and so would be everything that is calibrated on them.
    method : {"logistic", "isotonic"}, default="logistic"
        A logistic regression on the log-odds of the probability, which has two parameters and keeps the order of the
        patches; or the best non-decreasing steps, joined by straight lines, which may take any shape and make ties.

    Returns
    -------
    calibrator : Calibrator
        Its ``transform`` calibrates probabilities of other patches.

    Raises
    ------
    ValueError
        If the method is unknown, the classes are not two or one is missing, a probability is NaN or out of range, or a
        shape does not fit.

    Notes
    -----
    Both fits are unweighted, so that the calibrated probabilities follow the frequency of the classes among the
    patches, also where the model itself was fitted under class weights, which distort its own.

    "logistic": ``logit(q) = slope * logit(p) + intercept``, of highest likelihood with `slope` at least 0, so that the
    order of the patches is never reversed. Platt, "Probabilistic outputs for support vector machines", 1999, on
    log-odds instead of decision values, which is beta calibration with equal parameters (Kull, Silva Filho and Flach
    2017, doi:10.1214/17-EJS1338SI). His targets (N1 + 1) / (N1 + 2) and 1 / (N0 + 2) in place of 1 and 0 keep the fit
    finite where the classes do not overlap. Log-odds are taken at least 1e-6 from 0 and 1.
    "isotonic": Zadrozny and Elkan 2002, doi:10.1145/775047.775151; scikit-learn's `IsotonicRegression`.

    Examples
    --------
    A model whose log-odds are twice what the labels warrant:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(-3, 3, 5000)
    >>> y = (rng.uniform(size=5000) < 1 / (1 + np.exp(-truth))).astype(int)
    >>> sure = 1 / (1 + np.exp(-2 * truth))
    >>> calibrator = fit_calibrator(y, np.column_stack([1 - sure, sure]))
    >>> round(calibrator.slope, 1)
    0.5
    >>> calibrator.transform([[0.0, 1.0], [0.1, 0.9]]).round(2).tolist()
    [[0.0, 1.0], [0.25, 0.75]]
    """
    if method not in METHODS:
        raise ValueError(
            f"fit_calibrator.method: expected one of {', '.join(METHODS)}, got {method!r}. "
            f"{known_names(str(method), METHODS)}"
        )
    score = _positive(proba, "fit_calibrator")
    y, _ = check_predictions(y, proba)
    n_positive = int(y.sum())
    if n_positive in (0, len(y)):
        raise ValueError(
            f"fit_calibrator.y: expected both classes, got {n_positive} positive of {len(y)} patches. "
            "Calibrate on patients of both classes."
        )
    if method == "isotonic":
        return Calibrator(method, np.nan, np.nan, _steps(score, y), len(y))
    slope, intercept = _line(_log_odds(score), y)
    return Calibrator(method, slope, intercept, n_patches=len(y))


def _positive(proba, owner):
    """Give the probability of class 1 of two."""
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim != 2 or proba.shape[1] != 2:
        raise ValueError(
            f"{owner}.proba: expected probabilities of two classes, shape (n, 2), got {proba.shape}. "
            "With more classes calibrate one against the rest."
        )
    _, proba = check_predictions(np.zeros(len(proba), dtype=np.int64), proba)
    return proba[:, 1]


def _log_odds(score):
    return logit(np.clip(score, _EDGE, 1 - _EDGE))


def _line(log_odds, y):
    """Slope (at least 0) and intercept of highest likelihood for Platt's targets."""
    n_positive, n_negative = y.sum(), len(y) - y.sum()
    target = np.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    # Centred and scaled, the two parameters hardly depend on each other, and the search ends in a few steps.
    centre, scale = log_odds.mean(), max(float(log_odds.std()), 1e-9)
    steps = (log_odds - centre) / scale

    def loss(line):
        value = line[0] * steps + line[1]
        error = expit(value) - target
        return np.mean(np.logaddexp(0, value) - target * value), np.array([np.mean(error * steps), np.mean(error)])

    start = [0.0, float(logit(target.mean()))]
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)], options=options)
    slope, intercept = found.x
    return float(slope / scale), float(intercept - slope * centre / scale)


def _steps(score, y):
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, y)
    return tuple(zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True))
