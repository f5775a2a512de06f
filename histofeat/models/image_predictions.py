"""`ImagePredictions`: probabilities, labels, policies and patients of predicted images, and their tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from histofeat.datasets import write_whole

UNREADABLE = "unreadable"
"""Policy of an image that could not be read."""


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """Predictions of a model for images.

    Parameters
    ----------
    images : tuple of str
        Names, in the order of the rows.
    class_names : tuple of str
        In the order of the columns of `proba`.
    proba : ndarray of shape (n, k), float64
        Class probabilities of each image; a row of NaN where it could not be read.
    policies : tuple of str
        Policy for each image: "as is", "tile", "pad", "resize", "whole", or "unreadable".
    n_tiles, n_background : ndarray of shape (n,), int64
        Number of tiles that were scored, and of those left out as background.
    unreadable : tuple of (str, str)
        Names of images that could not be read, and why.
    patients : tuple of str or None
        Patient of each image.
    conversions : mapping of str to int
        Number of images by conversion of `histofeat.images.decoding`.
    """

    images: tuple[str, ...]
    class_names: tuple[str, ...]
    proba: np.ndarray = field(repr=False)
    policies: tuple[str, ...] = field(repr=False)
    n_tiles: np.ndarray = field(repr=False)
    n_background: np.ndarray = field(repr=False)
    unreadable: tuple[tuple[str, str], ...] = ()
    patients: tuple[str, ...] | None = field(default=None, repr=False)
    conversions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("proba", "n_tiles", "n_background"):
            array = np.array(getattr(self, name))
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "conversions", MappingProxyType(dict(self.conversions)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def readable(self) -> np.ndarray:
        """Whether each image could be read, (n,) bool."""
        return ~np.isnan(self.proba).any(axis=1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of the most probable class of each image, of equal ones the first; empty where it is unreadable."""
        names = np.array([*self.class_names, ""], dtype=object)
        codes = np.where(self.readable, np.nan_to_num(self.proba, nan=-1.0).argmax(axis=1), len(self.class_names))
        return tuple(names[codes])

    def to_frame(self) -> pd.DataFrame:
        """Table with a row for each image.

        Its columns: ``image``, ``patient`` (where known), ``label``, ``probability_<class>`` for each class,
        ``policy``, ``tiles`` and ``background_tiles``.
        """
        frame = pd.DataFrame({"image": self.images})
        if self.patients is not None:
            frame["patient"] = self.patients
        frame["label"] = self.labels
        for code, name in enumerate(self.class_names):
            frame[f"probability_{name}"] = self.proba[:, code]
        return frame.assign(policy=self.policies, tiles=self.n_tiles, background_tiles=self.n_background)

    def by_patient(self) -> pd.DataFrame:
        """Scores of the patients.

        Returns
        -------
        frame : DataFrame
            A row for each patient, in the order of their ids: ``patient``, ``images`` (that could be read),
            ``unreadable``, ``label`` (the class of the largest mean), ``mean_<class>`` (mean probability over the
            images) and ``share_<class>`` (share of the images that were labelled so).

        Raises
        ------
        ValueError
            If the patients are not known.

        Notes
        -----
        Each image of a patient counts the same. With two classes ``share_<second class>`` is the share of positive
        images. Where no image of a patient could be read the label is empty and the numbers are NaN.
        """
        if self.patients is None:
            raise ValueError(
                "ImagePredictions.by_patient: expected predictions with patients, got none. Give patients=... to "
                "predict_images (--patients)."
            )
        from histofeat.model_selection import encode_patients

        ids, codes = encode_patients(self.patients, len(self), "patients")
        readable, labels = self.readable, np.array(self.labels, dtype=object)
        rows = []
        for code, patient in enumerate(ids):
            mine = codes == code
            kept = mine & readable
            known = bool(kept.any())
            mean = self.proba[kept].mean(axis=0) if known else np.full(len(self.class_names), np.nan)
            shares = [(labels[kept] == name).mean() if known else np.nan for name in self.class_names]
            rows.append(
                {"patient": patient, "images": int(kept.sum()), "unreadable": int((mine & ~readable).sum())}
                | {"label": self.class_names[mean.argmax()] if known else ""}
                | {f"mean_{name}": value for name, value in zip(self.class_names, mean, strict=True)}
                | {f"share_{name}": share for name, share in zip(self.class_names, shares, strict=True)}
            )
        return pd.DataFrame(rows)


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table of predictions as CSV: six decimals, empty cells for unknown values.

    Parameters
    ----------
    frame : DataFrame
        The table.
    path : path
        A new file.

    Raises
    ------
    ValueError
        If the file exists or cannot be written.
    """
    path = Path(path)
    try:
        with write_whole(path) as part:
            frame.to_csv(part, index=False, float_format="%.6f", lineterminator="\n", encoding="utf-8")
    except OSError as error:
        got = "one that exists" if isinstance(error, FileExistsError) else error.strerror or type(error).__name__
        raise ValueError(f"{path}: expected a new file, got {got}. Give another name.") from error
