"""What a stream is like before anything is learned: what it teaches with, how much of it the model knows, how many images a class has."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from cl.errors import ConfigError, MethodError
from cl.evaluation.ask import ask_start, names
from cl.evaluation.evaluate import HEADLINE
from cl.reports.advice import Facts, Teaches
from cl.streams.stream import Session, Stream
from flows.learn.job import Job, planned
from flows.watch import watch


def facts(job: Job) -> Facts:
    """The stream of a job, its base model asked every set that a session brings; what it answers is kept for when it is learned.

    Whether the job's own method could learn it does not matter: others are looked for.

    Raises:
        DataError, ModelError: the data cannot be read, or there is no such model.
    """
    plan = planned(_by(job, {"name": "zero_shot"}))
    metrics = {test.name: HEADLINE[test.kind] for session in plan.stream.sessions for test in session.tests}
    questions = [each for each in plan.questions(0) if each.name in metrics]
    cells = ask_start(plan.start(job.place.steps), questions, watch().progress)
    wanted = zip(questions, names(questions, plan.config.evaluate, first=True), strict=True)
    scores = [cells[cell].metrics[metrics[each.name]] for each, cell in wanted]
    return Facts(teaches(plan.stream), float(np.mean(scores)), per_class(plan.stream.sessions), len(plan.stream.sessions))


def refused(job: Job, recipe: dict[str, Any]) -> bool:
    """Whether a recipe cannot learn the stream of a job with the model and the settings there, by the check of whoever would run it."""
    try:
        planned(_by(job, recipe))
    except (ConfigError, MethodError):
        return True
    return False


def _by(job: Job, recipe: dict[str, Any]) -> Job:
    return replace(job, config=json.dumps(job.settings | {"method": recipe}, sort_keys=True))


def teaches(stream: Stream) -> Teaches:
    """What most rows of all sessions teach with; where most have nothing, what the others have."""
    columns = ((session.data.labels, session.data.captions) for session in stream.sessions)  # each of which is read as a whole
    rows = Counter(_word(label, texts) for labels, captions in columns for label, texts in zip(labels, captions, strict=True))
    most: Teaches = rows.most_common(1)[0][0]
    if most != "nothing" or not (rows["labels"] or rows["captions"]):
        return most
    if rows["captions"] > rows["labels"]:
        return "captions"
    whole = all(len(session.data.classes()) >= len(session.classes) for session in stream.sessions)
    return "some labels" if whole else "labels of some classes"


def _word(label: str | None, texts: Sequence[str]) -> Teaches:
    if label is not None:
        return "labels"
    return "captions" if texts else "nothing"


def per_class(sessions: tuple[Session, ...]) -> float | None:
    """The median number of labelled images that a class has in a session; of several sessions those after the first."""
    later = sessions[1:] or sessions
    counts = [count for session in later for count in Counter(label for label in session.data.labels if label is not None).values()]
    return float(median(counts)) if counts else None
