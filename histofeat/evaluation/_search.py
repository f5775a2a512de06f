"""Choose the parameters of a head on the training patients by scikit-learn's random search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, Self

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import get_scorer, get_scorer_names, roc_auc_score
from sklearn.model_selection import RandomizedSearchCV

from histofeat.exceptions import check_name, check_that, check_type, check_whole
from histofeat.models import HEADS, FeatureHead

#: Parameters that a search must not choose, and why.
_NOT_SEARCHED = {
    "random_state": "the best of several seeds is luck, not a setting",
    "seed": "the best of several seeds is luck, not a setting",
    "n_jobs": "threads do not change what is learnt",
    "early_stopping_rounds": "it needs rows to stop on, and none are set aside for it",
    "callbacks": "they can see more than the training rows",
    "eval_metric": "nothing is evaluated while the head is fitted",
}


@dataclass(frozen=True)
class Search:
    """Parameters to search over, and the number of candidates.

    Parameters
    ----------
    params : mapping
        For each head, by name, a mapping of its parameters to lists of values or scipy distributions. Or one such
        mapping for all heads. Heads that are not named are not searched.
    n_iter : int, default=10
        Candidates drawn for each head, feature set and fold; fewer where the lists have fewer combinations. Each one
        is fitted on every inner fold.
    scoring : str, default="roc_auc"
        A scikit-learn scorer that is larger for a better head, of class labels or of a ranking. With more than two
        classes "roc_auc" is the mean of one class against the rest.
    random_state : int, default=0
        Seed of the candidates. Every fold and feature set draws the same ones.

    Raises
    ------
    ValueError
        If there is nothing to search over, an option is unknown or out of range, or a parameter is not one to be
        searched, such as a seed.

    Notes
    -----
    The search is scikit-learn's `RandomizedSearchCV` over folds of patients.

    Examples
    --------
    >>> search = Search({"xgboost": {"max_depth": [3, 4, 6]}, "svm": {"C": [0.1, 1.0, 10.0]}}, n_iter=3)
    >>> search.for_head("svm")
    {'C': (0.1, 1.0, 10.0)}
    >>> search.for_head("logistic")
    {}
    """

    params: Mapping[str, Any]
    n_iter: int = 10
    scoring: str = "roc_auc"
    random_state: int = 0

    def __post_init__(self) -> None:
        """Check every option and keep plain copies of the parameters."""
        object.__setattr__(self, "params", _checked_params(self.params))
        check_whole("Search.n_iter", self.n_iter, 1, "Use 10.")
        check_whole("Search.random_state", self.random_state, 0, "Use 0.")
        check_name("Search.scoring", self.scoring, get_scorer_names(), "the name of a scorer")

    @classmethod
    def of(cls, value: object) -> Self | None:
        """Read what is given as ``search=``.

        Parameters
        ----------
        value : Search, mapping or None
            A mapping is `params`, or has ``"params"`` and other options of `Search` as its keys.

        Returns
        -------
        search : Search or None
            None for None.

        Raises
        ------
        ValueError
            If it is neither, or an option is unknown.

        Examples
        --------
        >>> Search.of({"svm": {"C": [1, 10]}}) == Search.of({"params": {"svm": {"C": [1, 10]}}, "n_iter": 10})
        True
        """
        if value is None or isinstance(value, cls):
            return value
        expected = "a Search or a mapping of heads to parameters"
        check_type("search", value, Mapping, expected, 'Pass Search({"svm": {"C": [0.1, 1.0, 10.0]}}).')
        if "params" not in value:
            return cls(value)
        options = [option.name for option in fields(cls)]
        for name in value:
            check_name("search", name, options, "options of Search beside 'params'")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Write the search as plain JSON types, for reports; a distribution as its name and arguments.

        Examples
        --------
        >>> from scipy.stats import loguniform
        >>> Search({"svm": {"C": loguniform(0.1, 10)}}).to_dict()["params"]
        {'svm': {'C': 'loguniform(0.1, 10)'}}
        """
        return {**vars(self), "params": _in_words(self.params), "method": "random"}

    def for_head(self, head_name: str) -> dict[str, Any]:
        """Give the parameters that are searched for a head; none for a head that is not named."""
        return dict(self.params.get(head_name, {}) if _by_head(self.params) else self.params)

    def check_heads(self, heads: Mapping[str, FeatureHead]) -> None:
        """Refuse heads and parameters that do not exist, before long work begins.

        Parameters
        ----------
        heads : mapping of str to FeatureHead
            The heads of an evaluation by their names.

        Raises
        ------
        ValueError
            If a head that is named here is neither among them nor one of `histofeat.models.HEADS`, none of them is
            searched, or a head lacks a parameter.
        """
        known = {*HEADS, *heads}
        for name in self.params if _by_head(self.params) else ():
            check_name("Search.params", name, known, "names of heads")
        if heads and not any(self.for_head(name) for name in heads):
            raise ValueError(
                f"Search.params: expected parameters of a head that is evaluated, got those of "
                f"{', '.join(sorted(self.params))}. Heads here: {', '.join(sorted(heads))}."
            )
        for name, head in heads.items():
            self.check_head(head, name)

    def check_head(self, head: FeatureHead, head_name: str) -> None:
        """Refuse parameters that a head does not have; the message gives the nearest name."""
        expected = f"parameters of head {head_name!r} ({type(head.classifier).__name__})"
        for name in self.for_head(head_name):
            check_name("Search.params", name, head.classifier.get_params(deep=True), expected)


