"""Train a network: Keras fits it; a callback validates, keeps the best weights and writes the checkpoint."""

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from histofeat.exceptions import PatchError
from histofeat.networks._architectures import build, unfreeze
from histofeat.networks._batches import AHEAD, PatchReader, on_device, probabilities
from histofeat.networks._network_files import State, read_state, write_state
from histofeat.networks._recipes import forget_sooner, learning_rates, make_optimizer
from histofeat.networks._settings import Settings
from histofeat.networks.pretrained._network import _quiet, import_keras

_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Task:
    """Classes, class weights and rows of a training.

    Attributes
    ----------
    codes : ndarray of shape (n,), int64
        Class of each image, from 0.
    weights : ndarray of shape (k,), float32
        Weight of each class in the loss.
    training, held_out : ndarray of int64
        Rows of the images to train on, and of those to validate on.
    """

    codes: np.ndarray
    weights: np.ndarray
    training: np.ndarray
    held_out: np.ndarray

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.weights)


@dataclass(eq=False)
class Training:
    """Train one network with Keras's `fit`, one call for each stage.

    Parameters
    ----------
    settings : Settings
    task : Task
    reader : PatchReader
    folder : Path or None
        Where its state is kept after each epoch.
    identity : mapping
        What identifies the state.
    progress : callable or None
        Called as ``progress(done, total, values)`` after each epoch.
    """

    settings: Settings
    task: Task
    reader: PatchReader
    folder: Path | None
    identity: Mapping[str, object]
    progress: Callable[[int, int, dict[str, float]], None] | None

    def run(self) -> tuple[object, State]:
        """Train to the end, from the checkpoint where there is one.

        Returns
        -------
        model : keras.Model
            With the kept weights, not compiled.
        state : State

        Raises
        ------
        CheckpointError
            If the checkpoint belongs to another training.
        ValueError
            If the loss is no longer a number.
        """
        self._keras = import_keras()
        self.state = (None if self.folder is None else read_state(self.folder, self.identity)) or State()
        settings = self.settings
        self.reader.unreadable.update(self.state.unreadable)
        with on_device(settings.device):
            self._model = build(
                settings.architecture,
                self.task.n_classes,
                input_size=settings.input_size,
                seed=settings.seed,
                precision=settings.recipe.precision,
                weights=settings.weights,
                fine_tuned=settings.fine_tune is not None,
            )
            if not self.state.finished:
                with self._own_randomness():
                    self._fit()
            with _quiet():
                self._model.set_weights(self.state.kept)
                return self._keras.Model(self._model.input, self._model.output, name=self._model.name), self.state

    def _fit(self) -> None:
        """Fit one stage after another; a stage that the checkpoint has completed is only entered."""
        end, settings, state = 0, self.settings, self.state
        with ThreadPoolExecutor(self.reader.n_threads) as pool:
            batches = make_batches(settings, self.task, self.reader, pool)
            callback = self._keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: self._begin_epoch(batches, epoch),
                on_epoch_end=lambda epoch, logs: self._end_epoch(logs),
            )
            for number, (part, epochs, peak) in enumerate(settings.stages):
                self._enter(part, epochs, peak, len(batches))
                self._first, end, self._is_last = end, end + epochs, number == len(settings.stages) - 1
                if self._first < state.epoch <= end:
                    self._assign(self._model.variables, state.variables)
                    self._assign(self._model.optimizer.variables, state.optimizer)
                if state.epoch < end:
                    batches.begin(state.epoch)
                    self._call_fit(batches, epochs=end, callbacks=[callback])

    def _call_fit(self, batches, **options) -> None:
        try:
            self._model.fit(batches, initial_epoch=self.state.epoch, shuffle=False, verbose=0, **options)
        finally:
            if batches.failure is not None:  # TensorFlow raises an error of its own in its place
                raise batches.failure
        if self.settings.recipe.averaging:
            # Keras ends with the averages in the place of the last weights, from which the next stage goes on.
            self._assign(self._model.variables, self.state.variables)

    def _enter(self, part: str, epochs: int, peak: float, n_steps: int) -> None:
        """Let the layers of a stage learn, with a new optimizer and the stage's own learning rates."""
        recipe, model = self.settings.recipe, self._model
        unfreeze(model, self.settings.architecture, part, fine_tuned=self.settings.fine_tune is not None)
        rates = learning_rates(recipe.schedule, peak, epochs * n_steps, warmup=recipe.warmup, n_epochs=epochs)
        self._rates = rates.reshape(epochs, n_steps).max(axis=1)
        loss = self._keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        # An object, whose variables exist already: by name they would be made in the first step, then traced twice.
        accuracy = self._keras.metrics.CategoricalAccuracy(name="accuracy")
        # Compiling by XLA takes minutes on a CPU and gains nothing there; JAX knows no other way.
        jit = "auto" if self._keras.config.backend() == "jax" else False
        with _quiet():
            forget_sooner(model, len(rates))
            model.compile(make_optimizer(recipe, rates, len(rates)), loss, metrics=[accuracy], jit_compile=jit)
            model.optimizer.build(model.trainable_variables)
        if self._keras.config.backend() == "tensorflow":
            _know_shapes(model)

    def _begin_epoch(self, batches, epoch: int) -> None:
        batches.begin(epoch)
        if self._keras.config.backend() == "torch":
            import torch

            # Keras's dropout draws from the global generator there, whatever seed its layer has.
            torch.manual_seed(int(np.random.SeedSequence((self.settings.seed, 3, epoch)).generate_state(1)[0]))
        self._started = time.perf_counter()

    def _own_randomness(self):
        """Put PyTorch's global random state back after the training."""
        if self._keras.config.backend() != "torch":
            return contextlib.nullcontext()
        import torch

        return torch.random.fork_rng()

    def _end_epoch(self, logs: Mapping[str, float]) -> None:
        """Validate, keep the weights if they are the best, and write the state."""
        state, recipe = self.state, self.settings.recipe
        rate = float(self._rates[state.epoch - self._first])
        values = {name: float(logs[name]) for name in ("loss", "accuracy")}
        if not np.isfinite(values["loss"]):
            raise ValueError(
                f"CNNClassifier.learning_rate: expected a loss that stays finite, got {values['loss']} in epoch "
                f"{state.epoch + 1}. Give less than {rate:.3g}."
            )
        if recipe.averaging or self.folder is not None:
            state.variables = self._copies(self._model.variables)
        with self._averaged():
            if len(self.task.held_out):
                values |= self._validate()
            if self._is_better(values):
                state.best_epoch = state.epoch
                with _quiet():
                    state.kept = [np.array(array) for array in self._model.get_weights()]
        values |= {"learning_rate": rate, "seconds": time.perf_counter() - self._started}
        for name, value in values.items():
            state.history.setdefault(name, []).append(value)
        state.epoch += 1
        state.finished = state.epoch == recipe.epochs or self._is_stuck()
        self._model.stop_training = state.finished
        state.unreadable = sorted(self.reader.unreadable)
        if self.folder is not None:
            state.optimizer = self._copies(self._model.optimizer.variables)
            write_state(self.folder, state, self.identity)
        if self.progress is not None:
            self.progress(state.epoch, recipe.epochs, dict(values))

    @contextlib.contextmanager
    def _averaged(self):
        """Replace the weights by their averages inside the context."""
        if not self.settings.recipe.averaging:
            yield
            return
        variables = self._model.trainable_variables
        last = self._copies(variables)
        with _quiet():
            self._model.optimizer.finalize_variable_values(variables)
        # In JAX the weights now are the memory of the averages, which prediction would give away: a copy each.
        self._assign(variables, self._copies(variables))
        try:
            yield
        finally:
            self._assign(variables, last)

    def _copies(self, variables) -> list[np.ndarray]:
        with _quiet():
            return [np.array(self._keras.ops.convert_to_numpy(variable)) for variable in variables]

    @staticmethod
    def _assign(variables, values) -> None:
        with _quiet():
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _validate(self) -> dict[str, float]:
        task = self.task
        proba, readable = probabilities(self._model, self.reader, task.held_out)
        rows, proba = task.held_out[readable], proba[readable]
        codes = task.codes[rows]
        weights = task.weights[codes].astype(np.float64)
        if not len(rows):
            raise ValueError(
                f"Recipe.on_unreadable: expected held-out images that can be read, got {len(task.held_out)} "
                "that cannot. Correct the files."
            )
        likelihood = np.clip(proba[np.arange(len(rows)), codes], _LEAST, None)
        return {
            "val_loss": float(-(weights * np.log(likelihood)).sum() / max(weights.sum(), _LEAST)),
            "val_accuracy": float((proba.argmax(axis=1) == codes).mean()),
            "val_roc_auc": _roc_auc(codes, proba),
        }

    def _is_better(self, values) -> bool:
        """Whether this epoch is to be kept; without held-out patients every epoch is, so that the last one stays."""
        best, history = self.state.best_epoch, self.state.history
        if best < 0 or "val_loss" not in values:
            return True
        now, then = ((v["val_roc_auc"], -v["val_loss"]) for v in (values, {n: s[best] for n, s in history.items()}))
        if self.settings.recipe.monitor == "loss" or np.isnan(now[0]):
            return now[1] > then[1]
        return now > then  # of two equal areas, that of the lower loss

    def _is_stuck(self) -> bool:
        patience = self.settings.recipe.patience
        if patience is None or not self._is_last:
            return False
        return self.state.epoch - 1 - max(self.state.best_epoch, self._first) >= patience


