"""The register of feature families: one record each; a family's module is imported when its name is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from histofeat.datasets import PatchDataset, printable
from histofeat.exceptions import check_name
from histofeat.features._base import PatchFeatures, PatchUnion
from histofeat.features._columns import as_family
from histofeat.features._extraction import Runtime, extract
from histofeat.features._image_fingerprint import leave_out_unreadable
from histofeat.images import StainNormalizer, make_normalizer, normalized_images


@dataclass(frozen=True)
class FamilyRecord:
    """A feature family by name.

    Attributes
    ----------
    module : str
        Its module in `histofeat.features`.
    class_name : str
        Its class there.
    words : str
        What it measures, for tables and help texts.
    n_columns : int
        Columns with default parameters.
    """

    module: str
    class_name: str
    words: str
    n_columns: int


FAMILIES: Mapping[str, FamilyRecord] = MappingProxyType(
    {
        "color": FamilyRecord("color", "ColorHistogram", "histograms and moments of RGB, HSV and stain channels", 180),
        "lbp": FamilyRecord("lbp", "LBPHistogram", "uniform local binary patterns at three radii", 54),
        "haralick": FamilyRecord("haralick", "HaralickTexture", "Haralick's thirteen co-occurrence statistics", 78),
        "pftas": FamilyRecord("pftas", "PFTAS", "threshold adjacency statistics", 162),
        "fuzzy_color": FamilyRecord("fuzzy_color", "FuzzyColorHistogram", "fuzzy histogram of 64 colours", 64),
        "joint_color": FamilyRecord("color", "JointColorHistogram", "joint histogram of red, green and blue", 512),
        "gray": FamilyRecord("color", "GrayHistogram", "histogram of grey levels", 256),
        "glcm": FamilyRecord("haralick", "GLCM", "scikit-image's ten co-occurrence properties", 120),
        "clbp": FamilyRecord("completed_lbp", "CompletedLBP", "completed local binary patterns at three radii", 162),
        "lpq": FamilyRecord("phase_quantization", "LocalPhaseQuantization", "local phase codes, robust to blur", 256),
        "cnn": FamilyRecord("embedding", "CNNEmbedding", "embedding of a pretrained network", 1280),
        "histo": FamilyRecord("embedding", "HistoEmbedding", "embedding of the encoder that comes with histofeat", 128),
    }
)
"""Name of each family and its record. A new family is a module, a record here, and a test."""


def make_family(name: str, **params: Any) -> PatchFeatures:
    """Build a feature family by name.

    Parameters
    ----------
    name : str
        One of `FAMILIES`.
    **params
        Its parameters.

    Returns
    -------
    family : PatchFeatures
        An unfitted estimator.

    Raises
    ------
    ValueError
        If the family, or one of its parameters, is unknown; the message gives the nearest name.

    Examples
    --------
    >>> make_family("lbp", radii_px=(1, 2))
    LBPHistogram(radii_px=(1, 2))
    """
    check_name("features", name, FAMILIES, "the name of a feature family")
    record = FAMILIES[name]
    family = getattr(import_module(f"histofeat.features._{record.module}"), record.class_name)
    for param in params:
        where, known = f"features__{name}__{param}", family._get_param_names()
        check_name(where, param, known, f"a parameter of {family.__name__}")
    return family(**params)


def extract_features(
    dataset: PatchDataset,
    features: str | PatchFeatures | Sequence[str | PatchFeatures] = ("color", "lbp", "haralick"),
    *,
    normalizer: str | StainNormalizer | None = None,
    runtime: Runtime | None = None,
) -> pd.DataFrame:
    """Measure the patches of a data set, as a table for other programs.

    Parameters
    ----------
    dataset : PatchDataset
        The patches.
    features : str, estimator, or sequence of these
        Families: names of `FAMILIES`, estimators such as ``LBPHistogram(radii_px=(1, 2))``, transformers of images, or
        a data set of columns.
    normalizer : {"reinhard", "macenko"}, estimator or None
        Stain normaliser before all families. It is fitted on all patches: for an evaluation give it to the pipeline,
        which fits it on training patients.
    runtime : Runtime, optional
        Threads, feature store, progress ("extract") and what is done about images that cannot be read.

    Returns
    -------
    frame : DataFrame
        A row for each patch in the order of the data set: "path", "patient", "label" (the name of the class), "x" and
        "y" (where known), and the named features, float32. ``frame.attrs`` has "conversions", how many images were
        converted in which way, and "failures", pairs of the path and the reason of images that were left out.

    Raises
    ------
    ValueError
        If a name is unknown, or two families have columns of the same name.
    WeightsError
        If the weights of a network are not found: like names, before an image is read.
    PatchError
        If an image cannot be read; with ``Runtime(on_error="skip")`` it is left out.

    Warns
    -----
    UserWarning
        With the share of images that were left out.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> frame = extract_features(make_cohort(n_patients=2, patches_per_patient=4), ["gray"])
    >>> frame.shape, frame.columns[:6].tolist()
    ((8, 261), ['path', 'patient', 'label', 'x', 'y', 'gray_hist_000'])
    """
    named = [features] if isinstance(features, str) or not isinstance(features, Sequence) else features
    families = [make_family(entry) if isinstance(entry, str) else as_family(entry) for entry in named]
    columns = PatchUnion(families).get_feature_names_out()
    normalizer = make_normalizer(normalizer) if isinstance(normalizer, str) else normalizer and clone(normalizer)
    # A network without weights, or without its package, is refused before the data are read.
    extract([family for family in families if not family._threaded], np.zeros((1, 50, 50, 3), dtype=np.uint8))
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    images = dataset.X
    if normalizer is not None:
        fitted = normalizer.fit(images, groups=dataset.patients)
        images = normalized_images(images, fitted, groups=dataset.patients)
    progress = partial(runtime.report, "extract")
    found = extract(families, images, n_jobs=runtime.n_jobs, store=runtime.store, progress=progress)
    known = dataset.frame[["path", "patient", "label", "x", "y"]].dropna(axis="columns", how="all")
    names = pd.Series([printable(name) for name in dataset.target_names])
    known = known.assign(label=known["label"].map(names), **known[["path", "patient"]].map(printable))
    frame = pd.concat([known, pd.DataFrame(np.hstack(found.features), columns=columns)], axis="columns")
    failures = [[printable(text) for text in pair] for pair in dataset.audit.failures]
    frame.attrs = {"conversions": dict(found.conversions), "failures": failures}
    return frame
