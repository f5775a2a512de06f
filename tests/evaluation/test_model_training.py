"""From a folder to a model: the right loader, an estimate on unseen patients, and a description that fits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histofeat import DatasetError, IDCPipeline, evaluate, make_cohort
from histofeat.datasets import (
    FullSet,
    _opening as opening,
    make_breakhis_cohort,
    make_signature_cohort,
    open_dataset,
    patch_size_of,
    training_part,
)
from histofeat.evaluation import make_pipeline, train_model
from histofeat.features import Runtime
from histofeat.model_selection import PatientKFold
from histofeat.networks import ENCODERS


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["8863/0/a.png"], "idc"),
        (["IDC_regular_ps50_idx5/8863/1/a.png"], "idc"),
        (["histology_slides/breast/benign/SOB/a.png"], "breakhis"),
        (["BreaKHis_v1/histology_slides/breast/x.png"], "breakhis"),
        (["breast/benign/x.png"], "breakhis"),
        (["benign/SOB/adenosis/x.png", "malignant/SOB/x.png"], "breakhis"),
        (["benign/x.png", "malignant/x.png"], "folder"),
        (["train/benign/x.png", "test/benign/x.png"], "folder"),
        (["0/x.png", "1/x.png"], "folder"),
        (["0/x.png", "features.h5"], "folder"),
        (["uni/a.h5", "uni/b.h5"], "embeddings"),
        (["uni/a.pt"], "embeddings"),
        (["uni.parquet"], "embeddings"),
        (["uni.npz"], "embeddings"),
        (["uni.h5ad"], "embeddings"),
    ],
)
def test_the_format_is_recognised_by_names(names, kind, tmp_path):
    root = touch(tmp_path, *names)
    assert opening.format_of(root if kind != "embeddings" else root / names[0].partition("/")[0]) == kind


def test_a_csv_of_features_is_embeddings_and_one_of_images_is_not(tmp_path):
    rows = {"path": ["a.png", "b.png"], "label": ["benign", "malignant"], "patient": [1, 2]}
    file, features = tmp_path / "mine.csv", {f"f{number}": [0.5, number] for number in range(4)}
    pd.DataFrame(rows | features).to_csv(file, index=False, sep=";")
    assert opening.format_of(file) == "embeddings"
    assert open_dataset(file).columns.shape == (2, 4)
    pd.DataFrame(rows | {"age": [50, 60], "x": 1, "y": 1, "height": 9, "width": 9}).to_csv(file, index=False)
    assert opening.format_of(file) == "csv"
    pd.DataFrame(rows | features).to_csv(file, index=False)
    (tmp_path / "a.png").touch()
    assert opening.format_of(file) == "csv"
    assert open_dataset(file, "embeddings").columns.shape == (2, 4)
    for content in (b"", b"path,label\n", b"\xff\xfe"):
        file.write_bytes(content)
        assert opening.format_of(file) == "csv"


def test_data_are_opened_by_their_loader(cohort, tmp_path):
    assert open_dataset(cohort.root).name == "synthetic"
    pd.DataFrame(
        {"path": cohort.X[:20], "label": np.array(["a", "b"])[cohort.y[:20]], "patient": cohort.patients[:20]}
    ).to_csv(tmp_path / "mine.csv", index=False)
    assert len(open_dataset(tmp_path / "mine.csv")) == 20
    folder = tmp_path / "classes"
    for path, label, patient in zip(cohort.X[:20], cohort.y[:20], cohort.patients[:20], strict=True):
        target = folder / ("train", "test")[patient == cohort.patients[19]] / ("benign", "malignant")[label]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{patient}_{len(list(target.iterdir()))}.png").symlink_to(path)
    dataset = open_dataset(folder, patients=r"^(\d+)_")
    assert dataset.target_names == ("benign", "malignant")
    part = training_part(dataset)
    assert set(part.frame["part"]) == {"train"}
    assert len(part) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "idx"}, "format: expected one of .* got 'idx'. Did you mean 'idc'"),
        ({"patients": r"(\d+)"}, "patients: expected none for data of the format 'idc'"),
        ({"magnification": 40}, "magnification: expected none for data of the format 'idc', got 40"),
    ],
)
def test_options_of_another_format_are_refused(settings, message, cohort):
    with pytest.raises(ValueError, match=message):
        open_dataset(cohort.root, **settings)


def test_no_data_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: expected a folder of images or a CSV file, found no such path"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="expected a folder of images or a CSV file, got another file"):
        open_dataset(tmp_path / "data.zip")
    with pytest.raises(DatasetError, match="expected a folder of images or a CSV file, got a folder without images"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="open_dataset: expected the path of a folder or a CSV file, got None"):
        open_dataset(None)


def test_patients_can_be_chosen(cohort, tmp_path):
    ids = tmp_path / "ids.txt"
    chosen = sorted(set(cohort.patients))[:3]
    ids.write_text("\n".join([*chosen, ""]))
    assert set(training_part(cohort, only=ids).patients) == set(chosen)
    ids.write_text("1\n")
    with pytest.raises(DatasetError, match=r"expected patients of synthetic, got '1'\. Correct the ids"):
        training_part(cohort, only=ids)
    ids.write_text("\n")
    with pytest.raises(DatasetError, match="expected the id of a patient in each line, got an empty file"):
        training_part(cohort, only=ids)
    with pytest.raises(DatasetError, match="only: expected a CSV file, got"):
        training_part(cohort, only=tmp_path)


def test_the_size_of_patches_is_that_of_most(cohort, monkeypatch):
    assert patch_size_of(cohort) == (50, 50)
    bare = type(cohort)(cohort.frame.drop(columns=["height", "width"]), cohort.target_names, "bare")
    monkeypatch.setattr(opening, "_SIZED", 7)
    assert patch_size_of(bare) == (50, 50)
    sizes = {"height": np.arange(len(cohort)), "width": 50}
    assert patch_size_of(type(cohort)(cohort.frame.assign(**sizes), cohort.target_names, "mixed")) is None


def test_pipelines_are_made_of_names():
    assert make_pipeline().features == ("color", "lbp", "haralick")
    assert make_pipeline(["color"], "svm", random_state=3, class_weight="balanced").get_params()["random_state"] == 3
    network = make_pipeline(head="cancernet", network={"epochs": 2})
    assert (network.takes_pixels, network.head_params) == (True, {"epochs": 2})
    with pytest.raises(ValueError, match="epochs: expected none for the head 'svm'"):
        make_pipeline(head="svm", network={"epochs": 2})
    with pytest.raises(ValueError, match="class_weight: expected one of balanced, got 'x'"):
        make_pipeline(["color"], class_weight="x")
    with pytest.raises(ValueError, match=r"head: expected a head or a network, got 'xgb'. Did you mean 'xgboost'?"):
        make_pipeline(head="xgb")
    with pytest.raises(ValueError, match=r"expected a network for features 'pixels', got 'svm'. Known .*cancernet"):
        make_pipeline(["pixels"], "svm")
    with pytest.raises(ValueError, match="expected the name of a feature family, got 'colour'"):
        make_pipeline(["colour"])
    with pytest.raises(ValueError, match=r"expected the name of a head, got 'xgbost'. Did you mean 'xgboost'"):
        make_pipeline(["color"], "xgbost")


def test_a_model_knows_what_it_learnt_from(cohort):
    told = []
    pipeline = IDCPipeline("color", "logistic")
    model = train_model(
        cohort, pipeline, folds=3, n_resamples=50, runtime=Runtime(progress=lambda *at: told.append(at))
    )
    direct = IDCPipeline("color", "logistic").fit(cohort.X, cohort.y, groups=cohort.patients)
    assert (model.pipeline.predict_proba(cohort.X) == direct.predict_proba(cohort.X)).all()
    assert model.pipeline.store is None
    assert model.pipeline.features_.store is None
    about = model.about
    assert about["class_names"] == list(cohort.target_names)
    assert (about["n_images"], about["n_patients"], about["patch_size"]) == (180, 15, [50, 50])
    assert about["class_counts"] == {
        name: int((cohort.y == code).sum()) for code, name in enumerate(cohort.target_names)
    }
    folds = {"cv": PatientKFold(3), "inner_cv": PatientKFold(3), "n_resamples": 50}
    expected = evaluate(cohort, pipeline, **folds).models[0].scores
    scores = dict(about["estimate"]["scores"])
    assert scores.pop("patient_rate")["value"] == pytest.approx(expected["accuracy"].patient_mean)
    assert scores.pop("image_rate")["value"] == pytest.approx(expected["accuracy"].value)
    for metric, score in scores.items():
        assert score["value"] == pytest.approx(expected[metric].value, nan_ok=True)
        assert score["ci95"] == pytest.approx(list(expected[metric].ci95))
    assert told[-1] == ("final fit", 1, 1)
    assert about["completeness"] is None
    audit = replace(cohort.audit, full_set=FullSet(277_524, 279, {}))
    about = train_model(replace(cohort, audit=audit), pipeline, folds=None).about
    assert (about["estimate"], about["random_state"]) == (None, pipeline.random_state)
    assert about["completeness"].startswith("incomplete: 180 of 277,524 patches")


@pytest.mark.slow
def test_the_estimate_is_of_unseen_patients(tmp_path):
    """Patients wear a signature that gives their labels away: seen patients look brilliant, unseen ones do not."""
    cohort = make_signature_cohort(n_patients=12, patches_per_patient=8, random_state=0, root=tmp_path / "tree")
    pipeline = IDCPipeline("color", "random_forest", head_params={"n_estimators": 50})
    model = train_model(cohort, pipeline, folds=4, n_resamples=20)
    seen = (model.pipeline.predict(cohort.X) == cohort.y).mean()
    assert seen > 0.95
    assert model.about["estimate"]["scores"]["accuracy"]["value"] < 0.8


def test_too_few_patients_give_no_estimate_and_say_so(cohort):
    few = cohort.subset(np.isin(cohort.patients, sorted(set(cohort.patients))[:2]))
    found = train_model(few, IDCPipeline("color", "logistic"), folds=5).about["estimate"]
    assert (found["n_folds"], found["scores"]) == (0, {})
    assert "too few patients to hold some out" in found["protocol"]


def test_an_estimate_of_few_patients_carries_a_caution():
    cohort = make_cohort(n_patients=6, patches_per_patient=8)
    found = train_model(cohort, IDCPipeline("color", "logistic"), folds=2, n_resamples=20).about["estimate"]
    assert "Only 6 tested patients" in found["protocol"]


def test_magnifications_are_pooled_only_if_told(tmp_path):
    settings = {"patients_per_subtype": 1, "images_per_slide": 1, "magnifications": (40, 100)}
    root = make_breakhis_cohort(root=tmp_path / "tree", **settings).root
    with pytest.raises(DatasetError, match="magnification: expected 40, 100, 200 or 400, got none for images of sev"):
        open_dataset(root)
    assert sorted(set(open_dataset(root, magnification="all").frame["magnification"])) == [40, 100]
    assert set(open_dataset(root, magnification="40").frame["magnification"]) == {40}
    with pytest.raises(ValueError, match="magnification: expected none for data of the format 'csv', got 'all'"):
        open_dataset(tmp_path / "mine.csv", "csv", magnification="all")


def test_parameters_of_encoders_and_networks_go_where_they_belong():
    pipeline = make_pipeline(["color", "cnn"], feature_params={"cnn__encoder": "resnet50"})
    assert pipeline.get_params()["features__cnn__encoder"] == "resnet50"
    network = make_pipeline(head="cancernet", network={"weights": None, "input_size": 64})
    assert network.head_params == {"input_size": 64}
    with pytest.raises(ValueError, match="encoder: expected none for the head 'xgboost' on color, got 'resnet50'"):
        make_pipeline(["color"], feature_params={"cnn__encoder": "resnet50"})
    with pytest.raises(ValueError, match="checkpoint: expected none for the head 'xgboost' on color, got 'here'"):
        make_pipeline(["color"], network={"weights": None, "checkpoint": "here"})


def test_an_encoder_that_learnt_at_another_scale_is_named(cohort):
    pipeline = IDCPipeline(("color", "histo"), "logistic")
    named = r"The encoder 'histo' learnt at 2\.08 micrometres per pixel and sees 0\.26 here: "
    with pytest.warns(UserWarning, match=named):
        train_model(replace(cohort, mpp=0.5), pipeline, folds=None)
    for silent in (replace(cohort, mpp=3.5), replace(cohort, mpp=4.0), replace(cohort, mpp=None)):
        model = train_model(silent, pipeline, folds=None, stain="IHC")
        assert (model.mpp, model.about["stain"]) == (silent.mpp, "IHC")
    assert [ENCODERS[name].mpp for name in ("histo", "uni", "h-optimus-0", "mobilenetv2")] == [2.08, 0.5, 0.5, None]
    with pytest.raises(ValueError, match=r"train_model\.stain: expected one of H&E, IHC, special, got 'he'"):
        train_model(cohort, pipeline, folds=None, stain="he")


def test_a_comparison_notes_an_encoder_that_learnt_at_another_scale(cohort):
    few = replace(cohort.subset(np.isin(cohort.patients, sorted(set(cohort.patients))[:8])), mpp=0.5)
    settings = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 0}
    found = evaluate(few, {"a": IDCPipeline("histo", "logistic"), "b": IDCPipeline("color", "logistic")}, **settings)
    noted = [any("learnt at 2.08 micrometres" in note for note in model.notes) for model in found.models]
    assert noted == [True, False]
