"""Pipelines taken apart down to every object that they hold, as fits inside a fold would see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from sklearn.base import clone

from histofeat.exceptions import MissingExtraError, WeightsError

__all__ = ["Parts", "take_apart", "walk"]


@dataclass(frozen=True)
class Parts:
    """What one pipeline is made of.

    Parameters
    ----------
    name : str
        What the user calls it.
    given : tuple of (str, object)
        Feature families as they were given, for what cloning would lose.
    built : tuple of (str, object)
        Families, normaliser and head as each fold gets them: cloned.
    reason : str
        Why it could not be taken apart; empty if it could.
    """

    name: str
    given: tuple[tuple[str, Any], ...] = ()
    built: tuple[tuple[str, Any], ...] = ()
    reason: str = ""


def take_apart(pipelines) -> tuple[Parts, ...]:
    """Take pipelines apart.

    Parameters
    ----------
    pipelines : estimator, mapping of str to estimator, or sequence of (str, estimator)
        Instances of `IDCPipeline`, or any estimators of scikit-learn.

    Returns
    -------
    parts : tuple of Parts
        A pipeline whose weights or packages are missing has a reason and no parts.

    Raises
    ------
    ValueError
        If an entry is no estimator.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> take_apart({"plain": LogisticRegression()})[0].built
    (('plain', LogisticRegression()),)
    """
    if hasattr(pipelines, "get_params") and not isinstance(pipelines, type):
        pipelines = {"pipeline": pipelines}
    entries = pipelines.items() if isinstance(pipelines, Mapping) else pipelines
    taken = []
    for entry in entries if isinstance(entries, Iterable) and not isinstance(entries, str) else [entries]:
        if not isinstance(entry, tuple) or len(entry) != 2 or not hasattr(entry[1], "get_params"):
            raise ValueError(
                f"audit_split.pipelines: expected names with an estimator each, got {entry!r:.80}. "
                'Pass {"handcrafted": IDCPipeline()}.'
            )
        taken.append(_parts_of(str(entry[0]), entry[1]))
    return tuple(taken)


def _parts_of(name: str, pipeline) -> Parts:
    if not hasattr(pipeline, "make_head"):
        return Parts(name, ((name, pipeline),), ((name, clone(pipeline)),))
    features = pipeline.features if isinstance(pipeline.features, list | tuple) else [pipeline.features]
    given = tuple((f"{name}: {family.family}", family) for family in features if hasattr(family, "family"))
    try:
        built = [(f"{name}: {family.family}", family) for family in pipeline.families()]
        built.append((f"{name}: head", pipeline.make_head()))
        normalizer = getattr(pipeline, "make_normalizer", lambda: None)()
    except (MissingExtraError, WeightsError) as error:
        return Parts(name, given, (), str(error))
    if normalizer is not None:
        built.append((f"{name}: normalizer", normalizer))
    return Parts(name, given, tuple(built))


def walk(value, path: str) -> Iterator[tuple[str, Any]]:
    """Give every object that an object holds, with the way to it.

    Parameters
    ----------
    value : object
        Parameters of estimators, entries of sequences and mappings, and what functions are bound to or closed over,
        are followed.
    path : str
        What to call `value`.

    Yields
    ------
    path : str
    value : object

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> [path for path, part in walk(make_pipeline(StandardScaler()), "head") if hasattr(part, "fit")]
    ['head', 'head.steps[0][1]']
    """
    waiting, seen = [(path, value)], set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or value is None or isinstance(value, str | bytes | int | float | type):
            continue
        seen.add(id(value))
        yield path, value
        waiting += reversed(list(_children(path, value)))


def _children(path: str, value) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"{path}[{place}]", item) for place, item in enumerate(value))
    elif isinstance(value, MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, partial):
        yield from ((f"{path}.{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
    elif isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"{path}.{name}", _content(cell)) for name, cell in cells)
        yield f"{path}.__defaults__", value.__defaults__
        yield f"{path}.__kwdefaults__", value.__kwdefaults__
    elif hasattr(value, "get_params"):
        yield from ((f"{path}.{name}", item) for name, item in value.get_params(deep=False).items())


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # a name that was never set
        return None
