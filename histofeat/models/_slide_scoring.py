"""Map a whole slide by a model: its tiles are read, scored and kept in shards, in bounded memory."""

import io
import json
import os
import warnings
from contextlib import closing, suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

import histofeat
from histofeat.datasets import probability_columns, read_array, write_whole
from histofeat.exceptions import DAMAGED, check_that, check_type
from histofeat.features import Runtime
from histofeat.images import Slide, open_slide, read_tiles, scale_ratio, slide_tiles
from histofeat.models._prediction import predict_images
from histofeat.models._saved_model import SavedModel
from histofeat.models._saved_parts import take_apart
from histofeat.models._slide_maps import SlideMap, mapped_class

#: Tiles, and pixels of tiles, that are scored and written together.
_SHARD, _SHARD_PX = 512, 1 << 22
#: The file of a folder that says what its shards are of.
_RECORD = "shards.json"


def map_slide(
    model: SavedModel,
    slide: str | os.PathLike[str],
    *,
    target_class: str | None = None,
    threshold: float | None = None,
    mpp: float | None = None,
    min_tissue: float = 0.1,
    folder: str | os.PathLike[str] | None = None,
    runtime: Runtime | None = None,
) -> SlideMap:
    """Map a whole slide by a model, in tiles of the size and scale of its training patches.

    Parameters
    ----------
    model : SavedModel
        One that knows its patch size and ``mpp``.
    slide : path
        As of `histofeat.images.open_slide`.
    target_class : str, optional
        The class to map; by default the positive one of two.
    threshold : float in [0, 1], optional
        Of two classes, in place of that of the model.
    mpp : float, optional
        Micrometres per pixel of the slide's level 0; by default those that the file states.
    min_tissue : float in [0, 1], default=0.1
        Share of tissue that a tile needs to be scored; see `histofeat.images.slide_tiles`.
    folder : path, optional
        Where scores are kept as they are made, so that an interrupted run resumes. It is made if it does not exist, and
        stays. Scores are reused only if model, slide, tiles and version are the same.
    runtime : Runtime, optional
        Threads that read tiles, and progress; the stage is "map" (tiles).

    Returns
    -------
    slide_map : SlideMap
        With a picture of the slide. A resumed run gives the same scores, bit for bit, as one without a break.

    Raises
    ------
    ValueError
        If the model has no scale, no one patch size or no probabilities, or normalises the stain by patient; if an
        option is out of its range; if `folder` holds the scores of a slide of another name, or other files.
    PatchError
        If the slide cannot be read, has no scale, is smaller than a tile, or holds no tissue.
    OSError
        If `folder` cannot be written.
    MissingExtraError
        If no package for slides is installed.

    Warns
    -----
    UserWarning
        If the scores in `folder` are of another model, slide or option, and are removed; if the slide is coarser than
        the patches of the training by more than a quarter.

    Notes
    -----
    Memory is bounded by the threads, not by the slide: each holds a tile as it is on the level that it is read from.
    Tiles are read row by row, so that neighbours are decoded once.
    """
    check_type("map_slide.model", model, SavedModel, "a SavedModel", "Use load_model, or SavedModel(pipeline).")
    chosen = mapped_class(model.class_names, model.decision, target_class=target_class, threshold=threshold)
    _check_model(model)
    runtime, path = Runtime.of(runtime), Path(slide)
    with open_slide(path, mpp) as opened:
        tiles = slide_tiles(opened, model.patch_size, model.mpp, min_tissue)
        if scale_ratio(opened.mpp, model.mpp) > 1:
            expected = f"{path}: expected at most {model.mpp:g} micrometres per pixel, those of the model"
            warnings.warn(f"{expected}, got {opened.mpp:g}. Enlarged tiles lack fine structures.", stacklevel=2)
        if folder is not None:
            _settle(Path(folder), path, tiles, model)
        proba = _scores(model, opened, tiles, folder and Path(folder), runtime, path)
        tiles[probability_columns(model.class_names)] = proba
        facts = {**chosen, "mpp": opened.mpp, "source": path.name, "thumbnail": opened.thumbnail}
        return SlideMap(tiles, opened.width, opened.height, model.class_names, **facts)


def _check_model(model: SavedModel) -> None:
    """Refuse a model that cannot score tiles, before the slide is read."""
    remedy = "Train it again on patches of one size, with mpp=... (--mpp)."
    check_that("model.patch_size", model.patch_size, model.patch_size, "one size of the training patches", remedy)
    check_that("model.mpp", model.mpp, model.mpp, "a model that knows its micrometres per pixel", remedy)
    unit = getattr(model.pipeline.normalizer_, "unit", "patch")
    remedy = "Train it with a normaliser of unit='patch', or without one."
    check_that("model.normalizer.unit", unit, unit == "patch", "'patch' for a slide, which is read in parts", remedy)
    predict_images(model, [np.full((*model.patch_size, 3), 255, np.uint8)], mpp=model.mpp)


