"""Given columns and transformers of scikit-learn as feature families."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from histofeat import IDCPipeline, save_model
from histofeat.exceptions import DatasetError
from histofeat.features import ColorHistogram, GivenColumns, ImageTransformer, extract
from histofeat.model_selection import PatientKFold


@pytest.fixture(scope="module")
def embeddings(cohort):
    """Columns of the cohort, without its images: two numbers a patch, of which one tells the class."""
    rng = np.random.default_rng(0)
    values = np.column_stack([cohort.y + rng.normal(0, 0.5, len(cohort)), np.arange(len(cohort))])
    return replace(cohort, columns=pd.DataFrame(values.astype(np.float32), columns=["a", "b"]), name="mine")


class Means(TransformerMixin, BaseEstimator):
    """Mean colours, which learn nothing; counts the images that it has seen."""

    seen = 0

    def __init__(self, scale=1):
        self.scale = scale

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        Means.seen += len(X)
        return X.mean(axis=(1, 2)) * self.scale

    def get_feature_names_out(self, input_features=None):
        return np.array(["red", "green", "blue"])


class KeptMeans(Means):
    @property
    def cache_key(self):
        return f"1, {self.scale}"


def test_columns_stand_beside_measured_families(embeddings, cohort):
    pipe = IDCPipeline(features=("color", embeddings), head="logistic")
    assert pipe.get_feature_names_out()[-2:].tolist() == ["mine_a", "mine_b"]
    assert pipe.get_params()["features__mine__rows"] is embeddings
    pipe = pickle.loads(pickle.dumps(clone(pipe).fit(cohort.X, cohort.y)))
    assert pipe.set_output(transform="pandas").transform(cohort.X[[9, 3, 9]])["mine_b"].tolist() == [9, 3, 9]
    assert pipe.predict_proba(cohort.X[:2]).shape == (2, 2)


def test_a_model_with_given_columns_is_not_saved(embeddings, cohort, tmp_path):
    fitted = IDCPipeline(features=("gray", embeddings), head="logistic").fit(cohort.X, cohort.y)
    with pytest.raises(
        ValueError, match=r"save_model: expected families that measure images, got the columns 'mine', w"
    ):
        save_model(fitted, tmp_path / "a.histofeat")


def test_no_image_is_read_where_all_is_given(embeddings):
    rows = replace(embeddings, frame=embeddings.frame.assign(path=[f"{row}.png" for row in range(len(embeddings))]))
    found = extract([GivenColumns(rows)], ["/no/such/5.png", "7.tif"])
    assert found.features[0][:, 1].tolist() == [5, 7]
    assert found.computed == {"mine": 0}


def test_a_search_refits_them(embeddings, cohort):
    pipe = IDCPipeline(features=embeddings, head="logistic")
    search = GridSearchCV(pipe, {"head__C": [0.1, 1.0]}, cv=PatientKFold(3))
    assert search.fit(cohort.X, cohort.y, groups=cohort.patients).best_score_ > 0.7


def test_a_gap_is_refused_by_name(embeddings, cohort):
    family = GivenColumns(embeddings.subset(np.arange(len(cohort)) != 4))
    with pytest.raises(
        DatasetError, match=rf"features 'mine': expected one row for each patch.*'{cohort.X[4]}'\. Rows"
    ):
        family.transform(cohort.X)
    with pytest.raises(DatasetError, match=r"got none or several for 'X\[0\]'"):
        family.transform(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"GivenColumns.rows: expected a data set with columns, got PatchDataset"):
        GivenColumns(cohort).fit(cohort.X)


def test_rows_are_bound_by_place(embeddings, cohort):
    with_keys = replace(embeddings, frame=embeddings.frame.assign(path=[f"key {row}" for row in range(len(cohort))]))
    family = GivenColumns(with_keys)
    family.bind(cohort)
    assert family.transform(cohort.X[[6, 2]])[:, 1].tolist() == [6, 2]


def test_a_transformer_is_a_family(patches, tmp_path):
    pipe = IDCPipeline(features=["color", Means()], head="logistic", store=tmp_path / "store.sqlite")
    assert pipe.get_feature_names_out()[-3:].tolist() == ["red", "green", "blue"]
    y = np.arange(len(patches)) % 2
    pipe.set_params(features__Means__transformer__scale=2).fit(patches, y)
    before = Means.seen
    values = pipe.set_output(transform="pandas").transform(patches)
    assert Means.seen >= before + len(patches)
    np.testing.assert_allclose(values["green"], patches[..., 1].mean(axis=(1, 2)) * 2, rtol=1e-6)
    again = extract([ColorHistogram(), ImageTransformer(Means())], patches, store=tmp_path / "store.sqlite")
    assert again.computed == {"color": 0, "Means": 12}


def test_a_transformer_with_a_key_is_kept(patches, tmp_path):
    store = tmp_path / "store.sqlite"
    first = extract([ColorHistogram(), ImageTransformer(KeptMeans())], patches, store=store)
    again = extract([ColorHistogram(), ImageTransformer(KeptMeans())], patches, store=store)
    assert (first.computed["KeptMeans"], again.computed["KeptMeans"]) == (12, 0)
    np.testing.assert_array_equal(first.features[1], again.features[1])
    assert extract([ImageTransformer(KeptMeans(2))], patches, store=store).computed["KeptMeans"] == 12


def test_columns_without_names_are_numbered():
    family = ImageTransformer(FunctionTransformer(lambda images: images.reshape(len(images), -1)[:, :2]))
    assert family.get_feature_names_out().tolist() == ["FunctionTransformer_0", "FunctionTransformer_1"]


def test_transformers_that_learn_are_refused(patches):
    with pytest.raises(ValueError, match=r"features 'StandardScaler': expected a transformer that works without fit"):
        IDCPipeline(features=StandardScaler(), head="logistic").fit(patches, np.arange(12) % 2)
    with pytest.raises(ValueError, match=r"expected numbers of shape \(1, d\), got \(1, 50, 50, 3\)"):
        ImageTransformer(FunctionTransformer()).transform(patches)
