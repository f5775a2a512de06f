"""Each family, and the first four together, against scikit-image, mahotas, SciPy and NumPy on one core."""

import numpy as np
import peers
import radiomics_peer
from rows import DisagreementError, Target, check_close, check_equal, compare, missing
from timing import one_core, race

from histofeat.features import STATISTICS, HaralickTexture, extract, make_family
from histofeat.images import quantised_stains

__all__ = ["FAMILIES", "LATER", "check_families", "measure_large", "measure_one_channel", "measure_patches"]

FAMILIES = ("color", "lbp", "haralick", "pftas")
#: Came later, and are no part of "all four".
LATER = ("clbp", "lpq", "glcm")
_WHAT = {
    "color": "colour histograms and moments, RGB, HSV and stains",
    "lbp": "LBP at three radii, grey",
    "haralick": "Haralick, 13 statistics, 4 directions, 32 levels, 3 channels",
    "pftas": "PFTAS, RGB",
    "clbp": "completed LBP at three radii, S_M/C, grey",
    "lpq": "LPQ, 7x7 window, decorrelated, grey",
    "glcm": "GLCM, 10 properties, 4 directions, 2 distances, 32 levels, 3 channels",
}
_PEER = {
    "color": "scikit-image rgb2hed, NumPy",
    "lbp": "scikit-image",
    "haralick": "mahotas, scikit-image rgb2hed",
    "pftas": "mahotas",
    "clbp": "NumPy, all pixels of a neighbour at once",
    "lpq": "SciPy convolve2d along the axes, NumPy",
    "glcm": "scikit-image graycomatrix, graycoprops and rgb2hed",
}
#: Share of the pixels whose pattern scikit-image may give otherwise: ties that its rounding misses.
_TIES = 5e-3
#: Share of the pixels whose stain may differ by one level: float32 against float64 at a half.
_HALVES = 1e-3
#: What shares of whole pixels may differ by: float32 against float64, far below one pixel of a patch (4e-4).
_ONE_FLOAT = 1e-6


def check_families(families, images) -> dict[str, str]:
    """Words for what was compared, by family; raises where histofeat and its peers disagree.

    Stains are compared first; then both sides measure the same stains, so that a level at a half does not hide in a
    tolerance.
    """
    ours_stains = [quantised_stains(image) for image in images]
    if {"color", "haralick", "glcm"} & set(families):
        _check_stains(images, ours_stains)
    theirs = peers.measure(families, images, ours_stains)
    ours = extract([make_family(name) for name in families], _as_input(images)).features
    words = {}
    for name, mine, other in zip(families, ours, theirs, strict=True):
        if name == "lbp":
            words[name] = _check_patterns(mine, other)
        elif name == "pftas":
            words[name] = check_equal(name, mine, other.astype(np.float32))
        elif name in ("clbp", "lpq"):
            words[name] = check_close(name, mine, other, rtol=0, atol=_ONE_FLOAT)
        else:
            words[name] = check_close(name, mine, other, rtol=1e-4, atol=2e-5)
    return words


def _check_stains(images, ours) -> None:
    moved = pixels = 0
    for image, mine in zip(images, ours, strict=True):
        gap = np.abs(mine.astype(int) - peers.PeerChannels(image).stains)
        moved, pixels = moved + int((gap > 0).sum()), pixels + gap.size
        if gap.max() > 1:
            raise DisagreementError(f"stains: expected levels at most 1 apart, got {gap.max()}.")
    if moved > _HALVES * pixels:
        raise DisagreementError(f"stains: expected at most {_HALVES:g} of the levels to differ, got {moved / pixels}.")


def _check_patterns(ours, theirs) -> str:
    """Histograms whose every difference could be a tie; the tests show that there are no others."""
    if not np.isfinite(ours).all() or ours.shape != theirs.shape:
        raise DisagreementError(f"lbp: expected finite histograms {theirs.shape}, got {ours.shape}.")
    moved = np.abs(ours - theirs).sum() / 2 / (len(ours) * len(peers.RADII))
    if moved > _TIES:
        raise DisagreementError(f"lbp: expected the patterns of {_TIES:g} of the pixels to differ, got {moved}.")
    return f"{ours.size:,} shares, {moved:.1e} of the pixels otherwise (ties, at most {_TIES:g})"


def measure_patches(material, options) -> list:
    """Rows on 50x50 patches: each family asked for, or every one, and the first four together."""
    _, patches = material.patches(32 if options.quick else 256)
    label = f"{len(patches)} {material.label} patches, 50x50"
    targets = {"haralick": Target("at least", 10), "all": Target("at least", 20)}
    families = options.families or (*FAMILIES, *LATER)
    return _rows("families", patches, label, families, targets, 2 if options.quick else 7)


