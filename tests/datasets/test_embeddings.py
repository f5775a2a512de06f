"""Embeddings from every layout that is read, and what is refused by name."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import load_embeddings, match_rows, open_dataset
from histofeat.exceptions import DatasetError, MissingExtraError

LABELS = ["benign", "tumour", "benign", "tumour"]
PATIENTS = ["7", "7", "9", "9"]
PATHS = [f"{patient}/{row}.png" for row, patient in enumerate(PATIENTS)]
VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [256, 0], [0, 256], [256, 256]])
SLIDES = {"patients": r"^(TCGA-\w\w-\w{4})", "labels": pd.DataFrame({"slide": ["TCGA-A1-A0SB-1", "TCGA-B2-C3D4-1"],
          "label": ["benign", "tumour"]})}  # fmt: skip


def table(**more):
    return pd.DataFrame({"path": PATHS, "label": LABELS, "patient": PATIENTS, **more})


def wide(**more):
    return table(**more).join(pd.DataFrame(VALUES).add_prefix("f"))


def write_hdf5(file, **arrays):
    h5py = pytest.importorskip("h5py")
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        for name, values in arrays.items():
            opened[name] = values
    return file


def check(found, values=VALUES):
    assert found.columns.to_numpy().tolist() == values.tolist()
    assert found.columns.to_numpy().dtype == np.float32
    assert found.target_names == ("benign", "tumour")
    assert found.y.tolist() == [0, 1, 0, 1]
    assert found.patients.tolist() == PATIENTS
    assert found.X.tolist() == PATHS


def test_tables(tmp_path):
    wide().to_parquet(tmp_path / "a.parquet")
    check(load_embeddings(tmp_path / "a.parquet"))
    wide().set_index("path").to_parquet(tmp_path / "indexed.parquet")
    check(load_embeddings(tmp_path / "indexed.parquet"))
    wide().rename(columns={"path": "filename", "label": "class", "patient": "case_id"}).to_csv(
        tmp_path / "b.csv", sep=";"
    )
    check(load_embeddings(tmp_path / "b.csv"))
    table(embedding=list(VALUES)).to_parquet(tmp_path / "c.parquet")
    found = load_embeddings(tmp_path / "c.parquet")
    check(found)
    assert list(found.columns) == ["embedding_0", "embedding_1", "embedding_2"]


def test_ids_stay_text(tmp_path):
    wide().assign(patient=["007", "007", "09", "09"]).to_csv(tmp_path / "a.csv", index=False)
    assert load_embeddings(tmp_path / "a.csv").patients.tolist() == ["007", "007", "09", "09"]


def test_npz(tmp_path):
    known = {"path": np.array(PATHS), "label": np.array(LABELS), "patient": np.array(PATIENTS)}
    np.savez(tmp_path / "a.npz", VALUES, **known, coords=COORDS)
    found = load_embeddings(tmp_path / "a.npz")
    check(found)
    assert found.frame["x"].tolist() == [0, 256, 0, 256]


@pytest.mark.parametrize(("name", "extra_axis"), [("features", True), ("feats", False)])
def test_a_folder_of_slides_as_trident_and_stamp_write_it(tmp_path, name, extra_axis):
    for number, slide in enumerate(("TCGA-A1-A0SB-1", "TCGA-B2-C3D4-1")):
        rows = VALUES[2 * number : 2 * number + 2]
        arrays = {name: rows[np.newaxis] if extra_axis else rows, "coords": COORDS[:2] + 0.3}
        write_hdf5(tmp_path / "uni" / f"{slide}.h5", **arrays)
    found = load_embeddings(tmp_path / "uni", **SLIDES)
    assert found.X[1] == "TCGA-A1-A0SB-1_x256_y0"
    assert found.patients.tolist() == ["TCGA-A1-A0SB"] * 2 + ["TCGA-B2-C3D4"] * 2
    assert found.y.tolist() == [0, 0, 1, 1]
    assert found.columns.to_numpy().tolist() == VALUES.tolist()
    assert load_embeddings(tmp_path / "uni" / "*.h5", **SLIDES).X.tolist() == found.X.tolist()


def test_rows_are_keys_where_there_is_no_place(tmp_path):
    np.savez(tmp_path / "slide.npz", features=VALUES, label=LABELS, patient=PATIENTS)
    assert load_embeddings(tmp_path / "slide.npz").X.tolist() == ["7_0", "7_1", "9_0", "9_1"]


def test_the_names_of_eva(tmp_path):
    manifest = wide().rename(columns={"path": "origin", "label": "target"}).drop(columns="patient")
    manifest.assign(split="train").to_csv(tmp_path / "manifest.csv", index=False)
    found = load_embeddings(tmp_path, patients="folder")
    check(found)
    assert found.frame["part"].tolist() == ["train"] * 4


def test_tensors_are_converted_first(tmp_path):
    """Tensors are read by torch, which is used for networks only."""
    (tmp_path / "0.pt").touch()
    remedy = r"Tensors of PyTorch \(.pt\) are converted first, by torch.load and numpy.savez: a row for each path\.$"
    with pytest.raises(DatasetError, match=rf"expected embeddings \(.h5.*\), got no such file\. Correct .*{remedy}"):
        load_embeddings(tmp_path)
    with pytest.raises(DatasetError, match=rf"0.pt: expected a table, .* got: the ending '.pt'\. Write .*{remedy}"):
        load_embeddings(tmp_path / "0.pt")
    pd.DataFrame({"origin": PATHS, "embeddings": "0.pt", "target": LABELS}).to_csv(tmp_path / "manifest.csv")
    with pytest.raises(DatasetError, match=rf"manifest.csv: .* got: names of tensors \(.pt\), as eva .*{remedy}"):
        load_embeddings(tmp_path, patients="folder")


def test_anndata(tmp_path, monkeypatch):
    """Its reader is a package of its own, which is not installed for the tests."""
    sparse = SimpleNamespace(toarray=lambda: VALUES)
    obs = table().set_index("path")
    found = SimpleNamespace(X=sparse, obs=obs, obs_names=obs.index, obsm={"spatial": COORDS, "X_pca": VALUES[:, :2]})
    monkeypatch.setitem(sys.modules, "anndata", SimpleNamespace(read_h5ad=lambda file: found))
    (tmp_path / "a.h5ad").touch()
    check(load_embeddings(tmp_path / "a.h5ad"))


def test_urls(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/a.csv", "w") as opened:
        wide().to_csv(opened, index=False)
    check(load_embeddings("memory://bucket/a.csv"))
    with pytest.raises(DatasetError, match=r"memory://bucket/b.csv: expected embeddings .*got no such file"):
        load_embeddings("memory://bucket/b.csv")


def test_rows_are_matched_to_a_dataset(cohort, tmp_path):
    values = pd.DataFrame({"f0": range(len(cohort))})
    frame = cohort.frame.assign(path=[path.rsplit("/", 1)[1] for path in cohort.X])
    shuffled = frame[["path"]].join(values).sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "a.csv", index=False)
    part = cohort.subset(range(10, 30))
    found = load_embeddings(tmp_path / "a.csv", labels=part)
    assert found.columns["f0"].tolist() == list(range(10, 30))
    assert found.X.tolist() == part.X.tolist()
    assert (found.name, found.columns.columns.name) == ("synthetic", "a")
    assert found.audit.notes[-2] == (
        "Embeddings: a, 1 column, f0 to f0; columns that are no features: none; rows of other patches: 160."
    )
    frame[["patient", "x", "y"]].join(values).to_csv(tmp_path / "b.csv", index=False)
    assert load_embeddings(tmp_path / "b.csv", labels=part).columns["f0"].tolist() == list(range(10, 30))
    shuffled[shuffled["f0"] != 12].to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(
        DatasetError, match=rf"c.csv: expected one row for each patch.*'{part.X[2]}'. Rows are found by"
    ):
        load_embeddings(tmp_path / "c.csv", labels=part)


def test_subsets_keep_their_columns(tmp_path):
    wide().to_parquet(tmp_path / "a.parquet")
    part = load_embeddings(tmp_path / "a.parquet").subset([3, 0])
    assert part.columns.to_numpy().tolist() == VALUES[[3, 0]].tolist()
    with pytest.raises(DatasetError, match=r"measure_robustness: expected images, got 'a', which has columns instead"):
        part.require_images("measure_robustness")


def test_columns_have_a_row_for_each_patch(tmp_path):
    wide().to_parquet(tmp_path / "a.parquet")
    rows = load_embeddings(tmp_path / "a.parquet")
    with pytest.raises(
        DatasetError, match=r"PatchDataset.columns: expected a row for each of 4 patches, got 3\. Align"
    ):
        replace(rows, columns=rows.columns.iloc[:3])


def test_labels_from_elsewhere(tmp_path):
    wide().drop(columns="label").to_csv(tmp_path / "a.csv", index=False)
    check(load_embeddings(tmp_path / "a.csv", labels=dict(zip(PATHS, LABELS, strict=True))))
    table()[["path", "label"]].to_csv(tmp_path / "labels.csv", index=False)
    check(load_embeddings(tmp_path / "a.csv", labels=tmp_path / "labels.csv"))
    of_patients = pd.DataFrame({"case": ["7", "9"], "diagnosis": ["benign", "tumour"]})
    assert load_embeddings(tmp_path / "a.csv", labels=of_patients).y.tolist() == [0, 0, 1, 1]
    with pytest.raises(DatasetError, match=r"expected one row for each patch, got none or several for '9/3.png'"):
        load_embeddings(tmp_path / "a.csv", labels=dict(zip(PATHS[:3], LABELS, strict=False)))
    with pytest.raises(DatasetError, match=r"expected a label for each patch, got none for '9/2.png' \(and 1 more\)"):
        load_embeddings(tmp_path / "a.csv", labels=of_patients.iloc[:1])
    twice = pd.concat([of_patients, of_patients.assign(diagnosis="tumour")])
    with pytest.raises(DatasetError, match=r"expected one label for each patient, got two for '7'\. Correct one"):
        load_embeddings(tmp_path / "a.csv", labels=twice)
    with pytest.raises(DatasetError, match=r"got none for '7/0.png' \(and 3 more\)\. Add a column label, or a table"):
        load_embeddings(tmp_path / "a.csv", labels=pd.DataFrame({"a": [1], "b": [2]}))


def test_other_classes_are_left_out(tmp_path):
    wide(label=["benign", "tumour", "blurred", "tumour"]).to_csv(tmp_path / "a.csv", index=False)
    found = load_embeddings(tmp_path / "a.csv", classes=("benign", "tumour"))
    assert found.columns["f0"].tolist() == [0, 3, 9]
    assert found.audit.left_out[0].count == 1


def test_several_files_are_no_folders_of_idc(tmp_path):
    files = [tmp_path / "a.h5", tmp_path / "b.parquet"]
    for format in ("auto", "embeddings"):
        with pytest.raises(DatasetError, match=r"a\.h5: expected one file of .*, got 2 files\. Quote .*NAME=FILE"):
            open_dataset(files, format)


def test_what_is_refused(tmp_path):
    def refused(match, content=None, **settings):
        file = tmp_path / "a.csv"
        if content is not None:
            content.to_csv(file, index=False)
        with pytest.raises(DatasetError, match=match):
            load_embeddings(file, **settings)

    refused(r"a.csv: expected embeddings \(.h5.*got no such file")
    refused(r"expected each path once, got '7/0.png' again in row 1", wide(path=[PATHS[0], *PATHS[:3]]))
    refused(r"expected finite numbers in all columns, got '9/2.png' in row 2", wide(f9=[1.0, 2.0, np.nan, 3.0]))
    refused(r"expected a rule, since .*a.csv has no column patient, got None", wide().drop(columns="patient"))
    refused(r"expected a label for each patch", wide().drop(columns="label"))
    refused(r"expected a column of numbers for each feature.*a.csv'", table())
    refused(r"expected one column for each name, got again 'path'", wide(filename=PATHS))
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    refused(r"a.csv: expected a table, or one matrix and its rows, got: .*Write it as one of")
    wide().to_csv(tmp_path / "a.txt")
    with pytest.raises(DatasetError, match=r"a.txt: expected a table"):
        load_embeddings(tmp_path / "a.txt")


def test_arrays_that_disagree(tmp_path):
    np.savez(tmp_path / "a.npz", features=VALUES, label=LABELS[:3])
    with pytest.raises(DatasetError, match=r"got: 4 rows of 'features' and 3 of 'label'"):
        load_embeddings(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", label=LABELS)
    with pytest.raises(DatasetError, match=r"got: label of shape \(4,\)"):
        load_embeddings(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", features=VALUES)
    np.savez(tmp_path / "b.npz", features=VALUES[:, :2])
    with pytest.raises(DatasetError, match=r"the same in all files, got others in '.*b.npz'"):
        load_embeddings(tmp_path)


def test_packages_that_are_missing(tmp_path, monkeypatch):
    for package, ending in (("h5py", ".h5"), ("anndata", ".h5ad")):
        monkeypatch.setitem(sys.modules, package, None)
        (tmp_path / f"a{ending}").touch()
        with pytest.raises(MissingExtraError, match=f"embeddings, {ending}: expected the package {package}"):
            load_embeddings(tmp_path / f"a{ending}")


def test_the_way_of_a_match_is_the_same_for_all_rows():
    table = pd.DataFrame({"path": ["a/1.png", "b/1.png"], "patient": ["a", "b"], "x": [0, 0], "y": [5, 5]})
    places = pd.DataFrame({"patient": ["b", "a"], "x": [0.0, 0.0], "y": [5, 5]})
    assert match_rows(table, places, "mine").tolist() == [1, 0]
    with pytest.raises(DatasetError, match=r"got none or several for '1.tif'\."):
        match_rows(table, pd.DataFrame({"path": ["1.tif"]}), "mine")
    with pytest.raises(DatasetError, match="got none or several for 'c_0_5'"):
        match_rows(table, pd.DataFrame({"patient": ["c"], "x": [0], "y": [5]}), "mine")


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [2, 0, 3, 1]])
def test_lists_stay_in_the_rows_of_a_table_in_another_order(tmp_path, order):
    table(embedding=list(VALUES)).iloc[order].to_parquet(tmp_path / "a.parquet")
    found = load_embeddings(tmp_path / "a.parquet")
    assert found.X.tolist() == [PATHS[row] for row in order]
    assert found.columns.to_numpy().tolist() == VALUES[order].tolist()


@pytest.mark.parametrize("kind", [int, float])
def test_numbers_are_ids_and_labels_in_any_file(tmp_path, kind):
    codes = np.array([0, 1, 0, 1], kind)
    numbers = {"label": codes, "patient": np.array([7, 7, 9, 9], kind)}
    wide(**numbers).to_parquet(tmp_path / "a.parquet")
    np.savez(tmp_path / "b.npz", features=VALUES, path=PATHS, **numbers)
    wide(**numbers).drop(columns="path").to_parquet(tmp_path / "c.parquet")
    for name in ("a.parquet", "b.npz", "c.parquet"):
        found = load_embeddings(tmp_path / name)
        assert (found.patients.tolist(), found.target_names, found.y.tolist()) == (PATIENTS, ("0", "1"), codes.tolist())
    assert found.X[:2].tolist() == ["7_0", "7_1"]


def test_columns_of_numbers_that_are_no_features_are_refused(tmp_path):
    def refused(match, content):
        content.to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(DatasetError, match=match):
            load_embeddings(tmp_path / "a.csv")

    for name in ("y_true", "tile_id", "index", "patient_number", "label_2", "malignant"):
        refused(rf"a.csv: expected only features in columns of numbers, got '{name}'\. Drop", wide(**{name: range(4)}))
    text = r"a.csv: expected a number in each cell of a column of features, got text in 'f3'\. Correct its cells, with"
    refused(text, wide(f3=["1", "2", "x", "4"]))
    refused(text, wide(f3=["1,5", "2,5", "3,5", "4,5"]))
    (tmp_path / "none.csv").write_text("path,label,patient,f0\n")
    with pytest.raises(DatasetError, match="expected a column of numbers for each feature"):
        load_embeddings(tmp_path / "none.csv")
    np.savez(tmp_path / "a.npz", X=VALUES, path=PATHS, label=LABELS, patient=PATIENTS, tumour=[0, 1, 0, 1])
    with pytest.raises(DatasetError, match=r"a.npz: expected only features in columns of numbers, got 'tumour'"):
        load_embeddings(tmp_path / "a.npz")
    table(area=VALUES[:, 0], hue_mean=VALUES[:, 1], hue_std=VALUES[:, 2], stain="H&E").to_csv(tmp_path / "b.csv")
    assert load_embeddings(tmp_path / "b.csv").audit.notes[0] == (
        "Embeddings: b, 3 columns, area to hue_std; columns that are no features: stain."
    )


def test_one_matrix_of_several_is_named(tmp_path):
    known = {"path": PATHS, "label": LABELS, "patient": PATIENTS}
    np.savez(tmp_path / "a.npz", emb=VALUES[:, :2], proj=VALUES, **known)
    with pytest.raises(DatasetError, match=r"a.npz: .* got: the matrices emb, proj; call the one to read features"):
        load_embeddings(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", features=VALUES, proj=np.ones((4, 9)), **known)
    check(load_embeddings(tmp_path / "b.npz"))


def test_rows_of_another_patient_are_refused(cohort, tmp_path):
    rows = cohort.frame[["path", "patient"]].assign(f0=0.5, f1=1.5)
    rows.to_csv(tmp_path / "a.csv", index=False)
    assert load_embeddings(tmp_path / "a.csv", labels=cohort).patients.tolist() == cohort.patients.tolist()
    rows.assign(patient="zzz").to_csv(tmp_path / "b.csv", index=False)
    match = rf"b.csv: expected the same patient for a patch in both tables, got others for '{cohort.X[0]}' \(and"
    with pytest.raises(DatasetError, match=match):
        load_embeddings(tmp_path / "b.csv", labels=cohort)
