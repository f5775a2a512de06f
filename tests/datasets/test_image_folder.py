import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histofeat import IDCPipeline, audit_split, evaluate
from histofeat.datasets import PatientRule, find_patients, image_size, load_image_folder, predefined_split
from histofeat.datasets._class_folders import read_folder_tree
from histofeat.datasets._image_files import same_content
from histofeat.datasets._parts import PARTS, part_named
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.exceptions import DatasetError, GroupLeakageError
from histofeat.images import read_patch
from histofeat.reporting import dataset_payload

NUMBER = r"^([0-9]+)_"


def put(root, name, seed=None, size=(8, 8), **options):
    """Write an image whose content depends on its name, or on the seed."""
    path = Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list((name if seed is None else str(seed)).encode()))
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **options)
    return path


@pytest.fixture
def flat(tmp_path):
    """Two classes, four patients, eight images."""
    root = tmp_path / "mine"
    for patient, label in ((1, "benign"), (2, "benign"), (3, "malignant"), (10, "malignant")):
        for i in (0, 1):
            put(root, f"{label}/{patient}_{i}.png")
    return root


@pytest.fixture
def parted(tmp_path):
    """Three parts in three spellings, both classes in each, a patient for each image."""
    root = tmp_path / "parted"
    for part, first in (("Train", 0), ("val", 10), ("TEST", 20)):
        for i in range(4):
            put(root, f"{part}/{('benign', 'malignant')[i % 2]}/{first + i}_a.png")
    return root


def reasons(dataset):
    return {group.reason: group.count for group in dataset.audit.left_out}


class TestLayouts:
    def test_flat(self, flat):
        dataset = load_image_folder(flat, patients=NUMBER)
        assert dataset.name == "mine"
        assert dataset.target_names == ("benign", "malignant")
        assert dataset.relative_paths.tolist() == [
            *(f"benign/{p}_{i}.png" for p in (1, 2) for i in (0, 1)),
            *(f"malignant/{p}_{i}.png" for p in (10, 3) for i in (0, 1)),
        ]
        assert dataset.y.tolist() == [0] * 4 + [1] * 4
        assert dataset.patients.tolist() == ["1", "1", "2", "2", "10", "10", "3", "3"]
        assert "part" not in dataset.frame
        assert dataset.audit.size_counts == {(8, 8): 8}
        assert dataset.audit.notes == ()
        assert not dataset.synthetic

    def test_parts(self, parted):
        dataset = load_image_folder(parted, patients=NUMBER)
        assert dataset.frame["part"].tolist() == [part for part in PARTS for _ in range(4)]
        split = predefined_split(dataset)
        ((train, test),) = split.as_cv()
        assert train.tolist() == list(range(8))
        assert test.tolist() == list(range(8, 12))
        ((train, test),) = split.as_cv(test="validation")
        assert (train.tolist(), test.tolist()) == ([0, 1, 2, 3], [4, 5, 6, 7])
        assert split.shared_patients == ()
        assert audit_split(dataset, split.as_cv()).finding("HF001").status == "passed"

    def test_folders_below_a_class_are_read(self, flat):
        put(flat, "benign/9_x/deep/er.png")
        dataset = load_image_folder(flat, patients=r"^(?P<patient>[0-9]+)(_|/)")
        assert "9" in dataset.patients

    def test_the_expression_does_not_see_the_class_folder(self, tmp_path):
        for name in ("class1/7_a.png", "class2/8_a.png"):
            put(tmp_path, name)
        assert load_image_folder(tmp_path, patients=r"([0-9]+)").patients.tolist() == ["7", "8"]

    def test_formats_are_told_by_their_bytes(self, tmp_path):
        kinds = {"a.png": {}, "b.JPG": {}, "c.jpeg": {}, "d.tif": {}, "e.bmp": {}, "f.webp": {"lossless": True}}
        for i, (name, options) in enumerate(kinds.items()):
            put(tmp_path, f"{i % 2}/{name}", size=(6, 9), **options)
        # A JPEG under another ending is read as what it is.
        shutil.copy(tmp_path / "1/b.JPG", tmp_path / "0/g.png")
        put(tmp_path, "0/g.png", seed=5, format="JPEG", size=(6, 9))
        dataset = load_image_folder(tmp_path, patients=r"(.)\.")
        assert len(dataset) == 7
        assert dataset.audit.size_counts == {(6, 9): 7}
        assert [read_patch(path).shape for path in dataset.X] == [(6, 9, 3)] * 7

    def test_number_classes_are_in_the_order_of_numbers(self, tmp_path):
        for label in ("10", "9", "2"):
            put(tmp_path, f"{label}/{label}_a.png")
        assert load_image_folder(tmp_path, patients=NUMBER).target_names == ("2", "9", "10")

    def test_a_synthetic_tree_stays_synthetic(self, flat):
        (flat / MANIFEST).write_text("{}")
        dataset = load_image_folder(flat, patients=NUMBER)
        assert dataset.synthetic
        assert dataset.audit.left_out == ()

    def test_relative_roots_become_absolute(self, flat, monkeypatch):
        monkeypatch.chdir(flat.parent)
        dataset = load_image_folder("mine", patients=NUMBER)
        assert dataset.root == flat
        assert all(Path(path).is_absolute() for path in dataset.X)

    @pytest.mark.parametrize("name", ["Training", "VALID", "testing", "validation"])
    def test_names_of_parts(self, name):
        assert part_named(name) in PARTS


