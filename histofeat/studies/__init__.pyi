from ._ablation import (
    Ablation as Ablation,
    Costs as Costs,
    ablate_families as ablate_families,
    measure_costs as measure_costs,
)
from ._interval_coverage import (
    IntervalCoverage as IntervalCoverage,
    measure_interval_coverage as measure_interval_coverage,
)
from ._ladder import (
    LADDER as LADDER,
    LADDER_SEARCH as LADDER_SEARCH,
    Ladder as Ladder,
    UntrainedEmbedding as UntrainedEmbedding,
    as_ladder as as_ladder,
    groups_of as groups_of,
    ladder_pipelines as ladder_pipelines,
    read_ladder as read_ladder,
)
from ._leakage import (
    Identification as Identification,
    Leakage as Leakage,
    LeakageRow as LeakageRow,
    identify_patients as identify_patients,
    measure_leakage as measure_leakage,
)
from ._learning_curves import learning_curve as learning_curve
from ._permutation import (
    Importance as Importance,
    correlated_groups as correlated_groups,
    permutation_importance as permutation_importance,
)
from ._published_split import (
    PUBLISHED_SPLIT as PUBLISHED_SPLIT,
    RECIPES as RECIPES,
    WITH_UNLISTED as WITH_UNLISTED,
    PublishedComparison as PublishedComparison,
    SplitRun as SplitRun,
    compare_with_published as compare_with_published,
    cv_words as cv_words,
    data_words as data_words,
    load_published as load_published,
    official_folds as official_folds,
    read_scores as read_scores,
)
from ._register import SETS as SETS, STUDIES as STUDIES, Study as Study, find_study as find_study, option as option
from ._robustness import Robustness as Robustness, measure_robustness as measure_robustness
from ._shortcut_families import (
    BackgroundFraction as BackgroundFraction,
    CompressionAndBlur as CompressionAndBlur,
    MeanColor as MeanColor,
)
from ._shortcuts import (
    Probe as Probe,
    Reference as Reference,
    ShortcutPanel as ShortcutPanel,
    Skipped as Skipped,
    panel_of as panel_of,
    shortcut_panel as shortcut_panel,
)
from ._study import (
    FEATURE_SETS as FEATURE_SETS,
    Findings as Findings,
    bars as bars,
    check_names as check_names,
    development_patients as development_patients,
    find_idc as find_idc,
    flat_table as flat_table,
    lines as lines,
    load_development_patients as load_development_patients,
    make_pipelines as make_pipelines,
    network_params as network_params,
)
