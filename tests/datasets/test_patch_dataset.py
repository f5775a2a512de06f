import json
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import DatasetAudit, FullSet, LeftOut, PatchDataset
from histofeat.exceptions import DatasetError

NAMES = ("adenosis", "fibroadenoma", "ductal")


def table(n=6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"/data/p{i}.png" for i in range(n)],
            "label": [i % 3 for i in range(n)],
            "patient": [f"P{i // 2}" for i in range(n)],
            "x": [1 + 50 * i for i in range(n)],
            "y": [pd.NA] * n,
        }
    )


@pytest.fixture
def dataset():
    return PatchDataset(table(), NAMES, "mine", Path("/data"))


class TestRecord:
    def test_columns_come_out_as_arrays(self, dataset):
        assert dataset.X.dtype == object
        assert dataset.X.shape == (6,)
        assert all(type(path) is str for path in dataset.X)
        assert dataset.y.dtype == np.int64
        assert dataset.y.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.patients.tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]
        assert all(type(patient) is str for patient in dataset.patients)
        assert dataset.frame["y"].isna().all()
        assert str(dataset.frame["x"].dtype) == "Int64"
        assert len(dataset) == 6

    def test_repr(self, dataset):
        assert repr(dataset) == (
            "PatchDataset('mine', 6 patches of 3 patients: 2 adenosis, 2 fibroadenoma, 2 ductal, root='/data')"
        )

    def test_frozen(self, dataset):
        with pytest.raises(FrozenInstanceError):
            dataset.name = "other"

    def test_what_comes_out_is_a_copy(self, dataset):
        dataset.X[0], dataset.y[0], dataset.patients[0] = "no", 9, "no"
        assert (dataset.X[0], dataset.y[0], dataset.patients[0]) == ("/data/p0.png", 0, "P0")

    def test_the_given_frame_is_neither_changed_nor_kept(self):
        frame = table()
        before = frame.copy()
        dataset = PatchDataset(frame, NAMES, "mine")
        pd.testing.assert_frame_equal(frame, before)
        frame.loc[0, "patient"] = "other"
        assert dataset.patients[0] == "P0"

    def test_pickle(self, dataset):
        again = pickle.loads(pickle.dumps(dataset))
        assert again.X.tolist() == dataset.X.tolist()
        assert again.audit == dataset.audit

    def test_numpy_paths_and_object_columns(self):
        frame = table().astype({"path": object, "patient": object, "label": "Int64"})
        assert PatchDataset(frame, list(NAMES), "mine", "/data").root == Path("/data")

    def test_relative_paths(self, dataset):
        assert dataset.relative_paths.tolist() == [f"p{i}.png" for i in range(6)]
        assert replace(dataset, root=None).relative_paths[0] == "/data/p0.png"

    def test_labels_per_is_kept(self, dataset):
        assert dataset.labels_per == "patch"
        per_patient = replace(dataset, labels_per="patient")
        assert per_patient.subset([0, 1]).labels_per == "patient"

    def test_path_outside_the_root(self, dataset):
        with pytest.raises(DatasetError, match=r"every path below '/dat', got '/data/p0.png' \(and 5 more\)"):
            _ = replace(dataset, root=Path("/dat")).relative_paths


class TestSubset:
    @pytest.mark.parametrize("index", [[4, 0], np.array([4, 0], dtype=np.uint8)])
    def test_rows_in_the_order_given(self, dataset, index):
        part = dataset.subset(index)
        assert part.X.tolist() == ["/data/p4.png", "/data/p0.png"]
        assert part.frame.index.tolist() == [0, 1]
        assert (part.name, part.root, part.target_names) == (dataset.name, dataset.root, NAMES)

    def test_mask(self, dataset):
        part = dataset.subset(dataset.patients == "P1")
        assert part.y.tolist() == [2, 0]
        assert part.audit.class_counts == {"adenosis": 1, "fibroadenoma": 0, "ductal": 1}
        assert part.audit.subset_of == 6
        assert part.subset([0]).audit.subset_of == 6
        assert "a selection from 6 patches" in part.audit.summary()

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            ([True, False], r"a mask over 6 rows, got bool of shape \(2,\)"),
            ([0, 6, 7], r"from 0 to 5, got 0 to 7\. Choose rows of this"),
            ([-1], "from 0 to 5, got -1 to -1"),
            ([0, 0, 1], r"each row once, got row 0 again \(1 such rows\)"),
            ([], "one row or more, got 0"),
            ([False] * 6, "one row or more, got 0"),
            ([0.5], r"a mask over 6 rows, got float64 of shape \(1,\)"),
            ([[0, 1]], r"a mask over 6 rows, got int64 of shape \(1, 2\)"),
        ],
    )
    def test_refusals(self, dataset, index, message):
        with pytest.raises(DatasetError, match=message):
            dataset.subset(index)


