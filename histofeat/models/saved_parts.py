"""What scikit-learn's format is not for: boosters and networks, kept in the formats of their own libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePath

from sklearn.base import BaseEstimator
from sklearn.neighbors import BallTree, KDTree

from histofeat.exceptions import MissingExtraError, WeightsError, known_names
from histofeat.models.archive import ModelFileError
from histofeat.models.trusted import check_trees

__all__ = ["StoredPart", "portable", "put_back", "take_apart"]

_BOOSTERS = ("XGBClassifier", "XGBRFClassifier")
#: Parameters of a network's fit that are of the machine or the process that fitted it.
_OF_THE_FIT = ("checkpoint", "progress")
_NEIGHBOR_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}


class StoredPart(BaseEstimator):
    """What stands in an estimator for a part that another file of the model holds.

    Parameters
    ----------
    kind : str
        The class that it stands for: "XGBClassifier", "XGBRFClassifier" or "CNNClassifier".
    file : str or None
        Name of the part; None for an estimator that is not fitted.
    params : mapping of str
        The estimator's parameters.
    """

    def __init__(self, kind, file=None, params=None):
        self.kind = kind
        self.file = file
        self.params = params


def take_apart(estimator) -> tuple[BaseEstimator, dict[str, bytes]]:
    """Part an estimator into what skops writes and what other libraries write.

    Parameters
    ----------
    estimator : estimator
        Fitted; it is left as it is.

    Returns
    -------
    skeleton : estimator
        A copy with a `StoredPart` in the place of each booster and network, and without the search trees of
        neighbours, which `put_back` grows again from their points.
    parts : dict of str to bytes
        Name and content of each part.

    Raises
    ------
    ModelFileError
        If a network or a booster cannot be written.
    """
    parts: dict[str, bytes] = {}

    def swap(found, walk):
        name = type(found).__name__
        if type(found).__module__.startswith("xgboost.") and name in _BOOSTERS:
            file = _booster_part(found, parts) if hasattr(found, "_Booster") else None
            return StoredPart(
                name, file, {key: value for key, value in found.get_params().items() if value is not None}
            )
        if hasattr(found, "save_network"):
            file = None
            if hasattr(found, "classes_"):
                # The names of images that were left out of the fit, without the folders of this machine.
                skipped = tuple(PurePath(name).name for name in found.skipped_)
                file = _network_part(walk(found, skipped_=skipped), parts)
            return StoredPart("CNNClassifier", file, portable(found.get_params(deep=False)))
        if isinstance(getattr(found, "_tree", None), KDTree | BallTree):
            return walk(found, _tree=None)
        return None

    return _walked(estimator, swap), parts


def put_back(skeleton, parts: dict[str, bytes]):
    """Undo `take_apart`.

    Parameters
    ----------
    skeleton : estimator
        With its `StoredPart` places.
    parts : dict of str to bytes
        The parts by name.

    Returns
    -------
    estimator : estimator
        Whole, and with every decision tree looked at.

    Raises
    ------
    ModelFileError
        If a part is missing or unknown, or its library cannot read it.
    """
    wanted: set[str] = set()

    def swap(found, walk):
        if isinstance(found, StoredPart):
            wanted.update([found.file] if found.file else [])
            return _filled(found, parts)
        if hasattr(found, "tree_"):
            check_trees(found)
        grown = _NEIGHBOR_TREES.get(getattr(found, "_fit_method", None))
        if grown is not None:
            params = found.effective_metric_params_
            return walk(found, _tree=grown(found._fit_X, found.leaf_size, metric=found.effective_metric_, **params))
        return None

    estimator = _walked(skeleton, swap)
    surplus = sorted(set(parts) - wanted)
    if surplus:
        raise ModelFileError(
            f"load_model: expected parts that the pipeline names, got {surplus[0]!r} beside them. Copy the file again."
        )
    return estimator


def _walked(root, swap: Callable):
    """Copy an estimator with every estimator inside it, in lists, tuples and mappings too, changed by `swap`.

    ``swap(found, walk)`` gives the replacement of an estimator, or None to keep it; ``walk(found, name=value)`` is the
    copy with other attributes.
    """
    done: dict[int, object] = {}

    def copied(found, **changed):
        copy = type(found).__new__(type(found))
        # Not through __getstate__, which of some estimators leaves out what is to stay.
        copy.__dict__.update({name: visit(value) for name, value in vars(found).items()} | changed)
        return copy

    def visit(found):
        if isinstance(found, BaseEstimator) and not isinstance(found, type):
            if id(found) not in done:
                done[id(found)] = swap(found, copied) or copied(found)
            return done[id(found)]
        if type(found) in (list, tuple):
            return type(found)(visit(value) for value in found)
        if type(found) is dict:
            return {key: visit(value) for key, value in found.items()}
        return found

    return visit(root)


def _booster_part(classifier, parts: dict[str, bytes]) -> str:
    name = f"booster-{len(parts) + 1}.ubj"
    parts[name] = bytes(classifier.get_booster().save_raw("ubj"))
    return name


def _network_part(classifier, parts: dict[str, bytes]) -> str:
    name = f"network-{len(parts) + 1}.keras"
    with tempfile.TemporaryDirectory() as scratch:
        classifier.save_network(Path(scratch) / name)
        parts[name] = (Path(scratch) / name).read_bytes()
    return name


def portable(params: dict) -> dict:
    """Parameters of a network without what is of this machine: paths, and what watches a fit.

    Examples
    --------
    >>> portable({"epochs": 3, "checkpoint": "/home/me/run"})
    {'epochs': 3, 'checkpoint': None}
    """
    params = params | {name: None for name in _OF_THE_FIT if name in params}
    if params.get("weights") not in (None, "imagenet"):
        params["weights"] = Path(params["weights"]).name
    return params


def _filled(place: StoredPart, parts: dict[str, bytes]):
    makers = {"CNNClassifier": _network, **dict.fromkeys(_BOOSTERS, _booster)}
    if place.kind not in makers:
        raise ModelFileError(
            f"load_model: expected a part of a known kind, got {place.kind!r:.40}. {known_names(place.kind, makers)}"
        )
    if place.file is not None and place.file not in parts:
        raise ModelFileError(f"load_model: expected the part {place.file!r:.40}, got none. Copy the file again.")
    return makers[place.kind](place, None if place.file is None else parts[place.file])


def _booster(place: StoredPart, content: bytes | None):
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtraError(
            "load_model: expected the package xgboost, which this model was made with, found none. "
            "Run `pip install xgboost`."
        ) from error
    classifier = getattr(xgboost, place.kind)(**place.params)
    if content is not None:
        try:
            classifier.load_model(bytearray(content))
        except (xgboost.core.XGBoostError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(_unreadable(place, "XGBoost", error)) from error
    return classifier


def _network(place: StoredPart, content: bytes | None):
    from histofeat.networks import CNNClassifier

    if content is None:
        return CNNClassifier(**place.params)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / place.file
        file.write_bytes(content)
        try:
            return CNNClassifier.load_network(file)
        except (WeightsError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(_unreadable(place, "Keras", error)) from error


def _unreadable(place: StoredPart, library: str, error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"load_model: expected {place.file!r} to be a {place.kind} in the format of {library}, got one that it cannot "
        f"read ({first:.100}). Copy the file again, or install the version of {library} that wrote it."
    )
