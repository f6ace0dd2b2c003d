"""Fetch a file and unpack an archive: whole and verified, or not at all."""

import errno
import hashlib
import json
import os
import random
import re
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from struct import error as StructError

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError
from urllib3.util import Retry

from .settings import BadArgument, CourseError, first_line

PIECE = 1 << 16  # bytes that are written at once; a connection that breaks loses fewer than that
MIN_GAIN = 1 << 20  # bytes that a failed try must have brought to count as progress


@dataclass(frozen=True)
class Patience:
    """How long a download waits, in seconds, and how often it tries again."""

    connect: float = 10  # until the server must have answered the call
    read: float = 30  # without a byte, until the connection counts as dead
    tries: int = 4  # failures in a row, for each source
    first_wait: float = 0.5  # before the second try; doubled before each further one
    longest_wait: float = 60  # a server that asks for a longer one is given up


PATIENCE = Patience()


class Failed(Exception):
    """A try that brought no file, and why in a few words. `again`: another may, after `wait` seconds."""

    def __init__(self, cause: str, *, again: bool = False, wait: float = 0):
        super().__init__(cause)
        self.again, self.wait = again, wait


class Unusable(Exception):
    """An archive that must not be unpacked, and why in a few words."""


# ------------------------------------------------------------------------------ a file, fetched


def find_archive(name: str) -> Path | None:
    """The file of that name in the folder COURSE_ARCHIVES, or None."""
    folder = os.environ.get("COURSE_ARCHIVES")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise BadArgument(f"COURSE_ARCHIVES names {folder!r}, which is not a folder.")
    file = Path(folder) / name
    return file if file.is_file() else None


def fetch(
    urls: str | Iterable[str],
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    recheck: bool = False,
    patience: Patience | None = None,
) -> Path:
    """Download `target` from the first of `urls` that has it, unless it is there; its name promises that it is whole.

    `size`, `sha256`: the published number of bytes, and the digest or its first digits. They are checked, and a
    `.zip` is read to its end, before the file gets its name. So a file that is there is not read again, unless
    `recheck` asks for it, because other programs write there too: then a damaged one is set aside first.
    What a broken download leaves is kept as `.part`, and the next one goes on from there.
    Raises CourseError with every cause if no source has the file.
    """
    flaw_of = partial(flaw, size=size, sha256=sha256, zipped=target.suffix == ".zip")
    try:
        if target.exists() and not (recheck and flaw_of(target)):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_one(target):
            if recheck and target.exists() and (reason := flaw_of(target)):
                set_aside(target, reason)
            if not target.exists():  # else the process that we waited for has brought it
                sources = [urls] if isinstance(urls, str) else urls
                download(sources, target, flaw_of=flaw_of, patience=patience or PATIENCE)
    except OSError as error:
        raise CourseError(
            f"Could not write {target} ({first_line(error)}). Make room there or change its rights, "
            f"or {ways_on(target)}"
        ) from error
    return target


def ways_on(target: Path) -> str:
    """What to do where a file can't be downloaded."""
    return (
        f"put {target.name} into a folder and name that folder in COURSE_ARCHIVES, "
        "or use the setting sample, which needs no network."
    )


def set_aside(file: Path, reason: str) -> None:
    """Rename a damaged file, and say so."""
    damaged = file.with_name(f"{file.name}.damaged")
    os.replace(file, damaged)
    print(f"{file} is damaged ({reason}): set aside as {damaged.name}, fetched again.", file=sys.stderr)


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Let one process at a time work on `target`; the system frees the lock of a process that is killed."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"Another process is working on {target.name}: waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ----------------------------------------------------------------------------- sources and tries


def download(sources: Iterable[str], target: Path, *, flaw_of: Callable, patience: Patience) -> None:
    """Try the sources in order; the first whole file gets the name `target`."""
    part, causes = Part(target), []
    for url in sources:
        try:
            fetch_from(url, part, flaw_of=flaw_of, patience=patience)
            return part.rename_to(target)
        except Failed as error:
            causes.append(f"{url} ({error})")
            part.keep_if_resumable()
    raise CourseError(f"Could not download {'; '.join(causes)}. Without a network, {ways_on(target)}")


