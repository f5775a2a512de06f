"""Estimators as plain arrays, and as bytes through skops: only listed types, no code, the same bytes for a model."""

import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from histofeat.datasets import read_array, read_members, unpacked_limit
from histofeat.exceptions import DAMAGED, and_more, first_line, needs
from histofeat.features import FAMILIES
from histofeat.images import NORMALIZERS
from histofeat.models._archive import ModelFileError, fixed_zip
from histofeat.models._classifiers import Forest, GivenScores, fit_calibrator

TRUSTED = (
    "histofeat.models._classifiers.Forest",
    "histofeat.models._classifiers.KernelSVM",
    "histofeat.models._classifiers.QuadraticDiscriminant",
    "histofeat.models._classifiers.ShrunkToIdentity",
    "histofeat.models._feature_head.FeatureHead",
    "histofeat.models._classifiers.GivenScores",
    "histofeat.models._guard_rails.GuardRails",
    "histofeat.models._pipeline.IDCPipeline",
    "histofeat.models._pixel_head.PixelHead",
    "histofeat.models._saved_parts.StoredPart",
    "histofeat.models._soft_vote.SoftVote",
    "histofeat.networks._augmentation.Augmentation",
    "histofeat.networks._recipes.Recipe",
    "histofeat.features._base.PatchUnion",
    *(f"histofeat.features._{record.module}.{record.class_name}" for record in FAMILIES.own.values()),
    *(f"histofeat.images._{module}.{name}" for module, name in NORMALIZERS.values()),
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.tree._tree.Tree",
)
"""The types that a model may hold, beside numbers, text, containers, arrays, scikit-learn's public estimators and
families that installed packages offer.

skops does not trust a `Tree` by itself, because a forged one that points outside its own arrays crashes the process;
here the arrays of every tree are checked before it is used.
"""

#: Commas and brackets that the description of an estimator may have: this many, or one for each byte of the file.
_SCHEMA_VALUES = 500_000
#: Classes of an estimator that is built from its arrays, for which small fits of as many rows are made.
_MOST_CLASSES = 1000

_LINEAR = ("classes_", "coef_", "intercept_", "n_iter_")
#: Kinds of forests, and of their trees.
_FORESTS = {
    Forest: DecisionTreeClassifier,
    RandomForestClassifier: DecisionTreeClassifier,
    ExtraTreesClassifier: ExtraTreeClassifier,
}
#: scikit-learn's estimators that are stored as parameters and arrays, and the attributes with which they predict.
#: Their other attributes differ between versions.
_FLAT: dict[type, tuple[str, ...]] = {
    LogisticRegression: _LINEAR,
    LinearSVC: _LINEAR,
    LinearDiscriminantAnalysis: (*_LINEAR, "priors_", "means_", "xbar_", "scalings_"),
    QuadraticDiscriminantAnalysis: ("classes_", "priors_", "means_", "rotations_", "scalings_"),
    GaussianNB: ("classes_", "class_count_", "class_prior_", "theta_", "var_", "epsilon_"),
    SVC: (
        "classes_", "class_weight_", "support_", "support_vectors_", "dual_coef_", "intercept_", "shape_fit_",
        "fit_status_", "n_iter_", "_n_support", "_dual_coef_", "_intercept_", "_gamma",
    ),
    StandardScaler: ("mean_", "var_", "scale_", "n_samples_seen_"),
    Nystroem: ("components_", "component_indices_", "normalization_"),
    **dict.fromkeys((Pipeline, KNeighborsClassifier, CalibratedClassifierCV), ()),
    **dict.fromkeys(_FORESTS, ("classes_", "n_classes_", "n_outputs_")),
}  # fmt: skip


def _skops():
    with needs("skops", "save_model, load_model: expected the package skops"):
        import skops.io
    return skops.io


def dump_estimator(estimator, *, trusted: Sequence[str] = ()) -> bytes:
    """Write an estimator in the format of skops.

    Parameters
    ----------
    estimator : estimator
        Of scikit-learn or of histofeat, with parts of the same.
    trusted : sequence of str
        Further types that it may hold, by their full names.

    Returns
    -------
    content : bytes
        The same for the same estimator: the addresses in memory and the dates in skops's own files are replaced.

    Raises
    ------
    ModelFileError
        If the estimator holds a type that `load_estimator` would refuse, or that skops cannot write.
    """
    skops = _skops()
    try:
        content = _canonical(skops.dumps(estimator))
    except (TypeError, ValueError, AttributeError, RecursionError, skops.exceptions.UnsupportedTypeException) as error:
        raise ModelFileError(
            f"save_model: expected parts that skops can write, got {type(error).__name__}: {first_line(error)}. "
            "Use parameters of numbers, text, lists, mappings and arrays."
        ) from error
    unknown = _unknown(content, trusted)
    if unknown:
        raise ModelFileError(
            f"save_model: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{and_more(len(unknown))}, "
            "which load_model would refuse. Use a head of histofeat or scikit-learn, or name the type in "
            "trusted=(...), here and when it is loaded."
        )
    return content


