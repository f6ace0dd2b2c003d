"""Fetch a file, unpack an archive, write a file: whole, or not at all."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from lzma import LZMAError
from pathlib import Path, PureWindowsPath
from struct import error as StructError
from tempfile import TemporaryDirectory, TemporaryFile

import requests
from filelock import FileLock, Timeout
from requests.exceptions import ChunkedEncodingError, ProxyError, SSLError
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from tqdm import tqdm
from urllib3 import HTTPResponse, Retry
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util import parse_url

from .settings import BadArgument, CourseError, first_line

PIECE = 1 << 16  # bytes that are written at once; a connection that breaks loses fewer than that
MIN_GAIN = 1 << 18  # bytes that a try must have brought for the failures before it to be forgotten
BUSY = {408, 425, 429, *range(500, 600)}  # answers after which another try may help
TIMEOUTS = (10, 30)  # seconds until the server must have answered the call; and without a byte, until it counts as dead
# For each source, 3 more tries after failures in a row: the first at once, then after waits (in seconds) that double,
# longer by chance. A server that asks for a longer wait than the last of them is given up.
RETRY = Retry(3, backoff_factor=0.5, backoff_jitter=0.5, backoff_max=60)
tell_once = cache(print)  # the same line not again


class Failed(Exception):
    """A source without the file, or an archive that must not be unpacked, and why in a few words."""


class Broken(Failed):
    """A try that failed, after which the next may go on; `answer`: of a server that may say when."""

    def __init__(self, cause: str, answer: HTTPResponse | None = None):
        super().__init__(cause)
        self.answer = answer


# ------------------------------------------------------------------------------ a file, fetched


def find_archive(name: str, *, sha256: str | None = None) -> Path | None:
    """The file of that name in the folder COURSE_ARCHIVES, or None; says so if it has not the published SHA-256."""
    if not (named := os.environ.get("COURSE_ARCHIVES")):
        return None
    folder = Path(os.path.expanduser(named))
    if not folder.is_dir():
        raise BadArgument(f"COURSE_ARCHIVES names {named!r}, which is not a folder.")
    if not (folder / name).is_file():
        return None
    tell_if_not_published(folder / name, sha256=sha256)
    return folder / name


def fetch(
    urls: str | Iterable[str], target: Path, *, size: int | None = None, sha256: str | None = None, recheck=False
) -> Path:
    """Download `target` from the first of `urls` that has it, unless it is there; its name promises that it is whole.

    `size`, `sha256`: as published (the digest or its first digits). `recheck`: also if it is there, but damaged.
    """
    flaw_of = partial(flaw, size=size, sha256=sha256, zipped=target.suffix == ".zip")
    try:
        if target.exists() and not (recheck and flaw_of(target)):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_one(target):
            if recheck and target.exists() and (reason := flaw_of(target)):
                damaged = target.with_name(f"{target.name}.damaged")
                os.replace(target, damaged)
                print(f"{target} is damaged ({reason}): set aside as {damaged.name}, fetched again.", file=sys.stderr)
            if not target.exists():  # else the process that we waited for has brought it
                download([urls] if isinstance(urls, str) else urls, target, flaw_of)
        return target
    except Failed as error:
        problem, cause = f"Could not download {error}. Without a network,", error
    except OSError as error:
        problem, cause = f"Could not write {target} ({first_line(error)}). Make room or change rights there, or", error
    advice = f"put {target.name} into a folder and name that folder in COURSE_ARCHIVES"
    raise CourseError(f"{problem} {advice}, or use the setting sample, which needs no network.") from cause


def download(sources: Iterable[str], target: Path, flaw_of: Callable) -> None:
    """Try the sources in order; the first whole file gets the name `target`. Raises Failed with every cause."""
    part, causes = Part(target), []
    for url in sources:
        try:
            fetch_from(url, part, flaw_of)
            os.replace(part.file, target)
            return part.discard()
        except Failed as error:
            causes.append(f"{url} ({error})")
            if not part.note.exists():  # nothing can continue it
                part.discard()
    raise Failed("; ".join(causes))


def fetch_from(url: str, part: "Part", flaw_of: Callable) -> None:
    """Complete and verify `part` from one source, going on where a try broke off."""
    retry, most = RETRY, part.size()
    while True:
        try:
            return complete(url, part, flaw_of)
        except Broken as error:
            if part.size() >= most + MIN_GAIN:  # a bad line may break often, as long as the download gets on
                retry, most = RETRY, part.size()
            try:
                retry = retry.increment("GET", url, error=error)
            except MaxRetryError:
                raise Failed(f"{error}, {RETRY.total + 1} tries") from error
            retry.sleep(error.answer)


def complete(url: str, part: "Part", flaw_of: Callable) -> None:
    """Get what `part` lacks, in one try, and verify the whole; a flawed file is thrown away."""
    resumed = part.size() > 0
    if part.origin(url).get("length") != part.size():  # else only the new name was missing
        receive(url, part)
    if reason := flaw_of(part.file):
        part.discard()
        # The older beginning may be at fault. What came in one go would come the same again.
        raise Broken(reason) if resumed else Failed(reason)


class Part:
    """The beginning of a download, and a note beside it: its `url`, `length`, and as `validator` the server's
    name for this version of the file. Without a note it can't be continued."""

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

    def discard(self) -> None:
        """Throw away what is there of it."""
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def receive(url: str, part: Part) -> None:
    """Ask for what `part` lacks and write it there; raises Failed if the answer is no, Broken if it ends early."""
    origin = part.origin(url)
    headers = {"Accept-Encoding": "identity"}  # the bytes of the file itself, so that they can be counted
    if origin:
        # If-Range: the rest if the file is still the same, else all of it (RFC 9110, section 13.1.5).
        headers |= {"Range": f"bytes={part.size()}-", "If-Range": origin["validator"]}
    try:
        with requests.get(url, headers=headers, timeout=TIMEOUTS, stream=True) as answer:
            check_answer(answer, part, origin)
            write_body(answer, part, url)
    except (requests.RequestException, HTTPError) as error:
        raise explain(error, url) from error


