"""A grid search, three settings by five folds, with and without a store."""

import tempfile
from pathlib import Path

import numpy as np
from families import FAMILIES
from rows import DisagreementError, check_close, compare
from timing import race

from histofeat import IDCPipeline, PatientKFold
from histofeat.features import FeatureStore, extract

__all__ = ["measure"]

#: Three settings of a head that takes next to no time; the features are the same in all of them.
_SETTINGS = {"head__var_smoothing": [1e-9, 1e-6, 1e-3]}
_FOLDS = 5


def measure(material, options) -> list:
    """One row: the same search twice, and the counter that says each image was measured once."""
    dataset = material.different(150 if options.quick else 1_500)
    folds = 3 if options.quick else _FOLDS
    with tempfile.TemporaryDirectory(prefix="histofeat-search-") as scratch:
        stores = (FeatureStore(Path(scratch) / f"{number}.sqlite") for number in range(1_000))
        used, scores = [], {"ours": [], "peer": []}

        def with_store():
            used.append(next(stores))
            scores["ours"].append(_search(dataset, folds, used[-1]))

        def without():
            scores["peer"].append(_search(dataset, folds, None))

        timings = race({"ours": with_store, "peer": without}, 1 if options.quick else 3)
        checked = [check_close("search", a, b, rtol=0, atol=1e-12) for a, b in zip(*scores.values(), strict=True)]
        for store in used:
            _check_once(store, dataset)
    settings = len(_SETTINGS["head__var_smoothing"])
    return [
        compare(
            timings["ours"],
            timings["peer"],
            name="search/grid",
            group="search",
            what=f"GridSearchCV of {settings} settings by {folds} folds ({settings * folds} fits and a last one), all "
            f"four families and Gaussian naive Bayes, {len(dataset):,} {material.label} files, a new store each time",
            peer_name="the same without a store",
            checked=f"scores of all fits ({checked[0]}); every image measured once per family, 0 in a run after it",
            note="The head takes next to no time, so that the difference is what the store saves. A slower head "
            "dilutes the ratio, not the seconds",
        )
    ]


def _search(dataset, folds, store) -> np.ndarray:
    """Scores of every setting and fold."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    pipeline = IDCPipeline(features=FAMILIES, head=GaussianNB(), n_jobs=-1, store=store)
    search = GridSearchCV(pipeline, _SETTINGS, cv=PatientKFold(folds), error_score="raise")
    search.fit(dataset.X, dataset.y, groups=dataset.patients)
    return np.stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(folds)])


def _check_once(store, dataset) -> None:
    counts = {entry.family: entry.computed for entry in store.entries()}
    again = extract(IDCPipeline(features=FAMILIES).families(), dataset.X, store=store)
    if counts != dict.fromkeys(FAMILIES, len(dataset)) or any(again.computed.values()):
        raise DisagreementError(f"search: expected each of {len(dataset):,} images measured once, got {counts}.")
