"""Draw a `SlideMap` and write it for people and programs: picture, table, GeoJSON, mask and numbers."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

import histofeat
from histofeat.datasets import csv_text, printable, probability_columns
from histofeat.evaluation import Evaluation
from histofeat.exceptions import check_name, check_that, check_type
from histofeat.models import SlideMap, find_patches, map_patches, mapped_class
from histofeat.reporting import _canvas as canvas
from histofeat.reporting._displays import Display
from histofeat.reporting._folder import finish, new_folder, write_files
from histofeat.reporting._galleries import best_model, private_folder, write_album
from histofeat.reporting._payload import chosen_models, model_key
from histofeat.reporting._strict_json import PathLike, jsonable
from histofeat.reporting._text import number, percent

#: The file that makes a folder a finished map.
MAP = "map.json"
_PANELS = {"tissue": "tissue", "probability": "probability of {}", "truth": "true {}", "errors": "errors"}
#: Colours of tiles in the panel of errors, in which right ones recede.
_ERRORS = {"right, other": "#e3e3e3", "right, {}": "#a6a6a6", "missed {}": "#b2182b", "false alarm": "#2e8bc0"}


def map_panels(slide_map, *, tissue=True):
    """Return the names of the panels that can be drawn."""
    known = "truth" in slide_map.tiles
    shown = {"tissue": tissue and slide_map.thumbnail is not None, "truth": known, "errors": known}
    return [name for name in _PANELS if shown.get(name, True)]


def map_title(slide_map):
    """Return the heading of a map: what it is of, how much is positive and from which probability, how right it is."""
    found, about, cut = slide_map.summary(), slide_map.about, slide_map.threshold
    whose = "SYNTHETIC cohort" if about.get("synthetic") else about.get("data")
    area = f"{found['positive_tiles']:,} tiles" if slide_map.mpp is None else f"{found['area_mm2']:.3g} mm²"
    whole = "mapped area" if slide_map.tiles["tissue"].isna().all() else "tissue"
    words = [f"{slide_map.positive} {area}, {percent(found['share_of_tissue'])} of the {whole}"]
    words += [slide_map.rule if cut is None else f"positive from p = {cut:.2f} ({slide_map.rule})"]
    words += [f"ROC-AUC {number(found['truth']['roc_auc'])}"] if found["truth"] else []
    words += ["THE MODEL WAS TRAINED ON IT"] if about.get("known") else []
    name = f"{whose}, patient {slide_map.source.removeprefix('patient ')}" if whose else slide_map.source
    return printable(f"{name}: {'; '.join(words)}")


def draw_map(slide_map, *, tissue=True):
    """Draw the panels of a map in one figure."""
    names, (left, right, top, bottom) = map_panels(slide_map, tissue=tissue), _ends(slide_map)
    ratio = 1.1 * (bottom - top) / (right - left)
    n_columns = 2 if len(names) == 4 and ratio < 1.6 else len(names)
    height = 6.9 / n_columns * ratio * -(-len(names) // n_columns)
    figure = canvas.new_figure(8.0, min(24.0, max(1.5, height) + (1.2 if "errors" in names else 0.8)))
    grid = canvas.panels(figure, len(names), n_columns)
    for axes, name in zip(grid, names, strict=True):
        draw_panel(axes, slide_map, name)
        axes.set_title(canvas.short(_PANELS[name].format(slide_map.positive), 40), fontsize=9, color=canvas.INK)
    _color_bar(figure, grid, slide_map)
    squares = [canvas.handle(marker="s", linestyle="", color=color) for color in _ERRORS.values()]
    kinds = [name.format(slide_map.positive) for name in _ERRORS]
    canvas.legend_below(figure, [*zip(squares, kinds, strict=True)] if "errors" in names else [])
    canvas.put_title(figure, map_title(slide_map))
    return figure


def _color_bar(figure, axes, slide_map):
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap="viridis"), ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(canvas.short(f"p ({slide_map.positive})"), color=canvas.INK)


def _ends(slide_map):
    """Return left, right, top and bottom of what the tiles cover."""
    x, y, width, height = (slide_map.tiles[name] for name in ("x", "y", "width", "height"))
    return x.min(), (x + width).max(), y.min(), (y + height).max()


def draw_panel(axes, slide_map, name):
    """Draw one panel of a map: tissue with the outline of positive tiles, their probability, the truth or the errors.

    Each has a scale bar below; colours of the probability rise evenly in brightness, so that it reads in grey.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    (left, right, top, bottom), tiles = _ends(slide_map), slide_map.tiles
    if name == "tissue":
        whole = (0, slide_map.width, slide_map.height, 0)
        shown = axes.imshow(slide_map.thumbnail, extent=whole, interpolation="antialiased")
        shown.set_clip_path(Rectangle((left, top), right - left, bottom - top, transform=axes.transData))
    else:
        true, called = tiles.get("truth") == slide_map.positive, slide_map.predicted
        values, style = slide_map.probability if name == "probability" else true, {"cmap": "viridis", "vmax": 1}
        if name == "errors":
            values = np.select([true & called, true, called], [1, 2, 3], 0)
            style = {"cmap": ListedColormap([*_ERRORS.values()]), "vmax": 3}
        x, y, picture = slide_map.paint(np.where(tiles["label"] == "", np.nan, values), np.nan)
        axes.pcolormesh(x, y, np.ma.masked_invalid(picture), vmin=0, **style)
    if name in ("tissue", "probability"):
        rings = [np.vstack([ring, [[np.nan] * 2]]) for rings in slide_map.regions() for ring in rings]
        for width, color in ((1.8, "black"), (0.9, "white")) if rings else ():
            axes.plot(*np.vstack(rings).T, color=color, linewidth=width, solid_joinstyle="miter")
    size = max(right - left, bottom - top)
    axes.set(xlim=(left - 0.01 * size, right + 0.01 * size), ylim=(bottom + 0.08 * size, top - 0.01 * size))
    axes.set_aspect("equal")
    axes.set_axis_off()
    length, words = scale_bar(0.3 * (right - left), slide_map.mpp)
    axes.plot([left, left + length], [bottom + 0.04 * size] * 2, color=canvas.INK, linewidth=2, solid_capstyle="butt")
    axes.text(left + length, bottom + 0.04 * size, f"  {words}", fontsize=8, color=canvas.INK, va="center")


