"""Splits by their names alone: every form of file, and what is wrong with one."""

import json

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import load_published_split, official_roles, published_splits, read_split
from histofeat.exceptions import DatasetError

PARTS = {"train": ["8863", "8864", "8865"], "val": ["8867"], "test": ["8913", "8914"]}
NAMES = {part: [f"{patient}_idx5_x{at}_y1_class{at % 2}.png" for patient in its for at in (1, 52)]
         for part, its in PARTS.items()}  # fmt: skip
ROWS = [(name, part) for part, its in NAMES.items() for name in its]


def sides(split):
    """Title and names of each side of each fold."""
    names = split.dataset.frame["name"].to_numpy()
    return {title: tuple(sorted(names[rows]) for rows in pair) for title, *pair in split.folds}


def whole(names):
    return {
        "train and validation | test": (sorted([*names["train"], *names["val"]]), sorted(names["test"])),
        "train | validation": (sorted(names["train"]), sorted(names["val"])),
    }


def write_csv(path, **form):
    pd.DataFrame(ROWS, columns=["image_path", "split"]).to_csv(path, index=False, **form)
    return path


def write_json(content):
    def write(path):
        path.write_text(json.dumps(content))
        return path

    return write


def write_clam(path):
    pd.DataFrame({part: pd.Series(its) for part, its in PARTS.items()}).to_csv(path)
    return path


def write_flags(path):
    rows = [(patient, *(part == its for part in PARTS)) for its, ids in PARTS.items() for patient in ids]
    pd.DataFrame(rows, columns=["", *PARTS]).to_csv(path, index=False)
    return path


def write_lists(path):
    path.mkdir()
    for part, its in PARTS.items():
        (path / f"cases_{part}.txt").write_text("\n".join(its))
    return path


def write_folders(path):
    for part, its in NAMES.items():
        for name in its:
            file = path / part / f"class {name[-5]}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return path


