"""Encoders that know patients: refused, their patients left out, or trained again in each fold; what reports say."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from test_evaluation import MeanColor, mean_color, write_dataset

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import PatchDataset
from histofeat.evaluation import RETRAINED, AuditPolicy, find_known_patients
from histofeat.evaluation.audit._audit import audit_encoders
from histofeat.evaluation.audit._findings import check_audit
from histofeat.exceptions import GroupLeakageError, MissingExtraError, WeightsError
from histofeat.features import ImageFingerprint, PatchFeatures, Runtime, TrainingImages, extract
from histofeat.images import ReinhardNormalizer, as_images
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.reporting import render_markdown, write_report
from histofeat.studies import ablate_families, measure_robustness, permutation_importance

QUICK = {"cv": PatientKFold(4), "inner_cv": PatientKFold(3), "n_resamples": 40}


class Memory(PatchFeatures):
    """An encoder that overfits as far as that goes: it gives the label of the training patch of the nearest colour."""

    family = "memory"
    seen: ClassVar[list] = []

    def __init__(self, weights="none.npz"):
        self.weights = weights

    def _check_params(self):
        pass

    def _feature_names(self):
        return [f"{self.family}_label"]

    def _compute(self, batch):
        if not Path(self.weights).is_file():
            raise WeightsError(f"Memory.weights: expected a file, got {self.weights!r}. Train it.")
        with np.load(self.weights) as stored:
            distances = np.abs(mean_colors(batch.rgb)[:, None] - stored["colors"]).sum(axis=2)
            return stored["y"][distances.argmin(axis=1)][:, None].astype(np.float32)

    def trained_on(self):
        if not Path(self.weights).is_file():
            raise WeightsError(f"Memory.weights: expected a file, got {self.weights!r}. Train it.")
        with np.load(self.weights) as stored:
            return TrainingImages(str(stored["dataset"]), frozenset(row.tobytes() for row in stored["digests"]))

    def learnt(self, images, y, folder, dataset):
        """Learn from images; give a copy of this family that did."""
        images = as_images(images)
        patches = [images.decode(row, images.content(row))[0] for row in range(len(images))]
        digests = ImageFingerprint().transform(images)[:, :16].astype(np.uint8)
        path = Path(folder) / f"{self.family}.npz"
        colors = np.concatenate([mean_colors(patch[None]) for patch in patches])
        np.savez(path, colors=colors, y=y, digests=digests, dataset=dataset)
        return type(self)(str(path))

    def retrained(self, images, y, groups, *, folder, n_jobs=None, random_state=0):
        self.seen.append((images, y, groups, folder, random_state))
        return self.learnt(images, y, folder, "a fold")


class Fixed(Memory):
    """The same, from others who cannot train it again."""

    family = "fixed"
    retrained = None


class GoesOn(Memory):
    """Goes on from the weights that it had, and so remembers."""

    def retrained(self, images, y, groups, *, folder, n_jobs=None, random_state=0):
        return self


class Silent(Memory):
    """Does not say what it learnt from."""

    def trained_on(self):
        return None


class CannotTrain(Memory):
    """Lacks the package that it is trained with."""

    def retrained(self, images, y, groups, *, folder, n_jobs=None, random_state=0):
        raise MissingExtraError("CannotTrain: expected the package nothing, found none.")


def mean_colors(rgb):
    return rgb.reshape(len(rgb), -1, 3).mean(axis=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twenty patients of ten patches, whose labels have nothing to do with what is on them."""
    rng = np.random.default_rng(1)
    return write_dataset(
        tmp_path_factory.mktemp("patches"),
        rng.uniform(20, 230, (200, 3)),
        np.tile([0, 1], 100),
        np.repeat(range(20), 10),
    )


