"""How scores fall when the patches of unseen patients are stained, focused, compressed, lit or turned otherwise."""

from histofeat.studies.robustness.measure import all_conditions, measure_robustness
from histofeat.robustness.records import CLEAN, Robustness, RobustnessRow

__all__ = ["CLEAN", "Robustness", "RobustnessRow", "all_conditions", "measure_robustness"]
