"""Whether what waits is learned now: the config's policy, and the test for drift."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from prefect import task
from prefect.artifacts import create_table_artifact

from cl.data.table import ImageTable, concat
from cl.evaluation.drift import Drift, drift
from cl.evaluation.evaluate import image_features, spread
from cl.streams.arrivals import Arrival
from cl.text import plural
from flows.history.entries import Learned
from flows.history.standing import Standing, Word
from flows.learn.job import Job
from flows.learn.session import RETRIED, tracker_of
from flows.line.grow import method_of
from flows.line.work import Work, work
from flows.tracking.runs import slug
from flows.watch import watch


class Ruling(NamedTuple):
    """Whether to learn what waits, and why in a few words; the drift test where one was made."""

    learn: bool
    why: str
    drift: Drift | None = None


def whether(job: Job, standing: Standing, waiting: Sequence[Arrival]) -> Ruling:
    """What the policy says of the sessions that wait; told to whoever watches."""
    ruling = _rule(job, standing, waiting)
    watch().tell(
        f"{work(job).config.name}: {plural(len(waiting), 'session waits', 'sessions wait')}; "
        f"{'learning' if ruling.learn else 'left waiting'}: {ruling.why}"
    )
    return ruling


def _rule(job: Job, standing: Standing, waiting: Sequence[Arrival]) -> Ruling:
    policy, images = work(job).config.update, sum(arrival.images for arrival in waiting)
    wanted = [each.name for each in waiting if each.name in standing.sessions and standing.sessions[each.name].word == Word.AGAIN]
    if wanted and wanted[0] in standing.overruled:
        return Ruling(True, f"{wanted[0]} was accepted by a person, and is learned from the head of now")
    if wanted:
        return Ruling(True, f"{wanted[0]} is to be tried again")
    if not standing.line or policy.policy == "every":
        return Ruling(True, "every session is learned")
    if policy.policy == "samples":
        return Ruling(images >= policy.samples, f"{plural(images, 'new image')}, and the policy wants {policy.samples:,}")
    return _drift(job, [arrival.name for arrival in waiting])


@task(task_run_name="whether to learn", **RETRIED)
def _drift(job: Job, names: list[str]) -> Ruling:
    """The test for drift and its calibration, shown on the run's page."""
    at = work(job)
    standing, policy = at.standing(), at.config.update
    method = method_of(at, standing.line[-1])
    fresh = spread(concat([at.arrivals.draft(name).train for name in names]), policy.images)
    known = _known(at, standing, policy.images)
    before, after = (image_features(method, rows, at.config.evaluate) for rows in (known, fresh))
    drifted = drift(before, after, policy.false_alarms, seed=at.config.seed)
    create_table_artifact(
        key=f"{slug(at.config.name)}-drift",
        table=[shown(drifted)],
        description=f"{at.config.name}: drift of {plural(len(fresh), 'new image')}",
    )
    compared = f"distance {drifted.value:.4f}, threshold {drifted.threshold:.4f}"
    measured = f"{drifted.false_alarms:.1%} false alarms measured, {drifted.asked:.1%} asked for"
    return Ruling(
        drifted.found, f"new images {'differ from' if drifted.found else 'are like'} known ones ({compared}; {measured})", drifted
    )


def _known(at: Work, standing: Standing, most: int) -> ImageTable:
    """Images of the line, evenly spread over all that it was taught; only the sessions that give one are read."""
    sizes = [learned.images or _images(at, learned) for learned in standing.line]
    total = sum(sizes)
    wanted = sorted({round(place * (total - 1) / max(1, min(most, total) - 1)) for place in range(min(most, total))})
    rows, start = [], 0
    for learned, size in zip(standing.line, sizes, strict=True):
        own = [row - start for row in wanted if start <= row < start + size]
        arrivals = at.then(learned) if own else None
        if arrivals and learned.session in arrivals.there():
            table = arrivals.draft(learned.session).train
            rows.append(table.take([row for row in own if row < len(table)]))
        start += size
    return concat(rows)


def _images(at: Work, learned: Learned) -> int:
    """How many images taught a session of which nobody noted that."""
    arrivals = at.then(learned)
    there = arrivals.there().get(learned.session) if arrivals else None
    return there.images if there else 0


def shown(drifted: Drift) -> dict[str, Any]:
    """The test as a row of a table."""
    return {
        "distance": round(drifted.value, 6),
        "threshold": round(drifted.threshold, 6),
        "drift": "yes" if drifted.found else "no",
        "false alarms asked": drifted.asked,
        "false alarms measured": round(drifted.false_alarms, 4),
        "known images": drifted.known,
        "new images": drifted.fresh,
    }


@task(task_run_name="note why", **RETRIED)
def note_ruling(job: Job, run_id: str, ruling: Ruling) -> None:
    """Why the sessions were learned now, on the model's run in MLflow."""
    content = {"why": ruling.why, **({"drift": shown(ruling.drift)} if ruling.drift else {})}
    tracker_of(job).client.log_dict(run_id, content, "update.json")