@pytest.fixture(scope="module")
def knowing(dataset, tmp_path_factory):
    """Give families of a class that learnt from the first patients of the data set."""

    def make(kind=Memory, n_patients=8):
        folder, rows = tmp_path_factory.mktemp("weights"), np.flatnonzero(dataset.patients.astype(int) < n_patients)
        return kind().learnt(dataset.X[rows], dataset.y[rows], folder, "theirs")

    return make


def of(family, head="logistic", **params):
    return IDCPipeline(features=(family,), head=head, **params)


def auc(model):
    return model.scores["roc_auc"].pooled


@pytest.fixture(scope="module")
def left_out(dataset, knowing):
    return evaluate(
        dataset, {"memory": of(knowing()), "mean": mean_color()}, audit=AuditPolicy(known_patients="leave_out"), **QUICK
    )


# --- patients left out -----------------------------------------------------------------------------------------------


class TestKnownPatients:
    def test_refused_with_every_way_out(self, dataset, knowing):
        stages = []
        with pytest.raises(GroupLeakageError, match=r"HF007 .* got 8: memory: memory knows 10 images of .*") as caught:
            evaluate(
                dataset,
                {"memory": of(knowing())},
                runtime=Runtime(progress=lambda stage, *_: stages.append(stage)),
                **QUICK,
            )
        for way in ('known_patients="leave_out"', "retrain_encoder=True", 'accept_findings=("HF007",)'):
            assert way in str(caught.value)
        assert "fit" not in stages

    def test_accepted_it_shows_what_the_leak_pretends(self, dataset, knowing):
        pipelines = {"memory": of(knowing(n_patients=20))}
        evaluation = evaluate(dataset, pipelines, audit=AuditPolicy(accept_findings=("HF007",)), **QUICK)
        assert auc(evaluation.models[0]) == 1
        assert evaluation.audit.accepted == ("HF007",)
        assert evaluation.left_out is None

    def test_all_models_are_tested_on_the_others_only(self, left_out, dataset):
        known = dataset.patients.astype(int) < 8
        np.testing.assert_array_equal(left_out.tested, ~known)
        for model in left_out.models:
            np.testing.assert_array_equal(np.isfinite(model.proba).all(axis=1), ~known)
            assert 0.3 < auc(model) < 0.65
        assert [model.name for model in left_out.models] == ["memory", "mean"]

    def test_training_rows_stay(self, left_out, dataset):
        before = tuple(PatientKFold(4).split(dataset.X, dataset.y, dataset.patients))
        for (train, test), (train_before, test_before) in zip(left_out.splits, before, strict=True):
            np.testing.assert_array_equal(train, train_before)
            assert set(test) <= set(test_before)

    def test_the_result_says_so(self, left_out):
        found = left_out.left_out
        assert found.patients == tuple(map(str, range(8)))
        assert found.to_dict() == {
            "patients": 8,
            "patches": 80,
            "patients_tested": 12,
            "patches_tested": 120,
            "encoders": {"memory: memory": 8},
            "trained_on": ["theirs"],
            "folds": [],
        }
        assert left_out.protocol["known_patients"] == "leave_out"
        assert left_out.protocol["left_out"] == found.to_dict()
        finding = left_out.audit.finding("HF007")
        assert finding.status == "passed"
        assert finding.numbers["patients_not_tested"] == 8
        assert "Patients in an encoder's training set that are not tested: 8." in finding.detail

    def test_images_are_measured_once(self, left_out, dataset):
        assert left_out.computed["fingerprint"] == len(dataset)

    def test_nobody_known_is_nobody_left_out(self, dataset):
        plain = evaluate(dataset, mean_color(), audit=AuditPolicy(known_patients="leave_out"), **QUICK)
        assert plain.left_out is None
        assert plain.protocol["left_out"] is None
        assert plain.tested.all()

    def test_patients_are_known_by_image_and_not_by_id(self, dataset, knowing, tmp_path):
        pipeline, frame = of(knowing(n_patients=3)), dataset.frame
        renamed = PatchDataset(
            frame.assign(patient=[f"p{patient}" for patient in frame["patient"]]), dataset.target_names, "renamed"
        )
        found = evaluate(renamed, pipeline, audit=AuditPolicy(known_patients="leave_out"), **QUICK)
        assert found.left_out.patients == ("p0", "p1", "p2")
        colors = np.random.default_rng(9).uniform(20, 230, (200, 3))
        others = write_dataset(tmp_path, colors, dataset.y, dataset.patients)
        assert evaluate(others, pipeline, audit=AuditPolicy(known_patients="leave_out"), **QUICK).left_out is None

    def test_a_fold_in_which_nobody_remains_is_gone(self, dataset, knowing):
        patients = dataset.patients.astype(int)
        cv = [(patients >= 3, patients < 3), (patients < 10, patients >= 10)]
        pipelines = {"memory": of(knowing(n_patients=4)), "mean": mean_color()}
        found = evaluate(dataset, pipelines, cv, n_resamples=0, audit=AuditPolicy(known_patients="leave_out"))
        assert found.left_out.folds == (1,)
        assert found.left_out.patients == ("0", "1", "2")  # the fourth is tested nowhere
        assert len(found.splits) == found.protocol["n_splits"] == 1
        assert found.models[0].scores["roc_auc"].n_folds == 1
        np.testing.assert_array_equal(found.fold, np.where(patients >= 10, 0, -1))

    def test_nobody_left(self, dataset, knowing):
        both = of(knowing(n_patients=20)), of(knowing(Fixed, 20))
        with pytest.raises(
            ValueError, match=r"got none: a: memory \(and 1 more\) was trained on all 20\. Test other patients"
        ):
            evaluate(
                dataset, dict(zip("ab", both, strict=True)), audit=AuditPolicy(known_patients="leave_out"), **QUICK
            )

    def test_a_class_lost_by_it_is_refused_as_ever(self, dataset, knowing):
        patients, y = dataset.patients.astype(int), dataset.y
        cv = [(patients >= 5, (patients < 4) | ((patients == 4) & (y == 0)))]
        with pytest.raises(
            ValueError, match=r"HF004 .*fold 1 has no 'malignant'.*the folds after 4 of 5 patients were left out"
        ):
            evaluate(
                dataset, of(knowing(n_patients=4)), cv, n_resamples=0, audit=AuditPolicy(known_patients="leave_out")
            )

    def test_other_errors_are_those_of_the_audit(self, dataset):
        with pytest.raises(ValueError, match=r"HF004 .*accept_findings=\(\"HF004\",\)\)\.$"):
            evaluate(
                dataset, mean_color(), [(range(100), range(100, 200, 2))], audit=AuditPolicy(known_patients="leave_out")
            )

    def test_an_encoder_that_cannot_run_leaves_nobody_out(self, dataset):
        pipelines = {"memory": of(Memory("nowhere.npz")), "mean": mean_color()}
        with pytest.warns(UserWarning, match="not run: memory, logistic: "):
            found = evaluate(dataset, pipelines, audit=AuditPolicy(known_patients="leave_out"), **QUICK)
        assert [entry.name for entry in found.not_run] == ["memory"]
        assert found.tested.all()

    def test_unknown_choice(self, dataset):
        with pytest.raises(ValueError, match=r"AuditPolicy.known_patients: expected one of refuse, leave_out, got 's"):
            evaluate(dataset, mean_color(), audit=AuditPolicy(known_patients="skip"))


