"""
Choose parameters inside the training patients
==============================================

A search that sees the patients it is scored on reports the best of its own luck. Here each fold is scored on patients
that took no part in the choice of C: the choice is made by two folds inside the other patients. scikit-learn and
`evaluate` walk the same folds of whole patients and choose the same.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import sklearn
from sklearn.model_selection import GridSearchCV, cross_validate

from histofeat import FeatureStore, IDCPipeline, PatientKFold, Runtime, Search, evaluate, make_cohort

values_of_c = [0.1, 1.0, 10.0]
outer, inner = PatientKFold(3), PatientKFold(2)
cohort = make_cohort(n_patients=18, patches_per_patient=12, random_state=0)
# Every fit measures its patches; with a store each image is measured once.
store = FeatureStore(Path(tempfile.mkdtemp()) / "features.sqlite")

# %%
# By scikit-learn alone. Routing carries the patients to whoever asks for them: both splitters, and the fit of the SVM,
# which calibrates its scores on patients held out. Without it the inner splitter refuses to split patches of unknown
# patients.

with sklearn.config_context(enable_metadata_routing=True):
    pipeline = IDCPipeline(features=("color", "lbp"), head="svm", store=store).set_fit_request(groups=True)
    search = GridSearchCV(pipeline, {"head__C": values_of_c}, cv=inner, scoring="roc_auc")
    found = cross_validate(
        search,
        cohort.X,
        cohort.y,
        cv=outer,
        scoring="roc_auc",
        params={"groups": cohort.patients},
        return_estimator=True,
    )
theirs = [fitted.best_params_["head__C"] for fitted in found["estimator"]]

# %%
# By `evaluate`, which adds thresholds, intervals and a record of the choices.

evaluation = evaluate(
    cohort,
    {"color and lbp": IDCPipeline(features=("color", "lbp"), head="svm")},
    outer,
    inner_cv=inner,
    search=Search({"svm": {"C": values_of_c}}, n_iter=len(values_of_c)),
    n_resamples=200,
    runtime=Runtime(store=store),
)
(model,) = evaluation.models
ours = [choice["params"]["C"] for choice in model.choices]
score = model.scores["roc_auc"]
for fold in range(3):
    print(f"fold {fold}: C {theirs[fold]:g} and {ours[fold]:g}, ", end="")
    print(f"ROC-AUC {found['test_score'][fold]:.4f} and {score.folds[fold]:.4f}")
print(f"pooled: {score.value:.2f}, 95 % interval over patients {score.ci95[0]:.2f} to {score.ci95[1]:.2f}")

# %%

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
bars = ax.bar(range(3), score.folds, color="#2a6f97")
ax.bar_label(bars, [f"C = {value:g}" for value in ours])
ax.axhspan(*score.ci95, color="#2a6f97", alpha=0.15, label="95 % interval, pooled")
ax.set(xticks=range(3), xlabel="fold", ylabel="ROC-AUC", ylim=(0.5, 1.05))
ax.legend(loc="lower right")
plt.show()
