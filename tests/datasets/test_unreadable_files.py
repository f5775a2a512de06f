"""Files that should be images and are none: named pipes, devices, sockets, folders, links to nothing."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histofeat import load_breakhis, load_idc, load_image_folder, make_cohort
from histofeat.datasets import _image_files, image_size, list_images, make_breakhis_cohort
from histofeat.exceptions import DatasetError, PatchError
from histofeat.images import IMAGE_SUFFIXES, png_size, read_patch
from histofeat.images._headers import FORMATS


@pytest.fixture
def pipe(tmp_path):
    """A named pipe without a writer: a reader that waits for one hangs."""
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path / "pipe.png"


def special(folder):
    """Paths that are no regular files, by what a message calls them."""
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s.png"))
    found = {"a named pipe": "pipe.png", "a folder": "folder.png", "a device": "null.png", "a socket": "s.png"}
    return {words: folder / name for words, name in found.items()}


@pytest.fixture
def images(tmp_path):
    """Twenty images of two classes and ten patients, by patient in their names."""
    rng = np.random.default_rng(0)
    for row in range(20):
        path = tmp_path / "images" / ("benign", "malignant")[row % 2] / f"{row // 2}_{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def reasons(dataset):
    return {group.reason: group.count for group in dataset.audit.left_out}


class TestSpecialFiles:
    def test_they_are_named_and_nothing_waits(self, tmp_path):
        for words, path in special(tmp_path / "s").items():
            with pytest.raises(PatchError, match=f"{path.name}: expected a readable image file, got {words}. Correct"):
                read_patch(path)
            assert image_size(str(path)) == png_size(str(path)) == f"is {words}"

    def test_links_to_nothing(self, tmp_path):
        for name, target in (("a.png", "gone"), ("b.png", "b.png")):
            (tmp_path / name).symlink_to(tmp_path / target)
            assert image_size(str(tmp_path / name)) == "is a link to nothing"
        with pytest.raises(PatchError, match=r"a\.png: expected an image file, found a link to nothing"):
            read_patch(tmp_path / "a.png")

    def test_no_handle_is_left_open(self, pipe):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            image_size(str(pipe))
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_idc(self, tmp_path):
        root = make_cohort(n_patients=2, patches_per_patient=4, root=tmp_path / "c").root
        patient = next(folder for folder in sorted(root.iterdir()) if folder.is_dir())
        os.mkfifo(patient / f"0/{patient.name}_idx5_x9001_y1_class0.png")
        (patient / f"0/{patient.name}_idx5_x9051_y1_class0.png").symlink_to("gone")
        dataset = load_idc(root)
        assert reasons(dataset) == {"is a named pipe": 1, "is a link to nothing": 1}
        assert len(dataset) == 8
        assert [name.split("_x")[1] for name, _ in dataset.audit.failures] == [
            "9001_y1_class0.png",
            "9051_y1_class0.png",
        ]
        assert dataset.audit.to_dict()["failures"][0]["reason"] == "is a named pipe"
        with pytest.raises(DatasetError, match=r"x9001_y1_.*: expected an image .* is a named pipe \(and 1 more\)"):
            load_idc(root, on_error="raise")

    def test_breakhis(self, tmp_path):
        sizes = {"patients_per_subtype": 1, "images_per_slide": 1, "magnifications": (40,)}
        root = make_breakhis_cohort(root=tmp_path / "b", **sizes).root
        image = sorted(root.rglob("*.png"))[0]
        os.mkfifo(image.with_name(image.name.replace("-001", "-009")))
        assert reasons(load_breakhis(root)) == {"is a named pipe": 1}
        with pytest.raises(DatasetError, match="got one that is a named pipe"):
            load_breakhis(root, on_error="raise")

    def test_class_folders(self, images):
        os.mkfifo(images / "benign/9_90.png")
        os.mkfifo(images / "benign/9_90.txt")
        dataset = load_image_folder(images, patients=r"^([0-9]+)_")
        assert dataset.audit.failures == (("benign/9_90.png", "is a named pipe"),)
        assert sum(reasons(dataset).values()) == 2
        with pytest.raises(DatasetError, match=r'9_90.png: expected an image .*on_error="skip"'):
            load_image_folder(images, patients=r"^([0-9]+)_", on_error="raise")
        with pytest.raises(ValueError, match="on_error: expected one of raise, skip, got 'ignore'"):
            load_image_folder(images, patients=r"^([0-9]+)_", on_error="ignore")


class TestLists:
    def test_one_list_of_endings(self):
        Image.init()
        known = {ending for ending, name in Image.registered_extensions().items() if name in map(str.upper, FORMATS)}
        assert set(IMAGE_SUFFIXES) == known

    def test_each_ending_is_decoded_and_listed(self, tmp_path):
        for suffix in IMAGE_SUFFIXES:
            Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / f"a{suffix}")
            assert read_patch(tmp_path / f"a{suffix}").shape == (4, 4, 3)
            assert image_size(str(tmp_path / f"a{suffix}")) == (4, 4)
        assert len(list_images(tmp_path)) == len(IMAGE_SUFFIXES)

    @pytest.mark.parametrize("suffix", ["gif", "ppm", "jp2"])
    def test_other_formats_are_neither_decoded_nor_loaded(self, tmp_path, suffix):
        Image.new("RGB", (4, 4)).save(tmp_path / f"a.{suffix}")
        with pytest.raises(PatchError, match="bytes that no decoder knows"):
            read_patch(tmp_path / f"a.{suffix}")
        assert image_size(str(tmp_path / f"a.{suffix}")).startswith("is no image")

    def test_special_files_are_listed_to_be_named(self, pipe, images):
        assert list_images(pipe).paths == (str(pipe),)
        os.mkfifo(images / "benign/9_90.png")
        assert len(list_images(images)) == 21

    def test_links_are_followed_as_in_training_and_loops_are_not(self, images, tmp_path):
        (tmp_path / "night").mkdir()
        (tmp_path / "night/link").symlink_to(images)
        (images / "benign/loop").symlink_to(images)
        assert len(list_images(tmp_path / "night")) == 20

    def test_a_folder_that_cannot_be_listed(self, images, monkeypatch):
        closed, listed = str(images / "benign"), _image_files.list_folder

        def refuse(folder):
            if folder == closed:
                raise DatasetError(f"{folder}: expected a folder that can be listed, got PermissionError. Ask.")
            return listed(folder)

        monkeypatch.setattr(_image_files, "list_folder", refuse)
        with pytest.raises(DatasetError, match="benign: expected a folder that can be listed, got PermissionError"):
            list_images(images)
        found = list_images(images, on_error="skip")
        assert len(found) == 10
        assert [path for path, _ in found.failures] == [closed]
        with pytest.raises(DatasetError, match="expected a folder that can be listed"):
            list_images(closed, on_error="skip")
