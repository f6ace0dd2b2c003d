"""Downloads from a real HTTP server on this machine, locks, writing and unpacking. The faults are in test_faults.py."""

import errno
import json
import os
import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from hashlib import sha256
from time import time

import pytest
from faults import ETAG, RETRY, garbage, leftovers, make_zip, noise, running_server, status, tree, whole

from helpers import downloads
from helpers.downloads import fetch, unpack
from helpers.settings import BadArgument, CourseError

FILES = noise(files=20, size=64_000)
BODY = make_zip(FILES)
DIGEST = sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch):
    yield from running_server(monkeypatch)


# ---- one download


def test_a_whole_file_arrives_once(server, tmp_path):
    url, target = server.serve(whole(BODY)), tmp_path / "deep" / "whole.zip"
    for _ in range(2):
        assert fetch(url, target, size=len(BODY), sha256=DIGEST) == target
    assert target.read_bytes() == BODY
    assert len(server.asked) == 1
    assert leftovers(target.parent) == ["whole.zip"]


def test_a_file_gets_its_name_in_one_step_when_it_is_whole_on_the_disk(server, tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace

    def flushed(out):
        steps.append(("flushed", os.fstat(out).st_size))
        fsync(out)

    def renamed(old, new):
        steps.append((new.name, old.stat().st_size, new.exists()))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    fetch(server.serve(whole(BODY)), tmp_path / "a.zip")
    downloads.write_whole(tmp_path / "run", b"123")
    assert steps == [("flushed", len(BODY)), ("a.zip", len(BODY), False), ("flushed", 3), ("run", 3, False)]


@pytest.mark.skipif(os.name != "posix", reason="a umask is a matter of Unix")
def test_everything_has_the_permissions_that_the_umask_leaves(server, tmp_path):
    old, folder = os.umask(0o027), tmp_path / "new"
    try:
        unpack(fetch(server.serve(whole(BODY)), folder / "a.zip"), folder / "out")
        downloads.write_whole(folder / "run", b"x")
    finally:
        os.umask(old)
    written = [path for path in folder.rglob("*") if path.suffix != ".lock"]
    assert {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in written} == {
        (False, "0o640"),
        (True, "0o750"),
    }


# ---- going on where a download broke


@pytest.mark.parametrize("version", [{"etag": ETAG}, {"etag": None, "Last_Modified": "Sat, 01 Aug 2026 00:00:00 GMT"}])
def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, version, capsys):
    url = server.serve(whole(BODY, cut=300_000, **version), whole(BODY, **version))
    fetch(url, tmp_path / "a.zip", sha256=DIGEST)
    (_, no_range, _), (_, wanted, validator) = server.asked
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    assert no_range is None
    assert 300_000 - 65_536 < start <= 300_000
    assert validator in version.values()
    last_bar = capsys.readouterr().err.splitlines()[-1]
    assert all(part in last_bar for part in ("a.zip: 100%", "1.28M/1.28M", "B/s")), "no progress, size or rate"
    assert leftovers(tmp_path) == ["a.zip"]


def test_compression_is_not_asked_for(server, tmp_path):
    """Bytes of a compressed answer can't be counted, and so not continued."""
    asked = []

    def note(handler):
        asked.append(handler.headers["Accept-Encoding"])
        whole(BODY)(handler)

    fetch(server.serve(note), tmp_path / "a.zip")
    assert asked == ["identity"]


def test_what_a_failed_download_brought_is_kept_for_the_next(server, tmp_path):
    url = server.serve(whole(BODY, cut=300_000), status(404))
    with pytest.raises(CourseError, match="404"):
        fetch(url, tmp_path / "a.zip")
    assert leftovers(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    fetch(server.serve(whole(BODY)), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert server.asked[-1][1] is not None


def test_a_download_that_gets_on_may_break_more_often_than_it_may_fail(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "RETRY", RETRY.new(total=1))
    body = make_zip(noise(files=4, size=1_200_000))
    fetch(server.serve(*[whole(body, cut=1_300_000)] * 3, whole(body)), tmp_path / "a.zip")
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


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 520])
def test_a_busy_server_is_asked_again(server, tmp_path, code):
    fetch(server.serve(status(code), status(code), whole(BODY)), tmp_path / "a.zip")
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [204, 400, 401, 403, 404, 410])
def test_a_clear_no_is_believed(server, tmp_path, code):
    with pytest.raises(CourseError, match=rf"\({code} [A-Z][A-Za-z ]+\)"):
        fetch(server.serve(status(code, Retry_After="soon"), whole(BODY)), tmp_path / "a.zip")
    assert len(server.asked) == 1


def test_a_wrong_file_is_not_fetched_twice(server, tmp_path):
    with pytest.raises(CourseError, match="SHA-256"):
        fetch(server.serve(whole(BODY)), tmp_path / "a.zip", sha256="0" * 64)
    assert len(server.asked) == 1