class TestWhatIsAPart:
    @pytest.fixture
    def vehicles(self, tmp_path):
        for name in ("train/1_a.png", "car/2_a.png", "test/3_a.png"):
            put(tmp_path, name)
        return tmp_path

    def test_a_class_named_train_must_be_named(self, vehicles):
        with pytest.raises(DatasetError, match=r"got 'test' beside 'car' \(2 and 1 such folders\).*pass classes="):
            load_image_folder(vehicles, patients=NUMBER)

    def test_a_class_named_train_that_is_named(self, vehicles):
        dataset = load_image_folder(vehicles, patients=NUMBER, classes=("car", "train"))
        assert dataset.target_names == ("car", "train")
        assert reasons(dataset) == {"is a folder of no class in classes= (not searched)": 1}

    def test_images_where_the_class_folders_should_be(self, vehicles):
        shutil.rmtree(vehicles / "car")
        with pytest.raises(DatasetError, match=r"expected class folders in 'train', got 1 images and no folder"):
            load_image_folder(vehicles, patients=NUMBER)
        assert len(load_image_folder(vehicles, patients=NUMBER, classes=["train", "test"])) == 2

    def test_two_folders_of_one_part(self, parted):
        put(parted, "validation/benign/77_a.png")
        with pytest.raises(DatasetError, match=r"one folder for each part, got 'val' and 'validation'"):
            load_image_folder(parted, patients=NUMBER)

    def test_a_folder_beside_the_parts_when_the_classes_are_named(self, parted):
        put(parted, "masks/1_a.png")
        with pytest.raises(DatasetError, match="beside 'masks'"):
            load_image_folder(parted, patients=NUMBER)
        dataset = load_image_folder(parted, patients=NUMBER, classes=("benign", "malignant"))
        assert len(dataset) == 12
        assert reasons(dataset) == {"is a folder beside those of the parts (not searched)": 1}

    def test_named_classes_beside_a_part_make_it_flat(self, flat):
        put(flat, "test/1_9.png")
        dataset = load_image_folder(flat, patients=NUMBER, classes=("benign", "malignant"))
        assert "part" not in dataset.frame
        assert len(dataset) == 8

    def test_parts_below_the_classes_are_noted(self, tmp_path):
        for name in ("benign/train/1_a.png", "benign/test/2_a.png", "malignant/train/3_a.png"):
            put(tmp_path, name)
        (note,) = load_image_folder(tmp_path, patients=r"/([0-9])_").audit.notes[1:]
        assert "the split they may stand for is not used" in note


