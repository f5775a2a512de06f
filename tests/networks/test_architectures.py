"""The networks themselves: CancerNet as published, the residual one, and those of keras.applications fine-tuned."""

import pickle

import numpy as np
import pytest

from histofeat import CNNClassifier
from histofeat.exceptions import WeightsError
from histofeat.networks import ARCHITECTURES, Recipe, find_weights, forget_sooner, import_keras, make_optimizer
from histofeat.networks._architectures import build, rebuild, unfreeze
from histofeat.networks.pretrained import _network as network
from histofeat.networks.pretrained._network import _quiet

pytest.importorskip("keras", reason="Keras is not installed: no network to build")
SMALL = ARCHITECTURES["mobilenet_0.25"]
SIDE = 32


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_cancernet_is_the_published_network():
    model = build(ARCHITECTURES["cancernet"], 2, input_size=48)
    block = ["SeparableConv2D", "Activation", "BatchNormalization"]
    pool = ["MaxPooling2D", "Dropout"]
    assert kinds(model) == [
        "InputLayer", "Rescaling",
        *block, *pool, *block * 2, *pool, *block * 3, *pool,
        "Flatten", "Dense", "Activation", "BatchNormalization", "Dropout", "Dense", "Activation",
    ]  # fmt: skip
    widths = [layer.filters for layer in model.layers if hasattr(layer, "depth_multiplier")]
    assert widths == [32, 64, 64, 128, 128, 128]
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.25, 0.25, 0.25, 0.5]
    channels, weights = 3, 0
    for width in widths:
        weights += 9 * channels + channels * width + width + 4 * width
        channels = width
    weights += 6 * 6 * 128 * 256 + 256 + 4 * 256 + 256 * 2 + 2
    assert model.count_params() == weights


def test_the_residual_network_is_small_and_has_a_way_around_each_block():
    model = build(ARCHITECTURES["resnet_small"], 3, input_size=48)
    assert 0.29e6 < model.count_params() < 0.32e6
    assert kinds(model).count("Add") == 3
    assert model.output_shape == (None, 3)


def test_alexnet_has_as_many_weights_as_everybody_elses():
    assert build(ARCHITECTURES["alexnet"], 1000, input_size=224).count_params() == 61_100_840  # torchvision's


@pytest.mark.parametrize("name", ["cancernet", "resnet_small"])
def test_the_seed_decides_the_first_weights(name):
    first, same, other = (build(ARCHITECTURES[name], 2, input_size=16, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), same.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_bfloat16_keeps_weights_and_output_in_float32():
    model = build(ARCHITECTURES["resnet_small"], 2, input_size=16, precision="bfloat16")
    exact = rebuild(
        {"architecture": "resnet_small", "precision": "float32", "fine_tuned": False}, 2, 16, model.get_weights()
    )
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    with _quiet():
        rounded, proba = (np.asarray(m.predict_on_batch(pixels)) for m in (model, exact))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - proba).max() < 0.05
    assert {array.dtype for array in model.get_weights()} == {np.dtype("float32")}


@pytest.fixture(scope="module")
def base_file(tmp_path_factory):
    """Random weights of a small MobileNet, saved as those of an encoder are."""
    keras = import_keras()
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.utils.set_random_seed(0)
    with _quiet():
        base = keras.applications.MobileNet(
            include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), pooling="avg", alpha=0.25
        )
        rng = np.random.default_rng(0)
        for layer in base.layers:
            if type(layer).__name__ == "BatchNormalization":
                layer.moving_mean.assign(rng.normal(0, 0.2, layer.moving_mean.shape))
        base.save_weights(path)
    return path


