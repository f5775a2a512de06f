"""A random forest that may stand in several threads at once, as the folds of an evaluation do."""

import threading

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["Forest"]

_growing = threading.Lock()


class Forest(RandomForestClassifier):
    """scikit-learn's random forest, one at a time.

    Growing a forest, scikit-learn exchanges the warning filters of the whole process for each tree; a second forest
    that grows meanwhile can find them empty. Here forests of one process grow one after another, each with its own
    `n_jobs`, and score without touching the filters. The numbers are scikit-learn's.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]
    >>> ours, theirs = (kind(n_estimators=5, random_state=0).fit(X, y) for kind in (Forest, RandomForestClassifier))
    >>> (ours.predict_proba(X) == theirs.predict_proba(X)).all()
    np.True_
    """

    def fit(self, X, y, sample_weight=None):
        """Grow the trees; see `sklearn.ensemble.RandomForestClassifier`."""
        with _growing:
            return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        """Mean of the trees' probabilities, (n, k), float64."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return sum(tree.predict_proba(X, check_input=False) for tree in self.estimators_) / len(self.estimators_)
