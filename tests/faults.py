"""What the tests of downloads share: a real HTTP server that misbehaves as it is told, archives, child processes."""

import io
import random
import re
import socket
import struct
import threading
import time
import zipfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from urllib3 import Retry

from helpers import downloads
from helpers.settings import CourseError

ETAG = '"first version"'
RETRY = Retry(2, backoff_factor=1, backoff_jitter=1, backoff_max=60)  # nobody sleeps: `waits`


def make_zip(files, compression=zipfile.ZIP_DEFLATED):
    """The bytes of a zip archive with these contents, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def noise(*, files, size, seed=0):
    """So many files of bytes that don't shrink, as photographs don't."""
    generator = random.Random(seed)
    return {f"images/{i % 7}/{i}.bin": generator.randbytes(size) for i in range(files)}


def tree(folder):
    """All files below a folder with their contents, by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def leftovers(folder):
    """All that lies in a folder, without the locks, which stay and hold nobody."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def fetch_and_unpack(url, folder):
    """What a lesson does at its start, as a process that can be killed."""
    downloads.unpack(downloads.fetch(url, folder / "a.zip"), folder / "out")


def write_without_room(file, content, room):
    """Write where a file may have only `room` bytes; what is said goes into a file beside it."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        downloads.write_whole(file, content)
    except CourseError as error:
        file.with_name("said").write_text(str(error))


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next behaviour in the server's `script`; the last one stays."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
            script = server.scripts.get(self.path, [status(404)])
            behaviour = script.pop(0) if len(script) > 1 else script[0]
        with suppress(BrokenPipeError, ConnectionResetError):  # the client was killed, or had enough
            behaviour(self)
        self.close_connection = True

    do_CONNECT = do_GET  # as a proxy is asked

    def head(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        """Keep the tests' output clean."""


class FaultyServer(ThreadingHTTPServer):
    """`scripts`: for each path the behaviours to come. `asked`: (path, Range, If-Range) of every request.

    `waits`: the seconds that its clients would have slept before they asked again.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts, self.asked, self.waits, self.lock = {}, [], [], threading.Lock()

    def serve(self, *behaviours, path="/file.zip"):
        """Answer requests for `path` with these, one after the other; returns its address."""
        self.scripts[path] = list(behaviours)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        """A client that hangs up is no news here."""


def running_server(monkeypatch):
    """A server in a thread of its own; downloads wait for it, and for any other, without sleeping."""
    server = FaultyServer()
    monkeypatch.setattr(downloads, "TIMEOUTS", (5, 5))
    monkeypatch.setattr(downloads, "RETRY", RETRY)
    monkeypatch.setattr("urllib3.util.retry.time", SimpleNamespace(sleep=server.waits.append, time=time.time))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# ------------------------------------------------------------------------------------ behaviours


def whole(body, *, etag=ETAG, cut=None, reset=False, pause=0, ranges=True, check_version=True, **headers):
    """The file, or the rest that was asked for.

    `cut`: the connection ends after so many bytes of the answer; `reset`: roughly. `pause`: seconds before each
    64 KiB. `ranges`: False ignores Range. `etag`: None names no version; `check_version`: False ignores If-Range.
    `headers` are added or replace others, or leave them out with None; write Content_Length for Content-Length.
    """

    def behave(handler):
        code, content, own = 200, body, {"ETag": etag}
        wanted = re.match(r"bytes=(\d+)-$", handler.headers.get("Range", ""))
        version = etag or headers.get("Last_Modified")
        if ranges and wanted and (not check_version or handler.headers.get("If-Range") in (None, version)):
            start = int(wanted[1])
            code, content = (206, body[start:]) if start < len(body) else (416, b"")
            own["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.head(code, own | {"Content-Length": len(content)} | with_dashes(headers))
        send(handler, content[:cut], pause)
        if reset:
            reset_connection(handler)

    return behave


def with_dashes(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}


def send(handler, content, pause):
    for start in range(0, len(content), 1 << 16):
        time.sleep(pause)
        handler.wfile.write(content[start : start + (1 << 16)])


def reset_connection(handler):
    """End with RST in place of FIN, as a router does that has forgotten the connection."""
    time.sleep(0.05)  # let the bytes that were sent arrive: a reset overtakes them
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def status(code, **headers):
    """An answer without the file."""
    return lambda handler: handler.head(code, {"Content-Length": 0} | with_dashes(headers))


def unasked_rest(body, *, start):
    """A partial answer, from a place of its own choice, whatever was asked for."""

    def behave(handler):
        numbers = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.head(206, {"Content-Length": len(body) - start, "Content-Range": numbers, "ETag": ETAG})
        send(handler, body[start:], pause=0)

    return behave


def web_page(content_type="text/html; charset=utf-8"):
    """What a hotel's or a school's log-in page looks like to a download."""
    return whole(b"<html><body>Please log in.</body></html>", etag=None, Content_Type=content_type)


def trickle(body, *, after, seconds):
    """A beginning, then silence for so many seconds."""

    def behave(handler):
        handler.head(200, {"Content-Length": len(body), "ETag": ETAG})
        handler.wfile.write(body[:after])
        time.sleep(seconds)

    return behave


def garbage(handler):
    """Bytes that are no HTTP."""
    handler.wfile.write(b"\x00\xff nonsense\r\n\r\n")


def redirect(to):
    return status(302, Location=to)
