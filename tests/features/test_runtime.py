"""`Runtime`: threads, store and progress as one record."""

import pytest

from histofeat.evaluation import AuditPolicy
from histofeat.features import FeatureStore, Runtime


def test_a_path_becomes_a_store(tmp_path):
    path = tmp_path / "features.sqlite"
    assert Runtime(store=path).store == FeatureStore(path)
    assert Runtime.of(None) == Runtime()
    runtime = Runtime(n_jobs=2)
    assert Runtime.of(runtime) is runtime


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Runtime(progress=3),
            r"Runtime\.progress: expected a callable, False or None, got 3\. Pass a function",
        ),
        (lambda: Runtime(store=3), r"store: expected a path or a FeatureStore, got 3"),
        (lambda: Runtime.of(-1), r"runtime: expected a Runtime or None, got -1\. Pass Runtime\(n_jobs=-1\)"),
        (lambda: AuditPolicy.of("HF001"), r"expected an AuditPolicy or None, got str \('HF001'\)\. Pass AuditPolicy\("),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
