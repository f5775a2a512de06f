"""One form of a patient id everywhere, words for missing values, ids that look alike, and slides taken for patients."""

import random
import unicodedata
import uuid
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from histofeat import IDCPipeline, PatientHoldOuts, PatientKFold, evaluate, load_image_folder, load_manifest
from histofeat.datasets import PatchDataset, find_patients, official_roles, training_part
from histofeat.datasets._parts import split_by_role
from histofeat.evaluation import AuditPolicy, cheap_findings, fair_folds, read_predictions
from histofeat.evaluation._published_rows import PROTOCOLS, sort_rows
from histofeat.exceptions import DatasetError, GroupLeakageError
from histofeat.model_selection import (
    canonical_patient,
    canonical_patients,
    check_no_shared_patients,
    encode_patients,
    look_alikes,
    slides_of_one_patient,
)

PANDAS_WORDS = pd._libs.parsers.STR_NA_VALUES


# --- the canonical form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        8863, 8863.0, np.int64(8863), np.float32(8863), np.str_("8863"), "8863", " 8863\n", "8863.0", "8863.00",
        b"8863",
        "\ufeff8863", "88\u200b63", "8863\u00a0", "\u200e8863\u200f", "88\u00ad63", "\uff18\uff18\uff16\uff13",
        "8863\u3164", "8863\ufe0f", "\u2060\u180e8863", "8863\x00",
    ],
)  # fmt: skip
def test_spellings_of_one_patient(spelling):
    assert canonical_patient(spelling) == "8863"
    assert encode_patients([spelling, "8863"], 2)[0] == ["8863"]


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("M\u00fcller", "M\u00fcller"), ("Mu\u0308ller", "M\u00fcller"), ("\ufb01g", "fig"), ("P  1", "P 1"),
        ("P\t1", "P 1"),
        ("007", "007"), ("007.0", "007"), ("p1", "p1"), ("P1", "P1"), ("-7.0", "-7"), ("3.10", "3.10"), ("3.1", "3.1"),
        ("1.0.0", "1.0.0"), ("1e5", "1e5"), (8863.5, "8863.5"), (float("inf"), "inf"), (True, "True"), ("a.0", "a.0"),
        ("nano", "nano"), ("na", "na"), ("NONE", "NONE"), ((1, 2), "(1, 2)"), ("a\udcff", "a\udcff"),
    ],
)  # fmt: skip
def test_what_stays_and_what_is_brought_to_one_form(value, form):
    assert canonical_patient(value) == form


@pytest.mark.parametrize(
    "missing",
    [None, np.nan, pd.NA, pd.NaT, "", " ", "\u200b", " NA ", "\uff2e\uff21", "#REF!", "#DIV/0!", *sorted(PANDAS_WORDS)],
)
def test_missing_ids(missing):
    assert canonical_patient(missing) == ""
    with pytest.raises(GroupLeakageError, match=r"expected a patient id for every patch, got .* at row 1 \(1 missing"):
        encode_patients(["a", missing, "b"], 3)


def test_nan_that_numpy_made_a_text():
    with pytest.raises(GroupLeakageError, match=r"got 'nan' at row 1 \(1 missing in all\)"):
        PatientKFold(2).split(range(4), [0, 1, 0, 1], np.array(["a", np.nan, "b", "c"]))
    with pytest.raises(ValueError, match=r"expected y of class labels without gaps, got <U32 values such as 'nan'"):
        PatientKFold(2).split(range(4), np.array(["t", np.nan, "n", "t"]), list("abcd"))
    with pytest.raises(ValueError, match=r"without gaps, got object values such as '#N/A'"):
        PatientKFold(2).split(range(4), np.array(["t", "#N/A", "n", "t"], dtype=object), list("abcd"))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=12))
def test_the_form_of_a_form_is_itself(text):
    form = canonical_patient(text)
    assert canonical_patient(form) == form
    assert form == form.strip()
    assert unicodedata.is_normalized("NFKC", form)
    assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in form)


