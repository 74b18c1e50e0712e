"""One learner per model at a time: others wait, and what a dead one held is free again."""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from flows.settings import EMBEDDED, Place
from flows.tracking.runs import locked, slug
from flows.watch import watch

_LEASE = 60.0  # seconds after which Prefect frees what a dead holder held; the least it allows
_WAIT = 5.0  # seconds; one who waits without an end cannot be stopped by a signal


@contextmanager
def model_locked(place: Place, model: str) -> Iterator[None]:
    """Learn, judge and promote `model` with nobody else at it.

    Two locks: a file's, which guards this machine and which the kernel frees at once when its holder dies; and a global concurrency
    limit of Prefect, which guards other machines and shows on its pages. A server of our own has nobody else to guard against.
    """
    name = f"evergreen-{slug(model)}"
    with locked(place, f"learner-{slug(model)}.lock", lambda: watch().tell(f"{model}: another process is learning it; waiting")):
        if os.environ.get(EMBEDDED):
            yield
            return
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(name, 1)
        with _slot(model, name):
            yield


@contextmanager
def _slot(model: str, name: str) -> Iterator[None]:
    with ExitStack() as stack:
        for turn in itertools.count():
            if turn == 1:
                release = f"if none does, `prefect gcl update {name} --active-slots 0` frees it"
                watch().tell(f"{model}: Prefect's limit {name} is taken: another machine learns it; waiting ({release})")
            # a server that is away for a moment does not end a training that the file's lock guards anyway
            held = concurrency(name, timeout_seconds=_WAIT, lease_duration=_LEASE, raise_on_lease_renewal_failure=False)
            with suppress(TimeoutError):
                stack.enter_context(held)
                break
        yield
