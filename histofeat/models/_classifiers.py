"""What heads are made of: kernel SVM, thread-safe forest, regularised QDA, rounds of boosting, calibration."""

import threading

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.covariance import empirical_covariance
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from histofeat.exceptions import check_name, check_real, check_that, check_whole
from histofeat.model_selection import PatientHoldOuts
from histofeat.models._squared_hinge import fit_squared_hinge, kernel_map

#: Held while a forest of this process grows.
_growing = threading.Lock()
#: Principal components with a smaller share of the variance of the first one are rounding errors.
_RANK = 1e-7
#: Share of the patients on whom a booster stops early.
_HELD_OUT = 0.2


def hold_patients_out(y, groups) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit a booster on, and those of a fifth of the patients `groups`, on whom it stops early."""
    return next(PatientHoldOuts(1, _HELD_OUT).split(y, y, groups))


def choose_rounds(classifier, X, codes, groups, sample_weight=None) -> str | None:
    """Set the rounds of a booster with ``early_stopping_rounds``, for a fit on all rows that stops no more.

    It is fitted on four fifths of the patients until its loss on the others has not improved for so many rounds.

    Parameters
    ----------
    classifier : estimator
        Unfitted; a booster of XGBoost is changed, others are not.
    X : ndarray of shape (n, d)
    codes : ndarray of shape (n,), int
    groups : array-like of shape (n,) or None
        Patients.
    sample_weight : ndarray of shape (n,), optional

    Returns
    -------
    note : str or None
        The rounds as a sentence for a report.
    """
    if getattr(classifier, "early_stopping_rounds", None) is None:
        return None
    train, held = hold_patients_out(codes, groups)
    weights = [None if sample_weight is None else sample_weight[rows] for rows in (train, held)]
    held_out = {"eval_set": [(X[held], codes[held])], "sample_weight_eval_set": weights[1:]}
    trial = clone(classifier).fit(X[train], codes[train], sample_weight=weights[0], verbose=False, **held_out)
    most, rounds, n_held = classifier.n_estimators, trial.best_iteration + 1, len(set(np.asarray(groups)[held]))
    classifier.set_params(early_stopping_rounds=None, n_estimators=rounds)
    return f"{rounds:,} of at most {most:,} rounds of boosting, chosen on {n_held:,} patients of the training side."


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
        check_name("KernelSVM.method", self.method, ("auto", "exact", "nystroem"))
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
            self.model_ = self._fit_map(X, y, sample_weight)
            self.note_ = (
                f"RBF kernel approximated by Nystroem: {len(self.model_[0].components_):,} landmarks, linear SVM on "
                f"{len(X):,} rows"
            )
        self.classes_ = self.model_.classes_
        return self

    def _fit_map(self, X, y, sample_weight):
        """Fit what scikit-learn's pipeline of `Nystroem` and `LinearSVC` holds, in a tenth of its time."""
        # Nystroem has no "scale" of its own; this is SVC's.
        gamma = 1.0 / (X.shape[1] * max(X.var(), 1e-12)) if self.gamma == "scale" else self.gamma
        n_components = min(self.n_components, len(X))
        landmarks = Nystroem(gamma=gamma, n_components=n_components, random_state=self.random_state).fit(X)
        check_real("KernelSVM.C", self.C, "above 0", lambda c: c > 0, "Use 1.0.")
        classes, remedy = np.unique(y), "Give patches of both classes."
        check_that("y", classes.tolist(), len(classes) > 1, "at least two classes", remedy)
        costs = self.C * _check_sample_weight(sample_weight, X, dtype=np.float64)
        linear, Z = LinearSVC(C=self.C, dual=False, random_state=self.random_state), kernel_map(landmarks, X)
        # Each class against the rest; of two classes the second.
        found = [fit_squared_hinge(Z, y == label, costs) for label in classes[len(classes) == 2 :]]
        linear.coef_, linear.intercept_ = (np.array(part) for part in zip(*found, strict=True))
        linear.classes_, linear.n_features_in_, linear.n_iter_ = classes, n_components, 0
        return make_pipeline(landmarks, linear)

    def decision_function(self, X) -> np.ndarray:
        """Signed distances: shape (n,) for two classes, (n, k) one-versus-rest for more."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        if self.method_ == "exact":
            return self.model_.decision_function(X)
        landmarks, linear = self.model_
        values = kernel_map(landmarks, X, linear.coef_) + linear.intercept_
        return values[:, 0] if len(self.classes_) == 2 else values

    def predict(self, X) -> np.ndarray:
        """Labels by the sign, or the largest, of the distances."""
        values = self.decision_function(X)
        if self.method_ == "exact":
            return self.model_.predict(X)
        return self.classes_[(values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)]


class Forest(RandomForestClassifier):
    """scikit-learn's random forest, safe to grow in several threads, as the folds of an evaluation do.

    scikit-learn replaces the warning filters of the whole process while it grows a tree; a second forest that grows at
    the same time can find them empty. Here the forests of a process grow one after another, each with its own
    `n_jobs`, and scoring does not touch the filters. The numbers are scikit-learn's.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]
    >>> ours, theirs = (kind(n_estimators=5, random_state=0).fit(X, y) for kind in (Forest, RandomForestClassifier))
    >>> (ours.predict_proba(X) == theirs.predict_proba(X)).all()
    np.True_
    """

    def fit(self, X, y, sample_weight=None):
        """Grow the trees; see `sklearn.ensemble.RandomForestClassifier`."""
        with _growing:
            return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        """Mean of the trees' probabilities, (n, k), float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return sum(tree.predict_proba(X, check_input=False) for tree in self.estimators_) / len(self.estimators_)