def test_many_ids_and_their_speed():
    values = [7, "7.0", None, "b", 7.0, "b\u200b"]
    assert canonical_patients(values).tolist() == [canonical_patient(value) for value in values]
    calls = []
    patients = np.repeat(np.arange(279), 1000).astype(str).astype(object)

    class Counted(str):
        __slots__ = ()

        def isascii(self):
            calls.append(self)
            return super().isascii()

    first = {patient: Counted(patient) for patient in set(patients)}
    ids, codes = encode_patients([first[patient] for patient in patients], len(patients))
    assert (len(ids), len(calls), codes[-1]) == (279, 279, 278)  # one look at each distinct id, not at each row


# --- wherever ids enter ----------------------------------------------------------------------------------------------


def dataset_of(patients, y=None, **more):
    y = [row % 2 for row in range(len(patients))] if y is None else y
    paths = [f"/data/{row}.png" for row in range(len(patients))]
    frame = pd.DataFrame({"path": paths, "label": y, "patient": list(patients), "x": pd.NA, "y": pd.NA})
    return PatchDataset(frame, ("benign", "malignant"), more.pop("name", "mine"), root="/data", **more)


@pytest.fixture
def folder(tmp_path):
    """Two classes with three patients each: one under two spellings, in folders named by patient."""
    for number, (label, patient) in enumerate(
        (c, p) for c in ("benign", "tumour") for p in ("7", "7.0", " 8", "9\u200b")
    ):
        path = tmp_path / label / patient / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
    return tmp_path


def test_folders_and_expressions(folder):
    for rule in ("folder", r"^([^/]+)/", r"^(?P<patient>[^/]+)/(\d)"):
        dataset = load_image_folder(folder, patients=rule)
        assert dataset.audit.n_patients == 3
        assert sorted(set(dataset.patients)) == ["7", "8", "9"]
    assert find_patients("folder", dataset.X).tolist() == dataset.patients.tolist()
    (folder / "benign" / "NA").mkdir()
    (folder / "benign" / "7" / "0.png").rename(folder / "benign" / "NA" / "0.png")
    with pytest.raises(DatasetError, match=r"expected a patient for every image, got none for 'NA/0\.png'"):
        load_image_folder(folder, patients="folder")


def test_tables_and_mappings(folder):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    spelled = ["7", "7.0", "\uff17", "7", "8", "8 ", "9", "9.0"]
    lines = [f"{name},{name.split('/')[0]},{patient}" for name, patient in zip(names, spelled, strict=True)]
    table = folder / "table.csv"
    table.write_text("\n".join(["path,label,patient", *lines]), encoding="utf-8")
    assert load_manifest(table).audit.n_patients == 3
    for rule in (table, dict(zip(names, spelled, strict=True))):
        assert sorted(set(load_image_folder(folder, patients=rule).patients)) == ["7", "8", "9"]
        assert sorted(set(find_patients(rule, names))) == ["7", "8", "9"]
    twice = [*lines, lines[0].replace(",7", ",7.0")]  # one image twice under one patient is no contradiction
    table.write_text("\n".join(["path,label,patient", *twice]), encoding="utf-8")
    assert load_image_folder(folder, patients=table).audit.n_patients == 3


@pytest.mark.parametrize("word", ["NA", "nan", "NULL", "#N/A", "None", "n/a"])
@pytest.mark.parametrize("column", ["label", "patient"])
def test_words_for_missing_values_in_tables(folder, word, column):
    cells = {"label": "a", "patient": "1"} | {column: word}
    table = folder / "table.csv"
    name = next(folder.rglob("*.png"))
    table.write_text(f"path,label,patient\n{name},{cells['label']},{cells['patient']}\n")
    with pytest.raises(DatasetError, match=rf"line 2: .*'{column}', got '{word}'\. .*such as NA mean a missing"):
        load_manifest(table)


def test_file_names_may_be_such_words(folder):
    for name, label in (("NA", "a"), ("nan", "b")):
        next(folder.rglob("*.png")).rename(folder / name)
        with (folder / "table.csv").open("a") as file:
            file.write("path,label,patient\n" * (label == "a") + f"{name},{label},{label}\n")
    assert len(load_manifest(folder / "table.csv")) == 2


