"""Recipes, schedules and the parameters of a classifier, without a network."""

import math
from dataclasses import replace

import numpy as np
import pytest

from histofeat import CNNClassifier, GroupLeakageError
from histofeat.exceptions import WeightsError
from histofeat.networks import ARCHITECTURES, STANDARD, Augmentation, Recipe, learning_rates
from histofeat.networks._architectures import find_architecture
from histofeat.networks._recipes import _CHOICES
from histofeat.networks._settings import resolve


def settings(architecture="cancernet", weights=None, **params):
    return resolve(CNNClassifier(architecture, weights, **params).get_params(deep=False))


@pytest.mark.parametrize("schedule", _CHOICES["schedule"])
def test_a_schedule_is_its_formula(schedule):
    rates = learning_rates(schedule, 0.3, 40, warmup=0.25, n_epochs=5)
    for step, rate in enumerate(rates):
        u = step / 40
        if schedule == "constant":
            expected = 0.3
        elif schedule == "cosine":
            expected = 0.15 * (1 + math.cos(math.pi * u))
        elif schedule == "inverse_time":
            expected = 0.3 / (1 + 0.3 / 5 * step)
        elif u < 0.25:
            expected = 0.3 * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * u / 0.25)))
        else:
            expected = 0.15 * (1 + math.cos(math.pi * (u - 0.25) / 0.75))
        assert rate == pytest.approx(expected)
    assert rates.max() == pytest.approx(0.3)


def test_an_unknown_schedule_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"schedule: expected a known schedule, got 'cosinus'. Did you mean 'cosine'"):
        learning_rates("cosinus", 1.0, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "adam_w"}, "got 'adam_w'. Did you mean 'adamw'"),
        ({"monitor": "auc"}, "Recipe.monitor: expected one of loss, roc_auc"),
        ({"batch_size": 1}, "Recipe.batch_size: expected a whole number of at least 2, got 1"),
        ({"epochs": 1.5}, "Recipe.epochs: expected a whole number of at least 1, got 1.5"),
        ({"head_epochs": -1}, "Recipe.head_epochs: expected a whole number of at least 0, got -1"),
        ({"learning_rate": 0}, "Recipe.learning_rate: expected a number above 0, got 0"),
        ({"weight_decay": math.nan}, "Recipe.weight_decay: expected a number from 0, got nan"),
        ({"label_smoothing": 1.0}, "Recipe.label_smoothing: expected a number from 0, below 1, got 1.0"),
        ({"schedule": "one-cycle"}, "Recipe.schedule: .*Did you mean 'one_cycle'"),
        ({"patience": 0}, "Recipe.patience: expected a whole number of at least 1, got 0"),
        ({"fine_tune": "last_block"}, "Recipe.fine_tune: .*got 'last_block'. Did you mean 'last_blocks'"),
        ({"on_unreadable": "skipp"}, "Recipe.on_unreadable: .*Did you mean 'skip'"),
        ({"precision": "float16"}, "Recipe.precision: .*got 'float16'"),
        ({"augmentation": "standard"}, "Recipe.augmentation: expected an Augmentation or None, got 'standard'"),
    ],
)
def test_a_recipe_out_of_range_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"architecture": "cancernett"}, "got 'cancernett'. Did you mean 'cancernet'"),
        ({"architecture": None}, "CNNClassifier.architecture: expected the name of a network, got None"),
        ({"recipe": "publish"}, "CNNClassifier.recipe: .* got 'publish'. Did you mean 'published'"),
        ({"epochs": 0}, "CNNClassifier.epochs: expected a whole number of at least 1, got 0"),
        ({"recipe": {"batch_size": True}}, "Recipe.batch_size: expected a whole number of at least 2, got True"),
        (
            {"recipe": {"batchsize": 3}},
            "CNNClassifier.recipe: expected one of optimizer, .*Did you mean 'batch_size'",
        ),
        ({"recipe": 3}, "CNNClassifier.recipe: expected one of standard, published, got 3"),
        ({"learning_rate": -1}, "CNNClassifier.learning_rate: expected a number above 0, got -1"),
        ({"validation_fraction": 1}, "CNNClassifier.validation_fraction: expected a number from 0, below 1, got 1"),
        (
            {"recipe": {"patience": 3}, "validation_fraction": 0},
            "Recipe.patience: expected None without held-out patients, got 3",
        ),
        ({"views": 4}, "CNNClassifier.views: expected one of 1, 8, got 4"),
        ({"device": "cuda:0"}, "CNNClassifier.device: expected None, 'cpu', 'gpu' or 'gpu:1', got 'cuda:0'"),
        (
            {"input_size": 4},
            "CNNClassifier.input_size: expected a whole number of at least 8, got 4",
        ),
        ({"random_state": -1}, "CNNClassifier.random_state: expected a whole number of at least 0, got -1"),
        ({"progress": 3}, "CNNClassifier.progress: expected a callable or None, got 3"),
    ],
)
def test_a_parameter_out_of_range_is_refused_before_anything_is_read(params, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**params).fit(["no such file.png"], [0], groups=["a"])