def scale_bar(longest, mpp):
    """Return a round length of at most `longest` px, in px and in words.

    Examples
    --------
    >>> scale_bar(700, 4.0), scale_bar(70, 0.5), scale_bar(70, None)
    ((500.0, '2 mm'), (40.0, '20 µm'), (50.0, '50 px'))
    """
    size = longest * (mpp or 1)
    power = 10.0 ** np.floor(np.log10(size))
    length = float(max(n * power for n in (1, 2, 5) if n * power <= size))
    words = f"{length:g} px" if mpp is None else f"{length / 1000:g} mm" if length >= 500 else f"{length:g} µm"
    return length / (mpp or 1), words


class SlideMapDisplay(Display):
    """One panel of a `SlideMap`: tissue with the outline of positive tiles, their probability, the truth or the errors.

    Parameters
    ----------
    slide_map : SlideMap
    panel : {"probability", "tissue", "truth", "errors"}, default="probability"
        The last two need the truth, and "tissue" a picture.

    Raises
    ------
    ValueError
        If there is no such panel of this map.

    Examples
    --------
    >>> from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> evaluation = evaluate(cohort, IDCPipeline("color", "logistic"), folds, inner_cv=folds, n_resamples=50)
    >>> SlideMapDisplay.from_evaluation(evaluation, "900003").slide_map.summary()["tiles"]
    8
    """

    def __init__(self, slide_map: SlideMap, panel: str = "probability"):
        check_type("SlideMapDisplay", slide_map, SlideMap, "a SlideMap", "Give what map_slide or map_patient returned.")
        check_name("panel", panel, map_panels(slide_map), "a panel that this map has")
        super().__init__({"panel": panel, "data_label": canvas.wrapped(map_title(slide_map), 6.4, 9)})
        self.slide_map = slide_map

    @classmethod
    def from_evaluation(cls, evaluation: Evaluation, patient: str, *, ax: Any = None, **options: Any) -> Self:
        """Draw the out-of-fold probabilities of a patient.

        Parameters
        ----------
        evaluation : Evaluation
        patient : str
        ax : matplotlib axes, optional
            Where to draw; a new figure by default.
        **options
            "model", such as "handcrafted/xgboost", by default that of the highest ROC-AUC; "target_class", the class to
            map, by default the positive one of two; "panel".

        Returns
        -------
        display : SlideMapDisplay

        Raises
        ------
        ValueError
            If there is no such patient, model, class or panel, or the patient was not tested.
        DatasetError
            If the places of the patches are not known, or two are the same.
        """
        panel = options.pop("panel", "probability")
        return cls(evaluation_map(evaluation, patient, **options), panel).plot(ax)

    def _draw(self, axes):
        draw_panel(axes, self.slide_map, self.data["panel"])
        if self.data["panel"] in ("probability", "truth"):
            _color_bar(axes.figure, axes, self.slide_map)


