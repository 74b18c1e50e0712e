"""Data that must go: out of the models that can be computed without it, off the shelf, and out of every copy that Evergreen made.

The order of things: what is to be done is written down, then the new states, then the heads, then everything is deleted, then it is
noted as done. Each step can be done again, so a command that was killed is ended by the same one, or by the next `update`.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from cl.data import collection
from cl.data.leave_out import bury, rewrite
from cl.errors import DataError, EvergreenError
from cl.text import plural
from flows.data import objects
from flows.data.pinned import pin_file
from flows.data.shelf import shelf_locked
from flows.data.versions import pin, push
from flows.history.conclude import conclude
from flows.history.entries import Champion, Withdrawn, history_of, note
from flows.line.entered import model_run, name_of, publish
from flows.line.work import Work
from flows.registry.champion import CHAMPION, change, holder, versions_of
from flows.removal.copies import purge
from flows.removal.draw_up import worker
from flows.removal.orders import Order, pending, through
from flows.removal.room import finish as pruned
from flows.removal.without import Remedy, make, measure
from flows.settings import Place
from flows.tracking.runs import connect
from flows.watch import watch

Tell = Callable[[str], None]
BARRED = "evergreen.withdrawn"


def carry_out(place: Place, order: Order, mine: Sequence[str], tell: Tell) -> None:
    """Do, or go on with, what an order says; for who holds the locks of the learners of `mine`.

    Raises:
        EvergreenError: a step cannot be done; the order stays, and the same again goes on.
    """
    works: dict[str, tuple[Work, Withdrawn]] = {}
    for model, fields in order.models.items():
        journal = history_of(place, model)
        note(journal, _said(fields), id=f"{order.id}-intent")
        works[model] = worker(place, conclude(journal.read()), Path(order.data)), _said(fields)
    for at, said in works.values():
        if said.into and not _done(at, order):
            make(at, at.standing(), Remedy(said.into, said.line, ""), order.session, order.wanted)
    for model in mine:
        if model in works:
            _head(*works[model], order, tell)
    _delete(place, order, tell)
    for model in mine:
        if model in works:
            note(works[model][0].journal, replace(works[model][1], phase="done"), id=f"{order.id}-done")
    if all(_done(at, order) for at, _ in works.values()):
        through(place, order)


def finish(at: Work) -> bool:
    """End whatever pruning or withdrawing was begun and cut short, as far as it is this model's; for who holds its lock.

    To be called before anything else is done to a model. Returns whether data went: then what was read of them is to be read anew.
    """
    pruned(at)
    ended = 0
    for order in pending(at.place):
        if at.journal.path.stem in order.models:
            carry_out(at.place, order, [at.journal.path.stem], watch().tell)
            ended += 1
    return ended > 0


def _said(fields: Mapping[str, object]) -> Withdrawn:
    return TypeAdapter(Withdrawn).validate_python(fields)


def _done(at: Work, order: Order) -> bool:
    return any(entry.id == f"{order.id}-done" for entry in at.journal.read())


def _head(at: Work, said: Withdrawn, order: Order, tell: Tell) -> None:
    """The new state becomes head, and champion where the champion holds what goes; versions that hold it are marked."""
    standing, client = at.standing(), connect(at.place)
    there = {str(each.version) for each in versions_of(client, name_of(at))}
    for number in said.versions:
        if number in there:
            client.set_model_version_tag(name_of(at), number, BARRED, "true")
    if not said.into or _done(at, order):
        return
    tell(f"{at.config.name}: {measure(at, standing, said.into, order.session)}")
    champion = standing.champion
    if champion and champion.version in said.versions and champion.state != said.into:
        learned = standing.tree[said.into]
        with model_run(at.job, at.journal.read()[0].id) as run:
            _, number = publish.fn(at.job, run, learned.session, learned.state)
        fact = Champion(version=number, state=said.into, before=champion.version, why=said.why, by=said.by, how="withdraw", phase="intent")
        note(at.journal, fact, id=f"{order.id}-champion")
    now = at.standing()
    if now.champion and now.champion.state == said.into and not now.confirmed:
        held = holder(client, name_of(at), CHAMPION)
        if held is None or str(held.version) != now.champion.version:
            change(at.place, client, name_of(at), CHAMPION, now.champion.version, f"withdrawn: {said.why}")
        note(
            at.journal,
            Champion(version=now.champion.version, state=said.into, why=said.why, by=said.by, how="withdraw"),
            id=f"{order.id}-crowned",
        )
        tell(f"{at.config.name}: version {now.champion.version} is champion")


def _delete(place: Place, order: Order, tell: Tell) -> None:
    data, folder = Path(order.data), Path(order.data) / order.collection
    with shelf_locked(place), collection.locked(folder):
        left = folder / order.folder
        if order.whole:
            bury(folder, order.session, order.number)
        elif left.exists():
            rewrite(folder, collection.described_in(left), order.wanted)
        before, after = pin(data)
        if before and after is None:
            raise DataError(f"{data}: its pin names files that nobody can look up; `dvc fetch`, then start the command again")
        for remark in objects.remove(data, order.objects):
            tell(remark)
    for name in order.derived:
        path = place.steps / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    purged = purge(place, order.sought, [Path(each) for each in order.watched])
    what = "off the shelf" if order.whole else f"written again without {plural(len(order.ids), 'image')}"
    copies = f"{plural(len(order.objects), 'object')} of DVC, {plural(purged.gone, 'copy', 'copies')}"
    tell(f"{order.name}: {what}; {copies}, and rows in {plural(purged.lost, 'state')} are gone")
    for remark in purged.unread:
        tell(remark)
    try:
        if after and after != before and (address := push(data)):
            tell(f"{pin_file(data).name}: sent to {address}")
    except EvergreenError as error:
        tell(str(error))
