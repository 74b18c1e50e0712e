"""What a model's next session is learned from: the settings of now, what is there, and what the model's history says."""

import functools
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import ConfigError, EvergreenError
from cl.evaluation.ask import Start
from cl.evaluation.line import Exam, Line, exam_of
from cl.methods import Method
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from cl.models.clip import load
from cl.plan import base_digest
from cl.reports.report import Report
from cl.run_config import RunConfig, parse_config
from cl.streams.arrivals import Arrival, Arrivals
from cl.streams.build import StreamConfig
from cl.streams.stream import EvalSet, Session
from cl.text import some
from flows.history.conclude import conclude
from flows.history.entries import AskedSet, Classes, Learned, history_of
from flows.history.standing import Standing, Word
from flows.learn.job import Job

NOT_IN_LINE = (Word.ASIDE, Word.SKIPPED, Word.BACK)  # whose sets are shown, and never judged by


@dataclass(frozen=True)
class Sets:
    """The sets of a model: those it is judged by, those of sessions that are not in its line, and why some cannot be asked any more."""

    judged: tuple[Exam, ...]
    aside: tuple[Exam, ...]
    gone: tuple[str, ...]  # names

    @property
    def every(self) -> tuple[Exam, ...]:
        """All that can be asked."""
        return self.judged + self.aside


class Work:
    """A model of a project, between two sessions."""

    def __init__(self, job: Job) -> None:
        self.job, self.place, self.root = job, job.place, Path(job.folder)
        self.config: RunConfig = parse_config(job.settings, "config")
        self.arrivals = self._arrivals(self.config.stream)
        self.journal = history_of(self.place, self.config.name)
        self._others: dict[str, Arrivals | None] = {}
        self._concluded: tuple[tuple[int, ...] | None, Standing] | None = None
        self._sets: tuple[Standing, tuple[str, ...], Sets] | None = None  # the last that were made
        self.report: tuple[tuple[str, ...], Report] | None = None  # the last that was made, by its state and its sets

    def _arrivals(self, stream: StreamConfig) -> Arrivals:
        return Arrivals(stream, self.root, self.place.steps / "listings", self.job.data)

    def standing(self) -> Standing:
        """What the history says.

        Raises:
            StoreError: it is damaged, or of a later release.
        """
        stamp = self.journal.stamp()
        if self._concluded is None or stamp is None or self._concluded[0] != stamp:
            self._concluded = stamp, conclude(self.journal.read())
        return self._concluded[1]

    @functools.cached_property
    def base(self) -> str:
        """The digest of the base model's weights."""
        return base_digest(self.config.model, True, self.place.outlines)

    @property
    def start(self) -> Start:
        """The model before any session."""
        return Start(self.place.steps, self.base, self._frozen, self.config.evaluate)

    def _frozen(self) -> Method:
        return ZeroShotConfig().build(load(self.config.model), self.config.seed)

    @functools.cached_property
    def probes(self) -> tuple[EvalSet, ...]:
        """The sets that no session teaches, as the config has them now."""
        return self.arrivals.probes()

    def sets(self, standing: Standing, path: Sequence[Learned]) -> Sets:
        """The sets of a line, of what is not in it, and the probes; kept, since gate, report and page of one session ask for the same."""
        states = tuple(learned.state for learned in path)
        if self._sets is None or self._sets[0] is not standing or self._sets[1] != states:
            self._sets = standing, states, self._made(standing, path)
        return self._sets[2]

    def _made(self, standing: Standing, path: Sequence[Learned]) -> Sets:
        taught = {learned.session for learned in path}
        numbered = enumerate(path, start=1)
        judged, gone = self._of((place, learned) for place, learned in numbered if learned.session not in standing.tombstones)
        others: list[tuple[int | None, Learned]] = [
            (None, standing.tree[status.state])
            for name, status in standing.sessions.items()
            if status.word in NOT_IN_LINE and name not in taught and status.state is not None and status.state in standing.tree
        ]
        aside, lost = self._of(others)
        return Sets((*judged, *(exam_of(probe, 0) for probe in self.probes)), tuple(aside), tuple(gone + lost))

    def line(self, path: Sequence[Learned], exams: Sequence[Exam]) -> Line:
        """What is asked of models of this line."""
        return Line([classes(learned.classes) for learned in path], exams, self.candidates)

    @property
    def candidates(self) -> Literal["own", "seen"]:
        """What sets are asked among.

        Raises:
            ConfigError: all classes of a stream that is not over.
        """
        if self.config.stream.candidates == "all":
            raise ConfigError(
                f"{self.config.name}: stream.candidates: found all, and `update` does not know the classes still to come; use seen or own"
            )
        return self.config.stream.candidates

    def _of(self, learned: Iterable[tuple[int | None, Learned]]) -> tuple[list[Exam], list[str]]:
        exams, gone = [], []
        for place, each in learned:
            arrivals = self.then(each)
            there = arrivals.there().get(each.session) if arrivals else None
            for asked in each.exam:
                if arrivals is None or there is None or (each.content and there.content != each.content):
                    gone.append(asked.name)
                else:
                    exams.append(_exam(asked, place, arrivals, each.session))
        return exams, gone

    def then(self, learned: Learned) -> Arrivals | None:
        """The stream as it is cut by the settings under which a session was learned; None where they, or the data, are of no use."""
        key = json.dumps(learned.config.get("stream"), sort_keys=True)
        if key not in self._others:
            try:
                arrivals = self._arrivals(TypeAdapter(StreamConfig).validate_python(learned.config.get("stream")))
                arrivals.there()
                self._others[key] = arrivals
            except (ValidationError, EvergreenError):
                self._others[key] = None
        return self._others[key]

    def waiting(self, standing: Standing) -> list[Arrival]:
        """The sessions that are to be learned, in order: those that nobody has spoken of, and those to be tried again."""
        again = {name for name, status in standing.sessions.items() if status.word in (Word.AGAIN, Word.BEGUN)}
        return [each for name, each in self.arrivals.there().items() if name not in standing.sessions or name in again]

    def remarks(self, standing: Standing) -> list[str]:
        """What is to be told of sessions that were learned and are other ones now, or absent."""
        there = self.arrivals.there()
        changed = [
            learned.session
            for learned in standing.line
            if learned.content
            and learned.session in there
            and there[learned.session].content != learned.content
            and self._same_cut(learned)
        ]
        absent = [each.session for each in standing.line if each.session not in there and each.session not in standing.tombstones]
        told = [f"learned, and other data now: {some(changed)}; they stay as they were learned"] if changed else []
        told += [f"learned, and absent now: {some(absent)}; what they taught stays"] if absent else []
        lost = len(self.arrivals.gaps) - sum(name not in there for name in standing.sessions)
        return told + ([f"sessions that nobody learned are gone: {lost} of the numbers {some(self.arrivals.gaps)}"] if lost > 0 else [])

    def _same_cut(self, learned: Learned) -> bool:
        try:  # read as settings of now: those that came later are at their default
            was: StreamConfig = TypeAdapter(StreamConfig).validate_python(learned.config.get("stream"))
        except ValidationError:
            return False
        return was == self.config.stream


