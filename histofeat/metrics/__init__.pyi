from ._bootstrap import (
    Bootstrap as Bootstrap,
    bootstrap_scores as bootstrap_scores,
    count_carriers as count_carriers,
    few_patients as few_patients,
    mean_bootstrap as mean_bootstrap,
    patient_weights as patient_weights,
    standard_error as standard_error,
    t_interval as t_interval,
)
from ._calibration import CalibrationAssessment as CalibrationAssessment, assess_calibration as assess_calibration
from ._calibrator import Calibrator as Calibrator, decision_curve as decision_curve, fit_calibrator as fit_calibrator
from ._comparison import (
    Comparison as Comparison,
    Comparisons as Comparisons,
    NotCompared as NotCompared,
    compare_models as compare_models,
)
from ._conformal import UNITS as UNITS, fit_conformal as fit_conformal, measure_coverage as measure_coverage
from ._definitions import (
    LABEL_METRICS as LABEL_METRICS,
    METRIC_RECORDS as METRIC_RECORDS,
    METRICS as METRICS,
    Metric as Metric,
    check_predictions as check_predictions,
    confusion as confusion,
    frozen as frozen,
    label_scores as label_scores,
    most_probable as most_probable,
    scores as scores,
    weighted_scores as weighted_scores,
)
from ._multiple_tests import (
    ComparisonPlan as ComparisonPlan,
    holm as holm,
    read_plan as read_plan,
    step_down as step_down,
    write_plan as write_plan,
)
from ._one_vs_rest import (
    CLASS_METRICS as CLASS_METRICS,
    ClassScores as ClassScores,
    CurveBands as CurveBands,
    class_scores as class_scores,
    curve_bands as curve_bands,
    sensitivity_at as sensitivity_at,
)
from ._out_of_fold import (
    PatientAverages as PatientAverages,
    Score as Score,
    method_interval as method_interval,
    patient_averages as patient_averages,
    plain_values as plain_values,
    score_folds as score_folds,
)
from ._patient_auc import (
    DeLong as DeLong,
    PatientScores as PatientScores,
    delong as delong,
    independent_variance as independent_variance,
    patient_outcomes as patient_outcomes,
    patient_scores as patient_scores,
)
from ._planning import (
    NoiseFloor as NoiseFloor,
    PatientPlan as PatientPlan,
    design_effect as design_effect,
    noise_floor as noise_floor,
    plan_patients as plan_patients,
    smallest_detectable_difference as smallest_detectable_difference,
)
from ._ranking import pareto_front as pareto_front, ranking_scores as ranking_scores
from ._repeated_holdouts import (
    RecognitionRates as RecognitionRates,
    ResampledTTest as ResampledTTest,
    nadeau_bengio as nadeau_bengio,
    recognition_rates as recognition_rates,
)
from ._thresholds import (
    RULES as RULES,
    Rule as Rule,
    ThresholdRule as ThresholdRule,
    choose_threshold as choose_threshold,
    parse_rule as parse_rule,
    rule_examples as rule_examples,
)
