"""Check boosters and fitted estimators of a model's file before compiled code reads them."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.dummy import DummyClassifier
from sklearn.ensemble._forest import BaseForest
from sklearn.ensemble._gb import BaseGradientBoosting
from sklearn.neighbors._base import NeighborsBase
from sklearn.svm._base import BaseLibSVM
from sklearn.tree import BaseDecisionTree
from sklearn.tree._tree import Tree

from histofeat.models._archive import ModelFileError

#: Arrays of a tree of XGBoost: one entry for each node, and none where splits are by numbers.
_OF_NODES = (
    "left_children", "right_children", "parents", "split_indices", "split_conditions", "split_type", "default_left",
    "base_weights", "loss_changes", "sum_hessian",
)  # fmt: skip
_EMPTY = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_KERNELS = ("linear", "poly", "rbf", "sigmoid")
_MOST_JOBS, _MOST_VALUES = 1024, 2**21


def _once(pairs: list[tuple[str, Any]]) -> dict:
    """Make a mapping, in which a key that comes twice would let two readers see two things."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a key twice")
    return found


def check_booster(content: bytes) -> None:
    """Check that a booster does not point outside of itself, before XGBoost reads it.

    Parameters
    ----------
    content : bytes
        In XGBoost's JSON.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If it is no JSON, names a key twice, a node points outside of its tree, arrays differ in length, a number is not
        finite, the trees do not fit the classes, there are several targets, or splits are by category.
    """
    if not content.startswith(b'{"'):  # XGBoost would take it for another of its formats
        raise ValueError("it is no JSON")
    if sum(map(content.count, b'[{"')) > _MOST_VALUES:
        raise ValueError(f"it lists more than {_MOST_VALUES:,} texts and arrays")
    learner = json.loads(content, object_pairs_hook=_once)["learner"]
    param, booster, told = learner["learner_model_param"], learner["gradient_booster"], learner["objective"]
    n_features, n_classes = int(param["num_feature"]), int(param["num_class"])
    n_groups = max(1, n_classes)
    base = np.array(str(param["base_score"]).strip("[]").split(","), dtype=np.float64)
    told = int(told.get("softmax_multiclass_param", {}).get("num_class", n_classes))
    fits = n_features > 0 and 0 <= n_classes == told != 1 and int(param.get("num_target", 1)) == 1
    fits &= len(base) in (1, n_groups) and bool(np.isfinite(base).all())
    if booster["name"] == "gblinear":
        weights = np.asarray(booster["model"]["weights"], dtype=np.float64)
        fits &= len(weights) == (n_features + 1) * n_groups and bool(np.isfinite(weights).all())
    else:
        model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
        trees, groups = model["trees"], np.asarray(model["tree_info"])
        starts = np.asarray(model.get("iteration_indptr", (0, len(trees))))
        fits &= len(trees) == len(groups) == len(booster.get("weight_drop", trees))
        fits &= len(trees) == int(model["gbtree_model_param"]["num_trees"]) and _within(groups, 0, n_groups)
        fits &= (starts[0], starts[-1]) == (0, len(trees)) and bool((np.diff(starts) >= 0).all())
        fits &= not any(map(len, model.get("cats", {}).values())) and all(_grown(tree, n_features) for tree in trees)
    if not fits:
        raise ValueError("its trees do not fit each other, their features or their classes")


def _within(numbers: np.ndarray, least: int, end: int) -> bool:
    return not numbers.size or bool(numbers.min() >= least and numbers.max() < end)


def _grown(tree: Mapping, n_features: int) -> bool:
    param, arrays = tree["tree_param"], {name: np.asarray(tree[name]) for name in _OF_NODES}
    n, several = int(param["num_nodes"]), int(param["size_leaf_vector"]) > 1
    if n < 1 or several or int(param["num_feature"]) != n_features or {a.shape for a in arrays.values()} != {(n,)}:
        return False
    left, right, column = (arrays[name] for name in ("left_children", "right_children", "split_indices"))
    inner, parents = np.flatnonzero((left != -1) | (right != -1)), arrays["parents"][1:]
    children = np.concatenate([left[inner], right[inner]]).astype(np.int64)
    inside = _within(children, 1, n) and _within(parents, 0, n) and _within(column[inner], 0, n_features)
    # Where each node has one parent at most and the first has none, no path from the first comes back.
    inside = inside and len(np.unique(children)) == len(children)
    inside = inside and (parents[children - 1] == np.tile(inner, 2)).all()
    numeric = not arrays["split_type"].any() and not any(len(tree[name]) for name in _EMPTY)
    return bool(inside and numeric and np.isfinite(arrays["split_conditions"]).all())


