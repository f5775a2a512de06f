"""Engines of the networks on the CPU: OpenVINO against ``keras.Model.predict``, all cores."""

import os
import tempfile
import warnings
from pathlib import Path
from unittest.mock import patch

import joblib
import numpy as np
from rows import PER_IMAGE, DisagreementError, Row, check_close, compare, missing, race

from histofeat import CNNEmbedding, IDCPipeline, PatientKFold
from histofeat.features import resize_patches
from histofeat.networks import bfloat16_supported, build_network, find_encoder, import_keras, shipped_weights

_SIZE = 96
#: What float32 may differ by from Keras, of the largest value of an embedding.
_TOLERANCE = 1e-4
#: What bfloat16 may differ by, of the length of all embeddings: single values of a narrow network move by much more.
#: What it costs are the rows of ROC-AUC.
_BFLOAT16_AWAY = 0.2
BATCH_SIZES = (32, 64, 256)
#: Heads whose ROC-AUC bfloat16 may cost, on as many patches as there are: so small a difference takes many.
_HEADS = ("logistic", "xgboost")
_MOST_PATCHES = 20_000
_NO_BFLOAT16 = "bfloat16 is not available on this processor"


def measure(material, options) -> list:
    """Rows per width of the network and per precision."""
    rows = []
    # Networks that are converted for this run stay out of the user's cache.
    with tempfile.TemporaryDirectory(prefix="histofeat-cnn-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        with patch.dict(os.environ, XDG_CACHE_HOME=scratch):
            for name in ("mobilenetv2_0.35", "mobilenetv2"):
                weights, words = _weights(name, options.weights, Path(scratch))
                rows += _measure_network(name, weights, words, material, options)
            weights, words = _weights("mobilenetv2_0.35", options.weights, Path(scratch))
            return rows + _measure_accuracy(weights, words, material, options)


def _measure_network(name, weights, words, material, options) -> list:
    _, patches = material.patches(16 if options.quick else 512)
    pixels = resize_patches(patches, _SIZE)
    scaled = import_keras().applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    model = _keras_network(name)
    model.load_weights(weights)
    batch_size = fastest_batches(model, scaled)

    def predict():
        return model.predict(scaled, batch_size=batch_size, verbose=0)

    rows = []
    for precision in ("float32", "bfloat16"):
        fields = {
            "name": f"cnn/{name}, {precision}",
            "what": f"{name} at {_SIZE} px, {words}, {len(pixels)} {material.label} patches already resized; all cores",
            "peer_name": f"keras.Model.predict, float32, batches of {batch_size} (the fastest of {BATCH_SIZES}), "
            "pixels already scaled",
        }
        if precision == "bfloat16" and not bfloat16_supported():
            rows.append(missing(_NO_BFLOAT16, unit=PER_IMAGE["unit"], **fields))
            continue
        family = CNNEmbedding(name, weights=str(weights), input_size=_SIZE, engine="openvino", precision=precision)
        checked = check_embeddings(precision, family.transform(pixels), predict())
        timed = race(lambda f=family: f.transform(pixels), predict, repeats=2 if options.quick else 7)
        rows.append(compare(*timed, count=len(pixels), checked=checked, **PER_IMAGE, **fields))
    return rows


def _keras_network(name):
    """Return the network as ``keras.applications`` builds it, without weights."""
    options = dict(find_encoder(name).options)
    shape = (_SIZE, _SIZE, 3)
    return import_keras().applications.MobileNetV2(
        include_top=False, weights=None, input_shape=shape, pooling="avg", **options
    )


def fastest_batches(model, pixels) -> int:
    """How many of `pixels` at a time suit ``model.predict`` best."""
    sides = [lambda size=size: model.predict(pixels, batch_size=size, verbose=0) for size in BATCH_SIZES]
    return BATCH_SIZES[int(np.argmin([min(seconds) for seconds in race(*sides, repeats=2)]))]


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
    return random_weights(name, scratch), "random weights, which take as long"


def random_weights(name, folder):
    """Return a file of random kernels that keep the size of what passes through, so results can be compared."""
    keras, rng, model = import_keras(), np.random.default_rng(0), _keras_network(name)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            shape = layer.kernel.shape
            fan_in = np.prod(shape[:2] if isinstance(layer, keras.layers.DepthwiseConv2D) else shape[:-1])
            layer.kernel.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
    path = folder / f"{name}.weights.h5"
    model.save_weights(path)
    return path


def _measure_accuracy(weights, words, material, options) -> list:
    """What bfloat16 costs in ROC-AUC: both precisions, out of fold by patient, a row for each head."""
    fields = {
        head: {
            "name": f"cnn/ROC-AUC, bfloat16, {head}",
            "unit": "ROC-AUC",
            "what": f"mobilenetv2_0.35 at {_SIZE} px and the head {head!r}, {material.label} patches, five folds by "
            "patient",
        }
        for head in _HEADS
    }
    reason = None if bfloat16_supported() else _NO_BFLOAT16
    if reason is None and (material.data is None or not words.startswith("ImageNet")):
        reason = "it takes real patches (--data) and ImageNet weights (--weights)"
    if reason is not None:
        return [missing(reason, peer_name="float32", **its) for its in fields.values()]
    dataset = material.different(400 if options.quick else _MOST_PATCHES)
    if not dataset.synthetic:  # no look at the official test patients
        dataset = dataset.subset(np.setdiff1d(np.arange(len(dataset)), dataset.official_split().test))
    settings = {"encoder": "mobilenetv2_0.35", "weights": str(weights), "input_size": _SIZE, "engine": "openvino"}
    values = [CNNEmbedding(**settings, precision=name).transform(dataset.X) for name in ("float32", "bfloat16")]
    rows = []
    for head, its in fields.items():
        exact, rounded = (roc_auc(dataset, found, head) for found in values)
        note = f"float32 {exact:.4f}, bfloat16 {rounded:.4f}; shown is by how much they differ."
        checked = f"the same {len(dataset):,} patches, folds and head"
        rows.append(Row(**its, ours=abs(exact - rounded), checked=checked, note=note))
    return rows


def roc_auc(dataset, values, head) -> float:
    """Pooled out-of-fold ROC-AUC of a head on embeddings."""
    from sklearn.metrics import roc_auc_score

    scores = np.full(len(dataset), np.nan)
    for train, test in PatientKFold(5).split(values, dataset.y, dataset.patients):
        fitted = IDCPipeline(head=head, n_jobs=-1).make_head().fit(values[train], dataset.y[train])
        scores[test] = fitted.predict_proba(values[test])[:, 1]
    return float(roc_auc_score(dataset.y, scores))


# --- the encoder that comes with the package -------------------------------------------------------------------------


def measure_shipped(material, options) -> list:
    """Patches per second: one row for the patches as they are, one for the mean over their eight views."""
    _, patches = material.patches(16 if options.quick else 512)
    encoder = find_encoder("histo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        model = build_network(encoder, shipped_weights(encoder), input_size=encoder.default_size)
        return [
            _shipped_row(patches, 1, model, material.label, 2 if options.quick else 7),
            # Eight views of a quarter of the patches still take twice as long.
            _shipped_row(patches[::4], 8, model, material.label, 1 if options.quick else 5),
        ]


def _shipped_row(patches, views, model, label, repeats):
    family = CNNEmbedding("histo", engine="openvino", views=views)
    size = model.input_shape[1]
    batch_size = min(len(patches), fastest_batches(model, resize_patches(patches, size)))

    def predict():
        # Views are made as they are needed: a single one costs the peer nothing.
        seen = [patches] if views == 1 else turned_and_mirrored(patches)
        found = [model.predict(resize_patches(pixels, size), batch_size=batch_size, verbose=0) for pixels in seen]
        return found[0] if views == 1 else np.mean(found, axis=0)

    words = {1: "one view", 8: "eight views"}[views]
    checked = check_embeddings("float32", family.transform(patches), predict())
    return compare(
        *race(lambda: family.transform(patches), predict, repeats=repeats),
        count=len(patches),
        unit="patches/s",
        per_second=True,
        name=f"histo/{words}",
        what=f"embeddings of the encoder histo from decoded patches, {words} of each; {len(patches)} {label} patches, "
        f"50x50; float32, all {joblib.cpu_count()} cores",
        peer_name=f"keras.Model.predict of the same network, float32, batches of {batch_size} (the fastest of "
        f"{BATCH_SIZES})" + ("" if views == 1 else ", mean over the same views"),
        ratio_of="ours / peer",
        checked=checked,
    )


def turned_and_mirrored(patches):
    """Yield the patches, mirrored or not, in each quarter turn."""
    for turn in range(4):
        turned = np.rot90(patches, turn, axes=(1, 2))
        yield np.ascontiguousarray(turned)
        yield np.ascontiguousarray(turned[:, :, ::-1])
