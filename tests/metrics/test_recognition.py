"""Patient and image recognition rates: by hand, by brute force, and their refusals."""

import numpy as np
import pandas as pd
import pytest

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import bootstrap_scores, recognition_rates


@pytest.fixture(scope="module")
def judged():
    """Sixty images of seven patients of very different size, three classes, half of them right."""
    rng = np.random.default_rng(4)
    patients = rng.choice(list("abcdefg"), 60, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    y = rng.integers(0, 3, 60)
    return y, np.where(rng.random(60) < 0.5, y, rng.integers(0, 3, 60)), patients


def test_a_patient_of_four_images_weighs_as_much_as_a_patient_of_one():
    rates = recognition_rates([1, 1, 1, 1, 0], [1, 1, 1, 0, 1], ["10", "10", "10", "10", "9"], n_resamples=0)
    assert rates.patients == ("9", "10")
    assert rates.patient_scores.tolist() == [0.0, 0.75]
    assert rates.n_images.tolist() == [1, 4]
    assert (rates.patient_rate, rates.image_rate) == (0.375, 0.6)


def test_agrees_with_a_grouped_mean(judged):
    y, predicted, patients = judged
    by_patient = pd.Series(y == predicted).groupby(patients).mean()
    rates = recognition_rates(y, predicted, patients, n_resamples=0)
    assert dict(zip(rates.patients, rates.patient_scores, strict=True)) == pytest.approx(by_patient.to_dict())
    assert rates.patient_rate == pytest.approx(by_patient.mean())
    assert rates.image_rate == pytest.approx(np.mean(y == predicted))
    assert rates.patient_rate != pytest.approx(rates.image_rate)


def test_names_of_classes_will_do_as_well_as_codes(judged):
    y, predicted, patients = judged
    names = np.array(["adenosis", "ductal", "mucinous"])
    coded = recognition_rates(y, predicted, patients, n_resamples=20)
    named = recognition_rates(names[y], names[predicted], patients, n_resamples=20)
    assert named.patient_rate == coded.patient_rate
    assert named.interval() == coded.interval()


def test_the_interval_resamples_patients_and_not_images(judged):
    """By brute force: draw the patients, take every image of each as often as the patient was drawn."""
    y, predicted, patients = judged
    rates = recognition_rates(y, predicted, patients, n_resamples=50, random_state=3)
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(7, np.full(7, 1 / 7), size=50)
    right = {p: (y == predicted)[patients == p] for p in rates.patients}
    for times, patient_rate, image_rate in zip(
        drawn, rates.resamples.samples["patient_rate"], rates.resamples.samples["image_rate"], strict=True
    ):
        chosen = [right[p] for p, n in zip(rates.patients, times, strict=True) for _ in range(n)]
        assert patient_rate == pytest.approx(np.mean([images.mean() for images in chosen]))
        assert image_rate == pytest.approx(np.concatenate(chosen).mean())


def test_the_image_rate_shares_its_resamples_with_the_accuracy_of_a_report(judged):
    y, predicted, patients = judged
    proba = np.eye(3)[predicted]
    accuracy = bootstrap_scores(y, proba, patients, n_resamples=200, random_state=1, metrics=("accuracy",))
    rates = recognition_rates(y, predicted, patients, n_resamples=200, random_state=1)
    kept = np.isfinite(accuracy.samples["accuracy"])
    assert kept.sum() > 100
    np.testing.assert_allclose(rates.resamples.samples["image_rate"][kept], accuracy.samples["accuracy"][kept])


def test_a_single_patient_and_no_resamples_have_no_interval():
    assert np.isnan(recognition_rates([0, 1], [0, 0], ["a", "a"]).interval()).all()
    assert np.isnan(recognition_rates([0, 1], [0, 0], ["a", "b"], n_resamples=0).interval("image_rate")).all()


def test_results_are_read_only():
    rates = recognition_rates([0, 1], [0, 0], ["a", "b"], n_resamples=5)
    with pytest.raises(ValueError, match="read-only"):
        rates.patient_scores[0] = 1.0


@pytest.mark.parametrize(
    ("y", "predicted", "words"),
    [
        ([], [], r"recognition_rates.y: expected shape \(n,\), got \(0,\)"),
        ([0, 1], [0], r"recognition_rates.predicted: expected shape \(2,\), got \(1,\)"),
        ([0, 1, 1], [0, -1, -1], r"predicted: expected a class for every image, got -1 in row 1 \(2 such rows\)"),
        ([0, np.nan], [0, 1], r"recognition_rates.y: expected a class for every image, got nan in row 1"),
    ],
)
def test_refuses_labels_that_cannot_be_judged(y, predicted, words):
    with pytest.raises(ValueError, match=words):
        recognition_rates(y, predicted, ["a"] * len(y))


def test_refuses_missing_patients_and_unknown_rates():
    with pytest.raises(GroupLeakageError, match="got None at row 1"):
        recognition_rates([0, 1], [0, 1], ["a", None])
    with pytest.raises(ValueError, match="expected one of patient_rate, image_rate, got 'rate'"):
        recognition_rates([0, 1], [0, 1], ["a", "b"]).interval("rate")
