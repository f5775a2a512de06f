"""Draw an H&E slide: lay out tissue, tumour, fat and nuclei, and compute the light that passes through.

A slide is drawn as a whole and cut into patches afterwards, so that patches of one patient fit together as in the
real data. Lengths are in pixels of a patch (about four micrometres each).
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

PATCH_PX = 50

# Drawn at twice the size and averaged down: nuclei are two to five pixels wide and would be blocks otherwise.
_OVERSAMPLING = 2
_FIBRE_MARGIN_PX = 24

# Optical density of the two stains per colour (red, green, blue); chosen to look like scanned H&E, of unit length.
_HEMATOXYLIN_OD = (0.63, 0.71, 0.31)
_EOSIN_OD = (0.17, 0.86, 0.48)

# Jittered grid of possible nuclei: no denser than cells can be packed.
_CELL_PITCH_PX = 2.7


class PatientStyle(NamedTuple):
    """What all patches of a patient share: how the slide was stained and what the tissue is like.

    Parameters
    ----------
    hematoxylin_od, eosin_od : ndarray, shape (3,)
        Optical density of each stain per colour channel, unit length: the patient's stain signature.
    hematoxylin, eosin : float
        Strength of the stains, around 1.
    white : ndarray, shape (3,)
        Intensity of bare glass, 0 to 255.
    grade : float in [0, 1]
        How far the tumour's nuclei differ from normal ones, in size and density.
    nest_px, nest_share : float
        Width of the tumour's cell nests, and the share of the tumour that they fill.
    mimic_share, fat_share : float
        Share of the tissue that looks like tumour but is not (lymphocytes, lobules), and that is fat.
    fibre_angle : float
        Main direction of the stroma in radians.
    """

    hematoxylin_od: np.ndarray
    eosin_od: np.ndarray
    hematoxylin: float
    eosin: float
    white: np.ndarray
    grade: float
    nest_px: float
    nest_share: float
    mimic_share: float
    fat_share: float
    fibre_angle: float


class SlidePlan(NamedTuple):
    """Where the patches of a slide are, and the smooth fields that say what is where.

    Parameters
    ----------
    columns, rows : ndarray of int, shape (n,)
        Grid place of each patch, from 0.
    labels : ndarray of int, shape (n,)
        1 where the patch lies in the tumour as outlined, 0 elsewhere.
    tissue, tumour : ndarray of float32, shape (height, width)
        How much of each pixel is tissue, and tumour, 0 to 1.
    """

    columns: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    tissue: np.ndarray
    tumour: np.ndarray


def draw_style(rng: Generator) -> PatientStyle:
    """Draw a patient's stain signature and tissue."""
    return PatientStyle(
        hematoxylin_od=_perturbed(_HEMATOXYLIN_OD, rng),
        eosin_od=_perturbed(_EOSIN_OD, rng),
        hematoxylin=float(rng.lognormal(0, 0.18)),
        eosin=float(rng.lognormal(0, 0.25)),
        white=rng.uniform(237, 244) + rng.uniform(-2, 2, 3),
        grade=float(rng.uniform(0, 1)),
        nest_px=float(rng.uniform(7, 22)),
        nest_share=float(rng.uniform(0.3, 0.85)),
        mimic_share=float(rng.uniform(0.03, 0.25)),
        fat_share=float(rng.uniform(0.05, 0.4)),
        fibre_angle=float(rng.uniform(0, np.pi)),
    )


