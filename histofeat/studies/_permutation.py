"""Permutation importance on held-out patients: columns, groups of columns and whole families."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from histofeat.datasets import PatchDataset
from histofeat.evaluation import AuditPolicy, LeftOut, run_in_threads
from histofeat.exceptions import check_name, check_real, check_shape, check_whole
from histofeat.features import CHANNELS, Runtime
from histofeat.metrics import patient_weights
from histofeat.models import IDCPipeline
from histofeat.studies._fitted_folds import check_members, measure_folds
from histofeat.studies._study import flat_table

# "h" and "e" are hematoxylin and eosin in the names of Haralick's columns.
_CHANNEL = f"(?:{'|'.join((*CHANNELS, 'gray', 'h', 'e'))})"
#: Rows that correlations are taken from, at most.
_MOST_ROWS = 20_000

KINDS = ("family", "group", "correlated", "feature")


@dataclass(frozen=True, eq=False)
class Importance:
    """The parts of a pipeline's features, with the loss of ROC-AUC when they are permuted.

    Parameters
    ----------
    parts : DataFrame
        One row a part, kind by kind as asked for, within a kind the largest drop first:

        - ``by``: "family", "group", "correlated", "feature" or "given"; ``name``; ``columns``: the names that were
          permuted together, a tuple; ``n_columns``.
        - ``drop``: ROC-AUC of the model minus that with these columns permuted, mean over the repeats; ``low``
          and ``high``: its 95 % interval, from resampling patients.
        - ``repeats_sd``: sample standard deviation of the drop over the permutations, NaN with a single one;
          ``repeats``: the drop with each, a tuple.
    roc_auc : float
        Of the held-out patches, nothing permuted.
    ci95 : tuple of (float, float)
        95 % interval of `roc_auc`, on the same resamples as those of the drops.
    n_patients, n_patches : int
        Held out and scored.
    left_out : LeftOut or None
        The patients that were not tested, since an encoder was trained on them.
    accepted : tuple of str
        Codes of accepted errors.
    registered : str or None
        A sentence on registered test patients among those tested.
    within_patients : bool
        Whether values were exchanged among the patches of a patient only.
    """

    parts: pd.DataFrame
    roc_auc: float
    ci95: tuple[float, float]
    n_patients: int
    n_patches: int
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()
    registered: str | None = None
    within_patients: bool = False

    def to_frame(self) -> pd.DataFrame:
        """The parts with one value a cell: without the names of the columns, and without each repeat."""
        return self.parts.drop(columns=["columns", "repeats"])


def permutation_importance(
    dataset: PatchDataset,
    pipeline: IDCPipeline,
    cv: Any = None,
    *,
    by: str | Sequence[str] | Mapping[str, Sequence[str]] = "family",
    n_repeats: int = 5,
    n_resamples: int = 2000,
    correlation: float = 0.9,
    within_patients: bool = False,
    random_state: int = 0,
    audit: AuditPolicy | None = None,
    runtime: Runtime | None = None,
) -> Importance:
    """Measure how much a model relies on each part of its features, on held-out patients.

    The head is fitted on the training patients of each fold, once. Then the values of a part are exchanged at random
    among the held-out patches of the fold, all columns of the part together, and the same head scores them again.

    Parameters
    ----------
    dataset : PatchDataset
    pipeline : IDCPipeline
    cv : splitter or iterable of (train, test), optional
        As in `histofeat.evaluate`; by default ``PatientKFold(5)``.
    by : str, sequence of str, or mapping of str to sequence of str, default="family"
        What is permuted together. "family": all columns of a family. "group": those of one channel (of LBP, of one
        channel and radius), see `column_groups`. "correlated": columns of which every two are correlated, whatever
        their family, see `correlated_groups`. "feature": each column by itself. A mapping gives your own groups of
        column names. Several kinds share the fits.
    n_repeats : int, default=5
        Permutations of each part. Every part gets the same ones.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for no intervals.
    correlation : float, default=0.9
        The level of "correlated".
    within_patients : bool, default=False
        Whether values are exchanged among the held-out patches of a patient only. They then stay values of this
        patient's stain and scanner, and the drop leaves out what tells patients from each other.
    random_state : int, default=0
        Seed of the permutations and of the resamples.
    audit : AuditPolicy, optional
        As in `histofeat.evaluate`; HF001, HF007 and, where patients were left out, HF004 are looked for.
    runtime : Runtime, optional
        Threads, feature store and progress; its stages are "extract", "fit" and "permute" (parts).

    Returns
    -------
    importance : Importance

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder was trained on a tested patient.
    WeightsError, MissingExtraError
        If a family of the pipeline cannot run here.
    ValueError
        If an argument is invalid, or an encoder was trained on every tested patient.

    Notes
    -----
    Columns that carry the same thing hide each other: permuted alone, each costs nothing, because the head reads it
    from the others. A small drop of a column or a group therefore does not say that its information is not used; a
    small drop of a family does not say that the family is worth nothing by itself, for which see `ablate_families`.
    A drop is of this fitted model: its interval covers other patients, not another fit. Repeats vary the permutation
    only (Breiman 2001, doi:10.1023/A:1010933404324; Molnar et al. 2022, doi:10.1007/978-3-031-04083-2_4).

    It extrapolates: permuted patches have combinations of values that no patch has, and the head is asked where it saw
    no data. The drop of a part that others are correlated with says how the head behaves there as well (Hooker, Mentch
    and Zhou 2021, doi:10.1007/s11222-021-10057-z). `within_patients` keeps what is common to the patches of a patient,
    and so breaks fewer of these correlations, not all; patients with one patch keep their values. `ablate_families`
    fits again and does not extrapolate.

    The head scores every held-out patch once per part and repeat, but for parts that are constant in a fold, which
    are not scored again. That is all it costs: at 5 microseconds a prediction, 312 columns with 5 repeats on 10,000
    patches are 78 s of one thread, 1,592 columns seven minutes. Permute an embedding by family.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipeline = IDCPipeline(("color", "lbp"), head="logistic")
    >>> found = permutation_importance(cohort, pipeline, PatientKFold(2), n_resamples=50)
    >>> sorted(found.parts["name"])
    ['color', 'lbp']
    """
    kinds = _check_kinds(by)
    check_whole("permutation_importance.n_repeats", n_repeats, 1, "Use 5.")
    patient_weights(dataset.patients, n_resamples, random_state)  # refuses what it cannot use before the long work
    runtime = Runtime.of(runtime)
    measured = measure_folds(dataset, pipeline, cv, owner="permutation_importance", audit=audit, runtime=runtime)
    parts = _make_parts(kinds, measured, correlation)
    ((*heads,),) = measured.fit_heads([np.arange(len(measured.names))])
    permuted = _Permuted(measured, heads, int(n_repeats), n_resamples, random_state, within_patients)
    found = run_in_threads(permuted.score, parts, runtime, "permute")
    order = {kind: position for position, kind in enumerate(dict.fromkeys(part["by"] for part in found))}
    found.sort(key=lambda part: (order[part["by"]], -part["drop"], part["name"]))
    return Importance(
        parts=flat_table(found),
        roc_auc=permuted.area.estimates["roc_auc"],
        ci95=permuted.area.interval("roc_auc"),
        n_patients=permuted.area.n_patients,
        n_patches=len(measured.tested),
        left_out=measured.folds.left_out,
        accepted=measured.folds.accepted,
        registered=measured.folds.record(["permutation importance"]),
        within_patients=bool(within_patients),
    )


def _check_kinds(by):
    if isinstance(by, Mapping):
        return by
    kinds = (by,) if isinstance(by, str) else tuple(dict.fromkeys(by))
    for kind in kinds or [by]:
        check_name("permutation_importance.by", kind, KINDS, f"some of {KINDS} or a mapping of names to columns")
    return kinds


def _make_parts(kinds, measured, correlation):
    """Give (kind, name, column numbers) of everything that is to be permuted."""
    names, number = measured.names, {name: position for position, name in enumerate(measured.names)}
    if isinstance(kinds, Mapping):
        return [("given", str(name), _numbers(name, columns, number)) for name, columns in kinds.items()]
    parts = []
    for kind in kinds:
        if kind == "family":
            parts += [(kind, *item) for item in measured.family_columns().items()]
            continue
        if kind == "feature":
            groups = {name: (name,) for name in names}
        elif kind == "group":
            groups = column_groups(measured.plan.families)
        else:
            groups = correlated_groups(measured.features(0, measured.tested), names, level=correlation)
        parts += [(kind, name, np.array([number[c] for c in columns])) for name, columns in groups.items()]
    return parts


def _numbers(name, columns, number):
    columns = [columns] if isinstance(columns, str) else list(columns)
    check_members(f"permutation_importance.by[{name!r}]", "names of columns of the pipeline", columns, number)
    return np.array(sorted({number[column] for column in columns}))


class _Permuted:
    """Fitted heads, the patches that they were not fitted on, and the permutations that every part gets."""

    def __init__(self, measured, heads, n_repeats, n_resamples, random_state, within_patients):
        self.measured, self.heads, self.n_repeats = measured, heads, n_repeats
        self.tests = [test for _, test in measured.splits]
        self.features = [measured.features(fold, test) for fold, test in enumerate(self.tests)]
        units = measured.patients if within_patients else np.zeros(len(measured.patients))
        self.orders = [
            [random_order(units[test], np.random.default_rng([random_state, fold, n])) for n in range(n_repeats)]
            for fold, test in enumerate(self.tests)
        ]
        self.proba = [measured.probabilities(head, X) for head, X in zip(heads, self.features, strict=True)]
        self.resampling = {"n_resamples": n_resamples, "random_state": random_state}
        _, self.area = measured.areas([self.proba], **self.resampling)

    def score(self, part):
        """Permute one part `n_repeats` times and measure the loss."""
        by, name, columns = part
        by_fold = [self._scored(fold, columns) for fold in range(len(self.tests))]
        areas, mean = self.measured.areas(zip(*by_fold, strict=True), **self.resampling)
        repeats = self.area.estimates["roc_auc"] - areas
        return {
            "by": by,
            "name": name,
            "columns": tuple(self.measured.names[column] for column in columns),
            "n_columns": len(columns),
            "drop": float(repeats.mean()),
            "ci95": self.area.minus(mean).interval("roc_auc"),
            "repeats_sd": float(np.std(repeats, ddof=1)) if len(repeats) > 1 else np.nan,
            "repeats": tuple(repeats.tolist()),
        }

    def _scored(self, fold, columns):
        """Class probabilities of one fold with each of its permutations."""
        own = self.features[fold][:, columns]
        if (own == own[0]).all():
            return [self.proba[fold]] * self.n_repeats
        X, found = self.features[fold].copy(), []
        for order in self.orders[fold]:
            X[:, columns] = own[order]
            found.append(self.measured.probabilities(self.heads[fold], X))
        return found


def random_order(units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute rows at random, each within its unit.

    Parameters
    ----------
    units : ndarray of shape (n,)
        Such as patients.
    rng : Generator

    Returns
    -------
    order : ndarray of shape (n,), int64

    Examples
    --------
    >>> units = np.array(["a", "b", "a", "b"])
    >>> units[random_order(units, np.random.default_rng(0))].tolist()
    ['a', 'b', 'a', 'b']
    """
    order = np.empty(len(units), dtype=np.int64)
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        order[rows] = rng.permutation(rows)
    return order


