"""`SlideMap`: class probabilities of the tiles of a slide, or patches of a patient, with areas, foci and outlines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import probability_columns
from histofeat.exceptions import DatasetError, check_name, check_real, check_that
from histofeat.metrics import most_probable, plain_values, scores

_PLACE = ("x", "y", "width", "height")
#: Tiles along a side of a slide at most: a mask has a pixel for each.
_LARGEST = 30_000


@dataclass(frozen=True, eq=False)
class SlideMap:
    """Class probabilities of the tiles of one slide, or of the patches of one patient.

    Parameters
    ----------
    tiles : DataFrame of shape (n, ...)
        ``x``, ``y``, ``width`` and ``height``: the rectangle of each tile in pixels of the slide (level 0), from the
        upper left corner; ``tissue``, the share of it that is tissue; ``p_<class>`` for each class, NaN where the tile
        could not be read. Optional: ``truth``, the name of the true class, and ``label``, that of the predicted one,
        which is made of the probabilities otherwise. ``x_um`` and ``y_um`` are added where `mpp` is known.
    width, height : int
        Of the slide in pixels.
    classes : tuple of str
        In the order of the probabilities.
    positive : str
        The class that is mapped.
    threshold : float in [0, 1] or None
        Of two classes, a tile is positive from this probability on; of more, a tile has the most probable class, and
        there is none.
    rule : str
        How the threshold was chosen; at 0.5 and "most probable", of equal probabilities the first class counts.
    mpp : float, optional
        Micrometres per pixel.
    source : str
        Name of the slide or patient.
    about : mapping
        What else is known, such as the model and its hash; JSON values.
    thumbnail : ndarray of shape (h, w, 3), uint8, optional
        The whole slide, reduced.

    Raises
    ------
    ValueError
        If there is no tile, two overlap, or a side of the slide is longer than 30,000 of them.

    Examples
    --------
    >>> tiles = pd.DataFrame({"x": [0, 50], "y": [0, 0], "width": 50, "height": 50, "tissue": 1.0})
    >>> tiles = tiles.assign(**{"p_benign": [0.9, 0.2], "p_tumour": [0.1, 0.8]})
    >>> found = SlideMap(tiles, 100, 50, ("benign", "tumour"), "tumour", mpp=4.0)
    >>> found.tiles["label"].tolist(), found.summary()["area_mm2"]
    (['benign', 'tumour'], 0.04)
    """

    tiles: pd.DataFrame = field(repr=False)
    width: int
    height: int
    classes: tuple[str, ...]
    positive: str
    threshold: float | None = 0.5
    rule: str = "most probable"
    mpp: float | None = None
    source: str = ""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    thumbnail: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        names, tiles = tuple(self.classes), self.tiles.reset_index(drop=True)
        check_that("SlideMap.tiles", len(tiles), len(tiles), "one tile or more", "Ask for less tissue by min_tissue.")
        if "label" not in tiles:
            proba, at = tiles[probability_columns(names)].to_numpy(), names.index(self.positive)
            cut = len(names) == 2 and (self.rule, self.threshold) != ("most probable", 0.5)
            called = np.where(proba[:, at] >= self.threshold, at, 1 - at) if cut else most_probable(proba)
            tiles["label"] = np.where(np.isnan(proba).any(axis=1), "", np.array(names, dtype=object)[called])
        if self.mpp is not None:
            tiles = tiles.assign(x_um=tiles["x"] * self.mpp, y_um=tiles["y"] * self.mpp)
        order = [*_PLACE, "x_um", "y_um", "tissue", "label", *probability_columns(names), "truth"]
        vars(self).update(tiles=tiles[[name for name in order if name in tiles]], classes=names, about=dict(self.about))
        x, y, covered = self.paint(np.ones(len(tiles)), 0.0)
        sizes = int(self._areas.sum()), int(np.diff(y) @ covered @ np.diff(x))
        got, remedy = "{:,} px of tiles on {:,} px".format(*sizes), "Correct x and y, their upper left corners in px."
        where = self.source or "SlideMap"
        check_that(where, got, sizes[0] == sizes[1], "tiles that do not overlap", remedy, error=DatasetError)
        side = max(self.width / self.tiles["width"].median(), self.height / self.tiles["height"].median())
        expected = f"a slide of at most {_LARGEST:,} tiles a side"
        check_that(where, f"{side:,.0f}", side <= _LARGEST, expected, remedy, error=DatasetError)

    @cached_property
    def _edges(self):
        """Lines across y and x at which tiles begin or end. Between them lie cells; a tile fills one or several."""
        ends = ((self.tiles[at], self.tiles[at] + self.tiles[size]) for at, size in (("y", "height"), ("x", "width")))
        return [np.unique(pair) for pair in ends]

    @cached_property
    def _cells(self):
        """Cells of each tile, as a slice of rows and one of columns."""
        x, y, width, height = (self.tiles[name].to_numpy() for name in _PLACE)
        ends = [np.searchsorted(self._edges[0], [y, y + height]), np.searchsorted(self._edges[1], [x, x + width])]
        return [(slice(*rows), slice(*columns)) for rows, columns in zip(ends[0].T, ends[1].T, strict=True)]

    #: Pixels of each tile.
    _areas = property(lambda self: (self.tiles["width"] * self.tiles["height"]).to_numpy())

    @property
    def probability(self) -> np.ndarray:
        """Probability of the positive class, ndarray (n,); NaN where a tile could not be read."""
        return self.tiles[probability_columns(self.classes)[self.classes.index(self.positive)]].to_numpy()

    @property
    def predicted(self) -> np.ndarray:
        """Whether the label of each tile is the positive class, ndarray (n,) bool."""
        return (self.tiles["label"] == self.positive).to_numpy()

    def paint(self, values: np.ndarray, empty: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put a value for each tile at its place.

        Parameters
        ----------
        values : ndarray of shape (n,)
            Of the tiles.
        empty : object
            Value where no tile is.

        Returns
        -------
        x, y : ndarray of shape (columns + 1,) and (rows + 1,)
            Edges of columns and rows in pixels of the slide. Tiles need not lie on a regular grid.
        picture : ndarray of shape (rows, columns)
        """
        picture = np.full([len(edges) - 1 for edges in self._edges], empty, dtype=np.asarray(values).dtype)
        for value, cells in zip(values, self._cells, strict=True):
            picture[cells] = value
        return self._edges[1], self._edges[0], picture

    def regions(self) -> list[list[np.ndarray]]:
        """Outline the positive tiles.

        Returns
        -------
        polygons : list of list of ndarray (m, 2), int64
            Of each polygon its rings, the outer one first, then holes: x and y of corners of tiles in pixels of the
            slide, the first again at the end. Areas are those of the tiles. The area of an outer ring is
            positive by the shoelace formula, that of a hole negative, as RFC 7946 asks. Tiles that touch at a corner
            only are in different polygons.
        """
        import cv2

        filled = self.paint(self.predicted.astype(np.uint8), 0)[2]
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats(filled, connectivity=4)
        polygons = []
        for number, (left, top, width, height, _) in enumerate(boxes[1:], start=1):
            part = numbers[top : top + height, left : left + width] == number
            # Three pixels a cell: the outline runs through pixels, and so each corner of a cell has one of its own.
            pixels = np.kron(part, np.ones((3, 3))).astype(np.uint8)
            found, (of,) = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            polygons.append([self._ring(found[at][::-1, 0], (left, top)) for at in np.argsort(of[:, 3], kind="stable")])
        return polygons

    def _ring(self, pixels, corner):
        """Corners of tiles along an outline through pixels, three of which are a cell."""
        nodes = (pixels[(pixels % 3 != 1).all(axis=1)] + 1) // 3
        nodes = nodes[(nodes != np.roll(nodes, 1, axis=0)).any(axis=1)]
        steps = np.sign(nodes - np.roll(nodes, 1, axis=0))
        columns, rows = (nodes[(steps != np.roll(steps, -1, axis=0)).any(axis=1)] + corner).T
        ring = np.column_stack([self._edges[1][columns], self._edges[0][rows]])
        return np.vstack([ring, ring[:1]])

    def summary(self) -> dict[str, Any]:
        """Areas, and scores where the truth is known.

        Returns
        -------
        summary : dict
            "tiles", "unreadable", "positive_tiles"; "area_mm2" of the positive tiles, "foci" (their number) and
            "largest_focus_mm2", tiles that touch at an edge or a corner being one focus; None without `mpp`;
            "share_of_tissue", the share of the tissue that lies in positive tiles; "truth": "positive_tiles",
            "missed", "false_alarms" and the scores "roc_auc", "sensitivity" and "specificity" within the slide (None
            where undefined), or None.
        """
        import cv2

        area, predicted, read = self._areas, self.predicted, (self.tiles["label"] != "").to_numpy()
        tissue = self.tiles["tissue"].fillna(1.0).to_numpy() * area
        _, numbers = cv2.connectedComponents(self.paint(predicted.astype(np.uint8), 0)[2], connectivity=8)
        foci = np.bincount([numbers[cells].flat[0] for cells in self._cells], area * predicted)[1:]
        mm2 = np.nan if self.mpp is None else (self.mpp / 1000) ** 2
        found = {"tiles": len(area), "unreadable": (~read).sum(), "positive_tiles": predicted.sum()}
        found |= {"area_mm2": round(area[predicted].sum() * mm2, 9), "foci": len(foci)}
        found |= {"largest_focus_mm2": round(foci.max(initial=0) * mm2, 9)}
        found["share_of_tissue"] = tissue[predicted].sum() / tissue[read].sum() if tissue[read].any() else np.nan
        return plain_values({**found, "truth": self._against_truth(read)})

    def _against_truth(self, read):
        """Compare with the truth; None where it is not known."""
        if "truth" not in self.tiles or not read.any():
            return None
        y, predicted = (self.tiles["truth"] == self.positive).to_numpy()[read], self.predicted[read]
        found = scores(y, np.column_stack([1 - self.probability, self.probability])[read], predicted.astype(int))
        counts = {"positive_tiles": y.sum(), "missed": (y & ~predicted).sum(), "false_alarms": (~y & predicted).sum()}
        return plain_values({**counts, **{name: found[name] for name in ("roc_auc", "sensitivity", "specificity")}})


