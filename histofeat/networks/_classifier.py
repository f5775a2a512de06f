"""A network on patches as a scikit-learn classifier, trained end to end or fine-tuned from pretrained weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from histofeat.exceptions import check_name
from histofeat.images import VIEW_COUNTS, Images, as_images, image_input_tags
from histofeat.networks._architectures import BUILDING, rebuild
from histofeat.networks._batches import PatchReader, on_device, probabilities, usual_side
from histofeat.networks._network_files import read_network, write_network
from histofeat.networks._preparation import check_labels, find_checkpoint, make_task, notes_of
from histofeat.networks._recipes import Recipe
from histofeat.networks._settings import device_of, resolve
from histofeat.networks._training import Training

#: One network is trained at a time: two would share the cores, and Keras takes its settings from the process.
_TRAINING = threading.Lock()


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A convolutional network on patches.

    Parameters
    ----------
    architecture : str, default="cancernet"
        A key of `histofeat.networks.ARCHITECTURES`: "cancernet", "resnet_small" and "alexnet", which are trained
        from random weights; "lite0_small", the network of the encoder `histo`, whose ImageNet weights are in the
        package; or a network of ``keras.applications`` such as "mobilenetv2_0.35", "resnet50" and "densenet201".
    weights : {"imagenet"}, path or None, default=None
        Where training starts. For "lite0_small" and networks of ``keras.applications``, "imagenet" or the file of a
        base without its classification layer: they are fine-tuned, the latter in two stages. For the others the file
        of a saved network. None is random weights, trained end to end.
    recipe : {"standard", "published"}, Recipe, or mapping of str to value, default="standard"
        How the network is trained: batch size, schedule, augmentation, early stopping and more, see
        `histofeat.networks.Recipe`. A mapping replaces values of the standard recipe, as in
        ``{"batch_size": 32, "augmentation": None}``. "published" exists for "cancernet" alone.
    input_size : int, optional
        Side in px to which patches are brought; by default the architecture's, 48 for "cancernet".
    epochs : int, optional
        Number of epochs, in place of the recipe's.
    learning_rate : float, optional
        Highest learning rate, in place of the recipe's.
    class_weight : {"balanced"}, mapping of label to weight, or None, default=None
        Weights of the classes in the loss, and in the validation loss.
    validation_fraction : float in [0, 1), default=0.15
        Fraction of the patients that is held out of the training side to choose the kept epoch; 0 keeps the last epoch.
    views : {1, 8}, default=1
        Views of a patch that `predict_proba` averages: the patch as it is, or its flips and quarter turns.
    checkpoint : path, optional
        Folder that holds the state of training after each epoch. A fit that finds its own state there continues from
        it, or ends at once; any other state is refused and left as it is. ``{fit}`` in the path becomes a hash of data
        and parameters, so that each fold of an evaluation has its own folder.
    device : str, optional
        "cpu", "gpu" or "gpu:1"; by default what Keras chooses.
    n_jobs : int, optional
        Threads that read and augment; None is 1, -1 all cores. The network uses the threads of Keras's backend.
    random_state : int, RandomState, Generator or None, default=0
        Seed of the weights, the order, the augmentation, dropout and the patients held out.
    progress : callable, optional
        Called as ``progress(done, total, values)`` after each epoch, with the number of epochs done and in all, and a
        dict of what `history_` gained.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The labels.
    history_ : dict of str to list of float
        One entry an epoch: "loss" and "accuracy" of the training patches during the epoch, "val_loss",
        "val_accuracy" and "val_roc_auc" of the held-out ones (absent without them), the highest "learning_rate", and
        "seconds".
    best_epoch_ : int
        Number of the kept epoch, from 1.
    validation_rows_ : ndarray of shape (m,), int64
        Rows of X whose patients were held out.
    validation_proba_ : ndarray of shape (m, k), float64
        Their probabilities by the kept network, averaged over `views`.
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
    The epoch with the highest ROC-AUC on the held-out patients is kept, or, with ``monitor="loss"`` in the recipe, the
    one with the lowest loss; a recipe that averages weights validates and keeps the averages. The held-out patients are
    not trained on, but choose the epoch: their scores are a little too good, so do not report results on them.

    Patches are brought to the network's input by `histofeat.networks.fit_patch`. An epoch takes its patches in
    a new random order; those that do not fill the last batch wait for the next epoch.

    The same seed and data give the same batches, the same held-out patients and the same first weights everywhere, and
    on one machine the same network within rounding: threads of the backend may add up in another order.

    Examples
    --------
    >>> CNNClassifier("resnet50", weights="imagenet", recipe={"fine_tune": "all"}).recipe["fine_tune"]
    'all'
    """

    def __init__(
        self,
        architecture: str = "cancernet",
        weights: str | Path | None = None,
        *,
        recipe: str | Recipe | Mapping[str, Any] = "standard",
        input_size: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.15,
        views: int = 1,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        progress: Callable[[int, int, dict[str, float]], None] | None = None,
    ):
        self.architecture = architecture
        self.weights = weights
        self.recipe = recipe
        self.input_size = input_size
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.views = views
        self.checkpoint = checkpoint
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.progress = progress

    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = {"groups": True}  # noqa: RUF012

    def fit(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> CNNClassifier:
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
        reader = self._reader(images, settings.input_size, side, skip=settings.recipe.on_unreadable == "skip")
        training = Training(settings, task, reader, folder=folder, identity=identity, progress=self.progress)
        with _TRAINING:
            model, state = training.run()
            with on_device(settings.device):
                proba, readable = probabilities(model, reader, task.held_out, views=self.views)
        self.classes_: np.ndarray = np.unique(labels)
        self.input_size_: int = settings.input_size
        self.patch_side_: int = side
        self.history_: dict[str, list[float]] = state.history
        self.best_epoch_: int = state.best_epoch + 1
        self.weights_: list[np.ndarray] = state.kept
        self.validation_rows_: np.ndarray = task.held_out[readable]
        self.validation_proba_: np.ndarray = proba[readable]
        self.skipped_: tuple[str, ...] = tuple(images.name(row) for row in sorted(reader.unreadable))
        self.notes_: tuple[str, ...] = notes_of(settings, task, state, self.skipped_, groups)
        self._built_as = settings.built_as
        self._model = model
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of shape (n, k), float64, columns in the order of ``classes_``, rows that add up to 1."""
        check_is_fitted(self)
        check_name("CNNClassifier.views", self.views, VIEW_COUNTS)
        images = as_images(X)
        reader = self._reader(images, self.input_size_, self.patch_side_, skip=False)
        with BUILDING, on_device(device_of(self.device)):
            return probabilities(self._network(), reader, np.arange(len(images)), views=self.views)[0]

    def predict(self, X: Any) -> np.ndarray:
        """Labels of shape (n,): the most probable class."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def save_network(self, path: str | Path) -> Path:
        """Write the fitted network in Keras's own format, with what histofeat needs to read it back beside it.

        Parameters
        ----------
        path : path ending in ``.keras``
            Replaced as a whole if it exists. ``keras.saving.load_model`` reads it too: uint8 patches of
            ``input_size_`` in, probabilities out.

        Returns
        -------
        path : Path
        """
        check_is_fitted(self)
        with BUILDING:
            return write_network(self, self._network(), Path(path))

    @classmethod
    def load_network(cls, path: str | Path) -> CNNClassifier:
        """Read what `save_network` wrote.

        Parameters
        ----------
        path : path

        Returns
        -------
        classifier : CNNClassifier
            With the parameters it had, apart from `checkpoint`, `progress` and the place of `weights`.

        Raises
        ------
        WeightsError
            If the file is damaged, or was not written by `save_network`.
        """
        params, fitted = read_network(Path(path))
        classifier = cls(**params)
        vars(classifier).update(fitted)
        return classifier

    def _reader(self, images: Images, size: int, side: int, *, skip: bool) -> PatchReader:
        n_threads = joblib.effective_n_jobs(self.n_jobs)
        return PatchReader(images, size=size, side=side, n_threads=n_threads, skip_unreadable=skip)

    def _network(self):
        """Give the Keras network, built when it is first needed."""
        if getattr(self, "_model", None) is None:
            self._model = rebuild(self._built_as, len(self.classes_), self.input_size_, self.weights_)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_model"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def __sklearn_tags__(self) -> Tags:
        return image_input_tags(super().__sklearn_tags__(), requires_fit=True)