def _know_shapes(model) -> None:
    """Let TensorFlow compile the training step for tensors of a known shape.

    Inside a graph that takes the batches from an iterator it does not know their shape, and computes the same step with
    other roundings: it makes a division by a constant a multiplication only where it knows the constant.
    """
    model.make_train_function()
    step = model.train_function
    model.train_function = lambda iterator: step(iter([next(iterator)]))


def make_batches(settings: Settings, task: Task, reader: PatchReader, pool: ThreadPoolExecutor):
    """Make the training batches as a ``keras.utils.PyDataset``.

    A batch is (pixels, one-hot labels, weights), and depends on its epoch and number alone. An epoch takes the patches
    in a new random order; those that do not fill the last batch wait for the next epoch.
    """
    eye = np.eye(task.n_classes, dtype=np.float32)
    size = min(settings.recipe.batch_size, len(task.training))

    class Batches(import_keras().utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.failure, self.waiting = None, {}

        def __len__(self):
            return len(task.training) // size

        def begin(self, epoch):
            self.order = np.random.default_rng((settings.seed, 1, epoch)).permutation(task.training)
            self.epoch = epoch

        def submit(self, number):
            rows = self.order[number * size : (number + 1) * size]
            seed = (settings.seed, 2, self.epoch, number)
            return pool.submit(reader.read, rows, augmentation=settings.recipe.augmentation, seed=seed)

        def __getitem__(self, number):
            future = self.waiting.pop((self.epoch, number), None) or self.submit(number)
            for ahead in range(number + 1, min(number + 1 + AHEAD, len(self))):
                if (self.epoch, ahead) not in self.waiting:
                    self.waiting[self.epoch, ahead] = self.submit(ahead)
            try:
                batch = future.result()
            except PatchError as error:
                self.failure = error
                raise
            codes = task.codes[batch.rows]
            if batch.readable.any() and not batch.readable.all():
                # The shape stays: readable patches stand in for the others, at no weight.
                stand_in = np.resize(np.flatnonzero(batch.readable), len(codes))
                batch.pixels[~batch.readable] = batch.pixels[stand_in[~batch.readable]]
            return batch.pixels, eye[codes], task.weights[codes] * batch.readable

    return Batches()


def _roc_auc(codes, proba) -> float:
    """Area under the curve; of more than two classes the mean over them of each against the others."""
    classes = (1,) if proba.shape[1] == 2 else range(proba.shape[1])
    areas = [roc_auc_score(codes == k, proba[:, k]) for k in classes if 0 < (codes == k).mean() < 1]
    return float(np.mean(areas)) if areas else float("nan")
