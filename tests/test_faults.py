"""Faults of networks, disks, archives and weights files, one by one. After each, the next run must bring all."""

import copy
import gzip
import io
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import time
import zipfile
from contextlib import suppress
from hashlib import sha256
from types import SimpleNamespace

import pytest
import torch
import torchvision
from faults import (
    RETRY,
    fetch_and_unpack,
    garbage,
    leftovers,
    make_zip,
    noise,
    redirect,
    running_server,
    status,
    tree,
    trickle,
    unasked_rest,
    web_page,
    whole,
    write_without_room,
)

from helpers import downloads, models
from helpers.downloads import fetch, unpack
from helpers.settings import CourseError

FILES = noise(files=20, size=32_000)
BODY = make_zip(FILES)
DIGEST = sha256(BODY).hexdigest()
OTHER = make_zip(noise(files=20, size=32_000, seed=1))
HALF = len(BODY) // 2


@pytest.fixture
def server(monkeypatch):
    yield from running_server(monkeypatch)


def check_next_run(server, target, **published):
    """The server is well again: the next run must bring the whole file, and leave nothing else."""
    fetch(server.serve(whole(BODY)), target, **published)
    assert target.read_bytes() == BODY
    assert leftovers(target.parent) == [target.name]


# ---------------------------------------------------------------------------------------- networks


OVERCOME = {
    "busy, then cut, then busy": [status(500), whole(BODY, cut=HALF), status(503), whole(BODY)],
    **{f"cut at {at}": [whole(BODY, cut=at), whole(BODY)] for at in (0, 1, 65_535, 65_536, HALF, len(BODY) - 1)},
    **{f"reset at {at}": [whole(BODY, cut=at, reset=True), whole(BODY)] for at in (1, HALF, len(BODY) - 1)},
    "cut twice": [whole(BODY, cut=HALF), whole(BODY, cut=70_000), whole(BODY)],
    "cut, and the server ignores Range": [whole(BODY, cut=HALF), whole(BODY, ranges=False)],
    "cut, and the server names no version": [whole(BODY, cut=HALF, etag=None), whole(BODY)],
    "cut, and the server's ETag is weak": [whole(OTHER, cut=HALF, etag='W/"1"'), whole(BODY, etag='W/"1"')],
    "the file changed after a cut": [whole(OTHER, cut=HALF, etag='"old"'), whole(BODY)],
    "it changed, and the server ignores If-Range": [
        whole(OTHER, cut=HALF, etag='"old"'),
        whole(BODY, check_version=False),
        whole(BODY),
    ],
    "it grew, and kept its ETag": [whole(OTHER, cut=HALF), whole(BODY + b"more"), whole(BODY)],
    "another version in between, without a name": [
        whole(BODY, cut=HALF),
        whole(OTHER, cut=HALF, etag=None, ranges=False),
        whole(BODY),
    ],
    "the file got shorter after a cut": [whole(BODY * 3, cut=len(BODY) + 70_000), whole(BODY)],
    "a rest that begins elsewhere": [whole(BODY, cut=HALF), unasked_rest(BODY, start=7), whole(BODY)],
    "a rest that nobody asked for": [unasked_rest(BODY, start=0), whole(BODY)],
    "416 for no reason": [whole(BODY, cut=HALF), status(416), whole(BODY)],
    "nonsense in place of HTTP": [garbage, whole(BODY)],
    "gzip that nobody asked for": [whole(gzip.compress(BODY), Content_Encoding="gzip")],
    "gzip, cut": [
        whole(gzip.compress(BODY), Content_Encoding="gzip", cut=HALF),
        whole(gzip.compress(BODY), Content_Encoding="gzip"),
    ],
    "a redirect": [redirect("/file.zip"), whole(BODY)],
}


