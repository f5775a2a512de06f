"""The extraction engine: one decode, any number of threads, bounded memory, errors that name the image."""

import threading

import cv2
import numpy as np
import pytest
from sklearn.base import clone

from histofeat.exceptions import PatchError
from histofeat.features import (
    CHANNELS,
    ColorHistogram,
    HaralickTexture,
    LBPHistogram,
    PatchBatch,
    PatchFeatures,
    PatchUnion,
    extract,
)

FAMILIES = (ColorHistogram(), LBPHistogram(), HaralickTexture())


class Counting(PatchFeatures):
    """A real, tiny family that records what it was given."""

    family = "counting"

    def __init__(self):
        pass

    def _check_params(self):
        pass

    def _feature_names(self):
        return ["counting_mean"]

    def _compute(self, batch):
        SEEN.append((batch.rgb.shape, threading.current_thread().name))
        return batch.rgb.mean(axis=(1, 2, 3))[:, None]


SEEN = []


@pytest.fixture
def files(tmp_path, patches):
    paths = []
    for i in range(150):
        patch = patches[i % 12][: 50 - 10 * (i % 3 == 0)]
        paths.append(str(tmp_path / f"{i:03}.png"))
        cv2.imwrite(paths[-1], patch[..., ::-1])
    return paths


def test_a_union_gives_what_its_families_give(files):
    together = extract(FAMILIES, files).features
    for family, block in zip(FAMILIES, together, strict=True):
        np.testing.assert_array_equal(block, family.transform(files))
    np.testing.assert_array_equal(PatchUnion(FAMILIES).transform(files), np.hstack(together))
    named = PatchUnion(["color", "lbp", HaralickTexture()]).fit(files)
    assert named.families[0] == "color"
    np.testing.assert_array_equal(clone(named).transform(files), np.hstack(together))


@pytest.mark.parametrize("n_jobs", [2, 5, -1])
def test_threads_change_nothing(files, n_jobs):
    one, many = extract(FAMILIES, files), extract(FAMILIES, files, n_jobs=n_jobs)
    for a, b in zip(one.features, many.features, strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_hold_one_size_and_few_pixels(files):
    SEEN.clear()
    rows = extract([Counting()], files).features[0][:, 0]
    assert sum(shape[0] for shape, _ in SEEN) == len(files)
    assert {shape[1:] for shape, _ in SEEN} == {(50, 50, 3), (40, 50, 3)}
    expected = [cv2.imread(path).mean() for path in files]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    SEEN.clear()
    extract([Counting()], np.zeros((5, 460, 700, 3), dtype=np.uint8))
    assert {shape[0] for shape, _ in SEEN} == {1}


def test_progress_counts_up_to_all(files):
    calls = []
    extract([Counting()], files, n_jobs=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 150), (128, 150), (150, 150)]


def test_conversions_and_seconds_are_reported(tmp_path, patches, caplog):
    path = str(tmp_path / "gray.png")
    cv2.imwrite(path, patches[0, ..., 0])
    with caplog.at_level("INFO", logger="histofeat"):
        extraction = extract(FAMILIES, [path, path])
    assert dict(extraction.conversions) == {"gray": 2}
    assert "converted to 8-bit RGB" in caplog.text
    assert set(extraction.seconds) == {
        "read",
        "decode",
        "total",
        "ColorHistogram",
        "LBPHistogram",
        "HaralickTexture",
    }


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_first_bad_file_is_named_and_nothing_hangs(files, tmp_path, n_jobs):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image at all")
    with pytest.raises(PatchError, match=r"bad\.png"):
        extract(FAMILIES, [*files[:70], str(bad), *files[70:]], n_jobs=n_jobs)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ([], "PatchUnion.families: expected a list of at least one feature family"),
        ("color", "PatchUnion.families: expected a list"),
        (["colour"], r"features: expected the name of a feature family, got 'colour'. Did you mean 'color'"),
        ([3], r"expected names or estimators of histofeat\.features, got 3. Give a name, such as 'lbp'"),
        ([LBPHistogram(), LBPHistogram()], "columns of their own, got 'lbp_"),
    ],
)
def test_unions_of_other_things_are_refused(families, message, patches):
    with pytest.raises(ValueError, match=message):
        PatchUnion(families).fit(patches)


def test_each_conversion_is_made_once_and_agrees_with_opencv(patches):
    batch = PatchBatch(patches)
    assert batch.gray is batch.gray
    assert batch.hsv is batch.hsv
    assert batch.stains is batch.stains
    assert batch.channel("eosin") is batch.channel("eosin")
    np.testing.assert_array_equal(batch.gray[3], cv2.cvtColor(patches[3], cv2.COLOR_RGB2GRAY))
    np.testing.assert_array_equal(batch.hsv[3], cv2.cvtColor(patches[3], cv2.COLOR_RGB2HSV_FULL))
    for name in ("gray", *CHANNELS):
        channel = batch.channel(name)
        assert channel.shape == (12, 50, 50)
        assert channel.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        batch.rgb[0] = 0
