"""Fetch an archive and unpack it: whole or not at all."""

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import requests
from tqdm import tqdm

from .settings import BadArgument, CourseError, first_line


def find_archive(name: str) -> Path | None:
    """The file of that name in the folder COURSE_ARCHIVES, or None."""
    folder = os.environ.get("COURSE_ARCHIVES")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise BadArgument(f"COURSE_ARCHIVES names {folder!r}, which is not a folder.")
    file = Path(folder) / name
    return file if file.is_file() else None


def fetch(url: str, target: Path, *, size: int | None = None) -> Path:
    """Download `url` to `target` unless it is there; it gets its name only when whole.

    `size`: the published number of bytes, checked. Raises CourseError if the download fails.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        stream_to(part, url)
        check_size(part, size)
        os.replace(part, target)
    except (requests.RequestException, OSError) as error:
        raise CourseError(
            f"Could not download {url} ({first_line(error)}). Without a network, put {target.name} into a folder "
            "and name that folder in COURSE_ARCHIVES, or use the setting sample."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def stream_to(file: Path, url: str) -> None:
    """Write the answer to `file` piece by piece, so that memory stays small."""
    with requests.get(url, stream=True, timeout=(10, 60)) as answer:
        answer.raise_for_status()
        length = int(answer.headers.get("Content-Length", 0)) or None
        with open(file, "wb") as out, tqdm(total=length, unit="B", unit_scale=True, desc=file.stem) as bar:
            for piece in answer.iter_content(1 << 20):
                out.write(piece)
                bar.update(len(piece))
    # A connection that breaks early can look like a normal end; the header tells the true length.
    if "Content-Encoding" not in answer.headers:
        check_size(file, length)


def check_size(file: Path, expected: int | None) -> None:
    """Raise OSError if the file does not have the expected number of bytes."""
    if expected is not None and file.stat().st_size != expected:
        raise OSError(f"{file.stat().st_size:,} bytes came instead of {expected:,}")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a zip archive into the folder `target` unless it is there; it gets its name only when complete."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(temporary)  # checks every CRC, and keeps every name inside the folder
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        os.replace(temporary, target)
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted
        raise CourseError(
            f"{archive} is damaged ({first_line(error)}). Delete it and run again to fetch it anew."
        ) from error
    except OSError as error:
        if not target.exists():  # another process may have been faster, which is fine
            raise CourseError(f"Could not unpack {archive} into {target} ({first_line(error)}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
