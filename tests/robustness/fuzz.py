"""Give decoders, names, tables, model files and feature stores what nobody would: made-up and changed bytes.

    python tests/robustness/fuzz.py images --runs 1000000 --json images.json
    python tests/robustness/fuzz.py all --runs 100000 --json fuzz.json --engine hypothesis
    python tests/robustness/fuzz.py models --runs 500000 --seed 1000 --json more.json
    python tests/robustness/fuzz.py none --add images.json fuzz.json more.json --json all.json

Each input is refused by an error of the library, or gives a valid result; everything else is a finding: another
error, a wrong value, a call of more than two seconds, an end of the process. atheris (libFuzzer), where it is
installed, follows the coverage; Hypothesis, which the tests need anyway, draws at random. Written: executions, the
curve of covered branches over executions, findings with the input that shows each; the last command adds up such
results. `test_fuzz.py` runs a few hundred inputs of each target.
"""

import argparse
import atexit
import contextlib
import importlib.util
import io
import json
import os
import re
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

#: Seconds of the processor after which one execution counts as slow.
SLOW_S = 2.0
#: Executions of one process with Hypothesis, whose memory of what it has drawn grows.
ROUND = 5_000
#: How often a process that ended is started again.
RESTARTS = 30
#: Packages whose branches atheris counts, but for modules of kernels: numba compiles none that atheris has changed.
FOLLOWED = ("histofeat", "PIL", "skops")
PNG = b"\x89PNG\r\n\x1a\n"


# ---- images ------------------------------------------------------------------------------------------------------


@cache
def patch():
    """A small patch with structure, (12, 16, 3) uint8."""
    return np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


