"""What the images of a split give away: copies, near-copies and contradictions; and the hashes behind that."""

import hashlib
import pickle

import cv2
import numpy as np
import pytest
from scipy.fft import dctn
from sklearn.base import clone
from test_split_audit import dataset_of

from histofeat.evaluation import NEAR_DISTANCE, audit_fingerprints, audit_split, count_distances
from histofeat.evaluation.audit._near_pairs import MAX_DISTANCE, near_pairs
from histofeat.features import (
    ColorHistogram,
    Fingerprints,
    ImageFingerprint,
    Runtime,
    extract,
    mirror_masks,
    number_rows,
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
    distance = more.pop("distance", NEAR_DISTANCE)
    prints = ImageFingerprint().transform(images)
    return audit_fingerprints(dataset_of(list(patients), **more), splits, prints, distance=distance)


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

    def test_copies_stay_near_and_others_do_not(self, eight):
        def gaps(change):
            both = [Fingerprints.of(ImageFingerprint().transform(images)).codes for images in (eight, change)]
            return np.bitwise_count(both[0] ^ both[1]).sum(axis=1)

        assert gaps([jpeg(patch) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps([cv2.resize(patch, (100, 100)) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps([np.rint(patch * 0.8).astype(np.uint8) for patch in eight]).max() <= NEAR_DISTANCE
        assert gaps(eight[1:] + eight[:1]).min() > MAX_DISTANCE

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

    @pytest.mark.parametrize("distance", [-1, 32, 1.0, True, None])
    def test_refused_distances(self, distance):
        with pytest.raises(ValueError, match=r"near_pairs.distance: expected a whole number from 0 to 31, got"):
            near_pairs(np.zeros((2, 2), dtype=np.uint64), distance)

    @pytest.mark.parametrize("codes", [np.zeros((2, 2)), np.zeros((2, 3), dtype=np.uint64), np.zeros(2, np.uint64)])
    def test_refused_codes(self, codes):
        with pytest.raises(ValueError, match=r"codes: expected uint64 hashes of shape \(n, 2\), got"):
            near_pairs(codes, 2)

    def test_counts(self):
        rng = np.random.default_rng(0)
        codes, groups = self.planted(60, rng), rng.integers(0, 4, 60)
        counts, nearest = count_distances(codes, groups)
        bits = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2)
        other = groups[:, None] != groups[None]
        assert np.array_equal(counts, np.bincount(bits[np.triu(other)], minlength=129))
        assert np.array_equal(nearest, np.where(other, bits, 129).min(axis=1))
        assert count_distances(codes, np.zeros(60, dtype=int))[1].tolist() == [129] * 60

    @pytest.mark.parametrize("groups", [[0.0, 1.0], [0]])
    def test_refused_groups(self, groups):
        with pytest.raises(ValueError, match="groups: expected a whole number for each of 2 hashes, got"):
            count_distances(np.zeros((2, 2), dtype=np.uint64), groups)


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
        assert (found.severity, found.status) == ("warning", "issue")
        assert found.offenders[0].startswith("6.png, tested in fold 1, and 1.png at distance ")
        assert found.offenders[0].endswith("(patients g and b)")
        assert found.numbers["test_images"] == 1
        assert found.numbers["by_chance"] == 0

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

    def test_mirrored_copies_raise_what_is_expected_by_chance(self, eight):
        eight[6] = eight[1][:, ::-1].copy()
        found = audited(eight).finding("HF003")
        assert found.status == "passed"
        assert found.numbers["by_chance"] == pytest.approx(1 / 3)

    def test_distance_is_passed_on(self, eight):
        eight[6] = cv2.warpAffine(eight[1], np.float32([[1, 0, 1], [0, 1, 0]]), (50, 50), borderMode=cv2.BORDER_REFLECT)
        assert audited(eight, distance=0).finding("HF003").status == "passed"
        assert audited(eight, distance=31).finding("HF003").numbers["test_images"] == 1
        with pytest.raises(ValueError, match="distance: expected a whole number from 0 to 31, got 40"):
            audited(eight, distance=40)

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


class TestContradictingLabels:
    def test_caught_as_a_warning(self, eight):
        eight[3] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1]).finding("HF006")
        assert (found.status, found.severity) == ("issue", "warning")
        assert found.offenders == ("0.png (benign) and 3.png (malignant)",)

    def test_an_error_where_labels_are_those_of_patients(self, eight):
        eight[3] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1], labels_per="patient").finding("HF006")
        assert found.is_error
        assert found.numbers == {"patients": 0, "images": 1}

    def test_passed(self, eight):
        eight[2] = eight[0].copy()
        found = audited(eight, y=[0, 1, 0, 1, 0, 1, 0, 1]).finding("HF006")
        assert found.status == "passed"
        assert "images of equal pixels were compared" in found.detail


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
