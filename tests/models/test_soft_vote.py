"""The vote of several classifiers: the mean of their probabilities, and patients handed to those that need them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from histofeat.model_selection import PatientKFold
from histofeat.models import FeatureHead, SoftVote, fit_with_inner_scores, make_head
from histofeat.models._classifiers import KernelSVM


@pytest.fixture(scope="module")
def material():
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(12)], 10)
    y = rng.integers(0, 2, len(patients))
    X = rng.normal(size=(len(y), 4)).astype(np.float32) + y[:, np.newaxis]
    return X, y, patients


def test_the_vote_is_the_mean_of_its_members(material):
    X, y, _ = material
    vote = SoftVote([("line", LogisticRegression()), ("bayes", GaussianNB())]).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    alone = [member.fit(scaled, y).predict_proba(scaled) for member in (LogisticRegression(), GaussianNB())]
    np.testing.assert_allclose(vote.predict_proba(X), np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(vote.predict(X), vote.predict_proba(X).argmax(axis=1))


def test_a_member_without_probabilities_is_calibrated_on_other_patients(material):
    X, y, patients = material
    vote = SoftVote([("svm", KernelSVM())]).fit(X, y, groups=patients)
    alone = FeatureHead(KernelSVM(), scale=True, calibrate=True).fit(X, y, groups=patients)
    np.testing.assert_allclose(vote.predict_proba(X), alone.predict_proba(X))


def test_without_patients_its_note_says_that_a_member_is_calibrated_on_rows(material):
    X, y, patients = material
    vote = SoftVote([("svm", KernelSVM())])
    mean = "The mean of the probabilities of svm."
    assert vote.fit(X, y).note_.startswith(f"{mean} Calibrated on rows, since patients were not known")
    assert vote.fit(X, y, groups=patients).note_ == mean


@pytest.mark.parametrize("members", [[], [("a", GaussianNB()), ("a", GaussianNB())]])
def test_members_have_names_of_their_own(members, material):
    with pytest.raises(ValueError, match=r"SoftVote\.members: expected one or more classifiers with different names"):
        SoftVote(members).fit(*material[:2])


def test_parameters_of_members_are_reached_by_name(material):
    head = make_head("vote", params={"xgboost__n_estimators": 7, "svm__C": 3.0})
    assert head.classifier.get_params()["xgboost__n_estimators"] == 7
    assert clone(head).classifier.get_params()["svm__C"] == 3.0
    with pytest.raises(ValueError, match=r"head__svm__c: expected a parameter of head 'vote'"):
        make_head("vote", params={"svm__c": 1})
    with pytest.raises(
        ValueError, match=r"sample_weight: expected a classifier whose fit takes .* KNeighborsClassifier"
    ):
        SoftVote([("near", KNeighborsClassifier())]).fit(*material[:2], sample_weight=np.ones(120))


def test_inner_scores_come_from_fits_that_never_saw_the_patient(material):
    """Each inner fit gets the patients of its own rows: with those of other rows, the calibration would refuse."""
    X, y, patients = material
    seen = []

    class Spy(SoftVote):
        def fit(self, X, y, groups=None):
            seen.append(set(groups))
            return super().fit(X, y, groups=groups)

    head = FeatureHead(Spy([("svm", KernelSVM())]))
    fitted, inner = fit_with_inner_scores(head, X, y, patients, PatientKFold(3))
    assert [len(groups) for groups in seen] == [8, 8, 8, 12]
    assert inner.shape == (len(y), 2)
    assert np.isfinite(inner).all()
    assert fitted.notes_ == ("The mean of the probabilities of svm.",)
