"""Embeddings of a pretrained convolutional network."""

import os
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from histofeat.exceptions import PatchError, check_name, check_whole
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, resize_patches
from histofeat.images import VIEW_COUNTS, VIEWS, take_view
from histofeat.networks import (
    TrainingRecord,
    backend_name,
    check_settings,
    choose_engine,
    find_encoder,
    find_weights,
    graph_version,
    hash_weights,
    load_engine,
    n_columns,
    read_record,
)

#: Patches in one pass of Keras, by processor, where the user does not say.
_CPU_ROWS, _GPU_ROWS = 64, 512
#: Patches prepared at a time at least: many passes of OpenVINO's 8, so that its threads run out of work rarely.
_GATHERED = 256


@dataclass(eq=False, repr=False)
class CNNEmbedding(PatchFeatures):
    """Embedding of a patch: the pooled last feature map of a pretrained network.

    The estimator holds no network. It is loaded at the first patch, once per process, and shared by all
    estimators with the same settings; ``clone`` and ``pickle`` therefore cost nothing.

    Parameters
    ----------
    encoder : str, default="mobilenetv2"
        One of `histofeat.networks.ENCODERS`: mobilenetv2, mobilenetv2_0.35, mobilenet_0.25, efficientnetb0, resnet50,
        densenet121; efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2, whose weights come with the extra
        ``histofeat[lite]``; or histo, which comes with the package (see `HistoEmbedding`). A number in the name is the
        width of the network. With ``_stages`` after each but the last, such as "resnet50_stages", the last feature map
        of each stage is pooled in place of the last one: better on patches of 50 px. With the extra
        ``histofeat[timm]`` also phikon, ctranspath, kaiko-vits16, kaiko-vits8, kaiko-vitb16, kaiko-vitb8,
        kaiko-vitl14, lunit-vits16, lunit-vits8, midnight-12k and, whose pages ask to accept terms, uni, uni2-h,
        virchow, virchow2, h-optimus-0, h-optimus-1 and h0-mini; ``"timm:<model>"``, for example ``"timm:resnet18"``;
        or ``"hf-hub:<owner/repository>"`` for a repository of timm's form.
    weights : {"imagenet"} or path, default="imagenet"
        "imagenet" takes the published weights: those in the package for histo, those of the model's page for networks
        of timm and the hub, and ImageNet's otherwise. A path is a file of weights without classification layer.
    weights_dir : path or None, default=None
        Folder with the ImageNet weights under Keras's file names; None reads the environment variable
        ``HISTOFEAT_WEIGHTS`` when a patch is measured. Next is Keras's own cache, or the hub's for networks of
        timm, under names such as ``uni.safetensors``, and last a download.
    input_size : int or None, default=None
        Side in px to which patches are resized, at least 64; None is the encoder's default, 128. Below 96 the
        last feature map is too small to distinguish patches well. Networks of timm have their own default, mostly
        224, and many accept no other size.
    batch_size : int or None, default=None
        Patches in one pass of Keras; None is 64 on a CPU and 512 on a GPU, which smaller passes leave idle. Give a
        smaller number where the memory of the GPU is short. OpenVINO always takes 8.
    engine : {"auto", "keras", "openvino", "torch"}, default="auto"
        What runs the network: ``"auto"`` is OpenVINO on a CPU where it is installed, and Keras on a GPU; PyTorch,
        ``"torch"``, runs the networks of timm and only these.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the network. bfloat16 is coarser: through Keras it moves embeddings of real patches by more
        than a tenth of their length. OpenVINO refuses it on a processor that does not have it, and is slower with it
        where it has no AMX.
    device : {None, "cpu", "gpu", "gpu:0", ...}, default=None
        Where the network runs; None is a GPU if Keras's backend (or PyTorch) sees one, otherwise the CPU.
    n_threads : int or None, default=None
        Threads of OpenVINO; None is ``OMP_NUM_THREADS`` where set, otherwise all cores of the process. Keras
        keeps its backend's setting, PyTorch its own.
    pooling : {"avg", "max", "avg_std"}, default="avg"
        How the last feature map, or that of each tap, becomes a vector: its mean, its maximum, or all means followed
        by all standard deviations, in twice the columns. Networks of timm accept only ``"avg"``, their authors' way.
    views : {1, 8}, default=1
        Average the embeddings of so many views of a patch: 8 are its flips and quarter turns, at eight times the cost.

    Attributes
    ----------
    engine_ : str
        The engine that is used on this machine.
    engine_note_ : str
        One sentence: the engine, the device and why.

    Notes
    -----
    Each encoder brings the preprocessing that it was trained with, as part of the network. `resize_patches` makes
    patches square. Through OpenVINO an embedding depends to the last bit on its patch alone, not on its neighbours in a
    batch or on the number of threads; against Keras it differs by rounding, below 1e-4 relative. Keras's backends
    (TensorFlow, JAX, PyTorch) differ from one another by as little in float32, by several percent in bfloat16: a store
    keeps their features apart. On a GPU the backend decides how float32 is computed: TensorFlow multiplies in TF32 by
    default. Networks: MobileNetV2 (https://doi.org/10.1109/CVPR.2018.00474), MobileNet (arXiv:1704.04861), EfficientNet
    (arXiv:1905.11946), ResNet (https://doi.org/10.1109/CVPR.2016.90), DenseNet (https://doi.org/10.1109/CVPR.2017.243).
    Networks of timm get the whole patch, resized as above, without the centre crop and bicubic interpolation that some
    of their authors use; they were not tested with their published weights (``histofeat list encoders``).

    Examples
    --------
    >>> CNNEmbedding("mobilenet_0.25").get_feature_names_out()[:2].tolist()
    ['cnn_mobilenet_0.25_0000', 'cnn_mobilenet_0.25_0001']
    """

    family: ClassVar[str] = "cnn"
    is_embedding: ClassVar[bool] = True
    _threaded: ClassVar[bool] = False
    #: The value of `weights` that stands for the published weights.
    _published: ClassVar[str] = "imagenet"

    encoder: str = "mobilenetv2"
    _: KW_ONLY
    weights: str | os.PathLike[str] = "imagenet"
    weights_dir: str | os.PathLike[str] | None = None
    input_size: int | None = None
    batch_size: int | None = None
    engine: str = "auto"
    precision: str = "float32"
    device: str | None = None
    n_threads: int | None = None
    pooling: str = "avg"
    views: int = 1

    @property
    def engine_(self) -> str:
        """The engine that runs the network on this machine."""
        return self._choice().engine

    @property
    def engine_note_(self) -> str:
        """One sentence: the engine, the device and why."""
        return self._choice().note

    def weights_hash(self) -> str:
        """Content hash of the weights in use, for keys of stored features.

        Raises
        ------
        WeightsError
            If the weights are not found and cannot be downloaded.
        """
        self._check_params()
        return hash_weights(self._find_weights())

    @property
    def n_parameters(self) -> int:
        """Parameters of the network as it runs: up to its last tap; through OpenVINO normalisations are folded in."""
        return self._load()[0].n_parameters

    @property
    def is_trainable(self) -> bool:
        """Whether histofeat can train this encoder again, see `histofeat.models._encoder_training`."""
        return find_encoder(self.encoder).source == "histofeat"

    def trained_on(self) -> TrainingRecord | None:
        """Record of the encoder's training patches; None for ImageNet weights and for networks of timm.

        Raises
        ------
        WeightsError
            If the weights are not found and cannot be downloaded, or their record does not belong to them.
        """
        if find_encoder(self.encoder).source != "histofeat":
            return None
        return read_record(self._find_weights(), self.encoder)

    def _fingerprint(self) -> dict[str, Any]:
        """Parameters that change the numbers: not the place of the weights, the batch size or the threads."""
        choice = self._choice()
        encoder, backend = find_encoder(self.encoder), backend_name() if choice.engine == "keras" else None
        return {
            "encoder": self.encoder,
            "weights": self.weights_hash(),
            "input_size": self._size(),
            "pooling": self.pooling,
            "precision": self.precision,
            "engine": choice.engine,
            # A GPU multiplies float32 in TF32 where its backend is left alone.
            "processor": choice.device.partition(":")[0],
            "graph": graph_version(encoder),
            # A repository of the hub may change how its pixels are normalised and leave its weights alone.
            **({"recipe": encoder.recipe} if encoder.source == "timm" else {}),
            # Left out for the default backend, whose features were stored before there was a choice.
            **({"backend": backend} if backend not in (None, "tensorflow") else {}),
            # Likewise for a single view.
            **({"views": self.views} if self.views != 1 else {}),
        }

    def _check_params(self) -> None:
        encoder = find_encoder(self.encoder)
        _check_path("weights", self.weights, optional=False)
        _check_path("weights_dir", self.weights_dir, optional=True)
        for name, least in (("batch_size", 1), ("n_threads", 1), ("input_size", encoder.minimum_size)):
            if (value := getattr(self, name)) is not None:
                most = 2048 if name == "input_size" else None  # a larger image asks for gigabytes
                check_whole(f"CNNEmbedding.{name}", value, least, "Use None for the usual one.", most=most)
        check_settings(encoder, self.engine, self.pooling, self.precision, self.device)
        check_name("CNNEmbedding.views", self.views, VIEW_COUNTS)

    def _feature_names(self) -> list[str]:
        return self._numbered(f"cnn_{self.encoder}_", 4)

    def _numbered(self, start: str, digits: int) -> list[str]:
        """Name each channel, and with the pooling "avg_std" its deviation."""
        encoder = find_encoder(self.encoder)
        kinds = ("", "_std")[: n_columns(encoder, self.pooling) // encoder.n_features]
        return [f"{start}{i:0{digits}d}{kind}" for kind in kinds for i in range(encoder.n_features)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return self._embed(self._prepare(batch))

    def _prepare(self, batch: PatchBatch) -> np.ndarray:
        """Patches at the size of the network (n, size, size, 3), uint8; safe in several threads at once.

        With `_embed` this lets a caller gather patches of unequal size into one large batch for the network.
        """
        encoder, (height, width) = find_encoder(self.encoder), batch.rgb.shape[1:3]
        if max(height, width) < encoder.minimum_patch_px:
            raise PatchError(
                f"{self.encoder}: expected patches of at least {encoder.minimum_patch_px} px on their longer side, got "
                f"{height}x{width} px. Give larger patches, or leave this family out."
            )
        return resize_patches(batch.rgb, self._size())

    def _stage(self, pixels: np.ndarray):
        """Copy the output of `_prepare` to the network's device; safe in one thread while another runs `_embed`."""
        engine, rows = self._load()
        return tuple(
            engine.stage(np.ascontiguousarray(take_view(pixels, view)), batch_size=rows) for view in VIEWS[: self.views]
        )

    def _embed(self, pixels) -> np.ndarray:
        """Embeddings (n, d), float32, of the output of `_prepare` or `_stage`."""
        engine, rows = self._load()
        views = pixels if isinstance(pixels, tuple) else self._stage(pixels)
        seen = [engine.embed(view, batch_size=rows) for view in views]
        return seen[0] if len(seen) == 1 else np.mean(seen, axis=0, dtype=np.float32)

    def _load(self):
        """Return the engine, and the number of patches in one pass."""
        self._check_params()
        choice = self._choice()
        engine = load_engine(
            find_encoder(self.encoder),
            self._find_weights(),
            choice,
            input_size=self._size(),
            pooling=self.pooling,
            precision=self.precision,
            n_threads=self.n_threads,
        )
        return engine, self._rows_per_pass(choice)

    def _choice(self):
        return choose_engine(self.engine, self.device, find_encoder(self.encoder))

    def _rows_per_pass(self, choice) -> int:
        if self.batch_size is not None:
            return int(self.batch_size)
        return _GPU_ROWS if choice.device.startswith("gpu") else _CPU_ROWS

    @property
    def _batch_size(self) -> int:
        """Patches gathered before the network runs: enough to fill a pass, however large that is."""
        return max(_GATHERED, self._rows_per_pass(self._choice()))

    def _size(self) -> int:
        encoder = find_encoder(self.encoder)
        return encoder.default_size if self.input_size is None else int(self.input_size)

    def _find_weights(self) -> Any:
        """Find the file of weights; one with a record beside it has to be the one of the record."""
        encoder = find_encoder(self.encoder)
        weights = "imagenet" if str(self.weights) == self._published else self.weights
        path = find_weights(encoder, weights, self.weights_dir)
        if encoder.source == "histofeat":
            read_record(path, encoder.name)
        return path


@dataclass(eq=False, repr=False)
class HistoEmbedding(CNNEmbedding):
    """Embedding of histofeat's own encoder, which was trained on IDC patches.

    It needs no download: the weights are in the package, and with OpenVINO neither Keras nor its backend is imported.

    Parameters
    ----------
    weights : {"shipped"} or path, default="shipped"
        The weights in the package, or a file that `histofeat.models.train_encoder` wrote.
    input_size : int or None, default=None
        Side in px to which patches are resized, at least 32; None is 96, at which it was trained on patches of 50 px
        and 200 micrometres.
    batch_size, engine, precision, device, n_threads, pooling, views
        As for `CNNEmbedding`.

    See Also
    --------
    CNNEmbedding : the same for other networks.

    Notes
    -----
    It was trained on patients; `trained_on` lists the images. A split that tests one of these patients is refused
    (HF007); `evaluate` can leave them out or train the encoder again in each fold. The model card beside the weights,
    ``histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md``, says how it was trained and what it reaches.

    Patches of less than 16 px on their longer side are refused: enlarged to 96 px they hold too little detail.

    Examples
    --------
    >>> HistoEmbedding().get_feature_names_out()[:2].tolist()
    ['histo_000', 'histo_001']
    >>> HistoEmbedding().trained_on().n_patients
    189
    """

    family: ClassVar[str] = "histo"
    _published: ClassVar[str] = "shipped"
    #: Parameters of `CNNEmbedding` that have a single value here: the package holds this encoder and its weights.
    encoder: ClassVar[str] = "histo"
    weights_dir: ClassVar[None] = None

    weights: str | os.PathLike[str] = "shipped"

    def _feature_names(self) -> list[str]:
        return self._numbered("histo_", 3)


def _check_path(name: str, value, *, optional: bool) -> None:
    if not isinstance(value, (str, os.PathLike)) and not (optional and value is None):
        expected = "None or a path" if optional else "'imagenet' or a path"
        raise ValueError(f"CNNEmbedding.{name}: expected {expected}, got {value!r}. Give the path as a string.")
