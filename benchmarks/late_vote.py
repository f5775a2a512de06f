"""A vote in which handcrafted features and an embedding have separate classifiers."""

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline

from histofeat.models import HEADS, SoftVote

__all__ = ["make_late_vote"]


def make_late_vote(n_handcrafted, *, random_state=0, n_jobs=None):
    """Average the probabilities of XGBoost and SVM on handcrafted columns and of a logistic head on the embedding.

    An encoder separates patches of its own training patients better than those of new patients. Where a head is fitted
    on these patients, a classifier of all features gives the embedding too much weight; separate classifiers keep the
    handcrafted features from being overruled.

    Parameters
    ----------
    n_handcrafted : int
        Columns of handcrafted features, the first; those of the embedding follow.
    random_state, n_jobs
        As for `histofeat.models.make_head`.

    Returns
    -------
    vote : SoftVote
        Unfitted.
    """
    handcrafted, embedding = slice(0, n_handcrafted), slice(n_handcrafted, None)
    seen = {"xgboost": handcrafted, "svm": handcrafted, "logistic": embedding}
    members = []
    for name, columns in seen.items():
        chosen = ColumnTransformer([("own", "passthrough", columns)])
        members.append((name, make_pipeline(chosen, HEADS[name].make(random_state, n_jobs))))
    return SoftVote(members)