def plan_slide(n_patches: int, n_positive: int, rng: Generator, *, odd: bool, blank: bool) -> SlidePlan:
    """Lay out a slide: tissue in the middle, patches where it is, the tumour where its field is highest.

    Parameters
    ----------
    n_patches, n_positive : int
        Patches in all, and of class 1.
    rng : Generator
    odd : bool
        Whether the slide ends within a patch, which makes its last column, and sometimes its last row, narrower.
    blank : bool
        Whether one patch of bare glass is among the patches.
    """
    columns = int(np.ceil(np.sqrt(1.15 * n_patches))) + 1
    rows = int(np.ceil(1.15 * n_patches / columns))
    width, height = PATCH_PX * columns, PATCH_PX * rows
    if odd:
        width -= int(rng.integers(1, PATCH_PX))
        height -= int(rng.integers(0, 2)) * int(rng.integers(1, PATCH_PX))
    shape = (height, width)
    depth = _tissue_depth(shape, rng)
    # The edge of the tissue runs through patches: some of them are partly glass.
    edge = np.quantile(depth, 1 - min(0.95, 0.96 * n_patches / (columns * rows)))
    tissue = _soft_step(depth - edge, 0.012)
    chosen = _choose_patches(_patch_means(tissue), n_patches, odd=odd, blank=blank)
    field = smooth_field(shape, 75, rng) + 0.45 * smooth_field(shape, 28, rng)
    labels, threshold = _outline_tumour(_patch_means(field)[chosen], _patch_means(tissue)[chosen], n_positive, rng)
    tumour = _soft_step(field - threshold, 0.12) * tissue
    return SlidePlan(chosen[1], chosen[0], labels, tissue, tumour)


def draw_picture(size: tuple[int, int], zoom: float, tumour: float, style: PatientStyle, rng: Generator) -> np.ndarray:
    """Picture of `size` (height, width), all of it tissue, with a share of tumour, enlarged by `zoom`."""
    tissue = np.ones([max(2, round(side / zoom)) for side in size], np.float32)
    picture = render_slide(tissue, tissue * np.float32(tumour), style, rng)
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC) if zoom > 1 else picture


