"""Recognition rates of BreakHis: the share of a patient's images that are judged right, and its mean over patients."""

from dataclasses import dataclass

import numpy as np

from histofeat.metrics.bootstrap import Bootstrap, patient_weights
from histofeat.model_selection import encode_patients

__all__ = ["RATES", "RecognitionRates", "recognition_rates"]

#: What `RecognitionRates.interval` knows.
RATES = ("patient_rate", "image_rate")


@dataclass(frozen=True, eq=False)
class RecognitionRates:
    """Scores of single patients, the two rates, and both rates under resampling of the patients.

    Parameters
    ----------
    patients : tuple of str
        All patients, in the order of `histofeat.model_selection.encode_patients`.
    patient_scores : ndarray of shape (len(patients),), float64
        Share of each patient's images that were judged right, 0 to 1.
    n_images : ndarray of shape (len(patients),), int64
        How many images each patient has.
    patient_rate : float
        Mean of `patient_scores`: every patient weighs the same.
    image_rate : float
        Share of all images judged right, which is the accuracy: every image weighs the same.
    resamples : Bootstrap
        "patient_rate" and "image_rate" in each resample of the patients; the resamples of
        `histofeat.metrics.bootstrap_scores` with the same seed.
    """

    patients: tuple[str, ...]
    patient_scores: np.ndarray
    n_images: np.ndarray
    patient_rate: float
    image_rate: float
    resamples: Bootstrap

    def interval(self, rate="patient_rate", level=0.95):
        """Return the percentile interval of a rate.

        Parameters
        ----------
        rate : {"patient_rate", "image_rate"}
        level : float in (0, 1), default=0.95

        Returns
        -------
        low, high : float
            NaN with a single patient, or without resamples.

        Raises
        ------
        ValueError
            If the rate is none of these.
        """
        if rate not in RATES:
            raise ValueError(
                f"RecognitionRates.interval: expected 'patient_rate' or 'image_rate', got {rate!r}. Use one of them."
            )
        return self.resamples.interval(rate, level)


def recognition_rates(y, predicted, patients, *, n_resamples=2000, random_state=0):
    """Patient and image recognition rate of one set of labels.

    Parameters
    ----------
    y : array-like of shape (n,)
        True classes, codes or names.
    predicted : array-like of shape (n,)
        Classes that were predicted, of the same kind.
    patients : array-like of shape (n,)
        Patient of each image.
    n_resamples : int, default=2000
        Resamples of the patients behind the intervals; 0 for none.
    random_state : int, default=0
        Seed of `histofeat.metrics.patient_weights`.

    Returns
    -------
    rates : RecognitionRates

    Raises
    ------
    ValueError
        If there is no image, the lengths differ, or a class is missing (NaN, None or a negative code).
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    Spanhol et al. 2016 (doi:10.1109/TBME.2015.2496264): with N_rec of a patient's N_p images judged right, the patient
    score is N_rec / N_p, and the patient recognition rate the sum of the patient scores over the number of patients.
    The image rate is the share of right images whoever they are of, which is the accuracy.

    Neither knows of classes: on 58 malignant and 24 benign patients, calling everything malignant has a patient rate of
    0.71. Read it beside the balanced accuracy. The interval covers other patients of the same kind, judged by these
    fits; differences between repeated hold-outs are what `histofeat.metrics.nadeau_bengio` is for.

    Examples
    --------
    Patient "a" has three of four images right, "b" none of one:

    >>> rates = recognition_rates([1, 1, 1, 1, 0], [1, 1, 1, 0, 1], list("aaaab"), n_resamples=0)
    >>> rates.patient_scores.tolist(), rates.patient_rate, rates.image_rate
    ([0.75, 0.0], 0.375, 0.6)
    """
    y, predicted = _check_labels(y, predicted)
    ids, codes = encode_patients(patients, len(y), "patients")
    right = np.bincount(codes, y == predicted, minlength=len(ids))
    n_images = np.bincount(codes, minlength=len(ids))
    scores = right / n_images
    weights = patient_weights(patients, n_resamples, random_state).astype(np.float64)
    samples = {"patient_rate": weights @ scores / len(ids), "image_rate": (weights @ right) / (weights @ n_images)}
    for values in (scores, n_images, *samples.values()):
        values.setflags(write=False)
    return RecognitionRates(
        patients=tuple(ids),
        patient_scores=scores,
        n_images=n_images,
        patient_rate=float(scores.mean()),
        image_rate=float(right.sum() / n_images.sum()),
        resamples=Bootstrap(samples, len(ids), 0),
    )


def _check_labels(y, predicted):
    """Refuse labels that are missing: an image without a prediction is neither right nor wrong."""
    y, predicted = np.asarray(y), np.asarray(predicted)
    if y.ndim != 1 or not y.size or predicted.shape != y.shape:
        raise ValueError(
            f"recognition_rates: expected one true and one predicted class for each image, got shapes {y.shape} and "
            f"{predicted.shape}. Pass the labels of the same images, at least one."
        )
    for name, labels in (("y", y), ("predicted", predicted)):
        wrong = np.flatnonzero([_is_missing(label) for label in labels.tolist()])
        if wrong.size:
            raise ValueError(
                f"recognition_rates.{name}: expected a class for every image, got {labels[wrong[0]]!s} in row "
                f"{wrong[0]} ({wrong.size} such rows). Leave out images that were not tested."
            )
    return y, predicted


def _is_missing(label):
    if label is None or label != label:
        return True
    return not isinstance(label, str) and label < 0
