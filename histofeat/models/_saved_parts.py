"""Parts of a model beside scikit-learn's: boosters and networks in their own formats, pretrained weights by hash."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.neighbors import BallTree, KDTree

from histofeat.exceptions import DAMAGED, WeightsError, first_line, known_names, needs
from histofeat.features import PatchFeatures, PatchUnion
from histofeat.models._archive import ModelFileError
from histofeat.models._checked_trees import check_booster, check_estimator
from histofeat.models._named_parts import as_sequence
from histofeat.models._pipeline import IDCPipeline
from histofeat.models._trusted import flatten, unflatten

_BOOSTERS = ("XGBClassifier", "XGBRFClassifier")
#: Parameters of a network that belong to the machine or the process of its fit.
_OF_THE_FIT = ("checkpoint", "progress")
_NEIGHBOR_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}
#: Where pretrained weights are looked for, and the parameters of a named embedding that say where.
_VARIABLE = "HISTOFEAT_WEIGHTS"
_PLACES = ("cnn__weights", "cnn__weights_dir")


class StoredPart(BaseEstimator):
    """Placeholder in an estimator for a part that is a file of its own in the archive, or plain arrays.

    Parameters
    ----------
    kind : str
        Class of the part: "XGBClassifier", "XGBRFClassifier", "CNNClassifier" or one of scikit-learn.
    file : str or None
        Name of the part; None for an estimator that is not fitted, or one of scikit-learn.
    params : mapping of str
        The estimator's parameters.
    fitted : mapping of str or None
        What an estimator of scikit-learn learnt, as of `histofeat.models._trusted.flatten`; None for other parts.
    """

    def __init__(self, kind, file=None, params=None, fitted=None):
        self.kind = kind
        self.file = file
        self.params = params
        self.fitted = fitted


def take_apart(estimator) -> tuple[BaseEstimator, dict[str, bytes]]:
    """Split an estimator into what skops writes and what other libraries write.

    Parameters
    ----------
    estimator : estimator
        Fitted; it is not changed.

    Returns
    -------
    skeleton : estimator
        A copy with a `StoredPart` in the place of each booster and network, without paths of this machine, and without
        the search trees of neighbours, which `put_back` grows again from their points.
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
            given = {key: value for key, value in found.get_params().items() if value is not None}
            if not hasattr(found, "_Booster"):
                return StoredPart(name, None, given)
            file = f"booster-{len(parts) + 1}.json"
            parts[file] = bytes(found.get_booster().save_raw("json"))
            try:
                check_booster(parts[file])
            except DAMAGED as error:
                raise ModelFileError(
                    f"save_model: expected a booster that load_model reads, got one that it refuses: {error}. Use one "
                    "number in each leaf, numeric features and finite weights."
                ) from error
            return StoredPart(name, file, given)
        if hasattr(found, "save_network"):
            given = _portable(found.get_params(deep=False))
            if not hasattr(found, "classes_"):
                return StoredPart("CNNClassifier", None, given)
            file = f"network-{len(parts) + 1}.keras"
            # The names of images that were left out of the fit, without the folders of this machine.
            skipped = tuple(PurePath(name).name for name in found.skipped_)
            with tempfile.TemporaryDirectory() as scratch:
                parts[file] = walk(found, skipped_=skipped).save_network(Path(scratch) / file).read_bytes()
            return StoredPart("CNNClassifier", file, given)
        flat = flatten(found)
        if flat is not None:
            name, params, fitted = flat
            return walk(StoredPart(name, None, params, fitted))
        if isinstance(getattr(found, "_tree", None), KDTree | BallTree):
            return walk(found, _tree=None)
        if isinstance(found, IDCPipeline):
            return walk(found, **_without_paths(found))
        if isinstance(found, PatchUnion):
            return walk(found, store=None)
        if hasattr(found, "weights_hash"):
            return walk(found, weights=found._published, **dict.fromkeys({"weights_dir"} & {*found.get_params()}))
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
        The whole estimator; the arrays in it fit each other.

    Raises
    ------
    ModelFileError
        If a part is missing or unknown, its library cannot read it, or what is in it does not fit together.
    """
    wanted: set[str | None] = set()

    def swap(found, walk):
        if isinstance(found, StoredPart):
            wanted.add(found.file)
            return _filled(walk(found), parts)
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
    check_estimator(estimator)
    return estimator


def _walked(root, swap: Callable):
    """Copy an estimator with every estimator inside it, in lists, tuples and mappings too, changed by `swap`.

    ``swap(found, walk)`` gives the replacement of an estimator, or None to keep it; ``walk(found, name=value)`` is the
    copy with other attributes.
    """
    done: dict[int, object] = {}

    def copied(found, **changed):
        copy = type(found).__new__(type(found))
        # Not by __getstate__, which leaves out attributes of some estimators.
        copy.__dict__.update({name: visit(value) for name, value in (vars(found) | changed).items()})
        return copy

    def visit(found):
        if isinstance(found, BaseEstimator) and not isinstance(found, type):
            if id(found) not in done:
                swapped = swap(found, copied)
                done[id(found)] = copied(found) if swapped is None else swapped  # a forest without trees is falsy
            return done[id(found)]
        if type(found) in (list, tuple):
            return type(found)(visit(value) for value in found)
        if type(found) is dict:
            return {key: visit(value) for key, value in found.items()}
        return found

    return visit(root)


def _without_paths(pipeline: IDCPipeline) -> dict[str, Any]:
    """Parameters of a pipeline that hold paths of this machine, without them."""
    families = {name: value for name, value in (pipeline.feature_params or {}).items() if name not in _PLACES}
    head = _portable(pipeline.head_params or {}) if pipeline.takes_pixels else pipeline.head_params
    return {"store": None, "feature_params": families or None, "head_params": head or None}


def _portable(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a network without what is of this machine: paths, and what watches a fit.

    Examples
    --------
    >>> _portable({"epochs": 3, "checkpoint": "/home/me/run"})
    {'epochs': 3, 'checkpoint': None}
    """
    params = {**params, **{name: None for name in _OF_THE_FIT if name in params}}
    if params.get("weights") not in (None, "imagenet"):
        params["weights"] = Path(params["weights"]).name
    return params


