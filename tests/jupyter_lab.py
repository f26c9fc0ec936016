"""A real JupyterLab in a real, headless Chromium, for tests: driven by Chromium's own protocol."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync
--remote-debugging-port=0""".split()
TOKEN = "test"


class Page:
    """The one page of a browser.

    `send` calls a method of the Chrome DevTools Protocol, `js` returns what an expression gives,
    `wait` waits until one gives something true.
    """

    def __init__(self, address):
        websocket = pytest.importorskip(
            "websocket", reason="the package websocket-client is missing"
        )
        self._socket = websocket.create_connection(address, suppress_origin=True, timeout=60)
        self._numbers = itertools.count(1)

    def _ask(self, method, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                return answer

    def send(self, method, **parameters):
        answer = self._ask(method, **parameters)
        assert "error" not in answer, answer
        return answer["result"]

    def js(self, expression, *, may_navigate=False):
        """None if the page goes to another address meanwhile, where it may."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self._ask("Runtime.evaluate", expression=expression, **options)
        if may_navigate and "navigated" in answer.get("error", {}).get("message", ""):
            return None
        assert "error" not in answer, answer
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"].get("value")

    def wait(self, expression, seconds=300):
        end = time.monotonic() + seconds
        while not (found := self.js(expression, may_navigate=True)):
            assert time.monotonic() < end, f"waited {seconds} s in vain for {expression}"
            time.sleep(0.2)
        return found

    def choose(self, place, value):
        """Choose an option of the menu at a place among the page's menus, as a person does."""
        menu = f"document.querySelectorAll('.cnnviz-explorer select')[{place}]"
        changed = "new Event('change', {bubbles: true})"
        self.js(f"{menu}.value = {value!r}; {menu}.dispatchEvent({changed})")

    def resize(self, width, height):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip

    def open_notebook(self, address):
        """Open a notebook in JupyterLab and wait until its kernel is there."""
        self.resize(1280, 900)
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.send("Page.navigate", url=address)
        panel = "[...window.jupyterapp?.shell.widgets('main') ?? []][0]"
        kernel = f"{panel}?.sessionContext?.session?.kernel"
        self.wait(f"{kernel}?.connectionStatus == 'connected'")
        self.js(f"jupyterapp.shell.activateById({panel}.id)")
        self.wait("!!jupyterapp.shell.currentWidget?.context")
        self.js("void jupyterapp.commands.execute('application:toggle-left-area')")

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self):
        self._socket.close()


@contextlib.contextmanager
def open_browser(folder):
    """-> Page of a Chromium whose files are under `folder`; skips the test without Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH")
    with _running([CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]):
        port = _wait_for(lambda: (folder / "DevToolsActivePort").read_text().split()[0])
        pages = _wait_for(lambda: json.loads(_read(f"http://127.0.0.1:{port}/json")))
        page = Page(next(p for p in pages if p["type"] == "page")["webSocketDebuggerUrl"])
        with contextlib.closing(page):
            yield page


@contextlib.contextmanager
def open_lab(folder, theme="JupyterLab Light"):
    """-> The address of a JupyterLab that works in `folder`; its settings are under it too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    for name, chosen in (("themes", {"theme": theme}), ("notification", {"fetchNews": "false"})):
        (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(chosen))
    places = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_RUNTIME_DIR",
        "IPYTHONDIR",
        "JUPYTERLAB_WORKSPACES_DIR",
    )
    environment = os.environ | {name: str(folder / name.lower()) for name in places}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"]
    with _running(command, env=environment, cwd=folder):
        address = f"http://127.0.0.1:{port}"
        _wait_for(lambda: _read(f"{address}/api?token={TOKEN}"))
        yield address


@contextlib.contextmanager
def _running(command, **options):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet, **options)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _read(address):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=5) as answer:
        return answer.read()


def _wait_for(read, seconds=300):
    end = time.monotonic() + seconds
    while True:
        try:
            return read()
        except (OSError, IndexError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