def load_estimator(content: bytes, owner: str, *, trusted: Sequence[str] = (), n_bytes: int | None = None) -> Any:
    """Build an estimator from the format of skops, from known types only.

    Parameters
    ----------
    content : bytes
        What `dump_estimator` gave.
    owner : str
        How a message names the content.
    trusted : sequence of str
        Further types to build, by their full names.
    n_bytes : int, optional
        Size of the file that held the content, which decides how much it may unpack to; by default that of the content.

    Returns
    -------
    estimator : estimator
        The fitted estimator.

    Raises
    ------
    ModelFileError
        If the content holds an unknown type, which is then not imported.
    ImportError, or one of `histofeat.exceptions.DAMAGED`
        If it is damaged.
    """
    # Packed again, since skops unpacks all of a member whose size the archive states too small.
    content = _packed(*_unpacked(content, len(content) if n_bytes is None else n_bytes))
    unknown = _unknown(content, trusted)
    if unknown:
        raise ModelFileError(
            f"{owner}: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{and_more(len(unknown))}. "
            "Do not load a model of unknown origin; name the type in trusted=(...) only if you know that it is safe."
        )
    with warnings.catch_warnings():
        # One for each of 500 trees; the caller compares the versions once.
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return _skops().loads(content, trusted=[*TRUSTED, *FAMILIES.types(), *trusted])


def _unknown(content: bytes, trusted: Iterable[str]) -> list[str]:
    return sorted(set(_skops().get_untrusted_types(data=content)) - {*TRUSTED, *FAMILIES.types(), *trusted})


def _unpacked(content: bytes, n_bytes: int) -> tuple[dict, dict[str, bytes]]:
    """Give the schema and the arrays of an estimator in the format of skops, both checked."""
    files = read_members(content, unpacked_limit(n_bytes))
    text = files.pop("schema.json")
    n_values = sum(map(text.count, b",[{"))
    if n_values > max(_SCHEMA_VALUES, n_bytes):
        raise ValueError(f"its description lists {n_values:,} values")
    schema = json.loads(text)
    _check_schema(schema, files)
    return schema, files


def _check_schema(schema: dict, files: Mapping[str, bytes]) -> None:
    """Check that skops builds no more than is written, and reads each array once.

    skops builds an object once that is written several times under one number, and searches each place of it. A number
    in the place of the object itself would double the search at each level.
    """
    sizes: dict[object, int] = {}
    owners: dict[str, object] = {}

    def size_of(node) -> int:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        size = 1 + sum(map(size_of, inside))
        if isinstance(node, dict):
            number, file = node.get("__id__"), node.get("file")
            if number is not None and sizes.setdefault(number, size) != size:
                raise ValueError(f"object {number!r:.40} is written in two ways")
            if isinstance(file, str) and owners.setdefault(file, number) != number:
                raise ValueError(f"{file!r:.40} belongs to two objects")
        return size

    size_of(schema)
    for name, content in files.items():
        if name.endswith(".npy"):
            read_array(content)
        elif not name.endswith(".bin"):
            raise ValueError(f"{name!r:.40} is no array; sparse matrices are not read")


def _packed(schema: dict, files: Mapping[str, bytes]) -> bytes:
    return fixed_zip({"schema.json": json.dumps(schema, separators=(",", ":")).encode(), **files})


def _nodes(node) -> Iterator[dict]:
    """Yield every mapping inside a schema, outer ones first."""
    if isinstance(node, dict):
        yield node
    for entry in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(entry)


def _canonical(content: bytes) -> bytes:
    """Number the objects in the order of the schema: skops names them by their addresses in memory."""
    schema, files = _unpacked(content, 2**60)
    numbers: dict[int, int] = {}
    renamed: dict[str, str] = {}
    for node in _nodes(schema):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str) and node["file"] in files:
            name = PurePosixPath(node["file"])
            node["file"] = renamed.setdefault(node["file"], f"array-{len(renamed) + 1}{name.suffix}")
    return _packed(schema, {new: files[old] for old, new in renamed.items()})


