"""Search for the parameters of a head inside the training patients: the same budget for every head and family."""

from histofeat.evaluation.search.rationing import first_patients
from histofeat.evaluation.search.settings import METHODS, Search
from histofeat.evaluation.search.tuning import tune_head

__all__ = ["METHODS", "Search", "first_patients", "tune_head"]
