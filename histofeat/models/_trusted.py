"""Estimators as bytes through skops: only listed types, no code, the same bytes for the same model."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sklearn.exceptions import InconsistentVersionWarning

from histofeat.datasets import read_array, read_members, unpacked_limit
from histofeat.exceptions import and_more, needs
from histofeat.features import FAMILIES
from histofeat.images import NORMALIZERS
from histofeat.models._archive import FORGED, FORMAT_VERSION, ModelFileError, fixed_zip

TRUSTED = (
    "histofeat.models._classifiers.Forest",
    "histofeat.models._classifiers.KernelSVM",
    "histofeat.models._classifiers.QuadraticDiscriminant",
    "histofeat.models._classifiers.ShrunkToIdentity",
    "histofeat.models._feature_head.FeatureHead",
    "histofeat.models._feature_head.GivenScores",
    "histofeat.models._pipeline.IDCPipeline",
    "histofeat.models._pixel_head.PixelHead",
    "histofeat.models._saved_parts.StoredPart",
    "histofeat.models._soft_vote.SoftVote",
    "histofeat.networks._augmentation.Augmentation",
    "histofeat.networks._recipes.Recipe",
    "histofeat.features._base.PatchUnion",
    *(f"histofeat.features._{record.module}.{record.class_name}" for record in FAMILIES.values()),
    *(f"histofeat.images._{module}.{name}" for module, name in NORMALIZERS.values()),
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.tree._tree.Tree",
)
"""The types that a model may hold, beside numbers, text, containers, arrays and scikit-learn's public estimators.

