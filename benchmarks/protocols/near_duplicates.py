"""How far apart near-duplicates may be: false alarms and missed copies of HF003 on real patches, by distance.

    python benchmarks/protocols/near_duplicates.py --data /path/to/idc --overwrite

False alarms are pairs of patches of different patients whose perceptual hashes are near; copies are planted by changing
patches as re-saving, rescaling and cropping anew change them. The 49 official test patients take no part. Writes
reports/near-duplicates. The chosen distance is `histofeat.evaluation.NEAR_DISTANCE`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import Study, command_line, development_patients, run_command, study_parser, write_study

PROGRAM = "near_duplicates.py"
DISTANCES = (0, 4, 8, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36)
#: Share of each kind of copy that the chosen distance has to find.
REQUIRED = 0.95
#: Kinds of copies that the choice does not wait for: two pixels' worth of shift, on patches of fifty.
TOO_FAR = ("moved 1 px right and down",)
#: Contrasts, in grey levels, to which patches are faded.
FADED_TO = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
FULL_SET = 277_524


def main(arguments=None):
    """Run the study; returns the exit code."""
    parser = study_parser(PROGRAM, __doc__.splitlines()[0], "near-duplicates")
    options = parser.parse_args(arguments)
    command = command_line(f"protocols/{PROGRAM}", parser, options)
    return run_command(PROGRAM, lambda options: run(options, command), options)


def run(options, command):
    """Measure, and write the results."""
    import numpy as np

    from histofeat.images import read_patch
    from histofeat.reporting import check_output

    check_output(options.output, overwrite=options.overwrite)
    dataset = development_patients(options)
    if len(np.unique(dataset.patients)) < 2:
        raise ValueError(f"{options.data}: expected patches of two patients or more, got one. Give more of them.")
    prints = fingerprints(dataset.X, options)
    usable = usable_rows(prints)
    print(f"{len(dataset):,} patches, {int(usable.sum()):,} of them compared", flush=True)
    codes = np.unique(dataset.patients.astype(str), return_inverse=True)[1]
    alarms = false_alarms(prints.codes[usable], codes[usable])
    originals = [read_patch(path) for path in dataset.X[usable]]
    found = copies_found(originals, prints.codes[usable], options)
    faded = faded_copies(originals, prints.contrast[usable], options)
    numbers = {
        "patches": len(dataset),
        "patients": len(np.unique(codes)),
        "compared": int(usable.sum()),
        "smallest_distance": smallest_distance(found),
        "default_distance": default_distance(),
    }
    print(f"written: {write_study(page(numbers, alarms, found, faded), options, command=command)}")


def fingerprints(images, options):
    """Measure images with the fingerprint of the audit."""
    from histofeat.features import Fingerprints, ImageFingerprint, extract

    return Fingerprints.of(extract([ImageFingerprint()], images, n_jobs=options.n_jobs).features[0])


def usable_rows(prints):
    """Tell which images the audit compares."""
    from histofeat.evaluation import comparable

    return comparable(prints)


def default_distance():
    """Give the distance that the audit uses."""
    from histofeat.evaluation import NEAR_DISTANCE

    return NEAR_DISTANCE


# --- false alarms ----------------------------------------------------------------------------------------------------


def false_alarms(codes, patients):
    """Count pairs of different patients within each distance, as they are and with one of the two mirrored.

    Patches of different patients are no copies of each other, mirrored ones still less: the second count says what
    the first would be if it held no copy at all, and has three times as many pairs.
    """
    import numpy as np
    from scipy.stats import chi2

    from histofeat.evaluation import count_distances
    from histofeat.features import mirror_masks

    counts, nearest = count_distances(codes, patients)
    mirrored = [count_distances(codes, patients, flip=mask) for mask in mirror_masks()]
    n_pairs = int(counts.sum())
    to_full_set = (FULL_SET / len(codes)) ** 2
    cumulated = sum(some for some, _ in mirrored).cumsum()
    line = extrapolation(cumulated)
    rows = []
    for distance in DISTANCES:
        pairs, by_chance = int(counts[: distance + 1].sum()), int(cumulated[distance])
        # Exact limit of a Poisson count: what was not seen once may still happen.
        at_most = float(chi2.ppf(0.95, 2 * (by_chance + 1)) / 2) / len(mirrored)
        rows.append(
            {
                "distance": distance,
                "pairs": pairs,
                "pairs_per_million": 1e6 * pairs / n_pairs,
                "patches_percent": 100 * float(np.mean(nearest <= distance)),
                "mirrored_pairs": by_chance / len(mirrored),
                "mirrored_per_million": 1e6 * by_chance / len(mirrored) / n_pairs,
                "mirrored_per_million_at_most": 1e6 * at_most / n_pairs,
                "mirrored_patches_percent": 100 * float(np.mean([(near <= distance).mean() for _, near in mirrored])),
                "full_set_pairs": line(distance) / len(mirrored) * to_full_set,
                "n_pairs": n_pairs,
            }
        )
    return rows


def extrapolation(cumulated):
    """Give the expected number of pairs within a distance: counted, or from a line where fewer than ten were counted.

    The line goes through the logarithms of the counts at the first six distances that have ten pairs. The logarithm
    falls ever more steeply towards small distances, so the line promises too many there, not too few.
    """
    import numpy as np

    enough = np.flatnonzero(cumulated >= 10)[:6]
    if len(enough) < 2:
        return lambda d: float("nan")
    slope, start = np.polyfit(enough, np.log(cumulated[enough]), 1)
    return lambda d: float(cumulated[d]) if cumulated[d] >= 10 else float(np.exp(start + slope * d))


# --- planted copies --------------------------------------------------------------------------------------------------


def changes():
    """Give the changes under which a copy should be found: a function of a patch, by name."""
    import cv2
    import numpy as np

    def jpeg(quality):
        return lambda patch: cv2.imdecode(cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)

    def moved(right, down):
        shift = np.float32([[1, 0, right], [0, 1, down]])
        # What comes in at the border is not on the patch: mirrored pixels stand for it.
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
        "reduced to 80 % and back": scaled(0.8, back=True),
        "reduced to 50 % and back": scaled(0.5, back=True),
        "enlarged to 200 %": scaled(2, back=False),
    }


def copies_found(originals, codes, options):
    """Share of the copies of each kind that lie within each distance of their original."""
    rows = []
    for name, change in changes().items():
        gaps = distances_to_copies(originals, codes, change, options)
        rows.append({"change": name, "copies": len(gaps)} | {f"d{d}": float((gaps <= d).mean()) for d in DISTANCES})
        print(f"{name}: median distance {sorted(gaps)[len(gaps) // 2]:.0f}", flush=True)
    return rows


def distances_to_copies(originals, codes, change, options):
    """Bits between each patch and its changed copy, more than there are where the audit would leave the copy out."""
    import numpy as np

    prints = fingerprints([change(patch) for patch in originals], options)
    gaps = np.bitwise_count(prints.codes ^ codes).sum(axis=1)
    return np.where(usable_rows(prints), gaps, 999)


def faded_copies(originals, contrast, options):
    """Fade patches to some contrast, save them with a loss, and see how far the hash moves: when it describes noise."""
    import numpy as np

    jpeg = changes()["JPEG, quality 50"]
    rows = []
    for target in FADED_TO:
        faded = [
            np.clip(np.rint(230 + (patch - patch.mean()) * (target / was)), 0, 255).astype(np.uint8)
            for patch, was in zip(originals, contrast.tolist(), strict=True)
        ]
        before, after = (fingerprints(images, options) for images in (faded, list(map(jpeg, faded))))
        gaps = np.bitwise_count(before.codes ^ after.codes).sum(axis=1)
        rows.append(
            {
                "contrast": target,
                "patches": len(gaps),
                "median_distance": float(np.median(gaps)),
                "p95_distance": float(np.percentile(gaps, 95)),
                "found_at_default": float((gaps <= default_distance()).mean()),
            }
        )
    return rows


def smallest_distance(found):
    """Give the smallest distance that finds enough of every kind of copy; None if there is none."""
    asked = [row for row in found if row["change"] not in TOO_FAR]
    return next((d for d in DISTANCES if all(row[f"d{d}"] >= REQUIRED for row in asked)), None)


# --- the page --------------------------------------------------------------------------------------------------------


def page(numbers, alarms, found, faded):
    """Lay out what was measured."""
    import pandas as pd

    from histofeat.reporting import Heading, Picture, Text, draw_lines

    blocks = (
        Text(words(numbers, alarms, found)),
        Heading("Copies found"),
        detection_table(found),
        Picture("figures/copies.svg", "Share of planted copies found, by distance",
            "Share of planted copies whose hash lies within a distance of that of their original."),
        Heading("False alarms"),
        alarm_table(alarms),
        Picture("figures/false_alarms.svg", "Share of patches with a false alarm, by distance",
            "Share of patches with a near hash in another patient, as they are and with one of the two mirrored."),
        Heading("Nearly blank patches"),
        Text("Patches were faded to a given contrast and saved as JPEG of quality 50. Where the hash of a copy is far "
             "from that of the patch, it describes noise; the audit leaves such patches out and counts them."),
        contrast_table(faded),
    )  # fmt: skip
    results = {**numbers, "required": REQUIRED, "false_alarms": alarms, "copies": found, "faded": faded}
    tables = {name: pd.DataFrame(rows) for name, rows in (("false_alarms", alarms), ("copies", found),
              ("faded", faded))}  # fmt: skip
    figures = {name: (draw_lines, data) for name, data in charts(alarms, found).items()}
    return Study("Near-duplicates: which distance", blocks, results, tables, figures)


def words(numbers, alarms, found):
    """Say what the default finds and what it costs."""
    default = numbers["default_distance"]
    chosen = numbers["smallest_distance"]
    lead = (
        f"{numbers['compared']:,} of {numbers['patches']:,} patches of {numbers['patients']:,} patients were compared; "
        "the others are nearly blank or narrow. "
    )
    enough = f"{100 * REQUIRED:.0f} % of every kind of copy, {' and '.join(TOO_FAR)} left out,"
    rule = (
        f"No distance finds {enough} and the audit uses {default}."
        if chosen is None
        else f"The smallest distance that finds {enough} is {chosen} of 128 bits; the audit uses {default}."
    )
    row = next((row for row in alarms if row["distance"] == default), None)
    if row is None:
        return lead + rule
    least = min(found, key=lambda kind: kind[f"d{default}"])
    return (
        f"{lead}{rule} At {default} bits {row['pairs']:,} of {row['n_pairs']:,} pairs of different patients are near "
        f"({row['pairs_per_million']:.3g} per million; {row['patches_percent']:.3g} % of the patches). With one of the "
        f"two mirrored, {row['mirrored_pairs']:.3g} are: at most {row['mirrored_per_million_at_most']:.2g} per million "
        f"by the 95 % limit. Continued from larger distances, that makes {row['full_set_pairs']:.2g} pairs among "
        f"{FULL_SET:,} patches. The change that hides a copy best is {least['change']!r}: "
        f"{100 * least[f'd{default}']:.1f} % are found."
    )


def detection_table(found):
    """One row per kind of copy, one column per distance."""
    from histofeat.reporting import Table

    shown = [distance for distance in DISTANCES if distance % 4 == 0 and 0 < distance <= 28]
    rows = tuple((row["change"], *(f"{100 * row[f'd{d}']:.1f}" for d in shown)) for row in found)
    columns = ("Copy", *(f"≤ {distance}" for distance in shown))
    return Table("Share of the planted copies that lie within a distance of their original, %", columns, rows)


def alarm_table(alarms):
    """One row per distance."""
    from histofeat.reporting import Table

    rows = tuple(
        (
            f"≤ {row['distance']}",
            f"{row['pairs']:,}",
            f"{row['pairs_per_million']:.3g}",
            f"{row['patches_percent']:.3g}",
            f"{row['mirrored_pairs']:,.3g}",
            f"{row['mirrored_per_million_at_most']:.2g}",
            f"{row['full_set_pairs']:.2g}" if row["full_set_pairs"] < 1000 else f"{row['full_set_pairs']:,.0f}",
        )
        for row in alarms
    )
    columns = ("Distance", "Pairs", "Per million", "Patches, %", "Pairs, mirrored", "Per million, at most",
               "In the full set")  # fmt: skip
    return Table(
        f"Pairs of patches of different patients, of {alarms[0]['n_pairs']:,}; mirrored: mean of three mirrors, with "
        f"the 95 % limit per million pairs; in the full set: pairs to expect by chance among {FULL_SET:,} patches, "
        "below ten counted pairs from a line through the logarithms of larger counts, which promises too many",
        columns,
        rows,
    )


def contrast_table(faded):
    """One row per contrast."""
    from histofeat.reporting import Table

    rows = tuple(
        (f"{row['contrast']:g}", f"{row['median_distance']:.0f}", f"{row['p95_distance']:.0f}",
         f"{100 * row['found_at_default']:.1f}")
        for row in faded
    )  # fmt: skip
    columns = ("Contrast, grey levels", "Median distance", "95th percentile", "Found, %")
    return Table(f"Faded patches and their copies, {faded[0]['patches']:,} at each contrast", columns, rows)


def charts(alarms, found):
    """Lay out the two figures: copies found, and false alarms."""
    x = list(DISTANCES)
    copies = [{"name": row["change"], "x": x, "y": [100 * row[f"d{d}"] for d in x]} for row in found]
    patches = [
        {"name": name, "x": x, "y": [row[column] for row in alarms]}
        for name, column in (("as they are", "patches_percent"), ("one of two mirrored", "mirrored_patches_percent"))
    ]
    axis = {"x_label": "bits that may differ, of 128"}
    return {
        "copies": axis
        | {"title": "Planted copies found, by distance", "y_label": "copies found, %"}
        | {"panels": [{"title": "", "lines": copies}]},
        "false_alarms": axis
        | {"title": "Patches with a near hash in another patient", "y_label": "patches, %"}
        | {"panels": [{"title": "", "lines": patches}]},
    }


if __name__ == "__main__":
    sys.exit(main())
