"""The training itself: epochs of batches, validation, the kept weights, and the state that a checkpoint holds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from histofeat.networks.batches import PatchReader
from histofeat.networks.builders import build, unfreeze
from histofeat.networks.checkpoint import State, read_state, write_state
from histofeat.networks.prediction import on_device, probabilities
from histofeat.networks.pretrained.network import _quiet, import_keras
from histofeat.networks.recipes import forget_sooner, learning_rates, make_optimizer
from histofeat.networks.settings import Settings

__all__ = ["Task", "Training"]

_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Task:
    """What is learnt.

    Attributes
    ----------
    codes : ndarray of shape (n,), int64
        Class of each image, from 0.
    weights : ndarray of shape (k,), float32
        Weight of each class in the loss.
    training, held_out : ndarray of int64
        Rows of the images to learn from, and of those to validate on.
    """

    codes: np.ndarray
    weights: np.ndarray
    training: np.ndarray
    held_out: np.ndarray

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.weights)


class Training:
    """One network on its way.

    Parameters
    ----------
    settings : Settings
    task : Task
    reader : PatchReader
    folder : Path or None
        Where its state is kept after each epoch.
    identity : mapping
        What the state is known by.
    progress : callable or None
        Called as ``progress(done, total, values)`` after each epoch.
    """

    def __init__(
        self,
        settings: Settings,
        task: Task,
        reader: PatchReader,
        *,
        folder: Path | None,
        identity: Mapping[str, object],
        progress: Callable[[int, int, dict[str, float]], None] | None,
    ):
        self._settings, self._task, self._reader = settings, task, reader
        self._folder, self._identity, self._progress = folder, identity, progress
        self._keras = import_keras()
        self._eye = np.eye(task.n_classes, dtype=np.float32)
        self._stage = -1

    def run(self) -> tuple[object, State]:
        """Train to the end, from the checkpoint where there is one.

        Returns
        -------
        model : keras.Model
            With the kept weights.
        state : State

        Raises
        ------
        CheckpointError
            If the checkpoint belongs to another training.
        ValueError
            If the loss is no longer a number.
        """
        self.state = (None if self._folder is None else read_state(self._folder, self._identity)) or State()
        settings = self._settings
        with on_device(settings.device):
            self._model = build(
                settings.architecture,
                self._task.n_classes,
                input_size=settings.input_size,
                seed=settings.seed,
                precision=settings.precision,
                weights=settings.weights,
                fine_tuned=settings.fine_tune is not None,
            )
            if self.state.epoch and not self.state.finished:
                self._resume()
            self._reader.unreadable.update(self.state.unreadable)
            while not self.state.finished:
                self._epoch()
            with _quiet():
                self._model.set_weights(self.state.kept)
        return self._model, self.state

    def _enter(self, stage: int) -> None:
        """Let the layers of a stage learn, with a fresh optimizer and the stage's own schedule."""
        part, epochs, peak = self._settings.stages[stage]
        recipe = self._settings.recipe
        fine_tuned = self._settings.fine_tune is not None
        unfreeze(self._model, self._settings.architecture, part, fine_tuned=fine_tuned)
        loss = self._keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        # An object, whose variables exist already: by name they would be made in the first step, then traced twice.
        accuracy = self._keras.metrics.CategoricalAccuracy(name="accuracy")
        # Compiling by XLA takes minutes on a CPU and gains nothing there; JAX knows no other way.
        jit = "auto" if self._keras.config.backend() == "jax" else False
        with _quiet():
            forget_sooner(self._model, epochs * self._steps)
            optimizer = make_optimizer(recipe, peak, epochs * self._steps)
            self._model.compile(optimizer, loss, metrics=[accuracy], jit_compile=jit)
            self._model.optimizer.build(self._model.trainable_variables)
        self._rates = learning_rates(
            recipe.schedule, peak, epochs * self._steps, warmup=recipe.warmup, n_epochs=epochs
        ).reshape(epochs, self._steps)
        self._stage = stage

    @property
    def _batch_size(self) -> int:
        return min(self._settings.recipe.batch_size, len(self._task.training))

    @property
    def _steps(self) -> int:
        return len(self._task.training) // self._batch_size

    def _place(self, epoch: int) -> tuple[int, int]:
        """Stage of an epoch and the number of the epoch in it."""
        for stage, (_, epochs, _) in enumerate(self._settings.stages):
            if epoch < epochs:
                return stage, epoch
            epoch -= epochs
        raise IndexError(epoch)

    def _resume(self) -> None:
        stage, _ = self._place(self.state.epoch - 1)
        self._enter(stage)
        self._assign(self._model.variables, self.state.variables)
        self._assign(self._model.optimizer.variables, self.state.optimizer)

    def _epoch(self) -> None:
        """Run one epoch, from its first batch to its checkpoint."""
        state, started = self.state, time.perf_counter()
        stage, place = self._place(state.epoch)
        if stage != self._stage:
            self._enter(stage)
        values = self._learn(self._rates[place])
        with self._averaged():
            if len(self._task.held_out):
                values |= self._validate()
            if self._is_better(values):
                state.best_epoch = state.epoch
                with _quiet():
                    state.kept = [np.array(array) for array in self._model.get_weights()]
        values |= {"learning_rate": float(self._rates[place].max()), "seconds": time.perf_counter() - started}
        for name, value in values.items():
            state.history.setdefault(name, []).append(value)
        state.epoch += 1
        state.finished = state.epoch == self._settings.recipe.epochs or self._is_stuck()
        state.unreadable = sorted(self._reader.unreadable)
        if self._folder is not None:
            self._save()
        if self._progress is not None:
            self._progress(state.epoch, self._settings.recipe.epochs, dict(values))

    def _learn(self, rates: np.ndarray) -> dict[str, float]:
        task, model, settings = self._task, self._model, self._settings
        rng = np.random.default_rng((settings.seed, 1, self.state.epoch))
        order = rng.permutation(task.training)[: self._steps * self._batch_size].reshape(self._steps, -1)
        batches = self._reader.batches(
            order, augmentation=settings.augmentation, seed=(settings.seed, 2, self.state.epoch)
        )
        told = []
        for rate, batch in zip(rates, batches, strict=True):
            if not batch.readable.any():
                continue
            rows, weights = batch.rows, task.weights[task.codes[batch.rows]] * batch.readable
            if not batch.readable.all():
                # The shape stays: readable patches stand in for the others, at no weight.
                stand_in = np.resize(np.flatnonzero(batch.readable), len(rows))
                batch.pixels[~batch.readable] = batch.pixels[stand_in[~batch.readable]]
            model.optimizer.learning_rate = rate
            model.reset_metrics()  # as newer versions of Keras do by themselves
            step = model.train_on_batch(
                batch.pixels, self._eye[task.codes[rows]], sample_weight=weights, return_dict=True
            )
            told.append((float(step["loss"]), float(step["accuracy"])))
        loss, accuracy = np.mean(told, axis=0) if told else (np.nan, np.nan)
        values = {"loss": float(loss), "accuracy": float(accuracy)}
        if not np.isfinite(values["loss"]):
            raise ValueError(
                f"CNNClassifier.learning_rate: expected a loss that stays finite, got {values['loss']} in epoch "
                f"{self.state.epoch + 1}. Give less than {rates.max():.3g}."
            )
        return values

    @contextlib.contextmanager
    def _averaged(self):
        """Put the averaged weights in the place of the last ones, for the time of looking at them."""
        if not self._settings.recipe.averaging:
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
        task = self._task
        proba, readable = probabilities(self._model, self._reader, task.held_out)
        rows, proba = task.held_out[readable], proba[readable]
        codes = task.codes[rows]
        weights = task.weights[codes].astype(np.float64)
        if not len(rows):
            raise ValueError(
                f"CNNClassifier.on_unreadable: expected held-out images that can be read, got {len(task.held_out)} "
                "that cannot. Correct the files."
            )
        likelihood = np.clip(proba[np.arange(len(rows)), codes], _LEAST, None)
        return {
            "val_loss": float(-(weights * np.log(likelihood)).sum() / max(weights.sum(), _LEAST)),
            "val_accuracy": float((proba.argmax(axis=1) == codes).mean()),
            "val_roc_auc": _roc_auc(codes, proba),
        }

    def _is_better(self, values) -> bool:
        """Whether this epoch is to be kept: the last one without patients to judge by."""
        best, history = self.state.best_epoch, self.state.history
        if best < 0 or "val_loss" not in values:
            return True
        now, then = ((v["val_roc_auc"], -v["val_loss"]) for v in (values, {n: s[best] for n, s in history.items()}))
        if self._settings.recipe.monitor == "loss" or np.isnan(now[0]):
            return now[1] > then[1]
        return now > then  # of two equal areas, that of the lower loss

    def _is_stuck(self) -> bool:
        patience, last = self._settings.patience, len(self._settings.stages) - 1
        if patience is None or self._stage != last:
            return False
        first = sum(epochs for _, epochs, _ in self._settings.stages[:last])
        return self.state.epoch - 1 - max(self.state.best_epoch, first) >= patience

    def _save(self) -> None:
        self.state.variables = self._copies(self._model.variables)
        self.state.optimizer = self._copies(self._model.optimizer.variables)
        write_state(self._folder, self.state, self._identity)


def _roc_auc(codes, proba) -> float:
    """Area under the curve; of more than two classes the mean over them of each against the others."""
    if proba.shape[1] == 2:
        return float(roc_auc_score(codes, proba[:, 1])) if 0 < codes.mean() < 1 else float("nan")
    areas = [roc_auc_score(codes == k, proba[:, k]) for k in range(proba.shape[1]) if 0 < (codes == k).mean() < 1]
    return float(np.mean(areas)) if areas else float("nan")
