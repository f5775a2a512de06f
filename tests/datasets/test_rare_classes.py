import pandas as pd
import pytest
from test_breakhis import put

from histofeat import DatasetError, PatchDataset, PatientHoldOuts, PatientKFold
from histofeat.datasets import load_breakhis, merge_rare_classes
from histofeat.datasets.breakhis._tree import SUBTYPES

WORDS = tuple(subtype.word for subtype in SUBTYPES)


def dataset(carriers, names=WORDS, labels_per="patch"):
    """Data set whose class k is carried by the patients in carriers[k], one image each."""
    rows = [(label, patient) for label, patients in enumerate(carriers) for patient in patients]
    frame = pd.DataFrame(rows, columns=["label", "patient"])
    frame["path"] = [f"{row}.png" for row in range(len(frame))]
    return PatchDataset(frame.assign(x=pd.NA, y=pd.NA), names, "mine", labels_per=labels_per)


@pytest.fixture
def subtypes():
    """A and TA have one patient each, LC one; the rest two or more."""
    return dataset(["a", "bc", "de", "f", "ghi", "j", "kl", "mn"])


def test_rare_ones_go_to_their_kind(subtypes):
    merged = merge_rare_classes(subtypes)
    assert merged.target_names == (
        "other benign", "fibroadenoma", "phyllodes tumor", "ductal carcinoma", "other malignant", "papillary carcinoma",
    )  # fmt: skip
    assert merged.audit.class_counts == {
        "other benign": 2, "fibroadenoma": 2, "phyllodes tumor": 2, "ductal carcinoma": 3, "other malignant": 3,
        "papillary carcinoma": 2,
    }  # fmt: skip
    # Every row keeps its image and patient, and its old class or the one that this went into.
    assert merged.X.tolist() == subtypes.X.tolist()
    assert merged.patients.tolist() == subtypes.patients.tolist()
    for old, new in zip(subtypes.y, merged.y, strict=True):
        name = merged.target_names[new]
        assert name in (WORDS[old], f"other {'malignant' if SUBTYPES[old].malignant else 'benign'}")


def test_audit_says_what_was_merged(subtypes):
    audit = merge_rare_classes(subtypes).audit
    assert audit.notes == (
        "classes of fewer than 2 patients merged by the rule 'malignancy': adenosis (1 patient), tubular adenoma (1 "
        "patient) into 'other benign'; lobular carcinoma (1 patient), mucinous carcinoma (2 patients) into "
        "'other malignant'",
    )
    assert audit.notes[0] in audit.summary()
    assert audit.to_dict()["notes"] == list(audit.notes)


def test_next_rarest_joins_until_there_are_enough():
    # LC alone would be a class of one patient again.
    merged = merge_rare_classes(dataset(["ab", "cd", "ef", "gh", "ijk", "l", "mno", "pqrs"]))
    assert merged.target_names[4:] == ("other malignant", "mucinous carcinoma", "papillary carcinoma")


def test_a_patient_counts_once_in_a_merged_class():
    # A and TA are carried by the same patient: together they still have one.
    merged = merge_rare_classes(dataset(["a", "bcd", "ef", "a", "gh", "ij", "kl", "mn"]))
    assert merged.target_names[:2] == ("other benign", "fibroadenoma")
    assert merged.audit.class_counts["other benign"] == 4


def test_folds_that_were_refused_are_given(subtypes):
    with pytest.raises(ValueError, match="in only 1 of 14 patients"):
        next(PatientKFold(2).split(subtypes.X, subtypes.y, subtypes.patients))
    merged = merge_rare_classes(subtypes)
    for splitter in (PatientKFold(2), PatientHoldOuts(2)):
        for train, test in splitter.split(merged.X, merged.y, merged.patients):
            assert set(merged.y[train]) == set(merged.y[test]) == set(range(6))


def test_whole_kind_has_its_name():
    merged = merge_rare_classes(dataset(["a", "b", "c", "d", "ef", "gh", "ij", "kl"]), 3)
    assert merged.target_names == ("benign", "malignant")
    assert merged.labels_per == "patient"


