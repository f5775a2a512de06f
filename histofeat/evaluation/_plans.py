"""Pipelines as named plans (families, head, normaliser) and the state of a run over them."""

import pickle
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import joblib
import numpy as np
from sklearn.base import clone

from histofeat.datasets import PatchDataset
from histofeat.exceptions import ClusterError, MissingExtraError, WeightsError, check_that, first_line
from histofeat.features import Runtime, check_unique_names, extract
from histofeat.models import PIXELS, FeatureHead, OnRows, PixelHead

#: Errors that put a model in ``not_run`` instead of ending the evaluation.
CANNOT_RUN = (WeightsError, MissingExtraError)
#: Packages whose errors are ours, or of what they were given.
_KNOWN = {"builtins", "histofeat", "keras", "numpy", "pandas", "scipy", "sklearn", "xgboost"}
#: Training and test rows of each fold.
Folds = tuple[tuple[np.ndarray, np.ndarray], ...]


@dataclass
class Run:
    """The state of an evaluation or a study: what every stage reads, and the counts that stages add up.

    Parameters
    ----------
    dataset : PatchDataset
    splits : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    runtime : Runtime
    inner : tuple of splitters
        The inner folds of each fold, where there are inner fits.
    random_state : int
    threshold : ThresholdRule or None
    search : Search or None
    retrain : bool or "inner"
        Whether to train encoders again in each fold and for its inner fits, or for these alone.
    policy : AuditPolicy or None
    left_out : LeftOut or None
    """

    dataset: PatchDataset
    splits: Folds
    runtime: Runtime
    inner: tuple[Any, ...] = ()
    random_state: int = 0
    threshold: Any = None
    search: Any = None
    retrain: bool | str = False
    policy: Any = None
    left_out: Any = None
    seconds: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    computed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.y: np.ndarray = self.dataset.y
        self.patients: np.ndarray = self.dataset.patients

    @property
    def positive(self) -> int:
        """The code of the positive class of two; 1 with more, where no metric asks for it."""
        return int(self.dataset.positive_last(np.array([1]))[0]) if len(self.dataset.target_names) == 2 else 1

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a block to those of its stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def leave_out(self, tests: list[np.ndarray], left_out: Any) -> None:
        """Test only the rows `tests` in each fold; drop folds without any."""
        kept = [number for number, test in enumerate(tests) if test.size]
        self.splits = tuple((self.splits[number][0], tests[number]) for number in kept)
        self.inner, self.left_out = tuple(self.inner[number] for number in kept), left_out


