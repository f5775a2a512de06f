"""Score repeated hold-outs as BreakHis does: recognition rates, and a t-test with a corrected variance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from histofeat.exceptions import check_name, check_real, check_shape, refuse_rows
from histofeat.metrics._bootstrap import Bootstrap, patient_weights, t_interval
from histofeat.metrics._definitions import frozen
from histofeat.model_selection import encode_patients

#: What `RecognitionRates.interval` knows.
RATES = ("patient_rate", "image_rate")


@dataclass(frozen=True, eq=False)
class RecognitionRates:
    """Scores of each patient, the two recognition rates, and both rates under resampling of the patients.

    Parameters
    ----------
    patients : tuple of str
        All patients, in the order of `histofeat.model_selection.encode_patients`.
    patient_scores : ndarray of shape (len(patients),), float64
        Share of each patient's images that were classified right, 0 to 1.
    n_images : ndarray of shape (len(patients),), int64
        How many images each patient has.
    patient_rate : float
        Mean of `patient_scores`: every patient weighs the same.
    image_rate : float
        Share of all images classified right, which is the accuracy: every image weighs the same.
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

    def interval(self, rate: str = "patient_rate", level: float = 0.95) -> tuple[float, float]:
        """Return the interval of a rate, as `Bootstrap.interval` does.

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
            If the rate is unknown.
        """
        check_name("RecognitionRates.interval", rate, RATES)
        return self.resamples.interval(rate, level)


