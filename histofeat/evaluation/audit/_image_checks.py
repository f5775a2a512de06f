"""Checks that compare images by their fingerprints: copies, near-copies, and one image under two labels."""

import numpy as np
import pandas as pd

from histofeat.evaluation.audit._findings import Finding, decide
from histofeat.evaluation.audit._near_pairs import near_pairs
from histofeat.evaluation.audit._table_checks import Split, contradicting_patients
from histofeat.features import HASH_BITS, Fingerprints, mirror_masks, number_rows

NEAR_DISTANCE = 20
"""Bits of 128 in which perceptual hashes of near-duplicates differ at most; `near_duplicates` says why."""

NEAR_BLANK = 2.0
"""Contrast in grey levels below which a patch is nearly blank, and its perceptual hash that of noise."""

SMALLEST_PX = 16
"""Side in pixels below which a patch has no perceptual hash worth comparing."""


def comparable(prints: Fingerprints) -> np.ndarray:
    """Tell which images a perceptual hash describes: a mask of shape (n,), without near-blank and narrow patches."""
    return (prints.contrast >= NEAR_BLANK) & (prints.side_px >= SMALLEST_PX)


def exact_duplicates(split: Split, prints: Fingerprints) -> Finding:
    """HF002: images of the same size and pixels on both sides of a fold, whatever their files.

    Parameters
    ----------
    split : Split
    prints : Fingerprints
        Of all rows.

    Returns
    -------
    finding : Finding
        An error; one offender for each test image with a copy among the training images. Images of a single colour
        are equal without being copies; they are left out and counted.
    """
    image = np.where(prints.flat, -1, prints.image)
    partner_of: dict[int, tuple[int, int]] = {}
    for fold, (train, test) in enumerate(split.folds, start=1):
        first = np.full(image.max(initial=-1) + 2, -1)
        first[image[train[::-1]]] = train[::-1]
        first[-1] = -1  # where images of one colour went
        partner = first[image[test]]
        for row in np.flatnonzero(partner >= 0):
            partner_of.setdefault(int(test[row]), (fold, int(partner[row])))
    n_flat = int(prints.flat.sum())
    compared = f"(compared: {len(split) - n_flat:,} images; of a single colour and left out: {n_flat:,})."
    return decide(
        "HF002", [_pair_words(split, row, *found) for row, found in sorted(partner_of.items())],
        f"Test images with the very pixels of a training image of their fold: {len(partner_of):,} {compared}",
        f"No test image has the pixels of a training image of its fold {compared}",
        "copies that were saved again with a loss, cropped or turned; HF003 looks for some of these.",
        images=len(split), test_images=len(partner_of), single_colour=n_flat,
    )  # fmt: skip


