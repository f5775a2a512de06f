"""Pipelines taken apart: which families, which head, and, learnt from a single patch, why one cannot run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import joblib

from histofeat.evaluation.audit.known_patients import can_retrain
from histofeat.exceptions import MissingExtraError, WeightsError
from histofeat.features import check_unique_names, extract
from histofeat.models import PIXELS, FeatureHead, PixelHead

__all__ = ["CANNOT_RUN", "Plan", "family_key", "make_plans"]

#: What makes a model "not run" with its reason, and not the end of the evaluation.
CANNOT_RUN = (WeightsError, MissingExtraError)


@dataclass
class Plan:
    """A pipeline taken apart.

    Parameters
    ----------
    name, head_name : str
        What the results call it.
    pipeline : IDCPipeline
        Where it came from.
    families : tuple of PatchFeatures
    head : FeatureHead
    reason : str or None
        Why it cannot run, if so.
    retrain : bool
        Whether families that can be trained anew are, inside each fold.
    """

    name: str
    head_name: str
    pipeline: Any
    families: tuple = ()
    head: Any = None
    reason: str | None = None
    retrain: bool = False

    @property
    def keys(self):
        """One key per family, the same for families that give the same numbers."""
        return [family_key(family) for family in self.families]

    @property
    def retrained(self):
        """The families that are trained anew inside each fold, by their keys."""
        families = zip(self.keys, self.families, strict=True)
        return {key: family for key, family in families if self.retrain and can_retrain(family)}

    @property
    def takes_pixels(self):
        """Whether the head gets the patches themselves."""
        return isinstance(self.head, PixelHead)

    @property
    def feature_names(self):
        """Names of the families in column order; "pixels" where the head gets the patches themselves."""
        return (PIXELS,) if self.takes_pixels else tuple(family.family for family in self.families)

    @property
    def measuring(self):
        """Everything that looks at pixels, in order: the normaliser, the families, the head that takes images."""
        head = self.head.classifier if self.takes_pixels else None
        return tuple(part for part in (self.normalizer, *self.families, head) if part is not None)

    @property
    def normalizer(self):
        """The unfitted stain normaliser that stands before the families, or None."""
        return self.pipeline.make_normalizer()


def family_key(family):
    """Identify families of the same class and parameters, which give the same numbers."""
    return joblib.hash((type(family).__module__, type(family).__qualname__, family.get_params()))


def make_plans(pipelines, run):
    """Take every pipeline apart, and try each family on one patch to learn early what cannot run.

    Parameters
    ----------
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
    run : object
        The evaluation under way, with ``dataset``, ``runtime``, ``computed``, ``timed`` and ``retrain``.

    Returns
    -------
    plans : list of Plan

    Raises
    ------
    ValueError
        If an entry is no pipeline, or two have the same name and head.
    """
    plans, tried = [], {}
    for name, head_name, pipeline in _named(pipelines):
        plan = Plan(name, head_name, pipeline, retrain=run.retrain)
        plans.append(plan)
        try:
            plan.families, plan.head = pipeline.families(), pipeline.make_head()
            for key, family in zip(plan.keys, plan.families, strict=True):
                with run.timed("extraction"):
                    tried[key] = tried[key] if key in tried else _try(family, run)
                if tried[key] is not None:
                    raise tried[key]
            check_unique_names([family.get_feature_names_out() for family in plan.families])
        except CANNOT_RUN as error:
            plan.reason = str(error)
    return plans


def _named(pipelines):
    """Give (name, head, pipeline) for every entry, no two with the same name and head."""
    if hasattr(pipelines, "make_head"):
        pipelines = {"pipeline": pipelines}
    entries = pipelines.items() if isinstance(pipelines, Mapping) else pipelines
    named = {}
    for entry in entries if isinstance(entries, Iterable) else [entries]:
        if not isinstance(entry, tuple) or len(entry) != 2 or not hasattr(entry[1], "make_head"):
            raise ValueError(
                f"evaluate.pipelines: expected names with an IDCPipeline each, got {entry!r:.80}. "
                'Pass {"handcrafted": IDCPipeline()}.'
            )
        key = (entry[0], _head_name(entry[1].head))
        if key in named:
            raise ValueError(
                f"evaluate.pipelines: expected each name and head once, got {key[0]!r} with {key[1]!r} again. "
                "Give the second another name."
            )
        named[key] = entry[1]
    if not named:
        raise ValueError("evaluate.pipelines: expected at least one pipeline, got 0. Pass IDCPipeline().")
    return [(*key, pipeline) for key, pipeline in named.items()]


def _head_name(head):
    head = head.classifier if isinstance(head, FeatureHead | PixelHead) else head
    # A network is known by its architecture; CancerNet and a residual network are both a CNNClassifier.
    return head if isinstance(head, str) else getattr(head, "architecture", type(head).__name__)


def _try(family, run):
    """Measure one patch, or find it in the store, which spares loading a network that will not be needed."""
    try:
        tried = extract([family], run.dataset.X[:1], store=run.runtime.store)
        if run.runtime.store is not None:  # without one the patch is measured again with the others, and counted then
            run.computed.update(tried.computed)
    except CANNOT_RUN as error:
        return error
    return None