@pytest.mark.parametrize("published", [{"sha256": DIGEST}, {}], ids=["hash published", "nothing published"])
@pytest.mark.parametrize("name", OVERCOME)
def test_faults_of_the_network_that_one_run_overcomes(server, tmp_path, name, published):
    """Without a hash, and with a name that promises no zip, nothing but the care of the download itself helps."""
    target = tmp_path / ("a.zip" if published else "a.bin")
    fetch(server.serve(*OVERCOME[name]), target, **published)
    assert target.read_bytes() == BODY
    assert leftovers(tmp_path) == [target.name]
    assert len(server.scripts["/file.zip"]) == 1, "the fault did not happen"


def test_a_file_that_changes_under_the_same_version(server, tmp_path):
    """Only the hash can tell; the rest is fetched anew, from the start."""
    fetch(server.serve(whole(OTHER, cut=HALF), whole(BODY)), tmp_path / "a.zip", sha256=DIGEST)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [wanted is None for _, wanted, _ in server.asked] == [True, False, True]


FATAL = {
    "nobody there": ([redirect("http://127.0.0.1:9/a.zip")], "no connection, 3 tries", {}),
    "500 for ever": ([status(500)], "500 Internal Server Error, 3 tries", {}),
    "429 for ever": ([status(429, Retry_After=7)], "429 Too Many Requests, 3 tries", {}),
    "nonsense for ever": ([garbage], "the connection broke, 3 tries", {}),
    "Retry-After that is no time, for ever": ([status(429, Retry_After="soon")], "Retry-After.*soon, 3 tries", {}),
    "cut for ever": ([whole(BODY, cut=70_000, ranges=False)], "the connection broke.*3 tries", {}),
    "a short body": ([whole(BODY[:HALF])], f"{HALF:,} bytes instead of {len(BODY):,}", {"size": len(BODY)}),
    "a short body of unknown size": ([whole(BODY[:HALF])], "not a zip file", {}),
    "a short body without a length": ([whole(BODY[:HALF], Content_Length=None)], "not a zip file", {}),
    "a wrong hash": ([whole(OTHER)], "its SHA-256 begins with", {"sha256": DIGEST}),
    "a flipped byte": ([whole(BODY[:HALF] + bytes([BODY[HALF] ^ 1]) + BODY[HALF + 1 :])], "in it is damaged", {}),
    "a web page": ([web_page()], "a web page came instead of the file", {}),
    "a web page that says it is a zip": ([web_page("application/zip")], "not a zip file", {}),
    "a web page as the rest": ([whole(BODY, cut=HALF), web_page()], "a web page came instead of the file", {}),
    "a redirect without end": ([redirect("/file.zip")], "30 redirects", {}),
    "a redirect to a file": ([redirect("file:///etc/passwd")], "file://", {}),
    "gzip that is none": ([whole(BODY, Content_Encoding="gzip")], "gzip", {}),
}


@pytest.mark.parametrize("name", FATAL)
def test_faults_of_the_network_that_end_a_run(server, tmp_path, name):
    behaviours, cause, published = FATAL[name]
    url = server.serve(*behaviours)
    with pytest.raises(CourseError, match=cause) as caught:
        fetch(url, tmp_path / "a.zip", **published)
    advice = "put a.zip into a folder and name that folder in COURSE_ARCHIVES, or use the setting sample"
    assert all(part in str(caught.value) for part in (url, advice))
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) in ([], ["a.zip.part", "a.zip.part.json"])
    check_next_run(server, tmp_path / "a.zip", **published)


@pytest.mark.parametrize("after", [0, 70_000])
def test_a_trickle_slower_than_the_timeout(server, tmp_path, monkeypatch, after):
    monkeypatch.setattr(downloads, "TIMEOUTS", (5, 0.15))
    monkeypatch.setattr(downloads, "RETRY", RETRY.new(total=1))
    with pytest.raises(CourseError, match="no answer in time, 2 tries"):
        fetch(server.serve(trickle(BODY, after=after, seconds=2)), tmp_path / "a.zip")
    monkeypatch.setattr(downloads, "TIMEOUTS", (5, 5))
    check_next_run(server, tmp_path / "a.zip")


