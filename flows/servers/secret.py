"""The secret that Prefect's API wants of whoever calls: one per project, in a file that only its owner can read."""

import base64
import os
import secrets
import stat
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from cl.errors import StoreError
from flows.addresses import request
from flows.settings import Place

SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"  # what Prefect's server and its clients read
_OPEN = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>Evergreen</title><script>location.replace({address!r})</script>
"""


def fresh() -> str:
    """A new secret, in the form that Prefect documents, `user:password`."""
    return f"evergreen:{secrets.token_urlsafe(32)}"


def path(place: Place) -> Path:
    """Where a project keeps its secret."""
    return place.root / ".prefect" / "secret"


def made(place: Place) -> str:
    """The project's secret, which is made where there is none yet.

    Raises:
        StoreError: others can read it, or it cannot be read or written.
    """
    if (known := kept(place)) is not None:
        return known
    file = path(place)
    part = _write(file.with_name(f".secret.{uuid.uuid4().hex}.part"), f"{fresh()}\n")
    try:
        os.link(part, file)  # not a rename: of two that start at once, both use what the first made
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); make its folder writable") from error
    finally:
        part.unlink()
    return kept(place) or ""


def kept(place: Place) -> str | None:
    """The project's secret, None where there is none.

    Raises:
        StoreError: others can read it, or it cannot be read.
    """
    file = path(place)
    again = "delete it and start `evergreen up` again, which makes a new one"
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            state = os.fstat(opened.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077 or state.st_uid != os.geteuid():
                mode = f"{stat.S_IMODE(state.st_mode):o}"
                raise StoreError(f"{file}: others than its owner can read or write it (mode {mode}), so it is no secret; {again}")
            secret = opened.read(1000).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); {again}") from error
    if not secret.isprintable() or len(secret) < 16:
        raise StoreError(f"{file}: not a secret of `evergreen up`; {again}")
    return secret


def opener(place: Place, address: str, secret: str) -> Path:
    """A page for the browser of this machine, which goes on to Prefect's and is let in there.

    A file of its owner alone, since other users of a machine can read what a browser is started with.
    """
    file = place.root / ".prefect" / "open.html"
    file.unlink(missing_ok=True)
    return _write(file, _OPEN.format(address=f"{address}/enter#{secret}"))


def refused(address: str, secret: str | None, key: str | None = None) -> bool:
    """Whether the API at `address` does not let these in; False also where it does not say."""
    asked = request(f"{address.rstrip('/')}/admin/version")
    if secret:
        asked.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    elif key:
        asked.add_header("Authorization", f"Bearer {key}")
    try:
        urllib.request.urlopen(asked, timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (OSError, ValueError):
        return False
    return False


def _write(file: Path, text: str) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not (unversioned := file.parent / ".gitignore").exists():
            unversioned.write_text("*\n")  # a secret is in no commit
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as opened:
            opened.write(text)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); make its folder writable") from error
    return file
