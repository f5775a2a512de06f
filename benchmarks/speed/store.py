"""The feature store: a cold run, a warm run against only reading and hashing the files, and a grid search."""

import tempfile
from itertools import count
from pathlib import Path

import joblib
import numpy as np
from families import FAMILIES
from rows import DisagreementError, check_close, check_equal, compare, race

from histofeat import IDCPipeline, PatientKFold
from histofeat.features import RECENT_ROWS, FeatureStore, content_key, extract, extractor_name, make_family

#: Settings of a search; the features are the same in all of them.
_DEPTHS = [2, 3, 4, 5, 6, 8]


def measure(material, options) -> list:
    """Rows: cold with and without a store, and warm against its floor, on one thread and on all cores."""
    paths = material.different(100 if options.quick else 4_000).X
    families, files = [make_family(name) for name in FAMILIES], f"{len(paths):,} {material.label} files"
    with tempfile.TemporaryDirectory(prefix="histofeat-store-") as scratch:
        store = FeatureStore(Path(scratch) / "warm.sqlite")
        cold = extract(families, paths, n_jobs=-1, store=store)
        _check_computed(cold, len(paths))
        expected = np.hstack(cold.features)
        rows = [_measure_cold(families, paths, scratch, expected, files, 2 if options.quick else 5)]
        repeats = 2 if options.quick else 7
        return [*rows, *(_measure_warm(families, paths, store, expected, files, repeats, n) for n in (1, -1))]


def _measure_cold(families, paths, scratch, expected, files, repeats):
    """What keeping costs: each repeat writes a new store."""
    numbers = count()

    def keep():
        found = extract(families, paths, n_jobs=-1, store=Path(scratch) / f"cold-{next(numbers)}.sqlite")
        _check_computed(found, len(paths))

    def plain():
        return extract(families, paths, n_jobs=-1)

    return compare(
        *race(keep, plain, repeats=repeats),
        name="store/cold",
        what=f"all four families of {files} into a new store; all cores",
        peer_name="the same without a store",
        ratio_of="ours / peer",
        checked=check_equal("cold store", np.hstack(plain().features), expected),
    )


def _measure_warm(families, paths, store, expected, files, repeats, n_jobs):
    """The promise of the store: nothing is computed, and little is done beyond what cannot be left out."""

    def warm():
        found = extract(families, paths, n_jobs=n_jobs, store=store)
        _check_computed(found, 0)
        return found.features

    def floor():
        return _read_hash_and_fetch(families, paths, store)

    checked = check_equal("warm store", np.hstack(warm()), expected)
    check_equal("stored rows", np.hstack(floor()), expected)
    threads = joblib.effective_n_jobs(n_jobs)
    return compare(
        *race(warm, floor, repeats=repeats),
        name=f"store/warm, {threads} thread{'s' if threads > 1 else ''}",
        what=f"all four families of {files} that the store knows; {threads} of the cores",
        peer_name="reading and hashing the files and reading the stored rows, one thread",
        ratio_of="ours / peer",
        checked=f"{checked} to the cold run's, on both sides; 0 images computed in each repeat",
    )


def _read_hash_and_fetch(families, paths, store) -> list[np.ndarray]:
    """Read each file, hash it, and fetch the rows family by family: the least that a warm run has to do."""
    keys = []
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - the cheapest way there is
            keys.append(content_key(file.read()))
    blocks = []
    with store.session() as session:
        for family in families:
            n_features = len(family.get_feature_names_out())
            number = session.register(family.family, n_features, family._fingerprint(), extractor_name(family))
            stored = session.read(number, keys, n_features)
            blocks.append(np.stack([stored[key] for key in keys]))
    return blocks


def _check_computed(found, expected: int) -> None:
    if set(found.computed.values()) != {expected}:
        raise DisagreementError(f"store: expected {expected:,} images computed, got {dict(found.computed)}.")


# --- a grid search ---------------------------------------------------------------------------------------------------


def measure_search(material, options) -> list:
    """One row: a search on files that nobody has measured, and the same on the matrix of their features."""
    dataset, folds, scores = material.different(150 if options.quick else 1_500), 3 if options.quick else 5, [[], []]
    measuring = IDCPipeline(features=FAMILIES, n_jobs=-1)
    matrix = np.hstack(extract(measuring.families(), dataset.X, n_jobs=-1).features)
    head = measuring.make_head()

    def on_files():
        RECENT_ROWS.__init__()  # what a new process knows
        scores[0].append(_search(measuring, "head__", dataset.X, dataset, folds))

    def on_matrix():
        scores[1].append(_search(head, "classifier__", matrix, dataset, folds))

    timed = race(on_files, on_matrix, repeats=1 if options.quick else 3)
    return [
        compare(
            *timed,
            name="search/grid",
            what=f"GridSearchCV of {len(_DEPTHS)} settings of XGBoost by {folds} folds and a last fit, all four "
            f"families, {len(dataset):,} {material.label} files, no store",
            peer_name="the same on the matrix of their features",
            ratio_of="ours / peer",
            checked=check_close("search", *scores, rtol=0, atol=1e-12) + " in the scores of all fits",
        )
    ]


def _search(estimator, prefix, X, dataset, folds) -> np.ndarray:
    """Return the scores of every setting and fold."""
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(estimator, {f"{prefix}max_depth": _DEPTHS}, cv=PatientKFold(folds), error_score="raise")
    search.fit(X, dataset.y, groups=dataset.patients)
    return np.stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(folds)])
