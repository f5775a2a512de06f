"""Measure memory and time: one hostile file after another, each in a process of its own, and very many patches.

    python tests/robustness/memory.py hostile            # a table of the files
    python tests/robustness/memory.py patches 277524     # the peak of an extraction

Peaks are those of the whole process, the interpreter and the packages included.
"""

import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

#: What a single hostile file may take: memory, and seconds of the processor.
MOST_MIB, MOST_S = 1024, 10
#: Seconds after which a process that reads a hostile file is ended.
PATIENCE_S = 120


def chunk(kind, data):
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def white_png(side, rows=None, more=b""):
    """A PNG whose header announces a white square, with `rows` of its rows, by default all."""
    rows, pack = side if rows is None else rows, zlib.compressobj(6)
    line = b"\0" + b"\xff" * (3 * side)
    pixels = b"".join(pack.compress(line) for _ in range(rows)) + pack.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def with_header(form, at, size, **options):
    """A small image whose header is changed: the bytes `size` at the place `at`, counted from the start."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(buffer, form, **options)
    content = bytearray(buffer.getvalue())
    place = content.index(at) + len(at) if isinstance(at, bytes) else at
    content[place : place + len(size)] = size
    return bytes(content)


def wide_tiff(side):
    """A small TIFF whose tags of width, height and rows of a strip announce a square."""
    content = with_header("TIFF", 0, b"II")
    for tag in (256, 257, 278):
        at = max(content.find(struct.pack("<HHI", tag, kind, 1)) for kind in (3, 4))
        content = content[:at] + struct.pack("<HHII", tag, 4, 1, side) + content[at + 12 :]
    return content


def archive(members):
    """A compressed archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def many_pages(n):
    """A TIFF of `n` pages."""
    buffer, page = io.BytesIO(), Image.new("RGB", (16, 16), "white")
    page.save(buffer, "TIFF", save_all=True, append_images=[page] * (n - 1))
    return buffer.getvalue()


#: Name -> how the file's bytes are made; those of images, tables, models and stores by their ending.
HOSTILE = {
    "header of 100,000 x 100,000.png": lambda: white_png(100_000, rows=1),
    "white, 20,000 x 20,000.png": lambda: white_png(20_000),
    "200 MB of text chunk.png": lambda: white_png(50, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))),
    "header of 65,500 x 65,500.jpg": lambda: with_header("JPEG", b"\xff\xc0\x00\x11\x08", b"\xff\xdc\xff\xdc"),
    "header of 60,000 x 60,000.bmp": lambda: with_header("BMP", 18, struct.pack("<II", 60_000, 60_000)),
    "header of 60,000 x 60,000.tif": lambda: wide_tiff(60_000),
    "1,000 pages.tif": lambda: many_pages(1000),
    "no image.png": lambda: bytes(64 << 20),
    "one line of 64 MB.csv": lambda: b"path,label,patient\n" + b"a" * (64 << 20),
    "a million rows.csv": lambda: b"path,label,patient\n" + b"a.png,x,1\n" * 1_000_000,
    "200,000 columns.csv": lambda: b",".join(b"c%d" % n for n in range(200_000)) + b"\n",
    "description of 1 GB.histofeat": lambda: archive({"model.json": b" " * (1 << 30)}),
    "part of 1 GB.histofeat": lambda: archive({"model.json": b"{}", "pipeline.skops": bytes(1 << 30)}),
    "100,000 members.histofeat": lambda: archive({str(n): b"" for n in range(100_000)}),
    "nested lists.histofeat": lambda: archive({"model.json": b"[" * 1_000_000}),
    "zeros.sqlite": lambda: bytes(64 << 20),
    "a named pipe.png": None,
}


def read_hostile(path):
    """Open a file as what its ending says; returns the words of the error, "read" where there is none."""
    import histofeat as hf
    from histofeat.features import extract
    from histofeat.images import read_patch

    ways = {
        ".csv": hf.load_manifest,
        ".histofeat": hf.load_model,
        ".sqlite": lambda file: extract([hf.GrayHistogram()], np.zeros((2, 8, 8, 3), dtype=np.uint8), store=file),
    }
    try:
        ways.get(path.suffix, read_patch)(path)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).replace(str(path), path.name)}"
    return "read"


def measured(path):
    """Give the outcome, processor seconds and peak of reading a file here; imports take no part in the seconds."""
    import warnings

    good = path.with_name("good.png")
    Image.new("RGB", (16, 16), "white").save(good)
    read_hostile(good)
    read_hostile(path.with_name("none.histofeat"))
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = read_hostile(path)
    return {"outcome": outcome, "seconds": round(time.process_time() - started, 2), "peak_mib": peak_mib()}


def peak_mib():
    """The largest memory of this process so far; what its parent had when it started takes no part where /proc is."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def in_a_process(words, patience_s=PATIENCE_S):
    """Run this file with some words; returns what it prints as JSON, or how it ended."""
    command = [sys.executable, __file__, *map(str, words)]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=patience_s
        )
    except subprocess.TimeoutExpired:
        return {"outcome": "hangs", "seconds": float(patience_s), "peak_mib": 0}
    if done.returncode:
        seconds = round(time.monotonic() - started, 2)
        return {"outcome": f"the process ended ({done.returncode})", "seconds": seconds, "peak_mib": 0}
    return json.loads(done.stdout.splitlines()[-1])


def hostile_rows(names=None):
    """Measure the hostile files: a list of dicts ``file``, ``mib`` on disk, ``outcome``, ``seconds``, ``peak_mib``."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        for name in names or HOSTILE:
            path = Path(folder) / name
            if HOSTILE[name] is None:
                os.mkfifo(path)
            else:
                path.write_bytes(HOSTILE[name]())
            size = path.stat().st_size
            rows.append({"file": name, "bytes": size, **in_a_process(["one", path])})
            path.unlink()
    return rows


def make_patches(folder, n_files):
    """Write `n_files` patches of 50 x 50 px under `folder`, a thousand to a folder; returns their paths."""
    rng, paths = np.random.default_rng(0), []
    for number in range(n_files):
        path = folder / str(number // 1000) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = rng.integers(60, 255, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(coarse.repeat(5, axis=0).repeat(5, axis=1)).save(path, compress_level=1)
        paths.append(str(path))
    return paths


def extraction(n_files, store=True):
    """Extract a family from made-up patches in this process; returns files, seconds, peak."""
    from histofeat import ColorHistogram
    from histofeat.features import extract

    with tempfile.TemporaryDirectory(prefix="patches-") as folder:
        paths = make_patches(Path(folder), n_files)
        started = time.monotonic()
        kept = Path(folder) / "features.sqlite" if store else None
        features = extract([ColorHistogram()], paths, n_jobs=2, store=kept).features[0]
        seconds = round(time.monotonic() - started, 1)
    return {"files": n_files, "features": features.shape[1], "seconds": seconds, "peak_mib": peak_mib()}


def main():
    """Print a table, or for a single file and an extraction one line of JSON."""
    what, *words = sys.argv[1:]
    if what == "one":
        print(json.dumps(measured(Path(words[0]))))  # noqa: T201
    elif what == "patches":
        print(json.dumps(extraction(int(words[0]))))  # noqa: T201
    elif what == "hostile":
        for row in hostile_rows():
            took = f"{row['bytes']:>12,} bytes {row['seconds']:>7} s {row['peak_mib']:>6} MiB"
            print(f"{row['file']:<34} {took}  {row['outcome'][:150]}")  # noqa: T201
    else:
        sys.exit(f"memory.py: expected hostile or patches, got {what}. Give one of them.")


if __name__ == "__main__":
    main()