@cache
def image_seeds():
    """Small images in the formats and modes that are read, as bytes."""
    from PIL import Image

    image, seeds = Image.fromarray(patch()), []
    forms = [("PNG", {}), ("JPEG", {"quality": 80}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
    forms += [("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    for form, options in forms:
        seeds.append(saved(image, form, **options))
    seeds += [saved(image.convert(mode), "PNG") for mode in ("L", "LA", "RGBA", "P", "1")]
    seeds += [saved(image.convert("CMYK"), "JPEG"), saved(image.convert("L"), "TIFF")]
    seeds.append(saved(Image.fromarray(patch()[..., 0].astype(np.uint16) * 257), "PNG"))
    turned = image.getexif()
    turned[274] = 6
    seeds += [saved(image, "PNG", exif=turned), saved(image, "JPEG", exif=turned), saved(image, "TIFF", exif=turned)]
    # The first byte says whether checksums are mended; see `fuzz_images`.
    return [bytes([mended]) + seed for seed in seeds for mended in (0, 1)]


def saved(image, form, **options):
    """Give an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunks(content):
    """Yield (start of its length, kind, data, whether its checksum is right) of each chunk of a PNG."""
    at = len(PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        crc = content[at + 8 + length : at + 12 + length]
        if len(crc) < 4:
            return
        yield at, kind, data, crc == struct.pack(">I", zlib.crc32(kind + data))
        if kind == b"IEND":
            return
        at += 12 + length


def with_checksums(content):
    """Give a PNG with the checksum of each chunk made right."""
    mended = bytearray(content)
    for at, kind, data, _ in chunks(content):
        mended[at + 8 + len(data) : at + 12 + len(data)] = struct.pack(">I", zlib.crc32(kind + data))
    return bytes(mended)


def fuzz_images(data):
    """Decode; a PNG with a wrong checksum is refused, unless the first byte asks for right ones, to come deeper."""
    from histofeat.exceptions import PatchError
    from histofeat.images import decode_patch

    content = data[1:]
    is_png = content.startswith(PNG)
    if is_png and data[:1] > b"\x00":
        content = with_checksums(content)
    try:
        pixels, rules = decode_patch(content, name="x", **pixel_limit())
    except PatchError as error:
        check_sentence(error)
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    assert all(isinstance(rule, str) for rule in rules)
    if is_png:
        wrong = [kind for _, kind, _, right in chunks(content) if not right]
        assert not wrong, f"a PNG with a wrong checksum was read: {wrong[0]!r}"


@cache
def pixel_limit():
    """The limit of pixels for `decode_patch`, where it has one: small, so that executions are fast."""
    import inspect

    from histofeat.images import decode_patch

    return {"max_pixels": 1 << 20} if "max_pixels" in inspect.signature(decode_patch).parameters else {}


def check_sentence(error):
    """Check that a message is a sentence of the library's form, on one line."""
    words = str(error)
    assert ": expected " in words, words
    assert "\n" not in words.strip(), words


# ---- names -------------------------------------------------------------------------------------------------------

NAME_SEEDS = [
    b"8863_idx5_x51_y1201_class0.png", b"8863/1/8863_idx5_x51_y1201_class1.png", b"TCGA-A1-A0SB-01Z-00-DX1.svs",
    b"SOB_B_A-14-22549AB-40-001.png", b"SOB_M_DC-14-2523-400-010.png", b"SOB_B_A_14-22549AB", b"007", b"7.0", b"1e5",
    b"^([0-9]+)_\nbenign/8863_a.png", b"(?P<patient>[A-Z]+)\nx/AB.png", b"folder\na/b/c.png",
    b"tcga\nx/TCGA-A1-A0SB.png",
    "患者 7".encode(), b"\xff\xfe\x00", b"((a+)+)$\naaaaaaaaaaaaaaaaaaaaaaaa!",
]  # fmt: skip


def fuzz_names(data):
    """Read names as those of IDC and BreakHis, as ids, and by a rule: the first line is one, the others are paths."""
    from histofeat.datasets import PatientRule, find_patients, parse_name
    from histofeat.datasets._image_files import fold_case, is_image_name, is_system_name
    from histofeat.datasets.breakhis._tree import parse_image, parse_slide
    from histofeat.exceptions import DatasetError
    from histofeat.model_selection import canonical_patient

    text = os.fsdecode(data)
    for name in text.split("\n")[:4]:
        found = parse_name(name)
        assert found is None or (found.patient in name and found.label in (0, 1))
        for parse in (parse_image, parse_slide):
            parse(name)
        is_image_name(name)
        is_system_name(name)
        assert fold_case(fold_case(name)) == fold_case(name)
        patient = canonical_patient(name)
        assert canonical_patient(patient) == patient, (patient, canonical_patient(patient))
    rule, *paths = text.split("\n")
    # An expression of nested repeats takes as long as its author lets it.
    if not re.search(r"[+*}][^)]*\)[+*{]", rule) and len(rule) < 60:
        paths = [path[:40] for path in paths[:4]]
        for find in (lambda: find_patients(rule, paths), lambda: PatientRule.of(rule, Path()).of_tree(paths, paths)):
            try:
                found = find()
            except DatasetError as error:
                check_sentence(error)
            else:
                assert len(found) == len(paths)


# ---- tables ------------------------------------------------------------------------------------------------------

TABLE_SEEDS = [
    b"path,label,patient\na.png,benign,1\nb.png,malignant,2\n", b"sep=;\npath;label;patient\na.png;x;1\nb.png;y;2\n",
    b'path\tlabel\tpatient\n"a\tb.png"\tx\t1\n', "path,label,patient\nä.png,ü,é\n".encode("latin-1"),
    "path,label,patient\na.png,x,1\n".encode("utf-16"), b"\xef\xbb\xbfFile Name,Class,Case ID,,\r\na.png,x,1,,\r\n",
    b'"","path","label","patient"\n"1","a.png","x","NA"\n', b"path,label,patient\n" + b'"' + b"a" * 50 + b"\n" * 9,
    b"path,label,patient,x,y\na.png,x,1,1.00,nan\n", b"PK\x03\x04", b"",
]  # fmt: skip


def fuzz_tables(data):
    """Read bytes as a table of images, as a table of patients, and as predictions."""
    from histofeat import load_manifest, read_predictions
    from histofeat.datasets import find_patients, read_csv_rows
    from histofeat.exceptions import DatasetError

    file = scratch() / "table.csv"
    file.write_bytes(data)
    try:
        rows = read_csv_rows(file, ("path", "label", "patient"), owner="fuzz")
    except DatasetError as error:
        check_sentence(error)
    else:
        assert len(rows.rows) == len(rows.lines) > 0
        assert all(set(row) == set(rows.columns) for row in rows.rows)
        for row in range(len(rows.rows)):
            assert rows.at(row).startswith(str(file))
    for read in (lambda: load_manifest(file), lambda: find_patients(file, ["a.png"]), lambda: read_predictions(file)):
        try:
            read()
        except ValueError as error:
            check_sentence(error)


@cache
def scratch():
    """A folder of this process, in memory where there is such a place, that goes with it."""
    folder = temporary_folder("fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def temporary_folder(prefix):
    """Make a folder, in memory where there is such a place."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=shared if shared.is_dir() else None))


# ---- edits: what model files and stores are fuzzed by -----------------------------------------------------------


def edited(content, script):
    """Change bytes as a script says: (operation, position in 65,536ths, value) of four bytes each."""
    content = bytearray(content)
    for at in range(0, len(script) - 3, 4):
        operation, value = script[at] % 6, script[at + 3]
        place = int.from_bytes(script[at + 1 : at + 3], "big") * len(content) >> 16
        if not content:
            break
        if operation == 0:
            content[place] ^= 1 << value % 8
        elif operation == 1:
            content[place] = value
        elif operation == 2:
            del content[place : place + 1 + value]
        elif operation == 3:
            content[place:place] = content[place : place + 1 + value]
        elif operation == 4:
            content[place : place + value] = bytes(len(content[place : place + value]))
        else:
            content[place : place + 8] = struct.pack("<q", -1 << value % 64)
    return bytes(content)


SCRIPT_SEEDS = [
    bytes([level, part, inner, *edit])
    for level in range(4)
    for part in range(6)
    for inner in (0, 3)
    for edit in ((), (0, 80, 0, 3), (1, 200, 7, 255), (5, 128, 9, 62))
]


# ---- model files -------------------------------------------------------------------------------------------------


@cache
def model_bytes():
    """Saved models, as small as they can be: one of each head, the first with all that training can add."""
    from histofeat import IDCPipeline, save_model
    from histofeat.features import ImageFingerprint
    from histofeat.models import GuardRails

    rng, files = np.random.default_rng(0), []
    X, y, patients = rng.integers(0, 255, (12, 12, 12, 3), dtype=np.uint8), np.arange(12) % 2, np.arange(12) // 2
    heads = {"logistic": None, "random_forest": {"n_estimators": 2}, "xgboost": {"n_estimators": 2}, "svm": None,
             "knn": {"n_neighbors": 3}, "qda": None}  # fmt: skip
    for head, params in heads.items():
        about = {"class_names": ["benign", "malignant"], "patch_size": [12, 12]}
        pipeline = IDCPipeline(family(), head=head, head_params=params).fit(X, y, groups=patients)
        if not files:
            rails = GuardRails().fit(ImageFingerprint().transform(X), patients, np.asarray(pipeline.transform(X)))
            rails.quantiles_ = rails.quantiles_[::100]
            pipeline.rails_ = rails
            decision = {"rule": "youden", "value": 0.5, "patient": {"score": "mean", "value": 0.4}}
            about |= {"positive": "malignant", "patients": {"expression": "(.*)_"}, "threshold": decision}
        files.append(save_model(pipeline, scratch() / f"{head}.histofeat", about=about).read_bytes())
    return files


def family():
    """The quickest family to measure and to load."""
    from histofeat import GrayHistogram

    return GrayHistogram(bins=2)


def zipped(members):
    """Give an archive of members, uncompressed: quick."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@lru_cache(64)
def unzipped(content):
    """Give the members of an archive, {} where it is none."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
    return {}


def changed_model(data):
    """Change a saved model: the file, its description, a part, or a member of a part; hashes are made right again.

    The first three bytes say which.
    """
    level, which, inner, script = data[0] % 4, data[1], data[2], data[3:]
    whole = model_bytes()[which % len(model_bytes())]
    if level == 0:
        return edited(whole, script)
    members = dict(unzipped(whole))
    description = json.loads(members.pop("model.json"))
    if level == 1:
        return zipped({"model.json": edited(json.dumps(description).encode(), script), **members})
    name = sorted(members)[inner // 16 % len(members)]
    deeper = dict(unzipped(members[name]))
    if level == 3 and deeper:
        one = sorted(deeper)[inner % len(deeper)]
        deeper[one] = edited(deeper[one], script)
        members[name] = zipped(deeper)
    else:
        members[name] = edited(members[name], script)
    description["parts"][name] = {"bytes": len(members[name]), "sha256": sha256(members[name]).hexdigest()}
    return zipped({"model.json": json.dumps(description).encode(), **members})


def fuzz_models(data):
    """Load a changed model, and predict with one that is read."""
    from histofeat import load_model
    from histofeat.models import ModelFileError

    if len(data) < 3:
        return
    file = scratch() / "changed.histofeat"
    file.write_bytes(changed_model(data))
    try:
        model = load_model(file)
    except ModelFileError as error:
        check_sentence(error)
        return
    assert repr((model, model.pipeline.head_))
    assert model.decision.keys() >= {"positive"}
    assert len(model.class_names) == len(model.classes_)
    assert model.patch_size is None or len(model.patch_size) == 2
    rule, rails = model.patient_rule, model.pipeline.rails_
    assert rule is None or rule.to_dict()
    X = np.zeros((2, 12, 12, 3), dtype=np.uint8)
    try:
        # A head that is not calibrated has no probabilities, and predicts labels.
        found = getattr(model.pipeline, "predict_proba", model.pipeline.predict)(X)
        if rails is not None:
            rails.unlike(np.asarray(model.pipeline.transform(X)))
            rails.knows(np.zeros((2, 16), np.uint8), ["1", "2"], model.pipeline.patients_ or ())
    except ValueError:  # of a model whose numbers were changed, and hashes with them
        return
    assert found.shape[0] == 2


# ---- feature stores ----------------------------------------------------------------------------------------------


@cache
def stored():
    """The bytes of a store, its images, and their features."""
    from histofeat.features import extract

    X = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), dtype=np.uint8)
    path = scratch() / "whole.sqlite"
    features = extract([family()], X, store=path).features[0]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size = 1024")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("VACUUM")
    connection.close()
    return path.read_bytes(), X, features


def fuzz_stores(data):
    """Measure images with a changed store: the right features, or an error; never others."""
    from histofeat.features import FeatureStore, extract

    content, X, right = stored()
    path = scratch() / "changed.sqlite"
    for ending in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    path.write_bytes(edited(content, data))
    try:
        found = extract([family()], X, store=path).features[0]
    except ValueError as error:
        check_sentence(error)
    else:
        assert np.array_equal(found, right), "a changed store gave other features"
    try:
        FeatureStore(path).summary()
    except ValueError as error:
        check_sentence(error)


STORE_SEEDS = [script[3:] for script in SCRIPT_SEEDS[:24]] + [bytes([0, n, 0, n % 8]) for n in range(0, 256, 8)]


# ---- running -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What is fuzzed: a function of bytes, bytes to start from, and how long inputs get."""

    run: Callable
    seeds: Callable
    longest: int


TARGETS = {
    "images": Target(fuzz_images, image_seeds, 2048),
    "names": Target(fuzz_names, lambda: NAME_SEEDS, 128),
    "tables": Target(fuzz_tables, lambda: TABLE_SEEDS, 256),
    "models": Target(fuzz_models, lambda: SCRIPT_SEEDS, 64),
    "stores": Target(fuzz_stores, lambda: STORE_SEEDS, 64),
}


@dataclass
class Findings:
    """Executions, and what they found: one record for each place at which an error is raised."""

    target: str
    file: Path | None = None
    executions: int = 0
    found: dict = field(default_factory=dict)
    curve: list = field(default_factory=list)
    edges: Callable | None = None

    def __call__(self, data):
        """Run the target once."""
        started = time.process_time()
        if self.file:
            self.file.with_suffix(".last").write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                TARGETS[self.target].run(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = frames[-1]
            ours = next((frame for frame in reversed(frames) if "/histofeat/" in frame.filename), place)
            key = f"{type(error).__name__} at {where(ours)}" + ("" if ours is place else f", from {where(place)}")
            self.add(key, str(error), data)
        took = time.process_time() - started
        if took > SLOW_S:
            self.add(f"slow: more than {SLOW_S:.0f} s", f"{took:.1f} s", data)
        self.executions += 1
        if self.executions in MARKS or self.executions % 10_000 == 0:
            self.mark()

    def add(self, key, words, data):
        """Count a finding, and keep the shortest input."""
        new = key not in self.found
        record = self.found.setdefault(key, {"count": 0, "words": words[:300], "input": data.hex()})
        record["count"] += 1
        if len(data) * 2 < len(record["input"]):
            record.update(words=words[:300], input=data.hex())
        if new:
            self.mark()

    def mark(self):
        """Note the coverage, and write what is known so far."""
        if self.edges:
            self.curve.append([self.executions, self.edges()])
        if self.file:
            content = {"executions": self.executions, "findings": self.found, "curve": self.curve}
            part = self.file.with_suffix(".part")
            part.write_text(
                json.dumps(content | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10})
            )
            part.replace(self.file)


#: Executions at which the coverage is noted.
MARKS = frozenset(step * 10**power for power in range(8) for step in (1, 2, 5))


def where(frame):
    """Name a line of code without the folders of this machine."""
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"


def quicken():
    """Leave out what takes time and is no part of what is fuzzed: threads, and the search for other packages."""
    from histofeat.features import _families
    from histofeat.images import _reading

    _families.entry_points = cache(_families.entry_points)
    _reading.ThreadPoolExecutor = InThisThread


class InThisThread(contextlib.nullcontext):
    """Stands for a pool of threads, and calls at once."""

    def __init__(self, n_threads, thread_name_prefix=""):
        super().__init__(self)

    def submit(self, function, *arguments):
        """Call, and give what a pool would."""
        done = Future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


def kernel_modules():
    """Name the modules of histofeat that numba compiles."""
    home = Path(importlib.util.find_spec("histofeat").origin).parent
    files = [file for file in home.rglob("*.py") if re.search(r"^@compiled", file.read_text(), re.MULTILINE)]
    return [".".join(("histofeat", *file.relative_to(home).with_suffix("").parts)) for file in files]


def by_hypothesis(target, runs, seed, call):
    """Call with `runs` inputs that Hypothesis makes: short ones, and seeds with edits."""
    from hypothesis import HealthCheck, Phase, given, seed as seeded, settings, strategies as st

    edits = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 65535), st.integers(0, 255)), max_size=6)
    script = edits.map(lambda steps: b"".join(bytes([o]) + p.to_bytes(2, "big") + bytes([v]) for o, p, v in steps))
    changed = st.builds(edited, st.sampled_from(TARGETS[target].seeds()), script)
    some = st.one_of(changed, changed, changed, st.binary(max_size=TARGETS[target].longest))

    @seeded(seed)
    @settings(max_examples=runs, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(some)
    def run(data):
        call(data)

    run()


def work_by_hypothesis(target, runs, seed, file):
    """Run in this process, with the branches that coverage counts."""
    import coverage

    findings = Findings(target, file)
    quicken()
    TARGETS[target].run(TARGETS[target].seeds()[0])  # imports take no part
    counted = coverage.Coverage(data_file=None, source_pkgs=["histofeat"], branch=True, messages=False)
    counted.start()

    def edges():
        data = counted.get_data()
        return sum(len(data.arcs(name) or ()) for name in data.measured_files())

    findings.edges = edges
    by_hypothesis(target, runs, seed, findings)
    counted.stop()
    findings.mark()


def work_by_atheris(target, runs, seed, file):
    """Run in this process, which libFuzzer ends."""
    import atheris

    findings = Findings(target, file)
    with atheris.instrument_imports(include=list(FOLLOWED), exclude=kernel_modules()):
        quicken()
        for data in TARGETS[target].seeds():
            TARGETS[target].run(data)
    corpus = scratch() / "corpus"
    corpus.mkdir()
    for number, data in enumerate(TARGETS[target].seeds()):
        (corpus / str(number)).write_bytes(data)
    options = [f"-runs={runs}", f"-seed={seed + 1}", f"-max_len={TARGETS[target].longest}", "-timeout=600",
               "-rss_limit_mb=4096", f"-artifact_prefix={scratch()}/", "-print_final_stats=0"]  # fmt: skip

    def one(data):
        findings(data)
        if findings.executions == runs:
            findings.mark()

    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def engine_of():
    """Engine by default."""
    return "atheris" if importlib.util.find_spec("atheris") else "hypothesis"


def run_target(target, runs, *, engine, seed=0):
    """Run a target in processes of their own, begun again where one ends.

    Returns
    -------
    dict
        ``executions``, ``curve`` (pairs of executions and branches), ``findings``, ``engine``, ``seconds``,
        ``peak_mib``.
    """
    total = {"target": target, "engine": engine, "executions": 0, "curve": [], "findings": {}, "peak_mib": 0}
    started, folder, ended = time.monotonic(), temporary_folder("fuzzing-"), 0
    while total["executions"] < runs and ended < RESTARTS:
        left = runs - total["executions"]
        file = folder / f"{seed}.json"
        words = [target, "--runs", str(left if engine == "atheris" else min(left, ROUND)), "--seed", str(seed)]
        command = [sys.executable, __file__, *words, "--engine", engine, "--work", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        part = json.loads(file.read_text()) if file.is_file() else {"executions": 0, "findings": {}, "curve": []}
        curve = part["curve"] or [[int(n), int(m)] for n, m in re.findall(r"#(\d+)\s.*?cov: (\d+)", done.stderr)]
        add_part(total, part, curve)
        if done.returncode not in (0, 77) or not part["executions"]:
            ended += 1
            last = file.with_suffix(".last")
            said = [line for line in done.stderr.strip().splitlines() if "ERROR" in line or "Error" in line]
            record = {"count": 1, "words": (said or ["no words"])[-1][:300]}
            record["input"] = last.read_bytes().hex() if last.is_file() else ""
            total["findings"].setdefault(f"the process ended ({done.returncode})", record)
        seed += 1
    shutil.rmtree(folder)
    total["curve"] = thinned(total["curve"])
    return total | {"seconds": round(time.monotonic() - started, 1)}


def add_part(total, part, curve):
    """Add what one process found."""
    before, most = total["executions"], total["curve"][-1][1] if total["curve"] else 0
    total["curve"] += [[before + n, max(m, most)] for n, m in curve]
    total["executions"] += part["executions"]
    total["peak_mib"] = max(total["peak_mib"], part.get("peak_mib", 0))
    for key, record in part["findings"].items():
        known = total["findings"].setdefault(key, {**record, "count": 0})
        known["count"] += record["count"]


def merged(files):
    """Add up the targets of several runs; curves of one engine go on where the one before ends."""
    totals = {}
    for part in (each for file in files for each in json.loads(Path(file).read_text())):
        names = {key: part[key] for key in ("target", "engine")}
        fresh = {**names, "executions": 0, "curve": [], "findings": {}, "peak_mib": 0, "seconds": 0}
        total = totals.setdefault(tuple(names.values()), fresh)
        add_part(total, part, part["curve"])
        total["seconds"] = round(total["seconds"] + part["seconds"], 1)
    return [{**total, "curve": thinned(total["curve"])} for total in totals.values()]


def thinned(curve):
    """Give the last pair before each step of a tenth of a decade, never falling."""
    kept, most = {}, 0
    for executions, edges in curve:
        most = max(most, edges)
        kept[int(10 * np.log10(max(executions, 1)))] = [executions, most]
    return list(kept.values())


def main(arguments=None):
    """Fuzz; returns the exit code: 1 where something was found."""
    parser = argparse.ArgumentParser(prog="fuzz.py", description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, "all", "none"])
    parser.add_argument("--runs", type=int, default=10_000, help="executions of each target (default: 10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write curves and findings here")
    parser.add_argument("--engine", choices=["auto", "atheris", "hypothesis"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="results of earlier runs")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = {"all": [*TARGETS], "none": []}.get(options.target, [options.target])
    engines = {name: engine_of() if options.engine == "auto" else options.engine for name in names}
    if options.work:
        work = work_by_atheris if engines[options.target] == "atheris" else work_by_hypothesis
        work(options.target, options.runs, options.seed, options.work)
        return 0
    found = [run_target(name, options.runs, engine=engine, seed=options.seed) for name, engine in engines.items()]
    for each in found:
        edges = each["curve"][-1][1] if each["curve"] else 0
        done = f"{each['executions']:,} executions by {each['engine']} in {each['seconds']:,.0f} s"
        print(f"{each['target']}: {done}, {edges:,} branches, {len(each['findings'])} findings")  # noqa: T201
        for key, record in each["findings"].items():
            print(f"  {record['count']:,} x {key}: {record['words'][:160]}")  # noqa: T201
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        options.json.write_text(json.dumps(merged([*options.add, options.json]), indent=1) + "\n")
    return int(any(each["findings"] for each in found))


if __name__ == "__main__":
    sys.exit(main())
