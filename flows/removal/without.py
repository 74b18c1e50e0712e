"""A model's line without what is withdrawn: which states it would be made of, and the weights of those that can be computed."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from cl.data.leave_out import lessened
from cl.data.table import ImageTable
from cl.disk.files import new_folder, write_json
from cl.disk.seal import sealed
from cl.disk.tensors import write_tensors
from cl.errors import DataError
from cl.evaluation.ask import ask, names
from cl.methods import Method
from cl.methods.persist import memory
from cl.store.store import NOTE, WEIGHTS, now, read_state, whole
from cl.store.subtract import forgets, renote, subtract
from cl.streams.arrived import collection_of
from cl.text import plural
from flows.history.entries import Learned
from flows.history.standing import Standing, chain
from flows.line.grow import method_of
from flows.line.work import Work, classes, told

Leave = Callable[[bytes], bool]  # whether an image goes, by its fingerprint


class Remedy(NamedTuple):
    """What takes the head's place: the state, its line (empty where the history knows it), and how that leaves the data out.

    `into` is None where nothing but learning anew does, or where nothing is left.
    """

    into: str | None
    line: tuple[Learned, ...]
    how: str


def remedy(at: Work, standing: Standing, session: str, leave: Leave, all_of_it: bool, order: str) -> Remedy:
    """How a model comes to be without a session, or without some images of it.

    Raises:
        DataError: the session cannot be read, or nothing would be left of it.
    """
    path = _path(standing, session)
    place = next((number for number, learned in enumerate(path) if learned.session == session), None)
    if place is None:
        return Remedy(None, (), "it is not in the model's line")
    if all_of_it and place == len(path) - 1 and place == 0:
        return Remedy(None, (), "the model has learned nothing else")
    if all_of_it and place == len(path) - 1 and whole(at.place.steps / "states" / path[-2].state):
        return Remedy(path[-2].state, (), "it was the last to be learned, so the model is what it was before")
    segment = path[place:]
    ways = {forgets(learned.config["method"]) for learned in segment}
    how = ways.pop()
    if how is None or ways or any(learned.dropped for learned in segment[1:]):
        return Remedy(None, (), "its weights were trained on it")
    if not whole(at.place.steps / "states" / path[-1].state):
        return Remedy(None, (), "the weights of the head are not there to take it out of")
    line = _line(at, path, place, leave, all_of_it, order)
    return Remedy(line[-1].state, line, how)


def _path(standing: Standing, session: str) -> tuple[Learned, ...]:
    """The line that is mended: the champion's where it holds the session, else the head's."""
    champion = standing.champion.state if standing.champion else None
    own = chain(standing, champion)
    return own if any(learned.session == session for learned in own) else standing.line


def _line(at: Work, path: Sequence[Learned], place: int, leave: Leave, all_of_it: bool, order: str) -> tuple[Learned, ...]:
    out, line = path[place], list(path[:place])
    if not all_of_it:
        line.append(_moved(_less(at, out, leave), line, order))
    for learned in path[place + 1 :]:
        line.append(_moved(_named(at, learned, line) if all_of_it and out.classes else learned, line, order))
    return tuple(line)


def _moved(learned: Learned, line: Sequence[Learned], order: str) -> Learned:
    parent = line[-1].state if line else None
    name = hashlib.sha256(f"{learned.state}/{parent}/{order}".encode()).hexdigest()[:24]
    return replace(learned, parent=parent, state=name, number=len(line) + 1)


def _named(at: Work, learned: Learned, line: Sequence[Learned]) -> Learned:
    """A later session with the classes that it is now the first to bring, where its data say so."""
    arrivals, known = at.then(learned), {each.name: each for one in line for each in classes(one.classes)}
    try:
        if arrivals is None:
            return learned
        lesson, _ = arrivals.session(learned.session, len(line) + 1, known)
    except (DataError, KeyError):
        return learned
    return replace(learned, classes=told(lesson.vocabulary[len(known) :]))


def _less(at: Work, learned: Learned, leave: Leave) -> Learned:
    """A session without some of its images, as it is going to lie on the shelf."""
    arrivals = at.then(learned)
    if arrivals is None or not arrivals.grows or learned.session not in arrivals.there():
        return learned
    folder = collection_of(arrivals.config, at.root)  # type: ignore[arg-type]
    entry, _ = lessened(folder, arrivals.entry(learned.session), leave)
    tested = arrivals.test_rows(learned.session)
    content, fewer = tested.content(), tested.where([not leave(print_) for print_ in tested.prints]).content()
    exam = tuple(replace(each, content=fewer) if each.content == content else each for each in learned.exam)
    return replace(learned, content=entry.digest, images=entry.train, exam=exam)


def make(at: Work, standing: Standing, way: Remedy, session: str, leave: Leave) -> None:
    """Write the states of a new line that are not there; the data have to be. Killed meanwhile, the same again ends it.

    Raises:
        StoreError, DataError: the weights or the data to compute them from are not there.
    """
    path = [learned for learned in _path(standing, session) if learned.session in {each.session for each in way.line}]
    todo = [(old, new) for old, new in zip(path, way.line, strict=True) if old.state != new.state]
    if not any(not (at.place.steps / "states" / new.state).exists() for _, new in todo):
        return
    out = next(learned for learned in _path(standing, session) if learned.session == session)
    arrivals = at.then(out)
    if arrivals is None or session not in arrivals.there():
        raise DataError(f"session {session!r}: its images are not there to be taken out of what was learned of them")
    rows = arrivals.draft(session).train
    rows = rows.where([label is not None for label in rows.labels])
    gone = [row for row, each in enumerate(rows.prints) if leave(each)]
    for old, new in todo:
        folder = at.place.steps / "states" / new.state
        if not folder.exists():
            _write(at, old, way.line[: way.line.index(new) + 1], rows, gone, leave)


def _write(at: Work, old: Learned, line: Sequence[Learned], rows: ImageTable, gone: Sequence[int], leave: Leave) -> None:
    """Write the last state of a new line, made of the old one."""
    new = line[-1]
    states = at.place.steps / "states"
    noted = replace(read_state(states / old.state), parent=new.parent, index=new.number, shared="", foreign=[])
    with new_folder(states / new.state) as folder:
        if whole(states / old.state):
            method = method_of(at, old)
            subtract(method, rows, gone)
            _note_again(at, method, old, line, leave)
            kept = memory(method)
            noted = replace(noted, sha256=write_tensors(kept, folder / WEIGHTS), finished=now(), withdrawn=len(gone))
        else:  # pruned: numbers of its cost stay
            noted = replace(noted, pruned=noted.pruned or now())
        write_json(sealed(asdict(noted)), folder / NOTE)


def _note_again(at: Work, method: Method, old: Learned, line: Sequence[Learned], leave: Leave) -> None:
    """What a method noted of a session's rows, as it would have without what is gone, where rows and the state before are there."""
    arrivals, states = at.then(old), at.place.steps / "states"
    if arrivals is None or old.session not in arrivals.there() or (len(line) > 1 and not whole(states / line[-2].state)):
        return
    rows = arrivals.draft(old.session).train
    stay = [label is not None and not leave(each) for label, each in zip(rows.labels, rows.prints, strict=True)]
    known = [each for learned in line for each in classes(learned.classes)]
    if any(stay):
        renote(method, method_of(at, line[-2]) if len(line) > 1 else None, rows.where(stay), known)


