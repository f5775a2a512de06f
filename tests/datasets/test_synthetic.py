import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from histofeat.datasets import make_breakhis_cohort, make_cohort, make_signature_cohort
from histofeat.datasets.synthetic import _cohort_folder as cohort_folder
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.datasets.synthetic._cohorts import COHORT_VERSION, draw_cohort
from histofeat.datasets.synthetic._slide_model import draw_style, plan_slide, render_slide, smooth_field
from histofeat.exceptions import DatasetError

SMALL = {"n_patients": 3, "patches_per_patient": 8, "random_state": 5}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort") / "new" / "tree"
    make_cohort(**SMALL, root=root)
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tree")


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """The cohort as a user gets it without an argument."""
    return make_cohort(root=tmp_path_factory.mktemp("default"))


def content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestCohort:
    def test_is_a_tree_of_idc_names(self, written):
        dataset = make_cohort(**SMALL, root=written)
        assert (dataset.name, dataset.synthetic, dataset.root) == ("synthetic", True, written)
        assert len(dataset) == 24
        assert dataset.audit.n_patients == 3
        assert set(dataset.patients) == {"900001", "900002", "900003"}
        assert (dataset.frame[["x", "y"]] % 50 == 1).all(axis=None)
        assert dataset.audit.left_out == ()
        assert dataset.audit.completeness == "not applicable: no full set is known"
        assert "tree" not in dataset.relative_paths[0]

    def test_same_seed_same_bytes(self, written, tmp_path):
        make_cohort(**SMALL, root=tmp_path / "again")
        assert content(tmp_path / "again") == content(written)

    def test_other_seed_other_bytes(self):
        first, second = (dict(draw_cohort(2, 4, seed)) for seed in (0, 1))
        assert not set(first.values()) & set(second.values())

    def test_without_root_in_a_folder_of_its_own(self):
        first = make_cohort(n_patients=1, patches_per_patient=4)
        second = make_cohort(n_patients=1, patches_per_patient=4)
        try:
            assert first.root != second.root
            assert first.root.name.startswith("histofeat-synthetic-")
            assert content(first.root) == content(second.root)
            assert make_cohort(n_patients=1, patches_per_patient=4, root=first.root).X.tolist() == first.X.tolist()
        finally:
            shutil.rmtree(first.root)
            shutil.rmtree(second.root)

    def test_default_has_what_the_real_data_has(self, default):
        audit = default.audit
        assert (audit.n_patches, audit.n_patients) == (2400, 40)
        assert len(audit.patients_without["tumour"]) == 2
        assert audit.patients_without["no tumour"] == ()
        assert 0.2 < np.mean(default.y) < 0.4
        assert 10 < audit.n_smaller < 120
        assert min(min(size) for size in audit.size_counts) < 20
        means = np.array([cv2.imread(path, cv2.IMREAD_GRAYSCALE).mean() for path in default.X])
        # Bare glass: a few, all of them negative.
        assert 3 <= np.sum(means > 235) <= 60
        assert np.mean(default.y[means > 235]) < 0.2

    def test_five_folds_can_hold_both_classes(self, default):
        positive = {p for p, label in zip(default.patients, default.y, strict=True) if label}
        assert len(positive) == 38

    def test_task_is_learnable_across_patients_but_not_trivial(self, default):
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

        def colours(path):
            image = cv2.imread(path)
            counts = [np.histogram(image[..., c], 12, (0, 256))[0] / image[..., c].size for c in range(3)]
            return np.concatenate([*counts, image.std(axis=(0, 1))])

        default = default.subset(np.arange(0, len(default), 2))
        features = np.array([colours(path) for path in default.X])
        scores = cross_val_predict(
            LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.05),
            features,
            default.y,
            groups=default.patients,
            cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
            method="predict_proba",
        )
        assert 0.80 < roc_auc_score(default.y, scores[:, 1]) < 0.96


