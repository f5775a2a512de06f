__version__: str

from .datasets import (
    PatchDataset as PatchDataset,
    breakhis_hold_outs as breakhis_hold_outs,
    load_breakhis as load_breakhis,
    load_embeddings as load_embeddings,
    load_idc as load_idc,
    load_image_folder as load_image_folder,
    load_manifest as load_manifest,
    make_breakhis_cohort as make_breakhis_cohort,
    make_cohort as make_cohort,
    make_signature_cohort as make_signature_cohort,
    merge_rare_classes as merge_rare_classes,
    open_dataset as open_dataset,
    predefined_split as predefined_split,
    read_breakhis_folds as read_breakhis_folds,
    split_dataset as split_dataset,
)
from .evaluation import (
    AuditPolicy as AuditPolicy,
    Evaluation as Evaluation,
    Search as Search,
    audit_split as audit_split,
    evaluate as evaluate,
    read_predictions as read_predictions,
    score_predictions as score_predictions,
    train_model as train_model,
)
from .exceptions import (
    DatasetError as DatasetError,
    GroupLeakageError as GroupLeakageError,
    MissingExtraError as MissingExtraError,
    PatchError as PatchError,
    WeightsError as WeightsError,
)
from .features import (
    GLCM as GLCM,
    PFTAS as PFTAS,
    CNNEmbedding as CNNEmbedding,
    ColorHistogram as ColorHistogram,
    CompletedLBP as CompletedLBP,
    FeatureStore as FeatureStore,
    FuzzyColorHistogram as FuzzyColorHistogram,
    GrayHistogram as GrayHistogram,
    HaralickTexture as HaralickTexture,
    HistoEmbedding as HistoEmbedding,
    JointColorHistogram as JointColorHistogram,
    LBPHistogram as LBPHistogram,
    LocalPhaseQuantization as LocalPhaseQuantization,
    PatchUnion as PatchUnion,
    Runtime as Runtime,
    extract_features as extract_features,
)
from .images import MacenkoNormalizer as MacenkoNormalizer, ReinhardNormalizer as ReinhardNormalizer
from .metrics import (
    compare_models as compare_models,
    delong as delong,
    nadeau_bengio as nadeau_bengio,
    recognition_rates as recognition_rates,
)
from .model_selection import (
    PatientHoldOuts as PatientHoldOuts,
    PatientKFold as PatientKFold,
    RepeatedPatientKFold as RepeatedPatientKFold,
    check_no_shared_patients as check_no_shared_patients,
)
from .models import (
    IDCPipeline as IDCPipeline,
    load_model as load_model,
    predict_images as predict_images,
    save_model as save_model,
    train_encoder as train_encoder,
)
from .networks import CNNClassifier as CNNClassifier
from .reporting import write_report as write_report
from .studies import shortcut_panel as shortcut_panel
