"""Tune inside the training patients, score on others: by scikit-learn with metadata routing, and by `evaluate`.

    python examples/nested_search.py

A search that sees the patients it is scored on reports the best of its own luck. Here each of three folds is scored
on patients that took no part in the choice of C: the choice is made by two folds inside the other patients. Both
ways walk the same folds of whole patients and choose the same. The cohort is synthetic: the numbers say nothing
about patients.
"""

import tempfile
from pathlib import Path

import sklearn
from sklearn.model_selection import GridSearchCV, cross_validate

from histofeat import FeatureStore, IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.evaluation import Search
from histofeat.features import Runtime

VALUES_OF_C = [0.1, 1.0, 10.0]
OUTER, INNER = PatientKFold(3), PatientKFold(2)


def by_scikit_learn(cohort, store):
    """Search and score with scikit-learn alone; gives (chosen C, ROC-AUC) of each fold."""
    # Routing carries the patients to whoever asks for them: both splitters, which do so by themselves, and the fit
    # of the SVM, which calibrates its scores on patients held out. Without it they would stop at the outer splitter,
    # and the inner one would refuse to split patches of unknown patients.
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = IDCPipeline(features=("color", "lbp"), head="svm", store=store).set_fit_request(groups=True)
        search = GridSearchCV(pipeline, {"head__C": VALUES_OF_C}, cv=INNER, scoring="roc_auc")
        found = cross_validate(
            search,
            cohort.X,
            cohort.y,
            cv=OUTER,
            scoring="roc_auc",
            params={"groups": cohort.patients},
            return_estimator=True,
        )
    chosen = [fitted.best_params_["head__C"] for fitted in found["estimator"]]
    return list(zip(chosen, found["test_score"], strict=True))


def by_evaluate(cohort, store):
    """Do the same by `evaluate`, which adds thresholds, intervals and a record of the choices."""
    pipelines = {"color and lbp": IDCPipeline(features=("color", "lbp"), head="svm")}
    search = Search({"svm": {"C": VALUES_OF_C}}, n_iter=len(VALUES_OF_C))
    evaluation = evaluate(
        cohort, pipelines, OUTER, inner_cv=INNER, search=search, n_resamples=200, runtime=Runtime(store=store)
    )
    (model,) = evaluation.models
    chosen = [choice["params"]["C"] for choice in model.choices]
    return list(zip(chosen, model.scores["roc_auc"].folds, strict=True)), model.scores["roc_auc"]


def main():
    """Print the choice and the score of each fold, both ways."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(n_patients=18, patches_per_patient=12, random_state=0, root=Path(folder) / "cohort")
        # Every fit measures its patches; with a store each image is measured once.
        store = FeatureStore(Path(folder) / "features.sqlite")
        plain = by_scikit_learn(cohort, store)
        ours, pooled = by_evaluate(cohort, store)
    print("fold  C and ROC-AUC by scikit-learn  C and ROC-AUC by evaluate")
    for fold, (theirs, mine) in enumerate(zip(plain, ours, strict=True)):
        print(f"{fold:>4}  {theirs[0]:>20g} {theirs[1]:>9.4f}  {mine[0]:>16g} {mine[1]:>8.4f}")
    low, high = pooled.ci95
    print(f"evaluate, pooled: {pooled.value:.4f}, 95 % interval over patients {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
