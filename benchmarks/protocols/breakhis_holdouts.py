"""The hold-outs of BreakHis: features once per image, every head on every hold-out, rates and their differences."""

from dataclasses import dataclass, field

#: One neighbour, as the protocol has it; the default of the head is another.
HEAD_PARAMS = {"knn": {"n_neighbors": 1}}
QUICK_TREES = 30
RATES = ("patient_rate", "image_rate", "balanced_accuracy")
#: Features and head of the row that looks at no image.
NOTHING = ("none", "majority class")

__all__ = ["HEAD_PARAMS", "NOTHING", "RATES", "HoldOuts", "compare", "head_params", "measure", "summarise"]


@dataclass
class HoldOuts:
    """What was found on the hold-outs of one magnification.

    Parameters
    ----------
    magnification : int
    rows : list of dict
        One for each model and hold-out.
    not_run : list of str
        Sentences.
    folds : dict
        As `BreakHisFolds.to_dict` gives it.
    findings : list of dict
        What the audit of each hold-out found, but for what passed.
    """

    magnification: int
    rows: list = field(default_factory=list)
    not_run: list = field(default_factory=list)
    folds: dict = field(default_factory=dict)
    findings: list = field(default_factory=list)


def head_params(head, quick):
    """Parameters of a head that are not its defaults."""
    params = dict(HEAD_PARAMS.get(head, {}))
    if quick and head in ("xgboost", "random_forest"):
        params["n_estimators"] = QUICK_TREES
    return params


def measure(dataset, magnification, folds, sets, options):
    """Fit every head on every hold-out.

    Parameters
    ----------
    dataset : PatchDataset
        Benign and malignant.
    magnification : int
    folds : BreakHisFolds
    sets : dict of str to sequence of PatchFeatures
        The families of each feature set.
    options : Namespace
        ``heads``, ``n_jobs``, ``seed``, ``resamples``, ``quick`` and ``store``.

    Returns
    -------
    HoldOuts
    """
    from joblib import Parallel, delayed

    found = HoldOuts(magnification, folds=folds.to_dict())
    matrices, prints = extract_once(dataset, sets, options)
    found.findings = audit_all(dataset, folds, prints, options.n_jobs)
    models = [NOTHING, *((name, head) for name in matrices for head in options.heads)]
    tasks = [(model, number) for model in models for number in range(1, len(folds) + 1)]
    done = Parallel(n_jobs=options.n_jobs, require="sharedmem")(
        delayed(judge)(dataset, matrices, folds, model, number, options) for model, number in tasks
    )
    for (model, number), result in zip(tasks, done, strict=True):
        if isinstance(result, str):
            found.not_run.append(f"{', '.join(model)}, {magnification}X, hold-out {number}: {result}")
        else:
            found.rows.append({"magnification": magnification, "features": model[0], "head": model[1], **result})
    return found


def extract_once(dataset, sets, options):
    """Give the matrix of each feature set, and the fingerprints for the audit, from one pass over the images."""
    import numpy as np

    from histofeat.features import ImageFingerprint, extract

    families = {repr(family): family for members in sets.values() for family in members}
    found = extract(
        [*families.values(), ImageFingerprint()], dataset.X, n_jobs=options.n_jobs, store=options.store
    ).features
    columns = dict(zip(families, found[:-1], strict=True))
    matrices = {name: np.hstack([columns[repr(family)] for family in members]) for name, members in sets.items()}
    return matrices, found[-1]


def audit_all(dataset, folds, prints, n_jobs):
    """What the audit finds in each hold-out, but for what passed; hold-outs are audited one at a time."""
    from histofeat.evaluation import audit_fingerprints

    found = []
    for number in range(1, len(folds) + 1):
        report = audit_fingerprints(dataset, folds.cv(number), prints, n_jobs=n_jobs).to_dict()
        found += [
            {"fold": number, **{key: finding[key] for key in ("code", "title", "severity", "detail")}}
            for finding in report["findings"]
            if finding["status"] == "issue"
        ]
    return found