def test_a_server_that_never_answers_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUTS", (5, 0.3))
    fetch(server.serve(lambda handler: time.sleep(2), whole(BODY)), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"url": 1}', '{"url": "URL", "validator": "\\"first version\\""}', None]
)
@pytest.mark.parametrize("part", [b"", OTHER[:HALF], BODY + b"more"])
def test_a_beginning_that_does_not_belong_to_the_file(server, tmp_path, part, note):
    url = server.serve(whole(BODY))
    (tmp_path / "a.zip.part").write_bytes(part)
    if note is not None:
        (tmp_path / "a.zip.part.json").write_text(note.replace("URL", url))
    fetch(url, tmp_path / "a.zip", sha256=DIGEST)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert leftovers(tmp_path) == ["a.zip"]


# ------------------------------------------------------------------------------------------- disks


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small disk of its own, where the system allows that."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this test must be allowed to mount a small disk (as root on Linux)")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("length", "cause"),
    [(len(BODY), "too full: 0.6 MB needed, 0.3 MB free"), (None, "No space")],
    ids=["length known", "length unknown"],
)
def test_a_full_disk_during_the_download(server, tmp_path, disk, length, cause):
    folder = disk(f"size={HALF}")
    with pytest.raises(CourseError, match=rf"Could not write .*a.zip.*{cause}.*COURSE_ARCHIVES"):
        fetch(server.serve(whole(BODY, Content_Length=length)), folder / "a.zip")
    assert not (folder / "a.zip").exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(folder)], check=True)  # room was made
    check_next_run(server, folder / "a.zip")


@pytest.mark.parametrize(
    ("files", "cause"),
    [(FILES, "too full"), ({f"{i}.txt": b"x" for i in range(400)}, "No space")],
    ids=["declared", "in small files"],
)
def test_a_full_disk_during_the_unpacking(tmp_path, disk, files, cause):
    """A file of one byte takes a whole page, so the declared sizes fit and the files don't."""
    folder = disk("size=500k")
    (tmp_path / "a.zip").write_bytes(make_zip(files))
    with pytest.raises(CourseError, match=rf"Could not unpack.*{cause}"):
        unpack(tmp_path / "a.zip", folder / "out")
    assert leftovers(folder) == []
    subprocess.run(["mount", "-o", "remount,size=10m", str(folder)], check=True)
    assert tree(unpack(tmp_path / "a.zip", folder / "out")) == files


def test_a_folder_that_is_read_only(server, tmp_path, disk):
    folder = disk("ro")
    url = server.serve(whole(BODY))
    with pytest.raises(CourseError, match=r"Could not write .*a.zip.*Read-only.*COURSE_ARCHIVES"):
        fetch(url, folder / "a.zip")
    (tmp_path / "a.zip").write_bytes(BODY)
    with pytest.raises(CourseError, match=r"Could not unpack .*Read-only"):
        unpack(tmp_path / "a.zip", folder / "out")
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    check_next_run(server, folder / "a.zip")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    assert fetch(url, folder / "a.zip", recheck=True, sha256=DIGEST).read_bytes() == BODY  # reading is enough


