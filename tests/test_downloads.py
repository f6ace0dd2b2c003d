"""Downloads from a real HTTP server on this machine, and unpacking. The faults are in test_faults.py."""

import gzip
import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from time import monotonic, time

import pytest
from faults import ETAG, FAST, fetch, leftovers, make_zip, noise, running_server, status, tree, whole

from helpers import data, downloads
from helpers.settings import BadArgument, CourseError, choose_setting

FILES = noise(files=20, size=64_000)
BODY = make_zip(FILES)
DIGEST = sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with running_server() as server:
        yield server


# ---- one download


def test_a_whole_file_arrives_once(server, tmp_path):
    url, target = server.serve(whole(BODY)), tmp_path / "deep" / "whole.zip"
    for _ in range(2):
        fetch(url, target, size=len(BODY), sha256=DIGEST)
    assert target.read_bytes() == BODY
    assert len(server.asked) == 1
    assert leftovers(target.parent) == ["whole.zip"]


def test_a_file_gets_its_name_in_one_step_and_whole(server, tmp_path, monkeypatch):
    renamed, rename = [], os.replace

    def watch(source, destination):
        renamed.append((source.read_bytes() == BODY, destination.exists()))
        rename(source, destination)

    monkeypatch.setattr(downloads.os, "replace", watch)
    fetch(server.serve(whole(BODY)), tmp_path / "a.zip")
    assert renamed == [(True, False)]


