"""What commands that learn share: the Prefect server they run on, ours where there is no other, and what is shown meanwhile."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from cl.errors import StoreError
from flows.addresses import hushed, shown
from flows.console import watching
from flows.settings import EMBEDDED, Place
from flows.unswept import unswept


def orchestrated(place: Place) -> AbstractContextManager[None]:
    """Choose the Prefect server, our own where there is no other, and start it; what is returned waits for it and shows a bar."""
    from flows.servers.secret import CLIENT  # this and the next: help comes without them
    from flows.servers.servers import embedded, find_server

    if address := find_server(place):
        os.environ["PREFECT_API_URL"] = address  # Prefect reads it when it is imported
        return _watched(lambda: None)
    own = embedded(place)
    os.environ |= {EMBEDDED: "1", "PREFECT_API_URL": own.address, CLIENT: own.secret}
    return _watched(own.ready)


@contextmanager
def prepared_for() -> Iterator[None]:
    """Show that settings and data are read, for which most of what learns is imported."""
    with unswept():
        from flows.watch import watched_by  # brings Prefect, which reads its address as it is imported

        with watching("reading settings and data") as watch, watched_by(watch):
            yield


@contextmanager
def _watched(ready: Callable[[], None]) -> Iterator[None]:
    import httpx  # help comes without it

    from flows.watch import watched_by  # as above

    with watching("waiting for Prefect") as watch, watched_by(watch):
        ready()
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            watch.bar.console.print("Stopped. What is learned is kept; the same command goes on from there.")
            raise
        except httpx.TransportError as error:
            kept = "what is learned is kept: once it answers, start again, and nothing is learned twice"
            address = shown(os.environ["PREFECT_API_URL"])
            raise StoreError(f"the Prefect server at {address} does not answer any more ({hushed(str(error))}); {kept}") from error


def overrides_of(method: str | None, seed: int | None, settings: Sequence[str] | None) -> list[str]:
    """What a command's options change of its config."""
    chosen = [f"method={method}"] if method else []
    return [*chosen, *([f"seed={seed}"] if seed is not None else []), *(settings or [])]
