"""How the defaults of the XGBoost head were chosen: a few settings, on IDC patients outside the official test set.

    python benchmarks/study.py head-defaults --data /path/to/idc

The narrowest family (LBP, 54 columns) and all handcrafted ones together; writes reports/head-defaults. Chosen: the
cheapest setting that costs neither of the two more than 0.003 of ROC-AUC.
"""

from functools import partial

from official_candidates import HANDCRAFTED, TEMPLATE, Candidate, compare_candidates

from histofeat.studies import Study

BASE = {"n_estimators": 300, "max_depth": 6, "max_bin": 256, "learning_rate": 0.1, "subsample": 0.8}
SETTINGS = [
    {**BASE, "colsample_bytree": 0.3},
    {**BASE, "max_bin": 64, "colsample_bytree": 0.3},
    {**BASE, "max_bin": 64, "colsample_bytree": 0.1},
    {**BASE, "max_bin": 64, "max_depth": 4, "colsample_bytree": 0.3},
    {**BASE, "max_bin": 64, "max_depth": 4, "colsample_bytree": 0.1},
    {**BASE, "max_bin": 64, "max_depth": 4, "subsample": 0.5, "colsample_bytree": 0.3},
    {**BASE, "max_bin": 64, "max_depth": 5, "n_estimators": 400, "learning_rate": 0.05, "colsample_bytree": 0.1},
]
SETS = {"LBP": ("lbp",), "handcrafted": HANDCRAFTED}
CANDIDATES = [
    Candidate(f"{name}: {', '.join(f'{key} {value}' for key, value in setting.items())}", families, boosting=setting)
    for name, families in SETS.items()
    for setting in SETTINGS
]
STUDY = Study(
    "head-defaults",
    "Defaults of the XGBoost head",
    "Compare a few settings of the XGBoost head on IDC patients outside the official test set.",
    partial(compare_candidates, CANDIDATES),
    template=TEMPLATE,
)
