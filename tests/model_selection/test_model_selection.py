"""What a split by patient promises, one promise a test; and what each refusal says."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings, strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier

from histofeat.exceptions import GroupLeakageError
from histofeat.model_selection import (
    PatchKFold,
    PatientKFold,
    RepeatedPatientKFold,
    check_no_shared_patients,
    encode_patients,
    patients_per_fold,
)


def cohort(n_patients=24, per_patient=10, random_state=0):
    """Return labels and integer patient ids in shuffled rows, the classes uneven over patients."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(rng.choice(np.arange(8000, 20000), n_patients, replace=False), per_patient)
    prevalence = np.repeat(rng.uniform(0.1, 0.6, n_patients), per_patient)
    y = (rng.random(len(patients)) < prevalence).astype(int)
    order = rng.permutation(len(patients))
    return y[order], patients[order]


def folds_of(cv, y, patients):
    fold_of = np.full(len(y), -1)
    for fold, (_, test) in enumerate(cv.split(y, y, patients)):
        fold_of[test] = fold
    return fold_of


# --- the promises of PatientKFold ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_promise_1_no_patient_is_on_both_sides(n_splits):
    y, patients = cohort()
    for train, test in PatientKFold(n_splits).split(y, y, patients):
        check_no_shared_patients(train, test, patients)


@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_promise_2_every_patch_is_tested_once_and_trains_in_all_other_folds(n_splits):
    y, patients = cohort()
    splits = list(PatientKFold(n_splits).split(y, y, patients))
    assert len(splits) == PatientKFold(n_splits).get_n_splits() == n_splits
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(len(y)))
    for train, test in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
        assert train.dtype == test.dtype == np.int64


@pytest.mark.parametrize("random_state", range(5))
def test_promise_3_every_class_is_on_both_sides_of_every_fold(random_state):
    y, patients = cohort(random_state=random_state)
    y[np.isin(patients, np.unique(patients)[:5])] = 2  # a class that only five patients carry
    for train, test in PatientKFold(5, random_state=random_state).split(y, y, patients):
        assert set(y[train]) == set(y[test]) == {0, 1, 2}


def test_promise_4_a_seed_gives_the_same_folds_and_another_seed_gives_others():
    y, patients = cohort()
    first = folds_of(PatientKFold(5, random_state=3), y, patients)
    np.testing.assert_array_equal(first, folds_of(PatientKFold(5, random_state=3), y, patients))
    assert (first != folds_of(PatientKFold(5, random_state=4), y, patients)).any()
    unshuffled = folds_of(PatientKFold(5, shuffle=False, random_state=0), y, patients)
    np.testing.assert_array_equal(unshuffled, folds_of(PatientKFold(5, shuffle=False, random_state=1), y, patients))


def test_promise_4b_no_seed_gives_other_folds_each_time():
    y, patients = cohort()
    cv = PatientKFold(5, random_state=None)
    assert len({tuple(folds_of(cv, y, patients)) for _ in range(5)}) > 1


@pytest.mark.parametrize(
    "as_other", [lambda ids: ids.astype(str), lambda ids: ids.astype(float), lambda ids: pd.Series(ids.astype(str))]
)
def test_promise_5_integer_float_and_text_ids_give_the_same_folds(as_other):
    y, patients = cohort()
    # A four- and a five-digit id sort differently as text; the folds must not notice.
    assert len({len(str(patient)) for patient in patients}) == 2
    np.testing.assert_array_equal(
        folds_of(PatientKFold(), y, patients), folds_of(PatientKFold(), y, as_other(patients))
    )


def test_promise_6_the_order_of_the_rows_changes_nothing():
    y, patients = cohort()
    order = np.random.default_rng(1).permutation(len(y))
    folds = folds_of(PatientKFold(), y, patients)
    np.testing.assert_array_equal(folds[order], folds_of(PatientKFold(), y[order], patients[order]))


def breakhis_like(random_state=0):
    """24 benign and 58 malignant patients of 9 to 60 images each: labels are those of patients."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(np.arange(100, 182), rng.integers(9, 61, 82))
    return (patients >= 124).astype(int), patients


def mixed_cohort(random_state=0):
    """30 patients of 9 to 60 patches, three classes in any mixture."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(np.arange(30), rng.integers(9, 61, 30))
    prevalence = rng.dirichlet([0.5, 0.3, 0.2], 30).cumsum(axis=1)
    return (rng.random((len(patients), 1)) > prevalence[patients]).sum(axis=1).clip(0, 2), patients


def carriers_by_hand(folds, y, patients):
    return [[len(set(patients[test][y[test] == label])) for label in np.unique(y)] for _, test in folds]


