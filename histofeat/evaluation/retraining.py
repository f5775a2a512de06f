"""Train encoders again in each fold, on its training patients, and check that they saw no tested patient.

A family that can be trained again has a method
``retrained(images, y, groups, *, folder, n_jobs=None, random_state=0)``. It gets the training images of a fold
(`histofeat.images.Images`, normalised where a stain normaliser stands before the family), their class codes and their
patients, and returns an unfitted copy of the family whose weights lie in `folder`. ``trained_on()`` of that copy
records all images that it was trained on.
"""

import tempfile
from contextlib import contextmanager
from numbers import Integral

import numpy as np
from sklearn.base import clone

from histofeat.evaluation.audit.encoders import encoder_records
from histofeat.evaluation.plans import Parts, can_retrain
from histofeat.exceptions import GroupLeakageError
from histofeat.features import Fingerprints
from histofeat.model_selection import encode_patients

#: The note of a model whose encoder was trained again in each fold.
RETRAINED = (
    "Its encoder was trained again on the training patients of each fold. The inner folds, which choose threshold, "
    "calibration and searched parameters, share that encoder, which was trained on their patients: features look "
    "better there than on new patients."
)


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
    families = [family for pipeline in pipelines for family in pipeline.families()]
    if not any(map(can_retrain, families)):
        names = ", ".join(dict.fromkeys(repr(family.family) for family in families)) or "none that can run"
        raise ValueError(
            f"evaluate.retrain_encoder: expected a family that can be trained again, such as 'histo', got {names}. "
            "Leave retrain_encoder out: these families are the same in every fold."
        )


class Retrainer:
    """Trains encoders again on the training rows of a fold.

    Parameters
    ----------
    run : object
        The evaluation under way, with ``dataset``, ``splits``, ``y``, ``patients``, ``random_state``,
        ``runtime`` and ``timed``.
    prints : ndarray of shape (n, 35), float32
        As `histofeat.evaluation.audit.ImageFingerprint` measures them.
    """

    def __init__(self, run, prints):
        prints = Fingerprints.of(prints)
        self._run, self._keys, self._flat = run, prints.keys(), prints.flat
        _, self._patient = encode_patients(run.patients, len(run.dataset), "dataset.patients")
        self._done = self._total = 0

    def expect(self, total):
        """Say how many encoders there will be in all, for the progress."""
        self._total = total

    @contextmanager
    def trained(self, family, fold, images):
        """Give a family trained on the training rows of one fold; its weights are deleted afterwards.

        Parameters
        ----------
        family : PatchFeatures
            One that `can_retrain` accepts.
        fold : int
        images : Images
            Of all rows, as the family gets to see them.

        Yields
        ------
        family : PatchFeatures

        Raises
        ------
        GroupLeakageError
            If it knows a patient who is tested in this fold.
        ValueError
            If it has no record of its training images.
        """
        run, (train, _) = self._run, self._run.splits[fold]
        with tempfile.TemporaryDirectory(prefix="histofeat-encoder-", ignore_cleanup_errors=True) as folder:
            known = (images.take(train), run.y[train], run.patients[train])
            with run.timed("retrain"):
                trained = _retrained(
                    family, *known, folder=folder, n_jobs=run.runtime.n_jobs, random_state=run.random_state
                )
            self._check(trained, fold)
            self._done += 1
            run.runtime.report("retrain", self._done, self._total)
            yield trained

    def _check(self, family, fold):
        train, test = self._run.splits[fold]
        where = f"evaluate.retrain_encoder, {type(family).__name__} in fold {fold + 1}"
        records, _ = encoder_records([Parts("", (("", family),))])
        if not records:
            raise ValueError(
                f"{where}: expected a record of the images that it was trained on, got none. "
                "Let its `trained_on` give TrainingImages after `retrained`."
            )
        # Copies of training images on the test side are HF001 or HF002, and refused or accepted as such.
        learnt = {key for found in records.values() for record in found for key in record.digests}
        learnt -= {self._keys[row] for row in train}
        of_tested = np.flatnonzero(np.isin(self._patient, self._patient[test]) & ~self._flat)
        seen = [row for row in of_tested if self._keys[row] in learnt]
        if seen:
            raise GroupLeakageError(
                f"{where}: expected an encoder that knows no tested patient, got one that knows {len(seen):,} of their "
                f"images, the first of patient {self._run.patients[seen[0]]}. "
                "Let its `retrained` learn from the images that it is given, and from nothing else."
            )


def _retrained(family, images, y, groups, *, folder, n_jobs, random_state):
    """Let a family train itself, or train histofeat's own encoder for it."""
    if hasattr(family, "retrained"):
        return family.retrained(images, y, groups, folder=folder, n_jobs=n_jobs, random_state=random_state)
    from histofeat.models import train_encoder

    # Converted beside its weights, it leaves with the folder; OpenVINO would keep it in the user's cache otherwise.
    weights = train_encoder(images, y, groups, folder, convert=True, n_jobs=n_jobs, random_state=_seed(random_state))
    return clone(family).set_params(weights=str(weights))


def _seed(random_state):
    # The record of the training holds it as a number.
    return int(random_state) if isinstance(random_state, Integral) else 0
