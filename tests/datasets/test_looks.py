"""Registered test patients: whom a look finds, and the ledger that it is written into."""

import csv

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import (
    LEDGER_COLUMNS,
    REGISTERED_TESTS,
    Ledger,
    Look,
    PatchDataset,
    RegisteredTest,
    make_cohort,
    official_roles,
    registered_patients,
)
from histofeat.evaluation import look_at
from histofeat.features import Runtime

TEST = [patient for patient, role in official_roles().items() if role == "test"]
TRAIN = [patient for patient, role in official_roles().items() if role == "train"]
HEADER = ",".join(LEDGER_COLUMNS)


def names_of(patients):
    return [f"folder/{patient}_idx5_x{50 * x + 1}_y1_class{x}.png" for patient in patients for x in (0, 1)]


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def dataset_of(patients, ids=None, **more):
    paths = names_of(patients)
    frame = {"path": paths, "label": [0, 1] * len(patients), "patient": np.repeat(ids or patients, 2), "x": 1, "y": 1}
    return PatchDataset(pd.DataFrame(frame), ("no IDC", "IDC"), "mine", **more)


# --- who is registered -----------------------------------------------------------------------------------------------


def test_the_register_holds_the_official_patients():
    assert len(TEST) == 49
    assert registered_patients(TEST, names_of(TEST)) == registered_patients(TEST) == {"idc-official": 49}
    assert registered_patients(TRAIN, names_of(TRAIN)) == {}


def test_names_of_files_count_whatever_the_ids_are():
    assert registered_patients(["a", "b"], names_of([TEST[0], TRAIN[0]])) == {"idc-official": 1}
    assert registered_patients(["a"], [rf"C:\data\{TEST[1]}idx5x1y1class0.png"]) == {"idc-official": 1}


def test_ids_alone_count_where_they_are_many():
    assert registered_patients(map(float, TEST)) == {"idc-official": 49}
    assert registered_patients(f" {patient}\u200b" for patient in TEST) == {"idc-official": 49}
    assert registered_patients([*TEST, *(f"p{number}" for number in range(190))]) == {"idc-official": 49}
    # Other data sets have numbers as ids, too.
    assert registered_patients(TEST[:4]) == {}
    assert registered_patients(range(1, 20_000)) == {}


def test_a_list_of_ones_own_is_noticed(monkeypatch):
    own = RegisteredTest(lambda: {"p1": "test", "p2": "train"}, lambda name: None)
    monkeypatch.setitem(REGISTERED_TESTS, "mine", own)
    monkeypatch.setattr("histofeat.datasets._looks._FEWEST", 1)
    assert registered_patients(["p1", "p2"]) == {"mine": 1}
    assert own.trained_on(["p2", "p3"]) == "train+unlisted"


# --- looks -----------------------------------------------------------------------------------------------------------


def test_one_fold_of_registered_patients_is_official_and_any_other_a_cross_validation():
    dataset, runtime = dataset_of([*TEST[:2], *TRAIN[:2]]), Runtime()
    tested, others = np.arange(4), np.arange(4, 8)
    look = look_at(dataset, [(others, tested)], runtime)
    assert look.facts | {"kind": "official", "trained_on": "train", "registered": "idc-official:2"} == look.facts
    assert (look.facts["n_test_patients"], look.facts["n_test_patches"], look.facts["n_patches"]) == (2, 4, 8)
    assert look_at(dataset, [(tested, others)], runtime) is None
    folds = [(others, tested), (tested, others)]
    assert look_at(dataset, folds, runtime).facts["kind"] == "cross-validation"
    assert look_at(dataset, folds, runtime).facts["trained_on"] == "train+test"
    wide = [(others[:2], np.arange(6))]
    assert look_at(dataset, wide, runtime).facts["kind"] == "cross-validation"
    assert look_at(dataset, wide, runtime, "perturbed").facts["kind"] == "perturbed"


def test_made_up_images_are_no_look(tmp_path):
    assert look_at(dataset_of(TEST, synthetic=True), [([0, 1], [2, 3])], Runtime()) is None
    cohort = make_cohort(n_patients=4, patches_per_patient=4)
    assert registered_patients(cohort.patients, cohort.X) == {}


