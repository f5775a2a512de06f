"""A network on patches as a scikit-learn classifier: trained end to end, or fine-tuned from pretrained weights."""

from __future__ import annotations

import threading

import numpy as np

from histofeat.images import as_images
from histofeat.networks.batches import usual_side
from histofeat.networks.fitted import FittedNetwork
from histofeat.networks.prediction import on_device, probabilities
from histofeat.networks.preparation import check_labels, find_checkpoint, make_task, notes_of
from histofeat.networks.settings import resolve
from histofeat.networks.training import Task, Training

__all__ = ["CNNClassifier"]

#: One network is trained at a time: two would share the cores, and Keras takes its settings from the process.
_TRAINING = threading.Lock()


class CNNClassifier(FittedNetwork):
    """A convolutional network on patches.

    Parameters
    ----------
    architecture : str, default="cancernet"
        A key of `histofeat.networks.ARCHITECTURES`: "cancernet", "resnet_small" and "alexnet", which are trained
        from random weights, or a network of ``keras.applications`` such as "mobilenetv2_0.35", "resnet50" and
        "densenet201".
    weights : {"imagenet"}, path or None, default=None
        Where training starts. For a network of ``keras.applications``, "imagenet" or the file of a base without its
        classification layer: it is fine-tuned in two stages. For the others the file of a saved network. None is
        random weights, trained end to end.
    recipe : {"standard", "published"} or Recipe, default="standard"
        How it is trained; "published" is for "cancernet" alone.
    input_size : int, optional
        Side in px to which patches are brought; by default the architecture's, 48 for "cancernet".
    epochs, batch_size, learning_rate, schedule : optional
        In place of the recipe's; schedules are "one_cycle", "cosine", "constant" and "inverse_time".
    class_weight : {"balanced"}, mapping of label to weight, or None, default=None
        Weights of the classes in the loss, and in the validation loss.
    augmentation : {"standard"}, Augmentation or None, default="standard"
        What happens to training patches.
    validation_fraction : float in [0, 1), default=0.15
        Part of the patients that is held out of the training side to choose the kept epoch; 0 keeps the last epoch.
    patience : int, optional
        Epochs without a better one after which training stops, in the last stage; by default it runs to its end.
    fine_tune : {"head", "last_blocks", "all"}, default="last_blocks"
        What learns in the second stage from pretrained weights; with "head" there is none.
    views : {1, 8}, default=1
        Views of a patch that `predict_proba` averages: the patch as it is, or its flips and quarter turns.
    checkpoint : path, optional
        Folder that holds the state of training after each epoch. A fit that finds its own state there goes on from it,
        or ends at once; any other state is refused and left as it is. ``{fit}`` in the path becomes a hash of data
        and parameters, so that the folds of an evaluation keep one folder each.
    on_unreadable : {"error", "skip"}, default="error"
        What an image that cannot be read does to a fit: it ends it, or is left out and counted. Prediction always
        raises.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the layers.
    device : str, optional
        "cpu", "gpu" or "gpu:1"; by default what Keras chooses.
    n_jobs : int, optional
        Threads that read and augment; None is 1, -1 all cores. The network has the threads of Keras's backend.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the weights, the order, the augmentation, dropout and the patients held out.
    progress : callable, optional
        Called as ``progress(done, total, values)`` after each epoch, with its number, the number of all and a dict of
        what `history_` gained.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    history_ : dict of str to list of float
        One entry an epoch: "loss" and "accuracy" of the training patches as they were learnt from, "val_loss",
        "val_accuracy" and "val_roc_auc" of the held-out ones (absent without them), the highest "learning_rate", and
        "seconds".
    best_epoch_ : int
        Number of the kept epoch, from 1.
    validation_rows_ : ndarray of shape (m,), int64
        Rows of X whose patients were held out.
    validation_proba_ : ndarray of shape (m, k), float64
        What the kept network says of them, by `views`.
    skipped_ : tuple of str
        Names of images that could not be read.
    notes_ : tuple of str
        Sentences for a report.
    input_size_ : int
        Side of the network's input in px.
    patch_side_ : int
        Longer side of most training patches in px: smaller ones are mirrored out to it.
    weights_ : list of ndarray
        The weights, in Keras's order.

    Raises
    ------
    ValueError
        If a parameter is unknown or out of range, or a class has too few patients to be held out.
    GroupLeakageError, WeightsError
        If patients are to be held out and `groups` is None, or there are no such weights.
    CheckpointError, PatchError
        If `checkpoint` holds the state of another training, or an image cannot be read.

    Notes
    -----
    Kept is the epoch with the highest ROC-AUC on the held-out patients, or by the recipe's ``monitor`` with the lowest
    loss; of the recipe's averaged weights where it averages. The held-out patients are never learnt from, but choose
    the epoch: their scores are a little too good, and no result is to be reported on them.

    Patches are brought to the network's input by `histofeat.networks.fit_patch`. An epoch takes its patches in
    a new random order; those that do not fill the last batch wait for the next epoch.

    The same seed and data give the same batches, the same held-out patients and the same first weights everywhere, and
    on one machine the same network within rounding: threads of the backend may add up in another order.

    Examples
    --------
    >>> CNNClassifier("resnet50", weights="imagenet", input_size=128).get_params()["fine_tune"]
    'last_blocks'
    """

    def __init__(
        self,
        architecture="cancernet",
        weights=None,
        *,
        recipe="standard",
        input_size=None,
        epochs=None,
        batch_size=None,
        learning_rate=None,
        schedule=None,
        class_weight=None,
        augmentation="standard",
        validation_fraction=0.15,
        patience=None,
        fine_tune="last_blocks",
        views=1,
        checkpoint=None,
        on_unreadable="error",
        precision="float32",
        device=None,
        n_jobs=None,
        random_state=0,
        progress=None,
    ):
        self.architecture, self.weights = architecture, weights
        self.recipe = recipe
        self.input_size = input_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.class_weight = class_weight
        self.augmentation = augmentation
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.fine_tune = fine_tune
        self.views = views
        self.checkpoint = checkpoint
        self.on_unreadable = on_unreadable
        self.precision = precision
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.progress = progress

    def fit(self, X, y, groups=None):
        """Train the network.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, DataFrame with ``path``, or Images
            The patches.
        y : array-like of shape (n,)
            Labels, two classes or more.
        groups : array-like of shape (n,)
            Patients; None only with ``validation_fraction=0``.

        Returns
        -------
        self : CNNClassifier
        """
        settings = resolve(self.get_params(deep=False))
        images = as_images(X)
        labels = check_labels(y, len(images))
        task = make_task(
            settings, labels, groups, validation_fraction=self.validation_fraction, class_weight=self.class_weight
        )
        side = usual_side(images, task.training)
        folder, identity = find_checkpoint(self.checkpoint, settings, task, images, labels, groups)
        reader = self._reader(images, settings.input_size, side, skip=self.on_unreadable == "skip")
        training = Training(settings, task, reader, folder=folder, identity=identity, progress=self.progress)
        with _TRAINING:
            model, state = training.run()
            with on_device(settings.device):
                held_out, proba = _judge(model, reader, task, self.views)
        self.classes_ = np.unique(labels)
        self.input_size_, self.patch_side_ = settings.input_size, side
        self.history_, self.best_epoch_ = state.history, state.best_epoch + 1
        self.weights_ = state.kept
        self.validation_rows_, self.validation_proba_ = held_out, proba
        self.skipped_ = tuple(images.name(row) for row in sorted(reader.unreadable))
        self.notes_ = notes_of(settings, task, state, self.skipped_, groups)
        self._built_as = settings.built_as
        self._model = model
        return self


def _judge(model, reader, task: Task, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows held out that can be read, and what the kept network says of them."""
    if not len(task.held_out):
        return task.held_out, np.empty((0, task.n_classes))
    proba, readable = probabilities(model, reader, task.held_out, views=views)
    return task.held_out[readable], proba[readable]
