"""The forest: scikit-learn's numbers, whatever the type of the input, and from several threads without a warning."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError

from histofeat.models._classifiers import Forest


def test_it_is_scikit_learns_forest_to_the_bit():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 5)), rng.integers(0, 3, 80)
    weights = rng.uniform(0.5, 2.0, 80)
    ours, theirs = (
        kind(n_estimators=9, random_state=1).fit(X[:60], y[:60], weights[:60])
        for kind in (Forest, RandomForestClassifier)
    )
    np.testing.assert_array_equal(ours.predict_proba(X[60:]), theirs.predict_proba(X[60:]))
    np.testing.assert_array_equal(ours.predict(X[60:]), theirs.predict(X[60:]))


def test_several_threads_grow_the_same_forests_as_one():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.integers(0, 2, 60)

    def grow(seed):
        return Forest(n_estimators=30, random_state=seed).fit(X, y).predict_proba(X)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(grow, range(8)))
    for seed, proba in enumerate(together):
        np.testing.assert_array_equal(proba, grow(seed))


def test_it_has_to_grow_first():
    with pytest.raises(NotFittedError, match="not fitted yet"):
        Forest().predict_proba(np.zeros((1, 2)))
