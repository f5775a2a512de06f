"""Ablation: scores of a pipeline without each of its families and with each alone, and what each set costs in time."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from histofeat.datasets import PatchDataset
from histofeat.evaluation import AuditPolicy, LeftOut
from histofeat.exceptions import check_that, check_type, check_whole
from histofeat.features import Runtime, extract
from histofeat.images import as_images
from histofeat.metrics import pareto_front, patient_weights
from histofeat.models import IDCPipeline
from histofeat.studies._fitted_folds import check_members, measure_folds
from histofeat.studies._study import adjusted, flat_table

_TIMED_PASSES = 3
_WARM_UP = 32


@dataclass(frozen=True, eq=False)
class Ablation:
    """Sets of families on the same folds and the same resamples.

    Parameters
    ----------
    table : DataFrame
        One row a set: all families first, then without each, each alone, and the sets that were given.

        - ``kind``: "all", "without", "alone" or "given"; ``name``: "all", "without color", "color alone", or the
          user's name of a set; ``families``: in column order, with "+" between; ``n_columns``.
        - ``roc_auc``: of the held-out patches; ``low`` and ``high``: its 95 % interval, from
          resampling patients.
        - ``difference``: that ROC-AUC minus that of all families, negative where leaving families out costs something;
          ``difference_low`` and ``difference_high``: its interval, on the same resamples.
        - ``p``, ``p_holm``: see `histofeat.metrics.Bootstrap.p_value`; adjusted for all rows but the first, which
          has NaN.
        - ``predict_us``: microseconds of the processor that the head of the first fold takes for a patch, measured
          after all fits.
    n_patients, n_patches : int
        Held out and scored.
    left_out : LeftOut or None
        The patients that were not tested, since an encoder was trained on them.
    accepted : tuple of str
        Codes of accepted errors.
    registered : str or None
        A sentence on registered test patients among those tested.
    """

    table: pd.DataFrame
    n_patients: int
    n_patches: int
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()
    registered: str | None = None


def ablate_families(
    dataset: PatchDataset,
    pipeline: IDCPipeline,
    cv: Any = None,
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    n_resamples: int = 2000,
    random_state: int = 0,
    audit: AuditPolicy | None = None,
    runtime: Runtime | None = None,
) -> Ablation:
    """Fit a pipeline again without each of its families, and with each alone, on the same folds.

    Parameters
    ----------
    dataset : PatchDataset
    pipeline : IDCPipeline
        With two families or more.
    cv : splitter or iterable of (train, test), optional
        As in `histofeat.evaluate`; by default ``PatientKFold(5)``.
    sets : mapping of str to sequence of str, optional
        More sets of its families, by name.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for no intervals.
    random_state : int, default=0
        Seed of the resamples.
    audit : AuditPolicy, optional
        As in `histofeat.evaluate`; HF001, HF007 and, where patients were left out, HF004 are looked for.
    runtime : Runtime, optional
        Threads, feature store and progress; its stages are "extract" and "fit".

    Returns
    -------
    ablation : Ablation

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder was trained on a tested patient.
    WeightsError, MissingExtraError
        If a family of the pipeline cannot run here.
    ValueError
        If there is a single family, a set names none of the pipeline's families or has the name of another row, or an
        encoder was trained on every tested patient.

    Notes
    -----
    Each set has its own fits, so leaving out a family that others can replace costs little, even if a fitted model
    relies on it; `permutation_importance` measures the latter. The scores are those of
    `histofeat.evaluate` for a pipeline of these families and the same folds, without its inner fits.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipeline = IDCPipeline(("color", "lbp", "pftas"), head="logistic")
    >>> found = ablate_families(cohort, pipeline, PatientKFold(2), n_resamples=50)
    >>> found.table["name"].tolist()[:4]
    ['all', 'without color', 'without lbp', 'without pftas']
    """
    patient_weights(dataset.patients, n_resamples, random_state)
    names = _family_names(pipeline)
    wanted = _make_sets(names, sets or {})
    measured = measure_folds(dataset, pipeline, cv, owner="ablate_families", audit=audit, runtime=runtime)
    by_family = measured.family_columns()
    # Sets of the same families, such as one of two alone and without the other, are fitted once.
    fits = {families: np.concatenate([by_family[name] for name in families]) for _, _, families in wanted}
    heads = dict(zip(fits, measured.fit_heads(list(fits.values())), strict=True))
    drawn = {"n_resamples": n_resamples, "random_state": random_state}
    base, scored = None, {}
    for families, columns in fits.items():
        area, scored[families] = score_columns(measured, heads[families], columns, drawn, base)
        base = base or area  # of all families, which are the first
    named = [{"kind": kind, "name": name, "families": "+".join(its)} | scored[its] for kind, name, its in wanted]
    table = adjusted(flat_table(named))
    folds, counts = measured.folds, (base.n_patients, len(measured.tested))
    return Ablation(table, *counts, folds.left_out, folds.accepted, folds.record(table["name"]))


def _family_names(pipeline):
    families = pipeline.families() if hasattr(pipeline, "families") else ()
    names = tuple(dict.fromkeys(family.family for family in families))
    expected, remedy = "an IDCPipeline of two families or more", "There is nothing to leave out."
    check_that("ablate_families.pipeline", pipeline, len(names) > 1, expected, remedy)
    return names


def _make_sets(names, sets):
    """Give (kind, name, families) of every set, in the order of the table."""
    wanted = [("all", "all", names)]
    wanted += [("without", f"without {left}", tuple(name for name in names if name != left)) for left in names]
    wanted += [("alone", f"{name} alone", (name,)) for name in names]
    expected = "a mapping of names to families"
    check_type("ablate_families.sets", sets, Mapping, expected, 'Give {"color alone": ["color"]}.')
    taken = {name for _, name, _ in wanted}
    for name, families in sets.items():
        families = (families,) if isinstance(families, str) else tuple(families)
        check_members(f"ablate_families.sets[{name!r}]", "families of the pipeline", families, names)
        if name in taken:
            raise ValueError(
                f"ablate_families.sets: expected names of their own, got {name!r}, which is a row already. Rename it."
            )
        wanted.append(("given", str(name), tuple(own for own in names if own in families)))
    return wanted


def score_columns(measured, heads, columns, drawn, base=None):
    """Score heads on one set of columns, and compare them with `base`, the area of another set.

    Returns
    -------
    area : Bootstrap
    row : dict
        Columns of `Ablation.table`; without a base the difference is 0 and has no p-value.
    """
    features = [measured.features(fold, test)[:, columns] for fold, (_, test) in enumerate(measured.splits)]
    proba = [measured.probabilities(head, X) for head, X in zip(heads, features, strict=True)]
    _, area = measured.areas([proba], **drawn)
    change = area.minus(area if base is None else base)
    return area, {
        "n_columns": len(columns),
        "roc_auc": area.estimates["roc_auc"],
        "ci95": area.interval("roc_auc"),
        "difference": change.estimates["roc_auc"],
        "difference_ci95": change.interval("roc_auc"),
        "p": np.nan if base is None else change.p_value("roc_auc"),
        "predict_us": _predict_us(measured, heads[0], features[0]),
    }


def _predict_us(measured, head, features):
    """Give the best of a few passes."""
    seconds = []
    with threadpool_limits(1):
        for _ in range(_TIMED_PASSES):
            started = time.process_time()
            measured.probabilities(head, features)
            seconds.append(time.process_time() - started)
    return min(seconds) / len(features) * 1e6


# --- costs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Costs:
    """Sets of families by their price.

    Parameters
    ----------
    table : DataFrame
        One row a set, the cheapest first; sets of the same families are one.

        - ``name, families, n_columns, roc_auc, low, high``: as in `Ablation`.
        - ``features_us``: microseconds a patch from decoded pixels to the feature row; conversions that families share
          are counted once.
        - ``predict_us``: those of the head; ``total_us``: both.
        - ``on_front``: whether no other set has as high a score for as little time.
    decode_us : float
        Microseconds to read and decode a patch, which come on top of every row.
    n_patches : int
        The patches that were timed.
    """

    table: pd.DataFrame
    decode_us: float
    n_patches: int


def measure_costs(
    ablation: Ablation,
    pipeline: IDCPipeline,
    X: Any,
    *,
    n_repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
    progress: Callable[[str, int, int], None] | None = None,
) -> Costs:
    """Measure the extraction time of each set of an ablation, and mark the sets on the Pareto front.

    Parameters
    ----------
    ablation : Ablation
        From `ablate_families`.
    pipeline : IDCPipeline
        The pipeline of the ablation; its families are measured with one thread each.
    X : sequence of paths, ndarray (n, H, W, 3) uint8, or list of such arrays
        What is measured, some thousand patches; they are held in memory.
    n_repeats : int, default=3
        Passes, of which the fastest counts. Sets take turns, so that a busy moment of the machine affects all of them.
    clock : callable, default=time.process_time
        Gives seconds; by default those of the processor in all threads, which other programs hardly disturb. With a
        network on a GPU pass ``time.perf_counter``.
    progress : callable, optional
        Called as ``progress("time", done, total)``.

    Returns
    -------
    costs : Costs

    Raises
    ------
    ValueError
        If `n_repeats` is below 1, the pipeline has a stain normaliser, which is not timed, or it lacks a family of the
        ablation.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.studies import ablate_families
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipeline = IDCPipeline(("color", "lbp"), head="logistic")
    >>> ablation = ablate_families(cohort, pipeline, PatientKFold(2), n_resamples=50)
    >>> costs = measure_costs(ablation, pipeline, cohort.X, n_repeats=1)
    >>> len(costs.table), bool(costs.table["on_front"][0])
    (3, True)
    """
    check_whole("measure_costs.n_repeats", n_repeats, 1, "Use 3.")
    families = _check_families(ablation, pipeline)
    # Without one of two is the other alone: each set of families stands once.
    table = ablation.table.drop_duplicates("families")
    wanted = table["families"].tolist()
    sets = {chosen: [family for name in chosen.split("+") for family in families[name]] for chosen in wanted}
    costs, decode_us = time_extraction(sets, X, n_repeats=n_repeats, clock=clock, progress=progress)
    features_us = np.array(list(costs.values()))
    columns = ["name", "families", "n_columns", "roc_auc", "low", "high", "features_us", "predict_us", "total_us"]
    table = table.assign(features_us=features_us, total_us=features_us + table["predict_us"])[columns]
    table = table.assign(on_front=pareto_front(table["total_us"], table["roc_auc"]))
    table = table.sort_values("total_us", kind="stable", ignore_index=True)
    return Costs(table, decode_us, len(X))


def time_extraction(sets, X, *, n_repeats=3, clock=time.process_time, progress=None):
    """Measure the microseconds a patch of some sets of families in one thread, and those to read and decode it.

    Parameters are those of `measure_costs`; `sets` is a mapping of names to families.
    """
    best, decoding = {}, []
    turns = [(name, [_with_one_thread(family) for family in families]) for name, families in sets.items()]
    with _one_thread():
        for turn in range(n_repeats):
            started = clock()
            decoded = _decode(X)
            decoding.append(clock() - started)
            for position, (name, families) in enumerate(turns[:: 1 if turn % 2 == 0 else -1]):
                if turn == 0:
                    extract(families, decoded[:_WARM_UP])  # compiled code and networks are loaded
                started = clock()
                extract(families, decoded)
                best[name] = min(best.get(name, np.inf), clock() - started)
                if progress is not None:
                    progress("time", turn * len(turns) + position + 1, n_repeats * len(turns))
    each = 1e6 / len(decoded)
    return {name: seconds * each for name, seconds in best.items()}, min(decoding) * each


def _with_one_thread(family):
    return clone(family).set_params(**{"n_threads": 1} if "n_threads" in family.get_params() else {})


def _check_families(ablation, pipeline):
    """Give the families by name."""
    if getattr(pipeline, "make_normalizer", lambda: None)() is not None:
        raise ValueError(
            "measure_costs.pipeline: expected patches measured as they are, got a pipeline with a stain normaliser, "
            "whose time would be left out. Set normalizer=None."
        )
    found = {}
    for family in pipeline.families():
        found.setdefault(family.family, []).append(family)
    unknown = sorted(set("+".join(ablation.table["families"]).split("+")) - set(found))
    if unknown:
        raise ValueError(
            f"measure_costs.pipeline: expected the families of the ablation, got a pipeline without {unknown[0]!r} "
            f"({len(unknown)} such). Pass the pipeline that was ablated."
        )
    return found


def _decode(X):
    images = as_images(X)
    return [images.decode(row, images.content(row))[0] for row in range(len(images))]


@contextmanager
def _one_thread():
    """Keep OpenCV, BLAS and OpenMP to one thread."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before)
