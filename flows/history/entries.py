"""What the history of a model can say: facts of a closed set, one to an entry of its journal; what follows from them is `standing.py`'s.

A release that reads a kind, a word or a field that it does not know says so and stops: what a later one meant by it may be that
the model must not be served. States are named by their keys, versions as MLflow numbers them, sessions by the names of their stream.
An entry says when it was written; `happened` (ISO 8601, UTC) says when it was so, where that was before: what an earlier release learned.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Any, Literal, cast, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cl.disk.durable import beside
from cl.disk.journal import Entry, Journal
from cl.errors import StoreError
from cl.names import slug
from flows.settings import Place

Classes = tuple[tuple[str, tuple[str, ...]], ...]  # names with their prompts, in order of arrival
Policy = Literal["set_aside", "retry_with_next", "keep"]
Ruling = Literal["accepted", "promoted", "refused", "waiting", "stale", "expired", "declined"]
How = Literal["gate", "promote", "rollback", "withdraw", "rebuild", "outside_confirmed", "taken_over"]
Phase = Literal["intent", "done"]

_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class AskedSet:
    """An evaluation set as it was first asked: digest of its rows, candidates with their prompts."""

    name: str
    kind: Literal["classify", "retrieve"]
    content: str
    classes: Classes = ()


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Opened:
    """The first entry: whose history it is, of which stream, from which base weights; how it was taken over from an earlier release."""

    model: str
    stream: dict[str, Any]
    base: str
    taken_over: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Began:
    """A session is going to be learned on top of `parent` (None: the base model), by `config`, into the state that will be named `state`.

    `together`: the sessions that get one verdict, in their order and this one among them, where it is not judged alone: each stands on
    the one before, and the verdict is that of the last.
    """

    session: str
    source: str
    parent: str | None
    state: str
    number: int  # on the line of states: 1 grew from the base model
    identity: str
    config: dict[str, Any]
    content: str
    together: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Learned:
    """A session is learned: what its state is made of, and what made it.

    `classes` and `exam` are what came with this session, not all that is known: the line's entries together say that.
    """

    session: str
    source: str
    parent: str | None
    state: str
    number: int
    identity: str
    config: dict[str, Any]
    content: str
    classes: Classes = ()
    exam: tuple[AskedSet, ...] = ()
    dropped: tuple[str, ...] = ()
    code: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    happened: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Verdict:
    """What became of a candidate, against whom, by which bounds; `policy` is what the config wants of one that is refused.

    accepted: the bounds hold, and no version is needed, as another session follows. promoted: its version is champion from here on.
    refused: a bound does not hold. waiting: all hold, and a person is asked; declined: who says no; expired: nobody said anything.
    stale: it grew from what is the head no longer.
    """

    state: str
    session: str
    word: Ruling
    version: str | None = None
    champion: str | None = None
    champion_version: str | None = None
    bounds: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    policy: Policy = "set_aside"
    by: str = ""
    happened: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Champion:
    """Which version is champion from here on, and the state it holds (None: one of no known line).

    intent: the alias is going to follow; done: it does. A verdict `promoted` is an intent of its own.
    """

    version: str
    state: str | None
    before: str | None = None
    why: str = ""
    by: str = ""
    how: How = "gate"
    phase: Phase = "done"
    happened: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Adopted:
    """What a version that `run` made has learned, from the start: known from here on, so that it can be promoted."""

    version: str
    line: tuple[Learned, ...]


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Rebuilt:
    """A line that was learned anew beside the champion takes its place; `version` is champion from here on; its alias will follow."""

    version: str
    state: str
    line: tuple[Learned, ...]
    why: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Skipped:
    """A person leaves a session out."""

    session: str
    why: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Retry:
    """A person wants a session learned and judged again."""

    session: str
    by: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Accept:
    """A person wants a session learned, whatever the gate says of it."""

    session: str
    why: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Abandoned:
    """What was begun, or learned and not judged, is not gone on with."""

    state: str
    session: str
    why: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Withdrawn:
    """The data of a session, or some of its images, must go; `versions` hold them.

    `into` is the state without them that takes the head's place, and `line` what that state is made of; None where only learning anew
    leaves them out, or where they never were in the line.
    """

    phase: Phase
    session: str
    images: tuple[str, ...] | None = None
    versions: tuple[str, ...] = ()
    into: str | None = None
    line: tuple[Learned, ...] = ()
    why: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Pruned:
    """The weights of states and versions are dropped, and no number."""

    phase: Phase
    states: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


Fact = (
    Opened
    | Began
    | Learned
    | Verdict
    | Champion
    | Adopted
    | Rebuilt
    | Skipped
    | Retry
    | Accept
    | Abandoned
    | Withdrawn
    | Pruned
)  # fmt: skip
_KINDS: dict[str, TypeAdapter[Any]] = {kind.__name__.lower(): TypeAdapter(kind) for kind in get_args(Fact)}


def history_of(place: Place, model: str) -> Journal:
    """The journal of a model of this project."""
    return Journal(place.runs / "history" / f"{slug(model)}.jsonl")


def note(journal: Journal, fact: Fact, *, id: str | None = None, expect: int | None = None) -> Entry:
    """Write a fact; `id` and `expect` as in `Journal.append`.

    Raises:
        StoreError: as `Journal.append`.
    """
    kind, fields = entry_of(fact)
    return journal.append(kind, id=id, expect=expect, **fields)


def open_with(journal: Journal, facts: Sequence[Fact]) -> None:
    """Open a history with several facts: all of them are there, or the file is not.

    Raises:
        StoreError: as `Journal.append`.
    """
    try:
        journal.path.parent.mkdir(parents=True, exist_ok=True)
        with beside(journal.path) as part:
            for each in facts:
                note(Journal(part), each)
    except OSError as error:
        raise StoreError(f"{journal.path}: cannot be written ({error.strerror}); free space or make it writable") from error


def entry_of(fact: Fact) -> tuple[str, dict[str, Any]]:
    """The kind and the fields of the entry that says it."""
    kind = type(fact).__name__.lower()
    return kind, _KINDS[kind].dump_python(fact, mode="json")


def moment_of(entry: Entry, said: Fact) -> str:
    """When it was so what an entry says (ISO 8601, UTC), whenever that was written down."""
    return getattr(said, "happened", "") or entry.when


def fact(entry: Entry) -> Fact:
    """What an entry says.

    Raises:
        StoreError: it says something that this release does not know.
    """
    if entry.kind not in _KINDS:
        raise StoreError(f"the model's history, entry {entry.seq}, says {entry.kind!r:.50}, {_LATER}")
    try:
        return cast(Fact, _KINDS[entry.kind].validate_python(entry.fields))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"the model's history, entry {entry.seq} ({entry.kind}), {where}: {first['msg'].lower()}; {_OTHER}") from error


_OTHER = "it was written by another release of Evergreen, a later one it may be; use that release"
_LATER = "which was written by a later release of Evergreen; use that release"
