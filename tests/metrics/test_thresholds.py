"""Thresholds by rule, against a loop over all of them; ties, edges, and rules that are none."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn import metrics as sk

from histofeat.metrics import choose_threshold, parse_rule
from histofeat.metrics._thresholds import RULES, ThresholdRule, rule_examples

TABLES = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40)

RULES_TRIED = ["f1", "youden", "sensitivity=0.8", "sensitivity=1.0", "specificity=0.75", "specificity=1.0"]


def by_loop(y, score):
    """Every threshold that makes a difference, with what it gives: (F1, Youden's J, sensitivity, specificity)."""
    values = sorted(set(score.tolist()))
    edges = [0.0, *values]
    found = {}
    for low, high in pairwise(edges):
        threshold = (low + high) / 2
        called = [value >= threshold for value in score]
        tp = sum(c and t for c, t in zip(called, y, strict=True))
        fp = sum(called) - tp
        sensitivity, specificity = tp / sum(y), 1 - fp / (len(y) - sum(y))
        f1 = 2 * tp / (sum(called) + sum(y))
        found[threshold] = (f1, sensitivity + specificity - 1, sensitivity, specificity)
    return found


def nearest_to_half(thresholds):
    return min(thresholds, key=lambda threshold: (abs(threshold - 0.5), threshold))


@settings(max_examples=150, deadline=None)
@given(table=TABLES, rule=st.sampled_from(RULES_TRIED))
def test_threshold_is_the_best_of_a_loop_over_all(table, rule):
    y, score = np.array([int(row[0]) for row in table]), np.array([(row[1] + 1) / 10 for row in table])
    if len(set(y.tolist())) < 2:
        return
    found = by_loop(y.tolist(), score)
    if rule.startswith("sensitivity"):
        required = float(rule.partition("=")[2])
        enough = {threshold for threshold, scores in found.items() if scores[2] >= required}
        expected = max(enough)
        # The highest of them has the highest specificity, too.
        assert found[expected][3] == max(found[threshold][3] for threshold in enough)
    elif rule.startswith("specificity"):
        required = float(rule.partition("=")[2])
        enough = {threshold for threshold, scores in found.items() if scores[3] >= required - 1e-12} or {max(found)}
        most = max(found[threshold][2] for threshold in enough)
        expected = max(threshold for threshold in enough if found[threshold][2] == most)
    else:
        place = 0 if rule == "f1" else 1
        best = max(scores[place] for scores in found.values())
        expected = nearest_to_half([t for t, scores in found.items() if scores[place] >= best - 1e-12])
    assert choose_threshold(y, score, rule) == pytest.approx(expected, abs=1e-12)


def test_youden_is_the_highest_balanced_accuracy():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    score = np.clip(0.3 * y + rng.uniform(size=300) * 0.7, 0, 1)
    fpr, tpr, _ = sk.roc_curve(y, score)
    at = sk.balanced_accuracy_score(y, score >= choose_threshold(y, score, "youden"))
    assert at == pytest.approx((1 + (tpr - fpr).max()) / 2)
    assert at > sk.balanced_accuracy_score(y, score >= choose_threshold(y, score, "f1")) - 1e-12


def test_youden_counts_equal_gains_as_equal():
    # J is 1/3 three times: 1/3 - 0, 2/3 - 1/3 and 1 - 2/3, of which the last is larger in floating point.
    assert 1 - 2 / 3 > 2 / 3 - 1 / 3
    y, score = [1, 0, 1, 0, 1, 0], [0.9, 0.8, 0.6, 0.4, 0.2, 0.1]
    assert choose_threshold(y, score, "youden") == pytest.approx(0.5)


def test_a_score_that_is_worse_than_chance_calls_everything_positive():
    assert choose_threshold([1, 0], [0.2, 0.8], "youden") == pytest.approx(0.1)


def test_required_sensitivity_counts_exactly():
    # 7 of 100 positives are a share of 0.07, although 0.07 * 100 is more than 7 in floating point.
    score = np.linspace(0.01, 1.0, 101)
    y = np.r_[0, np.ones(100, dtype=int)]
    threshold = choose_threshold(y, score, "sensitivity=0.07")
    assert (score >= threshold).sum() == 7
    assert (score >= choose_threshold(y, score, "sensitivity=0.071")).sum() == 8
    assert (score >= choose_threshold(y, score, "sensitivity=1.0")).sum() == 100


def test_required_specificity_counts_exactly_and_is_missed_rather_than_calling_nothing_positive():
    y, score = np.r_[1, np.zeros(20, dtype=int)], np.linspace(0.01, 1.0, 21)
    called = [(score >= choose_threshold(y, score, f"specificity={share}")).sum() for share in (0.95, 0.9, 0.01)]
    assert called == [1, 1, 1]  # the positive patch is the lowest of all: one call finds as much as twenty
    y, score = np.r_[np.zeros(20, dtype=int), 1], np.r_[np.linspace(0.01, 0.9, 20), 0.88]
    assert (score >= choose_threshold(y, score, "specificity=0.95")).sum() == 2  # 19 of 20 stay negative
    assert (score >= choose_threshold(y, score, "specificity=0.951")).sum() == 1


@settings(max_examples=80, deadline=None)
@given(table=TABLES)
def test_no_threshold_has_a_higher_f1(table):
    y, score = np.array([int(row[0]) for row in table]), np.array([row[1] / 8 for row in table])
    if len(set(y)) < 2:
        return

    def f1(threshold):
        called = score >= threshold
        return 2 * (called & (y == 1)).sum() / (called.sum() + y.sum())

    threshold = choose_threshold(y, score, "f1")
    assert f1(threshold) >= max(f1(other) for other in np.linspace(0, 1, 65))
    assert 0 <= threshold <= 1


def test_threshold_is_halfway_between_scores_and_ties_go_to_one_half():
    assert choose_threshold([0, 1], [0.2, 0.6], "f1") == pytest.approx(0.4)
    # Below 0.3 both are found, with one false alarm: F1 4/5; above 0.7 one: 2/3.
    assert choose_threshold([1, 0, 1], [0.3, 0.5, 0.7], "f1") == pytest.approx(0.15)
    # F1 is 2/3 for the upper one alone and for all four: 0.85 is nearer to one half than 0.05 is.
    y, score = [1, 0, 0, 1], [0.9, 0.8, 0.7, 0.1]
    f1 = {threshold: sk.f1_score(y, np.array(score) >= threshold) for threshold in (0.85, 0.05)}
    assert f1[0.85] == pytest.approx(f1[0.05])
    assert choose_threshold(y, score, "f1") == pytest.approx(0.85)
    # Equally near: the lower.
    assert choose_threshold([1, 0, 0, 1], [0.75, 0.75, 0.25, 0.25], "f1") == pytest.approx(0.125)


@pytest.mark.parametrize("rule", ["f1", "youden", "sensitivity=0.9", "specificity=0.9"])
def test_threshold_between_neighbouring_floats_separates_them(rule):
    low = 0.3
    high = np.nextafter(low, 1)
    threshold = choose_threshold([0, 1], [low, high], rule)
    assert low < threshold <= high


@pytest.mark.parametrize("rule", ["f1", "youden", "sensitivity=0.9", "specificity=0.9"])
def test_threshold_when_every_score_is_zero(rule):
    assert choose_threshold([0, 1], [0.0, 0.0], rule) == 0.0


def test_rules_are_read_and_written_alike():
    for text in ("f1", "youden", "sensitivity=0.95", "sensitivity=1.0", "sensitivity=1e-05", "specificity=0.9"):
        rule = parse_rule(text)
        assert (str(rule), parse_rule(rule)) == (text, rule)
    assert parse_rule("sensitivity=1").number == 1
    assert [parse_rule(text).words for text in ("f1", "sensitivity=0.9")] == [
        "the highest F1", "the highest specificity at a sensitivity of at least 0.9",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("yuoden", r"threshold: expected a rule such as f1, youden, .*, got 'yuoden'. Did you mean 'youden'\?"),
        ("cost", r"got 'cost'. Known names: f1, sensitivity, specificity, youden."),
        ("cost=3", r"got 'cost'"),
        (0.5, r"threshold: expected a rule .*, got 0.5"),
        (None, r"threshold: expected a rule .*, got None"),
        ("specificity=0", r"required specificity above 0 and of at most 1, got 0.0"),
        ("sensitivity", r"threshold: expected a number with the rule 'sensitivity', 'specificity' .* with None"),
        ("youden=0.9", r"threshold: expected a number with the rule .*, got 'youden' with 0.9"),
        ("sensitivity=", r"threshold: expected a number after 'sensitivity=', got 'sensitivity='"),
        ("sensitivity=high", r"threshold: expected a number after 'sensitivity=', got 'sensitivity=high'"),
        ("sensitivity=0", r"required sensitivity above 0 and of at most 1, got 0.0"),
        ("sensitivity=1.01", r"required sensitivity above 0 and of at most 1, got 1.01"),
        ("sensitivity=95", r"required sensitivity above 0 and of at most 1, got 95.0"),
        ("sensitivity=nan", r"required sensitivity above 0 and of at most 1, got nan"),
    ],
)
def test_what_is_no_rule_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        choose_threshold([0, 1], [0.2, 0.6], rule)


def test_every_rule_is_a_record_that_help_texts_name():
    for name, rule in RULES.items():
        made = parse_rule(rule.example)
        assert made.name == name
        assert rule.example in rule_examples()
        assert f'"{rule.example}":' in choose_threshold.__doc__
        assert "{" not in made.words


def test_a_rule_cannot_be_made_wrong():
    with pytest.raises(ValueError, match="expected a rule such as f1"):
        ThresholdRule("accuracy")
    with pytest.raises(ValueError, match=r"got 1.5"):
        ThresholdRule("sensitivity", 1.5)


def test_threshold_refusals():
    with pytest.raises(ValueError, match=r"choose_threshold.y: expected both classes, got 0 positive of 3 patches"):
        choose_threshold([0, 0, 0], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"expected both classes, got 3 positive of 3"):
        choose_threshold([1, 1, 1], [0.1, 0.2, 0.3], "f1")
    with pytest.raises(ValueError, match=r"choose_threshold.score: expected probabilities .*, got nan in row 1"):
        choose_threshold([0, 1], [0.1, np.nan], "youden")
    with pytest.raises(ValueError, match=r"choose_threshold.y: expected shape \(3,\)"):
        choose_threshold([0, 1], [0.1, 0.2, 0.3])