@pytest.mark.parametrize("make", [breakhis_like, cohort, mixed_cohort])
@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_promise_7_patients_of_each_class_and_stratum_are_spread_evenly(make, n_splits):
    for random_state in range(3):
        y, patients = make(random_state=random_state)
        classes_of = {patient: tuple(np.unique(y[patients == patient])) for patient in np.unique(patients)}
        cv = PatientKFold(n_splits, random_state=random_state)
        folds = list(cv.split(y, y, patients))
        tested = [np.unique(patients[test]) for _, test in folds]
        assert np.ptp([len(one) for one in tested]) <= 1
        for stratum in set(classes_of.values()):
            assert np.ptp([sum(classes_of[patient] == stratum for patient in one) for one in tested]) <= 1
        carriers = np.array(carriers_by_hand(folds, y, patients))
        assert np.ptp(carriers, axis=0).max() <= (1 if make is not mixed_cohort else 2)
        np.testing.assert_array_equal(patients_per_fold(folds, y, patients), carriers)


@pytest.mark.parametrize(("make", "bound"), [(breakhis_like, 0.05), (cohort, 0.25), (mixed_cohort, 0.5)])
def test_promise_7b_patches_of_each_class_are_spread(make, bound):
    # The largest deviation of a fold's share of a class, of what it should be; by scikit-learn .01, .22 and .23.
    y, patients = make()
    off = []
    for seed in range(6):
        folds = folds_of(PatientKFold(5, random_state=seed), y, patients)
        counts = np.array([[(y[folds == fold] == label).sum() for label in np.unique(y)] for fold in range(5)])
        off.append(np.abs(5 * counts / counts.sum(axis=0) - 1).max())
    assert np.mean(off) < bound


@pytest.mark.parametrize("make", [breakhis_like, cohort, mixed_cohort])
def test_promise_4c_six_seeds_give_six_partitions(make):
    y, patients = make()
    partitions = set()
    for seed in range(6):
        folds = PatientKFold(5, random_state=seed).split(y, y, patients)
        partitions.add(frozenset(frozenset(patients[test]) for _, test in folds))
    assert len(partitions) == 6


def test_ten_patients_differ_by_seed_too():
    patients = np.repeat(np.arange(10), np.arange(5, 25, 2))
    y = (patients % 2).astype(int)
    partitions = {
        frozenset(frozenset(patients[test]) for _, test in PatientKFold(5, random_state=seed).split(y, y, patients))
        for seed in range(20)
    }
    assert len(partitions) > 12


def test_blocks_of_similar_patients_by_hand():
    # One class of its own each: sizes 1 to 6 and 10 to 60; with two folds each pair of neighbours is parted.
    sizes = [*range(1, 7), *range(10, 70, 10)]
    patients = np.repeat(np.arange(12), sizes)
    y = (patients >= 6).astype(int)
    for seed in range(4):
        folds = folds_of(PatientKFold(2, random_state=seed), y, patients)
        fold_of = [folds[patients == patient][0] for patient in range(12)]
        for small in range(0, 12, 2):
            assert fold_of[small] != fold_of[small + 1]
    # Without a shuffle: 6 opens fold 1, 5 goes to fold 2, 4 joins 5 or 6 as that has fewer patches, and so on.
    folds = folds_of(PatientKFold(2, shuffle=False), y, patients)
    fold_of = [folds[patients == patient][0] for patient in range(12)]
    assert fold_of == [1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0]


def test_promise_8_a_fold_keeps_a_class_that_few_patients_carry():
    """Five patients carry the rare class, among many patches of others, where counting patches loses it somewhere."""
    lost = 0
    for random_state in (82, 119, 197):
        rng = np.random.default_rng(random_state)
        patients = np.repeat(np.arange(14), rng.integers(5, 60, 14))
        y = np.zeros(len(patients), dtype=int)
        for patient in range(5):
            y[np.flatnonzero(patients == patient)[: rng.integers(1, 4)]] = 1
        lost += len(np.unique(folds_of(StratifiedGroupKFold(5, shuffle=True, random_state=0), y, patients)[y == 1])) < 5
        for shuffle in (True, False):
            for train, test in PatientKFold(5, shuffle=shuffle).split(y, y, patients):
                assert set(y[train]) == set(y[test]) == {0, 1}
    assert lost


