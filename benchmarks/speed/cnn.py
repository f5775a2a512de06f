"""Engines of the networks on the CPU: OpenVINO against ``keras.Model.predict``, all cores."""

import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rows import DisagreementError, Target, check_close, compare, missing
from timing import race

from histofeat import CNNEmbedding, IDCPipeline, PatientKFold
from histofeat.features import resize_patches
from histofeat.networks import bfloat16_supported, find_encoder

__all__ = ["BATCH_SIZES", "check_embeddings", "fastest_batches", "measure"]

_SIZE = 96
#: What float32 may differ by from Keras, of the largest value of an embedding.
_TOLERANCE = 1e-4
#: What bfloat16 may differ by, of the length of all embeddings: single values of a narrow network move by much more.
#: What it costs are the rows of ROC-AUC.
_BFLOAT16_AWAY = 0.2
_FACTOR = {"float32": 1.8, "bfloat16": 4.0}
BATCH_SIZES = (32, 64, 256)
#: Heads whose ROC-AUC bfloat16 may cost, on as many patches as there are: so small a difference takes many.
_HEADS = ("logistic", "xgboost")
_MOST_PATCHES = 20_000
_NO_BFLOAT16 = "bfloat16 is not available on this processor"


def measure(material, options) -> list:
    """Rows per width of the network and per precision."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="histofeat-cnn-") as scratch, _cache(scratch), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        for name in ("mobilenetv2_0.35", "mobilenetv2"):
            weights, words = _weights(name, options.weights, Path(scratch))
            rows += _measure_network(name, weights, words, material, options)
        rows += _measure_accuracy(material, options)
    return rows


def _measure_network(name, weights, words, material, options) -> list:
    _, patches = material.patches(16 if options.quick else 512)
    pixels = resize_patches(patches, _SIZE)
    predict, batch_size = _peer(name, weights, pixels)
    rows = []
    for precision in ("float32", "bfloat16"):
        fields = {
            "name": f"cnn/{name}, {precision}",
            "group": "cnn",
            "what": f"{name} at {_SIZE} px, {words}, {len(pixels)} {material.label} patches already resized; all cores",
            "peer_name": f"keras.Model.predict, float32, batches of {batch_size} (the fastest of {BATCH_SIZES}), "
            "pixels already scaled",
            "target": Target("at least", _FACTOR[precision]),
        }
        if precision == "bfloat16" and not bfloat16_supported():
            rows.append(missing(_NO_BFLOAT16, unit="µs per image", **fields))
            continue
        family = CNNEmbedding(name, weights=str(weights), input_size=_SIZE, engine="openvino", precision=precision)
        checked = check_embeddings(precision, family.transform(pixels), predict())
        timings = race({"ours": lambda f=family: f.transform(pixels), "peer": predict}, 2 if options.quick else 7)
        sides = timings["ours"], timings["peer"]
        rows.append(compare(*sides, count=len(pixels), unit="µs per image", scale=1e6, checked=checked, **fields))
    return rows


def _peer(name, weights, pixels):
    """The network as ``keras.applications`` builds it, and the batch size that suits it best."""
    from histofeat.networks import import_keras

    keras = import_keras()
    shape = (_SIZE, _SIZE, 3)
    options = dict(find_encoder(name).options)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape, pooling="avg", **options)
    model.load_weights(weights)
    scaled = keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    best = fastest_batches(model, scaled)
    return lambda: model.predict(scaled, batch_size=best, verbose=0), best


def fastest_batches(model, pixels) -> int:
    """How many of `pixels` at a time suit ``model.predict`` best."""

    def with_batches_of(size):
        return lambda: model.predict(pixels, batch_size=size, verbose=0)

    timings = race({size: with_batches_of(size) for size in BATCH_SIZES}, 2)
    return min(timings, key=lambda size: timings[size].best)


def check_embeddings(precision, ours, theirs) -> str:
    """Words for how far both sides are apart; raises where that is more than rounding to `precision` explains."""
    scale = np.abs(theirs).max()
    if not scale > 1e-3:
        raise DisagreementError(f"cnn: expected embeddings that are not all near 0, got at most {scale}.")
    gap = np.abs(ours - theirs).max() / scale
    if precision == "bfloat16":
        away = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        if not away <= _BFLOAT16_AWAY:
            raise DisagreementError(
                f"cnn bfloat16: expected embeddings within {_BFLOAT16_AWAY} of their length, got {away:.3g}."
            )
        return f"{ours.size:,} values {away:.1e} of their length away; the largest difference is {gap:.1e}"
    check_close(f"cnn {precision}", ours / scale, theirs / scale, rtol=0, atol=_TOLERANCE)
    return f"{ours.size:,} values within {_TOLERANCE:g} of the largest; the largest difference is {gap:.1e}"


def _weights(name, folder, scratch):
    """The file of real weights where there is one, else one of random weights: the time is the same."""
    encoder = find_encoder(name)
    for file in encoder.accepted_files if folder else ():
        if (folder / file).is_file():
            return folder / file, "ImageNet weights"
    path = scratch / f"{name}.weights.h5"
    _random_network(encoder).save_weights(path)
    return path, "random weights, which take as long"


def _random_network(encoder):
    """The network with random kernels that keep the size of what passes through, so that results can be compared."""
    from histofeat.networks import import_keras

    keras, rng = import_keras(), np.random.default_rng(0)
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(_SIZE, _SIZE, 3), **dict(encoder.options)
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            shape = layer.kernel.shape
            fan_in = np.prod(shape[:2] if isinstance(layer, keras.layers.DepthwiseConv2D) else shape[:-1])
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
    return model


def _measure_accuracy(material, options) -> list:
    """What bfloat16 costs in ROC-AUC: both precisions, out of fold by patient, a row for each head."""
    fields = {
        head: {
            "name": f"cnn/ROC-AUC, bfloat16, {head}",
            "group": "cnn",
            "unit": "ROC-AUC",
            "what": f"mobilenetv2_0.35 at {_SIZE} px and the head {head!r}, {material.label} patches, five folds by "
            "patient",
            "target": Target("at most", 0.002, "ours"),
        }
        for head in _HEADS
    }
    weights, words = _weights("mobilenetv2_0.35", options.weights, Path(os.environ["XDG_CACHE_HOME"]))
    reason = None
    if not bfloat16_supported():
        reason = _NO_BFLOAT16
    elif material.data is None or not words.startswith("ImageNet"):
        reason = "it takes real patches (--data) and ImageNet weights (--weights)"
    if reason is not None:
        return [missing(reason, peer_name="float32", **its) for its in fields.values()]
    dataset = material.different(400 if options.quick else _MOST_PATCHES)
    settings = {"encoder": "mobilenetv2_0.35", "weights": str(weights), "input_size": _SIZE, "engine": "openvino"}
    values = {name: CNNEmbedding(**settings, precision=name).transform(dataset.X) for name in ("float32", "bfloat16")}
    return [
        _accuracy_row({name: roc_auc(dataset, found, head) for name, found in values.items()}, len(dataset), its)
        for head, its in fields.items()
    ]


def _accuracy_row(scores, n, fields):
    from rows import Row

    away = abs(scores["float32"] - scores["bfloat16"])
    note = f"float32 {scores['float32']:.4f}, bfloat16 {scores['bfloat16']:.4f}; shown is by how much they differ."
    return Row(**fields, peer_name="", ours=away, checked=f"the same {n:,} patches, folds and head", note=note)


def roc_auc(dataset, values, head) -> float:
    """Pooled out-of-fold ROC-AUC of a head on embeddings."""
    from sklearn.metrics import roc_auc_score

    scores = np.full(len(dataset), np.nan)
    for train, test in PatientKFold(5).split(values, dataset.y, dataset.patients):
        fitted = IDCPipeline(head=head, n_jobs=-1).make_head().fit(values[train], dataset.y[train])
        scores[test] = fitted.predict_proba(values[test])[:, 1]
    return float(roc_auc_score(dataset.y, scores))


@contextmanager
def _cache(folder):
    """Keep networks that are converted for this run out of the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
