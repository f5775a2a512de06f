"""Feature matrices of an evaluation: each family measured once, or once per fold behind a stain normaliser.

A family that can be trained again has a method
``retrained(images, y, groups, *, folder, n_jobs=None, random_state=0)``. It gets the training images of a fold
(`histofeat.images.Images`, normalised where a stain normaliser stands before the family), their class codes and their
patients, and returns an unfitted copy of the family whose weights lie in `folder`. ``trained_on()`` of that copy
records all images that it was trained on.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import joblib
import numpy as np
from sklearn.base import clone

from histofeat.evaluation._plans import CANNOT_RUN, Parts, Plan, Run, can_retrain
from histofeat.evaluation._saved_evaluation import result_file, take_up
from histofeat.evaluation.audit._encoders import encoder_records
from histofeat.exceptions import GroupLeakageError
from histofeat.features import Fingerprints, ImageFingerprint, extract, passes_over_images
from histofeat.images import Images, as_images, normalized_images


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Matrices of the same rows, of which some are copied side by side when they are asked for.

    Attributes
    ----------
    matrices : list of ndarray of shape (n, d_k), float32
    """

    matrices: list[np.ndarray]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Features of some rows, float32 of shape (n_rows, d); their numbers (n_rows, 1) where there is no matrix."""
        if not self.matrices:
            return np.asarray(rows, dtype=np.float32)[:, np.newaxis]
        widths = [matrix.shape[1] for matrix in self.matrices]
        taken = np.empty((len(rows), sum(widths)), dtype=np.float32)
        for part, matrix in zip(np.split(taken, np.cumsum(widths)[:-1], axis=1), self.matrices, strict=True):
            part[:] = matrix[rows]
        return taken


class FeatureBank:
    """Feature matrices of all plans that can run, each family once however many plans name it.

    Families that are the same in every fold are measured at once; `measure_folds` measures the rest.

    Parameters
    ----------
    plans : sequence of Plan
    run : Run
    fingerprints : bool, default=False
        Whether to measure `ImageFingerprint` in the same pass over the images, for the audit and for encoders that are
        trained again.
    """

    def __init__(self, plans: Sequence[Plan], run: Run, *, fingerprints: bool = False):
        # Keys of columns stay in the table, which takes less memory than their text.
        keys = None if run.dataset.columns is None else Images(run.dataset.frame["path"].array, on_disk=True)
        self._plans, self._run, self._plain = plans, run, keys or as_images(run.dataset.X)
        self._by_fold, self._normalized, self._hashes, self._n_read = {}, {}, {}, 0
        plain = {"fingerprints": ImageFingerprint()} if fingerprints and run.dataset.columns is None else {}
        for plan in plans:
            if plan.reason is None and plan.needing_pixels():
                run.dataset.require_images(f"pipeline {plan.name!r}")
            if plan.reason is None and plan.normalizer is None:
                plain.update(_same_in_every_fold(plan))
        self._expect_passes(len(passes_over_images(plain)))
        self._shared = self._measure(plain, self._plain, run.runtime.store)

    def measure_folds(self) -> Self:
        """Measure what differs between folds: families behind a normaliser, and encoders trained again in each fold."""
        run, behind, again = self._run, _behind_normalizers(self._plans), _trained_anew(self._plans)
        self._expect_passes()
        for fold, (train, _) in enumerate(run.splits):
            for name, (normalizer, wanted) in behind.items():
                images = self._normalized[name, fold] = _normalized(normalizer, run, train)
                measured = self._measure(wanted, images, run.runtime.store)
                self._by_fold |= {(name, key, fold): values for key, values in measured.items()}
        for where, rows in encoder_rows(run).items():
            for place, family in again.items():
                self._retrain(family, (*place, *where), rows)
        return self

    def _retrain(self, family, place, rows):
        """Train a family again on some rows and measure with it; plans that need it do not run if it fails."""
        name, key, fold, *inner = place
        needing = [plan for plan in self._plans if plan.reason is None and (name, key) in _places(plan)]
        if not needing:
            return
        where = f"evaluate.retrain_encoder, {type(family).__name__} in fold {fold + 1}"
        where += "".join(f", inner fit {number + 1}" for number in inner)
        work = partial(self._measure_anew, family, rows, self._images(needing[0], fold), where)
        try:
            known = name, family._fingerprint(), self._run.random_state, self._hash(self.prints), inner
            self._by_fold[place] = take_up(result_file(self._run, fold, family, *known), work)
        except CANNOT_RUN as error:
            for plan in needing:
                plan.reason = str(error)

    def _measure_anew(self, family, rows, images, where):
        """Train a family on training rows and measure all rows; its weights are deleted afterwards."""
        run, (train, _) = self._run, rows
        with tempfile.TemporaryDirectory(prefix="histofeat-encoder-", ignore_cleanup_errors=True) as folder:
            known = (images.take(train), run.y[train], run.patients[train])
            settings = {"folder": folder, "n_jobs": run.runtime.n_jobs, "random_state": run.random_state}
            with run.timed("retrain"):
                trained = _retrained(family, *known, **settings)
            self._check_anew(trained, rows, where)
            self._n_trained += 1
            run.runtime.report("retrain", self._n_trained, self._n_to_train)
            # No store: nothing will ever ask for these weights again.
            return self._measure({"": trained}, images, None)[""]

    def _check_anew(self, family, rows, where):
        """Refuse a family that has no record of its training images, or knows a patient of the rows to be scored."""
        run, prints, (train, test) = self._run, Fingerprints.of(self.prints), rows
        records, *_ = encoder_records([Parts("", (("", family),))])
        if not records:
            raise ValueError(
                f"{where}: expected a record of the images that it was trained on, got none. "
                "Let its `trained_on` give TrainingImages after `retrained`."
            )
        # Copies of training images on the test side are HF001 or HF002, and refused or accepted as such.
        learnt, keys = {key for found in records.values() for record in found for key in record.digests}, prints.keys()
        learnt -= {keys[row] for row in train}
        of_tested = np.flatnonzero(np.isin(run.patients, np.unique(run.patients[test])) & ~prints.flat)
        seen = [row for row in of_tested if keys[row] in learnt]
        if seen:
            raise GroupLeakageError(
                f"{where}: expected an encoder that knows no tested patient, got one that knows {len(seen):,} of their "
                f"images, the first of patient {run.patients[seen[0]]}. "
                "Let its `retrained` learn from the images that it is given, and from nothing else."
            )

    def _expect_passes(self, n_at_once=0):
        """Say how many images will have been read in all, for the progress."""
        behind = sum(len(passes_over_images(wanted)) for _, wanted in _behind_normalizers(self._plans).values())
        self._n_trained, self._n_to_train = 0, len(_trained_anew(self._plans)) * len(encoder_rows(self._run))
        n_passes = n_at_once + len(self._run.splits) * behind + self._n_to_train
        self._n_to_read = self._n_read + n_passes * len(self._run.dataset)

    def _measure(self, wanted, images, store):
        """Measure families, in as few passes over the images as their column names allow: nearly always one."""
        run, found = self._run, {}
        for keys in passes_over_images(wanted):
            families = [wanted[key] for key in keys]
            with run.timed("extraction"):
                extraction = extract(
                    families,
                    images,
                    n_jobs=run.runtime.n_jobs,
                    store=store,
                    progress=lambda done, _: run.runtime.report("extract", self._n_read + done, self._n_to_read),
                    cluster=run.runtime.cluster,
                )
            self._n_read += len(run.dataset)
            found.update(zip(keys, extraction.features, strict=True))
            run.conversions.update(Counter(extraction.conversions) - run.conversions)  # the most of any pass
            run.computed.update(extraction.computed)
            _add_seconds(run.seconds, extraction.seconds, families)
        return found

    @property
    def prints(self) -> np.ndarray | None:
        """Fingerprints of all images, float32 of shape (n, 35); None for a data set of columns."""
        return self._shared.get("fingerprints")

    def features(self, plan: Plan, fold: int, *inner: int) -> Any:
        """What a plan gets in one fold, or in one of its inner fits: ``take(rows)`` gives some rows of it.

        These are features, float32 of shape (n_rows, d), families side by side. For a head that takes the patches
        themselves, they are the images (`histofeat.images.Images`); for a classifier without families, the numbers of
        the rows (n_rows, 1), see `histofeat.models.OnRows`.
        """
        if plan.takes_pixels:
            return self._images(plan, fold)
        return SideBySide([self._matrix(plan, fold, key, *inner) for key in plan.by_key])

    def inner_features(self, plan: Plan, fold: int) -> list[Any] | None:
        """Features in each inner fit of a fold; None where they are those of the fold."""
        n_inner = self._run.inner[fold].get_n_splits() if plan.cross_fitted else 0
        return [self.features(plan, fold, one) for one in range(n_inner)] or None

    def hashes(self, plan: Plan, fold: int) -> list[Any]:
        """Hashes of what a plan gets in one fold: of the features, or of the pixels and their normaliser."""
        if not plan.families:
            return [plan.normalizer_key, self._hash(self._run.dataset.columns if self.prints is None else self.prints)]
        of_fold = [self._hash(self._matrix(plan, fold, key)) for key in plan.by_key]
        inner = [features.matrices for features in self.inner_features(plan, fold) or ()]
        return [*of_fold, *map(self._hash, chain(*inner))]

    def _hash(self, matrix):
        # A matrix lives as long as the bank.
        if id(matrix) not in self._hashes:
            self._hashes[id(matrix)] = joblib.hash(matrix)
        return self._hashes[id(matrix)]

    def width(self, plan: Plan) -> int:
        """Columns of a plan; 0 where its head takes the patches themselves."""
        if not plan.families and self._run.dataset.columns is not None:
            return self._run.dataset.columns.shape[1]
        return sum(self._matrix(plan, 0, key).shape[1] for key in plan.by_key)

    def _images(self, plan, fold):
        return self._plain if plan.normalizer is None else self._normalized[plan.normalizer_key, fold]

    def _matrix(self, plan, fold, key, *inner):
        place = (plan.normalizer_key, key, fold)
        found = self._by_fold.get((*place, *inner), self._by_fold.get(place))
        return self._shared[key] if found is None else found


def _same_in_every_fold(plan):
    """Families of a plan that are not trained again in each fold, by their keys."""
    return {key: family for key, family in plan.by_key.items() if key not in plan.retrained}


def _behind_normalizers(plans):
    """Families behind each normaliser: a mapping of its key to (normaliser, families by key)."""
    behind = {}
    for plan in plans:
        if plan.reason is None and plan.normalizer is not None:
            _, wanted = behind.setdefault(plan.normalizer_key, (plan.normalizer, {}))
            wanted.update(_same_in_every_fold(plan))
    return behind


def encoder_rows(run):
    """Rows that encoders learn from, and those of patients that they must not know, by fold and number of inner fit."""
    rows = {}
    for fold, (train, test) in enumerate(run.splits if run.retrain else ()):
        if run.retrain is True:
            rows[fold,] = train, test
        for number, (known, held_out) in enumerate(run.inner[fold].split(train)):
            rows[fold, number] = train[known], np.concatenate([train[held_out], test])
    return rows


def _trained_anew(plans):
    """Families trained again, by the normaliser before them and their key."""
    return {place: family for plan in plans if plan.reason is None for place, family in _places(plan).items()}


def _places(plan):
    return {(plan.normalizer_key, key): family for key, family in plan.cross_fitted.items()}


def _normalized(normalizer, run, train):
    """All images behind a normaliser that is fitted on the training patches of a fold."""
    with run.timed("extraction"):
        fitted = clone(normalizer).fit(run.dataset.X[train], groups=run.patients[train])
    return normalized_images(run.dataset.X, fitted, groups=run.patients)


def _add_seconds(seconds, spent, families):
    stages = {"read": "read", "decode": "decode", "store": "store"} | {type(f).__name__: f.family for f in families}
    for key, stage in stages.items():
        seconds[f"extraction:{stage}"] += spent.get(key, 0.0)


#: The note of a model whose encoder was trained again in each fold.
RETRAINED = "Its encoder was trained again on the training patients of each fold, and on those of each inner fit."


def check_retrainable(pipelines):
    """Refuse pipelines without a family that can be trained again.

    Parameters
    ----------
    pipelines : iterable of IDCPipeline
        Those that can run.

    Raises
    ------
    ValueError
        If there is none.
    """
    families = [family for pipeline in pipelines if hasattr(pipeline, "families") for family in pipeline.families()]
    if not any(map(can_retrain, families)):
        names = ", ".join(dict.fromkeys(repr(family.family) for family in families)) or "none that can run"
        raise ValueError(
            f"evaluate.retrain_encoder: expected a family that can be trained again, such as 'histo', got {names}. "
            "Leave retrain_encoder out: these families are the same in every fold."
        )


def _retrained(family, images, y, groups, *, folder, **settings):
    """Let a family train itself, or train histofeat's own encoder for it."""
    if hasattr(family, "retrained"):
        return family.retrained(images, y, groups, folder=folder, **settings)
    from histofeat.models import train_encoder

    weights = train_encoder(images, y, groups, folder, **settings)
    return clone(family).set_params(weights=str(weights))
