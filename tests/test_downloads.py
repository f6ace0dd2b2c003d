"""Downloads against a real HTTP server on this machine."""

import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers import data, downloads
from helpers.settings import BadArgument, CourseError, choose_setting

BODY = bytes(range(256)) * 5000


class Handler(BaseHTTPRequestHandler):
    """/whole, /cut (the connection ends half-way), anything else: 404."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path not in ("/whole.zip", "/cut.zip"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if self.path == "/whole.zip" else BODY[: len(BODY) // 2])

    def log_message(self, *_):
        """Keep the tests' output clean."""


@pytest.fixture
def server():
    """The address of a running server, whose list `asked` fills."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_a_whole_file_arrives_once(server, tmp_path):
    target = tmp_path / "deep" / "whole.zip"
    for _ in range(2):
        downloads.fetch(f"{server.address}/whole.zip", target, size=len(BODY))
    assert target.read_bytes() == BODY
    assert server.asked == ["/whole.zip"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "size", "message"),
    [
        ("missing.zip", None, "404"),
        ("cut.zip", None, "cut.zip"),
        ("whole.zip", 7, "1,280,000 bytes came instead of 7"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server, tmp_path, path, size, message):
    with pytest.raises(CourseError, match=message) as caught:
        downloads.fetch(f"{server.address}/{path}", tmp_path / path, size=size)
    assert f"{server.address}/{path}" in str(caught.value)
    assert "COURSE_ARCHIVES" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    downloads.fetch(f"{server.address}/whole.zip", tmp_path / path)  # a retry is not stopped by what is left
    assert (tmp_path / path).read_bytes() == BODY


def test_without_a_network_photos_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_ARCHIVES", raising=False)
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path)
    archive = data.Archive("http://127.0.0.1:9/cats_and_dogs_filtered.zip", "x", {})
    monkeypatch.setattr(data, "ARCHIVES", {"photos": archive})
    with pytest.raises(CourseError, match=r"put cats_and_dogs_filtered.zip into a folder.*COURSE_ARCHIVES"):
        data.load_splits(choose_setting("photos"))
    assert list(tmp_path.iterdir()) == []


def make_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for i in range(50):
            zipped.writestr(f"folder/{i}.txt", f"{i} " * 500)
    return path


def test_an_archive_is_unpacked_whole_even_by_two_at_once(tmp_path):
    archive, target = make_zip(tmp_path / "a.zip"), tmp_path / "out"
    with ThreadPoolExecutor(2) as pool:  # an error in a thread comes out of `map`
        assert list(pool.map(downloads.unpack, [archive] * 2, [target] * 2)) == [target] * 2
    assert len(list((target / "folder").iterdir())) == 50
    assert (target / "folder" / "7.txt").read_text() == "7 " * 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_a_damaged_archive_leaves_no_folder(tmp_path):
    archive = make_zip(tmp_path / "a.zip")
    whole = archive.read_bytes()
    flipped = whole[:46] + bytes([whole[46] ^ 0xFF]) + whole[47:]  # inside the first file's compressed bytes
    for content in (whole[:-2000], flipped, b"<html>"):
        archive.write_bytes(content)
        with pytest.raises(CourseError, match=r"a.zip is damaged"):
            downloads.unpack(archive, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_the_slower_of_two_finds_the_folder_made_and_is_content(tmp_path, monkeypatch):
    """The other one finishes between the unpacking and the renaming."""
    archive, target, rename = make_zip(tmp_path / "a.zip"), tmp_path / "out", os.replace

    def too_late(source, destination):
        (target / "folder").mkdir(parents=True)
        rename(source, destination)

    monkeypatch.setattr(downloads.os, "replace", too_late)
    assert downloads.unpack(archive, target) == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_an_unpacked_archive_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    downloads.unpack(make_zip(tmp_path / "a.zip"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_no_name_in_an_archive_leads_out_of_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("../../outside.txt", "x")
    target = downloads.unpack(tmp_path / "a.zip", tmp_path / "deep" / "out")
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("outside.txt")] == [("deep", "out")]
    assert (target / "outside.txt").is_file()


def test_the_archive_folder_is_searched_by_file_name(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(b"x")
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    assert downloads.find_archive("a.zip") == tmp_path / "a.zip"
    assert downloads.find_archive("b.zip") is None
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path / "missing"))
    with pytest.raises(BadArgument, match="COURSE_ARCHIVES names"):
        downloads.find_archive("a.zip")
    monkeypatch.delenv("COURSE_ARCHIVES")
    assert downloads.find_archive("a.zip") is None
