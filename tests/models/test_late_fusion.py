"""Late fusion: handcrafted features and embeddings have separate classifiers, which are averaged or stacked."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from histofeat import IDCPipeline, evaluate
from histofeat.features import PatchFeatures
from histofeat.model_selection import PatientKFold
from histofeat.models import (
    ModelFileError,
    SoftVote,
    check_enough_patients,
    fit_with_inner_scores,
    load_model,
    make_head,
    save_model,
)
from histofeat.studies import ablate_families

pytest.importorskip("xgboost", reason="xgboost is not installed")

QUICK = {"xgboost__n_estimators": 5}
LATE = pytest.mark.parametrize("name", ["late_vote", "stacking"])


def family(name, n_columns, is_embedding=False):
    """What a head reads of a family."""
    names = [f"{name}_{number}" for number in range(n_columns)]
    return SimpleNamespace(family=name, is_embedding=is_embedding, get_feature_names_out=lambda: names)


#: Handcrafted columns 0 and 1, an embedding of three, and two more handcrafted ones.
FAMILIES = [family("lines", 2), family("net", 3, is_embedding=True), family("dots", 2)]
HANDCRAFTED, NET = [0, 1, 5, 6], [2, 3, 4]


class Shades(PatchFeatures):
    """The mean of each channel, as if a network had found it."""

    family = "shades"
    is_embedding = True

    def __init__(self, power=1.0):
        self.power = power

    def _check_params(self):
        pass

    def _feature_names(self):
        return [f"shades_{channel}" for channel in "rgb"]

    def _compute(self, batch):
        return batch.rgb.mean(axis=(1, 2)).astype(np.float32) ** self.power


@pytest.fixture(scope="module")
def made():
    """Handcrafted columns and an embedding that both tell the classes apart, of 12 patients."""
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{number}" for number in range(12)], 16)
    y = np.tile([0, 1], 96)
    X = rng.normal(size=(192, 7)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 2] += 2 * y
    return X, y, patients


@pytest.fixture(scope="module")
def heads(made):
    X, y, patients = made
    named = {name: make_head(name, params=QUICK, families=FAMILIES) for name in ("late_vote", "stacking")}
    return {name: head.fit(X, y, groups=patients) for name, head in named.items()}


def told(vote, X):
    """What each member says of the rows."""
    seen = {"xgboost": HANDCRAFTED, "svm": HANDCRAFTED, "net": NET}
    names = [name for name, _ in vote.members]
    return {name: head.predict_proba(X[:, seen[name]]) for name, head in zip(names, vote.members_, strict=True)}


def test_the_vote_is_the_mean_of_its_members(heads, made):
    X, y, _ = made
    each = told(heads["late_vote"].classifier_, X)
    assert list(each) == ["xgboost", "svm", "net"]
    np.testing.assert_allclose(heads["late_vote"].predict_proba(X), np.mean(list(each.values()), axis=0))
    assert (heads["late_vote"].predict(X) == y).mean() > 0.85
    assert heads["late_vote"].notes_ == (
        "The mean of the probabilities of xgboost (4 columns), svm (4 columns) and net (3 columns).",
    )


def test_the_stack_is_a_logistic_regression_on_log_odds_of_patients_that_inner_fits_had_not_seen(heads, made):
    X, y, patients = made
    parts = [("xgboost", HANDCRAFTED, {"n_estimators": 5}), ("svm", HANDCRAFTED, None), ("logistic", NET, {"C": 0.003})]
    inner, fitted = [], []
    for name, columns, params in parts:
        head = make_head(name, params=params).set_params(scale=True)
        head, held_out = fit_with_inner_scores(head, X[:, columns], y, patients, PatientKFold(3))
        fitted.append(np.log(head.predict_proba(X[:, columns])))
        inner.append(np.log(held_out))
    known, asked = (np.stack([one[:, 1] - one[:, 0] for one in kind], axis=1) for kind in (inner, fitted))
    expected = LogisticRegression(max_iter=2000).fit(known, y).predict_proba(asked)
    np.testing.assert_allclose(heads["stacking"].predict_proba(X), expected, atol=1e-6)
    assert heads["stacking"].notes_ == (
        "Probabilities of xgboost (4 columns), svm (4 columns) and net (3 columns), stacked on held-out patients.",
    )


@LATE
@pytest.mark.parametrize(("columns", "moved"), [(HANDCRAFTED, {"xgboost", "svm"}), (NET, {"net"})])
def test_members_see_their_own_columns_only(name, columns, moved, heads, made):
    vote, X = heads[name].classifier_, made[0]
    other = X.copy()
    other[:, columns] = other[::-1, columns]
    both = [
        [head.predict_proba(part) for head, part in zip(vote.members_, vote._seen(rows), strict=True)]
        for rows in (X, other)
    ]
    changed = [not np.array_equal(*pair) for pair in zip(*both, strict=True)]
    assert {name for (name, _), differs in zip(vote.members, changed, strict=True) if differs} == moved


def test_a_stack_gives_no_weight_to_an_embedding_that_knows_patients_by_heart():
    """Each patient has a column and mostly one label: what is learnt of some patients says nothing of others."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(24), 8)
    y = np.where(rng.random(192) < 0.1, 1, 0) ^ rng.permutation(24)[patients] % 2
    hand = (y + rng.normal(0, 1.5, 192)).astype(np.float32)[:, None]
    X = np.hstack([hand, np.eye(24, dtype=np.float32)[patients]])
    families = [family("lines", 1), family("net", 24, is_embedding=True)]
    head = make_head("stacking", params=QUICK, families=families)
    by_patient, by_row = (head.fit(X, y, groups=groups).classifier_.final_.coef_[0] for groups in (patients, None))
    assert by_row[2] > 1
    assert by_patient[2] < 0.1 < by_patient[:2].max()


