"""Where a patch lies on its slide, as features: what a classifier would know that never saw the picture."""

import numpy as np

from histofeat.exceptions import DatasetError
from histofeat.model_selection.folds import encode_patients

__all__ = ["COORDINATE_NAMES", "coordinate_features"]

COORDINATE_NAMES = ("x_px", "y_px", "x_relative", "y_relative")


def coordinate_features(dataset):
    """Coordinates of the patches, absolute and relative to the extent of their own patient.

    Parameters
    ----------
    dataset : PatchDataset
        With ``x`` and ``y`` for every patch.

    Returns
    -------
    features : ndarray of shape (n, 4), float32
        In the order of `COORDINATE_NAMES`: x and y in pixels of the slide; and each as a share of the way from the
        patient's first patch to the last, 0 to 1, or 0.5 where all patches of a patient have the same one.

    Raises
    ------
    DatasetError
        If a patch has no coordinates; the message counts them.

    Notes
    -----
    The extent of a patient comes from all patches of that patient, of whatever side of a split; labels play no part.
    Coordinates are a property of the data set and not of a picture, so this is no feature family.

    Examples
    --------
    >>> import pandas as pd
    >>> from histofeat import PatchDataset
    >>> frame = pd.DataFrame({"path": list("abc"), "label": [0, 1, 0], "patient": list("pqq")})
    >>> dataset = PatchDataset(frame.assign(x=[51, 1, 101], y=[1, 201, 201]), ("no", "yes"), "mine")
    >>> coordinate_features(dataset).tolist()
    [[51.0, 1.0, 0.5, 0.5], [1.0, 201.0, 0.0, 0.5], [101.0, 201.0, 1.0, 0.5]]
    """
    missing = dataset.frame[["x", "y"]].isna().any(axis=1)
    if missing.any():
        first = int(missing.to_numpy().argmax())
        raise DatasetError(
            f"PatchDataset.frame: expected x and y for every patch, got none for row {first} and "
            f"{int(missing.sum()) - 1} others of {len(dataset)}. Fill them in, or do without coordinates."
        )
    places = dataset.frame[["x", "y"]].to_numpy(dtype=np.float64)
    ids, codes = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    first, last = (np.full((len(ids), 2), sign * np.inf) for sign in (1, -1))
    np.minimum.at(first, codes, places)
    np.maximum.at(last, codes, places)
    extent = (last - first)[codes]
    relative = np.divide(places - first[codes], extent, out=np.full_like(places, 0.5), where=extent > 0)
    return np.hstack([places, relative]).astype(np.float32)
