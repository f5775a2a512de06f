"""The ladder: rows that any model should beat, from guessing to an encoder, under one head; and who is told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.dummy import DummyClassifier

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, Search
from histofeat.features import HistoEmbedding
from histofeat.images import user_cache
from histofeat.metrics import Comparison, Comparisons, NoiseFloor, NotCompared, compare_models, noise_floor
from histofeat.models import IDCPipeline
from histofeat.networks import ENCODERS, read_lite, shipped_weights, write_lite
from histofeat.studies._ablation import time_extraction
from histofeat.studies._shortcut_families import BackgroundFraction, MeanColor
from histofeat.studies._study import FEATURE_SETS, network_params

LADDER: Mapping[str, str] = {
    "majority": "the share of each class in training, whatever the image",
    "mean_color": "mean of red, green and blue: three numbers",
    "background": "share of bright colourless pixels",
    "color_histogram": "family color",
    "handcrafted": "families color, lbp and haralick",
    "random_encoder": "the network of histo with random weights",
    "imagenet": "an encoder with ImageNet weights, the best at hand",
    "histo": "the encoder of this package",
}
"""Rows by name, and what each sees."""

LADDER_SEARCH = Search({"logistic": {"C": (0.001, 0.01, 0.1, 1.0)}}, n_iter=4)
"""The head of all rows but guessing: logistic regression, its C chosen on inner folds of patients."""

_HANDCRAFTED = ("mean_color", "background", "color_histogram", "handcrafted")
_LIMIT, _TIMED = 0.05, 128


class UntrainedEmbedding(HistoEmbedding):
    """Embedding of the network of `HistoEmbedding` with random weights: what its architecture sees without training.

    Parameters are those of `HistoEmbedding`; `weights` stay as they are.

    Notes
    -----
    Kernels are normal with variance 2 / (values that enter), as in He et al. 2015 (doi:10.1109/ICCV.2015.123), biases
    are 0, and the seed is 0. The file of weights is kept in the user's cache.

    Examples
    --------
    >>> UntrainedEmbedding().get_feature_names_out()[:2].tolist()
    ['untrained_000', 'untrained_001']
    """

    family: ClassVar[str] = "untrained"
    is_trainable: ClassVar[bool] = False

    def trained_on(self) -> tuple[()]:
        """Nothing: no patient is known."""
        return ()

    def _feature_names(self) -> list[str]:
        return self._numbered("untrained_", 3)

    def _find_weights(self) -> Path:
        path = user_cache() / "untrained-0.npz"
        if not path.exists():
            encoder, rng = ENCODERS["histo"], np.random.default_rng(0)
            arrays = read_lite(shipped_weights(encoder), encoder)
            for name, array in arrays.items():
                entering = np.prod(array.shape[: 2 if "depthwise" in name else 3])
                scale = np.sqrt(2 / entering) if name.endswith("kernel") else 0.0
                arrays[name] = rng.normal(0, scale, array.shape)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_lite(arrays, path)
        return path


@dataclass(frozen=True)
class Ladder:
    """What the rows of a ladder say beside their scores.

    Parameters
    ----------
    reference : str
        The best handcrafted row, as "name/head": the one that other rows have to beat.
    comparisons : Comparisons or NotCompared
        Differences of all pairs of rows in ROC-AUC, as one family of tests.
    groups : tuple of tuple of str
        The largest groups of rows of which no two are told apart, the best row first; empty where none were compared.
    floor : NoiseFloor or NotCompared
        Of the best two rows.
    """

    reference: str
    comparisons: Comparisons | NotCompared
    groups: tuple[tuple[str, ...], ...]
    floor: NoiseFloor | NotCompared

    def beside_reference(self, name: str) -> tuple[Comparison, str] | None:
        """Difference of a row from the reference, and the verdict in words; None where it was not compared."""
        for row in getattr(self.comparisons, "rows", ()):
            if (row.first, row.second) == (name, self.reference):
                alike = f"not told apart{f'; not worse by {self.comparisons.margin:g}' * bool(row.non_inferior)}"
                return row, ("better" if row.difference > 0 else "worse") if row.p_adjusted < _LIMIT else alike
        return None


def ladder_pipelines(dataset: PatchDataset, *, network: Mapping[str, Any] | None = None) -> list[tuple[str, Any]]:
    """Make the rows of `LADDER`, for `evaluate` with `LADDER_SEARCH`.

    Parameters
    ----------
    dataset : PatchDataset
        Of columns without images, guessing is the only row that runs.
    network : mapping, optional
        Parameters of the family cnn; by default the best encoder at hand.

    Returns
    -------
    rows : list of (str, IDCPipeline)
    """
    sets: dict[str, Any] = {"majority": [dataset if dataset.lacks_images else MeanColor()]}
    sets |= {"mean_color": [MeanColor()], "background": [BackgroundFraction()], "color_histogram": ["color"]}
    sets |= {"handcrafted": FEATURE_SETS["handcrafted"], "random_encoder": [UntrainedEmbedding()]}
    sets |= {"imagenet": ["cnn"], "histo": ["histo"]}
    heads, params = {"majority": DummyClassifier(strategy="prior")}, network_params() if network is None else network
    return [
        (name, IDCPipeline(its, heads.get(name, "logistic"), feature_params=params if "cnn" in its else None))
        for name, its in sets.items()
    ]


def as_ladder(evaluation: Evaluation, pipelines: Sequence[tuple[str, Any]], *, margin: float = 0.01) -> Evaluation:
    """Mark an evaluation as a ladder, so that its report has the section and `baseline.json`; time the extraction.

    Parameters
    ----------
    evaluation : Evaluation
        Of `ladder_pipelines` and rows of the user.
    pipelines : sequence of (str, pipeline)
        What was evaluated.
    margin : float, default=0.01
        The largest loss of ROC-AUC that does not matter.

    Returns
    -------
    evaluation : Evaluation
        With "ladder" in its protocol: the margin, and of each row with images the processor microseconds that its
        features take a patch in one thread.
    """
    ran, X = {model.name for model in evaluation.models} - {"majority"}, evaluation.dataset.X
    sets = {name: one.families() for name, one in pipelines if name in ran and hasattr(one, "families")}
    sets = {name: families for name, families in sets.items() if not any(hasattr(one, "given") for one in families)}
    some = [X[row] for row in np.linspace(0, len(X) - 1, min(_TIMED, len(X))).astype(int)]
    facts = {"margin": margin, "extract_us": time_extraction(sets, some, n_repeats=1)[0] if sets else {}}
    return replace(evaluation, protocol={**evaluation.protocol, "ladder": facts})


def read_ladder(evaluation: Evaluation) -> Ladder:
    """Compare all rows of a ladder in pairs, and group those that are not told apart.

    Parameters
    ----------
    evaluation : Evaluation
        As `as_ladder` returns it.

    Returns
    -------
    ladder : Ladder

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> rows = [row for row in ladder_pipelines(cohort) if row[0] in ("mean_color", "background")]
    >>> evaluation = evaluate(cohort, rows, folds, inner_cv=folds, search=LADDER_SEARCH, n_resamples=50)
    >>> ladder = read_ladder(as_ladder(evaluation, rows))
    >>> ladder.reference in ladder.groups[0]
    True
    """
    areas = {f"{model.name}/{model.head}": model.scores["roc_auc"].value for model in evaluation.models}
    order = sorted(areas, key=lambda name: -np.nan_to_num(areas[name], nan=-1.0))
    reference = [*(name for name in order if name.partition("/")[0] in _HANDCRAFTED), *order][0]
    pairs = [(name, reference) for name in order if name != reference]
    pairs += [pair for pair in combinations(order, 2) if reference not in pair]
    try:
        found = compare_models(evaluation, pairs=pairs, margin=evaluation.protocol["ladder"]["margin"])
        apart = [(row.first, row.second) for row in found.rows if row.p_adjusted < _LIMIT]
        return Ladder(reference, found, groups_of(order, apart), noise_floor(evaluation))
    except ValueError as error:
        return Ladder(reference, NotCompared(str(error)), (), NotCompared(str(error)))


def groups_of(names: Sequence[str], apart: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Find the largest groups of names of which no two are told apart.

    Parameters
    ----------
    names : sequence of str
        In the order of the result.
    apart : sequence of (str, str)
        The pairs that are told apart.

    Returns
    -------
    groups : tuple of tuple of str
        A name may be in several.

    Notes
    -----
    Insert and absorb (Piepho 2004, doi:10.1198/1061860043515).

    Examples
    --------
    >>> groups_of("abc", [("a", "c")])
    (('a', 'b'), ('b', 'c'))
    """
    groups = [frozenset(names)]
    for pair in apart:
        parts = [group - {name} for group in groups for name in pair if {*pair} <= group]
        parts = {*parts, *(group for group in groups if not {*pair} <= group)}
        groups = [group for group in parts if not any(group < other for other in parts)]
    ordered = [tuple(name for name in names if name in group) for group in groups]
    return tuple(sorted(ordered, key=lambda group: [names.index(name) for name in group]))