def column_groups(families):
    """Group columns by what was measured on what: the family, the channel and, of LBP, the radius.

    Parameters
    ----------
    families : sequence of PatchFeatures

    Returns
    -------
    groups : dict of str to tuple of str
        Column names by group, in column order. Columns that name no channel are one group with the family's name.

    Examples
    --------
    >>> from histofeat import HaralickTexture, LBPHistogram
    >>> groups = column_groups([LBPHistogram(radii_px=(1, 2)), HaralickTexture(channels=("eosin",))])
    >>> {name: len(columns) for name, columns in groups.items()}
    {'lbp_gray_r1': 10, 'lbp_gray_r2': 18, 'haralick_e': 26}
    """
    groups = defaultdict(list)
    for family in families:
        pattern = re.compile(rf"{re.escape(family.family)}_{_CHANNEL}(?:_r\d+)?(?=_)")
        for name in family.get_feature_names_out():
            found = pattern.match(name)
            groups[found.group() if found else family.family].append(name)
    return {name: tuple(columns) for name, columns in groups.items()}


def correlated_groups(features: np.ndarray, names: Sequence[str], *, level: float = 0.9) -> dict[str, tuple[str, ...]]:
    """Group columns so that every two of a group are strongly correlated.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        At most 20,000 rows are used, evenly spaced.
    names : sequence of str
        Column names, length d.
    level : float in (0, 1), default=0.9
        The least absolute rank correlation (Spearman) of two columns of a group.

    Returns
    -------
    groups : dict of str to tuple of str
        Column names by group, which is called after its first column. A constant column is a group of its own.

    Raises
    ------
    ValueError
        If `level` is out of range, or the names do not fit the columns.

    Notes
    -----
    Complete linkage: a group as a whole is as close as its two most distant columns. Labels play no part, so that
    groups from all rows do not make a score look better.

    Examples
    --------
    >>> features = np.array([[1.0, 10.0, 5.0], [2.0, 20.0, 1.0], [3.0, 35.0, 4.0], [4.0, 40.0, 2.0]])
    >>> correlated_groups(features, ["a", "b", "c"])
    {'a and 1 more': ('a', 'b'), 'c': ('c',)}
    """
    check_real("correlated_groups.level", level, "between 0 and 1", lambda value: 0 < value < 1, "Use 0.9.")
    features = np.asarray(features)
    check_shape("correlated_groups.features", features, ("n", len(names)), "Pass a name for each column.")
    if len(names) < 2:
        return {name: (name,) for name in names}
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), _MOST_ROWS)).round().astype(int))
    with np.errstate(invalid="ignore"):  # a constant column is correlated with none
        correlations = np.nan_to_num(np.corrcoef(rankdata(features[rows], axis=0), rowvar=False))
    tree = linkage(squareform(1 - np.abs(correlations), checks=False), method="complete")
    members = defaultdict(list)
    # The last digits of a product must not part two columns that hold the same numbers.
    for name, label in zip(names, fcluster(tree, 1 - level + 1e-9, criterion="distance"), strict=True):
        members[label].append(name)
    return {_title(columns): tuple(columns) for columns in members.values()}


def _title(columns):
    return columns[0] if len(columns) == 1 else f"{columns[0]} and {len(columns) - 1} more"
