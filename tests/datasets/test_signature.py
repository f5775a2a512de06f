"""The cohort of planted signatures: pictures that know nothing of labels, labels that know nothing of pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from histofeat.datasets import load_idc, make_cohort, make_signature_cohort
from histofeat.datasets.synthetic import _cohorts as cohorts
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.datasets.synthetic._cohorts import SIGNATURE_VERSION, draw_signature_cohort
from histofeat.exceptions import DatasetError
from histofeat.features import ColorHistogram
from histofeat.studies import identify_patients

SMALL = {"n_patients": 4, "patches_per_patient": 6, "random_state": 5}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("signature") / "new" / "tree"
    make_signature_cohort(root, **SMALL)
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tree")


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# --- what is drawn ---------------------------------------------------------------------------------------------------


def test_it_is_a_tree_of_idc_names_that_loads(written):
    for dataset in (make_signature_cohort(written, **SMALL), load_idc(written)):
        assert (dataset.name, dataset.synthetic, len(dataset)) == ("synthetic", True, 24)
        assert sorted(set(dataset.patients)) == ["950001", "950002", "950003", "950004"]
        assert (dataset.frame[["x", "y"]] % 50 == 1).all(axis=None)
        assert (dataset.frame[["height", "width"]] == 50).all(axis=None)
        assert dataset.audit.left_out == ()


def test_same_seed_same_bytes_and_another_seed_other_bytes(written, tmp_path):
    make_signature_cohort(tmp_path / "again", **SMALL)
    assert content(tmp_path / "again") == content(written)
    other = dict(draw_signature_cohort(4, 6, 6))
    assert not set(other.values()) & set(content(written).values())


def test_half_of_the_patients_are_positive_and_few_patches_differ():
    labels = cohorts._draw_labels(200, 50, np.random.default_rng(0))
    shares = labels.mean(axis=1)
    assert np.sum(shares > 0.5) == 100
    assert 0.015 < np.minimum(shares, 1 - shares).mean() < 0.025
    assert np.minimum(shares, 1 - shares).max() < 0.15


def test_pictures_know_nothing_of_labels(written, monkeypatch):
    def turned(*arguments):
        return 1 - draw(*arguments)

    draw = cohorts._draw_labels
    monkeypatch.setattr(cohorts, "_draw_labels", turned)
    found = dict(draw_signature_cohort(4, 6, 5))
    before = {name: data for name, data in content(written).items() if name != MANIFEST}
    assert not set(found) & set(before)
    places = {name.split("_idx5_")[1].split("_class")[0] + name.partition("/")[0]: data for name, data in found.items()}
    assert len(places) == 24
    for name, data in before.items():
        assert places[name.split("_idx5_")[1].split("_class")[0] + name.partition("/")[0]] == data


def test_every_patient_has_a_signature_of_its_own(tmp_path):
    dataset = make_signature_cohort(tmp_path / "tree", n_patients=15, patches_per_patient=10)
    found = identify_patients(ColorHistogram().transform(dataset.X), dataset.patients, n_resamples=0)
    assert found.accuracy > 0.9


def test_without_root_in_a_folder_of_its_own():
    dataset = make_signature_cohort(n_patients=2, patches_per_patient=4)
    try:
        assert dataset.root.name.startswith("histofeat-synthetic-")
    finally:
        shutil.rmtree(dataset.root)


# --- what is reused, and what is refused -----------------------------------------------------------------------------


def test_the_second_call_writes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make_signature_cohort(root, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_neither_cohort_is_taken_for_the_other(root, tmp_path):
    with pytest.raises(DatasetError, match=f"got .*'version': '{SIGNATURE_VERSION}'"):
        make_cohort(**SMALL, root=root)
    make_cohort(**SMALL, root=tmp_path / "plain")
    with pytest.raises(DatasetError, match=f"expected .*'version': '{SIGNATURE_VERSION}'.*, got .*'version': 1"):
        make_signature_cohort(tmp_path / "plain", **SMALL)


def test_a_changed_cohort_is_refused(root):
    first = min(root.rglob("*.png"))
    first.write_bytes(first.read_bytes() + b"x")
    with pytest.raises(DatasetError, match="a patch was changed, added or removed"):
        make_signature_cohort(root, **SMALL)


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DatasetError, match=r"got other files such as 'thesis.tex'"):
        make_signature_cohort(tmp_path, **SMALL)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(DatasetError, match="expected a place that can be written, got "):
        make_signature_cohort(tmp_path / "a" / "b", **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patients": 1}, "n_patients: expected a whole number of at least 2, got 1"),
        ({"n_patients": 2.0}, r"n_patients: expected a whole number of at least 2, got 2\.0"),
        ({"patches_per_patient": 3}, "patches_per_patient: expected a whole number of at least 4, got 3"),
        ({"random_state": True}, "random_state: expected a whole number of at least 0, got True"),
        ({"root": 7}, "root: expected the path of a folder or None, got 7"),
        ({"root": ""}, "root: expected the path of a folder or None, got ''"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(DatasetError, match=rf"make_signature_cohort\.{message}"):
        make_signature_cohort(**arguments)
