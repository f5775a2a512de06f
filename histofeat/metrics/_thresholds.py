"""Choose thresholds that turn probabilities into labels, on training patients, by named rules.

Nothing heavy is imported before a threshold is chosen: the help of the command line lists the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from histofeat.exceptions import check_that, known_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike


class _Cuts(NamedTuple):
    """The thresholds to choose from, highest first: how many patches each calls positive, and how many rightly."""

    found: np.ndarray
    called: np.ndarray
    n_positive: int
    n_negative: int


@dataclass(frozen=True)
class Rule:
    """What a threshold can be chosen for.

    Parameters
    ----------
    name : str
        How a person writes it, followed by "=" and a number if the rule needs one.
    words : str
        Completes "the threshold is chosen for ..."; {number} stands for the number.
    best : callable
        Takes the cuts and the number, returns a mask of the cuts that are equally good.
    number : str, optional
        What the number stands for; it is above 0 and at most 1. None for a rule without a number.
    example : str
        One way to write it.
    """

    name: str
    words: str
    best: Callable
    example: str
    number: str | None = None


def _highest_f1(cuts, _):
    f1 = 2 * cuts.found / (cuts.called + cuts.n_positive)
    return f1 == f1.max()


def _highest_youden(cuts, _):
    # Sensitivity + specificity, times both counts: whole numbers, so that ties are ties.
    gain = cuts.found * cuts.n_negative - (cuts.called - cuts.found) * cuts.n_positive
    return gain == gain.max()


def _first_sensitive(cuts, sensitivity):
    reached = cuts.found / cuts.n_positive >= sensitivity
    return reached & (reached.cumsum() == 1)


def _last_specific(cuts, specificity):
    specific = (cuts.n_negative - cuts.called + cuts.found) / cuts.n_negative >= specificity
    # The highest threshold calls the fewest negatives positive; of those that find equally many it is the best.
    specific[0] = True
    most = specific & (cuts.found == cuts.found[specific].max())
    return most & (most.cumsum() == 1)


_RECORDS = (
    Rule("f1", "the highest F1", _highest_f1, "f1"),
    Rule("youden", "the highest sensitivity + specificity - 1 (Youden)", _highest_youden, "youden"),
    Rule(
        "sensitivity",
        "the highest specificity at a sensitivity of at least {number}",
        _first_sensitive,
        "sensitivity=0.95",
        "a share of the positive patches",
    ),
    Rule(
        "specificity",
        "the highest sensitivity at a specificity of at least {number}",
        _last_specific,
        "specificity=0.95",
        "a share of the negative patches",
    ),
)

#: The register: every rule by its name.
RULES = MappingProxyType({rule.name: rule for rule in _RECORDS})


def rule_examples() -> str:
    """Name all rules as a person writes them, for help texts.

    Examples
    --------
    >>> rule_examples()
    'f1, youden, sensitivity=0.95 or specificity=0.95'
    """
    *first, last = (rule.example for rule in RULES.values())
    return f"{', '.join(first)} or {last}"


@dataclass(frozen=True)
class ThresholdRule:
    """A rule with its number, if it needs one.

    Parameters
    ----------
    name : str
        A key of `RULES`.
    number : float in (0, 1], optional
        The required sensitivity or specificity of the rule of that name.

    Examples
    --------
    >>> str(ThresholdRule("sensitivity", 0.95)), ThresholdRule("youden").words
    ('sensitivity=0.95', 'the highest sensitivity + specificity - 1 (Youden)')
    """

    name: str
    number: float | None = None

    def __post_init__(self) -> None:
        """Refuse unknown names, and missing, surplus or impossible numbers."""
        if self.name not in RULES:
            raise _unknown(self.name)
        rule = RULES[self.name]
        if (rule.number is None) != (self.number is None):
            needing = ", ".join(repr(other.name) for other in RULES.values() if other.number)
            raise ValueError(
                f"threshold: expected a number with the rule {needing} and with no other, got {self.name!r} with "
                f"{self.number}. Write {rule.example!r}."
            )
        fits, expected = self.number is None or 0 < self.number <= 1, f"a required {self.name} above 0 and of at most 1"
        check_that("threshold", self.number, fits, expected, f"Write {rule.number}, such as {rule.example!r}.")

    def __str__(self) -> str:
        """Write the rule as `parse_rule` reads it."""
        return self.name if self.number is None else f"{self.name}={float(self.number)!r}"

    @property
    def words(self) -> str:
        """The rule in a sentence: "the threshold is chosen for ..."."""
        return RULES[self.name].words.format(number=self.number)


def _unknown(name):
    return ValueError(
        f"threshold: expected a rule such as {rule_examples()}, got {name!r}. {known_names(str(name), RULES)}"
    )


def parse_rule(rule: str | ThresholdRule) -> ThresholdRule:
    """Read a rule as a person writes it.

    Parameters
    ----------
    rule : str or ThresholdRule
        A key of `RULES`, with "=" and a number in (0, 1] if the rule needs one.

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
    ThresholdRule(name='sensitivity', number=0.9)
    """
    if isinstance(rule, ThresholdRule):
        return rule
    if not isinstance(rule, str):
        raise _unknown(rule)
    name, given, number = rule.partition("=")
    if not given:
        return ThresholdRule(name)
    try:
        number = float(number)
    except ValueError as error:
        example = RULES[name].example if name in RULES else "sensitivity=0.95"
        raise ValueError(f"threshold: expected a number after '{name}=', got {rule!r}. Write {example!r}.") from error
    return ThresholdRule(name, number)


def choose_threshold(y: ArrayLike, score: ArrayLike, rule: str | ThresholdRule = "f1") -> float:
    """Choose the threshold at which ``score >= threshold`` is the best label by a rule.

    Parameters
    ----------
    y : array-like of shape (n,), int
        0 or 1, both present.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1, of patches that the model did not learn from and that it is not tested on.
    rule : str or ThresholdRule, default="f1"
        "f1": the highest F1. "youden": the highest sensitivity + specificity - 1 (Youden's J), which is the highest
        balanced accuracy. "sensitivity=0.95": the highest threshold that finds at least this share of the positive
        patches, which is the highest specificity that such a sensitivity leaves. "specificity=0.95": the highest
        sensitivity that leaves at least this share of the negative patches negative.

    Returns
    -------
    threshold : float
        Halfway between two neighbouring scores, or between 0 and the lowest score. Of several that are equally good
        the one nearest to one half, of two equally near the lower.

    Raises
    ------
    ValueError
        If the rule is invalid, a class is missing, a score is NaN or out of range, or the shapes differ.

    Notes
    -----
    Youden, "Index for rating diagnostic tests", 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    What is reached on new patients differs from what is asked for, by chance and because patients differ. A threshold
    that calls nothing positive is never chosen: where the highest scores are of negatives, a required specificity may
    be missed.

    Examples
    --------
    >>> y, score = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
    >>> [round(choose_threshold(y, score, rule), 2) for rule in ("f1", "youden", "sensitivity=0.6")]
    [0.25, 0.5, 0.5]
    """
    import numpy as np

    from histofeat.metrics._calibration import check_scores
    from histofeat.metrics._definitions import count_positive

    rule = parse_rule(rule)
    y, score = check_scores(y, score, "choose_threshold")
    n_positive = count_positive(y, "choose_threshold", "Choose the threshold on patients of both classes.")
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found, called = np.cumsum(y[order])[last], last + 1
    below = np.append(ranked[last[:-1] + 1], 0.0)
    halfway = (ranked[last] + below) / 2
    # There is nothing between two neighbouring floats: then the upper one is the threshold itself.
    thresholds = np.where(halfway > below, halfway, ranked[last])
    cuts = _Cuts(found, called, n_positive, len(y) - n_positive)
    best = thresholds[RULES[rule.name].best(cuts, rule.number)]
    return float(best[np.lexsort([best, np.abs(best - 0.5)])[0]])
