"""How a session moved the embedding space: Mod-X's angles between models, in degrees (arXiv:2305.07437, section 3).

No labels are needed: each image stands with one text, both are encoded before and after, and the angles tell what turned.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cl.evaluation.evaluate import at_rest, spread
from cl.methods.base import Method
from cl.methods.losses import kept_rows
from cl.streams.stream import EvalSet


class Pairs(NamedTuple):
    """Unit-length features of images and their texts, fp64."""

    images: Float[Tensor, "n d"]
    texts: Float[Tensor, "n d"]


def pairs(method: Method, examined: EvalSet, limit: int) -> Pairs:
    """Features of at most `limit` images of a set, evenly spread, each with its first caption or its class's first prompt."""
    data = spread(examined.data, limit)
    prompts = {known.name: known.prompts[0] for known in examined.classes}
    texts = [own[0] if own else prompts[label or ""] for own, label in zip(data.captions, data.labels, strict=True)]
    if examined.kind == "classify":
        texts = [prompts[label or ""] for label in data.labels]
    transform = method.clip.transform()
    with at_rest(method):
        images = method.encode_image(torch.stack([transform(data.image(row)) for row in range(len(data))]).to(method.clip.device))
        return Pairs(images.double().cpu(), method.encode_text(method.tokens(texts)).double().cpu())


def angles(one: Float[Tensor, "n d"], two: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Degrees between all rows, 0 to 180. Rows are normalised in fp64, where the arc cosine near 1 still means something."""
    unit = [torch.nn.functional.normalize(rows.double(), dim=-1) for rows in (one, two)]
    return torch.rad2deg(torch.arccos((unit[0] @ unit[1].T).clamp(-1, 1)))


def structure_change(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> float:
    """SAM: by how many degrees the angle between two different samples changed, mean; NaN for a single sample."""
    change = (angles(before, before) - angles(after, after)).abs()
    return _mean(change[~torch.eye(len(change), dtype=torch.bool)])


def rotation(before: Float[Tensor, "n d"], after: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """RAM: by how many degrees each sample turned."""
    return angles(before, after).diagonal()


def deviation(before: Pairs, after: Pairs) -> Float[Tensor, "n n"]:
    """IDM: change of the angle between image a and text b, in degrees; not zero where the modalities turned differently."""
    return angles(after.images, after.texts) - angles(before.images, before.texts)


def modality_gap(features: Pairs) -> float:
    """Distance between the mean image and the mean text on the unit sphere, 0 to 2 (arXiv:2203.02053)."""
    return float((features.images.mean(0) - features.texts.mean(0)).norm())


def geometry(before: Pairs, after: Pairs) -> dict[str, float]:
    """All of it as plain numbers; `kept`: share of pairs that the later model ranks first, the rows that Mod-X would align from then on.

    >>> one = Pairs(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    >>> turned = Pairs(one.images.flip(0), one.texts)
    >>> found = geometry(one, turned)
    >>> [round(found[name]) for name in ("ram_image", "ram_text", "sam_image", "idm_pairs", "idm_others")]
    [90, 0, 0, 90, 90]
    """
    turned, own = deviation(before, after).abs(), torch.eye(len(before.images), dtype=torch.bool)
    cosines = after.images @ after.texts.T
    right = (before.texts[:, None] == before.texts[None]).all(-1)
    return {
        "ram_image": _mean(rotation(before.images, after.images)),
        "ram_text": _mean(rotation(before.texts, after.texts)),
        "sam_image": structure_change(before.images, after.images),
        "sam_text": structure_change(before.texts, after.texts),
        "idm_pairs": _mean(turned[own]),
        "idm_others": _mean(turned[~own]),
        "modality_gap": modality_gap(after),
        "kept_i2t": _mean(kept_rows(cosines, right).double()),
        "kept_t2i": _mean(kept_rows(cosines.T, right.T).double()),
    }


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else float(np.nan)