class TestReuse:
    def test_second_call_writes_nothing(self, root):
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        make_cohort(**SMALL, root=root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    def test_empty_folder_is_taken(self, tmp_path):
        assert len(make_cohort(n_patients=1, patches_per_patient=4, root=str(tmp_path))) == 4

    @pytest.mark.parametrize("make", [make_cohort, make_signature_cohort])
    def test_attempt_cut_short_leaves_nothing(self, tmp_path, make, monkeypatch):
        def fail(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(cohort_folder, "write_manifest", fail)
        with pytest.raises(KeyboardInterrupt):
            make(n_patients=2, patches_per_patient=4, root=tmp_path / "tree")
        assert list(tmp_path.iterdir()) == []

    def test_link_to_an_empty_folder_is_followed(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert len(make_cohort(n_patients=1, patches_per_patient=4, root=tmp_path / "link")) == 4
        assert (tmp_path / "real" / MANIFEST).is_file()
        assert (tmp_path / "link").is_symlink()

    def test_traces_of_a_file_browser_are_no_change(self, root):
        (root / ".DS_Store").write_bytes(b"x")
        assert len(make_cohort(**SMALL, root=root)) == 24


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_patients": 0}, "n_patients: expected a whole number of at least 1, got 0"),
            ({"n_patients": 2.0}, "n_patients: expected a whole number of at least 1, got 2.0"),
            ({"n_patients": True}, "n_patients: expected a whole number of at least 1, got True"),
            ({"patches_per_patient": 3}, "patches_per_patient: expected a whole number of at least 4, got 3"),
            ({"random_state": -1}, "random_state: expected a whole number of at least 0, got -1"),
            ({"random_state": None}, "random_state: expected a whole number of at least 0, got None"),
            ({"root": 7}, "root: expected the path of a folder or None, got 7"),
            ({"root": ""}, "root: expected the path of a folder or None, got ''"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(DatasetError, match=f"make_cohort.{message}"):
            make_cohort(**arguments)

    def test_file(self, tmp_path):
        (tmp_path / "a").write_text("x")
        with pytest.raises(DatasetError, match="expected a folder for the synthetic cohort, got a file"):
            make_cohort(**SMALL, root=tmp_path / "a")

    def test_folder_below_a_file(self, tmp_path):
        (tmp_path / "a").write_text("x")
        with pytest.raises(DatasetError, match="expected a place that can be written, got "):
            make_cohort(n_patients=1, patches_per_patient=4, root=tmp_path / "a" / "b")

    @pytest.mark.parametrize("name", ["thesis.tex", MANIFEST])
    def test_other_files(self, tmp_path, name):
        (tmp_path / name).write_text("[1]")
        with pytest.raises(DatasetError, match=f"got other files such as '{name}'"):
            make_cohort(**SMALL, root=tmp_path)
        assert (tmp_path / name).read_text() == "[1]"

    def test_other_cohort(self, root, written):
        with pytest.raises(DatasetError, match=r"expected the synthetic cohort .*'random_state': 6.*, got .*: 5"):
            make_cohort(**{**SMALL, "random_state": 6}, root=root)
        assert content(root) == content(written)

    def test_other_version(self, root):
        manifest = json.loads((root / MANIFEST).read_text())
        (root / MANIFEST).write_text(json.dumps({**manifest, "version": COHORT_VERSION + 1}))
        with pytest.raises(DatasetError, match=f"got .*'version': {COHORT_VERSION + 1}"):
            make_cohort(**SMALL, root=root)

    @pytest.mark.parametrize("change", ["changed", "added", "removed"])
    def test_changed_cohort(self, root, change):
        first = min(root.rglob("*.png"))
        if change == "changed":
            first.write_bytes(first.read_bytes() + b"x")
        elif change == "added":
            (first.parent / "more.png").write_bytes(b"x")
        else:
            first.unlink()
        with pytest.raises(DatasetError, match="a patch was changed, added or removed"):
            make_cohort(**SMALL, root=root)


@pytest.mark.skipif(
    (np.__version__, cv2.__version__, platform.machine()) != ("2.4.6", "5.0.0", "x86_64"),
    reason="the last bit of a colour depends on the versions of NumPy and OpenCV and on the processor",
)
@pytest.mark.parametrize(
    ("make", "arguments", "digest"),
    [
        (make_cohort, (4, 12, 3), "fc6dc90dbc49eb4342cf83dd05056eb269eb5569c145ac0e5e3cb1eb8d6e150c"),
        (make_cohort, (1, 30, 0), "f3dbd364905fdd8ecd56764b178d219495e7a1545dd31b4c4895a5811037ed67"),
        (make_signature_cohort, (None, 4, 6, 1), "3662fc55799a46582f6b9ea380daaf602e7a7d8a26f933c24639df2a2ede9a0a"),
        (make_breakhis_cohort, (1, 1, 2), "51f549807dfc877e435dffff215d05e19f8d534977d26383f46c528171fbbe4a"),
    ],
)
def test_same_bytes_as_ever(make, arguments, digest):
    """A change of these needs a new version of the cohort, so that folders written before are refused."""
    folder = make(*arguments).root
    try:
        assert cohort_folder.read_manifest(folder)["sha256"] == digest
    finally:
        shutil.rmtree(folder)


class TestSlide:
    def test_plan(self):
        plan = plan_slide(20, 7, np.random.default_rng(0), odd=True, blank=True)
        assert plan.labels.sum() == 7
        assert len(set(zip(plan.columns, plan.rows, strict=True))) == 20
        width = plan.tissue.shape[1]
        assert width % 50
        assert plan.columns.max() == width // 50
        assert 0 <= plan.tumour.min() <= plan.tumour.max() <= 1

    def test_plan_without_tumour(self):
        plan = plan_slide(20, 0, np.random.default_rng(0), odd=False, blank=False)
        assert plan.labels.sum() == 0
        assert plan.tumour.max() == 0

    def test_tumour_is_darker_and_bluer(self):
        rng = np.random.default_rng(3)
        plan = plan_slide(60, 25, rng, odd=False, blank=False)
        slide = render_slide(plan.tissue, plan.tumour, draw_style(rng), rng)
        assert slide.dtype == np.uint8
        assert slide.shape == (*plan.tissue.shape, 3)
        inside, outside = slide[plan.tumour > 0.9].mean(0), slide[(plan.tumour < 0.1) & (plan.tissue > 0.9)].mean(0)
        assert inside[0] < outside[0]
        assert inside[2] - inside[0] > outside[2] - outside[0]
        assert slide[plan.tissue == 0].mean() > 235

    def test_stain_is_a_unit_vector_of_the_patient(self):
        first, second = (draw_style(np.random.default_rng(seed)) for seed in (0, 1))
        assert np.linalg.norm(first.eosin_od) == pytest.approx(1)
        assert not np.allclose(first.hematoxylin_od, second.hematoxylin_od)

    @pytest.mark.parametrize(("shape", "scale_px"), [((7, 300), 90), ((300, 7), 4.0), ((1, 1), 30)])
    def test_field_has_the_shape_asked_for(self, shape, scale_px):
        field = smooth_field(shape, scale_px, np.random.default_rng(0))
        assert field.shape == shape
        assert np.isfinite(field).all()


def test_import_of_the_package_does_not_import_opencv():
    code = "import sys, histofeat.datasets; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_that_nobody_named_goes_when_the_process_ends_and_not_with_a_fork():
    lines = """
import os, sys
from histofeat import make_cohort
root = make_cohort(4, 4).root
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
assert root.is_dir()
print(root)
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name.startswith("histofeat-synthetic-")
    assert not Path(done.stdout.strip()).exists()
