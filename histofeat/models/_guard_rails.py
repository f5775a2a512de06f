"""What a model remembers of its training images, to warn of known patients and of images unlike them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from histofeat.datasets import printable, probability_columns
from histofeat.features import Fingerprints
from histofeat.model_selection import encode_patients

#: Principal components and quantiles of the distance; the patients that it needs, and the rows that it takes at most.
_COMPONENTS, _QUANTILES, _LEAST_PATIENTS, _ROWS = 32, 1001, 5, 20_000
#: Share of the training images from which an image that is farther from the others is unlike them.
FAR = 0.99
#: Images that an interval of a patient's score needs, and how many of its highest scores are averaged.
_LEAST_IMAGES, _HIGHEST = 10, 10


class GuardRails(BaseEstimator):
    """What a model remembers of its training images and patients.

    Attributes
    ----------
    images_ : ndarray of shape (m, 16), uint8
        Digests of the pixels of the training images, as of `Fingerprints`; none of images of one colour.
    space_ : dict of str to ndarray, float32
        "center" and "scale" of each feature, (d,); "components" of the standardised features, (c, d); "variances"
        along these, and the mean of those in all other directions, (c + 1,). Empty without a distance.
    quantiles_ : ndarray of shape (1001,), float32
        Of the distance of training images to the images of other training patients; each patient weighs the same.

    Notes
    -----
    The distance is Mahalanobis's under probabilistic principal components (Tipping and Bishop 1999,
    doi:10.1111/1467-9868.00196): the covariance is that of the first components, and the same variance in all other
    directions. Its quantiles are those of held-out patients, since a distance is smaller for what it was learnt from.

    Digests keep pixels out of the file; but someone who has an image can find out whether the model was trained on it.

    Examples
    --------
    >>> from histofeat.features import ImageFingerprint
    >>> X = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    >>> rails = GuardRails().fit(ImageFingerprint().transform(X), ["7", "9"])
    >>> rails.knows(np.vstack([rails.images_[:1], np.zeros((2, 16), np.uint8)]), ["1", "9", "11"], ["9"]).tolist()
    ['image', 'patient', '']
    """

    def fit(self, prints: np.ndarray, patients: ArrayLike, features: np.ndarray | None = None) -> GuardRails:
        """Remember images and patients, and learn the distance from features.

        Parameters
        ----------
        prints : ndarray of shape (n, 35), float32
            As ``ImageFingerprint().transform(X)`` gives it.
        patients : array-like of shape (n,)
            Patient of each image.
        features : ndarray of shape (n, d), optional
            Of each image. Without them, and with fewer than five patients, no distance is learnt.

        Returns
        -------
        self : GuardRails
        """
        from sklearn.model_selection import GroupKFold

        found, (ids, codes) = Fingerprints.of(prints), encode_patients(patients, len(prints), "patients")
        self.images_ = np.unique(found.digests[~found.flat], axis=0)
        self.space_, self.quantiles_ = {}, np.zeros(0, np.float32)
        if features is None or len(ids) < _LEAST_PATIENTS:
            return self
        rows = np.sort(np.random.default_rng(0).permutation(len(features))[:_ROWS])
        X, codes, distance = np.asarray(features[rows], np.float64), codes[rows], np.zeros(len(rows))
        for train, test in GroupKFold(min(_LEAST_PATIENTS, len(np.unique(codes)))).split(X, groups=codes):
            distance[test] = _distance(X[test], **_learn(X[train]))
        order, weights = np.argsort(distance), 1 / np.bincount(codes)[codes]
        shares = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
        self.space_ = {name: array.astype(np.float32) for name, array in _learn(X).items()}
        self.quantiles_ = np.interp(np.linspace(0, 1, _QUANTILES), shares, distance[order]).astype(np.float32)
        return self

    def knows(
        self, digests: np.ndarray, patients: Sequence[str] | None = None, trained: Sequence[str] = ()
    ) -> np.ndarray:
        """Say of each image whether the model was trained on it, or on its patient.

        Parameters
        ----------
        digests : ndarray of shape (n, 16), uint8
            Of the pixels of the images.
        patients : sequence of str, optional
            Canonical id of the patient of each image.
        trained : sequence of str
            Ids of the training patients.

        Returns
        -------
        known : ndarray of shape (n,), object
            "image"; "patient" where the id is that of a training patient, or another image of the patient is known;
            or "".
        """
        several, known = {row.tobytes() for row in self.images_}, np.full(len(digests), "", dtype=object)
        images = np.array([row.tobytes() in several for row in digests], dtype=bool)
        if patients is not None:
            whose = np.asarray(patients, dtype=object)
            seen = {*trained, *whose[images]}
            known[[each in seen for each in whose]] = "patient"
        known[images] = "image"
        return known

    def unlike(self, features: np.ndarray) -> np.ndarray:
        """Share of the training images that are nearer to the others than each row (n, d); NaN without a distance."""
        if not self.space_:
            return np.full(len(features), np.nan)
        shares = np.linspace(0, 1, len(self.quantiles_))
        with threadpool_limits(1, user_api="blas"):  # the last digits are the same on any number of cores
            return np.interp(_distance(features, **self.space_), self.quantiles_, shares)


def _learn(X):
    from sklearn.decomposition import PCA

    center, scale = X.mean(axis=0), X.std(axis=0)
    scale[scale < 1e-9 + 1e-6 * np.abs(center)] = 1  # what never varies has no scale
    n = max(1, min(_COMPONENTS, len(X) // 10, X.shape[1] - 1))
    pca = PCA(n, random_state=0).fit((X - center) / scale)
    variances = np.maximum([*pca.explained_variance_, pca.noise_variance_], 1e-6)
    return {"center": center, "scale": scale, "components": pca.components_, "variances": variances}


def _distance(X, center, scale, components, variances) -> np.ndarray:
    z = (np.asarray(X, np.float64) - center) / scale
    along = z @ components.T
    rest = np.maximum((z**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    return np.sqrt((along**2 / variances[:-1]).sum(axis=1) + rest / variances[-1])


def score_patient(proba: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """Scores of one patient for a class, from those of its images.

    Parameters
    ----------
    proba : ndarray of shape (n,), float
        Probability of the class for each image of the patient.
    called : ndarray of shape (n,), bool
        Which images are labelled so.

    Returns
    -------
    scores : dict of str to float
        "mean_low", "mean_high", "share_low" and "share_high" (95 % intervals of the mean and of the share of images
        labelled so, by t and by Wilson, NaN with fewer than 10 images), "top10_mean" (mean of the ten highest) and
        "max". NaN without an image.

    Notes
    -----
    The intervals are of other images of this patient, and take images for independent. Neighbouring patches are alike,
    and the model itself is uncertain, so that they are too narrow. "top10_mean" and "max" grow with the number of
    images.

    Examples
    --------
    >>> found = score_patient(np.linspace(0, 1, 11), np.arange(11) > 5)
    >>> round(found["mean_low"], 3), round(found["share_low"], 3), found["top10_mean"], found["max"]
    (0.277, 0.213, 0.55, 1.0)
    """
    from scipy.stats import binomtest, t

    found = dict.fromkeys(("mean_low", "mean_high", "share_low", "share_high", "top10_mean", "max"), np.nan)
    if len(proba):
        found |= {"top10_mean": float(np.sort(proba)[-_HIGHEST:].mean()), "max": float(proba.max())}
    if len(proba) >= _LEAST_IMAGES:
        half = t.ppf(0.975, len(proba) - 1) * proba.std(ddof=1) / np.sqrt(len(proba))
        share = binomtest(int(called.sum()), len(called)).proportion_ci(method="wilson")
        found |= {"mean_low": max(proba.mean() - half, 0.0), "mean_high": min(proba.mean() + half, 1.0)}
        found |= {"share_low": share.low, "share_high": share.high}
    return {name: float(value) for name, value in found.items()}


def patient_table(predictions: Any) -> pd.DataFrame:
    """Table of the patients of predictions: see `ImagePredictions.by_patient`."""
    ids, codes = encode_patients(predictions.patients, len(predictions), "patients")
    names, readable, labels = predictions.class_names, predictions.readable, np.array(predictions.labels, dtype=object)
    positive, decided, rows = predictions.positive_code, predictions.decision.get("patient"), []
    for code, patient in enumerate(ids):
        mine = codes == code
        kept = mine & readable
        proba, called = predictions.proba[kept], labels[kept]
        mean = proba.mean(axis=0) if len(proba) else np.full(len(names), np.nan)
        shares = [(called == name).mean() if len(proba) else np.nan for name in names]
        label = names[mean.argmax()] if len(proba) else ""
        row = {"patient": printable(patient), "images": len(proba), "unreadable": int((mine & ~readable).sum())}
        row["label"] = label
        for column, value, share in zip(probability_columns(names), mean, shares, strict=True):
            row |= {f"mean{column[1:]}": value, f"share{column[1:]}": share}
        if positive is not None:
            if label and decided:
                row["label"] = names[positive] if mean[positive] >= decided["value"] else names[1 - positive]
            row |= score_patient(proba[:, positive], called == names[positive])
            row["threshold"] = decided["value"] if decided else 0.5
            row["threshold_rule"] = predictions.decision["rule"] if decided else "most probable"
        row["known"] = any(predictions.known[at] for at in np.flatnonzero(mine))
        rows.append(row)
    return pd.DataFrame(rows)
