"""`histofeat train` and `histofeat predict`: from labelled images to a table of scores, in words a person types."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histofeat import cli, load_model, models
from histofeat.cli import _prediction as prediction
from histofeat.datasets import _image_files, list_images, load_idc, make_breakhis_cohort, probability_columns
from histofeat.evaluation import load_evaluation
from histofeat.exceptions import DatasetError
from histofeat.models import SavedModel, predict_images, save_model


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """A model file, made by the command."""
    path = tmp_path_factory.mktemp("models") / "model.histofeat"
    words = ["train", str(cohort.root), "-o", str(path), "--features", "color", "--head", "logistic", "--folds", "3"]
    assert cli.main([*words, "--quiet"]) == 0
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_writes_a_model_and_prints_its_estimate(cohort, tmp_path, capsys):
    path = tmp_path / "model.histofeat"
    words = ["train", str(cohort.root), "-o", str(path), "--features", "color", "--head", "logistic", "--folds", "3"]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    model = load_model(path)
    assert "180 images of 50 x 50 px, 15 patients of synthetic" in printed.out
    assert printed.out.splitlines()[0].endswith("; classes no tumour, tumour; positive class: tumour")
    score = model.about["estimate"]["scores"]["roc_auc"]
    row = f"ROC-AUC {score['value']:.4f} {score['ci95'][0]:.4f} to {score['ci95'][1]:.4f}"
    assert row in [" ".join(line.split()) for line in printed.out.splitlines()]
    assert "fit: 3 of 3" in printed.err
    assert "15 patients" in printed.err
    before = path.read_bytes()
    assert cli.main(words) == 2
    assert "expected a new file, got one that exists" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.main([*words, "--overwrite", "--no-estimate", "--quiet", "--seed", "1"]) == 0
    printed = capsys.readouterr()
    assert "the scores of the model on other patients are not known" in printed.out
    assert printed.err == ""
    assert load_model(path).about["estimate"] is None


def test_predict_a_folder_by_patient(trained, cohort, tmp_path, capsys):
    folder, output = cohort.root / cohort.patients[0], tmp_path / "scores.csv"
    words = ["predict", str(trained), str(folder), "-o", str(output), "--patients", r"(\d+)_idx5"]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"{trained.name}: classes no tumour, tumour; positive class: tumour"
    expected = predict_images(load_model(trained), list_images(folder).paths)
    rows = rows_of(output)
    assert [row["path"] for row in rows] == list(expected.images)
    assert [row["label"] for row in rows] == list(expected.labels)
    names = load_model(trained).class_names
    found = np.array([[float(row[name]) for name in probability_columns(names)] for row in rows])
    assert np.abs(found - expected.proba).max() < 1e-6
    (patient,) = rows_of(tmp_path / "scores_patients.csv")
    assert patient["patient"] == cohort.patients[0]
    assert float(patient["mean_tumour"]) == pytest.approx(expected.proba[:, 1].mean(), abs=1e-6)
    assert "predict: 12 of 12" in printed.err
    assert cli.main(words) == 2
    assert "scores.csv: expected a new file, got one that exists" in capsys.readouterr().err
    output.unlink()
    (tmp_path / "scores_facts.json").unlink()
    assert cli.main(words) == 2
    assert "scores_patients.csv: expected a new file" in capsys.readouterr().err


def test_predict_by_the_patient_rule_of_the_training(trained, cohort, tmp_path, capsys):
    model, output = load_model(trained), tmp_path / "scores.csv"
    assert model.patient_rule == load_idc(cohort.root).patient_rule
    words = [str(cohort.root / cohort.patients[0]), "-o", str(output), "--quiet"]
    assert cli.main(["predict", str(trained), *words, "--patients", "model"]) == 0
    (patient,) = rows_of(tmp_path / "scores_patients.csv")
    assert patient["patient"] == cohort.patients[0]
    found = predict_images(model, cohort.X, patients=model.patient_rule)
    assert list(found.patients) == cohort.patients.tolist()
    nameless = save_model(SavedModel(model.pipeline), tmp_path / "nameless.histofeat")
    (tmp_path / "other").mkdir()
    words[2] = str(tmp_path / "other" / "scores.csv")
    assert cli.main(["predict", str(nameless), *words, "--patients", "model"]) == 2
    assert "--patients: expected a model that knows how its patients were found" in capsys.readouterr().err


def test_predict_one_image_and_a_pattern(trained, cohort, capsys, monkeypatch):
    monkeypatch.chdir(cohort.root)
    (first, *_) = list_images("*/1/*.png").paths
    assert cli.main(["predict", str(trained), first, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert first in printed
    assert "policy" in printed
    assert cli.main(["predict", str(trained), "*/1/*.png", "--quiet"]) == 0
    n = len(list_images("*/1/*.png"))
    assert f"{n} images: " in capsys.readouterr().out


def test_conversions_are_said(trained, tmp_path, capsys):
    for name in "ab":
        Image.fromarray(np.full((50, 50), 90, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    assert cli.main(["predict", str(trained), str(tmp_path), "--mpp", "4"]) == 0
    assert "converted: 2 gray\n" in capsys.readouterr().err


def test_unreadable_images_are_named_and_the_exit_status_says_so(trained, cohort, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    output = tmp_path / "scores.csv"
    words = ["predict", str(trained), str(tmp_path / "bad.png"), cohort.X[0], "-o", str(output)]
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    assert "1 of 2 images could not be read" in printed.err
    assert "bad.png: expected an image file" in printed.err
    assert [(row["policy"], row["label"] == "") for row in rows_of(output)] == [("unreadable", True), ("as is", False)]
    output.unlink()
    (tmp_path / "scores_facts.json").unlink()
    assert cli.main([*words, "--on-error", "raise"]) == 2
    assert not output.exists()


def test_pipes_and_closed_folders_do_not_stop_a_night(trained, cohort, tmp_path, capsys, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").symlink_to(cohort.X[0])
    os.mkfifo(tmp_path / "b.png")
    listed = _image_files.list_folder

    def refuse(folder):
        if folder.endswith("closed"):
            raise DatasetError(f"{folder}: expected a folder that can be listed, got PermissionError. Ask.")
        return listed(folder)

    monkeypatch.setattr(_image_files, "list_folder", refuse)
    words = ["predict", str(trained), str(tmp_path), "-o", str(tmp_path / "scores.csv"), "--mpp", "4"]
    assert cli.main(words) == 1
    printed = capsys.readouterr().err
    facts = json.loads((tmp_path / "scores_facts.json").read_text())
    assert [path for path, _ in facts["left_out"]] == [f"{tmp_path}/closed", f"{tmp_path}/b.png"]
    (tmp_path / "scores.csv").unlink()
    assert cli.main(words) == 2
    assert "scores_facts.json: expected a new file" in capsys.readouterr().err
    (tmp_path / "scores_facts.json").unlink()
    assert "closed: expected a folder that can be listed, got PermissionError" in printed
    assert "b.png: expected a readable image file, got a named pipe" in printed
    assert "histofeat: 1 folders could not be listed." in printed
    assert "histofeat: 1 of 2 images could not be read or used." in printed
    assert cli.main([*words, "--on-error", "raise"]) == 2
    assert "closed: expected a folder that can be listed" in capsys.readouterr().err


def test_other_files_in_a_folder_are_counted(trained, cohort, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "a.png").symlink_to(cohort.X[0])
    assert cli.main(["predict", str(trained), str(tmp_path), "--mpp", "4"]) == 0
    assert "skipped, since the name is not of an image: 1 file." in capsys.readouterr().err
    (tmp_path / "slide.svs").write_bytes(b"")
    assert cli.main(["predict", str(trained), str(tmp_path), "--mpp", "4"]) == 0
    said = f"skipped, since maps show whole slides: 1 slide; try `histofeat map {trained} {tmp_path}/slide.svs`."
    assert said in capsys.readouterr().err


def test_images_of_another_scale_are_resampled_or_refused(trained, cohort, tmp_path, capsys):
    for name, side in {"a.png": 800, "b.png": 80}.items():
        fine = Image.open(cohort.X[0]).resize((side, side), Image.Resampling.NEAREST)
        fine.save(tmp_path / name, dpi=(50_800, 50_800))
    words = ["predict", str(trained), str(tmp_path), "-o", str(tmp_path / "scores.csv")]
    assert cli.main(words) == 1
    printed = capsys.readouterr().err
    assert "rescaled: 1 image to the scale of the training." in printed
    assert "1 of 2 images could not be read or used." in printed
    assert "left out: " in printed
    assert "at least half of a patch of 50 x 50 px at 4 micrometres per pixel, got 10 x 10 px" in printed
    large, small = rows_of(tmp_path / "scores.csv")
    assert [large[name] for name in ("mpp", "rescaled", "policy", "tiles")] == ["0.5", "0.125", "tile", "4"]
    assert (small["label"], small["policy"]) == ("", "unreadable")
    assert "Give a larger part of the slide" in small["reason"]
    words = ["predict", str(trained), str(tmp_path / "b.png"), "-o", str(tmp_path / "b.csv"), "--policy", "pad"]
    assert cli.main(words) == 0
    assert [rows_of(tmp_path / "b.csv")[0][name] for name in ("rescaled", "policy")] == ["0.125", "pad"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nowhere", "-o", "m"], "nowhere: expected a folder of images or a CSV file"),
        (["train", "nowhere", "-o", "none/m"], "none/m: expected a file in a folder that exists"),
        (["train", "nowhere", "-o", "m", "--head", "xgbost"], "Did you mean 'xgboost'"),
        (["train", "nowhere", "-o", "m", "--folds", "1"], "Invalid value for '--folds'"),
        (["train", "nowhere"], "Missing option '--output'"),
        (["predict", "none.histofeat", "nowhere.png"], "nowhere.png: expected an image, a folder or a pattern"),
        (["predict", "none.histofeat", "here.png"], "none.histofeat: expected the file of a model, got no such file"),
        (["predict", "here.png", "here.png"], "here.png: expected a model of histofeat, got a file of another kind"),
    ],
)
def test_bad_input_is_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.png").write_bytes(b"?????")
    assert cli.main([*words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_fresh_process_does_the_same(trained, cohort, tmp_path):
    output = tmp_path / "scores.csv"
    words = ["predict", str(trained), cohort.X[0], cohort.X[20], "-o", str(output), "--quiet"]
    code = "import sys; from histofeat.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    found = [row["label"] for row in rows_of(output)]
    assert found == list(predict_images(load_model(trained), [cohort.X[0], cohort.X[20]]).labels)


def test_warnings_are_sentences_on_stderr(cohort, tmp_path, capsys, recwarn):
    for row in range(24):
        target = tmp_path / "data" / ("benign", "malignant")[cohort.y[row]]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{row}.png").symlink_to(cohort.X[row])
    words = ["train", str(tmp_path / "data"), "-o", str(tmp_path / "m"), "--features", "color", "--head", "logistic"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.simplefilter", lambda *_, **__: None)
        import warnings

        warnings.filters[:] = [("always", None, Warning, None, 0)]
        assert cli.main([*words, "--patients", "image", "--no-estimate", "--quiet"]) == 0
    assert "histofeat: warning: load_image_folder: each image counts as its own patient." in capsys.readouterr().err


def test_train_on_a_table_of_another_machine(cohort, tmp_path, capsys):
    rows = [
        f"D:\\scans\\{path};{cohort.target_names[label]};{patient}"
        for path, label, patient in zip(cohort.relative_paths, cohort.y, cohort.patients, strict=True)
    ]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(["File;Class;Case", *(row.replace("/", "\\") for row in rows)]))
    words = ["train", str(table), "-o", str(tmp_path / "m.histofeat"), "--features", "color", "--head", "logistic"]
    words += ["--no-estimate", "--quiet"]
    assert cli.main(words) == 2
    assert "--path-prefix 'D:\\scans=/mnt/scans'" in capsys.readouterr().err
    assert cli.main([*words, "--path-prefix", "D:\\scans"]) == 2
    assert "--path-prefix: expected OLD=NEW, got 'D:\\\\scans'" in capsys.readouterr().err
    assert cli.main([*words, "--path-prefix", f"D:\\scans={cohort.root}"]) == 0
    assert load_model(tmp_path / "m.histofeat").about["n_images"] == len(cohort)


@pytest.fixture(scope="module")
def careful(cohort, tmp_path_factory):
    """A model with a threshold, trained on all but three patients, and the folder of its report."""
    folder = tmp_path_factory.mktemp("careful")
    (folder / "ids.txt").write_text("\n".join(sorted(set(cohort.patients))[:12]))
    words = ["train", str(cohort.root), "-o", str(folder / "m.histofeat"), "--features", "color", "--head", "logistic"]
    words += ["--folds", "3", "--threshold", "youden", "--only", str(folder / "ids.txt"), "--report"]
    assert cli.main([*words, str(folder / "report"), "--store", str(folder / "s.sqlite"), "--quiet"]) == 0
    return folder


def test_train_keeps_a_store_and_writes_the_report_of_its_estimate(careful):
    written = json.loads((careful / "report" / "metrics.json").read_text())
    value = load_model(careful / "m.histofeat").about["estimate"]["scores"]["roc_auc"]["value"]
    assert f"{value:.6f}" in json.dumps(written) or str(value) in json.dumps(written)
    assert (careful / "s.sqlite").is_file()


def test_scores_at_the_threshold_stand_beside_those_at_one_half(careful, tmp_path, capsys):
    estimate = load_model(careful / "m.histofeat").about["estimate"]
    evaluation = load_evaluation(careful / "report.evaluation")
    assert evaluation.protocol["threshold"] == "youden"
    tuned = evaluation.models[0].tuned["sensitivity"]
    assert estimate["scores_at_threshold"]["sensitivity"] == {"value": tuned.value, "ci95": list(tuned.ci95)}
    assert "In each fold the threshold of youden is chosen on its training patients" in estimate["protocol"]
    assert "Youden" in (careful / "report" / "report.md").read_text()
    assert cli.main(["info", str(careful / "m.histofeat")]) == 0
    assert "  - scores at threshold:" in capsys.readouterr().out.splitlines()


def test_the_threshold_that_scores_stand_on_is_printed(cohort, tmp_path, capsys):
    words = [
        "train",
        str(cohort.root),
        "-o",
        str(tmp_path / "m.histofeat"),
        "--features",
        "color",
        "--head",
        "logistic",
    ]
    words += ["--folds", "9", "--resamples", "10", "--threshold", "sensitivity=0.95", "--quiet"]
    few = tmp_path / "ids.txt"
    few.write_text("\n".join(sorted(set(cohort.patients))[:6]))
    assert cli.main([*words, "--only", str(few)]) == 0
    printed = capsys.readouterr().out
    assert "6 folds of patients (not 9: a class has only 6 patients)" in printed
    assert "10 resamples of the patients" in printed
    estimate = load_model(tmp_path / "m.histofeat").about["estimate"]
    values = [estimate[name]["sensitivity"]["value"] for name in ("scores", "scores_at_threshold")]
    (line,) = [line for line in printed.splitlines() if line.lower().startswith("sensitivity")]
    assert [float(value) for value in re.findall(r"([.\d]+) +[.\d]+ to", line)] == [round(value, 4) for value in values]
    assert re.search(r"^ +labels at 0.5 .* labels at sensitivity=0.95 ", printed, re.MULTILINE)


def test_class_folders_are_no_patients(trained, cohort, tmp_path, capsys):
    words = ["predict", str(trained), str(cohort.root), "-o", str(tmp_path / "a.csv"), "--patients", "folder"]
    assert cli.main(words) == 2
    printed = capsys.readouterr().err
    assert "--patients: expected folders of patients, got those of classes: 0, 1. Give --patients model" in printed
    for at, name in enumerate(("tumour", "7")):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "a.png").symlink_to(cohort.X[at])
    words[2] = str(tmp_path / "images")
    assert cli.main(words) == 2
    assert "got those of classes: tumour." in capsys.readouterr().err
    (tmp_path / "images" / "tumour").rename(tmp_path / "images" / "1")
    assert cli.main([*words, "--mpp", "4"]) == 0  # patients by number
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].split() == [
        "patient", "images", "label", "mean_no_tumour", "share_no_tumour", "mean_tumour", "share_tumour", "known"
    ]  # fmt: skip
    assert {(row["threshold"], row["threshold_rule"]) for row in rows_of(tmp_path / "a_patients.csv")} == {
        ("0.5", "most probable")
    }


def test_train_checks_the_folder_of_the_report_first(careful, tmp_path, capsys):
    words = ["train", "nowhere", "-o", str(tmp_path / "m.histofeat"), "--report", str(careful / "report")]
    assert cli.main(words) == 2
    assert "which holds a finished report" in capsys.readouterr().err


def test_tables_have_one_content_in_each_format(careful, cohort, tmp_path, capsysbinary):
    words = ["predict", str(careful / "m.histofeat"), str(cohort.root), "--patients", "model", "--quiet"]
    for name in ("a.csv", "a2.parquet", "a3.json"):
        assert cli.main([*words, "-o", str(tmp_path / name)]) == 0
    capsysbinary.readouterr()
    assert cli.main([*words, "-o", "-", "--output-format", "json"]) == 0
    piped = capsysbinary.readouterr().out
    assert piped == (tmp_path / "a3.json").read_bytes()
    tables = [pd.read_csv(tmp_path / "a.csv", dtype={"patient": str}, keep_default_na=False)]
    tables += [pd.read_parquet(tmp_path / "a2.parquet"), pd.DataFrame(json.loads(piped))]
    numbers = ["p_no_tumour", "p_tumour", "threshold", "unlike", "tissue", "tiles", "background_tiles"]
    for table in tables[1:]:
        assert list(table) == list(tables[0])
        assert not any(" " in column for column in table)
        assert np.abs(table[numbers] - tables[0][numbers]).to_numpy().max() < 1e-6
        assert table.drop(columns=numbers).equals(tables[0].drop(columns=numbers))
    assert set(tables[0]["threshold_rule"]) == {"youden"}
    known = tables[0].groupby("patient")["known"].first().tolist()
    assert known == ["image"] * 12 + [""] * 3
    assert pd.read_parquet(tmp_path / "a2_patients.parquet")["known"].sum() == 12


def test_what_is_known_or_unlike_is_said(careful, cohort, tmp_path, capsys):
    Image.fromarray(np.full((50, 50, 3), (20, 240, 20), dtype=np.uint8)).save(tmp_path / "green.png")
    words = ["predict", str(careful / "m.histofeat"), str(tmp_path / "green.png"), cohort.X[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(words) == 0
    printed = capsys.readouterr().err
    assert "known: the model was trained on 1 of these images or on their patients." in printed
    assert "unlike: 1 image is farther from the training images than 99% of those are." in printed
    assert (
        "warning: predict_images: expected the scale of each image, for a model of 4 micrometres per pixel" in printed
    )


def test_the_sidecar_names_model_and_options(careful, cohort, tmp_path):
    model = careful / "m.histofeat"
    words = ["predict", str(model), cohort.X[0], "-o", str(tmp_path / "a.csv"), "--policy", "resize", "--quiet"]
    assert cli.main(words) == 0
    facts = json.loads((tmp_path / "a_facts.json").read_text())
    assert facts["sha256"] == sha256(model.read_bytes()).hexdigest()
    assert tomllib.loads((tmp_path / "a.run.toml").read_text())["policy"] == "resize"
    assert facts["trained"]["versions"]["numpy"]
    assert facts["trained"]["about"]["threshold"]["rule"] == "youden"


def test_an_unknown_format_is_refused_before_the_model_is_read(tmp_path, capsys):
    assert cli.main(["predict", "none", "none", "--output-format", "xls"]) == 2
    assert "--output-format: expected one of csv, parquet, json, got 'xls'" in capsys.readouterr().err


def test_two_runs_at_the_same_time_leave_nothing_behind(careful, cohort, tmp_path, monkeypatch, capsys):
    """The other run has written the table meanwhile: this one says so, and takes its own shards away."""
    output, real = tmp_path / "a.csv", models.predict_images

    def late(*arguments, **settings):
        found = real(*arguments, **settings)
        output.write_text("of the other")
        return found

    monkeypatch.setattr(models, "predict_images", late)
    assert cli.main(["predict", str(careful / "m.histofeat"), cohort.X[0], "-o", str(output), "--quiet"]) == 2
    assert "a.csv: expected a new file, got one that exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_of_many_unreadable_images_the_rest_is_counted(careful, tmp_path, capsys):
    for number in range(26):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    assert cli.main(["predict", str(careful / "m.histofeat"), str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("left out: ") == 21
    assert "left out: 6 more, named in the table." in printed


def test_each_magnification_has_a_model_and_a_row(tmp_path, capsys):
    settings = {"patients_per_subtype": 2, "images_per_slide": 2, "magnifications": (40, 100)}
    root = make_breakhis_cohort(root=tmp_path / "tree", **settings).root
    words = ["train", str(root), "-o", str(tmp_path / "m.histofeat"), "--features", "color", "--head", "logistic"]
    assert cli.main([*words, "--quiet"]) == 2
    assert "--magnification: expected 40, 100, 200 or 400, got none for images of several" in capsys.readouterr().err
    assert cli.main([*words, "--magnification", "each", "--folds", "2", "--quiet"]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    for line, power in zip(lines[1:3], (40, 100), strict=True):
        about = load_model(tmp_path / f"m_{power}X.histofeat").about
        rates = [about["estimate"]["scores"][name]["value"] for name in ("image_rate", "patient_rate")]
        assert about["magnification"] == [power]
        assert line.startswith(f"{power}X")
        assert re.findall(r"([.\d]+) +[.\d]+ to", line) == [f"{rate:.4f}" for rate in rates]
    for line, power in zip(lines[3:5], (40, 100), strict=True):
        assert line.startswith(f"{power}X: {tmp_path / f'm_{power}X.histofeat'}: 2 folds of patients: each image")
    assert re.match(r"200X: no model: .*magnification: expected images at 200X", lines[5])
    assert printed.err == "histofeat: 2 of 4 magnifications have no model.\n"
    assert not (tmp_path / "m_200X.histofeat").exists()
    assert (
        cli.main(["train", str(tmp_path / "nowhere"), *words[2:3], str(tmp_path / "n"), "--magnification", "each"]) == 2
    )
    assert "nowhere: expected a folder" in capsys.readouterr().err


def test_rare_classes_are_merged_and_networks_say_where_they_start(tmp_path, capsys):
    settings = {"patients_per_subtype": 1, "images_per_slide": 1, "magnifications": (40,)}
    root = make_breakhis_cohort(root=tmp_path / "tree", **settings).root
    words = ["train", str(root), "-o", str(tmp_path / "m.histofeat"), "--features", "color", "--head", "logistic"]
    assert cli.main([*words, "--target", "subtype", "--merge-rare", "3", "--no-estimate", "--quiet"]) == 0
    assert "classes benign-like, malignant-like" in capsys.readouterr().out
    words[3] = str(tmp_path / "m2.histofeat")
    assert cli.main([*words, "--encoder", "resnet50"]) == 2
    assert "--encoder: expected the family cnn among the features, got color. Add cnn" in capsys.readouterr().err
    assert cli.main([*words, "--checkpoint", "here"]) == 2
    assert "--checkpoint: expected none for the head 'logistic' on color, got 'here/{fit}'" in capsys.readouterr().err


# --- predictions that go on after a kill -----------------------------------------------------------------------------


@pytest.fixture
def killed(trained, cohort, tmp_path, monkeypatch):
    """A run in shards of ten images that ends in the fourth; give its table, words and new shards."""
    shards, output, predict_some = [], tmp_path / "scores.csv", models.predict_images
    copy = shutil.copytree(cohort.root, tmp_path / "images")
    words = ["predict", str(trained), str(copy), "-o", str(output), "--quiet"]

    def counting(model, paths, **settings):
        shards.append(len(paths))
        if counting.left == 0:
            raise SystemExit(143)  # as after SIGTERM
        counting.left -= 1
        return predict_some(model, paths, **settings)

    monkeypatch.setattr(prediction, "_SHARD", 10)
    counting.left = 3
    monkeypatch.setattr(models, "predict_images", counting)
    with pytest.raises(SystemExit, match="143"):
        cli.main(words)
    counting.left = -1
    assert not output.exists()
    assert len(list(output.with_name("scores.csv.partial").iterdir())) == 3
    shards.clear()
    return output, words, shards


@pytest.fixture(scope="module")
def whole(trained, cohort, tmp_path_factory):
    """The table of the same images by a run that nothing ended."""
    folder = tmp_path_factory.mktemp("whole")
    copy = shutil.copytree(cohort.root, folder / "images")
    with pytest.MonkeyPatch.context() as patch:  # the last digits depend on how many rows are scored together
        patch.setattr(prediction, "_SHARD", 10)
        assert cli.main(["predict", str(trained), str(copy), "-o", str(folder / "scores.csv"), "--quiet"]) == 0
    return (folder / "scores.csv").read_text().replace(str(copy), "images")


def test_predict_goes_on_after_a_kill(killed, whole, capsys):
    output, words, shards = killed
    # What a run leaves that is killed between the two moves of a file.
    (output.with_name("scores.csv.partial") / ".0123456789.00c0ffee.partial" / "new").mkdir(parents=True)
    assert cli.main([word for word in words if word != "--quiet"]) == 0
    said = capsys.readouterr().err
    assert "Going on from what an earlier run has left in" in said
    assert "predict: 180 of 180" in said
    assert shards == [10] * 15
    assert output.read_text().replace(str(output.parent / "images"), "images") == whole
    assert not output.with_name("scores.csv.partial").exists()


def test_other_models_options_and_images_are_not_taken_up(killed, cohort, whole):
    output, words, shards = killed
    partial = output.with_name("scores.csv.partial")
    left = shutil.copytree(partial, output.parent / "left")
    first = sorted((output.parent / "images").rglob("*.png"))[0]

    def made(*more, model=None):
        shards.clear()
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(left, partial)
        output.unlink(missing_ok=True)
        output.with_name("scores_facts.json").unlink(missing_ok=True)
        assert cli.main([words[0], model or words[1], *words[2:], *more]) == 0
        return len(shards)

    assert made() == 15
    assert made("--policy", "whole") == 18
    other = output.parent / "other.histofeat"
    assert cli.main(["train", str(cohort.root), "-o", str(other), "--features", "color", "--head", "logistic",
                     "--no-estimate", "--seed", "1", "--quiet"]) == 0  # fmt: skip
    assert made(model=str(other)) == 18
    first.write_bytes(first.read_bytes())
    assert made() == 16
    assert output.read_text().replace(str(output.parent / "images"), "images") == whole


def test_a_damaged_partial_table_counts_as_far_as_it_is_whole(killed, whole):
    output, words, shards = killed
    partial = output.with_name("scores.csv.partial")
    flipped, cut, _ = sorted(partial.iterdir())
    content = bytearray(flipped.read_bytes())
    content[content.index(b"\x93NUMPY") + 140] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:300])
    (partial / "notes.txt").write_text("mine")
    assert cli.main(words) == 0
    assert shards == [10] * 17
    assert output.read_text().replace(str(output.parent / "images"), "images") == whole
    assert [path.name for path in partial.iterdir()] == ["notes.txt"]


def test_the_images_of_a_patient_stay_in_one_shard(monkeypatch):
    monkeypatch.setattr(prediction, "_SHARD", 3)
    owners = ["b", "a", "c", "b", "a", "b", "c"]
    assert list(prediction._shards(["none"] * 7, owners)) == [[1, 4, 0, 3, 5], [2, 6]]
    assert list(prediction._shards(["none"] * 7, None)) == [[0, 1, 2], [3, 4, 5], [6]]
