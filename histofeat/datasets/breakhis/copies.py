"""Images that BreakHis holds twice, slides under two labels, and the three rules for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histofeat.datasets.breakhis.names import SUBTYPES
from histofeat.datasets.breakhis.tree import FoundImage, TreeScan
from histofeat.exceptions import DatasetError

__all__ = ["DUPLICATES", "Copies", "drop_copies", "find_copies", "refuse_copies"]

DUPLICATES = ("refuse", "drop", "published")


@dataclass(frozen=True)
class Copies:
    """Images that are there more than once.

    Parameters
    ----------
    groups : tuple of tuple of FoundImage
        Each holds two or more files of the same image, in the order of the scan.
    two_labels : mapping of (year, slide id) to tuple of int
        Slides that lie in the folders of two subtypes, with their positions in `SUBTYPES`.
    """

    groups: tuple[tuple[FoundImage, ...], ...] = ()
    two_labels: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def find_copies(images: Sequence[FoundImage]) -> Copies:
    """Look for the same image under two names, and for slides under two subtypes.

    Notes
    -----
    Two files are the same image when they are equal to the byte; and, for those without an equal, when slide,
    magnification and sequence number are equal and only the subtype differs, as for the two copies of slide 13412.
    Only files of equal length are read.
    """
    equal = _equal_files(images)
    alone = {image.name for image in images} - {image.name for group in equal for image in group}
    subtypes: dict[tuple[str, str], set[int]] = {}
    same_name: dict[tuple, list[FoundImage]] = {}
    for image in images:
        slide = image.name.slide_name
        subtypes.setdefault((slide.year, slide.slide), set()).add(slide.subtype)
        if image.name in alone:
            key = (slide.year, slide.slide, image.name.magnification, image.name.sequence)
            same_name.setdefault(key, []).append(image)
    groups = equal + [tuple(group) for group in same_name.values() if len(group) > 1]
    position = {image.name: number for number, image in enumerate(images)}
    return Copies(
        tuple(sorted(groups, key=lambda group: position[group[0].name])),
        {slide: tuple(sorted(found)) for slide, found in subtypes.items() if len(found) > 1},
    )


def _equal_files(images: Sequence[FoundImage]) -> list[tuple[FoundImage, ...]]:
    by_length: dict[int, list[FoundImage]] = {}
    for image in images:
        by_length.setdefault(image.n_bytes, []).append(image)
    by_content: dict[bytes, list[FoundImage]] = {}
    for group in by_length.values():
        for image in group if len(group) > 1 else ():
            by_content.setdefault(hashlib.sha256(Path(image.path).read_bytes()).digest(), []).append(image)
    return [tuple(group) for group in by_content.values() if len(group) > 1]


def refuse_copies(copies: Copies, scan: TreeScan) -> None:
    """Raise when there are any.

    Raises
    ------
    DatasetError
        With the first pair, or the first slide under two labels.
    """
    remedy = (
        "Choose duplicates='drop' (of equal images with one label the first stays; those with two labels go), or "
        "duplicates='published' (everything stays, as in the published folds)."
    )
    slides = "".join(
        f" Slide {year}-{slide} lies under {' and '.join(SUBTYPES[i].word for i in found)}."
        for (year, slide), found in copies.two_labels.items()
    )
    if copies.groups:
        first, second, *_ = copies.groups[0]
        n = len(copies.groups)
        raise DatasetError(
            f"{scan.relative(second.path)}: expected each image once, got the image of {scan.relative(first.path)} "
            f"again{f' (and {n - 1:,} more such images)' if n > 1 else ''}.{slides} {remedy}"
        )
    if copies.two_labels:
        raise DatasetError(f"{scan.root}: expected one subtype for each slide, got two.{slides} {remedy}")


def drop_copies(
    images: Sequence[FoundImage], copies: Copies, scan: TreeScan, label_of: Callable[[int], int]
) -> list[FoundImage]:
    """Images without the copies, by the rule "drop"; what goes is counted in `scan`.

    Parameters
    ----------
    images : sequence of FoundImage
    copies : Copies
        Of these images.
    scan : TreeScan
        Gets the counts: a copy is a duplicate, an image under two labels is left out.
    label_of : callable
        Label code of a subtype.

    Notes
    -----
    Of equal images that share one label the first stays: subtypes in the order of the labels, then patient number,
    magnification and sequence. Equal images under two labels all go, and so does a whole slide that lies under two
    labels: nobody can know which is right.
    """
    disputed = {
        slide for slide, subtypes in copies.two_labels.items() if len({label_of(subtype) for subtype in subtypes}) > 1
    }
    gone = set()
    for group in copies.groups:
        labels = {label_of(image.name.slide_name.subtype) for image in group}
        if len(labels) > 1:
            gone.update(image.name for image in group)
    copied = set()
    for group in copies.groups:
        copied.update(image.name for image in group[1:])
    kept = []
    for image in images:
        slide = image.name.slide_name
        if (slide.year, slide.slide) in disputed:
            scan.leave_out(image.path, "is of a slide under two labels, one of which must be wrong")
        elif image.name in gone:
            scan.leave_out(image.path, "is one image under two labels, one of which must be wrong")
        elif image.name in copied:
            scan.duplicates += 1
        else:
            kept.append(image)
    return kept
