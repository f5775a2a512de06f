"""Embeddings of the encoder that comes with the package: trained on breast histology, no download."""

from __future__ import annotations

from typing import ClassVar

from histofeat.features.embedding import CNNEmbedding

__all__ = ["HistoEmbedding"]


class HistoEmbedding(CNNEmbedding):
    """What histofeat's own encoder, trained on IDC patches, sees in a patch.

    It runs where no network can be reached: weights and their converted form lie in the package, and through OpenVINO
    neither Keras nor its backend is imported.

    Parameters
    ----------
    weights : {"shipped"} or path, default="shipped"
        The weights in the package, or a file that `histofeat.models.train_encoder` wrote.
    input_size : int or None, default=None
        Side in px to which patches are resized, at least 32; None is 50, at which it was trained on patches of 50 px
        and 200 micrometres. Another size is converted anew, for which Keras is needed.
    batch_size, engine, precision, device, n_threads, pooling, views
        As for `CNNEmbedding`.

    See Also
    --------
    CNNEmbedding : the same for networks of others.

    Notes
    -----
    It learnt from patients: `trained_on` says from which images. A split that tests one of these patients is refused
    (HF007); `evaluate` can leave them out or train the encoder anew in each fold. The model card beside the weights,
    ``histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md``, says how it was trained and what it reaches.

    Patches of less than 16 px on their longer side are refused: enlarged to 50 px there is nothing on them to see.

    Examples
    --------
    >>> HistoEmbedding().get_feature_names_out()[:2].tolist()
    ['histo_000', 'histo_001']
    >>> HistoEmbedding().trained_on().n_patients
    190
    """

    family: ClassVar[str] = "histo"
    #: Of the class, not a parameter: another encoder is `CNNEmbedding`'s.
    encoder: ClassVar[str] = "histo"

    def __init__(
        self,
        weights="shipped",
        *,
        input_size=None,
        batch_size=None,
        engine="auto",
        precision="float32",
        device=None,
        n_threads=None,
        pooling="avg",
        views=1,
    ):
        self.weights = weights
        self.input_size = input_size
        self.batch_size = batch_size
        self.engine = engine
        self.precision = precision
        self.device = device
        self.n_threads = n_threads
        self.pooling = pooling
        self.views = views

    @property
    def weights_dir(self) -> None:
        """None: the package needs no folder of weights."""

    def _find_weights(self):
        return self._found("imagenet" if str(self.weights) == "shipped" else self.weights)

    def _feature_names(self) -> list[str]:
        return [f"histo_{i:03d}" for i in range(self._n_features())]
