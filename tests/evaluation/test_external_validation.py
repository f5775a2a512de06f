"""A saved model on the patients of other data: who is refused, what is warned about, and the scores."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from histofeat import GroupLeakageError, IDCPipeline, PatchError, cli, make_cohort
from histofeat.datasets import make_breakhis_cohort, open_dataset
from histofeat.evaluation import evaluate_model, evaluate_predictions, train_model
from histofeat.features import HistoEmbedding, ImageFingerprint, TrainingImages
from histofeat.models import SavedModel, predict_images, save_model

FEW = {"n_resamples": 20}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Data of ten patients to learn from, and of six others."""
    root = tmp_path_factory.mktemp("cohort")
    cohort = make_cohort(n_patients=16, patches_per_patient=8, root=root / "tree")
    seen = np.isin(cohort.patients, sorted(set(cohort.patients))[:10])
    return cohort.subset(seen), cohort.subset(~seen), cohort


@pytest.fixture(scope="module")
def model(parts):
    return train_model(parts[0], IDCPipeline("color", "logistic"), folds=2, n_resamples=0, threshold="youden")


def test_scores_are_those_of_its_predictions_and_threshold(model, parts):
    other = parts[1]
    found = evaluate_model(model, other, **FEW)
    proba = predict_images(model, other.X).proba
    expected = evaluate_predictions(other.frame[["path"]].assign(score=proba[:, 1]), other, **FEW).models[0]
    for name, score in found.models[0].scores.items():
        assert score.value == pytest.approx(expected.scores[name].value)
        assert score.ci95 == pytest.approx(expected.scores[name].ci95, nan_ok=True)
    called = proba[:, 1] >= model.decision["value"]
    assert (found.models[0].predicted_tuned == called).all()
    assert found.models[0].tuned["sensitivity"].value == pytest.approx(called[other.y == 1].mean())
    assert found.models[0].thresholds == (pytest.approx(model.decision["value"]),)
    assert found.calibration[0].raw.values["brier"] == pytest.approx(np.mean((proba[:, 1] - other.y) ** 2))


def test_the_order_of_the_classes_does_not_matter(model, parts):
    turned = parts[1].with_classes(parts[1].target_names[::-1])
    values = [evaluate_model(model, data, **FEW).models[0].tuned["f1"].value for data in (parts[1], turned)]
    assert values[0] == values[1]


def test_other_classes_are_refused(model, parts):
    other = parts[1].with_classes({"no tumour": "no tumour", "tumour": "IDC"})
    with pytest.raises(ValueError, match="evaluate_model: expected the classes no tumour, tumour, got no tumour, IDC"):
        evaluate_model(model, other)
    with pytest.raises(ValueError, match="known_patients: expected one of refuse, leave_out, by_pixels, got 'keep'"):
        evaluate_model(model, parts[1], known_patients="keep")


def test_known_patients_are_refused_or_left_out_by_id(model, parts):
    seen, other, whole = parts
    with pytest.raises(GroupLeakageError, match="patients that the model has not seen, got 10 of 16 that it was"):
        evaluate_model(model, whole)
    with pytest.warns(UserWarning, match="10 patients of the training are left out"):
        found = evaluate_model(model, whole, known_patients="leave_out", **FEW)
    assert sorted(found.dataset.X) == sorted(other.X)
    with pytest.raises(GroupLeakageError, match=r"got 10 of 10 that it was trained on, .*\. Name other data"):
        evaluate_model(model, seen, known_patients="leave_out")


def test_patients_that_its_encoder_knows_are_refused_or_left_out(parts, monkeypatch):
    """Patients of another part of a public set, on which the encoder was trained and the model was not."""
    seen, other, _ = parts
    prints = ImageFingerprint().transform(other.X)[other.patients == other.patients[0]]
    record = TrainingImages.of("theirs", prints)
    monkeypatch.setattr(HistoEmbedding, "trained_on", lambda _: record)
    model = train_model(seen, IDCPipeline("histo", "logistic"), folds=None)
    with pytest.raises(GroupLeakageError, match="patients that the model has not seen, got 1 of 6 that it was trained"):
        evaluate_model(model, other)
    with pytest.warns(UserWarning, match="1 patient of the training is left out"):
        found = evaluate_model(model, other, known_patients="leave_out", **FEW)
    assert set(found.dataset.patients) == set(other.patients[1:]) - {other.patients[0]}


def test_known_patients_are_found_by_pixels_under_other_ids(model, parts):
    _, other, whole = parts
    renamed = replace(whole, frame=whole.frame.assign(patient=[f"new {each}" for each in whole.patients]), audit=None)
    with pytest.raises(GroupLeakageError, match="got 10 of 16 that it was trained on, such as 'new 9"):
        evaluate_model(model, renamed)
    with pytest.warns(UserWarning, match="10 patients of the training are left out"):
        found = evaluate_model(model, renamed, known_patients="leave_out", **FEW)
    assert len(found.dataset) == len(other)
    # An id that another hospital has given to somebody else means nothing.
    ids = dict(zip(sorted(set(other.patients)), sorted(set(whole.patients)), strict=False))
    taken = replace(other, frame=other.frame.assign(patient=[ids[each] for each in other.patients]), audit=None)
    assert len(evaluate_model(model, taken, known_patients="by_pixels", **FEW).dataset) == len(other)
    with pytest.raises(GroupLeakageError, match="got 10 of 16"):
        evaluate_model(model, renamed, known_patients="by_pixels")


