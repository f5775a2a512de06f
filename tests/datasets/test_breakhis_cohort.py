import json

import cv2
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from histofeat import DatasetError, PatientKFold
from histofeat.datasets import load_breakhis, make_breakhis_cohort
from histofeat.datasets.breakhis._tree import SUBTYPES
from histofeat.datasets.synthetic._cohort_folder import MANIFEST

SMALL = {"patients_per_subtype": 2, "images_per_slide": 1, "magnifications": (40,), "height": 40, "width": 56}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_breakhis_cohort(**SMALL, root=tmp_path_factory.mktemp("breakhis") / "cohort")


def test_tree_and_counts(made):
    assert (made.name, made.synthetic, made.target_names) == ("synthetic", True, ("benign-like", "malignant-like"))
    # Two numbers of each subtype, one of them with two sections.
    assert made.audit.patient_counts == {"number": 16, "full id": 24, "as published": 24}
    assert made.audit.class_counts == {"benign-like": 12, "malignant-like": 12}
    assert made.relative_paths[0] == (
        "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-900001/40X/SOB_B_A-14-900001-40-001.png"
    )
    assert made.frame["slide"].tolist()[:3] == ["900001", "900002AB", "900002CD"]
    assert made.audit.size_counts == {(40, 56): 24}
    assert made.audit.left_out == ()
    assert made.audit.full_set is None


def test_never_passes_for_breakhis_from_any_level(made):
    tops = ["", "BreaKHis_v1", "BreaKHis_v1/histology_slides", "BreaKHis_v1/histology_slides/breast"]
    for below in tops:
        dataset = load_breakhis(made.root / below, target="subtype")
        assert (dataset.name, dataset.synthetic, len(dataset)) == ("synthetic", True, 24)
        assert dataset.target_names == tuple(f"{subtype.word}-like" for subtype in SUBTYPES)


def test_mark_of_another_cohort_further_up_says_nothing(made, tmp_path):
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/BreaKHis_v1").symlink_to(made.root / "BreaKHis_v1")
    assert load_breakhis(tmp_path / "data").name == "BreakHis"


def test_same_arguments_same_bytes(made, tmp_path):
    again = make_breakhis_cohort(**SMALL, root=tmp_path / "again")
    digests = [json.loads((d.root / MANIFEST).read_text())["sha256"] for d in (made, again)]
    assert digests[0] == digests[1]
    other = make_breakhis_cohort(**SMALL, random_state=1, root=tmp_path / "other")
    assert json.loads((other.root / MANIFEST).read_text())["sha256"] != digests[0]


def test_found_again_and_never_overwritten(made):
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*")}
    assert make_breakhis_cohort(**SMALL, root=made.root).X.tolist() == made.X.tolist()
    assert {path: path.stat().st_mtime_ns for path in made.root.rglob("*")} == before
    with pytest.raises(DatasetError, match=r"expected the synthetic cohort .*'random_state': 5"):
        make_breakhis_cohort(**SMALL, random_state=5, root=made.root)


def test_magnifications_differ(tmp_path):
    dataset = make_breakhis_cohort(1, 1, root=tmp_path / "c", magnifications=(400, 40), height=40, width=56)
    assert dataset.audit.magnification_counts == {"40X": 16, "100X": 0, "200X": 0, "400X": 16}
    far, near = (
        np.stack([cv2.imread(path) for path in load_breakhis(dataset.root, power).X]).astype(float)
        for power in (40, 400)
    )
    # Enlarged structures are smoother: neighbouring pixels differ less.
    assert np.abs(np.diff(near, axis=2)).mean() < 0.8 * np.abs(np.diff(far, axis=2)).mean()


def test_slide_under_two_labels(tmp_path):
    dataset = make_breakhis_cohort(**SMALL, root=tmp_path / "c", two_labels=True)
    [(slide, words)] = dataset.audit.two_labels.items()
    assert words == ("ductal carcinoma-like", "lobular carcinoma-like")
    assert dataset.audit.patient_counts["as published"] == 25
    with pytest.raises(DatasetError, match=f"Slide {slide} lies under ductal carcinoma and lobular carcinoma"):
        load_breakhis(dataset.root)
    assert load_breakhis(dataset.root, duplicates="drop").audit.duplicates == 1


@pytest.mark.slow
def test_subtypes_can_be_learnt_from_other_patients(tmp_path):
    from histofeat import IDCPipeline

    cohort = make_breakhis_cohort(4, 2, root=tmp_path / "c", magnifications=(40,))
    dataset = load_breakhis(cohort.root, target="subtype")
    folds = PatientKFold(4).split(dataset.X, dataset.y, dataset.patients)
    pipeline = IDCPipeline(features=["lbp", "color"], head="logistic")
    accuracy = cross_val_score(pipeline, dataset.X, dataset.y, cv=list(folds)).mean()
    # Chance is one in eight; patients vary, so it is no certainty either.
    assert accuracy > 0.35


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("patients_per_subtype", 0, "patients_per_subtype: expected a whole number of at least 1, got 0"),
            ("images_per_slide", 1.5, "images_per_slide: expected a whole number of at least 1, got 1.5"),
            ("random_state", -1, "random_state: expected a whole number of at least 0, got -1"),
            ("height", 20, "height: expected a whole number of at least 32, got 20"),
            ("width", True, "width: expected a whole number of at least 32, got True"),
            ("magnifications", (), r"magnifications: expected one or more of 40, .*got \(\)"),
            ("magnifications", (40, 40), r"magnifications: expected .*each once, got \(40, 40\)"),
            ("magnifications", (50,), r"magnifications: expected .*got \(50,\)"),
            ("magnifications", "40X", "magnifications: expected .*got '40X'"),
            ("root", 5, "root: expected the path of a folder or None, got 5"),
        ],
    )
    def test_arguments(self, name, value, message):
        with pytest.raises(DatasetError, match=f"make_breakhis_cohort.{message}"):
            make_breakhis_cohort(**{name: value})

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "mine.txt").write_text("x")
        with pytest.raises(DatasetError, match=r"got other files such as 'mine.txt'"):
            make_breakhis_cohort(root=tmp_path)
