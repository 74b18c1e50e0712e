"""In front of Prefect's and MLflow's servers: a browser is answered only on their own pages, and only under a name that is theirs.

A page that a person merely visits can send requests to this machine. What it cannot do is leave out where it comes from (`Origin`,
`Sec-Fetch-Site`) or, after its name was pointed at this machine (DNS rebinding), under which name it called (`Host`).
"""

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from flows.servers.children import end_with
from flows.unswept import ends_at_once, unswept

PARENT = "EVERGREEN_PARENT"  # the process that started these servers
NAMES = "EVERGREEN_ALLOWED_HOSTS"  # names, with commas between, under which a proxy or other machines reach these servers
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# keeps the secret where Prefect's pages look for it, once the server took it; what follows a # is neither sent nor logged
_ENTER = b"""<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Evergreen</title><p id="p"></p><script>
const secret = btoa(decodeURIComponent(location.hash.slice(1)));
history.replaceState(null, "", "/enter");
fetch("/api/admin/version", {headers: {Authorization: `Basic ${secret}`}}).then((reply) => {
  if (!reply.ok) throw 0;
  localStorage.setItem("prefect-password", secret);
  location.replace("/");
}).catch(() => { document.getElementById("p").textContent = "Not this server's secret; see .prefect/secret in the project."; });
</script>
"""


def prefect_app() -> "Guard":
    """Prefect's API, services and pages, behind the guard."""
    ends_at_once()
    with unswept():
        from prefect.server.api.server import create_app  # the other server does not need it

    _end_with_parent()
    return Guard(create_app(final=True), {"/enter": _ENTER})


def mlflow_app() -> "Guard":
    """MLflow's API and pages, behind the guard."""
    with unswept():
        from mlflow.server.fastapi_app import app  # the other server does not need it

    _end_with_parent()
    return Guard(app)


def _end_with_parent() -> None:
    if parent := os.environ.get(PARENT):  # MLflow's is a child of a child
        end_with(int(parent))


class Guard:
    """An ASGI application that hands on to another one what is not refused."""

    def __init__(self, app: App, pages: dict[str, bytes] | None = None) -> None:
        self.app, self.pages = app, pages or {}
        self.listed = {name.strip().lower() for name in os.environ.get(NAMES, "").split(",") if name.strip()}
        self.names = {"localhost", socket.gethostname().lower(), *self.listed}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        why = refusal(scope, self.names, self.listed) if scope["type"] in ("http", "websocket") else None
        page = self.pages.get(scope.get("path", "")) if scope["type"] == "http" else None
        if why and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        elif why:
            await _reply(send, 403, b"text/plain; charset=utf-8", f"{why}\n".encode())
        elif page and scope["method"] == "GET":
            await _reply(send, 200, b"text/html; charset=utf-8", page)
        else:
            await self.app(scope, receive, send)


def refusal(scope: Message, names: set[str], listed: set[str]) -> str | None:
    """Why a request is not answered: it calls under a foreign name or comes from a foreign page; None if it is.

    Args:
        scope: the request, as ASGI has it.
        names: under which this server may be called; an address is no name and cannot be pointed elsewhere.
        listed: those of them whose pages may call although a proxy hands their requests on under another name.
    """
    headers: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
    hosts, origins = headers.get(b"host", []), headers.get(b"origin", [])
    if len(hosts) != 1 or len(origins) > 1:
        return "refused: one Host and at most one Origin are expected"
    called = _name(f"//{hosts[0]}")
    if called is None or not (_is_address(called) or called in names):
        return f"refused: called as {called!a}; list names that are meant in {NAMES} before `evergreen up`"
    if origins and not _own(origins[0], hosts[0], listed):
        return f"refused: a page of {origins[0]!a} may not call this server"
    sites = headers.get(b"sec-fetch-site", ["none"])
    if not set(sites) <= {"none", "same-origin"} and not _is_visit(scope, headers):
        return "refused: another site's page may not call this server"
    return None


def _own(origin: str, host: str, listed: set[str]) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and (parts.netloc.lower() == host.lower() or _name(origin) in listed)


def _is_visit(scope: Message, headers: dict[bytes, list[str]]) -> bool:
    """A link that a person follows: it shows our page, in a window of its own, and tells the other page nothing."""
    sent = scope.get("method"), headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
    return sent == ("GET", ["navigate"], ["document"])


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _reply(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-frame-options", b"DENY")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
