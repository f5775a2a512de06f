"""`IDCPipeline`: normaliser, feature families and head as one classifier on patches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from histofeat.datasets import patients_by_name
from histofeat.exceptions import check_that
from histofeat.features import RECENT_ROWS, FeatureStore, PatchFeatures, PatchUnion, extract
from histofeat.images import Images, StainNormalizer, as_images, image_input_tags, normalized_images, table_column
from histofeat.model_selection import canonical_patients, check_class_names, check_class_weight, encode_patients
from histofeat.models._feature_head import FeatureHead, check_enough_patients, check_fit
from histofeat.models._named_parts import NamedParts
from histofeat.models._pixel_head import PixelHead


def _gives_probabilities(pipeline: IDCPipeline) -> bool:
    """Whether the fitted head, or the one to be fitted, has probabilities; its error says what it needs."""
    head = getattr(pipeline, "head_", None) or pipeline.make_head()
    return bool(head.predict_proba)


class IDCPipeline(ClassifierMixin, TransformerMixin, NamedParts):
    """Feature families and a classifier head as one classifier on patches.

    Features, heads and stain normalisers are given by name or as estimators. Names stay names until `fit`, so they can
    be searched over; their parameters are reached as ``head__max_depth``, ``features__lbp__radii_px`` and
    ``normalizer__unit``.

    Parameters
    ----------
    features : str, estimator, or sequence of these
        Feature families: names of `histofeat.features.FAMILIES` ("color", "lbp", "haralick", "pftas", "fuzzy_color",
        "joint_color", "gray", "glcm", "clbp", "lpq", "cnn", "histo") or estimators such as
        ``LBPHistogram(radii_px=(1, 2))``. "pixels" gives the patches themselves to a head that takes images, such as
        `histofeat.CNNClassifier`.
    head : str or estimator
        "xgboost", "svm", "logistic", "random_forest", "vote", "late_vote", "stacking", "knn", "qda", or any classifier
        of scikit-learn on feature matrices. With ``features="pixels"`` the name of an architecture, such as
        "cancernet", or a classifier on images.
    class_weight : {"balanced"}, mapping of label to weight, or None
        Weights of the classes in the fit of the head.
    feature_params : mapping, optional
        Parameters of named families, keyed ``"<family>__<parameter>"``; ``set_params(features__...)`` sets them.
    head_params : mapping, optional
        Parameters of a named head; ``set_params(head__...)`` sets them.
    n_jobs : int, optional
        Threads for extraction and for heads that use them; None is 1, -1 all cores.
    random_state : int or None
        Seed of the head.
    store : path or FeatureStore, optional
        Where features are kept between calls; None keeps the latest ones until the process ends, see `RecentRows`.
    normalizer : {"reinhard", "macenko"}, estimator or None
        Stain normaliser, applied before all families. It is fitted on the images given to `fit`.
    normalizer_params : mapping, optional
        Parameters of a named normaliser; ``set_params(normalizer__...)`` sets them.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    features_ : PatchUnion or None
        The families; None if the head takes the patches themselves.
    head_ : FeatureHead or PixelHead
        The fitted head.
    normalizer_ : StainNormalizer or None
        The fitted normaliser.
    n_features_out_ : int
        Columns of the feature matrix, or values of an image if the head takes the patches themselves.
    patients_ : tuple of str or None
        Ids of the patients of the fit: those given as groups, of a column ``patient`` of `X`, or read from file names
        of IDC, BreakHis and TCGA; None where nothing tells them. `save_model` keeps them.
    rails_ : GuardRails or None
        What `train_model` lets it remember of the training images; None after `fit`.

    Notes
    -----
    ``set_params(head="svm")`` resets `head_params`, ``set_params(normalizer=...)`` resets `normalizer_params`, and
    ``set_params(features=...)`` drops the parameters of families that are no longer used.

    The scores of the SVM are calibrated to probabilities on patients held out of inner fits: those given as groups or,
    without them, ``patients_``. Where patients are not known, or too few, it is calibrated on rows, which a note of
    ``head_.notes_`` says. scikit-learn's searches give groups to the splitter, and to `fit` only under metadata routing
    (``sklearn.set_config(enable_metadata_routing=True)``), where `fit` and `score` request them by default.
    A normaliser with ``unit="patient"`` needs groups in every call, also `predict`, and a patient's patches together.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=6, random_state=0)
    >>> pipe = IDCPipeline(features=("color", "lbp"), head="xgboost")
    >>> pipe = pipe.set_params(head__max_depth=3, features__lbp__radii_px=(1, 2))
    >>> pipe.fit(cohort.X, cohort.y).predict_proba(cohort.X).shape
    (24, 2)
    """

    def __init__(
        self,
        features: str | PatchFeatures | Sequence[str | PatchFeatures] = ("color", "lbp", "haralick"),
        head: str | BaseEstimator = "xgboost",
        *,
        class_weight: str | Mapping[Any, float] | None = None,
        feature_params: Mapping[str, Any] | None = None,
        head_params: Mapping[str, Any] | None = None,
        n_jobs: int | None = None,
        random_state: int | None = 0,
        store: str | PathLike[str] | FeatureStore | None = None,
        normalizer: str | StainNormalizer | None = None,
        normalizer_params: Mapping[str, Any] | None = None,
    ):
        self.features = features
        self.head = head
        self.class_weight = class_weight
        self.feature_params = feature_params
        self.head_params = head_params
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.store = store
        self.normalizer = normalizer
        self.normalizer_params = normalizer_params

    patients_: tuple[str, ...] | None = None  # of models that were saved before there were any
    rails_: Any = None
    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = __metadata_request__score = {"groups": True}  # noqa: RUF012

    def fit(
        self, X: Any, y: ArrayLike, groups: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> IDCPipeline:
        """Measure the patches and fit the head.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        y : array-like of shape (n,)
            Their labels.
        groups : array-like of shape (n,), optional
            Their patients. Each has the same weight for the normaliser, and some are held out to calibrate the SVM.
        sample_weight : array-like of shape (n,), optional
            Weights of the patches in the fit of the head.

        Returns
        -------
        self : IDCPipeline
            The fitted pipeline.

        Raises
        ------
        ValueError
            If a name or parameter is unknown, lengths differ, there is only one class, there are too few patients
            to calibrate the head, or it takes no weights.
        PatchError
            If an image cannot be read; the message names it.
        """
        images, families, head, normalizer = as_images(X), self.families(), self.make_head(), self.make_normalizer()
        for name, values in (("y", y), ("groups", groups), ("sample_weight", sample_weight)):
            _check_order(name, values, X)
        y = _check_labels(y, len(images))
        check_one_each("y", images, y)
        check_class_weight("IDCPipeline.class_weight", head.class_weight, np.unique(y))
        if groups is not None:
            groups = _one_each("groups", groups, len(images), "patient")
            encode_patients(groups, len(images))
            check_one_each("groups", images, groups)
        if sample_weight is not None:
            sample_weight = _one_each("sample_weight", sample_weight, len(images), "weight")
        known = _known_patients(X, images, groups)
        owners = groups if groups is not None or self.takes_pixels else _enough_or_none(head, y, known)
        check_fit(head, y, owners, sample_weight)
        if not self.takes_pixels:
            check_enough_patients(head, y, owners, "IDCPipeline.fit")
        if normalizer is not None:
            images = normalized_images(images, normalizer.fit(images, groups=groups), groups=groups)
        if self.takes_pixels:
            union, measured = None, images
        else:
            union = PatchUnion(list(families), n_jobs=self.n_jobs, store=self.store or RECENT_ROWS).fit(images)
            measured = _named_columns(union, images)
        head.fit(measured, y, owners, sample_weight)
        self.features_: PatchUnion | None = union
        self.head_: FeatureHead | PixelHead = head
        self.normalizer_: StainNormalizer | None = normalizer
        self.classes_: np.ndarray = head.classes_
        self.patients_ = None if known is None else tuple(sorted({*known} - {""}))
        self.n_features_out_: int = head.n_features_in_
        self.rails_ = None
        return self

    def _ask(self, method, X, groups):
        """Call a method of the fitted head with the measured patches; return these, and what it says."""
        check_is_fitted(self)
        images = self._normalized(X, groups)
        measured = images if self.features_ is None else _named_columns(self.features_, images)
        answer = getattr(self.head_, method)(measured)
        if self.normalizer_ is not None:
            self.normalizer_.count_unchanged(images)
        return measured, answer

    def _normalized(self, X, groups):
        return X if self.normalizer_ is None else normalized_images(X, self.normalizer_, groups=groups)

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any, groups: ArrayLike | None = None) -> np.ndarray:
        """Probabilities of shape (n, k), float64, columns in the order of ``classes_``.

        `groups` are for a normaliser by patient.
        """
        return self._ask("predict_proba", X, groups)[1]

    def decision_function(self, X: Any, groups: ArrayLike | None = None) -> np.ndarray:
        """Scores that order the patches: (n,) for two classes, (n, k) for more. See `FeatureHead`."""
        return self._ask("decision_function", X, groups)[1]

    def predict(self, X: Any, groups: ArrayLike | None = None) -> np.ndarray:
        """Labels of shape (n,): the most probable class, or the largest decision value of an uncalibrated SVM."""
        return self._ask("predict", X, groups)[1]

    def score(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> float:
        """Share of the patches `X` that are labelled as in `y`, 0 to 1; `groups` are their patients.

        Warns
        -----
        UserWarning
            If some are of ``patients_``; patients are read as in `fit`. Scorers by name, such as "roc_auc", do not call
            this method.
        """
        known = _known_patients(X, as_images(X), groups)
        if known is not None and (seen := sorted({*known} & {*(self.patients_ or ())})):
            warnings.warn(
                f"IDCPipeline.score: expected patients that fit has not seen, got {len(seen):,} that it has, such as "
                f"{seen[0]!r}. The score is too good. Split by patient, as PatientKFold does.",
                stacklevel=2,
            )
        return accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight)

    def transform(self, X: Any, groups: ArrayLike | None = None) -> np.ndarray:
        """Measure the patches without classifying them; without a normaliser also before `fit`.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        groups : array-like of shape (n,), optional
            Their patients, for a normaliser that works by patient.

        Returns
        -------
        features : ndarray of shape (n, d), float32
            A column for each name of `get_feature_names_out`; a DataFrame after ``set_output(transform="pandas")``.
        """
        families, images = self._some_families("transform"), X
        if self.normalizer is not None:
            check_is_fitted(self)
            images = self._normalized(X, groups)
        return np.hstack(extract(families, images, n_jobs=self.n_jobs, store=self.store or RECENT_ROWS).features)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the feature columns, an object array of shape (d,); `input_features` is ignored."""
        return PatchUnion(list(self._some_families("get_feature_names_out"))).get_feature_names_out()

    def _some_families(self, method):
        if self.takes_pixels:
            raise ValueError(
                f"IDCPipeline.{method}: expected feature families, got features='pixels', which has no columns. "
                "Name families, such as features=('color', 'lbp')."
            )
        return self.families()

    def __sklearn_tags__(self) -> Any:
        return image_input_tags(super().__sklearn_tags__(), requires_fit=True)