class TestPatients:
    def test_none_says_what_it_costs_and_how_to_give_them(self, flat):
        with pytest.raises(
            DatasetError, match=r"too good, and intervals too narrow.*regular expr.*CSV.*\"image\""
        ) as e:
            load_image_folder(flat)
        assert "manifest.csv" not in str(e.value)
        (flat / "manifest.csv").write_text("path,patient\n")
        with pytest.raises(DatasetError, match=r'There is a manifest.csv here: try patients="manifest.csv"'):
            load_image_folder(flat)

    def test_each_image_its_own_patient_goes_on_and_is_written_everywhere(self, flat):
        with pytest.warns(UserWarning, match="each image counts as its own patient.*intervals too narrow") as caught:
            dataset = load_image_folder(flat, patients="image")
        assert caught[0].filename == __file__
        assert dataset.name == "mine, patients unknown"
        assert dataset.audit.n_patients == len(dataset) == 8
        assert "Patients are unknown" in dataset.audit.summary()
        assert dataset.subset([0, 4]).audit.to_dict()["notes"][0].startswith("Patients are unknown")

    def test_a_csv_here_or_in_the_root(self, flat, tmp_path):
        rows = [f"{label}/{p}_{i}.png,P{p}" for label, p in (("benign", 1), ("benign", 2)) for i in (0, 1)]
        rows += [f"./malignant/{p}_{i}.png,P{p}" for p in (3, 10) for i in (0, 1)]
        text = "path,patient\n" + "\n".join(rows) + "\nbenign/of_the_full_set.png,P99\n"
        (flat / "who.csv").write_text(text)
        inside = load_image_folder(flat, patients="who.csv")
        assert sorted(set(inside.patients)) == ["P1", "P10", "P2", "P3"]
        assert inside.audit.left_out == ()
        (flat / "who.csv").rename(tmp_path / "who.table")
        assert load_image_folder(flat, patients=tmp_path / "who.table").patients.tolist() == inside.patients.tolist()

    def test_a_mapping(self, flat):
        names = [f"benign/{p}_{i}.png" for p in (1, 2) for i in (0, 1)]
        who = dict.fromkeys(names, 7) | {str(path): "8" for path in (flat / "malignant").iterdir()}
        assert load_image_folder(flat, patients=who).patients.tolist() == ["7"] * 4 + ["8"] * 4
        del who[names[2]], who[names[3]]
        with pytest.raises(DatasetError, match=r"got none for 'benign/2_0.png' \(and 1 more\) by the mapping"):
            load_image_folder(flat, patients=who)
        with pytest.raises(DatasetError, match=r"expected a mapping of path to patient, got 'benign/2_0.png': None"):
            load_image_folder(flat, patients=who | {names[2]: None})

    def test_two_patients_of_one_image_in_the_csv(self, flat):
        (flat / "who.csv").write_text("path,patient\nbenign/1_0.png,1\nbenign/1_0.png,2\n")
        with pytest.raises(
            DatasetError, match=r"who.csv, line 3: expected one patient .* got '2' here and '1' in line 2"
        ):
            load_image_folder(flat, patients="who.csv")

    def test_an_image_without_a_match(self, flat):
        put(flat, "benign/nobody.png")
        with pytest.raises(DatasetError, match=r"got none for 'nobody.png' by a match of the expression"):
            load_image_folder(flat, patients=NUMBER)
        with pytest.raises(DatasetError, match=r"got none for '1_0.png' \(and 8 more\)"):
            load_image_folder(flat, patients=r"(x*)")

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ("([0-9]+", "expected a regular expression, got"),
            ("[0-9]+", "got 0 groups"),
            ("([0-9])([0-9])", "got 2 groups"),
            (3, "got int"),
            ("gone.csv", "got a path that does not exist"),
        ],
    )
    def test_other_values(self, flat, given, match):
        with pytest.raises(DatasetError, match=match):
            load_image_folder(flat, patients=given)

    def test_text_that_can_be_no_path_is_an_expression(self, flat):
        with pytest.raises(DatasetError, match="by a match of the expression"):
            load_image_folder(flat, patients="(" + "x" * 5000 + ")")

    def test_an_expression_that_takes_the_image_for_the_patient_is_noted(self, flat):
        assert "Each image has a patient of its own" in load_image_folder(flat, patients=r"(.+)").audit.notes[0]


