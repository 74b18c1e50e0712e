"""`evergreen prune` and `withdraw`: what is not needed any more, and what must not be kept."""

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cl.errors import ConfigError
from cl.text import plural
from flows.cli.options import RootOption
from flows.console import err, out, table
from flows.settings import Place, begin, check_project

if TYPE_CHECKING:
    from flows.removal.orders import Order
    from flows.removal.spare import Plan

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and touch nothing.")]


def prune(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only what this model learned  [default: all]")] = None,
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="How many champions before this one can still be gone back to.")] = 3,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Also what `run` and `compare` learned and no model's history uses.")
    ] = False,
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Drop the weights of old states and versions, stale checkpoints and leftovers; every number, name and report stays."""
    place = begin(writes=not dry_run)
    check_project(place)
    from flows.removal.room import prune as make_room

    def agreed(plan: "Plan") -> bool:
        _show(plan)
        return not dry_run and _asked(f"drop {_bytes(plan.size)}?", yes)

    plan = make_room(place, model, keep, experiments, agreed, _tell)
    if plan is None:
        err().print("nothing is dropped")
    elif not plan.goes:
        err().print("nothing to drop: whatever is there is needed, or an experiment (--experiments)", soft_wrap=True)
    else:
        err().print(f"{_bytes(plan.size)} freed")


def withdraw(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name, or COLLECTION/SESSION.")],
    why: Annotated[str, typer.Option(metavar="TEXT", help="A reason, kept in the histories.")],
    images: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Only these: ids of rows or SHA-256 of images, separated by commas or in a file, one a line."),
    ] = None,
    watched: Annotated[
        list[Path] | None, typer.Option("--watched", metavar="DIR", help="A folder that `evergreen watch` watched; may be repeated.")
    ] = None,
    dry_run: DryOption = False,
    yes: YesOption = False,
    data_root: RootOption = None,
) -> None:
    """Take data back: out of models that can be computed without it, off the shelf, and out of every copy that was made of it."""
    place = begin(writes=not dry_run)
    check_project(place)
    from flows.registry.champion import whoami
    from flows.removal.draw_up import draw_up
    from flows.removal.orders import pending, write

    begun = [] if dry_run else pending(place)
    for each in begun:
        _tell(f"{each.name}: its withdrawal was begun before, and is gone on with")
        _carry_out(place, each)
    if any(session in (each.session, f"{each.collection}/{each.session}") for each in begun):
        return
    wanted = None if images is None else _listed(images)
    order, told = draw_up(place, place.data_in(data_root), session, wanted, why, whoami(), watched or ())
    what = "all of it" if order.whole else "of it"
    held = plural(len(order.objects), "object of DVC holds it, or lists it", "objects of DVC hold it, or list it")
    for line in (f"{order.name}: {plural(len(order.ids), 'image')}, {what}; {held}", *told):
        out().print(line, soft_wrap=True)
    if dry_run or not _asked("withdraw it? This cannot be undone.", yes):
        return _tell("nothing is withdrawn")
    write(place, order)
    _carry_out(place, order)


def _carry_out(place: Place, order: "Order") -> None:
    """All that an order asks, while nobody learns what it touches."""
    from flows.history.idle import idle
    from flows.removal.withdraw import carry_out

    with ExitStack() as stack:
        for model in sorted(order.models):
            stack.enter_context(idle(place, model))
        carry_out(place, order, sorted(order.models), _tell)


def _tell(text: str) -> None:
    err().print(text, soft_wrap=True)


def _listed(images: str) -> list[str]:
    """What a list names: the lines of a file of that name, else what stands between its commas."""
    file = Path(images)
    try:
        text = file.read_text(encoding="utf-8").splitlines() if file.is_file() else images.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--images {images}: cannot be read ({error}); give a text file with an id a line") from error
    return [line.strip() for line in text if line.strip()]


def _show(plan: "Plan") -> None:
    counts, sizes = Counter(each.kind for each in plan.goes), Counter[str]()
    for each in plan.goes:
        sizes[each.kind] += each.size
    out().print(
        table(
            "would go" if plan.goes else "",
            ["what", "how many", "bytes"],
            [(f"{kind}s", counts[kind], f"{sizes[kind]:,}") for kind in counts],
        )
    )
    for model in plan.models:
        kept = sorted(model.kept.versions, key=lambda number: (len(number), number))
        out().print(f"{model.name}: versions that stay: {', '.join(kept) or 'none'}", soft_wrap=True)


def _asked(question: str, yes: bool) -> bool:
    """Whether a person agrees; where there is no terminal nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nobody is here to be asked: give --yes to go ahead, or --dry-run to only see what would go")
    return typer.confirm(question, default=False, err=True)


def _bytes(size: int) -> str:
    """A size as people read it.

    >>> _bytes(950), _bytes(12_300_000)
    ('950 bytes', '12.3 MB')
    """
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= each:
            return f"{size / each:.1f} {unit}"
    return plural(size, "byte")