def test_folds_that_cannot_keep_every_class_are_refused():
    # Each class misses another of four patients: whichever two are tested together, a class of both loses a fold.
    y = np.array([0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3])
    patients = np.repeat(list("abcd"), 3)
    with pytest.raises(
        ValueError, match=r"got a fold without class \d, which 3 of 4 patients carry, in each of 20 ass"
    ):
        PatientKFold(3).split(y, y, patients)
    with pytest.raises(ValueError, match=r"got a fold without class \d, .* in each of 1 assignments"):
        PatientKFold(3, shuffle=False).split(y, y, patients)


def test_patients_per_fold():
    y, patients = np.array(["n", "t", "n", "n", "t"]), ["a", "a", "b", "c", "c"]
    folds = [([2, 3, 4], [0, 1]), ([0, 1], [2, 3, 4]), ([0, 1], [2])]
    counts = patients_per_fold(folds, y, patients)
    assert (counts.tolist(), counts.dtype) == ([[1, 1], [2, 1], [1, 0]], np.int64)
    with pytest.raises(GroupLeakageError, match="patients: expected a patient id for every patch"):
        patients_per_fold(folds, y, [None, *"aabc"])


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=80),
    n_splits=st.integers(2, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_promises_hold_or_there_is_a_reason(table, n_splits, seed):
    patients, y = (np.array(column) for column in zip(*table, strict=True))
    try:
        splits = list(PatientKFold(n_splits, random_state=seed).split(y, y, patients))
    except ValueError as error:
        if not re.match(r"PatientKFold\.\w+: expected .* got .*\. .*\.$", str(error)):
            raise
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(len(y)))
    for train, test in splits:
        check_no_shared_patients(train, test, patients)
        assert set(y[train]) == set(y[test]) == set(y)


# --- inside scikit-learn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cv", "n_splits"), [(PatientKFold(3), 3), (RepeatedPatientKFold(3, 2), 6)])
def test_grid_search_takes_groups(cv, n_splits):
    y, patients = cohort()
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv, scoring="roc_auc")
    assert search.fit(X, y, groups=patients).n_splits_ == n_splits
    with pytest.raises(GroupLeakageError, match="groups: expected one patient id per patch, got None"):
        search.fit(X, y)


def test_metadata_routing_brings_groups_to_nested_search():
    y, patients = cohort()
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=PatientKFold(2))
        found = cross_validate(search, X, y, params={"groups": patients}, cv=PatientKFold(3))
        again = cross_validate(search, X, y, params={"groups": patients}, cv=RepeatedPatientKFold(2, 2))
        assert PatientKFold().get_metadata_routing().split.requests == {"groups": True}
    assert (len(found["test_score"]), len(again["test_score"])) == (3, 4)


def test_repr_is_the_call_and_pickles():
    cv = PatientKFold(4, random_state=7)
    assert repr(cv) == "PatientKFold(n_splits=4, shuffle=True, random_state=7)"
    assert repr(pickle.loads(pickle.dumps(cv))) == repr(cv)


# --- refusals --------------------------------------------------------------------------------------------------------

Y, PATIENTS = cohort()


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        (None, r"groups: expected one patient id per patch, got None\. Pass groups=dataset\.patients"),
        (PATIENTS[:-1], r"one patient id for each of 240 patches, got shape \(239,\)"),
        (PATIENTS[:, None], r"got shape \(240, 1\)"),
        ("abc", r"got shape \(\)"),
        (np.where(np.arange(240) == 7, np.nan, PATIENTS), r"got nan at row 7 \(1 missing in all\)"),
        ([None if row < 3 else "a" for row in range(240)], r"got None at row 0 \(3 missing in all\)"),
        ([" " if row == 5 else "a" for row in range(240)], r"got ' ' at row 5 \(1 missing in all\)"),
        (pd.array([pd.NA] + [1] * 239, dtype="Int64"), r"got <NA> at row 0 \(1 missing in all\)"),
    ],
)
def test_unknown_patients_are_refused(patients, message):
    with pytest.raises(GroupLeakageError, match=message):
        PatientKFold().split(Y, Y, patients)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "expected y with one class label for each of 240 patches, got None"),
        (Y[:-1], r"for each of 240 patches, got shape \(239,\)"),
        (Y + 0.5 * np.arange(240) / 240, "expected y of class labels without gaps, got float64 values such as"),
        (np.where(np.arange(240) == 4, np.nan, Y), "such as nan"),
        (np.zeros(240, dtype=int), "at least 2 classes in y, got only class 0"),
        (["tumour"] * 240, "got only class 'tumour'"),
    ],
)
@pytest.mark.parametrize("splitter", [PatientKFold, PatchKFold])
def test_unusable_labels_are_refused(splitter, y, message):
    with pytest.raises(ValueError, match=message) as caught:
        splitter().split(np.zeros(240), y, PATIENTS)
    assert str(caught.value).startswith(splitter.__name__)


