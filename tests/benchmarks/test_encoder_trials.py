"""The trials behind the recipe of the encoder: their table, their patients, what they refuse, and a quick run."""

import csv
from pathlib import Path

import numpy as np
import pytest

from histofeat.datasets import official_roles
from histofeat.models._encoder_training import ARCHITECTURE


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
    return official_tree(tmp_path_factory.mktemp("trials") / "idc", n_patients, 8)


def test_the_table_on_record(script):
    with script.RESULTS.open(encoding="utf-8", newline="") as file:
        assert tuple(csv.DictReader(file).fieldnames) == script.COLUMNS
    rows = script.read_table()
    tested = {"0": "3569", "1": "3184", "2": "3781"}
    for (trial, division, _, where), row in rows.items():
        assert row["test_patches"] == tested[division]
        assert all(0.85 < float(row[score]) < 1 for score in script.SCORES if row[score])
        if where == script.HERE:
            assert row["recipe"] == script.TRIALS[trial][0]
            assert all(row[score] for score in script.SCORES)
    assert len({key[0] for key in rows if key[3].startswith("GPU")}) == 12


def test_what_was_chosen_is_how_the_encoder_is_trained(script):
    assert script.TRIALS["histo_2"][1] == {"architecture": ARCHITECTURE, "weights": "imagenet"}


def test_a_row_takes_the_place_of_the_older_one(script, tmp_path):
    path = tmp_path / "t.csv"
    for name, division, minutes in (("a", 0, 3), ("b", 0, 1), ("a", 1, 2), ("a", 0, 4)):
        row = dict.fromkeys(script.COLUMNS, "") | {"trial": name, "division": division, "minutes": minutes}
        script.write_row(path, row)
    rows = script.read_table(path)
    assert [(*key[:2], row["minutes"]) for key, row in rows.items()] == [
        ("a", "0", "4"),
        ("b", "0", "1"),
        ("a", "1", "2"),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_a_table_of_other_columns(script, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv.*: expected .*recipe"):
        script.read_table(path)


def test_official_test_patients_take_no_part(script, tree):
    learnt, asked = script.training_side([tree]), script.load_development_patients([tree])
    train, test = script.divide(learnt, asked, 1)
    known = np.unique(asked.patients.astype(int))
    assert "test" not in {official_roles().get(str(patient)) for patient in known}
    tested = np.random.default_rng(101).permutation(known)[:4]
    assert set(asked.patients[test].astype(int)) == set(tested)
    assert not set(learnt.patients[train].astype(int)) & set(tested)
    one_sided = asked.subset(np.flatnonzero(asked.y == 0))
    with pytest.raises(ValueError, match=r"--data: expected tested patches of both classes, got \d+. Give more pati"):
        script.divide(learnt, one_sided, 1)


@pytest.mark.parametrize(("words", "match"), [
    (["--trials", "histo2"], "--trials: expected known names, got 'histo2'. Did you mean 'histo_2'"),
    (["--epochs", "1"], "--output: expected another file for other epochs, got"),
])  # fmt: skip
def test_what_is_refused_before_any_work(main, script, capsys, words, match):
    before = script.RESULTS.read_bytes()
    assert main(["--data", "no-such-folder", *words]) == 2
    assert match in capsys.readouterr().err
    assert script.RESULTS.read_bytes() == before


@pytest.mark.long
def test_a_quick_run(main, script, tree, capsys):
    pytest.importorskip("keras")
    words = ["--data", str(tree), "--epochs", "1", "--output", "quick.csv", "--n-jobs", "1", "--trials", "histo_1"]
    assert main(words) == 0, capsys.readouterr().err
    (row,) = script.read_table(Path("quick.csv")).values()
    assert (row["trial"], row["division"], row["epochs"]) == ("histo_1", "0", "1")
    assert (row["test_patients"], row["params"]) == ("4", "310240")
    assert all(0 <= float(row[score]) <= 1 for score in script.SCORES)