def test_a_look_without_a_ledger_says_so_and_writes_nothing(tmp_path):
    look = Look.at((TEST, ()), TRAIN)
    assert look.record([{"pipeline": "lbp"}]) == (
        "Tests 49 registered patients (idc-official). No ledger was given, so this look was written down nowhere."
    )
    assert not list(tmp_path.iterdir())


def test_lines_of_one_command_are_one_look(tmp_path):
    path = tmp_path / "new" / "ledger.csv"
    for number, command in enumerate(("first", "second")):
        ledger = Ledger(path, command, "1a2b3c4", f"2026-01-0{number + 1}")
        for kind in ("official", "perturbed"):
            look = Look.at((TEST, names_of(TEST[:1])), TRAIN, kind=kind, ledger=ledger, data="IDC", n_patches=9)
            words = look.record([{"pipeline": "a, b", "roc_auc": 0.5}, {"pipeline": "c"}])
    assert words == (
        "Tests 49 registered patients (idc-official). Looks in the ledger, with this one: 2 official, 2 perturbed."
    )
    assert path.read_text().splitlines()[0] == HEADER
    lines = lines_of(path)
    assert len(lines) == 8
    assert [line["command"] for line in lines] == ["first"] * 4 + ["second"] * 4
    assert lines[0] | {
        "date": "2026-01-01", "commit": "1a2b3c4", "pipeline": "a, b", "data": "IDC", "roc_auc": "0.500000",
        "f1_tuned": "", "trained_on": "train", "kind": "official", "registered": "idc-official:49",
    } == lines[0]  # fmt: skip


def test_a_path_is_a_ledger_and_each_call_is_a_look(tmp_path, monkeypatch):
    import histofeat

    ledger = Runtime(ledger=tmp_path / "ledger.csv").ledger
    assert ledger == Ledger.of(str(tmp_path / "ledger.csv"))
    ledger.append([{"pipeline": "a"}])
    (line,) = lines_of(ledger.path)
    assert line["commit"] == f"histofeat {histofeat.__version__}"
    assert line["date"].endswith("+00:00")
    with pytest.raises(ValueError, match=r"ledger: expected a path, got 3\. Give the path"):
        Runtime(ledger=3)


# --- the file --------------------------------------------------------------------------------------------------------


def test_lines_of_earlier_versions_stay_as_they_are_and_are_official_looks(tmp_path):
    path = tmp_path / "ledger.csv"
    lines = '2026-01-01,abc,"lbp, svm",IDC,9,2,4,0.9,0.8,0.7,train,f1\n2026-01-01,abc,lbp,IDC,9,2,4,0.9,,,train,f1\n'
    path.write_text(f"{HEADER}\n{lines}")
    Ledger(path).open()
    assert path.read_text() == f"{HEADER}\n{lines}"
    assert Ledger(path).looks() == {"official": 1}
    assert Ledger(path).append([{"kind": "cross-validation"}]) == {"cross-validation": 1, "official": 1}
    assert path.read_text().startswith(f"{HEADER}\n{lines}")


def test_an_open_last_line_is_mended_and_a_ledger_that_is_gone_comes_back(tmp_path):
    path = tmp_path / "ledger.csv"
    Ledger(path).open()
    assert path.read_text() == f"{HEADER}\n"
    path.write_text(f"{HEADER}\n2026-01-01,abc,somebody's")
    assert Ledger(path).append([{"kind": "official"}]) == {"official": 2}
    assert path.read_text().startswith(f"{HEADER}\n2026-01-01,abc,somebody's\n20")
    path.unlink()
    assert Ledger(path).append([{"kind": "official"}]) == {"official": 1}


def test_foreign_files_and_folders_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_bytes(b"\xff\xfe,price\n")
    for attempt in (Ledger(path).open, lambda: Ledger(path).append([{}])):
        with pytest.raises(ValueError, match=r"ledger: expected a file with the ledger's header, got .*prices.csv"):
            attempt()
    with pytest.raises(ValueError, match="ledger: expected a file, got the folder"):
        Ledger(tmp_path).open()
    assert path.read_bytes() == b"\xff\xfe,price\n"


def test_a_ledger_that_cannot_be_written_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match=r"ledger: expected a file that can be written, got FileExistsError for a.csv"):
        Ledger(tmp_path / "file" / "a.csv").open()
