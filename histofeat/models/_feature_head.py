"""A classifier on a feature matrix, with scaling, class weights and calibration on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, has_fit_parameter, validate_data

from histofeat.exceptions import check_that
from histofeat.model_selection import PatientKFold, check_class_weight, encode_patients
from histofeat.models._classifiers import KernelSVM, choose_rounds, fit_calibrator, hold_patients_out

#: Folds of patients for a calibration, and so the fewest patients of each class: each fold has to hold each class.
N_PATIENTS = 3
#: Rows that are standardised together.
_ROWS_AT_ONCE = 1 << 16
#: Note of a fit that was calibrated on other rows, not on other patients.
_BY_ROWS = "Calibrated on rows, since patients were not known: a little too sure for other patients."


def _gives_probabilities(head: FeatureHead) -> bool:
    if getattr(head, "calibrator_", head.calibrate or None) is not None:
        return True
    if hasattr(getattr(head, "classifier_", head.classifier), "predict_proba"):
        return True
    raise AttributeError(
        f"{type(head.classifier).__name__} has no predict_proba: its scores are not probabilities until they are "
        f"calibrated, which takes calibrate=True and {N_PATIENTS} rows of each class. Give fit(X, y, groups=patients), "
        "to calibrate on held-out patients, or use decision_function."
    )


def check_fit(head: Any, y: ArrayLike, groups: ArrayLike | None, sample_weight: ArrayLike | None) -> None:
    """Check, before any image is read, that the classifier of a head can be fitted with these weights and patients.

    Raises
    ------
    ValueError
        If there are weights that it does not take, or it stops early and there are no patients, or too few.
    """
    by_class = isinstance(head, FeatureHead) and head.class_weight is not None
    given = "class_weight" if sample_weight is None else "sample_weight"
    if (by_class or sample_weight is not None) and not has_fit_parameter(head.classifier, "sample_weight"):
        raise ValueError(
            f"{given}: expected a classifier whose fit takes sample_weight, got {type(head.classifier).__name__}. "
            f"Set {given}=None, or the classifier's own weights."
        )
    if getattr(head.classifier, "early_stopping_rounds", None) is not None:
        if groups is None:
            raise ValueError(
                "groups: expected the patient of each row, since early_stopping_rounds stops on held-out patients, got "
                "None. Give fit(X, y, groups=patients), or set early_stopping_rounds=None."
            )
        hold_patients_out(y, groups)


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
        logistic regression for two classes and by temperature scaling for more. Without ``groups`` in `fit` it is on
        rows that they have not seen, which a note says. `class_weight` does not weight it; ``sample_weight`` does for
        two classes.
    class_weight : {"balanced"}, mapping of label to weight, or None
        Weights of the classes in the fit, multiplied with ``sample_weight``. They distort the probabilities of a head
        that is not calibrated.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    classifier_ : estimator
        The fitted classifier, on scaled features and coded labels.
    calibrator_ : LogisticRegression, CalibratedClassifierCV or None
        Turns decision values into probabilities; None without `calibrate`, and for a class of fewer than three rows.
    feature_names_in_ : ndarray of shape (d,)
        Names of the features, where `fit` was given a DataFrame; `IDCPipeline` does.
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

    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012

    def fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> FeatureHead:
        """Fit on features and labels.

        Parameters
        ----------
        X : ndarray or DataFrame of shape (n, d)
            Features, finite.
        y : array-like of shape (n,)
            Labels, two classes or more.
        groups : array-like of shape (n,), optional
            Patient of each row, for a calibration or an early stopping on patients that were held out.
        sample_weight : array-like of shape (n,), optional
            Weight of each row in the fit, the scaling and, for two classes, the calibration.

        Returns
        -------
        self : FeatureHead
            The fitted head.

        Raises
        ------
        ValueError
            If there is one class only, patients are too few to calibrate on or are missing for an early stopping, or
            the classifier takes no weights.
        """
        check_fit(self, y, groups, sample_weight)
        if groups is not None:
            encode_patients(groups, len(X))
        folds = inner_folds(y, groups) if self.calibrate else None
        if folds is not None:
            self._fit_inside(X, y, groups, folds, sample_weight)
            self.notes_ += (_BY_ROWS,) if groups is None else ()
        else:
            X, y = validate_data(self, X, y, dtype=np.float32)
            self._fit_final(X, y, None, groups, sample_weight)
        return self

    def _fit_inside(self, X, y, groups, inner_cv, sample_weight=None, inner_X=None) -> np.ndarray:
        """Fit, and give the probabilities (n, k) of rows whose patients an inner fit had not seen."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        given = [None if values is None else np.asarray(values) for values in (groups, sample_weight)]
        template = self._template(len(X))
        values = None
        for number, (train, test) in enumerate(inner_cv.split(X, y, groups)):
            seen = X if inner_X is None else np.asarray(inner_X[number], dtype=np.float32)
            inner = FeatureHead(template, scale=self.scale, class_weight=self.class_weight)
            inner._fit_final(seen[train], y[train], None, *(None if part is None else part[train] for part in given))
            part = inner._values(seen[test])
            values = np.full((len(X), *part.shape[1:]), np.nan) if values is None else values
            values[test] = part
        self._fit_final(X, y, values if self.calibrate else None, groups, sample_weight)
        return self._probabilities(values)

    def _template(self, n_rows: int):
        """Use the solver of the whole fit in inner fits too, or their scores would be on another scale."""
        if isinstance(self.classifier, KernelSVM):
            return clone(self.classifier).set_params(method=self.classifier.method_for(n_rows))
        return self.classifier

    def _fit_final(self, X, y, inner_values, groups, sample_weight=None) -> None:
        self.classes_: np.ndarray
        self.classes_, codes = np.unique(y, return_inverse=True)
        several, remedy = len(self.classes_) > 1, "Give patches of both classes."
        check_that("y", self.classes_.tolist(), several, "at least two classes", remedy)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        self.scaler_: StandardScaler | None = StandardScaler() if self.scale else None
        for rows in gen_batches(len(X), _ROWS_AT_ONCE) if self.scale else ():  # each is copied in double precision
            self.scaler_.partial_fit(X[rows], sample_weight=None if sample_weight is None else sample_weight[rows])
        self.classifier_: Any = clone(self.classifier)
        scaled, weights = self._scaled(X), self._weights(y, sample_weight)
        note = choose_rounds(self.classifier_, scaled, codes, groups, **weights)
        patients = {"groups": groups} if has_fit_parameter(self.classifier_, "groups") else {}
        self.classifier_.fit(scaled, codes, **weights, **patients)
        self.calibrator_: Any = None
        if inner_values is not None:
            self.calibrator_ = fit_calibrator(_as_columns(inner_values), codes, sample_weight)
        note = note or getattr(self.classifier_, "note_", None)
        self.notes_: tuple[str, ...] = () if note is None else (note,)

    def _weights(self, y, sample_weight) -> dict[str, np.ndarray]:
        if self.class_weight is None:
            return {} if sample_weight is None else {"sample_weight": sample_weight}
        check_class_weight("class_weight", self.class_weight, self.classes_)
        by_class = compute_sample_weight(self.class_weight, y)
        return {"sample_weight": by_class if sample_weight is None else by_class * sample_weight}

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
        """Probabilities of shape (n, k), columns in the order of ``classes_``."""
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

    def importances(self) -> pd.Series:
        """Importance of each feature by name, the largest first.

        Returns
        -------
        importances : Series of shape (d,)
            ``feature_importances_`` of the classifier, or the mean of its absolute ``coef_`` over the classes, which
            compares features only where they are standardised.

        Raises
        ------
        AttributeError
            If the classifier has neither.
        """
        check_is_fitted(self)
        values = getattr(self.classifier_, "feature_importances_", None)
        if values is None and hasattr(self.classifier_, "coef_"):
            values = np.abs(self.classifier_.coef_).mean(axis=0)
        if values is None:
            raise AttributeError(
                f"FeatureHead.importances: expected a classifier with feature_importances_ or coef_, got "
                f"{type(self.classifier_).__name__}. Use sklearn.inspection.permutation_importance."
            )
        names = getattr(self, "feature_names_in_", None)
        return pd.Series(values, index=names).sort_values(ascending=False, kind="stable")


