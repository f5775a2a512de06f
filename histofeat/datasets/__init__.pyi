from ._audit import DatasetAudit as DatasetAudit, FullSet as FullSet, LeftOut as LeftOut
from ._base import PatchDataset as PatchDataset, check_rows as check_rows, match_rows as match_rows
from ._class_folders import load_image_folder as load_image_folder
from ._csv_rows import (
    CsvRows as CsvRows,
    csv_text as csv_text,
    printable as printable,
    read_csv_rows as read_csv_rows,
)
from ._embeddings import (
    dataset_of as dataset_of,
    labelled as labelled,
    load_embeddings as load_embeddings,
    own_names as own_names,
    read_table as read_table,
)
from ._fetching import DOWNLOADS as DOWNLOADS, fetch_file as fetch_file, unpack as unpack
from ._idc import load_idc as load_idc, mpp_by_name as mpp_by_name, parse_name as parse_name
from ._image_files import image_size as image_size
from ._looks import (
    LEDGER_COLUMNS as LEDGER_COLUMNS,
    REGISTERED_TESTS as REGISTERED_TESTS,
    Ledger as Ledger,
    Look as Look,
    RegisteredTest as RegisteredTest,
    registered_patients as registered_patients,
)
from ._manifest import load_manifest as load_manifest, parse_decimal as parse_decimal
from ._opening import (
    FORMATS as FORMATS,
    ImageList as ImageList,
    format_of as format_of,
    list_images as list_images,
    open_dataset as open_dataset,
    origins_by_name as origins_by_name,
    patch_size_of as patch_size_of,
    training_part as training_part,
)
from ._parts import (
    DatasetSplit as DatasetSplit,
    OfficialSplit as OfficialSplit,
    official_roles as official_roles,
    predefined_split as predefined_split,
)
from ._patients import PatientRule as PatientRule, find_patients as find_patients, patients_by_name as patients_by_name
from ._positive_class import (
    choose_positive as choose_positive,
    class_mapping as class_mapping,
    in_order as in_order,
    known_positive as known_positive,
    probability_columns as probability_columns,
)
from ._rare_classes import merge_rare_classes as merge_rare_classes
from ._shards import (
    holds_shard as holds_shard,
    list_shards as list_shards,
    open_shards as open_shards,
    store_shard as store_shard,
)
from ._split_tables import (
    SplitTable as SplitTable,
    load_published_split as load_published_split,
    published_splits as published_splits,
    read_split as read_split,
)
from ._splitting import split_dataset as split_dataset
from ._writing import (
    TABLE_FORMATS as TABLE_FORMATS,
    check_hdf5 as check_hdf5,
    check_place as check_place,
    read_array as read_array,
    read_members as read_members,
    regular_size as regular_size,
    table_bytes as table_bytes,
    unpacked_limit as unpacked_limit,
    write_whole as write_whole,
)
from .breakhis._folds import (
    BreakHisFolds as BreakHisFolds,
    breakhis_hold_outs as breakhis_hold_outs,
    read_breakhis_folds as read_breakhis_folds,
)
from .breakhis._loading import DUPLICATES as DUPLICATES, BreakHisAudit as BreakHisAudit, load_breakhis as load_breakhis
from .synthetic._cohorts import (
    make_breakhis_cohort as make_breakhis_cohort,
    make_cohort as make_cohort,
    make_signature_cohort as make_signature_cohort,
)