def flatten(estimator) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """Describe an estimator of scikit-learn by parameters and arrays that each of its versions understands.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.

    Returns
    -------
    flat : tuple of (str, dict, dict) or None
        Name of the class, parameters that are not the default, and what it learnt, for `unflatten`. None for an
        estimator that has no such form.
    """
    kind, held = type(estimator), vars(estimator)
    if kind not in _FLAT or held.get("n_outputs_", 1) != 1 or len(held.get("_probA", ())):
        return None
    defaults = inspect.signature(kind.__init__).parameters
    params = {
        name: value for name, value in estimator.get_params(deep=False).items() if value is not defaults[name].default
    }
    fitted = {name: held[name] for name in ("n_features_in_", *_FLAT[kind]) if name in held}
    if kind is CalibratedClassifierCV:
        if not isinstance(getattr(estimator.estimator, "estimator", None), GivenScores):
            return None
        (calibrated,) = estimator.calibrated_classifiers_
        params, fitted = {}, {"classes": estimator.classes_, "beta": float(calibrated.calibrators[0].beta_)}
    elif kind is KNeighborsClassifier and "_fit_X" in held:
        fitted = {"X": held["_fit_X"], "y": held["classes_"][held["_y"]]}
    elif kind in _FORESTS and fitted:
        states = [tree.tree_.__getstate__() for tree in estimator.estimators_]
        nodes, fitted["values"] = (np.concatenate([state[name] for state in states]) for name in ("nodes", "values"))
        fitted["nodes"] = {name: np.ascontiguousarray(nodes[name]) for name in nodes.dtype.names}
        fitted["sizes"], fitted["depths"] = ([state[name] for state in states] for name in ("node_count", "max_depth"))
    return kind.__name__, params, fitted


def unflatten(name: str, params: Mapping[str, Any], fitted: Mapping[str, Any]) -> Any:
    """Build an estimator in the running version of scikit-learn from what `flatten` gave.

    Parameters
    ----------
    name : str
        Name of the class.
    params : mapping of str
        Parameters that are not the default.
    fitted : mapping of str
        What it learnt; empty for an estimator that is not fitted.

    Returns
    -------
    estimator : estimator
        Not checked: its arrays may not fit each other.

    Raises
    ------
    ModelFileError
        If the parts do not make an estimator of the running version.
    """
    try:
        kind = {kind.__name__: kind for kind in _FLAT}[name]
        n_classes = len(fitted.get("classes_", fitted.get("classes", ())))
        if n_classes > _MOST_CLASSES:
            raise ValueError(f"{n_classes:,} classes, more than {_MOST_CLASSES:,}")
        if kind is CalibratedClassifierCV:
            return _temperature(**fitted)
        estimator = kind(**params)
        if kind is KNeighborsClassifier and fitted:
            return estimator.fit(fitted["X"], fitted["y"])
        if kind is SVC and fitted:  # a fit of the running version brings the attributes that only it has
            labels = fitted["classes_"]
            estimator = SVC().fit(np.arange(len(labels))[:, None], labels).set_params(**params)
        vars(estimator).update({key: fitted[key] for key in ("n_features_in_", *_FLAT[kind]) if key in fitted})
        if kind in _FORESTS and fitted:
            estimator.estimators_ = _grown(estimator, fitted)
        return estimator
    except DAMAGED as error:
        raise ModelFileError(
            f"load_model: expected a {name!s:.40} as save_model writes it, got one that scikit-learn cannot build "
            f"({type(error).__name__}: {first_line(error):.100}). Copy the file again, or update scikit-learn."
        ) from error


def _grown(forest, arrays: Mapping[str, Any]) -> list:
    """Build the trees of a forest from the nodes of all of them, one tree after another."""
    stump = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]).tree_
    nodes = np.zeros(len(arrays["values"]), dtype=stump.__getstate__()["nodes"].dtype)
    for name in nodes.dtype.names:
        nodes[name] = arrays["nodes"].get(name, 0)
    k, d, trees, start = int(forest.n_classes_), forest.n_features_in_, [], 0
    for size, depth in zip(arrays["sizes"], arrays["depths"], strict=True):
        part, start = slice(start, start + size), start + size
        state = {"nodes": nodes[part].copy(), "values": arrays["values"][part].copy(), "max_depth": depth}
        tree = type(stump)(d, np.array([k], dtype=np.intp), 1)
        tree.__setstate__(state | {"node_count": len(state["nodes"])})
        trees.append(_FORESTS[type(forest)]())
        vars(trees[-1]).update(classes_=np.arange(k), n_classes_=k, n_outputs_=1, n_features_in_=d, tree_=tree)
    return trees


def _temperature(classes: np.ndarray, beta: float) -> CalibratedClassifierCV:
    """Build the calibrator of several classes: that of equal values, with another temperature."""
    k = len(classes)
    calibrator = fit_calibrator(np.zeros((2 * k, k)), np.arange(2 * k) % k)
    calibrator.calibrated_classifiers_[0].calibrators[0].beta_ = np.float64(beta)
    return calibrator


def depends_on_version(content: bytes, n_bytes: int) -> bool:
    """Whether a part of `n_bytes` in the format of skops holds objects of scikit-learn, which vary by its version."""
    return b'"sklearn.' in read_members(content, unpacked_limit(n_bytes))["schema.json"]
