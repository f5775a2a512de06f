"""The whole job, from files to scores out of fold, against what a user of scikit-learn writes."""

import cv2
import joblib
import numpy as np
import peers
from rows import check_close, compare, race

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.features import Runtime
from histofeat.models import make_head

FAMILIES = ("color", "lbp", "haralick")


def measure(material, options) -> list:
    """One row: `evaluate` against ``cross_validate`` with scikit-image and mahotas in front, on the same folds."""
    dataset, found = material.different(120 if options.quick else 5_000), {}
    # mahotas refuses patches of the edge, which are narrower than a circle.
    dataset = dataset.subset([row for row, path in enumerate(dataset.X) if cv2.imread(path).shape == (50, 50, 3)])
    splits = list(PatientKFold(3 if options.quick else 5).split(dataset.X, dataset.y, dataset.patients))
    runtime = Runtime(n_jobs=-1, progress=False)

    def ours():
        found["ours"] = evaluate(dataset, IDCPipeline(FAMILIES, "xgboost"), splits, runtime=runtime)

    def theirs():
        found["theirs"] = _cross_validate(dataset, splits).mean()

    timed = race(ours, theirs, repeats=1)
    auc = np.mean(found["ours"].models[0].scores["roc_auc"].folds)
    row = compare(
        *timed, name="job/cross-validation",
        what=f"{len(dataset):,} whole {material.label} files to ROC-AUC out of fold, {len(splits)} folds by patient, "
        "colour, LBP and Haralick, XGBoost; ours with thresholds, calibration (four fits a fold) and intervals",
        peer_name="cross_validate of scikit-learn on features of scikit-image and mahotas, which joblib measures once, "
        "and the same trees",
        checked=check_close("job", auc, found["theirs"], rtol=0, atol=0.1 if options.quick else 0.01),
        note=f"Mean ROC-AUC of the folds {auc:.4f}, peer {found['theirs']:.4f}; "
        f"{found['ours'].seconds['extraction']:.1f} s of ours are extraction",
    )  # fmt: skip
    return [row]


def _cross_validate(dataset, splits):
    """Return the ROC-AUC of each fold, in the lines that a user of scikit-learn writes."""
    from sklearn.model_selection import cross_validate

    X = np.stack(joblib.Parallel(n_jobs=-1)(joblib.delayed(_measured)(path) for path in dataset.X))
    trees = make_head("xgboost").classifier
    return cross_validate(trees, X, dataset.y, cv=splits, scoring="roc_auc", n_jobs=-1)["test_score"]


def _measured(path):
    channels = peers.PeerChannels(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB))
    return np.concatenate([peers.PEERS[name](channels) for name in FAMILIES])
