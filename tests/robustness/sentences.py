"""Kinds of bad input times entry points: the sentence that each gets.

    python tests/robustness/sentences.py                # write sentences.txt again
    python tests/robustness/sentences.py --faults       # print what is wrong with a sentence, and write nothing

`test_sentences.py` compares them with the text. A sentence of the command line speaks of options, not of Python.
"""

import contextlib
import io
import os
import re
import shutil
import struct
import sys
import tempfile
import threading
import warnings
import zipfile
import zlib
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image

TEXT = Path(__file__).with_name("sentences.txt")
#: Seconds after which a call that reads a named pipe counts as hanging.
PATIENCE_S = 30.0
#: What says nothing to someone at a command line: classes, calls, keywords, constants of Python.
PYTHON = re.compile(
    r"\b(None|True|False|nan|Errno|dict|DataFrame|ndarray|np\.|NoneType)\b|\b[A-Z]\w+Error\b|\b[a-z]\w*_\w+\(|\w+\(\)|"
    r"\b(?!class)[a-z_]+=[\w\"'(\[.]|\b(load|predict|make|save|read|write|check|split)_[a-z_]+"
)
#: What is no word of Python there: quoted text, rules that are values of an option, what names both interfaces.
SAID = re.compile(r"'[^']*'|(sensitivity|specificity)=[0-9.]+|\bor save_model wrote|\b[Ii]n Python, .*")
#: Words with which an error may say what came.
CAME = (", got ", ", got: ", ", found ")
#: Letters of a first sentence, paths aside.
LONGEST = 120