def _as_columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def inner_folds(y: ArrayLike, groups: ArrayLike | None) -> Any:
    """Give folds of patients for inner fits, of rows where patients are not known; None for a class of few rows."""
    if groups is not None:
        return PatientKFold(N_PATIENTS)
    enough = pd.Series(np.ravel(y)).value_counts().min() >= N_PATIENTS
    return StratifiedKFold(N_PATIENTS, shuffle=True, random_state=0) if enough else None


def fit_with_inner_scores(
    head: FeatureHead, X: Any, y: ArrayLike, groups: Any, inner_cv: Any, sample_weight: Any = None, inner_X: Any = None
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
    groups : array-like of shape (n,) or None
        Their patients.
    inner_cv : splitter
        Patient-grouped, such as ``PatientKFold(3)``.
    sample_weight : array-like of shape (n,), optional
        As for `FeatureHead.fit`.
    inner_X : sequence of ndarray of shape (n, d), optional
        Features of all training rows for each inner fit, such as those of an encoder that has not seen its held-out
        patients. By default `X`.

    Returns
    -------
    fitted : FeatureHead
        Fitted on all rows.
    inner_proba : ndarray of shape (n, k), float64
        Probabilities of the training rows, each by a fit on other patients, on the scale of ``fitted``.

    Raises
    ------
    ValueError
        If the patients cannot be split so that each fold holds each class, or the head takes no class weights.
    """
    if not (head.calibrate or hasattr(head.classifier, "predict_proba")):
        head = clone(head).set_params(calibrate=True)
    fitted = clone(head)
    check_fit(fitted, y, groups, sample_weight)
    inner_proba = fitted._fit_inside(X, y, groups, inner_cv, sample_weight, inner_X)
    return fitted, np.asarray(inner_proba, dtype=np.float64)


def check_enough_patients(
    head: FeatureHead, y: ArrayLike, groups: ArrayLike | None, where: str, class_names: Sequence[str] | None = None
) -> None:
    """Check that each class has enough patients for the inner fits of a head, before any image is read.

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
        If the fit would calibrate or stack and a class has fewer than three patients, or no three folds of patients
        hold each class.

    Examples
    --------
    >>> from histofeat.models import make_head
    >>> check_enough_patients(make_head("vote"), [0, 1] * 3, ["a", "a", "b", "b", "c", "c"], "fit")
    >>> check_enough_patients(make_head("vote"), [0, 1] * 2, ["a", "a", "b", "b"], "fit")
    Traceback (most recent call last):
    ValueError: fit: expected at least 3 patients of each class to calibrate 'svm' of the vote, got 2...
    """
    wanted = getattr(head.classifier, "inner_fits", "")
    if head.calibrate:
        wanted = f"calibrate {type(head.classifier).__name__}"
    if groups is None or not wanted:
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
    raise ValueError(
        f"{where}: expected at least {N_PATIENTS} patients of each class to {wanted}, got {counts[label]} of class "
        f"{name}{spread}. Add patients, train on more of them by more folds, or choose a head without inner fits, such "
        "as 'xgboost'."
    )
