"""Which of two classes is positive: by words, by numbers, by name; and the choice of classes in every loader."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histofeat import load_image_folder
from histofeat.datasets import PatchDataset, choose_positive, load_breakhis, load_idc, load_manifest, open_dataset
from histofeat.exceptions import DatasetError


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (("Tumor", "normal"), "Tumor"),
        (("benign", "malignant"), "malignant"),
        (("idc", "non_idc"), "idc"),
        (("no IDC", "IDC"), "IDC"),
        (("IDC+", "IDC-"), "IDC+"),
        (("IDC \N{MINUS SIGN}", "IDC +"), "IDC +"),
        (("(+)", "(-)"), "(+)"),
        (("cancer", "healthy"), "cancer"),
        (("carcinoma", "other"), "carcinoma"),
        (("adenosis", "Benign"), "adenosis"),
        (("positive", "negative"), "positive"),
        (("Abnormal", "Normal"), "Abnormal"),
        (("not normal", "normal"), "not normal"),
        (("NonTumour", "Tumour"), "Tumour"),
        (("nontumor", "tumor"), "tumor"),
        (("tumour-free", "tumour"), "tumour"),
        (("benign tumour", "malignant tumour"), "malignant tumour"),
        (("absent", "present"), "present"),
        (("yes", "no"), "yes"),
        (("10", "9"), "10"),
        ((True, False), True),
        ((0, 1), 1),
        (("benign-like", "malignant-like"), "malignant-like"),
    ],
)
def test_words_signs_and_numbers(names, positive):
    for given in (names, names[::-1]):
        assert choose_positive(given) == positive
    if isinstance(positive, str):
        upper = [name.upper() + " " for name in names if names != ("NonTumour", "Tumour")]
        assert not upper or choose_positive(upper) == positive.upper() + " "


@pytest.mark.parametrize("names", [("ductal", "lobular"), ("carcinoma", "cancer"), ("normal", "benign"), ("0", "0.0")])
def test_names_that_do_not_tell(names):
    if names == ("0", "0.0"):
        assert choose_positive(names) == "0"
        return
    with pytest.raises(
        DatasetError, match=r"positive: expected the name of the positive class, got none, and .* do not"
    ):
        choose_positive(names)
    assert choose_positive(names, names[0].upper()) == names[0]


def test_what_cannot_be_positive():
    with pytest.raises(
        DatasetError, match=r"positive: expected one of benign, malignant, got 'malignent'. Did you mean"
    ):
        choose_positive(["benign", "malignant"], "malignent")
    with pytest.raises(DatasetError, match=r"positive: expected none with 3 classes, got 'a'"):
        choose_positive(["a", "b", "c"], "a")
    assert choose_positive(["normal", "tumour", "c"]) is None


def dataset(names=("Tumor", "normal"), **more):
    frame = pd.DataFrame({"path": list("abcd"), "label": [0, 1, 0, 1], "patient": list("wxyz")})
    return PatchDataset(frame.assign(x=pd.NA, y=pd.NA), names, "mine", **more)


def test_a_data_set_names_it_and_keeps_the_order_of_its_classes():
    found = dataset()
    assert (found.positive, found.target_names, found.y.tolist()) == ("Tumor", ("Tumor", "normal"), [0, 1, 0, 1])
    assert found.audit.summary().splitlines()[0].endswith("(2 Tumor, 2 normal); positive class: Tumor")
    assert [note for note in found.audit.notes if "'Tumor', the first of the class names" in note]
    assert found.subset([0, 1]).audit.notes == found.audit.notes
    assert found.audit.to_dict()["positive"] == "Tumor"
    assert dataset(("normal", "Tumor")).audit.notes == ()
    assert dataset(positive="normal").positive == "normal"
    assert dataset(("a", "b")).positive is None


def test_metrics_get_it_as_code_1():
    found, proba = dataset(), np.array([[0.9, 0.1]])
    assert found.positive_last(np.array([0, 1, -1])).tolist() == [1, 0, -1]
    assert found.positive_last(proba).tolist() == [[0.1, 0.9]]
    assert found.positive_last(found.positive_last(proba)).tolist() == proba.tolist()
    turned = found.with_positive_last()
    assert (turned.target_names, turned.positive, turned.y.tolist()) == (("normal", "Tumor"), "Tumor", [1, 0, 1, 0])
    assert turned.with_positive_last() is turned
    with pytest.raises(DatasetError, match=r"'a' and 'b' do not tell which it is. Give positive='b'"):
        dataset(("a", "b")).positive_last(proba)


def test_classes_are_chosen_merged_and_renamed():
    many = PatchDataset(dataset().frame.assign(label=[0, 1, 2, 1]), ("normal", "idc", "ilc"), "mine")
    merged = many.with_classes("normal, tumour = idc+ilc")
    assert (merged.target_names, merged.positive, merged.y.tolist()) == (("normal", "tumour"), "tumour", [0, 1, 1, 1])
    assert merged.audit.class_counts == {"normal": 1, "tumour": 3}
    fewer = many.with_classes(("ilc", "normal"))
    assert (fewer.X.tolist(), fewer.y.tolist(), fewer.audit.subset_of) == (["a", "c"], [1, 0], 4)
    renamed = dataset(("good", "bad"), positive="bad").with_classes({"bad": "worse", "good": "better"})
    assert renamed.positive == "worse", "the class, not the word, was named"
    with pytest.raises(DatasetError, match=r"classes: expected one of normal, idc, ilc, got 'icd'"):
        many.with_classes("normal,icd")
    with pytest.raises(DatasetError, match=r"classes: expected 2 or more labels, or a mapping"):
        many.with_classes(["idc"])


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("Tumor/1_a.png", "normal/2_a.png", "scar/3_a.png")):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def test_every_loader_takes_both(folder, cohort):
    asked = {"classes": "scar,Tumor", "positive": "scar"}
    found = load_image_folder(folder, patients=r"^([0-9]+)_", **asked)
    assert (found.target_names, found.positive) == (("scar", "Tumor"), "scar")
    rows = "".join(
        f"{name}/{row}_a.png,{name},{row}\n" for row, name in enumerate(("Tumor", "normal", "scar"), start=1)
    )
    (folder / "mine.csv").write_text("path,label,patient\n" + rows)
    assert load_manifest(folder / "mine.csv", **asked).positive == "scar"
    assert open_dataset(folder / "mine.csv", **asked).positive == "scar"
    with pytest.raises(DatasetError, match=r"positive: expected one of scar, Tumor, got 'normal'"):
        load_manifest(folder / "mine.csv", classes="scar,Tumor", positive="normal")
    named = load_idc(cohort.root, classes={"no tumour": "healthy", "tumour": "ill"})
    assert (named.positive, named.y.tolist()) == ("ill", load_idc(cohort.root).y.tolist())
    assert load_idc(cohort.root, positive="no tumour").positive == "no tumour"


def test_breakhis_takes_both():
    from histofeat.datasets import make_breakhis_cohort

    root = make_breakhis_cohort(patients_per_subtype=1, images_per_slide=1, magnifications=(40,)).root
    assert load_breakhis(root).positive == "malignant-like"
    two = load_breakhis(
        root, target="subtype", classes="adenosis-like,ill=ductal carcinoma-like+lobular carcinoma-like"
    )
    assert (two.target_names, set(two.frame["subtype"])) == (
        ("adenosis-like", "ill"),
        {"adenosis-like", "ductal carcinoma-like", "lobular carcinoma-like"},
    )
    assert two.positive is None


def test_new_names_that_do_not_tell_take_the_class_of_the_old_ones(tmp_path):
    for at, folder in enumerate(("Malignant", "normal")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{at}.png")
    for classes in ("z=Malignant,a=normal", {"normal": "a", "Malignant": "z"}):
        assert load_image_folder(tmp_path, patients=r"^(\d)", classes=classes).positive == "z"
    assert load_image_folder(tmp_path, patients=r"^(\d)", classes="z=Malignant,a=normal", positive="a").positive == "a"


def test_names_of_classes_have_the_form_that_comes_back_from_files(tmp_path):
    """Predictions and models hold it, so that a name in another form would never be found again."""
    for at, folder in enumerate(("in  situ", "1.0", "\uff29\uff24\uff23")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{at}.png")
    found = load_image_folder(tmp_path, patients=r"^(\d)")
    assert found.target_names == ("1", "in situ", "IDC")
    assert found.audit.class_counts == {"1": 1, "in situ": 1, "IDC": 1}
    two = load_image_folder(tmp_path, patients=r"^(\d)", classes=["in  situ", "1.0"], positive="in  situ")
    assert two.positive == "in situ"
    (tmp_path / "None").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "None" / "7.png")
    with pytest.raises(DatasetError, match=r"expected names of classes, got a word for a missing value: 'None'\. Call"):
        load_image_folder(tmp_path, patients=r"^(\d)")
    named = load_image_folder(tmp_path, patients=r"^(\d)", classes="no tumour=None,tumour=1.0")
    assert (named.target_names, named.positive) == (("no tumour", "tumour"), "tumour")
