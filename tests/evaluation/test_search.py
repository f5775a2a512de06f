"""The search inside the training patients: the same candidates for all, chosen as by hand, and on nobody else."""

import json

import numpy as np
import pytest
from scipy.stats import loguniform, randint
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import ParameterSampler

from histofeat import PatientKFold
from histofeat.evaluation import Search
from histofeat.evaluation._search import tune_head
from histofeat.models import FeatureHead, SoftVote, make_head
from histofeat.models._classifiers import KernelSVM

SPACE = {"C": [1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0], "class_weight": [None, "balanced"]}


def problem(n_classes=2, n_patients=24, seed=0):
    """Features in which each patient is a little different, with the rows of a patient not together."""
    rng = np.random.default_rng(seed)
    patients = np.tile([f"p{number:02}" for number in range(n_patients)], 8)
    y = rng.integers(0, n_classes, len(patients))
    own = rng.normal(0, 1, (n_patients, 6))
    X = own[np.tile(np.arange(n_patients), 8)] + rng.normal(0, 1, (len(y), 6))
    X[:, 0] += 0.9 * y
    return X.astype(np.float32), y, patients


def by_hand(head, X, y, patients, inner_cv, candidates, score):
    """Mean inner score of each candidate, in a plain loop."""
    means = []
    for params in candidates:
        found = []
        for train, test in inner_cv.split(X, y, patients):
            fitted = make_head(head, params=params).fit(X[train], y[train])
            found.append(score(y[test], fitted.decision_function(X[test])))
        means.append(np.mean(found))
    return means