def test_a_fine_tuned_base_is_the_encoder(base_file):
    model = build(SMALL, 2, input_size=SIDE, weights=base_file, fine_tuned=True)
    encoder = network.build_network(SMALL.encoder, base_file, input_size=SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    with _quiet():
        features = np.asarray(encoder.predict_on_batch(pixels))
        proba = np.asarray(model.predict_on_batch(pixels))
    kernel, bias = model.get_layer("logits").get_weights()
    raised = np.exp(features @ kernel + bias)
    assert np.allclose(proba, raised / raised.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_part_that_learns_and_normalisations_that_do_not(base_file):
    model = build(SMALL, 2, input_size=SIDE, weights=base_file, fine_tuned=True)
    base = model.get_layer("base")

    def learning(part, *, fine_tuned=True):
        unfreeze(model, SMALL, part, fine_tuned=fine_tuned)
        return {layer.name for layer in base.layers if layer.trainable_weights}

    assert learning("head") == set()
    assert len(model.trainable_weights) == 2
    assert learning("last_blocks") == {"conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"}
    everything = {layer.name for layer in base.layers if layer.weights}
    assert learning("all") == {name for name in everything if not name.endswith("bn")}
    assert learning("all", fine_tuned=False) == everything


def test_the_normalisation_of_the_network_of_histo_learns():
    record = ARCHITECTURES["lite0_small"]
    weights = find_weights(record.encoder)
    model = build(record, 2, input_size=SIDE, weights=weights, fine_tuned=True)
    learnt = {}
    for part in ("head", "last_blocks", "all"):
        unfreeze(model, record, part, fine_tuned=True)
        learnt[part] = len(model.trainable_weights)
    # Kernel, scale and offset of each of 24 convolutions, nine in the last three blocks; kernel and bias of the head.
    assert learnt == {"head": 2, "last_blocks": 3 * 9 + 2, "all": 3 * 24 + 2}
    model.compile("sgd", "categorical_crossentropy")
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    base = model.get_layer("base")
    before = base.get_weights()
    with _quiet():
        model.train_on_batch(pixels, np.eye(2)[[0, 1, 0, 1]])
    after = base.get_weights()
    assert all(np.isfinite(array).all() for array in after)
    changed = [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    # Kernels, scales, means and variances; an offset before another normalisation has no effect.
    assert [sum(changed[kind::5]) for kind in (0, 1, 3, 4)] == [24] * 4
    built_as = {"architecture": record.name, "precision": "float32", "fine_tuned": True}
    again = rebuild(built_as, 2, SIDE, model.get_weights())
    np.testing.assert_allclose(again(pixels), model(pixels), rtol=1e-4)


def test_a_file_of_another_network_is_refused(base_file, tmp_path):
    with pytest.raises(WeightsError, match=r"mobilenet.weights.h5: expected the weights of mobilenetv2_0.35 without"):
        build(ARCHITECTURES["mobilenetv2_0.35"], 2, input_size=SIDE, weights=base_file, fine_tuned=True)
    with pytest.raises(WeightsError, match=r"mobilenet.weights.h5: expected weights of cancernet with as many classes"):
        build(ARCHITECTURES["cancernet"], 2, input_size=48, weights=base_file)


def test_normalisations_forget_sooner_in_a_short_stage_alone():
    model = build(ARCHITECTURES["cancernet"], 2, input_size=16)
    normal = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    forget_sooner(model, 10_000)
    assert {layer.momentum for layer in normal} == {0.99}
    forget_sooner(model, 200)
    assert {layer.momentum for layer in normal} == {0.9}
    forget_sooner(model, 10)
    assert {layer.momentum for layer in normal} == {0.5}


def test_an_optimizer_is_what_the_recipe_says():
    recipe = Recipe("sgd", averaging=0.99, weight_decay=1e-4)
    optimizer = make_optimizer(recipe, 0.1, 10_000)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, True, 1e-4)
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.99)
    assert make_optimizer(recipe, 0.1, 50).ema_momentum == pytest.approx(0.8)
    assert make_optimizer(Recipe("adagrad"), 0.1, 50).use_ema is False
    decayed = make_optimizer(Recipe("adamw", weight_decay=1e-3), 0.1, 50)
    model = build(ARCHITECTURES["resnet_small"], 2, input_size=16)
    names = {v.path.rsplit("/")[-1] for v in model.trainable_variables if decayed._use_weight_decay(v)}
    assert names == {"kernel"}


def fine_tuned(weights, architecture="mobilenet_0.25", part="last_blocks"):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 64)
    X = np.clip(rng.normal(140, 35, (64, SIDE, SIDE, 3)) + codes[:, None, None, None] * [40, -20, 0], 0, 255)
    X = X.astype(np.uint8)
    recipe = Recipe(learning_rate=3e-3, batch_size=16, epochs=2, head_epochs=1, fine_tuning_rate=0.5, fine_tune=part)
    model = CNNClassifier(architecture, weights, recipe=recipe, input_size=SIDE, validation_fraction=0.25)
    return model.fit(X, codes, groups=np.arange(64) % 8), X


@pytest.mark.long
@pytest.mark.parametrize("part", ["last_blocks", "all"])
def test_fine_tuning_leaves_frozen_layers_and_all_statistics_as_they_were(base_file, part):
    model, X = fine_tuned(base_file, part=part)
    revived = pickle.loads(pickle.dumps(model))
    assert np.allclose(revived.predict_proba(X), model.predict_proba(X), atol=1e-6)
    first = build(SMALL, 2, input_size=SIDE, weights=base_file, fine_tuned=True).get_layer("base")
    changed = {
        layer.name
        for layer, then in zip(model._network().get_layer("base").layers, first.layers, strict=True)
        if any(not np.array_equal(a, b) for a, b in zip(layer.get_weights(), then.get_weights(), strict=True))
    }
    last = {"conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"}
    if part == "last_blocks":
        assert changed == last
    else:
        assert changed == {layer.name for layer in first.layers if layer.weights and not layer.name.endswith("bn")}
    assert model.history_["learning_rate"][0] > model.history_["learning_rate"][1]


@pytest.mark.long
@pytest.mark.parametrize("name", ["densenet121", "resnet50", "efficientnetb0", "vgg16", "mobilenet"])
def test_networks_of_keras_are_built_saved_and_read(name, tmp_path):
    record = ARCHITECTURES[name]
    model = build(record, 2, input_size=SIDE, fine_tuned=True)
    unfreeze(model, record, "last_blocks", fine_tuned=True)
    learning = {layer.name for layer in model.get_layer("base").layers if layer.trainable_weights}
    assert learning
    assert all(layer.startswith(record.last_blocks) for layer in learning)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    with _quiet():
        model.save(tmp_path / "network.keras")
        read = import_keras().saving.load_model(tmp_path / "network.keras")
        assert np.allclose(read.predict_on_batch(pixels), model.predict_on_batch(pixels), atol=1e-5)


@pytest.mark.long
def test_published_weights_are_fine_tuned(real_weights):
    model, X = fine_tuned("imagenet", "mobilenetv2_0.35")
    assert "imagenet" in repr(model)
    assert model.predict_proba(X).shape == (64, 2)
    record = ARCHITECTURES["mobilenetv2_0.35"]
    published = build(record, 2, input_size=SIDE, weights=find_weights(record.encoder), fine_tuned=True)
    base, first = model._network().get_layer("base"), published.get_layer("base")
    for name in ("bn_Conv1", "Conv_1_bn"):
        mean, then = (np.asarray(network.get_layer(name).moving_mean) for network in (base, first))
        assert np.array_equal(mean, then)
    assert not np.array_equal(base.get_layer("Conv_1").get_weights()[0], first.get_layer("Conv_1").get_weights()[0])
