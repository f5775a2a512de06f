"""Micrometres per pixel: what loaders know, what files and tables say, what a person gives."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from histofeat.datasets import (
    PatchDataset,
    list_images,
    load_breakhis,
    load_idc,
    load_image_folder,
    load_manifest,
    make_breakhis_cohort,
    mpp_by_name,
    open_dataset,
    split_dataset,
)
from histofeat.exceptions import DatasetError


def _grey_tiles():
    return (np.full((4096, 4096, 3), 200, dtype=np.uint8) for _ in range(4))


@pytest.fixture
def folder(tmp_path):
    for name, settings in {"a/1.tif": {"resolution": 20_000, "resolution_unit": 3}, "b/2.png": {}}.items():
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name, **settings)
    return tmp_path


def test_idc_has_one_scale_and_keeps_it_in_parts_and_tables(cohort, tmp_path):
    assert cohort.mpp == cohort.subset([0, 1]).mpp == cohort.with_classes("none=no tumour,tumour").mpp == 4.0
    assert load_idc(cohort.root, mpp=0.5).mpp == open_dataset(cohort.root, mpp=0.5).mpp == 0.5
    split_dataset(cohort, write_to=tmp_path / "split.csv", mode="csv")
    assert load_manifest(tmp_path / "split.csv").mpp == 4.0


def test_breakhis_has_the_scale_of_its_magnification(real_data):
    drawn = make_breakhis_cohort(patients_per_subtype=1, images_per_slide=1)
    assert drawn.mpp is None
    assert drawn.frame.groupby("magnification")["mpp"].unique().explode().to_dict() == {
        40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05
    }  # fmt: skip
    assert [load_breakhis(drawn.root, power).mpp for power in (40, 400)] == [0.49, 0.05]
    assert load_breakhis(drawn.root, mpp=0.3).mpp == 0.3
    assert load_breakhis(real_data / "breakhis", 100).mpp == 0.20
    assert load_breakhis(real_data / "breakhis200_224").mpp is None  # others have squeezed these images


def test_class_folders_are_asked_by_their_headers(folder):
    found = load_image_folder(folder, patients={"a/1.tif": "7", "b/2.png": "8"})
    assert found.mpp is None
    assert found.frame["mpp"].tolist() == [pytest.approx(0.5), pytest.approx(np.nan, nan_ok=True)]
    assert found.subset([0]).mpp == pytest.approx(0.5)
    assert load_image_folder(folder, patients={"a/1.tif": "7", "b/2.png": "8"}, mpp=2).mpp == 2
    with pytest.raises(
        DatasetError, match=r"load_image_folder.mpp: expected numbers above 0, at most 1,000, got \[0.0\]"
    ):
        load_image_folder(folder, patients={"a/1.tif": "7", "b/2.png": "8"}, mpp=0)


def test_a_table_has_a_column_of_scales(folder):
    table = folder / "mine.csv"
    table.write_text("path,label,patient,mpp\na/1.tif,a,7,0.25\nb/2.png,b,8,NA\n")
    found = load_manifest(table)
    assert (found.mpp, found.frame["mpp"][0], found.subset([0]).mpp) == (None, 0.25, 0.25)
    assert found.frame["mpp"].isna().tolist() == [False, True]
    assert load_manifest(table, mpp=1.0).mpp == 1.0
    for wrong in ("0", "-1", "coarse"):
        table.write_text(f"path,label,patient,mpp\na/1.tif,a,7,{wrong}\nb/2.png,b,8,\n")
        with pytest.raises(
            DatasetError, match=f"mine.csv, line 2: expected micrometres per pixel above 0.* got '{wrong}'"
        ):
            load_manifest(table)
    table.write_text("path,label,patient\na/1.tif,a,7\nb/2.png,b,8\n")
    assert load_manifest(table).frame["mpp"][0] == pytest.approx(0.5)


def test_a_scale_that_is_none_is_refused(cohort):
    frame = pd.DataFrame({"path": ["a", "b"], "label": [0, 1], "patient": ["7", "9"], "x": pd.NA, "y": pd.NA})
    assert PatchDataset(frame, ("no", "yes"), "mine").mpp is None
    with pytest.raises(DatasetError, match=r"PatchDataset.mpp: expected numbers above 0, at most 1,000, got \[-4.0\]"):
        PatchDataset(frame, ("no", "yes"), "mine", mpp=-4.0)
    with pytest.raises(DatasetError, match=r"PatchDataset.mpp: expected numbers above 0, at most 1,000, got \[0.0\]"):
        PatchDataset(frame.assign(mpp=[0.0, 1.0]), ("no", "yes"), "mine")


def test_names_of_published_images_tell_their_scale():
    image = "x/SOB_B_A-14-22549AB-40-001.png"
    assert [mpp_by_name(image, size) for size in ((460, 700), (456, 700), (224, 224), (460, 350))] == [
        0.49, 0.49, None, None
    ]  # fmt: skip
    patch = "10253idx5x1351y1101class0.png"
    assert [mpp_by_name(patch, size) for size in ((50, 50), (50, 7), (400, 400))] == [4.0, 4.0, None]
    assert mpp_by_name("a.png", (50, 50)) is None
    assert mpp_by_name("SOB_M_DC-14-900001AB-100-001.png", (64, 96)) == 0.20  # drawn


def test_whole_slides_are_no_images(tmp_path):
    for name in ("a/1.png", "a/slide.svs", "b/2.ndpi", "c/4.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "tiff")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "1.png")
    found = list_images([tmp_path / "a", tmp_path / "c"])
    assert [*found.paths, *found.slides] == [str(tmp_path / name) for name in ("a/1.png", "c/4.tif", "a/slide.svs")]
    assert found.n_ignored == 0
    # A small region that was saved as a slide is an image, where it is named.
    assert list_images(tmp_path / "a" / "slide.svs").paths == (str(tmp_path / "a" / "slide.svs"),)
    with pytest.raises(DatasetError, match=r"got none among 1 files\. Whole slides are for `histofeat map`, .*2\.ndpi"):
        list_images(tmp_path / "b")
    with tifffile.TiffWriter(tmp_path / "c" / "large.tif", bigtiff=True) as file:
        file.write(
            shape=(8192, 8192, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(4096, 4096),
            data=_grey_tiles(),
            compression="zlib",
        )
    found = list_images(tmp_path / "c")
    assert (len(found), found.slides) == (1, (str(tmp_path / "c" / "large.tif"),))


def test_patches_of_idc_in_class_folders_keep_their_scale(cohort, tmp_path):
    for code, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for path in cohort.X[cohort.y == code][:3]:
            (tmp_path / name / path.rpartition("/")[2]).symlink_to(path)
    assert load_image_folder(tmp_path, patients=r"^([0-9]+)_").mpp == 4.0
