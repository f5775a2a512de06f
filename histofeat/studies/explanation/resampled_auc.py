"""ROC-AUC of many score vectors on the same resamples of the patients, without walking over the patches each time."""

import numba
import numpy as np

from histofeat.metrics import Bootstrap, patient_weights, ranking_scores
from histofeat.model_selection import encode_patients

__all__ = ["ResampledAUC", "count_pairs"]

#: Above, the matrix of patients by patients is larger than walking over the patches is slow.
_MOST_PATIENTS = 1_000


class ResampledAUC:
    """The tested patches, and resamples of their patients that all score vectors share.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        Class codes of the tested patches.
    patients : ndarray of shape (n,)
        Their patients.
    n_classes : int
    n_resamples, random_state : int
        As in `histofeat.metrics.patient_weights`; equal ones give the resamples of an evaluation of these patches.

    Notes
    -----
    The area is a mean over pairs of a positive and a negative patch. Counted once by the patients of the two, the
    pairs that are in order give the area of a resample as a quadratic form in how often each patient was drawn: exact,
    and for a few hundred patients many times faster than the same sum over the patches.
    """

    def __init__(self, y, patients, n_classes, n_resamples, random_state):
        self.y, self.n_classes = y, n_classes
        ids, self.codes = encode_patients(patients, len(y), "dataset.patients")
        self.n_patients = len(ids)
        drawn = patient_weights(patients, n_resamples, random_state).astype(np.float64)
        # The first row is the sample itself.
        self._weights = np.vstack([np.ones((1, len(ids))), drawn])
        per_class = np.stack([np.bincount(self.codes[y == code], minlength=len(ids)) for code in range(n_classes)])
        totals = self._weights @ per_class.T.astype(np.float64)
        self._vanished = (totals == 0).any(axis=1)
        self._positive, self._negative = totals, totals.sum(axis=1, keepdims=True) - totals

    @property
    def n_dropped(self):
        """Resamples in which a class vanished."""
        return int(self._vanished[1:].sum())

    def mean_areas(self, probas):
        """Score several vectors of one kind, such as repeats of a permutation.

        Parameters
        ----------
        probas : sequence of ndarray of shape (n, k), float64

        Returns
        -------
        areas : ndarray of shape (len(probas),), float64
            ROC-AUC of each, over all patches; with more than two classes the one-vs-rest mean.
        samples : ndarray of shape (n_resamples,), float64
            Their mean in each resample; NaN where a class vanished.
        """
        if self.n_patients > _MOST_PATIENTS:
            found = np.array([ranking_scores(self.y, proba, self.codes, self._weights)[0] for proba in probas])
            found[:, self._vanished] = np.nan
            return found[:, 0], found[:, 1:].mean(axis=0)
        codes = [1] if self.n_classes == 2 else range(self.n_classes)
        areas, samples = np.zeros(len(probas)), np.zeros(len(self._weights))
        for code in codes:
            pairs = [count_pairs(self.y == code, proba[:, code], self.codes, self.n_patients) for proba in probas]
            # At least one, so that what has no area divides by something before it is blanked out.
            n_pairs = np.maximum(self._positive[:, code] * self._negative[:, code], 1.0)
            areas += [matrix.sum() / n_pairs[0] for matrix in pairs]
            samples += self._quadratic(np.mean(pairs, axis=0)) / n_pairs
        samples = np.where(self._vanished, np.nan, samples / len(codes))
        return areas / len(codes), samples[1:]

    def _quadratic(self, matrix):
        return np.einsum("mi,mi->m", self._weights @ matrix, self._weights)

    def interval(self, samples):
        """95 % percentile interval (low, high) of what `mean_areas` gave, or of a difference of two such."""
        return Bootstrap({"roc_auc": samples}, self.n_patients, self.n_dropped).interval("roc_auc")


def count_pairs(positive, score, codes, n_patients):
    """Count, by their patients, the pairs of a positive and a negative patch in which the positive one scores higher.

    Parameters
    ----------
    positive : ndarray of shape (n,), bool
    score : ndarray of shape (n,), float
    codes : ndarray of shape (n,), int64
        Patient number of each patch, from 0 to `n_patients` - 1.
    n_patients : int

    Returns
    -------
    pairs : ndarray of shape (n_patients, n_patients), float64
        Row: the negative patch's patient; column: the positive one's. A pair of equal scores counts one half.

    Examples
    --------
    >>> count_pairs(np.array([True, False, False]), np.array([0.5, 0.5, 0.1]), np.array([0, 0, 1]), 2).tolist()
    [[0.5, 0.0], [1.0, 0.0]]
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)
    return _count_pairs(positive[order], codes[order], ends, n_patients)


@numba.njit(cache=True, nogil=True)
def _count_pairs(positive, codes, ends, n_patients):
    """Walk down the ranking; `ends` marks the last patch of each run of equal scores."""
    pairs = np.zeros((n_patients, n_patients))
    above = np.zeros(n_patients)  # positive patches so far, by patient; those of the run itself count one half
    start = 0
    for end in range(len(codes)):
        if not ends[end]:
            continue
        for i in range(start, end + 1):
            if positive[i]:
                above[codes[i]] += 0.5
        for i in range(start, end + 1):
            if not positive[i]:
                pairs[codes[i]] += above
        for i in range(start, end + 1):
            if positive[i]:
                above[codes[i]] += 0.5
        start = end + 1
    return pairs
