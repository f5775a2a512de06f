"""Audit a split: first the checks of the table and the pipelines, then those of the images."""

from typing import Any

import numpy as np

from histofeat.datasets import PatchDataset
from histofeat.evaluation._plans import split_pipelines
from histofeat.evaluation.audit._encoders import measure_fingerprints, trained_encoders
from histofeat.evaluation.audit._findings import AuditReport, not_applicable
from histofeat.evaluation.audit._image_checks import NearSearch, contradicting_labels, exact_duplicates, near_duplicates
from histofeat.evaluation.audit._predictions import fitted_outside
from histofeat.evaluation.audit._table_checks import (
    as_split,
    classes_by_file,
    ids_of_one_patient,
    lost_classes,
    shared_patients,
    sibling_slides,
)
from histofeat.exceptions import check_that
from histofeat.features import Fingerprints, Runtime, leave_out_unreadable

#: Why checks of images say nothing.
_COLUMNS = "The data set has columns instead of images."


def audit_split(
    dataset: PatchDataset,
    splits: Any,
    *,
    pipelines: Any = None,
    predictions: Any = None,
    runtime: Runtime | None = None,
) -> AuditReport:
    """Look for leaks and errors that make the scores of a split misleading.

    Parameters
    ----------
    dataset : PatchDataset
        What was split.
    splits : iterable of (train, test)
        Row numbers or masks of each fold, such as ``PatientKFold(5).split(dataset.X, dataset.y, dataset.patients)``.
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline), optional
        What is to be fitted in each fold, for HF007 and HF008.
    predictions : DataFrame or mapping, optional
        Scores of the test rows, for HF008: columns ``row``, ``fold``, ``score``, ``label`` and, optionally,
        ``threshold``; or several such tables by the name of their model.
    runtime : Runtime, optional
        Threads, feature store and progress; see `histofeat.features.Runtime`. Results do not depend on it.

    Returns
    -------
    report : AuditReport
        One finding for each of `histofeat.evaluation.CODES` up to HF011. Nothing is refused: that is `check_audit`.

    Raises
    ------
    ValueError
        If `splits`, `pipelines` or `predictions` is invalid.
    GroupLeakageError
        If a row has no patient.
    PatchError
        If an image cannot be decoded; the message names it.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=6, patches_per_patient=6)
    >>> splits = list(PatientKFold(2).split(cohort.X, cohort.y, cohort.patients))
    >>> audit_split(cohort, splits).errors
    ()
    >>> leaky = audit_split(cohort, [(train, test) for train, test in [(range(0, 36, 2), range(1, 36, 2))]])
    >>> leaky.finding("HF001").numbers["shared"]
    6
    """
    splits = as_split(dataset, splits).folds
    cheap_findings(dataset, splits, pipelines=pipelines, predictions=predictions)  # bad input, before the images
    if predictions is None:  # else rows have numbers that must stay
        dataset, splits, runtime = leave_out_unreadable(dataset, splits, runtime)
    runtime = Runtime.of(runtime)
    fingerprints = None if dataset.columns is not None else measure_fingerprints(dataset.X, runtime)
    more = {"pipelines": pipelines, "predictions": predictions, "n_jobs": runtime.n_jobs}
    return audit_fingerprints(dataset, splits, fingerprints, **more)


def cheap_findings(
    dataset: PatchDataset, splits: Any, *, pipelines: Any = None, predictions: Any = None, retrained: bool = False
) -> AuditReport:
    """Audit what needs no image: HF001, HF004, HF005, HF008 to HF011; HF006 and HF007 as far as they can be decided.

    Parameters
    ----------
    dataset, splits, pipelines, predictions
        As for `audit_split`.
    retrained : bool, default=False
        As for `audit_fingerprints`.

    Returns
    -------
    report : AuditReport
        Without HF002 and HF003; with HF006 where labels are those of patients (images are not compared), and with HF007
        where no encoder has a record of training images to compare.

    Raises
    ------
    ValueError
        If `splits`, `pipelines` or `predictions` is invalid.
    GroupLeakageError
        If a row has no patient.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=8)
    >>> [finding.code for finding in cheap_findings(cohort, [(range(8), range(8, 16))]).findings]
    ['HF001', 'HF004', 'HF005', 'HF007', 'HF008', 'HF009', 'HF010', 'HF011']
    """
    return AuditReport(_findings(as_split(dataset, splits), None, pipelines, predictions, retrained))