def fetch_from(url: str, part: "Part", *, flaw_of: Callable, patience: Patience) -> None:
    """Complete and verify `part` from one source; raises Failed when further tries would not help."""
    failures, most = 0, part.size()
    while True:
        try:
            return complete(url, part, flaw_of=flaw_of, patience=patience)
        except Failed as error:
            # A long download over a bad line may break more often than `tries`, as long as it gets on.
            failures = 1 if part.size() >= most + MIN_GAIN else failures + 1
            most = max(most, part.size())
            wait_or_give_up(error, failures, patience)


def wait_or_give_up(error: Failed, failures: int, patience: Patience) -> None:
    """Sleep before the next try, longer each time; raises Failed if there should be none."""
    if not error.again:
        raise error
    if failures >= patience.tries:
        raise Failed(f"{error}, {failures} tries") from error
    if error.wait > patience.longest_wait:
        raise Failed(f"{error}, asks to wait {error.wait:.0f} s") from error
    # By chance a little shorter, so that a whole class does not come back at the same moment.
    wait = patience.first_wait * 2 ** (failures - 1) * random.uniform(0.5, 1)
    time.sleep(max(wait, error.wait))


def complete(url: str, part: "Part", *, flaw_of: Callable, patience: Patience) -> None:
    """Get what `part` lacks, in one try, and verify the whole; a flawed file is thrown away."""
    resumed = part.size() > 0
    if not part.is_complete(url):
        receive(url, part, patience)
    if reason := flaw_of(part.file):
        part.discard()
        # The older beginning may be at fault. What came in one go would come the same again.
        raise Failed(reason, again=resumed)


# -------------------------------------------------------------------------------------- one try


class Part:
    """The beginning of a download, and a note beside it: which file it belongs to.

    The note holds `url`, `length`, and as `validator` the server's name for this version of the file.
    There is none where the server names no version; such a beginning can't be continued.
    """

    def __init__(self, target: Path):
        self.file = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        """Bytes on the disk."""
        return self.file.stat().st_size if self.file.exists() else 0

    def origin(self, url: str) -> dict:
        """The note, or an empty one if the beginning can't be continued from `url`."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            known = set(note) == {"url", "validator", "length"} and note["url"] == url
        except (OSError, ValueError, TypeError):  # no note, or not all of it: its writer was killed
            known = False
        return note if known and self.size() else {}

    def is_complete(self, url: str) -> bool:
        """True if the last process was stopped between the last byte and the new name."""
        return self.origin(url).get("length") == self.size()

    def write_note(self, url: str, validator: str | None, length: int | None) -> None:
        """Replace the note. The file must be empty: its bytes and the note must never be of two versions."""
        self.note.unlink(missing_ok=True)
        if validator:
            note = {"url": url, "validator": validator, "length": length}
            self.note.write_text(json.dumps(note), encoding="utf-8")

    def keep_if_resumable(self) -> None:
        """Throw away a beginning that nothing can continue."""
        if not self.note.exists():
            self.discard()

    def discard(self) -> None:
        """Throw the beginning away."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def rename_to(self, target: Path) -> None:
        """Give the file its own name, in one step."""
        os.replace(self.file, target)
        self.note.unlink(missing_ok=True)


def receive(url: str, part: Part, patience: Patience) -> None:
    """Ask for what `part` lacks and write it there; raises Failed if the answer is no or ends early."""
    origin = part.origin(url)
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file itself, so that they can be counted
    if origin:
        # If-Range: the rest if the file is still the same, else all of it (RFC 9110, section 13.1.5).
        headers |= {"Range": f"bytes={part.size()}-", "If-Range": origin["validator"]}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read)) as answer:
            check_answer(answer, part, origin)
            write_body(answer, part, url)
    except (requests.RequestException, HTTPError) as error:
        raise explain(error) from error


