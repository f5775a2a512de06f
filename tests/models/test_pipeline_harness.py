"""The harness of `test_all_extractors` for the classifier: what scikit-learn would check if it knew how to make images.

Each check replaces the one of scikit-learn that it is named after; the last test counts that all ran with every head.
"""

import inspect
import pickle
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

from histofeat import IDCPipeline, PatchError
from histofeat.models import HEADS

CHECKS = {}
RAN = Counter()
#: Parameters that make a head quick, or let it work on twelve patches, and no different in kind.
QUICK = {
    "xgboost": {"n_estimators": 5},
    "random_forest": {"n_estimators": 5},
    **{name: {"xgboost__n_estimators": 5} for name in ("vote", "late_vote", "stacking")},
    "knn": {"n_neighbors": 3},
}


def check(function):
    """Register a check under its own name."""
    CHECKS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def labels():
    return np.array([0, 1] * 6)


@pytest.fixture(scope="module")
def patients():
    return np.repeat(list("abcdef"), 2)


def fitted(pipe, X, y, groups=None):
    return clone(pipe).fit(X, y, groups=groups)


@check
def check_no_attributes_set_in_init(pipe, X, y, groups):
    assert set(vars(pipe)) == set(inspect.signature(IDCPipeline).parameters)


@check
def check_get_params_invariance(pipe, X, y, groups):
    shallow, deep = pipe.get_params(deep=False), pipe.get_params(deep=True)
    assert set(shallow) < set(deep)
    assert any(name.startswith("head__") for name in deep)
    assert any(name.startswith("features__color__") for name in deep)


@check
def check_set_params(pipe, X, y, groups):
    before = pipe.get_params()
    assert pipe.set_params(**pipe.get_params(deep=False)) is pipe
    assert str(pipe.get_params()) == str(before)


@check
def check_estimator_cloneable(pipe, X, y, groups):
    assert repr(clone(pipe)) == repr(pipe)
    np.testing.assert_array_equal(fitted(pipe, X, y).predict(X), fitted(clone(pipe), X, y).predict(X))


@check
def check_estimators_pickle(pipe, X, y, groups):
    model = fitted(pipe, X, y, groups)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@check
def check_fit_returns_self(pipe, X, y, groups):
    pipe = clone(pipe)
    assert pipe.fit(X, y) is pipe


@check
def check_fit_idempotent(pipe, X, y, groups):
    model = fitted(pipe, X, y)
    first = model.decision_function(X)
    np.testing.assert_array_equal(model.fit(X, y).decision_function(X), first)


@check
def check_dict_unchanged(pipe, X, y, groups):
    model = fitted(pipe, X, y, groups)
    before = dict(vars(model))
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        getattr(model, method)(X)
    assert vars(model) == before


@check
def check_estimators_unfitted(pipe, X, y, groups):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        clone(pipe).predict(X)


@check
def check_classifiers_train(pipe, X, y, groups):
    model = fitted(pipe, X, y, groups)
    assert model.predict(X).shape == (12,)
    assert model.predict_proba(X).shape == (12, 2)
    assert model.decision_function(X).shape == (12,)
    assert model.n_features_out_ == len(model.get_feature_names_out())


@check
def check_classifiers_classes(pipe, X, y, groups):
    names = np.array(["tumour", "benign"])[y]
    model = fitted(pipe, X, names)
    assert model.classes_.tolist() == ["benign", "tumour"]
    assert set(model.predict(X)) <= set(names)


@check
def check_classifiers_one_label(pipe, X, y, groups):
    with pytest.raises(ValueError, match=r"at least two classes, got \[1\]"):
        fitted(pipe, X, np.ones(12, dtype=int))


@check
def check_classifiers_regression_target(pipe, X, y, groups):
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        fitted(pipe, X, np.linspace(0, 1, 12))


@check
def check_supervised_y_no_nan(pipe, X, y, groups):
    with pytest.raises(ValueError, match="expected a label for each image, got 1 missing, first at row 2"):
        fitted(pipe, X, np.array([0.0, 1.0, np.nan] + [0.0, 1.0, 1.0] * 3))


@check
def check_requires_y_none(pipe, X, y, groups):
    with pytest.raises((TypeError, ValueError), match="y"):
        clone(pipe).fit(X, None)


@check
def check_methods_subset_invariance(pipe, X, y, groups):
    model = fitted(pipe, X, y)
    parts = np.concatenate([model.decision_function(X[i : i + 1]) for i in range(12)])
    np.testing.assert_allclose(parts, model.decision_function(X), rtol=1e-5, atol=1e-6)


@check
def check_methods_sample_order_invariance(pipe, X, y, groups):
    model, order = fitted(pipe, X, y), np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(
        model.decision_function(X[order]), model.decision_function(X)[order], rtol=1e-5, atol=1e-6
    )


@check
def check_readonly_and_noncontiguous_input(pipe, X, y, groups):
    model = fitted(pipe, X, y)
    frozen = np.asfortranarray(X)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(model.predict(frozen), model.predict(X))


@check
def check_input_unchanged(pipe, X, y, groups):
    given, labels = X.copy(), y.copy()
    fitted(pipe, given, labels).predict(given)
    np.testing.assert_array_equal(given, X)
    np.testing.assert_array_equal(labels, y)


@check
def check_estimators_nan_inf(pipe, X, y, groups):
    with pytest.raises(PatchError, match="got float64 with NaN"):
        fitted(pipe, np.full((12, 8, 8, 3), np.nan), y)


@check
def check_estimators_empty_data_messages(pipe, X, y, groups):
    with pytest.raises(PatchError, match="at least one image"):
        fitted(pipe, [], [])


@check
def check_fit1d(pipe, X, y, groups):
    with pytest.raises(PatchError, match="Feature matrices and flattened"):
        fitted(pipe, np.zeros((12, 7), dtype=np.uint8), y)


@check
def check_global_output_transform_pandas(pipe, X, y, groups):
    frame = clone(pipe).set_output(transform="pandas").transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(pipe.get_feature_names_out())


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("head", HEADS)
def test_pipeline(head, name, patches, labels, patients):
    pipe = IDCPipeline("color", head, head_params=QUICK.get(head))
    CHECKS[name](pipe, patches, labels, patients)
    RAN[head, name] += 1


def test_scikit_learn_yields_no_check_of_its_own():
    """If this fails, scikit-learn has learnt to check image classifiers: use its checks and drop ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        yielded = {getattr(c, "func", c).__name__ for _, c in estimator_checks_generator(IDCPipeline())}
    assert len(yielded) < len(CHECKS) / 2, sorted(yielded)


def test_every_check_ran_with_every_head(request):
    selected = {item.name for item in request.session.items if item.name.startswith("test_pipeline[")}
    if len(selected) < len(HEADS) * len(CHECKS):
        pytest.skip("a part of the harness was selected")
    assert len(CHECKS) >= 20
    assert set(RAN) == {(head, name) for head in HEADS for name in CHECKS}