def audit_encoders(dataset, splits, pipelines, *, runtime=None) -> AuditReport:
    """Audit only the training sets of encoders: HF007.

    Parameters
    ----------
    dataset, splits, pipelines, runtime
        As for `audit_split`. No image is read where no encoder has a record of training images.

    Returns
    -------
    report : AuditReport
        With this one finding.

    Raises
    ------
    ValueError
        If `splits` or `pipelines` is invalid.
    GroupLeakageError
        If a row has no patient.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=8)
    >>> audit_encoders(cohort, [(range(8), range(8, 16))], IDCPipeline("color")).finding("HF007").status
    'passed'
    """
    split, parts = as_split(dataset, splits), split_pipelines(pipelines)
    finding = trained_encoders(split, None, parts)
    if finding is None:
        fingerprints = measure_fingerprints(dataset.X, Runtime.of(runtime))
        finding = trained_encoders(split, Fingerprints.of(fingerprints), parts)
    return AuditReport((finding,))


def audit_fingerprints(
    dataset: PatchDataset,
    splits: Any,
    fingerprints: np.ndarray | None,
    *,
    pipelines: Any = None,
    predictions: Any = None,
    n_jobs: int | None = None,
    retrained: bool = False,
) -> AuditReport:
    """Audit a split of images that `ImageFingerprint` has measured already.

    Parameters
    ----------
    dataset, splits, pipelines, predictions
        As for `audit_split`.
    fingerprints : ndarray of shape (n, 35), float32, or None
        Measured by `ImageFingerprint`, one row for each of the data set; None for a data set of columns, where checks
        of images are not applicable.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    retrained : bool, default=False
        Whether trainable families are trained again in each fold; their earlier training set does not count then.

    Returns
    -------
    report : AuditReport
        One finding for each of `histofeat.evaluation.CODES` up to HF011.

    Raises
    ------
    ValueError
        If an argument is invalid, or `fingerprints` has not one row for each of the data set.
    GroupLeakageError
        If a row has no patient.
    """
    split = as_split(dataset, splits)
    if fingerprints is None:
        unseen = [not_applicable(code, _COLUMNS, "copies of images.") for code in ("HF002", "HF003")]
        return AuditReport((*unseen, *_findings(split, None, pipelines, predictions, retrained)))
    prints = Fingerprints.of(fingerprints)
    same, expected = len(prints) == len(split), f"a row for each of {len(split):,} images"
    check_that("audit_fingerprints.fingerprints", len(prints), same, expected, "Measure the images of this data set.")
    search = NearSearch(split, prints, n_jobs=n_jobs)
    others = _findings(split, prints, pipelines, predictions, retrained, search)
    return AuditReport((exact_duplicates(split, prints), near_duplicates(search), *others))


def _findings(split, prints, pipelines, predictions, retrained, search=None):
    """Findings of the table and of the pipelines; those that need images as well, where there are fingerprints."""
    parts = None if pipelines is None else split_pipelines(pipelines)
    findings = [
        shared_patients(split),
        lost_classes(split),
        sibling_slides(split),
        *ids_of_one_patient(split),
        trained_encoders(split, prints, parts, retrained=retrained),
        fitted_outside(split, parts, predictions),
        classes_by_file(split),
    ]
    if prints is not None or split.dataset.labels_per == "patient":
        findings.append(contradicting_labels(split, prints, search))
    return tuple(finding for finding in findings if finding is not None)
