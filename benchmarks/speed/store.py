"""The feature store: a cold run, a warm run against only reading and hashing the files, and a grid search."""

import tempfile
from itertools import count
from pathlib import Path

import joblib
import numpy as np
from families import FAMILIES
from rows import DisagreementError, check_close, check_equal, compare, race

from histofeat import IDCPipeline, PatientKFold
from histofeat.features import FeatureStore, content_key, extract, extractor_name, make_family

#: Three settings of a head that takes next to no time; the features are the same in all of them.
_SETTINGS = {"head__var_smoothing": [1e-9, 1e-6, 1e-3]}


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
    """One row: the same search twice, and the counter that says each image was measured once."""
    dataset, folds = material.different(150 if options.quick else 1_500), 3 if options.quick else 5
    used, scores = [], {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory(prefix="histofeat-search-") as scratch:

        def with_store():
            used.append(FeatureStore(Path(scratch) / f"{len(used)}.sqlite"))
            scores["ours"].append(_search(dataset, folds, used[-1]))

        def without():
            scores["peer"].append(_search(dataset, folds, None))

        timed = race(with_store, without, repeats=1 if options.quick else 3)
        checked = [check_close("search", a, b, rtol=0, atol=1e-12) for a, b in zip(*scores.values(), strict=True)]
        for store in used:
            _check_once(store, dataset)
    settings = len(_SETTINGS["head__var_smoothing"])
    return [
        compare(
            *timed,
            name="search/grid",
            what=f"GridSearchCV of {settings} settings by {folds} folds ({settings * folds} fits and a last one), all "
            f"four families and Gaussian naive Bayes, {len(dataset):,} {material.label} files, a new store each time",
            peer_name="the same without a store",
            checked=f"scores of all fits ({checked[0]}); every image measured once per family, 0 in a run after it",
            note="The head takes next to no time, so that the difference is what the store saves. A slower head "
            "dilutes the ratio, not the seconds",
        )
    ]


def _search(dataset, folds, store) -> np.ndarray:
    """Return the scores of every setting and fold."""
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
