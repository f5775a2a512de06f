"""What a benchmark found: rows with numbers and targets, and the check that both sides computed the same thing."""

from dataclasses import dataclass

import numpy as np

__all__ = ["DisagreementError", "Row", "Target", "check_close", "check_equal", "compare", "missing"]


class DisagreementError(Exception):
    """Two sides of a benchmark computed different things: their times must not be compared."""


@dataclass(frozen=True)
class Target:
    """A promise: at least or at most `limit`, of the ratio, of our own number, or of its excess over the peer's."""

    words: str  # "at least" or "at most"
    limit: float
    of: str = "ratio"  # "ratio", "ours" or "ours - peer"

    def met(self, row) -> bool | None:
        """Whether `row` keeps the promise; None where nothing was measured."""
        if row.ours is None or (row.peer is None and self.of != "ours"):
            return None
        value = {"ratio": row.ratio, "ours": row.ours}[self.of] if self.of != "ours - peer" else row.ours - row.peer
        return value >= self.limit if self.words == "at least" else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One measurement: our number, the peer's, their ratio, and whether a target was reached."""

    name: str
    group: str
    what: str
    unit: str
    ours: float | None
    peer: float | None = None
    peer_name: str = ""
    ratio_of: str = "peer / ours"
    target: Target | None = None
    checked: str = ""
    repeats: str = ""
    note: str = ""
    ours_median: float | None = None
    peer_median: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the one is the other, in the sense of `ratio_of`."""
        if self.ours is None or self.peer is None:
            return None
        return self.peer / self.ours if self.ratio_of == "peer / ours" else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where there is none, or nothing was measured."""
        return None if self.target is None else self.target.met(self)


def compare(ours, peer=None, *, count=1, unit="s", scale=1.0, per_second=False, **fields) -> Row:
    """Row from the `Timing` of both sides: the best repeat of each, divided by `count` things done.

    With `per_second` it is how many things are done in a second, for a unit that ends in ``/s``; more is better then,
    and ``ours / peer`` the ratio to ask for.
    """

    def shown(seconds):
        return count / seconds if per_second else seconds * scale / count

    return Row(
        unit=unit,
        ours=shown(ours.best),
        ours_median=shown(ours.median),
        peer=None if peer is None else shown(peer.best),
        peer_median=None if peer is None else shown(peer.median),
        repeats=f"best of {len(ours.seconds)}" + ("" if peer is None else ", sides in turn"),
        **fields,
    )


def missing(reason: str, **fields) -> Row:
    """Row of something that could not be measured here, with the reason."""
    return Row(ours=None, note=f"Not measured: {reason}", **{"unit": "", **fields})


def check_close(name: str, ours, theirs, *, rtol: float, atol: float) -> str:
    """Words for what was checked; raises where the sides differ by more."""
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if ours.shape != theirs.shape:
        raise DisagreementError(f"{name}: expected results of one shape, got {ours.shape} and {theirs.shape}.")
    # Written so that a NaN on either side counts as different.
    wrong = ~(np.abs(ours - theirs) <= atol + rtol * np.abs(theirs))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DisagreementError(
            f"{name}: expected both sides within rtol {rtol:g} and atol {atol:g}, got {int(wrong.sum()):,} of "
            f"{wrong.size:,} values beyond it, first {ours[at]:.9g} against {theirs[at]:.9g} at {at}."
        )
    return f"{ours.size:,} values within {rtol:g} relative or {atol:g}"


def check_equal(name: str, ours, theirs) -> str:
    """Words for a check of equality to the last bit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
        raise DisagreementError(f"{name}: expected equal results, got {ours!r:.80} and {theirs!r:.80}.")
    return f"{ours.size:,} values equal"
