"""A classifier on a feature matrix, with scaling, class weights and calibration on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from histofeat.datasets import PatchDataset
from histofeat.model_selection import PatientKFold, check_class_weight, encode_patients
from histofeat.models._classifiers import KernelSVM

#: Folds of patients for a calibration, and so the fewest patients of each class: each fold has to hold each class.
N_PATIENTS = 3


def _gives_probabilities(head: FeatureHead) -> bool:
    if getattr(head, "calibrator_", None) is not None:
        return True
    if hasattr(getattr(head, "classifier_", head.classifier), "predict_proba"):
        return True
    raise AttributeError(
        f"{type(head.classifier).__name__} has no predict_proba: its scores are not probabilities until they are "
        "calibrated on held-out patients. Give fit(X, y, groups=patients), or use decision_function."
    )


class FeatureHead(ClassifierMixin, BaseEstimator):
    """A classifier on a feature matrix, with scaling, class weights and calibration by patient.

    Parameters
    ----------
    classifier : estimator
        Any scikit-learn classifier. It sees labels coded 0 to k-1.
    scale : bool
        Whether to standardise the features on the training rows.
    calibrate : bool
        Whether to calibrate its decision values on patients that inner fits have not seen (`PatientKFold(3)`), by
        logistic regression for two classes and by temperature scaling for more. Needs ``groups`` in `fit`;
        `class_weight` does not weight it.
    class_weight : {"balanced"}, mapping of label to weight, or None
        Weights of the classes in the fit. They distort the probabilities of a head that is not calibrated.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    classifier_ : estimator
        The fitted classifier, on scaled features and coded labels.
    calibrator_ : LogisticRegression, CalibratedClassifierCV or None
        Turns decision values into probabilities; None without `calibrate` or without groups.
    notes_ : tuple of str
        Sentences about this fit for a report.

    Notes
    -----
    Platt, "Probabilistic outputs for support vector machines", 1999; without his smoothing of the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.models import make_head
    >>> head = make_head("logistic").fit(np.array([[0.0], [1.0], [2.0], [3.0]]), ["a", "a", "b", "b"])
    >>> head.predict([[0.2], [2.8]]).tolist()
    ['a', 'b']
    """

    def __init__(
        self,
        classifier: BaseEstimator,
        *,
        scale: bool = False,
        calibrate: bool = False,
        class_weight: str | Mapping[Any, float] | None = None,
    ):
        self.classifier = classifier
        self.scale = scale
        self.calibrate = calibrate
        self.class_weight = class_weight

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> FeatureHead:
        """Fit on features and labels.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Features, finite.
        y : array-like of shape (n,)
            Labels, two classes or more.
        groups : array-like of shape (n,), optional
            Patient of each row; needed for calibration.

        Returns
        -------
        self : FeatureHead
            The fitted head.

        Raises
        ------
        ValueError
            If there is one class only, or patients are too few to calibrate on.
        """
        if groups is not None:
            encode_patients(groups, len(X))
        if self.calibrate and groups is not None:
            self._fit_inside(X, y, groups, PatientKFold(N_PATIENTS))
        else:
            self._fit_final(X, y, None, groups)
        return self

    def _fit_inside(self, X, y, groups, inner_cv) -> np.ndarray:
        """Fit, and give the probabilities (n, k) of rows whose patients an inner fit had not seen."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        groups = np.asarray(groups)
        template = self._template(len(X))
        values = None
        for train, test in inner_cv.split(X, y, groups):
            inner = FeatureHead(template, scale=self.scale, class_weight=self.class_weight)
            inner._fit_final(X[train], y[train], None, groups[train])
            part = inner._values(X[test])
            values = np.full((len(X), *part.shape[1:]), np.nan) if values is None else values
            values[test] = part
        self._fit_final(X, y, values if self.calibrate else None, groups)
        return self._probabilities(values)

    def _template(self, n_rows: int):
        """Use the solver of the whole fit in inner fits too, or their scores would be on another scale."""
        if isinstance(self.classifier, KernelSVM):
            return clone(self.classifier).set_params(method=self.classifier.method_for(n_rows))
        return self.classifier

    def _fit_final(self, X, y, inner_values, groups) -> None:
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_: np.ndarray
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: expected at least two classes, got only {self.classes_.tolist()}. Give patches of both classes."
            )
        self.scaler_: StandardScaler | None = StandardScaler().fit(X) if self.scale else None
        self.classifier_: Any = clone(self.classifier)
        patients = {"groups": groups} if has_fit_parameter(self.classifier_, "groups") else {}
        self.classifier_.fit(self._scaled(X), codes, **self._weights(y), **patients)
        self.calibrator_: Any = None
        if inner_values is not None:
            self.calibrator_ = fit_calibrator(_as_columns(inner_values), codes)
        note = getattr(self.classifier_, "note_", None)
        self.notes_: tuple[str, ...] = () if note is None else (note,)

    def _weights(self, y) -> dict[str, np.ndarray]:
        if self.class_weight is None:
            return {}
        if not has_fit_parameter(self.classifier_, "sample_weight"):
            raise ValueError(
                f"class_weight: expected a classifier whose fit takes sample_weight, got "
                f"{type(self.classifier_).__name__}. Set class_weight=None, or the classifier's own weights."
            )
        check_class_weight("class_weight", self.class_weight, self.classes_)
        return {"sample_weight": compute_sample_weight(self.class_weight, y)}

    def _scaled(self, X) -> np.ndarray:
        return X if self.scaler_ is None else self.scaler_.transform(X)

    def _values(self, X) -> np.ndarray:
        """Decision values, or probabilities if the classifier has them."""
        scaled = self._scaled(X)
        if hasattr(self.classifier_, "predict_proba"):
            return self.classifier_.predict_proba(scaled)
        return self.classifier_.decision_function(scaled)

    def _probabilities(self, values: np.ndarray) -> np.ndarray:
        return values if self.calibrator_ is None else self.calibrator_.predict_proba(_as_columns(values))

    @available_if(_gives_probabilities)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of shape (n, k), columns in the order of ``classes_``.

        A calibrated head needs to have been fitted with ``groups``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self._probabilities(self._values(X)).astype(np.float64)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Scores that order the rows: (n,) for two classes, (n, k) for more.

        The classifier's own decision values; log-odds (two classes) or log-probabilities where it has none.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        if hasattr(self.classifier_, "decision_function"):
            return self.classifier_.decision_function(self._scaled(X))
        proba = np.clip(self.classifier_.predict_proba(self._scaled(X)).astype(np.float64), 1e-12, 1.0)
        return np.log(proba[:, 1] / proba[:, 0]) if len(self.classes_) == 2 else np.log(proba)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Labels: the largest probability, or the largest decision value where there are no probabilities."""
        if hasattr(self, "predict_proba"):
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        values = self.decision_function(X)
        return self.classes_[(values > 0).astype(int) if values.ndim == 1 else values.argmax(axis=1)]


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


def fit_calibrator(values: np.ndarray, codes: np.ndarray):
    """Fit probabilities to decision values: a logistic regression for two classes, a temperature for more.

    A temperature is one number and keeps the order of the classes (Guo et al. 2017,
    https://proceedings.mlr.press/v70/guo17a.html). A logistic regression has k (k + 1) weights for k classes, too many
    for the rows of a few patients.
    """
    if codes.max() < 2:
        return LogisticRegression(C=1e6, max_iter=1000).fit(values, codes)
    # Frozen, it is not fitted on the two folds: one temperature is fitted on all values.
    given = FrozenEstimator(GivenScores().fit(values, codes))
    return CalibratedClassifierCV(given, method="temperature", cv=2).fit(values, codes)


def _as_columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def fit_with_inner_scores(
    head: FeatureHead, X: ArrayLike, y: ArrayLike, groups: ArrayLike, inner_cv: Any
) -> tuple[FeatureHead, np.ndarray]:
    """Fit a head, and score its training rows by inner fits that have not seen their patients.

    Thresholds are chosen on these scores; a calibrated head is calibrated on the same inner folds.

    Parameters
    ----------
    head : FeatureHead
        Unfitted; it is cloned.
    X : ndarray of shape (n, d)
        Features of the training rows.
    y : array-like of shape (n,)
        Their labels.
    groups : array-like of shape (n,)
        Their patients.
    inner_cv : splitter
        Patient-grouped, such as ``PatientKFold(3)``.

    Returns
    -------
    fitted : FeatureHead
        Fitted on all rows.
    inner_proba : ndarray of shape (n, k), float64
        Probabilities of the training rows, each by a fit on other patients, on the scale of ``fitted``.

    Raises
    ------
    ValueError
        If the patients cannot be split so that each fold holds each class.
    """
    if not (head.calibrate or hasattr(head.classifier, "predict_proba")):
        head = clone(head).set_params(calibrate=True)
    fitted = clone(head)
    inner_proba = fitted._fit_inside(X, y, groups, inner_cv)
    return fitted, np.asarray(inner_proba, dtype=np.float64)


def check_enough_patients(
    head: FeatureHead, y: ArrayLike, groups: ArrayLike | None, where: str, class_names: Sequence[str] | None = None
) -> None:
    """Check that each class has enough patients to calibrate a head, before any image is read.

    Parameters
    ----------
    head : FeatureHead
        Unfitted.
    y : array-like of shape (n,)
        Labels of the rows of the fit.
    groups : array-like of shape (n,) or None
        Their patients.
    where : str
        Name of the fit in the message.
    class_names : sequence of str, optional
        Names of the classes, by label, for the message.

    Raises
    ------
    ValueError
        If the fit would calibrate and a class has fewer than three patients, or no three folds of patients hold each
        class; or if members of a vote need patients and there are none.

    Examples
    --------
    >>> from histofeat.models import make_head
    >>> check_enough_patients(make_head("vote"), [0, 1] * 3, ["a", "a", "b", "b", "c", "c"], "fit")
    >>> check_enough_patients(make_head("vote"), [0, 1] * 2, ["a", "a", "b", "b"], "fit")
    Traceback (most recent call last):
    ValueError: fit: expected at least 3 patients of each class to calibrate 'svm' of the vote, got 2...
    """
    members = getattr(head.classifier, "calibrated_members", ())
    if members:
        head.classifier.check_groups(groups)
    if groups is None or not (members or head.calibrate):
        return
    y, groups, spread = np.asarray(y), np.asarray(groups, dtype=object), ""
    of_class = {label: groups[y == label] for label in np.unique(y).tolist()}
    counts = {label: len(encode_patients(ids, len(ids))[0]) for label, ids in of_class.items()}
    label = min(counts, key=counts.get)
    if counts[label] >= N_PATIENTS:
        try:
            PatientKFold(N_PATIENTS).split(y, y, groups)
            return
        except ValueError:  # three patients of a class may not be enough for folds that hold each class
            spread = f" and no {N_PATIENTS} folds of patients with each class in each"
    name = label if class_names is None else repr(class_names[label])
    what = f"{' and '.join(map(repr, members))} of the vote" if members else type(head.classifier).__name__
    raise ValueError(
        f"{where}: expected at least {N_PATIENTS} patients of each class to calibrate {what}, got {counts[label]} of "
        f"class {name}{spread}. Add patients, train on more of them by more folds, or choose a head that needs no "
        "calibration, such as 'xgboost'."
    )


def check_inner_patients(plan: Any, dataset: PatchDataset, splits: Sequence[Any], inner: Sequence[Any]) -> None:
    """Check that each class has enough patients in each inner fit of a vote, which is calibrated in every fit.

    Parameters
    ----------
    plan : Plan
        A pipeline that can run.
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray)
        Training and test rows of each fold.
    inner : sequence of splitters
        The inner folds of each; indices are positions in its training rows.

    Raises
    ------
    ValueError
        As from `check_enough_patients`, with the number of the fold and of the inner fit.
    """
    if not getattr(getattr(plan.head, "classifier", None), "calibrated_members", ()):
        return
    for fold, ((train, _), folds) in enumerate(zip(splits, inner, strict=True), start=1):
        for number, (part, _) in enumerate(folds.split(train), start=1):
            rows, where = train[part], f"pipeline {plan.name!r}, fold {fold}, inner fit {number}"
            check_enough_patients(plan.head, dataset.y[rows], dataset.patients[rows], where, dataset.target_names)
