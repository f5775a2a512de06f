import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from histofeat.datasets import format_of, load_idc, make_cohort, official_roles, open_dataset, parse_name
from histofeat.datasets._idc import FULL_SET, MANIFEST, NESTED
from histofeat.exceptions import DatasetError
from histofeat.images import png_size


def png(height=50, width=50) -> bytes:
    """A whole PNG, made by hand so that these tests need no image library."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = zlib.compress((b"\0" + b"\xee\x82\xaa" * width) * height)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def put(root, patient, x, y, label, *, spelling="{p}_idx5_x{x}_y{y}_class{c}.png", folder=None, content=None):
    name = spelling.format(p=patient, x=x, y=y, c=label)
    path = root / (folder or f"{patient}/{label}") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png() if content is None else content)
    return path


RUN_TOGETHER = "{p}idx5x{x}y{y}class{c}.png"


@pytest.fixture
def tree(tmp_path):
    """Two patients, three patches of class 0 and one of class 1."""
    root = tmp_path / "idc"
    put(root, "10253", 51, 101, 0)
    put(root, "10253", 1, 101, 0)
    put(root, "10253", 101, 51, 1)
    put(root, "8863", 451, 1451, 0)
    return root


class TestNames:
    @given(
        st.integers(0, 10**12 - 1),
        st.integers(0, 9999),
        st.integers(0, 10**9 - 1),
        st.integers(0, 10**9 - 1),
        st.sampled_from([0, 1]),
        st.sampled_from(["_", ""]),
    )
    def test_round_trip_in_both_spellings(self, patient, idx, x, y, label, mark):
        name = f"{patient}{mark}idx{idx}{mark}x{x}{mark}y{y}{mark}class{label}.png"
        assert parse_name(name) == (str(patient), idx, x, y, label)

    @given(st.text(max_size=60))
    def test_any_text_is_a_name_or_none(self, text):
        parsed = parse_name(text)
        if parsed is not None:
            again = f"{parsed.patient}_idx{parsed.idx}_x{parsed.x}_y{parsed.y}_class{parsed.label}.png"
            assert parse_name(again) == parsed

    @pytest.mark.parametrize(
        "name",
        [
            "10253_idx5_x1_y1_class2.png",
            "10253_idx5_x1_y1_class0.jpg",
            "10253_idx5_x1_y1_class0.png.part",
            "x10253_idx5_x1_y1_class0.png",
            "10253_idx5_x-1_y1_class0.png",
            "١٠_idx5_x1_y1_class0.png",
            "10253_idx5_x1234567890_y1_class0.png",
            "",
        ],
    )
    def test_foreign_names(self, name):
        assert parse_name(name) is None

    def test_capital_extension(self):
        assert parse_name("8863_idx5_x1_y51_class1.PNG") == ("8863", 5, 1, 51, 1)


class TestHeaders:
    @pytest.mark.parametrize("size", [(50, 50), (50, 1), (1, 50), (1, 1), (460, 700)])
    def test_size_is_read(self, tmp_path, size):
        (tmp_path / "a.png").write_bytes(png(*size))
        assert png_size(str(tmp_path / "a.png")) == size

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"\xff\xd8\xff\xe0" + bytes(40), "is no PNG"),
            (b"\x89PNG", "is no PNG"),
            (png()[:20], "broken PNG header"),
            (png()[:12] + b"IDAT" + png()[16:], "broken PNG header"),
            (png(0, 50), "broken PNG header"),
        ],
    )
    def test_reason(self, tmp_path, content, reason):
        (tmp_path / "a.png").write_bytes(content)
        assert reason in png_size(str(tmp_path / "a.png"))

    def test_what_cannot_be_read(self, tmp_path):
        assert png_size(str(tmp_path)) == "is a folder"
        assert png_size(str(tmp_path / "gone.png")) == "cannot be read (FileNotFoundError)"


class TestTree:
    def test_rows(self, tree):
        dataset = load_idc(tree)
        assert dataset.name == "IDC"
        assert dataset.target_names == ("no IDC", "IDC")
        assert not dataset.synthetic
        # Patients by number, not as text; then y, then x.
        assert dataset.patients.tolist() == ["8863", "10253", "10253", "10253"]
        assert dataset.frame[["x", "y"]].to_numpy().tolist() == [[451, 1451], [101, 51], [1, 101], [51, 101]]
        assert dataset.y.tolist() == [0, 1, 0, 0]
        assert dataset.relative_paths[0] == "8863/0/8863_idx5_x451_y1451_class0.png"
        assert all(path.startswith(str(tree)) for path in dataset.X)

    def test_both_spellings_are_one_patient(self, tree):
        put(tree, "10253", 1351, 1101, 0, spelling=RUN_TOGETHER)
        dataset = load_idc(tree)
        assert len(dataset) == 5
        assert set(dataset.patients) == {"8863", "10253"}
        assert dataset.audit.left_out == ()

    def test_one_patch_in_two_spellings_is_a_duplicate(self, tree):
        put(tree, "10253", 1, 101, 0, spelling=RUN_TOGETHER)
        dataset = load_idc(tree)
        assert len(dataset) == 4
        assert dataset.audit.duplicates == 1

    def test_doubled_archive(self, tree):
        once = load_idc(tree)
        shutil.copytree(tree, tree.parent / "copy")
        shutil.move(tree.parent / "copy", tree / NESTED)
        twice = load_idc(tree)
        assert twice.X.tolist() == once.X.tolist()
        assert twice.audit.duplicates == 4
        assert twice.audit.n_patches == 4
        assert "duplicates removed: 4" in twice.audit.summary()

    def test_nested_only(self, tree):
        outer = tree.parent / "kaggle"
        shutil.copytree(tree, outer / NESTED)
        assert load_idc(outer).y.tolist() == load_idc(outer / NESTED).y.tolist() == load_idc(tree).y.tolist()
        assert load_idc(outer).audit.duplicates == 0
        assert load_idc(outer).relative_paths[0].startswith(NESTED)

    def test_sound_copy_stands_in_for_a_bad_one(self, tree):
        put(tree, "8863", 1, 1, 1, content=b"")
        kept = put(tree / NESTED, "8863", 1, 1, 1)
        dataset = load_idc(tree)
        assert str(kept) in dataset.X
        assert dataset.audit.duplicates == 0
        assert dataset.audit.left_out[0].count == 1

    def test_relative_root_gives_absolute_paths(self, tree, monkeypatch):
        monkeypatch.chdir(tree.parent)
        assert load_idc("idc").X.tolist() == load_idc(tree).X.tolist()

    def test_nothing_is_written(self, tree):
        before = {path: path.stat().st_mtime_ns for path in [tree, *tree.rglob("*")]}
        load_idc(tree)
        assert {path: path.stat().st_mtime_ns for path in [tree, *tree.rglob("*")]} == before


class TestSeveralFolders:
    """Two samples of the same patients are one data set, in which each patch is there once."""

    @pytest.fixture
    def second(self, tree):
        """One patch that `tree` has, under its other spelling; three that it has not, one of a new patient."""
        root = tree.parent / "second"
        put(root, "10253", 51, 101, 0, spelling=RUN_TOGETHER)
        put(root, "10253", 151, 101, 1)
        put(root, "8863", 1, 1, 1)
        put(root, "9000", 1, 1, 0)
        return root

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_rows(self, tree, second, kind):
        dataset = load_idc(kind([tree, str(second)]))
        assert dataset.relative_paths.tolist() == [
            "second/8863/1/8863_idx5_x1_y1_class1.png",
            "idc/8863/0/8863_idx5_x451_y1451_class0.png",
            "second/9000/0/9000_idx5_x1_y1_class0.png",
            "idc/10253/1/10253_idx5_x101_y51_class1.png",
            "idc/10253/0/10253_idx5_x1_y101_class0.png",
            "idc/10253/0/10253_idx5_x51_y101_class0.png",
            "second/10253/1/10253_idx5_x151_y101_class1.png",
        ]
        assert dataset.y.tolist() == [1, 0, 0, 1, 0, 0, 1]
        assert dataset.root == tree.parent
        audit = dataset.audit
        assert (audit.n_patches, audit.n_patients, audit.duplicates) == (7, 3, 1)
        assert audit.completeness == "incomplete: 7 of 277,524 patches (0.0 %), 3 of 279 patients"
        assert audit.notes == ("Patches by folder, each patch in the first that has it: 4 of idc, 3 of second.",)

    def test_the_first_folder_keeps_a_patch_of_both(self, tree, second):
        turned = load_idc([second, tree])
        assert "second/10253/0/10253idx5x51y101class0.png" in turned.relative_paths
        assert turned.audit.duplicates == 1
        one = load_idc([tree, second]).frame
        columns = ["patient", "x", "y", "label"]
        assert turned.frame[columns].to_numpy().tolist() == one[columns].to_numpy().tolist()

    def test_a_list_of_one_is_one_folder(self, tree):
        one, listed = load_idc(tree), load_idc([tree])
        assert listed.X.tolist() == one.X.tolist()
        assert (listed.root, listed.audit) == (one.root, one.audit)

    def test_a_folder_twice_adds_nothing(self, tree):
        audit = load_idc([tree, tree]).audit
        assert (audit.n_patches, audit.duplicates) == (4, 4)
        assert "4 of idc, 0 of idc" in audit.summary()

    def test_what_is_left_out_is_named_with_its_folder(self, tree, second):
        put(second, "8863", 101, 1, 0, content=b"")
        [group] = load_idc([tree, second]).audit.left_out
        assert group.examples == ("second/8863/0/8863_idx5_x101_y1_class0.png",)

    def test_classes_that_contradict_each_other(self, tree, second):
        put(second, "8863", 451, 1451, 1)
        put(second, "10253", 101, 51, 0)
        with pytest.raises(
            DatasetError,
            match=r"expected one class for patient \d+ at x \d+, y \d+, got class 1 and class 0 \(.*\) \(and 1 more\)",
        ) as caught:
            load_idc([tree, second])
        assert "idc/10253/1/10253_idx5_x101_y51_class1.png: expected" in str(caught.value)
        assert "(second/10253/0/10253_idx5_x101_y51_class0.png)" in str(caught.value)

    def test_each_folder_must_be_one_of_idc(self, tree, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DatasetError, match=r"empty: expected a folder with PATIENT.*got an empty folder"):
            load_idc([tree, tmp_path / "empty"])
        with pytest.raises(DatasetError, match=r"gone: expected a folder with PATIENT.*does not exist"):
            load_idc([tree, tmp_path / "gone"])
        put(tree, "8863", 1, 51, 0, content=b"")
        (tmp_path / "other").mkdir()
        (tmp_path / "other/a.txt").write_text("a")
        with pytest.raises(DatasetError, match=r"got no IDC patch \(left out, is a file .*: 1 \(other/a.txt\)\)"):
            load_idc([tree, tmp_path / "other"])

    @pytest.mark.parametrize("folders", [[], ()])
    def test_no_folder(self, folders):
        with pytest.raises(DatasetError, match="load_idc: expected one folder or more, got none"):
            load_idc(folders)

    def test_something_else_among_them(self, tree):
        with pytest.raises(DatasetError, match="load_idc: expected the path of a folder, got 5"):
            load_idc([tree, 5])

    def test_synthetic_patches_do_not_mix_with_others(self, tree, tmp_path):
        make_cohort(n_patients=2, patches_per_patient=4, root=tmp_path / "made")
        with pytest.raises(DatasetError, match="made: expected real patches as in the other folders, got synthetic"):
            load_idc([tree, tmp_path / "made"])

    def test_two_halves_of_a_cohort_are_the_cohort(self, tmp_path):
        cohort = make_cohort(n_patients=3, patches_per_patient=8, root=tmp_path / "made")
        for number, path in enumerate(map(Path, cohort.X)):
            place = tmp_path / f"half{number % 2}" / path.relative_to(cohort.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        halves = [tmp_path / "half0", tmp_path / "half1"]
        for half in halves:
            shutil.copy(cohort.root / MANIFEST, half / MANIFEST)
        both = load_idc(halves)
        assert both.synthetic
        assert both.frame.drop(columns="path").equals(cohort.frame.drop(columns="path"))


class TestLeftOut:
    def test_files_and_folders_with_reasons(self, tree):
        put(tree, "8863", 1, 1, 0, content=b"")
        put(tree, "8863", 51, 1, 0, content=b"GIF89a" + bytes(30))
        put(tree, "8863", 101, 1, 0, content=png()[:18])
        (tree / "8863/0/8863_idx5_x151_y1_class0.png").mkdir()
        for name in ("d", "c", "b", "a"):
            (tree / f"8863/0/{name}.txt").write_text("notes")
        (tree / "README.txt").write_text("notes")
        (tree / "8863/notes.txt").write_text("notes")
        (tree / "__MACOSX").mkdir()
        (tree / "8863/2").mkdir()
        (tree / "loop").symlink_to(tree / "loop")
        audit = load_idc(tree).audit
        assert audit.n_patches == 4
        found = {group.reason: (group.count, group.examples) for group in audit.left_out}
        assert found == {
            "has a name that is no IDC patch name": (4, ("8863/0/a.txt", "8863/0/b.txt", "8863/0/c.txt")),
            "is a file outside the class folders": (3, ("8863/notes.txt", "README.txt", "loop")),
            "is empty (0 bytes)": (1, ("8863/0/8863_idx5_x1_y1_class0.png",)),
            "is no PNG (wrong first bytes)": (1, ("8863/0/8863_idx5_x51_y1_class0.png",)),
            "has a broken PNG header": (1, ("8863/0/8863_idx5_x101_y1_class0.png",)),
            "is a folder": (1, ("8863/0/8863_idx5_x151_y1_class0.png",)),
            "is a folder whose name is no patient number (not searched)": (1, ("__MACOSX",)),
            "is a folder named neither 0 nor 1 (not searched)": (1, ("8863/2",)),
        }
        assert "8863/0/c.txt and 1 more)" in audit.summary()

    def test_nothing_left_out_is_said(self, tree):
        assert "left out: nothing" in load_idc(tree).audit.summary()


class TestRefusals:
    def test_label_against_folder(self, tree):
        put(tree, "8863", 1, 1, 0, folder="8863/1")
        put(tree, "8863", 51, 1, 0, folder="8863/1")
        message = r"8863/1/8863_idx5_x1_y1_class0.png: expected class 1 .* got class 0 in its name \(and 1 more\)"
        with pytest.raises(DatasetError, match=message):
            load_idc(tree)

    def test_patient_against_folder(self, tree):
        put(tree, "8863", 1, 1, 0, folder="10253/0")
        with pytest.raises(DatasetError, match=r"expected patient 10253 as its folder says, got patient 8863 in its"):
            load_idc(tree)

    def test_one_place_with_both_classes(self, tree):
        put(tree, "8863", 451, 1451, 1)
        with pytest.raises(DatasetError, match=r"one class for patient 8863 at x 451, y 1451, got class 1 and class 0"):
            load_idc(tree)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(DatasetError, match=r"gone: expected a folder with PATIENT/\{0,1\}.*does not exist"):
            load_idc(tmp_path / "gone")

    def test_file(self, tmp_path):
        (tmp_path / "archive.zip").write_bytes(b"PK")
        with pytest.raises(DatasetError, match=r"archive.zip: expected a folder .*got a file.*unpack it"):
            load_idc(tmp_path / "archive.zip")

    def test_empty_folder(self, tmp_path):
        with pytest.raises(DatasetError, match=r"expected a folder with PATIENT.*got an empty folder. Give the folder"):
            load_idc(tmp_path)

    def test_folder_without_a_patch(self, tmp_path):
        (tmp_path / "cat.png").write_bytes(png())
        with pytest.raises(DatasetError, match=r"got no IDC patch \(left out, is a file outside .*: 1 \(cat.png\)\)"):
            load_idc(tmp_path)

    def test_one_level_too_high(self, tree):
        with pytest.raises(DatasetError, match=r"Did you mean '.*idc'\?"):
            load_idc(tree.parent)
        shutil.move(tree, tree.parent / "moved")
        shutil.move(tree.parent / "moved", tree / NESTED)
        with pytest.raises(DatasetError, match=r"Did you mean '.*idc'\?"):
            load_idc(tree.parent)

    def test_the_right_folder_without_a_readable_patch(self, tree):
        for file in tree.rglob("*.png"):
            file.write_bytes(b"no image")
        for folder in (tree, tree / "8863"):
            with pytest.raises(DatasetError, match=r"is no PNG .*\. Replace these files, or give another folder\.$"):
                load_idc(folder)

    def test_folder_of_one_patient(self, tree):
        whole, one = load_idc(tree), load_idc(tree / "8863")
        own = whole.subset(whole.patients == "8863")
        assert (one.X.tolist(), one.y.tolist(), {*one.patients}) == (own.X.tolist(), own.y.tolist(), {"8863"})
        assert open_dataset(tree / "8863").root == tree / "8863"

    def test_class_folders_in_a_folder_of_digits_are_no_patient(self, tmp_path):
        for label in "01":
            (tmp_path / "2023" / label).mkdir(parents=True)
            for patient in "ab":
                (tmp_path / "2023" / label / f"{patient}{label}.png").write_bytes(png())
        assert format_of(tmp_path / "2023") == "folder"

    def test_folder_of_one_synthetic_patient(self, cohort):
        assert load_idc(cohort.root / "900001").synthetic

    @pytest.mark.parametrize("root", [None, 5, ""])
    def test_no_path(self, root):
        with pytest.raises(DatasetError, match=f"load_idc: expected the path of a folder, got {root!r}"):
            load_idc(root)

    def test_folder_that_cannot_be_listed(self, tree, monkeypatch):
        # The test may run as root, whom no permission stops.
        def refuse(folder):
            raise PermissionError(folder)

        monkeypatch.setattr("os.scandir", refuse)
        with pytest.raises(DatasetError, match="expected a folder that can be listed, got PermissionError"):
            load_idc(tree)


class TestAudit:
    def test_counts_and_completeness(self, tree):
        put(tree, "8863", 501, 1451, 0, content=png(50, 7))
        audit = load_idc(tree).audit
        assert audit.class_counts == {"no IDC": 4, "IDC": 1}
        assert audit.size_counts == {(50, 50): 4, (50, 7): 1}
        assert (audit.n_nominal_size, audit.n_smaller) == (4, 1)
        assert audit.patients_without == {"no IDC": (), "IDC": ("8863",)}
        assert audit.patches_per_patient == (2, 2.5, 3)
        assert audit.full_set == FULL_SET
        assert audit.is_complete is False
        assert audit.completeness == "incomplete: 5 of 277,524 patches (0.0 %), 2 of 279 patients"
        assert "1 smaller (down to 50x7), 0 larger" in audit.summary()

    def test_synthetic_cohort_never_passes_for_idc(self, tmp_path):
        cohort = make_cohort(n_patients=2, patches_per_patient=4, root=tmp_path / "made")
        loaded = load_idc(tmp_path / "made")
        assert (loaded.name, loaded.synthetic) == ("synthetic", True)
        assert loaded.target_names == cohort.target_names == ("no tumour", "tumour")
        assert loaded.X.tolist() == cohort.X.tolist()
        assert loaded.audit == cohort.audit
        assert loaded.audit.left_out == ()
        with pytest.raises(DatasetError, match="expected the IDC data set, got 'synthetic'"):
            loaded.official_split()


class TestOfficialSplit:
    def test_roles_are_the_published_numbers(self):
        roles = official_roles()
        counts = {role: list(roles.values()).count(role) for role in set(roles.values())}
        assert counts == {"train": 84, "validation": 29, "test": 49}

    @pytest.fixture
    def dataset(self, tmp_path):
        for i, patient in enumerate(("10304", "13688", "12909", "99999")):
            put(tmp_path, patient, 1, 1, i % 2)
            put(tmp_path, patient, 51, 1, 0)
        return load_idc(tmp_path)

    def test_rows_per_role(self, dataset):
        roles = official_roles()
        split = dataset.official_split()
        for role in ("train", "validation", "test"):
            rows = getattr(split, role)
            assert len(rows) == 2
            assert {roles[p] for p in dataset.patients[rows]} == {role}
        assert set(dataset.patients[split.unlisted]) == {"99999"}
        assert split.n_patients == {"train": 1, "validation": 1, "test": 1, "unlisted": 1}
        assert {role: len(patients) for role, patients in split.missing.items()} == {
            "train": 83,
            "validation": 28,
            "test": 48,
        }
        assert "test=2 patches of 1 patients" in repr(split)
        assert split.to_dict()["unlisted"] == {"n_patches": 2, "n_patients": 1, "missing_patients": []}

    def test_as_cv(self, dataset):
        split = dataset.official_split()
        [(train, test)] = split.as_cv()
        assert train.tolist() == sorted([*split.train, *split.validation])
        assert test.tolist() == split.test.tolist()
        assert not set(dataset.patients[train]) & set(dataset.patients[test])

    @pytest.mark.parametrize(("patients", "side"), [(["12909"], "train or validation"), (["10304"], "test")])
    def test_side_without_a_patch(self, dataset, patients, side):
        part = dataset.subset(np.isin(dataset.patients, patients))
        with pytest.raises(DatasetError, match=f"expected patches of the {side} patients, got 0"):
            part.official_split().as_cv()


@pytest.fixture(scope="module")
def sample(real_data):
    return load_idc(real_data / "idc")


class TestRealSample:
    def test_counts(self, sample):
        audit = sample.audit
        assert (len(sample), audit.n_patches, audit.n_patients) == (12_738, 12_738, 239)
        assert audit.class_counts == {"no IDC": 9_265, "IDC": 3_473}
        assert audit.completeness == "incomplete: 12,738 of 277,524 patches (4.6 %), 239 of 279 patients"
        assert (audit.n_nominal_size, audit.n_smaller) == (12_659, 79)
        assert (audit.duplicates, audit.left_out) == (0, ())
        assert audit.patches_per_patient[::2] == (1, 132)

    def test_coordinates_tile_the_slide(self, sample):
        assert (sample.frame[["x", "y"]] % 50 == 1).all(axis=None)

    def test_official_split(self, sample):
        split = sample.official_split()
        assert split.n_patients == {"train": 82, "validation": 29, "test": 49, "unlisted": 79}
        assert split.missing == {"train": ("8915", "9024"), "validation": (), "test": ()}
        rows = np.concatenate([split.train, split.validation, split.test, split.unlisted])
        assert np.array_equal(np.sort(rows), np.arange(len(sample)))

    def test_both_samples(self, sample, real_data):
        both = load_idc([real_data / "idc", real_data / "idc_second"])
        audit = both.audit
        assert (audit.n_patches, audit.n_patients, audit.duplicates, audit.left_out) == (22_176, 239, 0, ())
        assert audit.class_counts == {"no IDC": 16_205, "IDC": 5_971}
        assert audit.completeness == "incomplete: 22,176 of 277,524 patches (8.0 %), 239 of 279 patients"
        assert "12,738 of idc, 9,438 of idc_second" in audit.notes[0]
        split = both.official_split()
        assert split.n_patients == sample.official_split().n_patients
        assert {role: len(getattr(split, role)) for role in split.n_patients} == {
            "train": 7_878,
            "validation": 3_026,
            "test": 4_751,
            "unlisted": 6_521,
        }