class TestClasses:
    def test_order_and_choice(self, flat):
        put(flat, "normal/5_0.png")
        dataset = load_image_folder(flat, patients=NUMBER, classes=("normal", "malignant"))
        assert dataset.target_names == ("normal", "malignant")
        assert dataset.patients[dataset.y == 0].tolist() == ["5"]
        assert reasons(dataset) == {"is a folder of no class in classes= (not searched)": 1}

    def test_mapping_brings_folders_together(self, flat):
        put(flat, "normal/5_0.png")
        names = {"normal": "no cancer", "benign": "no cancer", "malignant": "cancer"}
        dataset = load_image_folder(flat, patients=NUMBER, classes=names)
        assert dataset.audit.class_counts == {"no cancer": 5, "cancer": 4}

    @pytest.mark.parametrize("classes", ["benign", ("benign",), {"a": "x", "b": "x"}, ("benign", 3), 5, ("", "a")])
    def test_no_classes(self, flat, classes):
        with pytest.raises(DatasetError, match="classes: expected 2 or more labels, or a mapping"):
            load_image_folder(flat, patients=NUMBER, classes=classes)

    def test_absent(self, flat):
        with pytest.raises(DatasetError, match="classes: expected names of class folders, got 'tumor'"):
            load_image_folder(flat, patients=NUMBER, classes=("benign", "tumor"))

    def test_only_one(self, flat):
        shutil.rmtree(flat / "benign")
        with pytest.raises(DatasetError, match=r"two or more classes, got only 'malignant'. Add the folder"):
            load_image_folder(flat, patients=NUMBER)

    def test_one_level_too_high(self, flat, parted):
        for folder in (flat, parted):
            shutil.move(folder, folder.parent / "all" / folder.name)
            with pytest.raises(DatasetError, match=rf"Did you mean '.*{folder.name}'\?"):
                load_image_folder(folder.parent / "all", patients=NUMBER)
            shutil.rmtree(folder.parent / "all")

    def test_a_tree_of_patients_is_not_one_of_classes(self, cohort):
        with pytest.raises(
            DatasetError, match=r"numbered folders with 0 and 1 in them \('900001' and 14 more\).*load_idc"
        ):
            load_image_folder(cohort.root, patients=NUMBER)
        assert len(load_image_folder(cohort.root, patients=r"/([0-9]+)_", classes=("900001", "900002"))) == 24

    def test_the_order_of_another_csv_is_not_taken(self, flat):
        rows = "".join(
            f"{p.relative_to(flat)},1,{p.parent.name},{'1a'[i % 2]}\n" for i, p in enumerate(flat.rglob("*.png"))
        )
        (flat / "who.csv").write_text("path,patient,label,label_code\n" + rows)
        assert load_image_folder(flat, patients="who.csv").target_names == ("benign", "malignant")

    def test_an_empty_folder(self, flat):
        (flat / "normal").mkdir()
        with pytest.raises(DatasetError, match=r"an image in each class, got 0 in the folder 'normal' \(it is empty\)"):
            load_image_folder(flat, patients=NUMBER)
        (flat / "normal/a.png").touch()
        with pytest.raises(DatasetError, match=r"'normal' \(is empty \(0 bytes\): 1 \(normal/a.png\)\)"):
            load_image_folder(flat, patients=NUMBER)

    def test_a_folder_empty_in_one_part_is_noted(self, parted):
        shutil.rmtree(parted / "val/benign")
        (parted / "val/benign").mkdir()
        notes = load_image_folder(parted, patients=NUMBER).audit.notes
        assert "Class folders without an image: 'val/benign'." in notes
        assert "The part 'validation' has no image of class 'benign'." in notes

    def test_names_that_differ_only_in_case(self, parted):
        (parted / "val/benign").rename(parted / "val/Benign")
        with pytest.raises(DatasetError, match="differ in more than case, got 'Benign' and 'benign'"):
            load_image_folder(parted, patients=NUMBER)
        names = {"benign": "benign", "Benign": "benign", "malignant": "malignant"}
        assert len(load_image_folder(parted, patients=NUMBER, classes=names)) == 12


