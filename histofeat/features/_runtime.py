"""`Runtime`: threads, the workers of a Dask cluster, feature store, progress and ledger of a computation."""

from __future__ import annotations

import atexit
import io
import logging
import pickle
import re
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from histofeat.datasets import Ledger
from histofeat.exceptions import ClusterError, check_name, check_that, needs
from histofeat.features._feature_store import StoreLike, as_store
from histofeat.features._progress import Progress
from histofeat.images import run_ahead

#: Seconds in which a scheduler and a worker have to answer.
_PATIENCE_S = 30
#: Bytes from which on an array is sent to workers once, not with each call.
_LARGE = 1 << 20
#: Packages that decide on the last digits of a result.
_PACKAGES = ("histofeat", "numpy", "scipy", "scikit-learn", "xgboost", "xgboost-cpu", "numba")


@dataclass(frozen=True)
class Runtime:
    """Threads or workers, feature store, progress and ledger of a computation. Results do not depend on them.

    Parameters
    ----------
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    store : path or FeatureStore, optional
        Where features are kept between calls, so that no image is measured twice; None keeps nothing.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` with the name of a stage, such as "extract". None shows stages of
        over two seconds where stderr is a terminal; False shows nothing.
    ledger : path or Ledger, optional
        Where looks at registered test patients are written down; see `histofeat.datasets.Ledger`.
    fits : path or False, optional
        The folder where `evaluate` keeps finished fits, so that an interrupted run resumes; by default ``<store>.fits``
        beside the store, and none without a store. False keeps none. A fit is reused only if data, features, folds,
        parameters, seeds, code and versions are the same. Remove the folder to free the disk.
    on_error : {"raise", "skip"}, default="raise"
        What evaluations and studies do about images that cannot be read: raise an error, or leave them out before
        folds are made. They are then read once more than otherwise, unless there is a store.
    cluster : str, optional
        Workers of `Dask <https://distributed.dask.org>`_ that measure images and fit heads: "local:4" starts four of
        them here, which end with this process; "tcp://host:8786" is the address of a scheduler that runs. They need
        the same versions of all packages, and the images under the same paths. A script that starts workers has to
        stand under ``if __name__ == "__main__":``.

    Raises
    ------
    ValueError
        If `store` is neither a path nor a `FeatureStore`, `progress` cannot be called, `ledger` is no path,
        `on_error` is none of the two, or `cluster` is no address.

    Examples
    --------
    >>> calls = []
    >>> Runtime(progress=lambda *call: calls.append(call)).report("fit", 1, 3)
    >>> calls
    [('fit', 1, 3)]
    >>> Runtime.of(None)
    Runtime(n_jobs=None, store=None, progress=None, ledger=None, fits=None, on_error='raise', cluster=None)
    """

    n_jobs: int | None = None
    store: StoreLike | None = None
    progress: Callable[[str, int, int], None] | bool | None = None
    ledger: Any = None
    fits: Any = None
    on_error: str = "raise"
    cluster: str | None = None

    def __post_init__(self) -> None:
        check_name("Runtime.on_error", self.on_error, ("raise", "skip"))
        known = self.cluster is None or re.fullmatch(r"local:[1-9]\d*|(tcp|tls|ucx|ws|wss)://.+", str(self.cluster))
        remedy = "Use cluster='local:4', or start a scheduler with `dask scheduler`."
        check_that("Runtime.cluster", self.cluster, known, "'local:N' or the address of a scheduler", remedy)
        object.__setattr__(self, "store", as_store(self.store))
        object.__setattr__(self, "ledger", Ledger.of(self.ledger))
        beside = Path(f"{self.store.path}.fits") if self.fits is None and self.store is not None else self.fits
        if beside not in (None, False) and not isinstance(beside, str | PathLike):
            raise ValueError(f"Runtime.fits: expected a folder, False or None, got {beside!r:.80}. Pass a path.")
        object.__setattr__(self, "fits", beside if beside in (None, False) else Path(beside))
        if self.progress not in (None, False) and not callable(self.progress):
            got = f"Runtime.progress: expected a callable, False or None, got {self.progress!r:.80}"
            raise ValueError(f"{got}. Pass a function of (stage, done, total).")
        watched = self.progress is None and sys.stderr is not None and sys.stderr.isatty()
        object.__setattr__(self, "_reported", Progress(patient=True) if watched else self.progress)

    def __reduce__(self) -> tuple:  # on a worker there is nobody to report to, and no cluster
        return type(self), (self.n_jobs, self.store, False, None, False, self.on_error)

    @classmethod
    def of(cls, value: Runtime | None) -> Runtime:
        """Return the runtime given as ``runtime=``, its cluster connected; the default one for None.

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
        ClusterError
            If no scheduler or worker answers, or their versions are not those of here.
        """
        if value is None:
            return cls()
        check_that("runtime", value, isinstance(value, cls), "a Runtime or None", "Pass Runtime(n_jobs=-1).")
        if value.cluster is not None:
            _connected(value.cluster)
        return value

    def report(self, stage: str, done: int, total: int) -> None:
        """Report progress; that nobody can read it any more does not end the work."""
        if self._reported:
            with suppress(OSError):
                self._reported(stage, done, total)

    def each(self, work: Callable[[Any], Any], items: Sequence[Any], *, ahead: int = 0) -> Iterator[Any]:
        """Yield ``work(item)`` in the order of the items, computed in threads that may `call` workers.

        Parameters
        ----------
        work : callable
        items : sequence
        ahead : int, default=0
            As of `histofeat.images.run_ahead`; a cluster takes two calls for each thread of its workers.
        """
        if self.cluster is None:
            return run_ahead(work, items, n_jobs=self.n_jobs, ahead=ahead)
        n_calls = (found := _connected(self.cluster)).begin()
        return run_ahead(work, items, n_jobs=n_calls, ahead=n_calls, stop=found.stop)

    def call(self, function: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        """Return ``function(*args, **settings)``, computed by a worker of the cluster, if there is one.

        Parameters
        ----------
        function : callable
            Of a module, not of a function: it is found again by its name.
        *args, **settings
            What can be pickled. Large arrays are sent to a worker once; they must not change between calls.

        Raises
        ------
        ClusterError
            If the scheduler is lost, or several workers die of this call.
        """
        if self.cluster is None:
            return function(*args, **settings)
        return _connected(self.cluster).call(function, args, settings)


_opened: dict[str, _Cluster] = {}
_opening = threading.Lock()


def _connected(address: str) -> _Cluster:
    """Give the connection to a cluster; a lost one is opened again. Workers that were started end with the process."""
    with _opening:
        if address not in _opened or _opened[address].client.status != "running":
            _opened[address] = _Cluster(address)
        return _opened[address]


class _Cluster:
    """A connection to a scheduler of Dask, and the workers that were started for it, if any."""

    def __init__(self, address: str):
        with needs("histofeat[cluster]", f"Runtime.cluster: expected the package distributed for {address}"):
            import distributed

        self.address, self._killed = address, distributed.KilledWorker
        self._lock, self._running, self._stopped = threading.Lock(), set(), False
        self._sent: dict[int, Any] = {}
        self._warned: dict[Any, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="histofeat-cluster-", ignore_cleanup_errors=True)
        self._started = self.client = None
        atexit.register(self.close)
        try:
            if address.startswith("local:"):
                how = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
                deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C ends them from here
                how |= {"local_directory": self._folder.name, "silence_logs": "CRITICAL", "preload": deaf}
                self._started = distributed.LocalCluster(n_workers=int(address[6:]), **how)
            direct = self._started is not None or None
            self.client = distributed.Client(self._started or address, timeout=_PATIENCE_S, direct_to_workers=direct)
            self.client.wait_for_workers(1, timeout=_PATIENCE_S)
        except (OSError, TimeoutError) as error:
            self.close()
            kind, start = ("worker", f"worker {address}") if self.client else ("scheduler", "scheduler")
            remedy = f"Start one with `dask {start}`, or use cluster='local:4'."
            raise _error(f"a {kind} that answers", f"none in {_PATIENCE_S} seconds at {address}", remedy) from error
        found = self.client.get_versions(packages=_PACKAGES)
        for place, there in found["workers"].items():
            if other := sorted(found["client"]["packages"].items() - there["packages"].items()):
                self.close()
                (name, version), remedy = other[0], "Install the same versions there."
                raise _error(f"workers with {name} {version}", f"{there['packages'][name]} at {place}", remedy)

    def begin(self) -> int:
        """Give the number of calls at a time: two for each thread of the workers, so that none of them waits."""
        self._stopped = False
        return 2 * max(1, sum(self.client.nthreads().values()))

    def stop(self) -> None:
        """Cancel the calls that run, since nobody waits for them any more."""
        self._stopped = True
        with suppress(OSError, RuntimeError):  # the scheduler may be lost
            self.client.cancel([*self._running])

    def call(self, function: Callable[..., Any], args: tuple, settings: dict[str, Any]) -> Any:
        """Let a worker call a function; one that is killed costs its call only."""
        (content, sent), name = self._packed((function, args, settings)), function.__name__.strip("_")
        future = self.client.submit(_work, content, *sent, key=f"{name}-{uuid4().hex}")
        self._running.add(future)
        try:
            while True:
                with suppress(TimeoutError):
                    found, failed, said = future.result(timeout=_PATIENCE_S)
                    break
                if not self.client.nthreads():
                    remedy = f"Start some with `dask worker {self.address}`."
                    raise _error("workers that stay", f"none any more at {self.address}", remedy)
        except self._killed as error:
            got, remedy = f"{error.allowed_failures + 1} that died of it", "Give them more memory, or read their log."
            raise _error(f"workers that survive {name}", got, remedy) from error
        except CancelledError as error:
            if not self._stopped and self.client.status == "running":  # an array was on a worker that died, alone
                self._sent.clear()
                return self.call(function, args, settings)
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # it would tell the same in tracebacks
            self.close()
            remedy = "Start it again and repeat the call: what a store or a folder keeps is not computed again."
            raise _error("a scheduler that stays", f"a lost connection to {self.address}", remedy) from error
        finally:
            self._running.discard(future)
        for message, *place in said:
            warnings.warn_explicit(message, *place, registry=self._warned)
        if failed is not None:
            raise failed
        return found

    def _packed(self, call: tuple) -> tuple[bytes, list[Any]]:
        """Pickle a call without its large arrays; give these as they have been sent."""
        import cloudpickle  # Dask stands on it

        sent, send = [], self._send

        class Pickler(cloudpickle.Pickler):
            def persistent_id(self, value: Any) -> int | None:
                large = isinstance(value, np.ndarray) and value.nbytes >= _LARGE
                if large or getattr(type(value), "sent_once", False):
                    sent.append(send(value))
                    return len(sent) - 1
                return None

        Pickler(content := io.BytesIO()).dump(call)
        return content.getvalue(), sent

    def _send(self, value: Any) -> Any:
        """Send an array or a model once: to workers of this machine as a file, which they map into their memory."""
        with self._lock:
            if id(value) not in self._sent:
                weakref.finalize(value, self._forget, id(value))
                file = Path(self._folder.name, f"{uuid4().hex}.{'array' if isinstance(value, np.ndarray) else 'model'}")
                away = self.client.scatter(value, hash=False) if self._started is None else joblib.dump(value, file)
                self._sent[id(value)] = file if self._started else away
            return self._sent[id(value)]

    def _forget(self, number: int) -> None:
        if isinstance(place := self._sent.pop(number, None), Path):
            place.unlink(missing_ok=True)

    def close(self) -> None:
        """End the connection, and the workers that were started for it."""
        for each in filter(None, (self.client, self._started)):
            each.close()
        self._folder.cleanup()


def _error(expected: str, got: str, remedy: str) -> ClusterError:
    return ClusterError(f"Runtime.cluster: expected {expected}, got {got}. {remedy}")


class _Unpickler(pickle.Unpickler):
    sent: Sequence[Any] = ()

    def persistent_load(self, number: int) -> Any:
        """Give a value that was sent once."""
        return _loaded(self.sent[number]) if isinstance(self.sent[number], Path) else self.sent[number]


@lru_cache(maxsize=16)
def _loaded(path: Path) -> Any:
    return joblib.load(path, mmap_mode="r" if path.suffix == ".array" else None)


def _work(content: bytes, *sent: Any) -> tuple[Any, BaseException | None, list[tuple]]:
    """Run a call on a worker; give what it returns or raises, and its warnings."""
    found = failed = None
    with warnings.catch_warnings(record=True) as said, threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("always")
        try:
            reader = _Unpickler(io.BytesIO(content))
            reader.sent = sent
            function, args, settings = reader.load()
            found = function(*args, **settings)
        except (Exception, SystemExit) as error:
            failed = error
    return found, failed, [(each.message, each.category, each.filename, each.lineno) for each in said]
