"""Save a fitted pipeline with a description of its training data as one file, and load it without running code."""

import json
import os
import platform
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

import histofeat
from histofeat.datasets import PatientRule, known_positive
from histofeat.exceptions import DAMAGED, MissingExtraError, WeightsError, check_type, first_line
from histofeat.features import FEATURES_VERSION
from histofeat.metrics import parse_rule
from histofeat.model_selection import check_class_names
from histofeat.models._archive import ModelFileError, check_target, read_archive, write_archive
from histofeat.models._pipeline import IDCPipeline
from histofeat.models._saved_parts import describe_weights, put_back, settle_weights, take_apart
from histofeat.models._trusted import depends_on_version, dump_estimator, load_estimator

_SKELETON = "pipeline.skops"
#: Packages that the numbers of a model depend on, and those that keep parts of it in formats of their own.
_PACKAGES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "numba", "skops")
_OF_PARTS = {".json": "xgboost", ".keras": "keras"}


@dataclass(frozen=True, eq=False)
class SavedModel(FrozenEstimator):
    """A fitted pipeline with a description of its training data.

    It is an estimator that is fitted and stays so: `predict`, `predict_proba`, ``classes_`` and all else that is not
    here are those of the pipeline, `fit` does nothing, and `sklearn.base.clone` gives the model itself.

    Parameters
    ----------
    pipeline : IDCPipeline
        Fitted.
    about : mapping
        Description of the training data; JSON values. Known entries, all optional: ``class_names`` (one for each of the
        pipeline's ``classes_``, in their order), ``patch_size`` (height and width of the training patches in px),
        ``dataset`` (name), ``n_patients``, ``n_images``, ``estimate`` (scores on patients that the model had not seen),
        ``patients`` (their rule, as of `PatientRule.to_dict`), ``magnification``, ``mpp`` (micrometres per pixel) and
        ``stain`` of the training images, ``positive`` (the positive class of two), ``threshold`` (see `decision`).
    description : mapping
        Contents of ``model.json`` in the file: versions, parts with their hashes. Empty for a model in memory.

    Raises
    ------
    ValueError
        If the pipeline is no fitted `IDCPipeline`, or a known entry of `about` does not fit it.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=6)
    >>> pipeline = IDCPipeline(features="color", head="logistic").fit(cohort.X, cohort.y)
    >>> SavedModel(pipeline, {"class_names": ["benign", "malignant"], "patch_size": [50, 50]}).class_names
    ('benign', 'malignant')
    """

    #: For `Runtime.call`: a worker gets it once, not with each call.
    sent_once: ClassVar[bool] = True

    pipeline: IDCPipeline
    about: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        remedy = "Wrap a classifier: IDCPipeline(features=..., head=classifier)."
        check_type("SavedModel.pipeline", self.pipeline, IDCPipeline, "a fitted IDCPipeline", remedy)
        check_is_fitted(self.pipeline)
        about = _checked_about(self.about, self.pipeline)
        object.__setattr__(self, "about", MappingProxyType(about))
        object.__setattr__(self, "description", MappingProxyType(dict(self.description)))

    #: The pipeline, by scikit-learn's name for what is frozen.
    estimator = property(lambda self: self.pipeline)

    def __reduce__(self) -> tuple:
        return SavedModel, (self.pipeline, dict(self.about), dict(self.description))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the columns of `predict_proba`; the labels where none were given."""
        return tuple(self.about.get("class_names", map(str, self.pipeline.classes_.tolist())))

    @property
    def positive(self) -> str | None:
        """The positive class of two, by its name among `class_names`; None with more, and where no name tells."""
        return known_positive(self.class_names, self.about.get("positive"))

    @property
    def decision(self) -> dict[str, Any]:
        """How labels are made of probabilities.

        "positive" (see `positive`), and of a threshold that was chosen in training "rule" (such as "youden"), "value"
        and "patient" ("score" and "value" of the threshold of patients, or None).
        """
        return {"positive": self.positive, **(self.about.get("threshold") or {})}

    @property
    def patient_rule(self) -> PatientRule | None:
        """How the patients of the training images were found; None where it is not known or was a table."""
        return PatientRule.from_dict(self.about.get("patients"))

    @property
    def patch_size(self) -> tuple[int, int] | None:
        """Height and width in px of the training patches; None if they had different sizes."""
        size = self.about.get("patch_size")
        return None if size is None else tuple(size)

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel of the training patches; None if they are unknown or were different."""
        return self.about.get("mpp")