@dataclass
class Plan:
    """A pipeline split into families and head.

    Parameters
    ----------
    name, head_name : str
        Names in the results.
    pipeline : IDCPipeline or classifier
    families : tuple of PatchFeatures
        Empty for a network on pixels, and for a classifier that was given without families.
    head : FeatureHead or PixelHead
    reason : str or None
        Why it cannot run, if so.
    retrain : bool or "inner"
        As of `Run`.
    """

    name: str
    head_name: str
    pipeline: Any
    families: tuple[Any, ...] = ()
    head: Any = None
    reason: str | None = None
    retrain: bool | str = False

    def build(self, dataset: PatchDataset | None = None) -> Self:
        """Build families and head; find the rows of families whose columns are given, in a data set if there is one.

        Raises
        ------
        WeightsError, MissingExtraError
            If a family cannot run here.
        """
        if hasattr(self.pipeline, "make_head"):
            self.families, self.head = self.pipeline.families(), self.pipeline.make_head()
        else:
            if not (hasattr(self.pipeline, "predict_proba") or hasattr(self.pipeline, "decision_function")):
                raise TypeError("expected predict_proba or decision_function, got a classifier with neither.")
            given = OnRows(self.pipeline, dataset)
            self.head = FeatureHead(given, calibrate=not hasattr(given, "predict_proba"))
        check_unique_names([family.get_feature_names_out() for family in self.families])
        for family in self.families if dataset is not None else ():
            getattr(family, "bind", lambda _: None)(dataset)
        return self

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Keep why the plan cannot run: weights or extras are missing, or a part that is not ours fails."""
        try:
            yield
        except ClusterError:
            raise
        except (Exception, SystemExit) as error:
            whole = not hasattr(self.pipeline, "make_head")
            theirs = (whole or self._has_parts_of_others()) and getattr(error, "code", None) != 128 + signal.SIGTERM
            if not (theirs or isinstance(error, CANNOT_RUN)):
                raise
            its = " (its X is an array of paths of images, of embeddings a DataFrame)" if whole else ""
            known = isinstance(error, CANNOT_RUN) and not whole
            self.reason = str(error) if known else f"{type(error).__name__}: {first_line(error)}{its}"

    def _has_parts_of_others(self) -> bool:
        """Whether the head or a family of an `IDCPipeline` is not of a package that we know."""
        features = self.pipeline.features
        parts = [self.pipeline.head, *(features if isinstance(features, list | tuple) else [features])]
        inner = [part.get_params().values() for part in parts if hasattr(part, "get_params")]
        modules = [getattr(part, "__module__", None) or "builtins" for part in (*parts, *chain(*inner))]
        return not {name.partition(".")[0] for name in modules} <= _KNOWN

    @property
    def by_key(self) -> dict[str, Any]:
        """The families by key; two families of the same class and parameters have one key."""
        return {_key_of(family): family for family in self.families}

    @property
    def retrained(self) -> dict[str, Any]:
        """The families to train again in each fold, by their keys."""
        return self.cross_fitted if self.retrain is True else {}

    @property
    def cross_fitted(self) -> dict[str, Any]:
        """The families to train again for each inner fit, by their keys."""
        return {key: family for key, family in self.by_key.items() if self.retrain and can_retrain(family)}

    @property
    def takes_pixels(self) -> bool:
        """Whether the head is a network on the patches themselves."""
        return isinstance(self.head, PixelHead)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the families in column order; "pixels" for a network, "rows" for a classifier without families."""
        return tuple(family.family for family in self.families) or (PIXELS if self.takes_pixels else "rows",)

    @property
    def measuring(self) -> tuple[Any, ...]:
        """What results name, in order: the normaliser, and the families, the network or the given classifier."""
        head = None if self.families else getattr(self.head.classifier, "classifier", self.head.classifier)
        return tuple(part for part in (self.normalizer, *self.families, head) if part is not None)

    @property
    def normalizer(self) -> Any:
        """The unfitted stain normaliser before the families, or None."""
        return self.pipeline.make_normalizer() if hasattr(self.pipeline, "make_normalizer") else None

    def needing_pixels(self) -> list[str]:
        """Names of the parts that measure pixels."""
        parts = (self.normalizer, *self.families, self.head if self.takes_pixels else None)
        return [getattr(part, "family", type(part).__name__) for part in parts if part and not hasattr(part, "given")]

    @property
    def normalizer_key(self) -> str | None:
        """A key that is equal for equal normalisers; None without one."""
        return None if self.normalizer is None else _key_of(self.normalizer)


def _key_of(estimator):
    given = estimator.get_params()
    params = {name: id(value) if isinstance(value, PatchDataset) else value for name, value in given.items()}
    try:
        return joblib.hash((type(estimator).__module__, type(estimator).__qualname__, params))
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda inside: equal to itself alone
        return str(id(estimator))


def can_retrain(family) -> bool:
    """Whether a feature family can be trained again on the training patients of a fold."""
    trains_itself = callable(getattr(family, "retrained", None))
    return hasattr(family, "family") and (trains_itself or getattr(family, "is_trainable", False))


def name_pipelines(
    pipelines: Any, where: str, *, kind: str = "an IDCPipeline", method: str = "make_head"
) -> list[tuple[str, Any]]:
    """Turn what is given as ``pipelines=`` into pairs of name and pipeline; classifiers without one go by their class.

    Parameters
    ----------
    pipelines : estimator, mapping of str to estimator, or sequence of (str, estimator)
    where : str
        What an error message names, such as "evaluate.pipelines".
    kind, method : str
        The expected kind of estimator in words, and a method that it has.

    Raises
    ------
    ValueError
        If an entry is no such estimator.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> name_pipelines(LogisticRegression(), "audit_split.pipelines", method="get_params")
    [('LogisticRegression', LogisticRegression())]
    """

    def is_one(entry):
        return hasattr(entry, method) and not isinstance(entry, type)

    pipelines = [pipelines] if is_one(pipelines) else pipelines
    entries = pipelines.items() if isinstance(pipelines, Mapping) else pipelines
    named = []
    for entry in entries if isinstance(entries, Iterable) and not isinstance(entries, str) else [entries]:
        if is_one(entry):
            entry = ("pipeline" if hasattr(entry, "make_head") else _head_name(entry), entry)
        pair = isinstance(entry, tuple) and len(entry) == 2 and is_one(entry[1])
        check_that(where, entry, pair, f"names with {kind} each", 'Pass {"handcrafted": IDCPipeline()}.')
        named.append((entry[0], entry[1]))
    return named


