"""Load many damaged copies of a model in one process; run by `test_hostile_files` as a child, which may die.

``python mutate_models.py MODEL PATCHES BEFORE FIRST LAST KIND``: one line for each copy, "N outcome". The kind is
"file" for damage that checksums find, "forged" for damage behind them, or "both" in turn.
"""

import io
import json
import resource
import signal
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np

from histofeat.models import ModelFileError, _archive as archive, load_model

SEED = 14
#: Time and memory that one file may take, beside what the process has after its imports.
SECONDS, BYTES = 10, 2**30


def mutated(content, rng):
    """Some bytes with one of four kinds of damage."""
    content, kind, n = bytearray(content), rng.integers(4), len(content)
    if n < 4:
        return bytes(content)
    at = int(rng.integers(n))
    if kind == 0:
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        size = int(min(rng.integers(1, 64), n // 2))
        one, two = (int(start) for start in rng.integers(0, n - size + 1, 2))
        content[one : one + size], content[two : two + size] = content[two : two + size], content[one : one + size]
    else:
        number = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x27\x10"])
        content[at : at + 4] = number[: n - at]
    return bytes(content)


def opened(content):
    """Members of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return {name: source.read(name) for name in source.namelist()}


def forged(whole, rng):
    """A file with damage behind its hashes: in a booster, in an array or in the description of the estimator."""
    members = opened(whole)
    name = str(rng.choice([name for name in members if name != "model.json"]))
    if name.endswith(".skops"):
        inner = opened(members[name])
        part = "schema.json" if rng.random() < 0.3 else str(rng.choice(sorted(inner)))
        content = inner[part]
        # Mostly the numbers, since a damaged head of an array is refused at once.
        start = 128 if part.endswith(".npy") and rng.random() < 0.8 else 0
        inner[part] = content[:start] + mutated(content[start:], rng)
        members[name] = archive.fixed_zip(inner)
    else:
        members[name] = mutated(members[name], rng)
    record = json.loads(members["model.json"])
    record["parts"] = {
        name: {"bytes": len(content), "sha256": archive._digest(content)}
        for name, content in members.items()
        if name != "model.json"
    }
    members["model.json"] = json.dumps(record).encode()
    return archive.fixed_zip(members)


def outcome(path, patches, before):
    """What comes of a file: "same", "other", "refused", or the name of an error that should not come."""
    try:
        pipeline = load_model(path).pipeline
    except ModelFileError as error:
        return "refused" if str(path) in str(error) else f"unnamed {error!s:.200}"
    scores = pipeline.predict_proba(patches)
    if not np.isfinite(scores).all():
        return "not finite"
    return "same" if np.array_equal(scores, before) else "other"


def told(text):
    """Write at once, so that what a crash leaves is whole."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(model, patches, before, first, last, kind):
    """Report on copies `first` to `last`."""
    whole, patches, before = Path(model).read_bytes(), np.load(patches), np.load(before)
    outcome(model, patches, before)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.histofeat"
        for number in range(int(first), int(last)):
            rng = np.random.default_rng([SEED, number])
            behind = kind == "forged" or (kind == "both" and number % 2)
            path.write_bytes(forged(whole, rng) if behind else mutated(whole, rng))
            told(f"{number} ")
            signal.alarm(SECONDS)
            try:
                found = outcome(path, patches, before)
            except Exception as error:  # it is reported, not hidden
                found = f"raised {type(error).__name__}: {error!s:.100}"
            signal.alarm(0)
            told(f"{found}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
