"""Map the patches of a patient by a model: their probabilities at their places on the slide."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets import PatchDataset, open_dataset, probability_columns
from histofeat.exceptions import DatasetError, PatchError, check_name, check_real, check_that, check_type, refuse_first
from histofeat.features import Runtime
from histofeat.images import Slide, as_images, is_tissue
from histofeat.model_selection import canonical_patient
from histofeat.models._prediction import predict_images
from histofeat.models._saved_model import SavedModel
from histofeat.models._slide_maps import SlideMap, mapped_class


def find_patches(dataset: PatchDataset, patient: str | None = None, classes: Sequence[str] | None = None) -> np.ndarray:
    """Find the patches of a patient, each with its place on the slide; no image is read.

    Parameters
    ----------
    dataset : PatchDataset
        With x and y.
    patient : str, optional
        May be left out if there is only one.
    classes : sequence of str, optional
        Those that the data have to have, in any order.

    Returns
    -------
    rows : ndarray of shape (n,), int64

    Raises
    ------
    ValueError
        If there is no such patient.
    DatasetError
        If a patch has no coordinates, two have the same, or the classes are others.
    """
    if classes is not None:
        remedy = f"Rename them, such as classes={','.join(f'{name}=...' for name in classes)!r}."
        same, got = {*dataset.target_names} == {*classes}, ", ".join(dataset.target_names)
        expected = f"the classes of the model, {', '.join(classes)}"
        check_that(dataset.name, got, same, expected, remedy, error=DatasetError)
    known = sorted({*dataset.patients})
    one, remedy = patient is not None or len(known) == 1, f"Give patient={known[0]!r}, or another of them."
    check_that("patient", patient, one, f"one of {len(known):,} patients", remedy)
    name = known[0] if patient is None else canonical_patient(patient)
    check_name("patient", name, known, f"a patient of {dataset.name}")
    rows = np.flatnonzero(dataset.patients == name)
    frame = dataset.frame.iloc[rows]
    lost = [Path(path).name for path in frame.loc[frame[["x", "y"]].isna().any(axis=1), "path"]]
    expected = f"patient {name}: expected the place of each patch on the slide, got none for"
    remedy = "It is in the names of IDC patches, and in the columns x and y of a CSV file."
    refuse_first(lost, expected, remedy, error=DatasetError)
    twice = frame.loc[frame[["x", "y"]].duplicated(), ["x", "y"]].to_numpy(dtype=int).tolist()
    expected = f"patient {name}: expected one patch at each place, got several at [x, y] ="
    refuse_first(twice, expected, "Remove copies; give each slide an id of its own as its patient.", error=DatasetError)
    return rows


def map_patches(dataset: PatchDataset, proba: np.ndarray, **facts: Any) -> SlideMap:
    """Put the probabilities of the patches of a patient at their places.

    Parameters
    ----------
    dataset : PatchDataset
        Of one patient.
    proba : ndarray of shape (n, k), float64
        Class probabilities.
    **facts
        Of the `SlideMap`: "classes", "positive", "threshold", "rule" and "about"; "label" (n,), the labels, where
        they are not made of the probabilities; "min_tissue", the share of tissue that a patch needs.

    Returns
    -------
    slide_map : SlideMap
        With the true classes, and a picture of the tissue if the images can be read.

    Raises
    ------
    DatasetError
        If the sizes of the patches are not known, or patches overlap.
    """
    frame, least = dataset.frame.copy(), facts.pop("min_tissue", None)
    tiles = frame[["x", "y"]].astype(np.int64)
    if dataset.images is not None and "height" not in frame:
        frame[["height", "width"]] = [np.shape(image)[:2] for image in dataset.images]
    remedy = "Add the columns height and width."
    check_that(dataset.name, None, {"height", "width"} <= {*frame}, "sizes of patches", remedy, error=DatasetError)
    tiles[["width", "height"]] = frame[["width", "height"]].astype(np.int64)
    tiles["truth"] = np.array(dataset.target_names, dtype=object)[frame["label"]]
    tiles["tissue"], picture = _picture(dataset, tiles)
    tiles[probability_columns(facts["classes"])] = proba
    tiles = tiles.assign(**{"label": facts.pop("label")} if "label" in facts else {})
    width, height = (int((tiles[at] + tiles[side]).max()) for at, side in (("x", "width"), ("y", "height")))
    facts |= {"source": str(frame["patient"][0]), "thumbnail": picture, "width": width, "height": height}
    facts["mpp"] = dataset.mpp
    facts["about"] = {"data": dataset.name, "synthetic": dataset.synthetic, **facts.get("about", {})}
    return SlideMap(tiles if least is None else tiles[~(tiles["tissue"] < least)], **facts)


def _picture(dataset, tiles):
    """Give the share of tissue of each patch, NaN where it cannot be read, and all in one picture, or None."""
    import cv2

    starts, tissue = tiles[["x", "y"]].to_numpy(), np.full(len(tiles), np.nan)
    ends = starts + tiles[["width", "height"]].to_numpy()
    ratio = min(1.0, Slide.thumbnail_px / ends.max())
    starts, ends = (np.round(corners * ratio).astype(int) for corners in (starts, ends))
    picture, images = np.full((*ends.max(axis=0, initial=1)[::-1], 3), 255, dtype=np.uint8), as_images(dataset.X)
    for at, ((left, top), (right, bottom)) in enumerate(zip(starts, ends, strict=True)):
        with suppress(PatchError):
            pixels = images.decode(at, images.content(at))[0]
            tissue[at] = is_tissue(pixels).mean()
            if right > left and bottom > top:
                size = right - left, bottom - top
                picture[top:bottom, left:right] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return tissue, None if np.isnan(tissue).all() else picture


def map_patient(
    model: SavedModel,
    data: PatchDataset | str | os.PathLike[str],
    patient: str | None = None,
    *,
    target_class: str | None = None,
    threshold: float | None = None,
    min_tissue: float | None = None,
    runtime: Runtime | None = None,
) -> SlideMap:
    """Map the patches of a patient by a model.

    Parameters
    ----------
    model : SavedModel
    data : PatchDataset, or path
        Patches with their places on the slide, such as IDC; a path is opened by `histofeat.datasets.open_dataset`.
    patient : str, optional
        May be left out if there is only one.
    target_class : str, optional
        The class to map; by default the positive one of two.
    threshold : float in [0, 1], optional
        Of two classes, in place of that of the model.
    min_tissue : float in [0, 1], optional
        Leave out patches with less tissue; by default none.
    runtime : Runtime, optional
        As of `predict_images`.

    Returns
    -------
    slide_map : SlideMap
        With the true classes, and a picture of the tissue.

    Raises
    ------
    ValueError
        If there is no such patient or class, or an option is out of its range.
    DatasetError
        If a patch has no coordinates, two are at one place or overlap, or the classes of the data are not those of the
        model.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=6)
    >>> pipeline = IDCPipeline("color", "logistic").fit(cohort.X, cohort.y)
    >>> model = SavedModel(pipeline, {"class_names": cohort.target_names, "patch_size": [50, 50]})
    >>> map_patient(model, cohort, "900001").summary()["tiles"]
    6
    """
    check_type("map_patient.model", model, SavedModel, "a SavedModel", "Use load_model, or SavedModel(pipeline).")
    chosen = mapped_class(model.class_names, model.decision, target_class=target_class, threshold=threshold)
    check_real("min_tissue", min_tissue or 0, "from 0 to 1", lambda share: 0 <= share <= 1, "Use 0.1.")
    dataset = data if isinstance(data, PatchDataset) else open_dataset(data)
    dataset.require_images("map_patient")
    own = dataset.subset(find_patches(dataset, patient, model.class_names))
    found = predict_images(model, own.X, patients=own.patients, mpp=own.frame.get("mpp", own.mpp), runtime=runtime)
    facts = {**chosen, "classes": found.class_names, "min_tissue": min_tissue}
    known = any(found.known) or not {*own.patients}.isdisjoint(model.pipeline.patients_ or ())
    return map_patches(own, found.proba, **facts, about={"known": known})
