"""Leaks that are planted on real patches: each is what it says, and the page counts what the audit finds of them."""

import json

import numpy as np
import pandas as pd
import pytest

from histofeat import make_cohort
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.features import Fingerprints, ImageFingerprint, Runtime

N_LEAKS = 23
FOUND_BY = {
    "split by patch": "HF001",
    "one patient under two spellings": "HF009",
    "slides as patients": "HF010",
    "sections as patients": "HF005",
    "copy: same pixels": "HF002",
    "copy: JPEG, quality 90": "HF003",
    "copy: mirrored": "HF003",
    "copy: turned by a quarter": "HF003",
    "copy: same pixels, other label": "HF006",
    "copy: JPEG, quality 90, other label": "HF006",
    "augmented before the split": "HF003",
    "other file format by class": "HF011",
    "encoder trained on a tested patient": "HF007",
}


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("protocols/planted_leaks.py") as module:
        yield module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort with files, and its fingerprints."""
    root = tmp_path_factory.mktemp("planted") / "idc"
    dataset = make_cohort(n_patients=24, patches_per_patient=8, random_state=1, root=root)
    return dataset, ImageFingerprint().transform(dataset.X), root


@pytest.fixture(scope="module")
def finished(loaded_script, made, tmp_path_factory):
    (made[2] / MANIFEST).unlink()  # now it reads as a folder of IDC patches
    output = tmp_path_factory.mktemp("reports") / "planted"
    with loaded_script("study.py") as module:
        words = ["planted-leaks", "--data", str(made[2].parent), "--quick", "--n-jobs", "1", "--output", str(output)]
        assert module.main(words) == 0
    return output, json.loads((output / "metrics.json").read_text(encoding="utf-8"))["results"]


def test_the_page_and_the_tables(script, finished):
    output, results = finished
    table = pd.read_csv(output / "leaks.csv", keep_default_na=False)
    assert len(table) == len(results["leaks"]) == 1 + len(script.leaks())
    assert len(script.leaks()) == N_LEAKS
    assert (table[["caught", "warned", "missed"]].sum(axis=1) == table["trials"]).all()
    page = (output / "report.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in script.leaks())
    assert [row["errors"] for row in results["false_alarms"]] == [""]


def test_what_is_found_of_each(finished):
    rows = {row["leak"]: row for row in finished[1]["leaks"]}
    assert (rows["nothing"]["missed"], rows["nothing"]["codes"]) == (1, "")
    for leak, code in FOUND_BY.items():
        assert code in rows[leak]["codes"], leak
        assert rows[leak]["missed"] == 0, leak
    assert rows["other file format by class"]["warned"] == 1


@pytest.mark.parametrize("number", range(N_LEAKS))
def test_a_leak_changes_what_it_says(script, made, number):
    dataset, prints, _ = made
    name = list(script.leaks())[number]
    before, trial = script.Trial(dataset, prints, 3), script.Trial(dataset, prints, 3)
    script.leaks()[name](trial)
    added = len(trial.frame) - len(before.frame)
    assert len(trial.prints) == len(trial.frame)
    if not name.startswith("copy"):
        assert added == (len(before.frame) if name.startswith("augmented") else 0)
        return
    assert added == 1
    train, test = trial.folds[0]
    new = trial.frame.iloc[-1]
    assert len(before.frame) in train
    assert new["patient"] in set(trial.frame["patient"][train[:-1]])
    assert new["patient"] not in set(trial.frame["patient"][test])
    copies = Fingerprints.of(trial.prints)
    same = copies.image[:-1] == copies.image[-1]
    assert same.any() == ("same pixels" in name)
    if same.any():
        source = int(np.flatnonzero(same)[0])
        assert source in test
        assert (trial.frame["label"][source] != new["label"]) == ("label" in name)


def test_copies_are_what_they_say(script, patches):
    patch, kinds = patches[0], script.copies()
    assert np.array_equal(kinds["moved 1 px right"][0](patch)[:, 1:], patch[:, :-1])
    assert np.array_equal(kinds["moved 3 px right and down"][0](patch)[3:, 3:], patch[:-3, :-3])
    assert np.array_equal(kinds["5 % darker"][0](patch), np.rint(patch * 0.95))
    views = [patch[:, ::-1], patch[::-1], np.rot90(patch), np.rot90(patch, 3)]
    found = [change(patch) for change in (*kinds["mirrored"], *kinds["turned by a quarter"])]
    assert all(np.array_equal(*pair) for pair in zip(found, views, strict=True))
    loss = [np.abs(kinds[f"JPEG, quality {quality}"][0](patch) - patch.astype(float)).mean() for quality in (90, 50)]
    assert 0 < loss[0] < loss[1]


def test_trials_are_repeated_by_their_seed(script, made, monkeypatch):
    monkeypatch.setattr(script, "PATIENTS", 8)
    few = {"split by patch": script.leaks()["split by patch"]}
    monkeypatch.setattr(script, "leaks", lambda: few)
    rows = [script.plant_leaks(*made[:2], n_trials=2, random_state=5, runtime=Runtime()) for _ in range(2)]
    assert rows[0] == rows[1]
    assert [row["caught"] for row in rows[0]] == [0, 2]
    first, again, other = (script.Trial(*made[:2], seed).frame["path"].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_false_alarms_are_named(script, made):
    dataset, prints, _ = made
    row = script.false_alarms(dataset, prints, n_splits=3)
    assert row == {
        "sample": "synthetic", "patches": 192, "patients": 24, "splits": 3, "errors": "", "warnings": "",
    }  # fmt: skip
    copied = prints.copy()
    copied[-1] = copied[0]
    assert script.false_alarms(dataset, copied, n_splits=12)["errors"] == "HF002"


@pytest.mark.long
def test_real_patches(script, real_data):
    """Long: what the tests above find in synthetic patches, by the same code, is found in real ones."""
    from histofeat.studies import load_development_patients

    dataset = load_development_patients(real_data, quick=True)
    rows = {
        row["leak"]: row
        for row in script.plant_leaks(dataset, ImageFingerprint().transform(dataset.X), n_trials=3, runtime=Runtime())
    }
    assert rows["nothing"]["codes"] == ""
    # A nearly blank patch has no hash worth comparing: one in forty, of which its copies are missed.
    assert all(rows[leak]["missed"] <= 1 for leak in FOUND_BY)
