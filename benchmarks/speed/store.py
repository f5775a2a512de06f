"""The feature store: what a cold run pays, and a warm run against merely reading and hashing the files."""

import tempfile
from pathlib import Path

import joblib
import numpy as np
from families import FAMILIES
from rows import DisagreementError, Target, check_equal, compare
from timing import race

from histofeat.features import FeatureStore, content_key, extract, extractor_name, make_family

__all__ = ["measure"]


def measure(material, options) -> list:
    """Rows: cold with and without a store, and warm against its floor, on one thread and on all cores."""
    dataset = material.different(100 if options.quick else 4_000)
    families, repeats = [make_family(name) for name in FAMILIES], 2 if options.quick else 7
    with tempfile.TemporaryDirectory(prefix="histofeat-store-") as scratch:
        store = FeatureStore(Path(scratch) / "warm.sqlite")
        cold = extract(families, dataset.X, n_jobs=-1, store=store)
        _check_computed(cold, len(dataset))
        rows = [_measure_cold(families, dataset.X, scratch, cold, material, 2 if options.quick else 5)]
        return [*rows, *(_measure_warm(families, dataset.X, store, cold, material, repeats, n) for n in (1, -1))]


def _measure_cold(families, paths, scratch, expected, material, repeats):
    """What keeping costs: each repeat writes a new store."""
    fresh = iter(range(1_000))

    def keep():
        found = extract(families, paths, n_jobs=-1, store=Path(scratch) / f"cold-{next(fresh)}.sqlite")
        _check_computed(found, len(paths))

    plain = extract(families, paths, n_jobs=-1)
    checked = check_equal("cold store", np.hstack(plain.features), np.hstack(expected.features))
    timings = race({"ours": keep, "peer": lambda: extract(families, paths, n_jobs=-1)}, repeats)
    return compare(
        timings["ours"],
        timings["peer"],
        name="store/cold",
        group="store",
        what=f"all four families of {len(paths):,} {material.label} files into a new store; all cores",
        peer_name="the same without a store",
        ratio_of="ours / peer",
        checked=checked,
    )


def _measure_warm(families, paths, store, expected, material, repeats, n_jobs):
    """The promise of the store: nothing is computed, and little is done beyond what cannot be left out."""

    def warm():
        found = extract(families, paths, n_jobs=n_jobs, store=store)
        _check_computed(found, 0)
        return found.features

    def floor():
        return _read_hash_and_fetch(families, paths, store)

    checked = check_equal("warm store", np.hstack(warm()), np.hstack(expected.features))
    check_equal("stored rows", np.hstack(floor()), np.hstack(expected.features))
    timings = race({"ours": warm, "peer": floor}, repeats)
    threads = joblib.effective_n_jobs(n_jobs)
    return compare(
        timings["ours"],
        timings["peer"],
        name=f"store/warm, {threads} thread{'s' if threads > 1 else ''}",
        group="store",
        what=f"all four families of {len(paths):,} {material.label} files that the store knows; {threads} of the cores",
        peer_name="reading and hashing the files and reading the stored rows, one thread",
        ratio_of="ours / peer",
        target=Target("at most", 2),
        checked=f"{checked} to the cold run's, on both sides; 0 images computed in each repeat",
    )


def _read_hash_and_fetch(families, paths, store) -> list[np.ndarray]:
    """Read each file, hash it, and fetch the rows family by family: the least that a warm run has to do."""
    keys = []
    for path in paths:
        with open(path, "rb") as file:  # noqa: PTH123 - the cheapest way there is
            keys.append(content_key(file.read()))
    blocks = []
    with store.session() as session:
        for family in families:
            n_features = len(family.get_feature_names_out())
            number = session.register(family.family, n_features, family._fingerprint(), extractor_name(family))
            stored = session.read(number, keys, n_features)
            blocks.append(np.stack([stored[key] for key in keys]))
    return blocks


def _check_computed(found, expected: int) -> None:
    if set(found.computed.values()) != {expected}:
        raise DisagreementError(f"store: expected {expected:,} images computed, got {dict(found.computed)}.")
