"""What a fitted network does: it predicts, is pickled without Keras's objects, and is written and read."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from histofeat.images import VIEW_COUNTS, Images, as_images, image_input_tags
from histofeat.networks.batches import PatchReader
from histofeat.networks.builders import BUILDING, rebuild
from histofeat.networks.network_file import read_network, write_network
from histofeat.networks.prediction import on_device, probabilities
from histofeat.networks.settings import check_choice, device_of

__all__ = ["FittedNetwork"]


class FittedNetwork(ClassifierMixin, BaseEstimator):
    """The half of `histofeat.networks.CNNClassifier` that does not train.

    It reads the parameters ``views``, ``device`` and ``n_jobs``, and the attributes that a fit leaves.
    """

    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of shape (n, k), float64, columns in the order of ``classes_``, rows that add up to 1."""
        check_is_fitted(self)
        check_choice("views", self.views, VIEW_COUNTS)
        images = as_images(X)
        reader = self._reader(images, self.input_size_, self.patch_side_, skip=False)
        with BUILDING, on_device(device_of(self.device)):
            return probabilities(self._network(), reader, np.arange(len(images)), views=self.views)[0]

    def predict(self, X) -> np.ndarray:
        """Labels of shape (n,): the most probable class."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def save_network(self, path) -> Path:
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
    def load_network(cls, path) -> FittedNetwork:
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

    def __getstate__(self):
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_model"}

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __sklearn_tags__(self):
        tags = image_input_tags(super().__sklearn_tags__())
        tags.requires_fit = True
        return tags
