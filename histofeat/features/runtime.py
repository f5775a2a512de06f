"""How a computation runs: threads, feature store and progress, passed through as one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike

from histofeat.features.feature_store import FeatureStore, as_store

__all__ = ["Runtime"]


@dataclass(frozen=True)
class Runtime:
    """Threads, feature store and progress of a computation. Results do not depend on them.

    Parameters
    ----------
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    store : path or FeatureStore, optional
        Where features are kept between calls, so that no image is measured twice; None keeps nothing.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` with the name of a stage, such as "extract".

    Raises
    ------
    ValueError
        If `store` is neither a path nor a `FeatureStore`, or `progress` cannot be called.

    Examples
    --------
    >>> calls = []
    >>> Runtime(progress=lambda *call: calls.append(call)).report("fit", 1, 3)
    >>> calls
    [('fit', 1, 3)]
    >>> Runtime.of(None)
    Runtime(n_jobs=None, store=None, progress=None)
    """

    n_jobs: int | None = None
    store: str | PathLike[str] | FeatureStore | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self):
        object.__setattr__(self, "store", as_store(self.store))
        if self.progress is not None and not callable(self.progress):
            raise ValueError(
                f"Runtime.progress: expected a callable or None, got {self.progress!r:.80}. "
                "Pass a function of (stage, done, total)."
            )

    @classmethod
    def of(cls, value: Runtime | None) -> Runtime:
        """Return the runtime given as ``runtime=``; the default one for None.

        Parameters
        ----------
        value : Runtime or None

        Returns
        -------
        runtime : Runtime

        Raises
        ------
        ValueError
            If it is neither.
        """
        if value is None:
            return cls()
        if not isinstance(value, cls):
            raise ValueError(f"runtime: expected a Runtime or None, got {value!r:.80}. Pass Runtime(n_jobs=-1).")
        return value

    def report(self, stage: str, done: int, total: int) -> None:
        """Report progress, if `progress` was given."""
        if self.progress is not None:
            self.progress(stage, done, total)
