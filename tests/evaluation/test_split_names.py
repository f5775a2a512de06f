"""Splits audited by their names: planted faults of every rule are found, clean splits in twenty schemes of ids pass."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import load_published_split, read_split
from histofeat.datasets._split_tables import split_of
from histofeat.evaluation import audit_names, repair_split

#: Twenty schemes: the id of a patient by its number, and the name of an image, "" for a list of ids.
SCHEMES = {
    "numbers": (lambda n: f"{8800 + 37 * n}", ""),
    "zeros": (lambda n: f"P{n:03}", ""),
    "hospital": (lambda n: f"{'ABC'[n % 3]}-{n:04}", ""),
    "hash": (lambda n: hashlib.md5(str(n).encode()).hexdigest()[:12], ""),
    "bids": (lambda n: f"sub-{n:02}", ""),
    "case": (lambda n: f"case_{n:03}", ""),
    "accession": (lambda n: f"S{12 + n % 4}-{3000 + n}", ""),
    "gtex": (lambda n: f"GTEX-{1000 + n}F", ""),
    "letters": (lambda n: f"{'ABCDEFGH'[n // 8]}{'KLMNOPQR'[n % 8]}X", ""),
    "year": (lambda n: f"{2015 + n % 5}-{n:04}", ""),
    "bracs": (lambda n: f"BRACS_{n:03}", ""),
    "breakhis": (lambda n: f"14-{9000 + n}", "SOB_{c}_DC-{p}-40-{k:03}.png"),
    "idc": (lambda n: f"{9000 + n}", "{p}_idx5_x{x}_y{y}_class{l}.png"),
    "tcga tiles": (lambda n: f"TCGA-{'ABCD'[n % 4]}1-A{n:03}", "{p}-01Z-00-DX1/{k}.png"),
    "tcga slides": (lambda n: f"TCGA-{'ABCD'[n % 4]}1-A{n:03}", "{p}-01Z-00-DX{k}"),
    "camelyon": (lambda n: f"patient_{n:03}", "{p}_node_{k}"),
    "column": (lambda n: f"P{n}", "images/{h}.png"),
    "folder": (lambda n: f"P{n}", "{p}/{k:04}.jpg"),
    "cptac": (lambda n: f"C3L-{n:05}", "{p}-2{k}.svs"),
    "tiles": (lambda n: f"{n:03}", "slide{p}/x{x}_y{y}.png"),
}
N_PATIENTS, N_IMAGES = 40, 2


def table_of(scheme, seed=0):
    """Rows of a clean split by patient, with the classes in proportion."""
    rng, (patient, form) = np.random.default_rng(seed), SCHEMES[scheme]
    rows = []
    for place, n in enumerate(rng.permutation(N_PATIENTS)):
        label, part = place % 2, ("train", "train", "train", "validation", "test")[place // 2 % 5]
        for k in range(N_IMAGES if form else 1):
            facts = {
                "p": patient(int(n)),
                "k": k + 1,
                "l": label,
                "c": "BM"[label],
                "x": 1 + 50 * k,
                "y": 1 + 50 * int(n),
            }
            facts["h"] = hashlib.md5(f"{n}.{k}".encode()).hexdigest()
            rows.append((form.format(**facts) or facts["p"], facts["p"], ("benign", "malignant")[label], part))
    table = pd.DataFrame(rows, columns=["path", "patient", "label", "part"]).assign(hold_out="")
    tells = scheme in ("breakhis", "idc", "tcga tiles", "tcga slides", "camelyon")
    return table.drop(columns="patient") if tells or (not form and seed) else table


def test_clean_splits_pass_in_twenty_schemes():
    assert len(SCHEMES) == 20
    found = {
        (scheme, seed): audit_names(split_of(table_of(scheme, seed), "made.csv"))
        for scheme in SCHEMES
        for seed in (0, 1)
    }
    assert {key: report.errors for key, report in found.items() if report.errors} == {}
    assert sum(len(report.warnings) for report in found.values()) <= 1


def of_part(table, part, n=0):
    return table.index[table["part"] == part][n]


def shared(table):
    """A patient has an image in training and one in the test."""
    table.loc[of_part(table, "train"), "patient"] = table.loc[of_part(table, "test"), "patient"]
    return table


def siblings(table):
    first, second = (table["patient"] == table.loc[of_part(table, part), "patient"] for part in ("train", "test"))
    table.loc[first, "patient"], table.loc[second, "patient"] = "14-77001", "14-77001CD"
    return table


def spelt(table):
    first, second = (table["patient"] == table.loc[of_part(table, part), "patient"] for part in ("train", "test"))
    table.loc[first, "patient"], table.loc[second, "patient"] = "Q-07", "q_7"
    return table


def slides(table):
    return table.assign(
        patient=table["patient"].str.replace(r"\W", "", regex=True) + "_" + (table.index % 2 + 1).astype(str)
    )


def lost(table):
    return table[(table["part"] != "test") | (table["label"] == "benign")].reset_index(drop=True)


def few(table):
    carriers = table["patient"][(table["part"] == "test") & (table["label"] == "benign")].unique()
    return table[~table["patient"].isin(carriers[2:])].reset_index(drop=True)


def told(table):
    return table.assign(path=np.where(table["label"] == "benign", "north-", "south-") + table["path"])


def repeated(table):
    again = table.loc[[of_part(table, "train")]].assign(part="test")
    return pd.concat([table, again], ignore_index=True)


def overlapping(table):
    table = table.assign(x=100 * table.index, y=0, size=60)
    first, second = of_part(table, "train"), of_part(table, "test")
    return shared(table).assign(x=table["x"].where(table.index != first, table.loc[second, "x"] + 30))


def known(table):
    barcodes = table["patient"].map(lambda name: f"TCGA-A1-{hashlib.md5(name.encode()).hexdigest()[:4].upper()}/")
    return table.assign(path=barcodes + table["path"])


FAULTS = {
    "HF001": shared, "HF004": lost, "HF005": siblings, "HF007": known, "HF009": spelt, "HF010": slides,
    "HF012": repeated, "HF013": told, "HF014": overlapping, "HF015": few,
}  # fmt: skip


@pytest.mark.parametrize("code", FAULTS)
def test_planted_faults_of_every_rule_are_found(code):
    for scheme in ("column", "folder", "cptac", "tiles"):
        table = FAULTS[code](table_of(scheme))
        split = split_of(table, "made.csv")
        encoder = "ctranspath" if code == "HF007" else None
        report = audit_names(split, encoder=encoder)
        assert report.finding(code).status == "issue", scheme
        # A patient on two sides is what a repeated name and overlapping patches are as well.
        more = {"HF012": {"HF001", "HF014"}, "HF014": {"HF001"}, "HF010": {"HF001", "HF013"}, "HF004": {"HF015"}}.get(
            code, set()
        )
        assert {each.code for each in (*report.errors, *report.warnings)} - more == {code}, scheme
        if code in ("HF001", "HF005", "HF009", "HF012", "HF014"):
            repaired, changes = repair_split(split)
            assert not {each.code for each in audit_names(repaired).errors} - {"HF009"}
            assert 1 <= len(changes) <= 3
            sizes = [places["part"].value_counts() for places in (split.places, repaired.places)]
            assert (sizes[0] - sizes[1]).abs().max() <= 4


def test_what_is_found_is_named():
    report = audit_names(split_of(overlapping(table_of("tiles")), "made.csv"))
    (words,) = report.finding("HF014").offenders
    assert " overlaps slide" in words
    assert (
        audit_names(split_of(overlapping(table_of("tiles")).assign(size=30), "m")).finding("HF014").status == "passed"
    )
    report = audit_names(split_of(repeated(table_of("folder")), "made.csv"))
    assert report.finding("HF012").severity == "error"
    table = table_of("folder")
    twice = pd.concat([table, table.head(1)], ignore_index=True)
    assert [each.code for each in audit_names(split_of(twice, "made.csv")).warnings] == ["HF012"]
    assert repair_split(split_of(twice, "made.csv"))[1] == (f"{table['path'][0]}: listed once",)
    found = audit_names(split_of(told(table_of("column")), "made.csv")).finding("HF013")
    assert found.offenders == ("part 1 (north, south) tells the class of 100.0%",)


def test_names_tell_siblings_that_the_column_of_patients_hides():
    names = {
        "TCGA-A1-A0SB": ["TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB-01A-02-TS2"],
        "patient_012": ["patient_012_node_0", "patient_012_node_4"],
        "22549": ["SOB_B_A-14-22549AB-40-001.png", "SOB_B_A-14-22549CD-40-001.png"],
        "8863": ["8863_idx5_x1_y1_class0.png", "8863_idx5_x51_y1_class0.png"],
    }
    for number, two in names.items():
        table = pd.DataFrame({"path": two, "patient": ["p", "q"], "part": ["train", "test"], "hold_out": ""})
        found = audit_names(split_of(table, "made.csv")).finding("HF005")
        assert found.offenders == (f"number {number} in fold 1: q tested, p trained on; 1 of 1 tested images",)
        others = [two[0].replace(number[-3:], digits) for digits in ("777", "666")]
        more = table.assign(path=others, patient=["r", "s"])
        repaired, changes = repair_split(split_of(pd.concat([table, more], ignore_index=True), "made.csv"))
        assert audit_names(repaired).errors == ()
        assert len(changes) == 1


def test_encoders_and_patients_that_they_know():
    idc = load_published_split("idc-official")
    known = audit_names(idc, encoder="histo").finding("HF007")
    assert known.is_error
    assert "patient 8867" in known.offenders
    assert audit_names(idc, encoder="uni").finding("HF007").status == "passed"
    assert audit_names(load_published_split("breakhis-eva"), encoder="histo").finding("HF007").status == "passed"
    with pytest.raises(ValueError, match="expected the name of an encoder, got 'unii'"):
        audit_names(idc, encoder="unii")


def test_the_published_splits_as_they_are_and_repaired():
    eva = load_published_split("breakhis-eva")
    report = audit_names(eva)
    found = report.finding("HF005")
    assert [each.code for each in report.errors] == ["HF005"]
    assert [words.partition(":")[2] for words in found.offenders] == [
        " 14-16184CD tested, 14-16184 trained on; 35 of 339 tested images",
        " 14-18842D tested, 14-18842 trained on; 16 of 339 tested images",
        " 14-19979 tested, 14-19979C trained on; 26 of 339 tested images",
        " 14-23060CD tested, 14-23060AB trained on; 14 of 339 tested images",
    ]
    assert found.numbers == {"pairs": 4, "images": 91}
    assert audit_names(load_published_split("breakhis-thunder")).finding("HF005").numbers["images"] == 91
    assert audit_names(load_published_split("idc-official")).errors == ()
    for name in ("breakhis-eva", "breakhis-eva-2024", "breakhis-thunder"):
        repaired, changes = repair_split(load_published_split(name))
        assert audit_names(repaired).errors == ()
        assert len(changes) <= 7


def test_a_list_of_the_images_of_eva(tmp_path):
    eva = load_published_split("breakhis-eva")
    table = eva.to_frame().assign(n=eva.dataset.frame["n_images"])
    names = [
        (f"{row.path.replace('_14-', '-14-')}-40-{k:03}.png", row.part)
        for row in table.itertuples()
        for k in range(int(row.n))
    ]
    lists = pd.DataFrame(names, columns=["path", "part"]).groupby("part")["path"].agg(list)
    lists.to_json(tmp_path / "eva.json")
    found = audit_names(read_split(tmp_path / "eva.json")).finding("HF005")
    assert found.numbers == {"pairs": 4, "images": 91}
    assert all("of 339 tested images" in words for words in found.offenders)


def test_dsfold_lists_have_one_slide_under_two_subtypes(tmp_path):
    slides = [("SOB_M_DC-14-13412", "train"), ("SOB_M_LC-14-13412", "test"), ("SOB_M_DC-14-2523", "train")]
    slides += [("SOB_B_F-14-23060AB", "train"), ("SOB_B_F-14-23060CD", "test"), ("SOB_B_A-14-29960CD", "train")]
    lines = [f"{slide}-40-{k:03}.png|40|1|{part}" for slide, part in slides for k in (1, 2)]
    (tmp_path / "dsfold1.txt").write_text("\n".join(lines))
    report = audit_names(read_split(tmp_path / "dsfold1.txt"))
    assert report.finding("HF001").offenders == ("patient 14-13412 in fold 1",)
    assert report.finding("HF005").offenders == (
        "number 14-23060 in fold 1: 14-23060CD tested, 14-23060AB trained on; 2 of 4 tested images",)  # fmt: skip


def test_images_add_what_pixels_tell(cohort):
    parts = np.where(cohort.patients < "900008", "train", "test")
    table = pd.DataFrame({"path": cohort.relative_paths, "patient": cohort.patients, "part": parts, "hold_out": ""})
    split = split_of(table, "made.csv")
    report = audit_names(split, images=cohort)
    assert report.finding("HF002").status == "passed"
    more = pd.concat(
        [table, pd.DataFrame([("900001/0/900001_idx5_x9_y9_class0.png", "900001", "train", "")], columns=list(table))]
    )
    with pytest.warns(
        UserWarning, match=r"Names of the split without an image: 1, such as '900001/0/900001_idx5_x9_y9_class0\.png'"
    ):
        audit_names(split_of(more.reset_index(drop=True), "made.csv"), images=cohort)
