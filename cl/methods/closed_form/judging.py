"""Heads on a frozen clip that say of an image whether it shows any of the classes that it is asked about."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import Method
from cl.methods.closed_form.base import ClosedForm
from cl.methods.closed_form.gate import DISTANCES, TEXTS, NoneConfig, text_score, threshold
from cl.methods.closed_form.growing import Kept
from cl.methods.closed_form.taught import Taught, labels, named, prints
from cl.methods.features import encoded
from cl.models.clip import Clip
from cl.models.unprojected import both
from cl.text import plural, some

_KEPT = 5  # features of each class, where a threshold has to be found anew for every list of names


class Looked(NamedTuple):
    """What is read off images, in double precision: what texts are compared with, and what sums are of."""

    unit: Float[Tensor, "b p"]
    wide: Float[Tensor, "b d"]


class Judged(NamedTuple):
    """Logits over the classes, and which images are familiar enough to show one of them; None: there is nothing to tell it by."""

    logits: Float[Tensor, "b k"]
    known: Bool[Tensor, " b"] | None


class Judging(ClosedForm):
    """Keeps of each class the features of up to five images, of those whose hash is smallest, where a score compares with texts.

    What such a score is worth follows from the names that are asked about, so that a threshold that was kept would be wrong as soon
    as those change. Scores that are distances have theirs from what sums note (`Sums`).
    """

    unprojected = False  # whether sums are of what the image tower says before its projection

    def __init__(self, clip: Clip, seed: int, none: NoneConfig) -> None:
        super().__init__(clip, seed)
        self.none = none
        if none.score not in DISTANCES:
            self.kept = Kept(int(clip.model_cfg["embed_dim"]))

    def look(self, images: Float[Tensor, "b 3 h w"]) -> Looked:
        """The features of images."""
        if self.unprojected:
            return Looked(*(features.double() for features in both(self.clip, images)))
        unit = self.encode_image(images).double()
        return Looked(unit, unit)

    def read(self, rows: ImageTable) -> Taught:
        """Labelled rows, as sums take them."""
        unit, wide = self.seen(rows)
        return Taught(labels(rows), wide, unit, prints(rows).to(unit.device))

    def seen(self, rows: ImageTable) -> Looked:
        """The features of a table's images."""
        if not self.unprojected:
            unit = encoded(self.encode_image, self.clip, rows).double()
            return Looked(unit, unit)
        both, width = encoded(lambda images: torch.cat(self.look(images), 1), self.clip, rows), int(self.clip.model_cfg["embed_dim"])
        return Looked(both[:, :width], both[:, width:])

    def texts(self, classes: Sequence[ClassName]) -> Float[Tensor, "k p"]:
        """Mean text feature of each class's prompts, in double precision."""
        return super().class_features(classes).double()

    def remember(self, taught: Taught) -> None:
        """Keep the features of some rows of each class."""
        if self.none.score in DISTANCES:
            return
        classes = torch.tensor([named(name) for name in taught.names], dtype=torch.int64)
        self.kept.append({"prints": taught.prints, "classes": classes, "features": taught.unit})
        order = sorted(zip(self.kept.classes.tolist(), self.kept.prints.tolist(), range(len(self.kept)), strict=True))
        stay = [row for at, (each, _, row) in enumerate(order) if at < _KEPT or order[at - _KEPT][0] != each]
        self.kept.keep(torch.tensor(stay, dtype=torch.int64))

    def least(self, classes: Sequence[ClassName], text: Float[Tensor, "k p"]) -> float:
        """How familiar an image has to be to show one of the classes; NaN where nothing tells it."""
        chosen = torch.isin(self.kept.classes, torch.tensor([named(each.name) for each in classes], device=text.device))
        cosines = self.kept.features[chosen].to(text) @ text.T
        return threshold(text_score(cosines, self.none.score, self.none.tau), self.none.reject)

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k m"]:
        """Per class its text feature, and how familiar an image has to be, the same for all of them."""
        text = self.texts(classes)
        return torch.cat([text, text.new_full((len(text), 1), self.least(classes, text))], 1)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """The logits of `judge`."""
        return self.judge(images, features).logits

    def judge(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Judged:
        """Zero-shot logits, and which images are familiar."""
        text, least = features[:, :-1], float(features[0, -1])
        cosines = self.look(images).unit @ text.T
        known = None if math.isnan(least) else text_score(cosines, self.none.score, self.none.tau) >= least
        return Judged(self.clip.scale() * cosines, known)

    def familiarities(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> dict[str, Float[Tensor, " b"]]:
        """How familiar images are by every score there is."""
        return by_texts(self.look(images).unit @ features[:, :-1].T)

    def untaught(self, classes: Sequence[ClassName]) -> list[str]:
        """The names that nothing is known of by which an image could be told to show none of the classes."""
        known = set(self.kept.classes.tolist())
        missing = [each.name for each in classes if named(each.name) not in known]
        return missing if len(missing) == len(classes) else []  # texts tell of a class without an image, once others set the threshold


def by_texts(cosines: Float[Tensor, "b k"]) -> dict[str, Float[Tensor, " b"]]:
    """How familiar images are by each score that compares them with texts."""
    return {score: text_score(cosines, score, 1.0) for score in TEXTS}


def familiarity(method: Method, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> dict[str, Float[Tensor, " b"]]:
    """How familiar images are to any method by every score it has: more is more familiar. `features`: its `class_features`."""
    if isinstance(method, Judging):
        return method.familiarities(images, features)
    return by_texts(method.classify(images, features).double() / method.clip.scale())


def shares_or_none(method: Method, classes: Sequence[ClassName], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
    """How sure a method is of each class, and in the last column of none of them, 1 or 0: rows of sum 1.

    Raises:
        MethodError: it has nothing to tell that by.
    """
    if not isinstance(method, Judging):
        raise MethodError(
            "none of these: this model's method does not tell it; learn with ridge or gda, or with zero_shot and none: {score: mcm}"
        )
    if missing := method.untaught(classes):
        raise MethodError(
            f"none of these: {plural(len(missing), 'name was', 'names were')} never taught ({some(missing)}), and an image's distance from "
            "what was taught does not tell whether it shows one of them; leave them out, or learn with none: {score: mcm}"
        )
    logits, known = method.judge(images, method.class_features(classes))
    if known is None:
        raise MethodError(
            "none of these: no class has two images that this release has learned, so that there is no threshold; learn more of one, or "
            "learn the sessions again"
        )
    none = (~known).double()[:, None]
    return torch.cat([logits.double().softmax(-1) * (1 - none), none], 1)
