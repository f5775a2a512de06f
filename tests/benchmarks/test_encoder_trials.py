"""The trials that the encoder's recipe was chosen by: their table, their patients, what they refuse, and quick runs."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from histofeat.datasets import official_roles
from histofeat.models._encoder_training import AUGMENTATION, RECIPE
from histofeat.networks import RESNET_SMALL, STANDARD


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("encoder/trials.py") as module:
        yield module


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return script.main


@pytest.fixture(scope="module")
def tree(official_tree, tmp_path_factory):
    """Patches of a synthetic cohort under the ids of official patients, of 2 test patients among them."""
    n_patients = {"test": 2, "train": 9, "validation": 3}
    return official_tree(tmp_path_factory.mktemp("trials") / "idc", n_patients, 12)


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_on_record(script):
    with script.RESULTS.open(encoding="utf-8", newline="") as file:
        assert tuple(csv.DictReader(file).fieldnames) == script.COLUMNS
    rows = script.read_table()
    assert list(rows) == list(script.TRIALS)  # no trial without its result, and in their order
    for name, row in rows.items():
        trial = script.TRIALS[name]
        assert (row["recipe"], row["seed"]) == (trial.words, str(trial.seed))
        assert (row["training_patients"], row["test_patients"]) == ("127", "63")
        assert row["epochs"] == ("" if trial.recipe is None else str(trial.recipe.epochs))
        assert all(0.8 < float(row[score]) < 1 for score in script.SCORES if row[score])
        assert bool(row["roc_auc"]) == (trial.recipe is not None and trial.supervision > 0)


def test_the_docstring_says_what_the_table_says(script):
    rows = script.read_table()
    labelled = [row for name, row in rows.items() if row["roc_auc"]]
    words = " ".join(script.__doc__.split())
    assert f"the {len(labelled)} networks that learnt from labels" in words
    for score in ("roc_auc", "roc_auc_8_views", "roc_auc_logistic", "roc_auc_xgboost", "roc_auc_late_vote"):
        values = [float(row[score]) for row in labelled]
        assert f"from {min(values):.4f} to {max(values):.4f} ({max(values) - min(values):.4f}" in words
        assert f"{rows['light_long'][score]})" in words
    bare, alone = rows["handcrafted"], rows["simsiam"]
    assert f"after {bare['roc_auc_xgboost']} without a network" in words
    assert f"after {bare['roc_auc_late_vote']}." in words
    told = (alone["roc_auc_logistic"], alone["roc_auc_xgboost"], alone["roc_auc_late_vote"])
    assert "logistic {}, XGBoost {}, late vote {}".format(*told) in words
    own = {name: float(row["roc_auc"]) for name, row in rows.items() if row["roc_auc"]}
    assert f"costs {own['supervised'] - own['light']:.4f} of the own head" in words
    assert own["light_long"] > own["supervised"]
    sizes = [rows[name]["roc_auc"] for name in ("small_input", "supervised", "large_input")]
    assert "have {}, {} and {}".format(*sizes) in words


def test_what_was_chosen_is_how_the_encoder_is_trained(script):
    chosen = script.TRIALS["light_long"]
    unaugmented = replace(RECIPE, augmentation=STANDARD)
    assert replace(chosen, name="", words="") == type(chosen)("", "", unaugmented, AUGMENTATION)
    assert replace(unaugmented, epochs=RESNET_SMALL["standard"].epochs) == RESNET_SMALL["standard"]


def test_a_row_takes_the_place_of_the_older_one(script, tmp_path):
    path = tmp_path / "t.csv"
    for name, seconds in (("wide", 3), ("supervised", 1), ("wide", 4)):
        script.write_row(path, dict.fromkeys(script.COLUMNS, "") | {"trial": name, "seconds": seconds})
    rows = script.read_table(path)
    assert [(name, row["seconds"]) for name, row in rows.items()] == [("supervised", "1"), ("wide", "4")]
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_a_table_of_other_columns(script, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv.*: expected .*recipe"):
        script.read_table(path)


# --- whom they learn from, what they refuse --------------------------------------------------------------------------


def test_official_test_patients_take_no_part(script, tree):
    options = script.make_parser().parse_args(["--data", str(tree), "--n-jobs", "1"])
    material = script.load(options)
    known = np.unique(material.patients)
    assert len(known) == 12
    assert "test" not in {official_roles().get(patient) for patient in known}
    train, test = material.rows
    tested = np.random.default_rng(7).permutation(known)[:4]
    assert set(material.patients[test]) == set(tested)
    assert set(material.patients[train]) == set(known) - set(tested)
    assert material.pixels.shape == (len(material.y), 50, 50, 3)
    assert len(material.handcrafted) == len(material.y)


def test_a_side_of_one_class(script):
    patients = np.repeat(["1", "2", "3"], 2)
    with pytest.raises(ValueError, match=r"expected training patches of both classes, got 4 of 1 .* 3 patients"):
        script.split(patients, np.zeros(6, dtype=int))


@pytest.mark.parametrize(("words", "match"), [
    (["--trials", "simsam"], "--trials: expected known names, got 'simsam'. Did you mean 'simsiam'"),
    (["--quick"], "--output: expected another file for a quick run, got"),
    (["--trials", "wide", "imagenet", "--weights", "nowhere"], "expected a folder of weights, got 'nowhere'"),
])  # fmt: skip
def test_what_is_refused_before_any_work(main, script, capsys, words, match):
    before = script.RESULTS.read_bytes()
    assert main(["--data", "no-such-folder", *words]) == 2
    assert match in capsys.readouterr().err
    assert script.RESULTS.read_bytes() == before


@pytest.mark.parametrize(("field", "value", "match"), [
    ("trials", ["simsam"], "--trials: expected known names, got 'simsam'"),
    ("quick", True, r"--output: expected another file for a quick run, got .*trials\.csv"),
])  # fmt: skip
def test_options_that_do_not_fit(script, field, value, match):
    options = script.make_parser().parse_args(["--data", "d"])
    setattr(options, field, value)
    with pytest.raises(ValueError, match=match):
        script.check_options(options)


# --- targets, mixtures -----------------------------------------------------------------------------------------------


def test_targets_are_labels_smoothed_or_a_teachers(script, monkeypatch):
    y, rows = np.array([0, 1, 1]), (np.array([0, 1]), np.array([2]))
    material = script.Material(np.zeros((3, 50, 50, 3), np.uint8), np.zeros((3, 1)), y, np.array(["1", "2", "3"]), rows)
    smooth = replace(script.TRIALS["supervised"], recipe=replace(RESNET_SMALL["standard"], label_smoothing=0.1))
    np.testing.assert_allclose(script.targets(smooth, material), [[0.95, 0.05], [0.05, 0.95]], rtol=1e-6)
    monkeypatch.setattr(script, "teacher", lambda *_: np.array([0.2, 0.6]))
    soft = script.targets(script.TRIALS["soft_labels"], material)
    np.testing.assert_allclose(soft, [[0.9, 0.1], [0.2, 0.8]], rtol=1e-6)


def test_the_teacher_does_not_know_the_patient_it_judges(script, monkeypatch):
    xgboost = pytest.importorskip("xgboost")
    monkeypatch.setattr(xgboost, "XGBClassifier", lambda **_: LogisticRegression())  # which trees is not the question
    rng = np.random.default_rng(0)
    patients = np.repeat([str(number) for number in range(10)], 20)
    y = np.tile([0, 1], 100)
    features = rng.normal(size=(200, 3))
    features[:, 0] += 3 * y
    proba = script.teacher(features, y, patients)
    assert proba[y == 1].mean() > proba[y == 0].mean() + 0.5
    # Another label of one patient's patches changes what is said of the others, not of these.
    own, turned = patients == "4", y.copy()
    turned[own] = 1 - turned[own]
    again = script.teacher(features, turned, patients)
    assert not np.array_equal(again[~own], proba[~own])
    np.testing.assert_array_equal(again[own], proba[own])


def test_mixup_keeps_the_larger_part_of_each_patch(script):
    from trial_networks import mixed

    pixels = np.zeros((8, 2, 2, 3), np.uint8)
    pixels[4:] = 200
    labels = np.eye(2, dtype=np.float32)[[0] * 4 + [1] * 4]
    blended, soft = mixed(pixels, labels, 0.4, np.random.default_rng(0))
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(soft.argmax(axis=1), labels.argmax(axis=1))
    np.testing.assert_allclose(blended[:, 0, 0, 0] / 200, soft[:, 1], atol=0.003)
    assert pixels[4:].min() == 200


# --- from end to end -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_quick_runs_of_pairs_and_of_labels(main, script, tree, capsys):
    pytest.importorskip("tensorflow")
    pytest.importorskip("xgboost")
    words = ["--data", str(tree), "--quick", "--output", "quick.csv", "--n-jobs", "1"]
    for name in ("simsiam", "light_stages"):
        assert main([*words, "--trials", name]) == 0, capsys.readouterr().err
    rows = script.read_table(Path("quick.csv"))
    assert list(rows) == ["simsiam", "light_stages"]
    for name, row in rows.items():
        assert (row["training_patients"], row["test_patients"], row["epochs"]) == ("8", "4", "1")
        assert row["params"] == script.read_table()[name]["params"]
        assert all(0 <= float(row[score]) <= 1 for score in script.SCORES if row[score])
        assert bool(row["roc_auc_8_views"]) == (name != "simsiam")
        assert row["roc_auc_logistic_8_views"]
    assert "epoch 1 of 1: loss" in capsys.readouterr().out
