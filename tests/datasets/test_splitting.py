import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from histofeat import PatchDataset, audit_split, load_idc
from histofeat.datasets import (
    _split_files as split_files,
    _splitting as splitting,
    load_image_folder,
    load_manifest,
    predefined_split,
    split_dataset,
)
from histofeat.datasets._parts import PARTS
from histofeat.exceptions import DatasetError, GroupLeakageError


def table(labels, patients, names=("benign", "malignant")):
    """Build a data set of images that do not exist."""
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": labels, "patient": patients})
    return PatchDataset(frame.assign(x=pd.NA, y=pd.NA), names, "mine")


@pytest.fixture
def on_disk(tmp_path):
    """Ten patients with both classes; the names of files repeat from patient to patient."""
    rows = []
    for patient in ("a/b", "A/B", "..", "p.", *"123456"):
        for i, label in enumerate((0, 0, 1)):
            path = tmp_path / "data" / f"{len(rows)}" / f"{i // 2}.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((4, 5, 3), len(rows), dtype=np.uint8)).save(path)
            rows.append((str(path), label, patient, len(rows), 51, f"S{patient}"))
    frame = pd.DataFrame(rows, columns=["path", "label", "patient", "x", "y", "slide"])
    return PatchDataset(frame, ("no IDC", "IDC"), "mine", tmp_path / "data")


def content_of(dataset, split):
    """(bytes, class name, patient, part) of every image."""
    rows = zip(dataset.X, dataset.y, dataset.patients, split.parts, strict=True)
    return sorted((Path(path).read_bytes(), dataset.target_names[code], who, part) for path, code, who, part in rows)


@st.composite
def cohorts(draw):
    """Labels and patients where each of up to four classes has six patients or more."""
    n_classes = draw(st.integers(2, 4))
    sizes = draw(st.lists(st.integers(1, 9), min_size=6 * n_classes, max_size=40))
    labels, patients = [], []
    for patient, size in enumerate(sizes):
        second = draw(st.integers(0, n_classes - 1))
        codes = [patient % n_classes, *([second] * (size - 1))]
        labels += codes
        patients += [str(patient)] * size
    return labels, patients, tuple("abcd"[:n_classes])