class Material:
    """Files and folders that are no good, in one folder, and a cohort, a model and an evaluation that are."""

    def __init__(self, folder):
        from histofeat import IDCPipeline, make_cohort, save_model
        from histofeat.datasets import official_roles

        self.folder = folder
        self.cohort = make_cohort(6, 8, root=folder / "cohort")
        self.rng = np.random.default_rng(0)
        self.patch = self.rng.integers(0, 255, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(self.patch).save(folder / "good.png")
        (folder / "text.txt").write_text("not an image\n")
        (folder / "empty").mkdir()
        (folder / "other").mkdir()
        (folder / "other" / "notes.txt").write_text("notes")
        (folder / "readonly").mkdir()
        whole = (folder / "good.png").read_bytes()
        self.bad_images = {
            "text": b"this is no image",
            "no bytes": b"",
            "cut off": whole[: len(whole) // 2],
            "flipped": whole[:600] + bytes([whole[600] ^ 64]) + whole[601:],
            "huge": huge_png(),
        }
        for name, content in self.bad_images.items():
            (folder / f"{name}.png").write_bytes(content)
        (folder / "folder.png").mkdir()
        self.pipe = folder / "pipe.png"
        os.mkfifo(self.pipe)
        for name in ("pipe", *self.bad_images, "folder"):
            self._tree(name)
        self.model = folder / "color.histofeat"
        pipeline = IDCPipeline("color", head="logistic").fit(self.cohort.X, self.cohort.y)
        save_model(pipeline, self.model, about={"class_names": ["benign", "malignant"], "patch_size": [50, 50]})
        with zipfile.ZipFile(folder / "other.zip", "w") as archive:
            archive.writestr("notes.txt", "notes")
        (folder / "cut.histofeat").write_bytes(self.model.read_bytes()[:2000])
        test = [patient for patient, role in official_roles().items() if role == "test"]
        rows = [f"{test[0]}_idx5_x{50 * place + 1}_y1_class{place % 2}.png,0.5" for place in range(4)]
        (folder / "scores.csv").write_text("\n".join(["patch,score", *rows]) + "\n")
        self._tables()

    def _tree(self, name):
        """An IDC tree whose one image is no good."""
        tree = self.folder / f"tree-{name}" / "101" / "0"
        tree.mkdir(parents=True)
        file = tree / "101_idx5_x1_y1_class0.png"
        if name == "folder":
            file.mkdir()
        elif name == "pipe":
            os.mkfifo(file)
        else:
            file.write_bytes(self.bad_images[name])

    def _tables(self):
        good = "path,label,patient\n" + "".join(f"good.png,{'ab'[row]},{row}\n" for row in range(2))
        tables = {
            "no rows": "path,label,patient\n",
            "no column": "path,label\ngood.png,a\n",
            "missing file": good.replace("good.png,b", "none.png,b"),
            "pipe": good.replace("good.png,b", "pipe.png,b"),
            "huge": good.replace("good.png,b", "huge.png,b"),
            "empty cell": good.replace(",b,", ",,"),
            "NA": good.replace(",1\n", ",NA\n"),
            "more cells": good.replace(",1\n", ",1,2\n"),
            "two rows": good + "good.png,b,0\n",
        }
        for name, text in tables.items():
            (self.folder / f"table {name}.csv").write_text(text)
        (self.folder / "table binary.csv").write_bytes(bytes(range(256)))

    def __truediv__(self, name):
        return self.folder / name


def huge_png(side=100_000):
    """A PNG of a few bytes whose header announces `side` times `side` pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def in_python(it):
    """Yield (entry point, kind of input, call) for all that is called from Python."""
    import histofeat as hf
    from histofeat.features import extract

    places = {
        "no path": None, "a number": 3, "no text": "", "nowhere": it / "nowhere", "a file": it / "text.txt",
        "an empty folder": it / "empty", "other data": it / "other",
    }  # fmt: skip
    for name, place in places.items():
        yield "load_idc", name, lambda place=place: hf.load_idc(place)
        yield "load_breakhis", name, lambda place=place: hf.load_breakhis(place)
        yield "load_image_folder", name, lambda place=place: hf.load_image_folder(place, patients="image")
        yield "load_manifest", name, lambda place=place: hf.load_manifest(place)
        yield "open_dataset", name, lambda place=place: hf.open_dataset(place)
        yield "load_model", name, lambda place=place: hf.load_model(place)
    for name in ("pipe", *it.bad_images, "folder"):
        yield "load_idc", f"image: {name}", lambda name=name: hf.load_idc(it / f"tree-{name}")
        folder = it / f"tree-{name}" / "101"
        yield (
            "load_image_folder",
            f"image: {name}",
            lambda folder=folder: hf.load_image_folder(folder, patients="image"),
        )
    for rule in (None, 3, "([", "a", "nowhere.csv"):
        tree = it / "cohort"
        call = partial(hf.load_image_folder, tree, patients=rule)
        yield "load_image_folder", f"patients={rule!r}", call
    for file in sorted(it.folder.glob("table *.csv")):
        yield "load_manifest", file.stem, lambda file=file: hf.load_manifest(file)
    for name in ("pipe.png", "other.zip", "cut.histofeat"):
        yield "load_model", name, lambda name=name: hf.load_model(it / name)

    images = {
        "nothing": None, "a number": 5, "one path": str(it / "good.png"), "no images": [],
        "a missing file": [it / "nowhere.png"], "a folder": [it / "empty"], "floats": it.rng.random((2, 8, 8, 3)),
        "NaN": np.full((2, 8, 8, 3), np.nan), "a feature matrix": np.zeros((4, 9)), "one patch": it.patch,
        "five channels": np.zeros((2, 8, 8, 5), dtype=np.uint8), "no pixel": np.zeros((2, 0, 8, 3), dtype=np.uint8),
        "a list with None": [it.patch, None], "a path among arrays": [it.patch, str(it / "good.png")],
        "a table without paths": pd.DataFrame({"file": ["a"]}), "other text": ["a\0b"],
    }  # fmt: skip
    images |= {f"image: {name}": [it / f"{name}.png"] for name in ("pipe", *it.bad_images, "folder")}
    fitted = hf.load_model(it.model)
    color, pipeline = hf.ColorHistogram(), hf.IDCPipeline("color", head="logistic")
    X, y, patients = it.cohort.X, it.cohort.y, it.cohort.patients
    for name, given in images.items():
        yield "ColorHistogram.fit", name, lambda given=given: hf.ColorHistogram().fit(given)
        yield "ColorHistogram.transform", name, lambda given=given: color.transform(given)
        yield "IDCPipeline.fit", name, lambda given=given: pipeline.fit(given, [0, 1])
        yield "IDCPipeline.predict", name, lambda given=given: fitted.pipeline.predict(given)
        yield "predict_images", name, lambda given=given: hf.predict_images(fitted, given, on_error="raise")
    labels = {
        "y: nothing": None, "y: too few": y[:3], "y: one class": np.zeros(len(y)), "y: NaN": np.where(y, np.nan, 0.0),
        "y: two columns": np.c_[y, y],
    }  # fmt: skip
    for name, given in labels.items():
        yield "IDCPipeline.fit", name, lambda given=given: pipeline.fit(X, given)
    for name, given in {"too few": patients[:3], "NaN": np.where(y, np.nan, 0.0), "a word": "folder"}.items():
        yield "IDCPipeline.fit", f"groups: {name}", lambda given=given: pipeline.fit(X, y, groups=given)
    for words in ({"features": "colour"}, {"features": 3}, {"features": []}, {"head": "forest"}, {"normalizer": "x"}):
        settings = {"features": "color", "head": "logistic"} | words
        yield "IDCPipeline.fit", str(words), lambda settings=settings: hf.IDCPipeline(**settings).fit(X, y)
    yield "IDCPipeline.predict", "not fitted", lambda: hf.IDCPipeline("color").predict(X)
    for name in ("text.txt", "empty", "pipe.png", "other.zip"):
        yield "FeatureStore", name, lambda name=name: extract([color], X[:2], store=it / name)
    yield "FeatureStore", "a number", lambda: extract([color], X[:2], store=3)

    one = {"color": pipeline}

    def run(**other):
        folds = hf.PatientKFold(2)
        usual = {"dataset": it.cohort, "pipelines": one, "cv": folds, "inner_cv": folds, "n_resamples": 5}
        return hf.evaluate(**usual | other)

    for name, given in {"a word": "idc", "nothing": None, "X and y": ([1], [0]), "a path": it / "cohort" / "1"}.items():
        yield "evaluate", f"dataset: {name}", lambda given=given: run(dataset=given)
    unusable = {"nothing": None, "a word": "color", "none": {}, "a number": [3], "a head": {"a": "svm"}}
    for name, given in unusable.items():
        yield "evaluate", f"pipelines: {name}", lambda given=given: run(pipelines=given)
    others = {
        "cv": (1, "x", 3.5, [], hf.PatientKFold(50)), "inner_cv": ("x", hf.PatientKFold(50)), "n_resamples": (-1, 2.5),
        "random_state": ("x", -1), "threshold": ("x", 3), "search": (3, {"C": [1]}), "audit": (3,), "runtime": (3,),
        "plan": (3, it / "nowhere.json", it / "text.txt"),
    }  # fmt: skip
    for argument, values in others.items():
        for value in values:
            yield "evaluate", f"{argument}={value}", lambda words={argument: value}: run(**words)
    evaluation = run()
    outputs = {"a file": it / "text.txt", "below a file": it / "text.txt" / "report", "other data": it / "other",
               "read-only": it / "readonly" / "report", "nothing": None}  # fmt: skip
    for name, given in {"a mapping": {}, "nothing": None, "a word": "idc", "a dataset": it.cohort}.items():
        yield "write_report", name, lambda given=given: hf.write_report(given, it / "report")
    for name, output in outputs.items():
        yield "write_report", f"output: {name}", lambda output=output: hf.write_report(evaluation, output)
    yield "write_report", "template: nowhere", lambda: hf.write_report(evaluation, it / "report", template="none.j2")
    outputs = {"a folder": it / "empty", "below a file": it / "text.txt" / "m", "nowhere": it / "nowhere" / "m",
               "read-only": it / "readonly" / "m", "a file": it / "text.txt"}  # fmt: skip
    for name, output in outputs.items():
        yield "save_model", f"output: {name}", lambda output=output: hf.save_model(fitted, output)
    yield "save_model", "not fitted", lambda: hf.save_model(pipeline, it / "new.histofeat")
    yield "save_model", "a mapping", lambda: hf.save_model({}, it / "new.histofeat")


def on_the_command_line(it):
    """Yield (command, kind of input, words) for the command line."""
    data, model, new = str(it / "cohort"), str(it.model), str(it / "new")
    train = ["train", data, "--output", new, "--features", "color", "--head", "logistic", "--no-estimate", "--quiet"]
    predict = ["predict", model, str(it / "good.png"), "--quiet"]
    score = ["score", str(it / "scores.csv"), "--protocol", "idc-official", "--resamples", "0"]
    places = ("nowhere", "text.txt", "empty", "other", "pipe.png", "tree-pipe")
    for place in places:
        yield "train", f"data: {place}", [train[0], str(it / place), *train[2:]]
        yield "audit", place, ["audit", str(it / place)]
        yield "predict", f"model: {place}", [predict[0], str(it / place), *predict[2:]]
        yield "predict", f"images: {place}", ["predict", model, str(it / place), "--quiet"]
        yield "store", place, ["store", str(it / place)]
        yield "score", place, [score[0], str(it / place), *score[2:]]
    for name in it.bad_images:
        yield "train", f"image: {name}", [train[0], str(it / f"tree-{name}"), *train[2:]]
        yield "audit", f"image: {name}", ["audit", str(it / f"tree-{name}")]
        yield "predict", f"image: {name}", ["predict", model, str(it / f"{name}.png"), "--quiet"]
    for file in sorted(it.folder.glob("table *.csv")):
        yield "train", file.stem, [train[0], str(file), *train[2:]]
        yield "score", file.stem, [score[0], str(file), *score[2:]]
        yield "predict", f"patients: {file.stem}", [*predict, "--patients", str(file)]
    outputs = ("text.txt", "empty", "nowhere/new", "text.txt/new", "readonly/new")
    for place in outputs:
        yield "train", f"--output {place}", [*train[:3], str(it / place), *train[4:]]
        yield "predict", f"--output {place}", [*predict, "--output", str(it / place)]
        yield "score", f"--output {place}", [*score, "--allow-missing-patients", "--output", str(it / place)]
    for name in ("cut.histofeat", "other.zip"):
        yield "predict", f"model: {name}", [predict[0], str(it / name), *predict[2:]]
        yield "store", name, ["store", str(it / name)]
    options = {
        "train": ("--format x", "--features x", "--features ''", "--head x", "--normalizer x", "--target x",
                  "--seed -1", "--magnification 40", "--duplicates x", "--patients x", "--only nowhere",
                  "--only empty", "--n-jobs x", "--class-weight x", "--epochs 0", "--epochs 3", "--folds 1",
                  "--n-jobs 0", "--ledger empty"),
        "predict": ("--policy x", "--aggregate x", "--edges x", "--min-tissue 3", "--min-tissue x", "--patients (",
                    "--patients QQ", "--patients model", "--n-jobs 0", "--weights nowhere", "nowhere*.png"),
        "score": ("--protocol x", "--threshold x", "--threshold sensitivity=3", "--resamples -1", "--data nowhere",
                  "--data empty", "--ledger empty", ""),
    }  # fmt: skip
    for command, values in options.items():
        words = {"train": train, "predict": predict, "score": score}[command]
        for value in values:
            more = [it_s.replace("''", "") for it_s in value.split()]
            more = [str(it / word) if word in ("nowhere", "empty", "nowhere*.png") else word for word in more]
            if command == "train" and value.startswith("--patients"):
                # Class folders, which the option is about.
                more += ["--format", "folder"]
            yield command, value or "missing patients", [*words, *more]
    yield "store", "--purge x", ["store", str(it / "good.sqlite"), "--purge", "x"]
    yield "histofeat", "no command", []
    yield "histofeat", "an unknown command", ["trian"]


def sentences(folder):
    """Give {(entry point, kind of input): sentence}: "goes through" where there is none, "hangs" where it waits."""
    from histofeat import ColorHistogram, cli
    from histofeat.features import extract

    it = Material(folder)
    extract([ColorHistogram()], it.cohort.X[:2], store=it / "good.sqlite")
    found = {}
    with read_only(it / "readonly"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry, kind, call in in_python(it):
            found[entry, tidy(it, kind)] = tidy(it, guarded(it, call))
        for entry, kind, words in on_the_command_line(it):
            found[f"histofeat {entry}".replace("histofeat histofeat", "histofeat"), kind] = tidy(
                it, guarded(it, lambda words=words: printed(cli, words))
            )
            for left in (it / "new", it / "new.histofeat"):
                if left.is_file():
                    left.unlink()
    return found


def guarded(it, call):
    """Give the words of the error of a call, with its class."""
    hung = []
    timer = threading.Timer(PATIENCE_S, lambda: hung.append(let_go(it)))
    timer.start()
    try:
        said = call()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    finally:
        timer.cancel()
    if hung:
        return "HANGS"
    return said if isinstance(said, str) else "goes through"


def let_go(it):
    """End the wait of those who read a named pipe."""
    for pipe in (it.pipe, *it.folder.glob("tree-pipe/*/*/*.png")):
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def printed(cli, words):
    """Give what a command prints to stderr, where it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    return f"exit {code}: {err.getvalue().strip()}" if code else None


def tidy(it, said):
    """Take out what differs between runs."""
    said = said.replace(str(it.folder), "TMP").replace(str(Path.cwd()), "HERE").replace("\n", " / ")
    # Words of a package, which differ between its versions.
    said = re.sub(r"(Invalid value for '[\w-]+': )(?!expected ).*( See )", r"\1...\2", said)
    said = re.sub(r"0x[0-9a-f]{6,}", "0x", said)
    return re.sub(r"\.[\w .-]*\.[0-9a-f]{8}\.partial", ".partial", said).replace("\0", "(null)")


@contextlib.contextmanager
def read_only(folder):
    """Refuse to make files and folders in a folder, for the superuser too."""
    os_mkdir = os.mkdir

    def refuse(path, *more, **words):
        if Path(os.fspath(path)).is_relative_to(folder):
            raise OSError(30, "Read-only file system", os.fspath(path))
        return os_mkdir(path, *more, **words)

    with mock.patch("os.mkdir", refuse):
        yield


def fault(entry, said):
    """Give what is wrong with a sentence; "" where it is good."""
    command = entry.startswith("histofeat")
    if said == "goes through":
        return ""
    if said == "HANGS":
        return "hangs"
    start, _, words = said.partition(": ")
    if command:
        if " / " in words.strip(" /"):
            return "more than one line"
        words = words.removeprefix("histofeat: ")
        python = PYTHON.search(SAID.sub("", words))
        if python:
            return f"speaks Python: {python[0]}"
        if re.search(r"See `histofeat[\w -]* --help`\.$", words) or start == "exit 1":
            return ""
    elif words.startswith(USUAL):
        return ""
    if ": expected " not in words or not any(came in words for came in CAME):
        return "does not say what was expected and what came" if command else f"a raw {start}"
    if not words.endswith((".", "?", ".'")) or not re.search(r"[.?]'?\)? [A-Z`].*[.?]'?$", words):
        return "has no remedy"
    first = re.split(r"\. (?=[A-Z{\\-`])", words.partition(": expected ")[2], maxsplit=1)[0]
    if len(re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)|'[^']*'|\{[^{}]*\}\S*|TMP/?[\w./-]*", "", first)) > LONGEST:
        return "is too long"
    return ""


#: Sentences of Python and scikit-learn that everybody knows.
USUAL = ("expected str, bytes or os.PathLike object, not", "This IDCPipeline instance is not fitted yet.")


def as_text(found):
    """Give the table as text: a heading for each entry point, a line for each kind of input."""
    lines = []
    for entry in dict.fromkeys(entry for entry, _ in found):
        lines += ["", f"## {entry}", ""]
        lines += [f"{kind} -> {said}" for (other, kind), said in found.items() if other == entry]
    return "\n".join(lines).strip() + "\n"


def main():
    """Write the text, or print the faults."""
    folder = Path(tempfile.mkdtemp(prefix="sentences-"))
    try:
        found = sentences(folder)
    finally:
        shutil.rmtree(folder)
    if "--faults" in sys.argv:
        for (entry, kind), said in found.items():
            if fault(entry, said):
                print(f"{entry} | {kind} | {fault(entry, said)}\n    {said}")  # noqa: T201
        print(len(found), "cells")  # noqa: T201
    else:
        TEXT.write_text(as_text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
