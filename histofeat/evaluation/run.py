"""One evaluation in progress, and fits of its heads on folds in threads."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
from threadpoolctl import threadpool_limits

from histofeat.features import Runtime

__all__ = ["run_in_threads"]


@dataclass
class _Run:
    """One evaluation under way: what every stage needs, and what it adds up."""

    dataset: Any
    splits: tuple
    inner: tuple
    runtime: Runtime
    random_state: int
    threshold: Any
    search: Any
    accepted: tuple
    known_patients: str
    retrain: bool
    left_out: Any = None
    seconds: Counter = field(default_factory=Counter)
    conversions: Counter = field(default_factory=Counter)
    computed: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.y, self.patients = self.dataset.y, self.dataset.patients

    @contextmanager
    def timed(self, stage):
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def leave_out(self, tests, left_out):
        """Test only these rows in each fold; folds without any are gone."""
        kept = [number for number, test in enumerate(tests) if test.size]
        self.splits = tuple((self.splits[number][0], tests[number]) for number in kept)
        self.inner, self.left_out = tuple(self.inner[number] for number in kept), left_out


def run_in_threads(work, tasks, runtime, stage):
    """Return ``[work(task) for task in tasks]``, computed in threads; the first error ends it.

    Parameters
    ----------
    work : callable
    tasks : sequence
    runtime : Runtime
        Its threads share the tasks, and its progress reports each one that is done.
    stage : str
        The name of the stage in the progress.

    Returns
    -------
    found : list
    """
    n_threads = min(joblib.effective_n_jobs(runtime.n_jobs), max(1, len(tasks)))
    found = []
    # Several tasks at a time scale better than several threads a task, which spin while they wait for each other.
    with threadpool_limits(1 if n_threads > 1 else None, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for done, future in enumerate(futures, start=1):
                found.append(future.result())
                runtime.report(stage, done, len(tasks))
        finally:
            for future in futures:
                future.cancel()
    return found
