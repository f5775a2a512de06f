"""The heads on as many rows as IDC has: seconds to fit and to predict, and peak memory, each in a process of its own.

This file is the process, too: ``python heads.py NAME N_ROWS N_COLUMNS N_JOBS`` fits one head and tells what it took.
"""

import json
import sys
from functools import partial

from rows import FULL_SIZE, DisagreementError, Row, missing, run_worker, stopwatch

HEADS = ("xgboost", "svm")
#: Columns of the default pipeline: colour, LBP and Haralick.
_COLUMNS = 312
#: Below this a head has not learnt what the table holds (about 0.94), and its time says nothing.
_LEAST_AUC = 0.85


def measure(material, options) -> list:
    """Three rows a head: fit, prediction, memory; at the size of IDC with ``--full``, smaller otherwise."""
    n_rows = 2_000 if options.quick else FULL_SIZE if options.full else 20_000
    rows = []
    for name in HEADS:
        rows += _rows(name, n_rows)
        if n_rows < FULL_SIZE:
            what = f"{name} on {FULL_SIZE:,} rows of {_COLUMNS} columns"
            rows.append(missing("--full was not given", name=f"heads/{name}, {FULL_SIZE:,} rows", unit="s", what=what))
    return rows


def _rows(name, n_rows) -> list:
    found = run_worker("heads.py", name, n_rows, _COLUMNS, -1)
    if not found["roc_auc"] > _LEAST_AUC or not found["finite"]:
        raise DisagreementError(
            f"heads/{name}: expected finite scores with a ROC-AUC above {_LEAST_AUC} on other rows, got {found}."
        )
    size = f"{n_rows:,} synthetic rows of {_COLUMNS} columns, float32"
    shared = {
        "checked": f"ROC-AUC {found['roc_auc']:.3f} on {found['n_other']:,} rows of other draws; scores finite",
        "repeats": "once, in a process of its own",
    }
    head = f"head {name!r} with its defaults ({found['note']})"
    return [
        Row(
            f"heads/{name} fit, {n_rows:,} rows", f"{head}; one fit on {size}, {found['threads']}", "s", found["fit_s"],
            note="An evaluation adds the inner fits of each fold, three of two thirds of its training rows", **shared,
        ),
        Row(
            f"heads/{name} predict, {n_rows:,} rows", f"{found['method']} of the same rows, {found['threads']}",
            "µs per row", found["predict_s"] / n_rows * 1e6, **shared,
        ),
        Row(
            f"heads/{name} memory, {n_rows:,} rows", "peak resident memory of the process, the table of "
            f"{n_rows * _COLUMNS * 4 / 2**30:.2g} GiB and the prediction included", "GiB",
            found["peak_bytes"] / 2**30, **shared,
        ),
    ]  # fmt: skip


# --- the process -----------------------------------------------------------------------------------------------------


def make_table(n_rows, n_columns, seed=0):
    """Draw features as correlated as real ones are, and labels that they tell only in part.

    Twenty directions carry nearly all of the variance; three of them, bent, decide the label, 28 % of them positive as
    in IDC.

    Returns
    -------
    X : ndarray of shape (n_rows, n_columns), float32
    y : ndarray of shape (n_rows,), int64
    """
    import numpy as np

    loadings = np.random.default_rng(1).normal(size=(20, n_columns)).astype(np.float32)
    rng = np.random.default_rng([2, seed])
    latent = rng.normal(size=(n_rows, 20)).astype(np.float32)
    X = latent @ loadings
    # In parts, so that what is drawn does not set the peak of the memory that is measured.
    for start in range(0, n_rows, 4096):
        X[start : start + 4096] += rng.normal(0, 1, (len(X[start : start + 4096]), n_columns)).astype(np.float32)
    signal = latent[:, 0] + latent[:, 1] * latent[:, 2] + rng.normal(0, 0.5, n_rows)
    return X, (signal > 0.79).astype(np.int64)


def _run(name, n_rows, n_columns, n_jobs) -> dict:
    import joblib
    import numpy as np
    from extract_files import peak_bytes
    from sklearn.metrics import roc_auc_score

    from histofeat.models import make_head

    X, y = make_table(n_rows, n_columns)
    head = make_head(name, n_jobs=n_jobs)
    # An SVM gets probabilities by a calibration on patients, of which there are none here.
    method = "predict_proba" if hasattr(head, "predict_proba") else "decision_function"
    fit_s = stopwatch(partial(head.fit, X, y))
    values = []
    predict_s = stopwatch(lambda: values.append(getattr(head, method)(X)))
    peak = peak_bytes()
    others, labels = make_table(min(n_rows, 20_000), n_columns, seed=1)
    scores = getattr(head, method)(others)
    return {
        "fit_s": fit_s,
        "predict_s": predict_s,
        "peak_bytes": peak,
        "method": method,
        "note": "; ".join(head.notes_) or _settings(head.classifier),
        "threads": f"{joblib.effective_n_jobs(n_jobs)} threads",
        "roc_auc": float(roc_auc_score(labels, scores[:, 1] if scores.ndim == 2 else scores)),
        "n_other": len(labels),
        "finite": bool(np.isfinite(values[0]).all()),
    }


def _settings(classifier) -> str:
    return f"{classifier.n_estimators} trees of depth {classifier.max_depth}, {classifier.max_bin} bins"


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], *map(int, sys.argv[2:]))))