def measure_large(material, options) -> list:
    """The same on images of BreakHis's size; the later families only where they are asked for."""
    label, images = material.large(1 if options.quick else 8)
    targets = {"all": Target("at least", 10)}
    label = f"{len(images)} {label}"
    return _rows("large", images, label, options.families or FAMILIES, targets, 1 if options.quick else 3)


def _rows(group, images, label, families, targets, repeats) -> list:
    with one_core():
        words = check_families(families, images)
        rows = [_row(group, (name,), images, label, targets.get(name), words[name], repeats) for name in families]
        if set(FAMILIES) <= set(families):
            checked = "each family as above; stains within one level"
            rows.append(_row(group, FAMILIES, images, label, targets["all"], checked, repeats))
    return rows


def _row(group, families, images, label, target, checked, repeats):
    """Time one set of families on both sides, from pixels in memory to a matrix."""
    estimators, given = [make_family(name) for name in families], _as_input(images)
    timings = race(
        {"ours": lambda: extract(estimators, given), "peer": lambda: peers.measure(families, images)}, repeats
    )
    one = len(families) == 1
    return compare(
        timings["ours"],
        timings["peer"],
        count=len(images),
        unit="µs per image",
        scale=1e6,
        name=f"{group}/{families[0] if one else 'all four'}",
        group=group,
        what=f"{_WHAT[families[0]] if one else 'all four families from one batch'}; {label}; one core",
        peer_name=_PEER[families[0]] if one else "scikit-image and mahotas, conversions shared",
        target=target,
        checked=checked,
    )


def measure_one_channel(material, options) -> list:
    """Haralick of a single channel that needs no conversion: against mahotas, scikit-image and pyradiomics."""
    _, patches = material.patches(32 if options.quick else 256)
    textured = [patch for patch in patches if patch[..., 0].max() // 8 > patch[..., 0].min() // 8]
    patches, repeats = np.stack(textured), 2 if options.quick else 7
    estimator = HaralickTexture(channels=("red",))
    ours = estimator.transform(patches).reshape(-1, 2, 13)
    shared = {
        "group": "families",
        "what": f"Haralick alone, one channel; {len(patches)} {material.label} patches, 50x50; one core",
    }
    with one_core():
        rows = [
            _one_channel_row(
                patches, estimator, lambda: np.stack([peers.haralick_of(patch[..., 0]) for patch in patches]),
                lambda found: check_close("mahotas", ours.reshape(-1, 26), found, rtol=1e-4, atol=2e-5), repeats,
                name="families/haralick, one channel", peer_name="mahotas, 32 levels, all 13 statistics",
                target=Target("at least", 10), **shared,
            ),
            _one_channel_row(
                patches, estimator, lambda: np.stack([peers.five_of(patch[..., 0]) for patch in patches]),
                lambda found: _check_five(ours[:, 0], found), repeats,
                name="families/haralick, scikit-image", peer_name="scikit-image, 5 of the 13 statistics", **shared,
            ),
        ]  # fmt: skip
        return [*rows, _radiomics_row(patches, estimator, ours[:, 0], repeats, options, shared)]


def _one_channel_row(patches, estimator, peer, check, repeats, **fields):
    checked = check(peer())
    timings = race({"ours": lambda: estimator.transform(patches), "peer": peer}, repeats)
    sides = timings["ours"], timings["peer"]
    return compare(*sides, count=len(patches), unit="µs per image", scale=1e6, checked=checked, **fields)


def _check_five(ours, found) -> str:
    columns = [STATISTICS.index(name) for name in peers.HARALICK_PROPERTIES]
    return check_close("scikit-image", ours[:, columns], found, rtol=1e-4, atol=2e-5)


def _radiomics_row(patches, estimator, ours, repeats, options, shared):
    fields = {"name": "families/haralick, pyradiomics", "peer_name": "pyradiomics, 12 of the 13 statistics", **shared}
    try:
        worker = radiomics_peer.Worker(options.radiomics_python, patches[..., 0])
    except ImportError as error:
        return missing(str(error), unit="µs per image", **fields)
    with worker:
        columns = [STATISTICS.index(name) for name in radiomics_peer.FEATURES]
        checked = check_close("pyradiomics", ours[:, columns], worker.values, rtol=1e-4, atol=2e-5)
        # The other process times itself: neither start nor transfer is counted.
        sides = {"ours": lambda: _seconds(estimator, patches), "peer": worker.time}
        timings = race(sides, repeats, clock=lambda run: run())
    sides = timings["ours"], timings["peer"]
    return compare(*sides, count=len(patches), unit="µs per image", scale=1e6, checked=checked, **fields)


def _seconds(estimator, patches) -> float:
    from timing import stopwatch

    return stopwatch(lambda: estimator.transform(patches))


def _as_input(images):
    return images if isinstance(images, np.ndarray) else list(images)
