"""What is learned, in which order: sessions, the sets that examine them, and the stream that holds both."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import pyarrow.compute as pc

from cl.data.classes import ClassName
from cl.data.table import ImageTable, concat
from cl.data.told import Told
from cl.errors import DataError
from cl.names import usable
from cl.text import plural, some

Candidates = Literal["own", "seen", "all"]
Kind = Literal["classify", "retrieve"]


@dataclass(frozen=True)
class EvalSet:
    """Images that measure a model and never teach it.

    `kind` classify: every row has a label and `classes` are the candidates. `kind` retrieve: every row has captions.

    Raises:
        DataError: no rows, or rows that lack what `kind` needs.
    """

    name: str
    kind: Kind
    data: ImageTable
    classes: tuple[ClassName, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.data):
            raise DataError(f"evaluation set {self.name!r}: no test image; add some, or leave the set out")
        if self.kind == "classify":
            _known(f"evaluation set {self.name!r}", self.data, self.classes, complete=True)
        elif bare := pc.sum(pc.equal(pc.list_value_length(self.data.index["captions"]), 0)).as_py():
            raise DataError(
                f"evaluation set {self.name!r}: {bare} of {plural(len(self.data), 'test image has', 'test images have')} no "
                f"caption; retrieval needs them all"
            )

    @cached_property
    def digest(self) -> str:
        """32 hex digits of the question: they change with any row, candidate or prompt, and not with what set or rows are called."""
        return question(self.kind, self.data.content(), line_up("", self.classes))


@dataclass(frozen=True)
class Session:
    """One increment of the stream.

    `vocabulary` lists every class known once this session is over, in order of arrival: a class keeps its index for
    ever, and a label is an index into it. `classes` are the indices this session teaches. `tests` examine it: one set,
    or several where sessions were joined.

    Raises:
        DataError: nothing to learn from, or a label outside the vocabulary.
    """

    index: int
    name: str
    data: ImageTable
    tests: tuple[EvalSet, ...]
    classes: tuple[int, ...]
    vocabulary: tuple[ClassName, ...]

    def __post_init__(self) -> None:
        if not len(self.data):
            raise DataError(f"session {self.name!r}: no training image; add some, or leave the session out")
        outside = [index for index in self.classes if not 0 <= index < len(self.vocabulary)]
        if outside:
            raise DataError(f"session {self.name!r}: class {outside[0]} is outside its vocabulary of {len(self.vocabulary)}")
        _known(f"session {self.name!r}", self.data, tuple(self.vocabulary[index] for index in self.classes), complete=False)

    @cached_property
    def digest(self) -> str:
        """32 hex digits that change with anything a method can learn from, and with nothing else.

        What examines the session is left out, and so are its name, its number (the sessions before it say that) and the ids of
        its rows: a session that is called otherwise teaches the same.
        """
        names = [(c.name, c.prompts) for c in self.vocabulary]
        return _hash(self.data.content(), self.classes, names)


@dataclass(frozen=True)
class Stream:
    """Sessions in order, and the probes that no session teaches.

    `told` is what is doubtful about it, or left out; no result depends on it.
    `withheld` holds, by the id of a training row, the label that exists and is not taught: to judge pseudolabels by, never to learn from.

    Raises:
        DataError: no session, sessions out of order, one that nothing examines, a class whose index moves, two evaluation sets of one
            name, or an unusable name.
    """

    name: str
    sessions: tuple[Session, ...]
    probes: tuple[EvalSet, ...] = ()
    candidates: Candidates = "own"
    withheld: Mapping[str, str] = field(default_factory=dict)
    told: tuple[Told, ...] = ()

    def __post_init__(self) -> None:
        numbers = [session.index for session in self.sessions]
        if not numbers or numbers != list(range(1, len(numbers) + 1)):
            raise DataError(f"stream {self.name!r}: sessions are numbered {numbers}; expected 1, 2, ... without a gap")
        if bare := [session.name for session in self.sessions if not session.tests]:
            raise DataError(f"session {bare[0]!r}: no evaluation set; a session needs one to show what was learned")
        for before, after in pairwise(self.sessions):
            if after.vocabulary[: len(before.vocabulary)] != before.vocabulary:
                raise DataError(
                    f"stream {self.name!r}: session {after.name!r} moves or renames a class of {before.name!r}; only append classes"
                )
        names = Counter(test.name for test in self.exam(0))
        for name in (*(session.name for session in self.sessions), *names):
            try:
                usable(name)
            except ValueError as error:
                raise DataError(f"stream {self.name!r}: {error}; rename it in the data, or give the session a name of its own") from error
        if twice := [name for name, count in names.items() if count > 1]:
            raise DataError(f"stream {self.name!r}: two evaluation sets are called {twice[0]!r}; give each its own name")

    @property
    def taught(self) -> tuple[int, ...]:
        """For each set of `exam`, the number of the session that teaches it; 0 for a probe."""
        return tuple(session.index for session in self.sessions for _ in session.tests) + (0,) * len(self.probes)

    @cached_property
    def digest(self) -> str:
        """32 hex digits that change with any session, test, probe or choice of candidates."""
        parts = [(session.name, session.digest, [(test.name, test.digest) for test in session.tests]) for session in self.sessions]
        return _hash(self.name, parts, [(probe.name, probe.digest) for probe in self.probes], self.candidates)

    def exam(self, after: int) -> tuple[EvalSet, ...]:
        """The evaluation sets after `after` sessions (0: before any), taught sets first, in a fixed order.

        With candidates `own` a set is asked among its own classes, with `all` among the whole stream's, with `seen`
        among those taught so far and its own.

        Raises:
            DataError: it has not so many sessions.
        """
        if not (isinstance(after, int) and 0 <= after <= len(self.sessions)):
            raise DataError(
                f"stream {self.name!r}: exam({after!r}): it has {plural(len(self.sessions), 'session')}; expected 0, for before any, "
                f"to {len(self.sessions)}"
            )
        return tuple(self.asked(test, session, after) for session in self.sessions for test in session.tests) + self.probes

    def questions(self, after: int) -> tuple[str, ...]:
        """The digests of the sets of `exam`, in the same order; no set is built for it, and no list of classes gone through again."""
        taught = [
            test.digest if reach is None else question(test.kind, test.data.content(), self._line_ups[reach])
            for session in self.sessions
            for test in session.tests
            for reach in [self._reach(session, test, after)]
        ]
        return tuple(taught) + tuple(probe.digest for probe in self.probes)

    def asked(self, test: EvalSet, session: Session | None, after: int) -> EvalSet:
        """A set of a session, or a probe of none, as it is asked after so many sessions."""
        reach = self._reach(session, test, after) if session else None
        return test if reach is None else replace(test, classes=self.sessions[reach - 1].vocabulary)

    def _reach(self, session: Session, test: EvalSet, after: int) -> int | None:
        """After how many sessions the classes were known that a set is asked among; None: among its own."""
        if test.kind == "retrieve" or self.candidates == "own":
            return None
        return len(self.sessions) if self.candidates == "all" else max(after, session.index)

    @cached_property
    def _line_ups(self) -> tuple[str, ...]:
        # of the vocabulary after each session, each from the one before it
        names, known = [""], 0
        for session in self.sessions:
            names.append(line_up(names[-1], session.vocabulary[known:]))
            known = len(session.vocabulary)
        return tuple(names)


def question(kind: Kind, content: str, classes: str) -> str:
    """32 hex digits for rows of that content, asked among the classes of a `line_up`."""
    return _hash(kind, content, classes)


def line_up(start: str, classes: Iterable[ClassName]) -> str:
    """A digest of candidates in order; `start` is that of those before them: a longer list does not go through the shorter one again.

    >>> a, b = ClassName("a", ("an a",)), ClassName("b", ("a b",))
    >>> line_up(line_up("", [a]), [b]) == line_up("", [a, b]), line_up("", [a, b]) == line_up("", [b, a])
    (True, False)
    """
    for each in classes:
        start = _hash(start, each.name, each.prompts)
    return start


def joint(stream: Stream, content: str | None = None) -> Stream:
    """The same data as one session: the usual upper bound. Every taught set stays a set of its own.

    `content`: that of all training rows (`cl.data.table.ImageTable.content`), where it is known.
    """
    last = stream.sessions[-1]
    # two sessions may teach the same image; its rows must not share an id once they lie in one table
    data = concat([session.data.under(session.name) for session in stream.sessions])
    session = Session(
        index=1,
        name="joint",
        data=data if content is None else data.known_as(content),
        tests=tuple(test for session in stream.sessions for test in session.tests),
        classes=tuple(sorted({index for session in stream.sessions for index in session.classes})),
        vocabulary=last.vocabulary,
    )
    withheld = {
        f"{session.name}/{row}": stream.withheld[row] for session in stream.sessions for row in session.data.ids if row in stream.withheld
    }
    return replace(stream, name=f"{stream.name} joint", sessions=(session,), withheld=withheld)


def _known(whose: str, data: ImageTable, classes: tuple[ClassName, ...], *, complete: bool) -> None:
    labels = data.index["label"]
    if complete and labels.null_count:
        raise DataError(
            f"{whose}: {labels.null_count} of {plural(len(data), 'image has', 'images have')} no label; classification needs them all"
        )
    strange = sorted(set(pc.unique(labels).to_pylist()) - {None} - {c.name for c in classes})
    if strange:
        raise DataError(
            f"{whose}: label {some([repr(label) for label in strange])} is not among its {plural(len(classes), 'class', 'classes')}"
        )


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
