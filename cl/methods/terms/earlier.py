"""What an earlier model makes of a session's rows: images once for each, where no step crops them anew, and classes once."""

from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from cl.methods.view import Site, View

CHUNK = 256  # images or texts encoded at a time
_MOST = 1 << 30  # bytes of features that are kept; more is computed at each step
TEACHER = "session: the model as this session found it; original: the base model"
EARLIER = "original: the base model; or a model by its name, such as local-dir:PATH, of the same architecture"


class Taught(NamedTuple):
    """An earlier model's features of a session, as far as they do not depend on the step."""

    model: str
    images: Float[Tensor, "rows d"] | None  # of the lesson's rows; None: a step computes its own
    classes: Float[Tensor, "v d"]  # by position in the vocabulary; zeros where a class does not compete

    @classmethod
    def of(cls, model: str, at: Site) -> Self:
        """As a session begins."""
        teacher, lesson = at.teacher(model), at.lesson
        width = int(at.tuner.clip.model_cfg["embed_dim"])
        classes = torch.zeros(len(lesson.vocabulary), width, device=at.tuner.clip.device, dtype=at.tuner.clip.dtype)
        images = None
        with torch.no_grad():
            for start in range(0, len(lesson.candidates), CHUNK):
                places = list(lesson.candidates[start : start + CHUNK])
                classes[places] = teacher.classes([lesson.vocabulary[place] for place in places]).to(classes)
            if at.visits > 1 and not at.cached and len(lesson.data) * width * 4 <= _MOST:
                images = torch.cat([view.through(model).images for view in at.views(lesson.data, CHUNK)])
        return cls(model, images, classes)

    def of_images(self, view: View) -> Float[Tensor, "b d"]:
        """Of a batch's images."""
        return view.through(self.model).images if self.images is None else self.images[view.batch.rows]

    def of_texts(self, view: View) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]] | None:
        """The texts of a batch as they are now and as they were: the prompt of each labelled row's class, then captions."""
        now, then = [], []
        if view.some_labelled:
            now.append(view.classes[view.targets])
            then.append(self.classes[view.batch.labels[view.labelled]])
        if view.some_captioned:
            now.append(view.captions)
            then.append(view.through(self.model).captions)
        return (torch.cat(now), torch.cat(then)) if now else None