class TestSplit:
    @settings(max_examples=20, deadline=None)
    @given(cohorts(), st.floats(0.05, 0.6), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
    def test_a_partition_by_patient_with_every_class_in_every_part(self, cohort, test, validation, seed):
        dataset = table(*cohort)
        split = split_dataset(dataset, test_size=test, validation_size=validation, random_state=seed)
        rows = np.concatenate([split.train, split.validation, split.test])
        assert sorted(rows) == list(range(len(dataset)))
        patients = dataset.patients
        sides = [set(patients[getattr(split, part)]) for part in PARTS]
        assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(patients))
        assert ("validation" in split.asked) == (validation * (1 - test) > 0)
        for part in split.asked:
            assert set(dataset.y[getattr(split, part)]) == set(range(len(dataset.target_names)))

    def test_the_defaults_are_those_of_the_published_script_by_patient(self):
        rng = np.random.default_rng(0)
        patients = np.repeat(np.arange(300), rng.integers(5, 60, 300)).astype(str)
        dataset = table(rng.integers(0, 2, len(patients)), patients)
        reached = split_dataset(dataset).reached
        for part, share in (("train", 0.72), ("validation", 0.08), ("test", 0.2)):
            assert reached[part]["patients"] == pytest.approx(share, abs=0.01)
            assert reached[part]["images"] == pytest.approx(share, abs=0.01)
            assert list(reached[part]["classes"].values()) == pytest.approx([share] * 2, abs=0.01)

    def test_the_balance_is_better_than_that_of_one_draw(self):
        rng = np.random.default_rng(1)
        patients = np.repeat(np.arange(40), rng.integers(1, 80, 40)).astype(str)
        labels = (rng.random(len(patients)) < rng.beta(1, 3, 40)[patients.astype(int)]).astype(int)
        dataset = table(labels, patients)

        def worst(split):
            wanted = split.asked
            return max(
                abs(share / wanted[part] - 1)
                for part in PARTS
                for share in (*split.reached[part]["classes"].values(), split.reached[part]["images"])
            )

        chosen = worst(split_dataset(dataset))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splitting, "_ATTEMPTS", 8)
            single = [worst(split_dataset(dataset, random_state=seed)) for seed in range(5)]
        assert chosen < np.median(single)
        assert chosen < 0.35

    def test_every_patient_is_tested_as_often_as_another(self):
        # Dealing patients out by size, as greedy splitters do, would never test the largest.
        sizes = [40, 1, 1, 1, 2, 3, 4, 5, 6, 7, 40, 1, 1, 1, 2, 3, 4, 5, 6, 7]
        patients = np.repeat(np.arange(20), sizes).astype(str)
        dataset = table((np.arange(len(patients)) + np.cumsum(np.ones(len(patients), int))) % 3 % 2, patients)
        tested = np.zeros(20)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(splitting, "_MAX_WORK", 0)
            for seed in range(60):
                split = split_dataset(dataset, test_size=0.3, validation_size=0, random_state=seed)
                tested[np.array(split.patients["test"], dtype=int)] += 1
        assert tested.min() > 0

    def test_neither_the_order_of_rows_nor_the_type_of_ids_matters(self, cohort):
        split = split_dataset(cohort)
        order = np.random.default_rng(0).permutation(len(cohort))
        other = split_dataset(cohort.subset(order))
        assert dict(other.patients) == dict(split.patients)
        assert sorted(order[other.test]) == split.test.tolist()

    def test_the_seed(self, cohort):
        patients = [split_dataset(cohort, random_state=seed).patients["test"] for seed in (0, 0, 1)]
        assert patients[0] == patients[1] != patients[2]
        assert len(split_dataset(cohort, random_state=None)) == len(cohort)

    def test_the_record(self, cohort):
        split = split_dataset(cohort, test_size=0.4, validation_size=0.5)
        assert split.asked == {"train": 0.3, "validation": 0.3, "test": 0.4}
        assert split.class_counts["test"] == {
            name: int((cohort.y[split.test] == code).sum()) for code, name in enumerate(cohort.target_names)
        }
        assert "of 40.0 % asked for" in split.summary()
        assert split.written_to is None
        with pytest.raises(AttributeError):
            split.test = None
        assert not audit_split(cohort, split.as_cv()).errors

    def test_a_share_of_less_than_one_patient_is_one_patient(self, cohort):
        split = split_dataset(cohort, test_size=1e-9, validation_size=1e-300)
        assert [len(split.patients[part]) for part in PARTS] == [13, 1, 1]

    def test_without_validation(self, cohort):
        split = split_dataset(cohort, validation_size=0)
        assert len(split.validation) == 0
        assert "validation" not in split.summary()

    def test_rare_classes_reach_every_part(self):
        # Three of thirty patients carry each of two classes: drawn without care, hardly ever in all three parts.
        labels = [1] * 3 + [2] * 3 + [0] * 24
        dataset = table(labels, [str(i) for i in range(30)], ("a", "b", "c"))
        split = split_dataset(dataset)
        assert all(n >= 1 for part in PARTS for n in split.class_counts[part].values())

    def test_a_class_of_the_names_without_an_image_is_no_obstacle(self):
        dataset = table([0, 1] * 10, [str(i) for i in range(20)], ("a", "b", "none"))
        assert split_dataset(dataset).class_counts["test"]["none"] == 0

    def test_many_patients_take_seconds(self):
        n = 20_000
        split = split_dataset(table(np.arange(n) % 2, [str(i) for i in range(n)]))
        assert split.reached["test"]["images"] == pytest.approx(0.2, abs=1e-4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"test_size": 0}, r"test_size: expected a share from more than 0 to less than 1, got 0"),
            ({"test_size": 1.0}, "test_size: .* got 1.0"),
            ({"test_size": "a"}, "test_size: .* got 'a'"),
            ({"test_size": True}, "test_size: .* got True"),
            ({"test_size": float("nan")}, "test_size: .* got nan"),
            ({"validation_size": -0.1}, "validation_size: expected a share from 0 to less than 1, got -0.1"),
            ({"validation_size": 1}, "validation_size: .* got 1"),
            ({"random_state": -1}, "random_state: expected a whole number from 0 to 4294967295, got -1"),
            ({"random_state": 0.5}, "random_state: .* got 0.5"),
            ({"mode": "move"}, "mode: expected one of index, csv, copy, link, got 'move'"),
            (
                {"mode": "csv"},
                "write_to: expected a path for every mode but 'index', got None for 'csv'. Give write_to",
            ),
            ({"write_to": "x"}, "got 'x' for 'index'. Give mode="),
            ({"write_to": 5, "mode": "csv"}, "write_to: expected a path, got 5"),
        ],
    )
    def test_arguments(self, cohort, arguments, match):
        with pytest.raises(DatasetError, match=match):
            split_dataset(cohort, **arguments)

    def test_no_data_set(self, cohort):
        with pytest.raises(DatasetError, match="expected a PatchDataset, got DataFrame"):
            split_dataset(cohort.frame)

    def test_a_class_that_a_part_would_lose(self):
        dataset = table([0] * 8 + [1] * 2, [str(i) for i in range(10)])
        with pytest.raises(DatasetError, match=r"each of 3 parts, got class 'malignant' in only 2 of 10 .*validation_"):
            split_dataset(dataset)
        assert split_dataset(dataset, validation_size=0).class_counts["test"]["malignant"] == 1
        with pytest.raises(DatasetError, match=r"in only 1 of 9 patients. Merge or drop the class, add patients\."):
            split_dataset(dataset.subset(range(9)), validation_size=0)

    def test_no_assignment_with_every_class(self):
        # Each class has two patients; one patient carries both, so that no two parts can share them out.
        dataset = table([0, 0, 1, 1, 2, 2], ["p", "q", "p", "r", "q", "r"], ("a", "b", "c"))
        with pytest.raises(DatasetError, match="expected every class in every part, got none such in 200 assignments"):
            split_dataset(dataset, validation_size=0)

    def test_a_missing_patient(self, cohort):
        dataset = cohort.subset(range(len(cohort)))
        dataset.frame.loc[3, "patient"] = " "
        with pytest.raises(GroupLeakageError, match="row 3"):
            split_dataset(dataset)


