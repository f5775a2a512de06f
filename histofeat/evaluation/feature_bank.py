"""Feature matrices of an evaluation: each family measured once, or once per fold behind a stain normaliser."""

import numpy as np
from sklearn.base import clone

from histofeat.evaluation.plans import CANNOT_RUN
from histofeat.features import extract, passes_over_images
from histofeat.images import as_images


class FeatureBank:
    """Feature matrices of all plans that can run, each family once however many plans name it.

    Families that are the same in every fold are measured at once; `measure_folds` measures the rest.

    Parameters
    ----------
    plans : sequence of Plan
    run : Run
    extra : mapping of str to PatchFeatures, optional
        Families that no plan names, measured in the same pass over the images.
    """

    def __init__(self, plans, run, extra=None):
        self._plans, self._run = plans, run
        self._shared, self._by_fold, self._normalized = {}, {}, {}
        self._plain = as_images(run.dataset.X)
        plain = dict(extra or {})
        for plan in plans:
            if plan.reason is None and plan.normalizer is None:
                plain.update(_same_in_every_fold(plan))
        self._counter = _PassCounter(run, len(passes_over_images(plain)) + self._n_passes_by_fold())
        self._shared = _measure(plain, run.dataset.X, run, self._counter)

    def measure_folds(self, retrainer=None):
        """Measure what differs between folds: families behind a normaliser, and encoders trained again in each fold.

        Parameters
        ----------
        retrainer : Retrainer, optional
            Trains them; needed where a plan has such encoders.

        Returns
        -------
        self : FeatureBank
        """
        run, behind, retrained = self._run, _behind_normalizers(self._plans), _trained_anew(self._plans)
        self._counter.expect(self._n_passes_by_fold())
        if retrainer is not None:
            retrainer.expect(len(run.splits) * len(retrained))
        for fold, (train, _) in enumerate(run.splits):
            for name, (normalizer, wanted) in behind.items():
                images = self._normalized[name, fold] = _normalized(normalizer, run, train)
                measured = _measure(wanted, images, run, self._counter)
                self._by_fold |= {(name, fold, key): values for key, values in measured.items()}
            for (name, key), family in retrained.items():
                self._retrain(retrainer, family, (name, fold, key))
        return self

    def _retrain(self, retrainer, family, place):
        """Train a family again in one fold and measure with it; plans that need it do not run if it fails."""
        name, fold, key = place
        needing = [plan for plan in self._plans if plan.reason is None and (name, key) in _places(plan)]
        if not needing:
            return
        images = self._images(needing[0], fold)
        try:
            with retrainer.trained(family, fold, images) as trained:
                # No store: nothing will ever ask for these weights again.
                measured = _measure({key: trained}, images, self._run, self._counter, store=None)
        except CANNOT_RUN as error:
            for plan in needing:
                plan.reason = str(error)
        else:
            self._by_fold[place] = measured[key]

    def _n_passes_by_fold(self):
        behind = sum(len(passes_over_images(wanted)) for _, wanted in _behind_normalizers(self._plans).values())
        return len(self._run.splits) * (behind + len(_trained_anew(self._plans)))

    def extra(self, key):
        """Features of an extra family, float32 of shape (n, d)."""
        return self._shared[key]

    def rows(self, plan, fold, index):
        """Features of some rows in one fold, float32 of shape (n_rows, d), families side by side.

        For a head that takes the patches themselves, the images (`histofeat.images.Images`) of those rows.
        """
        if plan.takes_pixels:
            return self._images(plan, fold).take(index)
        return np.hstack([self._matrix(plan, fold, key)[index] for key in plan.by_key])

    def width(self, plan):
        """Columns of a plan; 0 where its head takes the patches themselves."""
        return sum(self._matrix(plan, 0, key).shape[1] for key in plan.by_key)

    def _images(self, plan, fold):
        if plan.normalizer is None:
            return self._plain
        return self._normalized[plan.normalizer_key, fold]

    def _matrix(self, plan, fold, key):
        place = (plan.normalizer_key, fold, key)
        return self._by_fold[place] if place in self._by_fold else self._shared[key]


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


def _trained_anew(plans):
    """Families trained again in each fold, by the normaliser before them and their key."""
    return {place: family for plan in plans if plan.reason is None for place, family in _places(plan).items()}


def _places(plan):
    return {(plan.normalizer_key, key): family for key, family in plan.retrained.items()}


def _normalized(normalizer, run, train):
    """All images behind a normaliser that is fitted on the training patches of a fold."""
    from histofeat.images import normalized_images

    with run.timed("extraction"):
        fitted = clone(normalizer).fit(run.dataset.X[train], groups=run.patients[train])
    return normalized_images(run.dataset.X, fitted, groups=run.patients)


class _PassCounter:
    """Progress over several passes through the images."""

    def __init__(self, run, n_passes):
        self._run, self._done, self._total = run, 0, n_passes * len(run.dataset)

    def expect(self, n_passes):
        """Correct how many passes are still to come."""
        self._total = self._done + n_passes * len(self._run.dataset)

    def tell(self, done):
        self._run.runtime.report("extract", self._done + done, self._total)

    def end_pass(self):
        self._done += len(self._run.dataset)


def _measure(wanted, images, run, counter, **where):
    """Measure families, in as few passes over the images as their column names allow: nearly always one."""
    bank = {}
    for keys in passes_over_images(wanted):
        families = [wanted[key] for key in keys]
        with run.timed("extraction"):
            extraction = extract(
                families,
                images,
                n_jobs=run.runtime.n_jobs,
                **{"store": run.runtime.store, **where},
                progress=lambda done, _: counter.tell(done),
            )
        counter.end_pass()
        bank.update(zip(keys, extraction.features, strict=True))
        run.conversions.update({} if run.conversions else extraction.conversions)
        run.computed.update(extraction.computed)
        _add_seconds(run.seconds, extraction.seconds, families)
    return bank


def _add_seconds(seconds, spent, families):
    stages = {"read": "read", "decode": "decode", "store": "store"} | {
        type(family).__name__: family.family for family in families
    }
    for key, stage in stages.items():
        seconds[f"extraction:{stage}"] += spent.get(key, 0.0)