class ShrunkToIdentity(BaseEstimator):
    """Covariance of the rows, mixed with the identity matrix: ``(1 - share) S + share I``.

    Parameters
    ----------
    share : float, default=0.5
        Share of the identity, 0 to 1.

    Attributes
    ----------
    covariance_ : ndarray of shape (d, d), float64
        S is divided by the number of rows, not by one less.

    Notes
    -----
    `sklearn.covariance.ShrunkCovariance` mixes S with a multiple of the identity that depends on S.

    Examples
    --------
    >>> ShrunkToIdentity(share=0.25).fit(np.array([[0.0, 0.0], [4.0, 0.0]])).covariance_.tolist()
    [[3.25, 0.0], [0.0, 0.25]]
    """

    def __init__(self, share=0.5):
        self.share = share

    def fit(self, X, y=None):
        """Estimate the covariance of the rows of `X` (n, d); `y` is ignored."""
        self.covariance_ = (1 - self.share) * empirical_covariance(X) + self.share * np.eye(X.shape[1])
        return self


class QuadraticDiscriminant(ClassifierMixin, BaseEstimator):
    """scikit-learn's quadratic discriminant analysis, regularised, on whitened principal components.

    Parameters
    ----------
    n_components : int, default=20
        Largest number of principal components, at least 1; fewer are kept where the features have no more that vary.
    reg_param : float, default=0.5
        Share of the common covariance in that of each class, above 0 and at most 1. At 1 all classes have the same
        covariance.
    random_state : int or None, default=0
        Seed of the principal components, which are found by a randomised method where there are many features.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    n_components_ : int
        Number of principal components, c.
    center_, components_ : ndarray of shape (d,) and (d, c)
        The components of rows X are ``(X - center_) @ components_``.
    model_ : QuadraticDiscriminantAnalysis
        scikit-learn's classifier on these components.
    note_ : str
        Number of components and regularisation, as a sentence for a report.

    Notes
    -----
    The covariance S of a class of n rows has rank n - 1 at most. With more features than that, or with features that
    are sums of others, such as histograms, it has no inverse. Therefore features are first reduced to principal
    components of variance 1, which drops collinear ones, and S becomes ``(1 - reg_param) S + reg_param I``. On these
    components I is the covariance of all rows, so this is Friedman's shrinkage towards a common covariance [1]_, with
    that of all rows in place of that within classes. It always has an inverse, also for a class of one row.

    `fit` takes no sample weights. Patches of a patient are not independent, so the probabilities are too close to 0 and
    1; calibrate them before you interpret them.

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
        """Fit the components, and the discriminant analysis on them.

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
        self.classes_, counts = np.unique(y, return_counts=True)
        several, remedy = len(self.classes_) > 1, "Give patches of both classes."
        check_that("y", self.classes_.tolist(), several, "at least two classes", remedy)
        Z = self._fit_components(X)
        # scikit-learn refuses a class of one row; the row given twice has the same mean and covariance.
        rows = np.concatenate([np.arange(len(y)), np.flatnonzero(np.isin(y, self.classes_[counts == 1]))])
        covariance = ShrunkToIdentity(self.reg_param)  # "eigen" ignores scikit-learn's own reg_param
        self.model_ = QuadraticDiscriminantAnalysis(
            solver="eigen", priors=counts / len(y), tol=0.0, covariance_estimator=covariance
        ).fit(Z[rows], y[rows])
        self.note_ = (
            f"Quadratic discriminant analysis on {self.n_components_} whitened principal components of {X.shape[1]} "
            f"features, {self.reg_param:g} of the common covariance in that of each class."
        )
        return self

    def _check_params(self) -> None:
        check_whole("QuadraticDiscriminant.n_components", self.n_components, 1, "Use 20.")
        remedy = "At 0 a class with fewer rows than components has no inverse covariance."
        words = "above 0 and at most 1"
        check_real("QuadraticDiscriminant.reg_param", self.reg_param, words, lambda share: 0 < share <= 1, remedy)

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

    def _validated(self, X) -> np.ndarray:
        check_is_fitted(self)
        return self._whitened(validate_data(self, X, dtype=np.float64, reset=False))

    def decision_function(self, X) -> np.ndarray:
        """Log-odds (n,) for two classes; log-posteriors up to a constant, (n, k), for more."""
        return self.model_.decision_function(self._validated(X))

    def predict_proba(self, X) -> np.ndarray:
        """Posterior probabilities (n, k), columns in the order of ``classes_``."""
        return self.model_.predict_proba(self._validated(X))

    def predict(self, X) -> np.ndarray:
        """Labels of the largest posterior."""
        return self.model_.predict(self._validated(X))