def _named_columns(union: PatchUnion, images) -> pd.DataFrame:
    return pd.DataFrame(union.transform(images), columns=union.get_feature_names_out(), copy=False)


def _known_patients(X, images: Images, groups) -> np.ndarray | None:
    """Patient of each row: given, in the column `patient` of a table, or told by the names of the files."""
    groups = table_column(X, "patient") if groups is None else groups
    if groups is not None:
        return canonical_patients(groups)
    return patients_by_name(images.items) if images.on_disk else None


def _enough_or_none(head: FeatureHead, y, known) -> np.ndarray | None:
    """Patients that were read, if the head can be calibrated on them."""
    with suppress(ValueError):
        encode_patients(known, len(y))
        check_enough_patients(head, y, known, "IDCPipeline.fit")
        return known
    return None


def measure_and_score(
    pipeline: IDCPipeline, X: Any, groups: ArrayLike | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Features (n, d) and probabilities (n, k) of patches; None for features where the head takes pixels."""
    measured, proba = pipeline._ask("predict_proba", X, groups)
    return None if pipeline.takes_pixels else measured, proba


def _check_labels(y, n_images: int) -> np.ndarray:
    y = _one_each("y", y, n_images, "label")
    missing = pd.isna(y)
    if missing.any():
        raise ValueError(
            f"y: expected a label for each image, got {int(missing.sum()):,} missing, first at row "
            f"{int(missing.argmax())}. Remove those rows."
        )
    check_classification_targets(y)
    classes = np.unique(y)
    check_that("y", classes.tolist(), len(classes) > 1, "at least two classes", "Give patches of both classes.")
    if isinstance(classes[0], str):
        check_class_names("y", classes.tolist())
    return y


def check_one_each(where: str, images: Images, values: ArrayLike) -> None:
    """Refuse a file that is given twice, with two labels or patients.

    Raises
    ------
    ValueError
        With the name of the file and both values.
    """
    first: dict[str, Any] = {}
    for row, value in enumerate(np.asarray(values).tolist()):
        name = images.name(row)
        if first.setdefault(name, value) != value:
            raise ValueError(f"{where}: expected one for {name}, got {first[name]!r} and {value!r}. Correct one.")


def _check_order(name: str, values, X) -> None:
    """Refuse a Series whose rows are those of `X` in another order: what is fitted goes by position."""
    index, own = (getattr(given, "index", None) for given in (X, values))
    both = isinstance(index, pd.Index) and isinstance(own, pd.Index) and own.size == index.size
    if both and not own.equals(index) and own.sort_values().equals(index.sort_values()):
        raise ValueError(f"{name}: expected the order of X, got its index in another order. Use {name}.loc[X.index].")


def _one_each(name: str, values, n_images: int, what: str) -> np.ndarray:
    shape = np.shape(values)
    if not shape or shape[0] != n_images or any(length != 1 for length in shape[1:]):
        got = f"{shape[0]:,}" if len(shape) == 1 else f"shape {shape}" if shape else f"{values!r:.60}"
        raise ValueError(f"{name}: expected one {what} per image ({n_images:,}), got {got}. Align X and {name}.")
    return column_or_1d(values)