@pytest.mark.parametrize(
    ("name", "words"), [("late_vote", "rows, since patients were not known"), ("stacking", "stacked on held-out rows.")]
)
def test_without_patients_a_note_says_so(name, words, made):
    X, y, _ = made
    (note,) = make_head(name, params=QUICK, families=FAMILIES).fit(X, y).notes_
    assert words in note


def test_where_a_class_has_too_few_rows_to_hold_any_out_the_mean_is_taken():
    X, y = np.arange(12, dtype=np.float32).reshape(4, 3), [0, 0, 1, 1]
    vote = SoftVote([("a", LogisticRegression())], final=LogisticRegression()).fit(X, y)
    assert vote.final_ is None
    assert vote.note_ == "The mean of the probabilities of a."
    np.testing.assert_array_equal(vote.predict_proba(X), vote.members_[0].predict_proba(X))


def test_features_of_one_kind_are_not_fused_which_a_note_says(made):
    X, y, patients = made
    alone = make_head("late_vote", params=QUICK).fit(X, y, groups=patients)
    vote = make_head("vote", params=QUICK).fit(X, y, groups=patients)
    np.testing.assert_array_equal(alone.predict_proba(X), vote.predict_proba(X))
    assert alone.notes_ == (f"{vote.notes_[0]} All features are of one kind: nothing is fused late.",)
    net = make_head("late_vote", families=[family("net", 7, is_embedding=True)]).fit(X, y)
    assert net.notes_[0].startswith("The mean of the probabilities of net. All features are of one kind")


def test_too_few_patients_to_stack_are_refused(made):
    head = make_head("stacking", families=[family("net", 3, is_embedding=True), family("other", 4, is_embedding=True)])
    with pytest.raises(ValueError, match=r"fit: expected at least 3 patients of each class to stack 'net' and 'other'"):
        check_enough_patients(head, [0, 1] * 2, list("aabb"), "fit")
    # The vote of the same members holds nobody out.
    check_enough_patients(make_head("late_vote", families=FAMILIES[1:2]), [0, 1] * 2, list("aabb"), "fit")


def test_embeddings_of_one_name_are_told_apart():
    kinds = [family("net", 2, True), family("net", 1, True), family("svm", 1, True), family("a__b", 1, True)]
    vote = make_head("late_vote", families=[family("lines", 1), *kinds]).classifier
    assert {name: columns.tolist() for name, columns in vote.columns.items()} == {
        "net": [1, 2], "net_": [3], "svm_": [4], "a_b": [5],
    }  # fmt: skip
    assert [name for name, _ in vote.members] == ["xgboost", "svm", "net", "net_", "svm_", "a_b"]


def test_votes_of_older_files_have_no_columns(heads, made):
    vote = clone(heads["late_vote"].classifier).set_params(columns=None).fit(*made[:2])
    expected = vote.predict_proba(made[0])
    for attribute in ("columns", "final", "final_"):
        del vars(vote)[attribute]
    np.testing.assert_array_equal(vote.predict_proba(made[0]), expected)
    assert vote.get_params()["final"] is None


def test_columns_are_of_members(made):
    with pytest.raises(ValueError, match=r"SoftVote\.columns: expected names of members, got 'other'"):
        SoftVote([("a", LogisticRegression())], columns={"other": np.arange(2)}).fit(*made[:2])