def _filled(place: StoredPart, parts: dict[str, bytes]):
    if place.fitted is not None:
        return unflatten(place.kind, place.params, place.fitted)
    makers = {"CNNClassifier": _network, **dict.fromkeys(_BOOSTERS, _booster)}
    if place.kind not in makers:
        raise ModelFileError(
            f"load_model: expected a part of a known kind, got {place.kind!r:.40}. {known_names(place.kind, makers)}"
        )
    if place.file is not None and place.file not in parts:
        raise ModelFileError(f"load_model: expected the part {place.file!r:.40}, got none. Copy the file again.")
    return makers[place.kind](place, None if place.file is None else parts[place.file])


def _booster(place: StoredPart, content: bytes | None):
    with needs("histofeat", "load_model of a model made with XGBoost: expected the package xgboost"):
        import xgboost
    classifier = getattr(xgboost, place.kind)(**place.params)
    if content is not None:
        try:
            check_booster(content)
            if tuple(map(int, xgboost.__version__.split(".")[:2])) < (3, 1):
                content = _with_one_base_score(content)
            classifier.load_model(bytearray(content))
        except DAMAGED as error:
            raise ModelFileError(_unreadable(place, "XGBoost", error)) from error
    return classifier


def _with_one_base_score(content: bytes) -> bytes:
    """Rewrite a booster of XGBoost 3.1 or later for older versions, which know one base score for all classes.

    The scores of several classes move into the leaves of the first tree of each class.
    """
    record = json.loads(content)
    learner = record["learner"]
    scores = json.loads(learner["learner_model_param"]["base_score"])
    if isinstance(scores, list) and len(scores) > 1:
        trees = learner["gradient_booster"]["model"]
        for code, score in enumerate(scores):
            first = trees["trees"][trees["tree_info"].index(code)]
            leaves = np.array(first["left_children"]) == -1
            first["split_conditions"] = (np.array(first["split_conditions"]) + leaves * score).tolist()
        scores = [0.0]
    learner["learner_model_param"]["base_score"] = repr(float(np.ravel(scores)[0]))
    return json.dumps(record).encode()


def _network(place: StoredPart, content: bytes | None):
    from histofeat.networks import CNNClassifier

    unknown = sorted(set(place.params or ()) - set(CNNClassifier().get_params()))
    if unknown:
        raise ModelFileError(
            f"load_model: expected a CNNClassifier with the parameters of this histofeat, got {unknown[0]!r:.40} "
            f"({len(unknown)} unknown). Train the model again, or load it with the histofeat that wrote it."
        )
    if content is None:
        return CNNClassifier(**(place.params or {}))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / place.file
        file.write_bytes(content)
        try:
            return CNNClassifier.load_network(file)
        except DAMAGED as error:
            raise ModelFileError(_unreadable(place, "Keras", error)) from error