def measure(at: Work, standing: Standing, state: str, session: str) -> str:
    """Ask the new head every set that is not about what is withdrawn; says how it does."""
    path = chain(standing, state)
    sets = at.sets(standing, path)
    exams = [each for each in sets.judged if each.taught is None or each.taught == 0 or path[each.taught - 1].session != session]
    questions = at.line(path, sets.every).questions(len(path), exams)
    cells = ask(state, lambda: method_of(at, path[-1]), at.start, questions)
    scores = [_headline(cells[name].metrics) for name in names(questions, at.config.evaluate)]
    return (
        f"measured on {plural(len(scores), 'set')}: {sum(scores) / len(scores):.3f} on average"
        if scores
        else "no set is left to measure it on"
    )


def _headline(metrics: dict[str, float]) -> float:
    return metrics.get("top1", metrics.get("recall@10", 0.0))


def features_of(at: Work, standing: Standing, session: str) -> list[str]:
    """The files, by their path in the store, with features of the images that examine a session."""
    path = standing.line
    sets = at.sets(standing, path)
    exams = [each for each in sets.every if each.taught and path[each.taught - 1].session == session]
    wanted = names(at.line(path, sets.every).questions(len(path), exams), at.config.evaluate, first=True) if exams else []
    return [at.start.features(name).relative_to(at.place.steps).as_posix() for name in wanted]
