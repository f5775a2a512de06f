"""How the defaults of the XGBoost head were chosen: a few settings, on IDC patients outside the official test set.

    python benchmarks/protocols/head_defaults.py --data /path/to/idc

The narrowest family (LBP, 54 columns) and all handcrafted ones together, five folds of patients; writes
reports/head-defaults/settings.csv with the ROC-AUC and the seconds of each setting. The 49 official test
patients take no part. Chosen: the cheapest setting that costs neither of the two more than 0.003.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import REPOSITORY, run_command

from histofeat import IDCPipeline, PatientKFold
from histofeat.datasets import check_place, csv_text, write_whole
from histofeat.metrics import scores
from histofeat.models import make_head
from histofeat.studies import load_development_patients

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


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="head_defaults.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="IDC, one folder or several")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports" / "head-defaults", metavar="DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace a table in the output folder")
    return parser


def main(arguments=None):
    """Score every setting; returns the exit code."""
    return run_command("head_defaults.py", run, make_parser().parse_args(arguments))


def run(options):
    """Score every setting with the columns of LBP, and with all handcrafted ones."""
    table = options.output / "settings.csv"
    check_place(table)
    if table.exists() and not options.overwrite:
        raise ValueError(f"--output: expected no table, got {table}. Name another folder, or pass --overwrite.")
    dataset = load_development_patients(options.data)
    handcrafted = IDCPipeline(n_jobs=-1).transform(dataset.X)
    tables = {"lbp": handcrafted.filter(like="lbp_").to_numpy(), "handcrafted": handcrafted.to_numpy()}
    rows = [
        {"features": name, **score(setting, features, dataset, PatientKFold(5))}
        for name, features in tables.items()
        for setting in SETTINGS
    ]
    with write_whole(table, overwrite=options.overwrite, parents=True) as part:
        part.write_text(csv_text(pd.DataFrame(rows)), encoding="utf-8", newline="\n")
    print(pd.DataFrame(rows).to_string(index=False))


def score(setting, features, dataset, cv):
    """Return the out-of-fold ROC-AUC of one setting, within folds, and processor seconds per fit."""
    proba, fold, started = np.empty((len(dataset), 2)), np.empty(len(dataset), dtype=int), time.process_time()
    for number, (train, test) in enumerate(cv.split(dataset.X, dataset.y, dataset.patients)):
        head = make_head("xgboost", params=setting).fit(features[train], dataset.y[train])
        proba[test], fold[test] = head.predict_proba(features[test]), number
    seconds = (time.process_time() - started) / cv.n_splits
    return {
        **setting,
        "n_patients": len(np.unique(dataset.patients)),
        "roc_auc": round(scores(dataset.y, proba, fold=fold)["roc_auc"], 4),
        "cpu_s_per_fit": round(seconds, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