def check_answer(answer: requests.Response, part: Part, origin: dict) -> None:
    """Raise Failed unless the answer brings the file, or exactly what `part` lacks of it."""
    status = answer.status_code
    if status == 416 or (status == 206 and not continues(answer, part, origin)):
        part.discard()
        raise Failed("the file changed while it was fetched", again=True)
    if status not in (200, 206):
        busy = status in (408, 429) or status >= 500
        raise Failed(f"{status} {answer.reason}", again=busy, wait=requested_wait(answer))
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise Failed("a web page came instead of the file")


def continues(answer: requests.Response, part: Part, origin: dict) -> bool:
    """True if a partial answer begins where `part` ends, and is of the same version of the file."""
    numbers = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if not numbers or not origin:
        return False
    same_length = numbers[2] in ("*", str(origin["length"]))
    return int(numbers[1]) == part.size() and same_length and validator_of(answer) in (None, origin["validator"])


def validator_of(answer: requests.Response) -> str | None:
    """The server's name for this version of the file: its ETag if that is exact, else its date, else None."""
    if "Content-Encoding" in answer.headers:  # what lies on the disk then has other bytes than the server counts
        return None
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def requested_wait(answer: requests.Response) -> float:
    """The seconds in the header Retry-After, which may be a number or a date; 0 if it is neither."""
    try:
        return Retry().parse_retry_after(answer.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return 0


def write_body(answer: requests.Response, part: Part, url: str) -> None:
    """Write the answer piece by piece, so that memory stays small, after what is there or from the start."""
    resumed = answer.status_code == 206
    offset = part.size() if resumed else 0
    expected = content_length(answer)
    length = None if expected is None else offset + expected
    check_room(part.file.parent, expected or 0)
    progress = tqdm(desc=part.file.stem, initial=offset, total=length, unit="B", unit_scale=True)
    with progress as bar, open(part.file, "ab" if resumed else "wb") as out:
        if not resumed:
            part.write_note(url, validator_of(answer), length)
        for piece in answer.iter_content(PIECE):
            out.write(piece)
            bar.update(len(piece))
        out.flush()
        os.fsync(out.fileno())  # on the disk before it gets its name: the power may fail
    # Not every broken connection looks like one; the header tells how many bytes should have come.
    if expected not in (None, answer.raw.tell()):
        raise Failed(f"the connection broke after {answer.raw.tell():,} of {expected:,} bytes", again=True)


def content_length(answer: requests.Response) -> int | None:
    """The bytes in the answer, if the server says how many."""
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError unless so many bytes fit on the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"the disk is too full: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free in"
        raise OSError(errno.ENOSPC, text, str(folder))


def explain(error: Exception) -> Failed:
    """An error of the network in a few words, and whether another try may help."""
    if isinstance(error, requests.TooManyRedirects):
        return Failed("it redirects without end")
    if isinstance(error, requests.exceptions.SSLError):
        return Failed("its certificate is not accepted")
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return Failed("no answer in time", again=True)
    if isinstance(error, requests.exceptions.ChunkedEncodingError | ProtocolError):
        return Failed("the connection broke", again=True)
    if isinstance(error, requests.ConnectionError):
        return Failed("no connection", again=True)
    return Failed(first_line(error))


# ---------------------------------------------------------------------------------- verification


def flaw(file: Path, *, size: int | None, sha256: str | None, zipped: bool) -> str | None:
    """Why the file can't be the published one, in a few words, or None; a zip archive is read to its end."""
    reason = difference(file, size=size, sha256=sha256)
    if reason or not zipped:
        return reason
    try:
        with open_archive(file) as archive:
            damaged = archive.testzip()
            return f"{damaged} in it is damaged" if damaged else None
    except Unusable as error:
        return str(error)


def difference(file: Path, *, size: int | None, sha256: str | None) -> str | None:
    """How the file differs from the published size and digest, in a few words, or None."""
    actual = file.stat().st_size
    if size not in (None, actual):
        return f"{actual:,} bytes instead of {size:,}"
    digest = sha256_of(file) if sha256 else ""
    if not digest.startswith(sha256 or ""):
        return f"its SHA-256 begins with {digest[:8]}, not {sha256[:8]}"
    return None


def sha256_of(file: Path) -> str:
    """The digest as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tell_if_not_published(file: Path, *, size: int | None = None, sha256: str | None = None) -> None:
    """Say so if a file from the archive folder is not the published one. It is used all the same."""
    if reason := difference(file, size=size, sha256=sha256):
        print(f"{file} is not the published file ({reason}). It is used as it is.", file=sys.stderr)


# ---------------------------------------------------------------------------- archives, unpacked

# What Python's zipfile and the decompressors behind it raise for damaged, encrypted or unknown content.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, LZMAError, StructError, EOFError, RuntimeError, ValueError, OverflowError)


def unpack(
    archive: Path, target: Path, *, folders: Iterable[str] = (), size: int | None = None, sha256: str | None = None
) -> Path:
    """Unpack a zip archive into the folder `target` unless it is there; it gets its name only when complete.

    `folders`: must be in the archive, else it is the wrong one. `size`, `sha256`: as published; if the archive
    differs, that is said. Nothing is written for an archive whose entries could do harm: see `check_entries`.
    Raises CourseError if the archive is damaged, harmful or the wrong one, or can't be written to the disk.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_one(target):
            if not target.exists():  # else the process that we waited for has unpacked it
                tell_if_not_published(archive, size=size, sha256=sha256)
                unpack_and_rename(archive, target, folders)
    except Unusable as error:
        raise CourseError(
            f"{archive} is damaged or unsafe ({error}). Delete it and run again to fetch it anew."
        ) from error
    except OSError as error:
        if not target.exists():  # where locks don't work another process may have been faster, which is fine
            raise CourseError(f"Could not unpack {archive} into {target} ({first_line(error)}).") from error
    return target


def unpack_and_rename(archive: Path, target: Path, folders: Iterable[str]) -> None:
    """Unpack into a temporary folder beside `target`, then rename that."""
    temporary = target.with_name(f".{target.name}.unpacking")
    if temporary.exists():  # left by a process that was killed
        shutil.rmtree(temporary)
    try:
        with open_archive(archive) as zipped:
            check_folders(zipped, folders)
            check_room(target.parent, sum(entry.file_size for entry in zipped.infolist()))
            for entry in tqdm(zipped.infolist(), desc=f"unpacking {archive.name}", unit=" files", delay=1):
                zipped.extract(entry, temporary)  # compares the CRC at the end
        temporary.mkdir(exist_ok=True)  # an archive may be empty
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def open_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive without harmful entries; raises Unusable for one that has some or proves damaged."""
    try:
        with zipfile.ZipFile(file) as zipped:
            check_entries(zipped, size=file.stat().st_size)
            yield zipped
    except ZIP_ERRORS as error:
        raise Unusable(first_line(error)) from error


def check_entries(zipped: zipfile.ZipFile, *, size: int) -> None:
    """Raise Unusable if an entry leads out of the folder or is a link, or if all are more than can be."""
    entries = zipped.infolist()
    for entry in entries:
        path = PureWindowsPath(entry.filename)  # knows both kinds of slashes, and drives
        if path.anchor or ".." in path.parts:
            raise Unusable(f"its entry {entry.filename!r} leads out of the folder")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise Unusable(f"its entry {entry.filename!r} is a link")
    if len({entry.filename for entry in entries}) < len(entries):
        raise Unusable("two of its entries have the same name")
    if sum(entry.compress_size for entry in entries) > size:
        raise Unusable("its entries are larger than the file")
    total = sum(entry.file_size for entry in entries)
    # Images shrink little in an archive. What grows a hundredfold is made to fill a disk.
    if total > max(100 * size, 100_000_000):
        raise Unusable(f"it would grow from {size:,} to {total:,} bytes")


def check_folders(zipped: zipfile.ZipFile, folders: Iterable[str]) -> None:
    """Raise Unusable if a folder is missing from the archive."""
    names = zipped.namelist()
    for folder in folders:
        if not any(name.startswith(f"{folder}/") for name in names):
            raise Unusable(f"it has no folder {folder}")


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises CourseError if the disk does not take it."""
    temporary = file.with_name(f"{file.name}.part")
    try:
        try:
            with open(temporary, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CourseError(
            f"Could not write {file} ({first_line(error)}). Make room there or choose another folder."
        ) from error
