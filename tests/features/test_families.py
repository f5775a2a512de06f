"""Features as a table for other programs: rows, names and what is said about images that were converted or lost."""

import warnings
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import GrayHistogram, LBPHistogram, Runtime, extract_features, load_idc, make_cohort
from histofeat.exceptions import PatchError
from histofeat.features import extract
from histofeat.images import ReinhardNormalizer, normalized_images


def test_a_table_has_the_patches_and_named_columns(cohort):
    calls = []
    runtime = Runtime(progress=lambda *call: calls.append(call))
    frame = extract_features(cohort, ["gray", LBPHistogram(radii_px=(1,))], runtime=runtime)
    families = [GrayHistogram(), LBPHistogram(radii_px=(1,))]
    names = np.concatenate([family.get_feature_names_out() for family in families])
    assert frame.columns.tolist() == ["path", "patient", "label", "x", "y", *names]
    assert frame["path"].tolist() == cohort.X.tolist()
    assert frame["patient"].tolist() == cohort.patients.tolist()
    assert frame["label"].tolist() == [cohort.target_names[code] for code in cohort.y]
    np.testing.assert_array_equal(frame[names], np.hstack(extract(families, cohort.X).features))
    assert set(frame.dtypes[names]) == {np.dtype("float32")}
    assert frame.attrs == {"conversions": {}, "failures": []}
    assert calls[-1] == ("extract", len(cohort), len(cohort))


def test_unknown_places_have_no_column(cohort):
    dataset = replace(cohort, frame=cohort.frame.assign(x=pd.NA, y=pd.NA))
    assert extract_features(dataset, "gray").columns[:4].tolist() == ["path", "patient", "label", "gray_hist_000"]


def test_a_normaliser_is_fitted_on_all_patches_by_patient(cohort):
    frame = extract_features(cohort, "gray", normalizer="reinhard")
    fitted = ReinhardNormalizer().fit(cohort.X, groups=cohort.patients)
    expected = GrayHistogram().transform(normalized_images(cohort.X, fitted, groups=cohort.patients))
    np.testing.assert_array_equal(frame.filter(like="gray_"), expected)
    given = ReinhardNormalizer()
    pd.testing.assert_frame_equal(frame, extract_features(cohort, "gray", normalizer=given))
    assert not hasattr(given, "target_"), "a given estimator is not fitted"


def test_what_was_converted_or_lost_is_said(tmp_path):
    root = make_cohort(n_patients=3, patches_per_patient=8, root=tmp_path / "tree").root
    files = sorted(root.rglob("*.png"))
    files[0].write_bytes(files[0].read_bytes()[:300])
    cv2.imwrite(str(files[1]), cv2.imread(str(files[1]), cv2.IMREAD_GRAYSCALE))
    dataset = load_idc(root)
    with pytest.raises(PatchError, match=files[0].name):
        extract_features(dataset, "gray")
    with pytest.warns(UserWarning, match="1 of 24 images"):
        frame = extract_features(dataset, "gray", runtime=Runtime(on_error="skip"))
    assert len(frame) == 23
    assert sum(frame.attrs["conversions"].values()) == 1
    ((path, reason),) = frame.attrs["failures"]
    assert path.endswith(files[0].name)
    assert reason


def test_names_are_checked_before_the_first_image(cohort):
    nowhere = replace(cohort, frame=cohort.frame.assign(path=cohort.frame["path"] + ".gone"), root=None)
    with warnings.catch_warnings():
        for features, normalizer, words in (
            ("colour", None, "features: expected the name of a feature family, got 'colour'"),
            (["gray", "gray"], None, "expected families with columns of their own"),
            ("gray", "reinhart", "normalizer: expected"),
        ):
            with pytest.raises(ValueError, match=words):
                extract_features(nowhere, features, normalizer=normalizer)
