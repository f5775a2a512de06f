"""Checks that compare images by their fingerprints: copies, near-copies, and one image under two labels."""

import numpy as np
import pandas as pd
from scipy.special import pdtrc

from histofeat.evaluation.audit._findings import Finding, decide
from histofeat.evaluation.audit._near_pairs import near_pairs
from histofeat.evaluation.audit._table_checks import Split, contradicting_patients
from histofeat.exceptions import counted
from histofeat.features import HASH_BITS, Fingerprints, mirror_masks, transposed_codes

NEAR_DISTANCE = 20
"""Bits of 128 in which perceptual hashes of near-duplicates differ at most; `near_duplicates` says why."""

NEAR_BLANK = 6.0
"""Contrast in grey levels below which a patch is nearly blank: its hash is that of noise, or of a speck at its edge."""

SMALLEST_PX = 16
"""Side in pixels below which a patch has no perceptual hash worth comparing."""

FAR_BELOW_CHANCE = 1e-3
"""Probability of near pairs by chance below which they are an error."""

N_VIEWS = 8
"""Ways to see an image: four quarter turns, as it is and mirrored."""

#: Pairs whose distance is tested: the nearest one, the third, and the tenth.
_RANKS = (1, 3, 10)
#: Distances of unrelated images, by `chance_rates`: where the tail begins, how it falls, and the least spread in bits.
_TAIL_SHARE, _TAIL_SLOPE, _SPREAD = 0.05, 4.8, 9.0


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
    compared = f"(compared: {counted(len(split) - n_flat, 'image')}; of a single colour and left out: {n_flat:,})."
    return decide(
        "HF002", [_pair_words(split, row, *found) for row, found in sorted(partner_of.items())],
        f"Test images with the very pixels of a training image of their fold: {len(partner_of):,} {compared}",
        f"No test image has the pixels of a training image of its fold {compared}",
        "copies that were saved again with a loss, cropped or turned; HF003 looks for some of these.",
        images=len(split), test_images=len(partner_of), single_colour=n_flat,
    )  # fmt: skip


