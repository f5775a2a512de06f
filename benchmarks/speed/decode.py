"""The floor: all four families of a patch against decoding its PNG, both from memory."""

import cv2
import numpy as np
from families import FAMILIES
from rows import Target, check_equal, compare
from timing import one_core, race

from histofeat.features import extract, make_family

__all__ = ["measure"]


def measure(material, options) -> list:
    """One row: measuring as a multiple of decoding."""
    files, patches = material.patches(64 if options.quick else 512)
    buffers = [np.frombuffer(content, np.uint8) for content in files]
    estimators = [make_family(name) for name in FAMILIES]

    def decode():
        return [cv2.imdecode(buffer, cv2.IMREAD_COLOR) for buffer in buffers]

    with one_core():
        checked = check_equal("decode", patches, np.stack(decode())[..., ::-1])
        sides = {"ours": lambda: extract(estimators, patches), "peer": decode}
        timings = race(sides, 3 if options.quick else 15)
    size = np.mean([len(content) for content in files])
    return [
        compare(
            timings["ours"],
            timings["peer"],
            count=len(patches),
            unit="µs per image",
            scale=1e6,
            name="decode/all four",
            group="decode",
            what=f"all four families against decoding; {len(patches)} {material.label} patches, 50x50, PNGs of "
            f"{size:,.0f} bytes, both in memory; one core",
            peer_name="cv2.imdecode",
            ratio_of="ours / peer",
            target=Target("at most", 3),
            checked=f"the pixels measured are those decoded: {checked}",
        )
    ]
