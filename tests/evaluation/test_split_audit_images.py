"""What the images of a split give away: copies, near-copies and contradictions; and the hashes behind that."""

import hashlib
import pickle

import cv2
import numpy as np
import pytest
from scipy.fft import dctn
from scipy.stats import poisson
from sklearn.base import clone
from test_split_audit import dataset_of

from histofeat.evaluation import audit_fingerprints, audit_split
from histofeat.evaluation.audit import _image_checks
from histofeat.evaluation.audit._findings import check_audit
from histofeat.evaluation.audit._image_checks import NEAR_DISTANCE, NearSearch, chance_rates, turned_pairs
from histofeat.evaluation.audit._near_pairs import near_pairs
from histofeat.evaluation.audit._table_checks import as_split
from histofeat.exceptions import GroupLeakageError
from histofeat.features import (
    ColorHistogram,
    Fingerprints,
    ImageFingerprint,
    Runtime,
    extract,
    mirror_masks,
    number_rows,
    transposed_codes,
)
from histofeat.features._image_fingerprint import _frequencies
from histofeat.images import read_patch

HALVES = [([0, 1, 2, 3], [4, 5, 6, 7])]


def patch_of(seed, side=50):
    """A patch with structure at several scales: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 230, (10, 10, 3)).astype(np.uint8)
    fine = rng.normal(0, 8, (side, side, 3))
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + fine, 0, 250).astype(np.uint8)


@pytest.fixture
def eight():
    return [patch_of(seed) for seed in range(8)]


def jpeg(patch, quality=60):
    return cv2.imdecode(cv2.imencode(".jpg", patch, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def audited(images, splits=HALVES, patients="abcdefgh", **more):
    prints = ImageFingerprint().transform(images)
    return audit_fingerprints(dataset_of(list(patients), **more), splits, prints)


class TestFingerprint:
    def test_form(self, patches):
        family = ImageFingerprint()
        columns = family.get_feature_names_out()
        values = family.fit(patches).transform(patches)
        assert values.shape == (len(patches), len(columns)) == (12, 35)
        assert values.dtype == np.float32
        assert len(set(columns)) == 35
        assert all(name.startswith("fingerprint_") for name in columns)
        assert values[:, :32].min() >= 0
        assert values[:, :32].max() <= 255

    def test_it_is_no_family_for_a_classifier(self):
        import histofeat.features

        assert "fingerprint" not in histofeat.features.FAMILIES

    def test_the_same_alone_in_batches_in_threads_cloned_pickled_and_from_a_store(self, patches, tmp_path):
        family, store = ImageFingerprint(), tmp_path / "store.sqlite"
        expected = family.transform(patches)
        many = np.concatenate([patches] * 30)
        assert np.array_equal(extract([family], many, n_jobs=2).features[0], np.tile(expected, (30, 1)))
        assert np.array_equal(np.vstack([family.transform(patch[None]) for patch in patches]), expected)
        for other in (clone(family), pickle.loads(pickle.dumps(family))):
            assert np.array_equal(other.transform(patches), expected)
        for n_measured in (12, 0):
            found = extract([ColorHistogram(), family], patches, store=store)
            assert np.array_equal(found.features[1], expected)
            assert found.computed["fingerprint"] == n_measured

    def test_digest_is_of_size_and_pixels(self, patches):
        witness = [hashlib.blake2b(b"50x50 " + patch.tobytes(), digest_size=16, person=b"pixels") for patch in patches]
        assert Fingerprints.of(ImageFingerprint().transform(patches)).keys() == [w.digest() for w in witness]

    def test_files_of_equal_pixels_are_one_image(self, tmp_path):
        patch, paths = patch_of(0), []
        for name, options in (("a.png", []), ("b.png", [cv2.IMWRITE_PNG_COMPRESSION, 0]), ("c.bmp", [])):
            paths.append(str(tmp_path / name))
            cv2.imwrite(paths[-1], patch, options)
        prints = Fingerprints.of(ImageFingerprint().transform(paths))
        assert prints.image.tolist() == [0, 0, 0]

    def test_turned_over_rows_and_columns_are_other_images(self):
        patch = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
        images = [patch, patch.reshape(5, 2, 3), patch[::-1], patch + 1]
        assert Fingerprints.of(ImageFingerprint().transform(images)).image.tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("shape", [(50, 50), (50, 37), (16, 40), (300, 200)])
    def test_bits_are_the_signs_of_the_cosine_transform(self, shape):
        patch = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3)).astype(np.uint8)
        prints = Fingerprints.of(ImageFingerprint().transform([patch]))
        spectrum = dctn(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(float), norm="ortho")
        wanted = np.array([spectrum[u, v] for u, v in _frequencies()])
        bits = np.unpackbits(prints.codes.view(np.uint8))
        clear = np.abs(wanted) > 1e-3 * np.abs(wanted).max()
        assert clear.sum() > 120
        assert np.array_equal(bits[clear], (wanted > 0)[clear])
        assert prints.contrast[0] == pytest.approx(np.sqrt((wanted**2).sum() / (shape[0] * shape[1])), rel=1e-3)

    def test_frequencies_are_the_lowest(self):
        pairs = sorted((u * u + v * v, u, v) for u in range(30) for v in range(30) if u + v)
        assert _frequencies().tolist() == [[u, v] for _, u, v in pairs[:128]]

    def test_mirrors_turn_the_bits_of_odd_frequencies(self, eight):
        codes = Fingerprints.of(ImageFingerprint().transform(eight)).codes
        mirrors = [[p[:, ::-1] for p in eight], [p[::-1] for p in eight], [p[::-1, ::-1] for p in eight]]
        for mask, mirrored in zip(mirror_masks(), mirrors, strict=True):
            gaps = np.bitwise_count(Fingerprints.of(ImageFingerprint().transform(mirrored)).codes ^ codes ^ mask)
            assert gaps.max() == 0

    def test_swapped_rows_and_columns_swap_frequencies(self, eight):
        narrow = [patch[:, :30] for patch in eight]
        for images in (eight, narrow):
            codes, swapped = (
                Fingerprints.of(ImageFingerprint().transform(some)).codes
                for some in (images, [patch.transpose(1, 0, 2).copy() for patch in images])
            )
            assert np.bitwise_count(transposed_codes(codes) ^ swapped).max() == 0
        turned = Fingerprints.of(ImageFingerprint().transform([np.rot90(p).copy() for p in eight])).codes
        codes = Fingerprints.of(ImageFingerprint().transform(eight)).codes
        assert np.bitwise_count(transposed_codes(codes) ^ mirror_masks()[1] ^ turned).max() == 0

    def test_copies_stay_near_and_others_do_not(self, eight):
        def gaps(change):
            both = [Fingerprints.of(ImageFingerprint().transform(images)).codes for images in (eight, change)]
            return np.bitwise_count(both[0] ^ both[1]).sum(axis=1)

        assert gaps([jpeg(patch) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps([cv2.resize(patch, (100, 100)) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps([np.rint(patch * 0.8).astype(np.uint8) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps(eight[1:] + eight[:1]).min() > 31

    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_one_colour(self, level):
        flat = np.full((50, 50, 3), level, dtype=np.uint8)
        # Two colours of one luma are still two colours.
        spot = flat.copy()
        spot[0, 0] = (90, 120, 30)
        luma = cv2.cvtColor(spot[:1, :1], cv2.COLOR_RGB2GRAY)[0, 0]
        same_luma = np.full((50, 50, 3), luma, dtype=np.uint8)
        same_luma[0, 0] = spot[0, 0]
        assert len(np.unique(cv2.cvtColor(same_luma, cv2.COLOR_RGB2GRAY))) == 1
        prints = Fingerprints.of(ImageFingerprint().transform([flat, same_luma, patch_of(0)]))
        assert prints.flat.tolist() == [True, False, False]
        assert prints.contrast[:2].tolist() == [0, 0]

    @pytest.mark.parametrize("shape", [(1, 1), (50, 1), (1, 50), (7, 50)])
    def test_narrow_patches_are_finite(self, shape):
        prints = Fingerprints.of(ImageFingerprint().transform([patch_of(0)[: shape[0], : shape[1]]]))
        assert prints.side_px.tolist() == [min(shape)]
        assert np.isfinite(prints.contrast).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m[:, :34], r"shape \(n, 35\) .* got shape \(2, 34\)"),
            (lambda m: m[0], r"got shape \(35,\)"),
            (lambda m: m[:0], r"got shape \(0, 35\)"),
            (lambda m: m + 0.5, r"whole numbers from 0 to 255 in the first 32 columns, got others in row 0 \(2 such"),
            (lambda m: m + np.array([[0], [300]]), r"got others in row 1 \(1 such rows\)"),
        ],
    )
    def test_refused_matrices(self, patches, change, message):
        with pytest.raises(ValueError, match=message):
            Fingerprints.of(change(ImageFingerprint().transform(patches[:2])))

    def test_numbers_of_rows(self):
        rng = np.random.default_rng(0)
        words = rng.integers(0, 3, (200, 2)).astype(np.uint64) + np.uint64(2**63)
        _, witness = np.unique(words, axis=0, return_inverse=True)
        found = number_rows(words)
        assert len(set(zip(found, witness.ravel(), strict=True))) == found.max() + 1 == 9
        assert number_rows(words[:0]).tolist() == []


def brute(codes, distance, flip):
    bits = np.bitwise_count(codes[:, None] ^ codes[None] ^ np.array(flip, dtype=np.uint64)).sum(axis=2)
    first, second = np.nonzero(np.triu(bits <= distance, k=1))
    return np.column_stack([first, second]), bits[first, second]


class TestNearPairs:
    @staticmethod
    def planted(n, rng, flip=(0, 0)):
        codes = rng.integers(0, 2**64, (n, 2), dtype=np.uint64)
        flip = np.array(flip, dtype=np.uint64)
        for source, copy in rng.permutation(n)[: n // 2 * 2].reshape(-1, 2)[: n // 3]:
            codes[copy] = codes[source] ^ flip
            for bit in rng.choice(128, rng.integers(0, 40), replace=False):
                codes[copy, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        return codes

    @pytest.mark.parametrize("distance", [0, 1, 7, 8, 9, 15, 16, 20, 23, 31])
    def test_the_search_finds_what_comparing_all_finds(self, distance):
        rng = np.random.default_rng(distance)
        for flip in ((0, 0), tuple(mirror_masks()[2])):
            codes = self.planted(400, rng, flip)
            expected = brute(codes, distance, flip)
            assert len(expected[0]) > 0
            for n_jobs in (None, 2):
                pairs, gaps = near_pairs(codes, distance, flip=flip, n_jobs=n_jobs)
                assert np.array_equal(pairs, expected[0])
                assert np.array_equal(gaps, expected[1])

    def test_more_pairs_than_there_was_room_for(self):
        codes = np.arange(256, dtype=np.uint64)[:, None] * np.array([[1, 0]], dtype=np.uint64)
        assert len(near_pairs(codes, 8)[0]) == 256 * 255 // 2

    @pytest.mark.parametrize("n", [0, 1])
    def test_nothing_to_compare(self, n):
        pairs, gaps = near_pairs(np.zeros((n, 2), dtype=np.uint64), 20)
        assert pairs.shape == (0, 2)
        assert gaps.shape == (0,)

    @pytest.mark.parametrize("view", range(1, 8))
    def test_turned_pairs_are_found_once_with_their_distance(self, eight, view):
        def codes_of(images):
            return Fingerprints.of(ImageFingerprint().transform(images)).codes

        def turn(patch, k):
            return np.ascontiguousarray(np.rot90(patch[:, ::-1] if k >= 4 else patch, k % 4))

        images = [*eight, turn(jpeg(eight[2]), view), turn(jpeg(eight[5], 90), view)]
        plain, gaps = codes_of(images), []
        for k in range(1, 8):
            gaps.append(np.bitwise_count(plain[:, None] ^ codes_of([turn(p, k) for p in images])[None]).sum(axis=2))
        nearest = np.minimum(np.min(gaps, axis=0), np.min(gaps, axis=0).T)
        pairs, distances = turned_pairs(plain, 20)
        assert pairs.tolist() == [[2, 8], [5, 9]]
        assert distances.tolist() == [nearest[2, 8], nearest[5, 9]]
        assert turned_pairs(plain[:0], 20)[0].shape == (0, 2)


class TestExactDuplicates:
    def test_caught_across_sides(self, eight):
        eight[6] = eight[1].copy()
        found = audited(eight).finding("HF002")
        assert found.is_error
        assert found.offenders == ("6.png, tested in fold 1, and 1.png (patients g and b)",)
        assert found.numbers == {"images": 8, "test_images": 1, "single_colour": 0}

    def test_passed_on_one_side(self, eight):
        eight[1], eight[6] = eight[0].copy(), eight[5].copy()
        assert audited(eight).finding("HF002").status == "passed"

    def test_passed_where_one_of_them_is_on_no_side(self, eight):
        eight[3] = eight[4].copy()
        assert audited(eight, [([0, 1, 2], [4, 5])]).finding("HF002").status == "passed"
        assert audited(eight, [([0, 1, 2], [4]), ([3, 0], [4, 5])]).finding("HF002").offenders == (
            "4.png, tested in fold 2, and 3.png (patients e and d)",
        )

    def test_by_pixels_not_by_bytes(self, tmp_path, cohort):
        patch = cv2.imread(cohort.X[0])
        cv2.imwrite(str(tmp_path / "copy.bmp"), patch)
        frame = cohort.frame.iloc[:20].assign(path=[*cohort.X[:19], str(tmp_path / "copy.bmp")])
        from histofeat.datasets import PatchDataset

        dataset = PatchDataset(frame, cohort.target_names, "mine")
        found = audit_split(dataset, [(range(10), range(10, 20))]).finding("HF002")
        assert found.numbers["test_images"] == 1

    def test_images_of_one_colour_are_no_copies(self, eight):
        eight[0] = eight[4] = np.full((50, 50, 3), 240, dtype=np.uint8)
        report = audited(eight, y=[0, 0, 1, 1, 1, 0, 1, 0])
        assert report.finding("HF002").status == "passed"
        assert report.finding("HF002").numbers["single_colour"] == 1 + 1
        assert report.finding("HF006").status == "passed"

    def test_only_images_of_one_colour(self):
        images = np.full((8, 50, 50, 3), 240, dtype=np.uint8)
        report = audited(images)
        assert report.finding("HF002").status == report.finding("HF003").status == "passed"
        assert report.finding("HF003").numbers["near_blank"] == 8

    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_sets(self, seed):
        rng = np.random.default_rng(seed)
        which = rng.integers(0, 30, 40)
        images = [patch_of(number) for number in which]
        order = rng.permutation(40)
        splits = [(order[:20], order[20:30]), (order[25:], order[:10])]
        found = audited(images, splits, patients=range(40)).finding("HF002")
        flagged = {row for train, test in splits for row in test if which[row] in set(which[train])}
        assert {int(words.split(".png")[0]) for words in found.offenders} == flagged


class TestNearDuplicates:
    def test_caught_with_the_distance(self, eight):
        eight[6] = jpeg(eight[1])
        found = audited(eight).finding("HF003")
        assert found.is_error
        assert found.offenders[0].startswith("6.png, tested in fold 1, and 1.png at distance ")
        assert found.offenders[0].endswith("(patients g and b)")
        assert found.numbers["test_images"] == 1
        assert found.numbers["turned"] == 0
        assert 0 < found.numbers["p"] < found.numbers["by_chance"] < 1e-3

    def test_passed(self, eight):
        eight[1] = jpeg(eight[0])
        found = audited(eight).finding("HF003")
        assert (found.status, found.numbers["compared"]) == ("passed", 8)

    def test_equal_pixels_are_left_to_hf002(self, eight):
        eight[6] = eight[1].copy()
        assert audited(eight).finding("HF003").status == "passed"

    def test_equal_hash_and_other_pixels(self, eight):
        eight[6] = eight[1] + 3
        eight[7] = eight[1].copy()
        found = audited(eight).finding("HF003")
        assert found.offenders == ("6.png, tested in fold 1, and 1.png at distance 0 (patients g and b)",)

    def test_the_nearest_is_named(self, eight):
        eight[6] = eight[1] + 3
        eight[0], eight[2] = jpeg(eight[1], 15), jpeg(eight[1], 20)
        assert "and 1.png at distance 0" in audited(eight).finding("HF003").offenders[0]

    def test_pairs_of_one_patient_count_where_a_fold_divides_them(self, eight):
        eight[6] = jpeg(eight[1])
        found = audited(eight, patients="abcdefbh").finding("HF003")
        assert found.offenders[0].endswith("(patient b)")

    def test_blank_and_narrow_patches_are_left_out_and_counted(self, eight):
        light = np.linspace(240, 246, 50)[None, :, None]  # the same uneven light on two slides
        for place, seed in ((0, 1), (4, 2)):
            noise = np.random.default_rng(seed).normal(0, 0.4, (50, 50, 3))
            eight[place] = np.rint(light + noise).astype(np.uint8)
        eight[1], eight[5] = eight[2][:12], jpeg(eight[2][:12])
        found = audited(eight).finding("HF003")
        assert found.status == "passed"
        assert {key: found.numbers[key] for key in ("compared", "near_blank", "narrow")} == {
            "compared": 4, "near_blank": 2, "narrow": 2,
        }  # fmt: skip

    @pytest.mark.parametrize("view", range(1, 8))
    def test_turned_and_mirrored_copies_are_found(self, eight, view):
        seen = np.rot90(eight[1], view % 4)
        eight[6] = jpeg(np.ascontiguousarray(seen[:, ::-1] if view >= 4 else seen), 80)
        found = audited(eight).finding("HF003")
        assert found.is_error
        assert (found.numbers["test_images"], found.numbers["turned"]) == (1, 1)
        assert "and 1.png at distance" in found.offenders[0]
        assert ", turned or mirrored (patients g and b)" in found.offenders[0]

    def test_an_image_that_is_its_own_mirror_image_is_no_copy(self, eight):
        half = eight[1][:, :25]
        eight[1] = np.concatenate([half, half[:, ::-1]], axis=1)
        assert audited(eight).finding("HF003").status == "passed"
        assert audited(eight).finding("HF006").status == "passed"

    def test_it_can_be_accepted_by_its_code(self, eight):
        eight[6] = jpeg(eight[1])
        report = audited(eight)
        with pytest.raises(GroupLeakageError, match=r'HF003 near-duplicates: expected none, got 1: .*\("HF003",\)'):
            check_audit(report)
        assert check_audit(report, ("HF003",)).accepted == ("HF003",)

    def test_what_chance_explains_is_a_warning(self, eight, monkeypatch):
        eight[6] = jpeg(eight[1])
        monkeypatch.setattr(_image_checks, "chance_rates", lambda codes, patients, distance: np.ones(distance + 1))
        found = audited(eight).finding("HF003")
        assert (found.status, found.severity, found.numbers["p"]) == ("issue", "warning", 1.0)
        assert found.numbers["by_chance"] == 8 * 16  # 4 test images, 4 training images, 8 views

    def test_pairs_of_one_patient_are_the_business_of_hf001(self, eight):
        eight[6] = jpeg(eight[1])
        found = audited(eight, patients="abcdefbh").finding("HF003")
        assert (found.status, found.severity, found.numbers["p"]) == ("issue", "warning", 1.0)

    def test_one_patient_has_no_unrelated_pairs(self, eight):
        assert audited(eight, patients="aaaaaaaa").finding("HF003").numbers["by_chance"] == 0

    def test_pairs_that_several_folds_divide_count_once(self, eight):
        halves, others = ([0, 1, 2, 3], [4, 5, 6, 7]), ([0, 1, 6, 7], [2, 3, 4, 5])
        folds = [halves, halves[::-1], others]
        rates = audited(eight, folds).finding("HF003").numbers["by_chance"]
        assert rates == pytest.approx(audited(eight).finding("HF003").numbers["by_chance"] * 28 / 16)

    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_comparing_all(self, seed):
        rng = np.random.default_rng(seed)
        n = 60
        which = rng.integers(0, 40, n)
        images = [patch_of(k) if rng.random() < 0.3 else jpeg(patch_of(k), int(rng.integers(20, 95))) for k in which]
        order = rng.permutation(n)
        splits = [(order[:30], order[30:50]), (order[25:], order[:10])]
        prints = Fingerprints.of(ImageFingerprint().transform(images))
        bits = np.bitwise_count(prints.codes[:, None] ^ prints.codes[None]).sum(axis=2)
        near = (bits <= NEAR_DISTANCE) & (prints.image[:, None] != prints.image[None])
        expected = {int(row) for train, test in splits for row in test if near[row, train].any()}
        found = audited(images, splits, patients=range(n)).finding("HF003")
        assert {int(words.split(".png")[0]) for words in found.offenders} == expected
        for words in found.offenders:
            row, fold, rest = (int(words.split(".png")[0]), int(words.split("fold ")[1][0]), words.split("and ")[1])
            partner, gap = int(rest.split(".png")[0]), int(rest.split("distance ")[1].split()[0])
            train = splits[fold - 1][0]
            assert gap == bits[row, partner] == bits[row, train][near[row, train]].min()


class TestChance:
    """The null of near pairs."""

    def test_tail_of_all_pairs(self):
        """By hand: all pairs of different patients, and the line through their quantiles."""
        rng = np.random.default_rng(0)
        codes, patients = rng.integers(0, 2**64, (60, 2), dtype=np.uint64), np.arange(60) // 2
        bits = np.unpackbits(codes.view(np.uint8), axis=1)
        gaps = [
            (bits[i] != bits[j]).sum() for i in range(60) for j in range(60) if i != j and patients[i] != patients[j]
        ]
        median, high = np.quantile(gaps, [0.5, 0.95])
        spread = max(high - median, 9)
        expected = [0.05 * np.exp(-4.8 * (median - spread - d) / spread) for d in range(21)]
        assert chance_rates(codes, patients, 20) == pytest.approx(expected)

    def test_related_bits_widen_the_tail(self):
        rng = np.random.default_rng(0)
        bits = rng.integers(0, 2, (500, 128)).astype(np.uint8)
        related = bits[:, np.arange(128) // 2 * 2]  # each second bit repeats the one before it
        words = [np.packbits(np.ascontiguousarray(some), axis=1).view("<u8") for some in (bits, related)]
        rates = [chance_rates(codes, np.arange(500), 20)[20] for codes in words]
        assert rates[1] > 1000 * rates[0]

    def test_copies_do_not_move_it(self):
        rng = np.random.default_rng(0)
        codes, patients = rng.integers(0, 2**64, (100, 2), dtype=np.uint64), np.arange(800)
        many = chance_rates(np.tile(codes, (8, 1)), patients, 20)
        assert many == pytest.approx(chance_rates(codes, patients[:100], 20), rel=1)

    @pytest.mark.parametrize(("plain", "turned"), [([3], []), ([], [0, 9]), ([12, 4, 20, 9], [7] * 12), ([], [])])
    def test_p_is_the_smallest_of_six_poisson_tails(self, eight, plain, turned):
        split = as_split(dataset_of(list("abcdefgh")), HALVES)
        search = NearSearch(split, Fingerprints.of(ImageFingerprint().transform(eight)))
        search.rates = np.logspace(-9, -4, 21)
        tails = [1 / 6]
        for views, gaps in ((1, plain), (7, turned)):
            for rank in (1, 3, 10):
                if rank <= len(gaps):
                    tails.append(poisson.sf(rank - 1, views * 5000 * search.rates[sorted(gaps)[rank - 1]]))
        assert search.p_value(plain, turned, 5000) == pytest.approx(min(1, 6 * min(tails)))

    def test_p_is_no_smaller_than_it_should_be(self):
        """Size: of 2,000 draws from the null at 5 %, not more have p below 0.05."""
        rng, search = np.random.default_rng(0), NearSearch.__new__(NearSearch)
        search.rates = 1e-6 * np.exp(0.53 * (np.arange(21) - 20))
        steps = np.diff(search.rates, prepend=0)
        for compared in (1e5, 1e6, 1e7):
            found = [
                [np.repeat(np.arange(21), rng.poisson(views * compared * steps)) for views in (1, 7)]
                for _ in range(2000)
            ]
            assert np.mean([search.p_value(*gaps, compared) < 0.05 for gaps in found]) <= 0.05


class TestContradictingLabels:
    @pytest.mark.parametrize("change", [jpeg, lambda patch: np.rot90(patch).copy()], ids=["saved again", "turned"])
    @pytest.mark.parametrize("labels_per", ["patch", "patient"])
    def test_copies_under_another_label(self, eight, change, labels_per):
        eight[3] = change(eight[0])
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1], labels_per=labels_per).finding("HF006")
        assert (found.status, found.is_error) == ("issue", labels_per == "patient")
        assert found.offenders[0].startswith("0.png (benign) and 3.png (malignant) at distance ")
        assert found.numbers == {"patients": 0, "images": 0, "pairs": 1}

    def test_copies_of_one_hash_and_several_labels(self, eight):
        eight[3], eight[5] = eight[0] + 3, eight[0] + 2
        found = audited(eight, y=[0, 1, 0, 1, 0, 2, 0, 1], target_names=("a", "b", "c"), positive=None).finding("HF006")
        assert [words.split(" at ")[0] for words in sorted(found.offenders)] == [
            "0.png (a) and 3.png (b)", "0.png (a) and 5.png (c)", "3.png (b) and 5.png (c)",
        ]  # fmt: skip

    @pytest.mark.parametrize("seed", range(3))
    def test_agrees_with_comparing_all_in_all_views(self, seed):
        rng = np.random.default_rng(seed)
        images = [patch_of(k) for k in rng.integers(0, 12, 24)]
        images = [jpeg(np.rot90(patch, rng.integers(4)).copy(), int(rng.integers(30, 95))) for patch in images]
        y = rng.integers(0, 2, 24)
        prints = Fingerprints.of(ImageFingerprint().transform(images))
        near = np.zeros((24, 24), dtype=bool)
        for view in range(8):
            seen = [np.rot90(p[:, ::-1] if view >= 4 else p, view % 4).copy() for p in images]
            codes = Fingerprints.of(ImageFingerprint().transform(seen)).codes
            near |= np.bitwise_count(codes[:, None] ^ prints.codes[None]).sum(axis=2) <= NEAR_DISTANCE
        near &= prints.image[:, None] != prints.image[None]
        expected = {(i, j) for i in range(24) for j in range(i) if near[i, j] and y[i] != y[j]}
        split = as_split(dataset_of(range(24), y), [(range(12), range(12, 24))])
        found = NearSearch(split, prints)
        assert {(j, i) for i, j, *_ in found.two_labels()} == expected
        flagged = {row for row in range(12, 24) if near[row, :12].any()}
        assert set(found.flagged()) == flagged

    def test_caught_as_a_warning(self, eight):
        eight[3] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1]).finding("HF006")
        assert (found.status, found.severity) == ("issue", "warning")
        assert found.offenders == ("0.png (benign) and 3.png (malignant)",)
        assert found.detail == "With two labels: patients 0, images 1, pairs of images that look the same 0."

    def test_an_error_where_labels_are_those_of_patients(self, eight):
        eight[3] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1], labels_per="patient").finding("HF006")
        assert found.is_error
        assert found.numbers == {"patients": 0, "images": 1, "pairs": 0}

    def test_passed(self, eight):
        eight[2] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1]).finding("HF006")
        assert found.status == "passed"
        assert "images of equal pixels and images that look the same were compared" in found.detail


def test_fingerprints_of_other_rows_are_refused(patches):
    with pytest.raises(ValueError, match="fingerprints: expected a row for each of 8 images, got 12"):
        audit_fingerprints(dataset_of(list("abcdefgh")), HALVES, ImageFingerprint().transform(patches))


def test_names_do_not_tell_whose_disk_it_is(eight):
    eight[6] = eight[1].copy()
    dataset = dataset_of(list("abcdefgh"))
    from dataclasses import replace
    from pathlib import Path

    elsewhere = replace(dataset, root=Path("/elsewhere"))
    found = audit_fingerprints(elsewhere, HALVES, ImageFingerprint().transform(eight)).finding("HF002")
    assert found.offenders[0].startswith("6.png, tested")


@pytest.mark.slow
def test_real_patches_have_no_copies_across_patients(real_data):
    from histofeat import load_idc
    from histofeat.model_selection import PatientKFold

    whole = load_idc(real_data / "idc")
    dataset = whole.subset(np.setdiff1d(np.arange(len(whole)), whole.official_split().test))
    splits = list(PatientKFold(5).split(dataset.X, dataset.y, dataset.patients))
    report = audit_split(dataset, splits, runtime=Runtime(n_jobs=2))
    assert report.errors == report.warnings == ()
    assert report.finding("HF003").numbers["by_chance"] < 1
    patch = read_patch(dataset.X[5000])
    codes = [Fingerprints.of(ImageFingerprint().transform([image])).codes for image in (patch, jpeg(patch, 70))]
    assert np.bitwise_count(codes[0] ^ codes[1]).sum() <= NEAR_DISTANCE