FORMS = {
    "a.csv": (write_csv, NAMES),
    "b.tsv": (lambda path: write_csv(path, sep="\t"), NAMES),
    "c.csv": (lambda path: write_csv(path, sep=";", encoding="utf-8-sig"), NAMES),
    "d.json": (write_json(PARTS), PARTS),
    "e.json": (write_json({part: {"images": its, "labels": ["a"] * len(its)} for part, its in PARTS.items()}), PARTS),
    "f.json": (write_json({part: dict.fromkeys(its, "a") for part, its in PARTS.items()}), PARTS),
    "g.json": (write_json(dict(ROWS)), NAMES),
    "h.json": (write_json([{"file": name, "subset": part} for name, part in ROWS]), NAMES),
    "i.json": (write_json({part: [{"slide_id": one} for one in its] for part, its in PARTS.items()}), PARTS),
    "splits_0.csv": (write_clam, PARTS),
    "splits_0_bool.csv": (write_flags, PARTS),
    "lists": (write_lists, PARTS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_split(form, tmp_path):
    write, names = FORMS[form]
    assert sides(read_split(write(tmp_path / form))) == whole(names)


def test_parquet_and_a_column_that_only_its_cells_tell(tmp_path):
    table = pd.DataFrame(ROWS, columns=["name", "anything"]).assign(feature=0.5)
    table.to_parquet(tmp_path / "a.parquet")
    assert sides(read_split(tmp_path / "a.parquet")) == whole(NAMES)


def test_folders_of_parts_one_or_several(tmp_path):
    root = write_folders(tmp_path / "data")
    split = read_split(root)
    assert split.dataset.target_names == ("class 0", "class 1")
    assert [len(rows) for _, *pair in split.folds for rows in pair] == [8, 4, 6, 2]
    several = read_split([root / part for part in PARTS])
    assert sides(several) == sides(split)
    # One part alone is data, not a split.
    assert read_split(root / "train" / "class 0") is read_split(root / "train") is None


def test_names_tell_patient_label_and_place(tmp_path):
    frame = read_split(write_csv(tmp_path / "a.csv")).dataset.frame
    assert frame.loc[1, ["patient", "x", "y", "size"]].tolist() == ["8863", 52, 1, 50]
    names = ["SOB_M_DC-14-13412-40-001.png", "SOB_M_LC-14-13412-40-002.png", "SOB_B_A-14-22549AB-40-001.png"]
    pd.DataFrame({"path": names, "part": ["train", "test", "test"]}).to_csv(tmp_path / "b.csv", index=False)
    dataset = read_split(tmp_path / "b.csv").dataset
    assert dataset.patients.tolist() == ["14-13412", "14-13412", "14-22549AB"]
    assert [dataset.target_names[code] for code in dataset.y] == ["malignant", "malignant", "benign"]
    ids = ["patient_012_node_3", "patient_013_node_0"]
    pd.DataFrame({"slide_id": ids, "fold": [0, 1]}).to_csv(tmp_path / "c.csv", index=False)
    assert read_split(tmp_path / "c.csv").dataset.patients.tolist() == ["patient_012", "patient_013"]


def test_folds_take_turns(tmp_path):
    pd.DataFrame({"slide_id": list("abcd"), "fold": [0, 1, 1, ""]}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.warns(UserWarning, match=r"a\.csv: names in no part, which are left out: 1\."):
        split = read_split(tmp_path / "a.csv")
    expected = {"fold 0 is tested": (["b", "c"], ["a"]), "fold 1 is tested": (["a"], ["b", "c"])}
    assert list(sides(split).items()) == list(expected.items())
    split.to_frame().to_csv(tmp_path / "b.csv", index=False)
    assert sides(read_split(tmp_path / "b.csv")) == expected


def test_dsfold_files_are_hold_outs(tmp_path):
    for fold, parts in enumerate((["train", "test", "test"], ["test", "train", "train"]), start=1):
        lines = [f"SOB_B_A-14-{n}-40-001.png|40|{fold}|{part}" for n, part in zip((1, 2, 3), parts, strict=True)]
        (tmp_path / f"dsfold{fold}.txt").write_text("\n".join(lines))
    names = [f"SOB_B_A-14-{n}-40-001.png" for n in (1, 2, 3)]
    expected = {
        "dsfold1.txt: train | test": (names[:1], names[1:]),
        "dsfold2.txt: train | test": (names[1:], names[:1]),
    }
    assert sides(read_split(tmp_path)) == expected
    repaired = tmp_path / "all.csv"
    read_split(tmp_path).to_frame().to_csv(repaired, index=False)
    assert list(sides(read_split(repaired)).values()) == list(expected.values())


def test_the_tree_of_idc_below_parts_has_the_classes_of_its_names(tmp_path):
    for part, patient in (("train", "8863"), ("train", "8865"), ("test", "8864")):
        for label in (0, 1):
            folder = tmp_path / part / patient / str(label)
            folder.mkdir(parents=True)
            (folder / f"{patient}_idx5_x101_y{label}01_class{label}.png").touch()
    split = read_split(tmp_path)
    names = [("no IDC", "IDC")[int(path[-5])] for path in split.dataset.X]
    assert [split.dataset.target_names[code] for code in split.dataset.y] == names


def test_our_own_file_of_splits(tmp_path):
    folds = [
        {"fold": 1, "train": {"patients": ["a", "b"], "n_patches": 9}, "test": {"patients": ["c"]}},
        {"fold": 2, "train": {"patients": ["c"]}, "test": {"patients": ["b", "a"], "class_counts": {"x": 1}}},
    ]
    split = read_split(
        write_json({"schema": 1, "folds": folds, "never_tested": {"patients": []}})(tmp_path / "splits.json")
    )
    assert sides(split) == {"fold 1: train | test": (["a", "b"], ["c"]), "fold 2: train | test": (["c"], ["a", "b"])}


def test_no_split_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\na.png,x\nb.png,y\n")
    (tmp_path / "b.npz").touch()
    assert read_split(tmp_path / "nowhere.csv") is None
    assert read_split(tmp_path / "a.csv") is read_split(tmp_path / "b.npz") is read_split([tmp_path]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na_1.png,train\nb_1.png,test\n", "expected names that tell the patient, .* got 'a_1.png'"),
        ("id,split\na,train\nb,hold\n", "expected train, validation or test as part, got 'hold'"),
        ("id,split\na,train\nb,train\n", "expected two parts or more, got only 'train'"),
        ("id,patient,split\na,p,train\nb,p,test\n", "expected two patients or more, got only 'p'"),
        (
            "id,patient,split\na,p,train\na,q,test\n",
            "expected one patient and one label for each name, got two for 'a'",
        ),
        (
            "id,label,split\na,x,train\na,y,test\nb,x,test\n",
            "expected one patient and one label for each name, got two for 'a'",
        ),
        ("id,patient,split\na,p,train\nb,,test\n", "expected a patient for each name, got none for 'b'"),
        ("id,label,split\na,x,train\nb,,test\n", "expected a label for each name, got none for 'b'"),
        ("id,split\na,train\n,test\n", "expected a name in each row, got none in row 1"),
        ("colour,split\nred,train\nblue,test\n", "expected a column path, slide or patient, got 'part'"),
        ('id,split\n"a,train\n', "expected a split, got: "),
    ],
)
def test_what_is_wrong_is_named(text, message, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"a\.csv: {message}"):
        read_split(tmp_path / "a.csv")


def test_files_that_disagree(tmp_path):
    for name, patient in (("train", "p"), ("test", "q")):
        (tmp_path / f"{name}.csv").write_text(f"path,patient\na.png,{patient}\n")
    with pytest.raises(DatasetError, match=r"one patient and one label for each name, got two for 'a\.png'"):
        read_split(tmp_path)
    (tmp_path / "other.csv").write_text("path,patient\na.png,p\n")
    with pytest.raises(DatasetError, match=r"expected a split in each file, got none in '.*other\.csv'"):
        read_split([tmp_path / "train.csv", tmp_path / "other.csv"])


def test_patients_by_a_rule_or_unknown(tmp_path):
    (tmp_path / "a.csv").write_text("path,split\na_1.png,train\na_2.png,test\nb_1.png,test\n")
    assert read_split(tmp_path / "a.csv", patients="^(.)_").dataset.patients.tolist() == ["a", "a", "b"]
    assert len(set(read_split(tmp_path / "a.csv", patients="image").dataset.patients)) == 3


def test_images_are_found_by_name_or_patient(cohort, tmp_path):
    parts = np.where(cohort.patients < "900008", "train", "test")
    whose = {"path": cohort.relative_paths, "patient": cohort.patients}
    for keys in (["path", "patient"], ["patient"]):
        pd.DataFrame(whose)[keys].assign(split=parts).to_csv(tmp_path / "a.csv", index=False)
        ((train, test),), note = read_split(tmp_path / "a.csv").match(cohort)
        assert (parts[train] == "train").all()
        assert (parts[test] == "test").all()
        assert len(train) + len(test) == len(cohort)
        assert note == ""
    pd.DataFrame({"id": [*cohort.patients[:1], "x", "y"], "split": ["train", "test", "test"]}).to_csv(
        tmp_path / "b.csv"
    )
    with pytest.raises(
        DatasetError, match=r"expected images of the split on each side .*, got none for \"'x' \(and 1 more\)\""
    ):
        read_split(tmp_path / "b.csv").match(cohort)


def test_the_published_splits_are_those_of_their_sources():
    assert all(set(its) == {"title", "source", "licence", "claim", "inference"} for its in published_splits().values())
    idc = load_published_split("idc-official")
    listed = dict(zip(idc.dataset.frame["name"], idc.places["part"], strict=True))
    assert listed == official_roles()
    images = {}
    for name in published_splits():
        split = load_published_split(name)
        images[name] = split.dataset.frame["n_images"].groupby(split.places["part"]).sum().to_dict()
    assert images == {
        "idc-official": {"test": 49, "train": 84, "validation": 29},
        "breakhis-eva": {"train": 1132, "validation": 339},
        "breakhis-eva-2024": {"train": 1393, "validation": 602},
        "breakhis-thunder": {"test": 339, "train": 936, "validation": 196},
    }
    with pytest.raises(ValueError, match=r"registry: expected one of idc-official, .*, got 'breakhis-evo'"):
        load_published_split("breakhis-evo")