def evaluation_map(evaluation, patient, model=None, target_class=None):
    """Return the out-of-fold probabilities of a patient as a `SlideMap`, labels at the threshold of the fold."""
    check_type("evaluation", evaluation, Evaluation, "an Evaluation", "Give what evaluate returned.")
    evaluation = evaluation.positive_last
    dataset, classes = evaluation.dataset, evaluation.labels
    (found,) = [best_model(evaluation)] if model is None else chosen_models(evaluation, [model], "model")
    rows = find_patches(dataset, patient)
    rows = rows[evaluation.tested[rows]]
    check_that("patient", patient, len(rows), "one that was tested", "Choose one of evaluation.by_patient().")
    cut = min({found.thresholds[fold] for fold in evaluation.fold[rows]}) if found.thresholds else 0.5
    decision = {"positive": dataset.positive, "rule": evaluation.protocol.get("threshold", "given"), "value": cut}
    facts = mapped_class(classes, decision, target_class=target_class)
    facts["label"] = np.array(classes, dtype=object)[found.predicted_tuned[rows]]
    facts["about"] = {"model": model_key(found.name, found.head)}
    return map_patches(dataset.subset(rows), found.proba[rows], classes=classes, **facts)


def map_features(slide_map):
    """Return a map as a GeoJSON FeatureCollection in pixels of the slide, as QuPath imports it.

    Tiles are objects of the type "tile" with their class and measurements; outlines of the positive tiles are
    annotations.
    """
    others = [name for name in slide_map.classes if name != slide_map.positive]
    colors = {"": "#888888", slide_map.positive: _ERRORS["missed {}"]}
    colors |= {name: canvas.line_of(at)[0] for at, name in enumerate(others)}
    measured = slide_map.tiles[["tissue", *probability_columns(slide_map.classes)]].to_dict("records")

    def feature(kind, rings, name, numbers):
        numbers = {key: value for key, value in numbers.items() if np.isfinite(value)}  # JSON has no NaN
        named = {"name": name or "unread", "color": [int(colors[name][at : at + 2], 16) for at in (1, 3, 5)]}
        about = {"objectType": kind, "classification": named, "measurements": numbers}
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": about}

    outlines = [feature("annotation", rings, slide_map.positive, {}) for rings in slide_map.regions()]
    tiles = slide_map.tiles[["x", "y", "width", "height", "label"]].itertuples(index=False)
    boxes = ([[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]] for x, y, w, h, _ in tiles)
    kinds = zip(boxes, slide_map.tiles["label"], measured, strict=True)
    squares = [feature("tile", [box], *kind) for box, *kind in kinds]
    return jsonable({"type": "FeatureCollection", "features": [*squares, *outlines]})