# --------------------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def start():
    """A function that starts another in a process of its own."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("killing a process so suddenly is a matter of Unix")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.downloads"])  # so torch is imported once, not for each process

    def start(function, *arguments):
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


def test_two_processes_at_once(server, start, tmp_path):
    url = server.serve(whole(BODY, pause=0.03))
    processes = [start(fetch_and_unpack, url, tmp_path) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.asked) == 1
    assert tree(tmp_path / "out") == FILES
    assert leftovers(tmp_path) == ["a.zip", "out"]


@pytest.mark.parametrize("room", [1000, HALF, len(BODY) - 1])
def test_a_disk_that_fills_while_a_file_is_written_whole(start, tmp_path, room):
    file = tmp_path / "run"
    file.write_bytes(OTHER)
    start(write_without_room, file, BODY, room).join(60)
    said = (tmp_path / "said").read_text()
    assert said == f"Could not write {file} (File too large). Make room there or choose another folder."
    assert tree(tmp_path) == {"run": OTHER, "said": said.encode()}
    start(write_without_room, file, BODY, len(BODY)).join(60)
    assert file.read_bytes() == BODY


MANY = noise(files=200, size=1300)
MANY_BODY = make_zip(MANY)


def test_sigkill_at_20_random_moments(server, start, tmp_path):
    generator, stages = random.Random(0), []
    while len(stages) < 20 or min(stages.count(0), stages.count(1)) < 3:  # some while it downloads, some unpacking
        assert len(stages) < 100, f"all killed at once: {stages}"
        i = len(stages)
        folder, moment = tmp_path / str(i), generator.uniform(0, 2)
        folder.mkdir()
        process = start(fetch_and_unpack, server.serve(whole(MANY_BODY, pause=0.02), path=f"/{i}"), folder)
        while process.is_alive() and progress(folder) < moment:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        process.kill()
        process.join(60)
        stages.append(int(progress(folder)))
        fetch_and_unpack(server.serve(whole(MANY_BODY), path=f"/{i}"), folder)
        assert tree(folder / "out") == MANY
        assert leftovers(folder) == ["a.zip", "out"]


def progress(folder):
    """How far `fetch_and_unpack` is: 0 to 1 while it downloads, 1 to 2 while it unpacks, then 2."""
    if (folder / "out").exists():
        return 2
    with suppress(FileNotFoundError):  # renamed at this moment
        if (folder / ".out.unpacking").exists():
            return 1 + sum(len(files) for _, _, files in os.walk(folder / ".out.unpacking")) / (len(MANY) + 1)
        return (folder / "a.zip.part").stat().st_size / (len(MANY_BODY) + 1)
    return 0


# ---------------------------------------------------------------------------------------- archives


def with_entry(name, content=b"x", **attributes):
    """A healthy archive with one more entry, whose attributes are set to these."""
    buffer = io.BytesIO(BODY)
    with zipfile.ZipFile(buffer, "a") as zipped:
        entry = zipfile.ZipInfo(name)
        for key, value in attributes.items():
            setattr(entry, key, value)
        zipped.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def patched(content, *, offset, value, form="<H", entry=0, both=False):
    """An archive with a field changed in its list of entries; `both`: in the header of its first entry too."""
    content, start = bytearray(content), -1
    for _ in range(entry + 1):
        start = content.index(b"PK\x01\x02", start + 1)
    struct.pack_into(form, content, start + offset, value)
    if both:
        struct.pack_into(form, content, offset - 2, value)
    return bytes(content)


def zipped(content):
    """An archive of one file."""
    return make_zip({"a.bin": content})


def overlapping():
    """Many entries in the directory that all are the same bytes of the file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("0", bytes(1_000_000))
        first = zipped.infolist()[0]
        for i in range(1, 90):
            entry = copy.copy(first)
            entry.filename = entry.orig_filename = str(i)
            zipped.filelist.append(entry)
    return buffer.getvalue()


