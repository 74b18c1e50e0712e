"""An order to withdraw data: a file that says all that is to be done, from before the first step until the last is through.

It holds what the histories must not keep: which images, by their fingerprints and ids. It is readable by its owner alone, and is
removed with the last step.
"""

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, unsealed
from cl.errors import StoreError
from flows.removal.copies import Sought
from flows.settings import Place


@dataclass(frozen=True)
class Order:
    """What is withdrawn, where it lies, and the entry that each model's history gets."""

    id: str
    data: str  # the data root
    collection: str
    session: str
    folder: str  # of the session, in the collection
    number: int
    whole: bool
    prints: tuple[str, ...]  # hex
    ids: tuple[str, ...]
    objects: tuple[str, ...] = ()  # of DVC
    watched: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()  # paths in the store: features of its images, and halves of what learns them
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name: the fields of its entry `withdrawn`, intent

    @property
    def wanted(self) -> Callable[[bytes], bool]:
        """Whether an image goes, by its fingerprint."""
        known = frozenset(map(bytes.fromhex, self.prints))
        return known.__contains__

    @property
    def sought(self) -> Sought:
        """What copies are known by."""
        return Sought(self.collection, self.session, self.folder, self.whole, self.ids, self.wanted)

    @property
    def name(self) -> str:
        """The session as people name it."""
        return f"{self.collection}/{self.folder}"


def new_id() -> str:
    """The name of an order."""
    return secrets.token_hex(12)


def write(place: Place, order: Order) -> None:
    """Put it where every step, and every restart, reads it.

    Raises:
        StoreError: it cannot be written.
    """
    file = _file(place, order.id)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(sealed(asdict(order)), file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); free space or make it writable") from error


def pending(place: Place) -> list[Order]:
    """Those that are not through.

    Raises:
        StoreError: one is damaged.
    """
    return [_read(file) for file in sorted((place.runs / "withdrawals").glob("[!.]*.json"))]


def through(place: Place, order: Order) -> None:
    """It is done: nothing keeps which images it was about."""
    _file(place, order.id).unlink(missing_ok=True)


def _file(place: Place, name: str) -> Path:
    return place.runs / "withdrawals" / f"{name}.json"


def _read(file: Path) -> Order:
    fields = unsealed(read_json(file), str(file), ())
    try:
        return TypeAdapter(Order).validate_python(fields)
    except ValidationError as error:
        raise StoreError(f"{file}: written by another release of Evergreen; use that one to end it") from error