class TestFindKnownPatients:
    def test_one_for_each_pipeline_and_encoder(self, dataset, knowing, tmp_path):
        first, second = knowing(n_patients=2), knowing(Fixed, 1)
        pipelines = [("a", of(first)), ("a", of(first, "svm")), ("both", IDCPipeline((first, second), "logistic"))]
        pipelines += [("b", mean_color()), ("nowhere", of(Memory("nowhere.npz")))]
        found = find_known_patients(dataset, pipelines, runtime=Runtime(store=tmp_path / "store.sqlite"))
        assert [(one.pipeline, one.encoder, one.patients, one.n_images) for one in found] == [
            ("a", "a: memory", ("0", "1"), (10, 10)),
            ("both", "both: memory", ("0", "1"), (10, 10)),
            ("both", "both: fixed", ("0",), (10,)),
        ]
        assert {one.trained_on for one in found} == {"theirs"}
        anew = find_known_patients(dataset, pipelines, retrained=True)
        assert [one.encoder for one in anew] == ["both: fixed"]

    def test_nothing_is_measured_where_no_encoder_learnt_from_patches(self, dataset):
        paths = [f"nowhere/{row}.png" for row in range(len(dataset))]
        unreadable = PatchDataset(dataset.frame.assign(path=paths), dataset.target_names, "unreadable")
        assert find_known_patients(unreadable, mean_color()) == ()

    def test_different_encoders_under_one_name_are_both_asked(self, dataset, knowing):
        pipelines = [("a", of(knowing(n_patients=2))), ("a", of(knowing(n_patients=1), "svm"))]
        with pytest.raises(GroupLeakageError, match=r"HF007 .* got 3"):
            evaluate(dataset, pipelines, **QUICK)
        assert [one.patients for one in find_known_patients(dataset, pipelines)] == [("0", "1"), ("0",)]