def test_how_fine_tuning_is_asked_for(tmp_path):
    file = tmp_path / "base.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    recipe = Recipe(epochs=5, head_epochs=2, learning_rate=0.1, fine_tuning_rate=0.5)
    two = settings("mobilenetv2_0.35", file, recipe=recipe)
    assert two.stages == (("head", 2, 0.1), ("last_blocks", 3, 0.05))
    assert settings("mobilenetv2_0.35", file, recipe=replace(recipe, fine_tune="head")).stages == (("head", 5, 0.1),)
    assert settings("mobilenetv2_0.35", recipe=recipe).stages == (("all", 5, 0.1),)
    assert settings("mobilenetv2_0.35", file, recipe=recipe, epochs=1).stages == (("head", 1, 0.1),)


def test_weights_that_are_not_there_are_refused(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"'cancernet', which has no ImageNet weights, got 'imagenet'"):
        settings(weights="imagenet")
    with pytest.raises(WeightsError, match=r"weights: expected a file of weights that exists, got '.*\. Correct"):
        settings(weights=tmp_path / "none.keras")


def test_parameters_replace_those_of_the_recipe():
    changes = {"batch_size": 8, "schedule": "cosine", "augmentation": None, "epochs": 9}
    own = settings(epochs=3, learning_rate=0.5, recipe=changes).recipe
    assert (own.epochs, own.batch_size, own.learning_rate, own.schedule) == (3, 8, 0.5, "cosine")
    assert own.optimizer == ARCHITECTURES["cancernet"].recipes["standard"].optimizer
    published = settings(recipe="published").recipe
    assert (published.optimizer, published.learning_rate, published.batch_size, published.epochs) == (
        "adagrad", 0.01, 32, 40,
    )  # fmt: skip
    assert own.augmentation is None
    assert settings().recipe.augmentation is STANDARD
    assert settings(recipe={"augmentation": Augmentation(turns=False)}).recipe.augmentation.turns is False


def test_seeds_of_every_kind():
    assert settings(random_state=7).seed == 7
    assert settings(random_state=np.random.default_rng(3)).seed == settings(random_state=np.random.default_rng(3)).seed
    assert settings(random_state=np.random.RandomState(3)).seed == settings(random_state=np.random.RandomState(3)).seed
    assert settings(random_state=None).seed != settings(random_state=None).seed
    assert settings(device="gpu").device == "gpu:0"


def test_patients_are_asked_for():
    X = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(GroupLeakageError, match=r"expected groups, the patient of each patch.*validation_fraction=0"):
        CNNClassifier().fit(X, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("y", "message"),
    [([0, 1, 0], "one label for each of 4 images, got 3"), ([1, 1, 1, 1], r"two classes or more, got \[1\]")],
)
def test_labels_that_do_not_fit_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier().fit(np.zeros((4, 8, 8, 3), dtype=np.uint8), y, groups=list("abab"))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("balance", "class_weight: .*Did you mean 'balanced'"),
        ([1, 2], r"class_weight: expected 'balanced', a mapping or None, got \[1, 2\]"),
        ({2: 1.0}, r"class_weight: expected labels of y, \[0, 1\], got 2"),
        ({1: 0}, r"class_weight\[1\]: expected a number above 0, got 0"),
    ],
)
def test_class_weights_that_do_not_fit_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(class_weight=weight, validation_fraction=0).fit(np.zeros((2, 8, 8, 3), dtype=np.uint8), [0, 1])


def test_every_network_has_what_it_needs():
    for name, record in ARCHITECTURES.items():
        assert find_architecture(name) is record
        assert "standard" in record.recipes
        assert (record.encoder is not None) == bool(record.last_blocks) == ("standard" in record.fine_tuning)
        assert record.input_size >= record.minimum_size
    assert {"mobilenetv2", "mobilenetv2_0.35", "mobilenet", "resnet50", "densenet201"} <= set(ARCHITECTURES)