@pytest.mark.parametrize(
    ("behaviour", "published", "message"),
    [
        (status(404), {}, "404 Not Found"),
        (whole(BODY, etag=None, cut=500_000), {}, "connection broke"),
        (whole(BODY), {"size": 7}, f"{len(BODY):,} bytes instead of 7"),
        (whole(BODY), {"sha256": "0123abcd"}, f"SHA-256 begins with {DIGEST[:8]}, not 0123abcd"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server, tmp_path, behaviour, published, message):
    url = server.serve(behaviour)
    with pytest.raises(CourseError, match=message) as caught:
        fetch(url, tmp_path / "a.zip", **published)
    assert url in str(caught.value)
    assert "put a.zip into a folder and name that folder in COURSE_ARCHIVES, or use the setting sample" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []
    fetch(server.serve(whole(BODY)), tmp_path / "a.zip")  # a retry is not stopped by what is left
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_without_a_network_photos_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_ARCHIVES", raising=False)
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(downloads, "PATIENCE", FAST)
    sources = "http://127.0.0.1:9/cats_and_dogs_filtered.zip", "http://127.0.0.1:9/mirror"
    archive = data.Archive(sources[0], "x", {}, mirrors=sources[1:])
    monkeypatch.setattr(data, "ARCHIVES", {"photos": archive})
    with pytest.raises(CourseError, match=r"put cats_and_dogs_filtered.zip into a folder.*COURSE_ARCHIVES") as caught:
        data.load_splits(choose_setting("photos"))
    assert all(f"{source} (no connection, 3 tries)" in str(caught.value) for source in sources)
    assert leftovers(tmp_path) == []


# ---- going on where a download broke


@pytest.mark.parametrize("version", [{"etag": ETAG}, {"etag": None, "Last_Modified": "Sat, 01 Aug 2026 00:00:00 GMT"}])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, version, capsys):
    url = server.serve(whole(BODY, cut=300_000, **version), whole(BODY, **version))
    fetch(url, tmp_path / "a.zip", sha256=DIGEST)
    (_, no_range, _), (_, wanted, validator) = server.asked
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    assert no_range is None
    assert 300_000 - downloads.PIECE < start <= 300_000
    assert validator in version.values()
    last_bar = capsys.readouterr().err.splitlines()[-1]
    assert all(part in last_bar for part in ("a.zip: 100%", "1.28M/1.28M", "B/s")), "no progress, size or rate"
    assert leftovers(tmp_path) == ["a.zip"]


def test_compression_is_not_asked_for(server, tmp_path):
    """Bytes of a compressed answer can't be counted, and so not continued."""

    def compress_if_allowed(handler):
        if "gzip" in handler.headers["Accept-Encoding"]:
            whole(gzip.compress(BODY), Content_Encoding="gzip", cut=300_000)(handler)
        whole(BODY, cut=300_000)(handler)

    fetch(server.serve(compress_if_allowed, whole(BODY)), tmp_path / "a.zip")
    assert server.asked[-1][1] is not None


def test_what_a_failed_download_brought_is_kept_for_the_next(server, tmp_path):
    url = server.serve(whole(BODY, cut=300_000), status(404))
    with pytest.raises(CourseError, match="404"):
        fetch(url, tmp_path / "a.zip")
    assert leftovers(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    fetch(server.serve(whole(BODY)), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.asked[-1][1] is not None


def test_a_download_that_gets_on_may_break_more_often_than_it_may_fail(server, tmp_path):
    body = make_zip(noise(files=8, size=1_000_000))
    url = server.serve(*[whole(body, cut=1_300_000)] * 7, whole(body))
    fetch(url, tmp_path / "a.zip", patience=replace(FAST, tries=2))
    assert (tmp_path / "a.zip").read_bytes() == body


def test_a_file_that_was_only_not_yet_renamed_is_not_asked_for_again(server, tmp_path):
    url = server.serve(whole(BODY))
    (tmp_path / "a.zip.part").write_bytes(BODY)
    note = {"url": url, "validator": ETAG, "length": len(BODY)}
    (tmp_path / "a.zip.part.json").write_text(json.dumps(note))
    fetch(url, tmp_path / "a.zip", sha256=DIGEST)
    assert server.asked == []
    assert leftovers(tmp_path) == ["a.zip"]


# ---- trying again, and elsewhere


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, tmp_path, code):
    fetch(server.serve(status(code), status(code), whole(BODY)), tmp_path / "a.zip")
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_clear_no_is_believed(server, tmp_path, code):
    with pytest.raises(CourseError, match=str(code)):
        fetch(server.serve(status(code), whole(BODY)), tmp_path / "a.zip")
    assert len(server.asked) == 1


def test_a_wrong_file_is_not_fetched_twice(server, tmp_path):
    with pytest.raises(CourseError, match="SHA-256"):
        fetch(server.serve(whole(BODY)), tmp_path / "a.zip", sha256="0" * 64)
    assert len(server.asked) == 1


@pytest.mark.parametrize("value", [lambda: "1", lambda: formatdate(time() + 3, usegmt=True)])
def test_the_wait_that_a_server_asks_for_is_kept(server, tmp_path, value):
    url, started = server.serve(status(429, Retry_After=value()), whole(BODY)), monotonic()
    fetch(url, tmp_path / "a.zip", patience=replace(FAST, longest_wait=5))
    assert 0.9 < monotonic() - started < 8  # a date has whole seconds, so three may be little more than two


def test_too_long_a_wait_is_not_waited_for(server, tmp_path):
    started = monotonic()
    with pytest.raises(CourseError, match="429 Too Many Requests, asks to wait 3600 s"):
        fetch(server.serve(status(429, Retry_After=3600)), tmp_path / "a.zip")
    assert monotonic() - started < 5


def test_the_waits_grow(monkeypatch):
    waits = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    for failures in range(1, 7):
        downloads.wait_or_give_up(downloads.Failed("", again=True), failures, replace(FAST, first_wait=1, tries=9))
    assert all(2**i / 2 <= wait <= 2**i for i, wait in enumerate(waits))
    assert len({wait / 2**i for i, wait in enumerate(waits)}) == 6, "no chance in it"


def test_the_next_source_is_tried_and_the_first_cause_is_kept(server, tmp_path):
    first = server.serve(whole(BODY, cut=100_000), status(500), path="/first.zip")
    second, third = server.serve(status(404), path="/2"), server.serve(whole(BODY), path="/3")
    fetch([first, second, third], tmp_path / "a.zip", sha256=DIGEST)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.asked[-1] == ("/3", None, None)  # what another server sent is not continued
    (tmp_path / "a.zip").unlink()
    with pytest.raises(CourseError) as caught:
        fetch([first, second], tmp_path / "a.zip")
    assert f"{first} (500 Internal Server Error, 3 tries); {second} (404 Not Found)" in str(caught.value)


# ---- archives from the archive folder


def test_another_archive_than_the_published_one_is_used_and_that_is_said(tmp_path, capsys):
    archive = tmp_path / "a.zip"
    archive.write_bytes(BODY)
    downloads.unpack(archive, tmp_path / "same", size=len(BODY), sha256=DIGEST, folders=["images"])
    assert capsys.readouterr().err == ""
    for published, reason in [({"size": 7}, "bytes instead of 7"), ({"sha256": "0" * 64}, "not 00000000")]:
        target = downloads.unpack(archive, tmp_path / reason, **published)
        assert tree(target) == FILES
        errors = capsys.readouterr().err
        assert f"{archive} is not the published file" in errors
        assert reason in errors


def test_an_archive_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY)
    with pytest.raises(CourseError, match=r"a.zip is damaged or unsafe \(it has no folder PetImages\)"):
        downloads.unpack(tmp_path / "a.zip", tmp_path / "out", folders=["images", "PetImages"])
    assert leftovers(tmp_path) == ["a.zip"]


def test_the_published_archives_must_have_their_folders():
    assert data.ARCHIVES["photos"].folders == ["cats_and_dogs_filtered/train", "cats_and_dogs_filtered/validation"]
    assert data.ARCHIVES["photos-full"].folders == ["PetImages"]


def test_photos_from_the_archive_folder_are_verified(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    (tmp_path / "cats_and_dogs_filtered.zip").write_bytes(make_zip({"cats_and_dogs_filtered/train/cats/0.jpg": b"x"}))
    with pytest.raises(CourseError, match="it has no folder cats_and_dogs_filtered/validation"):
        data.load_splits(choose_setting("photos"))
    assert "is not the published file" in capsys.readouterr().err


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


# ---- unpacking


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY)
    return tmp_path / "a.zip"


def test_an_archive_is_unpacked_whole_and_once_even_by_two(archive, tmp_path, capsys):
    target = tmp_path / "out"
    unpack = partial(downloads.unpack, size=7)  # not the published size, which is said when it is unpacked
    with ThreadPoolExecutor(2) as pool:  # an error in a thread comes out of `map`
        assert list(pool.map(unpack, [archive] * 2, [target] * 2)) == [target] * 2
    assert capsys.readouterr().err.count("not the published file") == 1
    with zipfile.ZipFile(archive) as zipped:
        assert tree(target) == {name: zipped.read(name) for name in zipped.namelist()}
    assert leftovers(tmp_path) == ["a.zip", "out"]


def test_the_slower_of_two_finds_the_folder_made_and_is_content(archive, tmp_path, monkeypatch):
    """The other one finishes between the unpacking and the renaming, where locks don't work."""
    target, rename = tmp_path / "out", os.replace

    def too_late(source, destination):
        (target / "folder").mkdir(parents=True)
        rename(source, destination)

    monkeypatch.setattr(downloads.os, "replace", too_late)
    assert downloads.unpack(archive, target) == target
    assert leftovers(tmp_path) == ["a.zip", "out"]


def test_an_unpacked_archive_is_kept(archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    downloads.unpack(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_a_killed_process_left_is_no_part_of_the_next_tree(archive, tmp_path):
    (tmp_path / ".out.unpacking" / "old").mkdir(parents=True)
    assert tree(downloads.unpack(archive, tmp_path / "out")) == FILES
    assert not (tmp_path / "out" / "old").exists()
    assert leftovers(tmp_path) == ["a.zip", "out"]
