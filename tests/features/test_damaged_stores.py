"""Damage to a feature store: whatever happened to the file, features are right or the file is refused in a sentence."""

import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from histofeat import FeatureStore
from histofeat.features import ColorHistogram, LBPHistogram, content_key, extract

FAMILIES = (ColorHistogram(), LBPHistogram())
_PAGE = 1 << 14
_ROW = 4 * 180 + 4
_FOURTH = "id = (SELECT MIN(id) + 3 FROM features)"


def _by_bytes(change):
    """Damage by a function of the file's bytes, the places of two rows of colours, and those of an image's key."""

    def damage(path, rows, keys):
        path.write_bytes(change(path.read_bytes(), rows, keys))

    return damage


def _flip(at, bit=0x40):
    def flipped(data, rows, keys):
        place = at(rows, keys)
        return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

    return _by_bytes(flipped)


def _put(at, new):
    def put(data, rows, keys):
        place = at(rows, keys)
        return data[:place] + new + data[place + len(new) :]

    return _by_bytes(put)


def _swap(size, start=lambda place: place):
    def swapped(data, rows, keys):
        one, two = sorted(map(start, rows))
        first, second = data[one : one + size], data[two : two + size]
        return data[:one] + second + data[one + size : two] + first + data[two + size :]

    return _by_bytes(swapped)


def _by_sql(*statements):
    def damage(path, rows, keys):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            for statement in statements:
                connection.execute(statement)

    return damage


def _beside(ending, content):
    def damage(path, rows, keys):
        Path(f"{path}{ending}").write_bytes(content(path) if callable(content) else content)

    return damage


def _log_of_another_store(path):
    """A log that SQLite takes for one of this file: that of a store of other images which was not closed."""
    other = FeatureStore(path.with_name("other"))
    images = np.random.default_rng(9).integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    with other.session():
        extract(FAMILIES, images, store=other)
        return path.with_name("other-wal").read_bytes()


def _page_of(place):
    return place // _PAGE * _PAGE


#: What may happen to a file, and how many of 200 rows of colours are measured again: -1 where the file is refused,
#: None where it depends on the version of SQLite or on what lies where.
DAMAGES = {
    "a high bit of a value": (_flip(lambda rows, keys: rows[0] + 3), 1),
    "the lowest bit of a value": (_flip(lambda rows, keys: rows[0], 1), 1),
    "a bit of the last value": (_flip(lambda rows, keys: rows[0] + _ROW - 5), 1),
    "a bit of a checksum": (_flip(lambda rows, keys: rows[0] + _ROW - 1), 1),
    "a bit of the length of a row": (_flip(lambda rows, keys: rows[0] - 1, 2), None),
    "a bit of the id of a row": (_flip(lambda rows, keys: rows[0] - 5, 1), None),
    "a bit of a key in the table": (_flip(lambda rows, keys: keys[0] + 5), None),
    "a bit of a key in the index": (_flip(lambda rows, keys: keys[1] + 5), None),
    "values that are not numbers": (_put(lambda rows, keys: rows[0], np.full(180, np.nan, "<f4").tobytes()), 1),
    "a row of zeros": (_put(lambda rows, keys: rows[0], bytes(_ROW)), 1),
    "two rows that have changed places": (_swap(_ROW), 2),
    "two pages that have changed places": (_swap(_PAGE, _page_of), None),
    "a page of zeros": (_put(lambda rows, keys: _page_of(rows[1]), bytes(_PAGE)), None),
    "a sector of ones": (_put(lambda rows, keys: rows[0] // 512 * 512, b"\xff" * 512), None),
    "the end cut off": (_by_bytes(lambda data, rows, keys: data[: len(data) // 2 + 100]), -1),
    "more at the end": (_by_bytes(lambda data, rows, keys: data + b"more" * 5000), 0),
    "the first page lost": (_put(lambda rows, keys: 0, bytes(_PAGE)), -1),
    "the size of a page": (_flip(lambda rows, keys: 16, 0x10), -1),
    "the mark of the application": (_flip(lambda rows, keys: 68), -1),
    "text in the place of a database": (_by_bytes(lambda data, rows, keys: b"my thesis " * 2000), -1),
    "an empty file": (_by_bytes(lambda data, rows, keys: b""), 200),
    "a row of doubles": (_by_sql(f"UPDATE features SET row = zeroblob(1440) WHERE {_FOURTH}"), 1),
    "a row of another length": (_by_sql(f"UPDATE features SET row = substr(row, 1, 720) WHERE {_FOURTH}"), 1),
    "a row that is text": (_by_sql(f"UPDATE features SET row = CAST(x'ff20' AS TEXT) WHERE {_FOURTH}"), 1),
    "a row that is lost": (_by_sql(f"DELETE FROM features WHERE {_FOURTH}"), 1),
    "the ids of two images": (
        _by_sql("UPDATE images SET id = -id WHERE id < 3", "UPDATE images SET id = id + 3 WHERE id < 0"),
        2,
    ),
    "the ids of two families": (
        _by_sql("UPDATE extractors SET id = -id", "UPDATE extractors SET id = id + 3"),
        200,
    ),
    "the number of columns": (_by_sql("UPDATE extractors SET n_features = 'many'"), 0),
    "an older layout than it has": (_by_sql("PRAGMA user_version = 1"), -1),
    "a layout that does not exist": (_by_sql("PRAGMA user_version = 0"), -1),
    "no index": (_by_sql("DELETE FROM sqlite_master WHERE type = 'index' AND tbl_name = 'images'"), -1),
    "tables with the pages of each other": (
        _by_sql(
            "UPDATE sqlite_master SET rootpage = (SELECT SUM(rootpage) FROM sqlite_master WHERE name IN ('images', "
            "'features')) - rootpage WHERE name IN ('images', 'features')"
        ),
        None,
    ),
    "the log of another store": (_beside("-wal", _log_of_another_store), None),
    "a log of noise": (_beside("-wal", b"noise" * 9999), 0),
    "an index of noise": (_beside("-shm", b"noise" * 9999), 0),
    "a journal of noise": (_beside("-journal", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"noise" * 9999), None),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A sound store as bytes, and what is in it."""
    path = tmp_path_factory.mktemp("whole") / "features.sqlite"
    features = extract(FAMILIES, images, store=path).features
    return path.read_bytes(), features


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_costs_time_and_never_a_number(name, images, whole, tmp_path, monkeypatch):
    damage, n_again = DAMAGES[name]
    path, (content, expected) = tmp_path / "features.sqlite", whole
    path.write_bytes(content)
    rows = [content.index(expected[0][number].tobytes()) for number in (3, 130)]
    key = content_key(images[3])
    first = content.index(key)
    damage(path, rows, (first, content.index(key, first + 1)))
    measured = []
    for _ in range(2):
        # As in a new process: there the first opening is refused where a later one is only warned of.
        monkeypatch.setattr("histofeat.features._feature_store._opened", set())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = _or_refused(path, lambda: extract(FAMILIES, images, store=path))
        assert len(said) <= 1
        if found is not None:
            for block, right in zip(found.features, expected, strict=True):
                np.testing.assert_array_equal(block, right)
        measured.append(-1 if found is None else found.computed["color"])
        # What cannot be found is measured again without a word; what is found and wrong is said.
        assert said or measured[-1] <= 0 or n_again is None or name in ("an empty file", "a row that is lost")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _or_refused(path, FeatureStore(path).summary)
    assert n_again in (None, measured[0])


def _or_refused(path, call):
    try:
        return call()
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"FeatureStore({str(path)!r}): expected ")
    return None
