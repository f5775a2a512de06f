"""A network as a classifier: what it learns, whom it holds out, what it keeps, and that it comes back as it was."""

import logging
import pickle
import threading
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold

from histofeat import CNNClassifier, IDCPipeline, PatchError
from histofeat.exceptions import WeightsError
from histofeat.networks import (
    Augmentation,
    Recipe,
    _architectures as architectures,
    _classifier as classifier,
    _training as training,
    import_keras,
)
from histofeat.networks._recipes import CANCERNET
from histofeat.networks._training import Task, Training
from histofeat.networks.pretrained._network import _quiet

pytest.importorskip("keras", reason="Keras is not installed: no network to train")
SIDE, N_PATIENTS, PER_PATIENT = 12, 10, 16
RECIPE = Recipe(learning_rate=0.02, batch_size=16, epochs=4)
CONSTANT = replace(RECIPE, schedule="constant")


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    """CancerNet with one convolution of eight channels in the place of six, for the time of this file."""

    def small(keras, pixels):
        layers = keras.layers
        x = layers.Rescaling(1 / 255, dtype="float32")(pixels)
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(x))
        return layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(x))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures._OWN, "cancernet", small)
        yield


def make_data(n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    n = N_PATIENTS * PER_PATIENT
    codes = rng.integers(0, n_classes, n)
    tint = np.array([[0, 0, 0], [35, -25, 0], [-30, 20, 30]])[codes]
    pixels = rng.normal(140, 35, (n, SIDE, SIDE, 3)) + tint[:, None, None]
    return np.clip(pixels, 0, 255).astype(np.uint8), codes, np.arange(n) % N_PATIENTS


X, CODES, PATIENTS = make_data()


def make(**params):
    settings = {"recipe": RECIPE, "input_size": SIDE, "validation_fraction": 0.3} | params
    return CNNClassifier("cancernet", **settings)


@pytest.fixture(scope="module")
def fitted():
    return make().fit(X, CODES, groups=PATIENTS)


def losses(model):
    return {name: values for name, values in model.history_.items() if name != "seconds"}


def test_a_problem_of_two_colours_is_learnt(fitted):
    fresh, codes, _ = make_data(seed=1)
    assert roc_auc_score(codes, fitted.predict_proba(fresh)[:, 1]) > 0.97
    assert (fitted.predict(fresh) == codes).mean() > 0.9


def test_labels_are_never_of_help(fitted):
    rng = np.random.default_rng(0)
    noise = make(epochs=2).fit(X, rng.permutation(CODES), groups=PATIENTS)
    assert noise.history_["val_roc_auc"][-1] < 0.75 < fitted.history_["val_roc_auc"][-1]


def test_history_has_one_entry_an_epoch(fitted):
    assert {len(values) for values in fitted.history_.values()} == {RECIPE.epochs}
    assert set(fitted.history_) == {
        "loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc", "learning_rate", "seconds",
    }  # fmt: skip
    assert fitted.history_["loss"][-1] < fitted.history_["loss"][0]
    assert max(fitted.history_["learning_rate"]) <= RECIPE.learning_rate
    assert fitted.history_["learning_rate"][-1] < fitted.history_["learning_rate"][1]


def test_validation_is_of_the_kept_network_on_whole_patients(fitted):
    rows = fitted.validation_rows_
    held = set(PATIENTS[rows])
    assert rows.dtype == np.int64
    assert len(held) == 3
    assert sorted(rows) == [row for row in range(len(X)) if PATIENTS[row] in held]
    assert np.allclose(fitted.validation_proba_, fitted.predict_proba(X[rows]), atol=1e-6)
    kept = fitted.best_epoch_ - 1
    assert fitted.history_["val_roc_auc"][kept] == max(fitted.history_["val_roc_auc"])
    proba = fitted.validation_proba_
    assert fitted.history_["val_roc_auc"][kept] == pytest.approx(roc_auc_score(CODES[rows], proba[:, 1]))
    assert fitted.history_["val_loss"][kept] == pytest.approx(log_loss(CODES[rows], proba), rel=1e-4)
    assert fitted.history_["val_accuracy"][kept] == pytest.approx((proba.argmax(axis=1) == CODES[rows]).mean())
    assert f"epoch {fitted.best_epoch_} of 4 is kept, that of the highest ROC-AUC on 3 patients" in fitted.notes_[0]


def test_held_out_patches_do_not_teach(fitted):
    """The same network comes of other pixels and labels in the place of the held-out ones."""
    rows, other, codes = fitted.validation_rows_, X.copy(), CODES.copy()
    other[rows] = 255 - other[rows]
    twin = make(recipe=CONSTANT, epochs=1).fit(other, codes, groups=PATIENTS)
    plain = make(recipe=CONSTANT, epochs=1).fit(X, CODES, groups=PATIENTS)
    assert twin.validation_rows_.tolist() == rows.tolist()
    assert twin.history_["val_loss"] != plain.history_["val_loss"]
    assert all(np.array_equal(a, b) for a, b in zip(twin.weights_, plain.weights_, strict=True))


def test_the_same_seed_gives_the_same_network(fitted):
    again = make().fit(X, CODES, groups=PATIENTS)
    other = make(epochs=1, random_state=1).fit(X, CODES, groups=PATIENTS)
    for name, values in losses(fitted).items():
        assert np.allclose(values, losses(again)[name], rtol=1e-4), name
    assert max(np.abs(a - b).max() for a, b in zip(fitted.weights_, again.weights_, strict=True)) < 1e-3
    assert other.history_["loss"][0] != fitted.history_["loss"][0]


def test_threads_do_not_change_the_network():
    one, three = (make(epochs=1, n_jobs=n).fit(X, CODES, groups=PATIENTS) for n in (1, 3))
    assert np.allclose(losses(one)["loss"], losses(three)["loss"], rtol=1e-5)


def test_random_state_of_python_and_numpy_stays(fitted):
    import random

    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  the global generator is what is watched
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make(epochs=1).fit(X, CODES, groups=PATIENTS)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_pickle_copy_and_file_give_the_same_probabilities(fitted, tmp_path):
    expected = fitted.predict_proba(X)
    revived = pickle.loads(pickle.dumps(fitted))
    assert "_model" not in vars(revived)
    assert np.array_equal(revived.predict_proba(X), expected)
    path = fitted.save_network(tmp_path / "network.keras")
    loaded = CNNClassifier.load_network(path)
    assert np.array_equal(loaded.predict_proba(X), expected)
    assert loaded.get_params()["recipe"] == RECIPE
    assert loaded.history_ == fitted.history_
    assert np.array_equal(loaded.validation_proba_, fitted.validation_proba_)
    assert (loaded.notes_, loaded.best_epoch_, loaded.patch_side_) == (
        fitted.notes_, fitted.best_epoch_, fitted.patch_side_,
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]
    keras = import_keras()
    with _quiet():
        plain = keras.saving.load_model(path)
        assert np.allclose(plain.predict_on_batch(X), expected, atol=1e-6)


def test_parameters_are_those_of_scikit_learn(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "classes_")
    assert copy.set_params(epochs=9, learning_rate=0.5).epochs == 9
    assert clone(make(recipe={"batch_size": 8})).recipe == {"batch_size": 8}
    assert not clone(fitted).__sklearn_tags__().input_tags.two_d_array


def test_learning_rates_and_recipes_are_searched_over():
    better = {"learning_rate": [0.02], "recipe": [{"batch_size": 16, "augmentation": None}]}
    grid = [{"learning_rate": [1e-6], "recipe": [RECIPE]}, better]
    how = {"cv": GroupKFold(2), "scoring": "roc_auc", "error_score": "raise", "refit": False}
    search = GridSearchCV(make(epochs=2, validation_fraction=0), grid, **how)
    search.fit(X, CODES, groups=PATIENTS)
    assert search.best_params_["learning_rate"] == 0.02
    pipeline = IDCPipeline(features="pixels", head=make()).set_params(head__learning_rate=0.5, head__epochs=1)
    assert (pipeline.head.learning_rate, pipeline.head.epochs) == (0.5, 1)
    named = IDCPipeline(features="pixels", head="cancernet").set_params(head__recipe={"batch_size": 8})
    assert clone(named).make_head().classifier.recipe == {"batch_size": 8}


@pytest.mark.parametrize("recipe", [RECIPE, {"batch_size": 16, "augmentation": Augmentation(turns=False)}])
def test_a_file_keeps_the_recipe_as_it_was_given(recipe, tmp_path):
    model = make(recipe=recipe, epochs=1).fit(X, CODES, groups=PATIENTS)
    loaded = CNNClassifier.load_network(model.save_network(tmp_path / "network.keras"))
    assert loaded.get_params() == model.get_params()


def test_views_are_the_mean_over_flips_and_turns(fitted):
    one, eight = fitted, clone(fitted).set_params(views=8)
    eight.__dict__.update({name: value for name, value in vars(fitted).items() if name.endswith("_")})
    eight._built_as = fitted._built_as
    turned = [np.rot90(X, turn, (1, 2))[:, :, ::step] for turn in range(4) for step in (1, -1)]
    expected = np.mean([one.predict_proba(np.ascontiguousarray(view)) for view in turned], axis=0)
    assert np.allclose(eight.predict_proba(X), expected, atol=1e-6)
    assert not np.allclose(eight.predict_proba(X), one.predict_proba(X), atol=1e-4)


def test_validation_probabilities_have_the_views_of_prediction():
    eight = make(epochs=1, views=8).fit(X, CODES, groups=PATIENTS)
    assert np.allclose(eight.validation_proba_, eight.predict_proba(X[eight.validation_rows_]), atol=1e-6)


def test_three_classes_by_name():
    pixels, codes, patients = make_data(n_classes=3)
    names = np.array(["ductal", "adenosis", "mucinous"])[codes]
    model = make().fit(pixels, names, groups=[f"p{patient}" for patient in patients])
    assert model.classes_.tolist() == ["adenosis", "ductal", "mucinous"]
    proba = model.predict_proba(pixels)
    assert proba.shape == (len(pixels), 3)
    assert np.allclose(proba.sum(axis=1), 1)
    assert (model.predict(pixels) == names).mean() > 0.8
    rows, kept = model.validation_rows_, model.best_epoch_ - 1
    areas = roc_auc_score(names[rows], model.validation_proba_, multi_class="ovr")
    assert model.history_["val_roc_auc"][kept] == pytest.approx(areas)


def test_without_patients_the_last_epoch_is_kept():
    model = make(validation_fraction=0, epochs=2).fit(X, CODES)
    assert model.best_epoch_ == 2
    assert model.validation_rows_.shape == (0,)
    assert model.validation_proba_.shape == (0, 2)
    assert set(model.history_) == {"loss", "accuracy", "learning_rate", "seconds"}
    assert "from random weights: the last of 2 epochs is kept" in model.notes_[0]


def test_the_loss_can_choose_the_epoch():
    model = make(recipe=Recipe(learning_rate=0.02, batch_size=16, epochs=3, monitor="loss")).fit(X, CODES, PATIENTS)
    assert model.history_["val_loss"][model.best_epoch_ - 1] == min(model.history_["val_loss"])
    assert "lowest loss" in model.notes_[0]


def test_patience_ends_a_training_that_gets_no_better():
    noise = np.random.default_rng(0).permutation(CODES)
    model = make(recipe=replace(CONSTANT, epochs=40, patience=2)).fit(X, noise, groups=PATIENTS)
    epochs = len(model.history_["loss"])
    assert epochs < 40
    assert epochs == model.best_epoch_ + 2


def test_weights_of_classes_shift_what_is_predicted():
    noise = np.random.default_rng(0).permutation(CODES)
    shares = [
        make(recipe=CONSTANT, class_weight=weight, validation_fraction=0).fit(X, noise).predict_proba(X)[:, 1].mean()
        for weight in ({0: 1, 1: 8}, {0: 8, 1: 1})
    ]
    assert shares[0] > 0.6 > 0.4 > shares[1]


def test_balanced_weights_count_the_patches_that_are_learnt_from(monkeypatch):
    seen = []
    monkeypatch.setattr(classifier, "Training", lambda settings, task, *a, **k: seen.append(task) or (_ for _ in ()))
    with pytest.raises(AttributeError):
        make(class_weight="balanced").fit(X, CODES, groups=PATIENTS)
    (task,) = seen
    counts = np.bincount(CODES[task.training])
    assert np.allclose(task.weights, len(task.training) / (2 * counts))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad"])
def test_every_optimizer_learns_and_averages(optimizer):
    rate = {"adam": 0.02, "sgd": 0.05, "adagrad": 0.1}[optimizer]
    recipe = Recipe(optimizer, learning_rate=rate, batch_size=16, epochs=3, averaging=0.9)
    model = make(recipe=recipe).fit(X, CODES, groups=PATIENTS)
    assert model.history_["val_roc_auc"][-1] > 0.9


def test_a_loss_that_is_no_number_ends_the_fit():
    recipe = replace(CANCERNET["published"], schedule="constant", epochs=3)
    with pytest.raises(ValueError, match=r"learning_rate: expected a loss that stays finite, got nan in epoch \d"):
        make(learning_rate=1e30, recipe=recipe).fit(X, CODES, groups=PATIENTS)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches")
    paths = [folder / f"{row}.png" for row in range(len(X))]
    for path, patch in zip(paths, X, strict=True):
        cv2.imwrite(str(path), patch[..., ::-1])
    return paths


def test_files_and_arrays_give_the_same_network(files, fitted):
    model = make(n_jobs=2).fit(files, CODES, groups=PATIENTS)
    assert np.allclose(losses(model)["loss"], losses(fitted)["loss"], rtol=1e-4)
    assert np.allclose(model.predict_proba(files), fitted.predict_proba(X), atol=1e-3)


def test_unreadable_images_end_a_fit_or_are_left_out(files, tmp_path, fitted):
    held = int(fitted.validation_rows_[0])
    taught = next(row for row in range(len(X)) if row not in fitted.validation_rows_ and row > 3)
    broken = list(files)
    for row in (held, taught):
        broken[row] = tmp_path / f"broken-{row}.png"
        broken[row].write_bytes(b"")
    with pytest.raises(PatchError, match=r"broken-\d+\.png"):
        make(epochs=1).fit(broken, CODES, groups=PATIENTS)
    model = make(recipe=replace(RECIPE, epochs=2, on_unreadable="skip")).fit(broken, CODES, groups=PATIENTS)
    assert model.skipped_ == tuple(str(broken[row]) for row in sorted((held, taught)))
    assert "2 images could not be read and were left out: " in model.notes_[1]
    assert held not in model.validation_rows_
    assert len(model.validation_rows_) == len(fitted.validation_rows_) - 1 == len(model.validation_proba_)
    assert np.isfinite(model.validation_proba_).all()
    with pytest.raises(PatchError, match=r"broken-\d+\.png"):
        model.predict_proba(broken)


def test_held_out_images_of_which_none_can_be_read_are_an_error(files, tmp_path, fitted):
    broken = [tmp_path / f"{row}.png" if row in fitted.validation_rows_ else file for row, file in enumerate(files)]
    with pytest.raises(ValueError, match=r"on_unreadable: expected held-out images that can be read, got 48 that"):
        make(recipe=replace(RECIPE, epochs=1, on_unreadable="skip")).fit(broken, CODES, groups=PATIENTS)


def test_progress_is_told_after_each_epoch():
    told = []
    model = make(epochs=2, progress=lambda *args: told.append(args)).fit(X, CODES, groups=PATIENTS)
    assert [args[:2] for args in told] == [(1, 2), (2, 2)]
    assert [args[2]["val_loss"] for args in told] == model.history_["val_loss"]


def test_fits_in_threads_wait_for_each_other():
    models = [make(epochs=1), make(epochs=1)]
    threads = [threading.Thread(target=model.fit, args=(X, CODES, PATIENTS)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.allclose(models[0].predict_proba(X), models[1].predict_proba(X), atol=1e-4)


def test_training_warns_of_nothing_and_logs_nothing(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            make(epochs=1).fit(X, CODES, groups=PATIENTS).predict_proba(X[:3])
    assert not caplog.records
    assert not logging.getLogger("tensorflow").filters


def test_training_goes_on_from_a_saved_network(fitted, tmp_path):
    path = fitted.save_network(tmp_path / "first.keras")
    on = CNNClassifier(
        "cancernet", path, recipe=RECIPE, input_size=SIDE, epochs=1, learning_rate=1e-6, validation_fraction=0.3
    ).fit(X, CODES, groups=PATIENTS)
    assert on.history_["val_roc_auc"][0] > 0.95
    pixels, codes, patients = make_data(n_classes=3)
    with pytest.raises(WeightsError, match=r"first.keras: expected weights of cancernet with as many classes"):
        CNNClassifier("cancernet", path, input_size=SIDE).fit(pixels, codes, groups=patients)


def test_files_that_are_no_networks_are_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"save_network: expected a path ending in .keras, got '.*\. Rename"):
        fitted.save_network(tmp_path / "network.h5")
    with pytest.raises(WeightsError, match=r"none.keras: expected a saved network, got no such file"):
        CNNClassifier.load_network(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("no archive")
    with pytest.raises(WeightsError, match=r"text.keras: expected a network that CNNClassifier.save_network wrote"):
        CNNClassifier.load_network(tmp_path / "text.keras")


def test_an_epoch_learns_from_every_training_patch_once_but_for_the_last_few(monkeypatch):
    seen = {}

    class Watched(Training):
        def __init__(self, settings, task, reader, **others):
            read = reader.read

            def watched(rows, augmentation=None, seed=None):
                if seed is not None:
                    seen[seed[2:]] = rows
                return read(rows, augmentation=augmentation, seed=seed or (0,))

            reader.read = watched
            super().__init__(settings, task, reader, **others)

    monkeypatch.setattr(classifier, "Training", Watched)
    make(recipe=replace(RECIPE, epochs=2, batch_size=30)).fit(X, CODES, groups=PATIENTS)
    assert sorted(seen) == [(epoch, number) for epoch in range(2) for number in range(3)]
    epochs = [np.concatenate([seen[epoch, number] for number in range(3)]) for epoch in range(2)]
    training_rows = set(range(len(X))) - set(make(epochs=1).fit(X, CODES, groups=PATIENTS).validation_rows_.tolist())
    for rows in epochs:
        assert len(rows) == len(set(rows)) == 90
        assert set(rows) <= training_rows
    assert epochs[0].tolist() != epochs[1].tolist()


def test_parameters_changed_after_a_fit_do_not_change_the_network(fitted):
    revived = pickle.loads(pickle.dumps(fitted)).set_params(architecture="resnet_small", input_size=99)
    assert np.array_equal(revived.predict_proba(X[:4]), fitted.predict_proba(X[:4]))


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"device: expected a GPU that Keras's backend sees, got 'gpu:99'"):
        make(device="gpu:99").fit(X, CODES, groups=PATIENTS)
    assert make(device="cpu", epochs=1).fit(X, CODES, groups=PATIENTS).predict_proba(X[:2]).shape == (2, 2)


def test_a_task_knows_its_classes():
    task = Task(CODES, np.ones(2, dtype=np.float32), np.arange(3), np.arange(0))
    assert task.n_classes == 2


def test_areas_of_classes_that_are_missing_are_left_out():
    codes, proba = np.array([0, 1, 1]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    assert training._roc_auc(codes, proba) == 1.0
    assert np.isnan(training._roc_auc(np.array([1, 1]), np.array([[0.1, 0.9], [0.4, 0.6]])))
