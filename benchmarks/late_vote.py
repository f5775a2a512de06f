"""A vote that keeps an embedding apart: handcrafted features and the embedding each have classifiers of their own."""

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline

from histofeat.models import HEADS, SoftVote

__all__ = ["make_late_vote"]


def make_late_vote(n_handcrafted, *, random_state=0, n_jobs=None):
    """Mean of the probabilities of XGBoost and SVM on handcrafted columns and of a logistic one on the embedding's.

    An encoder that learnt from the patients a head is fitted on tells their patches apart better than those of others.
    A classifier that sees its embedding beside other features trusts it more than it should; one that sees it alone
    cannot take away from what the others make of theirs.

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
