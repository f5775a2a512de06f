"""Batches of pixels: brought to one size, in bounded memory, by any number of threads; and who is held out."""

import threading

import cv2
import numpy as np
import pytest

from histofeat import GroupLeakageError, PatchError
from histofeat.images import Images, as_images
from histofeat.images._reading import map_images
from histofeat.networks import STANDARD, fit_patch
from histofeat.networks._batches import PatchReader, usual_side
from histofeat.networks._preparation import hold_out_patients


def test_a_patch_of_the_right_size_stays_as_it_is(patches):
    assert np.array_equal(fit_patch(patches[0], 50, 50), patches[0])


def test_a_rim_is_cut_and_not_resampled(patches):
    assert np.array_equal(fit_patch(patches[0], 48, 50), patches[0][1:49, 1:49])


@pytest.mark.parametrize(("height", "width"), [(50, 30), (20, 20), (50, 1), (1, 1), (7, 49)])
def test_a_small_patch_is_mirrored_outward(patches, height, width):
    patch = patches[0][:height, :width]
    fitted = fit_patch(patch, 50, 50)
    top, left = (50 - height) // 2, (50 - width) // 2
    expected = np.pad(
        patch, ((top, 50 - height - top), (left, 50 - width - left), (0, 0)),
        mode="reflect",
    )  # fmt: skip
    assert np.array_equal(fitted, expected)


def test_other_sizes_are_resampled_whole(patches):
    assert np.array_equal(fit_patch(patches[0], 96, 50), cv2.resize(patches[0], (96, 96)))
    small = fit_patch(patches[0], 25, 50)
    means = patches[0].reshape(25, 2, 25, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5
    wide = np.concatenate(patches[:2], axis=1)
    assert np.array_equal(fit_patch(wide, 100, 50)[25:75], wide)


def test_the_usual_side_is_the_most_frequent(patches):
    sized = [patches[0], patches[1], patches[2][:, :20], patches[3][:30, :30]]
    assert usual_side(as_images(sized), range(4)) == 50
    assert usual_side(as_images(sized), [3]) == 30
    assert usual_side(as_images([patches[0], patches[0][:30, :30]]), [0, 1]) == 50


def test_the_usual_side_needs_one_image_that_can_be_read(tmp_path, patches):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), patches[0])
    bad.write_bytes(b"no image")
    assert usual_side(as_images([bad, good]), [0, 1]) == 50
    with pytest.raises(PatchError, match=r"bad.png: expected an image file"):
        usual_side(as_images([bad, good]), [0])


def make_reader(images, skip=False, n_threads=2):
    return PatchReader(as_images(images), size=48, side=50, n_threads=n_threads, skip_unreadable=skip)


ROWS = [np.array([3, 1]), np.array([0, 2]), np.array([7])]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_batches_are_the_rows_asked_for_whatever_the_threads(patches, n_threads):
    batches = list(make_reader(patches, n_threads=n_threads).batches(ROWS))
    assert [batch.rows.tolist() for batch in batches] == [[3, 1], [0, 2], [7]]
    for batch in batches:
        assert np.array_equal(batch.pixels, patches[batch.rows, 1:49, 1:49])


def test_the_seed_decides_the_augmentation(patches):
    first, again, other = (
        make_reader(patches).read(ROWS[0], augmentation=STANDARD, seed=seed) for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_changed_images_are_read_as_changed(patches):
    dark = map_images(patches, lambda index, patch: patch // 2)
    assert np.array_equal(next(make_reader(dark).batches(ROWS)).pixels, patches[[3, 1], 1:49, 1:49] // 2)


class CountedImages(Images):
    """Images that know how many are decoded and not yet handed to the network."""

    decoded = 0

    def decode(self, index, content):
        with LOCK:
            type(self).decoded += 1
        return super().decode(index, content)


LOCK = threading.Lock()


def test_no_more_than_three_batches_are_in_memory(patches):
    images = CountedImages(np.resize(patches, (400, 50, 50, 3)), on_disk=False)
    reader = PatchReader(images, size=48, side=50, n_threads=4, skip_unreadable=False)
    used = 0
    for batch in reader.batches(np.arange(400).reshape(40, 10)):
        assert CountedImages.decoded - used <= 3 * len(batch.rows)
        used += len(batch.rows)
    assert used == CountedImages.decoded == 400


def test_an_image_that_cannot_be_read_is_named_or_left_out(tmp_path, patches):
    files = [tmp_path / f"{row}.png" for row in range(8)]
    for file, patch in zip(files, patches, strict=False):
        cv2.imwrite(str(file), patch[..., ::-1])
    files[1].write_bytes(files[1].read_bytes()[:60])
    with pytest.raises(PatchError, match=r"1\.png: expected a whole image"):
        list(make_reader(files).batches(ROWS))
    reader = make_reader(files, skip=True)
    first, second, _ = reader.batches(ROWS)
    assert first.readable.tolist() == [True, False]
    assert not first.pixels[1].any()
    assert second.readable.all()
    assert reader.unreadable == {1}


def test_held_out_patients_are_whole_and_have_every_class():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 30, 600)
    codes = rng.choice(3, 600, p=[0.6, 0.35, 0.05])
    training, held_out = hold_out_patients(codes, patients, 0.2, seed=3)
    assert sorted([*training, *held_out]) == list(range(600))
    assert not set(patients[training]) & set(patients[held_out])
    assert len(set(patients[held_out])) == 6
    assert set(codes[training]) == set(codes[held_out]) == {0, 1, 2}
    # Of many draws the one that is most like the whole: a single random draw is further off, mostly.
    share = np.bincount(codes[held_out]) / len(held_out)
    assert np.abs(share - np.bincount(codes) / 600).sum() < 0.03


def test_the_same_seed_holds_out_the_same_patients_in_any_order():
    rng = np.random.default_rng(0)
    patients, codes = rng.integers(0, 20, 200), rng.integers(0, 2, 200)
    held = {str(patients[row]) for row in hold_out_patients(codes, patients, 0.2, seed=5)[1]}
    order = rng.permutation(200)
    shuffled = hold_out_patients(codes[order], [f"{p}" for p in patients[order]], 0.2, seed=5)[1]
    assert {str(patients[order][row]) for row in shuffled} == held
    assert {str(patients[row]) for row in hold_out_patients(codes, patients, 0.2, seed=6)[1]} != held


def test_patients_that_cannot_be_parted_are_refused():
    with pytest.raises(ValueError, match=r"two patients or more of every class, got 3 in all and 1 of class number 1"):
        hold_out_patients(np.array([0, 0, 1]), ["a", "b", "c"], 0.3, seed=0)
    # Three classes, each of two of three patients: one class is always on one side.
    with pytest.raises(ValueError, match=r"got 0.3 of 3 patients, of which no 1 do"):
        hold_out_patients(np.array([0, 1, 1, 2, 2, 0]), list("aabbcc"), 0.3, seed=0)
    with pytest.raises(GroupLeakageError, match="one patient id for each of 2 patches"):
        hold_out_patients(np.array([0, 1]), ["a"], 0.3, seed=0)