def recognition_rates(
    y: ArrayLike, predicted: ArrayLike, patients: ArrayLike, *, n_resamples: int = 2000, random_state: int = 0
) -> RecognitionRates:
    """Compute the patient and the image recognition rate of one set of labels.

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
    Spanhol et al. 2016 (doi:10.1109/TBME.2015.2496264): with N_rec of a patient's N_p images classified right, the
    patient score is N_rec / N_p, and the patient recognition rate is the mean of the patient scores. The image rate is
    the share of all images classified right, which is the accuracy.

    Both ignore the classes: on 58 malignant and 24 benign patients, calling everything malignant has a patient rate of
    0.71. Read them beside the balanced accuracy. The interval covers other patients of the same kind and these fits;
    for differences over repeated hold-outs see `nadeau_bengio`.

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
    estimates = {"patient_rate": float(scores.mean()), "image_rate": float(right.sum() / n_images.sum())}
    return RecognitionRates(
        patients=tuple(ids),
        patient_scores=frozen(scores),
        n_images=frozen(n_images),
        **estimates,
        resamples=Bootstrap(
            {rate: frozen(values) for rate, values in samples.items()}, len(ids), 0, estimates, carriers=(len(ids),)
        ),
    )


def _check_labels(y, predicted):
    """Refuse missing labels: an image without a prediction is neither right nor wrong."""
    y, predicted = np.asarray(y), np.asarray(predicted)
    check_shape("recognition_rates.y", y, ("n",), "Pass the labels of at least one image.")
    check_shape("recognition_rates.predicted", predicted, y.shape, "Pass the labels of the same images.")
    for name, labels in (("y", y), ("predicted", predicted)):
        missing, where = np.array([_is_missing(label) for label in labels.tolist()]), f"recognition_rates.{name}"
        refuse_rows(missing, labels, f"{where}: expected a class for every image", "Leave out images without one.")
    return y, predicted


def _is_missing(label):
    return label is None or label != label or (not isinstance(label, str) and label < 0)


@dataclass(frozen=True)
class ResampledTTest:
    """Result of `nadeau_bengio`.

    Parameters
    ----------
    mean, std : float
        Of the differences; `std` with ddof 1.
    se : float
        Corrected standard error of the mean.
    t : float
        ``mean / se``.
    df : int
        Degrees of freedom, one less than the repeats.
    p : float
        Two-sided.
    ci95 : tuple of (float, float)
        95 % interval of the difference.
    test_train_ratio : float
        The ratio used in the correction.
    """

    mean: float
    std: float
    se: float
    t: float
    df: int
    p: float
    ci95: tuple[float, float]
    test_train_ratio: float


def nadeau_bengio(
    differences: ArrayLike,
    *,
    test_train_ratio: float | None = None,
    n_train: float | None = None,
    n_test: float | None = None,
) -> ResampledTTest:
    """Test the mean difference of two models over repeated random hold-outs, with a corrected variance.

    Parameters
    ----------
    differences : array-like of shape (k,), float
        Score of model A - score of model B in each of k hold-outs of equal size; in each, both models are fitted and
        tested on the same patients.
    test_train_ratio : float, optional
        Size of the test side over that of the training side. Give this, or the two sizes.
    n_train, n_test : int, optional
        Sizes of the two sides, in patients where patients are split.

    Returns
    -------
    test : ResampledTTest

    Raises
    ------
    ValueError
        If there are fewer than two differences, one is not finite, or the sizes are missing, given twice or not
        positive.

    Notes
    -----
    Hold-outs of one data set share training patients, so that their differences are correlated and the plain t-test
    is too optimistic. Nadeau and Bengio (2003, doi:10.1023/A:1024068626366) take the correlation to be
    n_test / (n_train + n_test), which makes the variance of the mean ``(1 / k + n_test / n_train) * std ** 2``.
    Unlike an interval from resampling the test patients, this one also covers fitting the models again. It is an
    approximation for repeated random hold-outs such as the five trials of BreakHis; more repeats shrink only its first
    term.

    If all differences are equal, the interval has no width, t is infinite and p is 0 (t is 0 and p is 1 if all are 0):
    then these repeats cannot show the uncertainty.

    Examples
    --------
    >>> found = nadeau_bengio([0.02, 0.05, 0.01, 0.04], test_train_ratio=0.25)
    >>> round(found.mean, 3), round(found.se, 4), round(found.t, 2), round(found.p, 3)
    (0.03, 0.0129, 2.32, 0.103)
    """
    differences = _check_differences(differences)
    ratio = _check_ratio(test_train_ratio, n_train, n_test)
    k, mean = len(differences), float(differences.mean())
    if np.ptp(differences) == 0:
        mean = float(differences[0])
        t, p = (np.copysign(np.inf, mean), 0.0) if mean else (0.0, 1.0)
        return ResampledTTest(mean, 0.0, 0.0, float(t), k - 1, p, (mean, mean), ratio)
    std = float(differences.std(ddof=1))
    se = float(np.sqrt(1 / k + ratio) * std)
    p = float(2 * stdtr(k - 1, -abs(mean / se)))
    return ResampledTTest(mean, std, se, mean / se, k - 1, p, t_interval(mean, se, k - 1, scale="linear"), ratio)


def _check_differences(differences):
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(
            f"nadeau_bengio.differences: expected at least 2 differences in one list, got shape {differences.shape}. "
            "Repeat the hold-out: the variance of one difference is unknown."
        )
    expected, remedy = "expected finite numbers", "Make hold-outs in which both classes are tested."
    refuse_rows(~np.isfinite(differences), differences, f"nadeau_bengio.differences: {expected}", remedy)
    return differences


def _check_ratio(ratio, n_train, n_test):
    named = {"test_train_ratio": ratio, "n_train": n_train, "n_test": n_test}
    given = {name: value for name, value in named.items() if value is not None}
    if given.keys() not in ({"test_train_ratio"}, {"n_train", "n_test"}):
        raise ValueError(
            "nadeau_bengio: expected either test_train_ratio or both n_train and n_test, "
            f"got {', '.join(given) or 'none of them'}. Say how large the two sides of a hold-out are."
        )
    for name, value in given.items():
        remedy = "Count the patients of each side."
        check_real(f"nadeau_bengio.{name}", value, "above 0", lambda number: number > 0, remedy)
    return float(ratio if ratio is not None else n_test / n_train)