@LATE
def test_several_classes_and_class_weights(name, made):
    X, y, patients = made
    labels = np.where(np.arange(192) % 5 == 0, 2, y)
    plain, heavy = (
        make_head(name, params=QUICK, families=FAMILIES, class_weight=weight).fit(X, labels, groups=patients)
        for weight in (None, {0: 1, 1: 1, 2: 20})
    )
    proba = plain.predict_proba(X)
    assert proba.shape == (192, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    assert heavy.predict_proba(X)[:, 2].mean() > proba[:, 2].mean() + 0.1


def test_a_vote_for_some_of_the_columns(made):
    X, y, patients = made
    head = make_head("late_vote", params=QUICK, families=FAMILIES)
    part = head.classifier.restricted(np.array([1, 2, 4, 6]))
    assert part.columns["net"].tolist() == [1, 2]
    assert [name for name, _ in part.members] == ["xgboost", "svm", "net"]
    assert [name for name, _ in head.classifier.restricted(np.array(NET)).members] == ["net"]
    lines = head.classifier.restricted(np.array(HANDCRAFTED))
    assert [name for name, _ in lines.members] == ["xgboost", "svm"]
    vote = make_head("vote", params=QUICK).classifier.fit(X[:, HANDCRAFTED], y, groups=patients)
    found = lines.fit(X[:, HANDCRAFTED], y, groups=patients).predict_proba(X[:, HANDCRAFTED])
    np.testing.assert_array_equal(found, vote.predict_proba(X[:, HANDCRAFTED]))


# ---- in pipelines ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(cohort):
    chosen = np.flatnonzero(np.isin(cohort.patients, sorted(set(cohort.patients))[:12]))
    return cohort.subset(chosen)


def pipeline(name, *features):
    return IDCPipeline(features, name, head_params=QUICK)


def test_a_pipeline_hands_its_families_to_the_head(few):
    pipe = pipeline("stacking", "gray", Shades(), "color").fit(few.X, few.y, groups=few.patients)
    vote = pipe.head_.classifier_
    np.testing.assert_array_equal(vote.columns["shades"], [256, 257, 258])
    assert [head.n_features_in_ for head in vote.members_] == [436, 436, 3]
    pipe.set_params(head="late_vote", head_params=QUICK)
    (model,) = evaluate(few, {"both": pipe}, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=0).models
    assert (model.head, model.n_features) == ("late_vote", 439)
    assert "shades (3 columns)" in model.notes[0]


def test_parameters_of_members_are_set_and_searched(few):
    pipe = pipeline("late_vote", "color", Shades()).set_params(head__shades__C=3.0, features__color__bins=8)
    assert clone(pipe).get_params()["head__shades__C"] == 3.0
    assert pipe.head_params == {**QUICK, "shades__C": 3.0}
    with pytest.raises(ValueError, match=r"head__shade__C: .* 'late_vote' .* Did you mean 'shades__C'"):
        pipe.set_params(head__shade__C=1.0)
    search = GridSearchCV(pipe, {"head__shades__C": [0.01, 1.0]}, cv=PatientKFold(2), error_score="raise")
    search.fit(few.X, few.y, groups=few.patients)
    assert search.best_params_["head__shades__C"] == search.best_estimator_.head_.classifier_.members_[2].classifier_.C


def test_families_are_ablated_with_the_members_that_remain(few):
    settings = {"cv": PatientKFold(3), "n_resamples": 0}
    found = ablate_families(few, pipeline("late_vote", "color", Shades()), **settings).table.set_index("name")
    alone = evaluate(few, IDCPipeline((Shades(),), "late_vote"), **settings)
    assert found.loc["shades alone", "roc_auc"] == pytest.approx(alone.models[0].scores["roc_auc"].value)


def test_it_is_saved_with_its_columns(few, tmp_path):
    pipe = pipeline("stacking", "color", "histo").fit(few.X, few.y, groups=few.patients)
    after = load_model(save_model(pipe, tmp_path / "m.histofeat")).pipeline
    np.testing.assert_array_equal(after.predict_proba(few.X), pipe.predict_proba(few.X))
    np.testing.assert_array_equal(after.head_.classifier_.columns["histo"], np.arange(180, 324))
    after.head_.classifier_.columns = {"histo": np.array([10**9])}
    with pytest.raises(ModelFileError, match=r"forged\.histofeat: .* cannot be built \(IndexError"):
        load_model(save_model(after, tmp_path / "forged.histofeat"))
