"""Anybody's predictions on a published split, scored by the rules of our own: no image is opened."""

from histofeat.evaluation.published.files import read_predictions
from histofeat.evaluation.published.protocols import PROTOCOLS, Protocol, as_protocol
from histofeat.evaluation.published.rows import RowCount, check_complete, sort_rows
from histofeat.evaluation.published.scored import ScoredPredictions, score_predictions

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "RowCount",
    "ScoredPredictions",
    "as_protocol",
    "check_complete",
    "read_predictions",
    "score_predictions",
    "sort_rows",
]
