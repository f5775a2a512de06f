"""The late vote: an embedding beside handcrafted features, each with classifiers of their own."""

import numpy as np
import pytest

pytest.importorskip("xgboost", reason="xgboost is not installed")

N_HANDCRAFTED = 4


@pytest.fixture(scope="module")
def made():
    """Handcrafted columns and an embedding that both tell the classes apart, of 12 patients."""
    rng = np.random.default_rng(0)
    patients = np.repeat([str(number) for number in range(12)], 20)
    y = np.tile([0, 1], 120)
    features = rng.normal(size=(240, N_HANDCRAFTED + 3)).astype(np.float32)
    features[:, 0] += 2 * y
    features[:, N_HANDCRAFTED] += 2 * y
    return features, y, patients


@pytest.fixture(scope="module")
def vote(loaded_script, made):
    features, y, patients = made
    with loaded_script("late_vote.py") as module:
        return module.make_late_vote(N_HANDCRAFTED, n_jobs=1).fit(features, y, groups=patients)


def said(vote, features):
    """What each member says of the patches."""
    names = [name for name, _ in vote.members]
    return {name: member.predict_proba(features) for name, member in zip(names, vote.members_, strict=True)}


def test_it_is_the_mean_of_its_members(vote, made):
    features, y, _ = made
    each = said(vote, features)
    assert list(each) == ["xgboost", "svm", "logistic"]
    np.testing.assert_allclose(vote.predict_proba(features), np.mean(list(each.values()), axis=0))
    assert (vote.predict(features) == y).mean() > 0.85


@pytest.mark.parametrize(
    ("columns", "moved"),
    [(slice(0, N_HANDCRAFTED), {"xgboost", "svm"}), (slice(N_HANDCRAFTED, None), {"logistic"})],
    ids=["handcrafted", "embedding"],
)
def test_members_see_their_own_columns_only(vote, made, columns, moved):
    features = made[0]
    other = features.copy()
    other[:, columns] = other[::-1, columns]
    before, after = said(vote, features), said(vote, other)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == moved


def test_without_patients_the_svm_is_calibrated_on_rows_and_the_vote_says_so(loaded_script, made):
    features, y, _ = made
    with loaded_script("late_vote.py") as module:
        vote = module.make_late_vote(N_HANDCRAFTED).fit(features, y)
    assert "Calibrated on rows, since patients were not known" in vote.note_
