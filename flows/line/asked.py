"""What the states of a model's line answered to the sets they are judged by, image by image; asked again where that was not kept."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from cl.config import EvalConfig
from cl.data.table import ImageTable
from cl.evaluation.evaluate import evaluate, unpack
from cl.streams.stream import EvalSet
from flows.history.entries import Learned
from flows.learn.job import job_of
from flows.line.grow import method_of
from flows.line.view import step
from flows.line.work import work

Hits = Bool[np.ndarray, " images"]


class Asked:
    """A line of states and the sets whose images are still those that they were asked."""

    def __init__(self, path: Sequence[Learned], data_root: str | None = None, rev: str | None = None) -> None:
        """`path`: from the first session on; `rev`: a git revision of the data; default: as they are now.

        Raises:
            ConfigError, DataError: settings that this release does not know, or no such data.
        """
        self.path, self.at = path, work(job_of(path[-1].config, (), data_root, rev, whole=False))
        sets = self.at.sets(self.at.standing(), path)
        self.exams, self.gone = sets.judged, sets.gone
        self.line = self.at.line(path, self.exams)
        self.rows: list[ImageTable] = [exam.among(exam.classes).data for exam in self.exams]

    @property
    def evaluate(self) -> EvalConfig:
        """How sets are asked."""
        return self.at.config.evaluate

    def examined(self) -> list[EvalSet]:
        """The sets as the last state is asked them."""
        return [each.examined() for each in self.line.questions(len(self.path))]

    @property
    def taught(self) -> list[int]:
        """By set: the place of the session that teaches it; 0: a probe."""
        return [exam.taught or 0 for exam in self.exams]

    def hits(self, masks: Sequence[Hits]) -> list[list[Hits | None]]:
        """At the start and after each session, by set: which of the masked images are right; None where it was not asked."""
        steps = [step(self.at, self.line, self.path, number).hits for number in range(len(self.path) + 1)]
        return [
            [unpack(known[exam.name])[mask] if exam.name in known else None for exam, mask in zip(self.exams, masks, strict=True)]
            for known in steps
        ]

    def measured(self, masks: Sequence[Hits], tell: Callable[[int, int], None]) -> list[list[Hits | None]]:
        """The same, each state asked now about every masked image.

        Raises:
            StoreError: the weights of a state are gone.
        """
        config, hits = self.evaluate.model_copy(update={"limit": None}), list[list[Hits | None]]()
        for number in range(len(self.path) + 1):
            tell(number, len(self.path) + 1)
            method = method_of(self.at, self.path[number - 1]) if number else self.at.start.method
            questions = self.line.questions(number)
            whole = [each.examined() if number else each.at_first() for each in questions]
            cut = [
                EvalSet(each.name, each.kind, each.data.take(np.flatnonzero(mask).tolist()), each.classes)
                for each, mask in zip(whole, masks, strict=True)
                if mask.any()
            ]
            scores = evaluate(method, cut, config)
            hits.append([scores[each.name].hits if each.name in scores else np.zeros(0, bool) for each in whole])
        return hits