def _unreadable(place: StoredPart, library: str, error: Exception) -> str:
    return (
        f"load_model: expected {place.file!r} to be a {place.kind} in the format of {library}, got one that it cannot "
        f"read ({first_line(error):.100}). Copy the file again, or install the version of {library} that wrote it."
    )


def _embeddings(pipeline: IDCPipeline) -> list[tuple[str | PatchFeatures, PatchFeatures]]:
    """List the fitted embeddings of a pipeline, each after the name or the estimator that it was given as."""
    if pipeline.features_ is None:
        return []
    pairs = zip(as_sequence(pipeline.features), pipeline.features_.families, strict=True)
    return [(given, family) for given, family in pairs if hasattr(family, "weights_hash")]


def describe_weights(pipeline: IDCPipeline) -> list[dict[str, str]]:
    """Describe the weights that the embeddings of a fitted pipeline use.

    Parameters
    ----------
    pipeline : IDCPipeline
        Fitted.

    Returns
    -------
    records : list of dict
        One for each embedding, in order: ``encoder``, ``weights`` (a word or the name of a file), ``hash`` (as
        `histofeat.networks.hash_weights` gives it) and ``engine``. No path.

    Raises
    ------
    WeightsError
        If the weights cannot be found any more.
    """
    return [
        {
            "encoder": family.encoder,
            "weights": Path(family.weights).name,
            "hash": family.weights_hash(),
            "engine": family.engine_,
        }
        for _, family in _embeddings(pipeline)
    ]


def settle_weights(pipeline: IDCPipeline, records: Sequence[dict], weights_dir=None) -> None:
    """Find the weights of a loaded pipeline, and set their paths on its families, unfitted ones too.

    Parameters
    ----------
    pipeline : IDCPipeline
        Loaded; it is changed.
    records : sequence of dict
        What `describe_weights` gave.
    weights_dir : path, optional
        Folder with the weights; by default that of the environment variable ``HISTOFEAT_WEIGHTS``, then Keras's cache.

    Raises
    ------
    WeightsError
        If the weights cannot be found, or are not those of the training.
    """
    embeddings = _embeddings(pipeline)
    if len(embeddings) > len(records):
        raise WeightsError(
            f"{embeddings[-1][1].encoder}: expected a model that holds the hash of these weights, got one of an "
            "earlier histofeat, whose encoder was another. Train the model again."
        )
    for (given, family), record in zip(embeddings, records, strict=True):
        weights, published = record["weights"], type(family)._published
        if weights != published:
            weights = str(_weights_folder(weights, weights_dir) / Path(weights).name)
        _check_weights(record, "imagenet" if weights == published else weights, weights_dir)
        places = {"weights": weights, "weights_dir": None if weights_dir is None else str(weights_dir)}
        places = {name: value for name, value in places.items() if name in family.get_params()}
        family.set_params(**places)
        if isinstance(given, str):
            told = {name: value for name, value in places.items() if value not in (None, published)}
            pipeline.set_params(**{f"features__{given}__{name}": value for name, value in told.items()})
        else:
            given.set_params(**places)


def _check_weights(record, weights, weights_dir) -> None:
    from histofeat.networks import find_encoder, find_weights, hash_weights  # here: most models have no encoder

    path = find_weights(find_encoder(record["encoder"]), weights, weights_dir)
    found = hash_weights(path)
    if found != record["hash"]:
        raise WeightsError(
            f"{path}: expected the weights of {record['encoder']} that the model was trained with (hash "
            f"{record['hash']}), got others (hash {found}). Name the folder with the right ones by weights_dir or "
            f"by the environment variable {_VARIABLE}, or train the model again."
        )


def _weights_folder(name: str, weights_dir) -> Path:
    folder = weights_dir if weights_dir is not None else os.environ.get(_VARIABLE)
    if not folder:
        raise WeightsError(
            f"{name}: expected the folder with this file, which the model was trained with, got none. Name it by "
            f"weights_dir or by the environment variable {_VARIABLE}."
        )
    return Path(folder).expanduser()