def check_answer(answer: requests.Response, part: Part, origin: dict) -> None:
    """Raise Failed unless the answer brings the file, or exactly what `part` lacks of it."""
    status, length = answer.status_code, origin.get("length", 0)
    is_rest = answer.headers.get("Content-Range") == f"bytes {part.size()}-{length - 1}/{length}"
    same_version = validator_of(answer) in (None, origin.get("validator"))
    if status == 416 or (status == 206 and not (is_rest and same_version)):
        part.discard()
        raise Broken("the file changed while it was fetched")
    if status in BUSY:
        wait = RETRY.get_retry_after(answer.raw) or 0
        if wait > RETRY.backoff_max:
            raise Failed(f"{status} {answer.reason}, asks to wait {wait:.0f} s")
        raise Broken(f"{status} {answer.reason}", answer.raw)
    if status not in (200, 206):
        proxy = f"the proxy {proxy_of(answer.url)} refused: " if status == 407 else ""
        raise Failed(f"{proxy}{status} {answer.reason}")
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise Failed("a web page came instead of the file")


def validator_of(answer: requests.Response) -> str | None:
    """The server's name for this version of the file: its ETag if that is exact, else its date, else None."""
    if "Content-Encoding" in answer.headers:  # what lies on the disk then has other bytes than the server counts
        return None
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def write_body(answer: requests.Response, part: Part, url: str) -> None:
    """Write the answer piece by piece, so that memory stays small, after what is there or from the start."""
    resumed, validator = answer.status_code == 206, validator_of(answer)
    offset, expected = part.size() if resumed else 0, answer.raw.length_remaining  # urllib3 raises if fewer come
    length = None if expected is None else offset + expected
    check_room(part.file.parent, expected or 0)
    if not resumed:
        part.discard()  # whole, before anything is written: bytes and note must never be of two versions
    progress = tqdm(desc=part.file.stem, initial=offset, total=length, unit="B", unit_scale=True)
    with progress as bar, open(part.file, "ab") as out:
        if not resumed and validator and length:
            note = {"url": url, "validator": validator, "length": length}
            part.note.write_text(json.dumps(note), encoding="utf-8")
        for piece in answer.iter_content(PIECE):
            out.write(piece)
            bar.update(len(piece))
        out.flush()
        os.fsync(out.fileno())  # on the disk before it gets its name: the power may fail