# --- perturbed patches and explanations ------------------------------------------------------------------------------


def robust(dataset, family, cv=None, **params):
    settings = {"conditions": [("turn", 2)], "metrics": ["roc_auc"], "n_resamples": 40, **params}
    return measure_robustness(dataset, {"mine": of(family)}, cv or PatientKFold(4), **settings)


def permuted(dataset, family, **params):
    return permutation_importance(dataset, of(family), PatientKFold(4), n_repeats=1, n_resamples=40, **params)


def ablated(dataset, family, **params):
    pipeline = IDCPipeline(("color", family), "logistic")
    return ablate_families(dataset, pipeline, PatientKFold(4), n_resamples=40, **params)


SCORING = {"measure_robustness": robust, "permutation_importance": permuted, "ablate_families": ablated}
every_score = pytest.mark.parametrize("name", SCORING)


class TestOtherScores:
    @every_score
    def test_refused_in_the_words_of_evaluate_before_any_patch_is_measured(self, dataset, knowing, name, monkeypatch):
        monkeypatch.setattr(Memory, "_compute", None)
        family = knowing()
        with pytest.raises(
            GroupLeakageError, match=r"HF007 .* got 8: .*: memory knows 10 images of patient 0"
        ) as caught:
            SCORING[name](dataset, family)
        with pytest.raises(GroupLeakageError) as by_audit:
            check_audit(audit_encoders(dataset, list(PatientKFold(4).split(dataset.X, dataset.y, dataset.patients)), {
                "mine" if name == "measure_robustness" else "pipeline": of(family)
            }))  # fmt: skip
        assert str(caught.value) == str(by_audit.value)

    @every_score
    def test_known_patients_are_left_out(self, dataset, knowing, name):
        found = SCORING[name](dataset, knowing(), audit=AuditPolicy(known_patients="leave_out"))
        assert (found.n_patients, found.n_patches) == (12, 120)
        assert found.left_out.patients == tuple(map(str, range(8)))
        assert found.left_out.n_patients_tested == 12
        assert found.accepted == ()

    @every_score
    def test_accepted_by_name(self, dataset, knowing, name):
        found = SCORING[name](dataset, knowing(), audit=AuditPolicy(accept_findings=("HF007",)))
        assert (found.n_patients, found.left_out, found.accepted) == (20, None, ("HF007",))

    @every_score
    @pytest.mark.parametrize("choice", ["refuse", "leave_out"])
    def test_encoders_that_know_nobody_cost_nothing(self, dataset, name, choice, monkeypatch):
        monkeypatch.setattr(ImageFingerprint, "_compute", None)
        found = SCORING[name](dataset, MeanColor(), audit=AuditPolicy(known_patients=choice))
        assert (found.n_patients, found.left_out, found.accepted) == (20, None, ())

    @every_score
    def test_nobody_left(self, dataset, knowing, name):
        with pytest.raises(ValueError, match=rf"^{name}\.audit: expected a tested patient .* on all 20\."):
            SCORING[name](dataset, knowing(n_patients=20), audit=AuditPolicy(known_patients="leave_out"))

    @every_score
    def test_unknown_choices(self, dataset, name):
        with pytest.raises(
            ValueError, match=r"^AuditPolicy\.known_patients: expected one of refuse, leave_out, got 's"
        ):
            SCORING[name](dataset, MeanColor(), audit=AuditPolicy(known_patients="skip"))
        with pytest.raises(ValueError, match=r"accept_findings: expected a tuple of codes of the audit, got 'HF7'"):
            SCORING[name](dataset, MeanColor(), audit=AuditPolicy(accept_findings=("HF7",)))

    def test_the_others_score_as_if_asked_for_alone(self, dataset, knowing):
        family, patients = knowing(), dataset.patients.astype(int)
        rows = np.arange(len(dataset))
        pairs = [(rows[patients >= 10], rows[patients < 10]), (rows[patients < 10], rows[patients >= 10])]
        found = robust(dataset, family, cv=pairs, audit=AuditPolicy(known_patients="leave_out"))
        alone = robust(dataset, family, cv=[(pairs[0][0], rows[(patients >= 8) & (patients < 10)]), pairs[1]])
        pd.testing.assert_frame_equal(found.table, alone.table)
        assert alone.left_out is None

    def test_a_fold_in_which_nobody_remains_is_gone(self, dataset, knowing):
        patients = dataset.patients.astype(int)
        cv = [(patients >= 3, patients < 3), (patients < 10, patients >= 10)]
        found = robust(dataset, knowing(n_patients=4), cv=cv, audit=AuditPolicy(known_patients="leave_out"))
        assert (found.n_patients, found.left_out.folds) == (10, (1,))

    def test_a_class_lost_by_it_is_refused(self, dataset, knowing):
        patients, y = dataset.patients.astype(int), dataset.y
        cv = [(patients >= 5, (patients < 4) | ((patients == 4) & (y == 0)))]
        with pytest.raises(
            ValueError, match=r"HF004 .*has no 'malignant'.*the folds after 4 of 5 patients were left out"
        ):
            robust(dataset, knowing(n_patients=4), cv=cv, audit=AuditPolicy(known_patients="leave_out"))

    def test_shared_patients_are_accepted_by_name_too(self, dataset):
        with pytest.raises(GroupLeakageError, match=r"accept_findings=\('HF001',\)"):
            robust(dataset, MeanColor(), cv=PatchKFold(2))
        assert robust(
            dataset, MeanColor(), cv=PatchKFold(2), audit=AuditPolicy(accept_findings=("HF001",))
        ).accepted == ("HF001",)


