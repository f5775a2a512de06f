"""scikit-learn's side of a model, through skops: types by a list, no code, the same bytes for the same model."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
from sklearn.exceptions import InconsistentVersionWarning

from histofeat.exceptions import MissingExtraError
from histofeat.features import FAMILIES
from histofeat.images import NORMALIZERS
from histofeat.models.saving.archive import ModelFileError, fixed_zip

__all__ = ["TRUSTED", "dump_estimator", "load_estimator"]

TRUSTED = (
    "histofeat.models.heads.forest.Forest",
    "histofeat.models.heads.feature_head.FeatureHead",
    "histofeat.models.heads.kernel_svm.KernelSVM",
    "histofeat.networks.augmentation.Augmentation",
    "histofeat.networks.recipes.Recipe",
    "histofeat.models.pipeline.IDCPipeline",
    "histofeat.models.heads.pixel_head.PixelHead",
    "histofeat.models.heads.quadratic.QuadraticDiscriminant",
    "histofeat.models.saving.parts.StoredPart",
    "histofeat.models.heads.soft_vote.SoftVote",
    "histofeat.models.heads.temperature.TemperatureScaling",
    "histofeat.features.union.PatchUnion",
    *(f"histofeat.features.{module}.{name}" for module, name in FAMILIES.values()),
    *(f"histofeat.images.normalization.{module}.{name}" for module, name in NORMALIZERS.values()),
    "sklearn.tree._tree.Tree",
)
"""The types that a model may hold, beside numbers, text, containers, arrays and scikit-learn's public estimators.

skops does not trust a `Tree` by itself, because one made up to point outside its own arrays crashes the process; here
the arrays of every tree are checked before it is used.
"""

#: What skops raises about a file that is damaged or made up.
_LOAD_ERRORS = (
    AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, RecursionError, TypeError, ValueError,
    zipfile.BadZipFile,
)  # fmt: skip


def _skops():
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtraError(
            "skops: expected the package skops to save or load a model, found none. Run `pip install skops`."
        ) from error
    return skops.io


def dump_estimator(estimator, *, trusted: Sequence[str] = ()) -> bytes:
    """Write an estimator in the format of skops.

    Parameters
    ----------
    estimator : estimator
        Of scikit-learn or of histofeat, with parts of the same.
    trusted : sequence of str
        Further types that it may hold, by their full names.

    Returns
    -------
    content : bytes
        The same for the same estimator: the addresses in memory and the dates in skops's own files are replaced.

    Raises
    ------
    ModelFileError
        If the estimator holds a type that `load_estimator` would refuse, or that skops cannot write.
    """
    skops = _skops()
    try:
        content = skops.dumps(estimator)
    except (TypeError, ValueError, AttributeError, RecursionError, skops.exceptions.UnsupportedTypeException) as error:
        raise ModelFileError(
            f"save_model: expected parts that skops can write, got {type(error).__name__}: {error}. "
            "Use parameters of numbers, text, lists, mappings and arrays."
        ) from error
    unknown = _unknown(content, trusted)
    if unknown:
        raise ModelFileError(
            f"save_model: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{_more(unknown)}, which "
            "load_model would refuse. Use a head of histofeat or scikit-learn, or name the type in trusted=(...), "
            "here and when it is loaded."
        )
    return _canonical(content)


def load_estimator(content: bytes, *, trusted: Sequence[str] = (), owner: str = "load_model"):
    """Build an estimator from the format of skops, from known types only.

    Parameters
    ----------
    content : bytes
        What `dump_estimator` gave.
    trusted : sequence of str
        Further types to build, by their full names.
    owner : str
        What a message calls the content.

    Returns
    -------
    estimator : estimator
        The fitted estimator.

    Raises
    ------
    ModelFileError
        If the content holds an unknown type, which is not imported then, is damaged, or holds a tree that points
        outside of itself.
    """
    skops = _skops()
    try:
        unknown = _unknown(content, trusted)
        if not unknown:
            with warnings.catch_warnings():
                # One for each of 500 trees; the caller compares the versions once.
                warnings.simplefilter("ignore", InconsistentVersionWarning)
                estimator = skops.loads(content, trusted=[*TRUSTED, *trusted])
    except _LOAD_ERRORS as error:
        raise ModelFileError(
            f"{owner}: expected what save_model wrote, got a part that cannot be built ({type(error).__name__}: "
            f"{error!s:.100}). Copy the file again, or train the model again."
        ) from error
    if unknown:
        raise ModelFileError(
            f"{owner}: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{_more(unknown)}. Do not load a "
            "model of unknown origin; name the type in trusted=(...) only if you know that it is harmless."
        )
    return estimator


def _unknown(content: bytes, trusted: Iterable[str]) -> list[str]:
    return sorted(set(_skops().get_untrusted_types(data=content)) - {*TRUSTED, *trusted})


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _canonical(content: bytes) -> bytes:
    """Number the objects in the order in which they are met: skops calls them by their addresses."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        files = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    numbers: dict[int, int] = {}
    renamed: dict[str, str] = {}

    def visit(node):
        if isinstance(node, list):
            for entry in node:
                visit(entry)
        elif isinstance(node, dict):
            if isinstance(node.get("__id__"), int):
                node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
            if isinstance(node.get("file"), str) and node["file"] in files:
                name = PurePosixPath(node["file"])
                node["file"] = renamed.setdefault(node["file"], f"array-{len(renamed) + 1}{name.suffix}")
            for entry in node.values():
                visit(entry)

    visit(schema)
    members = {new: files[old] for old, new in renamed.items()}
    return fixed_zip({"schema.json": json.dumps(schema, separators=(",", ":")).encode(), **members})


def check_trees(estimator) -> None:
    """Refuse a decision tree that points outside of itself, which would read foreign memory when it is asked.

    Parameters
    ----------
    estimator : estimator
        A fitted tree with ``tree_`` and ``n_features_in_``.

    Raises
    ------
    ModelFileError
        If a child does not stand behind its parent, or a node asks for a column that there is not.
    """
    tree = estimator.tree_
    left, right, column = tree.children_left, tree.children_right, tree.feature
    at = np.arange(tree.node_count)
    leaf = (left == -1) & (right == -1)
    inner = (left > at) & (right > at) & (left < tree.node_count) & (right < tree.node_count)
    inner &= (column >= 0) & (column < tree.n_features)
    if not tree.node_count or tree.n_features != estimator.n_features_in_ or not (leaf | inner).all():
        raise ModelFileError(
            f"load_model: expected decision trees that are whole, got one of {tree.node_count:,} nodes that points "
            "outside of itself. Do not use this file; train the model again."
        )
