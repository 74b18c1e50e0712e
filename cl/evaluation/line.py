"""The sets that examine a line of learned sessions, as they were first asked; none is read before somebody has to be asked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import DataError
from cl.evaluation.ask import Question
from cl.evaluation.cells import cell_name
from cl.evaluation.known import digest
from cl.streams.stream import EvalSet, Kind, Session, line_up, question


@dataclass(frozen=True)
class Exam:
    """One evaluation set: digest of its rows, its own classes, and who teaches it.

    `taught`: the place on the line of the session that does; 0: nobody, it is a probe; None: a session that is not in the line.
    """

    name: str
    kind: Kind
    content: str
    classes: tuple[ClassName, ...]
    taught: int | None
    rows: Callable[[], ImageTable]
    session: Session | None = None  # that teaches it, where it is at hand

    def among(self, classes: tuple[ClassName, ...]) -> EvalSet:
        """The set, to be asked among these classes.

        Raises:
            DataError: its rows are not those that were first asked.
        """
        rows = self.rows()
        if rows.content() != self.content:
            raise DataError(f"evaluation set {self.name!r}: its images are not those that were asked before; `dvc checkout` restores them")
        return EvalSet(self.name, self.kind, rows, classes)


def exam_of(test: EvalSet, taught: int | None, session: Session | None = None) -> Exam:
    """A set that is at hand."""
    return Exam(test.name, test.kind, test.data.content(), test.classes, taught, lambda: test.data, session)


class Line:
    """What is asked of models that grew session by session.

    `classes[p]` are those that the p-th session brought. With candidates `seen` a set is asked among all classes taught by then, and
    its own; before any session among those that were taught when it first came.
    """

    def __init__(self, classes: Sequence[Iterable[ClassName]], exams: Sequence[Exam], candidates: Literal["own", "seen"]) -> None:
        self.exams, self.candidates = tuple(exams), candidates
        self._named: dict[tuple[str, str, str], str] = {}  # questions by kind, content and classes: a thousand rows ask the same
        self._owns: dict[int, str] = {}
        self._known: list[tuple[ClassName, ...]] = [()]
        self._line_ups = [""]
        for fresh in classes:
            own = tuple(fresh)
            self._known.append(self._known[-1] + own)
            self._line_ups.append(line_up(self._line_ups[-1], own))

    @property
    def vocabulary(self) -> tuple[ClassName, ...]:
        """Every class that the line has taught, in order of arrival."""
        return self._known[-1]

    def known(self, after: int) -> tuple[ClassName, ...]:
        """The classes that were taught by then, in order of arrival."""
        return self._known[after]

    def known_cells(self, after: int, how: str) -> dict[str, str]:
        """By probe, the name of the cell about telling its images from those of what was taught by then; `how`: of `measured`."""
        ours = [each.content for each in self.exams if each.kind == "classify" and each.taught and each.taught <= after]
        probes = [each for each in self.exams if each.kind == "classify" and each.taught == 0]
        return {each.name: cell_name(digest(ours, each.content, self.known(after)), how) for each in probes}

    def questions(self, after: int, exams: Sequence[Exam] | None = None) -> list[Question]:
        """What is asked after so many sessions: all sets, or some of them."""
        names = {each.name for each in self._known[after]}
        return [self._question(each, after, names) for each in (self.exams if exams is None else exams)]

    def asked(self, after: int) -> list[str]:
        """The digests of `questions`, for who only looks up what was answered: a thousand states were asked a thousand sets."""
        names = {each.name for each in self._known[after]}
        reaches = (max(after, each.taught or 0) for each in self.exams)
        return [
            fixed or self._digest(each, reach, names if reach == after else None)
            for each, fixed, reach in zip(self.exams, self._fixed, reaches, strict=True)
        ]

    @cached_property
    def _fixed(self) -> list[str | None]:
        """By set, its digest where that is the same whatever was taught by then."""
        return [self._digest(each, 0, None) if self._alone(each) else None for each in self.exams]

    def _question(self, exam: Exam, after: int, taught: set[str]) -> Question:
        first = exam.taught or 0
        reach = max(after, first)
        return Question(
            exam.name,
            self._digest(exam, reach, taught if reach == after else None),
            self._digest(exam, first, None),
            lambda: exam.among(self._candidates(exam, reach)),
            lambda: exam.among(self._candidates(exam, first)),
            exam.session if exam.taught and exam.taught <= after else None,
        )

    def _alone(self, exam: Exam) -> bool:
        return exam.kind == "retrieve" or self.candidates == "own" or exam.taught == 0

    def _digest(self, exam: Exam, reach: int, taught: set[str] | None) -> str:
        if self._alone(exam):
            if id(exam) not in self._owns:
                self._owns[id(exam)] = line_up("", exam.classes)
            return self._name(exam, self._owns[id(exam)])
        return self._name(exam, line_up(self._line_ups[reach], self._fresh(exam, reach, taught)))

    def _name(self, exam: Exam, classes: str) -> str:
        asked = exam.kind, exam.content, classes
        if asked not in self._named:
            self._named[asked] = question(*asked)
        return self._named[asked]

    def _candidates(self, exam: Exam, reach: int) -> tuple[ClassName, ...]:
        return exam.classes if self._alone(exam) else self._known[reach] + self._fresh(exam, reach, None)

    def _fresh(self, exam: Exam, reach: int, taught: set[str] | None) -> tuple[ClassName, ...]:
        if exam.taught and exam.taught <= reach:
            return ()  # the session that teaches it has brought its classes
        known = {each.name for each in self._known[reach]} if taught is None else taught
        return tuple(each for each in exam.classes if each.name not in known)


def moved(exam: Exam, taught: int | None) -> Exam:
    """The same set in another line."""
    return replace(exam, taught=taught)