class TestValidation:
    @pytest.mark.parametrize("names", [("one",), ("a", "a"), ("a", 1), "ab"])
    def test_target_names(self, names):
        with pytest.raises(DatasetError, match="expected two or more different class names, got"):
            PatchDataset(table(), names, "mine")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: f.to_dict(), "expected a pandas DataFrame, got dict"),
            (lambda f: f.drop(columns=["x", "label"]), "got none named label, x"),
            (lambda f: f.iloc[:0], "one patch or more, got 0 rows"),
            (lambda f: f.iloc[::-1], r"index 0 to 5, got one that begins with \[5, 4, 3\]"),
            (lambda f: f.assign(label=[0, 1, 2, 3, 4, 0]), r"label codes 0 to 2 .* got .*3.* in row 3 \(and 1 more\)"),
            (lambda f: f.assign(label=[0, 1, 2, None, 1, 0]), "label codes 0 to 2 .* got .*nan.* in row 3"),
            (lambda f: f.assign(label=[0, 1, 2, 0.5, 1, 0]), "label codes 0 to 2 .* got .*0.5.* in row 3"),
            (lambda f: f.assign(label=list("abcabc")), "label codes 0 to 2 .* got 'a' in row 0"),
            (lambda f: f.assign(patient=range(6)), r"text in the column 'patient', got .*0.* in row 0 \(and 5 more\)"),
            (lambda f: f.assign(patient=["", *"bcdef"]), "text in the column 'patient', got '' in row 0"),
            (lambda f: f.assign(path=[None, *"bcdef"]), "text in the column 'path', got .* in row 0"),
            (lambda f: f.assign(path=list("abcada")), r"each path once, got 'a' again in row 3 \(and 1 more\)"),
        ],
    )
    def test_frame(self, change, message):
        with pytest.raises(DatasetError, match=message):
            PatchDataset(change(table()), NAMES, "mine")

    @pytest.mark.parametrize("value", ["slide", None, 1])
    def test_labels_per(self, value):
        with pytest.raises(DatasetError, match=f"labels_per: expected one of patch, patient, got {value!r}"):
            PatchDataset(table(), NAMES, "mine", labels_per=value)

    def test_official_split_is_of_idc_only(self, dataset):
        with pytest.raises(DatasetError, match="official_split: expected the IDC data set, got 'mine'"):
            dataset.official_split()


class TestAudit:
    def test_counts_without_sizes(self, dataset):
        audit = dataset.audit
        assert audit.size_counts == {}
        assert audit.n_nominal_size is None
        assert audit.n_smaller is None
        assert audit.is_complete is None
        assert audit.completeness == "not applicable: no full set is known"
        assert audit.patients_without == {"adenosis": ("P2",), "fibroadenoma": ("P1",), "ductal": ("P0",)}
        assert "sizes" not in audit.summary()

    def test_sizes_without_a_nominal_one(self):
        frame = table().assign(height=460, width=[700, 700, 700, 700, 700, 650])
        audit = PatchDataset(frame, NAMES, "mine").audit
        assert audit.size_counts == {(460, 700): 5, (460, 650): 1}
        assert audit.n_smaller is None
        assert "sizes: 2 different, 460 to 460 px high, 650 to 700 px wide" in audit.summary()

    def test_larger_than_nominal(self):
        frame = table().assign(height=[50, 50, 60, 60, 50, 50], width=[50, 50, 60, 40, 1, 50])
        audit = DatasetAudit.from_frame(frame, NAMES, "mine", nominal_size=(50, 50))
        assert (audit.n_nominal_size, audit.n_smaller) == (3, 2)
        assert "3 of 50x50 px, 2 smaller (down to 50x1), 1 larger" in audit.summary()

    @pytest.mark.parametrize(
        ("full", "phrase"),
        [
            (FullSet(6, 3, dict.fromkeys(NAMES, 2)), "complete"),
            (FullSet(12, 4, dict.fromkeys(NAMES, 4)), "incomplete: 6 of 12 patches (50.0 %), 3 of 4 patients"),
            (FullSet(6, 3, dict(zip(NAMES, (1, 2, 3), strict=True))), "not the known set: 6 of 6 patches (100.0 %)"),
            (FullSet(3, 3, dict.fromkeys(NAMES, 1)), "not the known set: 6 of 3 patches (200.0 %)"),
        ],
    )
    def test_completeness(self, dataset, full, phrase):
        audit = replace(dataset.audit, full_set=full)
        assert audit.completeness.startswith(phrase)
        assert audit.is_complete == (phrase == "complete")
        assert f"against the published set: {phrase}" in audit.summary()

    def test_to_dict_is_json(self, dataset):
        full = FullSet(6, 3, dict.fromkeys(NAMES, 2))
        left_out = LeftOut.group([("is empty", f"{i}.png") for i in range(5)])
        frame = dataset.frame.assign(height=50, width=50)
        audit = DatasetAudit.from_frame(
            frame, NAMES, "mine", nominal_size=(50, 50), duplicates=3, left_out=left_out, full_set=full
        )
        content = json.loads(json.dumps(audit.to_dict()))
        assert content["sizes"] == [{"height": 50, "width": 50, "n": 6}]
        assert content["left_out"] == [{"reason": "is empty", "n": 5, "examples": ["0.png", "1.png", "2.png"]}]
        assert content["full_set"]["n_patches"] == 6
        assert content["complete"] is True
        assert content["duplicates_removed"] == 3
        assert content["patches_per_patient"] == {"min": 2, "median": 2.0, "max": 2}
        assert dataset.audit.to_dict()["full_set"] is None

    def test_left_out_is_grouped_most_frequent_first(self):
        groups = LeftOut.group([("b", "1"), ("a", "2"), ("a", "3"), ("c", "4")])
        assert [(group.reason, group.count) for group in groups] == [("a", 2), ("b", 1), ("c", 1)]
        assert str(groups[0]) == "a: 2 (2, 3)"

    def test_summary_is_a_list(self, dataset):
        assert all(line.startswith("- ") for line in dataset.audit.summary().splitlines())
