"""What pipelines and predictions give away: encoders that know test patients, and fits outside the folds."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from test_split_audit import dataset_of
from test_split_audit_images import patch_of

from histofeat import CNNEmbedding, IDCPipeline, evaluate
from histofeat.evaluation import audit_fingerprints, cheap_findings
from histofeat.evaluation.audit import _encoders
from histofeat.evaluation.audit._findings import check_audit
from histofeat.exceptions import GroupLeakageError
from histofeat.features import ColorHistogram, Fingerprints, ImageFingerprint, TrainingImages
from histofeat.model_selection import PatientKFold
from histofeat.networks import TrainingData, known_training

HALVES = [([0, 1, 2, 3], [4, 5, 6, 7])]
FEATURES = np.random.default_rng(0).normal(size=(40, 3))
LABELS = FEATURES[:, 0] > 0


class Learnt(ColorHistogram):
    """A family that learnt from patches, and says from which by a file beside its weights."""

    family = "learnt"

    def __init__(self, record=None, bins=16, spaces=("rgb",), moments=True):
        super().__init__(bins, spaces, moments)
        self.record = record

    def trained_on(self):
        return self.record


@pytest.fixture(scope="module")
def prints():
    """Fingerprints of eight patches, each of a patient of its own but the last two."""
    return ImageFingerprint().transform([patch_of(seed) for seed in range(8)])


def audited(prints, pipelines, patients="abcdefgg", splits=HALVES):
    return audit_fingerprints(dataset_of(list(patients)), splits, prints, pipelines=pipelines).finding("HF007")


def learnt(record):
    return {"mine": IDCPipeline(features=Learnt(record), head="logistic")}


class TestTrainedEncoders:
    def test_caught_by_the_image(self, prints):
        found = audited(prints, learnt(TrainingImages.of("theirs", prints[[1, 4]])))
        assert found.is_error
        assert found.offenders == (
            "mine: learnt knows 1 image of patient e, tested in fold 1, from its training on 'theirs'",
        )
        assert found.numbers == {
            "encoders_with_records": 1,
            "encoders_silent": 0,
            "patients": 1,
            "patients_not_tested": 1,
        }

    def test_a_patient_is_known_by_any_image(self, prints):
        # The image of row 7 is tested nowhere; its patient g is, by row 6.
        found = audited(prints, learnt(TrainingImages.of("mine", prints[[7]])), splits=[([0, 1, 2, 3], [4, 5, 6])])
        assert [words.split("patient ")[1][0] for words in found.offenders] == ["g"]

    def test_several_records(self, prints):
        records = (TrainingImages.of("one", prints[[5]]), TrainingImages.of("two", prints[[4]]))
        assert len(audited(prints, learnt(records)).offenders) == 2

    def test_passed_on_training_patients(self, prints):
        found = audited(prints, learnt(TrainingImages.of("mine", prints[[0, 3]])))
        assert (found.status, found.severity) == ("passed", "error")

    def test_passed_on_other_images_under_the_same_patients_and_name(self, prints):
        other = ImageFingerprint().transform([patch_of(seed) for seed in range(100, 108)])
        assert audited(prints, learnt(TrainingImages.of("mine", other))).status == "passed"

    def test_images_of_one_colour_prove_nothing(self):
        images = [patch_of(seed) for seed in range(7)] + [np.full((50, 50, 3), 255, dtype=np.uint8)]
        prints = ImageFingerprint().transform(images)
        assert audited(prints, learnt(TrainingImages.of("theirs", prints[[7]]))).status == "passed"

    def test_imagenet_and_handcrafted_features_pass(self, prints):
        pipelines = {"both": IDCPipeline(features=("lbp", CNNEmbedding("mobilenet_0.25")), head="logistic")}
        assert audited(prints, pipelines).status == "passed"
        assert cheap_findings(dataset_of(range(8)), HALVES, pipelines=pipelines).finding("HF007").status == "passed"

    def test_other_weights_without_a_record_are_a_warning(self, prints):
        pipelines = {"mine": IDCPipeline(features=CNNEmbedding("mobilenet_0.25", weights="own.h5"), head="logistic")}
        found = audited(prints, pipelines)
        assert (found.status, found.severity) == ("issue", "warning")
        assert found.offenders == ("mine: cnn",)

    def test_data_that_its_authors_declare_are_found_by_names(self, prints):
        pipelines = {"mine": IDCPipeline(features=("lbp", CNNEmbedding("phikon")), head="logistic")}
        patients = ["TCGA-A1-A0SB", "b", "c", "d", "TCGA-A1-A0SE", "TCGA-A1-A0SE", "TCGA-3C-AALK", "h"]
        found = audited(prints, pipelines, patients=patients)
        assert found.is_error
        assert found.offenders == (
            "mine: cnn (phikon) was trained on TCGA, as its authors declare (10.1101/2023.07.21.23292757), and the "
            "names of 2 tested patients are from there",
        )
        assert found.detail == (
            "Tested patients in an encoder's training set: 0. Declared by authors, not found by comparing pixels: 1. "
            "Declared training data: mine: cnn (phikon): TCGA."
        )
        assert found.numbers["encoders_declared"] == 1
        # Without images as well, so that it is refused before the first one is read.
        early = cheap_findings(dataset_of(patients), HALVES, pipelines=pipelines)
        assert early.finding("HF007").offenders == found.offenders
        with pytest.raises(GroupLeakageError, match=r"HF007 .* got 1: mine: cnn \(phikon\) was trained on TCGA"):
            check_audit(early, ("HF004", "HF009"))
        # Training patients alone may be known, and made-up images are from nowhere.
        assert audited(prints, pipelines, patients=patients[:4] + list("efgh")).status == "passed"
        made_up = cheap_findings(dataset_of(patients, synthetic=True), HALVES, pipelines=pipelines)
        assert made_up.finding("HF007").status == "passed"

    @pytest.mark.parametrize(
        ("encoder", "said"),
        [
            ("uni", "Declared training data: plain.steps[0][1] (uni): Mass-100K."),
            ("h0-mini", "Declared training data: plain.steps[0][1] (h0-mini): TCGA and training data of h-optimus-0."),
            ("virchow2", "Training data not known: plain.steps[0][1] (virchow2)."),
            ("resnet50", ""),
        ],
    )
    def test_what_is_declared_or_not_known_is_said_once(self, encoder, said, monkeypatch):
        nothing = {"virchow2": known_training("timm:any")}  # as of a network that the register does not have
        monkeypatch.setattr(_encoders, "known_training", lambda name: nothing.get(name) or known_training(name))
        pipelines = {"plain": make_pipeline(CNNEmbedding(encoder), LogisticRegression())}
        found = cheap_findings(dataset_of("abcdefgh"), HALVES, pipelines=pipelines).finding("HF007")
        assert (found.status, found.severity) == ("passed", "error")
        assert found.detail == " ".join(
            filter(None, ("No encoder knows a tested patient (no part says that it learnt from patches).", said))
        )

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            ("IDC", "idc/8863/0/8863_idx5_x{k}51_y1451_class0.png"),
            ("BreakHis", "SOB_M_DC-14-2523-100-{k:03d}.png"),
            ("TCGA", "slides/TCGA-A1-A0SB-01Z-00-DX1_{k}.png"),
        ],
    )
    def test_origins_are_told_by_names(self, data, name, monkeypatch):
        monkeypatch.setattr(_encoders, "known_training", lambda encoder: (TrainingData(data, "public", "a page"),))
        patients = dataset_of("abcdefgh")
        frame = patients.frame.assign(path=[name.format(k=k) for k in range(8)])
        pipelines = {"mine": IDCPipeline(features=CNNEmbedding("uni"), head="logistic")}
        named = replace(patients, frame=frame, root=None)
        finding = cheap_findings(named, HALVES, pipelines=pipelines).finding("HF007")
        assert finding.offenders == (
            f"mine: cnn (uni) was trained on {data}, as its authors declare (a page), and the names of 4 tested "
            "patients are from there",
        )
        assert cheap_findings(patients, HALVES, pipelines=pipelines).finding("HF007").status == "passed"

    def test_given_weights_are_not_those_of_the_authors(self):
        pipelines = {"mine": IDCPipeline(features=CNNEmbedding("phikon", weights="own.pth"), head="logistic")}
        patients = ["TCGA-A1-A0SB", "b", "c", "d", "TCGA-A1-A0SE", "f", "g", "h"]
        found = cheap_findings(dataset_of(patients), HALVES, pipelines=pipelines).finding("HF007")
        assert (found.severity, found.offenders) == ("warning", ("mine: cnn",))

    def test_a_record_that_cloning_would_lose_counts(self, prints):
        family = ColorHistogram()
        family.trained_on = TrainingImages.of("theirs", prints[[4]])
        assert audited(prints, {"mine": IDCPipeline(features=[family], head="logistic")}).status == "issue"

    def test_inside_a_plain_estimator(self, prints):
        pipeline = make_pipeline(Learnt(TrainingImages.of("theirs", prints[[4]])), LogisticRegression())
        assert audited(prints, {"plain": pipeline}).offenders[0].startswith("plain.steps[0][1] knows 1 image")

    def test_left_open_without_images(self, prints):
        pipelines = learnt(TrainingImages.of("mine", prints))
        report = cheap_findings(dataset_of(range(8)), HALVES, pipelines=pipelines)
        assert "HF007" not in [finding.code for finding in report.findings]

    def test_not_applicable(self, prints):
        assert audited(prints, None).status == "not applicable"

    def test_what_is_no_record(self, prints):
        with pytest.raises(ValueError, match=r"mine: learnt.trained_on: expected TrainingImages .* got '8863'"):
            audited(prints, learnt(["8863"]))

    @pytest.mark.parametrize(
        ("dataset", "digests", "message"),
        [
            ("mine", ["8863"], r"digests of 16 bytes, got '8863' \(1 such"),
            ("mine", [b"short", b"x" * 16], r"got b'short' \(1 such"),
            (None, [], "expected the name of a data set and digests of 16 bytes, got the data set None"),
        ],
    )
    def test_refused_records(self, dataset, digests, message):
        with pytest.raises(ValueError, match=message):
            TrainingImages(dataset, frozenset(digests))

    def test_records_hold_the_digests(self, prints):
        assert TrainingImages.of("mine", prints).digests == set(Fingerprints.of(prints).keys())


class Booster(ClassifierMixin, BaseEstimator):
    """A classifier that keeps what it learnt as xgboost does."""

    def fit(self, X, y):
        self._Booster = object()
        return self


class KeepsItself(StandardScaler):
    """A scaler that refuses to be cloned."""

    def __sklearn_clone__(self):
        return self


def outside(pipelines):
    return cheap_findings(dataset_of(range(8)), HALVES, pipelines=pipelines).finding("HF008")


def fitted_scaler():
    return StandardScaler().fit(FEATURES)


def closed_over():
    scaler = fitted_scaler()
    return FunctionTransformer(lambda X: scaler.transform(X))


def as_default():
    def scale(X, scaler=fitted_scaler()):  # noqa: B008
        return scaler.transform(X)

    return FunctionTransformer(scale)


class TestFittedParts:
    @pytest.mark.parametrize(
        ("part", "path"),
        [
            (FrozenEstimator(fitted_scaler()), "steps[0][1] (FrozenEstimator)"),
            (FunctionTransformer(fitted_scaler().transform), "steps[0][1].func.__self__ (StandardScaler)"),
            (
                FunctionTransformer(partial(lambda X, by: by.transform(X), by=fitted_scaler())),
                "steps[0][1].func.keywords['by'] (StandardScaler)",
            ),
            (
                FunctionTransformer(lambda X, by: X, kw_args={"by": [fitted_scaler().transform]}),
                "steps[0][1].kw_args['by'][0].__self__ (StandardScaler)",
            ),
            (closed_over(), "steps[0][1].func.scaler (StandardScaler)"),
            (as_default(), "steps[0][1].func.__defaults__[0] (StandardScaler)"),
            (KeepsItself().fit(FEATURES), "steps[0][1] (KeepsItself)"),
        ],
    )
    def test_caught_in_a_head(self, part, path):
        head = make_pipeline(part, LogisticRegression())
        found = outside({"mine": IDCPipeline(features="lbp", head=head)})
        assert found.is_error
        assert found.offenders == (f"mine: head.classifier.{path}",)

    def test_caught_in_a_frozen_booster_and_named_once(self):
        frozen = FrozenEstimator(make_pipeline(StandardScaler(), Booster()).fit(FEATURES, LABELS))
        pipelines = {"mine": IDCPipeline(features="lbp", head=frozen), "plain": frozen}
        assert outside(pipelines).offenders == (
            "mine: head.classifier (FrozenEstimator)",
            "plain (FrozenEstimator)",
        )

    def test_a_booster_behind_a_function(self):
        bound = FunctionTransformer(Booster().fit(FEATURES, LABELS).get_params)
        assert outside({"plain": make_pipeline(bound)}).offenders == ("plain.steps[0][1].func.__self__ (Booster)",)

    def test_caught_in_a_family(self):
        family = ColorHistogram(spaces=["rgb", FrozenEstimator(fitted_scaler())])
        found = outside({"mine": IDCPipeline(features=[family], head="logistic")})
        assert found.offenders == ("mine: color.spaces[1] (FrozenEstimator)",)

    def test_caught_in_a_normaliser(self, patches):
        from histofeat.images import ReinhardNormalizer

        normalizer = ReinhardNormalizer().fit(patches)
        assert outside({"mine": IDCPipeline(features="lbp", normalizer=normalizer)}).status == "passed"
        normalizer.n_jobs = FrozenEstimator(fitted_scaler())
        found = outside({"mine": IDCPipeline(features="lbp", normalizer=normalizer)})
        assert found.offenders == ("mine: normalizer.n_jobs (FrozenEstimator)",)

    def test_passed_where_cloning_forgets(self):
        head = make_pipeline(fitted_scaler(), LogisticRegression()).fit(FEATURES, LABELS)
        calibrated = CalibratedClassifierCV(LogisticRegression()).fit(FEATURES, LABELS)
        pipelines = [
            ("fitted before", IDCPipeline(features="lbp", head=head)),
            ("calibrated", IDCPipeline(features="lbp", head=calibrated)),
            ("plain", head),
            ("by name", IDCPipeline(features=("color", "lbp"), head="svm")),
        ]
        found = outside(pipelines)
        assert found.status == "passed"
        assert "pipelines (4)" in found.detail

    def test_one_pipeline_without_a_name(self):
        assert outside(IDCPipeline(features="lbp", head="logistic")).status == "passed"

    def test_a_pipeline_that_cannot_be_built_is_named(self, monkeypatch):
        from histofeat.exceptions import MissingExtraError

        def missing(self):
            raise MissingExtraError("head='xgboost': expected the package xgboost, found none.")

        monkeypatch.setattr(IDCPipeline, "make_head", missing)
        assert "in vain mine" in outside({"mine": IDCPipeline(features="lbp")}).detail

    def test_a_name_that_was_never_set_is_no_offence(self):
        def outer():
            def inner(X):
                return later

            if inner is None:  # never: the cell exists and stays empty
                later = 0
            return inner

        assert outside({"plain": make_pipeline(FunctionTransformer(outer()))}).status == "passed"

    @pytest.mark.parametrize(
        ("pipelines", "got"),
        [
            ("lbp", "'lbp'"),
            ({"a": "lbp"}, r"\('a', 'lbp'\)"),
            (5, "5"),
            (IDCPipeline, "IDCPipeline"),
        ],
    )
    def test_refused_pipelines(self, pipelines, got):
        with pytest.raises(
            ValueError, match=f"audit_split.pipelines: expected names with an estimator each, got .*{got}"
        ):
            outside(pipelines)


N_ROWS, N_FOLDS = 300, 3


def make_predictions(seed=0):
    """Scores of three folds by patient, with the labels that they half explain."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, N_ROWS)
    fold = np.arange(N_ROWS) % N_FOLDS
    table = pd.DataFrame({"row": np.arange(N_ROWS), "fold": fold, "score": rng.normal(y, 1.5), "label": y})
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(N_FOLDS)]
    return dataset_of(range(N_ROWS), y), splits, table


