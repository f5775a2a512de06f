"""Map the patches of a patient by a model: their probabilities at their places on the slide."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets import PatchDataset, open_dataset, probability_columns
from histofeat.exceptions import DatasetError, PatchError, check_name, check_that, check_type, refuse_first
from histofeat.features import Runtime
from histofeat.images import as_images, is_tissue
from histofeat.model_selection import canonical_patient
from histofeat.models._prediction import predict_images
from histofeat.models._saved_model import SavedModel
from histofeat.models._slide_maps import SlideMap, mapped_class

#: Pixels of the longer side of a thumbnail, and of a patch until it is put into one, at most.
THUMBNAIL_PX, PATCH_PX = 2000, 128


def patient_tiles(
    dataset: PatchDataset, patient: str | None = None, *, where: str = "map_patient"
) -> tuple[np.ndarray, pd.DataFrame, np.ndarray | None]:
    """Give the patches of a patient as tiles at their places.

    Parameters
    ----------
    dataset : PatchDataset
        With x and y.
    patient : str, optional
        May be left out if there is only one.
    where : str
        What an error names.

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Rows of the patches in the data set.
    tiles : DataFrame of shape (n, 6)
        Their rectangles, ``tissue`` (NaN where an image cannot be read) and ``truth``.
    thumbnail : ndarray of shape (h, w, 3), uint8, or None
        The patches in one picture; None if none can be read.

    Raises
    ------
    ValueError
        If there is no such patient.
    DatasetError
        If a patch has no coordinates, or two have the same.
    """
    known = sorted({*dataset.patients})
    one, remedy = patient is not None or len(known) == 1, f"Give patient={known[0]!r}, or another of them."
    check_that(f"{where}.patient", patient, one, f"one of {len(known):,} patients", remedy)
    name = known[0] if patient is None else canonical_patient(patient)
    check_name(f"{where}.patient", name, known, f"a patient of {dataset.name}")
    rows = np.flatnonzero(dataset.patients == name)
    frame = dataset.frame.iloc[rows].reset_index(drop=True)
    lost = [Path(path).name for path in frame.loc[frame[["x", "y"]].isna().any(axis=1), "path"]]
    expected = f"patient {name}: expected the place of each patch on the slide, got none for"
    remedy = "It is in the names of IDC patches, and in the columns x and y of a CSV file."
    refuse_first(lost, expected, remedy, error=DatasetError)
    tiles = frame[["x", "y"]].astype(np.int64)
    twice = tiles[tiles.duplicated()].itertuples(index=False, name=None)
    expected = f"patient {name}: expected one patch at each place, got several at (x, y) ="
    refuse_first(twice, expected, "Remove copies; give each slide an id of its own as its patient.", error=DatasetError)
    patches = list(_patches(dataset, rows))
    for at, side in enumerate(("height", "width")):
        sizes = pd.Series([shape[at] for shape, *_ in patches])
        sizes = sizes.fillna(frame[side].astype(float)) if side in frame else sizes
        lost = [Path(path).name for path in frame.loc[sizes.isna(), "path"]]
        remedy = "Restore the image, or leave it out."
        refuse_first(lost, f"patient {name}: expected patches of a known size, got", remedy, error=DatasetError)
        tiles[side] = sizes.astype(np.int64)
    tiles["tissue"] = [tissue for _, tissue, _ in patches]
    tiles["truth"] = np.array(dataset.target_names, dtype=object)[dataset.y[rows]]
    return rows, tiles, _pasted(tiles, [pixels for *_, pixels in patches])


def _patches(dataset, rows):
    """Yield the shape of each image, its share of tissue and its pixels, reduced; NaN and None where it is unread."""
    import cv2

    images = None if dataset.lacks_images else as_images(dataset.X)
    for row in rows.tolist():
        found = (np.nan, np.nan), np.nan, None
        with suppress(PatchError):
            pixels = images and images.decode(row, images.content(row))[0]
            if pixels is not None:
                size = [max(1, round(side * min(1, PATCH_PX / max(pixels.shape)))) for side in pixels.shape[1::-1]]
                small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
                found = pixels.shape[:2], is_tissue(pixels).mean(), small
        yield found


def _pasted(tiles, patches):
    """Put patches into one picture on white, reduced; None where there are none."""
    import cv2

    starts = tiles[["x", "y"]].to_numpy()
    ends = starts + tiles[["width", "height"]].to_numpy()
    ratio = min(1.0, THUMBNAIL_PX / ends.max())
    starts, ends = (np.round(corners * ratio).astype(int) for corners in (starts, ends))
    picture = np.full((*ends.max(axis=0)[::-1], 3), 255, dtype=np.uint8)
    for (left, top), (right, bottom), pixels in zip(starts, ends, patches, strict=True):
        if pixels is not None and right > left and bottom > top:
            size = right - left, bottom - top
            picture[top:bottom, left:right] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return None if all(pixels is None for pixels in patches) else picture


def map_patient(
    model: SavedModel,
    data: PatchDataset | str | os.PathLike[str],
    patient: str | None = None,
    *,
    target_class: str | None = None,
    threshold: float | None = None,
    mpp: float | None = None,
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
    mpp : float, optional
        Micrometres per pixel, in place of those of the data.
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
    dataset = data if isinstance(data, PatchDataset) else open_dataset(data)
    remedy = f"Rename them: classes={','.join(f'{name}=...' for name in model.class_names)!r}."
    same, expected = {*dataset.target_names} == {*model.class_names}, f"the classes {', '.join(model.class_names)}"
    check_that(dataset.name, ", ".join(dataset.target_names), same, expected, remedy, error=DatasetError)
    dataset.require_images("map_patient")
    rows, tiles, thumbnail = patient_tiles(dataset, patient)
    owners = dataset.patients[rows]
    found = predict_images(model, dataset.X[rows], patients=owners, runtime=runtime)
    tiles[probability_columns(found.class_names)] = found.proba
    facts = {**chosen, "mpp": mpp or getattr(dataset, "mpp", None), "source": str(owners[0]), "thumbnail": thumbnail}
    size = [int((tiles[at] + tiles[side]).max()) for at, side in (("x", "width"), ("y", "height"))]
    kept = tiles if min_tissue is None else tiles[~(tiles["tissue"] < min_tissue)]
    return SlideMap(kept, *size, found.class_names, **facts)