def near_duplicates(search: "NearSearch") -> Finding:
    """HF003: images that look the same, though their pixels differ, on both sides of a fold.

    Parameters
    ----------
    search : NearSearch
        Pairs of images that look the same.

    Returns
    -------
    finding : Finding
        One offender for each test image that looks like a training image of its fold. An error where this is far more
        than chance explains (``p`` below `FAR_BELOW_CHANCE`), else a warning.

    Notes
    -----
    A pair counts where a fold puts one image on each side: only there can it change a score. Copies may be turned by
    quarters and mirrored. Pairs of equal pixels are left to HF002. Near-blank patches (contrast below `NEAR_BLANK`) and
    patches narrower than `SMALLEST_PX` have no perceptual hash worth comparing; they are left out and counted.

    Unrelated images can have near hashes by chance; `chance_rates` says how many to expect. ``p`` is the probability of
    pairs as near as those found: for the nearest, the third and the tenth pair, as it is and turned, the Poisson
    probability of so many pairs within its distance, times the number of these six tests. Only pairs of different
    patients count for ``p``: pairs of one patient are on both sides because the patient is (HF001).

    Twenty bits are the smallest distance that finds 95 % of copies moved by one pixel to the right or down, saved as
    JPEG, or made a little darker. This was counted with planted copies of each kind on real patches, and alarms in
    random splits of clean samples.
    """
    found, split = search.flagged(), search.split
    gaps = {True: {}, False: {}}
    for row, (_, other, gap, turned) in found.items():
        if split.patient[row] != split.patient[other]:
            gaps[turned][frozenset((row, other))] = gap
    looks, contrast = search.looks, search.prints.contrast
    sides = sum(len(train) * len(test) for _, train, test in search.folds())
    n_compared, n_turned = int((looks >= 0).sum()), sum(turned for *_, turned in found.values())
    compared = min(sides, n_compared * (n_compared - 1) // 2)  # pairs, each once: two folds may divide the same pair
    numbers = {
        "test_images": len(found),
        "turned": n_turned,
        "by_chance": float(compared * N_VIEWS * search.rates[-1]),
        "p": search.p_value(gaps[False].values(), gaps[True].values(), compared),
        "distance": NEAR_DISTANCE,
        "compared": n_compared,
        "near_blank": int((contrast < NEAR_BLANK).sum()),
        "narrow": int(((contrast >= NEAR_BLANK) & (looks < 0)).sum()),
    }
    counts = (
        f"Compared: {counted(n_compared, 'image')}; left out as nearly blank {numbers['near_blank']:,}, as narrower "
        f"than {SMALLEST_PX} px {numbers['narrow']:,}. Pairs expected by chance: {numbers['by_chance']:.2g}."
    )
    near = f"(at most {NEAR_DISTANCE} of {HASH_BITS} bits apart, as it is, turned by quarters or mirrored)"
    return decide(
        "HF003", [_pair_words(split, row, fold, other, f" at distance {gap}{', turned or mirrored' if turned else ''}")
                  for row, (fold, other, gap, turned) in sorted(found.items())],
        f"Test images that look like a training image of their fold {near}: {len(found):,}, of them turned or mirrored "
        f"{n_turned:,}. Probability of such near pairs of different patients by chance: {numbers['p']:.2g}. {counts}",
        f"No test image looks like a training image of its fold {near}. {counts}",
        "images that were turned by other angles, moved or cropped by more than about a pixel, and patches that are "
        "nearly blank.", severity="error" if numbers["p"] < FAR_BELOW_CHANCE else "warning", **numbers,
    )  # fmt: skip


def chance_rates(codes: np.ndarray, patients: np.ndarray, distance: int) -> np.ndarray:
    """Estimate the share of pairs of unrelated images whose hashes are near, for each distance.

    Parameters
    ----------
    codes : ndarray of shape (n, 2), uint64
        Hashes.
    patients : ndarray of shape (n,), int
        Number of each one's patient.
    distance : int
        The largest distance.

    Returns
    -------
    rates : ndarray of shape (distance + 1,), float64
        Share of pairs at most 0, 1, ... bits apart; 0 where there are no two patients.

    Notes
    -----
    Hashes whose bits are shuffled between images, each with its own frequency, are no guide: tissue has much in common.
    Counted once, by no command: of 241 million pairs of IDC patches of different patients, in each of the eight views,
    18 were at most 26 bits apart, where shuffled bits promise 0.008, and 309 at most 32, where they promise 13. The
    counts fall by a factor of exp(0.53) a bit, from one pair in twenty at 55 bits to the last of them at 22. So the
    share within d bits is ``0.05 exp(-4.8 (q05 - d) / (q50 - q05))``. Median q50 and spread are those of up to 64 n
    pairs of different patients of the images at hand: related bits widen the spread, and with it the share. The spread
    is measured on the upper half, ``q95 - q50``, since copies are all in the lower one, and is at least that of
    independent bits.

    Examples
    --------
    >>> codes = np.random.default_rng(0).integers(0, 2**64, (1000, 2), dtype=np.uint64)
    >>> bool(1e-11 < chance_rates(codes, np.arange(1000), 20)[20] < 1e-8)
    True
    """
    steps = np.unique(np.linspace(1, max(len(codes) - 1, 1), 64).astype(int))
    gaps = np.concatenate([
        np.bitwise_count(codes ^ np.roll(codes, step, axis=0)).sum(axis=1)[patients != np.roll(patients, step)]
        for step in steps
    ])  # fmt: skip
    if not gaps.size:
        return np.zeros(distance + 1)
    median, high = np.quantile(gaps, [0.5, 0.95])
    spread = max(high - median, _SPREAD)
    return np.minimum(1, _TAIL_SHARE * np.exp(-_TAIL_SLOPE * (median - spread - np.arange(distance + 1)) / spread))


class NearSearch:
    """Pairs of images whose hashes are near, as they are or with one of the two turned by quarters or mirrored.

    Parameters
    ----------
    split : Split
    prints : Fingerprints
        Of all rows.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.

    Attributes
    ----------
    looks : ndarray of shape (n,), int64
        Number of each row's image, -1 where its hash is not worth comparing. Rows of equal pixels share one.
    plain, turned : tuple of (ndarray of shape (m, 2), ndarray of shape (m,)), int64
        Pairs of numbers of images, and their distances.
    rates : ndarray of shape (NEAR_DISTANCE + 1,), float64
        As `chance_rates` gives them.
    """

    def __init__(self, split: Split, prints: Fingerprints, *, n_jobs=None):
        self.split, self.prints = split, prints
        # A perceptual hash describes neither near-blank nor narrow patches.
        usable = np.flatnonzero((prints.contrast >= NEAR_BLANK) & (prints.side_px >= SMALLEST_PX))
        self.looks = np.full(len(prints), -1)
        _, first, self.looks[usable] = np.unique(prints.image[usable], return_index=True, return_inverse=True)
        first = usable[first]
        codes, self.n_looks = prints.codes[first], len(first)
        self.plain = near_pairs(codes, NEAR_DISTANCE, n_jobs=n_jobs)
        self.turned = turned_pairs(codes, NEAR_DISTANCE, n_jobs=n_jobs)
        self.rates = chance_rates(codes, split.patient[first], NEAR_DISTANCE)

    def p_value(self, plain, turned, compared: int) -> float:
        """Give the probability that unrelated images have pairs as near; see `near_duplicates`.

        Parameters
        ----------
        plain, turned : iterable of int
            Distances of the pairs that were found, and of those that were found turned or mirrored.
        compared : int
            How many pairs were compared.
        """
        tests = [
            pdtrc(rank - 1, compared * views * self.rates[gaps[rank - 1]])
            for views, gaps in ((1, sorted(plain)), (N_VIEWS - 1, sorted(turned)))
            for rank in _RANKS
            if rank <= len(gaps)
        ]
        return float(min([1.0, *(2 * len(_RANKS) * test for test in tests)]))

    def flagged(self) -> dict[int, tuple[int, int, int, bool]]:
        """Give (fold, training row, distance, turned) of the nearest for each test row that has one.

        Images that look the same as they are go before those that do so turned.
        """
        found: dict[int, tuple[int, int, int, bool]] = {}
        for turned, (pairs, gaps) in ((False, self.plain), (True, self.turned)):
            ends, both = np.concatenate([pairs, pairs[:, ::-1]]), np.concatenate([gaps, gaps])
            nearest_last = np.argsort(-both, kind="stable")
            ends, both = ends[nearest_last], both[nearest_last]
            for fold, train, test in self.folds():
                row_of, gap_of = (values[self.looks[test]] for values in self._nearest(train, ends, both))
                for at in np.flatnonzero(row_of >= 0):
                    found.setdefault(int(test[at]), (fold, int(row_of[at]), int(gap_of[at]), turned))
        return found

    def folds(self):
        """Yield (number of the fold from 1, training rows, test rows) of the images that have a hash."""
        for fold, (train, test) in enumerate(self.split.folds, start=1):
            yield fold, train[self.looks[train] >= 0], test[self.looks[test] >= 0]

    def two_labels(self) -> list[tuple[int, int, int, bool]]:
        """Give (row, row, distance, turned) of images that look the same under two labels, once for two images."""
        pairs = pd.DataFrame(np.concatenate([self.plain[0], self.turned[0]]), columns=["a", "b"])
        pairs = pairs.assign(
            gap=np.concatenate([self.plain[1], self.turned[1]]), turned=pairs.index >= len(self.plain[0])
        )
        rows = pd.DataFrame({"look": self.looks, "label": self.split.dataset.y, "row": np.arange(len(self.looks))})
        rows = rows[np.isin(self.looks, pairs[["a", "b"]])].drop_duplicates(["look", "label"])
        pairs = pairs.merge(rows, left_on="a", right_on="look").merge(rows, left_on="b", right_on="look")
        pairs = pairs[pairs["label_x"] != pairs["label_y"]].drop_duplicates(["row_x", "row_y"])
        return list(pairs[["row_x", "row_y", "gap", "turned"]].itertuples(index=False, name=None))

    def _nearest(self, train, ends, gaps) -> tuple[np.ndarray, np.ndarray]:
        """Training row with the nearest other image, and its distance, for each image; -1 where there is none."""
        first, partner, gap = (np.full(self.n_looks, -1) for _ in range(3))
        first[self.looks[train[::-1]]] = train[::-1]
        there = first[ends[:, 1]] >= 0
        # Of several values for one place the last stays, which is the nearest.
        partner[ends[there, 0]] = first[ends[there, 1]]
        gap[ends[there, 0]] = gaps[there]
        return partner, gap


def turned_pairs(codes: np.ndarray, distance: int, *, n_jobs=None) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of hashes that differ in at most `distance` bits with one image turned by quarters or mirrored.

    Parameters
    ----------
    codes, distance, n_jobs
        As for `near_pairs`.

    Returns
    -------
    pairs : ndarray of shape (m, 2), int64
        Row numbers, the smaller first, in ascending order; each pair once.
    distances : ndarray of shape (m,), int64
        In the view in which fewest bits differ.
    """
    n, both = len(codes), np.concatenate([codes, transposed_codes(codes)])
    found = [near_pairs(both, distance, flip=mask, n_jobs=n_jobs) for mask in [(0, 0), *mirror_masks()]]
    pairs, gaps = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mirrored = np.arange(len(pairs)) >= len(found[0][0])
    # Two transposed images are as near as the two themselves; an image may be near its own mirror image.
    wanted = (pairs[:, 0] < n) & ((pairs[:, 1] >= n) | mirrored) & (pairs[:, 0] != pairs[:, 1] - n)
    pairs, gaps = np.sort(pairs[wanted] % max(n, 1), axis=1), gaps[wanted]
    nearest_first = np.argsort(gaps, kind="stable")
    pairs, first = np.unique(pairs[nearest_first], axis=0, return_index=True)
    return pairs, gaps[nearest_first][first]


def contradicting_labels(split: Split, prints: Fingerprints | None, search: NearSearch | None = None) -> Finding:
    """HF006: one image, or one patient, under two labels.

    Parameters
    ----------
    split : Split
    prints : Fingerprints or None
        Of all rows; without them patients alone are compared.
    search : NearSearch, optional
        Images that look the same; without it only those of equal pixels are compared.

    Returns
    -------
    finding : Finding
        An error where ``dataset.labels_per`` is "patient": a patient has one diagnosis, and copies under two labels
        make a score of that patient meaningless (13412 in BreakHis); images that only look the same count where chance
        does not explain them, as for HF003. A warning where labels are those of patches: equal patches under two labels
        are noise of the annotation, which any score on these data contains. One offender for each patient, for each
        image and for each pair of images that look the same with more than one label.
    """
    per_patient, names = split.dataset.labels_per == "patient", split.dataset.target_names
    patients, images = contradicting_patients(split), _images_with_two_labels(split, prints)
    near = [] if search is None else search.two_labels()
    gaps = [[gap for *_, gap, turned in near if turned == which] for which in (False, True)]
    beyond = bool(near) and search.p_value(*gaps, search.n_looks * (search.n_looks - 1) // 2) < FAR_BELOW_CHANCE
    alike = [
        f"{' and '.join(f'{split.name(row)} ({names[split.dataset.y[row]]})' for row in rows)} at distance {gap}"
        for *rows, gap, _ in near
    ]
    looked_at = [
        *(["patients"] if per_patient else []), *(["images of equal pixels"] if prints is not None else []),
        *(["images that look the same"] if search is not None else []),
    ]  # fmt: skip
    return decide(
        "HF006", [*patients, *images, *alike],
        f"With two labels: patients {len(patients):,}, images {len(images):,}, pairs of images that look "
        f"the same {len(alike):,}.",
        f"Each label stands alone ({' and '.join(looked_at)} were compared).",
        "labels that are wrong and nowhere contradicted." if prints is not None else "images, which were not compared.",
        severity="error" if per_patient and (patients or images or beyond) else "warning",
        patients=len(patients), images=len(images), pairs=len(alike),
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