class TestTraps:
    def test_what_is_left_out_is_counted(self, flat):
        for name in (".DS_Store", "benign/Thumbs.db", "benign/._1_0.png", "benign/.git/x.png", "__MACOSX/benign/1.png"):
            (flat / name).parent.mkdir(parents=True, exist_ok=True)
            (flat / name).write_bytes(b"x")
        (flat / "notes.txt").write_text("x")
        (flat / "benign/1_9.txt").write_text("x")
        (flat / "benign/1_8.png").write_bytes(b"")
        (flat / "benign/1_7.png").write_bytes(b"GIF89a, no image that is read")
        (flat / "benign/1_6.tif").write_bytes(b"II*\0" + bytes(4))
        (flat / "benign/1_5.png").symlink_to(flat / "gone")
        os.mkfifo(flat / "benign/1_4.png")
        put(flat, "benign/1_3\udcff.png", seed=1)
        dataset = load_image_folder(flat, patients=NUMBER)
        assert len(dataset) == 8
        assert reasons(dataset) == {
            "is hidden or left behind by a file browser": 5,
            "is a file outside the class folders": 1,
            "has a name that ends in none of .apng, .bmp, .jfif, .jpe, .jpeg, .jpg, .png, .tif, .tiff, .webp": 1,
            "is empty (0 bytes)": 1,
            "is no image (its first bytes are of none of PNG, JPEG, TIFF, BMP, WebP)": 1,
            "has a broken header": 1,
            "is a link to nothing": 1,
            "is a named pipe": 1,
            "has a name that is no UTF-8 text": 1,
        }
        assert "(benign/1_3\\udcff.png)" in dataset.audit.summary()
        assert "left out, is a link to nothing: 1 (benign/1_5.png)" in dataset.audit.summary()

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_that_cannot_be_listed_is_no_folder_left_out(self, flat):
        (flat / "benign").chmod(0)
        try:
            with pytest.raises(DatasetError, match="expected a folder that can be listed, got PermissionError"):
                load_image_folder(flat, patients=NUMBER)
        finally:
            (flat / "benign").chmod(0o755)

    def test_a_folder_that_vanishes(self, tmp_path):
        with pytest.raises(DatasetError, match="expected a folder that can be listed, got FileNotFoundError"):
            read_folder_tree(tmp_path / "gone")

    def test_a_file_that_cannot_be_read(self, tmp_path):
        assert image_size(str(tmp_path / "gone.png")) == "cannot be read (FileNotFoundError)"
        assert same_content([str(tmp_path / "gone.png")] * 2) == []
        assert same_content([str(tmp_path)] * 2) == []

    def test_sizes_are_those_of_the_upright_image(self, flat):
        exif = Image.Exif()
        exif[274] = 6
        for name in ("benign/1_2.png", "malignant/3_2.jpg"):
            turned = put(flat, name, size=(8, 12), exif=exif)
            assert read_patch(turned).shape == (12, 8, 3)
        frame = load_image_folder(flat, patients=NUMBER).frame
        sizes = {Path(path).name: size for path, *size in frame[["path", "height", "width"]].to_numpy()}
        assert sizes["1_2.png"] == sizes["3_2.jpg"] == [12, 8]
        assert sizes["1_0.png"] == [8, 8]

    def test_an_image_too_large_for_a_patch(self, tmp_path):
        put(tmp_path, "a.bmp", size=(60, 60))
        reason = "is too large for one image (60 x 60 px): cut it into tiles"
        assert image_size(str(tmp_path / "a.bmp"), max_pixels=1000) == reason

    def test_links_are_followed_and_loops_are_not(self, flat, tmp_path):
        put(tmp_path, "elsewhere/4_0.png")
        (flat / "benign/more").symlink_to(tmp_path / "elsewhere")
        (flat / "benign/4_1.png").symlink_to(put(tmp_path, "4_1.png"))
        (flat / "benign/loop").symlink_to(flat / "benign")
        (flat / "malignant/other").symlink_to(tmp_path / "ring")
        (tmp_path / "ring").mkdir()
        (tmp_path / "ring/back").symlink_to(flat / "malignant")
        dataset = load_image_folder(flat, patients=r"([0-9]+)_[0-9]\.")
        assert len(dataset) == 10
        assert sorted(dataset.patients[dataset.y == 0]) == ["1", "1", "2", "2", "4", "4"]
        assert reasons(dataset) == {"is a link to a folder that it lies in": 2}

    def test_the_same_content_in_two_classes_two_parts_two_patients(self, parted):
        shutil.copy(parted / "Train/benign/0_a.png", parted / "TEST/malignant/99_copy.png")
        shutil.copy(parted / "Train/benign/2_a.png", parted / "Train/benign/2_b.png")
        dataset = load_image_folder(parted, patients=NUMBER)
        assert len(dataset) == 14
        everything, classes, parts, patients = dataset.audit.notes
        assert everything.startswith("Files of the same content: 4 in 2 groups")
        assert "under different classes: 'Train/benign/0_a.png' and 'TEST/malignant/99_copy.png'." in classes
        assert "in different parts" in parts
        assert "under different patients" in patients
        assert "and 1 more" not in classes + parts + patients
        split = predefined_split(dataset)
        assert audit_split(dataset, split.as_cv()).finding("HF002").status == "issue"

    def test_files_of_equal_length_are_compared_by_content(self, tmp_path):
        for name, content in (("a", b"abc"), ("b", b"abd"), ("c", b"abc"), ("d", b"ab")):
            (tmp_path / name).write_bytes(content)
        assert same_content([str(tmp_path / name) for name in "abcd"]) == [[0, 2]]

    def test_names_that_differ_only_in_case_are_noted(self, flat):
        put(flat, "benign/1_X.png")
        put(flat, "benign/1_x.png")
        (note,) = load_image_folder(flat, patients=NUMBER).audit.notes
        assert note.startswith("Names of images that differ only in case: 'benign/1_X.png' and 'benign/1_x.png'.")

    def test_a_patient_in_two_parts_is_noted_and_refused(self, parted):
        put(parted, "TEST/benign/0_b.png")
        dataset = load_image_folder(parted, patients=NUMBER)
        assert dataset.audit.notes[0].startswith("Patients in more than one part: 1 of 12, the first is '0'.")
        split = predefined_split(dataset)
        assert split.shared_patients == ("0",)
        with pytest.raises(GroupLeakageError, match="'0'"):
            evaluate(dataset, IDCPipeline(features=["gray"]), split.as_cv())


