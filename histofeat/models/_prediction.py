"""Classify images of any size with a saved model, in batches of tiles, and keep the predictions as a record."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.datasets import PatientRule, find_patients, mpp_by_name, printable, probability_columns
from histofeat.exceptions import PatchError, check_name, check_type
from histofeat.features import Runtime, pixel_digests
from histofeat.images import (
    Images,
    TilePlan,
    aggregate as put_together,
    as_images,
    check_mpp,
    image_mpp,
    is_tissue,
    run_ahead,
    warn_if_dark,
)
from histofeat.model_selection import encode_patients
from histofeat.models._guard_rails import patient_table
from histofeat.models._pipeline import check_one_each, measure_and_score
from histofeat.models._saved_model import SavedModel


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
    mpp, rescaled : ndarray of shape (n,), float64
        Micrometres per pixel of each image, NaN where unknown, and the factor of its sides to the scale of the model.
    n_tiles, n_background : ndarray of shape (n,), int64
        Number of tiles that were scored, and of those left out as background.
    converted : tuple of str
        Conversions of each image, joined by "; ".
    tissue : ndarray of shape (n,), float64
        Share of each image that is tissue, see `histofeat.images.is_tissue`; NaN where it could not be read.
    unlike : ndarray of shape (n,), float64
        How unlike the training images each image is: the share of those that are nearer to the images of other
        training patients than this one, the median over its tiles. NaN where the model has no distance.
    known : tuple of str
        "image" where the model was trained on this image, "patient" where on another one of the patient, else "".
    unreadable : tuple of (str, str)
        Names of images that could not be read, and why.
    patients : tuple of str or None
        Patient of each image.
    conversions : mapping of str to int
        Number of images by conversion of `histofeat.images._decoding`, and of tiles by the reason why the stain
        normaliser left them as they are.
    decision : mapping
        How labels are made, see `SavedModel.decision`: "positive", "rule", "value" and "patient".
    """

    images: tuple[str, ...]
    class_names: tuple[str, ...]
    proba: np.ndarray = field(repr=False)
    policies: tuple[str, ...] = field(repr=False)
    mpp: np.ndarray = field(repr=False)
    rescaled: np.ndarray = field(repr=False)
    n_tiles: np.ndarray = field(repr=False)
    n_background: np.ndarray = field(repr=False)
    converted: tuple[str, ...] = field(repr=False)
    tissue: np.ndarray = field(repr=False)
    unlike: np.ndarray = field(repr=False)
    known: tuple[str, ...] = field(repr=False)
    unreadable: tuple[tuple[str, str], ...] = ()
    patients: tuple[str, ...] | None = field(default=None, repr=False)
    conversions: Mapping[str, int] = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("proba", "mpp", "rescaled", "n_tiles", "n_background", "tissue", "unlike"):
            vars(self)[name] = np.array(getattr(self, name))
            vars(self)[name].setflags(write=False)
        for name in ("conversions", "decision"):
            vars(self)[name] = MappingProxyType(dict(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple:  # read-only mappings have no pickle
        return type(self), tuple(dict(part) if isinstance(part, Mapping) else part for part in vars(self).values())

    @property
    def readable(self) -> np.ndarray:
        """Whether each image could be read, (n,) bool."""
        return ~np.isnan(self.proba).any(axis=1)

    @property
    def positive_code(self) -> int | None:
        """Column of the positive class of two; None with more classes, and where it is not known."""
        return None if (name := self.decision.get("positive")) is None else self.class_names.index(name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of the class of each image; empty where it is unreadable.

        The positive class from the threshold of `decision` on; without one the most probable class, of equal ones the
        first.
        """
        names = np.array([*self.class_names, ""], dtype=object)
        codes = np.nan_to_num(self.proba, nan=-1.0).argmax(axis=1)
        if self.decision.get("rule"):
            positive = self.positive_code
            codes = np.where(self.proba[:, positive] >= self.decision["value"], positive, 1 - positive)
        return tuple(names[np.where(self.readable, codes, len(self.class_names))])

    def to_frame(self) -> pd.DataFrame:
        """Table with a row for each image.

        Its columns: ``path``, ``patient`` (where known), ``label``, ``p_<class>`` for each class, ``threshold`` and
        ``threshold_rule`` of the labels, ``known``, ``unlike``, ``tissue``, ``mpp``, ``rescaled``, ``policy``,
        ``tiles``, ``background_tiles``, ``conversions`` and ``reason`` (why it could not be read or used).
        Blanks in the name of a class become "_". Bytes of a name that are no UTF-8 are escapes.
        """
        frame = pd.DataFrame({"path": [printable(name) for name in self.images]})
        if self.patients is not None:
            frame["patient"] = [printable(patient) for patient in self.patients]
        frame["label"] = self.labels
        for code, name in enumerate(probability_columns(self.class_names)):
            frame[name] = self.proba[:, code]
        reasons = dict(self.unreadable)
        frame["threshold"] = self.decision.get("value", 0.5 if len(self.class_names) == 2 else np.nan)
        frame["threshold_rule"] = self.decision.get("rule", "most probable")
        frame = frame.assign(known=self.known, unlike=self.unlike, tissue=self.tissue)
        frame = frame.assign(mpp=self.mpp, rescaled=self.rescaled, policy=self.policies)
        frame = frame.assign(tiles=self.n_tiles, background_tiles=self.n_background, conversions=self.converted)
        return frame.assign(reason=[printable(reasons.get(name, "")) for name in self.images])

    def by_patient(self) -> pd.DataFrame:
        """Scores of the patients.

        Returns
        -------
        frame : DataFrame
            A row for each patient, in the order of their ids: ``patient``, ``images`` (that could be read),
            ``unreadable``, ``label``, ``mean_<class>`` (mean probability over the images), ``share_<class>`` (share of
            the images that were labelled so); of two classes those of `score_patient` for the positive one, and
            ``threshold`` of the mean and ``threshold_rule``; and ``known``, whether the model was trained on the
            patient or one of the images.

        Raises
        ------
        ValueError
            If the patients are not known.

        Notes
        -----
        Each image of a patient counts the same. The label is positive from the patient threshold of `decision` on the
        mean; without one it is the class of the largest mean. Where no image of a patient could be read the label is
        empty and the numbers are NaN.
        """
        if self.patients is None:
            expected = "ImagePredictions.by_patient: expected predictions with patients"
            raise ValueError(f"{expected}, got none. Give patients=... to predict_images (--patients).")
        return patient_table(self)


#: Pixels in a batch: 48 MB.
_BATCH_PX = 1 << 24


def predict_images(
    model: SavedModel,
    X: Any,
    *,
    mpp: float | ArrayLike | None = None,
    policy: str = "auto",
    patch_size: tuple[int, int] | None = None,
    edges: str = "overlap",
    aggregate: str = "mean",
    min_tissue: float | None = None,
    patients: ArrayLike | PatientRule | None = None,
    on_error: str = "skip",
    runtime: Runtime | None = None,
) -> ImagePredictions:
    """Classify images of any size with a model that was trained on patches of one size.

    Parameters
    ----------
    model : SavedModel
        As from `histofeat.models.load_model`.
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
        The images. Memory is bounded by the largest of them and a batch, not by their number.
    mpp : float or array-like of shape (n,), optional
        Micrometres per pixel of the images; NaN is unknown. By default those of IDC and BreakHis, known by their names
        and sizes, and those that the header tells, see `histofeat.images.image_mpp`. An image that differs by more than
        a quarter from the training is resampled first, see `histofeat.images.rescale`, except by "resize".
    policy : {"auto", "tile", "pad", "resize", "whole"}, default="auto"
        What is done with an image of another size than the training patches. "tile": it is cut into tiles of that
        size, and their probabilities are combined. "resize": it is scaled to that size. "whole": it is measured as it
        is. "auto": tiled where it is larger, mirrored at its border where it is smaller. "pad": the same, also where a
        resampled image is less than half a patch, which is left out otherwise.
    patch_size : tuple of (int, int), optional
        Height and width of the training patches in px; by default those that the model knows.
    edges : {"overlap", "reflect"}, default="overlap"
        Where an image is no multiple of the tile: the last tiles overlap their neighbours, or the image is mirrored.
    aggregate : {"mean", "median", "vote"}, default="mean"
        How tiles become an image; see `histofeat.images.aggregate`.
    min_tissue : float in (0, 1], optional
        Tiles with a smaller share of tissue are left out and counted; None scores all. An image without any tile of
        enough tissue is scored on all of them.
    patients : array-like of shape (n,) or PatientRule, optional
        Patient of each image, or how to find it from the path: kept in the result, and needed by a normaliser with
        ``unit="patient"``.
    on_error : {"raise", "skip"}, default="skip"
        Whether an image that cannot be read raises an error, or is listed in the result.
    runtime : Runtime, optional
        Threads that read images (the pipeline has its own, see `load_model`) and progress; its stage is "predict"
        (images). The feature store is that of the pipeline.

    Returns
    -------
    predictions : ImagePredictions
        A row for each image, in the order of `X`.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or the model has no probabilities.
    PatchError
        If `X` has an unknown form, or with ``on_error="raise"`` an image cannot be read.

    Warns
    -----
    UserWarning
        If the scale of an image is unknown, and that of the model is not. If 16-bit images use 12 bits or fewer.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=6)
    >>> pipeline = IDCPipeline(features="color", head="logistic").fit(cohort.X, cohort.y)
    >>> model = SavedModel(pipeline, {"class_names": ["benign", "malignant"], "patch_size": [50, 50]})
    >>> large = np.full((120, 100, 3), 200, dtype=np.uint8)
    >>> found = predict_images(model, [large, large[:50, :50], large[:20, :50]])
    >>> found.policies, found.n_tiles.tolist()
    (('tile', 'as is', 'pad'), [6, 1, 1])
    """
    check_type("predict_images.model", model, SavedModel, "a SavedModel", "Use load_model, or SavedModel(pipeline).")
    plan = TilePlan(policy, patch_size or model.patch_size, edges, aggregate, min_tissue, model.mpp)
    images = as_images(X)
    names = tuple(images.name(row) for row in range(len(images)))
    check_name("on_error", on_error, ("raise", "skip"))
    if not hasattr(model.pipeline, "predict_proba"):
        got = "model: expected one with probabilities, got one without: its head is not calibrated"
        raise ValueError(f"{got}. Train it again with fit(X, y, groups=patients).")
    if isinstance(patients, PatientRule):
        patients = find_patients(patients, names)
    work = _Work(model, plan, len(images), patients, mpp)
    if work.patients is not None:
        check_one_each("patients", images, work.patients)
    runtime = Runtime.of(runtime)
    decoded = run_ahead(partial(_decode, images, plan, work.mpp), work.order, n_jobs=runtime.n_jobs)
    for done, (row, found, error) in enumerate(decoded, start=1):
        if error is None:
            work.add(row, *found)
        elif on_error == "raise":
            raise error
        else:
            work.unreadable.append((row, names[row], str(error).removeprefix(f"{names[row]}: ")))
        runtime.report("predict", done, len(images))
    work.score()
    work.warn_if_unknown()
    warn_if_dark(work.conversions, f"{work.conversions['dark 16-bit']:,} of {len(images):,} images")
    return work.result(names)


def _decode(images: Images, plan: TilePlan, scales: np.ndarray, row: int) -> tuple:
    """Decode an image, find its scale and prepare its tiles; or give the reason why that cannot be done."""
    try:
        name, content = images.name(row), images.content(row)
        pixels, rules = images.decode(row, content)
        if np.isnan(scales[row]) and images.on_disk:
            scales[row] = mpp_by_name(name, pixels.shape[:2]) or image_mpp(content) or np.nan
        digest = pixel_digests(pixels[None])[0]
        return row, (digest, rules, *plan.prepare(pixels, scales[row], name=name)), None
    except PatchError as error:
        return row, None, error


class _Work:
    """A running prediction: tiles that wait to be scored, and results so far."""

    def __init__(self, model: SavedModel, plan: TilePlan, n: int, patients, mpp):
        self.model, self.plan, self.patients = model, plan, None
        self.tiles, self.owners, self.waiting_px = [], [], 0
        self.scored: dict[int, list[np.ndarray]] = {}
        self.unreadable, self.conversions = [], Counter()
        self.proba = np.full((n, len(model.pipeline.classes_)), np.nan)
        self.policies = np.full(n, "unreadable", dtype=object)
        self.n_tiles, self.n_background = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self.mpp = check_mpp("mpp", mpp, n).copy()
        self.rescaled, self.tissue, self.unlike = np.full((3, n), np.nan)
        self.converted, self.digests = np.full(n, "", dtype=object), np.zeros((n, 16), dtype=np.uint8)
        self.order: Sequence[int] = range(n)
        self.by_patient = getattr(model.pipeline.normalizer_, "unit", "patch") == "patient"
        if patients is not None:
            ids, codes = encode_patients(patients, n, "patients")
            self.patients = tuple(ids[code] for code in codes)
            if self.by_patient:  # the images of a patient must follow each other
                self.order = np.argsort(codes, kind="stable").tolist()
        elif self.by_patient:
            expected = "patients: expected the patient of each image, since this model normalises the stain by patient"
            raise ValueError(f"{expected}, got none. Give patients=... (--patients).")

    def add(self, row: int, digest: np.ndarray, rules: tuple[str, ...], policy: str, tiles, ratio: float) -> None:
        """Add the tiles of an image; score when there are enough."""
        if self.by_patient and self.owners and self.patients[self.owners[-1]] != self.patients[row]:
            self.score()
        self.conversions.update(rules)
        self.converted[row], self.digests[row] = "; ".join(rules), digest
        self.policies[row], self.rescaled[row] = policy, ratio
        least = self.plan.min_tissue if policy == "tile" else None
        shares, background = [], []
        for tile in tiles:
            shares.append(is_tissue(tile).mean())
            if least is not None and shares[-1] < least:
                background.append(tile)
            else:
                self._wait(row, tile)
        self.tissue[row] = np.mean(shares)
        self.n_background[row] = len(background) if self.n_tiles[row] else 0
        for tile in () if self.n_tiles[row] else background:
            self._wait(row, tile)
        if self.waiting_px >= _BATCH_PX and not self.by_patient:
            self.score()

    def _wait(self, row: int, tile: np.ndarray) -> None:
        self.tiles.append(tile)
        self.owners.append(row)
        self.n_tiles[row] += 1
        self.waiting_px += tile.shape[0] * tile.shape[1]
        if self.waiting_px >= 2 * _BATCH_PX and not self.by_patient:
            self.score(unfinished=row)  # one image that is larger than a batch

    def score(self, unfinished: int | None = None) -> None:
        """Score the waiting tiles, and combine the tiles of complete images."""
        if self.tiles:
            groups = {"groups": [self.patients[row] for row in self.owners]} if self.by_patient else {}
            measured, proba = measure_and_score(self.model.pipeline, self.tiles, **groups)
            far = np.full(len(proba), np.nan)
            if measured is not None and self.model.pipeline.rails_ is not None:
                far = self.model.pipeline.rails_.unlike(measured)
            self.conversions.update(getattr(self.model.pipeline.normalizer_, "unchanged_", {}))
            owners = np.array(self.owners)
            for row in dict.fromkeys(self.owners):
                self.scored.setdefault(row, []).append(np.column_stack([far, proba])[owners == row])
            self.tiles, self.owners, self.waiting_px = [], [], 0
        for row in [row for row in self.scored if row != unfinished]:
            tiles = np.concatenate(self.scored.pop(row))
            self.proba[row], self.unlike[row] = put_together(tiles[:, 1:], self.plan.aggregate), np.median(tiles[:, 0])

    def warn_if_unknown(self) -> None:
        """Warn of images without a scale, if the model has one."""
        if self.model.mpp and np.isnan(self.mpp[self.policies != "unreadable"]).any():
            expected = f"the scale of each image, for a model of {self.model.mpp:g} micrometres per pixel"
            got = "none for some. Give mpp=... (--mpp): at another scale, their scores mean nothing."
            warnings.warn(f"predict_images: expected {expected}, got {got}", stacklevel=3)

    def result(self, names: tuple[str, ...]) -> ImagePredictions:
        """Return the predictions."""
        rails, trained = self.model.pipeline.rails_, self.model.pipeline.patients_ or ()
        return ImagePredictions(
            images=names,
            class_names=self.model.class_names,
            proba=self.proba,
            policies=tuple(self.policies),
            mpp=self.mpp,
            rescaled=self.rescaled,
            n_tiles=self.n_tiles,
            n_background=self.n_background,
            unreadable=tuple((name, reason) for _, name, reason in sorted(self.unreadable)),
            patients=self.patients,
            conversions=self.conversions,
            converted=tuple(self.converted),
            tissue=self.tissue,
            unlike=self.unlike,
            known=tuple(rails.knows(self.digests, self.patients, trained) if rails else [""] * len(names)),
            decision=self.model.decision,
        )
