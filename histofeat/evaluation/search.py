"""The settings of a parameter search, checked before anything is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer_names

from histofeat.exceptions import check_whole, known_names
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

    def __post_init__(self):
        """Check every option and keep plain copies of the parameters."""
        object.__setattr__(self, "params", _checked_params(self.params))
        for name, least in (("n_iter", 1), ("random_state", 0)):
            check_whole(f"Search.{name}", getattr(self, name), least, f"Use {10 if least else 0}.")
        if not isinstance(self.scoring, str) or self.scoring not in get_scorer_names():
            raise ValueError(
                f"Search.scoring: expected the name of a scorer, got {self.scoring!r}. "
                f"{known_names(self.scoring, get_scorer_names())}"
            )

    @classmethod
    def of(cls, value):
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
        if not isinstance(value, Mapping):
            raise ValueError(
                f"search: expected a Search or a mapping of heads to parameters, got {value!r:.80}. "
                'Pass Search({"svm": {"C": [0.1, 1.0, 10.0]}}).'
            )
        if "params" not in value:
            return cls(value)
        options = [option.name for option in fields(cls)]
        unknown = [name for name in value if name not in options]
        if unknown:
            raise ValueError(
                f"search: expected options of Search beside 'params', got {unknown[0]!r} ({len(unknown)} such). "
                f"{known_names(unknown[0], options)}"
            )
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Write the search as plain JSON types, for reports; a distribution as its name and arguments.

        Examples
        --------
        >>> from scipy.stats import loguniform
        >>> Search({"svm": {"C": loguniform(0.1, 10)}}).to_dict()["params"]
        {'svm': {'C': 'loguniform(0.1, 10)'}}
        """
        options = {option.name: getattr(self, option.name) for option in fields(self)}
        return {**options, "params": _in_words(self.params), "method": "random"}

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
        unknown = [name for name in self.params if name not in known] if _by_head(self.params) else []
        if unknown:
            raise ValueError(
                f"Search.params: expected names of heads, got {unknown[0]!r} ({len(unknown)} unknown). "
                f"{known_names(unknown[0], known)}"
            )
        if heads and not any(self.for_head(name) for name in heads):
            raise ValueError(
                f"Search.params: expected parameters of a head that is evaluated, got those of "
                f"{', '.join(sorted(self.params))}. Heads here: {', '.join(sorted(heads))}."
            )
        for name, head in heads.items():
            self.check_head(head, name)

    def check_head(self, head: FeatureHead, head_name: str) -> None:
        """Refuse parameters that a head does not have; the message gives the nearest name."""
        known = head.classifier.get_params(deep=True)
        unknown = [name for name in self.for_head(head_name) if name not in known]
        if unknown:
            raise ValueError(
                f"Search.params: expected parameters of head {head_name!r} ({type(head.classifier).__name__}), got "
                f"{unknown[0]!r} ({len(unknown)} unknown). {known_names(unknown[0], known)}"
            )


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
    if not isinstance(params, Mapping) or not params:
        raise ValueError(
            f"Search.params: expected heads with their parameters, got {params!r:.80}. "
            'Pass {"svm": {"C": [0.1, 1.0, 10.0]}}.'
        )
    if _by_head(params):
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
    if isinstance(listed, str) or not isinstance(listed, Sequence) or not len(listed):
        raise ValueError(
            f"{where}: expected a list of values or a scipy distribution, got {values!r:.80}. Pass a list, of one "
            "value to hold it fixed."
        )
    return tuple(listed)
