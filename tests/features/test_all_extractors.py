"""One harness over every feature family and the union: a new family is tested without writing a test.

scikit-learn yields no checks for an estimator that does not take two-dimensional numbers, so each check here
replaces one of its own and is named after it. The last test counts that all of them ran on all extractors.
"""

import inspect
import pickle
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

import histofeat.features
from histofeat.exceptions import PatchError
from histofeat.features import (
    CNNEmbedding,
    ColorHistogram,
    HistoEmbedding,
    LBPHistogram,
    PatchUnion,
    make_family,
)

FAMILIES = [type(make_family(name)) for name in histofeat.features.FAMILIES]
EXTRACTORS = [*FAMILIES, PatchUnion]
CHECKS = {}
RAN = Counter()


def check(function):
    """Register a check under its own name."""
    CHECKS[function.__name__] = function
    return function


@pytest.fixture(scope="session")
def random_network(tmp_path_factory):
    """Weights of a real, untrained MobileNet of width 0.25, so that networks run where none can be had."""
    keras = pytest.importorskip("keras", reason="keras is not installed")
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3))
    path = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    model.save_weights(path)
    return str(path)


@pytest.fixture
def make(random_network):
    """Build an extractor of the harness with parameters that make it run anywhere."""

    def build(kind):
        if kind is CNNEmbedding:
            return CNNEmbedding("mobilenet_0.25", weights=random_network, input_size=64, batch_size=5)
        if kind is PatchUnion:
            return PatchUnion([ColorHistogram(), LBPHistogram()], n_jobs=2)
        return kind()

    return build


def assert_same(a, b, exact=True):
    if exact:
        np.testing.assert_array_equal(a, b)
    else:  # a network's sums depend on the batch that a patch travels in
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def is_exact(extractor):
    return not isinstance(extractor, CNNEmbedding)


@check
def check_no_attributes_set_in_init(extractor, patches):
    assert set(vars(extractor)) == set(inspect.signature(type(extractor).__init__).parameters) - {"self"}


@check
def check_get_params_invariance(extractor, patches):
    shallow, deep = extractor.get_params(deep=False), extractor.get_params(deep=True)
    assert shallow.items() <= deep.items()


@check
def check_set_params(extractor, patches):
    params = extractor.get_params(deep=False)
    assert extractor.set_params(**params) is extractor
    with pytest.raises(ValueError, match="Invalid parameter 'no_such'"):
        extractor.set_params(no_such=1)


@check
def check_estimator_cloneable(extractor, patches):
    twin = clone(extractor)
    assert repr(twin) == repr(extractor)
    assert_same(twin.fit_transform(patches), extractor.fit_transform(patches))


@check
def check_estimators_pickle(extractor, patches):
    before = extractor.fit_transform(patches)
    assert_same(pickle.loads(pickle.dumps(extractor)).transform(patches), before)


@check
def check_fit_returns_self(extractor, patches):
    assert extractor.fit(patches) is extractor
    assert extractor.fit(patches, np.arange(len(patches))) is extractor


@check
def check_fit_idempotent(extractor, patches):
    assert_same(extractor.fit(patches).transform(patches), extractor.fit(patches).transform(patches))


@check
def check_dict_unchanged(extractor, patches):
    extractor.fit(patches)
    before = dict(vars(extractor))
    extractor.transform(patches)
    extractor.get_feature_names_out()
    assert vars(extractor) == before


@check
def check_transformer_general(extractor, patches):
    assert_same(extractor.fit_transform(patches), extractor.fit(patches).transform(patches))


@check
def check_transformers_unfitted_stateless(extractor, patches):
    assert not extractor.__sklearn_tags__().requires_fit
    assert_same(clone(extractor).transform(patches), extractor.fit_transform(patches))


@check
def check_transformer_preserve_dtypes(extractor, patches):
    features = extractor.transform(patches)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


@check
def check_transformer_get_feature_names_out(extractor, patches):
    names = extractor.get_feature_names_out()
    assert names.dtype == object
    assert names.shape == (extractor.transform(patches).shape[1],)
    assert len(set(names)) == len(names)
    assert extractor.fit(patches).n_features_out_ == len(names)


@check
def check_set_output_transform_pandas(extractor, patches):
    frame = extractor.set_output(transform="pandas").fit_transform(patches)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(extractor.get_feature_names_out())


@check
def check_readonly_input(extractor, patches):
    frozen = patches.copy()
    frozen.flags.writeable = False
    assert_same(extractor.transform(frozen), extractor.transform(patches))