skops does not trust a `Tree` by itself, because a forged one that points outside its own arrays crashes the process;
here the arrays of every tree are checked before it is used.
"""

#: Where histofeat's types are now, by the last part of their name: the modules of older files have moved.
_PRESENT_NAMES = {name.rpartition(".")[2]: name for name in TRUSTED if name.startswith("histofeat.")}
#: Types of files in format 1 whose contents scikit-learn's own estimators have replaced.
_REPLACED = ("histofeat.quadratic.QuadraticDiscriminant", "histofeat.temperature.TemperatureScaling")

#: Commas and brackets that the description of an estimator may have: this many, or one for each byte of the file.
_SCHEMA_VALUES = 1_000_000


def _skops():
    with needs("skops", "save_model, load_model: expected the package skops"):
        import skops.io
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
        content = _canonical(skops.dumps(estimator))
    except (TypeError, ValueError, AttributeError, RecursionError, skops.exceptions.UnsupportedTypeException) as error:
        raise ModelFileError(
            f"save_model: expected parts that skops can write, got {type(error).__name__}: {error}. "
            "Use parameters of numbers, text, lists, mappings and arrays."
        ) from error
    unknown = _unknown(content, trusted)
    if unknown:
        raise ModelFileError(
            f"save_model: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{and_more(len(unknown))}, "
            "which load_model would refuse. Use a head of histofeat or scikit-learn, or name the type in "
            "trusted=(...), here and when it is loaded."
        )
    return content


def load_estimator(content: bytes, owner: str, *, trusted: Sequence[str] = (), n_bytes: int | None = None) -> Any:
    """Build an estimator from the format of skops, from known types only.

    Parameters
    ----------
    content : bytes
        What `dump_estimator` gave.
    owner : str
        How a message names the content.
    trusted : sequence of str
        Further types to build, by their full names.
    n_bytes : int, optional
        Size of the file that held the content, which decides how much it may unpack to; by default that of the content.

    Returns
    -------
    estimator : estimator
        The fitted estimator.

    Raises
    ------
    ModelFileError
        If the content holds an unknown type, which is then not imported, or a type of format 1 that has been replaced,
        or is damaged.
    """
    skops = _skops()
    try:
        content = _with_present_names(content, owner, len(content) if n_bytes is None else n_bytes)
        unknown = _unknown(content, trusted)
        if unknown:
            raise ModelFileError(
                f"{owner}: expected parts of histofeat and scikit-learn, got {unknown[0]!r}{and_more(len(unknown))}. "
                "Do not load a model of unknown origin; name the type in trusted=(...) only if you know that it is "
                "harmless."
            )
        with warnings.catch_warnings():
            # One for each of 500 trees; the caller compares the versions once.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            return skops.loads(content, trusted=[*TRUSTED, *trusted])
    except ModelFileError:
        raise
    except FORGED as error:
        raise ModelFileError(
            f"{owner}: expected what save_model wrote, got a part that cannot be built ({type(error).__name__}: "
            f"{error!s:.100}). Copy the file again, or train the model again."
        ) from error


def _unknown(content: bytes, trusted: Iterable[str]) -> list[str]:
    return sorted(set(_skops().get_untrusted_types(data=content)) - {*TRUSTED, *trusted})


def _unpacked(content: bytes, n_bytes: int) -> tuple[dict, dict[str, bytes]]:
    """Give the schema and the arrays of an estimator in the format of skops, both checked."""
    files = read_members(content, unpacked_limit(n_bytes))
    text = files.pop("schema.json")
    n_values = sum(map(text.count, b",[{"))
    if n_values > max(_SCHEMA_VALUES, n_bytes):
        raise ValueError(f"its description lists {n_values:,} values")
    schema = json.loads(text)
    _check_schema(schema, files)
    return schema, files


def _check_schema(schema: dict, files: Mapping[str, bytes]) -> None:
    """Check that skops builds no more than is written, and reads each array once.

    skops builds an object once that is written several times under one number, and searches each place of it. A number
    in the place of the object itself would double the search at each level.
    """
    sizes: dict[object, int] = {}
    owners: dict[str, object] = {}

    def size_of(node) -> int:
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        size = 1 + sum(map(size_of, inside))
        if isinstance(node, dict):
            number, file = node.get("__id__"), node.get("file")
            if number is not None and sizes.setdefault(number, size) != size:
                raise ValueError(f"object {number!r:.40} is written in two ways")
            if isinstance(file, str) and owners.setdefault(file, number) != number:
                raise ValueError(f"{file!r:.40} belongs to two objects")
        return size

    size_of(schema)
    for name, content in files.items():
        if name.endswith(".npy"):
            read_array(content)
        elif not name.endswith(".bin"):
            raise ValueError(f"{name!r:.40} is no array; sparse matrices are not read")


def _packed(schema: dict, files: Mapping[str, bytes]) -> bytes:
    return fixed_zip({"schema.json": json.dumps(schema, separators=(",", ":")).encode(), **files})


def _nodes(node) -> Iterator[dict]:
    """Yield every mapping inside a schema, outer ones first."""
    if isinstance(node, dict):
        yield node
    for entry in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(entry)


def _canonical(content: bytes) -> bytes:
    """Number the objects in the order of the schema: skops names them by their addresses in memory."""
    schema, files = _unpacked(content, 2**60)
    numbers: dict[int, int] = {}
    renamed: dict[str, str] = {}
    for node in _nodes(schema):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(node.get("file"), str) and node["file"] in files:
            name = PurePosixPath(node["file"])
            node["file"] = renamed.setdefault(node["file"], f"array-{len(renamed) + 1}{name.suffix}")
    return _packed(schema, {new: files[old] for old, new in renamed.items()})


def _with_present_names(content: bytes, owner: str, n_bytes: int) -> bytes:
    """Give histofeat's types in a schema the modules that they have moved to."""
    schema, files = _unpacked(content, n_bytes)
    for node in _nodes(schema):
        module, name = str(node.get("__module__")), str(node.get("__class__"))
        if f"{module}.{name}" in _REPLACED:
            raise ModelFileError(
                f"{owner}: expected {name!r} in the form of format {FORMAT_VERSION}, got that of format 1, which this "
                "histofeat does not read. Train the model again, or load it with the histofeat that wrote it."
            )
        if module.startswith("histofeat.") and name in _PRESENT_NAMES:
            node["__module__"] = _PRESENT_NAMES[name].rpartition(".")[0]
    return _packed(schema, files)