def near_duplicates(split: Split, prints: Fingerprints, *, distance: int = NEAR_DISTANCE, n_jobs=None) -> Finding:
    """HF003: images that look the same, though their pixels differ, on both sides of a fold.

    Parameters
    ----------
    split : Split
    prints : Fingerprints
        Of all rows.
    distance : int
        Bits of 128 that may differ, 0 to 31.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.

    Returns
    -------
    finding : Finding
        A warning; one offender for each test image that looks like a training image of its fold.

    Notes
    -----
    A pair counts where a fold puts one image on each side: only there can it change a score. In folds by patient the
    two belong to different patients; where folds share patients (HF001), pairs of one patient count as well. Pairs of
    equal pixels are left to HF002. Near-blank patches (contrast below `NEAR_BLANK`) and patches narrower than
    `SMALLEST_PX` have no perceptual hash worth comparing; they are left out and counted.

    Unrelated images can have near hashes by chance. How many do is measured on the very images of the audit: every
    image is also compared with the mirror images of the others, left to right, top to bottom and both, of which none is
    a copy, and the mean number of test images found so is stated beside the number found. (Copies that were saved
    mirrored raise it.)

    The distance was chosen by ``python benchmarks/study.py near-duplicates``, which reported for 20 bits, on
    9,973 IDC patches of 190 patients outside the official test set: of 49,378,664 pairs of different patients none
    was near (0 per million, 0 % of the patches), and none of the pairs with one of the two mirrored, three times as
    many (at most 0.02 per million by the 95 % limit). Of planted copies it found 99.9 % or more of those saved as
    JPEG of quality 90 or 50, made 5 % darker or brighter, reduced to half and back, or enlarged to the double; 96 %
    of those moved by a pixel along one side, 45 % of those moved by a pixel along both. At 24 bits the last are 77 %,
    and one pair is a false alarm. Of patches faded to a contrast of 2 grey levels and saved as JPEG of quality 50,
    half were found again; of those faded to 1 grey level, one in a hundred.
    """
    usable = comparable(prints)
    looks = np.full(len(prints), -1)
    looks[usable] = number_rows(prints.codes[usable])
    codes = prints.codes[usable][np.unique(looks[usable], return_index=True)[1]]
    search = _Search(split, looks, prints.image)
    found = search.flagged(*near_pairs(codes, distance, n_jobs=n_jobs))
    by_chance = [search.count(near_pairs(codes, distance, flip=mask, n_jobs=n_jobs)[0]) for mask in mirror_masks()]
    numbers = {
        "test_images": len(found),
        "by_chance": float(np.mean(by_chance)),
        "distance": int(distance),
        "compared": int(usable.sum()),
        "near_blank": int((prints.contrast < NEAR_BLANK).sum()),
        "narrow": int(((prints.contrast >= NEAR_BLANK) & (prints.side_px < SMALLEST_PX)).sum()),
    }
    compared = (
        f"(at most {distance} of {HASH_BITS} bits apart). Expected by chance alone: "
        f"{numbers['by_chance']:.1f}, as many as look like a mirror image of another. "
        f"Compared: {numbers['compared']:,} images; left out as nearly blank {numbers['near_blank']:,}, as narrower "
        f"than {SMALLEST_PX} px {numbers['narrow']:,}."
    )
    rows = sorted(found.items())
    return decide(
        "HF003", [_pair_words(split, row, fold, other, f" at distance {gap}") for row, (fold, other, gap) in rows],
        f"Test images that look like a training image of their fold: {len(found):,} {compared}",
        f"No test image looks like a training image of its fold {compared}",
        "images that were turned, mirrored, cropped or moved by more than about a pixel, and patches that are nearly "
        "blank.", severity="warning", **numbers,
    )  # fmt: skip


