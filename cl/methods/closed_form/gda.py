"""Gaussian discriminant analysis beside zero-shot CLIP: no training, and the sessions' statistics simply add up (arXiv:2402.04087)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.closed_form import em
from cl.methods.closed_form.em import Held, assigned
from cl.methods.closed_form.gate import DISTANCES
from cl.methods.closed_form.judging import Looked
from cl.methods.closed_form.moments import Metric, Moments, inverse, left_out
from cl.methods.closed_form.sums import BLOCK, Sums, SumsConfig
from cl.methods.closed_form.taught import Taught, named
from cl.methods.features import ClassRows
from cl.methods.rows import teaching
from cl.models.clip import Clip
from cl.streams.stream import Session
from cl.text import plural

Share = Annotated[float, Field(gt=0, le=1)]
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)  # of which `auto` chooses
_JUDGED = 1 << len(ALPHAS)  # the bit of a row that they were tried on
_UNJUDGED = 1.0  # alpha where no row was
_NOTHING = 1e-9  # rows, of a class of which a mixture finds none


class GDASettings(SumsConfig):
    """What can be set of Gaussian discriminant analysis, and of what is the same under other settings."""

    alpha: Literal["auto", "alone"] | NonNegativeFloat = Field(
        "auto",
        description="weight beside zero-shot; auto: of 0.1, 1, ... 10,000 that with which most rows are right when left out; alone: no "
        "zero-shot but for classes never taught",
    )
    precision: Literal["pooled", "identity"] = Field(
        "pooled", description="of the covariance within classes; or none: cosines with class means, times the model's scale"
    )
    shrinkage: Literal["ks"] | Share = Field(
        "ks", description="as Kubokawa and Srivastava have it; or the share of the identity that is mixed into the covariance"
    )
    unlabelled: Literal["leave_out", "em"] = Field(
        "leave_out",
        description="em: rows without a label teach the session's classes too, as a mixture of Gaussians that begins with what is answered "
        "by labels so far, or by zero-shot, and that labelled rows hold",
    )
    unlearnable: bool = Field(False, description="keep each class's second moment, so that a class can be forgotten without its images")

    def wants(self) -> tuple[str, ...]:
        """Labels, or none at all where those are found."""
        return (*self.learns, "unlabelled") if self.unlabelled == "em" else self.learns

    def build(self, clip: Clip, seed: int) -> "GDA":
        """Gaussian discriminant analysis beside the clip, which stays as it is."""
        return GDA(clip, seed, self)


class GDAConfig(GDASettings):
    """Gaussian discriminant analysis on frozen features beside zero-shot, with no training."""

    former: ClassVar[Mapping[str, Any]] = {"alpha": 1.0}

    name: Literal["gda"] = "gda"


class GDA(Sums):
    """Zero-shot logits plus alpha times those of Gaussian classes with one covariance and equal priors.

    What it keeps is the same in any order and split of labelled rows. What follows from which sessions there were is `alpha: auto`, for
    what a row would be answered without itself is noted when its session is added, among the classes of then, and how much of a row
    without a label is of which class.
    """

    version = 2
    younger: ClassVar[tuple[str, ...]] = (*Sums.younger, "apart")

    def __init__(self, clip: Clip, seed: int, config: GDASettings) -> None:
        super().__init__(clip, seed, config)
        self.config = config
        self.moments = Moments(self.width)
        if config.unlearnable:
            self.apart = ClassRows(self.width**2)  # each class's second moment

    def units(self) -> dict[str, int]:
        """Its classes, and where it takes part the mixture."""
        return super().units() | ({"em": em.VERSION} if self.config.unlabelled == "em" else {})

    def meaning(self) -> dict[str, str | int]:
        """What notes mean nothing without."""
        return super().meaning() | {"precision": self.config.precision, "shrinkage": str(self.config.shrinkage)}

    def change(self, taught: Taught, sign: int) -> None:
        """Add some rows, or take them out."""
        super().change(taught, sign)
        if self.config.unlearnable:
            names = list(dict.fromkeys(taught.names))
            own = [taught.wide[torch.tensor([each == name for each in taught.names])] for name in names]
            seconds = torch.stack([(rows.T @ rows).flatten() for rows in own])
            self.apart.add(names, sign * seconds)
            self.apart.leave_out(set(self.apart.names) - set(self.moments.sums.names))

    def check(self, session: Session) -> None:
        """A session needs a labelled row, or where labels are found one with or without, and classes."""
        if not len(self.bare(session)):
            super().check(session)

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows, or where labels are found all of them."""
        labelled = super().begin(session)
        return session.data if len(self.bare(session)) else labelled

    def bare(self, session: Session) -> ImageTable:
        """The rows whose labels are found."""
        by_em = self.config.unlabelled == "em" and session.classes
        return session.data.where([bool(by_em) and label is None for label in session.data.labels])

    def end(self, session: Session) -> None:
        """Add the session's labelled rows, and the others as far as they are of each class by what is known with these."""
        bare, rows, noted = self.bare(session), teaching(session, "labelled"), len(self.notes)
        if not len(bare):
            return super().end(session)
        classes = [session.vocabulary[index] for index in session.classes]
        looked, taught = self.seen(bare), self.read(rows) if len(rows) else None
        self.refuse_guesses(session, classes, looked.unit, taught.names if taught else ())  # before anything changes
        if taught:
            self.teach(taught, session.vocabulary)
        guess = self.ranked(looked, self.class_features(classes)).logits.softmax(1)
        self.weigh(looked.wide, [each.name for each in classes], guess)
        if taught:  # alpha is worth what it is beside all of these sums
            self.notes.keep(torch.arange(noted))
            self.note(taught, session.vocabulary)

    def weigh(self, x: Float[Tensor, "n d"], names: Sequence[str], guess: Float[Tensor, "n k"]) -> None:
        """Add rows as far as they are of each class, from a first guess; one of which nothing is found stays untaught."""
        weights = assigned(x, guess, Held.of(self.moments, names) if self.moments.count else None)
        some = (weights.sum(0) > _NOTHING).nonzero()[:, 0].tolist()
        names, weights = [names[place] for place in some], weights[:, some]
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            self.moments.weigh(names, x[part], weights[part])
            if self.config.unlearnable:
                seconds = torch.einsum("nk,nd,ne->kde", weights[part], x[part], x[part])
                self.apart.add(names, seconds.flatten(1))

    def refuse_guesses(self, session: Session, classes: Sequence[ClassName], unit: Float[Tensor, "n p"], labelled: Collection[str]) -> None:
        """Where some class has no label, here or before, zero-shot begins it.

        Raises:
            MethodError: it says hardly more than chance would, from which a mixture finds any classes but those that are meant.
        """
        if {each.name for each in classes} <= {*labelled, *self.moments.sums.names}:
            return
        guess = (self.clip.scale() * unit @ self.texts(classes).T).softmax(1)
        sure, least = float(guess.amax(1).mean()), 2 / len(classes)
        if sure < least:
            raise MethodError(
                f"session {session.index} ({session.name}): zero-shot gives its likeliest class {sure:.2f} on average, and finding the "
                f"classes of unlabelled rows needs {least:.2f} for {plural(len(classes), 'class', 'classes')}; label some rows of each, "
                "leave unlabelled at leave_out, or choose a model that knows them"
            )

    def forget(self, names: Sequence[str]) -> None:
        """Take whole classes out without their images, as if they had never been taught; what was noted since the first of them goes too.

        Raises:
            MethodError: one was never taught, or some of its images while unlearnable was off, so that not all of it is known.
        """
        if not self.config.unlearnable:
            raise MethodError("forgetting a class without its images needs what gda keeps with unlearnable: true; learn the sessions again")
        _, counts, known = self.moments.means(names)
        seconds, kept = self.apart.find(names)
        seconds = seconds.double().reshape(len(names), *self.moments.second.shape)
        whole = (seconds.diagonal(dim1=1, dim2=2).sum(1) - counts).abs() < 1e-6 * counts  # features have length 1
        for name, fine in zip(names, (known & kept & whole).tolist(), strict=True):
            if not fine:
                raise MethodError(
                    f"class {name!r} was not learned here, or not all of it while unlearnable was on, so it cannot be forgotten"
                )
        with torch.no_grad():
            self.moments.second.sub_(seconds.sum(0))
        for rows in (self.moments.sums, self.apart):
            rows.leave_out(names)
        gone = torch.tensor([named(name) for name in names], device=self.notes.classes.device)
        self.notes.keep_until(torch.isin(self.notes.classes, gone))
        if self.none.score not in DISTANCES:
            self.kept.keep(~torch.isin(self.kept.classes, gone))

    def discriminant(self, names: Sequence[str]) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"], Bool[Tensor, " k"]]:
        """Weights and biases of classes, zero for those never taught, and which were taught."""
        means, _, known = self.moments.means(names)
        if self.config.precision == "identity":
            return F.normalize(means, dim=1), means.new_zeros(len(means)), known
        metric, factor = self.pooled()
        weights = factor * means @ metric.inverse
        return weights, -(weights * means).sum(1) / 2, known

    def pooled(self) -> tuple[Metric, float]:
        """The inverse covariance as a metric and what it is multiplied with; a factor of 0 where no class varies."""
        return self.derived.of(self._sums(), "pooled", lambda: pooled(self.moments, self.config.shrinkage))

    def head(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k w"], Bool[Tensor, " k"]]:
        """Weights, bias and alpha of each class, and which were taught."""
        weights, bias, known = self.discriminant([each.name for each in classes])
        return torch.cat([weights, bias[:, None], bias.new_full((len(bias), 1), self.alpha())], 1), known

    def score(self, looked: Looked, zero_shot: Float[Tensor, "b k"], own: Float[Tensor, "k w"]) -> Float[Tensor, "b k"]:
        """Both classifiers together."""
        gaussian = (looked.wide @ own[:, :-2].T + own[:, -2]) * self.unit()
        return gaussian if self.config.alpha == "alone" else zero_shot + own[0, -1] * gaussian

    def unit(self) -> float:
        """Cosines are multiplied with what those with texts are."""
        return float(self.clip.scale()) if self.config.precision == "identity" else 1.0

    def alpha(self) -> float:
        """The weight beside zero-shot: what is set, or the least of those with which most rows were right when they were left out."""
        if isinstance(self.config.alpha, float):
            return self.config.alpha
        judged = self.notes.right[self.notes.right & _JUDGED > 0]
        if self.config.alpha == "alone" or not len(judged):
            return _UNJUDGED
        right = [int((judged >> place & 1).sum()) for place in range(len(ALPHAS))]
        return ALPHAS[right.index(max(right))]

    def compared(self, vocabulary: Sequence[ClassName]) -> dict[str, Tensor]:
        """The text features of taught classes by name, where alpha is chosen."""
        taught = set(self.moments.sums.names)
        classes = [each for each in vocabulary if each.name in taught]
        if self.config.alpha != "auto" or not classes:
            return {}
        return {each.name: feature for each, feature in zip(classes, self.texts(classes), strict=True)}

    def right(self, rows: Taught, text: Mapping[str, Tensor]) -> Int[Tensor, " n"]:
        """A bit for each alpha with which a row would be right with itself left out, and one for having tried."""
        if not text:
            return super().right(rows, text)
        names = list(text)
        own = torch.tensor([names.index(name) for name in rows.names], device=rows.wide.device)
        zero_shot = self.clip.scale() * rows.unit @ torch.stack(list(text.values())).T
        gaussian = self.without_itself(rows.wide, own, names)
        hits = [(zero_shot + alpha * gaussian).argmax(1) == own for alpha in ALPHAS]
        return sum((hit.long() << place for place, hit in enumerate(hits)), torch.full_like(own, _JUDGED))

    def without_itself(self, x: Float[Tensor, "n d"], own: Int[Tensor, " n"], names: Sequence[str]) -> Float[Tensor, "n k"]:
        """What rows score by statistics that each is left out of, but for what all classes of a row have in common."""
        means, counts, _ = self.moments.means(names)
        if self.config.precision == "identity":
            cosines = x @ F.normalize(means, dim=1).T
            rest = F.normalize(means[own] * counts[own][:, None] - x, dim=1)
            return self.unit() * cosines.scatter(1, own[:, None], (x * rest).sum(1, keepdim=True))
        metric, factor = self.pooled()
        return -factor / 2 * left_out(x, own, means, counts, metric) if factor else means.new_zeros(len(x), len(means))


def pooled(moments: Moments, shrinkage: Literal["ks"] | float) -> tuple[Metric, float]:
    """The inverse of the covariance within classes, shrunk, as a metric and a factor, whose product it is.

    With a number r: ((1 - r) S + r I)^-1 with S = scatter / n, as streaming LDA has it (arXiv:1909.01520). With ks: d ((n - 1) S +
    tr(S) I)^-1 with S = scatter / (n - 1) (Kubokawa and Srivastava): it exists with fewer samples than dimensions. Where no class
    varies at all (one sample each) it has nothing to estimate, and the factor is zero.
    """
    if shrinkage != "ks":
        return (moments.within(shrinkage), 1.0) if moments.count else (moments.flat(), 0.0)
    scatter = moments.scatter()
    trace = float(scatter.trace()) / max(moments.count - 1, 1)
    if trace <= 1e-12:
        return moments.flat(), 0.0
    return Metric(inverse(scatter, trace), 1.0), float(len(scatter))
