"""Each family, and the first four together, on one core: against scikit-image, mahotas, SciPy, NumPy, and decoding."""

import cv2
import numpy as np
import peers
from rows import (
    PER_IMAGE,
    DisagreementError,
    check_close,
    check_equal,
    compare,
    one_core,
    race,
)

from histofeat.features import STATISTICS, HaralickTexture, extract, make_family
from histofeat.images import quantised_stains

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
    "all four": "all four families from one batch",
}
_PEER = {
    "color": "scikit-image rgb2hed, NumPy",
    "lbp": "scikit-image",
    "haralick": "mahotas, scikit-image rgb2hed",
    "pftas": "mahotas",
    "clbp": "NumPy, all pixels of a neighbour at once",
    "lpq": "SciPy convolve2d along the axes, NumPy",
    "glcm": "scikit-image graycomatrix, graycoprops and rgb2hed",
    "all four": "scikit-image and mahotas, conversions shared",
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
    families = options.families or (*FAMILIES, *LATER)
    return _rows("families", patches, label, families, 2 if options.quick else 7)


def measure_large(material, options) -> list:
    """The same on images of BreakHis's size; the later families only where they are asked for."""
    label, images = material.large(1 if options.quick else 8)
    label = f"{len(images)} {label}"
    return _rows("large", images, label, options.families or FAMILIES, 1 if options.quick else 3)


def _rows(group, images, label, families, repeats) -> list:
    """Time each family, and the first four together, on both sides, from pixels in memory to a matrix."""
    sets = {name: (name,) for name in families}
    if set(FAMILIES) <= set(families):
        sets["all four"] = FAMILIES
    with one_core():
        checked = {**check_families(families, images), "all four": "each family as above; stains within one level"}
        rows = []
        for name, its in sets.items():
            timed = race(*_sides(its, images), repeats=repeats)
            fields = {"name": f"{group}/{name}", "checked": checked[name]}
            fields["what"] = f"{_WHAT[name]}; {label}; one core"
            rows.append(compare(*timed, count=len(images), peer_name=_PEER[name], **PER_IMAGE, **fields))
    return rows


def _sides(families, images):
    estimators = [make_family(name) for name in families]
    return lambda: extract(estimators, _as_input(images)), lambda: peers.measure(families, images)


def measure_decoding(material, options) -> list:
    """One row, the floor: all four families of a patch as a multiple of decoding its PNG, both from memory."""
    files, patches = material.patches(64 if options.quick else 512)
    buffers = [np.frombuffer(content, np.uint8) for content in files]
    estimators = [make_family(name) for name in FAMILIES]

    def decode():
        return [cv2.imdecode(buffer, cv2.IMREAD_COLOR) for buffer in buffers]

    with one_core():
        checked = check_equal("decode", patches, np.stack(decode())[..., ::-1])
        timed = race(lambda: extract(estimators, patches), decode, repeats=3 if options.quick else 15)
    size = np.mean([len(content) for content in files])
    return [
        compare(
            *timed,
            count=len(patches),
            name="decode/all four",
            what=f"all four families against decoding; {len(patches)} {material.label} patches, 50x50, PNGs of "
            f"{size:,.0f} bytes, both in memory; one core",
            peer_name="cv2.imdecode",
            ratio_of="ours / peer",
            checked=f"the pixels measured are those decoded: {checked}",
            **PER_IMAGE,
        )
    ]


def measure_one_channel(material, options) -> list:
    """Haralick of a single channel that needs no conversion: against mahotas and scikit-image."""
    _, patches = material.patches(32 if options.quick else 256)
    textured = [patch for patch in patches if patch[..., 0].max() // 8 > patch[..., 0].min() // 8]
    patches, repeats = np.stack(textured), 2 if options.quick else 7
    estimator = HaralickTexture(channels=("red",))
    ours = estimator.transform(patches).reshape(-1, 2, 13)
    what = f"Haralick alone, one channel; {len(patches)} {material.label} patches, 50x50; one core"
    five = [STATISTICS.index(name) for name in peers.HARALICK_PROPERTIES]
    asked = [
        ("one channel", peers.haralick_of, ours.reshape(-1, 26), "mahotas", "32 levels, all 13 statistics"),
        ("scikit-image", peers.five_of, ours[:, 0, five], "scikit-image", "5 of the 13 statistics"),
    ]
    rows = []
    with one_core():
        for name, measure, expected, package, words in asked:
            peer = _one_by_one(measure, patches[..., 0])
            checked = check_close(package, expected, peer(), rtol=1e-4, atol=2e-5)
            timed = race(lambda: estimator.transform(patches), peer, repeats=repeats)
            fields = {"name": f"families/haralick, {name}", "peer_name": f"{package}, {words}", "what": what}
            rows.append(compare(*timed, count=len(patches), checked=checked, **PER_IMAGE, **fields))
    return rows


def _one_by_one(measure, channels):
    return lambda: np.stack([measure(channel) for channel in channels])


def _as_input(images):
    return images if isinstance(images, np.ndarray) else list(images)
