"""Damage image files, and count what comes through with wrong pixels: ``python tests/robustness/damaged_images.py``.

The table goes to standard output: per format and damage the images tried, refused, decoded to the right pixels, and
decoded to wrong ones.
"""

import argparse
import io
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from histofeat.exceptions import PatchError
from histofeat.images import decode_patch

#: How a patch is stored in each format, and whether the format has a checksum of the pixels.
FORMATS = {
    "PNG": ("PNG", {}, True),
    "JPEG": ("JPEG", {"quality": 90}, False),
    "TIFF": ("TIFF", {}, False),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}, False),
    "TIFF, deflate": (None, {"photometric": "rgb", "compression": "zlib"}, True),
    "BMP": ("BMP", {}, False),
    "WebP": ("WEBP", {"quality": 90}, False),
    "WebP, lossless": ("WEBP", {"lossless": True}, False),
}


def encode(patch, name):
    """Bytes of a file of format `name` that holds `patch`."""
    kind, options, _ = FORMATS[name]
    buffer = io.BytesIO()
    if kind is None:
        tifffile.imwrite(buffer, patch, **options)
    else:
        Image.fromarray(patch).save(buffer, kind, **options)
    return buffer.getvalue()


def truncated(content, rng):
    """The file without its end."""
    return content[: rng.integers(1, len(content))]


def zeroed(content, rng):
    """The file with a block of up to 512 bytes set to zero, as after a lost sector."""
    size = min(512, len(content) // 4)
    at = rng.integers(0, len(content) - size)
    return content[:at] + bytes(size) + content[at + size :]


def flipped(content, rng):
    """The file with one bit the other way round."""
    at, bit = rng.integers(len(content)), rng.integers(8)
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


DAMAGES = {"truncated": truncated, "zeroed block": zeroed, "one bit": flipped}


def outcome(content, right):
    """What becomes of a file: "refused", "right pixels" or "wrong pixels"."""
    try:
        patch, _ = decode_patch(content)
    except PatchError:
        return "refused"
    return "right pixels" if np.array_equal(patch, right) else "wrong pixels"


def measure(patches, *, random_state=0):
    """Damage each patch once in each way and format, and count the outcomes: a DataFrame."""
    rows = []
    for name in FORMATS:
        contents = [encode(patch, name) for patch in patches]
        rights = [decode_patch(content)[0] for content in contents]
        for damage, change in DAMAGES.items():
            rng = np.random.default_rng(random_state)
            counts = Counter(
                outcome(change(content, rng), right) for content, right in zip(contents, rights, strict=True)
            )
            rows.append(
                {"format": name, "checksum": FORMATS[name][2], "damage": damage, "images": len(patches)}
                | {key: counts[key] for key in ("refused", "right pixels", "wrong pixels")}
            )
    return pd.DataFrame(rows)


def main(arguments=None):
    """Print the table for real patches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Folder with PNG patches, such as data/idc.")
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args(arguments)
    files = sorted(options.folder.rglob("*.png"))
    chosen = np.random.default_rng(0).choice(len(files), options.images, replace=False)
    table = measure([decode_patch(files[at].read_bytes())[0] for at in chosen])
    sys.stdout.write(table.to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