def explain(error: Exception, url: str) -> Failed:
    """What went wrong in a few words: Broken if another try may help."""
    text = str(error)
    unreached = "Max retries" in text  # so urllib3 says it, although we let it try only once
    if isinstance(error, ProxyError):
        status, proxy = re.search(r"Tunnel connection failed: ([^'\"]+)", text), proxy_of(url)
        return Failed(f"the proxy {proxy} refused: {status[1]}" if status else f"no connection to the proxy {proxy}")
    if isinstance(error, SSLError) and unreached:
        return Failed("its certificate is not accepted" if "CERTIFICATE" in text else "no secure connection")
    if "timed out" in text:
        return Broken("no answer in time")
    if isinstance(error, requests.ConnectionError | ChunkedEncodingError):
        return Broken("no connection" if unreached else "the connection broke")
    return Broken(first_line(error)) if isinstance(error, InvalidHeader) else Failed(first_line(error))


def proxy_of(url: str) -> str | None:
    """Host and port of the proxy on the way to `url`, without the password that may stand before them."""
    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    return parse_url(prepend_scheme_if_needed(proxy, "http")).netloc


# ----------------------------------------------------------------------------------------- disks


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, with permissions by the umask; raises CourseError if the disk refuses."""
    temporary = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except OSError as error:
        cause = error.strerror or first_line(error)
        raise CourseError(f"Could not write {file} ({cause}). Make room there or choose another folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Make the folder; raises BadArgument if it can't be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        cause = error.strerror or first_line(error)
        raise BadArgument(f"Can't write into {folder} ({cause}). Choose another folder.") from error


def check_new_file(file: Path) -> None:
    """Make the folder of a file; raises BadArgument if it can't be written there, before any work is done for it."""
    if file.is_dir():
        raise BadArgument(f"{file} is a folder, and a file is to be written there. Rename it, or choose another --out.")
    check_writable(file.parent)


def check_room(folder: Path, needed: int) -> None:
    """Raise OSError unless so many bytes fit on the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        text = f"the disk is too full: {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free in"
        raise OSError(errno.ENOSPC, text, str(folder))


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Let one process at a time work on `target`, where the disk has file locks; a killed process frees its lock."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except (OSError, NotImplementedError) as error:
        if not locks_work(target.parent):
            warning = "This disk has no file locks: don't let two programs work in one folder at a time."
            tell_once(warning, file=sys.stderr)
        elif isinstance(error, Timeout):
            print(f"Another process is working on {target.name}: waiting for it.", file=sys.stderr)
            lock.acquire()
        else:
            raise
    try:
        yield
    finally:
        lock.release()


def locks_work(folder: Path) -> bool:
    """True if a new file, which nobody else has, can be locked in that folder."""
    with TemporaryDirectory(prefix=".", dir=folder) as fresh:
        try:
            with FileLock(Path(fresh, "lock")).acquire(timeout=0):
                return True
        except (OSError, NotImplementedError):
            return False


# ---------------------------------------------------------------------------------- verification


def flaw(file: Path, *, size: int | None, sha256: str | None, zipped: bool = False) -> str | None:
    """Why the file can't be the published one, in a few words, or None; a zip archive is read to its end."""
    actual = file.stat().st_size
    if size not in (None, actual):
        return f"{actual:,} bytes instead of {size:,}"
    if sha256 and not (digest := sha256_of(file)).startswith(sha256):
        return f"its SHA-256 begins with {digest[:8]}, not {sha256[:8]}"
    if not zipped:
        return None
    try:
        with open_archive(file) as archive:
            damaged = archive.testzip()
            return f"{damaged} in it is damaged" if damaged else None
    except Failed as error:
        return str(error)


