"""A method made of parts: terms that are minimised, a tuner that moves, a memory, a merge, and rounds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any, Literal, Self, get_args

from jaxtyping import Float, Int
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods import view
from cl.methods.base import Batch, Method
from cl.methods.lesson import Lesson, plain_batch
from cl.methods.memories.base import Memory
from cl.methods.merges.base import Merge
from cl.methods.part import Part
from cl.methods.rounds.base import Rounds
from cl.methods.rows import lacking, teaching
from cl.methods.terms.base import Rows, Term
from cl.methods.tuners.base import Tuner, base, earlier
from cl.methods.view import Kind, Site, View
from cl.models.clip import Clip
from cl.models.flops import alike
from cl.streams.stream import Session

Candidates = Literal["lesson", "seen", "batch"]


class Recipe(Method):
    """Builds the view of a step, asks each term, sums.

    The order of a session, written here and nowhere else. It begins: the merge puts back the weights that training goes on from, the
    memory mixes, the tuner begins, teachers freeze, the merge starts, terms begin. It ends: the merge closes, terms end, the memory
    stores, the tuner ends, teachers go.

    Args:
        clip: the model, which the recipe may change.
        seed: of all it draws.
        tuner: over that clip.
        terms: by the name that their tensors have in a state, in the order in which they are asked.
        memory: of earlier sessions, or none.
        merge: of weights, or none.
        rounds: of a session; default: one.
        cache: whether image features are computed once a lesson; the tuner moves none.
        candidates: the classes that compete: of the session and its exemplars, of all seen so far, or of the batch alone.
        drop_last: whether an epoch's last, short batch is left out where no setting says it.
    """

    steps_apart = True

    def __init__(
        self,
        clip: Clip,
        seed: int,
        *,
        tuner: Tuner,
        terms: Mapping[str, Term],
        memory: Memory | None = None,
        merge: Merge | None = None,
        rounds: Rounds | None = None,
        cache: bool = False,
        candidates: Candidates = "lesson",
        drop_last: bool = True,
    ) -> None:
        super().__init__(clip, seed)
        if rounds and merge and merge.along:
            raise MethodError(
                "merge and rounds: a mean of the weights along a session has no meaning where rounds begin again from the same weights; "
                "choose a merge that is made when the session is over"
            )
        self.tuner, self.terms = tuner, nn.ModuleDict(dict(terms))
        self.memory, self.merge, self.several = memory, merge, rounds
        self.compete, self.drop_last, self.cache = candidates, drop_last, cache
        self.lesson: Lesson | None = None
        self._ready()
        self._wanted = list(dict.fromkeys(kind for term in self._terms() for kind in sorted(term.needs().teachers)))
        # a teacher is no memory: kept out of the module tree, it is neither saved nor trained
        self._teachers: dict[str, Tuner] = {"original": base(clip)} if "original" in self._wanted else {}

    def units(self) -> dict[str, int]:
        """Its own, and each part's."""
        return super().units() | {type(part).__name__: part.version for _, part in self._parts()} | {"view": view.VERSION}

    def bounds(self) -> dict[str, dict[str, str | int]]:
        """Of each part that has tensors of its own."""
        return {name: {"kind": type(part).__name__, **part.bound()} for name, part in self._parts() if part.state_dict()}

    def _parts(self) -> Iterator[tuple[str, Part]]:
        """Each under the name that its tensors begin with in a state."""
        yield "tuner", self.tuner
        yield from ((f"terms.{name}", term) for name, term in zip(self.terms, self._terms(), strict=True))
        yield from ((name, part) for name, part in (("memory", self.memory), ("merge", self.merge), ("rounds", self.several)) if part)

    def _terms(self) -> Iterator[Term]:
        yield from self.terms.values()  # type: ignore[misc]  # a ModuleDict knows modules only

    def _ready(self) -> None:
        """Which terms the lesson under way asks, by name, and what a batch of it holds."""
        pairs = zip(self.terms, self._terms(), strict=True)
        self.speaking = tuple((name, term) for name, term in pairs if not self.lesson or not self.lesson.silences(name))
        self.beside = tuple(sorted({what for _, term in self.speaking for what in term.needs().beside}))
        known = self.cache or (self.lesson is not None and self.lesson.features is not None)
        self.pixels = not known or any(what.startswith("partner") for what in self.beside)  # images that no feature was computed of

    def trainable(self) -> Iterable[nn.Parameter]:
        """What the tuner moves, and what the terms bring."""
        return chain(self.tuner.weights().values(), *(term.parameters() for term in self._terms()))

    def descending(self) -> Iterable[nn.Parameter]:
        """Of those, what the lesson under way is for."""
        weights = self.tuner.of(self.lesson.tower) if self.lesson and self.lesson.tower else self.tuner.weights()
        return chain(weights.values(), *(term.parameters() for _, term in self.speaking))

    def sources(self) -> tuple[str, ...]:
        """Those of its terms, and of the models that they name."""
        return (*(digest for term in self._terms() for digest in term.sources()), *(each.clip.digest() for each in self._named()))

    def _named(self) -> list[Tuner]:
        """The models that terms name, read once they are asked for."""
        names = [kind for kind in self._wanted if kind not in get_args(Kind)]
        for name in names:
            self._teachers[name] = self._teachers.get(name) or earlier(name, self.clip)
        return [self._teachers[name] for name in names]

    def check(self, session: Session) -> None:
        """Rows that teach, and whatever each part asks for."""
        rows = self._rows(session)
        self._named()
        for check in (self.tuner.check, self.several.check) if self.several else (self.tuner.check,):
            check(session)
        if not len(rows) and not (self.several and self.several.bare):
            raise MethodError(lacking(session, self._asked()))
        for term in self._terms():
            term.check(self.tuner, session, rows)

    def rounds(self, session: Session) -> Iterator[ImageTable]:
        """The table of each lesson."""
        known = tuple(range(len(session.vocabulary)))
        compete = known if self.compete == "seen" else session.classes
        first = Lesson(session.index, self._rows(session), session.vocabulary, compete, by_batch=self.compete == "batch")
        self.vocabulary = session.vocabulary
        site = self._site(session, first)
        if self.merge:
            self.merge.before(site)
        if self.memory:
            first = self.memory.mix(first)
        self.tuner.begin(session, first.names)
        self.rate = self.tuner.rate(session)
        self._named()
        if "session" in self._wanted:
            self._teachers["session"] = self.tuner.frozen()
        site = self._site(session, first)
        for part in ([self.merge.start] if self.merge else []) + [term.begin for term in self._terms()]:
            part(site)
        self.lesson, self.turns = first, 1
        lessons = self.several.lessons(first, site) if self.several else iter((first,))
        for lesson in lessons if self.tuner.moves(session) else ():
            self.turns = self.several.count() if self.several else 1
            self.lesson = lesson
            self._ready()
            if not self.pixels:
                self._look(lesson)
            yield lesson.data

    def _look(self, lesson: Lesson) -> None:
        """Compute the image features of a lesson's rows by whatever will be asked for them; the session's teacher has the student's."""
        if lesson.features is None:
            self.tuner.know(lesson.data)
        else:
            self.tuner.known = lesson.features
        for kind, teacher in self._teachers.items():
            if kind == "session" and "image" in self.tuner.fixed:
                teacher.known = self.tuner.known
            else:
                teacher.know(lesson.data)

    @property
    def candidates(self) -> tuple[int, ...]:
        """The classes that compete in the lesson under way, or the last."""
        return self.lesson.candidates if self.lesson else ()

    def begin(self, session: Session) -> ImageTable:
        """The rows of the first lesson."""
        return next(self.rounds(session))

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The losses of all terms."""
        assert self.lesson is not None
        own = View(batch, self.lesson, self.tuner, self.seed, full=self.full, teacher=self.teacher, chunk=self.chunk)
        step = own.gathered()
        losses: dict[str, Tensor] = {}
        # chunks are encoded again on the way back, when the step is over: then the weights are made anew each time
        with nullcontext() if self.chunk else self.tuner.step():
            for kind, term in self.speaking:
                losses |= {f"{kind}.{name}" if name in losses else name: loss for name, loss in term(step).items()}
        return losses

    def teacher(self, kind: str) -> Tuner:
        """A frozen teacher, where the student is."""
        teacher = self._teachers[kind]
        teacher.clip.to(self.clip.device)
        return teacher.to(self.clip.device)

    def before_step(self) -> None:
        """The tuner may edit gradients."""
        self.tuner.before_step()

    def after_step(self) -> None:
        """The tuner may clamp, the merge looks on."""
        self.tuner.after_step()
        if self.merge:
            self.merge.step(self.tuner.weights())

    def end(self, session: Session) -> None:
        """As the class says."""
        assert self.lesson is not None
        site = self._site(session, self.lesson)
        if self.merge:
            self.merge.close(site)
        for term in self._terms():
            term.end(site)
        if self.memory:
            self.memory.store(site, self._rows(session))
        self.tuner.end(session)
        self._teachers.pop("session", None)
        for encoder in (self.tuner, *self._teachers.values()):
            encoder.forget()
        self.lesson = replace(self.lesson, features=None)

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """What the rounds noted."""
        return self.several.record(session, truth) if self.several else []

    def midway(self) -> dict[str, Tensor]:
        """What each part holds in the middle of a session, under its name."""
        return {f"{name}/{key}": tensor for name, part in self._parts() for key, tensor in part.midway().items()}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Each part gets its own back."""
        for name, part in self._parts():
            part.resume({key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")})

    def folded(self) -> Clip | None:
        """As the tuner has it."""
        return self.tuner.folded()

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length image features."""
        return self.tuner.image(images)

    def encode_text(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit-length text features."""
        return self.tuner.text(tokens)

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """What `classify` compares images with."""
        return self.tuner.answers(classes)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k d"]) -> Float[Tensor, "b k"]:
        """Scaled cosines."""
        return self.tuner.scale() * self.tuner.image(images) @ features.T

    def _asked(self) -> Rows:
        """Which rows teach: those that the tuner and every term which chooses can use."""
        asked = {needs for needs in (self.tuner.rows, *(term.needs().rows for term in self._terms())) if needs}
        narrow: tuple[Rows, ...] = ("labelled", "captioned", "supervised")
        return "any" if "any" in asked and not self.tuner.rows else next((rows for rows in narrow if rows in asked), "any")

    def _rows(self, session: Session) -> ImageTable:
        return teaching(session, self._asked())

    def _site(self, session: Session, lesson: Lesson) -> Site:
        visits = 0.0 if self.several else self.visits  # each round has rows of its own
        return Site(self.tuner, session, lesson, self.seed, self.teacher, self._views(lesson), self.cache, visits)

    def _views(self, lesson: Lesson) -> Callable[[ImageTable, int], Iterator[View]]:
        def views(table: ImageTable, size: int) -> Iterator[View]:
            blocks = [range(start, min(start + size, len(table))) for start in range(0, len(table), size)]
            of, last = replace(lesson, data=table, own=None, by_batch=False, groups=None, features=None), None
            for rows in alike(blocks, [len(rows) for rows in blocks]):
                batch = plain_batch(self.clip, table.take(list(rows)), lesson, rows)
                last = View(batch, of, self.tuner, self.seed, full=size, teacher=self.teacher, after=last)
                yield last

        return views

    def train(self, mode: bool = True) -> Self:
        """Change the mode, but for a clip that the tuner leaves as it is."""
        super().train(mode)
        if self.tuner.resting:
            self.clip.eval()
        return self