def test_failures_of_every_kind_are_counted_together(server, tmp_path):
    answers = [status(503), whole(BODY, cut=0), garbage, whole(BODY)]
    with pytest.raises(CourseError, match="the connection broke, 3 tries"):
        fetch(server.serve(*answers), tmp_path / "a.zip")
    assert len(server.asked) == 3


def test_the_wait_that_a_server_asks_for_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "RETRY", RETRY.new(total=3))
    date = formatdate(time() + 50, usegmt=True)
    answers = [status(code, Retry_After=wait) for code, wait in ((429, 7), (503, date), (429, "soon"))]
    fetch(server.serve(*answers, whole(BODY)), tmp_path / "a.zip")
    assert server.waits[0] == 7
    assert 10 < server.waits[1] <= 50  # a slow machine may take a while to ask
    assert len(server.asked) == 4


@pytest.mark.parametrize("wait", [61, 3600, "a date"])
def test_too_long_a_wait_is_not_waited_for(server, tmp_path, wait):
    wait = formatdate(time() + 7200, usegmt=True) if wait == "a date" else wait
    with pytest.raises(CourseError, match=r"\(429 Too Many Requests, asks to wait (61|3600|[67]\d\d\d) s\)"):
        fetch(server.serve(status(429, Retry_After=wait)), tmp_path / "a.zip")
    assert server.waits == []
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", [status(503), whole(BODY, cut=70_000, ranges=False)], ids=["busy", "broken"])
def test_the_waits_grow_to_a_limit_by_chance(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(downloads, "RETRY", RETRY.new(total=7, backoff_max=20))
    with pytest.raises(CourseError, match="8 tries"):
        fetch(server.serve(fault), tmp_path / "a.zip")
    assert len(server.asked) == 8
    assert all(2**i <= wait < 2**i + 1 for i, wait in enumerate(server.waits[:4], start=1))
    assert server.waits[4:] == [20, 20]
    assert len({wait % 1 for wait in server.waits[:4]}) == 4, "no chance in it"


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


# ---- through a proxy


@pytest.fixture
def no_exceptions(monkeypatch):
    """All addresses are asked for through the proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "path", "answer"),
    [
        ("https://example.org/a.zip", "example.org:443", "407 Proxy Authentication Required"),
        ("https://example.org/a.zip", "example.org:443", "403 Forbidden"),
        ("http://example.org/a.zip", "http://example.org/a.zip", "407 Proxy Authentication Required"),
    ],
)
@pytest.mark.usefixtures("no_exceptions")
def test_a_proxy_that_refuses_is_named_and_asked_once(server, tmp_path, monkeypatch, url, path, answer):
    server.serve(status(int(answer[:3])), path=path)
    proxy = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv(f"{url.partition(':')[0]}_proxy", f"http://me:secret@{proxy}")
    with pytest.raises(CourseError) as caught:
        fetch(url, tmp_path / "a.zip")
    assert f"{url} (the proxy {proxy} refused: {answer})" in str(caught.value)
    assert [asked for asked, *_ in server.asked] == [path]


@pytest.mark.usefixtures("server", "no_exceptions")
def test_a_proxy_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "127.0.0.1:9")
    with pytest.raises(CourseError, match=r"\(no connection to the proxy 127.0.0.1:9\)"):
        fetch("https://example.org/a.zip", tmp_path / "a.zip")


def test_a_certificate_that_is_not_accepted_is_named_and_asked_for_once(server, tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    if not shutil.which("openssl"):
        pytest.skip("this test makes a certificate with openssl")
    subprocess.run([*command, "-subj", "/CN=x", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    greeted = []
    context.sni_callback = lambda *_: greeted.append(1)
    with pytest.raises(CourseError, match=r"\(no secure connection\)"):
        fetch(f"https://localhost:{server.server_port}/a.zip", tmp_path / "a.zip")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(CourseError, match=r"\(its certificate is not accepted\)"):
        fetch(f"https://localhost:{server.server_port}/a.zip", tmp_path / "a.zip")
    assert greeted == [1]


# ---- one at a time


@pytest.fixture
def hasty(monkeypatch):
    """A tenth of the time until a lock counts as not to be had; and nothing was said yet."""
    acquire = downloads.FileLock.acquire
    monkeypatch.setattr(downloads.FileLock, "acquire", lambda lock, timeout=-1: acquire(lock, timeout / 10))
    downloads.tell_once.cache_clear()


def test_who_comes_second_says_so_and_waits(hasty, tmp_path, capsys):
    order, said = [], ""

    def second():
        with downloads.only_one(tmp_path / "a.zip"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with downloads.only_one(tmp_path / "a.zip"):
            waiting = pool.submit(second)
            while not said and not waiting.done():
                said = capsys.readouterr().err
            order.append("first")
        waiting.result()
    assert said == "Another process is working on a.zip: waiting for it.\n"
    assert order == ["first", "second"]


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EAGAIN"])
@pytest.mark.filterwarnings("ignore:flock not supported")  # so filelock 4 says it, on ENOSYS alone
def test_a_disk_without_file_locks_is_worked_on_all_the_same(hasty, archive, tmp_path, monkeypatch, capsys, code):
    def refused(*_):
        raise OSError(getattr(errno, code), code)

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refused)
    for name in ("out", "again"):
        assert tree(unpack(archive, tmp_path / name)) == FILES
    said = capsys.readouterr().err
    assert said.count("no file locks") == (code != "ENOSYS" or "no file locks" in said)
    assert "waiting" not in said
    assert leftovers(tmp_path) == ["a.zip", "again", "out"]


def test_a_lock_that_fails_for_another_reason_is_an_error(hasty, tmp_path, capsys):
    (tmp_path / ".a.zip.lock").mkdir()
    with pytest.raises(OSError, match=r"a.zip.lock"), downloads.only_one(tmp_path / "a.zip"):
        pass
    assert capsys.readouterr().err == ""


# ---- writing


def test_a_file_is_written_over_another_and_nothing_stays_beside_it(tmp_path):
    file = tmp_path / ("x" * 250)  # as long as names may be, nearly
    for content in (b"old", b"new"):
        downloads.write_whole(file, content)
        assert file.read_bytes() == content
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_could_not_be_written_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, function, error):
    file = tmp_path / "run"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, function, lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises((CourseError, KeyboardInterrupt)) as caught:
        downloads.write_whole(file, b"new")
    if isinstance(error, OSError):
        advice = "Make room there or choose another folder."
        assert str(caught.value) == f"Could not write {file} (No space left on device). {advice}"
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize(("folder", "cause"), [("missing", "No such file"), ("file", "Not a directory")])
def test_a_folder_that_is_none_is_one_line(tmp_path, folder, cause):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CourseError, match=rf"^Could not write .*{folder}.run \({cause}[^\n]*choose another folder.$"):
        downloads.write_whole(tmp_path / folder / "run", b"x")


# ---- archives


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY)
    return tmp_path / "a.zip"


def test_another_archive_than_the_published_one_is_used_and_that_is_said(archive, tmp_path, capsys):
    unpack(archive, tmp_path / "same", size=len(BODY), sha256=DIGEST, folders=["images"])
    assert capsys.readouterr().err == ""
    for published, reason in [({"size": 7}, "bytes instead of 7"), ({"sha256": "0" * 64}, "not 00000000")]:
        assert tree(unpack(archive, tmp_path / reason, **published)) == FILES
        errors = capsys.readouterr().err
        assert f"{archive} is not the published file" in errors
        assert reason in errors


def test_an_archive_of_something_else_is_refused(archive, tmp_path):
    with pytest.raises(CourseError, match=r"a.zip is damaged or unsafe \(it has no folder PetImages\)"):
        unpack(archive, tmp_path / "out", folders=["images", "PetImages"])
    assert leftovers(tmp_path) == ["a.zip"]


def test_the_archive_folder_is_searched_by_file_name(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(b"x")
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    assert downloads.find_archive("a.zip") == tmp_path / "a.zip"
    assert downloads.find_archive("b.zip") is None
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    monkeypatch.setenv("COURSE_ARCHIVES", "~")  # as written in a notebook, where no shell understands it
    assert downloads.find_archive("a.zip") == tmp_path / "a.zip"
    for name in (str(tmp_path / "missing"), "~$x"):
        monkeypatch.setenv("COURSE_ARCHIVES", name)
        with pytest.raises(BadArgument, match="COURSE_ARCHIVES names"):
            downloads.find_archive("a.zip")
    monkeypatch.delenv("COURSE_ARCHIVES")
    assert downloads.find_archive("a.zip") is None


def test_an_archive_is_unpacked_whole_and_once_even_by_two(archive, tmp_path, capsys):
    target = tmp_path / "out"
    unpack_it = partial(unpack, size=7)  # not the published size, which is said when it is unpacked
    with ThreadPoolExecutor(2) as pool:  # an error in a thread comes out of `map`
        assert list(pool.map(unpack_it, [archive] * 2, [target] * 2)) == [target] * 2
    assert capsys.readouterr().err.count("not the published file") == 1
    assert tree(target) == FILES
    assert leftovers(tmp_path) == ["a.zip", "out"]


def test_the_slower_of_two_finds_the_folder_made_and_is_content(archive, tmp_path, monkeypatch):
    """The other one finishes between the unpacking and the renaming, where locks don't work."""
    target, rename = tmp_path / "out", os.replace

    def too_late(source, destination):
        (target / "folder").mkdir(parents=True)
        rename(source, destination)

    monkeypatch.setattr(os, "replace", too_late)
    assert unpack(archive, target) == target
    assert leftovers(tmp_path) == ["a.zip", "out"]


def test_an_unpacked_archive_is_kept(archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    unpack(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_a_killed_process_left_is_no_part_of_the_next_tree(archive, tmp_path):
    (tmp_path / ".out.unpacking" / "old").mkdir(parents=True)
    assert tree(unpack(archive, tmp_path / "out")) == FILES
    assert not (tmp_path / "out" / "old").exists()
    assert leftovers(tmp_path) == ["a.zip", "out"]