def map_mask(slide_map):
    """Return a picture of the whole slide, a pixel a tile: 255 positive, 127 another tile, 0 none; (h, w) uint8."""
    x, y, picture = slide_map.paint(np.where(slide_map.predicted, 255, 127).astype(np.uint8), 0)
    step, ends = slide_map.tiles["width"].median(), ((y, slide_map.height), (x, slide_map.width))
    # What lies at the middle of each pixel; outside of all tiles lies the frame of the picture.
    rows, columns = (np.searchsorted(at, (np.arange(max(1, round(size / step))) + 0.5) * step) for at, size in ends)
    return np.pad(picture, 1)[np.ix_(rows, columns)]


def write_map(slide_map: SlideMap, output: PathLike, *, tissue: bool = True, overwrite: bool = False) -> Path:
    """Write a map into a folder, whole or not at all.

    Parameters
    ----------
    slide_map : SlideMap
    output : path-like
        The folder; made when it is not there.
    tissue : bool, default=True
        Whether the picture shows the tissue; without it, it holds no pixel of a patient.
    overwrite : bool, default=False
        Whether to replace a finished map; only its own files are removed.

    Returns
    -------
    path : Path
        ``map.json`` in `output`.

    Raises
    ------
    FileExistsError
        If `output` is a file, holds a finished map and `overwrite` is false, or holds files of something else.

    Notes
    -----
    Files: ``map.png``; ``tiles.csv``, the tiles of the map; ``tiles.geojson``, tiles and outlines in pixels of the
    slide, which QuPath opens; ``mask.png``, one pixel a tile: 255 positive, 127 other, 0 none; ``map.json``, the
    record, its summary and what it was made by.
    """
    import cv2

    check_type("write_map", slide_map, SlideMap, "a SlideMap", "Give what map_slide or map_patient returned.")
    with new_folder(output, overwrite=overwrite, finished=MAP) as folder:
        words = "".join(map(str, (*slide_map.classes, slide_map.source, slide_map.about)))
        canvas.save_picture(partial(draw_map, tissue=tissue), slide_map, folder / "map.png", words)
        shapes = json.dumps(map_features(slide_map), ensure_ascii=False, separators=(",", ":"))
        write_files(folder, {"tiles.csv": csv_text(slide_map.tiles), "tiles.geojson": f"{shapes}\n"})
        (folder / "mask.png").write_bytes(cv2.imencode(".png", map_mask(slide_map))[1].tobytes())
        facts = ("source", "width", "height", "mpp", "classes", "positive", "threshold", "rule")
        known = {"histofeat": histofeat.__version__, **{name: getattr(slide_map, name) for name in facts}}
        finish(folder, jsonable({**known, **slide_map.summary(), **slide_map.about}), MAP)
    return Path(output) / MAP


def write_maps(evaluation, payload, folder, n_patients):
    """Write the out-of-fold maps of the hardest patients into the folder ``maps`` of a report; return what was written.

    They are of the model of the highest ROC-AUC; patients whose patches have no places are left out.
    """
    place, best = private_folder(folder / "maps", synthetic=payload["dataset"]["synthetic"]), best_model(evaluation)
    model, scores, items = model_key(best.name, best.head), evaluation.by_patient(), []
    frame = evaluation.dataset.frame
    nowhere = {*frame.loc[frame[["x", "y"]].isna().any(axis=1), "patient"]}
    scores = scores[(scores["model"] == model) & ~scores["patient"].isin(nowhere)]
    for row in scores.head(n_patients).to_dict("records"):
        found = evaluation_map(evaluation, row["patient"], model)
        named = {"patient": row["patient"].removeprefix("patient "), "file": f"{len(items) + 1:03d}.png"}
        items.append({**row, **found.summary()["truth"], **named})
        canvas.save_picture(draw_map, found, place / items[-1]["file"], f"{evaluation.labels}{row['patient']}")
    write_album(place, "maps", f"Maps: {payload['title']}", payload, {"model": model, "items": jsonable(items)})
    return {"model": model, "n_patients": len(items)}