class TestRoot:
    @pytest.mark.parametrize("root", [None, "", 3])
    def test_no_path(self, root):
        with pytest.raises(DatasetError, match="root: expected the path of a folder"):
            load_image_folder(root, patients=NUMBER)

    def test_gone_file_and_empty(self, tmp_path):
        with pytest.raises(DatasetError, match="got a path that does not exist"):
            load_image_folder(tmp_path / "gone", patients=NUMBER)
        (tmp_path / "data.zip").write_text("x")
        with pytest.raises(DatasetError, match=r"got a file. .*unpack"):
            load_image_folder(tmp_path / "data.zip", patients=NUMBER)
        (tmp_path / "bare").mkdir()
        with pytest.raises(DatasetError, match=r"got no class folder \(it is empty\)"):
            load_image_folder(tmp_path / "bare", patients=NUMBER)
        put(tmp_path, "bare/1_a.png")
        with pytest.raises(DatasetError, match="Images without class folders need load_manifest"):
            load_image_folder(tmp_path / "bare", patients=NUMBER)


class TestPredefinedSplit:
    def test_without_parts(self, flat):
        with pytest.raises(DatasetError, match="expected a column 'part' in the table of 'mine', got none"):
            predefined_split(load_image_folder(flat, patients=NUMBER))

    def test_another_value(self, parted):
        dataset = load_image_folder(parted, patients=NUMBER)
        dataset.frame.loc[3, "part"] = "holdout"
        with pytest.raises(DatasetError, match=r"got 'holdout' in row 3 \(1 such rows\)"):
            predefined_split(dataset)

    def test_no_test_part(self, parted):
        shutil.rmtree(parted / "TEST")
        split = predefined_split(load_image_folder(parted, patients=NUMBER))
        with pytest.raises(DatasetError, match="expected images in the part 'test', got 0"):
            split.as_cv()
        assert len(split.as_cv(test="validation")) == 1
        with pytest.raises(DatasetError, match=r"as_cv.test: expected one of test, validation, got 'train'"):
            split.as_cv(test="train")

    def test_what_it_says(self, parted):
        split = predefined_split(load_image_folder(parted, patients=NUMBER))
        assert repr(split).startswith("DatasetSplit('parted', train=4 images of 4 patients, validation=4")
        assert split.summary().splitlines()[0] == (
            "- train: 4 images (33.3 %) of 4 patients (33.3 %): 2 benign (33.3 %), 2 malignant (33.3 %)"
        )
        assert split.patients["test"] == ("20", "21", "22", "23")
        assert len(split) == 12