def test_another_scale_size_and_shape_are_warned_about(tmp_path):
    settings = {"patients_per_subtype": 2, "images_per_slide": 2, "magnifications": (40, 100)}
    root = make_breakhis_cohort(root=tmp_path / "tree", **settings).root
    near, far = (open_dataset(root, magnification=power) for power in (40, 100))
    model = train_model(near, IDCPipeline("color", "logistic"), folds=None)
    height, width = model.patch_size
    assert (near.mpp, far.mpp, model.mpp) == (0.49, 0.2, 0.49)
    with pytest.raises(
        PatchError, match=r"at least half of a patch of .* at 0\.49 micrometres per pixel, got .* by 0\.408"
    ):
        evaluate_model(model, far, known_patients="by_pixels", **FEW)
    squeezed = replace(far, frame=far.frame.assign(height=height, width=height))
    model.pipeline.rails_.quantiles_ = model.pipeline.rails_.quantiles_ * 1e-6
    expected = ["expected images of 0.49 micrometres per pixel, as in the training, got 0.2: rescaled."]
    expected += [
        f"expected images of {height} x {width} px, as in the training, got {height} x {height} px, of another shape: "
        "they were squeezed or cut."
    ]
    unlike = "100% of the images are farther from the training images than 99% of those are."
    for data, sentence in zip((far, replace(squeezed, frame=squeezed.frame.assign(mpp=0.49))), expected, strict=True):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            evaluate_model(model, data, known_patients="by_pixels", policy="pad", **FEW)
        assert [str(each.message).partition(": ")[2] for each in told] == [sentence, unlike]


def test_the_command_evaluates_patients_outside_the_training(model, parts, tmp_path, capsys):
    _, other, whole = parts
    file = save_model(model, tmp_path / "m.histofeat")
    (tmp_path / "ids.txt").write_text("\n".join(sorted(set(other.patients))))
    words = ["evaluate", str(file), str(whole.root), "--resamples", "20", "--quiet"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("histofeat: evaluate: expected patients that the model has not seen")
    assert "Leave them out by --known-patients 'leave_out'" in said
    output = tmp_path / "scores.json"
    assert cli.main([*words, "--only", str(tmp_path / "ids.txt"), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    found = evaluate_model(model, other, **FEW)
    assert f"{found.models[0].scores['roc_auc'].value:.4f}" in printed
    assert f"{found.models[0].tuned['sensitivity'].value:.4f}" in printed
    assert "calibration error" in printed
    assert json.loads(output.read_text())["data"] == whole.name
    assert printed.startswith(f"{whole.name}: ")
    assert cli.main(["evaluate", str(file), str(whole.root), "--output", str(output)]) == 2
    assert "scores.json: expected a new file" in capsys.readouterr().err


def test_score_reads_what_predict_writes(model, parts, tmp_path, capsys):
    _, other, _ = parts
    file = save_model(model, tmp_path / "m.histofeat")
    words = ["predict", str(file), str(other.root), "--patients", "model", "-o", str(tmp_path / "p.json"), "--quiet"]
    assert cli.main(words) == 0
    (tmp_path / "truth.csv").write_text(
        "path,label\n" + "\n".join(f"{path},{other.target_names[y]}" for path, y in zip(other.X, other.y, strict=True))
    )
    capsys.readouterr()
    assert (
        cli.main(["score", str(tmp_path / "p.json"), "--truth", str(tmp_path / "truth.csv"), "--resamples", "20"]) == 0
    )
    printed = capsys.readouterr().out
    found = evaluate_model(model, other, **FEW).models[0]
    assert f"{found.scores['roc_auc'].value:.4f}" in printed
    assert f"{found.tuned['f1'].value:.4f}" in printed


def test_the_positive_class_is_that_of_the_model(model, parts):
    turned = SavedModel(model.pipeline, {**model.about, "positive": "no tumour"})
    found = evaluate_model(turned, parts[1], **FEW)
    assert found.dataset.positive == "no tumour"
    no_tumour = parts[1].target_names.index("no tumour")
    called = found.models[0].predicted_tuned == no_tumour
    score = predict_images(turned, parts[1].X).proba[:, no_tumour]
    assert (called == (score >= model.decision["value"])).all()
    for data, positive in ((parts[1], "tumour"), (parts[1].with_classes(None, "no tumour"), None)):
        one = turned if positive else model
        with pytest.raises(ValueError, match="the class that the threshold of the model is for"):
            evaluate_model(one, data, positive=positive)
    free = SavedModel(model.pipeline, {k: v for k, v in model.about.items() if k != "threshold"})
    assert evaluate_model(free, parts[1], positive="no tumour", **FEW).dataset.positive == "no tumour"


def test_training_patients_in_another_spelling_are_warned_about(model, parts):
    _, other, whole = parts
    first = sorted(set(whole.patients))[0]
    ids = [f"0{first}" if each == other.patients[0] else each for each in other.patients]
    near = replace(other, frame=other.frame.assign(patient=ids), audit=None)
    with pytest.warns(UserWarning, match=f"only in case, zeros or dashes: '0{first}' and '{first}'"):
        evaluate_model(model, near, **FEW)