class TestOnDisk:
    @pytest.mark.parametrize("mode", ["csv", "copy", "link"])
    def test_the_round_trip(self, on_disk, tmp_path, mode):
        target = tmp_path / "new" / ("split.csv" if mode == "csv" else "split")
        split = split_dataset(on_disk, write_to=target, mode=mode)
        assert split.written_to == target
        assert sorted(path.name for path in target.parent.iterdir()) == [target.name]
        back = load_manifest(target if mode == "csv" else target / "manifest.csv")
        again = predefined_split(back)
        assert back.target_names == on_disk.target_names
        assert content_of(back, again) == content_of(on_disk, split)
        assert dict(again.patients) == dict(split.patients)
        assert back.frame[["x", "y", "slide"]].equals(on_disk.frame[["x", "y", "slide"]])
        assert not back.synthetic
        if mode != "csv":
            folder = load_image_folder(target, patients="manifest.csv")
            assert folder.target_names == on_disk.target_names
            assert content_of(folder, predefined_split(folder)) == content_of(on_disk, split)
            assert folder.audit.left_out == ()

    def test_copies_are_files_and_links_are_links(self, on_disk, tmp_path):
        for mode in ("copy", "link"):
            split_dataset(on_disk, write_to=tmp_path / mode, mode=mode)
            files = list((tmp_path / mode).rglob("*.png"))
            assert {path.is_symlink() for path in files} == {mode == "link"}
            assert len(files) == len(on_disk)
        shutil.rmtree(on_disk.root)
        assert len(load_manifest(tmp_path / "copy/manifest.csv")) == 30

    def test_a_made_up_cohort_stays_made_up(self, cohort, tmp_path):
        split_dataset(cohort, write_to=tmp_path / "tree", mode="link")
        split_dataset(cohort, write_to=tmp_path / "split.csv", mode="csv")
        assert load_image_folder(tmp_path / "tree", patients=r"^([0-9]+)/").synthetic
        assert load_manifest(tmp_path / "tree/manifest.csv").synthetic
        assert load_manifest(tmp_path / "split.csv").synthetic

    def test_the_folder_of_a_patient_tells_the_patient(self, cohort, tmp_path):
        split_dataset(cohort, write_to=tmp_path / "tree", mode="link")
        back = load_image_folder(tmp_path / "tree", patients=r"^([0-9]+)/")
        assert sorted(back.patients) == sorted(cohort.patients)

    def test_relative_paths_hold_when_both_folders_move(self, on_disk, tmp_path):
        split_dataset(on_disk, write_to=tmp_path / "tables/split.csv", mode="csv")
        (tmp_path / "moved").mkdir()
        for name in ("tables", "data"):
            (tmp_path / name).rename(tmp_path / "moved" / name)
        assert len(load_manifest(tmp_path / "moved/tables/split.csv")) == 30

    def test_a_csv_through_a_link_to_its_folder(self, on_disk, tmp_path):
        (tmp_path / "far/away").mkdir(parents=True)
        (tmp_path / "near").symlink_to(tmp_path / "far/away")
        split_dataset(on_disk, write_to=tmp_path / "near/split.csv", mode="csv")
        assert len(load_manifest(tmp_path / "near/split.csv")) == 30

    def test_a_drive_that_no_relative_path_leads_to(self, on_disk, tmp_path, monkeypatch):
        def refuse(path, start):
            raise ValueError("path is on mount 'D:'")

        with monkeypatch.context() as patch:
            patch.setattr("os.path.relpath", refuse)
            split_dataset(on_disk, write_to=tmp_path / "split.csv", mode="csv")
        assert str(on_disk.root) in (tmp_path / "split.csv").read_text()

    def test_ids_that_can_be_no_folder(self):
        assert len(split_files._folder_name("ä" * 90)) == 32
        assert split_files._folder_name("..") == "%2E%2E"

    def test_images_on_several_drives_have_no_folder_in_common(self, on_disk, tmp_path, monkeypatch):
        def refuse(paths):
            raise ValueError("Paths don't have the same drive")

        monkeypatch.setattr("os.path.commonpath", refuse)
        split = split_dataset(on_disk, write_to=tmp_path / "split", mode="link")
        assert len(list((tmp_path / "split").rglob("*.png"))) == len(split)

    def test_an_empty_folder_is_taken_and_another_left_alone(self, on_disk, tmp_path):
        target = tmp_path / "split"
        target.mkdir()
        split_dataset(on_disk, write_to=target, mode="link")
        before = sorted(target.rglob("*"))
        with pytest.raises(DatasetError, match=r"expected a new or empty folder, got one that holds 'manifest.csv'"):
            split_dataset(on_disk, write_to=target, mode="link")
        with pytest.raises(DatasetError, match="expected a new file, got one that exists"):
            split_dataset(on_disk, write_to=target / "manifest.csv", mode="csv")
        with pytest.raises(DatasetError, match="expected a new or empty folder, got a file or a link"):
            split_dataset(on_disk, write_to=target / "manifest.csv", mode="copy")
        assert sorted(target.rglob("*")) == before

    def test_not_among_the_images(self, on_disk):
        with pytest.raises(DatasetError, match="expected a folder outside that of the images"):
            split_dataset(on_disk, write_to=on_disk.root / "split", mode="link")
        assert not (on_disk.root / "split").exists()

    @pytest.mark.parametrize("mode", ["copy", "link"])
    def test_nothing_is_left_of_what_failed(self, on_disk, tmp_path, mode):
        Path(on_disk.X[20]).unlink()
        with pytest.raises(DatasetError, match=r"20/1.png: expected an image of the data set, got FileNotFoundError"):
            split_dataset(on_disk, write_to=tmp_path / "out/split", mode=mode)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("mode", ["csv", "copy"])
    def test_nothing_is_left_of_what_was_interrupted(self, on_disk, tmp_path, mode, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(split_files, "_write_table", interrupt)
        with pytest.raises(KeyboardInterrupt):
            split_dataset(on_disk, write_to=tmp_path / "out/split", mode=mode)
        assert not (tmp_path / "out").exists()

    def test_no_room(self, on_disk, tmp_path, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
        with pytest.raises(DatasetError, match=r"expected room for [0-9,]+ bytes of images, got 10 free"):
            split_dataset(on_disk, write_to=tmp_path / "out/split", mode="copy")
        assert not (tmp_path / "out").exists()

    def test_a_disk_that_fills_up_meanwhile(self, on_disk, tmp_path, monkeypatch):
        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(DatasetError, match=r"got No space left on device.* Nothing half-written is left"):
            split_dataset(on_disk, write_to=tmp_path / "out/split", mode="copy")
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_cannot_be_made(self, on_disk, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DatasetError, match=r"expected a place that can be written, got (Not a dir|File exists)"):
            split_dataset(on_disk, write_to=tmp_path / "file/split", mode="link")

    @pytest.mark.parametrize("patient", [" p", "p\n", "p\x00"])
    def test_a_patient_whom_a_csv_would_change(self, on_disk, tmp_path, patient):
        on_disk.frame.loc[3, "patient"] = patient
        with pytest.raises(DatasetError, match="without blanks at their ends, line breaks or control"):
            split_dataset(on_disk, write_to=tmp_path / "split.csv", mode="csv")

    @pytest.mark.parametrize(
        ("names", "match"),
        [
            (("no/IDC", "IDC"), "class names that can be names of folders, got 'no/IDC'"),
            (("..", "IDC"), r"got '\.\.'"),
        ],
    )
    def test_a_class_that_can_be_no_folder(self, on_disk, tmp_path, names, match):
        dataset = PatchDataset(on_disk.frame, names, "mine", on_disk.root)
        with pytest.raises(DatasetError, match=match):
            split_dataset(dataset, write_to=tmp_path / "split", mode="link")


def test_real_idc_by_links(real_data, tmp_path):
    dataset = load_idc(real_data / "idc")
    dataset = dataset.subset(np.isin(dataset.patients, sorted(set(dataset.patients))[:25]))
    split = split_dataset(dataset, write_to=tmp_path / "tree", mode="link")
    back = load_image_folder(tmp_path / "tree", patients="manifest.csv")
    assert content_of(back, predefined_split(back)) == content_of(dataset, split)
    assert split.reached["test"]["images"] == pytest.approx(0.2, abs=0.06)