# Where these fields are in the list of entries: three of content, then how long the fields behind the name are.
FLAGS, COMPRESSION, SIZE, EXTRA, COMMENT, NAME = 8, 10, 24, 30, 32, 46
EVEN = make_zip({f"{i:018}": b"x" for i in range(4)})  # each entry takes 64 bytes of the list, so one bit skips it
# Has a second list, which zipfile finds where the first is damaged.
NESTED = make_zip({"0": b"x", "1.zip": make_zip({"inner": b"y"})}, zipfile.ZIP_STORED)
HARMFUL = {
    "out by ..": (with_entry("../evil"), "leads out"),
    "out by .. in the middle": (with_entry("images/../../evil"), "leads out"),
    "out by backslashes": (with_entry("..\\..\\evil"), "leads out"),
    "an absolute path": (with_entry("/tmp/evil"), "leads out"),
    "a drive": (with_entry("C:\\evil"), "leads out"),
    "a drive without a slash": (with_entry("C:evil"), "leads out"),
    "a network share": (with_entry("\\\\server\\share\\evil"), "leads out"),
    "a link": (with_entry("link", b"/etc/passwd", external_attr=0o120777 << 16), "is a link"),
    "a link to a folder": (with_entry("images/0", b"../..", external_attr=0o120777 << 16), "is a link"),
    "encrypted": (patched(zipped(b"x" * 99), offset=FLAGS, value=1, both=True), "is encrypted"),
    "the same name twice": (with_entry("images/0/X.bin").replace(b"X.bin", b"0.bin"), "the same name"),
    "two names of one file": (with_entry("images/.//0/0.bin"), "the same name"),
    "a bomb": (patched(zipped(bytes(500)), offset=SIZE, value=150_000_000, form="<L", both=True), "it would grow"),
    "a bomb of overlapping entries": (overlapping(), "larger than the file"),
    "larger than it declares": (patched(zipped(bytes(5_000_000)), offset=SIZE, value=10, form="<L", both=True), "CRC"),
    "an unknown compression": (patched(zipped(b"x" * 99), offset=COMPRESSION, value=99, both=True), "compression"),
    "a file that is also a folder": (with_entry("images"), ""),
    **{f"truncated at {at}": (BODY[:at], "") for at in (0, 1, 21, HALF, len(BODY) - 1)},
    "not a zip": (b"<html>", "not a zip"),
    "a comment that swallows the next entry": (patched(EVEN, entry=1, offset=COMMENT, value=64), "not whole"),
    "an extra field that does": (patched(EVEN, entry=1, offset=EXTRA, value=64), ""),
    "a comment that swallows the rest": (patched(BODY, entry=9, offset=COMMENT, value=0x8000), "not whole"),
    "a list that begins too late": (EVEN[:-10] + struct.pack("<L", 192) + EVEN[-6:], ""),
    "a letter that makes a folder of a file": (
        patched(make_zip({"logo": b"x"}), offset=NAME + 3, value=ord("/"), form="B"),
        "differ",
    ),
    "a name that is not the UTF-8 it says": (make_zip({"é": b"x"}).replace("é".encode(), b"\xff\xff"), ""),
    "a name that was in UTF-8": (patched(make_zip({"é": b"x"}), offset=FLAGS, value=0), "name .* damaged"),
    "a list that lost its end, after an archive": (NESTED[:-22] + b"P?" + NESTED[-20:], "not whole"),
    "cut behind an archive in it": (NESTED[: NESTED.index(b"PK\x05\x06") + 22], "not whole"),
    "behind something else": (make_zip({"hidden.txt": b"x" * 99}) + BODY, "not whole"),
    "before something else": (BODY + b"x", "not whole"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_archives_are_refused(tmp_path, name):
    content, reason = HARMFUL[name]
    archive = tmp_path / "deep" / "a.zip"
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(CourseError, match=rf"a.zip.*{reason}") as caught:
        unpack(archive, archive.parent / "out")
    assert "\n" not in str(caught.value)
    assert leftovers(archive.parent) == ["a.zip"]
    assert leftovers(tmp_path) == ["deep"]
    assert not os.path.exists("/tmp/evil")
    archive.write_bytes(BODY)
    assert tree(unpack(archive, archive.parent / "out")) == FILES


def test_harmful_archives_do_not_even_arrive(server, tmp_path):
    with pytest.raises(CourseError, match="leads out"):
        fetch(server.serve(whole(HARMFUL["out by .."][0])), tmp_path / "a.zip")
    check_next_run(server, tmp_path / "a.zip")


HEALTHY = {
    "with a comment": BODY[:-2] + b"\x07\x00comment",
    "with folders of their own": with_entry("images/", b""),
    "without compression": make_zip(FILES, zipfile.ZIP_STORED),
    # Japanese Windows writes cp932 and does not say so; the contents must arrive, whatever the name looks like.
    "with a name in another encoding": BODY.replace(b"/19.bin", "/猫.bin".encode("cp932")),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_archives_are_unpacked(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(HEALTHY[name])
    found = tree(unpack(tmp_path / "a.zip", tmp_path / "out"))
    assert sorted(found.values()) == sorted(FILES.values())
    assert found == FILES or "name" in name


def test_archives_with_a_flipped_byte(tmp_path):
    """Each is refused, or the byte did not matter; every byte in turn, one bit of it."""
    files = {f"{i:018}": b"x" * i for i in (9, 99)} | {"Bär/logo": b"text " * 100}
    content, generator, refused = make_zip(files | {"1.zip": EVEN}), random.Random(0), 0
    files["1.zip"], archive = EVEN, tmp_path / "a.zip"
    for i in range(len(content)):
        flipped = bytes([content[i] ^ 1 << generator.randrange(8)])
        archive.write_bytes(content[:i] + flipped + content[i + 1 :])
        try:
            assert tree(unpack(archive, tmp_path / "out" / str(i))) == files
        except CourseError:
            refused += 1
    assert len(content) // 2 < refused < len(content)


# ----------------------------------------------------------------------------- the pretrained file


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """A file in the layout of torchvision's, on the server, and an empty cache: its address, bytes and cached file."""
    monkeypatch.delenv("COURSE_ARCHIVES", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(models.VGG16(3, width=1 / 16, image_size=32).state_dict(), tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    path = f"/vgg16-{sha256(content).hexdigest()[:8]}.pth"
    url = server.serve(whole(content), path=path)
    monkeypatch.setattr(torchvision.models.VGG16_Weights.IMAGENET1K_V1.value, "url", url)
    return SimpleNamespace(url=url, path=path, content=content, cached=tmp_path / "hub" / "checkpoints" / path[1:])


def check_weights(model, published):
    expected = torch.load(io.BytesIO(published.content), weights_only=True)
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)


def test_the_pretrained_file_is_fetched_once_into_torchs_cache(server, published):
    for _ in range(2):
        check_weights(models.load_backbone("vgg16"), published)
    assert published.cached.read_bytes() == published.content
    assert len(server.asked) == 1


WEIGHTS_FAULTS = {
    "truncated": lambda content: content[:-1000],
    "empty": lambda content: b"",
    "tampered": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "a web page": lambda content: b"<html>",
}


@pytest.mark.parametrize("name", WEIGHTS_FAULTS)
def test_a_damaged_pretrained_file_is_named_set_aside_and_fetched_again(published, name, capsys):
    published.cached.parent.mkdir(parents=True)
    published.cached.write_bytes(damaged := WEIGHTS_FAULTS[name](published.content))
    models.load_backbone("vgg16")
    assert published.cached.read_bytes() == published.content
    assert published.cached.with_name(f"{published.cached.name}.damaged").read_bytes() == damaged
    assert f"{published.cached} is damaged (its SHA-256 begins with" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing", *WEIGHTS_FAULTS])
def test_without_a_network_the_message_says_which_file_to_put_where(server, published, name, tmp_path, monkeypatch):
    if name != "missing":
        published.cached.parent.mkdir(parents=True)
        published.cached.write_bytes(WEIGHTS_FAULTS[name](published.content))
    server.serve(status(503), path=published.path)
    with pytest.raises(CourseError, match="--weights FILE or COURSE_WEIGHTS") as caught:
        models.load_backbone("vgg16")
    assert f"put {published.cached.name} into a folder and name that folder in COURSE_ARCHIVES" in str(caught.value)
    (tmp_path / published.cached.name).write_bytes(published.content)
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    check_weights(models.load_backbone("vgg16"), published)


def test_a_pretrained_file_on_the_stick_that_is_not_the_published_one(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    own = tmp_path / published.cached.name
    torch.save(models.VGG16(3, width=1 / 16, image_size=32).state_dict(), own)
    models.load_backbone("vgg16")
    assert f"{own} is not the published file" in capsys.readouterr().err
    own.write_bytes(published.content[:-1000])
    with pytest.raises(CourseError, match=f"{own.name} can't be read as a weights file"):
        models.load_backbone("vgg16")
