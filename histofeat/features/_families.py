"""The register of feature families: one record each; a family's module is imported when its name is used."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from sklearn.base import BaseEstimator

from histofeat.exceptions import check_name, first_line


class Register(Mapping):
    """Records by name: those of histofeat, and those that other packages offer by an entry point.

    Parameters
    ----------
    group : str
        Group of the entry points: "histofeat.families" or "histofeat.heads".
    own : mapping of str
        The records of histofeat.
    as_record : callable
        ``as_record(name, found)`` gives the record of what an entry point names, or raises an error.

    Raises
    ------
    ValueError
        Where names are listed, or one that histofeat lacks is asked for: if a package offers a name that exists, or
        what it offers cannot be loaded. The message names the package, which is imported at no other time.

    Notes
    -----
    An entry point of "histofeat.families" names a class derived from `PatchFeatures` with its name as ``family``, which
    can be built without parameters; a change of its values takes a new name, or the features in a store are stale. One
    of "histofeat.heads" names a `histofeat.models.HeadRecord`. A saved model may hold such a family where its package
    is installed; a classifier of another package has to be named in ``trusted=``. In the file pyproject.toml::

        [project.entry-points."histofeat.families"]
        wavelet = "my_package.wavelets:WaveletEnergy"
    """

    def __init__(self, group: str, own: Mapping[str, Any], as_record: Callable[[str, Any], Any]):
        self.group, self.own, self.as_record = group, MappingProxyType(own), as_record

    def _offered(self) -> dict[str, EntryPoint]:
        offered: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self.own or point.name in offered:
                raise ValueError(
                    f"{self.group}: expected names that nothing else has, got {point.name!r} of the package "
                    f"{point.dist.name!r}. Rename its entry point, or uninstall it."
                )
            offered[point.name] = point
        return offered

    def types(self) -> list[str]:
        """Full names of what other packages offer, which are not imported for that: a model may hold such objects."""
        return [point.value.replace(":", ".") for point in entry_points(group=self.group)]

    def __getitem__(self, name: str) -> Any:
        if name in self.own:
            return self.own[name]
        point = self._offered()[name]
        try:
            return self.as_record(name, point.load())
        except Exception as error:  # the code of others raises whatever it likes
            raise ValueError(
                f"{self.group}: expected {name!r} of the package {point.dist.name!r} to load, got "
                f"{type(error).__name__} ({first_line(error):.100}). Update the package, or uninstall it."
            ) from error

    def __iter__(self) -> Iterator[str]:
        yield from (*self.own, *self._offered())

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class FamilyRecord:
    """A feature family by name.

    Attributes
    ----------
    module : str
        Its module in `histofeat.features`.
    class_name : str
        Its class there.
    words : str
        What it measures, for tables and help texts.
    n_columns : int
        Columns with default parameters.
    offered : type, optional
        The class, where another package offers it.
    """

    module: str
    class_name: str
    words: str
    n_columns: int
    offered: type | None = None


def _as_family(name: str, kind: Any) -> FamilyRecord:
    if not (isinstance(kind, type) and hasattr(kind, "_compute") and getattr(kind, "family", None) == name):
        raise TypeError(f"{kind!r:.60} is no class derived from PatchFeatures with family = {name!r}")
    words = (kind.__doc__ or name).strip().splitlines()[0].rstrip(".")
    return FamilyRecord(kind.__module__, kind.__name__, words, len(kind().get_feature_names_out()), kind)


FAMILIES: Mapping[str, FamilyRecord] = Register(
    "histofeat.families",
    {
        "color": FamilyRecord("color", "ColorHistogram", "histograms and moments of RGB, HSV and stain channels", 180),
        "lbp": FamilyRecord("lbp", "LBPHistogram", "uniform local binary patterns at three radii", 54),
        "haralick": FamilyRecord("haralick", "HaralickTexture", "Haralick's thirteen co-occurrence statistics", 78),
        "pftas": FamilyRecord("pftas", "PFTAS", "threshold adjacency statistics", 162),
        "fuzzy_color": FamilyRecord("fuzzy_color", "FuzzyColorHistogram", "fuzzy histogram of 64 colours", 64),
        "joint_color": FamilyRecord("color", "JointColorHistogram", "joint histogram of red, green and blue", 512),
        "gray": FamilyRecord("color", "GrayHistogram", "histogram of grey levels", 256),
        "glcm": FamilyRecord("haralick", "GLCM", "scikit-image's ten co-occurrence properties", 120),
        "clbp": FamilyRecord("completed_lbp", "CompletedLBP", "completed local binary patterns at three radii", 162),
        "lpq": FamilyRecord("phase_quantization", "LocalPhaseQuantization", "local phase codes, robust to blur", 256),
        "cnn": FamilyRecord("embedding", "CNNEmbedding", "embedding of a pretrained network", 1280),
        "histo": FamilyRecord("embedding", "HistoEmbedding", "embedding of the encoder that comes with histofeat", 144),
    },
    _as_family,
)
"""Name of each family and its record. A new family is a module, a record here, and a test; or see `Register`."""


def make_family(name: str, **params: Any) -> BaseEstimator:
    """Build a feature family by name.

    Parameters
    ----------
    name : str
        One of `FAMILIES`, among them those of installed packages.
    **params
        Its parameters.

    Returns
    -------
    family : PatchFeatures
        An unfitted estimator.

    Raises
    ------
    ValueError
        If the family, or one of its parameters, is unknown; the message gives the nearest name.

    Examples
    --------
    >>> make_family("lbp", radii_px=(1, 2))
    LBPHistogram(radii_px=(1, 2))
    """
    if not isinstance(name, str) or name not in FAMILIES:
        check_name("features", name, FAMILIES, "the name of a feature family")
    record = FAMILIES[name]
    family = record.offered or getattr(import_module(f"histofeat.features._{record.module}"), record.class_name)
    for param in params:
        where, known = f"features__{name}__{param}", family._get_param_names()
        check_name(where, param, known, f"a parameter of {family.__name__}")
    return family(**params)