def make_plans(pipelines, run):
    """Make a plan of every pipeline, and try each family on one patch to find early what cannot run.

    Parameters
    ----------
    pipelines : IDCPipeline or classifier, mapping of str to these, or sequence of these or of (str, these)
    run : Run

    Returns
    -------
    plans : list of Plan

    Raises
    ------
    ValueError
        If an entry is no pipeline, or two have the same name and head.
    """
    plans, tried = {}, {}
    kind = "an IDCPipeline or a classifier"
    for name, pipeline in name_pipelines(pipelines, "evaluate.pipelines", kind=kind, method="predict"):
        head_name = _head_name(pipeline)
        if (name, head_name) in plans:
            raise ValueError(
                f"evaluate.pipelines: expected each name and head once, got {name!r} with {head_name!r} again. "
                "Give the second another name."
            )
        plans[name, head_name] = Plan(name, head_name, pipeline, retrain=run.retrain)
    if not plans:
        raise ValueError("evaluate.pipelines: expected at least one pipeline, got 0. Pass IDCPipeline().")
    for plan in plans.values():
        with plan.tried():
            needing = plan.build(run.dataset).needing_pixels()
            if needing and run.dataset.columns is not None:
                plan.reason = f"Not applicable: {needing[0]} needs pixels, and {run.dataset.name} has columns instead."
            for key, family in plan.by_key.items() if plan.reason is None else ():
                with run.timed("extraction"):
                    tried[key] = tried[key] if key in tried else _try(family, run)
                if tried[key] is not None:
                    raise tried[key]
    return list(plans.values())


def say_not_run(plans, said=()):
    """Warn about pipelines that cannot run, but for those that were named before; refuse to go on without any."""
    lost = {(plan.name, plan.head_name): plan.reason for plan in plans if plan.reason is not None}
    models = {}  # by reason: what several models lack is said once
    for key, reason in lost.items():
        models.setdefault(reason, []).extend([", ".join(key)] if key not in said else [])
    words = [f"{'; '.join(names)}: {reason}" for reason, names in models.items() if names]
    if len(lost) == len(plans):
        raise ValueError(f"evaluate.pipelines: expected one that can run here, got none. {words[0]}")
    for sentence in words:
        warnings.warn(f"not run: {sentence}", stacklevel=3)
    return lost


def _head_name(pipeline):
    """Name of the head of a pipeline, as it was given, or the class of a classifier; of several steps, of the last."""
    head = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else getattr(pipeline, "head", pipeline)
    head = head.classifier if isinstance(head, FeatureHead | PixelHead) else head
    # A network is known by its architecture; CancerNet and a residual network are both a CNNClassifier.
    return head if isinstance(head, str) else getattr(head, "architecture", type(head).__name__)


def _try(family, run):
    """Measure one patch, unless it is in the store, so that no network is loaded without need."""
    first, store = run.dataset.X[:1], run.runtime.store
    try:
        if hasattr(family, "given") or family._fingerprint() is None:
            return None  # its columns are known already
        if store is None or store.to_frame(family, first).isna().all(axis=None):
            extract([family], first)
    except CANNOT_RUN as error:
        return error
    return None


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
        Why it could not be built; empty if it could.
    """

    name: str
    given: tuple[tuple[str, Any], ...] = ()
    built: tuple[tuple[str, Any], ...] = ()
    reason: str = ""


def split_pipelines(pipelines) -> tuple[Parts, ...]:
    """Split pipelines into their parts.

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
    >>> split_pipelines({"plain": LogisticRegression()})[0].built
    (('plain', LogisticRegression()),)
    """
    named = name_pipelines(pipelines, "audit_split.pipelines", kind="an estimator", method="get_params")
    return tuple(_parts_of(str(name), pipeline) for name, pipeline in named)


def _parts_of(name: str, pipeline) -> Parts:
    if not hasattr(pipeline, "make_head"):
        return Parts(name, ((name, pipeline),), ((name, clone(pipeline)),))
    features = pipeline.features if isinstance(pipeline.features, list | tuple) else [pipeline.features]
    given = tuple((f"{name}: {family.family}", family) for family in features if hasattr(family, "family"))
    try:
        built = [(f"{name}: {family.family}", family) for family in pipeline.families()]
        built += [(f"{name}: head", pipeline.make_head()), (f"{name}: normalizer", pipeline.make_normalizer())]
    except CANNOT_RUN as error:
        return Parts(name, given, (), str(error))
    return Parts(name, given, tuple((path, part) for path, part in built if part is not None))
