"""Downloads from a server on this machine: resumed, checked against the first one, unpacked within bounds."""

import hashlib
import io
import os
import re
import shutil
import tarfile
import threading
import types
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from histofeat.datasets import DOWNLOADS, fetch_file, unpack
from histofeat.exceptions import DatasetError

CONTENT = np.random.default_rng(0).bytes(3 << 20)


class Published(BaseHTTPRequestHandler):
    """Serves one file; cuts a connection off after some bytes, and may not know ranges."""

    content, cut, ranges, asked = CONTENT, None, True, []

    def do_GET(self):
        known = self.headers.get("Range") if self.ranges else None
        start = int(re.search(r"\d+", known)[0]) if known else 0
        self.asked.append(start)
        self.send_response(404 if "missing" in self.path else 206 if known else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", hashlib.sha256(self.content).hexdigest())
        self.end_headers()
        with suppress(ConnectionError):  # who asks for the size alone hangs up
            self.wfile.write(self.content[start : self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    handler = type("Handler", (Published,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{running.server_address[1]}/data.zip"
        yield handler
        running.shutdown()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_and_its_checksum_is_kept(server, tmp_path):
    sizes, steps = [], []
    found = fetch_file(server.url, tmp_path / "new", before=sizes.append, progress=lambda *step: steps.append(step))
    assert found == tmp_path / "new" / "data.zip"
    assert found.read_bytes() == CONTENT
    assert sizes == [len(CONTENT)]
    assert steps[-1] == ("download, MiB", 3, 3)
    assert names(found.parent) == ["data.zip", "data.zip.sha256"]
    kept = found.with_name("data.zip.sha256").read_text()
    assert kept == f"{hashlib.sha256(CONTENT).hexdigest()}  data.zip\n"
    server.asked.clear()
    assert fetch_file(server.url, found.parent) == found
    assert server.asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_goes_on_where_it_ended(server, tmp_path, ranges):
    server.cut, server.ranges = 2 << 20, ranges
    with pytest.raises(DatasetError, match=r"data\.zip: expected a download, got .*Where there is no network, put the"):
        fetch_file(server.url, tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(".data.zip.")
    assert part.stat().st_size == 2 << 20
    server.cut = None
    server.asked.clear()
    assert fetch_file(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [0, 2 << 20 if ranges else 0]
    assert names(tmp_path) == ["data.zip", "data.zip.sha256"]


def test_a_process_that_was_killed_is_no_loss(server, tmp_path):
    """All had arrived: nothing is asked for a second time."""
    server.cut = 1 << 20
    with pytest.raises(DatasetError):
        fetch_file(server.url, tmp_path)
    (part,) = tmp_path.iterdir()
    part.write_bytes(CONTENT)
    server.asked.clear()
    assert fetch_file(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [0]


def test_another_version_of_the_file_is_not_joined_to_what_there_is(server, tmp_path):
    server.cut = 1 << 20
    with pytest.raises(DatasetError):
        fetch_file(server.url, tmp_path)
    server.content, server.cut = CONTENT[::-1], None
    assert fetch_file(server.url, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_later_download_has_to_be_the_first_one(server, tmp_path):
    found = fetch_file(server.url, tmp_path)
    found.write_bytes(b"damaged")
    assert fetch_file(server.url, tmp_path).read_bytes() == CONTENT
    found.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DatasetError, match=r"got SHA256 hash of downloaded file .*remove data\.zip\.sha256"):
        fetch_file(server.url, tmp_path)
    assert not found.exists()


def test_what_is_refused_before_anything_is_downloaded(server, tmp_path, monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=2 * len(CONTENT)))
        with pytest.raises(DatasetError, match=r"got 0\.0 GB of disk space where 0\.0 GB are needed"):
            fetch_file(server.url, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fetch_file(server.url, tmp_path, before=lambda n_bytes: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(DatasetError, match="got 404"):
        fetch_file(server.url.replace("data", "missing"), tmp_path)
    assert names(tmp_path) == []


def test_without_a_network_a_file_that_was_put_there_is_taken(tmp_path):
    url = "http://127.0.0.1:9/data.zip"  # nobody listens
    with pytest.raises(DatasetError, match=rf"put the file from {url} there and try again"):
        fetch_file(url, tmp_path)
    (tmp_path / "data.zip").write_bytes(b"by hand")
    assert fetch_file(url, tmp_path).read_bytes() == b"by hand"
    assert "data.zip.sha256" in names(tmp_path)


def test_the_addresses_are_those_of_the_page_on_data():
    page = (Path(__file__).parents[2] / "data" / "README.md").read_text()
    for url, words in DOWNLOADS.values():
        assert url in page
        assert "licence: " in words


# --- archives


def zipped(path, members, link=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return path


def tarred(path, members, link=None, kind=tarfile.SYMTYPE):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return path


@pytest.mark.parametrize(("make", "name"), [(zipped, "a.zip"), (tarred, "a.tar.gz")])
def test_archives_are_unpacked_whole_or_not_at_all(make, name, tmp_path):
    good = make(tmp_path / name, {"a/b.png": b"1", "c": b""})
    found = unpack(good, tmp_path / "new" / "out")
    assert {path.relative_to(found).as_posix() for path in found.rglob("*")} == {"a", "a/b.png", "c"}
    assert (found / "a" / "b.png").read_bytes() == b"1"
    with pytest.raises(FileExistsError, match="expected a new or empty folder"):
        unpack(good, found)
    for members, link in (
        ({"../a": b"1"}, None), ({"/a": b"1"}, None), ({"a/../../b": b"1"}, None), ({r"C:\a": b"1"}, None),
        ({r"..\a": b"1"}, None), ({"good": b"1"}, "link"), ({"a": b"1", "./a": b"2"}, None),
    ):  # fmt: skip
        bad = make(tmp_path / f"bad-{name}", members, link)
        with pytest.raises(DatasetError, match="got a link, a place outside the folder or a second file: "):
            unpack(bad, tmp_path / "out")
    for members, reason in (
        ({"a": b"1", "a/b": b"2"}, "exists|directory"),
        ({"zeros": bytes(65 << 20)}, "more than the 67,108,864 bytes that are allowed"),
    ):
        with pytest.raises(DatasetError, match=f"expected an archive of plain files, got .*({reason})"):
            unpack(make(tmp_path / f"bad-{name}", members), tmp_path / "out")
    bad.write_bytes(good.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="Remove it and fetch it again"):
        unpack(bad, tmp_path / "out")
    assert names(tmp_path) == sorted([name, f"bad-{name}", "new"])


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind, tmp_path):
    with pytest.raises(DatasetError, match="got a link, a place outside"):
        unpack(tarred(tmp_path / "a.tar.gz", {"a": b"1"}, "b", kind), tmp_path / "out")


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "a.zip", {"a": b"1"})
    real = Path.open

    def full(path, mode="r", *rest, **options):
        if mode == "xb":
            raise OSError(28, os.strerror(28), str(path))
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"out: expected a place that can be written, got No space left on device"):
        unpack(archive, tmp_path / "out")


def test_no_network_is_said_in_a_sentence_and_leaves_no_folder(tmp_path, monkeypatch):
    import requests

    def unreached(*_, **__):
        raise requests.ConnectionError("HTTPSConnectionPool(host='example.org', port=443): Max retries exceeded")

    monkeypatch.setattr(requests, "get", unreached)
    match = r"data\.zip: expected a download, got no connection to example\.org\. Where .* there and try again\.$"
    with pytest.raises(DatasetError, match=match):
        fetch_file("https://example.org/data.zip", tmp_path / "data")
    assert names(tmp_path) == []
