"""Too few patients to calibrate on: refused with their numbers, at the limit, before any image is read."""

import numpy as np
import pytest
from sklearn.svm import SVC
from test_evaluation import MeanColor, write_dataset

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.features import Runtime
from histofeat.models import HEADS, FeatureHead, check_enough_patients, make_head
from histofeat.studies import measure_robustness, permutation_importance


@pytest.fixture
def cohort_of(tmp_path):
    """Give a data set of so many patients, each with patches of both classes."""

    def make(n_patients, n_patches=4):
        rng, n = np.random.default_rng(0), n_patients * n_patches
        y = np.tile([0, 1], n // 2)
        return write_dataset(tmp_path, rng.uniform(20, 230, (n, 3)), y, np.repeat(range(n_patients), n_patches))

    return make


def vote(head="vote"):
    return IDCPipeline((MeanColor(),), head, head_params={"xgboost__n_estimators": 3} if head == "vote" else None)


def test_an_evaluation_that_is_too_small_is_refused_before_any_work(cohort_of):
    stages = []
    with pytest.raises(
        ValueError,
        match=r"pipeline 'mine', fold \d, inner fit \d: expected at least 3 patients of each class to calibrate 'svm' "
        r"of the vote, got 2 of class '\w+'\. Add patients, train on more of them by more folds",
    ):
        evaluate(
            cohort_of(6),
            {"mine": vote()},
            n_resamples=0,
            runtime=Runtime(progress=lambda stage, *_: stages.append(stage)),
        )
    assert stages == []


def test_one_patient_more_is_enough(cohort_of):
    """Seven are: five folds leave five of them, three inner folds of these three, to calibrate on."""
    (model,) = evaluate(cohort_of(7), {"mine": vote()}, n_resamples=0).models
    assert np.isfinite(model.proba).all()


def test_other_heads_need_fewer(cohort_of):
    heads = {name: vote(name) for name in ("svm", "logistic")}
    assert len(evaluate(cohort_of(5), heads, n_resamples=0).models) == 2


@pytest.mark.parametrize(("head", "whom"), [("vote", "'svm' of the vote"), ("svm", "KernelSVM")])
def test_a_fit_that_is_too_small_reads_no_image(head, whom):
    paths, y, groups = [f"nowhere/{row}.png" for row in range(5)], [0, 1, 0, 1, 1], list("aabbc")
    message = rf"IDCPipeline\.fit: expected at least 3 patients of each class to calibrate {whom}, got 2 of class 0\."
    with pytest.raises(ValueError, match=message):
        IDCPipeline("color", head).fit(paths, y, groups=groups)


def test_three_patients_of_a_class_whom_no_folds_take():
    """Each class misses another of four patients: whichever two are together, a class of both loses a fold."""
    groups = np.repeat(np.arange(4), 3)
    y = np.array([0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3])
    message = r"got 3 of class 0 and no 3 folds of patients with each class in each\. Add patients"
    with pytest.raises(ValueError, match=message):
        IDCPipeline("color", "svm").fit([f"nowhere/{row}.png" for row in range(len(y))], y, groups=groups)


def test_early_stopping_without_patients_and_weights_that_a_head_does_not_take_read_no_image():
    paths = ["nowhere/0.png", "nowhere/1.png"]
    with pytest.raises(ValueError, match="groups: expected the patient of each row, since early_stopping_rounds"):
        IDCPipeline("color", head_params={"early_stopping_rounds": 5}).fit(paths, [0, 1])
    with pytest.raises(ValueError, match=r"expected every class on both sides, got class 0 in 1 of 2 patients"):
        IDCPipeline("color", head_params={"early_stopping_rounds": 5}).fit(paths, [0, 1], groups=["a", "b"])
    with pytest.raises(ValueError, match=r"sample_weight: expected a classifier whose fit takes .*, got QuadraticDisc"):
        IDCPipeline("color", "qda").fit(paths, [0, 1], sample_weight=[1, 2])
    with pytest.raises(ValueError, match=r"sample_weight: expected a classifier whose fit takes .*, got CNNClassifier"):
        IDCPipeline("pixels", "cancernet").fit(paths, [0, 1], sample_weight=[1, 2])
    with pytest.raises(ValueError, match=r"sample_weight: expected one weight per image \(2\), got 3"):
        IDCPipeline("color").fit(paths, [0, 1], sample_weight=[1, 2, 3])


def test_folds_of_robustness_and_explanations_are_refused_too(cohort_of):
    dataset = cohort_of(4)
    with pytest.raises(ValueError, match=r"measure_robustness\.pipelines\['mine'\]: expected at least 3 .*, got 2 of"):
        measure_robustness(dataset, {"mine": vote("svm")}, PatientKFold(2))
    with pytest.raises(ValueError, match=r"explanation\.pipeline: expected at least 3 .*, got 2 of class"):
        permutation_importance(dataset, vote(), PatientKFold(2))


@pytest.mark.parametrize("name", [*HEADS, "svc"])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_let_through_can_be_fitted_and_what_is_not_cannot(name, seed):
    """The limit is that of the fits themselves, for patients of one class or of both, of any size."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0.0, 0.5, 1.0], rng.integers(4, 8))
    groups = np.repeat(np.arange(len(rates)), rng.integers(3, 12, len(rates)))
    y = (rng.random(len(groups)) < rates[groups]).astype(int)
    y[:2] = [0, 1]
    X = rng.normal(size=(len(y), 3)).astype(np.float32) + y[:, None]
    head = FeatureHead(SVC(), calibrate=True) if name == "svc" else make_head(name)
    try:
        check_enough_patients(head, y, groups, "fit")
    except ValueError:
        with pytest.raises(ValueError, match="PatientKFold"):
            head.fit(X, y, groups=groups)
    else:
        assert set(head.fit(X, y, groups=groups).classes_) == {0, 1}