@check
def check_input_unchanged(extractor, patches):
    given = patches.copy()
    extractor.transform(given)
    np.testing.assert_array_equal(given, patches)


@check
def check_noncontiguous_input(extractor, patches):
    turned = np.asfortranarray(patches)
    assert not turned.flags.c_contiguous
    assert_same(extractor.transform(turned), extractor.transform(patches))
    assert_same(extractor.transform(patches[..., ::-1]), extractor.transform(patches[..., ::-1].copy()))


@check
def check_methods_subset_invariance(extractor, patches):
    whole = extractor.transform(patches)
    parts = np.vstack([extractor.transform(patches[i : i + 1]) for i in range(len(patches))])
    assert_same(parts, whole, is_exact(extractor))


@check
def check_methods_sample_order_invariance(extractor, patches):
    order = np.random.default_rng(0).permutation(len(patches))
    assert_same(extractor.transform(patches[order]), extractor.transform(patches)[order], is_exact(extractor))


@check
def check_estimators_dtypes(extractor, patches):
    """The forms of X stand where scikit-learn varies dtypes."""
    whole = extractor.transform(patches)
    assert_same(extractor.transform(list(patches)), whole)
    assert_same(extractor.transform(patches.astype(np.uint16) * 257), whole)


@check
def check_estimators_nan_inf(extractor, patches):
    for bad in (np.nan, np.inf):
        with pytest.raises(PatchError, match=r"expected uint8 .* or uint16 pixels, got float64"):
            extractor.transform(np.full((2, 8, 8, 3), bad))


@check
def check_estimators_empty_data_messages(extractor, patches):
    with pytest.raises(PatchError, match="at least one image"):
        extractor.fit([])


@check
def check_fit1d(extractor, patches):
    with pytest.raises(PatchError, match="Feature matrices and flattened"):
        extractor.fit(np.zeros((3, 7), dtype=np.uint8))


@check
def check_unequal_sizes(extractor, patches):
    least = 16 if isinstance(extractor, HistoEmbedding) else 1  # below, there is nothing on a patch to see for it
    mixed = [patches[0], patches[1, :20], patches[2, :, :1], patches[3], patches[4, :least, :1], patches[5, :20]]
    features = extractor.transform(mixed)
    assert np.isfinite(features).all()
    for row, patch in zip(features, mixed, strict=True):
        assert_same(row, extractor.transform([patch])[0], is_exact(extractor))


@check
def check_flat_black_and_white(extractor, patches):
    flat = np.empty((3, 50, 50, 3), dtype=np.uint8)
    flat[0], flat[1], flat[2] = 0, 255, (200, 120, 180)
    assert np.isfinite(extractor.transform(flat)).all()


@check
def check_flips_and_quarter_turns(extractor, patches):
    families = extractor.families if isinstance(extractor, PatchUnion) else [extractor]
    views = [patches[:, ::-1], patches[:, :, ::-1], np.rot90(patches, axes=(1, 2))]
    for family in families:
        if family._invariant_to_turns:
            still = family.transform(patches)
            for view in views:
                np.testing.assert_allclose(family.transform(view), still, rtol=2e-4, atol=2e-5)


@check
def check_bad_parameter_is_named(extractor, patches):
    """Every family refuses a senseless value of its first parameter, by that parameter's name."""
    name = next(iter(inspect.signature(type(extractor)).parameters))
    broken = clone(extractor)
    setattr(broken, name, object())
    with pytest.raises((ValueError, TypeError), match=rf"\w+\.{name}: expected"):
        broken.fit(patches)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", EXTRACTORS, ids=lambda kind: kind.__name__)
def test_extractor(kind, name, make, patches):
    CHECKS[name](make(kind), patches)
    RAN[kind.__name__, name] += 1


def test_families_are_all_found():
    assert {kind.family for kind in FAMILIES} == set(histofeat.features.FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_scikit_learn_yields_no_check_of_its_own(kind):
    """If this fails, scikit-learn has learnt to check image estimators: use its checks and drop ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        yielded = {getattr(c, "func", c).__name__ for _, c in estimator_checks_generator(kind())}
    assert len(yielded) < len(CHECKS) / 2, sorted(yielded)


def test_every_check_ran_on_every_extractor(request):
    selected = {item.name for item in request.session.items if item.name.startswith("test_extractor[")}
    if len(selected) < len(EXTRACTORS) * len(CHECKS):
        pytest.skip("a part of the harness was selected")
    assert len(CHECKS) >= 25
    missing = {(kind.__name__, name) for kind in EXTRACTORS for name in CHECKS} - set(RAN)
    assert not missing
