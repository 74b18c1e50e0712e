"""Class names to classifier rows: prompts from templates, and the mean text feature of each class."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl.data.classes import ClassName
from cl.errors import ConfigError

# small sets in the manner of CLIP's (arXiv:2103.00020, appendix A); the first of each is the one trained on
PHOTO = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a good photo of a {}.",
    "a close-up photo of a {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "a drawing of a {}.",
)
AERIAL = (
    "an aerial photo of {}.",
    "a satellite photo of {}.",
    "a centered satellite photo of {}.",
    "aerial imagery of {}.",
    "{} seen from above.",
)
PLAIN = ("{}.",)
TEMPLATES = {"photo": PHOTO, "aerial": AERIAL, "plain": PLAIN}


def prompts_of(name: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The class name in each template, in order; underscores read as spaces.

    Raises:
        ConfigError: no template, or one without `{}`.

    >>> prompts_of("polar_bear", ("a photo of a {}.", "{}."))
    ('a photo of a polar bear.', 'polar bear.')
    """
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        given = repr(wrong[0]) if wrong else "no template"
        raise ConfigError(f"templates: found {given}, expected texts with one {{}} for the class name, such as 'a photo of a {{}}.'")
    return tuple(template.replace("{}", name.replace("_", " ")) for template in templates)


def class_features(
    encode_text: Callable[[Int[Tensor, "n t"]], Float[Tensor, "n d"]],
    tokenize: Callable[[Sequence[str]], Int[Tensor, "n t"]],
    classes: Sequence[ClassName],
    chunk: int = 256,
) -> Float[Tensor, "k d"]:
    """Row i: the mean of the unit features of class i's prompts, itself of unit length (arXiv:2103.00020, section 3.1.4).

    Each distinct prompt is encoded once, `chunk` at a time, with gradient wherever `encode_text` has one.
    """
    row = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompt for known in classes for prompt in known.prompts))}
    texts = list(row)
    features = torch.cat([encode_text(tokenize(texts[start : start + chunk])) for start in range(0, len(texts), chunk)])
    means = torch.stack([features[[row[prompt] for prompt in known.prompts]].mean(0) for known in classes])
    return torch.nn.functional.normalize(means, dim=-1)
