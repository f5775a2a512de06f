from ._details import (
    ProbabilityAssessment as ProbabilityAssessment,
    assess_probabilities as assess_probabilities,
    predictive_values as predictive_values,
    score_groups as score_groups,
    score_patients as score_patients,
)
from ._evaluation import evaluate as evaluate
from ._feature_bank import RETRAINED as RETRAINED, FeatureBank as FeatureBank
from ._fitting import (
    FoldFit as FoldFit,
    class_probabilities as class_probabilities,
    out_of_fold as out_of_fold,
    run_in_threads as run_in_threads,
)
from ._folds import (
    AuditPolicy as AuditPolicy,
    FairFolds as FairFolds,
    fair_folds as fair_folds,
    fold_of_rows as fold_of_rows,
    look_at as look_at,
)
from ._given_predictions import given_probabilities as given_probabilities
from ._plans import Plan as Plan, Run as Run, name_pipelines as name_pipelines
from ._published_rows import PROTOCOLS as PROTOCOLS, Protocol as Protocol, read_predictions as read_predictions
from ._published_scores import ScoredPredictions as ScoredPredictions, score_predictions as score_predictions
from ._results import Evaluation as Evaluation, LeftOut as LeftOut, ModelResult as ModelResult, NotRun as NotRun
from ._saved_evaluation import (
    load_evaluation as load_evaluation,
    save_evaluation as save_evaluation,
    take_up as take_up,
)
from ._scored_predictions import (
    HARD_LABELS as HARD_LABELS,
    evaluate_model as evaluate_model,
    evaluate_predictions as evaluate_predictions,
    score_breakhis as score_breakhis,
)
from ._search import Search as Search, tune_head as tune_head
from ._training import STAINS as STAINS, make_pipeline as make_pipeline, train_model as train_model
from .audit._audit import (
    audit_fingerprints as audit_fingerprints,
    audit_split as audit_split,
    cheap_findings as cheap_findings,
)
from .audit._encoders import KnownPatients as KnownPatients, find_known_patients as find_known_patients
from .audit._findings import CODES as CODES, AuditReport as AuditReport, Finding as Finding, check_codes as check_codes
from .audit._split_names import audit_names as audit_names, repair_split as repair_split
