"""Time several ways of doing one thing in turn, so that a busy moment of the machine meets all of them."""

import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

__all__ = ["Timing", "one_core", "race", "stopwatch"]


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The repeat that was disturbed least."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The repeat in the middle."""
        return median(self.seconds)


def stopwatch(run) -> float:
    """Seconds that ``run()`` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def race(sides, repeats, *, clock=stopwatch) -> dict[str, Timing]:
    """Timing of each of `sides` (name -> callable), once for warming up and then in turn, each turn reversed.

    `clock` gives the seconds of one call; the default times it, another one may let it time itself.
    """
    for run in sides.values():
        run()
    spent = {name: [] for name in sides}
    for turn in range(repeats):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            spent[name].append(clock(sides[name]))
    return {name: Timing(tuple(seconds)) for name, seconds in spent.items()}


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
