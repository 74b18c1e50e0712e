"""The states that versions of earlier releases hold, each as what a history would have noted when it was learned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cl.data.classes import ClassName
from cl.errors import StoreError
from cl.steps import Step
from flows.history.entries import AskedSet, Learned
from flows.line.work import Work, classes, told
from flows.takeover.past import Past, steps_to
from flows.takeover.seen import Seen, fits, look


@dataclass
class Held:
    """What the versions of a model come to, the earliest first."""

    learned: dict[str, Learned] = field(default_factory=dict)  # by state; what it grew from comes before it
    of: dict[str, Past] = field(default_factory=dict)  # by state: the first version that holds it
    ends: dict[str, str] = field(default_factory=dict)  # by version: its own state
    pasts: dict[str, Past] = field(default_factory=dict)  # by version
    seen: dict[str, Seen | None] = field(default_factory=dict)  # by state: its session as the data of now have it
    looked: dict[str, Seen | None] = field(default_factory=dict)  # the same, by all that it depends on: versions share sessions

    def line(self, state: str | None) -> list[Learned]:
        """From the first session to a state."""
        path: list[Learned] = []
        while state is not None:
            path.append(self.learned[state])
            state = path[-1].parent
        return path[::-1]

    def vocabulary(self, state: str | None) -> tuple[ClassName, ...]:
        """The classes that a state has learned, in order."""
        return tuple(each for learned in self.line(state) for each in classes(learned.classes))


def add(at: Work, held: Held, version: Past, wanted: bool) -> None:
    """Take in what a version holds; nothing where its steps are not here, unless it is `wanted`.

    Raises:
        StoreError: it is wanted, and steps before its own are missing, or it learned every session at once.
    """
    if version.joint and wanted:
        raise StoreError(
            f"{at.config.name}: version {version.version}, its champion, learned every session at once (joint), and no session can be "
            "learned after that; give the config another name, which learns its sessions one by one"
        )
    try:
        steps = [] if version.joint else steps_to(at.place, version.key, held.learned.keys())
    except StoreError as error:
        if wanted and (at.place.steps / "steps" / version.key).exists():
            raise StoreError(
                f"{at.config.name}: version {version.version}, its champion, cannot be followed to its start ({error}); bring "
                f"{at.place.steps} back from the machine that learned it, or give the config another name"
            ) from error
        return
    if len(steps) < 1 or not steps[-1].index:
        return
    held.pasts[version.version], held.ends[version.version] = version, steps[-1].state
    parent = steps[0].state if steps[0].index else None
    for step in steps[1:]:
        _add(at, held, version, step, parent, steps[-1])
        parent = step.state


def _add(at: Work, held: Held, version: Past, step: Step, parent: str | None, last: Step) -> None:
    known = {each.name: each for each in held.vocabulary(parent)}
    learned = Learned(
        session=step.session,
        source=_source(version.config["stream"]),
        parent=parent,
        state=step.state,
        number=step.index,
        identity="",  # nobody knows what this release would call what learned it
        config=version.config,
        content="",
        code=version.code or step.code,
        versions=dict(version.versions),
        seconds=step.cost.seconds,
        happened=step.finished,
    )
    arrivals = at.then(learned)
    arrival = arrivals.there().get(step.session) if arrivals else None
    asked = json.dumps([version.config["stream"], step.session, step.index, told(known.values())], sort_keys=True)
    if asked not in held.looked:
        held.looked[asked] = look(arrivals, step.session, step.index, known) if arrivals else None
    seen = held.seen[step.state] = held.looked[asked]
    facts: dict[str, Any] = {"classes": told(_fresh(version, step, last, known, seen))}
    if arrival:
        facts |= {"source": arrival.source, "content": arrival.content}
    if seen:
        sets = (each for each in seen.sets if each.name in last.hits and fits(each, last.hits[each.name], version.config["evaluate"]))
        exam = (AskedSet(name=each.name, kind=each.kind, content=each.content, classes=told(each.classes)) for each in sets)
        facts |= {"images": seen.images, "exam": tuple(exam)}
    held.learned[step.state], held.of[step.state] = replace(learned, **facts), version


def _fresh(version: Past, step: Step, last: Step, known: Mapping[str, ClassName], seen: Seen | None) -> Sequence[ClassName]:
    """The classes that came with a session: those of its version, as far as what the session teaches reaches among them."""
    if version.classes is None:
        return seen.vocabulary[len(known) :] if seen else ()
    fresh = [each for each in version.classes if each.name not in known]
    if step is last:
        return fresh
    taught = {each.name for each in seen.classes} if seen else set()
    return fresh[: max((place for place, each in enumerate(fresh, start=1) if each.name in taught), default=0)]


def _source(stream: Mapping[str, Any]) -> str:
    """What the sessions of a stream are noted to come from, where their data do not say it."""
    sources = stream["sources"]
    if stream["kind"] == "collection":
        return Path(sources[stream.get("source") or next(iter(sources))]["path"]).name
    return ", ".join(sorted(sources))
