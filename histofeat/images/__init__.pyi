from ._headers import (
    IMAGE_SUFFIXES as IMAGE_SUFFIXES,
    MAX_PIXELS as MAX_PIXELS,
    image_size as image_size,
    png_size as png_size,
    read_regular as read_regular,
)
from ._kernels import (
    compiled as compiled,
    is_own as is_own,
    own_folder as own_folder,
    use_own_folder as use_own_folder,
    user_cache as user_cache,
)
from ._macenko import (
    MAX_CONCENTRATION as MAX_CONCENTRATION,
    RGB_FROM_HED as RGB_FROM_HED,
    MacenkoNormalizer as MacenkoNormalizer,
    quantised_stains as quantised_stains,
)
from ._normalization import (
    NORMALIZERS as NORMALIZERS,
    StainNormalizer as StainNormalizer,
    is_tissue as is_tissue,
    make_normalizer as make_normalizer,
    normalized_images as normalized_images,
)
from ._perturbations import PERTURBATIONS as PERTURBATIONS, perturbed_images as perturbed_images
from ._reading import (
    Images as Images,
    as_images as as_images,
    decode_patch as decode_patch,
    image_input_tags as image_input_tags,
    read_patch as read_patch,
    run_ahead as run_ahead,
    table_column as table_column,
    warn_if_dark as warn_if_dark,
)
from ._reinhard import ReinhardNormalizer as ReinhardNormalizer
from ._scale import (
    check_mpp as check_mpp,
    image_mpp as image_mpp,
    rescale as rescale,
    scale_ratio as scale_ratio,
)
from ._slides import (
    Slide as Slide,
    is_slide as is_slide,
    open_slide as open_slide,
    read_tiles as read_tiles,
    slide_tiles as slide_tiles,
    tissue_mask as tissue_mask,
)
from ._tiles import (
    AGGREGATES as AGGREGATES,
    EDGES as EDGES,
    POLICIES as POLICIES,
    VIEW_COUNTS as VIEW_COUNTS,
    VIEWS as VIEWS,
    TilePlan as TilePlan,
    aggregate as aggregate,
    choose_policy as choose_policy,
    fit_to as fit_to,
    make_grid as make_grid,
    pad_to as pad_to,
    take_view as take_view,
)