def test_data_sets_official_splits_and_lists(tmp_path):
    dataset = dataset_of(["8863", "8863.0", " 8864", "8864\u200b"])
    assert dataset.patients.tolist() == ["8863", "8863", "8864", "8864"]
    assert dataset.audit.n_patients == 2
    with pytest.raises(DatasetError, match=r"expected text in the column 'patient', got 'NULL' in row 1"):
        dataset_of(["a", "NULL", "b"])
    only = tmp_path / "only.txt"
    only.write_text("8863.0\n\n", encoding="utf-8")
    assert training_part(dataset, only=only).patients.tolist() == ["8863", "8863"]
    only.write_text("NA\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="expected patients of mine, got 'NA'"):
        training_part(dataset, only=only)
    listed = [patient for patient, role in official_roles().items() if role == "train"][:2]
    official = dataset_of([listed[0] + ".0", listed[0], listed[1] + " "], name="IDC").official_split()
    assert (official.train.tolist(), official.n_patients["train"]) == ([0, 1, 2], 2)
    spelled = split_by_role(np.array([f"0{listed[0]}", f" {listed[1]}"]), {f"{listed[1]}.0": "test"})
    assert (spelled.test.tolist(), spelled.unlisted.tolist(), spelled.missing["test"]) == ([1], [0], ())


def test_rows_of_predictions(tmp_path):
    listed = official_roles()
    patient = next(one for one, role in listed.items() if role == "train")
    protocol = replace(PROTOCOLS["idc-official"], roles=lambda: {f" {patient}.0": "train"})
    (tmp_path / "t.csv").write_text(f"patch,score\n{patient}_idx5_x1_y51_class0.png,0.25\n")
    assert sort_rows(read_predictions(tmp_path / "t.csv"), protocol)["role"].tolist() == ["train"]
    assert protocol.patients("train") == (patient,)


def test_shared_patients_are_found_through_spellings():
    with pytest.raises(GroupLeakageError, match="expected no patient on both sides, got 1: '7'"):
        check_no_shared_patients([0], [1], ["7", "7.0"])


# --- ids that look alike ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair",
    [
        ("7", "007"), ("P1", "p1"), ("P01", "P1"), ("P_1", "P-1"), ("P 1", "P_1"), ("2019_0012", "2019-12"),
        ("0", "00"),        ("Stra\u00dfe", "STRASSE"), ("\u0663", "3"), ("a\u20131", "a-1"),
    ],
)  # fmt: skip
def test_pairs_that_look_alike(pair):
    assert look_alikes([*pair, "other", pair[0]]) == [tuple(sorted(pair))]
    found = cheap_findings(dataset_of([*pair, "x", "y"]), [([0, 1], [2, 3])]).finding("HF009")
    assert found.is_error
    assert found.offenders == (f"patients {' and '.join(sorted(pair))}",)


@pytest.mark.parametrize("pair", [("1-23", "12-3"), ("3.1", "3.10"), ("-1", "1"), ("P1", "P10"), ("70", "7")])
def test_pairs_that_differ(pair):
    assert look_alikes(pair) == []


def test_refused_by_code_and_accepted_by_code(cohort):
    spelled = ["0" + patient if row % 2 else patient for row, patient in enumerate(cohort.patients)]
    dataset = PatchDataset(cohort.frame.assign(patient=spelled), cohort.target_names, "spelled", synthetic=True)
    assert dataset.audit.n_patients == 2 * cohort.audit.n_patients
    more = {"cv": PatientKFold(2), "n_resamples": 0}
    with (
        pytest.warns(UserWarning, match="groups has patient ids that differ only in case, zeros or dashes: '0"),
        pytest.raises(GroupLeakageError, match=r"HF009 patient ids that look alike: expected none, got .*: patients 0"),
    ):
        evaluate(dataset, IDCPipeline("color"), **more)
    with pytest.warns(UserWarning, match="They count as different patients"):
        accepted = evaluate(dataset, IDCPipeline("color"), audit=AuditPolicy(accept_findings=("HF009",)), **more)
    assert accepted.audit.accepted == ("HF009",)


@pytest.mark.filterwarnings("ignore:PatientKFold")
def test_studies_refuse_and_accept_them_too():
    y, cv = [0, 1] * 6, [(range(6), range(6, 12)), (range(6, 12), range(6))]
    for code, ids in (("HF009", ["7", "007", *"abcdefghij"]), ("HF010", slides("P{}_{}")[:12])):
        dataset = dataset_of(ids, y)
        with pytest.raises(GroupLeakageError, match=f"{code} .*accept_findings"):
            fair_folds(cv, dataset, IDCPipeline("color"), owner="study", audit=None, runtime=None)
        policy = AuditPolicy(accept_findings=(code,))
        assert fair_folds(cv, dataset, IDCPipeline("color"), owner="study", audit=policy, runtime=None).accepted == (
            code,
        )


