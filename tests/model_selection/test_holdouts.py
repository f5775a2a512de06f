import numpy as np
import pytest
from sklearn.base import clone

from histofeat import (
    GroupLeakageError,
    PatientHoldOuts,
    PatientKFold,
    RepeatedPatientKFold,
    check_no_shared_patients,
)
from histofeat.model_selection import LimitedTraining
from histofeat.model_selection._holdouts import _apportion


@pytest.fixture
def rows():
    """Labels and patients of 24 benign and 58 malignant patients with 1 to 5 images each."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100, 182), rng.integers(1, 6, 82))
    return (patients >= 124).astype(int), patients


def splits(y, groups, **kwargs):
    return list(PatientHoldOuts(**kwargs).split(y, y, groups))


def test_sides_are_whole_patients_and_all_rows(rows):
    y, patients = rows
    for train, test in splits(y, patients):
        check_no_shared_patients(train, test, patients)
        assert np.array_equal(np.sort(np.r_[train, test]), np.arange(len(y)))
        assert train.dtype == test.dtype == np.int64
        assert (np.diff(train) > 0).all()


def test_share_holds_within_each_class(rows):
    y, patients = rows
    for _, test in splits(y, patients):
        tested = np.unique(patients[test])
        # 0.3 * 24 = 7.2, 0.3 * 58 = 17.4, 0.3 * 82 = 24.6: the largest remainder gets the 25th patient.
        assert ((tested < 124).sum(), (tested >= 124).sum()) == (7, 18)


def test_hold_outs_differ_and_overlap(rows):
    y, patients = rows
    tests = [set(patients[test]) for _, test in splits(y, patients)]
    assert len({frozenset(test) for test in tests}) == 5
    assert any(tests[0] & other for other in tests[1:])
    # The folds of a partition do not.
    folds = [set(patients[test]) for _, test in PatientKFold(5).split(y, y, patients)]
    assert not any(folds[0] & other for other in folds[1:])


def test_same_seed_same_splits_whatever_the_order_and_type(rows):
    y, patients = rows
    order = np.random.default_rng(1).permutation(len(y))
    first = splits(y, patients, random_state=3)
    shuffled = splits(y[order], patients[order].astype(str), random_state=3)
    for (_, test), (_, other) in zip(first, shuffled, strict=True):
        assert set(test) == set(order[other])
    assert [t.tolist() for _, t in first] == [t.tolist() for _, t in splits(y, patients, random_state=3)]
    assert [t.tolist() for _, t in first] != [t.tolist() for _, t in splits(y, patients, random_state=4)]


def test_every_patient_is_drawn_about_as_often(rows):
    y, patients = rows
    drawn = np.zeros(82)
    for _, test in splits(y, patients, n_splits=400):
        drawn[np.unique(patients[test]) - 100] += 1
    # Binomial with 400 draws of 0.29 and 0.31: a standard deviation of 9.
    assert abs(drawn[:24] - 400 * 7 / 24).max() < 40
    assert abs(drawn[24:] - 400 * 18 / 58).max() < 40


def test_patients_of_two_classes_leave_no_side_without_one():
    y = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 0])
    patients = np.array([0, 0, 0, 1, 1, 1, 2, 3, 4, 5])
    for train, test in splits(y, patients, n_splits=20):
        assert set(y[train]) == set(y[test]) == {0, 1}


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([24, 58], 0.3, [7, 18]),
        ([4, 10, 3, 7, 38, 5, 9, 6], 0.3, [1, 3, 1, 2, 11, 2, 3, 2]),
        ([2, 2], 0.01, [1, 1]),
        ([2, 2], 0.99, [1, 1]),
        ([10, 10], 0.5, [5, 5]),
    ],
)
def test_apportion(counts, share, expected):
    assert _apportion(counts, share).tolist() == expected


def test_is_a_scikit_learn_splitter(rows):
    y, patients = rows
    splitter = PatientHoldOuts(3, test_size=0.2, random_state=7)
    assert repr(clone_of := clone(splitter, safe=False)) == repr(splitter)
    assert repr(splitter) == "PatientHoldOuts(n_splits=3, test_size=0.2, random_state=7)"
    assert clone_of.get_n_splits() == len(list(splitter.split(y, y, patients))) == 3


def test_without_a_seed_splits_differ(rows):
    y, patients = rows
    one, two = (splits(y, patients, random_state=None) for _ in range(2))
    assert [t.tolist() for _, t in one] != [t.tolist() for _, t in two]


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("n_splits", 0, "n_splits: expected a whole number of at least 1, got 0"),
            ("n_splits", True, "n_splits: expected a whole number of at least 1, got True"),
            ("random_state", -1, "random_state: expected a whole number of at least 0, got -1"),
            ("test_size", 0, "test_size: expected a share of the patients between 0 and 1, got 0"),
            ("test_size", 1.0, "test_size: expected a share of the patients between 0 and 1, got 1.0"),
            ("test_size", "a third", "test_size: expected a share of the patients between 0 and 1, got 'a third'"),
        ],
    )
    def test_parameters(self, rows, name, value, message):
        with pytest.raises(ValueError, match=message):
            splits(*rows, **{name: value})

    def test_class_of_one_patient(self):
        with pytest.raises(ValueError, match=r"got class 1 in 1 of 3 patients\. .*merge_rare_classes"):
            splits(np.array([0, 0, 1, 1]), np.array([1, 2, 3, 3]))

    def test_no_draw_has_every_class_on_both_sides(self):
        # Patients a and b are mostly of classes that nobody else is: so small a share takes neither, nor class 1.
        y = np.array([1, 1, 2, 2, 1, 0, 0, 2, 0])
        patients = np.array(list("aabbbcccd"))
        with pytest.raises(ValueError, match="got a side without class 1 in each of 20 draws"):
            splits(y, patients, test_size=0.01)

    def test_labels(self, rows):
        y, patients = rows
        with pytest.raises(ValueError, match=r"one class label for each of \d+ patches, got None"):
            list(PatientHoldOuts().split(patients, None, patients))
        with pytest.raises(ValueError, match=r"one class label for each of \d+ patches, got shape \(3,\)"):
            list(PatientHoldOuts().split(patients, [0, 1, 0], patients))
        with pytest.raises(ValueError, match=r"at least 2 classes in y, got only class 0"):
            splits(np.zeros(len(y), dtype=int), patients)
        with pytest.raises(ValueError, match=r"without gaps, got float64 values such as nan"):
            splits(np.where(np.arange(len(y)) == 4, np.nan, y), patients)

    def test_patients(self, rows):
        with pytest.raises(GroupLeakageError, match="expected one patient id per patch, got None"):
            splits(rows[0], None)


class TestRepeatedPatientKFold:
    def test_each_repeat_is_a_partition_of_whole_patients_and_differs(self, rows):
        y, patients = rows
        cv = RepeatedPatientKFold(n_splits=4, n_repeats=3)
        found = list(cv.split(y, y, patients))
        assert len(found) == cv.get_n_splits() == cv.get_n_splits(y, y, patients) == 12
        partitions = set()
        for start in range(0, 12, 4):
            repeat = found[start : start + 4]
            assert np.array_equal(np.sort(np.concatenate([test for _, test in repeat])), np.arange(len(y)))
            for train, test in repeat:
                check_no_shared_patients(train, test, patients)
                assert set(y[train]) == set(y[test]) == {0, 1}
            partitions.add(frozenset(frozenset(patients[test]) for _, test in repeat))
        assert len(partitions) == 3

    def test_same_seed_same_splits_whatever_the_order_and_type(self, rows):
        y, patients = rows
        order = np.random.default_rng(1).permutation(len(y))

        def tests(y, patients, **more):
            return [test for _, test in RepeatedPatientKFold(3, 2, **more).split(y, y, patients)]

        first, shuffled = tests(y, patients), tests(y[order], patients[order].astype(str))
        assert [set(test) for test in first] == [set(order[test]) for test in shuffled]
        assert [test.tolist() for test in first] == [test.tolist() for test in tests(y, patients)]
        for seed in (1, None):
            assert [test.tolist() for test in first] != [
                test.tolist() for test in tests(y, patients, random_state=seed)
            ]

    def test_repr_clone_and_defaults(self):
        cv = clone(RepeatedPatientKFold(), safe=False)
        assert (cv.n_splits, cv.n_repeats, cv.random_state) == (5, 3, 0)
        assert repr(cv) == "RepeatedPatientKFold(n_splits=5, n_repeats=3, random_state=0)"

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"n_splits": 1}, r"RepeatedPatientKFold\.n_splits: expected a whole number of at least 2, got 1"),
            ({"n_repeats": 0}, r"RepeatedPatientKFold\.n_repeats: expected a whole number of at least 1, got 0"),
            (
                {"random_state": -1},
                r"RepeatedPatientKFold\.random_state: expected a whole number of at least 0, got -1",
            ),
            ({"n_splits": 90}, r"PatientKFold\.n_splits: expected at least as many patients as folds, got 82"),
        ],
    )
    def test_refusals(self, rows, params, message):
        y, patients = rows
        with pytest.raises(ValueError, match=message):
            RepeatedPatientKFold(**params).split(y, y, patients)
        with pytest.raises(GroupLeakageError, match="groups: expected one patient id per patch, got None"):
            RepeatedPatientKFold().split(y, y)


def limited(y, patients, k, cv=None, **kwargs):
    return list(LimitedTraining(cv or PatientKFold(3), k, **kwargs).split(y, y, groups=patients))


def test_limited_training_draws_from_each_patient_and_leaves_the_tests(rows):
    y, patients = rows
    whole, some = list(PatientKFold(3).split(y, y, patients)), limited(y, patients, 2)
    for (train, test), (few, same) in zip(whole, some, strict=True):
        assert np.array_equal(test, same)
        assert np.isin(few, train).all()
        sizes, kept = (np.bincount(patients[part], minlength=182) for part in (train, few))
        assert np.array_equal(kept, np.minimum(sizes, 2))
    # A limit that nobody reaches changes nothing.
    for (train, _), (same, _) in zip(whole, limited(y, patients, 5), strict=True):
        assert np.array_equal(train, same)


def test_limited_training_draws_the_same_patches_in_every_split(rows):
    y, patients = rows
    folds = limited(y, patients, 2)
    shared = np.intersect1d(patients[folds[0][0]], patients[folds[1][0]])
    first, second = (set(train[np.isin(patients[train], shared)]) for train, _ in folds[:2])
    assert first == second
    # Inside the training rows of a fold as well, and with ids as text.
    train = np.flatnonzero(patients % 4 > 0)
    for inner, _ in limited(y[train], patients[train].astype(str), 2):
        assert set(train[inner]) <= set(np.concatenate([kept for kept, _ in folds]))
    assert not np.array_equal(folds[0][0], limited(y, patients, 2, random_state=1)[0][0])


def test_limited_training_is_seen_in_its_words_and_counts():
    cv = LimitedTraining(PatientKFold(4), 200)
    assert cv.get_n_splits() == 4
    assert repr(cv).startswith("LimitedTraining(cv=PatientKFold(n_splits=4, ")
    assert repr(cv).endswith(", patches_per_patient=200, random_state=0)")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "LimitedTraining.patches_per_patient: expected a whole number of at least 1, got 0"),
        ({"k": 2.5}, "LimitedTraining.patches_per_patient: expected a whole number of at least 1, got 2.5"),
        ({"k": 2, "random_state": None}, "LimitedTraining.random_state: expected a whole number"),
        ({"k": 2, "cv": [([0], [1])]}, "LimitedTraining.cv: expected a splitter, got"),
    ],
)
def test_limited_training_refuses_what_it_cannot_use(rows, given, message):
    y, patients = rows
    with pytest.raises(ValueError, match=message):
        limited(y, patients, **given)


def test_limited_training_refuses_to_lose_a_class_or_the_patients():
    y, patients = np.array(([0] * 40 + [1]) * 4), np.repeat(list("abcd"), 41)
    with pytest.raises(ValueError, match=r"expected training patches of every class, got none of .*1.* among 1 of"):
        limited(y, patients, 1, PatientKFold(2))
    with pytest.raises(GroupLeakageError, match="expected one patient id per patch"):
        limited(y, None, 1)