def sha256_of(file: Path) -> str:
    """The digest as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tell_if_not_published(file: Path, *, size: int | None = None, sha256: str | None = None) -> None:
    """Say so if a file from the archive folder is not the published one. It is used all the same."""
    if reason := flaw(file, size=size, sha256=sha256):
        print(f"{file} is not the published file ({reason}). It is used as it is.", file=sys.stderr)


# ---------------------------------------------------------------------------- archives, unpacked

# What zipfile and the decompressors behind it raise for damaged, encrypted or unknown content.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, LZMAError, StructError, EOFError, RuntimeError, ValueError, OverflowError)
UTF_8 = 1 << 11  # the flag of an entry whose name is in UTF-8


def unpack(
    archive: Path, target: Path, *, folders: Iterable[str] = (), size: int | None = None, sha256: str | None = None
) -> Path:
    """Unpack a zip archive into the folder `target` unless it is there; it gets its name only when complete.

    `folders`: must be in the archive, else it is the wrong one. `size`, `sha256`: as published; a difference is said.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_one(target):
            if not target.exists():  # else the process that we waited for has unpacked it
                tell_if_not_published(archive, size=size, sha256=sha256)
                unpack_and_rename(archive, target, folders)
    except Failed as error:
        advice = "Delete it and run again to fetch it anew."
        raise CourseError(f"{archive} is damaged or unsafe ({error}). {advice}") from error
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
            for folder in folders:
                if not any(name.startswith(f"{folder}/") for name in zipped.namelist()):
                    raise Failed(f"it has no folder {folder}")
            check_room(target.parent, sum(entry.file_size for entry in zipped.infolist()))
            for entry in tqdm(zipped.infolist(), desc=f"unpacking {archive.name}", unit=" files", delay=1):
                zipped.extract(entry, temporary)  # compares the CRC at the end
        temporary.mkdir(exist_ok=True)  # an archive may be empty
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def open_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive that is complete and can do no harm; raises Failed if it can, or proves damaged later."""
    try:
        with open(file, "rb") as content, zipfile.ZipFile(content) as zipped:
            check_list(content, zipped, size=file.stat().st_size)
            for entry in zipped.infolist():
                check_entry(content, zipped, entry)
            yield zipped
    except ZIP_ERRORS as error:
        raise Failed(first_line(error)) from error


def check_list(content, zipped: zipfile.ZipFile, *, size: int) -> None:
    """Raise Failed if the list of entries is not that of the whole file, which zipfile does not check, or a bomb."""
    entries = zipped.infolist()
    content.seek(-22 - len(zipped.comment), os.SEEK_END)
    end = content.read(22)  # which says how many entries there are, or 0xFFFF if it has no room for that
    complete = end.startswith(b"PK\x05\x06") and int.from_bytes(end[10:12], "little") in (len(entries), 0xFFFF)
    if not complete or min((entry.header_offset for entry in entries), default=0) > 0:
        raise Failed("its list of entries is not whole")
    if len({Path(entry.filename) for entry in entries}) < len(entries):
        raise Failed("two of its entries have the same name")
    if sum(entry.compress_size for entry in entries) > size:
        raise Failed("its entries are larger than the file")
    total = sum(entry.file_size for entry in entries)
    # Images shrink little in an archive. What grows a hundredfold is made to fill a disk.
    if total > max(100 * size, 100_000_000):
        raise Failed(f"it would grow from {size:,} to {total:,} bytes")


def check_entry(content, zipped: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise Failed if an entry leads out of the folder, is a link, or has another name than its own header."""
    path = PureWindowsPath(entry.filename)  # knows both kinds of slashes, and drives
    if path.anchor or ".." in path.parts:
        raise Failed(f"its entry {entry.filename!r} leads out of the folder")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Failed(f"its entry {entry.filename!r} is a link")
    if entry.is_dir():
        zipped.open(entry).close()  # compares the names, as `extract` does for files: one bit makes a folder of a file
    content.seek(entry.header_offset + 6)
    flags = int.from_bytes(content.read(2), "little")
    if not entry.filename.isascii() and (flags ^ entry.flag_bits) & UTF_8:
        raise Failed(f"the name of its entry {entry.filename!r} is damaged")