def _in_words(value):
    if isinstance(value, Mapping):
        return {name: _in_words(inner) for name, inner in value.items()}
    if isinstance(value, tuple):
        return [_in_words(inner) for inner in value]
    if hasattr(value, "rvs") and hasattr(value, "dist"):  # frozen with its arguments
        arguments = [*map(repr, value.args), *(f"{name}={argument!r}" for name, argument in value.kwds.items())]
        return f"{value.dist.name}({', '.join(arguments)})"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _by_head(params: Mapping) -> bool:
    return all(isinstance(value, Mapping) for value in params.values())


def _checked_params(params) -> dict[str, Any]:
    """Copy the parameters, with every list as a tuple."""
    expected = "heads with their parameters"
    check_type("Search.params", params, Mapping, expected, 'Pass {"svm": {"C": [0.1, 1.0, 10.0]}}.')
    if params and _by_head(params):
        return {name: _checked_space(space, f"Search.params[{name!r}]") for name, space in params.items()}
    mixed = [name for name, value in params.items() if isinstance(value, Mapping)]
    if mixed:
        raise ValueError(
            f"Search.params: expected either heads or parameters, got the head {mixed[0]!r} beside the parameter "
            f"{next(name for name in params if name not in mixed)!r}. Put every parameter under its head."
        )
    return _checked_space(params, "Search.params")


def _checked_space(space: Mapping, where: str) -> dict[str, Any]:
    if not space:
        raise ValueError(f"{where}: expected at least one parameter, got {{}}. Name one, or leave the head out.")
    for name in space:
        if str(name).rpartition("__")[2] in _NOT_SEARCHED:
            raise ValueError(
                f"{where}: expected parameters that decide what is learnt from the training patients, got {name!r}: "
                f"{_NOT_SEARCHED[str(name).rpartition('__')[2]]}. Leave it out."
            )
    return {name: _checked_values(values, f"{where}[{name!r}]") for name, values in space.items()}


def _checked_values(values, where: str):
    if hasattr(values, "rvs"):
        return values
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    different = isinstance(listed, Sequence) and len(set(map(repr, listed))) == len(listed) > 0
    fits, remedy = different and not isinstance(listed, str), "Pass a list, of one value to hold it fixed."
    check_that(where, values, fits, "a list of different values or a scipy distribution", remedy)
    return tuple(listed)


class _SearchedHead(FeatureHead):
    """A head as a search fits it: scikit-learn keeps what is named ``groups`` for the folds."""

    def fit(self, X, y, patients):
        """Fit on the rows `X` (n, d) with labels `y` (n,) of `patients` (n,)."""
        return super().fit(X, y, groups=patients)


