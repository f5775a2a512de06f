"""Ablation: scores of a pipeline without each of its families, and with each family alone."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from histofeat.evaluation import LeftOut
from histofeat.exceptions import known_names
from histofeat.metrics import bootstrap_p, holm, patient_weights
from histofeat.studies.fitted_folds import measure_folds

__all__ = ["Ablation", "AblationRow", "ablate_families"]

_TIMED_PASSES = 3


@dataclass(frozen=True)
class AblationRow:
    """One set of families, fitted and scored like all others.

    Parameters
    ----------
    kind : {"all", "without", "alone", "given"}
    name : str
        "all", "without color", "color alone", or the user's name of a set.
    families : tuple of str
        In column order.
    n_columns : int
    roc_auc : float
        Pooled over the held-out patches.
    ci95 : tuple of (float, float)
        95 % percentile interval, from resampling patients.
    difference : float
        `roc_auc` minus that of all families: negative where leaving families out costs something.
    difference_ci95 : tuple of (float, float)
        The same for the difference, on the same resamples; (0, 0) for all families themselves.
    p, p_holm : float
        See `histofeat.metrics.bootstrap_p`; adjusted for all rows but the first. NaN for all families themselves.
    predict_us : float
        Microseconds of the processor that the head of the first fold takes for a patch, measured after all fits.
    """

    kind: str
    name: str
    families: tuple[str, ...]
    n_columns: int
    roc_auc: float
    ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]
    p: float
    p_holm: float
    predict_us: float = field(default=np.nan, compare=False)


@dataclass(frozen=True)
class Ablation:
    """Sets of families on the same folds and the same resamples.

    Parameters
    ----------
    rows : tuple of AblationRow
        All families first, then without each, each alone, and the sets that were given.
    n_patients, n_patches : int
        Held out and scored.
    n_resamples, random_state : int
    left_out : LeftOut or None
        The patients that were not tested, since an encoder was trained on them.
    accepted : tuple of str
        Codes of accepted errors.
    """

    rows: tuple[AblationRow, ...]
    n_patients: int
    n_patches: int
    n_resamples: int
    random_state: int
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()

    def row(self, name) -> AblationRow:
        """Return the row of this name."""
        return {row.name: row for row in self.rows}[name]

    def to_frame(self) -> pd.DataFrame:
        """One row a set; intervals in columns ``low``, ``high``, ``difference_low`` and ``difference_high``."""
        return pd.DataFrame(
            {
                "kind": row.kind,
                "name": row.name,
                "families": "+".join(row.families),
                "n_columns": row.n_columns,
                "roc_auc": row.roc_auc,
                "low": row.ci95[0],
                "high": row.ci95[1],
                "difference": row.difference,
                "difference_low": row.difference_ci95[0],
                "difference_high": row.difference_ci95[1],
                "p": row.p,
                "p_holm": row.p_holm,
                "predict_us": row.predict_us,
            }
            for row in self.rows
        )


def ablate_families(
    dataset,
    pipeline,
    cv=None,
    *,
    sets=None,
    n_resamples=2000,
    random_state=0,
    audit=None,
    runtime=None,
):
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
    >>> [row.name for row in found.rows][:4]
    ['all', 'without color', 'without lbp', 'without pftas']
    """
    patient_weights(dataset.patients, n_resamples, random_state)
    names = tuple(dict.fromkeys(family.family for family in _families(pipeline)))
    wanted = _make_sets(names, sets or {})
    measured = measure_folds(dataset, pipeline, cv, owner="ablate_families", audit=audit, runtime=runtime)
    by_family = measured.family_columns()
    # Sets of the same families, such as one of two alone and without the other, are fitted once.
    fits = {families: np.concatenate([by_family[name] for name in families]) for _, _, families in wanted}
    heads = dict(zip(fits, measured.fit_heads(list(fits.values())), strict=True))
    areas = measured.areas(n_resamples, random_state)
    scored = {families: _score(measured, heads[families], columns, areas) for families, columns in fits.items()}
    rows = [_row(kind, name, families, len(fits[families]), scored, areas) for kind, name, families in wanted]
    counts = (areas.n_patients, len(measured.tested), int(n_resamples), random_state)
    return Ablation(_adjusted(rows), *counts, measured.folds.left_out, measured.folds.accepted)


def _families(pipeline):
    families = pipeline.families() if hasattr(pipeline, "families") else ()
    if len({family.family for family in families}) < 2:
        raise ValueError(
            f"ablate_families.pipeline: expected an IDCPipeline of two families or more, got {pipeline!r:.80}. "
            "There is nothing to leave out."
        )
    return families


def _make_sets(names, sets):
    """Give (kind, name, families) of every set, in the order of the table."""
    wanted = [("all", "all", names)]
    wanted += [("without", f"without {left}", tuple(name for name in names if name != left)) for left in names]
    wanted += [("alone", f"{name} alone", (name,)) for name in names]
    if not isinstance(sets, Mapping):
        raise ValueError(f"ablate_families.sets: expected a mapping of names to families, got {sets!r:.80}.")
    taken = {name for _, name, _ in wanted}
    for name, families in sets.items():
        families = (families,) if isinstance(families, str) else tuple(families)
        unknown = [family for family in families if family not in names]
        if unknown or not families:
            wrong = repr(unknown[0]) if unknown else "none"
            raise ValueError(
                f"ablate_families.sets[{name!r}]: expected families of the pipeline, got {wrong} "
                f"({len(unknown)} unknown). {known_names(unknown[0] if unknown else '', names)}"
            )
        if name in taken:
            raise ValueError(
                f"ablate_families.sets: expected names of their own, got {name!r}, which is a row already. Rename it."
            )
        wanted.append(("given", str(name), tuple(own for own in names if own in families)))
    return wanted


def _score(measured, heads, columns, areas):
    """Give the pooled area of one set, its samples, and how long a prediction takes."""
    features = [measured.features(fold, test)[:, columns] for fold, (_, test) in enumerate(measured.splits)]
    proba = [measured.probabilities(head, X) for head, X in zip(heads, features, strict=True)]
    (area,), samples = areas.mean_areas([measured.pooled(proba)])
    return float(area), samples, _predict_us(measured, heads[0], features[0])


def _row(kind, name, families, n_columns, scored, areas):
    """Compare one set with all families, which were scored first."""
    (area, samples, predict_us), (base, base_samples, _) = scored[families], next(iter(scored.values()))
    return AblationRow(
        kind=kind,
        name=name,
        families=families,
        n_columns=n_columns,
        roc_auc=area,
        ci95=areas.interval(samples),
        difference=area - base,
        difference_ci95=areas.interval(samples - base_samples),
        p=np.nan if kind == "all" else bootstrap_p(area - base, samples - base_samples),
        p_holm=np.nan,
        predict_us=predict_us,
    )


def _predict_us(measured, head, features):
    """Give the best of a few passes."""
    seconds = []
    with threadpool_limits(1):
        for _ in range(_TIMED_PASSES):
            started = time.process_time()
            measured.probabilities(head, features)
            seconds.append(time.process_time() - started)
    return min(seconds) / len(features) * 1e6


def _adjusted(rows):
    tested = [position for position, row in enumerate(rows) if np.isfinite(row.p)]
    for position, p in zip(tested, holm([rows[position].p for position in tested]).tolist(), strict=True):
        rows[position] = replace(rows[position], p_holm=p)
    return tuple(rows)