@pytest.mark.parametrize(
    ("scoring", "score"), [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_the_choice_is_the_best_of_the_sampled_candidates_by_a_plain_loop(scoring, score):
    X, y, patients = problem()
    search = Search({"logistic": SPACE}, n_iter=7, random_state=3, scoring=scoring)
    tuned, choice = tune_head(make_head("logistic"), X, y, patients, PatientKFold(3), search, "logistic")
    candidates = list(ParameterSampler(SPACE, 7, random_state=3))
    means = by_hand("logistic", X, y, patients, PatientKFold(3), candidates, score)
    assert len(set(np.round(means, 6))) > 1
    assert choice["params"] == candidates[int(np.argmax(means))]
    assert choice["inner_score"] == pytest.approx(max(means), abs=1e-12)
    assert (choice["n_candidates"], choice["n_fits"], choice["method"]) == (7, 21, "random")
    assert {name: getattr(tuned.classifier, name) for name in SPACE} == choice["params"]


def test_three_classes_are_ranked_one_against_the_rest():
    X, y, patients = problem(n_classes=3)
    search = Search({"C": [0.001, 1.0]}, n_iter=2)
    _, choice = tune_head(make_head("svm"), X, y, patients, PatientKFold(3), search, "svm")
    candidates = [{"C": 0.001}, {"C": 1.0}]

    def score(truth, values):
        return np.mean([roc_auc_score(truth == code, values[:, code]) for code in range(3)])

    means = by_hand("svm", X, y, patients, PatientKFold(3), candidates, score)
    assert choice["params"] == candidates[int(np.argmax(means))]
    assert choice["inner_score"] == pytest.approx(max(means), abs=1e-12)


class Spy(LogisticRegression):
    """Remembers the first column of every row that it is fitted or asked on: there it is the row's number."""

    seen: list = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        self.seen.append(("fit", X[:, 0].astype(int)))
        return super().fit(X, y, sample_weight)

    def decision_function(self, X):
        self.seen.append(("ask", X[:, 0].astype(int)))
        return super().decision_function(X)


def test_no_row_of_a_test_patient_is_learnt_from_or_asked():
    X, y, patients = problem()
    X[:, 0] = np.arange(len(X))
    train, test = next(PatientKFold(3).split(X, y, patients))
    Spy.seen.clear()
    head, search = FeatureHead(Spy()), Search({"C": [0.01, 0.1, 1.0]})
    tune_head(head, X[train], y[train], patients[train], PatientKFold(2), search, "Spy")
    assert {kind for kind, _ in Spy.seen} == {"fit", "ask"}
    assert set(np.concatenate([rows for _, rows in Spy.seen])) == set(train)
    assert not set(patients[train]) & set(patients[test])
    for (_, learnt), (_, asked) in zip(Spy.seen[::2], Spy.seen[1::2], strict=True):
        assert not set(patients[learnt]) & set(patients[asked])


def test_every_feature_set_head_and_fold_gets_the_same_budget():
    X, y, patients = problem()
    search = Search(
        {"logistic": {"C": loguniform(1e-3, 10)}, "svm": {"C": loguniform(1e-3, 10)}}, n_iter=4, random_state=1
    )
    sampled = [one["C"] for one in ParameterSampler({"C": loguniform(1e-3, 10)}, 4, random_state=1)]
    choices = [
        tune_head(make_head(name), features, y, patients, PatientKFold(3), search, name)[1]
        for name in ("logistic", "svm")
        for features in (X, X[:, :2])
    ]
    assert {(choice["n_candidates"], choice["n_fits"]) for choice in choices} == {(4, 12)}
    for choice in choices:
        assert choice["params"]["C"] in sampled
        assert type(choice["params"]["C"]) is float


def test_the_same_search_chooses_the_same():
    X, y, patients = problem()
    search = Search({"random_forest": {"max_depth": randint(1, 5), "n_estimators": [5, 10]}}, n_iter=5)
    first, second = (
        tune_head(make_head("random_forest"), X, y, patients, PatientKFold(3), search, "random_forest")[1]
        for _ in range(2)
    )
    assert first == second


def test_fewer_combinations_than_the_budget_are_all_tried():
    X, y, patients = problem()
    search = Search({"logistic": {"C": np.array([0.1, 1.0]), "fit_intercept": (True,)}}, n_iter=10)
    _, choice = tune_head(make_head("logistic"), X, y, patients, PatientKFold(2), search, "logistic")
    assert (choice["n_candidates"], choice["n_fits"]) == (2, 4)
    assert choice["params"]["fit_intercept"] is True


def test_a_head_that_is_not_named_comes_back_as_it_is():
    X, y, patients = problem()
    head = make_head("random_forest")
    found, choice = tune_head(head, X, y, patients, PatientKFold(2), Search({"svm": {"C": [1.0]}}), "random_forest")
    assert found is head
    assert choice == {}


def test_the_head_that_was_given_is_not_changed():
    X, y, patients = problem()
    head = make_head("svm", class_weight="balanced")
    tuned, _ = tune_head(head, X, y, patients, PatientKFold(2), Search({"svm": {"C": [7.0]}}), "svm")
    assert (head.classifier.C, tuned.classifier.C) == (1.0, 7.0)
    assert (tuned.class_weight, tuned.calibrate, tuned.scale) == ("balanced", True, True)


def test_a_head_that_needs_patients_in_its_fit_is_told_them():
    X, y, patients = problem()
    line, machine = LogisticRegression(), KernelSVM(random_state=0)
    head = FeatureHead(SoftVote([("line", line), ("machine", machine)]))
    search = Search({"machine__C": [0.01, 1.0, 10.0], "line__C": [0.1]})
    tuned, choice = tune_head(head, X, y, patients, PatientKFold(2), search, "vote")
    assert tuned.get_params()["classifier__machine__C"] == choice["params"]["machine__C"]
    scores = {}
    for c in (0.01, 1.0, 10.0):
        members = [("line", LogisticRegression(C=0.1)), ("machine", KernelSVM(C=c, random_state=0))]
        scores[c] = np.mean(
            [
                roc_auc_score(
                    y[test],
                    FeatureHead(SoftVote(members))
                    .fit(X[train], y[train], patients[train])
                    .predict_proba(X[test])[:, 1],
                )
                for train, test in PatientKFold(2).split(X, y, patients)
            ]
        )
    assert choice["params"]["machine__C"] == max(scores, key=scores.get)
    assert choice["inner_score"] == pytest.approx(scores[choice["params"]["machine__C"]])


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": {}}, "Search.params: expected at least one parameter, got {}"),
        ({"params": [1]}, "Search.params: expected heads with their parameters, got list"),
        ({"params": {"svm": {}}}, r"Search.params\['svm'\]: expected at least one parameter, got {}"),
        (
            {"params": {"svm": {"C": []}}},
            r"Search.params\['svm'\]\['C'\]: expected a list of different values .*, got \[\]",
        ),
        ({"params": {"C": "abc"}}, r"Search.params\['C'\]: expected a list of different values .*, got 'abc'"),
        ({"params": {"C": 1.0}}, r"Search.params\['C'\]: expected a list of different values .*, got 1.0"),
        ({"params": {"svm": {"C": [1]}, "gamma": [1]}}, "got the head 'svm' beside the parameter 'gamma'"),
        ({"params": {"xgboost": {"random_state": [1, 2]}}}, "got 'random_state': the best of several seeds is luck"),
        ({"params": {"xgboost": {"early_stopping_rounds": [5]}}}, "got 'early_stopping_rounds': it needs rows to stop"),
        ({"params": {"kernelsvm__random_state": [5]}}, "got 'kernelsvm__random_state': the best of several seeds"),
        ({"n_iter": 0}, "Search.n_iter: expected a whole number of at least 1, got 0"),
        ({"n_iter": True}, "Search.n_iter: expected a whole number of at least 1, got True"),
        ({"n_iter": 2.5}, "Search.n_iter: expected a whole number of at least 1, got 2.5"),
        ({"random_state": -1}, "Search.random_state: expected a whole number of at least 0, got -1"),
        ({"random_state": None}, "Search.random_state: expected a whole number of at least 0, got None"),
        ({"scoring": "rocauc"}, "Search.scoring: expected the name of a scorer, got 'rocauc'. Did you mean 'roc_auc'?"),
        ({"scoring": roc_auc_score}, "Search.scoring: expected the name of a scorer, got <function"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Search(**{"params": {"svm": {"C": [1.0]}}, **options})


def test_a_plain_mapping_is_read_as_a_search():
    search = Search({"svm": {"C": [1.0, 2.0]}}, n_iter=3)
    assert Search.of(search) is search
    assert Search.of(None) is None
    assert Search.of({"params": {"svm": {"C": [1.0, 2.0]}}, "n_iter": 3}) == search
    assert Search.of({"svm": {"C": [1.0, 2.0]}}).n_iter == 10
    with pytest.raises(ValueError, match="search: expected a Search or a mapping of heads to parameters, got int"):
        Search.of(5)
    with pytest.raises(ValueError, match=r"got 'n_iters'. Did you mean 'n_iter'?"):
        Search.of({"params": {"C": [1.0]}, "n_iters": 3})


def test_a_search_is_written_as_json():
    space = {"depth": randint(1, high=5), "C": [1.0, None, (2, 3)], "names": np.array(["a", "b"])}
    search = Search({"svm": space, "other": {"kernel": [Spy]}}, n_iter=3)
    written = search.to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["params"]["svm"] == {"depth": "randint(1, high=5)", "C": [1.0, None, [2, 3]], "names": ["a", "b"]}
    assert written["params"]["other"]["kernel"] == [str(Spy)]
    assert (written["n_iter"], written["method"], written["scoring"]) == (3, "random", "roc_auc")


def test_unknown_heads_and_parameters_are_refused_with_the_nearest():
    heads = {"svm": make_head("svm"), "logistic": make_head("logistic")}
    Search({"svm": {"C": [1.0]}, "xgboost": {"max_depth": [3]}}).check_heads(heads)
    Search({"C": [1.0]}).check_heads(heads)
    Search({"C": [1.0]}).check_heads({})  # where nothing can run there is nothing to refuse
    with pytest.raises(ValueError, match=r"names of heads, got 'smv'. Did you mean 'svm'?"):
        Search({"smv": {"C": [1.0]}, "svm": {"C": [1.0]}}).check_heads(heads)
    with pytest.raises(ValueError, match=r"a head that is evaluated, got those of xgboost\. Heads here: logistic, svm"):
        Search({"xgboost": {"max_depth": [3]}}).check_heads(heads)
    with pytest.raises(ValueError, match=r"head 'logistic' \(LogisticRegression\), got 'gamma'"):
        Search({"gamma": [1.0]}).check_heads(heads)
    X, y, patients = problem()
    with pytest.raises(ValueError, match=r"head 'svm' \(KernelSVM\), got 'max_dept'"):
        tune_head(heads["svm"], X, y, patients, PatientKFold(2), Search({"max_dept": [3], "n_trees": [1]}), "svm")


def test_a_scorer_of_probabilities_is_refused_where_there_are_none():
    X, y, patients = problem()
    search = Search({"C": [0.1, 1.0]}, scoring="neg_log_loss")
    with pytest.raises(ValueError, match=r"Search.scoring: .* head 'svm', .* got 'neg_log_loss'"):
        tune_head(make_head("svm"), X, y, patients, PatientKFold(2), search, "svm")
    assert tune_head(make_head("logistic"), X, y, patients, PatientKFold(2), search, "logistic")[1]["inner_score"] < 0


def test_errors_of_a_head_with_probabilities_pass_as_they_are():
    class Broken(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise AttributeError("broken inside")

    X, y, patients = problem()
    with pytest.raises(AttributeError, match="broken inside"):
        tune_head(FeatureHead(Broken()), X, y, patients, PatientKFold(2), Search({"C": [1.0]}), "Broken")


def test_an_inner_fold_without_a_class_is_refused():
    X, y, patients = problem()
    rows = np.arange(len(y))

    class Lopsided:
        def split(self, X, y, groups):
            yield rows[y == 0], rows[y == 1]

    with pytest.raises(ValueError, match=r"no patch of class 1 on the training side of fold 1 \(1 such classes\)"):
        tune_head(make_head("logistic"), X, y, patients, Lopsided(), Search({"C": [1.0]}), "logistic")