# --- encoders trained again ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anew(dataset, knowing, tmp_path_factory):
    """An evaluation with two heads on an encoder that knows everybody, and is trained again."""
    Memory.seen.clear()
    calls, store = [], tmp_path_factory.mktemp("store") / "features.sqlite"
    family = knowing(n_patients=20)
    pipelines = [("memory", of(family)), ("memory", of(family, "svm")), ("mean", mean_color())]
    more = {
        "runtime": Runtime(store=store, progress=lambda *call: calls.append(call)),
        "random_state": 7,
        "retrain_encoder": True,
    }
    return evaluate(dataset, pipelines, **more, **QUICK), calls, list(Memory.seen)


class TestRetrainedEncoders:
    def test_the_score_is_honest(self, anew):
        assert all(0.35 < auc(model) < 0.65 for model in anew[0].models if model.name == "memory")

    def test_trained_once_a_fold_on_its_training_rows_and_once_for_each_inner_fit(self, anew, dataset):
        evaluation, calls, seen = anew
        expected = []
        for train, _ in evaluation.splits:
            inner = PatientKFold(3).split(train, dataset.y[train], dataset.patients[train])
            expected += [train, *(train[known] for known, _ in inner)]
        for (images, y, groups, folder, random_state), rows in zip(seen, expected, strict=True):
            assert list(images.items) == list(dataset.X[rows])
            np.testing.assert_array_equal(y, dataset.y[rows])
            np.testing.assert_array_equal(groups, dataset.patients[rows])
            assert random_state == 7
            assert not Path(folder).exists()
        assert [call for call in calls if call[0] == "retrain"] == [("retrain", done, 16) for done in range(1, 17)]
        # Fingerprints and colours at once, then an encoder a fold and inner fit.
        assert [call for call in calls if call[0] == "extract"][-1] == ("extract", 3400, 3400)
        assert evaluation.computed["memory"] == 16 * len(dataset)
        assert evaluation.seconds["retrain"] > 0

    def test_measured_with_the_encoder_of_the_fold(self, anew, dataset, tmp_path):
        evaluation = anew[0]
        for fold, (train, test) in enumerate(evaluation.splits):
            (tmp_path / str(fold)).mkdir()
            family = Memory().learnt(dataset.X[train], dataset.y[train], tmp_path / str(fold), "")
            feature = extract([family], dataset.X[test]).features[0][:, 0]
            proba = evaluation.models[0].proba[test, 1]
            assert len(set(proba[feature == 0])) == len(set(proba[feature == 1])) == 1
            assert proba[feature == 0].max() < proba[feature == 1].min()

    def test_the_result_says_so(self, anew):
        evaluation = anew[0]
        assert evaluation.protocol["retrain_encoder"] is True
        assert [RETRAINED in model.notes for model in evaluation.models] == [True, True, False]
        words = "Each inner fit, which chooses threshold and calibration, had an encoder without the patients it scores"
        assert evaluation.models[0].notes[1] == f"{words}: 16 encoders were trained in all."
        assert evaluation.models[0].families[0].endswith("), trained again in each fold")
        assert evaluation.models[2].families == ("MeanColor(power=1)",)
        finding = evaluation.audit.finding("HF007")
        assert finding.status == "passed"
        assert finding.numbers["encoders_retrained"] == 1
        assert "Encoders trained again inside each fold: 1." in finding.detail

    def test_behind_a_normaliser_it_learns_from_normalised_images(self, cohort, tmp_path):
        Memory.seen.clear()
        family = Memory().learnt(cohort.X[:2], cohort.y[:2], tmp_path, "theirs")
        pipelines = {"normalised": of(family, normalizer="reinhard"), "plain": of(family)}
        folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 0}
        evaluation = evaluate(cohort, pipelines, retrain_encoder=True, **folds)
        assert len(Memory.seen) == 12
        train, _ = evaluation.splits[0]
        normalizer = ReinhardNormalizer().fit(cohort.X[train], groups=cohort.patients[train])
        images = Memory.seen[0][0]
        expected = next(iter(normalizer.transform(cohort.X[train][:1])))
        np.testing.assert_array_equal(images.decode(0, images.content(0))[0], expected)
        assert list(Memory.seen[1][0].items) == list(cohort.X[train])
        assert len(evaluation.models) == 2

    def test_others_are_left_out_at_the_same_time(self, dataset, knowing):
        pipelines = {"memory": of(knowing(n_patients=20)), "fixed": of(knowing(Fixed, 4))}
        more = {"audit": AuditPolicy(known_patients="leave_out"), "retrain_encoder": True}
        found = evaluate(dataset, pipelines, **more, **QUICK)
        assert found.left_out.encoders == {"fixed: fixed": 4}
        assert [entry.name for entry in found.models] == ["memory", "fixed"]
        with pytest.raises(GroupLeakageError, match=r"HF007 .* got 4: fixed: fixed knows"):
            evaluate(dataset, pipelines, retrain_encoder=True, **QUICK)

    def test_an_encoder_that_remembers_more_is_refused(self, dataset, knowing):
        with pytest.raises(
            GroupLeakageError,
            match=r"evaluate.retrain_encoder, GoesOn in fold 1: expected an encoder that knows no tested patient, got "
            r"one that knows 50 of their images, the first of patient \d+\. Let its `retrained` learn from the images",
        ):
            evaluate(dataset, of(knowing(GoesOn, 20)), retrain_encoder=True, **QUICK)

    def test_an_encoder_that_remembers_the_patients_of_an_inner_fit_is_refused(self, dataset, knowing):
        """It was given before, and knows training patients: those of the other folds are tested."""
        train = dataset.patients.astype(int) < 8
        with pytest.raises(
            GroupLeakageError,
            match=r"retrain_encoder, GoesOn in fold 1, inner fit 1: expected an encoder that knows no",
        ):
            evaluate(dataset, of(knowing(GoesOn, 8)), [(train, ~train)], retrain_encoder="inner", n_resamples=0)

    @pytest.mark.parametrize(("again", "n_trained"), [(False, 0), ("inner", 3), (True, 4)])
    def test_what_inner_fits_choose_does_not_rest_on_features_that_know_their_patients(
        self, dataset, knowing, again, n_trained
    ):
        """The encoder knows the labels of the training patients by heart, and nothing of others."""
        Memory.seen.clear()
        train, family = dataset.patients.astype(int) < 8, knowing(n_patients=8)
        more = {"retrain_encoder": again, "search": {"logistic": {"C": [0.1, 1.0]}}, "n_resamples": 0}
        (model,) = evaluate(dataset, of(family), [(train, ~train)], **more).models
        assert len(Memory.seen) == n_trained
        assert (RETRAINED in model.notes) is (again is True)
        assert any(f": {n_trained} encoders were trained in all." in note for note in model.notes) is bool(again)
        # By the encoder of the fold the inner fits are right about all patches.
        assert (model.choices[0]["inner_score"] == 1.0) is (again is False)
        assert again is False or 0.3 < model.choices[0]["inner_score"] < 0.7
        # Tested patches are measured by the encoder that was given, which is that of the fold here.
        feature, proba = extract([family], dataset.X[~train]).features[0][:, 0], model.proba[~train, 1]
        assert proba[feature == 0].max() < 0.3 < 0.7 < proba[feature == 1].min()

    def test_inner_encoders_calibrate_a_head_that_has_no_probabilities(self, dataset, knowing):
        train, family = dataset.patients.astype(int) < 8, knowing(n_patients=8)
        found = [
            evaluate(dataset, of(family, "svm"), [(train, ~train)], retrain_encoder=again, n_resamples=0).models[0]
            for again in (False, "inner")
        ]
        sure, honest = (np.abs(model.proba[~train, 1] - 0.5) for model in found)
        assert sure.min() > 0.45
        assert honest.max() < 0.25

    def test_another_choice_is_refused(self, dataset):
        with pytest.raises(ValueError, match=r"retrain_encoder: expected False, True or 'inner', got 'outer'"):
            evaluate(dataset, mean_color(), retrain_encoder="outer")

    def test_an_encoder_that_does_not_tell_is_refused(self, dataset, knowing):
        with pytest.raises(ValueError, match=r"Silent in fold 1: expected a record of the images .* got none"):
            evaluate(dataset, of(knowing(Silent)), retrain_encoder=True, **QUICK)

    def test_leaks_that_were_accepted_are_no_fault_of_the_encoder(self, dataset, knowing):
        more = {"cv": PatchKFold(2), "n_resamples": 0, "audit": AuditPolicy(accept_findings=("HF001",))}
        found = evaluate(dataset, of(knowing()), retrain_encoder=np.True_, **more)
        assert found.protocol["retrain_encoder"] is True
        assert RETRAINED in found.models[0].notes
        assert found.patient_overlap
        assert found.audit.accepted == ("HF001",)

    def test_what_cannot_be_trained_is_not_run_and_the_rest_goes_on(self, dataset, knowing):
        pipelines = {
            "memory": of(knowing()),
            "cannot": of(knowing(CannotTrain)),
            "both": IDCPipeline((knowing(CannotTrain), knowing(Fixed, 1)), "logistic"),
        }
        more = {"audit": AuditPolicy(known_patients="leave_out"), "retrain_encoder": True, **QUICK}
        with pytest.warns(UserWarning, match="not run: cannot, logistic; both, logistic: "):
            found = evaluate(dataset, pipelines, **more)
        assert [model.name for model in found.models] == ["memory"]
        assert [(entry.name, entry.reason) for entry in found.not_run] == [
            (name, "CannotTrain: expected the package nothing, found none.") for name in ("cannot", "both")
        ]

    def test_nothing_to_train(self, dataset, knowing):
        pipelines = {"mean": mean_color(), "fixed": of(knowing(Fixed))}
        with pytest.raises(ValueError, match=r"expected a family that can be trained again, .* got 'mean', 'fixed'"):
            evaluate(dataset, pipelines, retrain_encoder=True, **QUICK)

    def test_nothing_that_runs(self, dataset):
        with pytest.raises(ValueError, match=r"got none\. pipeline, logistic: Memory.weights: .*nowhere\.npz"):
            evaluate(dataset, of(Memory("nowhere.npz")), retrain_encoder=True, **QUICK)


