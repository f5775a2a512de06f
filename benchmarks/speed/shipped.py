"""The encoder that comes with the package, patches per second: OpenVINO against ``keras.Model.predict``, all cores."""

import warnings

import joblib
import numpy as np
from cnn import BATCH_SIZES, check_embeddings, fastest_batches
from rows import Target, compare
from timing import race

from histofeat import CNNEmbedding
from histofeat.networks import build_network, find_encoder, shipped_weights

__all__ = ["measure"]

_UNIT = "patches/s"
#: What the target of patches per second is meant for.
_CORES = 2
_PER_SECOND = 2_000


def measure(material, options) -> list:
    """One row for the patches as they are, one for the mean over their eight views."""
    _, patches = material.patches(16 if options.quick else 512)
    # Eight views of a quarter of the patches still take twice as long.
    few = patches[::4]
    encoder = find_encoder("histo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        model = build_network(encoder, shipped_weights(encoder), input_size=encoder.default_size)
        return [
            _row(patches, 1, model, material.label, 2 if options.quick else 7),
            _row(few, 8, model, material.label, 1 if options.quick else 5),
        ]


def _row(patches, views, model, label, repeats):
    family = CNNEmbedding("histo", engine="openvino", views=views)
    batch_size = min(len(patches), fastest_batches(model, patches))

    def predict():
        # Views are made as they are needed: a single one costs the peer nothing.
        seen = [patches] if views == 1 else _views(patches)
        found = [model.predict(pixels, batch_size=batch_size, verbose=0) for pixels in seen]
        return found[0] if views == 1 else np.mean(found, axis=0)

    checked = check_embeddings("float32", family.transform(patches), predict())
    timings = race({"ours": lambda: family.transform(patches), "peer": predict}, repeats)
    words, cores = {1: "one view", 8: "eight views"}[views], joblib.cpu_count()
    return compare(
        timings["ours"],
        timings["peer"],
        count=len(patches),
        unit=_UNIT,
        per_second=True,
        name=f"histo/{words}",
        group="histo",
        what=f"embeddings of the encoder histo from decoded patches, {words} of each; {len(patches)} {label} patches, "
        f"50x50; float32, all {cores} cores",
        peer_name=f"keras.Model.predict of the same network, float32, batches of {batch_size} (the fastest of "
        f"{BATCH_SIZES})" + ("" if views == 1 else ", mean over the same views"),
        ratio_of="ours / peer",
        target=Target("at least", _PER_SECOND, "ours") if views == 1 else None,
        checked=checked,
        note=f"The target is meant for {_CORES} cores." if views == 1 else "",
    )


def _views(patches):
    """Yield the patches, mirrored or not, in each quarter turn."""
    for turn in range(4):
        turned = np.rot90(patches, turn, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