class TestReport:
    def test_name_and_notes_reach_the_payload_of_the_report(self, flat):
        with pytest.warns(UserWarning, match="own patient"):
            payload = dataset_payload(load_image_folder(flat, patients="image"))
        assert payload["name"] == "mine, patients unknown"
        assert payload["audit_summary"][-1].startswith("Patients are unknown: each image counts as its own patient.")

    @pytest.mark.slow
    def test_the_cost_stands_in_the_report(self, cohort, tmp_path):
        from histofeat import write_report

        for path, label, patient in zip(cohort.X, cohort.y, cohort.patients, strict=True):
            new = tmp_path / f"tree/{('train', 'test')[int(patient) % 2]}/{('no', 'yes')[label]}/{Path(path).name}"
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, new)
        with pytest.warns(UserWarning, match="own patient"):
            dataset = load_image_folder(tmp_path / "tree", patients="image")
        pipelines = {"gray": IDCPipeline(features=["gray"], head="logistic")}
        evaluation = evaluate(dataset, pipelines, predefined_split(dataset).as_cv(), n_resamples=50)
        assert evaluation.dataset.name == "tree, patients unknown"
        written = write_report(evaluation, tmp_path / "report")
        text = "".join(path.read_text() for path in Path(tmp_path / "report").rglob("*.md"))
        assert "intervals too narrow" in text, written
        assert "patients unknown" in text


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
class TestRealData:
    def test_idc_as_parts(self, real_data, tmp_path):
        roles = ("train", "validation", "test")
        patients = sorted(path.name for path in (real_data / "idc").iterdir())[:30]
        for i, patient in enumerate(patients):
            for path in (real_data / "idc" / patient).rglob("*.png"):
                new = tmp_path / roles[i % 3] / ("no IDC", "IDC")[int(path.parent.name)] / path.name
                new.parent.mkdir(parents=True, exist_ok=True)
                new.symlink_to(path)
        dataset = load_image_folder(tmp_path, patients=NUMBER, classes=("no IDC", "IDC"))
        expected = {p: len(list((real_data / "idc" / p).rglob("*.png"))) for p in patients}
        found, counts = np.unique(dataset.patients, return_counts=True)
        assert dict(zip(found, counts, strict=True)) == expected
        split = predefined_split(dataset)
        assert split.shared_patients == ()
        assert {patients.index(p) % 3 for p in split.patients["validation"]} == {1}

    def test_breakhis_by_its_slide_number(self, real_data):
        root = real_data / "breakhis/histology_slides/breast"
        dataset = load_image_folder(root, patients=r"([0-9]+)[A-Z]*-[0-9]+-[0-9]+\.png$", labels_per="patient")
        assert dataset.target_names == ("benign", "malignant")
        assert len(dataset) == len(list(root.rglob("*.png")))
        by_folder = load_image_folder(root, patients=r"/SOB_[BM]_[A-Z]+_[0-9]+-([0-9]+)")
        assert by_folder.patients.tolist() == dataset.patients.tolist()