# --- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(dataset, knowing, tmp_path_factory):
    patients = dataset.patients.astype(int)
    cv = [
        (patients >= 3, patients < 3),
        (patients < 10, patients >= 10),
        (patients >= 10, (patients > 2) & (patients < 10)),
    ]
    pipelines = {"anew": of(knowing(n_patients=20)), "fixed": of(knowing(Fixed, 4))}
    more = {"audit": AuditPolicy(known_patients="leave_out"), "retrain_encoder": True, "n_resamples": 20}
    return write_report(evaluate(dataset, pipelines, cv, **more), tmp_path_factory.mktemp("report") / "one").parent


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_says_who_was_left_out_and_what_was_trained_before_any_number(report, name):
    text = " ".join((report / name).read_text(encoding="utf-8").replace("\n>", " ").split())
    top, _, rest = text.partition("Comparison")
    for words in (
        "Patients known to an encoder were not tested",
        "4 of 20 patients (40 patches) were left out of the tests of all models",
        "(fixed: fixed knows 4). All models were tested on the same 16 patients (160 patches)",
        "Folds without a patient left to test were removed: 1.",
        "look better than those of new patients",
        "Encoders were trained again in each fold",
        "Feature sets: anew.",
        "Its encoder was trained again on the training patients of each fold, and on those of each inner fit.",
    ):
        assert words in top
    for words in ("known patients", "left out", "retrain encoder", "Training encoders again in each fold"):
        assert words in rest
    assert "Trained again on the training patients of each fold: the encoders of anew." in rest


def test_the_numbers_of_a_report_say_so_too(report):
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["protocol"]["known_patients"] == "leave_out"
    assert metrics["protocol"]["left_out"]["encoders"] == {"fixed: fixed": 4}
    assert metrics["protocol"]["left_out"]["folds"] == [1]
    assert metrics["protocol"]["retrain_encoder"] is True
    assert RETRAINED in metrics["results"][0]["notes"]
    splits = json.loads((report / "splits.json").read_text(encoding="utf-8"))
    assert splits["never_tested"]["patients"] == ["0", "1", "2", "3"]


def test_other_reports_say_nothing_of_it(left_out):
    known = {"audit": None, "dataset": {"audit": {"complete": None, "left_out": []}}, "not_run": [], "retrained": []}
    assert render_markdown("report-notices.md.j2", {"protocol": {"patient_overlap": False}, **known}) == "\n"
