"""Measure what the near-duplicate check finds, by distance: false alarms between patients, and planted copies.

Pairs of patches of different patients are no copies, so near ones are false alarms. Copies are planted by changing
patches as saving, rescaling and cropping again would change them.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from histofeat.evaluation import NEAR_DISTANCE, chance_rates, comparable, near_pairs, turned_pairs
from histofeat.features import Fingerprints, ImageFingerprint, Runtime, extract, mirror_masks, transposed_codes
from histofeat.images import read_patch
from histofeat.studies._study import Findings, Study, load_development_patients

DISTANCES = (0, 4, 8, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 31)
#: Share of each kind of copy that the chosen distance has to find.
REQUIRED = 0.95
#: Kinds of copies that do not count for the choice: two pixels' worth of shift or more, on patches of fifty.
TOO_FAR = (
    "moved 1 px right and down",
    "moved 2 px right",
    "moved 3 px right and down",
    "moved 5 px right and down",
    "cropped by 2 px a side",
)
#: Contrasts, in grey levels, to which patches are faded.
FADED_TO = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
#: Patches of the whole IDC data set.
FULL_SET = 277_524
#: Stands for the distance of a copy that the audit leaves out; no hash has so many bits.
_LEFT_OUT = 999


@dataclass(frozen=True)
class NearDuplicates:
    """What each distance between perceptual hashes finds.

    Parameters
    ----------
    patches, patients, compared : int
        How many there are; patches that are nearly blank or narrow are not compared.
    false_alarms : tuple of dict
        One row per distance, see `count_false_alarms`.
    copies : tuple of dict
        One row per kind of copy: ``change, copies``, and for each distance ``d<distance>``, the share found.
    faded : tuple of dict
        One row per contrast: ``contrast, patches, median_distance, p95_distance, found_at_default``.
    """

    patches: int
    patients: int
    compared: int
    false_alarms: tuple[dict, ...]
    copies: tuple[dict, ...]
    faded: tuple[dict, ...]

    @property
    def smallest_distance(self):
        """Smallest distance that finds enough of every kind of copy; None if there is none."""
        asked = [row for row in self.copies if row["change"] not in TOO_FAR]
        return next((d for d in DISTANCES if all(row[f"d{d}"] >= REQUIRED for row in asked)), None)

    def to_dict(self):
        """Return the content as plain Python objects."""
        rules = {"default_distance": NEAR_DISTANCE, "required": REQUIRED, "too_far": TOO_FAR, "full_set": FULL_SET}
        return {**vars(self), "smallest_distance": self.smallest_distance, "distances": DISTANCES, **rules}


def measure_near_duplicates(dataset, *, runtime=None):
    """Measure false alarms and missed copies of the audit's near-duplicate check.

    Parameters
    ----------
    dataset : PatchDataset
        Patches of two patients or more.
    runtime : Runtime, optional
        Threads, and progress with the stage "copies" (kinds of copies).

    Returns
    -------
    NearDuplicates

    Raises
    ------
    ValueError
        If there is only one patient.
    """
    runtime = Runtime.of(runtime)
    patients = np.unique(dataset.patients.astype(str), return_inverse=True)[1]
    if len(dataset) == 0 or patients.max() == 0:
        raise ValueError("dataset: expected patches of two patients or more, got one. Give more of them.")
    prints = _fingerprints(dataset.X, runtime)
    usable = comparable(prints)
    codes, originals = prints.codes[usable], [read_patch(path) for path in dataset.X[usable]]
    copies, kinds = [], changes()
    for done, (name, change) in enumerate(kinds.items()):
        runtime.report("copies", done, len(kinds))
        changed = _fingerprints([change(patch) for patch in originals], runtime)
        gaps = np.where(comparable(changed), _distances(changed.codes, codes), _LEFT_OUT)
        found = {f"d{distance}": float((gaps <= distance).mean()) for distance in DISTANCES}
        copies.append({"change": name, "copies": len(gaps), **found})
    runtime.report("copies", len(kinds), len(kinds))
    return NearDuplicates(
        len(dataset), int(patients.max()) + 1, int(usable.sum()), tuple(count_false_alarms(codes, patients[usable])),
        tuple(copies), tuple(_fade(originals, prints.contrast[usable], kinds["JPEG, quality 50"], runtime)),
    )  # fmt: skip


def _fingerprints(images, runtime):
    return Fingerprints.of(extract([ImageFingerprint()], images, n_jobs=runtime.n_jobs).features[0])


def _distances(codes, others):
    """Count the bits that differ, row by row, in the view of the first image in which they are fewest."""
    views = [seen ^ mask for seen in (codes, transposed_codes(codes)) for mask in (np.uint64(0), *mirror_masks())]
    return np.min([np.bitwise_count(view ^ others).sum(axis=1) for view in views], axis=0)


def count_false_alarms(codes, patients):
    """Count pairs of different patients within each distance, as they are and with one of the two turned or mirrored.

    Patches of different patients are not copies of each other.

    Parameters
    ----------
    codes : ndarray of shape (n, 2), uint64
    patients : ndarray of shape (n,), int

    Yields
    ------
    row : dict
        One per distance: ``pairs``, the same per million, the share of patches with a near one; ``turned_pairs``, those
        that are near in one of seven views; ``by_chance``, the pairs that the audit expects as they are by chance, and
        ``full_set_pairs``, the same for the whole of IDC.
    """
    n_pairs = int((len(codes) ** 2 - (np.bincount(patients) ** 2).sum()) // 2)
    rates, found = chance_rates(codes, patients, max(DISTANCES)), []
    for pairs, gaps in (search(codes, max(DISTANCES)) for search in (near_pairs, turned_pairs)):
        unrelated = patients[pairs[:, 0]] != patients[pairs[:, 1]]
        found.append((pairs[unrelated], gaps[unrelated]))
    (plain, gaps), (_, turned_gaps) = found
    for distance in DISTANCES:
        near = plain[gaps <= distance]
        yield {
            "distance": distance,
            "pairs": len(near),
            "pairs_per_million": 1e6 * len(near) / n_pairs,
            "patches_percent": 100 * len(np.unique(near)) / len(codes),
            "turned_pairs": int((turned_gaps <= distance).sum()),
            "by_chance": float(rates[distance] * n_pairs),
            "full_set_pairs": float(rates[distance] * FULL_SET**2 / 2),
            "n_pairs": n_pairs,
        }


def changes():
    """Return the changes under which a copy should be found: a function of a patch (H, W, 3) uint8, by name."""
    import cv2

    def jpeg(quality):
        return lambda patch: cv2.imdecode(cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)

    def moved(right, down):
        shift = np.float32([[1, 0, right], [0, 1, down]])
        # Pixels from beyond the border are not in the patch: mirrored ones stand for them.
        return lambda patch: cv2.warpAffine(patch, shift, patch.shape[1::-1], borderMode=cv2.BORDER_REFLECT)

    def brightness(factor):
        return lambda patch: np.clip(np.rint(patch * factor), 0, 255).astype(np.uint8)

    def scaled(factor, *, back):
        def change(patch):
            height, width = patch.shape[:2]
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
            other = cv2.resize(patch, size, interpolation=kind)
            return cv2.resize(other, (width, height), interpolation=cv2.INTER_LINEAR) if back else other

        return change

    return {
        "JPEG, quality 90": jpeg(90),
        "JPEG, quality 50": jpeg(50),
        "moved 1 px right": moved(1, 0),
        "moved 1 px down": moved(0, 1),
        "moved 1 px right and down": moved(1, 1),
        "5 % darker": brightness(0.95),
        "5 % brighter": brightness(1.05),
        "moved 2 px right": moved(2, 0),
        "moved 3 px right and down": moved(3, 3),
        "moved 5 px right and down": moved(5, 5),
        "cropped by 2 px a side": lambda patch: cv2.resize(patch[2:-2, 2:-2], patch.shape[1::-1]),
        "mirrored left to right": lambda patch: patch[:, ::-1].copy(),
        "mirrored top to bottom": lambda patch: patch[::-1].copy(),
        "turned by a quarter": lambda patch: np.rot90(patch).copy(),
        "turned by three quarters": lambda patch: np.rot90(patch, 3).copy(),
        "reduced to 80 % and back": scaled(0.8, back=True),
        "reduced to 50 % and back": scaled(0.5, back=True),
        "enlarged to 200 %": scaled(2, back=False),
    }


def _fade(originals, contrast, change, runtime):
    """Fade patches to some contrast, change them, and measure how far the hash moves: where it is noise, far."""
    for target in FADED_TO:
        faded = [
            np.clip(np.rint(230 + (patch - patch.mean()) * (target / was)), 0, 255).astype(np.uint8)
            for patch, was in zip(originals, contrast.tolist(), strict=True)
        ]
        before, after = (_fingerprints(images, runtime).codes for images in (faded, list(map(change, faded))))
        gaps = _distances(before, after)
        yield {
            "contrast": target,
            "patches": len(gaps),
            "median_distance": float(np.median(gaps)),
            "p95_distance": float(np.percentile(gaps, 95)),
            "found_at_default": float((gaps <= NEAR_DISTANCE).mean()),
        }


# --- the study -------------------------------------------------------------------------------------------------------


def run_near_duplicates(options, runtime):
    """Measure the check on patients outside the official test set; draw what each distance finds."""
    dataset = load_development_patients(options.data, quick=options.quick, random_state=options.seed)
    found = measure_near_duplicates(dataset, runtime=runtime)
    tables = {name: pd.DataFrame(getattr(found, name)) for name in ("false_alarms", "copies", "faded")}
    copies = {row["change"]: [100 * row[f"d{d}"] for d in DISTANCES] for row in found.copies}
    shown = {
        "as they are": "pairs",
        "one of two turned or mirrored": "turned_pairs",
        "as they are, by chance": "by_chance",
    }
    alarms = {name: [row[column] for row in found.false_alarms] for name, column in shown.items()}
    figures = {
        "copies": _figure("Planted copies found, by distance", "copies found, %", copies),
        "false_alarms": _figure("Pairs of patches of different patients with near hashes", "pairs", alarms),
    }
    return Findings(found.to_dict(), tables, figures)


def _figure(title, y_label, curves):
    lines = [{"name": name, "x": list(DISTANCES), "y": values} for name, values in curves.items()]
    axes = {"title": title, "x_label": "bits that may differ, of 128", "y_label": y_label}
    return "lines", {**axes, "panels": [{"title": "", "lines": lines}]}


NEAR_DUPLICATES = Study(
    "near-duplicates",
    "Near-duplicates: which distance",
    "Measure false alarms and missed copies of the near-duplicate check on real patches, by distance.",
    run_near_duplicates,
)