class _Search:
    """From near pairs of hashes to test images, fold by fold.

    Parameters
    ----------
    split : Split
    looks : ndarray of shape (n,), int64
        Number of each row's hash, -1 where it has none.
    image : ndarray of shape (n,), int64
        Number of each row's pixels.
    """

    def __init__(self, split: Split, looks: np.ndarray, image: np.ndarray):
        self.split, self.looks, self.image = split, looks, image
        self.n_looks = int(looks.max(initial=-1)) + 1

    def count(self, pairs: np.ndarray) -> int:
        """Number of test rows whose hash is in a pair with that of a training row of their fold."""
        counted, ends = set(), np.concatenate([pairs, pairs[:, ::-1]])
        for train, test in self._folds():
            partner, _ = self._nearest(train, ends, np.zeros(len(ends), dtype=np.int64))
            counted.update(test[partner[self.looks[test]] >= 0].tolist())
        return len(counted)

    def flagged(self, pairs: np.ndarray, gaps: np.ndarray) -> dict[int, tuple[int, int, int]]:
        """Give (fold, training row, distance) of the nearest for each test row that has one, of other pixels."""
        found: dict[int, tuple[int, int, int]] = {}
        ends, gaps = np.concatenate([pairs, pairs[:, ::-1]]), np.concatenate([gaps, gaps])
        nearest_last = np.argsort(-gaps, kind="stable")
        ends, gaps = ends[nearest_last], gaps[nearest_last]
        for fold, (train, test) in enumerate(self._folds(), start=1):
            partner, gap = self._nearest(train, ends, gaps)
            looks, twin = self.looks[test], self._other_pixels(train, test)
            row_of, gap_of = np.where(twin >= 0, twin, partner[looks]), np.where(twin >= 0, 0, gap[looks])
            for at in np.flatnonzero(row_of >= 0):
                found.setdefault(int(test[at]), (fold, int(row_of[at]), int(gap_of[at])))
        return found

    def _folds(self):
        for train, test in self.split.folds:
            yield train[self.looks[train] >= 0], test[self.looks[test] >= 0]

    def _nearest(self, train, ends, gaps) -> tuple[np.ndarray, np.ndarray]:
        """Training row with the nearest other hash, and its distance, for each hash; -1 where there is none."""
        first, partner, gap = (np.full(self.n_looks, -1) for _ in range(3))
        first[self.looks[train[::-1]]] = train[::-1]
        there = first[ends[:, 1]] >= 0
        # Of several values for one place the last stays, which is the nearest.
        partner[ends[there, 0]] = first[ends[there, 1]]
        gap[ends[there, 0]] = gaps[there]
        return partner, gap

    def _other_pixels(self, train, test) -> np.ndarray:
        """Training row of the same hash and other pixels for each test row; -1 where there is none."""
        table = pd.DataFrame({"look": self.looks[train], "image": self.image[train], "row": train})
        table = table.sort_values(["look", "image", "row"])
        twin = np.full(len(test), -1)
        # Of several pixels with one hash, the first or the last are not those of the test row.
        for keep in ("first", "last"):
            some = table.drop_duplicates("look", keep=keep)
            row_of = np.full(self.n_looks, -1)
            row_of[some["look"]] = some["row"]
            candidate = row_of[self.looks[test]]
            other = (candidate >= 0) & (self.image[candidate] != self.image[test])
            twin[other] = candidate[other]
        return twin


def contradicting_labels(split: Split, prints: Fingerprints | None) -> Finding:
    """HF006: one image, or one patient, under two labels.

    Parameters
    ----------
    split : Split
    prints : Fingerprints or None
        Of all rows; without them patients alone are compared.

    Returns
    -------
    finding : Finding
        An error where ``dataset.labels_per`` is "patient": a patient has one diagnosis, and copies under two labels
        make a score of that patient meaningless (13412 in BreakHis). A warning where labels are those of patches:
        equal patches under two labels are noise of the annotation, which any score on these data contains. One offender
        for each patient and for each image with more than one label.
    """
    per_patient = split.dataset.labels_per == "patient"
    patients, images = contradicting_patients(split), _images_with_two_labels(split, prints)
    looked_at = [*(["patients"] if per_patient else []), *(["images of equal pixels"] if prints is not None else [])]
    return decide(
        "HF006", [*patients, *images], f"With two labels: {len(patients):,} patients, {len(images):,} images.",
        f"Each label stands alone ({' and '.join(looked_at)} were compared).",
        "labels that are wrong and nowhere contradicted." if prints is not None else "images, which were not compared.",
        severity="error" if per_patient else "warning", patients=len(patients), images=len(images),
    )  # fmt: skip


def _images_with_two_labels(split: Split, prints: Fingerprints | None) -> list[str]:
    if prints is None:
        return []
    y, names = split.dataset.y, split.dataset.target_names
    table = pd.DataFrame({"image": prints.image, "label": y, "row": np.arange(len(y))})[~prints.flat]
    table = table.drop_duplicates(["image", "label"])
    table = table[table["image"].duplicated(keep=False)]
    return [
        " and ".join(f"{split.name(row)} ({names[y[row]]})" for row in rows)
        for rows in table.groupby("image", sort=False)["row"].apply(list)
    ]


def _pair_words(split: Split, row: int, fold: int, other: int, gap: str = "") -> str:
    patients = [split.ids[split.patient[place]] for place in (row, other)]
    whose = f"patient {patients[0]}" if patients[0] == patients[1] else f"patients {patients[0]} and {patients[1]}"
    return f"{split.name(row)}, tested in fold {fold}, and {split.name(other)}{gap} ({whose})"
