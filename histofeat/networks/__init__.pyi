from ._architectures import ARCHITECTURES as ARCHITECTURES, Architecture as Architecture
from ._augmentation import STANDARD as STANDARD, Augmentation as Augmentation, augment as augment
from ._batches import fit_patch as fit_patch
from ._classifier import CNNClassifier as CNNClassifier
from ._network_files import CheckpointError as CheckpointError
from ._recipes import (
    RESNET_SMALL as RESNET_SMALL,
    Recipe as Recipe,
    forget_sooner as forget_sooner,
    learning_rates as learning_rates,
    make_optimizer as make_optimizer,
)
from .pretrained._catalogue import (
    best_encoder as best_encoder,
    encoders_at_hand as encoders_at_hand,
    find_encoder as find_encoder,
    known_training as known_training,
)
from .pretrained._engines import (
    EngineChoice as EngineChoice,
    KerasEngine as KerasEngine,
    choose_engine as choose_engine,
    graph_version as graph_version,
    load_engine as load_engine,
)
from .pretrained._lite import (
    lite_arrays as lite_arrays,
    read_lite as read_lite,
    write_lite as write_lite,
)
from .pretrained._network import (
    backend_name as backend_name,
    build_network as build_network,
    import_keras as import_keras,
)
from .pretrained._openvino_engine import bfloat16_supported as bfloat16_supported
from .pretrained._provenance import (
    TrainingRecord as TrainingRecord,
    fingerprint as fingerprint,
    read_record as read_record,
    write_record as write_record,
)
from .pretrained._records import (
    ENCODERS as ENCODERS,
    TIMM_ENCODERS as TIMM_ENCODERS,
    Encoder as Encoder,
    TimmEncoder as TimmEncoder,
    TrainingData as TrainingData,
    check_settings as check_settings,
    n_columns as n_columns,
)
from .pretrained._weights import (
    find_weights as find_weights,
    hash_weights as hash_weights,
    shipped_weights as shipped_weights,
    weight_folders as weight_folders,
)
