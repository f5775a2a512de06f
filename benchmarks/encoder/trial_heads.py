"""The classical models of a trial: heads that embeddings are scored by, and the teacher of soft labels."""

import numpy as np
from late_vote import make_late_vote
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histofeat import PatientKFold
from histofeat.models import make_head


def logistic(embedding, y, *asked):
    """Probabilities by a strongly regularised logistic regression, for each set of embeddings asked for."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(embedding, y)
    return [model.predict_proba(one)[:, 1] for one in asked]


def boosted(features, y, asked, seed):
    """Probabilities by histofeat's XGBoost head."""
    return make_head("xgboost", random_state=seed).fit(features, y).predict_proba(asked)[:, 1]


def vote_of(n_handcrafted, with_embedding, seed):
    """What votes: XGBoost and SVM on handcrafted features, and a logistic one on an embedding where there is one."""
    return make_late_vote(n_handcrafted, random_state=seed) if with_embedding else make_head("vote", random_state=seed)


def teacher(features, y, patients):
    """Probabilities by XGBoost, each from folds without its patient.

    Parameters
    ----------
    features : ndarray of shape (n, p)
    y : ndarray of shape (n,), int64
    patients : ndarray of shape (n,), str

    Returns
    -------
    proba : ndarray of shape (n,), float64
    """
    from xgboost import XGBClassifier

    proba = np.zeros(len(y))
    for learnt, held_out in PatientKFold(5, random_state=1).split(features, y, patients):
        model = XGBClassifier(
            n_estimators=400, max_depth=4, learning_rate=0.05, subsample=0.7, colsample_bytree=0.3, tree_method="hist",
            n_jobs=2,
        )  # fmt: skip
        proba[held_out] = model.fit(features[learnt], y[learnt]).predict_proba(features[held_out])[:, 1]
    return proba
