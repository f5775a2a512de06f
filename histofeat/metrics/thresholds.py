"""Thresholds that turn a probability into a label: by rules that are named, and chosen on training patients."""

from dataclasses import dataclass

import numpy as np

from histofeat.exceptions import known_names
from histofeat.metrics.definitions import check_scores

__all__ = ["RULES", "ThresholdRule", "choose_threshold", "parse_rule"]

#: What a threshold can be chosen for.
RULES = ("f1", "youden", "sensitivity")


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold is chosen for.

    Parameters
    ----------
    name : {"f1", "youden", "sensitivity"}
        The highest F1; the highest sensitivity + specificity - 1; the highest threshold of a required sensitivity.
    sensitivity : float in (0, 1], optional
        The required sensitivity, with the rule "sensitivity" only.

    Examples
    --------
    >>> str(ThresholdRule("sensitivity", 0.95)), ThresholdRule("youden").words
    ('sensitivity=0.95', 'the highest sensitivity + specificity - 1 (Youden)')
    """

    name: str
    sensitivity: float | None = None

    def __post_init__(self):
        """Refuse what is no rule."""
        if self.name not in RULES:
            raise _unknown(self.name)
        if (self.name == "sensitivity") != (self.sensitivity is not None):
            raise ValueError(
                f"threshold: expected a number with the rule 'sensitivity' and with no other, got {self.name!r} with "
                f"{self.sensitivity}. Write 'sensitivity=0.95', 'f1' or 'youden'."
            )
        if self.sensitivity is not None and not 0 < self.sensitivity <= 1:
            raise ValueError(
                f"threshold: expected a required sensitivity above 0 and of at most 1, got {self.sensitivity}. "
                "Write a share of the positive patches, such as 'sensitivity=0.95'."
            )

    def __str__(self):
        """Write the rule as `parse_rule` reads it."""
        return self.name if self.sensitivity is None else f"{self.name}={float(self.sensitivity)!r}"

    @property
    def words(self):
        """The rule in a sentence: "the threshold is chosen for ..."."""
        return {
            "f1": "the highest F1",
            "youden": "the highest sensitivity + specificity - 1 (Youden)",
            "sensitivity": f"the highest specificity at a sensitivity of at least {self.sensitivity}",
        }[self.name]


def _unknown(name):
    return ValueError(
        f"threshold: expected one of 'f1', 'youden' and 'sensitivity=0.95' (any share), got {name!r}. "
        f"{known_names(str(name), RULES)}"
    )


def parse_rule(rule):
    """Read a rule as a person writes it.

    Parameters
    ----------
    rule : str or ThresholdRule
        "f1", "youden", or "sensitivity=" with a number in (0, 1].

    Returns
    -------
    rule : ThresholdRule

    Raises
    ------
    ValueError
        If the rule is unknown, or its number is missing, unreadable or outside (0, 1].

    Examples
    --------
    >>> parse_rule("sensitivity=0.9")
    ThresholdRule(name='sensitivity', sensitivity=0.9)
    """
    if isinstance(rule, ThresholdRule):
        return rule
    if not isinstance(rule, str):
        raise _unknown(rule)
    name, given, number = rule.partition("=")
    if not given:
        return ThresholdRule(name)
    try:
        sensitivity = float(number)
    except ValueError as error:
        raise ValueError(
            f"threshold: expected a number after 'sensitivity=', got {rule!r}. Write 'sensitivity=0.95'."
        ) from error
    return ThresholdRule(name, sensitivity)


def choose_threshold(y, score, rule="f1"):
    """Threshold at which calling ``score >= threshold`` positive does best by a rule.

    Parameters
    ----------
    y : array-like of shape (n,), int
        0 or 1, both present.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1, of patches that the model did not learn from and that it is not tested on.
    rule : str or ThresholdRule, default="f1"
        "f1": the highest F1. "youden": the highest sensitivity + specificity - 1 (Youden's J), which is the highest
        balanced accuracy. "sensitivity=0.95": the highest threshold that finds at least this share of the positive
        patches, which is the highest specificity that such a sensitivity leaves.

    Returns
    -------
    threshold : float
        Halfway between two neighbouring scores, or between 0 and the lowest score. Among thresholds that are equally
        good the one nearest to one half, of two equally near the lower.

    Raises
    ------
    ValueError
        If the rule is none, a class is missing, a score is NaN or out of range, or the shapes differ.

    Notes
    -----
    Youden, "Index for rating diagnostic tests", 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    What is reached on new patients differs from what is asked for here: by chance, and because patients differ. A
    threshold that calls nothing positive is never chosen.

    Examples
    --------
    >>> y, score = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
    >>> [round(choose_threshold(y, score, rule), 2) for rule in ("f1", "youden", "sensitivity=0.6")]
    [0.25, 0.5, 0.5]
    """
    rule = parse_rule(rule)
    y, score = check_scores(y, score, "choose_threshold")
    n_positive = int(y.sum())
    if n_positive in (0, len(y)):
        raise ValueError(
            f"choose_threshold.y: expected both classes, got {n_positive} positive of {len(y)} patches. "
            "Choose the threshold on patients of both classes."
        )
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found, called = np.cumsum(y[order])[last], last + 1
    below = np.append(ranked[last[:-1] + 1], 0.0)
    halfway = (ranked[last] + below) / 2
    # Between two neighbouring floats there is nothing: the upper one is the threshold itself.
    thresholds = np.where(halfway > below, halfway, ranked[last])
    best = thresholds[_is_best(rule, found, called, n_positive, len(y) - n_positive)]
    return float(best[np.lexsort([best, np.abs(best - 0.5)])[0]])


def _is_best(rule, found, called, n_positive, n_negative):
    """Which of the thresholds, from the highest down, are best: `found` positives among `called` patches each."""
    if rule.name == "sensitivity":
        reached = found / n_positive >= rule.sensitivity
        return np.arange(len(found)) == np.argmax(reached)
    if rule.name == "f1":
        gain = 2 * found / (called + n_positive)
    else:  # sensitivity + specificity, times both counts: whole numbers, so that ties are ties
        gain = found * n_negative - (called - found) * n_positive
    return gain == gain.max()