def test_one_diagnosis_for_each_patient_makes_labels_the_patients():
    # Patient "a" is of two benign subtypes, as number 21998 of BreakHis is.
    before = dataset(["a", "ab", "cd", "ef", "gh", "ij", "kl", "mn"])
    assert before.labels_per == "patch"
    assert merge_rare_classes(before).labels_per == "patient"


def test_nothing_to_merge_gives_the_very_same(subtypes):
    full = dataset(["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"])
    assert merge_rare_classes(full) is full


def test_class_that_nobody_has_is_left_out():
    merged = merge_rare_classes(dataset(["", "bc", "de", "fg", "hi", "", "kl", "mn"]))
    assert merged.target_names == tuple(name for name in WORDS if name not in ("adenosis", "lobular carcinoma"))
    assert merged.audit.notes[0].endswith("adenosis (0 patients) left out; lobular carcinoma (0 patients) left out")
    assert [merged.target_names[code] for code in merged.y[:2]] == ["fibroadenoma"] * 2


def test_rule_other_takes_any_names():
    merged = merge_rare_classes(dataset(["a", "bcd", "e", "fg"], ("u", "v", "w", "x")), rule="other")
    assert merged.target_names == ("other", "v", "x")
    assert merged.y.tolist() == [0, 1, 1, 1, 0, 2, 2]


def test_full_set_is_counted_by_the_new_names(tmp_path):
    for code, slides in (("A", "1"), ("F", "23"), ("PT", "45"), ("TA", "6"), ("DC", "78"), ("MC", "90")):
        for slide in slides:
            put(tmp_path, code, slide)
    audit = merge_rare_classes(load_breakhis(tmp_path, target="subtype")).audit
    # 444 of adenosis and 569 of tubular adenoma; lobular and papillary carcinoma have no patient here.
    assert audit.full_set.class_counts == {
        "other benign": 1_013, "fibroadenoma": 1_014, "phyllodes tumor": 453, "ductal carcinoma": 3_451,
        "mucinous carcinoma": 792,
    }  # fmt: skip
    assert audit.found.class_counts["other benign"] == 2
    assert audit.completeness == "incomplete: 10 of 7,909 patches (0.1 %), 10 of 82 patients"


class TestRefusals:
    @pytest.mark.parametrize("value", [1, 0, 2.0, True, None])
    def test_min_patients(self, subtypes, value):
        with pytest.raises(DatasetError, match=f"min_patients: expected a whole number of at least 2, got {value!r}"):
            merge_rare_classes(subtypes, value)

    def test_rule(self, subtypes):
        with pytest.raises(DatasetError, match=r"rule: expected one of malignancy, other, got 'others'\. Did you mean"):
            merge_rare_classes(subtypes, rule="others")

    def test_dataset(self):
        with pytest.raises(DatasetError, match="dataset: expected a PatchDataset, got list"):
            merge_rare_classes([1, 2])

    def test_names_that_the_rule_does_not_know(self):
        with pytest.raises(
            DatasetError, match=r"expected classes that are subtypes of BreakHis .* got 'u'\. Use rule='oth"
        ):
            merge_rare_classes(dataset(["a", "bc"], ("u", "v")))

    def test_one_class_left(self):
        with pytest.raises(DatasetError, match=r"expected two classes or more of at least 5 .*got one \('other'\)"):
            merge_rare_classes(dataset(["ab", "cd", "ef"], ("u", "v", "w")), 5, rule="other")

    def test_too_few_patients_even_together(self):
        with pytest.raises(DatasetError, match=r"expected at least 3 patients in 'benign' once .*got 2"):
            merge_rare_classes(dataset(["a", "b", "", "", "cdefg", "", "", ""]), 3)


def test_real_sample(real_data):
    sample = load_breakhis(real_data / "breakhis", 100, target="subtype")
    merged = merge_rare_classes(sample)
    assert merged.audit.class_counts == {
        "other benign": 12, "fibroadenoma": 10, "phyllodes tumor": 6, "ductal carcinoma": 12, "lobular carcinoma": 6,
        "mucinous carcinoma": 9, "papillary carcinoma": 12,
    }  # fmt: skip
    for train, test in PatientHoldOuts().split(merged.X, merged.y, merged.patients):
        assert set(merged.y[train]) == set(merged.y[test]) == set(range(7))
