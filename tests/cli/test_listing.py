"""`histofeat audit`, `info`, `list` and `store`."""

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import pytest

from histofeat import IDCPipeline, cli, load_model, make_breakhis_cohort
from histofeat.cli._listing import LISTS
from histofeat.evaluation import evaluate, save_evaluation
from histofeat.model_selection import PatientKFold
from histofeat.models import save_model


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    """A model file, made by the command."""
    path = tmp_path_factory.mktemp("models") / "model.histofeat"
    words = ["train", str(cohort.root), "-o", str(path), "--features", "color", "--head", "logistic", "--folds", "2"]
    assert cli.main([*words, "--quiet"]) == 0
    return path


@pytest.mark.parametrize("what", LISTS)
def test_registers_are_listed(what, capsys):
    assert cli.main(["list", what]) == 0
    printed = capsys.readouterr().out.splitlines()
    wing, register = LISTS[what]
    more = ["idc-official"] if what == "studies" else []
    assert [line.split()[0] for line in printed] == [*getattr(import_module(f"histofeat.{wing}"), register), *more]
    assert all(len(line.split()) > 1 for line in printed)
    assert cli.main(["list", what, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [line.split()[0] for line in printed]


def test_an_audit_of_breakhis_lists_every_magnification(cohort, tmp_path, capsys):
    made = {"patients_per_subtype": 1, "images_per_slide": 2, "magnifications": (40, 100)}
    root = str(make_breakhis_cohort(root=tmp_path / "made", **made).root)
    assert cli.main(["audit", root]) == 0
    printed = capsys.readouterr().out
    assert "32 at 40X, 32 at 100X, 0 at 200X" in printed
    assert printed.endswith("- scale: 0.2, 0.49 micrometres per pixel\n")
    assert "0 smaller, 0 larger" in replace(cohort.audit, size_counts={(50, 50): 180}).summary()
    assert cli.main(["audit", root, "--magnification", "all"]) == 0
    assert capsys.readouterr().out == printed
    assert cli.main(["audit", root, "--magnification", "100"]) == 0
    assert "0 at 40X, 32 at 100X" in capsys.readouterr().out
    assert cli.main(["audit", root, "--magnification", "each"]) == 2
    assert "40, 100, 200, 400 (or '40X' and so on), or 'all', got 'each'" in capsys.readouterr().err


def test_a_model_has_a_card(trained, tmp_path, capsys):
    card = tmp_path / "card.md"
    assert cli.main(["info", str(trained), "--markdown", str(card)]) == 0
    printed = capsys.readouterr().out
    assert card.read_text() == printed
    assert [line[3:] for line in printed.splitlines() if line.startswith("## ")] == [
        "Model", "Data", "Patients", "Scale", "Scores", "Limits"]  # fmt: skip
    scale = printed.partition("## Scale\n\n")[2].partition("\n\n")[0]
    assert scale == "- micrometres per pixel: 4.0\n- patch size: 50, 50\n- stain: H&E"
    assert cli.main(["info", str(trained), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["about"]
    score = about["estimate"]["scores"]["roc_auc"]
    shown = f"{score['value']:.4f} (95 % interval {score['ci95'][0]:.4f} to {score['ci95'][1]:.4f})"
    for line in ("- head: logistic", "- dataset: synthetic", "- patients: 15", "- patch size: 50, 50",
                 "- random state: 0", f"- sha256: {sha256(trained.read_bytes()).hexdigest()}",
                 "- class names: no tumour, tumour", f"    - roc auc: {shown}",
                 "- For research; no medical device."):  # fmt: skip
        assert line in printed.splitlines()
    assert not [line for line in printed.splitlines() if line.endswith((" None", ": "))]
    names = [line.partition(":")[0] for line in printed.splitlines() if line.startswith("- ")]
    assert sorted(set(names)) == sorted(names), "no line has the name of another"
    assert cli.main(["info", str(trained), "--markdown", str(card)]) == 2
    assert "card.md: expected a new file, got one that exists" in capsys.readouterr().err


def test_the_scale_of_an_older_model_is_unknown(trained, tmp_path, capsys):
    model = load_model(trained)
    older = {name: value for name, value in model.about.items() if name not in ("mpp", "stain")}
    save_model(model, tmp_path / "old.histofeat", about=older)
    assert load_model(tmp_path / "old.histofeat").mpp is None
    assert cli.main(["info", str(tmp_path / "old.histofeat")]) == 0
    assert "## Scale\n\n- micrometres per pixel: unknown\n- patch size: 50, 50\n\n" in capsys.readouterr().out


def test_an_evaluation_is_described(cohort, tmp_path, capsys):
    folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}
    evaluation = evaluate(cohort, IDCPipeline("color", "logistic"), **folds)
    file = save_evaluation(evaluation, tmp_path / "mine.evaluation")
    assert cli.main(["info", str(file)]) == 0
    assert capsys.readouterr().out == f"{evaluation}\n"
    assert cli.main(["info", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["evaluation"]) == len(evaluation.to_frame())


def test_what_is_neither_is_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("text")
    for name, message in (("a.txt", "expected a model of histofeat, got a file of another kind"),
                          ("none", "expected the file of a model, got no such file")):  # fmt: skip
        assert cli.main(["info", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_any_labelled_images_are_audited(cohort, tmp_path, capsys):
    for row in range(24):
        target = tmp_path / "data" / ("benign", "malignant")[cohort.y[row]]
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{row}.png").symlink_to(cohort.X[row])
    assert cli.main(["audit", str(tmp_path / "data"), "--patients", r"^(.).*[.]png"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "24 patches" in first
    assert "positive class: malignant" in first
    assert cli.main(["audit", str(cohort.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["audit"]["n_patches"] == 180


def test_a_split_is_audited_and_repaired(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["audit", "--registry", "breakhis-eva"]
    assert cli.main([*words, "--fix", "repaired.csv", "--markdown", "found.md"]) == 1
    printed = capsys.readouterr().out
    assert (tmp_path / "found.md").read_text() == printed
    assert (
        "| HF005 | sibling slides | error | Accession numbers on both sides of a fold under different ids: 4" in printed
    )
    assert "- claim: Its page docs/datasets/breakhis.md: There is no overlap of patients between the splits." in printed
    assert "- inference: Slides of one accession number are probably of one patient." in printed
    assert printed.count("- moved: ") == 4
    assert cli.main(["audit", "repaired.csv"]) == 0
    assert "| HF005 | sibling slides | passed |" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], len(found["offenders"]["HF005"])) == (["HF005"], 4)
    assert cli.main(["audit", "--registry", "list"]) == 0
    assert "idc-official: IDC: 84 training, 29 validation and 49 test patients" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "DATA: expected a path, or a name after --registry, got none"),
        (["--registry", "eva"], "--registry: expected one of idc-official, breakhis-eva, "),
        (["DATA", "--fix", "new.csv"], "expected a split, got data without parts for '--fix'"),
        (["--registry", "breakhis-eva", "--fix", "nowhere/new.csv"], "expected a file in a folder that exists"),
        (["--registry", "breakhis-eva", "--encoder", "unii"], "--encoder: expected the name of an encoder, got 'unii'"),
        (["names.csv"], "names.csv: expected names that tell the patient, as IDC, BreakHis, TCGA and CAMELYON17 have"),
    ],
)
def test_wrong_words_about_splits_are_a_sentence(words, message, cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.csv").write_text("path,split\na_1.png,train\nb_1.png,test\n")
    assert cli.main(["audit", *(str(cohort.root) if word == "DATA" else word for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["names.csv"]


def test_files_that_disagree_are_named(tmp_path, capsys):
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file, part in zip(files, ("train", "test"), strict=True):
        file.write_text(f"id,patient,split\nx,p,{part}\ny,q,test\nz,r,train\n")
    cli.main(["audit", *map(str, files)])
    assert "- names with another part in another file or fold: 1, such as 'x'\n" in capsys.readouterr().out


def test_the_hook_audits_one_file_at_a_time(tmp_path):
    text = (Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text()
    found = dict(line.strip(" -").split(": ", 1) for line in text.splitlines() if ": " in line and "#" not in line)
    assert all(
        re.search(found["files"], name) for name in ("split.csv", "data/splits_0.csv", "dsfold1.txt", "splits.json")
    )
    assert not re.search(found["files"], "data/splitting.py")
    (tmp_path / "histofeat").write_text('#!/bin/sh\n[ "$#" = 2 ] && [ "$2" != bad.csv ]\n')
    (tmp_path / "histofeat").chmod(0o755)
    run = {"env": {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, "check": False}
    codes = [
        subprocess.run([*shlex.split(found["entry"]), *names], **run).returncode
        for names in (["a.csv", "b.csv"], ["bad.csv", "a.csv"])
    ]
    assert codes == [0, 1]