def judge(dataset, matrices, folds, model, number, options):
    """Rates of one model on one hold-out; a sentence where it cannot be fitted there."""
    from histofeat.metrics import confusion, label_scores, recognition_rates

    [(train, test)] = folds.cv(number)
    y, patients = dataset.y, dataset.patients
    try:
        predicted, n_features = predict(matrices, model, (train, test), dataset, options)
    except ValueError as error:
        return str(error)
    rates = recognition_rates(
        y[test], predicted, patients[test], n_resamples=options.resamples, random_state=options.seed
    )
    low, high = rates.interval("patient_rate")
    labels = label_scores(confusion(y[test], predicted, len(dataset.target_names)))
    return {
        "hold_out": number,
        "n_features": n_features,
        "patient_rate": rates.patient_rate,
        "patient_rate_low": low,
        "patient_rate_high": high,
        "image_rate": rates.image_rate,
        **{name: float(labels[name]) for name in ("balanced_accuracy", "sensitivity", "specificity")},
        "n_train_patients": len(set(patients[train])),
        "n_test_patients": len(rates.patients),
        "n_test_images": len(test),
    }


def predict(matrices, model, split, dataset, options):
    """Labels of the test rows, and how many columns they come from."""
    import numpy as np

    from histofeat.models import make_head

    (train, test), (features, head) = split, model
    y = dataset.y
    if model == NOTHING:
        return np.full(len(test), np.bincount(y[train]).argmax()), 0
    X = matrices[features]
    fitted = make_head(head, random_state=options.seed, n_jobs=1, params=head_params(head, options.quick))
    fitted.fit(X[train], y[train], groups=dataset.patients[train])
    return fitted.predict(X[test]), X.shape[1]


def summarise(rows, n_hold_outs):
    """Mean and standard deviation over the hold-outs, one dict for each model and magnification.

    Models that could not be fitted on every hold-out are left out: their mean would be one of other patients.
    """
    import numpy as np

    found = []
    for key, chosen in grouped(rows).items():
        if len(chosen) == n_hold_outs:
            entry = dict(zip(("magnification", "features", "head"), key, strict=True))
            entry |= {"n_features": chosen[0]["n_features"], "n_hold_outs": len(chosen)}
            for rate in RATES:
                values = np.array([row[rate] for row in chosen])
                entry |= {rate: values.mean(), f"{rate}_sd": values.std(ddof=1) if len(values) > 1 else np.nan}
            found.append(entry)
    return found


def grouped(rows):
    """Rows of one model and magnification together, by hold-out."""
    found = {}
    for row in sorted(rows, key=lambda row: row["hold_out"]):
        found.setdefault((row["magnification"], row["features"], row["head"]), []).append(row)
    return found


def compare(rows, n_hold_outs, reference, rate="patient_rate"):
    """Compare each model with the reference on the same hold-outs.

    Parameters
    ----------
    rows : list of dict
        As in `HoldOuts`, of all magnifications.
    n_hold_outs : int
    reference : (str, str)
        Features and head.
    rate : str

    Returns
    -------
    list of dict
        The corrected resampled t-test of Nadeau and Bengio, and its p adjusted by Holm over the whole list. Where all
        differences are equal there is nothing to tell an uncertainty from: p is None, and takes no part.
    """
    import numpy as np

    from histofeat.metrics import holm, nadeau_bengio

    found = []
    groups = grouped(rows)
    for (magnification, *model), chosen in groups.items():
        against = groups.get((magnification, *reference), ())
        if tuple(model) in (tuple(reference), NOTHING) or not len(chosen) == len(against) == n_hold_outs > 1:
            continue
        differences = [mine[rate] - theirs[rate] for mine, theirs in zip(chosen, against, strict=True)]
        sizes = {f"n_{side}": np.mean([row[f"n_{side}_patients"] for row in chosen]) for side in ("train", "test")}
        test = nadeau_bengio(differences, **sizes)
        entry = {"magnification": magnification, "features": model[0], "head": model[1], "difference": test.mean}
        known = test.std > 1e-12
        entry |= {"low": test.ci95[0] if known else None, "high": test.ci95[1] if known else None}
        found.append(entry | {"t": test.t if known else None, "p": test.p if known else None, "p_holm": None})
    tested = [entry for entry in found if entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]) if tested else (), strict=True):
        entry["p_holm"] = float(adjusted)
    return found