def test_too_few_patients_are_refused():
    y = np.array([0, 1] * 6)
    with pytest.raises(ValueError, match=r"got 1 patient for 5 folds\. One patient cannot be split"):
        PatientKFold().split(y, y, ["a"] * 12)
    with pytest.raises(ValueError, match=r"got 3 patients for 5 folds\. Use fewer folds"):
        PatientKFold().split(y, y, list("abc") * 4)


def test_a_class_of_too_few_patients_is_refused_by_name():
    y = np.array(["benign"] * 57 + ["tumour"] * 3)
    patients = np.arange(60) // 6
    with pytest.raises(ValueError, match=r"got class 'tumour' in only 1 of 10 patients for 5 folds\. Add patients"):
        PatientKFold().split(y, y, patients)
    y[0] = "tumour"
    with pytest.raises(ValueError, match=r"got class 'tumour' in only 2 of 10 patients .* Use at most 2 folds"):
        PatientKFold().split(y, y, patients)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_splits": 1}, "n_splits: expected a whole number of at least 2, got 1"),
        ({"n_splits": 2.5}, "n_splits: expected a whole number of at least 2, got 2.5"),
        ({"n_splits": True}, "n_splits: expected a whole number of at least 2, got True"),
        ({"shuffle": "yes"}, "shuffle: expected True or False, got 'yes'"),
        ({"random_state": -1}, r"random_state: expected a whole number from 0 to 4294967295, got -1\. Use .* or None"),
        ({"random_state": 1.5}, "random_state: .* got 1.5"),
    ],
)
@pytest.mark.parametrize("splitter", [PatientKFold, PatchKFold])
def test_bad_parameters_are_refused(splitter, params, message):
    with pytest.raises(ValueError, match=f"{splitter.__name__}.{message}"):
        splitter(**params).split(Y, Y, PATIENTS)


def test_check_no_shared_patients_names_the_first_and_the_count():
    patients = np.array(list("aabbccddee"), dtype=object)
    check_no_shared_patients([0, 1], [2, 3], patients)
    check_no_shared_patients(np.arange(10) < 4, np.arange(10) >= 4, patients)
    with pytest.raises(GroupLeakageError, match=r"got 4: 'a', 'b', 'c', \.\.\.\. Split by patient"):
        check_no_shared_patients([0, 2, 4, 6, 8], [1, 3, 5, 7], patients)
    with pytest.raises(GroupLeakageError, match="patients: expected a patient id for every patch, got None at row 1"):
        check_no_shared_patients([0], [1], ["a", None])


def test_encode_patients_joins_spellings_of_one_number():
    ids, codes = encode_patients([8863, "8863", 8863.0, "10253", "-1"], 5)
    assert ids == ["-1", "8863", "10253"]
    assert codes.tolist() == [1, 1, 1, 2, 0]
    assert encode_patients(["b10", "b9"], 2)[0] == ["b10", "b9"]


# --- the leaking split, and the canary -------------------------------------------------------------------------------


def test_patch_kfold_partitions_and_leaks():
    y, patients = cohort()
    splits = list(PatchKFold(5).split(y, y, patients))
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in splits])), np.arange(len(y)))
    for train, test in splits:
        with pytest.raises(GroupLeakageError, match="expected no patient on both sides"):
            check_no_shared_patients(train, test, patients)
    np.testing.assert_array_equal(
        folds_of(PatchKFold(shuffle=False), y, patients), folds_of(PatchKFold(shuffle=False), y, None)
    )
    with pytest.raises(ValueError, match=r"PatchKFold.n_splits: .* got 3 patches of class 1 for 5 folds"):
        PatchKFold(5).split(y, (np.arange(len(y)) < 3).astype(int), patients)


def test_leak_canary():
    """Each patient has a signature and a prevalence that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(80), 25)
    X = rng.normal(size=(80, 8))[patients] + 0.05 * rng.normal(size=(2000, 8))
    y = (rng.random(2000) < rng.choice([0.05, 0.95], 80)[patients]).astype(int)

    def score(cv):
        found = cross_validate(KNeighborsClassifier(9), X, y, params={"groups": patients}, cv=cv, scoring="roc_auc")
        return found["test_score"].mean()

    with sklearn.config_context(enable_metadata_routing=True):
        assert abs(score(PatientKFold(5)) - 0.5) < 0.1
        with sklearn.config_context(enable_metadata_routing=False):
            leaking = cross_validate(KNeighborsClassifier(9), X, y, cv=PatchKFold(5), scoring="roc_auc")
    assert leaking["test_score"].mean() > 0.9