class GivenScores(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its decision values, so that scikit-learn can calibrate values that exist.

    Examples
    --------
    >>> values = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    >>> GivenScores().fit(values, [0, 1, 2]).predict(values).tolist()
    [0, 1, 2]
    """

    def fit(self, X, y):
        """Keep the labels; column c of the values belongs to class c."""
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X) -> np.ndarray:
        """The values (n, k) themselves, float64."""
        return np.asarray(X, dtype=np.float64)

    def predict(self, X) -> np.ndarray:
        """Labels of the largest value."""
        return self.classes_[np.argmax(X, axis=1)]


def fit_calibrator(values: np.ndarray, codes: np.ndarray, sample_weight: np.ndarray | None = None):
    """Fit probabilities to decision values: a logistic regression for two classes, a temperature for more.

    A temperature is one number and keeps the order of the classes (Guo et al. 2017,
    https://proceedings.mlr.press/v70/guo17a.html). A logistic regression has k (k + 1) weights for k classes, too many
    for the rows of a few patients. Weights of the rows count for two classes.
    """
    if codes.max() < 2:
        return LogisticRegression(C=1e6, max_iter=1000).fit(values, codes, sample_weight)
    # Frozen, it is not fitted on the two folds: one temperature is fitted on all values.
    given = FrozenEstimator(GivenScores().fit(values, codes))
    return CalibratedClassifierCV(given, method="temperature", cv=2).fit(values, codes)