@pytest.mark.parametrize("splitter", [PatientKFold(2), PatientHoldOuts(2)])
def test_splitters_warn_at_the_call(splitter):
    groups, y = [*"abcdef", "7", "007"], [0, 1] * 4
    with pytest.warns(UserWarning, match=f"{type(splitter).__name__}: groups has .* '007' and '7'\\. They") as caught:
        list(splitter.split(groups, y, groups))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(splitter.split(groups, y, [*"abcdefgh"]))


def test_images_without_patients_say_nothing():
    names = ["1_1.png", "01_1.png", "A.png", "a.png"]
    frame = pd.DataFrame({"path": [f"/data/{name}" for name in names], "label": [0, 1, 0, 1], "patient": names})
    dataset = PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("benign", "malignant"), "mine", root="/data")
    report = cheap_findings(dataset, [([0, 1], [2, 3])])
    for code in ("HF009", "HF010"):
        assert (report.finding(code).status, report.finding(code).offenders) == ("not applicable", ())


# --- slides taken for patients ---------------------------------------------------------------------------------------

RNG = random.Random(0)
SCHEMES = {
    "patient_1": [f"patient_{n}" for n in range(1, 41)],
    "P_01": [f"P_{n:02}" for n in range(1, 41)],
    "case-12": [f"case-{n}" for n in range(1, 41)],
    "case 7": [f"case {n}" for n in range(1, 10)],
    "IDC": ["8863", "8864", "8865", "8867", "8913", "8914", "9022", "9023", "10253", "10254", "12749", "13404"],
    "BreakHis": ["14-22549", "14-4659", "14-9461", "15-2523", "14-13412", "14-18842", "15-57", "14-16188", "14-3909"],
    "TCGA": [f"TCGA-{site}-A{n}SB" for site in ("A1", "A2", "BH") for n in range(10, 20)],
    "year and number": [f"{year}_{n:04}" for year in (2018, 2019, 2020) for n in (1, 2, 12)],
    "year and running number": [f"{year}-{n}" for year in (2018, 2019, 2020) for n in (1, 2, 3)],
    "UUID": [str(uuid.UUID(int=RNG.getrandbits(128), version=4)) for _ in range(40)],
    "hash": [f"{RNG.getrandbits(32):08x}" for _ in range(200)],
    "site and subject": [f"{site:02}-{n:03}" for site in (1, 2, 3) for n in (1, 2, 3)],
    "site and number": [f"site{s}_{n}" for s in "ABC" for n in range(1, 4)],
    "hospital and running number": [f"H{1 + n // 2}_{n}" for n in range(1, 21)],
    "study and number": [f"S{study}_{n}" for study in (1, 2) for n in range(1, 21)],
    "CPTAC": [f"C3L-{n:05}" for n in RNG.sample(range(4000), 20)]
    + [f"C3N-{n:05}" for n in RNG.sample(range(4000), 20)],
    "BIDS": [f"sub-{n:02}" for n in range(1, 21)],
    "letters": [f"{c}{n}" for c in "ABCD" for n in range(1, 6)],
    "initials": ["AB", "AC", "BD", "JD", "KL", "MN"],
    "initials and sex": ["AB-M", "AC-F", "BD-F", "JD-M", "KL-F", "MN-F"],
    "accession": [f"S19-{n}" for n in RNG.sample(range(1000, 9999), 30)],
    "day and number": [f"201903{day:02}_{n}" for day in (4, 5, 6, 7) for n in (1, 2)],
    "DICOM UID": [f"1.3.6.1.4.1.14519.5.2.1.{RNG.getrandbits(80)}" for _ in range(20)],
    "names": ["anna", "bertha", "clara", "dora"],
    "trial": [f"NCT0123-{site:02}-{n:03}" for site in (1, 2) for n in range(1, 8)],
    "Camelyon17": [f"patient_{n:03}" for n in range(100)],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_common_schemes_are_silent(scheme):
    ids = SCHEMES[scheme]
    assert len(set(ids)) == len(ids)
    assert look_alikes(ids) == []
    assert slides_of_one_patient(ids) == {}
    report = cheap_findings(dataset_of(ids), [(range(len(ids) // 2), range(len(ids) // 2, len(ids)))])
    assert report.finding("HF009").status == report.finding("HF010").status == "passed"


def slides(form, n_patients=8, counts=(1, 2, 3)):
    """Ids of eight patients with one to three slides each; six have two or more."""
    return [form.format(p, s) for p in range(1, n_patients + 1) for s in range(1, counts[p % 3] + 1)]


@pytest.mark.parametrize(
    ("ids", "n_groups"),
    [
        ([*slides("P{}_{}")], 6),
        ([*slides("{}-DX{}")], 6),
        ([*slides("88{}_slide_{}")], 6),
        ([f"case-{p}-{s}" for p in range(5) for s in "AB"], 5),
        ([f"88{p}{s}" for p in range(10, 20) for s in ("_a", "_b")], 10),
        ([f"{name}_{s}" for name in ("anna", "bert", "carl", "dora", "emil", "fred") for s in (1, 2)], 6),
        ([f"patient_{p:03}_node_{s}" for p in range(100) for s in range(5)], 100),
        (["12", "12_2", "13", "14", "15", "16"], 1),
        (["12_1", "12_2", *map(str, range(20, 60))], 1),
        ([f"C3L-0{p}-{s}" for p in range(1000, 1010) for s in (21, 22)], 10),
        ([f"{p}-{side}" for p in range(10, 16) for side in "LR"], 6),
        (["TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB-01Z-00-DX2", "TCGA-A2-A0T2-01A-01-TS1", "8863"], 1),
        (["TCGA-A1-A0SB", "TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SC", "TCGA-A1-A0SD_2"], 1),
        (["TCGA-A1-A0SB-01Z-00-DX1.F9C", "tcga-a1-a0sb-06", "TCGA-A2-A0T2-01"], 1),
    ],
)  # fmt: skip
def test_slides_are_found(ids, n_groups):
    groups = slides_of_one_patient(ids)
    assert len(groups) == n_groups
    assert all(len(names) > 1 and set(names) <= set(ids) for names in groups.values())
    found = cheap_findings(dataset_of(ids), [(range(len(ids) // 2), range(len(ids) // 2, len(ids)))]).finding("HF010")
    assert found.is_error
    assert len(found.offenders) == found.numbers["patients"] == n_groups


def test_tcga_rule(tmp_path):
    barcodes = [f"TCGA-A1-A0S{p}-01Z-00-DX{s}" for p in "BCDE" for s in (1, 2)]
    names = []
    for number, barcode in enumerate(barcodes):
        path = tmp_path / "ab"[number % 2] / f"x{number}" / f"{barcode}.{number:08x}_tile_3.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(path)
        names.append(str(path.relative_to(tmp_path)))
    expected = [f"TCGA-A1-A0S{p}" for p in "BCDE" for _ in (1, 2)]
    assert find_patients("tcga", names).tolist() == expected
    dataset = load_image_folder(tmp_path, patients="tcga")
    assert sorted(set(dataset.patients)) == sorted(set(expected))
    table = tmp_path / "table.csv"
    for header, cells in (("path,label,patient", barcodes), ("path,label", None)):
        lines = [f"{name},{name[0]}" + (f",{cells[row]}" if cells else "") for row, name in enumerate(names)]
        table.write_text("\n".join([header, *lines]))
        assert load_manifest(table, patients="tcga").patients.tolist() == expected
    table.write_text("\n".join(["path,label,patient", *(f"{name},{name[0]},8863" for name in names)]))
    with pytest.raises(DatasetError, match=r"patients: expected the patient of each image .*, got none for 8863"):
        load_manifest(table, patients="tcga")
    table.write_text(
        "\n".join(["path,label,patient", *(f"{n},{n[0]},{b}" for n, b in zip(names, barcodes, strict=True))])
    )
    slide_as_patient = load_manifest(table, positive="b")
    halves = {"cv": [([0, 1, 2, 3], [4, 5, 6, 7])], "inner_cv": PatientKFold(2), "n_resamples": 0}
    with pytest.raises(GroupLeakageError, match=r"HF010 slides as patients: .* patients=\"tcga\" reads it from TCGA"):
        evaluate(slide_as_patient, IDCPipeline("color"), **halves)
