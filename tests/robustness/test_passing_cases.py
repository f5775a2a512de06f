"""Kinds of trouble that other projects have had and this one handles; to be kept so."""

import numpy as np
from PIL import Image

from histofeat import load_image_folder
from histofeat.datasets import list_images
from histofeat.images import read_patch


def test_names_in_any_script_and_with_signs_of_patterns(patches, tmp_path):
    file = tmp_path / "Kühn 患者 #1 [a]" / "ß*.png"
    file.parent.mkdir()
    Image.fromarray(patches[0]).save(file)
    assert np.array_equal(read_patch(file), patches[0])
    assert list_images(file.parent).paths == (str(file),)
    assert list_images(file).paths == (str(file),)


def test_folders_of_notebooks_are_no_class(patches, tmp_path):
    for number, name in enumerate(("benign", "malignant", ".ipynb_checkpoints")):
        (tmp_path / name).mkdir()
        for patient in (1, 2):
            Image.fromarray(patches[2 * number + patient]).save(tmp_path / name / f"{patient}_a.png")
    dataset = load_image_folder(tmp_path, patients=r"^([0-9]+)_")
    assert dataset.target_names == ("benign", "malignant")
    assert len(dataset) == 4
