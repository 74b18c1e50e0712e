"""A model's history changed by hand: only while nobody learns the model, which needs no server to be known."""

from collections.abc import Iterator
from contextlib import contextmanager

from cl.errors import StoreError
from cl.names import slug
from flows.settings import Place
from flows.tracking.runs import locked


@contextmanager
def idle(place: Place, model: str) -> Iterator[None]:
    """Hold the lock of the model's learner, so that nobody learns, judges or promotes meanwhile.

    Raises:
        StoreError: somebody does.
    """

    def taken() -> None:
        raise StoreError(f"{slug(model)}: a process is learning it now (evergreen status); when it is through, start this command again")

    with locked(place, f"learner-{slug(model)}.lock", taken):
        yield