@functools.lru_cache(maxsize=1)
def work(job: Job) -> Work:
    """The work of a job, kept while the same one is asked for.

    Raises:
        ConfigError: settings that no model can go on with.
    """
    made = Work(job)
    if made.config.joint:
        raise ConfigError(
            f"{made.config.name}: joint: found true, which learns every session at once; `evergreen run` does, `update` goes on"
        )
    return made


def classes(told: Classes) -> tuple[ClassName, ...]:
    """Classes as a history has them."""
    return tuple(ClassName(name, tuple(prompts)) for name, prompts in told)


def told(known: Iterable[ClassName]) -> Classes:
    """Classes as a history keeps them."""
    return tuple((each.name, each.prompts) for each in known)


def asked_sets(session: Session) -> tuple[AskedSet, ...]:
    """The sets of a session as a history keeps them."""
    return tuple(
        AskedSet(name=each.name, kind=each.kind, content=each.data.content(), classes=told(each.classes)) for each in session.tests
    )


def identity_of(stream: StreamConfig) -> dict[str, Any]:
    """What tells one stream from another: its kind and where its data lie."""
    return {"kind": stream.kind, "sources": sorted(source.path for source in stream.sources.values())}


def _exam(asked: AskedSet, place: int | None, arrivals: Arrivals, session: str) -> Exam:
    def rows() -> ImageTable:
        return arrivals.test_rows(session)

    return Exam(asked.name, asked.kind, asked.content, classes(asked.classes), place, rows)


def look(job: Job) -> None:
    """List the sessions of a collection, for all of a job's work: what comes in later is of another version of the data.

    What cannot be read is told by who needs it.
    """
    with suppress(EvergreenError):
        arrivals = work(job).arrivals
        if arrivals.grows:
            arrivals.there()