def tune_head(
    head: FeatureHead, X, y, groups, inner_cv, search: Search, head_name: str, positive: Any = 1, inner_X=None
) -> tuple[FeatureHead, dict]:
    """Choose the parameters of a head on the training patients alone.

    Parameters
    ----------
    head : FeatureHead
        Unfitted; it is not changed.
    X : ndarray of shape (n, d)
        Features of the training rows, and of no other.
    y : array-like of shape (n,)
        Their labels.
    groups : array-like of shape (n,)
        Their patients.
    inner_cv : splitter
        Patient-grouped, such as ``PatientKFold(3)``; each candidate meets the same folds.
    search : Search
        What is searched over.
    head_name : str
        The name by which `search` knows the head.
    positive : label, default=1
        The positive class of two, for scorers that ask which it is.
    inner_X : sequence of ndarray of shape (n, d), optional
        As for `histofeat.models.fit_with_inner_scores`.

    Returns
    -------
    tuned : FeatureHead
        Unfitted, with the chosen parameters; `head` itself where nothing is searched for it.
    choice : dict
        "params" (the chosen values), "inner_score" (mean over the inner folds), "scoring", "method",
        "n_candidates" and "n_fits"; empty where nothing is searched.

    Raises
    ------
    ValueError
        If the head lacks a parameter, an inner fold lacks a class, or the scorer asks for probabilities that the head
        has only after calibration.

    Notes
    -----
    No calibration takes part in the search: it does not change how a head ranks patches, and would cost three more
    fits a candidate. The score of the chosen candidate is the best of several, and so too high for a new patient.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.models import make_head
    >>> from histofeat.model_selection import PatientKFold
    >>> X, y = np.array([[0.0], [1.0], [0.2], [0.9]] * 6), [0, 1, 0, 1] * 6
    >>> search = Search({"logistic": {"C": [0.01, 1.0]}}, n_iter=2)
    >>> patients = np.repeat(list("abcdef"), 4)
    >>> tuned, choice = tune_head(make_head("logistic"), X, y, patients, PatientKFold(2), search, "logistic")
    >>> tuned.classifier.C == choice["params"]["C"], choice["n_candidates"], choice["n_fits"]
    (True, 2, 4)
    """
    search.check_head(head, head_name)
    space = search.for_head(head_name)
    if not space:
        return head, {}
    X, y, groups = np.asarray(X), np.asarray(y), np.asarray(groups)
    folds = [(np.asarray(train), np.asarray(test)) for train, test in inner_cv.split(X, y, groups)]
    _check_classes(folds, y)
    if inner_X is not None:  # rows of its own for each inner fit
        n, times = len(y), len(folds)
        folds = [(train + n * number, test + n * number) for number, (train, test) in enumerate(folds)]
        X, y, groups = np.vstack(inner_X), np.tile(y, times), np.tile(groups, times)
    n_candidates = _n_candidates(space, search.n_iter)
    searched = RandomizedSearchCV(
        _SearchedHead(**{**head.get_params(deep=False), "calibrate": False}),
        {f"classifier__{name}": values for name, values in space.items()},
        n_iter=n_candidates,
        scoring=_scorer(search.scoring, y, positive),
        cv=folds,
        refit=False,
        random_state=search.random_state,
        error_score="raise",
    )
    _fit(searched, X, y, groups, head, search.scoring, head_name)
    best = {name: searched.best_params_[f"classifier__{name}"] for name in space}
    chosen = {name: value.item() if isinstance(value, np.generic) else value for name, value in best.items()}
    tuned = clone(head).set_params(**{f"classifier__{name}": value for name, value in chosen.items()})
    return tuned, {
        "params": chosen,
        "inner_score": float(searched.cv_results_["mean_test_score"][searched.best_index_]),
        "scoring": search.scoring,
        "method": "random",
        "n_candidates": n_candidates,
        "n_fits": len(searched.cv_results_["params"]) * len(folds),
    }


def _check_classes(folds, y) -> None:
    """Refuse inner folds that lack a class: scores there would be undefined, or of another task."""
    for fold, sides in enumerate(folds, start=1):
        for side, rows in zip(("training", "test"), sides, strict=True):
            lost = np.setdiff1d(y, y[rows])
            if lost.size:
                raise ValueError(
                    f"tune_head.inner_cv: expected every class on both sides of every inner fold, got no patch of "
                    f"class {lost[:1].tolist()[0]!r} on the {side} side of fold {fold} ({lost.size} such classes). "
                    "Use PatientKFold(3)."
                )


def _fit(searched, X, y, groups, head, scoring: str, head_name: str):
    # With routing on, scikit-learn requires requests that are not made here; another search may have turned it on.
    with config_context(enable_metadata_routing=False):
        try:
            return searched.fit(X, y, patients=groups)
        except AttributeError as error:
            if hasattr(head.classifier, "predict_proba"):
                raise
            raise ValueError(
                f"Search.scoring: expected a scorer of labels or rankings for head {head_name!r}, which has no "
                f"probabilities until it is calibrated, got {scoring!r}. Use 'roc_auc'."
            ) from error


def _n_candidates(space: Mapping, n_iter: int) -> int:
    if any(hasattr(values, "rvs") for values in space.values()):
        return int(n_iter)
    return int(min(n_iter, math.prod(len(values) for values in space.values())))


def _scorer(scoring: str, y, positive):
    if scoring == "roc_auc" and len(np.unique(y)) > 2:
        return _one_against_the_rest
    scorer = get_scorer(scoring)  # a copy
    asks = "pos_label" in signature(scorer._score_func).parameters
    if positive != 1 and asks and scorer._kwargs.get("average", "binary") == "binary":
        scorer._kwargs["pos_label"] = positive
    return scorer


def _one_against_the_rest(head, X, y) -> float:
    """Mean ROC-AUC of one class against the rest; scikit-learn's asks for probabilities, ranks will do."""
    values = head.decision_function(X)
    return float(np.mean([roc_auc_score(y == label, values[:, code]) for code, label in enumerate(head.classes_)]))