def save_model(
    pipeline: IDCPipeline | SavedModel,
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    trusted: Sequence[str] = (),
) -> Path:
    """Write a fitted pipeline as one file.

    Parameters
    ----------
    pipeline : IDCPipeline or SavedModel
        Fitted.
    path : path
        The file, by custom ``*.histofeat``.
    about : mapping, optional
        Description of the training data, see `SavedModel`; by default that of a `SavedModel`. Leave out what must not
        leave this machine.
    overwrite : bool, default=False
        Whether an existing file may be replaced.
    trusted : sequence of str
        Full names of types of your own in the head; `load_model` has to be given them again.

    Returns
    -------
    path : Path
        The file.

    Raises
    ------
    ModelFileError
        If the file exists or cannot be written, or a part of the pipeline cannot be saved, such as a family of given
        columns; nothing is left behind.
    ValueError
        If the pipeline is not fitted, or `about` does not fit it.

    Notes
    -----
    The file is written completely or not at all. It is an archive of a description (``model.json``), the pipeline in
    the format of skops, boosters in XGBoost's JSON and networks in Keras's format (``.keras``), each with its hash, and
    holds no pickle. Without networks the same fit on the same machine gives the same bytes (Keras writes a date).

    Named heads predict the same with every supported version of scikit-learn, XGBoost and NumPy: of scikit-learn's
    estimators the file holds parameters and arrays, from which the version that loads it builds its own. So do linear
    heads, forests, neighbours, naive Bayes and SVMs given as estimators; others are kept as objects of their version.

    Paths of a feature store, a checkpoint and folders of weights belong to this machine and are left out. Pretrained
    weights of `CNNEmbedding` are not copied; the file holds their hash. It names the patients of the fit
    (``pipeline.patients_``), which show later that the model is tested on one of them; set them to None to leave them
    out.
    """
    model = pipeline if isinstance(pipeline, SavedModel) else SavedModel(pipeline, about or {})
    if about is not None and model is pipeline:
        model = SavedModel(model.pipeline, about)
    path = check_target(path, overwrite=overwrite)
    given = [one.family for one in getattr(model.pipeline.features_, "families", ()) if hasattr(one, "given")]
    if given:
        raise ModelFileError(
            f"save_model: expected families that measure images, got the columns {given[0]!r}, which a file of other "
            "images lacks. Leave them out."
        )
    skeleton, parts = take_apart(model.pipeline)
    description = {
        "histofeat": histofeat.__version__,
        "features_version": FEATURES_VERSION,
        "versions": _versions(parts),
        "classes": model.pipeline.classes_.tolist(),
        "weights": describe_weights(model.pipeline),
        "about": dict(model.about),
    }
    parts = {_SKELETON: dump_estimator(skeleton, trusted=trusted), **parts}
    write_archive(path, description, parts, overwrite=overwrite)
    return path


def load_model(
    path: str | os.PathLike[str],
    *,
    weights_dir: str | os.PathLike[str] | None = None,
    trusted: Sequence[str] = (),
    n_jobs: int | None = None,
) -> SavedModel:
    """Read a file that `save_model` wrote.

    Parameters
    ----------
    path : path
        The file.
    weights_dir : path, optional
        Folder with the pretrained weights of a `CNNEmbedding`; by default that of the environment variable
        ``HISTOFEAT_WEIGHTS``, then Keras's cache.
    trusted : sequence of str
        Full names of types to build beside those of histofeat and scikit-learn; see `TRUSTED`.
    n_jobs : int, optional
        Threads for the extraction; None is 1, -1 all cores.

    Returns
    -------
    model : SavedModel
        ``model.pipeline`` predicts what the saved one did: with classical heads to the last bit.

    Raises
    ------
    ModelFileError
        If the file is missing, no model, damaged, of another format, holds a type that is not known, or was made by a
        histofeat whose features had other values.
    WeightsError
        If pretrained weights cannot be had, or are not those of the training.

    Warns
    -----
    RuntimeWarning
        Once, if the file holds objects of another version of scikit-learn than the one here: those of a head of your
        own.

    Notes
    -----
    The file is read as data: objects are built from listed types only, and no code in it runs. A malicious file can
    still be wrong: load models only from sources that you trust.
    """
    try:
        return _built(path, weights_dir, trusted, n_jobs)
    except ModelFileError as error:
        # Parts know the function that reads them, not the file.
        raise ModelFileError(str(error).replace("load_model:", f"{path}:", 1)) from error
    except (WeightsError, MissingExtraError):
        raise
    except (*DAMAGED, ImportError) as error:
        raise ModelFileError(
            f"{path}: expected a model that save_model wrote, got one that cannot be built ({type(error).__name__}: "
            f"{first_line(error):.100}). Copy the file again, or train the model again."
        ) from error


def _built(path, weights_dir, trusted: Sequence[str], n_jobs: int | None) -> SavedModel:
    description, parts = read_archive(path)
    if _SKELETON not in parts:
        raise ModelFileError(f"{path}: expected a part {_SKELETON!r}, got none. Copy the file again.")
    _check_features(path, description)
    content, n_bytes = parts.pop(_SKELETON), Path(path).stat().st_size
    skeleton = load_estimator(content, str(path), trusted=trusted, n_bytes=n_bytes)
    if depends_on_version(content, n_bytes):
        _warn_of_version(path, description)
    remedy = "Give a file that save_model wrote."
    check_type(str(path), skeleton, IDCPipeline, "an IDCPipeline", remedy, error=ModelFileError)
    pipeline = put_back(skeleton, parts)
    settle_weights(pipeline, description.get("weights", ()), weights_dir)
    network = getattr(pipeline.head_, "classifier_", None) if pipeline.takes_pixels else None
    for part in (pipeline, pipeline.features_, pipeline.normalizer_, network):
        if part is not None:
            part.get_params(deep=False)  # each is there
            part.n_jobs = n_jobs
    _check_head(pipeline)
    return SavedModel(pipeline, description.get("about", {}), description)