class TestTheSameRuleInPrediction:
    """An expression or table means the same patients for images to predict as for those of the training."""

    @pytest.mark.parametrize("expression", [r"([0-9]+)_", r"^([0-9]+)_", r"^(?P<patient>[0-9]+)", r"([0-9]+)_[^/]*$"])
    def test_a_number_in_the_name_of_a_folder_above_is_no_patient(self, tmp_path, expression):
        for file in ("benign/8863_a.png", "benign/8864_b.png", "malignant/8863_c.png", "malignant/8865_d.png"):
            put(tmp_path / "2024_batch", file)
        dataset = load_image_folder(tmp_path / "2024_batch", patients=expression)
        assert dataset.patients.tolist() == ["8863", "8864", "8863", "8865"]
        assert find_patients(expression, dataset.X).tolist() == dataset.patients.tolist()
        assert find_patients(dataset.patient_rule, dataset.X).tolist() == dataset.patients.tolist()

    def test_folders_of_patients(self, tmp_path):
        for file in ("no/p1/a.png", "no/p2/b.png", "yes/p3/c.png", "yes/p3/d.png"):
            put(tmp_path / "all", file)
        dataset = load_image_folder(tmp_path / "all", patients="folder")
        assert dataset.patients.tolist() == ["p1", "p2", "p3", "p3"]
        assert find_patients("folder", dataset.X).tolist() == dataset.patients.tolist()
        assert find_patients(r"/(p[0-9])/", dataset.X[:1]).tolist() == ["p1"]
        with pytest.raises(DatasetError, match=r"one patient for .*a.png by .*, got 'p1' or 'no'. Write the"):
            find_patients(r"([^/]+)/", dataset.X)

    def test_a_mapping_and_the_images_themselves(self, tmp_path):
        for file in ("no/a.png", "yes/b.png"):
            put(tmp_path / "all", file)
        who = {"no/a.png": "7", "yes/b.png": 8}
        dataset = load_image_folder(tmp_path / "all", patients=who)
        assert find_patients(who, dataset.X).tolist() == dataset.patients.tolist() == ["7", "8"]
        assert find_patients("image", ["x/a.png", "x/b.png"]).tolist() == ["x/a.png", "x/b.png"]
        assert dataset.patient_rule.to_dict() is None

    def test_a_rule_is_stored_as_plain_types(self, flat):
        rule = load_image_folder(flat, patients=NUMBER).patient_rule
        assert PatientRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
        assert PatientRule.from_dict(PatientRule().to_dict()) == PatientRule()
        assert PatientRule.from_dict(None) is None
