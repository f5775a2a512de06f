from ._base import PatchFeatures as PatchFeatures, PatchUnion as PatchUnion
from ._batch import (
    CHANNELS as CHANNELS,
    PatchBatch as PatchBatch,
    check_channels as check_channels,
    resize_patches as resize_patches,
)
from ._color import (
    ColorHistogram as ColorHistogram,
    GrayHistogram as GrayHistogram,
    JointColorHistogram as JointColorHistogram,
)
from ._columns import (
    GivenColumns as GivenColumns,
    ImageTransformer as ImageTransformer,
    as_family as as_family,
    extract_features as extract_features,
)
from ._completed_lbp import CompletedLBP as CompletedLBP
from ._embedding import CNNEmbedding as CNNEmbedding, HistoEmbedding as HistoEmbedding
from ._extraction import (
    check_unique_names as check_unique_names,
    extract as extract,
    passes_over_images as passes_over_images,
)
from ._families import (
    FAMILIES as FAMILIES,
    FamilyRecord as FamilyRecord,
    Register as Register,
    make_family as make_family,
)
from ._feature_store import FeatureStore as FeatureStore
from ._fuzzy_color import FuzzyColorHistogram as FuzzyColorHistogram
from ._haralick import GLCM as GLCM, STATISTICS as STATISTICS, HaralickTexture as HaralickTexture
from ._image_fingerprint import (
    HASH_BITS as HASH_BITS,
    Fingerprints as Fingerprints,
    ImageFingerprint as ImageFingerprint,
    TrainingImages as TrainingImages,
    leave_out_unreadable as leave_out_unreadable,
    mirror_masks as mirror_masks,
    number_rows as number_rows,
    pixel_digests as pixel_digests,
    transposed_codes as transposed_codes,
)
from ._lbp import LBPHistogram as LBPHistogram
from ._pftas import PFTAS as PFTAS
from ._phase_quantization import LocalPhaseQuantization as LocalPhaseQuantization
from ._progress import Progress as Progress
from ._runtime import Runtime as Runtime
from ._shards import (
    ShardTask as ShardTask,
    open_features as open_features,
    shard_tasks as shard_tasks,
    write_shard as write_shard,
)
from ._store_session import (
    FEATURES_VERSION as FEATURES_VERSION,
    content_key as content_key,
    extractor_name as extractor_name,
)
from ._unnamed_stores import (
    RECENT_ROWS as RECENT_ROWS,
    RecentRows as RecentRows,
    scratch_store as scratch_store,
)