def check_estimator(estimator: BaseEstimator) -> None:
    """Check that the fitted arrays inside an estimator fit each other, or compiled code would read foreign memory.

    Parameters
    ----------
    estimator : estimator
        Fitted. Everything in it is looked at, in containers, arrays and private attributes too.

    Raises
    ------
    ModelFileError
        If a tree points outside of itself or is on other columns, support vectors, neighbours or trees do not fit the
        classes, or `n_jobs` is out of range.
    """
    seen: dict[int, object] = {}
    waiting: list[object] = [estimator]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, str | bytes | int | float | type | None):
            continue
        seen[id(found)] = found
        for what, fits in _conditions(found):
            if not fits:
                raise ModelFileError(
                    f"load_model: expected a {type(found).__name__} that is whole, got one with {what}. "
                    "Do not use this file; train the model again."
                )
        if isinstance(found, Mapping):
            waiting.extend(found.values())
        elif isinstance(found, list | tuple | set):
            waiting.extend(found)
        elif isinstance(found, np.ndarray) and found.dtype == object:
            waiting.extend(np.asarray(found).ravel().tolist())
        elif isinstance(found, BaseEstimator) or type(found).__module__.startswith(("sklearn.", "histofeat.")):
            waiting.extend(getattr(found, "__dict__", {}).values())


def _conditions(found: Any) -> Iterator[tuple[str, bool]]:
    """Yield what may be wrong with an object, and whether it is right."""
    if isinstance(found, Tree):
        yield "nodes outside of itself", _tree_fits(found)
    if not isinstance(found, BaseEstimator):
        return
    state, n_jobs = vars(found), getattr(found, "n_jobs", None)
    yield f"n_jobs={n_jobs!r:.40}", n_jobs is None or (isinstance(n_jobs, int) and abs(n_jobs) <= _MOST_JOBS)
    yield "data in the place of a method", not any(callable(getattr(type(found), name, None)) for name in state)
    if "tree_" in state:
        yield "a tree of other columns", found.tree_.n_features == found.n_features_in_
    if isinstance(found, BaseForest | BaseGradientBoosting) and "estimators_" in state:
        trees = np.asarray(found.estimators_, dtype=object)
        own = all(isinstance(t, BaseDecisionTree) and t.n_features_in_ == found.n_features_in_ for t in trees.flat)
        if isinstance(found, BaseGradientBoosting):
            n_columns = 1 if len(found.classes_) == 2 else len(found.classes_)
            own = own and trees.shape[1:] == (n_columns,) and isinstance(found.init_, DummyClassifier | str)
            own = own and found._raw_predict_init(np.zeros((1, found.n_features_in_))).shape == (1, n_columns)
        yield "trees of other columns or classes", own
    if isinstance(found, BaseLibSVM) and "support_vectors_" in state:
        yield "support vectors that do not fit each other", _svm_fits(found)
    if isinstance(found, NeighborsBase) and "_fit_X" in state and is_classifier(found):
        codes, n = np.asarray(found._y), len(found._fit_X)
        whole = codes.shape == (n,) and n == found.n_samples_fit_ and codes.dtype.kind in "iu"
        yield "neighbours of no class", whole and _within(codes, 0, len(found.classes_))


def _tree_fits(tree: Tree) -> bool:
    if tree.node_count < 1 or tree.n_outputs != 1:
        return False
    left, right, column, at = tree.children_left, tree.children_right, tree.feature, np.arange(tree.node_count)
    inner = (left > at) & (right > at) & (left < tree.node_count) & (right < tree.node_count)
    inner &= (column >= 0) & (column < tree.n_features) & np.isfinite(tree.threshold)
    return bool((inner | ((left == -1) & (right == -1))).all() and np.isfinite(tree.value).all())


def _svm_fits(svm: BaseLibSVM) -> bool:
    k, (n, d), counts = len(svm.classes_), svm.support_vectors_.shape, np.asarray(svm._n_support)
    pairs = math.comb(k, 2)
    known = svm._impl in ("c_svc", "nu_svc") and "_impl" not in vars(svm) and svm.kernel in _KERNELS
    fits = counts.shape == (k,) and counts.min() >= 0 and counts.sum() == n == len(svm.support_) and n > 0
    fits = fits and not svm._sparse and d == svm.n_features_in_ == svm.shape_fit_[1]
    fits = fits and svm._dual_coef_.shape == (k - 1, n) and svm._intercept_.shape == (pairs,)
    fits = fits and svm._probA.shape == svm._probB.shape
    return bool(known and fits and svm._probA.shape in ((0,), (pairs,)))
