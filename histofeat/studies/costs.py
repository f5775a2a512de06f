"""Computation time of each set of an ablation (one run, one thread, no store), and the Pareto front."""

import time
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from histofeat.features import extract
from histofeat.images import as_images

__all__ = ["CostRow", "Costs", "measure_costs", "pareto_front"]

_WARM_UP = 32


@dataclass(frozen=True)
class CostRow:
    """A set of families with its score and its price, in microseconds a patch.

    Parameters
    ----------
    name : str
    families : tuple of str
    n_columns : int
    roc_auc : float
    ci95 : tuple of (float, float)
    features_us : float
        From decoded pixels to the feature row; conversions that families share are counted once.
    predict_us : float
        The head.
    on_front : bool
        Whether no other set has as high a score for as little time (`total_us`).
    """

    name: str
    families: tuple[str, ...]
    n_columns: int
    roc_auc: float
    ci95: tuple[float, float]
    features_us: float
    predict_us: float
    on_front: bool

    @property
    def total_us(self) -> float:
        """Microseconds from decoded pixels to the probability."""
        return self.features_us + self.predict_us


@dataclass(frozen=True)
class Costs:
    """Sets of families by their price.

    Parameters
    ----------
    rows : tuple of CostRow
        The cheapest first.
    decode_us : float
        Microseconds to read and decode a patch, which come on top of every row.
    n_patches : int
        The patches that were timed.
    """

    rows: tuple[CostRow, ...]
    decode_us: float
    n_patches: int

    def to_frame(self) -> pd.DataFrame:
        """One row a set; the interval in columns ``low`` and ``high``."""
        return pd.DataFrame(
            {
                "name": row.name,
                "families": "+".join(row.families),
                "n_columns": row.n_columns,
                "roc_auc": row.roc_auc,
                "low": row.ci95[0],
                "high": row.ci95[1],
                "features_us": row.features_us,
                "predict_us": row.predict_us,
                "total_us": row.total_us,
                "on_front": row.on_front,
            }
            for row in self.rows
        )


def measure_costs(ablation, pipeline, X, *, n_repeats=3, clock=time.process_time, progress=None):
    """Measure the extraction time of each set of an ablation, and mark the sets on the Pareto front.

    Parameters
    ----------
    ablation : Ablation
        From `ablate_families`.
    pipeline : IDCPipeline
        The one that was ablated; its families are measured with one thread each.
    X : sequence of paths, ndarray (n, H, W, 3) uint8, or list of such arrays
        What is measured, some thousand patches; they are held in memory.
    n_repeats : int, default=3
        Passes, of which the fastest counts. Sets take turns, so that a busy moment of the machine meets all of them.
    clock : callable, default=time.process_time
        Gives seconds. By default those of the processor, in all threads, which other programs hardly disturb and which
        are those on the wall where one thread works alone; with a network on a GPU pass ``time.perf_counter``.
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
    >>> len(costs.rows), costs.rows[0].on_front
    (3, True)
    """
    if n_repeats < 1:
        raise ValueError(f"measure_costs.n_repeats: expected at least 1 pass, got {n_repeats}. Use 3.")
    families = _check_families(ablation, pipeline)
    # Without one of two is the other alone: each set of families stands once.
    wanted = {row.families: row for row in reversed(ablation.rows)}
    best, decoding = {}, []
    with _one_thread():
        for turn in range(n_repeats):
            started = clock()
            decoded = _decode(X)
            decoding.append(clock() - started)
            for position, chosen in enumerate(list(wanted)[:: 1 if turn % 2 == 0 else -1]):
                estimators = [family for name in chosen for family in families[name]]
                if turn == 0:
                    extract(estimators, decoded[:_WARM_UP])  # compiled code and networks are loaded
                started = clock()
                extract(estimators, decoded)
                best[chosen] = min(best.get(chosen, np.inf), clock() - started)
                if progress is not None:
                    progress("time", turn * len(wanted) + position + 1, n_repeats * len(wanted))
    per_patch = {chosen: seconds * 1e6 / len(decoded) for chosen, seconds in best.items()}
    return Costs(_rows(wanted, per_patch), min(decoding) * 1e6 / len(decoded), len(decoded))


def _rows(wanted, features_us):
    totals = [features_us[chosen] + row.predict_us for chosen, row in wanted.items()]
    front = pareto_front(totals, [row.roc_auc for row in wanted.values()])
    rows = [
        CostRow(
            name=row.name,
            families=chosen,
            n_columns=row.n_columns,
            roc_auc=row.roc_auc,
            ci95=row.ci95,
            features_us=features_us[chosen],
            predict_us=row.predict_us,
            on_front=bool(on_front),
        )
        for (chosen, row), on_front in zip(wanted.items(), front, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: row.total_us))


def pareto_front(costs, scores):
    """Mark what nothing else beats: none is as cheap and as good, and better in one of the two.

    Parameters
    ----------
    costs, scores : array-like of shape (n,), float
        The lower and the higher the better.

    Returns
    -------
    on_front : ndarray of shape (n,), bool
        Of equals in both, all are marked; a NaN is never.

    Examples
    --------
    >>> pareto_front([1, 2, 3, 4], [0.7, 0.9, 0.8, 0.95]).tolist()
    [True, True, False, True]
    """
    costs, scores = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    as_good = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    better = (costs[:, None] < costs) | (scores[:, None] > scores)
    return ~(as_good & better).any(axis=0) & np.isfinite(costs) & np.isfinite(scores)


def _check_families(ablation, pipeline):
    """Give the families by name, copied, a network with one thread of its own."""
    if getattr(pipeline, "make_normalizer", lambda: None)() is not None:
        raise ValueError(
            "measure_costs.pipeline: expected patches measured as they are, got a pipeline with a stain normaliser, "
            "whose time would be left out. Set normalizer=None."
        )
    found = {}
    for family in map(clone, pipeline.families()):
        if "n_threads" in family.get_params():
            family.set_params(n_threads=1)
        found.setdefault(family.family, []).append(family)
    unknown = sorted({name for row in ablation.rows for name in row.families} - set(found))
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