def encode_png(picture: np.ndarray) -> bytes:
    """PNG bytes of a picture, RGB, uint8, shape (height, width, 3)."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def render_slide(tissue: np.ndarray, tumour: np.ndarray, style: PatientStyle, rng: Generator) -> np.ndarray:
    """Picture of a whole slide.

    Parameters
    ----------
    tissue, tumour : ndarray of float32, shape (height, width)
        As in a `SlidePlan`.
    style : PatientStyle
    rng : Generator

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        RGB.

    Notes
    -----
    Lambert and Beer: intensity = white * exp(-(c_h * od_h + c_e * od_e)), with stain concentrations c and optical
    densities od (Ruifrok and Johnston 2001, without DOI). Light is averaged, not concentration, when the picture is
    made smaller, as in a scanner.
    """
    height, width = tissue.shape
    tissue, tumour = _enlarged(tissue), _enlarged(tumour)
    shape = tissue.shape
    fat = _share_mask(shape, 45, style.fat_share, rng) * (1 - 0.9 * tumour)
    mimic = _share_mask(shape, 26, style.mimic_share, rng) * (1 - tumour) * (1 - fat)
    nests = _share_mask(shape, style.nest_px, style.nest_share, rng) * tumour * (1 - fat)
    eosin = _eosin(shape, nests, mimic, style, rng)
    hematoxylin = 0.16 * nests + 0.10 * mimic + 0.03
    nuclei = _nuclei(nests, mimic, fat, tissue, style, rng)
    walls = 0.35 * _fat_walls(shape, rng)
    eosin = (eosin * (1 - fat) + walls * fat) * tissue
    hematoxylin = hematoxylin * tissue * (1 - fat) + nuclei
    eosin *= 1 - np.float32(0.6) * np.minimum(nuclei, 1)
    light = _light(hematoxylin, eosin, style, (width, height))
    light += _noise(light.shape, rng) * np.float32(1.8)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _light(hematoxylin: np.ndarray, eosin: np.ndarray, style: PatientStyle, size: tuple[int, int]) -> np.ndarray:
    """What passes through stained tissue, 0 to 255, averaged down to `size` (width, height)."""
    channels = []
    for white, od_h, od_e in zip(style.white, style.hematoxylin_od, style.eosin_od, strict=True):
        density = hematoxylin * np.float32(style.hematoxylin * od_h) + eosin * np.float32(style.eosin * od_e)
        transmitted = np.float32(white) * np.exp(-density)
        channels.append(cv2.resize(transmitted, size, interpolation=cv2.INTER_AREA))
    return np.stack(channels, axis=-1)


def smooth_field(shape: tuple[int, int], scale_px: float, rng: Generator) -> np.ndarray:
    """Smooth random field of about zero mean and unit variance; features are about `scale_px` wide."""
    coarse = tuple(int(np.ceil(side / scale_px)) + 1 for side in shape)
    noise = _noise(coarse, rng) * np.float32(1.3)
    top, left = (int(rng.integers(0, int(scale_px) + 1)) for _ in shape)
    size = tuple(int(np.ceil(side * scale_px)) for side in coarse[::-1])
    large = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    return large[top : top + shape[0], left : left + shape[1]]


def _noise(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _perturbed(density: tuple[float, ...], rng: Generator) -> np.ndarray:
    vector = np.maximum(np.array(density) + rng.normal(0, 0.03, 3), 0.02)
    return vector / np.linalg.norm(vector)


def _soft_step(values: np.ndarray, width: float) -> np.ndarray:
    return np.clip(values / np.float32(2 * width) + np.float32(0.5), 0, 1)


def _enlarged(field: np.ndarray) -> np.ndarray:
    size = tuple(side * _OVERSAMPLING for side in field.shape[::-1])
    return cv2.resize(field, size, interpolation=cv2.INTER_LINEAR)


def _large_field(shape: tuple[int, int], scale_px: float, rng: Generator) -> np.ndarray:
    """A smooth field for an oversampled slide, drawn at patch resolution, which is fine enough and faster."""
    return _enlarged(smooth_field(tuple(side // _OVERSAMPLING for side in shape), scale_px, rng))


def _share_mask(shape: tuple[int, int], scale_px: float, share: float, rng: Generator) -> np.ndarray:
    """Blobs about `scale_px` wide that cover about `share` of an oversampled slide."""
    small = tuple(side // _OVERSAMPLING for side in shape)
    field = smooth_field(small, scale_px, rng)
    field = field + np.float32(0.25) * smooth_field(small, max(4.0, scale_px / 3), rng)
    return _enlarged(_soft_step(field - np.float32(np.quantile(field[::2, ::2], 1 - share)), 0.1))


def _tissue_depth(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """How deep in the tissue a pixel lies; any threshold of it is a lobed patch of tissue."""
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    # Moved to the right, so that the narrow last column of an odd slide has tissue.
    radius = np.sqrt((x - 0.25) ** 2 + y**2).astype(np.float32)
    return 0.2 * smooth_field(shape, 90, rng) + 0.035 * smooth_field(shape, 9, rng) - radius


def _patch_means(field: np.ndarray) -> np.ndarray:
    """Mean of a field over each patch of the grid, narrow ones at the far edges included."""
    starts = [np.arange(0, side, PATCH_PX) for side in field.shape]
    sums = np.add.reduceat(np.add.reduceat(field.astype(np.float64), starts[0], axis=0), starts[1], axis=1)
    heights, widths = (np.diff(np.append(start, side)) for start, side in zip(starts, field.shape, strict=True))
    return sums / (heights[:, None] * widths)


def _choose_patches(coverage: np.ndarray, n: int, *, odd: bool, blank: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the n patches with most tissue, with a narrow one and a blank one where asked for."""
    order = np.argsort(-coverage, axis=None, kind="stable")
    chosen = list(order[:n])
    last_column = np.arange(coverage.shape[1] - 1, coverage.size, coverage.shape[1])
    if odd and not np.isin(chosen, last_column).any():
        chosen[-1] = last_column[np.argmax(coverage.ravel()[last_column])]
    if blank:
        # Not the last one, which may be the narrow one.
        chosen[-2] = order[-1]
    return np.unravel_index(np.sort(chosen), coverage.shape)