def best(table, criterion):
    """The threshold that is best on these rows, by trying every score."""
    scores, y = table["score"].to_numpy(), table["label"].to_numpy() == 1

    def value(threshold):
        predicted = scores >= threshold
        tp, fp, fn, tn = map(np.sum, (predicted & y, predicted & ~y, ~predicted & y, ~predicted & ~y))
        return {
            "F1": 2 * tp / (2 * tp + fp + fn),
            "Youden index": tp / (tp + fn) + tn / (tn + fp),
            "accuracy": tp + tn,
        }[criterion]

    return max(sorted(scores), key=value)


def judged(dataset, splits, predictions):
    return cheap_findings(dataset, splits, predictions=predictions).finding("HF008")


class TestPredictions:
    @pytest.mark.parametrize("criterion", ["F1", "Youden index", "accuracy"])
    @pytest.mark.parametrize("seed", range(3))
    def test_one_threshold_that_is_best_on_the_test_rows(self, criterion, seed):
        dataset, splits, table = make_predictions(seed)
        table["threshold"] = best(table, criterion)
        found = judged(dataset, splits, table)
        assert found.is_error
        assert "on the very test rows" in found.offenders[0]

    @pytest.mark.parametrize(("share", "severity"), [(0.5, "error"), (0.3, "warning")])
    def test_it_need_not_lie_on_a_score(self, share, severity):
        dataset, splits, table = make_predictions()
        scores, threshold = np.sort(table["score"]), best(table, "F1")
        below = scores[np.searchsorted(scores, threshold) - 1]
        found = judged(dataset, splits, table.assign(threshold=threshold - share * (threshold - below)))
        assert (found.status, found.severity) == ("issue", severity)

    def test_two_decimals_may_have_been_typed(self):
        dataset, splits, table = make_predictions()
        threshold = best(table, "F1")
        table["score"] += round(threshold, 2) - threshold
        table.loc[table["score"].sub(round(threshold, 2)).abs().idxmin(), "score"] = round(threshold, 2)
        found = judged(dataset, splits, table.assign(threshold=round(threshold, 2)))
        assert (found.status, found.severity) == ("issue", "warning")

    def test_a_threshold_of_each_fold_that_is_best_on_its_own_test_rows(self):
        dataset, splits, table = make_predictions()
        for _, part in table.groupby("fold"):
            table.loc[part.index, "threshold"] = best(part, "F1")
        found = judged(dataset, splits, table)
        assert found.is_error
        assert found.offenders == ("predictions: the threshold of each fold gives the highest F1 on its own test rows",)

    @pytest.mark.parametrize("seed", range(3))
    def test_passed_for_thresholds_of_the_training_rows(self, seed):
        dataset, splits, table = make_predictions(seed)
        for fold, part in table.groupby("fold"):
            table.loc[part.index, "threshold"] = best(table[table["fold"] != fold], "F1")
        assert judged(dataset, splits, table).status == "passed"

    def test_passed_for_a_threshold_fixed_before(self):
        dataset, splits, table = make_predictions()
        for threshold in (0.5, 1.5, 99.0, -99.0):
            assert judged(dataset, splits, table.assign(threshold=threshold)).status == "passed"

    def test_half_is_above_suspicion(self):
        dataset, splits, table = make_predictions()
        table["score"] += 0.5 - best(table, "F1")
        assert judged(dataset, splits, table.assign(threshold=0.5)).status == "passed"

    def test_a_wide_gap_leaves_room_for_chance(self):
        dataset, splits, table = make_predictions()
        table["score"] = table["label"] + np.random.default_rng(0).uniform(0, 0.5, N_ROWS)
        assert judged(dataset, splits, table.assign(threshold=0.7)).status == "passed"
        assert judged(dataset, splits, table.assign(threshold=best(table, "F1"))).status == "issue"

    def test_a_single_fold_makes_it_a_warning(self):
        dataset, splits, table = make_predictions()
        one = table[table["fold"] == 0]
        found = judged(dataset, splits[:1], one.assign(threshold=best(one, "F1")))
        assert (found.status, found.severity) == ("issue", "warning")

    def test_one_class_has_no_best_threshold(self):
        _, splits, table = make_predictions()
        ones = dataset_of(range(N_ROWS), np.ones(N_ROWS, dtype=int))
        assert judged(ones, splits, table.assign(label=1, threshold=table["score"].min() + 1)).status == "passed"

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_scores_standardised_over_the_test_rows(self, ddof):
        dataset, splits, table = make_predictions()
        by_fold = table.groupby("fold")["score"]
        table["score"] = (table["score"] - by_fold.transform("mean")) / by_fold.transform("std", ddof=ddof)
        found = judged(dataset, splits, table)
        assert found.is_error
        assert "mean 0 and standard deviation 1" in found.offenders[0]

    def test_passed_for_scores_standardised_over_other_rows(self):
        dataset, splits, table = make_predictions()
        table["score"] = (table["score"] - table["score"].mean()) / table["score"].std()
        table.loc[table["fold"] == 0, "score"] *= 0.9
        assert judged(dataset, splits, table).status == "passed"

    def test_forms(self):
        dataset, splits, table = make_predictions()
        leaky = table.assign(threshold=best(table, "F1"))
        as_mapping = {name: values.tolist() for name, values in leaky.items()}
        assert judged(dataset, splits, as_mapping).status == "issue"
        found = judged(dataset, splits, {"good": table, "bad": as_mapping})
        assert found.offenders[0].startswith("bad: the threshold")
        assert "predictions of models (2)" in found.detail

    def test_predictions_of_an_evaluation_pass(self, cohort):
        pipelines = {"color": IDCPipeline(features="color", head="logistic")}
        evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0)
        (model,) = evaluation.models
        thresholds = np.array(model.thresholds)[evaluation.fold]
        columns = {"row": range(len(cohort)), "fold": evaluation.fold, "score": model.proba[:, 1], "label": cohort.y}
        predictions = {"color, logistic": pd.DataFrame({**columns, "threshold": thresholds})}
        assert np.array_equal(model.proba[:, 1] >= thresholds, model.predicted_tuned)
        found = cheap_findings(cohort, evaluation.splits, pipelines=pipelines, predictions=predictions).finding("HF008")
        assert found.status == "passed"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: 5, "predictions: expected a DataFrame or a mapping with the columns .* got int"),
            (lambda t: {"m": [1]}, "predictions, m: expected a DataFrame or a mapping with the columns .* got list"),
            (lambda t: t.drop(columns=["fold", "score"]), "got none named fold, score"),
            (lambda t: t.assign(score=t["score"].where(t["row"] != 3)), r"'score', got nan in row 3 \(1 such"),
            (lambda t: t.assign(score=np.inf), r"finite numbers in the column 'score', got inf in row 0 \(300"),
            (lambda t: t.assign(score="high"), "numbers in the column 'score', got .* values such as 'high'"),
            (lambda t: t.assign(row=t["row"] + 0.5), r"whole numbers in the column 'row', got 0.5 in row 0 \(300"),
            (lambda t: t.assign(label=t["label"] + 1), r"expected labels 0 and 1, got 2 in row"),
            (lambda t: t.assign(label=1 - t["label"]), r"labels of the data set, got another for row 0 \(and 299 more"),
            (lambda t: pd.concat([t, t[:2]]), r"each row once in a fold, got row 0 of fold 0 again \(2 repeated\)"),
            (lambda t: t[4:], r"every test row of each fold, got none for row 0 of fold 0 \(4 such"),
            (lambda t: t.assign(fold=(t["fold"] + 1) % 3), r"only test rows of their fold, got row 0 of fold 1 \(300"),
            (lambda t: t.assign(row=t["row"] + 7), r"only test rows of their fold, got row"),
            (lambda t: t.assign(threshold=t["row"] % 2), "expected one threshold in a fold, got several"),
        ],
    )
    def test_refused(self, change, message):
        dataset, splits, table = make_predictions()
        with pytest.raises(ValueError, match=message):
            judged(dataset, splits, change(table))
