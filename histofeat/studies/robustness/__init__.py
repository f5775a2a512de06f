"""How scores fall when the patches of unseen patients are stained, focused, compressed, lit or turned otherwise."""

from histofeat.studies.robustness.lanes import CLEAN, Robustness, RobustnessRow
from histofeat.studies.robustness.measure import all_conditions, measure_robustness

__all__ = ["CLEAN", "Robustness", "RobustnessRow", "all_conditions", "measure_robustness"]