def _outline_tumour(
    means: np.ndarray, coverage: np.ndarray, n_positive: int, rng: Generator
) -> tuple[np.ndarray, float]:
    """Labels from a rough outline, and the level of the field at which tumour really begins."""
    labels = np.zeros(len(means), dtype=np.int64)
    # A pathologist's outline is not exact: near the border the label and the cells disagree.
    outlined = means + rng.normal(0, 0.25, len(means)) - 4 * (coverage < 0.4)
    order = np.argsort(-outlined, kind="stable")
    labels[order[:n_positive]] = 1
    if n_positive == 0:
        return labels, np.inf
    inside, outside = outlined[order[n_positive - 1]], outlined[order[min(n_positive, len(order) - 1)]]
    return labels, float((inside + outside) / 2)


def _fibres(shape: tuple[int, int], angle: float, rng: Generator) -> np.ndarray:
    """Wavy fibres: noise drawn out along one axis, turned, and bent by a smooth displacement."""
    height, width = shape
    side = int(np.hypot(height, width)) + 4 * _FIBRE_MARGIN_PX
    # Fibres are long: a third of the resolution along them is enough, and faster.
    straight = cv2.GaussianBlur(_noise((side, side // 3), rng), (0, 0), sigmaX=1.8, sigmaY=0.9)
    straight /= np.float32(straight.std())
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x += np.float32(9) * _fold(shape, rng) - width / 2
    y += np.float32(9) * _fold(shape, rng) - height / 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = x * cos + y * sin + side / 2, y * cos - x * sin + side / 2
    return cv2.remap(straight, along / 3, across, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _fold(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    return np.float32(2) * _large_field(shape, 75, rng) + np.float32(0.7) * _large_field(shape, 15, rng)


def _eosin(
    shape: tuple[int, int], nests: np.ndarray, mimic: np.ndarray, style: PatientStyle, rng: Generator
) -> np.ndarray:
    """Eosin in stroma (fibrous, with clefts) and in cytoplasm (fine-grained and paler)."""
    fibres = _fibres(shape, style.fibre_angle, rng)
    loose = _soft_step(_large_field(shape, 45, rng), 0.8)
    grain = _grain(shape, rng)
    stroma = np.float32(0.6) + np.float32(0.1) * fibres + np.float32(0.07) * grain - np.float32(0.2) * loose
    # Where tissue is loose, fibres part and glass shows between them.
    stroma *= 1 - np.float32(0.9) * loose * _soft_step(-fibres - np.float32(0.5), 0.8)
    cytoplasm = np.float32(0.45) + np.float32(0.12) * grain
    cells = np.maximum(nests, mimic)
    return np.maximum(stroma * (1 - cells) + cytoplasm * cells, 0)


def _grain(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """Fine grain of unit variance, about a patch pixel wide."""
    half = _noise(tuple(-(-side // 2) for side in shape), rng)
    return cv2.resize(half, shape[::-1], interpolation=cv2.INTER_LINEAR) * np.float32(1.4)


def _fat_walls(shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """Thin walls between adipocytes: borders of the cells of a jittered grid."""
    pitch = 26
    seeds = np.full(shape, 255, np.uint8)
    y, x = np.mgrid[0 : shape[0] : pitch, 0 : shape[1] : pitch]
    y = np.clip(y + rng.integers(0, pitch - 4, y.shape), 0, shape[0] - 1)
    x = np.clip(x + rng.integers(0, pitch - 4, x.shape), 0, shape[1] - 1)
    seeds[y, x] = 0
    _, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    border = np.zeros(shape, np.float32)
    border[:, 1:] = cell[:, 1:] != cell[:, :-1]
    border[1:] = np.maximum(border[1:], cell[1:] != cell[:-1])
    return np.minimum(cv2.GaussianBlur(border, (0, 0), 0.8) * np.float32(1.6), 1)


def _nuclei(
    nests: np.ndarray, mimic: np.ndarray, fat: np.ndarray, tissue: np.ndarray, style: PatientStyle, rng: Generator
) -> np.ndarray:
    """Hematoxylin in nuclei: ellipses with soft borders and chromatin, by the tissue that they lie in."""
    shape = tissue.shape
    y, x = _cell_places(shape, rng)
    row, column = y.astype(np.int64), x.astype(np.int64)
    in_nest, in_mimic = nests[row, column], mimic[row, column]
    stroma = np.float32(0.07) * (1 - in_nest) * (1 - in_mimic)
    chance = (0.45 + 0.25 * style.grade) * in_nest + 0.7 * in_mimic + stroma
    chance *= (1 - 0.92 * fat[row, column]) * (tissue[row, column] > 0.5)
    here = rng.random(len(x)) < chance
    x, y, in_nest, in_mimic = x[here], y[here], in_nest[here], in_mimic[here]
    radius, ratio, angle = _nucleus_shapes(in_nest, in_mimic, style, rng)
    strength = rng.normal(1.25, 0.22, len(x)) + 0.25 * in_mimic - 0.2 * style.grade * in_nest
    canvas = np.zeros(shape, np.uint8)
    fine = 1 << 4
    centres = np.rint(np.stack([x, y], 1) * fine).astype(int).tolist()
    axes = np.rint(np.stack([radius, radius * ratio], 1) * _OVERSAMPLING * fine).astype(int).tolist()
    levels = np.clip(strength * 100, 40, 220).tolist()
    for centre, axis, degrees, level in zip(centres, axes, np.degrees(angle).tolist(), levels, strict=True):
        cv2.ellipse(canvas, centre, axis, degrees, 0, 360, level, cv2.FILLED, cv2.LINE_AA, 4)
    chromatin = np.float32(0.01) + np.float32(0.0022) * _grain(shape, rng)
    return cv2.GaussianBlur(canvas, (0, 0), 0.7).astype(np.float32) * np.maximum(chromatin, np.float32(0.003))


def _cell_places(shape: tuple[int, int], rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of every place that could hold a nucleus, on an oversampled slide."""
    pitch = _CELL_PITCH_PX * _OVERSAMPLING
    y, x = (grid.ravel() for grid in np.mgrid[0 : shape[0] : pitch, 0 : shape[1] : pitch])
    y, x = (axis + rng.uniform(-0.4, 0.4, len(axis)) * pitch for axis in (y, x))
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return y[inside], x[inside]


def _nucleus_shapes(
    in_nest: np.ndarray, in_mimic: np.ndarray, style: PatientStyle, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half length in pixels, width to length, direction in radians."""
    n = len(in_nest)
    tumour = in_nest > 0.5
    round_small = ~tumour & (in_mimic > 0.5)
    radius = rng.lognormal(np.log(1.2), 0.2, n)
    radius[round_small] = rng.lognormal(np.log(0.95), 0.12, round_small.sum())
    grown = rng.lognormal(np.log(1.05 + 0.45 * style.grade), 0.15 + 0.12 * style.grade, tumour.sum())
    radius[tumour] = np.minimum(grown, 4)
    ratio = rng.uniform(0.25, 0.6, n)
    ratio[tumour] = rng.uniform(0.6, 1, tumour.sum())
    ratio[round_small] = rng.uniform(0.8, 1, round_small.sum())
    # Fibroblasts lie along the fibres; epithelium and lymphocytes have no direction.
    angle = style.fibre_angle + rng.normal(0, 0.4, n)
    angle[tumour | round_small] = rng.uniform(0, np.pi, (tumour | round_small).sum())
    return radius, ratio, angle
