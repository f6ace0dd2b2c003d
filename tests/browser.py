"""What the tests of web pages share: Debian's or another Chromium, without a window."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*"),
]


@contextmanager
def browser(folder):
    """A new browser that keeps its profile in `folder`."""
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Page(folder)
    finally:
        process.terminate()
        process.wait(20)


class Page:
    """The one page of a browser, over the DevTools protocol."""

    def __init__(self, folder):
        import websocket

        file = folder / "DevToolsActivePort"
        wait_for(lambda: file.exists() and file.read_text().count("\n"))
        port = file.read_text().split()[0]
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{port}{file.read_text().split()[1]}", timeout=120)
        self.count, self.session, self.events = 0, None, []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.do(f"{domain}.enable")

    def do(self, method, **parameters):
        """Send a command; its result. Events that come meanwhile are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def run(self, expression):
        """The value of a JavaScript expression, awaited."""
        answer = self.do("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address):
        self.do("Page.navigate", url=address)
        wait_for(lambda: self.run("document.readyState === 'complete' && location.href") == address)

    def choose(self, selector, file):
        """Choose a file in an input, as a person does."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            self.do("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=KEYS[code], **text)

    def look(self, *, width=900, height=900, dark=False):
        """A screenshot as PNG."""
        self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.do("Emulation.setEmulatedMedia", features=scheme)
        return base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"])


KEYS = {"Tab": 9, "Space": 32, "Enter": 13}


def wait_for(condition, *, seconds=60):
    """What the condition gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.02)
    return found