def _settle(folder: Path, slide: Path, tiles: pd.DataFrame, model: SavedModel) -> None:
    """Make the folder of the shards; remove those of another model, slide or option."""
    found, record, before = slide.stat(), folder / _RECORD, {}
    known = dict(model.description) or take_apart(model.pipeline)
    facts = {
        "slide": slide.name,
        "file": [found.st_size, found.st_mtime_ns],
        "tiles": sha256(tiles.to_numpy().tobytes()).hexdigest(),
        "model": joblib.hash([known, dict(model.about)]),
        "version": histofeat.__version__,
    }
    others = sorted(file.name for file in folder.glob("[!.]*"))
    with suppress(*DAMAGED):  # there may be none
        before = dict(json.loads(record.read_text()))
    got = before.get("slide", slide.name) if record.name in others or not others else f"another file, {others[0]}"
    expected, remedy = f"scores of {slide.name} or an empty folder", "Give another folder."
    check_that(str(folder), got, got == slide.name, expected, remedy)
    changed = [name for name in facts if facts[name] != before.get(name)]
    if others and changed:
        words = f"{folder}: expected scores of the same model, slide and options, got those of another"
        warnings.warn(f"{words} {', '.join(changed)}. They are removed, and all tiles are scored.", stacklevel=3)
        for file in folder.glob("tiles-*.npy"):
            file.unlink()
    if changed:
        with write_whole(record, overwrite=True, parents=True) as part:
            part.write_text(json.dumps(facts, indent=1))


def _scores(model: SavedModel, slide: Slide, tiles: pd.DataFrame, folder: Path | None, runtime: Runtime, path: Path):
    """Score tiles in shards, as far as `folder` lacks them: probabilities (n, k)."""
    height, width = model.patch_size
    # Shards are always the same: the last digits of a score can depend on what is scored with it.
    step = max(1, min(_SHARD, _SHARD_PX // (height * width)))
    numbers = np.arange(len(tiles)) // step
    files = [(folder or Path()) / f"tiles-{number:06}.npy" for number in range(numbers[-1] + 1)]
    shapes = [(n, len(model.class_names)) for n in np.bincount(numbers).tolist()]
    kept = [_kept(*each) if folder else None for each in zip(files, shapes, strict=True)]
    missing = [number for number, proba in enumerate(kept) if proba is None]
    chosen = np.isin(numbers, missing)
    done = int((~chosen).sum())
    if runtime.cluster is None:
        scored = _in_turn(model, slide, tiles[chosen], [shapes[number][0] for number in missing], runtime)
    else:
        known = model, path, slide.mpp
        scored = runtime.each(lambda number: runtime.call(_score, *known, tiles[numbers == number]), missing)
    with closing(scored):  # its threads read no more when the slide is closed after an error
        for number, proba in zip(missing, scored, strict=True):
            kept[number] = proba
            if folder is not None:
                np.save(content := io.BytesIO(), proba)
                with write_whole(files[number], overwrite=True) as part:
                    part.write_bytes(content.getvalue())  # of a full disk, NumPy does not say what is wrong
            done += len(proba)
            runtime.report("map", done, len(tiles))
    return np.concatenate(kept)


def _in_turn(model: SavedModel, slide: Slide, tiles: pd.DataFrame, sizes: list[int], runtime: Runtime):
    """Yield the scores of shards of tiles; the next ones are read meanwhile."""
    with closing(read_tiles(slide, tiles, model.patch_size, n_jobs=runtime.n_jobs)) as pixels:
        for size in sizes:
            quiet = Runtime(n_jobs=runtime.n_jobs, progress=False)
            yield predict_images(model, [*islice(pixels, size)], mpp=model.mpp, runtime=quiet).proba


def _score(model: SavedModel, path: Path, mpp: float, tiles: pd.DataFrame) -> np.ndarray:
    """Score the tiles of a shard on a worker, which opens the slide itself."""
    with open_slide(path, mpp) as slide:
        return next(_in_turn(model, slide, tiles, [len(tiles)], Runtime(progress=False)))


def _kept(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Scores of a shard; None where there are none."""
    with suppress(*DAMAGED):
        proba = read_array(file.read_bytes())
        return proba if proba.shape == shape else None
    return None
