from .breakhis_study import (
    compare_hold_outs as compare_hold_outs,
    summarise_hold_outs as summarise_hold_outs,
)
from .explanation.ablation import Ablation as Ablation, AblationRow as AblationRow, ablate_families as ablate_families
from .explanation.cost import (
    CostRow as CostRow,
    Costs as Costs,
    measure_costs as measure_costs,
    pareto_front as pareto_front,
)
from .explanation.groups import column_groups as column_groups, correlated_groups as correlated_groups
from .explanation.permutation import (
    Importance as Importance,
    PartImportance as PartImportance,
    permutation_importance as permutation_importance,
)
from .learning_curves import learning_curve as learning_curve
from .robustness.lanes import CLEAN as CLEAN, Robustness as Robustness, RobustnessRow as RobustnessRow
from .robustness.measure import all_conditions as all_conditions, measure_robustness as measure_robustness
from .shortcuts.families import (
    BackgroundFraction as BackgroundFraction,
    CompressionAndBlur as CompressionAndBlur,
    MeanColor as MeanColor,
    coordinate_features as coordinate_features,
)
from .shortcuts.identification import identify_patients as identify_patients
from .shortcuts.leakage import (
    Leakage as Leakage,
    LeakageRow as LeakageRow,
    measure_leakage as measure_leakage,
    touching_share as touching_share,
)
from .shortcuts.panel import panel_of as panel_of, shortcut_panel as shortcut_panel
from .shortcuts.records import (
    Identification as Identification,
    Probe as Probe,
    Reference as Reference,
    ShortcutPanel as ShortcutPanel,
    Skipped as Skipped,
)
from .study import (
    FEATURE_SETS as FEATURE_SETS,
    STUDIES as STUDIES,
    Findings as Findings,
    Study as Study,
    find_study as find_study,
    load_development_patients as load_development_patients,
    make_pipelines as make_pipelines,
)
