"""Time two sides of one task in turn, check that both compute the same, and keep what was found as a row."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

#: Patches of the whole IDC data set.
FULL_SIZE = 277_524
#: Fields of a row whose number is per image of a batch.
PER_IMAGE = {"unit": "µs per image", "scale": 1e6}


class DisagreementError(Exception):
    """Two sides of a benchmark computed different things: their times must not be compared."""


@dataclass(frozen=True)
class Row:
    """One measurement, named "group/name": our number, the peer's, and what their ratio is."""

    name: str
    what: str
    unit: str
    ours: float | None
    peer: float | None = None
    peer_name: str = ""
    ratio_of: str = "peer / ours"
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

    def to_dict(self) -> dict:
        """Return the content of a row of speed.json: numbers with five digits."""
        found = asdict(self)
        found |= {"group": self.name.split("/")[0], "ratio": self.ratio}
        found["ratio_of"] = self.ratio_of if self.peer_name else ""
        for name in ("ours", "peer", "ratio", "ours_median", "peer_median"):
            found[name] = None if found[name] is None else float(f"{found[name]:.5g}")
        return {name: found[name] for name in COLUMNS}


COLUMNS = (
    "name", "group", "what", "unit", "ours", "peer", "peer_name", "ratio", "ratio_of", "checked", "repeats",
    "ours_median", "peer_median", "note",
)  # fmt: skip


def compare(ours, peer=None, *, count=1, unit="s", scale=1.0, per_second=False, **fields) -> Row:
    """Return a row from the seconds of both sides: the best repeat of each, divided by `count` things done.

    With `per_second` it is how many things are done in a second, for a unit that ends in ``/s``; more is better then,
    and ``ours / peer`` the ratio to ask for.
    """

    def shown(seconds):
        return count / seconds if per_second else seconds * scale / count

    found = {"ours": shown(min(ours)), "ours_median": shown(median(ours)), "repeats": f"best of {len(ours)}"}
    if peer is not None:
        found |= {"peer": shown(min(peer)), "peer_median": shown(median(peer))}
        found["repeats"] += ", sides in turn"
    return Row(unit=unit, **found, **fields)


def missing(reason: str, **fields) -> Row:
    """Return the row of something that could not be measured here, with the reason."""
    return Row(ours=None, note=f"Not measured: {reason}", **{"unit": "", **fields})


# --- both sides compute the same -------------------------------------------------------------------------------------


def check_close(name: str, ours, theirs, *, rtol: float, atol: float) -> str:
    """Return words for what was checked; raise where the sides differ by more."""
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
    """Return words for a check of equality to the last bit."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
        raise DisagreementError(f"{name}: expected equal results, got {ours!r:.80} and {theirs!r:.80}.")
    return f"{ours.size:,} values equal"


# --- timing ----------------------------------------------------------------------------------------------------------


def stopwatch(run) -> float:
    """Return the seconds that ``run()`` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def race(*sides, repeats, clock=stopwatch) -> list[list[float]]:
    """Return the seconds of each repeat of each side.

    All sides run once for warming up and then in turn, each turn reversed, so that a busy moment of the machine meets
    all of them. ``clock(side)`` runs a side and returns its seconds; by default a side is a callable.
    """
    for side in sides:
        clock(side)
    spent = [[] for _ in sides]
    for turn in range(repeats):
        for at in list(range(len(sides)))[:: 1 if turn % 2 == 0 else -1]:
            spent[at].append(clock(sides[at]))
    return spent


@contextmanager
def one_core():
    """Keep OpenCV and the threads of BLAS and OpenMP to one for a while."""
    import cv2
    from threadpoolctl import threadpool_limits

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        cv2.setNumThreads(before)


def run_worker(script, *arguments, env=None) -> dict:
    """Return what a script beside this file prints as JSON, run in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if found.returncode:
        group = script.removesuffix(".py")
        raise RuntimeError(f"{group}: expected a worker to finish, got:\n{found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])