def _check_head(pipeline: IDCPipeline) -> None:
    """Score one row: a head whose parts do not fit each other cannot."""
    if pipeline.takes_pixels:
        return
    names, head = pipeline.features_.get_feature_names_out(), pipeline.head_
    head.get_params(deep=False)  # each is there
    vars(head).setdefault("feature_names_in_", names)  # heads of older files do not know them
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # A value that logarithms and powers take, under the names that the pipeline gives its columns.
        row = pd.DataFrame(np.full((1, len(names)), 0.5, np.float32), columns=names)
        scores = head.predict_proba(row) if hasattr(head, "predict_proba") else head.decision_function(row)
        if pipeline.rails_ is not None:
            pipeline.rails_.unlike(row.to_numpy())
            pipeline.rails_.knows(np.zeros((1, 16), np.uint8), ["-"])
    width = scores.shape[1:] or (2,)
    same = np.array_equal(pipeline.classes_, head.classes_)
    if not same or width != (len(pipeline.classes_),) or not np.isfinite(scores).all():
        raise ModelFileError(
            f"load_model: expected a finite score for each of {len(pipeline.classes_)} classes, got {scores.shape[1:]} "
            "scores of another shape, of other classes, or not finite. Do not use this file; train the model again."
        )


def _versions(parts: Mapping[str, bytes]) -> dict[str, str]:
    found = {name: _version(name) for name in _PACKAGES}
    for suffix in sorted({Path(name).suffix for name in parts}):
        # They made the part, and so are loaded; of XGBoost there are several packages.
        found[_OF_PARTS[suffix]] = sys.modules[_OF_PARTS[suffix]].__version__
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # of OpenCV there are several packages
        return None


def _check_features(path, description: Mapping) -> None:
    written = description.get("features_version")
    if written != FEATURES_VERSION:
        raise ModelFileError(
            f"{path}: expected features of version {FEATURES_VERSION}, which this histofeat measures, got a model on "
            f"version {written!r:.20}. Use histofeat {description.get('histofeat')!r:.20}, or train the model again."
        )


def _warn_of_version(path, description: Mapping) -> None:
    versions = description.get("versions")
    fitted = versions.get("scikit-learn") if isinstance(versions, dict) else None
    here = _version("scikit-learn")
    if fitted != here:
        warnings.warn(
            f"{path}: expected scikit-learn {fitted}, which fitted this model, got {here}. Its predictions may differ; "
            f"install scikit-learn=={fitted}, or train the model again.",
            RuntimeWarning,
            stacklevel=4,
        )


def _checked_about(about, pipeline: IDCPipeline) -> dict:
    try:
        # Through JSON, so that a model in memory is what its file will be.
        checked = json.loads(json.dumps(dict(about), allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"about: expected a mapping of text, numbers, lists and mappings, got {error}. Leave the rest out."
        ) from error
    labels, names = pipeline.classes_.tolist(), checked.get("class_names")
    texts = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    # Names that are labels stand at their places; other words for the classes are fine.
    named = texts and len(names) == len(set(names)) == len(labels) and (names == labels or not {*names} & {*labels})
    measured = "pixels" if pipeline.features_ is None else [family.family for family in pipeline.features_.families]

    def whole(n) -> bool:
        return type(n) is int and n > 0

    for entry, fits, expected in (
        ("class_names", lambda _: named, f"{len(labels)} different names, in the order of pipeline.classes_"),
        ("positive", lambda name: name in (names or map(str, labels)), "the name of a class"),
        ("patch_size", lambda size: len(size) == 2 and all(map(whole, size)), "height and width in px"),
        ("mpp", lambda mpp: mpp is not True and 0 < mpp <= 1000, "micrometres per pixel above 0, at most 1,000"),
        ("patients", lambda rule: bool(re.compile(rule["expression"])), "PatientRule.to_dict()"),
        ("class_counts", lambda found: {*found} <= {*(names or map(str, labels))}, "a count by the name of each class"),
        ("features", lambda found: found == measured, f"the families of the pipeline, {measured}"),
        ("threshold", _decides, "a rule and values from 0 to 1"),
        ("n_patients", whole, "a whole number above 0"),
        ("n_images", whole, "a whole number above 0"),
    ):
        with suppress(TypeError, KeyError, re.error):
            if checked.get(entry) is None or fits(checked[entry]):
                continue
        got = f"got {checked[entry]!r:.80}. Correct it, or leave it out."
        raise ValueError(f"about[{entry!r}]: expected {expected}, or None, {got}")
    if names:
        check_class_names("about['class_names']", names)
    return checked


def _decides(found) -> bool:
    parse_rule(found["rule"])
    return all(0 <= each["value"] <= 1 for each in (found, found["patient"] or found))


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__}")
