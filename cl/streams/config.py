"""The YAML of a stream: where its data lies, what its sessions are, and what is asked of them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from cl.config import Config, Name
from cl.data.table import Supervision
from cl.streams.stream import Candidates, Kind

Split = Literal["train", "val", "test"]


def _listed(value: Any) -> Any:
    """One word stands for a list of one, and a whole number for its digits: classes may be called 0 to 9."""
    words = value if isinstance(value, list | tuple) else [value]
    return [str(word) if type(word) is int else word for word in words]


def _one_hole(templates: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(f"a template holds {{}} once, where the class name goes; {wrong[0] if wrong else 'none'!r} does not")
    return templates


def _order(value: Any) -> Any:
    if isinstance(value, list | tuple) and value and all(isinstance(name, str | int) for name in value):
        return _listed(value)
    if value not in ("given", "alphabetical", "shuffled"):
        raise ValueError("expected given, alphabetical, shuffled, or a list of class names")
    return value


def _some(entries: Any) -> Any:
    # not min_length: that also complains when the items are wrong
    if not entries:
        raise ValueError("the list is empty; name at least one, or leave it out")
    return entries


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


PROMPT = ("a photo of a {}.",)  # what CLIP was asked with where no better is known (arXiv:2103.00020, section 3.1.4)
Template = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_one_hole)]
Moment = Annotated[datetime, AfterValidator(_utc)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_some)]
Order = Annotated[str | tuple[str, ...], BeforeValidator(_order)]


class Source(Config):
    """A folder or file of images; a bare path stands for `{path: ...}`. Columns are found by name unless said here."""

    path: str = Field(description="relative to the data folder, or absolute")
    template: Template | None = Field(default=None, description="prompts of this source's class names; default: the stream's")
    id: str | None = None
    image: str | None = None
    label: str | None = None
    captions: str | None = None
    domain: str | None = None
    time: str | None = None
    split: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    def columns(self) -> dict[str, str | None]:
        """The chosen columns by role."""
        return self.model_dump(exclude={"path", "template"})


class Selection(Config):
    """Some rows of a source: those that meet every condition given."""

    source: str | None = Field(default=None, description="which source; may be left out where there is one")
    domains: Names | None = None
    classes: Names | None = None
    since: Moment | None = None
    before: Moment | None = None
    part: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="[2, 5]: the second of five equal runs of the training rows, in their order"
    )


class SessionSpec(Selection):
    """One session as listed; what is left out is as the stream says."""

    name: Name | None = Field(default=None, description="default: its domains, its classes, or its source")
    supervision: Supervision | None = None
    test: Kind | None = None
    limit: PositiveInt | None = None
    test_limit: PositiveInt | None = None


class Labelled(Config):
    """Which training images keep their label; the others are taught without one, as pseudolabels want it."""

    shots: PositiveInt | None = Field(default=None, description="so many of each class, drawn by the stream's seed")
    classes: float | None = Field(default=None, gt=0, lt=1, description="all images of this share of a session's classes, drawn likewise")

    @model_validator(mode="after")
    def _either(self) -> "Labelled":
        if (self.shots is None) == (self.classes is None):
            raise ValueError("give either shots (images per class) or classes (a share, such as 0.62)")
        return self


Sessions = Annotated[tuple[SessionSpec, ...], AfterValidator(_some)]


class Probe(Selection):
    """An evaluation set that no session teaches."""

    name: Name
    split: Split = "test"
    test: Kind | None = Field(default=None, description="default: classify where there are labels, else retrieve")
    limit: PositiveInt | None = None


class _Stream(Config):
    name: Name = "stream"
    sources: dict[Name, Source] = Field(min_length=1)
    supervision: Supervision = Field("labels", description="what sessions teach with; the other columns are dropped")
    test: Kind | None = Field(
        default=None, description="how sessions are examined; default: retrieve where they teach captions, else classify"
    )
    labelled: Labelled | None = Field(default=None, description="which training images keep their label; default: all that have one")
    test_split: Literal["val", "test", "held_out"] = Field(
        "test", description="what examines; held_out: a fifth of each class's training images, to choose settings by, never taught"
    )
    template: Template = Field(PROMPT, description="prompts of class names; what is not words, such as characters, wants '{}'")
    synonyms: dict[str, Names] = Field(
        {}, description="what classes are asked as, where not by their name: {cobwebbed: spider web}; of several, the one counted most"
    )
    counted_in: str | None = Field(
        default=None, description="data whose captions say which of a class's synonyms and its own name is asked: the one in most of them"
    )
    candidates: Candidates = "own"
    limit: PositiveInt | None = Field(default=None, description="at most this many training images per session")
    test_limit: PositiveInt | None = Field(default=None, description="at most this many test images per session")
    seed: NonNegativeInt = 0
    probes: tuple[Probe, ...] = ()

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        several = [name for name, others in self.synonyms.items() if len(others) > 1]
        if several and self.counted_in is None:
            raise ValueError(
                f"synonyms: {several[0]} has several, and nothing says which is asked; give one, or counted_in: data with captions"
            )
        if self.counted_in is not None and not self.synonyms:
            raise ValueError("counted_in: there are no synonyms to count; give synonyms, or leave it out")
        return self


class ListedStream(_Stream):
    """Sessions exactly as listed."""

    kind: Literal["listed"]
    sessions: Sessions


class DomainStream(_Stream):
    """One session per domain, or per source where a source has no domains; `sessions` chooses, orders and names them."""

    kind: Literal["domains"]
    sessions: Sessions | None = None


class ClassStream(_Stream):
    """New classes in every session: `base` of them first, then `increment` at a time; the last may have fewer."""

    kind: Literal["classes"]
    source: str | None = None
    domains: Names | None = Field(default=None, description="only classes and images of these")
    at_least: PositiveInt = Field(default=1, description="classes with fewer training images are left out")
    base: PositiveInt | None = Field(default=None, description="default: as many as increment")
    increment: PositiveInt
    order: Order = "given"


class FewShotStream(_Stream):
    """`base` classes with all their images, then sessions of `ways` classes with `shots` images each (arXiv:2004.10956)."""

    kind: Literal["fewshot"]
    source: str | None = None
    domains: Names | None = Field(default=None, description="only classes and images of these")
    at_least: PositiveInt = Field(default=1, description="classes with fewer training images are left out")
    base: PositiveInt
    ways: PositiveInt
    shots: PositiveInt
    sessions: PositiveInt | None = Field(default=None, description="default: as many as there are classes for")
    lists: str | None = Field(
        default=None, description="folder with session_2.txt, session_3.txt, ...: the shots by file name, one a line; default: drawn"
    )
    order: Order = "given"


class TimeStream(_Stream):
    """One session per period: between `cuts`, or `parts` periods of about as many training images each."""

    kind: Literal["time"]
    source: str | None = None
    cuts: tuple[Moment, ...] | None = Field(default=None, min_length=1)
    parts: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _either(self) -> "TimeStream":
        if (self.cuts is None) == (self.parts is None):
            raise ValueError("give either cuts (dates) or parts (a number)")
        if self.cuts is not None and list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("cuts must rise from one date to the next")
        return self


class CollectionStream(_Stream):
    """The sessions that `evergreen ingest` took in, in order of arrival, each with its own supervision; grows with them."""

    kind: Literal["collection"]
    source: str | None = Field(default=None, description="which source is the collection; may be left out where there is one")
    until: PositiveInt | None = Field(default=None, description="sessions up to this number; default: all there are")


StreamConfig = Annotated[
    ListedStream | DomainStream | ClassStream | FewShotStream | TimeStream | CollectionStream, Field(discriminator="kind")
]
