"""What a model's score rests on: columns permuted, families left out, and what each family costs in time."""

from histofeat.studies.explanation.ablation import Ablation, AblationRow, ablate_families
from histofeat.studies.explanation.cost import CostRow, Costs, measure_costs, pareto_front
from histofeat.studies.explanation.groups import column_groups, correlated_groups
from histofeat.studies.explanation.permutation import Importance, PartImportance, permutation_importance

__all__ = [
    "Ablation",
    "AblationRow",
    "CostRow",
    "Costs",
    "Importance",
    "PartImportance",
    "ablate_families",
    "column_groups",
    "correlated_groups",
    "measure_costs",
    "pareto_front",
    "permutation_importance",
]