def mapped_class(
    classes: Sequence[str],
    decision: Mapping[str, Any],
    *,
    target_class: str | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Choose the class that is mapped and its threshold.

    Parameters
    ----------
    classes : sequence of str
    decision : mapping
        As `SavedModel.decision`.
    target_class : str, optional
        The class; by default the positive one of two.
    threshold : float in [0, 1], optional
        Of two classes: in place of that of `decision`.

    Returns
    -------
    chosen : dict
        "positive", "threshold" and "rule" of a `SlideMap`.

    Raises
    ------
    ValueError
        If there are more than two classes, or two whose names do not tell the positive one, and no `target_class`; if
        there is no class of this name; if the threshold is out of range, or given with more than two classes.
    """
    chosen, two = decision.get("positive") if target_class is None else target_class, len(classes) == 2
    remedy = f"Give target_class, one of {', '.join(classes)}."
    check_that("target_class", chosen, chosen is not None, "the class to map", remedy)
    check_name("target_class", chosen, classes)
    if threshold is not None:
        remedy = "Leave it out: each tile has the most probable class."
        check_that("threshold", threshold, two, f"none with {len(classes)} classes", remedy)
        check_real("threshold", threshold, "from 0 to 1", lambda value: 0 <= value <= 1, "Use 0.5.")
        return {"positive": chosen, "threshold": float(threshold), "rule": "given"}
    if not two:
        return {"positive": chosen, "threshold": None, "rule": "most probable"}
    value, turned = decision.get("value", 0.5), chosen != decision.get("positive")
    rule = decision.get("rule") or "most probable"
    # A tile at the threshold has the positive class of the model, also where the other class is mapped.
    value = float(np.nextafter(1 - value, 1)) if turned and decision.get("rule") else value
    return {"positive": chosen, "threshold": value, "rule": rule}
