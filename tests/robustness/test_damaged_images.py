"""Damaged files: formats with a checksum give no wrong pixel, and no format takes a file without its end."""

import numpy as np
import pytest
from damaged_images import FORMATS, main, measure
from skimage.filters import gaussian


@pytest.fixture(scope="module")
def table():
    noise = np.random.default_rng(0).random((60, 24, 24, 3))
    smooth = np.stack([gaussian(patch, 1.5, channel_axis=-1) for patch in noise])
    return measure((255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8))


def test_a_checksum_lets_no_wrong_pixel_through(table):
    checked = table[table.checksum]
    assert len(checked) == 6
    assert (checked["wrong pixels"] == 0).all(), checked
    # Less is refused than all only where the changed bit is of no pixel.
    assert (checked["refused"] >= 0.9 * checked["images"]).all(), checked


def test_no_format_takes_a_file_without_its_end(table):
    cut = table[table.damage == "truncated"]
    assert len(cut) == len(FORMATS)
    assert (cut["wrong pixels"] == 0).all(), cut


def test_the_command_prints_the_table(tmp_path, capsys):
    import cv2

    for at in range(3):
        cv2.imwrite(str(tmp_path / f"{at}.png"), np.random.default_rng(at).integers(0, 256, (9, 9, 3), np.uint8))
    main([str(tmp_path), "--images", "2"])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 + 3 * len(FORMATS)
    assert "wrong pixels" in printed
