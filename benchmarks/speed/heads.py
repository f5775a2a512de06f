"""The heads on as many rows as IDC has: seconds to fit and to predict, and peak memory, each in a process of its own.

This file is the process, too: ``python heads.py NAME N_ROWS N_COLUMNS N_JOBS`` fits one head and tells what it took.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from rows import DisagreementError, Row, missing
from tree import FULL_SIZE

__all__ = ["HEADS", "make_table", "measure"]

HEADS = ("xgboost", "svm")
#: Columns of the default pipeline: colour, LBP and Haralick.
_COLUMNS = 312
_GROUP = "heads"
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
            rows.append(missing("--full was not given", name=f"heads/{name}, {FULL_SIZE:,} rows", group=_GROUP,
                                unit="s", what=what))  # fmt: skip
    return rows


def _rows(name, n_rows) -> list:
    found = _in_a_process(name, n_rows)
    if not found["roc_auc"] > _LEAST_AUC or not found["finite"]:
        raise DisagreementError(
            f"heads/{name}: expected finite scores with a ROC-AUC above {_LEAST_AUC} on other rows, got {found}."
        )
    size = f"{n_rows:,} synthetic rows of {_COLUMNS} columns, float32"
    shared = {
        "group": _GROUP,
        "checked": f"ROC-AUC {found['roc_auc']:.3f} on {found['n_other']:,} rows of other draws; scores finite",
        "repeats": "once, in a process of its own",
    }
    head = f"head {name!r} with its defaults ({found['note']})"
    return [
        Row(
            name=f"heads/{name} fit, {n_rows:,} rows",
            what=f"{head}; one fit on {size}, {found['threads']}",
            unit="s",
            ours=found["fit_s"],
            note="An evaluation adds the inner fits of each fold, three of two thirds of its training rows",
            **shared,
        ),
        Row(
            name=f"heads/{name} predict, {n_rows:,} rows",
            what=f"{found['method']} of the same rows, {found['threads']}",
            unit="µs per row",
            ours=found["predict_s"] / n_rows * 1e6,
            **shared,
        ),
        Row(
            name=f"heads/{name} memory, {n_rows:,} rows",
            what="peak resident memory of the process, the table of "
            f"{n_rows * _COLUMNS * 4 / 2**30:.2g} GiB and the prediction included",
            unit="GiB",
            ours=found["peak_bytes"] / 2**30,
            **shared,
        ),
    ]


def _in_a_process(name, n_rows) -> dict:
    command = [sys.executable, str(Path(__file__)), name, str(n_rows), str(_COLUMNS), "-1"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"heads: expected a worker to finish, got:\n{found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


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
    started = time.perf_counter()
    head.fit(X, y)
    fit_s = time.perf_counter() - started
    started = time.perf_counter()
    values = getattr(head, method)(X)
    predict_s = time.perf_counter() - started
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
        "finite": bool(np.isfinite(values).all()),
    }


def _settings(classifier) -> str:
    return f"{classifier.n_estimators} trees of depth {classifier.max_depth}, {classifier.max_bin} bins"


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], *map(int, sys.argv[2:]))))
